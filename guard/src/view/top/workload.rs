//! One workload: its latencies and their histogram, its threads, the quotas above it, and what happened to it when.

use ratatui::style::Style;
use ratatui::text::Line;

use guard_common::hist;

use super::super::figures;
use super::super::text::{class, time_of_day};
use super::grid::{Align, Column, Grid, column, log_bar, plain, trend};
use super::history::{Measure, budget_use, measured, name};
use super::overview;
use super::page::Page;
use super::state::App;
use crate::snapshot::{Cgroup, CgroupPath, Histogram, Latency, SignalName, Snapshot, Thread};

/// Events listed below the timeline.
const EVENTS: usize = 12;
/// Threads listed.
const THREADS: usize = 40;

pub(super) fn page(app: &App, snapshot: &Snapshot, width: usize) -> Page {
    let mut page = Page::default();
    let Some(cgroup) = overview::selected(app, snapshot) else {
        page.text("The workload has nothing in this interval. Esc goes back to the others.");
        return page;
    };
    let theme = app.options.theme;
    page.section(&name(cgroup), class(cgroup), theme);
    page.wrapped(&cgroup.path, 2, width, theme.faint());
    budgets(&mut page, cgroup);
    page.section("LATENCIES", "of this interval", theme);
    latencies(&mut page, app, cgroup, width);
    distribution(&mut page, app, cgroup, width);
    threads(&mut page, app, snapshot, cgroup, width);
    quotas(&mut page, app, snapshot, cgroup, width);
    timeline(&mut page, app, cgroup, width);
    page
}

fn budgets(page: &mut Page, cgroup: &Cgroup) {
    if cgroup.budgets.is_empty() {
        return;
    }
    let all: Vec<String> =
        cgroup.budgets.iter().map(|b| format!("{} at most {}", b.metric, figures::round_time(b.limit_ns))).collect();
    let used = budget_use(cgroup).map_or("nothing measured".to_owned(), |used| format!("{:.0} % used", used * 100.0));
    page.text(&format!("  budget: {}; {used}", all.join(", ")));
}

const LATENCY: [Column; 7] = [
    column("  what", Align::Left, 0),
    column("count", Align::Right, 1),
    column("p50", Align::Right, 2),
    column("p99", Align::Right, 0),
    column("p99.9", Align::Right, 3),
    column("max", Align::Right, 0),
    column("max since start", Align::Right, 4),
];

fn latencies(page: &mut Page, app: &App, cgroup: &Cgroup, width: usize) {
    let since = |metric: Measure| app.history.track(cgroup.id).map(|track| track.sum(metric));
    let rows: [(&str, &Latency, Option<Measure>); 7] = [
        ("timer: irq", &cgroup.timer.irq, None),
        ("timer: thread", &cgroup.timer.thread, Some(Measure::Thread)),
        ("timer: user", &cgroup.timer.user, Some(Measure::User)),
        ("wait, real-time", &cgroup.wakeup.rt, Some(Measure::Rt)),
        ("wait, fair", &cgroup.wakeup.fair, Some(Measure::Fair)),
        ("wait for quota", &cgroup.wakeup.throttled, None),
        ("wait for locks", &cgroup.lock.wait, None),
    ];
    let mut grid = Grid::new(&LATENCY);
    for (what, latency, metric) in rows.into_iter().filter(|(_, latency, _)| !latency.is_empty()) {
        let max = metric.and_then(since).map_or(figures::ABSENT.to_owned(), |sum| figures::time(sum.max_ns()));
        grid.push(plain([
            format!("  {what}"),
            latency.count().to_string(),
            figures::quantile(latency, 0.5),
            figures::quantile(latency, 0.99),
            figures::quantile(latency, 0.999),
            figures::max(latency),
            max,
        ]));
    }
    table(page, app, grid, width);
    if cgroup.timer.missed > 0 {
        page.text(&format!("  {} cycles missed", cgroup.timer.missed));
    }
}

/// Counts by powers of two of a microsecond, of the interval and since the start.
fn distribution(page: &mut Page, app: &App, cgroup: &Cgroup, width: usize) {
    let Some((metric, now)) = measured(cgroup) else { return };
    let now = octaves(now);
    let all = app.history.track(cgroup.id).map(|track| octaves(track.sum(metric))).unwrap_or(now);
    let (Some(first), Some(last)) = (all.iter().position(|n| *n > 0), all.iter().rposition(|n| *n > 0)) else { return };
    let title = format!("{} since start (bars, by logarithm) and in this interval (last column)", metric.name());
    page.section("HISTOGRAM", &title, app.options.theme);
    let most = all.iter().copied().max().unwrap_or(1);
    let room = width.saturating_sub(38).clamp(4, 80);
    for octave in first..=last {
        let (from, to) = if octave == 0 { (0, 2) } else { (1_u64 << octave, 1_u64 << (octave + 1)) };
        let range = format!("{:>7} ..{:>7}", edge(from), edge(to));
        let bar = log_bar(all[octave], most, room);
        let text = format!("  {range} {:>9} ", all[octave]);
        let tail = if now[octave] > 0 { format!(" {}", now[octave]) } else { String::new() };
        page.body.push(Line::from(vec![
            text.into(),
            ratatui::text::Span::styled(bar, app.options.theme.bar()),
            tail.into(),
        ]));
    }
}

/// Powers of two of a microsecond that the histogram's range has, and one for what is longer.
const OCTAVES: usize = 25;

/// Counts by octave: index 0 is below 2 us, index n from 2^n us on.
fn octaves(histogram: &Histogram) -> [u64; OCTAVES] {
    let mut octaves = [0_u64; OCTAVES];
    for (index, count) in histogram.indexed() {
        let us = hist::lower_ns(index) / 1_000;
        let octave = usize::try_from(us.max(1).ilog2()).unwrap_or(0).min(OCTAVES - 1);
        octaves[octave] = octaves[octave].saturating_add(count);
    }
    octaves
}

fn edge(us: u64) -> String {
    match us {
        0..1_024 => format!("{us} us"),
        1_024..1_048_576 => format!("{} ms", us / 1_024),
        _ => format!("{} s", us / 1_048_576),
    }
}

const THREAD: [Column; 9] = [
    column("  comm", Align::Left, 0),
    column("tid", Align::Right, 2),
    column("sched", Align::Left, 1),
    column("CPUs", Align::Left, 6),
    column("period", Align::Right, 4),
    column("timer p99", Align::Right, 3),
    column("timer max", Align::Right, 0),
    column("wake max", Align::Right, 5),
    column("late", Align::Right, 0),
];

fn threads(page: &mut Page, app: &App, snapshot: &Snapshot, cgroup: &Cgroup, width: usize) {
    let own: Vec<&Thread> = snapshot.threads.iter().filter(|t| t.cgroup == cgroup.path).collect();
    if own.is_empty() {
        return;
    }
    page.section("THREADS", &format!("{} watched, worst first", own.len()), app.options.theme);
    let mut grid = Grid::new(&THREAD);
    for thread in own.iter().take(THREADS) {
        let [_, p99, max] = figures::timer(&thread.timer);
        let sched =
            if thread.prio > 0 { format!("{} {}", thread.policy, thread.prio) } else { thread.policy.to_string() };
        grid.push(plain([
            format!("  {}", thread.comm),
            thread.tid.to_string(),
            sched,
            thread.affinity.clone().unwrap_or_else(|| figures::ABSENT.to_owned()),
            thread.period_ns.map_or(figures::ABSENT.to_owned(), figures::round_time),
            p99,
            max,
            figures::max(&thread.wakeup),
            figures::count_if(snapshot.sees(SignalName::Breach), thread.breaches),
        ]));
    }
    table(page, app, grid, width);
    if own.len() > THREADS {
        page.text(&format!("  and {} more", own.len() - THREADS));
    }
}

const QUOTA: [Column; 4] = [
    column("  cgroup", Align::Name, 0),
    column("quota", Align::Left, 0),
    column("throttles", Align::Right, 0),
    column("throttled", Align::Right, 1),
];

/// The quotas that can hold the workload back: its own and every ancestor's.
fn quotas(page: &mut Page, app: &App, snapshot: &Snapshot, cgroup: &Cgroup, width: usize) {
    page.section("QUOTAS", "of the cgroup and everything above it", app.options.theme);
    let mut grid = Grid::new(&QUOTA);
    let mut path = Some(cgroup.path.as_str());
    while let Some(at) = path {
        let known = snapshot.cgroups.iter().find(|c| c.path == at);
        let quota = match known {
            None => "did nothing in this interval".to_owned(),
            Some(c) => c.throttle.quota.map_or("none".to_owned(), figures::quota),
        };
        let seen = known.is_some_and(|c| c.throttle.source.is_some());
        let throttle = known.map(|c| (c.throttle.count, c.throttle.total_ns)).unwrap_or_default();
        grid.push(plain([
            format!("  {at}"),
            quota,
            figures::count_if(seen, throttle.0),
            figures::time_if(seen && throttle.0 > 0, throttle.1),
        ]));
        path = CgroupPath::of(at).parent();
    }
    table(page, app, grid, width);
}

/// What happened in the last intervals, one column each, and the last events.
fn timeline(page: &mut Page, app: &App, cgroup: &Cgroup, width: usize) {
    let Some(number) = app.shown_number() else { return };
    let room = width.saturating_sub(14).min(100);
    let history: Vec<&Snapshot> = app.history.last(number, room).collect();
    page.section(
        "TIMELINE",
        &format!("the last {} intervals, the newest to the right", history.len()),
        app.options.theme,
    );
    let of = |s: &&Snapshot, figure: fn(&Cgroup) -> u64| s.cgroups.iter().find(|c| c.id == cgroup.id).map_or(0, figure);
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let strips: [(&str, Vec<u64>); 4] = [
        ("worst", history.iter().map(|s| of(s, |c| measured(c).map_or(0, |(_, l)| l.max_ns()))).collect()),
        (
            "throttled",
            history.iter().map(|s| of(s, |c| c.wakeup.throttled.sum_ns().max(c.throttle.total_ns))).collect(),
        ),
        (
            "late",
            history.iter().map(|s| count(s.breaches.iter().filter(|b| b.cgroup == cgroup.path).count())).collect(),
        ),
        (
            "actions",
            history.iter().map(|s| count(s.actions.iter().filter(|a| concerns(&a.path, cgroup)).count())).collect(),
        ),
    ];
    for (what, values) in strips {
        let strip = ratatui::text::Span::styled(trend(values.into_iter()), app.options.theme.bar());
        page.body.push(Line::from(vec![format!("  {what:<10}").into(), strip]));
    }
    let mut events: Vec<(&str, String)> = Vec::new();
    for snapshot in &history {
        let late = snapshot.breaches.iter().filter(|b| b.cgroup == cgroup.path);
        events.extend(late.map(|b| (b.at.as_str(), format!("late {}: {}", figures::time(b.latency_ns), b.sentence))));
        let done = snapshot.actions.iter().filter(|a| concerns(&a.path, cgroup));
        events.extend(
            done.map(|a| (a.at.as_str(), format!("{} of {}: {} -> {}, {}", a.knob, a.path, a.old, a.new, a.reason))),
        );
    }
    events.sort();
    for (at, text) in events.iter().rev().take(EVENTS) {
        let time: String = time_of_day(at).chars().take(12).collect();
        page.wrapped(&format!("{time} {text}"), 2, width, Style::new());
    }
}

/// Whether a change of the cgroup at `path` reaches the workload: it is the same or above it.
fn concerns(path: &str, cgroup: &Cgroup) -> bool {
    CgroupPath::of(path).contains(&cgroup.path)
}

fn table(page: &mut Page, app: &App, grid: Grid<'_>, width: usize) {
    let (head, rows) = grid.lines(width, app.options.theme.faint());
    page.body.push(head);
    page.body.extend(rows);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octaves_begin_at_two_microseconds() {
        let mut histogram = Histogram::default();
        [0, 1_999, 2_000, 3_999, 4_000, u64::MAX].iter().for_each(|ns| histogram.record(*ns));
        let octaves = octaves(&histogram);
        assert_eq!((octaves[0], octaves[1], octaves[2], octaves[OCTAVES - 1]), (2, 2, 1, 1));
    }

    #[test]
    fn a_change_above_reaches_a_workload_and_one_beside_does_not() {
        let cgroup = Cgroup { path: "/a/b".into(), ..Cgroup::default() };
        assert!(["/", "/a", "/a/b"].iter().all(|path| concerns(path, &cgroup)));
        assert!(!["/a/b/c", "/a/bc", "/x", "/a/"].iter().take(3).any(|path| concerns(path, &cgroup)));
    }
}

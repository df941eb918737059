//! What happened when: the worst latency of each interval, and below it throttles, CPU time that was taken from real-time
//! threads, late wake-ups and what guard did.

use jiff::Timestamp;

use super::chart::{Log, Svg, WIDTH};
use super::page;
use crate::snapshot::{SignalName, Snapshot};
use crate::view::figures;

const LEFT: f64 = 84.0;
const RIGHT: f64 = WIDTH - 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 210.0;
/// Height of a strip.
const STRIP: f64 = 22.0;
/// Points across the page; more intervals than that share one.
const COLUMNS: u32 = 430;

/// What the timeline shows of one Snapshot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moment {
    /// Its begin; `None` when the Snapshot has no valid instant.
    start: Option<Timestamp>,
    seconds: f64,
    /// Largest timer latency of a watched thread, ns; `None` when no timer was seen.
    timer_ns: Option<u64>,
    /// Largest wait for a CPU of real-time tasks, ns.
    wait_ns: Option<u64>,
    /// How often each of [`STRIPS`] happened; `None` where it cannot be seen.
    happened: [Option<u64>; 4],
}

const STRIPS: [&str; 4] = ["late", "throttles", "RT put off", "actions"];

impl Moment {
    /// Of one Snapshot.
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let throttled = snapshot.cgroups.iter().any(|cgroup| cgroup.throttle.source.is_some());
        let throttles = total(snapshot.cgroups.iter().map(|cgroup| cgroup.throttle.count));
        let taken = total(snapshot.cpus.iter().flat_map(|cpu| [cpu.rt_throttle.count, cpu.fair_server.count]));
        Self {
            start: snapshot.window.start.parse().ok(),
            seconds: snapshot.window.seconds,
            timer_ns: snapshot.threads.iter().filter_map(|t| Some(t.timer.last_stage()?.1.max_ns())).max(),
            wait_ns: snapshot.cgroups.iter().map(|c| &c.wakeup.rt).filter(|l| !l.is_empty()).map(|l| l.max_ns()).max(),
            happened: [
                snapshot.sees(SignalName::Breach).then(|| late(snapshot)),
                throttled.then_some(throttles),
                snapshot.sees(SignalName::RtThrottle).then_some(taken),
                Some(snapshot.actions.len() as u64),
            ],
        }
    }

    /// Takes in one that shares its place on the page.
    fn absorb(&mut self, other: &Self) {
        self.timer_ns = self.timer_ns.max(other.timer_ns);
        self.wait_ns = self.wait_ns.max(other.wait_ns);
        for (mine, theirs) in self.happened.iter_mut().zip(other.happened) {
            *mine = match (*mine, theirs) {
                (Some(a), Some(b)) => Some(a.saturating_add(b)),
                (a, b) => a.or(b),
            };
        }
    }
}

/// The timeline, where there is more than one Snapshot to show.
pub(super) fn section(moments: &[Moment]) -> String {
    let placed: Vec<(f64, &Moment)> = moments
        .iter()
        .filter_map(|moment| {
            let since = moment.start?.duration_since(moments.first()?.start?);
            Some((since.as_secs_f64().max(0.0), moment))
        })
        .collect();
    let whole_s = placed.iter().map(|(at, moment)| at + moment.seconds).fold(0.0, f64::max);
    if placed.len() < 2 || whole_s <= 0.0 {
        return String::new();
    }
    let mut columns = vec![Moment::default(); COLUMNS as usize];
    for (at_s, moment) in &placed {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the page")]
        let column = ((at_s / whole_s) * f64::from(COLUMNS)) as usize;
        columns[column.min(COLUMNS as usize - 1)].absorb(moment);
    }
    page::section(
        "Timeline",
        &format!("{} intervals over {}", placed.len(), seconds(whole_s)),
        &drawn(&columns, whole_s, placed.first().and_then(|(_, moment)| moment.start)),
    )
}

fn drawn(columns: &[Moment], whole_s: f64, start: Option<Timestamp>) -> String {
    #[allow(clippy::cast_precision_loss, reason = "where a line stands on a page")]
    let float = |n: u64| n as f64;
    let values = || columns.iter().flat_map(|column| [column.timer_ns, column.wait_ns]).flatten().map(float);
    let (least, most) = (values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max));
    let strips = f64::from(4_u8) * STRIP;
    let mut svg = Svg::new(BOTTOM + strips + 72.0);
    let x = |column: usize| LEFT + (column as f64 + 0.5) / f64::from(COLUMNS) * (RIGHT - LEFT);
    if most > 0.0 {
        let y = Log::new(least.max(100.0), most, BOTTOM, TOP);
        svg.upright_axis(&y, LEFT, RIGHT, true);
        let series: [fn(&Moment) -> Option<u64>; 2] = [|moment| moment.wait_ns, |moment| moment.timer_ns];
        for (number, series) in [(2, series[0]), (0, series[1])] {
            let mut line = String::new();
            for (at, ns) in columns.iter().enumerate().filter_map(|(at, column)| Some((at, series(column)?))) {
                line += &format!("{}{:.1} {:.1}", if line.is_empty() { 'M' } else { 'L' }, x(at), y.at(float(ns)));
            }
            if !line.is_empty() {
                svg.path(&format!("c s{number}"), &line);
            }
        }
    }
    let step = (RIGHT - LEFT) / f64::from(COLUMNS);
    for (number, name) in STRIPS.into_iter().enumerate() {
        let top = BOTTOM + 8.0 + number as f64 * STRIP;
        svg.text("", "end", LEFT - 8.0, top + STRIP / 2.0 + 4.0, name);
        svg.line("grid", LEFT, top + STRIP - 3.0, RIGHT, top + STRIP - 3.0);
        if columns.iter().all(|column| column.happened[number].is_none()) {
            svg.text("", "start", LEFT + 4.0, top + STRIP / 2.0 + 4.0, "not seen");
        }
        let times = columns.iter().enumerate().map(|(at, column)| (at, column.happened[number].unwrap_or(0)));
        for (at, n) in times.filter(|(_, n)| *n > 0) {
            // A single one can be seen, and many more so.
            let height = (6.0 + 3.0 * float(n).log10()).min(STRIP - 5.0);
            svg.rect("f1", x(at) - step / 2.0, top + STRIP - 3.0 - height, step.max(2.0), height);
        }
    }
    let axis = BOTTOM + 8.0 + strips;
    svg.line("axis", LEFT, axis, RIGHT, axis);
    for part in 0..=4_u8 {
        let share = f64::from(part) / 4.0;
        let at = LEFT + share * (RIGHT - LEFT);
        svg.line("axis", at, axis, at, axis + 5.0);
        let anchor = match part {
            0 => "start",
            4 => "end",
            _ => "middle",
        };
        svg.text("", anchor, at, axis + 19.0, &instant(start, share * whole_s));
    }
    let legend = axis + 42.0;
    for (number, at, text) in
        [(0, LEFT, "worst timer latency of a thread"), (2, LEFT + 270.0, "worst wait of a real-time task for a CPU")]
    {
        svg.line(&format!("c s{number}"), at, legend - 4.0, at + 34.0, legend - 4.0);
        svg.text("name", "start", at + 42.0, legend, text);
    }
    svg.figure(
        "Worst latency of each interval, late wake-ups, throttles and actions",
        "Below the curves: how often it happened; a higher bar is ten times as often.",
    )
}

/// Time of day (UTC) at so many seconds.
fn instant(start: Option<Timestamp>, after_s: f64) -> String {
    let at = jiff::SignedDuration::try_from_secs_f64(after_s).ok().and_then(|after| start?.checked_add(after).ok());
    at.map_or_else(|| figures::ABSENT.to_owned(), |at| at.strftime("%H:%M:%S").to_string())
}

fn seconds(s: f64) -> String {
    if s < 600.0 { format!("{s:.0} s") } else { format!("{:.0} min", s / 60.0) }
}

/// All of them; a damaged report may claim more than fits.
pub(super) fn total(counts: impl Iterator<Item = u64>) -> u64 {
    counts.fold(0, u64::saturating_add)
}

/// Late wake-ups, recorded or not.
pub(super) fn late(snapshot: &Snapshot) -> u64 {
    (snapshot.breaches.len() as u64).saturating_add(snapshot.overhead.lost.breaches)
}

//! The report for people: laid out for a terminal of 80 to 120 columns, worst first, without colour or escape
//! sequences, so that it reads the same over ssh, in a file and in a ticket.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::figures::{self, printable};
use super::table::{ColumnKind, Table, TableRow};
use crate::snapshot::{
    Cgroup, CgroupLayout, Cpu, Lost, Signal, SignalName, SignalState, Snapshot, Stolen, Thread, Throttle,
};

/// Rows of a table before the rest is only counted.
const ROWS: usize = 20;
/// Late wake-ups listed one by one.
const BREACHES: usize = 10;

/// The whole report as text, at most `width` characters wide where names can be cut to it.
#[must_use]
pub fn render(snapshot: &Snapshot, width: usize) -> String {
    let mut out = String::new();
    header(snapshot, &mut out);
    threads(snapshot, width, &mut out);
    cgroups(snapshot, width, &mut out);
    cpus(snapshot, width, &mut out);
    breaches(snapshot, &mut out);
    blind_spots(snapshot, &mut out);
    cost(snapshot, &mut out);
    out
}

fn header(snapshot: &Snapshot, out: &mut String) {
    let node = &snapshot.node;
    let realtime = if node.realtime { "PREEMPT_RT" } else { "not PREEMPT_RT" };
    let layout = match node.cgroup {
        CgroupLayout::V1 => "cgroup v1",
        CgroupLayout::V2 => "cgroup v2",
        CgroupLayout::Hybrid => "cgroup v1 for cpu, v2 beside it",
        CgroupLayout::None => "no cpu cgroups",
    };
    line(
        out,
        &format!(
            "{}: kernel {} {}, {realtime}, CPUs {}, {layout}",
            printable(&node.hostname),
            printable(&node.kernel),
            printable(&node.arch),
            printable(&node.cpus)
        ),
    );
    line(out, &format!("measured from {} for {:.1} s", printable(&snapshot.window.start), snapshot.window.seconds));
}

fn threads(snapshot: &Snapshot, width: usize, out: &mut String) {
    if snapshot.threads.is_empty() {
        heading(out, "THREADS", "no real-time thread was seen; others can be named with --tid");
        return;
    }
    heading(out, "THREADS", &format!("{}, worst first", counted(snapshot.threads.len(), "watched thread")));

    let names: HashMap<&str, &Cgroup> = snapshot.cgroups.iter().map(|c| (c.path.as_str(), c)).collect();
    let mut table = Table::new(&[
        ("comm", ColumnKind::Left),
        ("tid", ColumnKind::Right),
        ("sched", ColumnKind::Left),
        ("cgroup", ColumnKind::Path(10)),
        ("period", ColumnKind::Spare(3)),
        ("timer p50", ColumnKind::Spare(2)),
        ("timer p99", ColumnKind::Right),
        ("timer max", ColumnKind::Right),
        ("wake p99", ColumnKind::Spare(0)),
        ("wake max", ColumnKind::Spare(1)),
        ("missed", ColumnKind::Spare(4)),
        ("late", ColumnKind::Right),
    ]);
    let counts_late = snapshot.sees(SignalName::Breach);
    for thread in snapshot.threads.iter().take(ROWS) {
        let [p50, p99, max] = figures::timer(&thread.timer);
        table.push(TableRow {
            cells: vec![
                printable(&thread.comm).into_owned(),
                thread.tid.to_string(),
                scheduling(thread),
                names
                    .get(thread.cgroup.as_str())
                    .map_or_else(|| printable(&thread.cgroup).into_owned(), |cgroup| figures::cgroup_name(cgroup)),
                thread.period_ns.map_or_else(|| figures::ABSENT.to_owned(), figures::round_time),
                p50,
                p99,
                max,
                figures::quantile(&thread.wakeup, 0.99),
                figures::max(&thread.wakeup),
                figures::count_if(thread.period_ns.is_some(), thread.timer.missed),
                figures::count_if(counts_late, thread.breaches),
            ],
            notes: thread_notes(thread),
        });
    }
    table.render(width, out);
    more(out, snapshot.threads.len());
    // Over all threads: those below the last row count too.
    let fallen_back = snapshot.threads.iter().filter(|thread| falls_back(thread)).count();
    if fallen_back > 0 {
        let (of, end) = match fallen_back {
            1 => ("1 thread".to_owned(), "its timer figures end when it was on its CPU"),
            n => (format!("{n} threads"), "their timer figures end when they were on their CPU"),
        };
        line(out, &format!("  * Return to user space not seen, of {of}: {end}."));
        // Else the last lines of the report say why.
        if snapshot.sees(SignalName::User) {
            line(out, "    Threads without restartable sequences show none: kernel threads, musl, Go.");
        }
    }
}

fn falls_back(thread: &Thread) -> bool {
    thread.timer.last_stage().is_some_and(|(stage, _)| stage != "user")
}

pub(super) fn scheduling(thread: &Thread) -> String {
    let policy = printable(thread.policy.as_str());
    if thread.prio > 0 { format!("{policy} {}", thread.prio) } else { policy.into_owned() }
}

fn thread_notes(thread: &Thread) -> Vec<String> {
    let mut notes = Vec::new();
    if thread.exited {
        notes.push("ended while it was watched".to_owned());
    }
    if thread.user_estimated > 0 {
        notes.push(format!(
            "{} of {} timer figures end at the interrupt: the thread had not left its CPU",
            thread.user_estimated,
            thread.timer.user.count()
        ));
    }
    notes
}

fn cgroups(snapshot: &Snapshot, width: usize, out: &mut String) {
    if snapshot.cgroups.is_empty() {
        heading(out, "CGROUPS", "none with activity");
        return;
    }
    heading(out, "CGROUPS", &format!("{} with activity, worst first", counted(snapshot.cgroups.len(), "cgroup")));

    let by_path: HashMap<&str, &Cgroup> = snapshot.cgroups.iter().map(|c| (c.path.as_str(), c)).collect();
    let mut table = Table::new(&[
        ("cgroup", ColumnKind::Path(16)),
        ("class", ColumnKind::Left),
        ("RT p50", ColumnKind::Spare(1)),
        ("RT p99", ColumnKind::Right),
        ("RT max", ColumnKind::Right),
        ("fair p50", ColumnKind::Spare(0)),
        ("fair p99", ColumnKind::Right),
        ("fair max", ColumnKind::Right),
        ("quota wait", ColumnKind::Spare(4)),
        ("throttles", ColumnKind::Right),
        ("lock max", ColumnKind::Spare(3)),
        ("boosts", ColumnKind::Spare(2)),
    ]);
    let sees_locks = snapshot.sees(SignalName::Lock);
    for cgroup in snapshot.cgroups.iter().take(ROWS) {
        let wakeup = &cgroup.wakeup;
        table.push(TableRow {
            cells: vec![
                figures::cgroup_name(cgroup),
                class(cgroup).to_owned(),
                figures::quantile(&wakeup.rt, 0.5),
                figures::quantile(&wakeup.rt, 0.99),
                figures::max(&wakeup.rt),
                figures::quantile(&wakeup.fair, 0.5),
                figures::quantile(&wakeup.fair, 0.99),
                figures::max(&wakeup.fair),
                figures::max(&wakeup.throttled),
                figures::count_if(cgroup.throttle.source.is_some(), cgroup.throttle.count),
                figures::max(&cgroup.lock.wait),
                figures::count_if(sees_locks, cgroup.lock.boosts),
            ],
            notes: throttle_note(cgroup, &by_path).into_iter().collect(),
        });
    }
    table.render(width, out);
    more(out, snapshot.cgroups.len());
}

pub(super) fn class(cgroup: &Cgroup) -> &'static str {
    use crate::snapshot::Class;
    match cgroup.class {
        Class::Plc => "PLC",
        Class::Lse => "LSE",
        Class::Lsr => "LSR",
        Class::Ls => "LS",
        Class::Be => "BE",
        Class::System => "SYSTEM",
    }
}

/// Whose quota held the cgroup back, in one line; nothing when none did.
pub(super) fn throttle_note(cgroup: &Cgroup, by_path: &HashMap<&str, &Cgroup>) -> Option<String> {
    let by = cgroup.throttle.by.as_deref()?;
    if by == cgroup.path {
        return Some(format!("throttled by its own quota{}", throttles(&cgroup.throttle)));
    }
    let ancestor = by_path.get(by).map(|a| throttles(&a.throttle)).unwrap_or_default();
    Some(format!("held back by the quota of {}{ancestor}", printable(by)))
}

fn throttles(throttle: &Throttle) -> String {
    let mut text = String::new();
    if let Some(quota) = throttle.quota {
        text += &format!(" of {}", figures::quota(quota));
    }
    if throttle.source.is_some() {
        text += &format!(": {}", times(throttle.count, throttle.total_ns));
        if !throttle.duration.is_empty() {
            text += &format!(", longest {}", figures::max(&throttle.duration));
        }
    }
    if let Some(stat) = throttle.cpu_stat {
        text += &format!(
            "; cpu.stat: {} of {} periods, {}",
            stat.nr_throttled,
            stat.nr_periods,
            figures::time_if(stat.nr_throttled > 0, stat.throttled_ns)
        );
    }
    text
}

fn cpus(snapshot: &Snapshot, width: usize, out: &mut String) {
    heading(out, "CPUS", "interrupts while a real-time thread was runnable; real-time threads put off their CPU");
    let (irq, rt_throttle) = (snapshot.sees(SignalName::Irq), snapshot.sees(SignalName::RtThrottle));
    if !irq && !rt_throttle {
        line(out, "  Not seen on this node.");
        return;
    }

    let mut table = Table::new(&[
        ("cpu", ColumnKind::Right),
        ("hardirq", ColumnKind::Right),
        ("longest", ColumnKind::Spare(0)),
        ("softirq", ColumnKind::Right),
        ("longest", ColumnKind::Spare(0)),
        ("RT throttling", ColumnKind::Right),
        ("fair server", ColumnKind::Right),
    ]);
    let busy: Vec<&Cpu> = snapshot.cpus.iter().filter(|cpu| harmed(cpu)).collect();
    for cpu in busy.iter().take(ROWS) {
        table.push(TableRow { cells: cpu_cells(cpu, irq, rt_throttle), notes: vec![] });
    }
    if !busy.is_empty() {
        table.render(width, out);
        more(out, busy.len());
    }
    let quiet = snapshot.cpus.len() - busy.len();
    if quiet > 0 {
        line(
            out,
            &format!("  {} without any of these.", counted(quiet, if busy.is_empty() { "CPU" } else { "more CPU" })),
        );
    }
}

pub(super) fn harmed(cpu: &Cpu) -> bool {
    cpu.hardirq.while_rt_ns > 0 || cpu.softirq.while_rt_ns > 0 || cpu.rt_throttle.count > 0 || cpu.fair_server.count > 0
}

pub(super) fn times(count: u64, total_ns: u64) -> String {
    match count {
        0 => "0".to_owned(),
        1 => format!("once, {}", figures::time(total_ns)),
        _ => format!("{count} times, {}", figures::time(total_ns)),
    }
}

fn breaches(snapshot: &Snapshot, out: &mut String) {
    if !snapshot.sees(SignalName::Breach) {
        return;
    }
    match snapshot.breaches.len() {
        0 => heading(out, "LATE WAKE-UPS", "none was recorded"),
        n => heading(out, "LATE WAKE-UPS", &format!("{}, worst first", counted(n, "record"))),
    }
    let mut worst: Vec<_> = snapshot.breaches.iter().collect();
    worst.sort_by_key(|b| std::cmp::Reverse(b.latency_ns));
    for breach in worst.iter().take(BREACHES) {
        line(
            out,
            &format!(
                "  {}  {:>8}  {}",
                printable(time_of_day(&breach.at)),
                figures::time(breach.latency_ns),
                printable(&breach.sentence)
            ),
        );
    }
    if worst.len() > BREACHES {
        line(out, &format!("  and {} more", worst.len() - BREACHES));
    }
}

/// What a CPU's row says, figures that are not seen absent: its number, interrupts while a real-time thread was runnable
/// (`irq`), what was taken from real-time threads (`taken`).
pub(super) fn cpu_cells(cpu: &Cpu, irq: bool, taken: bool) -> Vec<String> {
    let stolen = |s: Stolen| if taken { times(s.count, s.total_ns) } else { figures::ABSENT.to_owned() };
    vec![
        cpu.cpu.to_string(),
        figures::time_if(irq, cpu.hardirq.while_rt_ns),
        figures::time_if(irq, cpu.hardirq.max_ns),
        figures::time_if(irq, cpu.softirq.while_rt_ns),
        figures::time_if(irq, cpu.softirq.max_ns),
        stolen(cpu.rt_throttle),
        stolen(cpu.fair_server),
    ]
}

/// The time of an RFC 3339 instant to the microsecond, without its date.
pub(super) fn time_of_day(at: &str) -> &str {
    let time = at.split_once('T').map_or(at, |(_, time)| time).trim_end_matches('Z');
    time.char_indices().nth(15).map_or(time, |(end, _)| &time[..end])
}

fn blind_spots(snapshot: &Snapshot, out: &mut String) {
    out.push('\n');
    let listed = |states: &[SignalState]| {
        snapshot.signals.iter().filter(|s| states.contains(&s.state)).map(told).collect::<Vec<_>>().join("; ")
    };
    let (unseen, partly) = (listed(&[SignalState::Unavailable, SignalState::Off]), listed(&[SignalState::Degraded]));
    let lost = lost(&snapshot.overhead.lost);
    for (what, text) in [("not seen", &unseen), ("seen in part", &partly), ("lost", &lost)] {
        if !text.is_empty() {
            line(out, &format!("{what}: {text}"));
        }
    }
    if unseen.is_empty() && partly.is_empty() && lost.is_empty() && !snapshot.signals.is_empty() {
        line(out, "guard saw every signal in full and lost nothing");
    }
}

fn told(signal: &Signal) -> String {
    let name = printable(signal.name.as_str());
    match (&signal.reason, signal.state) {
        (Some(reason), _) => format!("{name} ({})", printable(reason)),
        (None, SignalState::Off) => format!("{name} (turned off)"),
        (None, _) => name.into_owned(),
    }
}

/// What was lost, in words; empty when nothing was.
pub(super) fn lost(lost: &Lost) -> String {
    [
        (lost.missed_events, "events that guard's programs never got"),
        (lost.collisions, "wake-ups of tasks whose tids share a record"),
        (lost.other_cgroups, "wake-ups counted under (other): too many cgroups"),
        (lost.unwatched_threads, "real-time threads without a slot"),
        (lost.breaches, "late wake-ups without a record"),
        (lost.failed_reads, "failed reads of kernel memory"),
        (lost.past_timers, "timers armed in the past or on a clock that was set"),
        (lost.dropped_threads, "ended threads not listed: too many"),
    ]
    .into_iter()
    .filter(|(n, _)| *n > 0)
    .map(|(n, what)| format!("{n} {what}"))
    .collect::<Vec<_>>()
    .join("; ")
}

pub(super) fn cost(snapshot: &Snapshot, out: &mut String) {
    let overhead = &snapshot.overhead;
    #[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let mut text = format!(
        "guard itself: {:.2} % of one CPU, {:.1} MiB of memory, {:.1} MiB of kernel maps",
        overhead.cpu_fraction * 100.0,
        mib(overhead.memory_bytes),
        mib(overhead.map_bytes)
    );
    if let (Some(events), Some(ns)) = (overhead.events, overhead.ns_per_event) {
        // Writing to a String cannot fail.
        let _ = write!(text, ", {events} events of {ns:.0} ns each");
    }
    if let Some(rest_ns) = overhead.user_rest_ns {
        let _ = write!(text, "; {rest_ns} ns added to each user stage, as measured at start");
    }
    line(out, &text);
}

fn heading(out: &mut String, name: &str, text: &str) {
    out.push('\n');
    line(out, &format!("{name}  {text}"));
}

fn more(out: &mut String, rows: usize) {
    if rows > ROWS {
        line(out, &format!("  and {} more", rows - ROWS));
    }
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn counted(n: usize, noun: &str) -> String {
    match n {
        1 => format!("1 {noun}"),
        _ => format!("{n} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::view::samples;

    fn section<'a>(report: &'a str, name: &str) -> Vec<&'a str> {
        report.lines().skip_while(|l| !l.starts_with(name)).take_while(|l| !l.is_empty()).collect()
    }

    #[test]
    fn the_header_names_node_kernel_and_window() {
        let report = render(&samples::full(), 120);
        let head: Vec<&str> = report.lines().take(2).collect();
        assert_eq!(
            head,
            [
                "cell-7: kernel 6.1.0-56-rt-amd64 x86_64, PREEMPT_RT, CPUs 0-3, cgroup v2",
                "measured from 2026-11-22T00:11:00Z for 10.0 s",
            ]
        );
    }

    #[test]
    fn threads_show_scheduling_container_and_chosen_units() {
        let report = render(&samples::full(), 140);
        assert_eq!(
            section(&report, "THREADS"),
            [
                "THREADS  2 watched threads, worst first",
                "  comm    tid  sched    cgroup          period  timer p50  timer p99  timer max  wake p99  wake max  missed  late",
                "  cycle  1234  FIFO 80  plc-1 [podman]    1 ms      12 us     1.9 ms     1.9 ms      5 us      5 us       2     1",
                "  irq/9    77  FIFO 50  /                    -     40 us*     40 us*     40 us*         -         -       -     0",
                "      ended while it was watched",
                "  * Return to user space not seen, of 1 thread: its timer figures end when it was on its CPU.",
            ]
        );
    }

    #[test]
    fn threads_that_never_show_their_return_to_user_space_are_counted_with_the_reason() {
        let mut snapshot = samples::full();
        snapshot.signals.iter_mut().filter(|s| s.name == SignalName::User).for_each(|s| s.state = SignalState::Active);
        snapshot.threads.extend(vec![snapshot.threads[1].clone(); 30]);
        let report = render(&snapshot, 120);
        assert_eq!(
            section(&report, "THREADS").iter().rev().take(3).rev().copied().collect::<Vec<_>>(),
            [
                "  and 12 more",
                "  * Return to user space not seen, of 31 threads: their timer figures end when they were on their CPU.",
                "    Threads without restartable sequences show none: kernel threads, musl, Go.",
            ]
        );
        snapshot.threads.truncate(1);
        assert!(!render(&snapshot, 120).contains("restartable"));
    }

    #[test]
    fn cgroups_say_whose_quota_throttled_them() {
        let report = render(&samples::full(), 140);
        assert_eq!(
            section(&report, "CGROUPS"),
            [
                "CGROUPS  3 cgroups with activity, worst first",
                "  cgroup          class   RT p50  RT p99  RT max  fair p50  fair p99  fair max  quota wait  throttles  lock max  boosts",
                "  plc-1 [podman]  PLC       5 us    5 us    5 us     64 us     64 us     64 us     80.0 ms          0      7 us       3",
                "      held back by the quota of /machine of 20 ms per 100 ms: 12 times, 960 ms, longest 80.0 ms; cpu.stat: 12 of 100 periods, 961 ms",
                "  /machine        LS           -       -       -         -         -         -           -         12         -       0",
                "      throttled by its own quota of 20 ms per 100 ms: 12 times, 960 ms, longest 80.0 ms; cpu.stat: 12 of 100 periods, 961 ms",
                "  /               SYSTEM       -       -       -     30 us     30 us     30 us           -          -         -       0",
            ]
        );
    }

    #[test]
    fn cpus_show_only_what_hurts_real_time_threads() {
        let report = render(&samples::full(), 120);
        assert_eq!(
            section(&report, "CPUS"),
            [
                "CPUS  interrupts while a real-time thread was runnable; real-time threads put off their CPU",
                "  cpu  hardirq  longest  softirq  longest     RT throttling  fair server",
                "    1   400 us    30 us   2.0 ms   900 us  2 times, 95.0 ms            0",
                "  1 more CPU without any of these.",
            ]
        );
    }

    #[test]
    fn late_wake_ups_are_told_worst_first() {
        let mut snapshot = samples::full();
        let mut worse = snapshot.breaches[0].clone();
        worse.latency_ns = 5_000_000;
        worse.sentence = "worse".into();
        snapshot.breaches.push(worse);
        assert_eq!(
            section(&render(&snapshot, 120), "LATE"),
            [
                "LATE WAKE-UPS  2 records, worst first",
                "  00:11:03.123456    5.0 ms  worse",
                "  00:11:03.123456    1.9 ms  cycle (tid 1234) ran 1.9 ms after its timer expired; cause unknown",
            ]
        );
    }

    #[test]
    fn the_last_lines_say_what_was_not_seen_and_why() {
        let mut snapshot = samples::full();
        let report = render(&snapshot, 120);
        assert_eq!(
            report.lines().rev().take(4).collect::<Vec<_>>(),
            [
                "guard itself: 0.12 % of one CPU, 14.0 MiB of memory, 21.0 MiB of kernel maps, 5000 events of 310 ns each; \
                 180 ns added to each user stage, as measured at start",
                "lost: 3 late wake-ups without a record",
                "seen in part: throttle (from cpu.stat: no fentry)",
                "not seen: user (fexit refused by this kernel)",
            ]
        );
        snapshot.overhead.lost = Lost::default();
        snapshot.signals.iter_mut().for_each(|s| s.state = SignalState::Active);
        assert!(render(&snapshot, 120).contains("\nguard saw every signal in full and lost nothing\n"));
    }

    #[test]
    fn ended_threads_that_were_dropped_are_counted_as_lost() {
        let mut snapshot = samples::full();
        snapshot.overhead.lost = Lost { dropped_threads: 4, ..Lost::default() };
        assert!(render(&snapshot, 120).contains("\nlost: 4 ended threads not listed: too many\n"));
    }

    #[test]
    fn an_unseen_signal_prints_a_dash_and_not_a_zero() {
        let mut snapshot = samples::full();
        snapshot.signals.iter_mut().for_each(|s| s.state = SignalState::Unavailable);
        let report = render(&snapshot, 140);
        let row = section(&report, "CGROUPS")[2];
        assert!(row.ends_with("7 us       -"), "{row}");
        assert_eq!(section(&report, "CPUS")[1], "  Not seen on this node.");
        assert!(section(&report, "LATE").is_empty());
        assert!(section(&report, "THREADS")[2].ends_with("2     -"), "{report}");
    }

    #[test]
    fn long_tables_are_capped_and_say_so() {
        let mut snapshot = samples::full();
        snapshot.threads = vec![snapshot.threads[0].clone(); 45];
        snapshot.cgroups = vec![snapshot.cgroups[2].clone(); 21];
        snapshot.breaches = vec![snapshot.breaches[0].clone(); 11];
        let report = render(&snapshot, 120);
        assert_eq!(section(&report, "THREADS").last(), Some(&"  and 25 more"));
        assert_eq!(section(&report, "CGROUPS").last(), Some(&"  and 1 more"));
        assert_eq!(section(&report, "LATE").last(), Some(&"  and 1 more"));
    }

    #[test]
    fn an_empty_snapshot_still_reads_well() {
        let report = render(&samples::empty(), 80);
        assert_eq!(
            section(&report, "THREADS"),
            ["THREADS  no real-time thread was seen; others can be named with --tid"]
        );
        assert_eq!(section(&report, "CGROUPS"), ["CGROUPS  none with activity"]);
    }

    #[test]
    fn tables_fit_eighty_columns() {
        for name in ["THREADS", "CGROUPS", "CPUS"] {
            let report = render(&samples::full(), 80);
            for row in section(&report, name).iter().skip(1).filter(|l| !l.starts_with("      ") && !l.contains(" * "))
            {
                assert!(row.chars().count() <= 80, "{row}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_snapshot_makes_it_panic_or_command_the_terminal(snapshot in samples::any_snapshot(), width in 0usize..200) {
            let report = render(&snapshot, width);
            prop_assert!(!report.chars().any(|c| c.is_control() && c != '\n'));
        }
    }
}

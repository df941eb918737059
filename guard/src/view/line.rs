//! One line per interval, for `guard run` without a dashboard.

use std::fmt::Write as _;

use super::figures::{self, printable};
use super::table::cut_front;
use super::text::time_of_day;
use crate::snapshot::{Histogram, Latency, Lost, SignalName, Snapshot};

/// Width of the column that names the worst thread or cgroup.
const NAME: usize = 28;

/// The heads of the columns of [`render`].
#[must_use]
pub fn head() -> String {
    row(&["time", "worst", "timer p99", "max", "RT p99", "fair p99", "throttles", "late", "lost"].map(str::to_owned))
}

/// The interval in one line, without its line feed.
///
/// `worst` is the thread whose timer was latest or, if no watched thread had one, the worst cgroup; the timer figures are
/// its own. RT and fair percentiles are over all wake-ups in the Snapshot; throttles, late wake-ups and losses are sums.
#[must_use]
pub fn render(snapshot: &Snapshot) -> String {
    let cyclic = snapshot.threads.first().filter(|thread| thread.timer.last_stage().is_some());
    let (name, timer) = match (cyclic, snapshot.cgroups.first()) {
        (Some(thread), _) => (format!("{} {}", printable(&thread.comm), thread.tid), Some(&thread.timer)),
        (None, Some(cgroup)) => (figures::cgroup_name(cgroup), Some(&cgroup.timer)),
        (None, None) => (figures::ABSENT.to_owned(), None),
    };
    let [_, timer_p99, timer_max] = figures::timer(timer.unwrap_or(&crate::snapshot::Timer::default()));
    let p99_over_all = |of: fn(&crate::snapshot::Cgroup) -> &Latency| {
        let mut all = Histogram::default();
        snapshot.cgroups.iter().for_each(|c| all.merge(of(c)));
        figures::quantile(&Latency(all), 0.99)
    };
    let throttles = snapshot.cgroups.iter().filter(|c| c.throttle.source.is_some()).map(|c| c.throttle.count);
    let late = snapshot.threads.iter().map(|t| t.breaches).fold(0, u64::saturating_add);

    row(&[
        end_of(snapshot),
        cut_front(&name, NAME),
        timer_p99,
        timer_max,
        p99_over_all(|c| &c.wakeup.rt),
        p99_over_all(|c| &c.wakeup.fair),
        figures::count_if(snapshot.sees(SignalName::Throttle), throttles.fold(0, u64::saturating_add)),
        figures::count_if(snapshot.sees(SignalName::Breach), late),
        lost(&snapshot.overhead.lost).to_string(),
    ])
}

/// Time of day at the end of the window, to the second.
fn end_of(snapshot: &Snapshot) -> String {
    let end = snapshot.window.start.parse::<jiff::Timestamp>().ok().and_then(|start| {
        start.checked_add(jiff::SignedDuration::try_from_secs_f64(snapshot.window.seconds).ok()?).ok()
    });
    end.map_or_else(|| figures::ABSENT.to_owned(), |end| time_of_day(&end.to_string()).chars().take(8).collect())
}

fn lost(lost: &Lost) -> u64 {
    [
        lost.missed_events,
        lost.collisions,
        lost.other_cgroups,
        lost.unwatched_threads,
        lost.breaches,
        lost.failed_reads,
        lost.past_timers,
        lost.dropped_threads,
    ]
    .into_iter()
    .fold(0, u64::saturating_add)
}

fn row(cells: &[String; 9]) -> String {
    let [time, worst, figures @ ..] = cells;
    let mut line = format!("{time:<8}  {worst:<NAME$}");
    for (cell, width) in figures.iter().zip([10, 9, 9, 9, 9, 5, 5]) {
        // Writing to a String cannot fail.
        let _ = write!(line, " {cell:>width$}");
    }
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::view::samples;

    #[test]
    fn the_line_shows_the_worst_thread_and_the_sums() {
        assert_eq!(
            [head(), render(&samples::full())],
            [
                "time      worst                         timer p99       max    RT p99  fair p99 throttles  late  lost",
                "00:11:10  cycle 1234                       1.9 ms    1.9 ms      5 us     64 us        12     1     3",
            ]
        );
    }

    #[test]
    fn without_threads_the_worst_cgroup_is_named() {
        let mut snapshot = samples::full();
        snapshot.threads.clear();
        assert!(render(&snapshot).starts_with("00:11:10  plc-1 [podman]  "));
    }

    #[test]
    fn an_interval_without_anything_is_dashes() {
        let line = render(&samples::empty());
        assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["00:11:10", "-", "-", "-", "-", "-", "-", "-", "0"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn it_is_one_line_whatever_the_snapshot(snapshot in samples::any_snapshot()) {
            prop_assert!(!render(&snapshot).chars().any(char::is_control));
        }
    }
}

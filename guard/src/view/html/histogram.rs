//! Histograms as users of cyclictest draw them: latency to the right, how often upwards, both logarithmic, so that one late
//! cycle in a million is seen.

use guard_common::hist;

use super::chart::{CURVES, Log, Svg, WIDTH, cut};
use super::page::section;
use crate::snapshot::{Latency, Snapshot};
use crate::view::figures::{self, cgroup_name};

const HEIGHT: f64 = 330.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = WIDTH - 28.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = HEIGHT - 46.0;
/// Height of a line of the legend.
const LEGEND: f64 = 18.0;

/// Timer latencies of the worst threads.
pub(super) fn timers(snapshot: &Snapshot) -> String {
    let curves: Vec<(String, &Latency)> = snapshot
        .threads
        .iter()
        .filter_map(|thread| {
            let (stage, latency) = thread.timer.last_stage()?;
            let mark = if stage == "user" { "" } else { figures::THREAD_STAGE_MARK };
            Some((format!("{} {}{mark}", cut(&thread.comm, 16), thread.tid), latency))
        })
        .take(CURVES)
        .collect();
    let about = "From the instant a thread had asked for until it was back in its own code: what cyclictest measures of its own \
                 threads. With a * until it was on a CPU.";
    if curves.is_empty() {
        return section("Timer latencies", "No timer of a watched thread was seen.", "");
    }
    section("Timer latencies", about, &plot(&curves, "Timer latencies of threads"))
}

/// Waits for a CPU of the worst cgroups.
pub(super) fn waits(snapshot: &Snapshot) -> String {
    let curves: Vec<(String, &Latency)> = snapshot
        .cgroups
        .iter()
        .flat_map(|cgroup| {
            let name = cut(&cgroup_name(cgroup), 44);
            let kinds = [("RT", &cgroup.wakeup.rt), ("fair", &cgroup.wakeup.fair)];
            kinds.map(|(kind, latency)| (format!("{name} {kind}"), latency))
        })
        .filter(|(_, latency)| !latency.is_empty())
        .take(CURVES)
        .collect();
    if curves.is_empty() {
        return String::new();
    }
    let about = "From being ready to run until running, after a wake-up or a preemption, of the worst cgroups.";
    section("Waits for a CPU", about, &plot(&curves, "Waits for a CPU of cgroups"))
}

fn plot(curves: &[(String, &Latency)], described: &str) -> String {
    #[allow(clippy::cast_precision_loss, reason = "where a line stands on a page")]
    let float = |n: u64| n as f64;
    let edges = |index: usize| (float(hist::lower_ns(index)).max(100.0), float(hist::upper_ns(index)) + 1.0);
    let least = curves.iter().filter_map(|(_, l)| l.indexed().next()).map(|(i, _)| edges(i).0).fold(f64::MAX, f64::min);
    let most = curves.iter().map(|(_, latency)| float(latency.max_ns())).fold(0.0, f64::max);
    let highest = curves.iter().flat_map(|(_, l)| l.indexed()).map(|(_, n)| n).max().unwrap_or(1);
    let x = Log::new(least, most + 1.0, LEFT, RIGHT);
    // From below one, so that a single latency is a line and not a dot on the axis.
    let y = Log::from(0.5, float(highest), BOTTOM, TOP);
    #[allow(clippy::cast_precision_loss, reason = "a handful")]
    let height = HEIGHT + LEGEND * curves.len() as f64;
    let mut svg = Svg::new(height);
    svg.time_axis(&x, TOP, BOTTOM);
    svg.upright_axis(&y, LEFT, RIGHT, false);
    svg.text("", "middle", f64::midpoint(LEFT, RIGHT), BOTTOM + 34.0, "latency");
    for (number, (name, latency)) in curves.iter().enumerate().rev() {
        let mut outline = String::new();
        let mut last = f64::MIN;
        for (index, n) in latency.indexed() {
            let ((from, to), top) = (edges(index), y.at(float(n)));
            if x.at(from) - x.at(last.max(1.0)) > 0.05 {
                if last > 0.0 {
                    outline += &format!("V{BOTTOM:.1}");
                }
                outline += &format!("M{:.1} {BOTTOM:.1}", x.at(from));
            }
            outline += &format!("V{top:.1}H{:.1}", x.at(to));
            last = to;
        }
        outline += &format!("V{BOTTOM:.1}");
        svg.path(&format!("area f{number}"), &outline);
        svg.path(&format!("c s{number}"), &outline);
        svg.dot(&format!("f{number}"), x.at(float(latency.max_ns())), BOTTOM);
        #[allow(clippy::cast_precision_loss, reason = "a handful")]
        let line = HEIGHT + LEGEND * number as f64;
        svg.line(&format!("c s{number}"), LEFT, line - 4.0, LEFT + 34.0, line - 4.0);
        let text = format!(
            "{name}: p50 {}, p99 {}, max {} of {}",
            figures::quantile(latency, 0.5),
            figures::quantile(latency, 0.99),
            figures::max(latency),
            latency.count()
        );
        svg.text("name", "start", LEFT + 42.0, line, &text);
    }
    svg.figure(described, "How often each latency occurred; dots on the axis are maxima. Buckets are 1 us wide up to 63 us, then at most 6.25 %.")
}

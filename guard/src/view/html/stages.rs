//! How far timer wake-ups had come by when, in rtla's three stages: what the interrupt, the scheduler and the way back to user
//! space took.

use super::chart::{Log, Svg, WIDTH, cut};
use super::page;
use crate::snapshot::{Latency, Snapshot, Thread};
use crate::view::figures;

/// Threads shown.
const THREADS: usize = 8;
const LEFT: f64 = 232.0;
const RIGHT: f64 = WIDTH - 96.0;
const TOP: f64 = 10.0;
/// Height of a stage, and of the gap between two threads.
const ROW: f64 = 17.0;
const GAP: f64 = 9.0;

pub(super) fn section(snapshot: &Snapshot) -> String {
    let threads: Vec<&Thread> =
        snapshot.threads.iter().filter(|thread| !thread.timer.irq.is_empty()).take(THREADS).collect();
    if threads.is_empty() {
        return String::new();
    }
    #[allow(clippy::cast_precision_loss, reason = "where a line stands on a page")]
    let float = |n: u64| n as f64;
    fn stages(thread: &Thread) -> [(&'static str, &Latency); 3] {
        [("irq", &thread.timer.irq), ("thread", &thread.timer.thread), ("user", &thread.timer.user)]
    }
    let all = || threads.iter().flat_map(|thread| stages(thread)).filter(|(_, latency)| !latency.is_empty());
    let least = all().map(|(_, latency)| float(latency.min_ns())).fold(f64::MAX, f64::min).max(100.0);
    let most = all().map(|(_, latency)| float(latency.max_ns())).fold(0.0, f64::max);
    let scale = Log::new(least, most + 1.0, LEFT, RIGHT);
    #[allow(clippy::cast_precision_loss, reason = "a handful")]
    let bottom = TOP + (3.0 * ROW + GAP) * threads.len() as f64;
    let mut svg = Svg::new(bottom + 26.0);
    svg.time_axis(&scale, TOP, bottom);
    let mut y = TOP;
    for thread in &threads {
        for (number, (name, latency)) in stages(thread).into_iter().enumerate() {
            let middle = y + ROW / 2.0;
            if number == 0 {
                svg.text("name", "start", 0.0, middle + 4.0, &format!("{} {}", cut(&thread.comm, 16), thread.tid));
            }
            svg.text("", "end", LEFT - 8.0, middle + 4.0, name);
            if latency.is_empty() {
                svg.text("", "start", LEFT + 4.0, middle + 4.0, "not seen");
            } else {
                let at = |ns: u64| scale.at(float(ns));
                let (p50, p99) = (at(latency.quantile_ns(0.5)), at(latency.quantile_ns(0.99)));
                svg.line(&format!("s{number}"), at(latency.min_ns()), middle, at(latency.max_ns()), middle);
                svg.rect(&format!("f{number}"), p50, middle - 4.0, p99 - p50, 8.0);
                svg.dot(&format!("f{number}"), at(latency.max_ns()), middle);
                svg.text("", "start", RIGHT + 10.0, middle + 4.0, &figures::max(latency));
            }
            y += ROW;
        }
        y += GAP;
    }
    let about = "Each stage counts from the requested instant, so they contain one another: thread less irq is the scheduler's share.";
    let caption =
        "Bars from p50 to p99, lines from the smallest to the largest latency, whose figure stands to the right.";
    page::section("Stages", about, &svg.figure("Stages of timer wake-ups", caption))
}

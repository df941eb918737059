//! What `guard gate --explain` teaches: how the gate decides, and how many runs that takes on this baseline.

use super::rows::columns;
use crate::gate::judge::MIN_RUNS;
use crate::gate::power::SampleSizes;
use crate::gate::verdict::{percent, time};

/// The explanation for a terminal.
#[must_use]
pub fn explanation(explanation: &SampleSizes) -> String {
    let SampleSizes { figures, tests, level, least_runs } = explanation;
    let mut text = format!(
        "The gate compares runs, not events: each run gives one p99, one p99.9 and one maximum, and the question is whether\n\
         those of the candidate rank higher than those of the baseline more often than chance allows. {tests} figures are\n\
         tested together, and the chance of any false alarm among them is kept below {} %.\n\
         \n\
         - With fewer than {least_runs} runs a side nothing can be shown, however large the shift (never fewer than \
         {MIN_RUNS}).\n\
         - To see half the shift takes about four times as many runs. Runs that vary less help as much: a quiet machine,\n\
         \x20 one load, runs of candidate and baseline in turn, and longer runs for the tail.\n\
         - Fewer figures (--metric p99) take fewer runs: each one more makes every test stricter.\n",
        level * 100.0,
    );
    if figures.is_empty() {
        text += &format!(
            "\nGive at least {MIN_RUNS} runs as --baseline, 20 or more to rely on it, to see what it takes on your node.\n"
        );
        return text;
    }
    let shifts: Vec<String> = figures[0].needed.iter().map(|(shift, _)| percent(*shift)).collect();
    text += "\nRuns a side that find a shift in 95 of 100 comparisons, estimated from the baseline's own runs:\n\n";
    let rows: Vec<[String; 5]> = figures
        .iter()
        .map(|f| {
            let needed = f.needed.iter().zip(&shifts).map(|((_, runs), shift)| {
                format!("{shift}: {}", runs.map_or_else(|| "over 200".to_owned(), |n| n.to_string()))
            });
            let spread = format!("{:.1} %", f.spread * 100.0);
            [
                f.workload.clone(),
                format!("{} {}", f.signal, f.metric),
                time(f.median_ns),
                spread,
                needed.collect::<Vec<_>>().join("   "),
            ]
        })
        .collect();
    text += &columns(["workload", "figure", "median", "from run to run", "runs a side for a shift of"], &rows);
    let fewest = figures.iter().map(|f| f.runs).min().unwrap_or(0);
    text + &format!("\nEstimated from {fewest} runs; the fewer, the rougher.\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::{LatencySignal, Metric, Needed};

    #[test]
    fn it_says_how_many_runs_which_shift_takes() {
        let figure = Needed {
            workload: "cyclictest".into(),
            signal: LatencySignal::Timer.into(),
            metric: Metric::P99,
            runs: 40,
            median_ns: 52_000.0,
            spread: 0.05,
            needed: vec![(0.05, None), (0.1, Some(20))],
        };
        let text = explanation(&SampleSizes { figures: vec![figure], tests: 3, level: 0.01, least_runs: 6 });
        assert!(text.contains("+5.0 %: over 200   +10.0 %: 20"), "{text}");
        assert!(text.contains("below 1 %") && text.contains("fewer than 6 runs"), "{text}");
    }
}

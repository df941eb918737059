//! The budget file: latencies that a candidate must keep whatever the baseline does, and the node they are meant for.

use std::fmt;
use std::path::Path;

use globset::{Glob, GlobMatcher};
use serde::Deserialize;
use toml::Spanned;

use super::error::GateError;
use super::facts::{Difference, Fact, RunFacts, printable};
use super::metric::{LatencySignal, Metric};
use super::text;

/// Budgets and the node they are meant for.
#[derive(Clone, Debug, Default)]
pub struct Budgets {
    /// Facts that the candidate must match, as globs.
    node: Vec<(Fact, String, GlobMatcher)>,
    /// The budgets, in the order of the file.
    pub budgets: Vec<FigureBudget>,
}

/// A latency that a workload must keep.
#[derive(Clone, Debug)]
pub struct FigureBudget {
    /// Glob of workloads.
    pub workload: String,
    matcher: GlobMatcher,
    /// Which signal.
    pub signal: LatencySignal,
    /// Which figure.
    pub metric: Metric,
    /// The most it may be, ns.
    pub limit_ns: u64,
    /// Runs of the candidate that may exceed it.
    pub runs_over: usize,
    /// Line of the file.
    pub line: usize,
}

impl FigureBudget {
    /// Whether it is meant for this workload.
    #[must_use]
    pub fn matches(&self, workload: &str) -> bool {
        self.matcher.is_match(workload)
    }
}

impl fmt::Display for FigureBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", printable(&self.workload), self.signal, self.metric)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    node: NodePatterns,
    #[serde(default)]
    budget: Vec<Spanned<Item>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodePatterns {
    kernel: Option<Spanned<String>>,
    realtime: Option<bool>,
    arch: Option<Spanned<String>>,
    cpu_model: Option<Spanned<String>>,
    cpus: Option<u32>,
    cmdline: Option<Spanned<String>>,
    governor: Option<Spanned<String>>,
    label: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    workload: Spanned<String>,
    metric: Spanned<String>,
    limit: Spanned<String>,
    #[serde(default)]
    runs_over: usize,
}

/// What is wrong, and at which byte.
type Fault = (usize, String);

impl Budgets {
    /// Reads a budget file.
    ///
    /// # Errors
    /// It cannot be read, or something in it is wrong; the message names the line.
    pub fn read(path: &Path) -> Result<Self, GateError> {
        Self::parse(path, &text::read(path)?)
    }

    /// Reads the content of a budget file; `path` is only named.
    ///
    /// # Errors
    /// See [`Self::read`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, GateError> {
        let line = |byte: usize| text.bytes().take(byte).filter(|b| *b == b'\n').count() + 1;
        let format = |(byte, what): Fault| GateError::Format {
            path: path.to_owned(),
            place: Some(format!("line {}", line(byte))),
            what,
        };
        let file: File = toml::from_str(text).map_err(|error| {
            format((error.span().map_or(0, |span| span.start), error.message().trim_end().replace('\n', "; ")))
        })?;
        if file.budget.is_empty() {
            return Err(format((0, "no [[budget]] in it".to_owned())));
        }
        let budgets =
            file.budget.into_iter().map(|item| budget(item, line)).collect::<Result<_, _>>().map_err(format)?;
        Ok(Self { node: node(file.node).map_err(format)?, budgets })
    }

    /// Where a candidate is not on the node that the budgets are meant for. What its format does not carry contradicts
    /// nothing.
    #[must_use]
    pub fn differences(&self, candidate: &RunFacts) -> Vec<Difference> {
        let known = self.node.iter().filter_map(|(fact, text, glob)| Some((*fact, text, glob, candidate.get(*fact)?)));
        known
            .filter(|(.., glob, found)| !glob.is_match(found))
            .map(|(fact, text, _, found)| Difference { fact, expected: text.clone(), found: found.to_owned() })
            .collect()
    }

    /// Facts that the budgets name.
    pub(super) fn facts(&self) -> impl Iterator<Item = Fact> + '_ {
        self.node.iter().map(|(fact, ..)| *fact)
    }
}

fn budget(item: Spanned<Item>, line: impl Fn(usize) -> usize) -> Result<FigureBudget, Fault> {
    let at = item.span().start;
    let item = item.into_inner();
    let (metric_at, metric) = (item.metric.span().start, item.metric.into_inner());
    let wrong = |what: String| (metric_at, what);
    let (signal, figure) = metric
        .split_once('.')
        .ok_or_else(|| wrong(format!("metric = {metric:?}: want a signal and a figure, such as \"timer.p999\"")))?;
    let signal = signal.parse().map_err(|_| {
        wrong(format!("metric = {metric:?}: {signal:?} is no signal; want timer, wakeup, irq or noise"))
    })?;
    let figure: Metric = figure.parse().map_err(|what| wrong(format!("metric = {metric:?}: {what}")))?;
    Ok(FigureBudget {
        matcher: glob(&item.workload)?,
        workload: item.workload.into_inner(),
        signal,
        metric: figure,
        limit_ns: limit(&item.limit)?,
        runs_over: item.runs_over,
        line: line(at),
    })
}

fn limit(text: &Spanned<String>) -> Result<u64, Fault> {
    let wrong = || {
        let what = format!("limit = {:?}: want a time with its unit, such as \"100us\" or \"1.5ms\"", text.get_ref());
        (text.span().start, what)
    };
    let time: jiff::SignedDuration = text.get_ref().parse().map_err(|_| wrong())?;
    u64::try_from(time.as_nanos()).ok().filter(|ns| *ns > 0).ok_or_else(wrong)
}

fn glob(text: &Spanned<String>) -> Result<GlobMatcher, Fault> {
    let glob = Glob::new(text.get_ref()).map_err(|error| (text.span().start, format!("no glob: {error}")))?;
    Ok(glob.compile_matcher())
}

fn node(node: NodePatterns) -> Result<Vec<(Fact, String, GlobMatcher)>, Fault> {
    let plain = |text: String| Spanned::new(0..0, text);
    let wanted = [
        (Fact::Kernel, node.kernel),
        (Fact::Realtime, node.realtime.map(|yes| plain(if yes { "yes" } else { "no" }.to_owned()))),
        (Fact::Arch, node.arch),
        (Fact::CpuModel, node.cpu_model),
        (Fact::Cpus, node.cpus.map(|n| plain(n.to_string()))),
        (Fact::Cmdline, node.cmdline),
        (Fact::Governor, node.governor),
        (Fact::Label, node.label),
    ];
    let named = wanted.into_iter().filter_map(|(fact, text)| Some((fact, text?)));
    named.map(|(fact, text)| Ok((fact, text.get_ref().clone(), glob(&text)?))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "[node]\nkernel = \"6.12*\"\nrealtime = true\n\n[[budget]]\nworkload = \"plc-*\"\nmetric = \
                        \"timer.p999\"\nlimit = \"100us\"\n\n[[budget]]\nworkload = \"cyclictest\"\nmetric = \
                        \"timer.max\"\nlimit = \"1.5ms\"\nruns_over = 1\n";

    fn error(text: &str) -> String {
        Budgets::parse(Path::new("b.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn budgets_are_read() {
        let file = Budgets::parse(Path::new("b"), GOOD).unwrap();
        let [first, second] = file.budgets.as_slice() else { panic!("{file:?}") };
        assert!(first.matches("plc-1") && !first.matches("cyclictest"));
        assert_eq!((first.signal, first.metric, first.limit_ns), (LatencySignal::Timer, Metric::P999, 100_000));
        assert_eq!((second.limit_ns, second.runs_over, second.line), (1_500_000, 1, 10));
        let mut facts = RunFacts::default();
        assert!(file.differences(&facts).is_empty(), "nothing is known");
        facts.set(Fact::Kernel, "6.1.0-56-rt");
        facts.set(Fact::Realtime, "yes");
        assert_eq!(file.differences(&facts)[0].to_string(), "kernel: \"6.12*\" against \"6.1.0-56-rt\"");
    }

    #[test]
    fn a_file_is_read_as_editors_save_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for text in
            [format!("\u{feff}{GOOD}"), GOOD.replace('\n', "\r\n"), format!("\u{feff}{}", GOOD.replace('\n', "\r\n"))]
        {
            std::fs::write(file.path(), &text).unwrap();
            let budgets = Budgets::read(file.path()).unwrap().budgets;
            assert_eq!(budgets.iter().map(|budget| budget.line).collect::<Vec<_>>(), [5, 10], "{text:?}");
        }
        std::fs::write(file.path(), format!("\u{feff}{}", GOOD.replace("100us", "100"))).unwrap();
        assert!(Budgets::read(file.path()).unwrap_err().to_string().contains("line 8: limit"));
        std::fs::write(file.path(), b"[[budget]]\n# \xb5s\n").unwrap();
        assert!(Budgets::read(file.path()).unwrap_err().to_string().ends_with("line 2: this is not text"));
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (from, to, said) in [
            ("100us", "100", "line 8: limit = \"100\": want a time"),
            ("100us", "-1us", "line 8"),
            ("100us", "0s", "line 8"),
            ("timer.p999", "p999", "line 7: metric = \"p999\": want a signal"),
            ("timer.p999", "timer.p98", "line 7: metric = \"timer.p98\": \"p98\" is no metric"),
            ("timer.p999", "colour.p99", "line 7: metric = \"colour.p99\": \"colour\" is no signal"),
            ("plc-*", "plc-[", "line 6: no glob"),
            ("kernel =", "kernle =", "line 2: unknown field `kernle`"),
            ("runs_over = 1", "runs_over = -1", "line 14"),
            ("limit = \"1.5ms\"\n", "", "line 10: missing field `limit`"),
            ("[node]", "[node", "line 1"),
        ] {
            let error = error(&GOOD.replacen(from, to, 1));
            assert!(error.starts_with("b.toml, ") && error.contains(said), "{said}: {error}");
        }
        assert!(error("").contains("no [[budget]]"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,200}", at in any::<prop::sample::Index>()) {
            let _ = Budgets::parse(Path::new("b"), &text);
            let mut mutated = GOOD.to_owned();
            mutated.insert_str(at.index(GOOD.len()), &text);
            let _ = Budgets::parse(Path::new("b"), &mutated);
        }
    }
}

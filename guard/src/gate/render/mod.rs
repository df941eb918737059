//! A verdict in the forms that people and pipelines read: one file per form.

mod explain;
mod github;
mod junit;
mod markdown;
mod rows;
mod table;

use std::str::FromStr;

pub use explain::explanation;

use crate::gate::verdict::Verdict;

/// A form of the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerdictFormat {
    /// For a terminal.
    Table,
    /// For scripts.
    Json,
    /// For a job summary or a comment.
    Markdown,
    /// JUnit XML, which GitLab, Jenkins and others show.
    Junit,
    /// Workflow commands of GitHub Actions, which become annotations.
    Github,
}

impl VerdictFormat {
    const ALL: [(&'static str, Self); 5] = [
        ("table", Self::Table),
        ("json", Self::Json),
        ("markdown", Self::Markdown),
        ("junit", Self::Junit),
        ("github", Self::Github),
    ];

    /// The verdict in this form, with a final line feed.
    ///
    /// # Errors
    /// When serde_json refuses the verdict; it never does.
    pub fn render(self, verdict: &Verdict) -> serde_json::Result<String> {
        Ok(match self {
            Self::Table => table::render(verdict),
            Self::Json => serde_json::to_string_pretty(verdict)? + "\n",
            Self::Markdown => markdown::render(verdict),
            Self::Junit => junit::render(verdict),
            Self::Github => github::render(verdict),
        })
    }
}

impl FromStr for VerdictFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|(name, _)| *name == text);
        found
            .map(|(_, format)| format)
            .ok_or_else(|| format!("{text:?} is no form; want {}", Self::ALL.map(|(name, _)| name).join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gate::{Budgeted, Comparison, Difference, Fact, GateOutcome, Judged, LatencySignal, Metric, Status};

    /// A verdict with something in every field; `name` is the workload's.
    fn sample(name: &str) -> Verdict {
        Verdict {
            outcome: GateOutcome::Regression,
            exit_code: 1,
            sentence: format!("{name} is slower"),
            comparison: Comparison {
                candidate_runs: 20,
                baseline_runs: 18,
                set_aside: 2,
                differences: vec![Difference { fact: Fact::Kernel, expected: name.into(), found: "6.12".into() }],
                unknown: vec![Fact::Governor],
            },
            budgets: vec![Budgeted {
                workload: name.into(),
                signal: LatencySignal::Timer.into(),
                metric: Metric::Max,
                status: Status::OverBudget,
                limit_ns: 100_000,
                worst_ns: Some(123_456),
                line: 3,
                sentence: format!("{name} is over its budget"),
            }],
            metrics: [Status::Regression, Status::TooLittleData, Status::NotJudged, Status::Pass]
                .map(|status| Judged {
                    workload: name.into(),
                    signal: LatencySignal::Timer.into(),
                    metric: Metric::P999,
                    status,
                    runs: (18, 20),
                    medians_ns: Some((52_000.0, 57_000.0)),
                    shift: Some(0.098),
                    bounds: Some((0.06, 0.13)),
                    difference_ns: Some(5_000.0),
                    p: Some(0.000_01),
                    p_corrected: Some(0.000_03),
                    sentence: format!("{name} rose"),
                })
                .into(),
            notes: vec![format!("{name} was noted")],
        }
    }

    const ALL: [VerdictFormat; 5] = [
        VerdictFormat::Table,
        VerdictFormat::Json,
        VerdictFormat::Markdown,
        VerdictFormat::Junit,
        VerdictFormat::Github,
    ];

    #[test]
    fn every_form_tells_the_outcome_the_figures_and_the_sentences() {
        for format in ALL {
            let text = format.render(&sample("plc-1")).unwrap();
            for said in ["regression", "plc-1 is over its budget", "plc-1 rose", "plc-1 was noted"] {
                assert!(text.contains(said), "{format:?} lacks {said:?}:\n{text}");
            }
            assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "{format:?}");
        }
    }

    #[test]
    fn the_table_reads_like_this() {
        let text = table::render(&sample("plc-1"));
        assert_eq!(
            text,
            "REGRESSION: plc-1 is slower\n\
             \n\
             workload  figure       baseline  candidate  shift   p        verdict\n\
             plc-1     timer max    ≤ 100 us  123 us     -       -        over budget\n\
             plc-1     timer p99.9  52.0 us   57.0 us    +9.8 %  <0.0001  regression\n\
             plc-1     timer p99.9  52.0 us   57.0 us    +9.8 %  <0.0001  too little data\n\
             plc-1     timer p99.9  52.0 us   57.0 us    +9.8 %  <0.0001  not judged\n\
             plc-1     timer p99.9  52.0 us   57.0 us    +9.8 %  <0.0001  pass\n\
             \n\
             - plc-1 is over its budget\n\
             - plc-1 rose\n\
             - plc-1 rose\n\
             - plc-1 rose\n\
             - plc-1 rose\n\
             \n\
             20 runs of the candidate, 18 of the baseline\n\
             2 runs of the baseline were made otherwise and are left out\n\
             differs: kernel: \"plc-1\" against \"6.12\"\n\
             unknown, so taken to be alike: governor\n\
             note: plc-1 was noted\n"
        );
    }

    #[test]
    fn junit_counts_what_it_lists() {
        let text = junit::render(&sample("a<b>&\"c\""));
        assert!(text.contains("tests=\"6\" failures=\"2\" errors=\"2\" skipped=\"1\""), "{text}");
        assert!(text.contains("a&lt;b&gt;&amp;&quot;c&quot;"), "{text}");
        assert_eq!(text.matches("<testcase ").count(), 6);
    }

    #[test]
    fn annotations_are_commands_of_one_line_each() {
        let text = github::render(&sample("a,b:c%d"));
        assert!(text.lines().all(|line| line.starts_with("::")), "{text}");
        assert!(text.contains("::error title=guard gate%3A over budget::a,b:c%25d is over its budget"), "{text}");
    }

    proptest! {
        #[test]
        fn no_name_breaks_a_form(name in any::<String>()) {
            let name = crate::gate::facts::printable(&name);
            let verdict = sample(&name);
            for format in ALL {
                let text = format.render(&verdict).unwrap();
                prop_assert!(!text.contains('\r'));
            }
            let markdown = markdown::render(&verdict);
            let cells = |line: &&str| line.starts_with('|');
            for line in markdown.lines().filter(cells) {
                prop_assert_eq!(line.replace("\\|", "").matches('|').count(), 8, "{}", line);
            }
            let xml = junit::render(&verdict);
            prop_assert_eq!(xml.matches('<').count(), xml.matches('>').count());
            prop_assert_eq!(github::render(&verdict).lines().filter(|line| !line.starts_with("::")).count(), 0);
        }
    }
}

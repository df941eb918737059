//! What a run says about where and how it was made, and in what two runs differ.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Something that must be the same on both sides for their latencies to mean the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// Program that measured.
    Instrument,
    /// How it measured: cyclictest's options that matter, the last stage that guard and rtla saw.
    Options,
    /// Kernel release.
    Kernel,
    /// Whether the kernel is PREEMPT_RT.
    Realtime,
    /// Machine (`uname -m`).
    Arch,
    /// CPU model.
    CpuModel,
    /// Number of CPUs online.
    Cpus,
    /// Kernel command line, without what names the kernel image and the disk.
    Cmdline,
    /// CPU frequency governor.
    Governor,
    /// Label of the load, as the user gave it.
    Label,
    /// Latencies per run, which the largest of them depends on. Not carried but counted.
    Latencies,
}

impl Fact {
    /// All of them, in order.
    pub const ALL: [Self; 11] = [
        Self::Instrument,
        Self::Options,
        Self::Kernel,
        Self::Realtime,
        Self::Arch,
        Self::CpuModel,
        Self::Cpus,
        Self::Cmdline,
        Self::Governor,
        Self::Label,
        Self::Latencies,
    ];

    /// Its name in options, budgets and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Instrument => "instrument",
            Self::Options => "options",
            Self::Kernel => "kernel",
            Self::Realtime => "realtime",
            Self::Arch => "arch",
            Self::CpuModel => "cpu_model",
            Self::Cpus => "cpus",
            Self::Cmdline => "cmdline",
            Self::Governor => "governor",
            Self::Label => "label",
            Self::Latencies => "latencies",
        }
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Fact {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|fact| fact.name() == text).ok_or_else(|| {
            let all = Self::ALL.map(Self::name).join(", ");
            format!("{text:?} is nothing that runs can differ in; want one of {all}")
        })
    }
}

/// What one run says; what its format does not carry is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunFacts(BTreeMap<Fact, String>);

/// A fact in which two sides differ.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct Difference {
    /// Which.
    pub fact: Fact,
    /// What the baseline, the first candidate or the budget file says.
    pub expected: String,
    /// What the candidate says.
    pub found: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fact, expected, found } = self;
        if *fact != Fact::Cmdline {
            return write!(f, "{fact}: {expected:?} against {found:?}");
        }
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let (before, after) = (words(expected), words(found));
        let gone = before.iter().filter(|word| !after.contains(word)).map(|word| format!("-{word}"));
        let come = after.iter().filter(|word| !before.contains(word)).map(|word| format!("+{word}"));
        let changes: Vec<String> = gone.chain(come).collect();
        let changes = if changes.is_empty() { "other order".to_owned() } else { changes.join(" ") };
        write!(f, "cmdline: {changes}")
    }
}

impl RunFacts {
    /// Notes a fact; an empty one is unknown.
    pub fn set(&mut self, fact: Fact, value: &str) {
        let value = if fact == Fact::Cmdline { lasting_cmdline(value) } else { printable(value.trim()) };
        if !value.is_empty() {
            self.0.insert(fact, value);
        }
    }

    /// What is known of a fact.
    #[must_use]
    pub fn get(&self, fact: Fact) -> Option<&str> {
        self.0.get(&fact).map(String::as_str)
    }

    /// Where `found` contradicts these facts. What either does not know contradicts nothing.
    #[must_use]
    pub fn differences(&self, found: &Self, allowed: &BTreeSet<Fact>) -> Vec<Difference> {
        let both = self.0.iter().filter_map(|(fact, expected)| Some((*fact, expected, found.0.get(fact)?)));
        both.filter(|(fact, expected, found)| expected != found && !allowed.contains(fact))
            .map(|(fact, expected, found)| Difference { fact, expected: expected.clone(), found: found.clone() })
            .collect()
    }

    /// Takes over what only `other` knows.
    pub(super) fn fill(&mut self, other: &Self) {
        for (fact, value) in &other.0 {
            self.0.entry(*fact).or_insert_with(|| value.clone());
        }
    }
}

/// The words of a kernel command line that shape a node: not the image, which the kernel release names, and not where the
/// disk is.
fn lasting_cmdline(text: &str) -> String {
    let passing = ["BOOT_IMAGE=", "initrd=", "root=", "rootflags=", "resume="];
    let words = text.split_whitespace().filter(|word| !passing.iter().any(|p| word.starts_with(p)));
    printable(&words.collect::<Vec<_>>().join(" "))
}

/// Text of a file, made safe for a line of output.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(all: &[(Fact, &str)]) -> RunFacts {
        let mut facts = RunFacts::default();
        all.iter().for_each(|(fact, value)| facts.set(*fact, value));
        facts
    }

    #[test]
    fn what_one_side_does_not_know_is_no_difference() {
        let known = facts(&[(Fact::Kernel, "6.12"), (Fact::Governor, "performance")]);
        assert!(known.differences(&facts(&[(Fact::Kernel, "6.12")]), &BTreeSet::new()).is_empty());
        assert!(known.differences(&facts(&[(Fact::Governor, "")]), &BTreeSet::new()).is_empty());
    }

    #[test]
    fn a_difference_is_listed_unless_it_is_allowed() {
        let (a, b) = (facts(&[(Fact::Kernel, "6.1")]), facts(&[(Fact::Kernel, "6.12")]));
        let found = a.differences(&b, &BTreeSet::new());
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), ["kernel: \"6.1\" against \"6.12\""]);
        assert!(a.differences(&b, &BTreeSet::from([Fact::Kernel])).is_empty());
    }

    #[test]
    fn of_two_command_lines_the_words_that_differ_are_named() {
        let a = facts(&[(Fact::Cmdline, "BOOT_IMAGE=/boot/a root=UUID=1 quiet isolcpus=1")]);
        let b = facts(&[(Fact::Cmdline, "BOOT_IMAGE=/boot/b root=UUID=2 quiet nohz_full=1")]);
        let found = a.differences(&b, &BTreeSet::new());
        assert_eq!(found[0].to_string(), "cmdline: -isolcpus=1 +nohz_full=1");
        let c = facts(&[(Fact::Cmdline, "root=/dev/sda quiet isolcpus=1")]);
        assert!(a.differences(&c, &BTreeSet::new()).is_empty());
    }

    #[test]
    fn names_are_read_back() {
        for fact in Fact::ALL {
            assert_eq!(fact.name().parse(), Ok(fact));
            assert_eq!(serde_json::to_value(fact).unwrap(), fact.name());
        }
        assert!("colour".parse::<Fact>().unwrap_err().contains("cpu_model"));
    }
}

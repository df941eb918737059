//! What a check says: severity, evidence, the change and its undoing.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::facts::Facts;

/// How much a finding matters; worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Real-time work cannot keep its times like this.
    Critical,
    /// It will be late now and then.
    Warning,
    /// Could not be found out; the title says why.
    Unknown,
    /// Worth knowing; nothing has to be done.
    Info,
    /// As it should be.
    Ok,
}

impl Severity {
    /// Whether the user must act on it.
    #[must_use]
    pub fn must_act(self) -> bool {
        matches!(self, Self::Critical | Self::Warning)
    }
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// Name of the check, stable.
    pub id: String,
    /// How much it matters.
    pub severity: Severity,
    /// What is the matter, in one sentence.
    pub title: String,
    /// What was seen and where.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Evidence>,
    /// Why it matters.
    pub why: String,
    /// Documentation of the kernel or the runtime.
    pub link: String,
    /// The change that mends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<Remedy>,
}

/// Something that was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// The file, or what else was looked at.
    pub source: String,
    /// What it said.
    pub value: String,
}

/// How to mend it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Remedy {
    /// Shell commands for root, to be run in this order. They can be run again, and last until the next boot.
    pub commands: Vec<RemedyStep>,
    /// What a person has to do: options of a runtime, a change of a program, of a unit, of the boot loader.
    pub by_hand: Vec<RemedyStep>,
    /// Whether it takes a reboot.
    pub reboot: bool,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Step")]
pub struct RemedyStep {
    /// The change.
    pub change: String,
    /// How to undo it.
    pub undo: String,
}

/// One check: a rule about a node.
pub struct Check {
    /// Its stable name.
    pub id: &'static str,
    /// What it looks at.
    pub looks_at: &'static str,
    /// Why that matters for real-time work.
    pub why: &'static str,
    /// Where the kernel's or the runtime's documentation says so.
    pub link: &'static str,
    /// The rule.
    pub(crate) rule: fn(&Facts) -> Vec<Found>,
}

/// A finding before it gets the name of its check.
#[derive(Debug)]
pub(crate) struct Found {
    severity: Severity,
    title: String,
    evidence: Vec<Evidence>,
    remedy: Remedy,
}

impl Found {
    fn new(severity: Severity, title: impl Into<String>) -> Self {
        Self { severity, title: title.into(), evidence: Vec::new(), remedy: Remedy::default() }
    }

    pub(super) fn critical(title: impl Into<String>) -> Self {
        Self::new(Severity::Critical, title)
    }

    pub(super) fn warning(title: impl Into<String>) -> Self {
        Self::new(Severity::Warning, title)
    }

    pub(super) fn info(title: impl Into<String>) -> Self {
        Self::new(Severity::Info, title)
    }

    pub(super) fn ok(title: impl Into<String>) -> Self {
        Self::new(Severity::Ok, title)
    }

    /// Not found out, for `reason`.
    pub(super) fn unknown(reason: impl Into<String>) -> Self {
        Self::new(Severity::Unknown, reason)
    }

    /// A warning where real-time work is on the node, else a note.
    pub(super) fn warning_if(serious: bool, title: impl Into<String>) -> Self {
        Self::new(if serious { Severity::Warning } else { Severity::Info }, title)
    }

    pub(super) fn seen(mut self, source: impl Into<String>, value: impl Into<String>) -> Self {
        self.evidence.push(Evidence { source: source.into(), value: value.into() });
        self
    }

    /// A file as evidence.
    pub(super) fn file(self, facts: &Facts, path: &str) -> Self {
        match facts.text(path) {
            Some(text) => self.seen(path, text),
            None => self.seen(path, "absent"),
        }
    }

    /// A command and the one that undoes it.
    pub(super) fn command(mut self, change: impl Into<String>, undo: impl Into<String>) -> Self {
        self.remedy.commands.push(RemedyStep { change: change.into(), undo: undo.into() });
        self
    }

    /// A command that writes a value to a file which holds `old`.
    pub(super) fn write(self, path: &str, value: &str, old: &str) -> Self {
        self.command(echo(path, value), echo(path, old))
    }

    pub(super) fn by_hand(mut self, change: impl Into<String>, undo: impl Into<String>) -> Self {
        self.remedy.by_hand.push(RemedyStep { change: change.into(), undo: undo.into() });
        self
    }

    pub(super) fn reboot(mut self) -> Self {
        self.remedy.reboot = true;
        self
    }

    /// A boot option: to be added to the kernel's command line, and to be taken out again.
    pub(super) fn boot_option(self, option: &str) -> Self {
        self.by_hand(
            format!("add to the kernel's command line (GRUB: GRUB_CMDLINE_LINUX in /etc/default/grub, then update-grub or grub2-mkconfig): {option}"),
            format!("take {option} out again"),
        )
        .reboot()
    }

    /// The finding with the name of its check.
    pub(super) fn named(self, check: &Check) -> Finding {
        let has_remedy = self.remedy != Remedy::default();
        Finding {
            id: check.id.to_owned(),
            severity: self.severity,
            title: self.title,
            evidence: self.evidence,
            why: check.why.to_owned(),
            link: check.link.to_owned(),
            remedy: has_remedy.then_some(self.remedy),
        }
    }
}

/// A shell command that writes to a file.
pub(super) fn echo(path: &str, value: &str) -> String {
    format!("echo {} > {}", quoted(value), quoted(path))
}

/// A word for a POSIX shell, quoted if it has to be. Names on a node may hold anything.
pub(super) fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./,:=+@%".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

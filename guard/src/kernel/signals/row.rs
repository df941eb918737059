//! What a row of [`super::SIGNALS`] says of a signal, and which of its sources a kernel offers. It only decides; nothing is
//! loaded here.

use std::collections::BTreeMap;

use guard_common::config::Config;

use crate::kernel::{
    offer::{Lack, Offer},
    programs::Probe,
    refusal::Refusal,
};
use crate::snapshot::{Signal, SignalName, SignalState};

/// How far a signal can be seen: what is missing of it, or why it cannot be seen at all.
pub(in crate::kernel) type Sight = Result<Vec<String>, String>;

/// Programs that are attached all or none. Exits come before entries, and the consumer of a stamp before its producers, so
/// that nothing half seen is counted.
pub(in crate::kernel) type Group = &'static [Probe];

/// A signal.
pub(in crate::kernel) struct Row {
    /// Its name in `signals[]`.
    pub(super) name: SignalName,
    /// Whether nothing can be measured without it.
    pub(super) indispensable: bool,
    /// Whether it is there only where late wake-ups are explained.
    pub(super) explains: bool,
    /// What all sources need.
    pub(super) needs: fn(&Ask<'_>) -> Result<(), String>,
    /// What it can be seen by, the best first.
    pub(super) sources: &'static [Source],
    /// Begin of the reason where no source can be used.
    pub(super) lacking: &'static str,
    /// The source that is named where none can be used.
    pub(super) unseen: &'static str,
}

impl Row {
    /// A row whose first source is named where none can be used.
    pub(super) const fn new(name: SignalName, sources: &'static [Source]) -> Self {
        let unseen = sources[0].words;
        Self { name, indispensable: false, explains: false, needs: |_| Ok(()), sources, lacking: "", unseen }
    }

    /// Decides by which source it is seen.
    pub(super) fn decide(&'static self, ask: &Ask<'_>) -> Decided {
        let mut lacks = match (self.needs)(ask) {
            Ok(()) => String::new(),
            Err(reason) => return self.unseen(reason),
        };
        for (by, source) in self.sources.iter().enumerate() {
            match source.decide(ask, self.lack()) {
                Ok((words, groups, missing)) => {
                    let instead =
                        (by > 0 && !source.instead.is_empty()).then(|| format!("{}: {lacks}", source.instead));
                    let missing = instead.into_iter().chain(missing).collect();
                    return Decided { row: self, by: Some(by), words, groups, sight: Ok(missing) };
                }
                Err(reason) if by == 0 => lacks = reason,
                Err(reason) => lacks = format!("{lacks}; {}{reason}", source.nor),
            }
        }
        self.unseen(if self.lacking.is_empty() { lacks } else { format!("{}: {lacks}", self.lacking) })
    }

    fn unseen(&'static self, reason: String) -> Decided {
        Decided { row: self, by: None, words: self.unseen.to_owned(), groups: Vec::new(), sight: Err(reason) }
    }

    fn lack(&self) -> Lack {
        if self.indispensable { Lack::Start } else { Lack::Signal }
    }
}

/// One way to see a signal.
pub(in crate::kernel) struct Source {
    /// Its name in `signals[]`.
    pub(super) words: &'static str,
    /// What it needs besides programs and members; asked first.
    pub(super) needs: fn(&Ask<'_>) -> Result<(), String>,
    /// Programs that the configuration, which is frozen when they are loaded, relies on: attached before all others, and
    /// when they are refused all is loaded once more without this source.
    pub(super) frozen: Group,
    /// Its programs.
    pub(super) probes: Group,
    /// Members of structs that it reads.
    pub(super) members: &'static [&'static str],
    /// Further programs, named behind its words where the kernel has them.
    pub(super) named: &'static [Group],
    /// Further programs, missing where the kernel lacks them.
    pub(super) further: &'static [Group],
    /// What else is missing.
    pub(super) weaker: fn(&Ask<'_>) -> Vec<String>,
    /// What is missing where it stands in for a better source; the better one's reason follows. Empty for nothing.
    pub(super) instead: &'static str,
    /// Begin of its reason behind that of the better source, where neither can be used.
    pub(super) nor: &'static str,
    /// Switches it on.
    pub(super) configure: fn(&mut Config),
}

impl Source {
    /// A source that needs nothing.
    pub(super) const fn new(words: &'static str) -> Self {
        Self {
            words,
            needs: |_| Ok(()),
            frozen: &[],
            probes: &[],
            members: &[],
            named: &[],
            further: &[],
            weaker: |_| Vec::new(),
            instead: "",
            nor: "",
            configure: |_| {},
        }
    }

    /// Its words, what to attach, and what is missing of it; or why it cannot be used.
    fn decide(&self, ask: &Ask<'_>, lack: Lack) -> Result<(String, Vec<Group>, Vec<String>), String> {
        (self.needs)(ask)?;
        ask.group(self.frozen, lack)?;
        ask.offer.members(self.members)?;
        ask.group(self.probes, lack)?;
        let mut words = self.words.to_owned();
        let mut groups = vec![self.probes];
        let mut missing = (self.weaker)(ask);
        let mut refused = Vec::new();
        for group in self.named.iter().chain(self.further) {
            match (ask.offered(group, lack), ask.refusal(group)) {
                (Err(reason), _) if self.further.contains(group) => missing.push(reason),
                (Err(_), _) => {}
                (Ok(()), Some(reason)) => refused.push(reason.to_owned()),
                (Ok(()), None) => groups.push(group),
            }
        }
        for probe in groups.iter().skip(1).filter(|group| self.named.contains(group)).filter_map(|group| group.last()) {
            words += ", ";
            words += probe.program.trim_end_matches("_entry");
        }
        missing.extend(refused);
        groups.retain(|group| !group.is_empty());
        Ok((words, groups, missing))
    }
}

/// By which source a signal is seen.
pub(in crate::kernel) struct Decided {
    pub(super) row: &'static Row,
    /// Place of the source in its row; `None` where there is none.
    pub(super) by: Option<usize>,
    pub(super) words: String,
    /// Programs to attach.
    pub(super) groups: Vec<Group>,
    pub(super) sight: Sight,
}

impl Decided {
    /// The source.
    pub(super) fn source(&self) -> Option<&'static Source> {
        self.row.sources.get(self.by?)
    }

    /// As reports show it.
    pub(in crate::kernel) fn signal(self) -> Signal {
        let (state, reason) = match self.sight {
            Ok(missing) if missing.is_empty() => (SignalState::Active, None),
            Ok(missing) => (SignalState::Degraded, Some(missing.join("; "))),
            Err(reason) => (SignalState::Unavailable, Some(reason)),
        };
        Signal { name: self.row.name.into(), source: self.words, state, reason }
    }
}

/// What the kernel offers, less the programs that it refused when they were tried.
pub(in crate::kernel) struct Ask<'a> {
    pub(super) offer: &'a Offer<'a>,
    /// Program → what the kernel said.
    refused: BTreeMap<&'static str, String>,
}

impl<'a> Ask<'a> {
    pub(in crate::kernel) fn new(offer: &'a Offer<'a>) -> Self {
        Self { offer, refused: BTreeMap::new() }
    }

    /// From now on this program is not there.
    pub(in crate::kernel) fn refuse(&mut self, refusal: &Refusal) {
        tracing::info!(%refusal, "going on without");
        self.refused.insert(refusal.program, refusal.to_string());
    }

    /// Whether the kernel has all that these programs are attached to, and took them as far as they were tried.
    pub(super) fn group(&self, group: &[Probe], lack: Lack) -> Result<(), String> {
        self.offered(group, lack)?;
        self.refusal(group).map_or(Ok(()), |reason| Err(reason.to_owned()))
    }

    fn offered(&self, group: &[Probe], lack: Lack) -> Result<(), String> {
        if group.iter().any(|probe| probe.is_trampoline()) {
            self.offer.trampolines(self.refusal(group))?;
        }
        group.iter().try_for_each(|probe| match probe.is_trampoline() {
            true => self.offer.function(probe.program),
            false => self.offer.tracepoint(probe.program, lack),
        })
    }

    fn refusal(&self, group: &[Probe]) -> Option<&str> {
        group.iter().find_map(|probe| self.refused.get(probe.program)).map(String::as_str)
    }
}

/// Each effect whose cause is there, with the cause.
pub(super) fn shortfalls<const N: usize>(all: [(&str, Result<(), String>); N]) -> Vec<String> {
    all.into_iter().filter_map(|(effect, found)| Some(format!("{effect}: {}", found.err()?))).collect()
}

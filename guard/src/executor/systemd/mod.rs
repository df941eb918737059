//! systemd as the owner of its units' limits. It writes cgroup files from what it knows of a unit, at every daemon-reload,
//! so what guard has written to a unit's own cgroup is sent to it as well: SetUnitProperties(runtime). Cgroups below a unit
//! (delegated ones: a container's) are not systemd's business.
//!
//! Files come first. Whoever writes them posts here what it holds, which never waits; the agent, a thread of its own, then
//! brings systemd to it, with a journal of its own for what units' properties were before.

mod agent;
mod bus;
mod drop_in;
mod mailbox;
mod property;
mod surroundings;
#[cfg(test)]
mod tests;
mod unit;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
    thread,
    time::{Duration, Instant},
};

pub use agent::UnitsOptions;
pub(super) use property::echoes;

use self::{
    agent::Agent,
    bus::unit_name,
    mailbox::{Mailbox, Shared},
    unit::{Ledger, UnitEntry, UnitKey},
};
use super::{
    journal::{Book, Files, JournalEntry, Key},
    outcome::{RestoredProperty, WriteResult},
    report::{Report, RestoreError},
    store::{self, Journal, Lock, StateError},
};
use crate::{
    cgroup::Hierarchy,
    knob::{Knob, Property, Setting, Version, WeightFormula},
};

/// There where systemd is PID 1.
const BOOTED: &str = "run/systemd/system";
/// The units of systemd, where it runs: takes what is held of them, and tells systemd. Clones are the same.
#[derive(Clone, Default)]
pub struct Units {
    handle: Option<Arc<Handle>>,
}

/// Ends the agent when the last of the users has gone. What was sent by then stays in the journal.
struct Handle {
    shared: Arc<Shared>,
    version: Version,
    weight: WeightFormula,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.open().is_alone = true;
        self.shared.posted.notify_one();
    }
}

impl Units {
    /// Takes the directory for the journal of units for itself and starts the agent. It puts back first what an earlier guard
    /// has left there and is not held anew. Where systemd does not run, nothing is started.
    ///
    /// # Errors
    /// Another guard enforces, the directory cannot be used, or there is no thread to be had.
    pub fn start(hierarchy: Hierarchy, state_dir: &Path, options: UnitsOptions) -> Result<Self, StateError> {
        let boot = store::boot_id(&options.root)?;
        let decoded = store::read::<UnitKey, UnitEntry>(state_dir, &boot)?;
        let is_here = options.root.join(BOOTED).is_dir() && (options.bus.is_some() || options.root == Path::new("/"));
        if !is_here && decoded.as_ref().is_none_or(|decoded| decoded.book.is_empty()) {
            return Ok(Self::default());
        }
        let lock = Lock::take(state_dir)?;
        // Read again: whoever had the lock may have changed it.
        let book = store::read(state_dir, &boot)?.map(|decoded| decoded.book).unwrap_or_default();
        let journal = Journal::open(state_dir, boot, book, lock)?;
        let (version, weight) = (hierarchy.version(), options.weight);
        let ledger = Ledger { root: options.root.clone(), hierarchy, formula: options.weight, journal };
        let shared = Arc::new(Shared::default());
        let agent = Agent::new(ledger, options, Arc::clone(&shared));
        let thread = thread::Builder::new().name("guard-systemd".to_owned()).spawn(move || agent.run());
        thread.map_err(StateError::io("start a thread for", state_dir))?;
        Ok(Self { handle: Some(Arc::new(Handle { shared, version, weight })) })
    }

    /// The knob of this cgroup holds this value of guard's. Never waits.
    pub(super) fn hold(&self, path: &str, id: u64, setting: &Setting) {
        let Some(Handle { shared, version, weight }) = self.of(path) else { return };
        if setting.properties(*version, *weight).is_empty() {
            return;
        }
        let mut mailbox = shared.open();
        mailbox.wanted.entry(path.to_owned()).or_default().insert(setting.knob(), (id, setting.clone()));
        // Also when it is wanted already: whoever wrote it anew did so because it had been changed.
        mailbox.changed.insert(path.to_owned());
        drop(mailbox);
        shared.posted.notify_one();
    }

    /// The knob of this cgroup is guard's no more. Never waits.
    pub(super) fn let_go(&self, path: &str, id: u64, knob: Knob) {
        let Some(Handle { shared, .. }) = self.of(path) else { return };
        let mut mailbox = shared.open();
        let Some(wanted) = mailbox.wanted.get_mut(path) else { return };
        // Another cgroup under this path may be held already.
        if wanted.get(&knob).is_none_or(|(of, _)| *of != id) {
            return;
        }
        wanted.remove(&knob);
        if wanted.is_empty() {
            mailbox.wanted.remove(path);
        }
        mailbox.changed.insert(path.to_owned());
        drop(mailbox);
        shared.posted.notify_one();
    }

    /// Values of guard's that systemd may have been sent and may write at any time.
    pub(super) fn sent(&self, path: &str, knob: Knob) -> Vec<Setting> {
        let Some(Handle { shared, .. }) = self.of(path) else { return Vec::new() };
        shared.open().sent.get(&(path.to_owned(), knob)).cloned().unwrap_or_default()
    }

    /// Whether a cgroup is by its name a unit of the systemd that is notified.
    pub(super) fn may_own(&self, path: &str) -> bool {
        self.of(path).is_some()
    }

    fn of(&self, path: &str) -> Option<&Handle> {
        unit_name(path).and(self.handle.as_deref())
    }

    /// Puts back all properties, for no longer than `limit`, and ends the agent. Returns what came of it; `None` when the agent
    /// did not come to its end. What was not put back stays in the journal.
    #[must_use]
    pub fn end(&self, limit: Duration) -> Option<Vec<RestoredProperty>> {
        let Some(Handle { shared, .. }) = self.handle.as_deref() else { return Some(Vec::new()) };
        let mut mailbox = shared.open();
        mailbox.wanted.clear();
        mailbox.end = Some(Instant::now() + limit);
        shared.posted.notify_one();
        // A little more than its own limit: it looks at the clock between two calls.
        let limit = limit + limit / 4 + Duration::from_millis(200);
        let waiting = |mailbox: &mut Mailbox| mailbox.report.is_none();
        let waited = shared.reported.wait_timeout_while(mailbox, limit, waiting);
        waited.unwrap_or_else(PoisonError::into_inner).0.report.clone()
    }
}

impl fmt::Debug for Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.handle.is_some() { "Units of systemd" } else { "no Units" })
    }
}

/// Puts back all properties that the journal in `state_dir` names, for no longer than `limit`. With `dry_run` systemd is not
/// asked, and the lock not taken.
///
/// # Errors
/// Another guard is enforcing; the state directory cannot be used; there is no cpu controller.
pub fn restore_units(
    state_dir: &Path,
    options: UnitsOptions,
    dry_run: bool,
    limit: Duration,
) -> Result<Report, RestoreError> {
    let boot = store::boot_id(&options.root)?;
    let Some(decoded) = store::read::<UnitKey, UnitEntry>(state_dir, &boot)? else { return Ok(Report::default()) };
    let held: Vec<RestoredProperty> = decoded.book.iter().map(|(key, entry)| pending(key, entry)).collect();
    let mut report = Report {
        journal: true,
        other_boot: decoded.other_boot,
        damaged: decoded.damaged,
        torn: decoded.torn,
        ..Report::default()
    };
    if dry_run {
        report.properties = held;
        return Ok(report);
    }
    if held.is_empty() {
        // Damage or another boot's records were reported once; what is left is an empty journal.
        let lock = Lock::take(state_dir)?;
        drop(Journal::<UnitKey, UnitEntry>::open(state_dir, boot, Book::new(), lock)?);
        return Ok(report);
    }
    let units = Units::start(Hierarchy::detect(&options.root)?, state_dir, options)?;
    report.properties = units.end(limit).unwrap_or_else(|| {
        let hangs = || WriteResult::Failed("guard's agent for systemd hangs".to_owned());
        held.into_iter().map(|property| RestoredProperty { result: hangs(), ..property }).collect()
    });
    Ok(report)
}

fn pending(key: &UnitKey, entry: &UnitEntry) -> RestoredProperty {
    RestoredProperty {
        unit: key.unit.clone(),
        property: key.property.clone(),
        found: None,
        original: entry.original.to_string(),
        result: WriteResult::Pending,
    }
}

/// Takes over into the journal of units what older guards have written of units into the journals of files in `dirs`. These
/// no longer say it when they are written anew.
///
/// # Errors
/// Another guard is enforcing; a directory cannot be used; there is no cpu controller.
pub fn adopt_units(dirs: &[PathBuf], state_dir: &Path, options: &UnitsOptions) -> Result<(), RestoreError> {
    let boot = store::boot_id(&options.root)?;
    let mut old: Vec<(Key, JournalEntry)> = Vec::new();
    for dir in dirs {
        let book: Files = store::read(dir, &boot)?.map(|decoded| decoded.book).unwrap_or_default();
        old.extend(book.into_iter().filter(|(_, entry)| entry.unit.is_some()));
    }
    if old.is_empty() {
        return Ok(());
    }
    let hierarchy = Hierarchy::detect(&options.root)?;
    let found = old.iter().flat_map(|(key, entry)| of_file(key, entry, &hierarchy, options.weight));
    let mut found: Vec<_> = found.collect();
    let lock = Lock::take(state_dir)?;
    let book: Book<UnitKey, UnitEntry> = store::read(state_dir, &boot)?.map(|read| read.book).unwrap_or_default();
    found.retain(|(key, _)| !book.contains_key(key));
    let mut journal = Journal::open(state_dir, boot, book, lock)?;
    Ok(journal.hold(found, true).map_err(StateError::io("write", state_dir))?)
}

/// What an older guard's record of a file says of its unit. The values that it may have set follow from the file's.
fn of_file(
    key: &Key,
    entry: &JournalEntry,
    hierarchy: &Hierarchy,
    formula: WeightFormula,
) -> Vec<(UnitKey, UnitEntry)> {
    let Some(unit) = &entry.unit else { return Vec::new() };
    let sent: Vec<_> =
        entry.ours.iter().flat_map(|text| property::of_text(key.file, text, hierarchy.version(), formula)).collect();
    let entry = |(name, original): &(String, Property)| {
        let of_it = sent.iter().filter(|(of, _)| of == name);
        let ours = of_it.map(|(_, value)| value.clone()).collect();
        let entry =
            UnitEntry { path: key.object.path.clone(), original: original.clone(), ours, beside: false, drop_in: None };
        (UnitKey { unit: unit.name.clone(), property: name.clone() }, entry)
    };
    unit.properties.iter().map(entry).collect()
}

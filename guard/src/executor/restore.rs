//! Putting back what guard changed: for `guard restore`, for a start that finds what an earlier guard left, and for a
//! clean stop. A file is put back only if it still holds what guard wrote; another value is somebody else's and stays.

use std::{path::Path, thread::sleep, time::Duration};

use super::{
    journal::{Files, JournalEntry, Key},
    outcome::{Restored, WriteResult},
    place::NodeFiles,
    report::{Report, RestoreError},
    store::{self, Journal, Lock, StateError},
    trouble::Trouble,
    write::{Job, Stop, run},
};
use crate::{
    cgroup::Hierarchy,
    knob::{File, Object},
};

/// How often what was refused or busy is tried again while others still change.
const ROUNDS: u32 = 5;

/// Puts back what the journal in `state_dir` names, and leaves a journal of what could not be put back. With `dry_run`
/// nothing is written, and a running guard is no obstacle. `root` is "/" except in tests and for an agent that sees
/// the node's file system elsewhere.
///
/// # Errors
/// Another guard is enforcing; the state directory cannot be used; there is no cpu controller.
pub fn restore(root: &Path, state_dir: &Path, dry_run: bool) -> Result<Report, RestoreError> {
    let boot = store::boot_id(root)?;
    if store::read::<Key, JournalEntry>(state_dir, &boot)?.is_none() {
        // Nothing was ever changed: no directory is made, and no hierarchy is needed.
        return Ok(Report::default());
    }
    if dry_run {
        let node = NodeFiles { root: root.to_owned(), hierarchy: Hierarchy::detect(root)? };
        let (mut report, book) = look(state_dir, &boot)?;
        report.files = book.iter().map(|(key, entry)| pending(&node, key, entry)).collect();
        return Ok(report);
    }
    let lock = Lock::take(state_dir)?;
    let (mut report, book) = look(state_dir, &boot)?;
    if book.is_empty() {
        // Damage or another boot's records were told once; what is left is an empty journal.
        drop(Journal::open(state_dir, boot, book, lock)?);
        return Ok(report);
    }
    let node = NodeFiles { root: root.to_owned(), hierarchy: Hierarchy::detect(root)? };
    let mut journal = Journal::open(state_dir, boot, book, lock)?;
    report.files = put_back(&node, &mut journal);
    Ok(report)
}

/// What the journal says.
pub(super) fn look(state_dir: &Path, boot: &str) -> Result<(Report, Files), StateError> {
    let decoded = store::read(state_dir, boot)?;
    let journal = decoded.is_some();
    let decoded = decoded.unwrap_or_default();
    let report = Report {
        journal,
        other_boot: decoded.other_boot,
        damaged: decoded.damaged,
        torn: decoded.torn,
        ..Report::default()
    };
    Ok((report, decoded.book))
}

/// Puts back every file of the journal. What is done or is not guard's any more leaves the journal; what failed stays.
pub(super) fn put_back(node: &NodeFiles, journal: &mut Journal<Key, JournalEntry>) -> Vec<Restored> {
    let book = journal.book().clone();
    let mut done: Vec<Restored> = Vec::with_capacity(book.len());
    let mut left: Vec<(Key, JournalEntry)> = book.into_iter().collect();
    for round in 1..=ROUNDS {
        let before = left.len();
        let results = one_round(node, journal, &left);
        let (again, settled): (Vec<_>, Vec<_>) =
            results.into_iter().partition(|each| matches!(each.result, WriteResult::Refused(_) | WriteResult::Busy(_)));
        let busy = again.iter().any(|each| matches!(each.result, WriteResult::Busy(_)));
        done.extend(settled);
        left.retain(|(key, _)| again.iter().any(|each| is_of(each, key)));
        // What was refused may be allowed once its neighbours are as they were.
        if left.is_empty() || round == ROUNDS || (left.len() == before && !busy) {
            done.extend(again);
            break;
        }
        if busy {
            sleep(Duration::from_millis(10 << round));
        }
    }
    done.sort_by(|a, b| (&a.path, a.file, a.id).cmp(&(&b.path, b.file, b.id)));
    done
}

fn is_of(restored: &Restored, key: &Key) -> bool {
    restored.path == key.object.path && restored.id == key.object.id && restored.file == key.file
}

fn one_round(
    node: &NodeFiles,
    journal: &mut Journal<Key, JournalEntry>,
    files: &[(Key, JournalEntry)],
) -> Vec<Restored> {
    let mut out = Vec::new();
    let mut jobs = Vec::new();
    for (key, entry) in files {
        match examine(node, key, entry, jobs.len()) {
            Ok(job) => jobs.push(job),
            Err((found, result)) => out.push(restored(key, entry, found, result)),
        }
    }
    let askers = jobs.len();
    let found: Vec<String> = jobs.iter().map(|job| job.now.clone()).collect();
    let neighbours = other_files(node, &jobs);
    jobs.extend(neighbours);
    let ran = run(node.hierarchy.version(), journal, &mut jobs, askers);
    for ((job, found), ran) in jobs.iter().zip(found).zip(ran) {
        let result = match ran.stop {
            None if ran.wrote => ran.nearest.map_or(WriteResult::Written, WriteResult::Nearest),
            // The kernel did it on the way: a weight that idle gave up.
            None => WriteResult::Unchanged,
            Some(Stop::Foreign { found, .. }) => WriteResult::Foreign(format!("it now holds \"{found}\"")),
            Some(Stop::Trouble(trouble)) => WriteResult::from(&trouble),
        };
        let entry = files.iter().find(|(key, _)| *key == job.key).map(|(_, entry)| entry);
        out.extend(entry.map(|entry| restored(&job.key, entry, Some(found), result)));
    }
    for each in &out {
        if !matches!(each.result, WriteResult::Refused(_) | WriteResult::Busy(_) | WriteResult::Failed(_)) {
            let object = Object { kind: each.file.knob().kind(), path: each.path.clone(), id: each.id };
            let key = Key { object, file: each.file };
            // A record that cannot be written costs the next restore one look.
            if let Err(error) = journal.drop_entry(&key, &each.result.to_string()) {
                tracing::warn!("cannot record in the undo journal that {key} is done: {error}");
            }
        }
    }
    out
}

fn restored(key: &Key, entry: &JournalEntry, found: Option<String>, result: WriteResult) -> Restored {
    let (path, id, file) = (key.object.path.clone(), key.object.id, key.file);
    Restored { path, id, file, found, original: entry.original.clone(), result }
}

/// A job that puts a file back, or why there is none.
fn examine(
    node: &NodeFiles,
    key: &Key,
    entry: &JournalEntry,
    asker: usize,
) -> Result<Job, (Option<String>, WriteResult)> {
    if entry.ours.is_empty() {
        return Err((None, WriteResult::Unchanged));
    }
    let file = key.file;
    let mut job = Job::open(node, key, asker).map_err(|trouble| (None, WriteResult::from(&trouble)))?;
    let found = job.now.clone();
    if file.same(&found, &entry.original) {
        return Err((Some(found), WriteResult::Unchanged));
    }
    if !entry.is_ours(file, &found) {
        let said = format!("it holds \"{found}\", which is not guard's");
        return Err((Some(found), WriteResult::Foreign(said)));
    }
    job.undo(node, entry).map_err(|error| {
        let trouble = Trouble::Other(format!("cannot understand the original of {file} in the undo journal: {error}"));
        (Some(found), WriteResult::from(&trouble))
    })?;
    Ok(job)
}

/// Where only one of a knob's files is put back, the others tell what it has to agree with.
pub(super) fn other_files(node: &NodeFiles, jobs: &[Job]) -> Vec<Job> {
    let missing = |job: &Job| {
        let others = job.key.file.knob().files(node.hierarchy.version());
        let is_there =
            |file: &File| jobs.iter().any(|each| each.key.file == *file && each.key.object == job.key.object);
        // What cannot be read now will say so when it is written.
        let open = |file| Job::open(node, &Key { object: job.key.object.clone(), file }, job.asker).ok();
        others.filter(|file| !is_there(file)).filter_map(open).collect::<Vec<_>>()
    };
    jobs.iter().flat_map(missing).collect()
}

fn pending(node: &NodeFiles, key: &Key, entry: &JournalEntry) -> Restored {
    match examine(node, key, entry, 0) {
        Ok(job) => restored(key, entry, Some(job.now), WriteResult::Pending),
        Err((found, result)) => restored(key, entry, found, result),
    }
}

//! Gets ready to write: puts back what an earlier guard left behind, opens the journals and the audit log, and starts the
//! lanes and the agent for systemd. Each has a journal of its own, below the state directory.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::acting::Acting;
use super::audit::Audit;
use super::error::ControlError;
use super::lane::{Lane, Which};
use super::thread_priority::ThreadPriority;
use super::writers::Writers;
use crate::cgroup::Hierarchy;
use crate::executor::{
    Executor, ExecutorOptions, Report, RestoreError, Restored, Units, UnitsOptions, adopt_units, restore, restore_units,
};

/// How long systemd may take to have its units' properties put back. A daemon-reload may be under way.
const PATIENCE_WITH_SYSTEMD: Duration = Duration::from_secs(20);

/// The directory of a lane's journal, below a state directory.
fn journal(state_dir: &Path, lane: Which) -> PathBuf {
    state_dir.join(lane.name())
}

/// The directory of the journal of systemd's units, below a state directory.
fn units_journal(state_dir: &Path) -> PathBuf {
    state_dir.join("units")
}

/// Directories with journals of files: of both lanes, and the state directory itself.
fn file_journals(state_dir: &Path) -> Vec<PathBuf> {
    let lanes = [Which::Protect, Which::Rest].map(|lane| journal(state_dir, lane));
    [state_dir.to_owned()].into_iter().chain(lanes).collect()
}

/// Puts back everything that a guard with this state directory has changed and that still is as it left it: files by the
/// journals of both lanes and by one in the directory itself, then what systemd knows of its units. With `dry_run` nothing is
/// written. `root` is "/" except in tests.
///
/// # Errors
/// A guard is enforcing with this directory; the directory cannot be used; there is no cpu controller.
pub fn put_back(root: &Path, state_dir: &Path, dry_run: bool) -> Result<Report, RestoreError> {
    let options = UnitsOptions { root: root.to_owned(), ..UnitsOptions::default() };
    let (mut whole, unfinished) = put_back_files(&options, state_dir, dry_run)?;
    add(&mut whole, restore_units(&units_journal(state_dir), options, dry_run, PATIENCE_WITH_SYSTEMD)?);
    if !dry_run {
        try_again(root, &mut whole, &unfinished)?;
    }
    Ok(whole)
}

/// Once more by the journals that still hold something: it may only have waited for another journal's, or for a controller
/// that systemd has taken away with the limit.
fn try_again(root: &Path, whole: &mut Report, unfinished: &[PathBuf]) -> Result<(), RestoreError> {
    for dir in unfinished {
        let again = restore(root, dir, false)?;
        let is_of =
            |file: &Restored| again.files.iter().any(|a| (&a.path, a.id, a.file) == (&file.path, file.id, file.file));
        whole.files.retain(|file| !is_of(file));
        add(whole, again);
    }
    whole.files.sort_by(|a, b| (&a.path, a.file, a.id).cmp(&(&b.path, b.file, b.id)));
    Ok(())
}

/// Puts back files; returns also the directories whose journals still hold some.
fn put_back_files(
    options: &UnitsOptions,
    state_dir: &Path,
    dry_run: bool,
) -> Result<(Report, Vec<PathBuf>), RestoreError> {
    let dirs = file_journals(state_dir);
    if !dry_run {
        adopt_units(&dirs, &units_journal(state_dir), options)?;
    }
    put_back_by(&options.root, dirs, dry_run)
}

/// Puts back files by the journals in these directories; returns also those that still hold some.
fn put_back_by(
    root: &Path,
    dirs: impl IntoIterator<Item = PathBuf>,
    dry_run: bool,
) -> Result<(Report, Vec<PathBuf>), RestoreError> {
    let mut whole = Report::default();
    let mut unfinished = Vec::new();
    for dir in dirs {
        let part = restore(root, &dir, dry_run)?;
        if part.failures().next().is_some() {
            unfinished.push(dir);
        }
        add(&mut whole, part);
    }
    Ok((whole, unfinished))
}

fn add(whole: &mut Report, part: Report) {
    whole.journal |= part.journal;
    whole.other_boot += part.other_boot;
    whole.damaged += part.damaged;
    whole.torn |= part.torn;
    whole.files.extend(part.files);
    whole.properties.extend(part.properties);
}

/// Starts the lanes and the log.
pub(super) fn writers(hierarchy: &Hierarchy, acting: &Acting) -> Result<Writers, ControlError> {
    let (state_dir, path) = (acting.state_dir(), acting.audit());
    let audit = Audit::open(&path).map_err(|source| ControlError::Audit { path, source })?;
    let (left, _) = put_back_files(&UnitsOptions::default(), &state_dir, false)?;
    report_left(&left);
    // It also puts back what an earlier guard has left in systemd: nothing waits for that here.
    let units = Units::start(hierarchy.clone(), &units_journal(&state_dir), UnitsOptions::default());
    let units = units.map_err(RestoreError::from)?;
    let options = ExecutorOptions { units: units.clone(), ..ExecutorOptions::default() };
    let open = |lane| Executor::open(hierarchy.clone(), &journal(&state_dir, lane), options.clone());
    let (protect, rest) = (open(Which::Protect)?, open(Which::Rest)?);
    let (reports, received) = Writers::channel();
    let priority = acting.config.node.priority;
    let urgent = move || ThreadPriority::urgent(priority);
    let protect = Lane::start(Which::Protect, protect, reports.clone(), urgent).map_err(ControlError::Thread)?;
    let rest = Lane::start(Which::Rest, rest, reports, urgent).map_err(ControlError::Thread)?;
    let by_journal = move |lanes: &[Which]| {
        let root = Path::new("/");
        let (mut whole, unfinished) = put_back_by(root, lanes.iter().map(|lane| journal(&state_dir, *lane)), false)?;
        try_again(root, &mut whole, &unfinished)?;
        Ok(whole)
    };
    Ok(Writers::new([protect, rest], received, audit, units, Box::new(by_journal)))
}

/// Logs what an earlier guard had left.
fn report_left(left: &Report) {
    let failed = left.failures().count();
    let done = left.files.len() - failed;
    if done > 0 {
        tracing::warn!("an earlier guard did not end cleanly: restored {done} files");
    }
    for file in left.failures() {
        tracing::error!("{} of {}: {}; guard tries again when it ends", file.file, file.path, file.result);
    }
    if left.damaged > 0 {
        tracing::error!("{} lines of the undo journal are damaged; what they named is not put back", left.damaged);
    }
}

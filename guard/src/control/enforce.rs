//! Gets ready to write: puts back what an earlier guard left behind, opens the journals and the audit log, and starts the
//! lanes. Each lane has a journal of its own, below the state directory.

use std::path::{Path, PathBuf};

use super::ControlError;
use super::audit::Audit;
use super::hands::Hands;
use super::lane::{Lane, Which};
use super::observe::Observer;
use super::run_loop::Acting;
use super::tempo::Tempo;
use crate::cgroup::{Executor, ExecutorOptions, Report, RestoreError, Restored, restore};

/// The directory of a lane's journal, below a state directory.
fn journal(state_dir: &Path, lane: Which) -> PathBuf {
    state_dir.join(lane.name())
}

/// Puts back everything that a guard with this state directory has changed and that still is as it left it: by the
/// journals of both lanes, and by one in the directory itself. With `dry_run` nothing is written. `root` is "/"
/// except in tests.
///
/// # Errors
/// A guard is enforcing with this directory; the directory cannot be used; there is no cpu controller.
pub fn put_back(root: &Path, state_dir: &Path, dry_run: bool) -> Result<Report, RestoreError> {
    let lanes = [Which::Protect, Which::Rest].map(|lane| journal(state_dir, lane));
    put_back_by(root, [state_dir.to_owned()].into_iter().chain(lanes), dry_run)
}

/// As [`put_back`], by the journals in these directories.
fn put_back_by(root: &Path, dirs: impl Iterator<Item = PathBuf>, dry_run: bool) -> Result<Report, RestoreError> {
    let mut whole = Report::default();
    let mut unfinished = Vec::new();
    for dir in dirs {
        let part = restore(root, &dir, dry_run)?;
        if part.failures().next().is_some() {
            unfinished.push(dir);
        }
        add(&mut whole, part);
    }
    // What one journal could not put back may only have waited for another's.
    for dir in unfinished.iter().filter(|_| !dry_run) {
        let again = restore(root, dir, dry_run)?;
        let is_of =
            |file: &Restored| again.files.iter().any(|a| (&a.path, a.id, a.file) == (&file.path, file.id, file.file));
        whole.files.retain(|file| !is_of(file));
        add(&mut whole, again);
    }
    whole.files.sort_by(|a, b| (&a.path, a.file, a.id).cmp(&(&b.path, b.file, b.id)));
    Ok(whole)
}

fn add(whole: &mut Report, part: Report) {
    whole.journal |= part.journal;
    whole.other_boot += part.other_boot;
    whole.damaged += part.damaged;
    whole.torn |= part.torn;
    whole.files.extend(part.files);
}

/// Starts the lanes and the log.
pub(super) fn hands(observer: &Observer, acting: &Acting) -> Result<Hands, ControlError> {
    let (state_dir, path) = (acting.state_dir(), acting.audit());
    let audit = Audit::open(&path).map_err(|source| ControlError::Audit { path, source })?;
    let left = put_back(Path::new("/"), &state_dir, false)?;
    tell(&left);
    let open =
        |lane| Executor::open(observer.hierarchy().clone(), &journal(&state_dir, lane), ExecutorOptions::default());
    let (protect, rest) = (open(Which::Protect)?, open(Which::Rest)?);
    let (reports, received) = Hands::channel();
    let priority = acting.config.node.priority;
    let tempo = move || Tempo::urgent(priority);
    let protect = Lane::start(Which::Protect, protect, reports.clone(), tempo).map_err(ControlError::Thread)?;
    let rest = Lane::start(Which::Rest, rest, reports, tempo).map_err(ControlError::Thread)?;
    let by_journal =
        move |lanes: &[Which]| put_back_by(Path::new("/"), lanes.iter().map(|lane| journal(&state_dir, *lane)), false);
    Ok(Hands::new(protect, rest, received, audit, Box::new(by_journal)))
}

/// Says what an earlier guard had left.
fn tell(left: &Report) {
    let failed = left.failures().count();
    let done = left.files.len() - failed;
    if done > 0 {
        tracing::warn!("an earlier guard did not end cleanly: {done} files that it had changed were looked after");
    }
    for file in left.failures() {
        tracing::error!("{} of {}: {}; guard tries again when it ends", file.file, file.path, file.result);
    }
    if left.damaged > 0 {
        tracing::error!("{} lines of the undo journal are damaged; what they named is not put back", left.damaged);
    }
}

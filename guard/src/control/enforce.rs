//! Gets ready to write: puts back what an earlier guard left behind, opens the journals and the audit log, and starts the
//! lanes. Each lane has a journal of its own, below the state directory.

use std::path::{Path, PathBuf};

use super::ControlError;
use super::audit::Audit;
use super::hands::Hands;
use super::lane::{Lane, Which};
use super::observe::Observer;
use super::run_loop::Acting;
use super::sys;
use crate::cgroup::{Executor, ExecutorOptions, Report, RestoreError, restore};

/// Nice value of the threads between a throttle and its end: the controller's, and that of the lane that protects.
const URGENT_NICE: i32 = -20;

/// Directories of the journals below a state directory, in the order in which they are put back.
fn journals(state_dir: &Path) -> [PathBuf; 2] {
    [Which::Protect, Which::Rest].map(|lane| state_dir.join(lane.name()))
}

/// Puts back everything that a guard with this state directory has changed and that still is as it left it. With
/// `dry_run` nothing is written. `root` is "/" except in tests.
///
/// # Errors
/// A guard is enforcing with this directory; the directory cannot be used; there is no cpu controller.
pub fn put_back(root: &Path, state_dir: &Path, dry_run: bool) -> Result<Report, RestoreError> {
    let [protect, rest] = journals(state_dir);
    let mut whole = restore(root, &protect, dry_run)?;
    add(&mut whole, restore(root, &rest, dry_run)?);
    if !dry_run && whole.failures().next().is_some() {
        // What one lane's journal could not put back may only have waited for the other's.
        let again = restore(root, &protect, false)?;
        whole
            .files
            .retain(|file| !again.files.iter().any(|a| (&a.path, a.id, a.file) == (&file.path, file.id, file.file)));
        add(&mut whole, again);
    }
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
    let [protect, rest] = journals(&state_dir);
    let open = |dir: &Path| Executor::open(observer.hierarchy().clone(), dir, ExecutorOptions::default());
    let (protect, rest) = (open(&protect)?, open(&rest)?);
    let (reports, received) = Hands::channel();
    let protect = Lane::start(Which::Protect, protect, reports.clone(), || sys::hurry(URGENT_NICE));
    let protect = protect.map_err(ControlError::Thread)?;
    // Before this thread hurries, which its children would inherit.
    let rest = Lane::start(Which::Rest, rest, reports, || ()).map_err(ControlError::Thread)?;
    sys::hurry(URGENT_NICE);
    Ok(Hands::new(protect, rest, received, audit))
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

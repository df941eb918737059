//! Undoing what guard did, whenever it was stopped.

use anyhow::{Result, ensure};

use crate::{
    harness::emulated,
    scenario::Verdict,
    undo::{self, Victim},
};

const SEED: u64 = 20_261_124;

/// Kills of the lanes with what the policies want, of the executor with changes to every knob, and of whole guards; fewer in
/// an emulated machine, where each takes seconds.
pub(super) fn killed_while_others_write() -> Result<Verdict> {
    let (kills, whole) = if emulated() { (5, 1) } else { (50, 4) };
    let figures = undo::storm(Victim::Policies, kills, SEED, |_| ())?;
    // What a handful of kills meets in an emulated machine is chance.
    ensure!(figures.put_back > 0 || emulated(), "guard was never killed while it held something: {figures:?}");
    ensure!(figures.kept > 0 || emulated(), "nobody else's value was ever there: {figures:?}");
    let of_executor = undo::storm(Victim::Executor, kills, SEED, |_| ())?;
    ensure!(of_executor.put_back > 0 || emulated(), "nothing of any knob was put back: {of_executor:?}");
    let of_whole = undo::storm(Victim::Guard, whole, SEED, |_| ())?;
    Ok(Verdict::Passed(format!(
        "{} kills: {} files put back, {} left to the other, {} of {} of the other's writes overtaken, {} brought back by the kernel; with every knob \
         {} of {} files put back; {} kills of whole guards: {} files put back",
        figures.kills,
        figures.put_back,
        figures.kept,
        figures.overtaken,
        figures.foreign_writes,
        figures.revived,
        of_executor.put_back,
        of_executor.files,
        of_whole.kills,
        of_whole.put_back
    )))
}

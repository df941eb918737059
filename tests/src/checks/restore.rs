//! Undoing what guard did, whenever it was stopped.

use anyhow::{Result, ensure};

use crate::{harness::emulated, scenario::Verdict, undo};

/// Kills on this machine, and in an emulated one, where each takes seconds.
const KILLS: [u64; 2] = [50, 8];
const SEED: u64 = 20_261_124;

pub(super) fn killed_while_others_write() -> Result<Verdict> {
    let figures = undo::storm(KILLS[usize::from(emulated())], SEED, |_| ())?;
    ensure!(figures.put_back > 0, "guard was never killed while it held something: {figures:?}");
    ensure!(figures.kept > 0, "nobody else's value was ever there: {figures:?}");
    Ok(Verdict::Passed(format!(
        "{} kills: {} files put back, {} left to the other, {} of {} of the other's writes overtaken",
        figures.kills, figures.put_back, figures.kept, figures.overtaken, figures.foreign_writes
    )))
}

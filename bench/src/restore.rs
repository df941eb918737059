//! guard killed again and again while it and somebody else change the same cgroups: whether `guard restore` leaves every
//! file as it should be, and how long it takes.

use anyhow::Result;
use guard_tests::undo::{self, Figures};
use serde::Serialize;

use crate::table;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How often guard is killed
    #[arg(long, default_value_t = 1_000)]
    kills: u64,
    /// What is killed: the executor with changes drawn by chance, both lanes with what the policies want, or all of guard
    /// (seconds each)
    #[arg(long, value_enum, default_value_t = Victim::Policies)]
    victim: Victim,
    /// Where chance begins
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Victim {
    Executor,
    Policies,
    Guard,
}

/// All figures.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    seed: u64,
    restore_p50_ms: f64,
    restore_max_ms: f64,
    #[serde(flatten)]
    figures: Figures,
}

/// Figures; a file that is not as it should be is an error.
pub(crate) fn run(args: &Args) -> Result<(Measured, bool)> {
    let victim = match args.victim {
        Victim::Executor => undo::Victim::Executor,
        Victim::Policies => undo::Victim::Policies,
        Victim::Guard => undo::Victim::Guard,
    };
    let figures = undo::storm(victim, args.kills, args.seed, |kills| {
        if kills % 100 == 0 {
            eprintln!("{kills} of {} kills", args.kills);
        }
    })?;
    let worst = figures.restore_ms.iter().copied().fold(f64::NAN, f64::max);
    let result = Measured {
        seed: args.seed,
        restore_p50_ms: table::median(&figures.restore_ms),
        restore_max_ms: worst,
        figures,
    };
    result.show();
    Ok((result, true))
}

impl Measured {
    fn show(&self) {
        let figures = &self.figures;
        let row = |what: &str, is: String| vec![what.to_owned(), is];
        table::print(
            &["kills and restores", "is"],
            &[
                row("kills", figures.kills.to_string()),
                row("files judged", figures.files.to_string()),
                row("guard's, put back", figures.put_back.to_string()),
                row("somebody else's, kept", figures.kept.to_string()),
                row("wrong", "0".to_owned()),
                row("writes of somebody else", figures.foreign_writes.to_string()),
                row("files with an overtaken last write", figures.overtaken.to_string()),
                row("files with a value that the kernel brought back", figures.revived.to_string()),
                row("guard restore, median", format!("{:.1} ms", self.restore_p50_ms)),
                row("guard restore, longest", format!("{:.1} ms", self.restore_max_ms)),
            ],
        );
    }
}

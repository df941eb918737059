//! Benches: how well guard agrees with programs that time themselves, what it costs beside its peers, and how
//! fast it acts. Each prints
//! its figures as it goes and can write them as JSON. How to read them: docs/benchmarks.md.

mod agreement;
mod attached;
mod explain;
mod footprint;
mod gate;
mod overhead;
mod reaction;
mod record;
mod restore;
mod start;
mod sys;
mod table;

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use serde_json::Value;

/// What guard costs and how well it agrees with its peers
#[derive(Parser)]
#[command(name = "guard-bench")]
struct Args {
    #[command(subcommand)]
    bench: Bench,
    /// Write the figures to this file
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Bench {
    /// guard's histograms against those of cyclictest and of loops that time themselves, same threads, same run
    Agreement(agreement::Args),
    /// Cost per event beside runqlat and cpudist, slow-down of a ping-pong and of hackbench, growth with cgroups and threads
    Overhead(overhead::Args),
    /// CPU, memory and kernel maps of guard observing 200 cgroups once a second
    Footprint(footprint::Args),
    /// From a throttled PLC to its lifted quota, and from a late PLC to the smaller quota of best-effort work
    Reaction(reaction::Args),
    /// Whether every cgroup file is as it should be after guard was killed at a random instant and restored
    Restore(restore::Args),
    /// How often guard names the right cause for late wake-ups that are made on purpose
    Explain(explain::Args),
    /// Bytes and CPU time that a recording takes for each Snapshot
    Record(record::Args),
    /// From guard's start to the lifted quota of a PLC that was there before, and to the first window, phase by phase
    Start(start::Args),
    /// guard gate's false alarms, misses and speed, on runs that are known
    Gate(gate::Args),
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("guard-bench: {error:#}");
            ExitCode::from(3)
        }
    }
}

/// Whether every goal was reached.
fn run(args: &Args) -> Result<bool> {
    let (figures, reached) = match &args.bench {
        Bench::Agreement(args) => result(agreement::run(args)?)?,
        Bench::Overhead(args) => result(overhead::run(args)?)?,
        Bench::Footprint(args) => result(footprint::run(args)?)?,
        Bench::Reaction(args) => result(reaction::run(args)?)?,
        Bench::Restore(args) => result(restore::run(args)?)?,
        Bench::Explain(args) => result(explain::run(args)?)?,
        Bench::Record(args) => result(record::run(args)?)?,
        Bench::Start(args) => result(start::run(args)?)?,
        Bench::Gate(args) => result(gate::run(args)?)?,
    };
    if let Some(path) = &args.json {
        fs::write(path, serde_json::to_string_pretty(&figures)? + "\n")
            .with_context(|| format!("write {}", path.display()))?;
    }
    Ok(reached)
}

fn result<T: serde::Serialize>((figures, reached): (T, bool)) -> Result<(Value, bool)> {
    Ok((serde_json::to_value(figures)?, reached))
}

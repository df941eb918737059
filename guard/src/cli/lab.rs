//! `guard lab`: known hazards, without and with guard.

use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};

use super::arguments;
use super::exit::Failure;
use super::output;
use crate::lab::{self, Options, Scenario};
use crate::view;

/// Reproduce a known hazard on this node and show the table before and with guard
///
/// Each scenario makes cgroups and threads of its own, whose threads time themselves; runs them without the hazard, with
/// it, and with it beside `guard run --enforce`, which may change the lab's cgroups and no others; and removes all of it
/// again, also when it is interrupted. A cycle is lost when it was not done before the next one was due, or was
/// skipped for that reason.
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct Arguments {
    /// Which hazard; `all` runs one after another.
    #[arg(value_name = "SCENARIO", value_parser = names(), required_unless_present = "list")]
    scenario: Option<String>,
    /// Say what each scenario shows, and run none.
    #[arg(long)]
    list: bool,
    /// Length of each of the two or three steps of a scenario, four times as long in noisy-be. [default: 5s, on emulated CPUs
    /// 20s]
    #[arg(long, value_name = "TIME", value_parser = arguments::window)]
    duration: Option<Duration>,
    /// Length of a cycle, 100us to 1s. [default: 1ms, on emulated CPUs 20ms]
    #[arg(long, value_name = "TIME", value_parser = arguments::cycle)]
    interval: Option<Duration>,
    /// Show the hazard only: leave out the step with guard, which then promises nothing.
    #[arg(long)]
    no_guard: bool,
    /// What to print.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For scripts.
    Json,
}

/// The hidden subcommand: one process of the lab.
#[derive(Debug, Args)]
pub(super) struct WorkloadArguments {
    /// What it does, as JSON.
    part: String,
}

/// Name that stands for all scenarios.
const ALL: &str = "all";

const AFTER_HELP: &str = "\
Examples:
  guard lab --list
  guard lab quota-lock
  guard lab all --format json > lab.json

Needs root. Exit codes: 0 guard kept what the scenario promises, 1 it did not (or the lab was interrupted), 2 wrong
usage, 3 this node cannot show it, 70 a defect of guard. How to read the table: docs/lab.md.";

fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(Scenario::ALL.map(Scenario::name).into_iter().chain([ALL]))
}

/// Runs the subcommand.
///
/// # Errors
/// See [`Failure`].
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.list {
        let lines = Scenario::ALL.map(|scenario| format!("{:16} {}\n", scenario.name(), scenario.summary()));
        return output::stdout(&lines.concat());
    }
    let name = arguments.scenario.as_deref().unwrap_or(ALL);
    let chosen = Scenario::named(name).map_or(Scenario::ALL.to_vec(), |scenario| vec![scenario]);
    let options = Options { duration: arguments.duration, interval: arguments.interval, guard: !arguments.no_guard };
    let mut separator = "";
    let report = lab::run(&chosen, options, |played| -> Result<(), Failure> {
        if arguments.format == Format::Text {
            output::stdout(&format!("{separator}{}", view::lab::render(played, output::width())))?;
            separator = "\n";
        }
        Ok(())
    })?;
    if arguments.format == Format::Json {
        output::stdout(&(serde_json::to_string_pretty(&report)? + "\n"))?;
    }
    let broken: Vec<&str> = report.scenarios.iter().filter(|s| !s.kept).map(|s| s.name.as_str()).collect();
    if broken.is_empty() { Ok(()) } else { Err(Failure::Broken(broken.join(", "))) }
}

/// Runs the hidden subcommand.
///
/// # Errors
/// See [`Failure`].
pub(super) fn workload(arguments: &WorkloadArguments) -> Result<(), Failure> {
    Ok(lab::workload::run(&arguments.part)?)
}

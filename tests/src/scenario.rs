//! Named checks, run one after another: the host's and the guests' alike. What ran, what was skipped and why, and what
//! failed is printed in the lines of Rust's own test harness and can be had as JSON.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::harness::MachineState;

/// One check.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// What a user can rely on, as a sentence.
    pub name: &'static str,
    /// Whether it loads guard's programs, for which root and BTF are needed.
    pub loads: bool,
    /// Why it is only run when it is asked for by name.
    pub by_name: Option<&'static str>,
    /// Whether it compares times, which a machine spoils that stands still now and then: an emulated one, a virtual one whose host is
    /// busy. It has a second try, which is counted.
    pub times: bool,
    /// Finds out.
    pub check: fn() -> Result<Verdict>,
}

/// What came of a check that did not fail.
#[derive(Debug)]
pub enum Verdict {
    /// It holds; figures worth printing.
    Passed(String),
    /// It could not be tried here, and why.
    Skipped(String),
}

/// Command line of a program that runs scenarios.
#[derive(Debug, clap::Parser)]
pub struct Args {
    /// Run only the checks whose name contains this
    filter: Option<String>,
    /// Write what came of the checks to this file, as JSON
    #[arg(long, env = "GUARD_TEST_RESULTS")]
    results: Option<PathBuf>,
    /// Name the checks, run none
    #[arg(long)]
    list: bool,
    /// Accepted for cargo test's sake: nothing is captured here
    #[arg(long, hide = true)]
    nocapture: bool,
}

#[derive(Debug, Default, Serialize)]
struct Results {
    passed: Vec<&'static str>,
    failed: Vec<Failed>,
    skipped: Vec<Skipped>,
    /// Those of `passed` that failed at the first try, and what that said.
    again: Vec<Failed>,
}

#[derive(Debug, Serialize)]
struct Failed {
    name: &'static str,
    message: String,
}

#[derive(Debug, Serialize)]
struct Skipped {
    name: &'static str,
    reason: String,
}

/// Command line of a program that runs scenarios in a booted guest.
#[derive(Debug, clap::Parser)]
struct GuestArgs {
    /// Only the checks in whose outcome the guest's kernel has a part
    #[arg(long)]
    brief: bool,
    #[command(flatten)]
    args: Args,
}

/// [`main`] in a booted guest, of the checks that `all` has, which is told whether only those of its kernel are wanted.
#[must_use]
pub fn main_in_guest(all: impl FnOnce(bool) -> Vec<Scenario>) -> ExitCode {
    let GuestArgs { brief, args } = clap::Parser::parse();
    main(&all(brief), &args)
}

/// Runs `scenarios` and tells what came of them; fails when one fails.
#[must_use]
pub fn main(scenarios: &[Scenario], args: &Args) -> ExitCode {
    let chosen = scenarios.iter().filter(|s| args.filter.as_ref().is_none_or(|text| s.name.contains(text.as_str())));
    if args.list {
        chosen.for_each(|scenario| println!("{}", scenario.name));
        return ExitCode::SUCCESS;
    }
    let results = run(chosen, args.filter.is_some());
    let again = if results.again.is_empty() {
        String::new()
    } else {
        format!(" ({} of them at the second try)", results.again.len())
    };
    let (failed, skipped) = (results.failed.len(), results.skipped.len());
    println!("{} passed{again}, {failed} failed, {skipped} skipped", results.passed.len());
    if let Some(path) = &args.results
        && let Err(error) = write(path, &results)
    {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    if results.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run<'a>(scenarios: impl Iterator<Item = &'a Scenario>, by_name: bool) -> Results {
    let mut results = Results::default();
    for scenario in scenarios {
        let name = scenario.name;
        let mut begin = Instant::now();
        let mut outcome = match scenario.by_name {
            Some(reason) if !by_name => Ok(Verdict::Skipped(format!("{reason}; name it to run it"))),
            _ => checked(scenario),
        };
        let mut first = None;
        if let Err(error) = &outcome
            && scenario.times
        {
            let message = format!("{error:#}").replace('\n', " | ");
            println!("again {name} ... {:.1} s  {message}", begin.elapsed().as_secs_f64());
            first = Some(Failed { name, message });
            begin = Instant::now();
            outcome = checked(scenario);
        }
        let seconds = begin.elapsed().as_secs_f64();
        match outcome {
            Ok(Verdict::Passed(figures)) => {
                println!("test {name} ... ok");
                println!("    {seconds:.1} s  {}", figures.replace('\n', " | "));
                results.passed.push(name);
                results.again.extend(first);
            }
            Ok(Verdict::Skipped(reason)) => {
                let reason = reason.replace('\n', " | ");
                println!("test {name} ... ignored, SKIPPED: {reason}");
                results.skipped.push(Skipped { name, reason });
            }
            Err(error) => {
                let message = format!("{error:#}");
                println!("test {name} ... FAILED");
                println!("    {seconds:.1} s  {message}");
                results.failed.push(Failed { name, message });
            }
        }
    }
    results
}

/// A check, and whether it leaves the machine as it was.
fn checked(scenario: &Scenario) -> Result<Verdict> {
    if scenario.loads
        && let Some(reason) = obstacle()
    {
        return Ok(Verdict::Skipped(reason));
    }
    let before = MachineState::look()?;
    let verdict = (scenario.check)();
    let left = before.expect_unchanged();
    let verdict = verdict?;
    left?;
    Ok(verdict)
}

fn write(path: &Path, results: &Results) -> Result<()> {
    let text = serde_json::to_string_pretty(results)?;
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

/// Why guard's programs cannot be loaded here; none when they can.
fn obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root".to_owned());
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Some("this kernel offers no BTF (/sys/kernel/btf/vmlinux)".to_owned());
    }
    None
}

//! The command line: one file per subcommand, which turns arguments into a call and its outcome into an exit code.
//! No logic here.

mod arguments;
mod doctor;
mod exit;
mod explain;
mod gate;
mod lab;
mod logging;
mod output;
mod plan;
mod probe;
mod report;
mod restore;
mod run;
mod top;

use std::ffi::OsString;

use clap::{Parser, Subcommand};
pub use exit::Exit;

/// Measures how long real-time threads and cgroups of this node wait, and what for, and keeps out of their way what
/// disturbs them.
#[derive(Debug, Parser)]
#[command(name = "guard", version, propagate_version = true, arg_required_else_help = true, after_long_help = AFTER_HELP)]
struct Arguments {
    /// More diagnostics on stderr: -v progress, -vv detail, -vvv everything. GUARD_LOG sets filters instead.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Plan(plan::Arguments),
    Gate(gate::Arguments),
    Doctor(doctor::Arguments),
    Report(report::Arguments),
    Explain(explain::Arguments),
    Restore(restore::Arguments),
    Run(run::Arguments),
    Lab(lab::Arguments),
    Probe(probe::Arguments),
    #[command(hide = true, name = crate::lab::SUBCOMMAND)]
    LabWorkload(lab::WorkloadArguments),
    Top(top::Arguments),
}

const AFTER_HELP: &str = "\
Examples:
  guard report                                 what this node did in the next 10 s
  guard report --format json --output r.json   the same for a script
  guard top                                    the same live, on this terminal
  guard run --cgroup '/kubepods*'              one line per second for all pods
  guard report --tid 1234 --duration 1m        one thread for a minute
  guard doctor                                 what is wrong with this node, and how to mend it
  guard probe -S -p 95 -m -D 1m -q             cyclictest's measurement
  guard plan                                   what guard would change here, and why
  guard run --enforce                          change it, and put it back at the end
  guard restore                                put back what a killed guard left
  guard gate --baseline old/ new/              whether the runs in new/ are slower than those in old/

Measuring needs root (CAP_BPF, CAP_PERFMON and CAP_SYS_RESOURCE) for loading its programs into the kernel, and a kernel with BTF
(/sys/kernel/btf/vmlinux); guard doctor and guard gate need neither. Only `guard run --enforce` changes anything that lasts; guard lab makes cgroups of its
own for a while, and guard probe keeps CPUs from sleeping deeply while it runs.

Exit codes:
  0   done
  1   found something that you must act on; of guard gate: a regression, or over budget
  2   wrong usage: an option, a pattern that matches nothing, a thread that does not exist
  3   this node cannot do it: the message names the missing capability, kernel option or mount;
      of guard gate: the runs are not comparable
  4   of guard gate: too little data
  70  a defect of guard";

/// Runs guard with the given arguments, the program's name first, and returns its exit code. Messages are on stderr.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let arguments = match Arguments::try_parse_from(probe::shielded(arguments.into_iter().collect())) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are errors to clap, and go to stdout. A closed pipe is no reason to complain.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done };
        }
    };
    // Diagnostics on the terminal that the dashboard draws on would spoil it; `guard top 2>file` has them.
    if !(matches!(arguments.command, Command::Top(_)) && std::io::IsTerminal::is_terminal(&std::io::stderr())) {
        logging::start(arguments.verbose);
    }
    let outcome = match arguments.command {
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Gate(arguments) => return gate::run(&arguments).unwrap_or_else(|failure| failure.report()),
        Command::Doctor(arguments) => match doctor::run(&arguments) {
            Ok(true) => return Exit::Found,
            other => other.map(|_| ()),
        },
        Command::Report(arguments) => report::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Restore(arguments) => restore::run(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Lab(arguments) => lab::run(&arguments),
        Command::Probe(arguments) => probe::run(&arguments),
        Command::LabWorkload(arguments) => lab::workload(&arguments),
        Command::Top(arguments) => top::run(&arguments),
    };
    match outcome {
        Ok(()) => Exit::Done,
        Err(failure) => failure.report(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        let words = std::iter::once("guard").chain(line.split_whitespace()).map(OsString::from).collect();
        Arguments::try_parse_from(probe::shielded(words))
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn wrong_usage_is_exit_code_two_and_help_is_none() {
        let run = |line: &str| main(std::iter::once("guard").chain(line.split_whitespace()).map(OsString::from));
        assert_eq!(run("report --duration soon"), Exit::Usage);
        assert_eq!(run("no-such-command"), Exit::Usage);
        assert_eq!(run(""), Exit::Usage);
        assert_eq!(run("--version"), Exit::Done);
    }

    #[test]
    fn contracted_options_are_accepted() {
        for line in [
            "report",
            "report --duration 500ms --format text",
            "report --format json --output /tmp/r.json --cgroup /a/* --tid 1 --tid 2 --threshold 100us -vv",
            "report --format cyclictest",
            "report --replay F --format html --output f",
            "report --no-explain",
            "run --no-explain",
            "top --no-explain",
            "report --explain --stacks",
            "lab --list",
            "lab quota-lock --duration 10s --interval 20ms --format json",
            "lab all",
            "probe -h 100 -q -t2 -v --json=f",
            "-v probe -v -p 80 --cgroup /a --passive",
            "explain --duration 1s --tid 7 --threshold 10us --format json --output f",
            "restore",
            "restore --state-dir /tmp/guard --dry-run --format json",
            "run --config /tmp/guard.toml",
            "run --enforce --config /tmp/guard.toml --state-dir /run/guard --audit /tmp/a.jsonl --output f",
            "plan",
            "plan --config f --format json --duration 5s",
            "plan --replay f --config f",
            "plan --config f --check",
            "report --label idle",
            "gate --budget b.toml candidate.json",
            "gate --baseline old --baseline older.jsonl a.json b.json --format junit --output markdown=s.md",
            "gate --baseline h --metric p99,max --level 0.05 --smallest p99=3%,500ns --allow-different kernel,cmdline c",
            "gate --explain --baseline h",
            "gate --update-baseline h c",
            "doctor --format json --root /host",
            "doctor --fix-plan --from f",
            "doctor --facts",
            "report --replay /var/lib/guard/record --format hdr",
            "run --record /tmp/r --record-size 64MiB --record-age 24h --listen unix:/run/guard/guard.sock",
            "top --cgroup /a/* --threshold 100us --interval 1s --no-color --snapshot-dir /tmp",
            "top --replay F --speed 8",
            "top --connect",
            "top --connect unix:/run/guard/guard.sock",
            "-v run --interval 500ms --duration 1m --output f --cgroup a --tid 7 --threshold 2ms",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err());
        }
    }

    #[test]
    fn impossible_values_are_refused_by_name() {
        for (line, named) in [
            ("report --duration 10", "--duration"),
            ("report --duration 0s", "--duration"),
            ("report --duration=-5s", "--duration"),
            ("report --duration 9999999999h", "--duration"),
            ("report --threshold 0ms", "--threshold"),
            ("report --threshold 1ns", "--threshold"),
            ("report --tid 0", "--tid"),
            ("report --tid x", "--tid"),
            ("report --cgroup a[", "--cgroup"),
            ("report --format xml", "--format"),
            ("report --explain --no-explain", "--no-explain"),
            ("report --no-explain --stacks", "--no-explain"),
            ("report --replay F --no-explain", "--replay"),
            ("gate c --format xml", "--format"),
            ("gate c --output out.md", "--output"),
            ("gate c --output xml=out", "--output"),
            ("gate c --metric p98", "--metric"),
            ("gate c --level 0", "--level"),
            ("gate c --level nan", "--level"),
            ("gate c --smallest p99", "--smallest"),
            ("gate c --smallest p99=-3%", "--smallest"),
            ("gate c --allow-different colour", "--allow-different"),
            ("gate c --workload a[", "--workload"),
            ("gate c --shift 0%", "--shift"),
            ("doctor --format xml", "--format"),
            ("doctor --facts --fix-plan", "--fix-plan"),
            ("run --interval 1ms", "--interval"),
            ("run --record /tmp/r --record-size 64", "--record-size"),
            ("run --record /tmp/r --record-size 1KiB", "--record-size"),
            ("run --record-age 1h", "--record"),
            ("run --listen localhost:80", "--listen"),
            ("top --speed 0 --replay F", "--speed"),
            ("top --speed NaN --replay F", "--speed"),
            ("top --replay F --connect S", "--replay"),
            ("report --replay F --duration 1s", "--replay"),
            ("run --interval 2h", "--interval"),
            ("lab quota", "SCENARIO"),
            ("lab", "SCENARIO"),
            ("lab all --interval 10us", "--interval"),
            ("run --state-dir /tmp", "--enforce"),
            ("run --audit /tmp/a", "--enforce"),
            ("plan --check", "--config"),
            ("plan --replay f --duration 3s", "--duration"),
            ("plan --format html", "--format"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.to_string().contains(named), "{line}: {error}");
        }
    }

    #[test]
    fn a_configuration_with_a_mistake_is_wrong_usage_before_anything_is_measured() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("guard.toml");
        std::fs::write(&file, "[node]\nintervall = \"1s\"\n").unwrap();
        let run = |line: &str| {
            let line = line.replace("FILE", file.to_str().unwrap());
            main(std::iter::once("guard").chain(line.split_whitespace()).map(OsString::from))
        };
        assert_eq!(run("plan --config FILE --check"), Exit::Usage);
        assert_eq!(run("plan --config FILE"), Exit::Usage);
        assert_eq!(run("run --config FILE"), Exit::Usage);
        assert_eq!(run("run --enforce --config FILE"), Exit::Usage);
        assert_eq!(run("plan --config /no/such/file --check"), Exit::Usage);
        std::fs::write(&file, "").unwrap();
        assert_eq!(run("plan --config FILE --check"), Exit::Done);
    }

    #[test]
    fn every_subcommand_explains_itself() {
        for command in Arguments::command().get_subcommands_mut().filter(|command| !command.is_hide_set()) {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Example"), "{}: {help}", command.get_name());
            assert!(command.get_about().is_some(), "{}", command.get_name());
        }
    }
}

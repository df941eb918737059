//! The command line: one file per subcommand, which turns arguments into a call and its outcome into an exit code.
//! No logic here.

mod arguments;
mod exit;
mod logging;
mod output;
mod report;
mod run;
mod top;

use std::ffi::OsString;

use clap::{Parser, Subcommand};
pub use exit::Exit;

/// Measures how long real-time threads and cgroups of this node wait, and what for.
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
    Report(report::Arguments),
    Run(run::Arguments),
    Top(top::Arguments),
}

const AFTER_HELP: &str = "\
Examples:
  guard report                                 what this node did in the next 10 s
  guard report --format json --output r.json   the same for a script
  guard top                                    the same live, on this terminal
  guard run --cgroup '/kubepods*'              one line per second for all pods
  guard report --tid 1234 --duration 1m        one thread for a minute

Needs root (CAP_BPF, CAP_PERFMON and CAP_SYS_RESOURCE) for loading its programs into the kernel, and a kernel with BTF
(/sys/kernel/btf/vmlinux). It changes nothing on the node.

Exit codes:
  0   done
  2   wrong usage: an option, a pattern that matches nothing, a thread that does not exist
  3   this node cannot do it: the message names the missing capability, kernel option or mount
  70  a defect of guard";

/// Runs guard with the given arguments, the program's name first, and returns its exit code. Messages are on stderr.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let arguments = match Arguments::try_parse_from(arguments) {
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
        Command::Report(arguments) => report::run(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Top(arguments) => top::run(&arguments),
    };
    match outcome {
        Ok(()) => Exit::Done,
        Err(failure) => failure.told(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(std::iter::once("guard").chain(line.split_whitespace()))
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
            ("run --interval 1ms", "--interval"),
            ("run --record /tmp/r --record-size 64", "--record-size"),
            ("run --record /tmp/r --record-size 1KiB", "--record-size"),
            ("run --record-age 1h", "--record"),
            ("run --listen 0.0.0.0:80", "--listen"),
            ("top --speed 0 --replay F", "--speed"),
            ("top --speed NaN --replay F", "--speed"),
            ("top --replay F --connect S", "--replay"),
            ("report --replay F --duration 1s", "--replay"),
            ("run --interval 2h", "--interval"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.to_string().contains(named), "{line}: {error}");
        }
    }

    #[test]
    fn every_subcommand_explains_itself() {
        for command in Arguments::command().get_subcommands_mut() {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Example"), "{}: {help}", command.get_name());
            assert!(command.get_about().is_some(), "{}", command.get_name());
        }
    }
}

//! `guard probe`: active measurement, with cyclictest's options.

use std::ffi::OsString;
use std::path::Path;

use clap::Args;

use super::exit::Failure;
use super::output::{self, Target};
use crate::inventory::Topology;
use crate::probe::{self, Measured, Options, ProbeState, Wanted};
use crate::view::probe::{self as view, SysInfo};

/// Measure with threads of guard's own, with cyclictest's options and output
///
/// The threads wait for one cycle after another and note how late they were. Options, lines, histogram and JSON are
/// cyclictest's, so that its scripts work unchanged.
#[derive(Debug, Args)]
#[command(after_long_help = HELP, disable_help_flag = true)]
pub(super) struct Arguments {
    /// cyclictest's options.
    #[arg(value_name = "OPTIONS", allow_hyphen_values = true, trailing_var_arg = true)]
    words: Vec<String>,
}

/// Name of the subcommand, whose words clap does not read.
const NAME: &str = "probe";

const HELP: &str = "\
Usage: guard probe [OPTIONS]

cyclictest's options:
  -a, --affinity [CPUS]    pin thread N to the Nth CPU, or go round CPUS (0-3,5; ! and a list: all others)
  -A, --aligned[=US]       cycles of all threads begin together, each US after the thread before
  -b, --breaktrace=US      end when a latency is above US, and say whose
  -c, --clock=CLOCK        0 CLOCK_MONOTONIC (default), 1 CLOCK_REALTIME
      --default-system     leave power management as it is
  -d, --distance=US        each thread's cycle is so much longer than that of the one before [500]
  -D, --duration=TIME      how long: seconds, or with m, h, d
  -h, --histogram=ROWS     print a histogram at the end; all threads have the same cycle
  -H, --histofall=ROWS     the same with a column of sums
      --histfile=FILE      the histogram goes to FILE
  -i, --interval=US        length of a cycle [1000]
      --json=FILE          write the result as JSON
      --laptop             leave power management as it is, to save the battery
      --latency=US         CPUs shall wake up within US while it runs [0]
  -l, --loops=N            cycles [endless]
      --mainaffinity=CPUS  CPUs of the main thread
  -m, --mlockall           lock all memory
  -M, --refresh_on_max     draw only when there is a new maximum
  -N, --nsecs              ns instead of us
  -o, --oscope=N           with -v: of N values only the largest
  -p, --priority=PRIO      priority of the first thread, 1 to 99
      --policy=NAME        other, normal, batch, idle, fifo or rr
      --priospread         each thread one priority less
  -q, --quiet              only a summary at the end
  -r, --relative           sleep for a time instead of until an instant
      --secaligned[=US]    cycles begin US after a full second
  -s, --system             wait with nanosleep
  -S, --smp                one thread for each CPU, pinned
  -t, --threads [N]        threads [1; without N one for each CPU]
  -u, --unbuffered         taken, and without effect: every line is written at once
  -v, --verbose            every value on a line: thread, cycle, latency

guard's own:
      --cgroup=PATH        the measuring threads run in this cgroup of the cpu controller
      --passive            below it, what guard's programs in the kernel saw of the same threads (root)

Examples:
  guard probe -S -m -p 95 -i 200 -h 100 -D 10m -q
  guard probe -t1 -p 80 --cgroup /kubepods/burstable -D 1m -q --json=probe.json
  guard probe -m -p 95 -i 1000 -D 10 -q --passive

SIGUSR1 prints what was measured so far to stderr. Like cyclictest it asks power management for fast wake-ups while it runs
(--default-system does not). Exit codes: 0 done, 2 wrong usage, 3 this node cannot do it, 70 a defect of guard. More, and what
of cyclictest is missing: docs/probe.md.
";

/// Keeps clap's hands off the words after `probe`: -h is cyclictest's histogram there, and -v its own.
pub(super) fn shielded(mut words: Vec<OsString>) -> Vec<OsString> {
    let first = words.iter().skip(1).position(|word| !word.to_string_lossy().starts_with('-')).map(|at| at + 1);
    if let Some(at) = first.filter(|at| words[*at] == NAME) {
        words.insert(at + 1, "--".into());
    }
    words
}

/// Runs the subcommand.
///
/// # Errors
/// See [`Failure`].
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (wanted, warnings) = probe::parse(&arguments.words).map_err(probe::ProbeError::from)?;
    let options = match wanted {
        Wanted::Help => return output::stdout(HELP),
        Wanted::Measure(options) => *options,
    };
    warnings.iter().for_each(|warning| eprintln!("WARN: {warning}"));
    // Before the measurement, so that a wrong path costs no time.
    let open = |path: &Option<String>| path.as_deref().map(|path| Target::open(Some(Path::new(path)))).transpose();
    let (histfile, json) = (open(&options.histfile)?, open(&options.json)?);
    if options.verbose {
        let topology = Topology::read(Path::new("/")).unwrap_or_default();
        output::stdout(&view::cpus(topology.possible.len(), topology.online.len()))?;
    }
    let mut screen = Screen { options: &options, drawn: false, max: 0 };
    let measured = probe::run(
        &options,
        |request| match view::latency_request(&request) {
            (true, line) => output::stdout(&line),
            (false, line) => {
                eprint!("{line}");
                Ok(())
            }
        },
        |state| screen.show(state),
    )?;
    if let Some(target) = json {
        let words: Vec<&str> = ["guard", NAME].into_iter().chain(arguments.words.iter().map(String::as_str)).collect();
        target.write(&view::json(&measured, &options, &words.join(" "), &sysinfo())?)?;
    }
    output::stdout(&summary(&measured, &options))?;
    if options.histogram > 0 {
        let text = view::histogram(&measured, &options);
        histfile.unwrap_or(Target::Stdout).write(&text)?;
    }
    let broken = if options.break_at > 0 { view::broken(&measured) } else { String::new() };
    output::stdout(&(broken + &view::passive(&measured)))
}

/// The lines that a quiet run ends with.
fn summary(measured: &Measured, options: &Options) -> String {
    if options.quiet && options.histogram == 0 {
        view::threads(&measured.plans, &measured.figures, options)
    } else if options.refresh_on_max && !options.quiet && !options.verbose {
        view::below(measured.plans.len())
    } else {
        String::new()
    }
}

/// What is on the terminal while it runs.
struct Screen<'a> {
    options: &'a Options,
    drawn: bool,
    max: u64,
}

impl Screen<'_> {
    fn show(&mut self, state: &ProbeState<'_>) -> Result<(), Failure> {
        let options = self.options;
        if state.asked {
            eprint!("{}", view::status(state, options));
            return Ok(());
        }
        if options.verbose {
            let mut text = String::new();
            if !self.drawn {
                let distance_us = options.distance_us.unwrap_or(500);
                text += &view::intervals(state.plans, distance_us);
            }
            self.drawn = true;
            return output::stdout(&(text + &view::values(state.values)));
        }
        if options.quiet {
            return Ok(());
        }
        let max = state.figures.iter().map(|figures| figures.max).max().unwrap_or(0);
        if options.refresh_on_max && self.drawn && max <= self.max {
            return Ok(());
        }
        self.max = max;
        let back = if self.drawn { view::back(state.plans.len()) } else { String::new() };
        self.drawn = true;
        let loadavg = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        output::stdout(&(back + &view::live(state, options, &loadavg)))
    }
}

fn sysinfo() -> SysInfo {
    let uname = rustix::system::uname();
    let text = |field: &std::ffi::CStr| field.to_string_lossy().into_owned();
    let realtime = std::fs::read_to_string("/sys/kernel/realtime").unwrap_or_default();
    SysInfo {
        sysname: text(uname.sysname()),
        nodename: text(uname.nodename()),
        release: text(uname.release()),
        version: text(uname.version()),
        machine: text(uname.machine()),
        realtime: u8::from(realtime.trim_end() == "1"),
    }
}

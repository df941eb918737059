//! cyclictest's command line: which options there are and how they are written. They are read as getopt_long reads them:
//! short ones may be joined, values attached or apart, long ones abbreviated. By hand, because no crate does all of that
//! and also says of each option of cyclictest why guard has not got it.

use super::error::OptionError;
use super::options::{Aligned, CPUS, LatencyTarget, Options, PolicyName, Wait};

/// Whether an option has a value.
#[derive(Clone, Copy)]
enum Takes {
    Nothing,
    /// What it is.
    Value(&'static str),
    /// What it is, and which next word is one: the shell cannot say whether it belongs to the option.
    Perhaps(&'static str, fn(&str) -> bool),
    /// Why guard has not got it.
    Never(&'static str),
}

/// (short, long, value).
type Known = (Option<char>, &'static str, Takes);

const NUMBER: &str = "a whole number";
const TIME: &str = "a number of seconds, or of minutes, hours or days with m, h or d";
const ROWS: &str = "the number of rows of the histogram, from 1 on";

fn is_cpus(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit() || c == '!')
}

fn is_number(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit())
}

/// Options, in cyclictest's order; guard's own at the end.
const KNOWN: &[Known] = &[
    (Some('a'), "affinity", Takes::Perhaps(CPUS, is_cpus)),
    (Some('A'), "aligned", Takes::Perhaps("us between two threads", is_number)),
    (Some('b'), "breaktrace", Takes::Value("the latency above which to end")),
    (Some('c'), "clock", Takes::Value("0 for CLOCK_MONOTONIC or 1 for CLOCK_REALTIME")),
    (None, "default-system", Takes::Nothing),
    (Some('d'), "distance", Takes::Value(NUMBER)),
    (Some('D'), "duration", Takes::Value(TIME)),
    (Some('F'), "fifo", Takes::Never("it hands out no status by a named pipe; kill -USR1 prints it to stderr")),
    (Some('h'), "histogram", Takes::Value(ROWS)),
    (Some('H'), "histofall", Takes::Value(ROWS)),
    (None, "histfile", Takes::Value("a file")),
    (Some('i'), "interval", Takes::Value("us from 1 on")),
    (None, "json", Takes::Value("a file")),
    (None, "laptop", Takes::Nothing),
    (None, "latency", Takes::Value("us that the CPUs may take to wake up")),
    (Some('l'), "loops", Takes::Value(NUMBER)),
    (None, "mainaffinity", Takes::Value(CPUS)),
    (Some('m'), "mlockall", Takes::Nothing),
    (Some('M'), "refresh_on_max", Takes::Nothing),
    (Some('N'), "nsecs", Takes::Nothing),
    (Some('o'), "oscope", Takes::Value("a number from 1 on")),
    (Some('p'), "priority", Takes::Value("0 to 99")),
    (None, "policy", Takes::Value("other, normal, batch, idle, fifo or rr")),
    (None, "priospread", Takes::Nothing),
    (Some('q'), "quiet", Takes::Nothing),
    (Some('r'), "relative", Takes::Nothing),
    (Some('R'), "resolution", Takes::Never("it does not try clocks; guard doctor names the clock source")),
    (None, "secaligned", Takes::Perhaps("us after the full second", is_number)),
    (Some('s'), "system", Takes::Nothing),
    (Some('S'), "smp", Takes::Nothing),
    (None, "spike", Takes::Never("it records no single values; -v prints them all, guard report lists late wake-ups")),
    (None, "spike-nodes", Takes::Never("it records no single values")),
    (None, "smi", Takes::Never("it does not read the counter of system management interrupts")),
    (Some('t'), "threads", Takes::Perhaps("a number of threads", is_number)),
    (None, "tracemark", Takes::Never("it writes nothing into the kernel's trace; guard explain names causes")),
    (Some('u'), "unbuffered", Takes::Nothing),
    (Some('v'), "verbose", Takes::Nothing),
    (None, "dbg_cyclictest", Takes::Never("it is for debugging cyclictest")),
    (Some('x'), "posix_timers", Takes::Never("its threads wait with clock_nanosleep or nanosleep only")),
    (None, "help", Takes::Nothing),
    (None, "cgroup", Takes::Value("the path of a cgroup")),
    (None, "passive", Takes::Nothing),
];

/// What the command line says to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Print the help.
    Help,
    /// Measure.
    Measure(Box<Options>),
}

/// Reads the words after `guard probe`. The second value is what cyclictest would warn of.
///
/// # Errors
/// See [`OptionError`].
pub fn parse(words: &[String]) -> Result<(Wanted, Vec<String>), OptionError> {
    let (mut options, mut warnings) = (Options::default(), Vec::new());
    let mut words = words.iter().map(String::as_str).peekable();
    while let Some(word) = words.next() {
        // (how it was written, what it is, the value attached to it)
        let mut found: Vec<(String, &Known, Option<&str>)> = Vec::new();
        if word == "--" {
            continue;
        } else if let Some(long) = word.strip_prefix("--") {
            let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
            found.push((format!("--{name}"), by_long(name)?, value));
        } else if let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            for (at, letter) in letters.char_indices() {
                let known = KNOWN.iter().find(|known| known.0 == Some(letter));
                let known = known.ok_or_else(|| OptionError::Unknown(format!("-{letter}")))?;
                let rest = Some(&letters[at + letter.len_utf8()..]).filter(|rest| !rest.is_empty());
                let ends = !matches!(known.2, Takes::Nothing);
                found.push((format!("-{letter}"), known, rest.filter(|_| ends)));
                if ends {
                    break;
                }
            }
        } else {
            return Err(OptionError::Word(word.to_owned()));
        }
        for (written, known, attached) in found {
            let value = match known.2 {
                Takes::Never(why) => return Err(OptionError::Unsupported { option: written, why }),
                Takes::Nothing if attached.is_some() => {
                    let value = attached.unwrap_or_default().to_owned();
                    return Err(OptionError::Value { option: written, value, wanted: "no value" });
                }
                Takes::Nothing => None,
                Takes::Perhaps(_, is) => attached.or_else(|| words.next_if(|word| is(word))),
                Takes::Value(wanted) => match attached.or_else(|| words.next()) {
                    None => return Err(OptionError::Missing { option: written, wanted }),
                    value => value,
                },
            };
            if known.1 == "help" {
                return Ok((Wanted::Help, Vec::new()));
            }
            options.set(&written, known, value)?;
        }
    }
    options.settle(&mut warnings)?;
    Ok((Wanted::Measure(Box::new(options)), warnings))
}

fn by_long(name: &str) -> Result<&'static Known, OptionError> {
    if let Some(known) = KNOWN.iter().find(|known| known.1 == name) {
        return Ok(known);
    }
    let like: Vec<&Known> = KNOWN.iter().filter(|known| !name.is_empty() && known.1.starts_with(name)).collect();
    match like.as_slice() {
        [] => Err(OptionError::Unknown(format!("--{name}"))),
        [known] => Ok(known),
        several => Err(OptionError::Ambiguous {
            option: format!("--{name}"),
            meanings: several.iter().map(|known| format!("--{}", known.1)).collect(),
        }),
    }
}

impl Options {
    fn set(&mut self, written: &str, known: &Known, value: Option<&str>) -> Result<(), OptionError> {
        let wanted = match known.2 {
            Takes::Value(wanted) | Takes::Perhaps(wanted, _) => wanted,
            Takes::Nothing | Takes::Never(_) => "no value",
        };
        let text = value.unwrap_or_default();
        let wrong = || OptionError::Value { option: written.to_owned(), value: text.to_owned(), wanted };
        let within =
            |least: u64, most: u64| text.parse::<u64>().ok().filter(|n| (least..=most).contains(n)).ok_or_else(wrong);
        let many = u64::from(u32::MAX);
        match known.1 {
            "affinity" => self.affinity = value.map(str::to_owned).or_else(|| self.affinity.take()),
            "mainaffinity" => self.main_affinity = Some(text.to_owned()),
            "aligned" | "secaligned" => {
                let us = if value.is_some() { within(0, 1_000_000)? } else { 0 };
                let aligned = if known.1 == "aligned" { Aligned::Apart(us) } else { Aligned::Second(us) };
                if self.aligned.is_some_and(|other| std::mem::discriminant(&other) != std::mem::discriminant(&aligned))
                {
                    return Err(OptionError::Together("--aligned and --secaligned exclude each other"));
                }
                self.aligned = Some(aligned);
            }
            "breaktrace" => self.break_at = within(0, many)?,
            "clock" => self.realtime_clock = within(0, 1)? == 1,
            "default-system" => self.latency = LatencyTarget::DefaultSystem,
            "laptop" => self.latency = LatencyTarget::Laptop,
            "latency" => {
                let us = within(0, many)?;
                if matches!(self.latency, LatencyTarget::Us(_)) {
                    self.latency = LatencyTarget::Us(u32::try_from(us).unwrap_or(u32::MAX));
                }
            }
            "distance" => self.distance_us = Some(within(0, many)?),
            "duration" => self.duration_s = seconds(text).ok_or_else(wrong)?,
            "histogram" => self.histogram = within(1, many)?,
            "histofall" => (self.histogram, self.sums) = (within(1, many)?, true),
            "histfile" => self.histfile = Some(text.to_owned()),
            "json" => self.json = Some(text.to_owned()),
            "interval" => self.interval_us = within(1, many)?,
            "loops" => self.loops = within(0, u64::MAX)?,
            "mlockall" => self.mlockall = true,
            "refresh_on_max" => self.refresh_on_max = true,
            "nsecs" => self.nsecs = true,
            "oscope" => self.oscope = within(1, many)?,
            "priority" => {
                self.priority = within(0, 99)?;
                if !self.policy.is_realtime() {
                    self.policy = PolicyName::Fifo;
                }
            }
            "policy" => self.policy = PolicyName::named(text).ok_or_else(wrong)?,
            "priospread" => self.priospread = true,
            "quiet" => self.quiet = true,
            "relative" if self.wait == Wait::Absolute => self.wait = Wait::Relative,
            "system" => self.wait = Wait::Nanosleep,
            "smp" => self.smp = true,
            "threads" => self.threads = if value.is_some() { Some(within(0, 4_096)?).filter(|n| *n > 0) } else { None },
            "verbose" => self.verbose = true,
            "cgroup" => self.cgroup = Some(text.to_owned()),
            "passive" => self.passive = true,
            // -u: everything is written at once anyway.
            _ => {}
        }
        Ok(())
    }
}

/// "90", "90s", "2m", "3h", "1d" in seconds.
fn seconds(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit_s = match unit {
        "" | "s" | "S" => 1,
        "m" | "M" => 60,
        "h" | "H" => 3_600,
        "d" | "D" => 86_400,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit_s).filter(|s| *s <= 366 * 86_400)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::snapshot::CpuList;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn options(line: &str) -> Options {
        match parse(&words(line)) {
            Ok((Wanted::Measure(options), _)) => *options,
            other => panic!("{line}: {other:?}"),
        }
    }

    /// (cpu, priority, policy, interval) of each thread on a machine with CPUs 0 to 3.
    fn threads(line: &str) -> Vec<(u32, u64, &'static str, u64)> {
        let allowed: CpuList = "0-3".parse().unwrap();
        let plans = options(line).plan(&allowed).unwrap();
        plans.iter().map(|p| (p.cpu.unwrap(), p.priority, p.policy.name(), p.interval_us)).collect()
    }

    #[test]
    fn options_are_written_in_every_way_that_getopt_knows() {
        let same = options("-t2 -p80 -i500 -D1m -q -m");
        for line in [
            "-t 2 -p 80 -i 500 -D 1m -q -m",
            "-qmt2 -p80 -i500 -D60",
            "-mqp80 -i 500 -t2 -D 60s",
            "--threads=2 --priority=80 --interval=500 --duration=1m --quiet --mlockall",
            "--threads 2 --priori 80 --inter 500 --dur 1M --qui --mlock",
        ] {
            assert_eq!(options(line), same, "{line}");
        }
    }

    #[test]
    fn an_option_whose_value_may_be_absent_takes_the_next_word_only_if_it_is_one() {
        assert_eq!(options("-t -q").threads, None);
        assert_eq!(options("-t 0").threads, None);
        assert_eq!(options("-t 3 -a -q").affinity, None);
        assert_eq!(options("-a 1,3 -t").affinity.as_deref(), Some("1,3"));
        assert_eq!(options("-a!1").affinity.as_deref(), Some("!1"));
        assert_eq!(options("-A 100 -t2").aligned, Some(Aligned::Apart(100)));
        assert_eq!(options("--secaligned -q").aligned, Some(Aligned::Second(0)));
    }

    #[test]
    fn threads_are_those_that_cyclictest_starts() {
        assert_eq!(threads(""), [(0, 0, "other", 1_000)]);
        assert_eq!(threads("-t2 -p80"), [(0, 80, "fifo", 1_000), (1, 80, "fifo", 1_500)]);
        assert_eq!(threads("-t2 -p80 -d0 -h 10 -i 200"), [(0, 80, "fifo", 200), (1, 80, "fifo", 200)]);
        assert_eq!(threads("-S -p 95 -d 0").len(), 4);
        assert_eq!(threads("-S -p 95")[3], (3, 95, "fifo", 2_500));
        assert_eq!(threads("-t -a 2-3"), [(2, 0, "other", 1_000), (3, 0, "other", 1_500)]);
        assert_eq!(threads("-t3 -a 3,1 -d0").iter().map(|t| t.0).collect::<Vec<_>>(), [1, 3, 1]);
        assert_eq!(threads("-t5 -d0").iter().map(|t| t.0).collect::<Vec<_>>(), [0, 1, 2, 3, 0]);
        assert_eq!(threads("-a !0-2"), [(3, 0, "other", 1_000)]);
        assert_eq!(threads("--policy=rr"), [(0, 2, "rr", 1_000)]);
        assert_eq!(threads("--policy=rr -p 7"), [(0, 7, "rr", 1_000)]);
        assert_eq!(threads("-p 7 --policy=other"), [(0, 7, "fifo", 1_000)]);
        assert_eq!(threads("-p 20 -t3 --priospread -d0").iter().map(|t| t.1).collect::<Vec<_>>(), [20, 19, 18]);
    }

    #[test]
    fn what_cyclictest_warns_of_is_warned_of() {
        let warnings = |line: &str| parse(&words(line)).unwrap().1;
        assert_eq!(warnings("-S -t3 -a 0"), ["-t ignored due to smp mode", "-a ignored due to smp mode"]);
        assert_eq!(warnings("-h 5 -d 100"), ["distance is ignored and set to 0, if histogram enabled"]);
        assert!(warnings("-S -p 80 -h 5 -q").is_empty());
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        for (line, named) in [
            ("-Z", "no option -Z"),
            ("-qZ", "no option -Z"),
            ("--smpp", "no option --smpp"),
            ("--smi", "--smi of cyclictest: it does not read"),
            ("-x -q", "-x of cyclictest: its threads wait"),
            ("--tracemark -b 5", "--tracemark of cyclictest"),
            ("--spike=10", "--spike of cyclictest"),
            ("-R", "-R of cyclictest"),
            ("-F /tmp/f", "-F of cyclictest"),
            ("--hist 5", "--histogram or --histofall or --histfile"),
            ("-i", "-i needs a value"),
            ("-i 0", "-i 0: want us from 1 on"),
            ("-i abc", "-i abc"),
            ("-p 100", "-p 100: want 0 to 99"),
            ("-D 1w", "-D 1w: want a number of seconds"),
            ("-D 99999999999999999999", "-D 9999"),
            ("--policy=nice", "--policy nice: want other"),
            ("-c 2", "-c 2"),
            ("-h", "-h needs a value"),
            ("-h 0", "-h 0"),
            ("-q word", "\"word\" is none"),
            ("--quiet=1", "--quiet 1: want no value"),
            ("-o 5", "--verbose"),
            ("-A --secaligned", "exclude each other"),
        ] {
            let error = parse(&words(line)).expect_err(line).to_string();
            assert!(error.contains(named), "{line}: {error}");
        }
        let allowed: CpuList = "0-1".parse().unwrap();
        for line in ["-a 2", "-a 0-9", "-a !0-1", "-a 0,x"] {
            let error = options(line).plan(&allowed).expect_err(line).to_string();
            assert!(error.starts_with("--affinity "), "{line}: {error}");
        }
    }

    #[test]
    fn help_is_help_wherever_it_stands() {
        assert_eq!(parse(&words("-q --help -Z")).unwrap().0, Wanted::Help);
    }

    proptest! {
        #[test]
        fn no_command_line_panics(words in prop::collection::vec("-{0,2}[a-zA-Z_]{0,9}=?[0-9a-z!,-]{0,4}", 0..6)) {
            if let Ok((Wanted::Measure(options), _)) = parse(&words) {
                let _ = options.plan(&"0-3".parse().unwrap());
            }
        }
    }
}

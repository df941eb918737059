//! The kernel's own account of the same intervals: the osnoise events, which say what each interrupt and each thread took
//! net of what was nested in it, against the parts into which guard cuts the lateness of timerlat threads.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use guard::snapshot::{Breach, BreachKind, Cause, Evidence};

use super::rtla::{self, TRACEFS};
use crate::{
    compare::{Row, Tolerance},
    harness::{Cgroup, GuardRun, Tool, Workload, binary, emulated, load_cpu, patience, until},
    inject::{realtime_ns, unix_ns},
    scenario::Verdict,
};

/// From which on a timerlat thread is late, us; its cycle and the loads are multiples of it.
fn threshold_us() -> u64 {
    if emulated() { 3_000 } else { 500 }
}

/// Sleepers that expire at once in one interrupt: so many that this takes several times the threshold.
fn herd() -> &'static str {
    if emulated() { "3000" } else { "4000" }
}

/// How far the two may be apart in one late wake-up. At each begin and end of something the kernel calls osnoise's handler and
/// guard's program one after the other, so what the first takes is inside for one and outside for the other; an emulated
/// program takes 10 to 20 us, and there are some ten such pairs in one late wake-up. osnoise also takes the whole timer
/// interrupt off the thread that it interrupted, whose time it counts from the middle of that interrupt on.
fn tolerance() -> Tolerance {
    Tolerance { absolute: if emulated() { 500_000 } else { 30_000 }, fraction: 0.05 }
}

/// An emulated CPU can be stopped between two readings of the clock, for as long as its host runs something else: one late
/// wake-up in so many may be further apart. What is measured differently is so in all of them.
const STOPPED: usize = 10;
/// Half of them are so many times closer than all must be: interrupts are a small part of most late wake-ups.
const HALF: u64 = 5;
/// In at least so many late wake-ups each kind of noise must have taken most of the time.
const LEAST: usize = 2;

pub(super) fn parts_agree() -> Result<Verdict> {
    rtla::mount_tracefs()?;
    if !rtla::has_timerlat()? {
        return Ok(Verdict::Skipped("this kernel has no timerlat tracer".to_owned()));
    }
    let seen = side_by_side()?;
    let clock = Clock::of(&seen.marks, &seen.trace)?;
    let noises = noises(&seen.trace)?;
    let (mut apart, mut distances_ns) = (Vec::new(), [const { Vec::new() }; 3]);
    let (mut mostly_irq, mut mostly_threads) = (0, 0);
    for breach in &seen.breaches {
        let to_ns = unix_ns(&breach.at)?;
        let interval = (to_ns - breach.latency_ns, to_ns);
        let theirs = Account::of_noises(&noises, &clock, breach.evidence.cpu, interval);
        let rows = theirs.compare(&Account::of_evidence(&breach.evidence), seen.rival, breach.latency_ns);
        mostly_irq += usize::from(theirs.irq_ns * 2 > breach.latency_ns);
        mostly_threads += usize::from(theirs.threads_ns() * 2 > breach.latency_ns);
        for (row, distances_ns) in rows.iter().zip(&mut distances_ns) {
            distances_ns.push(row.peer.abs_diff(row.guard));
        }
        if rows.iter().any(|row| !row.agrees) {
            let rows: Vec<String> = rows.iter().map(ToString::to_string).collect();
            apart.push(format!("{}: {}", breach.sentence, rows.join(", ")));
        }
    }
    let all = seen.breaches.len();
    let [error_us, drift_us] = [clock.error_ns(), clock.drift_ns()].map(|ns| ns / 1000);
    let told = format!("the clocks are known to {error_us} us and drift by {drift_us} us");
    ensure!(apart.len() * STOPPED <= all, "{} of {all}, such as {}; {told}", apart.len(), apart[0]);
    let medians_ns = distances_ns.map(|mut of| {
        of.sort_unstable();
        of.get(all / 2).copied().unwrap_or(0)
    });
    let [irq_us, threads_us, rival_us] = medians_ns.map(|ns| ns / 1000);
    let told = format!(
        "half are within {irq_us} us (interrupts), {threads_us} us (threads), {rival_us} us (the rival); {told}"
    );
    ensure!(medians_ns.iter().all(|ns| *ns * HALF <= tolerance().absolute), "{told}");
    ensure!(
        mostly_irq >= LEAST && mostly_threads >= LEAST,
        "of {all} late wake-ups interrupts took most of {mostly_irq} and threads of {mostly_threads}, so nothing is proven"
    );
    let softirqs = noises.iter().filter(|noise| noise.kind == Kind::Softirq).count();
    Ok(Verdict::Passed(format!(
        "{} of {all} late wake-ups agree, {told}; mostly interrupts {mostly_irq}, mostly threads {mostly_threads}; {} events, \
         {softirqs} of soft interrupts",
        all - apart.len(),
        noises.len(),
    )))
}

/// What was recorded in the same seconds.
struct Seen {
    /// Late wake-ups of timerlat threads that guard accounted for.
    breaches: Vec<Breach>,
    /// The thread that has the CPU before timerlat's.
    rival: u32,
    /// The kernel's events as text.
    trace: String,
    /// CLOCK_REALTIME before and after each mark was written, ns.
    marks: Vec<(u64, u64)>,
}

fn side_by_side() -> Result<Seen> {
    let (threshold_us, cpu) = (threshold_us(), load_cpu().to_string());
    let instance = Instance::start(threshold_us * 4)?;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let tids = until("timerlat's threads", Duration::from_secs(5) * patience(), || {
        Ok(Some(timerlat_tids()?).filter(|tids| tids.len() == cpus))
    })?;
    let guard = GuardRun::report().with(&["--explain", "--threshold", &format!("{threshold_us}us")]);
    let guard = tids.iter().fold(guard, |guard, tid| guard.tid(*tid)).measure()?;
    // Above timerlat's threads, which have FIFO 95, and seldom in step with them.
    let (interval, work) = ((threshold_us * 7).to_string(), (threshold_us * 5 / 2).to_string());
    let rival = ["cycle", "clock-nanosleep-abs", "--policy", "fifo:97", "--cycles", "1000000", "--cpu", &cpu];
    let rival = Workload::start(&[&rival[..], &["--interval-us", &interval, "--work-us", &work]].concat())?;
    let mut herds = Command::new(binary("guard-workload")?);
    herds.args(["inject", "timer-herd", "--shots", "12", "--herd", herd(), "--cpu", &cpu, "--interval-us"]);
    let mut herds = Tool::start(herds.arg((threshold_us * 15).to_string()))?;
    let mut marks = Vec::new();
    let ended = until("the end of the herds", Duration::from_secs(60) * patience(), || {
        marks.push(instance.mark(marks.len())?);
        herds.ended()
    })?;
    ensure!(ended.success(), "the herds ended with {ended}: {}", herds.stderr()?);
    let (snapshot, trace) = (guard.stop()?, instance.text()?);
    let accounted = |breach: &Breach| !breach.evidence.parts.is_empty();
    let own =
        snapshot.breaches.into_iter().filter(|breach| breach.kind == BreachKind::Timer && tids.contains(&breach.tid));
    Ok(Seen { breaches: own.filter(accounted).collect(), rival: rival.tid()?, trace, marks })
}

/// The kernel's threads that timerlat runs, one on each CPU.
fn timerlat_tids() -> Result<Vec<u32>> {
    let entries = fs::read_dir("/proc").context("read /proc")?;
    let tids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let comm = |tid| fs::read_to_string(format!("/proc/{tid}/comm")).unwrap_or_default();
    Ok(tids.filter(|tid| comm(*tid).starts_with("timerlat/")).collect())
}

/// A trace buffer of its own in which timerlat runs; gone, and timerlat's period as it was, when dropped.
struct Instance {
    dir: PathBuf,
    period_us: String,
}

/// timerlat's period: one for all instances.
const PERIOD: &str = "osnoise/timerlat_period_us";

impl Instance {
    fn start(period_us: u64) -> Result<Self> {
        let tracefs = PathBuf::from(TRACEFS);
        let before = fs::read_to_string(tracefs.join(PERIOD)).with_context(|| format!("read {PERIOD}"))?;
        let dir = tracefs.join("instances").join(format!("{}{}", Cgroup::PREFIX, std::process::id()));
        fs::create_dir(&dir).with_context(|| format!("mkdir {}", dir.display()))?;
        let this = Self { dir, period_us: before.trim_end().to_owned() };
        fs::write(tracefs.join(PERIOD), period_us.to_string()).with_context(|| format!("write to {PERIOD}"))?;
        this.set("buffer_size_kb", "16384")?;
        for kind in Kind::ALL {
            this.set(&format!("events/osnoise/{}/enable", kind.event()), "1")?;
        }
        this.set("current_tracer", "timerlat")?;
        Ok(this)
    }

    fn set(&self, file: &str, value: &str) -> Result<()> {
        let path = self.dir.join(file);
        fs::write(&path, value).with_context(|| format!("write \"{value}\" to {}", path.display()))
    }

    /// Writes a mark; CLOCK_REALTIME before and after it, ns.
    fn mark(&self, number: usize) -> Result<(u64, u64)> {
        let before_ns = realtime_ns();
        self.set("trace_marker", &format!("mark {number}"))?;
        Ok((before_ns, realtime_ns()))
    }

    /// Ends the recording and returns it.
    fn text(&self) -> Result<String> {
        self.set("tracing_on", "0")?;
        for cpu in fs::read_dir(self.dir.join("per_cpu")).context("read per_cpu")? {
            let path = cpu.context("read per_cpu")?.path().join("stats");
            let stats = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            ensure!(stats.lines().any(|line| line == "overrun: 0"), "the buffer was too small: {stats}");
        }
        fs::read_to_string(self.dir.join("trace")).context("read of the trace")
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let stopped = self.set("current_tracer", "nop");
        let path = PathBuf::from(TRACEFS).join(PERIOD);
        let period = fs::write(path, &self.period_us).with_context(|| format!("write to {PERIOD}"));
        let removed = until("rmdir", Duration::from_secs(2) * patience(), || Ok(fs::remove_dir(&self.dir).ok()));
        if let Err(error) = stopped.and(period).and(removed) {
            eprintln!("{} stays behind: {error:#}", self.dir.display());
        }
    }
}

/// Who made a noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Irq,
    /// Not on PREEMPT_RT, where osnoise counts soft interrupts to the threads that run them.
    Softirq,
    /// The thread with this id.
    Thread(u32),
}

impl Kind {
    const ALL: [Self; 3] = [Self::Irq, Self::Softirq, Self::Thread(0)];

    fn event(self) -> &'static str {
        match self {
            Self::Irq => "irq_noise",
            Self::Softirq => "softirq_noise",
            Self::Thread(_) => "thread_noise",
        }
    }
}

/// One osnoise event. Instants are of the trace's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Noise {
    cpu: u32,
    kind: Kind,
    start_ns: u64,
    end_ns: u64,
    /// Without what was nested in it.
    net_ns: u64,
}

/// The osnoise events of a trace.
fn noises(trace: &str) -> Result<Vec<Noise>> {
    let mut noises = Vec::new();
    for line in trace.lines() {
        for kind in Kind::ALL {
            if let Some((head, rest)) = line.split_once(&format!(" {}: ", kind.event())) {
                noises.push(noise(kind, head, rest).with_context(|| format!("the line \"{line}\" of the trace"))?);
            }
        }
    }
    Ok(noises)
}

/// "comm:number start 54.029328123 duration 1234 ns", behind the name of an event.
fn noise(kind: Kind, head: &str, rest: &str) -> Option<Noise> {
    let (cpu, end_ns) = place(head)?;
    let (who, times) = rest.split_once(" start ")?;
    let (start, net) = times.strip_suffix(" ns")?.split_once(" duration ")?;
    let (start_ns, net_ns) = (ns(start)?, net.parse().ok()?);
    let (kind, end_ns) = match kind {
        // The event comes some time after the end, which is known where nothing is nested.
        Kind::Irq => (kind, start_ns + net_ns),
        Kind::Softirq => (kind, end_ns),
        Kind::Thread(_) => (Kind::Thread(who.rsplit_once(':')?.1.parse().ok()?), end_ns),
    };
    Some(Noise { cpu, kind, start_ns, end_ns, net_ns })
}

/// CPU and instant of an event: `  comm-123  [001] d..2.   54.029328:`.
fn place(head: &str) -> Option<(u32, u64)> {
    let (before, after) = head.rsplit_once("] ")?;
    let at = after.split_whitespace().last()?.strip_suffix(':')?;
    Some((before.rsplit_once('[')?.1.parse().ok()?, ns(at)?))
}

/// Seconds with digits behind the point, as many as there are.
fn ns(text: &str) -> Option<u64> {
    let (seconds, fraction) = text.split_once('.')?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    Some(seconds.parse::<u64>().ok()? * 1_000_000_000 + digits.parse::<u64>().ok()?)
}

/// How far CLOCK_REALTIME is ahead of the trace's clock, which is the CPU's own ("local"): on an emulated machine the two go at
/// slightly different rates.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Clock {
    knots: Vec<Knot>,
}

/// What one mark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Knot {
    /// When it was written, by the trace's clock.
    at_ns: u64,
    ahead_ns: u64,
    error_ns: u64,
}

/// In the trace instants of events are cut to whole us.
const CUT_NS: u64 = 1_000;
/// The quickest mark in so long a time counts, ns.
const KNOT_EVERY_NS: u64 = 500_000_000;

impl Clock {
    /// By marks in the trace, each of which was written between two readings of CLOCK_REALTIME.
    fn of(marks: &[(u64, u64)], trace: &str) -> Result<Self> {
        let mut knots: BTreeMap<u64, Knot> = BTreeMap::new();
        for line in trace.lines() {
            let Some((head, number)) = line.split_once(" tracing_mark_write: mark ") else { continue };
            let wrong = || format!("the line \"{line}\" of the trace");
            let (_, at_ns) = place(head).with_context(wrong)?;
            let mark = number.parse::<usize>().ok().and_then(|number| marks.get(number));
            let (before_ns, after_ns) = mark.with_context(wrong)?;
            let (least_ns, most_ns) = (before_ns.saturating_sub(at_ns + CUT_NS), after_ns.saturating_sub(at_ns));
            let ahead_ns = least_ns.midpoint(most_ns);
            let knot = Knot { at_ns, ahead_ns, error_ns: (most_ns - least_ns).div_ceil(2) };
            let best = knots.entry(at_ns / KNOT_EVERY_NS).or_insert(knot);
            *best = [*best, knot].into_iter().min_by_key(|knot| knot.error_ns).unwrap_or(knot);
        }
        ensure!(!knots.is_empty(), "none of {} marks is in the trace", marks.len());
        Ok(Self { knots: knots.into_values().collect() })
    }

    /// In a straight line from knot to knot, and on beyond the first and the last.
    fn realtime_ns(&self, trace_ns: u64) -> u64 {
        let last = self.knots.len() - 1;
        let right = self.knots.partition_point(|knot| knot.at_ns <= trace_ns).clamp(last.min(1), last);
        let (left, right) = (self.knots[right.saturating_sub(1)], self.knots[right]);
        let length_ns = i128::from((right.at_ns - left.at_ns).max(1));
        let drift_ns = i128::from(right.ahead_ns) - i128::from(left.ahead_ns);
        let since_ns = i128::from(trace_ns) - i128::from(left.at_ns);
        let realtime_ns = i128::from(trace_ns) + i128::from(left.ahead_ns) + drift_ns * since_ns / length_ns;
        u64::try_from(realtime_ns).unwrap_or(0)
    }

    /// At the knots.
    fn error_ns(&self) -> u64 {
        self.knots.iter().map(|knot| knot.error_ns).max().unwrap_or(0)
    }

    /// From the begin to the end.
    fn drift_ns(&self) -> u64 {
        let ahead_ns = |knot: Option<&Knot>| knot.map_or(0, |knot| knot.ahead_ns);
        ahead_ns(self.knots.first()).abs_diff(ahead_ns(self.knots.last()))
    }
}

/// What had the CPU in the time of a late wake-up, ns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Account {
    irq_ns: u64,
    softirq_ns: u64,
    threads: BTreeMap<u32, u64>,
}

impl Account {
    /// By guard. What idle and what could not be seen is nobody's noise. Before timerlat's interrupt osnoise shows interrupts
    /// only, so soft interrupts that guard may have seen there are left out.
    fn of_evidence(evidence: &Evidence) -> Self {
        let mut this = Self::default();
        for part in &evidence.parts {
            let tid = part.by.as_ref().map_or(0, |by| by.tid);
            match part.cause.known() {
                Some(Cause::Irq) if tid == 0 => this.irq_ns += part.ns,
                Some(Cause::Softirq) if tid == 0 => this.softirq_ns += part.ns,
                Some(Cause::Unknown | Cause::CpuIdleExit) => {}
                _ => *this.threads.entry(tid).or_default() += part.ns,
            }
        }
        this.softirq_ns = this.softirq_ns.saturating_sub(evidence.irq_delay_ns.unwrap_or(0));
        this
    }

    /// By osnoise, which counts the idle task too. Of what reaches out of the interval the nested noise is taken to be inside.
    fn of_noises(noises: &[Noise], clock: &Clock, cpu: u32, (from_ns, to_ns): (u64, u64)) -> Self {
        let mut this = Self::default();
        for noise in noises.iter().filter(|noise| noise.cpu == cpu && noise.kind != Kind::Thread(0)) {
            let (start_ns, end_ns) = (clock.realtime_ns(noise.start_ns), clock.realtime_ns(noise.end_ns));
            let inside_ns = end_ns.min(to_ns).saturating_sub(start_ns.max(from_ns));
            if inside_ns == 0 {
                continue;
            }
            let outside_ns = end_ns.saturating_sub(start_ns).saturating_sub(inside_ns);
            let net_ns = noise.net_ns.saturating_sub(outside_ns);
            match noise.kind {
                Kind::Irq => this.irq_ns += net_ns,
                Kind::Softirq => this.softirq_ns += net_ns,
                Kind::Thread(tid) => *this.threads.entry(tid).or_default() += net_ns,
            }
        }
        this
    }

    /// Threads, with the soft interrupts in them.
    fn threads_ns(&self) -> u64 {
        self.threads.values().sum::<u64>() + self.softirq_ns
    }

    fn compare(&self, guard: &Self, rival: u32, latency_ns: u64) -> [Row; 3] {
        let around = Tolerance { absolute: tolerance().around(latency_ns), fraction: 0.0 };
        let of_rival = |of: &Self| of.threads.get(&rival).copied().unwrap_or(0);
        [
            Row::new("interrupts", self.irq_ns, guard.irq_ns, around),
            Row::new("threads", self.threads_ns(), guard.threads_ns(), around),
            Row::new("the rival", of_rival(self), of_rival(guard), around),
        ]
    }
}

#[cfg(test)]
mod tests {
    use guard::snapshot::{Culprit, TimePart};

    use super::*;

    /// The clock of the trace is a thousand seconds behind. A late wake-up from 1054.001 s to 1054.021 s on CPU 1.
    const TRACE: &str = "# tracer: timerlat
           <...>-9     [000] .....    53.000000: tracing_mark_write: mark 0
          <idle>-0     [001] d.h1.    54.002000: irq_noise: local_timer:236 start 54.000000000 duration 2000000 ns
    kworker/1:1-26     [001] d.h2.    54.010500: irq_noise: virtio0-requests:37 start 54.010000000 duration 500000 ns
    kworker/1:1-26     [001] d..2.    54.006000: thread_noise: kworker/1:1:26 start 54.002000000 duration 4000000 ns
           rival-97    [001] d..2.    54.021000: thread_noise:    rival:97 start 54.006000000 duration 14500000 ns
          <idle>-0     [001] d..2.    54.030000: thread_noise: swapper/1:0 start 54.022000000 duration 8000000 ns
           other-98    [000] d..2.    54.021000: thread_noise:    other:98 start 54.006000000 duration 15000000 ns
";

    fn theirs() -> Account {
        let clock = Clock::of(&[(1_053_000_000_000, 1_053_000_001_000)], TRACE).unwrap();
        assert_eq!((clock.error_ns(), clock.realtime_ns(5)), (1_000, 1_000_000_000_005));
        Account::of_noises(&noises(TRACE).unwrap(), &clock, 1, (1_054_001_000_000, 1_054_021_000_000))
    }

    fn guards(irq_delay_ns: u64, parts: &[TimePart]) -> Account {
        Account::of_evidence(&Evidence {
            irq_delay_ns: Some(irq_delay_ns),
            parts: parts.to_vec(),
            ..Evidence::default()
        })
    }

    fn part(cause: &str, ns: u64, tid: Option<u32>) -> TimePart {
        let by = tid.map(|tid| Culprit { tid, ..Culprit::default() });
        TimePart { cause: cause.into(), ns, by }
    }

    #[test]
    fn what_reaches_out_of_the_interval_is_cut() {
        let threads = BTreeMap::from([(26, 4_000_000), (97, 14_500_000)]);
        assert_eq!(theirs(), Account { irq_ns: 1_500_000, softirq_ns: 0, threads });
    }

    #[test]
    fn the_same_agrees_and_what_is_put_down_to_another_does_not() {
        let differ = |parts: &[TimePart]| {
            let rows = theirs().compare(&guards(0, parts), 97, 20_000_000);
            rows.into_iter().filter(|row| !row.agrees).map(|row| row.figure).collect::<Vec<_>>()
        };
        let irqs = [part("irq", 1_000_000, None), part("irq", 510_000, Some(0))];
        let soft = part("softirq", 100_000, Some(0));
        let with = |others: &[TimePart]| [&irqs[..], others].concat();
        let rival = part("higher_priority", 14_500_000, Some(97));
        let kworker = part("lower_priority_blocking", 3_900_000, Some(26));
        assert_eq!(differ(&with(&[rival.clone(), kworker.clone(), soft.clone()])), Vec::<String>::new());
        assert_eq!(differ(&[rival.clone(), kworker.clone(), soft.clone()]), ["interrupts"]);
        assert_eq!(differ(&with(&[rival, part("unknown", 4_000_000, Some(26))])), ["threads"]);
        assert_eq!(differ(&with(&[kworker, part("softirq", 14_600_000, Some(0))])), ["the rival"]);
    }

    #[test]
    fn a_soft_interrupt_before_the_timers_own_is_not_compared() {
        let soft = part("softirq", 5_000_000, Some(0));
        assert_eq!(
            [0, 4_000_000, 9_000_000].map(|ns| guards(ns, std::slice::from_ref(&soft)).softirq_ns),
            [5_000_000, 1_000_000, 0]
        );
    }

    #[test]
    fn a_clock_that_drifts_is_followed() {
        let mark = |number: u32, at: &str| format!(" x-1 [000] ..... {at}: tracing_mark_write: mark {number}\n");
        let trace = mark(0, "10.000000") + &mark(1, "10.100000") + &mark(2, "12.000000");
        // The second mark was slow.
        let marks =
            [(20_000_000_000, 20_000_001_000), (20_100_000_000, 21_000_000_000), (22_200_000_000, 22_200_001_000)];
        let clock = Clock::of(&marks, &trace).unwrap();
        assert_eq!((clock.error_ns(), clock.drift_ns()), (1_000, 200_000_000));
        let at = [9_000_000_000, 10_000_000_000, 11_000_000_000, 12_000_000_000].map(|ns| clock.realtime_ns(ns));
        assert_eq!(at, [18_900_000_000, 20_000_000_000, 21_100_000_000, 22_200_000_000]);
    }

    #[test]
    fn a_trace_that_says_something_else_is_an_error() {
        assert!(noises("x-1 [001] d..2. 54.021000: thread_noise: x start 54.0 duration 1 ns\n").is_err());
        assert!(Clock::of(&[(1, 2)], "").is_err());
    }
}

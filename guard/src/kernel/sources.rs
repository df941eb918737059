//! From what the kernel offers to what is loaded: the programs' configuration, and by which source each signal can be seen,
//! in part, or not at all and why. It only decides; nothing is loaded here.

use std::fs;

use guard_common::{
    config::{Config, throttled_time},
    maps::hists_per_cpu,
};

use super::{
    KernelError, LoadOptions, flight,
    offer::{CFS_PERIOD_TIMER, DL_TASK_TIMER, HRTIMER_WAKEUP, Lack, Offer},
    offsets::{self, CgroupSource},
    programs::{self, Probe},
};
use crate::snapshot::ThrottleSource;

/// How far a signal can be seen: what is missing of it, or why it cannot be seen at all.
pub(super) type Sight = Result<Vec<String>, String>;

/// Records for tasks: where pid_max is larger, tids share records and collisions are counted.
const MAX_TASKS: u32 = 1 << 17;

const HRTIMER: [&str; 5] =
    ["hrtimer._softexpires", "hrtimer.function", "hrtimer.base", "hrtimer.is_soft", "hrtimer_clock_base.offset"];
/// From a replenishment timer to its task.
const DEADLINE: [&str; 2] = ["sched_dl_entity.dl_timer", "task_struct.dl"];
/// From a task to the real-time tasks that are runnable on its CPU.
const RT_RUNNABLE: [&str; 4] = ["task_struct.se.cfs_rq", "cfs_rq.rq", "rq.rt.rt_nr_running", "rt_rq.rt_nr_running"];
/// With CFS bandwidth control only.
const BANDWIDTH: [&str; 1] = ["cfs_rq.throttle_count"];
/// From a cfs_rq to the id of its cgroup.
const CGROUP_OF_CFS_RQ: [&str; 2] = ["cfs_rq.tg", "task_group.css.cgroup"];
/// From a period timer to its cgroup, and the kernel's own counters.
const PERIOD_TIMER: [&str; 5] = [
    "task_group.css.cgroup",
    "task_group.cfs_bandwidth",
    "cfs_bandwidth.period_timer",
    "cfs_bandwidth.nr_throttled",
    "cfs_bandwidth.throttled_time",
];
/// From a task to the cfs_rq that it waits on, and to the one it moves to.
const WAITED_ON: [&str; 3] = ["task_struct.se.cfs_rq", "task_struct.sched_task_group", "task_group.cfs_rq"];
/// How long a cfs_rq was throttled, by the kernel itself.
const THROTTLED_CLOCK: [&str; 4] =
    ["cfs_rq.throttled_clock_self_time", "cfs_rq.throttled_clock_self", "cfs_rq.rq", "rq.clock"];

/// Throttled time is looked at only once a quota was seen on the node.
pub(super) const NO_QUOTA_SEEN: &str = "neither fentry nor the period timer shows that there are quotas";

/// What the kernel refused when it was tried.
#[derive(Clone, Debug, Default)]
pub(super) struct Refused {
    /// Why the programs that see throttles are not there.
    pub(super) throttle: Option<String>,
    /// Why those that see which cfs_rqs a throttle reaches are not there.
    pub(super) hierarchy: Option<String>,
}

/// Where throttles come from; the text says why not from something better.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Throttle {
    /// The kernel has no CFS bandwidth control.
    Nowhere(String),
    /// The functions that throttle.
    Fentry,
    /// The period timer's expiries.
    PeriodTimer(String),
    /// cpu.stat alone.
    CpuStat(String),
}

impl Throttle {
    /// What counts throttles, given whether the timer signal is seen.
    pub(super) fn counted_by(&self, timer_is_seen: bool) -> ThrottleSource {
        match self {
            Self::Fentry => ThrottleSource::Fentry,
            Self::PeriodTimer(_) if timer_is_seen => ThrottleSource::PeriodTimer,
            Self::PeriodTimer(_) | Self::CpuStat(_) | Self::Nowhere(_) => ThrottleSource::CpuStat,
        }
    }
}

/// By which source each signal can be seen.
pub(super) struct Sources {
    pub(super) config: Config,
    pub(super) timer: Sight,
    pub(super) user: Sight,
    pub(super) throttle: Throttle,
    pub(super) throttled_wait: Sight,
    pub(super) rt_throttle: Sight,
    pub(super) lock: Sight,
    pub(super) irq: Sight,
    /// Interrupt vectors that the kernel has.
    pub(super) vectors: Vec<[Probe; 2]>,
    pub(super) breach: Sight,
    pub(super) flight: Sight,
    /// Programs of the flight recorder alone that have something to attach to.
    pub(super) flight_probes: Vec<Probe>,
}

impl Sources {
    /// Decides for a node with `cpus` possible CPUs.
    pub(super) fn new(
        offer: &Offer<'_>,
        options: &LoadOptions,
        cpus: u32,
        refused: &Refused,
    ) -> Result<Self, KernelError> {
        let mut config = config(offer, options, cpus)?;
        let timer = timer(offer);
        let throttle = throttle(offer, refused, &timer);
        let throttled_time =
            tracepoints(offer, &programs::MIGRATE).and_then(|()| throttled_time(offer, refused, &throttle, &timer));
        config.throttle_by_period = u32::from(matches!(throttle, Throttle::PeriodTimer(_)));
        config.throttled_time = throttled_time.as_ref().map_or(throttled_time::NONE, |source| *source);
        let irq = offer.members(&RT_RUNNABLE).and_then(|()| tracepoints(offer, &programs::IRQ));
        config.irq = u32::from(irq.is_ok());
        let has = |probe: &Probe| offer.tracepoint(probe.program, Lack::Signal).is_ok();
        let vectors = programs::VECTORS.into_iter().filter(|pair| pair.iter().all(has)).collect();
        let (flight, flight_probes) = if options.flight { flight(offer) } else { (Ok(Vec::new()), Vec::new()) };
        Ok(Self {
            user: tracepoints(offer, &programs::USER).map(|()| Vec::new()),
            timer,
            throttle,
            throttled_wait: throttled_time.map(|_| Vec::new()),
            rt_throttle: Ok(rt_throttle(offer)),
            lock: tracepoints(offer, &programs::LOCK).map(|()| lock(offer)),
            irq: irq.map(|()| Vec::new()),
            vectors,
            breach: Ok(shortfalls([(
                "the system calls in which threads sleep are not known",
                offer.members(&[offer.registers().number]),
            )])),
            flight,
            flight_probes,
            config,
        })
    }
}

fn config(offer: &Offer<'_>, options: &LoadOptions, cpus: u32) -> Result<Config, KernelError> {
    let pid_max: u32 =
        fs::read_to_string("/proc/sys/kernel/pid_max").ok().and_then(|s| s.trim().parse().ok()).unwrap_or(1 << 15);
    Ok(Config {
        fn_hrtimer_wakeup: offer.address(HRTIMER_WAKEUP),
        fn_dl_task_timer: offer.address(DL_TASK_TIMER),
        fn_cfs_period_timer: offer.address(CFS_PERIOD_TIMER),
        fn_tick: offer.address(offer.tick()),
        breach_ns: options.breach_ns,
        offsets: offsets::resolve(offer, options.cgroups)?,
        cgroup_slots: options.cgroup_slots,
        hists_per_cpu: hists_per_cpu(options.cgroup_slots, options.thread_slots),
        cpus,
        task_mask: pid_max.next_power_of_two().min(MAX_TASKS) - 1,
        css_set_is_subsys: u32::from(options.cgroups == CgroupSource::CpuController),
        preempt_rt: u32::from(options.preempt_rt),
        throttled_time: throttled_time::NONE,
        irq: 0,
        throttle_by_period: 0,
        act: u32::from(options.act),
        futex: u32::try_from(libc::SYS_futex).unwrap_or(u32::MAX),
        own_tgid: if options.act { std::process::id() } else { 0 },
        flight_mask: if options.flight { flight::entries(cpus) - 1 } else { 0 },
        stacks: u32::from(options.stacks),
    })
}

fn tracepoints(offer: &Offer<'_>, probes: &[Probe]) -> Result<(), String> {
    probes.iter().try_for_each(|probe| offer.tracepoint(probe.program, Lack::Signal))
}

/// Each effect whose cause is there, with the cause.
fn shortfalls<const N: usize>(all: [(&str, Result<(), String>); N]) -> Vec<String> {
    all.into_iter().filter_map(|(effect, found)| Some(format!("{effect}: {}", found.err()?))).collect()
}

fn timer(offer: &Offer<'_>) -> Sight {
    offer.members(&HRTIMER)?;
    tracepoints(offer, &programs::TIMER)?;
    Ok(shortfalls([
        ("sleepers are not told from other timers", offer.callback(HRTIMER_WAKEUP)),
        (
            "replenishments of SCHED_DEADLINE threads are not seen",
            offer.callback(DL_TASK_TIMER).and_then(|()| offer.members(&DEADLINE)),
        ),
        ("a wake-up by the tick passes for a timer's", offer.callback(offer.tick())),
    ]))
}

fn functions(offer: &Offer<'_>, probes: &[Probe], refused: Option<&str>) -> Result<(), String> {
    offer.trampolines(refused)?;
    probes.iter().try_for_each(|probe| offer.function(probe.program))
}

fn throttle(offer: &Offer<'_>, refused: &Refused, timer: &Sight) -> Throttle {
    if let Err(reason) = offer.members(&BANDWIDTH) {
        return Throttle::Nowhere(format!("there is no CFS bandwidth control (CONFIG_CFS_BANDWIDTH): {reason}"));
    }
    let no_fentry = match functions(offer, &programs::THROTTLE, refused.throttle.as_deref())
        .and_then(|()| offer.members(&CGROUP_OF_CFS_RQ))
    {
        Ok(()) => return Throttle::Fentry,
        Err(reason) => reason,
    };
    let no_timer = match timer {
        Ok(_) => offer.callback(CFS_PERIOD_TIMER).and_then(|()| offer.members(&PERIOD_TIMER)).err(),
        Err(reason) => Some(reason.clone()),
    };
    match no_timer {
        None => Throttle::PeriodTimer(no_fentry),
        Some(reason) => Throttle::CpuStat(format!("{no_fentry}; nor by the period timer: {reason}")),
    }
}

/// One of [`throttled_time`], or why there is none.
fn throttled_time(offer: &Offer<'_>, refused: &Refused, throttle: &Throttle, timer: &Sight) -> Result<u32, String> {
    if let Throttle::Nowhere(reason) = throttle {
        return Err(reason.clone());
    }
    offer.members(&WAITED_ON)?;
    if *throttle != Throttle::Fentry {
        let seen = timer.clone().and_then(|_| offer.callback(CFS_PERIOD_TIMER));
        seen.map_err(|reason| format!("{NO_QUOTA_SEEN}: {reason}"))?;
    }
    let Err(no_field) = offer.members(&THROTTLED_CLOCK) else { return Ok(throttled_time::FIELD) };
    match functions(offer, &programs::HIERARCHY, refused.hierarchy.as_deref()).and_then(|()| offer.members(&["rq.cpu"]))
    {
        Ok(()) => Ok(throttled_time::FENTRY),
        Err(no_fentry) => Err(format!("nothing tells how long a cgroup was throttled: {no_field}; {no_fentry}")),
    }
}

fn rt_throttle(offer: &Offer<'_>) -> Vec<String> {
    // Without a server of fair tasks, or without RT time for each cgroup, there is nothing of them to see.
    offer.offset("task_struct.dl_server");
    offer.offset("task_struct.rt.rt_rq");
    shortfalls([(
        "where other tasks follow while the real-time task waits on, the end is seen too early",
        offer.members(&RT_RUNNABLE),
    )])
}

fn lock(offer: &Offer<'_>) -> Vec<String> {
    let registers = offer.registers();
    let waiter = offer.members(&["task_struct.pi_blocked_on", "rt_mutex_waiter.lock"]);
    let futexes = waiter
        .clone()
        .and_then(|()| offer.members(&["rt_mutex_waiter.wake_state", registers.number, registers.second]));
    shortfalls([
        ("waits for PI futexes are not seen", waiter),
        ("owners of locks are not known", offer.members(&["rt_mutex_base.owner"])),
        ("boosts for PI futexes are not told from others", futexes),
    ])
}

fn flight(offer: &Offer<'_>) -> (Sight, Vec<Probe>) {
    let registers = offer.registers();
    let mut missing = shortfalls([
        ("throttled tasks are not marked", offer.members(&["task_struct.se.cfs_rq"]).and(offer.members(&BANDWIDTH))),
        ("owners of futexes are not known", offer.members(&[registers.number, registers.first, registers.second])),
    ]);
    let mut probes = Vec::new();
    for probe in programs::FLIGHT.into_iter().chain(programs::MIGRATE) {
        match offer.tracepoint(probe.program, Lack::Signal) {
            Ok(()) => probes.push(probe),
            Err(reason) => missing.push(reason),
        }
    }
    (Ok(missing), probes)
}

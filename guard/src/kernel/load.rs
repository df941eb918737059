//! Load and attach: from this kernel's type information to running programs, one signal after the other. A signal that
//! this kernel does not offer is reported with its reason; only wake-ups are indispensable.

use std::{fs, io, mem::offset_of};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, Queue, RingBuf},
    programs::{BtfTracePoint, FEntry, FExit, ProgramError},
};
use bytemuck::{Pod, Zeroable};
use guard_common::{
    config::{Config, throttled_time},
    event::{Breach, Frames},
    flight::{Entry, Head},
    maps::{CgroupSlot, CpuState, Hist, TaskRec, ThreadState, ThrottleStamp, ThrottleState, hists_per_cpu},
};

use super::{
    Kernel, KernelError,
    btf::Btf,
    collect::Before,
    flight::{self, Flight},
    offsets::{self, CgroupSource, all_present},
    selfcheck, symbols,
    sys::Shared,
};
use crate::snapshot::{Signal, SignalState};

/// The kernel side, compiled; `cargo xtask ebpf` makes it from guard-ebpf.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../guard-ebpf/guard.bpf.o"));

const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";

/// Records for tasks: where pid_max is larger, tids share records and collisions are counted.
const MAX_TASKS: u32 = 1 << 17;
const NO_BANDWIDTH: &str = "this kernel has no CFS bandwidth control (CONFIG_CFS_BANDWIDTH)";
/// Bytes of the smallest ring buffer, and of that of the programs' own words where they are wanted.
const SMALLEST_RING: u32 = 1 << 12;
const LOG_BYTES: u32 = 1 << 17;
/// Bytes of the ring buffer of breaches.
const RING_BYTES: u64 = 1 << 18;

/// What to load.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Latency from which on a wake-up of an RT thread without a budget is a breach, ns.
    pub breach_ns: u64,
    /// Which hierarchy names the cgroups.
    pub cgroups: CgroupSource,
    /// Slots for cgroups; see [`LoadOptions::slots_for`].
    pub cgroup_slots: u32,
    /// Slots for watched threads.
    pub thread_slots: u32,
    /// Cgroup id of guard's own process in that hierarchy, for the self-check.
    pub own_cgroup: Option<u64>,
    /// CPUs online.
    pub online_cpus: Vec<u32>,
    /// Whether the kernel is PREEMPT_RT.
    pub preempt_rt: bool,
    /// Whether guard acts on what happens: then it is woken for it; see [`Kernel::events`].
    pub act: bool,
    /// Whether late wake-ups are to be explained: then a flight recorder runs, which costs an entry for each event.
    pub flight: bool,
    /// Whether kernel stacks of late wake-ups are to be kept: each wake-up of a watched thread costs microseconds then.
    pub stacks: bool,
    /// Whether to count the programs' run time, which itself costs some 20 ns per event.
    pub run_time_stats: bool,
}

impl LoadOptions {
    /// Slots that hold `present` cgroups or threads with room to grow, within `least..=most`.
    #[must_use]
    pub fn slots_for(present: usize, least: u32, most: u32) -> u32 {
        let wanted = u32::try_from(present + present / 4 + 1).unwrap_or(most);
        wanted.checked_next_power_of_two().unwrap_or(most).clamp(least, most)
    }
}

/// Gives shared records aya's mark for plain old data.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Raw<T>(pub(super) T);

// SAFETY: bytemuck's Pod asks for all that aya's does: no padding, every bit pattern valid, 'static.
unsafe impl<T: Pod> aya::Pod for Raw<T> {}

/// A program and where it goes.
struct Probe {
    program: &'static str,
    at: At,
}

enum At {
    Tracepoint,
    Entry,
    Exit,
}

const fn tracepoint(program: &'static str) -> Probe {
    Probe { program, at: At::Tracepoint }
}

// Exits come before entries, and the consumer of a stamp before its producers, so that nothing half seen is counted.
const WAKEUP: [Probe; 5] = [
    tracepoint("sched_process_exit"),
    tracepoint("sched_process_exec"),
    tracepoint("sched_switch"),
    tracepoint("sched_wakeup_new"),
    tracepoint("sched_waking"),
];
const TIMER: [Probe; 2] = [tracepoint("hrtimer_expire_exit"), tracepoint("hrtimer_expire_entry")];
const USER: [Probe; 1] = [tracepoint("rseq_update")];
const LOCK: [Probe; 3] = [tracepoint("contention_end"), tracepoint("contention_begin"), tracepoint("sched_pi_setprio")];
const SOFTIRQ: [Probe; 2] = [tracepoint("softirq_exit"), tracepoint("softirq_entry")];
const HARDIRQ: [[Probe; 2]; 5] = [
    [tracepoint("irq_handler_exit"), tracepoint("irq_handler_entry")],
    [tracepoint("local_timer_exit"), tracepoint("local_timer_entry")],
    [tracepoint("call_function_exit"), tracepoint("call_function_entry")],
    [tracepoint("call_function_single_exit"), tracepoint("call_function_single_entry")],
    [tracepoint("irq_work_exit"), tracepoint("irq_work_entry")],
];
const MIGRATE: [Probe; 1] = [tracepoint("sched_migrate_task")];
/// What only the flight recorder asks for.
const FLIGHT: [Probe; 2] = [tracepoint("nmi_handler"), tracepoint("page_fault_user")];
const THROTTLE: [Probe; 2] =
    [Probe { program: "unthrottle_cfs_rq", at: At::Entry }, Probe { program: "throttle_cfs_rq", at: At::Exit }];
const HIERARCHY: [Probe; 2] =
    [Probe { program: "tg_unthrottle_up", at: At::Entry }, Probe { program: "tg_throttle_down", at: At::Entry }];

/// What this kernel offers, found out before the configuration is frozen.
struct Offer {
    config: Config,
    /// Whether the kernel has CFS bandwidth control at all.
    bandwidth: bool,
    /// Why there are no fentry programs; `None` when there are.
    no_fentry: Option<String>,
    period_timer: bool,
}

impl Kernel {
    /// Loads and attaches the kernel side and checks that what it reads is true.
    ///
    /// # Errors
    /// See [`KernelError`]; nothing stays attached.
    pub fn load(options: &LoadOptions) -> Result<Self, KernelError> {
        let bytes = fs::read(BTF_PATH).map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => KernelError::NoPrivilege { what: format!("reading {BTF_PATH}") },
            _ => KernelError::NoBtf { path: BTF_PATH, source },
        })?;
        let btf = Btf::parse(&bytes).map_err(|source| KernelError::BadBtf { path: BTF_PATH, source })?;
        drop(bytes);
        let aya_btf = aya::Btf::from_sys_fs().map_err(|e| KernelError::bpf(format!("parsing {BTF_PATH}"), e))?;
        for probe in &WAKEUP {
            if !btf.has_tracepoint(probe.program) {
                return Err(KernelError::NoTracepoint(probe.program));
            }
        }
        let cpus = possible_cpus()?;
        let offer = examine(options, cpus, &btf, &aya_btf)?;
        let config = offer.config;
        let sizes = Sizes::new(options, config.task_mask + 1, cpus);
        let ebpf = load_object(&aya_btf, &config, &sizes)?;

        // The free slots have to be there when the first event comes, and guard's own before others take them all.
        let mut kernel = Self::assemble(ebpf, config, options, &sizes)?;
        let own = selfcheck::Own::watch(&mut kernel)?;
        for probe in &WAKEUP {
            attach(&mut kernel.ebpf, probe, &aya_btf).map_err(|e| refused(probe.program, &e))?;
            kernel.attached.push(probe.program);
        }
        kernel.signals = attach_signals(&mut kernel.ebpf, &btf, &aya_btf, &offer, &mut kernel.attached);
        kernel.user_rest_ns = own.check(&mut kernel, options)?;
        for cpu in 0..kernel.cpus.len() {
            let rest = kernel.user_rest_ns.unwrap_or(0);
            kernel.cpus.write_field(cpu, offset_of!(CpuState, user_rest_ns), rest);
        }
        // What was counted until here is the self-check's.
        kernel.sample()?;
        Ok(kernel)
    }

    fn assemble(mut ebpf: Ebpf, config: Config, options: &LoadOptions, sizes: &Sizes) -> Result<Self, KernelError> {
        let mut free_cgroups = Queue::try_from(take(&mut ebpf, "FREE_CGROUPS")?).map_err(map_error("FREE_CGROUPS"))?;
        for slot in 1..sizes.cgroups {
            free_cgroups.push(slot, 0).map_err(map_error("FREE_CGROUPS"))?;
        }
        let mut free_threads = Queue::try_from(take(&mut ebpf, "FREE_THREADS")?).map_err(map_error("FREE_THREADS"))?;
        for slot in 0..sizes.threads {
            free_threads.push(slot, 0).map_err(map_error("FREE_THREADS"))?;
        }
        let run_time_stats = if options.run_time_stats {
            let on = aya::sys::enable_stats(aya::sys::Stats::RunTime);
            Some(on.map_err(|e| KernelError::bpf("turning on run-time statistics", e))?)
        } else {
            None
        };
        let logger = (log_level() > 0).then(|| aya_log::EbpfLogger::init(&mut ebpf)).transpose();
        let mut logger = logger.map_err(|e| KernelError::bpf("reading what the programs say", e))?;
        Ok(Self {
            say: Box::new(move || logger.iter_mut().for_each(aya_log::EbpfLogger::flush)),
            flight: if options.flight {
                let entries = share::<Entry>(&ebpf, "FLIGHT", sizes.flight)?;
                Some(Flight::new(entries, share::<Head>(&ebpf, "FLIGHT_HEADS", sizes.cpus)?))
            } else {
                None
            },
            hists: share::<Hist>(&ebpf, "HISTS", sizes.hists)?,
            cgroup_slots: share::<CgroupSlot>(&ebpf, "CGROUP_SLOTS", sizes.cgroups)?,
            threads: share::<ThreadState>(&ebpf, "THREADS", sizes.threads)?,
            cpus: share::<CpuState>(&ebpf, "CPUS", sizes.cpus)?,
            tasks: Array::try_from(take(&mut ebpf, "TASKS")?).map_err(map_error("TASKS"))?,
            cgroups: HashMap::try_from(take(&mut ebpf, "CGROUPS")?).map_err(map_error("CGROUPS"))?,
            free_cgroups,
            free_threads,
            ring: RingBuf::try_from(take(&mut ebpf, "EVENTS")?).map_err(map_error("EVENTS"))?,
            online_cpus: options.online_cpus.clone(),
            map_bytes: sizes.bytes(),
            breaches: Vec::new(),
            stacks: Vec::new(),
            dropped_breaches: 0,
            before: Before::new(sizes.cpus as usize, config.hists_per_cpu as usize),
            run_time_stats,
            user_rest_ns: None,
            epoch: 0,
            slots_wanted: false,
            generation: 0,
            ebpf,
            signals: Vec::new(),
            attached: Vec::new(),
            config,
        })
    }
}

/// How many entries each map gets.
struct Sizes {
    tasks: u32,
    cgroups: u32,
    threads: u32,
    cpus: u32,
    hists: u32,
    throttles: u32,
    /// Entries of the flight recorder, of all CPUs.
    flight: u32,
    /// Stacks, one for each thread slot.
    stacks: u32,
}

impl Sizes {
    fn new(options: &LoadOptions, tasks: u32, cpus: u32) -> Self {
        let (cgroups, threads) = (options.cgroup_slots, options.thread_slots);
        Self {
            tasks,
            cgroups,
            threads,
            cpus,
            hists: cpus * hists_per_cpu(cgroups, threads),
            // A cfs_rq per cgroup and CPU, as far as they are ever throttled.
            throttles: (cgroups * cpus).clamp(64, 16_384),
            flight: if options.flight { cpus * flight::entries(cpus) } else { 1 },
            stacks: if options.stacks { threads } else { 1 },
        }
    }

    /// Kernel memory of the maps, without their few hundred bytes of management each. A preallocated hash entry
    /// costs 48 bytes besides key and value, and a bucket head of 16.
    fn bytes(&self) -> u64 {
        let of = |n: u32, size: usize| u64::from(n) * size as u64;
        of(self.tasks, size_of::<TaskRec>() + size_of::<ThrottleStamp>())
            + of(self.hists, size_of::<Hist>())
            + of(self.cgroups, size_of::<CgroupSlot>() + 64 + 16 + 8)
            + of(self.threads, size_of::<ThreadState>() + 8)
            + of(self.cpus, size_of::<CpuState>())
            + of(self.throttles, size_of::<ThrottleState>() + 8 + 64)
            + of(self.flight, size_of::<Entry>())
            + of(self.stacks, size_of::<Frames>())
            + of(self.cpus, size_of::<Head>())
            + RING_BYTES
    }
}

/// Reads from the kernel what it offers and settles the programs' configuration.
fn examine(options: &LoadOptions, cpus: u32, btf: &Btf, aya_btf: &aya::Btf) -> Result<Offer, KernelError> {
    let offsets = offsets::resolve(btf, options.cgroups)?;
    // Unreadable or hidden addresses read as none.
    let callbacks = symbols::parse(&fs::read_to_string("/proc/kallsyms").unwrap_or_default());
    let pid_max: u32 =
        fs::read_to_string("/proc/sys/kernel/pid_max").ok().and_then(|s| s.trim().parse().ok()).unwrap_or(1 << 15);
    let o = &offsets;
    let throttle_known =
        all_present(&[o.cfs_rq_tg, o.cfs_rq_rq, o.rq_cpu, o.cfs_rq_throttle_count, o.tg_cgroup, o.tg_cfs_rq]);
    let mut config = Config {
        fn_hrtimer_wakeup: callbacks.hrtimer_wakeup,
        fn_dl_task_timer: callbacks.dl_task_timer,
        fn_cfs_period_timer: callbacks.cfs_period_timer,
        fn_tick: callbacks.tick,
        breach_ns: options.breach_ns,
        offsets,
        cgroup_slots: options.cgroup_slots,
        hists_per_cpu: hists_per_cpu(options.cgroup_slots, options.thread_slots),
        cpus,
        task_mask: pid_max.next_power_of_two().min(MAX_TASKS) - 1,
        css_set_is_subsys: u32::from(options.cgroups == CgroupSource::CpuController),
        preempt_rt: u32::from(options.preempt_rt),
        throttled_time: throttled_time::NONE,
        irq: u32::from(btf.has_tracepoint("irq_handler_entry") && all_present(&[o.cfs_rq_rq, o.rq_rt_nr_running])),
        throttle_by_period: 0,
        act: u32::from(options.act),
        futex: u32::try_from(libc::SYS_futex).unwrap_or(u32::MAX),
        own_tgid: if options.act { std::process::id() } else { 0 },
        flight_mask: if options.flight { flight::entries(cpus) - 1 } else { 0 },
        stacks: u32::from(options.stacks),
    };
    let no_fentry =
        if throttle_known { fentry_refusal(options, &config, aya_btf)? } else { Some(NO_BANDWIDTH.to_owned()) };
    let o = &config.offsets;
    let period_timer = config.fn_cfs_period_timer != 0
        && all_present(&[o.tg_cfs_bandwidth, o.cfs_b_period_timer, o.cfs_b_nr_throttled, o.cfs_b_throttled_time]);
    config.throttle_by_period = u32::from(no_fentry.is_some() && period_timer);
    config.throttled_time = if all_present(&[o.cfs_rq_throttled_clock_self_time, o.task_sched_task_group])
        && (period_timer || no_fentry.is_none())
    {
        throttled_time::FIELD
    } else if no_fentry.is_none() && throttle_known {
        throttled_time::FENTRY
    } else {
        throttled_time::NONE
    };
    Ok(Offer { config, bandwidth: throttle_known, no_fentry, period_timer })
}

/// Tries the throttle programs on maps of the smallest size: what the kernel says against them, if anything.
fn fentry_refusal(options: &LoadOptions, config: &Config, btf: &aya::Btf) -> Result<Option<String>, KernelError> {
    let small = LoadOptions { cgroup_slots: 2, thread_slots: 1, flight: false, stacks: false, ..options.clone() };
    let trial = Config {
        cgroup_slots: small.cgroup_slots,
        hists_per_cpu: hists_per_cpu(small.cgroup_slots, small.thread_slots),
        cpus: 1,
        task_mask: 0,
        throttled_time: throttled_time::FENTRY,
        flight_mask: 0,
        stacks: 0,
        ..*config
    };
    let mut ebpf = load_object(btf, &trial, &Sizes::new(&small, 1, 1))?;
    for probe in THROTTLE.iter().chain(&HIERARCHY) {
        if let Err(e) = attach(&mut ebpf, probe, btf) {
            return Ok(Some(reason(&e)));
        }
    }
    Ok(None)
}

fn load_object(btf: &aya::Btf, config: &Config, sizes: &Sizes) -> Result<Ebpf, KernelError> {
    let (raw, level) = (Raw(*config), log_level());
    EbpfLoader::new()
        .btf(Some(btf))
        .override_global("CONFIG", &raw, true)
        .map_max_entries("TASKS", sizes.tasks)
        .map_max_entries("THROTTLE_STAMPS", sizes.tasks)
        .map_max_entries("HISTS", sizes.hists)
        .map_max_entries("CGROUPS", sizes.cgroups)
        .map_max_entries("CGROUP_SLOTS", sizes.cgroups)
        .map_max_entries("FREE_CGROUPS", sizes.cgroups)
        .map_max_entries("THREADS", sizes.threads)
        .map_max_entries("FREE_THREADS", sizes.threads)
        .map_max_entries("CPUS", sizes.cpus)
        .map_max_entries("THROTTLES", sizes.throttles)
        .map_max_entries("FLIGHT", sizes.flight)
        .map_max_entries("STACKS", sizes.stacks)
        .override_global(aya_log::LEVEL, &level, false)
        .map_max_entries("AYA_LOGS", if level == 0 { SMALLEST_RING } else { LOG_BYTES })
        .map_max_entries("FLIGHT_HEADS", sizes.cpus)
        .load(OBJECT)
        .map_err(|e| {
            if denied(&e) {
                KernelError::NoPrivilege { what: "creating the maps".to_owned() }
            } else {
                KernelError::bpf("loading guard's eBPF object", e)
            }
        })
}

/// What the programs are to say: nothing unless guard itself is asked to tell much (`-vv`). At 0 the verifier removes all
/// of it. Numbers as aya-log has them, 1 (error) to 5 (trace).
fn log_level() -> u8 {
    match tracing::level_filters::LevelFilter::current().into_level() {
        Some(tracing::Level::TRACE) => 5,
        Some(tracing::Level::DEBUG) => 4,
        _ => 0,
    }
}

/// Whether an error goes back to a missing privilege. EACCES does not: it is the verifier's word for a bad program.
fn denied(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut at = Some(error);
    while let Some(e) = at {
        if e.downcast_ref::<io::Error>().is_some_and(|e| e.raw_os_error() == Some(libc::EPERM)) {
            return true;
        }
        at = e.source();
    }
    false
}

fn attach_signals(
    ebpf: &mut Ebpf,
    btf: &Btf,
    aya_btf: &aya::Btf,
    offer: &Offer,
    attached: &mut Vec<&'static str>,
) -> Vec<Signal> {
    let mut signals = Vec::new();
    let config = &offer.config;
    let o = &config.offsets;
    let mut try_all = |probes: &[Probe]| -> Result<(), String> {
        for probe in probes {
            if matches!(probe.at, At::Tracepoint) && !btf.has_tracepoint(probe.program) {
                return Err(format!("this kernel has no tracepoint {}", probe.program));
            }
            attach(ebpf, probe, aya_btf).map_err(|e| format!("{}: {}", probe.program, reason(&e)))?;
            attached.push(probe.program);
        }
        Ok(())
    };
    let mut push = |name: &str, source: &str, state: SignalState, reason: Option<String>| {
        signals.push(Signal { name: name.to_owned(), source: source.to_owned(), state, reason });
    };

    push("wakeup", "tp_btf sched_waking, sched_switch", SignalState::Active, None);
    let timer = if all_present(&[o.timer_softexpires, o.timer_function, o.timer_base, o.timer_base_offset]) {
        try_all(&TIMER)
    } else {
        Err("this kernel's struct hrtimer is not the one that guard knows".to_owned())
    };
    let timer_works = timer.is_ok();

    let fentry = match &offer.no_fentry {
        None => try_all(&THROTTLE),
        Some(reason) => Err(reason.clone()),
    };
    match fentry {
        Err(reason) if !offer.bandwidth => push("throttle", "cpu.stat", SignalState::Unavailable, Some(reason)),
        Ok(()) => {
            push("throttle", "fexit throttle_cfs_rq, fentry unthrottle_cfs_rq; cpu.stat", SignalState::Active, None);
        }
        Err(reason) => {
            let (source, lack) = if offer.period_timer && timer_works {
                ("tp_btf hrtimer_expire_entry of sched_cfs_period_timer; cpu.stat", "durations are means of a period")
            } else {
                ("cpu.stat", "durations are not known")
            };
            let reason = format!("{lack}, because fentry is refused: {reason}");
            push("throttle", source, SignalState::Degraded, Some(reason));
        }
    }
    let mut say = |name: &str, source: &str, result: Result<(), String>| match result {
        Ok(()) => push(name, source, SignalState::Active, None),
        Err(reason) => push(name, source, SignalState::Unavailable, Some(reason)),
    };
    say("timer", "tp_btf hrtimer_expire_entry, sched_waking, sched_switch", timer);
    say(
        "user",
        "tp_btf rseq_update",
        if timer_works { try_all(&USER) } else { Err("it follows the timer signal, which is unavailable".to_owned()) },
    );
    let waited = match config.throttled_time {
        throttled_time::FIELD => try_all(&MIGRATE),
        throttled_time::FENTRY => try_all(&HIERARCHY).and_then(|()| try_all(&MIGRATE)),
        _ if !offer.bandwidth => Err(NO_BANDWIDTH.to_owned()),
        _ => {
            Err("neither cfs_rq.throttled_clock_self_time nor fentry tells how long a cgroup was throttled".to_owned())
        }
    };
    let source = if config.throttled_time == throttled_time::FENTRY {
        "fentry tg_throttle_down, tg_unthrottle_up"
    } else {
        "cfs_rq.throttled_clock_self_time at sched_waking, sched_migrate_task, sched_switch"
    };
    say("throttled_wait", source, waited);
    say("rt_throttle", "tp_btf sched_switch: a runnable RT task gives way to a fair one", Ok(()));
    say("lock", "tp_btf contention_begin, contention_end, sched_pi_setprio; pi_blocked_on", try_all(&LOCK));
    let irq = if config.irq == 0 {
        Err("this kernel has no interrupt tracepoints".to_owned())
    } else {
        // Vectors that this architecture lacks are not missed.
        for pair in HARDIRQ.iter().filter(|pair| btf.has_tracepoint(pair[0].program)) {
            if let Err(reason) = try_all(pair) {
                tracing::debug!(reason, "an interrupt vector cannot be timed");
            }
        }
        try_all(&SOFTIRQ)
    };
    say("irq", "tp_btf irq_handler, softirq and interrupt vectors", irq);
    say("breach", "ring buffer", Ok(()));
    if config.flight_mask != 0 {
        attach_flight(&mut signals, try_all);
    }
    signals
}

/// Attaches what only the flight recorder asks for. Without it explanations lack a cause or two, and say so.
fn attach_flight(signals: &mut Vec<Signal>, mut try_all: impl FnMut(&[Probe]) -> Result<(), String>) {
    let mut missing: Vec<String> =
        FLIGHT.iter().filter_map(|probe| try_all(std::slice::from_ref(probe)).err()).collect();
    // With throttled time it is attached already.
    if !signals.iter().any(|s| s.name == "throttled_wait" && s.state == SignalState::Active) {
        missing.extend(try_all(&MIGRATE).err());
    }
    signals.push(Signal {
        name: "flight".to_owned(),
        source: "per-CPU rings of switches, wake-ups, moves, interrupts and page faults".to_owned(),
        state: if missing.is_empty() { SignalState::Active } else { SignalState::Degraded },
        reason: (!missing.is_empty()).then(|| missing.join("; ")),
    });
}

fn attach(ebpf: &mut Ebpf, probe: &Probe, btf: &aya::Btf) -> Result<(), ProgramError> {
    let program = ebpf.program_mut(probe.program).ok_or(ProgramError::NotLoaded)?;
    match probe.at {
        At::Tracepoint => {
            let program: &mut BtfTracePoint = program.try_into()?;
            program.load(probe.program, btf)?;
            program.attach()?;
        }
        At::Entry => {
            let program: &mut FEntry = program.try_into()?;
            program.load(probe.program, btf)?;
            program.attach()?;
        }
        At::Exit => {
            let program: &mut FExit = program.try_into()?;
            program.load(probe.program, btf)?;
            program.attach()?;
        }
    }
    Ok(())
}

fn refused(program: &'static str, error: &ProgramError) -> KernelError {
    if denied(error) {
        return KernelError::NoPrivilege { what: format!("loading the program {program}") };
    }
    KernelError::Refused { program, reason: reason(error) }
}

/// The last line that says something: of the verifier's log if there is one, else the error with its cause.
fn reason(error: &ProgramError) -> String {
    if let ProgramError::LoadError { io_error, verifier_log } = error {
        tracing::debug!(%verifier_log, "the verifier's log");
        let log = verifier_log.to_string();
        let said = log
            .lines()
            .rev()
            .find(|l| !l.is_empty() && !l.starts_with("processed ") && !l.contains("verification time"));
        return said.map_or_else(|| io_error.to_string(), |l| format!("{io_error}: {l}"));
    }
    std::error::Error::source(error).map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, KernelError> {
    ebpf.take_map(name).ok_or_else(|| KernelError::bpf(format!("map {name}"), io::Error::other("not in the object")))
}

fn map_error<E: std::error::Error + Send + Sync + 'static>(name: &'static str) -> impl Fn(E) -> KernelError {
    move |e| KernelError::bpf(format!("map {name}"), e)
}

fn share<T: Pod + Zeroable>(ebpf: &Ebpf, name: &'static str, len: u32) -> Result<Shared<T>, KernelError> {
    let map: &MapData = match ebpf.map(name) {
        Some(Map::Array(data)) => data,
        _ => return Err(map_error(name)(io::Error::other("not an array in the object"))),
    };
    use std::os::fd::AsFd as _;
    Shared::new(map.fd().as_fd(), len).map_err(map_error(name))
}

fn possible_cpus() -> Result<u32, KernelError> {
    let cpus = aya::util::nr_cpus().map_err(|(path, source)| KernelError::bpf(format!("reading {path}"), source))?;
    Ok(u32::try_from(cpus).unwrap_or(u32::MAX))
}

// The layouts that the map definitions and the shared memory rely on.
const _: () = {
    assert!(size_of::<Config>().is_multiple_of(8));
    assert!(size_of::<Breach>().is_multiple_of(8));
    assert!(size_of::<TaskRec>().is_multiple_of(8));
};

//! Load and attach: from this kernel's type information to running programs, one signal after the other. A signal that
//! this kernel does not offer is reported with its reason; only wake-ups are indispensable.

use std::{collections::BTreeMap, io, mem::offset_of, time::Instant};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, Queue, RingBuf},
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
    collect::Before,
    flight::{self, Flight},
    offer::{Lack, Offer, System},
    offsets::CgroupSource,
    pretence::{self, Pretence},
    programs::{self, Programs},
    refusal::{Refusal, errno},
    selfcheck, signals,
    sources::{Refused, Sources, Throttle},
    sys::Shared,
};
use crate::snapshot::{SignalName, ThrottleSource, sees};

/// The kernel side, compiled; `cargo xtask ebpf` makes it from guard-ebpf.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../guard-ebpf/guard.bpf.o"));

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
    /// What to take for missing, or refused.
    pub pretence: Pretence,
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

impl Kernel {
    /// Loads and attaches the kernel side and checks that what it reads is true.
    ///
    /// # Errors
    /// See [`KernelError`]; nothing stays attached.
    pub fn load(options: &LoadOptions) -> Result<Self, KernelError> {
        let began = Instant::now();
        let system = System::read()?;
        tracing::info!("read what this kernel offers in {:?}", began.elapsed());
        Self::load_on(&system, options)
    }

    /// As [`Self::load`], on what was read before.
    ///
    /// # Errors
    /// See [`KernelError`]; nothing stays attached.
    pub fn load_on(system: &System, options: &LoadOptions) -> Result<Self, KernelError> {
        if !options.pretence.is_empty() {
            tracing::warn!(
                "{}={}: taken for missing, or refused, whether or not it is",
                pretence::VARIABLE,
                options.pretence
            );
        }
        let offer = Offer::new(system, &options.pretence);
        for probe in &programs::WAKEUP {
            offer.tracepoint(probe.program, Lack::Start).map_err(KernelError::Lacking)?;
        }
        let cpus = possible_cpus()?;
        let mut refused = Refused::default();
        loop {
            let sources = Sources::new(&offer, options, cpus, &refused)?;
            match Self::attach(system, options, &sources, &mut refused)? {
                Some(mut kernel) => {
                    kernel.asked = offer.asked();
                    return Ok(kernel);
                }
                None => tracing::info!(?refused, "loading again, without"),
            }
        }
    }

    /// Loads and attaches by these sources; none when the kernel refuses one that the configuration, which is frozen then,
    /// relies on. `refused` says which, and can say no more than two.
    fn attach(
        system: &System,
        options: &LoadOptions,
        sources: &Sources,
        refused: &mut Refused,
    ) -> Result<Option<Self>, KernelError> {
        let mut began = Instant::now();
        let mut step = |what: &str| {
            tracing::info!("{what} in {:?}", began.elapsed());
            began = Instant::now();
        };
        let sizes = Sizes::new(options, sources.config.task_mask + 1, sources.config.cpus);
        let ebpf = load_object(&system.aya_btf, &sources.config, &sizes)?;
        // The free slots have to be there when the first event comes, and guard's own before others take them all.
        let mut kernel = Self::assemble(ebpf, sources.config, options, &sizes)?;
        step("made the maps");
        let own = selfcheck::Own::watch(&mut kernel)?;
        let mut programs = Programs {
            ebpf: &mut kernel.ebpf,
            btf: &system.aya_btf,
            pretence: &options.pretence,
            attached: &mut kernel.attached,
        };
        if sources.throttle == Throttle::Fentry
            && let Err(refusal) = programs.attach(&programs::THROTTLE)
        {
            refused.throttle = Some(refusal.to_string());
            return Ok(None);
        }
        if sources.config.throttled_time == throttled_time::FENTRY
            && let Err(refusal) = programs.attach(&programs::HIERARCHY)
        {
            refused.hierarchy = Some(refusal.to_string());
            return Ok(None);
        }
        programs.attach(&programs::WAKEUP)?;
        kernel.signals = signals::attach(sources, options.flight, |probes| {
            programs.attach(probes).map_err(|refusal| refusal.to_string())
        });
        kernel.throttle_source = sources.throttle.counted_by(sees(&kernel.signals, SignalName::Timer));
        step("loaded and attached the programs");
        kernel.user_rest_ns = own.check(&mut kernel, options)?;
        for cpu in 0..kernel.cpus.len() {
            let rest = kernel.user_rest_ns.unwrap_or(0);
            kernel.cpus.write_field(cpu, offset_of!(CpuState, user_rest_ns), rest);
        }
        // What was counted until here is the self-check's.
        kernel.sample()?;
        step("checked what they read");
        Ok(Some(kernel))
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
            lost_records: 0,
            before: Before::new(sizes.cpus as usize, config.hists_per_cpu as usize),
            run_time_stats,
            user_rest_ns: None,
            epoch: 0,
            slots_wanted: false,
            generation: 0,
            ebpf,
            signals: Vec::new(),
            throttle_source: ThrottleSource::default(),
            attached: Vec::new(),
            asked: BTreeMap::new(),
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
            if errno(&e) == Some(libc::EPERM) {
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

/// What the verifier made of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Its name.
    pub program: &'static str,
    /// Instructions that were gone through, on all ways, and bytes that are left of the program; or why it was refused.
    pub outcome: Result<(u32, u32), String>,
}

impl System {
    /// Has the verifier look at the programs that [`Kernel::load`] would load and `chosen` picks, and attaches none.
    ///
    /// # Errors
    /// When something indispensable is missing, or the object cannot be loaded.
    pub fn verify(&self, options: &LoadOptions, chosen: impl Fn(&str) -> bool) -> Result<Vec<Verified>, KernelError> {
        let offer = Offer::new(self, &options.pretence);
        let sources = Sources::new(&offer, options, possible_cpus()?, &Refused::default())?;
        let mut probes = programs::WAKEUP.to_vec();
        if sources.throttle == Throttle::Fentry {
            probes.extend(programs::THROTTLE);
        }
        if sources.config.throttled_time == throttled_time::FENTRY {
            probes.extend(programs::HIERARCHY);
        }
        signals::attach(&sources, options.flight, |more| {
            probes.extend(more);
            Ok(())
        });
        let sizes = Sizes::new(options, sources.config.task_mask + 1, sources.config.cpus);
        let mut ebpf = load_object(&self.aya_btf, &sources.config, &sizes)?;
        let mut attached = Vec::new();
        let mut programs =
            Programs { ebpf: &mut ebpf, btf: &self.aya_btf, pretence: &options.pretence, attached: &mut attached };
        let mut verified: Vec<Verified> = Vec::new();
        for probe in probes {
            if chosen(probe.program) && verified.iter().all(|other| other.program != probe.program) {
                let outcome = programs.load(probe).map(|()| programs.size(probe));
                let outcome = outcome.map_err(|refusal| refusal.to_string());
                verified.push(Verified { program: probe.program, outcome });
            }
        }
        Ok(verified)
    }
}

impl From<Refusal> for KernelError {
    /// Of an indispensable program.
    fn from(refusal: Refusal) -> Self {
        if refusal.is_for_privilege() {
            return Self::NoPrivilege { what: format!("the program {refusal}") };
        }
        Self::Refused { program: refusal.program, reason: refusal.reason().to_owned() }
    }
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

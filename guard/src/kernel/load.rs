//! Loads and attaches: from this kernel's type information to running programs, one signal after the other. A signal that
//! this kernel does not offer is reported with its reason; only wake-ups are indispensable.

use std::{collections::BTreeMap, io, mem::offset_of};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, Queue, RingBuf},
};
use bytemuck::{Pod, Zeroable};
use guard_common::{
    config::Config,
    event::{Breach, Frames},
    flight::{Entry, Head},
    maps::{CgroupSlot, CpuState, Hist, TaskRec, ThreadState, ThrottleStamp, ThrottleState, hists_per_cpu},
};

use super::{
    before::Before,
    config,
    errno::errno,
    error::KernelError,
    flight::{self, Flight},
    handle::Kernel,
    offer::{Offer, System},
    options::LoadOptions,
    phases::Phases,
    pretence,
    programs::{Probe, Programs},
    selfcheck,
    signals::{self, Ask, Decided},
    sys::{Raw, Shared},
};
use crate::snapshot::ThrottleSource;

/// The kernel side, compiled; `cargo xtask ebpf` makes it from guard-ebpf.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../guard-ebpf/guard.bpf.o"));

/// Bytes of the smallest ring buffer, and of that of the programs' log where it is wanted.
const SMALLEST_RING: u32 = 1 << 12;
const LOG_BYTES: u32 = 1 << 17;
/// Bytes of the ring buffer of breaches.
const RING_BYTES: u64 = 1 << 18;

impl Kernel {
    /// Loads and attaches the kernel side and checks that what it reads is true.
    ///
    /// # Errors
    /// See [`KernelError`]; nothing stays attached.
    pub fn load(options: &LoadOptions) -> Result<Self, KernelError> {
        let mut phase = Phases::begin();
        let system = System::read()?;
        phase.end("read what this kernel offers");
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
        let mut ask = Ask::new(&offer);
        let btf = system.attach_points(signals::probes())?;
        loop {
            if let Some(mut kernel) = Self::attach(&btf, options, &offer, &mut ask)? {
                kernel.asked = offer.asked();
                return Ok(kernel);
            }
        }
    }

    /// Loads and attaches; `None` when the kernel refuses a program that the configuration, which is frozen then, relies on.
    /// `ask` knows of it afterwards, so that it can happen no more often than there are such programs.
    fn attach(
        btf: &aya::Btf,
        options: &LoadOptions,
        offer: &Offer<'_>,
        ask: &mut Ask<'_>,
    ) -> Result<Option<Self>, KernelError> {
        let mut phase = Phases::begin();
        let (mut decided, config) = decide(offer, ask, options)?;
        let sizes = Sizes::new(options, config.task_mask + 1, config.cpus);
        let ebpf = load_object(&config, &sizes)?;
        // The free slots have to be there when the first event comes, and guard's own before others take them all.
        let mut kernel = Self::assemble(ebpf, config, options, &sizes)?;
        phase.end("made the maps");
        let own = selfcheck::Own::watch(&mut kernel)?;
        let mut programs =
            Programs { ebpf: &mut kernel.ebpf, btf, pretence: &options.pretence, attached: &mut kernel.attached };
        for group in signals::frozen(&decided) {
            if let Err(refusal) = programs.attach(group) {
                ask.refuse(&refusal);
                return Ok(None);
            }
        }
        signals::attach(ask, &mut decided, |group| programs.attach(group))?;
        kernel.throttle_source = signals::throttle_source(&decided);
        kernel.signals = decided.into_iter().map(Decided::signal).collect();
        phase.end("loaded and attached the programs");
        kernel.user_rest_ns = own.check(&mut kernel, options)?;
        for cpu in 0..kernel.cpus.len() {
            let rest = kernel.user_rest_ns.unwrap_or(0);
            kernel.cpus.write_field(cpu, offset_of!(CpuState, user_rest_ns), rest);
        }
        // What was counted until here is the self-check's.
        kernel.sample()?;
        phase.end("checked what they read");
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
        let mut logger = logger.map_err(|e| KernelError::bpf("reading what the programs log", e))?;
        Ok(Self {
            flush_log: Box::new(move || logger.iter_mut().for_each(aya_log::EbpfLogger::flush)),
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

/// By what each signal is seen, and the configuration that follows.
fn decide(offer: &Offer<'_>, ask: &Ask<'_>, options: &LoadOptions) -> Result<(Vec<Decided>, Config), KernelError> {
    let decided = signals::decide(ask, options.flight)?;
    let mut config = config::config(offer, options, possible_cpus()?)?;
    signals::configure(&decided, &mut config);
    Ok((decided, config))
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

fn load_object(config: &Config, sizes: &Sizes) -> Result<Ebpf, KernelError> {
    let (raw, level) = (Raw(*config), log_level());
    EbpfLoader::new()
        // Offsets come by the configuration: nothing in the object is relocated by the kernel's types.
        .btf(None)
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

/// What the programs log: nothing unless guard itself is asked to be verbose (`-vv`). At 0 the verifier removes all of it.
/// Numbers as aya-log has them, 1 (error) to 5 (trace).
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
    /// Has the verifier check the programs that [`Kernel::load`] would load and `chosen` picks, and attaches none.
    ///
    /// # Errors
    /// When something indispensable is missing, or the object cannot be loaded.
    pub fn verify(&self, options: &LoadOptions, chosen: impl Fn(&str) -> bool) -> Result<Vec<Verified>, KernelError> {
        let offer = Offer::new(self, &options.pretence);
        let mut ask = Ask::new(&offer);
        let (mut decided, config) = decide(&offer, &ask, options)?;
        let mut probes: Vec<Probe> = signals::frozen(&decided).flatten().copied().collect();
        signals::attach(&mut ask, &mut decided, |more| {
            probes.extend(more);
            Ok(())
        })?;
        let sizes = Sizes::new(options, config.task_mask + 1, config.cpus);
        let mut ebpf = load_object(&config, &sizes)?;
        let btf = self.attach_points(signals::probes())?;
        let mut attached = Vec::new();
        let mut programs =
            Programs { ebpf: &mut ebpf, btf: &btf, pretence: &options.pretence, attached: &mut attached };
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

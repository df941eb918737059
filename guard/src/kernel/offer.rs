//! What the running kernel offers: members of structs, tracepoints, functions, addresses of callbacks. Whatever a kernel may
//! lack is asked for here and nowhere else: there is one list of it, and one place where tests take it away.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::{self, BufReader},
    sync::{Mutex, PoisonError},
};

use guard_common::config::NO_OFFSET;

use super::{
    btf::Btf,
    error::KernelError,
    pretence::{FENTRY, KALLSYMS, Pretence},
    programs::Probe,
    symbols,
};

const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";
const KALLSYMS_PATH: &str = "/proc/kallsyms";

/// Callbacks of timers whose addresses the programs compare with.
pub(super) const HRTIMER_WAKEUP: &str = "hrtimer_wakeup";
pub(super) const DL_TASK_TIMER: &str = "dl_task_timer";
pub(super) const CFS_PERIOD_TIMER: &str = "sched_cfs_period_timer";
/// The scheduler tick's. Before 6.9, another function without a timer had the second name.
/// <https://elixir.bootlin.com/linux/v6.1/source/kernel/time/tick-sched.c#L1354>
pub(super) const TICK: [&str; 2] = ["tick_sched_timer", "tick_nohz_handler"];

/// What was read of the running kernel, once.
pub struct System {
    btf: Btf,
    /// What was looked up before, and what came of it: several signals ask for the same, and each search goes through all
    /// types.
    found: Mutex<HashMap<(Sort, String), Option<u32>>>,
    /// Name and address of the callbacks; 0 for one that this kernel lacks, or hides.
    callbacks: [(&'static str, u64); 4],
    tick: &'static str,
    registers: &'static Registers,
}

/// What type information is searched for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Sort {
    Member,
    Enumerator,
    Tracepoint,
    Function,
}

/// Names of the members of pt_regs that hold a system call's number and its first two arguments.
pub(super) struct Registers {
    pub(super) number: &'static str,
    pub(super) first: &'static str,
    pub(super) second: &'static str,
    /// Bytes from the begin of that member to the second argument.
    pub(super) second_at: u32,
}

const X86_64: Registers =
    Registers { number: "pt_regs.orig_ax", first: "pt_regs.di", second: "pt_regs.si", second_at: 0 };
/// Its general registers are an array.
const AARCH64: Registers =
    Registers { number: "pt_regs.syscallno", first: "pt_regs.regs", second: "pt_regs.regs", second_at: 8 };

impl System {
    /// Reads the running kernel's type information and symbols.
    ///
    /// # Errors
    /// When there is no type information, or it cannot be understood.
    pub fn read() -> Result<Self, KernelError> {
        let bytes = fs::read(BTF_PATH).map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => KernelError::NoPrivilege { what: format!("reading {BTF_PATH}") },
            _ => KernelError::NoBtf { path: BTF_PATH, source },
        })?;
        let btf = Btf::parse(bytes).map_err(|source| KernelError::BadBtf { path: BTF_PATH, source })?;
        let tick = if btf.has_function(TICK[0]) { TICK[0] } else { TICK[1] };
        let names = [HRTIMER_WAKEUP, DL_TASK_TIMER, CFS_PERIOD_TIMER, tick];
        // Unreadable or hidden addresses read as none.
        let found = File::open(KALLSYMS_PATH).and_then(|file| symbols::find(BufReader::new(file), names));
        let addresses = found.unwrap_or_else(|error| {
            tracing::debug!(%error, "{KALLSYMS_PATH} cannot be read");
            [0; 4]
        });
        let registers = if btf.offset_of("pt_regs", "orig_ax").is_some() { &X86_64 } else { &AARCH64 };
        let callbacks = std::array::from_fn(|at| (names[at], addresses[at]));
        Ok(Self { btf, found: Mutex::default(), callbacks, tick, registers })
    }

    /// The types that `probes` attach to, for the loader.
    pub(super) fn attach_points<'a>(&self, probes: impl Iterator<Item = &'a Probe>) -> Result<aya::Btf, KernelError> {
        let (functions, tracepoints): (Vec<&Probe>, Vec<&Probe>) = probes.partition(|probe| probe.is_trampoline());
        let names = |probes: &[&Probe]| probes.iter().map(|probe| probe.program).collect::<Vec<_>>();
        let bytes = self.btf.attach_points(&names(&tracepoints), &names(&functions));
        aya::Btf::parse(&bytes, aya::Endianness::default()).map_err(|e| KernelError::bpf("what programs attach to", e))
    }

    /// Offset or value of what has this name, 0 for what has neither; `None` when the kernel lacks it.
    fn find(&self, sort: Sort, name: &str) -> Option<u32> {
        let parts = || name.split_once('.');
        let search = || match sort {
            Sort::Member => parts().and_then(|(structure, member)| self.btf.offset_of(structure, member)),
            Sort::Enumerator => parts().and_then(|(_, name)| self.btf.enumerator(name)?.try_into().ok()),
            Sort::Tracepoint => self.btf.has_tracepoint(name).then_some(0),
            Sort::Function => self.btf.has_function(name).then_some(0),
        };
        // Whoever panics leaves whole answers behind.
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        *found.entry((sort, name.to_owned())).or_insert_with(search)
    }
}

/// What follows when something is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lack {
    /// Nothing: there is nothing to see then, or it is seen by other means.
    Nothing,
    /// A signal is weaker, unavailable or seen by another source.
    Signal,
    /// Nothing can be measured.
    Start,
}

/// Something that guard asked the kernel for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Whether it is there.
    pub there: bool,
    /// What follows when it is not.
    pub lack: Lack,
}

/// What the kernel offers, less what is pretended to be missing.
pub(super) struct Offer<'a> {
    system: &'a System,
    pretence: &'a Pretence,
    asked: RefCell<BTreeMap<String, Asked>>,
}

impl<'a> Offer<'a> {
    pub(super) fn new(system: &'a System, pretence: &'a Pretence) -> Self {
        Self { system, pretence, asked: RefCell::default() }
    }

    /// All that was asked for, by name.
    pub(super) fn asked(&self) -> BTreeMap<String, Asked> {
        self.asked.borrow().clone()
    }

    /// Notes a question and its answer.
    fn note(&self, name: &str, there: bool, lack: Lack) {
        let mut all = self.asked.borrow_mut();
        let asked = all.entry(name.to_owned()).or_insert(Asked { there, lack });
        asked.there = there;
        asked.lack = asked.lack.max(lack);
    }

    /// Notes the answer and says what is missing.
    fn answer(&self, name: &str, there: bool, lack: Lack, missing: impl FnOnce() -> String) -> Result<(), String> {
        self.note(name, there, lack);
        if there {
            return Ok(());
        }
        Err(if self.is_pretended(name) { format!("{} (pretended)", missing()) } else { missing() })
    }

    fn is_pretended(&self, name: &str) -> bool {
        let symbol = self.system.callbacks.iter().any(|(callback, _)| *callback == name);
        self.pretence.misses(name) || symbol && self.pretence.misses(KALLSYMS)
    }

    fn find(&self, sort: Sort, name: &str) -> Option<u32> {
        if self.pretence.misses(name) { None } else { self.system.find(sort, name) }
    }

    /// Offset of a member ("task_struct.pid"); [`NO_OFFSET`] when the kernel lacks it.
    pub(super) fn offset(&self, name: &str) -> u32 {
        let offset = self.find(Sort::Member, name);
        self.note(name, offset.is_some(), Lack::Nothing);
        offset.unwrap_or(NO_OFFSET)
    }

    /// Offset of a member without which nothing can be measured.
    pub(super) fn indispensable(&self, name: &str) -> Result<u32, KernelError> {
        let offset = self.find(Sort::Member, name);
        self.answer(name, offset.is_some(), Lack::Start, || no_member(name)).map_err(KernelError::Lacking)?;
        Ok(offset.unwrap_or(NO_OFFSET))
    }

    /// Value of an enumerator ("cgroup_subsys_id.cpu_cgrp_id") without which nothing can be measured.
    pub(super) fn enumerator(&self, name: &str) -> Result<u32, KernelError> {
        let value = self.find(Sort::Enumerator, name);
        self.answer(name, value.is_some(), Lack::Start, || no_member(name)).map_err(KernelError::Lacking)?;
        Ok(value.unwrap_or_default())
    }

    /// Whether all members are there that a signal needs.
    pub(super) fn members(&self, names: &[&str]) -> Result<(), String> {
        let is_there = |name| self.find(Sort::Member, name).is_some();
        names.iter().try_for_each(|name| self.answer(name, is_there(name), Lack::Signal, || no_member(name)))
    }

    /// Whether there is a tracepoint that BPF can attach to.
    pub(super) fn tracepoint(&self, name: &str, lack: Lack) -> Result<(), String> {
        let there = self.find(Sort::Tracepoint, name).is_some();
        self.answer(name, there, lack, || format!("this kernel has no tracepoint {name}"))
    }

    /// Whether there is a function that trampolines could be attached to.
    pub(super) fn function(&self, name: &str) -> Result<(), String> {
        let there = self.find(Sort::Function, name).is_some();
        self.answer(name, there, Lack::Signal, || format!("this kernel has no function {name}"))
    }

    /// Whether trampolines (fentry, fexit) may be tried. What a try showed counts more: `refused`.
    pub(super) fn trampolines(&self, refused: Option<&str>) -> Result<(), String> {
        let there = refused.is_none() && !self.pretence.misses(FENTRY);
        self.answer(FENTRY, there, Lack::Signal, || refused.unwrap_or("this kernel has no fentry").to_owned())
    }

    /// Address of a timer's callback; 0 when it is not known.
    pub(super) fn address(&self, name: &str) -> u64 {
        let address = self.address_of(name);
        self.note(name, address != 0, Lack::Nothing);
        address
    }

    fn address_of(&self, name: &str) -> u64 {
        let known = self.system.callbacks.iter().find(|(callback, _)| *callback == name);
        known.filter(|_| !self.is_pretended(name)).map_or(0, |(_, address)| *address)
    }

    /// Whether the address of a timer's callback is known.
    pub(super) fn callback(&self, name: &str) -> Result<(), String> {
        let there = self.address_of(name) != 0;
        // A kernel that shows any has the hrtimer's.
        let hidden = self.system.callbacks.iter().all(|(_, address)| *address == 0);
        let missing = if hidden { "hidden in" } else { "not in" };
        let why = if hidden { ", which shows addresses to CAP_SYSLOG" } else { "" };
        self.answer(name, there, Lack::Signal, || format!("{name} is {missing} {KALLSYMS_PATH}{why}"))
    }

    /// The name of the tick's callback on this kernel.
    pub(super) fn tick(&self) -> &'static str {
        self.system.tick
    }

    /// What a system call's number and arguments are called in pt_regs.
    pub(super) fn registers(&self) -> &'static Registers {
        self.system.registers
    }
}

fn no_member(name: &str) -> String {
    format!("this kernel's type information has no {name}")
}

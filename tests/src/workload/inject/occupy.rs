//! A program in the kernel that keeps the victim's CPU busy until a set instant, and the places from which it does so:
//! called by a thread it runs with preemption off, sent to another CPU in an interrupt, attached to a backtrace in a
//! non-maskable interrupt, attached to the end of idleness in the idle task. How long is told by the clock, so that it is
//! as long on a slow machine as on a fast one.

use std::{
    fs,
    os::fd::OwnedFd,
    sync::atomic::Ordering::{Relaxed, Release},
};

use anyhow::{Context as _, Result, ensure};

use crate::sys::bpf::{
    self, EXIT, KTIME_GET_NS, Kind, Map, R0, R1, R2, R3, SharedMap, call, copy, instruction, offset, set, value_of,
};

/// Bytes that are copied onto themselves between two looks at the clock: some 10 us, up to a millisecond where it is emulated.
const COPIED: u32 = 256 * 1024;
/// Most copies, for the kernel wants to see an end: 60 ms at the very least, while a shot is 16 ms on a fast machine.
const MOST_COPIES: i32 = 4_000;
/// Event source of probes in functions of the kernel, where there is one.
const KPROBE: &str = "/sys/bus/event_source/devices/kprobe/type";
/// Takes orders; "l" sends every CPU a non-maskable interrupt, in which it prints where it is.
const SYSRQ: &str = "/proc/sysrq-trigger";

/// Words of its orders: until when, on which CPU; and its answer, since when, 0 before.
const UNTIL_NS: usize = 0;
const CPU: usize = 1;
const BEGAN_NS: usize = 2;

/// The program, loaded.
pub(super) struct Occupier {
    cpu: usize,
    orders: SharedMap,
    program: OwnedFd,
    /// What it is attached to.
    _place: Option<OwnedFd>,
}

impl Occupier {
    /// One that is called.
    pub(super) fn called(cpu: usize) -> Result<Self> {
        Self::load(cpu, Kind::RawTracepoint, &[])
    }

    /// One that runs whenever `cpu` is about to end its idleness.
    pub(super) fn after_idleness(cpu: usize) -> Result<Self> {
        let mut this = Self::load(cpu, Kind::RawTracepoint, &ENDS_IDLENESS)?;
        this._place = Some(bpf::on_tracepoint(c"cpu_idle", &this.program).context("attach to cpu_idle")?);
        Ok(this)
    }

    /// One that runs when `cpu` prints its registers, which [`ask_for_backtraces`] makes it do in a non-maskable interrupt.
    pub(super) fn in_backtrace(cpu: usize) -> Result<Self> {
        let mut this = Self::load(cpu, Kind::Kprobe, &[])?;
        let source = fs::read_to_string(KPROBE).with_context(|| format!("read {KPROBE}"))?;
        let source = source.trim().parse().with_context(|| format!("{KPROBE} says \"{source}\""))?;
        this._place = Some(bpf::on_function(source, c"show_regs", &this.program).context("attach to show_regs")?);
        Ok(this)
    }

    fn load(cpu: usize, kind: Kind, first: &[u64]) -> Result<Self> {
        let orders = SharedMap::new().context("bpf(BPF_MAP_CREATE)")?;
        orders.word(CPU).store(cpu as u64, Relaxed);
        let memory = Map::new(COPIED).context("bpf(BPF_MAP_CREATE)")?;
        let program = bpf::load(kind, &program(first, &orders, &memory)).context("bpf(BPF_PROG_LOAD)")?;
        Ok(Self { cpu, orders, program, _place: None })
    }

    /// Whenever it runs from now on, it does so until then.
    pub(super) fn order(&self, until_ns: u64) {
        self.orders.word(BEGAN_NS).store(0, Relaxed);
        self.orders.word(UNTIL_NS).store(until_ns, Release);
    }

    /// Since when it does, or did, what was ordered; none when nobody had it run.
    pub(super) fn began_ns(&self) -> Option<u64> {
        Some(self.orders.word(BEGAN_NS).load(Relaxed)).filter(|ns| *ns > 0)
    }

    /// Runs here, which must be its CPU, until then, without being preempted: the kernel calls programs so,
    /// <https://elixir.bootlin.com/linux/v6.12/source/net/bpf/test_run.c#L733>
    pub(super) fn occupy(&self, until_ns: u64) -> Result<()> {
        self.call(until_ns, None)
    }

    /// Interrupts its CPU, which must not be this one, until then.
    pub(super) fn interrupt(&self, until_ns: u64) -> Result<()> {
        self.call(until_ns, Some(self.cpu as u32))
    }

    fn call(&self, until_ns: u64, on_cpu: Option<u32>) -> Result<()> {
        self.order(until_ns);
        let early = bpf::run(&self.program, on_cpu).context("bpf(BPF_PROG_TEST_RUN)")?;
        ensure!(early == 0, "{MOST_COPIES} copies of {COPIED} bytes were over too soon");
        Ok(())
    }
}

/// Whether this kernel can raise non-maskable interrupts on demand, and have a program in them.
pub fn may_raise_nmi() -> bool {
    [KPROBE, SYSRQ].iter().all(|path| fs::exists(path).unwrap_or(false))
}

/// Sends every other CPU a non-maskable interrupt; returns when all have printed where they were, into the kernel's log.
pub(super) fn ask_for_backtraces() -> Result<()> {
    fs::write(SYSRQ, "l").with_context(|| format!("write to {SYSRQ}"))
}

/// Registers that outlive calls.
const UNTIL: u64 = 7;
const ORDERS: u64 = 6;
const MEMORY: u64 = 8;
const COPIES: u64 = 9;

/// Functions of the kernel, by their numbers.
const GET_SMP_PROCESSOR_ID: i32 = 8;
const PROBE_READ_KERNEL: i32 = 113;

/// `cpu_idle(unsigned int state, unsigned int cpu)`: only where the state is -1, no longer idle.
const ENDS_IDLENESS: [u64; 4] = [
    // r2 = (u32) state; if it is -1, go on.
    instruction(0x61, R2, R1, 0, 0),
    instruction(0x16, R2, 0, 2, -1),
    set(R0, 0),
    EXIT,
];

/// After `first`, which may look at the context: returns 0 at the set instant, or at once on another CPU or when that
/// instant is over, and 1 when all copies are made before.
fn program(first: &[u64], orders: &SharedMap, memory: &Map) -> Vec<u64> {
    let mut all = first.to_vec();
    all.extend(value_of(ORDERS, orders.map()));
    all.extend([
        // r1 = (u32) the CPU; if it is this one, go on.
        call(GET_SMP_PROCESSOR_ID),
        instruction(0x61, R1, ORDERS, offset(CPU), 0),
        instruction(0x1d, R0, R1, 2, 0),
        set(R0, 0),
        EXIT,
        instruction(0x79, UNTIL, ORDERS, offset(UNTIL_NS), 0),
        // Unless it is later than that, or there was a begin before, it begins now.
        call(KTIME_GET_NS),
        instruction(0x3d, R0, UNTIL, 3, 0),
        instruction(0x79, R1, ORDERS, offset(BEGAN_NS), 0),
        instruction(0x55, R1, 0, 1, 0),
        instruction(0x7b, ORDERS, R0, offset(BEGAN_NS), 0),
    ]);
    all.extend(value_of(MEMORY, memory));
    all.extend([
        set(COPIES, 0),
        // If it is earlier than that, go on. The end stands first: of two ways the kernel's checker remembers the one that it
        // takes later, and it does not remember as many as there are copies.
        call(KTIME_GET_NS),
        instruction(0xad, R0, UNTIL, 2, 0),
        set(R0, 0),
        EXIT,
        // Copies the memory onto itself.
        copy(R1, MEMORY),
        set(R2, COPIED.cast_signed()),
        copy(R3, MEMORY),
        call(PROBE_READ_KERNEL),
        // If that were fewer copies than the most, back to the clock.
        instruction(0x07, COPIES, 0, 0, 1),
        instruction(0xa5, COPIES, 0, -10, MOST_COPIES),
        set(R0, 1),
        EXIT,
    ]);
    all
}

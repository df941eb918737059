//! Reads of kernel structs. Offsets come from the running kernel's BTF through the configuration.
//!
//! Arguments of tp_btf and fentry programs are typed pointers to the verifier: plain loads from them, and from
//! pointers loaded from them, are checked against BTF at load and cannot fault. Everything else is read by
//! bpf_probe_read_kernel, which can fail.
//!
//! A member that some kernel lacks has [`NO_OFFSET`] there, at which the verifier refuses a load and with it the whole
//! program. So `load!` is for members without which the program is not loaded at all; all others are read by `optional!`
//! and [`probe_at`], whose comparison with a constant the verifier decides and removes.

use core::{
    ffi::c_void,
    ptr::{self, read_volatile},
};

use aya_ebpf::helpers::{bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_probe_read_user, generated};
use guard_common::{config::NO_OFFSET, maps::NO_SYSCALL};

use crate::{config::config, state::Cpu};

/// Effective kernel priorities below this are real-time, -1 being SCHED_DEADLINE.
/// <https://elixir.bootlin.com/linux/v6.12/source/include/linux/sched/prio.h>
pub(crate) const MAX_RT_PRIO: i32 = 100;
const SCHED_FIFO: u32 = 1;
const SCHED_RR: u32 = 2;
pub(crate) const SCHED_DEADLINE: u32 = 6;
/// State of a task that waits for a spinlock (PREEMPT_RT): <https://elixir.bootlin.com/linux/v6.12/source/include/linux/sched.h#L102>
pub(crate) const TASK_RTLOCK_WAIT: u32 = 0x1000;
/// <https://elixir.bootlin.com/linux/v6.12/source/include/linux/sched.h#L1660>
const PF_KTHREAD: u32 = 0x0020_0000;
/// Bits of the operation in futex's second argument: <https://elixir.bootlin.com/linux/v6.12/source/include/uapi/linux/futex.h>
const FUTEX_CMD_MASK: u32 = 0x7f;
const FUTEX_WAIT: u32 = 0;
const FUTEX_LOCK_PI: u32 = 6;
const FUTEX_WAIT_BITSET: u32 = 9;
const FUTEX_WAIT_REQUEUE_PI: u32 = 11;
const FUTEX_LOCK_PI2: u32 = 13;
/// The tid in the word of a robust futex, from the same file.
const FUTEX_TID_MASK: u32 = 0x3fff_ffff;

macro_rules! load {
    ($base:expr, $type:ty, $($offset:tt)+) => {
        // SAFETY: the verifier checks this load against the struct's BTF.
        unsafe { read_volatile($base.byte_add(config!(offsets.$($offset)+) as usize).cast::<$type>()) }
    };
}

/// A load; `$absent` where the kernel lacks the member.
macro_rules! optional {
    ($base:expr, $type:ty, $offset:ident, $absent:expr) => {{
        let offset = config!(offsets.$offset);
        if offset == NO_OFFSET {
            $absent
        } else {
            // SAFETY: the verifier checks this load against the struct's BTF.
            unsafe { read_volatile($base.byte_add(offset as usize).cast::<$type>()) }
        }
    }};
}

/// Reads kernel memory at an address that the verifier does not know; counts a failure.
#[inline(always)]
pub(crate) fn probe<T: Copy>(address: u64) -> Option<T> {
    // SAFETY: bpf_probe_read_kernel checks the address and reports a fault.
    let value = unsafe { bpf_probe_read_kernel(address as *const T) };
    if value.is_err() {
        failed_read();
    }
    value.ok()
}

/// Reads the member at `offset` of the struct at `address`; nothing where the kernel lacks the member.
#[inline(always)]
pub(crate) fn probe_at<T: Copy>(address: u64, offset: u32) -> Option<T> {
    if offset == NO_OFFSET { None } else { probe(address + u64::from(offset)) }
}

/// Address of the struct whose member at `offset` is at `address`.
#[inline(always)]
fn container_of(address: u64, offset: u32) -> Option<u64> {
    if offset == NO_OFFSET { None } else { Some(address - u64::from(offset)) }
}

#[inline(always)]
fn failed_read() {
    if let Some(cpu) = Cpu::this() {
        cpu.state.failed_reads += 1;
    }
}

/// A task_struct.
#[derive(Clone, Copy)]
pub(crate) struct Task(*const u8);

impl Task {
    #[inline(always)]
    pub(crate) fn from_arg(pointer: *const u8) -> Self {
        Self(pointer)
    }

    /// The task this program runs in: for an interrupt, the one it interrupted.
    #[inline(always)]
    pub(crate) fn current() -> Self {
        // SAFETY: a helper without arguments; the result is a typed pointer.
        Self(unsafe { bpf_get_current_task_btf() }.cast_const().cast())
    }

    #[inline(always)]
    pub(crate) fn address(self) -> u64 {
        self.0 as u64
    }

    /// tid in the initial pid namespace; 0 for every CPU's idle task.
    #[inline(always)]
    pub(crate) fn tid(self) -> u32 {
        load!(self.0, u32, task_pid)
    }

    #[inline(always)]
    pub(crate) fn tgid(self) -> u32 {
        load!(self.0, u32, task_tgid)
    }

    #[inline(always)]
    pub(crate) fn state(self) -> u32 {
        load!(self.0, u32, task_state)
    }

    /// Effective kernel priority, boosts included.
    #[inline(always)]
    pub(crate) fn prio(self) -> i32 {
        load!(self.0, i32, task_prio)
    }

    #[inline(always)]
    pub(crate) fn policy(self) -> u32 {
        load!(self.0, u32, task_policy)
    }

    #[inline(always)]
    pub(crate) fn has_rt_policy(self) -> bool {
        matches!(self.policy(), SCHED_FIFO | SCHED_RR | SCHED_DEADLINE)
    }

    /// Whether it counts as a real-time thread: guard's own are real-time to react in time, not to be measured.
    #[inline(always)]
    pub(crate) fn counts_as_rt(self) -> bool {
        self.has_rt_policy() && (config!(own_tgid) == 0 || self.tgid() != config!(own_tgid))
    }

    #[inline(always)]
    pub(crate) fn is_kernel_thread(self) -> bool {
        load!(self.0, u32, task_flags) & PF_KTHREAD != 0
    }

    #[inline(always)]
    pub(crate) fn rt_priority(self) -> u32 {
        load!(self.0, u32, task_rt_priority)
    }

    /// Copies the task's name to where it is wanted; the stack is too small for copies.
    #[inline(always)]
    pub(crate) fn comm_into(self, to: *mut [u8; 16]) {
        let from = self.address() + u64::from(config!(offsets.task_comm));
        // SAFETY: `to` is valid for 16 bytes, which the verifier checks; the helper checks the source.
        if unsafe { generated::bpf_probe_read_kernel(to.cast(), 16, from as *const c_void) } != 0 {
            failed_read();
        }
    }

    #[inline(always)]
    pub(crate) fn css_set(self) -> CssSet {
        CssSet(load!(self.0, *const u8, task_cgroups))
    }

    #[inline(always)]
    pub(crate) fn cfs_rq(self) -> CfsRq {
        CfsRq(optional!(self.0, *const u8, task_cfs_rq, ptr::null()))
    }

    /// Address of the rt_mutex_waiter of the lock that the task is blocked on; 0 for none.
    #[inline(always)]
    pub(crate) fn pi_blocked_on(self) -> u64 {
        optional!(self.0, u64, task_pi_blocked_on, 0)
    }

    /// Whether a SCHED_DEADLINE server (6.8 and later) is running this fair task.
    #[inline(always)]
    pub(crate) fn on_dl_server(self) -> bool {
        optional!(self.0, u64, task_dl_server, 0) != 0
    }

    /// The task's registers at its entry into the kernel, where the kernel says what they mean.
    #[inline(always)]
    fn registers(self) -> Option<*const u8> {
        if config!(offsets.regs_syscall) == NO_OFFSET {
            return None;
        }
        // SAFETY: a typed pointer to a task; the result is a typed pointer to its registers.
        let regs = unsafe { generated::bpf_task_pt_regs(self.0.cast_mut().cast()) } as *const u8;
        if regs.is_null() { None } else { Some(regs) }
    }

    /// Number of the system call that the task is in; NO_SYSCALL where the kernel does not say.
    #[inline(always)]
    pub(crate) fn system_call(self) -> u32 {
        let Some(regs) = self.registers() else { return NO_SYSCALL };
        load!(regs, u32, regs_syscall)
    }

    /// Whether the task is in a futex operation that waits for a futex with priority inheritance.
    #[inline(always)]
    pub(crate) fn is_in_pi_futex(self) -> bool {
        let Some(regs) = self.registers() else { return false };
        if load!(regs, u32, regs_syscall) != config!(futex) {
            return false;
        }
        let operation = optional!(regs, u32, regs_argument, u32::MAX) & FUTEX_CMD_MASK;
        matches!(operation, FUTEX_LOCK_PI | FUTEX_WAIT_REQUEUE_PI | FUTEX_LOCK_PI2)
    }

    /// The owner that the word of the futex names for which this task, the current one, goes to sleep; 0 when it names none.
    /// Robust mutexes keep the owner's tid in the word. Glibc's others keep 2 in it while somebody waits, and the owner
    /// two words behind. <https://sourceware.org/git/?p=glibc.git;a=blob;f=sysdeps/nptl/bits/struct_mutex.h>
    #[inline(always)]
    pub(crate) fn futex_owner(self) -> u32 {
        let Some(regs) = self.registers() else { return 0 };
        let operation = optional!(regs, u32, regs_argument, u32::MAX) & FUTEX_CMD_MASK;
        if operation != FUTEX_WAIT && operation != FUTEX_WAIT_BITSET {
            return 0;
        }
        let address = optional!(regs, u64, regs_address, 0);
        // SAFETY: the helper checks the address; it is the task's own memory, for it has not left its CPU yet.
        match unsafe { bpf_probe_read_user(address as *const [u32; 3]) } {
            Ok([2, _, owner]) => owner & FUTEX_TID_MASK,
            Ok([word, ..]) => word & FUTEX_TID_MASK,
            Err(_) => 0,
        }
    }

    /// Address of the task's rt_rq where the kernel rations RT time per cgroup, else 0.
    #[inline(always)]
    pub(crate) fn rt_rq(self) -> u64 {
        optional!(self.0, u64, task_rt_rq, 0)
    }

    /// Whether RT throttling holds back the RT tasks of its CPU, or of its group there.
    #[inline(always)]
    pub(crate) fn is_rt_throttled(self) -> bool {
        let group = self.rt_rq();
        let of_group = group != 0 && probe_at::<u32>(group, config!(offsets.rt_rq_throttled)).is_some_and(|n| n != 0);
        of_group || self.cfs_rq().is_rt_throttled()
    }

    /// Address of the task's task_group; 0 where the kernel does not say.
    #[inline(always)]
    pub(crate) fn task_group(self) -> u64 {
        optional!(self.0, u64, task_sched_task_group, 0)
    }
}

/// A css_set.
#[derive(Clone, Copy)]
pub(crate) struct CssSet(*const u8);

impl CssSet {
    #[inline(always)]
    pub(crate) fn address(self) -> u64 {
        self.0 as u64
    }

    /// Id of the cgroup in the hierarchy that holds the cpu controller.
    #[inline(always)]
    pub(crate) fn cgroup_id(self) -> u64 {
        let first = load!(self.0, *const u8, css_set_cgroup);
        if first.is_null() {
            return 0;
        }
        let cgroup = if config!(css_set_is_subsys) != 0 { load!(first, *const u8, css_cgroup) } else { first };
        if cgroup.is_null() {
            return 0;
        }
        let kn = load!(cgroup, *const u8, cgroup_kn);
        if kn.is_null() {
            return 0;
        }
        load!(kn, u64, kernfs_node_id)
    }
}

/// Id of the cgroup of the task_group at `address`.
#[inline(always)]
pub(crate) fn cgroup_id_of_group(address: u64) -> Option<u64> {
    let cgroup: u64 = probe_at(address, config!(offsets.tg_cgroup))?;
    let kn: u64 = probe_at(cgroup, config!(offsets.cgroup_kn))?;
    probe_at(kn, config!(offsets.kernfs_node_id))
}

/// Address of the task_group whose quota's period timer is at `timer`, and that of its bandwidth.
#[inline(always)]
pub(crate) fn group_of_period_timer(timer: u64) -> Option<(u64, u64)> {
    let bandwidth = container_of(timer, config!(offsets.cfs_b_period_timer))?;
    Some((container_of(bandwidth, config!(offsets.tg_cfs_bandwidth))?, bandwidth))
}

/// Address of the task_struct whose replenishment timer is at `timer`. The run queue's own servers have no task around
/// theirs.
#[inline(always)]
pub(crate) fn task_of_deadline_timer(timer: u64) -> Option<u64> {
    container_of(container_of(timer, config!(offsets.dl_entity_timer))?, config!(offsets.task_dl))
}

/// RT tasks runnable on the rt_rq at `address`, whether or not it may run them now.
#[inline(always)]
pub(crate) fn rt_nr_running_of(address: u64) -> u32 {
    probe_at(address, config!(offsets.rt_rq_nr_running)).unwrap_or(0)
}

/// Address of the cfs_rq of the task_group at `address` on `cpu`.
#[inline(always)]
pub(crate) fn cfs_rq_of_group(address: u64, cpu: u32) -> Option<u64> {
    let array: u64 = probe_at(address, config!(offsets.tg_cfs_rq))?;
    probe(array + u64::from(cpu) * 8)
}

/// A cfs_rq: the fair run queue of one cgroup on one CPU.
#[derive(Clone, Copy)]
pub(crate) struct CfsRq(*const u8);

impl CfsRq {
    #[inline(always)]
    pub(crate) fn from_arg(pointer: *const u8) -> Self {
        Self(pointer)
    }

    #[inline(always)]
    pub(crate) fn address(self) -> u64 {
        self.0 as u64
    }

    #[inline(always)]
    pub(crate) fn task_group(self) -> u64 {
        load!(self.0, u64, cfs_rq_tg)
    }

    /// How many throttles, its own and its ancestors', weigh on it.
    #[inline(always)]
    pub(crate) fn throttle_count(self) -> u32 {
        if self.0.is_null() { 0 } else { optional!(self.0, u32, cfs_rq_throttle_count, 0) }
    }

    /// RT tasks runnable on its run queue.
    #[inline(always)]
    pub(crate) fn rt_nr_running(self) -> u32 {
        if self.0.is_null() {
            return 0;
        }
        let rq = optional!(self.0, *const u8, cfs_rq_rq, ptr::null());
        if rq.is_null() { 0 } else { optional!(rq, u32, rq_rt_nr_running, 0) }
    }
}

impl CfsRq {
    /// Whether RT throttling holds back the RT tasks of its run queue.
    #[inline(always)]
    fn is_rt_throttled(self) -> bool {
        if self.0.is_null() {
            return false;
        }
        let rq = optional!(self.0, *const u8, cfs_rq_rq, ptr::null());
        !rq.is_null() && optional!(rq, u32, rq_rt_throttled, 0) != 0
    }
}

/// An hrtimer.
#[derive(Clone, Copy)]
pub(crate) struct Timer(*const u8);

impl Timer {
    #[inline(always)]
    pub(crate) fn from_arg(pointer: *const u8) -> Self {
        Self(pointer)
    }

    #[inline(always)]
    pub(crate) fn address(self) -> u64 {
        self.0 as u64
    }

    #[inline(always)]
    pub(crate) fn function(self) -> u64 {
        load!(self.0, u64, timer_function)
    }

    /// The requested expiry on CLOCK_MONOTONIC, ns: `_softexpires`, without the slack that `node.expires` has.
    #[inline(always)]
    pub(crate) fn expiry_ns(self) -> u64 {
        let softexpires = load!(self.0, u64, timer_softexpires);
        let base = load!(self.0, *const u8, timer_base);
        if base.is_null() {
            return softexpires;
        }
        softexpires.wrapping_sub(load!(base, u64, timer_base_offset))
    }

    #[inline(always)]
    pub(crate) fn is_soft(self) -> bool {
        load!(self.0, u8, timer_is_soft) != 0
    }
}

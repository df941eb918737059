//! guard's kernel side: the table of attach points. Each signal lives in a file of its own.
//!
//! Built for the BPF target by `cargo xtask ebpf`; on any other target this crate is an empty program, so that the
//! workspace builds as a whole.
//!
//! Rules of this crate: every event O(1); no allocation, no LRU map, no ring buffer on the good path; every read of
//! kernel memory goes through `task.rs`, with offsets that user space took from the running kernel's BTF. Files import one
//! way: `config` ← `state` ← `task` ← `cgroups` ← the signals.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
mod breach;
#[cfg(target_arch = "bpf")]
mod cgroups;
#[cfg(target_arch = "bpf")]
mod config;
#[cfg(target_arch = "bpf")]
mod flight;
#[cfg(target_arch = "bpf")]
mod irq;
#[cfg(target_arch = "bpf")]
mod lock;
#[cfg(target_arch = "bpf")]
mod occupancy;
#[cfg(target_arch = "bpf")]
mod rt_throttle;
#[cfg(target_arch = "bpf")]
mod stack;
#[cfg(target_arch = "bpf")]
mod state;
#[cfg(target_arch = "bpf")]
mod task;
#[cfg(target_arch = "bpf")]
mod threads;
#[cfg(target_arch = "bpf")]
mod throttle;
#[cfg(target_arch = "bpf")]
mod timer;
#[cfg(target_arch = "bpf")]
mod wakeup;

#[cfg(target_arch = "bpf")]
mod attach {
    use aya_ebpf::{
        macros::{btf_tracepoint, fentry, fexit},
        programs::{BtfTracePointContext, FEntryContext, FExitContext},
    };

    use guard_common::flight::{VECTOR, vector};

    use crate::{
        flight, irq, lock, occupancy, rt_throttle,
        state::{self, Cpu},
        task::{CfsRq, Task, Timer},
        threads, throttle, timer, wakeup,
    };

    /// `sched_switch(bool preempt, task_struct *prev, task_struct *next, unsigned int prev_state)`.
    #[btf_tracepoint(function = "sched_switch")]
    fn sched_switch(ctx: BtfTracePointContext) -> i32 {
        let Some(mut cpu) = Cpu::this() else { return 0 };
        let preempt = ctx.arg::<u64>(0) as u8 != 0;
        let prev = Task::from_arg(ctx.arg(1));
        let next = Task::from_arg(ctx.arg(2));
        let now = state::now();
        // A task that was preempted, or found a signal pending, stays runnable whatever it wanted to wait for.
        let prev_state = prev.state();
        let prev_runnable = preempt || prev_state == 0;
        // No hard interrupt is under way here: a mark of one missed its end.
        cpu.state.hard_active = 0;
        cpu.state.hard_expiry_ns = 0;
        cpu.state.hardirq_depth = 0;
        occupancy::left(&mut cpu, prev, now);
        wakeup::switched_out(&mut cpu, prev, prev_state, preempt, now);
        irq::switched(&mut cpu, prev, next, now);
        rt_throttle::switched(&mut cpu, prev, prev_runnable, next, now);
        occupancy::came(&mut cpu, next);
        wakeup::switched_in(&ctx, &mut cpu, prev, next, now);
        flight::switched(&cpu, prev, next, prev_state, preempt, now);
        0
    }

    /// `sched_waking(task_struct *p)`: on the waker's CPU, before any inter-processor interrupt.
    #[btf_tracepoint(function = "sched_waking")]
    fn sched_waking(ctx: BtfTracePointContext) -> i32 {
        wakeup::waking(&ctx, Task::from_arg(ctx.arg(0)));
        0
    }

    /// `sched_wakeup_new(task_struct *p)`: a new task, perhaps with a tid that was used before.
    #[btf_tracepoint(function = "sched_wakeup_new")]
    fn sched_wakeup_new(ctx: BtfTracePointContext) -> i32 {
        wakeup::waking_new(Task::from_arg(ctx.arg(0)));
        0
    }

    /// `sched_migrate_task(task_struct *p, int dest_cpu)`; attached only where throttled time is known
    /// or late wake-ups are explained.
    #[btf_tracepoint(function = "sched_migrate_task")]
    fn sched_migrate_task(ctx: BtfTracePointContext) -> i32 {
        let (task, to) = (Task::from_arg(ctx.arg(0)), ctx.arg::<u64>(1) as u32);
        wakeup::migrating(task, to);
        flight::migrating(task, to);
        0
    }

    /// `sched_process_exit(task_struct *p)`; 6.18 adds an argument behind it.
    #[btf_tracepoint(function = "sched_process_exit")]
    fn sched_process_exit(ctx: BtfTracePointContext) -> i32 {
        threads::exited(Task::from_arg(ctx.arg(0)));
        0
    }

    /// `sched_process_exec(task_struct *p, pid_t old_pid, linux_binprm *bprm)`: a thread that is not its process's
    /// leader takes over the leader's tid.
    #[btf_tracepoint(function = "sched_process_exec")]
    fn sched_process_exec(ctx: BtfTracePointContext) -> i32 {
        threads::executed(Task::from_arg(ctx.arg(0)), ctx.arg::<u64>(1) as u32);
        0
    }

    /// `hrtimer_expire_entry(hrtimer *timer, ktime_t *now)`; `now` is the interrupt's time, not this callback's.
    #[btf_tracepoint(function = "hrtimer_expire_entry")]
    fn hrtimer_expire_entry(ctx: BtfTracePointContext) -> i32 {
        timer::expired(Timer::from_arg(ctx.arg(0)));
        0
    }

    /// `hrtimer_expire_exit(hrtimer *timer)`.
    #[btf_tracepoint(function = "hrtimer_expire_exit")]
    fn hrtimer_expire_exit(_ctx: BtfTracePointContext) -> i32 {
        timer::callback_done();
        0
    }

    /// `rseq_update(task_struct *t)`: on the way back to user space after the task was switched out, for every task
    /// that registered restartable sequences (glibc 2.35 and later does for every thread).
    /// <https://elixir.bootlin.com/linux/v6.12/source/kernel/rseq.c#L100>
    #[btf_tracepoint(function = "rseq_update")]
    fn rseq_update(ctx: BtfTracePointContext) -> i32 {
        timer::back_in_user_space(Task::from_arg(ctx.arg(0)));
        0
    }

    /// `contention_begin(void *lock, unsigned int flags)`.
    #[btf_tracepoint(function = "contention_begin")]
    fn contention_begin(ctx: BtfTracePointContext) -> i32 {
        lock::begin(ctx.arg(0), ctx.arg::<u64>(1) as u32);
        0
    }

    /// `contention_end(void *lock, int ret)`.
    #[btf_tracepoint(function = "contention_end")]
    fn contention_end(ctx: BtfTracePointContext) -> i32 {
        lock::end(ctx.arg(0));
        0
    }

    /// `sched_pi_setprio(task_struct *owner, task_struct *pi_task)`; a null `pi_task` ends the boost.
    #[btf_tracepoint(function = "sched_pi_setprio")]
    fn sched_pi_setprio(ctx: BtfTracePointContext) -> i32 {
        // One load, so that what the verifier learns of it here holds where it is read.
        let waiter: *const u8 = ctx.arg(1);
        if !waiter.is_null() {
            lock::boosted(Task::from_arg(ctx.arg(0)), Task::from_arg(waiter));
        }
        0
    }

    /// `bool throttle_cfs_rq(struct cfs_rq *cfs_rq)`: false when it found run time after all.
    #[fexit(function = "throttle_cfs_rq")]
    fn throttle_cfs_rq(ctx: FExitContext) -> i32 {
        if ctx.arg::<u64>(1) as u8 != 0 {
            throttle::throttled(CfsRq::from_arg(ctx.arg(0)));
        }
        0
    }

    /// `void unthrottle_cfs_rq(struct cfs_rq *cfs_rq)`.
    #[fentry(function = "unthrottle_cfs_rq")]
    fn unthrottle_cfs_rq(ctx: FEntryContext) -> i32 {
        throttle::unthrottled(CfsRq::from_arg(ctx.arg(0)));
        0
    }

    /// `int tg_throttle_down(struct task_group *tg, void *data)`, `data` being the run queue.
    #[fentry(function = "tg_throttle_down")]
    fn tg_throttle_down(ctx: FEntryContext) -> i32 {
        throttle::hierarchy_throttled(ctx.arg(0), ctx.arg(1));
        0
    }

    /// `int tg_unthrottle_up(struct task_group *tg, void *data)`.
    #[fentry(function = "tg_unthrottle_up")]
    fn tg_unthrottle_up(ctx: FEntryContext) -> i32 {
        throttle::hierarchy_unthrottled(ctx.arg(0), ctx.arg(1));
        0
    }

    macro_rules! hardirq {
        ($($entry:ident, $exit:ident, $ctx:ident => $number:expr;)*) => {$(
            /// Entry of a hard interrupt.
            #[btf_tracepoint]
            fn $entry($ctx: BtfTracePointContext) -> i32 {
                irq::hardirq_entry($number);
                0
            }

            /// Exit of a hard interrupt.
            #[btf_tracepoint]
            fn $exit(_ctx: BtfTracePointContext) -> i32 {
                irq::hardirq_exit();
                0
            }
        )*};
    }

    // The first argument of `irq_handler_entry` is the interrupt's number.
    hardirq! {
        irq_handler_entry, irq_handler_exit, ctx => ctx.arg::<u64>(0) as u32;
        local_timer_entry, local_timer_exit, _ctx => VECTOR | vector::LOCAL_TIMER;
        call_function_entry, call_function_exit, _ctx => VECTOR | vector::CALL_FUNCTION;
        call_function_single_entry, call_function_single_exit, _ctx => VECTOR | vector::CALL_FUNCTION_SINGLE;
        irq_work_entry, irq_work_exit, _ctx => VECTOR | vector::IRQ_WORK;
    }

    /// `softirq_entry(unsigned int vec_nr)`.
    #[btf_tracepoint(function = "softirq_entry")]
    fn softirq_entry(_ctx: BtfTracePointContext) -> i32 {
        irq::softirq_entry();
        0
    }

    /// `softirq_exit(unsigned int vec_nr)`.
    #[btf_tracepoint(function = "softirq_exit")]
    fn softirq_exit(ctx: BtfTracePointContext) -> i32 {
        irq::softirq_exit(ctx.arg::<u64>(0) as u32);
        0
    }

    /// `nmi_handler(void *handler, s64 delta_ns, int handled)`: after each handler of a non-maskable interrupt. Attached
    /// only where late wake-ups are explained.
    #[btf_tracepoint(function = "nmi_handler")]
    fn nmi_handler(ctx: BtfTracePointContext) -> i32 {
        flight::nmi(ctx.arg(1));
        0
    }

    /// `page_fault_user(unsigned long address, pt_regs *regs, unsigned long error_code)`. Attached only where late
    /// wake-ups are explained.
    #[btf_tracepoint(function = "page_fault_user")]
    fn page_fault_user(_ctx: BtfTracePointContext) -> i32 {
        flight::fault();
        0
    }

    #[panic_handler]
    fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }

    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}

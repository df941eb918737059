//! Signal `throttle`: CFS bandwidth throttles of each cgroup, and the time that a cgroup was stopped by its own quota
//! or by an ancestor's.
//!
//! Where the kernel takes fentry programs every throttle is seen; elsewhere the period timer shows the kernel's own
//! counters once a period. Before 6.18 a throttle stops the whole cfs_rq at once; from 6.18 on it marks the cfs_rq
//! and each of its tasks stops at its next return to user space.

use guard_common::{
    config::throttled_time,
    event::{REPORT_EVERY_NS, Throttled},
    maps::{CgroupKind, CgroupSlot},
};

use crate::{
    cgroups::slot_of_cgroup,
    config::config,
    state::{self, Cpu, add, cgroup, send, throttle_state, throttle_state_or_new},
    task::{CfsRq, Task, cfs_rq_of_group, cgroup_id_of_group, group_of_period_timer, probe_at},
};

/// The quota of `cfs_rq`'s own cgroup ran out on its CPU.
#[inline(always)]
pub(crate) fn throttled(cfs_rq: CfsRq) {
    let now = state::now();
    if let Some(cpu) = Cpu::this() {
        cpu.note_quota();
    }
    if let Some(state) = throttle_state_or_new(cfs_rq.address()) {
        state.own_since_ns = now;
    } else if let Some(cpu) = Cpu::this() {
        cpu.state.lost_throttles += 1;
    }
    let Some(id) = cgroup_id_of_group(cfs_rq.task_group()) else { return };
    if let Some(cgroup) = cgroup(slot_of_cgroup(id)) {
        add(&mut cgroup.throttles, 1);
        report_if_due(cgroup, now);
    }
}

/// `task`, of the cgroup in `slot`, leaves its CPU although it is runnable: perhaps because of a quota. From 6.18 on, and
/// where no fentry program may be, this is the first sight of a throttle.
#[inline(always)]
pub(crate) fn left_runnable(task: Task, slot: u32, now: u64) {
    let Some(cgroup) = cgroup(slot) else { return };
    if cgroup.protected != 0 && task.cfs_rq().throttle_count() != 0 {
        report_if_due(cgroup, now);
    }
}

/// Reports that a quota stopped `cgroup`, if it is protected and was not reported a moment ago.
#[inline(always)]
fn report_if_due(cgroup: &mut CgroupSlot, now: u64) {
    if config!(act) != 0 && cgroup.protected != 0 && now.saturating_sub(cgroup.reported_ns) >= REPORT_EVERY_NS {
        cgroup.reported_ns = now;
        report(cgroup.id, now);
    }
}

#[inline(never)]
fn report(cgroup_id: u64, at_ns: u64) -> u32 {
    let Some(mut cpu) = Cpu::this() else { return 0 };
    send(&mut cpu, Throttled { at_ns, cgroup_id }, at_ns);
    0
}

/// `cfs_rq` got run time again.
#[inline(always)]
pub(crate) fn unthrottled(cfs_rq: CfsRq) {
    let Some(state) = throttle_state(cfs_rq.address()) else { return };
    let since = state.own_since_ns;
    if since == 0 {
        return;
    }
    state.own_since_ns = 0;
    let Some(id) = cgroup_id_of_group(cfs_rq.task_group()) else { return };
    if let Some(cpu) = Cpu::this() {
        cpu.count_cgroup(slot_of_cgroup(id), CgroupKind::Throttle, state::now().saturating_sub(since));
    }
}

/// A throttle reaches `group` on the CPU of `rq`: its own or an ancestor's.
#[inline(always)]
pub(crate) fn hierarchy_throttled(group: u64, rq: u64) {
    let Some((address, 0)) = own_cfs_rq(group, rq) else { return };
    if let Some(state) = throttle_state_or_new(address) {
        state.since_ns = state::now();
    }
}

/// A throttle of `group`, or of an ancestor, ends on the CPU of `rq`.
#[inline(always)]
pub(crate) fn hierarchy_unthrottled(group: u64, rq: u64) {
    let Some((address, 1)) = own_cfs_rq(group, rq) else { return };
    let Some(state) = throttle_state(address) else { return };
    if state.since_ns != 0 {
        state.total_ns += state::now().saturating_sub(state.since_ns);
        state.since_ns = 0;
    }
}

/// Address of the group's cfs_rq on the CPU of `rq`, and how many throttles weigh on it.
#[inline(always)]
fn own_cfs_rq(group: u64, rq: u64) -> Option<(u64, u32)> {
    if config!(throttled_time) != throttled_time::FENTRY {
        return None;
    }
    let cpu: u32 = probe_at(rq, config!(offsets.rq_cpu))?;
    let address = cfs_rq_of_group(group, cpu)?;
    let count: u32 = probe_at(address, config!(offsets.cfs_rq_throttle_count))?;
    Some((address, count))
}

/// The period timer at `address` expired: shows its cgroup's counters, as they stand after the period before.
#[inline(always)]
pub(crate) fn period_elapsed(cpu: &Cpu, address: u64) {
    cpu.note_quota();
    let Some((group, bandwidth)) = group_of_period_timer(address) else { return };
    let Some(count) = probe_at::<u32>(bandwidth, config!(offsets.cfs_b_nr_throttled)) else { return };
    let Some(time) = probe_at::<u64>(bandwidth, config!(offsets.cfs_b_throttled_time)) else { return };
    let Some(id) = cgroup_id_of_group(group) else { return };
    let slot = slot_of_cgroup(id);
    if slot == 0 {
        return;
    }
    let Some(cgroup) = cgroup(slot) else { return };
    if cgroup.bandwidth_seen != 0 && config!(throttle_by_period) != 0 {
        let periods = u64::from(count).saturating_sub(cgroup.nr_throttled);
        let throttled = time.saturating_sub(cgroup.throttled_time_ns);
        if periods != 0 {
            add(&mut cgroup.throttles, periods);
            report_if_due(cgroup, state::now());
            cpu.count_cgroup(slot, CgroupKind::Throttle, throttled / periods);
        }
    }
    cgroup.nr_throttled = u64::from(count);
    cgroup.throttled_time_ns = time;
    cgroup.bandwidth_seen = 1;
}

//! Joins what the kernel counted with who is on the node and what the cgroup files say. Pure: everything it needs is
//! handed in.

use std::collections::HashSet;

use guard_common::maps::{self, CgroupKind, ThreadKind};

use super::accounts;
use super::accumulate::Sum;
use super::clock::WallClock;
use super::known::{Known, nameless};
use super::late;
use super::meter::WindowReading;
use super::own_cost::OwnCost;
use super::selection::Keep;
use crate::explain;
use crate::inventory::CgroupInfo;
use crate::kernel::sample::{CgroupSample, ThreadSample};
use crate::snapshot::order;
use crate::snapshot::{
    Breach, Cgroup, CgroupPath, CpuStat, Latency, Lock, Overhead, SCHEMA, SchedPolicy, SignalName, Snapshot, Thread,
    Throttle, ThrottleSource, Timer, TimerKind, WakeupPair, Window, Word,
};

/// The Snapshot of a window.
pub(super) fn snapshot(sum: Sum, known: &Known, keep: &Keep, clock: WallClock, cost: OwnCost) -> Snapshot {
    let Sum { sample, missed, accounts } = sum;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a window is positive and far below 2^53 ns"
    )]
    let start_ns = sample.at_ns.saturating_sub((sample.seconds * 1e9) as u64);
    let source = sample.throttle_source;
    let (events, ns_per_event) = sample.events.unzip();

    let mut cgroups: Vec<Cgroup> = with_idle_quotas(sample.cgroups, known)
        .into_iter()
        .map(|cgroup| {
            let of = known.cgroups.get(&cgroup.id);
            join_cgroup(cgroup, of.map(|(info, _)| info), of.map(|(_, reading)| *reading).unwrap_or_default(), source)
        })
        .collect();
    name_throttlers(&mut cgroups);
    // The kernel side counts skipped cycles per thread only.
    for cgroup in &mut cgroups {
        cgroup.timer.missed = missed.get(&cgroup.id).copied().unwrap_or(0);
    }

    // A thread that waits for its first switch-in has a slot already, but no process yet: see `add_unseen`.
    let seen = sample.threads.into_iter().filter(|thread| thread.pid != 0);
    let mut threads: Vec<Thread> = seen.map(|thread| join_thread(thread, known)).collect();
    add_unseen(&mut threads, keep, known);

    let recorder = sample.signals.iter().find(|signal| signal.name == SignalName::Flight).map(|signal| signal.state);
    let mut breaches: Vec<Breach> = sample
        .breaches
        .iter()
        .map(|breach| late::join(breach, accounts.get(&accounts::key(breach)), recorder, known, clock))
        .collect();

    // With the classes of all cgroups, but of the late wake-ups that are kept.
    let mut inversions = explain::inversion::inversions(&breaches, &cgroups);
    keep.apply(&mut cgroups, &mut threads, &mut breaches);
    inversions.retain(|inversion| {
        breaches.iter().any(|breach| (&breach.comm, &breach.cgroup) == (&inversion.comm, &inversion.cgroup))
    });
    order::cgroups(&mut cgroups);
    order::threads(&mut threads);

    Snapshot {
        schema: SCHEMA,
        node: known.node.clone(),
        window: Window { start: clock.rfc3339(start_ns), seconds: sample.seconds },
        signals: sample.signals,
        overhead: Overhead {
            ns_per_event,
            events,
            cpu_fraction: cost.cpu_fraction,
            memory_bytes: cost.memory_bytes,
            map_bytes: sample.map_bytes,
            lost: sample.lost,
            user_rest_ns: sample.user_rest_ns,
        },
        cgroups,
        threads,
        cpus: sample.cpus,
        breaches,
        inversions,
        actions: Vec::new(),
    }
}

/// Adds the cgroups that counted nothing in the kernel but were throttled by their cpu.stat.
fn with_idle_quotas(mut samples: Vec<CgroupSample>, known: &Known) -> Vec<CgroupSample> {
    let sampled: HashSet<u64> = samples.iter().map(|c| c.id).collect();
    let missing = known
        .cgroups
        .iter()
        .filter(|(id, (_, c))| !sampled.contains(id) && c.cpu_stat.is_some_and(|stat| stat.nr_throttled > 0))
        .map(|(id, _)| CgroupSample { id: *id, ..CgroupSample::default() });
    samples.extend(missing);
    samples
}

fn join_cgroup(
    mut sample: CgroupSample,
    info: Option<&CgroupInfo>,
    reading: WindowReading,
    source: ThrottleSource,
) -> Cgroup {
    let throttle = join_throttle(&sample, reading, source);
    let mut latency = |kind| Latency(sample.hists.take(kind));
    Cgroup {
        path: info.map_or_else(|| nameless(sample.id), |info| info.path.clone()),
        id: sample.id,
        class: info.map(|info| info.class).unwrap_or_default(),
        container: info.and_then(|info| info.container.clone()),
        throttle,
        wakeup: WakeupPair {
            rt: latency(CgroupKind::WakeRt),
            fair: latency(CgroupKind::WakeFair),
            throttled: latency(CgroupKind::ThrottledWait),
        },
        // Cycles are counted per thread: see `snapshot`.
        timer: Timer {
            irq: latency(CgroupKind::TimerIrq),
            thread: latency(CgroupKind::TimerThread),
            user: latency(CgroupKind::TimerUser),
            missed: 0,
        },
        lock: Lock { wait: latency(CgroupKind::Lock), boosts: sample.boosts, futex_boosts: sample.futex_boosts },
        cpu_pressure: reading.pressure,
        ..Cgroup::default()
    }
}

/// Count and durations from the kernel side where it sees them, else from cpu.stat; absent (no source) for a cgroup
/// that has neither a quota nor a throttle.
fn join_throttle(sample: &CgroupSample, reading: WindowReading, source: ThrottleSource) -> Throttle {
    let WindowReading { quota, cpu_stat, .. } = reading;
    let moved = cpu_stat.is_some_and(|stat| stat != CpuStat::default());
    if quota.is_none() && sample.throttles == 0 && !moved {
        return Throttle::default();
    }

    let (count, total_ns) = match (source, cpu_stat) {
        (ThrottleSource::CpuStat, Some(stat)) => (stat.nr_throttled, stat.throttled_ns),
        (ThrottleSource::CpuStat, None) => return Throttle { quota, ..Throttle::default() },
        // The kernel's counter knows more than the single durations, except before its first reading.
        (ThrottleSource::Fentry | ThrottleSource::PeriodTimer, _) => {
            (sample.throttles, sample.throttled_time_ns.unwrap_or(0).max(sample.hists[CgroupKind::Throttle].sum_ns()))
        }
    };
    Throttle {
        count,
        total_ns,
        duration: Latency(sample.hists[CgroupKind::Throttle].clone()),
        by: None,
        source: Some(source.into()),
        cpu_stat,
        quota,
    }
}

/// Sets `throttle.by`: the nearest cgroup, itself or an ancestor, that was throttled in the window.
fn name_throttlers(cgroups: &mut [Cgroup]) {
    let throttled: HashSet<String> = cgroups
        .iter()
        .filter(|c| c.throttle.count > 0 || c.throttle.cpu_stat.is_some_and(|stat| stat.nr_throttled > 0))
        .map(|c| c.path.clone())
        .collect();
    for cgroup in cgroups {
        cgroup.throttle.by =
            CgroupPath::of(&cgroup.path).and_above().find(|path| throttled.contains(*path)).map(str::to_owned);
    }
}

fn join_thread(mut sample: ThreadSample, known: &Known) -> Thread {
    // A thread that ended cannot be what now has its tid.
    let of = known.threads.get(&sample.tid).filter(|of| of.ended == sample.exited);
    let timer_kind = timer_kind_of(sample.timer_kind);
    let mut latency = |kind| Latency(sample.hists.take(kind));
    Thread {
        tid: sample.tid,
        pid: sample.pid,
        // Programs rename their threads after the first switch-in that the kernel side keeps.
        comm: of.map_or(sample.comm, |k| k.info.comm.clone()),
        cgroup: known.path_of(sample.cgroup_id),
        policy: SchedPolicy::from_raw(sample.policy).into(),
        prio: sample.rt_priority,
        affinity: of.and_then(|k| k.affinity.clone()),
        exited: sample.exited,
        // The server's timer follows the period that the thread asked for, but starts anew whenever the thread came too
        // late, so it need not be regular enough to be recognised.
        period_ns: of
            .and_then(|k| k.deadline_period_ns)
            .filter(|_| timer_kind == Some(TimerKind::Deadline))
            .or(sample.period_ns),
        timer_kind: timer_kind.map(Word::from),
        timer: Timer {
            irq: latency(ThreadKind::TimerIrq),
            thread: latency(ThreadKind::TimerThread),
            user: latency(ThreadKind::TimerUser),
            missed: sample.missed,
        },
        user_estimated: sample.user_estimated,
        wakeup: latency(ThreadKind::Wake),
        lock: Lock { wait: latency(ThreadKind::Lock), boosts: sample.boosts, futex_boosts: None },
        breaches: sample.breaches,
        budget_ns: (sample.budget_ns > 0).then_some(sample.budget_ns),
    }
}

/// Adds the threads that the user named and that were not on a CPU in the window, or ended before they were.
fn add_unseen(threads: &mut Vec<Thread>, keep: &Keep, known: &Known) {
    let Keep::Some { tids, .. } = keep else { return };
    let sampled: HashSet<u32> = threads.iter().map(|t| t.tid).collect();
    for of in tids.iter().filter(|tid| !sampled.contains(tid)).filter_map(|tid| known.threads.get(tid)) {
        threads.push(Thread {
            tid: of.info.tid,
            pid: of.info.tgid,
            comm: of.info.comm.clone(),
            cgroup: of.info.cgroup.clone().unwrap_or_default(),
            policy: of.info.policy.into(),
            prio: of.info.rt_priority,
            affinity: of.affinity.clone(),
            exited: of.ended,
            ..Thread::default()
        });
    }
}

fn timer_kind_of(kind: u32) -> Option<TimerKind> {
    let kinds = [
        (maps::TimerKind::Sleeper, TimerKind::Sleeper),
        (maps::TimerKind::SleeperSoft, TimerKind::SleeperSoft),
        (maps::TimerKind::Deadline, TimerKind::Deadline),
        (maps::TimerKind::CallbackHard, TimerKind::Callback),
        (maps::TimerKind::CallbackSoft, TimerKind::CallbackSoft),
    ];
    kinds.into_iter().find(|(number, _)| *number as u32 == kind).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use bytemuck::Zeroable as _;
    use guard_common::event::{self, BreachKind, breach_flags};

    use super::*;
    use crate::control::known::KnownThread;
    use crate::inventory::ThreadInfo;
    use crate::kernel::sample::KernelSample;
    use crate::snapshot::{BreachFlag, Class, Histogram, Quota};

    const CLOCK: fn() -> WallClock = || WallClock::with_offset_ns(1_700_000_000_000_000_000);

    fn info(id: u64, path: &str) -> CgroupInfo {
        CgroupInfo { path: path.into(), id, container: None, class: Class::Ls, vanished: false }
    }

    fn limited(nr_throttled: u64) -> WindowReading {
        WindowReading {
            quota: Some(Quota { quota_us: 20_000, period_us: 100_000 }),
            cpu_stat: Some(CpuStat { nr_periods: 10, nr_throttled, throttled_ns: nr_throttled * 1_000 }),
            pressure: None,
        }
    }

    fn known(cgroups: &[(u64, &str, WindowReading)]) -> Known {
        let cgroups = cgroups.iter().map(|(id, path, reading)| (*id, (info(*id, path), *reading))).collect();
        Known { cgroups, ..Known::default() }
    }

    fn thread(tid: u32, comm: &str, ended: bool) -> KnownThread {
        let info = ThreadInfo {
            tid,
            tgid: tid,
            comm: comm.into(),
            policy: SchedPolicy::Other,
            rt_priority: 0,
            nice: 0,
            kernel: false,
            start_ticks: 1,
            cgroup: Some("/a".into()),
        };
        KnownThread { info, affinity: Some("0-1".into()), deadline_period_ns: None, ended }
    }

    fn joined(sample: KernelSample, known: &Known, keep: &Keep) -> Snapshot {
        snapshot(Sum { sample, ..Sum::default() }, known, keep, CLOCK(), OwnCost::default())
    }

    fn counted(id: u64) -> CgroupSample {
        CgroupSample { id, hists: [(CgroupKind::WakeFair, Histogram::of(&[5_000]))].into(), ..CgroupSample::default() }
    }

    #[test]
    fn the_window_begins_before_the_sample_by_its_length() {
        let sample = KernelSample { at_ns: 12_000_000_000, seconds: 10.0, ..KernelSample::default() };
        let window = joined(sample, &Known::default(), &Keep::All).window;
        assert_eq!((window.start.as_str(), window.seconds), ("2023-11-14T22:13:22.000000Z", 10.0));
    }

    #[test]
    fn cgroups_are_named_and_the_nameless_are_told_apart() {
        let sample = KernelSample { cgroups: vec![counted(0), counted(5), counted(6)], ..KernelSample::default() };
        let snapshot = joined(sample, &known(&[(5, "/a", WindowReading::default())]), &Keep::All);
        let paths: HashSet<&str> = snapshot.cgroups.iter().map(|c| c.path.as_str()).collect();
        assert_eq!(paths, HashSet::from(["(other)", "/a", "(id 6)"]));
    }

    #[test]
    fn the_nearest_throttled_ancestor_is_blamed() {
        let mut own = counted(3);
        own.throttles = 2;
        let sample = KernelSample {
            cgroups: vec![counted(1), counted(2), own, counted(4), counted(5)],
            throttle_source: ThrottleSource::PeriodTimer,
            ..KernelSample::default()
        };
        let known = known(&[
            (1, "/", WindowReading::default()),
            (2, "/a", limited(4)),
            (3, "/a/own", limited(2)),
            (4, "/a/b/c", WindowReading::default()),
            (5, "/ab", WindowReading::default()),
        ]);
        let snapshot = joined(sample, &known, &Keep::All);
        let by: HashMap<&str, Option<&str>> =
            snapshot.cgroups.iter().map(|c| (c.path.as_str(), c.throttle.by.as_deref())).collect();
        assert_eq!(
            by,
            HashMap::from([
                ("/", None),
                ("/a", Some("/a")),
                ("/a/own", Some("/a/own")),
                ("/a/b/c", Some("/a")),
                ("/ab", None)
            ])
        );
    }

    #[test]
    fn throttles_come_from_the_best_source_and_stand_beside_cpu_stat() {
        for (throttle_source, count, total_ns) in [
            (ThrottleSource::Fentry, 3, 700),
            (ThrottleSource::PeriodTimer, 3, 900),
            (ThrottleSource::CpuStat, 4, 4_000),
        ] {
            let cgroup = CgroupSample {
                throttles: 3,
                hists: [(CgroupKind::Throttle, Histogram::of(&[300, 400]))].into(),
                throttled_time_ns: (throttle_source == ThrottleSource::PeriodTimer).then_some(900),
                ..counted(1)
            };
            let sample = KernelSample { cgroups: vec![cgroup], throttle_source, ..KernelSample::default() };
            let throttle = joined(sample, &known(&[(1, "/a", limited(4))]), &Keep::All).cgroups.remove(0).throttle;
            assert_eq!(
                (throttle.source, throttle.count, throttle.total_ns),
                (Some(throttle_source.into()), count, total_ns)
            );
            assert_eq!(throttle.cpu_stat.map(|s| s.nr_throttled), Some(4));
        }
    }

    #[test]
    fn a_cgroup_without_quota_has_no_throttles_rather_than_none() {
        let sample = KernelSample { cgroups: vec![counted(1)], ..KernelSample::default() };
        let cpu_stat = Some(CpuStat::default());
        let known = known(&[(1, "/a", WindowReading { cpu_stat, ..WindowReading::default() })]);
        assert_eq!(joined(sample, &known, &Keep::All).cgroups[0].throttle, Throttle::default());
    }

    #[test]
    fn a_quota_that_nobody_could_read_is_not_reported_as_never_throttling() {
        let sample = KernelSample { cgroups: vec![counted(1)], ..KernelSample::default() };
        let known = known(&[(1, "/a", WindowReading { cpu_stat: None, ..limited(0) })]);
        let throttle = joined(sample, &known, &Keep::All).cgroups.remove(0).throttle;
        assert!(throttle.source.is_none() && throttle.quota.is_some());
    }

    #[test]
    fn a_cgroup_that_only_cpu_stat_saw_throttled_is_reported() {
        let known = known(&[(1, "/a", limited(4)), (2, "/idle", limited(0))]);
        let snapshot = joined(KernelSample::default(), &known, &Keep::All);
        assert_eq!(snapshot.cgroups.iter().map(|c| c.path.as_str()).collect::<Vec<_>>(), ["/a"]);
    }

    #[test]
    fn missed_cycles_stand_in_their_cgroup() {
        let sample = KernelSample { cgroups: vec![counted(1), counted(2)], ..KernelSample::default() };
        let sum = Sum { sample, missed: HashMap::from([(1, 12), (9, 5)]), ..Sum::default() };
        let cgroups = snapshot(sum, &Known::default(), &Keep::All, CLOCK(), OwnCost::default()).cgroups;
        let missed: HashMap<u64, u64> = cgroups.iter().map(|c| (c.id, c.timer.missed)).collect();
        assert_eq!(missed, HashMap::from([(1, 12), (2, 0)]));
    }

    #[test]
    fn a_live_thread_is_called_by_its_name_of_now_and_an_ended_one_by_its_own() {
        let sample = |exited| KernelSample {
            threads: vec![ThreadSample {
                tid: 7,
                pid: 7,
                comm: "before".into(),
                policy: 1,
                exited,
                ..ThreadSample::default()
            }],
            ..KernelSample::default()
        };
        let mut known = Known::default();
        known.threads.insert(7, thread(7, "after", false));
        let live = joined(sample(false), &known, &Keep::All).threads.remove(0);
        assert_eq!(
            (live.comm.as_str(), live.affinity.as_deref(), live.policy.as_str()),
            ("after", Some("0-1"), "FIFO")
        );
        let ended = joined(sample(true), &known, &Keep::All).threads.remove(0);
        assert_eq!((ended.comm.as_str(), ended.affinity, ended.exited), ("before", None, true));
    }

    #[test]
    fn a_named_thread_is_shown_even_if_it_never_ran_and_its_end_is_said() {
        let mut known = Known::default();
        known.threads.insert(7, thread(7, "idle", false));
        known.threads.insert(8, thread(8, "ended", true));
        known.threads.insert(9, thread(9, "unnamed", false));
        let keep = Keep::Some { paths: HashSet::new(), tids: vec![7, 8] };
        let slot = ThreadSample { tid: 7, ..ThreadSample::default() };
        let sample = KernelSample { threads: vec![slot], ..KernelSample::default() };
        let threads = joined(sample, &known, &keep).threads;
        let shown: Vec<_> = threads.iter().map(|t| (t.comm.as_str(), t.exited, t.cgroup.as_str())).collect();
        assert_eq!(shown, [("idle", false, "/a"), ("ended", true, "/a")]);
    }

    #[test]
    fn a_breach_tells_when_who_and_what_was_known() {
        let mut record = event::Breach {
            kind: BreachKind::Timer as u32,
            flags: breach_flags::MIGRATED | breach_flags::LOCK,
            since_ns: 1_000_000_000,
            expired_ns: 1_000_002_000,
            waking_ns: 1_000_003_000,
            switched_in_ns: 1_001_900_000,
            tid: 7,
            cpu: 1,
            cgroup_id: 1,
            prev_cgroup_id: 2,
            prev_ran_ns: 1_897_000,
            ..event::Breach::zeroed()
        };
        record.occupied_ns[maps::Occupant::Idle as usize] = 1_897_000;
        record.comm[..5].copy_from_slice(b"cycle");
        let sample = KernelSample { breaches: vec![record], ..KernelSample::default() };
        let known = known(&[(1, "/plc", WindowReading::default()), (2, "/noise", WindowReading::default())]);
        let breach = joined(sample, &known, &Keep::All).breaches.remove(0);
        assert_eq!(breach.at, "2023-11-14T22:13:21.001900Z");
        assert_eq!(
            (breach.kind.known(), breach.latency_ns, breach.cgroup.as_str()),
            (Some(crate::snapshot::BreachKind::Timer), 1_900_000, "/plc")
        );
        // Nobody had the CPU: the record's previous task is the idle one.
        assert_eq!((breach.cause.as_str(), breach.shares["cpu_idle_exit"]), ("cpu_idle_exit", 1_900_000));
        assert_eq!(
            breach.sentence,
            "cycle (tid 7) came on its CPU 1.9 ms after its timer expired: CPU 1 needed 1.9 ms to wake from idle"
        );
        assert_eq!((breach.evidence.irq_delay_ns, breach.evidence.wait_ns), (Some(2_000), 1_897_000));
        assert_eq!(breach.evidence.prev_cgroup.as_deref(), Some("/noise"));
        assert_eq!(breach.evidence.flags, [BreachFlag::Migrated, BreachFlag::Lock]);
    }

    #[test]
    fn a_full_width_comm_and_a_wake_up_without_waker_are_read() {
        let record = event::Breach {
            kind: BreachKind::Wakeup as u32,
            since_ns: 5_000,
            switched_in_ns: 9_000,
            comm: *b"sixteen-letters!",
            ..event::Breach::zeroed()
        };
        let breach = late::join(&record, None, None, &Known::default(), CLOCK());
        assert_eq!((breach.comm.as_str(), breach.cgroup.as_str()), ("sixteen-letters!", "(other)"));
        assert_eq!(
            (breach.evidence.wait_ns, breach.evidence.irq_delay_ns, breach.evidence.prev_cgroup),
            (4_000, None, None)
        );
    }
}

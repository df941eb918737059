//! Snapshots for the tests of this room: a full one, an empty one, and arbitrary ones.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::snapshot::*;

fn latency(values: &[u64]) -> Latency {
    let mut latency = Latency::default();
    values.iter().for_each(|v| latency.record(*v));
    latency
}

fn signal(name: &str, state: SignalState, reason: Option<&str>) -> Signal {
    Signal { name: name.into(), source: "test".into(), state, reason: reason.map(str::to_owned) }
}

/// A window of 10 s in which nothing was seen.
pub(crate) fn empty() -> Snapshot {
    Snapshot {
        schema: SCHEMA,
        node: Node::default(),
        window: Window { start: "2026-11-22T00:11:00Z".into(), seconds: 10.0 },
        signals: vec![],
        overhead: Overhead::default(),
        cgroups: vec![],
        threads: vec![],
        cpus: vec![],
        breaches: vec![],
        inversions: Vec::new(),
        actions: vec![],
    }
}

/// A Snapshot with something in every field.
pub(crate) fn full() -> Snapshot {
    let timer = Timer {
        irq: latency(&[2_000]),
        thread: latency(&[9_000, 9_000, 1_899_000]),
        user: latency(&[12_000, 12_000, 1_900_000]),
        missed: 2,
    };
    let evidence = Evidence {
        cpu: 1,
        irq_delay_ns: Some(2_000),
        wait_ns: 1_897_000,
        prev_comm: "burner".into(),
        prev_cgroup: Some("/machine".into()),
        flags: vec!["migrated".into()],
        ..Evidence::default()
    };
    Snapshot {
        node: Node {
            hostname: "cell-7".into(),
            kernel: "6.1.0-56-rt-amd64".into(),
            realtime: true,
            arch: "x86_64".into(),
            cpus: "0-3".into(),
            cmdline: "isolcpus=1".into(),
            cgroup: CgroupLayout::V2,
            ..Node::default()
        },
        signals: vec![
            signal("user", SignalState::Unavailable, Some("fexit refused by this kernel")),
            signal("throttle", SignalState::Degraded, Some("from cpu.stat: no fentry")),
            signal("wakeup", SignalState::Active, None),
            signal("timer", SignalState::Active, None),
            signal("lock", SignalState::Active, None),
            signal("irq", SignalState::Active, None),
            signal("rt_throttle", SignalState::Active, None),
            signal("breach", SignalState::Active, None),
        ],
        overhead: Overhead {
            ns_per_event: Some(310.0),
            events: Some(5_000),
            cpu_fraction: 0.0012,
            memory_bytes: 14 << 20,
            map_bytes: 21 << 20,
            lost: Lost { breaches: 3, ..Lost::default() },
            user_rest_ns: Some(180),
        },
        cgroups: vec![
            Cgroup {
                path: "/machine/libpod-1".into(),
                id: 101,
                class: Class::Plc,
                container: Some(Container {
                    runtime: "podman".into(),
                    id: "0123456789abcdef".into(),
                    name: Some("plc-1".into()),
                    image: Some("plc:1".into()),
                    pod: None,
                    qos: None,
                    unit: None,
                }),
                wakeup: WakeupPair {
                    rt: latency(&[5_000]),
                    fair: latency(&[64_000]),
                    throttled: latency(&[80_000_000]),
                },
                timer: timer.clone(),
                throttle: Throttle {
                    source: Some("fentry".into()),
                    by: Some("/machine".into()),
                    ..Throttle::default()
                },
                lock: Lock { wait: latency(&[7_000]), boosts: 3, futex_boosts: Some(2) },
                cpu_pressure: Some(Pressure { some_ns: 1_000, full_ns: None }),
                ..Cgroup::default()
            },
            Cgroup {
                path: "/machine".into(),
                id: 100,
                throttle: Throttle {
                    count: 12,
                    total_ns: 960_000_000,
                    duration: latency(&[80_000_000; 12]),
                    by: Some("/machine".into()),
                    source: Some("fentry".into()),
                    cpu_stat: Some(CpuStat { nr_periods: 100, nr_throttled: 12, throttled_ns: 961_000_000 }),
                    quota: Some(Quota { quota_us: 20_000, period_us: 100_000 }),
                },
                ..Cgroup::default()
            },
            Cgroup {
                path: "/".into(),
                id: 1,
                class: Class::System,
                wakeup: WakeupPair { fair: latency(&[30_000]), ..WakeupPair::default() },
                ..Cgroup::default()
            },
        ],
        threads: vec![
            Thread {
                tid: 1234,
                pid: 1230,
                comm: "cycle".into(),
                cgroup: "/machine/libpod-1".into(),
                policy: "FIFO".into(),
                prio: 80,
                affinity: Some("1".into()),
                period_ns: Some(1_000_000),
                timer_kind: Some("sleeper".into()),
                timer,
                wakeup: latency(&[5_000]),
                lock: Lock { wait: latency(&[7_000]), boosts: 3, futex_boosts: None },
                breaches: 1,
                budget_ns: Some(1_000_000),
                ..Thread::default()
            },
            Thread {
                tid: 77,
                pid: 77,
                comm: "irq/9".into(),
                cgroup: "/".into(),
                policy: "FIFO".into(),
                prio: 50,
                exited: true,
                timer: Timer { thread: latency(&[40_000]), ..Timer::default() },
                ..Thread::default()
            },
        ],
        cpus: vec![
            Cpu {
                cpu: 0,
                hardirq: Interrupt { count: 10, total_ns: 50_000, while_rt_ns: 0, max_ns: 9_000 },
                ..Cpu::default()
            },
            Cpu {
                cpu: 1,
                hardirq: Interrupt { count: 90, total_ns: 900_000, while_rt_ns: 400_000, max_ns: 30_000 },
                softirq: Interrupt { count: 5, total_ns: 3_000_000, while_rt_ns: 2_000_000, max_ns: 900_000 },
                rt_throttle: Stolen { count: 2, total_ns: 95_000_000 },
                fair_server: Stolen::default(),
                ..Cpu::default()
            },
        ],
        breaches: vec![Breach {
            at: "2026-11-22T00:11:03.123456789Z".into(),
            tid: 1234,
            comm: "cycle".into(),
            cgroup: "/machine/libpod-1".into(),
            kind: "timer".into(),
            latency_ns: 1_899_000,
            cause: "unknown".into(),
            culprit: Some(Culprit { tid: 5, comm: "burner".into(), cgroup: None, prio: None }),
            shares: [(Cause::Unknown.into(), 1_899_000)].into(),
            sentence: "cycle (tid 1234) ran 1.9 ms after its timer expired; cause unknown".into(),
            evidence,
        }],
        actions: vec![Action {
            at: "2026-11-22T00:11:04Z".into(),
            knob: "cpu.max".into(),
            path: "/machine".into(),
            old: "20000 100000".into(),
            new: "max 100000".into(),
            reason: "throttled".into(),
            evidence: [("nr_throttled".to_owned(), 12.0)].into(),
            result: "done".into(),
        }],
        ..empty()
    }
}

fn any_latency() -> impl Strategy<Value = Latency> {
    vec((any::<u64>(), 0u32..64), 0..4)
        .prop_map(|v| latency(&v.iter().map(|(ns, shift)| ns >> shift).collect::<Vec<_>>()))
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[a-z/.-]{0,80}", Just("2026-11-22T00:00:00Z".to_owned())]
}

fn any_timer() -> impl Strategy<Value = Timer> {
    (any_latency(), any_latency(), any_latency(), any::<u64>()).prop_map(|(irq, thread, user, missed)| Timer {
        irq,
        thread,
        user,
        missed,
    })
}

fn any_throttle() -> impl Strategy<Value = Throttle> {
    (
        (any::<u64>(), any::<u64>(), any_latency(), option::of(any_text()), option::of(any_text())),
        option::of(any::<[u64; 3]>()),
        option::of(any::<[u64; 2]>()),
    )
        .prop_map(|((count, total_ns, duration, by, source), stat, quota)| Throttle {
            count,
            total_ns,
            duration,
            by,
            source: source.as_deref().map(Word::from),
            cpu_stat: stat.map(|[nr_periods, nr_throttled, throttled_ns]| CpuStat {
                nr_periods,
                nr_throttled,
                throttled_ns,
            }),
            quota: quota.map(|[quota_us, period_us]| Quota { quota_us, period_us }),
        })
}

fn any_cgroup() -> impl Strategy<Value = Cgroup> {
    let container = (any_text(), any_text(), option::of(any_text()), option::of(any_text()), option::of(any_text()))
        .prop_map(|(runtime, id, name, pod, unit)| Container { runtime, id, name, pod, unit, image: None, qos: None });
    (
        any_text(),
        any::<u64>(),
        option::of(container),
        (any_latency(), any_latency(), any_latency()),
        any_timer(),
        any_throttle(),
        (any_latency(), any::<u64>()),
    )
        .prop_map(|(path, id, container, (rt, fair, throttled), timer, throttle, (wait, boosts))| Cgroup {
            path,
            id,
            container,
            wakeup: WakeupPair { rt, fair, throttled },
            timer,
            throttle,
            lock: Lock { wait, boosts, futex_boosts: (boosts > 0).then_some(boosts / 2) },
            ..Cgroup::default()
        })
}

fn any_thread() -> impl Strategy<Value = Thread> {
    (
        (any::<u32>(), any_text(), any_text(), any_text(), any::<u32>(), any::<bool>()),
        option::of(any::<u64>()),
        any_timer(),
        any_latency(),
        any::<[u64; 2]>(),
    )
        .prop_map(
            |((tid, comm, cgroup, policy, prio, exited), period_ns, timer, wakeup, [user_estimated, breaches])| {
                Thread {
                    tid,
                    comm,
                    cgroup,
                    policy: policy.as_str().into(),
                    prio,
                    exited,
                    period_ns,
                    timer,
                    wakeup,
                    user_estimated,
                    breaches,
                    ..Thread::default()
                }
            },
        )
}

fn any_cpu() -> impl Strategy<Value = Cpu> {
    (any::<u32>(), any::<[u64; 4]>(), any::<[u64; 4]>()).prop_map(|(cpu, a, b)| Cpu {
        cpu,
        hardirq: Interrupt { count: a[0], total_ns: a[1], while_rt_ns: a[2], max_ns: a[3] },
        softirq: Interrupt { count: b[0], total_ns: b[1], while_rt_ns: b[2], max_ns: b[3] },
        rt_throttle: Stolen { count: a[0] % 3, total_ns: b[0] },
        fair_server: Stolen { count: b[1] % 3, total_ns: a[1] },
        ..Cpu::default()
    })
}

fn any_breach() -> impl Strategy<Value = Breach> {
    (any_text(), any::<u32>(), any_text(), any::<u64>(), any_text()).prop_map(
        |(at, tid, comm, latency_ns, sentence)| Breach {
            at,
            tid,
            comm,
            cgroup: "/".into(),
            kind: "timer".into(),
            latency_ns,
            cause: "unknown".into(),
            culprit: None,
            shares: [(Cause::Unknown.into(), latency_ns)].into(),
            sentence,
            evidence: Evidence::default(),
        },
    )
}

fn any_signal() -> impl Strategy<Value = Signal> {
    let state = prop_oneof![
        Just(SignalState::Active),
        Just(SignalState::Degraded),
        Just(SignalState::Unavailable),
        Just(SignalState::Off)
    ];
    let name = prop_oneof![Just("lock"), Just("irq"), Just("breach"), Just("rt_throttle"), Just("throttle"), Just("x")];
    (name, any_text(), state, option::of(any_text())).prop_map(|(name, source, state, reason)| Signal {
        name: name.into(),
        source,
        state,
        reason,
    })
}

/// A Snapshot as hostile as its types allow.
pub(crate) fn any_snapshot() -> impl Strategy<Value = Snapshot> {
    (
        (any_text(), any_text(), any_text(), 0.0f64..1e9),
        vec(any_signal(), 0..8),
        any::<[u64; 8]>(),
        vec(any_cgroup(), 0..24),
        vec(any_thread(), 0..24),
        vec(any_cpu(), 0..4),
        vec(any_breach(), 0..13),
    )
        .prop_map(|((hostname, kernel, start, seconds), signals, lost, cgroups, threads, cpus, breaches)| {
            Snapshot {
                node: Node { hostname, kernel, ..Node::default() },
                window: Window { start, seconds },
                signals,
                overhead: Overhead {
                    cpu_fraction: 0.5,
                    lost: Lost {
                        missed_events: lost[0],
                        collisions: lost[1],
                        other_cgroups: lost[2],
                        unwatched_threads: lost[3],
                        breaches: lost[4],
                        failed_reads: lost[5],
                        past_timers: lost[7],
                        dropped_threads: lost[6],
                    },
                    ..Overhead::default()
                },
                cgroups,
                threads,
                cpus,
                breaches,
                ..empty()
            }
        })
}

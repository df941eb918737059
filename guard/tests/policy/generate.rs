//! Generated nodes, loads, settings and triggers.

use guard::{
    policy::{
        PolicySettings, burst, cpuset, protect,
        suppress::{self, Form, Profile},
    },
    snapshot::{Budget, Class, CpuList},
};
use proptest::prelude::*;

use crate::sim::{Group, Machine, Psi};

/// A tree of up to three levels: the last path component's first letter says nothing of the class.
pub(crate) fn machine() -> impl Strategy<Value = Machine> {
    let psi = prop_oneof![Just(Psi::None), Just(Psi::Node), Just(Psi::Cgroups)];
    (1_u32..=4, 1_u32..=2, prop::collection::vec(group(), 1..12), psi, 0_u32..3, 0_u32..3).prop_map(
        |(cores, threads, groups, psi, reserved, isolated)| {
            let cpus = cores * threads;
            let mut machine = Machine {
                cpus,
                threads_per_core: threads,
                numa_nodes: if cores % 2 == 0 { 2 } else { 1 },
                reserved_cpus: (0..reserved.min(cpus)).collect(),
                isolated_cpus: (cpus.saturating_sub(isolated)..cpus).collect(),
                psi,
                cgroups: Vec::new(),
            };
            for (parent, mut group) in groups {
                // Parents are those before it; an own set of CPUs lies within the machine.
                let parent = machine.cgroups.get(parent % (machine.cgroups.len() + 1)).cloned();
                let base = parent.as_ref().map_or(String::new(), |parent| parent.path.clone());
                group.path = format!("{base}/c{}", machine.cgroups.len());
                group.cpus = group.cpus.iter().filter(|cpu| *cpu < cpus).collect();
                fit(&mut group, parent.as_ref());
                machine.cgroups.push(group);
            }
            machine
        },
    )
}

/// The kernel (v1) has let no child have more than its parent.
fn fit(group: &mut Group, parent: Option<&Group>) {
    let Some(parent) = parent else { return };
    if let (Some(above), Some(own)) = (parent.quota_us, group.quota_us) {
        let (above_period, period) = (parent.period_us.unwrap_or(100_000), group.period_us.unwrap_or(100_000));
        if own * above_period > above * period {
            (group.quota_us, group.period_us) = (Some(above), parent.period_us);
            group.burst_us = group.burst_us.min(above);
        }
    } else if parent.quota_us.is_some() && group.quota_us.is_none() {
        // Unlimited below a limit passes the limit on; the simulation compares with the nearest one only.
        (group.quota_us, group.period_us) = (parent.quota_us, parent.period_us);
        group.burst_us = group.burst_us.min(group.quota_us.unwrap_or(0));
    }
    if group.cpus.is_empty() || !parent.cpus.is_empty() && group.cpus.iter().any(|cpu| !parent.cpus.contains(cpu)) {
        group.cpus = parent.cpus.clone();
    }
}

fn class() -> impl Strategy<Value = Class> {
    prop_oneof![
        4 => Just(Class::Be),
        2 => Just(Class::Plc),
        3 => Just(Class::Ls),
        1 => Just(Class::Lse),
        1 => Just(Class::Lsr),
        1 => Just(Class::System),
    ]
}

fn group() -> impl Strategy<Value = (usize, Group)> {
    let demand = prop::collection::vec((0.0_f64..30.0, 0_u64..4000), 0..3).prop_map(|mut steps| {
        steps.sort_by(|a, b| a.0.total_cmp(&b.0));
        steps
    });
    let quota =
        prop::option::weighted(0.4, (1000_u64..400_000, prop_oneof![Just(100_000_u64), Just(10_000), Just(5000)]));
    let cpus = prop_oneof![3 => Just(CpuList::default()), 1 => prop::collection::btree_set(0_u32..8, 1..4).prop_map(|set| set.into_iter().collect())];
    let budget =
        prop::option::of((50_u64..2000).prop_map(|us| Budget { metric: "wakeup.p99".into(), limit_ns: us * 1000 }));
    (
        any::<usize>(),
        class(),
        demand,
        quota,
        cpus,
        (
            0_u64..2000,
            2_u64..262_144,
            prop::option::of(0_u64..4000),
            prop::bool::weighted(0.1),
            prop::option::of(0_u8..3),
        ),
        (0_u64..300, 0_u64..500, budget, prop::bool::weighted(0.2)),
    )
        .prop_map(
            |(
                parent,
                class,
                demand,
                quota,
                cpus,
                (burst, shares, request, unmanaged, container),
                (base, slope, budget, locks),
            )| {
                let group = Group {
                    class,
                    demand,
                    quota_us: quota.map(|quota| quota.0),
                    period_us: quota.map(|quota| quota.1),
                    burst_us: quota.map_or(0, |quota| burst.min(quota.0)),
                    shares: Some(shares),
                    cpus,
                    request_milli: request,
                    unmanaged,
                    container: container.map(|n| format!("box{n}")),
                    budgets: budget.into_iter().collect(),
                    base_us: base,
                    per_be_cpu_us: slope,
                    boosts: if locks { vec![(7.0, 3), (9.0, 0)] } else { Vec::new() },
                    rt_threads: (class == Class::Plc).then_some(1),
                    ..Group::default()
                };
                (parent, group)
            },
        )
}

pub(crate) fn settings() -> impl Strategy<Value = PolicySettings> {
    let profile =
        prop_oneof![Just(Profile::Latency), Just(Profile::Pressure), Just(Profile::Threshold), Just(Profile::Off)];
    let suppress =
        (profile, prop_oneof![3 => Just(Form::Quota), 1 => Just(Form::Cpuset)], 1_u64..3, 0_u64..20, 10_u64..200)
            .prop_map(|(profile, form, min_cpus, min_percent, min_quota_milli)| suppress::SuppressSettings {
                profile,
                form,
                min_cpus,
                min_percent,
                min_quota_milli,
                shared_lock_memory_s: 5.0,
                ..suppress::SuppressSettings::default()
            });
    let burst = (
        prop_oneof![
            Just(burst::BurstPolicy::None),
            Just(burst::BurstPolicy::Burst),
            Just(burst::BurstPolicy::Quota),
            Just(burst::BurstPolicy::Auto)
        ],
        prop_oneof![Just(-1_i64), Just(0), Just(20)],
    )
        .prop_map(|(policy, quota_period_s)| burst::BurstSettings {
            policy,
            quota_period_s,
            ..burst::BurstSettings::default()
        });
    let means =
        prop::sample::subsequence(vec![protect::Means::Quota, protect::Means::Burst, protect::Means::Weight], 1..=3);
    let protect = (any::<bool>(), any::<bool>(), any::<bool>(), 0.3_f64..=1.0, means).prop_map(
        |(enabled, throttled, budget, max_node_fraction, allow)| protect::ProtectSettings {
            enabled,
            when: if throttled { protect::When::Throttled } else { protect::When::Sight },
            lift: if budget { protect::Lift::Budget } else { protect::Lift::Unlimited },
            max_node_fraction,
            allow,
            hold_s: 3.0,
            ..protect::ProtectSettings::default()
        },
    );
    let cpuset = (any::<bool>(), any::<bool>(), 1_u64..3).prop_map(|(enabled, whole_cores, min_shared_cpus)| {
        cpuset::CpusetSettings { enabled, whole_cores, min_shared_cpus, ..cpuset::CpusetSettings::default() }
    });
    (suppress, burst, protect, cpuset).prop_map(|(suppress, burst, protect, cpuset)| PolicySettings {
        suppress,
        burst,
        protect,
        cpuset,
    })
}

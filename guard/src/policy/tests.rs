//! The policies together: what one Snapshot, or one trigger after it, leads to.

use super::*;
use crate::knob::{Knob, Setting};
use crate::snapshot::{
    Bandwidth, Breach, Cgroup, Class, CpuList, Culprit, Evidence, Knobs, Node, Overhead, SCHEMA, Signal, SignalState,
    Window,
};

fn list(text: &str) -> CpuList {
    text.parse().unwrap()
}

/// A cgroup without a quota, with a knob for everything.
fn cgroup(id: u64, path: &str, class: Class) -> Cgroup {
    let knobs = Knobs {
        quota: Some(Bandwidth::UNLIMITED),
        burst_us: Some(0),
        shares: Some(1024),
        cpus: Some(CpuList::default()),
        ..Knobs::default()
    };
    Cgroup { id, path: path.into(), class, knobs: Some(knobs), cpu_ns: Some(1_000_000_000), ..Cgroup::default() }
}

fn with_quota(mut cgroup: Cgroup, quota_us: u64) -> Cgroup {
    if let Some(knobs) = &mut cgroup.knobs {
        knobs.quota = Some(Bandwidth { quota_us: Some(quota_us), period_us: 100_000 });
    }
    cgroup
}

fn late(mut cgroup: Cgroup, ns: u64) -> Cgroup {
    (0..1000).for_each(|_| cgroup.wakeup.rt.record(ns));
    cgroup
}

/// A second on 4 CPUs.
fn snapshot(cgroups: Vec<Cgroup>) -> Snapshot {
    Snapshot {
        schema: SCHEMA,
        node: Node { cpus: "0-3".into(), ..Node::default() },
        window: Window { start: String::new(), seconds: 1.0 },
        signals: vec![Signal {
            name: "wakeup".into(),
            source: "test".into(),
            state: SignalState::Active,
            reason: None,
        }],
        overhead: Overhead::default(),
        cgroups,
        threads: Vec::new(),
        cpus: Vec::new(),
        breaches: Vec::new(),
        inversions: Vec::new(),
        actions: Vec::new(),
    }
}

/// Path, knob and value of each want.
fn shown(wants: &[Want]) -> Vec<(&str, Knob, String)> {
    wants.iter().map(|want| (want.path.as_str(), want.setting.knob(), want.setting.to_string())).collect()
}

#[test]
fn defaults_are_valid_and_only_protect_and_latency_act() {
    let settings = PolicySettings::default();
    assert_eq!(settings.validate(), Ok(()));
    let plan = decide(&snapshot(Vec::new()), &settings, &mut PolicyState::default());
    assert_eq!(
        plan.notes,
        [
            "protect: no PLC cgroup",
            "cpuset: not enabled",
            "suppress: no best-effort cgroup that may be shrunk",
            "burst: policy is none"
        ]
    );
    assert!(plan.wants.is_empty());
}

#[test]
fn impossible_settings_are_named() {
    type Spoil = fn(&mut PolicySettings);
    let cases: Vec<(&str, Spoil)> = vec![
        ("suppress.min_quota_milli", |s| s.suppress.min_quota_milli = 1),
        ("suppress.min_cpus", |s| s.suppress.min_cpus = 0),
        ("suppress.min_percent", |s| s.suppress.min_percent = 101),
        ("suppress.max_rise_percent", |s| s.suppress.max_rise_percent = 11),
        ("suppress.settle_percent", |s| s.suppress.settle_percent = 100),
        ("suppress.forget_s", |s| s.suppress.forget_s = f64::NAN),
        ("suppress.forget_max_s", |s| s.suppress.forget_max_s = 1.0),
        ("suppress.shared_lock_memory_s", |s| s.suppress.shared_lock_memory_s = -1.0),
        ("suppress.latency.plc_metric", |s| s.suppress.latency.plc_metric = "wakeup.avg".into()),
        ("suppress.latency.ls_metric", |s| s.suppress.latency.ls_metric = "".into()),
        ("suppress.latency.cut_percent", |s| s.suppress.latency.cut_percent = 100),
        ("suppress.latency.calm_percent", |s| s.suppress.latency.calm_percent = 0),
        ("suppress.latency.hold_s", |s| s.suppress.latency.hold_s = f64::INFINITY),
        ("suppress.latency.rise_percent", |s| s.suppress.latency.rise_percent = 0),
        ("suppress.pressure.table", |s| s.suppress.pressure.table.clear()),
        ("suppress.pressure.table", |s| s.suppress.pressure.table = vec![(50.0, 0.5), (40.0, 0.4)]),
        ("suppress.pressure.table", |s| s.suppress.pressure.table = vec![(40.0, 0.5), (50.0, 0.6)]),
        ("suppress.pressure.table", |s| s.suppress.pressure.table = vec![(40.0, 1.5)]),
        ("suppress.pressure.hysteresis", |s| s.suppress.pressure.hysteresis = 200.0),
        ("suppress.pressure.hold_s", |s| s.suppress.pressure.hold_s = -0.1),
        ("suppress.threshold.percent", |s| s.suppress.threshold.percent = 0),
        ("suppress.threshold.bypass_percent", |s| s.suppress.threshold.bypass_percent = 51),
        ("burst.burst_percent", |s| s.burst.burst_percent = 0),
        ("burst.quota_percent", |s| s.burst.quota_percent = 99),
        ("burst.quota_period_s", |s| s.burst.quota_period_s = -2),
        ("burst.share_pool_percent", |s| s.burst.share_pool_percent = 0),
        ("burst.average_s", |s| s.burst.average_s = -1.0),
        ("burst.decay_after_s", |s| s.burst.decay_after_s = -1.0),
        ("protect.max_node_fraction", |s| s.protect.max_node_fraction = 1.1),
        ("protect.max_node_fraction", |s| s.protect.max_node_fraction = 0.01),
        ("protect.allow", |s| s.protect.allow.clear()),
        ("protect.allow", |s| s.protect.allow = vec![protect::Means::Quota, protect::Means::Quota]),
        ("protect.shares", |s| s.protect.shares = 1),
        ("protect.hold_s", |s| s.protect.hold_s = -1.0),
        ("cpuset.min_shared_cpus", |s| s.cpuset.min_shared_cpus = 0),
        ("cpuset.hold_s", |s| s.cpuset.hold_s = -1.0),
    ];
    for (field, spoil) in cases {
        let mut settings = PolicySettings::default();
        spoil(&mut settings);
        let error = settings.validate().expect_err(field);
        assert_eq!(error.field, field, "{error}");
    }
}

#[test]
fn on_a_node_that_is_another_agents_nothing_is_wanted() {
    let mut seen = snapshot(vec![with_quota(cgroup(1, "/plc", Class::Plc), 20_000)]);
    let mut state = PolicyState::default();
    assert_eq!(decide(&seen, &PolicySettings::default(), &mut state).wants.len(), 1);
    seen.node.hands_off = Some("koordlet runs".into());
    let plan = decide(&seen, &PolicySettings::default(), &mut state);
    assert_eq!((plan.wants.len(), plan.notes), (0, vec!["Nothing is changed on this node: koordlet runs".to_owned()]));
    assert_eq!(react(&Trigger::Throttled { id: 1 }, &PolicySettings::default(), &mut state), []);
}

#[test]
fn a_quota_around_a_plc_is_lifted_at_once_when_it_runs_out() {
    let seen = snapshot(vec![
        with_quota(cgroup(1, "/pod", Class::Ls), 50_000),
        with_quota(cgroup(2, "/pod/plc", Class::Plc), 20_000),
        with_quota(cgroup(3, "/pod/plc/helper", Class::Ls), 10_000),
        with_quota(cgroup(4, "/pod/other", Class::Ls), 10_000),
        with_quota(cgroup(5, "/plc2", Class::Plc), 10_000),
    ]);
    let mut settings = PolicySettings::default();
    settings.protect.when = protect::When::Throttled;
    let mut state = PolicyState::default();
    assert!(decide(&seen, &settings, &mut state).wants.is_empty(), "nothing has run out yet");
    assert!(react(&Trigger::Throttled { id: 4 }, &settings, &mut state).is_empty(), "holds for no PLC");
    assert!(react(&Trigger::Throttled { id: 99 }, &settings, &mut state).is_empty(), "never seen");
    let lifted = ["/pod", "/pod/plc", "/pod/plc/helper"].map(|path| (path, Knob::Quota, "max 100000".to_owned()));
    let wants = react(&Trigger::Throttled { id: 1 }, &settings, &mut state);
    assert_eq!(shown(&wants), lifted);
    assert!(wants.iter().all(|want| want.reason.contains("50000 us per 100000 us") || want.path != "/pod"));
    // The next Plan wants the same, although the quotas are gone by then.
    let mut next = seen.clone();
    for cgroup in next.cgroups.iter_mut().filter(|cgroup| lifted.iter().any(|(path, ..)| cgroup.path == *path)) {
        cgroup.knobs.as_mut().unwrap().quota = Some(Bandwidth::UNLIMITED);
    }
    assert_eq!(shown(&decide(&next, &settings, &mut state).wants), lifted);
}

#[test]
fn an_unmanaged_quota_around_a_plc_is_told_and_left() {
    let mut slice = with_quota(cgroup(1, "/slice", Class::Ls), 50_000);
    slice.unmanaged = true;
    let seen = snapshot(vec![slice, with_quota(cgroup(2, "/slice/plc", Class::Plc), 20_000)]);
    let plan = decide(&seen, &PolicySettings::default(), &mut PolicyState::default());
    assert_eq!(shown(&plan.wants), [("/slice/plc", Knob::Quota, "max 100000".to_owned())]);
    assert!(plan.notes.contains(&"protect: /slice holds a PLC back by its quota, but is unmanaged".to_owned()));
}

#[test]
fn late_wakeups_cut_best_effort_work_once_the_budget_is_broken_for_the_interval() {
    let seen = snapshot(vec![cgroup(1, "/be", Class::Be), late(cgroup(2, "/plc", Class::Plc), 10_000)]);
    let (settings, mut state) = (PolicySettings::default(), PolicyState::default());
    assert!(decide(&seen, &settings, &mut state).wants.is_empty());
    let late_at =
        |at_ms: u64, latency_ns, times| Trigger::Late { id: 2, at_ns: at_ms * 1_000_000, latency_ns, times, by: 1 };
    let late_by = |latency_ns| late_at(1_000, latency_ns, 1);
    assert!(react(&late_by(200_000), &settings, &mut state).is_empty(), "within 200 us");
    // 1000 wake-ups in the last interval: p99 leaves 10 of them.
    for n in 0..7 {
        assert!(react(&late_by(300_000), &settings, &mut state).is_empty(), "{n}");
    }
    assert!(react(&late_at(1_000, 300_000, 3), &settings, &mut state).is_empty(), "three at once");
    // It used 1 CPU, so that half of it is what is felt.
    let wants = react(&late_by(300_000), &settings, &mut state);
    assert_eq!(shown(&wants), [("/be", Knob::Quota, "50000 100000".to_owned())]);
    assert!(wants[0].reason.contains("/plc was 300000 ns late"), "{}", wants[0].reason);
    assert!(react(&late_at(1_100, 900_000, 5), &settings, &mut state).is_empty(), "began before the cut could show");
    // The interval with the breach is no reason for another cut: most of it was before this one.
    let broken = snapshot(vec![cgroup(1, "/be", Class::Be), late(cgroup(2, "/plc", Class::Plc), 300_000)]);
    assert_eq!(shown(&decide(&broken, &settings, &mut state).wants), shown(&wants));
    assert_eq!(shown(&decide(&broken, &settings, &mut state).wants), [("/be", Knob::Quota, "25000 100000".to_owned())]);
}

#[test]
fn the_next_cut_waits_until_the_last_one_can_show_and_no_longer() {
    let seen = snapshot(vec![cgroup(1, "/be", Class::Be), late(cgroup(2, "/plc", Class::Plc), 10_000)]);
    let (settings, mut state) = (PolicySettings::default(), PolicyState::default());
    decide(&seen, &settings, &mut state);
    let quota_after = |at_ms: u64, state: &mut PolicyState| {
        let late = Trigger::Late { id: 2, at_ns: at_ms * 1_000_000, latency_ns: 1_000_000, times: 20, by: 1 };
        react(&late, &settings, state).first().map(|want| want.setting.to_string())
    };
    assert_eq!(quota_after(1_000, &mut state).as_deref(), Some("50000 100000"));
    for at_ms in [1_001, 1_050, 1_100] {
        assert_eq!(quota_after(at_ms, &mut state), None, "{at_ms} ms");
    }
    assert_eq!(quota_after(1_101, &mut state).as_deref(), Some("25000 100000"));
    assert_eq!(quota_after(1_202, &mut state).as_deref(), Some("12500 100000"));
}

#[test]
fn fair_tasks_are_late_from_their_smallest_limit_on_and_those_of_a_plc_are_not_judged() {
    let budget = |metric: &str, limit_ns| crate::snapshot::Budget { metric: metric.into(), limit_ns };
    let mut service = cgroup(1, "/service", Class::Ls);
    service.budgets = vec![budget("wakeup.max", 9_000_000), budget("wakeup.p90", 2_000_000), budget("timer.max", 5)];
    let mut plc = cgroup(2, "/plc", Class::Plc);
    plc.budgets = vec![budget("wakeup.max", 50_000)];
    let seen = snapshot(vec![service, plc, cgroup(3, "/be", Class::Be)]);
    let mut state = PolicyState::default();
    decide(&seen, &PolicySettings::default(), &mut state);
    assert_eq!(late_from(&state), HashMap::from([(1, 2_000_000)]));
}

#[test]
fn a_plc_that_turns_up_between_two_snapshots_is_lifted_at_once_with_what_contains_it() {
    let slice = with_quota(cgroup(1, "/slice", Class::Ls), 50_000);
    let other = with_quota(cgroup(3, "/other", Class::Plc), 10_000);
    let seen = snapshot(vec![slice.clone(), other]);
    let (settings, mut state) = (PolicySettings::default(), PolicyState::default());
    let plan = decide(&seen, &settings, &mut state);
    assert_eq!(shown(&plan.wants), [("/other", Knob::Quota, "max 100000".to_owned())]);
    let plc = with_quota(cgroup(2, "/slice/plc", Class::Plc), 20_000);
    let wants = discover(&[slice.clone(), plc.clone()], &settings, &mut state);
    let lifted =
        [("/slice", Knob::Quota, "max 100000".to_owned()), ("/slice/plc", Knob::Quota, "max 100000".to_owned())];
    assert_eq!(shown(&wants), lifted);
    // The next Snapshot shows guard's own values, which are not taken for the originals.
    let unlimited = |mut cgroup: Cgroup| {
        cgroup.knobs.as_mut().unwrap().quota = Some(Bandwidth::UNLIMITED);
        cgroup
    };
    let plan = decide(&snapshot(vec![unlimited(slice.clone()), unlimited(plc.clone())]), &settings, &mut state);
    assert_eq!(shown(&plan.wants), lifted);

    let waiting = protect::ProtectSettings { when: protect::When::Throttled, ..protect::ProtectSettings::default() };
    let waiting = PolicySettings { protect: waiting, ..PolicySettings::default() };
    let mut state = PolicyState::default();
    decide(&snapshot(vec![slice.clone()]), &waiting, &mut state);
    assert!(discover(&[slice.clone(), plc.clone()], &waiting, &mut state).is_empty(), "not before a throttle");
    assert_eq!(react(&Trigger::Throttled { id: 2 }, &waiting, &mut state).len(), 2, "but known to be a PLC");

    let unmanaged = Cgroup { unmanaged: true, ..plc };
    let mut state = PolicyState::default();
    decide(&snapshot(vec![slice.clone()]), &settings, &mut state);
    assert_eq!(shown(&discover(&[slice, unmanaged], &settings, &mut state)), lifted[..1]);
}

#[test]
fn on_a_kernel_that_forgets_affinities_no_cpus_are_moved_unless_that_is_accepted() {
    let mut plc = cgroup(1, "/plc", Class::Plc);
    plc.request_milli = Some(1_000);
    let mut settings = PolicySettings::default();
    settings.cpuset.enabled = true;
    for (kernel, accepted, gives) in [
        ("6.1.0-37-rt-amd64", false, false),
        ("6.1.0-37-rt-amd64", true, true),
        ("6.2.0", false, true),
        ("", false, true),
    ] {
        let mut seen = snapshot(vec![plc.clone(), cgroup(2, "/ls", Class::Ls)]);
        seen.node.kernel = kernel.into();
        settings.cpuset.forget_affinity = accepted;
        let plan = decide(&seen, &settings, &mut PolicyState::default());
        assert_eq!(plan.want(1, Knob::Cpus).is_some(), gives, "{kernel} {accepted}: {plan:?}");
        assert_eq!(plan.notes.iter().any(|note| note.contains("forget the affinity")), !gives, "{:?}", plan.notes);
    }
}

#[test]
fn a_budget_on_the_maximum_is_broken_by_one_wakeup() {
    let mut plc = late(cgroup(2, "/plc", Class::Plc), 10_000);
    plc.budgets = vec![crate::snapshot::Budget { metric: "wakeup.max".into(), limit_ns: 50_000 }];
    let seen = snapshot(vec![cgroup(1, "/be", Class::Be), plc]);
    let (settings, mut state) = (PolicySettings::default(), PolicyState::default());
    decide(&seen, &settings, &mut state);
    assert_eq!(
        react(&Trigger::Late { id: 2, at_ns: 1, latency_ns: 50_001, times: 1, by: 0 }, &settings, &mut state).len(),
        1
    );
}

#[test]
fn best_effort_work_that_holds_a_plcs_lock_is_left_alone() {
    let breach = |owner: u32, culprit: Option<&str>, prev: Option<&str>| Breach {
        at: String::new(),
        tid: 1,
        comm: "cycle".into(),
        cgroup: "/plc".into(),
        kind: "wakeup".into(),
        latency_ns: 1_000_000,
        cause: "unknown".into(),
        culprit: culprit.map(|path| Culprit {
            tid: 7,
            comm: "x".into(),
            cgroup: Some(path.into()),
            ..Culprit::default()
        }),
        shares: std::collections::BTreeMap::new(),
        sentence: String::new(),
        evidence: Evidence {
            lock_wait_ns: 900_000,
            lock_owner: owner,
            prev_tid: 7,
            prev_prio: 120,
            prev_cgroup: prev.map(Into::into),
            ..Evidence::default()
        },
    };
    let cgroups = || {
        vec![
            cgroup(1, "/be", Class::Be),
            cgroup(2, "/be/a", Class::Be),
            cgroup(3, "/be/b", Class::Be),
            late(cgroup(4, "/plc", Class::Plc), 300_000),
        ]
    };
    let all = vec!["/be"];
    for (name, breach, shrunk) in [
        ("by the culprit", breach(0, Some("/be/a"), None), vec!["/be/b"]),
        ("by who left the CPU, where that is the owner", breach(7, None, Some("/be/a")), vec!["/be/b"]),
        ("who left the CPU is not the owner", breach(8, None, Some("/be/a")), all.clone()),
        ("the owner is no best-effort work", breach(0, Some("/plc"), None), all.clone()),
        ("the cgroup of all is the owner's own", breach(0, Some("/be"), None), vec!["/be/a", "/be/b"]),
    ] {
        let mut seen = snapshot(cgroups());
        seen.breaches = vec![breach];
        let mut state = PolicyState::default();
        let plan = decide(&seen, &PolicySettings::default(), &mut state);
        assert_eq!(plan.wants.iter().map(|want| want.path.as_str()).collect::<Vec<_>>(), shrunk, "{name}");
    }
    let mut seen = snapshot(cgroups());
    seen.cgroups[1].lock.futex_boosts = Some(1);
    let mut settings = PolicySettings::default();
    assert_eq!(decide(&seen, &settings, &mut PolicyState::default()).wants[0].path, "/be/b");
    settings.suppress.shared_lock_boosts = 0;
    assert_eq!(decide(&seen, &settings, &mut PolicyState::default()).wants[0].path, "/be");
    // Boosts without a PLC are somebody else's locks.
    seen.cgroups.pop();
    settings = PolicySettings::default();
    settings.suppress.profile = suppress::Profile::Pressure;
    settings.suppress.reserved_milli = 1000;
    seen.node.cpu_pressure = Some(crate::snapshot::Pressure { some_ns: 900_000_000, full_ns: None });
    assert_eq!(decide(&seen, &settings, &mut PolicyState::default()).wants[0].path, "/be");
}

#[test]
fn best_effort_work_is_shrunk_at_the_top_but_never_around_others() {
    for (name, inside, shrunk) in [
        ("all best-effort", vec![], vec!["/be"]),
        ("with a PLC in it", vec![cgroup(9, "/be/x", Class::Plc)], vec!["/be/a", "/be/b"]),
        ("with LS in it", vec![cgroup(9, "/be/a/x", Class::Ls)], vec!["/be/a/y", "/be/b"]),
        ("with the system's in it", vec![cgroup(9, "/be/b/x", Class::System)], vec!["/be/a"]),
        (
            "with an unmanaged one in it",
            vec![Cgroup { unmanaged: true, ..cgroup(9, "/be/b/x", Class::Be) }],
            vec!["/be/a"],
        ),
    ] {
        let mut cgroups = vec![
            cgroup(1, "/be", Class::Be),
            cgroup(2, "/be/a", Class::Be),
            cgroup(3, "/be/a/y", Class::Be),
            cgroup(4, "/be/b", Class::Be),
            late(cgroup(5, "/plc", Class::Plc), 300_000),
        ];
        cgroups.extend(inside);
        let plan = decide(&snapshot(cgroups), &PolicySettings::default(), &mut PolicyState::default());
        assert_eq!(plan.wants.iter().map(|want| want.path.as_str()).collect::<Vec<_>>(), shrunk, "{name}");
    }
}

#[test]
fn a_shrunk_quota_takes_larger_ones_below_and_bursts_with_it() {
    let mut child = with_quota(cgroup(2, "/be/a", Class::Be), 200_000);
    child.knobs.as_mut().unwrap().burst_us = Some(150_000);
    let small = with_quota(cgroup(3, "/be/b", Class::Be), 10_000);
    let seen = snapshot(vec![cgroup(1, "/be", Class::Be), child, small, late(cgroup(4, "/plc", Class::Plc), 300_000)]);
    let plan = decide(&seen, &PolicySettings::default(), &mut PolicyState::default());
    let half = "50000 100000".to_owned();
    assert_eq!(
        shown(&plan.wants),
        [("/be", Knob::Quota, half.clone()), ("/be/a", Knob::Quota, half), ("/be/a", Knob::Burst, "50000".to_owned())]
    );
    let mut smaller = seen.clone();
    smaller.cgroups[0] = with_quota(cgroup(1, "/be", Class::Be), 30_000);
    let plan = decide(&smaller, &PolicySettings::default(), &mut PolicyState::default());
    assert_eq!(plan.wants, [], "what had less before is not raised");
}

fn want(origin: Origin, direction: Direction, path: &str, id: u64, setting: Setting) -> Want {
    let (path, reason) = (path.to_owned(), format!("{} wants it", origin.name()));
    Want { path, id, setting, origin, direction, reason, evidence: std::collections::BTreeMap::new() }
}

#[test]
fn each_knob_has_one_owner_by_the_written_rule() {
    let quota = |us| Setting::Quota(Bandwidth { quota_us: Some(us), period_us: 100_000 });
    let cpus = |text| Setting::Cpus(list(text));
    let (lift, reduce) = (Direction::Lift, Direction::Reduce);
    let a = |origin, direction, setting| want(origin, direction, "/a", 1, setting);
    let b = |origin, direction, setting| want(origin, direction, "/a/b", 2, setting);
    let seen = snapshot(vec![
        with_quota(cgroup(1, "/a", Class::Ls), 100_000),
        with_quota(cgroup(2, "/a/b", Class::Ls), 50_000),
        cgroup(3, "/c", Class::Be),
    ]);
    let model = Model::new(&seen, &Ledger::default());
    for (name, wants, merged) in [
        (
            "protect before burst",
            vec![a(Origin::Burst, lift, quota(120_000)), a(Origin::Protect, lift, quota(150_000))],
            vec![("/a", Knob::Quota, "150000 100000")],
        ),
        (
            "two that shrink a set of CPUs both get their way",
            vec![a(Origin::Suppress, reduce, cpus("0-2")), a(Origin::Cpuset, reduce, cpus("1-3"))],
            vec![("/a", Knob::Cpus, "1-2")],
        ),
        (
            "unless nothing were left",
            vec![a(Origin::Suppress, reduce, cpus("0-1")), a(Origin::Cpuset, reduce, cpus("2-3"))],
            vec![("/a", Knob::Cpus, "2-3")],
        ),
        (
            "a child gets no more than its parent has",
            vec![b(Origin::Burst, lift, quota(300_000))],
            vec![("/a/b", Knob::Quota, "100000 100000")],
        ),
        (
            "or is given",
            vec![b(Origin::Burst, lift, quota(300_000)), a(Origin::Burst, lift, quota(200_000))],
            vec![("/a", Knob::Quota, "200000 100000"), ("/a/b", Knob::Quota, "200000 100000")],
        ),
        ("what it had is not wanted", vec![a(Origin::Burst, lift, quota(100_000))], vec![]),
        (
            "a burst is bounded by the quota",
            vec![b(Origin::Burst, lift, Setting::Burst(90_000))],
            vec![("/a/b", Knob::Burst, "50000")],
        ),
        ("without a quota there is no burst", vec![want(Origin::Burst, lift, "/c", 3, Setting::Burst(5))], vec![]),
        ("another cgroup under the same path", vec![want(Origin::Burst, lift, "/a", 7, quota(120_000))], vec![]),
        ("one that is not there", vec![want(Origin::Burst, lift, "/x", 7, quota(120_000))], vec![]),
    ] {
        let mut notes = Vec::new();
        let wants = plan::merge(wants, &model, &mut notes);
        let expected: Vec<(&str, Knob, String)> = merged.into_iter().map(|(p, k, v)| (p, k, v.to_owned())).collect();
        assert_eq!(shown(&wants), expected, "{name}: {notes:?}");
    }
}

#[test]
fn a_value_that_could_not_be_put_back_is_not_taken_for_the_original() {
    let (settings, mut state) = (PolicySettings::default(), PolicyState::default());
    let plc = |quota: Option<u64>| {
        let mut cgroup = cgroup(1, "/plc", Class::Plc);
        cgroup.knobs.as_mut().unwrap().quota = Some(Bandwidth { quota_us: quota, period_us: 100_000 });
        cgroup
    };
    assert_eq!(decide(&snapshot(vec![plc(Some(20_000))]), &settings, &mut state).wants.len(), 1);
    let ls = |quota| Cgroup { class: Class::Ls, ..plc(quota) };
    for _ in 0..31 {
        decide(&snapshot(vec![ls(None)]), &settings, &mut state);
    }
    assert!(decide(&snapshot(vec![ls(None)]), &settings, &mut state).wants.is_empty(), "released");
    // A PLC again, and the file still holds what guard wrote.
    assert_eq!(decide(&snapshot(vec![plc(None)]), &settings, &mut state).wants.len(), 1);
}

#[test]
fn a_cgroup_that_lets_others_in_keeps_its_own_cpus_to_itself() {
    let mut plc = cgroup(1, "/box/in", Class::Plc);
    let mut around = cgroup(2, "/box", Class::Ls);
    let container = crate::snapshot::Container { runtime: "podman".into(), id: "1".into(), ..Default::default() };
    (plc.container, around.container) = (Some(container.clone()), Some(container));
    around.knobs.as_mut().unwrap().cpus = Some(list("3"));
    let seen = snapshot(vec![plc, around, cgroup(3, "/be", Class::Be), cgroup(4, "/web", Class::Ls)]);
    let mut settings = PolicySettings::default();
    settings.cpuset.enabled = true;
    let plan = decide(&seen, &settings, &mut PolicyState::default());
    assert_eq!(
        shown(&plan.wants),
        [("/be", Knob::Cpus, "0-2".to_owned()), ("/web", Knob::Cpus, "0-2".to_owned())],
        "{:?}",
        plan.notes
    );
}

#[test]
fn cpus_that_cannot_be_given_are_told() {
    let mut plc = cgroup(1, "/plc", Class::Plc);
    plc.request_milli = Some(4000);
    let mut settings = PolicySettings::default();
    settings.cpuset.enabled = true;
    let plan = decide(&snapshot(vec![plc, cgroup(2, "/web", Class::Ls)]), &settings, &mut PolicyState::default());
    assert!(plan.wants.is_empty(), "{:?}", plan.wants);
    assert!(
        plan.notes.iter().any(|note| note.starts_with("cpuset: /plc gets no CPUs of its own: 4")),
        "{:?}",
        plan.notes
    );
}

#[test]
fn pressure_is_what_others_wait_but_no_more_than_the_utilisation() {
    let mut settings = PolicySettings::default();
    settings.suppress.profile = suppress::Profile::Pressure;
    settings.suppress.reserved_milli = 500;
    let psi = |percent: u64| crate::snapshot::Pressure { some_ns: percent * 10_000_000, full_ns: None };
    let (of_web, of_node) = ("cgroups[/web].cpu_pressure.some_ns", "node.cpu_pressure.some_ns");
    let (waits, busy) = ("cgroups[/web].wakeup.sum_ns", "cpus[].busy_ns");
    // Percent: PSI of LS, PSI of the node, LS's share of time in the run queue, utilisation.
    for (ls, node, wait, utilised, source) in [
        (Some(60), Some(90), 10, Some(80), Some((of_web, 60.0))),
        (None, Some(90), 10, Some(95), Some((of_node, 90.0))),
        (None, None, 10, Some(95), Some((waits, 10.0))),
        (None, None, 10, None, Some((waits, 10.0))),
        // They wait while CPUs are idle: for a quota.
        (Some(60), None, 10, Some(20), Some((busy, 20.0))),
        (None, Some(100), 10, Some(30), Some((busy, 30.0))),
    ] {
        let mut web = cgroup(2, "/web", Class::Ls);
        web.cpu_pressure = ls.map(psi);
        web.wakeup.fair.record(wait * 10_000_000);
        let mut be = cgroup(1, "/be", Class::Be);
        be.cpu_pressure = Some(psi(100));
        let mut seen = snapshot(vec![be, web]);
        seen.node.cpu_pressure = node.map(psi);
        let cpu = |cpu| crate::snapshot::Cpu { cpu, busy_ns: utilised.map(|u| u * 10_000_000), ..Default::default() };
        seen.cpus = (0..4).map(cpu).collect();
        let plan = decide(&seen, &settings, &mut PolicyState::default());
        let evidence = &plan.wants[0].evidence;
        let found = source.and_then(|(name, percent)| Some((name, *evidence.get(name)?, percent)));
        let (name, value, percent) = found.unwrap_or_else(|| panic!("{source:?} not in {evidence:?}"));
        assert!((value - percent).abs() < 1e-6, "{name}: {value}, not {percent}");
    }
    let mut blind = snapshot(vec![cgroup(1, "/be", Class::Be)]);
    blind.signals.clear();
    let plan = decide(&blind, &settings, &mut PolicyState::default());
    assert!(plan.wants.is_empty());
    assert!(plan.notes.iter().any(|note| note.contains("no CPU pressure")), "{:?}", plan.notes);
}

//! A node in virtual time, as small as shows what the policies answer to: cgroups with a demand for CPU, quotas and
//! sets of CPUs that bound it, capacity that best-effort work gets the rest of, and wake-ups that are later the more
//! best-effort work runs. It takes a Plan as the executor would, and refuses what the kernel would.

use std::collections::BTreeMap;

use guard::{
    knob::{Knob, Setting},
    policy::{Plan, Want},
    snapshot::{
        Bandwidth, Budget, Cgroup, CgroupLayout, Class, Container, Cpu, CpuList, CpuPlace, CpuStat, Knobs, Node,
        Overhead, Pressure, SCHEMA, Signal, SignalState, Snapshot, Window,
    },
};
use serde::Deserialize;

/// What a node is like.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Machine {
    pub(crate) cpus: u32,
    /// Hardware threads of a core.
    #[serde(default = "one")]
    pub(crate) threads_per_core: u32,
    /// NUMA nodes.
    #[serde(default = "one")]
    pub(crate) numa_nodes: u32,
    #[serde(default)]
    pub(crate) reserved_cpus: CpuList,
    #[serde(default)]
    pub(crate) isolated_cpus: CpuList,
    /// Where PSI is to be had.
    #[serde(default)]
    pub(crate) psi: Psi,
    pub(crate) cgroups: Vec<Group>,
}

fn one() -> u32 {
    1
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Psi {
    Cgroups,
    Node,
    #[default]
    None,
}

/// A cgroup.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Group {
    pub(crate) path: String,
    pub(crate) class: Class,
    /// From when (s) how much CPU its own threads would use, in thousandths of a CPU.
    pub(crate) demand: Vec<(f64, u64)>,
    pub(crate) quota_us: Option<u64>,
    pub(crate) period_us: Option<u64>,
    pub(crate) burst_us: u64,
    pub(crate) shares: Option<u64>,
    pub(crate) cpus: CpuList,
    pub(crate) request_milli: Option<u64>,
    pub(crate) rt_threads: Option<u32>,
    pub(crate) unmanaged: bool,
    pub(crate) container: Option<String>,
    pub(crate) budgets: Vec<Budget>,
    /// Wake-up latency without best-effort work, us.
    pub(crate) base_us: u64,
    /// How much later a wake-up is for each CPU that best-effort work uses, us.
    pub(crate) per_be_cpu_us: u64,
    /// From when to when (s) it is not there.
    pub(crate) absent: Option<(f64, f64)>,
    /// From when (s) its threads are boosted how often in an interval.
    pub(crate) boosts: Vec<(f64, u64)>,
}

/// A node at work.
pub(crate) struct Sim {
    machine: Machine,
    /// Virtual time, s.
    pub(crate) now_s: f64,
    /// Knobs as they are.
    pub(crate) knobs: BTreeMap<u64, Knobs>,
    originals: BTreeMap<u64, Knobs>,
    held: BTreeMap<(u64, Knob), Setting>,
    random: u64,
}

/// The id of a cgroup is its place in the list, from 100 on.
pub(crate) fn id_of(index: usize) -> u64 {
    100 + index as u64
}

impl Sim {
    pub(crate) fn new(machine: Machine) -> Self {
        let originals: BTreeMap<u64, Knobs> =
            machine.cgroups.iter().enumerate().map(|(index, group)| (id_of(index), knobs(group))).collect();
        Self { machine, now_s: 0.0, knobs: originals.clone(), originals, held: BTreeMap::new(), random: 1 }
    }

    pub(crate) fn capacity_milli(&self) -> u64 {
        u64::from(self.machine.cpus) * 1000
    }

    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }

    fn present(&self) -> impl Iterator<Item = (u64, &Group)> {
        let now = self.now_s;
        self.machine
            .cgroups
            .iter()
            .enumerate()
            .filter(move |(_, group)| group.absent.is_none_or(|(from, to)| now < from || now >= to))
            .map(|(index, group)| (id_of(index), group))
    }

    /// Lets `seconds` pass and says what the node was like.
    pub(crate) fn run(&mut self, seconds: f64) -> Snapshot {
        let use_ = self.allocate();
        let be_cpus =
            use_.own.iter().filter(|(id, _)| self.class(**id) == Class::Be).map(|(_, m)| m).sum::<f64>() / 1000.0;
        let all: f64 = use_.own.values().sum();
        let capacity = self.capacity_milli() as f64;
        let ns = |milli: f64| (milli * seconds * 1e6) as u64;
        let stalled = Pressure { some_ns: ns(1000.0 * (all / capacity).powi(2)), full_ns: None };
        let mut cgroups = Vec::new();
        let present: Vec<(u64, Group)> = self.present().map(|(id, group)| (id, group.clone())).collect();
        for (id, group) in present {
            let mut cgroup = Cgroup {
                path: group.path.clone(),
                id,
                class: group.class,
                knobs: self.knobs.get(&id).cloned(),
                cpu_ns: Some(ns(use_.total.get(&id).copied().unwrap_or(0.0))),
                request_milli: group.request_milli,
                rt_threads: group.rt_threads,
                unmanaged: group.unmanaged,
                budgets: group.budgets.clone(),
                container: group.container.clone().map(|id| Container {
                    runtime: "podman".into(),
                    id,
                    ..Container::default()
                }),
                ..Cgroup::default()
            };
            cgroup.lock.futex_boosts = at(&group.boosts, self.now_s);
            let nr_throttled = if use_.throttled.contains(&id) { 10 } else { 0 };
            cgroup.throttle.cpu_stat =
                Some(CpuStat { nr_periods: 10, nr_throttled, throttled_ns: nr_throttled * 1000 });
            if self.machine.psi == Psi::Cgroups && group.class != Class::Be {
                cgroup.cpu_pressure = Some(stalled);
            }
            for _ in 0..20 {
                let latency_us = group.base_us as f64 + group.per_be_cpu_us as f64 * be_cpus;
                let latency_ns = (latency_us * 1000.0 * (0.95 + 0.1 * self.noise())) as u64;
                let latency = if group.class == Class::Plc { &mut cgroup.wakeup.rt } else { &mut cgroup.wakeup.fair };
                latency.record(latency_ns);
            }
            cgroups.push(cgroup);
        }
        let start = format!("{:.3}", self.now_s);
        self.now_s += seconds;
        let cores = u32::max(1, self.machine.threads_per_core);
        let cpus = (0..self.machine.cpus).map(|cpu| Cpu {
            cpu,
            busy_ns: Some(ns(all / f64::from(self.machine.cpus))),
            isolated: self.machine.isolated_cpus.contains(cpu),
            place: Some(CpuPlace {
                node: cpu * self.machine.numa_nodes / self.machine.cpus,
                package: 0,
                core: cpu / cores * cores,
            }),
            ..Cpu::default()
        });
        let signal = Signal { name: "wakeup".into(), source: "sim".into(), state: SignalState::Active, reason: None };
        Snapshot {
            schema: SCHEMA,
            node: Node {
                cpus: (0..self.machine.cpus).collect::<CpuList>().to_string(),
                cgroup: CgroupLayout::V2,
                reserved_cpus: self.machine.reserved_cpus.clone(),
                cpu_pressure: (self.machine.psi == Psi::Node).then_some(stalled),
                ..Node::default()
            },
            window: Window { start, seconds },
            signals: vec![signal],
            overhead: Overhead::default(),
            cpus: cpus.collect(),
            cgroups,
            threads: Vec::new(),
            breaches: Vec::new(),
            inversions: Vec::new(),
            actions: Vec::new(),
        }
    }

    /// Does what a Plan says, and puts back what it does not name, as the executor does. Fails on what the kernel or the
    /// rules of the house refuse.
    pub(crate) fn apply(&mut self, plan: &Plan) -> Result<(), String> {
        let released: Vec<(u64, Knob)> =
            self.held.keys().filter(|(id, knob)| plan.want(*id, *knob).is_none()).copied().collect();
        for (id, knob) in released {
            self.held.remove(&(id, knob));
            let original = self.originals.get(&id).cloned().unwrap_or_default();
            let now = self.knobs.entry(id).or_default();
            match knob {
                Knob::Quota => now.quota = original.quota,
                Knob::Burst => now.burst_us = original.burst_us,
                Knob::Shares => now.shares = original.shares,
                Knob::Cpus => now.cpus = original.cpus,
                other => return Err(format!("{other} was held, which no policy sets")),
            }
        }
        self.add(&plan.wants)
    }

    /// Writes wants, as after a trigger.
    pub(crate) fn add(&mut self, wants: &[Want]) -> Result<(), String> {
        for want in wants {
            let index = usize::try_from(want.id).unwrap_or_default().wrapping_sub(100);
            let known = self.machine.cgroups.get(index).filter(|group| group.path == want.path);
            let group = known.ok_or_else(|| format!("{} was never there", want.path))?;
            if !self.present().any(|(id, _)| id == want.id) {
                // It went between the Snapshot and the write.
                continue;
            }
            if group.unmanaged {
                return Err(format!("{} is unmanaged", want.path));
            }
            if want.reason.is_empty() {
                return Err(format!("{} of {} has no reason", want.setting.knob(), want.path));
            }
            self.held.insert((want.id, want.setting.knob()), want.setting.clone());
            let now = self.knobs.entry(want.id).or_default();
            match &want.setting {
                Setting::Quota(quota) => now.quota = Some(*quota),
                Setting::Burst(us) => now.burst_us = Some(*us),
                Setting::Shares(shares) => now.shares = Some(*shares),
                Setting::Cpus(cpus) => now.cpus = Some(cpus.clone()),
                other => return Err(format!("{} is set by no policy", other.knob())),
            }
        }
        self.check()
    }

    /// What the kernel (v1, the stricter one) would refuse, of cgroups whose quota is not as it was found.
    fn check(&self) -> Result<(), String> {
        let touched = |id: u64| self.held.contains_key(&(id, Knob::Quota));
        for (id, group) in self.present() {
            let (Some(knobs), path) = (self.knobs.get(&id), &group.path) else { continue };
            let quota = knobs.quota.unwrap_or(Bandwidth::UNLIMITED);
            if !(1000..=1_000_000).contains(&quota.period_us) || quota.quota_us.is_some_and(|us| us < 1000) {
                return Err(format!("{path}: cpu.max {quota} is outside the kernel's limits"));
            }
            if let (Some(burst), Some(us)) = (knobs.burst_us, quota.quota_us)
                && burst > us
                && (touched(id) || self.held.contains_key(&(id, Knob::Burst)))
            {
                return Err(format!("{path}: burst {burst} is above quota {us}"));
            }
            if knobs.shares.is_some_and(|shares| !(2..=262_144).contains(&shares)) {
                return Err(format!("{path}: shares {:?}", knobs.shares));
            }
            if self.held.contains_key(&(id, Knob::Cpus)) {
                let cpus = knobs.cpus.clone().unwrap_or_default();
                if cpus.is_empty() || cpus.iter().any(|cpu| cpu >= self.machine.cpus) {
                    return Err(format!("{path}: cpuset {cpus:?} cannot be"));
                }
            }
            for (above, around) in self.present() {
                let is_around = path.starts_with(&format!("{}/", around.path));
                let of = self.knobs.get(&above).and_then(|knobs| knobs.quota).unwrap_or(Bandwidth::UNLIMITED);
                let both = quota.quota_us.is_some() && (touched(id) || touched(above));
                if is_around && both && !of.covers(quota) {
                    return Err(format!("{path}: quota {quota} is above the {of} of {}", around.path));
                }
            }
        }
        Ok(())
    }

    fn class(&self, id: u64) -> Class {
        self.present().find(|(other, _)| *other == id).map_or(Class::Ls, |(_, group)| group.class)
    }

    /// A number from 0 to 1, always the same sequence.
    fn noise(&mut self) -> f64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 40) as f64 / (1_u64 << 24) as f64
    }

    fn allocate(&self) -> Use {
        let mut groups: Vec<(u64, &Group)> = self.present().collect();
        let knobs = |id: u64| self.knobs.get(&id).cloned().unwrap_or_default();
        let mut own: BTreeMap<u64, f64> = BTreeMap::new();
        for (id, group) in &groups {
            let cpus =
                knobs(*id).cpus.filter(|cpus| !cpus.is_empty()).map_or(self.machine.cpus as usize, |cpus| cpus.len());
            let demand = at(&group.demand, self.now_s).unwrap_or(0);
            own.insert(*id, (demand as f64).min(cpus as f64 * 1000.0));
        }
        // Children before parents: each quota scales what is below it.
        groups.sort_by_key(|(_, group)| std::cmp::Reverse(group.path.len()));
        let mut throttled = Vec::new();
        let inside = |group: &Group, path: &str| group.path == path || group.path.starts_with(&format!("{path}/"));
        for (id, group) in &groups {
            let Some(limit) = knobs(*id).quota.and_then(Bandwidth::milli) else { continue };
            let below: Vec<u64> =
                groups.iter().filter(|(_, other)| inside(other, &group.path)).map(|(id, _)| *id).collect();
            let total: f64 = below.iter().map(|id| own[id]).sum();
            if total > limit as f64 {
                throttled.push(*id);
                below.iter().for_each(|id| *own.entry(*id).or_default() *= limit as f64 / total);
            }
        }
        // Best-effort work gets what the others leave.
        let mut left = self.capacity_milli() as f64;
        for best_effort in [false, true] {
            let ids: Vec<u64> = groups
                .iter()
                .filter(|(_, group)| (group.class == Class::Be) == best_effort)
                .map(|(id, _)| *id)
                .collect();
            let total: f64 = ids.iter().map(|id| own[id]).sum();
            if total > left {
                ids.iter().for_each(|id| *own.entry(*id).or_default() *= left / total);
            }
            left = (left - total).max(0.0);
        }
        let total = groups.iter().map(|(id, group)| {
            (*id, groups.iter().filter(|(_, other)| inside(other, &group.path)).map(|(id, _)| own[id]).sum())
        });
        Use { total: total.collect(), own: own.clone(), throttled }
    }
}

struct Use {
    own: BTreeMap<u64, f64>,
    total: BTreeMap<u64, f64>,
    throttled: Vec<u64>,
}

fn at<T: Copy>(steps: &[(f64, T)], now_s: f64) -> Option<T> {
    steps.iter().rev().find(|(from, _)| *from <= now_s).map(|(_, value)| *value)
}

fn knobs(group: &Group) -> Knobs {
    Knobs {
        quota: Some(Bandwidth { quota_us: group.quota_us, period_us: group.period_us.unwrap_or(100_000) }),
        burst_us: Some(group.burst_us),
        shares: Some(group.shares.unwrap_or(1024)),
        cpus: Some(group.cpus.clone()),
        ..Knobs::default()
    }
}

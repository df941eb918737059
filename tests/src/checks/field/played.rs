//! guard with no configuration beside control loops of every kind: found, named, their quotas lifted, best-effort work held
//! back, and all of it undone, by `guard restore` after SIGKILL and by a stop. A group of kinds shares two runs of guard,
//! because each takes an emulated guest half a minute; each kind is judged by itself.

use std::{sync::OnceLock, time::Duration};

use anyhow::{Context as _, Result, anyhow, ensure};
use guard::snapshot::{Cgroup, CgroupPath, Class, Snapshot};

use super::{
    no_field,
    picture::{Picture, quotas},
    plc::{self, BEST_EFFORT, Kind, Plc},
    shell::{limit, run},
};
use crate::{
    checks::loads,
    harness::{Enforcing, binary, patience, until},
    scenario::{Scenario, Verdict},
};

/// Kinds that are started together.
#[derive(Clone, Copy, Debug)]
enum Group {
    Units,
    Containerd,
    Podman,
    PodmanUnits,
}

impl Group {
    fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Units => &[Kind::Service, Kind::Template, Kind::Scope],
            Self::Containerd => &[Kind::Docker, Kind::Ctr, Kind::Pod],
            Self::Podman => &[Kind::PodmanCrun, Kind::PodmanRunc, Kind::PodmanCgroupfs],
            Self::PodmanUnits => &[Kind::PodmanSplit, Kind::Quadlet, Kind::Rootless],
        }
    }
}

/// What was seen of one control loop.
#[derive(Clone, Debug)]
struct Seen {
    kind: Kind,
    path: String,
    /// As guard saw it in its last interval.
    cgroup: Option<Cgroup>,
    /// Quotas around it while guard was at work.
    quotas: Vec<(String, String)>,
    /// Periods in which it or what contains it was throttled, in intervals after the one of the lift.
    throttled_after: u64,
    /// Why it could not be started.
    failed: Option<String>,
}

/// What was seen of a group.
#[derive(Clone, Debug)]
struct Played {
    seen: Vec<Seen>,
    /// The quota of the best-effort slice, before and during.
    best_effort: (String, String),
    /// What was wrong after kill and restore, and after a stop.
    after_kill: Option<String>,
    after_stop: Option<String>,
    files: usize,
}

/// The checks: one for each kind, and one for each group's undoing.
pub(super) fn all() -> Vec<Scenario> {
    macro_rules! kind {
        ($name:literal, $group:ident, $kind:ident) => {
            loads($name, || judged(Group::$group, Kind::$kind))
        };
    }
    vec![
        kind!("a PLC in a systemd service is found and its quota lifted", Units, Service),
        kind!("a PLC in a template's instance is freed of its slice's quota", Units, Template),
        kind!("a PLC in a transient scope is found and its quota lifted", Units, Scope),
        loads("best-effort work beside a PLC in a unit is held back", || best_effort(Group::Units)),
        loads("units are as before after a kill with guard restore, and after a stop", || undone(Group::Units)),
        kind!("a PLC in Docker is found, named and its quota lifted", Containerd, Docker),
        kind!("a PLC run by ctr is found, named and its quota lifted", Containerd, Ctr),
        kind!("a PLC in a pod over CRI is found, named and both quotas lifted", Containerd, Pod),
        loads("Docker and containerd are as before after a kill with guard restore, and after a stop", || {
            undone(Group::Containerd)
        }),
        kind!("a PLC in podman by crun is found, named and its quota lifted", Podman, PodmanCrun),
        kind!("a PLC in podman by runc is found, named and its quota lifted", Podman, PodmanRunc),
        kind!("a PLC in podman without systemd's cgroups is found and its quota lifted", Podman, PodmanCgroupfs),
        loads("podman's containers are as before after a kill with guard restore, and after a stop", || {
            undone(Group::Podman)
        }),
        kind!("a PLC in podman --cgroups=split is found and its quota lifted", PodmanUnits, PodmanSplit),
        kind!("a PLC of a Quadlet is found, named and its quota lifted", PodmanUnits, Quadlet),
        kind!("a PLC in rootless podman is found and its quota lifted", PodmanUnits, Rootless),
        loads("podman's units are as before after a kill with guard restore, and after a stop", || {
            undone(Group::PodmanUnits)
        }),
    ]
}

fn judged(group: Group, kind: Kind) -> Result<Verdict> {
    if let Some(reason) = no_field() {
        return Ok(Verdict::Skipped(reason));
    }
    let played = played(group)?;
    let seen = played.seen.iter().find(|seen| seen.kind == kind).context("this kind was not started")?;
    if let Some(failed) = &seen.failed {
        return Err(anyhow!("{failed}"));
    }
    let cgroup = seen.cgroup.as_ref().with_context(|| format!("guard did not see {}", seen.path))?;
    ensure!(cgroup.class == Class::Plc, "{} has class {:?}", seen.path, cgroup.class);
    let (runtime, name, image, pod) = kind.expected();
    let container = cgroup.container.as_ref().with_context(|| format!("{} belongs to nobody", seen.path))?;
    let called = if runtime == "systemd" { Some(container.id.as_str()) } else { container.name.as_deref() };
    ensure!(container.runtime == runtime && called == Some(name), "{} is {container:?}", seen.path);
    ensure!(image.is_none() || container.image.as_deref() == image, "{} is {container:?}", seen.path);
    ensure!(pod.is_none() || container.pod.as_deref() == pod, "{} is {container:?}", seen.path);
    let limited: Vec<_> = seen.quotas.iter().filter(|(_, text)| !text.starts_with("max")).collect();
    ensure!(limited.is_empty(), "with guard at work there still is {limited:?}");
    ensure!(seen.throttled_after == 0, "throttled {} times after the lift", seen.throttled_after);
    Ok(Verdict::Passed(format!("{}: {runtime} {name}, PLC, {} quotas lifted", seen.path, seen.quotas.len())))
}

fn best_effort(group: Group) -> Result<Verdict> {
    if let Some(reason) = no_field() {
        return Ok(Verdict::Skipped(reason));
    }
    let (before, during) = played(group)?.best_effort;
    ensure!(before.starts_with("max"), "{BEST_EFFORT} had a quota before: {before}");
    ensure!(!during.starts_with("max"), "{BEST_EFFORT} has no quota beside PLCs: {during}");
    Ok(Verdict::Passed(format!("{BEST_EFFORT}: {before} -> {during}")))
}

fn undone(group: Group) -> Result<Verdict> {
    if let Some(reason) = no_field() {
        return Ok(Verdict::Skipped(reason));
    }
    let played = played(group)?;
    for (what, wrong) in [("SIGKILL and guard restore", &played.after_kill), ("a stop", &played.after_stop)] {
        if let Some(wrong) = wrong {
            return Err(anyhow!("after {what}: {wrong}"));
        }
    }
    Ok(Verdict::Passed(format!("{} files, and systemd's view of its units", played.files)))
}

/// Plays a group, once.
fn played(group: Group) -> Result<Played> {
    static PLAYED: [OnceLock<Result<Played, String>>; 4] = [const { OnceLock::new() }; 4];
    let once = PLAYED[group as usize].get_or_init(|| play(group).map_err(|error| format!("{error:#}")));
    once.clone().map_err(|error| anyhow!("{group:?}: {error}"))
}

fn play(group: Group) -> Result<Played> {
    let mut seen = Vec::new();
    let mut loops: Vec<Plc> = Vec::new();
    for &kind in group.kinds() {
        let started = plc::start(kind);
        let path = started.as_ref().map_or_else(|_| String::new(), |plc| plc.cgroup.clone());
        let failed = started.as_ref().err().map(|error| format!("{error:#}"));
        println!("    {kind:?}: {}", failed.as_deref().unwrap_or(&path));
        seen.push(Seen { kind, path, cgroup: None, quotas: Vec::new(), throttled_after: 0, failed });
        loops.extend(started.ok());
    }
    ensure!(!loops.is_empty(), "no control loop could be started: {seen:?}");
    let _neighbour = Neighbour::start()?;
    let quota_of_best_effort =
        || quotas(&Neighbour::slice()).into_iter().next().map_or_else(|| "none".to_owned(), |(_, text)| text);
    let before = Picture::take()?;
    let unlimited = quota_of_best_effort();

    let mut guard = Enforcing::start(None)?;
    let all_lifted = || loops.iter().all(|plc| quotas(&plc.cgroup).iter().all(|(_, text)| text.starts_with("max")));
    // What is not lifted in time is reported by kind, below.
    let lifted = until("all quotas lifted", Duration::from_secs(20) * patience(), || {
        guard.snapshots()?;
        Ok((all_lifted() && !quota_of_best_effort().starts_with("max")).then_some(()))
    });
    if let Err(error) = &lifted {
        println!("    {group:?}: {error:#}");
    }
    let at = guard.snapshots()?.len();
    guard.passed(4)?;
    let best_effort = (unlimited, quota_of_best_effort());
    let snapshots = guard.snapshots()?;
    for seen in seen.iter_mut().filter(|seen| seen.failed.is_none()) {
        seen.quotas = quotas(&seen.path);
        let last = snapshots.iter().rev().flat_map(|snapshot| &snapshot.cgroups);
        seen.cgroup = last.into_iter().find(|cgroup| cgroup.path == seen.path).cloned();
        // The interval of the lift may have throttles from before, and the last one before it may not have been shown yet.
        seen.throttled_after = throttled(snapshots.get(at + 2..).unwrap_or_default(), &seen.path);
    }
    guard.kill_and_restore()?;
    let after_kill = Picture::take()?.expect_as_in(&before).err().map(|error| format!("{error:#}"));

    let guard = Enforcing::start(None)?;
    // A lift that does not come is reported above.
    let _ = until("all quotas lifted", Duration::from_secs(10) * patience(), || Ok(all_lifted().then_some(())));
    guard.stop()?;
    let after_stop = Picture::take()?.expect_as_in(&before).err().map(|error| format!("{error:#}"));
    Ok(Played { seen, best_effort, after_kill, after_stop, files: before.len() })
}

/// Periods in which a cgroup or one around it was throttled, by cpu.stat.
fn throttled(snapshots: &[Snapshot], path: &str) -> u64 {
    let around = |cgroup: &&Cgroup| cgroup.path != "/" && CgroupPath::of(&cgroup.path).contains(path);
    let cgroups = snapshots.iter().flat_map(|snapshot| snapshot.cgroups.iter().filter(around));
    cgroups.filter_map(|cgroup| cgroup.throttle.cpu_stat).map(|stat| stat.nr_throttled).sum()
}

/// A best-effort pod's busy work, until dropped.
struct Neighbour;

impl Neighbour {
    const UNIT: &'static str = "field-best-effort";

    /// The cgroup of its slice.
    fn slice() -> String {
        format!("/kubepods.slice/{BEST_EFFORT}")
    }

    fn start() -> Result<Self> {
        let workload = binary("guard-workload")?;
        let workload = workload.to_str().context("the workload's path")?;
        let slice = format!("--slice={BEST_EFFORT}");
        // A weight, as the kubelet gives it: without one systemd leaves the whole slice without the cpu controller.
        let unit = ["systemd-run", "--unit", Self::UNIT, &slice, "--property", "CPUWeight=1"];
        run(&[
            &unit[..],
            &[
                workload,
                "cycle",
                "clock-nanosleep-abs",
                "--interval-us",
                "100000",
                "--work-us",
                "30000",
                "--cycles",
                "1000000",
            ],
        ]
        .concat())?;
        until("the best-effort slice", limit(), || Ok((!quotas(&Self::slice()).is_empty()).then_some(())))?;
        Ok(Self)
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        super::shell::attempt(&["systemctl", "stop", Self::UNIT]);
    }
}

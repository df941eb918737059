//! Kills guard at random instants while somebody else writes the same files and work comes and goes, lets `guard restore`
//! clean up, and judges every file. What is killed is guard's executor, with changes drawn by chance or with those that
//! its policies want, or all of `guard run --enforce`.
//!
//! The scene has every knob of guard's table that the node has. Guard, the other and the scene use values that the others
//! hardly ever use (`values`), so that a file's text tells who wrote it. The rules, for each file, with what it held at the kill:
//! 1. What was not guard's is not touched. (A policy may want a value that was there before, so only the other's last value,
//!    or the beginning's where the other wrote nothing, is surely not guard's.)
//! 2. What was guard's becomes what was there at the beginning, or what means the same where the kernel does not take that back,
//!    or a value of the other's that guard found there.
//!
//! A write of the other's that falls between guard's last look and guard's own write, microseconds later, is lost: the
//! kernel has no way to write only if nothing has changed. Such files are counted (`overtaken`).

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use guard::{
    knob::{File, KNOBS, Knob, SitsOn, Version},
    random::Random,
};
use serde::Serialize;

use crate::{
    harness::{Cgroup, Tool, Workload, binary, patience, scratch_dir},
    values,
};

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// guard's executor with changes drawn by chance.
    Executor,
    /// Both lanes, each with an executor, with what guard's policies want on Snapshots drawn by chance.
    Policies,
    /// `guard run --enforce`, beside a real-time loop and best-effort work.
    Guard,
}

/// What came of many kills.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// How often guard was killed.
    pub kills: u64,
    /// Files that were judged, over all kills.
    pub files: u64,
    /// Files that held guard's value when it was killed, and were put back.
    pub put_back: u64,
    /// Files that held the other's last value, and kept it.
    pub kept: u64,
    /// Files whose last write by the other was overtaken by one of guard's in the same instant.
    pub overtaken: u64,
    /// Files that held a value of guard's from a moment ago, brought back by the kernel with a write of the other's to
    /// another file; see `is_bandwidth`.
    pub revived: u64,
    /// Writes of the other's that the kernel took.
    pub foreign_writes: u64,
    /// Time that `guard restore` took, ms.
    pub restore_ms: Vec<f64>,
}

/// A file of the scene.
#[derive(Clone, Debug)]
struct Scene {
    file: PathBuf,
    original: String,
    of: File,
    version: Version,
    /// Whether it is the parent's.
    is_top: bool,
    /// What means the same as an empty list, which the kernel does not take back from a cgroup with processes: what the root
    /// has of it.
    all: Option<String>,
}

/// Kills guard `kills` times.
///
/// # Errors
/// A file breaks a rule; the message names it with everything that is known. Or something cannot be set up.
pub fn storm(victim: Victim, kills: u64, seed: u64, progress: impl Fn(u64)) -> Result<Figures> {
    let mut figures = Figures::default();
    for kill in 0..kills {
        let seed = seed.wrapping_mul(1_000_003).wrapping_add(kill);
        one(victim, seed, &mut figures).with_context(|| format!("kill {kill}, seed {seed}"))?;
        figures.kills += 1;
        progress(figures.kills);
    }
    Ok(figures)
}

fn one(victim: Victim, seed: u64, figures: &mut Figures) -> Result<()> {
    let mut random = Random::new(seed);
    let parent = Cgroup::create("undo")?;
    let (plc, be) = (parent.child("plc")?, parent.child("be")?);
    let stage = Stage::set(&parent, &[&plc, &be])?;
    let scene = stage.scene(victim, &parent, &[&plc, &be])?;
    let state = scratch_dir()?;
    let state_dir = state.path().to_string_lossy().into_owned();
    let work = if victim == Victim::Guard { Some(Work::start(&parent, &plc, &be)?) } else { None };
    // Dropping either kills with SIGKILL and waits for the end.
    let guard = match victim {
        Victim::Executor | Victim::Policies => {
            let seed = random.bits().to_string();
            let mut words = vec!["enforce", "--state-dir", &state_dir, "--seed", &seed];
            for cgroup in [&parent, &plc, &be] {
                words.extend(["--cgroup", cgroup.path()]);
            }
            if victim == Victim::Policies {
                words.push("--policies");
            }
            Killed::Workload(Workload::start(&words)?)
        }
        Victim::Guard => Killed::Guard(whole_guard(state.path(), &parent, &be)?),
    };
    let other = Other::start(scene.clone(), random.bits());
    let comings = (victim != Victim::Executor).then(|| Comings::start(be.dir()));
    // The instant of the kill is what is random here; nothing waits for anything to have happened by then.
    let longest_us = if victim == Victim::Guard { 2_000_000 } else { 60_000 };
    sleep(Duration::from_micros(random.below(longest_us)) * patience());
    drop(guard);
    let foreign = other.stop()?;
    if let Some(comings) = comings {
        comings.stop()?;
    }
    drop(work);
    let at_kill = read(&scene)?;
    let journals = journals(state.path())?;
    let begin = Instant::now();
    let said = Tool::start(std::process::Command::new(binary("guard")?).args(["restore", "--state-dir", &state_dir]))?
        .success(Duration::from_secs(30) * patience())?;
    figures.restore_ms.push(begin.elapsed().as_secs_f64() * 1e3);
    let after = read(&scene)?;
    for (index, file) in scene.iter().enumerate() {
        let written = foreign.get(&index).map_or(&[][..], Vec::as_slice);
        let beside = |other: usize| other != index && scene[other].file.parent() == file.file.parent();
        let may_revive = is_bandwidth(&file.file)
            && foreign
                .iter()
                .any(|(other, texts)| beside(*other) && is_bandwidth(&scene[*other].file) && !texts.is_empty());
        figures
            .judge(victim, file, written, may_revive, [&at_kill[index], &after[index]])
            .with_context(|| format!("guard restore said:\n{said}the journals had been:\n{journals}"))?;
    }
    figures.foreign_writes += foreign.values().map(|written| written.len() as u64).sum::<u64>();
    Ok(())
}

/// Whether a file is one of those that the kernel changes together: who writes one of them also writes the others, as they
/// were before the kernel took its lock. So a write of the other's to the quota can bring back a burst of guard's after guard
/// has put back the original, and the other way round.
/// <https://elixir.bootlin.com/linux/v6.12/source/kernel/sched/core.c>: `cpu_cfs_burst_write_u64`, `cpu_max_write`.
fn is_bandwidth(file: &std::path::Path) -> bool {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    ["cpu.max", "cpu.max.burst", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.cfs_burst_us"].contains(&name)
}

/// The text of all journals below a state directory, for whoever has to find out what went wrong.
fn journals(state: &std::path::Path) -> Result<String> {
    let mut text = String::new();
    for dir in ["", "protect", "rest"] {
        match fs::read_to_string(state.join(dir).join("journal")) {
            Ok(journal) => text.push_str(&journal),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("read a journal in {}", state.display())),
        }
    }
    Ok(text)
}

impl Figures {
    fn judge(
        &mut self,
        victim: Victim,
        scene: &Scene,
        foreign: &[String],
        may_revive: bool,
        [at_kill, after]: [&str; 2],
    ) -> Result<()> {
        let known = || {
            let last: Vec<_> = foreign.iter().rev().take(3).collect();
            format!(
                "{}: {:?} at the beginning, {at_kill:?} at the kill, {after:?} now; the other wrote last (newest first) {last:?}",
                scene.file.display(),
                scene.original
            )
        };
        let is_others = |text: &str| foreign.iter().any(|own| own == text);
        let is_back = |text: &str| text == scene.original || scene.all.as_deref() == Some(text) || is_others(text);
        self.files += 1;
        let last = foreign.last().map(String::as_str);
        // A policy may want a value that somebody else has written before, so that this value at the kill was guard's.
        let by_guard = victim != Victim::Executor && last.is_some_and(|last| last != at_kill);
        if by_guard && (is_others(at_kill) || at_kill == scene.original) {
            ensure!(is_back(after), "a value of nobody's was put back: {}", known());
            self.put_back += u64::from(after != at_kill);
        } else if at_kill == scene.original || is_others(at_kill) {
            ensure!(after == at_kill, "a value that was not guard's was changed: {}", known());
            self.kept += u64::from(last == Some(at_kill));
        } else if is_back(after) {
            self.put_back += 1;
        } else {
            ensure!(may_revive, "a value of guard's was left: {}", known());
            self.revived += 1;
        }
        self.overtaken += u64::from(last.is_some_and(|last| last != after));
        Ok(())
    }
}

/// What is to be killed.
#[allow(dead_code, reason = "held for what dropping it does")]
enum Killed {
    Workload(Workload),
    Guard(Tool),
}

/// Work for a whole guard to act on: a real-time loop and a fair thread under a quota, and best-effort work.
struct Work {
    _parts: [Workload; 3],
}

impl Work {
    fn start(parent: &Cgroup, plc: &Cgroup, be: &Cgroup) -> Result<Self> {
        parent.allow_rt(50_000)?;
        plc.allow_rt(50_000)?;
        let into = |cgroup: &Cgroup, words: &[&str]| -> Result<Workload> {
            let mut workload = Workload::hold(words)?;
            cgroup.add(workload.pid())?;
            workload.go()?;
            Ok(workload)
        };
        let spin = ["spin", "--seconds", "3600"];
        let cycle =
            ["cycle", "clock-nanosleep-abs", "--policy", "fifo:80", "--interval-us", "5000", "--cycles", "1000000"];
        Ok(Self { _parts: [into(plc, &cycle)?, into(plc, &spin)?, into(be, &spin)?] })
    }
}

/// `guard run --enforce` that may change the scene's cgroups and no others, once it has begun.
fn whole_guard(scratch: &std::path::Path, parent: &Cgroup, be: &Cgroup) -> Result<Tool> {
    let config = scratch.join("guard.toml");
    let text = format!(
        "[node]\ninterval = \"200ms\"\n\n[[workload]]\nmatch.cgroup = \"{}*\"\nclass = \"BE\"\n\n\
         [[workload]]\nmatch.cgroup = \"{}*\"\nmanaged = true\n\n[[workload]]\nmatch.cgroup = \"*\"\nmanaged = false\n\n\
         [protect]\nhold_s = 0.1\n\n[suppress.latency]\nplc_metric = \"wakeup.p50\"\nplc_limit_us = 30\nhold_s = 0.1\n",
        be.path(),
        parent.path()
    );
    fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
    let mut command = std::process::Command::new(binary("guard")?);
    command.args(["run", "--enforce", "--threshold", "50us", "--config"]).arg(config);
    command.arg("--state-dir").arg(scratch).arg("--audit").arg(scratch.join("audit.jsonl"));
    let mut guard = Tool::start(&mut command)?;
    crate::harness::until("guard's begin", Duration::from_secs(60) * patience().min(5), || {
        if let Some(status) = guard.ended()? {
            bail!("guard ended with {status}: {}", guard.stderr()?.trim_end());
        }
        Ok((!guard.stdout()?.is_empty()).then_some(()))
    })?;
    Ok(guard)
}

/// Best-effort jobs that come and go: their cgroups are made and removed all the time.
struct Comings {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<std::io::Result<()>>,
}

impl Comings {
    fn start(be: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                let job = be.join("job");
                fs::create_dir(&job)?;
                sleep(Duration::from_millis(2));
                fs::remove_dir(&job)?;
            }
            Ok(())
        });
        Self { stop, thread }
    }

    fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(done) => done.context("cgroups that come and go"),
            Err(_) => bail!("who makes and removes cgroups panicked"),
        }
    }
}

/// What the scene needs beside its cgroups, removed when dropped: on v1 the same cgroups in the hierarchies of other
/// controllers, and a process in each child, for the knobs that sit on processes.
struct Stage {
    hierarchy: guard::cgroup::Hierarchy,
    /// Parents first.
    dirs: Vec<PathBuf>,
    sleepers: BTreeMap<String, Tool>,
}

impl Stage {
    fn set(parent: &Cgroup, children: &[&Cgroup]) -> Result<Self> {
        let hierarchy = guard::cgroup::Hierarchy::detect("/".as_ref())?;
        if hierarchy.version() == Version::V2 {
            // Where the node's root does not hand the controller down its knobs are not there.
            let _ = parent.set("cgroup.subtree_control", "+pids");
        }
        let mut stage = Self { hierarchy, dirs: Vec::new(), sleepers: BTreeMap::new() };
        for cgroup in std::iter::once(&parent).chain(children) {
            for controller in KNOBS.iter().filter_map(|knob| match knob.sits_on() {
                SitsOn::Cgroup { controller } => Some(controller),
                SitsOn::Processes => None,
            }) {
                let Some(dir) = stage.hierarchy.dir_of(controller, cgroup.path()).transpose()? else { continue };
                if !dir.exists() {
                    fs::create_dir(&dir).with_context(|| format!("mkdir {}", dir.display()))?;
                    stage.dirs.push(dir);
                }
            }
        }
        for child in children {
            let sleeper = Tool::start(std::process::Command::new("sleep").arg("3600"))?;
            child.add(sleeper.pid())?;
            stage.sleepers.insert(child.path().to_owned(), sleeper);
        }
        Ok(stage)
    }

    /// Writes the beginning of every file that a knob of guard's has here. A whole guard's real-time loop needs its
    /// allowance of real-time run time, which is left as it is.
    fn scene(&self, victim: Victim, parent: &Cgroup, children: &[&Cgroup]) -> Result<Vec<Scene>> {
        let version = self.hierarchy.version();
        let mut scene = Vec::new();
        for (index, cgroup) in std::iter::once(&parent).chain(children).enumerate() {
            let process = self.sleepers.get(cgroup.path()).map(Tool::pid);
            for knob in KNOBS.iter().filter(|knob| victim != Victim::Guard || **knob != Knob::RtRuntime) {
                let Some(dir) = values::dir(&self.hierarchy, *knob, cgroup.path(), process) else { continue };
                let all = self.all_of(*knob)?;
                let list = all.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default();
                for (file, value) in values::of_beginning(*knob, version, index == 0, &list) {
                    let (path, original) = (dir.join(file.name()), file.text(&value));
                    fs::write(&path, &original).with_context(|| format!("write {original} to {}", path.display()))?;
                    let original = original.trim().to_owned();
                    let all = all.clone().filter(|_| original.is_empty());
                    scene.push(Scene { file: path, original, of: file, version, is_top: index == 0, all });
                }
            }
        }
        Ok(scene)
    }

    /// What the root has of a knob; on v2 its lists are in files of their own.
    fn all_of(&self, knob: Knob) -> Result<Option<String>> {
        let Some(root) = self.hierarchy.dir_of(knob.controller(), "/").transpose()? else { return Ok(None) };
        let mut names = knob.files(self.hierarchy.version()).map(File::name);
        Ok(names
            .find_map(|name| text(&root.join(name)).or_else(|_| text(&root.join(format!("{name}.effective")))).ok()))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for dir in self.dirs.iter().rev() {
            if let Err(error) = fs::remove_dir(dir) {
                eprintln!("{} stays behind: {error}", dir.display());
            }
        }
    }
}

fn read(scene: &[Scene]) -> Result<Vec<String>> {
    scene.iter().map(|each| text(&each.file)).collect()
}

fn text(file: &std::path::Path) -> Result<String> {
    Ok(fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?.trim().to_owned())
}

/// Somebody else who writes the same files.
struct Other {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<BTreeMap<usize, Vec<String>>>,
}

impl Other {
    fn start(scene: Vec<Scene>, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut random = Random::new(seed);
            let mut written: BTreeMap<usize, Vec<String>> = BTreeMap::new();
            // Some files are left to guard alone, so that it holds something at the end.
            let mine: Vec<usize> = (0..scene.len()).filter(|_| random.below(2) == 0).collect();
            while !told.load(Ordering::Relaxed) && !mine.is_empty() {
                let index = mine[random.index(mine.len())];
                if let Some(text) = scene[index].foreign(&mut random) {
                    // What the kernel refuses, because of what guard holds, was not written.
                    if fs::write(&scene[index].file, &text).is_ok() {
                        written.entry(index).or_default().push(text);
                    }
                }
                sleep(Duration::from_micros(random.below(4_000)));
            }
            written
        });
        Self { stop, thread }
    }

    fn stop(self) -> Result<BTreeMap<usize, Vec<String>>> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(written) => Ok(written),
            Err(_) => bail!("the other writer panicked"),
        }
    }
}

impl Scene {
    /// What the other writes next; `None` for a file that is left as it was.
    fn foreign(&self, random: &mut Random) -> Option<String> {
        let values = values::of_other(self.of.knob(), self.version, self.is_top, random);
        let (file, value) = values.into_iter().find(|(file, _)| *file == self.of)?;
        let text = file.text(&value);
        (text != self.original).then_some(text)
    }
}

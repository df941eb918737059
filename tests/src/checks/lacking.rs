//! Kernels that lack something, or refuse a program: guard is told to take for missing what is there, one thing after the
//! other and in pairs. What there is to take away is guard's own list of what it asked this kernel for.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use guard::{
    cgroup::{Hierarchy, Version},
    inventory::{self, Topology},
    kernel::{
        Kernel, KernelError, LoadOptions, Verified,
        offer::{Lack, System},
        offsets::CgroupSource,
        pretence::{FENTRY, KALLSYMS, Pretence, VARIABLE},
    },
    snapshot::{Signal, SignalState, Snapshot},
};

use crate::{
    harness::{Find, GuardRun, emulated, finish, patience},
    scenario::Verdict,
};

/// What arm64 lacks in 6.1: neither source of throttled time is there, and no trampolines.
const ARM64_6_1: &str = "fentry,cfs_rq.throttled_clock_self_time";

/// This node with all that can be asked of guard, so that the programs read all that they can.
pub(super) fn with_everything(hierarchy: &Hierarchy) -> Result<LoadOptions> {
    let node = inventory::node(Path::new("/"), hierarchy.layout())?;
    let topology = Topology::read(Path::new("/"))?;
    Ok(LoadOptions {
        breach_ns: u64::MAX,
        cgroups: match hierarchy.version() {
            Version::V1 => CgroupSource::CpuController,
            Version::V2 => CgroupSource::Default,
        },
        cgroup_slots: 64,
        thread_slots: 64,
        own_cgroup: None,
        online_cpus: topology.online.iter().collect(),
        preempt_rt: node.realtime,
        act: true,
        flight: true,
        stacks: true,
        run_time_stats: false,
        pretence: Pretence::default(),
    })
}

/// A kernel to take things away from.
struct Bench {
    system: System,
    options: LoadOptions,
}

impl Bench {
    fn new() -> Result<Self> {
        let options = with_everything(&Hierarchy::detect(Path::new("/"))?)?;
        Ok(Self { system: System::read()?, options })
    }

    fn without(&self, missing: &str) -> Result<LoadOptions> {
        Ok(LoadOptions { pretence: Pretence::parse(missing)?, ..self.options.clone() })
    }

    /// Loads and attaches everything.
    fn load(&self, missing: &str) -> Result<Result<Kernel, KernelError>> {
        Ok(Kernel::load_on(&self.system, &self.without(missing)?))
    }

    /// Has the verifier look at these programs; an error when it refuses one.
    fn verify(&self, missing: &str, chosen: impl Fn(&str) -> bool) -> Result<Vec<Verified>> {
        let all = self.system.verify(&self.without(missing)?, chosen).with_context(|| format!("without {missing}"))?;
        for Verified { program, outcome } in &all {
            // Trampolines may be refused here; guard tries them and goes on without.
            let trampoline = program.starts_with("tg_") || program.ends_with("throttle_cfs_rq");
            if let Err(refusal) = outcome
                && !trampoline
            {
                bail!("without {missing} the verifier refuses {refusal}");
            }
        }
        Ok(all)
    }
}

/// The signals that are not as they were with everything there; an error when one of them does not say that one of `missing`
/// is.
fn changed(before: &[Signal], after: &[Signal], missing: &[&str]) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for (before, after) in before.iter().zip(after).filter(|(before, after)| before != after) {
        let reason = after.reason.as_deref().unwrap_or_default();
        ensure!(
            after.state == SignalState::Active || missing.iter().any(|name| reason.contains(name)),
            "without {missing:?} {} is {:?} and does not say for lack of what: {reason:?}",
            after.name,
            after.state
        );
        names.insert(before.name.to_string());
    }
    Ok(names)
}

/// Loads guard with `name` missing and compares what it says with what it said when all was there.
fn expect_single(bench: &Bench, all: &[Signal], name: &str, lack: Lack) -> Result<()> {
    match bench.load(name)? {
        Ok(kernel) => {
            let changed = changed(all, kernel.signals(), &[name])?;
            ensure!(lack != Lack::Start, "without {name} nothing can be measured, and guard starts");
            ensure!(
                changed.is_empty() == (lack == Lack::Nothing),
                "without {name} these signals are not as they were: {changed:?}"
            );
        }
        Err(error) => {
            ensure!(lack == Lack::Start, "without {name} guard does not start: {error}");
            ensure!(error.is_node() && error.to_string().contains(name), "without {name}: {error}");
        }
    }
    Ok(())
}

/// What this kernel was asked for and has, and what guard cannot do without it.
type Things = Vec<(String, Lack)>;

/// The signals where everything is there, and everything.
fn with_all(bench: &Bench) -> Result<(Vec<Signal>, Things)> {
    let kernel = bench.load("")??;
    let there = kernel.asked().iter().filter(|(_, asked)| asked.there);
    let things: Things = there.map(|(name, asked)| (name.clone(), asked.lack)).collect();
    ensure!(things.len() > 40, "guard asked for only {} things: {things:?}", things.len());
    Ok((kernel.signals().to_vec(), things))
}

/// Those without which guard starts.
fn optional(things: &[(String, Lack)]) -> Vec<&str> {
    things.iter().filter(|(_, lack)| *lack != Lack::Start).map(|(name, _)| name.as_str()).collect()
}

/// What is missing one at a time, and all of it at once, costs the signals that need it, which say so.
pub(super) fn everything_may_be_missing() -> Result<Verdict> {
    let bench = Bench::new()?;
    let began = Instant::now();
    let (all, things) = with_all(&bench)?;
    let one_load = began.elapsed();

    // What arm64 was the first to show, whatever else is tried; and all that can be missing at once.
    let optional = optional(&things);
    for missing in [ARM64_6_1, &optional.join(","), &[FENTRY, KALLSYMS].join(",")] {
        let kernel = bench.load(missing)?.with_context(|| format!("without {missing}"))?;
        changed(&all, kernel.signals(), &missing.split(',').collect::<Vec<_>>())?;
    }

    let mut loaded = 0;
    for (name, lack) in things.iter().filter(|(name, lack)| !emulated() || is_worth_a_load(name, *lack)) {
        expect_single(&bench, &all, name, *lack)?;
        loaded += 1;
    }

    Ok(Verdict::Passed(format!(
        "{} things, {loaded} of them taken away with programs attached ({:.1} s for a load)",
        things.len(),
        one_load.as_secs_f64(),
    )))
}

/// Without each thing, and without each two that one program reads, the verifier takes all programs.
pub(super) fn the_verifier_takes_what_is_left() -> Result<Verdict> {
    let bench = Bench::new()?;
    let (_, things) = with_all(&bench)?;
    let (pairs, left_out) = verify_pairs(&bench, &optional(&things))?;
    Ok(Verdict::Passed(format!("{} things, {pairs} pairs{left_out}", things.len())))
}

/// In an emulated guest a load takes seconds. What has other effects there than on this machine is worth it.
fn is_worth_a_load(name: &str, lack: Lack) -> bool {
    lack == Lack::Signal && (name == FENTRY || name.contains("throttle"))
}

/// Verifies what each thing alone changes and then each program without two things that it reads, which shows in what the
/// verifier makes of it without each. Returns how many pairs that were, and in words what was left out.
fn verify_pairs(bench: &Bench, optional: &[&str]) -> Result<(usize, String)> {
    let all: BTreeMap<&str, _> = bench.verify("", |_| true)?.into_iter().map(|v| (v.program, v.outcome)).collect();
    let mut readers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, verified) in optional.iter().zip(on_every_cpu(optional, |name| bench.verify(name, |_| true))?) {
        for Verified { program, outcome } in verified {
            if all.get(program).is_some_and(|whole| *whole != outcome) {
                readers.entry(program).or_default().push(name);
            }
        }
    }
    let mut pairs: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for (program, names) in &readers {
        // The largest program takes the verifier seconds in an emulated guest. It reads the same there as on a host.
        if emulated() && *program == "sched_switch" {
            continue;
        }
        for (at, one) in names.iter().enumerate() {
            for other in &names[at + 1..] {
                pairs.entry(format!("{one},{other}")).or_default().insert(program);
            }
        }
    }
    let each: Vec<_> = pairs.iter().collect();
    on_every_cpu(&each, |(missing, programs)| bench.verify(missing, |program| programs.contains(program)).map(drop))?;
    let left_out = if emulated() { ", without those of sched_switch" } else { "" };
    Ok((pairs.len(), left_out.to_owned()))
}

/// What `each` makes of `items`, in their order. The verifier works for one caller on one CPU.
fn on_every_cpu<T: Sync, R: Send>(items: &[T], each: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let cpus = std::thread::available_parallelism().context("counting CPUs")?;
    let each = &each;
    std::thread::scope(|scope| {
        let part = items.len().div_ceil(cpus.get()).max(1);
        let threads: Vec<_> =
            items.chunks(part).map(|part| scope.spawn(move || part.iter().map(each).collect())).collect();
        let mut results = Vec::new();
        for thread in threads {
            let part: Result<Vec<R>> = thread.join().map_err(|_| anyhow!("a thread that verifies panicked"))?;
            results.extend(part?);
        }
        Ok(results)
    })
}

/// A program that the verifier refuses, or that cannot be attached, costs its signal; wake-ups are indispensable.
pub(super) fn a_refused_program_costs_its_signal() -> Result<Verdict> {
    const INDISPENSABLE: [&str; 5] =
        ["sched_process_exit", "sched_process_exec", "sched_switch", "sched_wakeup_new", "sched_waking"];
    let bench = Bench::new()?;
    let (all, programs) = {
        let kernel = bench.load("")??;
        (kernel.signals().to_vec(), kernel.attached().to_vec())
    };
    let errors = ["EOPNOTSUPP", "EBUSY", "EINVAL", "EPERM"].iter().cycle();
    let mut tried = 0;
    for (program, error) in programs.iter().zip(errors) {
        // The same on every kernel, but for the trampolines, which this machine may not have.
        if emulated() && !program.contains("throttle") && *program != "sched_switch" {
            continue;
        }
        for refusal in [format!("{program}:load=EACCES"), format!("{program}:attach={error}")] {
            tried += 1;
            match bench.load(&refusal)? {
                Ok(kernel) => {
                    ensure!(!INDISPENSABLE.contains(program), "{refusal}, and guard starts");
                    let changed = changed(&all, kernel.signals(), &[program])?;
                    ensure!(!changed.is_empty(), "{refusal}, and no signal says so");
                    ensure!(!kernel.attached().contains(program), "{refusal}, and it is attached");
                }
                Err(failure) => {
                    let said = failure.to_string();
                    ensure!(INDISPENSABLE.contains(program), "{refusal}: {failure}");
                    ensure!(failure.is_node() && said.contains(program) && said.contains("os error"), "{failure}");
                }
            }
        }
    }
    Ok(Verdict::Passed(format!("{tried} refusals of {} programs", programs.len())))
}

/// The knob as a user would turn it.
pub(super) fn pretended_aloud() -> Result<Verdict> {
    let limit = Duration::from_secs(30) * patience();
    let report = |missing: &str| -> Result<_> {
        let run = GuardRun::default().with(&["report", "--format", "json", "--duration", "1s"]);
        finish(run.command()?.env(VARIABLE, missing), limit)
    };
    let finished = report("rseq_update,hrtimer_wakeup")?;
    finished.expect_code(0)?;
    finished.expect_message(VARIABLE)?;
    let snapshot: Snapshot = serde_json::from_str(&finished.stdout).context("guard's output as a Snapshot")?;
    let user = Find::signal(&snapshot, "user")?;
    let reason = user.reason.as_deref().unwrap_or_default();
    ensure!(
        user.state == SignalState::Unavailable && reason.contains("rseq_update") && reason.contains("pretended"),
        "{user:?}"
    );
    ensure!(Find::signal(&snapshot, "timer")?.state == SignalState::Degraded, "{:?}", snapshot.signals);

    for missing in ["task_struct.pid", "sched_waking", "sched_switch:load=EINVAL"] {
        let finished = report(missing)?;
        finished.expect_code(3)?;
        finished.expect_message(missing.split(':').next().unwrap_or(missing))?;
    }
    let finished = report("sched_switch:detach=EINVAL")?;
    finished.expect_code(2)?;
    finished.expect_message("sched_switch:detach=EINVAL")?;
    Ok(Verdict::Passed(reason.to_owned()))
}

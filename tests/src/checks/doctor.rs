//! guard doctor: what it says is well-formed for everybody, and what it proposes is accepted by the kernel, mends what
//! it was proposed for, and can be undone.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use guard::doctor::{DoctorReport, Finding, Severity};

use crate::{
    harness::{Cgroup, Finished, GuardRun, Tool, Workload, finish, load_cpu, patience, scratch_dir, until},
    scenario::Verdict,
};

fn limit() -> Duration {
    Duration::from_secs(30) * patience()
}

fn doctor(arguments: &[&str]) -> GuardRun {
    GuardRun::default().with(&["doctor"]).with(arguments)
}

/// What doctor says now. Its exit code has to agree.
fn report() -> Result<DoctorReport> {
    report_of(&doctor(&["--format", "json"]).finish(limit())?)
}

fn report_of(finished: &Finished) -> Result<DoctorReport> {
    let report: DoctorReport = serde_json::from_str(&finished.stdout)
        .with_context(|| format!("doctor's JSON; it ended with {}: {}", finished.status, finished.stderr))?;
    finished.expect_code(i32::from(report.must_act()))?;
    Ok(report)
}

/// JSON against the schema, script against the shell's parser, recorded facts against the node itself; as root where
/// this runs as root, and as nobody.
pub(super) fn well_formed() -> Result<Verdict> {
    let printed = doctor(&["--json-schema"]).finish(limit())?;
    printed.expect_code(0)?;
    let schema: serde_json::Value = serde_json::from_str(&printed.stdout).context("the printed schema")?;
    let validator = jsonschema::validator_for(&schema).context("the schema itself")?;
    let mut told = Vec::new();
    for nobody in [false, true] {
        let run = |arguments: &[&str]| -> Result<Finished> {
            let inner = doctor(arguments).command()?;
            finish(&mut if nobody && rustix::process::geteuid().is_root() { as_nobody(&inner) } else { inner }, limit())
        };
        let json = run(&["--format", "json"])?;
        if nobody && json.stderr.contains("setpriv: failed to execute") {
            return Ok(Verdict::Skipped(format!("nobody may not execute guard here: {}", json.stderr.trim_end())));
        }
        let report = report_of(&json)?;
        let value: serde_json::Value = serde_json::from_str(&json.stdout)?;
        let complaints: Vec<String> = validator.iter_errors(&value).map(|error| error.to_string()).take(5).collect();
        ensure!(complaints.is_empty(), "the report breaks its schema: {}", complaints.join("; "));
        for finding in &report.findings {
            let must_have = finding.severity.must_act();
            ensure!(!must_have || !finding.evidence.is_empty(), "{} has no evidence", finding.id);
            ensure!(!must_have || finding.remedy.is_some(), "{} has no remedy", finding.id);
        }

        let scratch = scratch_dir()?;
        let script = scratch.path().join("fix.sh");
        fs::write(&script, run(&["--fix-plan"])?.stdout).context("write the script")?;
        Tool::start(Command::new("sh").arg("-n").arg(&script))?.success(limit())?;

        let file = scratch.path().join("facts.json");
        let names = |report: &DoctorReport| -> BTreeSet<String> {
            // Other processes of this machine come and go.
            let of_processes = ["task.", "runtime.rights", "cpu.others"];
            let stays = |finding: &&Finding| !of_processes.iter().any(|begin| finding.id.starts_with(begin));
            report
                .findings
                .iter()
                .filter(stays)
                .map(|finding| format!("{} {:?}", finding.id, finding.severity))
                .collect()
        };
        // Whoever else works on this machine may change it between the two looks: then there are two others.
        let of_facts = |format: &str| doctor(&["--format", format, "--from", path(&file)?]).finish(limit());
        let mut apart = String::new();
        let recorded = until("facts that say what the node itself says", limit(), || {
            let facts = run(&["--facts"])?;
            facts.expect_code(0)?;
            fs::write(&file, &facts.stdout).context("write the facts")?;
            let (recorded, live) = (report_of(&of_facts("json")?)?, report_of(&run(&["--format", "json"])?)?);
            apart = format!("recorded: {:?}, live: {:?}", names(&recorded), names(&live));
            Ok((names(&recorded) == names(&live)).then_some(recorded))
        });
        let recorded = recorded.context(apart)?;
        let text = of_facts("text")?;
        text.expect_code(i32::from(recorded.must_act()))?;
        for id in recorded.findings.iter().map(|finding| &finding.id) {
            ensure!(text.stdout.contains(id), "the text does not mention {id}");
        }
        let acted = report.findings.iter().filter(|finding| finding.severity.must_act()).count();
        told.push(format!("{acted} of {} findings must be acted on", report.findings.len()));
    }
    doctor(&["--root", "/no-such-node"]).finish(limit())?.expect_code(2)?;
    doctor(&["--from", "/proc/version"]).finish(limit())?.expect_code(2)?;
    Ok(Verdict::Passed(format!("as root or user: {}; as nobody: {}", told[0], told[1])))
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no UTF-8")
}

fn as_nobody(inner: &Command) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--bounding-set", "-all"]);
    command.arg(inner.get_program()).args(inner.get_args());
    command
}

/// A setting that is put back when dropped.
struct Setting {
    path: PathBuf,
    old: String,
}

impl Setting {
    /// Writes a file where the kernel has it; none where it has not, or takes no such value.
    fn write(file: impl AsRef<Path>, value: &str) -> Result<Option<Self>> {
        let path = file.as_ref();
        let Ok(old) = fs::read_to_string(path) else { return Ok(None) };
        if fs::write(path, value).is_err() {
            return Ok(None);
        }
        Ok(Some(Self { path: path.to_owned(), old: old.trim().to_owned() }))
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        if let Err(error) = fs::write(&self.path, &self.old) {
            eprintln!("cannot put {} back into {}: {error}", self.old, self.path.display());
        }
    }
}

/// A kernel thread whose policy is changed by chrt, and put back when dropped.
struct KernelThread {
    tid: String,
    /// chrt's arguments for what it was.
    before: [&'static str; 3],
}

impl KernelThread {
    fn raise(comm: &str, before: [&'static str; 3]) -> Result<Option<Self>> {
        for entry in fs::read_dir("/proc").context("read /proc")? {
            let path = entry.context("read /proc")?.path();
            if fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim_end() == comm) {
                let tid = path.file_name().context("a process without id")?.to_string_lossy().into_owned();
                shell(&format!("chrt -f -p 99 {tid}"))?;
                return Ok(Some(Self { tid, before }));
            }
        }
        Ok(None)
    }
}

impl Drop for KernelThread {
    fn drop(&mut self) {
        if let Err(error) = shell(&format!("chrt {} {}", self.before.join(" "), self.tid)) {
            eprintln!("{error:#}");
        }
    }
}

/// Waits until a workload has given itself its policy.
fn becomes_fifo(workload: &Workload) -> Result<()> {
    let file = format!("/proc/{}/stat", workload.tid()?);
    until("SCHED_FIFO", limit(), || {
        let stat = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
        // Field 41 of proc_pid_stat(5), counted from the third, behind the name.
        let policy = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(38));
        Ok((policy == Some("1")).then_some(()))
    })
}

fn shell(command: &str) -> Result<String> {
    Tool::start(Command::new("sh").args(["-c", command]))?
        .success(limit())
        .with_context(|| format!("the command: {command}"))
}

/// Spoils whatever can be spoilt without a reboot.
fn spoil(cpu: u32) -> Result<(Vec<Setting>, Vec<KernelThread>)> {
    let clocks = "/sys/devices/system/clocksource/clocksource0";
    let offered = fs::read_to_string(format!("{clocks}/available_clocksource")).unwrap_or_default();
    let slow_clock = ["acpi_pm", "hpet"].into_iter().find(|name| offered.contains(name)).unwrap_or("none");
    let mut settings = Vec::new();
    for (file, value) in [
        ("/sys/kernel/mm/ksm/run", "1"),
        ("/sys/kernel/mm/transparent_hugepage/enabled", "always"),
        ("/proc/sys/kernel/sched_rt_runtime_us", "-1"),
        ("/proc/sys/kernel/nmi_watchdog", "1"),
        ("/sys/kernel/debug/sched/fair_server/cpu0/runtime", "0"),
        ("/sys/class/net/lo/queues/rx-0/rps_cpus", "3"),
        (&format!("{clocks}/current_clocksource"), slow_clock),
        // Commands of doctor change these; the checks after this one find them as they were.
        ("/proc/irq/default_smp_affinity", "3"),
    ] {
        settings.extend(Setting::write(file, value)?);
    }
    let mut threads = Vec::new();
    threads.extend(KernelThread::raise(&format!("ksoftirqd/{cpu}"), ["-o", "-p", "0"])?);
    threads.extend(KernelThread::raise(&format!("rcuc/{cpu}"), ["-f", "-p", "1"])?);
    Ok((settings, threads))
}

/// Findings with commands, by what they are about.
fn mendable(report: &DoctorReport) -> Vec<&Finding> {
    let commands = |finding: &&Finding| finding.remedy.as_ref().is_some_and(|remedy| !remedy.commands.is_empty());
    report.findings.iter().filter(commands).collect()
}

fn ids(findings: &[&Finding]) -> BTreeSet<String> {
    findings.iter().map(|finding| finding.id.clone()).collect()
}

/// Spoils the node, runs every command that doctor proposes, sees each finding gone, undoes all of it, and sees the
/// findings again. For guests only: it changes the whole node.
pub(super) fn commands_mend() -> Result<Verdict> {
    // Without it the fair server is out of reach; mounted twice it does no harm.
    let _ = shell("mountpoint -q /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug");
    let cpu = load_cpu();
    let plant = Cgroup::create("plant")?;
    plant.set_quota(50_000, 100_000)?;
    let plc = plant.child("plc")?;
    let pinned = cpu.to_string();
    let mut workload = Workload::hold(&[
        "cycle",
        "timerfd",
        "--policy",
        "fifo:99",
        "--cpu",
        &pinned,
        "--interval-us",
        "50000",
        "--cycles",
        "100000",
    ])?;
    plc.add(workload.pid())?;
    workload.go()?;
    becomes_fifo(&workload)?;
    let _spoilt = spoil(cpu)?;

    let before = report()?;
    let found = mendable(&before);
    let expected = ["cgroup.quota", "task.priority", "irq.affinity", "kernel.soft_watchdog", "net.rps"];
    // Only on PREEMPT_RT do timers of real-time threads expire in a softirq.
    let on_realtime = std::path::Path::new("/sys/kernel/realtime").exists().then_some("task.soft_timers");
    for id in expected.into_iter().chain(on_realtime) {
        ensure!(found.iter().any(|finding| finding.id == id), "doctor does not find {id} but {:?}", ids(&found));
    }
    let quota = found.iter().find(|finding| finding.id == "cgroup.quota").context("the quota")?;
    ensure!(quota.severity == Severity::Critical && quota.title.contains(plant.path()), "{}", quota.title);

    let steps: Vec<_> = found.iter().filter_map(|f| f.remedy.as_ref()).flat_map(|remedy| &remedy.commands).collect();
    let mended = (|| {
        for step in &steps {
            shell(&step.change)?;
        }
        report()
    })();
    let undone: Result<Vec<String>> = steps.iter().rev().map(|step| shell(&step.undo)).collect();
    let after = mended?;
    undone?;
    let mended = ids(&found);
    let left: Vec<String> = mendable(&after)
        .into_iter()
        .filter(|finding| mended.contains(&finding.id))
        .map(|finding| format!("{}: {} {:?}", finding.id, finding.title, finding.remedy))
        .collect();
    ensure!(left.is_empty(), "their commands ran, and they are still found: {left:#?}; before: {found:#?}");
    let again = report()?;
    ensure!(ids(&mendable(&again)) == ids(&found), "undone: {:?}, before: {:?}", ids(&mendable(&again)), ids(&found));
    Ok(Verdict::Passed(format!(
        "{} commands for {}",
        steps.len(),
        ids(&found).into_iter().collect::<Vec<_>>().join(", ")
    )))
}

/// On any node: the quota above a FIFO process is found, and its command lifts it.
pub(super) fn quota() -> Result<Verdict> {
    let plant = Cgroup::create("plant")?;
    plant.set_quota(50_000, 100_000)?;
    plant.allow_rt(20_000)?;
    let plc = plant.child("plc")?;
    plc.allow_rt(20_000)?;
    let mut workload =
        Workload::hold(&["cycle", "ppoll", "--policy", "fifo:10", "--interval-us", "50000", "--cycles", "100000"])?;
    plc.add(workload.pid())?;
    workload.go()?;
    becomes_fifo(&workload)?;
    let of_ours = |report: &DoctorReport| {
        let ours = |finding: &&Finding| finding.id == "cgroup.quota" && finding.title.contains(plant.path());
        report.findings.iter().find(ours).cloned()
    };
    let found = of_ours(&report()?).context("doctor does not find the quota")?;
    ensure!(found.severity == Severity::Critical, "it is only {:?}", found.severity);
    let commands = found.remedy.map(|remedy| remedy.commands).unwrap_or_default();
    ensure!(!commands.is_empty(), "no command is proposed");
    for step in &commands {
        shell(&step.change)?;
    }
    ensure!(of_ours(&report()?).is_none(), "the commands ran, and the quota is still found");
    for step in commands.iter().rev() {
        shell(&step.undo)?;
    }
    ensure!(of_ours(&report()?).is_some(), "the commands were undone, and nothing is found");
    Ok(Verdict::Passed(found.title))
}

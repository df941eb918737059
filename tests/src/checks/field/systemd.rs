//! systemd owns its units and guard asks it: after guard's end, by whatever death and whoever else changed something
//! meanwhile, cgroup files, `systemctl show` and drop-ins are as they would be without guard.

use std::{
    fmt, fs,
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{sleep, spawn},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use guard::random::Random;
use rustix::process::{Pid, Signal};

use super::super::{LONG, by_name, loads};
use super::shell::{limit, run};
use crate::{
    harness::{Enforcing, Tool, Workload, binary, finish, patience, scratch_dir, until},
    scenario::{Scenario, Verdict},
    workload::Outcome,
};

/// Kills of guard's executor in the random check; `guard-field-tests` takes another number from GUARD_CYCLES.
const CYCLES: u64 = 8;
/// Kills of whole guards.
const WHOLE_CYCLES: u64 = 20;
const SEED: u64 = 20_261_128;

pub(super) fn all() -> Vec<Scenario> {
    vec![
        loads("systemd knows of a lift soon after the file has it, and the file does not wait", soon_told),
        loads("a lift outlasts reload and re-execution, and what others set outlasts guard", others),
        loads("a service that stops has its properties back, and is lifted anew when it starts", stop_and_start),
        loads("below a unit, and in units of a user's manager, nobody is told", not_systemds),
        loads("a lift leaves the cpu controller where it is", controller),
        loads("docker update and podman update are answered and kept", updates),
        loads("without an answer from the bus guard protects and keeps what it owes", hostile_bus),
        loads("a bus that answers garbage brings no guard down, and it says what it could not do", garbage),
        loads("killed at random beside reloads and others, files and systemd agree with the original", storm),
        by_name(loads("whole guards killed at random leave files and systemd in agreement", whole_storm), LONG),
    ]
}

/// Runs a program to its successful end.
fn done(program: &str, arguments: &[&str]) -> Result<String> {
    run(&[&[program], arguments].concat())
}

fn systemctl(arguments: &[&str]) -> Result<String> {
    done("systemctl", arguments)
}

/// Where cgroups are.
const TOP: &str = "/sys/fs/cgroup";
/// Where systemd keeps what was set.
const CONTROL: [&str; 3] = ["/etc/systemd/system.control", "/run/systemd/system.control", "/run/systemd/transient"];
const UNIT_FILES: &str = "/etc/systemd/system";

/// A unit of ours; stopped, and forgotten with all that was set of it, when dropped.
struct Unit {
    name: String,
    path: String,
    files: Vec<PathBuf>,
}

/// What a unit's cgroup and systemd say of it.
#[derive(Clone, PartialEq, Eq)]
struct View {
    properties: String,
    files: Vec<String>,
    drop_ins: Vec<String>,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let properties = self.properties.trim_end().replace('\n', " ");
        write!(f, "{properties}; {}; {:?}", self.files.join(" | "), self.drop_ins)
    }
}

/// A loop as guard takes for a PLC's.
const LOOP: &str = "cycle clock-nanosleep-abs --policy fifo:10 --interval-us 20000 --cycles 100000000";

impl Unit {
    /// A service with a unit file, its name escaped as systemd does: `settings` are lines of its \[Service\].
    fn service(name: &str, settings: &str, command: &str) -> Result<Self> {
        let file = Path::new(UNIT_FILES).join(format!("guard-test-{name}@.service"));
        let text = format!("[Service]\nExecStart={command}\n{settings}\n");
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        Self::start(format!("guard-test-{name}@a\\x2db.service"), vec![file])
    }

    fn start(name: String, files: Vec<PathBuf>) -> Result<Self> {
        let mut this = Self { name, path: String::new(), files };
        systemctl(&["start", "--", &this.name])?;
        this.find()?;
        Ok(this)
    }

    /// Waits until it has a cgroup, and notes its path.
    fn find(&mut self) -> Result<()> {
        self.path = until(&format!("the cgroup of {}", self.name), limit(), || {
            let path = self.show("ControlGroup")?;
            Ok((!path.is_empty() && Path::new(TOP).join(path.trim_start_matches('/')).is_dir()).then_some(path))
        })?;
        Ok(())
    }

    fn show(&self, property: &str) -> Result<String> {
        Ok(systemctl(&["show", "--value", "--property", property, "--", &self.name])?.trim().to_owned())
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::new(TOP).join(self.path.trim_start_matches('/')).join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap_or_else(|error| error.to_string()).trim().to_owned()
    }

    fn view(&self) -> Result<View> {
        let properties = "CPUQuotaPerSecUSec,CPUQuotaPeriodUSec,CPUWeight,StartupCPUWeight,AllowedCPUs,MemoryHigh";
        let properties = systemctl(&["show", "--property", properties, "--", &self.name])?;
        let files = ["cpu.max", "cpu.weight", "cpu.idle", "memory.high", "pids.max"];
        let files = files.map(|name| self.text(name)).into();
        let mut drop_ins = Vec::new();
        for dir in CONTROL {
            for entry in fs::read_dir(Path::new(dir).join(format!("{}.d", self.name))).into_iter().flatten() {
                let path = entry?.path();
                let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
                drop_ins.push(format!("{}: {}", path.display(), text.lines().last().unwrap_or_default()));
            }
        }
        drop_ins.sort();
        Ok(View { properties, files, drop_ins })
    }

    /// Waits until file and property say that there is no limit.
    fn lifted(&self) -> Result<()> {
        until(&format!("the lifted quota of {}", self.name), limit(), || {
            Ok(self.text("cpu.max").starts_with("max").then_some(()))
        })?;
        until(&format!("systemd knows of the lift of {}", self.name), limit(), || {
            Ok((self.show("CPUQuotaPerSecUSec")? == "infinity").then_some(()))
        })
    }

    fn expect(&self, what: &str, before: &View) -> Result<()> {
        let now = self.view()?;
        ensure!(now == *before, "{what}: {} was {before:?}, and is {now:?}", self.name);
        Ok(())
    }

    /// Sets a quota as somebody else.
    fn set(&self, options: &[&str], percent: &str) -> Result<()> {
        let quota = format!("CPUQuota={percent}");
        systemctl(&[options, &["set-property", "--", &self.name, &quota]].concat()).map(drop)
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        let _ = systemctl(&["stop", "--", &self.name]);
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
        for dir in CONTROL {
            let _ = fs::remove_dir_all(Path::new(dir).join(format!("{}.d", self.name)));
        }
        let _ = systemctl(&["reset-failed", "--", &self.name]);
    }
}

/// guard's executor and agent, keeping quotas away.
struct Keeping {
    workload: Workload,
    state: tempfile::TempDir,
}

impl Keeping {
    fn start(units: &[&Unit]) -> Result<Self> {
        Self::start_in(scratch_dir()?, &units.iter().map(|unit| unit.path.as_str()).collect::<Vec<_>>())
    }

    fn start_in(state: tempfile::TempDir, paths: &[&str]) -> Result<Self> {
        let state_dir = state.path().to_string_lossy().into_owned();
        let end = state.path().join("end").to_string_lossy().into_owned();
        let mut words = vec!["keep", "--state-dir", &state_dir, "--until", &end];
        paths.iter().for_each(|path| words.extend(["--cgroup", path]));
        let workload = Workload::start(&words)?;
        Ok(Self { workload, state })
    }

    /// A clean end.
    fn end(self) -> Result<Outcome> {
        fs::write(self.state.path().join("end"), "").context("the sign to end")?;
        self.workload.outcome(limit())
    }

    /// kill -9.
    fn kill(self) -> tempfile::TempDir {
        drop(self.workload);
        self.state
    }

    /// How many times systemd was told, as the journal has it.
    fn told(&self) -> usize {
        let journal = fs::read_to_string(self.state.path().join("units/journal")).unwrap_or_default();
        journal.lines().filter(|line| line.contains("CPUQuotaPerSecUSec") && line.contains("Do not edit")).count()
    }

    fn wait_until_told(&self) -> Result<()> {
        until("systemd is told", limit(), || Ok((self.told() > 0).then_some(())))
    }
}

/// `guard restore` of the journals that [`Keeping`] writes.
fn restore(state: &Path) -> Result<crate::harness::Finished> {
    // They lie where `guard run` has those of a lane and of units.
    let (lane, named) = (state.join("lane"), state.join("protect"));
    if lane.exists() {
        fs::rename(&lane, &named).context("the lane's journal")?;
    }
    let mut command = Command::new(binary("guard")?);
    finish(command.args(["restore", "--state-dir"]).arg(state), limit())
}

const NAP: &str = "/usr/bin/sleep infinity";

fn soon_told() -> Result<Verdict> {
    let unit = Unit::service("soon", "CPUQuota=20%", NAP)?;
    let before = unit.view()?;
    let (mut times, mut longest) = (Vec::new(), 0);
    for _ in 0..4 {
        let keeping = Keeping::start(&[&unit])?;
        let max = || Ok(unit.text("cpu.max").starts_with("max").then_some(()));
        until("the lift", limit(), max)?;
        let lifted = Instant::now();
        keeping.wait_until_told()?;
        times.push(lifted.elapsed().as_secs_f64() * 1e3);
        longest = longest.max(keeping.end()?.counter("longest_us")?);
        unit.expect("after a clean end", &before)?;
    }
    times.sort_by(f64::total_cmp);
    let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
    // With a bus that says nothing the file has its value as soon.
    let stopped = Stopped::bus()?;
    let keeping = Keeping::start(&[&unit])?;
    until("the lift without a bus", limit(), || Ok(unit.text("cpu.max").starts_with("max").then_some(())))?;
    fs::write(keeping.state.path().join("end"), "").context("the sign to end")?;
    let silent = keeping.workload.outcome(limit())?.counter("longest_us")?;
    drop(stopped);
    unit.expect("after an end without a bus", &before)?;
    Ok(Verdict::Passed(format!(
        "systemd knows after {median:.1} ms at the median, {most:.1} ms at most of {}; a lift took {longest} us at most, {silent} us with a \
         bus that hangs",
        times.len()
    )))
}

/// A process that is stopped (SIGSTOP), and goes on when this is dropped.
struct Stopped(Pid);

impl Stopped {
    /// The daemon of the system bus.
    fn bus() -> Result<Self> {
        let pid = systemctl(&["show", "--value", "--property", "MainPID", "dbus.service"])?;
        let pid = pid.trim().parse().ok().and_then(Pid::from_raw).context("the bus daemon's pid")?;
        rustix::process::kill_process(pid, Signal::STOP).context("kill(dbus-daemon, STOP)")?;
        Ok(Self(pid))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(self.0, Signal::CONT);
    }
}

fn others() -> Result<Verdict> {
    let unit = Unit::service("others", "CPUQuota=20.5%", NAP)?;
    let before = unit.view()?;
    let keeping = Keeping::start(&[&unit])?;
    unit.lifted()?;
    for command in ["daemon-reload", "daemon-reexec"] {
        systemctl(&[command])?;
        unit.lifted().with_context(|| format!("after {command}"))?;
    }
    keeping.end()?;
    unit.expect("after reload and re-execution", &before)?;

    // By hand: the file is the other's, systemd never knew of it.
    let keeping = Keeping::start(&[&unit])?;
    unit.lifted()?;
    fs::write(unit.file("cpu.max"), "31000 100000").context("echo into cpu.max")?;
    unit.lifted()?;
    keeping.end()?;
    let by_hand = unit.view()?;
    ensure!(by_hand.files[0] == "31000 100000", "what was written by hand is gone: {by_hand:?}");
    ensure!((&by_hand.properties, &by_hand.drop_ins) == (&before.properties, &before.drop_ins), "{by_hand:?}");
    systemctl(&["daemon-reload"])?;
    unit.expect("after a reload", &before)?;

    // Until the next boot, and for good: after the other, guard or not, it is the same.
    for options in [&["--runtime"][..], &[]] {
        for killed in [false, true] {
            unit.set(options, "50%")?;
            let with_it = unit.view()?;
            revert(&unit)?;
            unit.expect("without what was set", &before)?;
            let keeping = Keeping::start(&[&unit])?;
            unit.lifted()?;
            keeping.wait_until_told()?;
            unit.set(options, "50%")?;
            unit.lifted()?;
            if options.is_empty() {
                // It outranks guard's at each reload.
                systemctl(&["daemon-reload"])?;
                unit.lifted()?;
            }
            if killed {
                restore(keeping.kill().path())?.expect_code(0)?;
            } else {
                keeping.end()?;
            }
            unit.expect(&format!("set-property {options:?} by somebody else, killed: {killed}"), &with_it)?;
            systemctl(&["daemon-reload"])?;
            unit.expect("and after a reload", &with_it)?;
            revert(&unit)?;
        }
    }
    Ok(Verdict::Passed("reload, re-execution, echo, set-property for now and for good".to_owned()))
}

/// As if nothing had ever been set of it.
fn revert(unit: &Unit) -> Result<()> {
    systemctl(&["revert", "--", &unit.name])?;
    systemctl(&["daemon-reload"]).map(drop)
}

fn stop_and_start() -> Result<Verdict> {
    let unit = Unit::service("restart", "CPUQuota=20%", NAP)?;
    let before = unit.view()?;
    let keeping = Keeping::start(&[&unit])?;
    unit.lifted()?;
    systemctl(&["stop", "--", &unit.name])?;
    until("the properties of the stopped service are back", limit(), || {
        let drop_ins = CONTROL.iter().any(|dir| Path::new(dir).join(format!("{}.d", unit.name)).exists());
        Ok((!drop_ins && unit.show("CPUQuotaPerSecUSec")? == "200ms").then_some(()))
    })?;
    systemctl(&["start", "--", &unit.name])?;
    unit.lifted()?;
    // A new cgroup before guard has looked at the old one's end.
    systemctl(&["restart", "--", &unit.name])?;
    unit.lifted()?;
    keeping.end()?;
    unit.expect("after two starts", &before)?;
    let keeping = Keeping::start(&[&unit])?;
    unit.lifted()?;
    let state = keeping.kill();
    systemctl(&["stop", "--", &unit.name])?;
    restore(state.path())?.expect_code(0)?;
    systemctl(&["start", "--", &unit.name])?;
    unit.expect("stopped after a kill, restored, started", &before)?;
    Ok(Verdict::Passed("stopped, started and restarted while lifted".to_owned()))
}

fn not_systemds() -> Result<Verdict> {
    let unit = Unit::service("delegated", "CPUQuota=60%\nDelegate=yes\nDelegateSubgroup=inner", NAP)?;
    fs::write(unit.file("cgroup.subtree_control"), "+cpu").context("the cpu controller for what is below the unit")?;
    // Its name is a unit's.
    let below = format!("{}/{}", unit.path, unit.name);
    let dir = unit.file(&unit.name);
    fs::create_dir(&dir).context("a cgroup below the unit")?;
    let quota = dir.join("cpu.max");
    fs::write(&quota, "20000 100000").context("write cpu.max")?;
    let before = unit.view()?;
    let read = || fs::read_to_string(&quota).map(|text| text.trim().to_owned()).context("read cpu.max");
    for killed in [false, true] {
        let keeping = Keeping::start_in(scratch_dir()?, &[&below])?;
        until("the lift below a unit", limit(), || Ok(read()?.starts_with("max").then_some(())))?;
        systemctl(&["daemon-reload"])?;
        ensure!(read()?.starts_with("max"), "systemd wrote into what is delegated: {}", read()?);
        unit.expect("while a cgroup below is lifted", &before)?;
        if killed {
            restore(keeping.kill().path())?.expect_code(0)?;
        } else {
            keeping.end()?;
        }
        ensure!(read()? == "20000 100000", "cpu.max below the unit is {}", read()?);
    }
    fs::remove_dir(&dir).context("rmdir of the cgroup below the unit")?;
    let Some(user) = of_a_user()? else {
        return Ok(Verdict::Passed("below a unit; a user's manager could not be started here".to_owned()));
    };
    Ok(Verdict::Passed(format!("below a unit, and {user}")))
}

/// The same for a unit of root's own manager; None where it cannot be had.
fn of_a_user() -> Result<Option<String>> {
    if systemctl(&["start", "user@0.service"]).is_err() {
        return Ok(None);
    }
    let user = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.env("XDG_RUNTIME_DIR", "/run/user/0").arg("--user").args(arguments);
        Tool::start(&mut command)?.success(limit())
    };
    let name = "guard-test-user.service";
    user("systemd-run", &["--quiet", "--unit", name, "--property", "CPUQuota=20%", "sleep", "infinity"])?;
    let path = user("systemctl", &["show", "--value", "--property", "ControlGroup", name])?.trim().to_owned();
    let quota = Path::new(TOP).join(path.trim_start_matches('/')).join("cpu.max");
    let read = || fs::read_to_string(&quota).map(|text| text.trim().to_owned()).context("read cpu.max");
    let before =
        until("the quota of the user's unit", limit(), || Ok(read().ok().filter(|text| text == "20000 100000")))?;
    let keeping = Keeping::start_in(scratch_dir()?, &[&path])?;
    until("the lift of a user's unit", limit(), || Ok(read()?.starts_with("max").then_some(())))?;
    ensure!(keeping.told() == 0, "systemd was told of a unit of a user's manager");
    keeping.end()?;
    ensure!(read()? == before, "cpu.max of the user's unit is {}", read()?);
    user("systemctl", &["stop", name])?;
    systemctl(&["stop", "user@0.service"])?;
    Ok(Some(path))
}

/// A service that alone needs the cpu controller, in a slice of its own.
fn controller() -> Result<Verdict> {
    let in_slice = "Slice=guard-test-alone.slice\nCPUQuota=20%";
    let unit = Unit::service("alone", in_slice, NAP)?;
    let beside = Unit::service("beside", "Slice=guard-test-alone.slice", NAP)?;
    let before = (unit.view()?, beside.view()?);
    fs::write(beside.file("cpu.weight"), "333").context("a weight by hand")?;
    fs::write(unit.file("memory.high"), "1G").context("a limit by hand")?;
    let by_hand = unit.text("memory.high");
    let keeping = Keeping::start(&[&unit])?;
    unit.lifted()?;
    keeping.wait_until_told()?;
    let now = (beside.text("cpu.weight"), unit.text("memory.high"));
    ensure!(now == ("333".to_owned(), by_hand.clone()), "telling systemd cost others {now:?}");
    systemctl(&["daemon-reload"])?;
    unit.lifted()?;
    ensure!(beside.text("cpu.max") == "max 100000", "the neighbour's cpu.max: {}", beside.text("cpu.max"));
    restore(keeping.kill().path())?.expect_code(0)?;
    unit.expect("after a kill", &before.0)?;
    beside.expect("the neighbour after a kill", &before.1)?;
    Ok(Verdict::Passed("the neighbour keeps its cpu files, and what was written by hand stays".to_owned()))
}

fn updates() -> Result<Verdict> {
    let mut tried = Vec::new();
    for engine in ["docker", "podman"] {
        let Some(container) = Container::start(engine)? else { continue };
        let unit = &container.unit;
        let before = unit.view()?;
        let keeping = Keeping::start(&[unit])?;
        unit.lifted()?;
        keeping.end()?;
        unit.expect(&format!("{engine}: after a clean end"), &before)?;
        for killed in [false, true] {
            let keeping = Keeping::start(&[unit])?;
            unit.lifted()?;
            keeping.wait_until_told()?;
            done(engine, &["update", "--cpus", "0.5", container.name])?;
            unit.lifted().with_context(|| format!("after {engine} update"))?;
            if killed {
                restore(keeping.kill().path())?.expect_code(0)?;
            } else {
                keeping.end()?;
            }
            let after = unit.view()?;
            ensure!(after.files[0] == "50000 100000", "{engine} update --cpus 0.5 is lost: {after:?}");
            let property = unit.show("CPUQuotaPerSecUSec")?;
            ensure!(property == "500ms", "systemd says {property} after {engine} update: {after:?}");
            done(engine, &["update", "--cpus", "0.2", container.name])?;
        }
        tried.push(engine);
    }
    if tried.is_empty() {
        return Ok(Verdict::Skipped("neither docker nor podman could run a container".to_owned()));
    }
    Ok(Verdict::Passed(tried.join(", ")))
}

/// A container of 0.2 CPUs; removed when dropped.
struct Container {
    engine: &'static str,
    name: &'static str,
    unit: Unit,
}

impl Container {
    /// None where the engine is not installed.
    fn start(engine: &'static str) -> Result<Option<Self>> {
        let name = "guard-test-update";
        if binary(engine).is_err() {
            return Ok(None);
        }
        if engine == "docker" {
            let settings = r#"{"iptables":false,"ip6tables":false,"bridge":"none"}"#;
            fs::create_dir_all("/etc/docker").context("mkdir /etc/docker")?;
            fs::write("/etc/docker/daemon.json", settings).context("write of docker's settings")?;
            systemctl(&["start", "docker.service"])?;
        }
        let image = scratch_dir()?;
        let bin = image.path().join("root/bin");
        fs::create_dir_all(&bin).context("a root file system")?;
        fs::copy("/usr/bin/busybox", bin.join("sleep")).context("copy of busybox")?;
        let (root, tar) = (image.path().join("root"), image.path().join("image.tar"));
        let words = ["-C", &root.to_string_lossy(), "-cf", &tar.to_string_lossy(), "."];
        done("tar", &words)?;
        done(engine, &["import", &tar.to_string_lossy(), "guard-test:1"])?;
        let options = ["run", "--detach", "--name", name, "--network", "none", "--cpus", "0.2"];
        let id = done(engine, &[&options[..], &["guard-test:1", "/bin/sleep", "1000000"]].concat())?;
        let prefix = if engine == "docker" { "docker" } else { "libpod" };
        let mut unit = Unit { name: format!("{prefix}-{}.scope", id.trim()), path: String::new(), files: Vec::new() };
        unit.find()?;
        Ok(Some(Self { engine, name, unit }))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let at_once: &[&str] = if self.engine == "podman" { &["--time", "0"] } else { &[] };
        let _ = done(self.engine, &[&["rm", "--force"], at_once, &[self.name]].concat());
    }
}

fn hostile_bus() -> Result<Verdict> {
    let unit = Unit::service("hostile", "CPUQuota=20%", NAP)?;
    let before = unit.view()?;
    let max = || Ok(unit.text("cpu.max").starts_with("max").then_some(()));

    // Silent from the begin: a reload undoes the lift, and guard does it again.
    let stopped = Stopped::bus()?;
    let keeping = Keeping::start(&[&unit])?;
    until("the lift without an answer", limit(), max)?;
    systemctl(&["daemon-reload"])?;
    until("the lift after a reload", limit(), max)?;
    drop(stopped);
    unit.lifted().context("when the bus goes on")?;
    keeping.end()?;
    unit.expect("after a bus that was silent at first", &before)?;

    // Silent at the end: what is owed is kept.
    let keeping = Keeping::start(&[&unit])?;
    unit.lifted()?;
    keeping.wait_until_told()?;
    let stopped = Stopped::bus()?;
    let state = keeping.kill();
    let owing = restore(state.path())?;
    owing.expect_code(1)?;
    ensure!(owing.stdout.contains("CPUQuotaPerSecUSec"), "{}", owing.stdout);
    ensure!(unit.text("cpu.max") == before.files[0], "the file waited for the bus: {}", unit.text("cpu.max"));
    drop(stopped);
    restore(state.path())?.expect_code(0)?;
    unit.expect("after a bus that was silent at the end", &before)?;

    // None at all.
    systemctl(&["stop", "dbus.socket", "dbus.service"])?;
    let without = no_bus(&unit);
    systemctl(&["start", "dbus.socket", "dbus.service"])?;
    without?;
    unit.expect("after no bus", &before)?;

    // Denied.
    let policy = "/etc/dbus-1/system.d/guard-test.conf";
    let text = "<busconfig><policy context=\"mandatory\"><deny send_destination=\"org.freedesktop.systemd1\" \
                send_member=\"SetUnitProperties\"/></policy></busconfig>";
    fs::write(policy, text).context("a policy of the bus")?;
    let reload = || {
        let bus = ["call", "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "ReloadConfig"];
        done("busctl", &bus)
    };
    reload()?;
    let denied = Keeping::start(&[&unit]).and_then(|keeping| {
        until("the lift while it is denied", limit(), max)?;
        until("it was tried", limit(), || {
            let journal = fs::read_to_string(keeping.state.path().join("units/journal")).unwrap_or_default();
            Ok(journal.contains("CPUQuotaPerSecUSec").then_some(()))
        })?;
        keeping.end()
    });
    fs::remove_file(policy).context("the policy")?;
    reload()?;
    denied?;
    unit.expect("after denied access", &before)?;
    Ok(Verdict::Passed("silent, absent, denying".to_owned()))
}

fn no_bus(unit: &Unit) -> Result<()> {
    let keeping = Keeping::start(&[unit])?;
    until("the lift without a bus", limit(), || Ok(unit.text("cpu.max").starts_with("max").then_some(())))?;
    keeping.end().map(drop)
}

/// A socket that is no bus: whoever connects is greeted as D-Bus does if `greets`, and is then sent bytes that mean nothing.
struct Garbage {
    address: String,
    connections: Arc<AtomicUsize>,
    _dir: tempfile::TempDir,
}

impl Garbage {
    fn listen(greets: bool) -> Result<Self> {
        let dir = scratch_dir()?;
        let path = dir.path().join("bus");
        let listener = UnixListener::bind(&path).with_context(|| format!("bind {}", path.display()))?;
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        // It ends with the checks' process.
        spawn(move || {
            for (connection, seed) in listener.incoming().zip(0..) {
                count.fetch_add(1, Ordering::Relaxed);
                // Whoever has enough of it hangs up.
                let _ = connection.and_then(|connection| babble(connection, greets, seed));
            }
        });
        Ok(Self { address: format!("unix:path={}", path.display()), connections, _dir: dir })
    }
}

fn babble(mut connection: UnixStream, greets: bool, seed: u64) -> io::Result<()> {
    if greets {
        let mut lines = BufReader::new(connection.try_clone()?);
        let mut line = String::new();
        while !line.starts_with("BEGIN") {
            line.clear();
            if lines.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line.trim_start_matches('\0').starts_with("AUTH") {
                connection.write_all(b"OK 0123456789abcdef0123456789abcdef\r\n")?;
            } else if line.starts_with("NEGOTIATE_UNIX_FD") {
                connection.write_all(b"AGREE_UNIX_FD\r\n")?;
            }
        }
    }
    let mut random = Random::new(SEED + seed);
    let bytes: Vec<u8> = (0..4096).map(|_| random.below(256).to_le_bytes()[0]).collect();
    connection.write_all(&bytes)
}

/// A whole guard beside each kind of it.
fn garbage() -> Result<Verdict> {
    let unit = Unit::service("garbage", "CPUQuota=20%", &looping()?)?;
    let before = unit.view()?;
    let max = || Ok(unit.text("cpu.max").starts_with("max").then_some(()));
    let mut tries = Vec::new();
    for greets in [false, true] {
        let bus = Garbage::listen(greets)?;
        let mut guard = Enforcing::start_at(Some(OURS), Some(&bus.address))?;
        until("the lift beside garbage", limit(), max)?;
        systemctl(&["daemon-reload"])?;
        until("the lift after a reload", limit(), max)?;
        guard.passed(1)?;
        let said = guard.stop()?;
        ensure!(
            said.contains("changed in their cgroup files alone"),
            "guard does not say what it could not do: {said}"
        );
        unit.expect("after a bus of garbage", &before)?;
        tries.push(bus.connections.load(Ordering::Relaxed));
    }
    ensure!(tries.iter().all(|tries| *tries > 0), "guard never connected: {tries:?}");
    Ok(Verdict::Passed(format!("{tries:?} connections, without a greeting and with one")))
}

/// What somebody else does while guard holds a lift.
#[derive(Clone, Copy, Debug)]
enum Doing {
    Nothing,
    Reload,
    Set,
}

fn storm() -> Result<Verdict> {
    let cycles = std::env::var("GUARD_CYCLES").ok().and_then(|text| text.parse().ok()).unwrap_or(CYCLES);
    let service = Unit::service("storm", "CPUQuota=20%", NAP)?;
    let container = Container::start("docker")?;
    let units: Vec<&Unit> = [&service].into_iter().chain(container.as_ref().map(|container| &container.unit)).collect();
    let mut random = Random::new(SEED);
    let mut expected: Vec<View> = units.iter().map(|unit| unit.view()).collect::<Result<_>>()?;
    let (mut held, mut told, mut reloads, mut sets) = (0, 0, 0, 0);
    for cycle in 0..cycles {
        let state = scratch_dir()?;
        let paths: Vec<&str> = units.iter().map(|unit| unit.path.as_str()).collect();
        let keeping = Keeping::start_in(state, &paths)?;
        let doing = [Doing::Nothing, Doing::Nothing, Doing::Nothing, Doing::Reload, Doing::Set][random.index(5)];
        let mut beside = match doing {
            Doing::Nothing => None,
            Doing::Reload => Some(Tool::start(Command::new("systemctl").arg("daemon-reload"))?),
            Doing::Set => {
                let percent = format!("CPUQuota={}%", 20 + random.below(60));
                let set = ["set-property", "--runtime", "--", &units[0].name, &percent];
                Some(Tool::start(Command::new("systemctl").args(set))?)
            }
        };
        // The instant is what is random here; nothing waits for anything to have happened by then. systemd answers late in an
        // emulated guest, so that one cycle in three has a longer time.
        let longest_us = if random.below(3) == 0 { 240_000 } else { 60_000 };
        sleep(Duration::from_micros(random.below(longest_us)) * patience());
        let was_told = keeping.told() > 0;
        let state = keeping.kill();
        held += u64::from(units.iter().any(|unit| unit.text("cpu.max").starts_with("max")));
        told += u64::from(was_told);
        if random.below(2) == 0
            && let Some(beside) = beside.take()
        {
            beside.success(limit())?;
        }
        let journals = journals(state.path());
        let restored = restore(state.path())?;
        restored.expect_code(0).with_context(|| format!("cycle {cycle}, {doing:?}"))?;
        if let Some(beside) = beside {
            beside.success(limit())?;
        }
        for (index, unit) in units.iter().enumerate() {
            let now = unit.view()?;
            // What somebody else has set stays, and is the original of the next cycle.
            if matches!(doing, Doing::Set) && index == 0 {
                agrees(unit, &now).with_context(|| format!("cycle {cycle}, {restored:?}, {journals}"))?;
                expected[0] = now;
                sets += 1;
            } else {
                ensure!(
                    now == expected[index],
                    "cycle {cycle}, {doing:?}: {} was {:?}, and is {now:?}; guard restore: {restored:?}; {journals}",
                    unit.name,
                    expected[index]
                );
            }
        }
        reloads += u64::from(matches!(doing, Doing::Reload));
    }
    ensure!(cycles < 20 || (held > 0 && told > 0), "guard was never killed while it held something");
    Ok(Verdict::Passed(format!(
        "{cycles} kills of {} units: {held} with the lift there, {told} with systemd told, {reloads} beside a reload, {sets} beside set-property",
        units.len()
    )))
}

/// A foreign quota: file, property and drop-in say the same, and nothing of guard's is left.
fn agrees(unit: &Unit, view: &View) -> Result<()> {
    let quota: u64 = view.files[0]
        .split(' ')
        .next()
        .and_then(|text| text.parse().ok())
        .with_context(|| format!("{} has no quota: {view:?}", unit.name))?;
    let property = format!("CPUQuotaPerSecUSec={}ms", quota / 100);
    ensure!(view.properties.contains(&property), "the file of {} is not what systemd says: {view:?}", unit.name);
    ensure!(view.properties.contains("CPUWeight=[not set]"), "guard's weight is left: {view:?}");
    let [drop_in] = &view.drop_ins[..] else { bail!("drop-ins of {}: {view:?}", unit.name) };
    ensure!(drop_in.contains(&format!("CPUQuota={}", quota / 1_000)), "{view:?}");
    Ok(())
}

fn journals(state: &Path) -> String {
    let read = |name: &str| fs::read_to_string(state.join(name)).unwrap_or_default();
    format!("journals:\n{}{}", read("lane/journal"), read("units/journal"))
}

fn looping() -> Result<String> {
    Ok(format!("{} {LOOP}", binary("guard-workload")?.display()))
}

/// guard for our units alone.
const OURS: &str = "[[workload]]\nmatch.cgroup = \"*guard-test*\"\nmanaged = true\n\
                    [[workload]]\nmatch.cgroup = \"*\"\nmanaged = false\n";

fn whole_storm() -> Result<Verdict> {
    let unit = Unit::service("whole", "CPUQuota=20%", &looping()?)?;
    let before = unit.view()?;
    let mut random = Random::new(SEED + 1);
    for cycle in 0..WHOLE_CYCLES {
        let mut guard = Enforcing::start(Some(OURS))?;
        until("the lift", limit(), || {
            guard.snapshots()?;
            Ok(unit.text("cpu.max").starts_with("max").then_some(()))
        })?;
        if cycle % 2 == 1 {
            systemctl(&["daemon-reload"])?;
        }
        sleep(Duration::from_micros(random.below(100_000)) * patience());
        guard.kill_and_restore()?;
        unit.expect(&format!("cycle {cycle}"), &before)?;
    }
    Ok(Verdict::Passed(format!("{WHOLE_CYCLES} kills")))
}

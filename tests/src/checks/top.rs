//! The dashboard in a real terminal, and recordings that survive what kills their writer.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use guard::snapshot::Snapshot;
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    harness::{GuardRun, Terminal, Tool, WaitsIn, attached, binary, patience, scratch_dir, until},
    scenario::Verdict,
};

const RECORDING: &[u8] = include_bytes!("../../../docs/example.guardrec");

fn limit() -> Duration {
    Duration::from_secs(60) * patience()
}

/// What `stty` says of the terminal.
fn settings(terminal: &Terminal, scratch: &Path) -> Result<String> {
    let file = scratch.join("stty");
    let _ = fs::remove_file(&file);
    terminal.line(&format!("stty -g > {0}.new && mv {0}.new {0}", file.display()))?;
    until("settings of the terminal", limit(), || Ok(fs::read_to_string(&file).ok()))
}

/// Shows the recording in a terminal, the dashboard's pid in `pid_file`.
fn replay(terminal: &Terminal, scratch: &Path) -> Result<u32> {
    let (recording, pid_file) = (scratch.join("example"), scratch.join("pid"));
    fs::write(&recording, RECORDING)?;
    let _ = fs::remove_file(&pid_file);
    let guard = binary("guard")?;
    terminal.line("clear; echo before")?;
    terminal.wait_for("before\n$")?;
    terminal.line(&format!(
        "sh -c 'echo $$ > {}; exec {} top --replay {} --speed 1024'; echo code=$?.",
        pid_file.display(),
        guard.display(),
        recording.display()
    ))?;
    terminal.wait_for("END")?;
    fs::read_to_string(&pid_file)?.trim().parse().context("pid of the dashboard")
}

/// After the dashboard the screen and the terminal's settings are as before.
fn is_restored(terminal: &Terminal, code: &str, before: &str, scratch: &Path) -> Result<()> {
    let screen = terminal.wait_for(&format!("\ncode={code}."))?;
    ensure!(screen.contains("\nbefore") || screen.starts_with("before"), "the screen is not back:\n{screen}");
    ensure!(!screen.contains("PREEMPT_RT"), "the dashboard is still there:\n{screen}");
    let after = settings(terminal, scratch)?;
    ensure!(after == before, "terminal settings {after} instead of {before}");
    Ok(())
}

pub(super) fn keys_and_sizes() -> Result<Verdict> {
    let scratch = scratch_dir()?;
    let terminal = Terminal::open(200, 60)?;
    let before = settings(&terminal, scratch.path())?;
    replay(&terminal, scratch.path())?;
    for (key, text) in [
        ("Enter", "QUOTAS"),
        ("c", "CAUSES"),
        ("a", "guard has changed nothing"),
        ("n", "SIGNALS"),
        ("d", "A recording does not have"),
        ("?", "KEYS"),
        ("Escape", "workload"),
    ] {
        terminal.key(key)?;
        terminal.wait_for(text).with_context(|| format!("after {key}"))?;
    }
    for (columns, rows) in [(80, 24), (40, 10), (200, 60)] {
        terminal.resize(columns, rows)?;
        let size = (usize::from(columns), usize::from(rows));
        until("a screen that fits", limit(), || {
            let screen = terminal.screen()?;
            let lines: Vec<&str> = screen.lines().collect();
            let fits = lines.len() <= size.1 && lines.iter().all(|line| line.chars().count() <= size.0);
            let whole = lines.first().is_some_and(|line| line.starts_with("guard"))
                && screen.trim_end().lines().last().is_some_and(|line| line.starts_with("q quit"));
            Ok((fits && whole).then_some(()))
        })?;
    }
    terminal.key("q")?;
    is_restored(&terminal, "0", &before, scratch.path())?;
    Ok(Verdict::Passed("7 views, 3 sizes, screen and settings as before".to_owned()))
}

pub(super) fn signals_restore() -> Result<Verdict> {
    let scratch = scratch_dir()?;
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        let terminal = Terminal::open(80, 24)?;
        let before = settings(&terminal, scratch.path())?;
        let pid = replay(&terminal, scratch.path())?;
        let pid = Pid::from_raw(i32::try_from(pid)?).context("pid 0")?;
        kill_process(pid, signal)?;
        is_restored(&terminal, "0", &before, scratch.path()).with_context(|| format!("{signal:?}"))?;
    }
    Ok(Verdict::Passed("SIGTERM, SIGHUP, SIGINT".to_owned()))
}

pub(super) fn needs_a_terminal() -> Result<Verdict> {
    let finished = GuardRun::default().with(&["top"]).finish(limit())?;
    finished.expect_code(2)?;
    finished.expect_message("needs a terminal")?;
    finished.expect_message("guard report")?;
    Ok(Verdict::Passed(finished.stderr.trim_end().to_owned()))
}

pub(super) fn live() -> Result<Verdict> {
    let terminal = Terminal::open(120, 40)?;
    let begin = Instant::now();
    terminal.line(&format!("{} top", binary("guard")?.display()))?;
    terminal.wait_for("LOADING").or_else(|_| terminal.wait_for("LIVE"))?;
    let opened = begin.elapsed();
    let screen = terminal.wait_for("LIVE")?;
    let shown = begin.elapsed();
    ensure!(screen.contains("workload"), "no workloads:\n{screen}");
    terminal.key("n")?;
    terminal.wait_for("SIGNALS")?;
    terminal.key("q")?;
    until("guard top has ended", limit(), || Ok((!terminal.screen()?.contains("SIGNALS")).then_some(())))?;
    Ok(Verdict::Passed(format!("opened after {opened:.1?}, first interval after {shown:.1?}")))
}

pub(super) fn controller_dies() -> Result<Verdict> {
    let scratch = scratch_dir()?;
    let socket = scratch.path().join("guard.sock");
    let listen = format!("unix:{}", socket.display());
    let controller = || -> Result<Tool> {
        let mut tool = Tool::start(
            &mut GuardRun::default().with(&["run", "--interval", "500ms", "--listen", &listen]).command()?,
        )?;
        attached(&mut tool, WaitsIn::Epoll)?;
        Ok(tool)
    };
    let mut first = controller()?;
    let terminal = Terminal::open(120, 40)?;
    terminal.line(&format!("{} top --connect {}", binary("guard")?.display(), socket.display()))?;
    terminal.wait_for("CONNECTED")?;
    first.signal(Signal::KILL)?;
    // Until then its socket may take connections.
    first.wait(limit())?;
    let screen = terminal.wait_for("LOST")?;
    ensure!(screen.contains("workload"), "what was seen is gone:\n{screen}");
    let mut second = controller()?;
    terminal.wait_for("CONNECTED")?;
    terminal.key("q")?;
    second.signal(Signal::TERM)?;
    second.wait(limit())?;
    ensure!(!socket.exists(), "the socket is left behind");
    Ok(Verdict::Passed("LOST after SIGKILL, CONNECTED again after a new start".to_owned()))
}

/// The Snapshots of a recording, one by one, as lines of hdrhistogram's log say, and as one report.
fn report(recording: &Path) -> Result<(usize, Snapshot)> {
    let path = recording.to_string_lossy();
    let hdr = GuardRun::default().with(&["report", "--replay", &path, "--format", "hdr"]).finish(limit())?;
    hdr.expect_code(0)?;
    let intervals: std::collections::BTreeSet<&str> =
        hdr.stdout.lines().filter(|l| l.starts_with("Tag=")).filter_map(|l| l.split(',').nth(1)).collect();
    let json = GuardRun::default().with(&["report", "--replay", &path, "--format", "json"]).finish(limit())?;
    json.expect_code(0)?;
    Ok((intervals.len(), serde_json::from_str(&json.stdout).context("the report as a Snapshot")?))
}

pub(super) fn recording_survives_kill() -> Result<Verdict> {
    let scratch = scratch_dir()?;
    let recording = scratch.path().join("recording");
    let path = recording.to_string_lossy();
    let mut tool =
        Tool::start(&mut GuardRun::default().with(&["run", "--interval", "100ms", "--record", &path]).command()?)?;
    until("ten intervals", limit(), || {
        if let Some(status) = tool.ended()? {
            bail!("guard ended with {status}: {}", tool.stderr()?);
        }
        Ok((tool.stdout()?.lines().count() > 10).then_some(()))
    })?;
    tool.signal(Signal::KILL)?;
    tool.wait(limit())?;
    let (intervals, sum) = report(&recording)?;
    ensure!(intervals >= 8, "only {intervals} intervals were recorded");
    ensure!(sum.window.seconds > 0.8, "the sum is of {} s", sum.window.seconds);

    // As after a power cut: the last Snapshot is not whole.
    let segment = fs::read_dir(&recording)?.next().context("no segment")??.path();
    let bytes = fs::read(&segment)?;
    fs::write(&segment, &bytes[..bytes.len() - 7])?;
    let (left, _) = report(&recording)?;
    ensure!(left + 1 == intervals || left == intervals, "{left} of {intervals} intervals left");
    Ok(Verdict::Passed(format!("{intervals} intervals after SIGKILL, {left} after a cut")))
}

pub(super) fn full_disk() -> Result<Verdict> {
    let scratch = scratch_dir()?;
    let dir = scratch.path().display();
    // In a mount namespace of its own: nobody else sees the little disk.
    let script = format!(
        "mount -t tmpfs -o size=16k none {dir} && exec {} run --interval 100ms --record {dir}/r",
        binary("guard")?.display()
    );
    let mut guard = Tool::start(Command::new("unshare").args(["-m", "sh", "-c", &script]))?;
    until("a full disk is told", limit(), || {
        if let Some(status) = guard.ended()? {
            bail!("guard ended with {status}: {}", guard.stderr()?);
        }
        Ok(guard.stderr()?.contains("cannot record to").then_some(()))
    })?;
    let before = guard.stdout()?.lines().count();
    until("twenty more intervals", limit(), || Ok((guard.stdout()?.lines().count() >= before + 20).then_some(())))?;
    guard.signal(Signal::TERM)?;
    let status = guard.wait(limit())?;
    let said = guard.stderr()?;
    ensure!(status.success(), "guard ended with {status}: {said}");
    ensure!(said.contains("Observing goes on"), "{said}");
    ensure!(said.matches("cannot record").count() == 1, "told more than once: {said}");
    Ok(Verdict::Passed(said.lines().next().unwrap_or_default().to_owned()))
}

pub(super) fn doctor() -> Result<Verdict> {
    let scratch = scratch_dir()?;
    let terminal = Terminal::open(100, 40)?;
    replay(&terminal, scratch.path())?;
    terminal.key("d")?;
    terminal.wait_for("A recording does not have what doctor looks at")?;
    terminal.key("q")?;
    terminal.wait_for("code=0.")?;
    if !rustix::process::geteuid().is_root() {
        return Ok(Verdict::Passed("of a recording; watching this machine needs root".to_owned()));
    }
    terminal.line(&format!("clear; {} top", binary("guard")?.display()))?;
    terminal.wait_for("LIVE")?;
    terminal.key("6")?;
    let screen = terminal.wait_for("r looks again")?;
    let counts = screen.lines().find(|line| line.contains("DOCTOR")).unwrap_or_default().trim().to_owned();
    terminal.key("q")?;
    Ok(Verdict::Passed(counts))
}

pub(super) fn panic_restores() -> Result<Verdict> {
    let scratch = scratch_dir()?;
    let terminal = Terminal::open(80, 24)?;
    let before = settings(&terminal, scratch.path())?;
    terminal.line("clear; echo before")?;
    terminal.wait_for("before\n$")?;
    terminal.line(&format!("{} panic-on-screen; echo code=$?.", binary("guard-workload")?.display()))?;
    let screen = terminal.wait_for("on the screen")?;
    ensure!(!screen.contains("before"), "not on the alternate screen:\n{screen}");
    terminal.key("x")?;
    let screen = terminal.wait_for("\ncode=101.")?;
    ensure!(screen.contains("before") && !screen.contains("on the screen"), "the screen is not back:\n{screen}");
    ensure!(screen.contains("a panic on purpose"), "the message is gone:\n{screen}");
    let after = settings(&terminal, scratch.path())?;
    ensure!(after == before, "terminal settings {after} instead of {before}");
    Ok(Verdict::Passed("screen, settings and message are there".to_owned()))
}

/// As when an ssh connection breaks: the terminal is gone, with everything that was to be given back.
pub(super) fn lost_terminal() -> Result<Verdict> {
    let scratch = scratch_dir()?;
    let terminal = Terminal::open(80, 24)?;
    let pid = replay(&terminal, scratch.path())?;
    drop(terminal);
    until("the dashboard has ended", limit(), || {
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        Ok((state.is_empty() || state.contains(") Z")).then_some(()))
    })?;
    Ok(Verdict::Passed(format!("process {pid} went with its terminal")))
}

/// Every reader gives the good part or a reason, and never a panic.
pub(super) fn damaged_recordings() -> Result<Verdict> {
    let scratch = scratch_dir()?;
    let good = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/example.guardrec");
    let whole = GuardRun::default().with(&["report", "--format", "json", "--replay", &good.to_string_lossy()]);
    let whole: Snapshot = serde_json::from_str(&whole.finish(limit())?.stdout)?;
    let newer = {
        let mut bytes = RECORDING.to_vec();
        bytes[12] = 99;
        bytes
    };
    let torn = {
        let mut bytes = RECORDING.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 8].fill(0xff);
        bytes
    };
    let text = serde_json::to_string(&whole)?;
    let other_schema = text.replacen("\"schema\":1", "\"schema\":7", 1);
    // What it is, its bytes, the exit code, and what is said.
    let cases: [(&str, &[u8], i32, &str); 9] = [
        ("cut", &RECORDING[..RECORDING.len() - 5], 0, "incomplete or damaged"),
        ("torn", &torn, 0, "bytes are damaged"),
        ("newer", &newer, 2, "schema 99"),
        ("header", &RECORDING[..11], 2, "within its header"),
        ("other-schema", other_schema.as_bytes(), 2, "schema 7"),
        ("foreign", b"{\"a\": [1, 2]}", 2, "no Snapshot of guard"),
        ("half", &text.as_bytes()[..text.len() / 2], 2, "ends early"),
        ("noise", &[0x80, 0xff, 0, 0x13, 0x37], 2, "neither a recording nor JSON"),
        ("empty", b"", 2, "empty"),
    ];
    let config = scratch.path().join("guard.toml");
    fs::write(&config, "")?;
    let config = config.to_string_lossy();
    for (name, bytes, code, said) in cases {
        let path = scratch.path().join(name);
        fs::write(&path, bytes)?;
        let path = path.to_string_lossy();
        let readers: [&[&str]; 5] = [
            &["report", "--format", "json", "--replay", &path],
            &["report", "--format", "html", "--replay", &path],
            &["report", "--format", "hdr", "--replay", &path],
            &["plan", "--config", &config, "--replay", &path],
            &["top", "--picture", "80x24", "--replay", &path],
        ];
        for reader in readers {
            let finished = GuardRun::default().with(reader).finish(limit())?;
            finished.expect_code(code).with_context(|| format!("{name}: {reader:?}"))?;
            // The picture leaves out in silence what cannot be read; where nothing can, it says so.
            if code != 0 || reader[0] != "top" {
                finished.expect_message(said).with_context(|| format!("{name}: {reader:?}"))?;
            }
            ensure!(!finished.stderr.contains("panicked"), "{name}: {}", finished.stderr);
            ensure!(code != 0 || !finished.stdout.is_empty(), "{name}: nothing of the good part");
        }
    }
    Ok(Verdict::Passed(format!("{} kinds of damage, 5 readers", cases.len())))
}

/// A node with 500 workloads, and one with nothing to show, in a real terminal.
pub(super) fn crowd_and_desert() -> Result<Verdict> {
    let scratch = scratch_dir()?;
    let file = scratch.path().join("example");
    fs::write(&file, RECORDING)?;
    let (_, mut snapshot) = report(&file)?;
    let first = snapshot.cgroups.first().context("no cgroup in the example")?.clone();
    snapshot.cgroups = (0..500)
        .map(|n| {
            let mut cgroup = first.clone();
            (cgroup.path, cgroup.id, cgroup.container) = (format!("/pods/pod-{n:03}"), 1_000 + n, None);
            cgroup
        })
        .collect();
    let terminal = Terminal::open(80, 24)?;
    let show = |snapshot: &Snapshot, text: &str| -> Result<String> {
        fs::write(&file, serde_json::to_string(snapshot)?)?;
        let guard = binary("guard")?;
        terminal.line(&format!("clear; {} top --replay {}; echo code=$?.", guard.display(), file.display()))?;
        terminal.wait_for("END")?;
        terminal.wait_for(text)
    };
    show(&snapshot, "pod-0")?;
    terminal.key("End")?;
    terminal.wait_for("pod-499")?;
    terminal.line("/POD-25")?;
    let screen = terminal.wait_for("pod-259")?;
    ensure!(!screen.contains("pod-26"), "the filter lets others pass:\n{screen}");
    // Whatever is typed before the shell is back may be lost.
    terminal.key("q")?;
    terminal.wait_for("code=0.")?;

    let empty = Snapshot {
        signals: Vec::new(),
        cgroups: Vec::new(),
        threads: Vec::new(),
        cpus: Vec::new(),
        breaches: Vec::new(),
        actions: Vec::new(),
        ..snapshot
    };
    let screen = show(&empty, "guard ")?;
    for key in ["w", "c", "a", "n", "d", "?", "o"] {
        terminal.key(key)?;
    }
    terminal.wait_for("q quit")?;
    terminal.key("q")?;
    terminal.wait_for("code=0.")?;
    Ok(Verdict::Passed(screen.lines().nth(1).unwrap_or_default().trim().to_owned()))
}

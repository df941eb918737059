//! guard itself fails: panics that are made in each of its threads. What was changed is put back, guard says so and ends with
//! exit code 70; and where it only shows something, it goes on.

use std::{fs, os::unix::net::UnixStream, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use guard::snapshot::ActionState;
use rustix::process::Signal;

use super::{act::Scene, metrics::get};
use crate::{
    harness::{Finished, Tool, binary, finish, patience, until},
    scenario::Verdict,
};

/// Names a directory: a file in it that is named after a place of guard's makes the thread panic that passes there next.
const VARIABLE: &str = "GUARD_TEST_PANIC";

fn limit() -> Duration {
    Duration::from_secs(60) * patience()
}

/// guard at work on a quota that it has lifted, and where to make it panic.
struct Trial {
    guard: Tool,
    scene: Scene,
    /// The quota before guard.
    before: String,
}

impl Trial {
    /// With panics that are made as soon as guard comes by.
    fn begin(name: &str, at_once: &[&str], arguments: &[&str]) -> Result<Self> {
        let scene = Scene::set(name)?;
        let before = scene.quota()?;
        fs::create_dir(scene.file("panics")).context("mkdir")?;
        for place in at_once {
            make_panic(&scene, place)?;
        }
        let mut command = scene.command(&[&["-v"], arguments].concat())?;
        command.env(VARIABLE, scene.file("panics"));
        let mut guard = Tool::start(&mut command)?;
        scene.wait_until_lifted(&mut guard)?;
        Ok(Self { guard, scene, before })
    }

    /// Waits until guard has ended, and says how.
    fn ended(&mut self) -> Result<Finished> {
        let status = self.guard.wait(limit())?;
        Ok(Finished { status, stdout: self.guard.stdout()?, stderr: self.guard.stderr()? })
    }

    fn expect_original(&self, said: &str) -> Result<()> {
        let now = self.scene.quota()?;
        ensure!(now == self.before, "the quota is {now} instead of {}: {said}", self.before);
        Ok(())
    }

    /// What `guard restore` says and does.
    fn restore(&self, options: &[&str]) -> Result<Finished> {
        let mut command = Command::new(binary("guard")?);
        command.args(["restore", "--state-dir"]).arg(self.scene.file("state")).args(options);
        finish(&mut command, limit())
    }

    /// Waits until guard has said something.
    fn said(&mut self, what: &str) -> Result<()> {
        until(&format!("guard says \"{what}\""), limit(), || {
            let stderr = self.guard.stderr()?;
            if let Some(status) = self.guard.ended()? {
                bail!("guard ended with {status}: {stderr}");
            }
            Ok(stderr.contains(what).then_some(()))
        })
    }
}

fn make_panic(scene: &Scene, place: &str) -> Result<()> {
    fs::write(scene.file("panics").join(place), "").with_context(|| format!("a panic at {place}"))
}

/// Whatever thread it is that protection needs: nothing is left behind, and it is said whose panic it was.
pub(super) fn of_what_protects() -> Result<Verdict> {
    let mut told = Vec::new();
    for (place, thread) in [("protect", "guard-protect"), ("rest", "guard-rest"), ("controller", "main")] {
        let mut trial = Trial::begin(&format!("panic-{place}"), &[], &[])?;
        make_panic(&trial.scene, place)?;
        let ended = trial.ended()?;
        ended.expect_code(70)?;
        let said = ended.stderr.lines().find(|line| line.starts_with("error: ")).unwrap_or_default().to_owned();
        ensure!(said.starts_with(&format!("error: thread {thread} panicked at guard/src/")), "{}", ended.stderr);
        ensure!(said.contains(&format!("made at \"{place}\"")), "{said}");
        ended.expect_message("everything that guard had changed was put back")?;
        ended.expect_message("This is a defect of guard")?;
        trial.expect_original(&ended.stderr)?;
        let left = trial.restore(&["--dry-run"])?;
        left.expect_code(0)?;
        ensure!(left.stdout.contains("nothing to put back"), "{place}: the journal is left: {}", left.stdout);
        let actions = trial.scene.audit()?;
        let back = actions.iter().rfind(|action| trial.scene.is_about(action)).context("an empty audit log")?;
        let because = format!("put back, because guard ends: thread {thread} panicked at ");
        ensure!(back.reason.starts_with(&because) && back.result.state == ActionState::Written, "{place}: {back:?}");
        told.push(said);
    }
    Ok(Verdict::Passed(told.join("; ")))
}

/// Who puts back after a panic panics as well: the journal still knows everything.
pub(super) fn of_who_puts_back() -> Result<Verdict> {
    let mut trial = Trial::begin("panic-twice", &["put-back"], &[])?;
    make_panic(&trial.scene, "protect")?;
    let ended = trial.ended()?;
    ended.expect_code(70)?;
    ended.expect_message("error: thread guard-protect panicked")?;
    ended.expect_message("a journal was not put back: thread guard-put-back panicked")?;
    ended.expect_message("run `guard restore`")?;
    ensure!(trial.scene.is_lifted()?, "the quota came back by itself, so this check proves nothing");
    let restored = trial.restore(&[])?;
    restored.expect_code(0)?;
    trial.expect_original(&restored.stdout)?;
    Ok(Verdict::Passed(restored.stdout.trim().to_owned()))
}

/// Everything that only shows panics, and the quota stays lifted until the end.
pub(super) fn of_what_only_shows() -> Result<Verdict> {
    let scratch = crate::harness::scratch_dir()?;
    let path = |name: &str| scratch.path().join(name).display().to_string();
    let (recording, socket) = (path("recording"), path("guard.sock"));
    let listen = format!("unix:{socket}");
    let shown = ["--record", &recording, "--listen", &listen, "--listen", "127.0.0.1:0"];
    // The first line of the audit log is the lift.
    let mut trial = Trial::begin("panic-shows", &["audit", "record"], &shown)?;
    trial.said("cannot append to the audit log: thread guard-audit panicked")?;
    trial.said("ends here: thread guard-record panicked")?;

    let said = trial.guard.stderr()?;
    let port = said.split("metrics are shown on 127.0.0.1:").nth(1).and_then(|rest| rest.split_whitespace().next());
    let port: u16 = port.context("no port of the metrics")?.parse().context("the port of the metrics")?;
    make_panic(&trial.scene, "metrics")?;
    let (head, _) = get(port, "/metrics", "*/*")?;
    ensure!(head.contains(" 500 "), "{head}");
    let (head, _) = get(port, "/metrics", "*/*")?;
    ensure!(head.contains(" 200 "), "{head}");
    make_panic(&trial.scene, "http")?;
    // Whatever this client is told.
    let _ = get(port, "/metrics", "*/*");
    trial.said("metrics are not shown any more: thread guard-metrics panicked")?;

    make_panic(&trial.scene, "socket")?;
    let _client = UnixStream::connect(&socket).context("connect to guard's socket")?;
    trial.said(&format!("{socket} is not served any more"))?;

    make_panic(&trial.scene, "config")?;
    trial.guard.signal(Signal::HUP)?;
    trial.said("the configuration stays as it was: cannot read it: ")?;

    make_panic(&trial.scene, "output")?;
    trial.said("an interval is missing in the output: thread guard-output panicked")?;
    let lines = |guard: &Tool| anyhow::Ok(guard.stdout()?.lines().count());
    let before = lines(&trial.guard)?;
    until("the next intervals", limit(), || Ok((lines(&trial.guard)? > before + 1).then_some(())))?;

    ensure!(trial.scene.is_lifted()?, "the quota is {}: {}", trial.scene.quota()?, trial.guard.stderr()?);
    trial.guard.signal(Signal::TERM)?;
    let ended = trial.ended()?;
    ended.expect_code(0)?;
    trial.expect_original(&ended.stderr)?;
    let actions = trial.scene.audit()?;
    let own: Vec<_> = actions.iter().filter(|action| trial.scene.is_about(action)).collect();
    let [back] = own[..] else { bail!("{own:?} in the audit log whose first line was lost") };
    ensure!(back.reason == "put back, because guard ends", "{back:?}");
    ensure!(!Path::new(&socket).exists(), "the socket is left behind");
    Ok(Verdict::Passed("audit, record, metrics, http, socket, config and output panicked once each".to_owned()))
}

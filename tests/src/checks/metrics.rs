//! Metrics as their readers see them: Prometheus itself scrapes guard, and its own tools look at the page, the alert rules
//! and the dashboard.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    harness::{GuardRun, Tool, Workload, binary, finish, patience, scratch_dir, until},
    scenario::Verdict,
};

/// Where Prometheus and promtool are, if they are not on PATH; set by `cargo xtask test`.
const DIRECTORY: &str = "GUARD_PROMETHEUS";

fn limit() -> Duration {
    Duration::from_secs(60) * patience()
}

/// A file of deploy/.
fn deployed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name)
}

/// One of Prometheus's programs; none where it is not to be had.
fn program(name: &str) -> Option<PathBuf> {
    let own = std::env::var_os(DIRECTORY).map(|dir| Path::new(&dir).join(name)).filter(|path| path.is_file());
    own.or_else(|| binary(name).ok())
}

fn missing() -> Result<Verdict> {
    Ok(Verdict::Skipped("no prometheus: cargo xtask setup --for test fetches it".to_owned()))
}

/// What is answered to GET: headers and body. HTTP/1.0, so that nothing is cut into chunks.
pub(super) fn get(port: u16, path: &str, accept: &str) -> Result<(String, Vec<u8>)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).context("connect")?;
    stream.set_read_timeout(Some(limit())).context("set_read_timeout")?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nAccept: {accept}\r\n\r\n").context("request")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("answer")?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").context("an answer without head")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    Ok((head, answer.split_off(end + 4)))
}

/// guard with metrics on a port that the kernel chose.
fn guard_with_metrics(arguments: &[&str]) -> Result<(Tool, u16)> {
    let run =
        GuardRun::default().with(&["-v", "run", "--interval", "200ms", "--listen", "127.0.0.1:0"]).with(arguments);
    let mut guard = Tool::start(&mut run.command()?)?;
    let port = until("guard shows metrics", limit(), || {
        if let Some(status) = guard.ended()? {
            bail!("guard ended with {status}: {}", guard.stderr()?);
        }
        let said = guard.stderr()?;
        let port = said.split("metrics are shown on 127.0.0.1:").nth(1);
        Ok(port.and_then(|rest| rest.split_whitespace().next()?.parse().ok()))
    })?;
    Ok((guard, port))
}

/// A port that nobody has; Prometheus cannot be asked which one the kernel chose.
fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("bind")?;
    Ok(listener.local_addr().context("local_addr")?.port())
}

/// A Prometheus that scrapes guard.
struct Prometheus {
    tool: Tool,
    port: u16,
    _scratch: tempfile::TempDir,
}

impl Prometheus {
    fn start(program: &Path, guard: u16, options: &[&str]) -> Result<Self> {
        let scratch = scratch_dir()?;
        let config = scratch.path().join("prometheus.yml");
        // The configuration that guard comes with, with this guard's port.
        let text = fs::read_to_string(deployed("prometheus/prometheus.yml")).context("prometheus.yml")?;
        ensure!(text.contains("127.0.0.1:9469") && text.contains("15s"), "prometheus.yml has changed: {text}");
        let text = text.replace("127.0.0.1:9469", &format!("127.0.0.1:{guard}")).replace("15s", "1s");
        let text = format!("global: {{evaluation_interval: 1s}}\n{text}");
        fs::write(&config, text).context("write prometheus.yml")?;
        fs::copy(deployed("prometheus/guard.rules.yml"), scratch.path().join("guard.rules.yml")).context("rules")?;
        let port = free_port()?;
        let mut command = Command::new(program);
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", scratch.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args(options)
            .current_dir(scratch.path());
        Ok(Self { tool: Tool::start(&mut command)?, port, _scratch: scratch })
    }

    /// The answer of its API; none while it is not ready.
    fn api(&mut self, path: &str) -> Result<Option<Value>> {
        if let Some(status) = self.tool.ended()? {
            bail!("prometheus ended with {status}: {}", self.tool.stderr()?);
        }
        let Ok((_, body)) = get(self.port, &format!("/api/v1/{path}"), "application/json") else { return Ok(None) };
        Ok(serde_json::from_slice(&body).ok())
    }

    /// Value of the first series that an expression yields; none without any.
    fn value(&mut self, expression: &str) -> Result<Option<f64>> {
        let Some(answer) = self.api(&format!("query?query={}", encoded(expression)))? else { return Ok(None) };
        ensure!(answer["status"] != "error", "{expression}: {answer}");
        Ok(answer.pointer("/data/result/0/value/1").and_then(Value::as_str).and_then(|text| text.parse().ok()))
    }

    /// Waits until an expression yields more than `least`.
    fn until(&mut self, expression: &str, least: f64) -> Result<f64> {
        until(expression, limit(), || Ok(self.value(expression)?.filter(|value| *value > least)))
    }
}

/// Everything but letters and digits as %XX.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

/// Prometheus scrapes guard in both of its ways, and its figures are those of the page.
pub(super) fn real_prometheus() -> Result<Verdict> {
    let (Some(prometheus), Some(promtool)) = (program("prometheus"), program("promtool")) else { return missing() };
    let loop_ = ["cycle", "clock-nanosleep-abs", "--policy", "fifo:80", "--interval-us", "1000", "--cycles", "1000000"];
    let workload = Workload::start(&loop_)?;
    let (mut guard, port) = guard_with_metrics(&[])?;
    let comm = "comm=\"guard-workload\",stage=\"thread\"";
    let mut classic = Prometheus::start(&prometheus, port, &[])?;
    let mut native = Prometheus::start(&prometheus, port, &["--enable-feature=native-histograms"])?;

    let thousand = 1000.0;
    let family = "guard_thread_timer_latency_seconds";
    let (count, native_count) = (format!("{family}_count{{{comm}}}"), format!("histogram_count({family}{{{comm}}})"));
    classic.until(&count, thousand)?;
    native.until(&native_count, thousand)?;
    // Then both come to have the same latencies, and go on having them.
    workload.freeze()?;
    let counted = until("both have scraped the same", limit(), || {
        let counts = (classic.value(&count)?, native.value(&native_count)?);
        Ok(counts.0.filter(|_| counts.0 == counts.1))
    })?;
    let quantile = classic.until(&format!("histogram_quantile(0.99, {family}_bucket{{{comm}}})"), 0.0)?;
    let finer = native.until(&format!("histogram_quantile(0.99, {family}{{{comm}}})"), 0.0)?;
    // In buckets of a factor of two and of 9 %.
    ensure!(finer < 2.2 * quantile && quantile < 2.2 * finer, "p99 {quantile} s classic, {finer} s native");
    ensure!(classic.value("up{job=\"guard\"}")? == Some(1.0), "the target is not up");

    let (head, page) = get(port, "/metrics", "*/*")?;
    ensure!(head.contains("text/plain; version=0.0.4"), "{head}");
    lint(&promtool, &page)?;
    let rules = rules_are_well(&mut classic)?;
    let expressions = expressions()?;
    for expression in &expressions {
        // A wrong expression is an error; one that yields nothing here is none.
        classic.value(expression)?;
    }
    guard.signal(Signal::TERM)?;
    let status = guard.wait(limit())?;
    ensure!(status.success(), "guard ended with {status}: {}", guard.stderr()?);
    drop(workload);
    Ok(Verdict::Passed(format!(
        "{counted} wake-ups scraped, p99 {:.0} us classic, {:.0} us native; {rules} alert rules and {} expressions of the dashboard evaluated",
        quantile * 1e6,
        finer * 1e6,
        expressions.len()
    )))
}

/// What Prometheus's own tool finds wrong with the page.
fn lint(promtool: &Path, page: &[u8]) -> Result<()> {
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start of promtool")?;
    child.stdin.take().context("stdin of promtool")?.write_all(page).context("page to promtool")?;
    let output = child.wait_with_output().context("wait for promtool")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.trim().is_empty(), "promtool check metrics: {said}");
    Ok(())
}

/// How many alert rules were evaluated; fails when one could not be.
fn rules_are_well(prometheus: &mut Prometheus) -> Result<usize> {
    let rules = |prometheus: &mut Prometheus| {
        let Some(answer) = prometheus.api("rules")? else { return Ok(None) };
        let groups = answer.pointer("/data/groups").and_then(Value::as_array).cloned().unwrap_or_default();
        let rules: Vec<Value> = groups.iter().filter_map(|g| g["rules"].as_array()).flatten().cloned().collect();
        let evaluated = !rules.is_empty() && rules.iter().all(|rule| rule["health"] != "unknown");
        anyhow::Ok(evaluated.then_some(rules))
    };
    let rules = until("alert rules are evaluated", limit(), || rules(prometheus))?;
    let bad: Vec<String> = rules.iter().filter(|rule| rule["health"] != "ok").map(Value::to_string).collect();
    ensure!(bad.is_empty(), "{}", bad.join(", "));
    Ok(rules.len())
}

/// Expressions of the dashboard, with all of its variables set to everything.
fn expressions() -> Result<Vec<String>> {
    let text = fs::read_to_string(deployed("grafana/guard.json")).context("dashboard")?;
    let dashboard: Value = serde_json::from_str(&text).context("dashboard")?;
    let panels = dashboard["panels"].as_array().context("panels")?;
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let all: Vec<String> = targets
        .filter_map(|target| target["expr"].as_str())
        .map(|expr| {
            let filled = expr.replace("$__rate_interval", "1m");
            ["$instance", "$class", "$cgroup"].iter().fold(filled, |text, variable| text.replace(variable, ".*"))
        })
        .collect();
    ensure!(!all.is_empty(), "the dashboard has no expression");
    Ok(all)
}

/// Each alert fires on what it is for, and none on a node that is well.
pub(super) fn alert_rules() -> Result<Verdict> {
    let Some(promtool) = program("promtool") else { return missing() };
    let mut said = String::new();
    for words in [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "guard.rules.yml"],
        ["test", "rules", "guard.rules.test.yml"],
    ] {
        let finished = finish(Command::new(&promtool).args(words).current_dir(deployed("prometheus")), limit())?;
        ensure!(finished.status.success(), "promtool {words:?}: {}{}", finished.stdout, finished.stderr);
        said = finished.stdout;
    }
    Ok(Verdict::Passed(said.trim().to_owned()))
}

/// Nobody but this machine is shown anything unless that is asked for.
pub(super) fn remote_is_refused() -> Result<Verdict> {
    let refused = GuardRun::default().with(&["run", "--listen", "0.0.0.0:0"]).finish(limit())?;
    refused.expect_code(2)?;
    refused.expect_message("other machines could read it")?;
    let scratch = scratch_dir()?;
    let config = scratch.path().join("guard.toml");
    fs::write(&config, "[metrics]\nlisten = \"0.0.0.0:9469\"\n").context("write guard.toml")?;
    let refused = GuardRun::default().with(&["run", "--config", &config.to_string_lossy()]).finish(limit())?;
    refused.expect_code(2)?;
    refused.expect_message("guard.toml:2: metrics.listen")?;
    Ok(Verdict::Passed(refused.stderr.trim().to_owned()))
}

/// Clients that do nothing, and clients that ask without end, while guard goes on at its pace.
pub(super) fn hostile_clients() -> Result<Verdict> {
    let (mut guard, port) = guard_with_metrics(&[])?;
    let silent: Vec<TcpStream> =
        (0..64).map(|_| TcpStream::connect(("127.0.0.1", port))).collect::<Result<_, _>>().context("connect")?;
    let lines = |guard: &mut Tool| anyhow::Ok(guard.stdout()?.lines().count());
    let before = lines(&mut guard)?;
    until("ten more intervals", limit(), || {
        // Whether it is answered or turned away does not matter.
        let _ = get(port, "/metrics", "*/*");
        Ok((lines(&mut guard)? >= before + 10).then_some(()))
    })?;
    drop(silent);
    let page = until("an answer", limit(), || Ok(get(port, "/metrics", "*/*").ok()))?;
    ensure!(page.0.starts_with("HTTP/1.1 200") || page.0.starts_with("HTTP/1.0 200"), "{}", page.0);
    guard.signal(Signal::TERM)?;
    let status = guard.wait(limit())?;
    ensure!(status.success(), "guard ended with {status}: {}", guard.stderr()?);
    Ok(Verdict::Passed(format!("64 silent connections; {} bytes afterwards", page.1.len())))
}

//! `cargo xtask test`: every check and test of the project, on this machine and in booted kernels, and at the end
//! what ran where.
//!
//! A failed step does not hide the next ones; only what cannot be built is not run.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{ExitCode, Stdio},
    sync::{Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::{
    dependencies, ebpf, field,
    guest::{Guest, Root},
    kernel::{Kernel, WHOLE},
    markdown,
    place::{Cache, Profile, Workspace, rust_files},
    process::{command_line, is_root, sudo_without_password, visible},
    setup::{self, Purpose},
    structure, tools,
};

/// The tests' binary for guests on this machine's file system.
const GUEST_TESTS: &str = "guard-guest-tests";
/// The tests' binary for field guests.
const FIELD_TESTS: &str = "guard-field-tests";
/// Guests at once, whatever the number of CPUs: each takes up to 3 GiB of memory.
const MOST_GUESTS: usize = 4;
/// Bound of one guest's boot and tests; more than twice what they take.
const GUEST_TIMEOUT: Duration = Duration::from_secs(2700);

/// What is run.
pub(crate) struct Scope {
    /// The checks of the source, the unit tests and the tests on this machine.
    pub(crate) host: bool,
    /// Kernels to boot on this machine's file system.
    pub(crate) guests: Vec<Kernel>,
    /// Whether all of them run every check, or [`WHOLE`] only.
    pub(crate) whole: bool,
    /// Kernels to boot as field guests.
    pub(crate) field: Vec<Kernel>,
}

/// What one step found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Outcome {
    passed: usize,
    /// Name and, where known, message.
    failed: Vec<String>,
    /// Name and, where known, reason.
    skipped: Vec<String>,
    /// Name and message of what passed at the second try.
    again: Vec<String>,
}

impl Outcome {
    /// A step that is one check.
    fn of_check(name: &str, good: bool) -> Self {
        if good {
            Self { passed: 1, ..Self::default() }
        } else {
            Self { failed: vec![name.to_owned()], ..Self::default() }
        }
    }
}

/// All steps so far.
struct Report {
    steps: Vec<(String, Outcome, Duration)>,
}

impl Report {
    /// Runs one step under its name. An error is a failure of the step; the next one still runs.
    fn step(&mut self, name: &str, step: impl FnOnce() -> Result<Outcome>) -> bool {
        let done = run_step(name, step);
        let good = done.1.failed.is_empty();
        self.steps.push(done);
        good
    }

    /// What ran where, and the closing line.
    fn print(&self, to: &mut impl Write) -> std::io::Result<()> {
        writeln!(to, "\n{:<40} {:>7} {:>7} {:>8} {:>8}", "where", "passed", "failed", "skipped", "seconds")?;
        for (name, outcome, took) in &self.steps {
            let Outcome { passed, failed, skipped, .. } = outcome;
            writeln!(to, "{name:<40} {passed:>7} {:>7} {:>8} {:>8}", failed.len(), skipped.len(), took.as_secs())?;
        }
        for (name, outcome, _) in &self.steps {
            outcome.skipped.iter().try_for_each(|skipped| writeln!(to, "skipped, {name}: {skipped}"))?;
            outcome.again.iter().try_for_each(|again| writeln!(to, "second try, {name}: {again}"))?;
            outcome.failed.iter().try_for_each(|failed| writeln!(to, "FAILED, {name}: {failed}"))?;
        }
        let again: usize = self.steps.iter().map(|(_, outcome, _)| outcome.again.len()).sum();
        let again = if again > 0 { format!(" ({again} of them at the second try)") } else { String::new() };
        writeln!(to, "{} passed{again}, {} failed, {} skipped", self.passed(), self.failed(), self.skipped())
    }

    fn passed(&self) -> usize {
        self.steps.iter().map(|(_, outcome, _)| outcome.passed).sum()
    }

    fn failed(&self) -> usize {
        self.steps.iter().map(|(_, outcome, _)| outcome.failed.len()).sum()
    }

    fn skipped(&self) -> usize {
        self.steps.iter().map(|(_, outcome, _)| outcome.skipped.len()).sum()
    }
}

/// Runs one step and times it.
fn run_step(name: &str, step: impl FnOnce() -> Result<Outcome>) -> (String, Outcome, Duration) {
    eprintln!("\nxtask: {name}");
    let begun = Instant::now();
    let mut outcome = step().unwrap_or_else(|error| {
        eprintln!("xtask: {name}: {error:#}");
        Outcome { failed: vec![format!("{error:#}")], ..Outcome::default() }
    });
    if outcome == Outcome::default() {
        outcome.failed.push("ran no test at all".to_owned());
    }
    (name.to_owned(), outcome, begun.elapsed())
}

/// Runs everything of `scope`.
///
/// # Errors
/// When something is missing on this machine; failed tests are no error but exit code 1.
pub(crate) fn all(workspace: &Workspace, cache: &Cache, scope: &Scope) -> Result<ExitCode> {
    setup::ensure(cache, Purpose::Test)?;
    let mut report = Report { steps: Vec::new() };
    if scope.host {
        source_checks(workspace, cache, &mut report);
    }
    let built = report.step("build", || {
        // The binaries for the guests are built with them: packages that hold tests get their programs, too. Another
        // selection of packages would build guard twice, as their dependencies' features would differ.
        cargo_step(workspace, "cargo test --no-run", &["test", "--locked", "--workspace", "--no-run"])
    });
    if built && scope.host {
        let unit = ["--workspace", "--exclude", "guard-tests"];
        report.step("unit tests", || cargo_test(workspace, cache, &unit));
        let tests = ["--package", "guard-tests"];
        report.step(&format!("host, {}", host_kernel()), || cargo_test(workspace, cache, &tests));
    }
    if built {
        report.steps.extend(guests(workspace, cache, scope));
    }
    report.print(&mut std::io::stdout()).context("printing the result")?;
    Ok(if report.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A step that boots a guest.
type GuestStep<'a> = (String, Box<dyn FnOnce() -> Result<Outcome> + Send + 'a>);

/// Boots the guests, as many at once as there are CPUs: an emulated one has a single thread for all its CPUs. The longest
/// come first: those that run every check.
fn guests(workspace: &Workspace, cache: &Cache, scope: &Scope) -> Vec<(String, Outcome, Duration)> {
    let of_kind = |kernels: &[Kernel], field: bool| -> Vec<(Kernel, bool, bool)> {
        kernels.iter().map(|kernel| (kernel.clone(), field, scope.whole || kernel.to_string() == WHOLE)).collect()
    };
    let mut guests = [of_kind(&scope.field, true), of_kind(&scope.guests, false)].concat();
    guests.sort_by_key(|&(_, _, whole)| !whole);
    let steps = guests.into_iter().map(|(kernel, field, whole)| -> GuestStep<'_> {
        let name = format!("{}, {kernel}", if field { "field guest" } else { "guest" });
        let step = move || {
            let root = if field { Root::Image(field::image(cache)?) } else { Root::Host };
            let brief: &[&str] = if whole { &[] } else { &["--brief"] };
            let tests = if field { FIELD_TESTS } else { GUEST_TESTS };
            guest_tests(workspace, cache, &kernel, root, &[&[tests], brief].concat())
        };
        (name, Box::new(step))
    });
    let lanes = std::thread::available_parallelism().map_or(1, |cpus| cpus.get().min(MOST_GUESTS));
    side_by_side(lanes, steps.collect())
}

/// Runs steps, `lanes` of them at once; what came of them, in their order.
fn side_by_side(lanes: usize, steps: Vec<GuestStep<'_>>) -> Vec<(String, Outcome, Duration)> {
    let results: Vec<OnceLock<_>> = steps.iter().map(|_| OnceLock::new()).collect();
    let waiting = Mutex::new(steps.into_iter().zip(&results));
    // Whoever panics leaves the steps that wait as they are.
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
    std::thread::scope(|scope| {
        for _ in 0..lanes {
            scope.spawn(|| {
                while let Some(((name, step), result)) = next() {
                    result.get_or_init(|| run_step(&name, step));
                }
            });
        }
    });
    results.into_iter().filter_map(OnceLock::into_inner).collect()
}

/// The steps that look at the source only.
fn source_checks(workspace: &Workspace, cache: &Cache, report: &mut Report) {
    let passed = |()| Outcome { passed: 1, ..Outcome::default() };
    report.step("formatting", || {
        // A macro lists the knobs' modules, where rustfmt does not follow.
        let knobs = rust_files(&workspace.root.join("guard/src/knob"))?;
        let knobs: Vec<_> = knobs.iter().map(|file| file.to_string_lossy()).collect();
        let words = ["fmt", "--all", "--check", "--"].into_iter().chain(knobs.iter().map(AsRef::as_ref));
        cargo_step(workspace, "cargo fmt --check", &words.collect::<Vec<_>>())
    });
    let lints = ["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
    report.step("lints", || cargo_step(workspace, "cargo clippy", &lints));
    // Private items, too: most of guard is its crate's own, and who reads its pages works on it.
    report.step("documentation", || {
        let mut command = workspace.cargo();
        command.args(["doc", "--locked", "--workspace", "--no-deps", "--document-private-items"]);
        let status = visible(command.env("RUSTDOCFLAGS", "-D warnings"))?;
        Ok(Outcome::of_check("cargo doc", status.success()))
    });
    report.step("Markdown", || markdown::check(workspace).map(passed));
    report.step("structure", || structure::check(workspace).map(passed));
    report.step("dependencies", || {
        let (passed, failed) = dependencies::check(workspace, cache)?;
        Ok(Outcome { passed, failed, ..Outcome::default() })
    });
    report.step("eBPF object", || ebpf::check(workspace).map(passed));
}

/// A step that is one cargo command.
fn cargo_step(workspace: &Workspace, name: &str, words: &[&str]) -> Result<Outcome> {
    let status = visible(workspace.cargo().args(words))?;
    Ok(Outcome::of_check(name, status.success()))
}

/// The running kernel's release.
fn host_kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Runs `cargo test` and counts from what the test programs print.
fn cargo_test(workspace: &Workspace, cache: &Cache, selection: &[&str]) -> Result<Outcome> {
    let mut command = workspace.cargo();
    command.args(["test", "--locked", "--no-fail-fast"]).args(selection);
    if let Some(dir) = tools::prometheus(cache) {
        command.env("GUARD_PROMETHEUS", dir);
    }
    if !is_root() && sudo_without_password() {
        // Measuring needs root. cargo itself stays ours, so that no file in the target directory becomes root's.
        let triple = format!("{}-UNKNOWN-LINUX-GNU", std::env::consts::ARCH).to_uppercase().replace('-', "_");
        command.env(format!("CARGO_TARGET_{triple}_RUNNER"), "sudo -n -E");
    }
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("starting {}", command_line(&command)))?;
    let stdout = child.stdout.take().context("cargo test has no stdout")?;
    let (mut outcome, mut current) = (Outcome::default(), None);
    for line in BufReader::new(stdout).split(b'\n') {
        let line = String::from_utf8_lossy(&line.context("reading what cargo test prints")?).into_owned();
        writeln!(std::io::stdout(), "{line}").context("passing on what cargo test prints")?;
        count_line(&line, &mut outcome);
        keep_message(&line, &mut current, &mut outcome);
    }
    let status = child.wait().context("waiting for cargo test")?;
    if !status.success() && outcome.failed.is_empty() {
        outcome.failed.push(format!("{} ended with {status} and named no failed test", command_line(&command)));
    }
    Ok(outcome)
}

/// Counts a line of the standard test harness: `test NAME ... ok`, `FAILED` or `ignored, REASON`; and one of the project's
/// own checks, which comes before: `again NAME ... MESSAGE`.
fn count_line(line: &str, outcome: &mut Outcome) {
    if let Some((name, message)) = line.strip_prefix("again ").and_then(|line| line.split_once(" ... ")) {
        outcome.again.push(format!("{name}: {message}"));
    }
    let Some((name, result)) = line.strip_prefix("test ").and_then(|line| line.rsplit_once(" ... ")) else { return };
    if result == "ok" {
        outcome.passed += 1;
    } else if result.starts_with("FAILED") {
        outcome.again.retain(|again| !again.starts_with(&format!("{name}: ")));
        outcome.failed.push(name.to_owned());
    } else if let Some(reason) = result.strip_prefix("ignored") {
        let reason = reason.trim_start_matches([',', ' ']);
        outcome.skipped.push(format!("{name}: {}", reason.strip_prefix("SKIPPED: ").unwrap_or(reason)));
    }
}

/// Adds what a failed test said to its name; `current` is the test that the output is of. The project's own checks say it
/// right below their line, the standard harness below a line `---- NAME stdout ----`.
fn keep_message(line: &str, current: &mut Option<usize>, outcome: &mut Outcome) {
    if let Some(head) = line.strip_prefix("---- ").and_then(|line| line.strip_suffix(" ----")) {
        let name = head.strip_suffix(" stdout").unwrap_or(head);
        *current = outcome.failed.iter().position(|failed| failed == name);
    } else if line.starts_with("test ") && line.ends_with(" ... FAILED") {
        *current = outcome.failed.len().checked_sub(1);
    } else if line == "failures:" || line.starts_with("test ") || line.starts_with("again ") {
        *current = None;
    } else if let Some(failed) = current.and_then(|index| outcome.failed.get_mut(index))
        && !line.trim().is_empty()
    {
        failed.push_str(": ");
        failed.push_str(line.trim());
    }
}

/// The JSON that the guests' test binary writes.
#[derive(Deserialize)]
struct GuestResults {
    passed: Vec<String>,
    failed: Vec<Failed>,
    skipped: Vec<Skipped>,
    again: Vec<Failed>,
}

#[derive(Deserialize)]
struct Failed {
    name: String,
    message: String,
}

#[derive(Deserialize)]
struct Skipped {
    name: String,
    reason: String,
}

impl From<GuestResults> for Outcome {
    fn from(results: GuestResults) -> Self {
        Self {
            passed: results.passed.len(),
            failed: names_and_messages(&results.failed),
            again: names_and_messages(&results.again),
            skipped: results.skipped.iter().map(|Skipped { name, reason }| format!("{name}: {reason}")).collect(),
        }
    }
}

fn names_and_messages(failed: &[Failed]) -> Vec<String> {
    failed.iter().map(|Failed { name, message }| format!("{name}: {message}")).collect()
}

/// Boots one guest and runs a binary of tests there, with its arguments.
fn guest_tests(workspace: &Workspace, cache: &Cache, kernel: &Kernel, root: Root, command: &[&str]) -> Result<Outcome> {
    let tests = command.first().context("no binary of tests")?;
    let share = workspace.target.join("guest-tests");
    fs::create_dir_all(&share).with_context(|| format!("creating {}", share.display()))?;
    let results = share.join(format!("{tests}-{}.json", kernel.to_string().replace('/', "_")));
    // Results of an earlier run must not pass for this one's.
    if results.exists() {
        fs::remove_file(&results).with_context(|| format!("removing {}", results.display()))?;
    }
    let guest = Guest {
        kernel: kernel.clone(),
        cpus: 2,
        memory: root.memory().to_owned(),
        root,
        numa: Vec::new(),
        append: Vec::new(),
        timeout: GUEST_TIMEOUT,
        shares: vec![share],
        binaries: workspace.binaries(Profile::Dev),
    };
    let mut words: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
    words.extend(["--results".to_owned(), results.display().to_string()]);
    let code = guest.run(cache, &words, true)?;
    let mut outcome = read_results(&results).with_context(|| format!("{tests} ended with exit code {code}"))?;
    if code != 0 && outcome.failed.is_empty() {
        outcome.failed.push(format!("{tests} ended with exit code {code} and named no failed test"));
    }
    Ok(outcome)
}

fn read_results(path: &Path) -> Result<Outcome> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let results: GuestResults = serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
    Ok(results.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(text: &str) -> Outcome {
        let (mut outcome, mut current) = (Outcome::default(), None);
        for line in text.lines() {
            count_line(line, &mut outcome);
            keep_message(line, &mut current, &mut outcome);
        }
        outcome
    }

    #[test]
    fn what_a_failed_test_said_stands_with_its_name() {
        let text = "test a b ... FAILED\ntest c ... FAILED\n\nfailures:\n\n---- a b ----\ntoo late\nby 3 us\n\n\
                    ---- c stdout ----\nno file\n\nfailures:\n    a b\n    c\n\ntest result: FAILED. 0 passed; 2 failed\n";
        assert_eq!(counted(text).failed, ["a b: too late: by 3 us", "c: no file"]);
        let text = "test a b ... FAILED\n    25.7 s  too late\ntest c ... ok\n    0.1 s  12 cycles\n";
        assert_eq!(counted(text).failed, ["a b: 25.7 s  too late"]);
    }

    #[test]
    fn lines_of_the_test_harness_are_counted() {
        let text = "running 4 tests\ntest a::b ... ok\ntest c ... FAILED\ntest d - should panic ... ok\n\
                    test e ... ignored, SKIPPED: needs cgroup v2\ntest result: FAILED. 2 passed; 1 failed; 1 ignored\n";
        let skipped = vec!["e: needs cgroup v2".to_owned()];
        assert_eq!(counted(text), Outcome { passed: 2, failed: vec!["c".to_owned()], skipped, ..Outcome::default() });
    }

    #[test]
    fn a_second_try_that_passes_is_named_and_one_that_fails_is_a_failure() {
        let outcome =
            counted("again a b ... 3.1 s  late\ntest a b ... ok\nagain c ... 1.0 s  late\ntest c ... FAILED\n");
        assert_eq!(
            (outcome.passed, outcome.again, outcome.failed),
            (1, vec!["a b: 3.1 s  late".into()], vec!["c".into()])
        );
    }

    #[test]
    fn other_lines_count_for_nothing() {
        assert_eq!(counted("test\ntests ... ok\n\n   Doc-tests guard\nfailures:\n    c\n"), Outcome::default());
    }

    #[test]
    fn a_step_that_ends_with_an_error_is_a_failure_and_the_next_one_runs() {
        let mut report = Report { steps: Vec::new() };
        assert!(!report.step("first", || anyhow::bail!("no such file")));
        assert!(report.step("second", || Ok(Outcome { passed: 3, ..Outcome::default() })));
        let mut text = Vec::new();
        report.print(&mut text).expect("writing to memory cannot fail");
        let text = String::from_utf8(text).expect("it is UTF-8");
        assert!(text.contains("FAILED, first: no such file\n"), "{text}");
        assert!(text.ends_with("\n3 passed, 1 failed, 0 skipped\n"), "{text}");
    }

    #[test]
    fn steps_side_by_side_all_run_and_keep_their_order() {
        for lanes in [1, 2, 8] {
            let step = |number: usize| -> GuestStep<'_> {
                (number.to_string(), Box::new(move || Ok(Outcome { passed: number, ..Outcome::default() })))
            };
            let done = side_by_side(lanes, (1..=5).map(step).collect());
            let done: Vec<_> = done.iter().map(|(name, outcome, _)| (name.as_str(), outcome.passed)).collect();
            assert_eq!(done, [("1", 1), ("2", 2), ("3", 3), ("4", 4), ("5", 5)]);
        }
    }

    #[test]
    fn a_step_without_any_test_is_a_failure() {
        let mut report = Report { steps: Vec::new() };
        assert!(!report.step("empty", || Ok(Outcome::default())));
        assert_eq!((report.passed(), report.failed(), report.skipped()), (0, 1, 0));
    }

    #[test]
    fn results_of_a_guest_are_read_with_messages_and_reasons() {
        let text = r#"{"passed":["a"],"failed":[{"name":"b","message":"late"}],"skipped":[{"name":"c","reason":"no rtla"}],
            "again":[{"name":"a","message":"stood still"}]}"#;
        let results: GuestResults = serde_json::from_str(text).expect("it is valid");
        let outcome = Outcome::from(results);
        let (failed, skipped) = (vec!["b: late".into()], vec!["c: no rtla".into()]);
        assert_eq!(outcome, Outcome { passed: 1, failed, skipped, again: vec!["a: stood still".into()] });
        let mut text = Vec::new();
        Report { steps: vec![("guest".into(), outcome, Duration::ZERO)] }.print(&mut text).expect("memory");
        let text = String::from_utf8(text).expect("it is UTF-8");
        assert!(text.contains("second try, guest: a: stood still\n"), "{text}");
        assert!(text.ends_with("\n1 passed (1 of them at the second try), 1 failed, 1 skipped\n"), "{text}");
    }
}

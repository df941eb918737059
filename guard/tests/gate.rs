//! `guard gate` as a pipeline runs it: files in, an exit code and reports out.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests may fail like tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A directory with runs in cyclictest's JSON.
struct Scene {
    dir: tempfile::TempDir,
}

/// cyclictest's JSON of 20,000 wake-ups: nearly all at `us`, 30 in the tail at three times that.
fn cyclictest(nth: usize, us: usize, kernel: &str) -> String {
    let (tail, max) = (3 * us, 4 * us);
    format!(
        "{{\"file_version\": 1, \"cmdline:\": \"cyclictest -q -m -t1 -p95 -i250 -h1000 --json={nth}.json\", \
         \"rt_test_version:\": \"2.40\", \"start_time\": \"Tue, 24 Nov 2026 00:{:02}:{:02} +0000\", \"return_code\": 0, \
         \"sysinfo\": {{\"release\": \"{kernel}\", \"machine\": \"x86_64\", \"realtime\": 1}}, \"num_threads\": 1, \
         \"resolution_in_ns\": 0, \"thread\": {{\"0\": {{\"histogram\": {{\"{us}\": 19970, \"{tail}\": 29, \"{max}\": 1}}, \
         \"cycles\": 20000, \"min\": {us}, \"max\": {max}, \"avg\": {us}.5, \"cpu\": 0, \"node\": 0}}}}}}\n",
        nth / 60,
        nth % 60,
    )
}

impl Scene {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `n` runs in a directory of this name; they differ a little, and from those of other directories by `first`.
    fn runs(&self, name: &str, n: usize, first: usize, us: usize, kernel: &str) -> PathBuf {
        let dir = self.path(name);
        fs::create_dir(&dir).unwrap();
        for nth in first..first + n {
            fs::write(dir.join(format!("{nth:03}.json")), cyclictest(nth, us + nth % 5, kernel)).unwrap();
        }
        dir
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }
}

fn guard(arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_guard")).arg("gate").args(arguments).output().unwrap()
}

/// Checks the exit code and returns stdout and stderr.
fn expect(code: i32, output: Output) -> (String, String) {
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(code), "{out}{err}");
    (out, err)
}

const BUDGET: &str = "[[budget]]\nworkload = \"cyclictest\"\nmetric = \"timer.max\"\nlimit = \"1ms\"\n";

#[test]
fn the_same_again_passes() {
    let scene = Scene::new();
    let (old, new) = (scene.runs("old", 10, 0, 50, "6.12"), scene.runs("new", 10, 100, 50, "6.12"));
    let (out, _) = expect(0, guard(&[&"--baseline", &old, &new]));
    assert!(out.starts_with("PASS: 3 figures no slower than the baseline\n"), "{out}");
    assert!(out.contains("unknown, so taken to be alike: cpu_model, cpus, cmdline, governor, label"), "{out}");
}

#[test]
fn a_slower_candidate_is_a_regression_in_every_form() {
    let scene = Scene::new();
    let (old, new) = (scene.runs("old", 10, 0, 50, "6.12"), scene.runs("new", 10, 100, 70, "6.12"));
    let outputs = ["json", "markdown", "junit", "github"].map(|form| (form, scene.path(form)));
    let options = outputs.clone().map(|(form, path)| format!("--output={form}={}", path.display()));
    let [a, b, c, d] = &options;
    let (out, _) = expect(1, guard(&[&"--baseline", &old, &new, a, b, c, d]));
    assert!(out.contains("REGRESSION: cyclictest timer p99"), "{out}");
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    let json: serde_json::Value = serde_json::from_str(&read(&outputs[0].1)).unwrap();
    assert_eq!((&json["outcome"], &json["exit_code"]), (&"regression".into(), &1.into()));
    assert!(json["metrics"][0]["shift"].as_f64().unwrap() > 0.3, "{json}");
    assert!(read(&outputs[1].1).starts_with("## guard gate: regression"));
    let (cases, faults) = junit(&read(&outputs[2].1));
    assert_eq!((cases, faults), (4, vec!["failure".to_owned(); 3]));
    assert!(read(&outputs[3].1).starts_with("::error title=guard gate%3A regression::"));
}

/// How many test cases a JUnit file has, and the elements that say what went wrong in them. Fails on what its readers would
/// refuse: text that is no XML, elements or counts that are not the format's.
fn junit(text: &str) -> (usize, Vec<String>) {
    let document = roxmltree::Document::parse(text).unwrap_or_else(|error| panic!("no XML: {error}\n{text}"));
    let suite = document.root_element().first_element_child().unwrap();
    assert_eq!((document.root_element().tag_name().name(), suite.tag_name().name()), ("testsuites", "testsuite"));
    let cases: Vec<_> = suite.children().filter(|node| node.has_tag_name("testcase")).collect();
    let mut faults = Vec::new();
    for case in &cases {
        assert!(
            case.attribute("name").is_some_and(|name| !name.is_empty()) && case.has_attribute("classname"),
            "{text}"
        );
        let names: Vec<&str> =
            case.children().filter(roxmltree::Node::is_element).map(|n| n.tag_name().name()).collect();
        let (last, before) = names.split_last().unwrap();
        assert_eq!(*last, "system-out", "{text}");
        assert!(before.len() <= 1 && before.iter().all(|n| ["failure", "error", "skipped"].contains(n)), "{names:?}");
        faults.extend(before.iter().map(|&name| name.to_owned()));
    }
    for (attribute, element) in [("failures", "failure"), ("errors", "error"), ("skipped", "skipped")] {
        let counted = faults.iter().filter(|fault| *fault == element).count();
        assert_eq!(suite.attribute(attribute), Some(counted.to_string().as_str()), "{text}");
    }
    assert_eq!(suite.attribute("tests"), Some(cases.len().to_string().as_str()), "{text}");
    (cases.len(), faults)
}

#[test]
fn every_outcome_has_every_form() {
    let schema: serde_json::Value = serde_json::from_str(include_str!("../../docs/gate.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let scene = Scene::new();
    let old = scene.runs("old", 10, 0, 50, "6.12");
    let slow = scene.runs("slow & <wide>", 10, 100, 90, "6.12");
    let same = scene.runs("same", 10, 200, 50, "6.12");
    let other = scene.runs("other", 10, 300, 50, "6.1 & <y>");
    let few = scene.runs("few", 2, 400, 50, "6.12");
    let budget = scene.write("b.toml", BUDGET);
    for (code, word, candidate) in
        [(0, "pass", same), (1, "regression", slow), (3, "not comparable", other), (4, "too little data", few)]
    {
        let run = |form: &str| {
            expect(code, guard(&[&"--budget", &budget, &"--baseline", &old, &candidate, &"--format", &form])).0
        };
        let json: serde_json::Value = serde_json::from_str(&run("json")).unwrap();
        let errors: Vec<String> = schema.iter_errors(&json).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{word}: {errors:?}");
        assert_eq!(json["exit_code"], code);
        let (cases, faults) = junit(&run("junit"));
        assert!(cases >= 1 && faults.is_empty() == (code == 0), "{word}: {faults:?}");
        assert!(run("table").starts_with(&word.to_uppercase()), "{word}");
        assert!(run("markdown").starts_with(&format!("## guard gate: {word}")), "{word}");
        let annotations = run("github");
        let level =
            [(0, "notice"), (1, "error"), (3, "warning"), (4, "warning")].iter().find(|l| l.0 == code).unwrap().1;
        assert!(annotations.starts_with(&format!("::{level} title=guard gate%3A {word}::")), "{annotations}");
        assert!(annotations.lines().all(|line| line.starts_with("::")), "{annotations}");
    }
}

#[test]
fn the_published_schema_is_the_one_of_the_verdict() {
    let (printed, _) = expect(0, guard(&[&"--json-schema"]));
    assert!(
        printed == include_str!("../../docs/gate.schema.json"),
        "docs/gate.schema.json is out of date: run `guard gate --json-schema > docs/gate.schema.json`"
    );
}

/// git in this directory, with nobody's configuration.
fn git(dir: &Path, words: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false"])
        .args(words)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .expect("git, which this repository was fetched with");
    assert!(output.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn histories_of_two_branches_merge_by_themselves() {
    let scene = Scene::new();
    let repository = scene.path("repository");
    fs::create_dir(&repository).unwrap();
    let history = repository.join("latency.gate.jsonl");
    let add = |runs: &PathBuf| expect(0, guard(&[&"--update-baseline", &history, runs]));
    git(&repository, &["init", "--quiet", "--initial-branch=main"]);
    fs::write(repository.join(".gitattributes"), "*.gate.jsonl merge=union\n").unwrap();
    add(&scene.runs("first", 5, 0, 50, "6.12"));
    git(&repository, &["add", "."]);
    git(&repository, &["commit", "--quiet", "-m", "first"]);
    git(&repository, &["checkout", "--quiet", "-b", "side"]);
    // Both branches add runs of the same time, and one that is on both.
    let both = scene.runs("both", 1, 300, 50, "6.12");
    add(&scene.runs("side", 5, 100, 50, "6.12"));
    add(&both);
    git(&repository, &["commit", "--quiet", "-am", "side"]);
    git(&repository, &["checkout", "--quiet", "main"]);
    add(&scene.runs("main", 5, 200, 50, "6.12"));
    add(&both);
    git(&repository, &["commit", "--quiet", "-am", "main"]);
    git(&repository, &["merge", "--quiet", "-m", "merged", "side"]);
    assert_eq!(git(&repository, &["status", "--porcelain"]), "");
    let candidate = scene.runs("candidate", 10, 400, 50, "6.12");
    let (out, _) = expect(0, guard(&[&"--baseline", &history, &candidate]));
    assert!(out.contains("10 runs of the candidate, 16 of the baseline"), "{out}");
}

#[test]
fn a_budget_is_kept_or_not_whatever_the_baseline() {
    let scene = Scene::new();
    let run = scene.write("run.json", &cyclictest(1, 50, "6.12"));
    let budget = scene.write("b.toml", BUDGET);
    let (out, _) = expect(0, guard(&[&"--budget", &budget, &run]));
    assert!(out.contains("cyclictest timer max keeps its budget of 1.00 ms; the worst of 1 runs has 200 us"), "{out}");
    let tight = scene.write("tight.toml", &BUDGET.replace("1ms", "1us"));
    let (out, _) = expect(1, guard(&[&"--budget", &tight, &run]));
    assert!(out.contains("is over its budget of 1.00 us in 1 of 1 runs"), "{out}");
    let elsewhere = scene.write("node.toml", &format!("[node]\nkernel = \"6.1.*\"\n{BUDGET}"));
    let (out, _) = expect(3, guard(&[&"--budget", &elsewhere, &run]));
    assert!(out.contains("kernel: \"6.1.*\" against \"6.12\""), "{out}");
    let nobody = scene.write("nobody.toml", &BUDGET.replace("cyclictest", "plc"));
    let (out, _) = expect(4, guard(&[&"--budget", &nobody, &run]));
    assert!(out.contains("no run has such a workload"), "{out}");
    let wrong = scene.write("wrong.toml", &BUDGET.replace("1ms", "1"));
    let (_, err) = expect(2, guard(&[&"--budget", &wrong, &run]));
    assert!(err.contains("wrong.toml, line 4: limit = \"1\""), "{err}");
}

#[test]
fn another_kernel_is_not_comparable_unless_that_is_allowed() {
    let scene = Scene::new();
    let (old, new) = (scene.runs("old", 10, 0, 50, "6.1"), scene.runs("new", 10, 100, 90, "6.12"));
    let (out, _) = expect(3, guard(&[&"--baseline", &old, &new]));
    assert!(out.contains("NOT COMPARABLE: the runs differ in kernel: \"6.1\" against \"6.12\""), "{out}");
    assert!(!out.contains("timer p99"), "judged all the same: {out}");
    expect(1, guard(&[&"--baseline", &old, &new, &"--allow-different", &"kernel"]));
    let mixed = guard(&[&"--baseline", &old, &new, &old.join("000.json")]);
    expect(3, mixed);
}

#[test]
fn a_few_runs_are_too_little_data() {
    let scene = Scene::new();
    let (old, new) = (scene.runs("old", 10, 0, 50, "6.12"), scene.runs("new", 3, 100, 90, "6.12"));
    let (out, _) = expect(4, guard(&[&"--baseline", &old, &new]));
    assert!(out.contains("3 runs against 10 of the baseline; it takes at least 5 each"), "{out}");
    let again = scene.runs("again", 10, 100, 50, "6.12");
    // 20,000 latencies say nothing about p99.99; named, it has to be judged.
    let (out, _) = expect(4, guard(&[&"--baseline", &old, &again, &"--metric", &"p9999"]));
    assert!(out.contains("has 20000 latencies, p99.99 needs 50000"), "{out}");
}

#[test]
fn a_directory_without_a_file_is_named_on_either_side() {
    let scene = Scene::new();
    let new = scene.runs("new", 6, 0, 50, "6.12");
    let dirs = scene.path("dirs");
    fs::create_dir_all(dirs.join("monday")).unwrap();
    let (out, _) = expect(4, guard(&[&"--baseline", &dirs, &new]));
    assert!(out.contains("note: ") && out.contains("dirs: there is no run in it, but 1 directories"), "{out}");
    let (out, _) = expect(4, guard(&[&"--baseline", &new, &dirs.join("monday"), &new, &"--format", &"json"]));
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(json["notes"].to_string().contains("monday: there is no run in it"), "{json}");
    let (_, err) = expect(2, guard(&[&"--baseline", &new, &dirs]));
    assert!(err.contains("dirs: there is no run in it, but 1 directories"), "{err}");
    let (_, err) = expect(0, guard(&[&"--explain", &"--baseline", &dirs]));
    assert!(err.contains("note: ") && err.contains("dirs: there is no run in it"), "{err}");
}

#[test]
fn a_run_that_says_it_failed_is_noted_on_either_side() {
    let scene = Scene::new();
    let failed = cyclictest(1, 50, "6.12").replace("\"return_code\": 0", "\"return_code\": 1");
    let (failed, budget) = (scene.write("failed.json", &failed), scene.write("budget.toml", BUDGET));
    let note = "failed.json: cyclictest failed (return code 1)";
    let (out, _) = expect(0, guard(&[&"--budget", &budget, &failed]));
    assert!(out.starts_with("PASS") && out.contains(note), "{out}");
    let (_, err) = expect(0, guard(&[&"--update-baseline", &scene.path("history.jsonl"), &failed]));
    assert!(err.contains(note), "{err}");
    let good = scene.runs("good", 6, 100, 50, "6.12");
    let (out, _) = expect(4, guard(&[&"--baseline", &failed, &good]));
    assert!(out.contains(note), "{out}");
}

#[test]
fn another_tool_does_not_keep_the_budgets_of_cyclictest() {
    let scene = Scene::new();
    let other = cyclictest(1, 50, "6.12").replace("cyclictest -q", "sigwaittest -q");
    let (other, budget) = (scene.write("other.json", &other), scene.write("budget.toml", BUDGET));
    let (_, err) = expect(2, guard(&[&"--budget", &budget, &other]));
    assert!(err.contains("other.json: was written by sigwaittest"), "{err}");
}

#[test]
fn wrong_usage_and_files_that_are_no_runs_are_named() {
    let scene = Scene::new();
    let good = scene.write("good.json", &cyclictest(1, 50, "6.12"));
    let (_, err) = expect(2, guard(&[&good]));
    assert!(err.contains("--baseline PATH or --budget FILE"), "{err}");
    let budget = scene.write("b.toml", BUDGET);
    for (name, text, said) in [
        ("empty.json", "", "empty.json: is empty"),
        ("half.json", &cyclictest(1, 50, "6.12")[..200], "half.json, line 1"),
        ("foreign.json", "{\"a\": 1}", "foreign.json: is JSON, but neither"),
        ("new.json", "{\"schema\": 99, \"window\": 1}", "new.json: is a report of schema 99"),
    ] {
        let path = scene.write(name, text);
        let (_, err) = expect(2, guard(&[&"--budget", &budget, &path]));
        assert!(err.contains(said), "{name}: {err}");
    }
    let (_, err) = expect(2, guard(&[&"--budget", &budget, &scene.path("none.json")]));
    assert!(err.contains("none.json") && err.contains("No such file"), "{err}");
    let (_, err) = expect(2, guard(&[&"--budget", &budget, &good, &"--output", &"junit=/no/such/dir/x"]));
    assert!(err.contains("/no/such/dir/x"), "{err}");
}

#[test]
fn a_history_grows_by_good_runs_only_and_is_a_baseline() {
    let scene = Scene::new();
    let history = scene.path("history.jsonl");
    let first = scene.runs("first", 10, 0, 50, "6.12");
    expect(0, guard(&[&"--update-baseline", &history, &first]));
    let lines = || fs::read_to_string(&history).unwrap().lines().count();
    assert_eq!(lines(), 10);
    let good = scene.runs("good", 10, 100, 50, "6.12");
    expect(0, guard(&[&"--baseline", &history, &"--update-baseline", &history, &good]));
    assert_eq!(lines(), 20);
    // The same again adds nothing, and a run is not compared with itself.
    let (out, err) = expect(0, guard(&[&"--baseline", &history, &"--update-baseline", &history, &good]));
    assert!(
        out.contains("10 of the baseline's runs are the candidate's own") && err.contains("0 runs added"),
        "{out}{err}"
    );
    let bad = scene.runs("bad", 10, 200, 90, "6.12");
    expect(1, guard(&[&"--baseline", &history, &"--update-baseline", &history, &bad]));
    assert_eq!(lines(), 20);
    // Runs of another kernel in the same history are set aside.
    let other = scene.runs("other", 10, 300, 10, "6.1");
    expect(0, guard(&[&"--update-baseline", &history, &other]));
    let (out, _) = expect(0, guard(&[&"--baseline", &history, &good]));
    assert!(out.contains("10 runs of the baseline were made otherwise"), "{out}");
}

#[test]
fn one_wild_run_does_not_decide() {
    let scene = Scene::new();
    let (old, new) = (scene.runs("old", 20, 0, 50, "6.12"), scene.runs("new", 19, 100, 50, "6.12"));
    fs::write(new.join("wild.json"), cyclictest(400, 900, "6.12")).unwrap();
    expect(0, guard(&[&"--baseline", &old, &new]));
}

#[test]
fn explaining_says_how_many_runs_a_shift_takes() {
    let scene = Scene::new();
    let (out, _) = expect(0, guard(&[&"--explain"]));
    assert!(out.contains("With fewer than 7 runs a side nothing can be shown"), "{out}");
    let old = scene.runs("old", 20, 0, 50, "6.12");
    let (out, _) = expect(0, guard(&[&"--explain", &"--baseline", &old, &"--shift", &"10%,50%"]));
    assert!(out.contains("timer p99.9") && out.contains("+10.0 %: ") && out.contains("+50.0 %: "), "{out}");
    assert!(out.contains("Estimated from 20 runs"), "{out}");
}

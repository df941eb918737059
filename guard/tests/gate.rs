//! `guard gate` as a pipeline runs it: files in, an exit code and reports out.

#![allow(clippy::unwrap_used, reason = "the helpers of tests may fail like tests")]

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
    assert!(read(&outputs[2].1).contains("failures=\"3\""));
    assert!(read(&outputs[3].1).starts_with("::error title=guard gate%3A regression::"));
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
    assert!(out.contains("With fewer than 6 runs a side nothing can be shown"), "{out}");
    let old = scene.runs("old", 20, 0, 50, "6.12");
    let (out, _) = expect(0, guard(&[&"--explain", &"--baseline", &old, &"--shift", &"10%,50%"]));
    assert!(out.contains("timer p99.9") && out.contains("+10.0 %: ") && out.contains("+50.0 %: "), "{out}");
    assert!(out.contains("Estimated from 20 runs"), "{out}");
}

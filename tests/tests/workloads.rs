//! The witnesses themselves: a workload that counts wrongly would make every check worthless.

use std::{fs, time::Duration};

use guard_tests::harness::{Cgroup, Workload};

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn every_way_to_wait_returns_after_the_expiry_and_as_often_as_asked() {
    for wait in [
        "clock-nanosleep-abs",
        "clock-nanosleep-rel",
        "timerfd",
        "timerfd-epoll",
        "ppoll",
        "epoll-timeout",
        "futex",
        "posix-timer",
    ] {
        let arguments = ["cycle", wait, "--interval-us", "2000", "--cycles", "50"];
        let own = Workload::start(&arguments).unwrap().outcome(LIMIT).unwrap();
        assert_eq!(own.cycles, 50, "{wait}");
        assert_eq!(own.histogram.values().sum::<u64>(), 50, "{wait}");
        assert!(0 < own.min_ns && own.min_ns <= own.avg_ns && own.avg_ns <= own.max_ns, "{wait}: {own:?}");
    }
}

#[test]
fn a_stall_of_three_and_a_half_cycles_misses_three() {
    for wait in ["clock-nanosleep-abs", "timerfd", "timerfd-epoll", "ppoll", "futex", "posix-timer"] {
        let arguments =
            ["cycle", wait, "--interval-us", "4000", "--cycles", "40", "--stall-every", "10", "--stall-us", "14000"];
        let own = Workload::start(&arguments).unwrap().outcome(LIMIT).unwrap();
        // The last stall has no cycle after it. Noise of a busy machine can only add.
        assert!(own.missed >= 9, "{wait}: {} missed", own.missed);
    }
}

#[test]
fn cgroups_of_a_workload_are_gone_after_sigterm() {
    let Ok(parent) = Cgroup::create("workload") else {
        eprintln!("SKIPPED: no cgroups can be made here");
        return;
    };
    let dir = parent.dir();
    let workload = Workload::start(&["cgroups", "20", "--parent", dir.to_str().unwrap()]).unwrap();
    let count = || fs::read_dir(&dir).unwrap().filter(|e| e.as_ref().unwrap().file_type().unwrap().is_dir()).count();
    assert_eq!(count(), 20);
    let procs = fs::read_to_string(dir.join("c0007/cgroup.procs")).unwrap();
    assert_eq!(procs.lines().count(), 1, "{procs:?}");
    workload.terminate().unwrap();
    workload.outcome(LIMIT).unwrap();
    assert_eq!(count(), 0);
}

#[test]
fn impossible_arguments_are_refused_with_a_reason() {
    for (arguments, reason) in [
        (["cycle", "sched-yield", "--interval-us", "1000"], "deadline"),
        (["cycle", "epoll-timeout", "--interval-us", "1500"], "whole ms"),
        (["cycle", "timerfd", "--policy", "fifo:100"], "100"),
    ] {
        let finished =
            std::process::Command::new(env!("CARGO_BIN_EXE_guard-workload")).args(arguments).output().unwrap();
        assert!(!finished.status.success());
        let stderr = String::from_utf8_lossy(&finished.stderr);
        assert!(stderr.contains(reason), "{arguments:?}: {stderr}");
    }
}

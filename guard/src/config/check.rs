//! What no type can say: values out of range, and values that contradict each other.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use globset::Glob;

use super::metrics::Metrics;
use super::settings::{Config, NodeSettings};
use super::workload::{Percentiles, Workload};
use crate::snapshot::Class;

/// What is wrong with the value of a key.
pub(super) struct Problem {
    pub(super) key: String,
    pub(super) text: String,
}

fn problem(key: impl Into<String>, text: impl Into<String>) -> Result<(), Problem> {
    Err(Problem { key: key.into(), text: text.into() })
}

/// The first problem.
pub(super) fn check(config: &Config) -> Result<(), Problem> {
    node(&config.node)?;
    let mut first_with = HashMap::new();
    for (index, workload) in config.workloads.iter().enumerate() {
        let key = format!("workload[{}]", index + 1);
        self::workload(&key, workload)?;
        if let Some(first) = first_with.insert(&workload.matches, index + 1) {
            let text = format!("workload[{first}] matches exactly the same and comes first: this one never counts");
            return problem(format!("{key}.match"), text);
        }
    }
    metrics(&config.metrics)?;
    config.policy.validate().map_err(|invalid| Problem { key: invalid.field.to_owned(), text: invalid.message })
}

fn node(node: &NodeSettings) -> Result<(), Problem> {
    let interval = node.interval.duration();
    if interval < Duration::from_millis(100) || interval > Duration::from_secs(60) {
        return problem("node.interval", "want 100ms to 60s");
    }
    if node.priority > 99 {
        return problem("node.priority", "want 1 to 99, or 0 for no real-time priority");
    }
    absolute("node.state_dir", &node.state_dir)?;
    absolute("node.audit", &node.audit)
}

fn metrics(metrics: &Metrics) -> Result<(), Problem> {
    if let Some(endpoint) = &metrics.listen
        && !metrics.allow_remote
        && endpoint.is_remote()
    {
        let text = "other machines could read it: choose an address of loopback, or set allow_remote = true";
        return problem("metrics.listen", text);
    }
    for (key, n) in [("metrics.max_cgroups", metrics.max_cgroups), ("metrics.max_threads", metrics.max_threads)] {
        if !(1..=10_000).contains(&n) {
            return problem(key, "want 1 to 10000");
        }
    }
    Ok(())
}

fn absolute(key: &str, path: &Path) -> Result<(), Problem> {
    if path.is_absolute() { Ok(()) } else { problem(key, "want an absolute path") }
}

fn workload(key: &str, workload: &Workload) -> Result<(), Problem> {
    let mut patterns = workload.matches.patterns().peekable();
    if patterns.peek().is_none() {
        return problem(format!("{key}.match"), "want at least one of cgroup, container, pod, unit and comm");
    }
    for (name, pattern) in patterns {
        if let Err(error) = Glob::new(pattern) {
            return problem(format!("{key}.match.{name}"), format!("no glob: {}", error.kind()));
        }
    }
    let says_nothing = Workload { matches: workload.matches.clone(), ..Workload::default() } == *workload;
    if says_nothing {
        return problem(key, "says nothing: want class, wakeup, timer, request, limit or managed beside match");
    }
    for (name, percentiles) in [("wakeup", &workload.wakeup), ("timer", &workload.timer)] {
        budgets(&format!("{key}.{name}"), percentiles, workload.class)?;
    }
    if let (Some(request), Some(limit)) = (workload.request, workload.limit)
        && request > limit
    {
        return problem(format!("{key}.request"), "more than the limit of the same workload");
    }
    Ok(())
}

fn budgets(key: &str, percentiles: &Percentiles, class: Option<Class>) -> Result<(), Problem> {
    let mut below = None;
    for (point, limit) in percentiles.limits() {
        let key = format!("{key}.{point}");
        if class == Some(Class::Be) {
            return problem(key, "class BE promises no latency: take the budget away or choose another class");
        }
        if limit.duration() < Duration::from_micros(1) || limit.duration() > Duration::from_secs(10) {
            return problem(key, "want 1us to 10s");
        }
        if let Some((inner, _)) = below.filter(|(_, inner)| *inner > limit) {
            return problem(key, format!("smaller than the limit at {inner}: want limits that grow towards max"));
        }
        below = Some((point, limit));
    }
    Ok(())
}

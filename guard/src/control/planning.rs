//! What the policies would do, without doing it: on this node as it is now, or on recorded Snapshots.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::act::Actor;
use super::acting::{Acting, Pace};
use super::assign::{self, workloads};
use super::error::ControlError;
use super::run_loop::act_by;
use super::watch::Watch;
use crate::config::{Config, Workloads};
use crate::snapshot::{Action, Node, Snapshot, Window};

/// What the policies would do, window by window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// The machine; `None` when there was no window.
    pub node: Option<Node>,
    /// Windows that were decided on.
    pub windows: usize,
    /// Those in which something would change, or in which a policy said something new.
    pub steps: Vec<PlannedStep>,
}

/// What would change after one window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedStep {
    /// The window.
    pub window: Window,
    /// What would be written or put back, and why.
    pub actions: Vec<Action>,
    /// What a policy would not do, and why.
    pub notes: Vec<String>,
}

impl Planned {
    fn add(&mut self, snapshot: &Snapshot, notes: Vec<String>) {
        self.windows += 1;
        self.node.get_or_insert_with(|| snapshot.node.clone());
        if !(snapshot.actions.is_empty() && notes.is_empty()) {
            self.steps.push(PlannedStep { window: snapshot.window.clone(), actions: snapshot.actions.clone(), notes });
        }
    }
}

/// Observes this node for `duration` and plans after each interval of the configuration. Nothing is written.
///
/// # Errors
/// When the node cannot be observed.
pub async fn plan(
    watch: &Watch,
    config: Arc<Config>,
    duration: Duration,
    begun: impl FnOnce(),
) -> Result<Planned, ControlError> {
    let interval = config.node.interval.duration().min(duration);
    let acting = Acting { config, file: None, fixed_interval: true, enforce: None };
    let mut planned = Planned::default();
    act_by(watch, Pace { interval, duration: Some(duration) }, acting, begun, |snapshot, notes| {
        planned.add(&snapshot, notes);
        Ok::<(), ControlError>(())
    })
    .await?;
    Ok(planned)
}

/// Plans after each recorded Snapshot. What is planned does not change the Snapshots after it, so this is what guard would
/// have begun to do, not what would have become of it.
///
/// # Errors
/// What `snapshots` returns, and a pattern of the configuration that is none.
pub fn replay<E: From<ControlError>>(
    config: &Config,
    snapshots: impl Iterator<Item = Result<Snapshot, E>>,
) -> Result<Planned, E> {
    let workloads: Workloads = workloads(config)?;
    let mut actor = Actor::new(config.policy.clone(), None);
    let mut planned = Planned::default();
    for snapshot in snapshots {
        let mut snapshot = snapshot?;
        assign::apply_to_recorded(&workloads, &mut snapshot);
        if !config.node.reserved_cpus.is_empty() {
            snapshot.node.reserved_cpus = config.node.reserved_cpus.clone();
        }
        actor.decide(&mut snapshot);
        planned.add(&snapshot, actor.notes());
    }
    Ok(planned)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::snapshot::{ActionState, Bandwidth, Cgroup, Knobs};
    use crate::view::samples;

    fn recorded(quota_us: u64) -> Snapshot {
        let mut snapshot = samples::empty();
        snapshot.node.cpus = "0-3".into();
        let knobs =
            Knobs { quota: Some(Bandwidth { quota_us: Some(quota_us), period_us: 100_000 }), ..Knobs::default() };
        let cgroup = |id, path: &str| Cgroup { id, path: path.into(), ..Cgroup::default() };
        snapshot.cgroups = vec![Cgroup { knobs: Some(knobs), ..cgroup(7, "/plc") }, cgroup(1, "/")];
        snapshot
    }

    #[test]
    fn a_recording_is_planned_on_by_the_configuration_and_only_what_changes_is_reported() {
        let config = Config::parse("[[workload]]\nmatch.cgroup = \"/plc\"\nclass = \"PLC\"\n", Path::new("f")).unwrap();
        let snapshots = [recorded(20_000), recorded(20_000)].map(Ok::<_, ControlError>);
        let planned = replay(&config, snapshots.into_iter()).unwrap();
        assert_eq!(planned.windows, 2);
        let [step] = &planned.steps[..] else { panic!("{:?}", planned.steps) };
        let [action] = &step.actions[..] else { panic!("{:?}", step.actions) };
        assert_eq!((action.path.as_str(), action.knob.as_str()), ("/plc", "quota"));
        assert_eq!((action.old.as_str(), action.new.as_str()), ("20000 100000", "max 100000"));
        assert_eq!(action.result, ActionState::Planned.into());
    }

    #[test]
    fn without_a_class_for_it_nothing_is_planned() {
        let planned = replay(&Config::default(), [Ok::<_, ControlError>(recorded(20_000))].into_iter()).unwrap();
        assert!(planned.steps.iter().all(|step| step.actions.is_empty()), "{:?}", planned.steps);
    }
}

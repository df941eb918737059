//! The Snapshot: one value that says what this node was like in one interval. Whatever shows, decides, records or
//! judges takes a Snapshot and nothing else. This room does no I/O and knows no kernel.

mod action;
mod budget;
mod cgroup_path;
mod cpulist;
mod inversion;
mod knob;
mod latency;
mod measured;
pub(crate) mod order;
mod parts;
mod sum;
mod words;

pub use action::{Action, ActionResult};
pub use budget::{BudgetMetric, BudgetMetricError, BudgetOf, Point};
pub use cgroup_path::CgroupPath;
pub use cpulist::{CpuList, CpuListError, MAX_CPU};
pub use knob::{Bandwidth, Knobs, Partition};
pub use latency::{Histogram, Latency};
pub(crate) use parts::sees;
pub use parts::{
    Breach, Budget, Cgroup, CgroupLayout, ChainLink, Class, Container, Cpu, CpuPlace, CpuStat, Culprit, Evidence,
    Interrupt, Inversion, Lock, Lost, Node, Occupied, Overhead, Pressure, Quota, SCHEMA, Signal, SignalState, Snapshot,
    Stacks, Stolen, Thread, Throttle, ThrottledBy, TimePart, Timer, WakeupPair, Window, json_schema,
};
pub(crate) use words::words;
pub use words::{
    ActionState, BreachFlag, BreachKind, Cause, Did, LockKind, Named, SchedPolicy, SignalName, ThrottleSource,
    TimerKind, Unaccounted, UnknownWord, WokenBy, Word,
};

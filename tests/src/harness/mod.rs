//! What a check needs to set a scene and to clear it away: processes, cgroups, guard itself, and the certainty that
//! nothing is left behind. Everything that is waited for is waited for with a deadline.

mod cgroup;
mod enforcing;
mod guard_run;
mod leftovers;
mod process;
mod terminal;
mod writes;

use std::{
    path::PathBuf,
    sync::LazyLock,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

pub use cgroup::{Cgroup, CpuStat, Hierarchy, Version};
pub use enforcing::Enforcing;
pub use guard_run::{Find, Finished, GuardRun, Measuring, WaitsIn, attached, finish};
pub use leftovers::MachineState;
pub use process::{Tool, Workload, binary};
pub use terminal::Terminal;
pub use writes::{Write, Writes};

/// Asks `look` again and again until it finds something or `limit` is over.
///
/// # Errors
/// When `look` fails, or found nothing in time; the message names `what`.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() >= end {
            bail!("{what}: not within {limit:?}");
        }
        sleep(Duration::from_millis(5));
    }
}

/// A directory of our own that can be written even where only /run can, removed when dropped.
///
/// # Errors
/// When neither the temporary directory nor /run can be written.
pub fn scratch_dir() -> Result<tempfile::TempDir> {
    let named = |place: PathBuf| tempfile::Builder::new().prefix("guard-test-").tempdir_in(place);
    named(std::env::temp_dir()).or_else(|_| named("/run".into())).context("a scratch directory")
}

/// Whether this machine is emulated: then everything is slower, and idle noise reaches 10 ms.
#[must_use]
pub fn emulated() -> bool {
    static EMULATED: LazyLock<bool> =
        LazyLock::new(|| std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("QEMU TCG")));
    *EMULATED
}

/// How much longer than on real hardware things may take here.
#[must_use]
pub fn patience() -> u32 {
    if emulated() { 20 } else { 1 }
}

/// A CPU for loads: the last one, so that guard and this program have another where there is one.
#[must_use]
pub fn load_cpu() -> u32 {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(cpus - 1).unwrap_or(0)
}

//! Many cgroups with a napping process in each, removed again at the end, on a signal and on an error.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{Outcome, Start, tid};
use crate::sys::Signals;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many
    count: usize,
    /// Existing cgroup directory to make them in
    #[arg(long)]
    parent: PathBuf,
    /// Time between two wake-ups of each process
    #[arg(long, default_value_t = 1_000_000)]
    interval_us: u64,
    /// Stop after this long; SIGTERM or SIGINT stop it earlier
    #[arg(long, default_value_t = 3600.0)]
    seconds: f64,
    #[command(flatten)]
    start: Start,
}

pub(super) fn run(args: &Args) -> Result<Outcome> {
    let stop_signals = Signals::block(&[libc::SIGTERM, libc::SIGINT]).context("pthread_sigmask")?;
    let length = Duration::try_from_secs_f64(args.seconds).context("--seconds")?;
    let mut farm = Farm::default();
    for number in 0..args.count {
        farm.add(args, number)?;
    }
    args.start.ready(&[tid()])?;
    stop_signals.wait(length).context("sigtimedwait")?;
    let cycles = farm.nappers.len() as u64;
    farm.remove()?;
    Ok(Outcome { cycles, ..Outcome::default() })
}

/// The cgroups and processes made so far.
#[derive(Default)]
struct Farm {
    dirs: Vec<PathBuf>,
    nappers: Vec<Child>,
}

impl Farm {
    fn add(&mut self, args: &Args, number: usize) -> Result<()> {
        let dir = args.parent.join(format!("c{number:04}"));
        fs::create_dir(&dir).with_context(|| format!("mkdir {}", dir.display()))?;
        self.dirs.push(dir.clone());
        let napper = Command::new("/proc/self/exe")
            .arg("nap")
            .args(["--interval-us", &args.interval_us.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("start of a napper")?;
        let pid = napper.id();
        self.nappers.push(napper);
        let procs = dir.join("cgroup.procs");
        fs::write(&procs, pid.to_string()).with_context(|| format!("write {pid} to {}", procs.display()))
    }

    /// Ends the processes and removes the cgroups; the first error after all was tried.
    fn remove(&mut self) -> Result<()> {
        let mut result = Ok(());
        let mut note = |outcome: Result<()>| {
            if result.is_ok() {
                result = outcome;
            }
        };
        for napper in &mut self.nappers {
            note(napper.kill().context("kill of a napper"));
        }
        for mut napper in self.nappers.drain(..) {
            note(napper.wait().map(drop).context("wait for a napper"));
        }
        for dir in self.dirs.drain(..) {
            note(fs::remove_dir(&dir).with_context(|| format!("rmdir {}", dir.display())));
        }
        result
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("guard-workload: {error:#}");
        }
    }
}

//! A running tool that has BPF programs attached: which they are, how often and how long they ran, how large its maps
//! are. All of it stands in /proc/PID/fdinfo, as long as the tool keeps its descriptors open.

use std::{collections::BTreeMap, fs, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use guard_tests::harness::{self, GuardRun, Tool, WaitsIn};
use rustix::process::Signal;
use serde_json::Value;

/// What can be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tracer {
    Nothing,
    /// As it is by default, with its flight recorder.
    Guard,
    GuardWithoutRecorder,
    Runqlat,
    Cpudist,
}

impl Tracer {
    pub(crate) const ALL: [Self; 5] =
        [Self::Nothing, Self::Guard, Self::GuardWithoutRecorder, Self::Runqlat, Self::Cpudist];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Guard => "guard",
            Self::GuardWithoutRecorder => "guard --no-explain",
            Self::Runqlat => "runqlat",
            Self::Cpudist => "cpudist",
        }
    }

    /// Starts it and waits until it is attached; none for nothing.
    pub(crate) fn attach(self) -> Result<Option<Attached>> {
        let (mut command, waits_in) = match self {
            Self::Nothing => return Ok(None),
            Self::Guard | Self::GuardWithoutRecorder => {
                let recorder = if self == Self::Guard { "--explain" } else { "--no-explain" };
                let run = GuardRun::default().with(&["report", "--format", "json", "--duration", "1h", recorder]);
                (run.command()?, WaitsIn::Epoll)
            }
            // An interval so long that the peers, too, do nothing in user space while they are measured.
            Self::Runqlat | Self::Cpudist => {
                let mut command = Command::new(harness::binary(self.name())?);
                command.args(["3600", "1"]);
                (command, WaitsIn::Sleep)
            }
        };
        let mut tool = Tool::start(&mut command)?;
        harness::attached(&mut tool, waits_in).with_context(|| self.name().to_owned())?;
        Attached::of(tool).map(Some)
    }
}

/// How often and how long a program ran.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Run {
    pub(crate) count: u64,
    pub(crate) total_ns: u64,
}

/// A tool and its programs.
pub(crate) struct Attached {
    tool: Tool,
    /// Program id → name.
    names: BTreeMap<u64, String>,
}

impl Attached {
    /// Takes a tool that has attached its programs.
    pub(crate) fn of(tool: Tool) -> Result<Self> {
        let mut this = Self { tool, names: BTreeMap::new() };
        let listed =
            Tool::start(Command::new("bpftool").args(["prog", "show", "-j"]))?.success(Duration::from_secs(10))?;
        let listed: Vec<Value> = serde_json::from_str(&listed).context("output of bpftool")?;
        let names: BTreeMap<u64, String> = listed
            .iter()
            .filter_map(|program| Some((program["id"].as_u64()?, program["name"].as_str()?.to_owned())))
            .collect();
        for id in this.read()?.into_keys() {
            let name = names.get(&id).cloned().unwrap_or_else(|| format!("program {id}"));
            this.names.insert(id, name);
        }
        Ok(this)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.tool.pid()
    }

    /// Name of each program that ran in `work` → how often and how long. Programs of one name are added up.
    pub(crate) fn runs_in<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(BTreeMap<String, Run>, T)> {
        let before = self.read()?;
        let done = work()?;
        let mut runs = BTreeMap::<String, Run>::new();
        for (id, after) in self.read()? {
            let before = before.get(&id).copied().unwrap_or_default();
            if after.count > before.count {
                let run = runs.entry(self.names.get(&id).cloned().unwrap_or_default()).or_default();
                run.count += after.count - before.count;
                run.total_ns += after.total_ns - before.total_ns;
            }
        }
        Ok((runs, done))
    }

    /// Bytes of all its maps.
    pub(crate) fn map_bytes(&self) -> Result<u64> {
        let mut maps = BTreeMap::new();
        for info in self.fdinfo()? {
            if let (Some(id), Some(bytes)) = (field(&info, "map_id:"), field(&info, "memlock:")) {
                maps.insert(id, bytes);
            }
        }
        Ok(maps.into_values().sum())
    }

    /// Ends it with SIGINT.
    pub(crate) fn detach(mut self) -> Result<()> {
        self.tool.signal(Signal::INT)?;
        self.tool.wait(Duration::from_secs(20)).map(drop)
    }

    fn read(&self) -> Result<BTreeMap<u64, Run>> {
        let mut runs = BTreeMap::new();
        for info in self.fdinfo()? {
            let fields = (field(&info, "prog_id:"), field(&info, "run_cnt:"), field(&info, "run_time_ns:"));
            if let (Some(id), Some(count), Some(total_ns)) = fields {
                runs.insert(id, Run { count, total_ns });
            }
        }
        ensure!(!runs.is_empty(), "process {} holds no BPF programs", self.tool.pid());
        Ok(runs)
    }

    fn fdinfo(&self) -> Result<Vec<String>> {
        let dir = format!("/proc/{}/fdinfo", self.tool.pid());
        let entries = fs::read_dir(&dir).with_context(|| format!("read {dir}"))?;
        // A descriptor may be closed between the listing and the look at it.
        Ok(entries.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok()).collect())
    }
}

fn field(info: &str, name: &str) -> Option<u64> {
    info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

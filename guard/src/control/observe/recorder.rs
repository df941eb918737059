//! Whether the flight recorder runs: on every node where the memory that it may take is there to spare, unless the user
//! has decided. Where it is off, a row among the signals says why.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use guard_common::flight::Entry;

use crate::control::watch::Recorder;
use crate::explain::Timeline;
use crate::kernel::flight_bytes;
use crate::snapshot::{Signal, SignalName, SignalState};

/// The part of the available memory that it may take, and of what guard's own cgroup has left.
const PART_OF_NODE: u64 = 8;
const PART_OF_CGROUP: u64 = 2;

/// The part of its ring that a CPU may fill from one sample to the next for them to be a whole second apart.
const CALM_PART: f64 = 0.25;

/// How often the rings are to be read: seldom as long as they are in no danger of being overwritten before.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReaderPace {
    /// Whoever asked for the recorder is to lose nothing of a storm's begin either.
    always: bool,
    /// Entries of a second in the ring of one CPU up to which there is no hurry.
    calm: f64,
    hurry: bool,
}

impl ReaderPace {
    pub(super) fn new(wanted: Recorder, cpus: usize) -> Self {
        let ring = flight_bytes(cpus) / (cpus.max(1) * size_of::<Entry>()) as u64;
        Self { always: wanted == Recorder::On, calm: as_f64(ring) * CALM_PART, hurry: false }
    }

    /// Learns what was recorded in so many seconds.
    pub(super) fn note(&mut self, entries: &[Entry], seconds: f64) {
        let mut by_cpu: BTreeMap<u16, u64> = BTreeMap::new();
        entries.iter().for_each(|entry| *by_cpu.entry(entry.cpu).or_insert(0) += 1);
        let most = by_cpu.into_values().max().unwrap_or(0);
        self.hurry = as_f64(most) > self.calm * seconds;
    }

    pub(super) fn is_fast(&self) -> bool {
        self.always || self.hurry
    }
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
fn as_f64(n: u64) -> f64 {
    n as f64
}

/// Memory that there is, bytes; `None` where nothing is known or nothing limits it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Room {
    /// MemAvailable of the node.
    node: Option<u64>,
    /// What guard's own cgroup, or the nearest above it, may still take.
    cgroup: Option<u64>,
}

/// `None` if it is to run on a node with so many possible CPUs; otherwise what to show in its place.
pub(super) fn off(wanted: Recorder, cpus: usize) -> Option<Signal> {
    match wanted {
        Recorder::On => None,
        Recorder::Off => Some(row(SignalState::Off, None)),
        Recorder::WhereItFits => short(bytes(cpus), Room::read(Path::new("/"))).map(too_little),
    }
}

/// In its place where its memory was refused.
pub(super) fn refused(error: &str) -> Signal {
    too_little(format!("its memory was refused: {error}"))
}

fn too_little(why: String) -> Signal {
    row(SignalState::Unavailable, Some(why))
}

fn row(state: SignalState, reason: Option<String>) -> Signal {
    Signal { name: SignalName::Flight.into(), source: "per-CPU rings".to_owned(), state, reason }
}

/// The most that it takes: its rings, what is read of them at once, and what guard keeps of it.
fn bytes(cpus: usize) -> u64 {
    2 * flight_bytes(cpus) + Timeline::most_bytes(cpus)
}

/// Why there is too little for `bytes`; `None` where there is not.
fn short(bytes: u64, room: Room) -> Option<String> {
    let mib = |bytes: u64| bytes >> 20;
    let of = |room: Option<u64>, part: u64, whose: &str, share: &str| {
        let room = room.filter(|room| room / part < bytes)?;
        Some(format!("it may take {} MiB, more than {share} of the {} MiB that {whose}", mib(bytes), mib(room)))
    };
    of(room.node, PART_OF_NODE, "are available", "an eighth")
        .or_else(|| of(room.cgroup, PART_OF_CGROUP, "guard's cgroup has left", "half"))
}

impl Room {
    fn read(root: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let available = read("proc/meminfo").lines().find_map(|line| {
            let kib = line.strip_prefix("MemAvailable:")?.trim().strip_suffix("kB")?;
            kib.trim().parse::<u64>().ok()
        });
        Self { node: available.map(|kib| kib << 10), cgroup: left_in_cgroups(root, &read("proc/self/cgroup")) }
    }
}

/// The least that any cgroup above guard has left of its limit, by the memory controller of either version at its usual place;
/// within a cgroup namespace the path is the namespace's own.
fn left_in_cgroups(root: &Path, memberships: &str) -> Option<u64> {
    let all = memberships.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let path = path.trim_start_matches('/');
        match controllers {
            "" => Some((root.join("sys/fs/cgroup"), path, ["memory.max", "memory.current"])),
            of if of.split(',').any(|controller| controller == "memory") => {
                let files = ["memory.limit_in_bytes", "memory.usage_in_bytes"];
                Some((root.join("sys/fs/cgroup/memory"), path, files))
            }
            _ => None,
        }
    });
    all.filter_map(|(mount, path, files)| {
        let mut dir: PathBuf = mount.join(path);
        let mut least: Option<u64> = None;
        while dir.starts_with(&mount) {
            let [limit, used] = files.map(|file| fs::read_to_string(dir.join(file)).ok()?.trim().parse::<u64>().ok());
            if let (Some(limit), Some(used)) = (limit, used) {
                let left = limit.saturating_sub(used);
                least = Some(least.map_or(left, |least| least.min(left)));
            }
            if !dir.pop() {
                break;
            }
        }
        least
    })
    .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn it_takes_no_more_than_is_said() {
        assert_eq!([1, 2, 4].map(bytes), [24 * MIB, 48 * MIB, 96 * MIB]);
        assert_eq!([16, 64, 256].map(bytes), [192 * MIB; 3]);
        // What belongs to one CPU has a least size.
        assert!(bytes(8192) > 192 * MIB);
    }

    #[test]
    fn it_runs_where_its_memory_is_there_to_spare() {
        let room =
            |node: u64, cgroup: Option<u64>| Room { node: Some(node * MIB), cgroup: cgroup.map(|mib| mib * MIB) };
        assert_eq!(short(40 * MIB, Room::default()), None);
        assert_eq!(short(40 * MIB, room(320, None)), None);
        assert_eq!(short(40 * MIB, room(320, Some(80))), None);
        let why = short(40 * MIB, room(319, None));
        assert_eq!(why.as_deref(), Some("it may take 40 MiB, more than an eighth of the 319 MiB that are available"));
        let why = short(40 * MIB, room(4096, Some(79)));
        assert_eq!(
            why.as_deref(),
            Some("it may take 40 MiB, more than half of the 79 MiB that guard's cgroup has left")
        );
    }

    #[test]
    fn the_rings_are_read_often_only_where_they_fill() {
        use bytemuck::Zeroable as _;
        let entries = |n: usize, cpu: u16| vec![Entry { cpu, ..Entry::zeroed() }; n];
        let mut pace = ReaderPace::new(Recorder::WhereItFits, 2);
        assert!(!pace.is_fast());
        // A quarter of the 65,536 of one CPU in a second.
        for (seconds, on_0, on_1, fast) in
            [(1.0, 16_000, 16_000, false), (1.0, 0, 17_000, true), (0.2, 3_200, 0, false), (0.2, 3_300, 0, true)]
        {
            pace.note(&[entries(on_0, 0), entries(on_1, 1)].concat(), seconds);
            assert_eq!(pace.is_fast(), fast, "{on_0} and {on_1} in {seconds} s");
        }
        pace.note(&[], 1.0);
        assert!(!pace.is_fast());
        assert!(ReaderPace::new(Recorder::On, 2).is_fast());
    }

    #[test]
    fn the_user_decides_before_the_memory_does() {
        assert_eq!(off(Recorder::On, 1 << 20), None);
        assert_eq!(off(Recorder::Off, 1).map(|row| row.state), Some(SignalState::Off));
    }

    #[test]
    fn the_tightest_limit_above_guard_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |dir: &str, file: &str, value: &str| {
            let dir = root.path().join("sys/fs/cgroup").join(dir);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join(file), value).unwrap();
        };
        for (dir, max, current) in [("a", "1000\n", "400\n"), ("a/b", "max\n", "300\n")] {
            write(dir, "memory.max", max);
            write(dir, "memory.current", current);
        }
        assert_eq!(left_in_cgroups(root.path(), "0::/a/b\n"), Some(600));
        assert_eq!(left_in_cgroups(root.path(), "0::/\n"), None);
        write("memory/g", "memory.limit_in_bytes", "500");
        write("memory/g", "memory.usage_in_bytes", "100");
        assert_eq!(left_in_cgroups(root.path(), "3:cpu,memory:/g\n0::/a/b\n"), Some(400));
        assert_eq!(left_in_cgroups(root.path(), "nonsense"), None);
    }
}

//! Other agents that write the same cgroup files.

use std::fs;
use std::path::Path;

/// Process name of Koordinator's agent.
const KOORDLET: &str = "koordlet";

/// Why guard must leave this node's cgroups alone; None when it need not. Koordinator's agent sets quotas, bursts and
/// cpusets of pods once a second, back to what it has computed: two writers of one file would only fight.
#[must_use]
pub fn other_agent(root: &Path) -> Option<String> {
    let entries = fs::read_dir(root.join("proc")).ok()?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let koordlet = |pid: &u32| {
        fs::read_to_string(root.join(format!("proc/{pid}/comm"))).is_ok_and(|comm| comm.trim_end() == KOORDLET)
    };
    let pid = pids.into_iter().find(koordlet)?;
    Some(format!("{KOORDLET} (pid {pid}) manages the cgroups of this node"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn koordlet_is_found_by_its_name() {
        let root = tempfile::tempdir().unwrap();
        let process = |pid: u32, comm: &str| {
            let dir = root.path().join(format!("proc/{pid}"));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("comm"), format!("{comm}\n")).unwrap();
        };
        process(1, "systemd");
        process(20, "koordlet-helper");
        assert_eq!(other_agent(root.path()), None);
        process(30, "koordlet");
        assert_eq!(other_agent(root.path()).as_deref(), Some("koordlet (pid 30) manages the cgroups of this node"));
    }
}

//! Who else manages the cgroups of this node.

use std::{fs, path::Path};

/// Agents that write the same cpu files all the time, by the name of their process.
const AGENTS: [&str; 1] = ["koordlet"];

/// Why guard must keep its hands off this node: another agent that manages the same files is running. `None` when there
/// is none. Every process of `root`/proc is looked at by its name and by the name of its program; one that ends
/// meanwhile, or that cannot be looked at, is none.
#[must_use]
pub fn other_agents(root: &Path) -> Option<String> {
    let entries = fs::read_dir(root.join("proc")).ok()?;
    entries.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let name = agent(&entry.path())?;
        Some(format!("{name} is running (pid {pid}) and manages the same cgroup files; stop it to let guard act"))
    })
}

fn agent(process: &Path) -> Option<&'static str> {
    let comm = fs::read_to_string(process.join("comm")).ok()?;
    let program = fs::read_link(process.join("exe")).ok();
    let program = program.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
    AGENTS.into_iter().find(|agent| comm.trim_end() == *agent || program == Some(agent))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(processes: &[(u32, &str, Option<&str>)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (pid, comm, exe) in processes {
            let dir = root.path().join(format!("proc/{pid}"));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("comm"), format!("{comm}\n")).unwrap();
            if let Some(exe) = exe {
                std::os::unix::fs::symlink(exe, dir.join("exe")).unwrap();
            }
        }
        fs::create_dir_all(root.path().join("proc/sys")).unwrap();
        root
    }

    #[test]
    fn a_koordlet_is_found_by_its_name_or_its_program() {
        for (comm, exe) in [("koordlet", None), ("main", Some("/usr/bin/koordlet"))] {
            let root = node(&[(1, "systemd", Some("/lib/systemd/systemd")), (77, comm, exe)]);
            let reason = other_agents(root.path()).unwrap();
            assert!(reason.contains("koordlet") && reason.contains("77"), "{reason}");
        }
    }

    #[test]
    fn others_are_no_reason() {
        let root =
            node(&[(1, "systemd", None), (5, "koordlet-log", Some("/bin/koordlet.sh")), (6, "x", Some("/koordlet/x"))]);
        assert_eq!(other_agents(root.path()), None);
        assert_eq!(other_agents(Path::new("/nonexistent")), None);
    }
}

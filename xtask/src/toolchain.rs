//! What the kernel side's object is built with: a compiler that can build `core` for the BPF target, and bpf-linker.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::{
    place::Cache,
    process::{find_program, output_of},
};

/// The one version of bpf-linker whose output is committed.
pub(crate) const BPF_LINKER: &str = "0.13.0";
/// LLVM that bpf-linker is built against: the one that Debian's rustc-web uses.
pub(crate) const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// Versions of what the object's bytes depend on besides the sources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tools {
    /// The machine that built it; aya's bindings differ between architectures.
    host: String,
    /// The compiler, as `rustc --version` prints it.
    pub(crate) rustc: String,
    /// LLVM of the compiler, which writes the bitcode.
    rustc_llvm: String,
    /// The linker.
    bpf_linker: String,
    /// LLVM of the linker, which writes the object.
    pub(crate) linker_llvm: String,
}

/// A compiler that can build `core` for the BPF target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// Debian's rustc-web, cargo-web and rust-web-src.
    Debian,
    /// rustup's nightly with its component rust-src.
    Nightly,
}

impl Toolchain {
    /// The one at hand; Debian's first, as it made the committed object.
    pub(crate) fn find() -> Option<Self> {
        if debian_toolchain() { Some(Self::Debian) } else { nightly_toolchain().then_some(Self::Nightly) }
    }

    /// `program` (rustc or cargo) of this toolchain, free of what the cargo that runs us put into the environment.
    pub(crate) fn program(self, program: &str) -> Command {
        let mut command = match self {
            Self::Debian => Command::new(Path::new("/usr/bin").join(program)),
            Self::Nightly => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", program]);
                command
            }
        };
        for (key, _) in std::env::vars_os() {
            let name = key.to_string_lossy();
            let ours = name.starts_with("CARGO_") && name != "CARGO_HOME" && !name.starts_with("CARGO_NET_");
            if ours
                || name.starts_with("RUSTFLAGS")
                || name.starts_with("RUSTC")
                || name == "CARGO"
                || name == "RUSTUP_TOOLCHAIN"
            {
                command.env_remove(&key);
            }
        }
        if self == Self::Debian {
            command.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
        }
        command
    }

    /// Where its libraries and sources lie.
    pub(crate) fn sysroot(self) -> Option<PathBuf> {
        output_of(self.program("rustc").args(["--print", "sysroot"])).map(PathBuf::from)
    }

    /// Its versions, and those of the linker.
    ///
    /// # Errors
    /// When a tool is missing.
    pub(crate) fn tools(self) -> Result<Tools> {
        let verbose = output_of(self.program("rustc").arg("-vV")).context("rustc -vV failed")?;
        let value = |key| {
            verbose.lines().find_map(|line| line.strip_prefix(key)).with_context(|| format!("rustc -vV gives no {key}"))
        };
        let linker_llvm = output_of(Command::new(Path::new(LLVM_PREFIX).join("bin/llvm-config")).arg("--version"));
        Ok(Tools {
            host: value("host: ")?.to_owned(),
            rustc: verbose.lines().next().unwrap_or_default().to_owned(),
            rustc_llvm: value("LLVM version: ")?.to_owned(),
            bpf_linker: BPF_LINKER.to_owned(),
            linker_llvm: linker_llvm.context("llvm-config --version failed")?,
        })
    }
}

/// Whether Debian's compiler for building `core` is there.
pub(crate) fn debian_toolchain() -> bool {
    ["/usr/bin/rustc", "/usr/bin/cargo", "/usr/lib/rustlib/src/rust/library/core"]
        .iter()
        .all(|path| Path::new(path).exists())
}

/// Whether rustup's nightly with the sources of `core` is there.
pub(crate) fn nightly_toolchain() -> bool {
    // Asked first, because `rustup run` may try to install what is absent.
    let installed = output_of(Command::new("rustup").args(["toolchain", "list"])).unwrap_or_default();
    installed.lines().any(|line| line.starts_with("nightly"))
        && Toolchain::Nightly.sysroot().is_some_and(|root| root.join("lib/rustlib/src/rust/library/core").exists())
}

/// bpf-linker in the right version: on the search path or in the cache.
pub(crate) fn bpf_linker() -> Option<PathBuf> {
    let cached = Cache::open().ok()?.path("tools/bin/bpf-linker");
    [find_program("bpf-linker"), Some(cached)].into_iter().flatten().find(|program| {
        let version = output_of(Command::new(program).arg("--version").stderr(Stdio::null()));
        version.is_some_and(|version| version.ends_with(&format!(" {BPF_LINKER}")))
    })
}

/// The command that builds it into the cache.
pub(crate) fn install_bpf_linker(cache: &Cache) -> Command {
    let tools = cache.path("tools");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.env("LLVM_PREFIX", LLVM_PREFIX).args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked"]);
    command.args(["--no-default-features", "--features", "llvm-22"]);
    command.arg("--root").arg(&tools).arg("--target-dir").arg(tools.join("build"));
    command
}

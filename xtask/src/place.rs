//! Where things lie: the workspace and its target directory, and the cache outside the repository that holds what is
//! expensive to fetch (kernels, tools) and the scratch directories of running guests.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

/// The workspace as cargo sees it.
pub(crate) struct Workspace {
    /// Directory of the workspace's Cargo.toml.
    pub(crate) root: PathBuf,
    /// cargo's target directory.
    pub(crate) target: PathBuf,
}

impl Workspace {
    /// Asks cargo.
    ///
    /// # Errors
    /// When cargo cannot be run or its answer lacks a path.
    pub(crate) fn find() -> Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let output = cargo()
            .args(["metadata", "--no-deps", "--format-version=1", "--manifest-path"])
            .arg(&manifest)
            .output()
            .context("starting cargo metadata")?;
        let answer: serde_json::Value =
            serde_json::from_slice(&output.stdout).context("reading the answer of cargo metadata")?;
        let path = |key: &str| {
            let path = answer[key].as_str().with_context(|| format!("cargo metadata gave no {key}"))?;
            anyhow::Ok(PathBuf::from(path))
        };
        Ok(Self { root: path("workspace_root")?, target: path("target_directory")? })
    }

    /// Directory of the binaries that cargo builds with `profile`.
    pub(crate) fn binaries(&self, profile: Profile) -> PathBuf {
        self.target.join(match profile {
            Profile::Dev => "debug",
            Profile::Quick => "quick",
            Profile::Release => "release",
        })
    }

    /// A cargo command that runs at the workspace's root, with the cargo that runs us.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = cargo();
        command.current_dir(&self.root);
        command
    }
}

/// The Rust files below a directory.
///
/// # Errors
/// When a directory cannot be listed.
pub(crate) fn rust_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))? {
        let path = entry.with_context(|| format!("listing {}", dir.display()))?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The cache directory: `$GUARD_CACHE`, else `$XDG_CACHE_HOME/guard`, else `~/.cache/guard`.
pub(crate) struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Finds the cache and creates it if need be.
    ///
    /// # Errors
    /// When no place is known or it cannot be created.
    pub(crate) fn open() -> Result<Self> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = variable("GUARD_CACHE")
            .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("guard")))
            .or_else(|| Some(variable("HOME")?.join(".cache/guard")))
            .context("no place for the cache: set GUARD_CACHE or HOME")?;
        fs::create_dir_all(&root).with_context(|| format!("creating the cache directory {}", root.display()))?;
        let root = root.canonicalize().with_context(|| format!("resolving {}", root.display()))?;
        Ok(Self { root })
    }

    /// The directory `name` within the cache, created if need be.
    ///
    /// # Errors
    /// When it cannot be created.
    pub(crate) fn dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.root.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        Ok(dir)
    }

    /// A path within the cache that may not exist.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Path of a log file.
    ///
    /// # Errors
    /// When its directory cannot be created.
    pub(crate) fn log(&self, name: &str) -> Result<PathBuf> {
        Ok(self.dir("logs")?.join(format!("{name}.log")))
    }

    /// Waits until no other xtask changes `part` of the cache; the lock ends with the returned handle.
    ///
    /// # Errors
    /// When the lock file cannot be created or locked.
    pub(crate) fn lock(&self, part: &str) -> Result<File> {
        let path = self.path(&format!("{part}.lock"));
        let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        file.lock().with_context(|| format!("locking {}", path.display()))?;
        Ok(file)
    }
}

/// How cargo builds; the profiles themselves stand in the workspace's manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// With debug information: for tests.
    Dev,
    /// Soon done: for somebody who waits to see this machine.
    Quick,
    /// Optimised: for installation and benches.
    Release,
}

impl Profile {
    /// Its name for cargo's `--profile`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Quick => "quick",
            Self::Release => "release",
        }
    }
}

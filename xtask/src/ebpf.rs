//! The kernel side's object: built from source by hand, committed beside its source with a record of what made it,
//! so that everybody else needs only stable Rust; and the check that source, object and record agree.
//!
//! Rebuilding with the recorded tools gives the same bytes: paths are mapped away, one codegen unit, no debug
//! sections (the kernel wants BTF, which stays).

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    place::{Cache, Workspace, rust_files},
    process::{command_line, visible},
    setup::{self, Purpose},
    toolchain::{LLVM_PREFIX, Toolchain, Tools, bpf_linker},
};

const TARGET: &str = "bpfel-unknown-none";
/// The committed object, relative to the workspace.
const OBJECT: &str = "guard-ebpf/guard.bpf.o";
/// The record of what made it.
const RECORD: &str = "guard-ebpf/guard.bpf.json";
/// What the object says its licence is, in the kernel's words for "MIT OR GPL-2.0-only".
const LICENCE: &[u8] = b"Dual MIT/GPL";
/// Directories whose Rust files go into the object.
const SOURCE_DIRS: [&str; 2] = ["guard-common/src", "guard-ebpf/src"];
const MANIFESTS: [&str; 2] = ["guard-common/Cargo.toml", "guard-ebpf/Cargo.toml"];

/// What made the committed object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    /// SHA-256 of the sources, see [`hash_of_sources`].
    sources_sha256: String,
    /// SHA-256 of the object.
    object_sha256: String,
    /// The tools.
    tools: Tools,
}

/// Rebuilds the object and writes it and its record beside the source.
///
/// # Errors
/// When a tool is missing or the build fails.
pub(crate) fn build(workspace: &Workspace, cache: &Cache) -> Result<()> {
    setup::ensure(cache, Purpose::Ebpf)?;
    let toolchain = Toolchain::find().context("no compiler that can build core for the BPF target")?;
    let record_path = workspace.root.join(RECORD);
    // Taken before the build: if a source changes during it, the check finds it.
    let sources_sha256 = hash_of_sources(&workspace.root)?;
    let object = compile(workspace, toolchain)?;
    let record = Record { sources_sha256, object_sha256: hex_sha256(&object), tools: toolchain.tools()? };
    let path = workspace.root.join(OBJECT);
    fs::write(&path, &object).with_context(|| format!("writing {}", path.display()))?;
    let text = serde_json::to_string_pretty(&record).context("writing the record as JSON")? + "\n";
    fs::write(&record_path, text).with_context(|| format!("writing {}", record_path.display()))?;
    println!("{OBJECT}: {} bytes, sha256 {}", object.len(), record.object_sha256);
    Ok(())
}

/// Whether source, object and record agree; with the recorded tools at hand, whether a rebuild gives the same bytes.
///
/// # Errors
/// What disagrees, and what to do.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let path = workspace.root.join(RECORD);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let record: Record = serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
    let path = workspace.root.join(OBJECT);
    let object = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    ensure!(
        hex_sha256(&object) == record.object_sha256,
        "{OBJECT} is not the object that {RECORD} records; run cargo xtask ebpf and commit both"
    );
    ensure!(
        hash_of_sources(&workspace.root)? == record.sources_sha256,
        "the sources have changed since {OBJECT} was built; run cargo xtask ebpf and commit it with its record"
    );
    ensure!(
        object.windows(LICENCE.len()).any(|window| window == LICENCE),
        "{OBJECT} does not name its licence, {}, as the kernel wants it",
        String::from_utf8_lossy(LICENCE)
    );
    let tools =
        Toolchain::find().filter(|_| bpf_linker().is_some()).and_then(|found| Some((found, found.tools().ok()?)));
    match tools {
        Some((toolchain, tools)) if tools == record.tools => {
            let rebuilt = compile(workspace, toolchain)?;
            ensure!(
                rebuilt == object,
                "a rebuild with the recorded tools gives other bytes (sha256 {}) than {OBJECT}",
                hex_sha256(&rebuilt)
            );
            println!("{OBJECT} agrees with its sources; a rebuild gave the same bytes");
        }
        Some((_, tools)) => println!(
            "{OBJECT} agrees with its sources; not rebuilt, as it was made with {}, {} and here are {}, {}",
            record.tools.rustc, record.tools.linker_llvm, tools.rustc, tools.linker_llvm
        ),
        None => println!("{OBJECT} agrees with its sources; not rebuilt, as there is no compiler for it here"),
    }
    Ok(())
}

/// Builds the object into the target directory and gives its bytes, without debug sections.
fn compile(workspace: &Workspace, toolchain: Toolchain) -> Result<Vec<u8>> {
    let linker = bpf_linker().context("no bpf-linker; run cargo xtask setup --for ebpf")?;
    let target_dir = workspace.target.join("ebpf");
    // Unpacks the dependencies, whose place must be known before the build to be mapped away.
    run(toolchain
        .program("cargo")
        .current_dir(&workspace.root)
        .args(["fetch", "--quiet", "--locked", "--target", TARGET]))?;
    let flags = rustflags(workspace, toolchain, &linker)?;
    let mut build = toolchain.program("cargo");
    build.current_dir(&workspace.root).args(["build", "--release", "--locked", "-Z", "build-std=core"]);
    build.args(["--target", TARGET, "--package", "guard-ebpf", "--target-dir"]).arg(&target_dir);
    build.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    run(&mut build)?;

    let built = target_dir.join(TARGET).join("release/guard-ebpf");
    let stripped = target_dir.join("guard.bpf.o");
    let objcopy = Path::new(LLVM_PREFIX).join("bin/llvm-objcopy");
    run(Command::new(objcopy).arg("--strip-debug").arg(&built).arg(&stripped))?;
    let object = fs::read(&stripped).with_context(|| format!("reading {}", stripped.display()))?;
    if let Some(path) = find_own_path(&object, workspace) {
        bail!("the object contains a path of this machine: {path}");
    }
    Ok(object)
}

fn run(command: &mut Command) -> Result<()> {
    let status = visible(command)?;
    ensure!(status.success(), "{} failed ({status})", command_line(command));
    Ok(())
}

/// Flags for the target's crates: BTF out, this machine's paths mapped away.
fn rustflags(workspace: &Workspace, toolchain: Toolchain, linker: &Path) -> Result<Vec<String>> {
    let utf8 =
        |path: &Path| path.to_str().map(str::to_owned).with_context(|| format!("{} is not UTF-8", path.display()));
    let mut flags = Vec::new();
    for option in [format!("linker={}", utf8(linker)?).as_str(), "link-arg=--btf", "debuginfo=2", "panic=abort"] {
        flags.extend(["-C".to_owned(), option.to_owned()]);
    }
    // The last match wins, so the outer directories come first.
    let mut map = |from: &Path, to: &str| {
        flags.push(format!("--remap-path-prefix={}={to}", utf8(from)?));
        anyhow::Ok(())
    };
    if let Some(sysroot) = toolchain.sysroot() {
        map(&sysroot.join("lib/rustlib/src/rust"), "rust")?;
    }
    let registry = cargo_home()?.join("registry/src");
    let indexes = fs::read_dir(&registry).with_context(|| format!("listing {}", registry.display()))?;
    let mut indexes: Vec<PathBuf> = indexes.filter_map(|entry| Some(entry.ok()?.path())).collect();
    indexes.sort();
    for index in indexes {
        map(&index, "crates")?;
    }
    map(&workspace.target.join("ebpf"), "target")?;
    map(&workspace.root, ".")?;
    Ok(flags)
}

fn cargo_home() -> Result<PathBuf> {
    std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")
}

/// A path of this machine that got into the object in spite of the mapping.
fn find_own_path(object: &[u8], workspace: &Workspace) -> Option<String> {
    let text = String::from_utf8_lossy(object);
    let own = [Some(workspace.root.clone()), Some(workspace.target.clone()), cargo_home().ok()];
    own.into_iter()
        .flatten()
        .map(|path| path.display().to_string())
        .find(|path| path.len() > 1 && text.contains(path.as_str()))
}

/// SHA-256 of everything in the repository that the object's bytes depend on: the Rust files of both crates, their
/// manifests, the workspace's profile for them, and the versions of the aya crates from Cargo.lock.
fn hash_of_sources(root: &Path) -> Result<String> {
    let mut files = Vec::new();
    for dir in SOURCE_DIRS {
        files.extend(rust_files(&root.join(dir))?);
    }
    files.extend(MANIFESTS.map(|manifest| root.join(manifest)));
    files.sort();
    let mut hash = Sha256::new();
    let mut add = |name: &str, content: &[u8]| {
        // With its length, so that no two lists of parts look alike.
        hash.update(format!("{name}\0{}\0", content.len()));
        hash.update(content);
    };
    for file in &files {
        let content = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        let name = file.strip_prefix(root).unwrap_or(file);
        add(&name.to_string_lossy(), &content);
    }
    let read = |name: &str| {
        fs::read_to_string(root.join(name)).with_context(|| format!("reading {}", root.join(name).display()))
    };
    add("profile", release_profile(&read("Cargo.toml")?).as_bytes());
    add("versions", aya_versions(&read("Cargo.lock")?).join("\n").as_bytes());
    Ok(hex(&hash.finalize()))
}

/// The `[profile.release…]` tables of a manifest.
fn release_profile(manifest: &str) -> String {
    let mut inside = false;
    let keep = |line: &&str| {
        if line.starts_with('[') {
            inside = line.starts_with("[profile.release");
        }
        inside && !line.is_empty() && !line.starts_with('#')
    };
    manifest.lines().filter(keep).map(|line| format!("{line}\n")).collect()
}

/// `name version` of every aya crate of the kernel side in a Cargo.lock.
fn aya_versions(lock: &str) -> Vec<String> {
    let value =
        |line: &str, key: &str| Some(line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"')?.to_owned());
    let mut versions = Vec::new();
    let mut name = None;
    for line in lock.lines() {
        if let Some(found) = value(line, "name") {
            name = Some(found).filter(|name| name.starts_with("aya-ebpf") || name == "aya-log-ebpf");
        } else if let (Some(version), Some(name)) = (value(line, "version"), &name) {
            versions.push(format!("{name} {version}"));
        }
    }
    versions
}

fn hex_sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A workspace with the least that is hashed; removed when dropped.
    struct Sources(PathBuf);

    impl Sources {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
            let sources = Self(root);
            for dir in SOURCE_DIRS {
                sources.write(&format!("{dir}/lib.rs"), "//! Text.");
            }
            for manifest in MANIFESTS {
                sources.write(manifest, "[package]");
            }
            sources.write("Cargo.toml", "[workspace]\n[profile.release]\nlto = \"thin\"\n[profile.dev]\ndebug = 1\n");
            sources.write("Cargo.lock", "name = \"aya-ebpf\"\nversion = \"0.2.1\"\nname = \"clap\"\nversion = \"4\"\n");
            sources
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.0.join(name);
            fs::create_dir_all(path.parent().expect("a file is in a directory")).expect("the directory can be created");
            fs::write(path, text).expect("the file can be written");
        }

        fn hash(&self) -> String {
            hash_of_sources(&self.0).expect("all files are there")
        }
    }

    impl Drop for Sources {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_hash_follows_everything_that_makes_the_object() {
        let sources = Sources::new("follows");
        let mut seen = vec![sources.hash()];
        for (name, text) in [
            ("guard-ebpf/src/lib.rs", "//! Other text."),
            ("guard-ebpf/src/deep/new.rs", ""),
            ("guard-common/src/lib.rs", "//! More."),
            ("guard-common/Cargo.toml", "[package]\nname = \"x\""),
            ("Cargo.toml", "[profile.release]\nlto = \"fat\"\n"),
            ("Cargo.lock", "name = \"aya-ebpf\"\nversion = \"0.2.2\"\n"),
        ] {
            sources.write(name, text);
            let hash = sources.hash();
            assert!(!seen.contains(&hash), "{name}");
            seen.push(hash);
        }
    }

    #[test]
    fn the_hash_ignores_what_does_not_make_the_object() {
        let sources = Sources::new("ignores");
        let hash = sources.hash();
        sources.write("guard-ebpf/src/notes.md", "not Rust");
        sources.write(
            "Cargo.toml",
            "[workspace]\nx = 1\n# why\n[profile.release]\nlto = \"thin\"\n[profile.dev]\ndebug = 2\n",
        );
        sources.write("Cargo.lock", "name = \"aya-ebpf\"\nversion = \"0.2.1\"\nname = \"clap\"\nversion = \"5\"\n");
        assert_eq!(sources.hash(), hash);
    }

    #[test]
    fn contents_cannot_move_between_files_unnoticed() {
        let sources = Sources::new("moves");
        sources.write("guard-ebpf/src/a.rs", "ab");
        sources.write("guard-ebpf/src/b.rs", "");
        let hash = sources.hash();
        sources.write("guard-ebpf/src/a.rs", "a");
        sources.write("guard-ebpf/src/b.rs", "b");
        assert_ne!(sources.hash(), hash);
    }

    #[test]
    fn sha256_is_written_as_usual() {
        assert_eq!(hex_sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}

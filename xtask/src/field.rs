//! The image of field guests: a Debian as nodes have it, with systemd as first process, container runtimes, and a user
//! without privileges. It is made from Debian's packages once and again whenever this recipe changes, for its name carries
//! the recipe's hash.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::{
    apt::Missing,
    guest::EXCHANGE,
    place::Cache,
    process::{as_root, may_be_root, quiet},
    suite::{self, SUITE},
};

/// What it holds beyond Debian's essential packages, without what these only recommend.
const PACKAGES: [&str; 24] = [
    // An init system with what nodes have beside it; package mount, because units of mounts call it.
    "systemd",
    "systemd-sysv",
    "dbus",
    "mount",
    "kmod",
    "procps",
    "iproute2",
    // Sessions of users, and their own systemd and bus.
    "libpam-systemd",
    "dbus-user-session",
    "login",
    "passwd",
    // Container runtimes. podman without root needs newuidmap; its pods need catatonit.
    "containerd",
    "runc",
    "crun",
    "docker.io",
    "docker-cli",
    "iptables",
    "podman",
    "conmon",
    "uidmap",
    "catatonit",
    // Content of the tests' container images.
    "busybox-static",
    // A client of the container runtime interface consists of these and of CRI_API.
    "curl",
    "protobuf-compiler",
];

/// The package and file that describe the container runtime interface, and where the image has the file. Only the file is
/// taken, because the package would bring the sources of a hundred others along.
const CRI_API: [&str; 3] = [
    "golang-k8s-cri-api-dev",
    "./usr/share/gocode/src/k8s.io/cri-api/pkg/apis/runtime/v1/api.proto",
    "/usr/local/share/cri/api.proto",
];

/// What only people read.
const LEFT_OUT: [&str; 5] =
    ["/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/bash-completion/*", "/usr/share/zsh/*"];

/// Units that a node would need and a guest only waits for, each a process that an emulated machine takes a second or more
/// to start, or that would start what a test starts when it wants it.
const MASKED: [&str; 35] = [
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "kmod-static-nodes.service",
    "modprobe@configfs.service",
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    "modprobe@fuse.service",
    "proc-sys-fs-binfmt_misc.automount",
    "serial-getty@ttyS0.service",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path",
    "systemd-binfmt.service",
    "systemd-firstboot.service",
    "systemd-hibernate-clear.service",
    "systemd-journal-flush.service",
    "systemd-machine-id-commit.service",
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-pcrmachine.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-tpm2-setup.service",
    // A share below /tmp must not be hidden.
    "tmp.mount",
];

/// Generators that look for what a guest does not have; all of them run again at each daemon-reload. podman's stays: it
/// makes units of Quadlet files.
const MASKED_GENERATORS: [&str; 9] = [
    "systemd-debug-generator",
    "systemd-factory-reset-generator",
    "systemd-fstab-generator",
    "systemd-getty-generator",
    "systemd-gpt-auto-generator",
    "systemd-hibernate-resume-generator",
    "systemd-run-generator",
    "systemd-ssh-generator",
    "systemd-system-update-generator",
];

/// The unit that runs the guest's command.
pub(crate) const UNIT: &str = "field.service";

/// Files of the image and what stands in them.
fn files() -> Vec<(&'static str, String)> {
    let text = |path, text: &str| (path, text.to_owned());
    vec![
        text("/etc/hostname", "field\n"),
        text("/etc/hosts", "127.0.0.1 localhost field\n"),
        text("/etc/resolv.conf", ""),
        text("/etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
        text("/etc/systemd/journald.conf.d/volatile.conf", "[Journal]\nStorage=volatile\n"),
        // There is no network, so nothing for Docker to set up.
        text("/etc/docker/daemon.json", "{\"iptables\": false, \"ip6tables\": false, \"bridge\": \"none\"}\n"),
        // As on a node whose user plc runs real-time programs.
        text("/etc/security/limits.d/plc.conf", "plc - rtprio 99\nplc - nice -20\nplc - memlock unlimited\n"),
        // What podman's documentation asks of a node whose users limit CPUs of their containers.
        text("/etc/systemd/system/user@.service.d/delegate.conf", "[Service]\nDelegate=cpu cpuset io memory pids\n"),
        (
            "/etc/systemd/system/field.service",
            format!(
                "[Unit]\nDescription=The command that this guest was booted for\nAfter=multi-user.target\n\n\
                 [Service]\nType=exec\nExecStart=/bin/sh {EXCHANGE}/boot\nTasksMax=infinity\nOOMPolicy=continue\n"
            ),
        ),
    ]
}

/// The shell's words that finish the tree `$1`.
fn customisation() -> String {
    let mut script = "set -eu\n".to_owned();
    for (path, text) in files() {
        // Writing to a String cannot fail.
        let _ = write!(script, "mkdir -p \"$(dirname \"$1{path}\")\"\ncat >\"$1{path}\" <<'END'\n{text}END\n");
    }
    for unit in MASKED {
        let _ = writeln!(script, "ln -sf /dev/null \"$1/etc/systemd/system/{unit}\"");
    }
    script += "mkdir -p \"$1/etc/systemd/system-generators\"\n";
    for generator in MASKED_GENERATORS {
        let _ = writeln!(script, "ln -sf /dev/null \"$1/etc/systemd/system-generators/{generator}\"");
    }
    script += "cd \"$1/etc/systemd/system\"\n";
    script += "rm -f multi-user.target.wants/docker.service multi-user.target.wants/containerd.service\n";
    script += "rm -f default.target.wants/* sockets.target.wants/* timers.target.wants/*\n";
    let _ = writeln!(script, "mkdir -p multi-user.target.wants\nln -sf ../{UNIT} multi-user.target.wants/{UNIT}");
    script += "ln -sf /lib/systemd/system/multi-user.target default.target\n";
    script += "chroot \"$1\" useradd --create-home --uid 1000 --user-group --shell /bin/bash plc\n";
    // Says that nothing below /usr is newer, so that the first boot has no users and caches to bring up to date.
    script += "touch \"$1/etc/.updated\" \"$1/var/.updated\"\n";
    let [package, file, home] = CRI_API;
    script += "cd \"$1/tmp\"\n";
    let _ = writeln!(script, "APT_CONFIG=\"$MMDEBSTRAP_APT_CONFIG\" apt-get download {package}");
    let _ = writeln!(script, "mkdir -p \"$(dirname \"$1{home}\")\"");
    // protoc of this suite does not know the option, which only hides fields in logs.
    let _ = writeln!(
        script,
        "dpkg-deb --fsys-tarfile {package}_*.deb | tar -xO {file} | sed 's/ *\\[debug_redact = true\\]//' >\"$1{home}\"\n\
         test -s \"$1{home}\"\nrm {package}_*.deb"
    );
    script
}

/// mmdebstrap's arguments, but for the target and the mirror.
fn arguments() -> Vec<String> {
    let mut arguments = vec!["--mode=root".to_owned(), "--variant=apt".to_owned(), "--format=directory".to_owned()];
    // By the clock of a machine that is behind or ahead, a suite under development soon counts as expired.
    for option in
        ["Acquire::Check-Valid-Until \"false\"", "Acquire::Languages \"none\"", "APT::Install-Recommends \"false\""]
    {
        arguments.push(format!("--aptopt={option}"));
    }
    arguments.push("--dpkgopt=force-unsafe-io".to_owned());
    arguments.extend(LEFT_OUT.map(|path| format!("--dpkgopt=path-exclude={path}")));
    arguments.push(format!("--include={}", PACKAGES.join(",")));
    arguments.push(format!("--customize-hook={}", customisation()));
    arguments.push(SUITE.to_owned());
    arguments
}

/// mke2fs' arguments, but for tree and image. Without journal and checksums, which cost time in an emulated guest and serve
/// nobody on a disk that lasts for one boot. The file is sparse.
const FILE_SYSTEM: [&str; 5] = ["-q", "-t", "ext4", "-O", "^metadata_csum,^has_journal"];
/// Size of the file system: room for images of containers.
const SIZE: &str = "8G";

/// Name of the image by what it is made of.
fn name() -> String {
    let mut hash = Sha256::new();
    for word in arguments().iter().map(String::as_str).chain(FILE_SYSTEM).chain([SIZE]) {
        hash.update(word);
        hash.update([0]);
    }
    let hash: String = hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("{SUITE}-{hash}.ext4")
}

/// The image, made if it is not in the cache as this recipe wants it; earlier ones are removed then.
///
/// # Errors
/// When we may not become root, or a package cannot be had.
pub(crate) fn image(cache: &Cache) -> Result<PathBuf> {
    let home = cache.dir("field")?;
    let image = home.join(name());
    let _lock = cache.lock("field")?;
    if image.exists() {
        return Ok(image);
    }
    if !may_be_root() {
        let commands = vec!["sudo -v && cargo xtask setup --for field".to_owned()];
        return Err(
            Missing { what: vec!["the image of field guests, which only root can make".to_owned()], commands }.into()
        );
    }
    let partial = home.join("part");
    discard(cache, &partial)?;
    fs::create_dir_all(&partial).with_context(|| format!("creating {}", partial.display()))?;
    let made = make(cache, &partial, &image);
    discard(cache, &partial)?;
    made?;
    for entry in fs::read_dir(&home).with_context(|| format!("listing {}", home.display()))?.flatten() {
        let earlier = entry.path();
        if earlier != image && earlier.extension().is_some_and(|extension| extension == "ext4") {
            fs::remove_file(&earlier).with_context(|| format!("removing {}", earlier.display()))?;
        }
    }
    Ok(image)
}

fn make(cache: &Cache, partial: &Path, image: &Path) -> Result<()> {
    let (tree, disk) = (partial.join("tree"), partial.join("disk"));
    let mirror = suite::mirror(cache)?;
    let mut bootstrap = as_root("mmdebstrap");
    bootstrap.args(arguments()).arg(&tree).arg(format!("deb {mirror} {SUITE} main"));
    quiet(&format!("making a Debian {SUITE} for field guests"), &cache.log("field-image")?, &mut bootstrap)?;
    let mut format = as_root("mke2fs");
    format.args(FILE_SYSTEM).arg("-d").arg(&tree).arg(&disk).arg(SIZE);
    quiet("making an image of it", &cache.log("field-disk")?, &mut format)?;
    fs::rename(&disk, image).with_context(|| format!("moving the image to {}", image.display()))
}

/// Removes a tree that holds files of root's.
fn discard(cache: &Cache, tree: &Path) -> Result<()> {
    if !tree.exists() {
        return Ok(());
    }
    let mut remove: Command = as_root("rm");
    remove.args(["-rf", "--one-file-system"]).arg(tree);
    quiet("removing what it was made of", &cache.log("field-remove")?, &mut remove)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_named_after_its_recipe() {
        let name = name();
        assert_eq!(name, super::name());
        let hash = name.strip_prefix("forky-").and_then(|rest| rest.strip_suffix(".ext4")).expect("suite, hash, kind");
        assert!(hash.len() == 12 && hash.chars().all(|c| c.is_ascii_hexdigit()), "{hash}");
    }

    #[test]
    fn the_shell_takes_the_customisation() {
        let checked = Command::new("sh").args(["-n", "-c", &customisation()]).status().expect("sh runs");
        assert!(checked.success());
    }

    #[test]
    fn the_unit_that_runs_the_command_is_among_the_files() {
        assert!(files().iter().any(|(path, _)| path.ends_with(&format!("/{UNIT}"))));
        assert!(!MASKED.contains(&UNIT));
    }
}

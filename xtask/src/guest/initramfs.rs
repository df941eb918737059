//! What a guest's kernel starts with: an archive of busybox, the modules that reach the root file system, and a script
//! that mounts it and executes its first process. It is made anew for each guest, which takes less than a second.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use super::root::{EXCHANGE, Mount, Root};
use crate::{
    kernel::Installed,
    process::{find_program, output_of, quote},
};

/// Modules of each guest: the bus, and the file system that it shares with this machine.
const MODULES: [&str; 3] = ["virtio_pci", "9pnet_virtio", "9p"];
/// Further modules of a guest whose root is this machine's.
const HOST_MODULES: [&str; 1] = ["overlay"];
/// Further modules of a guest whose root is an image.
const IMAGE_MODULES: [&str; 2] = ["virtio_blk", "ext4"];

/// Tag of the directory of modules.
pub(super) const MODULES_TAG: &str = "modules";
/// Tag of this machine's root directory.
pub(super) const ROOT_TAG: &str = "root";

/// Where the new root is mounted before it becomes the root.
const NEW_ROOT: &str = "/root";
/// The largest message that the 9p server of QEMU and the kernel's virtio transport agree on.
const NINEP: &str = "version=9p2000.L,trans=virtio,access=any,msize=512000";

/// Writes the archive for `kernel` to `archive`, with `scratch` as a directory of its own.
///
/// # Errors
/// When busybox or a module is missing, or something cannot be written.
pub(super) fn write(kernel: &Installed, root: &Root, mounts: &[Mount], scratch: &Path, archive: &Path) -> Result<()> {
    for dir in ["bin", "dev", "proc", "sys", "root", "lower", "upper", "modules"] {
        let dir = scratch.join(dir);
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    }
    let busybox = static_busybox()?;
    let copy = scratch.join("bin/busybox");
    fs::copy(&busybox, &copy).with_context(|| format!("copying {} to {}", busybox.display(), copy.display()))?;

    let wanted = MODULES.iter().chain(match root {
        Root::Host => HOST_MODULES.as_slice(),
        Root::Image(_) => IMAGE_MODULES.as_slice(),
    });
    let mut modules = Vec::new();
    if let Some(tree) = &kernel.modules {
        for file in load_order(tree, &kernel.release, wanted.copied())? {
            modules.push(unpack_module(&file, &scratch.join("modules"))?);
        }
    }
    let init = scratch.join("init");
    fs::write(&init, script(root, mounts, &modules, kernel.modules.is_some())?)
        .with_context(|| format!("writing {}", init.display()))?;
    rustix::fs::chmod(&init, rustix::fs::Mode::from_raw_mode(0o755))
        .with_context(|| format!("making {} executable", init.display()))?;
    pack(&busybox, scratch, archive)
}

/// A busybox that needs no libraries, as the archive has none.
fn static_busybox() -> Result<PathBuf> {
    let program = find_program("busybox").context("no busybox; it is in the package busybox-static")?;
    let bytes = fs::read(&program).with_context(|| format!("reading {}", program.display()))?;
    let interpreter = b"/ld-linux";
    ensure!(
        !bytes.windows(interpreter.len()).any(|window| window == interpreter),
        "{} needs libraries; the package busybox-static has one that does not",
        program.display()
    );
    Ok(program)
}

/// The files of the modules `wanted` and of those that they need, in the order in which they load.
fn load_order<'a>(modules: &Path, release: &str, wanted: impl Iterator<Item = &'a str>) -> Result<Vec<PathBuf>> {
    let modprobe = find_program("modprobe").context("no modprobe; it is in the package kmod")?;
    // modprobe appends lib/modules.
    let base = modules.ancestors().nth(2).with_context(|| format!("{} is no lib/modules", modules.display()))?;
    let mut order = Vec::new();
    for module in wanted {
        let mut command = Command::new(&modprobe);
        command.arg("-d").arg(base).args(["-S", release, "--show-depends", module]);
        let answer = output_of(&mut command)
            .with_context(|| format!("kernel {release} has no module {module}, which its guest needs"))?;
        for file in files_to_load(&answer) {
            if !order.contains(&file) {
                order.push(file);
            }
        }
    }
    Ok(order)
}

/// The files in modprobe's answer; what is built into the kernel has none.
fn files_to_load(answer: &str) -> impl Iterator<Item = PathBuf> {
    answer.lines().filter_map(|line| line.strip_prefix("insmod ")?.split_whitespace().next().map(PathBuf::from))
}

/// Copies a module into `dir`, uncompressed, as busybox's insmod wants it; gives its name there.
fn unpack_module(file: &Path, dir: &Path) -> Result<String> {
    let name = file.file_name().and_then(|name| name.to_str()).context("a module without a name")?;
    let (plain, program) = match name.rsplit_once('.') {
        Some((plain, "xz")) => (plain, "xz"),
        Some((plain, "zst")) => (plain, "zstd"),
        Some((plain, "gz")) => (plain, "gzip"),
        _ => (name, "cat"),
    };
    let copy = dir.join(plain);
    let to = File::create(&copy).with_context(|| format!("creating {}", copy.display()))?;
    let mut command = Command::new(find_program(program).with_context(|| format!("no {program}"))?);
    if program != "cat" {
        command.arg("-dc");
    }
    let status = command.arg(file).stdout(to).status().with_context(|| format!("starting {program}"))?;
    ensure!(status.success(), "{program} cannot unpack {} ({status})", file.display());
    Ok(plain.to_owned())
}

/// The first process of the guest, until it becomes the new root's. What fails shows on the console.
fn script(root: &Root, mounts: &[Mount], modules: &[String], has_modules: bool) -> Result<String> {
    let mut lines = vec![
        "#!/bin/busybox sh".to_owned(),
        "/bin/busybox --install -s /bin".to_owned(),
        "export PATH=/bin".to_owned(),
        "fail() { echo \"guest: $*\" >/dev/console; poweroff -f; }".to_owned(),
        "mount -t devtmpfs -o nosuid,noexec,mode=755 devtmpfs /dev || poweroff -f".to_owned(),
        "mount -t proc -o nosuid,nodev,noexec proc /proc || fail no /proc".to_owned(),
        "mount -t sysfs -o nosuid,nodev,noexec sysfs /sys || fail no /sys".to_owned(),
        "ip link set lo up; hostname guest".to_owned(),
    ];
    lines.extend(
        modules.iter().map(|module| format!("insmod /modules/{module} || echo guest: no {module} >/dev/console")),
    );
    match root {
        Root::Host => lines.extend([
            format!("mount -t 9p -o ro,cache=loose,{NINEP} {ROOT_TAG} /lower || fail no root"),
            "mount -t tmpfs upper /upper && mkdir /upper/upper /upper/work || fail no memory".to_owned(),
            format!(
                "mount -t overlay -o lowerdir=/lower,upperdir=/upper/upper,workdir=/upper/work overlay {NEW_ROOT} \
                 || fail no overlay"
            ),
        ]),
        Root::Image(_) => lines.extend([
            // The driver looks for partitions after its module is there.
            "for _ in $(seq 100); do [ -b /dev/vda ] && break; usleep 100000; done".to_owned(),
            format!("mount -t ext4 -o noatime /dev/vda {NEW_ROOT} || fail no root"),
        ]),
    }
    lines.push(format!("mount -t tmpfs -o nosuid,nodev,mode=755 run {NEW_ROOT}/run || fail no /run"));
    if has_modules {
        lines.push(format!("mkdir -p {NEW_ROOT}/lib/modules"));
        lines.push(format!(
            "mount -t 9p -o ro,cache=loose,{NINEP} {MODULES_TAG} {NEW_ROOT}/lib/modules || fail no modules"
        ));
    }
    for Mount { tag, guest, read_only, .. } in mounts {
        let guest = guest.to_str().with_context(|| format!("{} is not UTF-8", guest.display()))?;
        let at = quote(&format!("{NEW_ROOT}{guest}"));
        let mode = if *read_only { "ro,cache=loose" } else { "rw" };
        lines.push(format!("mkdir -p {at} && mount -t 9p -o {mode},{NINEP} {tag} {at} || fail no {tag}"));
    }
    match root {
        Root::Host => {
            for dir in ["dev", "proc", "sys"] {
                lines.push(format!("mount --move /{dir} {NEW_ROOT}/{dir} || fail moving /{dir}"));
            }
            lines.push(format!("exec switch_root {NEW_ROOT} /bin/sh {EXCHANGE}/boot"));
        }
        Root::Image(_) => {
            // systemd mounts the others itself.
            lines.push(format!("umount /sys; umount /proc; mount --move /dev {NEW_ROOT}/dev || fail moving /dev"));
            lines.push(format!("exec switch_root {NEW_ROOT} /lib/systemd/systemd"));
        }
    }
    Ok(lines.join("\n") + "\n")
}

/// Packs everything in `scratch` into `archive`. It stays uncompressed: an emulated kernel would take longer to unpack it.
fn pack(busybox: &Path, scratch: &Path, archive: &Path) -> Result<()> {
    let mut names = vec![".".to_owned()];
    let mut dirs = vec![PathBuf::new()];
    while let Some(dir) = dirs.pop() {
        let whole = scratch.join(&dir);
        for entry in fs::read_dir(&whole).with_context(|| format!("listing {}", whole.display()))? {
            let entry = entry.with_context(|| format!("listing {}", whole.display()))?;
            let path = dir.join(entry.file_name());
            names.push(path.display().to_string());
            if entry.file_type().with_context(|| format!("looking at {}", path.display()))?.is_dir() {
                dirs.push(path);
            }
        }
    }
    // Each directory comes before what it holds.
    names.sort();
    let to = File::create(archive).with_context(|| format!("creating {}", archive.display()))?;
    let mut cpio = Command::new(busybox)
        .args(["cpio", "-o", "-H", "newc", "-R", "0:0"])
        .current_dir(scratch)
        .stdin(Stdio::piped())
        .stdout(to)
        .stderr(Stdio::null())
        .spawn()
        .context("starting busybox cpio")?;
    let mut list = cpio.stdin.take().context("busybox cpio has no stdin")?;
    list.write_all(names.join("\n").as_bytes()).context("naming files to busybox cpio")?;
    drop(list);
    let status = cpio.wait().context("waiting for busybox cpio")?;
    if !status.success() {
        bail!("busybox cpio failed ({status})");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_modules_with_a_file_are_loaded() {
        let answer =
            "builtin virtio_pci\ninsmod /m/kernel/fs/netfs/netfs.ko.xz \ninsmod /m/kernel/net/9p/9pnet.ko a=1\n";
        let files: Vec<PathBuf> = files_to_load(answer).collect();
        assert_eq!(files, [Path::new("/m/kernel/fs/netfs/netfs.ko.xz"), Path::new("/m/kernel/net/9p/9pnet.ko")]);
    }

    #[test]
    fn a_module_that_a_kernel_lacks_is_named() {
        let error = load_order(Path::new("/no/lib/modules"), "6.1", ["overlay"].into_iter()).expect_err("no kernel");
        assert!(error.to_string().contains("no module overlay"), "{error}");
    }

    fn accepted_by_a_shell(script: &str) -> bool {
        Command::new("sh").args(["-n", "-c", script]).status().expect("sh runs").success()
    }

    #[test]
    fn directories_are_mounted_where_the_command_sees_them() {
        let mount = Mount { tag: "share0".into(), host: "/a b".into(), guest: "/a b".into(), read_only: false };
        for root in [Root::Host, Root::Image("/image".into())] {
            let script = script(&root, std::slice::from_ref(&mount), &["9p.ko".into()], true).expect("UTF-8");
            assert!(accepted_by_a_shell(&script), "{script}");
            assert!(script.contains(&format!("mount -t 9p -o rw,{NINEP} share0 '{NEW_ROOT}/a b'")), "{script}");
            let (modules, share) = (script.find("insmod /modules/9p.ko"), script.find("share0"));
            assert!(modules.is_some() && modules < share, "{script}");
        }
    }

    #[test]
    fn systemd_is_the_first_process_on_an_image_and_a_shell_on_this_machines_root() {
        let last = |root| script(&root, &[], &[], false).expect("UTF-8").lines().last().map(str::to_owned);
        assert_eq!(last(Root::Image("/i".into())).as_deref(), Some("exec switch_root /root /lib/systemd/systemd"));
        assert_eq!(last(Root::Host), Some(format!("exec switch_root /root /bin/sh {EXCHANGE}/boot")));
    }
}

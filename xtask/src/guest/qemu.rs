//! QEMU's command line for a guest. Nothing is started here.

use std::path::Path;

use anyhow::{Context, Result, ensure};

/// One directory that the guest mounts by its tag.
pub(super) struct Export<'a> {
    pub(super) tag: &'a str,
    pub(super) dir: &'a Path,
    pub(super) read_only: bool,
}

/// What one guest consists of.
pub(super) struct Machine<'a> {
    pub(super) cpus: u32,
    /// As QEMU writes it: `2G`, `512M`.
    pub(super) memory: &'a str,
    /// NUMA nodes, each its memory and what QEMU's `-numa node` takes besides: `1G,cpus=0-1`.
    pub(super) numa: &'a [String],
    /// Image of the kernel.
    pub(super) kernel: &'a Path,
    pub(super) initramfs: &'a Path,
    /// The kernel's command line, without the console.
    pub(super) options: String,
    /// The disk, whose file stays as it is.
    pub(super) disk: Option<&'a Path>,
    pub(super) exports: Vec<Export<'a>>,
    /// By software, which works everywhere, or by KVM.
    pub(super) emulated: bool,
}

#[cfg(target_arch = "x86_64")]
mod arch {
    pub(super) const PROGRAM: &str = "qemu-system-x86_64";
    pub(super) const MACHINE: &str = "q35";
    pub(super) const CONSOLE: &str = "ttyS0";
}
#[cfg(target_arch = "aarch64")]
mod arch {
    pub(super) const PROGRAM: &str = "qemu-system-aarch64";
    pub(super) const MACHINE: &str = "virt";
    pub(super) const CONSOLE: &str = "ttyAMA0";
}

pub(super) const PROGRAM: &str = arch::PROGRAM;

impl Machine<'_> {
    /// QEMU's arguments. The console goes to stdout.
    ///
    /// # Errors
    /// When a path is not UTF-8.
    pub(super) fn arguments(&self) -> Result<Vec<String>> {
        let mut arguments: Vec<String> = Vec::new();
        let mut add = |words: &[&str]| arguments.extend(words.iter().map(|&word| word.to_owned()));
        add(&["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"]);
        add(&["-machine", arch::MACHINE, "-smp", &self.cpus.to_string(), "-m", self.memory]);
        // With a thread for each CPU, QEMU 7.2 lets one CPU run into the breakpoint that another has already patched
        // away, and the guest dies ("Oops: int3"): attaching to tracepoints patches code all the time.
        let (accel, cpu) = if self.emulated { ("tcg,thread=single", "max") } else { ("kvm", "host") };
        add(&["-accel", accel, "-cpu", cpu]);
        for (number, node) in self.numa.iter().enumerate() {
            let (memory, rest) = node.split_once(',').map_or((node.as_str(), ""), |(memory, rest)| (memory, rest));
            let comma = if rest.is_empty() { "" } else { "," };
            add(&["-object", &format!("memory-backend-ram,id=node{number},size={memory}")]);
            add(&["-numa", &format!("node,memdev=node{number}{comma}{rest}")]);
        }
        add(&["-kernel", text(self.kernel)?, "-initrd", text(self.initramfs)?]);
        add(&["-append", &format!("console={} {}", arch::CONSOLE, self.options)]);
        if let Some(disk) = self.disk {
            let file = value(disk)?;
            add(&["-drive", &format!("file={file},format=raw,if=none,id=disk,snapshot=on,cache=unsafe")]);
            add(&["-device", "virtio-blk-pci,drive=disk"]);
        }
        for Export { tag, dir, read_only } in &self.exports {
            let mode = if *read_only { ",readonly=on" } else { "" };
            // Files of several file systems below one directory can have one number: remap tells them apart.
            let dir = value(dir)?;
            add(&["-fsdev", &format!("local,id={tag},path={dir},security_model=none,multidevs=remap{mode}")]);
            add(&["-device", &format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}")]);
        }
        Ok(arguments)
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

/// A path within an option of QEMU, in which a comma ends a value unless it is doubled.
fn value(path: &Path) -> Result<String> {
    let text = text(path)?;
    ensure!(path.is_absolute(), "{text} is not absolute");
    Ok(text.replace(',', ",,"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine<'a>(numa: &'a [String], disk: Option<&'a Path>) -> Machine<'a> {
        Machine {
            cpus: 4,
            memory: "2G",
            numa,
            kernel: Path::new("/kernel"),
            initramfs: Path::new("/initramfs"),
            options: "quiet".into(),
            disk,
            exports: vec![Export { tag: "share0", dir: Path::new("/a,b"), read_only: true }],
            emulated: true,
        }
    }

    fn follows(arguments: &[String], option: &str, value: &str) -> bool {
        arguments.windows(2).any(|pair| pair[0] == option && pair[1] == value)
    }

    #[test]
    fn numa_nodes_have_their_memory_and_cpus() {
        let numa = ["1G,cpus=0-1".to_owned(), "1G".to_owned()];
        let arguments = machine(&numa, None).arguments().expect("UTF-8");
        assert!(follows(&arguments, "-object", "memory-backend-ram,id=node0,size=1G"), "{arguments:?}");
        assert!(follows(&arguments, "-numa", "node,memdev=node0,cpus=0-1"), "{arguments:?}");
        assert!(follows(&arguments, "-numa", "node,memdev=node1"), "{arguments:?}");
    }

    #[test]
    fn what_a_guest_writes_to_its_disk_stays_out_of_the_image() {
        let arguments = machine(&[], Some(Path::new("/image"))).arguments().expect("UTF-8");
        let drive = arguments.iter().find(|word| word.starts_with("file=/image,")).expect("a drive");
        assert!(drive.contains("snapshot=on"), "{drive}");
        assert!(machine(&[], None).arguments().expect("UTF-8").iter().all(|word| word != "-drive"));
    }

    #[test]
    fn a_comma_in_a_path_does_not_end_the_option() {
        let arguments = machine(&[], None).arguments().expect("UTF-8");
        let export = arguments.iter().find(|word| word.starts_with("local,")).expect("an export");
        assert!(export.contains("path=/a,,b,") && export.ends_with("readonly=on"), "{export}");
        let relative = Machine { disk: Some(Path::new("image")), ..machine(&[], None) };
        assert!(relative.arguments().is_err());
    }

    #[test]
    fn an_emulated_guest_has_one_thread_for_all_its_cpus() {
        assert!(follows(&machine(&[], None).arguments().expect("UTF-8"), "-accel", "tcg,thread=single"));
        let real = Machine { emulated: false, ..machine(&[], None) };
        assert!(follows(&real.arguments().expect("UTF-8"), "-accel", "kvm"));
    }
}

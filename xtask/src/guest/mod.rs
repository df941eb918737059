//! Guests: boots a kernel under software emulation (or KVM) and runs one command in it as root, on this machine's own
//! file system or on an image with systemd as first process.
//!
//! What the command prints does not go over the console, which carries the kernel's messages and is slow, but into
//! files of a directory that guest and host share; so it arrives unmixed, stdout and stderr apart, and does not depend
//! on a serial driver.
//!
//! A guest never outlives us: QEMU runs below timeout(1), which ends it when the time is up or when it gets SIGTERM, and
//! the kernel sends it SIGTERM when we die, however we die (setpriv --pdeathsig).

use std::{
    fmt,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

use self::{
    exchange::{Exchange, Lines, Stream},
    qemu::{Export, Machine},
    root::{Mount, PROGRAMS, SYSTEMD_OPTIONS},
};
use crate::{
    kernel::{Installed, Kernel},
    place::Cache,
    process::{POLL, find_program, quote, tail},
    progress::Progress,
};

mod exchange;
mod initramfs;
mod programs;
mod qemu;
mod root;

pub(crate) use self::root::{EXCHANGE, Root};

/// Exit code of a guest whose time was up, as timeout(1) gives it.
pub(crate) const TIMED_OUT: u8 = 124;
/// Exit code when the guest ended before the command did: a panic, a power-off, a kernel that does not boot.
pub(crate) const GUEST_DIED: u8 = 125;

/// A guest to boot.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    /// Which kernel.
    pub(crate) kernel: Kernel,
    /// On which file system.
    pub(crate) root: Root,
    /// Number of CPUs.
    pub(crate) cpus: u32,
    /// Memory as QEMU writes it: `2G`, `512M`.
    pub(crate) memory: String,
    /// NUMA nodes: `1G,cpus=0-1`.
    pub(crate) numa: Vec<String>,
    /// Further options for the kernel's command line.
    pub(crate) append: Vec<String>,
    /// Bound of boot and command together.
    pub(crate) timeout: Duration,
    /// Directories that the command may write to, for the host to see, at the same path.
    pub(crate) shares: Vec<PathBuf>,
    /// Directory whose programs of guard's stand first on the command's search path, as they are at boot.
    pub(crate) binaries: PathBuf,
}

/// As it is spoken of.
impl fmt::Display for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if matches!(self.root, Root::Host) { "guest" } else { "field guest" };
        write!(f, "{kind} {}", self.kernel)
    }
}

impl Guest {
    /// Boots the guest, runs `command` with its arguments and passes its output on; gives its exit code. With `named` each
    /// line of the output begins with the guest's name.
    ///
    /// [`TIMED_OUT`] when the time was up, [`GUEST_DIED`] when the guest ended without the command's exit code.
    ///
    /// # Errors
    /// When the kernel or a tool is missing, or the guest cannot be started.
    pub(crate) fn run(&self, cache: &Cache, command: &[String], named: bool) -> Result<u8> {
        let kernel = self.kernel.installed(cache)?;
        let exchange = Exchange::create(cache)?;
        exchange.write(
            "boot",
            &self.script(&std::env::current_dir().context("finding the current directory")?, command)?,
        )?;
        for name in ["stdout", "stderr", "status"] {
            exchange.write(name, "")?;
        }
        programs::strip(&self.binaries, &exchange.path("programs"))?;
        let mut stdout = Stream::open(&exchange.path("stdout"))?;
        let mut stderr = Stream::open(&exchange.path("stderr"))?;
        let console = exchange.path("console.log");

        let mut child = self
            .launcher(&kernel, &exchange)?
            .stdin(Stdio::null())
            .stdout(File::create(&console).with_context(|| format!("creating {}", console.display()))?)
            .stderr(
                File::options()
                    .append(true)
                    .open(&console)
                    .with_context(|| format!("opening {}", console.display()))?,
            )
            .spawn()
            .context("starting setpriv, which starts the guest")?;

        let name = named.then(|| self.to_string());
        let (mut to_stdout, mut to_stderr) =
            (Lines::new(name.clone(), std::io::stdout()), Lines::new(name, std::io::stderr()));
        let mut progress = if named { Progress::plain(self.to_string()) } else { Progress::new(self.to_string()) };
        let ended = loop {
            let ended = child.try_wait().context("waiting for the guest")?;
            let printed =
                stdout.pass_on(&mut progress, &mut to_stdout)? | stderr.pass_on(&mut progress, &mut to_stderr)?;
            if let Some(status) = ended {
                break status;
            }
            if !printed {
                progress.tick();
                thread::sleep(POLL);
            }
        };

        let status = fs::read_to_string(exchange.path("status")).context("reading the command's exit code")?;
        if let Ok(code) = status.trim().parse() {
            progress.finish(&format!("exit code {code}"));
            return Ok(code);
        }
        let (code, outcome) = if ended.code() == Some(i32::from(TIMED_OUT)) {
            (TIMED_OUT, format!("ended by its time-out of {} s", self.timeout.as_secs()))
        } else {
            (GUEST_DIED, "ended before the command did".to_owned())
        };
        progress.clear();
        let kept = cache.log(&self.to_string().replace([' ', '/'], "-"))?;
        fs::copy(&console, &kept).with_context(|| format!("keeping the console's log as {}", kept.display()))?;
        eprintln!("xtask: {self}: {outcome}; the end of {}:\n{}", kept.display(), tail(&kept, 15));
        Ok(code)
    }

    /// What the guest's shell runs. It leaves the command's exit code in `status` and turns the guest off.
    fn script(&self, cwd: &Path, command: &[String]) -> Result<String> {
        let text = |path: &Path| {
            let text = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
            anyhow::Ok(quote(text))
        };
        let mut script = String::new();
        if matches!(self.root, Root::Host) {
            script += HOST_SETUP;
        }
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        script += &format!("export PATH={PROGRAMS}:{path} HOME=/root LANG=C.UTF-8 TMPDIR=/tmp\n");
        for name in ["RUST_BACKTRACE", "RUST_LOG"] {
            if let Ok(value) = std::env::var(name) {
                script += &format!("export {name}={}\n", quote(&value));
            }
        }
        let words: Vec<String> = command.iter().map(|word| quote(word)).collect();
        script += &format!("cd {} 2>/dev/null || cd /\n", text(cwd)?);
        script += &format!("{} </dev/null >{EXCHANGE}/stdout 2>{EXCHANGE}/stderr\n", words.join(" "));
        script += &format!("echo $? >{EXCHANGE}/status\n");
        // The first process may not end, and nothing has to be put away: what counts is on the host.
        script += "echo o >/proc/sysrq-trigger\nwhile :; do sleep 1; done\n";
        Ok(script)
    }

    /// The command that boots the guest and ends with it.
    fn launcher(&self, kernel: &Installed, exchange: &Exchange) -> Result<Command> {
        let mounts = self.mounts(exchange)?;
        let scratch = exchange.path("initramfs");
        let archive = exchange.path("initramfs.cpio");
        initramfs::write(kernel, &self.root, &mounts, &scratch, &archive)?;

        let mut exports: Vec<Export> = mounts
            .iter()
            .map(|Mount { tag, host, read_only, .. }| Export { tag, dir: host, read_only: *read_only })
            .collect();
        if let Some(dir) = &kernel.modules {
            exports.push(Export { tag: initramfs::MODULES_TAG, dir, read_only: true });
        }
        let mut options = vec!["panic=-1 quiet".to_owned()];
        let disk = match &self.root {
            Root::Host => {
                exports.push(Export { tag: initramfs::ROOT_TAG, dir: Path::new("/"), read_only: true });
                None
            }
            Root::Image(image) => {
                options.push(SYSTEMD_OPTIONS.to_owned());
                Some(image.as_path())
            }
        };
        options.extend(self.append.iter().cloned());
        let machine = Machine {
            cpus: self.cpus,
            memory: &self.memory,
            numa: &self.numa,
            kernel: &kernel.image,
            initramfs: &archive,
            options: options.join(" "),
            disk,
            exports,
            emulated: std::env::var_os("GUARD_KVM").is_none_or(|value| value != "1"),
        };
        let mut command = Command::new(find_program("setpriv").context("no setpriv; it is in the package util-linux")?);
        command.args(["--pdeathsig", "TERM", "timeout", "--kill-after=5"]).arg(self.timeout.as_secs().to_string());
        command.arg(qemu::PROGRAM).args(machine.arguments()?);
        // What the guest writes to its disk lies where it is cleared away even if QEMU is killed.
        command.env("TMPDIR", &exchange.dir);
        Ok(command)
    }

    /// The directories of this machine that the guest mounts.
    fn mounts(&self, exchange: &Exchange) -> Result<Vec<Mount>> {
        let canonical = |dir: &Path| {
            dir.canonicalize().with_context(|| format!("resolving the shared directory {}", dir.display()))
        };
        let mount =
            |tag: &str, host: PathBuf, guest: PathBuf, read_only| Mount { tag: tag.to_owned(), host, guest, read_only };
        let mut mounts = vec![
            mount("exchange", exchange.dir.clone(), EXCHANGE.into(), false),
            mount("programs", exchange.path("programs"), PROGRAMS.into(), true),
        ];
        for (number, dir) in self.shares.iter().enumerate() {
            let dir = canonical(dir)?;
            mounts.push(mount(&format!("share{number}"), dir.clone(), dir, false));
        }
        Ok(mounts)
    }
}

/// What an init system would have done by the time the command runs.
const HOST_SETUP: &str = "\
mkdir -p /dev/pts /dev/shm
mount -t devpts -o nosuid,noexec,gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o nosuid,nodev,mode=1777 shm /dev/shm
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
ln -s fd/1 /dev/stdout
ln -s fd/2 /dev/stderr
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 /sys/fs/cgroup
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
mount -t securityfs securityfs /sys/kernel/security
";

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(root: Root) -> Guest {
        Guest {
            kernel: Kernel::Debian { series: "6.1".into(), rt: true },
            root,
            cpus: 2,
            memory: "1G".into(),
            numa: Vec::new(),
            append: Vec::new(),
            timeout: Duration::from_secs(60),
            shares: Vec::new(),
            binaries: "/build it/debug".into(),
        }
    }

    #[test]
    fn the_script_quotes_every_word_and_keeps_the_exit_code() {
        let words = ["sh", "-c", "echo $HOME; exit 3"].map(str::to_owned);
        for root in [Root::Host, Root::Image("/image".into())] {
            let script = guest(root).script(Path::new("/a b"), &words).expect("all paths are UTF-8");
            assert!(script.contains("sh -c 'echo $HOME; exit 3' </dev/null"), "{script}");
            assert!(script.contains("PATH=/run/guard-programs:/usr"), "{script}");
            assert!(script.contains("cd '/a b' "), "{script}");
            assert!(script.contains(&format!("\necho $? >{EXCHANGE}/status\n")), "{script}");
            assert!(Command::new("sh").args(["-n", "-c", &script]).status().expect("sh runs").success(), "{script}");
        }
    }

    #[test]
    fn only_this_machines_root_is_set_up_by_the_script() {
        let script = |root| guest(root).script(Path::new("/"), &["true".to_owned()]).expect("UTF-8");
        assert!(script(Root::Host).contains("cgroup2"));
        assert!(!script(Root::Image("/image".into())).contains("cgroup2"));
    }

    #[test]
    fn guests_are_told_apart_by_their_names() {
        assert_eq!(guest(Root::Host).to_string(), "guest 6.1-rt");
        assert_eq!(guest(Root::Image("/image".into())).to_string(), "field guest 6.1-rt");
    }
}

//! Guests: boots a kernel under software emulation (or KVM) on this machine's own file system and runs one command
//! in it as root.
//!
//! virtme-ng builds the initramfs and runs QEMU. What the command prints does not go over the console, which carries
//! the kernel's messages and is slow, but into files of a directory that guest and host share; so it arrives
//! unmixed, stdout and stderr apart, and does not depend on udev or on a serial driver.
//!
//! A guest never outlives us: QEMU runs below timeout(1), which ends its whole process group when the time is up or
//! when it gets SIGTERM, and the kernel sends it SIGTERM when we die, however we die (setpriv --pdeathsig).

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    kernel::Kernel,
    place::Cache,
    process::{POLL, find_program, quote, tail},
    progress::Progress,
    setup,
};

/// Exit code of a guest whose time was up, as timeout(1) gives it.
pub(crate) const TIMED_OUT: u8 = 124;
/// Exit code when the guest ended before the command did: a panic, a power-off, a kernel that does not boot.
pub(crate) const GUEST_DIED: u8 = 125;

/// Where the guest sees the directory it shares with us.
const EXCHANGE: &str = "/run/guard-xtask";
/// Directories that the guest may write to, without effect on the host.
const OVERLAYS: [&str; 4] = ["/etc", "/root", "/tmp", "/var"];

/// A guest to boot.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    /// Which kernel.
    pub(crate) kernel: Kernel,
    /// Number of CPUs.
    pub(crate) cpus: u32,
    /// Memory as QEMU writes it: `2G`, `512M`.
    pub(crate) memory: String,
    /// NUMA nodes as virtme-ng writes them: `1G,cpus=0-1`.
    pub(crate) numa: Vec<String>,
    /// Further options for the kernel's command line.
    pub(crate) append: Vec<String>,
    /// Bound of boot and command together.
    pub(crate) timeout: Duration,
    /// Directories that the command may write to, for the host to see, at the same path.
    pub(crate) shares: Vec<PathBuf>,
    /// Directory that stands first on the command's search path.
    pub(crate) binaries: PathBuf,
    /// Whether each line that it prints is preceded by the kernel's name, because several guests print at a time.
    pub(crate) labelled: bool,
}

impl Guest {
    /// Boots the guest, runs `command` with its arguments and passes its output on; gives its exit code.
    ///
    /// [`TIMED_OUT`] when the time was up, [`GUEST_DIED`] when the guest ended without the command's exit code.
    ///
    /// # Errors
    /// When the kernel or a tool is missing, or the guest cannot be started.
    pub(crate) fn run(&self, cache: &Cache, command: &[String]) -> Result<u8> {
        let image = self.kernel.installed(cache)?.image;
        let exchange = Exchange::create(cache)?;
        let script = self.script(&std::env::current_dir().context("finding the current directory")?, command)?;
        exchange.write("script", &script)?;
        for name in ["stdout", "stderr", "status"] {
            exchange.write(name, "")?;
        }
        let label = self.labelled.then(|| format!("{:<8}", self.kernel.to_string()));
        let mut stdout = Stream::open(&exchange.path("stdout"), label.clone())?;
        let mut stderr = Stream::open(&exchange.path("stderr"), label)?;
        let console = exchange.path("console.log");

        let mut child = self
            .launcher(&image, &exchange)?
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

        let mut progress = Progress::new(format!("guest {}", self.kernel));
        let ended = loop {
            let ended = child.try_wait().context("waiting for the guest")?;
            let printed = stdout.pass_on(&mut progress, &mut std::io::stdout())?
                | stderr.pass_on(&mut progress, &mut std::io::stderr())?;
            if let Some(status) = ended {
                break status;
            }
            if !printed {
                progress.tick();
                thread::sleep(POLL);
            }
        };

        stdout.end(&mut std::io::stdout())?;
        stderr.end(&mut std::io::stderr())?;
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
        let kept = cache.log(&format!("guest-{}", self.kernel.to_string().replace('/', "_")))?;
        fs::copy(&console, &kept).with_context(|| format!("keeping the console's log as {}", kept.display()))?;
        eprintln!("xtask: guest {}: {outcome}; the end of {}:\n{}", self.kernel, kept.display(), tail(&kept, 15));
        Ok(code)
    }

    /// What the guest's shell runs. It leaves the command's exit code in `status`.
    fn script(&self, cwd: &Path, command: &[String]) -> Result<String> {
        let text = |path: &Path| {
            let text = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
            anyhow::Ok(quote(text))
        };
        let mut script = String::new();
        for (number, share) in self.shares.iter().enumerate() {
            script += &format!("mount --bind {EXCHANGE}-{number} {} || exit\n", text(&canonical(share)?)?);
        }
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        script += &format!("export PATH={}:{path} HOME=/root LANG=C.UTF-8 TMPDIR=/tmp\n", text(&self.binaries)?);
        for name in ["RUST_BACKTRACE", "RUST_LOG"] {
            if let Ok(value) = std::env::var(name) {
                script += &format!("export {name}={}\n", quote(&value));
            }
        }
        let words: Vec<String> = command.iter().map(|word| quote(word)).collect();
        script += &format!("cd {} 2>/dev/null || cd /\n", text(cwd)?);
        script += &format!("{} </dev/null >{EXCHANGE}/stdout 2>{EXCHANGE}/stderr\n", words.join(" "));
        script += &format!("echo $? >{EXCHANGE}/status\n");
        Ok(script)
    }

    /// The command that boots the guest and ends with it.
    fn launcher(&self, image: &Path, exchange: &Exchange) -> Result<Command> {
        let mut command = Command::new(find_program("setpriv").context("no setpriv; it is in the package util-linux")?);
        command.args(["--pdeathsig", "TERM", "timeout", "--kill-after=5"]).arg(self.timeout.as_secs().to_string());
        command
            .arg(setup::virtme_run()?)
            .args(["--mods", "auto", "--show-boot-console", "--force-9p", "--kimg"])
            .arg(image);
        command.args(["--cpus", &self.cpus.to_string(), "--memory", &self.memory]);
        let emulated = std::env::var_os("GUARD_KVM").is_none_or(|value| value != "1");
        if emulated {
            command.arg("--disable-kvm");
        }
        for node in &self.numa {
            command.args(["--numa", node]);
        }
        for option in &self.append {
            command.args(["--kopt", option]);
        }
        for dir in OVERLAYS {
            command.arg(format!("--overlay-rwdir={dir}"));
        }
        let mut share = |guest: String, host: &Path| -> Result<()> {
            let host = host.to_str().with_context(|| format!("{} is not UTF-8", host.display()))?;
            if host.contains([',', '=']) {
                bail!("{host}: a directory with ',' or '=' in its name cannot be shared with a guest");
            }
            command.arg(format!("--rwdir={guest}={host}"));
            Ok(())
        };
        share(EXCHANGE.to_owned(), &exchange.dir)?;
        for (number, dir) in self.shares.iter().enumerate() {
            share(format!("{EXCHANGE}-{number}"), &canonical(dir)?)?;
        }
        command.arg("--script-sh").arg(format!("sh {EXCHANGE}/script"));
        if emulated {
            // With a thread for each CPU, QEMU 7.2 lets one CPU run into the breakpoint that another has already patched
            // away, and the guest dies ("Oops: int3"): attaching to tracepoints patches code all the time.
            command.args(["--qemu-opts", "-accel", "tcg,thread=single"]);
        }
        // virtme-ng's own temporary files go where they are cleared away even if it is killed.
        command.env("TMPDIR", exchange.path("tmp"));
        Ok(command)
    }
}

fn canonical(dir: &Path) -> Result<PathBuf> {
    dir.canonicalize().with_context(|| format!("resolving the shared directory {}", dir.display()))
}

/// The directory that one guest and we share; gone when dropped.
struct Exchange {
    dir: PathBuf,
}

impl Exchange {
    fn create(cache: &Cache) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let all = cache.dir("guests")?;
        clear_abandoned(&all);
        let name = format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let dir = all.join(name);
        let tmp = dir.join("tmp");
        fs::create_dir_all(&tmp).with_context(|| format!("creating {}", tmp.display()))?;
        Ok(Self { dir })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Removes the directories of xtasks that were killed: those named after a process that is no more.
fn clear_abandoned(all: &Path) {
    for entry in fs::read_dir(all).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A file that the guest writes and we pass on as it grows.
struct Stream {
    file: File,
    /// What precedes each line; then only whole lines are passed on.
    label: Option<String>,
    /// A line of which the end is yet to come.
    begun: Vec<u8>,
}

impl Stream {
    fn open(path: &Path, label: Option<String>) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        Ok(Self { file, label, begun: Vec::new() })
    }

    /// Copies what is new to `to`; whether there was anything.
    fn pass_on(&mut self, progress: &mut Progress, to: &mut impl Write) -> Result<bool> {
        let mut new = Vec::new();
        self.file.read_to_end(&mut new).context("reading what the guest printed")?;
        if new.is_empty() {
            return Ok(false);
        }
        progress.clear();
        self.begun.extend_from_slice(&new);
        let whole = match (&self.label, self.begun.iter().rposition(|byte| *byte == b'\n')) {
            (None, _) => self.begun.len(),
            (Some(_), last) => last.map_or(0, |last| last + 1),
        };
        let passed: Vec<u8> = self.begun.drain(..whole).collect();
        self.write(&passed, to)?;
        Ok(true)
    }

    /// Passes on a last line that has no end.
    fn end(&mut self, to: &mut impl Write) -> Result<()> {
        let rest = std::mem::take(&mut self.begun);
        if rest.is_empty() { Ok(()) } else { self.write(&[rest.as_slice(), b"\n"].concat(), to) }
    }

    fn write(&self, bytes: &[u8], to: &mut impl Write) -> Result<()> {
        let mut text = Vec::with_capacity(bytes.len());
        match &self.label {
            None => text.extend_from_slice(bytes),
            Some(label) => {
                for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                    text.extend_from_slice(label.as_bytes());
                    text.extend_from_slice(line);
                }
            }
        }
        // In one go, so that lines of two guests do not mix.
        to.write_all(&text).and_then(|()| to.flush()).context("passing on what the guest printed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest() -> Guest {
        Guest {
            kernel: Kernel::Debian { series: "6.1".into(), rt: true },
            cpus: 2,
            memory: "1G".into(),
            numa: Vec::new(),
            append: Vec::new(),
            timeout: Duration::from_secs(60),
            shares: Vec::new(),
            binaries: "/build it/debug".into(),
            labelled: false,
        }
    }

    #[test]
    fn the_script_quotes_every_word_and_keeps_the_exit_code() {
        let words = ["sh", "-c", "echo $HOME; exit 3"].map(str::to_owned);
        let script = guest().script(Path::new("/a b"), &words).expect("all paths are UTF-8");
        assert!(script.contains("sh -c 'echo $HOME; exit 3' </dev/null"), "{script}");
        assert!(script.contains("PATH='/build it/debug':/usr"), "{script}");
        assert!(script.contains("cd '/a b' "), "{script}");
        assert!(script.ends_with(&format!("echo $? >{EXCHANGE}/status\n")), "{script}");
    }

    #[test]
    fn shared_directories_appear_at_their_own_path() {
        let guest = Guest { shares: vec!["/usr/../usr".into()], ..guest() };
        let script = guest.script(Path::new("/"), &["true".to_owned()]).expect("the directory exists");
        assert!(script.starts_with(&format!("mount --bind {EXCHANGE}-0 /usr || exit\n")), "{script}");
    }

    #[test]
    fn a_stream_passes_on_only_what_is_new() {
        let path = std::env::temp_dir().join(format!("xtask-stream-{}", std::process::id()));
        fs::write(&path, "one").expect("the file can be written");
        let mut stream = Stream::open(&path, None).expect("it exists");
        let mut progress = Progress::new("test");
        let mut seen = Vec::new();
        assert!(stream.pass_on(&mut progress, &mut seen).expect("readable"));
        assert!(!stream.pass_on(&mut progress, &mut seen).expect("readable"));
        File::options().append(true).open(&path).and_then(|mut file| file.write_all(b" two")).expect("it can grow");
        assert!(stream.pass_on(&mut progress, &mut seen).expect("readable"));
        fs::remove_file(&path).expect("it is ours");
        assert_eq!(seen, b"one two");
    }

    #[test]
    fn labelled_lines_are_passed_on_whole() {
        let path = std::env::temp_dir().join(format!("xtask-labelled-{}", std::process::id()));
        fs::write(&path, "one\ntw").expect("the file can be written");
        let mut stream = Stream::open(&path, Some("6.1-rt ".into())).expect("it exists");
        let mut progress = Progress::new("test");
        let mut seen = Vec::new();
        assert!(stream.pass_on(&mut progress, &mut seen).expect("readable"));
        assert_eq!(seen, b"6.1-rt one\n");
        File::options().append(true).open(&path).and_then(|mut file| file.write_all(b"o\nend")).expect("it can grow");
        assert!(stream.pass_on(&mut progress, &mut seen).expect("readable"));
        stream.end(&mut seen).expect("memory takes everything");
        fs::remove_file(&path).expect("it is ours");
        assert_eq!(seen, b"6.1-rt one\n6.1-rt two\n6.1-rt end\n");
    }
}

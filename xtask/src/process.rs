//! Child processes: visible ones that write to our own terminal, quiet ones that write to a log behind a progress
//! line, and the shell's quoting for what is printed or handed to a guest.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::progress::Progress;

/// How often a child is asked whether it has ended.
pub(crate) const POLL: Duration = Duration::from_millis(50);

/// Quotes `word` for a POSIX shell; plain words stay as they are.
pub(crate) fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./-_".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The command as a person would type it, environment changes included.
pub(crate) fn command_line(command: &Command) -> String {
    let set = command.get_envs().filter_map(|(key, value)| Some((key, value?)));
    let set = set.map(|(key, value)| format!("{}={}", key.to_string_lossy(), quote(&value.to_string_lossy())));
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    set.chain(words.map(|word| quote(&word.to_string_lossy()))).collect::<Vec<_>>().join(" ")
}

/// Runs `command` on our own stdin, stdout and stderr.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn visible(command: &mut Command) -> Result<ExitStatus> {
    command.status().with_context(|| format!("starting {}", command_line(command)))
}

/// Runs `command` with its output in the file `log`, and a progress line called `what`.
///
/// # Errors
/// When it cannot be started or fails; the message carries the end of the log.
pub(crate) fn quiet(what: &str, log: &Path, command: &mut Command) -> Result<()> {
    let file = File::create(log).with_context(|| format!("creating {}", log.display()))?;
    let again = file.try_clone().with_context(|| format!("duplicating the handle of {}", log.display()))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(again)
        .spawn()
        .with_context(|| format!("starting {}", command_line(command)))?;
    let mut progress = Progress::new(what);
    let status = loop {
        if let Some(status) = child.try_wait().with_context(|| format!("waiting for {}", command_line(command)))? {
            break status;
        }
        progress.tick();
        thread::sleep(POLL);
    };
    progress.finish(if status.success() { "done" } else { "failed" });
    if !status.success() {
        bail!("{} failed ({status}); the end of {}:\n{}", command_line(command), log.display(), tail(log, 20));
    }
    Ok(())
}

/// What `command` prints on stdout, trimmed; `None` when it cannot be started or fails.
pub(crate) fn output_of(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The last `lines` lines of a file, indented; empty when it cannot be read.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(|line| format!("  {line}\n")).collect()
}

/// Where the program `name` lies: the search path first, then the directories for administrators' programs, which
/// an ordinary user's search path lacks.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let admin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(admin).map(|dir| dir.join(name)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// `program` as root, by `sudo` if need be and without a question.
pub(crate) fn as_root(program: &str) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    command
}

/// Whether [`as_root`] works.
pub(crate) fn may_be_root() -> bool {
    is_root() || sudo_without_password()
}

/// Whether `sudo` works without asking for a password.
pub(crate) fn sudo_without_password() -> bool {
    output_of(Command::new("sudo").args(["-n", "true"])).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_words_are_not_quoted() {
        assert_eq!(quote("--cpus=2"), "--cpus=2");
        assert_eq!(quote("linux-image-6.12.117+deb12"), "linux-image-6.12.117+deb12");
    }

    #[test]
    fn quoted_words_come_back_from_a_shell_as_they_were() {
        for word in ["", "a b", "it's", "$HOME `id` \\", "*", "new\nline", "~", "a;b", "\"", "ü"] {
            let printed =
                Command::new("sh").arg("-c").arg(format!("printf %s {}", quote(word))).output().expect("sh runs");
            assert_eq!(String::from_utf8_lossy(&printed.stdout), word);
        }
    }

    #[test]
    fn a_command_line_shows_the_environment_it_sets() {
        let mut command = Command::new("cargo");
        command.env("LLVM_PREFIX", "/usr/lib/llvm 22").env_remove("RUSTFLAGS").args(["install", "x y"]);
        assert_eq!(command_line(&command), "LLVM_PREFIX='/usr/lib/llvm 22' cargo install 'x y'");
    }

    #[test]
    fn a_failed_quiet_command_shows_the_end_of_its_log() {
        let log = std::env::temp_dir().join(format!("xtask-quiet-{}", std::process::id()));
        let error =
            quiet("failing", &log, Command::new("sh").args(["-c", "echo reason; exit 3"])).expect_err("it fails");
        std::fs::remove_file(&log).expect("the log was written");
        let message = format!("{error:#}");
        assert!(message.contains("reason") && message.contains("exit status: 3"), "{message}");
    }

    #[test]
    fn programs_are_found_by_name_and_absent_ones_are_not() {
        assert!(find_program("sh").is_some_and(|sh| sh.is_absolute()));
        assert_eq!(find_program("no-such-program-anywhere"), None);
    }
}

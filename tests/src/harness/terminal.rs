//! A real terminal that nobody looks at: tmux with a server of its own, ended when dropped.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{patience, until};

/// A shell in a terminal.
#[derive(Debug)]
pub struct Terminal {
    /// Name of tmux's own socket.
    name: String,
}

impl Terminal {
    /// Opens a terminal of so many columns and rows with a shell that knows no history and no colours.
    ///
    /// # Errors
    /// When tmux is not there or fails.
    pub fn open(columns: u16, rows: u16) -> Result<Self> {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let this = Self { name: format!("guard-test-{}-{number}", std::process::id()) };
        let (x, y) = (columns.to_string(), rows.to_string());
        this.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            &x,
            "-y",
            &y,
            "env PS1='$ ' TERM=xterm-256color sh",
        ])?;
        this.wait_for("$")?;
        Ok(this)
    }

    /// Types a line.
    ///
    /// # Errors
    /// When tmux fails.
    pub fn line(&self, text: &str) -> Result<()> {
        self.tmux(&["send-keys", "-l", text])?;
        self.key("Enter")
    }

    /// Presses a key, by tmux's name for it.
    ///
    /// # Errors
    /// When tmux fails.
    pub fn key(&self, key: &str) -> Result<()> {
        self.tmux(&["send-keys", key]).map(|_| ())
    }

    /// What is on the screen.
    ///
    /// # Errors
    /// When tmux fails.
    pub fn screen(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Gives the terminal another size.
    ///
    /// # Errors
    /// When tmux fails.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        self.tmux(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]).map(|_| ())
    }

    /// Waits until `text` is on the screen, and returns the screen.
    ///
    /// # Errors
    /// When it does not come; the message has the screen.
    pub fn wait_for(&self, text: &str) -> Result<String> {
        let mut last = String::new();
        let found = until(&format!("\"{text}\" on the screen"), Duration::from_secs(90) * patience(), || {
            last = self.screen()?;
            Ok(last.contains(text).then(|| last.clone()))
        });
        found.with_context(|| format!("the screen is:\n{last}"))
    }

    fn tmux(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new("tmux")
            .args(["-L", &self.name])
            .args(arguments)
            .stdin(Stdio::null())
            .env_remove("TMUX")
            .env_remove("NO_COLOR")
            .output()
            .context("start of tmux")?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "tmux {arguments:?}: {}", stderr.trim_end());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A server that is gone already is what is wanted.
        let _ = self.tmux(&["kill-server"]);
    }
}

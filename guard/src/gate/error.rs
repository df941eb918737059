//! What is wrong with a file, and where in it.

use std::path::{Path, PathBuf};

use super::facts::printable;

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The kernel refused to read it.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// What was tried: "read" or "list".
        op: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// It is not what it should be.
    #[error("{}{}: {what}", path.display(), place.as_ref().map_or(String::new(), |place| format!(", {place}")))]
    Format {
        /// The file.
        path: PathBuf,
        /// Where in it, as far as that can be said: "line 7", "line 7, column 3".
        place: Option<String>,
        /// What is wrong, and what to do.
        what: String,
    },
}

/// What is wrong with a text, and where in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) place: Option<String>,
    pub(super) what: String,
}

impl Wrong {
    /// As an error of the file `path`.
    pub(super) fn of(self, path: &Path) -> GateError {
        GateError::Format { path: path.to_owned(), place: self.place, what: self.what }
    }

    /// Of the file as such.
    pub(super) fn whole(what: impl Into<String>) -> Self {
        Self { place: None, what: what.into() }
    }

    /// At a line, counted from 1.
    pub(super) fn line(line: usize, what: impl Into<String>) -> Self {
        Self { place: Some(format!("line {line}")), what: what.into() }
    }

    /// Of serde_json, which says where; `line` is the one that its text begins on.
    pub(super) fn json(error: &serde_json::Error, line: usize) -> Self {
        let text = error.to_string();
        let what = text.split(" at line ").next().unwrap_or(&text);
        let what = if error.is_eof() { format!("{what}: the file is cut off") } else { what.to_owned() };
        if error.line() == 0 {
            return Self::line(line, what);
        }
        Self { place: Some(format!("line {}, column {}", error.line() + line - 1, error.column())), what }
    }
}

/// Of a line between the rows of a table that is none.
pub(super) const MIXED: &str =
    "this is no row of the table: other output is mixed into it; record again with the table in a file of its own";

/// A count of a table: decimal digits, nothing else.
pub(super) fn number(line: usize, text: &str) -> Result<u64, Wrong> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let value = if digits { text.parse().ok() } else { None };
    value.ok_or_else(|| Wrong::line(line, format!("{:?} is no count", printable(text))))
}

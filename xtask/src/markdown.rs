//! `cargo xtask wrap`: Markdown has one width, as code has one from rustfmt. Paragraphs and list items are filled to it;
//! tables, code, headings and HTML stay as they are, since a line break there means something.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{place::Workspace, process::output_of};

/// The width, in characters: that of rustfmt.toml.
const WIDTH: usize = 120;

/// Wraps every tracked Markdown file.
///
/// # Errors
/// When a file cannot be listed, read or written.
pub(crate) fn rewrite(workspace: &Workspace) -> Result<()> {
    for file in tracked(workspace)? {
        let text = read(&file)?;
        let wrapped = wrap(&text);
        if wrapped != text {
            fs::write(&file, wrapped).with_context(|| format!("writing {}", file.display()))?;
            println!("wrapped {}", file.display());
        }
    }
    Ok(())
}

/// Compares every tracked Markdown file with its wrapped form.
///
/// # Errors
/// When a file cannot be listed or read, or is wrapped differently; the message names each such line.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let mut wrong = Vec::new();
    for file in tracked(workspace)? {
        let text = read(&file)?;
        let wrapped = wrap(&text);
        if let Some(line) = text.lines().zip(wrapped.lines()).position(|(is, wanted)| is != wanted) {
            wrong.push(format!("{}:{}", file.display(), line + 1));
        } else if text != wrapped {
            wrong.push(format!("{}, at its end", file.display()));
        }
    }
    ensure!(wrong.is_empty(), "not wrapped at {WIDTH}, as `cargo xtask wrap` would: {}", wrong.join(", "));
    Ok(())
}

fn read(file: &PathBuf) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))
}

/// The Markdown files that git knows.
fn tracked(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let mut git = Command::new("git");
    let names = output_of(git.arg("-C").arg(&workspace.root).args(["ls-files", "-z", "*.md"]))
        .context("git ls-files lists no Markdown files")?;
    Ok(names.split('\0').filter(|name| !name.is_empty()).map(|name| workspace.root.join(name)).collect())
}

/// What a line means to its neighbours.
enum Line<'a> {
    /// Text that flows, behind what opens its paragraph: indentation, and a list's marker.
    Opens(&'a str, &'a str),
    /// Text that goes on.
    Text(&'a str),
    /// A line that stays as it is and ends a paragraph.
    Fixed,
}

/// The text with its paragraphs filled to [`WIDTH`].
fn wrap(text: &str) -> String {
    let mut wrapped = Wrapped::default();
    let mut lines = text.lines();
    if text.starts_with("---\n") {
        // The fields at the head of an issue template.
        for line in lines.by_ref() {
            let ends = !wrapped.text.is_empty() && line == "---";
            wrapped.fixed(line);
            if ends {
                break;
            }
        }
    }
    while let Some(line) = lines.next() {
        match end_of_block(line, wrapped.is_open()) {
            Some(ends) => {
                wrapped.fixed(line);
                if !ends(line) || line.trim_start().starts_with("```") {
                    for line in lines.by_ref() {
                        wrapped.fixed(line);
                        if ends(line) {
                            break;
                        }
                    }
                }
            }
            None => match classify(line, wrapped.is_open(), wrapped.depth) {
                Line::Opens(prefix, text) => wrapped.open(prefix, text),
                Line::Text(text) => wrapped.add(text),
                Line::Fixed => wrapped.fixed(line),
            },
        }
        if line.ends_with("  ") || line.ends_with('\\') {
            wrapped.flush();
        }
    }
    wrapped.flush();
    wrapped.text
}

/// Whether `line` begins a block that stays as it is up to a certain line; gives how to know that one. `open` says whether a
/// paragraph is open, which HTML does not end.
fn end_of_block(line: &str, open: bool) -> Option<fn(&str) -> bool> {
    let text = line.trim_start();
    if text.starts_with("```") {
        Some(|line| line.trim() == "```")
    } else if text.starts_with("<!--") {
        Some(|line| line.contains("-->"))
    } else if text.starts_with('<') && !open {
        Some(|line| line.trim().is_empty())
    } else {
        None
    }
}

/// What a line outside of such blocks is. `open` says whether a paragraph is open, `depth` how far a list's text is
/// indented.
fn classify(line: &str, open: bool, depth: usize) -> Line<'_> {
    let text = line.trim_start();
    let indent = line.len() - text.len();
    let ruler = !text.is_empty() && (text.chars().all(|c| c == '-') || text.chars().all(|c| c == '='));
    let reference = text.starts_with('[') && text.contains("]: ");
    if text.is_empty() || ruler || reference || text.starts_with(['|', '#', '>']) || (!open && indent >= depth + 4) {
        return Line::Fixed;
    }
    let marker = marker_width(text);
    if marker > 0 || !open {
        let (prefix, text) = line.split_at(indent + marker);
        return Line::Opens(prefix, text);
    }
    Line::Text(text)
}

/// Width of the list marker that `text` begins with, and of the space behind it; 0 without one.
fn marker_width(text: &str) -> usize {
    let digits = text.chars().take_while(char::is_ascii_digit).count();
    let marker = match text[digits..].chars().next() {
        Some('.' | ')') if digits > 0 => digits + 1,
        Some('-' | '*' | '+') if digits == 0 => 1,
        _ => return 0,
    };
    let space = text[marker..].chars().take_while(|&c| c == ' ').count();
    if space == 0 { 0 } else { marker + space }
}

/// Whether a line that begins with `word` would be something else than text.
fn means_something(word: &str) -> bool {
    word.starts_with(['#', '>', '|', '<'])
        || word.starts_with("```")
        || word.chars().all(|c| c == '-' || c == '=')
        || marker_width(&format!("{word} ")) == word.len() + 1
}

/// The output, and the paragraph under way.
#[derive(Default)]
struct Wrapped<'a> {
    text: String,
    prefix: &'a str,
    words: Vec<&'a str>,
    /// How far the text of the list at hand is indented.
    depth: usize,
}

impl<'a> Wrapped<'a> {
    fn is_open(&self) -> bool {
        !self.words.is_empty()
    }

    fn open(&mut self, prefix: &'a str, text: &'a str) {
        self.flush();
        (self.prefix, self.depth) = (prefix, prefix.len());
        self.add(text);
    }

    fn add(&mut self, text: &'a str) {
        self.words.extend(text.split_whitespace());
    }

    fn fixed(&mut self, line: &str) {
        self.flush();
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// Writes the paragraph.
    fn flush(&mut self) {
        let words = std::mem::take(&mut self.words);
        let mut line = self.prefix.to_owned();
        let mut empty = true;
        for (index, word) in words.iter().enumerate() {
            // A word stays before one that may not begin a line.
            let next = words[index + 1..].iter().take_while(|next| means_something(next));
            let needed = word.chars().count() + next.map(|next| next.chars().count() + 1).sum::<usize>();
            if !empty && !means_something(word) && line.chars().count() + 1 + needed > WIDTH {
                self.text.push_str(&line);
                self.text.push('\n');
                line = " ".repeat(self.prefix.len());
                empty = true;
            }
            if !empty {
                line.push(' ');
            }
            line.push_str(word);
            empty = false;
        }
        if !empty {
            self.text.push_str(&line);
            self.text.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words of 9 characters, as many as asked for.
    fn words(count: usize) -> String {
        vec!["word-of-9"; count].join(" ")
    }

    #[test]
    fn a_paragraph_is_filled_and_a_second_run_changes_nothing() {
        let text = format!("{}\n{}\n\nshort\nlines\n", words(3), words(20));
        let wrapped = wrap(&text);
        assert_eq!(wrapped, format!("{}\n{}\n\nshort lines\n", words(12), words(11)));
        assert_eq!(wrap(&wrapped), wrapped);
    }

    #[test]
    fn lists_keep_their_indentation() {
        let text = format!("- {}\n- one\n  two\n  - {}\n12. a\n    b\n\n    {}\n", words(13), words(12), words(13));
        let wrapped = format!(
            "- {}\n  {}\n- one two\n  - {}\n    word-of-9\n12. a b\n\n    {}\n    {}\n",
            words(11),
            words(2),
            words(11),
            words(11),
            words(2)
        );
        assert_eq!(wrap(&text), wrapped);
    }

    #[test]
    fn what_a_line_break_would_change_stays_as_it_is() {
        let long = words(20);
        let text = format!(
            "---\nname: {long}\nb: c\n---\n\n# {long}\n\n| {long} |\n|---|\n\n```sh\n{long}\nb\n```\n\n<!--\n{long}\nb\n-->\n\
             <details>\n{long}\nb\n\n[{long}]: x\n\n    {long}\n    b\n\n- a\n  ```\n  {long}\n  b\n  ```\n"
        );
        assert_eq!(wrap(&text), text);
    }

    #[test]
    fn a_line_never_begins_with_what_would_make_it_something_else() {
        for word in ["-", "+", "#", "1.", "|", "<b>", "---", "="] {
            let wrapped = wrap(&format!("{} {word} end\n", words(12)));
            assert_eq!(wrapped, format!("{}\nword-of-9 {word} end\n", words(11)));
        }
        assert_eq!(wrap(&format!("{} *strong* end\n", words(12))), format!("{}\n*strong* end\n", words(12)));
    }

    #[test]
    fn a_break_made_on_purpose_stays() {
        assert_eq!(wrap("one\\\ntwo\n"), "one\\\ntwo\n");
    }
}

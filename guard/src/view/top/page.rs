//! A page: the lines of a view. Its head stays on top, the rest scrolls.

use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::super::figures::printable;
use super::theme::Theme;

/// What a view shows.
#[derive(Default)]
pub(super) struct Page {
    /// Lines that stay.
    pub(super) head: Vec<Line<'static>>,
    /// Lines that scroll.
    pub(super) body: Vec<Line<'static>>,
    /// Line of the body that is under the cursor.
    pub(super) cursor: Option<usize>,
}

impl Page {
    /// Adds the head of a section, set off by an empty line.
    pub(super) fn section(&mut self, title: &str, remark: &str, theme: Theme) {
        if !self.body.is_empty() {
            self.body.push(Line::default());
        }
        self.body.push(Line::from(vec![
            Span::styled(title.to_owned(), theme.head()),
            Span::styled(format!("  {}", printable(remark)), theme.faint()),
        ]));
    }

    /// Adds a line of plain text.
    pub(super) fn text(&mut self, text: &str) {
        self.body.push(Line::raw(printable(text).into_owned()));
    }

    /// Adds text over as many lines as it takes.
    pub(super) fn wrapped(&mut self, text: &str, indent: usize, width: usize, style: Style) {
        let room = width.saturating_sub(indent).max(8);
        let mut line = String::new();
        for word in printable(text).split_whitespace() {
            let mut word: Vec<char> = word.chars().collect();
            while !word.is_empty() {
                let used = line.chars().count();
                let gap = usize::from(used > 0);
                if used + gap + word.len() <= room {
                    line.push_str(&" ".repeat(gap));
                    line.extend(word.drain(..));
                } else if used > 0 {
                    self.indented(&std::mem::take(&mut line), indent, style);
                } else {
                    line.extend(word.drain(..room));
                }
            }
        }
        if !line.is_empty() {
            self.indented(&line, indent, style);
        }
    }

    /// Adds text whose further lines stand further to the right.
    pub(super) fn wrapped_hanging(&mut self, text: &str, width: usize, style: Style) {
        let text = printable(text);
        let room = width.saturating_sub(2).max(8);
        let cut = text.char_indices().nth(room).map_or(text.len(), |(at, _)| at);
        // Between words, if there is a blank to cut at.
        let cut = if cut < text.len() { text[..cut].rfind(' ').unwrap_or(cut) } else { cut };
        self.indented(&text[..cut], 2, style);
        self.wrapped(&text[cut..], 26.min(width / 3), width, style);
    }

    fn indented(&mut self, text: &str, indent: usize, style: Style) {
        self.body.push(Line::styled(format!("{}{text}", " ".repeat(indent)), style));
    }
}

//! A screen as a picture, for documents: what the terminal would show, as SVG.

use std::fmt::Write as _;

use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};

use super::theme::{BLUE, GREY, ORANGE, YELLOW};

/// Size of a character, in SVG's user units.
const WIDTH: usize = 9;
const HEIGHT: usize = 19;
const MARGIN: usize = 12;
const BACKGROUND: &str = "#16181d";
const FOREGROUND: &str = "#d8dee9";

/// The buffer as SVG.
#[must_use]
pub fn svg(buffer: &Buffer) -> String {
    let (columns, rows) = (usize::from(buffer.area.width), usize::from(buffer.area.height));
    let (width, height) = (columns * WIDTH + 2 * MARGIN, rows * HEIGHT + 2 * MARGIN);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"DejaVu Sans Mono, Menlo, Consolas, monospace\" font-size=\"15\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"{BACKGROUND}\"/>\n"
    );
    for (row, cells) in buffer.content.chunks(columns.max(1)).enumerate() {
        let mut at = 0;
        for run in cells.chunk_by(|a, b| (a.fg, a.modifier) == (b.fg, b.modifier)) {
            put(&mut out, row, at, run);
            at += run.len();
        }
    }
    out.push_str("</svg>\n");
    out
}

/// Cells of one look, from column `at` on.
fn put(out: &mut String, row: usize, at: usize, run: &[Cell]) {
    let Some(first) = run.first() else { return };
    let text: String = run.iter().map(Cell::symbol).collect();
    let reversed = first.modifier.contains(Modifier::REVERSED);
    let (x, y) = (MARGIN + at * WIDTH, MARGIN + row * HEIGHT);
    // Writing to a String cannot fail.
    if reversed {
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{HEIGHT}\" fill=\"{}\"/>",
            run.len() * WIDTH,
            colour(first.fg)
        );
    }
    let shown = text.trim_end();
    if shown.is_empty() {
        return;
    }
    let fill = if reversed { BACKGROUND } else { colour(first.fg) };
    let weight = if first.modifier.contains(Modifier::BOLD) { " font-weight=\"bold\"" } else { "" };
    let escaped = shown.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(
        out,
        "<text x=\"{x}\" y=\"{}\" fill=\"{fill}\"{weight} textLength=\"{}\" xml:space=\"preserve\">{escaped}</text>",
        y + HEIGHT * 3 / 4,
        shown.chars().count() * WIDTH
    );
}

fn colour(colour: Color) -> &'static str {
    match colour {
        ORANGE => "#ff8700",
        YELLOW => "#ffd700",
        BLUE => "#5fafff",
        GREY => "#8a8a8a",
        _ => FOREGROUND,
    }
}

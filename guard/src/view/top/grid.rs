//! Tables as lines of a page: columns as wide as their content; what does not fit is left out, the least important first.

use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::super::figures::printable;
use super::super::table::cut_front;

/// Columns between two cells.
const GAP: usize = 1;
/// Fewest characters of a name.
const NAME_MIN: usize = 18;

/// How a column behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    /// Text.
    Left,
    /// Figures.
    Right,
    /// The one column that gives way, cut at its front: the tail of a path says more.
    Name,
}

/// A column.
#[derive(Clone, Copy)]
pub(super) struct Column {
    pub(super) head: &'static str,
    pub(super) align: Align,
    /// 0 stays; the greatest is left out first.
    pub(super) spare: u8,
}

/// Shorthand for a column.
pub(super) const fn column(head: &'static str, align: Align, spare: u8) -> Column {
    Column { head, align, spare }
}

/// A cell: text and how it looks.
pub(super) type Cell = (String, Style);

/// A table.
pub(super) struct Grid<'a> {
    columns: &'a [Column],
    rows: Vec<Vec<Cell>>,
}

impl<'a> Grid<'a> {
    pub(super) fn new(columns: &'a [Column]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row, one cell per column.
    pub(super) fn push(&mut self, row: Vec<Cell>) {
        debug_assert_eq!(row.len(), self.columns.len(), "one cell per column");
        self.rows.push(row.into_iter().map(|(text, style)| (printable(&text).into_owned(), style)).collect());
    }

    /// The heads and the rows, not wider than `width`.
    pub(super) fn lines(self, width: usize, head: Style) -> (Line<'static>, Vec<Line<'static>>) {
        let widths = self.widths(width);
        let heads: Vec<Cell> = self.columns.iter().map(|c| (c.head.to_owned(), head)).collect();
        let head = line(self.columns, &widths, heads);
        (head, self.rows.into_iter().map(|row| line(self.columns, &widths, row)).collect())
    }

    /// How wide each column is shown; `None` for those that are left out.
    fn widths(&self, width: usize) -> Vec<Option<usize>> {
        let natural = |i: usize, column: &Column| {
            let cells = self.rows.iter().filter_map(|row| row.get(i)).map(|(text, _)| chars(text));
            cells.max().unwrap_or(0).max(chars(column.head))
        };
        let natural: Vec<usize> = self.columns.iter().enumerate().map(|(i, c)| natural(i, c)).collect();
        let least = |i: usize| match self.columns[i].align {
            Align::Name => natural[i].min(NAME_MIN),
            Align::Left | Align::Right => natural[i],
        };
        let mut shown = vec![true; self.columns.len()];
        let total = |shown: &[bool]| (0..shown.len()).filter(|i| shown[*i]).map(|i| least(i) + GAP).sum::<usize>();
        while total(&shown) > width + GAP {
            let spare = (0..shown.len()).filter(|i| shown[*i] && self.columns[*i].spare > 0);
            let Some(out) = spare.max_by_key(|i| self.columns[*i].spare) else { break };
            shown[out] = false;
        }
        let left = (width + GAP).saturating_sub(total(&shown));
        let widened = |i: usize| match self.columns[i].align {
            Align::Name => natural[i].min(least(i) + left),
            Align::Left | Align::Right => natural[i],
        };
        (0..shown.len()).map(|i| shown[i].then(|| widened(i))).collect()
    }
}

fn line(columns: &[Column], widths: &[Option<usize>], cells: Vec<Cell>) -> Line<'static> {
    let mut spans = Vec::with_capacity(2 * cells.len());
    for ((column, width), (text, style)) in columns.iter().zip(widths).zip(cells) {
        let Some(width) = *width else { continue };
        if !spans.is_empty() {
            spans.push(Span::raw(" ".repeat(GAP)));
        }
        let text = match column.align {
            Align::Left => format!("{text:<width$}"),
            Align::Right => format!("{text:>width$}"),
            Align::Name => format!("{:<width$}", cut_front(&text, width)),
        };
        spans.push(Span::styled(text, style));
    }
    Line::from(spans)
}

fn chars(text: &str) -> usize {
    text.chars().count()
}

/// Heights of a trend, lowest first.
const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Values as a line of little columns, the largest being full; nothing for 0.
pub(super) fn trend(values: impl Iterator<Item = u64> + Clone) -> String {
    let max = u128::from(values.clone().max().unwrap_or(0).max(1));
    values
        .map(|value| match value {
            0 => ' ',
            _ => {
                let step = (u128::from(value) * STEPS.len() as u128).div_ceil(max).clamp(1, STEPS.len() as u128);
                usize::try_from(step - 1).ok().and_then(|i| STEPS.get(i)).copied().unwrap_or('█')
            }
        })
        .collect()
}

/// A bar of at most `width` characters for `count` of `most`, by logarithm: one is seen beside a million.
pub(super) fn log_bar(count: u64, most: u64, width: usize) -> String {
    if count == 0 {
        return String::new();
    }
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a length in characters, between 0 and width"
    )]
    let length = ((count as f64 + 1.0).log2() / (most as f64 + 1.0).log2() * width as f64).round() as usize;
    "█".repeat(length.clamp(1, width.max(1)))
}

/// Cells without a look of their own.
pub(super) fn plain<const N: usize>(cells: [String; N]) -> Vec<(String, Style)> {
    cells.into_iter().map(|text| (text, Style::new())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [
        column("name", Align::Name, 0),
        column("p99", Align::Right, 0),
        column("count", Align::Right, 2),
        column("max", Align::Right, 1),
    ];

    fn shown(width: usize) -> Vec<String> {
        let mut grid = Grid::new(&COLUMNS);
        let row = ["/kubepods/burstable/pod-1", "12 us", "1000", "1.9 ms"];
        grid.push(row.map(|text| (text.to_owned(), Style::new())).into());
        let (head, rows) = grid.lines(width, Style::new());
        [head].into_iter().chain(rows).map(|line| line.to_string()).collect()
    }

    #[test]
    fn the_name_gives_way_and_then_the_least_important_column() {
        assert_eq!(shown(60)[1], "/kubepods/burstable/pod-1 12 us  1000 1.9 ms");
        assert_eq!(shown(38)[1], "..s/burstable/pod-1 12 us  1000 1.9 ms");
        assert_eq!(shown(33)[1], "..ds/burstable/pod-1 12 us 1.9 ms");
        assert_eq!(shown(26)[1], "..ds/burstable/pod-1 12 us");
    }

    #[test]
    fn a_trend_is_relative_to_its_largest_value() {
        assert_eq!(trend([0, 1, 4, 8].into_iter()), " ▁▄█");
        assert_eq!(trend([u64::MAX, 1].into_iter()), "█▁");
        assert_eq!(trend(std::iter::empty::<u64>()), "");
    }

    #[test]
    fn a_bar_shows_one_beside_a_million() {
        assert_eq!(log_bar(0, 10, 20), "");
        assert_eq!(log_bar(1, 1_000_000, 20).chars().count(), 1);
        assert_eq!(log_bar(1_000_000, 1_000_000, 20).chars().count(), 20);
        assert_eq!(log_bar(u64::MAX, u64::MAX, 3).chars().count(), 3);
    }
}

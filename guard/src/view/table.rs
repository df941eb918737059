//! A plain table that fits a terminal: columns as wide as their content, one column that gives way, and columns that
//! are left out when even that is too wide.

/// Columns between two cells.
const GAP: usize = 2;
/// Columns before the first cell.
const INDENT: usize = 2;

/// How a column behaves.
#[derive(Clone, Copy)]
pub(super) enum ColumnKind {
    /// Names: to the left.
    Left,
    /// Figures: to the right.
    Right,
    /// Figures that are left out on a narrow terminal, the smallest number first.
    Spare(u8),
    /// Names that may be cut at their front (the tail of a path says more) down to so many characters.
    Path(usize),
}

/// A table.
pub(super) struct Table {
    columns: Vec<(&'static str, ColumnKind)>,
    rows: Vec<TableRow>,
}

/// A row and the remarks below it.
pub(super) struct TableRow {
    /// One cell per column.
    pub(super) cells: Vec<String>,
    /// Lines below the row.
    pub(super) notes: Vec<String>,
}

impl Table {
    /// An empty table with the given heads.
    pub(super) fn new(columns: &[(&'static str, ColumnKind)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row, with one cell per column.
    pub(super) fn push(&mut self, row: TableRow) {
        debug_assert_eq!(row.cells.len(), self.columns.len(), "one cell per column");
        self.rows.push(row);
    }

    /// Appends the table to `out`, at most `width` characters wide unless its fixed columns alone are wider. Notes
    /// are not cut.
    pub(super) fn render(&self, width: usize, out: &mut String) {
        let natural: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(i, (head, _))| {
                self.rows.iter().filter_map(|r| r.cells.get(i)).map(|c| chars(c)).max().unwrap_or(0).max(chars(head))
            })
            .collect();
        let shown = self.fit(&natural, width);

        self.line(out, &shown, |i| self.columns[i].0);
        for row in &self.rows {
            self.line(out, &shown, |i| row.cells.get(i).map_or("", String::as_str));
            for note in &row.notes {
                out.push_str("      ");
                out.push_str(note);
                out.push('\n');
            }
        }
    }

    /// The columns to show and their widths.
    fn fit(&self, natural: &[usize], width: usize) -> Vec<(usize, usize)> {
        let least = |i: usize| match self.columns[i].1 {
            ColumnKind::Path(least) => natural[i].min(least),
            _ => natural[i],
        };
        let total = |of: &dyn Fn(usize) -> usize, shown: &[usize]| -> usize {
            INDENT + shown.iter().map(|i| of(*i)).sum::<usize>() + GAP * shown.len().saturating_sub(1)
        };

        let mut shown: Vec<usize> = (0..self.columns.len()).collect();
        while total(&least, &shown) > width {
            let spare = shown
                .iter()
                .enumerate()
                .filter_map(|(at, i)| match self.columns[*i].1 {
                    ColumnKind::Spare(rank) => Some((rank, at)),
                    _ => None,
                })
                .min();
            match spare {
                Some((_, at)) => shown.remove(at),
                None => break,
            };
        }

        let mut room = width.saturating_sub(total(&least, &shown));
        shown
            .into_iter()
            .map(|i| {
                let more = (natural[i] - least(i)).min(room);
                room -= more;
                (i, least(i) + more)
            })
            .collect()
    }

    fn line<'a>(&self, out: &mut String, shown: &[(usize, usize)], cell: impl Fn(usize) -> &'a str) {
        let mut line = " ".repeat(INDENT);
        for (at, (i, width)) in shown.iter().enumerate() {
            if at > 0 {
                line.push_str(&" ".repeat(GAP));
            }
            let text = cut_front(cell(*i), *width);
            let fill = " ".repeat(width - chars(&text));
            match self.columns[*i].1 {
                ColumnKind::Left | ColumnKind::Path(_) => {
                    line.push_str(&text);
                    line.push_str(&fill);
                }
                ColumnKind::Right | ColumnKind::Spare(_) => {
                    line.push_str(&fill);
                    line.push_str(&text);
                }
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

fn chars(text: &str) -> usize {
    text.chars().count()
}

/// The end of `text` in at most `width` characters, with ".." where something was cut.
pub(super) fn cut_front(text: &str, width: usize) -> String {
    let over = chars(text).saturating_sub(width);
    if over == 0 {
        return text.to_owned();
    }
    let dots = width.min(2);
    ".".repeat(dots) + &text.chars().skip(over + dots).collect::<String>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(rows: &[[&str; 4]]) -> Table {
        let mut t = Table::new(&[
            ("name", ColumnKind::Left),
            ("path", ColumnKind::Path(8)),
            ("p50", ColumnKind::Spare(1)),
            ("max", ColumnKind::Right),
        ]);
        for cells in rows {
            t.push(TableRow { cells: cells.map(str::to_owned).to_vec(), notes: vec![] });
        }
        t
    }

    fn rendered(t: &Table, width: usize) -> String {
        let mut out = String::new();
        t.render(width, &mut out);
        out
    }

    #[test]
    fn a_wide_terminal_shows_everything() {
        let t = table(&[["a", "/system.slice/plc.service", "1 us", "12 us"]]);
        assert_eq!(
            rendered(&t, 80),
            "  name  path                        p50    max\n  a     /system.slice/plc.service  1 us  12 us\n"
        );
    }

    #[test]
    fn the_path_gives_way_first_and_keeps_its_tail() {
        let t = table(&[["a", "/system.slice/plc.service", "1 us", "12 us"]]);
        assert_eq!(rendered(&t, 33), "  name  path           p50    max\n  a     ..lc.service  1 us  12 us\n");
    }

    #[test]
    fn spare_columns_go_when_the_path_is_at_its_least() {
        let t = table(&[["a", "/system.slice/plc.service", "1 us", "12 us"]]);
        assert_eq!(rendered(&t, 24), "  name  path         max\n  a     ..service  12 us\n");
    }

    #[test]
    fn cutting_never_exceeds_the_width() {
        assert_eq!(cut_front("abc", 3), "abc");
        assert_eq!(cut_front("abcd", 3), "..d");
        assert_eq!(cut_front("abcd", 1), ".");
        assert_eq!(cut_front("abcd", 0), "");
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_asked_unless_fixed_columns_are(
            cells in prop::collection::vec([".{0,8}", ".{0,60}", ".{0,8}", ".{0,8}"], 0..5),
            width in 30usize..120,
        ) {
            let mut t = table(&[]);
            for c in cells {
                t.push(TableRow { cells: c.iter().map(|s| s.replace(char::is_control, "?")).collect(), notes: vec![] });
            }
            for line in rendered(&t, width).lines() {
                prop_assert!(line.chars().count() <= width, "{line:?} in {width}");
            }
        }
    }
}

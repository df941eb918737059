//! Lines as a program wrote them, without what terminals and logs add: colours and movements of the cursor, what a
//! carriage return overwrote, and what stands before each line of a log: the time of `kubectl logs --timestamps`, `docker
//! logs -t` and `ts`, the host and unit of journald and syslog, the service of `docker compose logs`. These are known by
//! their shape and not by a list: what stands before the one line that a reader looks for stands before the others, too.

use std::borrow::Cow;

/// The text without control sequences and what carriage returns overwrote. It has as many lines as before.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    let overwritten = |line: &str| line.trim_end_matches('\r').contains('\r');
    if !text.contains('\u{1b}') && !text.lines().any(overwritten) {
        return Cow::Borrowed(text);
    }
    let lines = text.lines().map(|line| line.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default());
    Cow::Owned(lines.flat_map(|line| [without_sequences(line), "\n".to_owned()]).collect())
}

/// ECMA-48 and 35: ESC [, parameters and intermediate bytes, one final byte; ESC ] and text up to a BEL or the next ESC; or
/// ESC, intermediate bytes and one final byte.
fn without_sequences(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain += if let Some(text) = part.strip_prefix(']') {
            text.split_once('\u{7}').map_or("", |(_, behind)| behind)
        } else {
            let (sequence, inner) = part.strip_prefix('[').map_or((part, ' '..='/'), |rest| (rest, ' '..='?'));
            let mut rest = sequence.trim_start_matches(|c: char| inner.contains(&c)).chars();
            rest.next();
            rest.as_str()
        };
    }
    plain
}

/// The text without what a log put before each line, if it did: `line` (counted from 0) is one that the program wrote,
/// from its byte `at` on. Lines before it, and lines that do not have the prefix, stay as they are.
pub(super) fn unprefixed(text: Cow<'_, str>, line: usize, at: usize) -> Cow<'_, str> {
    let prefix = text.lines().nth(line).and_then(|line| line.get(..at)).unwrap_or_default();
    // Output without a newline at its end has the next line glued to it; a log separates.
    if prefix.is_empty() || prefix.ends_with(char::is_alphanumeric) {
        return text;
    }
    let prefix = shape(prefix);
    let below = || text.lines().skip(line).filter(|line| !line.trim().is_empty());
    if below().filter(|line| strip(&prefix, line).is_some()).count() * 2 <= below().count() {
        return text;
    }
    let above = text.lines().take(line);
    let below = text.lines().skip(line).map(|line| strip(&prefix, line).unwrap_or(line));
    Cow::Owned(above.chain(below).flat_map(|line| [line, "\n"]).collect())
}

/// A run of characters in a prefix; what changes from line to line is one piece whatever its value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece {
    /// Digits, and what stands between those of a date, a time of day, a fraction and an offset.
    Number,
    Letters,
    Blanks,
    Other(char),
}

impl Piece {
    fn of(c: char) -> Self {
        match c {
            '0'..='9' | '.' | ',' | ':' | '+' | '-' => Self::Number,
            c if c.is_alphabetic() => Self::Letters,
            c if c.is_whitespace() => Self::Blanks,
            c => Self::Other(c),
        }
    }
}

fn shape(prefix: &str) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = prefix.chars().map(Piece::of).collect();
    pieces.dedup();
    pieces
}

/// What follows a prefix of this shape.
fn strip<'a>(prefix: &[Piece], line: &'a str) -> Option<&'a str> {
    let mut rest = line;
    for piece in prefix {
        let after = rest.trim_start_matches(|c| Piece::of(c) == *piece);
        // Numbers are padded with blanks, and an empty line loses its last one.
        if after.len() == rest.len() && *piece != Piece::Blanks {
            return None;
        }
        rest = after;
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINES: &str = "# Histogram\n000007 000003\t000001\n\n# Min Latencies: 00007 00007\n";

    fn stripped(text: &str) -> String {
        let line = text.lines().position(|line| line.trim_end().ends_with("# Histogram")).unwrap();
        let at = text.lines().nth(line).unwrap().find("# Histogram").unwrap();
        unprefixed(Cow::Borrowed(text), line, at).into_owned()
    }

    #[test]
    fn what_a_log_puts_before_each_line_is_taken_away() {
        for prefixes in [
            ["2026-11-02T08:59:59.99Z ", "2026-11-02T09:00:00Z ", "2026-11-02T09:00:00.123456789Z "],
            [
                "2026-11-02T08:59:59+0100 cell-4 bench[77]: ",
                "2026-11-02T09:00:00+0100 cell-4 bench[77]: ",
                "2026-11-02T09:00:01+0100 cell-4 bench[77]: ",
            ],
            [
                "Oct 31 23:59:59 cell-4 cyclictest[4711]: ",
                "Nov  1 00:00:00 cell-4 cyclictest[4711]: ",
                "Nov  1 00:00:01 cell-4 cyclictest[4711]: ",
            ],
            [
                "Sun 2026-11-01 23:59:59 CET cell-4 bench[7]: ",
                "Mon 2026-11-02 00:00:00 CET cell-4 bench[7]: ",
                "Mon 2026-11-02 00:00:00 CET cell-4 bench[7]: ",
            ],
            [
                "[   99.999999] cell-4 bench[7]: ",
                "[  100.000000] cell-4 bench[7]: ",
                "[12345.678901] cell-4 bench[7]: ",
            ],
            [
                "1793606399.999999 cell-4 bench[7]: ",
                "1793606400.000000 cell-4 bench[7]: ",
                "1793606400.000001 cell-4 bench[7]: ",
            ],
            [
                "<13>1 2026-11-02T08:59:59Z cell-4 bench 7 - - ",
                "<13>1 2026-11-02T09:00:00Z cell-4 bench 7 - - ",
                "<13>1 2026-11-02T09:00:00Z cell-4 bench 7 - - ",
            ],
            ["Nov 02 08:59:59 ", "Nov 02 09:00:00 ", "Nov 02 09:00:00 "],
            ["00:00:09 ", "00:00:10 ", "00:01:00 "],
            ["[2026-11-02 08:59:59] ", "[2026-11-02 09:00:00] ", "[2026-11-02 09:00:00] "],
            ["latency-1  | ", "latency-1  | ", "latency-1  | "],
            ["[pod/bench-x7k2p/bench] ", "[pod/bench-x7k2p/bench] ", "[pod/bench-x7k2p/bench] "],
            [
                "2026-11-02T08:59:59.9Z stdout F ",
                "2026-11-02T09:00:00.0Z stdout F ",
                "2026-11-02T09:00:00.1Z stderr F ",
            ],
            ["    ", "    ", "\t"],
            ["> ", "> ", "> "],
        ] {
            let with = |(n, line): (usize, &str)| format!("{}{line}\n", prefixes[n.min(2)]);
            let text: String = LINES.lines().enumerate().map(with).collect();
            assert_eq!(stripped(&text), LINES, "{text}");
            // Some take away what stands at the end of an empty line.
            let trimmed: String = text.lines().map(|line| format!("{}\n", line.trim_end())).collect();
            assert_eq!(stripped(&trimmed), LINES, "{trimmed}");
        }
    }

    #[test]
    fn what_is_only_glued_to_one_line_is_no_prefix() {
        for glued in ["1", "done", "running ... ", "done: "] {
            let text = format!("{glued}{LINES}");
            assert_eq!(stripped(&text), text);
        }
    }

    #[test]
    fn control_sequences_and_overwritten_text_are_no_part_of_a_line() {
        assert_eq!(plain("\u{1b}[2A\u{1b}[1;32mT: 0\u{1b}[0m\r\na\rb\r\n"), "T: 0\nb\n");
        assert_eq!(plain("\u{1b}(Bx\u{1b}"), "x\n");
        // The title of a terminal's window, a link.
        assert_eq!(plain("\u{1b}]0;root@cell-4\u{7}a\u{1b}]8;;http://x\u{1b}\\b"), "ab\n");
        for clean in ["a\r\nb\r\n", "a\nb", "a\r\r\n"] {
            assert!(matches!(plain(clean), Cow::Borrowed(text) if text == clean), "{clean:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_none_loses_a_line(text in "[ -~\u{1b}\r\nµ]{0,200}", line in 0_usize..5, at in 0_usize..20) {
            let plain = plain(&text);
            prop_assert_eq!(plain.lines().count(), text.lines().count());
            let stripped = unprefixed(Cow::Borrowed(&plain), line, at);
            prop_assert_eq!(stripped.lines().count(), plain.lines().count());
        }
    }
}

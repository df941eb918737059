//! Runs from files of any tool. The content shows the format, never the name; what stands before and behind it in a log
//! is passed over, and so is what a log puts before each line.

mod cyclictest;
mod cyclictest_lines;
mod cyclictest_table;
mod guard_json;
mod log;
mod rtla;

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::gate::error::{GateError, Wrong};
use crate::gate::run::Run;
use crate::gate::{history, text};

/// The runs in a file, or in all files of a directory, in the order of their names. Files whose name begins with a dot
/// are left out.
///
/// # Errors
/// A file cannot be read, or is not, or not entirely, in a format that the gate knows.
pub fn read(path: &Path) -> Result<Vec<Run>, GateError> {
    let failed = |source| GateError::Io { op: "list", path: path.to_owned(), source };
    let mut runs = Vec::new();
    for path in files(path).map_err(failed)? {
        runs.extend(parse(&path, &text::bytes(&path)?)?);
    }
    Ok(runs)
}

/// What to tell of a path in which [`read`] finds no run.
#[must_use]
pub fn nothing_in(path: &Path) -> String {
    let shown = path.display();
    let is_shown_dir = |entry: &fs::DirEntry| !is_hidden(entry) && entry.path().is_dir();
    match fs::read_dir(path).into_iter().flatten().flatten().filter(is_shown_dir).count() {
        0 => format!("{shown}: there is no run in it"),
        n => format!(
            "{shown}: there is no run in it, but {n} directories; a directory stands for the files in it: name {shown}/*"
        ),
    }
}

fn files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if !is_hidden(&entry) && fs::metadata(entry.path())?.is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

fn is_hidden(entry: &fs::DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().starts_with(b".")
}

/// The runs in the content of a file: one, or all those of a history. `path` is only named.
///
/// # Errors
/// See [`read`].
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<Run>, GateError> {
    let found = match text::decode(bytes) {
        Ok(text) => runs(path, &log::plain(&text)),
        Err(wrong) => Err(Wrong { what: format!("{}, so no run", wrong.what), ..wrong }),
    };
    found.map_err(|wrong| wrong.of(path))
}

fn runs(path: &Path, text: &str) -> Result<Vec<Run>, Wrong> {
    if text.trim().is_empty() {
        return Err(Wrong::whole("is empty"));
    }
    if let Some(text) = json_in_log(text) {
        return json(path, &text);
    }
    if let Some(table) = table(path, text) {
        return table.map(|run| vec![run]);
    }
    if text.trim_start().starts_with('{') {
        return json(path, text);
    }
    Err(Wrong::line(
        1,
        "neither JSON, nor what cyclictest writes (a line \"# Histogram\": record with -h US; or its summary), nor a histogram \
         of rtla (a line \"# RTLA …\": rtla timerlat hist or rtla osnoise hist, without --no-header)",
    ))
}

/// Keys by which one JSON is known from another.
#[derive(Deserialize)]
struct Peek {
    guard_gate: Option<IgnoredAny>,
    window: Option<IgnoredAny>,
    schema: Option<IgnoredAny>,
    file_version: Option<IgnoredAny>,
    /// A line of Docker's own log files.
    log: Option<IgnoredAny>,
    /// A line of `journalctl -o json`.
    #[serde(rename = "MESSAGE")]
    message: Option<IgnoredAny>,
}

fn json(path: &Path, text: &str) -> Result<Vec<Run>, Wrong> {
    let text = &*cyclictest::with_json_for_nan(text);
    // Several documents may follow each other; the first shows what they are.
    let mut documents = serde_json::Deserializer::from_str(text).into_iter::<Peek>();
    let first = match documents.next() {
        Some(Ok(peek)) => peek,
        Some(Err(error)) => return Err(Wrong::json(&error, 1)),
        None => return Err(Wrong::whole("is empty")),
    };
    if first.guard_gate.is_some() {
        return history::parse(path, text);
    }
    let (document, rest) = text.split_at(documents.byte_offset());
    let more = json_in_log(rest).is_some();
    // What a log has behind the document is not looked at; where there is nothing, the file is the run as it stands.
    let text = if rest.trim().is_empty() { text } else { document };
    if first.schema.is_some() && first.window.is_some() {
        return guard_json::parse(path, text, more).map(|run| vec![run]);
    }
    if first.file_version.is_some() {
        return cyclictest::json(path, text, more).map(|run| vec![run]);
    }
    if first.log.is_some() || first.message.is_some() {
        return Err(Wrong::whole(
            "is a log whose lines are packed into JSON; take what the program wrote out of it: docker logs, kubectl logs, \
             journalctl -o cat",
        ));
    }
    Err(Wrong::whole(
        "is JSON, but neither a report of guard (\"schema\" and \"window\"), nor cyclictest's (\"file_version\"), nor a \
         history of guard gate (\"guard_gate\")",
    ))
}

/// JSON of a run, with other lines before it where a program wrote it to its log. It is known by its first key. Lines that
/// are left out stay as empty ones, so that a line's number is still that of the file.
fn json_in_log(text: &str) -> Option<String> {
    const KEYS: [&str; 2] = ["\"file_version\"", "\"schema\""];
    let mut lines = text.lines().enumerate().peekable();
    while let Some((n, line)) = lines.next() {
        let Some(at) = line.find('{') else { continue };
        let behind = line[at..].trim_start_matches('{').trim();
        let key = if behind.is_empty() { lines.peek().map_or("", |(_, next)| *next) } else { behind };
        let begins = |known: &str| if behind.is_empty() { key.contains(known) } else { key.starts_with(known) };
        if KEYS.into_iter().any(begins) {
            let text = log::unprefixed(Cow::Borrowed(text), n, at);
            let begin: usize = text.split_inclusive('\n').take(n).map(str::len).sum();
            let from = text[begin..].find('{').map_or(begin, |at| begin + at);
            return Some("\n".repeat(n) + &text[from..]);
        }
    }
    None
}

/// The run in a table, or in the lines that cyclictest writes without one; `None` when there is neither.
fn table(path: &Path, text: &str) -> Option<Result<Run, Wrong>> {
    for (title, below, parse) in [
        // Other output may be glued to this title; the line below shows what a log puts before each line.
        (rtla::TITLE, Some(rtla::UNIT), rtla::parse as fn(&Path, &str) -> Result<Run, Wrong>),
        (cyclictest_table::TITLE, None, cyclictest_table::parse),
    ] {
        let at = |line: &str| line.find(title).filter(|at| below.is_some() || line[*at..].trim_end() == title);
        let mut titles = text.lines().enumerate().filter_map(|(n, line)| Some((n, at(line)?)));
        let Some((line, at)) = titles.next() else { continue };
        let mut lines = text.lines().enumerate().skip(line);
        let (line, at) =
            below.and_then(|below| lines.find_map(|(n, line)| Some((n, line.find(below)?)))).unwrap_or((line, at));
        return Some(match titles.next() {
            None => parse(path, &log::unprefixed(Cow::Borrowed(text), line, at)),
            Some((second, _)) => {
                Err(Wrong::line(second + 1, "a second table begins; a file is one run: split it before this line"))
            }
        });
    }
    cyclictest_lines::parse(path, text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gate::LatencySignal;

    const REAL: [(&str, &str); 9] = [
        ("cyclictest JSON", include_str!("../testdata/cyclictest-2.40.json")),
        ("cyclictest JSON, overflows", include_str!("../testdata/cyclictest-2.40-h60.json")),
        ("cyclictest JSON, ns, no histogram", include_str!("../testdata/cyclictest-2.40-nsecs.json")),
        ("cyclictest -h", include_str!("../testdata/cyclictest-2.40-h60.txt")),
        ("cyclictest -H", include_str!("../testdata/cyclictest-2.40-H500.txt")),
        ("rtla timerlat", include_str!("../testdata/rtla-6.1-timerlat.txt")),
        ("rtla timerlat --nano", include_str!("../testdata/rtla-6.1-timerlat-nano.txt")),
        ("rtla osnoise", include_str!("../testdata/rtla-6.1-osnoise.txt")),
        ("guard", include_str!("../testdata/guard-report.json")),
    ];

    fn parsed(text: &str) -> Result<Vec<Run>, GateError> {
        parse(Path::new("a.file"), text.as_bytes())
    }

    #[test]
    fn a_thread_of_cyclictest_that_never_woke_is_no_thread() {
        // As it writes it for no cycles at all: an average of 0 / 0 is no JSON.
        let text = REAL[1].1;
        let idle = "\"9\": {\"histogram\": {}, \"cycles\": 0, \"min\": 1000000, \"max\": 0, \"avg\": -nan, \"cpu\": 1, \"node\": 0},";
        let with_idle = text.replacen("\"thread\": {", &format!("\"thread\": {{ {idle}"), 1);
        assert_ne!(text, with_idle);
        let (one, other) = (parsed(text).unwrap().remove(0), parsed(&with_idle).unwrap().remove(0));
        assert_eq!(one.figures("cyclictest", LatencySignal::Timer), other.figures("cyclictest", LatencySignal::Timer));
        assert!(parsed(&with_idle.replace("\"avg\": -nan", "\"max\": -nan")).is_err());
    }

    #[test]
    fn every_real_file_is_one_run_with_figures() {
        for (name, text) in REAL {
            let runs = parsed(text).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(runs.len(), 1, "{name}");
            assert!(!runs[0].series.is_empty(), "{name}");
            assert_eq!(parsed(text).unwrap(), runs, "{name}");
        }
    }

    #[test]
    fn a_file_that_is_cut_off_is_refused_and_named() {
        for (name, text) in REAL {
            // The last line of cyclictest's table only names cycles; what comes after its overflows may be missing.
            let end = text.find("# Histogram Overflows").unwrap_or(text.trim_end().len());
            for part in [1, 3, 7, 9] {
                let mut cut = end * part / 10;
                while !text.is_char_boundary(cut) {
                    cut -= 1;
                }
                let error = parsed(&text[..cut]).expect_err(name).to_string();
                assert!(error.starts_with("a.file"), "{name}: {error}");
            }
        }
    }

    #[test]
    fn foreign_files_are_refused_with_what_was_expected() {
        for (text, said) in [
            ("", "is empty"),
            ("  \n", "is empty"),
            ("{}", "neither a report of guard"),
            ("{\"a\": 1}", "neither a report of guard"),
            ("{\"schema\": 2, \"window\": {}}", "schema 2"),
            ("{\"schema\": \"x\", \"window\": {}}", "line 1, column 14: invalid type"),
            ("{\"file_version\": 7}", "version 7"),
            ("{\"guard_gate\": 9}", "version 9"),
            ("hello\n", "neither JSON"),
            ("{\"file_version\": 1, \"thread\": {", "cut off"),
            ("[1, 2]", "neither JSON"),
        ] {
            let error = parsed(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text:?}: {error}");
        }
        let binary = parse(Path::new("a.file"), b"\n\n\xff\xfe").unwrap_err().to_string();
        assert_eq!(binary, "a.file, line 3: this is not text, so no run");
    }

    fn text_of(name: &str) -> &'static str {
        REAL.into_iter().find(|(known, _)| *known == name).unwrap().1
    }

    fn series(text: &str) -> Vec<(String, crate::gate::SeriesFigures)> {
        let runs = parsed(text).unwrap_or_else(|error| panic!("{error}:\n{}", &text[..text.len().min(400)]));
        assert_eq!(runs.len(), 1);
        runs.into_iter().flat_map(|run| run.series).map(|(series, figures)| (series.to_string(), figures)).collect()
    }

    #[test]
    fn a_log_around_a_run_changes_nothing() {
        let before = "Max CPUs = 4\n# /dev/cpu_dma_latency set to 0us\n{\"level\": \"info\"}\n\n";
        let behind = "\nreal\t0m9.180s\n17 files copied\ncommand terminated with exit code 1\n";
        for (name, text) in REAL {
            let alone = series(text);
            let line = |prefix: &str| -> String { text.lines().map(|line| format!("{prefix}{line}\n")).collect() };
            for (around, log) in [
                ("lines behind", format!("{text}{behind}")),
                ("lines before and behind", format!("{before}{text}{behind}")),
                ("a byte order mark", format!("\u{feff}{text}")),
                ("CRLF", text.replace('\n', "\r\n")),
                ("a mark and CRLF", format!("\u{feff}{}", text.replace('\n', "\r\n"))),
                ("kubectl logs --timestamps", line("2026-11-02T08:15:00.018273645Z ")),
                ("journald", line("Nov 02 08:15:00 cell-4 bench[1234]: ")),
                ("lines of JSON before", format!("{{\"level\":\"info\"}}\n{text}")),
                ("a line of JSON behind", format!("{text}\n{{\"level\":\"info\"}}\n")),
                ("ts", format!("{before}{}", line("Nov 02 08:15:00 "))),
                ("colours", format!("{before}\u{1b}[0m{text}\u{1b}[2K{behind}")),
            ] {
                assert_eq!(series(&log), alone, "{name}, {around}");
            }
            let utf16: Vec<u8> = [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
            assert_eq!(parse(Path::new("x"), &utf16).unwrap()[0].series.len(), alone.len(), "{name}, UTF-16");
        }
    }

    #[test]
    fn a_title_with_other_output_glued_to_it_is_found_in_a_log() {
        let text = text_of("rtla osnoise");
        for prefix in ["2026-11-02T08:15:00.01Z ", "Nov  2 08:15:00 cell-4 rtla[77]: ", "rtla-1  | "] {
            let log: String = format!("1{text}").lines().map(|line| format!("{prefix}{line}\n")).collect();
            assert_eq!(series(&log), series(text), "{prefix}");
        }
    }

    #[test]
    fn a_run_is_the_same_run_with_a_byte_order_mark() {
        for (name, text) in REAL {
            let id = |text: &str| parsed(text).unwrap().remove(0).id;
            assert_eq!(id(text), id(&format!("\u{feff}{text}")), "{name}");
        }
    }

    #[test]
    fn several_runs_in_one_file_are_refused() {
        for (name, text) in REAL {
            let error = parsed(&format!("{text}\n{text}")).expect_err(name).to_string();
            assert!(
                ["a second table begins", "holds several"].iter().any(|said| error.contains(said)),
                "{name}: {error}"
            );
        }
        let second = text_of("cyclictest -h").lines().count() + 1;
        let error = parsed(&text_of("cyclictest -h").repeat(2)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("a.file, line {second}: a second table")), "{error}");
    }

    #[test]
    fn damage_in_a_log_is_named_by_the_line_of_the_file() {
        let json =
            format!("starting\n\n{}", text_of("cyclictest JSON, overflows").replacen("\"max\": ", "\"max\": x", 1));
        let line = json.lines().position(|line| line.contains("\"max\": x")).unwrap() + 1;
        let error = parsed(&json).unwrap_err().to_string();
        assert!(error.starts_with(&format!("a.file, line {line}, ")), "{error}");
        let table = format!("starting\n{}", text_of("cyclictest -h").replacen("000003 000000", "000003 00000x", 1));
        let line = table.lines().position(|line| line.contains("00000x")).unwrap() + 1;
        let error = parsed(&table).unwrap_err().to_string();
        assert!(error.starts_with(&format!("a.file, line {line}: ")), "{error}");
    }

    #[test]
    fn a_log_packed_into_json_is_named() {
        for text in [
            "{\"log\":\"# Histogram\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-02T08:15:00Z\"}\n",
            "{\"MESSAGE\":\"# Histogram\",\"_PID\":\"7\"}\n",
        ] {
            assert!(parsed(text).unwrap_err().to_string().contains("packed into JSON"), "{text}");
        }
    }

    #[test]
    fn endless_files_and_directories_without_files_are_named() {
        let endless = read(Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(endless.starts_with("/dev/zero: has more than 268435456 bytes"), "{endless}");
        let dir = tempfile::tempdir().unwrap();
        assert!(nothing_in(dir.path()).ends_with("there is no run in it"));
        for name in ["a", "b", ".git"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        assert_eq!(read(dir.path()).unwrap(), []);
        assert!(nothing_in(dir.path()).contains("2 directories"), "{}", nothing_in(dir.path()));
    }

    #[test]
    fn a_directory_is_all_its_files_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.json", "a.json", ".hidden"] {
            fs::write(dir.path().join(name), REAL[0].1).unwrap();
        }
        fs::create_dir(dir.path().join("sub")).unwrap();
        let sources: Vec<String> = read(dir.path()).unwrap().into_iter().map(|run| run.source).collect();
        assert!(sources.len() == 2 && sources[0].ends_with("a.json") && sources[1].ends_with("b.json"), "{sources:?}");
        let missing = read(&dir.path().join("none")).unwrap_err().to_string();
        assert!(missing.contains("none") && missing.contains("No such file"), "{missing}");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(Path::new("x"), &bytes);
        }

        #[test]
        fn real_files_with_wrong_bytes_never_panic(
            which in 0..REAL.len(), edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        ) {
            let mut bytes = REAL[which].1.as_bytes().to_vec();
            for (at, byte) in edits {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let _ = parse(Path::new("x"), &bytes);
        }

        #[test]
        fn real_files_with_absurd_numbers_never_panic(
            which in 0..REAL.len(), at in any::<prop::sample::Index>(), digits in "[0-9]{1,21}|-1|1e308|null",
        ) {
            let text = REAL[which].1;
            let starts: Vec<usize> = text
                .char_indices()
                .filter(|(i, c)| c.is_ascii_digit() && !text[..*i].ends_with(|c: char| c.is_ascii_digit()))
                .map(|(i, _)| i)
                .collect();
            let start = starts[at.index(starts.len())];
            let end = text[start..].find(|c: char| !c.is_ascii_digit()).map_or(text.len(), |n| start + n);
            let mutated = format!("{}{digits}{}", &text[..start], &text[end..]);
            let _ = parsed(&mutated);
        }
    }
}

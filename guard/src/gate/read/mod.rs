//! Runs from files of any tool. The content shows the format, never the name.

mod cyclictest;
mod guard_json;
mod rtla;

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::gate::error::{GateError, Wrong};
use crate::gate::history;
use crate::gate::run::Run;

/// Largest file that is read; a report of a node with thousands of cgroups has some MiB.
pub const MAX_BYTES: u64 = 256 << 20;

/// The runs in a file, or in all files of a directory, in the order of their names. Files whose name begins with a dot
/// are left out.
///
/// # Errors
/// A file cannot be read, or is not, or not entirely, in a format that the gate knows.
pub fn read(path: &Path) -> Result<Vec<Run>, GateError> {
    let failed = |op, path: &Path| {
        let path = path.to_owned();
        move |source| GateError::Io { op, path, source }
    };
    let mut runs = Vec::new();
    for path in files(path).map_err(failed("list", path))? {
        let length = fs::metadata(&path).map_err(failed("read", &path))?.len();
        if length > MAX_BYTES {
            return Err(Wrong::whole(format!("{length} bytes; a run has {MAX_BYTES} at most")).of(&path));
        }
        let bytes = fs::read(&path).map_err(failed("read", &path))?;
        runs.extend(parse(&path, &bytes)?);
    }
    Ok(runs)
}

fn files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !hidden && fs::metadata(entry.path())?.is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// The runs in the content of a file: one, or all those of a history. `path` is only named.
///
/// # Errors
/// See [`read`].
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<Run>, GateError> {
    let text = match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let line = bytes[..error.valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
            return Err(Wrong::line(line, "this is not text, so no run").of(path));
        }
    };
    let found = match text.trim_start().chars().next() {
        None => Err(Wrong::whole("is empty")),
        Some('{') => json(path, text),
        Some(_) => table(path, text).map(|run| vec![run]),
    };
    found.map_err(|wrong| wrong.of(path))
}

/// Keys by which one JSON is known from another.
#[derive(Deserialize)]
struct Peek {
    guard_gate: Option<IgnoredAny>,
    window: Option<IgnoredAny>,
    schema: Option<IgnoredAny>,
    file_version: Option<IgnoredAny>,
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
    let rest = &text[documents.byte_offset()..];
    if first.schema.is_some() && first.window.is_some() {
        return guard_json::parse(path, text, !rest.trim().is_empty()).map(|run| vec![run]);
    }
    if first.file_version.is_some() {
        return cyclictest::json(path, text).map(|run| vec![run]);
    }
    Err(Wrong::whole(
        "is JSON, but neither a report of guard (\"schema\" and \"window\"), nor cyclictest's (\"file_version\"), nor a \
         history of guard gate (\"guard_gate\")",
    ))
}

fn table(path: &Path, text: &str) -> Result<Run, Wrong> {
    if text.lines().any(|line| line.starts_with("# RTLA ")) {
        return rtla::parse(path, text);
    }
    if text.lines().any(|line| line.trim_end() == "# Histogram") {
        return cyclictest::histogram(path, text);
    }
    Err(Wrong::line(
        1,
        "neither JSON, nor a histogram of cyclictest (a line \"# Histogram\"; record with -h US), nor one of rtla (a \
         line \"# RTLA …\")",
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
        let figures =
            |run: &Run| run.series.iter().find(|(s, _)| s.workload == "cyclictest").unwrap().1.figures.clone();
        assert_eq!(figures(&one), figures(&other));
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

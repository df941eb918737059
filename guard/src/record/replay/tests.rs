use std::time::SystemTime;

use proptest::prelude::*;

use super::*;
use crate::record::ring::{RecordLimits, Ring};
use crate::view::{json, samples};

fn sample(n: u32) -> Snapshot {
    let mut snapshot = samples::full();
    snapshot.node.hostname = format!("node-{n}");
    snapshot
}

/// A recording of `count` Snapshots in one segment, and that segment's path.
fn recording(count: u32) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let mut ring = Ring::open(dir.path(), RecordLimits::default()).unwrap();
    for n in 0..count {
        ring.append(json::line(&sample(n)).unwrap().as_bytes(), SystemTime::now()).unwrap();
    }
    let path = ring::list(dir.path()).unwrap()[0].1.clone();
    (dir, path)
}

fn file(bytes: impl AsRef<[u8]>) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    file
}

fn names(replay: Replay) -> Vec<String> {
    replay.filter_map(Result::ok).map(|s| s.node.hostname).collect()
}

fn refusal(bytes: impl AsRef<[u8]>) -> String {
    Replay::open(file(bytes).path()).unwrap_err().to_string()
}

#[test]
fn what_a_file_is_is_seen_from_its_content() {
    let (dir, segment) = recording(2);
    let one = json::line(&sample(0)).unwrap();
    let lines = one.clone() + "\n\n" + &json::line(&sample(1)).unwrap() + "\n";
    assert_eq!(names(Replay::open(dir.path()).unwrap()), ["node-0", "node-1"]);
    assert_eq!(names(Replay::open(&segment).unwrap()), ["node-0", "node-1"]);
    assert_eq!(names(Replay::open(file(&lines).path()).unwrap()), ["node-0", "node-1"]);
    assert_eq!(names(Replay::open(file(&one).path()).unwrap()), ["node-0"]);
    assert_eq!(names(Replay::open(file(json::pretty(&sample(0)).unwrap()).path()).unwrap()), ["node-0"]);
}

#[test]
fn a_byte_order_mark_is_passed_over() {
    let one = json::line(&sample(0)).unwrap();
    let lines = one.clone() + "\r\n" + &json::line(&sample(1)).unwrap() + "\r\n";
    for (text, expected) in
        [(one, vec!["node-0"]), (lines, vec!["node-0", "node-1"]), (json::pretty(&sample(0)).unwrap(), vec!["node-0"])]
    {
        let replay = Replay::open(file(format!("\u{feff}{text}")).path()).unwrap();
        assert_eq!(names(replay), expected);
    }
    assert!(refusal("\u{feff}hello").contains("neither a recording nor JSON of guard"));
}

#[test]
fn what_is_not_guards_is_refused_with_the_reason() {
    for (bytes, why) in [
        ("", "it is empty"),
        ("hello", "neither a recording nor JSON of guard"),
        ("{\"a\": 1}", "JSON, but no Snapshot of guard"),
        ("[1, 2]", "JSON, but no Snapshot of guard"),
        ("{\n\"a\": 1\n}", "JSON, but no Snapshot of guard"),
        ("{\"schema\": 99}", "Snapshots of schema 99; this guard reads schema 1"),
        ("{\"schema\": 1}", "no Snapshot of guard (missing field"),
        ("GUARDREC", "it ends within its header"),
        ("GUARDREC\x09\0\0\0\x01\0\0\0", "recording of version 9"),
        ("GUARDREC\x01\0\0\0\x07\0\0\0", "Snapshots of schema 7"),
        ("GUARDREC\x01\0\0\0\x01\0\0\0", "there is no Snapshot in it"),
    ] {
        assert!(refusal(bytes).contains(why), "{bytes:?}: {}", refusal(bytes));
    }
    let whole = json::pretty(&sample(0)).unwrap();
    assert!(refusal(&whole[..whole.len() / 2]).contains("ends early"));
    assert!(Replay::open(Path::new("/no/such/file")).unwrap_err().to_string().contains("/no/such/file"));
    let empty = tempfile::tempdir().unwrap();
    assert!(Replay::open(empty.path()).unwrap_err().to_string().contains("no Snapshot in it"));
}

#[test]
fn a_line_that_a_crash_cut_costs_only_itself() {
    let line = |n| json::line(&sample(n)).unwrap();
    let cut = &line(9)[..300];
    for (text, good) in [
        (format!("{}\n{cut}", line(0)), vec!["node-0"]),
        (format!("{}\n{cut}\n{}\n", line(0), line(1)), vec!["node-0", "node-1"]),
        (format!("{cut}\n{}\n", line(1)), vec!["node-1"]),
    ] {
        let file = file(text);
        let all: Vec<_> = Replay::open(file.path()).unwrap().collect();
        assert_eq!(all.iter().filter(|r| r.is_err()).count(), 1, "{good:?}");
        assert_eq!(names(Replay::open(file.path()).unwrap()), good);
    }
}

#[test]
fn a_segment_of_another_schema_is_stepped_over() {
    let (dir, segment) = recording(1);
    let mut bytes = fs::read(&segment).unwrap();
    bytes[12] = 2;
    fs::write(&segment, bytes).unwrap();
    Ring::open(dir.path(), RecordLimits::default())
        .unwrap()
        .append(json::line(&sample(5)).unwrap().as_bytes(), SystemTime::now())
        .unwrap();
    let all: Vec<_> = Replay::open(dir.path()).unwrap().collect();
    assert!(all[0].as_ref().unwrap_err().what.contains("schema 2"));
    assert_eq!(all[1].as_ref().unwrap().node.hostname, "node-5");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_cut_recording_is_read_up_to_its_last_whole_snapshot(at in any::<prop::sample::Index>()) {
        let (dir, segment) = recording(4);
        let bytes = fs::read(&segment).unwrap();
        let cut = at.index(bytes.len());
        fs::write(&segment, &bytes[..cut]).unwrap();
        match Replay::open(dir.path()) {
            Ok(replay) => {
                let names = names(replay);
                let expected: Vec<String> = (0..names.len()).map(|n| format!("node-{n}")).collect();
                prop_assert_eq!(names, expected);
            }
            Err(error) => prop_assert!(cut < bytes.len() / 3, "{}", error),
        }
    }

    #[test]
    fn flipped_bytes_never_panic_and_never_pass(flips in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..6)) {
        let (dir, segment) = recording(4);
        let mut bytes = fs::read(&segment).unwrap();
        for (at, with) in &flips {
            let at = at.index(bytes.len());
            bytes[at] ^= with;
        }
        fs::write(&segment, &bytes).unwrap();
        if let Ok(replay) = Replay::open(dir.path()) {
            for snapshot in replay.filter_map(Result::ok) {
                let n: u32 = snapshot.node.hostname.trim_start_matches("node-").parse().unwrap();
                prop_assert_eq!(snapshot, sample(n));
            }
        }
    }

    #[test]
    fn flipped_json_never_panics(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = json::line(&sample(0)).unwrap().into_bytes();
        for (at, with) in &flips {
            let at = at.index(bytes.len());
            bytes[at] = *with;
        }
        if let Ok(snapshot) = snapshot(&bytes) {
            // Whatever came through must be fit to be shown.
            let _ = crate::view::text::render(&snapshot, 80);
            let mut sum = snapshot.clone();
            sum.absorb(&snapshot);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), magic in any::<bool>()) {
        let bytes = if magic { [b"GUARDREC\x01\0\0\0\x01\0\0\0".as_slice(), &bytes].concat() } else { bytes };
        if let Ok(replay) = Replay::open(file(bytes).path()) {
            let _ = names(replay);
        }
    }
}

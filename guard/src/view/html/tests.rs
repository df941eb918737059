//! What the page says, and that nothing gets into it unescaped. How it looks is looked at by the host check in a browser.

use proptest::prelude::*;

use super::*;
use crate::view::samples;

fn page(snapshots: impl IntoIterator<Item = Snapshot>) -> String {
    HtmlReport::of(snapshots.into_iter()).render()
}

#[test]
fn the_verdict_comes_first_and_says_what_was_not_seen() {
    let page = page([samples::full()]);
    let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text} is missing:\n{page}"));
    assert!(at("Harm was done: plc-1 [podman] is held back by the quota of /machine") < at("<svg"));
    assert!(at("Not seen on this node, and so not judged: user.") < at("<svg"));
    for heading in ["Timer latencies", "Stages", "Causes", "Threads", "Cgroups", "CPUs", "The node"] {
        at(&format!("<h2>{heading}</h2>"));
    }
    at("isolcpus=1");
}

#[test]
fn one_interval_has_no_timeline_and_two_have_one() {
    let first = samples::full();
    assert!(!page([first.clone()]).contains("<h2>Timeline</h2>"));
    let mut second = first.clone();
    second.window.start = "2026-11-22T00:11:10Z".into();
    let page = page([first, second]);
    assert!(page.contains("<h2>Timeline</h2>") && page.contains("2 intervals over 20 s"), "{page}");
    assert!(page.contains(">00:11:20</text>"), "the end of the axis: {page}");
}

#[test]
fn nothing_seen_is_no_praise() {
    let empty = page([samples::empty()]);
    assert!(empty.contains("this kernel is not PREEMPT_RT"), "{empty}");
    assert!(empty.contains("No timer of a watched thread was seen."));
    assert!(empty.contains("Late wake-ups are not seen on this node."));
    assert!(page([]).contains("There is nothing to report"));
}

#[test]
fn it_needs_nothing_from_elsewhere_and_runs_nothing() {
    let page = page([samples::full()]);
    for foreign in ["<script", "http:", "https:", "url(", "@import", "<link", "<img", "javascript"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
}

#[test]
fn names_cannot_become_markup() {
    let mut snapshot = samples::full();
    let evil = "<script>alert(1)</script>\"'&\u{1b}[2J";
    snapshot.node.hostname = evil.into();
    snapshot.node.cmdline = evil.into();
    for thread in &mut snapshot.threads {
        thread.comm = evil.into();
    }
    for cgroup in &mut snapshot.cgroups {
        (cgroup.path, cgroup.container) = (evil.into(), None);
    }
    for breach in &mut snapshot.breaches {
        (breach.sentence, breach.cause) = (evil.into(), evil.into());
    }
    for action in &mut snapshot.actions {
        (action.path, action.reason) = (evil.into(), evil.into());
    }
    let page = page([snapshot]);
    assert!(!page.contains("<script") && !page.contains('\u{1b}'), "{page}");
    assert!(page.contains("&lt;script&gt;"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_snapshot_is_a_whole_page(snapshots in prop::collection::vec(samples::any_snapshot(), 0..3)) {
        let page = page(snapshots);
        prop_assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
        prop_assert!(!page.contains("NaN") && !page.contains("inf\""), "a coordinate is no number");
        for (open, close) in [("<section", "</section>"), ("<svg", "</svg>"), ("<table", "</table>"), ("<div", "</div>")] {
            prop_assert_eq!(page.matches(open).count(), page.matches(close).count());
        }
    }
}

//! Keys and columns in short; docs/top.md has the long form.

use super::page::Page;
use super::state::App;

const KEYS: [(&str, &str); 18] = [
    ("1 o", "overview"),
    ("2 w Enter", "the workload under the cursor"),
    ("3 c", "causes of late wake-ups"),
    ("4 a", "what guard changed, and what became of it"),
    ("5 n", "CPUs, signals, what guard costs"),
    ("6 d", "what doctor says of this node; there r looks again"),
    ("? h", "this page"),
    ("Tab", "the next view; with Shift the one before"),
    ("Esc", "back to the overview; there: no filter"),
    ("Up Down j k", "cursor, or scroll; also PgUp PgDn Home End"),
    ("s r", "sort by the next column; reverse"),
    ("/", "show only workloads with this in name, path or class"),
    ("space", "hold time, go on"),
    ("Left Right , .", "one interval back, forward"),
    ("f", "hold time by itself at the next late wake-up"),
    ("t", "from which latency on a wake-up is late"),
    ("p", "write the interval to a JSON file"),
    ("+ -  q", "speed of a replay; quit"),
];

const WORDS: [(&str, &str); 7] = [
    ("!! !", "harm was done; worth a look"),
    ("timer", "timer expiry to the thread's own code; timer*: to its CPU"),
    ("RT wait", "ready to run until running, real-time threads; wait: others"),
    ("budget", "used part of the latency it may have"),
    ("throttles", "by its own quota; above: a quota above it"),
    ("late", "wake-ups later than the limit"),
    ("since start", "since this dashboard began to look"),
];

pub(super) fn page(app: &App) -> Page {
    let mut page = Page::default();
    for (title, entries) in [("KEYS", KEYS.as_slice()), ("WORDS", WORDS.as_slice())] {
        page.section(title, "", app.options.theme);
        for (what, text) in entries {
            page.text(&format!("  {what:<15}{text}"));
        }
    }
    page
}

//! The report as one HTML file that needs nothing else: no script, no font, no picture from elsewhere, so that it opens
//! offline, prints, and can be attached to a ticket. The verdict comes first, then plots, causes and the node.

mod chart;
mod histogram;
mod page;
mod stages;
mod tables;
mod timeline;

use super::figures::{self, printable};
use super::text;
use super::top::{Level, risk};
use crate::explain;
use crate::snapshot::{CgroupLayout, SignalName, SignalState, Snapshot};
use page::{escaped, section, tag};
pub use timeline::Moment;
use timeline::{late, total};

const STYLE: &str = include_str!("style.css");
/// Late wake-ups listed one by one.
const LATE: usize = 10;

/// Snapshots on their way to a page: their sum, and of each what the timeline shows.
#[derive(Default)]
pub struct HtmlReport {
    sum: Option<Snapshot>,
    moments: Vec<Moment>,
}

impl HtmlReport {
    /// All of them.
    pub fn of(snapshots: impl Iterator<Item = Snapshot>) -> Self {
        let mut moments = Vec::new();
        let sum = Snapshot::sum(snapshots.inspect(|snapshot| moments.push(Moment::of(snapshot))));
        Self { sum, moments }
    }

    /// The page; of nothing, one that says so.
    #[must_use]
    pub fn render(&self) -> String {
        let Some(snapshot) = &self.sum else {
            return document("guard report", "<h1>There is nothing to report: no interval was recorded.</h1>\n");
        };
        let title = format!("{}, {}", snapshot.node.hostname, snapshot.window.start);
        let mut body = header(snapshot, self.moments.len());
        body += &verdict(snapshot);
        body += &tiles(snapshot);
        body += &histogram::timers(snapshot);
        body += &stages::section(snapshot);
        body += &timeline::section(&self.moments);
        body += &causes(snapshot);
        body += &tables::threads(snapshot);
        body += &tables::cgroups(snapshot);
        body += &histogram::waits(snapshot);
        body += &tables::cpus(snapshot);
        body += &tables::actions(snapshot);
        body += &node(snapshot);
        body += &footer(snapshot);
        document(&title, &body)
    }
}

fn document(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{body}\
         </body>\n</html>\n",
        escaped(title)
    )
}

fn header(snapshot: &Snapshot, intervals: usize) -> String {
    let node = &snapshot.node;
    let realtime = if node.realtime { "PREEMPT_RT" } else { "not PREEMPT_RT" };
    let label = node.label.as_ref().map_or_else(String::new, |label| format!(", load: {}", printable(label)));
    let intervals = if intervals > 1 { format!(" in {intervals} intervals") } else { String::new() };
    let about = format!(
        "kernel {} {}, {realtime}, CPUs {}; measured from {} for {:.1} s{intervals}{label}",
        printable(&node.kernel),
        printable(&node.arch),
        printable(&node.cpus),
        printable(&snapshot.window.start),
        snapshot.window.seconds
    );
    let name = if node.hostname.is_empty() { "this node" } else { &node.hostname };
    tag("h1", "", &escaped(&format!("How long {name} kept real-time work waiting")))
        + &tag("p", "faint", &escaped(&about))
}

/// The worst that was seen, and what could not be seen: without the second the first may be half of the truth.
fn verdict(snapshot: &Snapshot) -> String {
    let (level, sentence) = risk::risk(snapshot, 0);
    let (class, word) = match level {
        Level::Bad => ("verdict bad", "Harm was done"),
        Level::Warn => ("verdict warn", "No harm was seen"),
        Level::Fine => ("verdict fine", "No harm was seen"),
    };
    let mut body = tag(
        "strong",
        "",
        &escaped(&if level == Level::Fine { word.to_owned() } else { format!("{word}: {sentence}") }),
    );
    let late = late(snapshot);
    let worst = snapshot.breaches.iter().map(|breach| breach.latency_ns).max();
    if let Some(worst) = worst {
        let text = format!("{}, the worst by {}.", times(late, "late wake-up"), figures::time(worst));
        body += &tag("p", "", &escaped(&text));
    }
    let unseen = states(snapshot, &[SignalState::Unavailable, SignalState::Off]);
    if !unseen.is_empty() {
        body += &tag("p", "", &escaped(&format!("Not seen on this node, and so not judged: {unseen}.")));
    }
    let partly = states(snapshot, &[SignalState::Degraded]);
    if !partly.is_empty() {
        body += &tag("p", "", &escaped(&format!("Seen in part: {partly}.")));
    }
    tag("div", class, &body)
}

fn times(n: u64, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// Names of the signals in one of these states.
fn states(snapshot: &Snapshot, states: &[SignalState]) -> String {
    let names =
        snapshot.signals.iter().filter(|signal| states.contains(&signal.state)).map(|signal| signal.name.as_str());
    printable(&names.collect::<Vec<_>>().join(", ")).into_owned()
}

/// The figures that people ask for first.
fn tiles(snapshot: &Snapshot) -> String {
    let worst_timer =
        snapshot.threads.iter().filter_map(|t| Some((t, t.timer.last_stage()?.1))).max_by_key(|(_, l)| l.max_ns());
    let mut tiles = vec![match worst_timer {
        Some((thread, latency)) => {
            (figures::max(latency), format!("worst timer latency, {} {}", thread.comm, thread.tid))
        }
        None => (figures::ABSENT.to_owned(), "worst timer latency: no timer of a watched thread was seen".to_owned()),
    }];
    let p99 = snapshot.threads.iter().filter_map(|t| Some(t.timer.last_stage()?.1.quantile_ns(0.99))).max();
    tiles.push((figures::time_if(p99.is_some(), p99.unwrap_or(0)), "largest p99 of a thread's timers".to_owned()));
    let late = late(snapshot);
    tiles.push((figures::count_if(snapshot.sees(SignalName::Breach), late), "late wake-ups".to_owned()));
    let missed = total(snapshot.threads.iter().map(|t| t.timer.missed));
    let cyclic = snapshot.threads.iter().any(|t| t.period_ns.is_some());
    tiles.push((figures::count_if(cyclic, missed), "missed cycles".to_owned()));
    let throttles = total(snapshot.cgroups.iter().map(|c| c.throttle.count));
    let quotas = snapshot.cgroups.iter().any(|c| c.throttle.source.is_some());
    tiles.push((figures::count_if(quotas, throttles), "throttles by CPU quotas".to_owned()));
    let items: String =
        tiles.iter().map(|(figure, what)| tag("li", "", &(tag("b", "", &escaped(figure)) + &escaped(what)))).collect();
    tag("ul", "tiles", &items)
}

fn causes(snapshot: &Snapshot) -> String {
    if !snapshot.sees(SignalName::Breach) {
        return section("Causes", "Late wake-ups are not seen on this node.", "");
    }
    let findings = explain::findings([snapshot]);
    if findings.is_empty() {
        return section("Causes", "No wake-up was recorded as late.", "");
    }
    let mut body = tables::findings(&findings);
    let mut worst: Vec<_> = snapshot.breaches.iter().collect();
    worst.sort_by_key(|breach| std::cmp::Reverse(breach.latency_ns));
    let items: String = worst
        .iter()
        .take(LATE)
        .map(|breach| {
            let at = text::time_of_day(&breach.at);
            tag("li", "", &escaped(&format!("{at}  {}  {}", figures::time(breach.latency_ns), breach.sentence)))
        })
        .collect();
    body += &tag("p", "faint", &escaped(&format!("The worst {} one by one (UTC):", worst.len().min(LATE))));
    body += &tag("ul", "late", &items);
    section("Causes", "of late wake-ups, merged by thread, cause and culprit; worst first", &body)
}

fn node(snapshot: &Snapshot) -> String {
    let node = &snapshot.node;
    let layout = match node.cgroup {
        CgroupLayout::V1 => "v1",
        CgroupLayout::V2 => "v2",
        CgroupLayout::Hybrid => "v1 for cpu, v2 beside it",
        CgroupLayout::None => "no cpu controller",
    };
    let isolated: Vec<String> = snapshot.cpus.iter().filter(|c| c.isolated).map(|c| c.cpu.to_string()).collect();
    let absent = || figures::ABSENT.to_owned();
    let rows = [
        ("host", node.hostname.clone()),
        ("kernel", format!("{} {}", node.kernel, node.arch)),
        ("PREEMPT_RT", if node.realtime { "yes" } else { "no" }.to_owned()),
        ("CPUs online", node.cpus.clone()),
        ("isolated or tickless CPUs", if isolated.is_empty() { "none".to_owned() } else { isolated.join(", ") }),
        ("CPU model", node.cpu_model.clone().unwrap_or_else(absent)),
        ("frequency governor", node.governor.clone().unwrap_or_else(absent)),
        ("cgroups", layout.to_owned()),
        ("kernel command line", node.cmdline.clone()),
        ("other agents", node.hands_off.clone().unwrap_or_else(|| "none that guard knows".to_owned())),
    ];
    section("The node", "", &(tables::pairs(&rows) + &tables::signals(snapshot)))
}

fn footer(snapshot: &Snapshot) -> String {
    let mut cost = String::new();
    text::cost(snapshot, &mut cost);
    let lost = text::lost(&snapshot.overhead.lost);
    let lost = if lost.is_empty() { "guard lost nothing".to_owned() } else { format!("lost: {lost}") };
    let body = tag("p", "", &escaped(cost.trim_end())) + &tag("p", "", &escaped(&lost));
    tag(
        "footer",
        "",
        &(body
            + &tag(
                "p",
                "",
                &escaped(&format!(
                    "guard {}. A dash was not seen; it is not a zero. What each figure means: docs/report.md.",
                    env!("CARGO_PKG_VERSION")
                )),
            )),
    )
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

//! Why wake-ups were late: by cause over all intervals that are remembered, and the late wake-ups of the one that is shown.

use std::collections::BTreeMap;

use super::super::figures;
use super::super::text::time_of_day;
use super::grid::{Align, Column, Grid, column, plain};
use super::page::Page;
use super::state::App;
use crate::snapshot::{Breach, SignalName, Snapshot};
use ratatui::style::Style;

const COLUMNS: [Column; 5] = [
    column("  cause", Align::Left, 0),
    column("late", Align::Right, 0),
    column("worst", Align::Right, 0),
    column("whose", Align::Left, 2),
    column("by", Align::Name, 0),
];

/// Late wake-ups listed of one interval.
const LISTED: usize = 50;

/// Late wake-ups with one cause.
struct CauseRow<'a> {
    count: u64,
    worst: &'a Breach,
}

pub(super) fn page(app: &App, snapshot: &Snapshot, width: usize) -> Page {
    let mut page = Page::default();
    let theme = app.options.theme;
    if !snapshot.sees(SignalName::Breach) {
        page.text("Late wake-ups are not seen on this node; the node view says why.");
        return page;
    }
    let until = app.shown_number().unwrap_or(0);
    let intervals = app.history.last(until, usize::MAX).count();
    page.section("CAUSES", &format!("of late wake-ups in the last {intervals} intervals"), theme);
    let mut causes: BTreeMap<&str, CauseRow<'_>> = BTreeMap::new();
    for breach in app.history.last(until, usize::MAX).flat_map(|s| &s.breaches) {
        let cause = causes.entry(breach.cause.as_str()).or_insert(CauseRow { count: 0, worst: breach });
        cause.count += 1;
        if breach.latency_ns > cause.worst.latency_ns {
            cause.worst = breach;
        }
    }
    if causes.is_empty() {
        page.text(&format!("  None was later than {}.", figures::time(app.options.limit_ns)));
        return page;
    }
    let mut causes: Vec<_> = causes.into_iter().collect();
    causes.sort_by_key(|(_, cause)| std::cmp::Reverse(cause.worst.latency_ns));
    let mut grid = Grid::new(&COLUMNS);
    for (name, cause) in causes {
        grid.push(plain([
            format!("  {name}"),
            cause.count.to_string(),
            figures::time(cause.worst.latency_ns),
            cause.worst.comm.clone(),
            cause.worst.culprit.as_ref().map_or(figures::ABSENT.to_owned(), |c| format!("{} {}", c.comm, c.tid)),
        ]));
    }
    let (head, rows) = grid.lines(width, theme.faint());
    page.body.push(head);
    page.body.extend(rows);
    listed(&mut page, app, snapshot, width);
    page
}

fn listed(page: &mut Page, app: &App, snapshot: &Snapshot, width: usize) {
    let theme = app.options.theme;
    let mut worst: Vec<&Breach> = snapshot.breaches.iter().collect();
    worst.sort_by_key(|b| std::cmp::Reverse(b.latency_ns));
    page.section("LATE WAKE-UPS", &format!("{} in this interval, worst first", worst.len()), theme);
    for breach in worst.iter().take(LISTED) {
        let time: String = time_of_day(&breach.at).chars().take(12).collect();
        let text = format!("{time} {} {}", figures::time(breach.latency_ns), breach.sentence);
        page.wrapped(&text, 2, width, Style::new());
        let shares: Vec<String> =
            breach.shares.iter().map(|(cause, ns)| format!("{cause} {}", figures::time(*ns))).collect();
        page.wrapped(&shares.join(", "), 6, width, theme.faint());
    }
    if worst.len() > LISTED {
        page.text(&format!("  and {} more", worst.len() - LISTED));
    }
}

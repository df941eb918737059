//! All workloads, the worst first.

use std::cmp::Reverse;
use std::collections::HashMap;

use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::super::figures::{self, ABSENT, printable};
use super::super::text::time_of_day;
use super::grid::{Align, Column, Grid, column, trend};
use super::history::{Measure, budget_use, measured, name};
use super::page::Page;
use super::state::{App, Sort};
use super::theme::Level;
use crate::snapshot::{Cgroup, SignalName, Snapshot};

/// Columns of the trend on a wide screen.
const TREND: usize = 24;
/// Columns of the trend on a narrower one.
const TREND_NARROW: usize = 12;
/// From how many columns on a screen is wide.
const WIDE: usize = 140;
/// Part of a budget from which on it is worth a look.
const BUDGET_WARN: f64 = 0.8;

/// A workload of the Snapshot that is shown.
struct WorkloadRow<'a> {
    cgroup: &'a Cgroup,
    name: String,
    late: u64,
    used: Option<f64>,
    level: Level,
}

fn rows<'a>(app: &App, snapshot: &'a Snapshot) -> Vec<WorkloadRow<'a>> {
    let mut late: HashMap<&str, u64> = HashMap::new();
    for thread in &snapshot.threads {
        let sum = late.entry(thread.cgroup.as_str()).or_default();
        *sum = sum.saturating_add(thread.breaches);
    }
    let wanted = app.filter.to_lowercase();
    let matches = |row: &WorkloadRow<'_>| {
        let class = super::super::text::class(row.cgroup);
        [&row.name, &row.cgroup.path, class].iter().any(|text| text.to_lowercase().contains(&wanted))
    };
    let row = |cgroup: &'a Cgroup| {
        let (late, used) = (late.get(cgroup.path.as_str()).copied().unwrap_or(0), budget_use(cgroup));
        WorkloadRow { cgroup, name: name(cgroup), late, used, level: level(app, cgroup, late, used) }
    };
    let mut rows: Vec<WorkloadRow<'_>> = snapshot.cgroups.iter().map(row).filter(matches).collect();
    let figure =
        |row: &WorkloadRow<'_>, quantile: f64| measured(row.cgroup).map_or(0, |(_, l)| l.quantile_ns(quantile));
    match app.sort {
        Sort::Worst => rows.sort_by_key(|row| Reverse(row.level)),
        Sort::P99 => rows.sort_by_cached_key(|row| Reverse(figure(row, 0.99))),
        Sort::Max => rows.sort_by_cached_key(|row| Reverse(figure(row, 1.0))),
        Sort::Throttles => rows.sort_by_key(|row| Reverse(row.cgroup.throttle.count)),
        Sort::Budget => rows.sort_by(|a, b| b.used.unwrap_or(-1.0).total_cmp(&a.used.unwrap_or(-1.0))),
        Sort::Name => rows.sort_by(|a, b| a.name.cmp(&b.name)),
    }
    if app.reversed {
        rows.reverse();
    }
    rows
}

fn level(app: &App, cgroup: &Cgroup, late: u64, used: Option<f64>) -> Level {
    let over = measured(cgroup).is_some_and(|(m, l)| m.is_real_time() && l.max_ns() >= app.options.limit_ns);
    if late > 0 || over || used.is_some_and(|used| used > 1.0) {
        Level::Bad
    } else if cgroup.throttle.by.is_some() || used.is_some_and(|used| used > BUDGET_WARN) {
        Level::Warn
    } else {
        Level::Fine
    }
}

/// Ids of the workloads in the order in which they are shown.
pub(super) fn ids(app: &App) -> Vec<u64> {
    app.shown().map(|snapshot| rows(app, snapshot).iter().map(|row| row.cgroup.id).collect()).unwrap_or_default()
}

/// Where the cursor is among `ids`: on the selected workload, or on the first where that is not shown.
pub(super) fn cursor(app: &App, ids: &[u64]) -> Option<usize> {
    let selected = app.selected.and_then(|id| ids.iter().position(|other| *other == id));
    selected.or((!ids.is_empty()).then_some(0))
}

/// The workload that is selected, else the first.
pub(super) fn selected<'a>(app: &App, snapshot: &'a Snapshot) -> Option<&'a Cgroup> {
    let by_id = |id: u64| snapshot.cgroups.iter().find(|c| c.id == id);
    match app.selected {
        Some(id) => by_id(id),
        None => rows(app, snapshot).first().map(|row| row.cgroup),
    }
}

const COLUMNS: [Column; 14] = [
    column("", Align::Left, 0),
    column("workload", Align::Name, 0),
    column("class", Align::Left, 3),
    column("what", Align::Left, 4),
    column("budget", Align::Right, 5),
    column("p50", Align::Right, 7),
    column("p99", Align::Right, 0),
    column("max", Align::Right, 0),
    column("| p50", Align::Right, 12),
    column("p99", Align::Right, 10),
    column("max since start", Align::Right, 9),
    column("throttles", Align::Right, 2),
    column("late", Align::Right, 1),
    column("worst latency", Align::Left, 8),
];
/// Place of the budget among the columns.
const BUDGET: usize = 4;
/// The first thing to be left out.
const FIRST_OUT: u8 = 13;

pub(super) fn page(app: &App, snapshot: &Snapshot, width: usize) -> Page {
    let theme = app.options.theme;
    let rows = rows(app, snapshot);
    if rows.is_empty() {
        let text = if app.filter.is_empty() {
            "No workload did anything in this interval."
        } else {
            "No workload matches the filter."
        };
        return Page { body: vec![Line::default(), Line::raw(format!("   {text}"))], ..Page::default() };
    }
    let ids: Vec<u64> = rows.iter().map(|row| row.cgroup.id).collect();
    let cursor = cursor(app, &ids);
    let mut columns = COLUMNS;
    if rows.iter().all(|row| row.used.is_none()) {
        columns[BUDGET].spare = FIRST_OUT;
    }
    let mut grid = Grid::new(&columns);
    for (index, row) in rows.iter().enumerate() {
        let selected = if Some(index) == cursor { theme.selected() } else { Style::new() };
        let marked = theme.level(row.level).patch(selected);
        let cells = cells(app, snapshot, row, if width < WIDE { TREND_NARROW } else { TREND });
        let trend_at = cells.len() - 1;
        grid.push(
            cells
                .into_iter()
                .enumerate()
                .map(|(i, text)| match i {
                    0 | 1 | 6 | 7 => (text, marked),
                    _ if i == trend_at => (text, theme.bar()),
                    _ => (text, selected),
                })
                .collect(),
        );
    }
    let (head, body) = grid.lines(width, theme.head());
    let order = if app.sort == Sort::Worst && !app.reversed {
        None
    } else {
        let turned = if app.reversed { ", reversed" } else { "" };
        Some(Line::styled(format!("{} workloads {}{turned}", body.len(), app.sort.name()), theme.faint()))
    };
    Page { head: order.into_iter().chain([head]).collect(), body, cursor }
}

fn cells(app: &App, snapshot: &Snapshot, row: &WorkloadRow<'_>, trend_length: usize) -> Vec<String> {
    let cgroup = row.cgroup;
    let (what, now, since) = match measured(cgroup) {
        None => (ABSENT, [ABSENT; 3].map(str::to_owned), [ABSENT; 3].map(str::to_owned)),
        Some((metric, latency)) => (metric.name(), three(latency), since_start(app, cgroup.id, metric)),
    };
    let [p50, p99, max] = now;
    let [all_p50, all_p99, all_max] = since;
    let trend = match (app.history.track(cgroup.id), app.shown_number()) {
        (Some(track), Some(number)) => trend(track.trend(number, trend_length).into_iter()),
        _ => String::new(),
    };
    vec![
        row.level.sign().to_owned(),
        row.name.clone(),
        super::super::text::class(cgroup).to_owned(),
        what.to_owned(),
        row.used.map_or(ABSENT.to_owned(), |used| format!("{:.0} %", used * 100.0)),
        p50,
        p99,
        max,
        all_p50,
        all_p99,
        all_max,
        throttles(cgroup),
        figures::count_if(snapshot.sees(SignalName::Breach), row.late),
        trend,
    ]
}

fn three(histogram: &crate::snapshot::Histogram) -> [String; 3] {
    [histogram.quantile_ns(0.5), histogram.quantile_ns(0.99), histogram.max_ns()]
        .map(|ns| figures::time_if(!histogram.is_empty(), ns))
}

fn since_start(app: &App, id: u64, metric: Measure) -> [String; 3] {
    app.history.track(id).map_or_else(|| [ABSENT; 3].map(str::to_owned), |track| three(track.sum(metric)))
}

/// Throttles of its own quota, or a sign that an ancestor's quota held it back.
fn throttles(cgroup: &Cgroup) -> String {
    let above = cgroup.throttle.by.as_ref().is_some_and(|by| *by != cgroup.path);
    match (cgroup.throttle.count, above) {
        (0, true) => "above".to_owned(),
        (count, _) => figures::count_if(cgroup.throttle.source.is_some(), count),
    }
}

/// What guard did last.
pub(super) fn last_action(app: &App) -> Option<Line<'static>> {
    let shown = app.shown_number()?;
    let (_, action) = app.history.actions.iter().rev().find(|(number, _)| *number <= shown)?;
    let text = format!(
        "{} {} {}: {} -> {}, {}",
        time_of_day(&action.at).chars().take(8).collect::<String>(),
        action.path,
        action.knob,
        action.old,
        action.new,
        action.reason
    );
    let head = Span::styled("did  ", app.options.theme.head());
    Some(Line::from(vec![head, Span::raw(printable(&text).into_owned())]))
}

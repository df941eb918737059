//! The screen: two lines about node and risk, the page of the view, and a line of keys.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::super::figures::{self, printable};
use super::super::text::time_of_day;
use super::page::Page;
use super::risk::risk;
use super::state::{App, Prompt, SourceKind, SourceState, View};
use super::theme::Level;
use super::{actions, causes, doctor, help, node, overview, workload};
use crate::snapshot::Snapshot;

/// Draws the dashboard.
pub fn render(frame: &mut Frame<'_>, app: &App) {
    let area = frame.area();
    let rows = usize::from(area.height);
    let width = usize::from(area.width);
    let mut lines = header(app, width);
    let Some(snapshot) = app.shown() else {
        lines.extend([Line::default(), waiting(app)]);
        lines.truncate(rows.saturating_sub(1));
        return put(frame, area, lines, footer(app, width));
    };
    let page = page(app, snapshot, width);
    let last_action = overview::last_action(app).filter(|_| app.view == View::Overview && rows >= 14);
    let room = rows.saturating_sub(lines.len() + page.head.len() + 1 + usize::from(last_action.is_some()));
    let first = first_line(app, &page, room);
    lines.extend(page.head);
    lines.extend(page.body.into_iter().skip(first).take(room));
    if let Some(action) = last_action {
        lines.resize(rows.saturating_sub(2), Line::default());
        lines.push(action);
    }
    put(frame, area, lines, footer(app, width));
}

/// First line of the body that is shown: a cursor stays in sight, other pages are where they were scrolled to.
fn first_line(app: &App, page: &Page, room: usize) -> usize {
    let last = page.body.len().saturating_sub(room);
    match page.cursor {
        Some(cursor) => cursor.saturating_sub(room / 2).min(last),
        None => app.scrolled().min(last),
    }
}

fn page(app: &App, snapshot: &Snapshot, width: usize) -> Page {
    match app.view {
        View::Overview => overview::page(app, snapshot, width),
        View::Workload => workload::page(app, snapshot, width),
        View::Causes => causes::page(app, snapshot, width),
        View::Actions => actions::page(app, width),
        View::Node => node::page(app, snapshot, width),
        View::Doctor => doctor::page(app, width),
        View::Help => help::page(app),
    }
}

/// How far the present view can be scrolled.
pub(super) fn last_line(app: &App) -> usize {
    if app.scrolled() == 0 {
        return 0;
    }
    let (columns, rows) = app.options.size;
    let Some(snapshot) = app.shown() else { return 0 };
    let page = page(app, snapshot, columns.into());
    page.body.len().saturating_sub(usize::from(rows).saturating_sub(3 + page.head.len()))
}

fn put(frame: &mut Frame<'_>, area: Rect, lines: Vec<Line<'static>>, footer: Line<'static>) {
    let rows = area.height.saturating_sub(1);
    for (y, line) in (0..rows).zip(lines) {
        frame.render_widget(line, Rect { y: area.y + y, height: 1, ..area });
    }
    if area.height > 0 {
        frame.render_widget(footer, Rect { y: area.y + rows, height: 1, ..area });
    }
}

fn header(app: &App, width: usize) -> Vec<Line<'static>> {
    let theme = app.options.theme;
    let state = state(app);
    let state_style = match (&app.source, app.held) {
        (SourceState::Lost(_), _) => theme.level(Level::Bad),
        (_, Some(_)) => theme.level(Level::Warn),
        _ => theme.faint(),
    };
    let Some(snapshot) = app.shown() else {
        return vec![Line::from(vec![Span::styled("guard ", theme.head()), Span::raw(state)])];
    };
    let node = &snapshot.node;
    let kernel = if node.realtime { "PREEMPT_RT" } else { "not PREEMPT_RT" };
    let time: String = time_of_day(&snapshot.window.start).chars().take(8).collect();
    // What matters least is left out first.
    let parts = [
        printable(&node.hostname).into_owned(),
        format!("kernel {}", printable(&node.kernel)),
        kernel.to_owned(),
        format!("CPUs {}", printable(&node.cpus)),
        printable(&time).into_owned(),
    ];
    let length = |parts: &[&String]| parts.iter().map(|p| p.chars().count() + 2).sum::<usize>();
    let mut shown: Vec<&String> = parts.iter().filter(|part| !part.is_empty()).collect();
    for spare in [&parts[3], &parts[1], &parts[0], &parts[4]] {
        if "guard ".len() + length(&shown) + state.chars().count() > width {
            shown.retain(|part| *part != spare);
        }
    }
    let left = shown.iter().map(|p| p.as_str()).collect::<Vec<_>>().join("  ");
    let gap = width.saturating_sub("guard ".len() + left.chars().count() + state.chars().count()).max(1);
    let (level, told) = risk(snapshot, app.options.limit_ns);
    vec![
        Line::from(vec![
            Span::styled("guard ", theme.head()),
            Span::raw(left),
            Span::raw(" ".repeat(gap)),
            Span::styled(state, state_style),
        ]),
        Line::styled(format!("{} {told}", level.sign()), theme.level(level)),
    ]
}

/// Where the Snapshots come from and which one is shown, in a word or two.
fn state(app: &App) -> String {
    let base = match (&app.source, app.options.kind) {
        (SourceState::Loading(_), _) => "LOADING".to_owned(),
        (SourceState::Lost(_), _) => "LOST".to_owned(),
        (SourceState::Ended, _) => "END".to_owned(),
        (SourceState::Running, SourceKind::Live) => "LIVE".to_owned(),
        (SourceState::Running, SourceKind::Socket) => "CONNECTED".to_owned(),
        (SourceState::Running, SourceKind::Replay) => format!("REPLAY x{}", app.options.speed),
    };
    match (app.held.and(app.shown_number()), app.history.newest()) {
        (Some(shown), Some(newest)) if shown < newest => format!("{base} HELD -{}", newest - shown),
        (Some(_), _) => format!("{base} HELD"),
        _ if app.freeze => format!("{base} ARMED"),
        _ => base,
    }
}

fn waiting(app: &App) -> Line<'static> {
    let text = match &app.source {
        SourceState::Loading(what) | SourceState::Lost(what) => printable(what).into_owned(),
        SourceState::Running => "Waiting for the first interval".to_owned(),
        SourceState::Ended => "There is nothing to show".to_owned(),
    };
    Line::raw(format!("   {text}"))
}

fn footer(app: &App, width: usize) -> Line<'static> {
    let theme = app.options.theme;
    match (&app.prompt, &app.message, &app.source) {
        (Some(Prompt::Filter(text)), ..) => Line::raw(format!("filter: {text}_  (Enter sets, Esc leaves)")),
        (Some(Prompt::Threshold(text)), ..) => {
            let now = figures::time(app.options.limit_ns);
            Line::raw(format!("late from, now {now}: {text}_  (such as 200us)"))
        }
        (None, Some(message), _) => Line::styled(printable(message).into_owned(), theme.level(Level::Warn)),
        (None, None, SourceState::Lost(why)) => Line::styled(printable(why).into_owned(), theme.level(Level::Bad)),
        _ => keys(app, width),
    }
}

fn keys(app: &App, width: usize) -> Line<'static> {
    let all: &[&str] = match app.view {
        View::Overview => &[
            "q quit",
            "? help",
            "Enter workload",
            "c causes",
            "a actions",
            "n node",
            "/ filter",
            "s sort",
            "space hold",
            "t limit",
        ],
        _ => {
            &["q quit", "? help", "Esc back", "c causes", "a actions", "n node", "space hold", "\u{2190}\u{2192} time"]
        }
    };
    let mut text = String::new();
    for key in all {
        let gap = if text.is_empty() { "" } else { "  " };
        if text.chars().count() + gap.len() + key.chars().count() > width {
            break;
        }
        text.push_str(gap);
        text.push_str(key);
    }
    if !app.filter.is_empty() && app.view == View::Overview {
        text = format!("filter: {}  {text}", app.filter);
    }
    Line::styled(text, app.options.theme.faint())
}

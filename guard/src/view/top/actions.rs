//! What guard changed, the newest first, and what became of each change.

use std::collections::HashMap;

use super::super::text::time_of_day;
use super::grid::{Align, Column, Grid, column, plain};
use super::page::Page;
use super::state::App;
use crate::snapshot::Action;
use ratatui::style::Style;

const COLUMNS: [Column; 7] = [
    column("time", Align::Left, 0),
    column("cgroup", Align::Name, 0),
    column("knob", Align::Left, 0),
    column("old", Align::Left, 3),
    column("new", Align::Left, 1),
    column("now", Align::Left, 0),
    column("result", Align::Left, 2),
];

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Undo {
    /// It is in force.
    InForce,
    /// A later one put back what was there before.
    Undone,
    /// A later one set something else.
    Replaced,
    /// It set what was there already.
    NoChange,
}

impl Undo {
    fn name(self) -> &'static str {
        match self {
            Self::InForce => "in force",
            Self::Undone => "undone",
            Self::Replaced => "replaced",
            Self::NoChange => "no change",
        }
    }
}

/// What became of each of `actions`, which are oldest first.
fn states(actions: &[&Action]) -> Vec<Undo> {
    // Values that later changes of the same knob set.
    let mut later: HashMap<(&str, &str), Vec<&str>> = HashMap::new();
    let mut states: Vec<Undo> = actions
        .iter()
        .rev()
        .map(|action| {
            let set = later.entry((&action.path, &action.knob)).or_default();
            let state = match set.as_slice() {
                _ if action.old == action.new => Undo::NoChange,
                [] => Undo::InForce,
                values if values.contains(&action.old.as_str()) => Undo::Undone,
                _ => Undo::Replaced,
            };
            set.push(&action.new);
            state
        })
        .collect();
    states.reverse();
    states
}

pub(super) fn page(app: &App, width: usize) -> Page {
    let mut page = Page::default();
    let until = app.shown_number().unwrap_or(0);
    let actions: Vec<&Action> = app.history.actions.iter().filter(|(n, _)| *n <= until).map(|(_, a)| a).collect();
    if actions.is_empty() {
        page.text("guard has changed nothing since this dashboard began to look.");
        page.text("It changes something only as guard run --enforce.");
        return page;
    }
    let mut grid = Grid::new(&COLUMNS);
    let states = states(&actions);
    for (action, state) in actions.iter().zip(&states).rev() {
        grid.push(plain([
            time_of_day(&action.at).chars().take(8).collect(),
            action.path.clone(),
            action.knob.clone(),
            action.old.clone(),
            action.new.clone(),
            state.name().to_owned(),
            action.result.to_string(),
        ]));
    }
    let (head, rows) = grid.lines(width, app.options.theme.head());
    page.head.push(head);
    for (row, action) in rows.into_iter().zip(actions.iter().rev()) {
        page.body.push(row);
        let evidence: Vec<String> = action.evidence.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let why =
            [action.reason.clone(), evidence.join(", ")].into_iter().filter(|t| !t.is_empty()).collect::<Vec<_>>();
        page.wrapped(&why.join("; "), 4, width, app.options.theme.faint().patch(Style::new()));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples;

    #[test]
    fn a_change_is_undone_when_its_old_value_is_back() {
        let action = |path: &str, old: &str, new: &str| Action {
            path: path.into(),
            old: old.into(),
            new: new.into(),
            ..samples::full().actions[0].clone()
        };
        let all = [
            action("/a", "20", "max"),
            action("/b", "1", "2"),
            action("/b", "2", "3"),
            action("/a", "max", "20"),
            action("/c", "5", "5"),
        ];
        let states = states(&all.iter().collect::<Vec<_>>());
        assert_eq!(states, [Undo::Undone, Undo::Replaced, Undo::InForce, Undo::InForce, Undo::NoChange]);
    }
}

//! Changes for people: the table of `guard plan`, and a line per change below a line of `guard run`.

use super::figures::{self, printable};
use super::table::{ColumnKind, Table, TableRow};
use super::text::time_of_day;
use crate::snapshot::{Action, Snapshot, Window};

/// Changes of an interval before the rest is only counted.
const CHANGES_SHOWN: usize = 10;
/// Least width of the column with paths.
const PATH_LEAST: usize = 24;

/// What would change, as text that is `width` characters wide where it can be. A step is a window with what would change
/// after it and what policies said.
#[must_use]
pub fn render<'a>(
    windows: usize,
    steps: impl Iterator<Item = (&'a Window, &'a [Action], &'a [String])>,
    width: usize,
) -> String {
    let mut table = Table::new(&[
        ("time", ColumnKind::Spare(0)),
        ("cgroup", ColumnKind::Path(PATH_LEAST)),
        ("knob", ColumnKind::Left),
        ("now", ColumnKind::Left),
        ("wanted", ColumnKind::Left),
    ]);
    let (mut changes, mut said) = (0, Vec::new());
    for (window, actions, notes) in steps {
        let at: String = time_of_day(&window.start).chars().take(8).collect();
        for action in actions {
            changes += 1;
            table.push(TableRow {
                cells: vec![
                    at.clone(),
                    printable(&action.path).into_owned(),
                    action.knob.clone(),
                    value(&action.old),
                    if action.new.is_empty() { "(as it was)".to_owned() } else { value(&action.new) },
                ],
                notes: vec![printable(&action.reason).into_owned()],
            });
        }
        for note in notes.iter().filter(|note| !said.contains(note)).collect::<Vec<_>>() {
            said.push(note);
        }
    }
    let mut out = String::new();
    match (windows, changes) {
        (0, _) => out.push_str("There is no Snapshot to plan on.\n"),
        (_, 0) => out.push_str("The policies want nothing changed.\n"),
        _ => {
            out.push_str("What guard would do (nothing was changed):\n\n");
            table.render(width, &mut out);
        }
    }
    if !said.is_empty() {
        out.push_str("\nNot done:\n");
        for note in said {
            out.push_str(&format!("  {}\n", printable(note)));
        }
    }
    out
}

/// What was done, or would be, in an interval: one line each, without line feeds, the first ten.
#[must_use]
pub fn lines(snapshot: &Snapshot) -> Vec<String> {
    let actions = &snapshot.actions;
    let mut lines: Vec<String> = actions.iter().take(CHANGES_SHOWN).map(line).collect();
    if actions.len() > CHANGES_SHOWN {
        lines.push(format!("          and {} more", actions.len() - CHANGES_SHOWN));
    }
    lines
}

fn line(action: &Action) -> String {
    let new = if action.new.is_empty() { "as it was".to_owned() } else { value(&action.new) };
    let line = format!(
        "          {} {}: {} -> {new} ({}): {}",
        action.path,
        action.knob,
        value(&action.old),
        action.result,
        action.reason
    );
    printable(&line).into_owned()
}

fn value(text: &str) -> String {
    if text.is_empty() { figures::ABSENT.to_owned() } else { printable(text).into_owned() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::view::samples;

    fn action(path: &str, old: &str, new: &str) -> Action {
        Action {
            at: "2026-11-24T00:11:10.000000Z".into(),
            knob: "quota".into(),
            path: path.into(),
            old: old.into(),
            new: new.into(),
            reason: "12 throttles of its own quota".into(),
            evidence: BTreeMap::new(),
            result: "planned".into(),
        }
    }

    #[test]
    fn a_plan_names_cgroup_knob_values_and_reason() {
        let window = Window { start: "2026-11-24T00:11:10.000000Z".into(), seconds: 1.0 };
        let actions = [action("/machine.slice/plc", "20000 100000", "max 100000"), action("/be", "", "5000 100000")];
        let notes = ["protect: /x is unmanaged and stays as it is".to_owned()];
        let text = render(1, [(&window, &actions[..], &notes[..])].into_iter(), 100);
        assert_eq!(
            text,
            "\
What guard would do (nothing was changed):

      time  cgroup              knob   now           wanted
  00:11:10  /machine.slice/plc  quota  20000 100000  max 100000
      12 throttles of its own quota
  00:11:10  /be                 quota  -             5000 100000
      12 throttles of its own quota

Not done:
  protect: /x is unmanaged and stays as it is
"
        );
    }

    #[test]
    fn a_plan_without_changes_says_so() {
        assert_eq!(render(3, std::iter::empty(), 80), "The policies want nothing changed.\n");
        assert_eq!(render(0, std::iter::empty(), 80), "There is no Snapshot to plan on.\n");
    }

    #[test]
    fn of_many_changes_the_first_are_shown_and_nothing_breaks_a_line() {
        let mut snapshot = samples::empty();
        snapshot.actions = vec![action("/a\nb", "1", ""); CHANGES_SHOWN + 2];
        let lines = lines(&snapshot);
        assert_eq!(lines.len(), CHANGES_SHOWN + 1);
        assert!(lines[0].ends_with("quota: 1 -> as it was (planned): 12 throttles of its own quota"), "{}", lines[0]);
        assert!(!lines.iter().any(|line| line.contains('\n')));
        assert_eq!(lines[CHANGES_SHOWN], "          and 2 more");
    }
}

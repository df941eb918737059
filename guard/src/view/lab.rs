//! The lab's table for people: what a workload saw without and with guard.

use super::figures;
use super::table::{self, ColumnKind, Table};
use crate::lab::{Row, ScenarioResult};

/// One scenario as text, at most `width` columns wide where that is possible.
#[must_use]
pub fn render(played: &ScenarioResult, width: usize) -> String {
    let mut out = format!("{}: {}\n", played.name, played.summary);
    out += &format!(
        "  a cycle is {}; response is {}\n",
        figures::round_time(played.interval_us.saturating_mul(1000)),
        played.response
    );
    let mut table = Table::new(&[
        ("", ColumnKind::Left),
        ("policy", ColumnKind::Spare(1)),
        ("cycles", ColumnKind::Right),
        ("lost", ColumnKind::Right),
        ("lost %", ColumnKind::Right),
        ("mean", ColumnKind::Right),
        ("p99", ColumnKind::Right),
        ("max", ColumnKind::Right),
        ("wake-up p99", ColumnKind::Spare(2)),
        ("nr_throttled", ColumnKind::Right),
    ]);
    for row in &played.rows {
        table.push(table::TableRow { cells: cells(row), notes: notes(row) });
    }
    table.render(width, &mut out);
    out += &format!("  {}: {}\n", if played.kept { "ok" } else { "NOT KEPT" }, played.verdict);
    out
}

fn cells(row: &Row) -> Vec<String> {
    let seen = !row.response.is_empty();
    vec![
        row.name.clone(),
        row.policy.clone(),
        row.cycles.to_string(),
        row.lost.to_string(),
        if row.cycles > 0 { format!("{:.1}", row.lost_percent()) } else { figures::ABSENT.to_owned() },
        figures::time_if(seen, row.response.mean_ns()),
        figures::quantile(&row.response, 0.99),
        figures::max(&row.response),
        figures::quantile(&row.wakeup, 0.99),
        row.nr_throttled.to_string(),
    ]
}

/// The changes that guard made; the first and last few where there are many.
fn notes(row: &Row) -> Vec<String> {
    const EACH_END: usize = 3;
    let Some(acted) = &row.guard else { return Vec::new() };
    let changes = &acted.changes;
    let mut notes: Vec<String> = if changes.len() <= 2 * EACH_END {
        changes.clone()
    } else {
        let left_out = format!("… {} changes more …", changes.len() - 2 * EACH_END);
        let (first, last) = (&changes[..EACH_END], &changes[changes.len() - EACH_END..]);
        first.iter().cloned().chain([left_out]).chain(last.iter().cloned()).collect()
    };
    notes.push(match (changes.is_empty(), acted.restored) {
        (true, true) => "guard changed nothing".to_owned(),
        (false, true) => "guard has put back what it changed".to_owned(),
        (_, false) => "after guard's end a quota is not what it was".to_owned(),
    });
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::{Acted, Condition};
    use crate::snapshot::Latency;

    fn played() -> ScenarioResult {
        let mut row = Row {
            step: Condition::Before,
            name: "quota".into(),
            policy: "SCHED_FIFO 80".into(),
            cycles: 5000,
            lost: 2450,
            response: Latency::default(),
            wakeup: Latency::default(),
            nr_throttled: 49,
            throttled_ns: 3_900_000_000,
            guard: None,
        };
        row.response.record(80_000_000);
        let with = Row {
            name: "quota, guard".into(),
            guard: Some(Acted {
                changes: (0..9).map(|n| format!("change {n}")).collect(),
                restored: true,
                ..Acted::default()
            }),
            ..row.clone()
        };
        ScenarioResult {
            name: "quota-lock".into(),
            summary: "what it shows".into(),
            interval_us: 1000,
            response: "what it is".into(),
            rows: vec![row, with],
            kept: false,
            verdict: "guard does not help enough".into(),
        }
    }

    #[test]
    fn a_row_says_what_was_lost_and_the_verdict_stands_below() {
        let text = render(&played(), 120);
        let row = text.lines().find(|line| line.trim_start().starts_with("quota ")).unwrap();
        for figure in ["SCHED_FIFO 80", "5000", "2450", "49.0", "80.0 ms", "49"] {
            assert!(row.contains(figure), "{figure}: {row}");
        }
        // No wake-up was counted.
        assert!(row.contains(" - "), "{row}");
        assert!(text.ends_with("  NOT KEPT: guard does not help enough\n"), "{text}");
    }

    #[test]
    fn many_changes_are_shortened_in_the_middle() {
        let text = render(&played(), 120);
        assert!(text.contains("change 0") && text.contains("change 8") && !text.contains("change 4"), "{text}");
        assert!(text.contains("3 changes more"), "{text}");
    }
}

//! How soon a process is killed when memory runs out. Every process of the cgroup carries it, and hands it to its children.
//! Rules of fs/proc/base.c (oom_score_adj_write).

use super::{
    around::rule,
    row::{BOTH, FileRow, Row, SitsOn},
    setting::Setting,
    text::ParseError,
    value::{Format, NUMBER, Value},
};

pub(super) const OOM_SCORE_ADJ: Row = Row {
    name: "oom_score_adj",
    help: "how soon the processes of a cgroup are killed when memory runs out, -1000 (never) to 1000 (first)",
    sits_on: SitsOn::Processes,
    format: SCORE,
    files: &[FileRow { name: "oom_score_adj", versions: BOTH, format: SCORE }],
    check: |setting, _, _, _| match setting {
        Setting::OomScoreAdj(score) => {
            rule((-1_000..=1_000).contains(score), || format!("oom_score_adj is -1000 to 1000, not {score}"))
        }
        _ => Ok(()),
    },
    ..Row::PLAIN
};

const SCORE: Format =
    Format { parse: |text| text.parse().map(Value::Number).map_err(|_| ParseError::new("a number", text)), ..NUMBER };

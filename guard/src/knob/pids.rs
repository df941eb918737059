//! Most processes and threads of a cgroup. Rules of kernel/cgroup/pids.c (pids_max_write).

use super::{
    around::rule,
    property::{INFINITY, Property},
    row::{BOTH, FileRow, PropertyRow, Row, SitsOn},
    setting::Setting,
    value::{Format, NO_LIMIT, NUMBER, Quantity, Value},
};

/// PID_MAX_LIMIT.
const MOST: u64 = 4_194_304;

pub(super) const PIDS_MAX: Row = Row {
    name: "pids_max",
    help: "most processes and threads that a cgroup may have, or no limit",
    sits_on: SitsOn::Cgroup { controller: "pids" },
    format: NUMBER_OR_MAX,
    files: &[FileRow { name: "pids.max", versions: BOTH, format: NUMBER_OR_MAX }],
    check: |setting, _, _, _| match setting {
        Setting::PidsMax(Some(most)) => {
            rule(*most <= MOST, || format!("a limit of processes is at most {MOST}, not {most}"))
        }
        _ => Ok(()),
    },
    properties: &[PropertyRow {
        name: "TasksMax",
        drop_in: "TasksMax",
        versions: BOTH,
        of: |setting, _| match setting {
            Setting::PidsMax(most) => Some(Property::Number(most.unwrap_or(INFINITY))),
            _ => None,
        },
    }],
    ..Row::PLAIN
};

const NUMBER_OR_MAX: Format = Format {
    parse: |text| if text == "max" { Ok(NO_LIMIT) } else { (NUMBER.parse)(text) },
    show: |value| if *value == NO_LIMIT { "max".to_owned() } else { (NUMBER.show)(value) },
};

impl Quantity for Option<u64> {
    fn to_value(&self) -> Value {
        self.map_or(NO_LIMIT, |number| number.to_value())
    }

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            &NO_LIMIT => Some(None),
            value => value.unsigned().map(Some),
        }
    }
}

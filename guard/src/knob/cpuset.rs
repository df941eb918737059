//! CPUs and NUMA nodes of a cgroup, and partitions. Rules of kernel/cgroup/cpuset.c and cpuset-v1.c (validate_change).

use super::{
    around::{Surroundings, rule},
    file::File,
    property::Property,
    row::{BOTH, FileErrors, FileRow, Order, PropertyRow, Row, SitsOn, Undo, V2},
    setting::{Knob, Setting},
    text::ParseError,
    value::{Format, Value},
    version::Version,
};
use crate::snapshot::{CgroupPath, CpuList, Partition};

/// What the rows below have in common.
const CPUSET: Row = Row {
    sits_on: SitsOn::Cgroup { controller: "cpuset" },
    errors: FileErrors {
        // v1 answers so to what the parent lacks; opening is what permission decides.
        eacces_is_of_the_value: true,
        mind: Some("and mind that before Linux 6.2 enabling it makes every thread below forget its affinity"),
    },
    ..Row::PLAIN
};

impl File {
    /// CPUs.
    pub const CPUS: Self = Self::new(Knob::Cpus, 0);
    /// NUMA nodes.
    pub const MEMS: Self = Self::new(Knob::Mems, 0);
    /// v2: partition.
    pub const PARTITION: Self = Self::new(Knob::Partition, 0);
}

pub(super) const CPUS: Row = Row {
    name: "cpus",
    help: "CPUs that a cgroup may use",
    format: LIST,
    files: &[FileRow { name: "cpuset.cpus", versions: BOTH, format: LIST }],
    order: Order::Union,
    check: |setting, path, version, around| match setting {
        Setting::Cpus(list) => check_list(list, Knob::Cpus, path, version, around),
        _ => Ok(()),
    },
    join: |one, other| match (one, other) {
        (Setting::Cpus(one), Setting::Cpus(other)) => {
            let left: CpuList = one.iter().filter(|cpu| other.contains(*cpu)).collect();
            (!left.is_empty()).then_some(Setting::Cpus(left))
        }
        _ => None,
    },
    properties: &[PropertyRow {
        name: "AllowedCPUs",
        drop_in: "AllowedCPUs",
        versions: V2,
        of: |setting, _| match setting {
            Setting::Cpus(list) => Some(Property::mask(list)),
            _ => None,
        },
    }],
    undo: Undo::WriteBackOrAll { all: "sys/devices/system/cpu/possible", effective: "cpuset.cpus.effective" },
    reading: |knobs| knobs.cpus.clone().map(Setting::Cpus),
    ..CPUSET
};

pub(super) const MEMS: Row = Row {
    name: "mems",
    help: "NUMA nodes that a cgroup may use",
    format: LIST,
    files: &[FileRow { name: "cpuset.mems", versions: BOTH, format: LIST }],
    order: Order::Union,
    check: |setting, path, version, around| match setting {
        Setting::Mems(list) => check_list(list, Knob::Mems, path, version, around),
        _ => Ok(()),
    },
    properties: &[PropertyRow {
        name: "AllowedMemoryNodes",
        drop_in: "AllowedMemoryNodes",
        versions: V2,
        of: |setting, _| match setting {
            Setting::Mems(list) => Some(Property::mask(list)),
            _ => None,
        },
    }],
    undo: Undo::WriteBackOrAll { all: "sys/devices/system/node/possible", effective: "cpuset.mems.effective" },
    reading: |knobs| knobs.mems.clone().map(Setting::Mems),
    ..CPUSET
};

/// The kernel takes the word and may say behind it why it does not mean it.
pub(super) const PARTITION: Row = Row {
    name: "partition",
    help: "whether the CPUs of a cgroup are its own, and load-balanced",
    format: PARTITIONS,
    files: &[FileRow { name: "cpuset.cpus.partition", versions: V2, format: PARTITIONS }],
    order: Order::Switch {
        around: Knob::Cpus,
        is_off: |value| matches!(value, Value::Partition(Partition::Member, _)),
    },
    check: |setting, path, version, around| {
        rule(version == Version::V2, || "cgroup v1 has no cpuset partitions".to_owned())?;
        let no_cpus = around.setting(path, Knob::Cpus).is_none_or(|of| of == Setting::Cpus(CpuList::default()));
        rule(!(is_exclusive(setting) && no_cpus), || "a partition needs cpuset.cpus of its own".to_owned())
    },
    reading: |knobs| knobs.partition.map(Setting::Partition),
    ..CPUSET
};

const LIST: Format = Format {
    parse: |text| Ok(Value::List(text.parse()?)),
    show: |value| match value {
        Value::List(list) => list.to_string(),
        _ => String::new(),
    },
};

/// "root", or "root invalid (why)".
const PARTITIONS: Format = Format {
    parse: |text| {
        let mut words = text.split_ascii_whitespace();
        let partition = match words.next() {
            Some("member") => Partition::Member,
            Some("root") => Partition::Root,
            Some("isolated") => Partition::Isolated,
            _ => return Err(ParseError::new("member, root or isolated", text)),
        };
        Ok(Value::Partition(partition, words.next() != Some("invalid")))
    },
    show: |value| {
        let word = match value {
            Value::Partition(Partition::Member, _) => "member",
            Value::Partition(Partition::Root, _) => "root",
            Value::Partition(Partition::Isolated, _) => "isolated",
            _ => "",
        };
        word.to_owned()
    },
};

fn is_exclusive(setting: &Setting) -> bool {
    matches!(setting, Setting::Partition(Partition::Root | Partition::Isolated))
}

fn check_list(
    wanted: &CpuList,
    knob: Knob,
    path: &str,
    version: Version,
    around: &dyn Surroundings,
) -> Result<(), String> {
    let within = |list: &CpuList, of: &CpuList| list.iter().all(|each| of.contains(each));
    let list_of = |path: &str| match around.setting(path, knob) {
        Some(Setting::Cpus(list) | Setting::Mems(list)) => Some(list),
        _ => None,
    };
    if version == Version::V2 {
        let exclusive = around.setting(path, Knob::Partition).is_some_and(|of| is_exclusive(&of));
        return rule(!(wanted.is_empty() && exclusive && knob == Knob::Cpus), || {
            "a partition needs cpuset.cpus of its own".to_owned()
        });
    }
    rule(!wanted.is_empty(), || format!("on v1 a cgroup needs {knob} of its own"))?;
    if let Some(parent) = CgroupPath::of(path).above().next()
        && let Some(of) = list_of(parent)
    {
        rule(within(wanted, &of), || format!("on v1 {knob} lie within the parent's: {parent} has {of}"))?;
    }
    for child in around.children(path, knob) {
        if let Some(of) = list_of(&child) {
            rule(within(&of, wanted), || format!("on v1 a child's {knob} lie within its own: {child} has {of}"))?;
        }
    }
    Ok(())
}

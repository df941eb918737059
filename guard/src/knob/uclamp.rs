//! Utilisation clamps, in hundredths of a percent, 0 to 10000. Documentation/scheduler/sched-util-clamp.rst.

use super::{
    around::rule,
    file::File,
    row::{BOTH, FileRow, Row},
    setting::{Knob, Setting},
    text::{ParseError, parse_u64},
    value::{Format, Value},
};

impl File {
    /// Least utilisation.
    pub const UCLAMP_MIN: Self = Self::new(Knob::UclampMin, 0);
    /// Most utilisation.
    pub const UCLAMP_MAX: Self = Self::new(Knob::UclampMax, 0);
}

pub(super) const MIN: Row = Row {
    name: "uclamp_min",
    help: "least utilisation that the frequency is chosen for, percent",
    files: &[FileRow { name: "cpu.uclamp.min", versions: BOTH, format: PERCENT }],
    ..EITHER
};

pub(super) const MAX: Row = Row {
    name: "uclamp_max",
    help: "most utilisation that the frequency is chosen for, percent",
    files: &[FileRow { name: "cpu.uclamp.max", versions: BOTH, format: PERCENT }],
    ..EITHER
};

const EITHER: Row = Row {
    format: PERCENT,
    check: |setting, _, _, _| match setting {
        Setting::UclampMin(value) | Setting::UclampMax(value) => {
            rule(*value <= 10_000, || format!("uclamp is 0 to 10000 hundredths of a percent, not {value}"))
        }
        _ => Ok(()),
    },
    ..Row::PLAIN
};

/// "max", or a percentage with up to two decimals.
const PERCENT: Format = Format {
    parse: |text| {
        let bad = || ParseError::new("max, or a percentage with up to two decimals", text);
        if text == "max" {
            return Ok(Value::Number(10_000));
        }
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        if decimals.len() > 2 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(bad());
        }
        let whole = parse_u64(whole).ok().filter(|whole| *whole <= 100).ok_or_else(bad)?;
        let decimals: u64 = format!("{decimals:0<2}").parse().map_err(|_| bad())?;
        let hundredths = i64::try_from(whole * 100 + decimals).ok().filter(|value| *value <= 10_000);
        hundredths.map(Value::Number).ok_or_else(bad)
    },
    show: |value| {
        let hundredths = value.amount();
        format!("{}.{:02}", hundredths / 100, hundredths % 100)
    },
};

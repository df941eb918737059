//! What the cpu files of a cgroup say, as pure functions over their text. Formats:
//! Documentation/admin-guide/cgroup-v2.rst and Documentation/scheduler/sched-bwc.rst of the kernel.

use crate::{
    knob::{ParseError, Version, parse_u64},
    snapshot::CpuStat,
};

/// Totals of cpu.stat since the cgroup was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuStatTotals {
    /// Periods elapsed while a quota was in use.
    pub nr_periods: u64,
    /// Periods in which the cgroup was throttled on at least one CPU.
    pub nr_throttled: u64,
    /// Time throttled, summed over CPUs, ns.
    pub throttled_ns: u64,
    /// Periods in which burst was used, and the time so used, ns; absent before 5.14.
    pub burst: Option<(u64, u64)>,
}

impl CpuStatTotals {
    /// What was added since `earlier`; `None` when a total has gone back, because then it is another cgroup's.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Option<CpuStat> {
        Some(CpuStat {
            nr_periods: self.nr_periods.checked_sub(earlier.nr_periods)?,
            nr_throttled: self.nr_throttled.checked_sub(earlier.nr_throttled)?,
            throttled_ns: self.throttled_ns.checked_sub(earlier.throttled_ns)?,
        })
    }
}

/// How much CPU time a cgroup gets against its siblings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// v1 cpu.shares, 2..262144, 1024 by default.
    Shares(u64),
    /// v2 cpu.weight, 1..10000, 100 by default.
    Weight(u64),
    /// cpu.idle is set: only what nobody else wants.
    Idle,
}

/// Totals of a pressure file since the cgroup was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PressureTotals {
    /// Time in which some task waited, ns.
    pub some_ns: u64,
    /// Time in which all tasks waited, ns; absent before 5.13.
    pub full_ns: Option<u64>,
}

/// The value of `key` in a flat keyed file.
pub(super) fn keyed<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.split_once(' ').filter(|(k, _)| *k == key).map(|(_, value)| value))
}

pub(super) fn us_to_ns(us: u64) -> Result<u64, ParseError> {
    us.checked_mul(1000).ok_or_else(|| ParseError::new("a time in us below 2^64 ns", &us.to_string()))
}

/// cpu.stat. None when it has no bandwidth figures: v2 leaves them out of cgroups without the cpu controller.
pub(super) fn parse_cpu_stat(text: &str, version: Version) -> Result<Option<CpuStatTotals>, ParseError> {
    let Some(nr_periods) = keyed(text, "nr_periods") else {
        return Ok(None);
    };
    let number = |key: &str| -> Result<Option<u64>, ParseError> { keyed(text, key).map(parse_u64).transpose() };
    let needed = |found: Option<u64>| {
        found.ok_or_else(|| ParseError::new("nr_periods, nr_throttled and a throttled time", text))
    };
    let (throttled_ns, burst_ns) = match version {
        Version::V1 => (number("throttled_time")?, number("burst_time")?),
        Version::V2 => {
            (number("throttled_usec")?.map(us_to_ns).transpose()?, number("burst_usec")?.map(us_to_ns).transpose()?)
        }
    };
    Ok(Some(CpuStatTotals {
        nr_periods: parse_u64(nr_periods)?,
        nr_throttled: needed(number("nr_throttled")?)?,
        throttled_ns: needed(throttled_ns)?,
        burst: number("nr_bursts")?.zip(burst_ns),
    }))
}

/// A pressure file. Documentation/accounting/psi.rst
pub(crate) fn parse_pressure(text: &str) -> Result<PressureTotals, ParseError> {
    let total = |kind: &str| -> Result<Option<u64>, ParseError> {
        let Some(fields) = keyed(text, kind) else {
            return Ok(None);
        };
        let total = fields
            .split_ascii_whitespace()
            .find_map(|field| field.strip_prefix("total="))
            .ok_or_else(|| ParseError::new("total= on each line", text))?;
        parse_u64(total).and_then(us_to_ns).map(Some)
    };
    Ok(PressureTotals {
        some_ns: total("some")?.ok_or_else(|| ParseError::new("a line that begins with some", text))?,
        full_ns: total("full")?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // cpu.stat of a container with --cpus 0.2, 6.1 PREEMPT_RT, v2; the last two lines were zero.
    const V2_STAT: &str = "usage_usec 970837\nuser_usec 60206\nsystem_usec 910630\nnr_periods 19\nnr_throttled 13\n\
        throttled_usec 699565\nnr_bursts 1\nburst_usec 7\n";

    #[test]
    fn v1_counts_throttled_time_in_ns_and_v2_in_us() {
        let v2 = parse_cpu_stat(V2_STAT, Version::V2).unwrap().unwrap();
        assert_eq!(
            v2,
            CpuStatTotals { nr_periods: 19, nr_throttled: 13, throttled_ns: 699_565_000, burst: Some((1, 7000)) }
        );
        let v1 = "nr_periods 12\nnr_throttled 3\nthrottled_time 151034\n";
        assert_eq!(
            parse_cpu_stat(v1, Version::V1).unwrap().unwrap(),
            CpuStatTotals { nr_periods: 12, nr_throttled: 3, throttled_ns: 151_034, burst: None }
        );
    }

    #[test]
    fn a_cpu_stat_without_bandwidth_figures_is_absent_and_not_zero() {
        assert_eq!(parse_cpu_stat("usage_usec 1\nuser_usec 1\nsystem_usec 0\n", Version::V2), Ok(None));
    }

    #[test]
    fn half_a_cpu_stat_is_an_error() {
        assert!(parse_cpu_stat("nr_periods 1\nnr_throttled 0\n", Version::V2).is_err());
        assert!(parse_cpu_stat("nr_periods x\nnr_throttled 0\nthrottled_usec 0\n", Version::V2).is_err());
        assert!(parse_cpu_stat(V2_STAT, Version::V1).is_err(), "throttled_time is v1's");
    }

    #[test]
    fn totals_that_went_back_give_no_difference() {
        let earlier = CpuStatTotals { nr_periods: 10, nr_throttled: 1, throttled_ns: 5, burst: None };
        let later = CpuStatTotals { nr_periods: 12, nr_throttled: 2, throttled_ns: 9, burst: None };
        assert_eq!(later.since(&earlier), Some(CpuStat { nr_periods: 2, nr_throttled: 1, throttled_ns: 4 }));
        assert_eq!(earlier.since(&later), None);
    }

    #[test]
    fn pressure_of_old_and_new_kernels_is_read() {
        // cpu.pressure of the same container.
        let some = "some avg10=5.38 avg60=1.06 avg300=0.22 total=690903\n";
        let both = format!("{some}full avg10=5.38 avg60=1.06 avg300=0.22 total=690903\n");
        assert_eq!(parse_pressure(some), Ok(PressureTotals { some_ns: 690_903_000, full_ns: None }));
        assert_eq!(parse_pressure(&both), Ok(PressureTotals { some_ns: 690_903_000, full_ns: Some(690_903_000) }));
        assert!(parse_pressure("some avg10=0.12\n").is_err());
        assert!(parse_pressure("").is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in "(?s).{0,200}") {
            let _ = (parse_cpu_stat(&text, Version::V1), parse_cpu_stat(&text, Version::V2),
                     parse_pressure(&text), parse_u64(&text));
        }

        #[test]
        fn no_numbers_make_a_parser_panic(a in any::<i128>(), b in any::<i128>()) {
            let _ = parse_cpu_stat(&format!("nr_periods {a}\nnr_throttled {b}\nthrottled_usec {b}\n"), Version::V2);
            let _ = parse_pressure(&format!("some total={a}\nfull total={b}"));
        }

        #[test]
        fn a_written_cpu_stat_is_read_back(nr_periods in any::<u64>(), nr_throttled in any::<u64>(), us in 0..u64::MAX / 1000) {
            let text = format!("usage_usec 1\nnr_periods {nr_periods}\nnr_throttled {nr_throttled}\nthrottled_usec {us}\n");
            let totals = CpuStatTotals { nr_periods, nr_throttled, throttled_ns: us * 1000, burst: None };
            prop_assert_eq!(parse_cpu_stat(&text, Version::V2), Ok(Some(totals)));
        }

        #[test]
        fn written_pressure_is_read_back(some in 0..u64::MAX / 1000, full in 0..u64::MAX / 1000) {
            let text = format!("some avg10=1.00 avg60=0.00 avg300=0.00 total={some}\nfull avg10=0.00 total={full}\n");
            let totals = PressureTotals { some_ns: some * 1000, full_ns: Some(full * 1000) };
            prop_assert_eq!(parse_pressure(&text), Ok(totals));
        }
    }
}

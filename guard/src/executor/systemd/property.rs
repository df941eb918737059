//! Which properties of a unit stand for which knob, and what systemd makes of them. Pure.

use crate::{
    knob::{
        self, File, INFINITY, Property, SYSTEMD_PERIOD_US, Setting, Value, Version, WeightFormula, per_second, period,
    },
    snapshot::Bandwidth,
};

/// The property that a lift takes the limit from.
pub(super) const QUOTA: &str = "CPUQuotaPerSecUSec";

/// The property for its period.
pub(super) const PERIOD: &str = "CPUQuotaPeriodUSec";
/// What a drop-in holds a quota per second in whole ones of, us: 0.01 %, until 2024 1 %.
const ROUNDING: [u64; 2] = [100, 10_000];

/// The property for the weight of a cgroup.
pub(super) fn weight(version: Version) -> &'static str {
    match version {
        Version::V1 => "CPUShares",
        Version::V2 => "CPUWeight",
    }
}

/// Whether a property that is `found` was set to `own`: at a reload systemd takes it from its drop-in, rounded.
pub(super) fn is_from(property: &str, own: &Property, found: &Property) -> bool {
    match (own, found) {
        (Property::Number(own), Property::Number(found)) if property == QUOTA => {
            found == own || *own != INFINITY && ROUNDING.iter().any(|step| *found == own / step * step)
        }
        _ => own == found,
    }
}

/// What systemd has in a cgroup's files by its present properties, of which `of` may name any.
pub(super) fn files(of: impl Fn(&str) -> Option<u64>, version: Version) -> Vec<(File, String)> {
    let (quota, period) = (of(QUOTA), of(PERIOD).unwrap_or(INFINITY));
    let mut files = quota.map(|quota| texts(applied(quota, period), version)).unwrap_or_default();
    let (weight_file, default) = if version == Version::V1 { (File::SHARES, 1_024) } else { (File::WEIGHT, 100) };
    match of(weight(version)) {
        Some(0) => files.push((File::IDLE, "1".to_owned())),
        Some(INFINITY) => files.push((weight_file, default.to_string())),
        Some(weight) => files.push((weight_file, weight.to_string())),
        None => {}
    }
    files
}

/// The file name of the drop-in that systemd keeps a property in.
pub(super) fn drop_in(property: &str) -> String {
    let own = knob::property(property).map_or(property, |row| row.drop_in);
    format!("50-{own}.conf")
}

/// The texts that systemd may give a knob's files when it was sent this setting: it keeps a quota per second, rounds it in
/// its drop-in, and forgets the period of what has no limit.
pub(in crate::executor) fn echoes(setting: &Setting, version: Version) -> Vec<(File, String)> {
    let Setting::Quota(bandwidth) = setting else { return Vec::new() };
    let (exact, period) = (per_second(*bandwidth), period(*bandwidth));
    let rounded = ROUNDING.map(|step| if exact == INFINITY { exact } else { exact / step * step });
    let mut out: Vec<(File, String)> = Vec::new();
    for per_second in [exact].into_iter().chain(rounded).filter(|per_second| *per_second > 0) {
        for text in texts(applied(per_second, period), version) {
            if !out.contains(&text) {
                out.push(text);
            }
        }
    }
    out
}

fn texts(bandwidth: Bandwidth, version: Version) -> Vec<(File, String)> {
    match version {
        Version::V2 => vec![(File::MAX, bandwidth.to_string())],
        Version::V1 => {
            let quota = bandwidth.quota_us.and_then(|us| i64::try_from(us).ok()).unwrap_or(-1);
            vec![(File::CFS_QUOTA, quota.to_string()), (File::CFS_PERIOD, bandwidth.period_us.to_string())]
        }
    }
}

/// What systemd writes for its two properties of a quota.
/// <https://github.com/systemd/systemd/blob/main/src/core/cgroup.c>: `cgroup_cpu_adjust_period`.
fn applied(per_second: u64, period: u64) -> Bandwidth {
    if per_second == INFINITY {
        return Bandwidth::UNLIMITED;
    }
    let period = if period == INFINITY { SYSTEMD_PERIOD_US } else { period };
    let period_us = period.max(1_000).max(1_000_000_000 / per_second).min(1_000_000);
    let quota = u128::from(per_second) * u128::from(period_us) / 1_000_000;
    Bandwidth { quota_us: Some(u64::try_from(quota).unwrap_or(u64::MAX).max(1_000)), period_us }
}

/// The properties that the text of a knob's first file was sent as. On v1 the period is taken for the default one.
pub(in crate::executor) fn of_text(
    file: File,
    text: &str,
    version: Version,
    formula: WeightFormula,
) -> Vec<(&'static str, Property)> {
    let Ok(value) = file.parse(text) else { return Vec::new() };
    if let (File::WEIGHT, Value::Number(weight)) = (file, &value) {
        // As it stands: on the way over shares it would be rounded.
        return vec![("CPUWeight", Property::Number(u64::try_from(*weight).unwrap_or_default()))];
    }
    let values = if file == File::CFS_QUOTA { vec![value, Value::Number(100_000)] } else { vec![value] };
    let setting = file.knob().decode(&values, version, formula);
    setting.map(|setting| setting.properties(version, formula)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::CpuList;

    fn quota(quota_us: Option<u64>, period_us: u64) -> Setting {
        Setting::Quota(Bandwidth { quota_us, period_us })
    }

    #[test]
    fn settings_become_properties() {
        let number = |name: &'static str, value| (name, Property::Number(value));
        let of = |setting: &Setting| setting.properties(Version::V2, WeightFormula::Quadratic);
        let (per_second, period) = ("CPUQuotaPerSecUSec", "CPUQuotaPeriodUSec");
        let full = [number(per_second, 200_000), number(period, u64::MAX)];
        assert_eq!(of(&quota(Some(20_000), 100_000)), full);
        assert_eq!(of(&quota(Some(5_000), 50_000)), [number(per_second, 100_000), number(period, 50_000)]);
        assert_eq!(of(&quota(None, 100_000)), [number(per_second, u64::MAX), number(period, u64::MAX)]);
        assert_eq!(of(&Setting::Shares(1024)), [number("CPUWeight", 100)]);
        assert_eq!(of(&Setting::Idle(true)), [number("CPUWeight", 0)]);
        assert_eq!(of(&Setting::Cpus("0-1,9".parse().unwrap())), [("AllowedCPUs", Property::Mask(vec![3, 2]))]);
        assert_eq!(of(&Setting::Mems(CpuList::default())), [("AllowedMemoryNodes", Property::Mask(vec![]))]);
        assert_eq!(of(&Setting::Burst(1)), []);
        let v1 = Setting::Shares(7).properties(Version::V1, WeightFormula::Quadratic);
        assert_eq!(v1, [number("CPUShares", 7)]);
        assert_eq!(Setting::Cpus("0".parse().unwrap()).properties(Version::V1, WeightFormula::Quadratic), []);
    }

    #[test]
    fn what_systemd_makes_of_a_quota_is_known() {
        // As systemd 262 wrote them in a guest: at once, and after a reload.
        let of = |per_second, period| applied(per_second, period).to_string();
        assert_eq!(of(205_000, INFINITY), "20500 100000");
        assert_eq!(of(333_333, INFINITY), "33333 100000");
        assert_eq!(of(333_300, INFINITY), "33330 100000");
        assert_eq!(of(3_000, INFINITY), "1000 333333");
        assert_eq!(of(INFINITY, 50_000), "max 100000");
        let texts = |setting| echoes(&setting, Version::V2).into_iter().map(|(_, text)| text).collect::<Vec<_>>();
        assert_eq!(texts(quota(Some(33_333), 100_000)), ["33333 100000", "33330 100000", "33000 100000"]);
        assert_eq!(texts(quota(Some(20_000), 100_000)), ["20000 100000"]);
        assert_eq!(texts(quota(None, 50_000)), ["max 100000"]);
        assert_eq!(texts(quota(Some(1_000), 1_000_000)), ["1000 1000000"]);
        assert_eq!(
            echoes(&quota(None, 50_000), Version::V1),
            [(File::CFS_QUOTA, "-1".to_owned()), (File::CFS_PERIOD, "100000".to_owned())]
        );
    }

    #[test]
    fn what_a_reload_rounds_is_known_again() {
        let is_from = |own, found| is_from(QUOTA, &Property::Number(own), &Property::Number(found));
        assert!(is_from(333_333, 333_333) && is_from(333_333, 333_300) && is_from(333_333, 330_000));
        assert!(!is_from(333_333, 333_000) && !is_from(INFINITY, 330_000) && is_from(INFINITY, INFINITY));
    }

    #[test]
    fn files_follow_from_properties() {
        let of = |known: &'static [(&str, u64)]| {
            let value = |name: &str| known.iter().find(|(own, _)| *own == name).map(|(_, value)| *value);
            files(value, Version::V2)
        };
        assert_eq!(of(&[("CPUQuotaPerSecUSec", INFINITY)]), [(File::MAX, "max 100000".to_owned())]);
        let full = of(&[("CPUQuotaPerSecUSec", 205_000), ("CPUQuotaPeriodUSec", 50_000), ("CPUWeight", INFINITY)]);
        assert_eq!(full, [(File::MAX, "10250 50000".to_owned()), (File::WEIGHT, "100".to_owned())]);
        assert_eq!(of(&[("CPUWeight", 0)]), [(File::IDLE, "1".to_owned())]);
        assert_eq!(of(&[]), []);
    }

    #[test]
    fn a_property_is_shown_as_people_read_it() {
        for (property, shown) in [
            (Property::Number(u64::MAX), "infinity"),
            (Property::Number(200_000), "200000"),
            (Property::Mask(vec![]), "all"),
            (Property::from_bytes(vec![3, 2, 0, 0]), "0-1,9"),
        ] {
            assert_eq!(property.to_string(), shown);
        }
    }

    #[test]
    fn a_drop_in_is_named_after_the_setting_of_unit_files() {
        assert_eq!(drop_in("CPUQuotaPerSecUSec"), "50-CPUQuota.conf");
        assert_eq!(drop_in("CPUQuotaPeriodUSec"), "50-CPUQuotaPeriodSec.conf");
        assert_eq!(drop_in("CPUWeight"), "50-CPUWeight.conf");
    }

    #[test]
    fn texts_of_an_older_journal_become_what_was_sent() {
        let of = |file, text| of_text(file, text, Version::V2, WeightFormula::Quadratic);
        let number = |name: &'static str, value| (name, Property::Number(value));
        assert_eq!(
            of(File::MAX, "max 100000"),
            [number("CPUQuotaPerSecUSec", u64::MAX), number("CPUQuotaPeriodUSec", u64::MAX)]
        );
        assert_eq!(of(File::WEIGHT, "79"), [number("CPUWeight", 79)]);
        assert_eq!(of(File::IDLE, "1"), [number("CPUWeight", 0)]);
        assert_eq!(of(File::CPUS, "0"), [("AllowedCPUs", Property::Mask(vec![1]))]);
        assert_eq!(of(File::MAX, "nonsense"), []);
    }
}

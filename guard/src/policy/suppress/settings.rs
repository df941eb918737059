//! The section `[suppress]` of the configuration.

use serde::{Deserialize, Serialize};

use crate::policy::check::{self, Invalid};
use crate::snapshot::{BudgetMetric, Word};

/// The section `[suppress]` of the configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SuppressSettings {
    /// What decides how much best-effort work gets: "latency" (measured wake-up latency against budgets), "pressure" (a
    /// table over CPU pressure), "threshold" (Koordinator's formula over utilisation) or "off".
    pub profile: Profile,
    /// How it is enforced: "quota" or "cpuset".
    pub form: Form,
    /// No best-effort cgroup gets less than this by its quota, in thousandths of a CPU.
    pub min_quota_milli: u64,
    /// Best-effort work as a whole keeps at least this many CPUs where form is "cpuset".
    pub min_cpus: u64,
    /// Best-effort work as a whole keeps at least this share of the node, percent.
    pub min_percent: u64,
    /// Its allowance grows by at most this share of the node in a second, percent. It shrinks without limit.
    pub max_rise_percent: u64,
    /// The allowance at which latency or pressure last became too high is remembered, and growth stops at this share of
    /// it, percent.
    pub settle_percent: u64,
    /// For how long it is remembered, s. Doubled each time it happens again soon after it was forgotten.
    pub forget_s: f64,
    /// Bound of that doubling, s.
    pub forget_max_s: f64,
    /// CPU kept for the system besides what reserved_cpus in `[node]` keep, in thousandths of a CPU; the larger of the
    /// two counts.
    pub reserved_milli: u64,
    /// From how many priority boosts for futexes in an interval a best-effort cgroup counts as sharing a lock with a PLC. It is
    /// then not throttled: a throttled lock holder is worse than the noise. 0 turns this evidence off.
    pub shared_lock_boosts: u64,
    /// For how long that is remembered, s.
    pub shared_lock_memory_s: f64,
    /// Profile "latency".
    pub latency: LatencySettings,
    /// Profile "pressure".
    pub pressure: PressureSettings,
    /// Profile "threshold".
    pub threshold: ThresholdSettings,
}

/// What decides how much best-effort work gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Nothing: best-effort work is left alone.
    Off,
    /// Measured wake-up latency against budgets.
    #[default]
    Latency,
    /// A table over CPU pressure.
    Pressure,
    /// Koordinator's formula over utilisation.
    Threshold,
}

impl Profile {
    /// Its name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Latency => "latency",
            Self::Pressure => "pressure",
            Self::Threshold => "threshold",
        }
    }
}

/// How an allowance is enforced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// By CFS quota.
    #[default]
    Quota,
    /// By the set of CPUs.
    Cpuset,
}

/// Section [suppress.latency].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LatencySettings {
    /// Which latency of a PLC cgroup without budgets of its own is judged, as in its budgets.
    pub plc_metric: Word<BudgetMetric>,
    /// Its limit, us; 0 for none.
    pub plc_limit_us: u64,
    /// Which latency of an LS, LSR or LSE cgroup without budgets of its own is judged.
    pub ls_metric: Word<BudgetMetric>,
    /// Its limit, us; 0 for none.
    pub ls_limit_us: u64,
    /// On a breach the allowance is multiplied by this, percent.
    pub cut_percent: u64,
    /// Below this share of the budget the allowance may grow; between it and the budget it stays, percent.
    pub calm_percent: u64,
    /// After a cut the allowance does not grow for this long, s.
    pub hold_s: f64,
    /// By how much of the node the allowance grows in a second, percent; max_rise_percent bounds it.
    pub rise_percent: u64,
}

/// Section [suppress.pressure].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PressureSettings {
    /// Pressure (percent) and the share of the base quota that best-effort work gets from there on, ascending.
    pub table: Vec<(f64, f64)>,
    /// How far below a row's pressure it must fall before the row is left, in points of percent; without it a load that
    /// answers to its quota would swing between two rows.
    pub hysteresis: f64,
    /// For how long it must stay there, s.
    pub hold_s: f64,
}

/// Section [suppress.threshold].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ThresholdSettings {
    /// Share of the node's capacity that all work together may use, percent.
    pub percent: u64,
    /// Changes smaller than this share of the node are not made, percent.
    pub bypass_percent: u64,
}

impl Default for SuppressSettings {
    fn default() -> Self {
        Self {
            profile: Profile::default(),
            form: Form::default(),
            min_quota_milli: 20,
            min_cpus: 2,
            min_percent: 0,
            max_rise_percent: 10,
            settle_percent: 80,
            forget_s: 60.0,
            forget_max_s: 3600.0,
            reserved_milli: 0,
            shared_lock_boosts: 1,
            shared_lock_memory_s: 600.0,
            latency: LatencySettings::default(),
            pressure: PressureSettings::default(),
            threshold: ThresholdSettings::default(),
        }
    }
}

impl Default for LatencySettings {
    fn default() -> Self {
        Self {
            plc_metric: "wakeup.p99".into(),
            plc_limit_us: 200,
            ls_metric: "wakeup.p99".into(),
            ls_limit_us: 0,
            cut_percent: 50,
            calm_percent: 70,
            hold_s: 10.0,
            rise_percent: 5,
        }
    }
}

impl Default for PressureSettings {
    fn default() -> Self {
        Self { table: vec![(40.0, 1.0), (50.0, 0.8), (80.0, 0.3), (95.0, 0.1)], hysteresis: 5.0, hold_s: 5.0 }
    }
}

impl Default for ThresholdSettings {
    fn default() -> Self {
        Self { percent: 65, bypass_percent: 1 }
    }
}

impl SuppressSettings {
    /// Whether the values make sense.
    ///
    /// # Errors
    /// The first field that does not.
    pub fn validate(&self) -> Result<(), Invalid> {
        check::within("suppress.min_quota_milli", self.min_quota_milli, 10..=1_000_000)?;
        check::within("suppress.min_cpus", self.min_cpus, 1..=8192)?;
        check::within("suppress.min_percent", self.min_percent, 0..=100)?;
        check::within("suppress.max_rise_percent", self.max_rise_percent, 1..=10)?;
        check::seconds("suppress.shared_lock_memory_s", self.shared_lock_memory_s)?;
        check::within("suppress.settle_percent", self.settle_percent, 1..=99)?;
        check::seconds("suppress.forget_s", self.forget_s)?;
        check::seconds("suppress.forget_max_s", self.forget_max_s)?;
        if self.forget_max_s < self.forget_s {
            return Err(Invalid::new(
                "suppress.forget_max_s",
                format!("{} is less than forget_s ({})", self.forget_max_s, self.forget_s),
            ));
        }

        self.latency.validate()?;
        self.pressure.validate()?;
        check::within("suppress.threshold.percent", self.threshold.percent, 1..=100)?;
        check::within("suppress.threshold.bypass_percent", self.threshold.bypass_percent, 0..=50)
    }
}

impl LatencySettings {
    fn validate(&self) -> Result<(), Invalid> {
        check::metric("suppress.latency.plc_metric", &self.plc_metric)?;
        check::metric("suppress.latency.ls_metric", &self.ls_metric)?;
        check::within("suppress.latency.cut_percent", self.cut_percent, 1..=99)?;
        check::within("suppress.latency.calm_percent", self.calm_percent, 1..=99)?;
        check::seconds("suppress.latency.hold_s", self.hold_s)?;
        check::within("suppress.latency.rise_percent", self.rise_percent, 1..=10)
    }
}

impl PressureSettings {
    fn validate(&self) -> Result<(), Invalid> {
        let field = "suppress.pressure.table";
        if self.table.is_empty() {
            return Err(Invalid::new(field, "has no row".into()));
        }
        for (pressure, ratio) in &self.table {
            check::fraction(field, pressure / 100.0)?;
            check::fraction(field, *ratio)?;
        }
        if self.table.windows(2).any(|pair| pair[0].0 >= pair[1].0 || pair[0].1 < pair[1].1) {
            return Err(Invalid::new(field, "pressures must ascend and shares must not".into()));
        }
        check::fraction("suppress.pressure.hysteresis", self.hysteresis / 100.0)?;
        check::seconds("suppress.pressure.hold_s", self.hold_s)
    }
}

//! systemd as the owner of its units' limits. It writes cgroup files from what it knows of a unit, at every
//! daemon-reload, so what guard writes to a unit's own cgroup is told to it as well: SetUnitProperties(runtime), which lasts
//! until the next boot. Cgroups below a unit (delegated ones: a container's) are not systemd's business.

use std::{path::Path, time::Duration};

use serde::{Deserialize, Serialize};
use zbus::{
    blocking::{Connection, connection::Builder},
    zvariant::{OwnedObjectPath, OwnedValue, Value},
};

use super::{Version, WeightFormula};
use crate::snapshot::{CpuList, Knob, Setting};

const PRIVATE_SOCKET: &str = "run/systemd/private";
const MANAGER: (&str, &str) = ("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager");
/// Not set, or no limit.
const INFINITY: u64 = u64::MAX;
/// systemd answers in about a millisecond; a hanging one must not hold up everything else.
const PATIENCE: Duration = Duration::from_millis(500);

/// The value of a unit's property.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Property {
    /// Times in us, weights.
    Number(u64),
    /// A bit per CPU or NUMA node, lowest first.
    Mask(Vec<u8>),
}

/// A unit, and what its properties were before guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unit {
    pub(super) name: String,
    pub(super) properties: Vec<(String, Property)>,
}

/// The connection to systemd, where it runs.
#[derive(Debug, Default)]
pub(super) struct Systemd {
    connection: Option<Connection>,
}

impl Systemd {
    /// Connects where systemd runs on this machine: over its private socket, which needs no bus; else over the system bus.
    /// For a `root` other than "/" there is none.
    pub(super) fn connect(root: &Path) -> Self {
        if root != Path::new("/") || !Path::new("/run/systemd/system").is_dir() {
            return Self::default();
        }
        let private = root.join(PRIVATE_SOCKET);
        let builder = if private.exists() {
            Builder::address(format!("unix:path={}", private.display()).as_str()).map(Builder::p2p)
        } else {
            Builder::system()
        };
        match builder.and_then(|builder| builder.method_timeout(PATIENCE).build()) {
            Ok(connection) => Self { connection: Some(connection) },
            Err(error) => {
                tracing::warn!("cannot reach systemd, whose reloads may undo changes to its units: {error}");
                Self::default()
            }
        }
    }

    /// The unit whose own cgroup this is, with its present properties for a knob; None when it is not systemd's.
    pub(super) fn unit(&self, path: &str, knob: Knob, version: Version) -> Option<Unit> {
        let (connection, name) = (self.connection.as_ref()?, unit_name(path)?);
        let names = property_names(knob, version);
        if names.is_empty() {
            return None;
        }
        let unit: OwnedObjectPath =
            call(connection, MANAGER.0, MANAGER.1, "GetUnit", &name)?.body().deserialize().ok()?;
        let interface = interface(name)?;
        let get = |property: &str| -> Option<OwnedValue> {
            let arguments = (interface, property);
            call(connection, unit.as_str(), "org.freedesktop.DBus.Properties", "Get", &arguments)?
                .body()
                .deserialize()
                .ok()
        };
        // A unit of the same name inside a container is another systemd's.
        if String::try_from(get("ControlGroup")?).ok()? != path {
            return None;
        }
        let property = |name: &&str| {
            let value = get(name)?;
            let number = value.downcast_ref::<u64>().ok().map(Property::Number);
            let property = number.or_else(|| Vec::<u8>::try_from(value).ok().map(Property::Mask))?;
            Some(((*name).to_owned(), property))
        };
        let properties = names.iter().map(property).collect::<Option<Vec<_>>>()?;
        Some(Unit { name: name.to_owned(), properties })
    }

    /// Sets properties until the next boot. When this returns, systemd has written the cgroup files.
    pub(super) fn set(&self, unit: &str, properties: &[(String, Property)]) {
        let Some(connection) = &self.connection else { return };
        let values: Vec<(&str, Value<'_>)> =
            properties.iter().map(|(name, property)| (name.as_str(), property.value())).collect();
        if call(connection, MANAGER.0, MANAGER.1, "SetUnitProperties", &(unit, true, values)).is_some() {
            // It writes after it has answered and before it answers again.
            call(connection, MANAGER.0, MANAGER.1, "GetUnit", &unit);
        }
    }
}

impl Property {
    fn value(&self) -> Value<'_> {
        match self {
            Self::Number(number) => Value::from(*number),
            Self::Mask(mask) => Value::from(mask.clone()),
        }
    }
}

fn call<B>(connection: &Connection, path: &str, interface: &str, method: &str, body: &B) -> Option<zbus::Message>
where
    B: serde::Serialize + zbus::zvariant::DynamicType,
{
    // Ignored by the private socket.
    let systemd = Some("org.freedesktop.systemd1");
    match connection.call_method(systemd, path, Some(interface), method, body) {
        Ok(message) => Some(message),
        Err(error) => {
            tracing::debug!("systemd: {method}: {error}");
            None
        }
    }
}

/// The unit that a cgroup's path names in its last part.
fn unit_name(path: &str) -> Option<&str> {
    path.rsplit('/').next().filter(|name| interface(name).is_some())
}

fn interface(unit: &str) -> Option<&'static str> {
    match unit.rsplit_once('.')?.1 {
        "slice" => Some("org.freedesktop.systemd1.Slice"),
        "scope" => Some("org.freedesktop.systemd1.Scope"),
        "service" => Some("org.freedesktop.systemd1.Service"),
        _ => None,
    }
}

fn property_names(knob: Knob, version: Version) -> &'static [&'static str] {
    match (knob, version) {
        (Knob::Quota, _) => &["CPUQuotaPerSecUSec", "CPUQuotaPeriodUSec"],
        (Knob::Shares | Knob::Idle, Version::V2) => &["CPUWeight"],
        (Knob::Shares, Version::V1) => &["CPUShares"],
        (Knob::Cpus, Version::V2) => &["AllowedCPUs"],
        (Knob::Mems, Version::V2) => &["AllowedMemoryNodes"],
        _ => &[],
    }
}

/// The properties that a setting is; none when systemd knows nothing of that knob.
pub(super) fn properties(setting: &Setting, version: Version, formula: WeightFormula) -> Vec<(String, Property)> {
    let values = match (setting, version) {
        (Setting::Quota(bandwidth), _) => {
            let period = bandwidth.period_us.max(1);
            let per_second = bandwidth.quota_us.map_or(INFINITY, |us| us.saturating_mul(1_000_000) / period);
            // 100 ms is what systemd takes when nothing is set.
            let period = if period == 100_000 { INFINITY } else { period };
            vec![Property::Number(per_second), Property::Number(period)]
        }
        (Setting::Shares(shares), Version::V2) => vec![Property::Number(formula.weight(*shares))],
        (Setting::Shares(shares), Version::V1) => vec![Property::Number(*shares)],
        // Since systemd 252; older ones refuse it, and know nothing of cpu.idle that they could undo.
        (Setting::Idle(true), Version::V2) => vec![Property::Number(0)],
        (Setting::Cpus(list) | Setting::Mems(list), Version::V2) => vec![Property::Mask(mask(list))],
        _ => Vec::new(),
    };
    property_names(setting.knob(), version).iter().map(|name| (*name).to_owned()).zip(values).collect()
}

fn mask(list: &CpuList) -> Vec<u8> {
    let mut bytes = Vec::new();
    for cpu in list.iter() {
        let at = cpu as usize / 8;
        bytes.resize(bytes.len().max(at + 1), 0);
        bytes[at] |= 1 << (cpu % 8);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Bandwidth;

    #[test]
    fn units_are_told_by_the_last_part_of_the_path() {
        for (path, unit) in [
            ("/system.slice/foo.service", Some("foo.service")),
            ("/kubepods.slice", Some("kubepods.slice")),
            ("/machine.slice/libpod-1.scope", Some("libpod-1.scope")),
            ("/machine.slice/libpod-1.scope/container", None),
            ("/kubepods/pod1", None),
            ("/", None),
        ] {
            assert_eq!(unit_name(path), unit, "{path}");
        }
    }

    #[test]
    fn settings_become_properties() {
        let quota = |quota_us, period_us| Setting::Quota(Bandwidth { quota_us, period_us });
        let number = |name: &str, value| (name.to_owned(), Property::Number(value));
        let of = |setting: &Setting| properties(setting, Version::V2, WeightFormula::Quadratic);
        let (per_second, period) = ("CPUQuotaPerSecUSec", "CPUQuotaPeriodUSec");
        assert_eq!(of(&quota(Some(20_000), 100_000)), [number(per_second, 200_000), number(period, u64::MAX)]);
        assert_eq!(of(&quota(Some(5_000), 50_000)), [number(per_second, 100_000), number(period, 50_000)]);
        assert_eq!(of(&quota(None, 100_000)), [number(per_second, u64::MAX), number(period, u64::MAX)]);
        assert_eq!(of(&Setting::Shares(1024)), [number("CPUWeight", 100)]);
        assert_eq!(of(&Setting::Idle(true)), [number("CPUWeight", 0)]);
        assert_eq!(
            of(&Setting::Cpus("0-1,9".parse().unwrap())),
            [("AllowedCPUs".to_owned(), Property::Mask(vec![3, 2]))]
        );
        assert_eq!(of(&Setting::Burst(1)), []);
    }
}

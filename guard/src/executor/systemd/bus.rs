//! systemd on the bus: the calls that guard makes, each with a time-out.

use std::{fmt, time::Duration};

use tokio::time::timeout;
use zbus::{
    Connection, Message,
    connection::Builder,
    zvariant::{DynamicType, OwnedObjectPath, OwnedValue, Value},
};

use crate::knob::Property;

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: (&str, &str) = ("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager");
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const UNIT: &str = "org.freedesktop.systemd1.Unit";

/// Why a call brought nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Bus or systemd cannot be reached, or are silent. Another connection may help.
    Away(String),
    /// There is no bus at this address.
    NoBus(String),
    /// systemd has no unit of this name.
    NoUnit,
    /// This systemd has no such property.
    NoProperty,
    /// systemd does not want to, or answers what guard does not understand.
    Refused(String),
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away(said) | Self::NoBus(said) | Self::Refused(said) => f.write_str(said),
            Self::NoUnit => f.write_str("systemd has no such unit"),
            Self::NoProperty => f.write_str("systemd has no such property"),
        }
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Bus {
    connection: Connection,
    patience: Duration,
}

/// A unit that systemd has loaded.
#[derive(Debug)]
pub(super) struct Unit {
    name: String,
    path: OwnedObjectPath,
    interface: &'static str,
}

impl Unit {
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Bus {
    /// Connects to the system bus, or to the one at `address`.
    pub(super) async fn connect(address: Option<&str>, patience: Duration) -> Result<Self, Answer> {
        let builder = match address {
            Some(address) => Builder::address(address),
            None => Builder::system(),
        };
        let building = async { builder?.build().await };
        match timeout(patience, building).await {
            Ok(Ok(connection)) => Ok(Self { connection, patience }),
            Ok(Err(error)) => Err(of_connecting(&error)),
            Err(_) => Err(Answer::Away(format!("the bus says nothing for {patience:?}"))),
        }
    }

    /// How long to wait for answers from now on.
    pub(super) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// A unit by its name. With `load` one that is not loaded is.
    pub(super) async fn unit(&self, name: &str, load: bool) -> Result<Unit, Answer> {
        let interface = interface(name).ok_or(Answer::NoUnit)?;
        let method = if load { "LoadUnit" } else { "GetUnit" };
        let path = self.call(MANAGER.0, MANAGER.1, method, &name).await?;
        let path: OwnedObjectPath = path.body().deserialize().map_err(|error| misunderstood(method, &error))?;
        Ok(Unit { name: name.to_owned(), path, interface })
    }

    /// Path of the unit's cgroup; empty when it has none now.
    pub(super) async fn control_group(&self, unit: &Unit) -> Result<String, Answer> {
        self.text(unit, unit.interface, "ControlGroup").await
    }

    /// Whether its unit file could be loaded.
    pub(super) async fn is_loaded(&self, unit: &Unit) -> Result<bool, Answer> {
        Ok(self.text(unit, UNIT, "LoadState").await? == "loaded")
    }

    /// Whether it was made by a call and has no unit file of its own.
    pub(super) async fn is_transient(&self, unit: &Unit) -> Result<bool, Answer> {
        let value = self.get(unit, UNIT, "Transient").await?;
        bool::try_from(value).map_err(|error| misunderstood("Transient", &error))
    }

    /// A property that guard sets.
    pub(super) async fn property(&self, unit: &Unit, name: &str) -> Result<Property, Answer> {
        let value = self.get(unit, unit.interface, name).await?;
        match value.downcast_ref::<u64>() {
            Ok(number) => Ok(Property::Number(number)),
            Err(_) => Vec::<u8>::try_from(value).map(Property::from_bytes).map_err(|error| misunderstood(name, &error)),
        }
    }

    /// Sets properties until the next boot.
    ///
    /// systemd writes cgroup files after it has answered, and before it answers again.
    pub(super) async fn set(&self, unit: &Unit, properties: &[(String, Property)]) -> Result<(), Answer> {
        let values: Vec<(&str, Value<'_>)> = properties.iter().map(|(name, to)| (name.as_str(), to.value())).collect();
        let until_next_boot = true;
        let arguments = (unit.name.as_str(), until_next_boot, values);
        self.call(MANAGER.0, MANAGER.1, "SetUnitProperties", &arguments).await.map(drop)
    }

    async fn text(&self, unit: &Unit, interface: &str, name: &str) -> Result<String, Answer> {
        let value = self.get(unit, interface, name).await?;
        String::try_from(value).map_err(|error| misunderstood(name, &error))
    }

    async fn get(&self, unit: &Unit, interface: &str, name: &str) -> Result<OwnedValue, Answer> {
        let value = self.call(unit.path.as_str(), PROPERTIES, "Get", &(interface, name)).await?;
        value.body().deserialize().map_err(|error| misunderstood(name, &error))
    }

    async fn call<B>(&self, path: &str, interface: &str, method: &str, body: &B) -> Result<Message, Answer>
    where
        B: serde::Serialize + DynamicType,
    {
        let calling = self.connection.call_method(Some(SYSTEMD), path, Some(interface), method, body);
        match timeout(self.patience, calling).await {
            Ok(answer) => answer.map_err(|error| of_calling(method, &error)),
            Err(_) => Err(Answer::Away(format!("systemd does not answer {method} within {:?}", self.patience))),
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

/// Names of errors that say that systemd is not there just now: `org.freedesktop.DBus.Error.` and this.
const AWAY: [&str; 7] =
    ["NoReply", "Timeout", "TimedOut", "Disconnected", "ServiceUnknown", "NameHasNoOwner", "NoServer"];

fn of_calling(method: &str, error: &zbus::Error) -> Answer {
    let said = format!("{method}: {error}");
    match error {
        zbus::Error::MethodError(name, text, _) => {
            let said = format!("{method}: {}", text.as_deref().unwrap_or(name.as_str()));
            match name.as_str() {
                "org.freedesktop.systemd1.NoSuchUnit" => Answer::NoUnit,
                "org.freedesktop.DBus.Error.UnknownProperty" => Answer::NoProperty,
                name => match name.strip_prefix("org.freedesktop.DBus.Error.") {
                    Some(short) if AWAY.contains(&short) || short.starts_with("Spawn.") => Answer::Away(said),
                    _ => Answer::Refused(said),
                },
            }
        }
        zbus::Error::InputOutput(_) => Answer::Away(said),
        _ => Answer::Refused(said),
    }
}

fn of_connecting(error: &zbus::Error) -> Answer {
    let said = format!("cannot connect to the system bus: {error}");
    match error {
        zbus::Error::InputOutput(error)
            if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused) =>
        {
            Answer::NoBus(said)
        }
        _ => Answer::Away(said),
    }
}

fn misunderstood(what: &str, error: &impl fmt::Display) -> Answer {
    Answer::Refused(format!("systemd answers {what} with something else: {error}"))
}

/// The D-Bus interface of a unit's kind; `None` for kinds without a cgroup, and for what is no unit's name.
pub(super) fn interface(unit: &str) -> Option<&'static str> {
    let (_, kind) = unit.rsplit_once('.').filter(|(name, _)| !name.is_empty())?;
    match kind {
        "slice" => Some("org.freedesktop.systemd1.Slice"),
        "scope" => Some("org.freedesktop.systemd1.Scope"),
        "service" => Some("org.freedesktop.systemd1.Service"),
        _ => None,
    }
}

/// The unit that a cgroup's path names in its last part. systemd puts a "_" before names that the kernel could take for one of
/// its own files.
pub(super) fn unit_name(path: &str) -> Option<&str> {
    let last = path.rsplit('/').next()?;
    let name = last.strip_prefix('_').unwrap_or(last);
    interface(name).map(|_| name)
}

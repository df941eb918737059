//! The section `[metrics]`: where metrics are shown, and how many series there may be.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The section `[metrics]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Where they are shown over HTTP; empty for nowhere.
    #[serde(with = "listen")]
    pub listen: Option<Endpoint>,
    /// Whether that may be an address that other machines reach.
    pub allow_remote: bool,
    /// Cgroups with series of their own; the others share some.
    pub max_cgroups: usize,
    /// Pairs of cgroup and thread name with series of their own; the others share some.
    pub max_threads: usize,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { listen: None, allow_remote: false, max_cgroups: 200, max_threads: 100 }
    }
}

/// Where HTTP is spoken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Address and port, as `127.0.0.1:9469` or `[::1]:9469`.
    Tcp(SocketAddr),
    /// A Unix socket, as "http+unix:/run/guard/metrics.sock".
    Unix(PathBuf),
}

/// A text that is no [`Endpoint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("want an IP address with its port, such as 127.0.0.1:9469, or http+unix: with the full path of a socket")]
pub struct EndpointError;

impl Endpoint {
    /// Whether other machines may reach it.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Tcp(address) if !address.ip().to_canonical().is_loopback())
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        match text.strip_prefix("http+unix:") {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(_) => Err(EndpointError),
            None => text.parse().map(Self::Tcp).map_err(|_| EndpointError),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "http+unix:{}", path.display()),
        }
    }
}

/// An endpoint or an empty text.
mod listen {
    use super::{Deserialize as _, Deserializer, Endpoint, Serializer, de};

    #[allow(clippy::ref_option, reason = "the signature serde asks for")]
    pub(super) fn serialize<S: Serializer>(endpoint: &Option<Endpoint>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&endpoint.as_ref().map(Endpoint::to_string).unwrap_or_default())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Endpoint>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(de::Error::custom) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_addresses_with_a_port_or_full_paths() {
        for (text, remote) in [
            ("127.0.0.1:9469", false),
            ("127.8.8.8:1", false),
            ("[::1]:9469", false),
            ("[::ffff:127.0.0.1]:9469", false),
            ("http+unix:/run/guard/metrics.sock", false),
            ("0.0.0.0:9469", true),
            ("[::]:9469", true),
            ("192.168.1.7:9469", true),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!((endpoint.is_remote(), endpoint.to_string()), (remote, text.to_owned()));
        }
        for text in ["", "9469", "localhost:9469", "127.0.0.1", "http+unix:run/x", "unix:/run/x", "127.0.0.1:99999"] {
            assert_eq!(text.parse::<Endpoint>(), Err(EndpointError), "{text}");
        }
    }
}

//! Values of systemd's properties, by which it owns knobs of its units' cgroups.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::snapshot::CpuList;

/// Not set, or no limit.
pub(crate) const INFINITY: u64 = u64::MAX;

/// The value of a unit's property.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Property {
    /// Times in us, weights.
    Number(u64),
    /// A bit per CPU or NUMA node, lowest first, without zeros at its end.
    Mask(Vec<u8>),
}

impl Property {
    pub(crate) fn from_bytes(mut bytes: Vec<u8>) -> Self {
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        bytes.truncate(end);
        Self::Mask(bytes)
    }

    pub(crate) fn mask(list: &CpuList) -> Self {
        let mut bytes = Vec::new();
        for cpu in list.iter() {
            let at = cpu as usize / 8;
            bytes.resize(bytes.len().max(at + 1), 0);
            bytes[at] |= 1 << (cpu % 8);
        }
        Self::Mask(bytes)
    }
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(INFINITY) => f.write_str("infinity"),
            Self::Number(number) => number.fmt(f),
            Self::Mask(bytes) if bytes.is_empty() => f.write_str("all"),
            Self::Mask(bytes) => {
                let bits = bytes
                    .iter()
                    .enumerate()
                    .flat_map(|(at, byte)| (0..8).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| at * 8 + bit));
                bits.filter_map(|bit| u32::try_from(bit).ok()).collect::<CpuList>().fmt(f)
            }
        }
    }
}

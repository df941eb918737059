//! Knobs and their values, typed: one vocabulary for all nodes, shared by whoever decides, writes and shows them.

use serde::{Deserialize, Serialize};

use super::value::{Quantity, Value};
use crate::snapshot::{Bandwidth, CpuList, Partition};

macro_rules! kinds {
    ($($file:ident { $($name:ident($carries:ty) = $row:ident),* })*) => {
        /// Which knob. What is known of it stands in its row.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Knob {
            $($(#[doc = concat!("`knob/", stringify!($file), ".rs`.")] $name,)*)*
        }

        /// A knob and the value it is to have.
        ///
        /// ```
        /// use guard::{knob::{Setting, Version, WeightFormula}, snapshot::Bandwidth};
        /// let half = Setting::Quota(Bandwidth { quota_us: Some(50_000), period_us: 100_000 });
        /// let files = half.values(Version::V2, WeightFormula::default());
        /// assert_eq!(files[0].0.name(), "cpu.max");
        /// assert_eq!(files[0].0.text(&files[0].1), "50000 100000");
        /// ```
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Setting {
            $($(#[doc = concat!("[`Knob::", stringify!($name), "`].")] $name($carries),)*)*
        }

        impl Setting {
            /// Which knob it sets.
            #[must_use]
            pub fn knob(&self) -> Knob {
                match self {
                    $($(Self::$name(_) => Knob::$name,)*)*
                }
            }

            /// The value alone.
            #[must_use]
            pub fn value(&self) -> Value {
                match self {
                    $($(Self::$name(carried) => carried.to_value(),)*)*
                }
            }
        }

        impl Knob {
            /// The setting that gives it this value; `None` when it has no such values.
            #[must_use]
            pub fn setting(self, value: &Value) -> Option<Setting> {
                match self {
                    $($(Self::$name => <$carries>::from_value(value).map(Setting::$name),)*)*
                }
            }
        }
    };
}

knobs!(kinds);

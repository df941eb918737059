//! What a file of a knob says, parsed, and how files write it. Values are compared as parsed, never as text.

use super::text::{ParseError, parse_u64};
use crate::snapshot::{Bandwidth, CpuList, Partition};

/// What a file says, or what a knob is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A quota per period.
    Bandwidth(Bandwidth),
    /// A number; -1 for no limit where the knob has limits.
    Number(i64),
    /// CPUs or NUMA nodes.
    List(CpuList),
    /// A partition, and whether the kernel honours it.
    Partition(Partition, bool),
}

/// "No limit" as a number.
pub(crate) const NO_LIMIT: Value = Value::Number(-1);

impl Value {
    /// As an amount; no limit is more than any.
    pub(super) fn amount(&self) -> i64 {
        let us = |us: Option<u64>| us.and_then(|us| i64::try_from(us).ok()).unwrap_or(i64::MAX);
        match self {
            Self::Bandwidth(bandwidth) => us(bandwidth.quota_us),
            &NO_LIMIT => i64::MAX,
            Self::Number(number) => *number,
            Self::List(_) | Self::Partition(..) => 0,
        }
    }

    /// Whether it allows all that `other` allows.
    pub(super) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bandwidth(own), Self::Bandwidth(of)) => own.covers(*of),
            (Self::List(own), Self::List(of)) => of.iter().all(|each| own.contains(each)),
            (Self::Number(_), Self::Number(_)) => self.amount() >= other.amount(),
            _ => true,
        }
    }

    /// As it was written: without what the kernel says of it.
    pub(super) fn as_written(&self) -> Self {
        match self {
            Self::Partition(partition, _) => Self::Partition(*partition, true),
            _ => self.clone(),
        }
    }

    /// Whether the kernel has the value in its file and does not act by it.
    pub(crate) fn is_dishonoured(&self) -> bool {
        matches!(self, Self::Partition(_, false))
    }

    /// As a number that is not negative.
    pub(crate) fn unsigned(&self) -> Option<u64> {
        match self {
            Self::Number(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }
}

/// How a value is written.
#[derive(Clone, Copy)]
pub(crate) struct Format {
    /// What a text says; the text has no white space at its ends.
    pub(crate) parse: fn(&str) -> Result<Value, ParseError>,
    /// The text of a value.
    pub(crate) show: fn(&Value) -> String,
}

/// A number, 0 or more.
pub(super) const NUMBER: Format = Format {
    parse: |text| {
        let number = i64::try_from(parse_u64(text)?);
        number.map(Value::Number).map_err(|_| ParseError::new("a number below 2^63", text))
    },
    show: |value| show_number(value),
};

/// A number of us, or -1 for no limit.
pub(super) const US_OR_NO_LIMIT: Format = Format {
    parse: |text| {
        let number: i64 = text.parse().map_err(|_| ParseError::new("a number of us, or -1", text))?;
        Ok(Value::Number(number.max(-1)))
    },
    show: |value| show_number(value),
};

fn show_number(value: &Value) -> String {
    match value {
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

/// A type that a setting carries.
pub(crate) trait Quantity: Sized {
    /// As a value.
    fn to_value(&self) -> Value;
    /// From a value; `None` when it is not of this type.
    fn from_value(value: &Value) -> Option<Self>;
}

impl Quantity for Bandwidth {
    fn to_value(&self) -> Value {
        Value::Bandwidth(*self)
    }

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Bandwidth(bandwidth) => Some(*bandwidth),
            _ => None,
        }
    }
}

impl Quantity for u64 {
    fn to_value(&self) -> Value {
        Value::Number(i64::try_from(*self).unwrap_or(i64::MAX))
    }

    fn from_value(value: &Value) -> Option<Self> {
        value.unsigned()
    }
}

impl Quantity for u32 {
    fn to_value(&self) -> Value {
        Value::Number(i64::from(*self))
    }

    fn from_value(value: &Value) -> Option<Self> {
        value.unsigned().and_then(|value| Self::try_from(value).ok())
    }
}

impl Quantity for i64 {
    fn to_value(&self) -> Value {
        Value::Number(*self)
    }

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }
}

impl Quantity for bool {
    fn to_value(&self) -> Value {
        Value::Number(i64::from(*self))
    }

    fn from_value(value: &Value) -> Option<Self> {
        value.unsigned().map(|value| value == 1)
    }
}

impl Quantity for CpuList {
    fn to_value(&self) -> Value {
        Value::List(self.clone())
    }

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::List(list) => Some(list.clone()),
            _ => None,
        }
    }
}

impl Quantity for Partition {
    fn to_value(&self) -> Value {
        Value::Partition(*self, true)
    }

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Partition(partition, _) => Some(*partition),
            _ => None,
        }
    }
}

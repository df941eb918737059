//! Names of interrupts for people.

use std::collections::BTreeMap;

use guard_common::flight::{VECTOR, vector};

/// Devices by the number of their interrupt: "eth0", or several with commas between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interrupts(BTreeMap<u32, String>);

impl Interrupts {
    /// Takes another name for a device's interrupt.
    pub fn insert(&mut self, number: u32, devices: String) {
        self.0.insert(number, devices);
    }

    /// Whether `number` is a device's interrupt that nobody has named yet.
    #[must_use]
    pub fn lacks(&self, number: u32) -> bool {
        number & VECTOR == 0 && !self.0.contains_key(&number)
    }

    /// A hard interrupt: "irq 24 (eth0)", "local timer".
    #[must_use]
    pub fn name(&self, number: u32) -> String {
        if number & VECTOR == 0 {
            return match self.0.get(&number).filter(|devices| !devices.is_empty()) {
                Some(devices) => format!("irq {number} ({devices})"),
                None => format!("irq {number}"),
            };
        }
        match number & !VECTOR {
            vector::LOCAL_TIMER => "local timer",
            vector::CALL_FUNCTION => "function call",
            vector::CALL_FUNCTION_SINGLE => "function call of one CPU",
            vector::IRQ_WORK => "irq_work",
            _ => "an interrupt",
        }
        .to_owned()
    }
}

/// A soft interrupt's vector: <https://elixir.bootlin.com/linux/v6.12/source/include/linux/interrupt.h#L549>
pub(crate) fn softirq_name(vector: u32) -> String {
    let names = ["HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU"];
    usize::try_from(vector)
        .ok()
        .and_then(|at| names.get(at))
        .map_or_else(|| format!("softirq {vector}"), |n| (*n).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_where_they_are_known() {
        let mut interrupts = Interrupts::default();
        assert!(interrupts.lacks(24) && !interrupts.lacks(VECTOR | vector::LOCAL_TIMER));
        interrupts.insert(24, "eth0".into());
        interrupts.insert(25, String::new());
        assert!(!interrupts.lacks(24) && !interrupts.lacks(25));
        let names = [24, 25, VECTOR | vector::LOCAL_TIMER].map(|number| interrupts.name(number));
        assert_eq!(names, ["irq 24 (eth0)", "irq 25", "local timer"]);
        assert_eq!((softirq_name(3), softirq_name(99)), ("NET_RX".into(), "softirq 99".into()));
    }
}

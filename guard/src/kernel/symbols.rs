//! Addresses of the timer callbacks that the programs tell apart, from /proc/kallsyms.

/// Addresses; 0 for one that this kernel has not, or hides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Callbacks {
    /// Wakes a sleeper.
    pub hrtimer_wakeup: u64,
    /// Replenishes a SCHED_DEADLINE task.
    pub dl_task_timer: u64,
    /// Refills CFS quotas.
    pub cfs_period_timer: u64,
    /// The scheduler tick.
    pub tick: u64,
}

/// Finds the callbacks in the text of /proc/kallsyms ("address type name [module]"). Lines that do not parse are passed over.
#[must_use]
pub fn parse(kallsyms: &str) -> Callbacks {
    let mut found = Callbacks::default();
    for line in kallsyms.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(address), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) else { continue };
        if !matches!(kind, "t" | "T") {
            continue;
        }
        let slot = match name {
            "hrtimer_wakeup" => &mut found.hrtimer_wakeup,
            "dl_task_timer" => &mut found.dl_task_timer,
            "sched_cfs_period_timer" => &mut found.cfs_period_timer,
            "tick_sched_timer" => &mut found.tick,
            // Its name since 6.9; before, another function without a timer had it.
            // https://elixir.bootlin.com/linux/v6.1/source/kernel/time/tick-sched.c#L1354
            "tick_nohz_handler" if found.tick == 0 => &mut found.tick,
            _ => continue,
        };
        if let Ok(address) = u64::from_str_radix(address, 16) {
            *slot = address;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn callbacks_are_found_and_other_lines_passed_over() {
        let text = "ffffffff81100000 t hrtimer_wakeup\nnonsense\nffffffff81200000 T dl_task_timer\n\
                    ffffffff81300000 d sched_cfs_period_timer\nffffffffc0000000 t tick_sched_timer\t[module]\n";
        let found = parse(text);
        assert_eq!(found.hrtimer_wakeup, 0xffff_ffff_8110_0000);
        assert_eq!(found.dl_task_timer, 0xffff_ffff_8120_0000);
        assert_eq!(found.cfs_period_timer, 0, "a data symbol is no function");
        assert_eq!(found.tick, 0xffff_ffff_c000_0000);
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".{0,200}") {
            let _ = parse(&text);
        }
    }
}

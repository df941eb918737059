//! What each CPU did since boot, by /proc/stat: proc_stat(5).

use std::collections::HashMap;

/// One tick (USER_HZ), ns.
const TICK_NS: u64 = 10_000_000;

/// Totals of a CPU, ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CpuTimes {
    /// Neither idle nor waiting for I/O.
    pub(super) busy_ns: u64,
    /// Taken by the host of a virtual machine.
    pub(super) stolen_ns: u64,
}

/// Totals by CPU; empty where the kernel does not report them.
pub(super) fn read() -> HashMap<u32, CpuTimes> {
    std::fs::read_to_string("/proc/stat").map(|text| parse(&text)).unwrap_or_default()
}

fn parse(text: &str) -> HashMap<u32, CpuTimes> {
    let cpus = text.lines().filter_map(|line| {
        // cpu0 user nice system idle iowait irq softirq steal guest guest_nice
        // The first line, without a number, is their sum. A guest's time stands in user time already.
        let mut words = line.strip_prefix("cpu").filter(|rest| !rest.starts_with(' '))?.split_ascii_whitespace();
        let cpu: u32 = words.next()?.parse().ok()?;
        let ticks: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
        let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = ticks[..] else { return None };
        let busy = [user, nice, system, irq, softirq, steal].into_iter().fold(0, u64::saturating_add);
        Some((cpu, CpuTimes { busy_ns: busy.saturating_mul(TICK_NS), stolen_ns: steal.saturating_mul(TICK_NS) }))
    });
    cpus.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(busy: u64, stolen: u64) -> CpuTimes {
        CpuTimes { busy_ns: busy * TICK_NS, stolen_ns: stolen * TICK_NS }
    }

    #[test]
    fn busy_time_is_all_but_idle_and_waiting_for_io() {
        let text = "cpu  3 0 3 99 1 0 0 0 0 0\ncpu0 10 1 20 900 50 2 3 4 5 0\ncpu11 1 0 0 9 0 0 0 0 0 0\nintr 5\n";
        assert_eq!(parse(text), HashMap::from([(0, times(40, 4)), (11, times(1, 0))]));
        let most = u64::MAX;
        assert_eq!(parse(&format!("cpu1 {most} {most} 0 0 0 0 0 {most}\n"))[&1].busy_ns, most);
    }

    #[test]
    fn stolen_time_is_read_per_cpu() {
        let text = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 1 2 3 4 5 6 7 8 9 10\ncpu12 1 2 3 4 5 6 7 0 0 0\nintr 5\ncpu3 bad\n";
        let stolen: HashMap<u32, u64> = parse(text).into_iter().map(|(cpu, times)| (cpu, times.stolen_ns)).collect();
        assert_eq!(stolen, HashMap::from([(0, 80_000_000), (12, 0)]));
    }
}

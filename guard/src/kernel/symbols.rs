//! What /proc/kallsyms says: addresses of the timer callbacks that the programs tell apart, and names of functions for
//! kernel stacks.

use std::io::{self, BufRead};

use guard_common::event::Frames;

/// Addresses of functions by the text of /proc/kallsyms (`address type name [module]`); 0 for one that is not in it, or
/// hidden. Lines that do not parse are passed over. Reads no further than it must: the kernel writes its hundred thousand
/// lines while they are read.
///
/// # Errors
/// When the text cannot be read.
pub fn find<const N: usize>(mut kallsyms: impl BufRead, names: [&str; N]) -> io::Result<[u64; N]> {
    let mut found = [0; N];
    let mut line = Vec::new();
    while found.contains(&0) && kallsyms.read_until(b'\n', &mut line)? > 0 {
        if let Some((address, rest)) = std::str::from_utf8(&line).ok().and_then(|line| line.split_once(' '))
            && let Some(name) = rest.strip_prefix(['t', 'T']).and_then(|rest| rest.strip_prefix(' '))
        {
            let is_here = |wanted: &&str| {
                name.strip_prefix(*wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with(['\n', '\t', ' ']))
            };
            if let Some(at) = names.iter().position(is_here) {
                found[at] = u64::from_str_radix(address, 16).unwrap_or(0);
            }
        }
        line.clear();
    }
    Ok(found)
}

/// Address, type and name of each line that parses.
fn lines(kallsyms: &str) -> impl Iterator<Item = (u64, &str, &str)> {
    kallsyms.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (address, kind, name) = (words.next()?, words.next()?, words.next()?);
        Some((u64::from_str_radix(address, 16).ok()?, kind, name))
    })
}

/// Functions of the kernel and its modules, by address.
#[derive(Clone, Debug, Default)]
pub struct Functions {
    /// In order of address; the name is a part of `names`.
    starts: Vec<(u64, u32, u32)>,
    names: String,
}

/// Further from the begin of the last known function than this, an address is not in it, bytes.
const LONGEST_FUNCTION: u64 = 1 << 20;
/// What lies between a tracepoint and the program that walked the stack.
const OF_THE_TRACER: [&str; 5] = ["bpf_get_stack", "bpf_prog_", "bpf_trace_run", "__bpf_trace_", "__traceiter_"];

impl Functions {
    /// Those of the running kernel, as far as it shows them.
    #[must_use]
    pub fn read() -> Self {
        Self::parse(&std::fs::read_to_string("/proc/kallsyms").unwrap_or_default())
    }

    /// Reads the text of /proc/kallsyms. Hidden addresses (all zero) name nothing.
    #[must_use]
    pub fn parse(kallsyms: &str) -> Self {
        let mut functions = Self::default();
        for (address, kind, name) in lines(kallsyms) {
            if address == 0 || !matches!(kind, "t" | "T" | "w" | "W") {
                continue;
            }
            let Ok(begin) = u32::try_from(functions.names.len()) else { break };
            functions.names.push_str(name);
            let Ok(end) = u32::try_from(functions.names.len()) else { break };
            functions.starts.push((address, begin, end));
        }
        functions.starts.sort_by_key(|(address, ..)| *address);
        functions
    }

    /// "function+0x1a", or the address.
    fn name(&self, address: u64) -> String {
        let after = self.starts.partition_point(|(start, ..)| *start <= address);
        let found = after.checked_sub(1).and_then(|at| self.starts.get(at));
        match found.filter(|(start, ..)| address - start < LONGEST_FUNCTION) {
            Some((start, begin, end)) => {
                let name = self.names.get(*begin as usize..*end as usize).unwrap_or_default();
                format!("{name}+{:#x}", address - start)
            }
            None => format!("{address:#x}"),
        }
    }

    /// The frames of a stack by name, the innermost first, without those of the tracer.
    #[must_use]
    pub fn stack(&self, frames: &Frames) -> Vec<String> {
        let names: Vec<String> = frames.iter().take_while(|at| **at != 0).map(|at| self.name(*at)).collect();
        let of_the_tracer = |name: &String| OF_THE_TRACER.iter().any(|own| name.starts_with(own));
        let begin = names.iter().rposition(of_the_tracer).map_or(0, |at| at + 1);
        names.into_iter().skip(begin).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn functions_are_found_and_other_lines_passed_over() {
        let text = "ffffffff81100000 t hrtimer_wakeup\nnonsense\nffffffff81100000 t hrtimer_wakeup_more\n\
                    ffffffff81200000 T dl_task_timer\nffffffff81300000 d sched_cfs_period_timer\n\
                    ffffffffc0000000 t tick_sched_timer\t[module]\nffffffff81400000 t last";
        let names = ["hrtimer_wakeup", "dl_task_timer", "sched_cfs_period_timer", "tick_sched_timer", "last"];
        let found = find(text.as_bytes(), names).unwrap();
        let data_is_no_function = 0;
        let wanted = [0xffff_ffff_8110_0000, 0xffff_ffff_8120_0000, data_is_no_function, 0xffff_ffff_c000_0000];
        assert_eq!(found, [&wanted[..], &[0xffff_ffff_8140_0000]].concat()[..]);
    }

    #[test]
    fn what_follows_the_last_wanted_function_is_not_read() {
        let mut text = "ffffffff81100000 t first\nffffffff81200000 t second\n".as_bytes();
        assert_eq!(find(&mut text, ["first"]).unwrap(), [0xffff_ffff_8110_0000]);
        assert_eq!(text, b"ffffffff81200000 t second\n");
    }

    #[test]
    fn a_stack_is_named_without_the_frames_of_the_tracer() {
        let functions = Functions::parse(
            "ffffffff81000000 T schedule\nffffffff81000100 t futex_wait\nffffffff81000200 d not_a_function\n\
             ffffffffc0000000 t bpf_prog_12ab_sched_switch\t[bpf]\nffffffff81000300 T __traceiter_sched_switch\n",
        );
        let mut frames = [0; guard_common::event::FRAMES];
        for (at, address) in
            [0xffff_ffff_c000_0010, 0xffff_ffff_8100_0310, 0xffff_ffff_8100_0020, 0xffff_ffff_8100_0210, 0x10]
                .into_iter()
                .enumerate()
        {
            frames[at] = address;
        }
        assert_eq!(functions.stack(&frames), ["schedule+0x20", "futex_wait+0x110", "0x10"]);
        assert!(functions.stack(&[0; guard_common::event::FRAMES]).is_empty());
        let hidden = Functions::parse("0000000000000000 T schedule\n");
        frames[1] = 0;
        assert_eq!(hidden.stack(&frames), ["0xffffffffc0000010"]);
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".{0,200}") {
            let _ = find(text.as_bytes(), ["a", "b"]);
            let _ = Functions::parse(&text).stack(&[7; guard_common::event::FRAMES]);
        }
    }
}

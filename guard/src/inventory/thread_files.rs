//! The files of /proc about one thread, as pure functions over their bytes. By hand, because a name may be any bytes and a
//! thread may end while its file is read: procfs-core 0.18 panics at a stat line that is cut off, gives up a status file
//! whose name is no UTF-8, and reads fifty fields where six are wanted of each of ten thousand threads.

use crate::sched::SchedPolicy;
use crate::snapshot::CpuList;

/// Flag of kernel threads, include/linux/sched.h.
const PF_KTHREAD: u64 = 0x0020_0000;

/// What guard takes from a stat file of /proc, see proc_pid_stat(5).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stat<'a> {
    pub(super) tid: u32,
    pub(super) comm: &'a [u8],
    pub(super) kernel: bool,
    pub(super) nice: i32,
    pub(super) start_ticks: u64,
    pub(super) rt_priority: u32,
    pub(super) policy: SchedPolicy,
}

impl<'a> Stat<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        // The name may hold blanks, parentheses and any other byte, so its end is the last parenthesis.
        let open = bytes.iter().position(|byte| *byte == b'(')?;
        let close = bytes.iter().rposition(|byte| *byte == b')').filter(|close| *close > open)?;
        let tid = std::str::from_utf8(&bytes[..open]).ok()?.trim().parse().ok()?;
        let fields: Vec<&str> = std::str::from_utf8(&bytes[close + 1..]).ok()?.split_ascii_whitespace().collect();
        // Numbers as in the manual, where the state is field 3.
        let field = |number: usize| fields.get(number - 3).copied();
        Some(Self {
            tid,
            comm: &bytes[open + 1..close],
            kernel: field(9)?.parse::<u64>().ok()? & PF_KTHREAD != 0,
            nice: field(19)?.parse().ok()?,
            start_ticks: field(22)?.parse().ok()?,
            rt_priority: field(40)?.parse().ok()?,
            policy: SchedPolicy::from_raw(field(41)?.parse().ok()?),
        })
    }
}

/// What guard takes from a status file of /proc, see proc_pid_status(5).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) tgid: u32,
    pub(super) affinity: CpuList,
    pub(super) namespace_tids: Vec<u32>,
    pub(super) locked_bytes: Option<u64>,
}

impl Status {
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let value = |key| field(bytes, key);
        let locked_kib: Option<u64> = value("VmLck").and_then(|text| text.strip_suffix("kB")?.trim_end().parse().ok());
        Some(Self {
            tgid: value("Tgid")?.parse().ok()?,
            affinity: value("Cpus_allowed_list")?.parse().ok()?,
            namespace_tids: value("NSpid")
                .unwrap_or_default()
                .split_ascii_whitespace()
                .map(|word| word.parse().ok())
                .collect::<Option<_>>()?,
            locked_bytes: locked_kib.and_then(|kib| kib.checked_mul(1024)),
        })
    }
}

/// A field of a status file. The kernel escapes line breaks in the name there.
pub(super) fn field<'a>(status: &'a [u8], key: &str) -> Option<&'a str> {
    status.split(|byte| *byte == b'\n').find_map(|line| {
        let value = line.strip_prefix(key.as_bytes())?.strip_prefix(b":")?;
        std::str::from_utf8(value).ok().map(str::trim)
    })
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    // /proc/PID/stat of `chrt -f 50 sleep 3`, 6.18; pid and name were then changed, the name to a difficult one.
    pub(in crate::inventory) const STAT: &[u8] = b"208 (a) b \xff(c) S 206 21631 7727 0 -1 4194560 213 0 0 0 0 0 0 0 -51 0 1 0 292513 2990080 415 \
        18446744073709551615 94193595662336 94193595680265 140729093305744 0 0 0 0 6 0 1 0 0 17 0 50 1 0 0 0 \
        94193595694352 94193595695616 94193911545856 140729093311208 140729093311216 140729093311216 140729093312489 0\n";
    // /proc/2/stat, 6.18.
    pub(in crate::inventory) const KTHREADD: &[u8] =
        b"2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 6 0 0 18446744073709551615 \
        0 0 0 0 0 0 0 2147483647 0 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n";
    // Lines of /proc/PID/status of a sleep, 6.18, with another name, thread, namespace and locked memory.
    pub(in crate::inventory) const STATUS: &[u8] =
        b"Name:\tsle\xffep\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t208\nNgid:\t0\nPid:\t209\n\
        NSpid:\t209\t7\nVmLck:\t      12 kB\nCpus_allowed:\t3\nCpus_allowed_list:\t0-1\n";

    #[test]
    fn a_stat_line_is_read_whatever_the_name_holds() {
        let stat = Stat::parse(STAT).unwrap();
        assert_eq!(stat.comm, b"a) b \xff(c");
        assert_eq!((stat.tid, stat.policy, stat.rt_priority, stat.nice), (208, SchedPolicy::Fifo, 50, 0));
        assert_eq!((stat.kernel, stat.start_ticks), (false, 292_513));
        assert!(Stat::parse(KTHREADD).unwrap().kernel);
    }

    #[test]
    fn a_status_file_gives_affinity_and_ids_of_the_namespaces() {
        let status = Status::parse(STATUS).unwrap();
        assert_eq!((status.tgid, status.affinity.to_string()), (208, "0-1".to_owned()));
        assert_eq!((status.namespace_tids, status.locked_bytes), (vec![209, 7], Some(12 * 1024)));
    }

    #[test]
    fn a_cut_off_line_is_refused() {
        for length in 0..STAT.len() / 2 {
            assert_eq!(Stat::parse(&STAT[..length]), None);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = (Stat::parse(&bytes), Status::parse(&bytes));
        }

        #[test]
        fn no_fields_make_a_parser_panic(fields in proptest::collection::vec("-?[0-9]{0,22}", 0..60), comm in ".{0,20}") {
            let _ = Stat::parse(format!("1 ({comm}) S {}", fields.join(" ")).as_bytes());
            let _ = Status::parse(format!("Tgid:\t{comm}\nNSpid: {}\nCpus_allowed_list: 0", fields.join(" ")).as_bytes());
        }

        #[test]
        fn a_written_stat_is_read_back(
            tid in any::<u32>(), comm in proptest::collection::vec(any::<u8>(), 0..16), flags in any::<u32>(), nice in -20..20_i32,
            start_ticks in any::<u64>(), rt_priority in 0..100_u32, policy in 0..9_u32,
        ) {
            let mut bytes = format!("{tid} (").into_bytes();
            bytes.extend_from_slice(&comm);
            let rest = format!(") S 1 1 1 0 -1 {flags} 0 0 0 0 0 0 0 0 20 {nice} 1 0 {start_ticks} {} {rt_priority} {policy} 0\n",
                vec!["0"; 17].join(" "));
            bytes.extend_from_slice(rest.as_bytes());
            let stat = Stat { tid, comm: &comm, kernel: u64::from(flags) & PF_KTHREAD != 0, nice, start_ticks, rt_priority,
                policy: SchedPolicy::from_raw(policy) };
            prop_assert_eq!(Stat::parse(&bytes), Some(stat));
        }
    }
}

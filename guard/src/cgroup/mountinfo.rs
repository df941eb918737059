//! The cgroup mounts in /proc/self/mountinfo, as a pure function over its text. Format: proc_pid_mountinfo(5).

use std::{ffi::OsString, os::unix::ffi::OsStringExt, path::PathBuf};

/// A mounted cgroup hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CgroupMount {
    /// The cgroup that the mount point shows, as seen from the reader's cgroup namespace: "/", "/a" or "/../..".
    pub(super) root: String,
    /// Mount point.
    pub(super) point: PathBuf,
    /// Whether it is cgroup2.
    pub(super) v2: bool,
    /// Controllers of a v1 hierarchy.
    pub(super) controllers: Vec<String>,
}

/// All cgroup mounts, in the order of the file; lines that are in no known form are passed over.
pub(super) fn cgroup_mounts(mountinfo: &[u8]) -> Vec<CgroupMount> {
    mountinfo.split(|byte| *byte == b'\n').filter_map(cgroup_mount).collect()
}

fn cgroup_mount(line: &[u8]) -> Option<CgroupMount> {
    // 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').filter(|field| !field.is_empty()).collect();
    let (root, point) = (fields.get(3)?, fields.get(4)?);
    // Any number of optional fields comes before the separator.
    let separator = fields.iter().skip(6).position(|field| *field == b"-")? + 6;
    let v2 = match *fields.get(separator + 1)? {
        b"cgroup2" => true,
        b"cgroup" => false,
        _ => return None,
    };
    let options = fields.get(separator + 3).copied().unwrap_or_default();
    Some(CgroupMount {
        root: String::from_utf8_lossy(&unescape(root)).into_owned(),
        point: PathBuf::from(OsString::from_vec(unescape(point))),
        v2,
        controllers: String::from_utf8_lossy(options).split(',').map(str::to_owned).collect(),
    })
}

/// Undoes the kernel's `\040` for bytes that would break the format.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after
            .get(..3)
            .filter(|digits| first == b'\\' && digits.iter().all(|digit| (b'0'..=b'7').contains(digit)))
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match octal {
            Some(byte) => {
                out.push(byte);
                rest = &after[3..];
            }
            None => {
                out.push(first);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn optional_fields_and_escapes_are_understood() {
        let text =
            b"30 23 0:26 /a\\040b /mnt/with\\040space rw,nosuid shared:4 master:1 - cgroup cgroup rw,cpu,cpuacct\n\
            31 23 0:27 / /sys rw - sysfs sysfs rw\nrubbish\n\
            32 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let mounts = cgroup_mounts(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].root, "/a b");
        assert_eq!(mounts[0].point, PathBuf::from("/mnt/with space"));
        assert_eq!(mounts[0].controllers, ["rw", "cpu", "cpuacct"]);
        assert!(!mounts[0].v2);
        assert!(mounts[1].v2);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = cgroup_mounts(&bytes);
        }

        #[test]
        fn no_fields_make_it_panic(fields in proptest::collection::vec("[ -~]{0,6}|-|cgroup2?|\\\\[0-9]{1,3}", 0..14)) {
            let _ = cgroup_mounts(fields.join(" ").as_bytes());
        }

        #[test]
        fn an_escaped_mount_point_is_read_back(name in "/[a-z \\\\\t]{1,12}") {
            let escaped: String = name.bytes().map(|byte| match byte {
                b' ' | b'\t' | b'\\' => format!("\\{byte:03o}"),
                _ => char::from(byte).to_string(),
            }).collect();
            let line = format!("32 23 0:28 / {escaped} rw - cgroup2 cgroup2 rw\n");
            prop_assert_eq!(&cgroup_mounts(line.as_bytes())[0].point, &PathBuf::from(name));
        }
    }
}

//! CPU time that a cgroup has used.

use std::{fs, io};

use super::{
    CgroupError, Hierarchy, ParseError, Version,
    files::{keyed, parse_u64},
};

impl Hierarchy {
    /// CPU time that the cgroup and everything below it has used since it was made, ns. On v1 that of the cgroup with the
    /// same path in the cpuacct hierarchy; None where there is no such cgroup, file or controller.
    ///
    /// # Errors
    /// The file is not what it should be, or unreadable.
    pub fn cpu_usage_ns(&self, path: &str) -> Result<Option<u64>, CgroupError> {
        let file = match self.version() {
            Version::V2 => self.dir(path)?.join("cpu.stat"),
            Version::V1 => match self.cpuacct_dir(path).transpose()? {
                Some(dir) => dir.join("cpuacct.usage"),
                None => return Ok(None),
            },
        };
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(CgroupError::Io { op: "read", path: file, source }),
        };
        let format = |source: ParseError| CgroupError::Format { path: file.clone(), source };
        match self.version() {
            Version::V1 => parse_u64(&text).map(Some).map_err(format),
            Version::V2 => match keyed(&text, "usage_usec") {
                Some(us) => parse_u64(us).map(|us| Some(us.saturating_mul(1_000))).map_err(format),
                None => Ok(None),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_in_ns_and_absent_where_there_is_none() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir(top.path().join("a")).unwrap();
        let (v1, v2) = (Hierarchy::for_test(top.path(), Version::V1), Hierarchy::for_test(top.path(), Version::V2));
        assert_eq!((v1.cpu_usage_ns("/a").unwrap(), v2.cpu_usage_ns("/a").unwrap()), (None, None));
        fs::write(top.path().join("a/cpuacct.usage"), "1234567\n").unwrap();
        fs::write(top.path().join("a/cpu.stat"), "usage_usec 970837\nuser_usec 60206\n").unwrap();
        assert_eq!(v1.cpu_usage_ns("/a").unwrap(), Some(1_234_567));
        assert_eq!(v2.cpu_usage_ns("/a").unwrap(), Some(970_837_000));
        fs::write(top.path().join("a/cpu.stat"), "usage_usec many\n").unwrap();
        assert!(v2.cpu_usage_ns("/a").unwrap_err().to_string().contains("cpu.stat"));
    }
}

//! What a guest's file system consists of: its root, and what it mounts there.

use std::path::PathBuf;

/// Where the guest sees the directory it shares with us.
pub(crate) const EXCHANGE: &str = "/run/guard-xtask";
/// Where it sees the programs that stand first on the command's search path.
pub(super) const PROGRAMS: &str = "/run/guard-programs";

/// For the kernel's command line of a guest with systemd: the console is not shown, and its log has what goes wrong.
pub(super) const SYSTEMD_OPTIONS: &str = "systemd.show_status=0 systemd.getty_auto=no systemd.log_target=kmsg \
                                          systemd.log_level=warning systemd.firstboot=no";

/// What the guest's root file system is.
#[derive(Clone, Debug)]
pub(crate) enum Root {
    /// This machine's; what the guest writes is lost with it.
    Host,
    /// An ext4 image whose first process is systemd, and whose unit [`crate::field::UNIT`] runs the command; what the
    /// guest writes is lost with it.
    Image(PathBuf),
}

impl Root {
    /// Memory of a guest for which none is given.
    pub(crate) fn memory(&self) -> &'static str {
        match self {
            Self::Host => "2G",
            Self::Image(_) => "3G",
        }
    }
}

/// A directory of this machine in the guest.
pub(super) struct Mount {
    pub(super) tag: String,
    pub(super) host: PathBuf,
    pub(super) guest: PathBuf,
    pub(super) read_only: bool,
}

//! Soft interrupts of the network, in a network namespace of the process's own: one datagram to all sockets of a port is
//! handed to one after the other in a single soft interrupt, which nothing preempts where the kernel is not PREEMPT_RT.
//! Each has a filter that takes its time.

use std::{net::UdpSocket, os::fd::OwnedFd, sync::Arc};

use anyhow::{Context as _, Result};

use super::{Scene, hazard::Shoot};
use crate::sys;
use crate::workload::now_ns;

const PORT: u16 = 7_400;
/// All sockets of the port in the namespace.
const EVERYBODY: &str = "127.255.255.255:7400";

/// Leaves the machine's network: only a loopback device is in the new one.
pub(super) fn enter_own_network() -> Result<()> {
    sys::unshare_network().context("unshare(CLONE_NEWNET)")?;
    sys::loopback_up().context("ioctl(SIOCSIFFLAGS) of lo")
}

pub(super) fn broadcast(scene: &Arc<Scene>) -> Result<Shoot> {
    sys::allow_files(scene.herd as u64 + 1_000).context("setrlimit(RLIMIT_NOFILE)")?;
    let receivers =
        (0..scene.herd).map(|_| sys::shared_port(PORT).context("a UDP socket")).collect::<Result<Vec<OwnedFd>>>()?;
    let sender = UdpSocket::bind("127.0.0.1:0").context("bind")?;
    sender.set_broadcast(true).context("setsockopt(SO_BROADCAST)")?;
    Ok(Box::new(move |scene| {
        let _ = &receivers;
        let end_ns = now_ns() + scene.harm_ns;
        while now_ns() < end_ns {
            sender.send_to(b"!", EVERYBODY).context("sendto")?;
        }
        Ok(())
    }))
}

//! Events that cannot wait for the end of a window: waits for them, and keeps those that were taken in passing.

use std::future::pending;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use guard_common::event::REPORT_EVERY_NS;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

use crate::control::error::ControlError;
use crate::control::sys;
use crate::kernel::{Event, Kernel};

/// How long after an event to look for more: as long as the kernel side may hold back a wake-up.
const LOOK_AGAIN: Duration = Duration::from_nanos(REPORT_EVERY_NS);

/// The events of the kernel side, where guard acts on them.
pub(super) struct Events {
    /// Readable when there are some.
    fd: AsyncFd<OwnedFd>,
    /// Events that were taken together with a sample.
    taken: Vec<Event>,
    /// When to look for more unasked: the kernel side does not wake guard for all that follow soon after another.
    look_again: Option<Instant>,
}

impl Events {
    pub(super) fn of(kernel: &Kernel) -> Result<Self, ControlError> {
        let fd = kernel.as_fd().try_clone_to_owned().and_then(sys::readable).map_err(ControlError::Events)?;
        Ok(Self { fd, taken: Vec::new(), look_again: None })
    }

    /// Waits for some.
    pub(super) async fn wait(&mut self, kernel: &mut Kernel) -> Result<Vec<Event>, ControlError> {
        while self.taken.is_empty() {
            let again = self.look_again;
            let unasked = async {
                match again {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                ready = self.fd.readable() => {
                    // Before they are taken, so that one that comes meanwhile makes it readable again.
                    ready.map_err(ControlError::Events)?.clear_ready();
                }
                () = unasked => {}
            }
            self.taken = kernel.events();
            self.look_again = (!self.taken.is_empty()).then(|| Instant::now() + LOOK_AGAIN);
        }
        Ok(std::mem::take(&mut self.taken))
    }

    /// Keeps those that have come for [`Self::wait`]. To be called before a sample, which empties the ring buffer.
    pub(super) fn keep(&mut self, kernel: &mut Kernel) {
        self.taken.extend(kernel.events());
    }

    /// Takes those that need no inventory; the others are kept.
    pub(super) fn poll(&mut self, kernel: &mut Kernel) -> Vec<Event> {
        self.keep(kernel);
        let (later, now) =
            std::mem::take(&mut self.taken).into_iter().partition(|event| matches!(event, Event::NewRealTime(_)));
        self.taken = later;
        now
    }
}

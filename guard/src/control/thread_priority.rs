//! How urgent a thread of guard is at the moment. What stands between an event and its answer is SCHED_FIFO of a low
//! priority: a nice value counts only among the threads of one cgroup, so best-effort work in another would hold guard up.
//! Everything else that guard does, above all a Snapshot, takes milliseconds, and runs as an ordinary thread: it must not
//! keep the fair threads that a PLC waits for from their CPU.

use std::io;

use crate::sched;

/// Nice value of what is urgent where SCHED_FIFO is refused or not wanted.
const URGENT_NICE: i32 = -20;

/// One thread's urgency.
#[derive(Debug)]
pub(super) struct ThreadPriority {
    means: Means,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Means {
    /// The thread stays as it is.
    None,
    Fifo(u8),
    /// By nice values; what it was at first.
    Nice(i32),
}

impl ThreadPriority {
    /// For a thread that nobody waits for.
    pub(super) fn steady() -> Self {
        Self { means: Means::None }
    }

    /// For this thread, which is urgent from now on: SCHED_FIFO with this priority, or by its nice value with 0.
    pub(super) fn urgent(priority: u8) -> Self {
        let nice = Means::Nice(rustix::process::getpriority_process(Some(rustix::thread::gettid())).unwrap_or(0));
        let mut means = if priority > 0 { Means::Fifo(priority) } else { nice };
        if let Means::Fifo(_) = means
            && let Err(error) = set_real_time(Some(priority))
        {
            tracing::info!("SCHED_FIFO {priority} for guard itself: {error}; it runs at nice {URGENT_NICE} instead");
            means = nice;
        }
        let this = Self { means };
        this.hurry();
        this
    }

    /// Something may have to be answered from now on.
    pub(super) fn hurry(&self) {
        self.set(true);
    }

    /// What follows takes long and is not urgent.
    pub(super) fn calm(&self) {
        self.set(false);
    }

    fn set(&self, urgent: bool) {
        let set = match self.means {
            Means::None => return,
            Means::Fifo(priority) => set_real_time(urgent.then_some(priority)),
            Means::Nice(calm) => {
                let nice = if urgent { URGENT_NICE } else { calm };
                rustix::process::setpriority_process(Some(rustix::thread::gettid()), nice).map_err(Into::into)
            }
        };
        if let Err(error) = set {
            tracing::debug!("urgency of a thread: {error}");
        }
    }
}

/// Makes this thread SCHED_FIFO with this priority, or, with `None`, an ordinary thread; not so those that it starts.
fn set_real_time(priority: Option<u8>) -> io::Result<()> {
    let policy = if priority.is_some() { libc::SCHED_FIFO } else { libc::SCHED_OTHER };
    sched::set_scheduler(0, policy | libc::SCHED_RESET_ON_FORK, priority.unwrap_or(0).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Policy (its 41st field after the name) and nice value of this thread.
    fn seen() -> (i64, i64) {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let fields: Vec<i64> =
            stat.rsplit_once(')').unwrap().1.split_whitespace().skip(1).map(|f| f.parse().unwrap_or(0)).collect();
        // Fields 41 (policy) and 19 (nice) of proc(5); the first here is the fourth.
        (fields[41 - 4], fields[19 - 4])
    }

    #[test]
    fn a_thread_is_urgent_only_between_hurry_and_calm() {
        std::thread::spawn(|| {
            let before = seen();
            for priority in [1, 0] {
                let own = ThreadPriority::urgent(priority);
                let urgent = seen();
                // Refused where the test has no privilege.
                let real_time = urgent.0 & 0xff == 1;
                own.calm();
                let calm = seen();
                assert_eq!((calm.0 & 0xff, calm.1), (0, before.1), "{priority}");
                own.hurry();
                assert_eq!(seen(), urgent, "{priority}");
                assert!(!real_time || priority > 0);
                own.calm();
            }
            ThreadPriority::steady().hurry();
        })
        .join()
        .unwrap();
    }
}

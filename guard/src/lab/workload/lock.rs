//! The two kinds of user-space lock: one whose owner the kernel does not know, and one with priority inheritance.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::thread::futex;

use crate::sched::{CallError, tid};

/// A lock with priority inheritance, as PTHREAD_PRIO_INHERIT mutexes are made: the word holds the owner's tid, and
/// only a contended lock enters the kernel.
#[derive(Debug, Default)]
pub struct PiLock(AtomicU32);

impl PiLock {
    /// A free lock.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn try_lock(&self) -> bool {
        self.0.compare_exchange(0, tid(), Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Takes the lock; true when it had to wait for it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn lock(&self) -> Result<bool, CallError> {
        if self.try_lock() {
            return Ok(false);
        }
        futex::lock_pi(&self.0, futex::Flags::PRIVATE, None).map_err(CallError::at("futex(FUTEX_LOCK_PI)"))?;
        Ok(true)
    }

    /// Gives it back.
    ///
    /// # Errors
    /// When the kernel refuses, as it does for whoever does not own it.
    pub fn unlock(&self) -> Result<(), CallError> {
        if self.0.compare_exchange(tid(), 0, Ordering::Release, Ordering::Relaxed).is_err() {
            futex::unlock_pi(&self.0, futex::Flags::PRIVATE).map_err(CallError::at("futex(FUTEX_UNLOCK_PI)"))?;
        }
        Ok(())
    }
}

/// A lock of either kind.
#[derive(Debug)]
pub(super) enum Lock {
    /// A futex that waiters sleep on: the default pthread mutex, and std's. Nobody is boosted.
    Plain(Mutex<()>),
    /// The waiter's priority goes to the owner.
    Inherit(PiLock),
}

impl Lock {
    pub(super) fn new(inherit: bool) -> Self {
        if inherit { Self::Inherit(PiLock::new()) } else { Self::Plain(Mutex::new(())) }
    }

    /// Runs `work` under the lock.
    pub(super) fn with<T>(&self, work: impl FnOnce() -> T) -> Result<T, CallError> {
        match self {
            Self::Plain(mutex) => {
                let _held = mutex.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(work())
            }
            Self::Inherit(lock) => {
                lock.lock()?;
                let result = work();
                lock.unlock()?;
                Ok(result)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_let_one_thread_in_at_a_time() {
        for inherit in [false, true] {
            let lock = Lock::new(inherit);
            let (inside, most) = (AtomicU32::new(0), AtomicU32::new(0));
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for _ in 0..200 {
                            lock.with(|| {
                                most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                                std::thread::yield_now();
                                inside.fetch_sub(1, Ordering::SeqCst);
                            })
                            .unwrap();
                        }
                    });
                }
            });
            assert_eq!(most.into_inner(), 1, "inherit: {inherit}");
        }
    }

    #[test]
    fn a_lock_that_somebody_else_owns_cannot_be_given_back() {
        let lock = PiLock::new();
        assert!(lock.unlock().is_err());
    }
}

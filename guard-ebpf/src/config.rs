//! What user space knows and these programs need, as constants.

use guard_common::config::Config;

/// Written once before load, then frozen.
// SAFETY: a struct of plain integers.
#[unsafe(no_mangle)]
pub(crate) static CONFIG: Config = unsafe { core::mem::zeroed() };

/// Reads one field of the configuration. A volatile read: the compiler must not use the zeros above.
macro_rules! config {
    ($($field:tt)+) => {
        $crate::config::volatile(&raw const $crate::config::CONFIG.$($field)+)
    };
}
pub(crate) use config;

/// Reads `place`, which lies in [`CONFIG`]: `config!` is its only caller.
#[inline(always)]
pub(crate) fn volatile<T: Copy>(place: *const T) -> T {
    // SAFETY: a static of plain integers, valid for the life of the program.
    unsafe { core::ptr::read_volatile(place) }
}

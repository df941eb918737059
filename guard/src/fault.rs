//! Panics: who panicked, where and with which words, for whoever answers for that thread; and panics that tests make, to
//! see what follows one. What each thread's panic means stands in `docs/acting.md`.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::fs;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::path::PathBuf;
use std::sync::{LazyLock, Once};
use std::thread;

#[cfg(not(panic = "unwind"))]
compile_error!(
    "guard puts back what it changed when one of its threads panics: it has to be built with panic = \"unwind\""
);

/// A panic, caught or under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panic {
    thread: String,
    text: String,
    /// File, line and column; None when the panic was only passed on, or came before [`watch`].
    place: Option<String>,
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "thread {} panicked", self.thread)?;
        if let Some(place) = &self.place {
            write!(f, " at {place}")?;
        }
        write!(f, ": {}", self.text)
    }
}

impl std::error::Error for Panic {}

impl Panic {
    fn new(payload: &(dyn Any + Send), place: Option<String>) -> Self {
        let text =
            payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self {
            thread: thread::current().name().unwrap_or("without a name").to_owned(),
            text: text.unwrap_or("no words").lines().map(str::trim).collect::<Vec<_>>().join(", "),
            place,
        }
    }
}

thread_local! {
    /// The last panic of this thread. Only the hook is told where it was.
    static LAST: RefCell<Option<Panic>> = const { RefCell::new(None) };
}

/// From now on [`caught`] and [`under_way`] know where a panic was. Whoever has set a hook before is called as well.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
            let last = Panic::new(info.payload(), info.location().map(ToString::to_string));
            // Absent at the very end of a thread, which nobody asks any more.
            let _ = LAST.try_with(|cell| cell.replace(Some(last)));
            before(info);
        }));
    });
}

/// Calls `work` and returns its panic as an error. What `work` had borrowed may be half done then.
///
/// # Errors
/// When it panics.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Panic> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| LAST.take().unwrap_or_else(|| Panic::new(&*payload, None)))
}

/// The panic that unwinds this thread now; for destructors.
#[must_use]
pub fn under_way() -> Option<Panic> {
    if thread::panicking() { LAST.with_borrow(Clone::clone) } else { None }
}

/// Environment variable that names a directory in which a test makes a file with the name of a [`point`].
const VARIABLE: &str = "GUARD_TEST_PANIC";

/// Panics once if a test asks for it here: when [`VARIABLE`] is set and its directory has a file `name`, which is removed.
///
/// Release builds have it, too, so that what is shipped can be tried. It opens no door: whoever chooses the environment of
/// guard may end it as well, and what was changed is put back all the same.
#[allow(clippy::panic, reason = "a panic is what is asked for")]
#[track_caller]
pub(crate) fn point(name: &str) {
    static DIR: LazyLock<Option<PathBuf>> = LazyLock::new(|| std::env::var_os(VARIABLE).map(PathBuf::from));
    if let Some(dir) = &*DIR
        && fs::remove_file(dir.join(name)).is_ok()
    {
        panic!("made at \"{name}\" by {VARIABLE}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_with_its_thread_its_words_and_its_place() {
        watch();
        let own =
            thread::Builder::new().name("guard-x".to_owned()).spawn(|| caught(|| panic!("no {}\n  at all", "luck")));
        let panic = own.unwrap().join().unwrap().unwrap_err().to_string();
        let file = file!();
        assert!(panic.starts_with(&format!("thread guard-x panicked at {file}:")), "{panic}");
        assert!(panic.ends_with(": no luck, at all"), "{panic}");
    }

    #[test]
    fn what_does_not_panic_is_returned_and_each_panic_is_told_once() {
        watch();
        assert_eq!(caught(|| 7), Ok(7));
        assert!(caught(|| panic!("first")).unwrap_err().to_string().ends_with("first"));
        // Passed on, it calls no hook, and is not taken for the one before.
        let passed_on = caught(|| panic::resume_unwind(Box::new("second"))).unwrap_err();
        assert!(passed_on.to_string().ends_with("panicked: second"), "{passed_on}");
    }

    #[test]
    fn a_destructor_sees_the_panic_that_runs_it_and_may_catch_another() {
        struct Seen<'a>(&'a mut Vec<String>);
        impl Drop for Seen<'_> {
            fn drop(&mut self) {
                self.0.extend(under_way().map(|panic| panic.to_string()));
                self.0.extend(caught(|| panic!("inner")).err().map(|panic| panic.to_string()));
            }
        }
        watch();
        let mut seen = Vec::new();
        assert_eq!(under_way(), None);
        let outer = caught(|| {
            let _seen = Seen(&mut seen);
            panic!("outer")
        });
        // The inner one is the last of this thread, and was taken: the outer one has lost its place, not its words.
        assert!(outer.unwrap_err().to_string().ends_with("outer"));
        let [outer, inner] = &seen[..] else { panic!("{seen:?}") };
        assert!(outer.ends_with("outer") && inner.ends_with("inner"), "{seen:?}");
    }
}

//! Panics as errors: what was said, and where.
//!
//! A panic's payload has the message and not the place. The place is known only to the process-wide hook, so one is put in
//! front of whatever hook is there; it notes the place for its thread and passes the panic on.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use portcullis_engine::{Error, ErrorKind};

/// Bytes of a panic's message that are kept: it crosses the wall with the error.
const MESSAGE: usize = 2 << 10;

static HOOK: Once = Once::new();

thread_local! {
    /// Where this thread's last panic was that nobody has asked for yet.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `body`; its panic is the error `Panicked` with message and place.
///
/// # Errors
/// `Panicked`.
pub(crate) fn catch<R>(body: impl FnOnce() -> R) -> Result<R, Error> {
    note_places();
    // Whoever catches a panic must not go on using what it may have left half done: see the callers.
    catch_unwind(AssertUnwindSafe(body)).map_err(|panic| error(&*panic))
}

/// From now on the places of panics are known.
pub(crate) fn note_places() {
    // A hook cannot be put in by a thread that panics just now; then the next one does it.
    if HOOK.is_completed() || std::thread::panicking() {
        return;
    }
    HOOK.call_once(|| {
        let next = take_hook();
        set_hook(Box::new(move |panic| {
            let place = panic
                .location()
                .map(|at| format!("{}:{}", at.file(), at.line()));
            // The thread may be ending, or be noting another one just now.
            let _ = PLACE.try_with(|last| {
                if let Ok(mut last) = last.try_borrow_mut() {
                    *last = place;
                }
            });
            next(panic);
        }));
    });
}

/// The error that a panic is which was caught on this thread just now.
pub(crate) fn error(panic: &(dyn Any + Send)) -> Error {
    let message = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a text");
    let mut end = message.len().min(MESSAGE);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    let place = PLACE.take().unwrap_or_else(|| "an unknown place".into());
    Error::new(ErrorKind::Panicked {
        message: message[..end].to_owned().into(),
        place: place.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_message_and_place() {
        let line = line!() + 1;
        let error = catch(|| panic!("oops {}", 7)).expect_err("panics");
        let ErrorKind::Panicked { message, place } = error.kind() else {
            panic!("{error}");
        };
        assert_eq!(message, "oops 7");
        assert!(place.ends_with(&format!("panics.rs:{line}")), "{place}");
        assert_eq!(catch(|| 3), Ok(3));
    }

    #[test]
    fn a_long_message_is_cut_between_two_characters() {
        let long = "\u{20ac}".repeat(MESSAGE);
        let error = catch(|| panic!("{long}")).expect_err("panics");
        let ErrorKind::Panicked { message, .. } = error.kind() else {
            panic!("{error}");
        };
        assert!(message.len() <= MESSAGE && long.starts_with(&**message));
    }
}

//! Keeps a codec library's panic inside of its decoder.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a call into a codec library; a panic is an `Err` with its message.
///
/// The state that the call worked on may be torn afterwards: the caller throws it away.
pub(super) fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| format!("panic: {}", text(&*panic)))
}

fn text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("of unknown cause")
}

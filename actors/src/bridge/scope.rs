//! Which link a message is being written for or read from, on this thread, right now.
//!
//! Handles, descriptors and payloads are serde values like any others; what they become on the wire depends on the link.
//! The link sets itself here for the time of encoding or decoding one message.

use std::cell::RefCell;
use std::fmt::Display;
use std::rc::Rc;

use portcullis_engine::media::with_payload_port;
use serde::Deserialize;

use super::link::LinkCore;
use super::nesting;

thread_local! {
    /// Why a value of the message could not be written or read: the codec keeps no text of what a value says.
    static REASON: RefCell<Option<String>> = const { RefCell::new(None) };
    static CURRENT: RefCell<Option<Rc<LinkCore>>> = const { RefCell::new(None) };
}

/// Runs `body` as the encoding or decoding of a message of `link`.
pub(crate) fn enter<R>(link: &Rc<LinkCore>, body: impl FnOnce() -> R) -> R {
    struct Restore(Option<Rc<LinkCore>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(self.0.take());
        }
    }
    REASON.set(None);
    let _restore = Restore(CURRENT.replace(Some(Rc::clone(link))));
    with_payload_port(&link.payload_port(), body)
}

/// The link whose message is being encoded or decoded.
pub(crate) fn current() -> Option<Rc<LinkCore>> {
    CURRENT.with_borrow(Clone::clone)
}

/// Whether a message is being encoded or decoded.
pub(crate) fn is_active() -> bool {
    CURRENT.with_borrow(Option::is_some)
}

/// Reads a value of which `body` is the whole, within the bounds of [`nesting`]. Says why where it is none.
pub(crate) fn read<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, String> {
    REASON.set(None);
    nesting::read(body).map_err(|error| reason(&error))
}

/// Keeps why a value cannot be written or read, and gives it as the codec's error.
pub(crate) fn refuse<E>(why: impl Display, custom: fn(String) -> E) -> E {
    let why = why.to_string();
    REASON.set(Some(why.clone()));
    custom(why)
}

/// What a failure of the codec was about.
pub(crate) fn reason(error: &postcard::Error) -> String {
    REASON.take().unwrap_or_else(|| error.to_string())
}

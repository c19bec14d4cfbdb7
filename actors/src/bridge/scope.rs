//! Which link a message is being written for or read from, on this thread, right now.
//!
//! Handles, descriptors and payloads are serde values like any others; what they become on the wire depends on the link.
//! The link sets itself here for the time of encoding or decoding one message.

use std::cell::RefCell;
use std::rc::Rc;

use portcullis_engine::media::with_payload_port;

use super::link::LinkCore;

thread_local! {
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
    let _restore = Restore(CURRENT.replace(Some(Rc::clone(link))));
    with_payload_port(&link.payload_port(), body)
}

/// The link whose message is being encoded or decoded.
pub(crate) fn current() -> Option<Rc<LinkCore>> {
    CURRENT.with_borrow(Clone::clone)
}

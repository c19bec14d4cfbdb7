//! Which of the peer's calls are to be looked at: those that came in this turn, and those whose actor has woken the link.
//!
//! Most handlers answer in the turn in which their actor gets the message. Such a call is polled once, when its actor has
//! had its turn, and costs no task and no waker; only one that is not answered by then gets a waker of its own.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

use tokio::sync::Notify;

/// Calls that have been woken. Actors on other threads wake them too.
#[derive(Default)]
pub(in crate::bridge::link) struct Woken {
    calls: Mutex<Vec<u64>>,
    some: Notify,
}

impl Woken {
    /// Resolves when there are some.
    pub(in crate::bridge::link) async fn some(&self) {
        self.some.notified().await;
    }

    /// Those that were woken: no more than there are calls.
    pub(super) fn take(&self, into: &mut Vec<u64>) {
        into.append(&mut self.calls.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn waker(self: &Arc<Self>, call: u64) -> Waker {
        Waker::from(Arc::new(CallWaker {
            call,
            woken: Arc::clone(self),
        }))
    }
}

struct CallWaker {
    call: u64,
    woken: Arc<Woken>,
}

impl Wake for CallWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut calls = self
            .woken
            .calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let is_first = calls.is_empty();
        calls.push(self.call);
        drop(calls);
        if is_first {
            self.woken.some.notify_one();
        }
    }
}

//! Descriptors that a peer sent, which are closed where nobody waits.
//!
//! Closing may block for as long as the peer likes: a socket with a linger time, a file of a file system that the peer
//! serves. So what is not kept is closed on threads of their own, and only what is known to be harmless closes here.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

/// Threads that close at the same time. If all are stuck, what is to be closed waits and counts against this process's
/// limit of descriptors.
const MAX_CLOSERS: usize = 4;

/// A descriptor of any kind that a peer sent. Dropped, it is closed on another thread.
#[derive(Debug)]
pub struct ReceivedFd(Option<OwnedFd>);

impl ReceivedFd {
    /// The descriptor itself, closed by whoever drops it, where it is dropped.
    pub fn into_owned(mut self) -> OwnedFd {
        self.0
            .take()
            .expect("it is there until it is taken or dropped")
    }
}

impl From<OwnedFd> for ReceivedFd {
    fn from(descriptor: OwnedFd) -> Self {
        Self(Some(descriptor))
    }
}

impl AsFd for ReceivedFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0
            .as_ref()
            .expect("it is there until it is taken or dropped")
            .as_fd()
    }
}

impl Drop for ReceivedFd {
    fn drop(&mut self) {
        if let Some(descriptor) = self.0.take() {
            close_aside(descriptor);
        }
    }
}

#[derive(Default)]
struct Closing {
    waiting: VecDeque<OwnedFd>,
    closers: usize,
}

static CLOSING: Mutex<Closing> = Mutex::new(Closing {
    waiting: VecDeque::new(),
    closers: 0,
});

fn close_aside(descriptor: OwnedFd) {
    {
        let mut closing = CLOSING.lock().unwrap_or_else(PoisonError::into_inner);
        closing.waiting.push_back(descriptor);
        // A closer that is not stuck takes one after another, but which are stuck nobody knows.
        if closing.closers >= MAX_CLOSERS {
            return;
        }
        closing.closers += 1;
    }
    let started = std::thread::Builder::new()
        .name("closer".into())
        .stack_size(64 << 10)
        .spawn(|| {
            loop {
                let next = {
                    let mut closing = CLOSING.lock().unwrap_or_else(PoisonError::into_inner);
                    let next = closing.waiting.pop_front();
                    if next.is_none() {
                        closing.closers -= 1;
                    }
                    next
                };
                match next {
                    Some(descriptor) => drop(descriptor),
                    None => return,
                }
            }
        });
    if let Err(error) = started {
        // It is closed by the next closer that can be started.
        tracing::warn!(%error, "no thread to close a peer's descriptor");
        CLOSING
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .closers -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc;
    use std::time::Duration;

    use crate::testing::pipe_pair;

    #[test]
    fn what_is_not_kept_is_closed() {
        let (kept, given) = pipe_pair();
        let mut kept = std::fs::File::from(kept);
        drop(ReceivedFd::from(given));
        // One end of a pipe sees when the other is closed, whichever it is.
        let ended = match kept.read(&mut [0]) {
            Ok(read) => read == 0,
            Err(_) => loop {
                if kept.write(&[0]).is_err() {
                    break true;
                }
                std::thread::yield_now();
            },
        };
        assert!(ended);
    }

    #[test]
    fn a_descriptor_whose_close_blocks_holds_up_nobody() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_silent, _) = listener.accept().unwrap();
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::from_secs(60))).unwrap();
        stream.set_nonblocking(true).unwrap();
        // Nobody reads the other end: what is unsent keeps the close waiting.
        while (&stream).write(&[0; 64 << 10]).is_ok() {}
        let (done, wait) = mpsc::channel();
        std::thread::spawn(move || {
            drop(ReceivedFd::from(OwnedFd::from(stream)));
            done.send(()).unwrap();
        });
        wait.recv_timeout(Duration::from_secs(20)).unwrap();
    }
}

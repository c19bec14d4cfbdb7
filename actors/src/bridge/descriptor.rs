//! A file descriptor inside of a message.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use portcullis_transport::ReceivedFd;
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::scope;

/// A file descriptor that travels inside of a message, as a duplicate.
///
/// The receiver must treat what is behind it as it treats everything from the peer: it may be any kind of file.
#[derive(Clone, Debug)]
pub struct FileDescriptor(Arc<Mutex<Option<Held>>>);

#[derive(Debug)]
enum Held {
    Own(OwnedFd),
    /// Closing what a peer sent may block: if nobody takes it, it is closed on another thread.
    Received(ReceivedFd),
}

impl FileDescriptor {
    /// A descriptor to send.
    pub fn new(descriptor: OwnedFd) -> Self {
        Self::of(Held::Own(descriptor))
    }

    /// Takes the descriptor out; `None` if it was taken before.
    pub fn take(&self) -> Option<OwnedFd> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        held.map(|held| match held {
            Held::Own(descriptor) => descriptor,
            Held::Received(descriptor) => descriptor.into_owned(),
        })
    }

    fn of(held: Held) -> Self {
        Self(Arc::new(Mutex::new(Some(held))))
    }
}

impl Held {
    fn try_clone(&self) -> std::io::Result<OwnedFd> {
        match self {
            Self::Own(descriptor) => descriptor.try_clone(),
            Self::Received(descriptor) => descriptor.as_fd().try_clone_to_owned(),
        }
    }
}

impl Serialize for FileDescriptor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let link =
            scope::current().ok_or_else(|| S::Error::custom("a descriptor outside of a link"))?;
        let descriptor = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .ok_or_else(|| scope::refuse("a descriptor that was taken", S::Error::custom))?
            .try_clone()
            .map_err(S::Error::custom)?;
        link.attach_descriptor(descriptor)
            .map_err(|why| scope::refuse(why, S::Error::custom))?
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for FileDescriptor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let index = u32::deserialize(deserializer)?;
        let link =
            scope::current().ok_or_else(|| D::Error::custom("a descriptor outside of a link"))?;
        link.take_descriptor(index)
            .map(|descriptor| Self::of(Held::Received(descriptor)))
            .ok_or_else(|| {
                let why = "a descriptor that did not come with the message";
                scope::refuse(why, D::Error::custom)
            })
    }
}

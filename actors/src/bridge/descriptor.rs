//! A file descriptor inside of a message.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::scope;

/// A file descriptor that travels inside of a message, as a duplicate.
///
/// The receiver must treat what is behind it as it treats everything from the peer: it may be any kind of file.
#[derive(Clone, Debug)]
pub struct FileDescriptor(Arc<Mutex<Option<OwnedFd>>>);

impl FileDescriptor {
    /// A descriptor to send.
    pub fn new(descriptor: OwnedFd) -> Self {
        Self(Arc::new(Mutex::new(Some(descriptor))))
    }

    /// Takes the descriptor out; `None` if it was taken before.
    pub fn take(&self) -> Option<OwnedFd> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
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
            .ok_or_else(|| S::Error::custom("a descriptor that was taken"))?
            .try_clone()
            .map_err(S::Error::custom)?;
        link.attach_descriptor(descriptor)
            .map_err(S::Error::custom)?
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for FileDescriptor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let index = u32::deserialize(deserializer)?;
        let link =
            scope::current().ok_or_else(|| D::Error::custom("a descriptor outside of a link"))?;
        link.take_descriptor(index)
            .map(Self::new)
            .ok_or_else(|| D::Error::custom("a descriptor that did not come with the message"))
    }
}

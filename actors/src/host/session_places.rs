//! How many sessions a host takes at a time.

use std::sync::Arc;

use portcullis_engine::{Error, Result};

/// The places for sessions in one process.
#[derive(Debug)]
pub(crate) struct SessionPlaces {
    /// Its clones are the places that are taken.
    taken: Arc<()>,
    limit: Option<u32>,
}

/// A session's place; free again when it is dropped.
#[derive(Debug)]
pub(crate) struct SessionPlace {
    _taken: Arc<()>,
}

impl SessionPlaces {
    pub(super) fn new(limit: u32) -> Self {
        Self {
            limit: Some(limit),
            ..Self::unlimited()
        }
    }

    /// Of the application's own process.
    pub(super) fn unlimited() -> Self {
        Self {
            taken: Arc::new(()),
            limit: None,
        }
    }

    pub(super) fn take(&self) -> Result<SessionPlace> {
        let taken = Arc::strong_count(&self.taken) - 1;
        match self.limit {
            Some(limit) if taken >= limit as usize => Err(Error::limit(
                "sessions of a host",
                u64::from(limit),
                taken as u64 + 1,
            )),
            _ => Ok(SessionPlace {
                _taken: Arc::clone(&self.taken),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use portcullis_engine::ErrorKind;

    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_session_goes() {
        let places = SessionPlaces::new(1);
        let first = places.take().unwrap();
        assert!(matches!(
            places.take().unwrap_err().kind(),
            ErrorKind::LimitExceeded { max: 1, .. }
        ));
        drop(first);
        places.take().unwrap();
    }
}

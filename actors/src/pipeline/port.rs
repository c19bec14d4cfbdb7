//! Where samples come out of a node.

use portcullis_derive::Remote;
pub use portcullis_engine::session::Epoch;
use portcullis_engine::{Error, MediaTime, MediaType, Sample};
use serde::{Deserialize, Serialize};

crate::interface! {
    /// The output side of a source or transform.
    pub Port = "portcullis.Port" { Pull }
}

/// Asks for samples: a credit. Answered as soon as there is at least one item; waits while there is none.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = Pulled, no_deadline)]
pub struct Pull {
    /// Which output of the node: a source's stream id, 0 for a transform.
    pub output: u32,
    /// Samples at most; at least 1.
    pub max_samples: u32,
    /// Payload bytes after which the batch is complete.
    pub max_bytes: u64,
    /// The epoch that the asker is in.
    pub epoch: Epoch,
}

/// What a pull answers: at least one item, in order.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Pulled {
    /// The items.
    pub items: Vec<Item>,
}

/// One thing that travels along an edge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Item {
    /// A sample.
    Sample(Sample),
    /// What follows is of this type.
    Format(MediaType),
    /// Nothing until this time.
    Gap(MediaTime),
    /// Something could not be delivered; what follows is intact.
    Fault(Error),
    /// The stream has ended; a pull after this waits for the next epoch.
    End,
    /// The pull was of an older epoch.
    Stale,
}

impl Item {
    /// Payload bytes of the item.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Sample(sample) => sample.len() as u64,
            _ => 0,
        }
    }
}

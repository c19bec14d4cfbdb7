//! Where samples come out of a node.

mod packed;

use portcullis_derive::Remote;
pub use portcullis_engine::credit::{Answer, Credit, FlowItem};
pub use portcullis_engine::media::AllocationRequirements;
pub use portcullis_engine::session::Epoch;
use serde::{Deserialize, Serialize};

use crate::bridge::{Answerer, Deferred, deferred};

crate::interface! {
    /// The output side of a source or transform.
    pub Port = "portcullis.Port" { Pull, Disconnect, Require }
}

/// Says that nothing more is taken from an output in this flow, whatever comes: the node need make nothing for it, and hold
/// nothing back.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
pub struct Disconnect {
    /// Which output of the node.
    pub output: u32,
    /// The flow that the asker is in.
    pub epoch: Epoch,
}

/// Says what the consumer of an output asks of the memory in which samples come: when it is connected, before it pulls.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
pub struct Require {
    /// Which output of the node.
    pub output: u32,
    /// What it asks for, in place of what was asked before.
    pub memory: AllocationRequirements,
}

/// Asks for samples: a credit. Answered as soon as there is at least one item; waits while there is none.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = Pulled, no_deadline)]
pub struct Pull {
    /// Which output of the node: a source's stream id, 0 for a transform.
    pub output: u32,
    /// How much.
    pub credit: Credit,
}

/// What a pull answers: at least one item, in order, or none because another flow has begun.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Pulled {
    /// The items.
    #[serde(with = "packed")]
    pub items: Vec<FlowItem>,
    /// The flow that they are of.
    pub epoch: Epoch,
}

/// Who waits for the answer of a pull.
pub(crate) type Asker = Answerer<Pulled>;

/// A pull's answer that comes later, and who gives it.
pub(crate) fn asker() -> (Asker, Deferred<Pulled>) {
    deferred()
}

/// Hands an answer over; gives it back if nobody waits for it any more.
pub(crate) fn hand_over(answer: Answer<Asker>) -> Result<(), Pulled> {
    let Answer {
        reply,
        items,
        epoch,
    } = answer;
    reply.answer(Pulled { items, epoch })
}

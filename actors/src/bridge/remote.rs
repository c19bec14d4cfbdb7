//! What makes a message able to cross a process wall.

use std::time::Duration;

use actix::Message;
use portcullis_engine::Error;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

/// A message that works across a process wall. Derive it.
///
/// What arrives was written by another process, which may be anybody's, so it is read within bounds. Values may be inside of each
/// other to a depth of 128; structs, newtypes, tuples, enums, options, lists and maps all count. Lists and maps have no more
/// elements in all than the message has bytes, and 1024: elements that take no byte, such as `()`, cannot be many. Nothing
/// may be behind the value. What goes beyond ends the link, with an error that says so.
///
/// ```
/// # extern crate portcullis_actors as portcullis;
/// use portcullis_actors::bridge::Remote;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, portcullis_actors::Remote)]
/// #[remote(reply = f32)]
/// struct SetFactor(f32);
///
/// assert_eq!(SetFactor::NAME, "portcullis-actors.SetFactor");
/// ```
pub trait Remote:
    Message<Result = Result<Self::Reply, Error>> + Serialize + DeserializeOwned + Send + 'static
{
    /// What a successful request answers.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
    /// The stable wire name.
    const NAME: &'static str;
    /// How long a caller in another process waits; `None` for a request that waits by design.
    const DEADLINE: Option<Duration> = Some(Duration::from_secs(5));
    /// A hash of the message's own fields and of its reply's type. The derive macro sets it; of types inside of them it
    /// knows only the names.
    const SHAPE: u32 = 0;
    /// The name's hash: what is on the wire.
    const ID: u32 = wire_id(Self::NAME);
}

/// When the caller of a message that is sent now waits no more.
pub(crate) fn deadline_of<M: Remote>() -> Option<Instant> {
    M::DEADLINE.and_then(|wait| Instant::now().checked_add(wait))
}

/// The wire id of a name: 32-bit FNV-1a, stable for ever.
pub const fn wire_id(name: &str) -> u32 {
    let bytes = name.as_bytes();
    let mut hash: u32 = 0x811c_9dc5;
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    hash
}

//! What the frames of a link mean.

/// Frame kinds of protocol version 1.
pub(crate) mod kind {
    /// A request: object, generation, call, method; body is the message.
    pub(crate) const CALL: u16 = 1;
    /// The answer of a call: body is the reply, or an error if [`super::FLAG_ERROR`] is set.
    pub(crate) const REPLY: u16 = 2;
    /// The caller has gone: call. Answered by [`super::FLAG_CANCELLED`], unless the reply has been sent before.
    pub(crate) const CANCEL: u16 = 3;
    /// References to an object are given back: object, generation; `call` is how many. With [`super::FLAG_WATCHED`] its death
    /// is to be told also when none is left; one of no references takes that back.
    pub(crate) const RELEASE: u16 = 4;
    /// Leases of payload slots are given back: body is the list.
    pub(crate) const SLOTS: u16 = 5;
    /// A new segment of the sender's payload pool: object is its id, `call` the slot size, method the slot count; one descriptor.
    pub(crate) const SEGMENT: u16 = 6;
    /// Asks whether the peer's link is still served.
    pub(crate) const PING: u16 = 7;
    /// Answers a ping.
    pub(crate) const PONG: u16 = 8;
    /// An object of the sender has ended by itself: object, generation; body is why, as an error. Behind all its replies.
    pub(crate) const DEATH: u16 = 9;
    /// The sender's interfaces, in front of everything else, where the hashes of the hellos differ: body is their names, each
    /// with the hash over its messages.
    pub(crate) const TABLE: u16 = 10;
}

/// A reply that carries an error. One of the transport's user flags.
pub(super) const FLAG_ERROR: u16 = 1 << 15;

/// A reply that says that its call was cancelled, and has no body.
pub(super) const FLAG_CANCELLED: u16 = 1 << 14;

/// A call whose body begins with the [`TraceContext`](crate::bridge::TraceContext) in which it was made.
pub(super) const FLAG_TRACED: u16 = 1 << 13;

/// A release of an object whose end somebody still waits for.
pub(super) const FLAG_WATCHED: u16 = 1 << 12;

/// The object id of each side's root.
pub(super) const ROOT: u32 = 0;

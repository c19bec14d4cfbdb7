//! An interface: a list of messages, declared once.

use actix::{Actor, Addr};

use super::recipient::Slot;
use super::remote::Remote;
use super::table::MessageType;

/// A list of messages that an actor answers. Declare one with [`interface!`](crate::interface).
pub trait Interface: Sized + Send + Sync + Unpin + 'static {
    /// The stable wire name.
    const NAME: &'static str;
    /// The wire ids of the messages, in the declared order.
    const METHODS: &'static [u32];
    /// The [`Remote::SHAPE`]s of the messages, in the same order.
    const SHAPES: &'static [u32];
    /// The messages, in the same order.
    fn messages() -> Vec<MessageType>;
    /// The name's hash: what is on the wire.
    const ID: u32 = super::remote::wire_id(Self::NAME);

    /// The entries of an actor elsewhere, message by message, in the declared order.
    fn elsewhere() -> Vec<Slot>;
}

/// The interface has the message `M`.
pub trait Has<M: Remote>: Interface {
    /// The message's place in the interface.
    const INDEX: usize = position(Self::METHODS, M::ID);
}

/// The actor `A` answers every message of the interface.
pub trait ServedBy<A: Actor> {
    /// The actor's mailbox, message by message, in the declared order.
    fn slots(address: &Addr<A>) -> Vec<Slot>;
}

const fn position(methods: &[u32], id: u32) -> usize {
    let mut at = 0;
    while methods[at] != id {
        at += 1;
    }
    at
}

/// Fails to compile where two messages of one interface have the same wire id. Not a public interface.
#[doc(hidden)]
pub const fn distinct<const N: usize>(methods: [u32; N]) -> [u32; N] {
    let mut at = 0;
    while at < N {
        let mut other = at + 1;
        while other < N {
            assert!(
                methods[at] != methods[other],
                "two messages of the interface have the same wire id: rename one"
            );
            other += 1;
        }
        at += 1;
    }
    methods
}

/// Declares an interface.
///
/// ```
/// # extern crate portcullis_actors as portcullis;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize, portcullis_actors::Remote)]
/// # struct SetFactor(f32);
/// portcullis_actors::interface! {
///     /// The knobs of a gain.
///     pub GainControl = "example.gain" { SetFactor }
/// }
/// ```
#[macro_export]
macro_rules! interface {
    ($(#[$meta:meta])* $visibility:vis $name:ident = $text:literal { $($message:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug)]
        $visibility enum $name {}

        impl $crate::bridge::Interface for $name {
            const NAME: &'static str = $text;
            const METHODS: &'static [u32] = &const {
                $crate::bridge::distinct([$(<$message as $crate::bridge::Remote>::ID),*])
            };
            const SHAPES: &'static [u32] = &[$(<$message as $crate::bridge::Remote>::SHAPE),*];

            fn messages() -> ::std::vec::Vec<$crate::bridge::MessageType> {
                ::std::vec![$($crate::bridge::MessageType::of::<$message>()),*]
            }

            fn elsewhere() -> ::std::vec::Vec<$crate::bridge::Slot> {
                ::std::vec![$($crate::bridge::Slot::elsewhere::<$message>()),*]
            }
        }

        impl<A> $crate::bridge::ServedBy<A> for $name
        where
            A: $crate::__derive::actix::Actor $(+ $crate::__derive::actix::Handler<$message>)*,
            A::Context: $crate::__derive::actix::AsyncContext<A>
                $(+ $crate::__derive::actix::dev::ToEnvelope<A, $message>)*
        {
            fn slots(address: &$crate::__derive::actix::Addr<A>) -> ::std::vec::Vec<$crate::bridge::Slot> {
                let _ = address;
                ::std::vec![$($crate::bridge::Slot::new::<$message>(address.clone().recipient())),*]
            }
        }

        $(impl $crate::bridge::Has<$message> for $name {})*
    };
}

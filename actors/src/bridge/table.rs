//! The interfaces that a program's side of a link knows, and whether both sides mean the same by them.

use std::any::{TypeId, type_name};
use std::collections::BTreeMap;
use std::fmt;

use portcullis_engine::{Error, ErrorKind, Result};

use super::interface::Interface;
use super::remote::{Remote, wire_id};
use super::scope;

/// The name under which the version of this crate is in a listing.
const VERSION: &str = "portcullis-actors itself";

/// Raise it when a type changes its wire form that is inside of a message, or inside of its reply, but not named there.
const SCHEMA: u32 = 1;

/// Bytes of a listing that a peer may send.
const MAX_LISTING: usize = 1 << 20;

/// A message of an interface.
#[derive(Clone, Copy, Debug)]
pub struct MessageType {
    name: &'static str,
    id: u32,
    shape: u32,
    type_id: TypeId,
    type_name: &'static str,
}

impl MessageType {
    /// The type `M`.
    pub fn of<M: Remote>() -> Self {
        Self {
            name: M::NAME,
            id: M::ID,
            shape: M::SHAPE,
            type_id: TypeId::of::<M>(),
            type_name: type_name::<M>(),
        }
    }
}

/// The interfaces that one side of a link knows.
///
/// Both sides compare theirs when they connect. An interface that both know must have the same messages, in the same order
/// and with the same fields; one that only one side knows does no harm. Put in what this side calls and what it serves, so
/// that a difference is an error of the connection, by the interface's name, and not one of some later call.
#[derive(Clone)]
pub struct InterfaceTable {
    /// By wire id.
    interfaces: BTreeMap<u32, Known>,
    messages: BTreeMap<u32, MessageType>,
    /// Two that have one wire id.
    clash: Option<String>,
}

#[derive(Clone)]
struct Known {
    name: &'static str,
    type_id: TypeId,
    type_name: &'static str,
    hash: u64,
}

/// An interface's name and the hash over its messages, as sides tell each other.
pub(crate) type Listing = Vec<(String, u64)>;

impl Default for InterfaceTable {
    fn default() -> Self {
        Self::new()
    }
}

impl InterfaceTable {
    /// A table without interfaces. Sides of two versions of this crate do not fit in any case.
    pub fn new() -> Self {
        Self {
            interfaces: BTreeMap::new(),
            messages: BTreeMap::new(),
            clash: None,
        }
    }

    /// With an interface.
    #[must_use]
    pub fn with<I: Interface>(mut self) -> Self {
        self.add::<I>();
        self
    }

    /// Adds an interface; one that is there already is not added again.
    pub fn add<I: Interface>(&mut self) {
        let messages = I::messages();
        let words = messages
            .iter()
            .flat_map(|message| [message.id, message.shape]);
        let known = Known {
            name: I::NAME,
            type_id: TypeId::of::<I>(),
            type_name: type_name::<I>(),
            hash: hash(words),
        };
        self.put_interface(I::ID, known);
        for message in messages {
            self.put_message(message);
        }
    }

    /// With all of another table.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        for (id, known) in &other.interfaces {
            self.put_interface(*id, known.clone());
        }
        for message in other.messages.values() {
            self.put_message(*message);
        }
        self.clash = self.clash.or_else(|| other.clash.clone());
        self
    }

    /// Refuses a table in which two interfaces or two messages have one wire id: what is sent to one would reach the other.
    ///
    /// # Errors
    /// `InvalidRequest` that names both.
    pub fn check(&self) -> Result<()> {
        match &self.clash {
            Some(clash) => Err(Error::invalid_request(clash.clone())),
            None => Ok(()),
        }
    }

    /// A hash over everything in it, in whatever order it was put in.
    pub(crate) fn hash(&self) -> u64 {
        let words = |value: u64| [value as u32, (value >> 32) as u32];
        let entries = self.interfaces.iter().flat_map(|(id, known)| {
            let [low, high] = words(known.hash);
            [*id, low, high]
        });
        hash(words(version()).into_iter().chain(entries))
    }

    /// What the peer is told where the hashes differ.
    pub(crate) fn listing(&self) -> Listing {
        let interfaces = self.interfaces.values();
        let interfaces = interfaces.map(|known| (known.name.to_owned(), known.hash));
        std::iter::once((VERSION.to_owned(), version()))
            .chain(interfaces)
            .collect()
    }

    /// Compares this side with what the peer told of its own.
    ///
    /// # Errors
    /// `Protocol` that names every interface that is not the same.
    pub(crate) fn compare(&self, body: &[u8]) -> Result<()> {
        let broken = |what: String| Err(Error::new(ErrorKind::Protocol(what.into())));
        if body.len() > MAX_LISTING {
            return broken(format!("an interface table of {} bytes", body.len()));
        }
        let theirs: Listing = match scope::read(body) {
            Ok(theirs) => theirs,
            Err(why) => return broken(format!("an interface table: {why}")),
        };
        let theirs: BTreeMap<_, _> = theirs.into_iter().collect();
        let mut differ = Vec::new();
        for (name, ours) in self.listing() {
            if let Some(theirs) = theirs.get(&name).filter(|theirs| **theirs != ours) {
                differ.push(format!("{name} (here {ours:016x}, there {theirs:016x})"));
            }
        }
        match differ.is_empty() {
            true => Ok(()),
            false => broken(format!(
                "the sides do not mean the same by: {}; build both from the same source",
                differ.join(", ")
            )),
        }
    }

    fn put_interface(&mut self, id: u32, new: Known) {
        match self.interfaces.get(&id) {
            Some(known) if known.type_id == new.type_id => {}
            Some(known) => {
                let clash = format!(
                    "the interfaces {} ({:?}) and {} ({:?}) have the wire id {id:#010x}: rename one",
                    known.type_name, known.name, new.type_name, new.name
                );
                self.clash.get_or_insert(clash);
            }
            None => {
                self.interfaces.insert(id, new);
            }
        }
    }

    fn put_message(&mut self, new: MessageType) {
        match self.messages.get(&new.id) {
            Some(known) if known.type_id == new.type_id => {}
            Some(known) => {
                let clash = format!(
                    "the messages {} ({:?}) and {} ({:?}) have the wire id {:#010x}: rename one",
                    known.type_name, known.name, new.type_name, new.name, new.id
                );
                self.clash.get_or_insert(clash);
            }
            None => {
                self.messages.insert(new.id, new);
            }
        }
    }
}

impl fmt::Debug for InterfaceTable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.interfaces.values().map(|known| known.name);
        out.debug_set().entries(names).finish()
    }
}

/// Two tables are the same for a peer.
impl PartialEq for InterfaceTable {
    fn eq(&self, other: &Self) -> bool {
        self.listing() == other.listing() && self.clash == other.clash
    }
}

impl Eq for InterfaceTable {}

/// This crate's version and the schema of what is not named in messages.
pub(crate) fn version() -> u64 {
    version_of(env!("CARGO_PKG_VERSION"), SCHEMA)
}

fn version_of(version: &str, schema: u32) -> u64 {
    hash([wire_id(version), schema])
}

/// 64-bit FNV-1a, word by word.
fn hash(words: impl IntoIterator<Item = u32>) -> u64 {
    let step = |hash: u64, word: u32| (hash ^ u64::from(word)).wrapping_mul(0x0100_0000_01b3);
    words.into_iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use portcullis_derive::Remote;
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Serialize, Deserialize, Remote)]
    #[remote(name = "table.Same")]
    struct One(u32);
    #[derive(Serialize, Deserialize, Remote)]
    #[remote(name = "table.Same")]
    struct Two(u32);
    #[derive(Serialize, Deserialize, Remote)]
    #[remote(name = "table.Same")]
    struct Wider(u64);
    #[derive(Serialize, Deserialize, Remote)]
    struct Plain;

    crate::interface! { Ones = "table.Ones" { One, Plain } }
    crate::interface! { AlsoPlain = "table.AlsoPlain" { Plain } }
    crate::interface! { Twos = "table.Twos" { Two } }
    crate::interface! { OtherOnes = "table.Ones" { Plain } }

    /// What another program may have under the name of `Ones`.
    mod elsewhere {
        use super::*;
        crate::interface! { pub(super) Ones = "table.Ones" { Wider, Plain } }
    }

    #[test]
    fn two_types_with_one_wire_id_are_found_and_named() {
        let shared = InterfaceTable::new().with::<Ones>().with::<AlsoPlain>();
        assert_eq!(shared.check(), Ok(()), "one message in two interfaces");
        assert_eq!(shared.clone().with::<Ones>().check(), Ok(()));

        let messages = InterfaceTable::new().with::<Ones>().with::<Twos>();
        let error = messages.check().expect_err("two of one name").to_string();
        for name in ["tests::One ", "tests::Two ", "table.Same", "rename one"] {
            assert!(error.contains(name), "{error}");
        }
        let interfaces = InterfaceTable::new().with::<Ones>().with::<OtherOnes>();
        let error = interfaces.check().expect_err("two of one name").to_string();
        for name in ["tests::Ones ", "tests::OtherOnes ", "table.Ones"] {
            assert!(error.contains(name), "{error}");
        }
        assert!(shared.and(&interfaces).check().is_err(), "not forgotten");
    }

    #[test]
    fn only_interfaces_that_both_know_must_be_the_same() {
        let told = |table: &InterfaceTable| postcard::to_allocvec(&table.listing()).expect("fits");
        let ours = InterfaceTable::new().with::<Ones>();
        let more = ours.clone().with::<AlsoPlain>();
        assert_ne!(ours.hash(), more.hash());
        assert_eq!(ours.compare(&told(&more)), Ok(()));
        assert_eq!(more.compare(&told(&ours)), Ok(()));
        let theirs = InterfaceTable::new().with::<elsewhere::Ones>();
        let error = ours.compare(&told(&theirs)).expect_err("another field");
        let error = error.to_string();
        assert!(error.contains("table.Ones (here "), "{error}");
        let mut other_version = ours.listing();
        other_version[0].1 ^= 1;
        let other_version = postcard::to_allocvec(&other_version).expect("fits");
        let error = ours.compare(&other_version).expect_err("another version");
        assert!(error.to_string().contains(VERSION), "{error}");
        ours.compare(&[0xff; 40]).expect_err("no listing");
        ours.compare(&vec![0; MAX_LISTING + 1]).expect_err("long");
    }

    #[test]
    fn the_order_of_putting_in_does_not_matter_and_the_version_does() {
        let one = InterfaceTable::new().with::<Ones>().with::<AlsoPlain>();
        let other = InterfaceTable::new().with::<AlsoPlain>().with::<Ones>();
        assert_eq!((one.hash(), &one), (other.hash(), &other));
        assert_ne!(version_of("1.0.0", 1), version_of("1.0.1", 1));
        assert_ne!(version_of("1.0.0", 1), version_of("1.0.0", 2));
    }
}

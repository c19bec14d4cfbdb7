//! Reading what a peer has written: no deeper than the stack bears, no more of it than its bytes can mean, and all of it.
//!
//! The codec itself follows the bytes wherever they lead. A type that contains itself is read by a function that calls itself,
//! a million times if the bytes say so; a list of values that take no bytes has as many as ten bytes can count. So the codec is
//! read through [`Nested`], which is around it, around each value inside of it, and around all who read these.

use std::cell::Cell;
use std::fmt;

use serde::Deserialize;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::scope;

/// How deep values may be inside of each other: structs, tuples, enums, options, lists and maps all count. As `serde_json`.
pub(super) const DEPTH: u8 = 128;

/// How many elements of lists and maps may take no byte.
pub(super) const EMPTY: usize = 1024;

/// Reads a value that is the whole of `body`.
///
/// # Errors
/// What the codec says; [`scope::reason`] has the text.
pub(super) fn read<'de, T: Deserialize<'de>>(body: &'de [u8]) -> postcard::Result<T> {
    let elements = Cell::new(body.len().saturating_add(EMPTY));
    let mut codec = postcard::Deserializer::from_bytes(body);
    let value = T::deserialize(Nested {
        inner: &mut codec,
        room: Room {
            deeper: DEPTH,
            elements: &elements,
            is_list: false,
        },
    })?;
    match codec.finalize()?.len() {
        0 => Ok(value),
        behind => {
            let why = format!("{behind} bytes behind the message");
            Err(scope::refuse(why, postcard::Error::custom))
        }
    }
}

/// What a value may contain.
#[derive(Clone, Copy)]
struct Room<'a> {
    deeper: u8,
    /// Elements of lists and maps, in all of the message.
    elements: &'a Cell<usize>,
    /// The value is one of these.
    is_list: bool,
}

impl Room<'_> {
    /// Of the values inside of this one.
    #[inline]
    fn inside<E: Error>(mut self, is_list: bool) -> Result<Self, E> {
        match self.deeper.checked_sub(1) {
            Some(deeper) => self.deeper = deeper,
            None => return Err(too_deep()),
        }
        self.is_list = is_list;
        Ok(self)
    }

    /// One more has been read.
    #[inline]
    fn count<E: Error>(self) -> Result<(), E> {
        if self.is_list {
            match self.elements.get().checked_sub(1) {
                Some(left) => self.elements.set(left),
                None => return Err(too_many()),
            }
        }
        Ok(())
    }
}

#[cold]
fn too_deep<E: Error>() -> E {
    scope::refuse(format!("nested deeper than {DEPTH}"), E::custom)
}

#[cold]
fn too_many<E: Error>() -> E {
    scope::refuse("more elements than bytes", E::custom)
}

/// Stands around what reads, or is read, and passes everything on.
struct Nested<'a, T> {
    inner: T,
    room: Room<'a>,
}

impl<'a, T> Nested<'a, T> {
    #[inline]
    fn new(inner: T, room: Room<'a>) -> Self {
        Self { inner, room }
    }
}

/// What has nothing inside of it.
macro_rules! plain {
    ($($method:ident)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method(visitor)
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Nested<'_, D> {
    type Error = D::Error;

    // The codec refuses those that are to find out by themselves what is inside.
    plain! {
        deserialize_any deserialize_ignored_any deserialize_identifier
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64 deserialize_char deserialize_str deserialize_string
        deserialize_bytes deserialize_byte_buf deserialize_unit
    }

    #[inline]
    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_unit_struct(name, visitor)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let room = self.room.inside(false)?;
        self.inner.deserialize_option(Nested::new(visitor, room))
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = Nested::new(visitor, self.room.inside(false)?);
        self.inner.deserialize_newtype_struct(name, visitor)
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let room = self.room.inside(true)?;
        self.inner.deserialize_seq(Nested::new(visitor, room))
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = Nested::new(visitor, self.room.inside(false)?);
        self.inner.deserialize_tuple(len, visitor)
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = Nested::new(visitor, self.room.inside(false)?);
        self.inner.deserialize_tuple_struct(name, len, visitor)
    }

    #[inline]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let room = self.room.inside(true)?;
        self.inner.deserialize_map(Nested::new(visitor, room))
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = Nested::new(visitor, self.room.inside(false)?);
        self.inner.deserialize_struct(name, fields, visitor)
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = Nested::new(visitor, self.room.inside(false)?);
        self.inner.deserialize_enum(name, variants, visitor)
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// It is around those only that are given to what has something inside of it.
impl<'de, V: Visitor<'de>> Visitor<'de> for Nested<'_, V> {
    type Value = V::Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(out)
    }

    #[inline]
    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    #[inline]
    fn visit_some<D: Deserializer<'de>>(self, some: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(Nested::new(some, self.room))
    }

    #[inline]
    fn visit_newtype_struct<D: Deserializer<'de>>(self, value: D) -> Result<V::Value, D::Error> {
        let value = Nested::new(value, self.room);
        self.inner.visit_newtype_struct(value)
    }

    #[inline]
    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<V::Value, A::Error> {
        self.inner.visit_seq(Nested::new(list, self.room))
    }

    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(Nested::new(map, self.room))
    }

    #[inline]
    fn visit_enum<A: EnumAccess<'de>>(self, variant: A) -> Result<V::Value, A::Error> {
        self.inner.visit_enum(Nested::new(variant, self.room))
    }
}

impl<'de, T: DeserializeSeed<'de>> DeserializeSeed<'de> for Nested<'_, T> {
    type Value = T::Value;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<T::Value, D::Error> {
        self.inner.deserialize(Nested::new(value, self.room))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Nested<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, A::Error> {
        let element = self.inner.next_element_seed(Nested::new(seed, self.room))?;
        if element.is_some() {
            self.room.count()?;
        }
        Ok(element)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Nested<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_key_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, A::Error> {
        let key = self.inner.next_key_seed(Nested::new(seed, self.room))?;
        if key.is_some() {
            self.room.count()?;
        }
        Ok(key)
    }

    #[inline]
    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        self.inner.next_value_seed(Nested::new(seed, self.room))
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, 'a, A: EnumAccess<'de>> EnumAccess<'de> for Nested<'a, A> {
    type Error = A::Error;
    type Variant = Nested<'a, A::Variant>;

    #[inline]
    fn variant_seed<T: DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<(T::Value, Self::Variant), A::Error> {
        let (which, variant) = self.inner.variant_seed(seed)?;
        Ok((which, Nested::new(variant, self.room)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Nested<'_, A> {
    type Error = A::Error;

    #[inline]
    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    #[inline]
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, A::Error> {
        let seed = Nested::new(seed, self.room);
        self.inner.newtype_variant_seed(seed)
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        let visitor = Nested::new(visitor, self.room);
        self.inner.tuple_variant(len, visitor)
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = Nested::new(visitor, self.room);
        self.inner.struct_variant(fields, visitor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde::Serialize;

    use super::*;

    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    enum Everything {
        Unit,
        Newtype(Box<Everything>),
        Tuple(u8, Option<Box<Everything>>, (u16, [i8; 3])),
        Struct {
            list: Vec<Everything>,
            map: HashMap<String, Wrapped>,
            text: String,
            bytes: Vec<u8>,
            nothing: (),
            number: i128,
        },
    }

    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    struct Wrapped(f64);

    /// Contains itself, in every way that there is by turns.
    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    struct Chain(Option<Box<Chain>>);

    fn write<T: Serialize>(value: &T) -> Vec<u8> {
        postcard::to_allocvec(value).expect("writes")
    }

    fn why<'de, T: Deserialize<'de>>(body: &'de [u8]) -> String {
        scope::read::<T>(body).err().expect("is refused")
    }

    #[test]
    fn everything_is_read_as_it_was_written() {
        let inner = Everything::Tuple(1, Some(Box::new(Everything::Unit)), (2, [-1, 0, 1]));
        let whole = Everything::Struct {
            list: vec![Everything::Newtype(Box::new(inner)), Everything::Unit],
            map: HashMap::from([("one".into(), Wrapped(1.5))]),
            text: "\u{20ac}".into(),
            bytes: vec![7; 300],
            nothing: (),
            number: i128::MIN,
        };
        assert_eq!(scope::read(&write(&whole)), Ok(whole));
        let borrowed = write(&("text", [1_u8, 2]));
        assert_eq!(
            scope::read::<(&str, [u8; 2])>(&borrowed),
            Ok(("text", [1, 2]))
        );
        // Values without bytes are no attack yet.
        let empty = vec![(); EMPTY];
        assert_eq!(scope::read(&write(&empty)), Ok(empty));
    }

    #[test]
    fn depth_is_bounded_at_its_edge() {
        // Each link of it is a struct and an option.
        let chain = |links: usize| {
            let mut body = vec![1; links - 1];
            body.push(0);
            body
        };
        let deepest = usize::from(DEPTH) / 2;
        let mut read = scope::read::<Chain>(&chain(deepest)).ok();
        let mut links = 0;
        while let Some(Chain(next)) = read {
            links += 1;
            read = next.map(|next| *next);
        }
        assert_eq!(links, deepest);
        for links in [deepest + 1, 1_000_000] {
            assert_eq!(why::<Chain>(&chain(links)), "nested deeper than 128");
        }
        // In an enum: a newtype each.
        assert_eq!(why::<Everything>(&[1; 1_000_000]), "nested deeper than 128");
    }

    #[test]
    fn no_list_has_more_elements_than_its_message_has_bytes() {
        let most = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(why::<Vec<()>>(&most), "more elements than bytes");
        assert_eq!(why::<HashMap<(), ()>>(&most), "more elements than bytes");
        // Nor have many lists together.
        let many = vec![[0xff, 0x7f]; 1000].concat();
        let mut body = write(&1000_u64);
        body.extend(many);
        assert_eq!(why::<Vec<Vec<()>>>(&body), "more elements than bytes");
    }

    #[test]
    fn nothing_is_behind_a_message() {
        assert_eq!(scope::read::<u8>(&[1]), Ok(1));
        assert_eq!(why::<u8>(&[1, 2, 3]), "2 bytes behind the message");
        assert_eq!(why::<()>(&[0]), "1 bytes behind the message");
        // What the codec says of its own is not lost.
        assert!(why::<u16>(&[]).contains("end"), "{}", why::<u16>(&[]));
    }
}

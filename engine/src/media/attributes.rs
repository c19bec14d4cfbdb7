//! A typed key-value store that crosses the process wall whole.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The value of one attribute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Value {
    /// An unsigned integer.
    Unsigned(u64),
    /// A signed integer.
    Signed(i64),
    /// A real number.
    Real(f64),
    /// A ratio or a pair of sizes: (numerator, denominator), (width, height).
    Pair(u32, u32),
    /// A text.
    Text(Cow<'static, str>),
    /// Bytes, such as a codec's private data.
    Blob(Bytes),
}

/// The name of an attribute together with the type of its value.
pub struct Key<T> {
    name: &'static str,
    value: PhantomData<fn() -> T>,
}

impl<T> Key<T> {
    /// A key with this name; names are unique within the project and never change meaning.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            value: PhantomData,
        }
    }

    /// The name.
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl<T> fmt::Debug for Key<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Key({})", self.name)
    }
}

/// A type that an attribute can hold.
pub trait AttributeValue: Sized {
    /// The stored form.
    fn into_value(self) -> Value;
    /// The typed form, or `None` if the value is of another type or out of range.
    fn from_value(value: &Value) -> Option<Self>;
}

macro_rules! attribute_value {
    ($type:ty, $from:pat => $back:expr, $self:ident => $into:expr) => {
        impl AttributeValue for $type {
            fn into_value(self) -> Value {
                let $self = self;
                $into
            }
            fn from_value(value: &Value) -> Option<Self> {
                match value {
                    $from => $back,
                    _ => None,
                }
            }
        }
    };
}

attribute_value!(u64, Value::Unsigned(v) => Some(*v), v => Value::Unsigned(v));
attribute_value!(u32, Value::Unsigned(v) => u32::try_from(*v).ok(), v => Value::Unsigned(u64::from(v)));
attribute_value!(i64, Value::Signed(v) => Some(*v), v => Value::Signed(v));
attribute_value!(f64, Value::Real(v) => Some(*v), v => Value::Real(v));
attribute_value!((u32, u32), Value::Pair(a, b) => Some((*a, *b)), v => Value::Pair(v.0, v.1));
attribute_value!(bool, Value::Unsigned(v) => Some(*v != 0), v => Value::Unsigned(u64::from(v)));
attribute_value!(Cow<'static, str>, Value::Text(v) => Some(v.clone()), v => Value::Text(v));
attribute_value!(String, Value::Text(v) => Some(v.to_string()), v => Value::Text(v.into()));
attribute_value!(Bytes, Value::Blob(v) => Some(v.clone()), v => Value::Blob(v));

/// Named values, ordered by name; equal stores have equal bytes on the wire.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attributes(BTreeMap<Cow<'static, str>, Value>);

impl Attributes {
    /// An empty store.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// The value under `key`, if it is there and of the key's type.
    pub fn get<T: AttributeValue>(&self, key: &Key<T>) -> Option<T> {
        self.0.get(key.name).and_then(T::from_value)
    }

    /// Puts a value under `key`, replacing what was there.
    pub fn set<T: AttributeValue>(&mut self, key: &Key<T>, value: T) -> &mut Self {
        self.0.insert(Cow::Borrowed(key.name), value.into_value());
        self
    }

    /// Removes what is under `key`.
    pub fn remove<T>(&mut self, key: &Key<T>) -> Option<Value> {
        self.0.remove(key.name)
    }

    /// Puts a value under a name that is only known at run time, such as a tag of a file.
    pub fn set_named(&mut self, name: impl Into<Cow<'static, str>>, value: Value) -> &mut Self {
        self.0.insert(name.into(), value);
        self
    }

    /// The untyped value under a name.
    pub fn named(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// All values in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value))
    }

    /// Takes over what `other` has and this store lacks.
    pub fn inherit(&mut self, other: &Self) {
        for (name, value) in &other.0 {
            self.0.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many values are stored.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Key<(u32, u32)> = Key::new("size");
    const RATE: Key<u32> = Key::new("rate");

    #[test]
    fn a_value_of_another_type_is_not_there() {
        let mut store = Attributes::new();
        store.set_named("rate", Value::Text("fast".into()));
        store.set(&SIZE, (16, 9));
        assert_eq!(store.get(&RATE), None);
        assert_eq!(store.get(&SIZE), Some((16, 9)));
    }

    #[test]
    fn inheriting_keeps_what_is_there() {
        let mut near = Attributes::new();
        near.set(&RATE, 1);
        let mut far = Attributes::new();
        far.set(&RATE, 2).set(&SIZE, (4, 3));
        near.inherit(&far);
        assert_eq!((near.get(&RATE), near.get(&SIZE)), (Some(1), Some((4, 3))));
    }
}

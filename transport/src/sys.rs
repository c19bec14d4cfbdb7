//! Everything `unsafe` of this crate, each behind a safe wrapper in its own file.

#![allow(unsafe_code)]

pub(crate) mod alarm;
pub(crate) mod filter;
pub(crate) mod landlock;
pub(crate) mod layers;
pub(crate) mod mapping;
pub(crate) mod process;
pub(crate) mod ring;
pub(crate) mod segment;
pub(crate) mod signals;
pub(crate) mod spawn;

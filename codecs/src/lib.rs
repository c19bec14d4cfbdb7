//! Containers, codecs and converters of Portcullis: one file each, written against the engine's traits.
//!
//! [`register`] puts all of them into a registry. None of them knows of actors or processes.
#![forbid(unsafe_code)]

pub mod audio;
pub mod container;
pub mod convert;
pub mod sink;
pub mod synthetic;
pub mod video;

use portcullis_engine::Registry;

/// Registers every component of this crate.
pub fn register(registry: &mut Registry) {
    container::register(registry);
    audio::register(registry);
    video::register(registry);
    convert::register(registry);
    sink::register(registry);
    synthetic::register(registry);
}

//! Headers of audio bitstreams, shared by the containers and the decoders.

pub(crate) mod adts;
pub(crate) mod asc;
pub(crate) mod bits;
pub(crate) mod flac;
pub(crate) mod mpeg;

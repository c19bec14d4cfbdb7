//! Ogg: Vorbis, Opus and FLAC, multiplexed or chained.
//!
//! Streams of other codecs are listed but deliver no samples: what a granule position counts, and how long a packet
//! lasts, only the codec knows. Every page's checksum is verified; what is intact is delivered, before a damaged page and
//! behind it, and the fault is told at the end.
//!
//! Durations are what is heard: Opus' pre-skip, which granule positions count, is not in them (RFC 7845 section 4.5;
//! `ffprobe` counts it). That of a chain is the sum of its links'.

mod demuxer;
mod faults;
pub(crate) mod flac;
mod links;
mod logical;
mod mapping;
pub(crate) mod opus;
mod page;
pub(crate) mod position;
mod source;
pub(crate) mod vorbis;

#[cfg(test)]
mod chained;
#[cfg(test)]
mod damaged;
#[cfg(test)]
pub(crate) mod oracle;
#[cfg(test)]
mod resume;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod written;

use portcullis_engine::component::{Confidence, Hints, OpenContext};
use portcullis_engine::{
    ByteSource, ByteStreamHandler, Component, ComponentInfo, MediaSource, Registry, Result,
};
use serde::{Deserialize, Serialize};

use self::demuxer::Demuxer;
use self::source::OggSource;
use super::reader::Reader;

pub(crate) fn register(registry: &mut Registry) {
    registry.byte_stream_handler::<OggHandler>();
}

/// Makes a source from an Ogg file.
#[derive(Debug)]
pub(crate) struct OggHandler;

/// Nothing can be set.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OggSettings {}

impl Component for OggHandler {
    type Settings = OggSettings;
    const INFO: ComponentInfo = ComponentInfo::byte_stream_handler(
        "container.ogg",
        "Reads Ogg: Vorbis, Opus, FLAC; chained and multiplexed",
    )
    .extensions(&["ogg", "oga", "ogv", "opus", "spx"])
    .mime_types(&["audio/ogg", "video/ogg", "application/ogg", "audio/opus"]);

    fn new(_: Self::Settings) -> Result<Self> {
        Ok(Self)
    }
}

impl ByteStreamHandler for OggHandler {
    fn probe(&self, head: &[u8], hints: &Hints) -> Confidence {
        let hinted = |list: &[&str], hint: &Option<String>| {
            hint.as_deref().is_some_and(|hint| list.contains(&hint))
        };
        if head.starts_with(b"OggS\0") {
            Confidence::Sure
        } else if head.is_empty()
            && (hinted(Self::INFO.extensions, &hints.extension)
                || hinted(Self::INFO.mime_types, &hints.mime_type))
        {
            Confidence::Hint
        } else {
            Confidence::No
        }
    }

    fn open(
        &self,
        input: Box<dyn ByteSource>,
        context: &OpenContext,
    ) -> Result<Box<dyn MediaSource>> {
        let demuxer = Demuxer::open(Reader::new(input), context.limits)?;
        Ok(Box::new(OggSource::new(demuxer)?))
    }
}

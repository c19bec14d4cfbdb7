//! MP4, M4A, MOV: progressive and fragmented files of the ISO base media file format and of QuickTime.
//!
//! Our own demuxer, because the content is not trusted: tables are never bigger in memory than in the file, a fragment is read
//! when its samples are asked for, nothing recurses, and every refusal names its byte.

mod codec;
mod data;
mod edits;
mod esds;
mod fragment;
mod metadata;
mod movie;
mod open;
mod protection;
mod sample_entry;
mod seek;
mod source;
mod stream;
mod tables;
#[cfg(test)]
mod tests;
mod top_level;

use portcullis_engine::component::{Confidence, Hints, OpenContext};
use portcullis_engine::{
    ByteSource, ByteStreamHandler, Component, ComponentInfo, MediaSource, Registry, Result,
};
use serde::{Deserialize, Serialize};

pub(crate) fn register(registry: &mut Registry) {
    registry.byte_stream_handler::<Mp4>();
}

/// Makes sources from MP4 and QuickTime files.
#[derive(Debug)]
pub(crate) struct Mp4;

/// Settings of [`Mp4`]: none.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mp4Settings {}

impl Component for Mp4 {
    type Settings = Mp4Settings;
    const INFO: ComponentInfo = ComponentInfo::byte_stream_handler(
        "container.mp4",
        "Reads MP4, M4A and QuickTime files, progressive and fragmented",
    )
    .extensions(&["mp4", "m4a", "m4v", "m4b", "mov", "qt", "3gp", "3g2"])
    .mime_types(&[
        "video/mp4",
        "audio/mp4",
        "video/quicktime",
        "audio/x-m4a",
        "video/3gpp",
        "audio/3gpp",
    ]);

    fn new(_: Mp4Settings) -> Result<Self> {
        Ok(Self)
    }
}

impl ByteStreamHandler for Mp4 {
    fn probe(&self, head: &[u8], hints: &Hints) -> Confidence {
        let kind = head.get(4..8).unwrap_or_default();
        match kind {
            b"ftyp" | b"moov" | b"styp" => Confidence::Sure,
            b"moof" | b"mdat" | b"free" | b"skip" | b"wide" | b"pnot" | b"sidx" => {
                Confidence::Maybe
            }
            _ => {
                let extension = hints.extension.as_deref().unwrap_or_default();
                let mime_type = hints.mime_type.as_deref().unwrap_or_default();
                if Self::INFO.extensions.contains(&extension)
                    || Self::INFO.mime_types.contains(&mime_type)
                {
                    Confidence::Hint
                } else {
                    Confidence::No
                }
            }
        }
    }

    fn open(
        &self,
        input: Box<dyn ByteSource>,
        context: &OpenContext,
    ) -> Result<Box<dyn MediaSource>> {
        open::open(input, context.limits).map(|source| Box::new(source) as Box<dyn MediaSource>)
    }
}

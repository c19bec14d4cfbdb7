//! Matroska and WebM.
//!
//! The demuxer is the project's own. The crate at hand (`matroska-demuxer`) must seek, fails on encrypted WebM, knows no
//! live files whose segment and clusters do not say their size, and its errors name no byte position; what is left of a
//! demuxer beside those needs is small.
//!
//! Positions come from the index where there is one, and from the heads of the blocks everywhere.

mod block;
mod codec;
mod demuxer;
mod ebml;
mod frame_length;
mod header;
mod ids;
mod queue;
mod recover;
mod source;
mod track;

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
use self::source::MatroskaSource;
use super::reader::Reader;

pub(crate) fn register(registry: &mut Registry) {
    registry.byte_stream_handler::<MatroskaHandler>();
}

/// Makes a source from a Matroska or WebM file.
#[derive(Debug)]
pub(crate) struct MatroskaHandler;

/// Nothing can be set.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MatroskaSettings {}

impl Component for MatroskaHandler {
    type Settings = MatroskaSettings;
    const INFO: ComponentInfo =
        ComponentInfo::byte_stream_handler("container.matroska", "Reads Matroska and WebM")
            .extensions(&["mkv", "webm", "mka", "mks", "mk3d"])
            .mime_types(&[
                "video/webm",
                "audio/webm",
                "video/x-matroska",
                "audio/x-matroska",
                "video/matroska",
                "audio/matroska",
            ]);

    fn new(_: Self::Settings) -> Result<Self> {
        Ok(Self)
    }
}

impl ByteStreamHandler for MatroskaHandler {
    fn probe(&self, head: &[u8], hints: &Hints) -> Confidence {
        let hinted = |list: &[&str], hint: &Option<String>| {
            hint.as_deref().is_some_and(|hint| list.contains(&hint))
        };
        let begin = &head[..head.len().min(64)];
        let names = |kind: &[u8]| begin.windows(kind.len()).any(|bytes| bytes == kind);
        if head.starts_with(&ids::EBML.to_be_bytes()) {
            if names(b"matroska") || names(b"webm") {
                Confidence::Sure
            } else {
                Confidence::Maybe
            }
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
        Ok(Box::new(MatroskaSource::new(demuxer)))
    }
}

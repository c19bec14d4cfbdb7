//! WAV in its RIFF, RF64 and BW64 forms.
//!
//! Works on a forward-only input. A data chunk that claims more than there is, nothing, or an unknown length is read to
//! the input's end.

mod format;
#[cfg(test)]
mod tests;

use portcullis_engine::component::{Confidence, Hints, OpenContext};
use portcullis_engine::presentation::Characteristics;
use portcullis_engine::{
    ByteSource, ByteStreamHandler, Component, ComponentInfo, Error, MediaSource, MediaTime,
    PresentationDescriptor, Registry, Result, Sample, StreamDescriptor, StreamId, TimeBase, Value,
    sample_keys,
};
use serde::{Deserialize, Serialize};

use self::format::Format;
use super::mp3;
use super::reader::Reader;

pub(crate) fn register(registry: &mut Registry) {
    registry.byte_stream_handler::<Wav>();
}

/// The handler for WAV.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wav {}

impl Component for Wav {
    type Settings = Self;
    const INFO: ComponentInfo =
        ComponentInfo::byte_stream_handler("container.wav", "Reads WAV, RF64 and BW64")
            .extensions(&["wav", "wave", "rf64", "bw64"])
            .mime_types(&["audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave"]);
    fn new(settings: Self) -> Result<Self> {
        Ok(settings)
    }
}

impl ByteStreamHandler for Wav {
    fn probe(&self, head: &[u8], hints: &Hints) -> Confidence {
        let known = head
            .first_chunk::<4>()
            .is_some_and(|id| matches!(id, b"RIFF" | b"RF64" | b"BW64"));
        if known && head.get(8..12) == Some(b"WAVE") {
            return Confidence::Sure;
        }
        let named = hints
            .extension
            .as_deref()
            .is_some_and(|e| Self::INFO.extensions.contains(&e))
            || hints
                .mime_type
                .as_deref()
                .is_some_and(|m| Self::INFO.mime_types.contains(&m));
        if named {
            Confidence::Hint
        } else {
            Confidence::No
        }
    }

    fn open(
        &self,
        input: Box<dyn ByteSource>,
        _context: &OpenContext,
    ) -> Result<Box<dyn MediaSource>> {
        let mut reader = Reader::new(input);
        let header = read_header(&mut reader)?;
        if header.format.is_mpeg() {
            return mp3::open_frames(reader, "wav", header.tags);
        }
        Ok(Box::new(WavSource::open(reader, header)?))
    }
}

#[derive(Debug)]
struct WavSource {
    reader: Reader,
    presentation: PresentationDescriptor,
    format: Format,
    base: TimeBase,
    /// Where the data begins, and where it ends if something says so.
    data: u64,
    claimed_end: Option<u64>,
    selected: bool,
    ended: bool,
}

impl WavSource {
    /// The reader stands at the data.
    fn open(mut reader: Reader, header: Header) -> Result<Self> {
        let Header {
            mut format,
            data_len,
            tags,
        } = header;
        format.look_at(reader.peek(LOOK)?);
        let base = TimeBase::per_second(format.rate)
            .ok_or_else(|| Error::malformed(reader.position(), "the sample rate is 0"))?;
        let data = reader.position();
        let claimed_end = data_len.map(|len| data.saturating_add(len));
        let end = match (claimed_end, reader.len()) {
            (Some(claimed), Some(len)) => Some(claimed.min(len)),
            // A length that is only claimed is all there is to go by; the claim of a stream is worth nothing.
            (claimed, len) => len.or(claimed),
        };
        let mut stream = StreamDescriptor::new(StreamId(0), format.media_type(), base);
        stream.duration = end
            .map(|end| format.frames_in(end.saturating_sub(data)))
            .map(|frames| base.to_time(i64::try_from(frames).unwrap_or(i64::MAX)));
        let presentation = PresentationDescriptor {
            format: "wav".into(),
            duration: stream.duration,
            characteristics: Characteristics {
                live: false,
                can_seek: reader.is_seekable(),
                can_pause: true,
            },
            streams: vec![stream],
            attributes: tags,
        };
        Ok(Self {
            reader,
            presentation,
            format,
            base,
            data,
            claimed_end,
            selected: true,
            ended: false,
        })
    }

    fn time_at(&self, byte: u64) -> MediaTime {
        let frames = self.format.frames_in(byte.saturating_sub(self.data));
        self.base.to_time(i64::try_from(frames).unwrap_or(i64::MAX))
    }
}

impl MediaSource for WavSource {
    fn presentation(&self) -> &PresentationDescriptor {
        &self.presentation
    }

    fn start(&mut self, selected: &[StreamId], position: Option<MediaTime>) -> Result<()> {
        self.selected = selected.contains(&StreamId(0));
        let Some(position) = position else {
            return Ok(());
        };
        let mut to = position.max(MediaTime::ZERO);
        if let Some(duration) = self.presentation.duration {
            to = to.min(duration);
        }
        // The frame that sounds at the position: the one that begins at it or before.
        let mut frame = u64::try_from(self.base.to_units(to)).unwrap_or(0);
        if self.base.to_time(i64::try_from(frame).unwrap_or(i64::MAX)) > to {
            frame = frame.saturating_sub(1);
        }
        let byte = self.format.byte_of(frame).saturating_add(self.data);
        self.reader.seek(byte)?;
        self.ended = false;
        Ok(())
    }

    fn read(&mut self) -> Result<Option<(StreamId, Sample)>> {
        if self.ended || !self.selected {
            return Ok(None);
        }
        let at = self.reader.position();
        let left = self
            .claimed_end
            .map_or(u64::MAX, |end| end.saturating_sub(at));
        let want = self.format.packet_bytes().min(left);
        let mut bytes = match self.reader.read_up_to(want) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.ended = true;
                return Err(error);
            }
        };
        let short = (bytes.len() as u64) < want;
        bytes.truncate(bytes.len() - bytes.len() % self.format.block.max(1) as usize);
        if bytes.is_empty() {
            self.ended = true;
            return match self.claimed_end {
                Some(end) if short && self.format.frames_in(end) > self.format.frames_in(at) => {
                    Err(Error::truncated(
                        self.reader.position(),
                        format!("a data chunk that claims to end at byte {end}"),
                    ))
                }
                _ => Ok(None),
            };
        }
        self.format.raise(&mut bytes);
        let time = self.time_at(at);
        let end = self.time_at(at + bytes.len() as u64);
        let mut sample = Sample::new(time, end - time, bytes);
        sample.flags.key = true;
        sample.attributes.set(&sample_keys::BYTE_POSITION, at);
        Ok(Some((StreamId(0), sample)))
    }
}

/// Bytes of data that tell how values lie.
const LOOK: usize = 64 << 10;

/// Lengths from here on are taken for a program's way to say that it does not know.
const PLACEHOLDER: u64 = 0x7fff_f000;

/// More chunks than this before the data are not looked through.
const MAX_CHUNKS: u32 = 1 << 16;

struct Header {
    format: Format,
    data_len: Option<u64>,
    tags: portcullis_engine::Attributes,
}

/// Reads chunks up to the data chunk's first byte.
fn read_header(reader: &mut Reader) -> Result<Header> {
    let id = reader.array::<4>()?;
    let riff_len = u64::from(reader.u32_le()?);
    let wave = reader.array::<4>()?;
    if !matches!(&id, b"RIFF" | b"RF64" | b"BW64") || &wave != b"WAVE" {
        return Err(Error::malformed(0, "this is not a WAV file"));
    }
    let wide = &id != b"RIFF";
    let mut wide_data_len = None;
    let mut format = None;
    let mut tags = portcullis_engine::Attributes::new();
    for _ in 0..MAX_CHUNKS {
        let at = reader.position();
        let chunk = reader.array::<4>()?;
        let len = u64::from(reader.u32_le()?);
        match &chunk {
            b"ds64" if wide => {
                if len < 24 {
                    return Err(Error::malformed(at, "a ds64 chunk of less than 24 bytes"));
                }
                let _riff_len = reader.u64_le()?;
                wide_data_len = Some(reader.u64_le()?);
                let _samples = reader.u64_le()?;
                reader.skip(len - 24 + len % 2)?;
            }
            b"fmt " => {
                if !(14..=1 << 16).contains(&len) {
                    return Err(Error::malformed(at, format!("a fmt chunk of {len} bytes")));
                }
                let bytes = reader.read_vec(len)?;
                format = Some(Format::parse(&bytes, at)?);
                reader.skip(len % 2)?;
            }
            b"data" => {
                let format =
                    format.ok_or_else(|| Error::malformed(at, "no fmt chunk before the data"))?;
                let data = reader.position();
                let data_len = match (len, wide_data_len) {
                    // A ds64 chunk that was not filled in either.
                    (0xffff_ffff, Some(0)) => None,
                    (0xffff_ffff, Some(len)) => Some(len),
                    // Written by programs that could not go back to fill it in.
                    (0 | 0xffff_ffff, _) => None,
                    // Programs that write to a pipe put the largest length that they can, less than that into the RIFF
                    // header too. It is believed where there is so much.
                    (PLACEHOLDER.., _) if riff_len == 0 || riff_len >= PLACEHOLDER => {
                        let there = reader.len().map(|end| end.saturating_sub(data));
                        Some(len).filter(|len| there.is_some_and(|there| *len <= there))
                    }
                    _ => Some(len),
                };
                return Ok(Header {
                    format,
                    data_len,
                    tags,
                });
            }
            b"LIST" if len <= 1 << 20 => {
                let bytes = reader.read_vec(len)?;
                read_info(&bytes, &mut tags);
                reader.skip(len % 2)?;
            }
            _ => reader.skip(len + len % 2)?,
        }
    }
    Err(Error::malformed(
        reader.position(),
        format!("no data in the first {MAX_CHUNKS} chunks"),
    ))
}

/// Tags of a LIST chunk of type INFO.
fn read_info(bytes: &[u8], tags: &mut portcullis_engine::Attributes) {
    let Some(mut rest) = bytes.strip_prefix(b"INFO") else {
        return;
    };
    while let Some((head, tail)) = rest.split_first_chunk::<8>() {
        let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let Some(text) = tail.get(..len) else { return };
        let name = match &head[..4] {
            b"INAM" => "title",
            b"IART" => "artist",
            b"IPRD" => "album",
            b"ICMT" => "comment",
            b"ICRD" => "date",
            b"IGNR" => "genre",
            b"ISFT" => "encoder",
            b"ICOP" => "copyright",
            _ => "",
        };
        let text = String::from_utf8_lossy(text);
        let text = text.trim_end_matches('\0');
        if !name.is_empty() && !text.is_empty() {
            tags.set_named(name, Value::Text(text.to_owned().into()));
        }
        rest = tail.get(len + len % 2..).unwrap_or_default();
    }
}

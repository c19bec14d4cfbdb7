//! Opening and decoding a clip with whatever the registry has for it.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

use portcullis_engine::component::{Confidence, Hints, MemorySource, OpenContext, OutputItem};
use portcullis_engine::{
    ByteSource, Error, ErrorKind, MajorType, MediaSource, MediaTime, MediaType, Output, Registry,
    Result, Role, Sample, SampleFormat, Settings, Transform,
};

/// The test media, where they are there.
pub(crate) fn media() -> Option<PathBuf> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/media"));
    if path.is_dir() {
        return Some(path);
    }
    println!("skipped: no test media at {}", path.display());
    None
}

pub(crate) fn registry() -> Registry {
    let mut registry = Registry::new();
    portcullis_codecs::register(&mut registry);
    registry
}

/// Opens a file's bytes with the handler that is surest of them.
pub(crate) fn open(
    registry: &Registry,
    name: &str,
    bytes: Vec<u8>,
    seekable: bool,
) -> Result<Box<dyn MediaSource>> {
    let context = OpenContext {
        hints: Hints {
            extension: name.rsplit('.').next().map(str::to_lowercase),
            mime_type: None,
        },
        ..OpenContext::default()
    };
    let head = &bytes[..bytes.len().min(4096)];
    let mut best = (Confidence::No, None);
    for entry in registry.candidates(|info| info.role == Role::ByteStreamHandler) {
        let class = entry.info().class;
        let handler = registry.create_byte_stream_handler(class, &Settings::default())?;
        let confidence = handler.probe(head, &context.hints);
        if confidence > best.0 {
            best = (confidence, Some(handler));
        }
    }
    let Some(handler) = best.1 else {
        return Err(ErrorKind::UnsupportedByteStream {
            what: name.to_owned().into(),
        }
        .into());
    };
    // A seek may read anew what was read before; nothing needs the whole input many times.
    let budget = (1 << 20) + 64 * bytes.len();
    let input = if seekable {
        MemorySource::new(bytes)
    } else {
        MemorySource::forward_only(bytes)
    };
    handler.open(Box::new(Watched { input, budget }), &context)
}

/// An input that can only be read so much.
struct Watched {
    input: MemorySource,
    budget: usize,
}

impl Read for Watched {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let got = self.input.read(into)?;
        // Also a read that gets nothing costs something, so that reading at the end for ever is noticed.
        self.budget = self
            .budget
            .checked_sub(got.max(16))
            .expect("reads without end");
        Ok(got)
    }
}

impl Seek for Watched {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.input.seek(to)
    }
}

impl ByteSource for Watched {
    fn byte_len(&self) -> Option<u64> {
        self.input.byte_len()
    }
    fn is_seekable(&self) -> bool {
        self.input.is_seekable()
    }
}

/// What became of one stream.
#[derive(Default)]
pub(crate) struct Decoded {
    pub(crate) media_type: Option<MediaType>,
    pub(crate) bytes: Vec<u8>,
    pub(crate) first: Option<MediaTime>,
    pub(crate) errors: Vec<Error>,
}

/// The clips of a list with one of these extensions: name and row.
pub(crate) fn rows(list: &str, extensions: &[&str]) -> Vec<(String, serde_json::Value)> {
    let Some(media) = media() else {
        return Vec::new();
    };
    let text = std::fs::read_to_string(media.join(list)).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let rows = json.get("files").unwrap_or(&json).as_array().unwrap();
    rows.iter()
        .map(|row| (row["file"].as_str().unwrap().to_owned(), row.clone()))
        .filter(|(file, _)| extensions.contains(&file.rsplit('.').next().unwrap()))
        .collect()
}

impl Decoded {
    pub(crate) fn frames(&self) -> u64 {
        let Some(media_type) = &self.media_type else {
            return 0;
        };
        let Some(format) = media_type.sample_format() else {
            return 0;
        };
        self.bytes.len() as u64
            / (format.bytes() as u64 * u64::from(media_type.channels().unwrap_or(1)))
    }

    pub(crate) fn floats(&self) -> Vec<f32> {
        match self.media_type.as_ref().and_then(MediaType::sample_format) {
            Some(SampleFormat::F32) => self
                .bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b))
                .collect(),
            Some(SampleFormat::S16) => self
                .bytes
                .as_chunks::<2>()
                .0
                .iter()
                .map(|b| f32::from(i16::from_le_bytes(*b)) / 32768.0)
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    /// The bytes in the oracle's format.
    pub(crate) fn as_format(&self, format: &str) -> Vec<u8> {
        let ours = self.media_type.as_ref().and_then(MediaType::sample_format);
        match (ours, format) {
            (Some(SampleFormat::S24), "s32le") => self
                .bytes
                .as_chunks::<3>()
                .0
                .iter()
                .flat_map(|[a, b, c]| [0, *a, *b, *c])
                .collect(),
            _ => self.bytes.clone(),
        }
    }
}

pub(crate) struct Decoder {
    transform: Option<Box<dyn Transform>>,
    output: Output,
}

impl Decoder {
    pub(crate) fn new(registry: &Registry, input: &MediaType) -> Result<(Self, MediaType)> {
        let found = registry.candidates(|info| {
            info.role == Role::Decoder && !info.accepts.is_empty() && info.takes(input.subtype)
        });
        let Some(entry) = found.first() else {
            if input.sample_format().is_some() {
                let raw = Self {
                    transform: None,
                    output: Output::default(),
                };
                return Ok((raw, input.clone()));
            }
            return Err(ErrorKind::NoComponent(input.clone()).into());
        };
        let mut transform = registry.create_transform(entry.info().class, &Settings::default())?;
        let types = transform.set_input(input)?;
        transform.set_output(&types[0])?;
        Ok((
            Self {
                transform: Some(transform),
                output: Output::default(),
            },
            types[0].clone(),
        ))
    }

    pub(crate) fn feed(&mut self, sample: Sample, into: &mut Decoded) {
        match &mut self.transform {
            None => self.output.push(sample),
            Some(transform) => {
                if let Err(error) = transform.process(sample, &mut self.output) {
                    into.errors.push(error);
                }
            }
        }
        let mut made = 0;
        while let Some(item) = self.output.take() {
            made += 1;
            assert!(made < 1000, "one packet made a thousand samples");
            match item {
                OutputItem::Sample(sample) => {
                    into.first.get_or_insert(sample.time);
                    into.bytes.extend_from_slice(&sample.payload.to_bytes());
                }
                OutputItem::Format(media_type) => {
                    into.media_type = Some(media_type);
                }
                _ => {}
            }
        }
    }
}

/// Decodes the `nth` stream of sound.
pub(crate) fn decode(
    registry: &Registry,
    source: &mut dyn MediaSource,
    nth: usize,
) -> Result<Decoded> {
    let stream = source
        .presentation()
        .nth_of(MajorType::Audio, nth)
        .ok_or_else(|| Error::invalid_argument("no such stream"))?
        .clone();
    if stream.media_type.is_protected() {
        return Err(ErrorKind::Protected { scheme: "?".into() }.into());
    }
    let (mut decoder, media_type) = Decoder::new(registry, &stream.media_type)?;
    let mut decoded = Decoded {
        media_type: Some(media_type),
        ..Decoded::default()
    };
    source.start(&[stream.id], Some(MediaTime::ZERO))?;
    // No source returns errors for ever.
    let mut budget = 1000;
    loop {
        match source.read() {
            Ok(Some((id, sample))) => {
                assert_eq!(id, stream.id);
                decoder.feed(sample, &mut decoded);
            }
            Ok(None) => return Ok(decoded),
            Err(error) => {
                decoded.errors.push(error);
                budget -= 1;
                assert!(budget > 0, "errors without end");
            }
        }
    }
}

//! The whole way from a file: container and decoder together, for every row of the list of test media.

use std::fs;
use std::path::Path;

use portcullis_engine::component::{Confidence, Hints, MemorySource, OpenContext, OutputItem};
use portcullis_engine::{
    ComponentInfo, ErrorKind, MajorType, MediaSource, Output, Registry, Role, Settings, StreamId,
    Subtype,
};
use serde_json::Value;

use super::{Decoded, check_all, compare, expected, md5, media};

/// Opens a file with the handler that is surest of it.
pub(in crate::video) fn open(
    registry: &Registry,
    path: &Path,
) -> Result<Box<dyn MediaSource>, String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let head = bytes[..bytes.len().min(4096)].to_vec();
    let hints = Hints {
        extension: path
            .extension()
            .map(|extension| extension.to_string_lossy().into_owned()),
        mime_type: None,
    };
    let (_, handler) = registry
        .candidates(|info| info.role == Role::ByteStreamHandler)
        .into_iter()
        .filter_map(|entry| {
            let handler = registry
                .create_byte_stream_handler(entry.info().class, &Settings::default())
                .ok()?;
            Some((handler.probe(&head, &hints), handler))
        })
        .max_by_key(|(confidence, _)| *confidence)
        .filter(|(confidence, _)| *confidence > Confidence::No)
        .ok_or("no handler")?;
    let context = OpenContext {
        hints,
        ..OpenContext::default()
    };
    handler
        .open(Box::new(MemorySource::new(bytes)), &context)
        .map_err(|error| error.to_string())
}

/// Decodes one stream of a source; what is preroll is left out, as a renderer does.
pub(in crate::video) fn decode_stream(
    registry: &Registry,
    source: &mut dyn MediaSource,
    stream: StreamId,
) -> Decoded {
    let mut decoded = Decoded::default();
    let media_type = source
        .presentation()
        .stream(stream)
        .expect("the stream")
        .media_type
        .clone();
    let candidates = registry.candidates(|info| {
        info.role == Role::Decoder && info.accepts.contains(&media_type.subtype)
    });
    let class = candidates.first().expect("a decoder").info().class;
    let mut decoder = registry
        .create_transform(class, &Settings::default())
        .expect("created");
    match decoder.set_input(&media_type) {
        Ok(types) => decoder.set_output(&types[0]).expect("its own type"),
        Err(error) => {
            decoded.errors.push(error);
            return decoded;
        }
    }
    source.start(&[stream], None).expect("starts");
    let mut output = Output::default();
    loop {
        let result = match source.read() {
            Ok(Some((_, sample))) => decoder.process(sample, &mut output),
            Ok(None) => decoder.drain(&mut output).map(|()| decoded.ended = true),
            Err(error) => Err(error),
        };
        decoded.errors.extend(result.err());
        while let Some(item) = output.take() {
            match item {
                OutputItem::Format(media_type) => decoded.formats.push(media_type),
                OutputItem::Sample(sample) if !sample.flags.preroll => decoded
                    .samples
                    .push((sample.time, md5(&sample.payload.to_bytes()))),
                _ => {}
            }
        }
        if decoded.ended {
            return decoded;
        }
    }
}

pub(in crate::video) fn registry() -> Registry {
    let mut registry = Registry::new();
    crate::register(&mut registry);
    registry
}

#[test]
fn every_listed_file_decodes_to_the_same_pictures() {
    let Some(media) = media() else { return };
    let registry = registry();
    let list: Value =
        serde_json::from_slice(&fs::read(media.join("MANIFEST.json")).expect("the list"))
            .expect("JSON");
    let mut failures = Vec::new();
    let mut decoded_files = 0;
    for row in list["files"].as_array().expect("files") {
        let name = row["file"].as_str().expect("a name");
        let codecs: Vec<_> = row["streams"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|stream| stream["codec_name"].as_str())
            .collect();
        let wanted = [Subtype::H264, Subtype::VP9, Subtype::AV1];
        let clear = row["keys"]
            .as_object()
            .is_none_or(serde_json::Map::is_empty)
            && row["scheme"].as_str().is_none();
        let known = ["mp4", "mkv", "webm"].iter().any(|extension| {
            let handled = |info: &ComponentInfo| info.extensions.contains(extension);
            name.ends_with(extension) && !registry.candidates(handled).is_empty()
        });
        let exact = row["video"]
            .as_array()
            .is_some_and(|video| !video.is_empty() && video.iter().all(|v| v["rc"] == 0));
        if !known
            || !clear
            || !exact
            || !codecs.iter().any(|c| wanted.iter().any(|w| w.name() == *c))
        {
            continue;
        }
        let mut source = match open(&registry, &media.join(name)) {
            Ok(source) => source,
            Err(error) => {
                failures.push(format!("{name}: {error}"));
                continue;
            }
        };
        let presentation = source.presentation().clone();
        let Some(stream) = presentation.nth_of(MajorType::Video, 0) else {
            failures.push(format!("{name}: no video"));
            continue;
        };
        if stream.media_type.is_protected() || !wanted.contains(&stream.media_type.subtype) {
            continue;
        }
        let optional = row["tags"]
            .as_array()
            .is_some_and(|tags| tags.iter().any(|tag| tag == "optional_support"));
        let decoded = decode_stream(&registry, &mut *source, stream.id);
        if optional {
            let refused = matches!(
                decoded.errors.first().map(|error| error.kind()),
                Some(ErrorKind::UnsupportedCodec { .. })
            );
            if !refused || !decoded.samples.is_empty() {
                failures.push(format!("{name}: is not refused by name"));
            }
            continue;
        }
        decoded_files += 1;
        let expected = expected(&media, name);
        failures.extend(compare(name, &decoded, &expected, true).err());
    }
    eprintln!("{decoded_files} files compared");
    check_all(failures);
}

//! The MP4 reader: any bytes give samples within the input, then errors that end, forward only and with positions.

use portcullis_engine::component::{MemorySource, OpenContext};
use portcullis_engine::{MediaSource, MediaTime, Registry, Settings, StreamId};

/// The first byte says whether the input can seek.
pub(crate) fn run(data: &[u8]) {
    let Some((how, input)) = data.split_first() else {
        return;
    };
    let source = match how % 2 {
        0 => MemorySource::new(input.to_vec()),
        _ => MemorySource::forward_only(input.to_vec()),
    };
    let mut registry = Registry::new();
    portcullis_codecs::register(&mut registry);
    let handler = registry
        .create_byte_stream_handler("container.mp4", &Settings::default())
        .expect("the class is registered");
    let Ok(mut source) = handler.open(Box::new(source), &OpenContext::default()) else {
        return;
    };
    read(&mut *source, None, input.len());
    if how % 2 == 0 {
        read(&mut *source, Some(MediaTime::from_millis(500)), input.len());
    }
}

fn read(source: &mut dyn MediaSource, position: Option<MediaTime>, len: usize) {
    let streams = source.presentation().streams.iter();
    let streams: Vec<StreamId> = streams.map(|stream| stream.id).collect();
    if source.start(&streams, position).is_err() {
        return;
    }
    let mut errors = 0;
    loop {
        match source.read() {
            Ok(Some((id, sample))) => {
                assert!(streams.contains(&id), "a stream that is not there");
                assert!(sample.len() <= len, "a sample larger than its input");
            }
            Ok(None) => return,
            Err(_) => errors += 1,
        }
        assert!(errors < 10, "errors for ever");
    }
}

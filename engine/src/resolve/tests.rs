//! Which handler gets which input, and what is said when none does.

use std::io::{Seek, SeekFrom};

use super::*;
use crate::component::{Component, ComponentInfo, Hints, MemorySource};
use crate::media::{MediaTime, Sample};
use crate::presentation::{PresentationDescriptor, StreamId};

#[derive(serde::Serialize, serde::Deserialize)]
struct NoSettings {}

#[derive(Debug)]
struct Opened(PresentationDescriptor);

impl MediaSource for Opened {
    fn presentation(&self) -> &PresentationDescriptor {
        &self.0
    }
    fn start(&mut self, _: &[StreamId], _: Option<MediaTime>) -> Result<()> {
        Ok(())
    }
    fn read(&mut self) -> Result<Option<(StreamId, Sample)>> {
        Ok(None)
    }
}

fn opened(format: &str) -> Result<Box<dyn MediaSource>> {
    Ok(Box::new(Opened(PresentationDescriptor {
        format: format.to_owned(),
        ..PresentationDescriptor::default()
    })))
}

fn whole(mut input: Box<dyn ByteSource>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input
        .read_to_end(&mut bytes)
        .map_err(|error| Error::io("reading", &error))?;
    Ok(bytes)
}

macro_rules! handler {
    ($name:ident, $class:literal, $probe:expr, $open:expr) => {
        struct $name;
        impl Component for $name {
            type Settings = NoSettings;
            const INFO: ComponentInfo = ComponentInfo::byte_stream_handler($class, "For tests");
            fn new(_: NoSettings) -> Result<Self> {
                Ok(Self)
            }
        }
        impl ByteStreamHandler for $name {
            fn probe(&self, head: &[u8], hints: &Hints) -> Confidence {
                let probe: fn(&[u8], &Hints) -> Confidence = $probe;
                probe(head, hints)
            }
            fn open(
                &self,
                input: Box<dyn ByteSource>,
                _: &OpenContext,
            ) -> Result<Box<dyn MediaSource>> {
                let open: fn(Box<dyn ByteSource>) -> Result<Box<dyn MediaSource>> = $open;
                open(input)
            }
        }
    };
}

handler!(
    Signed,
    "test.signed",
    |head, _| if head.starts_with(b"SIGN") {
        Confidence::Sure
    } else {
        Confidence::No
    },
    |input| match whole(input)?.get(4..6) {
        Some(b"ok") => opened("signed"),
        Some(b"io") => Err(Error::cancelled()),
        _ => Err(Error::malformed(4, "no ok")),
    }
);
handler!(
    Named,
    "test.named",
    |_, hints| if hints.extension.as_deref() == Some("nam") {
        Confidence::Hint
    } else {
        Confidence::No
    },
    |input| {
        let bytes = whole(input)?;
        assert_eq!(bytes.len(), 10_000);
        opened("named")
    }
);
handler!(
    Greedy,
    "test.greedy",
    |head, _| if head.starts_with(b"GR") {
        Confidence::Maybe
    } else {
        Confidence::No
    },
    |input| {
        whole(input)?;
        Err(Error::malformed(2, "not greedy's"))
    }
);
handler!(
    Polite,
    "test.polite",
    |head, _| if head.starts_with(b"PO") {
        Confidence::Maybe
    } else {
        Confidence::No
    },
    |mut input| {
        let mut two = [0; 2];
        input
            .read_exact(&mut two)
            .map_err(|error| Error::io("reading", &error))?;
        Err(Error::malformed(2, "not polite's"))
    }
);

fn registry() -> Registry {
    let mut registry = Registry::new();
    registry
        .byte_stream_handler::<Signed>()
        .byte_stream_handler::<Named>()
        .byte_stream_handler::<Greedy>()
        .byte_stream_handler::<Polite>();
    registry
}

fn named(extension: &str) -> OpenContext {
    OpenContext {
        hints: Hints {
            extension: Some(extension.to_owned()),
            mime_type: None,
        },
        ..OpenContext::default()
    }
}

fn long(start: &[u8]) -> Vec<u8> {
    let mut bytes = start.to_vec();
    bytes.resize(10_000, 7);
    bytes
}

fn open(bytes: Vec<u8>, seekable: bool, context: &OpenContext) -> Result<String> {
    let input = if seekable {
        MemorySource::new(bytes)
    } else {
        MemorySource::forward_only(bytes)
    };
    open_source(&registry(), Box::new(input), context)
        .map(|source| source.presentation().format.clone())
}

#[test]
fn content_wins_over_the_name() {
    for seekable in [true, false] {
        assert_eq!(
            open(b"SIGNok".to_vec(), seekable, &named("nam")).expect("opens"),
            "signed"
        );
    }
}

#[test]
fn a_seekable_input_is_rewound_between_tries_and_before_the_first() {
    let mut input = MemorySource::new(long(b"GR"));
    input.seek(SeekFrom::Start(5000)).expect("is seekable");
    let source = open_source(&registry(), Box::new(input), &named("nam")).expect("opens");
    assert_eq!(source.presentation().format, "named");
}

#[test]
fn a_forward_only_input_is_given_again_until_it_was_read_past_the_head() {
    assert_eq!(
        open(long(b"PO"), false, &named("nam")).expect("opens"),
        "named"
    );
    let error = open(long(b"GR"), false, &named("nam")).expect_err("read by the greedy one");
    assert!(
        matches!(error.kind(), ErrorKind::UnsupportedByteStream { .. }),
        "{error}"
    );
    assert_eq!(
        error.causes(),
        [
            "test.greedy: malformed input at byte 2: not greedy's",
            "test.named: not tried, the input cannot be read again",
            "test.polite: not its format",
            "test.signed: not its format",
        ]
    );
}

#[test]
fn the_one_that_was_sure_says_why_and_nobody_guesses_after_it() {
    let error = open(b"SIGNno".to_vec(), true, &named("nam")).expect_err("damaged");
    assert_eq!(error.kind(), Error::malformed(4, "no ok").kind());
}

#[test]
fn an_error_of_reading_ends_the_search() {
    let error = open(b"SIGNio".to_vec(), true, &named("nam")).expect_err("cancelled");
    assert!(error.is_cancelled());
}

#[test]
fn d34_unknown_and_empty_inputs_are_named() {
    let error = open(b"garbage\xff".to_vec(), true, &named("xyz")).expect_err("unknown");
    assert!(
        error
            .to_string()
            .contains("it starts with \"garbage\\xff\", extension xyz"),
        "{error}"
    );
    assert_eq!(error.causes().len(), 4);
    for seekable in [true, false] {
        let error = open(Vec::new(), seekable, &named("wav")).expect_err("empty");
        assert!(error.to_string().contains("it has no bytes"), "{error}");
    }
}

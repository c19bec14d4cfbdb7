//! Headers that other programs write and that say less, or other things, than the format has it.
#![allow(clippy::unwrap_used, reason = "tests")]

use portcullis_engine::component::{MemorySource, OpenContext};
use portcullis_engine::{ByteStreamHandler, Error, MediaSource, Subtype, keys};

use super::Wav;

const RATE: u32 = 48_000;
const GUID: [u8; 14] = [0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71];
const B_FORMAT: [u8; 14] = [
    0, 0, 0x21, 7, 0xd3, 0x11, 0x86, 0x44, 0xc8, 0xc1, 0xca, 0, 0, 0,
];

fn fmt(tag: u16, channels: u16, align: u16, bits: u16) -> Vec<u8> {
    let mut bytes = [tag.to_le_bytes(), channels.to_le_bytes()].concat();
    bytes.extend(RATE.to_le_bytes());
    bytes.extend((RATE * u32::from(align)).to_le_bytes());
    bytes.extend([align.to_le_bytes(), bits.to_le_bytes()].concat());
    bytes
}

fn extensible(channels: u16, align: u16, bits: u16, valid: u16, tag: u8, guid: &[u8]) -> Vec<u8> {
    let mut bytes = fmt(0xfffe, channels, align, bits);
    bytes.extend([22, 0, valid as u8, 0, 3, 0, 0, 0, tag, 0]);
    bytes.extend(guid);
    bytes
}

fn file(id: &[u8; 4], riff: u32, ds64: Option<u64>, fmt: &[u8], len: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = id.to_vec();
    bytes.extend(riff.to_le_bytes());
    bytes.extend(b"WAVE");
    if let Some(len) = ds64 {
        bytes.extend(b"ds64\x1c\0\0\0");
        bytes.extend([[0; 8], len.to_le_bytes(), [0; 8]].concat());
        bytes.extend([0; 4]);
    }
    bytes.extend(b"fmt ");
    bytes.extend((fmt.len() as u32).to_le_bytes());
    bytes.extend(fmt);
    bytes.extend(b"data");
    bytes.extend(len.to_le_bytes());
    bytes.extend(data);
    bytes
}

fn read(bytes: Vec<u8>, seekable: bool) -> (Box<dyn MediaSource>, Vec<u8>, Option<Error>) {
    let input = if seekable {
        MemorySource::new(bytes)
    } else {
        MemorySource::forward_only(bytes)
    };
    let context = OpenContext::default();
    let mut source = Wav {}.open(Box::new(input), &context).unwrap();
    let mut data = Vec::new();
    loop {
        match source.read() {
            Ok(Some((_, sample))) => data.extend_from_slice(&sample.payload.to_bytes()),
            Ok(None) => return (source, data, None),
            Err(error) => return (source, data, Some(error)),
        }
    }
}

#[test]
fn lengths_that_were_never_filled_in_are_read_to_the_end() {
    let data: Vec<u8> = (0..40_000).map(|n| (n % 251) as u8).collect();
    let pcm = fmt(1, 2, 4, 16);
    for (name, bytes) in [
        (
            "ds64 of zeros",
            file(b"RF64", u32::MAX, Some(0), &pcm, u32::MAX, &data),
        ),
        (
            "ds64",
            file(b"RF64", u32::MAX, Some(40_000), &pcm, u32::MAX, &data),
        ),
        ("zeros", file(b"RIFF", 0, None, &pcm, 0, &data)),
        (
            "all ones",
            file(b"RIFF", u32::MAX, None, &pcm, u32::MAX, &data),
        ),
        (
            "sox",
            file(b"RIFF", 0x7fff_f024, None, &pcm, 0x7fff_f000, &data),
        ),
        (
            "with the header",
            file(b"RIFF", u32::MAX, None, &pcm, u32::MAX - 36, &data),
        ),
        (
            "signed",
            file(b"RIFF", 0x7fff_ffff, None, &pcm, 0x7fff_ffdb, &data),
        ),
    ] {
        for seekable in [true, false] {
            let (source, read, error) = read(bytes.clone(), seekable);
            assert_eq!((read == data, error), (true, None), "{name}");
            let duration = source.presentation().duration;
            let expected = data.len() as i64 / 4 * 10_000_000 / i64::from(RATE);
            if seekable {
                assert_eq!(duration.unwrap().ticks(), expected, "{name}");
            }
        }
    }
    // A length that is only wrong is told of.
    let lie = file(b"RIFF", 50_036, None, &pcm, 50_000, &data);
    assert!(read(lie, true).2.is_some());
    let lie = file(b"RIFF", 40_036, None, &pcm, 0x7fff_f000, &data);
    assert!(read(lie, true).2.is_some());
}

#[test]
fn values_may_lie_in_wider_containers() {
    let values: Vec<i32> = (0..2000)
        .map(|n| (n * 7919) % (1 << 22) - (1 << 21))
        .collect();
    let low: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let high: Vec<u8> = values.iter().flat_map(|v| (v << 8).to_le_bytes()).collect();
    for (name, fmt, data) in [
        ("on top", fmt(1, 2, 8, 24), &high),
        ("at the bottom", fmt(1, 2, 8, 24), &low),
        ("extensible", extensible(2, 8, 32, 24, 1, &GUID), &high),
        (
            "extensible by align",
            extensible(2, 8, 24, 24, 1, &GUID),
            &high,
        ),
    ] {
        let (source, read, error) = read(file(b"RIFF", 0, None, &fmt, 0, data), true);
        assert_eq!((read == high, error), (true, None), "{name}");
        let media_type = &source.presentation().streams[0].media_type;
        assert_eq!(media_type.subtype, Subtype::PCM_S32, "{name}");
        assert_eq!(media_type.attributes.get(&keys::BITS), Some(24), "{name}");
    }
}

#[test]
fn ambisonic_channels_are_plain_ones() {
    for (tag, bits, subtype) in [(1, 16, Subtype::PCM_S16), (3, 32, Subtype::PCM_F32)] {
        let align = 4 * bits / 8;
        let fmt = extensible(4, align, bits, bits, tag, &B_FORMAT);
        let (source, data, error) = read(file(b"RIFF", 0, None, &fmt, 0, &[1; 3200]), true);
        assert_eq!((data.len(), error), (3200, None));
        let media_type = &source.presentation().streams[0].media_type;
        assert_eq!(
            (media_type.subtype, media_type.channels()),
            (subtype, Some(4))
        );
    }
}

#[test]
fn mp3_in_wav_is_mp3() {
    let mut frame = vec![0xff, 0xfb, 0x54, 0x00];
    frame.resize(192, 0);
    let data = frame.repeat(30);
    let mut fmt = fmt(0x55, 2, 1, 0);
    fmt.extend([12, 0, 1, 0, 2, 0, 0, 0, 192, 0, 1, 0, 0, 0]);
    let mut bytes = file(b"RIFF", 0, None, &fmt, data.len() as u32, &data);
    bytes.extend(b"LIST\x04\0\0\0INFO");
    let (source, read, error) = read(bytes, true);
    assert_eq!((read == data, error), (true, None));
    let presentation = source.presentation();
    assert_eq!(presentation.format, "wav");
    assert_eq!(presentation.duration.unwrap().ticks(), 30 * 240_000);
    assert_eq!(presentation.streams[0].media_type.subtype, Subtype::MP3);
}

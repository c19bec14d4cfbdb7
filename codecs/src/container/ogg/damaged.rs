//! Damage inside of a stream: what is intact behind it comes too, at its time, and the first fault is told at the end.
#![allow(clippy::unwrap_used, reason = "tests")]

use portcullis_engine::{Error, ErrorKind, Sample};

use super::oracle::{self, drain, open};
use super::tests::repair;
use super::written::{ENDS, PACKET, opus_headers, page};
use super::*;

fn read(bytes: Vec<u8>) -> (Vec<Sample>, Option<Error>) {
    let mut both = [true, false].map(|seekable| {
        let (samples, error) = drain(&mut *open(&OggHandler, bytes.clone(), seekable).unwrap());
        (samples.into_iter().map(|(_, s)| s).collect(), error)
    });
    assert_eq!(both[0], both[1]);
    std::mem::take(&mut both[0])
}

fn starts(samples: &[Sample]) -> Vec<i64> {
    let start = |s: &Sample| (s.time.ticks() * 48 + 5_000).div_euclid(10_000);
    samples.iter().map(start).collect()
}

/// Where the pages of a file begin.
fn pages(bytes: &[u8]) -> Vec<usize> {
    let all = bytes.windows(5).enumerate();
    let mut found: Vec<_> = all
        .filter_map(|(at, five)| (five == b"OggS\0").then_some(at))
        .collect();
    found.push(bytes.len());
    found
}

/// Pages of one packet each.
fn stream(count: u32) -> Vec<Vec<u8>> {
    let [head, tags] = opus_headers(1, 0);
    let mut pages = vec![head, tags];
    for number in 0..count {
        let flags = if number + 1 == count { ENDS } else { 0 };
        let granule = i64::from(number + 1) * 960;
        pages.push(page(1, number + 2, flags, granule, &[PACKET]));
    }
    pages
}

#[test]
fn one_bad_page_costs_its_own_sound_only() {
    let mut pages = stream(6);
    let at: usize = pages[..4].iter().map(Vec::len).sum();
    *pages[4].last_mut().unwrap() ^= 1;
    let (samples, error) = read(pages.concat());
    assert_eq!(starts(&samples), [0, 960, 2880, 3840, 4800]);
    assert!(samples[2].flags.discontinuity);
    let error = error.unwrap();
    assert!(
        matches!(error.kind(), ErrorKind::Malformed { at: place, .. } if *place == at as u64),
        "{error}"
    );
}

#[test]
fn a_clip_without_one_of_its_pages_is_told_of_and_played() {
    if oracle::media().is_none() {
        return;
    }
    for file in ["audio/vorbis.ogg", "audio/opus.opus"] {
        let bytes = oracle::read(file);
        let (all, _) = read(bytes.clone());
        let places = pages(&bytes);
        // From the first page of sound to the last but one: that the last is missing cannot be seen.
        for lost in 2..places.len() - 2 {
            let rest = [&bytes[..places[lost]], &bytes[places[lost + 1]..]].concat();
            let (samples, error) = read(rest);
            let error = error.unwrap();
            assert!(
                matches!(error.kind(), ErrorKind::Malformed { at, .. } if *at == places[lost] as u64),
                "{file} {error}"
            );
            assert!(error.to_string().contains("missing"), "{error}");
            // What is behind stands where it stood.
            let last = samples.last().unwrap();
            assert_eq!(last.end_time(), all.last().unwrap().end_time(), "{file}");
            assert!(
                samples.len() * 2 > all.len() / 2,
                "{file} {}",
                samples.len()
            );
            let mut flipped = bytes.clone();
            flipped[places[lost] + 100] ^= 4;
            let (other, error) = read(flipped);
            assert_eq!(other.len(), samples.len(), "{file}");
            assert!(error.unwrap().to_string().contains("checksum"), "{file}");
        }
        // Without the last page there is nothing wrong but the time.
        let cut = bytes[..places[places.len() - 2]].to_vec();
        assert!(read(cut).1.is_none());
    }
}

#[test]
fn junk_and_pages_of_strangers_are_passed_over() {
    let pages = stream(4);
    let stranger = page(9, 3, 0, 960, &[PACKET]);
    let twice = page(1, 6, 0, 4800, &[PACKET]);
    for (place, junk, expected) in [
        (4, vec![7; 9000], "no Ogg page"),
        (4, b"OggS and so on".repeat(9), "Ogg page"),
        (4, stranger, "never began"),
        (6, twice, "after its last"),
    ] {
        let bytes = [pages[..place].concat(), junk, pages[place..].concat()].concat();
        let (samples, error) = read(bytes);
        assert_eq!(starts(&samples), [0, 960, 1920, 2880], "{expected}");
        assert!(samples.iter().all(|sample| !sample.flags.discontinuity));
        let text = error.unwrap().to_string();
        assert!(text.contains(expected), "{text}");
    }
    // Behind the end a tag of another format is no fault, but the rest of a page is.
    let tag = [b"TAG".as_slice(), &[0; 125]].concat();
    assert!(read([pages.concat(), tag].concat()).1.is_none());
    assert!(
        read([pages.concat(), pages[0][..20].to_vec()].concat())
            .1
            .is_some()
    );
}

#[test]
fn a_packet_that_is_none_does_not_end_the_stream() {
    let long = [&[0xff, 63][..], &[0; 20]].concat();
    let mut pages = stream(4);
    pages[3] = page(1, 3, 0, 1920, &[&long]);
    let (samples, error) = read(pages.concat());
    assert_eq!(samples.len(), 3);
    assert!(error.unwrap().to_string().contains("no opus packet"));
}

#[test]
fn lost_comments_do_not_matter() {
    let mut pages = stream(3);
    *pages[1].last_mut().unwrap() ^= 1;
    let (samples, error) = read(pages.concat());
    assert_eq!(starts(&samples), [0, 960, 1920]);
    assert!(error.is_some());
    // A header that a decoder needs does.
    let mut pages = stream(3);
    *pages[0].last_mut().unwrap() ^= 1;
    let error = open(&OggHandler, pages.concat(), true).err().unwrap();
    assert!(error.to_string().contains("checksum"), "{error}");
}

#[test]
fn the_record_of_a_live_stream_is_whole() {
    let [head, tags] = opus_headers(1, 0);
    let sound: Vec<u8> = (0..3)
        .flat_map(|n| page(1, 5000 + n, 0, 4_800_000 + i64::from(n) * 960, &[PACKET]))
        .collect();
    let (samples, error) = read([head, tags, sound].concat());
    assert_eq!((samples.len(), error), (3, None));
}

#[test]
fn a_link_that_was_cut_is_followed_by_the_next() {
    let first = stream(3);
    let [head, tags] = opus_headers(2, 0);
    let second = [head, tags, page(2, 2, ENDS, 960, &[PACKET])].concat();
    let mut open_packet = page(1, 4, 0, -1, &[PACKET]);
    // One lacing value of 255 and nothing that ends it.
    open_packet.truncate(26);
    open_packet.extend([1, 255]);
    open_packet.extend([0; 255]);
    repair(&mut open_packet);
    let bytes = [first[..4].concat(), open_packet, second].concat();
    let (samples, error) = read(bytes);
    assert_eq!(starts(&samples), [0, 960, 1920]);
    assert!(error.unwrap().to_string().contains("inside of a packet"));
}

//! Random damage to small clips of each container.
//!
//! `PORTCULLIS_MUTANTS=100000 cargo test --test suite mutants -- --nocapture` tries that many of each container; without it
//! 1,000 are tried. They go through container and decoder in this process without a session, which is what makes so many
//! possible; one in fifty goes the whole way through an isolated host too. A failure names container and number:
//! `PORTCULLIS_MUTANT=mp4:1234` tries that one alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use portcullis::engine::component::{Hints, MemorySource, OpenContext};
use portcullis::engine::resolve::open_source;
use portcullis::engine::{MediaSource, Output};
use portcullis::{ContentLimits, Error, ErrorKind, MediaTime, Role, Settings, StreamId, Transform};

use crate::support::{Place, host, media, process, run_for};

/// The clips: container and file, whole or its beginning.
const CLIPS: [(&str, &str); 9] = [
    ("mp4", "mp4/tiny_prog.mp4"),
    ("fragmented-mp4", "mp4/tiny_frag.mp4"),
    ("matroska", "mkv/tiny.mkv"),
    ("wav", "audio/wav_s16.wav"),
    ("flac", "audio/flac16.flac"),
    ("mp3", "audio/mp3_cbr_id3.mp3"),
    ("ogg-vorbis", "audio/vorbis.ogg"),
    ("ogg-opus", "audio/opus.opus"),
    ("adts", "audio/aac.adts"),
];
/// Bytes of a clip that are used.
const LENGTH: usize = 9000;
/// Mutants of each container without `PORTCULLIS_MUTANTS`.
const MUTANTS: u64 = 1000;
/// Of these, how many also go through a host.
const ONE_IN: u64 = 50;
/// One mutant.
const DEADLINE: Duration = Duration::from_secs(30);
/// Errors that one mutant may give.
const MOST_ERRORS: usize = 20_000;
/// What a host may need, in bytes.
const MEMORY: u64 = 256 << 20;

fn count() -> u64 {
    std::env::var("PORTCULLIS_MUTANTS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(MUTANTS)
}

/// A sequence of numbers that a seed determines (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// The clip, damaged as the number says.
fn mutant(clip: &[u8], number: u64) -> Vec<u8> {
    let mut numbers = Numbers(number);
    let mut bytes = clip.to_vec();
    for _ in 0..=numbers.below(4) {
        // Headers lie in front, where damage is worth more.
        let reach = if numbers.below(2) == 0 {
            bytes.len().min(1200)
        } else {
            bytes.len()
        };
        let at = numbers.below(reach);
        let rest = bytes.len() - at;
        match numbers.below(7) {
            0 => {
                for _ in 0..=numbers.below(16) {
                    let at = numbers.below(reach);
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << numbers.below(8);
                    }
                }
            }
            1 => bytes[at..]
                .iter_mut()
                .take(1)
                .for_each(|byte| *byte = numbers.next() as u8),
            2 => {
                let extremes: [u32; 8] = [
                    0,
                    1,
                    7,
                    0x7fff_ffff,
                    0x8000_0000,
                    0xffff_ffff,
                    0xffff_fff0,
                    0x0100_0000,
                ];
                let value = extremes[numbers.below(8)];
                let value = if numbers.below(2) == 0 {
                    value.to_be_bytes()
                } else {
                    value.to_le_bytes()
                };
                bytes[at..]
                    .iter_mut()
                    .zip(value)
                    .for_each(|(byte, value)| *byte = value);
            }
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..at + numbers.below(rest.min(64)))),
            5 => {
                let from = numbers.below(bytes.len());
                let piece: Vec<u8> = bytes[from..]
                    .iter()
                    .copied()
                    .take(1 + numbers.below(200))
                    .collect();
                bytes.splice(at..at, piece);
            }
            _ => bytes[at..]
                .iter_mut()
                .take(1 + numbers.below(64))
                .for_each(|byte| *byte = numbers.next() as u8),
        }
        if bytes.is_empty() {
            break;
        }
    }
    bytes
}

/// Limits under which nobody has to wait long for what a mutant claims.
fn limits() -> ContentLimits {
    ContentLimits {
        max_pixels: 1920 * 1088,
        max_samples: 20_000,
        max_output_bytes: 256 << 20,
        ..ContentLimits::default()
    }
}

/// Whether an error may come of content.
fn is_of_content(error: &Error) -> bool {
    error.is_content()
        || matches!(
            error.kind(),
            ErrorKind::NotSeekable { .. } | ErrorKind::InvalidMediaType { .. }
        )
}

/// Decodes everything without a session; answers how many samples and errors there were.
fn drive(bytes: Vec<u8>, extension: &str) -> Result<(usize, usize), Error> {
    let registry = portcullis::builtin();
    let context = OpenContext {
        limits: limits(),
        hints: Hints {
            extension: Some(extension.to_owned()),
            mime_type: None,
        },
    };
    let mut source: Box<dyn MediaSource> = open_source(
        registry.components(),
        Box::new(MemorySource::new(bytes)),
        &context,
    )?;
    let streams = source.presentation().streams.clone();
    let mut decoders: Vec<(StreamId, Box<dyn Transform>)> = Vec::new();
    for stream in streams
        .iter()
        .filter(|stream| !stream.media_type.is_protected())
    {
        let takes = |info: &portcullis::ComponentInfo| {
            info.role == Role::Decoder && info.accepts.contains(&stream.media_type.subtype)
        };
        let Some(entry) = registry.components().candidates(takes).into_iter().next() else {
            continue;
        };
        let mut decoder = registry
            .components()
            .create_transform(entry.info().class, &Settings::default())?;
        let chosen = decoder
            .set_input(&stream.media_type)
            .and_then(|types| match types.first() {
                Some(first) => decoder.set_output(first),
                None => Err(Error::invalid_type(
                    &stream.media_type,
                    "nothing comes of it",
                )),
            });
        match chosen {
            Ok(()) => decoders.push((stream.id, decoder)),
            Err(error) if is_of_content(&error) => {}
            Err(error) => return Err(error),
        }
    }
    let selected: Vec<_> = streams.iter().map(|stream| stream.id).collect();
    source.start(&selected, Some(MediaTime::ZERO))?;
    let mut output = Output::new(
        std::sync::Arc::new(portcullis::engine::media::HeapAllocator),
        limits(),
    );
    let (mut samples, mut errors) = (0, 0);
    loop {
        let (last, outcome) = match source.read() {
            Ok(Some((id, sample))) => match decoders.iter_mut().find(|(stream, _)| *stream == id) {
                Some((_, decoder)) => (false, decoder.process(sample, &mut output)),
                None => (false, Ok(())),
            },
            Ok(None) => (
                true,
                decoders
                    .iter_mut()
                    .try_for_each(|(_, decoder)| decoder.drain(&mut output)),
            ),
            Err(error) => (false, Err(error)),
        };
        if let Err(error) = outcome {
            assert!(is_of_content(&error), "not an error of content: {error:?}");
            errors += 1;
            assert!(errors <= MOST_ERRORS, "errors without end: {error:?}");
        }
        while output.take().is_some() {
            samples += 1;
        }
        if last || samples > 20_000 {
            return Ok((samples, errors));
        }
    }
}

/// What is wrong with how a mutant ends in this process.
fn fault_of(bytes: Vec<u8>, extension: &str) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(|| drive(bytes, extension))) {
        Ok(Ok(_)) => None,
        Ok(Err(error)) if is_of_content(&error) => None,
        Ok(Err(error)) => Some(format!("{error:?}")),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            Some(
                text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                    .unwrap_or_else(|| "a panic".into()),
            )
        }
    }
}

fn clip(file: &str) -> Vec<u8> {
    let mut bytes = std::fs::read(media::small().join(file)).unwrap();
    bytes.truncate(LENGTH);
    bytes
}

fn extension(file: &str) -> &str {
    file.rsplit('.').next().unwrap_or_default()
}

/// Tries the mutants of one clip on a thread of its own, so that one that never ends is noticed.
fn try_all(container: &'static str, file: &'static str) -> Vec<String> {
    let (said, heard) = mpsc::channel();
    let only = std::env::var("PORTCULLIS_MUTANT").ok();
    let only: Option<u64> = only.as_deref().and_then(|text| {
        text.strip_prefix(container)?
            .strip_prefix(':')?
            .parse()
            .ok()
    });
    let numbers = only.map_or(0..count(), |number| number..number + 1);
    let last = numbers.end;
    std::thread::spawn(move || {
        let whole = clip(file);
        for number in numbers {
            let fault = fault_of(mutant(&whole, number), extension(file));
            if said.send((number, fault)).is_err() {
                return;
            }
        }
    });
    let mut faults = Vec::new();
    let mut next = only.unwrap_or(0);
    while next < last {
        match heard.recv_timeout(DEADLINE) {
            Ok((number, fault)) => {
                next = number + 1;
                faults.extend(fault.map(|text| format!("{container}:{number} {text}")));
            }
            Err(_) => {
                faults.push(format!(
                    "{container}:{next} does not end within {DEADLINE:?}"
                ));
                break;
            }
        }
    }
    faults
}

#[test]
fn mutants_end_in_samples_or_errors() {
    let faults: Vec<String> = std::thread::scope(|scope| {
        let halves: Vec<_> = CLIPS
            .chunks(CLIPS.len().div_ceil(2))
            .map(|half| {
                scope.spawn(|| {
                    half.iter()
                        .flat_map(|(container, file)| try_all(container, file))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        halves
            .into_iter()
            .flat_map(|half| half.join().unwrap())
            .collect()
    });
    println!("{} mutants of each of {} containers", count(), CLIPS.len());
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

/// Reads the first stream of a mutant in a host; answers what is wrong.
async fn fault_in_host(
    place: Place,
    host: &portcullis::host::HostConnection,
    bytes: Vec<u8>,
) -> Option<String> {
    let reading = async {
        let reader = place
            .open(Bytes::from(bytes))
            .limits(limits())
            .host(host.clone())
            .open()
            .await?;
        for stream in &reader.presentation().streams {
            let mut samples = match reader
                .samples(portcullis::StreamSelector::Id(stream.id))
                .await
            {
                Ok(samples) => samples,
                Err(error) if is_of_content(&error) => continue,
                Err(error) => return Err(error),
            };
            while let Some(sample) = samples.next().await {
                match sample {
                    Err(error) if !is_of_content(&error) => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    };
    match tokio::time::timeout(DEADLINE, reading).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) if is_of_content(&error) => None,
        Ok(Err(error)) => Some(format!("{error:?}")),
        Err(_) => Some(format!("not within {DEADLINE:?}")),
    }
}

#[test]
fn mutants_end_in_a_host_too_and_leave_it_alive_and_small() {
    run_for(
        Duration::from_secs(600) + DEADLINE * u32::try_from(count() / 1000).unwrap(),
        async {
            let host = host().start().await.unwrap();
            let mut faults = Vec::new();
            for (container, file) in CLIPS {
                let whole = clip(file);
                for number in (0..count()).step_by(ONE_IN as usize) {
                    let place = if number % (2 * ONE_IN) == 0 {
                        Place::IsolatedSourceInHost
                    } else {
                        Place::IsolatedSourceInApp
                    };
                    let fault = fault_in_host(place, &host, mutant(&whole, number)).await;
                    faults.extend(
                        fault.map(|text| format!("{container}:{number} in {place:?}: {text}")),
                    );
                }
            }
            assert!(
                faults.is_empty(),
                "{} faults:\n{}",
                faults.len(),
                faults.join("\n")
            );
            assert_eq!(host.lost().unwrap().now(), None);
            let memory = process::peak_memory(host.pid()).unwrap();
            assert!(memory <= MEMORY, "the host has had {} MiB", memory >> 20);
        },
    );
}

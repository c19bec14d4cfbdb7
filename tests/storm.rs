//! Many hosts that end in every way, and what is left of them: nothing. A program of its own, so that its descriptors,
//! threads and memory are its own; its tests run one after another.
//!
//! `PORTCULLIS_KILLS` and `PORTCULLIS_UPLOADS` make longer runs.
// What is outside of a `#[test]` function here is a test's part too.
#![allow(clippy::unwrap_used)]

#[path = "suite/support/held.rs"]
mod held;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use portcullis::host::{AwaitHostUnlocked, Host, LockHost};
use portcullis::{ErrorKind, Input, Placement, StreamSelector};

use held::{Chance, DEADLINE, Held, resident};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn times(variable: &str, usual: u32) -> u32 {
    std::env::var(variable).map_or(usual, |text| text.parse().unwrap())
}

/// Whether somebody has asked for the long run.
fn is_long(variable: &str) -> bool {
    std::env::var(variable).is_ok()
}

fn host() -> Host {
    Host::program(env!("CARGO_BIN_EXE_portcullis-host"))
}

fn media(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/media")
        .join(name)
}

fn run(test: impl Future<Output = ()>) {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test);
}

/// Gives a start up while it is under way, wherever it is then.
async fn given_up(after: Duration) {
    if let Ok(started) = tokio::time::timeout(after, host().start()).await {
        drop(started.unwrap());
    }
}

/// Starts a host, uses it, and kills it `after` its start. Whatever was pending has to end.
async fn killed(after: Duration) {
    let started = host().start().await.unwrap();
    let pmp = started.pmp_host().clone();
    let used = started.clone();
    let reading = tokio::spawn(async move {
        let reader = portcullis::open(media("clip.mp4"))
            .host(used)
            .open()
            .await?;
        let mut pictures = reader.samples(StreamSelector::FIRST_VIDEO).await?;
        while pictures.try_next().await?.is_some() {}
        Ok::<_, portcullis::Error>(())
    });
    let waiting = tokio::spawn(async move {
        pmp.send(LockHost).await?;
        pmp.send(AwaitHostUnlocked).await
    });
    // The one random moment is what this is about.
    tokio::time::sleep(after).await;
    started.kill();
    let ended = async { (reading.await.unwrap(), waiting.await.unwrap()) };
    let (read, waited) = tokio::time::timeout(DEADLINE, ended)
        .await
        .expect("every pending call ends");
    let error = waited.expect_err("nobody unlocks the host");
    let exit = error.host_exit().unwrap_or_else(|| panic!("{error}"));
    assert_eq!(exit.signal, Some(9), "{error}");
    if let Err(error) = read {
        assert!(matches!(error.kind(), ErrorKind::HostLost(_)), "{error}");
    }
}

#[test]
fn hosts_killed_and_given_up_at_random_moments_fail_every_call_and_leave_nothing() {
    run(async {
        let mut chance = Chance(1);
        // What stays is started first: the launcher, the runtime, the watchers.
        for _ in 0..3 {
            killed(Duration::ZERO).await;
        }
        let before = Held::with_hosts(0).await;
        let memory = resident();
        let count = times("PORTCULLIS_KILLS", 500);
        for _ in 0..count {
            killed(Duration::from_micros(chance.below(15_000))).await;
            given_up(Duration::from_micros(chance.below(5_000))).await;
        }
        Held::is_back(&before).await;
        let grown = resident().saturating_sub(memory);
        println!(
            "{count} hosts killed, as many starts given up; {before:?}; memory grew by {grown} KiB"
        );
        // What an allocator keeps; 10,000 hosts may not take more than 500.
        assert!(
            !is_long("PORTCULLIS_KILLS") || grown < 24 << 10,
            "memory grew by {grown} KiB"
        );
    });
}

/// The body of an upload in pieces of seven bytes.
fn body(bytes: Bytes) -> Input {
    let pieces = (0..bytes.len()).step_by(7).map(move |at| {
        let end = bytes.len().min(at + 7);
        Ok::<_, std::io::Error>(bytes.slice(at..end))
    });
    Input::stream(futures::stream::iter(pieces))
}

/// Reads an upload in a fresh host; a content error is an answer too.
async fn upload(bytes: Bytes) -> Result<usize, portcullis::Error> {
    let reader = portcullis::open(body(bytes))
        .placement(Placement::Isolated(host()))
        .open()
        .await?;
    let mut samples = reader.samples(StreamSelector::FIRST_AUDIO).await?;
    let mut count = 0;
    while let Some(sample) = samples.try_next().await? {
        count += sample.len();
    }
    Ok(count)
}

#[test]
fn uploads_side_by_side_end_typed_and_leave_nothing() {
    run(async {
        let clips: Vec<Bytes> = UPLOADED
            .iter()
            .map(|name| Bytes::from(fs::read(media(name)).unwrap()))
            .collect();
        let mut expected = Vec::new();
        for clip in &clips {
            expected.push(upload(clip.clone()).await.unwrap());
        }
        let before = Held::with_hosts(0).await;
        let memory = resident();
        let count = times("PORTCULLIS_UPLOADS", 500);
        let mut chance = Chance(2);
        let uploads: Vec<_> = (0..count as usize)
            .map(|number| {
                let which = number % clips.len();
                if number % 2 == 0 {
                    return (clips[which].clone(), Some(expected[which]));
                }
                let mut damaged = clips[which].to_vec();
                for _ in 0..=chance.below(8) {
                    let at = chance.below(damaged.len() as u64) as usize;
                    damaged[at] ^= 1 << chance.below(8);
                }
                damaged.truncate(chance.below(damaged.len() as u64) as usize + 1);
                (Bytes::from(damaged), None)
            })
            .collect();
        let mut ended = futures::stream::iter(uploads)
            .map(|(bytes, expected)| async move {
                let outcome = tokio::time::timeout(DEADLINE, upload(bytes)).await;
                (outcome.expect("every upload ends"), expected)
            })
            .buffer_unordered(16);
        let (mut whole, mut refused) = (0, 0);
        while let Some((outcome, expected)) = ended.next().await {
            match (outcome, expected) {
                (Ok(bytes), Some(expected)) => {
                    assert_eq!(bytes, expected);
                    whole += 1;
                }
                (Ok(_), None) => whole += 1,
                (Err(error), None) => {
                    assert!(
                        error.is_content()
                            || matches!(error.kind(), ErrorKind::InvalidArgument { .. }),
                        "{error:?}"
                    );
                    refused += 1;
                }
                (Err(error), Some(_)) => panic!("{error}"),
            }
        }
        drop(ended);
        Held::is_back(&before).await;
        let grown = resident().saturating_sub(memory);
        println!("{whole} uploads whole, {refused} refused; memory grew by {grown} KiB");
        assert!(refused > 0);
        assert!(
            !is_long("PORTCULLIS_UPLOADS") || grown < 48 << 10,
            "memory grew by {grown} KiB"
        );
    });
}

/// Formats that need no seeking.
const UPLOADED: [&str; 6] = [
    "audio/aac.adts",
    "audio/mp3_cbr_id3.mp3",
    "audio/vorbis.ogg",
    "audio/opus.opus",
    "audio/flac16.flac",
    "mkv/vp9_opus.webm",
];

//! Hosts that an attacker has, one attack after another (`examples/hostile_host` has the list): the application says by name
//! what each did wrong, within the deadline, holds nothing of it afterwards, and goes on with another host. A program of its
//! own, so that its descriptors, threads and memory are its own; its tests run one after another.
//!
//! `PORTCULLIS_HOSTILE` is how many hosts do an attack by chance; `PORTCULLIS_ATTACK` names the only attacks to be made.
// What is outside of a `#[test]` function here is a test's part too.
#![allow(clippy::unwrap_used)]

#[path = "../examples/hostile_host/attacks.rs"]
mod attacks;
#[path = "suite/support/held.rs"]
mod held;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix::{Actor, Handler};
use attacks::{ATTACKS, Attack, Ends};
use futures::StreamExt;
use held::{Chance, Held, resident};
use portcullis::bridge::{Context, FileDescriptor, ReplyFuture};
use portcullis::engine::credit::Credit;
use portcullis::host::{
    CreateObject, CreatedObject, DescribeHost, Host, HostConnection, HostFacts, LinkLimits,
};
use portcullis::pipeline::byte_stream::OpenedStream;
use portcullis::pipeline::opener::{CreateUrl, OpenUrl, Opener};
use portcullis::pipeline::port::{Epoch, Pull, Pulled};
use portcullis::{ContentLimits, Error, ErrorKind, Handle, Result, Settings};

/// Hosts that attack at a time: no more than a small machine starts within the time that a start has.
const SIDE_BY_SIDE: usize = 4;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// An attack that only time ends is noticed by then, on a busy machine too.
const NOTICED: Duration = Duration::from_secs(40);

/// An opener of which the host may ask anything; it opens nothing.
struct Closed;

impl Actor for Closed {
    type Context = Context<Self>;
}

impl Handler<OpenUrl> for Closed {
    type Result = ReplyFuture<OpenedStream>;

    fn handle(&mut self, _: OpenUrl, _: &mut Self::Context) -> Self::Result {
        ReplyFuture::new(std::future::pending())
    }
}

impl Handler<CreateUrl> for Closed {
    type Result = ReplyFuture<FileDescriptor>;

    fn handle(&mut self, _: CreateUrl, _: &mut Self::Context) -> Self::Result {
        ReplyFuture::new(std::future::pending())
    }
}

/// A hostile host's program under the names of its attacks.
struct Programs(tempfile::TempDir);

impl Programs {
    fn new() -> Self {
        // Told without a socket: an old program would make attacks that nobody has listed.
        let told = Command::new(program()).output().unwrap().stdout;
        assert_eq!(
            String::from_utf8_lossy(&told).trim(),
            format!("{:016x}", attacks::version()),
            "{} is not of these sources: run `cargo build --example hostile_host` first",
            program().display()
        );
        let folder = tempfile::tempdir().unwrap();
        for attack in ATTACKS {
            std::os::unix::fs::symlink(program(), folder.path().join(attack.name)).unwrap();
        }
        Self(folder)
    }

    fn host(&self, attack: &Attack) -> Host {
        Host::program(self.0.path().join(attack.name))
    }
}

/// The example's program, which `cargo test` has built; `cargo test --test hostile` does not.
fn program() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests
        .ancestors()
        .nth(2)
        .unwrap()
        .join("examples/hostile_host");
    assert!(
        program.is_file(),
        "{} is not built: run `cargo build --example hostile_host` first",
        program.display()
    );
    program
}

async fn honest_host() -> HostConnection {
    let host = Host::program(env!("CARGO_BIN_EXE_portcullis-host"));
    host.start().await.unwrap()
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

/// What came of everything that was asked of a host.
#[derive(Default)]
struct Told {
    /// Why it could not be started.
    start: Option<Error>,
    /// What each request was answered with.
    errors: Vec<Error>,
    /// What ended the link.
    end: Option<Error>,
}

/// Uses a host as an application does, until it is of no use any more or has nothing more to do.
async fn used(host: Host, attack: &Attack) -> Told {
    let mut told = Told::default();
    let connection = match host.start().await {
        Ok(connection) => connection,
        Err(error) => {
            told.start = Some(error);
            return told;
        }
    };
    let opener = portcullis::runtime::run(|| async { Ok(Handle::<Opener>::start(Closed)) });
    let opener = opener.await.unwrap();
    let mut created = Vec::new();
    // More than the host may export, to one that answers so many.
    let most = match attack.name {
        "exports-ten-thousand" => 10_000,
        _ => 1,
    };
    for _ in 0..most {
        match create(&connection, &opener).await {
            Ok(object) => created.push(object),
            Err(error) => {
                told.errors.push(error);
                break;
            }
        }
    }
    // What it gives is held until the end.
    let mut pulled = None;
    if let Some(CreatedObject::Source(source)) = created.first() {
        let watch = source.control.watch();
        match pull(source).await {
            Ok(samples) => pulled = Some(samples),
            Err(error) => told.errors.push(error),
        }
        if attack.name.starts_with("death-of-the-living") {
            // It says itself that it is dead.
            assert_eq!(watch.await.kind(), &ErrorKind::ActorStopped);
        }
    }
    let lost = connection.lost().unwrap();
    if attack.ends == Ends::Harmless {
        // It still answers.
        told.errors.extend(described(&connection).await.err());
        told.end = lost.now();
    } else {
        told.end = Some(lost.wait().await);
    }
    drop((pulled, created));
    told
}

async fn create(connection: &HostConnection, opener: &Handle<Opener>) -> Result<CreatedObject> {
    let create = CreateObject {
        class: "hostile".into(),
        settings: Settings::default(),
        opener: Some(opener.clone()),
        limits: ContentLimits::default(),
    };
    connection.pmp_host().send(create).await
}

async fn pull(source: &portcullis::pipeline::source::SourceObject) -> Result<Pulled> {
    let credit = Credit {
        max_samples: 1,
        max_bytes: 1 << 20,
        epoch: Epoch::default(),
    };
    source.port.send(Pull { output: 0, credit }).await
}

async fn described(connection: &HostConnection) -> Result<HostFacts> {
    connection.pmp_host().send(DescribeHost).await
}

/// Makes an attack and looks whether it ends as it should.
async fn make(programs: &Programs, attack: &Attack) {
    let name = attack.name;
    let told = tokio::time::timeout(NOTICED, used(programs.host(attack), attack)).await;
    let told = told.unwrap_or_else(|_| panic!("{name}: nothing is told within {NOTICED:?}"));
    let Told { start, errors, end } = told;
    match attack.ends {
        Ends::Refused(says) => {
            let error = start.unwrap_or_else(|| panic!("{name}: the host starts"));
            assert!(error.to_string().contains(says), "{name}: {error}");
        }
        Ends::Broken(says) | Ends::BrokenIdle(says) => {
            let end = end.unwrap_or_else(|| panic!("{name}: {start:?}, {errors:?}"));
            assert!(
                matches!(end.kind(), ErrorKind::Protocol(_)),
                "{name}: {end}"
            );
            assert!(end.to_string().contains(says), "{name}: {end}");
            // What was pending has ended with the same error, and something was unless the attack says otherwise.
            let is_idle = matches!(attack.ends, Ends::BrokenIdle(_));
            assert_eq!(errors.is_empty(), is_idle, "{name}: {errors:?}");
            assert!(
                errors.iter().all(|error| says_the_same(error, &end)),
                "{name}: {errors:?}"
            );
        }
        Ends::Lost(says) => {
            let end = end.unwrap_or_else(|| panic!("{name}: {start:?}, {errors:?}"));
            let exit = end.host_exit().unwrap_or_else(|| panic!("{name}: {end}"));
            let words = exit.last_words.join("; ");
            assert!(words.contains(says), "{name}: {end}");
            assert_eq!(errors, [end], "{name}");
        }
        Ends::Harmless => {
            assert_eq!((start, end), (None, None), "{name}");
            let honest = |error: &Error| error.to_string().contains("an honest answer");
            assert!(
                !errors.is_empty() && errors.iter().all(honest),
                "{name}: {errors:?}"
            );
        }
    }
}

/// A reply that cannot be read fails its call with what ends the link; the place is put on by whoever tells.
fn says_the_same(error: &Error, end: &Error) -> bool {
    let (error, end) = (error.kind().to_string(), end.kind().to_string());
    let what = error.strip_prefix("protocol error: ").unwrap_or(&error);
    end.contains(what)
}

/// Whether only time ends it.
fn is_slow(attack: &Attack) -> bool {
    matches!(attack.ends, Ends::Lost(_))
}

fn chosen() -> impl Iterator<Item = &'static Attack> {
    let only = std::env::var("PORTCULLIS_ATTACK").unwrap_or_default();
    ATTACKS
        .iter()
        .filter(move |attack| attack.name.contains(&only))
}

#[test]
fn each_attack_is_told_by_name_and_leaves_nothing_and_another_host_goes_on() {
    run(async {
        let programs = Programs::new();
        let honest = honest_host().await;
        // What stays is started first: the launcher, the runtime, the watchers.
        make(&programs, &ATTACKS[0]).await;
        let before = Held::with_hosts(1).await;
        let mut times = Vec::new();
        for attack in chosen().filter(|attack| !is_slow(attack)) {
            let began = Instant::now();
            make(&programs, attack).await;
            times.push((began.elapsed(), attack.name));
            Held::is_back(&before).await;
            described(&honest).await.unwrap();
        }
        // Side by side: each lasts for as many seconds as a host may be silent.
        let slow = chosen().filter(|attack| is_slow(attack));
        let slow = futures::stream::iter(slow).map(|attack| make(&programs, attack));
        slow.buffer_unordered(SIDE_BY_SIDE).collect::<()>().await;
        Held::is_back(&before).await;
        described(&honest).await.unwrap();
        times.sort();
        println!("the longest: {:?}", &times[times.len().saturating_sub(5)..]);
    });
}

#[test]
fn what_bounds_a_link_is_the_applications_to_say() {
    run(async {
        let programs = Programs::new();
        let exports = ATTACKS
            .iter()
            .find(|attack| attack.name.starts_with("exports"));
        let exports = exports.unwrap();
        let few = LinkLimits {
            max_objects: 10,
            ..LinkLimits::default()
        };
        let host = programs.host(exports).link_limits(few);
        let told = used(host, exports).await;
        let end = told.end.unwrap().to_string();
        assert!(end.contains("more imported objects than agreed"), "{end}");

        // Larger ones too: an honest host takes what its application says.
        let asks = async |limits: LinkLimits| {
            let host = Host::program(env!("CARGO_BIN_EXE_portcullis-host")).link_limits(limits);
            let host = host.start().await.unwrap();
            let create = CreateObject {
                class: "none such ".repeat(2 << 20),
                settings: Settings::default(),
                opener: None,
                limits: ContentLimits::default(),
            };
            host.pmp_host().send(create).await.unwrap_err()
        };
        let error = asks(LinkLimits::default()).await;
        assert!(error.to_string().contains("bytes of a request"), "{error}");
        let error = asks(LinkLimits::MOST).await;
        assert!(
            matches!(error.kind(), ErrorKind::ClassNotInHost { .. }),
            "{}",
            error.kind()
        );
    });
}

#[test]
fn hosts_that_attack_by_chance_side_by_side_leave_nothing() {
    run(async {
        let programs = Programs::new();
        let honest = honest_host().await;
        let asked = std::env::var("PORTCULLIS_HOSTILE").ok();
        let count = asked
            .as_ref()
            .map_or(100, |text| text.parse::<usize>().unwrap());
        let attacks: Vec<_> = chosen().collect();
        let mut chance = Chance(3);
        let mut by_chance = |count| -> Vec<&Attack> {
            let any =
                std::iter::repeat_with(|| attacks[chance.below(attacks.len() as u64) as usize]);
            any.take(count).collect()
        };
        let side_by_side = async |attacks: Vec<&Attack>| {
            let mut ended = futures::stream::iter(attacks)
                .map(|attack| make(&programs, attack))
                .buffer_unordered(SIDE_BY_SIDE);
            while ended.next().await.is_some() {
                described(&honest).await.unwrap();
            }
        };
        // One after the other, what stays is started: everything after it is held against this.
        make(&programs, &ATTACKS[0]).await;
        let before = Held::with_hosts(1).await;
        // What an allocator keeps is there after the largest side by side, and after some by chance.
        let largest = ["reply-error-of-megabytes", "exports-ten-thousand"];
        let large = |attack: &&Attack| largest.contains(&attack.name);
        for attack in ATTACKS.iter().filter(large) {
            side_by_side(vec![attack; SIDE_BY_SIDE]).await;
        }
        // Some are enough where memory is not looked at; it has its height after a hundred.
        side_by_side(by_chance(if asked.is_some() { 150 } else { 30 })).await;
        Held::is_back(&before).await;
        let memory = resident();
        side_by_side(by_chance(count)).await;
        Held::is_back(&before).await;
        let grown = resident().saturating_sub(memory);
        println!(
            "{count} hostile hosts, {SIDE_BY_SIDE} at a time; {before:?}; memory {memory} KiB grew by {grown} KiB"
        );
        assert!(
            asked.is_none() || grown < 24 << 10,
            "memory grew by {grown} KiB"
        );
    });
}

#[test]
fn the_list_names_each_attack_once() {
    let mut names: Vec<_> = ATTACKS.iter().map(|attack| attack.name).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(
        names
            .iter()
            .all(|name| Path::new(name).components().count() == 1)
    );
}

//! What the children of these tests do.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use portcullis_transport::host;
use portcullis_transport::{Endpoint, Hello, Isolation, Layer, Pool, PoolLimits};

use super::{be_unprivileged_application, run};

/// What a child of a test does.
pub(crate) fn play(role: &str) -> i32 {
    if role == "somebody" {
        return be_unprivileged_application();
    }
    if role == "late" {
        std::thread::spawn(hang);
    }
    let endpoint = match host::endpoint() {
        Ok(endpoint) => endpoint.expect("started as a host"),
        Err(error) => {
            eprintln!("{error}");
            return 70;
        }
    };
    if role == "echo" {
        run(echo(endpoint.socket));
        return 0;
    }
    let _thread = std::thread::Builder::new()
        .name("worker".into())
        .spawn(hang)
        .unwrap();
    let isolation = host::serve().unwrap();
    match role {
        "report" | "late" => report(endpoint.socket, &isolation),
        "ordinary" => ordinary(),
        "socket" => drop(UnixStream::pair().and_then(|_| {
            // Of a Unix pair nothing is reachable; an internet socket is what is refused.
            std::net::UdpSocket::bind("127.0.0.1:0")
        })),
        "exec" => {
            let error = Command::new("/bin/true").exec();
            eprintln!("{error}");
        }
        "abort" => std::process::abort(),
        "overflow" => drop(overflow(std::hint::black_box(1))),
        "panic" => panic!("on purpose"),
        "spin" => loop {
            std::hint::spin_loop();
        },
        "hoard" => {
            let mut hoard: Vec<Vec<u8>> = Vec::new();
            loop {
                hoard.push(vec![1; 1 << 20]);
            }
        }
        "hang" => hang(),
        other => panic!("no role {other}"),
    }
    0
}

fn hang() {
    loop {
        std::thread::park();
    }
}

#[allow(unconditional_recursion)]
fn overflow(depth: u64) -> u64 {
    let space = std::hint::black_box([depth; 1024]);
    overflow(depth + 1) + space[usize::try_from(depth % 1024).unwrap()]
}

fn report(socket: OwnedFd, isolation: &Isolation) {
    let mut socket = UnixStream::from(socket);
    let mut text = format!("{isolation}\n{}\n", host::pid());
    for report in &isolation.layers {
        text += &format!("{}: {:?}\n", report.layer, report.state);
    }
    text += ".\n";
    socket.write_all(text.as_bytes()).unwrap();
    // Until the application goes.
    let _ = socket.read(&mut [0]);
}

fn ordinary() {
    let refused = std::fs::read("/etc/passwd").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    assert!(std::fs::metadata("/").is_err());
    assert!(std::env::current_dir().is_err());
    assert!(std::thread::available_parallelism().is_ok());
    let _ = std::backtrace::Backtrace::force_capture().to_string();
    let threads: Vec<_> = (0..4)
        .map(|number| {
            std::thread::Builder::new()
                .name(format!("t{number}"))
                .spawn(move || {
                    std::thread::sleep(Duration::from_millis(1));
                    vec![number; 1 << 20].len()
                })
                .unwrap()
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), 1 << 20);
    }
    assert!(std::panic::catch_unwind(|| panic!("a component's")).is_err());
    let pool = Pool::new(PoolLimits::default());
    let slot = pool.allocate(1 << 20).unwrap();
    assert!(slot.len() >= 1 << 20);
    assert_eq!(std::collections::HashSet::from([1, 2]).len(), 2);
}

async fn echo(socket: OwnedFd) {
    let isolation = host::serve().unwrap();
    assert!(isolation.has(Layer::ServingFilter));
    let mut link = Endpoint::unix(socket)
        .connect(Hello::default())
        .await
        .unwrap();
    tokio::task::spawn_local(link.writer);
    let mut frames = Vec::new();
    while link.receiver.receive(&mut frames).await.is_ok() {
        for frame in frames.drain(..) {
            link.sender
                .push(
                    frame.header,
                    &[&frame.body],
                    frame
                        .descriptors
                        .into_iter()
                        .map(|descriptor| descriptor.into_owned())
                        .collect(),
                )
                .unwrap();
        }
    }
}

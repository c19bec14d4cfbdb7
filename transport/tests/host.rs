//! What is promised of host processes, shown with real ones: this program starts itself in the role that a variable names.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use portcullis_transport::host::{
    self, ExitCause, HostCommand, HostExit, HostProcess, HostProgram,
};
use portcullis_transport::{Endpoint, FrameHeader, Hello, TransportError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

const ROLE: &str = "PORTCULLIS_TEST_ROLE";
const DEADLINE: Duration = Duration::from_secs(20);

fn main() {
    if let Ok(role) = std::env::var(ROLE) {
        std::process::exit(play(&role));
    }
    let filter = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let tests: &[(&str, fn())] = &[
        ("a_host_answers_over_its_link", a_host_answers_over_its_link),
        (
            "a_killed_host_is_reported_with_its_signal",
            a_killed_host_is_reported_with_its_signal,
        ),
        (
            "an_exit_code_and_last_words_are_reported",
            an_exit_code_and_last_words_are_reported,
        ),
        ("a_chatty_host_never_blocks", a_chatty_host_never_blocks),
        (
            "a_host_inherits_nothing_but_its_link",
            a_host_inherits_nothing_but_its_link,
        ),
        (
            "a_host_sees_only_the_named_environment",
            a_host_sees_only_the_named_environment,
        ),
        (
            "a_dropped_host_is_killed_and_reaped",
            a_dropped_host_is_killed_and_reaped,
        ),
        (
            "a_host_that_nobody_waits_for_leaves_no_zombie",
            a_host_that_nobody_waits_for_leaves_no_zombie,
        ),
        (
            "fifty_hosts_leak_no_descriptor",
            fifty_hosts_leak_no_descriptor,
        ),
        (
            "a_dropped_spawn_leaves_no_process",
            a_dropped_spawn_leaves_no_process,
        ),
        (
            "a_host_outlives_the_thread_that_asked_for_it",
            a_host_outlives_the_thread_that_asked_for_it,
        ),
        (
            "a_host_dies_with_its_application",
            a_host_dies_with_its_application,
        ),
        ("a_missing_program_is_named", a_missing_program_is_named),
        (
            "a_program_that_is_no_host_cannot_start_hosts",
            a_program_that_is_no_host_cannot_start_hosts,
        ),
        (
            "an_ordinary_process_has_no_endpoint",
            an_ordinary_process_has_no_endpoint,
        ),
    ];
    let mut count = 0;
    for (name, test) in tests {
        if filter
            .as_ref()
            .is_none_or(|filter| name.contains(filter.as_str()))
        {
            test();
            println!("test {name} ... ok");
            count += 1;
        }
    }
    println!("{count} passed");
}

/// What a child of a test does.
fn play(role: &str) -> i32 {
    if role == "no host" {
        // Forgets to take its endpoint, as an application without `host::init` would.
        return match run(spawn("hang")) {
            Err(TransportError::Spawn { text, .. }) if text.contains("host::init") => 0,
            other => panic!("unexpected {other:?}"),
        };
    }
    if role == "application" {
        let (process, _socket) = run(spawn("hang")).unwrap();
        println!("{}", process.pid());
        return hang();
    }
    let socket = host::endpoint().unwrap().expect("started as a host").socket;
    assert!(
        std::env::var_os(host::SOCKET_VARIABLE).is_none(),
        "removed from the environment"
    );
    assert!(host::endpoint().unwrap().is_none(), "taken once");
    match role {
        "echo" => run(echo(socket)),
        "hang" => return hang(),
        "words" => {
            println!("on standard output");
            eprintln!("on standard error");
            return 42;
        }
        "chatty" => {
            for number in 0..100_000 {
                eprintln!("line {number} of far more than a pipe holds");
            }
        }
        "descriptors" => {
            let mut report = String::new();
            for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
                let entry = entry.unwrap();
                let target = std::fs::read_link(entry.path()).unwrap();
                report += &format!("{} {}\n", entry.file_name().display(), target.display());
            }
            UnixStream::from(socket)
                .write_all(report.as_bytes())
                .unwrap();
        }
        "environment" => {
            let names: Vec<String> = std::env::vars()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            UnixStream::from(socket)
                .write_all(names.join("\n").as_bytes())
                .unwrap();
        }
        other => panic!("no role {other}"),
    }
    0
}

fn hang() -> i32 {
    loop {
        std::thread::park();
    }
}

async fn echo(socket: OwnedFd) {
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

async fn spawn(role: &str) -> Result<(HostProcess, OwnedFd), TransportError> {
    HostCommand::new(HostProgram::CurrentExe)
        .variable(ROLE, role)
        .spawn()
        .await
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let local = tokio::task::LocalSet::new();
    runtime.block_on(local.run_until(async {
        tokio::time::timeout(DEADLINE, future)
            .await
            .expect("the test did not end in time")
    }))
}

/// Waits until the process behind a pidfd is gone, reaped or not.
fn wait_gone(pidfd: &OwnedFd) {
    let timeout = Timespec::try_from(DEADLINE).unwrap();
    let ready = poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&timeout)).unwrap();
    assert_eq!(ready, 1, "the process is still there");
}

fn pidfd_of(pid: u32) -> OwnedFd {
    pidfd_open(
        Pid::from_raw(pid.cast_signed()).unwrap(),
        PidfdFlags::empty(),
    )
    .unwrap()
}

/// Waits for a condition that no event tells of, giving way to other threads.
fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "{what} did not come");
        std::thread::yield_now();
    }
}

fn is_in_process_table(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

fn read_all(socket: OwnedFd) -> String {
    let mut text = String::new();
    let mut stream = UnixStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn a_host_answers_over_its_link() {
    run(async {
        let (process, socket) = spawn("echo").await.unwrap();
        let mut link = Endpoint::unix(socket)
            .connect(Hello::default())
            .await
            .unwrap();
        assert_eq!(link.agreed.peer_pid, process.pid());
        assert_ne!(link.agreed.peer_pid, std::process::id());
        let writer = tokio::task::spawn_local(link.writer);
        let header = FrameHeader {
            kind: 5,
            call: 99,
            ..FrameHeader::default()
        };
        let (sent, _kept) = rustix::pipe::pipe().unwrap();
        link.sender
            .push(header, &[b"there and back"], vec![sent])
            .unwrap();
        let mut frames = Vec::new();
        link.receiver.receive(&mut frames).await.unwrap();
        assert_eq!(frames[0].header.call, 99);
        assert_eq!(frames[0].body.as_ref(), b"there and back");
        assert_eq!(frames[0].descriptors.len(), 1);
        link.sender.close();
        writer.await.unwrap().unwrap();
        assert_eq!(
            process.exited().await.cause,
            ExitCause::Code(0),
            "the end of its link ends a host"
        );
    });
}

fn a_killed_host_is_reported_with_its_signal() {
    run(async {
        let (process, socket) = spawn("echo").await.unwrap();
        let mut link = Endpoint::unix(socket)
            .connect(Hello::default())
            .await
            .unwrap();
        let exited = process.exited();
        assert_eq!(process.try_exited(), None);
        process.kill();
        let exit: HostExit = exited.await;
        assert_eq!(exit.signal(), Some(9));
        assert!(exit.to_string().contains("SIGKILL"), "{exit}");
        assert_eq!(process.try_exited(), Some(exit.clone()));
        assert_eq!(process.exited().await, exit, "may be asked again");
        assert_eq!(
            link.receiver.receive(&mut Vec::new()).await,
            Err(TransportError::Closed)
        );
        assert!(
            !is_in_process_table(process.pid()),
            "reaped before it is reported"
        );
        process.kill();
    });
}

fn an_exit_code_and_last_words_are_reported() {
    let exit = run(async {
        let (process, _socket) = spawn("words").await.unwrap();
        process.exited().await
    });
    assert_eq!(exit.code(), Some(42));
    assert_eq!(exit.last_words, ["on standard output", "on standard error"]);
}

fn a_chatty_host_never_blocks() {
    let exit = run(async {
        let (process, _socket) = spawn("chatty").await.unwrap();
        process.exited().await
    });
    assert_eq!(exit.code(), Some(0));
    assert_eq!(exit.last_words.len(), host::MAX_LAST_WORDS_LINES);
    assert!(exit.last_words.last().unwrap().starts_with("line 99999 "));
}

fn a_host_inherits_nothing_but_its_link() {
    // Without close-on-exec, as careless code of the application would have it.
    let (careless, _other) = rustix::pipe::pipe().unwrap();
    assert!(rustix::io::fcntl_getfd(&careless).unwrap().is_empty());
    let (_process, socket) = run(spawn("descriptors")).unwrap();
    let report = read_all(socket);
    // The listing itself is one more.
    let others: Vec<&str> = report
        .lines()
        .filter(|line| !line.ends_with("/fd"))
        .collect();
    assert_eq!(others.len(), 5, "{report}");
    let starting = |prefix: &str| {
        others
            .iter()
            .find(|line| line.starts_with(prefix))
            .unwrap()
            .to_string()
    };
    assert!(starting("0 ").ends_with("/dev/null"));
    assert!(starting("1 ").contains("pipe:"));
    assert!(starting("2 ").contains("pipe:"));
    assert!(starting("3 ").contains("socket:"));
    assert!(starting("4 ").contains("pipe:"), "for its last note");
    drop(careless);
}

fn a_host_sees_only_the_named_environment() {
    assert!(std::env::var_os("PATH").is_some());
    let command = HostCommand::default()
        .variable(ROLE, "environment")
        .pass_variable("CARGO_PKG_NAME");
    let (_process, socket) = run(command.spawn()).unwrap();
    let report = read_all(socket);
    let names: BTreeSet<&str> = report
        .lines()
        .map(|line| line.split('=').next().unwrap())
        .collect();
    assert!(
        !names.contains("PATH") && !names.contains("HOME"),
        "{report}"
    );
    assert!(report.contains("PORTCULLIS_TEST_ROLE=environment"));
    if std::env::var_os("CARGO_PKG_NAME").is_some() {
        assert!(
            report.contains("CARGO_PKG_NAME=portcullis-transport"),
            "{report}"
        );
    }
}

fn a_dropped_host_is_killed_and_reaped() {
    let (process, _socket) = run(spawn("hang")).unwrap();
    let pid = process.pid();
    let gone = pidfd_of(pid);
    drop(process);
    wait_gone(&gone);
    eventually("the reaping", || !is_in_process_table(pid));
}

fn a_host_that_nobody_waits_for_leaves_no_zombie() {
    let (process, _socket) = run(spawn("words")).unwrap();
    let pid = process.pid();
    eventually("the reaping", || !is_in_process_table(pid));
    assert_eq!(run(process.exited()).code(), Some(42));
}

fn fifty_hosts_leak_no_descriptor() {
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    run(async { spawn("words").await.unwrap().0.exited().await });
    eventually("quiet", || {
        std::fs::read_dir("/proc/self/task").unwrap().count() >= 3
    });
    let before = open();
    run(async {
        let mut exits = Vec::new();
        for number in 0..50 {
            let (process, _socket) = spawn("echo").await.unwrap();
            exits.push(process.exited());
            if number % 2 == 0 {
                process.kill();
            }
        }
        for exit in exits {
            exit.await;
        }
    });
    eventually("the closing of all descriptors", || open() <= before);
    let children =
        std::fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id()))
            .unwrap();
    assert_eq!(children, "", "no child is left");
}

fn a_dropped_spawn_leaves_no_process() {
    use std::pin::pin;
    use std::task::{Context, Waker};
    let mut spawning = Box::pin(spawn("hang"));
    // Asked for, and perhaps even answered by now: dropped in either case.
    drop(
        spawning
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop())),
    );
    drop(spawning);
    // The launcher works in order: once this one is there, the dropped one has been dealt with.
    let after = pin!(spawn("words"));
    let (process, _socket) = run(after).unwrap();
    run(process.exited());
    let children = || -> String {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        tasks
            .map(|task| std::fs::read_to_string(task.unwrap().path().join("children")).unwrap())
            .collect()
    };
    eventually("the end of the dropped host", || children().is_empty());
}

fn a_host_outlives_the_thread_that_asked_for_it() {
    let (process, socket) = std::thread::spawn(|| run(spawn("echo")).unwrap())
        .join()
        .unwrap();
    run(async {
        let link = Endpoint::unix(socket)
            .connect(Hello::default())
            .await
            .unwrap();
        assert_eq!(link.agreed.peer_pid, process.pid());
        assert_eq!(process.try_exited(), None);
    });
}

fn a_host_dies_with_its_application() {
    let mut application = Command::new(std::env::current_exe().unwrap())
        .env(ROLE, "application")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(application.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let host = pidfd_of(line.trim().parse().unwrap());
    let timeout = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    assert_eq!(
        poll(&mut [PollFd::new(&host, PollFlags::IN)], Some(&timeout)).unwrap(),
        0,
        "it runs"
    );
    application.kill().unwrap();
    assert_eq!(application.wait().unwrap().signal(), Some(9));
    wait_gone(&host);
}

fn a_missing_program_is_named() {
    let program = HostProgram::Path("/nowhere/portcullis-host".into());
    let error = run(HostCommand::new(program).spawn()).unwrap_err();
    assert!(matches!(error, TransportError::Spawn { .. }));
    assert!(
        error.to_string().contains("/nowhere/portcullis-host"),
        "{error}"
    );
}

fn a_program_that_is_no_host_cannot_start_hosts() {
    let (process, _socket) = run(spawn("no host")).unwrap();
    let exit = run(process.exited());
    assert_eq!(exit.code(), Some(0), "{exit:?}");
}

fn an_ordinary_process_has_no_endpoint() {
    assert!(host::endpoint().unwrap().is_none());
    let stdin = std::io::stdin();
    assert!(
        stdin.as_fd().as_raw_fd() == 0,
        "and nothing of it was touched"
    );
}

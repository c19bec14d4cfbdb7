//! What is promised of confined hosts, shown with real ones: this program starts itself in the role that a variable names.
//!
//! Linked statically the hosts are confined before their program runs, dynamically at its start; every claim holds in both.

#![allow(clippy::unwrap_used)]

mod descriptors;
mod image;
mod roles;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use portcullis_transport::host::{
    self, ExitCause, HostExit, HostImage, HostProcess, ImageSource, Quota,
};
use portcullis_transport::{
    Endpoint, FrameHeader, Hello, HostCommand, HostProgram, HostQuotas, Layer, LayerSet,
    LayerState, Sandbox, SandboxPolicy, TransportError,
};

const ROLE: &str = "PORTCULLIS_TEST_ROLE";
const DEADLINE: Duration = Duration::from_secs(20);

/// An unprivileged user that needs no entry anywhere.
const SOMEBODY: u32 = 4242;

fn main() {
    if let Ok(role) = std::env::var(ROLE) {
        std::process::exit(roles::play(&role));
    }
    let filter = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let tests: &[(&str, fn())] = &[
        ("every_layer_is_in_force", every_layer_is_in_force),
        (
            "a_host_costs_its_application_four_descriptors",
            descriptors::a_host_costs_its_application_four_descriptors,
        ),
        (
            "an_application_with_more_descriptors_than_a_host_may_have_starts_one",
            descriptors::an_application_with_more_descriptors_than_a_host_may_have_starts_one,
        ),
        (
            "from_outside_a_host_has_nothing",
            from_outside_a_host_has_nothing,
        ),
        (
            "a_host_answers_over_its_link_in_its_sandbox",
            a_host_answers_over_its_link_in_its_sandbox,
        ),
        (
            "ordinary_code_works_and_files_are_refused",
            ordinary_code_works_and_files_are_refused,
        ),
        ("a_blocked_call_is_named", a_blocked_call_is_named),
        (
            "ends_by_signals_are_told_truly",
            ends_by_signals_are_told_truly,
        ),
        ("a_quota_is_named", a_quota_is_named),
        (
            "without_privilege_the_sandbox_is_the_same",
            without_privilege_the_sandbox_is_the_same,
        ),
        (
            "a_protected_host_is_static_or_does_not_start",
            a_protected_host_is_static_or_does_not_start,
        ),
        (
            "what_happens_to_the_file_later_does_not_matter",
            image::what_happens_to_the_file_later_does_not_matter,
        ),
        (
            "a_host_with_a_readable_image_is_not_protected",
            image::a_host_with_a_readable_image_is_not_protected,
        ),
        (
            "a_program_without_a_path_is_a_host_too",
            image::a_program_without_a_path_is_a_host_too,
        ),
        (
            "a_host_that_is_late_is_not_confined_in_part",
            a_host_that_is_late_is_not_confined_in_part,
        ),
        (
            "a_missing_layer_ends_the_start_or_is_reported",
            a_missing_layer_ends_the_start_or_is_reported,
        ),
        (
            "layers_come_alone_when_asked_for_alone",
            layers_come_alone_when_asked_for_alone,
        ),
        (
            "a_kill_at_any_moment_leaks_nothing",
            a_kill_at_any_moment_leaks_nothing,
        ),
        (
            "a_check_tells_what_this_machine_gives",
            a_check_tells_what_this_machine_gives,
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
    println!("{count} passed, with a {} host", linkage());
}

fn is_static() -> bool {
    HostImage::open(&HostProgram::CurrentExe, ImageSource::File)
        .unwrap()
        .facts()
        .is_static
}

fn linkage() -> &'static str {
    if is_static() { "static" } else { "dynamic" }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn strict() -> Sandbox {
    Sandbox::isolated(SandboxPolicy::Require)
}

fn command(role: &str, sandbox: Sandbox) -> HostCommand {
    HostCommand::new(HostProgram::CurrentExe)
        .variable(ROLE, role)
        .sandbox(sandbox)
}

async fn spawn(role: &str, sandbox: Sandbox) -> Result<(HostProcess, OwnedFd), TransportError> {
    command(role, sandbox).spawn().await
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

fn exit_of(role: &str, sandbox: Sandbox) -> HostExit {
    run(async {
        let (process, _socket) = spawn(role, sandbox).await.unwrap();
        process.exited().await
    })
}

/// Waits for a condition that no event tells of, giving way to other threads.
fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "{what} did not come");
        std::thread::yield_now();
    }
}

/// A host that serves and waits, and what it said of itself.
struct Reported {
    process: HostProcess,
    socket: UnixStream,
    text: String,
}

fn reported(command: HostCommand) -> Reported {
    let (process, socket) = run(command.spawn()).unwrap();
    let mut socket = UnixStream::from(socket);
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut text = String::new();
    let mut bytes = [0; 4096];
    while !text.ends_with("\n.\n") {
        let read = socket.read(&mut bytes).unwrap();
        if read == 0 {
            panic!("it ended: {} {text}", run(process.exited()));
        }
        text += std::str::from_utf8(&bytes[..read]).unwrap();
    }
    Reported {
        process,
        socket,
        text,
    }
}

impl Reported {
    fn end(self) {
        drop(self.socket);
        let exit = run(self.process.exited());
        assert_eq!(exit.cause, ExitCause::Code(0), "{exit}");
    }
}

fn every_layer_is_in_force() {
    let host = reported(command("report", strict()));
    assert!(
        host.text.lines().nth(1) == Some(&host.process.pid().to_string()),
        "it knows its id: {}",
        host.text
    );
    for layer in Layer::ALL {
        // Groups are not to be had everywhere.
        let may_miss = matches!(layer, Layer::ControlGroup | Layer::SealedImage);
        assert!(
            may_miss || host.text.contains(&format!("{layer}: InForce")),
            "{layer}: {}",
            host.text
        );
    }
    println!("  {}", host.text.lines().next().unwrap());
    host.end();
}

fn from_outside_a_host_has_nothing() {
    if !is_root() {
        println!("  left out: only root can look at a host");
        return;
    }
    let host = reported(command("report", strict()));
    let proc = format!("/proc/{}", host.process.pid());
    let mut threads = 0;
    for task in std::fs::read_dir(format!("{proc}/task")).unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let fields: BTreeMap<&str, &str> = status
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name, value.trim()))
            .collect();
        assert_eq!(fields["Seccomp"], "2");
        assert_eq!(fields["NoNewPrivs"], "1");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(fields[set], "0000000000000000", "{set}");
        }
        let user: u32 = fields["Uid"].split('\t').next().unwrap().parse().unwrap();
        assert_ne!(user, 0);
        assert_eq!(fields["Groups"], "");
        threads += 1;
    }
    assert!(threads >= 2);
    for namespace in ["pid", "net", "mnt", "ipc", "uts", "cgroup"] {
        let of = |process: &str| std::fs::read_link(format!("{process}/ns/{namespace}")).unwrap();
        assert_ne!(of(&proc), of("/proc/self"), "{namespace}");
    }
    let root = std::fs::read_dir(format!("{proc}/root")).unwrap();
    assert_eq!(root.count(), 0, "an empty root");
    let mounts = std::fs::read_to_string(format!("{proc}/mountinfo")).unwrap();
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    assert!(mounts.contains("/ / ro,nosuid,nodev,noexec"), "{mounts}");
    let open: BTreeSet<u32> = std::fs::read_dir(format!("{proc}/fd"))
        .unwrap()
        .map(|entry| {
            entry
                .unwrap()
                .file_name()
                .to_str()
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect();
    assert_eq!(open, BTreeSet::from([0, 1, 2, 3, 4]));
    let limits = std::fs::read_to_string(format!("{proc}/limits")).unwrap();
    let limit = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..]
            .split_whitespace()
            .nth(1)
            .unwrap()
            .to_owned()
    };
    assert_eq!(limit("Max core file size"), "0");
    assert_eq!(limit("Max open files"), "1024");
    assert_eq!(limit("Max data size"), (4u64 << 30).to_string());
    host.end();
}

fn a_host_answers_over_its_link_in_its_sandbox() {
    run(async {
        let (process, socket) = spawn("echo", strict()).await.unwrap();
        let mut link = match Endpoint::unix(socket).connect(Hello::default()).await {
            Ok(link) => link,
            Err(error) => panic!("{error}: {}", process.exited().await),
        };
        assert_eq!(link.agreed.peer_pid, process.pid());
        let writer = tokio::task::spawn_local(link.writer);
        let (sent, _kept) = rustix::pipe::pipe().unwrap();
        let header = FrameHeader {
            kind: 5,
            call: 99,
            ..FrameHeader::default()
        };
        link.sender
            .push(header, &[b"there and back"], vec![sent])
            .unwrap();
        let mut frames = Vec::new();
        link.receiver.receive(&mut frames).await.unwrap();
        assert_eq!(frames[0].body.as_ref(), b"there and back");
        assert_eq!(frames[0].descriptors.len(), 1);
        link.sender.close();
        writer.await.unwrap().unwrap();
        let exit = process.exited().await;
        assert_eq!(exit.cause, ExitCause::Code(0), "{exit}");
    });
}

fn ordinary_code_works_and_files_are_refused() {
    let exit = exit_of("ordinary", strict());
    assert_eq!(exit.cause, ExitCause::Code(0), "{exit:?}");
}

fn a_blocked_call_is_named() {
    for (role, name) in [("socket", "socket"), ("exec", "execve")] {
        let exit = exit_of(role, strict());
        let blocked = exit.blocked.clone().unwrap_or_else(|| panic!("{exit:?}"));
        assert_eq!(blocked.name.as_deref(), Some(name));
        assert_eq!(exit.signal(), Some(31), "SIGSYS");
        let text = exit.to_string();
        assert!(text.contains(&format!("system call {name}")), "{text}");
    }
}

fn ends_by_signals_are_told_truly() {
    let exit = exit_of("abort", strict());
    assert_eq!(exit.signal(), Some(6), "{exit:?}");
    assert_eq!((exit.blocked, exit.quota), (None, None));
    let exit = exit_of("overflow", strict());
    assert_eq!(exit.signal(), Some(6), "{exit:?}");
    assert_eq!((exit.blocked.as_ref(), exit.quota), (None, None));
    let words = exit.last_words.join("\n");
    assert!(words.contains("overflowed its stack"), "{words}");
    let exit = exit_of("panic", strict());
    assert_eq!(exit.code(), Some(101), "{exit:?}");
    assert!(exit.last_words.concat().contains("on purpose"));
}

fn a_quota_is_named() {
    let quotas = |quotas| Sandbox { quotas, ..strict() };
    let exit = exit_of(
        "hoard",
        quotas(HostQuotas {
            memory: 64 << 20,
            ..HostQuotas::default()
        }),
    );
    assert_eq!(exit.quota, Some(Quota::Memory), "{exit:?}");
    let exit = exit_of(
        "spin",
        quotas(HostQuotas {
            cpu_time: Some(Duration::from_secs(1)),
            ..HostQuotas::default()
        }),
    );
    assert_eq!(exit.quota, Some(Quota::CpuTime), "{exit:?}");
    assert_eq!(exit.signal(), Some(24), "SIGXCPU: {exit:?}");
    let exit = exit_of(
        "hang",
        quotas(HostQuotas {
            wall_time: Some(Duration::from_millis(50)),
            ..HostQuotas::default()
        }),
    );
    assert_eq!(exit.quota, Some(Quota::WallTime), "{exit:?}");
    assert_eq!(exit.signal(), Some(9));
}

/// Runs this program as an unprivileged user, who starts hosts.
fn without_privilege_the_sandbox_is_the_same() {
    if !is_root() {
        println!("  left out: these tests run without privilege already");
        return;
    }
    let output = Command::new("/proc/self/exe")
        .env_clear()
        .env(ROLE, "somebody")
        .uid(SOMEBODY)
        .gid(SOMEBODY)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
    print!("{said}");
}

fn be_unprivileged_application() -> i32 {
    // A machine may refuse user namespaces to users; the rest is in force also then.
    let isolation = run(host::check()).unwrap();
    let sandbox = if isolation.has(Layer::OwnUser) {
        strict()
    } else {
        Sandbox::isolated(SandboxPolicy::BestEffort)
    };
    let host = reported(command("report", sandbox.clone()));
    println!("  {}", host.text.lines().next().unwrap());
    host.end();
    let exit = exit_of("socket", sandbox.clone());
    assert!(exit.blocked.is_some(), "{exit:?}");
    let exit = exit_of("ordinary", sandbox.clone());
    assert_eq!(exit.cause, ExitCause::Code(0), "{exit:?}");
    let exit = exit_of("abort", sandbox);
    assert_eq!(exit.signal(), Some(6), "{exit:?}");
    0
}

fn a_protected_host_is_static_or_does_not_start() {
    let result = run(spawn("echo", Sandbox::protected()));
    if is_static() {
        let exit = run(async {
            let (process, socket) = result.unwrap();
            drop(socket);
            process.exited().await
        });
        assert_ne!(exit.code(), Some(0), "nobody shook hands: {exit:?}");
        reported(command("report", Sandbox::protected())).end();
    } else {
        match result.unwrap_err() {
            TransportError::Sandbox { layer, text, .. } => {
                assert_eq!(layer, Layer::SealedImage);
                assert!(text.contains("dynamically linked"), "{text}");
            }
            other => panic!("unexpected {other}"),
        }
    }
}

/// A dynamic program puts its layers on itself: when other threads run by then, some are around one thread only.
fn a_host_that_is_late_is_not_confined_in_part() {
    if is_static() {
        let host = reported(command("late", strict()));
        assert!(host.text.contains("landlock: InForce"), "{}", host.text);
        host.end();
        return;
    }
    let exit = exit_of("late", strict());
    assert_eq!(exit.code(), Some(70), "{exit:?}");
    let words = exit.last_words.concat();
    assert!(words.contains("another thread runs already"), "{words}");
    let host = reported(command(
        "late",
        Sandbox::isolated(SandboxPolicy::BestEffort),
    ));
    assert!(host.text.contains("landlock: Missing"), "{}", host.text);
    assert!(
        host.text.contains("no new privileges: Missing"),
        "{}",
        host.text
    );
    assert!(
        host.text.contains("no writable code: InForce"),
        "{}",
        host.text
    );
    host.end();
}

fn a_missing_layer_ends_the_start_or_is_reported() {
    // A layer that cannot be: more address space limits than there are is nothing, but a limit that nobody can set is one.
    let quotas = HostQuotas {
        descriptors: 2,
        ..HostQuotas::default()
    };
    // With two descriptors no directory can be opened, and the host cannot even say so.
    let result = run(spawn("report", Sandbox { quotas, ..strict() }));
    match result {
        Err(TransportError::Sandbox { .. } | TransportError::Spawn { .. }) => {}
        Err(other) => panic!("unexpected {other}"),
        Ok((process, _socket)) => {
            let exit = run(process.exited());
            assert_ne!(exit.cause, ExitCause::Code(0), "{exit:?}");
        }
    }
}

fn layers_come_alone_when_asked_for_alone() {
    for layer in [
        Layer::PidNamespace,
        Layer::EmptyRoot,
        Layer::Landlock,
        Layer::ServingFilter,
        Layer::NoWritableCode,
    ] {
        let mut layers = LayerSet::NONE.with(layer);
        if layer == Layer::Landlock {
            layers = layers.with(Layer::NoNewPrivileges);
        }
        if layer == Layer::EmptyRoot {
            layers = layers.with(Layer::MountNamespace);
        }
        let host = reported(command("report", Sandbox { layers, ..strict() }));
        let in_force = host.text.matches(": InForce").count();
        assert_eq!(in_force, layers.iter().count(), "{layer}: {}", host.text);
        host.end();
    }
    // In a protected host only with a copy that was never readable; to root with its capabilities everything is.
    if is_static() {
        let mut layers = LayerSet::NONE.with(Layer::NotDumpable);
        if is_root() {
            layers = layers.with(Layer::Capabilities);
        }
        let sandbox = Sandbox {
            layers,
            ..Sandbox::protected()
        };
        let host = reported(command("report", sandbox));
        let in_force = host.text.matches(": InForce").count();
        assert_eq!(in_force, layers.iter().count(), "{}", host.text);
        host.end();
    }
}

fn a_kill_at_any_moment_leaks_nothing() {
    let rounds = std::env::var("PORTCULLIS_TEST_KILLS").map_or(500, |text| text.parse().unwrap());
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let groups = || -> usize {
        ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"]
            .into_iter()
            .filter_map(|path| std::fs::read_dir(path).ok())
            .flatten()
            .flatten()
            .filter(|entry| {
                let own = format!("portcullis-{}-", std::process::id());
                entry.file_name().to_string_lossy().starts_with(&own)
            })
            .count()
    };
    reported(command("report", strict())).end();
    let (before, threads) = (
        open(),
        std::fs::read_dir("/proc/self/task").unwrap().count(),
    );
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let start = Instant::now();
    run(async {
        for _ in 0..rounds {
            let (process, socket) = spawn("echo", strict()).await.unwrap();
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let wait = Duration::from_micros(random % 6000);
            // The wait is the point: a kill at that very moment.
            let until = Instant::now() + wait;
            while Instant::now() < until {
                tokio::task::yield_now().await;
            }
            process.kill();
            let exit = process.exited().await;
            assert_eq!(exit.signal(), Some(9), "{exit:?}");
            drop(socket);
        }
    });
    println!(
        "  {rounds} hosts killed in {:.1} s",
        start.elapsed().as_secs_f64()
    );
    // One more may be a network namespace for the next host, which a thread makes.
    eventually("the closing of all descriptors", || open() <= before + 1);
    eventually("the end of all threads", || {
        std::fs::read_dir("/proc/self/task").unwrap().count() <= threads
    });
    eventually("the removal of all control groups", || groups() == 0);
    let children =
        std::fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id()))
            .unwrap();
    assert_eq!(children, "");
}

fn a_check_tells_what_this_machine_gives() {
    let isolation = run(host::check()).unwrap();
    println!("  {isolation}");
    assert!(isolation.has(Layer::NoNewPrivileges));
    assert!(isolation.has(Layer::Descriptors));
    for (layer, why) in isolation.missing() {
        assert!(!why.is_empty(), "{layer}");
    }
    assert_ne!(*isolation.state(Layer::ServingFilter), LayerState::NotAsked);
    let stdin = std::io::stdin();
    assert_eq!(stdin.as_raw_fd(), 0);
}

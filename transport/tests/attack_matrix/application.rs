//! The application that starts the hosts, as one user: what it offers to be attacked, and how it judges.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use portcullis_transport::{HostCommand, HostExit, HostProgram, Layer, SandboxProfile, host};

use crate::attacks::network::{DATAGRAM, STREAM, abstract_name};
use crate::attacks::process::NOBODY_ELSE;
use crate::attacks::{self, Attack, Control, MISSING, REFUSED, SECRET, SUCCESS, Targets, memory};
use crate::jail::RESULTS;
use crate::table::{self, Column, Verdict};
use crate::{STAGE, debugger, filter, is_whole};

/// How long one attack may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// What is being done, and since when.
static STEP: Mutex<Option<(String, Instant)>> = Mutex::new(None);

/// Says what is being done, for the watch that ends this process when that takes too long.
pub(crate) fn step(what: String) {
    *STEP.lock().unwrap() = Some((what, Instant::now()));
}

/// Many waits here are for other processes, which have deadlines of their own or none.
fn watch() {
    std::thread::spawn(|| {
        loop {
            std::thread::park_timeout(Duration::from_secs(1));
            if let Some((what, since)) = &*STEP.lock().unwrap()
                && since.elapsed() > DEADLINE
            {
                println!("FAULT: no end in {DEADLINE:?}: {what}");
                std::process::exit(1);
            }
        }
    });
}

/// Of this application's own descriptors, so that a limit can be raised where nothing forbids it.
const DESCRIPTORS: u64 = 6000;

pub(crate) fn main() -> ExitCode {
    assert_ne!(std::fs::read_link("/proc/self").unwrap().as_os_str(), "1");
    assert!(std::path::Path::new(RESULTS).exists(), "only in the jail");
    let user = rustix::process::getuid().as_raw();
    limit_descriptors();
    watch();
    let (targets, _offered) = offer(user);
    let has_group = run(host::check()).unwrap().has(Layer::ControlGroup);
    let mut faults = Vec::new();
    let mut text = excuses(user, has_group);
    for profile in [SandboxProfile::Isolated, SandboxProfile::Protected] {
        text += &one_matrix(user, has_group, profile, &targets, &mut faults);
    }
    if filter().is_none_or(|filter| "debugger".contains(&filter)) && user != 0 {
        text += &debugger::races(if is_whole() { 1000 } else { 100 }, &mut faults);
    }
    std::fs::write(format!("{RESULTS}/{user}.md"), text).unwrap();
    for fault in &faults {
        println!("FAULT, user {user}: {fault}");
    }
    if faults.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn one_matrix(
    user: u32,
    has_group: bool,
    profile: SandboxProfile,
    targets: &Targets,
    faults: &mut Vec<String>,
) -> String {
    let attacks = attacks::all();
    let wanted = |attack: &&Attack| filter().is_none_or(|filter| attack.name.contains(&filter));
    let columns = Column::all(is_whole(), profile, user == 0);
    let mut rows = Vec::new();
    let mut missing = BTreeSet::new();
    for attack in attacks.iter().filter(wanted) {
        let begin = std::time::Instant::now();
        let row: Vec<Verdict> = columns
            .iter()
            .map(|column| run(future(attack, column, targets, &mut missing)))
            .collect();
        let took = begin.elapsed();
        if took > Duration::from_secs(1) {
            println!("{}: {:.1} s", attack.name, took.as_secs_f64());
        }
        for (column, verdict) in columns.iter().zip(&row) {
            if attack.needs_group && !has_group && column.is_full {
                continue;
            }
            if let Some(fault) = fault(attack, column, verdict, user) {
                faults.push(format!("{} / {}: {fault}", attack.name, column.name));
            }
        }
        rows.push((attack.name, row));
    }
    let title = format!("User {user}, profile {}", profile.name());
    let mut text = table::markdown(&title, &columns, &rows);
    missing
        .iter()
        .for_each(|what| text += &format!("\nNot to be had: {what}.\n"));
    text
}

/// What the reader must know of the controls that fail, and of what is not refused.
fn excuses(user: u32, has_group: bool) -> String {
    let mut text = format!("\n# User {user}\n\nWithout any sandbox the kernel itself refuses:\n");
    for attack in attacks::all() {
        match attack.control {
            Control::Never(why) => text += &format!("- {}: {why}\n", attack.name),
            Control::OfRoot(why) if user != 0 => text += &format!("- {}: {why}\n", attack.name),
            _ => {}
        }
    }
    if !has_group {
        text +=
            "\n**Not refused here**, for want of a control group, which this user cannot make:\n";
        let open = attacks::all()
            .into_iter()
            .filter(|attack| attack.needs_group);
        open.for_each(|attack| text += &format!("- {}\n", attack.name));
        println!("OPEN, user {user}: no control group, so memory in memfds has no limit");
    }
    text
}

/// What is wrong with a verdict.
fn fault(attack: &Attack, column: &Column, verdict: &Verdict, user: u32) -> Option<String> {
    let must_succeed = match attack.control {
        Control::Succeeds => true,
        Control::OfRoot(_) => user == 0,
        Control::Never(_) => false,
    };
    match verdict {
        Verdict::Unclear(what) => Some(format!("unclear: {what}")),
        Verdict::Succeeded if column.is_full => Some("succeeds against everything".into()),
        Verdict::Refused(by) if by == NOBODY_ELSE => None,
        Verdict::Refused(by) if column.sandbox.is_none() && must_succeed => {
            Some(format!("fails without a sandbox, by {by}: a weak test"))
        }
        Verdict::Succeeded if column.sandbox.is_none() && !must_succeed => Some(format!(
            "succeeds against the expectation: {:?}",
            attack.control
        )),
        _ => None,
    }
}

async fn future(
    attack: &Attack,
    column: &Column,
    targets: &Targets,
    missing: &mut BTreeSet<String>,
) -> Verdict {
    let mut command = HostCommand::new(HostProgram::CurrentExe)
        .variable(STAGE, "host")
        .variable(attacks::ATTACK, attack.name)
        .variable(attacks::TARGETS, targets.encode());
    if let Some(sandbox) = &column.sandbox {
        command = command.sandbox(sandbox.clone());
    }
    step(format!("{} / {}", attack.name, column.name));
    let cores = format!("{}/cores", targets.folder);
    let (process, _socket) = match command.spawn().await {
        Ok(spawned) => spawned,
        Err(error) => return Verdict::Unclear(error.to_string()),
    };
    let exit = process.exited().await;
    let lines = exit.last_words.iter();
    missing.extend(lines.filter_map(|line| line.strip_prefix(MISSING).map(str::to_owned)));
    if attack.name == memory::CORE_FILE {
        return core_file(&cores, &exit);
    }
    judge(&exit)
}

fn judge(exit: &HostExit) -> Verdict {
    if let Some(call) = &exit.blocked {
        let name = call.name.clone().unwrap_or_else(|| call.number.to_string());
        return Verdict::Refused(format!("call {name}"));
    }
    if let Some(quota) = exit.quota {
        return Verdict::Refused(format!("quota of {quota}"));
    }
    if exit.last_words.iter().any(|line| line == SUCCESS) {
        return Verdict::Succeeded;
    }
    if let Some(by) = exit
        .last_words
        .iter()
        .find_map(|line| line.strip_prefix(REFUSED))
    {
        return Verdict::Refused(by.to_owned());
    }
    match exit.signal() {
        // A filter kills at once for a call of another architecture: its handler could not know the call.
        Some(libc::SIGSYS) => Verdict::Refused("SIGSYS".into()),
        Some(libc::SIGXFSZ) => Verdict::Refused("SIGXFSZ".into()),
        _ => Verdict::Unclear(exit.to_string()),
    }
}

/// The attack ends itself; what counts is what is left.
fn core_file(folder: &str, exit: &HostExit) -> Verdict {
    let mut found = false;
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        found = true;
        std::fs::remove_file(entry.path()).unwrap();
    }
    match (found, &exit.blocked) {
        (true, _) => Verdict::Succeeded,
        (false, Some(_)) => judge(exit),
        (false, None) => Verdict::Refused("no core".into()),
    }
}

/// Everything that is attacked besides this process; it lasts as long as this is held.
struct Offered {
    victim: Child,
}

impl Drop for Offered {
    fn drop(&mut self) {
        // An attack may have killed it.
        let _ = self.victim.kill();
        let _ = self.victim.wait();
    }
}

fn offer(user: u32) -> (Targets, Offered) {
    use std::os::unix::fs::PermissionsExt;
    let folder = format!("/tmp/attack-{user}");
    std::fs::create_dir_all(format!("{folder}/cores")).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(format!("{folder}/victim"), "a victim").unwrap();
    std::os::unix::fs::symlink("/tmp/privileged", format!("{folder}/privileged")).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let path = format!("{folder}/{STREAM}");
    let streams = [
        UnixListener::bind_addr(&abstract_name(STREAM, user)).unwrap(),
        UnixListener::bind(path).unwrap(),
    ];
    let path = format!("{folder}/{DATAGRAM}");
    let datagrams = [
        UnixDatagram::bind_addr(&abstract_name(DATAGRAM, user)).unwrap(),
        UnixDatagram::bind(path).unwrap(),
    ];
    // SAFETY: plain numbers.
    assert!(unsafe { libc::msgget(memory::QUEUE, libc::IPC_CREAT | 0o666) } >= 0);
    let victim = Command::new("/proc/self/exe")
        .env_clear()
        .env(STAGE, "victim")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let targets = Targets {
        parent: std::process::id().cast_signed(),
        victim: victim.id().cast_signed(),
        secret: SECRET.as_ptr().addr(),
        tcp: tcp.local_addr().unwrap().port(),
        udp: udp.local_addr().unwrap().port(),
        folder,
    };
    std::thread::spawn(move || tcp.incoming().for_each(drop));
    std::thread::spawn(move || while udp.recv(&mut [0; 64]).is_ok() {});
    for listener in streams {
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut stream = stream;
                let _ = stream.read(&mut [0; 64]);
            }
        });
    }
    for socket in datagrams {
        std::thread::spawn(move || while socket.recv(&mut [0; 64]).is_ok() {});
    }
    (targets, Offered { victim })
}

fn limit_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = Rlimit {
        current: Some(DESCRIPTORS),
        ..getrlimit(Resource::Nofile)
    };
    setrlimit(Resource::Nofile, limit).unwrap();
}

pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(DEADLINE, future)
            .await
            .expect("an attack did not end in time")
    })
}

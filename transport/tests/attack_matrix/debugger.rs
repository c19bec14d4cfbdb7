//! A debugger of the same user that lies in wait for hosts at their start.
//!
//! The racer is another process of the application's user. In a tight loop it looks for children of the application and
//! tries everything on each: attach, read by `process_vm_readv`, read by `/proc/PID/mem`. The host keeps a secret at an
//! address that everybody knows, from its very first line on, which is worse than any real one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitCode, Stdio};

use portcullis_transport::{HostCommand, HostProgram, Layer, Sandbox, TransportError, host};

use crate::STAGE;
use crate::application::{run, step};

/// Where the secret lies.
const PLACE: usize = 0x5000_0000_0000;
const SECRET: [u8; 16] = *b"a host's own key";

/// How often the racer tries each process at least.
const TRIES: u64 = 20;

/// What a racer is to look at: the application's process id.
const APPLICATION: &str = "PORTCULLIS_ATTACK_APPLICATION";

/// The host: puts its secret down, serves, says so, and waits.
pub(crate) fn secretive_main() -> ExitCode {
    put_secret();
    let mut stream = match host::endpoint() {
        Ok(Some(endpoint)) => UnixStream::from(endpoint.socket),
        // The control: a process like others, which is no host.
        Ok(None) => {
            println!("ready");
            std::io::stdin().read_exact(&mut [0]).unwrap_or_default();
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            println!("{error}");
            return ExitCode::FAILURE;
        }
    };
    host::serve().unwrap();
    stream.write_all(b"r").unwrap();
    // Until the application goes.
    let _ = stream.read(&mut [0]);
    ExitCode::SUCCESS
}

fn put_secret() {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: a new mapping at an address where nothing is, or none; then a copy into it.
    unsafe {
        let page = libc::mmap(
            std::ptr::without_provenance_mut(PLACE),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            flags,
            -1,
            0,
        );
        assert_eq!(page.addr(), PLACE);
        std::ptr::copy_nonoverlapping(SECRET.as_ptr(), page.cast(), SECRET.len());
    }
}

/// What the racer got of one process.
#[derive(Clone, Copy, Debug, Default)]
struct Loot {
    tries: u64,
    attached: bool,
    by_call: bool,
    by_file: bool,
}

/// Runs until its standard input ends; to each line, a process id, it answers what it got of that process.
pub(crate) fn racer_main() -> ExitCode {
    let application: i32 = std::env::var(APPLICATION).unwrap().parse().unwrap();
    let input = std::io::stdin();
    rustix::fs::fcntl_setfl(&input, rustix::fs::OFlags::NONBLOCK).unwrap();
    let mut loot: BTreeMap<i32, Loot> = BTreeMap::new();
    let mut children =
        vec![File::open(format!("/proc/{application}/task/{application}/children")).unwrap()];
    let mut question = Vec::new();
    loop {
        let mut bytes = [0; 64];
        match rustix::io::read(&input, &mut bytes) {
            Ok(0) => return ExitCode::SUCCESS,
            Ok(read) => question.extend(&bytes[..read]),
            Err(_) => {}
        }
        if question.last() == Some(&b'\n') {
            let text = String::from_utf8(std::mem::take(&mut question)).unwrap();
            let text = text.trim();
            if text == "look" {
                // Hosts are children of another thread.
                children = tasks(application);
                println!("looking");
                continue;
            }
            let got = loot
                .get(&text.parse().unwrap())
                .copied()
                .unwrap_or_default();
            println!(
                "{} {} {} {}",
                got.tries, got.attached, got.by_call, got.by_file
            );
        }
        // One that ended while attached stays until its tracer has seen it.
        // SAFETY: asks for no status.
        while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG | libc::__WALL) } > 0 {
        }
        for list in &children {
            let mut text = [0; 1 << 16];
            let Ok(read) = list.read_at(&mut text, 0) else {
                continue;
            };
            let text = std::str::from_utf8(&text[..read]).unwrap_or_default();
            for pid in text.split_whitespace().filter_map(|pid| pid.parse().ok()) {
                if pid != std::process::id().cast_signed() {
                    attack(pid, loot.entry(pid).or_default());
                }
            }
        }
    }
}

fn tasks(pid: i32) -> Vec<File> {
    std::fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .flatten()
        .filter(|task| {
            let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            let is_first = task.file_name().to_str() == Some(&pid.to_string());
            is_first || name.starts_with("portcullis-laun")
        })
        .filter_map(|task| File::open(task.path().join("children")).ok())
        .collect()
}

fn attack(pid: i32, loot: &mut Loot) {
    loot.tries += 1;
    let mut bytes = [0u8; SECRET.len()];
    let local = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    let remote = libc::iovec {
        iov_base: std::ptr::without_provenance_mut(PLACE),
        iov_len: SECRET.len(),
    };
    // SAFETY: the kernel writes to the live array; the other side is an address in another process.
    let read = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    loot.by_call |= read > 0 && bytes == SECRET;
    if !loot.attached {
        // SAFETY: this request takes numbers only.
        loot.attached = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0usize, 0usize) } == 0;
    }
    if let Ok(memory) = File::open(format!("/proc/{pid}/mem")) {
        let mut bytes = [0u8; SECRET.len()];
        let read = memory.read_exact_at(&mut bytes, PLACE as u64);
        loot.by_file |= read.is_ok() && bytes == SECRET;
    }
}

struct Racer {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Racer {
    fn start() -> Self {
        let mut child = Command::new("/proc/self/exe")
            .env_clear()
            .env(STAGE, "racer")
            .env(APPLICATION, std::process::id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut racer = Self { child, answers };
        assert_eq!(racer.ask("look"), "looking");
        racer
    }

    fn ask(&mut self, question: &str) -> String {
        let input = self.child.stdin.as_mut().unwrap();
        writeln!(input, "{question}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        answer.trim().to_owned()
    }

    /// What it has after enough tries.
    fn loot(&mut self, pid: u32) -> Loot {
        loop {
            let loot = self.loot_so_far(pid);
            if loot.tries >= TRIES {
                return loot;
            }
            std::thread::yield_now();
        }
    }

    fn loot_so_far(&mut self, pid: u32) -> Loot {
        let answer = self.ask(&pid.to_string());
        let mut words = answer.split(' ');
        let tries = words.next().unwrap().parse().unwrap();
        let mut next = || words.next().unwrap() == "true";
        Loot {
            tries,
            attached: next(),
            by_call: next(),
            by_file: next(),
        }
    }
}

impl Drop for Racer {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

/// Races for as many hosts; writes what came of them.
pub(crate) fn races(count: u32, faults: &mut Vec<String>) -> String {
    // So that the launcher thread is there when the racer looks for the application's threads.
    drop(run(command().spawn()).unwrap());
    let mut racer = Racer::start();
    let mut control = Tally::default();
    for number in 0..count {
        step(format!("plain process {number}"));
        let mut child = Command::new("/proc/self/exe")
            .env_clear()
            .env(STAGE, "secretive")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        step(format!("plain process {number} races"));
        control.add(racer.loot(child.id()));
        step(format!("plain process {number} ends"));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let mut protected = Tally::default();
    let mut refused = 0;
    for number in 0..count {
        step(format!("protected host {number} starts"));
        match run(command().spawn()) {
            Ok((process, socket)) => {
                let mut stream = UnixStream::from(socket);
                step(format!("protected host {number} serves"));
                let is_ready = stream.read(&mut [0]).unwrap() == 1;
                step(format!("protected host {number} races"));
                let loot = racer.loot(process.pid());
                step(format!("protected host {number} ends"));
                process.kill();
                let exit = run(process.exited());
                assert!(is_ready, "{exit}");
                protected.add(loot);
            }
            // Whoever is attached keeps a host from starting; that is no success of theirs.
            Err(TransportError::Sandbox {
                layer: Layer::NotDumpable,
                ..
            }) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    if control.by_call == 0 || control.attached == 0 || control.by_file == 0 {
        faults.push(format!(
            "a debugger cannot even read a plain process: {control:?}"
        ));
    }
    if protected.by_call + protected.attached + protected.by_file > 0 {
        faults.push(format!("a debugger got at a protected host: {protected:?}"));
    }
    format!(
        "\n## A debugger of the same user\n\n| | races | tries | attached | read by call | read by file |\n|---|---|---|---|---|---|\n\
         | plain process | {count} | {} |\n| protected host | {count} ({refused} did not start) | {} |\n",
        control.cells(),
        protected.cells()
    )
}

fn command() -> HostCommand {
    HostCommand::new(HostProgram::CurrentExe)
        .variable(STAGE, "secretive")
        .sandbox(Sandbox::protected())
}

#[derive(Debug, Default)]
struct Tally {
    tries: u64,
    attached: u32,
    by_call: u32,
    by_file: u32,
}

impl Tally {
    fn add(&mut self, loot: Loot) {
        self.tries += loot.tries;
        self.attached += u32::from(loot.attached);
        self.by_call += u32::from(loot.by_call);
        self.by_file += u32::from(loot.by_file);
    }

    fn cells(&self) -> String {
        format!(
            "{} | {} | {} | {}",
            self.tries, self.attached, self.by_call, self.by_file
        )
    }
}

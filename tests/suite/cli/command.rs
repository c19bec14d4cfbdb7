//! Runs of the command, each with a deadline.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long a run may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// A run that has not been waited for; it starts when it is first needed.
#[derive(Debug)]
pub(crate) struct Run {
    command: Command,
    stdin: Option<Vec<u8>>,
    child: Option<Child>,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The command with these arguments, in the repository's directory.
pub(crate) fn portcullis<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Run {
        command,
        stdin: None,
        child: None,
    }
}

impl Run {
    pub(crate) fn args(mut self, arguments: &[&str]) -> Self {
        self.command.args(arguments);
        self
    }

    pub(crate) fn stdin_file(mut self, path: &Path) -> Self {
        self.command.stdin(File::open(path).unwrap());
        self
    }

    /// Standard input as a pipe.
    pub(crate) fn stdin_bytes(mut self, bytes: Vec<u8>) -> Self {
        self.command.stdin(Stdio::piped());
        self.stdin = Some(bytes);
        self
    }

    /// Standard input as a pipe that the test holds.
    pub(super) fn stdin_open(mut self) -> Self {
        self.command.stdin(Stdio::piped());
        self
    }

    /// Standard input, to write to.
    pub(super) fn stdin(&mut self) -> ChildStdin {
        self.started().stdin.take().unwrap()
    }

    /// Starts it, if it was not.
    pub(crate) fn start(mut self) -> Self {
        self.started();
        self
    }

    fn started(&mut self) -> &mut Child {
        let stdin = self.stdin.take();
        let child = self
            .child
            .get_or_insert_with(|| self.command.spawn().unwrap());
        if let Some(bytes) = stdin
            && let Some(mut pipe) = child.stdin.take()
        {
            // The command may end without having read all.
            std::thread::spawn(move || drop(pipe.write_all(&bytes)));
        }
        child
    }

    pub(crate) fn pid(&mut self) -> u32 {
        self.started().id()
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        let pid = Pid::from_child(self.started());
        kill_process(pid, signal).unwrap();
    }

    /// Takes standard output, to read or to drop it.
    pub(crate) fn stdout(&mut self) -> BufReader<ChildStdout> {
        BufReader::new(self.started().stdout.take().unwrap())
    }

    /// Waits for the end; past the deadline it is killed, and the test fails.
    pub(crate) fn finish(mut self) -> Finished {
        let pid = Pid::from_child(self.started());
        let child = self.child.take().unwrap();
        let (done, end) = mpsc::channel();
        std::thread::spawn(move || done.send(child.wait_with_output()));
        let Ok(output) = end.recv_timeout(DEADLINE) else {
            kill_process(pid, Signal::KILL).unwrap();
            panic!("{:?} does not end", self.command);
        };
        let output = output.unwrap();
        Finished {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Finished {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}{}", self.stdout, self.stderr))
    }

    pub(crate) fn json_lines(&self) -> Vec<Value> {
        json_lines(&self.stdout)
    }
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Reads JSON lines up to the first event of this name.
pub(crate) fn read_to_event(out: &mut BufReader<ChildStdout>, name: &str) -> Value {
    let mut line = String::new();
    loop {
        line.clear();
        assert!(out.read_line(&mut line).unwrap() > 0, "ended before {name}");
        let event: Value = serde_json::from_str(&line).unwrap();
        if event["event"] == name {
            return event;
        }
    }
}

/// The JSON lines that are left.
pub(crate) fn read_rest(mut out: BufReader<ChildStdout>) -> Vec<Value> {
    let mut text = String::new();
    out.read_to_string(&mut text).unwrap();
    json_lines(&text)
}

//! A host program with a component that turns against everybody: how an application and its other hosts fare is shown by
//! the tests that use it. By itself it does nothing.

use std::io;
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Duration;

use portcullis::{
    Component, ComponentInfo, Error, MediaTime, MediaType, Output, PixelFormat, Result, Sample,
    Subtype, Transform,
};
use serde::{Deserialize, Serialize};

/// What it does, once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deed {
    /// Nothing.
    #[default]
    None,
    /// Reads a file and says what came of it.
    File,
    /// Makes a file.
    Create,
    /// Connects to a TCP port.
    Tcp,
    /// Sends a UDP datagram.
    Udp,
    /// Connects to a Unix socket.
    Unix,
    /// Becomes another program.
    Execute,
    /// Starts another program.
    Start,
    /// Signals another process.
    Signal,
    /// Makes itself readable for debuggers.
    Dumpable,
    /// Changes its root directory.
    Chroot,
    /// Aborts.
    Abort,
    /// Exits as if all were well.
    Exit,
    /// Panics.
    Panic,
    /// Runs out of stack.
    Overflow,
    /// Never returns and computes.
    Spin,
    /// Never returns and sleeps, whatever is cancelled.
    Sleep,
    /// Allocates without end.
    Hoard,
    /// Puts out samples without end, within one call.
    Flood,
    /// Puts out one sample more for each one before: never stops, call by call.
    Multiply,
    /// Says that a sample lasts for longer than time.
    Eternity,
    /// Says that what follows are pictures of four billion by four billion.
    Giant,
    /// Puts out sound that is not whole samples.
    Odd,
}

/// Passes sound on and does its deed at one of the samples.
#[derive(Debug)]
pub struct Traitor {
    settings: Settings,
    seen: u64,
}

/// What it does, and when.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What.
    pub deed: Deed,
    /// Samples that pass before.
    pub after: u64,
}

impl Component for Traitor {
    type Settings = Settings;
    const INFO: ComponentInfo =
        ComponentInfo::transform("example.traitor", "Turns against everybody, for tests")
            .accepts(&[Subtype::PCM_S16])
            .produces(&[Subtype::PCM_S16]);

    fn new(settings: Settings) -> Result<Self> {
        Ok(Self { settings, seen: 0 })
    }
}

impl Transform for Traitor {
    fn process(&mut self, input: Sample, output: &mut Output) -> Result<()> {
        self.seen += 1;
        if self.seen > self.settings.after {
            self.act(&input, output)?;
        }
        output.push(input);
        Ok(())
    }
}

impl Traitor {
    fn act(&mut self, input: &Sample, output: &mut Output) -> Result<()> {
        let deed = std::mem::take(&mut self.settings.deed);
        match deed {
            Deed::None => {}
            Deed::File => return refused(std::fs::read("/etc/passwd")),
            Deed::Create => return refused(std::fs::write("/tmp/traitor", "was here")),
            Deed::Tcp => return refused(TcpStream::connect("127.0.0.1:80")),
            Deed::Udp => return refused(UdpSocket::bind("127.0.0.1:0")),
            Deed::Unix => return refused(UnixStream::connect("/run/anything")),
            Deed::Execute => return refused::<()>(Err(Command::new("/bin/true").exec())),
            Deed::Start => return refused(Command::new("/bin/true").status()),
            Deed::Signal => {
                // Whoever that is.
                let other = rustix::process::Pid::from_raw(2).unwrap_or(rustix::process::Pid::INIT);
                let sent = rustix::process::kill_process(other, rustix::process::Signal::URG);
                return refused(sent.map_err(io::Error::from));
            }
            Deed::Dumpable => {
                let readable = rustix::process::DumpableBehavior::Dumpable;
                let set = rustix::process::set_dumpable_behavior(readable);
                return refused(set.map_err(io::Error::from));
            }
            Deed::Chroot => return refused(rustix::process::chroot("/").map_err(io::Error::from)),
            Deed::Abort => std::process::abort(),
            Deed::Exit => std::process::exit(0),
            Deed::Panic => panic!("the traitor panics"),
            Deed::Overflow => {
                std::hint::black_box(recurse(self.seen));
            }
            Deed::Spin => loop {
                std::hint::spin_loop();
            },
            Deed::Sleep => loop {
                std::thread::sleep(Duration::from_secs(3600));
            },
            Deed::Hoard => {
                let mut hoard = Vec::new();
                loop {
                    hoard.push(std::hint::black_box(vec![1u8; 1 << 20]));
                }
            }
            Deed::Flood => loop {
                let sample = input.clone();
                output.push(sample.with_payload(vec![0; 1 << 20]));
            },
            Deed::Multiply => {
                for _ in 0..self.seen {
                    output.push(input.clone());
                }
                self.settings.deed = Deed::Multiply;
            }
            Deed::Eternity => {
                let mut sample = input.clone();
                sample.time = MediaTime::from_ticks(i64::MAX);
                sample.duration = MediaTime::from_ticks(i64::MAX);
                output.push(sample);
            }
            Deed::Giant => output.push_format(giant()),
            Deed::Odd => output.push(input.clone().with_payload(vec![1; 3])),
        }
        Ok(())
    }
}

fn giant() -> MediaType {
    MediaType::raw_video(PixelFormat::I420, u32::MAX, u32::MAX)
}

/// An ordinary refusal is an error of the sample; there is none for a deed that succeeds.
fn refused<T>(attempt: io::Result<T>) -> Result<()> {
    match attempt {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::undecodable(
            "example.traitor",
            MediaTime::ZERO,
            format!("refused: {error}"),
        )),
    }
}

#[expect(
    unconditional_recursion,
    reason = "running out of stack is what it is for"
)]
fn recurse(depth: u64) -> u8 {
    let frame = std::hint::black_box([depth as u8; 4096]);
    let below = recurse(depth.wrapping_add(1));
    below ^ std::hint::black_box(frame)[depth as usize % 4096]
}

fn main() -> ExitCode {
    portcullis::host::init(portcullis::builtin().with_transform::<Traitor>());
    eprintln!("traitor_host serves the tests that start it; it does nothing by itself");
    ExitCode::from(2)
}

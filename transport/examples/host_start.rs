//! What it costs to start a host: from the call to the first byte that comes from it, and the memory of one that waits.
//!
//! `cargo run --release -p portcullis-transport --example host_start [COUNT]`

use std::error::Error;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use portcullis_transport::host::{self, HostImage, ImageSource};
use portcullis_transport::{HostCommand, HostProcess, HostProgram, Sandbox, SandboxPolicy};

const WAIT: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(endpoint) = host::endpoint()? {
        return serve(endpoint.socket.into());
    }
    let count = std::env::args()
        .nth(1)
        .map_or(Ok(200), |text| text.parse())?;
    let image = HostImage::open(&HostProgram::CurrentExe, ImageSource::SealedCopy)?;
    println!("image: {image:?}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let kinds = [
        ("no sandbox", None),
        (
            "isolated",
            Some(Sandbox::isolated(SandboxPolicy::BestEffort)),
        ),
        ("protected", Some(Sandbox::protected())),
    ];
    for (name, sandbox) in kinds {
        let mut times = Vec::new();
        let mut memory = 0;
        for _ in 0..=count {
            let start = Instant::now();
            let (process, mut socket) = runtime.block_on(ready(sandbox.clone()))?;
            times.push(start.elapsed());
            memory = proportional_memory(&process)?;
            socket.write_all(b"x")?;
        }
        let first = times.remove(0);
        times.sort();
        let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len() - 1));
        println!(
            "{name}: first {first:?}, p50 {:?}, p99 {:?} of {count}; {memory} KiB (PSS) idle",
            at(50).ok_or("none")?,
            at(99).ok_or("none")?
        );
    }
    Ok(())
}

async fn ready(sandbox: Option<Sandbox>) -> Result<(HostProcess, UnixStream), Box<dyn Error>> {
    let mut command = HostCommand::new(HostProgram::CurrentExe);
    if let Some(sandbox) = sandbox {
        command = command.sandbox(sandbox);
    }
    let (process, socket) = command.spawn().await?;
    let mut socket = UnixStream::from(socket);
    socket.set_read_timeout(Some(WAIT))?;
    socket.read_exact(&mut [0])?;
    Ok((process, socket))
}

fn serve(mut socket: UnixStream) -> Result<(), Box<dyn Error>> {
    let _runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    host::serve()?;
    socket.write_all(b"r")?;
    socket.read_exact(&mut [0])?;
    Ok(())
}

fn proportional_memory(process: &HostProcess) -> Result<u64, Box<dyn Error>> {
    let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", process.pid()))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let number = line
        .and_then(|line| line.split_whitespace().next())
        .ok_or("no Pss")?;
    Ok(number.parse()?)
}

//! The `portcullis` command: what it takes, and what its exit codes say.
//!
//! A part of the library only so that benches and tests can reach it; not an interface for users.

mod arguments;
pub mod bench;
mod components;
mod decode;
mod failure;
mod host;
mod log;
mod output;
mod outputs;
mod placement;
mod play;
mod playback;
mod probe;
mod progress;
mod run;
mod signals;
mod trust;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::failure::Failure;
use self::signals::Interrupt;

const EXIT_CODES: &str = "\
Exit codes:
  0        done
  1        another failure, such as an output that cannot be written
  2        wrong usage
  3        the input cannot be opened or read
  4        the content is damaged, unsupported, protected or beyond a limit; what is intact was delivered
  5        the host process was lost: it crashed, was killed or broke the protocol
  6        the host process cannot start
  7        a program, its manifest or one of its components is not trusted
  130/143  ended by SIGINT/SIGTERM";

/// Plays and decodes media, in a process of its own.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, about, after_help = EXIT_CODES, propagate_version = true)]
struct Cli {
    /// Logs to standard error: -v what happens, -vv everything. RUST_LOG (`target=level,…`) says it in detail
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Probe(probe::Probe),
    Decode(decode::Decode),
    Play(play::Play),
    Run(run::Run),
    Components(components::Components),
    Host(host::HostCommand),
    Trust(trust::Trust),
    Bench(bench::BenchArgs),
}

/// Runs the command of this process's arguments.
///
/// The program must have called [`crate::host::init`] before.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version come this way too, with code 0.
        Err(error) => {
            let code = error.exit_code();
            // Where nobody reads any more there is nobody to tell.
            let _ = error.print();
            return ExitCode::from(u8::try_from(code).unwrap_or(1));
        }
    };
    log::start(cli.verbose);
    let code = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => {
            let code = runtime.block_on(run_command(cli.command));
            // A read of standard input may never end; nobody waits for it.
            runtime.shutdown_background();
            code
        }
        Err(error) => Failure::output("the runtime", error).report(None),
    };
    ExitCode::from(code)
}

async fn run_command(command: Command) -> u8 {
    let json = command.is_json();
    let mut interrupt = match Interrupt::listen() {
        Ok(interrupt) => interrupt,
        Err(error) => return Failure::output("signal handlers", error).report(None),
    };
    let outcome = match command {
        Command::Probe(probe) => interrupt.or(probe.run()).await,
        Command::Decode(decode) => decode.run(&mut interrupt).await,
        Command::Play(play) => play.run(&mut interrupt).await,
        Command::Run(run) => run.run(&mut interrupt).await,
        Command::Components(components) => components.run(),
        Command::Host(host) => interrupt.or(host.run()).await,
        Command::Trust(trust) => interrupt.or(trust.run()).await,
        Command::Bench(bench) => {
            let run = async { bench::run(bench).await.map_err(Failure::from) };
            interrupt.or(run).await
        }
    };
    match outcome {
        Ok(()) => 0,
        Err(failure) => failure.report(json),
    }
}

impl Command {
    /// How failures are told on standard output too.
    fn is_json(&self) -> Option<failure::JsonForm> {
        use failure::JsonForm::{Document, Lines};
        match self {
            Self::Probe(probe) => probe.json.then_some(Document),
            Self::Decode(decode) => decode.json.then_some(Lines),
            Self::Host(host) => host.is_json().then_some(Document),
            Self::Trust(trust) => trust.is_json().then_some(Document),
            // Their events and summary say it.
            Self::Play(_) | Self::Run(_) | Self::Components(_) | Self::Bench(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }
}

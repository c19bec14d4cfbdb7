//! A host program that an attacker has: it takes the socket that the application left it and says whatever it likes. The
//! tests start it under the name of an attack ([`attacks::ATTACKS`] is the list) and look how the application fares. By itself
//! it does nothing but tell its version and its attacks.

mod attacks;
mod deeds;
mod objects;
mod peer;

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use peer::Peer;

/// The exit code of an attack that could not be made as it is meant.
const NOT_MADE: u8 = 99;

fn main() -> ExitCode {
    let endpoint = match portcullis_transport::host::endpoint() {
        Ok(Some(endpoint)) => endpoint,
        Ok(None) => {
            println!("{:016x}", attacks::version());
            eprintln!("hostile_host is started as a host, by the tests; its attacks:");
            for attack in attacks::ATTACKS {
                eprintln!("  {}: {:?}", attack.name, attack.ends);
            }
            return ExitCode::from(2);
        }
        Err(error) => {
            eprintln!("hostile_host: {error}");
            return ExitCode::from(NOT_MADE);
        }
    };
    // The application names the program by a link that is called as the attack is.
    let name = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&name).file_name().and_then(|name| name.to_str());
    let mut peer = Peer::new(UnixStream::from(endpoint.socket), endpoint.isolation);
    match deeds::run(name.unwrap_or_default(), &mut peer) {
        // The application has closed, as it should.
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hostile_host: {error}");
            ExitCode::from(NOT_MADE)
        }
    }
}

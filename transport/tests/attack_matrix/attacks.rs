//! The attacks, and the host that makes one.
//!
//! An attack is a function that answers `Ok` only when it has got what it wanted: the bytes of the file, the code run, the
//! signal accepted. What ends the host (a trapped call, a quota) the application sees.

mod files;
mod kernel;
pub(crate) mod memory;
pub(crate) mod network;
pub(crate) mod process;

use std::io;
use std::process::ExitCode;

use portcullis_transport::host;

/// Which attack a host makes.
pub(crate) const ATTACK: &str = "PORTCULLIS_ATTACK";
/// Against whom.
pub(crate) const TARGETS: &str = "PORTCULLIS_ATTACK_TARGETS";

/// What a successful attack prints.
pub(crate) const SUCCESS: &str = "attack: success";
/// How a refused one begins; the error follows.
pub(crate) const REFUSED: &str = "attack: refused: ";

/// How a host begins that tells of a layer that it lacks.
pub(crate) const MISSING: &str = "attack: without ";

/// The application's secret, which lies at an address that it tells.
pub(crate) static SECRET: [u8; 16] = *b"a secret of ours";

/// One attack.
#[derive(Clone, Copy)]
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    run: fn(&Targets) -> io::Result<()>,
    pub(crate) control: Control,
    /// Whether nothing but a control group can refuse it.
    pub(crate) needs_group: bool,
}

/// Whether it succeeds without a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// It must.
    Succeeds,
    /// For root only; for others the kernel refuses it, and why.
    OfRoot(&'static str),
    /// For nobody in the jail, and why.
    Never(&'static str),
}

/// What there is to attack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Targets {
    /// The application.
    pub(crate) parent: i32,
    /// Another process of the application's user, of which nothing is needed any more.
    pub(crate) victim: i32,
    /// Where `SECRET` lies in the application.
    pub(crate) secret: usize,
    /// Port of a TCP listener on the loopback.
    pub(crate) tcp: u16,
    /// Port of a UDP socket.
    pub(crate) udp: u16,
    /// A directory of the application's user, with a file `victim`.
    pub(crate) folder: String,
}

impl Targets {
    pub(crate) fn encode(&self) -> String {
        let Self {
            parent,
            victim,
            secret,
            tcp,
            udp,
            folder,
        } = self;
        format!("{parent} {victim} {secret} {tcp} {udp} {folder}")
    }

    fn decode(text: &str) -> Self {
        let mut words = text.split(' ');
        let mut next = || words.next().unwrap();
        Self {
            parent: next().parse().unwrap(),
            victim: next().parse().unwrap(),
            secret: next().parse().unwrap(),
            tcp: next().parse().unwrap(),
            udp: next().parse().unwrap(),
            folder: next().to_owned(),
        }
    }
}

const NEEDS_INITIAL: &str =
    "needs a capability over the whole machine, which nobody in the jail has";
const NEEDS_CAPABILITY: &str = "needs a capability";

/// All of them.
pub(crate) fn all() -> Vec<Attack> {
    [
        files::ATTACKS,
        network::ATTACKS,
        process::ATTACKS,
        memory::ATTACKS,
        kernel::ATTACKS,
    ]
    .concat()
}

const fn attack(name: &'static str, run: fn(&Targets) -> io::Result<()>) -> Attack {
    Attack {
        name,
        run,
        control: Control::Succeeds,
        needs_group: false,
    }
}

impl Attack {
    const fn of_root(self, why: &'static str) -> Self {
        Self {
            control: Control::OfRoot(why),
            ..self
        }
    }

    const fn needs_group(self) -> Self {
        Self {
            needs_group: true,
            ..self
        }
    }

    const fn never(self, why: &'static str) -> Self {
        Self {
            control: Control::Never(why),
            ..self
        }
    }
}

/// A host that attacks once it serves.
pub(crate) fn host_main() -> ExitCode {
    let wanted = std::env::var(ATTACK).unwrap();
    let targets = Targets::decode(&std::env::var(TARGETS).unwrap());
    let _endpoint = match host::endpoint() {
        Ok(endpoint) => endpoint.expect("started as a host"),
        Err(error) => {
            println!("no host: {error}");
            return ExitCode::FAILURE;
        }
    };
    let isolation = host::serve().unwrap();
    for (layer, why) in isolation.missing() {
        println!("{MISSING}{layer}: {why}");
    }
    let attack = all().into_iter().find(|attack| attack.name == wanted);
    match (attack.unwrap().run)(&targets) {
        Ok(()) => println!("{SUCCESS}"),
        Err(error) => {
            let number = error.raw_os_error();
            let name =
                number.map(|number| format!("{:?}", rustix::io::Errno::from_raw_os_error(number)));
            match number.and_then(|number| syscalls::Errno::new(number).name()) {
                Some(name) => println!("{REFUSED}{name}"),
                None => println!("{REFUSED}{}", name.unwrap_or_else(|| error.to_string())),
            }
        }
    }
    ExitCode::SUCCESS
}

/// The program that is owned by root and has the set-user-id bit.
pub(crate) fn privileged_main() -> ExitCode {
    if rustix::process::geteuid().is_root() {
        println!("{SUCCESS}");
    } else {
        println!("{REFUSED}no privilege");
    }
    ExitCode::SUCCESS
}

/// The result of a C library function that answers -1 for an error.
fn check<T: Default + PartialOrd>(result: T) -> io::Result<T> {
    if result < T::default() {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn done<T>(result: io::Result<T>) -> io::Result<()> {
    result.map(drop)
}

fn failed(what: &str) -> io::Error {
    io::Error::other(what.to_owned())
}

/// A path in the application's folder, as the C library wants it.
fn in_folder(targets: &Targets, name: &str) -> std::ffi::CString {
    std::ffi::CString::new(format!("{}/{name}", targets.folder)).unwrap()
}

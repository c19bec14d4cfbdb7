//! Which program is a host, how it is confined, and what it may use up.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use portcullis_engine::trust::{ImageDigest, Sha256};
use portcullis_engine::{Error, ErrorKind, Result};
use portcullis_transport::{
    HostCommand, HostImage, HostProcess, HostProgram, HostQuotas, ImageSource, LinkConfig,
    LinkLimits, Sandbox, SandboxPolicy, TransportError, TrustedPeer,
};

use super::connection::{self, HostConnection, Order};
use super::init::is_initialised;
use super::pmp_host::ConfigureHost;
use super::trust::{Trust, Vouched};
use crate::bridge::{Heartbeat, Interface, InterfaceTable, PayloadTerms, SampleMemory};

/// Sessions that one host takes at a time, unless said otherwise.
const SESSIONS: u32 = 64;

/// A host program, how it is confined, and what it may use up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    program: HostProgram,
    policy: SandboxPolicy,
    quotas: HostQuotas,
    sessions: u32,
    terms: PayloadTerms,
    interfaces: InterfaceTable,
    heartbeat: Heartbeat,
    link: LinkConfig,
    limits: LinkLimits,
    variables: Vec<(OsString, OsString)>,
}

/// A host process that runs.
pub(super) struct Launched {
    pub(super) process: Arc<HostProcess>,
    pub(super) socket: OwnedFd,
    sandbox: Sandbox,
    vouched: Option<Vouched>,
}

/// How this side holds the link to a host.
pub(super) struct LinkTerms {
    pub(super) payloads: PayloadTerms,
    pub(super) interfaces: InterfaceTable,
    pub(super) heartbeat: Heartbeat,
    pub(super) config: LinkConfig,
    pub(super) limits: LinkLimits,
}

impl Default for Host {
    fn default() -> Self {
        Self::of(HostProgram::CurrentExe)
    }
}

impl Host {
    /// The running program itself, which must call [`host::init`](crate::host::init) first thing in `main`.
    pub fn current() -> Self {
        Self::default()
    }

    /// Another program that calls `host::init`.
    pub fn program(path: impl Into<PathBuf>) -> Self {
        Self::of(HostProgram::Path(path.into()))
    }

    fn of(program: HostProgram) -> Self {
        Self {
            program,
            policy: SandboxPolicy::default(),
            quotas: HostQuotas::default(),
            sessions: SESSIONS,
            terms: PayloadTerms::default(),
            interfaces: InterfaceTable::new(),
            heartbeat: Heartbeat::default(),
            link: LinkConfig::default(),
            limits: LinkLimits::default(),
            variables: Vec::new(),
        }
    }

    /// What happens when this machine does not give a layer of the sandbox: by default an isolated host does not start. With
    /// `BestEffort` it starts without that layer, a warning is logged, and [`HostConnection::isolation`] says so. A
    /// protected host always requires all.
    #[must_use]
    pub fn sandbox(mut self, policy: SandboxPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// What the host may use up. Beyond it the host ends with an error that names the quota.
    #[must_use]
    pub fn quotas(mut self, quotas: HostQuotas) -> Self {
        self.quotas = quotas;
        self
    }

    /// How many sessions the host takes at a time; the next one is refused with `LimitExceeded`.
    #[must_use]
    pub fn max_sessions(mut self, sessions: u32) -> Self {
        self.sessions = sessions;
        self
    }

    /// Lets the host share memory with all hosts to which the same [`SampleMemory`] is given: a sample that goes to several
    /// of them, or from one to another, is not copied, and each can see what is in that memory.
    #[must_use]
    pub fn sample_memory(mut self, memory: &SampleMemory) -> Self {
        self.terms.memory = Some(memory.clone());
        self
    }

    /// How many mebibytes of samples may be on their way to the host, and as many from it; 256 unless said otherwise. What
    /// comes beyond waits. One slot is enough: a payload larger than all of it goes in its message.
    #[must_use]
    pub fn sample_mebibytes(mut self, mebibytes: u32) -> Self {
        self.terms.most_mebibytes = Some(mebibytes);
        self
    }

    /// Gives what this host makes as plain `Bytes` over its own memory, without a copy, because it is trusted to leave alone
    /// what it has lent. Making a [`TrustedPeer`] is `unsafe`: a host that breaks the promise, because the content that it
    /// decodes has taken it over, causes undefined behaviour here. Without it the application copies what it keeps.
    #[must_use]
    pub fn trusted(mut self, promise: TrustedPeer) -> Self {
        self.terms.trust = Some(promise);
        self
    }

    /// With an interface beside the built-in ones that this program uses with the host: both must mean the same by it.
    #[must_use]
    pub fn interface<I: Interface>(mut self) -> Self {
        self.interfaces.add::<I>();
        self
    }

    /// All interfaces of a table.
    pub(crate) fn interfaces(mut self, table: &InterfaceTable) -> Self {
        self.interfaces = self.interfaces.and(table);
        self
    }

    /// What bounds the link to the host: sizes of messages, objects, calls and bytes in flight, descriptors, shared memory. A
    /// host that goes beyond them loses its link with an error that says so.
    ///
    /// ```
    /// # use portcullis_actors::host::{Host, LinkLimits};
    /// let limits = LinkLimits { max_objects: 100, call_window: 16, ..LinkLimits::default() };
    /// let host = Host::program("decoder-host").link_limits(limits);
    /// ```
    #[must_use]
    pub fn link_limits(mut self, limits: LinkLimits) -> Self {
        self.limits = limits;
        self
    }

    /// When it is reported that the host does not answer, and when it is killed for it: by default after two to four seconds
    /// in which somebody waits for it and it says nothing, and after five to seven.
    #[must_use]
    pub fn heartbeat(mut self, heartbeat: Heartbeat) -> Self {
        self.heartbeat = heartbeat;
        self
    }

    /// What carries what goes between application and host, and whether a side that waits may keep a processor busy for a
    /// moment. For least power: [`Spin::Never`](crate::host::Spin).
    #[must_use]
    pub fn link(mut self, config: LinkConfig) -> Self {
        self.link = config;
        self
    }

    /// Gives the host this variable with this value. Of the application's environment it gets only how to log and what
    /// language to speak.
    #[must_use]
    pub fn variable(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    pub(super) fn sandbox_policy(&self) -> SandboxPolicy {
        self.policy
    }

    pub(super) fn link_terms(&self, interfaces: InterfaceTable) -> LinkTerms {
        LinkTerms {
            payloads: self.terms.clone(),
            interfaces: interfaces.and(&self.interfaces),
            heartbeat: self.heartbeat,
            config: self.link,
            limits: self.limits,
        }
    }

    pub(super) fn has_wall_time(&self) -> bool {
        self.quotas.wall_time.is_some()
    }

    /// Starts the host, isolated, and connects to it. Dropping the future ends it.
    ///
    /// # Errors
    /// `HostStart` and `LayerMissing` that say why; `HostLost` if it ends at once.
    pub async fn start(&self) -> Result<HostConnection> {
        let sandbox = Sandbox::isolated(self.policy);
        self.start_in(sandbox, None).await
    }

    async fn start_in(&self, sandbox: Sandbox, trust: Option<&Trust>) -> Result<HostConnection> {
        let Launched {
            process,
            socket,
            sandbox,
            vouched,
        } = self.launch(sandbox, trust).await?;
        let permitted = vouched.as_ref().and_then(Vouched::components);
        let configure = ConfigureHost {
            sessions: self.sessions,
            permitted: permitted.map(<[_]>::to_vec),
        };
        let order = Order {
            sandbox,
            configure,
            vouched,
            terms: self.link_terms(crate::pipeline::interface_table()),
        };
        connection::connect(process, socket, order).await
    }

    /// Starts the process.
    pub(super) async fn launch(&self, sandbox: Sandbox, trust: Option<&Trust>) -> Result<Launched> {
        if self.program == HostProgram::CurrentExe && !is_initialised() {
            return Err(Error::new(ErrorKind::HostStart(
                "this program cannot be its own host; add `portcullis::host::init(portcullis::builtin());` as the first line of \
                 `main`, or name a host program"
                    .into(),
            )));
        }
        let source = match trust {
            Some(_) => ImageSource::SealedCopy,
            None => ImageSource::File,
        };
        let image = HostImage::prepare(self.program.clone(), source)
            .await
            .map_err(start_error)?;
        let vouched = match trust {
            Some(trust) => Some(trust.vouch(&self.program, &image).await?),
            None => None,
        };
        let sandbox = Sandbox {
            quotas: self.quotas,
            ..sandbox
        };
        let mut command = HostCommand::new(self.program.clone())
            .image(image)
            .sandbox(sandbox.clone());
        for (name, value) in &self.variables {
            command = command.variable(name, value);
        }
        let (process, socket) = command.spawn().await.map_err(start_error)?;
        Ok(Launched {
            process: Arc::new(process),
            socket,
            sandbox,
            vouched,
        })
    }
}

/// A host that is verified before it starts, and confined completely or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtectedHost {
    host: Host,
    trust: Trust,
}

impl ProtectedHost {
    /// This program, if `trust` finds it to be what its manifest says.
    pub fn new(host: Host, trust: Trust) -> Self {
        Self { host, trust }
    }

    pub(super) fn has_wall_time(&self) -> bool {
        self.host.has_wall_time()
    }

    /// All interfaces of a table.
    pub(crate) fn interfaces(mut self, table: &InterfaceTable) -> Self {
        self.host = self.host.interfaces(table);
        self
    }

    /// Verifies and starts the host and connects to it. Dropping the future ends it.
    ///
    /// # Errors
    /// `NotTrusted` with the check that refused the program, its manifest or a component; `LayerMissing` when the sandbox
    /// would not be complete, which names the sealed image for a program that is not static; `HostStart`, `HostLost`.
    pub async fn start(&self) -> Result<HostConnection> {
        let sandbox = Sandbox::protected();
        self.host.start_in(sandbox, Some(&self.trust)).await
    }
}

pub(super) fn start_error(error: TransportError) -> Error {
    Error::new(match error {
        TransportError::Sandbox {
            program,
            layer,
            text,
        } => ErrorKind::LayerMissing {
            layer: layer.name().into(),
            why: format!("{program}: {text}").into(),
        },
        error => ErrorKind::HostStart(error.to_string().into()),
    })
}

/// What a host program's file is, as a manifest describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramFacts {
    /// Its hash and size.
    pub digest: ImageDigest,
    /// What it runs on, such as `x86_64-linux`.
    pub target: String,
    /// Whether it needs no loader, which a protected host does not have.
    pub is_static: bool,
}

/// Reads a host program's file. A protected host does not trust that: it hashes the copy that it executes.
///
/// # Errors
/// `HostStart` that says what is wrong with the program.
pub async fn inspect(program: impl Into<PathBuf>) -> Result<ProgramFacts> {
    let facts = portcullis_transport::host::inspect(HostProgram::Path(program.into()))
        .await
        .map_err(start_error)?;
    Ok(ProgramFacts {
        digest: ImageDigest {
            sha256: Sha256::from(facts.sha256),
            size: facts.size,
        },
        target: match facts.machine {
            62 => "x86_64-linux".to_owned(),
            183 => "aarch64-linux".to_owned(),
            243 => "riscv64-linux".to_owned(),
            machine => format!("elf-machine-{machine}"),
        },
        is_static: facts.is_static,
    })
}

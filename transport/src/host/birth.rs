//! Making one host: everything is prepared, the child is born, the application learns what came of it.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::CapabilitySet;

use super::control_group::ControlGroup;
use super::endpoint::{
    LAYERS_VARIABLE, PID_VARIABLE, SANDBOX_VARIABLE, SOCKET_NUMBER, SOCKET_VARIABLE,
};
use super::image::HostImage;
use super::launch::HostProgram;
use super::pipes::{Deadline, NoReport, Pipes, end, reap_held};
use super::plan::Plan;
use super::spare_network;
use super::watch::{self, Belongings, HostProcess};
use crate::error::TransportError;
use crate::link::socket_pair;
use crate::sandbox::{Layer, LayerSet, PROTECTED_LANDLOCK_ABI, Sandbox, SandboxProfile};
use crate::sys::landlock::DenyAll;
use crate::sys::layers::{FIRST_HOST_USER, HOST_USERS, Layers, Outcome, UserPlan};
use crate::sys::spawn::{
    Birth, Blank, OUTCOME_DIGITS, PID_DIGITS, Report, Step, block_signals, spare,
};

/// For how long a child may take until its program runs: a hundred times what it takes, for a machine with much to do.
pub(super) const START_TIME: Duration = Duration::from_secs(2);

/// What is to be started.
pub(super) struct Order<'a> {
    pub(super) program: &'a HostProgram,
    pub(super) image: &'a HostImage,
    pub(super) arguments: &'a [OsString],
    pub(super) environment: Vec<(OsString, OsString)>,
    pub(super) sandbox: Option<&'a Sandbox>,
}

/// Prepares the thread from which hosts are started.
pub(super) fn prepare_thread() {
    block_signals();
}

/// Starts a host: its process, and our end of the socket to it.
pub(super) fn bear(order: Order<'_>) -> Result<(HostProcess, OwnedFd), TransportError> {
    reap_held();
    let program = order.program.to_string();
    check_image(&program, &order)?;
    check_landlock(&program, &order)?;
    let (ours, theirs) = socket_pair()?;
    let pipes = Pipes::make()?;
    let names = Names { program };
    let user = user_plan();
    let group = order.sandbox.and_then(|sandbox| {
        sandbox
            .layers
            .contains(Layer::ControlGroup)
            .then(|| ControlGroup::make(&sandbox.quotas))
    });
    let wants_network = user == UserPlan::OwnId
        && order
            .sandbox
            .is_some_and(|sandbox| sandbox.layers.contains(Layer::NetworkNamespace));
    let mut attempt = Attempt {
        order: &order,
        network: wants_network.then(spare_network::take).flatten(),
        theirs: spare(&theirs).map_err(spawning)?,
        pipes,
        user,
        group,
        refused: None,
    };
    drop(theirs);
    let born = attempt.give();
    let (pid, pidfd) = match born {
        Ok(born) => born,
        Err(error) => {
            attempt.refuse_namespaces(&names, error)?;
            attempt
                .give()
                .map_err(|error| names.failed(format!("the kernel gives no process: {error}")))?
        }
    };
    let started = attempt.lead(pid, &pidfd, &names);
    prepare_network(wants_network);
    let Attempt { pipes, group, .. } = attempt;
    // Kept until a child that could not be watched has been ended: a group with a process in it cannot be removed.
    let group = group
        .and_then(Result::ok)
        .map(|group| Arc::new(group.close()));
    let belongings = Belongings {
        words: pipes.words,
        note: pipes.note,
        quotas: order.sandbox.map(|sandbox| sandbox.quotas),
        group: group.clone(),
    };
    if let Err(error) = started {
        end(pidfd, group);
        return Err(error);
    }
    let again = rustix::io::fcntl_dupfd_cloexec(&pidfd, 0).map_err(spawning);
    let watched = again.and_then(|watched| watch::watch(pid, watched, belongings));
    match watched {
        Ok(process) => Ok((process, ours)),
        Err(error) => {
            end(pidfd, group);
            Err(names.failed(format!("it cannot be watched ({error}), so it was ended")))
        }
    }
}

/// From the second host on there are likely more.
fn prepare_network(is_wanted: bool) {
    static IS_FIRST: AtomicBool = AtomicBool::new(true);
    if is_wanted && !IS_FIRST.swap(false, Ordering::Relaxed) {
        spare_network::prepare();
    }
}

fn check_image(program: &str, order: &Order<'_>) -> Result<(), TransportError> {
    match order.sandbox {
        Some(sandbox) if sandbox.requires(Layer::SealedImage) && !order.image.is_sealed() => {
            Err(TransportError::Sandbox {
                program: program.to_owned(),
                layer: Layer::SealedImage,
                text: "the program is dynamically linked, and a host of this kind has no files from which a loader could \
                       take libraries; build it with -C target-feature=+crt-static and --target"
                    .into(),
            })
        }
        _ => Ok(()),
    }
}

/// A protected host needs all that Landlock can deny by now.
fn check_landlock(program: &str, order: &Order<'_>) -> Result<(), TransportError> {
    let is_protected = order.sandbox.is_some_and(|sandbox| {
        sandbox.profile == SandboxProfile::Protected && sandbox.requires(Layer::Landlock)
    });
    match DenyAll::of_this_kernel() {
        Ok(landlock) if is_protected && landlock.abi() < PROTECTED_LANDLOCK_ABI => {
            Err(TransportError::Sandbox {
                program: program.to_owned(),
                layer: Layer::Landlock,
                text: format!(
                    "this kernel's is of ABI {}, and a protected host needs {PROTECTED_LANDLOCK_ABI} (Linux 6.12)",
                    landlock.abi()
                ),
            })
        }
        // None at all is found out by the child.
        _ => Ok(()),
    }
}

struct Names {
    program: String,
}

impl Names {
    fn failed(&self, text: String) -> TransportError {
        TransportError::Spawn {
            program: self.program.clone(),
            text,
        }
    }

    fn layer(&self, layer: Layer, text: String) -> TransportError {
        TransportError::Sandbox {
            program: self.program.clone(),
            layer,
            text,
        }
    }

    /// What a report says that is not the one that should have come.
    fn unexpected(&self, report: Result<Report, NoReport>) -> TransportError {
        match report {
            Ok(Report::Failed(Step::Exec, error)) => {
                self.failed(format!("it cannot be executed: {error}"))
            }
            Ok(Report::Failed(Step::Layer(layer), error)) => self.layer(layer, error.to_string()),
            Ok(Report::Failed(step, error)) => self.failed(format!("{step:?}: {error}")),
            Ok(other) => self.failed(format!("it said {other:?}")),
            Err(error) => self.failed(error.to_string()),
        }
    }
}

pub(super) fn spawning(error: Errno) -> TransportError {
    TransportError::io("make a host's descriptors", error)
}

struct Attempt<'a> {
    order: &'a Order<'a>,
    /// A network namespace that nobody had before.
    network: Option<OwnedFd>,
    theirs: OwnedFd,
    pipes: Pipes,
    user: UserPlan,
    group: Option<std::io::Result<ControlGroup>>,
    /// Why there are no namespaces.
    refused: Option<Errno>,
}

impl Attempt<'_> {
    fn wanted(&self) -> LayerSet {
        self.order
            .sandbox
            .map_or(LayerSet::NONE, |sandbox| sandbox.layers)
    }

    /// Layers that the kernel has refused to make.
    fn lost(&self) -> LayerSet {
        match (self.refused, self.user) {
            (None, _) => LayerSet::NONE,
            (Some(_), UserPlan::OwnId) => LayerSet::NAMESPACES,
            (Some(_), UserPlan::Namespace) => LayerSet::NAMESPACES.with(Layer::OwnUser),
        }
    }

    fn namespaces(&self) -> LayerSet {
        let other = LayerSet::ALL.minus(LayerSet::NAMESPACES);
        self.wanted().minus(other).minus(self.lost())
    }

    /// Where the child enters its control group by itself.
    fn doors(&self) -> &[OwnedFd] {
        match &self.group {
            Some(Ok(group)) => group.doors(),
            _ => &[],
        }
    }

    /// Whether nobody may look into it from its first moment on.
    fn is_private(&self) -> bool {
        self.order.sandbox.is_some_and(Sandbox::is_private)
    }

    fn give(&self) -> Result<(Pid, OwnedFd), Errno> {
        let child = self.pipes.child.as_ref().ok_or(Errno::BADF)?;
        let wanted = self.wanted();
        let namespaces = self.namespaces();
        // Without privilege every other namespace needs one of the user; it also makes the host a user of its own.
        let user_map = (self.user == UserPlan::Namespace
            && self.refused.is_none()
            && (wanted.contains(Layer::OwnUser) || namespaces != LayerSet::NONE))
            .then(user_map);
        let is_before_exec = self.order.image.facts().is_static;
        let layers = self.order.sandbox.map(|sandbox| {
            Layers::prepare(sandbox, self.user, self.lost(), self.order.image.file())
        });
        let mut environment = self.environment()?;
        if let Some(sandbox) = self.order.sandbox {
            let plan = Plan {
                profile: sandbox.profile,
                policy: sandbox.policy,
                layers: sandbox.layers,
                lost: self.lost(),
                user: self.user,
                is_put: is_before_exec,
                quotas: sandbox.quotas,
            };
            environment.push(variable(SANDBOX_VARIABLE.into(), plan.encode().into())?);
        }
        let arguments = [self.order.program.argument_zero()];
        let arguments = arguments
            .into_iter()
            .chain(self.order.arguments.iter().cloned());
        let arguments: Result<Vec<_>, Errno> = arguments.map(text).collect();
        let descriptors = [
            child.null.as_fd(),
            child.words.as_fd(),
            child.words.as_fd(),
            self.theirs.as_fd(),
            child.note.as_fd(),
        ];
        Birth {
            image: Some(self.order.image.descriptor()),
            arguments: arguments?,
            environment,
            pid: Blank::new(PID_VARIABLE, PID_DIGITS),
            outcome_text: Blank::new(LAYERS_VARIABLE, OUTCOME_DIGITS * Layer::ALL.len()),
            descriptors,
            go: child.go.as_fd(),
            status: child.status.as_fd(),
            parents_ends: self.pipes.parents_ends(),
            namespaces,
            network: self.network.as_ref().map(AsFd::as_fd),
            user_map,
            doors: self.doors(),
            is_private: self.is_private(),
            layers: layers.as_ref().filter(|_| is_before_exec),
            outcome: self.outcome(),
        }
        .give()
    }

    /// What is known of the layers before the child is there; it is told to the child if it comes about.
    fn outcome(&self) -> Outcome {
        let mut outcome = Outcome::NOTHING;
        let wanted = self.wanted();
        for layer in wanted
            .minus(LayerSet::ALL.minus(LayerSet::NAMESPACES))
            .iter()
        {
            outcome.set(layer, self.refused.map_or(Ok(()), Err));
        }
        if let (Some(error), true) = (self.refused, self.lost().contains(Layer::OwnUser)) {
            outcome.set(Layer::OwnUser, Err(error));
        }
        if self.order.image.is_sealed() && wanted.contains(Layer::SealedImage) {
            outcome.set(Layer::SealedImage, Ok(()));
        }
        match &self.group {
            Some(Ok(_)) => outcome.set(Layer::ControlGroup, Ok(())),
            Some(Err(error)) => {
                let error = error.raw_os_error().unwrap_or(libc::EOPNOTSUPP);
                outcome.set(Layer::ControlGroup, Err(Errno::from_raw_os_error(error)));
            }
            None => {}
        }
        outcome
    }

    fn environment(&self) -> Result<Vec<CString>, Errno> {
        let mut environment = Vec::new();
        for (name, value) in &self.order.environment {
            environment.push(variable(name.clone(), value.clone())?);
        }
        environment.push(variable(
            SOCKET_VARIABLE.into(),
            SOCKET_NUMBER.to_string().into(),
        )?);
        Ok(environment)
    }

    /// Goes on without namespaces, if that is allowed and would help.
    fn refuse_namespaces(&mut self, names: &Names, error: Errno) -> Result<(), TransportError> {
        let lost = self.namespaces();
        let refusal = |error: Errno| format!("the kernel gives none: {error}");
        if lost == LayerSet::NONE
            || !matches!(
                error,
                Errno::PERM | Errno::NOSPC | Errno::USERS | Errno::INVAL | Errno::NOSYS
            )
        {
            return Err(names.failed(format!("the kernel gives no process: {error}")));
        }
        let required = lost.iter().find(|layer| {
            let sandbox = self.order.sandbox;
            sandbox.is_some_and(|sandbox| sandbox.requires(*layer))
        });
        if let Some(layer) = required {
            return Err(names.layer(layer, refusal(error)));
        }
        self.refused = Some(error);
        self.network = None;
        Ok(())
    }

    /// Lets the child go on and waits until its program runs, but not for ever: whatever holds it holds up all starts.
    fn lead(&mut self, pid: Pid, pidfd: &OwnedFd, names: &Names) -> Result<(), TransportError> {
        let until = Deadline::after(START_TIME);
        self.pipes.child = None;
        let number = pid.as_raw_pid().cast_unsigned();
        if let Some(Ok(group)) = &self.group
            && let Err(error) = group.admit(number)
        {
            // The child is there and reports the group as made; better none than one with a false report.
            return Err(names.layer(Layer::ControlGroup, error.to_string()));
        }
        if self.is_private() {
            match self.pipes.report(pidfd, &until, false) {
                Ok(Report::Private) => check_tracer(number, names)?,
                other => return Err(names.unexpected(other)),
            }
        }
        let go = self.pipes.go.take();
        let sent = go.map_or(Err(Errno::BADF), |go| {
            rustix::io::write(&go, &number.to_ne_bytes())
        });
        sent.map_err(|error| names.failed(format!("it ended at once: {error}")))?;
        match self.pipes.report(pidfd, &until, false) {
            Ok(Report::Running) if self.is_private() => check_tracer(number, names),
            Ok(Report::Running) => Ok(()),
            other => Err(names.unexpected(other)),
        }
    }
}

/// Refuses a child that another process traces, as far as `/proc` shows it: one in our own or an inner pid namespace.
///
/// From outside, because whoever traces a process decides what it sees of itself.
fn check_tracer(pid: u32, names: &Names) -> Result<(), TransportError> {
    let refused = |text: String| names.layer(Layer::NotDumpable, text);
    let status = match std::fs::read_to_string(format!("/proc/{pid}/status")) {
        Ok(status) => status,
        // Only after its program has run already, where the application lets the kernel reap all its children.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && has_proc() => return Ok(()),
        Err(error) => return Err(refused(format!("cannot see whether it is traced: {error}"))),
    };
    match tracer(&status) {
        Some(0) => Ok(()),
        Some(_) => Err(refused(
            "another process of this user traces it (a debugger?)".into(),
        )),
        None => Err(refused("/proc does not say whether it is traced".into())),
    }
}

fn has_proc() -> bool {
    std::fs::exists("/proc/self/status").unwrap_or(false)
}

/// The tracer of a process with this status; 0 is none.
fn tracer(status: &str) -> Option<u32> {
    let tracer = status
        .lines()
        .find_map(|line| line.strip_prefix("TracerPid:"))?;
    tracer.trim().parse().ok()
}

fn text(text: OsString) -> Result<CString, Errno> {
    // A zero byte inside.
    CString::new(text.into_vec()).map_err(|_| Errno::INVAL)
}

fn variable(mut name: OsString, value: OsString) -> Result<CString, Errno> {
    name.push("=");
    name.push(value);
    text(name)
}

/// How hosts of this process become users of their own. A user namespace gives the host the privileges that it needs to
/// confine itself where this process does not have them.
pub(super) fn user_plan() -> UserPlan {
    let needed = CapabilitySet::SYS_ADMIN
        | CapabilitySet::SETUID
        | CapabilitySet::SETGID
        | CapabilitySet::SETPCAP;
    let is_able =
        rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(needed));
    let has_map = |path: &str| has_host_users(&std::fs::read_to_string(path).unwrap_or_default());
    if is_able && has_map("/proc/self/uid_map") && has_map("/proc/self/gid_map") {
        UserPlan::OwnId
    } else {
        UserPlan::Namespace
    }
}

/// Whether all user ids of hosts exist in the user namespace with this map.
fn has_host_users(map: &str) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(first)), Some(Ok(_)), Some(Ok(count))) =
            (numbers.next(), numbers.next(), numbers.next())
        else {
            return false;
        };
        let end = u64::from(FIRST_HOST_USER) + u64::from(HOST_USERS);
        first <= u64::from(FIRST_HOST_USER) && first.saturating_add(count) >= end
    })
}

/// The one line of a host's user map: its root is our user, and there is nobody else.
///
/// Root, so that a dynamic program keeps the capabilities over its `exec` that it needs to confine itself. They are worth
/// nothing outside the namespace, and it gives them up before it serves.
pub(super) fn user_map() -> Vec<u8> {
    format!("0 {} 1\n", rustix::process::geteuid().as_raw()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_get_users_of_their_own_where_all_of_those_exist() {
        assert!(has_host_users("         0          0 4294967295\n"));
        assert!(!has_host_users("0 100000 65536\n"));
        assert!(has_host_users("0 0 1\n1000000000 5 1000000000\n"));
        assert!(!has_host_users("0 0\nnonsense\n"));
    }

    #[test]
    fn a_root_without_privileges_takes_a_user_namespace() {
        if user_plan() == UserPlan::Namespace {
            return;
        }
        // Capabilities are of the thread.
        let plan = std::thread::spawn(|| {
            let mut sets = rustix::thread::capabilities(None).unwrap();
            sets.effective.remove(CapabilitySet::SETGID);
            rustix::thread::set_capabilities(None, sets).unwrap();
            user_plan()
        });
        assert_eq!(plan.join().unwrap(), UserPlan::Namespace);
    }

    #[test]
    fn a_tracer_is_known_by_the_status() {
        let own = std::fs::read_to_string("/proc/self/status").unwrap();
        assert!(tracer(&own).is_some());
        assert_eq!(tracer("Name:\tx\nTracerPid:\t12\nUid:\t0\n"), Some(12));
        assert_eq!(tracer("Name:\tx\nTracerPid:\t0\n"), Some(0));
        assert_eq!(tracer("Name:\tx\n"), None);
    }
}

//! Making one host: everything is prepared, the child is born, the application learns what came of it.

use std::ffi::{CString, OsString};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, pidfd_send_signal};

use super::control_group::ControlGroup;
use super::endpoint::{
    LAYERS_VARIABLE, PID_VARIABLE, SANDBOX_VARIABLE, SOCKET_NUMBER, SOCKET_VARIABLE,
};
use super::image::HostImage;
use super::launch::HostProgram;
use super::plan::Plan;
use super::watch::{self, Belongings, HostProcess};
use crate::error::TransportError;
use crate::link::socket_pair;
use crate::sandbox::{
    Isolation, Layer, LayerSet, LayerState, Sandbox, SandboxPolicy, SandboxProfile,
};
use crate::sys::layers::{FIRST_HOST_USER, HOST_USERS, Layers, NOT_TRIED, Outcome, UserPlan};
use crate::sys::process::wait_for;
use crate::sys::spawn::{
    Birth, Blank, OUTCOME_DIGITS, PID_DIGITS, REPORT_BYTES, Report, Step, block_signals, spare,
};

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
    let mut attempt = Attempt {
        order: &order,
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
    let started = attempt.lead(pid, &names);
    let Attempt { pipes, group, .. } = attempt;
    if let Err(error) = started {
        end(pidfd);
        return Err(error);
    }
    let belongings = Belongings {
        words: pipes.words,
        note: pipes.note,
        quotas: order.sandbox.map(|sandbox| sandbox.quotas),
        group: group.and_then(Result::ok),
    };
    let again = rustix::io::fcntl_dupfd_cloexec(&pidfd, 0).map_err(spawning);
    let watched = again.and_then(|watched| watch::watch(pid, watched, belongings));
    match watched {
        Ok(process) => Ok((process, ours)),
        Err(error) => {
            end(pidfd);
            Err(names.failed(format!("it cannot be watched ({error}), so it was ended")))
        }
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
}

fn spawning(error: Errno) -> TransportError {
    TransportError::io("make a host's descriptors", error)
}

/// Both ends of what a child is given; its own ends are out of the way of the numbers that they get there.
struct Pipes {
    words: OwnedFd,
    note: OwnedFd,
    child: Option<ChildEnds>,
    go: Option<OwnedFd>,
    status: OwnedFd,
}

struct ChildEnds {
    null: OwnedFd,
    words: OwnedFd,
    note: OwnedFd,
    go: OwnedFd,
    status: OwnedFd,
}

impl Pipes {
    fn make() -> Result<Self, TransportError> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(spawning);
        let (words, words_in) = pipe()?;
        let (note, note_in) = pipe()?;
        let (go_out, go) = pipe()?;
        let (status, status_in) = pipe()?;
        // Only our ends: the host's writes to a full pipe wait as they would anywhere, we never do.
        for ours in [&words, &note] {
            rustix::fs::fcntl_setfl(ours, OFlags::NONBLOCK).map_err(spawning)?;
        }
        let null = open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| TransportError::io("open /dev/null", error))?;
        let moved = |descriptor: OwnedFd| spare(&descriptor).map_err(spawning);
        Ok(Self {
            words,
            note,
            go: Some(go),
            status,
            child: Some(ChildEnds {
                null: moved(null)?,
                words: moved(words_in)?,
                note: moved(note_in)?,
                go: moved(go_out)?,
                status: moved(status_in)?,
            }),
        })
    }
}

struct Attempt<'a> {
    order: &'a Order<'a>,
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

    /// Whether nobody may look into it from its first moment on.
    fn is_private(&self) -> bool {
        self.order.sandbox.is_some_and(|sandbox| {
            sandbox.profile == SandboxProfile::Protected && sandbox.requires(Layer::NotDumpable)
        })
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
        let is_before_exec = self.order.image.is_sealed();
        let layers = self
            .order
            .sandbox
            .map(|sandbox| Layers::prepare(sandbox, self.user, self.lost()));
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
            namespaces,
            user_map,
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
        Ok(())
    }

    /// Lets the child go on and waits until its program runs.
    fn lead(&mut self, pid: Pid, names: &Names) -> Result<(), TransportError> {
        self.pipes.child = None;
        let number = pid.as_raw_pid().cast_unsigned();
        if let Some(Ok(group)) = &self.group
            && let Err(error) = group.admit(number)
        {
            // The child is there and reports the group as made; better none than one with a false report.
            return Err(names.layer(Layer::ControlGroup, error.to_string()));
        }
        let go = self.pipes.go.take();
        let sent = go.map_or(Err(Errno::BADF), |go| {
            rustix::io::write(&go, &number.to_ne_bytes())
        });
        sent.map_err(|error| names.failed(format!("it ended at once: {error}")))?;
        match read_report(&self.pipes.status, false).map_err(spawning)? {
            Report::Running => Ok(()),
            Report::Failed(Step::Exec, error) => {
                Err(names.failed(format!("it cannot be executed: {error}")))
            }
            Report::Failed(Step::Layer(layer), error) => Err(names.layer(layer, error.to_string())),
            Report::Failed(Step::Tracer, Errno::BUSY) => {
                let text = "another process of this user traces it (a debugger?)";
                Err(names.layer(Layer::NotDumpable, text.into()))
            }
            Report::Failed(step, error) => Err(names.failed(format!("{step:?}: {error}"))),
            other => Err(names.failed(format!("it said {other:?}"))),
        }
    }
}

fn read_report(status: &OwnedFd, tries: bool) -> Result<Report, Errno> {
    let file = std::fs::File::from(status.try_clone().map_err(|_| Errno::MFILE)?);
    let mut bytes = Vec::new();
    file.take(REPORT_BYTES as u64)
        .read_to_end(&mut bytes)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(Report::decode(&bytes, tries))
}

/// Children that are gone and that somebody who traced them has not yet let go.
static HELD: Mutex<Vec<OwnedFd>> = Mutex::new(Vec::new());

/// Reaps those that have been let go.
fn reap_held() {
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    held.retain(|pidfd| matches!(wait_for(pidfd.as_fd()), Ok(None)));
}

/// Ends a child that nobody watches.
fn end(pidfd: OwnedFd) {
    // It may have ended already.
    let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    let mut polled = [rustix::event::PollFd::new(
        &pidfd,
        rustix::event::PollFlags::IN,
    )];
    let gone = rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, None));
    match gone.and_then(|_| wait_for(pidfd.as_fd())) {
        Ok(Some(_)) => {}
        Ok(None) => HELD
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(pidfd),
        Err(error) => tracing::debug!(%error, "a host that failed to start was not reaped"),
    }
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

/// How hosts of this process become users of their own.
fn user_plan() -> UserPlan {
    let is_root = rustix::process::geteuid().is_root();
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    if is_root && has_host_users(&map) {
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
fn user_map() -> Vec<u8> {
    format!("0 {} 1\n", rustix::process::geteuid().as_raw()).into_bytes()
}

/// What this machine can give: tries every layer in a child that does nothing else.
///
/// Works on any executor. A layer is missing here for the same reason for which it would be missing around a host.
///
/// # Errors
/// When no child can be made at all.
pub async fn check() -> Result<Isolation, TransportError> {
    super::launch::on_launcher(try_all).await?
}

fn try_all() -> Result<Isolation, TransportError> {
    let sandbox = Sandbox::isolated(SandboxPolicy::BestEffort);
    let user = user_plan();
    let mut isolation = Isolation::new(None, SandboxPolicy::BestEffort);
    let mut outcome = Outcome::NOTHING;
    let mut lost = LayerSet::NONE;
    for _ in 0..2 {
        let (mut pipes, (theirs, _ours)) = (Pipes::make()?, socket_pair()?);
        let theirs = spare(&theirs).map_err(spawning)?;
        let child = pipes.child.take().ok_or_else(|| spawning(Errno::BADF))?;
        let layers = Layers::prepare(&sandbox, user, lost);
        let namespaces = LayerSet::NAMESPACES.minus(lost);
        let birth = Birth {
            image: None,
            arguments: Vec::new(),
            environment: Vec::new(),
            pid: Blank::new(PID_VARIABLE, PID_DIGITS),
            outcome_text: Blank::new(LAYERS_VARIABLE, 0),
            descriptors: [
                child.null.as_fd(),
                child.words.as_fd(),
                child.words.as_fd(),
                theirs.as_fd(),
                child.note.as_fd(),
            ],
            go: child.go.as_fd(),
            status: child.status.as_fd(),
            namespaces,
            user_map: (user == UserPlan::Namespace && lost == LayerSet::NONE).then(user_map),
            is_private: false,
            layers: Some(&layers),
            outcome,
        };
        let (pid, pidfd) = match birth.give() {
            Ok(born) => born,
            Err(error) if lost == LayerSet::NONE => {
                lost = LayerSet::NAMESPACES;
                if user == UserPlan::Namespace {
                    lost = lost.with(Layer::OwnUser);
                }
                lost.iter().for_each(|layer| outcome.set(layer, Err(error)));
                continue;
            }
            Err(error) => return Err(TransportError::io("make a child process", error)),
        };
        drop(child);
        if let Some(go) = pipes.go.take() {
            let number = pid.as_raw_pid().cast_unsigned();
            // A child that is gone says nothing, which is what is reported then.
            let _ = rustix::io::write(&go, &number.to_ne_bytes());
        }
        let report = read_report(&pipes.status, true).map_err(spawning)?;
        end(pidfd);
        namespaces
            .iter()
            .for_each(|layer| outcome.set(layer, Ok(())));
        match report {
            Report::Tried(tried) => {
                let pairs = outcome.0.iter_mut().zip(tried.0);
                pairs
                    .filter(|(_, tried)| *tried != NOT_TRIED)
                    .for_each(|(known, tried)| *known = tried);
            }
            Report::Failed(Step::Layer(layer), error) => outcome.set(layer, Err(error)),
            other => {
                return Err(TransportError::io(
                    "try the sandbox",
                    format!("the child said {other:?}"),
                ));
            }
        }
        break;
    }
    match ControlGroup::make(&sandbox.quotas) {
        Ok(_removed) => outcome.set(Layer::ControlGroup, Ok(())),
        Err(error) => {
            let number = error.raw_os_error().unwrap_or(libc::EOPNOTSUPP);
            outcome.set(Layer::ControlGroup, Err(Errno::from_raw_os_error(number)));
        }
    }
    let image = HostImage::open(&HostProgram::CurrentExe)?;
    for layer in Layer::ALL {
        let state = match (layer, outcome.get(layer)) {
            (Layer::SealedImage, _) if image.is_sealed() => LayerState::InForce,
            (Layer::SealedImage, _) => {
                LayerState::Missing("this program is dynamically linked".into())
            }
            (_, 0) => LayerState::InForce,
            (_, NOT_TRIED) => LayerState::Missing("something before it failed".into()),
            (_, error) => LayerState::Missing(Errno::from_raw_os_error(error).to_string().into()),
        };
        isolation.set(layer, state);
    }
    isolation.profile = Some(if isolation.is_complete(SandboxProfile::Protected) {
        SandboxProfile::Protected
    } else {
        SandboxProfile::Isolated
    });
    Ok(isolation)
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
}

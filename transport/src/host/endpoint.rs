//! A host's own side of its start: taking over the socket that the application left it, and the rest of its sandbox.

use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::io::{Errno, FdFlags};

use super::plan::Plan;
use crate::error::TransportError;
use crate::sandbox::filter::{self, Stage};
use crate::sandbox::{Isolation, Layer, LayerSet, LayerState, SandboxPolicy, SandboxProfile};
use crate::sys::filter::put_on_all_threads;
use crate::sys::layers::{self, NOT_TRIED, Outcome};
use crate::sys::process::{forget_code, remove_variables, take_inherited};
use crate::sys::signals;
use crate::sys::spawn::OUTCOME_DIGITS;
use crate::wire::unix::check_socket;

/// The environment variable that names the inherited socket's descriptor number.
pub const SOCKET_VARIABLE: &str = "PORTCULLIS_HOST_SOCKET";
/// The host's process id as the application sees it.
pub(super) const PID_VARIABLE: &str = "PORTCULLIS_HOST_PID";
/// How the host is confined.
pub(super) const SANDBOX_VARIABLE: &str = "PORTCULLIS_HOST_SANDBOX";
/// What came of each layer before the program ran.
pub(super) const LAYERS_VARIABLE: &str = "PORTCULLIS_HOST_LAYERS";

/// The number of the socket in a host.
pub(super) const SOCKET_NUMBER: RawFd = 3;

static TAKEN: AtomicBool = AtomicBool::new(false);
static PID: AtomicU32 = AtomicU32::new(0);
static CONFINED: Mutex<Option<Confined>> = Mutex::new(None);

/// What a host was started with.
#[derive(Debug)]
pub struct HostEndpoint {
    /// The socket to the application.
    pub socket: OwnedFd,
    /// What is in force around this process, as it measured it. The filter for serving is still to come: [`serve`].
    pub isolation: Isolation,
}

/// What `serve` has still to do.
struct Confined {
    plan: Option<Plan>,
    isolation: Isolation,
    /// Kept open for the handler of signals, which writes to it by number.
    _note: Option<OwnedFd>,
}

/// In a host process, the socket to its application and what is in force; `None` in an ordinary process, and the second
/// time.
///
/// Call it first thing in `main`: while the process has one thread it removes its variables from the environment, and
/// confines a dynamically linked program, for which that could not be done before. From here on no file can be opened.
///
/// # Errors
/// When the variable is there but does not name an inherited Unix stream socket, or when a layer that is required cannot be
/// put on. Then the process must end.
pub fn endpoint() -> Result<Option<HostEndpoint>, TransportError> {
    let Some(value) = std::env::var_os(SOCKET_VARIABLE) else {
        return Ok(None);
    };
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(None);
    }
    let number = value.to_str().and_then(|text| text.parse::<RawFd>().ok());
    let socket = number.and_then(take_inherited).ok_or_else(|| {
        TransportError::io(
            SOCKET_VARIABLE,
            format!("{} is not an inherited descriptor", value.to_string_lossy()),
        )
    })?;
    check_socket(socket.as_fd())?;
    rustix::io::fcntl_setfd(&socket, FdFlags::CLOEXEC)
        .map_err(|error| TransportError::io("keep the link from further programs", error))?;
    let note = take_inherited(signals::NOTE_DESCRIPTOR);
    signals::install().map_err(|error| TransportError::io("handle signals", error))?;
    let pid = read_pid();
    PID.store(pid, Ordering::Relaxed);
    let plan = read_plan()?;
    let outcome = read_outcome();
    let variables = [
        SOCKET_VARIABLE,
        PID_VARIABLE,
        SANDBOX_VARIABLE,
        LAYERS_VARIABLE,
    ];
    let is_alone = remove_variables(&variables);
    if !is_alone {
        tracing::debug!(
            "{SOCKET_VARIABLE} stays in the environment: the process has other threads already"
        );
    }
    let isolation = confine(plan.as_ref(), pid, outcome, is_alone)?;
    *confined() = Some(Confined {
        plan,
        isolation: isolation.clone(),
        _note: note,
    });
    Ok(Some(HostEndpoint { socket, isolation }))
}

/// In a confined host, puts the filter for serving on all its threads. Call it when the runtime's threads are there and
/// before anything comes from the application; answers what is in force now.
///
/// Without a sandbox, and in an ordinary process, it only answers.
///
/// # Errors
/// When the filter is required and cannot be put on. Then the process must end.
pub fn serve() -> Result<Isolation, TransportError> {
    let mut confined = confined();
    let Some(Confined {
        plan, isolation, ..
    }) = confined.as_mut()
    else {
        return Ok(Isolation::new(None, SandboxPolicy::BestEffort));
    };
    if let Some(plan) = plan {
        put_filter(plan, Stage::Serve, isolation)?;
    }
    Ok(isolation.clone())
}

/// Gives back the memory into which only the start of a host has brought something: the pages of code that it ran. What is
/// needed again comes back from the program's file. Does nothing in an ordinary process.
pub fn settle() {
    if confined().is_some() {
        forget_code();
    }
}

/// This process's id as the application sees it: in a pid namespace of its own a host sees itself as number one.
pub fn pid() -> u32 {
    match PID.load(Ordering::Relaxed) {
        0 => std::process::id(),
        pid => pid,
    }
}

/// Whether this process was started as a host and has not taken its endpoint: starting hosts from here would go on for ever.
pub(super) fn is_untaken_host() -> bool {
    !TAKEN.load(Ordering::SeqCst) && std::env::var_os(SOCKET_VARIABLE).is_some()
}

fn confined() -> std::sync::MutexGuard<'static, Option<Confined>> {
    CONFINED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn read_pid() -> u32 {
    let pid = variable(PID_VARIABLE).and_then(|pid| pid.parse().ok());
    pid.unwrap_or_else(std::process::id)
}

fn read_plan() -> Result<Option<Plan>, TransportError> {
    let Some(text) = variable(SANDBOX_VARIABLE) else {
        return Ok(None);
    };
    match Plan::decode(&text) {
        Some(plan) => Ok(Some(plan)),
        None => Err(TransportError::io(
            SANDBOX_VARIABLE,
            format!("{text} is not a plan; are application and host of one version?"),
        )),
    }
}

fn read_outcome() -> Outcome {
    let mut outcome = Outcome::NOTHING;
    let text = variable(LAYERS_VARIABLE).unwrap_or_default();
    let digits = text.as_bytes().chunks_exact(OUTCOME_DIGITS);
    for (place, digits) in outcome.0.iter_mut().zip(digits) {
        let number = std::str::from_utf8(digits)
            .ok()
            .and_then(|digits| u16::from_str_radix(digits, 16).ok());
        *place = match number {
            Some(u16::MAX) | None => NOT_TRIED,
            Some(number) => number.into(),
        };
    }
    outcome
}

fn confine(
    plan: Option<&Plan>,
    pid: u32,
    mut outcome: Outcome,
    is_alone: bool,
) -> Result<Isolation, TransportError> {
    let Some(plan) = plan else {
        let mut isolation = Isolation::new(None, SandboxPolicy::BestEffort);
        for layer in [Layer::Descriptors, Layer::DeathSignal] {
            isolation.set(layer, LayerState::InForce);
        }
        return Ok(isolation);
    };
    let sandbox = plan.sandbox();
    // Other threads keep what they are: a layer of one thread is none while they can be made to do what it cannot.
    let is_late = !plan.is_put && !is_alone;
    let late = Layer::ALL
        .into_iter()
        .filter(|layer| is_late && layers::is_of_a_thread(*layer, plan.user));
    let late: LayerSet = late.collect();
    if let Some(layer) = late.iter().find(|layer| sandbox.requires(*layer)) {
        return Err(missing(layer, OTHER_THREADS.into()));
    }
    if !plan.is_put {
        let put = plan.prepare().apply(pid, &mut outcome);
        put.map_err(|(layer, error)| missing(layer, error.to_string()))?;
    }
    // A new program is dumpable, unless its file is unreadable. A sealed image is; but another process of the user may
    // have made it readable, by way of the descriptor in the application, and then may have looked into this one.
    if plan.profile == SandboxProfile::Protected
        && sandbox.requires(Layer::NotDumpable)
        && layers::is_dumpable()
    {
        let text = "its program was readable, so another process may have looked into it already";
        return Err(missing(Layer::NotDumpable, text.into()));
    }
    if plan.layers.contains(Layer::NotDumpable) {
        outcome.set(Layer::NotDumpable, layers::deny_dumps());
    }
    if plan.layers.contains(Layer::DeathSignal) {
        outcome.set(Layer::DeathSignal, layers::die_with_parent());
    }
    if let Err(error) = rustix::thread::set_name(c"portcullis-host") {
        tracing::debug!(%error, "the process keeps its name");
    }
    let mut isolation = Isolation::new(Some(plan.profile), plan.policy);
    let layers = plan.prepare();
    for layer in plan.layers.iter() {
        let is_in_force = layers.measure(layer, pid);
        isolation.set(layer, state(layer, outcome.get(layer), is_in_force));
    }
    for layer in late.iter().filter(|layer| plan.layers.contains(*layer)) {
        isolation.set(layer, LayerState::Missing(OTHER_THREADS.into()));
    }
    if isolation.has(Layer::Landlock) {
        isolation.set_abi(Layer::Landlock, layers.landlock_abi());
    }
    put_filter(plan, Stage::Start, &mut isolation)?;
    let required = isolation
        .missing()
        .find(|(layer, _)| *layer != Layer::ServingFilter && sandbox.requires(*layer));
    match required {
        Some((layer, why)) => Err(missing(layer, why.to_owned())),
        None => Ok(isolation),
    }
}

const OTHER_THREADS: &str = "another thread runs already, around which it would not be; call host::init first thing in main";

/// What failed is not in force, whatever else looks so; beyond that what is in force counts, not what was tried; where the
/// host cannot see, what the kernel answered.
fn state(layer: Layer, outcome: i32, is_in_force: Option<bool>) -> LayerState {
    match (outcome, is_in_force) {
        (0 | NOT_TRIED, Some(true)) | (0, None) => LayerState::InForce,
        (0, Some(false)) => LayerState::Missing("it was put on and is not in force".into()),
        (NOT_TRIED, _) if layer == Layer::SealedImage => {
            LayerState::Missing("the program is executed from its file".into())
        }
        (NOT_TRIED, _) if layer == Layer::ServingFilter => {
            LayerState::Missing("it comes when the host serves".into())
        }
        (NOT_TRIED, _) => LayerState::Missing("something that it needs is missing".into()),
        (error, _) => LayerState::Missing(Errno::from_raw_os_error(error).to_string().into()),
    }
}

fn put_filter(plan: &Plan, stage: Stage, isolation: &mut Isolation) -> Result<(), TransportError> {
    let layer = match stage {
        Stage::Start => Layer::StartFilter,
        Stage::Serve => Layer::ServingFilter,
    };
    if !plan.layers.contains(layer) || isolation.has(layer) {
        return Ok(());
    }
    let put = filter::program(plan.profile, stage).and_then(|program| {
        // Without it, and without capabilities, the kernel takes no filter; it may be asked for no other layer.
        rustix::thread::set_no_new_privs(true)
            .and_then(|()| put_on_all_threads(&program))
            .map_err(|error| TransportError::io("put a filter on", error))
    });
    match put {
        Ok(()) => isolation.set(layer, LayerState::InForce),
        Err(error) if plan.sandbox().requires(layer) => {
            return Err(missing(layer, error.to_string()));
        }
        Err(error) => isolation.set(layer, LayerState::Missing(error.to_string().into())),
    }
    Ok(())
}

fn missing(layer: Layer, text: String) -> TransportError {
    TransportError::Sandbox {
        program: "this program".into(),
        layer,
        text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_not_in_force() {
        let layer = Layer::Capabilities;
        let failed = state(layer, libc::EPERM, Some(true));
        assert!(matches!(failed, LayerState::Missing(_)), "{failed:?}");
        assert_eq!(state(layer, 0, Some(true)), LayerState::InForce);
        assert_eq!(state(layer, 0, None), LayerState::InForce);
        assert_eq!(state(layer, NOT_TRIED, Some(true)), LayerState::InForce);
        for (outcome, is_in_force) in [
            (0, Some(false)),
            (NOT_TRIED, None),
            (NOT_TRIED, Some(false)),
        ] {
            let state = state(layer, outcome, is_in_force);
            assert!(matches!(state, LayerState::Missing(_)), "{state:?}");
        }
    }
}

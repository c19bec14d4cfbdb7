//! What of a sandbox this machine can give.

use std::os::fd::AsFd;

use rustix::io::Errno;

use super::birth::{START_TIME, spawning, user_map, user_plan};
use super::control_group::ControlGroup;
use super::endpoint::{LAYERS_VARIABLE, PID_VARIABLE};
use super::image::{HostImage, ImageSource};
use super::launch::HostProgram;
use super::pipes::{Deadline, Pipes, end};
use crate::error::TransportError;
use crate::link::socket_pair;
use crate::sandbox::{
    Isolation, Layer, LayerSet, LayerState, Sandbox, SandboxPolicy, SandboxProfile,
};
use crate::sys::landlock::DenyAll;
use crate::sys::layers::{Layers, NOT_TRIED, Outcome, UserPlan};
use crate::sys::spawn::{Birth, Blank, PID_DIGITS, Report, Step, spare};

/// What this machine can give: tries every layer in a child that does nothing else.
///
/// Works on any executor. A layer is missing here for the same reason for which it would be missing around a host.
///
/// # Errors
/// When no child can be made at all.
pub async fn check() -> Result<Isolation, TransportError> {
    let image = HostImage::prepare(HostProgram::CurrentExe, ImageSource::SealedCopy).await?;
    super::launch::on_launcher(move || try_all(&image)).await?
}

fn try_all(image: &HostImage) -> Result<Isolation, TransportError> {
    let sandbox = Sandbox::isolated(SandboxPolicy::BestEffort);
    let user = user_plan();
    let mut isolation = Isolation::new(None, SandboxPolicy::BestEffort);
    let mut outcome = Outcome::NOTHING;
    let mut lost = LayerSet::NONE;
    for _ in 0..2 {
        let (mut pipes, (theirs, _ours)) = (Pipes::make()?, socket_pair()?);
        let theirs = spare(&theirs).map_err(spawning)?;
        let child = pipes.child.take().ok_or_else(|| spawning(Errno::BADF))?;
        let layers = Layers::prepare(&sandbox, user, lost, None);
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
            parents_ends: pipes.parents_ends(),
            namespaces,
            network: None,
            user_map: (user == UserPlan::Namespace && lost == LayerSet::NONE).then(user_map),
            doors: &[],
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
        let number = pid.as_raw_pid().cast_unsigned();
        if let Some(go) = pipes.go.take() {
            // A child that is gone says nothing, which is what is reported then.
            let _ = rustix::io::write(&go, &number.to_ne_bytes());
        }
        let report = pipes.report(&pidfd, &Deadline::after(START_TIME), true);
        end(pidfd, None);
        let report = report.map_err(|error| TransportError::io("try the sandbox", error))?;
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
    if isolation.has(Layer::Landlock) {
        let abi = DenyAll::of_this_kernel()
            .ok()
            .map(|landlock| landlock.abi());
        isolation.set_abi(Layer::Landlock, abi);
    }
    isolation.profile = Some(if isolation.is_complete(SandboxProfile::Protected) {
        SandboxProfile::Protected
    } else {
        SandboxProfile::Isolated
    });
    Ok(isolation)
}

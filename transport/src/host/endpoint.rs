//! A host's own side of its start: taking over the socket that the application left it.

use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::FdFlags;

use crate::error::TransportError;
use crate::sys::process::{remove_variable, take_inherited};
use crate::wire::unix::check_socket;

/// The environment variable that names the inherited socket's descriptor number.
pub const SOCKET_VARIABLE: &str = "PORTCULLIS_HOST_SOCKET";

static TAKEN: AtomicBool = AtomicBool::new(false);

/// In a host process, the socket to its application; `None` in an ordinary process, and the second time.
///
/// Call it first thing in `main`: while the process has one thread it also removes the variable from the environment.
///
/// # Errors
/// When the variable is there but does not name an inherited Unix stream socket.
pub fn endpoint() -> Result<Option<OwnedFd>, TransportError> {
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
    if !remove_variable(SOCKET_VARIABLE) {
        tracing::debug!(
            "{SOCKET_VARIABLE} stays in the environment: the process has other threads already"
        );
    }
    Ok(Some(socket))
}

/// Whether this process was started as a host and has not taken its endpoint: starting hosts from here would go on for ever.
pub(super) fn is_untaken_host() -> bool {
    !TAKEN.load(Ordering::SeqCst) && std::env::var_os(SOCKET_VARIABLE).is_some()
}

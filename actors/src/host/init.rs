//! The host's own side: one call first thing in `main`.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix_rt::System;
use futures::FutureExt;
use portcullis_engine::media::AllocationRequirements;
use portcullis_engine::{Error, ErrorKind, Result, SampleAllocator, SampleBuffer};
use portcullis_transport::{
    Carrier, Endpoint, Isolation, LinkConfig, LinkLimits, Spin, TransportError, host,
};

use super::PmpHostActor;
use super::program::start_error;
use crate::bridge::{AnyHandle, InterfaceTable, Link, SlotAllocator};
use crate::registry::Registry;

/// Exit code of a host that could not serve: EX_SOFTWARE of sysexits.
const HOST_FAILED: i32 = 70;

static INITIALISED: AtomicBool = AtomicBool::new(false);

/// Makes this program able to be its own host. Call it first thing in `main`, before any thread.
///
/// In an ordinary process it returns at once. In a process that was started as a host it serves the application that
/// started it and never returns: the process ends when the application goes.
pub fn init(registry: Registry) {
    let table = crate::pipeline::interface_table().and(registry.interfaces());
    serve_if_host(table, move |host| {
        let memory = Arc::clone(&host.memory) as Arc<dyn SampleAllocator>;
        PmpHostActor::create(Arc::new(registry), memory, Some(host.isolation)).into_any()
    });
}

/// What a host's first actor is made with.
pub(super) struct Making {
    memory: Arc<LateAllocator>,
    isolation: Isolation,
}

/// In a host, serves the actor that `make` gives and never returns.
pub(super) fn serve_if_host(table: InterfaceTable, make: impl FnOnce(Making) -> AnyHandle) {
    INITIALISED.store(true, Ordering::Relaxed);
    let socket = match host::endpoint() {
        Ok(None) => return,
        Ok(Some(endpoint)) => endpoint.socket,
        Err(error) => fail(&error.to_string()),
    };
    // The application chooses: a host is ready for all that there is.
    let config = LinkConfig {
        carrier: Carrier::Rings,
        spin: Spin::Adaptive,
        ..LinkConfig::default()
    };
    match serve(Endpoint::unix(socket).config(config), &table, make) {
        Ok(()) => std::process::exit(0),
        Err(error) => fail(&error.to_string()),
    }
}

/// Whether `init` was called here: whether this program can be its own host.
pub(super) fn is_initialised() -> bool {
    INITIALISED.load(Ordering::Relaxed)
}

fn fail(why: &str) -> ! {
    // The application keeps a host's last words.
    eprintln!("portcullis host: {why}");
    std::process::exit(HOST_FAILED)
}

fn serve(
    endpoint: Endpoint,
    table: &InterfaceTable,
    make: impl FnOnce(Making) -> AnyHandle,
) -> Result<()> {
    System::new().block_on(async move {
        // Everything of the runtime is there, and nothing has come from the application yet.
        let isolation = host::serve().map_err(start_error)?;
        let memory = Arc::new(LateAllocator::default());
        let root = make(Making {
            memory: Arc::clone(&memory),
            isolation,
        });
        let link = Link::builder()
            .as_host()
            // The application decides: it starts the host, and what it lets in is its own memory too.
            .limits(LinkLimits::MOST)
            .interfaces(table)
            .any_root(Some(root))
            .diagnose(Box::new(|end| {
                std::future::ready(why_ended(&end)).boxed_local()
            }))
            .connect(endpoint)
            .await?;
        memory.set(link.allocator());
        let end = link.lost().wait().await;
        match end.kind() {
            ErrorKind::Cancelled => Ok(()),
            _ => Err(end),
        }
    })
}

/// Why the application's link has ended: that it went is nothing to tell, anything else is a host's last words.
fn why_ended(end: &TransportError) -> Error {
    match end {
        TransportError::Closed => Error::cancelled(),
        fault => Error::new(ErrorKind::Protocol(fault.to_string().into())),
    }
}

/// The link's memory, which exists only once the link does.
#[derive(Debug, Default)]
pub(super) struct LateAllocator(std::sync::OnceLock<Arc<SlotAllocator>>);

impl LateAllocator {
    fn set(&self, memory: Arc<SlotAllocator>) {
        // Set once, before the first frame is read.
        let _ = self.0.set(memory);
    }
}

impl SampleAllocator for LateAllocator {
    fn allocate(&self, len: usize) -> SampleBuffer {
        match self.0.get() {
            Some(memory) => memory.allocate(len),
            None => SampleBuffer::heap(len),
        }
    }

    fn allocate_as(&self, len: usize, asked: AllocationRequirements) -> SampleBuffer {
        match self.0.get() {
            Some(memory) => memory.allocate_as(len, asked),
            None => SampleBuffer::heap(len),
        }
    }

    fn agree(&self, asked: AllocationRequirements) -> Result<()> {
        self.0.get().map_or(Ok(()), |memory| memory.agree(asked))
    }

    fn has_room(&self, len: usize) -> bool {
        self.0.get().is_none_or(|memory| memory.has_room(len))
    }

    fn room(&self, len: usize) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        match self.0.get() {
            Some(memory) => memory.room(len),
            None => Box::pin(std::future::ready(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_tells_why_it_ended_unless_the_application_went() {
        let went = why_ended(&TransportError::Closed);
        assert_eq!(went.kind(), &ErrorKind::Cancelled);
        let fault = why_ended(&TransportError::protocol("a lie"));
        assert!(fault.to_string().contains("a lie"), "{fault}");
    }
}

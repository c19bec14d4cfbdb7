//! A handle to an actor, wherever it lives, and a call through it.

use std::any::type_name;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use actix::dev::RecipientRequest;
use actix::{Actor, Addr};
use portcullis_engine::{Error, ErrorKind, Result};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::sync::Notify;

use super::context;
use super::delivery;
use super::interface::{Has, Interface, ServedBy};
use super::life::Life;
use super::link::WireHandle;
use super::mailbox::Mailbox;
use super::proxy::Proxy;
use super::recipient::{Slot, mailbox_error};
use super::remote::Remote;
use super::scope;
use super::watch::Watch;

/// A handle to an actor that answers the interface `I`. Cheap to clone; `Send`; works from any thread and executor.
///
/// The actor stops when its last handle, in whatever process, is dropped.
pub struct Handle<I: Interface> {
    shared: Arc<Shared>,
    interface: PhantomData<fn() -> I>,
}

/// What all clones of a handle share.
pub(crate) struct Shared {
    /// Tells actors of this process apart; never on the wire.
    pub(crate) object: u64,
    pub(crate) interface: u32,
    /// The mailbox, message by message; of an actor elsewhere once its interface is known here.
    slots: OnceLock<Vec<Slot>>,
    mailbox: Option<Mailbox>,
    /// Where the actor lives, if not here.
    pub(crate) home: Option<Home>,
    /// Whether the actor lives.
    pub(crate) life: Arc<Life>,
}

/// The link that leads to an actor and the actor's id on it.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) proxy: Addr<Proxy>,
    pub(crate) link: u64,
    pub(crate) id: u32,
    pub(crate) generation: u32,
    /// Wakes the link to look for callers that have gone.
    pub(crate) sweep: Arc<Notify>,
}

static OBJECTS: AtomicU64 = AtomicU64::new(1);

impl Shared {
    fn local(interface: u32, slots: Vec<Slot>, mailbox: Mailbox, life: Arc<Life>) -> Arc<Self> {
        Arc::new(Self {
            object: OBJECTS.fetch_add(1, Ordering::Relaxed),
            interface,
            slots: OnceLock::from(slots),
            mailbox: Some(mailbox),
            home: None,
            life,
        })
    }

    /// An actor elsewhere of which only the interface's id is known.
    pub(crate) fn remote(interface: u32, home: Home, life: Arc<Life>) -> Arc<Self> {
        Arc::new(Self {
            object: OBJECTS.fetch_add(1, Ordering::Relaxed),
            interface,
            slots: OnceLock::new(),
            mailbox: None,
            home: Some(home),
            life,
        })
    }

    /// The mailbox, message by message; empty where the interface is not known.
    pub(crate) fn slots(&self) -> &[Slot] {
        self.slots.get().map_or(&[], Vec::as_slice)
    }

    /// How many messages its actor has begun to answer, at least; `None` where none ever waits in the mailbox.
    pub(crate) fn begun(&self) -> Option<u64> {
        self.mailbox.map(Mailbox::begun)
    }

    /// Whether the interface is known here: only then others can be served through this process.
    pub(crate) fn is_known(&self) -> bool {
        self.slots.get().is_some()
    }

    /// From now on the interface is known here. The caller has compared its id.
    fn know<I: Interface>(&self) {
        if let Some(home) = &self.home {
            self.slots
                .get_or_init(|| <I as ServedBy<Proxy>>::slots(&home.proxy));
        }
    }
}

impl<I: Interface> Handle<I> {
    /// Starts an actor on this thread's arbiter and gives the handle to it.
    ///
    /// # Panics
    /// On a thread without an actix arbiter, as `Actor::start` does: use [`runtime::run`](crate::runtime::run) there.
    pub fn start<A>(actor: A) -> Self
    where
        A: Actor<Context = context::Context<A>>,
        I: ServedBy<A>,
    {
        Self::new(&context::Context::start(actor))
    }

    /// A handle to an actor of this process.
    ///
    /// The actor may run in any context. One that runs in actix's own tells nobody of its end, which a
    /// [`watch`](Self::watch) then notices up to a second late; its panic is an `ActorStopped` without a reason, and its
    /// handlers do not run within the span of the message. [`bridge::Context`](super::Context) does all of that.
    pub fn new<A>(address: &Addr<A>) -> Self
    where
        A: Actor,
        I: ServedBy<A>,
    {
        let slots = I::slots(address);
        let life = Life::of(address).unwrap_or_else(|| match slots.first() {
            Some(slot) => Life::asked(slot.is_connected()),
            None => Life::new(),
        });
        let mailbox = Mailbox::of(address);
        Self::from_shared(Shared::local(I::ID, slots, mailbox, life))
    }

    /// The caller has compared the interface.
    pub(crate) fn from_shared(shared: Arc<Shared>) -> Self {
        shared.know::<I>();
        Self {
            shared,
            interface: PhantomData,
        }
    }

    /// Sends a message. It is in the actor's mailbox, in the order of sending, when this returns; the future gives the
    /// answer. Dropping the future cancels.
    ///
    /// # Errors
    /// The actor's own, or `Cancelled`, `DeadlineExceeded`, `ActorStopped`, `HostLost`, `Protocol`.
    pub fn send<M: Remote>(&self, message: M) -> Call<M>
    where
        I: Has<M>,
    {
        let request = self
            .shared
            .slots()
            .get(I::INDEX)
            .and_then(Slot::recipient::<M>)
            .map(|recipient| delivery::send(recipient, message));
        Call {
            request,
            sweep: SweepOnDrop(
                self.shared
                    .home
                    .as_ref()
                    .map(|home| Arc::clone(&home.sweep)),
            ),
        }
    }

    /// Sends a message whose answer nobody waits for. For control only, never for samples: the mailbox's limit does not hold.
    pub fn tell<M: Remote>(&self, message: M)
    where
        I: Has<M>,
    {
        if let Some(recipient) = self
            .shared
            .slots()
            .get(I::INDEX)
            .and_then(Slot::recipient::<M>)
        {
            recipient.do_send(message);
        }
    }

    /// Whether the actor lives in another process.
    pub fn is_remote(&self) -> bool {
        self.shared.home.is_some()
    }

    /// Whether the actor lives, as far as this process has heard.
    pub fn is_alive(&self) -> bool {
        self.shared.life.now().is_none()
    }

    /// Resolves when the actor has ended, and says why; see [`Watch`].
    pub fn watch(&self) -> Watch {
        Watch::new(Arc::clone(&self.shared.life))
    }

    /// The handle with its interface forgotten.
    pub fn into_any(self) -> AnyHandle {
        AnyHandle(self.shared)
    }
}

impl<I: Interface> Clone for Handle<I> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            interface: PhantomData,
        }
    }
}

impl<I: Interface> PartialEq for Handle<I> {
    /// Whether both are clones of one handle, or came over one link as handles to one actor. Two handles that were made
    /// of one address are different.
    fn eq(&self, other: &Self) -> bool {
        self.shared.object == other.shared.object
    }
}

impl<I: Interface> fmt::Debug for Handle<I> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Handle<{}>({})", I::NAME, self.shared.object)?;
        match &self.shared.home {
            Some(home) => write!(out, " over link {}", home.link),
            None => Ok(()),
        }
    }
}

impl<I: Interface> Serialize for Handle<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(&self.shared, serializer)
    }
}

impl<'de, I: Interface> Deserialize<'de> for Handle<I> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = WireHandle::deserialize(deserializer)?;
        if wire.interface != I::ID {
            let why = format!("a handle that is not a {}", I::NAME);
            return Err(scope::refuse(why, D::Error::custom));
        }
        deserialize::<D::Error>(wire).map(Self::from_shared)
    }
}

/// A handle whose interface is known only at run time, such as that of an object created by class id.
#[derive(Clone)]
pub struct AnyHandle(Arc<Shared>);

impl AnyHandle {
    /// The handle of an interface.
    ///
    /// # Errors
    /// `InvalidRequest` if the actor answers another interface.
    pub fn typed<I: Interface>(self) -> Result<Handle<I>> {
        if self.0.interface != I::ID {
            return Err(Error::invalid_request(format!(
                "the object is not a {}",
                I::NAME
            )));
        }
        Ok(Handle::from_shared(self.0))
    }

    /// Whether the actor lives, as far as this process has heard.
    pub fn is_alive(&self) -> bool {
        self.0.life.now().is_none()
    }

    /// Resolves when the actor has ended, and says why; see [`Watch`].
    pub fn watch(&self) -> Watch {
        Watch::new(Arc::clone(&self.0.life))
    }

    pub(crate) fn from_shared(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.0
    }

    pub(crate) fn into_shared(self) -> Arc<Shared> {
        self.0
    }
}

impl fmt::Debug for AnyHandle {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "AnyHandle({})", self.0.object)
    }
}

impl Serialize for AnyHandle {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for AnyHandle {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = WireHandle::deserialize(deserializer)?;
        deserialize::<D::Error>(wire).map(Self)
    }
}

fn serialize<S: Serializer>(shared: &Arc<Shared>, serializer: S) -> Result<S::Ok, S::Error> {
    let link = scope::current().ok_or_else(|| S::Error::custom("a handle outside of a link"))?;
    link.export(shared)
        .map_err(|why| scope::refuse(why, S::Error::custom))?
        .serialize(serializer)
}

fn deserialize<E: serde::de::Error>(wire: WireHandle) -> Result<Arc<Shared>, E> {
    let link = scope::current().ok_or_else(|| E::custom("a handle outside of a link"))?;
    link.import(wire)
        .map_err(|why| scope::refuse(why, E::custom))
}

pin_project_lite::pin_project! {
    /// A request that was sent. Resolves to its answer; dropping it cancels the request, on the other side too.
    #[must_use = "dropping a call cancels it"]
    pub struct Call<M: Remote> {
        // Declared before `sweep`: the link must look for gone callers after this one has gone.
        #[pin]
        request: Option<RecipientRequest<M>>,
        sweep: SweepOnDrop,
    }
}

impl<M: Remote> Future for Call<M> {
    type Output = Result<M::Reply>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(request) = this.request.as_mut().as_pin_mut() else {
            return Poll::Ready(Err(Error::new(ErrorKind::ActorStopped)));
        };
        let answer = ready!(request.poll(cx));
        this.request.set(None);
        this.sweep.0 = None;
        Poll::Ready(answer.unwrap_or_else(|error| Err(mailbox_error(error, M::NAME))))
    }
}

impl<M: Remote> fmt::Debug for Call<M> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Call<{}>", type_name::<M>())
    }
}

struct SweepOnDrop(Option<Arc<Notify>>);

impl Drop for SweepOnDrop {
    fn drop(&mut self) {
        if let Some(sweep) = self.0.take() {
            sweep.notify_one();
        }
    }
}

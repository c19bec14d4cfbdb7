//! A handle to an actor, wherever it lives, and a call through it.

use std::any::type_name;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use actix::dev::RecipientRequest;
use actix::{Actor, Addr};
use portcullis_engine::{Error, ErrorKind, Result};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::time::Instant;

use super::call::{Call, CallState};
use super::context;
use super::delivery;
use super::gate::{self, Class, Gate, PATIENT_WINDOW, Permit};
use super::interface::{Has, Interface, ServedBy};
use super::life::{self, Life};
use super::link::{Caller, LinkCore, Way, WireHandle};
use super::mailbox::Mailbox;
use super::proxy::{Crossing, Proxy};
use super::recipient::Slot;
use super::remote::{Remote, deadline_of};
use super::scope;
use super::trace::TraceContext;
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
    /// The places on the way to it.
    gate: Arc<Gate>,
}

/// The link that leads to an actor and the actor's id on it.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) proxy: Addr<Proxy>,
    pub(crate) link: u64,
    pub(crate) id: u32,
    pub(crate) generation: u32,
    /// Where the link is found on its own thread.
    pub(crate) place: usize,
}

static OBJECTS: AtomicU64 = AtomicU64::new(1);

impl Shared {
    fn local(
        interface: u32,
        slots: Vec<Slot>,
        mailbox: Mailbox,
        life: Arc<Life>,
        window: u32,
    ) -> Arc<Self> {
        Arc::new(Self {
            gate: Gate::new(window, PATIENT_WINDOW, None),
            object: OBJECTS.fetch_add(1, Ordering::Relaxed),
            interface,
            slots: OnceLock::from(slots),
            mailbox: Some(mailbox),
            home: None,
            life,
        })
    }

    /// An actor elsewhere of which only the interface's id is known.
    pub(crate) fn remote(
        interface: u32,
        home: Home,
        life: Arc<Life>,
        gate: Arc<Gate>,
    ) -> Arc<Self> {
        Arc::new(Self {
            gate,
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

    /// How many messages its actor has taken out of its mailbox; `None` where none ever waits in one. Of an actor in a context
    /// of actix's own it is a guess.
    pub(crate) fn read(&self) -> Option<u64> {
        let mailbox = self.mailbox?;
        Some(match self.is_ours() {
            true => self.life.read(),
            false => mailbox.read(),
        })
    }

    /// Whether the interface is known here: only then others can be served through this process.
    pub(crate) fn is_known(&self) -> bool {
        self.slots.get().is_some()
    }

    /// From now on the interface is known here. The caller has compared its id.
    fn know<I: Interface>(&self) {
        if self.home.is_some() {
            self.slots.get_or_init(I::elsewhere);
        }
    }

    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Whether the actor runs in a context of ours.
    pub(crate) fn is_ours(&self) -> bool {
        !self.life.is_asked()
    }

    /// Sends a message, or has it wait for its place.
    pub(crate) fn send<M: Remote>(self: &Arc<Self>, message: M) -> Call<M> {
        match self.gate.enter(Class::of::<M>()) {
            Some(permit) => self.send_now(message, permit, true),
            None => {
                let deadline = self.home.as_ref().and_then(|_| deadline_of::<M>());
                Call::waits(message, self, deadline)
            }
        }
    }

    /// Sends a message that has its place. The place is given back when an actor of this process takes the message out of
    /// its mailbox; unless `until_read`, when it has answered.
    fn send_now<M: Remote>(
        self: &Arc<Self>,
        message: M,
        permit: Permit,
        until_read: bool,
    ) -> Call<M> {
        if self.home.is_some() {
            let (call, caller) = Call::away(&self.gate);
            self.cross(message, permit, None, &caller);
            return call;
        }
        let (goes, stays) = match until_read {
            true => (Some(permit), None),
            false => (None, Some(permit)),
        };
        match self.deliver(message, goes) {
            // Where places are scarce they come back without anybody looking after the call.
            Some((request, Some(back))) if self.gate.is_scarce(Class::of::<M>()) => {
                let (call, state) = Call::away(&self.gate);
                state.arrive(request, Some(back));
                call
            }
            Some((request, back)) => Call::here(request, stays.or(back)),
            None => Call::over(),
        }
    }

    /// The turn of a message has come that has waited for its place.
    pub(crate) fn go<M: Remote>(
        self: &Arc<Self>,
        message: M,
        permit: Permit,
        deadline: Option<Instant>,
        caller: &Arc<CallState<M>>,
    ) {
        if self.home.is_some() {
            return self.cross(message, permit, deadline, caller);
        }
        match self.deliver(message, Some(permit)) {
            Some((request, back)) => caller.arrive(request, back),
            None => caller.fail(Error::new(ErrorKind::ActorStopped)),
        }
    }

    /// Puts a message into the mailbox of an actor of this process.
    fn deliver<M: Remote>(
        &self,
        message: M,
        permit: Option<Permit>,
    ) -> Option<(RecipientRequest<M>, Option<Permit>)> {
        let mut slots = self.slots().iter();
        let slot = slots.find(|slot| slot.method() == M::ID)?;
        let recipient = slot.recipient::<M>()?;
        Some(delivery::send(recipient, self.is_ours(), message, permit))
    }

    /// Hands a message to the link.
    fn cross<M: Remote>(
        &self,
        message: M,
        permit: Permit,
        deadline: Option<Instant>,
        caller: &Arc<CallState<M>>,
    ) {
        let Some(home) = &self.home else {
            return caller.fail(Error::new(ErrorKind::ActorStopped));
        };
        let trace = TraceContext::current();
        // On the link's own thread it needs no mailbox, unless one that was sent before is still in it.
        let is_first = permit.gate().mailed.load(Ordering::Acquire) == 0;
        let link = is_first
            .then(|| LinkCore::here(home.place, home.link))
            .flatten()
            .filter(|link| link.takes_calls());
        if let Some(link) = link {
            if let Some(end) = self.life.told_end() {
                return caller.fail(life::later(end));
            }
            let way = Way {
                permit,
                deadline,
                trace,
            };
            let object = (home.id, home.generation);
            let caller = Arc::clone(caller);
            return link.call(object, message, caller, way, || home.proxy.clone());
        }
        let gate = Arc::clone(permit.gate());
        gate.mailed.fetch_add(1, Ordering::AcqRel);
        home.proxy.do_send(Crossing {
            message: Some((message, permit)),
            gate,
            caller: Arc::clone(caller),
            // The way there is part of the wait.
            deadline: deadline.or_else(deadline_of::<M>),
            trace,
        });
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
        Self::with_window(address, gate::default_window())
    }

    /// [`new`](Self::new) with so many messages on their way from this process to the actor at once.
    pub fn with_window<A>(address: &Addr<A>, window: u32) -> Self
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
        Self::from_shared(Shared::local(I::ID, slots, mailbox, life, window))
    }

    /// The caller has compared the interface.
    pub(crate) fn from_shared(shared: Arc<Shared>) -> Self {
        shared.know::<I>();
        Self {
            shared,
            interface: PhantomData,
        }
    }

    /// Sends a message; the future gives the answer. Dropping the future cancels.
    ///
    /// While there is room on the way to the actor (64 messages, unless agreed otherwise; requests that wait by design have
    /// room of their own) the message has been sent when this returns. Without room it waits in the future that this
    /// returns and goes when its turn comes, in the order of sending, also if that future is not polled just then; its
    /// deadline counts. An actor of this process makes room by taking a message out of its mailbox (one that runs in actix's
    /// own context, when the call has ended), one of another process by answering it.
    ///
    /// # Errors
    /// The actor's own, or `Cancelled`, `DeadlineExceeded`, `ActorStopped`, `HostLost`, `Protocol`.
    pub fn send<M: Remote>(&self, message: M) -> Call<M>
    where
        I: Has<M>,
    {
        self.shared.send(message)
    }

    /// Sends a message whose answer nobody waits for. While there is room on the way to the actor it goes at once; without,
    /// it stands in line by itself, if no more stand there so than there is room for.
    ///
    /// # Errors
    /// The message comes back where too many stand in line already: [`send`](Self::send) waits in its future.
    pub fn tell<M: Remote>(&self, message: M) -> Result<(), NoRoom<M>>
    where
        I: Has<M>,
    {
        match self.shared.gate.enter(Class::of::<M>()) {
            Some(permit) => self.shared.send_now(message, permit, false).go_on(None),
            None => match self.shared.gate.stand_alone() {
                Some(alone) => self.shared.send(message).go_on(Some(alone)),
                None => return Err(NoRoom(message)),
            },
        }
        Ok(())
    }

    /// [`tell`](Self::tell) for what must arrive: where too many stand in line it waits in a task of this thread's arbiter.
    ///
    /// # Panics
    /// In that case, on a thread without an actix arbiter.
    pub fn tell_in_time<M: Remote>(&self, message: M)
    where
        I: Has<M>,
    {
        if let Err(NoRoom(message)) = self.tell(message) {
            let call = self.send(message);
            actix_rt::spawn(async move {
                if let Err(error) = call.await {
                    tracing::debug!(%error, what = M::NAME, "a message without a caller failed");
                }
            });
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

/// There was no room on the way to the actor: the message comes back.
pub struct NoRoom<M>(pub M);

impl<M> fmt::Debug for NoRoom<M> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "NoRoom<{}>", type_name::<M>())
    }
}

impl<M> fmt::Display for NoRoom<M> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "no room for {} on the way to its actor",
            type_name::<M>()
        )
    }
}

impl<M> std::error::Error for NoRoom<M> {}

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

    pub(crate) fn shared_arc(&self) -> &Arc<Shared> {
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

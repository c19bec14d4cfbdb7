//! A call through a handle: from the moment it is made until its caller has the answer, or has gone.

use std::any::type_name;
use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};

use actix::MailboxError;
use actix::dev::RecipientRequest;
use pin_project_lite::pin_project;
use portcullis_engine::{Error, ErrorKind, Result};
use tokio::time::Instant;

use super::gate::{Alone, Class, Gate, Permit, Waiter};
use super::handle::Shared;
use super::link::Caller;
use super::recipient::mailbox_error;
use super::remote::Remote;
use super::scope;
use crate::panics;

pin_project! {
    /// A call under way. Dropping it cancels the request, also in another process.
    #[must_use = "dropping a call cancels it"]
    pub struct Call<M: Remote> {
        #[pin]
        stage: Stage<M>,
    }
}

pin_project! {
    #[project = StageProjection]
    enum Stage<M: Remote> {
        /// In the mailbox of an actor here.
        Here {
            #[pin]
            request: RecipientRequest<M>,
            permit: Option<Permit>,
        },
        /// Waits for its place, or is at a link.
        Away { away: Away<M> },
        Over,
    }
}

/// The caller's end of a call that is not in a mailbox.
struct Away<M: Remote> {
    state: Arc<CallState<M>>,
    gate: Arc<Gate>,
    /// Its number in the line.
    ticket: Option<u64>,
}

/// What the caller shares with those who bring its message on its way and its answer back: the one allocation of a call.
pub(crate) struct CallState<M: Remote>(Mutex<Inner<M>>);

struct Inner<M: Remote> {
    step: Step<M>,
    waker: Option<Waker>,
}

enum Step<M: Remote> {
    /// There was no place.
    Waits {
        message: M,
        via: Arc<Shared>,
        deadline: Option<Instant>,
    },
    /// On its way, or at the link.
    Goes,
    /// In the mailbox of an actor here, which wakes this.
    Arrived {
        request: Pin<Box<RecipientRequest<M>>>,
        /// Given back when this is dropped.
        _permit: Option<Permit>,
    },
    Answered(Result<M::Reply>),
    /// The caller has gone, or has its answer.
    Gone,
}

impl<M: Remote> Call<M> {
    /// A request that is in the mailbox of an actor of this process.
    pub(super) fn here(request: RecipientRequest<M>, permit: Option<Permit>) -> Self {
        let stage = Stage::Here { request, permit };
        Self { stage }
    }

    /// A call whose message is at a link or in a mailbox, or will be, and what is to be told of it.
    pub(super) fn away(gate: &Arc<Gate>) -> (Self, Arc<CallState<M>>) {
        let state = CallState::new(Step::Goes);
        let away = Away {
            state: Arc::clone(&state),
            gate: Arc::clone(gate),
            ticket: None,
        };
        let stage = Stage::Away { away };
        (Self { stage }, state)
    }

    /// A call whose message waits for its place.
    pub(super) fn waits(message: M, via: &Arc<Shared>, deadline: Option<Instant>) -> Self {
        let state = CallState::new(Step::Waits {
            message,
            via: Arc::clone(via),
            deadline,
        });
        let gate = Arc::clone(via.gate());
        let ticket = gate.wait(Arc::clone(&state) as Arc<dyn Waiter>);
        let away = Away {
            state,
            gate,
            ticket: Some(ticket),
        };
        let stage = Stage::Away { away };
        Self { stage }
    }

    /// A call that gets `ActorStopped`.
    pub(super) fn over() -> Self {
        Self { stage: Stage::Over }
    }

    /// Goes on by itself; nobody waits for the answer.
    pub(super) fn go_on(self, alone: Option<Alone>) {
        Told::go_on(&Arc::new(Told {
            call: Mutex::new(Some(Box::pin(self))),
            again: AtomicBool::new(false),
            _alone: alone,
        }));
    }
}

impl<M: Remote> Future for Call<M> {
    type Output = Result<M::Reply>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut stage = self.project().stage;
        let answer = match stage.as_mut().project() {
            StageProjection::Here { request, .. } => answer_of::<M>(ready!(request.poll(cx))),
            StageProjection::Away { away } => ready!(away.state.poll(cx)),
            StageProjection::Over => Err(Error::new(ErrorKind::ActorStopped)),
        };
        stage.set(Stage::Over);
        Poll::Ready(answer)
    }
}

impl<M: Remote> fmt::Debug for Call<M> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Call<{}>", type_name::<M>())
    }
}

impl<M: Remote> Drop for Away<M> {
    fn drop(&mut self) {
        // Unlocked before anything else: the line has a lock of its own, under which it looks at the calls in it; and those
        // that go now are written by their own code.
        let step = mem::replace(&mut self.state.lock().step, Step::Gone);
        match step {
            Step::Waits { .. } => {
                if let Some(ticket) = self.ticket {
                    self.gate.leave(ticket);
                }
            }
            // The link finds out.
            Step::Goes => self.gate.sweep(),
            Step::Arrived { .. } | Step::Answered(_) | Step::Gone => {}
        }
    }
}

fn answer_of<M: Remote>(answer: Result<M::Result, MailboxError>) -> Result<M::Reply> {
    answer.unwrap_or_else(|error| Err(mailbox_error(error, M::NAME)))
}

impl<M: Remote> CallState<M> {
    fn new(step: Step<M>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Inner { step, waker: None })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner<M>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<M::Reply>> {
        let mut inner = self.lock();
        if matches!(inner.step, Step::Answered(_) | Step::Gone) {
            return Poll::Ready(match mem::replace(&mut inner.step, Step::Gone) {
                Step::Answered(answer) => answer,
                _ => Err(Error::new(ErrorKind::ActorStopped)),
            });
        }
        match &mut inner.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// The message has arrived in the mailbox of an actor here. Its place is free again when it is answered, whether the
    /// caller looks or not.
    pub(super) fn arrive(self: &Arc<Self>, request: RecipientRequest<M>, permit: Option<Permit>) {
        let mut inner = self.lock();
        if !matches!(inner.step, Step::Goes) {
            // Dropped unlocked.
            drop(inner);
            return;
        }
        inner.step = Step::Arrived {
            request: Box::pin(request),
            _permit: permit.map(Permit::for_later),
        };
        drop(inner);
        self.look();
    }

    /// Looks for the answer of an actor here.
    fn look(self: &Arc<Self>) {
        let this = Waker::from(Arc::clone(self));
        let mut inner = self.lock();
        let Step::Arrived { request, .. } = &mut inner.step else {
            return;
        };
        // Without constraint: it would be told that nothing is there by being woken here and now.
        let mut request = pin!(tokio::task::unconstrained(request.as_mut()));
        let Poll::Ready(answer) = request.as_mut().poll(&mut Context::from_waker(&this)) else {
            return;
        };
        let answered = Step::Answered(answer_of::<M>(answer));
        let arrived = mem::replace(&mut inner.step, answered);
        let waker = inner.waker.take();
        drop(inner);
        drop(arrived);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Goes on from `Goes`; where the caller has gone, what comes is dropped.
    fn step_on(&self, step: Step<M>) {
        let waker = {
            let mut inner = self.lock();
            if !matches!(inner.step, Step::Goes) {
                drop(inner);
                return;
            }
            inner.step = step;
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<M: Remote> Wake for CallState<M> {
    fn wake(self: Arc<Self>) {
        self.look();
    }
}

impl<M: Remote> Waiter for CallState<M> {
    fn class(&self) -> Class {
        Class::of::<M>()
    }

    fn deadline(&self) -> Option<Instant> {
        match &self.lock().step {
            Step::Waits { deadline, .. } => *deadline,
            _ => None,
        }
    }

    fn go(self: Arc<Self>, permit: Permit) {
        let step = {
            let mut inner = self.lock();
            match inner.step {
                Step::Waits { .. } => mem::replace(&mut inner.step, Step::Goes),
                _ => return,
            }
        };
        if let Step::Waits {
            message,
            via,
            deadline,
        } = step
        {
            // What it sets off is not the caller's alone: a panic in it is the end of this call, and of nothing else.
            let went = panics::catch(|| via.go(message, permit, deadline, &self));
            if let Err(panic) = went {
                self.fail(panic);
            }
        }
    }

    fn expire(&self) {
        let waited = {
            let mut inner = self.lock();
            match inner.step {
                Step::Waits { .. } => mem::replace(&mut inner.step, Step::Goes),
                _ => return,
            }
        };
        let what = M::NAME.into();
        self.fail(Error::new(ErrorKind::DeadlineExceeded { what }));
        drop(waited);
    }
}

impl<M: Remote> Caller for CallState<M> {
    fn has_gone(&self) -> bool {
        matches!(self.lock().step, Step::Gone)
    }

    fn answer(&self, body: &[u8]) -> Result<()> {
        let answer = scope::read(body).map_err(|why| {
            let why = format!("reply of {}: {why}", M::NAME);
            Error::new(ErrorKind::Protocol(why.into()))
        });
        let fault = answer.as_ref().err().cloned();
        // A caller that has gone needs no answer; what the reply holds is released by its drop.
        self.step_on(Step::Answered(answer));
        fault.map_or(Ok(()), Err)
    }

    fn fail(&self, error: Error) {
        self.step_on(Step::Answered(Err(error)));
    }
}

/// A call that drives itself: whoever wakes it polls it.
struct Told<M: Remote> {
    call: Mutex<Option<Pin<Box<Call<M>>>>>,
    again: AtomicBool,
    _alone: Option<Alone>,
}

impl<M: Remote> Told<M> {
    fn go_on(self: &Arc<Self>) {
        let waker = Waker::from(Arc::clone(self));
        self.again.store(true, Ordering::SeqCst);
        while self.again.load(Ordering::SeqCst) {
            let call = self.call().take();
            let Some(mut call) = call else {
                // Somebody is at it, and sees that it is to be done again.
                return;
            };
            self.again.store(false, Ordering::SeqCst);
            match call.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Pending => *self.call() = Some(call),
                Poll::Ready(Ok(_)) => return,
                Poll::Ready(Err(error)) => {
                    tracing::debug!(%error, what = M::NAME, "a message without a caller failed");
                    return;
                }
            }
        }
    }

    fn call(&self) -> MutexGuard<'_, Option<Pin<Box<Call<M>>>>> {
        self.call.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: Remote> Wake for Told<M> {
    fn wake(self: Arc<Self>) {
        self.go_on();
    }
}

#[cfg(test)]
mod tests {
    use std::mem::ManuallyDrop;
    use std::sync::mpsc;
    use std::time::Duration;

    use actix::Handler;
    use portcullis_derive::Remote;
    use serde::{Deserialize, Serialize};

    use super::super::gate::Lines;
    use super::super::handle::Handle;
    use super::*;

    crate::interface! { Quiet = "test.Quiet" { Hush } }

    #[derive(Serialize, Deserialize, Remote)]
    struct Hush;

    struct QuietActor;

    impl actix::Actor for QuietActor {
        type Context = super::super::Context<Self>;
    }

    impl Handler<Hush> for QuietActor {
        type Result = Result<()>;
        fn handle(&mut self, _: Hush, _: &mut Self::Context) -> Self::Result {
            Ok(())
        }
    }

    fn waiting(gate: &Arc<Gate>, via: &Arc<Shared>, deadline: Instant) -> Away<Hush> {
        let state = CallState::new(Step::Waits {
            message: Hush,
            via: Arc::clone(via),
            deadline: Some(deadline),
        });
        let ticket = gate.wait(Arc::clone(&state) as Arc<dyn Waiter>);
        Away {
            state,
            gate: Arc::clone(gate),
            ticket: Some(ticket),
        }
    }

    #[test]
    fn calls_that_wait_are_dropped_while_a_link_looks_after_their_deadlines() {
        const THREADS: usize = 3;
        const ROUNDS: usize = 20_000;
        let lines = Lines::new(Arc::default());
        let gate = Gate::new(1, 1, Some(Arc::clone(&lines)));
        let quiet = actix_rt::System::new()
            .block_on(async { Handle::<Quiet>::start(QuietActor) })
            .into_any();
        // Where threads wait for each other, giving it back would wait too.
        let held = ManuallyDrop::new(gate.enter(Class::Prompt).expect("free"));
        let (done, wait) = mpsc::channel();
        let is_done = Arc::new(AtomicBool::new(false));
        let now = Instant::now();
        for _ in 0..THREADS {
            let (gate, via) = (Arc::clone(&gate), Arc::clone(quiet.shared_arc()));
            let done = done.clone();
            std::thread::spawn(move || {
                for _ in 0..ROUNDS {
                    // One of them is late: all have to be looked at.
                    let calls = [0, 60, 60].map(|secs| {
                        let deadline = now + Duration::from_secs(secs);
                        waiting(&gate, &via, deadline)
                    });
                    drop(calls);
                }
                done.send(()).expect("is waited for");
            });
        }
        let is_over = Arc::clone(&is_done);
        std::thread::spawn(move || {
            while !is_over.load(Ordering::SeqCst) {
                lines.expire(now);
            }
            done.send(()).expect("is waited for");
        });
        for thread in 0..=THREADS {
            is_done.store(thread == THREADS, Ordering::SeqCst);
            let ended = wait.recv_timeout(Duration::from_secs(20));
            ended.expect("nobody waits for another");
        }
        drop(ManuallyDrop::into_inner(held));
        assert_eq!(format!("{gate:?}"), "Gate([1, 1] free)");
    }
}

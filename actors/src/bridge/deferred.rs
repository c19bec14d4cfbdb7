//! A handler's answer that another handler, or a later turn of the same actor, gives.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use actix::dev::{MessageResponse, OneshotSender};
use actix::{Actor, AsyncContext, Message};
use portcullis_engine::{Error, Result};

use super::mailbox;

/// An answer that its `Answerer` gives. It costs no task and no channel of its own: the caller's own channel waits.
pub struct Deferred<T>(Rc<RefCell<State<T>>>);

/// Gives the answer of one request. Dropped without an answer, the caller gets `ActorStopped`.
pub(crate) struct Answerer<T>(Rc<RefCell<State<T>>>);

enum State<T> {
    /// The handler has not returned yet.
    New,
    /// Answered before the handler returned.
    Answered(Result<T>),
    Waiting(Option<OneshotSender<Result<T>>>),
}

pub(crate) fn deferred<T>() -> (Answerer<T>, Deferred<T>) {
    let state = Rc::new(RefCell::new(State::New));
    (Answerer(Rc::clone(&state)), Deferred(state))
}

impl<T> Deferred<T> {
    /// An answer that is there.
    pub(crate) fn ready(answer: Result<T>) -> Self {
        Self(Rc::new(RefCell::new(State::Answered(answer))))
    }
}

impl<T> Answerer<T> {
    /// Whether nobody waits any more.
    pub(crate) fn has_gone(&self) -> bool {
        match &*self.0.borrow() {
            State::Waiting(Some(caller)) => caller.is_closed(),
            State::Waiting(None) => true,
            State::New | State::Answered(_) => false,
        }
    }

    /// Answers; gives the answer back if nobody waits for it.
    pub(crate) fn answer(self, answer: T) -> Result<(), T> {
        match self.0.replace(State::Answered(Err(Error::cancelled()))) {
            State::Waiting(Some(caller)) => match caller.send(Ok(answer)) {
                Err(Ok(unheard)) => Err(unheard),
                _ => Ok(()),
            },
            State::Waiting(None) => Err(answer),
            State::New | State::Answered(_) => {
                self.0.replace(State::Answered(Ok(answer)));
                Ok(())
            }
        }
    }

    /// Answers with an error.
    pub(crate) fn fail(self, error: Error) {
        match self.0.replace(State::Answered(Err(error.clone()))) {
            // The caller may have gone.
            State::Waiting(Some(caller)) => drop(caller.send(Err(error))),
            State::Waiting(None) | State::New | State::Answered(_) => {}
        }
    }
}

impl<T> fmt::Debug for Answerer<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Answerer")
    }
}

impl<T> fmt::Debug for Deferred<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Deferred")
    }
}

impl<A, M, T> MessageResponse<A, M> for Deferred<T>
where
    A: Actor,
    A::Context: AsyncContext<A>,
    M: Message<Result = Result<T>>,
    T: 'static,
{
    fn handle(self, ctx: &mut A::Context, caller: Option<OneshotSender<M::Result>>) {
        mailbox::note_read(|| ctx.address());
        match self.0.replace(State::Waiting(None)) {
            // The caller may have gone in this very moment.
            State::Answered(answer) => drop(caller.map(|caller| caller.send(answer))),
            State::New | State::Waiting(_) => {
                self.0.replace(State::Waiting(caller));
            }
        }
    }
}

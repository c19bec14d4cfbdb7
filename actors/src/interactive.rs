//! Components that have messages of their own.

use std::fmt;
use std::sync::Arc;

use actix::{Actor, Handler};
use portcullis_engine::component::Component;
use portcullis_engine::{Error, Result};
use tokio::sync::Semaphore;

use crate::bridge::{Context, Handle, Interface, Remote, ReplyFuture, ServedBy};
use crate::worker::{QUEUE, Worker};

/// A component with messages of its own.
///
/// Declare the messages with `#[derive(Remote)]`, list them with [`interface!`](crate::interface), and implement
/// [`Receive`] for each. A handle to the interface answers them wherever the component runs; a message takes effect between
/// two jobs of the component, so at a sample boundary. For events of its own, let a message hand the component a handle of
/// an interface that the application serves.
pub trait Interactive: Component + Send {
    /// The component's messages.
    type Interface: Interface + ServedBy<ControlActor<Self>>;
}

/// Answers one of the component's own messages, on the thread that the component runs on.
pub trait Receive<M: Remote> {
    /// Handles the message.
    fn receive(&mut self, message: M) -> Result<M::Reply>;
}

/// Messages that are on their way to a component at a time; the others wait, so that the pipeline's own jobs always have
/// room in the component's queue.
const UNDER_WAY: usize = QUEUE / 2;

/// Takes a component's own messages to where the component runs, in their order.
pub struct ControlActor<C: 'static> {
    worker: Worker<C>,
    room: Arc<Semaphore>,
}

impl<C: Interactive> ControlActor<C> {
    pub(crate) fn create(worker: Worker<C>) -> Handle<C::Interface>
    where
        C: Unpin,
    {
        let room = Arc::new(Semaphore::new(UNDER_WAY));
        Handle::start(Self { worker, room })
    }
}

impl<C> fmt::Debug for ControlActor<C> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ControlActor")
    }
}

impl<C> Unpin for ControlActor<C> {}

impl<C: 'static> Actor for ControlActor<C> {
    type Context = Context<Self>;
}

impl<C: Receive<M> + 'static, M: Remote> Handler<M> for ControlActor<C> {
    type Result = ReplyFuture<M::Reply>;

    fn handle(&mut self, message: M, _: &mut Self::Context) -> Self::Result {
        let room = Arc::clone(&self.room);
        let worker = self.worker.clone();
        ReplyFuture::new(async move {
            let turn = room.acquire_owned().await.map_err(|_| Error::cancelled())?;
            let job = worker.call(move |component| {
                // Kept until the message is handled, even if its sender does not wait for that.
                let _turn = turn;
                component.receive(message)
            });
            job.await
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use portcullis_derive::Remote;
    use portcullis_engine::{ComponentInfo, ErrorKind};
    use serde::{Deserialize, Serialize};

    use super::*;

    crate::interface! {
        /// Controls a knob.
        pub(crate) Knob = "test.Knob" { Turn }
    }

    /// Turns the knob.
    #[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
    #[remote(reply = u64)]
    pub(crate) struct Turn;

    /// Counts turns; each waits until it is let.
    struct Knobbed {
        let_go: Receiver<()>,
        turns: u64,
    }

    impl Component for Knobbed {
        type Settings = ();
        const INFO: ComponentInfo = ComponentInfo::source("test.knobbed", "Has a knob");
        fn new((): ()) -> Result<Self> {
            Err(ErrorKind::EndOfStream.into())
        }
    }

    impl Interactive for Knobbed {
        type Interface = Knob;
    }

    impl Receive<Turn> for Knobbed {
        fn receive(&mut self, _: Turn) -> Result<u64> {
            // At the end nobody lets go any more.
            let _ = self.let_go.recv();
            self.turns += 1;
            Ok(self.turns)
        }
    }

    #[test]
    fn any_number_of_messages_leaves_room_for_the_pipelines_own_jobs() {
        actix_rt::System::new().block_on(async {
            let (go, let_go): (Sender<()>, _) = channel();
            let build = move || Ok(Knobbed { let_go, turns: 0 });
            let worker = Worker::spawn("test", build).await.expect("builds");
            let knob = ControlActor::create(worker.clone());
            let mut turns: Vec<_> = (0..200).map(|_| knob.send(Turn)).collect();
            // Some of them nobody waits for.
            let forgotten = turns.split_off(100);
            for _ in 0..500 {
                tokio::task::yield_now().await;
            }
            drop(forgotten);
            let own: Vec<_> = (0..QUEUE - UNDER_WAY)
                .map(|_| worker.call(|knobbed| Ok(knobbed.turns)))
                .collect();
            drop(go);
            for own in futures::future::join_all(own).await {
                own.expect("had room");
            }
            let turned = futures::future::join_all(turns).await;
            let turned: Result<Vec<_>> = turned.into_iter().collect();
            assert_eq!(
                turned.expect("all are handled"),
                (1..=100).collect::<Vec<_>>()
            );
        });
    }
}

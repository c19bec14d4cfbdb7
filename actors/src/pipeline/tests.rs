//! Nodes alone, between a scripted neighbour and a hand on their controls.

mod sinks;
mod sources;
mod transforms;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use actix::{Actor, Handler};
use portcullis_engine::clock::{ClockSnapshot, ClockState};
use portcullis_engine::{Error, MediaTime, Result, Sample};

use super::port::{
    AllocationRequirements, Asker, Credit, Disconnect, Epoch, FlowItem, Port, Pull, Pulled,
    Require, asker,
};
use crate::bridge::{Context, Deferred, Handle};
use crate::pipeline::input::Upstream;
use crate::system_time;

fn run(test: impl Future<Output = ()> + 'static) {
    actix_rt::System::new().block_on(async {
        tokio::time::timeout(Duration::from_secs(20), test)
            .await
            .expect("within the deadline");
    });
}

/// Lets everything that can go on now go on.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

fn sample(millis: i64) -> Sample {
    let time = MediaTime::from_millis(millis);
    Sample::new(time, MediaTime::from_millis(1), vec![7; 10])
}

fn item(millis: i64) -> FlowItem {
    FlowItem::Sample(sample(millis))
}

fn credit(max_samples: u32, epoch: u64) -> Credit {
    Credit {
        max_samples,
        max_bytes: 1 << 20,
        epoch: Epoch(epoch),
    }
}

fn pull(max_samples: u32, epoch: u64) -> Pull {
    Pull {
        output: 0,
        credit: credit(max_samples, epoch),
    }
}

/// A clock that has run from media time zero until now.
fn clock() -> ClockSnapshot {
    ClockSnapshot {
        state: ClockState::Running,
        media: MediaTime::ZERO,
        system: system_time::now(),
        ..ClockSnapshot::default()
    }
}

/// A neighbour that answers what it is told to, whatever it is asked.
#[derive(Clone, Default)]
struct Script(Rc<RefCell<Scripted>>);

#[derive(Default)]
struct Scripted {
    answers: VecDeque<Result<Pulled>>,
    asked: Vec<Credit>,
    disconnects: Vec<Epoch>,
    required: Vec<AllocationRequirements>,
    waiting: VecDeque<Asker>,
}

impl Script {
    fn upstream(&self) -> Upstream {
        let address = Context::start(ScriptedPort(self.clone()));
        Upstream {
            port: Handle::<Port>::new(&address),
            output: 0,
        }
    }

    fn say(&self, epoch: u64, items: Vec<FlowItem>) {
        let epoch = Epoch(epoch);
        self.answer(Ok(Pulled { items, epoch }));
    }

    fn answer(&self, answer: Result<Pulled>) {
        let mut script = self.0.borrow_mut();
        while let Some(asker) = script.waiting.pop_front() {
            if !asker.has_gone() {
                return give(asker, answer);
            }
        }
        script.answers.push_back(answer);
    }

    /// What was asked, and how many still wait.
    fn asked(&self) -> (Vec<Credit>, usize) {
        let script = self.0.borrow();
        let waiting = script.waiting.iter().filter(|asker| !asker.has_gone());
        (script.asked.clone(), waiting.count())
    }
}

fn give(asker: Asker, answer: Result<Pulled>) {
    match answer {
        Ok(pulled) => drop(asker.answer(pulled)),
        Err(error) => asker.fail(error),
    }
}

struct ScriptedPort(Script);

impl Actor for ScriptedPort {
    type Context = Context<Self>;
}

impl Handler<Pull> for ScriptedPort {
    type Result = Deferred<Pulled>;

    fn handle(&mut self, pull: Pull, _: &mut Self::Context) -> Self::Result {
        let mut script = self.0.0.borrow_mut();
        script.asked.push(pull.credit);
        let (asker, answer) = asker();
        match script.answers.pop_front() {
            Some(ready) => give(asker, ready),
            None => script.waiting.push_back(asker),
        }
        answer
    }
}

impl Handler<Require> for ScriptedPort {
    type Result = Result<()>;

    fn handle(&mut self, message: Require, _: &mut Self::Context) -> Self::Result {
        self.0.0.borrow_mut().required.push(message.memory);
        Ok(())
    }
}

impl Handler<Disconnect> for ScriptedPort {
    type Result = Result<()>;

    fn handle(&mut self, message: Disconnect, _: &mut Self::Context) -> Self::Result {
        self.0.0.borrow_mut().disconnects.push(message.epoch);
        Ok(())
    }
}

fn lost() -> Error {
    Error::new(portcullis_engine::ErrorKind::HostLost(Default::default()))
}

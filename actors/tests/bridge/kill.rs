//! A host that is killed at every frame of an exchange: whatever was asked of it ends, and says how it ended.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{LocalBoxFuture, join_all};
use portcullis_actors::bridge::{Endpoint, Handle, Link};
use portcullis_actors::runtime;
use portcullis_engine::{Error, Result};
use portcullis_transport::{
    Hello, HostCommand, HostProcess, HostProgram, LinkLimits, LinkReceiver, LinkSender,
};

use crate::claims::within_deadline;
use crate::lab::{
    AskKept, Begin, Call, Fetch, Keep, Kept, Lab, LabActor, Stop, Wait, WaitOnKept, Whose,
};

pub(crate) fn claims(run: &mut impl FnMut(&str, fn())) {
    run(
        "every_future_ends_when_the_host_is_killed_at_any_frame",
        every_future_ends_when_the_host_is_killed_at_any_frame,
    );
}

/// The frames of both directions pass here one by one, until the host is killed in front of one.
struct Gate {
    passed: Cell<usize>,
    kill_at: usize,
    host: Arc<HostProcess>,
}

fn every_future_ends_when_the_host_is_killed_at_any_frame() {
    within_deadline(async {
        // How many frames an exchange has differs a little from one to the next.
        let (mut at, mut whole) = (0, 0);
        while whole < 2 {
            let exchange = runtime::run(move || exchange(at));
            let was_killed = exchange
                .await
                .unwrap_or_else(|error| panic!("{at}: {error}"));
            whole = if was_killed { 0 } else { whole + 1 };
            at += 1;
        }
        // Hello is no frame; the tables, the calls, their answers, segments, cancels, releases and the death are.
        assert!(at > 30, "{at} frames");
    });
}

/// Plays the script over a link whose host is killed in front of frame `kill_at`; whether it came so far.
async fn exchange(kill_at: usize) -> Result<bool> {
    let command = HostCommand::new(HostProgram::CurrentExe);
    let (host, socket) = command.spawn().await.map_err(refused)?;
    let host = Arc::new(host);
    let (near, before) = Endpoint::unix_pair().map_err(refused)?;
    let near = Link::builder()
        .to_host(&host)
        .interface::<Lab>()
        .connect(near);
    let gate = Rc::new(Gate {
        passed: Cell::new(0),
        kill_at,
        host: Arc::clone(&host),
    });
    let passing = async {
        let before = raw(before, 1, 0).await?;
        let behind = raw(Endpoint::unix(socket), 0, before.agreed.host_id).await?;
        for writer in [before.writer, behind.writer] {
            actix_rt::spawn(async move {
                // Whatever ends it, the receivers see it too.
                let _ = writer.await;
            });
        }
        pass(&gate, before.receiver, behind.sender);
        pass(&gate, behind.receiver, before.sender);
        Ok::<_, Error>(())
    };
    // The link may be lost before it is one.
    let (near, passing) = futures::join!(near, passing);
    passing?;
    let outcomes = match near {
        Ok(near) => script(&near).await,
        Err(error) => vec![Err(error)],
    };
    let was_killed = gate.passed.get() >= kill_at;
    for (step, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Ok(()) => {}
            Err(error) => {
                let exit = error.host_exit();
                assert!(was_killed, "{kill_at}, {step}: {error}");
                assert_eq!(
                    exit.and_then(|exit| exit.signal),
                    Some(9),
                    "{kill_at}, {step}: {error}"
                );
            }
        }
    }
    Ok(was_killed)
}

/// Everything that crosses a link. Each outcome is `Ok` or how the host was lost.
async fn script(link: &Link) -> Vec<Result<()>> {
    let root = match link.root::<Lab>() {
        Ok(root) => root,
        Err(error) => return vec![Err(error)],
    };
    let own = Handle::<Lab>::start(LabActor::default());
    let mut outcomes = Vec::new();
    // These are under way all the time, and end by themselves only with the host.
    let mut pending: Vec<LocalBoxFuture<'_, Result<()>>> = vec![
        root.send(Wait).boxed_local(),
        root.watch().map(Err).boxed_local(),
        root.send(Wait).boxed_local(),
    ];
    let steps = async {
        root.send(Whose).await?;
        let kept = vec![Some(HashMap::from([("own".into(), own)]))];
        root.send(Keep(kept)).await?;
        root.send(AskKept).await?;
        root.send(Call(None)).await?;
        let sample = root.send(Fetch(100_000)).await?;
        drop(sample);
        let waits = root.send(WaitOnKept);
        let other = root.send(Begin).await?;
        drop(waits);
        let watch = other.watch();
        other.send(Stop).await?;
        let end = watch.await;
        if end.host_exit().is_some() {
            return Err(end);
        }
        drop(other);
        drop(root.send(Kept).await?);
        root.send(Whose).await
    };
    let steps = steps.await;
    let was_lost = steps.is_err();
    outcomes.push(steps.map(drop));
    if was_lost {
        outcomes.extend(join_all(pending).await);
        // And all that comes later, at once.
        outcomes.push(root.send(Whose).await.map(drop));
        assert!(!root.is_alive());
    } else {
        pending.retain_mut(|future| future.now_or_never().is_some());
        assert!(pending.is_empty(), "the host stands");
    }
    outcomes
}

/// Passes frames on, one by one.
fn pass(gate: &Rc<Gate>, mut from: LinkReceiver, to: LinkSender) {
    let gate = Rc::clone(gate);
    actix_rt::spawn(async move {
        let mut frames = Vec::new();
        while from.receive(&mut frames).await.is_ok() {
            for frame in frames.drain(..) {
                if gate.passed.get() == gate.kill_at {
                    gate.host.kill();
                    return to.close();
                }
                gate.passed.set(gate.passed.get() + 1);
                let descriptors = frame.descriptors.into_iter();
                let descriptors = descriptors.map(|descriptor| descriptor.into_owned());
                let body: &[u8] = &frame.body;
                if to
                    .push(frame.header, &[body], descriptors.collect())
                    .is_err()
                {
                    return;
                }
            }
        }
        to.close();
    });
}

/// A peer of which only the frames are ours.
async fn raw(
    endpoint: Endpoint,
    host_id: u64,
    names_peer: u64,
) -> Result<portcullis_transport::Link> {
    let hello = Hello {
        limits: LinkLimits {
            max_frame: 16 << 20,
            ..LinkLimits::default()
        },
        host_id,
        names_peer,
        ..Hello::default()
    };
    endpoint.connect(hello).await.map_err(refused)
}

fn refused(error: impl std::fmt::Display) -> Error {
    Error::invalid_request(error.to_string())
}

//! A whole link against a peer that follows any script: what the fuzz target `bridge_link` runs.
//!
//! The script is the input, byte by byte. On this side it calls the peer, gives up, hands handles over and drops them, as an
//! application may; on the other it pushes frames that are honest, damaged, repeated or made up. Whatever it says, nothing
//! panics, every call ends, and when the link has ended its tables are empty and every actor has stopped.

mod peer;
mod script;
mod toy;

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use actix_rt::SystemRunner;
use futures::FutureExt;
use portcullis_engine::{MediaTime, Sample};
use portcullis_transport::{Endpoint, LinkLimits};

use self::peer::RawPeer;
use self::script::Script;
use self::toy::{Echo, Many, Show, Stop, Swap, Toy, ToyActor, Wait};
use super::link::Census;
use super::{Call, Handle, InterfaceTable, Link, Remote};

/// No script lasts so long: one that does hangs.
const DEADLINE: Duration = Duration::from_secs(10);
/// Calls of this side that are pending at a time.
const MOST_PENDING: usize = 32;
/// Handles that this side keeps.
const MOST_KEPT: usize = 16;

/// What a call leaves: a handle, perhaps.
type Pending = (
    &'static str,
    Pin<Box<dyn Future<Output = Option<Handle<Toy>>>>>,
);

/// Plays the script `data`.
///
/// # Panics
/// Where a promise of the link is broken.
pub fn run(data: &[u8]) {
    thread_local! {
        // One for all inputs, never dropped: a system must not go while its thread's values do.
        static SYSTEM: &'static SystemRunner = Box::leak(Box::new(actix_rt::System::new()));
    }
    SYSTEM.with(|system| system.block_on(play(Script::new(data))));
}

/// Small ones, so that a script reaches them.
fn limits(script: &mut Script<'_>) -> LinkLimits {
    let windows = match script.byte() % 3 {
        0 => 1,
        1 => 2,
        _ => 6,
    };
    LinkLimits {
        max_frame: 16 << 10,
        max_objects: 8,
        call_window: windows,
        object_window: windows,
        byte_window: 8 << 10,
        pool_mebibytes: 1,
        max_descriptors: 2,
    }
}

async fn play(mut script: Script<'_>) {
    let alive = ToyActor::alive();
    let flags = script.byte();
    let (near, far) = match flags & 1 {
        0 => Endpoint::memory_pair(64 << 10),
        _ => Endpoint::unix_pair().expect("a socket pair"),
    };
    let limits = limits(&mut script);
    let table = match flags & 6 {
        // Other interfaces: both sides have to tell them.
        6 => 0,
        _ => InterfaceTable::new().with::<Toy>().hash(),
    };
    let root = Handle::<Toy>::start(ToyActor::new());
    let connects = Link::builder().limits(limits).root(root).connect(near);
    let peer = async {
        let mut peer = RawPeer::connect(far, limits, table).await;
        if let Some(peer) = peer.as_mut().filter(|_| flags & 6 == 6) {
            // A table that makes no sense: the link does not come about.
            peer.act(&mut script);
            peer.close();
        }
        peer
    };
    let (Ok(link), Some(mut peer)) = futures::join!(connects, peer) else {
        return settle(alive, Census::default).await;
    };
    let mut side = Side::new(link.clone());
    while !script.is_over() {
        match script.byte() {
            what @ ..96 => side.act(what, &mut script).await,
            _ => peer.act(&mut script),
        }
        peer.listen();
        side.look();
        side.is_bounded(limits);
    }
    match flags & 8 {
        0 => link.close(),
        _ => peer.close(),
    }
    let lost = tokio::time::timeout(DEADLINE, link.lost().wait()).await;
    lost.expect("a link ends");
    side.ends().await;
    drop(peer);
    settle(alive, || link.core.census()).await;
}

/// Waits until nothing is left.
async fn settle(alive: usize, census: impl Fn() -> Census) {
    let deadline = Instant::now() + DEADLINE;
    while ToyActor::alive() != alive || census() != Census::default() {
        assert!(
            Instant::now() < deadline,
            "{} actors live on; {:?}",
            ToyActor::alive() - alive,
            census()
        );
        tokio::task::yield_now().await;
    }
}

/// The side that keeps to the rules.
struct Side {
    link: Link,
    root: Option<Handle<Toy>>,
    kept: Vec<Handle<Toy>>,
    pending: Vec<Pending>,
}

impl Side {
    fn new(link: Link) -> Self {
        Self {
            root: link.root::<Toy>().ok(),
            link,
            kept: Vec::new(),
            pending: Vec::new(),
        }
    }

    async fn act(&mut self, what: u8, script: &mut Script<'_>) {
        let handle = match script.byte() {
            0 | 1 => self.root.clone(),
            at => self.kept.get(usize::from(at) % MOST_KEPT).cloned(),
        };
        match (what % 16, handle) {
            (0, Some(handle)) => {
                let bytes = vec![7; script.below(6000)];
                self.waits(handle.send(Echo(bytes)), |_| None);
            }
            // One of this side's own would wait on.
            (1, Some(handle)) if handle.is_remote() => self.waits(handle.send(Wait), |()| None),
            (2, Some(handle)) => {
                let given = self.kept.get(script.below(MOST_KEPT)).cloned();
                self.waits(handle.send(Swap(given)), |given| given);
            }
            (3, Some(handle)) => {
                let payload = vec![9; script.below(9000)];
                let sample = Sample::new(MediaTime::ZERO, MediaTime::ZERO, payload);
                // Whatever memory it is in can be read.
                self.waits(handle.send(Show(sample)), |sample| {
                    drop(sample.payload.to_bytes());
                    None
                });
            }
            (4, Some(handle)) => {
                let many = self.kept.clone();
                self.waits(handle.send(Many(many)), |mut given| given.pop());
            }
            (5, Some(handle)) => {
                let watch = handle.watch();
                self.pending.push(("watch", Box::pin(watch.map(|_| None))));
            }
            // One for which there is no room is none.
            (6, Some(handle)) => {
                let _ = handle.tell(Echo(Vec::new()));
            }
            (7, Some(handle)) => self.waits(handle.send(Stop), |()| None),
            (8, _) if !self.pending.is_empty() => {
                let at = script.below(self.pending.len());
                drop(self.pending.swap_remove(at));
            }
            (9, _) if !self.kept.is_empty() => {
                let at = script.below(self.kept.len());
                drop(self.kept.swap_remove(at));
            }
            (10, _) => self.keep(Handle::start(ToyActor::new())),
            (11, _) => self.root = None,
            (12, _) => self.root = self.link.root::<Toy>().ok(),
            _ => {
                for _ in 0..script.below(6) {
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    fn waits<M: Remote>(
        &mut self,
        call: Call<M>,
        leaves: impl FnOnce(M::Reply) -> Option<Handle<Toy>> + 'static,
    ) {
        if self.pending.len() < MOST_PENDING {
            let call = call.map(|answer| answer.ok().and_then(leaves));
            self.pending.push((M::NAME, Box::pin(call)));
        }
    }

    fn keep(&mut self, handle: Handle<Toy>) {
        if self.kept.len() < MOST_KEPT {
            self.kept.push(handle);
        }
    }

    /// Takes the answers that are there.
    fn look(&mut self) {
        let mut at = 0;
        while let Some(pending) = self.pending.get_mut(at) {
            match pending.1.as_mut().now_or_never() {
                Some(left) => {
                    drop(self.pending.swap_remove(at));
                    left.into_iter().for_each(|handle| self.keep(handle));
                }
                None => at += 1,
            }
        }
    }

    /// What the peer can make this side hold.
    fn is_bounded(&self, limits: LinkLimits) {
        let census = self.link.core.census();
        let objects = limits.max_objects as usize;
        assert!(census.exports <= objects + 1, "{census:?}");
        // One that comes again while its last handle goes has two imports for a moment.
        let at_hand = MOST_KEPT + 2 * MOST_PENDING + ToyActor::alive() * objects;
        assert!(census.imports <= objects + at_hand, "{census:?}");
        let calls = (limits.call_window + limits.max_objects) as usize;
        assert!(census.incoming <= 2 * calls, "{census:?}");
    }

    /// The link has ended: so does everything that waits for it.
    async fn ends(mut self) {
        self.root = None;
        let deadline = Instant::now() + DEADLINE;
        while !self.pending.is_empty() {
            self.look();
            // What this side's own actors were asked is theirs to answer.
            self.kept.clear();
            let pending: Vec<_> = self.pending.iter().map(|(what, _)| what).collect();
            assert!(Instant::now() < deadline, "pending for ever: {pending:?}");
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests;

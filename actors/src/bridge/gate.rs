//! How many messages may be on their way to one actor, and in which order those wait that are too many.
//!
//! A message that finds a place goes at once. One that does not waits as what it is, in the future of its sender, and goes
//! when its turn comes, whether that future is polled just then or not: first come, first served. Whoever gives a place
//! back sends the next one on its way. Requests that wait by design have places of their own.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::remote::Remote;

/// Messages that may wait in the mailbox of an actor of this process, unless a handle says otherwise.
pub(crate) const WINDOW: u32 = 64;

/// The same of those that wait by design.
pub(crate) const PATIENT_WINDOW: u32 = 4096;

/// The window of a new handle.
pub(crate) fn default_window() -> u32 {
    #[cfg(test)]
    return super::tests::window();
    #[cfg(not(test))]
    WINDOW
}

/// Set while anybody waits: whoever comes then waits too.
const LINE: u64 = 1 << 63;

/// Most places of a class.
const MAX_PLACES: u32 = (1 << 31) - 1;

/// Requests of the two classes have places apart, so that those that wait by design do not use up the places of the others.
/// There is one line for both: while one that waits by design waits for a place itself, which is when 4096 others do (over a
/// link, as many as there may be objects), whatever comes behind it waits too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Requests with a deadline.
    Prompt,
    /// Requests that wait by design.
    Patient,
}

impl Class {
    pub(crate) const ALL: [Self; 2] = [Self::Prompt, Self::Patient];

    pub(crate) fn of<M: Remote>() -> Self {
        match M::DEADLINE {
            Some(_) => Self::Prompt,
            None => Self::Patient,
        }
    }

    fn shift(self) -> u32 {
        match self {
            Self::Prompt => 0,
            Self::Patient => 32,
        }
    }

    fn one(self) -> u64 {
        1 << self.shift()
    }

    fn of_places(self, places: u64) -> u32 {
        (places >> self.shift()) as u32 & MAX_PLACES
    }
}

/// A message that waits for its place.
pub(crate) trait Waiter: Send + Sync {
    fn class(&self) -> Class;
    /// When it will have waited too long.
    fn deadline(&self) -> Option<Instant>;
    /// Its turn has come.
    fn go(self: Arc<Self>, permit: Permit);
    /// It has waited too long.
    fn expire(&self);
}

/// The places on the way to one actor.
pub(crate) struct Gate {
    /// Free places of both classes, and whether anybody waits: one word, so that a message that finds a place takes one
    /// step.
    places: AtomicU64,
    /// All places.
    windows: [u32; 2],
    line: Mutex<Line>,
    /// Of the link that leads to the actor.
    lines: Option<Arc<Lines>>,
    /// Messages that were handed to the link's thread and are not at the link yet.
    pub(crate) mailed: AtomicUsize,
    /// A task will let the next ones go.
    will_grant: AtomicBool,
    /// Messages that nobody waits for may stand in line, so many.
    max_alone: usize,
    alone: AtomicUsize,
}

#[derive(Default)]
struct Line {
    waiting: BTreeMap<u64, Arc<dyn Waiter>>,
    tickets: u64,
    /// Somebody is sending those on their way whose turn has come.
    is_granting: bool,
    /// The link knows of this gate.
    is_listed: bool,
    /// No deadline of those that wait passes before.
    next_deadline: Option<Instant>,
}

/// The gates of a link at which messages wait: the link looks after their deadlines.
pub(crate) struct Lines {
    gates: Mutex<Vec<Weak<Gate>>>,
    sweep: Arc<Notify>,
}

/// A place on the way to an actor. Dropping it gives it to the next one.
pub(crate) struct Permit {
    gate: Arc<Gate>,
    class: Class,
    /// Whether the next one goes in a turn of its own.
    is_for_later: bool,
}

/// Room in the line for a message in whose future nobody waits.
pub(crate) struct Alone(Arc<Gate>);

/// Lets the next ones go when it is dropped: by a task in its turn, or with a task that gets none because its arbiter ends.
struct GrantLater(Arc<Gate>);

impl Gate {
    /// With so many places for requests of each class.
    pub(crate) fn new(prompt: u32, patient: u32, lines: Option<Arc<Lines>>) -> Arc<Self> {
        let places = |count: u32| u64::from(count.clamp(1, MAX_PLACES));
        Arc::new(Self {
            places: AtomicU64::new(places(prompt) | places(patient) << Class::Patient.shift()),
            windows: [prompt, patient],
            line: Mutex::default(),
            lines,
            mailed: AtomicUsize::new(0),
            will_grant: AtomicBool::new(false),
            max_alone: prompt as usize,
            alone: AtomicUsize::new(0),
        })
    }

    /// A place, if there is one and nobody waits for it.
    pub(crate) fn enter(self: &Arc<Self>, class: Class) -> Option<Permit> {
        let take = |places: u64| {
            let is_free = places & LINE == 0 && class.of_places(places) > 0;
            is_free.then(|| places - class.one())
        };
        let taken = self
            .places
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
        taken.ok().map(|_| self.permit(class))
    }

    /// Stands in line; the number is for [`Gate::leave`].
    pub(crate) fn wait(self: &Arc<Self>, waiter: Arc<dyn Waiter>) -> u64 {
        let (ticket, is_news, is_earlier) = {
            let mut line = self.line();
            self.places.fetch_or(LINE, Ordering::AcqRel);
            line.tickets += 1;
            let ticket = line.tickets;
            let deadline = waiter.deadline();
            line.waiting.insert(ticket, waiter);
            let is_earlier = deadline
                .is_some_and(|deadline| line.next_deadline.is_none_or(|next| deadline < next));
            if is_earlier {
                line.next_deadline = deadline;
            }
            let is_news = !std::mem::replace(&mut line.is_listed, true);
            (ticket, is_news, is_earlier)
        };
        if let Some(lines) = &self.lines {
            if is_news {
                lines.gates().push(Arc::downgrade(self));
            }
            if is_earlier {
                lines.sweep.notify_one();
            }
        }
        self.grant();
        ticket
    }

    /// Whether less than half of the places are free.
    pub(crate) fn is_scarce(&self, class: Class) -> bool {
        let free = class.of_places(self.places.load(Ordering::Relaxed));
        free < self.windows[class as usize].div_ceil(2)
    }

    /// Room in the line for a message in whose future nobody waits.
    pub(crate) fn stand_alone(self: &Arc<Self>) -> Option<Alone> {
        let one_more = |alone| (alone < self.max_alone).then_some(alone + 1);
        let stands = self
            .alone
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
        stands.ok().map(|_| Alone(Arc::clone(self)))
    }

    /// Leaves the line, wherever it stood.
    pub(crate) fn leave(self: &Arc<Self>, ticket: u64) {
        let left = self.line().waiting.remove(&ticket);
        if left.is_some() {
            // Those behind it may have been kept only by it.
            self.grant();
        }
    }

    /// Has the link look for callers that have gone, and after deadlines.
    pub(crate) fn sweep(&self) {
        if let Some(lines) = &self.lines {
            lines.sweep.notify_one();
        }
    }

    /// Takes those out that have waited too long; says when it is to be asked again.
    fn expire(&self, now: Instant) -> (Vec<Arc<dyn Waiter>>, Option<Instant>) {
        let mut line = self.line();
        if line.next_deadline.is_none_or(|next| next > now) {
            return (Vec::new(), line.next_deadline);
        }
        let is_late = |waiter: &Arc<dyn Waiter>| waiter.deadline().is_some_and(|it| it <= now);
        let late = line.waiting.iter().filter(|(_, waiter)| is_late(waiter));
        let late: Vec<_> = late.map(|(ticket, _)| *ticket).collect();
        let late = late
            .into_iter()
            .filter_map(|ticket| line.waiting.remove(&ticket))
            .collect();
        line.next_deadline = line
            .waiting
            .values()
            .filter_map(|waiter| waiter.deadline())
            .min();
        (late, line.next_deadline)
    }

    fn permit(self: &Arc<Self>, class: Class) -> Permit {
        Permit {
            gate: Arc::clone(self),
            class,
            is_for_later: false,
        }
    }

    fn release(self: &Arc<Self>, class: Class) {
        let before = self.places.fetch_add(class.one(), Ordering::AcqRel);
        if before & LINE != 0 {
            self.grant();
        }
    }

    /// [`release`](Self::release) from within the turn of the very actor: the next one waits until that is over, or the turn
    /// would last as long as the line.
    fn release_later(self: &Arc<Self>, class: Class) {
        let before = self.places.fetch_add(class.one(), Ordering::AcqRel);
        if before & LINE == 0 {
            return;
        }
        let Some(arbiter) = actix_rt::Arbiter::try_current() else {
            return self.grant();
        };
        if !self.will_grant.swap(true, Ordering::AcqRel) {
            let later = GrantLater(Arc::clone(self));
            // Through the arbiter: the thread may be outside of its tasks just now. One that has ended drops it at once.
            arbiter.spawn(async move { drop(later) });
        }
    }

    /// Sends those on their way for whom there are places. Nothing is locked while one goes: it may come back here.
    fn grant(self: &Arc<Self>) {
        let mut line = self.line();
        if line.is_granting {
            // Whoever does it looks again.
            return;
        }
        line.is_granting = true;
        let mut panic = None;
        while let Some(next) = line.waiting.first_entry() {
            let class = next.get().class();
            if class.of_places(self.places.load(Ordering::Acquire)) == 0 {
                break;
            }
            // While there is a line nobody else takes places.
            self.places.fetch_sub(class.one(), Ordering::AcqRel);
            let next = next.remove();
            drop(line);
            // A panic of one that goes keeps nobody behind it.
            let went = catch_unwind(AssertUnwindSafe(|| next.go(self.permit(class))));
            panic = panic.or(went.err());
            line = self.line();
        }
        line.is_granting = false;
        if line.waiting.is_empty() {
            line.next_deadline = None;
            self.places.fetch_and(!LINE, Ordering::AcqRel);
        }
        drop(line);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    pub(crate) fn new(sweep: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self {
            gates: Mutex::default(),
            sweep,
        })
    }

    /// Fails what has waited too long; says when it is to be asked again.
    pub(crate) fn expire(&self, now: Instant) -> Option<Instant> {
        // Taken out while they are looked at; those at which somebody still waits come back.
        let gates = std::mem::take(&mut *self.gates());
        let mut next: Option<Instant> = None;
        for gate in gates {
            let Some(gate) = gate.upgrade() else {
                continue;
            };
            let (late, deadline) = gate.expire(now);
            late.iter().for_each(|waiter| waiter.expire());
            if !late.is_empty() {
                gate.grant();
            }
            next = [next, deadline].into_iter().flatten().min();
            let stays = {
                let mut line = gate.line();
                line.is_listed = !line.waiting.is_empty();
                line.is_listed
            };
            if stays {
                self.gates().push(Arc::downgrade(&gate));
            }
        }
        next
    }

    fn gates(&self) -> MutexGuard<'_, Vec<Weak<Gate>>> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// It will be given back by an actor in its turn.
    pub(crate) fn for_later(mut self) -> Self {
        self.is_for_later = true;
        self
    }

    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.0.alone.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for GrantLater {
    fn drop(&mut self) {
        self.0.will_grant.store(false, Ordering::Release);
        self.0.grant();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        match self.is_for_later {
            true => self.gate.release_later(self.class),
            false => self.gate.release(self.class),
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = self.places.load(Ordering::Relaxed);
        let free = Class::ALL.map(|class| class.of_places(places));
        write!(out, "Gate({free:?} free)")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[derive(Default)]
    struct Went(Mutex<Vec<(u32, Permit)>>, Mutex<Vec<u32>>);

    struct Waits {
        number: u32,
        class: Class,
        deadline: Option<Instant>,
        went: Arc<Went>,
    }

    impl Waiter for Waits {
        fn class(&self) -> Class {
            self.class
        }
        fn deadline(&self) -> Option<Instant> {
            self.deadline
        }
        fn go(self: Arc<Self>, permit: Permit) {
            let mut went = self.went.0.lock().expect("sound");
            went.push((self.number, permit));
        }
        fn expire(&self) {
            self.went.1.lock().expect("sound").push(self.number);
        }
    }

    impl Went {
        fn numbers(&self) -> Vec<u32> {
            let went = self.0.lock().expect("sound");
            went.iter().map(|(number, _)| *number).collect()
        }

        fn end_first(&self) {
            let ended = self.0.lock().expect("sound").remove(0);
            drop(ended);
        }

        fn waits(self: &Arc<Self>, number: u32, class: Class) -> Arc<dyn Waiter> {
            Arc::new(Waits {
                number,
                class,
                deadline: None,
                went: Arc::clone(self),
            })
        }
    }

    #[test]
    fn who_waits_goes_in_order_and_nobody_overtakes() {
        let gate = Gate::new(2, 1, None);
        let went = Arc::new(Went::default());
        let first = gate.enter(Class::Prompt).expect("free");
        let second = gate.enter(Class::Prompt).expect("free");
        assert!(gate.enter(Class::Prompt).is_none());
        gate.wait(went.waits(1, Class::Prompt));
        let gone = gate.wait(went.waits(2, Class::Prompt));
        gate.wait(went.waits(3, Class::Patient));
        gate.wait(went.waits(4, Class::Prompt));
        assert!(gate.enter(Class::Patient).is_none(), "behind the others");
        gate.leave(gone);
        drop(first);
        assert_eq!(went.numbers(), [1, 3], "the next one had its place");
        drop(second);
        assert_eq!(went.numbers(), [1, 3, 4]);
        assert!(gate.enter(Class::Prompt).is_none());
        went.end_first();
        let again = gate.enter(Class::Prompt).expect("free again");
        gate.wait(went.waits(5, Class::Prompt));
        assert_eq!(went.numbers(), [3, 4]);
        drop(again);
        assert_eq!(went.numbers(), [3, 4, 5]);
        drop(std::mem::take(&mut *went.0.lock().expect("sound")));
        assert_eq!(format!("{gate:?}"), "Gate([2, 1] free)");
    }

    #[test]
    fn who_waits_too_long_is_told_and_leaves_its_place_in_line() {
        let lines = Lines::new(Arc::default());
        let gate = Gate::new(1, 1, Some(Arc::clone(&lines)));
        let went = Arc::new(Went::default());
        let held = gate.enter(Class::Prompt).expect("free");
        let now = Instant::now();
        for number in 0..3 {
            let waits = Waits {
                number,
                class: Class::Prompt,
                deadline: Some(now + Duration::from_secs(u64::from(3 - number))),
                went: Arc::clone(&went),
            };
            gate.wait(Arc::new(waits));
        }
        let in_a_second = now + Duration::from_secs(1);
        assert_eq!(lines.expire(now), Some(in_a_second));
        assert_eq!(
            lines.expire(in_a_second),
            Some(now + Duration::from_secs(2))
        );
        assert_eq!(*went.1.lock().expect("sound"), [2]);
        drop(held);
        assert_eq!(went.numbers(), [0]);
    }

    #[test]
    fn threads_that_come_and_go_leave_every_place_free() {
        let gate = Gate::new(2, 3, None);
        struct Passes(Class);
        impl Waiter for Passes {
            fn class(&self) -> Class {
                self.0
            }
            fn deadline(&self) -> Option<Instant> {
                None
            }
            fn go(self: Arc<Self>, permit: Permit) {
                std::thread::yield_now();
                drop(permit);
            }
            fn expire(&self) {}
        }
        std::thread::scope(|scope| {
            for thread in 0..4_u32 {
                let gate = &gate;
                scope.spawn(move || {
                    for round in 0..5_000_u32 {
                        let class = Class::ALL[(thread + round) as usize % 2];
                        match gate.enter(class) {
                            Some(permit) => drop(permit),
                            None => {
                                let ticket = gate.wait(Arc::new(Passes(class)));
                                if round % 3 == 0 {
                                    gate.leave(ticket);
                                }
                            }
                        }
                    }
                });
            }
        });
        assert_eq!(format!("{gate:?}"), "Gate([2, 3] free)");
        assert!(gate.enter(Class::Prompt).is_some(), "nobody waits");
    }

    #[test]
    fn an_arbiter_that_ends_lets_those_go_that_it_was_to_let_go() {
        for is_inside in [false, true] {
            let gate = Gate::new(1, 1, None);
            let went = Arc::new(Went::default());
            for round in 0..2 {
                let held = gate.enter(Class::Prompt).expect("free").for_later();
                gate.wait(went.waits(round, Class::Prompt));
                let system = actix_rt::System::new();
                match is_inside {
                    // In the last turn that there is.
                    true => system.block_on(async { drop(held) }),
                    // The thread has an arbiter, but nothing of it runs.
                    false => drop(held),
                }
                drop(system);
                assert_eq!(went.numbers(), [round], "inside: {is_inside}");
                went.end_first();
            }
        }
    }

    #[test]
    fn a_panic_of_one_that_goes_keeps_nobody_behind_it() {
        struct Panics;
        impl Waiter for Panics {
            fn class(&self) -> Class {
                Class::Prompt
            }
            fn deadline(&self) -> Option<Instant> {
                None
            }
            fn go(self: Arc<Self>, _: Permit) {
                panic!("when it goes");
            }
            fn expire(&self) {}
        }
        let gate = Gate::new(1, 1, None);
        let went = Arc::new(Went::default());
        let held = gate.enter(Class::Prompt).expect("free");
        gate.wait(Arc::new(Panics));
        gate.wait(went.waits(1, Class::Prompt));
        gate.wait(went.waits(2, Class::Prompt));
        crate::panics::catch(|| drop(held)).expect_err("panics");
        assert_eq!(went.numbers(), [1]);
        went.end_first();
        assert_eq!(went.numbers(), [2]);
        went.end_first();
        assert_eq!(format!("{gate:?}"), "Gate([1, 1] free)");
        assert!(gate.enter(Class::Prompt).is_some(), "nobody waits");
    }
}

//! How long it pays to look again and again before sleeping.
//!
//! To be woken costs microseconds (tens in a virtual machine), to see a word change less than one. So a side that expects
//! bytes soon looks for them for a while: up to twice the usual wait, and never much longer than a wake-up costs, which is
//! at most twice as bad as knowing the future. Where most of that is in vain it is tried less and less often, so that a
//! link with little traffic costs nothing. Without a second processor it would only keep the peer from writing.

use std::time::Duration;

/// The longest that is spun: what a wake-up costs where it is dear. Less would leave two sides asleep that were so once, as
/// each waits for the other to wake up.
const LONGEST: Duration = Duration::from_micros(60);
/// The shortest that is worth trying.
const SHORTEST: Duration = Duration::from_micros(2);
/// Waits that are let pass without spinning, at most, before it is tried again.
const MOST_SKIPPED: u32 = 1024;
/// Of a ratio that counts as one.
const WHOLE: u32 = 1 << 8;

/// Decides for one reader.
#[derive(Debug)]
pub(crate) struct Spinner {
    is_on: bool,
    /// The usual wait, as a moving average.
    usual: Duration,
    /// How often spinning has paid lately, of [`WHOLE`].
    success: u32,
    /// How many waits are let pass after the next failure.
    backoff: u32,
    /// How many are still let pass.
    skip: u32,
}

impl Spinner {
    pub(crate) fn new(is_on: bool) -> Self {
        Self {
            is_on,
            usual: LONGEST,
            success: WHOLE,
            backoff: 1,
            skip: 0,
        }
    }

    /// A wait begins: how long it may spin before it sleeps.
    pub(crate) fn begin(&mut self) -> Option<Duration> {
        if !self.is_on {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        Some(self.usual.saturating_mul(2).clamp(SHORTEST, LONGEST))
    }

    /// A wait that spun, and perhaps slept then, is over.
    pub(crate) fn end(&mut self, waited: Duration, has_slept: bool) {
        // Beyond this a wait is long, however long.
        let waited = waited.min(LONGEST * 8);
        self.usual = (self.usual * 7 + waited) / 8;
        if !has_slept {
            self.success += (WHOLE - self.success) / 8;
            self.backoff = (self.backoff / 2).max(1);
            return;
        }
        self.success -= self.success / 8;
        if self.success < WHOLE / 2 {
            self.skip = self.backoff;
            self.backoff = (self.backoff * 2).min(MOST_SKIPPED);
        }
    }
}

/// Whether this process may run on two processors at once: a peer that spins on the only one keeps everybody waiting.
pub(crate) fn has_second_processor() -> bool {
    std::thread::available_parallelism().is_ok_and(|count| count.get() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_micros(3);
    const LATE: Duration = Duration::from_millis(3);

    /// Lives through waits of one kind; says how many of them spun.
    fn waits(spinner: &mut Spinner, count: u32, length: Duration) -> u32 {
        let mut spun = 0;
        for _ in 0..count {
            let Some(window) = spinner.begin() else {
                continue;
            };
            assert!((SHORTEST..=LONGEST).contains(&window));
            spinner.end(length, length > window);
            spun += 1;
        }
        spun
    }

    #[test]
    fn short_waits_are_spun_and_long_ones_soon_are_not() {
        let mut spinner = Spinner::new(true);
        assert_eq!(waits(&mut spinner, 1000, SOON), 1000);
        assert!(spinner.begin().is_some_and(|window| window < LONGEST / 2));
        let spun = waits(&mut spinner, 100_000, LATE);
        assert!(spun < 130, "{spun} of 100,000");
    }

    #[test]
    fn it_begins_again_when_the_peer_is_quick_again() {
        let mut spinner = Spinner::new(true);
        waits(&mut spinner, 100_000, LATE);
        waits(&mut spinner, 3 * MOST_SKIPPED, SOON);
        assert_eq!(waits(&mut spinner, 100, SOON), 100);
    }

    #[test]
    fn a_mixture_backs_off_only_when_most_of_it_fails() {
        let mut spinner = Spinner::new(true);
        for _ in 0..1000 {
            waits(&mut spinner, 3, SOON);
            waits(&mut spinner, 1, LATE);
        }
        assert!(waits(&mut spinner, 100, SOON) > 90);
    }

    #[test]
    fn switched_off_it_never_spins() {
        assert_eq!(waits(&mut Spinner::new(false), 1000, SOON), 0);
    }
}

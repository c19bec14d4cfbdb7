//! When a sample is rendered, and how well an output keeps up.

use serde::{Deserialize, Serialize};

use crate::clock::{ClockSnapshot, SystemTime100ns};
use crate::media::{MediaTime, Sample};

/// How an output deals with time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PacingSettings {
    /// Render as fast as samples come, whatever the clock says.
    pub rateless: bool,
    /// How much after it is due a sample counts as late. Default: 40 ms.
    pub late_after: MediaTime,
    /// How much after it is due a sample is dropped; never where there is none, which is the default.
    pub drop_after: Option<MediaTime>,
}

impl Default for PacingSettings {
    fn default() -> Self {
        Self {
            rateless: false,
            late_after: MediaTime::from_millis(40),
            drop_after: None,
        }
    }
}

/// What to do with the next sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Render it now.
    Render,
    /// Ask again at this time, or when the clock changes.
    WaitUntil(SystemTime100ns),
    /// The clock stands: ask again when it changes.
    Hold,
    /// Throw it away: it is too late, or was needed for decoding only.
    Drop,
}

/// The pacing of one output, with its counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pacing {
    settings: PacingSettings,
    clock: ClockSnapshot,
    rendered: u64,
    late: u64,
    dropped: u64,
}

impl Pacing {
    /// Pacing with these settings; nothing is rendered before there is a running clock.
    pub fn new(settings: PacingSettings) -> Self {
        Self {
            settings,
            ..Self::default()
        }
    }

    /// The clock started, paused, stopped or changed.
    pub fn set_clock(&mut self, clock: ClockSnapshot) {
        self.clock = clock;
    }

    /// Whether the clock runs.
    pub fn is_running(&self) -> bool {
        self.clock.is_running()
    }

    /// From now on samples are rendered as fast as they come, or by the clock.
    pub fn set_rateless(&mut self, rateless: bool) {
        self.settings.rateless = rateless;
    }

    /// Whether samples are rendered as fast as they come.
    pub fn is_rateless(&self) -> bool {
        self.settings.rateless
    }

    /// Samples rendered so far.
    pub fn rendered(&self) -> u64 {
        self.rendered
    }

    /// Of these, how many came late.
    pub fn late(&self) -> u64 {
        self.late
    }

    /// Samples dropped so far because they came too late.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// What to do with the sample that is next, and counts it if that is final.
    pub fn next(&mut self, sample: &Sample, now: SystemTime100ns) -> Pace {
        if sample.flags.preroll {
            return Pace::Drop;
        }
        if !self.clock.is_running() {
            return Pace::Hold;
        }
        if self.settings.rateless {
            self.rendered += 1;
            return Pace::Render;
        }
        let Some(due) = self.clock.due(sample.time) else {
            return Pace::Hold;
        };
        if due > now {
            return Pace::WaitUntil(due);
        }
        let behind = now - due;
        if self.settings.drop_after.is_some_and(|limit| behind > limit) {
            self.dropped += 1;
            return Pace::Drop;
        }
        if behind > self.settings.late_after {
            self.late += 1;
        }
        self.rendered += 1;
        Pace::Render
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::PresentationClock;

    fn at(millis: i64) -> SystemTime100ns {
        SystemTime100ns::from_ticks(millis * 10_000)
    }

    fn sample(millis: i64) -> Sample {
        let length = MediaTime::from_millis(40);
        Sample::new(MediaTime::from_millis(millis), length, vec![0])
    }

    fn running(settings: PacingSettings) -> Pacing {
        let mut clock = PresentationClock::new();
        clock.set_time_source();
        clock
            .start(Some(MediaTime::ZERO), at(1000))
            .expect("starts");
        let mut pacing = Pacing::new(settings);
        assert_eq!(pacing.next(&sample(0), at(1000)), Pace::Hold);
        pacing.set_clock(clock.snapshot());
        pacing
    }

    #[test]
    fn a_sample_waits_until_it_is_due_and_counts_when_it_is_late() {
        let mut pacing = running(PacingSettings {
            drop_after: Some(MediaTime::from_millis(100)),
            ..PacingSettings::default()
        });
        assert_eq!(
            pacing.next(&sample(80), at(1050)),
            Pace::WaitUntil(at(1080))
        );
        assert_eq!(pacing.next(&sample(80), at(1080)), Pace::Render);
        assert_eq!(pacing.next(&sample(120), at(1170)), Pace::Render);
        assert_eq!(pacing.next(&sample(160), at(1270)), Pace::Drop);
        let mut preroll = sample(200);
        preroll.flags.preroll = true;
        assert_eq!(pacing.next(&preroll, at(1000)), Pace::Drop);
        let counts = (pacing.rendered(), pacing.late(), pacing.dropped());
        assert_eq!(counts, (2, 1, 1));
    }

    #[test]
    fn a_rateless_output_needs_a_running_clock_and_no_time() {
        let mut pacing = running(PacingSettings {
            rateless: true,
            ..PacingSettings::default()
        });
        assert_eq!(pacing.next(&sample(9000), at(1000)), Pace::Render);
        pacing.set_clock(ClockSnapshot::default());
        assert_eq!(pacing.next(&sample(9000), at(1000)), Pace::Hold);
    }
}

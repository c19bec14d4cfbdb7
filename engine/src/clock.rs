//! The presentation clock: which media time it is, as a function of system time.
//!
//! The clock itself never asks for the time. Whoever drives it gives `now`; whoever follows it from another thread or
//! process has a [`ClockSnapshot`], which is enough to know when a sample is due until the clock changes again.
//! System time is the machine's monotonic clock, which all processes of one machine share.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::media::MediaTime;

/// A point on the machine's monotonic clock (`CLOCK_MONOTONIC`), in ticks of 100 ns.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct SystemTime100ns(i64);

impl SystemTime100ns {
    /// A point `ticks` times 100 ns after the clock's origin.
    pub const fn from_ticks(ticks: i64) -> Self {
        Self(ticks)
    }

    /// Ticks of 100 ns since the clock's origin.
    pub const fn ticks(self) -> i64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is before.
    pub fn since(self, earlier: Self) -> Duration {
        (self - earlier).to_duration()
    }
}

impl Add<MediaTime> for SystemTime100ns {
    type Output = Self;
    fn add(self, span: MediaTime) -> Self {
        Self(self.0.saturating_add(span.ticks()))
    }
}

impl Sub for SystemTime100ns {
    type Output = MediaTime;
    fn sub(self, other: Self) -> MediaTime {
        MediaTime::from_ticks(self.0.saturating_sub(other.0))
    }
}

/// How fast media time runs against system time, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rate(i32);

impl Rate {
    /// Media time stands still; a picture is shown for each start.
    pub const ZERO: Self = Self(0);
    /// As fast as system time.
    pub const NORMAL: Self = Self(1000);

    /// A rate of so many thousandths.
    pub const fn from_thousandths(thousandths: i32) -> Self {
        Self(thousandths)
    }

    /// The rate in thousandths.
    pub const fn thousandths(self) -> i32 {
        self.0
    }
}

impl Default for Rate {
    fn default() -> Self {
        Self::NORMAL
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", f64::from(self.0) / 1000.0)
    }
}

/// What the clock does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClockState {
    /// It never ran.
    #[default]
    Invalid,
    /// It runs.
    Running,
    /// It stands and remembers where.
    Paused,
    /// It stands at the beginning.
    Stopped,
}

/// The clock at one moment: enough to follow it until it changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockSnapshot {
    /// What it does.
    pub state: ClockState,
    /// How fast it runs.
    pub rate: Rate,
    /// The media time at `system`.
    pub media: MediaTime,
    /// When that was.
    pub system: SystemTime100ns,
}

impl ClockSnapshot {
    /// The media time at a point of system time.
    pub fn time_at(&self, now: SystemTime100ns) -> MediaTime {
        if self.state != ClockState::Running {
            return self.media;
        }
        let passed = i128::from((now - self.system).ticks());
        let ran = passed * i128::from(self.rate.0) / 1000;
        self.media + MediaTime::from_ticks(saturate(ran))
    }

    /// When a media time is reached; `None` while the clock stands.
    pub fn due(&self, time: MediaTime) -> Option<SystemTime100ns> {
        if self.state != ClockState::Running || self.rate == Rate::ZERO {
            return None;
        }
        let ahead = i128::from((time - self.media).ticks());
        let wait = ahead * 1000 / i128::from(self.rate.0);
        Some(self.system + MediaTime::from_ticks(saturate(wait)))
    }

    /// Whether the clock runs.
    pub fn is_running(&self) -> bool {
        self.state == ClockState::Running
    }
}

/// What those who follow the clock are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClockChange {
    /// It started at a position.
    Started,
    /// It goes on from where it was paused.
    Restarted,
    /// It stopped.
    Stopped,
    /// It paused.
    Paused,
    /// Its rate changed.
    RateChanged,
}

/// The clock of one session. See reference 2.5 for its table of states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PresentationClock {
    now: ClockSnapshot,
    has_time_source: bool,
}

impl PresentationClock {
    /// A clock without a time source; it answers nothing but its state.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives the clock its time source.
    pub fn set_time_source(&mut self) {
        self.has_time_source = true;
    }

    /// What the clock does; known without a time source too.
    pub fn state(&self) -> ClockState {
        self.now.state
    }

    /// The rate.
    pub fn rate(&self) -> Rate {
        self.now.rate
    }

    /// The clock for others to follow.
    pub fn snapshot(&self) -> ClockSnapshot {
        self.now
    }

    /// The media time.
    ///
    /// # Errors
    /// `NoTimeSource`.
    pub fn time(&self, now: SystemTime100ns) -> Result<MediaTime> {
        self.need_time_source()?;
        Ok(self.now.time_at(now))
    }

    /// Starts at a position, or goes on from where the clock is.
    ///
    /// # Errors
    /// `NoTimeSource`.
    pub fn start(
        &mut self,
        position: Option<MediaTime>,
        now: SystemTime100ns,
    ) -> Result<ClockChange> {
        self.need_time_source()?;
        let resumes = position.is_none() && self.now.state == ClockState::Paused;
        let position = position.unwrap_or_else(|| self.now.time_at(now));
        self.anchor(ClockState::Running, position, now);
        Ok(if resumes {
            ClockChange::Restarted
        } else {
            ClockChange::Started
        })
    }

    /// Stops; media time is the beginning again.
    ///
    /// # Errors
    /// `NoTimeSource`, `ClockStateAlreadySet`.
    pub fn stop(&mut self, now: SystemTime100ns) -> Result<ClockChange> {
        self.need_time_source()?;
        if self.now.state == ClockState::Stopped {
            return Err(ErrorKind::ClockStateAlreadySet.into());
        }
        self.anchor(ClockState::Stopped, MediaTime::ZERO, now);
        Ok(ClockChange::Stopped)
    }

    /// Stands still.
    ///
    /// # Errors
    /// `NoTimeSource`, `ClockStateAlreadySet`; `InvalidRequest` while stopped.
    pub fn pause(&mut self, now: SystemTime100ns) -> Result<ClockChange> {
        self.need_time_source()?;
        match self.now.state {
            ClockState::Paused => Err(ErrorKind::ClockStateAlreadySet.into()),
            ClockState::Stopped => Err(Error::invalid_request("the clock is stopped")),
            ClockState::Invalid | ClockState::Running => {
                self.anchor(ClockState::Paused, self.now.time_at(now), now);
                Ok(ClockChange::Paused)
            }
        }
    }

    /// Changes the rate; media time goes on from where it is.
    ///
    /// # Errors
    /// `NoTimeSource`; `Unsupported` for thinning, which only sources do.
    pub fn set_rate(
        &mut self,
        rate: Rate,
        thin: bool,
        now: SystemTime100ns,
    ) -> Result<ClockChange> {
        self.need_time_source()?;
        if thin {
            return Err(Error::new(ErrorKind::Unsupported {
                what: "thinning by a clock".into(),
            }));
        }
        self.anchor(self.now.state, self.now.time_at(now), now);
        self.now.rate = rate;
        Ok(ClockChange::RateChanged)
    }

    fn anchor(&mut self, state: ClockState, media: MediaTime, system: SystemTime100ns) {
        self.now = ClockSnapshot {
            state,
            rate: self.now.rate,
            media,
            system,
        };
    }

    fn need_time_source(&self) -> Result<()> {
        if self.has_time_source {
            return Ok(());
        }
        Err(ErrorKind::NoTimeSource.into())
    }
}

fn saturate(ticks: i128) -> i64 {
    i64::try_from(ticks).unwrap_or(if ticks > 0 { i64::MAX } else { i64::MIN })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> SystemTime100ns {
        SystemTime100ns::from_ticks(millis * 10_000)
    }

    fn ms(millis: i64) -> MediaTime {
        MediaTime::from_millis(millis)
    }

    #[test]
    fn d21_without_a_time_source_only_the_state_is_known() {
        let mut clock = PresentationClock::new();
        let none = Some(ErrorKind::NoTimeSource);
        let kind = |result: Result<ClockChange>| result.err().map(|error| error.kind().clone());
        assert_eq!(kind(clock.start(None, at(0))), none);
        assert_eq!(kind(clock.pause(at(0))), none);
        assert_eq!(kind(clock.stop(at(0))), none);
        assert_eq!(kind(clock.set_rate(Rate::ZERO, false, at(0))), none);
        assert_eq!(clock.time(at(0)).err().map(|e| e.kind().clone()), none);
        assert_eq!(clock.state(), ClockState::Invalid);
    }

    #[test]
    fn d21_the_table_of_transitions() {
        use ClockState::{Paused, Running, Stopped};
        let mut clock = PresentationClock::new();
        clock.set_time_source();
        let already = || Some(ErrorKind::ClockStateAlreadySet);
        let steps = [
            ("stop", None, Stopped),
            (
                "pause",
                Some(ErrorKind::InvalidRequest("the clock is stopped".into())),
                Stopped,
            ),
            ("stop", already(), Stopped),
            ("start", None, Running),
            ("start", None, Running),
            ("pause", None, Paused),
            ("pause", already(), Paused),
            ("stop", None, Stopped),
            ("start", None, Running),
            ("stop", None, Stopped),
            ("stop", already(), Stopped),
            (
                "pause",
                Some(ErrorKind::InvalidRequest("the clock is stopped".into())),
                Stopped,
            ),
            ("start", None, Running),
            ("pause", None, Paused),
            ("start", None, Running),
        ];
        for (step, (command, refused, state)) in steps.into_iter().enumerate() {
            let result = match command {
                "start" => clock.start(None, at(0)),
                "stop" => clock.stop(at(0)),
                _ => clock.pause(at(0)),
            };
            assert_eq!(
                result.err().map(|e| e.kind().clone()),
                refused,
                "step {step}"
            );
            assert_eq!(clock.state(), state, "step {step}");
        }
    }

    #[test]
    fn d22_rates_change_while_running_and_thinning_never() {
        let mut clock = PresentationClock::new();
        clock.set_time_source();
        clock.start(Some(MediaTime::ZERO), at(0)).expect("starts");
        for (rate, from, until, time) in [
            (0, 0, 100, 0),
            (1000, 100, 200, 100),
            (0, 200, 300, 100),
            (500, 300, 400, 150),
        ] {
            clock
                .set_rate(Rate::from_thousandths(rate), false, at(from))
                .expect("any rate");
            assert_eq!(clock.time(at(until)).expect("runs"), ms(time));
        }
        for rate in [-1000, 0, 1000] {
            assert!(
                clock
                    .set_rate(Rate::from_thousandths(rate), true, at(400))
                    .is_err()
            );
            assert_eq!(clock.rate(), Rate::from_thousandths(500));
        }
    }

    #[test]
    fn a_snapshot_is_enough_to_follow_the_clock() {
        let mut clock = PresentationClock::new();
        clock.set_time_source();
        assert_eq!(
            clock.start(Some(ms(1000)), at(5000)).expect("starts"),
            ClockChange::Started
        );
        let seen = clock.snapshot();
        assert_eq!(seen.time_at(at(5250)), ms(1250));
        assert_eq!(seen.due(ms(1250)), Some(at(5250)));
        clock
            .set_rate(Rate::from_thousandths(2000), false, at(5250))
            .expect("any rate");
        assert_eq!(clock.snapshot().due(ms(2250)), Some(at(5750)));
        clock.pause(at(5750)).expect("runs");
        assert_eq!(clock.snapshot().due(ms(9000)), None);
        assert_eq!(clock.time(at(9999)).expect("paused"), ms(2250));
        assert_eq!(
            clock.start(None, at(10_000)).expect("starts"),
            ClockChange::Restarted
        );
        assert_eq!(clock.time(at(10_100)).expect("runs"), ms(2450));
    }

    #[test]
    fn far_times_saturate() {
        let snapshot = ClockSnapshot {
            state: ClockState::Running,
            rate: Rate::from_thousandths(1),
            media: MediaTime::ZERO,
            system: at(0),
        };
        assert_eq!(
            snapshot.due(MediaTime::MAX),
            Some(SystemTime100ns::from_ticks(i64::MAX))
        );
        assert_eq!(
            snapshot.time_at(SystemTime100ns::from_ticks(i64::MIN)),
            MediaTime::from_ticks(i64::MIN / 1000)
        );
    }
}

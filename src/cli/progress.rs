//! A progress bar on standard error, only where that is a terminal.

use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressStyle};
use portcullis_engine::MediaTime;

/// How far a presentation is.
#[derive(Debug)]
pub(super) struct Progress(Option<ProgressBar>);

impl Progress {
    /// A bar over `length`; none where that is not known, or where nobody looks.
    pub(super) fn new(length: Option<MediaTime>) -> Self {
        let millis = length
            .and_then(|length| u64::try_from(length.ticks() / 10_000).ok())
            .filter(|millis| *millis > 0);
        let Some(millis) = millis.filter(|_| stderr().is_terminal()) else {
            return Self(None);
        };
        let bar = ProgressBar::new(millis);
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {percent:>3} %  {eta}") {
            bar.set_style(style);
        }
        Self(Some(bar))
    }

    pub(super) fn at(&self, time: MediaTime) {
        if let (Some(bar), Ok(ticks)) = (&self.0, u64::try_from(time.ticks())) {
            bar.set_position(ticks / 10_000);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

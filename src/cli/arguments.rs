//! Values of arguments: inputs, times and sizes.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use portcullis_engine::MediaTime;

use super::failure::Failure;
use crate::Input;

/// The input that an argument names: a path, a URL, or `-` for standard input.
pub(super) fn input(argument: &Path) -> Result<Input, Failure> {
    let text = argument.to_string_lossy();
    if text == "-" {
        // The descriptor itself: redirected from a file it can seek.
        let stdin = io::stdin().as_fd().try_clone_to_owned();
        return stdin
            .map(|fd| Input::from(File::from(fd)))
            .map_err(|error| Failure::output("standard input", error));
    }
    // A file whose name has a colon is a file all the same.
    if argument.exists() {
        return Ok(Input::from(PathBuf::from(argument)));
    }
    let is_url = text.split_once("://").is_some() || text.starts_with("file:");
    Ok(if is_url {
        Input::from(text.as_ref())
    } else {
        Input::from(PathBuf::from(argument))
    })
}

/// A time: `10`, `10s`, `1.5s`, `250ms`, `2m`, `1h`, `01:02:03.5`.
pub(super) fn time(text: &str) -> Result<MediaTime, String> {
    let wrong = || format!("{text}: expected a time such as 10s, 250ms, 2m or 1:30.5");
    let number = |text: &str| {
        let plain = !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'.');
        plain.then(|| text.parse::<f64>().ok()).flatten()
    };
    let seconds = if text.contains(':') {
        let parts: Vec<_> = text.split(':').map(number).collect();
        match parts[..] {
            [Some(minutes), Some(seconds)] => Some(minutes * 60.0 + seconds),
            [Some(hours), Some(minutes), Some(seconds)] => {
                Some((hours * 60.0 + minutes) * 60.0 + seconds)
            }
            _ => None,
        }
    } else {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match &text[digits.len()..] {
            "" | "s" => Some(1.0),
            "ms" => Some(0.001),
            "m" => Some(60.0),
            "h" => Some(3600.0),
            _ => None,
        };
        number(digits).zip(unit).map(|(number, unit)| number * unit)
    };
    seconds.map(MediaTime::from_secs_f64).ok_or_else(wrong)
}

/// A size: `640x360`.
pub(super) fn size(text: &str) -> Result<(u32, u32), String> {
    text.split_once('x')
        .and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)))
        .filter(|(width, height)| *width > 0 && *height > 0)
        .ok_or_else(|| format!("{text}: expected WIDTHxHEIGHT, such as 640x360"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_all_their_forms() {
        for (text, millis) in [
            ("10", 10_000),
            ("10s", 10_000),
            ("1.5s", 1500),
            ("250ms", 250),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("1:30.5", 90_500),
            ("01:00:01", 3_601_000),
        ] {
            assert_eq!(time(text), Ok(MediaTime::from_millis(millis)), "{text}");
        }
        for text in [
            "", "s", "-1s", "1d", "1:2:3:4", "a:b", "1e3", "nan", "1.2.3",
        ] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_whole_and_not_empty() {
        assert_eq!(size("640x360"), Ok((640, 360)));
        for text in ["", "640", "0x1", "1x", "-1x2", "1x2x3"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}

//! What is printed: one figure a line, with its floor.

use std::io::Write;

use anyhow::Result;
use clap::ValueEnum;
use serde_json::json;

use super::{Direction, Where};

/// What a figure is of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) placement: Where,
    pub(super) direction: Direction,
    /// Bytes of a sample; 0 where there are none.
    pub(super) size: u32,
    pub(super) touch: bool,
    /// How many of what is measured went into one figure.
    pub(super) count: u64,
}

impl Setting {
    /// Of the machine, or of this process alone.
    pub(super) fn here(count: u64) -> Self {
        Self {
            placement: Where::InProcess,
            direction: Direction::ToHost,
            size: 0,
            touch: false,
            count,
        }
    }

    /// Of calls to a host.
    pub(super) fn of_host(placement: Where, count: u64) -> Self {
        Self {
            placement,
            ..Self::here(count)
        }
    }
}

/// Prints figures as they come.
#[derive(Debug)]
pub(super) struct Rows {
    json: bool,
}

impl Rows {
    pub(super) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints what the machine itself does.
    pub(super) fn floor(&self, bench: &str, of: Setting, value: f64, unit: &str) -> Result<()> {
        self.write(bench, of, value, unit, None)
    }

    /// Prints one figure; `floor` names what it is compared with, where that was measured.
    pub(super) fn print(
        &self,
        bench: &str,
        of: Setting,
        (value, unit): (f64, &str),
        (floor, floor_value): (&str, f64),
    ) -> Result<()> {
        // There is nothing to compare with where what would be is not installed.
        let floor = (floor_value > 0.0).then_some((floor, floor_value));
        self.write(bench, of, value, unit, floor)
    }

    fn write(
        &self,
        bench: &str,
        of: Setting,
        value: f64,
        unit: &str,
        floor: Option<(&str, f64)>,
    ) -> Result<()> {
        let name = |value: Option<clap::builder::PossibleValue>| {
            value
                .map(|value| value.get_name().to_owned())
                .unwrap_or_default()
        };
        let (placement, direction) = (
            name(of.placement.to_possible_value()),
            name(of.direction.to_possible_value()),
        );
        let mut out = std::io::stdout().lock();
        if self.json {
            let mut row = json!({
                "bench": bench, "placement": placement, "direction": direction, "size": of.size, "count": of.count,
                "touch": of.touch, "value": round(value), "unit": unit,
            });
            if let Some((floor, floor_value)) = floor {
                row["floor"] = json!(floor);
                row["floor_value"] = json!(round(floor_value));
                row["ratio"] = json!(round(value / floor_value));
            }
            writeln!(out, "{row}")?;
        } else {
            write!(out, "{bench:<26} {:>14} {unit:<10}", round(value))?;
            if let Some((floor, floor_value)) = floor {
                let (ratio, floor_value) = (value / floor_value, round(floor_value));
                write!(out, " {ratio:>8.3} of {floor} {floor_value}")?;
            }
            write!(out, " ({placement}")?;
            if of.size > 0 {
                write!(out, ", {direction}, {} bytes", of.size)?;
            }
            writeln!(out, ", {} times)", of.count)?;
        }
        Ok(out.flush()?)
    }
}

/// Four significant digits are more than any of these measurements has.
fn round(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    let digits = 3 - value.abs().log10().floor() as i32;
    if digits > 0 {
        let unit = 10f64.powi(digits);
        return (value * unit).round() / unit;
    }
    let unit = 10f64.powi(-digits);
    (value / unit).round() * unit
}

/// The middle value.
pub(super) fn median(values: Vec<f64>) -> f64 {
    quantile(&values, 0.5)
}

/// The middle one of several runs' quantiles.
pub(super) fn median_quantile(runs: &[Vec<f64>], part: f64) -> f64 {
    median(runs.iter().map(|run| quantile(run, part)).collect())
}

/// The value below which this part of them lies.
pub(super) fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() as f64 * part) as usize;
    sorted
        .get(at.min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_and_quantiles() {
        assert_eq!(round(123_456.0), 123_500.0);
        assert_eq!(round(187_512_345.6), 187_500_000.0);
        assert_eq!(round(0.001_234_56), 0.001_235);
        assert_eq!(round(f64::NAN), 0.0);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(quantile(&[], 0.5), 0.0);
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0], 0.99), 4.0);
    }
}

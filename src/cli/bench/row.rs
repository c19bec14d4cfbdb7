//! What is printed: one figure a line, with its floor.

use std::io::Write;

use anyhow::Result;
use clap::ValueEnum;
use serde_json::json;

use super::BenchArgs;

/// Prints figures as they come.
pub(super) struct Rows {
    json: bool,
    placement: String,
    direction: String,
    size: u32,
    count: u64,
    touch: bool,
}

impl Rows {
    pub(super) fn new(args: &BenchArgs) -> Self {
        let name = |value: Option<clap::builder::PossibleValue>| {
            value
                .map(|value| value.get_name().to_owned())
                .unwrap_or_default()
        };
        Self {
            json: args.json,
            placement: name(args.placement.to_possible_value()),
            direction: name(args.direction.to_possible_value()),
            size: args.size,
            count: 0,
            touch: args.touch,
        }
    }

    pub(super) fn set_count(&mut self, count: u64) {
        self.count = count;
    }

    /// Prints one figure; `floor` names what of the machine it is compared with.
    pub(super) fn print(
        &self,
        bench: &str,
        value: f64,
        unit: &str,
        floor: &str,
        floor_value: f64,
    ) -> Result<()> {
        let ratio = value / floor_value;
        let mut out = std::io::stdout().lock();
        if self.json {
            let row = json!({
                "bench": bench, "placement": self.placement, "direction": self.direction, "size": self.size,
                "count": self.count, "touch": self.touch, "value": round(value), "unit": unit, "floor": floor,
                "floor_value": round(floor_value), "ratio": round(ratio),
            });
            writeln!(out, "{row}")?;
        } else {
            let (value, floor_value) = (round(value), round(floor_value));
            writeln!(
                out,
                "{bench:<24} {value:>14} {unit:<10} {:.3} of {floor} {floor_value} ({}, {}, {} bytes, {} times)",
                ratio, self.placement, self.direction, self.size, self.count
            )?;
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

//! Between the layouts of PCM values.

use portcullis_engine::SampleFormat;

/// The value as a 32-bit integer of full scale.
fn read_integer(bytes: &[u8], format: SampleFormat) -> i32 {
    match (format, bytes) {
        (SampleFormat::U8, [value]) => (i32::from(*value) - 128) << 24,
        (SampleFormat::S16, [a, b]) => i32::from(i16::from_le_bytes([*a, *b])) << 16,
        (SampleFormat::S24, [a, b, c]) => i32::from_le_bytes([0, *a, *b, *c]),
        (_, [a, b, c, d]) => i32::from_le_bytes([*a, *b, *c, *d]),
        _ => 0,
    }
}

/// Writes a value of full scale, rounded to the format's bits.
fn write_integer(value: i32, bytes: &mut [u8], format: SampleFormat) {
    let rounded = |bits: u32| {
        let half = 1i64 << (31 - bits);
        let shifted = (i64::from(value) + half) >> (32 - bits);
        shifted.min((1i64 << (bits - 1)) - 1) as i32
    };
    match format {
        SampleFormat::U8 => bytes[0] = (rounded(8) + 128) as u8,
        SampleFormat::S16 => bytes.copy_from_slice(&(rounded(16) as i16).to_le_bytes()),
        SampleFormat::S24 => bytes.copy_from_slice(&rounded(24).to_le_bytes()[..3]),
        _ => bytes.copy_from_slice(&value.to_le_bytes()),
    }
}

/// Converts integers; what the target can hold is kept exactly.
pub(super) fn convert_integers(
    from: &[u8],
    format: SampleFormat,
    to: &mut [u8],
    target: SampleFormat,
) {
    let values = from.chunks_exact(format.bytes());
    for (value, place) in values.zip(to.chunks_exact_mut(target.bytes())) {
        write_integer(read_integer(value, format), place, target);
    }
}

/// All values as float, full scale is 1.
pub(super) fn to_float(bytes: &[u8], format: SampleFormat) -> Vec<f32> {
    let values = bytes.chunks_exact(format.bytes());
    match format {
        SampleFormat::F32 => values
            .map(|value| {
                let value = f32::from_le_bytes([value[0], value[1], value[2], value[3]]);
                // One bad value would stay in a filter's memory.
                if value.is_finite() { value } else { 0.0 }
            })
            .collect(),
        _ => values
            .map(|value| (f64::from(read_integer(value, format)) / 2_147_483_648.0) as f32)
            .collect(),
    }
}

/// Writes float values; integers are rounded and clipped.
pub(super) fn from_float(values: &[f32], bytes: &mut [u8], format: SampleFormat) {
    let places = bytes.chunks_exact_mut(format.bytes());
    match format {
        SampleFormat::F32 => {
            for (value, place) in values.iter().zip(places) {
                place.copy_from_slice(&value.to_le_bytes());
            }
        }
        _ => {
            let bits = 8 * format.bytes() as u32;
            let scale = f64::from(1u32 << (bits - 1));
            for (value, place) in values.iter().zip(places) {
                // `as` saturates at 32 bits; fewer are clipped here.
                let scaled = (f64::from(*value) * scale)
                    .round()
                    .clamp(-scale, scale - 1.0) as i32;
                match format {
                    SampleFormat::U8 => place[0] = (scaled + 128) as u8,
                    _ => place.copy_from_slice(&scaled.to_le_bytes()[..format.bytes()]),
                }
            }
        }
    }
}

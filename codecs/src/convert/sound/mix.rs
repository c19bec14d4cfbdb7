//! Channels into fewer or more channels.

/// One row of gains for each output channel.
#[derive(Debug)]
pub(super) struct Mix {
    inputs: usize,
    rows: Vec<Vec<f32>>,
}

/// -3 dB.
const HALF_POWER: f32 = std::f32::consts::FRAC_1_SQRT_2;

impl Mix {
    /// The usual mix for so many channels in WAVE order.
    pub(super) fn new(inputs: usize, outputs: usize) -> Self {
        let mut rows = vec![vec![0.0; inputs]; outputs];
        match (inputs, outputs) {
            (1, 2) => {
                rows[0][0] = 1.0;
                rows[1][0] = 1.0;
            }
            // One channel among many is the front centre.
            (1, 3..) => rows[2][0] = 1.0,
            (_, 1) => {
                // Through stereo, so that surround keeps its weight.
                let stereo = Self::new(inputs, 2);
                for (input, gain) in rows[0].iter_mut().enumerate() {
                    *gain = if inputs == 2 {
                        0.5
                    } else {
                        (stereo.rows[0][input] + stereo.rows[1][input]) / 2.0
                    };
                }
            }
            (3..=8, 2) => stereo(inputs, &mut rows),
            (8, 6) => {
                for (channel, row) in rows.iter_mut().enumerate() {
                    row[channel] = 1.0;
                }
                rows[4][6] = HALF_POWER;
                rows[5][7] = HALF_POWER;
                rows[4][4] = HALF_POWER;
                rows[5][5] = HALF_POWER;
            }
            _ => {
                // Nothing is known of the positions: what has a place keeps it, the others are folded in turn.
                for input in 0..inputs {
                    rows[input % outputs][input] = 1.0;
                }
            }
        }
        let loudest = rows
            .iter()
            .map(|row| row.iter().sum::<f32>())
            .fold(1.0, f32::max);
        for gain in rows.iter_mut().flatten() {
            *gain /= loudest;
        }
        Self { inputs, rows }
    }

    /// Mixes interleaved frames.
    pub(super) fn apply(&self, values: &[f32]) -> Vec<f32> {
        let mut mixed = Vec::with_capacity(values.len() / self.inputs * self.rows.len());
        for frame in values.chunks_exact(self.inputs) {
            for row in &self.rows {
                mixed.push(
                    row.iter()
                        .zip(frame)
                        .map(|(gain, value)| gain * value)
                        .sum(),
                );
            }
        }
        mixed
    }
}

/// ITU-R BS.775 for the usual layouts of 3 to 8 channels: 3.0, quad, 5.0, 5.1, 6.1, 7.1. The effects channel is left out.
fn stereo(inputs: usize, rows: &mut [Vec<f32>]) {
    type Gains = &'static [(usize, f32)];
    let (left, right): (Gains, Gains) = match inputs {
        3 => (&[(0, 1.0), (2, HALF_POWER)], &[(1, 1.0), (2, HALF_POWER)]),
        4 => (&[(0, 1.0), (2, HALF_POWER)], &[(1, 1.0), (3, HALF_POWER)]),
        5 => (
            &[(0, 1.0), (2, HALF_POWER), (3, HALF_POWER)],
            &[(1, 1.0), (2, HALF_POWER), (4, HALF_POWER)],
        ),
        6 => (
            &[(0, 1.0), (2, HALF_POWER), (4, HALF_POWER)],
            &[(1, 1.0), (2, HALF_POWER), (5, HALF_POWER)],
        ),
        // Front, centre, effects, back centre, sides.
        7 => (
            &[(0, 1.0), (2, HALF_POWER), (4, 0.5), (5, HALF_POWER)],
            &[(1, 1.0), (2, HALF_POWER), (4, 0.5), (6, HALF_POWER)],
        ),
        _ => (
            &[(0, 1.0), (2, HALF_POWER), (4, HALF_POWER), (6, HALF_POWER)],
            &[(1, 1.0), (2, HALF_POWER), (5, HALF_POWER), (7, HALF_POWER)],
        ),
    };
    for (row, gains) in rows.iter_mut().zip([left, right]) {
        for (input, gain) in gains {
            row[*input] = *gain;
        }
    }
}

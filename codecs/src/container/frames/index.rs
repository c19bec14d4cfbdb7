//! Places of frames that were seen, thinned so that memory stays bounded.

use super::Place;

/// Places kept; with more, every second one is forgotten.
const MAX_PLACES: usize = 8192;

/// A sparse index: every `step`th frame up to the furthest one seen.
#[derive(Debug)]
pub(super) struct FrameIndex {
    places: Vec<Place>,
    step: u64,
}

impl FrameIndex {
    pub(super) fn new(first: Place) -> Self {
        Self {
            places: vec![first],
            step: 32,
        }
    }

    /// Takes note of a frame's place.
    pub(super) fn note(&mut self, place: Place) {
        let last = self.places.last().copied().unwrap_or_default();
        if place.number < last.number + self.step || !place.number.is_multiple_of(self.step) {
            return;
        }
        self.places.push(place);
        if self.places.len() > MAX_PLACES {
            self.step *= 2;
            let step = self.step;
            self.places
                .retain(|place| place.number.is_multiple_of(step));
        }
    }

    /// A known place from which `preroll` frames can be decoded before the one that sounds at `units`.
    pub(super) fn before(&self, units: i64, preroll: u64) -> Place {
        let behind = self.places.partition_point(|place| place.units <= units);
        let mut at = behind.saturating_sub(1);
        let reached = self.places.get(at).copied().unwrap_or_default().number;
        // The steps are longer than any preroll: one back is enough, if it is needed at all.
        if at > 0 && preroll > 0 && reached > 0 {
            at -= 1;
        }
        self.places.get(at).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_small_and_finds_a_place_before() {
        let place = |number: u64| Place {
            number,
            byte: number * 100,
            units: number as i64 * 1024,
            pcm: number * 1024,
        };
        let mut index = FrameIndex::new(place(0));
        for number in 1..2_000_000 {
            index.note(place(number));
        }
        assert!(index.places.len() <= MAX_PLACES);
        for frame in [0, 1, 500_000, 1_999_999, 5_000_000] {
            let found = index.before(frame * 1024, 10);
            assert!(found.units <= frame * 1024);
            assert!(found.number == 0 || found.number + 10 <= frame as u64);
        }
    }
}

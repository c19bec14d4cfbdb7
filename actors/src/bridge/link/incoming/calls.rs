//! The peer's calls by their ids, which the peer chooses.

use std::collections::HashMap;

/// Places that are found without hashing. An honest peer numbers its calls by the places of a table of its own.
const PLACES: usize = 8 << 10;

/// Values by call ids: the low half of an id is a place in the caller's table.
pub(super) struct Calls<T> {
    places: Vec<Option<(u64, T)>>,
    /// Those whose place is taken, or beyond.
    others: HashMap<u64, T>,
    len: usize,
}

impl<T> Default for Calls<T> {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            others: HashMap::new(),
            len: 0,
        }
    }
}

impl<T> Calls<T> {
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn contains(&self, call: u64) -> bool {
        let in_place = self.places.get(place(call)).and_then(Option::as_ref);
        in_place.is_some_and(|(id, _)| *id == call) || self.others.contains_key(&call)
    }

    /// The caller has made sure that the id is free.
    pub(super) fn insert(&mut self, call: u64, value: T) {
        self.len += 1;
        let at = place(call);
        if at < PLACES && at >= self.places.len() {
            self.places.resize_with(at + 1, || None);
        }
        match self.places.get_mut(at) {
            Some(free @ None) => *free = Some((call, value)),
            _ => drop(self.others.insert(call, value)),
        }
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        let in_place = self.places.iter().flatten().map(|(_, value)| value);
        in_place.chain(self.others.values())
    }

    pub(super) fn get_mut(&mut self, call: u64) -> Option<&mut T> {
        match self.places.get_mut(place(call)) {
            Some(Some((id, value))) if *id == call => Some(value),
            _ => self.others.get_mut(&call),
        }
    }

    pub(super) fn remove(&mut self, call: u64) -> Option<T> {
        let removed = match self.places.get_mut(place(call)) {
            Some(taken @ Some(_)) if taken.as_ref().is_some_and(|(id, _)| *id == call) => {
                taken.take().map(|(_, value)| value)
            }
            _ => self.others.remove(&call),
        };
        self.len -= usize::from(removed.is_some());
        removed
    }
}

fn place(call: u64) -> usize {
    call as u32 as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_with_one_place_are_kept_apart_and_places_are_bounded() {
        let mut calls = Calls::default();
        let ids = [
            7,
            1 << 32 | 7,
            2 << 32 | 7,
            u64::MAX,
            0,
            u64::from(u32::MAX),
        ];
        for (value, id) in ids.into_iter().enumerate() {
            assert!(!calls.contains(id));
            calls.insert(id, value);
        }
        assert_eq!(calls.len(), ids.len());
        assert!(calls.places.len() <= PLACES);
        for (value, id) in ids.into_iter().enumerate() {
            assert!(calls.contains(id));
            assert_eq!(calls.get_mut(id), Some(&mut { value }));
            assert_eq!(calls.remove(id), Some(value));
            assert_eq!(calls.remove(id), None);
            assert!(!calls.contains(id));
        }
        assert_eq!(calls.len(), 0);
    }
}

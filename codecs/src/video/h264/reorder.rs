//! From decoding order to presentation order.

use std::collections::VecDeque;

/// Holds decoded pictures back until no later one can precede them.
///
/// Order is by picture order count within an epoch; an epoch ends where the count starts again (IDR). How many are held
/// is what the stream says it needs, at most 16.
#[derive(Debug)]
pub(super) struct Reorder<T> {
    held: Vec<(i32, T)>,
    ready: VecDeque<T>,
}

impl<T> Default for Reorder<T> {
    fn default() -> Self {
        Self {
            held: Vec::new(),
            ready: VecDeque::new(),
        }
    }
}

impl<T> Reorder<T> {
    /// Adds a picture in decoding order; what more than `depth` held ones push out becomes ready.
    pub(super) fn push(&mut self, order: i32, picture: T, depth: usize) {
        let at = self.held.partition_point(|(held, _)| *held <= order);
        self.held.insert(at, (order, picture));
        while self.held.len() > depth {
            let (_, first) = self.held.remove(0);
            self.ready.push_back(first);
        }
    }

    /// Ends the epoch: everything that is held becomes ready.
    pub(super) fn end_epoch(&mut self) {
        self.ready
            .extend(self.held.drain(..).map(|(_, picture)| picture));
    }

    /// The next picture in presentation order.
    pub(super) fn pop(&mut self) -> Option<T> {
        self.ready.pop_front()
    }

    pub(super) fn clear(&mut self) {
        self.held.clear();
        self.ready.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pyramid_comes_out_in_order_with_the_least_delay() {
        let mut reorder = Reorder::default();
        let mut seen = Vec::new();
        for order in [0, 8, 4, 2, 6, 16, 12, 10, 14] {
            reorder.push(order, order, 2);
            while let Some(picture) = reorder.pop() {
                seen.push(picture);
            }
        }
        assert_eq!(seen, [0, 2, 4, 6, 8, 10, 12]);
        reorder.end_epoch();
        reorder.push(0, 100, 2);
        let rest: Vec<_> = std::iter::from_fn(|| reorder.pop()).collect();
        assert_eq!(rest, [14, 16]);
    }
}

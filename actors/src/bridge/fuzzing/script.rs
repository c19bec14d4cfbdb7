//! The input of a fuzz target, read as numbers; behind its end they are zeros.

/// What is left of a script.
pub(super) struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((byte, rest)) => {
                self.0 = rest;
                *byte
            }
            None => 0,
        }
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        let both = u16::from_le_bytes([self.byte(), self.byte()]);
        usize::from(both) % bound.max(1)
    }

    pub(super) fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// A number that is small, or at an edge, or any.
    pub(super) fn number(&mut self) -> u64 {
        match self.byte() {
            small @ ..200 => u64::from(small % 8),
            200..210 => 1 << 32 | u64::from(self.byte() % 8),
            210..220 => u64::MAX - u64::from(self.byte() % 4),
            220..230 => u64::from(u32::MAX),
            230..240 => 1 << (self.byte() % 64),
            _ => {
                let mut any = [0; 8];
                let bytes = self.bytes(8);
                any[..bytes.len()].copy_from_slice(bytes);
                u64::from_le_bytes(any)
            }
        }
    }
}

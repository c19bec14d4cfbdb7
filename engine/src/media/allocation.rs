//! What a consumer asks of the memory in which samples come to it.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What a consumer asks of the memory in which samples come to it. The producer takes memory by it from the first sample on, so
/// that nothing has to be copied into better memory later.
///
/// It holds for payloads in shared memory. A payload of at most 2 KiB may cross a process wall inside of its message, and one
/// that came when no shared memory was free is copied on the way: a consumer that cannot do without checks what it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AllocationRequirements {
    /// Bytes that the memory of each payload has at least, also where the payload is shorter.
    pub size: u32,
    /// Where it begins: at a multiple of this, a power of two up to 4096.
    pub alignment: u32,
    /// Payloads that the consumer keeps while it asks for more.
    pub count: u32,
}

impl Default for AllocationRequirements {
    fn default() -> Self {
        Self {
            size: 0,
            alignment: 1,
            count: 0,
        }
    }
}

impl AllocationRequirements {
    /// The largest alignment that can be asked for: a page.
    pub const MAX_ALIGNMENT: u32 = 4096;

    /// Whether nothing in particular is asked for.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Refuses what makes no sense: it may come from another process.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub fn check(&self) -> Result<()> {
        let alignment = self.alignment;
        if !alignment.is_power_of_two() || alignment > Self::MAX_ALIGNMENT {
            let most = Self::MAX_ALIGNMENT;
            return Err(Error::invalid_argument(format!(
                "memory aligned to {alignment} bytes: it must be a power of two up to {most}"
            )));
        }
        Ok(())
    }

    /// What satisfies both consumers of one producer, each of which keeps its own.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            size: self.size.max(other.size),
            alignment: self.alignment.max(other.alignment),
            count: self.count.saturating_add(other.count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_consumers_get_what_satisfies_both() {
        let one = AllocationRequirements {
            size: 100,
            alignment: 64,
            count: 2,
        };
        let other = AllocationRequirements {
            size: 4000,
            alignment: 16,
            count: u32::MAX,
        };
        let both = AllocationRequirements {
            size: 4000,
            alignment: 64,
            count: u32::MAX,
        };
        assert_eq!(one.and(other), both);
        assert_eq!(one.and(AllocationRequirements::default()), one);
        assert!(AllocationRequirements::default().is_none());
    }

    #[test]
    fn an_alignment_is_a_power_of_two_up_to_a_page() {
        for (alignment, is_good) in [
            (0, false),
            (1, true),
            (3, false),
            (4096, true),
            (8192, false),
        ] {
            let asked = AllocationRequirements {
                alignment,
                ..AllocationRequirements::default()
            };
            assert_eq!(asked.check().is_ok(), is_good, "{alignment}");
        }
    }
}

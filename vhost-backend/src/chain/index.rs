//! Exact look-up of what a packet carries: an SPI, a MAC address.
//!
//! ```text
//! key --product--> place     slot: key:40..48 | value:16..24, one word     next slot while another key is in it
//! ```
//!
//! One word an entry and neighbours in turn, so that a look-up reads one cache line, whether the key is there or not.

use crate::ring::prefetch;

/// A key as wide as `64 - VALUE_BITS` bits to a value of `VALUE_BITS` bits; immutable once it is in use.
///
/// The keys are the operator's, a guest only asks for them, so the hash needs no secret.
#[derive(Debug, Default)]
pub(super) struct Index<const VALUE_BITS: u32> {
    /// A third of them is [`EMPTY`] at least, so that every search ends soon.
    slots: Box<[u64]>,
}

/// No entry. Its key would be all ones, which no individual MAC address is and no SPI is wide enough for.
const EMPTY: u64 = u64::MAX;

impl<const VALUE_BITS: u32> Index<VALUE_BITS> {
    /// Of keys that differ from each other, all of them narrow enough and none all ones.
    pub(super) fn new(entries: impl ExactSizeIterator<Item = (u64, u32)>) -> Self {
        let mut index = Self::with_room(entries.len());
        for (key, value) in entries {
            index.put(key, value);
        }
        index
    }

    /// An empty one with room for so many keys, and not for more.
    pub(super) fn with_room(keys: usize) -> Self {
        let slots = if keys == 0 { 0 } else { keys.saturating_mul(3).div_ceil(2).max(4) };
        Self { slots: vec![EMPTY; slots].into() }
    }

    /// Puts a key in that is narrow enough and not all ones; false if it is there already, and its value stays.
    pub(super) fn put(&mut self, key: u64, value: u32) -> bool {
        debug_assert!(key < EMPTY >> VALUE_BITS && u64::from(value) < 1 << VALUE_BITS);
        let mut at = self.place(key);
        while let Some(slot) = self.slots.get_mut(at) {
            if *slot == EMPTY {
                *slot = key << VALUE_BITS | u64::from(value);
                return true;
            }
            if *slot >> VALUE_BITS == key {
                return false;
            }
            at = self.after(at);
        }
        false
    }

    /// The value of a key.
    #[inline]
    pub(super) fn find(&self, key: u64) -> Option<u32> {
        let mut at = self.place(key);
        loop {
            let slot = *self.slots.get(at)?;
            if slot == EMPTY {
                return None;
            }
            if slot >> VALUE_BITS == key {
                return Some((slot & !(EMPTY << VALUE_BITS)) as u32);
            }
            at = self.after(at);
        }
    }

    /// Asks the cache for what a look-up of the key reads first.
    #[inline]
    pub(super) fn prefetch(&self, key: u64) {
        if let Some(slot) = self.slots.get(self.place(key)) {
            prefetch(slot);
        }
    }

    /// Multiplied by 2^64 over the golden ratio, keys in a row come to lie apart; the high half of the product with the
    /// number of slots is a place among them.
    #[inline]
    fn place(&self, key: u64) -> usize {
        let hash = key.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (u128::from(hash).wrapping_mul(self.slots.len() as u128) >> 64) as usize
    }

    #[inline]
    fn after(&self, at: usize) -> usize {
        let next = at.saturating_add(1);
        if next < self.slots.len() { next } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_one_has_nothing() {
        assert_eq!(Index::<16>::new([].into_iter()).find(0), None);
        assert_eq!(Index::<16>::default().find(7), None);
    }

    #[test]
    fn the_broadcast_address_is_no_entry() {
        let index = Index::<16>::new([(1, 1)].into_iter());
        assert_eq!(index.find((1 << 48) - 1), None);
    }

    /// How operators number: in a row, in steps of a power of two, by blocks; a search stays within a few lines.
    #[test]
    fn numbers_in_any_usual_order_lie_apart() {
        let steps: [fn(u64) -> u64; 5] = [
            |i| i,
            |i| i << 8,
            |i| i << 9 & 0xFF_FFFF | i >> 15,
            |i| i * 1000 % 0xFF_FFFF,
            |i| i << 16 & 0xFF_0000 | i >> 8,
        ];
        for (number, step) in steps.iter().enumerate() {
            let keys = (0..16_000).map(step);
            let index = Index::<24>::new(keys.clone().zip(0..).collect::<Vec<_>>().into_iter());
            let mut longest = 0;
            for (key, value) in keys.zip(0..) {
                assert_eq!(index.find(key), Some(value));
            }
            let mut run = 0;
            for slot in &index.slots {
                run = if *slot == EMPTY { 0 } else { run + 1 };
                longest = longest.max(run);
            }
            assert!(longest < 64, "{longest} in a row, numbering {number}");
        }
    }

    proptest! {
        #[test]
        fn finds_what_was_put_in_and_nothing_else(
            entries in proptest::collection::hash_map(0..300_u64, 0..1_u32 << 16, 0..200),
            far in proptest::collection::hash_map(0..(1_u64 << 48) - 1, 0..1_u32 << 16, 0..20),
        ) {
            let entries: HashMap<u64, u32> = entries.into_iter().chain(far).collect();
            let index = Index::<16>::new(entries.iter().map(|(key, value)| (*key, *value)));
            for key in (0..320).chain(entries.keys().copied()) {
                prop_assert_eq!(index.find(key), entries.get(&key).copied());
            }
            let mut again = Index::<16>::with_room(entries.len());
            prop_assert!(entries.iter().all(|(key, value)| again.put(*key, *value)));
            prop_assert!(entries.keys().all(|key| !again.put(*key, 1)), "once");
            prop_assert!(entries.iter().all(|(key, value)| again.find(*key) == Some(*value)));
        }
    }
}

//! A map for few entries that come and go often and are asked for by range: a sorted list.
//!
//! A tree allocates for its first entry and frees with its last; a DPC that is queued and runs is both. Here the memory stays, and an
//! empty map is one comparison. It moves what lies behind an entry that comes or goes, so for thousands a `BTreeMap` is better.

use std::ops::Range;

/// A map that goes through its entries by key.
pub(crate) struct SortedMap<K, V> {
    entries: Vec<(K, V)>,
}

impl<K, V> Default for SortedMap<K, V> {
    fn default() -> Self {
        Self { entries: Vec::new() }
    }
}

impl<K: Copy + Ord, V> SortedMap<K, V> {
    /// Whether there is nothing in it.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Where a key lies, or would.
    #[inline]
    fn place(&self, key: &K) -> Result<usize, usize> {
        // One or none is what there is mostly.
        match self.entries.as_slice() {
            [] => Err(0),
            [(only, _)] if only == key => Ok(0),
            all => all.binary_search_by(|(other, _)| other.cmp(key)),
        }
    }

    /// The value under `key`.
    #[inline]
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.place(key).ok().map(|place| &self.entries[place].1)
    }

    /// As [`SortedMap::get`], to change it.
    #[inline]
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.place(key).ok().map(|place| &mut self.entries[place].1)
    }

    /// Whether there is a value under `key`.
    #[inline]
    pub(crate) fn contains_key(&self, key: &K) -> bool {
        self.place(key).is_ok()
    }

    /// Puts a value in; what was there before.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.place(&key) {
            Ok(place) => Some(std::mem::replace(&mut self.entries[place].1, value)),
            Err(place) => {
                self.put(place, key, value);
                None
            }
        }
    }

    /// The value under `key`; if there is none, what `make` makes is put there.
    pub(crate) fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        let place = match self.place(&key) {
            Ok(place) => place,
            Err(place) => {
                self.put(place, key, make());
                place
            }
        };
        &mut self.entries[place].1
    }

    /// Puts an entry in where it belongs. Mostly that is the end, where nothing moves.
    #[inline]
    fn put(&mut self, place: usize, key: K, value: V) {
        if place == self.entries.len() {
            self.entries.push((key, value));
        } else {
            self.entries.insert(place, (key, value));
        }
    }

    /// Takes an entry out.
    #[inline]
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let place = self.place(key).ok()?;
        let last = place + 1 == self.entries.len();
        let entry = if last { self.entries.pop() } else { Some(self.entries.remove(place)) };
        entry.map(|(_, value)| value)
    }

    /// The entries from the first key of `keys` on, ascending.
    #[inline]
    pub(crate) fn range(&self, keys: Range<K>) -> impl Iterator<Item = (&K, &V)> {
        let from =
            if self.is_empty() { 0 } else { self.entries.partition_point(|(key, _)| *key < keys.start) };
        let within = self.entries[from..].iter().take_while(move |(key, _)| *key < keys.end);
        within.map(|(key, value)| (key, value))
    }

    /// All entries, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, value)| (key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_answers_as_a_tree_does_whatever_comes_and_goes() {
        let mut map = SortedMap::default();
        let mut model = std::collections::BTreeMap::new();
        let mut state: u64 = 1;
        for step in 0..5_000_u64 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let key = (state >> 40) % 40;
            match state >> 32 & 3 {
                0 => assert_eq!(map.insert(key, step), model.insert(key, step)),
                1 => assert_eq!(map.get_or_insert_with(key, || step), model.entry(key).or_insert(step)),
                _ => assert_eq!(map.remove(&key), model.remove(&key)),
            }
            assert_eq!(map.is_empty(), model.is_empty());
            assert_eq!(map.get(&key), model.get(&key));
            assert_eq!(map.get_mut(&key), model.get_mut(&key));
            assert_eq!(map.contains_key(&key), model.contains_key(&key));
            assert!(map.range(key..key + 7).eq(model.range(key..key + 7)));
            assert!(map.iter().eq(model.iter()));
        }
    }
}

//! What the kernel knows of the things at addresses: a map that finds an address in one step, whatever its size.
//!
//! An open table with a fixed hash, so it is as deterministic as its users. Nothing may depend on the order in it:
//! [`AddressMap::sorted`] and [`AddressMap::keys`] are by address, and cost a sort. For a few entries, or where ranges are asked for
//! often, a `BTreeMap` is better.

use std::cell::Cell;

/// A map by machine address.
pub struct AddressMap<V> {
    /// A power of two of places, [`NOTHING`] where there is no entry; one lies at its hash or in the run of entries behind it.
    /// Apart from the values, so that a search stays in one cache line.
    keys: Vec<u64>,
    values: Vec<Option<V>>,
    used: usize,
    /// Where an entry was found last: mostly the same is asked for again.
    last: Cell<usize>,
}

/// No address of the machine's: the last byte there is.
const NOTHING: u64 = u64::MAX;

/// Places of the smallest table.
const SMALLEST: usize = 16;

impl<V> Default for AddressMap<V> {
    fn default() -> Self {
        Self { keys: Vec::new(), values: Vec::new(), used: 0, last: Cell::new(0) }
    }
}

impl<V> AddressMap<V> {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.used
    }

    /// What is known of the thing at `address`.
    #[must_use]
    #[inline]
    pub fn get(&self, address: u64) -> Option<&V> {
        let place = self.find(address)?;
        self.values[place].as_ref()
    }

    /// As [`AddressMap::get`], to change it.
    #[inline]
    pub fn get_mut(&mut self, address: u64) -> Option<&mut V> {
        let place = self.find(address)?;
        self.values[place].as_mut()
    }

    /// As [`AddressMap::get`], for who has noted where it lay ([`AddressMap::place`]), which may be where it lies still.
    #[must_use]
    #[inline]
    pub fn get_near(&self, place: usize, address: u64) -> Option<&V> {
        self.values[self.place(place, address)?].as_ref()
    }

    /// As [`AddressMap::get_near`], to change it.
    #[inline]
    pub fn get_near_mut(&mut self, place: usize, address: u64) -> Option<&mut V> {
        let place = self.place(place, address)?;
        self.values[place].as_mut()
    }

    /// Where the entry for `address` lies, until one comes or goes; `near` is where it may.
    #[must_use]
    #[inline]
    pub fn place(&self, near: usize, address: u64) -> Option<usize> {
        if self.is_at(near, address) { Some(near) } else { self.find(address) }
    }

    /// Changes the entry for `address`, if there is one.
    #[inline]
    pub fn change(&mut self, address: u64, change: impl FnOnce(&mut V)) {
        if let Some(value) = self.get_mut(address) {
            change(value);
        }
    }

    /// Whether there is an entry for `address`.
    #[must_use]
    #[inline]
    pub fn contains(&self, address: u64) -> bool {
        self.find(address).is_some()
    }

    /// The place of an entry at any address but the last, whoever is there: to be filled at once.
    #[inline]
    pub fn slot(&mut self, address: u64) -> &mut Option<V> {
        let place = match self.find(address) {
            Some(place) => place,
            None => self.open(address),
        };
        &mut self.values[place]
    }

    /// A place for an entry at an address that has none.
    fn open(&mut self, address: u64) -> usize {
        assert!(address != NOTHING, "nothing lies at the last byte");
        if self.used * 2 >= self.keys.len() {
            self.grow();
        }
        self.used += 1;
        self.take_place(address)
    }

    /// The first place that is free from its home on is `address`'s.
    #[inline]
    fn take_place(&mut self, address: u64) -> usize {
        let mut place = self.home(address);
        while self.keys[place] != NOTHING {
            place = self.after(place);
        }
        self.keys[place] = address;
        place
    }

    /// Puts an entry in, at any address but the last; what was there before.
    #[inline]
    pub fn insert(&mut self, address: u64, value: V) -> Option<V> {
        self.slot(address).replace(value)
    }

    /// Takes an entry out.
    pub fn remove(&mut self, address: u64) -> Option<V> {
        let place = self.find(address)?;
        let value = self.values[place].take();
        self.close(place);
        value
    }

    /// As [`AddressMap::remove`], for who does not want it; `place` is where it may lie.
    #[inline]
    pub fn forget(&mut self, place: usize, address: u64) {
        if let Some(place) = self.place(place, address) {
            self.values[place] = None;
            self.close(place);
        }
    }

    /// The entry at this place is taken out.
    #[inline]
    fn close(&mut self, mut gap: usize) {
        self.used -= 1;
        // Entries behind it that could not have their own place come nearer to it.
        let mut next = self.after(gap);
        while self.keys[next] != NOTHING {
            let home = self.home(self.keys[next]);
            let distance = |from: usize| next.wrapping_sub(from) & (self.keys.len() - 1);
            if distance(home) >= distance(gap) {
                self.keys[gap] = self.keys[next];
                self.values.swap(gap, next);
                gap = next;
            }
            next = self.after(next);
        }
        self.keys[gap] = NOTHING;
    }

    /// All entries, in no order that anything may depend on.
    pub fn unordered(&self) -> impl Iterator<Item = (u64, &V)> {
        let places = self.keys.iter().zip(&self.values);
        places.filter_map(|(address, value)| Some((*address, value.as_ref()?)))
    }

    /// All entries by address.
    #[must_use]
    pub fn sorted(&self) -> Vec<(u64, &V)> {
        let mut all: Vec<(u64, &V)> = self.unordered().collect();
        all.sort_unstable_by_key(|(address, _)| *address);
        all
    }

    /// All addresses, ascending.
    #[must_use]
    pub fn keys(&self) -> Vec<u64> {
        self.keys_where(|_| true)
    }

    /// The addresses whose entries `wanted` accepts, ascending.
    #[must_use]
    pub fn keys_where(&self, wanted: impl Fn(&V) -> bool) -> Vec<u64> {
        let own = self.unordered().filter(|(_, value)| wanted(value));
        let mut keys: Vec<u64> = own.map(|(address, _)| address).collect();
        keys.sort_unstable();
        keys
    }

    #[inline]
    fn find(&self, address: u64) -> Option<usize> {
        let last = self.last.get();
        if self.is_at(last, address) { Some(last) } else { self.search(address) }
    }

    #[inline]
    fn is_at(&self, place: usize, address: u64) -> bool {
        self.keys.get(place) == Some(&address) && address != NOTHING
    }

    fn search(&self, address: u64) -> Option<usize> {
        if self.used == 0 || address == NOTHING {
            return None;
        }
        let mut place = self.home(address);
        loop {
            match self.keys[place] {
                key if key == address => {
                    self.last.set(place);
                    return Some(place);
                }
                NOTHING => return None,
                _ => place = self.after(place),
            }
        }
    }

    #[cold]
    fn grow(&mut self) {
        let size = (self.keys.len() * 2).max(SMALLEST);
        let keys = std::mem::replace(&mut self.keys, vec![NOTHING; size]);
        let none = std::iter::repeat_with(|| None);
        let values = std::mem::replace(&mut self.values, none.take(size).collect());
        for (address, value) in keys.into_iter().zip(values) {
            if let Some(value) = value {
                let place = self.take_place(address);
                self.values[place] = Some(value);
            }
        }
    }

    /// Where an address would best lie: the upper bits of a product, which depend on all of its own.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "the upper half of 64 bits fits")]
    fn home(&self, address: u64) -> usize {
        let mixed = address.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        mixed as usize & (self.keys.len() - 1)
    }

    #[inline]
    fn after(&self, place: usize) -> usize {
        (place + 1) & (self.keys.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_answers_as_an_ordered_map_does_whatever_comes_and_goes() {
        let mut map = AddressMap::default();
        let mut model = std::collections::BTreeMap::new();
        let mut state: u64 = 1;
        for step in 0..20_000_u64 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let address = 0x2020_0000_0000 + (state >> 40) % 700 * 16;
            if state >> 33 & 1 == 0 {
                assert_eq!(map.insert(address, step), model.insert(address, step));
            } else {
                assert_eq!(map.remove(address), model.remove(&address));
            }
            assert_eq!(map.len(), model.len());
        }
        assert!(map.keys().iter().eq(model.keys()));
        for (address, value) in &model {
            assert_eq!(map.get(*address), Some(value));
        }
    }

    #[test]
    fn an_empty_map_knows_nothing() {
        let map = AddressMap::<u8>::default();
        assert!(map.is_empty() && map.get(0).is_none());
    }

    #[test]
    fn a_wild_pointer_is_no_entry_in_a_map_that_has_some() {
        let mut map = AddressMap::default();
        map.insert(0, 'a');
        assert_eq!((map.get(0), map.get(u64::MAX)), (Some(&'a'), None));
    }
}

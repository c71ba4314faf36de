//! What the kernel knows of the things at addresses: a map that finds an address in one step, whatever its size.
//!
//! An open table with a fixed hash, so it is as deterministic as its users. Nothing may depend on the order in it:
//! [`AddressMap::sorted`] and [`AddressMap::keys`] are by address, and cost a sort. For a few entries, or where ranges are asked for
//! often, a `BTreeMap` is better.

/// A map by machine address.
pub struct AddressMap<V> {
    /// A power of two of places; an entry lies at its hash or in the run of entries behind it.
    places: Vec<Option<(u64, V)>>,
    used: usize,
}

/// Places of the smallest table.
const SMALLEST: usize = 16;

impl<V> Default for AddressMap<V> {
    fn default() -> Self {
        Self { places: Vec::new(), used: 0 }
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
    pub fn get(&self, address: u64) -> Option<&V> {
        let place = self.find(address)?;
        self.places[place].as_ref().map(|(_, value)| value)
    }

    /// As [`AddressMap::get`], to change it.
    pub fn get_mut(&mut self, address: u64) -> Option<&mut V> {
        let place = self.find(address)?;
        self.places[place].as_mut().map(|(_, value)| value)
    }

    /// Changes the entry for `address`, if there is one.
    pub fn change(&mut self, address: u64, change: impl FnOnce(&mut V)) {
        if let Some(value) = self.get_mut(address) {
            change(value);
        }
    }

    /// Whether there is an entry for `address`.
    #[must_use]
    pub fn contains(&self, address: u64) -> bool {
        self.find(address).is_some()
    }

    /// Puts an entry in; what was there before.
    pub fn insert(&mut self, address: u64, value: V) -> Option<V> {
        if let Some(place) = self.find(address) {
            return self.places[place].replace((address, value)).map(|(_, value)| value);
        }
        if self.used * 2 >= self.places.len() {
            self.grow();
        }
        self.put(address, value);
        self.used += 1;
        None
    }

    /// Takes an entry out.
    pub fn remove(&mut self, address: u64) -> Option<V> {
        let mut gap = self.find(address)?;
        let (_, value) = self.places[gap].take()?;
        self.used -= 1;
        // Entries behind it that could not have their own place come nearer to it.
        let mut next = self.after(gap);
        while let Some((key, _)) = &self.places[next] {
            let home = self.home(*key);
            let distance = |from: usize| next.wrapping_sub(from) & (self.places.len() - 1);
            if distance(home) >= distance(gap) {
                self.places.swap(gap, next);
                gap = next;
            }
            next = self.after(next);
        }
        Some(value)
    }

    /// All entries, in no order that anything may depend on.
    pub fn unordered(&self) -> impl Iterator<Item = (u64, &V)> {
        self.places.iter().flatten().map(|(address, value)| (*address, value))
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

    fn find(&self, address: u64) -> Option<usize> {
        if self.used == 0 {
            return None;
        }
        let mut place = self.home(address);
        loop {
            match &self.places[place] {
                Some((key, _)) if *key == address => return Some(place),
                Some(_) => place = self.after(place),
                None => return None,
            }
        }
    }

    fn put(&mut self, address: u64, value: V) {
        let mut place = self.home(address);
        while self.places[place].is_some() {
            place = self.after(place);
        }
        self.places[place] = Some((address, value));
    }

    fn grow(&mut self) {
        let size = (self.places.len() * 2).max(SMALLEST);
        let old = std::mem::replace(&mut self.places, std::iter::repeat_with(|| None).take(size).collect());
        for (address, value) in old.into_iter().flatten() {
            self.put(address, value);
        }
    }

    /// Where an address would best lie: the upper bits of a product, which depend on all of its own.
    #[allow(clippy::cast_possible_truncation, reason = "the upper half of 64 bits fits")]
    fn home(&self, address: u64) -> usize {
        let mixed = address.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        mixed as usize & (self.places.len() - 1)
    }

    fn after(&self, place: usize) -> usize {
        (place + 1) & (self.places.len() - 1)
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
}

//! What the kernel knows of the things at addresses: a map that finds an address in one step, whatever its size.
//!
//! An open table with a fixed hash, so it is as deterministic as its users. Nothing may depend on the order in it:
//! [`AddressMap::sorted`] and [`AddressMap::keys`] are by address, and cost a sort. For a few entries, or where ranges are asked for
//! often, a `BTreeMap` is better.
//!
//! The table holds addresses and the numbers of their entries; the entries lie elsewhere, side by side, and stay where they are. So a
//! table that is half empty costs 12 bytes a place, whatever is known of a thing, and with an entry's number no search is needed.

use std::cell::Cell;

/// A map by machine address.
pub struct AddressMap<V> {
    /// A power of two of places, [`NOTHING`] where there is no entry; an address lies at its hash or in the run behind it.
    /// Apart from the numbers, so that a search stays in one cache line.
    addresses: Vec<u64>,
    /// The entry of each.
    numbers: Vec<u32>,
    entries: Entries<V>,
    used: usize,
    /// The entry that was found last: mostly the same is asked for again.
    last: Cell<u32>,
}

/// No address of the machine's: the last byte there is.
const NOTHING: u64 = u64::MAX;

/// Places of the smallest table.
const SMALLEST: usize = 16;

/// Entries of a chunk: all lie in chunks of so many, because a table that moves as it grows leaves a hole of its own size.
const CHUNK: usize = 64;

/// The entries, by number.
struct Entries<V> {
    chunks: Vec<Box<[Entry<V>; CHUNK]>>,
    /// Numbers that are free; those that were never used are above all others.
    spare: Vec<u32>,
    /// How many were ever used.
    used: u32,
}

struct Entry<V> {
    /// [`NOTHING`]: it is free.
    address: u64,
    value: Option<V>,
}

impl<V> Entries<V> {
    #[inline]
    fn get(&self, number: u32) -> Option<&Entry<V>> {
        Some(&self.chunks.get(number as usize / CHUNK)?[number as usize % CHUNK])
    }

    #[inline]
    fn at_mut(&mut self, number: u32) -> &mut Entry<V> {
        &mut self.chunks[number as usize / CHUNK][number as usize % CHUNK]
    }

    /// The number of an entry that is free from now on for this address.
    #[inline]
    fn open(&mut self, address: u64) -> u32 {
        let number = self.spare.pop().unwrap_or_else(|| self.first_unused());
        self.at_mut(number).address = address;
        number
    }

    #[cold]
    fn first_unused(&mut self) -> u32 {
        let number = self.used;
        if number as usize == self.chunks.len() * CHUNK {
            self.chunks.push(Box::new([const { Entry { address: NOTHING, value: None } }; CHUNK]));
        }
        self.used = number.checked_add(1).expect("memory ends before the numbers do");
        number
    }

    /// What was in an entry, which is free now.
    #[inline]
    fn close(&mut self, number: u32) -> Option<V> {
        let entry = self.at_mut(number);
        entry.address = NOTHING;
        let value = entry.value.take();
        self.spare.push(number);
        value
    }
}

impl<V> Default for AddressMap<V> {
    fn default() -> Self {
        let entries = Entries { chunks: Vec::new(), spare: Vec::new(), used: 0 };
        Self { addresses: Vec::new(), numbers: Vec::new(), entries, used: 0, last: Cell::new(0) }
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
        // A free entry has an address that is never used, and no value.
        match self.entries.get(self.last.get()) {
            Some(entry) if entry.address == address => entry.value.as_ref(),
            _ => self.at(self.find(address)?),
        }
    }

    /// As [`AddressMap::get`], to change it.
    #[inline]
    pub fn get_mut(&mut self, address: u64) -> Option<&mut V> {
        self.get_mut_at_hint(self.last.get(), address)
    }

    /// As [`AddressMap::get`], for who has noted the number of its entry ([`AddressMap::number`]), which may be another's by now.
    #[must_use]
    #[inline]
    pub fn get_at_hint(&self, number: u32, address: u64) -> Option<&V> {
        let number = self.number(number, address)?;
        self.entries.get(number)?.value.as_ref()
    }

    /// As [`AddressMap::get_at_hint`], to change it.
    #[inline]
    pub fn get_mut_at_hint(&mut self, number: u32, address: u64) -> Option<&mut V> {
        let number = self.number(number, address)?;
        self.entries.at_mut(number).value.as_mut()
    }

    /// What is known of the thing whose entry has this number.
    #[must_use]
    #[inline]
    pub fn at(&self, number: u32) -> Option<&V> {
        self.entries.get(number)?.value.as_ref()
    }

    /// As [`AddressMap::at`], to change it.
    ///
    /// # Panics
    /// If there was never such an entry.
    #[inline]
    pub fn at_mut(&mut self, number: u32) -> Option<&mut V> {
        self.entries.at_mut(number).value.as_mut()
    }

    /// The number of the entry for `address`, which it keeps for as long as it is there; `near` is one that it may be.
    #[must_use]
    #[inline]
    pub fn number(&self, near: u32, address: u64) -> Option<u32> {
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

    /// The place of an entry at any address but the last, whether one is there or not: to be filled at once.
    #[inline]
    pub fn slot(&mut self, address: u64) -> &mut Option<V> {
        let number = match self.find(address) {
            Some(number) => number,
            None => self.open(address),
        };
        &mut self.entries.at_mut(number).value
    }

    /// The number of a new entry, at an address that has none.
    fn open(&mut self, address: u64) -> u32 {
        assert!(address != NOTHING, "nothing lies at the last byte");
        if self.used * 2 >= self.addresses.len() {
            self.grow();
        }
        self.used += 1;
        let number = self.entries.open(address);
        self.take_place(address, number);
        number
    }

    /// The first place that is free from its home on is `address`'s.
    #[inline]
    fn take_place(&mut self, address: u64, number: u32) {
        let mut place = self.home(address);
        while self.addresses[place] != NOTHING {
            place = self.after(place);
        }
        (self.addresses[place], self.numbers[place]) = (address, number);
    }

    /// Puts an entry in, at any address but the last; what was there before.
    #[inline]
    pub fn insert(&mut self, address: u64, value: V) -> Option<V> {
        self.slot(address).replace(value)
    }

    /// Takes an entry out.
    #[inline]
    pub fn remove(&mut self, address: u64) -> Option<V> {
        let place = self.search(address)?;
        let value = self.entries.close(self.numbers[place]);
        self.close(place);
        value
    }

    /// The address at this place of the table is taken out.
    #[inline]
    fn close(&mut self, mut gap: usize) {
        self.used -= 1;
        // Those behind it that could not have their own place come nearer to it.
        let mut next = self.after(gap);
        while self.addresses[next] != NOTHING {
            let home = self.home(self.addresses[next]);
            let distance = |from: usize| next.wrapping_sub(from) & (self.addresses.len() - 1);
            if distance(home) >= distance(gap) {
                (self.addresses[gap], self.numbers[gap]) = (self.addresses[next], self.numbers[next]);
                gap = next;
            }
            next = self.after(next);
        }
        self.addresses[gap] = NOTHING;
    }

    /// All entries, in no order that anything may depend on.
    pub fn unordered(&self) -> impl Iterator<Item = (u64, &V)> {
        let entries = self.entries.chunks.iter().flat_map(|chunk| chunk.iter());
        entries.filter_map(|entry| Some((entry.address, entry.value.as_ref()?)))
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
    fn find(&self, address: u64) -> Option<u32> {
        let last = self.last.get();
        if self.is_at(last, address) {
            return Some(last);
        }
        let number = self.numbers[self.search(address)?];
        self.last.set(number);
        Some(number)
    }

    #[inline]
    fn is_at(&self, number: u32, address: u64) -> bool {
        self.entries.get(number).is_some_and(|entry| entry.address == address) && address != NOTHING
    }

    /// Where an address lies in the table.
    fn search(&self, address: u64) -> Option<usize> {
        if self.addresses.is_empty() || address == NOTHING {
            return None;
        }
        let mut place = self.home(address);
        loop {
            match self.addresses[place] {
                there if there == address => return Some(place),
                NOTHING => return None,
                _ => place = self.after(place),
            }
        }
    }

    #[cold]
    fn grow(&mut self) {
        let size = (self.addresses.len() * 2).max(SMALLEST);
        let addresses = std::mem::replace(&mut self.addresses, vec![NOTHING; size]);
        let numbers = std::mem::replace(&mut self.numbers, vec![0; size]);
        for (address, number) in addresses.into_iter().zip(numbers) {
            if address != NOTHING {
                self.take_place(address, number);
            }
        }
    }

    /// Where an address would best lie: the upper bits of a product, which depend on all of its own.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "the upper half of 64 bits fits")]
    fn home(&self, address: u64) -> usize {
        let mixed = address.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        mixed as usize & (self.addresses.len() - 1)
    }

    #[inline]
    fn after(&self, place: usize) -> usize {
        (place + 1) & (self.addresses.len() - 1)
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

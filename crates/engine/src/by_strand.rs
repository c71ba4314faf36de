//! Things of strands, found by the strand's number.
//!
//! Strands are numbered from 1 on and never again. A machine that runs for long makes many and has few at a time, so the table
//! is made of boxes with room for the things of some neighbours, and a box goes when it is empty: what ended costs half a
//! byte. A thing stays where it is until it is removed.

use crate::strand::StrandId;

/// Neighbours in a box.
const NEIGHBOURS: usize = 16;

/// Things of neighbours.
struct Neighbours<T> {
    held: usize,
    things: [Option<T>; NEIGHBOURS],
}

/// A table of what strands have.
pub struct ByStrand<T>(Vec<Option<Box<Neighbours<T>>>>);

impl<T> Default for ByStrand<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> ByStrand<T> {
    /// What this strand has.
    #[inline]
    #[must_use]
    pub fn get(&self, strand: StrandId) -> Option<&T> {
        let (place, within) = place_of(strand);
        self.0.get(place)?.as_ref()?.things[within].as_ref()
    }

    /// As [`ByStrand::get`], to change it.
    #[inline]
    pub fn get_mut(&mut self, strand: StrandId) -> Option<&mut T> {
        let (place, within) = place_of(strand);
        self.0.get_mut(place)?.as_mut()?.things[within].as_mut()
    }

    /// The strand has this from now on: in the place of what it had, which is returned.
    pub fn insert(&mut self, strand: StrandId, thing: T) -> Option<T> {
        let (place, within) = place_of(strand);
        if self.0.len() <= place {
            self.0.resize_with(place + 1, || None);
        }
        let neighbours = self.0[place]
            .get_or_insert_with(|| Box::new(Neighbours { held: 0, things: [const { None }; NEIGHBOURS] }));
        let before = neighbours.things[within].replace(thing);
        neighbours.held += usize::from(before.is_none());
        before
    }

    /// The strand has nothing any more; what it had.
    pub fn remove(&mut self, strand: StrandId) -> Option<T> {
        let (place, within) = place_of(strand);
        let slot = self.0.get_mut(place)?;
        let neighbours = slot.as_mut()?;
        let thing = neighbours.things[within].take()?;
        neighbours.held -= 1;
        if neighbours.held == 0 {
            *slot = None;
        }
        Some(thing)
    }

    /// As [`ByStrand::iter`], to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().flatten().flat_map(|neighbours| neighbours.things.iter_mut().flatten())
    }

    /// What all strands have, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flatten().flat_map(|neighbours| neighbours.things.iter().flatten())
    }
}

/// The box, and the place within it.
const fn place_of(strand: StrandId) -> (usize, usize) {
    let number = strand.0 as usize;
    (number / NEIGHBOURS, number % NEIGHBOURS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_strand_has_is_found_by_its_number_until_it_is_removed() {
        let mut table = ByStrand::default();
        for number in (1..=1_000).rev() {
            assert_eq!(table.insert(StrandId(number), number), None);
        }
        assert_eq!(table.insert(StrandId(7), 77), Some(7));
        *table.get_mut(StrandId(8)).unwrap() += 80;
        assert_eq!((table.get(StrandId(7)), table.get(StrandId(8))), (Some(&77), Some(&88)));
        assert_eq!((table.get(StrandId(0)), table.get(StrandId(1_001))), (None, None));
        assert_eq!(table.remove(StrandId(5_000)), None);
        assert_eq!(table.remove(StrandId(7)), Some(77));
        assert_eq!(table.get(StrandId(7)), None);
        assert_eq!(table.remove(StrandId(7)), None);
        let all: Vec<u32> = table.iter().copied().collect();
        assert_eq!((all.len(), all[0], all[6], all[998]), (999, 1, 88, 1_000));
    }

    #[test]
    fn what_ended_strands_had_takes_no_room_and_what_is_left_stays_where_it_is() {
        let mut table = ByStrand::default();
        table.insert(StrandId(1), [0_u64; 8]);
        let first = std::ptr::from_ref(table.get(StrandId(1)).unwrap());
        for number in 2..=100_000 {
            table.insert(StrandId(number), [0; 8]);
            table.remove(StrandId(number));
        }
        assert_eq!(table.0.iter().flatten().count(), 1);
        assert_eq!(std::ptr::from_ref(table.get(StrandId(1)).unwrap()), first);
    }
}

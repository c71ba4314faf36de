//! Places in which strands could give way, and which a search does not know before runs have taught them; and how they are
//! written, for another process.
//!
//! A place is an address of the machine's. What happens there, and why it matters, is the subject's business.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::schedule::ScheduleError;

/// Between places, where they are written: the first as it is, each further one by its distance.
const SEPARATOR: char = '+';

/// Some of them. A clone is cheap.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Places(Arc<BTreeSet<u64>>);

impl Places {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In their order.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        self.0.iter().copied()
    }

    /// Those that `others` has not.
    pub(crate) fn without(&self, others: &Self) -> Self {
        if self == others { Self::default() } else { self.0.difference(&others.0).copied().collect() }
    }

    pub(crate) fn add(&mut self, more: &Self) {
        if !more.is_empty() {
            Arc::make_mut(&mut self.0).extend(more.iter());
        }
    }
}

impl FromIterator<u64> for Places {
    fn from_iter<I: IntoIterator<Item = u64>>(places: I) -> Self {
        Self(Arc::new(places.into_iter().collect()))
    }
}

impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = None;
        for place in self.iter() {
            match last.replace(place) {
                None => write!(f, "{place:x}")?,
                Some(last) => write!(f, "{SEPARATOR}{:x}", place - last)?,
            }
        }
        Ok(())
    }
}

impl FromStr for Places {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let mut places = BTreeSet::new();
        let mut last: Option<u64> = None;
        for text in text.split(SEPARATOR).filter(|_| !text.is_empty()) {
            let distance = u64::from_str_radix(text, 16).map_err(|_| ScheduleError)?;
            let place = match last {
                Some(last) if distance > 0 => last.checked_add(distance).ok_or(ScheduleError)?,
                Some(_) => return Err(ScheduleError),
                None => distance,
            };
            places.insert(place);
            last = Some(place);
        }
        Ok(Self(Arc::new(places)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_they_are_written() {
        let places: Places = [0x2000_0010, 0x2000_0000, 0x2000_0013].into_iter().collect();
        assert_eq!(places.to_string(), "20000000+10+3");
        assert_eq!("20000000+10+3".parse(), Ok(places));
        assert_eq!("".parse(), Ok(Places::default()));
        assert_eq!(Places::default().to_string(), "");
        for text in ["g", "1+", "+1", "1+0", "ffffffffffffffff+1", "1;2"] {
            assert_eq!(text.parse::<Places>(), Err(ScheduleError), "{text}");
        }
    }

    #[test]
    fn what_is_new_is_what_is_added() {
        let (mut all, more): (Places, Places) = ([1, 2].into_iter().collect(), [2, 3].into_iter().collect());
        assert_eq!(more.without(&all).iter().collect::<Vec<_>>(), [3]);
        all.add(&more);
        assert_eq!((all.len(), more.without(&all).is_empty()), (3, true));
    }
}

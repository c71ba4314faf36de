//! A list of mostly few things: the first `N` lie in it, and only more of them need memory.
//!
//! Threads that could go on, threads that wait for an object, objects of a wait: nearly always that is one, and to make and free a list costs
//! more than all that is done with it.

use std::ops::{Deref, DerefMut};

/// A list.
#[derive(Clone, Debug)]
pub(crate) struct Few<T, const N: usize> {
    own: [T; N],
    /// How many of `own` count: none, once they are all in `more`.
    length: usize,
    /// All of them, if they are or have been more than `N`.
    more: Vec<T>,
}

impl<T: Copy + Default, const N: usize> Default for Few<T, N> {
    #[inline]
    fn default() -> Self {
        Self { own: [T::default(); N], length: 0, more: Vec::new() }
    }
}

impl<T: Copy + Default, const N: usize> Few<T, N> {
    /// One more, behind the others.
    #[inline]
    pub(crate) fn push(&mut self, value: T) {
        if self.more.is_empty() && self.length < N {
            self.own[self.length] = value;
            self.length += 1;
        } else {
            self.push_more(value);
        }
    }

    #[cold]
    fn push_more(&mut self, value: T) {
        self.more.extend_from_slice(&self.own[..std::mem::take(&mut self.length)]);
        self.more.push(value);
    }

    /// Only this.
    #[inline]
    pub(crate) fn one(value: T) -> Self {
        let mut few = Self::default();
        few.push(value);
        few
    }

    /// Without all that are `value`; the others stay in their order.
    #[inline]
    pub(crate) fn remove_all(&mut self, value: &T)
    where
        T: PartialEq,
    {
        let mut kept = 0;
        for at in 0..self.length {
            if self.own[at] != *value {
                self.own[kept] = self.own[at];
                kept += 1;
            }
        }
        self.length = kept;
        self.more.retain(|other| other != value);
    }
}

impl<T, const N: usize> Deref for Few<T, N> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        if self.more.is_empty() { &self.own[..self.length] } else { &self.more }
    }
}

impl<T, const N: usize> DerefMut for Few<T, N> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        if self.more.is_empty() { &mut self.own[..self.length] } else { &mut self.more }
    }
}

impl<T: Copy + Default, const N: usize> Extend<T> for Few<T, N> {
    #[inline]
    fn extend<I: IntoIterator<Item = T>>(&mut self, values: I) {
        for value in values {
            self.push(value);
        }
    }
}

impl<T: Copy + Default, const N: usize> FromIterator<T> for Few<T, N> {
    #[inline]
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        let mut few = Self::default();
        few.extend(values);
        few
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_as_a_vector_whatever_comes_and_goes() {
        let (mut few, mut model) = (Few::<u64, 2>::default(), Vec::new());
        let mut state: u64 = 1;
        for _ in 0..5_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let value = (state >> 40) % 6;
            if state >> 32 & 1 == 0 && model.len() < 9 {
                few.push(value);
                model.push(value);
            } else {
                few.remove_all(&value);
                model.retain(|other| *other != value);
            }
            assert_eq!(few[..], model[..]);
            assert_eq!(model.iter().copied().collect::<Few<_, 2>>()[..], model[..]);
        }
    }
}

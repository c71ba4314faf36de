//! Messages to be given to a device: the vectors that are free, and how many the device may have.
//!
//! Pages: *Using Interrupt Resource Descriptors*, *Interrupt Affinity and Priority*. *Ours:* of high priority are the highest vectors
//! that are free, of low priority the lowest.
#![allow(non_upper_case_globals, reason = "Microsoft's names in patterns")]

use abi::{IrqPriorityHigh, IrqPriorityLow};

use super::message::{Offer, power_of_two_within};
use super::policy::Policy;
use super::resource::Messages;
use crate::cx::Kernel;
use crate::ke::vectors;

/// What is there to give.
#[derive(Clone, Debug)]
pub(crate) struct Supply {
    each: bool,
    /// How many more the device may have.
    left: u32,
    /// How many it was given.
    given: u32,
    free: Vec<u32>,
    /// The processors of group 0.
    processors: u64,
}

/// What a (filtered) requirement asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Asked {
    /// How many messages.
    pub count: u32,
    /// None if the descriptor includes no policy.
    pub policy: Option<Policy>,
}

impl Supply {
    /// For a device with this offer.
    pub(super) fn new(k: &Kernel, offer: Offer) -> Self {
        let taken = |vector: &u32| k.pnp.nodes.values().any(|n| n.messages().any(|m| m.vector == *vector));
        Self {
            each: offer.each,
            left: offer.count.min(k.hal.platform.messages),
            given: 0,
            free: vectors::of_messages().filter(|vector| !taken(vector)).collect(),
            processors: crate::ke::affinity::of_group(k, 0),
        }
    }

    /// Gives the messages of one descriptor; fewer than asked for if there are no more, but at least one.
    pub(super) fn take(&mut self, asked: Asked) -> Option<Messages> {
        let most = if self.each { 1 } else { asked.count }.min(self.left);
        if most == 0 || (!self.each && self.given != 0) {
            return None;
        }
        let mut count = power_of_two_within(most);
        let vector = loop {
            match self.block(count, asked.policy) {
                Some(vector) => break vector,
                None if count == 1 => return None,
                None => count /= 2,
            }
        };
        let all = self.processors;
        let affinity = asked.policy.map_or(all, |policy| policy.choose(all, self.given));
        let first = self.given;
        self.free.retain(|free| !(vector..vector + count).contains(free));
        (self.left, self.given) = (self.left - count, self.given + count);
        Some(Messages { first, count, vector, affinity })
    }

    /// Whether it has given any.
    pub(super) fn has_given(&self) -> bool {
        self.given != 0
    }

    /// The first of `count` free vectors of one level, at a multiple of their number: the function sets the low bits.
    fn block(&self, count: u32, policy: Option<Policy>) -> Option<u32> {
        let whole = |first: u32| {
            first.is_multiple_of(count) && (first..first + count).all(|vector| self.free.contains(&vector))
        };
        let mut blocks = self.free.iter().copied().filter(|first| whole(*first));
        match policy.map(|policy| policy.priority) {
            Some(IrqPriorityHigh) => blocks.max(),
            Some(IrqPriorityLow) => blocks.min(),
            _ => blocks.next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use abi::{IrqPolicySpecifiedProcessors, IrqPolicySpreadMessagesAcrossAllProcessors};

    use super::*;

    fn supply(each: bool, left: u32) -> Supply {
        Supply { each, left, given: 0, free: vectors::of_messages().collect(), processors: 0b1111 }
    }

    const ONE: Asked = Asked { count: 1, policy: None };

    #[test]
    fn msi_is_given_a_block_at_a_multiple_of_its_size_and_msi_x_a_level_each() {
        let mut msi = supply(false, 16);
        let given = msi.take(Asked { count: 16, ..ONE }).unwrap();
        assert_eq!((given.count, given.vector), (16, 0xC0), "sixteen vectors of one level");
        assert_eq!(msi.take(ONE), None, "it has one descriptor");
        let mut msix = supply(true, 3);
        let given: Vec<_> = (0..4).map_while(|_| msix.take(ONE)).collect();
        let vectors: Vec<u32> = given.iter().map(|m| m.vector).collect();
        assert_eq!(vectors, [0x38, 0x48, 0x58], "and no more than it may have");
        assert_eq!(given[2].first, 2);
    }

    #[test]
    fn who_asks_for_more_than_there_is_gets_fewer_and_a_power_of_two() {
        assert_eq!(supply(false, 3).take(Asked { count: 8, ..ONE }).unwrap().count, 2);
        assert_eq!(supply(false, 8).take(Asked { count: 7, ..ONE }).unwrap().count, 4);
        assert_eq!(supply(false, 0).take(ONE), None);
        let mut crowded = supply(false, 16);
        crowded.free.retain(|vector| vector % 2 == 0);
        assert_eq!(crowded.take(Asked { count: 8, ..ONE }).unwrap().count, 1, "no two are neighbours");
    }

    #[test]
    fn a_policy_says_which_processors_a_message_goes_to_and_a_priority_its_level() {
        let with = |affinity, priority, processors| Asked {
            count: 1,
            policy: Some(Policy { affinity, priority, processors }),
        };
        let mut msix = supply(true, 8);
        assert_eq!(msix.take(with(IrqPolicySpecifiedProcessors, 0, 0b10100)).unwrap().affinity, 0b100);
        assert_eq!(msix.take(with(IrqPolicySpreadMessagesAcrossAllProcessors, 0, 0)).unwrap().affinity, 0b10);
        assert_eq!(msix.take(ONE).unwrap().affinity, 0b1111);
        assert_eq!(msix.take(with(0, IrqPriorityHigh, 0)).unwrap().vector, 0xCF);
        assert_eq!(msix.take(with(0, IrqPriorityLow, 0)).unwrap().vector >> 4, 3);
    }
}

//! What an INF, or an administrator, says of a device's interrupts: which processors, and how urgent.
//!
//! Pages: *Interrupt Affinity and Priority*, *IRQ_DEVICE_POLICY enumeration*, *IRQ_PRIORITY enumeration*. The values stand in the device's
//! hardware key; they are in the requirements that its drivers see and may change. "Close" processors are all: every one is
//! as close as any other.
#![allow(non_upper_case_globals, reason = "Microsoft's names in patterns")]

use abi::{
    IrqPolicyOneCloseProcessor, IrqPolicySpecifiedProcessors, IrqPolicySpreadMessagesAcrossAllProcessors,
};

use super::install;
use super::node::NodeId;
use crate::cm::access;
use crate::cx::Cx;

/// Below the device's hardware key.
const KEY: &str = r"Interrupt Management\Affinity Policy";

/// An affinity policy and a priority, as an interrupt descriptor has them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Policy {
    /// `IRQ_DEVICE_POLICY`.
    pub affinity: u16,
    /// `IRQ_PRIORITY`.
    pub priority: u32,
    /// `TargetedProcessors`.
    pub processors: u64,
}

impl Policy {
    /// The processors for the interrupt that `given` others came before, of those there are.
    #[must_use]
    pub(crate) fn choose(&self, all: u64, given: u32) -> u64 {
        let chosen = match self.affinity {
            IrqPolicySpecifiedProcessors => self.processors & all,
            IrqPolicyOneCloseProcessor => all & all.wrapping_neg(),
            IrqPolicySpreadMessagesAcrossAllProcessors => nth(all, given % all.count_ones().max(1)),
            _ => all,
        };
        if chosen == 0 { all } else { chosen }
    }
}

/// The `n`-th of some processors, counted from 0.
fn nth(all: u64, n: u32) -> u64 {
    let left = (0..n).fold(all, |left, _| left & left.wrapping_sub(1));
    left & left.wrapping_neg()
}

/// The policy that the registry has for a device; none if nothing is said.
pub(super) fn of_device(cx: &mut Cx<'_>, id: NodeId) -> Option<Policy> {
    let key = format!(r"{}\{KEY}", install::keys(cx, id).hardware);
    let affinity = access::number(cx, &key, "DevicePolicy");
    let priority = access::number(cx, &key, "DevicePriority");
    if affinity.is_none() && priority.is_none() {
        return None;
    }
    let mut processors = [0; 8];
    let bytes = access::value(cx, &key, "AssignmentSetOverride").map_or_else(Vec::new, |value| value.data);
    if bytes.len() <= processors.len() {
        processors[..bytes.len()].copy_from_slice(&bytes);
    }
    Some(Policy {
        affinity: affinity.and_then(|policy| u16::try_from(policy).ok()).unwrap_or_default(),
        priority: priority.unwrap_or_default(),
        processors: u64::from_le_bytes(processors),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_chooses_among_the_processors_there_are() {
        let of = |affinity, processors| Policy { affinity, priority: 0, processors };
        assert_eq!(of(0, 0).choose(0b1111, 3), 0b1111);
        assert_eq!(of(IrqPolicySpecifiedProcessors, 0b10100).choose(0b1111, 0), 0b100);
        assert_eq!(
            of(IrqPolicySpecifiedProcessors, 0b10000).choose(0b1111, 0),
            0b1111,
            "none of them exists"
        );
        assert_eq!(of(IrqPolicyOneCloseProcessor, 0).choose(0b1110, 0), 0b10);
        let spread = of(IrqPolicySpreadMessagesAcrossAllProcessors, 0);
        assert_eq!(
            (0..5).map(|n| spread.choose(0b1101, n)).collect::<Vec<_>>(),
            [1, 0b100, 0b1000, 1, 0b100]
        );
    }
}

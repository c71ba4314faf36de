//! At which level the drivers of a stack get a power request.
//!
//! Pages: *Setting Device Object Flags for Power Management* ("the power manager calls such drivers at IRQL = PASSIVE_LEVEL"; "drivers that do not set this flag
//! must be callable at IRQL = DISPATCH_LEVEL"), *Dispatch Routines and IRQLs* (drivers in the paging or hibernation path, and those that require inrush
//! power), *IRP_MN_SET_POWER*, *IRP_MN_QUERY_POWER* ("at PASSIVE_LEVEL to device stacks that set the DO_POWER_PAGABLE flag in the PDO"; "can send the IRP
//! at IRQL = DISPATCH_LEVEL if the DO_POWER_INRUSH flag is set"). They say *can*: it is the choice `po.dispatch_level`, by default no.
//!
//! Where the pages differ, the weaker claim is taken: one device object with DO_POWER_PAGABLE keeps its whole stack at PASSIVE_LEVEL; a question comes at
//! DISPATCH_LEVEL only to a stack with DO_POWER_INRUSH, the one its page names; a request to wait for a wake signal never does. Routines that
//! `PoRequestPowerIrp` was given are called at PASSIVE_LEVEL, always.

use abi::{
    DEVICE_OBJECT, DO_POWER_INRUSH, DO_POWER_PAGABLE, DriverPtr, IRP_MN_QUERY_POWER, IRP_MN_SET_POWER,
};
use engine::Flow;

use crate::cx::Cx;
use crate::ke::irql::{DISPATCH_LEVEL, PASSIVE_LEVEL};
use crate::pnp::node::{self, NodeId};

/// What the device objects of a stack say about power, each for all: `DO_POWER_*`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PowerFlags(u32);

impl PowerFlags {
    /// Those of the stack above `bottom`, as they are now: drivers change them as special files come and go.
    pub(super) fn of(cx: &mut Cx<'_>, bottom: DriverPtr<DEVICE_OBJECT>) -> Flow<Self> {
        let mut flags = 0;
        for device in node::stack(cx, NodeId(bottom.address))? {
            flags |= cx.read(device + DEVICE_OBJECT::Flags)?;
        }
        Ok(Self(flags))
    }

    /// Whether the device draws so much current while it is powered up that no other one like it may be at the same time.
    pub(super) const fn is_inrush(self) -> bool {
        self.0 & DO_POWER_INRUSH != 0
    }

    const fn allow_dispatch_level(self, minor: u8) -> bool {
        let is_resident = self.0 & DO_POWER_PAGABLE == 0;
        is_resident && (minor == IRP_MN_SET_POWER || minor == IRP_MN_QUERY_POWER && self.is_inrush())
    }

    /// At which level a request is sent.
    pub(super) fn level(self, cx: &mut Cx<'_>, minor: u8) -> u8 {
        match self.allow_dispatch_level(minor) && cx.choose("po.dispatch_level", 2) == 1 {
            true => DISPATCH_LEVEL,
            false => PASSIVE_LEVEL,
        }
    }
}

//! The power of one function: whether its slot has power, the registers of its power management capability, and which states it goes through.
//!
//! PCI Bus Power Management Interface Specification 1.2: 3.2 (registers), 5.3–5.4 (states), 5.4.1 (the way from D3hot to D0 is a reset, unless
//! `No_Soft_Reset` is set), 7 (PME#). A function in D1, D2 or D3hot answers to configuration accesses only, and does nothing by itself but raise
//! PME#. *It has no* Data register, and transitions take no time: drivers never wait for them, the bus driver does.

use super::header::PowerManagement;
use crate::bits::bits;
use crate::register::{Row, is_sorted, low32, parts};

/// PCI's number of this capability.
const ID: u32 = 1;
/// Version 1.2 of the specification, in PMC.
pub(crate) const VERSION: u16 = 3;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Register {
    Id,
    Next,
    Capabilities,
    ControlStatus,
}

const TABLE: &[Row<Register>] = &[
    Row { register: Register::Id, offset: 0, bytes: 1, name: "CapID" },
    Row { register: Register::Next, offset: 1, bytes: 1, name: "NextPtr" },
    Row { register: Register::Capabilities, offset: 2, bytes: 2, name: "PMC" },
    Row { register: Register::ControlStatus, offset: 4, bytes: 2, name: "PMCSR" },
];

/// Bytes of the capability; PMCSR_BSE and Data read 0.
const LENGTH: u64 = 8;

const _: () = assert!(is_sorted(TABLE));

bits! {
    /// PMC.
    struct Capabilities {
        D1 = 9;
        D2 = 10;
        /// The states from which PME# can be raised: D0, D1, D2, D3hot, D3cold.
        PME = 11..=15;
    }
}

bits! {
    /// PMCSR.
    struct ControlStatus {
        STATE = 0..=1;
        NO_SOFT_RESET = 3;
        PME_ENABLE = 8;
        /// Software clears it by writing 1.
        PME_STATUS = 15;
    }
}

/// D3hot, as `STATE` has it.
const D3_HOT: u8 = 3;
/// D3cold, among the states of `wakes_from`.
const D3_COLD: u8 = 4;

/// What a write to configuration space has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Changed {
    Nothing,
    /// The function is in another state.
    State,
    /// It is in D0 again, and has to be reset.
    Reset,
}

/// The power of a function.
pub(super) struct PowerUnit {
    capability: Option<PowerManagement>,
    /// Whether the slot has power.
    powered: bool,
    /// 0–3.
    state: u8,
    pme_enable: bool,
    pme_status: bool,
}

impl PowerUnit {
    /// In D0.
    pub(super) fn new(capability: Option<PowerManagement>) -> Self {
        Self { capability, powered: true, state: 0, pme_enable: false, pme_status: false }
    }

    /// RST#: what is behind auxiliary power stays.
    pub(super) fn reset(&mut self) {
        let Self { capability, powered: _, state, pme_enable, pme_status } = self;
        *state = 0;
        if capability.is_none_or(|capability| capability.wakes_from & 1 << D3_COLD == 0) {
            (*pme_enable, *pme_status) = (false, false);
        }
    }

    /// Whether the slot has power.
    pub(super) const fn is_powered(&self) -> bool {
        self.powered
    }

    /// The slot's power comes or goes.
    pub(super) fn set_powered(&mut self, powered: bool) {
        self.powered = powered;
        self.reset();
    }

    /// Whether the function is in D0: it claims what it decodes and does what it does.
    pub(super) const fn is_awake(&self) -> bool {
        self.powered && self.state == 0
    }

    /// Something happens for which the function wakes the system: whether PME# is asserted now.
    ///
    /// # Errors
    /// It has no power management.
    pub(super) fn raise(&mut self) -> Result<bool, String> {
        let Some(PowerManagement { wakes_from, .. }) = self.capability else {
            return Err(
                "it has no power management, so it cannot raise PME#; give it pm= with a wake".to_owned()
            );
        };
        let state = if self.powered { self.state } else { D3_COLD };
        // Elsewhere it does not notice what happens.
        self.pme_status |= wakes_from & 1 << state != 0;
        Ok(self.asserts())
    }

    /// Whether it asserts PME#.
    const fn asserts(&self) -> bool {
        self.pme_enable && self.pme_status
    }

    /// The offset in the capability, if it is in it.
    fn inside(&self, offset: u8) -> Option<u64> {
        let at = self.capability?.at;
        offset.checked_sub(at).map(u64::from).filter(|offset| *offset < LENGTH)
    }

    /// Whether the capability is at an offset of configuration space.
    pub(super) fn owns(&self, offset: u8) -> bool {
        self.inside(offset).is_some()
    }

    /// A read of `bytes` (1, 2 or 4) of configuration space; none if the capability is elsewhere.
    pub(super) fn config_read(&self, offset: u8, bytes: u64) -> Option<u32> {
        let capability = self.capability?;
        let cut = parts(TABLE, self.inside(offset)?, bytes);
        let read = cut.map(|part| part.read(self.register(capability, part.register)));
        Some(low32(read.fold(0, |value, bits| value | bits)))
    }

    fn register(&self, capability: PowerManagement, register: Register) -> u32 {
        let PowerManagement { next, d1, d2, wakes_from, keeps_state, rest, .. } = capability;
        match register {
            Register::Id => ID,
            Register::Next => next.into(),
            Register::Capabilities => {
                Capabilities(rest.into())
                    .with(Capabilities::D1, d1.into())
                    .with(Capabilities::D2, d2.into())
                    .with(Capabilities::PME, wakes_from.into())
                    .0
            }
            Register::ControlStatus => {
                ControlStatus::default()
                    .with(ControlStatus::STATE, self.state.into())
                    .with(ControlStatus::NO_SOFT_RESET, keeps_state.into())
                    .with(ControlStatus::PME_ENABLE, self.pme_enable.into())
                    .with(ControlStatus::PME_STATUS, self.pme_status.into())
                    .0
            }
        }
    }

    /// A write to configuration space.
    pub(super) fn config_write(&mut self, offset: u8, bytes: u64, value: u32) -> Changed {
        let (Some(capability), Some(offset)) = (self.capability, self.inside(offset)) else {
            return Changed::Nothing;
        };
        let mut changed = Changed::Nothing;
        for part in parts(TABLE, offset, bytes).filter(|part| part.register == Register::ControlStatus) {
            let (written, lanes) = (ControlStatus(part.written(value.into())), part.lanes);
            if lanes & ControlStatus::PME_ENABLE.mask() != 0 && capability.wakes_from != 0 {
                self.pme_enable = written.is(ControlStatus::PME_ENABLE);
            }
            self.pme_status &= !written.is(ControlStatus::PME_STATUS);
            if lanes & ControlStatus::STATE.mask() != 0 {
                changed = self.go_to(capability, written.get(ControlStatus::STATE));
            }
        }
        changed
    }

    /// Software writes a state. One that the function has not, and a way that there is not (up from a lower state, but to D0), is disregarded.
    fn go_to(&mut self, capability: PowerManagement, state: u32) -> Changed {
        let wanted = (state & 3) as u8;
        let exists = match wanted {
            1 => capability.d1,
            2 => capability.d2,
            _ => true,
        };
        let before = self.state;
        if !exists || wanted == before || wanted != 0 && wanted < before {
            return Changed::Nothing;
        }
        self.state = wanted;
        if before == D3_HOT && !capability.keeps_state { Changed::Reset } else { Changed::State }
    }
}

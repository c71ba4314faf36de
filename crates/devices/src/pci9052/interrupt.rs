//! From the LINTi pins and the software bit to INTA#: polarity, edge or level, enables.
//!
//! Edge latching exists on the 9052 only, and only with active-high polarity. INTA# is a level; there is no LINTo here,
//! and the ISA mode bit is stored without effect.

use super::fields::Intcsr;
use crate::bits::Field;

/// INTCSR bits that a write stores on the 9050.
const STORED_9050: u32 = 0x00DB;
/// On the 9052: edge selects and ISA mode, too.
const STORED_9052: u32 = 0x13DB;

/// INTCSR's fields for one input.
struct Fields {
    enable: Field<Intcsr>,
    polarity: Field<Intcsr>,
    status: Field<Intcsr>,
    edge_select: Field<Intcsr>,
    edge_clear: Field<Intcsr>,
}

const FIELDS: [Fields; 2] = [
    Fields {
        enable: Intcsr::LINTI1_ENABLE,
        polarity: Intcsr::LINTI1_POLARITY,
        status: Intcsr::LINTI1_STATUS,
        edge_select: Intcsr::LINTI1_EDGE_SELECT,
        edge_clear: Intcsr::LINTI1_EDGE_CLEAR,
    },
    Fields {
        enable: Intcsr::LINTI2_ENABLE,
        polarity: Intcsr::LINTI2_POLARITY,
        status: Intcsr::LINTI2_STATUS,
        edge_select: Intcsr::LINTI2_EDGE_SELECT,
        edge_clear: Intcsr::LINTI2_EDGE_CLEAR,
    },
];

/// Whether each input is active while it is high.
pub(super) fn active_high(intcsr: Intcsr) -> [bool; 2] {
    FIELDS.each_ref().map(|fields| intcsr.is(fields.polarity))
}

/// The two local interrupt inputs.
#[derive(Clone, Debug, Default)]
pub(crate) struct LocalInterrupts {
    levels: [bool; 2],
    latched: [bool; 2],
}

impl LocalInterrupts {
    /// Forgets latched edges. The levels are the board's.
    pub(crate) fn reset(&mut self) {
        let Self { levels: _, latched } = self;
        *latched = [false; 2];
    }

    /// The board drives the pins; a rising edge is latched where edges are selected.
    pub(crate) fn drive(&mut self, levels: [bool; 2], intcsr: Intcsr) {
        for (input, fields) in FIELDS.iter().enumerate() {
            let rises = levels[input] && !self.levels[input];
            if rises && intcsr.is(fields.edge_select) && intcsr.is(fields.polarity) {
                self.latched[input] = true;
            }
        }
        self.levels = levels;
    }

    /// Software writes INTCSR: what is stored from now on. `is_9052` tells which bits exist.
    pub(crate) fn write(&mut self, old: Intcsr, written: u32, lanes: u32, is_9052: bool) -> Intcsr {
        let stored = if is_9052 { STORED_9052 } else { STORED_9050 };
        let new = old.merged(written, lanes & stored);
        for (input, fields) in FIELDS.iter().enumerate() {
            if Intcsr(written & lanes).is(fields.edge_clear) || !new.is(fields.edge_select) {
                self.latched[input] = false;
            }
        }
        new
    }

    /// INTCSR as it reads, with the status bits. The edge-clear bits read 0.
    pub(crate) fn read(&self, intcsr: Intcsr) -> Intcsr {
        FIELDS.iter().enumerate().fold(intcsr, |value, (input, fields)| {
            value.with(fields.status, self.is_active(input, intcsr).into())
        })
    }

    /// Whether INTA# is driven.
    pub(crate) fn asserts(&self, intcsr: Intcsr) -> bool {
        let local =
            |(input, fields): (usize, &Fields)| intcsr.is(fields.enable) && self.is_active(input, intcsr);
        let source = FIELDS.iter().enumerate().any(local) || intcsr.is(Intcsr::SOFTWARE_INTERRUPT);
        source && intcsr.is(Intcsr::PCI_INTERRUPT_ENABLE)
    }

    /// Whether an input is active, enabled or not.
    fn is_active(&self, input: usize, intcsr: Intcsr) -> bool {
        let fields = &FIELDS[input];
        if intcsr.is(fields.edge_select) {
            self.latched[input]
        } else {
            self.levels[input] == intcsr.is(fields.polarity)
        }
    }
}

//! The bit fields of the PCI 9052's local configuration registers, under the data book's names.
//!
//! Only what a host can observe through this model has a use; the other bits are stored and read back.

use crate::bits::bits;

bits! {
    /// LASxRR: what a local address space asks of PCI.
    pub(crate) struct Range {
        IO_SPACE = 0;
        /// 00 anywhere in 32 bits, 01 below 1 MB, 10 64-bit.
        LOCATION = 1..=2;
        PREFETCHABLE = 3;
        MEMORY_MASK = 4..=27;
        IO_MASK = 2..=27;
    }
}

bits! {
    /// LASxBA: where a local address space lies on the local bus.
    pub(crate) struct Remap {
        ENABLE = 0;
    }
}

bits! {
    /// LASxBRD: how the local bus is driven for a space.
    pub(crate) struct Descriptor {
        BURST = 0;
        READY = 1;
        /// 4, 8 or 16 Lwords; 0 none.
        PREFETCH = 3..=4;
        PREFETCH_COUNTS = 5;
        /// Wait states: read address to data, read data to data, data to address, write address to data, write data to data.
        NRAD = 6..=10;
        NRDD = 11..=12;
        NXDA = 13..=14;
        NWAD = 15..=19;
        NWDD = 20..=21;
        /// 00 8 bits, 01 16 bits, 10 32 bits.
        BUS_WIDTH = 22..=23;
        BIG_ENDIAN = 24;
    }
}

bits! {
    /// INTCSR: interrupt control and status.
    pub(crate) struct Intcsr {
        LINTI1_ENABLE = 0;
        LINTI1_POLARITY = 1;
        LINTI1_STATUS = 2;
        LINTI2_ENABLE = 3;
        LINTI2_POLARITY = 4;
        LINTI2_STATUS = 5;
        PCI_INTERRUPT_ENABLE = 6;
        SOFTWARE_INTERRUPT = 7;
        LINTI1_EDGE_SELECT = 8;
        LINTI2_EDGE_SELECT = 9;
        LINTI1_EDGE_CLEAR = 10;
        LINTI2_EDGE_CLEAR = 11;
        ISA_MODE = 12;
    }
}

bits! {
    /// CNTRL: user I/O, which of BAR0 and BAR1 exist, the serial EEPROM, reload and reset.
    pub(crate) struct Cntrl {
        UIO0_SELECT = 0;
        UIO0_DIRECTION = 1;
        UIO0_DATA = 2;
        UIO1_SELECT = 3;
        UIO1_DIRECTION = 4;
        UIO1_DATA = 5;
        UIO2_SELECT = 6;
        UIO2_DIRECTION = 7;
        UIO2_DATA = 8;
        UIO3_SELECT = 9;
        UIO3_DIRECTION = 10;
        UIO3_DATA = 11;
        /// 0 both, 1 memory only, 2 I/O only.
        BAR_SELECT = 12..=13;
        EEPROM_CLOCK = 24;
        EEPROM_SELECT = 25;
        EEPROM_DATA_IN = 26;
        EEPROM_DATA_OUT = 27;
        EEPROM_PRESENT = 28;
        RELOAD = 29;
        SOFTWARE_RESET = 30;
    }
}

/// Select, direction and data of each user I/O pin.
pub(crate) const USER_IO: [[crate::bits::Field<Cntrl>; 3]; 4] = [
    [Cntrl::UIO0_SELECT, Cntrl::UIO0_DIRECTION, Cntrl::UIO0_DATA],
    [Cntrl::UIO1_SELECT, Cntrl::UIO1_DIRECTION, Cntrl::UIO1_DATA],
    [Cntrl::UIO2_SELECT, Cntrl::UIO2_DIRECTION, Cntrl::UIO2_DATA],
    [Cntrl::UIO3_SELECT, Cntrl::UIO3_DIRECTION, Cntrl::UIO3_DATA],
];

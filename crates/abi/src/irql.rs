//! Interrupt request levels of x64, and processor modes.
//!
//! Page: *Managing Hardware Priorities*; `wdm.h`. Devices have levels 3 to 12: their vector shifted right by 4.

use crate::constant::constants;

constants! {
    u8 {
        // Page: *Managing Hardware Priorities*.
        PASSIVE_LEVEL = 0;
        LOW_LEVEL = 0;
        APC_LEVEL = 1;
        DISPATCH_LEVEL = 2;
        CMCI_LEVEL = 5;
        CLOCK_LEVEL = 13;
        IPI_LEVEL = 14;
        DRS_LEVEL = 14;
        POWER_LEVEL = 14;
        PROFILE_LEVEL = 15;
        HIGH_LEVEL = 15;
    }
    u8 {
        // Whose code it is.
        KernelMode = 0;
        UserMode = 1;
        MaximumMode = 2;
    }
}

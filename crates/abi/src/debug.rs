//! Components and levels of `DbgPrintEx`.
//!
//! Page: *Reading and Filtering Debugging Messages*; `dpfilter.h`. Components of parts of Windows itself are left out.

use crate::constant::constants;

constants! {
    u32 {
        // Levels.
        DPFLTR_ERROR_LEVEL = 0x0;
        DPFLTR_WARNING_LEVEL = 0x1;
        DPFLTR_TRACE_LEVEL = 0x2;
        DPFLTR_INFO_LEVEL = 0x3;
        DPFLTR_MASK = 0x8000_0000;
    }
    u32 {
        // Components a driver may speak as.
        DPFLTR_SYSTEM_ID = 0;
        DPFLTR_WMILIB_ID = 23;
        DPFLTR_ACPI_ID = 24;
        DPFLTR_VIDEO_ID = 27;
        DPFLTR_PNPMGR_ID = 35;
        DPFLTR_SERIAL_ID = 39;
        DPFLTR_PCI_ID = 66;
        DPFLTR_IHVDRIVER_ID = 77;
        DPFLTR_IHVVIDEO_ID = 78;
        DPFLTR_IHVAUDIO_ID = 79;
        DPFLTR_IHVNETWORK_ID = 80;
        DPFLTR_IHVSTREAMING_ID = 81;
        DPFLTR_IHVBUS_ID = 82;
        DPFLTR_VERIFIER_ID = 93;
        DPFLTR_DEFAULT_ID = 101;
        DPFLTR_ENDOFTABLE_ID = 146;
    }
}

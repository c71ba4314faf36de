//! Power states and what power requests carry.
//!
//! Pages: *DEVICE_POWER_STATE*, *SYSTEM_POWER_STATE*, *POWER_STATE*; `wdm.h`. `POWER_STATE`, a union of the two
//! enumerations, is `u32`.

use crate::constant::constants;
use crate::field::layouts;
use crate::{DriverPtr, UNICODE_STRING};

layouts! {
    /// How the system came to the state it is leaving: target (bits 8–11), effective (12–15) and current (16–19) system
    /// state, whether hibernation is only passed through (20), whether the transition is a pseudo one (21).
    SYSTEM_POWER_STATE_CONTEXT [size 0x4, align 4] {
        0x00 ContextAsUlong: u32,
    }

    /// Why a driver asks for power: one string, or (with the other members) several.
    COUNTED_REASON_CONTEXT [size 0x28, align 8] {
        0x00 Version: u32,
        0x04 Flags: u32,
        0x08 SimpleString: UNICODE_STRING,
        0x18 ResourceReasonId: u16,
        0x1c StringCount: u32,
        0x20 ReasonStrings: DriverPtr<UNICODE_STRING>,
    }

    /// How often a device entered each state.
    POWER_SEQUENCE [size 0xc, align 4] {
        0x00 SequenceD1: u32,
        0x04 SequenceD2: u32,
        0x08 SequenceD3: u32,
    }

    /// Power capabilities of a device, as `DevicePropertyPowerData` tells them.
    CM_POWER_DATA [size 0x38, align 4] {
        0x00 PD_Size: u32,
        0x04 PD_MostRecentPowerState: u32,
        0x08 PD_Capabilities: u32,
        0x0c PD_D1Latency: u32,
        0x10 PD_D2Latency: u32,
        0x14 PD_D3Latency: u32,
        0x18 PD_PowerStateMapping: [u32; 7],
        0x34 PD_DeepestSystemWake: u32,
    }
}

constants! {
    u32 {
        // Device states.
        PowerDeviceUnspecified = 0;
        PowerDeviceD0 = 1;
        PowerDeviceD1 = 2;
        PowerDeviceD2 = 3;
        PowerDeviceD3 = 4;
        PowerDeviceMaximum = 5;
    }
    u32 {
        // System states.
        PowerSystemUnspecified = 0;
        PowerSystemWorking = 1;
        PowerSystemSleeping1 = 2;
        PowerSystemSleeping2 = 3;
        PowerSystemSleeping3 = 4;
        PowerSystemHibernate = 5;
        PowerSystemShutdown = 6;
        PowerSystemMaximum = 7;
    }
    u32 {
        // What `Parameters.Power.State` is.
        SystemPowerState = 0;
        DevicePowerState = 1;
    }
    u32 {
        // Why.
        PowerActionNone = 0;
        PowerActionReserved = 1;
        PowerActionSleep = 2;
        PowerActionHibernate = 3;
        PowerActionShutdown = 4;
        PowerActionShutdownReset = 5;
        PowerActionShutdownOff = 6;
        PowerActionWarmEject = 7;
        PowerActionDisplayOff = 8;
    }
    u32 {
        // `CM_POWER_DATA::PD_Capabilities`.
        PDCAP_D0_SUPPORTED = 0x1;
        PDCAP_D1_SUPPORTED = 0x2;
        PDCAP_D2_SUPPORTED = 0x4;
        PDCAP_D3_SUPPORTED = 0x8;
        PDCAP_WAKE_FROM_D0_SUPPORTED = 0x10;
        PDCAP_WAKE_FROM_D1_SUPPORTED = 0x20;
        PDCAP_WAKE_FROM_D2_SUPPORTED = 0x40;
        PDCAP_WAKE_FROM_D3_SUPPORTED = 0x80;
        PDCAP_WARM_EJECT_SUPPORTED = 0x100;
    }
}

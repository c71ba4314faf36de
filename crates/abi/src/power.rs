//! Power states and what power requests carry.
//!
//! Pages: *DEVICE_POWER_STATE*, *SYSTEM_POWER_STATE*, *POWER_STATE*; `wdm.h`. `POWER_STATE`, a union of the two
//! enumerations, is `u32`.

use crate::field::layouts;

layouts! {
    /// How the system came to the state it is leaving, in bit-fields.
    SYSTEM_POWER_STATE_CONTEXT [size 0x4, align 4] {
        0x00 ContextAsUlong: u32,
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

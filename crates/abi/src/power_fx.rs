//! The runtime power management framework (PoFx): how a driver describes its device and the device's components.
//!
//! Pages: *PO_FX_DEVICE_V1*, *PO_FX_DEVICE_V2*, *PO_FX_DEVICE_V3*, *PO_FX_COMPONENT_V1*, *PO_FX_COMPONENT_V2*, *PO_FX_COMPONENT_IDLE_STATE*,
//! *PO_FX_COMPONENT_PERF_INFO*, *PO_FX_COMPONENT_PERF_SET*, *PO_FX_PERF_STATE*, *PO_FX_PERF_STATE_CHANGE*; `wdm.h`. What stands behind an array of one
//! element lies behind the structure. Times are in units of 100 ns.

use crate::constant::constants;
use crate::field::layouts;
use crate::{Code, DriverPtr, GUID, UNICODE_STRING};

layouts! {
    /// An F-state of a component.
    PO_FX_COMPONENT_IDLE_STATE [size 0x18, align 8] {
        0x00 TransitionLatency: u64,
        0x08 ResidencyRequirement: u64,
        0x10 NominalPower: u32,
    }

    /// A component, in version 1.
    PO_FX_COMPONENT_V1 [size 0x20, align 8] {
        0x00 Id: GUID,
        0x10 IdleStateCount: u32,
        0x14 DeepestWakeableIdleState: u32,
        0x18 IdleStates: DriverPtr<PO_FX_COMPONENT_IDLE_STATE>,
    }

    /// A component, in versions 2 and 3.
    PO_FX_COMPONENT_V2 [size 0x38, align 8] {
        0x00 Id: GUID,
        0x10 Flags: u64,
        0x18 DeepestWakeableIdleState: u32,
        0x1c IdleStateCount: u32,
        0x20 IdleStates: DriverPtr<PO_FX_COMPONENT_IDLE_STATE>,
        0x28 ProviderCount: u32,
        0x30 Providers: DriverPtr<u32>,
    }

    /// A device, in version 1.
    PO_FX_DEVICE_V1 [size 0x60, align 8, not_in_mingw "mingw's kit has only the components"] {
        0x00 Version: u32,
        0x04 ComponentCount: u32,
        0x08 ComponentActiveConditionCallback: DriverPtr<Code>,
        0x10 ComponentIdleConditionCallback: DriverPtr<Code>,
        0x18 ComponentIdleStateCallback: DriverPtr<Code>,
        0x20 DevicePowerRequiredCallback: DriverPtr<Code>,
        0x28 DevicePowerNotRequiredCallback: DriverPtr<Code>,
        0x30 PowerControlCallback: DriverPtr<Code>,
        0x38 DeviceContext: u64,
        0x40 Components: [PO_FX_COMPONENT_V1; 1],
    }

    /// A device, in version 2.
    PO_FX_DEVICE_V2 [size 0x88, align 8, not_in_mingw "mingw's kit has only the components"] {
        0x00 Version: u32,
        0x08 Flags: u64,
        0x10 ComponentActiveConditionCallback: DriverPtr<Code>,
        0x18 ComponentIdleConditionCallback: DriverPtr<Code>,
        0x20 ComponentIdleStateCallback: DriverPtr<Code>,
        0x28 DevicePowerRequiredCallback: DriverPtr<Code>,
        0x30 DevicePowerNotRequiredCallback: DriverPtr<Code>,
        0x38 PowerControlCallback: DriverPtr<Code>,
        0x40 DeviceContext: u64,
        0x48 ComponentCount: u32,
        0x50 Components: [PO_FX_COMPONENT_V2; 1],
    }

    /// A device, in version 3: with directed power.
    PO_FX_DEVICE_V3 [size 0xa0, align 8, not_in_mingw "mingw's kit has only the components"] {
        0x00 Version: u32,
        0x08 Flags: u64,
        0x10 ComponentActiveConditionCallback: DriverPtr<Code>,
        0x18 ComponentIdleConditionCallback: DriverPtr<Code>,
        0x20 ComponentIdleStateCallback: DriverPtr<Code>,
        0x28 DevicePowerRequiredCallback: DriverPtr<Code>,
        0x30 DevicePowerNotRequiredCallback: DriverPtr<Code>,
        0x38 PowerControlCallback: DriverPtr<Code>,
        0x40 DirectedPowerUpCallback: DriverPtr<Code>,
        0x48 DirectedPowerDownCallback: DriverPtr<Code>,
        0x50 DirectedFxTimeoutInSeconds: u32,
        0x58 DeviceContext: u64,
        0x60 ComponentCount: u32,
        0x68 Components: [PO_FX_COMPONENT_V2; 1],
    }

    /// A performance state.
    PO_FX_PERF_STATE [size 0x10, align 8, not_in_mingw "mingw's kit ends before performance states"] {
        0x00 Value: u64,
        0x08 Context: u64,
    }

    /// Performance states of one property of a component: some states, or a range of values.
    PO_FX_COMPONENT_PERF_SET [size 0x30, align 8, not_in_mingw "mingw's kit ends before performance states"] {
        0x00 Name: UNICODE_STRING,
        0x10 Flags: u64,
        0x18 Unit: u32,
        0x1c Type: u32,
        0x20 Discrete_Count: u32,
        0x28 Discrete_States: DriverPtr<PO_FX_PERF_STATE>,
        0x20 Range_Minimum: u64,
        0x28 Range_Maximum: u64,
    }

    /// All performance states of a component.
    PO_FX_COMPONENT_PERF_INFO [size 0x38, align 8, not_in_mingw "mingw's kit ends before performance states"] {
        0x00 PerfStateSetsCount: u32,
        0x08 PerfStateSets: [PO_FX_COMPONENT_PERF_SET; 1],
    }

    /// A change that a driver asks for.
    PO_FX_PERF_STATE_CHANGE [size 0x10, align 8, not_in_mingw "mingw's kit ends before performance states"] {
        0x00 Set: u32,
        0x08 StateIndex: u32,
        0x08 StateValue: u64,
    }
}

constants! {
    u32 {
        PO_FX_VERSION_V1 = 1;
        PO_FX_VERSION_V2 = 2;
    }
    u32, not_in_mingw "newer than mingw's kit" {
        PO_FX_VERSION_V3 = 3;
    }
    u32, not_in_mingw "mingw's kit has only the components" {
        // Of PoFxActivateComponent, PoFxIdleComponent and changes of performance states.
        PO_FX_FLAG_BLOCKING = 0x1;
        PO_FX_FLAG_ASYNC_ONLY = 0x2;
        // Of PoFxRegisterComponentPerfStates.
        PO_FX_FLAG_PERF_PEP_OPTIONAL = 0x1;
        PO_FX_FLAG_PERF_QUERY_ON_F0 = 0x2;
        PO_FX_FLAG_PERF_QUERY_ON_ALL_IDLE_STATES = 0x4;
        // `PO_FX_COMPONENT_PERF_SET::Type`.
        PoFxPerfStateTypeDiscrete = 0;
        PoFxPerfStateTypeRange = 1;
    }
    u64, not_in_mingw "mingw's kit has only the components" {
        PO_FX_UNKNOWN_TIME = u64::MAX;
        // `PO_FX_COMPONENT_V2::Flags`.
        PO_FX_COMPONENT_FLAG_F0_ON_DX = 0x1;
        PO_FX_COMPONENT_FLAG_NO_DEBOUNCE = 0x2;
    }
}

//! Connecting interrupts, and message-signaled interrupts.
//!
//! Pages: *IO_CONNECT_INTERRUPT_PARAMETERS*, *IO_INTERRUPT_MESSAGE_INFO*; `wdm.h`. `KINTERRUPT` is opaque.

use crate::constant::constants;
use crate::field::layouts;
use crate::{Code, DEVICE_OBJECT, DriverPtr};

/// An interrupt object. Opaque: only its address means something to a driver.
pub enum KINTERRUPT {}

layouts! {
    /// A line or message, all said by the driver.
    IO_CONNECT_INTERRUPT_FULLY_SPECIFIED_PARAMETERS [size 0x48, align 8] {
        0x00 PhysicalDeviceObject: DriverPtr<DEVICE_OBJECT>,
        0x08 InterruptObject: DriverPtr<DriverPtr<KINTERRUPT>>,
        0x10 ServiceRoutine: DriverPtr<Code>,
        0x18 ServiceContext: DriverPtr<()>,
        0x20 SpinLock: DriverPtr<u64>,
        0x28 SynchronizeIrql: u8,
        0x29 FloatingSave: u8,
        0x2a ShareVector: u8,
        0x2c Vector: u32,
        0x30 Irql: u8,
        0x34 InterruptMode: u32,
        0x38 ProcessorEnableMask: u64,
        0x40 Group: u16,
    }

    /// The device's line, whatever its vector.
    IO_CONNECT_INTERRUPT_LINE_BASED_PARAMETERS [size 0x30, align 8] {
        0x00 PhysicalDeviceObject: DriverPtr<DEVICE_OBJECT>,
        0x08 InterruptObject: DriverPtr<DriverPtr<KINTERRUPT>>,
        0x10 ServiceRoutine: DriverPtr<Code>,
        0x18 ServiceContext: DriverPtr<()>,
        0x20 SpinLock: DriverPtr<u64>,
        0x28 SynchronizeIrql: u8,
        0x29 FloatingSave: u8,
    }

    /// All of the device's messages, or its line.
    IO_CONNECT_INTERRUPT_MESSAGE_BASED_PARAMETERS [size 0x38, align 8] {
        0x00 PhysicalDeviceObject: DriverPtr<DEVICE_OBJECT>,
        0x08 ConnectionContext_Generic = "ConnectionContext.Generic": DriverPtr<DriverPtr<()>>,
        0x08 ConnectionContext_InterruptMessageTable = "ConnectionContext.InterruptMessageTable":
            DriverPtr<DriverPtr<IO_INTERRUPT_MESSAGE_INFO>>,
        0x08 ConnectionContext_InterruptObject = "ConnectionContext.InterruptObject":
            DriverPtr<DriverPtr<KINTERRUPT>>,
        0x10 MessageServiceRoutine: DriverPtr<Code>,
        0x18 ServiceContext: DriverPtr<()>,
        0x20 SpinLock: DriverPtr<u64>,
        0x28 SynchronizeIrql: u8,
        0x29 FloatingSave: u8,
        0x30 FallBackServiceRoutine: DriverPtr<Code>,
    }

    /// For `IoConnectInterruptEx`; `Version` says which member counts, and on return what was done.
    IO_CONNECT_INTERRUPT_PARAMETERS [size 0x50, align 8] {
        0x00 Version: u32,
        0x08 FullySpecified: IO_CONNECT_INTERRUPT_FULLY_SPECIFIED_PARAMETERS,
        0x08 LineBased: IO_CONNECT_INTERRUPT_LINE_BASED_PARAMETERS,
        0x08 MessageBased: IO_CONNECT_INTERRUPT_MESSAGE_BASED_PARAMETERS,
    }

    /// For `IoDisconnectInterruptEx`.
    IO_DISCONNECT_INTERRUPT_PARAMETERS [size 0x10, align 8] {
        0x00 Version: u32,
        0x08 ConnectionContext_Generic = "ConnectionContext.Generic": DriverPtr<()>,
        0x08 ConnectionContext_InterruptObject = "ConnectionContext.InterruptObject": DriverPtr<KINTERRUPT>,
        0x08 ConnectionContext_InterruptMessageTable = "ConnectionContext.InterruptMessageTable":
            DriverPtr<IO_INTERRUPT_MESSAGE_INFO>,
    }

    /// For `IoReportInterruptActive` and `IoReportInterruptInactive`.
    IO_REPORT_INTERRUPT_ACTIVE_STATE_PARAMETERS [size 0x10, align 8, not_in_mingw "newer than mingw's kit"] {
        0x00 Version: u32,
        0x08 ConnectionContext_Generic = "ConnectionContext.Generic": DriverPtr<()>,
        0x08 ConnectionContext_InterruptObject = "ConnectionContext.InterruptObject": DriverPtr<KINTERRUPT>,
        0x08 ConnectionContext_InterruptMessageTable = "ConnectionContext.InterruptMessageTable":
            DriverPtr<IO_INTERRUPT_MESSAGE_INFO>,
    }

    /// One message.
    IO_INTERRUPT_MESSAGE_INFO_ENTRY [size 0x30, align 8] {
        0x00 MessageAddress: u64,
        0x08 TargetProcessorSet: u64,
        0x10 InterruptObject: DriverPtr<KINTERRUPT>,
        0x18 MessageData: u32,
        0x1c Vector: u32,
        0x20 Irql: u8,
        0x24 Mode: u32,
        0x28 Polarity: u32,
    }

    /// The device's messages.
    IO_INTERRUPT_MESSAGE_INFO [size 0x38, align 8] {
        0x00 UnifiedIrql: u8,
        0x04 MessageCount: u32,
        0x08 MessageInfo: IO_INTERRUPT_MESSAGE_INFO_ENTRY,
    }
}

constants! {
    u32 {
        // `IO_CONNECT_INTERRUPT_PARAMETERS::Version`.
        CONNECT_FULLY_SPECIFIED = 0x1;
        CONNECT_LINE_BASED = 0x2;
        CONNECT_MESSAGE_BASED = 0x3;
        CONNECT_FULLY_SPECIFIED_GROUP = 0x4;
    }
    u32, not_in_mingw "newer than mingw's kit" {
        CONNECT_MESSAGE_BASED_PASSIVE = 0x5;
    }
    u32 {
        // Mode.
        LevelSensitive = 0;
        Latched = 1;
    }
    u32 {
        // Polarity.
        InterruptPolarityUnknown = 0;
        InterruptActiveHigh = 1;
        InterruptRisingEdge = 1;
        InterruptActiveLow = 2;
        InterruptFallingEdge = 2;
        InterruptActiveBoth = 3;
        InterruptActiveBothTriggerLow = 3;
        InterruptActiveBothTriggerHigh = 4;
    }
}

//! Cancel-safe IRP queues.
//!
//! Page: *Cancel-Safe IRP Queues*; `wdm.h`. `IoCsqInitializeEx` sets `Type` to `IO_TYPE_CSQ_EX`.

use crate::constant::constants;
use crate::field::layouts;
use crate::{Code, DriverPtr, IRP};

layouts! {
    /// A cancel-safe queue: the driver's six callbacks.
    IO_CSQ [size 0x40, align 8] {
        0x00 Type: u32,
        0x08 CsqInsertIrp: DriverPtr<Code>,
        0x10 CsqRemoveIrp: DriverPtr<Code>,
        0x18 CsqPeekNextIrp: DriverPtr<Code>,
        0x20 CsqAcquireLock: DriverPtr<Code>,
        0x28 CsqReleaseLock: DriverPtr<Code>,
        0x30 CsqCompleteCanceledIrp: DriverPtr<Code>,
        0x38 ReservePointer: DriverPtr<()>,
    }

    /// Names one IRP in a queue.
    IO_CSQ_IRP_CONTEXT [size 0x18, align 8] {
        0x00 Type: u32,
        0x08 Irp: DriverPtr<IRP>,
        0x10 Csq: DriverPtr<IO_CSQ>,
    }
}

constants! {
    u32 {
        // `Type`.
        IO_TYPE_CSQ_IRP_CONTEXT = 1;
        IO_TYPE_CSQ = 2;
        IO_TYPE_CSQ_EX = 3;
    }
}

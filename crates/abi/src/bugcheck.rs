//! Bug checks: what callbacks are given, and the codes drivers cause.
//!
//! Pages: *KeRegisterBugCheckCallback*, *KeRegisterBugCheckReasonCallback*, *Bug Check Code Reference*.
//! What each parameter means is documented where the kernel stops, not here.

use crate::constant::constants;
use crate::field::layouts;
use crate::{Code, DriverPtr, GUID, LIST_ENTRY};

layouts! {
    /// A registered bug-check callback.
    KBUGCHECK_CALLBACK_RECORD [size 0x40, align 8] {
        0x00 Entry: LIST_ENTRY,
        0x10 CallbackRoutine: DriverPtr<Code>,
        0x18 Buffer: DriverPtr<()>,
        0x20 Length: u32,
        0x28 Component: DriverPtr<u8>,
        0x30 Checksum: u64,
        0x38 State: u8,
    }

    /// A registered reason callback.
    KBUGCHECK_REASON_CALLBACK_RECORD [size 0x30, align 8] {
        0x00 Entry: LIST_ENTRY,
        0x10 CallbackRoutine: DriverPtr<Code>,
        0x18 Component: DriverPtr<u8>,
        0x20 Checksum: u64,
        0x28 Reason: u32,
        0x2c State: u8,
    }

    /// What a secondary-dump callback fills.
    KBUGCHECK_SECONDARY_DUMP_DATA [size 0x30, align 8] {
        0x00 InBuffer: DriverPtr<()>,
        0x08 InBufferLength: u32,
        0x0c MaximumAllowed: u32,
        0x10 Guid: GUID,
        0x20 OutBuffer: DriverPtr<()>,
        0x28 OutBufferLength: u32,
    }

    /// What a dump-I/O callback is given.
    KBUGCHECK_DUMP_IO [size 0x18, align 8] {
        0x00 Offset: u64,
        0x08 Buffer: DriverPtr<()>,
        0x10 BufferLength: u32,
        0x14 Type: u32,
    }

    /// What an add-pages callback fills.
    KBUGCHECK_ADD_PAGES [size 0x20, align 8] {
        0x00 Context: DriverPtr<()>,
        0x08 Flags: u32,
        0x0c BugCheckCode: u32,
        0x10 Address: u64,
        0x18 Count: u64,
    }
}

constants! {
    u32 {
        // Reasons of a callback.
        KbCallbackInvalid = 0;
        KbCallbackReserved1 = 1;
        KbCallbackSecondaryDumpData = 2;
        KbCallbackDumpIo = 3;
        KbCallbackAddPages = 4;
        KbCallbackSecondaryMultiPartDumpData = 5;
        KbCallbackRemovePages = 6;
        KbCallbackTriageDumpData = 7;
    }
    u8 {
        // `State` of a callback.
        BufferEmpty = 0;
        BufferInserted = 1;
        BufferStarted = 2;
        BufferFinished = 3;
        BufferIncomplete = 4;
    }
    u32 {
        // `KBUGCHECK_DUMP_IO::Type`.
        KbDumpIoInvalid = 0;
        KbDumpIoHeader = 1;
        KbDumpIoBody = 2;
        KbDumpIoSecondaryData = 3;
        KbDumpIoComplete = 4;
    }
}

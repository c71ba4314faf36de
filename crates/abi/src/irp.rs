//! The I/O request packet.
//!
//! Pages: *IRP*, *IO_STATUS_BLOCK*; `wdm.h`. Its stack locations, which follow it in memory, are in `stack_location`.

use crate::constant::constants;
use crate::field::layouts;
use crate::{
    Code, DriverPtr, FILE_OBJECT, IO_STACK_LOCATION, KAPC, KDEVICE_QUEUE_ENTRY, KEVENT, KTHREAD, LIST_ENTRY,
    MDL, NtStatus,
};

layouts! {
    /// How a request ended.
    IO_STATUS_BLOCK [size 0x10, align 8] {
        0x00 Status: NtStatus,
        0x00 Pointer: DriverPtr<()>,
        0x08 Information: u64,
    }

    /// An I/O request packet; `StackCount` stack locations follow it.
    IRP [size 0xd0, align 16, mingw_ends_at 0xd0 "wdm.h aligns the type to 16 bytes, mingw does not"] {
        0x00 Type: i16,
        0x02 Size: u16,
        0x08 MdlAddress: DriverPtr<MDL>,
        0x10 Flags: u32,
        0x18 AssociatedIrp_MasterIrp = "AssociatedIrp.MasterIrp": DriverPtr<IRP>,
        0x18 AssociatedIrp_IrpCount = "AssociatedIrp.IrpCount": i32,
        0x18 AssociatedIrp_SystemBuffer = "AssociatedIrp.SystemBuffer": DriverPtr<()>,
        0x20 ThreadListEntry: LIST_ENTRY,
        0x30 IoStatus: IO_STATUS_BLOCK,
        0x40 RequestorMode: u8,
        0x41 PendingReturned: u8,
        0x42 StackCount: u8,
        0x43 CurrentLocation: u8,
        0x44 Cancel: u8,
        0x45 CancelIrql: u8,
        0x46 ApcEnvironment: u8,
        0x47 AllocationFlags: u8,
        0x48 UserIosb: DriverPtr<IO_STATUS_BLOCK>,
        0x50 UserEvent: DriverPtr<KEVENT>,
        0x58 Overlay_AsynchronousParameters_UserApcRoutine = "Overlay.AsynchronousParameters.UserApcRoutine":
            DriverPtr<Code>,
        0x58 Overlay_AsynchronousParameters_IssuingProcess = "Overlay.AsynchronousParameters.IssuingProcess":
            DriverPtr<()>,
        0x60 Overlay_AsynchronousParameters_UserApcContext = "Overlay.AsynchronousParameters.UserApcContext":
            DriverPtr<()>,
        0x58 Overlay_AllocationSize = "Overlay.AllocationSize": i64,
        0x68 CancelRoutine: DriverPtr<Code>,
        0x70 UserBuffer: DriverPtr<()>,
        0x78 Tail_Overlay_DeviceQueueEntry = "Tail.Overlay.DeviceQueueEntry": KDEVICE_QUEUE_ENTRY,
        0x78 Tail_Overlay_DriverContext = "Tail.Overlay.DriverContext": [DriverPtr<()>; 4],
        0x98 Tail_Overlay_Thread = "Tail.Overlay.Thread": DriverPtr<KTHREAD>,
        0xa0 Tail_Overlay_AuxiliaryBuffer = "Tail.Overlay.AuxiliaryBuffer": DriverPtr<u8>,
        0xa8 Tail_Overlay_ListEntry = "Tail.Overlay.ListEntry": LIST_ENTRY,
        0xb8 Tail_Overlay_CurrentStackLocation = "Tail.Overlay.CurrentStackLocation":
            DriverPtr<IO_STACK_LOCATION>,
        0xb8 Tail_Overlay_PacketType = "Tail.Overlay.PacketType": u32,
        0xc0 Tail_Overlay_OriginalFileObject = "Tail.Overlay.OriginalFileObject": DriverPtr<FILE_OBJECT>,
        0x78 Tail_Apc = "Tail.Apc": KAPC,
        0x78 Tail_CompletionKey = "Tail.CompletionKey": DriverPtr<()>,
    }
}

constants! {
    u32 {
        // `IRP::Flags`.
        IRP_NOCACHE = 0x1;
        IRP_PAGING_IO = 0x2;
        IRP_MOUNT_COMPLETION = 0x2;
        IRP_SYNCHRONOUS_API = 0x4;
        IRP_ASSOCIATED_IRP = 0x8;
        IRP_BUFFERED_IO = 0x10;
        IRP_DEALLOCATE_BUFFER = 0x20;
        IRP_INPUT_OPERATION = 0x40;
        IRP_SYNCHRONOUS_PAGING_IO = 0x40;
        IRP_CREATE_OPERATION = 0x80;
        IRP_READ_OPERATION = 0x100;
        IRP_WRITE_OPERATION = 0x200;
        IRP_CLOSE_OPERATION = 0x400;
        IRP_DEFER_IO_COMPLETION = 0x800;
        IRP_OB_QUERY_NAME = 0x1000;
        IRP_HOLD_DEVICE_QUEUE = 0x2000;
    }
    u8 {
        // `IRP::AllocationFlags`.
        IRP_QUOTA_CHARGED = 0x1;
        IRP_ALLOCATED_MUST_SUCCEED = 0x2;
        IRP_ALLOCATED_FIXED_SIZE = 0x4;
        IRP_LOOKASIDE_ALLOCATION = 0x8;
    }
}

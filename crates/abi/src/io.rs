//! Driver and device objects, and what hangs on them.
//!
//! Pages: *DRIVER_OBJECT*, *DEVICE_OBJECT*, *VPB*, *Controller Objects*; `wdm.h` and `ntddk.h`.
//! Files are in `file`, requests in `irp` and `stack_location`.

use crate::constant::constants;
use crate::field::layouts;
use crate::{
    Code, DriverPtr, FAST_IO_DISPATCH, IRP, KDEVICE_QUEUE, KDEVICE_QUEUE_ENTRY, KDPC, KEVENT,
    KLDR_DATA_TABLE_ENTRY, LIST_ENTRY, NtStatus, UNICODE_STRING,
};

layouts! {
    /// A loaded driver. `MajorFunction` is indexed by `IRP_MJ_*`.
    DRIVER_OBJECT [size 0x150, align 8] {
        0x000 Type: i16,
        0x002 Size: i16,
        0x008 DeviceObject: DriverPtr<DEVICE_OBJECT>,
        0x010 Flags: u32,
        0x018 DriverStart: DriverPtr<()>,
        0x020 DriverSize: u32,
        0x028 DriverSection: DriverPtr<KLDR_DATA_TABLE_ENTRY>,
        0x030 DriverExtension: DriverPtr<DRIVER_EXTENSION>,
        0x038 DriverName: UNICODE_STRING,
        0x048 HardwareDatabase: DriverPtr<UNICODE_STRING>,
        0x050 FastIoDispatch: DriverPtr<FAST_IO_DISPATCH>,
        0x058 DriverInit: DriverPtr<Code>,
        0x060 DriverStartIo: DriverPtr<Code>,
        0x068 DriverUnload: DriverPtr<Code>,
        0x070 MajorFunction: [DriverPtr<Code>; 28],
    }

    /// The part of a driver object that holds `AddDevice`.
    DRIVER_EXTENSION [size 0x28, align 8] {
        0x00 DriverObject: DriverPtr<DRIVER_OBJECT>,
        0x08 AddDevice: DriverPtr<Code>,
        0x10 Count: u32,
        0x18 ServiceKeyName: UNICODE_STRING,
    }

    /// A device object.
    DEVICE_OBJECT [size 0x150, align 16,
        mingw_ends_at 0x148 "wdm.h aligns the type to 16 bytes, mingw does not"] {
        0x000 Type: i16,
        0x002 Size: u16,
        0x004 ReferenceCount: i32,
        0x008 DriverObject: DriverPtr<DRIVER_OBJECT>,
        0x010 NextDevice: DriverPtr<DEVICE_OBJECT>,
        0x018 AttachedDevice: DriverPtr<DEVICE_OBJECT>,
        0x020 CurrentIrp: DriverPtr<IRP>,
        0x028 Timer: DriverPtr<()>,
        0x030 Flags: u32,
        0x034 Characteristics: u32,
        0x038 Vpb: DriverPtr<VPB>,
        0x040 DeviceExtension: DriverPtr<()>,
        0x048 DeviceType: u32,
        0x04c StackSize: u8,
        0x050 Queue_ListEntry = "Queue.ListEntry": LIST_ENTRY,
        0x050 Queue_Wcb = "Queue.Wcb": WAIT_CONTEXT_BLOCK,
        0x098 AlignmentRequirement: u32,
        0x0a0 DeviceQueue: KDEVICE_QUEUE,
        0x0c8 Dpc: KDPC,
        0x108 ActiveThreadCount: u32,
        0x110 SecurityDescriptor: DriverPtr<()>,
        0x118 DeviceLock: KEVENT,
        0x130 SectorSize: u16,
        0x132 Spare1: u16,
        0x138 DeviceObjectExtension: DriverPtr<DEVOBJ_EXTENSION>,
        0x140 Reserved: DriverPtr<()>,
    }

    /// The public head of a device object's extension for the I/O manager.
    DEVOBJ_EXTENSION [size 0x10, align 8] {
        0x00 Type: i16,
        0x02 Size: u16,
        0x08 DeviceObject: DriverPtr<DEVICE_OBJECT>,
    }

    /// A volume parameter block.
    VPB [size 0x60, align 8] {
        0x00 Type: i16,
        0x02 Size: i16,
        0x04 Flags: u16,
        0x06 VolumeLabelLength: u16,
        0x08 DeviceObject: DriverPtr<DEVICE_OBJECT>,
        0x10 RealDevice: DriverPtr<DEVICE_OBJECT>,
        0x18 SerialNumber: u32,
        0x1c ReferenceCount: u32,
        0x20 VolumeLabel: [u16; 32],
    }

    /// A device's place in the queue for an adapter or controller.
    WAIT_CONTEXT_BLOCK [size 0x48, align 8] {
        0x00 WaitQueueEntry: KDEVICE_QUEUE_ENTRY,
        0x18 DeviceRoutine: DriverPtr<Code>,
        0x20 DeviceContext: DriverPtr<()>,
        0x28 NumberOfMapRegisters: u32,
        0x30 DeviceObject: DriverPtr<()>,
        0x38 CurrentIrp: DriverPtr<()>,
        0x40 BufferChainingDpc: DriverPtr<KDPC>,
    }

    /// A controller shared by several devices.
    CONTROLLER_OBJECT [size 0x48, align 8] {
        0x00 Type: i16,
        0x02 Size: i16,
        0x08 ControllerExtension: DriverPtr<()>,
        0x10 DeviceWaitQueue: KDEVICE_QUEUE,
        0x38 Spare1: u32,
        0x40 Spare2: i64,
    }

    /// What `IoGetConfigurationInformation` returns: counts of legacy devices.
    CONFIGURATION_INFORMATION [size 0x28, align 4] {
        0x00 DiskCount: u32,
        0x04 FloppyCount: u32,
        0x08 CdRomCount: u32,
        0x0c TapeCount: u32,
        0x10 ScsiPortCount: u32,
        0x14 SerialCount: u32,
        0x18 ParallelCount: u32,
        0x1c AtDiskPrimaryAddressClaimed: u8,
        0x1d AtDiskSecondaryAddressClaimed: u8,
        0x20 Version: u32,
        0x24 MediumChangerCount: u32,
    }

    /// An entry for the error log.
    IO_ERROR_LOG_PACKET [size 0x30, align 8] {
        0x00 MajorFunctionCode: u8,
        0x01 RetryCount: u8,
        0x02 DumpDataSize: u16,
        0x04 NumberOfStrings: u16,
        0x06 StringOffset: u16,
        0x08 EventCategory: u16,
        0x0c ErrorCode: NtStatus,
        0x10 UniqueErrorValue: u32,
        0x14 FinalStatus: NtStatus,
        0x18 SequenceNumber: u32,
        0x1c IoControlCode: u32,
        0x20 DeviceOffset: i64,
        0x28 DumpData: u32,
    }
}

constants! {
    u32 {
        // `DEVICE_OBJECT::Flags`.
        DO_VERIFY_VOLUME = 0x2;
        DO_BUFFERED_IO = 0x4;
        DO_EXCLUSIVE = 0x8;
        DO_DIRECT_IO = 0x10;
        DO_MAP_IO_BUFFER = 0x20;
        DO_DEVICE_HAS_NAME = 0x40;
        DO_DEVICE_INITIALIZING = 0x80;
        DO_SYSTEM_BOOT_PARTITION = 0x100;
        DO_LONG_TERM_REQUESTS = 0x200;
        DO_NEVER_LAST_DEVICE = 0x400;
        DO_SHUTDOWN_REGISTERED = 0x800;
        DO_BUS_ENUMERATED_DEVICE = 0x1000;
        DO_POWER_PAGABLE = 0x2000;
        DO_POWER_INRUSH = 0x4000;
        DO_LOW_PRIORITY_FILESYSTEM = 0x0001_0000;
        DO_SUPPORTS_TRANSACTIONS = 0x0004_0000;
        DO_FORCE_NEITHER_IO = 0x0008_0000;
        DO_VOLUME_DEVICE_OBJECT = 0x0010_0000;
        DO_SYSTEM_SYSTEM_PARTITION = 0x0020_0000;
        DO_SYSTEM_CRITICAL_PARTITION = 0x0040_0000;
        DO_DISALLOW_EXECUTE = 0x0080_0000;
    }
    u32 {
        // `DRIVER_OBJECT::Flags`.
        DRVO_UNLOAD_INVOKED = 0x1;
        DRVO_LEGACY_DRIVER = 0x2;
        DRVO_BUILTIN_DRIVER = 0x4;
        DRVO_REINIT_REGISTERED = 0x8;
        DRVO_INITIALIZED = 0x10;
        DRVO_BOOTREINIT_REGISTERED = 0x20;
        DRVO_LEGACY_RESOURCES = 0x40;
    }
    u16 {
        // `VPB::Flags`.
        VPB_MOUNTED = 0x1;
        VPB_LOCKED = 0x2;
        VPB_PERSISTENT = 0x4;
        VPB_REMOVE_PENDING = 0x8;
        VPB_RAW_MOUNT = 0x10;
        VPB_DIRECT_WRITES_ALLOWED = 0x20;
    }
    i16 {
        // `Type` of what the I/O manager makes.
        IO_TYPE_ADAPTER = 1;
        IO_TYPE_CONTROLLER = 2;
        IO_TYPE_DEVICE = 3;
        IO_TYPE_DRIVER = 4;
        IO_TYPE_FILE = 5;
        IO_TYPE_IRP = 6;
        IO_TYPE_MASTER_ADAPTER = 7;
        IO_TYPE_OPEN_PACKET = 8;
        IO_TYPE_TIMER = 9;
        IO_TYPE_VPB = 10;
        IO_TYPE_ERROR_LOG = 11;
        IO_TYPE_ERROR_MESSAGE = 12;
        IO_TYPE_DEVICE_OBJECT_EXTENSION = 13;
    }
    u32 {
        // What `AdapterControl` and `ControllerControl` return.
        KeepObject = 1;
        DeallocateObject = 2;
        DeallocateObjectKeepRegisters = 3;
    }
    u8 {
        // Priority boosts of `IoCompleteRequest`.
        IO_NO_INCREMENT = 0;
        IO_CD_ROM_INCREMENT = 1;
        IO_DISK_INCREMENT = 1;
        IO_KEYBOARD_INCREMENT = 6;
        IO_MAILSLOT_INCREMENT = 2;
        IO_MOUSE_INCREMENT = 6;
        IO_NAMED_PIPE_INCREMENT = 2;
        IO_NETWORK_INCREMENT = 2;
        IO_PARALLEL_INCREMENT = 1;
        IO_SERIAL_INCREMENT = 2;
        IO_SOUND_INCREMENT = 8;
        IO_VIDEO_INCREMENT = 1;
    }
    u32 {
        // For `IoRegisterPlugPlayNotification`.
        EventCategoryReserved = 0x0;
        EventCategoryHardwareProfileChange = 0x1;
        EventCategoryDeviceInterfaceChange = 0x2;
        EventCategoryTargetDeviceChange = 0x3;
        EventCategoryKernelSoftRestart = 0x4;
        PNPNOTIFY_DEVICE_INTERFACE_INCLUDE_EXISTING_INTERFACES = 0x1;
    }
    u32 {
        // Codes of error-log entries.
        IO_ERR_RETRY_SUCCEEDED = 0x0004_0001;
        IO_ERR_INSUFFICIENT_RESOURCES = 0xc004_0002;
        IO_ERR_CONFIGURATION_ERROR = 0xc004_0003;
        IO_ERR_DRIVER_ERROR = 0xc004_0004;
        IO_ERR_PARITY = 0xc004_0005;
        IO_ERR_OVERRUN_ERROR = 0xc004_0008;
        IO_ERR_TIMEOUT = 0xc004_0009;
        IO_ERR_SEQUENCE = 0xc004_000a;
        IO_ERR_CONTROLLER_ERROR = 0xc004_000b;
        IO_ERR_INTERNAL_ERROR = 0xc004_000c;
        IO_ERR_INCORRECT_IRQL = 0xc004_000d;
        IO_ERR_INVALID_IOBASE = 0xc004_000e;
        IO_ERR_NOT_READY = 0xc004_000f;
        IO_ERR_INVALID_REQUEST = 0xc004_0010;
        IO_ERR_VERSION = 0xc004_0011;
        IO_ERR_LAYERED_FAILURE = 0xc004_0012;
        IO_ERR_RESET = 0xc004_0013;
        IO_ERR_PROTOCOL = 0xc004_0014;
    }
}

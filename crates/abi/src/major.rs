//! Major and minor function codes: which request an IRP carries.
//!
//! Pages: *IRP Major Function Codes*, *Plug and Play Minor IRPs*, *Power Management Minor IRPs*, *WMI Minor IRPs*.
//! What each carries is in `stack_location`.

use crate::constant::constants;

constants! {
    u8 {
        // Pages: *IRP Major Function Codes*.
        IRP_MJ_CREATE = 0x0;
        IRP_MJ_CREATE_NAMED_PIPE = 0x1;
        IRP_MJ_CLOSE = 0x2;
        IRP_MJ_READ = 0x3;
        IRP_MJ_WRITE = 0x4;
        IRP_MJ_QUERY_INFORMATION = 0x5;
        IRP_MJ_SET_INFORMATION = 0x6;
        IRP_MJ_QUERY_EA = 0x7;
        IRP_MJ_SET_EA = 0x8;
        IRP_MJ_FLUSH_BUFFERS = 0x9;
        IRP_MJ_QUERY_VOLUME_INFORMATION = 0xa;
        IRP_MJ_SET_VOLUME_INFORMATION = 0xb;
        IRP_MJ_DIRECTORY_CONTROL = 0xc;
        IRP_MJ_FILE_SYSTEM_CONTROL = 0xd;
        IRP_MJ_DEVICE_CONTROL = 0xe;
        IRP_MJ_INTERNAL_DEVICE_CONTROL = 0xf;
        IRP_MJ_SCSI = 0xf;
        IRP_MJ_SHUTDOWN = 0x10;
        IRP_MJ_LOCK_CONTROL = 0x11;
        IRP_MJ_CLEANUP = 0x12;
        IRP_MJ_CREATE_MAILSLOT = 0x13;
        IRP_MJ_QUERY_SECURITY = 0x14;
        IRP_MJ_SET_SECURITY = 0x15;
        IRP_MJ_POWER = 0x16;
        IRP_MJ_SYSTEM_CONTROL = 0x17;
        IRP_MJ_DEVICE_CHANGE = 0x18;
        IRP_MJ_QUERY_QUOTA = 0x19;
        IRP_MJ_SET_QUOTA = 0x1a;
        IRP_MJ_PNP = 0x1b;
        IRP_MJ_PNP_POWER = 0x1b;
        IRP_MJ_MAXIMUM_FUNCTION = 0x1b;
    }
    u8 {
        // Plug and Play.
        IRP_MN_START_DEVICE = 0x0;
        IRP_MN_QUERY_REMOVE_DEVICE = 0x1;
        IRP_MN_REMOVE_DEVICE = 0x2;
        IRP_MN_CANCEL_REMOVE_DEVICE = 0x3;
        IRP_MN_STOP_DEVICE = 0x4;
        IRP_MN_QUERY_STOP_DEVICE = 0x5;
        IRP_MN_CANCEL_STOP_DEVICE = 0x6;
        IRP_MN_QUERY_DEVICE_RELATIONS = 0x7;
        IRP_MN_QUERY_INTERFACE = 0x8;
        IRP_MN_QUERY_CAPABILITIES = 0x9;
        IRP_MN_QUERY_RESOURCES = 0xa;
        IRP_MN_QUERY_RESOURCE_REQUIREMENTS = 0xb;
        IRP_MN_QUERY_DEVICE_TEXT = 0xc;
        IRP_MN_FILTER_RESOURCE_REQUIREMENTS = 0xd;
        IRP_MN_READ_CONFIG = 0xf;
        IRP_MN_WRITE_CONFIG = 0x10;
        IRP_MN_EJECT = 0x11;
        IRP_MN_SET_LOCK = 0x12;
        IRP_MN_QUERY_ID = 0x13;
        IRP_MN_QUERY_PNP_DEVICE_STATE = 0x14;
        IRP_MN_QUERY_BUS_INFORMATION = 0x15;
        IRP_MN_DEVICE_USAGE_NOTIFICATION = 0x16;
        IRP_MN_SURPRISE_REMOVAL = 0x17;
        IRP_MN_QUERY_LEGACY_BUS_INFORMATION = 0x18;
        IRP_MN_DEVICE_ENUMERATED = 0x19;
    }
    u8 {
        // Power.
        IRP_MN_WAIT_WAKE = 0x0;
        IRP_MN_POWER_SEQUENCE = 0x1;
        IRP_MN_SET_POWER = 0x2;
        IRP_MN_QUERY_POWER = 0x3;
    }
    u8 {
        // WMI.
        IRP_MN_QUERY_ALL_DATA = 0x0;
        IRP_MN_QUERY_SINGLE_INSTANCE = 0x1;
        IRP_MN_CHANGE_SINGLE_INSTANCE = 0x2;
        IRP_MN_CHANGE_SINGLE_ITEM = 0x3;
        IRP_MN_ENABLE_EVENTS = 0x4;
        IRP_MN_DISABLE_EVENTS = 0x5;
        IRP_MN_ENABLE_COLLECTION = 0x6;
        IRP_MN_DISABLE_COLLECTION = 0x7;
        IRP_MN_REGINFO = 0x8;
        IRP_MN_EXECUTE_METHOD = 0x9;
        IRP_MN_REGINFO_EX = 0xb;
    }
    u8 {
        // File systems and SCSI.
        IRP_MN_NORMAL = 0x0;
        IRP_MN_DPC = 0x1;
        IRP_MN_MDL = 0x2;
        IRP_MN_COMPLETE = 0x4;
        IRP_MN_COMPRESSED = 0x8;
        IRP_MN_MDL_DPC = 0x3;
        IRP_MN_COMPLETE_MDL = 0x6;
        IRP_MN_COMPLETE_MDL_DPC = 0x7;
        IRP_MN_SCSI_CLASS = 0x1;
        IRP_MN_QUERY_DIRECTORY = 0x1;
        IRP_MN_NOTIFY_CHANGE_DIRECTORY = 0x2;
        IRP_MN_USER_FS_REQUEST = 0x0;
        IRP_MN_MOUNT_VOLUME = 0x1;
        IRP_MN_VERIFY_VOLUME = 0x2;
        IRP_MN_LOAD_FILE_SYSTEM = 0x3;
        IRP_MN_KERNEL_CALL = 0x4;
        IRP_MN_FLUSH_AND_PURGE = 0x1;
        IRP_MN_LOCK = 0x1;
        IRP_MN_UNLOCK_SINGLE = 0x2;
        IRP_MN_UNLOCK_ALL = 0x3;
        IRP_MN_UNLOCK_ALL_BY_KEY = 0x4;
    }
    u8, not_in_mingw "mingw's wdm.h ends before ZwFlushBuffersFileEx" {
        IRP_MN_FLUSH_DATA_ONLY = 0x2;
        IRP_MN_FLUSH_NO_SYNC = 0x3;
        IRP_MN_FLUSH_DATA_SYNC_ONLY = 0x4;
    }
}

//! Major and minor function codes: which request an IRP carries.
//!
//! Pages: *IRP Major Function Codes*, *Plug and Play Minor IRPs*, *Power Management Minor IRPs*, *WMI Minor IRPs*.

#![allow(missing_docs, reason = "the names are Microsoft's")]

pub const IRP_MJ_CREATE: u8 = 0x00;
pub const IRP_MJ_CREATE_NAMED_PIPE: u8 = 0x01;
pub const IRP_MJ_CLOSE: u8 = 0x02;
pub const IRP_MJ_READ: u8 = 0x03;
pub const IRP_MJ_WRITE: u8 = 0x04;
pub const IRP_MJ_QUERY_INFORMATION: u8 = 0x05;
pub const IRP_MJ_SET_INFORMATION: u8 = 0x06;
pub const IRP_MJ_QUERY_EA: u8 = 0x07;
pub const IRP_MJ_SET_EA: u8 = 0x08;
pub const IRP_MJ_FLUSH_BUFFERS: u8 = 0x09;
pub const IRP_MJ_QUERY_VOLUME_INFORMATION: u8 = 0x0a;
pub const IRP_MJ_SET_VOLUME_INFORMATION: u8 = 0x0b;
pub const IRP_MJ_DIRECTORY_CONTROL: u8 = 0x0c;
pub const IRP_MJ_FILE_SYSTEM_CONTROL: u8 = 0x0d;
pub const IRP_MJ_DEVICE_CONTROL: u8 = 0x0e;
pub const IRP_MJ_INTERNAL_DEVICE_CONTROL: u8 = 0x0f;
pub const IRP_MJ_SCSI: u8 = 0x0f;
pub const IRP_MJ_SHUTDOWN: u8 = 0x10;
pub const IRP_MJ_LOCK_CONTROL: u8 = 0x11;
pub const IRP_MJ_CLEANUP: u8 = 0x12;
pub const IRP_MJ_CREATE_MAILSLOT: u8 = 0x13;
pub const IRP_MJ_QUERY_SECURITY: u8 = 0x14;
pub const IRP_MJ_SET_SECURITY: u8 = 0x15;
pub const IRP_MJ_POWER: u8 = 0x16;
pub const IRP_MJ_SYSTEM_CONTROL: u8 = 0x17;
pub const IRP_MJ_DEVICE_CHANGE: u8 = 0x18;
pub const IRP_MJ_QUERY_QUOTA: u8 = 0x19;
pub const IRP_MJ_SET_QUOTA: u8 = 0x1a;
pub const IRP_MJ_PNP: u8 = 0x1b;
pub const IRP_MJ_PNP_POWER: u8 = IRP_MJ_PNP;
/// The highest index into `DRIVER_OBJECT::MajorFunction`.
pub const IRP_MJ_MAXIMUM_FUNCTION: u8 = 0x1b;

pub const IRP_MN_NORMAL: u8 = 0x00;
pub const IRP_MN_START_DEVICE: u8 = 0x00;
pub const IRP_MN_QUERY_REMOVE_DEVICE: u8 = 0x01;
pub const IRP_MN_REMOVE_DEVICE: u8 = 0x02;
pub const IRP_MN_CANCEL_REMOVE_DEVICE: u8 = 0x03;
pub const IRP_MN_STOP_DEVICE: u8 = 0x04;
pub const IRP_MN_QUERY_STOP_DEVICE: u8 = 0x05;
pub const IRP_MN_CANCEL_STOP_DEVICE: u8 = 0x06;
pub const IRP_MN_QUERY_DEVICE_RELATIONS: u8 = 0x07;
pub const IRP_MN_QUERY_INTERFACE: u8 = 0x08;
pub const IRP_MN_QUERY_CAPABILITIES: u8 = 0x09;
pub const IRP_MN_QUERY_RESOURCES: u8 = 0x0a;
pub const IRP_MN_QUERY_RESOURCE_REQUIREMENTS: u8 = 0x0b;
pub const IRP_MN_QUERY_DEVICE_TEXT: u8 = 0x0c;
pub const IRP_MN_FILTER_RESOURCE_REQUIREMENTS: u8 = 0x0d;
pub const IRP_MN_READ_CONFIG: u8 = 0x0f;
pub const IRP_MN_WRITE_CONFIG: u8 = 0x10;
pub const IRP_MN_EJECT: u8 = 0x11;
pub const IRP_MN_SET_LOCK: u8 = 0x12;
pub const IRP_MN_QUERY_ID: u8 = 0x13;
pub const IRP_MN_QUERY_PNP_DEVICE_STATE: u8 = 0x14;
pub const IRP_MN_QUERY_BUS_INFORMATION: u8 = 0x15;
pub const IRP_MN_DEVICE_USAGE_NOTIFICATION: u8 = 0x16;
pub const IRP_MN_SURPRISE_REMOVAL: u8 = 0x17;
pub const IRP_MN_DEVICE_ENUMERATED: u8 = 0x19;

pub const IRP_MN_WAIT_WAKE: u8 = 0x00;
pub const IRP_MN_POWER_SEQUENCE: u8 = 0x01;
pub const IRP_MN_SET_POWER: u8 = 0x02;
pub const IRP_MN_QUERY_POWER: u8 = 0x03;

pub const IRP_MN_QUERY_ALL_DATA: u8 = 0x00;
pub const IRP_MN_QUERY_SINGLE_INSTANCE: u8 = 0x01;
pub const IRP_MN_CHANGE_SINGLE_INSTANCE: u8 = 0x02;
pub const IRP_MN_CHANGE_SINGLE_ITEM: u8 = 0x03;
pub const IRP_MN_ENABLE_EVENTS: u8 = 0x04;
pub const IRP_MN_DISABLE_EVENTS: u8 = 0x05;
pub const IRP_MN_ENABLE_COLLECTION: u8 = 0x06;
pub const IRP_MN_DISABLE_COLLECTION: u8 = 0x07;
pub const IRP_MN_REGINFO: u8 = 0x08;
pub const IRP_MN_EXECUTE_METHOD: u8 = 0x09;
pub const IRP_MN_REGINFO_EX: u8 = 0x0b;

pub const IRP_MN_QUERY_DIRECTORY: u8 = 0x01;
pub const IRP_MN_NOTIFY_CHANGE_DIRECTORY: u8 = 0x02;
pub const IRP_MN_USER_FS_REQUEST: u8 = 0x00;
pub const IRP_MN_MOUNT_VOLUME: u8 = 0x01;
pub const IRP_MN_VERIFY_VOLUME: u8 = 0x02;
pub const IRP_MN_LOAD_FILE_SYSTEM: u8 = 0x03;
pub const IRP_MN_KERNEL_CALL: u8 = 0x04;
pub const IRP_MN_LOCK: u8 = 0x01;
pub const IRP_MN_UNLOCK_SINGLE: u8 = 0x02;
pub const IRP_MN_UNLOCK_ALL: u8 = 0x03;
pub const IRP_MN_UNLOCK_ALL_BY_KEY: u8 = 0x04;
pub const IRP_MN_DPC: u8 = 0x01;
pub const IRP_MN_MDL: u8 = 0x02;
pub const IRP_MN_COMPLETE: u8 = 0x04;
pub const IRP_MN_COMPRESSED: u8 = 0x08;
pub const IRP_MN_MDL_DPC: u8 = IRP_MN_MDL | IRP_MN_DPC;
pub const IRP_MN_COMPLETE_MDL: u8 = IRP_MN_COMPLETE | IRP_MN_MDL;
pub const IRP_MN_COMPLETE_MDL_DPC: u8 = IRP_MN_COMPLETE_MDL | IRP_MN_DPC;
pub const IRP_MN_SCSI_CLASS: u8 = 0x01;

//! File objects, and the information a file is asked for.
//!
//! Pages: *FILE_OBJECT*, *FAST_IO_DISPATCH*, *FILE_BASIC_INFORMATION* and its neighbours; `wdm.h` and `ntifs.h`.
//! Only what requests to a device need: directories, locks and streams belong to file systems.

use crate::constant::constants;
use crate::field::layouts;
use crate::{Code, DEVICE_OBJECT, DriverPtr, KEVENT, LIST_ENTRY, NtStatus, UNICODE_STRING, VPB};

layouts! {
    /// An open instance of a device or file.
    FILE_OBJECT [size 0xd8, align 8] {
        0x00 Type: i16,
        0x02 Size: i16,
        0x08 DeviceObject: DriverPtr<DEVICE_OBJECT>,
        0x10 Vpb: DriverPtr<VPB>,
        0x18 FsContext: DriverPtr<()>,
        0x20 FsContext2: DriverPtr<()>,
        0x28 SectionObjectPointer: DriverPtr<SECTION_OBJECT_POINTERS>,
        0x30 PrivateCacheMap: DriverPtr<()>,
        0x38 FinalStatus: NtStatus,
        0x40 RelatedFileObject: DriverPtr<FILE_OBJECT>,
        0x48 LockOperation: u8,
        0x49 DeletePending: u8,
        0x4a ReadAccess: u8,
        0x4b WriteAccess: u8,
        0x4c DeleteAccess: u8,
        0x4d SharedRead: u8,
        0x4e SharedWrite: u8,
        0x4f SharedDelete: u8,
        0x50 Flags: u32,
        0x58 FileName: UNICODE_STRING,
        0x68 CurrentByteOffset: i64,
        0x70 Waiters: u32,
        0x74 Busy: u32,
        0x78 LastLock: DriverPtr<()>,
        0x80 Lock: KEVENT,
        0x98 Event: KEVENT,
        0xb0 CompletionContext: DriverPtr<IO_COMPLETION_CONTEXT>,
        0xb8 IrpListLock: u64,
        0xc0 IrpList: LIST_ENTRY,
        0xd0 FileObjectExtension: DriverPtr<()>,
    }

    /// The completion port a file is bound to.
    IO_COMPLETION_CONTEXT [size 0x10, align 8] {
        0x00 Port: DriverPtr<()>,
        0x08 Key: DriverPtr<()>,
    }

    /// Where the cache and memory managers hang their objects.
    SECTION_OBJECT_POINTERS [size 0x18, align 8] {
        0x00 DataSectionObject: DriverPtr<()>,
        0x08 SharedCacheMap: DriverPtr<()>,
        0x10 ImageSectionObject: DriverPtr<()>,
    }

    /// Counts of who opened a file for what.
    SHARE_ACCESS [size 0x1c, align 4] {
        0x00 OpenCount: u32,
        0x04 Readers: u32,
        0x08 Writers: u32,
        0x0c Deleters: u32,
        0x10 SharedRead: u32,
        0x14 SharedWrite: u32,
        0x18 SharedDelete: u32,
    }

    /// Entry points that bypass IRPs.
    FAST_IO_DISPATCH [size 0xe0, align 8] {
        0x00 SizeOfFastIoDispatch: u32,
        0x08 FastIoCheckIfPossible: DriverPtr<Code>,
        0x10 FastIoRead: DriverPtr<Code>,
        0x18 FastIoWrite: DriverPtr<Code>,
        0x20 FastIoQueryBasicInfo: DriverPtr<Code>,
        0x28 FastIoQueryStandardInfo: DriverPtr<Code>,
        0x30 FastIoLock: DriverPtr<Code>,
        0x38 FastIoUnlockSingle: DriverPtr<Code>,
        0x40 FastIoUnlockAll: DriverPtr<Code>,
        0x48 FastIoUnlockAllByKey: DriverPtr<Code>,
        0x50 FastIoDeviceControl: DriverPtr<Code>,
        0x58 AcquireFileForNtCreateSection: DriverPtr<Code>,
        0x60 ReleaseFileForNtCreateSection: DriverPtr<Code>,
        0x68 FastIoDetachDevice: DriverPtr<Code>,
        0x70 FastIoQueryNetworkOpenInfo: DriverPtr<Code>,
        0x78 AcquireForModWrite: DriverPtr<Code>,
        0x80 MdlRead: DriverPtr<Code>,
        0x88 MdlReadComplete: DriverPtr<Code>,
        0x90 PrepareMdlWrite: DriverPtr<Code>,
        0x98 MdlWriteComplete: DriverPtr<Code>,
        0xa0 FastIoReadCompressed: DriverPtr<Code>,
        0xa8 FastIoWriteCompressed: DriverPtr<Code>,
        0xb0 MdlReadCompleteCompressed: DriverPtr<Code>,
        0xb8 MdlWriteCompleteCompressed: DriverPtr<Code>,
        0xc0 FastIoQueryOpen: DriverPtr<Code>,
        0xc8 ReleaseForModWrite: DriverPtr<Code>,
        0xd0 AcquireForCcFlush: DriverPtr<Code>,
        0xd8 ReleaseForCcFlush: DriverPtr<Code>,
    }

    /// What `IRP_MJ_CREATE_NAMED_PIPE` asks for.
    NAMED_PIPE_CREATE_PARAMETERS [size 0x28, align 8] {
        0x00 NamedPipeType: u32,
        0x04 ReadMode: u32,
        0x08 CompletionMode: u32,
        0x0c MaximumInstances: u32,
        0x10 InboundQuota: u32,
        0x14 OutboundQuota: u32,
        0x18 DefaultTimeout: i64,
        0x20 TimeoutSpecified: u8,
    }

    /// What `IRP_MJ_CREATE_MAILSLOT` asks for.
    MAILSLOT_CREATE_PARAMETERS [size 0x18, align 8] {
        0x00 MailslotQuota: u32,
        0x04 MaximumMessageSize: u32,
        0x08 ReadTimeout: i64,
        0x10 TimeoutSpecified: u8,
    }

    /// Times and attributes; times in 100 ns since 1601.
    FILE_BASIC_INFORMATION [size 0x28, align 8] {
        0x00 CreationTime: i64,
        0x08 LastAccessTime: i64,
        0x10 LastWriteTime: i64,
        0x18 ChangeTime: i64,
        0x20 FileAttributes: u32,
    }

    /// Sizes, links, and whether it is to be deleted.
    FILE_STANDARD_INFORMATION [size 0x18, align 8] {
        0x00 AllocationSize: i64,
        0x08 EndOfFile: i64,
        0x10 NumberOfLinks: u32,
        0x14 DeletePending: u8,
        0x15 Directory: u8,
    }

    /// The current byte offset.
    FILE_POSITION_INFORMATION [size 0x8, align 8] {
        0x00 CurrentByteOffset: i64,
    }

    /// The alignment the device requires of buffers.
    FILE_ALIGNMENT_INFORMATION [size 0x4, align 4] {
        0x00 AlignmentRequirement: u32,
    }

    /// A name; `FileNameLength` is bytes.
    FILE_NAME_INFORMATION [size 0x8, align 4] {
        0x00 FileNameLength: u32,
        0x04 FileName: u16,
    }

    /// Times, sizes and attributes at once.
    FILE_NETWORK_OPEN_INFORMATION [size 0x38, align 8] {
        0x00 CreationTime: i64,
        0x08 LastAccessTime: i64,
        0x10 LastWriteTime: i64,
        0x18 ChangeTime: i64,
        0x20 AllocationSize: i64,
        0x28 EndOfFile: i64,
        0x30 FileAttributes: u32,
    }

    /// Where the file ends.
    FILE_END_OF_FILE_INFORMATION [size 0x8, align 8] {
        0x00 EndOfFile: i64,
    }

    /// Whether to delete at last close.
    FILE_DISPOSITION_INFORMATION [size 0x1, align 1] {
        0x00 DeleteFile: u8,
    }

    /// Attributes and reparse tag.
    FILE_ATTRIBUTE_TAG_INFORMATION [size 0x8, align 4] {
        0x00 FileAttributes: u32,
        0x04 ReparseTag: u32,
    }

    /// Device type and characteristics.
    FILE_FS_DEVICE_INFORMATION [size 0x8, align 4] {
        0x00 DeviceType: u32,
        0x04 Characteristics: u32,
    }

    /// An extended attribute.
    FILE_FULL_EA_INFORMATION [size 0xc, align 4] {
        0x00 NextEntryOffset: u32,
        0x04 Flags: u8,
        0x05 EaNameLength: u8,
        0x06 EaValueLength: u16,
        0x08 EaName: u8,
    }
}

constants! {
    u32 {
        // `FILE_OBJECT::Flags`.
        FO_FILE_OPEN = 0x1;
        FO_SYNCHRONOUS_IO = 0x2;
        FO_ALERTABLE_IO = 0x4;
        FO_NO_INTERMEDIATE_BUFFERING = 0x8;
        FO_WRITE_THROUGH = 0x10;
        FO_SEQUENTIAL_ONLY = 0x20;
        FO_CACHE_SUPPORTED = 0x40;
        FO_NAMED_PIPE = 0x80;
        FO_STREAM_FILE = 0x100;
        FO_MAILSLOT = 0x200;
        FO_GENERATE_AUDIT_ON_CLOSE = 0x400;
        FO_QUEUE_IRP_TO_THREAD = 0x400;
        FO_DIRECT_DEVICE_OPEN = 0x800;
        FO_FILE_MODIFIED = 0x1000;
        FO_FILE_SIZE_CHANGED = 0x2000;
        FO_CLEANUP_COMPLETE = 0x4000;
        FO_TEMPORARY_FILE = 0x8000;
        FO_DELETE_ON_CLOSE = 0x0001_0000;
        FO_OPENED_CASE_SENSITIVE = 0x0002_0000;
        FO_HANDLE_CREATED = 0x0004_0000;
        FO_FILE_FAST_IO_READ = 0x0008_0000;
        FO_RANDOM_ACCESS = 0x0010_0000;
        FO_FILE_OPEN_CANCELLED = 0x0020_0000;
        FO_VOLUME_OPEN = 0x0040_0000;
        FO_REMOTE_ORIGIN = 0x0100_0000;
        FO_DISALLOW_EXCLUSIVE = 0x0200_0000;
        FO_SKIP_COMPLETION_PORT = 0x0200_0000;
        FO_SKIP_SET_EVENT = 0x0400_0000;
        FO_SKIP_SET_FAST_IO = 0x0800_0000;
        FO_FLAGS_VALID_ONLY_DURING_CREATE = 0x0200_0000;
    }
    u32 {
        // What a file is asked for.
        FileDirectoryInformation = 1;
        FileFullDirectoryInformation = 2;
        FileBothDirectoryInformation = 3;
        FileBasicInformation = 4;
        FileStandardInformation = 5;
        FileInternalInformation = 6;
        FileEaInformation = 7;
        FileAccessInformation = 8;
        FileNameInformation = 9;
        FileRenameInformation = 10;
        FileNamesInformation = 12;
        FileDispositionInformation = 13;
        FilePositionInformation = 14;
        FileModeInformation = 16;
        FileAlignmentInformation = 17;
        FileAllInformation = 18;
        FileAllocationInformation = 19;
        FileEndOfFileInformation = 20;
        FileNetworkOpenInformation = 34;
        FileAttributeTagInformation = 35;
        FileIdBothDirectoryInformation = 37;
        FileIdFullDirectoryInformation = 38;
        FileIoPriorityHintInformation = 43;
    }
    u32 {
        // What a volume is asked for.
        FileFsVolumeInformation = 1;
        FileFsLabelInformation = 2;
        FileFsSizeInformation = 3;
        FileFsDeviceInformation = 4;
        FileFsAttributeInformation = 5;
        FileFsControlInformation = 6;
        FileFsFullSizeInformation = 7;
        FileFsObjectIdInformation = 8;
        FileFsDriverPathInformation = 9;
        FileFsVolumeFlagsInformation = 10;
        FileFsSectorSizeInformation = 11;
        FileFsDataCopyInformation = 12;
        FileFsMetadataSizeInformation = 13;
        FileFsFullSizeInformationEx = 14;
        FileFsMaximumInformation = 15;
    }
}

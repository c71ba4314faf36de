//! Opening: access rights, sharing, dispositions, options, attributes.
//!
//! Pages: *ZwCreateFile*, *ACCESS_MASK*; `wdm.h`.

use crate::constant::constants;

constants! {
    u32 {
        // Rights of every object.
        DELETE = 0x0001_0000;
        READ_CONTROL = 0x0002_0000;
        WRITE_DAC = 0x0004_0000;
        WRITE_OWNER = 0x0008_0000;
        SYNCHRONIZE = 0x0010_0000;
        STANDARD_RIGHTS_REQUIRED = 0x000f_0000;
        STANDARD_RIGHTS_READ = 0x0002_0000;
        STANDARD_RIGHTS_WRITE = 0x0002_0000;
        STANDARD_RIGHTS_EXECUTE = 0x0002_0000;
        STANDARD_RIGHTS_ALL = 0x001f_0000;
        SPECIFIC_RIGHTS_ALL = 0xffff;
        ACCESS_SYSTEM_SECURITY = 0x0100_0000;
        MAXIMUM_ALLOWED = 0x0200_0000;
        GENERIC_READ = 0x8000_0000;
        GENERIC_WRITE = 0x4000_0000;
        GENERIC_EXECUTE = 0x2000_0000;
        GENERIC_ALL = 0x1000_0000;
    }
    u32 {
        // Rights of a file or device.
        FILE_READ_DATA = 0x1;
        FILE_LIST_DIRECTORY = 0x1;
        FILE_WRITE_DATA = 0x2;
        FILE_ADD_FILE = 0x2;
        FILE_APPEND_DATA = 0x4;
        FILE_READ_EA = 0x8;
        FILE_WRITE_EA = 0x10;
        FILE_EXECUTE = 0x20;
        FILE_TRAVERSE = 0x20;
        FILE_READ_ATTRIBUTES = 0x80;
        FILE_WRITE_ATTRIBUTES = 0x100;
        FILE_ALL_ACCESS = 0x001f_01ff;
        FILE_GENERIC_READ = 0x0012_0089;
        FILE_GENERIC_WRITE = 0x0012_0116;
        FILE_GENERIC_EXECUTE = 0x0012_00a0;
    }
    u32 {
        // Sharing.
        FILE_SHARE_READ = 0x1;
        FILE_SHARE_WRITE = 0x2;
        FILE_SHARE_DELETE = 0x4;
    }
    u32 {
        // Dispositions: what to do if the file exists or not.
        FILE_SUPERSEDE = 0x0;
        FILE_OPEN = 0x1;
        FILE_CREATE = 0x2;
        FILE_OPEN_IF = 0x3;
        FILE_OVERWRITE = 0x4;
        FILE_OVERWRITE_IF = 0x5;
    }
    u64 {
        // `IO_STATUS_BLOCK::Information` of a create.
        FILE_SUPERSEDED = 0x0;
        FILE_OPENED = 0x1;
        FILE_CREATED = 0x2;
        FILE_OVERWRITTEN = 0x3;
        FILE_EXISTS = 0x4;
        FILE_DOES_NOT_EXIST = 0x5;
    }
    u32 {
        // Options.
        FILE_DIRECTORY_FILE = 0x1;
        FILE_WRITE_THROUGH = 0x2;
        FILE_SEQUENTIAL_ONLY = 0x4;
        FILE_NO_INTERMEDIATE_BUFFERING = 0x8;
        FILE_SYNCHRONOUS_IO_ALERT = 0x10;
        FILE_SYNCHRONOUS_IO_NONALERT = 0x20;
        FILE_NON_DIRECTORY_FILE = 0x40;
        FILE_CREATE_TREE_CONNECTION = 0x80;
        FILE_COMPLETE_IF_OPLOCKED = 0x100;
        FILE_NO_EA_KNOWLEDGE = 0x200;
        FILE_RANDOM_ACCESS = 0x800;
        FILE_DELETE_ON_CLOSE = 0x1000;
        FILE_OPEN_BY_FILE_ID = 0x2000;
        FILE_OPEN_FOR_BACKUP_INTENT = 0x4000;
        FILE_NO_COMPRESSION = 0x8000;
        FILE_RESERVE_OPFILTER = 0x0010_0000;
        FILE_OPEN_REPARSE_POINT = 0x0020_0000;
        FILE_OPEN_NO_RECALL = 0x0040_0000;
    }
    u32 {
        // Attributes.
        FILE_ATTRIBUTE_READONLY = 0x1;
        FILE_ATTRIBUTE_HIDDEN = 0x2;
        FILE_ATTRIBUTE_SYSTEM = 0x4;
        FILE_ATTRIBUTE_DIRECTORY = 0x10;
        FILE_ATTRIBUTE_ARCHIVE = 0x20;
        FILE_ATTRIBUTE_DEVICE = 0x40;
        FILE_ATTRIBUTE_NORMAL = 0x80;
        FILE_ATTRIBUTE_TEMPORARY = 0x100;
        FILE_ATTRIBUTE_SPARSE_FILE = 0x200;
        FILE_ATTRIBUTE_REPARSE_POINT = 0x400;
        FILE_ATTRIBUTE_COMPRESSED = 0x800;
        FILE_ATTRIBUTE_OFFLINE = 0x1000;
        FILE_ATTRIBUTE_NOT_CONTENT_INDEXED = 0x2000;
        FILE_ATTRIBUTE_ENCRYPTED = 0x4000;
    }
    u32 {
        // `CREATE_FILE_TYPE` of `IoCreateFile`.
        CreateFileTypeNone = 0x0;
        CreateFileTypeNamedPipe = 0x1;
        CreateFileTypeMailslot = 0x2;
        IO_FORCE_ACCESS_CHECK = 0x1;
        IO_NO_PARAMETER_CHECKING = 0x100;
    }
}

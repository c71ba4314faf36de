//! Security: identifiers, access, descriptors.
//!
//! Pages: *ACCESS_STATE*, *SECURITY_DESCRIPTOR*, *SID*; `wdm.h` and `ntifs.h`. Tokens are opaque.

use crate::constant::constants;
use crate::field::layouts;
use crate::{DriverPtr, UNICODE_STRING};

layouts! {
    /// A locally unique identifier.
    LUID [size 0x8, align 4] {
        0x00 LowPart: u32,
        0x04 HighPart: i32,
    }

    /// A privilege and whether it is enabled.
    LUID_AND_ATTRIBUTES [size 0xc, align 4] {
        0x00 Luid: LUID,
        0x08 Attributes: u32,
    }

    /// Privileges.
    PRIVILEGE_SET [size 0x14, align 4] {
        0x00 PrivilegeCount: u32,
        0x04 Control: u32,
        0x08 Privilege: LUID_AND_ATTRIBUTES,
    }

    /// Room for three privileges.
    INITIAL_PRIVILEGE_SET [size 0x2c, align 4] {
        0x00 PrivilegeCount: u32,
        0x04 Control: u32,
        0x08 Privilege: [LUID_AND_ATTRIBUTES; 3],
    }

    /// What the generic rights mean for a type of object.
    GENERIC_MAPPING [size 0x10, align 4] {
        0x00 GenericRead: u32,
        0x04 GenericWrite: u32,
        0x08 GenericExecute: u32,
        0x0c GenericAll: u32,
    }

    /// How far a server may act for its client.
    SECURITY_QUALITY_OF_SERVICE [size 0xc, align 4] {
        0x00 Length: u32,
        0x04 ImpersonationLevel: u32,
        0x08 ContextTrackingMode: u8,
        0x09 EffectiveOnly: u8,
    }

    /// Whose rights count.
    SECURITY_SUBJECT_CONTEXT [size 0x20, align 8] {
        0x00 ClientToken: DriverPtr<()>,
        0x08 ImpersonationLevel: u32,
        0x10 PrimaryToken: DriverPtr<()>,
        0x18 ProcessAuditId: DriverPtr<()>,
    }

    /// An open in progress.
    ACCESS_STATE [size 0xa0, align 8] {
        0x00 OperationID: LUID,
        0x08 SecurityEvaluated: u8,
        0x09 GenerateAudit: u8,
        0x0a GenerateOnClose: u8,
        0x0b PrivilegesAllocated: u8,
        0x0c Flags: u32,
        0x10 RemainingDesiredAccess: u32,
        0x14 PreviouslyGrantedAccess: u32,
        0x18 OriginalDesiredAccess: u32,
        0x20 SubjectSecurityContext: SECURITY_SUBJECT_CONTEXT,
        0x40 SecurityDescriptor: DriverPtr<()>,
        0x48 AuxData: DriverPtr<()>,
        0x50 Privileges: [u8; 0x2c],
        0x50 Privileges_InitialPrivilegeSet = "Privileges.InitialPrivilegeSet": INITIAL_PRIVILEGE_SET,
        0x50 Privileges_PrivilegeSet = "Privileges.PrivilegeSet": PRIVILEGE_SET,
        0x7c AuditPrivileges: u8,
        0x80 ObjectName: UNICODE_STRING,
        0x90 ObjectTypeName: UNICODE_STRING,
    }

    /// A security identifier; `SubAuthorityCount` sub-authorities.
    SID [size 0xc, align 4] {
        0x00 Revision: u8,
        0x01 SubAuthorityCount: u8,
        0x02 IdentifierAuthority: SID_IDENTIFIER_AUTHORITY,
        0x08 SubAuthority: u32,
    }

    /// The top of a security identifier.
    SID_IDENTIFIER_AUTHORITY [size 0x6, align 1] {
        0x00 Value: [u8; 6],
    }

    /// An access control list; entries follow.
    ACL [size 0x8, align 2] {
        0x00 AclRevision: u8,
        0x01 Sbz1: u8,
        0x02 AclSize: u16,
        0x04 AceCount: u16,
        0x06 Sbz2: u16,
    }

    /// What every entry starts with.
    ACE_HEADER [size 0x4, align 2] {
        0x00 AceType: u8,
        0x01 AceFlags: u8,
        0x02 AceSize: u16,
    }

    /// An entry that grants.
    ACCESS_ALLOWED_ACE [size 0xc, align 4] {
        0x00 Header: ACE_HEADER,
        0x04 Mask: u32,
        0x08 SidStart: u32,
    }

    /// An entry that refuses.
    ACCESS_DENIED_ACE [size 0xc, align 4] {
        0x00 Header: ACE_HEADER,
        0x04 Mask: u32,
        0x08 SidStart: u32,
    }

    /// An absolute security descriptor.
    SECURITY_DESCRIPTOR [size 0x28, align 8] {
        0x00 Revision: u8,
        0x01 Sbz1: u8,
        0x02 Control: u16,
        0x08 Owner: DriverPtr<()>,
        0x10 Group: DriverPtr<()>,
        0x18 Sacl: DriverPtr<ACL>,
        0x20 Dacl: DriverPtr<ACL>,
    }

    /// A self-relative one: offsets in place of pointers.
    SECURITY_DESCRIPTOR_RELATIVE [size 0x14, align 4] {
        0x00 Revision: u8,
        0x01 Sbz1: u8,
        0x02 Control: u16,
        0x04 Owner: u32,
        0x08 Group: u32,
        0x0c Sacl: u32,
        0x10 Dacl: u32,
    }
}

constants! {
    u8 {
        // Versions and limits.
        SECURITY_DESCRIPTOR_REVISION = 1;
        ACL_REVISION = 2;
        SID_REVISION = 1;
    }
    u16 {
        // `SECURITY_DESCRIPTOR::Control`.
        SE_OWNER_DEFAULTED = 0x1;
        SE_GROUP_DEFAULTED = 0x2;
        SE_DACL_PRESENT = 0x4;
        SE_DACL_DEFAULTED = 0x8;
        SE_SACL_PRESENT = 0x10;
        SE_SACL_DEFAULTED = 0x20;
        SE_SELF_RELATIVE = 0x8000;
    }
    u32 {
        // Parts of a descriptor.
        OWNER_SECURITY_INFORMATION = 0x1;
        GROUP_SECURITY_INFORMATION = 0x2;
        DACL_SECURITY_INFORMATION = 0x4;
        SACL_SECURITY_INFORMATION = 0x8;
    }
    u32 {
        // Impersonation.
        SecurityAnonymous = 0;
        SecurityIdentification = 1;
        SecurityImpersonation = 2;
        SecurityDelegation = 3;
    }
    u8 {
        // Types of entry.
        ACCESS_ALLOWED_ACE_TYPE = 0x0;
        ACCESS_DENIED_ACE_TYPE = 0x1;
        SYSTEM_AUDIT_ACE_TYPE = 0x2;
    }
}

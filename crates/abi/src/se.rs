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

    /// An identifier and what holds for it in a token.
    SID_AND_ATTRIBUTES [size 0x10, align 8] {
        0x00 Sid: DriverPtr<SID>,
        0x08 Attributes: u32,
    }

    /// Whose token it is.
    TOKEN_USER [size 0x10, align 8] {
        0x00 User: SID_AND_ATTRIBUTES,
    }

    /// The groups of a token; `GroupCount` of them.
    TOKEN_GROUPS [size 0x18, align 8] {
        0x00 GroupCount: u32,
        0x08 Groups: SID_AND_ATTRIBUTES,
    }

    /// The privileges of a token; `PrivilegeCount` of them.
    TOKEN_PRIVILEGES [size 0x10, align 4] {
        0x00 PrivilegeCount: u32,
        0x04 Privileges: LUID_AND_ATTRIBUTES,
    }

    /// Who owns what is made with the token.
    TOKEN_OWNER [size 0x8, align 8] {
        0x00 Owner: DriverPtr<SID>,
    }

    /// The group of what is made with the token.
    TOKEN_PRIMARY_GROUP [size 0x8, align 8] {
        0x00 PrimaryGroup: DriverPtr<SID>,
    }

    /// Who may do what with what is made with the token.
    TOKEN_DEFAULT_DACL [size 0x8, align 8] {
        0x00 DefaultDacl: DriverPtr<ACL>,
    }

    /// Where a token comes from.
    TOKEN_SOURCE [size 0x10, align 4] {
        0x00 SourceName: [u8; 8],
        0x08 SourceIdentifier: LUID,
    }

    /// Numbers of a token.
    TOKEN_STATISTICS [size 0x38, align 8] {
        0x00 TokenId: LUID,
        0x08 AuthenticationId: LUID,
        0x10 ExpirationTime: i64,
        0x18 TokenType: u32,
        0x1c ImpersonationLevel: u32,
        0x20 DynamicCharged: u32,
        0x24 DynamicAvailable: u32,
        0x28 GroupCount: u32,
        0x2c PrivilegeCount: u32,
        0x30 ModifiedId: LUID,
    }

    /// Which token it was, and in which state.
    TOKEN_CONTROL [size 0x28, align 4] {
        0x00 TokenId: LUID,
        0x08 AuthenticationId: LUID,
        0x10 ModifiedId: LUID,
        0x18 TokenSource: TOKEN_SOURCE,
    }

    /// Whom a server acts for.
    SECURITY_CLIENT_CONTEXT [size 0x48, align 8] {
        0x00 SecurityQos: SECURITY_QUALITY_OF_SERVICE,
        0x10 ClientToken: DriverPtr<()>,
        0x18 DirectlyAccessClientToken: u8,
        0x19 DirectAccessEffectiveOnly: u8,
        0x1a ServerIsRemote: u8,
        0x1c ClientTokenControl: TOKEN_CONTROL,
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
        ACL_REVISION_DS = 4;
        SID_REVISION = 1;
        SID_MAX_SUB_AUTHORITIES = 15;
    }
    u16 {
        // `SECURITY_DESCRIPTOR::Control`.
        SE_OWNER_DEFAULTED = 0x1;
        SE_GROUP_DEFAULTED = 0x2;
        SE_DACL_PRESENT = 0x4;
        SE_DACL_DEFAULTED = 0x8;
        SE_SACL_PRESENT = 0x10;
        SE_SACL_DEFAULTED = 0x20;
        SE_DACL_AUTO_INHERIT_REQ = 0x100;
        SE_SACL_AUTO_INHERIT_REQ = 0x200;
        SE_DACL_AUTO_INHERITED = 0x400;
        SE_SACL_AUTO_INHERITED = 0x800;
        SE_DACL_PROTECTED = 0x1000;
        SE_SACL_PROTECTED = 0x2000;
        SE_RM_CONTROL_VALID = 0x4000;
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
        SYSTEM_ALARM_ACE_TYPE = 0x3;
        ACCESS_ALLOWED_OBJECT_ACE_TYPE = 0x5;
        ACCESS_DENIED_OBJECT_ACE_TYPE = 0x6;
        SYSTEM_AUDIT_OBJECT_ACE_TYPE = 0x7;
        SYSTEM_ALARM_OBJECT_ACE_TYPE = 0x8;
    }
    u8 {
        // `ACE_HEADER::AceFlags`.
        OBJECT_INHERIT_ACE = 0x1;
        CONTAINER_INHERIT_ACE = 0x2;
        NO_PROPAGATE_INHERIT_ACE = 0x4;
        INHERIT_ONLY_ACE = 0x8;
        INHERITED_ACE = 0x10;
        VALID_INHERIT_FLAGS = 0x1f;
    }
    u32 {
        // `LUID_AND_ATTRIBUTES::Attributes` of a privilege, `PRIVILEGE_SET::Control`.
        SE_PRIVILEGE_ENABLED_BY_DEFAULT = 0x1;
        SE_PRIVILEGE_ENABLED = 0x2;
        SE_PRIVILEGE_REMOVED = 0x4;
        SE_PRIVILEGE_USED_FOR_ACCESS = 0x8000_0000;
        PRIVILEGE_SET_ALL_NECESSARY = 1;
    }
    u32, not_in_mingw "winnt.h alone has them, for applications" {
        // `SID_AND_ATTRIBUTES::Attributes` of a group.
        SE_GROUP_MANDATORY = 0x1;
        SE_GROUP_ENABLED_BY_DEFAULT = 0x2;
        SE_GROUP_ENABLED = 0x4;
        SE_GROUP_OWNER = 0x8;
        SE_GROUP_USE_FOR_DENY_ONLY = 0x10;
    }
    u32 {
        // `TOKEN_TYPE`.
        TokenPrimary = 1;
        TokenImpersonation = 2;
    }
    u32 {
        // `TOKEN_INFORMATION_CLASS`.
        TokenUser = 1;
        TokenGroups = 2;
        TokenPrivileges = 3;
        TokenOwner = 4;
        TokenPrimaryGroup = 5;
        TokenDefaultDacl = 6;
        TokenSource = 7;
        TokenType = 8;
        TokenImpersonationLevel = 9;
        TokenStatistics = 10;
        TokenSessionId = 12;
        TokenIntegrityLevel = 25;
        MaxTokenInfoClass = 29;
    }
}

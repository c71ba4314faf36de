/* Stories of access control lists. */
#include "security.h"

static ULONG Lists(VOID)
{
    union {
        ACL Acl;
        UCHAR Bytes[8 + 20 + 24 + 20];
    } Place;
    PACL Acl = &Place.Acl;
    ACCESS_ALLOWED_ACE *Ace, *Other;
    UCHAR Denied[20] = {ACCESS_DENIED_ACE_TYPE, 0, 20, 0, 2, 0, 0, 0};
    static const UCHAR Bad[] = {1, 16, 0, 0, 0, 0, 0, 5};

    RtlFillMemory(&Place, sizeof(Place), 0xCC);
    CHECK(RtlCreateAcl(Acl, 7, ACL_REVISION) == STATUS_BUFFER_TOO_SMALL);
    CHECK(RtlCreateAcl(Acl, 0x10000, ACL_REVISION) == STATUS_INVALID_PARAMETER);
    CHECK(RtlCreateAcl(Acl, sizeof(Place), 1) == STATUS_INVALID_PARAMETER);
    CHECK(RtlCreateAcl(Acl, sizeof(Place), 5) == STATUS_INVALID_PARAMETER && Place.Bytes[0] == 0xCC);
    CHECK(RtlCreateAcl(Acl, sizeof(Place), ACL_REVISION) == STATUS_SUCCESS);
    CHECK(Acl->AclRevision == ACL_REVISION && Acl->AclSize == sizeof(Place) && Acl->AceCount == 0 && Place.Bytes[8] == 0xCC);
    CHECK(RtlGetAce(Acl, 0, (PVOID *)&Ace) == STATUS_INVALID_PARAMETER);
    CHECK(RtlDeleteAce(Acl, 0) == STATUS_INVALID_PARAMETER);

    /* One behind the other. */
    CHECK(RtlAddAccessAllowedAce(Acl, ACL_REVISION, FILE_ALL_ACCESS, (PSID)LocalSystem) == STATUS_SUCCESS);
    CHECK(RtlAddAccessAllowedAceEx(Acl, ACL_REVISION, CONTAINER_INHERIT_ACE, GENERIC_READ, (PSID)Administrators) == STATUS_SUCCESS);
    CHECK(Acl->AceCount == 2 && Place.Bytes[8 + 20 + 24] == 0xCC);
    CHECK(RtlGetAce(Acl, 0, (PVOID *)&Ace) == STATUS_SUCCESS && (PUCHAR)Ace == &Place.Bytes[8]);
    CHECK(Ace->Header.AceType == ACCESS_ALLOWED_ACE_TYPE && Ace->Header.AceFlags == 0 && Ace->Header.AceSize == 20);
    CHECK(Ace->Mask == FILE_ALL_ACCESS && RtlEqualSid(&Ace->SidStart, (PSID)LocalSystem));
    CHECK(RtlGetAce(Acl, 1, (PVOID *)&Ace) == STATUS_SUCCESS && (PUCHAR)Ace == &Place.Bytes[28]);
    CHECK(Ace->Header.AceFlags == CONTAINER_INHERIT_ACE && Ace->Header.AceSize == 24);
    CHECK(Ace->Mask == GENERIC_READ && RtlEqualSid(&Ace->SidStart, (PSID)Administrators));
    CHECK(RtlGetAce(Acl, 2, (PVOID *)&Other) == STATUS_INVALID_PARAMETER);

    /* What does not fit, or is none, changes nothing. */
    CHECK(RtlAddAccessAllowedAce(Acl, ACL_REVISION, 1, (PSID)Administrators) == STATUS_ALLOTTED_SPACE_EXCEEDED);
    CHECK(RtlAddAccessAllowedAce(Acl, 5, 1, (PSID)Everyone) == STATUS_REVISION_MISMATCH);
    CHECK(RtlAddAccessAllowedAce(Acl, ACL_REVISION, 1, (PSID)Bad) == STATUS_INVALID_SID);
    CHECK(RtlAddAccessAllowedAceEx(Acl, ACL_REVISION, 0x40, 1, (PSID)Everyone) == STATUS_INVALID_PARAMETER);
    CHECK(Acl->AceCount == 2 && Place.Bytes[8 + 20 + 24] == 0xCC);

    /* In front of the others. */
    RtlCopyMemory(&Denied[8], Everyone, sizeof(Everyone));
    CHECK(RtlAddAce(Acl, ACL_REVISION, 0, Denied, 19) == STATUS_INVALID_PARAMETER);
    CHECK(RtlAddAce(Acl, 9, 0, Denied, 20) == STATUS_INVALID_PARAMETER);
    CHECK(RtlAddAce(Acl, ACL_REVISION, 0, Denied, 20) == STATUS_SUCCESS && Acl->AceCount == 3);
    CHECK(RtlGetAce(Acl, 0, (PVOID *)&Ace) == STATUS_SUCCESS && Same(Ace, Denied, 20));
    CHECK(RtlGetAce(Acl, 2, (PVOID *)&Ace) == STATUS_SUCCESS && RtlEqualSid(&Ace->SidStart, (PSID)Administrators));
    CHECK(RtlAddAce(Acl, ACL_REVISION, MAXULONG, Denied, 20) == STATUS_BUFFER_TOO_SMALL && Acl->AceCount == 3);

    /* Those behind a deleted one move up, and what they leave is empty. */
    CHECK(RtlDeleteAce(Acl, 1) == STATUS_SUCCESS && Acl->AceCount == 2);
    CHECK(RtlGetAce(Acl, 1, (PVOID *)&Ace) == STATUS_SUCCESS && (PUCHAR)Ace == &Place.Bytes[28]);
    CHECK(RtlEqualSid(&Ace->SidStart, (PSID)Administrators) && Place.Bytes[8 + 20 + 24] == 0);
    CHECK(RtlAddAce(Acl, ACL_REVISION_DS, MAXULONG, Denied, 20) == STATUS_SUCCESS && Acl->AclRevision == ACL_REVISION_DS);
    CHECK(RtlGetAce(Acl, 2, (PVOID *)&Ace) == STATUS_SUCCESS && Same(Ace, Denied, 20));

    /* A list whose entries do not end in it is none. */
    Ace->Header.AceSize = 24;
    CHECK(RtlAddAccessAllowedAce(Acl, ACL_REVISION, 1, (PSID)Everyone) == STATUS_INVALID_ACL);
    CHECK(RtlGetAce(Acl, 0, (PVOID *)&Ace) == STATUS_INVALID_PARAMETER);
    return 0;
}

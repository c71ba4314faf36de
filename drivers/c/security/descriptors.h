/* Stories of security descriptors, absolute and self-relative. */
#include "security.h"

typedef struct _LIST {
    ACL Acl;
    UCHAR Entries[20 + 24];
} LIST;

/* The system and administrators may do everything. */
static ULONG MakeList(LIST *List)
{
    CHECK(RtlCreateAcl(&List->Acl, sizeof(*List), ACL_REVISION) == STATUS_SUCCESS);
    CHECK(RtlAddAccessAllowedAce(&List->Acl, ACL_REVISION, GENERIC_ALL, (PSID)LocalSystem) == STATUS_SUCCESS);
    CHECK(RtlAddAccessAllowedAce(&List->Acl, ACL_REVISION, GENERIC_ALL, (PSID)Administrators) == STATUS_SUCCESS);
    return 0;
}

static ULONG Descriptors(VOID)
{
    SECURITY_DESCRIPTOR Descriptor;
    LIST List;
    PSID Sid = NULL;
    PACL Acl = (PACL)1;
    BOOLEAN Present = 7, Defaulted = 7;

    CHECK(RtlCreateSecurityDescriptor(&Descriptor, 2) == STATUS_UNKNOWN_REVISION);
    RtlFillMemory(&Descriptor, sizeof(Descriptor), 0xCC);
    CHECK(RtlCreateSecurityDescriptor(&Descriptor, SECURITY_DESCRIPTOR_REVISION) == STATUS_SUCCESS);
    CHECK(Descriptor.Revision == 1 && Descriptor.Control == 0 && Descriptor.Owner == NULL && Descriptor.Dacl == NULL);
    CHECK(RtlValidSecurityDescriptor(&Descriptor) && RtlLengthSecurityDescriptor(&Descriptor) == 0x28);
    CHECK(RtlGetDaclSecurityDescriptor(&Descriptor, &Present, &Acl, &Defaulted) == STATUS_SUCCESS);
    CHECK(Present == FALSE && Acl == (PACL)1 && Defaulted == 7);
    CHECK(RtlGetOwnerSecurityDescriptor(&Descriptor, &Sid, &Defaulted) == STATUS_SUCCESS && Sid == NULL && !Defaulted);

    /* A null list is there, and grants everything. */
    CHECK(RtlSetDaclSecurityDescriptor(&Descriptor, TRUE, NULL, FALSE) == STATUS_SUCCESS);
    CHECK(RtlGetDaclSecurityDescriptor(&Descriptor, &Present, &Acl, &Defaulted) == STATUS_SUCCESS);
    CHECK(Present == TRUE && Acl == NULL && Defaulted == FALSE && RtlValidSecurityDescriptor(&Descriptor));

    /* Each part is a pointer that is handed on. */
    CHECK_ALL(MakeList(&List));
    CHECK(RtlSetDaclSecurityDescriptor(&Descriptor, TRUE, &List.Acl, TRUE) == STATUS_SUCCESS);
    CHECK(RtlSetOwnerSecurityDescriptor(&Descriptor, (PSID)Administrators, TRUE) == STATUS_SUCCESS);
    CHECK(RtlSetGroupSecurityDescriptor(&Descriptor, (PSID)LocalSystem, FALSE) == STATUS_SUCCESS);
    CHECK(RtlSetSaclSecurityDescriptor(&Descriptor, TRUE, NULL, TRUE) == STATUS_SUCCESS);
    CHECK(Descriptor.Control == (SE_DACL_PRESENT | SE_DACL_DEFAULTED | SE_OWNER_DEFAULTED | SE_SACL_PRESENT | SE_SACL_DEFAULTED));
    CHECK(RtlGetDaclSecurityDescriptor(&Descriptor, &Present, &Acl, &Defaulted) == STATUS_SUCCESS);
    CHECK(Present == TRUE && Acl == &List.Acl && Defaulted == TRUE);
    CHECK(RtlGetOwnerSecurityDescriptor(&Descriptor, &Sid, &Defaulted) == STATUS_SUCCESS);
    CHECK(Sid == (PSID)Administrators && Defaulted == TRUE);
    CHECK(RtlGetGroupSecurityDescriptor(&Descriptor, &Sid, &Defaulted) == STATUS_SUCCESS);
    CHECK(Sid == (PSID)LocalSystem && Defaulted == FALSE);
    CHECK(RtlGetSaclSecurityDescriptor(&Descriptor, &Present, &Acl, &Defaulted) == STATUS_SUCCESS);
    CHECK(Present == TRUE && Acl == NULL && Defaulted == TRUE);
    CHECK(RtlLengthSecurityDescriptor(&Descriptor) == 0x28 + sizeof(List) + sizeof(Administrators) + sizeof(LocalSystem));
    CHECK(RtlValidSecurityDescriptor(&Descriptor));

    /* What it points to must be what it says. */
    List.Acl.AceCount = 3;
    CHECK(!RtlValidSecurityDescriptor(&Descriptor));
    CHECK(RtlSetDaclSecurityDescriptor(&Descriptor, FALSE, NULL, FALSE) == STATUS_SUCCESS);
    CHECK((Descriptor.Control & SE_DACL_PRESENT) == 0 && RtlValidSecurityDescriptor(&Descriptor));
    Descriptor.Revision = 2;
    CHECK(!RtlValidSecurityDescriptor(&Descriptor));
    CHECK(RtlSetDaclSecurityDescriptor(&Descriptor, FALSE, NULL, FALSE) == STATUS_UNKNOWN_REVISION);
    CHECK(RtlSetOwnerSecurityDescriptor(&Descriptor, NULL, FALSE) == STATUS_UNKNOWN_REVISION);
    CHECK(RtlGetDaclSecurityDescriptor(&Descriptor, &Present, &Acl, &Defaulted) == STATUS_UNKNOWN_REVISION);
    CHECK(RtlGetSaclSecurityDescriptor(&Descriptor, &Present, &Acl, &Defaulted) == STATUS_UNKNOWN_REVISION);
    CHECK(RtlGetGroupSecurityDescriptor(&Descriptor, &Sid, &Defaulted) == STATUS_UNKNOWN_REVISION);
    return 0;
}

/* In one piece, and back. */
static ULONG InOnePiece(VOID)
{
    SECURITY_DESCRIPTOR Absolute, Back;
    LIST List, Dacl;
    UCHAR Owner[16], Sacl[8], Group[12];
    ULONG Room = 0, Sizes[5] = {sizeof(Back), sizeof(Dacl), 0, sizeof(Owner) - 1, 0};
    SECURITY_DESCRIPTOR_RELATIVE Empty, *Relative;
    PSID Sid;
    PACL Acl;
    BOOLEAN Present, Defaulted;

    CHECK_ALL(MakeList(&List));
    CHECK(RtlCreateSecurityDescriptor(&Absolute, SECURITY_DESCRIPTOR_REVISION) == STATUS_SUCCESS);
    CHECK(RtlSetDaclSecurityDescriptor(&Absolute, TRUE, &List.Acl, FALSE) == STATUS_SUCCESS);
    CHECK(RtlSetOwnerSecurityDescriptor(&Absolute, (PSID)Administrators, TRUE) == STATUS_SUCCESS);
    CHECK(RtlAbsoluteToSelfRelativeSD(&Absolute, NULL, &Room) == STATUS_BUFFER_TOO_SMALL);
    CHECK(Room == sizeof(*Relative) + sizeof(List) + sizeof(Administrators));
    Relative = ExAllocatePoolWithTag(PagedPool, Room, SECURITY_TAG);
    CHECK(Relative != NULL);
    CHECK(RtlAbsoluteToSelfRelativeSD(&Absolute, Relative, &Room) == STATUS_SUCCESS);
    CHECK(Relative->Control == (SE_SELF_RELATIVE | SE_DACL_PRESENT | SE_OWNER_DEFAULTED) && Relative->Group == 0);
    CHECK(RtlAbsoluteToSelfRelativeSD(Relative, Relative, &Room) == STATUS_BAD_DESCRIPTOR_FORMAT);
    CHECK(RtlLengthSecurityDescriptor(Relative) == Room && RtlValidSecurityDescriptor(Relative));
    CHECK(RtlSetOwnerSecurityDescriptor(Relative, NULL, FALSE) == STATUS_INVALID_SECURITY_DESCR);
    CHECK(RtlGetOwnerSecurityDescriptor(Relative, &Sid, &Defaulted) == STATUS_SUCCESS);
    CHECK((PUCHAR)Sid == (PUCHAR)Relative + Relative->Owner && RtlEqualSid(Sid, (PSID)Administrators) && Defaulted);
    CHECK(RtlGetDaclSecurityDescriptor(Relative, &Present, &Acl, &Defaulted) == STATUS_SUCCESS);
    CHECK(Present && (PUCHAR)Acl == (PUCHAR)Relative + Relative->Dacl && Same(Acl, &List, sizeof(List)) && !Defaulted);

    /* Is all that is needed there, and inside? */
    CHECK(RtlValidRelativeSecurityDescriptor(Relative, Room, OWNER_SECURITY_INFORMATION | DACL_SECURITY_INFORMATION));
    CHECK(!RtlValidRelativeSecurityDescriptor(Relative, Room, GROUP_SECURITY_INFORMATION));
    CHECK(!RtlValidRelativeSecurityDescriptor(Relative, Room, SACL_SECURITY_INFORMATION));
    CHECK(!RtlValidRelativeSecurityDescriptor(Relative, Room - 4, 0));
    CHECK(!RtlValidRelativeSecurityDescriptor(Relative, 8, 0) && !RtlValidRelativeSecurityDescriptor(&Absolute, 0x28, 0));
    CHECK(RtlCreateSecurityDescriptorRelative((PVOID)&Empty, 2) == STATUS_UNKNOWN_REVISION);
    CHECK(RtlCreateSecurityDescriptorRelative((PVOID)&Empty, SECURITY_DESCRIPTOR_REVISION) == STATUS_SUCCESS);
    CHECK(Empty.Revision == 1 && Empty.Control == SE_SELF_RELATIVE && Empty.Owner == 0 && Empty.Dacl == 0);
    CHECK(RtlValidRelativeSecurityDescriptor(&Empty, sizeof(Empty), 0) && RtlLengthSecurityDescriptor(&Empty) == 0x14);

    /* Into buffers for each part: all must be large enough. */
    CHECK(RtlSelfRelativeToAbsoluteSD(Relative, &Back, &Sizes[0], &Dacl.Acl, &Sizes[1], (PACL)Sacl, &Sizes[2], Owner,
                                      &Sizes[3], Group, &Sizes[4]) == STATUS_BUFFER_TOO_SMALL);
    CHECK(Sizes[0] == 0x28 && Sizes[1] == sizeof(List) && Sizes[2] == 0 && Sizes[3] == 16 && Sizes[4] == 0);
    CHECK(RtlSelfRelativeToAbsoluteSD(Relative, &Back, &Sizes[0], &Dacl.Acl, &Sizes[1], (PACL)Sacl, &Sizes[2], Owner,
                                      &Sizes[3], Group, &Sizes[4]) == STATUS_SUCCESS);
    CHECK(Back.Control == Absolute.Control && Back.Owner == (PSID)Owner && Back.Group == NULL && Back.Sacl == NULL);
    CHECK(Back.Dacl == &Dacl.Acl && Same(&Dacl, &List, sizeof(List)) && RtlEqualSid(Owner, (PSID)Administrators));
    CHECK(RtlSelfRelativeToAbsoluteSD(&Back, &Back, &Sizes[0], &Dacl.Acl, &Sizes[1], (PACL)Sacl, &Sizes[2], Owner,
                                      &Sizes[3], Group, &Sizes[4]) == STATUS_BAD_DESCRIPTOR_FORMAT);
    ExFreePoolWithTag(Relative, SECURITY_TAG);
    return 0;
}

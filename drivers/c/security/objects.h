/* Stories of descriptors that belong to objects: captured, logged, assigned, asked and said. */
#include "security.h"

static PDEVICE_OBJECT TheDevice;

static ULONG Captured(VOID)
{
    SECURITY_DESCRIPTOR Descriptor;
    SECURITY_DESCRIPTOR_RELATIVE *Copy = NULL;
    PSECURITY_DESCRIPTOR One = NULL, Two = NULL;
    LIST List;

    CHECK_ALL(MakeList(&List));
    RtlCreateSecurityDescriptor(&Descriptor, SECURITY_DESCRIPTOR_REVISION);
    RtlSetDaclSecurityDescriptor(&Descriptor, TRUE, &List.Acl, FALSE);
    CHECK(SeCaptureSecurityDescriptor(NULL, KernelMode, PagedPool, TRUE, (PVOID *)&Copy) == STATUS_SUCCESS && Copy == NULL);
    CHECK(SeCaptureSecurityDescriptor(&Descriptor, KernelMode, PagedPool, FALSE, (PVOID *)&Copy) == STATUS_SUCCESS);
    CHECK((PVOID)Copy == &Descriptor && SeReleaseSecurityDescriptor(Copy, KernelMode, FALSE) == STATUS_SUCCESS);
    CHECK(SeCaptureSecurityDescriptor(&Descriptor, KernelMode, PagedPool, TRUE, (PVOID *)&Copy) == STATUS_SUCCESS);
    CHECK((PVOID)Copy != &Descriptor && Copy->Control == (SE_SELF_RELATIVE | SE_DACL_PRESENT));
    CHECK(SeValidSecurityDescriptor(0x14 + sizeof(List), Copy) && !SeValidSecurityDescriptor(0x14, Copy));
    CHECK(Same((PUCHAR)Copy + Copy->Dacl, &List, sizeof(List)));
    CHECK(SeReleaseSecurityDescriptor(Copy, KernelMode, TRUE) == STATUS_SUCCESS);

    /* Equal ones are one, counted. */
    CHECK(ObLogSecurityDescriptor(&Descriptor, &One, 1) == STATUS_SUCCESS);
    CHECK(ObLogSecurityDescriptor(&Descriptor, &Two, 2) == STATUS_SUCCESS && One == Two && RtlValidSecurityDescriptor(One));
    ObReferenceSecurityDescriptor(One, 1);
    ObDereferenceSecurityDescriptor(One, 3);
    CHECK(((SECURITY_DESCRIPTOR_RELATIVE *)One)->Revision == 1);
    ObDereferenceSecurityDescriptor(One, 1);
    List.Acl.AceCount = 9;
    CHECK(SeCaptureSecurityDescriptor(&Descriptor, KernelMode, PagedPool, TRUE, (PVOID *)&Copy) == STATUS_INVALID_ACL);
    CHECK(ObLogSecurityDescriptor(&Descriptor, &One, 1) == STATUS_INVALID_ACL);
    return 0;
}

static ULONG Assigned(VOID)
{
    SECURITY_SUBJECT_CONTEXT Subject;
    SECURITY_DESCRIPTOR Parent, Said;
    SECURITY_INFORMATION Information = DACL_SECURITY_INFORMATION | OWNER_SECURITY_INFORMATION;
    PSECURITY_DESCRIPTOR New = NULL, Old;
    PGENERIC_MAPPING Mapping = IoGetFileObjectGenericMapping();
    UCHAR Place[0x80];
    ULONG Length = 0x14;
    LIST List;
    PSID Owner;
    PACL Dacl;
    ACCESS_ALLOWED_ACE *Ace;
    BOOLEAN Present, Defaulted;

    CHECK(Mapping->GenericRead == FILE_GENERIC_READ && Mapping->GenericAll == FILE_ALL_ACCESS);
    SeCaptureSubjectContext(&Subject);

    /* What the token has, where nothing else is said. */
    CHECK(SeAssignSecurity(NULL, NULL, &New, FALSE, &Subject, Mapping, PagedPool) == STATUS_SUCCESS);
    CHECK(RtlGetOwnerSecurityDescriptor(New, &Owner, &Defaulted) == STATUS_SUCCESS && RtlEqualSid(Owner, (PSID)Administrators));
    CHECK(RtlGetDaclSecurityDescriptor(New, &Present, &Dacl, &Defaulted) == STATUS_SUCCESS && Present && Dacl->AceCount == 2);
    CHECK(RtlGetAce(Dacl, 1, (PVOID *)&Ace) == STATUS_SUCCESS && Ace->Mask == FILE_ALL_ACCESS);
    CHECK(RtlEqualSid(&Ace->SidStart, (PSID)LocalSystem));
    CHECK(SeDeassignSecurity(&New) == STATUS_SUCCESS && New == NULL && SeDeassignSecurity(&New) == STATUS_SUCCESS);

    /* What the object above hands down. */
    RtlCreateSecurityDescriptor(&Parent, SECURITY_DESCRIPTOR_REVISION);
    RtlCreateAcl(&List.Acl, sizeof(List), ACL_REVISION);
    RtlAddAccessAllowedAceEx(&List.Acl, ACL_REVISION, OBJECT_INHERIT_ACE, GENERIC_READ, (PSID)Everyone);
    RtlSetDaclSecurityDescriptor(&Parent, TRUE, &List.Acl, FALSE);
    CHECK(SeAssignSecurityEx(&Parent, NULL, &New, NULL, FALSE, 0, &Subject, Mapping, PagedPool) == STATUS_SUCCESS);
    CHECK(RtlGetDaclSecurityDescriptor(New, &Present, &Dacl, &Defaulted) == STATUS_SUCCESS && Dacl->AceCount == 1);
    CHECK(RtlGetAce(Dacl, 0, (PVOID *)&Ace) == STATUS_SUCCESS && Ace->Mask == FILE_GENERIC_READ);
    CHECK(Ace->Header.AceFlags == INHERITED_ACE && RtlEqualSid(&Ace->SidStart, (PSID)Everyone));
    CHECK(SeDeassignSecurity(&New) == STATUS_SUCCESS);
    CHECK(SeAssignSecurity(&Parent, NULL, &New, TRUE, &Subject, Mapping, PagedPool) == STATUS_SUCCESS);
    CHECK(RtlGetDaclSecurityDescriptor(New, &Present, &Dacl, &Defaulted) == STATUS_SUCCESS && Dacl->AceCount == 1);
    CHECK(RtlGetAce(Dacl, 0, (PVOID *)&Ace) == STATUS_SUCCESS && Ace->Mask == GENERIC_READ);
    CHECK(Ace->Header.AceFlags == (INHERITED_ACE | OBJECT_INHERIT_ACE | INHERIT_ONLY_ACE));
    CHECK(SeDeassignSecurity(&New) == STATUS_SUCCESS);

    /* What its maker says counts first. */
    RtlCreateSecurityDescriptor(&Said, SECURITY_DESCRIPTOR_REVISION);
    RtlSetDaclSecurityDescriptor(&Said, TRUE, NULL, FALSE);
    CHECK(SeAssignSecurity(&Parent, &Said, &New, FALSE, &Subject, Mapping, NonPagedPool) == STATUS_SUCCESS);
    CHECK(RtlGetDaclSecurityDescriptor(New, &Present, &Dacl, &Defaulted) == STATUS_SUCCESS && Present && Dacl == NULL);

    /* Parts are asked for by name, and changed so. */
    CHECK(SeQuerySecurityDescriptorInfo(&Information, Place, &Length, &New) == STATUS_BUFFER_TOO_SMALL && Length == 0x24);
    CHECK(SeQuerySecurityDescriptorInfo(&Information, Place, &Length, &New) == STATUS_SUCCESS);
    CHECK(RtlGetGroupSecurityDescriptor(Place, &Owner, &Defaulted) == STATUS_SUCCESS && Owner == NULL);
    RtlSetDaclSecurityDescriptor(&Said, TRUE, &List.Acl, FALSE);
    Information = DACL_SECURITY_INFORMATION;
    Old = New;
    CHECK(SeSetSecurityDescriptorInfo(NULL, &Information, &Said, &New, PagedPool, Mapping) == STATUS_SUCCESS && New != Old);
    CHECK(RtlGetDaclSecurityDescriptor(New, &Present, &Dacl, &Defaulted) == STATUS_SUCCESS && Dacl->AceCount == 1);
    CHECK(RtlGetOwnerSecurityDescriptor(New, &Owner, &Defaulted) == STATUS_SUCCESS && RtlEqualSid(Owner, (PSID)Administrators));
    ExFreePool(Old);
    Old = New;
    CHECK(SeSetSecurityDescriptorInfoEx(NULL, &Information, &Parent, &New, 0, PagedPool, Mapping) == STATUS_SUCCESS && New != Old);
    ExFreePool(Old);
    Old = &Said;
    CHECK(SeSetSecurityDescriptorInfo(NULL, &Information, &Said, &Old, PagedPool, Mapping) == STATUS_BAD_DESCRIPTOR_FORMAT);
    Old = NULL;
    CHECK(SeSetSecurityDescriptorInfo(NULL, &Information, &Said, &Old, PagedPool, Mapping) == STATUS_NO_SECURITY_ON_OBJECT);
    Length = sizeof(Place);
    CHECK(SeQuerySecurityDescriptorInfo(&Information, Place, &Length, &Old) == STATUS_SUCCESS && Length == 0x14);
    CHECK(SeDeassignSecurity(&New) == STATUS_SUCCESS);
    SeReleaseSubjectContext(&Subject);
    return 0;
}

/* What a driver opens for itself is checked only if it says so. */
static ULONG Forced(VOID)
{
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\Device\\DirqlSecurity");
    OBJECT_ATTRIBUTES Attributes;
    IO_STATUS_BLOCK Block;
    PROTECTED Only;
    HANDLE Handle;

    CHECK(ObOpenObjectByPointer(TheDevice, OBJ_KERNEL_HANDLE, NULL, WRITE_DAC, NULL, KernelMode, &Handle) == STATUS_SUCCESS);
    Protect(&Only);
    AddEntry(&Only, ACCESS_ALLOWED_ACE_TYPE, 0, GENERIC_ALL, (PSID)LocalSystem);
    CHECK(ZwSetSecurityObject(Handle, DACL_SECURITY_INFORMATION, &Only.Descriptor) == STATUS_SUCCESS);
    ZwClose(Handle);
    InitializeObjectAttributes(&Attributes, &Name, OBJ_KERNEL_HANDLE, NULL, NULL);
    CHECK(ZwOpenFile(&Handle, FILE_READ_DATA, &Attributes, &Block, 0, 0) == STATUS_SUCCESS && ZwClose(Handle) == STATUS_SUCCESS);
    Attributes.Attributes |= OBJ_FORCE_ACCESS_CHECK;
    CHECK(ZwOpenFile(&Handle, FILE_READ_DATA, &Attributes, &Block, 0, 0) == STATUS_ACCESS_DENIED);
    return 0;
}

/* A device has a descriptor from the start, which its driver may change. */
static ULONG OfDevice(VOID)
{
    SECURITY_DESCRIPTOR Said;
    PSECURITY_DESCRIPTOR Descriptor = NULL;
    LIST List;
    HANDLE Handle;
    UCHAR Place[0x100];
    ULONG Needed = 0;
    PACL Dacl;
    ACCESS_ALLOWED_ACE *Ace;
    BOOLEAN Present, Defaulted, Allocated = FALSE;

    CHECK(ObGetObjectSecurity(TheDevice, &Descriptor, &Allocated) == STATUS_SUCCESS && Descriptor != NULL);
    CHECK(RtlGetDaclSecurityDescriptor(Descriptor, &Present, &Dacl, &Defaulted) == STATUS_SUCCESS && Dacl->AceCount == 3);
    CHECK(RtlGetAce(Dacl, 0, (PVOID *)&Ace) == STATUS_SUCCESS && RtlEqualSid(&Ace->SidStart, (PSID)Everyone));
    CHECK(Ace->Mask == (FILE_GENERIC_READ | FILE_GENERIC_WRITE | FILE_GENERIC_EXECUTE));
    ObReleaseObjectSecurity(Descriptor, Allocated);

    /* As the library behind IoCreateDeviceSecure does it. */
    CHECK(ObOpenObjectByPointer(TheDevice, OBJ_KERNEL_HANDLE, NULL, WRITE_DAC, NULL, KernelMode, &Handle) == STATUS_SUCCESS);
    CHECK_ALL(MakeList(&List));
    RtlCreateSecurityDescriptor(&Said, SECURITY_DESCRIPTOR_REVISION);
    RtlSetDaclSecurityDescriptor(&Said, TRUE, &List.Acl, FALSE);
    CHECK(ZwSetSecurityObject(Handle, DACL_SECURITY_INFORMATION, &Said) == STATUS_SUCCESS);
    CHECK(ZwQuerySecurityObject(Handle, DACL_SECURITY_INFORMATION, NULL, 0, &Needed) == STATUS_BUFFER_TOO_SMALL);
    CHECK(Needed == 0x14 + sizeof(List));
    CHECK(ZwQuerySecurityObject(Handle, DACL_SECURITY_INFORMATION, Place, sizeof(Place), &Needed) == STATUS_SUCCESS);
    CHECK(RtlGetDaclSecurityDescriptor(Place, &Present, &Dacl, &Defaulted) == STATUS_SUCCESS && Dacl->AceCount == 2);
    CHECK(RtlGetAce(Dacl, 0, (PVOID *)&Ace) == STATUS_SUCCESS && Ace->Mask == FILE_ALL_ACCESS);
    CHECK(ZwClose(Handle) == STATUS_SUCCESS && ZwSetSecurityObject((HANDLE)0x123450, 4, &Said) == STATUS_INVALID_HANDLE);
    CHECK(ObGetObjectSecurity(PsGetCurrentProcess(), &Descriptor, &Allocated) == STATUS_SUCCESS && Descriptor == NULL && !Allocated);
    ObReleaseObjectSecurity(Descriptor, Allocated);
    return 0;
}

/* Stories of objects and their names: directories, links, events, drivers; what an object is called and of which type it is. */
#include "system.h"

typedef struct _BASIC_OF_OBJECT {
    ULONG Attributes;
    ACCESS_MASK GrantedAccess;
    ULONG HandleCount;
    ULONG PointerCount;
    ULONG Reserved[10];
} BASIC_OF_OBJECT;

typedef struct _NAME {
    UNICODE_STRING Name;
    WCHAR Text[128];
} NAME;

NTKERNELAPI NTSTATUS NTAPI ObQueryNameString(PVOID Object, PVOID Info, ULONG Length, PULONG Returned);
NTKERNELAPI NTSTATUS NTAPI ObReferenceObjectByName(PUNICODE_STRING Name, ULONG Attributes, PVOID State, ACCESS_MASK Access,
                                                   POBJECT_TYPE Type, KPROCESSOR_MODE Mode, PVOID Context, PVOID *Object);
NTSYSAPI NTSTATUS NTAPI ZwCreateDirectoryObject(PHANDLE Handle, ACCESS_MASK Access, POBJECT_ATTRIBUTES Attributes);
NTSYSAPI NTSTATUS NTAPI ZwOpenDirectoryObject(PHANDLE Handle, ACCESS_MASK Access, POBJECT_ATTRIBUTES Attributes);
NTSYSAPI NTSTATUS NTAPI ZwOpenSymbolicLinkObject(PHANDLE Handle, ACCESS_MASK Access, POBJECT_ATTRIBUTES Attributes);
NTSYSAPI NTSTATUS NTAPI ZwCreateSymbolicLinkObject(PHANDLE Handle, ACCESS_MASK Access, POBJECT_ATTRIBUTES Attributes,
                                                   PUNICODE_STRING Target);
NTSYSAPI NTSTATUS NTAPI ZwQuerySymbolicLinkObject(HANDLE Handle, PUNICODE_STRING Target, PULONG Returned);
NTSYSAPI NTSTATUS NTAPI ZwMakeTemporaryObject(HANDLE Handle);
NTSYSAPI NTSTATUS NTAPI ZwCreateEvent(PHANDLE Event, ACCESS_MASK Access, POBJECT_ATTRIBUTES Object, EVENT_TYPE Type,
                                      BOOLEAN State);
NTSYSAPI NTSTATUS NTAPI ZwOpenEvent(PHANDLE Event, ACCESS_MASK Access, POBJECT_ATTRIBUTES Attributes);
NTSYSAPI NTSTATUS NTAPI ZwSetEvent(HANDLE Event, PLONG Previous);
NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);
NTSYSAPI NTSTATUS NTAPI ZwQueryObject(HANDLE Handle, ULONG Class, PVOID Buffer, ULONG Length, PULONG Returned);
extern __declspec(dllimport) POBJECT_TYPE *IoDriverObjectType;
extern __declspec(dllimport) POBJECT_TYPE *IoFileObjectType;
extern __declspec(dllimport) POBJECT_TYPE *ExEventObjectType;

static POBJECT_ATTRIBUTES Called(PCWSTR Text, HANDLE Root, ULONG Flags)
{
    static UNICODE_STRING Name;
    static OBJECT_ATTRIBUTES Attributes;

    RtlInitUnicodeString(&Name, Text);
    InitializeObjectAttributes(&Attributes, &Name, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE | Flags, Root, NULL);
    return &Attributes;
}

/* Whether the object's whole name is this. */
static BOOLEAN IsCalled(PVOID Object, PCWSTR Text)
{
    UNICODE_STRING Expected;
    static NAME Name;
    ULONG Length;

    RtlInitUnicodeString(&Expected, Text);
    return ObQueryNameString(Object, &Name, sizeof(Name), &Length) == STATUS_SUCCESS &&
           Length == sizeof(UNICODE_STRING) + Expected.Length + sizeof(WCHAR) && Name.Name.Buffer == Name.Text &&
           RtlEqualUnicodeString(&Name.Name, &Expected, FALSE);
}

static ULONG NamesOfObjects(VOID)
{
    UNICODE_STRING OwnName = RTL_CONSTANT_STRING(L"\\Driver\\SYSTEM"), Absent = RTL_CONSTANT_STRING(L"\\Driver\\None");
    UNICODE_STRING Folder = RTL_CONSTANT_STRING(L"\\Driver"), Inside = RTL_CONSTANT_STRING(L"\\Driver\\system\\x");
    UNICODE_STRING Link = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlSystem");
    PFILE_OBJECT File;
    PDEVICE_OBJECT Device;
    PVOID Object = NULL;
    NAME Name;
    ULONG Length = 0;

    CHECK(IsCalled(TheDriver, L"\\Driver\\system"));
    CHECK(IsCalled(TheDriver->DeviceObject, L"\\Device\\DirqlSystem"));
    CHECK(ObQueryNameString(TheDriver, &Name, 0x2D, &Length) == STATUS_INFO_LENGTH_MISMATCH && Length == 0x2E);
    CHECK(ObQueryNameString(CurrentThread(), &Name, sizeof(Name), &Length) == STATUS_SUCCESS && Length == 0x10);
    CHECK(Name.Name.Length == 0 && Name.Name.Buffer == NULL);
    CHECK(IoGetDeviceObjectPointer(&Link, FILE_READ_DATA, &File, &Device) == STATUS_SUCCESS);
    CHECK(Device == TheDriver->DeviceObject && IsCalled(File, L"\\Device\\DirqlSystem"));
    ObDereferenceObject(File);

    CHECK(ObReferenceObjectByName(&OwnName, OBJ_CASE_INSENSITIVE, NULL, 0, *IoDriverObjectType, KernelMode, NULL, &Object) ==
          STATUS_SUCCESS);
    CHECK(Object == TheDriver);
    ObDereferenceObject(Object);
    CHECK(ObReferenceObjectByName(&OwnName, 0, NULL, 0, *IoFileObjectType, KernelMode, NULL, &Object) ==
          STATUS_OBJECT_TYPE_MISMATCH);
    CHECK(ObReferenceObjectByName(&Folder, 0, NULL, 0, *IoDriverObjectType, KernelMode, NULL, &Object) ==
          STATUS_OBJECT_TYPE_MISMATCH);
    CHECK(ObReferenceObjectByName(&Absent, 0, NULL, 0, *IoDriverObjectType, KernelMode, NULL, &Object) ==
          STATUS_OBJECT_NAME_NOT_FOUND);
    CHECK(ObReferenceObjectByName(&Inside, 0, NULL, 0, *IoDriverObjectType, KernelMode, NULL, &Object) ==
          STATUS_OBJECT_PATH_NOT_FOUND);
    return 0;
}

static ULONG Directories(VOID)
{
    HANDLE Folder, Again, Event, Other, Lost;
    PVOID Object;

    CHECK(ZwOpenDirectoryObject(&Folder, 1, Called(L"\\DirqlFolder", NULL, 0)) == STATUS_OBJECT_NAME_NOT_FOUND);
    CHECK(ZwCreateDirectoryObject(&Folder, 0xF000F, Called(L"\\DirqlFolder", NULL, 0)) == STATUS_SUCCESS);
    CHECK(ZwCreateDirectoryObject(&Again, 0xF000F, Called(L"\\dirqlfolder", NULL, 0)) == STATUS_OBJECT_NAME_COLLISION);
    CHECK(ZwCreateDirectoryObject(&Again, 0xF000F, Called(L"\\dirqlfolder", NULL, OBJ_OPENIF)) == STATUS_OBJECT_NAME_EXISTS);
    CHECK(ObReferenceObjectByHandle(Again, 1, NULL, KernelMode, &Object, NULL) == STATUS_SUCCESS);
    CHECK(IsCalled(Object, L"\\DirqlFolder"));
    ObDereferenceObject(Object);

    /* A name in it, by the handle and whole. */
    CHECK(ZwCreateEvent(&Event, EVENT_ALL_ACCESS, Called(L"Ready", Folder, 0), NotificationEvent, FALSE) == STATUS_SUCCESS);
    CHECK(ZwOpenEvent(&Other, EVENT_ALL_ACCESS, Called(L"\\DirqlFolder\\ready", NULL, 0)) == STATUS_SUCCESS);
    CHECK(ZwOpenEvent(&Lost, EVENT_ALL_ACCESS, Called(L"\\Ready", Folder, 0)) == STATUS_OBJECT_PATH_SYNTAX_BAD);
    CHECK(ZwOpenEvent(&Lost, EVENT_ALL_ACCESS, Called(L"Ready", Other, 0)) == STATUS_OBJECT_TYPE_MISMATCH);
    CHECK(ZwOpenEvent(&Lost, EVENT_ALL_ACCESS, Called(L"Ready", (HANDLE)0x1234, 0)) == STATUS_INVALID_HANDLE);
    CHECK(ZwOpenEvent(&Lost, EVENT_ALL_ACCESS, Called(L"\\Device\\DirqlSystem", NULL, 0)) == STATUS_OBJECT_TYPE_MISMATCH);
    CHECK(ZwSetEvent(Event, NULL) == STATUS_SUCCESS);
    CHECK(ZwWaitForSingleObject(Other, FALSE, NULL) == STATUS_SUCCESS);
    CHECK(ObReferenceObjectByHandle(Other, 1, *ExEventObjectType, KernelMode, &Object, NULL) == STATUS_SUCCESS);
    CHECK(IsCalled(Object, L"\\DirqlFolder\\Ready"));
    ObDereferenceObject(Object);
    ZwClose(Event);
    ZwClose(Other);

    /* It goes with its last handle, unless it is permanent. */
    ZwClose(Folder);
    CHECK(ZwOpenDirectoryObject(&Folder, 1, Called(L"\\DirqlFolder", NULL, 0)) == STATUS_SUCCESS);
    ZwClose(Folder);
    ZwClose(Again);
    CHECK(ZwOpenDirectoryObject(&Folder, 1, Called(L"\\DirqlFolder", NULL, 0)) == STATUS_OBJECT_NAME_NOT_FOUND);
    CHECK(ZwCreateDirectoryObject(&Folder, 1, Called(L"\\DirqlFolder", NULL, OBJ_PERMANENT)) == STATUS_SUCCESS);
    ZwClose(Folder);
    CHECK(ZwOpenDirectoryObject(&Folder, 1, Called(L"\\DirqlFolder", NULL, 0)) == STATUS_SUCCESS);
    CHECK(ZwMakeTemporaryObject(Folder) == STATUS_SUCCESS);
    ZwClose(Folder);
    CHECK(ZwOpenDirectoryObject(&Folder, 1, Called(L"\\DirqlFolder", NULL, 0)) == STATUS_OBJECT_NAME_NOT_FOUND);
    return 0;
}

static ULONG Links(VOID)
{
    UNICODE_STRING Expected = RTL_CONSTANT_STRING(L"\\Device\\DirqlSystem"), Target;
    WCHAR Text[64];
    UNICODE_STRING Own = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlOwn"), Empty = {0, 0, NULL};
    HANDLE Link, Again, Folder;
    PFILE_OBJECT File;
    PDEVICE_OBJECT Device;
    PVOID Object;
    ULONG Length = 0;

    CHECK(ZwOpenSymbolicLinkObject(&Link, 1, Called(L"\\DosDevices\\DirqlNothing", NULL, 0)) == STATUS_OBJECT_NAME_NOT_FOUND);
    CHECK(ZwOpenSymbolicLinkObject(&Link, 1, Called(L"\\Device", NULL, 0)) == STATUS_OBJECT_TYPE_MISMATCH);
    CHECK(ZwOpenSymbolicLinkObject(&Link, 1, Called(L"\\??\\DirqlSystem", NULL, 0)) == STATUS_SUCCESS);
    Target.Buffer = Text;
    Target.Length = 0;
    Target.MaximumLength = Expected.Length - 2;
    CHECK(ZwQuerySymbolicLinkObject(Link, &Target, &Length) == STATUS_BUFFER_TOO_SMALL);
    CHECK(Length == Expected.Length && Target.Length == 0);
    Target.MaximumLength = Expected.Length;
    CHECK(ZwQuerySymbolicLinkObject(Link, &Target, NULL) == STATUS_SUCCESS);
    CHECK(RtlEqualUnicodeString(&Target, &Expected, FALSE));
    CHECK(ObReferenceObjectByHandle(Link, 1, NULL, KernelMode, &Object, NULL) == STATUS_SUCCESS);
    CHECK(IsCalled(Object, L"\\GLOBAL??\\DirqlSystem"));
    ObDereferenceObject(Object);
    ZwClose(Link);

    /* Of a directory: what its handle names, and a link in it. */
    CHECK(ZwOpenDirectoryObject(&Folder, 1, Called(L"\\DosDevices", NULL, 0)) == STATUS_SUCCESS);
    CHECK(ZwOpenSymbolicLinkObject(&Link, 1, Called(L"DirqlSystem", Folder, 0)) == STATUS_SUCCESS);
    CHECK(ZwQuerySymbolicLinkObject(Folder, &Target, NULL) == STATUS_OBJECT_TYPE_MISMATCH);
    CHECK(ZwQuerySymbolicLinkObject(Link, &Target, NULL) == STATUS_SUCCESS);
    ZwClose(Link);

    /* One of the driver's own leads there until its last handle is closed. */
    CHECK(ZwCreateSymbolicLinkObject(&Link, 0xF0001, Called(L"DirqlSystem", Folder, 0), &Expected) == STATUS_OBJECT_NAME_COLLISION);
    CHECK(ZwCreateSymbolicLinkObject(&Link, 0xF0001, Called(L"DirqlOwn", Folder, 0), &Empty) == STATUS_INVALID_PARAMETER);
    CHECK(ZwCreateSymbolicLinkObject(&Link, 0xF0001, Called(L"DirqlOwn", Folder, 0), &Expected) == STATUS_SUCCESS);
    CHECK(IoGetDeviceObjectPointer(&Own, FILE_READ_DATA, &File, &Device) == STATUS_SUCCESS);
    CHECK(Device == TheDriver->DeviceObject);
    ObDereferenceObject(File);
    CHECK(ZwOpenSymbolicLinkObject(&Again, 1, Called(L"DirqlOwn", Folder, 0)) == STATUS_SUCCESS);
    ZwClose(Link);
    CHECK(ZwQuerySymbolicLinkObject(Again, &Target, NULL) == STATUS_SUCCESS && RtlEqualUnicodeString(&Target, &Expected, FALSE));
    ZwClose(Again);
    CHECK(ZwOpenSymbolicLinkObject(&Link, 1, Called(L"DirqlOwn", Folder, 0)) == STATUS_OBJECT_NAME_NOT_FOUND);
    ZwClose(Folder);
    return 0;
}

static ULONG WhatHandlesAre(VOID)
{
    UNICODE_STRING Type = RTL_CONSTANT_STRING(L"Event"), Name = RTL_CONSTANT_STRING(L"\\BaseNamedObjects\\DirqlEvent");
    HANDLE Event, Other;
    BASIC_OF_OBJECT Basic;
    UCHAR Buffer[0x100];
    ULONG Length = 0;

    CHECK(ZwCreateEvent(&Event, EVENT_MODIFY_STATE, Called(Name.Buffer, NULL, 0), SynchronizationEvent, FALSE) ==
          STATUS_SUCCESS);
    CHECK(ZwOpenEvent(&Other, EVENT_ALL_ACCESS, Called(Name.Buffer, NULL, 0)) == STATUS_SUCCESS);
    CHECK(ZwQueryObject(Event, 0, &Basic, sizeof(Basic), &Length) == STATUS_SUCCESS && Length == sizeof(Basic));
    CHECK(Basic.HandleCount == 2 && Basic.PointerCount == 2 && Basic.GrantedAccess == EVENT_MODIFY_STATE);
    ZwClose(Other);
    CHECK(ZwQueryObject(Event, 0, &Basic, sizeof(Basic), NULL) == STATUS_SUCCESS && Basic.HandleCount == 1);
    CHECK(ZwQueryObject(Event, 0, &Basic, sizeof(Basic) - 1, NULL) == STATUS_INFO_LENGTH_MISMATCH);
    CHECK(ZwQueryObject(Event, 2, Buffer, sizeof(Buffer), &Length) == STATUS_SUCCESS);
    CHECK(RtlEqualUnicodeString((PUNICODE_STRING)Buffer, &Type, FALSE) && Length == 0x6Au + Type.Length);
    CHECK(((PUNICODE_STRING)Buffer)->Buffer == (PWCH)(Buffer + 0x68));
    CHECK(ZwQueryObject(Event, 1, Buffer, sizeof(Buffer), &Length) == STATUS_SUCCESS);
    CHECK(RtlEqualUnicodeString((PUNICODE_STRING)Buffer, &Name, FALSE));
    CHECK(ZwQueryObject((HANDLE)0x1234, 0, &Basic, sizeof(Basic), NULL) == STATUS_INVALID_HANDLE);
    ZwClose(Event);
    return 0;
}

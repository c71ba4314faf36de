/* What is refused, each with its status; names, rights and types. */
#include "sections.h"

static ULONG RefusedSections(VOID)
{
    OBJECT_ATTRIBUTES Object;
    SECTION_BASIC_INFORMATION Basic;
    UCHAR Image[0x40];
    HANDLE Section;

    CHECK(Create(&Section, 0, PAGE_READWRITE, SEC_COMMIT) == STATUS_INVALID_PARAMETER_4);
    CHECK(Create(&Section, -1, PAGE_READWRITE, SEC_COMMIT) == STATUS_SECTION_TOO_BIG);
    CHECK(Create(&Section, 1ll << 50, PAGE_READWRITE, SEC_COMMIT) == STATUS_SECTION_TOO_BIG);
    CHECK(Create(&Section, 0x1000, PAGE_READWRITE, 0) == STATUS_INVALID_PARAMETER_6);
    CHECK(Create(&Section, 0x1000, PAGE_READWRITE, SEC_COMMIT | SEC_RESERVE) == STATUS_INVALID_PARAMETER_6);
    CHECK(Create(&Section, 0x1000, PAGE_READWRITE, SEC_COMMIT | 1) == STATUS_INVALID_PARAMETER_6);
    CHECK(Create(&Section, 0x1000, 0, SEC_COMMIT) == STATUS_INVALID_PAGE_PROTECTION);
    CHECK(Create(&Section, 0x1000, PAGE_NOACCESS, SEC_COMMIT) == STATUS_INVALID_PAGE_PROTECTION);
    CHECK(Create(&Section, 0x1000, PAGE_READWRITE | PAGE_READONLY, SEC_COMMIT) == STATUS_INVALID_PAGE_PROTECTION);
    CHECK(Create(&Section, 0x1000, PAGE_EXECUTE_READ, SEC_IMAGE) == STATUS_INVALID_FILE_FOR_SECTION);
    InitializeObjectAttributes(&Object, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    CHECK(ZwCreateSection(&Section, SECTION_ALL_ACCESS, &Object, NULL, PAGE_READWRITE, SEC_COMMIT, NULL) ==
          STATUS_INVALID_PARAMETER_4);
    Object.Length = 0;
    CHECK(ZwCreateSection(&Section, SECTION_ALL_ACCESS, &Object, NULL, PAGE_READWRITE, SEC_COMMIT, NULL) ==
          STATUS_INVALID_PARAMETER);
    CHECK(Create(&Section, 0x1000, PAGE_READWRITE, SEC_COMMIT) == STATUS_SUCCESS);
    CHECK(ZwQuerySection(Section, 0, &Basic, sizeof(Basic) - 1, NULL) == STATUS_INFO_LENGTH_MISMATCH);
    CHECK(ZwQuerySection(Section, 1, Image, sizeof(Image), NULL) == STATUS_SECTION_NOT_IMAGE);
    CHECK(ZwQuerySection(Section, 77, &Basic, sizeof(Basic), NULL) == STATUS_INVALID_INFO_CLASS);
    CHECK(ZwQuerySection(NtCurrentProcess(), 0, &Basic, sizeof(Basic), NULL) == STATUS_OBJECT_TYPE_MISMATCH);
    CHECK(ZwQuerySection((HANDLE)0x7770, 0, &Basic, sizeof(Basic), NULL) == STATUS_INVALID_HANDLE);
    CHECK(ZwClose(Section) == STATUS_SUCCESS);
    return 0;
}

/* A view of a section with this protection, as Asked for. */
static NTSTATUS Viewed(ULONG Protection, ULONG Asked)
{
    HANDLE Section;
    PVOID View;
    NTSTATUS Status = Create(&Section, 0x1000, Protection, SEC_COMMIT);

    if (NT_SUCCESS(Status)) {
        Status = MapAll(Section, &View, Asked);
        if (NT_SUCCESS(Status)) {
            Unmap(View);
        }
        ZwClose(Section);
    }
    return Status;
}

static ULONG RefusedViews(VOID)
{
    HANDLE Section;
    PVOID View = NULL, Taken;
    SIZE_T Bytes = 0;

    CHECK(Viewed(PAGE_READONLY, PAGE_READWRITE) == STATUS_SECTION_PROTECTION);
    CHECK(Viewed(PAGE_READWRITE, PAGE_EXECUTE_READ) == STATUS_SECTION_PROTECTION);
    CHECK(Viewed(PAGE_WRITECOPY, PAGE_READWRITE) == STATUS_SECTION_PROTECTION);
    CHECK(Viewed(PAGE_READWRITE, PAGE_READONLY) == STATUS_SUCCESS);
    CHECK(Viewed(PAGE_READWRITE, PAGE_NOACCESS) == STATUS_SUCCESS);
    CHECK(Viewed(PAGE_EXECUTE_READWRITE, PAGE_EXECUTE_READWRITE) == STATUS_SUCCESS);
    CHECK(Viewed(PAGE_READWRITE, 0) == STATUS_INVALID_PAGE_PROTECTION);
    CHECK(Viewed(PAGE_READWRITE, PAGE_READWRITE | PAGE_READONLY) == STATUS_INVALID_PAGE_PROTECTION);
    CHECK(Viewed(PAGE_READWRITE, PAGE_READWRITE | PAGE_NOCACHE | PAGE_WRITECOMBINE) == STATUS_INVALID_PAGE_PROTECTION);

    CHECK(Create(&Section, 0x20000, PAGE_READWRITE, SEC_COMMIT) == STATUS_SUCCESS);
#define MAP(ZeroBits, Commit, Inherit, Type)                                                                           \
    ZwMapViewOfSection(Section, NtCurrentProcess(), &View, ZeroBits, Commit, NULL, &Bytes, Inherit, Type, PAGE_READWRITE)
    CHECK(MAP(21, 0, ViewShare, 0) == STATUS_INVALID_PARAMETER_4);
    CHECK(MAP(0, 0x20001, ViewShare, 0) == STATUS_INVALID_PARAMETER_5);
    CHECK(MAP(0, 0, 0, 0) == STATUS_INVALID_PARAMETER_8 && MAP(0, 0, 3, 0) == STATUS_INVALID_PARAMETER_8);
    CHECK(MAP(0, 0, ViewShare, MEM_COMMIT) == STATUS_INVALID_PARAMETER_9);
    CHECK(MAP(0, 0, ViewShare, MEM_TOP_DOWN) == STATUS_SUCCESS && Unmap(View) == STATUS_SUCCESS);
    View = (PVOID)MmUserProbeAddress;
    CHECK(MAP(0, 0, ViewShare, 0) == STATUS_INVALID_PARAMETER_3);

    /* Where the driver asks for it, rounded down to 64 KiB; but not where something is. */
    View = NULL;
    CHECK(MAP(0, 0, ViewShare, 0) == STATUS_SUCCESS);
    Taken = View;
    View = (PVOID)((ULONG_PTR)Taken + 0x12345);
    CHECK(MAP(0, 0, ViewShare, 0) == STATUS_CONFLICTING_ADDRESSES);
    View = (PVOID)((ULONG_PTR)Taken + 0x1012345);
    CHECK(MAP(0, 0, ViewShare, 0) == STATUS_SUCCESS && View == (PVOID)((ULONG_PTR)Taken + 0x1010000));
    ((volatile UCHAR *)View)[3] = 4;
    CHECK(((volatile UCHAR *)Taken)[3] == 4);
    CHECK(Unmap(View) == STATUS_SUCCESS && Unmap(Taken) == STATUS_SUCCESS);
    CHECK(ZwClose(Section) == STATUS_SUCCESS);
#undef MAP
    return 0;
}

static NTSTATUS CreateNamed(PHANDLE Section, PUNICODE_STRING Name, ULONG Flags)
{
    OBJECT_ATTRIBUTES Object;
    LARGE_INTEGER Size = {.QuadPart = 0x1000};

    InitializeObjectAttributes(&Object, Name, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE | Flags, NULL, NULL);
    return ZwCreateSection(Section, SECTION_ALL_ACCESS, &Object, &Size, PAGE_READWRITE, SEC_COMMIT, NULL);
}

static NTSTATUS OpenNamed(PHANDLE Section, PUNICODE_STRING Name, ACCESS_MASK Access)
{
    OBJECT_ATTRIBUTES Object;

    InitializeObjectAttributes(&Object, Name, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, NULL, NULL);
    return ZwOpenSection(Section, Access, &Object);
}

/* A name is there as long as a handle is. */
static ULONG Names(VOID)
{
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\BaseNamedObjects\\DirqlShared");
    UNICODE_STRING EventName = RTL_CONSTANT_STRING(L"\\BaseNamedObjects\\DirqlEvent");
    UNICODE_STRING Relative = RTL_CONSTANT_STRING(L"DirqlShared");
    UNICODE_STRING NoFolder = RTL_CONSTANT_STRING(L"\\NoFolder\\DirqlShared");
    HANDLE One, Two, Three, EventHandle;
    PKEVENT Event;
    PVOID View, Other;

    CHECK(OpenNamed(&One, &Name, SECTION_ALL_ACCESS) == STATUS_OBJECT_NAME_NOT_FOUND);
    CHECK(OpenNamed(&One, &Relative, SECTION_ALL_ACCESS) == STATUS_OBJECT_PATH_SYNTAX_BAD);
    CHECK(OpenNamed(&One, &NoFolder, SECTION_ALL_ACCESS) == STATUS_OBJECT_PATH_NOT_FOUND);
    CHECK(CreateNamed(&One, &NoFolder, 0) == STATUS_OBJECT_PATH_NOT_FOUND);
    CHECK(CreateNamed(&One, &Name, 0) == STATUS_SUCCESS);
    CHECK(CreateNamed(&Two, &Name, 0) == STATUS_OBJECT_NAME_COLLISION);
    CHECK(CreateNamed(&Two, &Name, OBJ_OPENIF) == STATUS_OBJECT_NAME_EXISTS);
    CHECK(OpenNamed(&Three, &Name, SECTION_MAP_READ) == STATUS_SUCCESS);
    Event = IoCreateNotificationEvent(&EventName, &EventHandle);
    CHECK(Event != NULL);
    CHECK(OpenNamed(&Other, &EventName, SECTION_ALL_ACCESS) == STATUS_OBJECT_TYPE_MISMATCH);
    CHECK(CreateNamed(&Other, &EventName, OBJ_OPENIF) == STATUS_OBJECT_TYPE_MISMATCH);
    CHECK(ZwClose(EventHandle) == STATUS_SUCCESS);

    CHECK(MapAll(One, &View, PAGE_READWRITE) == STATUS_SUCCESS && MapAll(Three, &Other, PAGE_READONLY) == STATUS_SUCCESS);
    ((volatile UCHAR *)View)[5] = 6;
    CHECK(((volatile UCHAR *)Other)[5] == 6);
    CHECK(Unmap(Other) == STATUS_SUCCESS);
    CHECK(ZwClose(One) == STATUS_SUCCESS && ZwClose(Two) == STATUS_SUCCESS);
    CHECK(OpenNamed(&One, &Name, SECTION_ALL_ACCESS) == STATUS_SUCCESS && ZwClose(One) == STATUS_SUCCESS);

    /* The type and the access are looked at for an application's handle only. */
    CHECK(ObReferenceObjectByHandle(Three, SECTION_MAP_READ, *ExEventObjectType, KERNEL_MODE, &Other, NULL) ==
          STATUS_OBJECT_TYPE_MISMATCH);
    CHECK(ObReferenceObjectByHandle(Three, SECTION_MAP_WRITE, *MmSectionObjectType, KERNEL_MODE, &Other, NULL) ==
          STATUS_SUCCESS);
    ObDereferenceObject(Other);
    CHECK(ZwClose(Three) == STATUS_SUCCESS);
    CHECK(OpenNamed(&One, &Name, SECTION_ALL_ACCESS) == STATUS_OBJECT_NAME_NOT_FOUND);
    CHECK(((volatile UCHAR *)View)[5] == 6 && Unmap(View) == STATUS_SUCCESS);
    return 0;
}

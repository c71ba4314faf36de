/* Sections of the page file's: what views of them show, in a process and in system space. */
#include "sections.h"

/* Two views of one section are one memory, and keep it when no handle is left. */
static ULONG TwoViews(VOID)
{
    SECTION_BASIC_INFORMATION Basic = {(PVOID)1, 1, {.QuadPart = 1}};
    SIZE_T Returned = 0;
    HANDLE Section;
    volatile UCHAR *One, *Two, *Three;
    PVOID View;
    LONGLONG Offset = 0;
    SIZE_T Bytes = 0;

    CHECK(Create(&Section, 0x12345, PAGE_READWRITE, SEC_COMMIT) == STATUS_SUCCESS);
    CHECK(ZwQuerySection(Section, 0, &Basic, sizeof(Basic), &Returned) == STATUS_SUCCESS && Returned == sizeof(Basic));
    CHECK(Basic.BaseAddress == NULL && Basic.AllocationAttributes == SEC_COMMIT);
    CHECK(Basic.MaximumSize.QuadPart == 0x13000);
    CHECK(MapPart(Section, &View, &Offset, &Bytes, PAGE_READWRITE) == STATUS_SUCCESS);
    CHECK(Bytes == 0x13000 && Offset == 0);
    One = View;
    CHECK((ULONG_PTR)One % GRANULARITY == 0 && (ULONG_PTR)One + Bytes <= MmUserProbeAddress);
    CHECK(One[0] == 0 && One[0x12FFF] == 0);
    CHECK(MapAll(Section, &View, PAGE_READWRITE) == STATUS_SUCCESS);
    Two = View;
    CHECK(MapAll(Section, &View, PAGE_READONLY) == STATUS_SUCCESS);
    Three = View;
    CHECK(One != Two && Two != Three);
    One[0x12345] = 7;
    Two[0x10000] = 8;
    CHECK(Two[0x12345] == 7 && Three[0x12345] == 7 && One[0x10000] == 8 && Three[0x10000] == 8);
    CHECK(MmGetPhysicalAddress((PVOID)One).QuadPart == MmGetPhysicalAddress((PVOID)Two).QuadPart);
    CHECK(ZwClose(Section) == STATUS_SUCCESS);
    CHECK(Unmap((PVOID)One) == STATUS_SUCCESS);
    CHECK(!MmIsAddressValid((PVOID)One) && Two[0x12345] == 7);
    /* By any of its addresses. */
    CHECK(Unmap((PVOID)(Two + 0x11111)) == STATUS_SUCCESS);
    CHECK(Three[0x12345] == 7);
    CHECK(Unmap((PVOID)Three) == STATUS_SUCCESS);
    CHECK(Unmap((PVOID)Three) == STATUS_NOT_MAPPED_VIEW && Unmap((PVOID)(Three + 0x13000)) == STATUS_NOT_MAPPED_VIEW);
    return 0;
}

/* An offset is rounded down to 64 KiB, and what was asked for is in the view. */
static ULONG Parts(VOID)
{
    HANDLE Section;
    PUCHAR All;
    PVOID View;
    LONGLONG Offset;
    SIZE_T Bytes;

    CHECK(Create(&Section, 0x40000, PAGE_READWRITE, SEC_COMMIT) == STATUS_SUCCESS);
    CHECK(MapAll(Section, &View, PAGE_READWRITE) == STATUS_SUCCESS);
    All = View;
    All[0x18010] = 5;
    All[0x3FFFF] = 6;
    Offset = 0x18010;
    Bytes = 0x10;
    CHECK(MapPart(Section, &View, &Offset, &Bytes, PAGE_READWRITE) == STATUS_SUCCESS);
    CHECK(Offset == 0x10000 && Bytes == 0x9000 && ((PUCHAR)View)[0x8010] == 5);
    CHECK(Unmap(View) == STATUS_SUCCESS);
    Offset = 0x30000;
    Bytes = 0;
    CHECK(MapPart(Section, &View, &Offset, &Bytes, PAGE_READWRITE) == STATUS_SUCCESS);
    CHECK(Offset == 0x30000 && Bytes == 0x10000 && ((PUCHAR)View)[0xFFFF] == 6);
    CHECK(Unmap(View) == STATUS_SUCCESS);
    Offset = 0x30000;
    Bytes = 0x10001;
    CHECK(MapPart(Section, &View, &Offset, &Bytes, PAGE_READWRITE) == STATUS_INVALID_VIEW_SIZE);
    Offset = 0x40000;
    Bytes = 0;
    CHECK(MapPart(Section, &View, &Offset, &Bytes, PAGE_READWRITE) == STATUS_INVALID_VIEW_SIZE);
    Offset = -0x10000;
    CHECK(MapPart(Section, &View, &Offset, &Bytes, PAGE_READWRITE) == STATUS_INVALID_VIEW_SIZE);
    CHECK(Unmap(All) == STATUS_SUCCESS && ZwClose(Section) == STATUS_SUCCESS);
    return 0;
}

/* Pages of a reserved section are there once they are committed, for all views. */
static ULONG Reserved(VOID)
{
    HANDLE Section;
    PVOID One = NULL, Two = NULL;
    SIZE_T Bytes = 0;
    LARGE_INTEGER Offset = {.QuadPart = 0x10000};

    CHECK(Create(&Section, 0x1000000, PAGE_READWRITE, SEC_RESERVE) == STATUS_SUCCESS);
    CHECK(NtMapViewOfSection(Section, NtCurrentProcess(), &One, 0, 0, NULL, &Bytes, ViewUnmap, 0, PAGE_READWRITE) ==
          STATUS_SUCCESS);
    CHECK(Bytes == 0x1000000 && !MmIsAddressValid(One));
    Bytes = 0x20000;
    CHECK(ZwMapViewOfSection(Section, NtCurrentProcess(), &Two, 0, 0x1001, &Offset, &Bytes, ViewUnmap, 0,
                             PAGE_READWRITE) == STATUS_SUCCESS);
    CHECK(MmIsAddressValid((PUCHAR)Two + 0x1FFF) && !MmIsAddressValid((PUCHAR)Two + 0x2000));
    CHECK(MmIsAddressValid((PUCHAR)One + 0x10000) && !MmIsAddressValid((PUCHAR)One + 0x12000));
    ((volatile UCHAR *)Two)[0x1FFF] = 9;
    CHECK(((volatile UCHAR *)One)[0x11FFF] == 9);
    CHECK(Unmap(One) == STATUS_SUCCESS && Unmap(Two) == STATUS_SUCCESS && ZwClose(Section) == STATUS_SUCCESS);
    return 0;
}

/* Where a story and a system thread of its meet. */
static struct {
    HANDLE Section;
    volatile ULONG *View;
    NTSTATUS Status;
    ULONG Seen;
} Meeting;

static VOID NTAPI SeesSystemView(PVOID Context)
{
    UNREFERENCED_PARAMETER(Context);
    Meeting.Seen = Meeting.View[1];
    Meeting.View[2] = 33;
    PsTerminateSystemThread(STATUS_SUCCESS);
}

/* A view in system space is there for every thread. */
static ULONG SystemSpace(VOID)
{
    HANDLE Section;
    PVOID Object, View, Own;
    SIZE_T Bytes = 0x5000;

    CHECK(Create(&Section, 0x20000, PAGE_READWRITE, SEC_COMMIT) == STATUS_SUCCESS);
    Object = ObjectOf(Section);
    CHECK(Object != NULL);
    CHECK(MmMapViewInSystemSpace(Object, &View, &Bytes) == STATUS_SUCCESS);
    CHECK(Bytes == 0x5000 && (ULONG_PTR)View > MmUserProbeAddress && (ULONG_PTR)View % GRANULARITY == 0);
    CHECK(MapAll(Section, &Own, PAGE_READWRITE) == STATUS_SUCCESS);
    ((volatile ULONG *)Own)[1] = 22;
    Meeting.View = View;
    CHECK(NT_SUCCESS(InSystemThread(SeesSystemView, NULL)));
    CHECK(Meeting.Seen == 22 && ((volatile ULONG *)Own)[2] == 33);
    CHECK(Unmap(View) == STATUS_NOT_MAPPED_VIEW);
    CHECK(ZwClose(Section) == STATUS_SUCCESS && Unmap(Own) == STATUS_SUCCESS);
    ObDereferenceObject(Object);
    CHECK(((volatile ULONG *)View)[2] == 33);
    CHECK(MmUnmapViewInSystemSpace(View) == STATUS_SUCCESS && !MmIsAddressValid(View));

    CHECK(Create(&Section, 0x20000, PAGE_READONLY, SEC_COMMIT) == STATUS_SUCCESS);
    Object = ObjectOf(Section);
    Bytes = 0x20001;
    CHECK(MmMapViewInSystemSpace(Object, &View, &Bytes) == STATUS_INVALID_VIEW_SIZE);
    Bytes = 0;
    CHECK(MmMapViewInSystemSpace(Object, &View, &Bytes) == STATUS_SUCCESS && Bytes == 0x20000);
    CHECK(((volatile ULONG *)View)[0x7FFF] == 0);
    CHECK(MmUnmapViewInSystemSpace(View) == STATUS_SUCCESS);
    ObDereferenceObject(Object);
    CHECK(ZwClose(Section) == STATUS_SUCCESS);
    return 0;
}

static VOID NTAPI MapsInItsProcess(PVOID Context)
{
    PVOID View;

    UNREFERENCED_PARAMETER(Context);
    Meeting.Status = MapAll(Meeting.Section, &View, PAGE_READWRITE);
    Meeting.View = View;
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static VOID NTAPI UnmapsInItsProcess(PVOID Context)
{
    UNREFERENCED_PARAMETER(Context);
    Meeting.Status = Unmap((PVOID)Meeting.View);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

/* A view belongs to the process that it was mapped into, which a handle may name. */
static ULONG OwnProcess(VOID)
{
    HANDLE Process, Event;
    PVOID View = NULL, Other;
    SIZE_T Bytes = 0;

    CHECK(Create(&Meeting.Section, 0x10000, PAGE_READWRITE, SEC_COMMIT) == STATUS_SUCCESS);
    CHECK(NT_SUCCESS(InSystemThread(MapsInItsProcess, NULL)) && Meeting.Status == STATUS_SUCCESS);
    CHECK(Unmap((PVOID)Meeting.View) == STATUS_NOT_MAPPED_VIEW);
    CHECK(NT_SUCCESS(InSystemThread(UnmapsInItsProcess, NULL)) && Meeting.Status == STATUS_SUCCESS);

    CHECK(ObOpenObjectByPointer(IoGetCurrentProcess(), OBJ_KERNEL_HANDLE, NULL, 0, *PsProcessType, KERNEL_MODE,
                                &Process) == STATUS_SUCCESS);
    CHECK(ZwMapViewOfSection(Meeting.Section, Process, &View, 0, 0, NULL, &Bytes, ViewShare, 0, PAGE_READWRITE) ==
          STATUS_SUCCESS);
    ((volatile UCHAR *)View)[0xFFFF] = 1;
    CHECK(ZwUnmapViewOfSection(Process, View) == STATUS_SUCCESS);
    CHECK(ZwClose(Process) == STATUS_SUCCESS);

    View = NULL;
    CHECK(ZwMapViewOfSection(Meeting.Section, (HANDLE)0x7770, &View, 0, 0, NULL, &Bytes, ViewShare, 0,
                             PAGE_READWRITE) == STATUS_INVALID_HANDLE);
    CHECK(ZwCreateEvent(&Event, EVENT_ALL_ACCESS, NULL, NotificationEvent, FALSE) == STATUS_SUCCESS);
    CHECK(ZwMapViewOfSection(Meeting.Section, Event, &View, 0, 0, NULL, &Bytes, ViewShare, 0, PAGE_READWRITE) ==
          STATUS_OBJECT_TYPE_MISMATCH);
    CHECK(MapAll(Event, &Other, PAGE_READWRITE) == STATUS_OBJECT_TYPE_MISMATCH);
    CHECK(ZwUnmapViewOfSection(Event, View) == STATUS_OBJECT_TYPE_MISMATCH);
    CHECK(ZwClose(Event) == STATUS_SUCCESS && ZwClose(Meeting.Section) == STATUS_SUCCESS);
    return 0;
}

/* \Device\PhysicalMemory: RAM page by page, a card through the bus. */
#include "sections.h"

#define PCI_CONFIGURATION 4 /* BUS_DATA_TYPE */
NTHALAPI ULONG NTAPI HalGetBusData(ULONG Kind, ULONG Bus, ULONG Slot, PVOID Buffer, ULONG Length);

/* Memory of the driver's own, once more by its physical address. */
static ULONG OwnRam(VOID)
{
    PHYSICAL_ADDRESS Highest = {.QuadPart = -1}, At;
    volatile UCHAR *Own = MmAllocateContiguousMemory(0x3000, Highest), *View;
    HANDLE Section;
    PVOID Base;
    LONGLONG Offset;
    SIZE_T Bytes = 0x20;

    CHECK(Own != NULL);
    Own[0x1FF0] = 0x5A;
    At = MmGetPhysicalAddress((PVOID)(Own + 0x1FF0));
    CHECK(OpenPhysicalMemory(&Section) == STATUS_SUCCESS);
    Offset = At.QuadPart;
    CHECK(MapPart(Section, &Base, &Offset, &Bytes, PAGE_READWRITE) == STATUS_SUCCESS);
    CHECK(Offset == (At.QuadPart & ~0xFFFFll));
    CHECK(Bytes == (SIZE_T)((At.QuadPart + 0x20 + 0xFFF) & ~0xFFFll) - (SIZE_T)Offset);
    View = (PUCHAR)Base + (At.QuadPart - Offset);
    CHECK(*View == 0x5A && MmGetPhysicalAddress((PVOID)View).QuadPart == At.QuadPart);
    View[0x10] = 0xA5;
    CHECK(Own[0x2000] == 0xA5);
    CHECK(ZwClose(Section) == STATUS_SUCCESS && Unmap(Base) == STATUS_SUCCESS);
    CHECK(Own[0x1FF0] == 0x5A);
    MmFreeContiguousMemory((PVOID)Own);
    return 0;
}

/* The card's first window, by configuration space. */
static LONGLONG Card(VOID)
{
    PCI_COMMON_CONFIG Config;

    for (ULONG Slot = 0; Slot < 32; Slot++) {
        if (HalGetBusData(PCI_CONFIGURATION, 0, Slot, &Config, sizeof(Config)) == sizeof(Config) &&
            Config.VendorID == 0x1234 && Config.DeviceID == 0x5678) {
            return Config.u.type0.BaseAddresses[0] & ~0xFull;
        }
    }
    return 0;
}

/* A card's registers, in the application's half: the same that MmMapIoSpace shows. */
static ULONG CardsWindow(VOID)
{
    PHYSICAL_ADDRESS At = {.QuadPart = Card()};
    LONGLONG Offset = At.QuadPart;
    SIZE_T Bytes = 0x1000;
    volatile ULONG *Window, *View, *ReadOnly;
    PVOID Base, Second;
    HANDLE Section;

    CHECK(At.QuadPart != 0);
    Window = MmMapIoSpace(At, 0x1000, MmNonCached);
    CHECK(OpenPhysicalMemory(&Section) == STATUS_SUCCESS);
    CHECK(MapPart(Section, &Base, &Offset, &Bytes, PAGE_READWRITE | PAGE_NOCACHE) == STATUS_SUCCESS);
    CHECK((ULONG_PTR)Base % GRANULARITY == 0 && Offset == (At.QuadPart & ~0xFFFFll));
    CHECK(Bytes == (SIZE_T)(At.QuadPart - Offset) + 0x1000 && (ULONG_PTR)Base + Bytes <= MmUserProbeAddress);
    View = (PULONG)((PUCHAR)Base + (At.QuadPart - Offset));
    View[4] = 0x12345678;
    Window[5] = 0x9ABCDEF0;
    CHECK(Window[4] == 0x12345678 && View[5] == 0x9ABCDEF0 && ((volatile USHORT *)View)[9] == 0x1234);
    CHECK(MmGetPhysicalAddress((PVOID)(View + 1)).QuadPart == At.QuadPart + 4);
    Offset = At.QuadPart;
    Bytes = 4;
    CHECK(MapPart(Section, &Second, &Offset, &Bytes, PAGE_READONLY) == STATUS_SUCCESS);
    ReadOnly = (PULONG)((PUCHAR)Second + (At.QuadPart - Offset));
    CHECK(ReadOnly[4] == 0x12345678 && Second != Base);
    CHECK(Unmap(Second) == STATUS_SUCCESS && Unmap(Base) == STATUS_SUCCESS && !MmIsAddressValid(Base));
    CHECK(Unmap(Base) == STATUS_NOT_MAPPED_VIEW);
    MmUnmapIoSpace((PVOID)Window, 0x1000);
    CHECK(ZwClose(Section) == STATUS_SUCCESS);
    return 0;
}

/* Firmware's part of the first megabyte has nothing in it here, and reads as ones. */
static ULONG Firmware(VOID)
{
    HANDLE Section;
    PVOID Base;
    LONGLONG Offset = 0xF0000;
    SIZE_T Bytes = 0x10000;

    CHECK(OpenPhysicalMemory(&Section) == STATUS_SUCCESS);
    CHECK(MapPart(Section, &Base, &Offset, &Bytes, PAGE_READONLY) == STATUS_SUCCESS);
    CHECK(Offset == 0xF0000 && Bytes == 0x10000);
    CHECK(((volatile ULONG *)Base)[0] == 0xFFFFFFFF && ((volatile UCHAR *)Base)[0xFFFF] == 0xFF);
    CHECK(Unmap(Base) == STATUS_SUCCESS);
    Offset = 1ll << 45;
    CHECK(MapPart(Section, &Base, &Offset, &Bytes, PAGE_READONLY) == STATUS_INVALID_VIEW_SIZE);
    Offset = 0;
    Bytes = 0;
    CHECK(MapPart(Section, &Base, &Offset, &Bytes, PAGE_READONLY) == STATUS_NO_MEMORY);
    CHECK(ZwClose(Section) == STATUS_SUCCESS);
    return 0;
}

/* The whole first megabyte, RAM and what is none in one view. Mapping RAM that is not the driver's is a finding. */
static ULONG FirstMegabyte(VOID)
{
    HANDLE Section;
    PVOID Base, Page;
    volatile UCHAR *View;
    LONGLONG Offset = 0;
    SIZE_T Bytes = 0x100000;

    CHECK(OpenPhysicalMemory(&Section) == STATUS_SUCCESS);
    CHECK(MapPart(Section, &Base, &Offset, &Bytes, PAGE_READWRITE) == STATUS_SUCCESS && Bytes == 0x100000);
    View = Base;
    View[0x5000] = 0x11;
    View[0x5FFF] = 0x22;
    CHECK(View[0x5000] == 0x11 && View[0x5FFF] == 0x22 && View[0xFFFF0] == 0xFF && View[0] == 0xFF);
    Offset = 0x10000;
    Bytes = 0x10000;
    *(volatile ULONG *)(View + 0x10001) = 0x44332211;
    CHECK(MapPart(Section, &Page, &Offset, &Bytes, PAGE_READONLY) == STATUS_SUCCESS);
    CHECK(((volatile UCHAR *)Page)[1] == 0x11 && ((volatile UCHAR *)Page)[4] == 0x44);
    CHECK(Unmap(Base) == STATUS_SUCCESS && Unmap(Page) == STATUS_SUCCESS && ZwClose(Section) == STATUS_SUCCESS);
    return 0;
}

/* RAM is cached: a view of pool that is not conflicts. */
static ULONG UncachedRam(VOID)
{
    PVOID Block = ExAllocatePoolWithTag(NonPagedPool, 0x1000, SECTIONS_TAG), Base;
    LONGLONG Offset = MmGetPhysicalAddress(Block).QuadPart;
    SIZE_T Bytes = 1;
    HANDLE Section;

    CHECK(OpenPhysicalMemory(&Section) == STATUS_SUCCESS);
    CHECK(MapPart(Section, &Base, &Offset, &Bytes, PAGE_READWRITE | PAGE_NOCACHE) == STATUS_CONFLICTING_ADDRESSES);
    CHECK(MapPart(Section, &Base, &Offset, &Bytes, PAGE_READWRITE | PAGE_WRITECOMBINE) == STATUS_CONFLICTING_ADDRESSES);
    ExFreePoolWithTag(Block, SECTIONS_TAG);
    CHECK(ZwClose(Section) == STATUS_SUCCESS);
    return 0;
}

/* A view is its process's: a system thread finds nothing of its own there. Of a card (1), or of the driver's memory. */
static PVOID TheView;

static VOID NTAPI TouchesView(PVOID Context)
{
    UNREFERENCED_PARAMETER(Context);
    *(volatile UCHAR *)TheView = 1;
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static ULONG TouchedElsewhere(VOID)
{
    PHYSICAL_ADDRESS Highest = {.QuadPart = -1};
    PVOID Own = MmAllocateContiguousMemory(0x1000, Highest);
    LONGLONG At = Card() != 0 ? Card() : MmGetPhysicalAddress(Own).QuadPart, Offset = At;
    SIZE_T Bytes = 0x1000;
    HANDLE Section;
    PVOID Base;

    CHECK(OpenPhysicalMemory(&Section) == STATUS_SUCCESS);
    CHECK(MapPart(Section, &Base, &Offset, &Bytes, PAGE_READWRITE) == STATUS_SUCCESS);
    TheView = (PUCHAR)Base + (At - Offset);
    CHECK(NT_SUCCESS(InSystemThread(TouchesView, NULL)));
    return 0;
}

/* The same of what an MDL shows to an application. */
static ULONG TouchedMappedElsewhere(VOID)
{
    PHYSICAL_ADDRESS At = {.QuadPart = Card()};
    PVOID Window = At.QuadPart != 0 ? MmMapIoSpace(At, PAGE_SIZE, MmNonCached)
                                    : ExAllocatePoolWithTag(NonPagedPool, PAGE_SIZE, SECTIONS_TAG);
    PMDL Mdl = IoAllocateMdl(Window, PAGE_SIZE, FALSE, FALSE, NULL);

    CHECK(Mdl != NULL);
    MmBuildMdlForNonPagedPool(Mdl);
    TheView = MmMapLockedPagesSpecifyCache(Mdl, UserMode, MmCached, NULL, FALSE, NormalPagePriority);
    CHECK(TheView != NULL);
    *(volatile UCHAR *)TheView = 1; /* here it may */
    CHECK(NT_SUCCESS(InSystemThread(TouchesView, NULL)));
    return 0;
}

/* A view in the system process: the same by a thread of an application's. */
static VOID NTAPI MapsOwnRam(PVOID Context)
{
    UNREFERENCED_PARAMETER(Context);
    MapAll(Meeting.Section, (PVOID *)&Meeting.View, PAGE_READWRITE);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static ULONG TouchedByApplication(VOID)
{
    CHECK(Create(&Meeting.Section, 0x1000, PAGE_READWRITE, SEC_COMMIT) == STATUS_SUCCESS);
    CHECK(NT_SUCCESS(InSystemThread(MapsOwnRam, NULL)));
    *(volatile UCHAR *)Meeting.View = 1;
    return 0;
}

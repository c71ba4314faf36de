/* Idioms of correct drivers around memory: none is to be a finding. */
#include "memory.h"

/* RAM that the driver has, mapped once more by its physical address: allowed for memory that stays where it is. */
static ULONG RamOnceMore(VOID)
{
    PHYSICAL_ADDRESS Highest = {.QuadPart = 0xFFFFFFFF};
    PUCHAR Block = MmAllocateContiguousMemory(2 * PAGE_SIZE, Highest), Alias;

    CHECK(Block != NULL);
    Alias = MmMapIoSpace(MmGetPhysicalAddress(Block + 16), PAGE_SIZE, MmCached);
    CHECK(Alias != NULL && Alias != Block + 16);
    Block[16] = 1;
    Alias[1] = 2;
    CHECK(Alias[0] == 1 && Block[17] == 2); /* two addresses, one memory */
    CHECK(MmGetPhysicalAddress(Alias).QuadPart == MmGetPhysicalAddress(Block + 16).QuadPart);
    MmUnmapIoSpace(Alias, PAGE_SIZE);
    MmFreeContiguousMemory(Block);
    return 0;
}

/* An application's address that the caller chooses. */
static ULONG MappedWhereAsked(VOID)
{
    PUCHAR Block = ExAllocatePoolWithTag(NonPagedPool, 2 * PAGE_SIZE, MEMORY_TAG), First, Second;
    PMDL Mdl = IoAllocateMdl(Block + 8, PAGE_SIZE, FALSE, FALSE, NULL);

    CHECK(Block != NULL && Mdl != NULL);
    MmBuildMdlForNonPagedPool(Mdl);
    First = MmMapLockedPagesSpecifyCache(Mdl, UserMode, MmCached, NULL, FALSE, NormalPagePriority);
    CHECK(First != NULL && (ULONG_PTR)First < MmUserProbeAddress && BYTE_OFFSET(First) == 8);
    Second = MmMapLockedPagesSpecifyCache(Mdl, UserMode, MmCached, (PUCHAR)PAGE_ALIGN(First) + 0x100000, FALSE,
                                          NormalPagePriority);
    CHECK(Second == First + 0x100000);
    Block[8] = 5;
    CHECK(First[0] == 5 && Second[0] == 5);
    Second[1] = 6;
    CHECK(Block[9] == 6);
    MmUnmapLockedPages(First, Mdl);
    MmUnmapLockedPages(Second, Mdl);
    IoFreeMdl(Mdl);
    ExFreePoolWithTag(Block, MEMORY_TAG);
    return 0;
}

/* A lookaside list says by its status which parameter it does not like. */
static ULONG LookasidePools(VOID)
{
    static LOOKASIDE_LIST_EX List;
    PVOID Entry;

    CHECK(ExInitializeLookasideListEx(&List, NULL, NULL, (POOL_TYPE)3, 0, 64, MEMORY_TAG, 0) == STATUS_INVALID_PARAMETER_4);
    CHECK(ExInitializeLookasideListEx(&List, NULL, NULL, (POOL_TYPE)0x8000, 0, 64, MEMORY_TAG, 0) ==
          STATUS_INVALID_PARAMETER_4);
    CHECK(ExInitializeLookasideListEx(&List, NULL, NULL, NonPagedPool, 4, 64, MEMORY_TAG, 0) == STATUS_INVALID_PARAMETER_5);
    CHECK(NT_SUCCESS(ExInitializeLookasideListEx(&List, NULL, NULL, (POOL_TYPE)512, 0, 64, MEMORY_TAG, 0)));
    Entry = ExAllocateFromLookasideListEx(&List);
    CHECK(Entry != NULL);
    ExFreeToLookasideListEx(&List, Entry);
    ExDeleteLookasideListEx(&List);
    return 0;
}

/* No page says that contiguous or noncached memory is zero: who needs zeroes clears it. */
static ULONG ContiguousHoldsAnything(VOID)
{
    PHYSICAL_ADDRESS Highest = {.QuadPart = -1};
    PUCHAR Block = MmAllocateContiguousMemory(PAGE_SIZE, Highest), Noncached = MmAllocateNonCachedMemory(PAGE_SIZE);

    CHECK(Block != NULL && Noncached != NULL);
    CHECK(Block[0] != 0 && Block[PAGE_SIZE - 1] != 0 && Noncached[0] != 0);
    RtlZeroMemory(Block, PAGE_SIZE);
    CHECK(Block[0] == 0);
    MmFreeNonCachedMemory(Noncached, PAGE_SIZE);
    MmFreeContiguousMemory(Block);
    return 0;
}

/* The configuration space of a PCI Express function in slot 1 has 4 KiB: an extended capability begins at 100h. */
static ULONG ExtendedConfiguration(VOID)
{
    UCHAR Bytes[16];
    ULONG Header = 0;

    CHECK(HalGetBusDataByOffset(PCI_CONFIGURATION, 0, 1, &Header, 0x100, sizeof(Header)) == sizeof(Header));
    CHECK((Header & 0xFFFF) == 3 && (Header >> 16 & 0xF) == 1); /* a device serial number, version 1 */
    CHECK(HalGetBusDataByOffset(PCI_CONFIGURATION, 0, 1, Bytes, 0xFF8, sizeof(Bytes)) == 8);
    CHECK(HalGetBusDataByOffset(PCI_CONFIGURATION, 0, 1, Bytes, 0x1000, sizeof(Bytes)) == 0);
    CHECK(HalGetBusDataByOffset(PCI_CONFIGURATION, 0, 2, Bytes, 0xF8, sizeof(Bytes)) == 8); /* a conventional one has 256 bytes */
    CHECK(HalGetBusDataByOffset(PCI_CONFIGURATION, 0, 2, Bytes, 0x100, sizeof(Bytes)) == 0);
    return 0;
}

/* Two pages between 2 MiB and 3 MiB, or in one of the ranges of that length that follow. */
static ULONG SkippedPages(VOID)
{
    PHYSICAL_ADDRESS Low = {.QuadPart = 0x200000}, High = {.QuadPart = 0x2FFFFF}, Skip = {.QuadPart = 0x100000};
    PHYSICAL_ADDRESS None = {.QuadPart = 0};
    PMDL Mdl = MmAllocatePagesForMdl(Low, High, Skip, 0x180000); /* more than one range holds */

    CHECK(Mdl != NULL && MmGetMdlByteCount(Mdl) == 0x180000);
    CHECK(MmGetMdlPfnArray(Mdl)[0] >= 0x200 && MmGetMdlPfnArray(Mdl)[0x17F] >= 0x300);
    MmFreePagesFromMdl(Mdl);
    ExFreePool(Mdl);
    Mdl = MmAllocatePagesForMdlEx(Low, High, None, 0x180000, MmCached, 0);
    CHECK(Mdl != NULL && MmGetMdlByteCount(Mdl) == 0x100000); /* what there is */
    MmFreePagesFromMdl(Mdl);
    ExFreePool(Mdl);
    CHECK(MmAllocatePagesForMdlEx(Low, High, None, 0x180000, MmCached, 4 /* MM_ALLOCATE_FULLY_REQUIRED */) == NULL);

    /* Ranges of one page, one behind the other: as many as it takes, but never two pages in a row. */
    Low.QuadPart = 0;
    High.QuadPart = PAGE_SIZE - 1;
    Skip.QuadPart = 1;
    Mdl = MmAllocatePagesForMdlEx(Low, High, Skip, 4 * PAGE_SIZE, MmCached, 0);
    CHECK(Mdl != NULL && MmGetMdlByteCount(Mdl) == 4 * PAGE_SIZE);
    MmFreePagesFromMdl(Mdl);
    ExFreePool(Mdl);
    CHECK(MmAllocatePagesForMdlEx(Low, High, Skip, 2 * PAGE_SIZE, MmCached, 0x20 /* …REQUIRE_CONTIGUOUS_CHUNKS */) == NULL);
    return 0;
}

/* Fewer pages than asked for may come: a driver uses those, or insists on all. */
static ULONG FewerPages(VOID)
{
    PHYSICAL_ADDRESS Low = {.QuadPart = 0}, High = {.QuadPart = -1}, None = {.QuadPart = 0};
    PMDL Mdl = MmAllocatePagesForMdlEx(Low, High, None, 8 * PAGE_SIZE, MmCached, 0);
    ULONG Pages;

    CHECK(Mdl != NULL);
    Pages = MmGetMdlByteCount(Mdl) / PAGE_SIZE;
    CHECK(Pages >= 1 && Pages <= 8 && MmGetMdlByteCount(Mdl) % PAGE_SIZE == 0);
    DbgPrint("%u pages\n", Pages);
    MmFreePagesFromMdl(Mdl);
    ExFreePool(Mdl);
    Mdl = MmAllocatePagesForMdlEx(Low, High, None, 8 * PAGE_SIZE, MmCached, 4 /* MM_ALLOCATE_FULLY_REQUIRED */);
    CHECK(Mdl != NULL && MmGetMdlByteCount(Mdl) == 8 * PAGE_SIZE);
    MmFreePagesFromMdl(Mdl);
    ExFreePool(Mdl);
    return 0;
}

/* Stories of pages: descriptor lists of them, physical addresses, memory that lies together. */
#include "services.h"

static ULONG Described(PUCHAR Block, PMDL Mdl, PMDL Partial)
{
    MmBuildMdlForNonPagedPool(Mdl);
    CHECK(MmGetMdlVirtualAddress(Mdl) == Block && MmGetMdlByteCount(Mdl) == 3 * PAGE_SIZE);
    CHECK(MmGetSystemAddressForMdlSafe(Mdl, NormalPagePriority) == Block); /* nonpaged pool is mapped already */
    CHECK(MmGetMdlPfnArray(Mdl)[1] == (PFN_NUMBER)(MmGetPhysicalAddress(Block + PAGE_SIZE).QuadPart >> PAGE_SHIFT));
    IoBuildPartialMdl(Mdl, Partial, Block + PAGE_SIZE + 16, 100);
    CHECK(MmGetMdlByteCount(Partial) == 100 && MmGetMdlByteOffset(Partial) == 16);
    CHECK(MmGetMdlPfnArray(Partial)[0] == MmGetMdlPfnArray(Mdl)[1]);
    CHECK(MmGetSystemAddressForMdlSafe(Partial, NormalPagePriority) == Block + PAGE_SIZE + 16);
    MmPrepareMdlForReuse(Partial);
    return 0;
}

static ULONG DescriptorLists(VOID)
{
    PUCHAR Block = ExAllocatePoolWithTag(NonPagedPool, 3 * PAGE_SIZE, SERVICES_TAG);
    PMDL Mdl = IoAllocateMdl(Block, 3 * PAGE_SIZE, FALSE, FALSE, NULL);
    PMDL Partial = IoAllocateMdl(Block + PAGE_SIZE, PAGE_SIZE, FALSE, FALSE, NULL);

    CHECK(Block != NULL && Mdl != NULL && Partial != NULL);
    CHECK(MmSizeOfMdl(Block, 3 * PAGE_SIZE) == sizeof(MDL) + 3 * sizeof(PFN_NUMBER));
    CHECK(MmSizeOfMdl(Block + 1, PAGE_SIZE) == sizeof(MDL) + 2 * sizeof(PFN_NUMBER)); /* it touches two pages */
    CHECK_ALL(Described(Block, Mdl, Partial));
    IoFreeMdl(Partial);
    IoFreeMdl(Mdl);
    ExFreePoolWithTag(Block, SERVICES_TAG);
    return 0;
}

static ULONG LockedPages(VOID)
{
    PUCHAR Block = ExAllocatePoolWithTag(PagedPool, 2 * PAGE_SIZE, SERVICES_TAG), Alias;
    PMDL Mdl = IoAllocateMdl(Block, 2 * PAGE_SIZE, FALSE, FALSE, NULL);

    CHECK(Block != NULL && Mdl != NULL);
    RtlFillMemory(Block, 2 * PAGE_SIZE, 7);
    MmProbeAndLockPages(Mdl, KernelMode, IoModifyAccess);
    CHECK((Mdl->MdlFlags & MDL_PAGES_LOCKED) != 0);
    Alias = MmMapLockedPagesSpecifyCache(Mdl, KernelMode, MmCached, NULL, FALSE, NormalPagePriority);
    CHECK(Alias != NULL && Alias != Block && Alias[PAGE_SIZE] == 7);
    Alias[PAGE_SIZE + 1] = 9;
    CHECK(Block[PAGE_SIZE + 1] == 9); /* two addresses, one memory */
    MmUnmapLockedPages(Alias, Mdl);
    MmUnlockPages(Mdl);
    CHECK((Mdl->MdlFlags & MDL_PAGES_LOCKED) == 0);
    IoFreeMdl(Mdl);
    ExFreePoolWithTag(Block, SERVICES_TAG);
    return 0;
}

static ULONG Contiguous(VOID)
{
    PHYSICAL_ADDRESS Lowest = {.QuadPart = 0}, Highest = {.QuadPart = 0xFFFFFFFF}, Boundary = {.QuadPart = 0x10000};
    PUCHAR Block = MmAllocateContiguousMemory(4 * PAGE_SIZE, Highest);
    LONGLONG Start;

    CHECK(Block != NULL && ((ULONG_PTR)Block & (PAGE_SIZE - 1)) == 0);
    Start = MmGetPhysicalAddress(Block).QuadPart;
    CHECK(Start + 4 * PAGE_SIZE - 1 <= Highest.QuadPart);
    CHECK(MmGetPhysicalAddress(Block + 3 * PAGE_SIZE + 5).QuadPart == Start + 3 * PAGE_SIZE + 5);
    CHECK(MmIsAddressValid(Block) && !MmIsAddressValid(NULL));
    MmFreeContiguousMemory(Block);
    Block = MmAllocateContiguousMemorySpecifyCache(4 * PAGE_SIZE, Lowest, Highest, Boundary, MmCached);
    CHECK(Block != NULL);
    Start = MmGetPhysicalAddress(Block).QuadPart;
    CHECK(Start / 0x10000 == (Start + 4 * PAGE_SIZE - 1) / 0x10000); /* it crosses no multiple of the boundary */
    MmFreeContiguousMemorySpecifyCache(Block, 4 * PAGE_SIZE, MmCached);
    return 0;
}

static ULONG Pages(VOID)
{
    PHYSICAL_ADDRESS Lowest = {.QuadPart = 0}, Highest = {.QuadPart = 0xFFFFFFFF}, Skip = {.QuadPart = 0};
    PMDL Mdl = MmAllocatePagesForMdl(Lowest, Highest, Skip, 2 * PAGE_SIZE);

    CHECK(Mdl != NULL && MmGetMdlByteCount(Mdl) == 2 * PAGE_SIZE);
    CHECK(MmGetMdlPfnArray(Mdl)[0] != MmGetMdlPfnArray(Mdl)[1]);
    MmFreePagesFromMdl(Mdl);
    ExFreePool(Mdl); /* as documented, the list itself is the caller's to free */
    CHECK_ALL(DescriptorLists());
    CHECK_ALL(LockedPages());
    CHECK_ALL(Contiguous());
    return 0;
}

/* Pairs of device memory, contiguous memory, sections of the image and physical addresses. */
#ifndef PAIRS_MAPPING_H
#define PAIRS_MAPPING_H

#include "pairs.h"

NTKERNELAPI PVOID NTAPI MmMapIoSpaceEx(PHYSICAL_ADDRESS Address, SIZE_T Bytes, ULONG Protect);

static const PHYSICAL_ADDRESS Screen = {.QuadPart = 0xB8000}; /* of a VGA card, which every machine has */
static const PHYSICAL_ADDRESS Highest = {.QuadPart = -1};

static VOID IoSpaceLeak(BOOLEAN Wrong)
{
    PVOID Window = MmMapIoSpace(Screen, PAGE_SIZE, MmNonCached);

    if (!Wrong && Window != NULL) {
        MmUnmapIoSpace(Window, PAGE_SIZE);
    }
}

static VOID IoSpaceOutside(BOOLEAN Wrong)
{
    PHYSICAL_ADDRESS Hole = {.QuadPart = 0x9000000000};
    PVOID Window = MmMapIoSpace(Wrong ? Hole : Screen, PAGE_SIZE, MmNonCached);

    if (Window != NULL) {
        MmUnmapIoSpace(Window, PAGE_SIZE);
    }
}

static VOID IoSpaceProtection(BOOLEAN Wrong)
{
    PVOID Window = MmMapIoSpaceEx(Screen, PAGE_SIZE, Wrong ? MmNonCached : PAGE_READWRITE | PAGE_NOCACHE);

    if (Window != NULL) {
        MmUnmapIoSpace(Window, PAGE_SIZE);
    }
}

static VOID IoSpaceRam(BOOLEAN Wrong)
{
    PVOID Block = Nonpaged(PAGE_SIZE), Contiguous = MmAllocateContiguousMemory(PAGE_SIZE, Highest), Window = NULL;

    if (Block != NULL && Contiguous != NULL) {
        Window = MmMapIoSpace(MmGetPhysicalAddress(Wrong ? Block : Contiguous), PAGE_SIZE, MmCached);
    }
    if (Window != NULL) {
        MmUnmapIoSpace(Window, PAGE_SIZE);
    }
    if (Contiguous != NULL) {
        MmFreeContiguousMemory(Contiguous);
    }
    if (Block != NULL) {
        Free(Block);
    }
}

static VOID IoSpaceRange(BOOLEAN Wrong)
{
    PVOID Window = MmMapIoSpace(Screen, Wrong ? 0 : PAGE_SIZE, MmNonCached);

    if (Window != NULL) {
        MmUnmapIoSpace(Window, PAGE_SIZE);
    }
}

static VOID IoSpaceUnmap(BOOLEAN Wrong)
{
    PUCHAR Window = MmMapIoSpace(Screen, 2 * PAGE_SIZE, MmNonCached);

    if (Window != NULL) {
        MmUnmapIoSpace(Window, Wrong ? PAGE_SIZE : 2 * PAGE_SIZE);
    }
}

static VOID DeviceMemoryNotMapped(BOOLEAN Wrong)
{
    volatile ULONG *Window = MmMapIoSpace(Screen, PAGE_SIZE, MmNonCached);

    if (Window == NULL) {
        return;
    }
    if (!Wrong) {
        Sink = Window[0];
    }
    MmUnmapIoSpace((PVOID)(ULONG_PTR)Window, PAGE_SIZE);
    if (Wrong) {
        Sink = Window[0];
    }
}

static VOID DeviceAccessPastMapping(BOOLEAN Wrong)
{
    volatile UCHAR *Window = MmMapIoSpace(Screen, 16, MmNonCached);

    if (Window == NULL) {
        return;
    }
    Sink = Window[Wrong ? 16 : 15];
    MmUnmapIoSpace((PVOID)(ULONG_PTR)Window, 16);
}

static VOID BadContiguousFree(BOOLEAN Wrong)
{
    PUCHAR Block = MmAllocateContiguousMemory(2 * PAGE_SIZE, Highest);

    if (Block != NULL) {
        MmFreeContiguousMemory(Wrong ? Block + PAGE_SIZE : Block);
    }
}

NTKERNELAPI PVOID NTAPI MmAllocateContiguousNodeMemory(SIZE_T Bytes, PHYSICAL_ADDRESS Lowest, PHYSICAL_ADDRESS Highest,
                                                       PHYSICAL_ADDRESS Boundary, ULONG Protect, ULONG Node);

static VOID ContiguousProtection(BOOLEAN Wrong)
{
    PHYSICAL_ADDRESS None = {.QuadPart = 0};
    PVOID Block = MmAllocateContiguousNodeMemory(PAGE_SIZE, None, Highest, None, Wrong ? MmCached : PAGE_READWRITE, 0);

    if (Block != NULL) {
        MmFreeContiguousMemory(Block);
    }
}

static VOID ContiguousMemoryLeak(BOOLEAN Wrong)
{
    PVOID Block = MmAllocateContiguousMemory(PAGE_SIZE, Highest);

    if (!Wrong && Block != NULL) {
        MmFreeContiguousMemory(Block);
    }
}

static VOID ContiguousBoundary(BOOLEAN Wrong)
{
    PHYSICAL_ADDRESS Lowest = {.QuadPart = 0}, Boundary = {.QuadPart = Wrong ? 0x3000 : 0x4000};
    PVOID Block = MmAllocateContiguousMemorySpecifyCache(PAGE_SIZE, Lowest, Highest, Boundary, MmCached);

    if (Block != NULL) {
        MmFreeContiguousMemorySpecifyCache(Block, PAGE_SIZE, MmCached);
    }
}

static VOID ZeroBytes(BOOLEAN Wrong)
{
    PVOID Block = MmAllocateContiguousMemory(Wrong ? 0 : 1, Highest);

    if (Block != NULL) {
        MmFreeContiguousMemory(Block);
    }
}

static VOID PhysicalOfNothing(BOOLEAN Wrong)
{
    Sink = (ULONG)MmGetPhysicalAddress(Wrong ? (PVOID)0xFFFFF880DEAD0000 : (PVOID)&Sink).QuadPart;
}

static VOID PagingAddress(BOOLEAN Wrong)
{
    PVOID Handle = MmLockPagableDataSection(Wrong ? (PVOID)0xFFFFF880DEAD0000 : (PVOID)&Sink);

    MmUnlockPagableImageSection(Handle);
}

static VOID PagingUnlock(BOOLEAN Wrong)
{
    PVOID Handle = MmLockPagableDataSection((PVOID)&Sink);

    MmUnlockPagableImageSection(Handle);
    if (!Wrong) {
        MmLockPagableSectionByHandle(Handle);
    }
    MmUnlockPagableImageSection(Handle);
}

static PMDL ShownMdl;

static VOID NTAPI UnmapShown(PVOID Context)
{
    MmUnmapLockedPages(Context, ShownMdl);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static VOID NTAPI LeaveShown(PVOID Context)
{
    UNREFERENCED_PARAMETER(Context);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

/* Pool that is mapped for the application, unmapped in its context and in a system thread. */
static VOID UserMappingUnmappedElsewhere(BOOLEAN Wrong)
{
    PVOID Block = Nonpaged(PAGE_SIZE), User;
    PKTHREAD Thread;

    if (Block == NULL) {
        return;
    }
    ShownMdl = IoAllocateMdl(Block, PAGE_SIZE, FALSE, FALSE, NULL);
    if (ShownMdl == NULL) {
        Free(Block);
        return;
    }
    MmBuildMdlForNonPagedPool(ShownMdl);
    __try {
        User = MmMapLockedPagesSpecifyCache(ShownMdl, UserMode, MmCached, NULL, FALSE, NormalPagePriority);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        User = NULL;
    }
    if (User != NULL) {
        Thread = StartThread(Wrong ? UnmapShown : LeaveShown, User);
        if (Thread != NULL) {
            JoinThread(Thread);
        }
        if (!Wrong) {
            MmUnmapLockedPages(User, ShownMdl);
        }
    }
    IoFreeMdl(ShownMdl);
    Free(Block);
}

#define MAPPING_PAIRS                                                                                                  \
    PAIR("bad-contiguous-free", BadContiguousFree)                                                                     \
    PAIR("contiguous-boundary", ContiguousBoundary)                                                                    \
    PAIR("contiguous-memory-leak", ContiguousMemoryLeak)                                                               \
    PAIR("contiguous-protection", ContiguousProtection)                                                                \
    PAIR("device-access-past-mapping", DeviceAccessPastMapping)                                                        \
    PAIR("device-memory-not-mapped", DeviceMemoryNotMapped)                                                            \
    PAIR("io-space-leak", IoSpaceLeak)                                                                                 \
    PAIR("io-space-outside", IoSpaceOutside)                                                                           \
    PAIR("io-space-protection", IoSpaceProtection)                                                                     \
    PAIR("io-space-ram", IoSpaceRam)                                                                                   \
    PAIR("io-space-range", IoSpaceRange)                                                                               \
    PAIR("io-space-unmap", IoSpaceUnmap)                                                                               \
    PAIR("paging-address", PagingAddress)                                                                              \
    PAIR("paging-unlock", PagingUnlock)                                                                                \
    PAIR("physical-of-nothing", PhysicalOfNothing)                                                                     \
    PAIR("user-mapping-unmapped-elsewhere", UserMappingUnmappedElsewhere)                                              \
    PAIR("zero-bytes", ZeroBytes)

#endif

/* Pairs of MDLs. */
#ifndef PAIRS_MDL_H
#define PAIRS_MDL_H

#include "pairs.h"

/* An MDL of a block of paged pool, locked. */
static PMDL LockedPaged(PVOID *Block)
{
    PMDL Mdl;

    *Block = ExAllocatePoolWithTag(PagedPool, PAGE_SIZE, TAG);
    Mdl = IoAllocateMdl(*Block, PAGE_SIZE, FALSE, FALSE, NULL);
    MmProbeAndLockPages(Mdl, KernelMode, IoModifyAccess);
    return Mdl;
}

static PVOID MapSystem(PMDL Mdl)
{
    return MmMapLockedPagesSpecifyCache(Mdl, KernelMode, MmCached, NULL, FALSE,
                                        NormalPagePriority | 0x40000000 /* MdlMappingNoExecute */);
}

NTKERNELAPI NTSTATUS NTAPI MmProtectMdlSystemAddress(PMDL Mdl, ULONG NewProtect);

static VOID ExecutableMapping(BOOLEAN Wrong)
{
    PVOID Block;
    PMDL Mdl = LockedPaged(&Block);
    ULONG NoExecute = Wrong ? 0 : 0x40000000 /* MdlMappingNoExecute */;

    MmUnmapLockedPages(MmMapLockedPagesSpecifyCache(Mdl, KernelMode, MmCached, NULL, FALSE, NormalPagePriority | NoExecute), Mdl);
    MmUnlockPages(Mdl);
    IoFreeMdl(Mdl);
    Free(Block);
}

static VOID ExecutableProtection(BOOLEAN Wrong)
{
    PVOID Block, Mapped;
    PMDL Mdl = LockedPaged(&Block);

    Mapped = MapSystem(Mdl);
    MmProtectMdlSystemAddress(Mdl, Wrong ? PAGE_EXECUTE_READ : PAGE_READONLY);
    MmUnmapLockedPages(Mapped, Mdl);
    MmUnlockPages(Mdl);
    IoFreeMdl(Mdl);
    Free(Block);
}

static VOID FreedWhileLocked(BOOLEAN Wrong)
{
    PVOID Block;
    PMDL Mdl = LockedPaged(&Block);

    if (!Wrong) {
        MmUnlockPages(Mdl);
    }
    Free(Block);
    IoFreeMdl(Mdl);
}

static VOID MdlFreedLocked(BOOLEAN Wrong)
{
    PVOID Block;
    PMDL Mdl = LockedPaged(&Block);

    if (!Wrong) {
        MmUnlockPages(Mdl);
    }
    IoFreeMdl(Mdl);
    Free(Block);
}

static VOID LockedPagesLeak(BOOLEAN Wrong)
{
    PHYSICAL_ADDRESS Low = {.QuadPart = 0}, High = {.QuadPart = -1}, Skip = {.QuadPart = 0};
    PMDL Mdl = MmAllocatePagesForMdl(Low, High, Skip, PAGE_SIZE);

    if (!Wrong) {
        MmFreePagesFromMdl(Mdl);
    }
    ExFreePool(Mdl);
}

static VOID MdlFreedMapped(BOOLEAN Wrong)
{
    PHYSICAL_ADDRESS Low = {.QuadPart = 0}, High = {.QuadPart = -1}, Skip = {.QuadPart = 0};
    PMDL Mdl = MmAllocatePagesForMdl(Low, High, Skip, PAGE_SIZE);
    PVOID Mapped = MapSystem(Mdl);

    if (!Wrong) {
        MmUnmapLockedPages(Mapped, Mdl);
        MmFreePagesFromMdl(Mdl);
    }
    IoFreeMdl(Mdl);
}

static VOID MdlPagesFreedMapped(BOOLEAN Wrong)
{
    PHYSICAL_ADDRESS Low = {.QuadPart = 0}, High = {.QuadPart = -1}, Skip = {.QuadPart = 0};
    PMDL Mdl = MmAllocatePagesForMdl(Low, High, Skip, PAGE_SIZE);
    PVOID Mapped = MapSystem(Mdl);

    if (!Wrong) {
        MmUnmapLockedPages(Mapped, Mdl);
    }
    MmFreePagesFromMdl(Mdl);
    ExFreePool(Mdl);
}

static VOID MdlState(BOOLEAN Wrong)
{
    PVOID Block;
    PMDL Mdl = LockedPaged(&Block);

    MmUnlockPages(Mdl);
    if (!Wrong) {
        MmProbeAndLockPages(Mdl, KernelMode, IoModifyAccess);
    }
    MmUnlockPages(Mdl);
    IoFreeMdl(Mdl);
    Free(Block);
}

static VOID MdlWrongMapping(BOOLEAN Wrong)
{
    PVOID Block;
    PMDL Mdl = LockedPaged(&Block);
    PUCHAR Mapped = MapSystem(Mdl);

    MmUnmapLockedPages(Wrong ? Mapped + PAGE_SIZE : Mapped, Mdl);
    MmUnlockPages(Mdl);
    IoFreeMdl(Mdl);
    Free(Block);
}

static VOID MdlBuiltTwice(BOOLEAN Wrong)
{
    PVOID Block = Nonpaged(64);
    PMDL Mdl = IoAllocateMdl(Block, 64, FALSE, FALSE, NULL);

    MmBuildMdlForNonPagedPool(Mdl);
    if (!Wrong) {
        IoFreeMdl(Mdl);
        Mdl = IoAllocateMdl(Block, 64, FALSE, FALSE, NULL);
    }
    MmBuildMdlForNonPagedPool(Mdl);
    IoFreeMdl(Mdl);
    Free(Block);
}

static VOID MdlNotNonpaged(BOOLEAN Wrong)
{
    PVOID Block = ExAllocatePoolWithTag(Wrong ? PagedPool : NonPagedPoolNx, 64, TAG);
    PMDL Mdl = IoAllocateMdl(Block, 64, FALSE, FALSE, NULL);

    MmBuildMdlForNonPagedPool(Mdl);
    IoFreeMdl(Mdl);
    Free(Block);
}

static VOID MdlOfStack(BOOLEAN Wrong)
{
    static UCHAR Data[64];
    UCHAR Frame[64];
    PMDL Mdl = IoAllocateMdl(Wrong ? Frame : Data, 64, FALSE, FALSE, NULL);

    MmBuildMdlForNonPagedPool(Mdl);
    IoFreeMdl(Mdl);
}

static VOID PartialMdl(SIZE_T Target, SIZE_T Offset)
{
    PUCHAR Block = Nonpaged(4 * PAGE_SIZE);
    PMDL Source = IoAllocateMdl(Block, 4 * PAGE_SIZE, FALSE, FALSE, NULL);
    PMDL Part = IoAllocateMdl(Block, (ULONG)Target, FALSE, FALSE, NULL);

    MmBuildMdlForNonPagedPool(Source);
    IoBuildPartialMdl(Source, Part, Block + Offset, 2 * PAGE_SIZE);
    IoFreeMdl(Part);
    IoFreeMdl(Source);
    Free(Block);
}

static VOID MdlPartialOutside(BOOLEAN Wrong)
{
    PartialMdl(4 * PAGE_SIZE, Wrong ? 3 * PAGE_SIZE : 2 * PAGE_SIZE);
}

static VOID MdlTargetTooSmall(BOOLEAN Wrong)
{
    PartialMdl(Wrong ? PAGE_SIZE : 2 * PAGE_SIZE, PAGE_SIZE);
}

static VOID MdlNotRam(BOOLEAN Wrong)
{
    PVOID Block = Nonpaged(64), Mapped;
    PMDL Mdl = IoAllocateMdl(Block, 64, FALSE, FALSE, NULL);

    MmBuildMdlForNonPagedPool(Mdl);
    Mdl->MdlFlags &= ~MDL_SOURCE_IS_NONPAGED_POOL;
    Mdl->MdlFlags |= MDL_PAGES_LOCKED;
    Mdl->MdlFlags &= ~MDL_MAPPED_TO_SYSTEM_VA;
    if (Wrong) {
        *MmGetMdlPfnArray(Mdl) = 0xB8;
    }
    Mapped = MapSystem(Mdl);
    MmUnmapLockedPages(Mapped, Mdl);
    Mdl->MdlFlags &= ~MDL_PAGES_LOCKED;
    IoFreeMdl(Mdl);
    Free(Block);
}

/* The test has the machine find no room for the mapping. */
static VOID NoMoreSystemPtes(BOOLEAN Wrong)
{
    PVOID Block, Mapped;
    PMDL Mdl = LockedPaged(&Block);

    Mapped = MmMapLockedPagesSpecifyCache(Mdl, KernelMode, MmCached, NULL, Wrong, NormalPagePriority);
    if (Mapped != NULL) {
        MmUnmapLockedPages(Mapped, Mdl);
    }
    MmUnlockPages(Mdl);
    IoFreeMdl(Mdl);
    Free(Block);
}

#define MDL_PAIRS                                                                                                      \
    PAIR("executable-mapping", ExecutableMapping)                                                                      \
    PAIR("executable-protection", ExecutableProtection)                                                                \
    PAIR("freed-while-locked", FreedWhileLocked)                                                                       \
    PAIR("locked-pages-leak", LockedPagesLeak)                                                                         \
    PAIR("mdl-built-twice", MdlBuiltTwice)                                                                             \
    PAIR("mdl-freed-locked", MdlFreedLocked)                                                                           \
    PAIR("mdl-freed-mapped", MdlFreedMapped)                                                                           \
    PAIR("mdl-not-nonpaged", MdlNotNonpaged)                                                                           \
    PAIR("mdl-not-ram", MdlNotRam)                                                                                     \
    PAIR("mdl-of-stack", MdlOfStack)                                                                                   \
    PAIR("mdl-pages-freed-mapped", MdlPagesFreedMapped)                                                                \
    PAIR("mdl-partial-outside", MdlPartialOutside)                                                                     \
    PAIR("mdl-state", MdlState)                                                                                        \
    PAIR("mdl-target-too-small", MdlTargetTooSmall)                                                                    \
    PAIR("mdl-wrong-mapping", MdlWrongMapping)                                                                         \
    PAIR("no-more-system-ptes", NoMoreSystemPtes)

#endif

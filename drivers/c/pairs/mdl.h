/* Pairs of MDLs. */
#ifndef PAIRS_MDL_H
#define PAIRS_MDL_H

#include "pairs.h"

#define MAP_NO_EXECUTE 0x40000000 /* MdlMappingNoExecute */

/* An MDL of a new block of pool, neither built nor locked; NULL if there is none. */
static PMDL PoolMdl(POOL_TYPE Type, ULONG Bytes, PVOID *Block)
{
    PMDL Mdl = NULL;

    *Block = ExAllocatePoolWithTag(Type, Bytes, TAG);
    if (*Block != NULL) {
        Mdl = IoAllocateMdl(*Block, Bytes, FALSE, FALSE, NULL);
        if (Mdl == NULL) {
            Free(*Block);
        }
    }
    return Mdl;
}

static VOID FreePoolMdl(PMDL Mdl, PVOID Block)
{
    IoFreeMdl(Mdl);
    Free(Block);
}

/* An MDL of a page of paged pool, locked; NULL if there is none. */
static PMDL LockedPaged(PVOID *Block)
{
    PMDL Mdl = PoolMdl(PagedPool, PAGE_SIZE, Block);

    if (Mdl != NULL) {
        MmProbeAndLockPages(Mdl, KernelMode, IoModifyAccess);
    }
    return Mdl;
}

static VOID FreeLockedPaged(PMDL Mdl, PVOID Block)
{
    MmUnlockPages(Mdl);
    FreePoolMdl(Mdl, Block);
}

/* An MDL of a page that has no address yet; NULL if there is none. */
static PMDL PageMdl(VOID)
{
    PHYSICAL_ADDRESS Low = {.QuadPart = 0}, High = {.QuadPart = -1}, Skip = {.QuadPart = 0};

    return MmAllocatePagesForMdl(Low, High, Skip, PAGE_SIZE);
}

static PVOID MapSystem(PMDL Mdl)
{
    return MmMapLockedPagesSpecifyCache(Mdl, KernelMode, MmCached, NULL, FALSE, NormalPagePriority | MAP_NO_EXECUTE);
}

NTKERNELAPI NTSTATUS NTAPI MmProtectMdlSystemAddress(PMDL Mdl, ULONG NewProtect);

/* Maps a locked page, and takes that back. */
static VOID MapOnce(ULONG BugCheckOnFailure, ULONG NoExecute)
{
    PVOID Block, Mapped;
    PMDL Mdl = LockedPaged(&Block);

    if (Mdl == NULL) {
        return;
    }
    Mapped = MmMapLockedPagesSpecifyCache(Mdl, KernelMode, MmCached, NULL, BugCheckOnFailure, NormalPagePriority | NoExecute);
    if (Mapped != NULL) {
        MmUnmapLockedPages(Mapped, Mdl);
    }
    FreeLockedPaged(Mdl, Block);
}

static VOID ExecutableMapping(BOOLEAN Wrong)
{
    MapOnce(FALSE, Wrong ? 0 : MAP_NO_EXECUTE);
}

static VOID ExecutableProtection(BOOLEAN Wrong)
{
    PVOID Block, Mapped;
    PMDL Mdl = LockedPaged(&Block);

    if (Mdl == NULL) {
        return;
    }
    Mapped = MapSystem(Mdl);
    if (Mapped != NULL) {
        MmProtectMdlSystemAddress(Mdl, Wrong ? PAGE_EXECUTE_READ : PAGE_READONLY);
        MmUnmapLockedPages(Mapped, Mdl);
    }
    FreeLockedPaged(Mdl, Block);
}

static VOID FreedWhileLocked(BOOLEAN Wrong)
{
    PVOID Block;
    PMDL Mdl = LockedPaged(&Block);

    if (Mdl == NULL) {
        return;
    }
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

    if (Mdl == NULL) {
        return;
    }
    if (!Wrong) {
        MmUnlockPages(Mdl);
    }
    FreePoolMdl(Mdl, Block);
}

static VOID LockedPagesLeak(BOOLEAN Wrong)
{
    PMDL Mdl = PageMdl();

    if (Mdl == NULL) {
        return;
    }
    if (!Wrong) {
        MmFreePagesFromMdl(Mdl);
    }
    ExFreePool(Mdl);
}

static VOID MdlFreedMapped(BOOLEAN Wrong)
{
    PMDL Mdl = PageMdl();
    PVOID Mapped;

    if (Mdl == NULL) {
        return;
    }
    Mapped = MapSystem(Mdl);
    if (Mapped != NULL && !Wrong) {
        MmUnmapLockedPages(Mapped, Mdl);
    }
    if (Mapped == NULL || !Wrong) {
        MmFreePagesFromMdl(Mdl);
    }
    IoFreeMdl(Mdl);
}

static VOID MdlPagesFreedMapped(BOOLEAN Wrong)
{
    PMDL Mdl = PageMdl();
    PVOID Mapped;

    if (Mdl == NULL) {
        return;
    }
    Mapped = MapSystem(Mdl);
    if (Mapped != NULL && !Wrong) {
        MmUnmapLockedPages(Mapped, Mdl);
    }
    MmFreePagesFromMdl(Mdl);
    ExFreePool(Mdl);
}

static VOID MdlState(BOOLEAN Wrong)
{
    PVOID Block;
    PMDL Mdl = LockedPaged(&Block);

    if (Mdl == NULL) {
        return;
    }
    MmUnlockPages(Mdl);
    if (!Wrong) {
        MmProbeAndLockPages(Mdl, KernelMode, IoModifyAccess);
    }
    FreeLockedPaged(Mdl, Block);
}

static VOID MdlWrongMapping(BOOLEAN Wrong)
{
    PVOID Block;
    PMDL Mdl = LockedPaged(&Block);
    PUCHAR Mapped;

    if (Mdl == NULL) {
        return;
    }
    Mapped = MapSystem(Mdl);
    if (Mapped != NULL) {
        MmUnmapLockedPages(Wrong ? Mapped + PAGE_SIZE : Mapped, Mdl);
    }
    FreeLockedPaged(Mdl, Block);
}

static VOID MdlBuiltTwice(BOOLEAN Wrong)
{
    PVOID Block;
    PMDL Mdl = PoolMdl(NonPagedPoolNx, 64, &Block);

    if (Mdl == NULL) {
        return;
    }
    MmBuildMdlForNonPagedPool(Mdl);
    if (!Wrong) {
        FreePoolMdl(Mdl, Block);
        Mdl = PoolMdl(NonPagedPoolNx, 64, &Block);
    }
    if (Mdl != NULL) {
        MmBuildMdlForNonPagedPool(Mdl);
        FreePoolMdl(Mdl, Block);
    }
}

static VOID MdlNotNonpaged(BOOLEAN Wrong)
{
    PVOID Block;
    PMDL Mdl = PoolMdl(Wrong ? PagedPool : NonPagedPoolNx, 64, &Block);

    if (Mdl != NULL) {
        MmBuildMdlForNonPagedPool(Mdl);
        FreePoolMdl(Mdl, Block);
    }
}

static VOID MdlOfStack(BOOLEAN Wrong)
{
    static UCHAR Data[64];
    UCHAR Frame[64];
    PMDL Mdl = IoAllocateMdl(Wrong ? Frame : Data, 64, FALSE, FALSE, NULL);

    if (Mdl != NULL) {
        MmBuildMdlForNonPagedPool(Mdl);
        IoFreeMdl(Mdl);
    }
}

static VOID PartialMdl(ULONG Target, SIZE_T Offset)
{
    PVOID Block;
    PMDL Source = PoolMdl(NonPagedPoolNx, 4 * PAGE_SIZE, &Block), Part;

    if (Source == NULL) {
        return;
    }
    Part = IoAllocateMdl(Block, Target, FALSE, FALSE, NULL);
    if (Part != NULL) {
        MmBuildMdlForNonPagedPool(Source);
        IoBuildPartialMdl(Source, Part, (PUCHAR)Block + Offset, 2 * PAGE_SIZE);
        IoFreeMdl(Part);
    }
    FreePoolMdl(Source, Block);
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
    PVOID Block, Mapped;
    PMDL Mdl = LockedPaged(&Block);

    if (Mdl == NULL) {
        return;
    }
    if (Wrong) {
        *MmGetMdlPfnArray(Mdl) = 0xB8;
    }
    Mapped = MapSystem(Mdl);
    if (Mapped != NULL) {
        MmUnmapLockedPages(Mapped, Mdl);
    }
    FreeLockedPaged(Mdl, Block);
}

static VOID MdlRebuiltMapped(BOOLEAN Wrong)
{
    PVOID Block;
    PMDL Whole = PoolMdl(PagedPool, 2 * PAGE_SIZE, &Block), Part;

    if (Whole == NULL) {
        return;
    }
    MmProbeAndLockPages(Whole, KernelMode, IoModifyAccess);
    Part = IoAllocateMdl(Block, PAGE_SIZE, FALSE, FALSE, NULL);
    if (Part != NULL) {
        IoBuildPartialMdl(Whole, Part, Block, PAGE_SIZE);
        if (MapSystem(Part) != NULL && !Wrong) {
            MmPrepareMdlForReuse(Part);
        }
        IoBuildPartialMdl(Whole, Part, (PUCHAR)Block + PAGE_SIZE, PAGE_SIZE);
        IoFreeMdl(Part);
    }
    FreeLockedPaged(Whole, Block);
}

/* The test has the machine find no room for the mapping. */
static VOID NoMoreSystemPtes(BOOLEAN Wrong)
{
    MapOnce(Wrong, MAP_NO_EXECUTE);
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
    PAIR("mdl-rebuilt-mapped", MdlRebuiltMapped)                                                                       \
    PAIR("mdl-state", MdlState)                                                                                        \
    PAIR("mdl-target-too-small", MdlTargetTooSmall)                                                                    \
    PAIR("mdl-wrong-mapping", MdlWrongMapping)                                                                         \
    PAIR("no-more-system-ptes", NoMoreSystemPtes)

#endif

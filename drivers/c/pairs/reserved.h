/* Pairs of reserved addresses. */
#ifndef PAIRS_RESERVED_H
#define PAIRS_RESERVED_H

#include "pairs.h"

static VOID ReservedMapping(BOOLEAN Wrong)
{
    PVOID Range = MmAllocateMappingAddress(PAGE_SIZE, TAG), Block = Nonpaged(PAGE_SIZE);
    PMDL Mdl = IoAllocateMdl(Block, PAGE_SIZE, FALSE, FALSE, NULL);

    MmProbeAndLockPages(Mdl, KernelMode, IoModifyAccess);
    MmMapLockedPagesWithReservedMapping(Range, TAG, Mdl, MmCached);
    if (!Wrong) {
        MmUnmapReservedMapping(Range, TAG, Mdl);
    }
    MmFreeMappingAddress(Range, TAG);
    MmUnlockPages(Mdl);
    IoFreeMdl(Mdl);
    Free(Block);
}

static VOID ReservedMappingLeak(BOOLEAN Wrong)
{
    PVOID Range = MmAllocateMappingAddress(PAGE_SIZE, TAG);

    if (!Wrong) {
        MmFreeMappingAddress(Range, TAG);
    }
}

#define RESERVED_PAIRS                                                                                                 \
    PAIR("reserved-mapping", ReservedMapping)                                                                          \
    PAIR("reserved-mapping-leak", ReservedMappingLeak)

#endif

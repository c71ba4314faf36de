/* Pairs of reserved addresses. */
#ifndef PAIRS_RESERVED_H
#define PAIRS_RESERVED_H

#include "mdl.h"

static VOID ReservedMapping(BOOLEAN Wrong)
{
    PVOID Range = MmAllocateMappingAddress(PAGE_SIZE, TAG), Block;
    PMDL Mdl;

    if (Range == NULL) {
        return;
    }
    Mdl = LockedPaged(&Block);
    if (Mdl != NULL && MmMapLockedPagesWithReservedMapping(Range, TAG, Mdl, MmCached) != NULL && !Wrong) {
        MmUnmapReservedMapping(Range, TAG, Mdl);
    }
    MmFreeMappingAddress(Range, TAG);
    if (Mdl != NULL) {
        FreeLockedPaged(Mdl, Block);
    }
}

static VOID ReservedMappingLeak(BOOLEAN Wrong)
{
    PVOID Range = MmAllocateMappingAddress(PAGE_SIZE, TAG);

    if (Range != NULL && !Wrong) {
        MmFreeMappingAddress(Range, TAG);
    }
}

#define RESERVED_PAIRS                                                                                                 \
    PAIR("reserved-mapping", ReservedMapping)                                                                          \
    PAIR("reserved-mapping-leak", ReservedMappingLeak)

#endif

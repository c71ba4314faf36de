/* Pairs of zones. */
#ifndef PAIRS_ZONES_H
#define PAIRS_ZONES_H

#include "pairs.h"

static VOID ZoneBlockSize(BOOLEAN Wrong)
{
    PZONE_HEADER Zone = Nonpaged(sizeof(*Zone));
    PUCHAR Segments;

    if (Zone == NULL) {
        return;
    }
    Segments = Nonpaged(1024);
    if (Segments != NULL) {
        if (NT_SUCCESS(ExInitializeZone(Zone, 64, Segments, 512))) {
            if (Wrong) {
                Zone->BlockSize = 0;
            }
            ExExtendZone(Zone, Segments + 512, 512);
        }
        Free(Segments);
    }
    Free(Zone);
}

#define ZONE_PAIRS PAIR("zone-block-size", ZoneBlockSize)

#endif

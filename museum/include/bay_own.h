/*
 * What the drivers of the cards of our own share: the windows, and which interrupt there is.
 */
#pragma once
#include "bay_frame.h"

typedef struct AF_OWN {
    AF_DEVICE af;
    PUCHAR regs, window;                        /* the first and the second memory resource */
    ULONG regsLength, windowLength;
    CM_PARTIAL_RESOURCE_DESCRIPTOR line;        /* Type CmResourceTypeNull: none */
} AF_OWN;

static inline void AfOwnUnmap(AF_OWN *own)
{
    if (own->window)
        MmUnmapIoSpace(own->window, own->windowLength);
    if (own->regs)
        MmUnmapIoSpace(own->regs, own->regsLength);
    own->window = own->regs = NULL;
    own->windowLength = own->regsLength = 0;
}

/* Register 0 identifies the card; both windows are at least as long as said (0 for the second: not needed). */
static inline NTSTATUS AfOwnMap(AF_OWN *own, CM_PARTIAL_RESOURCE_LIST *list, ULONG regs, ULONG window)
{
    CM_PARTIAL_RESOURCE_DESCRIPTOR *at = list->PartialDescriptors;
    NTSTATUS status = STATUS_INSUFFICIENT_RESOURCES;
    ULONG left;

    RtlZeroMemory(&own->line, sizeof own->line);
    for (left = list->Count; left; --left, ++at) {
        if (at->Type == CmResourceTypeInterrupt && own->line.Type == CmResourceTypeNull) {
            own->line = *at;
        } else if (at->Type == CmResourceTypeMemory && !own->regs) {
            own->regs = MmMapIoSpace(at->u.Memory.Start, at->u.Memory.Length, MmNonCached);
            if (!own->regs)
                goto unmap;
            own->regsLength = at->u.Memory.Length;
        } else if (at->Type == CmResourceTypeMemory && window && !own->window) {
            own->window = MmMapIoSpace(at->u.Memory.Start, at->u.Memory.Length, MmNonCached);
            if (!own->window)
                goto unmap;
            own->windowLength = at->u.Memory.Length;
        }
    }
    status = STATUS_DEVICE_CONFIGURATION_ERROR;
    if (own->regsLength < regs || own->windowLength < window)
        goto unmap;
    status = STATUS_DEVICE_DOES_NOT_EXIST;
    if (AfRead32(own->regs, 0) != 0xFFFFFFFF)
        return STATUS_SUCCESS;
unmap:
    AfOwnUnmap(own);
    return status;
}

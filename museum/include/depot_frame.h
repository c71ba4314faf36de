/* frame.h: what the drivers of this collection have in common.
 *
 *   siding.h   a cancel-safe queue
 *   kiosk.h    a driver with nothing but a control device
 *   depot.h    a function driver: Plug and Play, power, a gate in front of the driver's own routines
 *   chart.h    resources: windows on registers, interrupts
 *   plx.h      the PLX PCI 9052
 */
#ifndef AB_FRAME_H
#define AB_FRAME_H

#include <ddk/wdm.h>

#ifndef MdlMappingNoExecute
#define MdlMappingNoExecute 0x40000000
#endif

static inline VOID IrpEnd(PIRP irp, NTSTATUS st, ULONG_PTR info)
{
    irp->IoStatus.Status = st;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
}

static inline PIO_STACK_LOCATION IrpHere(PIRP irp)
{
    return IoGetCurrentIrpStackLocation(irp);
}

/* The pages of a direct request, where the kernel sees them; NULL if there is no room in the page tables. */
static inline PVOID IrpPages(PIRP irp)
{
    return MmGetSystemAddressForMdlSafe(irp->MdlAddress, NormalPagePriority | MdlMappingNoExecute);
}

static inline PVOID Alloc(SIZE_T bytes, ULONG tag)
{
    PVOID p = ExAllocatePoolWithTag(NonPagedPoolNx, bytes, tag);

    if (p != NULL)
        RtlZeroMemory(p, bytes);
    return p;
}

#include "depot_queue.h"
#include "depot_kiosk.h"
#include "depot_device.h"
#include "depot_windows.h"
#include "depot_plx.h"

#endif

/*
 * frame.h: what the drivers of this folder share. Three small parts, each of which stands alone:
 *   lane.h   requests that wait, and the one that the hardware works on: both can be cancelled at any time
 *   soft.h   a control device, made in DriverEntry
 *   plug.h   a device of the Plug and Play manager: start, stop, removal, power
 */
#ifndef UU_FRAME_H
#define UU_FRAME_H

#include <ddk/wdm.h>

#define UU_SHARED static __attribute__((unused))
#define UU_TAG(a, b, c, d) ((ULONG)(a) | (ULONG)(b) << 8 | (ULONG)(c) << 16 | (ULONG)(d) << 24)

UU_SHARED NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Bytes)
{
	Irp->IoStatus.Status = Status;
	Irp->IoStatus.Information = Bytes;
	IoCompleteRequest(Irp, IO_NO_INCREMENT);
	return Status;
}

#include "stall_lane.h"
#include "stall_soft.h"
#include "stall_plug.h"

#endif

/* The frame of set VV: gates and queues, the PnP and power frame ("board"), the control device frame ("desk"). */
#ifndef VV_FRAME
#define VV_FRAME
#include <ddk/wdm.h>

#define ANY __attribute__((unused)) static
#define POOL_DATA ((POOL_TYPE)512)          /* NonPagedPoolNx */

NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);

/* Ends a request; it must not be touched afterwards. */
ANY NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

ANY VOID Nap(LONG Milliseconds)
{
    LARGE_INTEGER t;

    t.QuadPart = -10000LL * Milliseconds;
    KeDelayExecutionThread(KernelMode, FALSE, &t);
}

#include "run_gate.h"
#include "file_queue.h"
#include "gated_board.h"
#include "desk_control.h"
#endif

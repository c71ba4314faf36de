/*
 * pbxline: the lines of a private branch exchange on a root-enumerated device: RING keeps a request waiting on a line
 * until ANSWER picks it up, its time is over, or the caller hangs up (cancels).
 *
 * The bug: the time-out DPC ignores what IoSetCancelRoutine returns and completes a request whose cancel routine is
 * already running.
 *
 * Device: ROOT\PBXLINE
 * Rule: use-after-free, double-completion
 * Needs: cancel, schedule
 */
#include <ddk/wdm.h>
#include "../include/mapped_device.h"

#define IOCTL_LINE_RING   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x890, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_LINE_ANSWER CTL_CODE(FILE_DEVICE_UNKNOWN, 0x891, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define LINES 8

static const GUID LineInterface = { 0x5d1c0a11, 0x7a52, 0x4b0e, { 0x91, 0x0c, 0x35, 0x1e, 0x28, 0x66, 0x10, 0x04 } };

typedef struct LINE_RING { ULONG Line, TimeoutMs; } LINE_RING;          /* in; out: the answerer's number */
typedef struct LINE_ANSWER { ULONG Line, Number; } LINE_ANSWER;

struct DEV;

typedef struct LINE {
    struct DEV *Dev;
    PIRP Ringing;               /* under HwLock */
    KTIMER Timer;
    KDPC Dpc;
} LINE;

typedef struct DEV {
    FDO F;
    LINE Lines[LINES];
} DEV;

/* Completes a request that was waiting and gives back its reference. */
static VOID LineFinish(DEV *d, PIRP irp, NTSTATUS status, ULONG_PTR info)
{
    FdoComplete(irp, status, info);
    IoReleaseRemoveLock(&d->F.RemoveLock, d);
}

/* Under HwLock: the line's request, for the caller to complete; NULL if none or if its cancel routine has it. */
static PIRP LineTake(LINE *line)
{
    PIRP irp = line->Ringing;

    if (!irp || !IoSetCancelRoutine(irp, NULL))
        return NULL;
    line->Ringing = NULL;
    KeCancelTimer(&line->Timer);
    return irp;
}

static VOID NTAPI LineCancel(PDEVICE_OBJECT dev, PIRP irp)
{
    DEV *d = dev->DeviceExtension;
    ULONG i;
    KIRQL irql;

    IoReleaseCancelSpinLock(irp->CancelIrql);
    KeAcquireSpinLock(&d->F.HwLock, &irql);
    for (i = 0; i < LINES; i++)
        if (d->Lines[i].Ringing == irp) {
            d->Lines[i].Ringing = NULL;
            KeCancelTimer(&d->Lines[i].Timer);
        }
    KeReleaseSpinLock(&d->F.HwLock, irql);
    LineFinish(d, irp, STATUS_CANCELLED, 0);
}

static VOID NTAPI LineTimeout(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    LINE *line = context;
    DEV *d = line->Dev;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&d->F.HwLock);
    if (KeReadStateTimer(&line->Timer)) {       /* otherwise it has been set for another call */
#ifdef FIXED
        irp = LineTake(line);
#else
        irp = line->Ringing;
        if (irp) {
            IoSetCancelRoutine(irp, NULL);
            line->Ringing = NULL;
        }
#endif
    }
    KeReleaseSpinLockFromDpcLevel(&d->F.HwLock);
    if (irp)
        LineFinish(d, irp, STATUS_IO_TIMEOUT, 0);
}

static NTSTATUS LineRing(DEV *d, PIRP irp, const LINE_RING *ring)
{
    LINE *line = &d->Lines[ring->Line];
    LARGE_INTEGER due = { .QuadPart = -10000LL * ring->TimeoutMs };
    KIRQL irql;
    NTSTATUS status = IoAcquireRemoveLock(&d->F.RemoveLock, d);     /* for the waiting request */

    if (!NT_SUCCESS(status))
        return status;
    KeAcquireSpinLock(&d->F.HwLock, &irql);
    if (!d->F.Live)
        status = STATUS_DEVICE_NOT_READY;
    else if (line->Ringing)
        status = STATUS_DEVICE_BUSY;
    if (NT_SUCCESS(status)) {
        IoSetCancelRoutine(irp, LineCancel);
        if (irp->Cancel && IoSetCancelRoutine(irp, NULL)) {
            status = STATUS_CANCELLED;
        } else {
            IoMarkIrpPending(irp);              /* no routine completes it before the lock is free */
            line->Ringing = irp;
            KeSetTimer(&line->Timer, due, &line->Dpc);
            status = STATUS_PENDING;
        }
    }
    KeReleaseSpinLock(&d->F.HwLock, irql);
    if (status != STATUS_PENDING)
        IoReleaseRemoveLock(&d->F.RemoveLock, d);
    return status;
}

static NTSTATUS LineRequest(FDO *f, PIRP irp, PIO_STACK_LOCATION sp)
{
    DEV *d = (DEV *)f;
    ULONG in, out;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    in = sp->Parameters.DeviceIoControl.InputBufferLength;
    out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_LINE_RING: {
        LINE_RING ring;
        if (in < sizeof(ring))
            return STATUS_INVALID_PARAMETER;
        if (out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        ring = *(LINE_RING *)irp->AssociatedIrp.SystemBuffer;
        if (ring.Line >= LINES || ring.TimeoutMs == 0 || ring.TimeoutMs > 600000)
            return STATUS_INVALID_PARAMETER;
        return LineRing(d, irp, &ring);
    }
    case IOCTL_LINE_ANSWER: {
        LINE_ANSWER answer;
        PIRP caller;
        KIRQL irql;
        if (in < sizeof(answer))
            return STATUS_INVALID_PARAMETER;
        answer = *(LINE_ANSWER *)irp->AssociatedIrp.SystemBuffer;
        if (answer.Line >= LINES)
            return STATUS_INVALID_PARAMETER;
        KeAcquireSpinLock(&f->HwLock, &irql);
        caller = LineTake(&d->Lines[answer.Line]);
        KeReleaseSpinLock(&f->HwLock, irql);
        if (!caller)
            return STATUS_NOT_FOUND;
        *(ULONG *)caller->AssociatedIrp.SystemBuffer = answer.Number;
        LineFinish(d, caller, STATUS_SUCCESS, sizeof(ULONG));
        return STATUS_SUCCESS;
    }
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

/* No call comes in any more when file is NULL: the device is no longer live then. */
static VOID LineFlush(FDO *f, PFILE_OBJECT file)
{
    DEV *d = (DEV *)f;
    ULONG i;

    for (i = 0; i < LINES; i++) {
        LINE *line = &d->Lines[i];
        PIRP irp = NULL;
        KIRQL irql;

        KeAcquireSpinLock(&f->HwLock, &irql);
        if (line->Ringing && (!file || IoGetCurrentIrpStackLocation(line->Ringing)->FileObject == file))
            irp = LineTake(line);
        KeReleaseSpinLock(&f->HwLock, irql);
        if (irp)
            LineFinish(d, irp, file ? STATUS_CANCELLED : STATUS_DEVICE_NOT_CONNECTED, 0);
    }
}

static NTSTATUS LineInit(FDO *f)
{
    DEV *d = (DEV *)f;
    ULONG i;

    for (i = 0; i < LINES; i++) {
        d->Lines[i].Dev = d;
        KeInitializeTimer(&d->Lines[i].Timer);
        KeInitializeDpc(&d->Lines[i].Dpc, LineTimeout, &d->Lines[i]);
    }
    return STATUS_SUCCESS;
}

/* No request waits any more, and so no timer is set; but a DPC may still be on its way. */
static VOID LineFree(FDO *f)
{
    UNREFERENCED_PARAMETER(f);
    KeFlushQueuedDpcs();
}

static NTSTATUS LineMap(FDO *f, PCM_RESOURCE_LIST list)
{
    UNREFERENCED_PARAMETER(f);
    UNREFERENCED_PARAMETER(list);
    return STATUS_SUCCESS;
}

static VOID LineNothing(FDO *f)
{
    UNREFERENCED_PARAMETER(f);
}

static VOID LineQuiet(FDO *f, BOOLEAN present)
{
    UNREFERENCED_PARAMETER(f);
    UNREFERENCED_PARAMETER(present);
}

static const FDO_HOOKS Hooks = {
    sizeof(DEV), DO_BUFFERED_IO, &LineInterface,
    LineInit, LineFree, LineMap, LineNothing, LineNothing, LineQuiet, LineFlush, LineRequest, NULL
};

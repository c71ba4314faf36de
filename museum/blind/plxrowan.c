/*
 * plxrowan: waiting for a board behind a PLX PCI 9052. The board pulses LINTi1; each program that waits is informed the number of the pulse,
 * and one that has seen an earlier one than the latest is informed at once.
 *
 * The bug: a request that is cancelled before its cancel routine is set is put into the list of those that wait all the same, as no one
 * looks at Irp->Cancel behind IoSetCancelRoutine. It stays there until the board pulses.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: cancellation-missed, irp-never-completed, request-forgotten
 * Needs: ioctl, cancel, schedule
 */
#include <ddk/wdm.h>
#include "../include/duty_frame.h"
#include "../include/duty_plx.h"

static const GUID RowanFace = { 0x0fd84c37, 0xb51e, 0x46f9, { 0x81, 0xa8, 0x9c, 0x62, 0x3e, 0xd7, 0x40, 0x5b } };

#define IOCTL_ROWAN_WAIT   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8c8, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_ROWAN_LATEST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8c9, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _ROWAN {
    STATION St;
    KSPIN_LOCK Lock;            /* of the following */
    LIST_ENTRY Waiting;
    BOOLEAN Shut;
    BOOLEAN Ready;
    BOOLEAN Mapped;
    ULONG Latest;
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    BOOLEAN Armed;              /* under the interrupt's lock */
    LONG volatile Pulses;
    KDPC Dpc;
} ROWAN;

static BOOLEAN NTAPI RowanIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    ROWAN *r = Context;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!r->Armed || !plx_edge(r->Regs))
        return FALSE;
    InterlockedIncrement(&r->Pulses);
    KeInsertQueueDpc(&r->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI RowanArm(PVOID Context)
{
    ROWAN *r = Context;

    plx_edge_on(r->Regs);
    r->Armed = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI RowanDisarm(PVOID Context)
{
    ROWAN *r = Context;

    plx_edge_off(r->Regs);
    r->Armed = FALSE;
    return TRUE;
}

static VOID RowanFinish(ROWAN *r, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    desk_reply(Irp, Status, Information);
    IoReleaseRemoveLock(&r->St.Hold, Irp);
}

static VOID NTAPI RowanCancel(PDEVICE_OBJECT Device, PIRP Irp)
{
    ROWAN *r = Device->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&r->Lock, &irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&r->Lock, irql);
    RowanFinish(r, Irp, STATUS_CANCELLED, 0);
}

/* The first that waits, of File if there is one, and is not about to be cancelled; the caller's from here on. */
static PIRP RowanPop(ROWAN *r, PFILE_OBJECT File)
{
    PLIST_ENTRY e, next;
    PIRP found = NULL;
    KIRQL irql;

    KeAcquireSpinLock(&r->Lock, &irql);
    for (e = r->Waiting.Flink; e != &r->Waiting && found == NULL; e = next) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        next = e->Flink;
        if (File != NULL && IoGetCurrentIrpStackLocation(irp)->FileObject != File)
            continue;
        RemoveEntryList(e);
        if (IoSetCancelRoutine(irp, NULL) != NULL)
            found = irp;
        else
            InitializeListHead(e);      /* the cancel routine is on its way, and takes it out once more */
    }
    KeReleaseSpinLock(&r->Lock, irql);
    return found;
}

static VOID RowanEnd(ROWAN *r, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP irp;

    while ((irp = RowanPop(r, File)) != NULL)
        RowanFinish(r, irp, Status, 0);
}

/* Waits for a pulse behind number Seen. */
static NTSTATUS RowanWait(ROWAN *r, PIRP Irp, ULONG Seen)
{
    NTSTATUS status = IoAcquireRemoveLock(&r->St.Hold, Irp);
    KIRQL irql;

    if (!NT_SUCCESS(status))
        return status;
    KeAcquireSpinLock(&r->Lock, &irql);
    if (r->Shut || (LONG)(r->Latest - Seen) > 0) {
        status = r->Shut ? STATUS_NO_SUCH_DEVICE : STATUS_SUCCESS;
        if (NT_SUCCESS(status)) {
            *(ULONG *)Irp->AssociatedIrp.SystemBuffer = r->Latest;
            Irp->IoStatus.Information = sizeof(ULONG);
        }
        KeReleaseSpinLock(&r->Lock, irql);
        IoReleaseRemoveLock(&r->St.Hold, Irp);
        return status;
    }
    IoMarkIrpPending(Irp);
    IoSetCancelRoutine(Irp, RowanCancel);
#ifdef FIXED
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
        KeReleaseSpinLock(&r->Lock, irql);
        RowanFinish(r, Irp, STATUS_CANCELLED, 0);
        return STATUS_PENDING;
    }
#endif
    InsertTailList(&r->Waiting, &Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&r->Lock, irql);
    return STATUS_PENDING;
}

static VOID NTAPI RowanDpc(PKDPC Dpc, PVOID Context, PVOID A, PVOID B)
{
    ROWAN *r = Context;
    LIST_ENTRY informed;
    PLIST_ENTRY e, next;
    ULONG latest;
    KIRQL irql;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A);
    UNREFERENCED_PARAMETER(B);
    InitializeListHead(&informed);
    KeAcquireSpinLock(&r->Lock, &irql);
    r->Latest += (ULONG)InterlockedExchange(&r->Pulses, 0);
    latest = r->Latest;
    for (e = r->Waiting.Flink; e != &r->Waiting; e = next) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        next = e->Flink;
        if ((LONG)(latest - *(ULONG *)irp->AssociatedIrp.SystemBuffer) <= 0)
            continue;                   /* waits for one that is still to come */
        RemoveEntryList(e);
        if (IoSetCancelRoutine(irp, NULL) != NULL)
            InsertTailList(&informed, e);
        else
            InitializeListHead(e);
    }
    KeReleaseSpinLock(&r->Lock, irql);
    while (!IsListEmpty(&informed)) {
        PIRP irp = CONTAINING_RECORD(RemoveHeadList(&informed), IRP, Tail.Overlay.ListEntry);

        *(ULONG *)irp->AssociatedIrp.SystemBuffer = latest;
        RowanFinish(r, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static NTSTATUS RowanPrepare(STATION *St)
{
    ROWAN *r = CONTAINING_RECORD(St, ROWAN, St);

    KeInitializeSpinLock(&r->Lock);
    InitializeListHead(&r->Waiting);
    KeInitializeDpc(&r->Dpc, RowanDpc, r);
    return STATUS_SUCCESS;
}

static VOID RowanWake(STATION *St)
{
    ROWAN *r = CONTAINING_RECORD(St, ROWAN, St);
    KIRQL irql;

    KeAcquireSpinLock(&r->Lock, &irql);
    if (r->Mapped) {
        KeSynchronizeExecution(r->Interrupt, RowanArm, r);
        r->Ready = TRUE;
    }
    KeReleaseSpinLock(&r->Lock, irql);
}

static VOID RowanSleep(STATION *St)
{
    ROWAN *r = CONTAINING_RECORD(St, ROWAN, St);
    KIRQL irql;

    KeAcquireSpinLock(&r->Lock, &irql);
    if (r->Ready)
        KeSynchronizeExecution(r->Interrupt, RowanDisarm, r);
    r->Ready = FALSE;
    KeReleaseSpinLock(&r->Lock, irql);
}

static NTSTATUS RowanEngage(STATION *St, PCM_RESOURCE_LIST Translated)
{
    ROWAN *r = CONTAINING_RECORD(St, ROWAN, St);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d = station_resource(Translated, CmResourceTypeInterrupt, 0);
    NTSTATUS status;
    KIRQL irql;

    if (d == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    status = plx_map(Translated, &r->Regs);
    if (!NT_SUCCESS(status))
        return status;
    status = station_connect(d, RowanIsr, r, &r->Interrupt);
    if (!NT_SUCCESS(status)) {
        MmUnmapIoSpace(r->Regs, PLX_BYTES);
        r->Regs = NULL;
        return status;
    }
    KeAcquireSpinLock(&r->Lock, &irql);
    r->Mapped = TRUE;
    KeReleaseSpinLock(&r->Lock, irql);
    RowanWake(St);
    return STATUS_SUCCESS;
}

static VOID RowanRelease(STATION *St, BOOLEAN Present)
{
    ROWAN *r = CONTAINING_RECORD(St, ROWAN, St);
    KIRQL irql;

    KeAcquireSpinLock(&r->Lock, &irql);
    if (r->Ready && Present)
        KeSynchronizeExecution(r->Interrupt, RowanDisarm, r);
    r->Ready = FALSE;
    r->Mapped = FALSE;
    KeReleaseSpinLock(&r->Lock, irql);
    IoDisconnectInterrupt(r->Interrupt);
    r->Interrupt = NULL;
    r->Armed = FALSE;
    KeFlushQueuedDpcs();
    MmUnmapIoSpace(r->Regs, PLX_BYTES);
    r->Regs = NULL;
}

static VOID RowanStrand(STATION *St, NTSTATUS Why)
{
    ROWAN *r = CONTAINING_RECORD(St, ROWAN, St);
    KIRQL irql;

    KeAcquireSpinLock(&r->Lock, &irql);
    r->Shut = TRUE;
    KeReleaseSpinLock(&r->Lock, irql);
    RowanEnd(r, NULL, Why);
}

static VOID RowanDepart(STATION *St, PFILE_OBJECT File)
{
    RowanEnd(CONTAINING_RECORD(St, ROWAN, St), File, STATUS_CANCELLED);
}

static NTSTATUS RowanServe(STATION *St, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    ROWAN *r = CONTAINING_RECORD(St, ROWAN, St);
    ULONG in = Sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG *buffer = Irp->AssociatedIrp.SystemBuffer;
    KIRQL irql;

    if (Sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ROWAN_WAIT:
        if (in < sizeof(ULONG) || out < sizeof(ULONG))
            return STATUS_INVALID_PARAMETER;
        return RowanWait(r, Irp, *buffer);
    case IOCTL_ROWAN_LATEST:
        if (out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&r->Lock, &irql);
        *buffer = r->Latest;
        KeReleaseSpinLock(&r->Lock, irql);
        Irp->IoStatus.Information = sizeof(ULONG);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static const DUTIES RowanDuties = {
    .Bytes = sizeof(ROWAN), .Face = &RowanFace, .Prepare = RowanPrepare, .Engage = RowanEngage, .Release = RowanRelease,
    .Sleep = RowanSleep, .Wake = RowanWake, .Strand = RowanStrand, .Depart = RowanDepart, .Serve = RowanServe,
};

STATION_DRIVER(RowanDuties)

/*
 * saltpan: sixteen opto-isolated inputs with edge detection, on a PCI card. Programs wait for an edge on any of the inputs they name; a request ends
 * with the edges that were seen. The waiting requests are on a list of the driver's own, from the days before cancel-safe queues.
 *
 * The bug: a request gets its cancel routine before it is on the list: if it is cancelled between the two, the cancel routine takes it off a list
 * that it is not on, completes it, and then it is put there.
 *
 * Device: PCI\VEN_1CAB&DEV_0416
 * Rule: list-corrupt, list-damaged, use-after-free, wild-write, wild-read, irp-damaged
 * Needs: ioctl, cancel, schedule
 */
#include <ddk/wdm.h>
#include "../include/depot_frame.h"

#define IOCTL_SALT_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC11, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SALT_NOW  CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC12, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define REG_INPUTS 0x00
#define REG_EDGES  0x04                      /* a one written clears its bit */
#define REG_ENABLE 0x08
#define SALT_ALL   0xFFFF

typedef struct SALT {
    DEPOT *Depot;
    WINDOW Regs;
    WIRE Wire;
    KDPC Dpc;
    volatile LONG Edges;                     /* from the service routine to the DPC */
    KSPIN_LOCK Lock;
    LIST_ENTRY Waiters;
} SALT;

static const GUID SaltGuid = { 0xb50e9c2f, 0x71d4, 0x4a0d, { 0x88, 0x2c, 0x3c, 0xab, 0x04, 0x16, 0x11, 0x0c } };

static BOOLEAN SaltIsr(PVOID context)
{
    SALT *s = context;
    ULONG edges = WindowGet(&s->Regs, REG_EDGES);

    if (edges == 0xFFFFFFFF || (edges & SALT_ALL) == 0)
        return FALSE;
    WindowPut(&s->Regs, REG_EDGES, edges);
    InterlockedOr(&s->Edges, (LONG)(edges & SALT_ALL));
    KeInsertQueueDpc(&s->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI SaltCancel(PDEVICE_OBJECT fdo, PIRP irp)
{
    DEPOT *d = fdo->DeviceExtension;
    SALT *s = d->Own;
    KIRQL irql;

    IoReleaseCancelSpinLock(irp->CancelIrql);
    KeAcquireSpinLock(&s->Lock, &irql);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&s->Lock, irql);
    DepotEnd(d, irp, STATUS_CANCELLED, 0);
}

static NTSTATUS SaltWait(SALT *s, PIRP irp)
{
    KIRQL irql;

    IoMarkIrpPending(irp);
#ifndef FIXED
    IoSetCancelRoutine(irp, SaltCancel);
    KeAcquireSpinLock(&s->Lock, &irql);
    InsertTailList(&s->Waiters, &irp->Tail.Overlay.ListEntry);
#else
    KeAcquireSpinLock(&s->Lock, &irql);
    InsertTailList(&s->Waiters, &irp->Tail.Overlay.ListEntry);
    IoSetCancelRoutine(irp, SaltCancel);
#endif
    if (irp->Cancel && IoSetCancelRoutine(irp, NULL) != NULL) {
        RemoveEntryList(&irp->Tail.Overlay.ListEntry);
        KeReleaseSpinLock(&s->Lock, irql);
        DepotEnd(s->Depot, irp, STATUS_CANCELLED, 0);
        return STATUS_PENDING;
    }
    KeReleaseSpinLock(&s->Lock, irql);
    return STATUS_PENDING;
}

/* Moves what waits for one of the edges (EDGES), or belongs to a file, to a list. What is being cancelled stays: its cancel routine takes it off. */
static VOID SaltGather(SALT *s, PLIST_ENTRY to, ULONG edges, PFILE_OBJECT file)
{
    PLIST_ENTRY e;
    KIRQL irql;

    InitializeListHead(to);
    KeAcquireSpinLock(&s->Lock, &irql);
    for (e = s->Waiters.Flink; e != &s->Waiters;) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        e = e->Flink;
        if (edges != 0 && !(*(PULONG)irp->AssociatedIrp.SystemBuffer & edges))
            continue;
        if (file != NULL && IrpHere(irp)->FileObject != file)
            continue;
        if (IoSetCancelRoutine(irp, NULL) == NULL)
            continue;
        RemoveEntryList(&irp->Tail.Overlay.ListEntry);
        InsertTailList(to, &irp->Tail.Overlay.ListEntry);
    }
    KeReleaseSpinLock(&s->Lock, irql);
}

static VOID NTAPI SaltDpc(PKDPC dpc, PVOID context, PVOID x, PVOID y)
{
    SALT *s = context;
    ULONG edges = (ULONG)InterlockedExchange(&s->Edges, 0);
    LIST_ENTRY done;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(x);
    UNREFERENCED_PARAMETER(y);
    if (edges == 0)
        return;
    SaltGather(s, &done, edges, NULL);
    while (!IsListEmpty(&done)) {
        PIRP irp = CONTAINING_RECORD(RemoveHeadList(&done), IRP, Tail.Overlay.ListEntry);
        PULONG mask = irp->AssociatedIrp.SystemBuffer;

        *mask &= edges;
        DepotEnd(s->Depot, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static VOID SaltPurge(DEPOT *d, PFILE_OBJECT file, NTSTATUS st)
{
    SALT *s = d->Own;
    LIST_ENTRY done;

    SaltGather(s, &done, 0, file);
    while (!IsListEmpty(&done))
        DepotEnd(d, CONTAINING_RECORD(RemoveHeadList(&done), IRP, Tail.Overlay.ListEntry), st, 0);
}

static NTSTATUS SaltControl(DEPOT *d, PIRP irp, PIO_STACK_LOCATION sp)
{
    SALT *s = d->Own;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PULONG buffer = irp->AssociatedIrp.SystemBuffer;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SALT_WAIT:
        if (in < sizeof(ULONG) || (*buffer & SALT_ALL) == 0)
            return DepotEnd(d, irp, STATUS_INVALID_PARAMETER, 0);
        if (out < sizeof(ULONG))
            return DepotEnd(d, irp, STATUS_BUFFER_TOO_SMALL, 0);
        return SaltWait(s, irp);
    case IOCTL_SALT_NOW:
        if (out < sizeof(ULONG))
            return DepotEnd(d, irp, STATUS_BUFFER_TOO_SMALL, 0);
        *buffer = WindowGet(&s->Regs, REG_INPUTS) & SALT_ALL;
        return DepotEnd(d, irp, STATUS_SUCCESS, sizeof(ULONG));
    default:
        return DepotEnd(d, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID SaltLight(SALT *s)
{
    WindowPut(&s->Regs, REG_EDGES, SALT_ALL);
    WireLive(&s->Wire, TRUE);
    WindowPut(&s->Regs, REG_ENABLE, SALT_ALL);
}

/* The requests stay: edges come again behind a stop or sleep. */
static VOID SaltDark(SALT *s, BOOLEAN reach)
{
    if (reach)
        WindowPut(&s->Regs, REG_ENABLE, 0);
    WireLive(&s->Wire, FALSE);
    KeRemoveQueueDpc(&s->Dpc);
    KeFlushQueuedDpcs();
    InterlockedExchange(&s->Edges, 0);
}

static NTSTATUS SaltUp(DEPOT *d, PCM_RESOURCE_LIST list)
{
    SALT *s = d->Own;
    const RES *r = ChartNth(list, TRUE, 0);
    NTSTATUS st;

    if (r == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    if (!WindowOpen(&s->Regs, r, 0x10))
        return STATUS_INSUFFICIENT_RESOURCES;
    WindowPut(&s->Regs, REG_ENABLE, 0);
    st = WireConnect(&s->Wire, ChartNth(list, FALSE, 0), SaltIsr, s);
    if (!NT_SUCCESS(st)) {
        WindowShut(&s->Regs);
        return st;
    }
    SaltLight(s);
    return STATUS_SUCCESS;
}

static VOID SaltDown(DEPOT *d, BOOLEAN reach)
{
    SALT *s = d->Own;

    SaltDark(s, reach);
    WireCut(&s->Wire);
    WindowShut(&s->Regs);
}

static VOID SaltSleep(DEPOT *d)
{
    SaltDark(d->Own, TRUE);
}

static VOID SaltWake(DEPOT *d)
{
    SaltLight(d->Own);
}

static NTSTATUS SaltPrepare(DEPOT *d)
{
    SALT *s = d->Own;

    s->Depot = d;
    KeInitializeSpinLock(&s->Lock);
    InitializeListHead(&s->Waiters);
    KeInitializeDpc(&s->Dpc, SaltDpc, s);
    return STATUS_SUCCESS;
}

static const PLAN SaltPlan = {
    .Interface = &SaltGuid,
    .OwnSize = sizeof(SALT),
    .IoFlags = DO_BUFFERED_IO,
    .Prepare = SaltPrepare,
    .Up = SaltUp,
    .Down = SaltDown,
    .Sleep = SaltSleep,
    .Wake = SaltWake,
    .Purge = SaltPurge,
    .Control = SaltControl,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return DepotMain(driver, &SaltPlan);
}

/*
 * edusedge: a doorbell on QEMU's educational card, used to measure interrupt latency. A program rings one of 24 lines, the card
 * interrupts, and the request ends; if the card is silent for fifty milliseconds, the request ends with STATUS_IO_TIMEOUT.
 *
 * The bug: the interrupt's side takes back the timer's reference to the ping whether or not KeCancelTimer has caught the timer; if the timer's
 * DPC is on its way already, it gives the same reference back again, and the ping is freed while it is still in use.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: use-after-free, double-free, freed-queued-dpc, write-after-free
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>
#include "../include/depot_frame.h"

#define IOCTL_SEDGE_RING  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x921, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SEDGE_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x922, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define SEDGE_TAG   'gdeS'
#define SEDGE_MOST  64
#define EDU_CAUSE   0x24
#define EDU_RAISE   0x60
#define EDU_ACK     0x64

typedef struct SEDGE {
    DEPOT *Depot;
    WINDOW Regs;
    WIRE Wire;
    KDPC Dpc;
    volatile LONG Causes;
    KSPIN_LOCK Lock;                         /* the list, and who has which request */
    LIST_ENTRY Pings;
    ULONG Count;
    ULONG Answered, Silent;
} SEDGE;

/* Three references: the list's, the timer's, the request's. */
typedef struct PING {
    LIST_ENTRY Entry;
    SEDGE *Owner;
    LONG Refs;
    BOOLEAN Listed;
    ULONG Line;                              /* its bit */
    PIRP Irp;
    PIRP Ending;                             /* taken from the program, to be ended */
    KTIMER Timer;
    KDPC Dpc;
} PING;

static const GUID SedgeGuid = { 0x29f0b6cd, 0x8e13, 0x4b0a, { 0xb1, 0x0e, 0x44, 0x6d, 0x02, 0x97, 0xee, 0x03 } };

static VOID PingDrop(PING *p)
{
    if (InterlockedDecrement(&p->Refs) == 0)
        ExFreePoolWithTag(p, SEDGE_TAG);
}

/* With the lock: takes the request from its program, unless that has cancelled it (then the cancel routine ends it). */
static PIRP PingTake(PING *p)
{
    PIRP irp = p->Irp;

    if (irp == NULL || IoSetCancelRoutine(irp, NULL) == NULL)
        return NULL;
    p->Irp = NULL;
    return irp;
}

static VOID PingUnlist(PING *p)
{
    RemoveEntryList(&p->Entry);
    p->Listed = FALSE;
    p->Owner->Count--;
}

/* Ends a ping that was taken from the list. */
static VOID PingEnd(SEDGE *s, PING *p, NTSTATUS st)
{
    if (p->Ending != NULL) {
        DepotEnd(s->Depot, p->Ending, st, 0);
        PingDrop(p);
    }
#ifndef FIXED
    KeCancelTimer(&p->Timer);
    PingDrop(p);
#else
    if (KeCancelTimer(&p->Timer))
        PingDrop(p);
#endif
    PingDrop(p);
}

static VOID NTAPI PingDpc(PKDPC dpc, PVOID context, PVOID x, PVOID y)
{
    PING *p = context;
    SEDGE *s = p->Owner;
    PIRP irp = NULL;
    BOOLEAN listed;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(x);
    UNREFERENCED_PARAMETER(y);
    KeAcquireSpinLockAtDpcLevel(&s->Lock);
    listed = p->Listed;
    if (listed) {
        PingUnlist(p);
        s->Silent++;
        irp = PingTake(p);
    }
    KeReleaseSpinLockFromDpcLevel(&s->Lock);
    if (irp != NULL) {
        DepotEnd(s->Depot, irp, STATUS_IO_TIMEOUT, 0);
        PingDrop(p);
    }
    if (listed)
        PingDrop(p);
    PingDrop(p);
}

static VOID NTAPI SedgeCancel(PDEVICE_OBJECT fdo, PIRP irp)
{
    DEPOT *d = fdo->DeviceExtension;
    SEDGE *s = d->Own;
    PING *p = irp->Tail.Overlay.DriverContext[0];
    KIRQL irql;

    IoReleaseCancelSpinLock(irp->CancelIrql);
    KeAcquireSpinLock(&s->Lock, &irql);
    p->Irp = NULL;
    KeReleaseSpinLock(&s->Lock, irql);
    PingDrop(p);
    DepotEnd(d, irp, STATUS_CANCELLED, 0);
}

static BOOLEAN SedgeIsr(PVOID context)
{
    SEDGE *s = context;
    ULONG cause = WindowGet(&s->Regs, EDU_CAUSE);

    if (cause == 0 || cause == 0xFFFFFFFF)
        return FALSE;
    WindowPut(&s->Regs, EDU_ACK, cause);
    InterlockedOr(&s->Causes, (LONG)cause);
    KeInsertQueueDpc(&s->Dpc, NULL, NULL);
    return TRUE;
}

/* Ends all pings of the lines. */
static VOID SedgeSweep(SEDGE *s, ULONG lines, NTSTATUS st)
{
    LIST_ENTRY done;
    PLIST_ENTRY e;
    KIRQL irql;

    InitializeListHead(&done);
    KeAcquireSpinLock(&s->Lock, &irql);
    for (e = s->Pings.Flink; e != &s->Pings;) {
        PING *p = CONTAINING_RECORD(e, PING, Entry);

        e = e->Flink;
        if (!(p->Line & lines))
            continue;
        PingUnlist(p);
        p->Ending = PingTake(p);
        if (NT_SUCCESS(st))
            s->Answered++;
        InsertTailList(&done, &p->Entry);
    }
    KeReleaseSpinLock(&s->Lock, irql);
    while (!IsListEmpty(&done)) {
        PING *p = CONTAINING_RECORD(RemoveHeadList(&done), PING, Entry);

        PingEnd(s, p, st);
    }
}

static VOID NTAPI SedgeDpc(PKDPC dpc, PVOID context, PVOID x, PVOID y)
{
    SEDGE *s = context;
    ULONG lines = (ULONG)InterlockedExchange(&s->Causes, 0);

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(x);
    UNREFERENCED_PARAMETER(y);
    SedgeSweep(s, lines, STATUS_SUCCESS);
}

static NTSTATUS SedgeRing(SEDGE *s, PIRP irp, ULONG line)
{
    LARGE_INTEGER due;
    PING *p;
    KIRQL irql;

    p = Alloc(sizeof(PING), SEDGE_TAG);
    if (p == NULL)
        return DepotEnd(s->Depot, irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    p->Owner = s;
    p->Refs = 3;
    p->Line = 1UL << line;
    KeInitializeTimer(&p->Timer);
    KeInitializeDpc(&p->Dpc, PingDpc, p);
    due.QuadPart = -500000;

    KeAcquireSpinLock(&s->Lock, &irql);
    if (s->Count == SEDGE_MOST) {
        KeReleaseSpinLock(&s->Lock, irql);
        ExFreePoolWithTag(p, SEDGE_TAG);
        return DepotEnd(s->Depot, irp, STATUS_DEVICE_BUSY, 0);
    }
    IoMarkIrpPending(irp);
    irp->Tail.Overlay.DriverContext[0] = p;
    p->Irp = irp;
    IoSetCancelRoutine(irp, SedgeCancel);
    if (irp->Cancel && IoSetCancelRoutine(irp, NULL) != NULL) {
        KeReleaseSpinLock(&s->Lock, irql);
        ExFreePoolWithTag(p, SEDGE_TAG);
        DepotEnd(s->Depot, irp, STATUS_CANCELLED, 0);
        return STATUS_PENDING;
    }
    InsertTailList(&s->Pings, &p->Entry);
    p->Listed = TRUE;
    s->Count++;
    KeSetTimer(&p->Timer, due, &p->Dpc);
    WindowPut(&s->Regs, EDU_RAISE, p->Line);
    KeReleaseSpinLock(&s->Lock, irql);
    return STATUS_PENDING;
}

/* Takes all causes back: the card has no mask. With the interrupt's lock, or before there is an interrupt. */
static BOOLEAN NTAPI SedgeQuiet(PVOID context)
{
    SEDGE *s = context;

    WindowPut(&s->Regs, EDU_ACK, WindowGet(&s->Regs, EDU_CAUSE));
    s->Wire.Live = FALSE;
    return TRUE;
}

static VOID SedgeDark(SEDGE *s, BOOLEAN reach)
{
    if (reach)
        KeSynchronizeExecution(s->Wire.Object, SedgeQuiet, s);
    else
        WireLive(&s->Wire, FALSE);
    SedgeSweep(s, 0xFFFFFFFF, STATUS_DEVICE_NOT_READY);
    KeRemoveQueueDpc(&s->Dpc);
    KeFlushQueuedDpcs();
    InterlockedExchange(&s->Causes, 0);
}

static NTSTATUS SedgeUp(DEPOT *d, PCM_RESOURCE_LIST list)
{
    SEDGE *s = d->Own;
    const RES *r = ChartNth(list, TRUE, 0);
    NTSTATUS st;

    if (r == NULL || r->Type != CmResourceTypeMemory)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    if (!WindowOpen(&s->Regs, r, 0x100))
        return STATUS_INSUFFICIENT_RESOURCES;
    SedgeQuiet(s);
    st = WireConnect(&s->Wire, ChartNth(list, FALSE, 0), SedgeIsr, s);
    if (!NT_SUCCESS(st)) {
        WindowShut(&s->Regs);
        return st;
    }
    WireLive(&s->Wire, TRUE);
    return STATUS_SUCCESS;
}

static VOID SedgeDown(DEPOT *d, BOOLEAN reach)
{
    SEDGE *s = d->Own;

    SedgeDark(s, reach);
    WireCut(&s->Wire);
    WindowShut(&s->Regs);
}

static VOID SedgeSleep(DEPOT *d)
{
    SedgeDark(d->Own, TRUE);
}

static VOID SedgeWake(DEPOT *d)
{
    SEDGE *s = d->Own;

    WireLive(&s->Wire, TRUE);
}

static NTSTATUS SedgePrepare(DEPOT *d)
{
    SEDGE *s = d->Own;

    s->Depot = d;
    KeInitializeSpinLock(&s->Lock);
    InitializeListHead(&s->Pings);
    KeInitializeDpc(&s->Dpc, SedgeDpc, s);
    return STATUS_SUCCESS;
}

/* The pings themselves stay until the card or the timer takes them. */
static VOID SedgePurge(DEPOT *d, PFILE_OBJECT file, NTSTATUS st)
{
    SEDGE *s = d->Own;
    LIST_ENTRY done;
    PLIST_ENTRY e;
    KIRQL irql;
    PIRP irp;

    InitializeListHead(&done);
    KeAcquireSpinLock(&s->Lock, &irql);
    for (e = s->Pings.Flink; e != &s->Pings; e = e->Flink) {
        PING *p = CONTAINING_RECORD(e, PING, Entry);

        if (p->Irp == NULL || (file != NULL && IrpHere(p->Irp)->FileObject != file))
            continue;
        irp = PingTake(p);
        if (irp != NULL)
            InsertTailList(&done, &irp->Tail.Overlay.ListEntry);
    }
    KeReleaseSpinLock(&s->Lock, irql);
    while (!IsListEmpty(&done)) {
        irp = CONTAINING_RECORD(RemoveHeadList(&done), IRP, Tail.Overlay.ListEntry);
        PingDrop(irp->Tail.Overlay.DriverContext[0]);
        DepotEnd(d, irp, st, 0);
    }
}

static NTSTATUS SedgeControl(DEPOT *d, PIRP irp, PIO_STACK_LOCATION sp)
{
    SEDGE *s = d->Own;
    PULONG buffer = irp->AssociatedIrp.SystemBuffer;
    KIRQL irql;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SEDGE_RING:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) || *buffer >= 24)
            return DepotEnd(d, irp, STATUS_INVALID_PARAMETER, 0);
        return SedgeRing(s, irp, *buffer);
    case IOCTL_SEDGE_COUNT:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < 2 * sizeof(ULONG))
            return DepotEnd(d, irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&s->Lock, &irql);
        buffer[0] = s->Answered;
        buffer[1] = s->Silent;
        KeReleaseSpinLock(&s->Lock, irql);
        return DepotEnd(d, irp, STATUS_SUCCESS, 2 * sizeof(ULONG));
    default:
        return DepotEnd(d, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static const PLAN SedgePlan = {
    .Interface = &SedgeGuid,
    .OwnSize = sizeof(SEDGE),
    .IoFlags = DO_BUFFERED_IO,
    .Prepare = SedgePrepare,
    .Up = SedgeUp,
    .Down = SedgeDown,
    .Sleep = SedgeSleep,
    .Wake = SedgeWake,
    .Purge = SedgePurge,
    .Control = SedgeControl,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return DepotMain(driver, &SedgePlan);
}

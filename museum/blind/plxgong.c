/*
 * plxgong: reads wait for the next edge on local interrupt input 1 of a PLX PCI 9050 card; all that wait get the
 * edge's number and time.
 *
 * The bug: the DPC completes the waiting reads while it holds the spin lock of their list.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: lock-held-over-request
 * Needs: device
 */
#include "../include/held_core.h"

static const GUID InterfaceGuid = { 0x5b1e0c1a, 0x11d0, 0x4b77, { 0x9a, 0x10, 0x2b, 0x66, 0x70, 0x11, 0x02, 0x03 } };

#define CSR_ON    (0x0001 | 0x0002 | 0x0040 | 0x0100)      /* input 1: enabled, active high, edge; to PCI */
#define CSR_HIT   0x0004
#define CSR_CLEAR 0x0400

typedef struct _STROKE {
    ULONG64 Number;
    ULONG64 Time;
} STROKE;

typedef struct _DEV {
    CORE Core;
    PULONG Intcsr;
    PUCHAR Bridge;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    BOOLEAN Awake;
    volatile LONG Strokes;      /* counted by the ISR */
    KSPIN_LOCK Lock;
    LIST_ENTRY Waiting;         /* under the lock */
} DEV;

static BOOLEAN NTAPI GongIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    DEV *dev = Context;
    ULONG csr;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!dev->Awake)
        return FALSE;
    csr = READ_REGISTER_ULONG(dev->Intcsr);
    if (csr == MAXULONG || (csr & (CSR_HIT | 0x41)) != (CSR_HIT | 0x41))
        return FALSE;
    WRITE_REGISTER_ULONG(dev->Intcsr, CSR_ON | CSR_CLEAR);
    InterlockedIncrement(&dev->Strokes);
    KeInsertQueueDpc(&dev->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI GongDpc(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    DEV *dev = Context;
    STROKE stroke;
    LIST_ENTRY done;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
    stroke.Number = (ULONG)dev->Strokes;
    stroke.Time = KeQueryInterruptTime();
    InitializeListHead(&done);
    KeAcquireSpinLockAtDpcLevel(&dev->Lock);
    while (!IsListEmpty(&dev->Waiting)) {
        PLIST_ENTRY e = RemoveHeadList(&dev->Waiting);
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (!IoSetCancelRoutine(irp, NULL)) {
            InitializeListHead(e);      /* being cancelled */
            continue;
        }
        *(STROKE *)irp->AssociatedIrp.SystemBuffer = stroke;
#ifdef FIXED
        InsertTailList(&done, e);
#else
        CoreComplete(&dev->Core, irp, STATUS_SUCCESS, sizeof(STROKE));
#endif
    }
    KeReleaseSpinLockFromDpcLevel(&dev->Lock);
    while (!IsListEmpty(&done)) {
        PIRP irp = CONTAINING_RECORD(RemoveHeadList(&done), IRP, Tail.Overlay.ListEntry);

        CoreComplete(&dev->Core, irp, STATUS_SUCCESS, sizeof(STROKE));
    }
}

static VOID NTAPI GongCancel(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEV *dev = Device->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&dev->Lock, &irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&dev->Lock, irql);
    CoreComplete(&dev->Core, Irp, STATUS_CANCELLED, 0);
}

/* Ends the reads of one file, or all. */
static VOID Flush(DEV *Dev, PFILE_OBJECT File, NTSTATUS Status)
{
    LIST_ENTRY done;
    PLIST_ENTRY e, next;
    KIRQL irql;

    InitializeListHead(&done);
    KeAcquireSpinLock(&Dev->Lock, &irql);
    for (e = Dev->Waiting.Flink; e != &Dev->Waiting; e = next) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        next = e->Flink;
        if (File && IoGetCurrentIrpStackLocation(irp)->FileObject != File)
            continue;
        RemoveEntryList(e);
        if (IoSetCancelRoutine(irp, NULL))
            InsertTailList(&done, e);
        else
            InitializeListHead(e);
    }
    KeReleaseSpinLock(&Dev->Lock, irql);
    while (!IsListEmpty(&done))
        CoreComplete(&Dev->Core, CONTAINING_RECORD(RemoveHeadList(&done), IRP, Tail.Overlay.ListEntry), Status, 0);
}

static NTSTATUS NTAPI GongRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEV *dev = Device->DeviceExtension;
    NTSTATUS status = CoreEnter(&dev->Core, Irp);
    KIRQL irql;

    if (!NT_SUCCESS(status))
        return status;
    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length < sizeof(STROKE)) {
        CoreComplete(&dev->Core, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return STATUS_BUFFER_TOO_SMALL;
    }
    KeAcquireSpinLock(&dev->Lock, &irql);
    if (dev->Core.Hold & HOLD_GONE) {
        KeReleaseSpinLock(&dev->Lock, irql);
        CoreComplete(&dev->Core, Irp, STATUS_DELETE_PENDING, 0);
        return STATUS_DELETE_PENDING;
    }
    IoMarkIrpPending(Irp);
    IoSetCancelRoutine(Irp, GongCancel);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL)) {
        KeReleaseSpinLock(&dev->Lock, irql);
        CoreComplete(&dev->Core, Irp, STATUS_CANCELLED, 0);
        return STATUS_PENDING;
    }
    InsertTailList(&dev->Waiting, &Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&dev->Lock, irql);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI GongCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    Flush(Device->DeviceExtension, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static BOOLEAN NTAPI SyncOn(PVOID Context)
{
    DEV *dev = Context;

    dev->Awake = TRUE;
    WRITE_REGISTER_ULONG(dev->Intcsr, CSR_ON | CSR_CLEAR);
    return TRUE;
}

static BOOLEAN NTAPI SyncOff(PVOID Context)
{
    DEV *dev = Context;

    WRITE_REGISTER_ULONG(dev->Intcsr, CSR_CLEAR);
    dev->Awake = FALSE;
    return TRUE;
}

/* Waiting reads do not use the card: there is nothing to be waited for. They stay over a stop and over sleep. */
static VOID HwQuiesce(CORE *Core) { UNREFERENCED_PARAMETER(Core); }
static VOID HwKick(CORE *Core) { UNREFERENCED_PARAMETER(Core); }
static VOID HwFini(CORE *Core) { UNREFERENCED_PARAMETER(Core); }
static VOID HwAbort(CORE *Core) { Flush((DEV *)Core, NULL, STATUS_DELETE_PENDING); }
static VOID HwSleep(CORE *Core) { KeSynchronizeExecution(((DEV *)Core)->Interrupt, SyncOff, Core); }
static VOID HwWake(CORE *Core) { KeSynchronizeExecution(((DEV *)Core)->Interrupt, SyncOn, Core); }

static NTSTATUS HwStart(CORE *Core, PCM_RESOURCE_LIST Translated)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR bar = CoreResource(Translated, CmResourceTypeMemory, 0);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR irq = CoreResource(Translated, CmResourceTypeInterrupt, 0);
    DEV *dev = (DEV *)Core;
    NTSTATUS status;

    if (!bar || !irq || bar->u.Memory.Length < 0x54)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    dev->Bridge = MmMapIoSpace(bar->u.Memory.Start, 0x54, MmNonCached);
    if (!dev->Bridge)
        return STATUS_INSUFFICIENT_RESOURCES;
    dev->Intcsr = (PULONG)(dev->Bridge + 0x4C);
    WRITE_REGISTER_ULONG(dev->Intcsr, CSR_CLEAR);
    status = CoreConnect(&dev->Interrupt, GongIsr, dev, irq);
    if (!NT_SUCCESS(status)) {
        dev->Interrupt = NULL;
        MmUnmapIoSpace(dev->Bridge, 0x54);
        dev->Bridge = NULL;
        return status;
    }
    KeSynchronizeExecution(dev->Interrupt, SyncOn, dev);
    return STATUS_SUCCESS;
}

static VOID HwStop(CORE *Core, BOOLEAN Touch)
{
    DEV *dev = (DEV *)Core;

    if (Touch)
        KeSynchronizeExecution(dev->Interrupt, SyncOff, dev);
    IoDisconnectInterrupt(dev->Interrupt);
    dev->Interrupt = NULL;
    KeFlushQueuedDpcs();
    MmUnmapIoSpace(dev->Bridge, 0x54);
    dev->Bridge = NULL;
}

static NTSTATUS NTAPI GongAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    CORE *core;
    NTSTATUS status = CoreAdd(Driver, Pdo, sizeof(DEV), &InterfaceGuid, &core);

    if (NT_SUCCESS(status)) {
        DEV *dev = (DEV *)core;

        KeInitializeSpinLock(&dev->Lock);
        InitializeListHead(&dev->Waiting);
        KeInitializeDpc(&dev->Dpc, GongDpc, dev);
        core->Self->Flags |= DO_BUFFERED_IO;
        core->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    }
    return status;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    CoreEntry(Driver, GongAdd);
    Driver->MajorFunction[IRP_MJ_CLEANUP] = GongCleanup;
    Driver->MajorFunction[IRP_MJ_READ] = GongRead;
    return STATUS_SUCCESS;
}

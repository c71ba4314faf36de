/*
 * tempo.c - beats of a PCI 9052's peripheral, noted by the interrupt routine.
 *
 * BEAT rings the peripheral's doorbell, and LINTi1 comes a little later.  The
 * interrupt routine notes each one in a ring; reads take the notes in their
 * order, or wait for the next one.
 *
 * The bug: SIZE changes the ring with the driver's spin lock only, and not with the interrupt's: the service
 * routine stores in the old ring, which is freed.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: request-forgotten, use-after-free
 * Needs: ioctl, schedule, device
 */
#include <initguid.h>
#include <ddk/wdm.h>

typedef enum { StateAdded, StateStarted, StateStopped, StateGone, StateDeleted } PNP_STATE;

/* Why nothing may be begun with the card: */
#define GATE_UNSTARTED 0x01
#define GATE_STOPPING 0x02
#define GATE_ASLEEP 0x04
#define GATE_GONE 0x08

#define WINDOWS_MOST 2

typedef struct {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    volatile LONG State;
    DEVICE_POWER_STATE Power;

    KSPIN_LOCK Lock;          /* what is below, and what the device has to do */
    ULONG Gate;               /* 0: open */
    BOOLEAN Live;             /* the card may be accessed with the lock held, */
    volatile BOOLEAN IsrLive; /* and by the interrupt routine */
    PKINTERRUPT Interrupt;
    ULONG Windows;
    PUCHAR Window[WINDOWS_MOST]; /* of memory, in the order of its BARs */
    ULONG WindowLength[WINDOWS_MOST];
} HARDWARE_PART;

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

DEFINE_GUID(INTERFACE_GUID, 0x9a41d70c, 0x8c44, 0x4b0e, 0xa1, 0x5d, 0x6e, 0x10, 0x93, 0x27, 0x5c, 0x01);

#define POOL_TAG 'rteM'
#define WINDOWS_NEEDED 2
#define RING_LEAST 4
#define RING_DEFAULT 32
#define RING_MOST 1024

#define LOCAL_NOTE 0x0100
#define LOCAL_ACKNOWLEDGE 0xfff8
#define LOCAL_DOORBELL 0xfffc

#define PLX_INTCSR 0x4c
#define INTCSR_LINT1_ENABLE 0x001
#define INTCSR_LINT1_HIGH 0x002
#define INTCSR_LINT1_STATUS 0x004
#define INTCSR_PCI_ENABLE 0x040
#define INTCSR_LINT1_EDGE 0x100
#define INTCSR_LINT1_CLEAR 0x400
#define INTCSR_ON (INTCSR_LINT1_ENABLE | INTCSR_LINT1_HIGH | INTCSR_PCI_ENABLE | INTCSR_LINT1_EDGE)

#define IOCTL_BEAT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xd60, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_SIZE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xd61, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xd62, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct {
    ULONG Number;
    ULONG Note; /* of the last BEAT */
} BEAT;

typedef struct {
    ULONG Beats;
    ULONG Lost;
    ULONG Kept;
    ULONG Size;
} STATE;

/* The notes; with the interrupt's lock, once there is an interrupt. */
typedef struct {
    BEAT *Beats;
    ULONG Size;
    ULONG First, Count;
    ULONG Number, Lost;
} RING;

typedef struct {
    HARDWARE_PART Hw;
    KDPC Dpc;
    RING Ring;

    KSPIN_LOCK WaitLock; /* taken after Hw.Lock, */
    IO_CSQ Csq;          /* and before the interrupt's */
    LIST_ENTRY Waiting;
    BOOLEAN Closed;
} DEVICE_EXTENSION;

static ULONG MetronomeRead(DEVICE_EXTENSION *x, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(x->Hw.Window[0] + Offset));
}

static VOID MetronomeWrite(DEVICE_EXTENSION *x, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->Hw.Window[0] + Offset), Value);
}

static ULONG MetronomeReadLocal(DEVICE_EXTENSION *x, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(x->Hw.Window[1] + Offset));
}

static VOID MetronomeWriteLocal(DEVICE_EXTENSION *x, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->Hw.Window[1] + Offset), Value);
}

/* ---- requests that wait ---------------------------------------------------- */

#define FROM_CSQ(c) CONTAINING_RECORD(c, DEVICE_EXTENSION, Csq)

static NTSTATUS NTAPI MetronomeCsqInsert(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    DEVICE_EXTENSION *x = FROM_CSQ(Csq);

    UNREFERENCED_PARAMETER(Context);
    if (x->Closed)
        return STATUS_DEVICE_NOT_CONNECTED;
    if (IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext != NULL)
        return STATUS_CANCELLED; /* the handle is closed */
    InsertTailList(&x->Waiting, &Irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

static VOID NTAPI MetronomeCsqRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI MetronomeCsqPeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    DEVICE_EXTENSION *x = FROM_CSQ(Csq);
    PLIST_ENTRY e = Irp != NULL ? Irp->Tail.Overlay.ListEntry.Flink : x->Waiting.Flink;

    for (; e != &x->Waiting; e = e->Flink) {
        Irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (Context == NULL || IoGetCurrentIrpStackLocation(Irp)->FileObject == Context)
            return Irp;
    }
    return NULL;
}

static VOID NTAPI MetronomeCsqAcquire(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&FROM_CSQ(Csq)->WaitLock, Irql);
}

static VOID NTAPI MetronomeCsqRelease(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&FROM_CSQ(Csq)->WaitLock, Irql);
}

/* Each request that waits, or is with the card, holds a remove lock. */
static VOID MetronomeEnd(DEVICE_EXTENSION *x, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Finish(Irp, Status, Information);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
}

static VOID NTAPI MetronomeCsqCancelled(PIO_CSQ Csq, PIRP Irp)
{
    MetronomeEnd(FROM_CSQ(Csq), Irp, STATUS_CANCELLED, 0);
}

static VOID MetronomeFlush(DEVICE_EXTENSION *x, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP Irp;

    while ((Irp = IoCsqRemoveNextIrp(&x->Csq, File)) != NULL)
        MetronomeEnd(x, Irp, Status, 0);
}

static VOID MetronomeCloseQueue(DEVICE_EXTENSION *x)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->WaitLock, &Irql);
    x->Closed = TRUE;
    KeReleaseSpinLock(&x->WaitLock, Irql);
    MetronomeFlush(x, NULL, STATUS_DEVICE_NOT_CONNECTED);
}

static NTSTATUS MetronomeInitQueue(DEVICE_EXTENSION *x)
{
    KeInitializeSpinLock(&x->WaitLock);
    InitializeListHead(&x->Waiting);
    return IoCsqInitializeEx(&x->Csq, MetronomeCsqInsert, MetronomeCsqRemove, MetronomeCsqPeek, MetronomeCsqAcquire, MetronomeCsqRelease,
                             MetronomeCsqCancelled);
}

/* ---- the ring ------------------------------------------------------------------------- */

typedef struct {
    RING *Ring;
    BEAT *To; /* TakeBeats */
    ULONG Room;
    BEAT *New; /* ChangeRing; and what is to be freed afterwards */
    ULONG Size;
    STATE State; /* LookAtRing */
} RING_CONTEXT;

/* Calls the routine while the interrupt routine does not run; with Hw.Lock. */
static BOOLEAN MetronomeWithRing(DEVICE_EXTENSION *x, PKSYNCHRONIZE_ROUTINE Routine, RING_CONTEXT *c)
{
    c->Ring = &x->Ring;
    return x->Hw.Interrupt != NULL ? KeSynchronizeExecution(x->Hw.Interrupt, Routine, c) : Routine(c);
}

static BOOLEAN NTAPI MetronomeTakeBeats(PVOID Context)
{
    RING_CONTEXT *c = Context;
    RING *r = c->Ring;
    ULONG n = 0;

    while (n < c->Room && r->Count != 0) {
        c->To[n++] = r->Beats[r->First];
        r->First = (r->First + 1) % r->Size;
        r->Count--;
    }
    c->Room = n;
    return TRUE;
}

static BOOLEAN NTAPI MetronomeLookAtRing(PVOID Context)
{
    RING_CONTEXT *c = Context;

    c->State.Beats = c->Ring->Number;
    c->State.Lost = c->Ring->Lost;
    c->State.Kept = c->Ring->Count;
    c->State.Size = c->Ring->Size;
    return TRUE;
}

/* The last beats come along, as many as there is room for. */
static BOOLEAN NTAPI MetronomeChangeRing(PVOID Context)
{
    RING_CONTEXT *c = Context;
    RING *r = c->Ring;
    BEAT *Old = r->Beats;
    ULONG i, n = r->Count < c->Size ? r->Count : c->Size;

    for (i = 0; i < n; i++)
        c->New[i] = Old[(r->First + r->Count - n + i) % r->Size];
    r->Lost += r->Count - n;
    r->Beats = c->New;
    r->Size = c->Size;
    r->First = 0;
    r->Count = n;
    c->New = Old;
    return TRUE;
}

/* By the interrupt routine only. */
static VOID MetronomeNote(RING *r, ULONG Note)
{
    BEAT *b;

    if (r->Count == r->Size) {
        r->First = (r->First + 1) % r->Size;
        r->Count--;
        r->Lost++;
    }
    b = &r->Beats[(r->First + r->Count) % r->Size];
    b->Number = ++r->Number;
    b->Note = Note;
    r->Count++;
}

/* ---- reads ------------------------------------------------------------------------------ */

/* Fills the request, which has been taken out of the queue; FALSE: there was nothing. */
static BOOLEAN MetronomeFill(DEVICE_EXTENSION *x, PIRP Irp)
{
    RING_CONTEXT c;

    c.To = Irp->AssociatedIrp.SystemBuffer;
    c.Room = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length / sizeof(BEAT);
    MetronomeWithRing(x, MetronomeTakeBeats, &c);
    Irp->IoStatus.Information = c.Room * sizeof(BEAT);
    return c.Room != 0;
}

static BOOLEAN MetronomeHasBeats(DEVICE_EXTENSION *x)
{
    RING_CONTEXT c;

    MetronomeWithRing(x, MetronomeLookAtRing, &c);
    return c.State.Kept != 0;
}

static VOID MetronomeKick(DEVICE_EXTENSION *x)
{
    LIST_ENTRY Filled;
    KIRQL Irql;
    PIRP Irp;

    InitializeListHead(&Filled);
    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    /* Only this takes beats, with the lock: they are there yet when a request has been found. */
    while (MetronomeHasBeats(x) && (Irp = IoCsqRemoveNextIrp(&x->Csq, NULL)) != NULL) {
        MetronomeFill(x, Irp);
        InsertTailList(&Filled, &Irp->Tail.Overlay.ListEntry);
    }
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
    while (!IsListEmpty(&Filled)) {
        Irp = CONTAINING_RECORD(RemoveHeadList(&Filled), IRP, Tail.Overlay.ListEntry);
        MetronomeEnd(x, Irp, STATUS_SUCCESS, Irp->IoStatus.Information);
    }
}

static VOID NTAPI MetronomeDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    MetronomeKick(Context);
}

static BOOLEAN NTAPI MetronomeInterrupt(PKINTERRUPT Interrupt, PVOID Context)
{
    DEVICE_EXTENSION *x = Context;
    ULONG Intcsr;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!x->Hw.IsrLive)
        return FALSE;
    Intcsr = MetronomeRead(x, PLX_INTCSR);
    if (Intcsr == 0xffffffff || !(Intcsr & INTCSR_LINT1_STATUS))
        return FALSE;
    MetronomeWrite(x, PLX_INTCSR, INTCSR_ON | INTCSR_LINT1_CLEAR);
    MetronomeWriteLocal(x, LOCAL_ACKNOWLEDGE, 1);
    MetronomeNote(&x->Ring, MetronomeReadLocal(x, LOCAL_NOTE));
    KeInsertQueueDpc(&x->Dpc, NULL, NULL);
    return TRUE;
}

/* ---- what the card needs --------------------------------------------------------------------- */

static NTSTATUS MetronomePrepare(DEVICE_EXTENSION *x)
{
    return x->Hw.WindowLength[1] < 0x10000 ? STATUS_DEVICE_CONFIGURATION_ERROR : STATUS_SUCCESS;
}

static VOID MetronomeRelease(DEVICE_EXTENSION *x)
{
    UNREFERENCED_PARAMETER(x);
}

static VOID MetronomeEnable(DEVICE_EXTENSION *x)
{
    MetronomeWriteLocal(x, LOCAL_NOTE, 0);
    MetronomeWrite(x, PLX_INTCSR, INTCSR_ON | INTCSR_LINT1_CLEAR);
    MetronomeWriteLocal(x, LOCAL_ACKNOWLEDGE, 1);
}

static VOID MetronomeDisable(DEVICE_EXTENSION *x)
{
    MetronomeWrite(x, PLX_INTCSR, INTCSR_LINT1_CLEAR);
}

/* A beat that has been asked for may be lost. */
static VOID MetronomeDrain(DEVICE_EXTENSION *x)
{
    UNREFERENCED_PARAMETER(x);
}

static VOID MetronomeAbort(DEVICE_EXTENSION *x)
{
    MetronomeCloseQueue(x);
}

static NTSTATUS MetronomeInit(DEVICE_EXTENSION *x)
{
    KeInitializeDpc(&x->Dpc, MetronomeDpc, x);
    x->Ring.Beats = ExAllocatePoolWithTag(NonPagedPool, RING_DEFAULT * sizeof(BEAT), POOL_TAG);
    if (x->Ring.Beats == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    x->Ring.Size = RING_DEFAULT;
    return MetronomeInitQueue(x);
}

static VOID MetronomeFree(DEVICE_EXTENSION *x)
{
    ExFreePoolWithTag(x->Ring.Beats, POOL_TAG);
}

/* ---- the card comes and goes ---------------------------------------------------- */

static BOOLEAN NTAPI MetronomeSyncUp(PVOID Context)
{
    DEVICE_EXTENSION *x = Context;

    MetronomeEnable(x);
    x->Hw.IsrLive = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI MetronomeSyncDown(PVOID Context)
{
    DEVICE_EXTENSION *x = Context;

    MetronomeDisable(x);
    x->Hw.IsrLive = FALSE;
    return TRUE;
}

static BOOLEAN NTAPI MetronomeSyncLost(PVOID Context)
{
    DEVICE_EXTENSION *x = Context;

    x->Hw.IsrLive = FALSE;
    return TRUE;
}

static VOID MetronomeUp(DEVICE_EXTENSION *x)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    if (x->Hw.Interrupt != NULL && !x->Hw.Live && !(x->Hw.Gate & GATE_GONE)) {
        KeSynchronizeExecution(x->Hw.Interrupt, MetronomeSyncUp, x);
        x->Hw.Live = TRUE;
    }
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
}

static VOID MetronomeDown(DEVICE_EXTENSION *x)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    if (x->Hw.Live)
        KeSynchronizeExecution(x->Hw.Interrupt, MetronomeSyncDown, x);
    x->Hw.Live = FALSE;
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
}

static VOID MetronomeCloseGate(DEVICE_EXTENSION *x, ULONG Why)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    x->Hw.Gate |= Why;
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
}

static VOID MetronomeOpenGate(DEVICE_EXTENSION *x, ULONG Why)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    x->Hw.Gate &= ~Why;
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
    MetronomeKick(x);
}

/* Whatever there is of it, and as often as is wanted. */
static VOID MetronomeTearDown(DEVICE_EXTENSION *x)
{
    PKINTERRUPT Interrupt;
    KIRQL Irql;

    MetronomeDown(x);
    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    Interrupt = x->Hw.Interrupt;
    x->Hw.Interrupt = NULL;
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
    if (Interrupt != NULL)
        IoDisconnectInterrupt(Interrupt);
    KeFlushQueuedDpcs();
    MetronomeRelease(x);
    while (x->Hw.Windows != 0) {
        x->Hw.Windows--;
        MmUnmapIoSpace(x->Hw.Window[x->Hw.Windows], x->Hw.WindowLength[x->Hw.Windows]);
        x->Hw.Window[x->Hw.Windows] = NULL;
    }
}

static NTSTATUS MetronomeConnect(DEVICE_EXTENSION *x, PCM_PARTIAL_RESOURCE_DESCRIPTOR Line)
{
    PKINTERRUPT Interrupt = NULL;
    NTSTATUS Status;
    KIRQL Irql;

    Status = IoConnectInterrupt(&Interrupt, MetronomeInterrupt, x, NULL, Line->u.Interrupt.Vector,
                                (KIRQL)Line->u.Interrupt.Level, (KIRQL)Line->u.Interrupt.Level,
                                Line->Flags & CM_RESOURCE_INTERRUPT_LATCHED ? Latched : LevelSensitive,
                                Line->ShareDisposition == CmResourceShareShared, Line->u.Interrupt.Affinity, FALSE);
    if (NT_SUCCESS(Status)) {
        KeAcquireSpinLock(&x->Hw.Lock, &Irql);
        x->Hw.Interrupt = Interrupt;
        KeReleaseSpinLock(&x->Hw.Lock, Irql);
    }
    return Status;
}

static NTSTATUS MetronomeSetUp(DEVICE_EXTENSION *x, PCM_RESOURCE_LIST Resources)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR Line = NULL;
    PCM_PARTIAL_RESOURCE_LIST List;
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG i;

    if (Resources == NULL || Resources->Count == 0)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    List = &Resources->List[0].PartialResourceList;
    for (i = 0; i < List->Count && NT_SUCCESS(Status); i++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR d = &List->PartialDescriptors[i];

        if (d->Type == CmResourceTypeInterrupt && Line == NULL) {
            Line = d;
        } else if (d->Type == CmResourceTypeMemory && x->Hw.Windows < WINDOWS_MOST) {
            PUCHAR Window = MmMapIoSpace(d->u.Memory.Start, d->u.Memory.Length, MmNonCached);

            if (Window == NULL) {
                Status = STATUS_INSUFFICIENT_RESOURCES;
            } else {
                x->Hw.Window[x->Hw.Windows] = Window;
                x->Hw.WindowLength[x->Hw.Windows++] = d->u.Memory.Length;
            }
        }
    }
    if (NT_SUCCESS(Status) && (Line == NULL || x->Hw.Windows < WINDOWS_NEEDED))
        Status = STATUS_DEVICE_CONFIGURATION_ERROR;
    if (NT_SUCCESS(Status))
        Status = MetronomePrepare(x);
    if (NT_SUCCESS(Status))
        Status = MetronomeConnect(x, Line);
    if (!NT_SUCCESS(Status)) {
        MetronomeTearDown(x);
        return Status;
    }
    x->Hw.Power = PowerDeviceD0;
    MetronomeUp(x);
    return STATUS_SUCCESS;
}

/* ---- Plug and Play ------------------------------------------------------------- */

static NTSTATUS MetronomePassDown(DEVICE_EXTENSION *x, PIRP Irp)
{
    NTSTATUS Status;

    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(x->Hw.Lower, Irp);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return Status;
}

static NTSTATUS MetronomePnpStart(DEVICE_EXTENSION *x, PIRP Irp)
{
    PCM_RESOURCE_LIST Resources = IoGetCurrentIrpStackLocation(Irp)->Parameters.StartDevice.AllocatedResourcesTranslated;
    NTSTATUS Status = STATUS_UNSUCCESSFUL;

    if (IoForwardIrpSynchronously(x->Hw.Lower, Irp))
        Status = Irp->IoStatus.Status;
    if (NT_SUCCESS(Status))
        Status = MetronomeSetUp(x, Resources);
    if (NT_SUCCESS(Status)) {
        InterlockedExchange(&x->Hw.State, StateStarted);
        IoSetDeviceInterfaceState(&x->Hw.Interface, TRUE);
        MetronomeOpenGate(x, GATE_UNSTARTED | GATE_STOPPING | GATE_ASLEEP);
    }
    Finish(Irp, Status, Irp->IoStatus.Information);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return Status;
}

static NTSTATUS MetronomePnpCancelStop(DEVICE_EXTENSION *x, PIRP Irp)
{
    NTSTATUS Status = STATUS_UNSUCCESSFUL;

    Irp->IoStatus.Status = STATUS_SUCCESS;
    if (IoForwardIrpSynchronously(x->Hw.Lower, Irp))
        Status = Irp->IoStatus.Status;
    MetronomeOpenGate(x, GATE_STOPPING);
    Finish(Irp, Status, Irp->IoStatus.Information);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return Status;
}

static VOID MetronomePnpSurprise(DEVICE_EXTENSION *x)
{
    KIRQL Irql;

    InterlockedExchange(&x->Hw.State, StateGone);
    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    x->Hw.Gate |= GATE_GONE;
    x->Hw.Live = FALSE;
    if (x->Hw.Interrupt != NULL)
        KeSynchronizeExecution(x->Hw.Interrupt, MetronomeSyncLost, x);
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
    IoSetDeviceInterfaceState(&x->Hw.Interface, FALSE);
    MetronomeAbort(x);
    MetronomeTearDown(x);
}

static NTSTATUS MetronomePnpRemove(DEVICE_EXTENSION *x, PIRP Irp)
{
    PDEVICE_OBJECT Lower = x->Hw.Lower;
    NTSTATUS Status;

    if (InterlockedExchange(&x->Hw.State, StateDeleted) != StateGone) {
        IoSetDeviceInterfaceState(&x->Hw.Interface, FALSE);
        MetronomeCloseGate(x, GATE_GONE);
        MetronomeDrain(x);
        MetronomeAbort(x);
        MetronomeTearDown(x);
    }
    IoReleaseRemoveLockAndWait(&x->Hw.RemoveLock, Irp);
    MetronomeFree(x);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(Lower, Irp);
    RtlFreeUnicodeString(&x->Hw.Interface);
    IoDetachDevice(Lower);
    IoDeleteDevice(x->Hw.Self);
    return Status;
}

static NTSTATUS NTAPI MetronomeDispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Hw.RemoveLock, Irp);

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    switch (IoGetCurrentIrpStackLocation(Irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        return MetronomePnpStart(x, Irp);
    case IRP_MN_CANCEL_STOP_DEVICE:
        return MetronomePnpCancelStop(x, Irp);
    case IRP_MN_REMOVE_DEVICE:
        return MetronomePnpRemove(x, Irp);
    case IRP_MN_QUERY_STOP_DEVICE:
        MetronomeCloseGate(x, GATE_STOPPING);
        MetronomeDrain(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_STOP_DEVICE:
        MetronomeCloseGate(x, GATE_STOPPING);
        MetronomeDrain(x);
        InterlockedExchange(&x->Hw.State, StateStopped);
        MetronomeTearDown(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        MetronomePnpSurprise(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    default:
        break;
    }
    return MetronomePassDown(x, Irp);
}

static NTSTATUS NTAPI MetronomeDispatchSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Hw.RemoveLock, Irp);

    return NT_SUCCESS(Status) ? MetronomePassDown(x, Irp) : Finish(Irp, Status, Irp->IoStatus.Information);
}

/* ---- power: awake while the system is ------------------------------------------------- */

static VOID NTAPI MetronomeDeviceIrpDone(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context,
                                   PIO_STATUS_BLOCK Io)
{
    PIRP Irp = Context;
    DEVICE_EXTENSION *x = IoGetCurrentIrpStackLocation(Irp)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    PoStartNextPowerIrp(Irp);
    Finish(Irp, Io->Status, 0);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
}

static NTSTATUS NTAPI MetronomeSystemIrpDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    DEVICE_EXTENSION *x = Context;
    NTSTATUS Status = Irp->IoStatus.Status;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Status)) {
        PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
        POWER_STATE State;

        State.DeviceState =
            Stack->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        Status = PoRequestPowerIrp(x->Hw.Self, IRP_MN_SET_POWER, State, MetronomeDeviceIrpDone, Irp, NULL);
        if (NT_SUCCESS(Status))
            return STATUS_MORE_PROCESSING_REQUIRED;
        Irp->IoStatus.Status = Status;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI MetronomeAwakeDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    DEVICE_EXTENSION *x = Context;

    UNREFERENCED_PARAMETER(Device);
    if (Irp->PendingReturned)
        IoMarkIrpPending(Irp);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        x->Hw.Power = PowerDeviceD0;
        PoSetPowerState(x->Hw.Self, DevicePowerState, IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State);
        MetronomeUp(x);
        MetronomeOpenGate(x, GATE_ASLEEP);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI MetronomeDispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&x->Hw.RemoveLock, Irp);

    if (!NT_SUCCESS(Status)) {
        PoStartNextPowerIrp(Irp);
        return Finish(Irp, Status, 0);
    }
    if (Stack->MinorFunction == IRP_MN_SET_POWER && Stack->Parameters.Power.Type == SystemPowerState) {
        IoMarkIrpPending(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, MetronomeSystemIrpDone, x, TRUE, TRUE, TRUE);
        PoCallDriver(x->Hw.Lower, Irp);
        return STATUS_PENDING;
    }
    if (Stack->MinorFunction == IRP_MN_SET_POWER) {
        DEVICE_POWER_STATE To = Stack->Parameters.Power.State.DeviceState;

        if (To == PowerDeviceD0 && x->Hw.Power != PowerDeviceD0) {
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, MetronomeAwakeDone, x, TRUE, TRUE, TRUE);
            return PoCallDriver(x->Hw.Lower, Irp);
        }
        if (To != PowerDeviceD0 && x->Hw.Power == PowerDeviceD0) {
            MetronomeCloseGate(x, GATE_ASLEEP);
            MetronomeDrain(x);
            MetronomeDown(x);
            PoSetPowerState(Device, DevicePowerState, Stack->Parameters.Power.State);
        }
        x->Hw.Power = To;
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = PoCallDriver(x->Hw.Lower, Irp);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return Status;
}

/* ---- requests ------------------------------------------------------------------------ */

/* Requests that can wait are taken while the device is stopped, too. */
static NTSTATUS MetronomeEnter(DEVICE_EXTENSION *x, PIRP Irp)
{
    NTSTATUS Status = IoAcquireRemoveLock(&x->Hw.RemoveLock, Irp);

    if (NT_SUCCESS(Status) && x->Hw.State != StateStarted && x->Hw.State != StateStopped) {
        IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
        Status = STATUS_DEVICE_NOT_CONNECTED;
    }
    return Status;
}

static NTSTATUS MetronomeLeave(DEVICE_EXTENSION *x, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Finish(Irp, Status, Information);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return Status;
}

static NTSTATUS NTAPI MetronomeDispatchCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS Status = MetronomeEnter(x, Irp);

    return NT_SUCCESS(Status) ? MetronomeLeave(x, Irp, STATUS_SUCCESS, 0) : Finish(Irp, Status, 0);
}

static NTSTATUS NTAPI MetronomeDispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    KIRQL Irql;

    KeAcquireSpinLock(&x->WaitLock, &Irql);
    File->FsContext = File;
    KeReleaseSpinLock(&x->WaitLock, Irql);
    MetronomeFlush(x, File, STATUS_CANCELLED);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI MetronomeDispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

/* The request waits for the card; STATUS_PENDING, or why not. */
static NTSTATUS MetronomeEnqueue(DEVICE_EXTENSION *x, PIRP Irp)
{
    NTSTATUS Status = IoAcquireRemoveLock(&x->Hw.RemoveLock, MetronomeEnqueue);

    if (!NT_SUCCESS(Status))
        return Status;
    Status = IoCsqInsertIrpEx(&x->Csq, Irp, NULL, NULL);
    if (NT_SUCCESS(Status)) {
        MetronomeKick(x);
        Status = STATUS_PENDING;
    }
    IoReleaseRemoveLock(&x->Hw.RemoveLock, MetronomeEnqueue);
    return Status;
}

static NTSTATUS MetronomeBeat(DEVICE_EXTENSION *x, ULONG Note)
{
    NTSTATUS Status = STATUS_SUCCESS;
    KIRQL Irql;

    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    if (x->Hw.Live && x->Hw.Gate == 0) {
        MetronomeWriteLocal(x, LOCAL_NOTE, Note);
        MetronomeWriteLocal(x, LOCAL_DOORBELL, 1);
    } else {
        Status = STATUS_DEVICE_NOT_READY;
    }
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
    return Status;
}

static NTSTATUS MetronomeSize(DEVICE_EXTENSION *x, ULONG Size)
{
    RING_CONTEXT c;
    KIRQL Irql;

    if (Size < RING_LEAST || Size > RING_MOST)
        return STATUS_INVALID_PARAMETER;
    c.Ring = &x->Ring;
    c.Size = Size;
    c.New = ExAllocatePoolWithTag(NonPagedPool, Size * sizeof(BEAT), POOL_TAG);
    if (c.New == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
#ifdef FIXED
    MetronomeWithRing(x, MetronomeChangeRing, &c);
#else
    MetronomeChangeRing(&c);
#endif
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
    ExFreePoolWithTag(c.New, POOL_TAG);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI MetronomeDispatchRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS Status = MetronomeEnter(x, Irp);

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length < sizeof(BEAT))
        return MetronomeLeave(x, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    Status = MetronomeEnqueue(x, Irp);
    return Status == STATUS_PENDING ? Status : MetronomeLeave(x, Irp, Status, 0);
}

static NTSTATUS NTAPI MetronomeDispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status = MetronomeEnter(x, Irp);
    ULONG_PTR Information = 0;
    RING_CONTEXT c;
    KIRQL Irql;

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BEAT:
        Status = In != sizeof(ULONG) ? STATUS_INVALID_PARAMETER : MetronomeBeat(x, *(PULONG)Buffer);
        break;
    case IOCTL_SIZE:
        Status = In != sizeof(ULONG) ? STATUS_INVALID_PARAMETER : MetronomeSize(x, *(PULONG)Buffer);
        break;
    case IOCTL_STATE:
        if (Out < sizeof(STATE)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&x->Hw.Lock, &Irql);
        MetronomeWithRing(x, MetronomeLookAtRing, &c);
        KeReleaseSpinLock(&x->Hw.Lock, Irql);
        RtlCopyMemory(Buffer, &c.State, sizeof(STATE));
        Information = sizeof(STATE);
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return MetronomeLeave(x, Irp, Status, Information);
}

static NTSTATUS NTAPI MetronomeAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Self;
    DEVICE_EXTENSION *x;
    NTSTATUS Status;

    Status = IoCreateDevice(Driver, sizeof(DEVICE_EXTENSION), NULL, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &Self);
    if (!NT_SUCCESS(Status))
        return Status;
    x = Self->DeviceExtension;
    RtlZeroMemory(x, sizeof(*x));
    x->Hw.Self = Self;
    x->Hw.Pdo = Pdo;
    x->Hw.State = StateAdded;
    x->Hw.Power = PowerDeviceD0;
    x->Hw.Gate = GATE_UNSTARTED;
    KeInitializeSpinLock(&x->Hw.Lock);
    IoInitializeRemoveLock(&x->Hw.RemoveLock, POOL_TAG, 0, 0);
    Status = MetronomeInit(x);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Self);
        return Status;
    }
    Status = IoRegisterDeviceInterface(Pdo, &INTERFACE_GUID, NULL, &x->Hw.Interface);
    if (!NT_SUCCESS(Status)) {
        MetronomeFree(x);
        IoDeleteDevice(Self);
        return Status;
    }
    x->Hw.Lower = IoAttachDeviceToDeviceStack(Self, Pdo);
    if (x->Hw.Lower == NULL) {
        RtlFreeUnicodeString(&x->Hw.Interface);
        MetronomeFree(x);
        IoDeleteDevice(Self);
        return STATUS_NO_SUCH_DEVICE;
    }
    Self->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
    Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI MetronomeUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->DriverExtension->AddDevice = MetronomeAddDevice;
    Driver->DriverUnload = MetronomeUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = MetronomeDispatchCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = MetronomeDispatchCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = MetronomeDispatchClose;
    Driver->MajorFunction[IRP_MJ_READ] = MetronomeDispatchRead;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = MetronomeDispatchControl;
    Driver->MajorFunction[IRP_MJ_PNP] = MetronomeDispatchPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = MetronomeDispatchPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = MetronomeDispatchSystemControl;
    return STATUS_SUCCESS;
}

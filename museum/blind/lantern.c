/*
 * lantern.c - 32 lamps and a button on the local bus of a PCI 9052.
 *
 * The lamps' levels are words of local memory.  A handle claims lamps, sets
 * them, or lets them fade, which a timer does; they are out when the handle is
 * closed.  While the card is not awake, levels are only noted, and set when it
 * is.  The button is LINTi1.
 *
 * The bug: CLEANUP puts the handle's lamps out without asking whether the card is awake, or there at all.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: card-without-power, wild-write
 * Needs: power, removal
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

DEFINE_GUID(INTERFACE_GUID, 0x9a41d709, 0x8c44, 0x4b0e, 0xa1, 0x5d, 0x6e, 0x10, 0x93, 0x27, 0x5c, 0x01);

#define POOL_TAG 'tnaL'
#define WINDOWS_NEEDED 2
#define LAMPS 32
#define LEVEL_MOST 255
#define TICK_MS 1

#define PLX_INTCSR 0x4c
#define INTCSR_LINT1_ENABLE 0x001
#define INTCSR_LINT1_HIGH 0x002
#define INTCSR_LINT1_STATUS 0x004
#define INTCSR_PCI_ENABLE 0x040
#define INTCSR_LINT1_EDGE 0x100
#define INTCSR_LINT1_CLEAR 0x400
#define INTCSR_ON (INTCSR_LINT1_ENABLE | INTCSR_LINT1_HIGH | INTCSR_PCI_ENABLE | INTCSR_LINT1_EDGE)

#define IOCTL_CLAIM CTL_CODE(FILE_DEVICE_UNKNOWN, 0xd30, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_RELEASE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xd31, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_SET CTL_CODE(FILE_DEVICE_UNKNOWN, 0xd32, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_FADE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xd33, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_BUTTON CTL_CODE(FILE_DEVICE_UNKNOWN, 0xd34, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_READ_BACK CTL_CODE(FILE_DEVICE_UNKNOWN, 0xd35, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct {
    ULONG Lamp;
    ULONG Level;
} LAMP_LEVEL;

typedef struct {
    BOOLEAN Closed; /* changes with both locks */
    ULONG Lamps;    /* that it has claimed; with Hw.Lock */
} HANDLE_CONTEXT;

typedef struct {
    HARDWARE_PART Hw;
    KDPC ButtonDpc;
    KDPC TickDpc;
    KTIMER Timer;

    /* With Hw.Lock, which is taken before WaitLock: */
    ULONG Claimed;
    ULONG Level[LAMPS];
    ULONG Target[LAMPS]; /* another one than Level: it fades */
    BOOLEAN Ticking;

    KSPIN_LOCK WaitLock;
    IO_CSQ Csq;
    LIST_ENTRY Waiting; /* for a fade to end, or for the button */
    BOOLEAN Closed;
    ULONG ButtonCode; /* its address: what waits for the button */
} DEVICE_EXTENSION;

static ULONG LanternRead(DEVICE_EXTENSION *x, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(x->Hw.Window[0] + Offset));
}

static VOID LanternWrite(DEVICE_EXTENSION *x, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->Hw.Window[0] + Offset), Value);
}

static ULONG LanternCode(PIRP Irp)
{
    return IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.IoControlCode;
}

/* Does the queue's user want this request?  Context: a handle; the device: a fade that has ended; ButtonCode. */
static BOOLEAN LanternWants(DEVICE_EXTENSION *x, PIRP Irp, PVOID Context)
{
    if (Context == x) {
        ULONG Lamp = ((LAMP_LEVEL *)Irp->AssociatedIrp.SystemBuffer)->Lamp;

        return LanternCode(Irp) == IOCTL_FADE && x->Level[Lamp] == x->Target[Lamp];
    }
    if (Context == &x->ButtonCode)
        return LanternCode(Irp) == IOCTL_BUTTON;
    return Context == NULL || IoGetCurrentIrpStackLocation(Irp)->FileObject == Context;
}

/* ---- requests that wait ---------------------------------------------------- */

#define FROM_CSQ(c) CONTAINING_RECORD(c, DEVICE_EXTENSION, Csq)

static NTSTATUS NTAPI LanternCsqInsert(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    DEVICE_EXTENSION *x = FROM_CSQ(Csq);

    UNREFERENCED_PARAMETER(Context);
    if (x->Closed)
        return STATUS_DEVICE_NOT_CONNECTED;
    if (((HANDLE_CONTEXT *)IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext)->Closed)
        return STATUS_CANCELLED;
    InsertTailList(&x->Waiting, &Irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

static VOID NTAPI LanternCsqRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI LanternCsqPeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    DEVICE_EXTENSION *x = FROM_CSQ(Csq);
    PLIST_ENTRY e = Irp != NULL ? Irp->Tail.Overlay.ListEntry.Flink : x->Waiting.Flink;

    for (; e != &x->Waiting; e = e->Flink) {
        Irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (LanternWants(x, Irp, Context))
            return Irp;
    }
    return NULL;
}

static VOID NTAPI LanternCsqAcquire(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&FROM_CSQ(Csq)->WaitLock, Irql);
}

static VOID NTAPI LanternCsqRelease(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&FROM_CSQ(Csq)->WaitLock, Irql);
}

/* Each request that waits, or is with the card, holds a remove lock. */
static VOID LanternEnd(DEVICE_EXTENSION *x, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Finish(Irp, Status, Information);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
}

static VOID NTAPI LanternCsqCancelled(PIO_CSQ Csq, PIRP Irp)
{
    LanternEnd(FROM_CSQ(Csq), Irp, STATUS_CANCELLED, 0);
}

static VOID LanternFlush(DEVICE_EXTENSION *x, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP Irp;

    while ((Irp = IoCsqRemoveNextIrp(&x->Csq, File)) != NULL)
        LanternEnd(x, Irp, Status, 0);
}

static VOID LanternCloseQueue(DEVICE_EXTENSION *x)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->WaitLock, &Irql);
    x->Closed = TRUE;
    KeReleaseSpinLock(&x->WaitLock, Irql);
    LanternFlush(x, NULL, STATUS_DEVICE_NOT_CONNECTED);
}

static NTSTATUS LanternInitQueue(DEVICE_EXTENSION *x)
{
    KeInitializeSpinLock(&x->WaitLock);
    InitializeListHead(&x->Waiting);
    return IoCsqInitializeEx(&x->Csq, LanternCsqInsert, LanternCsqRemove, LanternCsqPeek, LanternCsqAcquire, LanternCsqRelease,
                             LanternCsqCancelled);
}

/* ---- the lamps: with the lock held ------------------------------------------------------ */

static VOID LanternWriteLamp(DEVICE_EXTENSION *x, ULONG Lamp)
{
    WRITE_REGISTER_ULONG((PULONG)(x->Hw.Window[1] + Lamp * sizeof(ULONG)), x->Level[Lamp]);
}

static VOID LanternPut(DEVICE_EXTENSION *x, ULONG Lamp, ULONG Level)
{
    x->Level[Lamp] = Level;
    x->Target[Lamp] = Level;
    if (x->Hw.Live)
        LanternWriteLamp(x, Lamp);
}

/* TRUE: some lamp fades yet. */
static BOOLEAN LanternStep(DEVICE_EXTENSION *x)
{
    BOOLEAN More = FALSE;
    ULONG i;

    for (i = 0; i < LAMPS; i++) {
        if (x->Level[i] == x->Target[i])
            continue;
        if (x->Level[i] < x->Target[i])
            x->Level[i]++;
        else
            x->Level[i]--;
        if (x->Hw.Live)
            LanternWriteLamp(x, i);
        if (x->Level[i] != x->Target[i])
            More = TRUE;
    }
    return More;
}

static VOID LanternSetTimer(DEVICE_EXTENSION *x)
{
    LARGE_INTEGER Due;

    Due.QuadPart = -10000LL * TICK_MS;
    x->Ticking = TRUE;
    KeSetTimer(&x->Timer, Due, &x->TickDpc);
}

/* Fades that have ended: their requests come into the list. */
static VOID LanternCollect(DEVICE_EXTENSION *x, PVOID Which, PLIST_ENTRY Ended)
{
    PIRP Irp;

    while ((Irp = IoCsqRemoveNextIrp(&x->Csq, Which)) != NULL)
        InsertTailList(Ended, &Irp->Tail.Overlay.ListEntry);
}

static VOID LanternEndAll(DEVICE_EXTENSION *x, PLIST_ENTRY Ended)
{
    while (!IsListEmpty(Ended))
        LanternEnd(x, CONTAINING_RECORD(RemoveHeadList(Ended), IRP, Tail.Overlay.ListEntry), STATUS_SUCCESS, 0);
}

/* A lamp may have been given another level, or a fade has begun. */
static VOID LanternKick(DEVICE_EXTENSION *x)
{
    LIST_ENTRY Ended;
    KIRQL Irql;
    ULONG i;

    InitializeListHead(&Ended);
    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    LanternCollect(x, x, &Ended);
    for (i = 0; i < LAMPS && !x->Ticking && !(x->Hw.Gate & GATE_GONE); i++)
        if (x->Level[i] != x->Target[i])
            LanternSetTimer(x);
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
    LanternEndAll(x, &Ended);
}

static VOID NTAPI LanternTick(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    DEVICE_EXTENSION *x = Context;
    LIST_ENTRY Ended;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    InitializeListHead(&Ended);
    KeAcquireSpinLockAtDpcLevel(&x->Hw.Lock);
    x->Ticking = FALSE;
    if (!(x->Hw.Gate & GATE_GONE)) {
        if (LanternStep(x))
            LanternSetTimer(x);
        LanternCollect(x, x, &Ended);
    }
    KeReleaseSpinLockFromDpcLevel(&x->Hw.Lock);
    LanternEndAll(x, &Ended);
}

/* ---- the button ----------------------------------------------------------------------------- */

static BOOLEAN NTAPI LanternInterrupt(PKINTERRUPT Interrupt, PVOID Context)
{
    DEVICE_EXTENSION *x = Context;
    ULONG Intcsr;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!x->Hw.IsrLive)
        return FALSE;
    Intcsr = LanternRead(x, PLX_INTCSR);
    if (Intcsr == 0xffffffff || !(Intcsr & INTCSR_LINT1_STATUS))
        return FALSE;
    LanternWrite(x, PLX_INTCSR, INTCSR_ON | INTCSR_LINT1_CLEAR);
    KeInsertQueueDpc(&x->ButtonDpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI LanternButton(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    DEVICE_EXTENSION *x = Context;
    LIST_ENTRY Ended;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    InitializeListHead(&Ended);
    KeAcquireSpinLockAtDpcLevel(&x->Hw.Lock);
    LanternCollect(x, &x->ButtonCode, &Ended);
    KeReleaseSpinLockFromDpcLevel(&x->Hw.Lock);
    LanternEndAll(x, &Ended);
}

/* ---- what the card needs --------------------------------------------------------------------- */

static NTSTATUS LanternPrepare(DEVICE_EXTENSION *x)
{
    return x->Hw.WindowLength[1] < LAMPS * sizeof(ULONG) ? STATUS_DEVICE_CONFIGURATION_ERROR : STATUS_SUCCESS;
}

static VOID LanternRelease(DEVICE_EXTENSION *x)
{
    UNREFERENCED_PARAMETER(x);
}

static VOID LanternEnable(DEVICE_EXTENSION *x)
{
    ULONG i;

    for (i = 0; i < LAMPS; i++)
        LanternWriteLamp(x, i);
    LanternWrite(x, PLX_INTCSR, INTCSR_ON | INTCSR_LINT1_CLEAR);
}

static VOID LanternDisable(DEVICE_EXTENSION *x)
{
    LanternWrite(x, PLX_INTCSR, INTCSR_LINT1_CLEAR);
}

/* Nothing is ever under way with the card. */
static VOID LanternDrain(DEVICE_EXTENSION *x)
{
    UNREFERENCED_PARAMETER(x);
}

static VOID LanternAbort(DEVICE_EXTENSION *x)
{
    LanternCloseQueue(x);
    KeCancelTimer(&x->Timer); /* it is not set any more */
    KeFlushQueuedDpcs();
}

static NTSTATUS LanternInit(DEVICE_EXTENSION *x)
{
    KeInitializeDpc(&x->ButtonDpc, LanternButton, x);
    KeInitializeDpc(&x->TickDpc, LanternTick, x);
    KeInitializeTimer(&x->Timer);
    return LanternInitQueue(x);
}

static VOID LanternFree(DEVICE_EXTENSION *x)
{
    UNREFERENCED_PARAMETER(x);
}

/* ---- the card comes and goes ---------------------------------------------------- */

static BOOLEAN NTAPI LanternSyncUp(PVOID Context)
{
    DEVICE_EXTENSION *x = Context;

    LanternEnable(x);
    x->Hw.IsrLive = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI LanternSyncDown(PVOID Context)
{
    DEVICE_EXTENSION *x = Context;

    LanternDisable(x);
    x->Hw.IsrLive = FALSE;
    return TRUE;
}

static BOOLEAN NTAPI LanternSyncLost(PVOID Context)
{
    DEVICE_EXTENSION *x = Context;

    x->Hw.IsrLive = FALSE;
    return TRUE;
}

static VOID LanternUp(DEVICE_EXTENSION *x)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    if (x->Hw.Interrupt != NULL && !x->Hw.Live && !(x->Hw.Gate & GATE_GONE)) {
        KeSynchronizeExecution(x->Hw.Interrupt, LanternSyncUp, x);
        x->Hw.Live = TRUE;
    }
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
}

static VOID LanternDown(DEVICE_EXTENSION *x)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    if (x->Hw.Live)
        KeSynchronizeExecution(x->Hw.Interrupt, LanternSyncDown, x);
    x->Hw.Live = FALSE;
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
}

static VOID LanternCloseGate(DEVICE_EXTENSION *x, ULONG Why)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    x->Hw.Gate |= Why;
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
}

static VOID LanternOpenGate(DEVICE_EXTENSION *x, ULONG Why)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    x->Hw.Gate &= ~Why;
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
    LanternKick(x);
}

/* Whatever there is of it, and as often as is wanted. */
static VOID LanternTearDown(DEVICE_EXTENSION *x)
{
    PKINTERRUPT Interrupt;
    KIRQL Irql;

    LanternDown(x);
    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    Interrupt = x->Hw.Interrupt;
    x->Hw.Interrupt = NULL;
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
    if (Interrupt != NULL)
        IoDisconnectInterrupt(Interrupt);
    KeFlushQueuedDpcs();
    LanternRelease(x);
    while (x->Hw.Windows != 0) {
        x->Hw.Windows--;
        MmUnmapIoSpace(x->Hw.Window[x->Hw.Windows], x->Hw.WindowLength[x->Hw.Windows]);
        x->Hw.Window[x->Hw.Windows] = NULL;
    }
}

static NTSTATUS LanternConnect(DEVICE_EXTENSION *x, PCM_PARTIAL_RESOURCE_DESCRIPTOR Line)
{
    PKINTERRUPT Interrupt = NULL;
    NTSTATUS Status;
    KIRQL Irql;

    Status = IoConnectInterrupt(&Interrupt, LanternInterrupt, x, NULL, Line->u.Interrupt.Vector,
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

static NTSTATUS LanternSetUp(DEVICE_EXTENSION *x, PCM_RESOURCE_LIST Resources)
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
        Status = LanternPrepare(x);
    if (NT_SUCCESS(Status))
        Status = LanternConnect(x, Line);
    if (!NT_SUCCESS(Status)) {
        LanternTearDown(x);
        return Status;
    }
    x->Hw.Power = PowerDeviceD0;
    LanternUp(x);
    return STATUS_SUCCESS;
}

/* ---- Plug and Play ------------------------------------------------------------- */

static NTSTATUS LanternPassDown(DEVICE_EXTENSION *x, PIRP Irp)
{
    NTSTATUS Status;

    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(x->Hw.Lower, Irp);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return Status;
}

static NTSTATUS LanternPnpStart(DEVICE_EXTENSION *x, PIRP Irp)
{
    PCM_RESOURCE_LIST Resources = IoGetCurrentIrpStackLocation(Irp)->Parameters.StartDevice.AllocatedResourcesTranslated;
    NTSTATUS Status = STATUS_UNSUCCESSFUL;

    if (IoForwardIrpSynchronously(x->Hw.Lower, Irp))
        Status = Irp->IoStatus.Status;
    if (NT_SUCCESS(Status))
        Status = LanternSetUp(x, Resources);
    if (NT_SUCCESS(Status)) {
        InterlockedExchange(&x->Hw.State, StateStarted);
        IoSetDeviceInterfaceState(&x->Hw.Interface, TRUE);
        LanternOpenGate(x, GATE_UNSTARTED | GATE_STOPPING | GATE_ASLEEP);
    }
    Finish(Irp, Status, Irp->IoStatus.Information);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return Status;
}

static NTSTATUS LanternPnpCancelStop(DEVICE_EXTENSION *x, PIRP Irp)
{
    NTSTATUS Status = STATUS_UNSUCCESSFUL;

    Irp->IoStatus.Status = STATUS_SUCCESS;
    if (IoForwardIrpSynchronously(x->Hw.Lower, Irp))
        Status = Irp->IoStatus.Status;
    LanternOpenGate(x, GATE_STOPPING);
    Finish(Irp, Status, Irp->IoStatus.Information);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return Status;
}

static VOID LanternPnpSurprise(DEVICE_EXTENSION *x)
{
    KIRQL Irql;

    InterlockedExchange(&x->Hw.State, StateGone);
    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    x->Hw.Gate |= GATE_GONE;
    x->Hw.Live = FALSE;
    if (x->Hw.Interrupt != NULL)
        KeSynchronizeExecution(x->Hw.Interrupt, LanternSyncLost, x);
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
    IoSetDeviceInterfaceState(&x->Hw.Interface, FALSE);
    LanternAbort(x);
    LanternTearDown(x);
}

static NTSTATUS LanternPnpRemove(DEVICE_EXTENSION *x, PIRP Irp)
{
    PDEVICE_OBJECT Lower = x->Hw.Lower;
    NTSTATUS Status;

    if (InterlockedExchange(&x->Hw.State, StateDeleted) != StateGone) {
        IoSetDeviceInterfaceState(&x->Hw.Interface, FALSE);
        LanternCloseGate(x, GATE_GONE);
        LanternDrain(x);
        LanternAbort(x);
        LanternTearDown(x);
    }
    IoReleaseRemoveLockAndWait(&x->Hw.RemoveLock, Irp);
    LanternFree(x);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(Lower, Irp);
    RtlFreeUnicodeString(&x->Hw.Interface);
    IoDetachDevice(Lower);
    IoDeleteDevice(x->Hw.Self);
    return Status;
}

static NTSTATUS NTAPI LanternDispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Hw.RemoveLock, Irp);

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    switch (IoGetCurrentIrpStackLocation(Irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        return LanternPnpStart(x, Irp);
    case IRP_MN_CANCEL_STOP_DEVICE:
        return LanternPnpCancelStop(x, Irp);
    case IRP_MN_REMOVE_DEVICE:
        return LanternPnpRemove(x, Irp);
    case IRP_MN_QUERY_STOP_DEVICE:
        LanternCloseGate(x, GATE_STOPPING);
        LanternDrain(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_STOP_DEVICE:
        LanternCloseGate(x, GATE_STOPPING);
        LanternDrain(x);
        InterlockedExchange(&x->Hw.State, StateStopped);
        LanternTearDown(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        LanternPnpSurprise(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    default:
        break;
    }
    return LanternPassDown(x, Irp);
}

static NTSTATUS NTAPI LanternDispatchSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Hw.RemoveLock, Irp);

    return NT_SUCCESS(Status) ? LanternPassDown(x, Irp) : Finish(Irp, Status, Irp->IoStatus.Information);
}

/* ---- power: awake while the system is ------------------------------------------------- */

static VOID NTAPI LanternDeviceIrpDone(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context,
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

static NTSTATUS NTAPI LanternSystemIrpDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    DEVICE_EXTENSION *x = Context;
    NTSTATUS Status = Irp->IoStatus.Status;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Status)) {
        PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
        POWER_STATE State;

        State.DeviceState =
            Stack->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        Status = PoRequestPowerIrp(x->Hw.Self, IRP_MN_SET_POWER, State, LanternDeviceIrpDone, Irp, NULL);
        if (NT_SUCCESS(Status))
            return STATUS_MORE_PROCESSING_REQUIRED;
        Irp->IoStatus.Status = Status;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI LanternAwakeDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    DEVICE_EXTENSION *x = Context;

    UNREFERENCED_PARAMETER(Device);
    if (Irp->PendingReturned)
        IoMarkIrpPending(Irp);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        x->Hw.Power = PowerDeviceD0;
        PoSetPowerState(x->Hw.Self, DevicePowerState, IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State);
        LanternUp(x);
        LanternOpenGate(x, GATE_ASLEEP);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI LanternDispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
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
        IoSetCompletionRoutine(Irp, LanternSystemIrpDone, x, TRUE, TRUE, TRUE);
        PoCallDriver(x->Hw.Lower, Irp);
        return STATUS_PENDING;
    }
    if (Stack->MinorFunction == IRP_MN_SET_POWER) {
        DEVICE_POWER_STATE To = Stack->Parameters.Power.State.DeviceState;

        if (To == PowerDeviceD0 && x->Hw.Power != PowerDeviceD0) {
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, LanternAwakeDone, x, TRUE, TRUE, TRUE);
            return PoCallDriver(x->Hw.Lower, Irp);
        }
        if (To != PowerDeviceD0 && x->Hw.Power == PowerDeviceD0) {
            LanternCloseGate(x, GATE_ASLEEP);
            LanternDrain(x);
            LanternDown(x);
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
static NTSTATUS LanternEnter(DEVICE_EXTENSION *x, PIRP Irp)
{
    NTSTATUS Status = IoAcquireRemoveLock(&x->Hw.RemoveLock, Irp);

    if (NT_SUCCESS(Status) && x->Hw.State != StateStarted && x->Hw.State != StateStopped) {
        IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
        Status = STATUS_DEVICE_NOT_CONNECTED;
    }
    return Status;
}

static NTSTATUS LanternLeave(DEVICE_EXTENSION *x, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Finish(Irp, Status, Information);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return Status;
}

static NTSTATUS NTAPI LanternDispatchCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS Status = LanternEnter(x, Irp);
    HANDLE_CONTEXT *h;

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    h = ExAllocatePoolWithTag(NonPagedPool, sizeof(HANDLE_CONTEXT), POOL_TAG);
    if (h == NULL)
        return LanternLeave(x, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(h, sizeof(*h));
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = h;
    return LanternLeave(x, Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI LanternDispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    HANDLE_CONTEXT *h = File->FsContext;
    KIRQL Irql;
    ULONG i;

    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    KeAcquireSpinLockAtDpcLevel(&x->WaitLock);
    h->Closed = TRUE;
    KeReleaseSpinLockFromDpcLevel(&x->WaitLock);
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
    LanternFlush(x, File, STATUS_CANCELLED);
    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    for (i = 0; i < LAMPS; i++) {
        if (!(h->Lamps & (1u << i)))
            continue;
#ifdef FIXED
        LanternPut(x, i, 0);
#else
        x->Level[i] = x->Target[i] = 0;
        LanternWriteLamp(x, i);
#endif
    }
    x->Claimed &= ~h->Lamps;
    h->Lamps = 0;
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI LanternDispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    ExFreePoolWithTag(IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext, POOL_TAG);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

/* The request waits for the card; STATUS_PENDING, or why not. */
static NTSTATUS LanternEnqueue(DEVICE_EXTENSION *x, PIRP Irp)
{
    NTSTATUS Status = IoAcquireRemoveLock(&x->Hw.RemoveLock, LanternEnqueue);

    if (!NT_SUCCESS(Status))
        return Status;
    Status = IoCsqInsertIrpEx(&x->Csq, Irp, NULL, NULL);
    if (NT_SUCCESS(Status)) {
        LanternKick(x);
        Status = STATUS_PENDING;
    }
    IoReleaseRemoveLock(&x->Hw.RemoveLock, LanternEnqueue);
    return Status;
}

static NTSTATUS LanternClaim(DEVICE_EXTENSION *x, HANDLE_CONTEXT *h, ULONG Lamps)
{
    NTSTATUS Status = STATUS_SUCCESS;
    KIRQL Irql;

    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    if (h->Closed)
        Status = STATUS_CANCELLED;
    else if (x->Claimed & ~h->Lamps & Lamps)
        Status = STATUS_SHARING_VIOLATION;
    if (NT_SUCCESS(Status)) {
        x->Claimed |= Lamps;
        h->Lamps |= Lamps;
    }
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
    return Status;
}

static VOID LanternGiveUp(DEVICE_EXTENSION *x, HANDLE_CONTEXT *h, ULONG Lamps)
{
    KIRQL Irql;
    ULONG i;

    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    Lamps &= h->Lamps;
    for (i = 0; i < LAMPS; i++)
        if (Lamps & (1u << i))
            LanternPut(x, i, 0);
    x->Claimed &= ~Lamps;
    h->Lamps &= ~Lamps;
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
    LanternKick(x);
}

/* Fade: the level is a target. */
static NTSTATUS LanternSet(DEVICE_EXTENSION *x, HANDLE_CONTEXT *h, LAMP_LEVEL *l, BOOLEAN Fade)
{
    NTSTATUS Status = STATUS_SUCCESS;
    KIRQL Irql;

    if (l->Lamp >= LAMPS || l->Level > LEVEL_MOST)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    if (!(h->Lamps & (1u << l->Lamp)))
        Status = STATUS_ACCESS_DENIED;
    else if (Fade)
        x->Target[l->Lamp] = l->Level;
    else
        LanternPut(x, l->Lamp, l->Level);
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
    if (NT_SUCCESS(Status))
        LanternKick(x);
    return Status;
}

static NTSTATUS LanternReadBack(DEVICE_EXTENSION *x, PULONG Lamp)
{
    NTSTATUS Status = STATUS_SUCCESS;
    KIRQL Irql;

    if (*Lamp >= LAMPS)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    if (x->Hw.Live)
        *Lamp = READ_REGISTER_ULONG((PULONG)(x->Hw.Window[1] + *Lamp * sizeof(ULONG)));
    else
        Status = STATUS_DEVICE_NOT_READY;
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
    return Status;
}

static NTSTATUS NTAPI LanternDispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    HANDLE_CONTEXT *h = Stack->FileObject->FsContext;
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG Code = LanternCode(Irp);
    NTSTATUS Status = LanternEnter(x, Irp);
    ULONG_PTR Information = 0;

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    switch (Code) {
    case IOCTL_CLAIM:
        Status = In != sizeof(ULONG) ? STATUS_INVALID_PARAMETER : LanternClaim(x, h, *(PULONG)Buffer);
        break;
    case IOCTL_RELEASE:
        if (In != sizeof(ULONG))
            Status = STATUS_INVALID_PARAMETER;
        else
            LanternGiveUp(x, h, *(PULONG)Buffer);
        break;
    case IOCTL_SET:
    case IOCTL_FADE:
        if (In != sizeof(LAMP_LEVEL)) {
            Status = STATUS_INVALID_PARAMETER;
            break;
        }
        Status = LanternSet(x, h, Buffer, Code == IOCTL_FADE);
        if (NT_SUCCESS(Status) && Code == IOCTL_FADE)
            Status = LanternEnqueue(x, Irp);
        if (Status == STATUS_PENDING)
            return Status;
        break;
    case IOCTL_BUTTON:
        Status = LanternEnqueue(x, Irp);
        if (Status == STATUS_PENDING)
            return Status;
        break;
    case IOCTL_READ_BACK:
        if (In != sizeof(ULONG) || Out < sizeof(ULONG)) {
            Status = STATUS_INVALID_PARAMETER;
            break;
        }
        Status = LanternReadBack(x, Buffer);
        Information = NT_SUCCESS(Status) ? sizeof(ULONG) : 0;
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return LanternLeave(x, Irp, Status, Information);
}

static NTSTATUS NTAPI LanternAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
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
    Status = LanternInit(x);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Self);
        return Status;
    }
    Status = IoRegisterDeviceInterface(Pdo, &INTERFACE_GUID, NULL, &x->Hw.Interface);
    if (!NT_SUCCESS(Status)) {
        LanternFree(x);
        IoDeleteDevice(Self);
        return Status;
    }
    x->Hw.Lower = IoAttachDeviceToDeviceStack(Self, Pdo);
    if (x->Hw.Lower == NULL) {
        RtlFreeUnicodeString(&x->Hw.Interface);
        LanternFree(x);
        IoDeleteDevice(Self);
        return STATUS_NO_SUCH_DEVICE;
    }
    Self->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
    Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI LanternUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->DriverExtension->AddDevice = LanternAddDevice;
    Driver->DriverUnload = LanternUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = LanternDispatchCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = LanternDispatchCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = LanternDispatchClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = LanternDispatchControl;
    Driver->MajorFunction[IRP_MJ_PNP] = LanternDispatchPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = LanternDispatchPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = LanternDispatchSystemControl;
    return STATUS_SUCCESS;
}

/*
 * sieve.c - frames out of the bench card's FIFO.
 *
 * What comes out of the FIFO are frames: a word with a mark and the length,
 * and so many words.  RECEIVE gets the next whole frame, and waits for it; some
 * are kept that no one has asked for yet.  INJECT puts words in at the other end,
 * of which the card tells by source 1; a frame may come in several pieces.
 *
 * The bug: when the card goes to D3 a frame that is half there is freed, but the cursor and the count of what it
 * lacks are kept.
 *
 * Device: PCI\VEN_1234&DEV_BE2C
 * Rule: use-after-free
 * Needs: ioctl, power
 */
#include <initguid.h>
#include <ddk/wdm.h>

typedef enum { PhaseAdded, PhaseStarted, PhaseStopped, PhaseSurprise, PhaseRemoved } PHASE;

/* Why nothing may be begun with the card now. */
enum { HOLD_NEW = 1, HOLD_STOP = 2, HOLD_POWER = 4, HOLD_GONE = 8 };

typedef struct {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Next; /* the device below */
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING SymbolicName;
    volatile LONG Phase;
    DEVICE_POWER_STATE Power;

    KSPIN_LOCK Lock; /* Holds, Up, and what the driver says below */
    ULONG Holds;
    BOOLEAN Up;                 /* registers may be accessed with the lock held */
    volatile BOOLEAN Answering; /* the same for the interrupt routine */
    PKINTERRUPT Interrupt;
    PUCHAR Registers;
    ULONG RegistersLength;
} COMMON;

static NTSTATUS CompleteIrp(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

DEFINE_GUID(INTERFACE_GUID, 0x3f20b109, 0x8c44, 0x4b0e, 0xa1, 0x5d, 0x6e, 0x10, 0x93, 0x27, 0x5c, 0x01);

#define POOL_TAG 'veiS'
#define FRAME_WORDS 32
#define FRAME_SIZE (FRAME_WORDS * sizeof(ULONG))
#define FRAMES_KEPT 8
#define INJECT_WORDS FIFO_WORDS

#define FRAME_MARK 0xf7a30000
#define FRAME_MARK_MASK 0xffff0000
#define FRAME_LENGTH_MASK 0x0000ffff

#define BENCH_ID 0x00
#define BENCH_RAISE 0x08
#define BENCH_STATUS_AND_CLEAR 0x10
#define BENCH_ENABLE 0x14
#define BENCH_FIFO 0x24
#define BENCH_FIFO_STATUS 0x28
#define FIFO_COUNT 0xff
#define FIFO_WORDS 16
#define SOURCE_FIFO 0x02

#define IOCTL_INJECT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb90, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_RECEIVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb91, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_COUNTERS CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb92, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct {
    ULONG Frames;
    ULONG Dropped; /* whole ones that no one wanted, or had no room */
    ULONG Broken;  /* that were lost before they were whole */
    ULONG Stray;   /* words outside of any frame */
} COUNTERS;

typedef struct {
    LIST_ENTRY Entry;
    ULONG Length; /* words */
    ULONG Words[FRAME_WORDS];
} FRAME;

typedef struct {
    COMMON Common;
    KDPC Dpc;

    /* With Common.Lock, which is taken before WaitLock: */
    FRAME *Partial;  /* the frame that is coming in, NULL: no memory for it */
    PULONG Cursor;   /* where in it its next word goes, NULL: nowhere */
    ULONG Remaining; /* words that it still lacks; 0: none is coming in */
    ULONG Kept;
    LIST_ENTRY Frames;
    COUNTERS Counters;

    KSPIN_LOCK WaitLock;
    LIST_ENTRY WaitList;
} DEVICE_EXT;

static ULONG ReadCard(DEVICE_EXT *x, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(x->Common.Registers + Offset));
}

static VOID WriteCard(DEVICE_EXT *x, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->Common.Registers + Offset), Value);
}

/* ---- requests that wait ---------------------------------------------------------- */

/* Each of them holds a remove lock. */
static VOID CompleteWaiter(DEVICE_EXT *x, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    CompleteIrp(Irp, Status, Information);
    IoReleaseRemoveLock(&x->Common.RemoveLock, Irp);
}

/* Is it of this file, or anyone's if there is none? */
static BOOLEAN IsWanted(PIRP Irp, PVOID Wanted)
{
    return Wanted == NULL || IoGetCurrentIrpStackLocation(Irp)->FileObject == Wanted;
}

static VOID NTAPI CancelWaiter(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXT *x = Device->DeviceExtension;
    KIRQL Irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&x->WaitLock, &Irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&x->WaitLock, Irql);
    CompleteWaiter(x, Irp, STATUS_CANCELLED, 0);
}

/* STATUS_PENDING: it waits; STATUS_CANCELLED: it has been cancelled already, and the caller is to end it. */
static NTSTATUS QueueWaiter(DEVICE_EXT *x, PIRP Irp)
{
    NTSTATUS Status = STATUS_PENDING;
    KIRQL Irql;

    KeAcquireSpinLock(&x->WaitLock, &Irql);
    InsertTailList(&x->WaitList, &Irp->Tail.Overlay.ListEntry);
    IoSetCancelRoutine(Irp, CancelWaiter);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
        RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
        Status = STATUS_CANCELLED;
    } else {
        IoMarkIrpPending(Irp); /* no one ends it while the lock is held */
    }
    KeReleaseSpinLock(&x->WaitLock, Irql);
    return Status;
}

/* The first request that is wanted, which is the caller's from then on; or NULL. */
static PIRP TakeWaiter(DEVICE_EXT *x, PVOID Wanted)
{
    PLIST_ENTRY e, Following;
    PIRP Taken = NULL;
    KIRQL Irql;

    KeAcquireSpinLock(&x->WaitLock, &Irql);
    for (e = x->WaitList.Flink; e != &x->WaitList && Taken == NULL; e = Following) {
        PIRP Irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        Following = e->Flink;
        if (!IsWanted(Irp, Wanted))
            continue;
        RemoveEntryList(e);
        if (IoSetCancelRoutine(Irp, NULL) != NULL)
            Taken = Irp;
        else
            InitializeListHead(e); /* its cancel routine takes it off this one */
    }
    KeReleaseSpinLock(&x->WaitLock, Irql);
    return Taken;
}

static VOID FlushWaiters(DEVICE_EXT *x, PVOID Wanted, NTSTATUS Status)
{
    PIRP Irp;

    while ((Irp = TakeWaiter(x, Wanted)) != NULL)
        CompleteWaiter(x, Irp, Status, 0);
}

static VOID InitWaiters(DEVICE_EXT *x)
{
    KeInitializeSpinLock(&x->WaitLock);
    InitializeListHead(&x->WaitList);
}

/* ---- frames: with the lock held ---------------------------------------------------------- */

static ULONG_PTR FillFrame(PIRP Irp, const FRAME *f)
{
    RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, f->Words, f->Length * sizeof(ULONG));
    return f->Length * sizeof(ULONG);
}

/* To someone who waits, whose request is to be completed without the lock; or into the store. */
static VOID DeliverFrame(DEVICE_EXT *x, FRAME *f, PLIST_ENTRY Ready)
{
    PIRP Irp = TakeWaiter(x, NULL);

    x->Counters.Frames++;
    if (Irp != NULL) {
        Irp->IoStatus.Information = FillFrame(Irp, f);
        InsertTailList(Ready, &Irp->Tail.Overlay.ListEntry);
        ExFreePoolWithTag(f, POOL_TAG);
    } else if (x->Kept < FRAMES_KEPT) {
        x->Kept++;
        InsertTailList(&x->Frames, &f->Entry);
    } else {
        x->Counters.Dropped++;
        ExFreePoolWithTag(f, POOL_TAG);
    }
}

static VOID BeginFrame(DEVICE_EXT *x, ULONG Length)
{
    x->Remaining = Length;
    x->Partial = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(FRAME), POOL_TAG);
    x->Cursor = NULL;
    if (x->Partial != NULL) {
        x->Partial->Length = Length;
        x->Cursor = x->Partial->Words;
    }
}

static VOID SiftWord(DEVICE_EXT *x, ULONG Word, PLIST_ENTRY Ready)
{
    FRAME *f;

    if (x->Remaining == 0) {
        ULONG Length = Word & FRAME_LENGTH_MASK;

        if ((Word & FRAME_MARK_MASK) == FRAME_MARK && Length != 0 && Length <= FRAME_WORDS)
            BeginFrame(x, Length);
        else
            x->Counters.Stray++;
        return;
    }
    if (x->Cursor != NULL)
        *x->Cursor++ = Word;
    if (--x->Remaining != 0)
        return;
    f = x->Partial;
    x->Partial = NULL;
    x->Cursor = NULL;
    if (f != NULL)
        DeliverFrame(x, f, Ready);
    else
        x->Counters.Dropped++;
}

/* The rest of the frame that is coming in will not come any more. */
static VOID DropPartial(DEVICE_EXT *x)
{
    if (x->Remaining != 0)
        x->Counters.Broken++;
    if (x->Partial != NULL)
        ExFreePoolWithTag(x->Partial, POOL_TAG);
    x->Partial = NULL;
#ifdef FIXED
    x->Cursor = NULL;
    x->Remaining = 0;
#endif
}

static VOID CompleteReady(DEVICE_EXT *x, PLIST_ENTRY Ready)
{
    while (!IsListEmpty(Ready)) {
        PIRP Irp = CONTAINING_RECORD(RemoveHeadList(Ready), IRP, Tail.Overlay.ListEntry);

        CompleteWaiter(x, Irp, STATUS_SUCCESS, Irp->IoStatus.Information);
    }
}

/* ---- the card ------------------------------------------------------------------------- */

static BOOLEAN NTAPI OnInterrupt(PKINTERRUPT Interrupt, PVOID Context)
{
    DEVICE_EXT *x = Context;
    ULONG Causes;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!x->Common.Answering)
        return FALSE;
    Causes = ReadCard(x, BENCH_STATUS_AND_CLEAR);
    if (Causes == 0 || Causes == 0xffffffff)
        return FALSE;
    if (Causes & SOURCE_FIFO)
        KeInsertQueueDpc(&x->Dpc, NULL, NULL);
    return TRUE;
}

/* Takes out of the FIFO what is in it. */
static VOID EmptyFifo(DEVICE_EXT *x)
{
    ULONG Status, Count;
    LIST_ENTRY Ready;
    KIRQL Irql;

    InitializeListHead(&Ready);
    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    if (x->Common.Up) {
        Status = ReadCard(x, BENCH_FIFO_STATUS);
        if (Status != 0xffffffff)
            for (Count = Status & FIFO_COUNT; Count != 0; Count--)
                SiftWord(x, ReadCard(x, BENCH_FIFO), &Ready);
    }
    KeReleaseSpinLock(&x->Common.Lock, Irql);
    CompleteReady(x, &Ready);
}

static VOID NTAPI OnDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    EmptyFifo(Context);
}

static NTSTATUS CardWindow(DEVICE_EXT *x, PCM_PARTIAL_RESOURCE_DESCRIPTOR Memory)
{
    UNREFERENCED_PARAMETER(x);
    UNREFERENCED_PARAMETER(Memory);
    return STATUS_SUCCESS;
}

static NTSTATUS CardPrepare(DEVICE_EXT *x)
{
    return ReadCard(x, BENCH_ID) == 0xffffffff ? STATUS_DEVICE_CONFIGURATION_ERROR : STATUS_SUCCESS;
}

static VOID CardEnable(DEVICE_EXT *x)
{
    ReadCard(x, BENCH_STATUS_AND_CLEAR);
    WriteCard(x, BENCH_ENABLE, SOURCE_FIFO);
}

static VOID CardDisable(DEVICE_EXT *x)
{
    WriteCard(x, BENCH_ENABLE, 0);
}

/* No frame goes on behind the card's sleep. */
static VOID CardAsleep(DEVICE_EXT *x)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    DropPartial(x);
    KeReleaseSpinLock(&x->Common.Lock, Irql);
}

static VOID CardStopped(DEVICE_EXT *x)
{
    KIRQL Irql;

    KeFlushQueuedDpcs();
    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    DropPartial(x);
    x->Cursor = NULL;
    x->Remaining = 0;
    KeReleaseSpinLock(&x->Common.Lock, Irql);
}

static VOID CardKick(DEVICE_EXT *x)
{
    UNREFERENCED_PARAMETER(x);
}

/* Once nothing may be begun, nothing comes into the FIFO any more either. */
static VOID CardDrain(DEVICE_EXT *x)
{
    EmptyFifo(x);
}

static VOID CardGone(DEVICE_EXT *x)
{
    FlushWaiters(x, NULL, STATUS_DEVICE_NOT_CONNECTED);
}

static NTSTATUS DevInit(DEVICE_EXT *x)
{
    InitializeListHead(&x->Frames);
    KeInitializeDpc(&x->Dpc, OnDpc, x);
    InitWaiters(x);
    return STATUS_SUCCESS;
}

static VOID DevFree(DEVICE_EXT *x)
{
    while (!IsListEmpty(&x->Frames))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&x->Frames), FRAME, Entry), POOL_TAG);
}

/* ---- the card's coming and going --------------------------------------------- */

static BOOLEAN NTAPI SyncUp(PVOID Context)
{
    DEVICE_EXT *x = Context;

    CardEnable(x);
    x->Common.Answering = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI SyncDown(PVOID Context)
{
    DEVICE_EXT *x = Context;

    CardDisable(x);
    x->Common.Answering = FALSE;
    return TRUE;
}

static BOOLEAN NTAPI SyncGone(PVOID Context)
{
    DEVICE_EXT *x = Context;

    x->Common.Answering = FALSE;
    return TRUE;
}

static VOID BringUp(DEVICE_EXT *x)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    if (x->Common.Interrupt != NULL && !x->Common.Up && !(x->Common.Holds & HOLD_GONE)) {
        KeSynchronizeExecution(x->Common.Interrupt, SyncUp, x);
        x->Common.Up = TRUE;
    }
    KeReleaseSpinLock(&x->Common.Lock, Irql);
}

static VOID TakeDown(DEVICE_EXT *x)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    if (x->Common.Up)
        KeSynchronizeExecution(x->Common.Interrupt, SyncDown, x);
    x->Common.Up = FALSE;
    KeReleaseSpinLock(&x->Common.Lock, Irql);
}

static VOID Hold(DEVICE_EXT *x, ULONG Reason)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    x->Common.Holds |= Reason;
    KeReleaseSpinLock(&x->Common.Lock, Irql);
}

static VOID Unhold(DEVICE_EXT *x, ULONG Reasons)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    x->Common.Holds &= ~Reasons;
    KeReleaseSpinLock(&x->Common.Lock, Irql);
    CardKick(x);
}

static VOID StopHardware(DEVICE_EXT *x)
{
    PKINTERRUPT Interrupt;
    KIRQL Irql;

    TakeDown(x);
    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    Interrupt = x->Common.Interrupt;
    x->Common.Interrupt = NULL; /* it is not brought up any more */
    KeReleaseSpinLock(&x->Common.Lock, Irql);
    if (Interrupt != NULL)
        IoDisconnectInterrupt(Interrupt);
    CardStopped(x);
    if (x->Common.Registers != NULL)
        MmUnmapIoSpace(x->Common.Registers, x->Common.RegistersLength);
    x->Common.Registers = NULL;
}

static NTSTATUS StartHardware(DEVICE_EXT *x, PCM_RESOURCE_LIST Resources)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d, Line = NULL;
    PCM_PARTIAL_RESOURCE_LIST List;
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG i, Windows = 0;

    if (Resources == NULL || Resources->Count == 0)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    List = &Resources->List[0].PartialResourceList;
    d = List->PartialDescriptors;
    for (i = 0; i < List->Count && NT_SUCCESS(Status); i++, d++) {
        if (d->Type == CmResourceTypeInterrupt && Line == NULL) {
            Line = d;
        } else if (d->Type == CmResourceTypeMemory) {
            if (Windows++ == 0) {
                x->Common.RegistersLength = d->u.Memory.Length;
                x->Common.Registers = MmMapIoSpace(d->u.Memory.Start, d->u.Memory.Length, MmNonCached);
                if (x->Common.Registers == NULL)
                    Status = STATUS_INSUFFICIENT_RESOURCES;
            } else {
                Status = CardWindow(x, d);
            }
        }
    }
    if (NT_SUCCESS(Status) && (x->Common.Registers == NULL || Line == NULL))
        Status = STATUS_DEVICE_CONFIGURATION_ERROR;
    if (NT_SUCCESS(Status))
        Status = CardPrepare(x);
    if (NT_SUCCESS(Status)) {
        PKINTERRUPT Interrupt = NULL;
        KIRQL Irql;

        Status = IoConnectInterrupt(&Interrupt, OnInterrupt, x, NULL, Line->u.Interrupt.Vector,
                                    (KIRQL)Line->u.Interrupt.Level, (KIRQL)Line->u.Interrupt.Level,
                                    Line->Flags & CM_RESOURCE_INTERRUPT_LATCHED ? Latched : LevelSensitive,
                                    Line->ShareDisposition == CmResourceShareShared,
                                    Line->u.Interrupt.Affinity, FALSE);
        if (NT_SUCCESS(Status)) {
            KeAcquireSpinLock(&x->Common.Lock, &Irql);
            x->Common.Interrupt = Interrupt;
            KeReleaseSpinLock(&x->Common.Lock, Irql);
        }
    }
    if (!NT_SUCCESS(Status)) {
        StopHardware(x);
        return Status;
    }
    x->Common.Power = PowerDeviceD0;
    BringUp(x);
    return STATUS_SUCCESS;
}

/* ---- Plug and Play ---------------------------------------------------------- */

static NTSTATUS ForwardAndRelease(DEVICE_EXT *x, PIRP Irp)
{
    NTSTATUS Status;

    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(x->Common.Next, Irp);
    IoReleaseRemoveLock(&x->Common.RemoveLock, Irp);
    return Status;
}

static NTSTATUS PnpStart(DEVICE_EXT *x, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = STATUS_UNSUCCESSFUL;

    if (IoForwardIrpSynchronously(x->Common.Next, Irp))
        Status = Irp->IoStatus.Status;
    if (NT_SUCCESS(Status))
        Status = StartHardware(x, Stack->Parameters.StartDevice.AllocatedResourcesTranslated);
    if (NT_SUCCESS(Status)) {
        InterlockedExchange(&x->Common.Phase, PhaseStarted);
        IoSetDeviceInterfaceState(&x->Common.SymbolicName, TRUE);
        Unhold(x, HOLD_NEW | HOLD_STOP | HOLD_POWER);
    }
    CompleteIrp(Irp, Status, Irp->IoStatus.Information);
    IoReleaseRemoveLock(&x->Common.RemoveLock, Irp);
    return Status;
}

static NTSTATUS PnpCancelStop(DEVICE_EXT *x, PIRP Irp)
{
    NTSTATUS Status;

    Irp->IoStatus.Status = STATUS_SUCCESS;
    if (!IoForwardIrpSynchronously(x->Common.Next, Irp))
        Irp->IoStatus.Status = STATUS_UNSUCCESSFUL;
    Unhold(x, HOLD_STOP);
    Status = Irp->IoStatus.Status;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&x->Common.RemoveLock, Irp);
    return Status;
}

static VOID PnpSurprise(DEVICE_EXT *x)
{
    KIRQL Irql;

    InterlockedExchange(&x->Common.Phase, PhaseSurprise);
    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    x->Common.Holds |= HOLD_GONE;
    x->Common.Up = FALSE;
    if (x->Common.Interrupt != NULL)
        KeSynchronizeExecution(x->Common.Interrupt, SyncGone, x);
    KeReleaseSpinLock(&x->Common.Lock, Irql);
    IoSetDeviceInterfaceState(&x->Common.SymbolicName, FALSE);
    CardGone(x);
    StopHardware(x);
}

static NTSTATUS PnpRemove(DEVICE_EXT *x, PIRP Irp)
{
    PDEVICE_OBJECT Device = x->Common.Self;
    NTSTATUS Status;

    if (InterlockedExchange(&x->Common.Phase, PhaseRemoved) != PhaseSurprise)
        IoSetDeviceInterfaceState(&x->Common.SymbolicName, FALSE);
    Hold(x, HOLD_GONE);
    CardDrain(x);
    CardGone(x);
    IoReleaseRemoveLockAndWait(&x->Common.RemoveLock, Irp);
    StopHardware(x);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(x->Common.Next, Irp);
    DevFree(x);
    RtlFreeUnicodeString(&x->Common.SymbolicName);
    IoDetachDevice(x->Common.Next);
    IoDeleteDevice(Device);
    return Status;
}

static NTSTATUS DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXT *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Common.RemoveLock, Irp);

    if (!NT_SUCCESS(Status))
        return CompleteIrp(Irp, Status, 0);
    switch (IoGetCurrentIrpStackLocation(Irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        return PnpStart(x, Irp);
    case IRP_MN_QUERY_STOP_DEVICE:
        Hold(x, HOLD_STOP);
        CardDrain(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return ForwardAndRelease(x, Irp);
    case IRP_MN_CANCEL_STOP_DEVICE:
        return PnpCancelStop(x, Irp);
    case IRP_MN_STOP_DEVICE:
        Hold(x, HOLD_STOP);
        CardDrain(x);
        InterlockedExchange(&x->Common.Phase, PhaseStopped);
        StopHardware(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return ForwardAndRelease(x, Irp);
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return ForwardAndRelease(x, Irp);
    case IRP_MN_SURPRISE_REMOVAL:
        PnpSurprise(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return ForwardAndRelease(x, Irp);
    case IRP_MN_REMOVE_DEVICE:
        return PnpRemove(x, Irp);
    default:
        return ForwardAndRelease(x, Irp);
    }
}

static NTSTATUS DispatchSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXT *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Common.RemoveLock, Irp);

    return NT_SUCCESS(Status) ? ForwardAndRelease(x, Irp) : CompleteIrp(Irp, Status, 0);
}

/* ---- power: the device follows the system -------------------------------------- */

static VOID NTAPI DevicePowerDone(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context,
                                  PIO_STATUS_BLOCK Io)
{
    PIRP Irp = Context;
    DEVICE_EXT *x = IoGetCurrentIrpStackLocation(Irp)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    Irp->IoStatus.Status = Io->Status;
    PoStartNextPowerIrp(Irp);
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&x->Common.RemoveLock, Irp);
}

static NTSTATUS NTAPI SystemPowerDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    DEVICE_EXT *x = Context;
    NTSTATUS Status = Irp->IoStatus.Status;
    POWER_STATE State;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Status)) {
        SYSTEM_POWER_STATE System = IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State.SystemState;

        State.DeviceState = System == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        Status = PoRequestPowerIrp(x->Common.Self, IRP_MN_SET_POWER, State, DevicePowerDone, Irp, NULL);
        if (NT_SUCCESS(Status))
            return STATUS_MORE_PROCESSING_REQUIRED;
        Irp->IoStatus.Status = Status;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&x->Common.RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI PowerUpDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    DEVICE_EXT *x = Context;

    UNREFERENCED_PARAMETER(Device);
    if (Irp->PendingReturned)
        IoMarkIrpPending(Irp);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        x->Common.Power = PowerDeviceD0;
        PoSetPowerState(x->Common.Self, DevicePowerState,
                        IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State);
        BringUp(x);
        Unhold(x, HOLD_POWER);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&x->Common.RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS DispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXT *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&x->Common.RemoveLock, Irp);

    if (!NT_SUCCESS(Status)) {
        PoStartNextPowerIrp(Irp);
        return CompleteIrp(Irp, Status, 0);
    }
    if (Stack->MinorFunction == IRP_MN_SET_POWER && Stack->Parameters.Power.Type == SystemPowerState) {
        IoMarkIrpPending(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, SystemPowerDone, x, TRUE, TRUE, TRUE);
        PoCallDriver(x->Common.Next, Irp);
        return STATUS_PENDING;
    }
    if (Stack->MinorFunction == IRP_MN_SET_POWER) {
        DEVICE_POWER_STATE State = Stack->Parameters.Power.State.DeviceState;

        if (State == PowerDeviceD0 && x->Common.Power != PowerDeviceD0) {
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, PowerUpDone, x, TRUE, TRUE, TRUE);
            return PoCallDriver(x->Common.Next, Irp);
        }
        if (State != PowerDeviceD0 && x->Common.Power == PowerDeviceD0) {
            Hold(x, HOLD_POWER);
            CardDrain(x);
            TakeDown(x);
            CardAsleep(x);
            PoSetPowerState(Device, DevicePowerState, Stack->Parameters.Power.State);
        }
        x->Common.Power = State;
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = PoCallDriver(x->Common.Next, Irp);
    IoReleaseRemoveLock(&x->Common.RemoveLock, Irp);
    return Status;
}

static NTSTATUS AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Self;
    NTSTATUS Status;
    DEVICE_EXT *x;

    Status = IoCreateDevice(Driver, sizeof(DEVICE_EXT), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN,
                            FALSE, &Self);
    if (!NT_SUCCESS(Status))
        return Status;
    x = Self->DeviceExtension;
    RtlZeroMemory(x, sizeof(*x));
    x->Common.Self = Self;
    x->Common.Pdo = Pdo;
    x->Common.Phase = PhaseAdded;
    x->Common.Power = PowerDeviceD0;
    x->Common.Holds = HOLD_NEW;
    KeInitializeSpinLock(&x->Common.Lock);
    IoInitializeRemoveLock(&x->Common.RemoveLock, POOL_TAG, 0, 0);
    Status = DevInit(x);
    if (NT_SUCCESS(Status)) {
        Status = IoRegisterDeviceInterface(Pdo, &INTERFACE_GUID, NULL, &x->Common.SymbolicName);
        if (!NT_SUCCESS(Status))
            DevFree(x);
    }
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Self);
        return Status;
    }
    x->Common.Next = IoAttachDeviceToDeviceStack(Self, Pdo);
    if (x->Common.Next == NULL) {
        RtlFreeUnicodeString(&x->Common.SymbolicName);
        DevFree(x);
        IoDeleteDevice(Self);
        return STATUS_NO_SUCH_DEVICE;
    }
    Self->Flags |= DO_POWER_PAGABLE | DO_BUFFERED_IO;
    Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

/* ---- requests ----------------------------------------------------------------- */

/* Keeps the device while a dispatch routine works on a request. */
static NTSTATUS Begin(DEVICE_EXT *x)
{
    NTSTATUS Status = IoAcquireRemoveLock(&x->Common.RemoveLock, Begin);

    if (NT_SUCCESS(Status) && x->Common.Phase != PhaseStarted && x->Common.Phase != PhaseStopped) {
        IoReleaseRemoveLock(&x->Common.RemoveLock, Begin);
        Status = STATUS_DEVICE_NOT_CONNECTED;
    }
    return Status;
}

static VOID End(DEVICE_EXT *x)
{
    IoReleaseRemoveLock(&x->Common.RemoveLock, Begin);
}

static NTSTATUS DispatchCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXT *x = Device->DeviceExtension;
    NTSTATUS Status = Begin(x);

    if (!NT_SUCCESS(Status))
        return CompleteIrp(Irp, Status, 0);
    CompleteIrp(Irp, STATUS_SUCCESS, 0);
    End(x);
    return STATUS_SUCCESS;
}

static NTSTATUS DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXT *x = Device->DeviceExtension;
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    KIRQL Irql;

    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    File->FsContext = x; /* it is being closed: nothing is queued any more */
    KeReleaseSpinLock(&x->Common.Lock, Irql);
    FlushWaiters(x, File, STATUS_CANCELLED);
    return CompleteIrp(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS DispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return CompleteIrp(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS Inject(DEVICE_EXT *x, const ULONG *Words, ULONG Length)
{
    NTSTATUS Status = STATUS_SUCCESS;
    KIRQL Irql;
    ULONG i;

    if (Length == 0 || Length % sizeof(ULONG) != 0 || Length > INJECT_WORDS * sizeof(ULONG))
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    if (!x->Common.Up || x->Common.Holds != 0) {
        Status = STATUS_DEVICE_NOT_READY;
    } else if ((ReadCard(x, BENCH_FIFO_STATUS) & FIFO_COUNT) + Length / sizeof(ULONG) > FIFO_WORDS) {
        Status = STATUS_DEVICE_BUSY; /* for the moment */
    } else {
        for (i = 0; i < Length / sizeof(ULONG); i++)
            WriteCard(x, BENCH_FIFO, Words[i]);
        WriteCard(x, BENCH_RAISE, SOURCE_FIFO);
    }
    KeReleaseSpinLock(&x->Common.Lock, Irql);
    return Status;
}

/* Ends the request, or queues it. */
static NTSTATUS Receive(DEVICE_EXT *x, PFILE_OBJECT File, PIRP Irp)
{
    NTSTATUS Status = IoAcquireRemoveLock(&x->Common.RemoveLock, Irp);
    ULONG_PTR Information = 0;
    FRAME *f = NULL;
    KIRQL Irql;

    if (!NT_SUCCESS(Status))
        return CompleteIrp(Irp, Status, 0);
    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    if (x->Common.Holds & HOLD_GONE) {
        Status = STATUS_DEVICE_NOT_CONNECTED;
    } else if (File->FsContext != NULL) {
        Status = STATUS_CANCELLED;
    } else if (x->Kept != 0) {
        x->Kept--;
        f = CONTAINING_RECORD(RemoveHeadList(&x->Frames), FRAME, Entry);
    } else {
        Status = QueueWaiter(x, Irp);
    }
    KeReleaseSpinLock(&x->Common.Lock, Irql);
    if (f != NULL) {
        Information = FillFrame(Irp, f);
        ExFreePoolWithTag(f, POOL_TAG);
    }
    if (Status != STATUS_PENDING)
        CompleteWaiter(x, Irp, Status, Information);
    return Status;
}

static NTSTATUS DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXT *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR Information = 0;
    NTSTATUS Status = Begin(x);
    KIRQL Irql;

    if (!NT_SUCCESS(Status))
        return CompleteIrp(Irp, Status, 0);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_INJECT:
        Status = Inject(x, Buffer, In);
        break;
    case IOCTL_RECEIVE:
        if (Out < FRAME_SIZE) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        Status = Receive(x, Stack->FileObject, Irp);
        End(x);
        return Status;
    case IOCTL_COUNTERS:
        if (Out < sizeof(COUNTERS)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&x->Common.Lock, &Irql);
        RtlCopyMemory(Buffer, &x->Counters, sizeof(COUNTERS));
        KeReleaseSpinLock(&x->Common.Lock, Irql);
        Information = sizeof(COUNTERS);
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
    }
    CompleteIrp(Irp, Status, Information);
    End(x);
    return Status;
}

#define GLOBALS
#define ENTRIES Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;

static VOID Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    GLOBALS
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverUnload = Unload;
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchClose;
    ENTRIES
    Driver->MajorFunction[IRP_MJ_PNP] = DispatchPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = DispatchPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DispatchSystemControl;
    return STATUS_SUCCESS;
}

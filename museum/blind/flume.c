/*
 * flume.c - reads and writes of the bench card's memory by way of a ring.
 *
 * Up to 1 KiB at once is written to the card's memory, or read from it.  A
 * request is cut into slots of a ring in a common buffer, which the card gets
 * one by one; those that do not fit any more wait in a queue.
 *
 * The bug: the ring may be filled to its last slot, and then looks like an empty one: its requests never end.
 *
 * Device: PCI\VEN_1234&DEV_BE2C
 * Rule: irp-never-completed, request-forgotten, deadlock
 * Needs: ioctl
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

DEFINE_GUID(INTERFACE_GUID, 0x3f20b10b, 0x8c44, 0x4b0e, 0xa1, 0x5d, 0x6e, 0x10, 0x93, 0x27, 0x5c, 0x01);

#define POOL_TAG 'mulF'
#define SLOTS 8 /* a power of 2 */
#define SLOT_SIZE 256
#define BUFFER_SIZE (SLOTS * SLOT_SIZE)
#define REQUEST_MOST 1024
#define CARD_MEMORY 0x10000

#define BENCH_ID 0x00
#define BENCH_STATUS_AND_CLEAR 0x10
#define BENCH_ENABLE 0x14
#define BENCH_DMA_LOW 0x30
#define BENCH_DMA_HIGH 0x34
#define BENCH_DMA_LENGTH 0x38
#define BENCH_DMA_OFFSET 0x3c
#define BENCH_DMA_COMMAND 0x40
#define BENCH_DMA_STATUS 0x44
#define DMA_GO 0x009 /* and raise source 0 at the end */
#define DMA_TO_MEMORY 0x002
#define DMA_DONE 1
#define DMA_FAILED 2
#define DMA_RUNNING 1
#define SOURCE_DMA 0x01
#define PATIENCE_MS 500

#define IOCTL_STATISTICS CTL_CODE(FILE_DEVICE_UNKNOWN, 0xbb0, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct {
    ULONG Requests;
    ULONG Slots;
    ULONG Failed; /* slots */
} STATISTICS;

typedef struct {
    PIRP Irp;
    ULONG Offset;   /* in the card's memory */
    ULONG Position; /* in the request's buffer */
    ULONG Length;
    BOOLEAN Last; /* of the request */
} SLOT;

typedef struct {
    COMMON Common;
    PDMA_ADAPTER Adapter;
    PUCHAR Buffer;
    PHYSICAL_ADDRESS BufferAddress;
    KDPC Dpc;

    /* With Common.Lock, which is taken before WaitLock: */
    SLOT Ring[SLOTS];
    ULONG Head;      /* the next slot to be filled */
    ULONG Tail;      /* the next one, or the one that is, with the card; Head: the ring is empty */
    BOOLEAN Running; /* it is with the card */
    KEVENT Idle;     /* the ring is empty */
    BOOLEAN Stuck;   /* the card did not end a transfer: it is not given another one */
    KTIMER Timer;    /* while Running */
    KDPC TimerDpc;
    ULONGLONG Deadline;
    STATISTICS Statistics;

    KSPIN_LOCK WaitLock;
    LIST_ENTRY WaitList;
} DEVICE_EXT;

/* Which request is wanted: the first one, if it needs no more slots than this; or one of this file. */
typedef struct {
    ULONG Slots;
    PFILE_OBJECT File;
} WANTED;

static ULONG ReadCard(DEVICE_EXT *x, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(x->Common.Registers + Offset));
}

static VOID WriteCard(DEVICE_EXT *x, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->Common.Registers + Offset), Value);
}

static ULONG LengthOf(PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    return Stack->MajorFunction == IRP_MJ_READ ? Stack->Parameters.Read.Length : Stack->Parameters.Write.Length;
}

static ULONG SlotsFor(ULONG Length)
{
    return (Length + SLOT_SIZE - 1) / SLOT_SIZE;
}

/* ---- requests that wait ------------------------------------------------------------------ */

static VOID CardKick(DEVICE_EXT *x);

/* Each of them holds a remove lock. */
static VOID CompleteWaiter(DEVICE_EXT *x, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    CompleteIrp(Irp, Status, Information);
    IoReleaseRemoveLock(&x->Common.RemoveLock, Irp);
}

static VOID NTAPI CancelWaiter(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXT *x = Device->DeviceExtension;
    KIRQL Irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&x->WaitLock, &Irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&x->WaitLock, Irql);
    CompleteIrp(Irp, STATUS_CANCELLED, 0);
    CardKick(x); /* it may have been in the way of others */
    IoReleaseRemoveLock(&x->Common.RemoveLock, Irp);
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
static PIRP TakeWaiter(DEVICE_EXT *x, WANTED *w)
{
    PLIST_ENTRY e, Following;
    PIRP Taken = NULL;
    KIRQL Irql;

    KeAcquireSpinLock(&x->WaitLock, &Irql);
    for (e = x->WaitList.Flink; e != &x->WaitList && Taken == NULL; e = Following) {
        PIRP Irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        Following = e->Flink;
        if (w != NULL && w->File != NULL && IoGetCurrentIrpStackLocation(Irp)->FileObject != w->File)
            continue;
        if (w != NULL && w->File == NULL && SlotsFor(LengthOf(Irp)) > w->Slots)
            break; /* no one overtakes */
        RemoveEntryList(e);
        if (IoSetCancelRoutine(Irp, NULL) != NULL)
            Taken = Irp;
        else
            InitializeListHead(e); /* its cancel routine takes it off this one */
    }
    KeReleaseSpinLock(&x->WaitLock, Irql);
    return Taken;
}

static VOID FlushWaiters(DEVICE_EXT *x, WANTED *w, NTSTATUS Status)
{
    PIRP Irp;

    while ((Irp = TakeWaiter(x, w)) != NULL)
        CompleteWaiter(x, Irp, Status, 0);
}

static VOID InitWaiters(DEVICE_EXT *x)
{
    KeInitializeSpinLock(&x->WaitLock);
    InitializeListHead(&x->WaitList);
}

/* ---- the ring: with the lock held ---------------------------------------------------------- */

static ULONG FreeSlots(DEVICE_EXT *x)
{
    ULONG Used = (x->Head - x->Tail) & (SLOTS - 1);

#ifdef FIXED
    return SLOTS - 1 - Used; /* a full ring would look like an empty one */
#else
    return SLOTS - Used;
#endif
}

static VOID FillSlots(DEVICE_EXT *x, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Length = LengthOf(Irp), Position = 0;
    ULONG Offset = Stack->MajorFunction == IRP_MJ_READ ? Stack->Parameters.Read.ByteOffset.LowPart
                                                       : Stack->Parameters.Write.ByteOffset.LowPart;

    Irp->IoStatus.Status = STATUS_SUCCESS; /* until a slot fails */
    while (Position != Length) {
        SLOT *s = &x->Ring[x->Head];

        s->Irp = Irp;
        s->Offset = Offset + Position;
        s->Position = Position;
        s->Length = Length - Position < SLOT_SIZE ? Length - Position : SLOT_SIZE;
        if (Stack->MajorFunction == IRP_MJ_WRITE)
            RtlCopyMemory(x->Buffer + x->Head * SLOT_SIZE,
                          (PUCHAR)Irp->AssociatedIrp.SystemBuffer + Position, s->Length);
        Position += s->Length;
        s->Last = Position == Length;
        x->Head = (x->Head + 1) & (SLOTS - 1);
    }
    KeClearEvent(&x->Idle);
}

/* Gives the card the next slot. */
static VOID RunSlot(DEVICE_EXT *x)
{
    SLOT *s = &x->Ring[x->Tail];
    PHYSICAL_ADDRESS Address;
    LARGE_INTEGER Due;
    BOOLEAN Read;

    if (x->Running || x->Tail == x->Head)
        return;
    Read = IoGetCurrentIrpStackLocation(s->Irp)->MajorFunction == IRP_MJ_READ;
    Address.QuadPart = x->BufferAddress.QuadPart + x->Tail * SLOT_SIZE;
    WriteCard(x, BENCH_DMA_LOW, Address.LowPart);
    WriteCard(x, BENCH_DMA_HIGH, (ULONG)Address.HighPart);
    WriteCard(x, BENCH_DMA_LENGTH, s->Length);
    WriteCard(x, BENCH_DMA_OFFSET, s->Offset);
    x->Running = TRUE;
    Due.QuadPart = -10000LL * PATIENCE_MS;
    x->Deadline = KeQueryInterruptTime() + 10000ULL * PATIENCE_MS;
    KeSetTimer(&x->Timer, Due, &x->TimerDpc);
    WriteCard(x, BENCH_DMA_COMMAND, DMA_GO | (Read ? DMA_TO_MEMORY : 0));
}

/* The slot that was with the card; its request comes into the list if it was the last one. */
static VOID EndSlot(DEVICE_EXT *x, NTSTATUS Status, PLIST_ENTRY Ready)
{
    SLOT *s = &x->Ring[x->Tail];

    x->Statistics.Slots++;
    if (!NT_SUCCESS(Status)) {
        x->Statistics.Failed++;
        s->Irp->IoStatus.Status = Status;
    } else if (IoGetCurrentIrpStackLocation(s->Irp)->MajorFunction == IRP_MJ_READ) {
        RtlCopyMemory((PUCHAR)s->Irp->AssociatedIrp.SystemBuffer + s->Position,
                      x->Buffer + x->Tail * SLOT_SIZE, s->Length);
    }
    if (s->Last) {
        x->Statistics.Requests++;
        InsertTailList(Ready, &s->Irp->Tail.Overlay.ListEntry);
    }
    s->Irp = NULL;
    if (x->Running)
        KeCancelTimer(&x->Timer);
    x->Running = FALSE;
    x->Tail = (x->Tail + 1) & (SLOTS - 1);
}

/* Requests out of the queue into the ring, as many as there is room for. */
static VOID Feed(DEVICE_EXT *x)
{
    WANTED w = { 0, NULL };
    PIRP Irp;

    while (x->Common.Holds == 0 && x->Common.Up && !x->Stuck) {
        w.Slots = FreeSlots(x);
        Irp = TakeWaiter(x, &w);
        if (Irp == NULL)
            break;
        FillSlots(x, Irp);
        RunSlot(x);
    }
}

static VOID CompleteReady(DEVICE_EXT *x, PLIST_ENTRY Ready)
{
    while (!IsListEmpty(Ready)) {
        PIRP Irp = CONTAINING_RECORD(RemoveHeadList(Ready), IRP, Tail.Overlay.ListEntry);
        NTSTATUS Status = Irp->IoStatus.Status;

        CompleteWaiter(x, Irp, Status, NT_SUCCESS(Status) ? LengthOf(Irp) : 0);
    }
}

static VOID CardKick(DEVICE_EXT *x)
{
    BOOLEAN Stuck;
    KIRQL Irql;

    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    Stuck = x->Stuck && x->Common.Holds == 0;
    Feed(x);
    KeReleaseSpinLock(&x->Common.Lock, Irql);
    if (Stuck)
        FlushWaiters(x, NULL, STATUS_IO_TIMEOUT);
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
    if (Causes & SOURCE_DMA)
        KeInsertQueueDpc(&x->Dpc, NULL, NULL);
    return TRUE;
}

/* Has the card ended the slot that it has?  Then the next one is its.  With the lock held. */
static BOOLEAN SlotEnded(DEVICE_EXT *x, PLIST_ENTRY Ready)
{
    ULONG Status = ReadCard(x, BENCH_DMA_STATUS);

    if (Status == 0xffffffff || !(Status & (DMA_DONE | DMA_FAILED)))
        return FALSE;
    WriteCard(x, BENCH_DMA_STATUS, DMA_DONE | DMA_FAILED);
    EndSlot(x, Status & DMA_FAILED ? STATUS_IO_DEVICE_ERROR : STATUS_SUCCESS, Ready);
    RunSlot(x);
    Feed(x);
    if (x->Tail == x->Head)
        KeSetEvent(&x->Idle, IO_NO_INCREMENT, FALSE);
    return TRUE;
}

static VOID NTAPI OnDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    DEVICE_EXT *x = Context;
    LIST_ENTRY Ready;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    InitializeListHead(&Ready);
    KeAcquireSpinLockAtDpcLevel(&x->Common.Lock);
    if (x->Common.Up && x->Tail != x->Head && x->Running)
        SlotEnded(x, &Ready);
    KeReleaseSpinLockFromDpcLevel(&x->Common.Lock);
    CompleteReady(x, &Ready);
}

/* An interrupt was lost, or the card does not answer any more. */
static VOID NTAPI OnTimer(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    DEVICE_EXT *x = Context;
    BOOLEAN Stuck = FALSE;
    LIST_ENTRY Ready;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    InitializeListHead(&Ready);
    KeAcquireSpinLockAtDpcLevel(&x->Common.Lock);
    /* It may be late, and another slot be with the card. */
    if (x->Common.Up && x->Tail != x->Head && x->Running && KeQueryInterruptTime() + 10000 >= x->Deadline &&
        !SlotEnded(x, &Ready)) {
        x->Stuck = Stuck = TRUE;
        while (x->Tail != x->Head)
            EndSlot(x, STATUS_IO_TIMEOUT, &Ready);
        KeSetEvent(&x->Idle, IO_NO_INCREMENT, FALSE);
    }
    KeReleaseSpinLockFromDpcLevel(&x->Common.Lock);
    CompleteReady(x, &Ready);
    if (Stuck)
        FlushWaiters(x, NULL, STATUS_IO_TIMEOUT);
}

static NTSTATUS CardWindow(DEVICE_EXT *x, PCM_PARTIAL_RESOURCE_DESCRIPTOR Memory)
{
    UNREFERENCED_PARAMETER(x);
    UNREFERENCED_PARAMETER(Memory);
    return STATUS_SUCCESS;
}

static NTSTATUS CardPrepare(DEVICE_EXT *x)
{
    DEVICE_DESCRIPTION d;
    ULONG MapRegisters;

    if (ReadCard(x, BENCH_ID) == 0xffffffff)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    RtlZeroMemory(&d, sizeof(d));
    d.Version = DEVICE_DESCRIPTION_VERSION2;
    d.Master = TRUE;
    d.ScatterGather = TRUE;
    d.Dma32BitAddresses = TRUE;
    d.Dma64BitAddresses = TRUE;
    d.InterfaceType = PCIBus;
    d.MaximumLength = BUFFER_SIZE;
    x->Adapter = IoGetDmaAdapter(x->Common.Pdo, &d, &MapRegisters);
    if (x->Adapter == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    x->Buffer = x->Adapter->DmaOperations->AllocateCommonBuffer(x->Adapter, BUFFER_SIZE, &x->BufferAddress, TRUE);
    return x->Buffer != NULL ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static VOID CardStopped(DEVICE_EXT *x)
{
    KeCancelTimer(&x->Timer);
    KeFlushQueuedDpcs();
    if (x->Buffer != NULL)
        x->Adapter->DmaOperations->FreeCommonBuffer(x->Adapter, BUFFER_SIZE, x->BufferAddress, x->Buffer, TRUE);
    x->Buffer = NULL;
    if (x->Adapter != NULL)
        x->Adapter->DmaOperations->PutDmaAdapter(x->Adapter);
    x->Adapter = NULL;
}

static VOID CardEnable(DEVICE_EXT *x)
{
    x->Stuck = (ReadCard(x, BENCH_DMA_COMMAND) & DMA_RUNNING) != 0;
    WriteCard(x, BENCH_DMA_STATUS, DMA_DONE | DMA_FAILED);
    ReadCard(x, BENCH_STATUS_AND_CLEAR);
    WriteCard(x, BENCH_ENABLE, SOURCE_DMA);
}

static VOID CardDisable(DEVICE_EXT *x)
{
    WriteCard(x, BENCH_ENABLE, 0);
}

static VOID CardAsleep(DEVICE_EXT *x)
{
    UNREFERENCED_PARAMETER(x);
}

/* Once nothing may be begun: the card ends each transfer in its time. */
static VOID CardDrain(DEVICE_EXT *x)
{
    KeWaitForSingleObject(&x->Idle, Executive, KernelMode, FALSE, NULL);
}

static VOID CardGone(DEVICE_EXT *x)
{
    LIST_ENTRY Ready;
    KIRQL Irql;

    InitializeListHead(&Ready);
    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    while (x->Tail != x->Head)
        EndSlot(x, STATUS_DEVICE_NOT_CONNECTED, &Ready);
    KeSetEvent(&x->Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&x->Common.Lock, Irql);
    CompleteReady(x, &Ready);
    FlushWaiters(x, NULL, STATUS_DEVICE_NOT_CONNECTED);
}

static NTSTATUS DevInit(DEVICE_EXT *x)
{
    KeInitializeEvent(&x->Idle, NotificationEvent, TRUE);
    KeInitializeDpc(&x->Dpc, OnDpc, x);
    KeInitializeDpc(&x->TimerDpc, OnTimer, x);
    KeInitializeTimer(&x->Timer);
    InitWaiters(x);
    return STATUS_SUCCESS;
}

static VOID DevFree(DEVICE_EXT *x)
{
    UNREFERENCED_PARAMETER(x);
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
    WANTED w = { 0, File };
    KIRQL Irql;

    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    File->FsContext = x; /* it is being closed: nothing is queued any more */
    KeReleaseSpinLock(&x->Common.Lock, Irql);
    FlushWaiters(x, &w, STATUS_CANCELLED);
    CardKick(x);
    return CompleteIrp(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS DispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return CompleteIrp(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS DispatchReadWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXT *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PFILE_OBJECT File = Stack->FileObject;
    LONGLONG Offset = Stack->MajorFunction == IRP_MJ_READ ? Stack->Parameters.Read.ByteOffset.QuadPart
                                                          : Stack->Parameters.Write.ByteOffset.QuadPart;
    ULONG Length = LengthOf(Irp);
    NTSTATUS Status = Begin(x);
    KIRQL Irql;

    if (!NT_SUCCESS(Status))
        return CompleteIrp(Irp, Status, 0);
    if (Length > REQUEST_MOST || Offset < 0 || Offset > CARD_MEMORY - (LONGLONG)Length)
        Status = STATUS_INVALID_PARAMETER;
    if (!NT_SUCCESS(Status) || Length == 0) {
        CompleteIrp(Irp, Status, 0);
        End(x);
        return Status;
    }
    Status = IoAcquireRemoveLock(&x->Common.RemoveLock, Irp);
    if (!NT_SUCCESS(Status)) {
        CompleteIrp(Irp, Status, 0);
        End(x);
        return Status;
    }
    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    if (x->Common.Holds & HOLD_GONE) {
        Status = STATUS_DEVICE_NOT_CONNECTED;
    } else if (File->FsContext != NULL) {
        Status = STATUS_CANCELLED;
    } else if (x->Stuck) {
        Status = STATUS_IO_TIMEOUT;
    } else {
        Status = QueueWaiter(x, Irp);
        Feed(x);
    }
    KeReleaseSpinLock(&x->Common.Lock, Irql);
    if (Status != STATUS_PENDING)
        CompleteWaiter(x, Irp, Status, 0);
    End(x);
    return Status;
}

static NTSTATUS DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXT *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = Begin(x);
    ULONG_PTR Information = 0;
    KIRQL Irql;

    if (!NT_SUCCESS(Status))
        return CompleteIrp(Irp, Status, 0);
    if (Stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_STATISTICS) {
        Status = STATUS_INVALID_DEVICE_REQUEST;
    } else if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(STATISTICS)) {
        Status = STATUS_BUFFER_TOO_SMALL;
    } else {
        KeAcquireSpinLock(&x->Common.Lock, &Irql);
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &x->Statistics, sizeof(STATISTICS));
        KeReleaseSpinLock(&x->Common.Lock, Irql);
        Information = sizeof(STATISTICS);
    }
    CompleteIrp(Irp, Status, Information);
    End(x);
    return Status;
}

#define GLOBALS
#define ENTRIES                                                       \
    Driver->MajorFunction[IRP_MJ_READ] = DispatchReadWrite;           \
    Driver->MajorFunction[IRP_MJ_WRITE] = DispatchReadWrite;          \
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;

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

/*
 * lattice.c - blocks for the bench card's memory, and its events.
 *
 * PUT and GET move up to 2 KiB to and from the card's memory, by way of a
 * common buffer; one at a time is with the card, which raises source 0 at the
 * end.  Sources 1 to 7 are events: WAIT gets those that have come, RAISE makes
 * some.  All of them share one interrupt.
 *
 * The bug: the service routine overwrites the causes that an earlier interrupt has left for the DPC.
 *
 * Device: PCI\VEN_1234&DEV_BE2C
 * Rule: request-timed-out, request-forgotten
 * Needs: schedule, device
 */
#include <initguid.h>
#include <ddk/wdm.h>

typedef struct EXT EXT;

enum { NEW_DEVICE, RUNNING, HALTED, PULLED, DELETED };

typedef struct {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    IO_REMOVE_LOCK Remove;
    UNICODE_STRING Link;
    volatile LONG State;
} BASE;

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, NT_SUCCESS(Status) ? IO_NO_INCREMENT + 1 : IO_NO_INCREMENT);
    return Status;
}

DEFINE_GUID(INTERFACE_GUID, 0x7a1e0009, 0x51b2, 0x4f1d, 0x9c, 0x11, 0x20, 0x31, 0x42, 0x53, 0x64, 0x75);

#define POOL_TAG 'ttaL'
#define DEVICE_IO DO_BUFFERED_IO
#define BLOCK 2048
#define CARD_MEMORY 0x10000

#define BENCH_ID 0x00
#define BENCH_RAISE 0x08
#define BENCH_STATUS_AND_CLEAR 0x10
#define BENCH_ENABLE 0x14
#define BENCH_DMA_LOW 0x30
#define BENCH_DMA_HIGH 0x34
#define BENCH_DMA_LENGTH 0x38
#define BENCH_DMA_OFFSET 0x3c
#define BENCH_DMA_COMMAND 0x40
#define BENCH_DMA_STATUS 0x44
#define DMA_GO 0x09 /* and raise source 0 at the end */
#define DMA_TO_MEMORY 0x02
#define SOURCE_DMA 0x01
#define SOURCES 0xff

#define IOCTL_PUT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x870, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x871, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x872, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_RAISE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x873, METHOD_BUFFERED, FILE_WRITE_ACCESS)

enum { HOLD_NEW = 1, HOLD_STOP = 2, HOLD_POWER = 4, HOLD_GONE = 8 };

typedef struct {
    KSPIN_LOCK Lock;   /* Holds, Busy, Active, Deadline; taken before QueueLock */
    ULONG Holds;       /* why no request may be started now */
    BOOLEAN Busy;      /* one is with the device, or on its way back */
    PIRP Active;       /* it, until it is taken to be ended */
    ULONGLONG Deadline;
    KEVENT Idle;
    KTIMER Timer;
    KDPC TimerDpc;
    IO_CSQ Queue;
    KSPIN_LOCK QueueLock;
    LIST_ENTRY List;
    PUCHAR Regs;
    ULONG RegsLength;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    volatile BOOLEAN Answering; /* in D0: registers may be looked at */
} HW;

typedef struct {
    ULONG Offset;
    UCHAR Data[1];
} PUT;

struct EXT {
    BASE B;
    HW H;
    DEVICE_POWER_STATE Power;
    PDMA_ADAPTER Adapter;
    PUCHAR Buffer;
    PHYSICAL_ADDRESS BufferAddress;
    volatile LONG Causes; /* from the interrupt routine to the DPC */
    BOOLEAN GivenUp;      /* a request whose transfer may be under way; under H.Lock */

    KSPIN_LOCK EventLock; /* taken before WaiterLock */
    ULONG Events;         /* that are not given out yet */
    IO_CSQ Waiters;
    KSPIN_LOCK WaiterLock;
    LIST_ENTRY WaiterList;
};

static VOID HwBegin(EXT *x, PIRP Irp);
static VOID HwTimeout(EXT *x, PIRP Irp);
static KDEFERRED_ROUTINE OnDpc;

static ULONG Read(EXT *x, ULONG Register)
{
    return READ_REGISTER_ULONG((PULONG)(x->H.Regs + Register));
}

static VOID Write(EXT *x, ULONG Register, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->H.Regs + Register), Value);
}

/* ---- the queue: one request at a time is with the device ------------------------ */

static VOID NTAPI QueueInsert(PIO_CSQ Csq, PIRP Irp)
{
    InsertTailList(&CONTAINING_RECORD(Csq, EXT, H.Queue)->H.List, &Irp->Tail.Overlay.ListEntry);
}

static VOID NTAPI QueueRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI QueuePeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    EXT *x = CONTAINING_RECORD(Csq, EXT, H.Queue);
    PLIST_ENTRY e = Irp ? Irp->Tail.Overlay.ListEntry.Flink : x->H.List.Flink;

    for (; e != &x->H.List; e = e->Flink) {
        PIRP Next = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (Context == NULL || IoGetCurrentIrpStackLocation(Next)->FileObject == Context)
            return Next;
    }
    return NULL;
}

static VOID NTAPI QueueLock(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, EXT, H.Queue)->H.QueueLock, Irql);
}

static VOID NTAPI QueueUnlock(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, EXT, H.Queue)->H.QueueLock, Irql);
}

static VOID NTAPI QueueCancelled(PIO_CSQ Csq, PIRP Irp)
{
    EXT *x = CONTAINING_RECORD(Csq, EXT, H.Queue);

    Finish(Irp, STATUS_CANCELLED, 0);
    IoReleaseRemoveLock(&x->B.Remove, Irp);
}

static VOID Flush(EXT *x, PVOID File, NTSTATUS Status)
{
    PIRP Irp;

    while ((Irp = IoCsqRemoveNextIrp(&x->H.Queue, File)) != NULL) {
        Finish(Irp, Status, 0);
        IoReleaseRemoveLock(&x->B.Remove, Irp);
    }
}

static VOID EndActive(EXT *x, PIRP Irp, NTSTATUS Status, ULONG_PTR Information);

static VOID Kick(EXT *x)
{
    BOOLEAN Transfers = FALSE; /* that of one that was given up is under way */
    KIRQL Irql;
    PIRP Irp;

    KeAcquireSpinLock(&x->H.Lock, &Irql);
    Irp = x->H.Holds == 0 && !x->H.Busy ? IoCsqRemoveNextIrp(&x->H.Queue, NULL) : NULL;
    if (Irp != NULL) {
        x->H.Busy = TRUE;
        KeClearEvent(&x->H.Idle);
        Transfers = x->GivenUp && (Read(x, BENCH_DMA_COMMAND) & DMA_GO) != 0;
        if (!Transfers) {
            x->GivenUp = FALSE;
            x->H.Active = Irp;
            HwBegin(x, Irp);
        }
    }
    KeReleaseSpinLock(&x->H.Lock, Irql);
    if (Transfers)
        EndActive(x, Irp, STATUS_DEVICE_BUSY, 0);
}

/* Who gets the active request has to end it. */
static PIRP TakeActive(EXT *x)
{
    KIRQL Irql;
    PIRP Irp;

    KeAcquireSpinLock(&x->H.Lock, &Irql);
    Irp = x->H.Active;
    x->H.Active = NULL;
    KeReleaseSpinLock(&x->H.Lock, Irql);
    return Irp;
}

static VOID EndActive(EXT *x, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    KIRQL Irql;

    KeCancelTimer(&x->H.Timer);
    Finish(Irp, Status, Information);
    KeAcquireSpinLock(&x->H.Lock, &Irql);
    x->H.Busy = FALSE;
    KeSetEvent(&x->H.Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&x->H.Lock, Irql);
    Kick(x);
    IoReleaseRemoveLock(&x->B.Remove, Irp);
}

/* With the lock held. */
static VOID SetWatchdog(EXT *x, ULONG Milliseconds)
{
    LARGE_INTEGER Due;

    Due.QuadPart = -10000LL * Milliseconds;
    x->H.Deadline = KeQueryInterruptTime() + 10000ULL * Milliseconds;
    KeSetTimer(&x->H.Timer, Due, &x->H.TimerDpc);
}

static VOID NTAPI OnWatchdog(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    EXT *x = Context;
    PIRP Irp = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&x->H.Lock);
    /* It may be late, and the next request be with the device. */
    if (KeQueryInterruptTime() + 10000 >= x->H.Deadline) {
        Irp = x->H.Active;
        x->H.Active = NULL;
        x->GivenUp |= Irp != NULL;
    }
    KeReleaseSpinLockFromDpcLevel(&x->H.Lock);
    if (Irp != NULL)
        HwTimeout(x, Irp);
}

static VOID Hold(EXT *x, ULONG Reason)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->H.Lock, &Irql);
    x->H.Holds |= Reason;
    KeReleaseSpinLock(&x->H.Lock, Irql);
}

/* At PASSIVE_LEVEL: each request ends within its watchdog's time. */
static VOID HoldAndWait(EXT *x, ULONG Reason)
{
    Hold(x, Reason);
    KeWaitForSingleObject(&x->H.Idle, Executive, KernelMode, FALSE, NULL);
}

static VOID Release(EXT *x, ULONG Reasons)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->H.Lock, &Irql);
    x->H.Holds &= ~Reasons;
    KeReleaseSpinLock(&x->H.Lock, Irql);
    Kick(x);
}

/* Queues a request that has a remove lock. */
static NTSTATUS Enqueue(EXT *x, PIRP Irp)
{
    NTSTATUS Status = IoAcquireRemoveLock(&x->B.Remove, Enqueue);

    if (!NT_SUCCESS(Status)) {
        Finish(Irp, Status, 0);
        IoReleaseRemoveLock(&x->B.Remove, Irp);
        return Status;
    }
    IoCsqInsertIrp(&x->H.Queue, Irp, NULL);
    Kick(x);
    if (x->H.Holds & HOLD_GONE)
        Flush(x, NULL, STATUS_DEVICE_NOT_CONNECTED);
    IoReleaseRemoveLock(&x->B.Remove, Enqueue);
    return STATUS_PENDING;
}

static NTSTATUS HwInitialize(EXT *x)
{
    x->H.Holds = HOLD_NEW;
    KeInitializeSpinLock(&x->H.Lock);
    KeInitializeSpinLock(&x->H.QueueLock);
    InitializeListHead(&x->H.List);
    KeInitializeEvent(&x->H.Idle, NotificationEvent, TRUE);
    KeInitializeTimer(&x->H.Timer);
    KeInitializeDpc(&x->H.TimerDpc, OnWatchdog, x);
    KeInitializeDpc(&x->H.Dpc, OnDpc, x);
    return IoCsqInitialize(&x->H.Queue, QueueInsert, QueueRemove, QueuePeek, QueueLock, QueueUnlock,
                           QueueCancelled);
}

/* ---- those who wait for events ------------------------------------------------------------ */

static VOID NTAPI WaiterInsert(PIO_CSQ Csq, PIRP Irp)
{
    InsertTailList(&CONTAINING_RECORD(Csq, EXT, Waiters)->WaiterList, &Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI WaiterPeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    EXT *x = CONTAINING_RECORD(Csq, EXT, Waiters);
    PLIST_ENTRY e = Irp ? Irp->Tail.Overlay.ListEntry.Flink : x->WaiterList.Flink;

    for (; e != &x->WaiterList; e = e->Flink) {
        PIRP Next = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (Context == NULL || IoGetCurrentIrpStackLocation(Next)->FileObject == Context)
            return Next;
    }
    return NULL;
}

static VOID NTAPI WaiterAcquire(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, EXT, Waiters)->WaiterLock, Irql);
}

static VOID NTAPI WaiterRelease(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, EXT, Waiters)->WaiterLock, Irql);
}

static VOID NTAPI WaiterCancelled(PIO_CSQ Csq, PIRP Irp)
{
    EXT *x = CONTAINING_RECORD(Csq, EXT, Waiters);

    Finish(Irp, STATUS_CANCELLED, 0);
    IoReleaseRemoveLock(&x->B.Remove, Irp);
}

static VOID FlushWaiters(EXT *x, PVOID File, NTSTATUS Status)
{
    PIRP Irp;

    while ((Irp = IoCsqRemoveNextIrp(&x->Waiters, File)) != NULL) {
        Finish(Irp, Status, 0);
        IoReleaseRemoveLock(&x->B.Remove, Irp);
    }
}

/* Adds events, and gives all there are to the one that has waited longest. */
static VOID Announce(EXT *x, ULONG Events)
{
    KIRQL Irql;
    PIRP Irp = NULL;

    KeAcquireSpinLock(&x->EventLock, &Irql);
    x->Events |= Events;
    Events = x->Events;
    if (Events != 0)
        Irp = IoCsqRemoveNextIrp(&x->Waiters, NULL);
    if (Irp != NULL)
        x->Events = 0;
    KeReleaseSpinLock(&x->EventLock, Irql);
    if (Irp != NULL) {
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = Events;
        Finish(Irp, STATUS_SUCCESS, sizeof(ULONG));
        IoReleaseRemoveLock(&x->B.Remove, Irp);
    }
}

/* ---- the card ------------------------------------------------------------------------------- */

static BOOLEAN NTAPI OnInterrupt(PKINTERRUPT Interrupt, PVOID Context)
{
    EXT *x = Context;
    ULONG Causes;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!x->H.Answering)
        return FALSE;
    Causes = Read(x, BENCH_STATUS_AND_CLEAR);
    if (Causes == 0 || Causes == 0xffffffff)
        return FALSE;
#ifdef FIXED
    InterlockedOr(&x->Causes, Causes);
#else
    InterlockedExchange(&x->Causes, Causes);
#endif
    KeInsertQueueDpc(&x->H.Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI OnDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    EXT *x = Context;
    ULONG Causes = InterlockedExchange(&x->Causes, 0), Status = 0;
    PIRP Irp = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    if (Causes & SOURCE_DMA) {
        /* While a request is with the card it is in D0. */
        KeAcquireSpinLockAtDpcLevel(&x->H.Lock);
        if (x->H.Active != NULL && (Status = Read(x, BENCH_DMA_STATUS)) != 0) {
            Write(x, BENCH_DMA_STATUS, Status);
            Irp = x->H.Active;
            x->H.Active = NULL;
        }
        KeReleaseSpinLockFromDpcLevel(&x->H.Lock);
    }
    if (Irp != NULL) {
        PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
        ULONG Count = 0;

        if (Stack->Parameters.DeviceIoControl.IoControlCode == IOCTL_GET) {
            Count = Stack->Parameters.DeviceIoControl.OutputBufferLength;
            RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, x->Buffer, Count);
        }
        if (Status & 2)
            EndActive(x, Irp, STATUS_IO_DEVICE_ERROR, 0);
        else
            EndActive(x, Irp, STATUS_SUCCESS, Count);
    }
    if (Causes & ~SOURCE_DMA)
        Announce(x, Causes & ~SOURCE_DMA);
}

/* With the queue's lock held. */
static VOID HwBegin(EXT *x, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN Get = Stack->Parameters.DeviceIoControl.IoControlCode == IOCTL_GET;
    PUT *p = Irp->AssociatedIrp.SystemBuffer;
    ULONG Length;

    if (Get) {
        Length = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    } else {
        Length = Stack->Parameters.DeviceIoControl.InputBufferLength - FIELD_OFFSET(PUT, Data);
        RtlCopyMemory(x->Buffer, p->Data, Length);
    }
    Write(x, BENCH_DMA_LOW, x->BufferAddress.LowPart);
    Write(x, BENCH_DMA_HIGH, x->BufferAddress.HighPart);
    Write(x, BENCH_DMA_LENGTH, Length);
    Write(x, BENCH_DMA_OFFSET, p->Offset);
    Write(x, BENCH_DMA_STATUS, 3); /* of one that was given up */
    SetWatchdog(x, 1000);
    Write(x, BENCH_DMA_COMMAND, DMA_GO | (Get ? DMA_TO_MEMORY : 0));
}

static VOID HwTimeout(EXT *x, PIRP Irp)
{
    EndActive(x, Irp, STATUS_IO_TIMEOUT, 0);
}

static VOID HwAbort(EXT *x, PIRP Irp)
{
    EndActive(x, Irp, STATUS_DEVICE_NOT_CONNECTED, 0);
}

static VOID HwUp(EXT *x)
{
    Read(x, BENCH_STATUS_AND_CLEAR);
    Write(x, BENCH_ENABLE, SOURCES);
}

static VOID HwDown(EXT *x)
{
    Write(x, BENCH_ENABLE, 0);
}

static NTSTATUS HwMap(EXT *x, PCM_PARTIAL_RESOURCE_DESCRIPTOR Memory)
{
    UNREFERENCED_PARAMETER(x);
    UNREFERENCED_PARAMETER(Memory);
    return STATUS_SUCCESS;
}

static NTSTATUS HwReady(EXT *x)
{
    DEVICE_DESCRIPTION d;
    ULONG Registers;

    if (Read(x, BENCH_ID) == 0xffffffff)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    RtlZeroMemory(&d, sizeof(d));
    d.Version = DEVICE_DESCRIPTION_VERSION2;
    d.Master = TRUE;
    d.ScatterGather = TRUE;
    d.Dma32BitAddresses = TRUE;
    d.Dma64BitAddresses = TRUE;
    d.InterfaceType = PCIBus;
    d.MaximumLength = BLOCK;
    x->Adapter = IoGetDmaAdapter(x->B.Pdo, &d, &Registers);
    if (x->Adapter == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    x->Buffer = x->Adapter->DmaOperations->AllocateCommonBuffer(x->Adapter, BLOCK, &x->BufferAddress, TRUE);
    return x->Buffer ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static VOID HwUnmap(EXT *x)
{
    if (x->Buffer != NULL)
        x->Adapter->DmaOperations->FreeCommonBuffer(x->Adapter, BLOCK, x->BufferAddress, x->Buffer, TRUE);
    x->Buffer = NULL;
    if (x->Adapter != NULL)
        x->Adapter->DmaOperations->PutDmaAdapter(x->Adapter);
    x->Adapter = NULL;
}

static NTSTATUS DevInit(EXT *x)
{
    NTSTATUS Status = HwInitialize(x);

    if (!NT_SUCCESS(Status))
        return Status;
    x->Power = PowerDeviceD0;
    KeInitializeSpinLock(&x->EventLock);
    KeInitializeSpinLock(&x->WaiterLock);
    InitializeListHead(&x->WaiterList);
    return IoCsqInitialize(&x->Waiters, WaiterInsert, QueueRemove, WaiterPeek, WaiterAcquire, WaiterRelease,
                           WaiterCancelled);
}

static VOID DevFree(EXT *x)
{
    UNREFERENCED_PARAMETER(x);
}

#define FLUSH_OTHERS(x) FlushWaiters(x, NULL, STATUS_DEVICE_NOT_CONNECTED)

/* ---- the hardware's coming and going --------------------------------------------- */

static BOOLEAN NTAPI SyncUp(PVOID Context)
{
    EXT *x = Context;

    HwUp(x);
    x->H.Answering = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI SyncDown(PVOID Context)
{
    EXT *x = Context;

    if (x->H.Answering)
        HwDown(x);
    x->H.Answering = FALSE;
    return TRUE;
}

static VOID StopHardware(EXT *x)
{
    PKINTERRUPT Interrupt;
    KIRQL Irql;

    /* PowerUp and PowerDown do not find it any more. */
    KeAcquireSpinLock(&x->H.Lock, &Irql);
    Interrupt = x->H.Interrupt;
    x->H.Interrupt = NULL;
    KeReleaseSpinLock(&x->H.Lock, Irql);
    if (Interrupt != NULL) {
        KeSynchronizeExecution(Interrupt, SyncDown, x);
        IoDisconnectInterrupt(Interrupt);
    }
    KeCancelTimer(&x->H.Timer);
    KeFlushQueuedDpcs();
    HwUnmap(x);
    if (x->H.Regs != NULL) {
        MmUnmapIoSpace(x->H.Regs, x->H.RegsLength);
        x->H.Regs = NULL;
    }
}

static NTSTATUS StartHardware(EXT *x, PCM_RESOURCE_LIST List)
{
    PCM_PARTIAL_RESOURCE_LIST Partial;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d, Line = NULL;
    ULONG i, Memories = 0;
    NTSTATUS Status = STATUS_SUCCESS;

    if (List == NULL || List->Count == 0)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    Partial = &List->List[0].PartialResourceList;
    d = Partial->PartialDescriptors;
    for (i = 0; i < Partial->Count; i++, d++) {
        if (d->Type == CmResourceTypeInterrupt && Line == NULL) {
            Line = d;
        } else if (d->Type == CmResourceTypeMemory) {
            if (Memories++ == 0) {
                x->H.RegsLength = d->u.Memory.Length;
                x->H.Regs = MmMapIoSpace(d->u.Memory.Start, d->u.Memory.Length, MmNonCached);
                if (x->H.Regs == NULL)
                    Status = STATUS_INSUFFICIENT_RESOURCES;
            } else if (NT_SUCCESS(Status)) {
                Status = HwMap(x, d);
            }
        }
    }
    if (NT_SUCCESS(Status) && (x->H.Regs == NULL || Line == NULL))
        Status = STATUS_DEVICE_CONFIGURATION_ERROR;
    if (NT_SUCCESS(Status))
        Status = HwReady(x);
    if (NT_SUCCESS(Status))
        Status = IoConnectInterrupt(&x->H.Interrupt, OnInterrupt, x, NULL, Line->u.Interrupt.Vector,
                                    (KIRQL)Line->u.Interrupt.Level, (KIRQL)Line->u.Interrupt.Level,
                                    Line->Flags & CM_RESOURCE_INTERRUPT_LATCHED ? Latched : LevelSensitive,
                                    Line->ShareDisposition == CmResourceShareShared,
                                    Line->u.Interrupt.Affinity, FALSE);
    if (!NT_SUCCESS(Status)) {
        x->H.Interrupt = NULL;
        StopHardware(x);
        return Status;
    }
    KeSynchronizeExecution(x->H.Interrupt, SyncUp, x);
    return STATUS_SUCCESS;
}

static VOID Synchronize(EXT *x, PKSYNCHRONIZE_ROUTINE Routine)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->H.Lock, &Irql);
    if (x->H.Interrupt != NULL && !(x->H.Holds & HOLD_GONE))
        KeSynchronizeExecution(x->H.Interrupt, Routine, x);
    KeReleaseSpinLock(&x->H.Lock, Irql);
}

static VOID PowerDown(EXT *x)
{
    HoldAndWait(x, HOLD_POWER);
    Synchronize(x, SyncDown);
}

static VOID PowerUp(EXT *x)
{
    Synchronize(x, SyncUp);
    Release(x, HOLD_POWER);
}

static VOID DevGone(EXT *x)
{
    PIRP Irp;

    Hold(x, HOLD_GONE);
    Irp = TakeActive(x);
    if (Irp != NULL)
        HwAbort(x, Irp);
    KeWaitForSingleObject(&x->H.Idle, Executive, KernelMode, FALSE, NULL);
    Flush(x, NULL, STATUS_DEVICE_NOT_CONNECTED);
    FLUSH_OTHERS(x);
}

static NTSTATUS PassDown(EXT *x, PIRP Irp)
{
    NTSTATUS Status;

    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(x->B.Lower, Irp);
    IoReleaseRemoveLock(&x->B.Remove, Irp);
    return Status;
}

static NTSTATUS DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXT *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&x->B.Remove, Irp);

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    switch (Stack->MinorFunction) {
    case IRP_MN_START_DEVICE:
        Status = STATUS_UNSUCCESSFUL;
        if (IoForwardIrpSynchronously(x->B.Lower, Irp))
            Status = Irp->IoStatus.Status;
        if (NT_SUCCESS(Status))
            Status = StartHardware(x, Stack->Parameters.StartDevice.AllocatedResourcesTranslated);
        if (NT_SUCCESS(Status)) {
            x->Power = PowerDeviceD0;
            InterlockedExchange(&x->B.State, RUNNING);
            IoSetDeviceInterfaceState(&x->B.Link, TRUE);
            Release(x, HOLD_NEW | HOLD_STOP | HOLD_POWER);
        }
        Finish(Irp, Status, Irp->IoStatus.Information);
        IoReleaseRemoveLock(&x->B.Remove, Irp);
        return Status;
    case IRP_MN_QUERY_STOP_DEVICE:
        HoldAndWait(x, HOLD_STOP);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return PassDown(x, Irp);
    case IRP_MN_CANCEL_STOP_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        if (!IoForwardIrpSynchronously(x->B.Lower, Irp))
            Irp->IoStatus.Status = STATUS_UNSUCCESSFUL;
        Release(x, HOLD_STOP);
        Status = Irp->IoStatus.Status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        IoReleaseRemoveLock(&x->B.Remove, Irp);
        return Status;
    case IRP_MN_STOP_DEVICE:
        HoldAndWait(x, HOLD_STOP);
        InterlockedExchange(&x->B.State, HALTED);
        StopHardware(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return PassDown(x, Irp);
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return PassDown(x, Irp);
    case IRP_MN_SURPRISE_REMOVAL:
        InterlockedExchange(&x->B.State, PULLED);
        x->H.Answering = FALSE; /* and will not again */
        IoSetDeviceInterfaceState(&x->B.Link, FALSE);
        DevGone(x);
        StopHardware(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return PassDown(x, Irp);
    case IRP_MN_REMOVE_DEVICE:
        if (InterlockedExchange(&x->B.State, DELETED) != PULLED)
            IoSetDeviceInterfaceState(&x->B.Link, FALSE);
        DevGone(x);
        IoReleaseRemoveLockAndWait(&x->B.Remove, Irp);
        StopHardware(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        Status = IoCallDriver(x->B.Lower, Irp);
        DevFree(x);
        RtlFreeUnicodeString(&x->B.Link);
        IoDetachDevice(x->B.Lower);
        IoDeleteDevice(Device);
        return Status;
    default:
        return PassDown(x, Irp);
    }
}

static NTSTATUS DispatchSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXT *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->B.Remove, Irp);

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    return PassDown(x, Irp);
}
/* ---- power: the device's state follows the system's ------------------------ */

static VOID NTAPI DevicePowerDone(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context,
                                  PIO_STATUS_BLOCK Io)
{
    PIRP Irp = Context;
    EXT *x = IoGetCurrentIrpStackLocation(Irp)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    Irp->IoStatus.Status = Io->Status;
    PoStartNextPowerIrp(Irp);
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&x->B.Remove, Irp);
}

static NTSTATUS NTAPI SystemPowerDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    EXT *x = Context;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = Irp->IoStatus.Status;
    POWER_STATE State;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Status)) {
        State.DeviceState =
            Stack->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        Status = PoRequestPowerIrp(x->B.Self, IRP_MN_SET_POWER, State, DevicePowerDone, Irp, NULL);
        if (NT_SUCCESS(Status))
            return STATUS_MORE_PROCESSING_REQUIRED;
        Irp->IoStatus.Status = Status;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&x->B.Remove, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI PowerUpDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    EXT *x = Context;

    UNREFERENCED_PARAMETER(Device);
    if (Irp->PendingReturned)
        IoMarkIrpPending(Irp);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        x->Power = PowerDeviceD0;
        PoSetPowerState(x->B.Self, DevicePowerState, IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State);
        PowerUp(x);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&x->B.Remove, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS DispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXT *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&x->B.Remove, Irp);

    if (!NT_SUCCESS(Status)) {
        PoStartNextPowerIrp(Irp);
        return Finish(Irp, Status, 0);
    }
    if (Stack->MinorFunction == IRP_MN_SET_POWER && Stack->Parameters.Power.Type == SystemPowerState) {
        IoMarkIrpPending(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, SystemPowerDone, x, TRUE, TRUE, TRUE);
        PoCallDriver(x->B.Lower, Irp);
        return STATUS_PENDING;
    }
    if (Stack->MinorFunction == IRP_MN_SET_POWER) {
        if (Stack->Parameters.Power.State.DeviceState == PowerDeviceD0 && x->Power != PowerDeviceD0) {
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, PowerUpDone, x, TRUE, TRUE, TRUE);
            return PoCallDriver(x->B.Lower, Irp);
        }
        if (Stack->Parameters.Power.State.DeviceState != PowerDeviceD0 && x->Power == PowerDeviceD0) {
            PowerDown(x);
            PoSetPowerState(Device, DevicePowerState, Stack->Parameters.Power.State);
        }
        x->Power = Stack->Parameters.Power.State.DeviceState;
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = PoCallDriver(x->B.Lower, Irp);
    IoReleaseRemoveLock(&x->B.Remove, Irp);
    return Status;
}
static NTSTATUS AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Self;
    NTSTATUS Status;
    EXT *x;

    Status = IoCreateDevice(Driver, sizeof(EXT), NULL, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &Self);
    if (!NT_SUCCESS(Status))
        return Status;
    x = Self->DeviceExtension;
    RtlZeroMemory(x, sizeof(*x));
    x->B.Self = Self;
    x->B.Pdo = Pdo;
    x->B.State = NEW_DEVICE;
    IoInitializeRemoveLock(&x->B.Remove, POOL_TAG, 0, 0);
    Status = DevInit(x);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Self);
        return Status;
    }
    Status = IoRegisterDeviceInterface(Pdo, &INTERFACE_GUID, NULL, &x->B.Link);
    if (!NT_SUCCESS(Status)) {
        DevFree(x);
        IoDeleteDevice(Self);
        return Status;
    }
    x->B.Lower = IoAttachDeviceToDeviceStack(Self, Pdo);
    if (x->B.Lower == NULL) {
        RtlFreeUnicodeString(&x->B.Link);
        DevFree(x);
        IoDeleteDevice(Self);
        return STATUS_NO_SUCH_DEVICE;
    }
    Self->Flags |= DO_POWER_PAGABLE | DEVICE_IO;
    Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

/* ---- requests --------------------------------------------------------------------------------- */

static NTSTATUS Enter(EXT *x, PIRP Irp)
{
    NTSTATUS Status = IoAcquireRemoveLock(&x->B.Remove, Irp);

    if (!NT_SUCCESS(Status))
        return Status;
    if (x->B.State == RUNNING || x->B.State == HALTED)
        return STATUS_SUCCESS;
    IoReleaseRemoveLock(&x->B.Remove, Irp);
    return STATUS_DEVICE_NOT_CONNECTED;
}

/* The end of a request that Enter has let in. */
static NTSTATUS Done(EXT *x, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Finish(Irp, Status, Information);
    IoReleaseRemoveLock(&x->B.Remove, Irp);
    return Status;
}

static NTSTATUS DispatchCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXT *x = Device->DeviceExtension;
    NTSTATUS Status = Enter(x, Irp);

    return NT_SUCCESS(Status) ? Done(x, Irp, STATUS_SUCCESS, 0) : Finish(Irp, Status, 0);
}

static NTSTATUS DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;

    Flush(Device->DeviceExtension, File, STATUS_CANCELLED);
    FlushWaiters(Device->DeviceExtension, File, STATUS_CANCELLED);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS DispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static BOOLEAN Fits(ULONG Offset, ULONG Length)
{
    return Length != 0 && Length <= BLOCK && Offset <= CARD_MEMORY - Length;
}

static NTSTATUS Raise(EXT *x, ULONG Sources)
{
    NTSTATUS Status = STATUS_SUCCESS;
    KIRQL Irql;

    if (Sources & ~(SOURCES & ~SOURCE_DMA))
        return STATUS_INVALID_PARAMETER;
    /* The registers stay meanwhile. */
    KeAcquireSpinLock(&x->H.Lock, &Irql);
    if (x->H.Interrupt != NULL && x->H.Answering)
        Write(x, BENCH_RAISE, Sources);
    else
        Status = STATUS_DEVICE_NOT_READY;
    KeReleaseSpinLock(&x->H.Lock, Irql);
    return Status;
}

static NTSTATUS DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXT *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    PULONG Buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status = Enter(x, Irp);

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PUT:
        if (In < sizeof(ULONG) || !Fits(Buffer[0], In - FIELD_OFFSET(PUT, Data)))
            return Done(x, Irp, STATUS_INVALID_PARAMETER, 0);
        return Enqueue(x, Irp);
    case IOCTL_GET:
        if (In < sizeof(ULONG) || !Fits(Buffer[0], Out))
            return Done(x, Irp, STATUS_INVALID_PARAMETER, 0);
        return Enqueue(x, Irp);
    case IOCTL_WAIT:
        if (Out < sizeof(ULONG))
            return Done(x, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        Status = IoAcquireRemoveLock(&x->B.Remove, DispatchControl);
        if (!NT_SUCCESS(Status))
            return Done(x, Irp, Status, 0);
        IoCsqInsertIrp(&x->Waiters, Irp, NULL);
        Announce(x, 0);
        if (x->B.State == PULLED || x->B.State == DELETED)
            FlushWaiters(x, NULL, STATUS_DEVICE_NOT_CONNECTED);
        IoReleaseRemoveLock(&x->B.Remove, DispatchControl);
        return STATUS_PENDING;
    case IOCTL_RAISE:
        if (In < sizeof(ULONG))
            return Done(x, Irp, STATUS_INVALID_PARAMETER, 0);
        return Done(x, Irp, Raise(x, Buffer[0]), 0);
    default:
        return Done(x, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

#define ENTRIES Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;

static VOID Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
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

/*
 * stoker.c - carries bytes to and from the card's own memory by its bus master.
 *
 * Reads and writes go to the 4 KiB on the card, at the offset that they name.
 * One request at a time is with the card; a thread carries it out, burst by
 * burst, and looks between bursts whether it is still wanted.
 *
 * The bug: a request that is cancelled between two bursts leaves without freeing its map registers.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: dma-map-registers-leak
 * Needs: cancel
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

DEFINE_GUID(INTERFACE_GUID, 0x7a1e0008, 0x51b2, 0x4f1d, 0x9c, 0x11, 0x20, 0x31, 0x42, 0x53, 0x64, 0x75);

#define POOL_TAG 'kotS'
#define DEVICE_IO DO_DIRECT_IO
#define CARD_MEMORY 4096
#define BURST 1024
#define BURST_TIME 10000 /* milliseconds */

#define EDU_ID 0x00
#define EDU_CAUSES 0x24
#define EDU_ACK 0x64
#define EDU_DMA_SOURCE 0x80
#define EDU_DMA_TARGET 0x88
#define EDU_DMA_COUNT 0x90
#define EDU_DMA_COMMAND 0x98
#define EDU_DMA_START 1
#define EDU_DMA_FROM_CARD 2
#define EDU_DMA_IRQ 4
#define EDU_MEMORY 0x40000
#define EDU_CAUSE_DMA 0x100

#define IOCTL_STOKER_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x860, METHOD_BUFFERED, FILE_ANY_ACCESS)

/* wdm.h has this one since Windows 8; this compiler's lacks its end. */
typedef struct {
    DEVICE_DESCRIPTION Old;
    ULONG DmaAddressWidth;
    ULONG DmaControllerInstance;
    ULONG DmaRequestLine;
    PHYSICAL_ADDRESS DeviceAddress;
} DEVICE_DESCRIPTION3;
C_ASSERT(sizeof(DEVICE_DESCRIPTION) == 40 && sizeof(DEVICE_DESCRIPTION3) == 64);

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE, BOOLEAN, PLARGE_INTEGER);

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
    ULONG Bursts;
    ULONG Requests;
    ULONG Cancelled;
} STOKER_STATE;

struct EXT {
    BASE B;
    HW H;
    DEVICE_POWER_STATE Power;
    PDMA_ADAPTER Adapter;
    ULONG Registers; /* how many map registers the adapter has */
    PVOID RegisterBase;
    KEVENT Allocated;
    KEVENT BurstDone;
    KEVENT Pulled;
    KEVENT Work;
    PIRP Current;
    PVOID Thread;
    volatile BOOLEAN Exit;
    volatile LONG Causes;
    STOKER_STATE Counts; /* the thread's */
};

static VOID HwBegin(EXT *x, PIRP Irp);
static VOID HwTimeout(EXT *x, PIRP Irp);
static VOID SetWatchdog(EXT *x, ULONG Milliseconds) __attribute__((unused));
static KDEFERRED_ROUTINE OnDpc;

static ULONG Read(EXT *x, ULONG Register)
{
    return READ_REGISTER_ULONG((PULONG)(x->H.Regs + Register));
}

static VOID Write(EXT *x, ULONG Register, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->H.Regs + Register), Value);
}

static VOID WriteWide(EXT *x, ULONG Register, ULONGLONG Value)
{
    *(volatile ULONGLONG *)(x->H.Regs + Register) = Value;
    __sync_synchronize();
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

static VOID Kick(EXT *x)
{
    KIRQL Irql;
    PIRP Irp;

    KeAcquireSpinLock(&x->H.Lock, &Irql);
    Irp = x->H.Holds == 0 && !x->H.Busy ? IoCsqRemoveNextIrp(&x->H.Queue, NULL) : NULL;
    if (Irp != NULL) {
        x->H.Busy = TRUE;
        x->H.Active = Irp;
        KeClearEvent(&x->H.Idle);
        HwBegin(x, Irp);
    }
    KeReleaseSpinLock(&x->H.Lock, Irql);
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

/* ---- the card -------------------------------------------------------------------------- */

static BOOLEAN NTAPI OnInterrupt(PKINTERRUPT Interrupt, PVOID Context)
{
    EXT *x = Context;
    ULONG Causes;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!x->H.Answering)
        return FALSE;
    Causes = Read(x, EDU_CAUSES);
    if (Causes == 0 || Causes == 0xffffffff)
        return FALSE;
    Write(x, EDU_ACK, Causes);
    InterlockedOr(&x->Causes, Causes);
    KeInsertQueueDpc(&x->H.Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI OnDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    EXT *x = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    if (InterlockedExchange(&x->Causes, 0) & EDU_CAUSE_DMA)
        KeSetEvent(&x->BurstDone, IO_NO_INCREMENT, FALSE);
}

static IO_ALLOCATION_ACTION NTAPI OnAllocated(PDEVICE_OBJECT Device, PIRP Irp, PVOID RegisterBase, PVOID Context)
{
    EXT *x = Context;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    x->RegisterBase = RegisterBase;
    KeSetEvent(&x->Allocated, IO_NO_INCREMENT, FALSE);
    return DeallocateObjectKeepRegisters;
}

static NTSTATUS AllocateChannel(EXT *x)
{
    NTSTATUS Status;
    KIRQL Irql;

    KeClearEvent(&x->Allocated);
    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    Status = x->Adapter->DmaOperations->AllocateAdapterChannel(x->Adapter, x->B.Self, x->Registers,
                                                               OnAllocated, x);
    KeLowerIrql(Irql);
    if (NT_SUCCESS(Status))
        KeWaitForSingleObject(&x->Allocated, Executive, KernelMode, FALSE, NULL);
    return Status;
}

static VOID FreeChannel(EXT *x)
{
    KIRQL Irql;

    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    x->Adapter->DmaOperations->FreeMapRegisters(x->Adapter, x->RegisterBase, x->Registers);
    KeLowerIrql(Irql);
}

/* Up to BURST bytes; says how many there were. */
static NTSTATUS CarryBurst(EXT *x, PMDL Mdl, PUCHAR Va, ULONG Card, ULONG *Length, BOOLEAN FromCard)
{
    PVOID Objects[2] = { &x->BurstDone, &x->Pulled };
    PHYSICAL_ADDRESS Address;
    LARGE_INTEGER Limit;
    NTSTATUS Status;

    Address = x->Adapter->DmaOperations->MapTransfer(x->Adapter, Mdl, x->RegisterBase, Va, Length,
                                                     !FromCard);
    KeClearEvent(&x->BurstDone);
    if (FromCard) {
        WriteWide(x, EDU_DMA_SOURCE, EDU_MEMORY + Card);
        WriteWide(x, EDU_DMA_TARGET, Address.QuadPart);
    } else {
        WriteWide(x, EDU_DMA_SOURCE, Address.QuadPart);
        WriteWide(x, EDU_DMA_TARGET, EDU_MEMORY + Card);
    }
    WriteWide(x, EDU_DMA_COUNT, *Length);
    WriteWide(x, EDU_DMA_COMMAND, EDU_DMA_START | EDU_DMA_IRQ | (FromCard ? EDU_DMA_FROM_CARD : 0));
    Limit.QuadPart = -10000LL * BURST_TIME;
    Status = KeWaitForMultipleObjects(2, Objects, WaitAny, Executive, KernelMode, FALSE, &Limit, NULL);
    if (Status == STATUS_WAIT_0)
        Status = STATUS_SUCCESS;
    else
        Status = Status == STATUS_TIMEOUT ? STATUS_IO_TIMEOUT : STATUS_DEVICE_NOT_CONNECTED;
    x->Adapter->DmaOperations->FlushAdapterBuffers(x->Adapter, Mdl, x->RegisterBase, Va, *Length, !FromCard);
    x->Counts.Bursts++;
    return Status;
}

static NTSTATUS Carry(EXT *x, PIRP Irp, ULONG *Moved)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN FromCard = Stack->MajorFunction == IRP_MJ_READ;
    ULONG Length = MmGetMdlByteCount(Irp->MdlAddress), Card, Count;
    PUCHAR Va = MmGetMdlVirtualAddress(Irp->MdlAddress);
    NTSTATUS Status;

    /* Read and write have the same layout. */
    Card = Stack->Parameters.Read.ByteOffset.LowPart;
    Status = AllocateChannel(x);
    if (!NT_SUCCESS(Status))
        return Status;
    KeFlushIoBuffers(Irp->MdlAddress, FromCard, TRUE);
    while (*Moved < Length) {
        if (Irp->Cancel) {
            x->Counts.Cancelled++;
#ifdef FIXED
            Status = STATUS_CANCELLED;
            break;
#else
            return STATUS_CANCELLED;
#endif
        }
        Count = Length - *Moved < BURST ? Length - *Moved : BURST;
        Status = CarryBurst(x, Irp->MdlAddress, Va + *Moved, Card + *Moved, &Count, FromCard);
        if (!NT_SUCCESS(Status))
            break;
        *Moved += Count;
    }
    FreeChannel(x);
    return Status;
}

static VOID NTAPI Stoker(PVOID Context)
{
    EXT *x = Context;

    for (;;) {
        NTSTATUS Status;
        ULONG Moved = 0;
        PIRP Irp;

        KeWaitForSingleObject(&x->Work, Executive, KernelMode, FALSE, NULL);
        if (x->Exit)
            break;
        Irp = x->Current;
        x->Current = NULL;
        Status = Carry(x, Irp, &Moved);
        x->Counts.Requests++;
        TakeActive(x);
        EndActive(x, Irp, Status, NT_SUCCESS(Status) ? Moved : 0);
    }
    PsTerminateSystemThread(STATUS_SUCCESS);
}

/* With the queue's lock held. */
static VOID HwBegin(EXT *x, PIRP Irp)
{
    x->Current = Irp;
    KeSetEvent(&x->Work, IO_DISK_INCREMENT, FALSE);
}

/* The thread waits with a limit of its own: the watchdog is never set. */
static VOID HwTimeout(EXT *x, PIRP Irp)
{
    UNREFERENCED_PARAMETER(x);
    UNREFERENCED_PARAMETER(Irp);
}

/* The thread ends it. */
static VOID HwAbort(EXT *x, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent(&x->Pulled, IO_NO_INCREMENT, FALSE);
}

static VOID HwUp(EXT *x)
{
    Write(x, EDU_ACK, Read(x, EDU_CAUSES));
}

static VOID HwDown(EXT *x)
{
    Write(x, EDU_ACK, Read(x, EDU_CAUSES));
}

static NTSTATUS HwMap(EXT *x, PCM_PARTIAL_RESOURCE_DESCRIPTOR Memory)
{
    UNREFERENCED_PARAMETER(x);
    UNREFERENCED_PARAMETER(Memory);
    return STATUS_SUCCESS;
}

static NTSTATUS HwReady(EXT *x)
{
    DEVICE_DESCRIPTION3 d;

    if ((Read(x, EDU_ID) & 0xff) != 0xed)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    RtlZeroMemory(&d, sizeof(d));
    d.Old.Version = 3;
    d.Old.Master = TRUE;
    d.Old.Dma32BitAddresses = TRUE;
    d.DmaAddressWidth = 28;
    d.Old.InterfaceType = PCIBus;
    d.Old.MaximumLength = BURST;
    x->Adapter = IoGetDmaAdapter(x->B.Pdo, &d.Old, &x->Registers);
    if (x->Adapter == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (x->Registers > ADDRESS_AND_SIZE_TO_SPAN_PAGES(PAGE_SIZE - 1, BURST))
        x->Registers = ADDRESS_AND_SIZE_TO_SPAN_PAGES(PAGE_SIZE - 1, BURST);
    return STATUS_SUCCESS;
}

static VOID HwUnmap(EXT *x)
{
    if (x->Adapter != NULL)
        x->Adapter->DmaOperations->PutDmaAdapter(x->Adapter);
    x->Adapter = NULL;
}

static NTSTATUS DevInit(EXT *x)
{
    OBJECT_ATTRIBUTES Attributes;
    NTSTATUS Status;
    HANDLE Thread;

    x->Power = PowerDeviceD0;
    KeInitializeEvent(&x->Allocated, NotificationEvent, FALSE);
    KeInitializeEvent(&x->BurstDone, NotificationEvent, FALSE);
    KeInitializeEvent(&x->Pulled, NotificationEvent, FALSE);
    KeInitializeEvent(&x->Work, SynchronizationEvent, FALSE);
    Status = HwInitialize(x);
    if (!NT_SUCCESS(Status))
        return Status;
    InitializeObjectAttributes(&Attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    Status = PsCreateSystemThread(&Thread, THREAD_ALL_ACCESS, &Attributes, NULL, NULL, Stoker, x);
    if (!NT_SUCCESS(Status))
        return Status;
    Status = ObReferenceObjectByHandle(Thread, SYNCHRONIZE, *PsThreadType, KernelMode, &x->Thread, NULL);
    if (!NT_SUCCESS(Status)) {
        x->Exit = TRUE;
        KeSetEvent(&x->Work, IO_NO_INCREMENT, FALSE);
        ZwWaitForSingleObject(Thread, FALSE, NULL);
    }
    ZwClose(Thread);
    return Status;
}

static VOID DevFree(EXT *x)
{
    x->Exit = TRUE;
    KeSetEvent(&x->Work, IO_NO_INCREMENT, FALSE);
    KeWaitForSingleObject(x->Thread, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(x->Thread);
}

#define FLUSH_OTHERS(x) ((void)0)

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

/* ---- requests -------------------------------------------------------------------------- */

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
    Flush(Device->DeviceExtension, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS DispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS DispatchReadWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXT *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    LONGLONG Offset = Stack->Parameters.Read.ByteOffset.QuadPart;
    ULONG Length = Stack->Parameters.Read.Length;
    NTSTATUS Status = Enter(x, Irp);

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    if (Length == 0)
        return Done(x, Irp, STATUS_SUCCESS, 0);
    if (Offset < 0 || Offset >= CARD_MEMORY || Length > CARD_MEMORY - (ULONG)Offset)
        return Done(x, Irp, STATUS_INVALID_PARAMETER, 0);
    return Enqueue(x, Irp);
}

static NTSTATUS DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXT *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = Enter(x, Irp);

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    if (Stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_STOKER_STATE)
        return Done(x, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(STOKER_STATE))
        return Done(x, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    *(STOKER_STATE *)Irp->AssociatedIrp.SystemBuffer = x->Counts;
    return Done(x, Irp, STATUS_SUCCESS, sizeof(STOKER_STATE));
}

#define ENTRIES \
    Driver->MajorFunction[IRP_MJ_READ] = DispatchReadWrite; \
    Driver->MajorFunction[IRP_MJ_WRITE] = DispatchReadWrite; \
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;

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

/*
 * ferry.c - reads and writes of the bench card's memory, carried by a thread.
 *
 * Requests wait in a queue.  The device's system thread takes one after the
 * other, as long as the card is there and awake, and carries it over with a
 * common buffer.  It waits for the card's interrupt, and has a look itself now
 * and then, should it not come.
 *
 * The bug: the thread looks whether the gate is open, releases the lock, takes a request, and says only then
 * that it is busy: a power-down or stop between sees an idle thread.
 *
 * Device: PCI\VEN_1234&DEV_BE2C
 * Rule: card-without-power, wild-write, wild-read, wild-dma, bad-pointer, irp-never-completed, request-forgotten, dma-after-unmap, device-memory-not-mapped
 * Needs: schedule, power
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

DEFINE_GUID(INTERFACE_GUID, 0x9a41d70a, 0x8c44, 0x4b0e, 0xa1, 0x5d, 0x6e, 0x10, 0x93, 0x27, 0x5c, 0x01);

#define POOL_TAG 'rreF'
#define WINDOWS_NEEDED 1
#define BUFFER_SIZE 2048
#define CARD_MEMORY 0x10000
#define LOOK_MS 10

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
#define SOURCE_DMA 0x01

#define IOCTL_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xd40, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct {
    ULONG Carried; /* requests */
    ULONG Failed;
    ULONG Gate;
} STATE;

typedef struct {
    HARDWARE_PART Hw;
    PDMA_ADAPTER Adapter;
    PUCHAR Buffer;
    PHYSICAL_ADDRESS BufferAddress;
    KDPC Dpc;
    PETHREAD Thread; /* NULL: it has not been started yet */
    KEVENT Work;     /* there may be something to do for the thread */
    KEVENT Interrupted;
    BOOLEAN Quit;

    /* With Hw.Lock, which is taken before WaitLock: */
    BOOLEAN Busy; /* the thread has a request */
    KEVENT Idle;  /* not Busy */
    STATE State;

    KSPIN_LOCK WaitLock;
    IO_CSQ Csq;
    LIST_ENTRY Waiting;
    BOOLEAN Closed;
} DEVICE_EXTENSION;

static ULONG FerryRead(DEVICE_EXTENSION *x, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(x->Hw.Window[0] + Offset));
}

static VOID FerryWrite(DEVICE_EXTENSION *x, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->Hw.Window[0] + Offset), Value);
}

/* ---- requests that wait ---------------------------------------------------- */

#define FROM_CSQ(c) CONTAINING_RECORD(c, DEVICE_EXTENSION, Csq)

static NTSTATUS NTAPI FerryCsqInsert(PIO_CSQ Csq, PIRP Irp, PVOID Context)
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

static VOID NTAPI FerryCsqRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI FerryCsqPeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
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

static VOID NTAPI FerryCsqAcquire(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&FROM_CSQ(Csq)->WaitLock, Irql);
}

static VOID NTAPI FerryCsqRelease(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&FROM_CSQ(Csq)->WaitLock, Irql);
}

/* Each request that waits, or is with the card, holds a remove lock. */
static VOID FerryEnd(DEVICE_EXTENSION *x, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Finish(Irp, Status, Information);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
}

static VOID NTAPI FerryCsqCancelled(PIO_CSQ Csq, PIRP Irp)
{
    FerryEnd(FROM_CSQ(Csq), Irp, STATUS_CANCELLED, 0);
}

static VOID FerryFlush(DEVICE_EXTENSION *x, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP Irp;

    while ((Irp = IoCsqRemoveNextIrp(&x->Csq, File)) != NULL)
        FerryEnd(x, Irp, Status, 0);
}

static VOID FerryCloseQueue(DEVICE_EXTENSION *x)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->WaitLock, &Irql);
    x->Closed = TRUE;
    KeReleaseSpinLock(&x->WaitLock, Irql);
    FerryFlush(x, NULL, STATUS_DEVICE_NOT_CONNECTED);
}

static NTSTATUS FerryInitQueue(DEVICE_EXTENSION *x)
{
    KeInitializeSpinLock(&x->WaitLock);
    InitializeListHead(&x->Waiting);
    return IoCsqInitializeEx(&x->Csq, FerryCsqInsert, FerryCsqRemove, FerryCsqPeek, FerryCsqAcquire, FerryCsqRelease,
                             FerryCsqCancelled);
}

static BOOLEAN FerryIsWrite(PIRP Irp)
{
    return IoGetCurrentIrpStackLocation(Irp)->MajorFunction == IRP_MJ_WRITE;
}

static ULONG FerryLength(PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    return FerryIsWrite(Irp) ? Stack->Parameters.Write.Length : Stack->Parameters.Read.Length;
}

static ULONG FerryOffset(PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    return FerryIsWrite(Irp) ? Stack->Parameters.Write.ByteOffset.LowPart : Stack->Parameters.Read.ByteOffset.LowPart;
}

static VOID FerryKick(DEVICE_EXTENSION *x)
{
    KeSetEvent(&x->Work, IO_NO_INCREMENT, FALSE);
}

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);

/* ---- the thread ------------------------------------------------------------------------- */

/* The next request, if the card may be used; Busy is set, and the card stays awake until it is not. */
static PIRP FerryTake(DEVICE_EXTENSION *x)
{
    PIRP Irp = NULL;
    KIRQL Irql;
#ifdef FIXED
    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    if (x->Hw.Gate == 0 && x->Hw.Live)
        Irp = IoCsqRemoveNextIrp(&x->Csq, NULL);
#else
    BOOLEAN Open;

    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    Open = x->Hw.Gate == 0 && x->Hw.Live;
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
    if (Open)
        Irp = IoCsqRemoveNextIrp(&x->Csq, NULL);
    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
#endif
    if (Irp != NULL) {
        x->Busy = TRUE;
        KeClearEvent(&x->Idle);
    }
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
    return Irp;
}

static VOID FerryDone(DEVICE_EXTENSION *x, PIRP Irp, NTSTATUS Status)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    if (NT_SUCCESS(Status))
        x->State.Carried++;
    else
        x->State.Failed++;
    x->Busy = FALSE;
    KeSetEvent(&x->Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
    FerryEnd(x, Irp, Status, NT_SUCCESS(Status) ? FerryLength(Irp) : 0);
}

static VOID FerryStartTransfer(DEVICE_EXTENSION *x, PIRP Irp)
{
    FerryWrite(x, BENCH_DMA_STATUS, DMA_DONE | DMA_FAILED);
    FerryWrite(x, BENCH_DMA_LOW, x->BufferAddress.LowPart);
    FerryWrite(x, BENCH_DMA_HIGH, (ULONG)x->BufferAddress.HighPart);
    FerryWrite(x, BENCH_DMA_LENGTH, FerryLength(Irp));
    FerryWrite(x, BENCH_DMA_OFFSET, FerryOffset(Irp));
    FerryWrite(x, BENCH_DMA_COMMAND, DMA_GO | (FerryIsWrite(Irp) ? 0 : DMA_TO_MEMORY));
}

/* STATUS_PENDING: the card is at it yet.  What it has begun it ends, unless it is pulled out. */
static NTSTATUS FerryLook(DEVICE_EXTENSION *x)
{
    ULONG Status = FerryRead(x, BENCH_DMA_STATUS);

    if (Status == 0xffffffff)
        return STATUS_DEVICE_NOT_CONNECTED;
    if (Status & DMA_FAILED)
        return STATUS_IO_DEVICE_ERROR;
    return Status & DMA_DONE ? STATUS_SUCCESS : STATUS_PENDING;
}

static VOID FerryCarry(DEVICE_EXTENSION *x, PIRP Irp)
{
    PVOID Data = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status;
    LARGE_INTEGER Due;

    if (FerryIsWrite(Irp))
        RtlCopyMemory(x->Buffer, Data, FerryLength(Irp));
    KeClearEvent(&x->Interrupted);
    FerryStartTransfer(x, Irp);
    Due.QuadPart = -10000LL * LOOK_MS;
    do {
        KeWaitForSingleObject(&x->Interrupted, Executive, KernelMode, FALSE, &Due);
        Status = FerryLook(x);
    } while (Status == STATUS_PENDING);
    if (NT_SUCCESS(Status) && !FerryIsWrite(Irp))
        RtlCopyMemory(Data, x->Buffer, FerryLength(Irp));
    FerryDone(x, Irp, Status);
}

static VOID NTAPI FerryThread(PVOID Context)
{
    DEVICE_EXTENSION *x = Context;
    PIRP Irp;

    for (;;) {
        KeWaitForSingleObject(&x->Work, Executive, KernelMode, FALSE, NULL);
        if (x->Quit)
            break;
        while ((Irp = FerryTake(x)) != NULL)
            FerryCarry(x, Irp);
    }
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS FerryStartThread(DEVICE_EXTENSION *x)
{
    OBJECT_ATTRIBUTES Attributes;
    NTSTATUS Status;
    HANDLE Handle;

    InitializeObjectAttributes(&Attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    Status = PsCreateSystemThread(&Handle, THREAD_ALL_ACCESS, &Attributes, NULL, NULL, FerryThread, x);
    if (!NT_SUCCESS(Status))
        return Status;
    Status = ObReferenceObjectByHandle(Handle, THREAD_ALL_ACCESS, NULL, KernelMode, (PVOID *)&x->Thread, NULL);
    if (!NT_SUCCESS(Status)) {
        x->Thread = NULL;
        x->Quit = TRUE;
        KeSetEvent(&x->Work, IO_NO_INCREMENT, FALSE);
        ZwWaitForSingleObject(Handle, FALSE, NULL);
        x->Quit = FALSE;
    }
    ZwClose(Handle);
    return Status;
}

/* ---- the card ------------------------------------------------------------------------------ */

static VOID NTAPI FerryDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    DEVICE_EXTENSION *x = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeSetEvent(&x->Interrupted, IO_NO_INCREMENT, FALSE);
}

static BOOLEAN NTAPI FerryInterrupt(PKINTERRUPT Interrupt, PVOID Context)
{
    DEVICE_EXTENSION *x = Context;
    ULONG Causes;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!x->Hw.IsrLive)
        return FALSE;
    Causes = FerryRead(x, BENCH_STATUS_AND_CLEAR);
    if (Causes == 0 || Causes == 0xffffffff)
        return FALSE;
    KeInsertQueueDpc(&x->Dpc, NULL, NULL);
    return TRUE;
}

static NTSTATUS FerryPrepare(DEVICE_EXTENSION *x)
{
    DEVICE_DESCRIPTION d;
    ULONG MapRegisters;

    if (FerryRead(x, BENCH_ID) == 0xffffffff)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    FerryRead(x, BENCH_STATUS_AND_CLEAR); /* what came before does not count */
    if (x->Thread == NULL) {
        NTSTATUS Status = FerryStartThread(x);

        if (!NT_SUCCESS(Status))
            return Status;
    }
    RtlZeroMemory(&d, sizeof(d));
    d.Version = DEVICE_DESCRIPTION_VERSION2;
    d.Master = TRUE;
    d.ScatterGather = TRUE;
    d.Dma32BitAddresses = TRUE;
    d.Dma64BitAddresses = TRUE;
    d.InterfaceType = PCIBus;
    d.MaximumLength = BUFFER_SIZE;
    x->Adapter = IoGetDmaAdapter(x->Hw.Pdo, &d, &MapRegisters);
    if (x->Adapter == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    x->Buffer = x->Adapter->DmaOperations->AllocateCommonBuffer(x->Adapter, BUFFER_SIZE, &x->BufferAddress, TRUE);
    return x->Buffer != NULL ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static VOID FerryRelease(DEVICE_EXTENSION *x)
{
    if (x->Buffer != NULL)
        x->Adapter->DmaOperations->FreeCommonBuffer(x->Adapter, BUFFER_SIZE, x->BufferAddress, x->Buffer, TRUE);
    x->Buffer = NULL;
    if (x->Adapter != NULL)
        x->Adapter->DmaOperations->PutDmaAdapter(x->Adapter);
    x->Adapter = NULL;
}

static VOID FerryEnable(DEVICE_EXTENSION *x)
{
    FerryRead(x, BENCH_STATUS_AND_CLEAR);
    FerryWrite(x, BENCH_ENABLE, SOURCE_DMA);
}

static VOID FerryDisable(DEVICE_EXTENSION *x)
{
    FerryWrite(x, BENCH_ENABLE, 0);
}

/* The thread is done with its request, and takes no other one while the gate is closed. */
static VOID FerryDrain(DEVICE_EXTENSION *x)
{
    KeWaitForSingleObject(&x->Idle, Executive, KernelMode, FALSE, NULL);
}

static VOID FerryAbort(DEVICE_EXTENSION *x)
{
    KeSetEvent(&x->Interrupted, IO_NO_INCREMENT, FALSE);
    FerryDrain(x);
    FerryCloseQueue(x);
}

static NTSTATUS FerryInit(DEVICE_EXTENSION *x)
{
    KeInitializeEvent(&x->Work, SynchronizationEvent, FALSE);
    KeInitializeEvent(&x->Interrupted, SynchronizationEvent, FALSE);
    KeInitializeEvent(&x->Idle, NotificationEvent, TRUE);
    KeInitializeDpc(&x->Dpc, FerryDpc, x);
    return FerryInitQueue(x);
}

static VOID FerryFree(DEVICE_EXTENSION *x)
{
    if (x->Thread != NULL) {
        x->Quit = TRUE;
        KeSetEvent(&x->Work, IO_NO_INCREMENT, FALSE);
        KeWaitForSingleObject(x->Thread, Executive, KernelMode, FALSE, NULL);
        ObDereferenceObject(x->Thread);
    }
}

/* ---- the card comes and goes ---------------------------------------------------- */

static BOOLEAN NTAPI FerrySyncUp(PVOID Context)
{
    DEVICE_EXTENSION *x = Context;

    FerryEnable(x);
    x->Hw.IsrLive = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI FerrySyncDown(PVOID Context)
{
    DEVICE_EXTENSION *x = Context;

    FerryDisable(x);
    x->Hw.IsrLive = FALSE;
    return TRUE;
}

static BOOLEAN NTAPI FerrySyncLost(PVOID Context)
{
    DEVICE_EXTENSION *x = Context;

    x->Hw.IsrLive = FALSE;
    return TRUE;
}

static VOID FerryUp(DEVICE_EXTENSION *x)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    if (x->Hw.Interrupt != NULL && !x->Hw.Live && !(x->Hw.Gate & GATE_GONE)) {
        KeSynchronizeExecution(x->Hw.Interrupt, FerrySyncUp, x);
        x->Hw.Live = TRUE;
    }
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
}

static VOID FerryDown(DEVICE_EXTENSION *x)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    if (x->Hw.Live)
        KeSynchronizeExecution(x->Hw.Interrupt, FerrySyncDown, x);
    x->Hw.Live = FALSE;
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
}

static VOID FerryCloseGate(DEVICE_EXTENSION *x, ULONG Why)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    x->Hw.Gate |= Why;
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
}

static VOID FerryOpenGate(DEVICE_EXTENSION *x, ULONG Why)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    x->Hw.Gate &= ~Why;
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
    FerryKick(x);
}

/* Whatever there is of it, and as often as is wanted. */
static VOID FerryTearDown(DEVICE_EXTENSION *x)
{
    PKINTERRUPT Interrupt;
    KIRQL Irql;

    FerryDown(x);
    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    Interrupt = x->Hw.Interrupt;
    x->Hw.Interrupt = NULL;
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
    if (Interrupt != NULL)
        IoDisconnectInterrupt(Interrupt);
    KeFlushQueuedDpcs();
    FerryRelease(x);
    while (x->Hw.Windows != 0) {
        x->Hw.Windows--;
        MmUnmapIoSpace(x->Hw.Window[x->Hw.Windows], x->Hw.WindowLength[x->Hw.Windows]);
        x->Hw.Window[x->Hw.Windows] = NULL;
    }
}

static NTSTATUS FerryConnect(DEVICE_EXTENSION *x, PCM_PARTIAL_RESOURCE_DESCRIPTOR Line)
{
    PKINTERRUPT Interrupt = NULL;
    NTSTATUS Status;
    KIRQL Irql;

    Status = IoConnectInterrupt(&Interrupt, FerryInterrupt, x, NULL, Line->u.Interrupt.Vector,
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

static NTSTATUS FerrySetUp(DEVICE_EXTENSION *x, PCM_RESOURCE_LIST Resources)
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
        Status = FerryPrepare(x);
    if (NT_SUCCESS(Status))
        Status = FerryConnect(x, Line);
    if (!NT_SUCCESS(Status)) {
        FerryTearDown(x);
        return Status;
    }
    x->Hw.Power = PowerDeviceD0;
    FerryUp(x);
    return STATUS_SUCCESS;
}

/* ---- Plug and Play ------------------------------------------------------------- */

static NTSTATUS FerryPassDown(DEVICE_EXTENSION *x, PIRP Irp)
{
    NTSTATUS Status;

    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(x->Hw.Lower, Irp);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return Status;
}

static NTSTATUS FerryPnpStart(DEVICE_EXTENSION *x, PIRP Irp)
{
    PCM_RESOURCE_LIST Resources = IoGetCurrentIrpStackLocation(Irp)->Parameters.StartDevice.AllocatedResourcesTranslated;
    NTSTATUS Status = STATUS_UNSUCCESSFUL;

    if (IoForwardIrpSynchronously(x->Hw.Lower, Irp))
        Status = Irp->IoStatus.Status;
    if (NT_SUCCESS(Status))
        Status = FerrySetUp(x, Resources);
    if (NT_SUCCESS(Status)) {
        InterlockedExchange(&x->Hw.State, StateStarted);
        IoSetDeviceInterfaceState(&x->Hw.Interface, TRUE);
        FerryOpenGate(x, GATE_UNSTARTED | GATE_STOPPING | GATE_ASLEEP);
    }
    Finish(Irp, Status, Irp->IoStatus.Information);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return Status;
}

static NTSTATUS FerryPnpCancelStop(DEVICE_EXTENSION *x, PIRP Irp)
{
    NTSTATUS Status = STATUS_UNSUCCESSFUL;

    Irp->IoStatus.Status = STATUS_SUCCESS;
    if (IoForwardIrpSynchronously(x->Hw.Lower, Irp))
        Status = Irp->IoStatus.Status;
    FerryOpenGate(x, GATE_STOPPING);
    Finish(Irp, Status, Irp->IoStatus.Information);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return Status;
}

static VOID FerryPnpSurprise(DEVICE_EXTENSION *x)
{
    KIRQL Irql;

    InterlockedExchange(&x->Hw.State, StateGone);
    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    x->Hw.Gate |= GATE_GONE;
    x->Hw.Live = FALSE;
    if (x->Hw.Interrupt != NULL)
        KeSynchronizeExecution(x->Hw.Interrupt, FerrySyncLost, x);
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
    IoSetDeviceInterfaceState(&x->Hw.Interface, FALSE);
    FerryAbort(x);
    FerryTearDown(x);
}

static NTSTATUS FerryPnpRemove(DEVICE_EXTENSION *x, PIRP Irp)
{
    PDEVICE_OBJECT Lower = x->Hw.Lower;
    NTSTATUS Status;

    if (InterlockedExchange(&x->Hw.State, StateDeleted) != StateGone) {
        IoSetDeviceInterfaceState(&x->Hw.Interface, FALSE);
        FerryCloseGate(x, GATE_GONE);
        FerryDrain(x);
        FerryAbort(x);
        FerryTearDown(x);
    }
    IoReleaseRemoveLockAndWait(&x->Hw.RemoveLock, Irp);
    FerryFree(x);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(Lower, Irp);
    RtlFreeUnicodeString(&x->Hw.Interface);
    IoDetachDevice(Lower);
    IoDeleteDevice(x->Hw.Self);
    return Status;
}

static NTSTATUS NTAPI FerryDispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Hw.RemoveLock, Irp);

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    switch (IoGetCurrentIrpStackLocation(Irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        return FerryPnpStart(x, Irp);
    case IRP_MN_CANCEL_STOP_DEVICE:
        return FerryPnpCancelStop(x, Irp);
    case IRP_MN_REMOVE_DEVICE:
        return FerryPnpRemove(x, Irp);
    case IRP_MN_QUERY_STOP_DEVICE:
        FerryCloseGate(x, GATE_STOPPING);
        FerryDrain(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_STOP_DEVICE:
        FerryCloseGate(x, GATE_STOPPING);
        FerryDrain(x);
        InterlockedExchange(&x->Hw.State, StateStopped);
        FerryTearDown(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        FerryPnpSurprise(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    default:
        break;
    }
    return FerryPassDown(x, Irp);
}

static NTSTATUS NTAPI FerryDispatchSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Hw.RemoveLock, Irp);

    return NT_SUCCESS(Status) ? FerryPassDown(x, Irp) : Finish(Irp, Status, Irp->IoStatus.Information);
}

/* ---- power: awake while the system is ------------------------------------------------- */

static VOID NTAPI FerryDeviceIrpDone(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context,
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

static NTSTATUS NTAPI FerrySystemIrpDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    DEVICE_EXTENSION *x = Context;
    NTSTATUS Status = Irp->IoStatus.Status;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Status)) {
        PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
        POWER_STATE State;

        State.DeviceState =
            Stack->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        Status = PoRequestPowerIrp(x->Hw.Self, IRP_MN_SET_POWER, State, FerryDeviceIrpDone, Irp, NULL);
        if (NT_SUCCESS(Status))
            return STATUS_MORE_PROCESSING_REQUIRED;
        Irp->IoStatus.Status = Status;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI FerryAwakeDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    DEVICE_EXTENSION *x = Context;

    UNREFERENCED_PARAMETER(Device);
    if (Irp->PendingReturned)
        IoMarkIrpPending(Irp);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        x->Hw.Power = PowerDeviceD0;
        PoSetPowerState(x->Hw.Self, DevicePowerState, IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State);
        FerryUp(x);
        FerryOpenGate(x, GATE_ASLEEP);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI FerryDispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
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
        IoSetCompletionRoutine(Irp, FerrySystemIrpDone, x, TRUE, TRUE, TRUE);
        PoCallDriver(x->Hw.Lower, Irp);
        return STATUS_PENDING;
    }
    if (Stack->MinorFunction == IRP_MN_SET_POWER) {
        DEVICE_POWER_STATE To = Stack->Parameters.Power.State.DeviceState;

        if (To == PowerDeviceD0 && x->Hw.Power != PowerDeviceD0) {
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, FerryAwakeDone, x, TRUE, TRUE, TRUE);
            return PoCallDriver(x->Hw.Lower, Irp);
        }
        if (To != PowerDeviceD0 && x->Hw.Power == PowerDeviceD0) {
            FerryCloseGate(x, GATE_ASLEEP);
            FerryDrain(x);
            FerryDown(x);
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
static NTSTATUS FerryEnter(DEVICE_EXTENSION *x, PIRP Irp)
{
    NTSTATUS Status = IoAcquireRemoveLock(&x->Hw.RemoveLock, Irp);

    if (NT_SUCCESS(Status) && x->Hw.State != StateStarted && x->Hw.State != StateStopped) {
        IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
        Status = STATUS_DEVICE_NOT_CONNECTED;
    }
    return Status;
}

static NTSTATUS FerryLeave(DEVICE_EXTENSION *x, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Finish(Irp, Status, Information);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return Status;
}

static NTSTATUS NTAPI FerryDispatchCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS Status = FerryEnter(x, Irp);

    return NT_SUCCESS(Status) ? FerryLeave(x, Irp, STATUS_SUCCESS, 0) : Finish(Irp, Status, 0);
}

static NTSTATUS NTAPI FerryDispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    KIRQL Irql;

    KeAcquireSpinLock(&x->WaitLock, &Irql);
    File->FsContext = File;
    KeReleaseSpinLock(&x->WaitLock, Irql);
    FerryFlush(x, File, STATUS_CANCELLED);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI FerryDispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

/* The request waits for the card; STATUS_PENDING, or why not. */
static NTSTATUS FerryEnqueue(DEVICE_EXTENSION *x, PIRP Irp)
{
    NTSTATUS Status = IoAcquireRemoveLock(&x->Hw.RemoveLock, FerryEnqueue);

    if (!NT_SUCCESS(Status))
        return Status;
    Status = IoCsqInsertIrpEx(&x->Csq, Irp, NULL, NULL);
    if (NT_SUCCESS(Status)) {
        FerryKick(x);
        Status = STATUS_PENDING;
    }
    IoReleaseRemoveLock(&x->Hw.RemoveLock, FerryEnqueue);
    return Status;
}

static NTSTATUS NTAPI FerryDispatchReadWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    LONGLONG Offset = FerryIsWrite(Irp) ? Stack->Parameters.Write.ByteOffset.QuadPart
                                        : Stack->Parameters.Read.ByteOffset.QuadPart;
    ULONG Length = FerryLength(Irp);
    NTSTATUS Status = FerryEnter(x, Irp);

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    if (Length == 0)
        return FerryLeave(x, Irp, STATUS_SUCCESS, 0);
    if (Length > BUFFER_SIZE || Offset < 0 || Offset > CARD_MEMORY - (LONGLONG)Length)
        return FerryLeave(x, Irp, STATUS_INVALID_PARAMETER, 0);
    Status = FerryEnqueue(x, Irp);
    return Status == STATUS_PENDING ? Status : FerryLeave(x, Irp, Status, 0);
}

static NTSTATUS NTAPI FerryDispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = FerryEnter(x, Irp);
    ULONG_PTR Information = 0;
    KIRQL Irql;

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    if (Stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_STATE) {
        Status = STATUS_INVALID_DEVICE_REQUEST;
    } else if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(STATE)) {
        Status = STATUS_BUFFER_TOO_SMALL;
    } else {
        KeAcquireSpinLock(&x->Hw.Lock, &Irql);
        x->State.Gate = x->Hw.Gate;
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &x->State, sizeof(STATE));
        KeReleaseSpinLock(&x->Hw.Lock, Irql);
        Information = sizeof(STATE);
    }
    return FerryLeave(x, Irp, Status, Information);
}

static NTSTATUS NTAPI FerryAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
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
    Status = FerryInit(x);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Self);
        return Status;
    }
    Status = IoRegisterDeviceInterface(Pdo, &INTERFACE_GUID, NULL, &x->Hw.Interface);
    if (!NT_SUCCESS(Status)) {
        FerryFree(x);
        IoDeleteDevice(Self);
        return Status;
    }
    x->Hw.Lower = IoAttachDeviceToDeviceStack(Self, Pdo);
    if (x->Hw.Lower == NULL) {
        RtlFreeUnicodeString(&x->Hw.Interface);
        FerryFree(x);
        IoDeleteDevice(Self);
        return STATUS_NO_SUCH_DEVICE;
    }
    Self->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
    Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI FerryUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->DriverExtension->AddDevice = FerryAddDevice;
    Driver->DriverUnload = FerryUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = FerryDispatchCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = FerryDispatchCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = FerryDispatchClose;
    Driver->MajorFunction[IRP_MJ_READ] = FerryDispatchReadWrite;
    Driver->MajorFunction[IRP_MJ_WRITE] = FerryDispatchReadWrite;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = FerryDispatchControl;
    Driver->MajorFunction[IRP_MJ_PNP] = FerryDispatchPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = FerryDispatchPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = FerryDispatchSystemControl;
    return STATUS_SUCCESS;
}

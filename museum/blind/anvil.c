/*
 * anvil.c - factorials and memory of the edu card.
 *
 * COMPUTE lets the card compute a factorial; reads and writes go to the card's
 * 4 KiB of memory by DMA with a common buffer.  One request is with the card at
 * a time, the others wait.  What was computed last is remembered.
 *
 * The bug: if START_DEVICE gets no pool for the history it frees the common buffer and leaves the pointer: the
 * teardown of the failed start frees it again.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: bad-common-buffer-free
 * Needs: failure
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

DEFINE_GUID(INTERFACE_GUID, 0x9a41d707, 0x8c44, 0x4b0e, 0xa1, 0x5d, 0x6e, 0x10, 0x93, 0x27, 0x5c, 0x01);

#define POOL_TAG 'ivnA'
#define WINDOWS_NEEDED 1
#define MEMORY_SIZE 4096
#define HISTORY_MOST 64

#define EDU_ID 0x00
#define EDU_FACTORIAL 0x08
#define EDU_STATUS 0x20
#define EDU_CAUSES 0x24
#define EDU_ACKNOWLEDGE 0x64
#define EDU_DMA_SOURCE 0x80
#define EDU_DMA_DESTINATION 0x88
#define EDU_DMA_COUNT 0x90
#define EDU_DMA_COMMAND 0x98
#define EDU_MEMORY 0x40000
#define EDU_ADDRESS_LIMIT 0x0fffffff
#define STATUS_COMPUTING 0x01
#define STATUS_INTERRUPT 0x80
#define DMA_RUN 0x01
#define DMA_TO_MEMORY 0x02
#define DMA_INTERRUPT 0x04

#define IOCTL_COMPUTE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xd10, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_HISTORY CTL_CODE(FILE_DEVICE_UNKNOWN, 0xd11, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct {
    ULONG Number;
    ULONG Factorial;
} COMPUTED;

typedef struct {
    HARDWARE_PART Hw;
    PDMA_ADAPTER Adapter;
    PUCHAR Buffer;
    PHYSICAL_ADDRESS BufferAddress;
    KDPC Dpc;

    /* With Hw.Lock, which is taken before WaitLock: */
    PIRP Current; /* with the card */
    KEVENT Idle;  /* Current is NULL */
    COMPUTED *History;
    ULONG HistoryCount, HistoryNext;

    KSPIN_LOCK WaitLock;
    IO_CSQ Csq;
    LIST_ENTRY Waiting;
    BOOLEAN Closed;
} DEVICE_EXTENSION;

static ULONG AnvilRead(DEVICE_EXTENSION *x, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(x->Hw.Window[0] + Offset));
}

static VOID AnvilWrite(DEVICE_EXTENSION *x, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->Hw.Window[0] + Offset), Value);
}

/* ---- requests that wait ---------------------------------------------------- */

#define FROM_CSQ(c) CONTAINING_RECORD(c, DEVICE_EXTENSION, Csq)

static NTSTATUS NTAPI AnvilCsqInsert(PIO_CSQ Csq, PIRP Irp, PVOID Context)
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

static VOID NTAPI AnvilCsqRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI AnvilCsqPeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
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

static VOID NTAPI AnvilCsqAcquire(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&FROM_CSQ(Csq)->WaitLock, Irql);
}

static VOID NTAPI AnvilCsqRelease(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&FROM_CSQ(Csq)->WaitLock, Irql);
}

/* Each request that waits, or is with the card, holds a remove lock. */
static VOID AnvilEnd(DEVICE_EXTENSION *x, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Finish(Irp, Status, Information);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
}

static VOID NTAPI AnvilCsqCancelled(PIO_CSQ Csq, PIRP Irp)
{
    AnvilEnd(FROM_CSQ(Csq), Irp, STATUS_CANCELLED, 0);
}

static VOID AnvilFlush(DEVICE_EXTENSION *x, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP Irp;

    while ((Irp = IoCsqRemoveNextIrp(&x->Csq, File)) != NULL)
        AnvilEnd(x, Irp, Status, 0);
}

static VOID AnvilCloseQueue(DEVICE_EXTENSION *x)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->WaitLock, &Irql);
    x->Closed = TRUE;
    KeReleaseSpinLock(&x->WaitLock, Irql);
    AnvilFlush(x, NULL, STATUS_DEVICE_NOT_CONNECTED);
}

static NTSTATUS AnvilInitQueue(DEVICE_EXTENSION *x)
{
    KeInitializeSpinLock(&x->WaitLock);
    InitializeListHead(&x->Waiting);
    return IoCsqInitializeEx(&x->Csq, AnvilCsqInsert, AnvilCsqRemove, AnvilCsqPeek, AnvilCsqAcquire, AnvilCsqRelease,
                             AnvilCsqCancelled);
}

/* ---- the card: with the lock held --------------------------------------------------- */

static VOID AnvilStartRequest(DEVICE_EXTENSION *x, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PVOID Data = Irp->AssociatedIrp.SystemBuffer;

    x->Current = Irp;
    KeClearEvent(&x->Idle);
    switch (Stack->MajorFunction) {
    case IRP_MJ_READ:
        AnvilWrite(x, EDU_DMA_SOURCE, EDU_MEMORY + Stack->Parameters.Read.ByteOffset.LowPart);
        AnvilWrite(x, EDU_DMA_DESTINATION, x->BufferAddress.LowPart);
        AnvilWrite(x, EDU_DMA_COUNT, Stack->Parameters.Read.Length);
        AnvilWrite(x, EDU_DMA_COMMAND, DMA_RUN | DMA_TO_MEMORY | DMA_INTERRUPT);
        break;
    case IRP_MJ_WRITE:
        RtlCopyMemory(x->Buffer, Data, Stack->Parameters.Write.Length);
        AnvilWrite(x, EDU_DMA_SOURCE, x->BufferAddress.LowPart);
        AnvilWrite(x, EDU_DMA_DESTINATION, EDU_MEMORY + Stack->Parameters.Write.ByteOffset.LowPart);
        AnvilWrite(x, EDU_DMA_COUNT, Stack->Parameters.Write.Length);
        AnvilWrite(x, EDU_DMA_COMMAND, DMA_RUN | DMA_INTERRUPT);
        break;
    default:
        AnvilWrite(x, EDU_FACTORIAL, *(PULONG)Data);
        break;
    }
}

static VOID AnvilFeed(DEVICE_EXTENSION *x)
{
    PIRP Irp;

    if (x->Hw.Gate == 0 && x->Hw.Live && x->Current == NULL) {
        Irp = IoCsqRemoveNextIrp(&x->Csq, NULL);
        if (Irp != NULL)
            AnvilStartRequest(x, Irp);
    }
}

static VOID AnvilRemember(DEVICE_EXTENSION *x, COMPUTED *c)
{
    x->History[x->HistoryNext] = *c;
    x->HistoryNext = (x->HistoryNext + 1) % HISTORY_MOST;
    if (x->HistoryCount < HISTORY_MOST)
        x->HistoryCount++;
}

/* The request that was with the card, if the card is done with it. */
static PIRP AnvilEndRequest(DEVICE_EXTENSION *x, PULONG_PTR Information)
{
    PIRP Irp = x->Current;
    PIO_STACK_LOCATION Stack;
    COMPUTED c;

    if (Irp == NULL || !x->Hw.Live)
        return NULL;
    Stack = IoGetCurrentIrpStackLocation(Irp);
    if (Stack->MajorFunction == IRP_MJ_DEVICE_CONTROL) {
        ULONG Status = AnvilRead(x, EDU_STATUS);

        if (Status == 0xffffffff || (Status & STATUS_COMPUTING))
            return NULL;
        c.Number = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
        c.Factorial = AnvilRead(x, EDU_FACTORIAL);
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = c.Factorial;
        *Information = sizeof(ULONG);
        AnvilRemember(x, &c);
    } else {
        ULONG Command = AnvilRead(x, EDU_DMA_COMMAND);

        if (Command == 0xffffffff || (Command & DMA_RUN))
            return NULL;
        if (Stack->MajorFunction == IRP_MJ_READ)
            RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, x->Buffer, Stack->Parameters.Read.Length);
        *Information = Stack->MajorFunction == IRP_MJ_READ ? Stack->Parameters.Read.Length
                                                           : Stack->Parameters.Write.Length;
    }
    x->Current = NULL;
    return Irp;
}

static VOID AnvilKick(DEVICE_EXTENSION *x)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    AnvilFeed(x);
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
}

static VOID NTAPI AnvilDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    DEVICE_EXTENSION *x = Context;
    ULONG_PTR Information = 0;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&x->Hw.Lock);
    Irp = AnvilEndRequest(x, &Information);
    AnvilFeed(x);
    if (x->Current == NULL)
        KeSetEvent(&x->Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLockFromDpcLevel(&x->Hw.Lock);
    if (Irp != NULL)
        AnvilEnd(x, Irp, STATUS_SUCCESS, Information);
}

static BOOLEAN NTAPI AnvilInterrupt(PKINTERRUPT Interrupt, PVOID Context)
{
    DEVICE_EXTENSION *x = Context;
    ULONG Causes;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!x->Hw.IsrLive)
        return FALSE;
    Causes = AnvilRead(x, EDU_CAUSES);
    if (Causes == 0 || Causes == 0xffffffff)
        return FALSE;
    AnvilWrite(x, EDU_ACKNOWLEDGE, Causes);
    KeInsertQueueDpc(&x->Dpc, NULL, NULL);
    return TRUE;
}

/* ---- what the card needs --------------------------------------------------------------- */

static NTSTATUS AnvilPrepare(DEVICE_EXTENSION *x)
{
    DEVICE_DESCRIPTION d;
    ULONG MapRegisters;

    if ((AnvilRead(x, EDU_ID) & 0xffff) != 0x00ed)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    RtlZeroMemory(&d, sizeof(d));
    d.Version = DEVICE_DESCRIPTION_VERSION2;
    d.Master = TRUE;
    d.ScatterGather = TRUE;
    d.Dma32BitAddresses = FALSE; /* the card has 28 address lines */
    d.InterfaceType = PCIBus;
    d.MaximumLength = MEMORY_SIZE;
    x->Adapter = IoGetDmaAdapter(x->Hw.Pdo, &d, &MapRegisters);
    if (x->Adapter == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    x->Buffer = x->Adapter->DmaOperations->AllocateCommonBuffer(x->Adapter, MEMORY_SIZE, &x->BufferAddress, TRUE);
    if (x->Buffer == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (x->BufferAddress.QuadPart + MEMORY_SIZE - 1 > EDU_ADDRESS_LIMIT)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (x->History == NULL) {
        x->History = ExAllocatePoolWithTag(NonPagedPool, HISTORY_MOST * sizeof(COMPUTED), POOL_TAG);
        if (x->History == NULL) {
            x->Adapter->DmaOperations->FreeCommonBuffer(x->Adapter, MEMORY_SIZE, x->BufferAddress, x->Buffer, TRUE);
#ifdef FIXED
            x->Buffer = NULL;
#endif
            return STATUS_INSUFFICIENT_RESOURCES;
        }
    }
    return STATUS_SUCCESS;
}

static VOID AnvilRelease(DEVICE_EXTENSION *x)
{
    if (x->Buffer != NULL)
        x->Adapter->DmaOperations->FreeCommonBuffer(x->Adapter, MEMORY_SIZE, x->BufferAddress, x->Buffer, TRUE);
    x->Buffer = NULL;
    if (x->Adapter != NULL)
        x->Adapter->DmaOperations->PutDmaAdapter(x->Adapter);
    x->Adapter = NULL;
}

static VOID AnvilEnable(DEVICE_EXTENSION *x)
{
    AnvilWrite(x, EDU_ACKNOWLEDGE, AnvilRead(x, EDU_CAUSES));
    AnvilWrite(x, EDU_STATUS, STATUS_INTERRUPT);
}

static VOID AnvilDisable(DEVICE_EXTENSION *x)
{
    AnvilWrite(x, EDU_STATUS, 0);
}

/* The card ends what it has begun. */
static VOID AnvilDrain(DEVICE_EXTENSION *x)
{
    KeWaitForSingleObject(&x->Idle, Executive, KernelMode, FALSE, NULL);
}

static VOID AnvilAbort(DEVICE_EXTENSION *x)
{
    KIRQL Irql;
    PIRP Irp;

    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    Irp = x->Current;
    x->Current = NULL;
    KeSetEvent(&x->Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
    if (Irp != NULL)
        AnvilEnd(x, Irp, STATUS_DEVICE_NOT_CONNECTED, 0);
    AnvilCloseQueue(x);
}

static NTSTATUS AnvilInit(DEVICE_EXTENSION *x)
{
    KeInitializeEvent(&x->Idle, NotificationEvent, TRUE);
    KeInitializeDpc(&x->Dpc, AnvilDpc, x);
    return AnvilInitQueue(x);
}

static VOID AnvilFree(DEVICE_EXTENSION *x)
{
    if (x->History != NULL)
        ExFreePoolWithTag(x->History, POOL_TAG);
}

/* ---- the card comes and goes ---------------------------------------------------- */

static BOOLEAN NTAPI AnvilSyncUp(PVOID Context)
{
    DEVICE_EXTENSION *x = Context;

    AnvilEnable(x);
    x->Hw.IsrLive = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI AnvilSyncDown(PVOID Context)
{
    DEVICE_EXTENSION *x = Context;

    AnvilDisable(x);
    x->Hw.IsrLive = FALSE;
    return TRUE;
}

static BOOLEAN NTAPI AnvilSyncLost(PVOID Context)
{
    DEVICE_EXTENSION *x = Context;

    x->Hw.IsrLive = FALSE;
    return TRUE;
}

static VOID AnvilUp(DEVICE_EXTENSION *x)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    if (x->Hw.Interrupt != NULL && !x->Hw.Live && !(x->Hw.Gate & GATE_GONE)) {
        KeSynchronizeExecution(x->Hw.Interrupt, AnvilSyncUp, x);
        x->Hw.Live = TRUE;
    }
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
}

static VOID AnvilDown(DEVICE_EXTENSION *x)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    if (x->Hw.Live)
        KeSynchronizeExecution(x->Hw.Interrupt, AnvilSyncDown, x);
    x->Hw.Live = FALSE;
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
}

static VOID AnvilCloseGate(DEVICE_EXTENSION *x, ULONG Why)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    x->Hw.Gate |= Why;
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
}

static VOID AnvilOpenGate(DEVICE_EXTENSION *x, ULONG Why)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    x->Hw.Gate &= ~Why;
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
    AnvilKick(x);
}

/* Whatever there is of it, and as often as is wanted. */
static VOID AnvilTearDown(DEVICE_EXTENSION *x)
{
    PKINTERRUPT Interrupt;
    KIRQL Irql;

    AnvilDown(x);
    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    Interrupt = x->Hw.Interrupt;
    x->Hw.Interrupt = NULL;
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
    if (Interrupt != NULL)
        IoDisconnectInterrupt(Interrupt);
    KeFlushQueuedDpcs();
    AnvilRelease(x);
    while (x->Hw.Windows != 0) {
        x->Hw.Windows--;
        MmUnmapIoSpace(x->Hw.Window[x->Hw.Windows], x->Hw.WindowLength[x->Hw.Windows]);
        x->Hw.Window[x->Hw.Windows] = NULL;
    }
}

static NTSTATUS AnvilConnect(DEVICE_EXTENSION *x, PCM_PARTIAL_RESOURCE_DESCRIPTOR Line)
{
    PKINTERRUPT Interrupt = NULL;
    NTSTATUS Status;
    KIRQL Irql;

    Status = IoConnectInterrupt(&Interrupt, AnvilInterrupt, x, NULL, Line->u.Interrupt.Vector,
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

static NTSTATUS AnvilSetUp(DEVICE_EXTENSION *x, PCM_RESOURCE_LIST Resources)
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
        Status = AnvilPrepare(x);
    if (NT_SUCCESS(Status))
        Status = AnvilConnect(x, Line);
    if (!NT_SUCCESS(Status)) {
        AnvilTearDown(x);
        return Status;
    }
    x->Hw.Power = PowerDeviceD0;
    AnvilUp(x);
    return STATUS_SUCCESS;
}

/* ---- Plug and Play ------------------------------------------------------------- */

static NTSTATUS AnvilPassDown(DEVICE_EXTENSION *x, PIRP Irp)
{
    NTSTATUS Status;

    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(x->Hw.Lower, Irp);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return Status;
}

static NTSTATUS AnvilPnpStart(DEVICE_EXTENSION *x, PIRP Irp)
{
    PCM_RESOURCE_LIST Resources = IoGetCurrentIrpStackLocation(Irp)->Parameters.StartDevice.AllocatedResourcesTranslated;
    NTSTATUS Status = STATUS_UNSUCCESSFUL;

    if (IoForwardIrpSynchronously(x->Hw.Lower, Irp))
        Status = Irp->IoStatus.Status;
    if (NT_SUCCESS(Status))
        Status = AnvilSetUp(x, Resources);
    if (NT_SUCCESS(Status)) {
        InterlockedExchange(&x->Hw.State, StateStarted);
        IoSetDeviceInterfaceState(&x->Hw.Interface, TRUE);
        AnvilOpenGate(x, GATE_UNSTARTED | GATE_STOPPING | GATE_ASLEEP);
    }
    Finish(Irp, Status, Irp->IoStatus.Information);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return Status;
}

static NTSTATUS AnvilPnpCancelStop(DEVICE_EXTENSION *x, PIRP Irp)
{
    NTSTATUS Status = STATUS_UNSUCCESSFUL;

    Irp->IoStatus.Status = STATUS_SUCCESS;
    if (IoForwardIrpSynchronously(x->Hw.Lower, Irp))
        Status = Irp->IoStatus.Status;
    AnvilOpenGate(x, GATE_STOPPING);
    Finish(Irp, Status, Irp->IoStatus.Information);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return Status;
}

static VOID AnvilPnpSurprise(DEVICE_EXTENSION *x)
{
    KIRQL Irql;

    InterlockedExchange(&x->Hw.State, StateGone);
    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    x->Hw.Gate |= GATE_GONE;
    x->Hw.Live = FALSE;
    if (x->Hw.Interrupt != NULL)
        KeSynchronizeExecution(x->Hw.Interrupt, AnvilSyncLost, x);
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
    IoSetDeviceInterfaceState(&x->Hw.Interface, FALSE);
    AnvilAbort(x);
    AnvilTearDown(x);
}

static NTSTATUS AnvilPnpRemove(DEVICE_EXTENSION *x, PIRP Irp)
{
    PDEVICE_OBJECT Lower = x->Hw.Lower;
    NTSTATUS Status;

    if (InterlockedExchange(&x->Hw.State, StateDeleted) != StateGone) {
        IoSetDeviceInterfaceState(&x->Hw.Interface, FALSE);
        AnvilCloseGate(x, GATE_GONE);
        AnvilDrain(x);
        AnvilAbort(x);
        AnvilTearDown(x);
    }
    IoReleaseRemoveLockAndWait(&x->Hw.RemoveLock, Irp);
    AnvilFree(x);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(Lower, Irp);
    RtlFreeUnicodeString(&x->Hw.Interface);
    IoDetachDevice(Lower);
    IoDeleteDevice(x->Hw.Self);
    return Status;
}

static NTSTATUS NTAPI AnvilDispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Hw.RemoveLock, Irp);

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    switch (IoGetCurrentIrpStackLocation(Irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        return AnvilPnpStart(x, Irp);
    case IRP_MN_CANCEL_STOP_DEVICE:
        return AnvilPnpCancelStop(x, Irp);
    case IRP_MN_REMOVE_DEVICE:
        return AnvilPnpRemove(x, Irp);
    case IRP_MN_QUERY_STOP_DEVICE:
        AnvilCloseGate(x, GATE_STOPPING);
        AnvilDrain(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_STOP_DEVICE:
        AnvilCloseGate(x, GATE_STOPPING);
        AnvilDrain(x);
        InterlockedExchange(&x->Hw.State, StateStopped);
        AnvilTearDown(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        AnvilPnpSurprise(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    default:
        break;
    }
    return AnvilPassDown(x, Irp);
}

static NTSTATUS NTAPI AnvilDispatchSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Hw.RemoveLock, Irp);

    return NT_SUCCESS(Status) ? AnvilPassDown(x, Irp) : Finish(Irp, Status, Irp->IoStatus.Information);
}

/* ---- power: awake while the system is ------------------------------------------------- */

static VOID NTAPI AnvilDeviceIrpDone(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context,
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

static NTSTATUS NTAPI AnvilSystemIrpDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    DEVICE_EXTENSION *x = Context;
    NTSTATUS Status = Irp->IoStatus.Status;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Status)) {
        PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
        POWER_STATE State;

        State.DeviceState =
            Stack->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        Status = PoRequestPowerIrp(x->Hw.Self, IRP_MN_SET_POWER, State, AnvilDeviceIrpDone, Irp, NULL);
        if (NT_SUCCESS(Status))
            return STATUS_MORE_PROCESSING_REQUIRED;
        Irp->IoStatus.Status = Status;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI AnvilAwakeDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    DEVICE_EXTENSION *x = Context;

    UNREFERENCED_PARAMETER(Device);
    if (Irp->PendingReturned)
        IoMarkIrpPending(Irp);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        x->Hw.Power = PowerDeviceD0;
        PoSetPowerState(x->Hw.Self, DevicePowerState, IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State);
        AnvilUp(x);
        AnvilOpenGate(x, GATE_ASLEEP);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI AnvilDispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
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
        IoSetCompletionRoutine(Irp, AnvilSystemIrpDone, x, TRUE, TRUE, TRUE);
        PoCallDriver(x->Hw.Lower, Irp);
        return STATUS_PENDING;
    }
    if (Stack->MinorFunction == IRP_MN_SET_POWER) {
        DEVICE_POWER_STATE To = Stack->Parameters.Power.State.DeviceState;

        if (To == PowerDeviceD0 && x->Hw.Power != PowerDeviceD0) {
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, AnvilAwakeDone, x, TRUE, TRUE, TRUE);
            return PoCallDriver(x->Hw.Lower, Irp);
        }
        if (To != PowerDeviceD0 && x->Hw.Power == PowerDeviceD0) {
            AnvilCloseGate(x, GATE_ASLEEP);
            AnvilDrain(x);
            AnvilDown(x);
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
static NTSTATUS AnvilEnter(DEVICE_EXTENSION *x, PIRP Irp)
{
    NTSTATUS Status = IoAcquireRemoveLock(&x->Hw.RemoveLock, Irp);

    if (NT_SUCCESS(Status) && x->Hw.State != StateStarted && x->Hw.State != StateStopped) {
        IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
        Status = STATUS_DEVICE_NOT_CONNECTED;
    }
    return Status;
}

static NTSTATUS AnvilLeave(DEVICE_EXTENSION *x, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Finish(Irp, Status, Information);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return Status;
}

static NTSTATUS NTAPI AnvilDispatchCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS Status = AnvilEnter(x, Irp);

    return NT_SUCCESS(Status) ? AnvilLeave(x, Irp, STATUS_SUCCESS, 0) : Finish(Irp, Status, 0);
}

static NTSTATUS NTAPI AnvilDispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    KIRQL Irql;

    KeAcquireSpinLock(&x->WaitLock, &Irql);
    File->FsContext = File;
    KeReleaseSpinLock(&x->WaitLock, Irql);
    AnvilFlush(x, File, STATUS_CANCELLED);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI AnvilDispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

/* The request waits for the card; STATUS_PENDING, or why not. */
static NTSTATUS AnvilEnqueue(DEVICE_EXTENSION *x, PIRP Irp)
{
    NTSTATUS Status = IoAcquireRemoveLock(&x->Hw.RemoveLock, AnvilEnqueue);

    if (!NT_SUCCESS(Status))
        return Status;
    Status = IoCsqInsertIrpEx(&x->Csq, Irp, NULL, NULL);
    if (NT_SUCCESS(Status)) {
        AnvilKick(x);
        Status = STATUS_PENDING;
    }
    IoReleaseRemoveLock(&x->Hw.RemoveLock, AnvilEnqueue);
    return Status;
}

static NTSTATUS NTAPI AnvilDispatchReadWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN Read = Stack->MajorFunction == IRP_MJ_READ;
    LONGLONG Offset = Read ? Stack->Parameters.Read.ByteOffset.QuadPart : Stack->Parameters.Write.ByteOffset.QuadPart;
    ULONG Length = Read ? Stack->Parameters.Read.Length : Stack->Parameters.Write.Length;
    NTSTATUS Status = AnvilEnter(x, Irp);

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    if (Length == 0)
        return AnvilLeave(x, Irp, STATUS_SUCCESS, 0);
    if (Length > MEMORY_SIZE || Offset < 0 || Offset > MEMORY_SIZE - (LONGLONG)Length)
        return AnvilLeave(x, Irp, STATUS_INVALID_PARAMETER, 0);
    Status = AnvilEnqueue(x, Irp);
    return Status == STATUS_PENDING ? Status : AnvilLeave(x, Irp, Status, 0);
}

/* The last that were computed, the oldest first. */
static ULONG_PTR AnvilHistory(DEVICE_EXTENSION *x, COMPUTED *To, ULONG Room)
{
    ULONG i, n;
    KIRQL Irql;

    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    n = x->HistoryCount < Room ? x->HistoryCount : Room;
    for (i = 0; i < n; i++)
        To[i] = x->History[(x->HistoryNext + HISTORY_MOST - n + i) % HISTORY_MOST];
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
    return n * sizeof(COMPUTED);
}

static NTSTATUS NTAPI AnvilDispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    NTSTATUS Status = AnvilEnter(x, Irp);
    ULONG_PTR Information = 0;

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_COMPUTE:
        if (In != sizeof(ULONG) || Out < sizeof(ULONG)) {
            Status = STATUS_INVALID_PARAMETER;
            break;
        }
        Status = AnvilEnqueue(x, Irp);
        if (Status == STATUS_PENDING)
            return Status;
        break;
    case IOCTL_HISTORY:
        Information = AnvilHistory(x, Irp->AssociatedIrp.SystemBuffer, Out / sizeof(COMPUTED));
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return AnvilLeave(x, Irp, Status, Information);
}

static NTSTATUS NTAPI AnvilAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
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
    Status = AnvilInit(x);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Self);
        return Status;
    }
    Status = IoRegisterDeviceInterface(Pdo, &INTERFACE_GUID, NULL, &x->Hw.Interface);
    if (!NT_SUCCESS(Status)) {
        AnvilFree(x);
        IoDeleteDevice(Self);
        return Status;
    }
    x->Hw.Lower = IoAttachDeviceToDeviceStack(Self, Pdo);
    if (x->Hw.Lower == NULL) {
        RtlFreeUnicodeString(&x->Hw.Interface);
        AnvilFree(x);
        IoDeleteDevice(Self);
        return STATUS_NO_SUCH_DEVICE;
    }
    Self->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
    Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI AnvilUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->DriverExtension->AddDevice = AnvilAddDevice;
    Driver->DriverUnload = AnvilUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = AnvilDispatchCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = AnvilDispatchCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = AnvilDispatchClose;
    Driver->MajorFunction[IRP_MJ_READ] = AnvilDispatchReadWrite;
    Driver->MajorFunction[IRP_MJ_WRITE] = AnvilDispatchReadWrite;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = AnvilDispatchControl;
    Driver->MajorFunction[IRP_MJ_PNP] = AnvilDispatchPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = AnvilDispatchPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = AnvilDispatchSystemControl;
    return STATUS_SUCCESS;
}

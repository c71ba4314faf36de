/*
 * cadence.c - stores and loads of the edu card's memory, with a time limit.
 *
 * A transfer that takes too long is given up: its request ends, and the next
 * ones wait until the card is done with it, for it cannot be stopped.
 *
 * The bug: when a transfer is given up the device is said to be idle, though the card goes on: the common buffer
 * is freed under its DMA.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: dma-after-unmap, interrupt-storm
 * Needs: device, removal
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

DEFINE_GUID(INTERFACE_GUID, 0x9a41d70b, 0x8c44, 0x4b0e, 0xa1, 0x5d, 0x6e, 0x10, 0x93, 0x27, 0x5c, 0x01);

#define POOL_TAG 'edaC'
#define WINDOWS_NEEDED 1
#define MEMORY_SIZE 4096
#define LIMIT_MS 250

#define EDU_ID 0x00
#define EDU_STATUS 0x20
#define EDU_CAUSES 0x24
#define EDU_ACKNOWLEDGE 0x64
#define EDU_DMA_SOURCE 0x80
#define EDU_DMA_DESTINATION 0x88
#define EDU_DMA_COUNT 0x90
#define EDU_DMA_COMMAND 0x98
#define EDU_MEMORY 0x40000
#define DMA_RUN 0x01
#define DMA_TO_MEMORY 0x02
#define DMA_INTERRUPT 0x04

#define IOCTL_STORE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xd50, METHOD_IN_DIRECT, FILE_WRITE_ACCESS)
#define IOCTL_LOAD CTL_CODE(FILE_DEVICE_UNKNOWN, 0xd51, METHOD_OUT_DIRECT, FILE_READ_ACCESS)
#define IOCTL_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xd52, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct {
    ULONG Transfers; /* that have ended in time */
    ULONG GivenUp;
    ULONG Overdue; /* 1: the card is not done with one that was given up */
} STATE;

typedef struct {
    HARDWARE_PART Hw;
    PDMA_ADAPTER Adapter;
    PUCHAR Buffer;
    PHYSICAL_ADDRESS BufferAddress;
    KDPC Dpc;
    KDPC LimitDpc;
    KTIMER LimitTimer;

    /* With Hw.Lock, which is taken before WaitLock: */
    PIRP Current;
    ULONGLONG Deadline; /* of Current */
    BOOLEAN Overdue;
    KEVENT Idle; /* the card has nothing to do with us */
    STATE State;

    KSPIN_LOCK WaitLock;
    IO_CSQ Csq;
    LIST_ENTRY Waiting;
    BOOLEAN Closed;
} DEVICE_EXTENSION;

static ULONG CadenceRead(DEVICE_EXTENSION *x, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(x->Hw.Window[0] + Offset));
}

static VOID CadenceWrite(DEVICE_EXTENSION *x, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->Hw.Window[0] + Offset), Value);
}

/* ---- requests that wait ---------------------------------------------------- */

#define FROM_CSQ(c) CONTAINING_RECORD(c, DEVICE_EXTENSION, Csq)

static NTSTATUS NTAPI CadenceCsqInsert(PIO_CSQ Csq, PIRP Irp, PVOID Context)
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

static VOID NTAPI CadenceCsqRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI CadenceCsqPeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
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

static VOID NTAPI CadenceCsqAcquire(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&FROM_CSQ(Csq)->WaitLock, Irql);
}

static VOID NTAPI CadenceCsqRelease(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&FROM_CSQ(Csq)->WaitLock, Irql);
}

/* Each request that waits, or is with the card, holds a remove lock. */
static VOID CadenceEnd(DEVICE_EXTENSION *x, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Finish(Irp, Status, Information);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
}

static VOID NTAPI CadenceCsqCancelled(PIO_CSQ Csq, PIRP Irp)
{
    CadenceEnd(FROM_CSQ(Csq), Irp, STATUS_CANCELLED, 0);
}

static VOID CadenceFlush(DEVICE_EXTENSION *x, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP Irp;

    while ((Irp = IoCsqRemoveNextIrp(&x->Csq, File)) != NULL)
        CadenceEnd(x, Irp, Status, 0);
}

static VOID CadenceCloseQueue(DEVICE_EXTENSION *x)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->WaitLock, &Irql);
    x->Closed = TRUE;
    KeReleaseSpinLock(&x->WaitLock, Irql);
    CadenceFlush(x, NULL, STATUS_DEVICE_NOT_CONNECTED);
}

static NTSTATUS CadenceInitQueue(DEVICE_EXTENSION *x)
{
    KeInitializeSpinLock(&x->WaitLock);
    InitializeListHead(&x->Waiting);
    return IoCsqInitializeEx(&x->Csq, CadenceCsqInsert, CadenceCsqRemove, CadenceCsqPeek, CadenceCsqAcquire, CadenceCsqRelease,
                             CadenceCsqCancelled);
}

/* ---- the card: with the lock held --------------------------------------------------- */

static BOOLEAN CadenceIsLoad(PIRP Irp)
{
    return IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.IoControlCode == IOCTL_LOAD;
}

/* The dispatch routine has mapped it. */
static PVOID CadenceData(PIRP Irp)
{
    return MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority);
}

static ULONG CadenceLength(PIRP Irp)
{
    return IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.OutputBufferLength;
}

static VOID CadenceStartTransfer(DEVICE_EXTENSION *x, PIRP Irp)
{
    ULONG Offset = *(PULONG)Irp->AssociatedIrp.SystemBuffer, Length = CadenceLength(Irp);
    LARGE_INTEGER Due;

    x->Current = Irp;
    KeClearEvent(&x->Idle);
    x->Deadline = KeQueryInterruptTime() + 10000ULL * LIMIT_MS;
    Due.QuadPart = -10000LL * LIMIT_MS;
    KeSetTimer(&x->LimitTimer, Due, &x->LimitDpc);
    if (CadenceIsLoad(Irp)) {
        CadenceWrite(x, EDU_DMA_SOURCE, EDU_MEMORY + Offset);
        CadenceWrite(x, EDU_DMA_DESTINATION, x->BufferAddress.LowPart);
        CadenceWrite(x, EDU_DMA_COUNT, Length);
        CadenceWrite(x, EDU_DMA_COMMAND, DMA_RUN | DMA_TO_MEMORY | DMA_INTERRUPT);
    } else {
        RtlCopyMemory(x->Buffer, CadenceData(Irp), Length);
        CadenceWrite(x, EDU_DMA_SOURCE, x->BufferAddress.LowPart);
        CadenceWrite(x, EDU_DMA_DESTINATION, EDU_MEMORY + Offset);
        CadenceWrite(x, EDU_DMA_COUNT, Length);
        CadenceWrite(x, EDU_DMA_COMMAND, DMA_RUN | DMA_INTERRUPT);
    }
}

static VOID CadenceFeed(DEVICE_EXTENSION *x)
{
    if (x->Hw.Gate == 0 && x->Hw.Live && x->Current == NULL && !x->Overdue) {
        PIRP Irp = IoCsqRemoveNextIrp(&x->Csq, NULL);

        if (Irp != NULL)
            CadenceStartTransfer(x, Irp);
    }
}

static BOOLEAN CadenceCardIsDone(DEVICE_EXTENSION *x)
{
    ULONG Command = CadenceRead(x, EDU_DMA_COMMAND);

    return Command != 0xffffffff && !(Command & DMA_RUN);
}

/* What the card has done: the request that has ended, or NULL. */
static PIRP CadenceLook(DEVICE_EXTENSION *x)
{
    PIRP Irp = NULL;

    if (!x->Hw.Live || (x->Current == NULL && !x->Overdue) || !CadenceCardIsDone(x))
        return NULL;
    if (x->Overdue) {
        x->Overdue = FALSE;
    } else {
        Irp = x->Current;
        x->Current = NULL;
        KeCancelTimer(&x->LimitTimer);
        x->State.Transfers++;
        if (CadenceIsLoad(Irp))
            RtlCopyMemory(CadenceData(Irp), x->Buffer, CadenceLength(Irp));
    }
    CadenceFeed(x);
    if (x->Current == NULL)
        KeSetEvent(&x->Idle, IO_NO_INCREMENT, FALSE);
    return Irp;
}

static VOID CadenceKick(DEVICE_EXTENSION *x)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    CadenceFeed(x);
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
}

static VOID NTAPI CadenceDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    DEVICE_EXTENSION *x = Context;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&x->Hw.Lock);
    Irp = CadenceLook(x);
    KeReleaseSpinLockFromDpcLevel(&x->Hw.Lock);
    if (Irp != NULL)
        CadenceEnd(x, Irp, STATUS_SUCCESS, CadenceLength(Irp));
}

/* The timer may have been set for a transfer that has ended meanwhile. */
static VOID NTAPI CadenceLimit(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    DEVICE_EXTENSION *x = Context;
    PIRP Done = NULL, Late = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&x->Hw.Lock);
    if (x->Hw.Live && x->Current != NULL && KeQueryInterruptTime() >= x->Deadline) {
        Done = CadenceLook(x);
        if (Done == NULL) {
            Late = x->Current;
            x->Current = NULL;
            x->Overdue = TRUE;
            x->State.GivenUp++;
#ifndef FIXED
            KeSetEvent(&x->Idle, IO_NO_INCREMENT, FALSE);
#endif
        }
    }
    KeReleaseSpinLockFromDpcLevel(&x->Hw.Lock);
    if (Done != NULL)
        CadenceEnd(x, Done, STATUS_SUCCESS, CadenceLength(Done));
    if (Late != NULL)
        CadenceEnd(x, Late, STATUS_IO_TIMEOUT, 0);
}

static BOOLEAN NTAPI CadenceInterrupt(PKINTERRUPT Interrupt, PVOID Context)
{
    DEVICE_EXTENSION *x = Context;
    ULONG Causes;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!x->Hw.IsrLive)
        return FALSE;
    Causes = CadenceRead(x, EDU_CAUSES);
    if (Causes == 0 || Causes == 0xffffffff)
        return FALSE;
    CadenceWrite(x, EDU_ACKNOWLEDGE, Causes);
    KeInsertQueueDpc(&x->Dpc, NULL, NULL);
    return TRUE;
}

/* ---- what the card needs --------------------------------------------------------------- */

static NTSTATUS CadencePrepare(DEVICE_EXTENSION *x)
{
    DEVICE_DESCRIPTION d;
    ULONG MapRegisters;

    if ((CadenceRead(x, EDU_ID) & 0xffff) != 0x00ed)
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
    return x->Buffer != NULL ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static VOID CadenceRelease(DEVICE_EXTENSION *x)
{
    KeCancelTimer(&x->LimitTimer);
    KeFlushQueuedDpcs();
    if (x->Buffer != NULL)
        x->Adapter->DmaOperations->FreeCommonBuffer(x->Adapter, MEMORY_SIZE, x->BufferAddress, x->Buffer, TRUE);
    x->Buffer = NULL;
    if (x->Adapter != NULL)
        x->Adapter->DmaOperations->PutDmaAdapter(x->Adapter);
    x->Adapter = NULL;
}

static VOID CadenceEnable(DEVICE_EXTENSION *x)
{
    CadenceWrite(x, EDU_ACKNOWLEDGE, CadenceRead(x, EDU_CAUSES));
}

static VOID CadenceDisable(DEVICE_EXTENSION *x)
{
    CadenceWrite(x, EDU_ACKNOWLEDGE, CadenceRead(x, EDU_CAUSES));
}

/* The card ends what it has begun, sooner or later. */
static VOID CadenceDrain(DEVICE_EXTENSION *x)
{
    KeWaitForSingleObject(&x->Idle, Executive, KernelMode, FALSE, NULL);
}

static VOID CadenceAbort(DEVICE_EXTENSION *x)
{
    KIRQL Irql;
    PIRP Irp;

    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    Irp = x->Current;
    x->Current = NULL;
    x->Overdue = FALSE;
    KeSetEvent(&x->Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
    if (Irp != NULL)
        CadenceEnd(x, Irp, STATUS_DEVICE_NOT_CONNECTED, 0);
    CadenceCloseQueue(x);
}

static NTSTATUS CadenceInit(DEVICE_EXTENSION *x)
{
    KeInitializeEvent(&x->Idle, NotificationEvent, TRUE);
    KeInitializeDpc(&x->Dpc, CadenceDpc, x);
    KeInitializeDpc(&x->LimitDpc, CadenceLimit, x);
    KeInitializeTimer(&x->LimitTimer);
    return CadenceInitQueue(x);
}

static VOID CadenceFree(DEVICE_EXTENSION *x)
{
    UNREFERENCED_PARAMETER(x);
}

/* ---- the card comes and goes ---------------------------------------------------- */

static BOOLEAN NTAPI CadenceSyncUp(PVOID Context)
{
    DEVICE_EXTENSION *x = Context;

    CadenceEnable(x);
    x->Hw.IsrLive = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI CadenceSyncDown(PVOID Context)
{
    DEVICE_EXTENSION *x = Context;

    CadenceDisable(x);
    x->Hw.IsrLive = FALSE;
    return TRUE;
}

static BOOLEAN NTAPI CadenceSyncLost(PVOID Context)
{
    DEVICE_EXTENSION *x = Context;

    x->Hw.IsrLive = FALSE;
    return TRUE;
}

static VOID CadenceUp(DEVICE_EXTENSION *x)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    if (x->Hw.Interrupt != NULL && !x->Hw.Live && !(x->Hw.Gate & GATE_GONE)) {
        KeSynchronizeExecution(x->Hw.Interrupt, CadenceSyncUp, x);
        x->Hw.Live = TRUE;
    }
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
}

static VOID CadenceDown(DEVICE_EXTENSION *x)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    if (x->Hw.Live)
        KeSynchronizeExecution(x->Hw.Interrupt, CadenceSyncDown, x);
    x->Hw.Live = FALSE;
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
}

static VOID CadenceCloseGate(DEVICE_EXTENSION *x, ULONG Why)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    x->Hw.Gate |= Why;
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
}

static VOID CadenceOpenGate(DEVICE_EXTENSION *x, ULONG Why)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    x->Hw.Gate &= ~Why;
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
    CadenceKick(x);
}

/* Whatever there is of it, and as often as is wanted. */
static VOID CadenceTearDown(DEVICE_EXTENSION *x)
{
    PKINTERRUPT Interrupt;
    KIRQL Irql;

    CadenceDown(x);
    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    Interrupt = x->Hw.Interrupt;
    x->Hw.Interrupt = NULL;
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
    if (Interrupt != NULL)
        IoDisconnectInterrupt(Interrupt);
    KeFlushQueuedDpcs();
    CadenceRelease(x);
    while (x->Hw.Windows != 0) {
        x->Hw.Windows--;
        MmUnmapIoSpace(x->Hw.Window[x->Hw.Windows], x->Hw.WindowLength[x->Hw.Windows]);
        x->Hw.Window[x->Hw.Windows] = NULL;
    }
}

static NTSTATUS CadenceConnect(DEVICE_EXTENSION *x, PCM_PARTIAL_RESOURCE_DESCRIPTOR Line)
{
    PKINTERRUPT Interrupt = NULL;
    NTSTATUS Status;
    KIRQL Irql;

    Status = IoConnectInterrupt(&Interrupt, CadenceInterrupt, x, NULL, Line->u.Interrupt.Vector,
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

static NTSTATUS CadenceSetUp(DEVICE_EXTENSION *x, PCM_RESOURCE_LIST Resources)
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
        Status = CadencePrepare(x);
    if (NT_SUCCESS(Status))
        Status = CadenceConnect(x, Line);
    if (!NT_SUCCESS(Status)) {
        CadenceTearDown(x);
        return Status;
    }
    x->Hw.Power = PowerDeviceD0;
    CadenceUp(x);
    return STATUS_SUCCESS;
}

/* ---- Plug and Play ------------------------------------------------------------- */

static NTSTATUS CadencePassDown(DEVICE_EXTENSION *x, PIRP Irp)
{
    NTSTATUS Status;

    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(x->Hw.Lower, Irp);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return Status;
}

static NTSTATUS CadencePnpStart(DEVICE_EXTENSION *x, PIRP Irp)
{
    PCM_RESOURCE_LIST Resources = IoGetCurrentIrpStackLocation(Irp)->Parameters.StartDevice.AllocatedResourcesTranslated;
    NTSTATUS Status = STATUS_UNSUCCESSFUL;

    if (IoForwardIrpSynchronously(x->Hw.Lower, Irp))
        Status = Irp->IoStatus.Status;
    if (NT_SUCCESS(Status))
        Status = CadenceSetUp(x, Resources);
    if (NT_SUCCESS(Status)) {
        InterlockedExchange(&x->Hw.State, StateStarted);
        IoSetDeviceInterfaceState(&x->Hw.Interface, TRUE);
        CadenceOpenGate(x, GATE_UNSTARTED | GATE_STOPPING | GATE_ASLEEP);
    }
    Finish(Irp, Status, Irp->IoStatus.Information);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return Status;
}

static NTSTATUS CadencePnpCancelStop(DEVICE_EXTENSION *x, PIRP Irp)
{
    NTSTATUS Status = STATUS_UNSUCCESSFUL;

    Irp->IoStatus.Status = STATUS_SUCCESS;
    if (IoForwardIrpSynchronously(x->Hw.Lower, Irp))
        Status = Irp->IoStatus.Status;
    CadenceOpenGate(x, GATE_STOPPING);
    Finish(Irp, Status, Irp->IoStatus.Information);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return Status;
}

static VOID CadencePnpSurprise(DEVICE_EXTENSION *x)
{
    KIRQL Irql;

    InterlockedExchange(&x->Hw.State, StateGone);
    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    x->Hw.Gate |= GATE_GONE;
    x->Hw.Live = FALSE;
    if (x->Hw.Interrupt != NULL)
        KeSynchronizeExecution(x->Hw.Interrupt, CadenceSyncLost, x);
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
    IoSetDeviceInterfaceState(&x->Hw.Interface, FALSE);
    CadenceAbort(x);
    CadenceTearDown(x);
}

static NTSTATUS CadencePnpRemove(DEVICE_EXTENSION *x, PIRP Irp)
{
    PDEVICE_OBJECT Lower = x->Hw.Lower;
    NTSTATUS Status;

    if (InterlockedExchange(&x->Hw.State, StateDeleted) != StateGone) {
        IoSetDeviceInterfaceState(&x->Hw.Interface, FALSE);
        CadenceCloseGate(x, GATE_GONE);
        CadenceDrain(x);
        CadenceAbort(x);
        CadenceTearDown(x);
    }
    IoReleaseRemoveLockAndWait(&x->Hw.RemoveLock, Irp);
    CadenceFree(x);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(Lower, Irp);
    RtlFreeUnicodeString(&x->Hw.Interface);
    IoDetachDevice(Lower);
    IoDeleteDevice(x->Hw.Self);
    return Status;
}

static NTSTATUS NTAPI CadenceDispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Hw.RemoveLock, Irp);

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    switch (IoGetCurrentIrpStackLocation(Irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        return CadencePnpStart(x, Irp);
    case IRP_MN_CANCEL_STOP_DEVICE:
        return CadencePnpCancelStop(x, Irp);
    case IRP_MN_REMOVE_DEVICE:
        return CadencePnpRemove(x, Irp);
    case IRP_MN_QUERY_STOP_DEVICE:
        CadenceCloseGate(x, GATE_STOPPING);
        CadenceDrain(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_STOP_DEVICE:
        CadenceCloseGate(x, GATE_STOPPING);
        CadenceDrain(x);
        InterlockedExchange(&x->Hw.State, StateStopped);
        CadenceTearDown(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        CadencePnpSurprise(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    default:
        break;
    }
    return CadencePassDown(x, Irp);
}

static NTSTATUS NTAPI CadenceDispatchSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Hw.RemoveLock, Irp);

    return NT_SUCCESS(Status) ? CadencePassDown(x, Irp) : Finish(Irp, Status, Irp->IoStatus.Information);
}

/* ---- power: awake while the system is ------------------------------------------------- */

static VOID NTAPI CadenceDeviceIrpDone(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context,
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

static NTSTATUS NTAPI CadenceSystemIrpDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    DEVICE_EXTENSION *x = Context;
    NTSTATUS Status = Irp->IoStatus.Status;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Status)) {
        PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
        POWER_STATE State;

        State.DeviceState =
            Stack->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        Status = PoRequestPowerIrp(x->Hw.Self, IRP_MN_SET_POWER, State, CadenceDeviceIrpDone, Irp, NULL);
        if (NT_SUCCESS(Status))
            return STATUS_MORE_PROCESSING_REQUIRED;
        Irp->IoStatus.Status = Status;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI CadenceAwakeDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    DEVICE_EXTENSION *x = Context;

    UNREFERENCED_PARAMETER(Device);
    if (Irp->PendingReturned)
        IoMarkIrpPending(Irp);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        x->Hw.Power = PowerDeviceD0;
        PoSetPowerState(x->Hw.Self, DevicePowerState, IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State);
        CadenceUp(x);
        CadenceOpenGate(x, GATE_ASLEEP);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI CadenceDispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
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
        IoSetCompletionRoutine(Irp, CadenceSystemIrpDone, x, TRUE, TRUE, TRUE);
        PoCallDriver(x->Hw.Lower, Irp);
        return STATUS_PENDING;
    }
    if (Stack->MinorFunction == IRP_MN_SET_POWER) {
        DEVICE_POWER_STATE To = Stack->Parameters.Power.State.DeviceState;

        if (To == PowerDeviceD0 && x->Hw.Power != PowerDeviceD0) {
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, CadenceAwakeDone, x, TRUE, TRUE, TRUE);
            return PoCallDriver(x->Hw.Lower, Irp);
        }
        if (To != PowerDeviceD0 && x->Hw.Power == PowerDeviceD0) {
            CadenceCloseGate(x, GATE_ASLEEP);
            CadenceDrain(x);
            CadenceDown(x);
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
static NTSTATUS CadenceEnter(DEVICE_EXTENSION *x, PIRP Irp)
{
    NTSTATUS Status = IoAcquireRemoveLock(&x->Hw.RemoveLock, Irp);

    if (NT_SUCCESS(Status) && x->Hw.State != StateStarted && x->Hw.State != StateStopped) {
        IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
        Status = STATUS_DEVICE_NOT_CONNECTED;
    }
    return Status;
}

static NTSTATUS CadenceLeave(DEVICE_EXTENSION *x, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Finish(Irp, Status, Information);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return Status;
}

static NTSTATUS NTAPI CadenceDispatchCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS Status = CadenceEnter(x, Irp);

    return NT_SUCCESS(Status) ? CadenceLeave(x, Irp, STATUS_SUCCESS, 0) : Finish(Irp, Status, 0);
}

static NTSTATUS NTAPI CadenceDispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    KIRQL Irql;

    KeAcquireSpinLock(&x->WaitLock, &Irql);
    File->FsContext = File;
    KeReleaseSpinLock(&x->WaitLock, Irql);
    CadenceFlush(x, File, STATUS_CANCELLED);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI CadenceDispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

/* The request waits for the card; STATUS_PENDING, or why not. */
static NTSTATUS CadenceEnqueue(DEVICE_EXTENSION *x, PIRP Irp)
{
    NTSTATUS Status = IoAcquireRemoveLock(&x->Hw.RemoveLock, CadenceEnqueue);

    if (!NT_SUCCESS(Status))
        return Status;
    Status = IoCsqInsertIrpEx(&x->Csq, Irp, NULL, NULL);
    if (NT_SUCCESS(Status)) {
        CadenceKick(x);
        Status = STATUS_PENDING;
    }
    IoReleaseRemoveLock(&x->Hw.RemoveLock, CadenceEnqueue);
    return Status;
}

/* In: the offset; the other buffer is what is stored, or where to load. */
static NTSTATUS CadenceTransfer(DEVICE_EXTENSION *x, PIRP Irp, ULONG In, ULONG Length)
{
    ULONG Offset;

    if (In != sizeof(ULONG) || Length == 0 || Length > MEMORY_SIZE || Irp->MdlAddress == NULL)
        return STATUS_INVALID_PARAMETER;
    Offset = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
    if (Offset > MEMORY_SIZE - Length)
        return STATUS_INVALID_PARAMETER;
    if (CadenceData(Irp) == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    return CadenceEnqueue(x, Irp);
}

static NTSTATUS NTAPI CadenceDispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    NTSTATUS Status = CadenceEnter(x, Irp);
    ULONG_PTR Information = 0;
    KIRQL Irql;

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_STORE:
    case IOCTL_LOAD:
        Status = CadenceTransfer(x, Irp, In, Out);
        if (Status == STATUS_PENDING)
            return Status;
        break;
    case IOCTL_STATE:
        if (Out < sizeof(STATE)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&x->Hw.Lock, &Irql);
        x->State.Overdue = x->Overdue;
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &x->State, sizeof(STATE));
        KeReleaseSpinLock(&x->Hw.Lock, Irql);
        Information = sizeof(STATE);
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return CadenceLeave(x, Irp, Status, Information);
}

static NTSTATUS NTAPI CadenceAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
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
    Status = CadenceInit(x);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Self);
        return Status;
    }
    Status = IoRegisterDeviceInterface(Pdo, &INTERFACE_GUID, NULL, &x->Hw.Interface);
    if (!NT_SUCCESS(Status)) {
        CadenceFree(x);
        IoDeleteDevice(Self);
        return Status;
    }
    x->Hw.Lower = IoAttachDeviceToDeviceStack(Self, Pdo);
    if (x->Hw.Lower == NULL) {
        RtlFreeUnicodeString(&x->Hw.Interface);
        CadenceFree(x);
        IoDeleteDevice(Self);
        return STATUS_NO_SUCH_DEVICE;
    }
    Self->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
    Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI CadenceUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->DriverExtension->AddDevice = CadenceAddDevice;
    Driver->DriverUnload = CadenceUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = CadenceDispatchCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = CadenceDispatchCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = CadenceDispatchClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = CadenceDispatchControl;
    Driver->MajorFunction[IRP_MJ_PNP] = CadenceDispatchPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = CadenceDispatchPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = CadenceDispatchSystemControl;
    return STATUS_SUCCESS;
}

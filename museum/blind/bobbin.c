/*
 * bobbin.c - reads and writes of the edu card's memory, by DMA from and to the
 * application's pages.
 *
 * Direct I/O: what a request's MDL describes is mapped for the card as a
 * scatter/gather list, whose elements go to the card one after the other.
 *
 * The bug: a request that is with the card when it is pulled out is completed before its scatter/gather list is
 * put: the pages are not locked any more when the list is flushed.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: dma-unlocked-while-mapped
 * Needs: removal
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

DEFINE_GUID(INTERFACE_GUID, 0x9a41d708, 0x8c44, 0x4b0e, 0xa1, 0x5d, 0x6e, 0x10, 0x93, 0x27, 0x5c, 0x01);

#define POOL_TAG 'nipS'
#define WINDOWS_NEEDED 1
#define MEMORY_SIZE 4096

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

#define IOCTL_STATISTICS CTL_CODE(FILE_DEVICE_UNKNOWN, 0xd20, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct {
    ULONG Requests;
    ULONG Elements;
    ULONG Bytes;
} STATISTICS;

typedef enum {
    PhaseNone,
    PhaseMapping, /* its list is not there yet */
    PhaseRunning, /* an element is with the card */
    PhaseEnding   /* who has set this ends it */
} PHASE;

typedef struct {
    HARDWARE_PART Hw;
    PDMA_ADAPTER Adapter;
    KDPC Dpc;

    /* With Hw.Lock, which is taken before WaitLock: */
    PIRP Current;
    PHASE Phase;
    ULONG Mappings; /* calls of GetScatterGatherList that have not returned */
    PSCATTER_GATHER_LIST List;
    ULONG Element, Position, Count;
    KEVENT Idle; /* neither Current nor Mappings */
    STATISTICS Statistics;

    KSPIN_LOCK WaitLock;
    IO_CSQ Csq;
    LIST_ENTRY Waiting;
    BOOLEAN Closed;
} DEVICE_EXTENSION;

static ULONG SpindleRead(DEVICE_EXTENSION *x, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(x->Hw.Window[0] + Offset));
}

static VOID SpindleWrite(DEVICE_EXTENSION *x, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->Hw.Window[0] + Offset), Value);
}

/* ---- requests that wait ---------------------------------------------------- */

#define FROM_CSQ(c) CONTAINING_RECORD(c, DEVICE_EXTENSION, Csq)

static NTSTATUS NTAPI SpindleCsqInsert(PIO_CSQ Csq, PIRP Irp, PVOID Context)
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

static VOID NTAPI SpindleCsqRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI SpindleCsqPeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
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

static VOID NTAPI SpindleCsqAcquire(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&FROM_CSQ(Csq)->WaitLock, Irql);
}

static VOID NTAPI SpindleCsqRelease(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&FROM_CSQ(Csq)->WaitLock, Irql);
}

/* Each request that waits, or is with the card, holds a remove lock. */
static VOID SpindleEnd(DEVICE_EXTENSION *x, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Finish(Irp, Status, Information);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
}

static VOID NTAPI SpindleCsqCancelled(PIO_CSQ Csq, PIRP Irp)
{
    SpindleEnd(FROM_CSQ(Csq), Irp, STATUS_CANCELLED, 0);
}

static VOID SpindleFlush(DEVICE_EXTENSION *x, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP Irp;

    while ((Irp = IoCsqRemoveNextIrp(&x->Csq, File)) != NULL)
        SpindleEnd(x, Irp, Status, 0);
}

static VOID SpindleCloseQueue(DEVICE_EXTENSION *x)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->WaitLock, &Irql);
    x->Closed = TRUE;
    KeReleaseSpinLock(&x->WaitLock, Irql);
    SpindleFlush(x, NULL, STATUS_DEVICE_NOT_CONNECTED);
}

static NTSTATUS SpindleInitQueue(DEVICE_EXTENSION *x)
{
    KeInitializeSpinLock(&x->WaitLock);
    InitializeListHead(&x->Waiting);
    return IoCsqInitializeEx(&x->Csq, SpindleCsqInsert, SpindleCsqRemove, SpindleCsqPeek, SpindleCsqAcquire, SpindleCsqRelease,
                             SpindleCsqCancelled);
}

static BOOLEAN SpindleIsWrite(PIRP Irp)
{
    return IoGetCurrentIrpStackLocation(Irp)->MajorFunction == IRP_MJ_WRITE;
}

static ULONG SpindleLength(PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    return SpindleIsWrite(Irp) ? Stack->Parameters.Write.Length : Stack->Parameters.Read.Length;
}

static ULONG SpindleOffset(PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    return SpindleIsWrite(Irp) ? Stack->Parameters.Write.ByteOffset.LowPart : Stack->Parameters.Read.ByteOffset.LowPart;
}

/* ---- the card: with the lock held --------------------------------------------------- */

static VOID SpindleStartElement(DEVICE_EXTENSION *x)
{
    PSCATTER_GATHER_ELEMENT e = &x->List->Elements[x->Element];
    ULONG Rest = SpindleLength(x->Current) - x->Position;
    ULONG Card = EDU_MEMORY + SpindleOffset(x->Current) + x->Position;
    BOOLEAN Write = SpindleIsWrite(x->Current);

    x->Count = e->Length < Rest ? e->Length : Rest;
    SpindleWrite(x, EDU_DMA_SOURCE, Write ? e->Address.LowPart : Card);
    SpindleWrite(x, EDU_DMA_DESTINATION, Write ? Card : e->Address.LowPart);
    SpindleWrite(x, EDU_DMA_COUNT, x->Count);
    SpindleWrite(x, EDU_DMA_COMMAND, DMA_RUN | DMA_INTERRUPT | (Write ? 0 : DMA_TO_MEMORY));
}

static VOID SpindleNote(DEVICE_EXTENSION *x)
{
    if (x->Current == NULL && x->Mappings == 0)
        KeSetEvent(&x->Idle, IO_NO_INCREMENT, FALSE);
}

/* ---- the way of a request: without the lock ---------------------------------------------- */

static VOID SpindlePutList(DEVICE_EXTENSION *x, PSCATTER_GATHER_LIST List, BOOLEAN Write)
{
    KIRQL Irql;

    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    x->Adapter->DmaOperations->PutScatterGatherList(x->Adapter, List, Write);
    KeLowerIrql(Irql);
}

/* The caller has set PhaseEnding. */
static VOID SpindleFinish(DEVICE_EXTENSION *x, NTSTATUS Status, ULONG Information)
{
    PIRP Irp = x->Current;
    KIRQL Irql;

    SpindlePutList(x, x->List, SpindleIsWrite(Irp));
    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    x->Statistics.Requests++;
    x->Statistics.Bytes += Information;
    x->List = NULL;
    x->Current = NULL;
    x->Phase = PhaseNone;
    SpindleNote(x);
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
    SpindleEnd(x, Irp, Status, Information);
}

static VOID NTAPI SpindleListReady(PDEVICE_OBJECT Device, PIRP Unused, PSCATTER_GATHER_LIST List, PVOID Context)
{
    DEVICE_EXTENSION *x = Context;
    BOOLEAN Gone = FALSE;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Unused);
    KeAcquireSpinLockAtDpcLevel(&x->Hw.Lock);
    x->List = List;
    x->Element = 0;
    x->Position = 0;
    if (x->Hw.Live) {
        x->Phase = PhaseRunning;
        SpindleStartElement(x);
    } else {
        x->Phase = PhaseEnding;
        Gone = TRUE;
    }
    KeReleaseSpinLockFromDpcLevel(&x->Hw.Lock);
    if (Gone)
        SpindleFinish(x, STATUS_DEVICE_NOT_CONNECTED, 0);
}

/* Gives the card the next request, if it has none. */
static VOID SpindleKick(DEVICE_EXTENSION *x)
{
    NTSTATUS Status;
    KIRQL Irql;
    PIRP Irp;

    do {
        Irp = NULL;
        Status = STATUS_SUCCESS;
        KeAcquireSpinLock(&x->Hw.Lock, &Irql);
        if (x->Hw.Gate == 0 && x->Hw.Live && x->Current == NULL)
            Irp = IoCsqRemoveNextIrp(&x->Csq, NULL);
        if (Irp != NULL) {
            x->Current = Irp;
            x->Phase = PhaseMapping;
            x->Mappings++;
            KeClearEvent(&x->Idle);
            KeReleaseSpinLockFromDpcLevel(&x->Hw.Lock);
            Status = x->Adapter->DmaOperations->GetScatterGatherList(
                x->Adapter, x->Hw.Self, Irp->MdlAddress, MmGetMdlVirtualAddress(Irp->MdlAddress), SpindleLength(Irp),
                SpindleListReady, x, SpindleIsWrite(Irp));
            KeAcquireSpinLockAtDpcLevel(&x->Hw.Lock);
            x->Mappings--;
            if (!NT_SUCCESS(Status)) {
                x->Current = NULL;
                x->Phase = PhaseNone;
            }
            SpindleNote(x);
        }
        KeReleaseSpinLock(&x->Hw.Lock, Irql);
        if (!NT_SUCCESS(Status))
            SpindleEnd(x, Irp, Status, 0);
    } while (!NT_SUCCESS(Status));
}

static VOID NTAPI SpindleDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    DEVICE_EXTENSION *x = Context;
    BOOLEAN Ended = FALSE;
    ULONG Command;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&x->Hw.Lock);
    if (x->Hw.Live && x->Phase == PhaseRunning) {
        Command = SpindleRead(x, EDU_DMA_COMMAND);
        if (Command != 0xffffffff && !(Command & DMA_RUN)) {
            x->Statistics.Elements++;
            x->Position += x->Count;
            if (x->Position < SpindleLength(x->Current)) {
                x->Element++;
                SpindleStartElement(x);
            } else {
                x->Phase = PhaseEnding;
                Ended = TRUE;
            }
        }
    }
    KeReleaseSpinLockFromDpcLevel(&x->Hw.Lock);
    if (Ended) {
        SpindleFinish(x, STATUS_SUCCESS, x->Position);
        SpindleKick(x);
    }
}

static BOOLEAN NTAPI SpindleInterrupt(PKINTERRUPT Interrupt, PVOID Context)
{
    DEVICE_EXTENSION *x = Context;
    ULONG Causes;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!x->Hw.IsrLive)
        return FALSE;
    Causes = SpindleRead(x, EDU_CAUSES);
    if (Causes == 0 || Causes == 0xffffffff)
        return FALSE;
    SpindleWrite(x, EDU_ACKNOWLEDGE, Causes);
    KeInsertQueueDpc(&x->Dpc, NULL, NULL);
    return TRUE;
}

/* ---- what the card needs --------------------------------------------------------------- */

static NTSTATUS SpindlePrepare(DEVICE_EXTENSION *x)
{
    DEVICE_DESCRIPTION d;
    ULONG MapRegisters;

    if ((SpindleRead(x, EDU_ID) & 0xffff) != 0x00ed)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    RtlZeroMemory(&d, sizeof(d));
    d.Version = DEVICE_DESCRIPTION_VERSION2;
    d.Master = TRUE;
    d.ScatterGather = TRUE;
    d.Dma32BitAddresses = FALSE; /* the card has 28 address lines */
    d.InterfaceType = PCIBus;
    d.MaximumLength = MEMORY_SIZE;
    x->Adapter = IoGetDmaAdapter(x->Hw.Pdo, &d, &MapRegisters);
    return x->Adapter != NULL ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static VOID SpindleRelease(DEVICE_EXTENSION *x)
{
    if (x->Adapter != NULL)
        x->Adapter->DmaOperations->PutDmaAdapter(x->Adapter);
    x->Adapter = NULL;
}

static VOID SpindleEnable(DEVICE_EXTENSION *x)
{
    SpindleWrite(x, EDU_ACKNOWLEDGE, SpindleRead(x, EDU_CAUSES));
}

static VOID SpindleDisable(DEVICE_EXTENSION *x)
{
    SpindleWrite(x, EDU_ACKNOWLEDGE, SpindleRead(x, EDU_CAUSES));
}

static VOID SpindleDrain(DEVICE_EXTENSION *x)
{
    KeWaitForSingleObject(&x->Idle, Executive, KernelMode, FALSE, NULL);
}

/* The card is gone, and what was with it will not end; a list that is not ready yet ends its request itself. */
static VOID SpindleAbort(DEVICE_EXTENSION *x)
{
    BOOLEAN Mine = FALSE;
    KIRQL Irql;

    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    if (x->Phase == PhaseRunning) {
        x->Phase = PhaseEnding;
        Mine = TRUE;
    }
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
    if (Mine) {
#ifdef FIXED
        SpindleFinish(x, STATUS_DEVICE_NOT_CONNECTED, 0);
#else
        PSCATTER_GATHER_LIST List = x->List;
        BOOLEAN Write = SpindleIsWrite(x->Current);

        SpindleEnd(x, x->Current, STATUS_DEVICE_NOT_CONNECTED, 0);
        SpindlePutList(x, List, Write);
        KeAcquireSpinLock(&x->Hw.Lock, &Irql);
        x->Statistics.Requests++;
        x->List = NULL;
        x->Current = NULL;
        x->Phase = PhaseNone;
        SpindleNote(x);
        KeReleaseSpinLock(&x->Hw.Lock, Irql);
#endif
    }
    SpindleDrain(x);
    SpindleCloseQueue(x);
}

static NTSTATUS SpindleInit(DEVICE_EXTENSION *x)
{
    KeInitializeEvent(&x->Idle, NotificationEvent, TRUE);
    KeInitializeDpc(&x->Dpc, SpindleDpc, x);
    return SpindleInitQueue(x);
}

static VOID SpindleFree(DEVICE_EXTENSION *x)
{
    UNREFERENCED_PARAMETER(x);
}

/* ---- the card comes and goes ---------------------------------------------------- */

static BOOLEAN NTAPI SpindleSyncUp(PVOID Context)
{
    DEVICE_EXTENSION *x = Context;

    SpindleEnable(x);
    x->Hw.IsrLive = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI SpindleSyncDown(PVOID Context)
{
    DEVICE_EXTENSION *x = Context;

    SpindleDisable(x);
    x->Hw.IsrLive = FALSE;
    return TRUE;
}

static BOOLEAN NTAPI SpindleSyncLost(PVOID Context)
{
    DEVICE_EXTENSION *x = Context;

    x->Hw.IsrLive = FALSE;
    return TRUE;
}

static VOID SpindleUp(DEVICE_EXTENSION *x)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    if (x->Hw.Interrupt != NULL && !x->Hw.Live && !(x->Hw.Gate & GATE_GONE)) {
        KeSynchronizeExecution(x->Hw.Interrupt, SpindleSyncUp, x);
        x->Hw.Live = TRUE;
    }
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
}

static VOID SpindleDown(DEVICE_EXTENSION *x)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    if (x->Hw.Live)
        KeSynchronizeExecution(x->Hw.Interrupt, SpindleSyncDown, x);
    x->Hw.Live = FALSE;
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
}

static VOID SpindleCloseGate(DEVICE_EXTENSION *x, ULONG Why)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    x->Hw.Gate |= Why;
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
}

static VOID SpindleOpenGate(DEVICE_EXTENSION *x, ULONG Why)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    x->Hw.Gate &= ~Why;
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
    SpindleKick(x);
}

/* Whatever there is of it, and as often as is wanted. */
static VOID SpindleTearDown(DEVICE_EXTENSION *x)
{
    PKINTERRUPT Interrupt;
    KIRQL Irql;

    SpindleDown(x);
    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    Interrupt = x->Hw.Interrupt;
    x->Hw.Interrupt = NULL;
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
    if (Interrupt != NULL)
        IoDisconnectInterrupt(Interrupt);
    KeFlushQueuedDpcs();
    SpindleRelease(x);
    while (x->Hw.Windows != 0) {
        x->Hw.Windows--;
        MmUnmapIoSpace(x->Hw.Window[x->Hw.Windows], x->Hw.WindowLength[x->Hw.Windows]);
        x->Hw.Window[x->Hw.Windows] = NULL;
    }
}

static NTSTATUS SpindleConnect(DEVICE_EXTENSION *x, PCM_PARTIAL_RESOURCE_DESCRIPTOR Line)
{
    PKINTERRUPT Interrupt = NULL;
    NTSTATUS Status;
    KIRQL Irql;

    Status = IoConnectInterrupt(&Interrupt, SpindleInterrupt, x, NULL, Line->u.Interrupt.Vector,
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

static NTSTATUS SpindleSetUp(DEVICE_EXTENSION *x, PCM_RESOURCE_LIST Resources)
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
        Status = SpindlePrepare(x);
    if (NT_SUCCESS(Status))
        Status = SpindleConnect(x, Line);
    if (!NT_SUCCESS(Status)) {
        SpindleTearDown(x);
        return Status;
    }
    x->Hw.Power = PowerDeviceD0;
    SpindleUp(x);
    return STATUS_SUCCESS;
}

/* ---- Plug and Play ------------------------------------------------------------- */

static NTSTATUS SpindlePassDown(DEVICE_EXTENSION *x, PIRP Irp)
{
    NTSTATUS Status;

    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(x->Hw.Lower, Irp);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return Status;
}

static NTSTATUS SpindlePnpStart(DEVICE_EXTENSION *x, PIRP Irp)
{
    PCM_RESOURCE_LIST Resources = IoGetCurrentIrpStackLocation(Irp)->Parameters.StartDevice.AllocatedResourcesTranslated;
    NTSTATUS Status = STATUS_UNSUCCESSFUL;

    if (IoForwardIrpSynchronously(x->Hw.Lower, Irp))
        Status = Irp->IoStatus.Status;
    if (NT_SUCCESS(Status))
        Status = SpindleSetUp(x, Resources);
    if (NT_SUCCESS(Status)) {
        InterlockedExchange(&x->Hw.State, StateStarted);
        IoSetDeviceInterfaceState(&x->Hw.Interface, TRUE);
        SpindleOpenGate(x, GATE_UNSTARTED | GATE_STOPPING | GATE_ASLEEP);
    }
    Finish(Irp, Status, Irp->IoStatus.Information);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return Status;
}

static NTSTATUS SpindlePnpCancelStop(DEVICE_EXTENSION *x, PIRP Irp)
{
    NTSTATUS Status = STATUS_UNSUCCESSFUL;

    Irp->IoStatus.Status = STATUS_SUCCESS;
    if (IoForwardIrpSynchronously(x->Hw.Lower, Irp))
        Status = Irp->IoStatus.Status;
    SpindleOpenGate(x, GATE_STOPPING);
    Finish(Irp, Status, Irp->IoStatus.Information);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return Status;
}

static VOID SpindlePnpSurprise(DEVICE_EXTENSION *x)
{
    KIRQL Irql;

    InterlockedExchange(&x->Hw.State, StateGone);
    KeAcquireSpinLock(&x->Hw.Lock, &Irql);
    x->Hw.Gate |= GATE_GONE;
    x->Hw.Live = FALSE;
    if (x->Hw.Interrupt != NULL)
        KeSynchronizeExecution(x->Hw.Interrupt, SpindleSyncLost, x);
    KeReleaseSpinLock(&x->Hw.Lock, Irql);
    IoSetDeviceInterfaceState(&x->Hw.Interface, FALSE);
    SpindleAbort(x);
    SpindleTearDown(x);
}

static NTSTATUS SpindlePnpRemove(DEVICE_EXTENSION *x, PIRP Irp)
{
    PDEVICE_OBJECT Lower = x->Hw.Lower;
    NTSTATUS Status;

    if (InterlockedExchange(&x->Hw.State, StateDeleted) != StateGone) {
        IoSetDeviceInterfaceState(&x->Hw.Interface, FALSE);
        SpindleCloseGate(x, GATE_GONE);
        SpindleDrain(x);
        SpindleAbort(x);
        SpindleTearDown(x);
    }
    IoReleaseRemoveLockAndWait(&x->Hw.RemoveLock, Irp);
    SpindleFree(x);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(Lower, Irp);
    RtlFreeUnicodeString(&x->Hw.Interface);
    IoDetachDevice(Lower);
    IoDeleteDevice(x->Hw.Self);
    return Status;
}

static NTSTATUS NTAPI SpindleDispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Hw.RemoveLock, Irp);

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    switch (IoGetCurrentIrpStackLocation(Irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        return SpindlePnpStart(x, Irp);
    case IRP_MN_CANCEL_STOP_DEVICE:
        return SpindlePnpCancelStop(x, Irp);
    case IRP_MN_REMOVE_DEVICE:
        return SpindlePnpRemove(x, Irp);
    case IRP_MN_QUERY_STOP_DEVICE:
        SpindleCloseGate(x, GATE_STOPPING);
        SpindleDrain(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_STOP_DEVICE:
        SpindleCloseGate(x, GATE_STOPPING);
        SpindleDrain(x);
        InterlockedExchange(&x->Hw.State, StateStopped);
        SpindleTearDown(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        SpindlePnpSurprise(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    default:
        break;
    }
    return SpindlePassDown(x, Irp);
}

static NTSTATUS NTAPI SpindleDispatchSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Hw.RemoveLock, Irp);

    return NT_SUCCESS(Status) ? SpindlePassDown(x, Irp) : Finish(Irp, Status, Irp->IoStatus.Information);
}

/* ---- power: awake while the system is ------------------------------------------------- */

static VOID NTAPI SpindleDeviceIrpDone(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context,
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

static NTSTATUS NTAPI SpindleSystemIrpDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    DEVICE_EXTENSION *x = Context;
    NTSTATUS Status = Irp->IoStatus.Status;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Status)) {
        PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
        POWER_STATE State;

        State.DeviceState =
            Stack->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        Status = PoRequestPowerIrp(x->Hw.Self, IRP_MN_SET_POWER, State, SpindleDeviceIrpDone, Irp, NULL);
        if (NT_SUCCESS(Status))
            return STATUS_MORE_PROCESSING_REQUIRED;
        Irp->IoStatus.Status = Status;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI SpindleAwakeDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    DEVICE_EXTENSION *x = Context;

    UNREFERENCED_PARAMETER(Device);
    if (Irp->PendingReturned)
        IoMarkIrpPending(Irp);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        x->Hw.Power = PowerDeviceD0;
        PoSetPowerState(x->Hw.Self, DevicePowerState, IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State);
        SpindleUp(x);
        SpindleOpenGate(x, GATE_ASLEEP);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI SpindleDispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
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
        IoSetCompletionRoutine(Irp, SpindleSystemIrpDone, x, TRUE, TRUE, TRUE);
        PoCallDriver(x->Hw.Lower, Irp);
        return STATUS_PENDING;
    }
    if (Stack->MinorFunction == IRP_MN_SET_POWER) {
        DEVICE_POWER_STATE To = Stack->Parameters.Power.State.DeviceState;

        if (To == PowerDeviceD0 && x->Hw.Power != PowerDeviceD0) {
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, SpindleAwakeDone, x, TRUE, TRUE, TRUE);
            return PoCallDriver(x->Hw.Lower, Irp);
        }
        if (To != PowerDeviceD0 && x->Hw.Power == PowerDeviceD0) {
            SpindleCloseGate(x, GATE_ASLEEP);
            SpindleDrain(x);
            SpindleDown(x);
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
static NTSTATUS SpindleEnter(DEVICE_EXTENSION *x, PIRP Irp)
{
    NTSTATUS Status = IoAcquireRemoveLock(&x->Hw.RemoveLock, Irp);

    if (NT_SUCCESS(Status) && x->Hw.State != StateStarted && x->Hw.State != StateStopped) {
        IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
        Status = STATUS_DEVICE_NOT_CONNECTED;
    }
    return Status;
}

static NTSTATUS SpindleLeave(DEVICE_EXTENSION *x, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Finish(Irp, Status, Information);
    IoReleaseRemoveLock(&x->Hw.RemoveLock, Irp);
    return Status;
}

static NTSTATUS NTAPI SpindleDispatchCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS Status = SpindleEnter(x, Irp);

    return NT_SUCCESS(Status) ? SpindleLeave(x, Irp, STATUS_SUCCESS, 0) : Finish(Irp, Status, 0);
}

static NTSTATUS NTAPI SpindleDispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    KIRQL Irql;

    KeAcquireSpinLock(&x->WaitLock, &Irql);
    File->FsContext = File;
    KeReleaseSpinLock(&x->WaitLock, Irql);
    SpindleFlush(x, File, STATUS_CANCELLED);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI SpindleDispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

/* The request waits for the card; STATUS_PENDING, or why not. */
static NTSTATUS SpindleEnqueue(DEVICE_EXTENSION *x, PIRP Irp)
{
    NTSTATUS Status = IoAcquireRemoveLock(&x->Hw.RemoveLock, SpindleEnqueue);

    if (!NT_SUCCESS(Status))
        return Status;
    Status = IoCsqInsertIrpEx(&x->Csq, Irp, NULL, NULL);
    if (NT_SUCCESS(Status)) {
        SpindleKick(x);
        Status = STATUS_PENDING;
    }
    IoReleaseRemoveLock(&x->Hw.RemoveLock, SpindleEnqueue);
    return Status;
}

static NTSTATUS NTAPI SpindleDispatchReadWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    LONGLONG Offset = SpindleIsWrite(Irp) ? Stack->Parameters.Write.ByteOffset.QuadPart
                                          : Stack->Parameters.Read.ByteOffset.QuadPart;
    ULONG Length = SpindleLength(Irp);
    NTSTATUS Status = SpindleEnter(x, Irp);

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    if (Length == 0)
        return SpindleLeave(x, Irp, STATUS_SUCCESS, 0);
    if (Length > MEMORY_SIZE || Offset < 0 || Offset > MEMORY_SIZE - (LONGLONG)Length)
        return SpindleLeave(x, Irp, STATUS_INVALID_PARAMETER, 0);
    Status = SpindleEnqueue(x, Irp);
    return Status == STATUS_PENDING ? Status : SpindleLeave(x, Irp, Status, 0);
}

static NTSTATUS NTAPI SpindleDispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = SpindleEnter(x, Irp);
    ULONG_PTR Information = 0;
    KIRQL Irql;

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    if (Stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_STATISTICS) {
        Status = STATUS_INVALID_DEVICE_REQUEST;
    } else if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(STATISTICS)) {
        Status = STATUS_BUFFER_TOO_SMALL;
    } else {
        KeAcquireSpinLock(&x->Hw.Lock, &Irql);
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &x->Statistics, sizeof(STATISTICS));
        KeReleaseSpinLock(&x->Hw.Lock, Irql);
        Information = sizeof(STATISTICS);
    }
    return SpindleLeave(x, Irp, Status, Information);
}

static NTSTATUS NTAPI SpindleAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
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
    Status = SpindleInit(x);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Self);
        return Status;
    }
    Status = IoRegisterDeviceInterface(Pdo, &INTERFACE_GUID, NULL, &x->Hw.Interface);
    if (!NT_SUCCESS(Status)) {
        SpindleFree(x);
        IoDeleteDevice(Self);
        return Status;
    }
    x->Hw.Lower = IoAttachDeviceToDeviceStack(Self, Pdo);
    if (x->Hw.Lower == NULL) {
        RtlFreeUnicodeString(&x->Hw.Interface);
        SpindleFree(x);
        IoDeleteDevice(Self);
        return STATUS_NO_SUCH_DEVICE;
    }
    Self->Flags |= DO_DIRECT_IO | DO_POWER_PAGABLE;
    Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI SpindleUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->DriverExtension->AddDevice = SpindleAddDevice;
    Driver->DriverUnload = SpindleUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = SpindleDispatchCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = SpindleDispatchCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = SpindleDispatchClose;
    Driver->MajorFunction[IRP_MJ_READ] = SpindleDispatchReadWrite;
    Driver->MajorFunction[IRP_MJ_WRITE] = SpindleDispatchReadWrite;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = SpindleDispatchControl;
    Driver->MajorFunction[IRP_MJ_PNP] = SpindleDispatchPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = SpindleDispatchPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = SpindleDispatchSystemControl;
    return STATUS_SUCCESS;
}

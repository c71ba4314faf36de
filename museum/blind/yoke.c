/*
 * yoke.c - two things at once for the educational card.
 *
 * A request of WORK has the card compute a factorial, move a block to or from
 * its memory, or both side by side; it ends when all of it is done.  One
 * request at a time is with the card.  The two ends are seen to by routines of
 * their own, on different processors where there are some.
 *
 * The bug: each of two DPCs notes under the lock that its part is done, and looks whether all is done behind it:
 * both may end the request.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: wild-read, double-completion
 * Needs: device, schedule
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

DEFINE_GUID(INTERFACE_GUID, 0x3f20b108, 0x8c44, 0x4b0e, 0xa1, 0x5d, 0x6e, 0x10, 0x93, 0x27, 0x5c, 0x01);

#define POOL_TAG 'ekoY'
#define BUFFER_SIZE 2048
#define CARD_MEMORY 4096
#define LARGEST 12 /* whose factorial has 32 bits */

#define EDU_ID 0x00
#define EDU_FACTORIAL 0x08
#define EDU_STATUS 0x20
#define EDU_INTERRUPT 0x24
#define EDU_ACKNOWLEDGE 0x64
#define EDU_DMA_SOURCE 0x80
#define EDU_DMA_TARGET 0x88
#define EDU_DMA_COUNT 0x90
#define EDU_DMA_COMMAND 0x98
#define STATUS_COMPUTING 0x01
#define STATUS_INTERRUPT 0x80
#define DMA_RUN 1
#define DMA_TO_MEMORY 2
#define DMA_INTERRUPT 4
#define EDU_DMA_BUFFER 0x40000
#define CAUSE_FACTORIAL 0x001
#define CAUSE_DMA 0x100

#define IOCTL_WORK CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb80, METHOD_BUFFERED, FILE_READ_ACCESS | FILE_WRITE_ACCESS)
#define IOCTL_TOTALS CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb81, METHOD_BUFFERED, FILE_ANY_ACCESS)

enum { WORK_FACTORIAL = 1, WORK_STORE = 2, WORK_LOAD = 4 };

typedef struct {
    ULONG What;
    ULONG Number;
    ULONG Offset;
    ULONG Length; /* of the block; STORE: it is behind this */
} WORK_REQUEST;

typedef struct {
    ULONG Factorial;
    ULONG Length; /* LOAD: of the block, which is behind this */
} WORK_REPLY;

typedef struct {
    ULONG Requests;
    ULONG Factorials;
    ULONG Blocks;
} TOTALS;

/* What is to be done for the request, and what has been done. */
enum { PART_FACTORIAL = 1, PART_BLOCK = 2, PART_TAKEN = 4 };

typedef struct {
    COMMON Common;
    PDMA_ADAPTER Adapter;
    PUCHAR Buffer;
    PHYSICAL_ADDRESS BufferAddress;
    KDPC FactorialDpc;
    KDPC BlockDpc;

    /* With Common.Lock, which is taken before WaitLock: */
    BOOLEAN Busy;
    KEVENT Idle; /* not Busy */
    PIRP Active; /* while Busy */
    volatile ULONG Wanted;
    volatile ULONG Done;
    ULONG Factorial;
    TOTALS Totals;

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

/* DEVICE_DESCRIPTION as of version 3, which these headers do not have yet. */
typedef struct {
    DEVICE_DESCRIPTION Old;
    ULONG DmaAddressWidth;
    ULONG DmaControllerInstance;
    ULONG DmaRequestLine;
    PHYSICAL_ADDRESS DeviceAddress;
} DEVICE_DESCRIPTION_3;

/* A buffer that the card's 28 address lines reach. */
static NTSTATUS GetBuffer(DEVICE_EXT *x)
{
    DEVICE_DESCRIPTION_3 d;
    ULONG MapRegisters;

    RtlZeroMemory(&d, sizeof(d));
    d.Old.Version = 3;
    d.Old.Master = TRUE;
    d.Old.Dma32BitAddresses = TRUE;
    d.Old.InterfaceType = PCIBus;
    d.Old.MaximumLength = BUFFER_SIZE;
    d.DmaAddressWidth = 28;
    x->Adapter = IoGetDmaAdapter(x->Common.Pdo, &d.Old, &MapRegisters);
    if (x->Adapter == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    x->Buffer = x->Adapter->DmaOperations->AllocateCommonBuffer(x->Adapter, BUFFER_SIZE, &x->BufferAddress, TRUE);
    return x->Buffer != NULL ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static VOID PutBuffer(DEVICE_EXT *x)
{
    if (x->Buffer != NULL)
        x->Adapter->DmaOperations->FreeCommonBuffer(x->Adapter, BUFFER_SIZE, x->BufferAddress, x->Buffer, TRUE);
    x->Buffer = NULL;
    if (x->Adapter != NULL)
        x->Adapter->DmaOperations->PutDmaAdapter(x->Adapter);
    x->Adapter = NULL;
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

/* ---- requests with the card ----------------------------------------------------------- */

/* With the lock held. */
static VOID BeginWork(DEVICE_EXT *x, PIRP Irp)
{
    WORK_REQUEST *w = Irp->AssociatedIrp.SystemBuffer;

    x->Busy = TRUE;
    KeClearEvent(&x->Idle);
    x->Active = Irp;
    x->Wanted = (w->What & WORK_FACTORIAL ? PART_FACTORIAL : 0) |
                (w->What & (WORK_STORE | WORK_LOAD) ? PART_BLOCK : 0);
    x->Done = 0;
    x->Factorial = 0;
    if (w->What & (WORK_STORE | WORK_LOAD)) {
        if (w->What & WORK_STORE) {
            RtlCopyMemory(x->Buffer, w + 1, w->Length);
            WriteCard(x, EDU_DMA_SOURCE, x->BufferAddress.LowPart);
            WriteCard(x, EDU_DMA_TARGET, EDU_DMA_BUFFER + w->Offset);
        } else {
            WriteCard(x, EDU_DMA_SOURCE, EDU_DMA_BUFFER + w->Offset);
            WriteCard(x, EDU_DMA_TARGET, x->BufferAddress.LowPart);
        }
        WriteCard(x, EDU_DMA_COUNT, w->Length);
        WriteCard(x, EDU_DMA_COMMAND,
                  DMA_RUN | DMA_INTERRUPT | (w->What & WORK_LOAD ? DMA_TO_MEMORY : 0));
    }
    if (w->What & WORK_FACTORIAL)
        WriteCard(x, EDU_FACTORIAL, w->Number);
}

static VOID CardKick(DEVICE_EXT *x)
{
    KIRQL Irql;
    PIRP Irp;

    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    if (x->Common.Holds == 0 && x->Common.Up && !x->Busy &&
        (Irp = TakeWaiter(x, NULL)) != NULL)
        BeginWork(x, Irp);
    KeReleaseSpinLock(&x->Common.Lock, Irql);
}

/* Who has seen the last part done, or has taken the request, calls it. */
static VOID EndWork(DEVICE_EXT *x, NTSTATUS Status)
{
    PIRP Irp = x->Active;
    WORK_REQUEST *w = Irp->AssociatedIrp.SystemBuffer;
    ULONG What = w->What, Length = w->Length;
    ULONG_PTR Information = 0;
    KIRQL Irql;

    if (NT_SUCCESS(Status)) {
        WORK_REPLY *Reply = Irp->AssociatedIrp.SystemBuffer;

        Reply->Factorial = x->Factorial;
        Reply->Length = What & WORK_LOAD ? Length : 0;
        RtlCopyMemory(Reply + 1, x->Buffer, Reply->Length);
        Information = sizeof(*Reply) + Reply->Length;
    }
    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    if (NT_SUCCESS(Status)) {
        x->Totals.Requests++;
        x->Totals.Factorials += (What & WORK_FACTORIAL) != 0;
        x->Totals.Blocks += (What & (WORK_STORE | WORK_LOAD)) != 0;
    }
    KeReleaseSpinLock(&x->Common.Lock, Irql);
    CompleteWaiter(x, Irp, Status, Information);
    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    x->Active = NULL;
    x->Busy = FALSE;
    KeSetEvent(&x->Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&x->Common.Lock, Irql);
    CardKick(x);
}

/* Is this part wanted, and has it come to its end without being seen to?  With the lock held. */
static BOOLEAN HasEnded(DEVICE_EXT *x, ULONG Part)
{
    if (!x->Busy || !x->Common.Up || !(x->Wanted & Part) || (x->Done & (Part | PART_TAKEN)))
        return FALSE;
    if (Part == PART_FACTORIAL)
        return !(ReadCard(x, EDU_STATUS) & STATUS_COMPUTING);
    return !(ReadCard(x, EDU_DMA_COMMAND) & DMA_RUN);
}

static VOID PartEnded(DEVICE_EXT *x, ULONG Part)
{
    BOOLEAN Ended, All = FALSE;

    KeAcquireSpinLockAtDpcLevel(&x->Common.Lock);
    Ended = HasEnded(x, Part);
    if (Ended) {
        if (Part == PART_FACTORIAL)
            x->Factorial = ReadCard(x, EDU_FACTORIAL);
        x->Done |= Part;
#ifdef FIXED
        All = x->Done == x->Wanted;
#endif
    }
    KeReleaseSpinLockFromDpcLevel(&x->Common.Lock);
#ifndef FIXED
    if (Ended)
        All = x->Done == x->Wanted;
#endif
    if (All)
        EndWork(x, STATUS_SUCCESS);
}

static VOID NTAPI OnFactorial(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    PartEnded(Context, PART_FACTORIAL);
}

static VOID NTAPI OnBlock(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    PartEnded(Context, PART_BLOCK);
}

/* ---- the card ------------------------------------------------------------------------- */

static BOOLEAN NTAPI OnInterrupt(PKINTERRUPT Interrupt, PVOID Context)
{
    DEVICE_EXT *x = Context;
    ULONG Causes;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!x->Common.Answering)
        return FALSE;
    Causes = ReadCard(x, EDU_INTERRUPT);
    if (Causes == 0 || Causes == 0xffffffff)
        return FALSE;
    WriteCard(x, EDU_ACKNOWLEDGE, Causes);
    if (Causes & CAUSE_DMA)
        KeInsertQueueDpc(&x->BlockDpc, NULL, NULL);
    if (Causes & CAUSE_FACTORIAL)
        KeInsertQueueDpc(&x->FactorialDpc, NULL, NULL);
    return TRUE;
}

static NTSTATUS CardWindow(DEVICE_EXT *x, PCM_PARTIAL_RESOURCE_DESCRIPTOR Memory)
{
    UNREFERENCED_PARAMETER(x);
    UNREFERENCED_PARAMETER(Memory);
    return STATUS_SUCCESS;
}

static NTSTATUS CardPrepare(DEVICE_EXT *x)
{
    if ((ReadCard(x, EDU_ID) & 0xff) != 0xed)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    return GetBuffer(x);
}

static VOID CardStopped(DEVICE_EXT *x)
{
    KeFlushQueuedDpcs();
    PutBuffer(x);
}

static VOID CardEnable(DEVICE_EXT *x)
{
    WriteCard(x, EDU_ACKNOWLEDGE, ReadCard(x, EDU_INTERRUPT));
    WriteCard(x, EDU_STATUS, STATUS_INTERRUPT);
}

static VOID CardDisable(DEVICE_EXT *x)
{
    WriteCard(x, EDU_STATUS, 0);
}

static VOID CardAsleep(DEVICE_EXT *x)
{
    UNREFERENCED_PARAMETER(x);
}

/* Once nothing may be begun: the card ends all it does in its time. */
static VOID CardDrain(DEVICE_EXT *x)
{
    KeWaitForSingleObject(&x->Idle, Executive, KernelMode, FALSE, NULL);
}

static VOID CardGone(DEVICE_EXT *x)
{
    BOOLEAN Taken = FALSE;
    KIRQL Irql;

    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    if (x->Busy && x->Done != x->Wanted && !(x->Done & PART_TAKEN)) {
        x->Done |= PART_TAKEN;
        Taken = TRUE;
    }
    KeReleaseSpinLock(&x->Common.Lock, Irql);
    if (Taken)
        EndWork(x, STATUS_DEVICE_NOT_CONNECTED);
    CardDrain(x);
    FlushWaiters(x, NULL, STATUS_DEVICE_NOT_CONNECTED);
}

static NTSTATUS DevInit(DEVICE_EXT *x)
{
    KeInitializeEvent(&x->Idle, NotificationEvent, TRUE);
    KeInitializeDpc(&x->FactorialDpc, OnFactorial, x);
    KeInitializeDpc(&x->BlockDpc, OnBlock, x);
    if (KeQueryActiveProcessorCount(NULL) > 1)
        KeSetTargetProcessorDpc(&x->BlockDpc, 1);
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

static NTSTATUS CheckWork(const WORK_REQUEST *w, ULONG In, ULONG Out)
{
    ULONG Block;

    if (In < sizeof(*w) || Out < sizeof(WORK_REPLY))
        return STATUS_INVALID_PARAMETER;
    Block = w->What & (WORK_STORE | WORK_LOAD);
    if (w->What == 0 || (w->What & ~(WORK_FACTORIAL | WORK_STORE | WORK_LOAD)) ||
        Block == (WORK_STORE | WORK_LOAD))
        return STATUS_INVALID_PARAMETER;
    if ((w->What & WORK_FACTORIAL) && w->Number > LARGEST)
        return STATUS_INVALID_PARAMETER;
    if (Block && (w->Length == 0 || w->Length > BUFFER_SIZE || w->Offset > CARD_MEMORY - w->Length))
        return STATUS_INVALID_PARAMETER;
    if (Block == WORK_STORE && w->Length != In - sizeof(*w))
        return STATUS_INVALID_PARAMETER;
    if (Block == WORK_LOAD && w->Length > Out - sizeof(WORK_REPLY))
        return STATUS_BUFFER_TOO_SMALL;
    return STATUS_SUCCESS;
}

/* Ends the request, or queues it. */
static NTSTATUS Work(DEVICE_EXT *x, PFILE_OBJECT File, PIRP Irp)
{
    NTSTATUS Status = IoAcquireRemoveLock(&x->Common.RemoveLock, Irp);
    KIRQL Irql;

    if (!NT_SUCCESS(Status))
        return CompleteIrp(Irp, Status, 0);
    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    if (x->Common.Holds & HOLD_GONE) {
        Status = STATUS_DEVICE_NOT_CONNECTED;
    } else if (File->FsContext != NULL) {
        Status = STATUS_CANCELLED;
    } else {
        Status = QueueWaiter(x, Irp);
    }
    KeReleaseSpinLock(&x->Common.Lock, Irql);
    if (Status == STATUS_PENDING)
        CardKick(x);
    else
        CompleteWaiter(x, Irp, Status, 0);
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
    case IOCTL_WORK:
        Status = CheckWork(Buffer, In, Out);
        if (!NT_SUCCESS(Status))
            break;
        Status = Work(x, Stack->FileObject, Irp);
        End(x);
        return Status;
    case IOCTL_TOTALS:
        if (Out < sizeof(TOTALS)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&x->Common.Lock, &Irql);
        RtlCopyMemory(Buffer, &x->Totals, sizeof(TOTALS));
        KeReleaseSpinLock(&x->Common.Lock, Irql);
        Information = sizeof(TOTALS);
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

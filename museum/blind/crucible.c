/*
 * crucible.c - the educational card as a store that is filled behind one's back.
 *
 * SUBMIT hands over some bytes for the card's memory and ends at once; they get
 * there in time, or are compared with what is there.  POLL says how far a
 * handle's jobs are, SYNC waits until all of them are done.  SESSIONS says who
 * has how much to do.  What a handle has submitted and the card has not begun
 * is dropped when the handle is closed.
 *
 * The bug: the last reference to a session unlinks it under a FAST_MUTEX; if the handle has been closed
 * meanwhile, that is in the DPC of its last job.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: irql-too-high
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

DEFINE_GUID(INTERFACE_GUID, 0x3f20b107, 0x8c44, 0x4b0e, 0xa1, 0x5d, 0x6e, 0x10, 0x93, 0x27, 0x5c, 0x01);

#define POOL_TAG 'curC'
#define BLOCK 512
#define BUFFER_SIZE BLOCK
#define CARD_MEMORY 4096
#define JOBS_MOST 16

#define EDU_ID 0x00
#define EDU_INTERRUPT 0x24
#define EDU_ACKNOWLEDGE 0x64
#define EDU_DMA_SOURCE 0x80
#define EDU_DMA_TARGET 0x88
#define EDU_DMA_COUNT 0x90
#define EDU_DMA_COMMAND 0x98
#define DMA_RUN 1
#define DMA_TO_MEMORY 2
#define DMA_INTERRUPT 4
#define EDU_DMA_BUFFER 0x40000
#define CAUSE_DMA 0x100

#define IOCTL_SUBMIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb70, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_POLL CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb71, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SYNC CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb72, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SESSIONS CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb73, METHOD_BUFFERED, FILE_ANY_ACCESS)

enum { STORE, COMPARE };

typedef struct {
    ULONG Kind;
    ULONG Offset;
    UCHAR Data[1];
} SUBMIT_REQUEST;

typedef struct {
    ULONG Submitted;
    ULONG Done;
    ULONG Different; /* of those that were compared */
    ULONG Outstanding;
} POLL_REPLY;

typedef struct {
    ULONG Session;
    ULONG Outstanding;
} SESSION_REPLY;

/* One for each handle; it lives until its last job has ended. */
typedef struct {
    LIST_ENTRY Entry; /* in Sessions */
    volatile LONG References;
    ULONG Number;
    BOOLEAN Closing;
    POLL_REPLY Poll;
} SESSION;

typedef struct {
    LIST_ENTRY Entry;
    SESSION *Session; /* with a reference */
    ULONG Kind;
    ULONG Offset;
    ULONG Length;
    UCHAR Data[BLOCK];
} JOB;

typedef struct {
    COMMON Common;
    PDMA_ADAPTER Adapter;
    PUCHAR Buffer;
    PHYSICAL_ADDRESS BufferAddress;
    KDPC Dpc;

    /* With Common.Lock, as sessions' counts; taken before WaitLock: */
    LIST_ENTRY Jobs;
    BOOLEAN Busy;
    JOB *Active; /* that is with the card, until someone takes it to end it */
    KEVENT Idle; /* not Busy */

    FAST_MUTEX SessionsMutex; /* taken before Common.Lock */
    LIST_ENTRY Sessions;
    ULONG LastSession;

    KSPIN_LOCK WaitLock; /* those who SYNC; their key is the session */
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

/* Is it of this session, or anyone's if there is none? */
static BOOLEAN IsWanted(PIRP Irp, PVOID Wanted)
{
    return Wanted == NULL || Irp->Tail.Overlay.DriverContext[0] == Wanted;
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

/* ---- sessions ----------------------------------------------------------------------- */

static VOID DereferenceSession(DEVICE_EXT *x, SESSION *s)
{
    if (InterlockedDecrement(&s->References) != 0)
        return;
#ifdef FIXED
    UNREFERENCED_PARAMETER(x);
#else
    ExAcquireFastMutex(&x->SessionsMutex);
    RemoveEntryList(&s->Entry);
    ExReleaseFastMutex(&x->SessionsMutex);
#endif
    ExFreePoolWithTag(s, POOL_TAG);
}

static NTSTATUS CreateSession(DEVICE_EXT *x, SESSION **Session)
{
    SESSION *s = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*s), POOL_TAG);

    if (s == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(s, sizeof(*s));
    s->References = 1;
    ExAcquireFastMutex(&x->SessionsMutex);
    s->Number = ++x->LastSession;
    InsertTailList(&x->Sessions, &s->Entry);
    ExReleaseFastMutex(&x->SessionsMutex);
    *Session = s;
    return STATUS_SUCCESS;
}

static VOID CloseSession(DEVICE_EXT *x, SESSION *s)
{
#ifdef FIXED
    ExAcquireFastMutex(&x->SessionsMutex);
    RemoveEntryList(&s->Entry);
    ExReleaseFastMutex(&x->SessionsMutex);
#endif
    DereferenceSession(x, s);
}

static NTSTATUS ListSessions(DEVICE_EXT *x, SESSION_REPLY *Reply, ULONG Length, PULONG_PTR Information)
{
    ULONG Room = Length / sizeof(*Reply), Count = 0;
    PLIST_ENTRY e;
    KIRQL Irql;

    ExAcquireFastMutex(&x->SessionsMutex);
    for (e = x->Sessions.Flink; e != &x->Sessions && Count < Room; e = e->Flink) {
        SESSION *s = CONTAINING_RECORD(e, SESSION, Entry);

        Reply[Count].Session = s->Number;
        KeAcquireSpinLock(&x->Common.Lock, &Irql);
        Reply[Count].Outstanding = s->Poll.Outstanding;
        KeReleaseSpinLock(&x->Common.Lock, Irql);
        Count++;
    }
    ExReleaseFastMutex(&x->SessionsMutex);
    *Information = Count * sizeof(*Reply);
    return STATUS_SUCCESS;
}

/* ---- jobs --------------------------------------------------------------------------- */

/* Ends a job that is in no list any more; Counted: it has been done. */
static VOID EndJob(DEVICE_EXT *x, JOB *j, BOOLEAN Counted, BOOLEAN Different)
{
    SESSION *s = j->Session;
    LIST_ENTRY Ready;
    POLL_REPLY Poll;
    KIRQL Irql;
    PIRP Irp;

    InitializeListHead(&Ready);
    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    s->Poll.Done += Counted;
    s->Poll.Different += Different;
    s->Poll.Outstanding--;
    Poll = s->Poll;
    if (Poll.Outstanding == 0)
        while ((Irp = TakeWaiter(x, s)) != NULL)
            InsertTailList(&Ready, &Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&x->Common.Lock, Irql);
    while (!IsListEmpty(&Ready)) {
        Irp = CONTAINING_RECORD(RemoveHeadList(&Ready), IRP, Tail.Overlay.ListEntry);
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &Poll, sizeof(Poll));
        CompleteWaiter(x, Irp, STATUS_SUCCESS, sizeof(Poll));
    }
    ExFreePoolWithTag(j, POOL_TAG);
    DereferenceSession(x, s);
}

/* Gives the card the next job, if it has none and may have one. */
static VOID CardKick(DEVICE_EXT *x)
{
    KIRQL Irql;
    JOB *j;

    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    if (x->Common.Holds == 0 && x->Common.Up && !x->Busy && !IsListEmpty(&x->Jobs)) {
        j = CONTAINING_RECORD(RemoveHeadList(&x->Jobs), JOB, Entry);
        x->Active = j;
        x->Busy = TRUE;
        KeClearEvent(&x->Idle);
        if (j->Kind == STORE) {
            RtlCopyMemory(x->Buffer, j->Data, j->Length);
            WriteCard(x, EDU_DMA_SOURCE, x->BufferAddress.LowPart);
            WriteCard(x, EDU_DMA_TARGET, EDU_DMA_BUFFER + j->Offset);
        } else {
            WriteCard(x, EDU_DMA_SOURCE, EDU_DMA_BUFFER + j->Offset);
            WriteCard(x, EDU_DMA_TARGET, x->BufferAddress.LowPart);
        }
        WriteCard(x, EDU_DMA_COUNT, j->Length);
        WriteCard(x, EDU_DMA_COMMAND, DMA_RUN | DMA_INTERRUPT | (j->Kind == COMPARE ? DMA_TO_MEMORY : 0));
    }
    KeReleaseSpinLock(&x->Common.Lock, Irql);
}

static VOID SetIdle(DEVICE_EXT *x)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    x->Busy = FALSE;
    KeSetEvent(&x->Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&x->Common.Lock, Irql);
}

static VOID NTAPI OnDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    DEVICE_EXT *x = Context;
    BOOLEAN Different;
    JOB *j = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&x->Common.Lock);
    if (x->Active != NULL && x->Common.Up && !(ReadCard(x, EDU_DMA_COMMAND) & DMA_RUN)) {
        j = x->Active;
        x->Active = NULL;
    }
    KeReleaseSpinLockFromDpcLevel(&x->Common.Lock);
    if (j == NULL)
        return;
    Different = j->Kind == COMPARE && RtlCompareMemory(x->Buffer, j->Data, j->Length) != j->Length;
    EndJob(x, j, TRUE, Different);
    SetIdle(x);
    CardKick(x);
}

/* Drops the jobs of a session, or all, that the card has not begun. */
static VOID DropJobs(DEVICE_EXT *x, SESSION *s)
{
    PLIST_ENTRY e, Following;
    LIST_ENTRY Old;
    KIRQL Irql;

    InitializeListHead(&Old);
    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    if (s != NULL)
        s->Closing = TRUE;
    for (e = x->Jobs.Flink; e != &x->Jobs; e = Following) {
        Following = e->Flink;
        if (s == NULL || CONTAINING_RECORD(e, JOB, Entry)->Session == s) {
            RemoveEntryList(e);
            InsertTailList(&Old, e);
        }
    }
    KeReleaseSpinLock(&x->Common.Lock, Irql);
    while (!IsListEmpty(&Old))
        EndJob(x, CONTAINING_RECORD(RemoveHeadList(&Old), JOB, Entry), FALSE, FALSE);
}

static NTSTATUS Submit(DEVICE_EXT *x, SESSION *s, const SUBMIT_REQUEST *r, ULONG Length)
{
    NTSTATUS Status = STATUS_SUCCESS;
    KIRQL Irql;
    JOB *j;

    if (Length <= FIELD_OFFSET(SUBMIT_REQUEST, Data))
        return STATUS_INVALID_PARAMETER;
    Length -= FIELD_OFFSET(SUBMIT_REQUEST, Data);
    if (r->Kind > COMPARE || Length > BLOCK || r->Offset > CARD_MEMORY - Length)
        return STATUS_INVALID_PARAMETER;
    j = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*j), POOL_TAG);
    if (j == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    j->Session = s;
    j->Kind = r->Kind;
    j->Offset = r->Offset;
    j->Length = Length;
    RtlCopyMemory(j->Data, r->Data, Length);
    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    if (x->Common.Holds & HOLD_GONE) {
        Status = STATUS_DEVICE_NOT_CONNECTED;
    } else if (s->Closing) {
        Status = STATUS_FILE_CLOSED;
    } else if (s->Poll.Outstanding == JOBS_MOST) {
        Status = STATUS_DEVICE_BUSY;
    } else {
        InterlockedIncrement(&s->References);
        s->Poll.Submitted++;
        s->Poll.Outstanding++;
        InsertTailList(&x->Jobs, &j->Entry);
    }
    KeReleaseSpinLock(&x->Common.Lock, Irql);
    if (NT_SUCCESS(Status))
        CardKick(x);
    else
        ExFreePoolWithTag(j, POOL_TAG);
    return Status;
}

/* Ends the request, or queues it. */
static NTSTATUS Sync(DEVICE_EXT *x, SESSION *s, PIRP Irp)
{
    NTSTATUS Status = IoAcquireRemoveLock(&x->Common.RemoveLock, Irp);
    KIRQL Irql;

    if (!NT_SUCCESS(Status))
        return CompleteIrp(Irp, Status, 0);
    Irp->Tail.Overlay.DriverContext[0] = s;
    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    if (x->Common.Holds & HOLD_GONE) {
        Status = STATUS_DEVICE_NOT_CONNECTED;
    } else if (s->Closing) {
        Status = STATUS_CANCELLED;
    } else if (s->Poll.Outstanding == 0) {
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &s->Poll, sizeof(s->Poll));
    } else {
        Status = QueueWaiter(x, Irp);
    }
    KeReleaseSpinLock(&x->Common.Lock, Irql);
    if (Status != STATUS_PENDING)
        CompleteWaiter(x, Irp, Status, NT_SUCCESS(Status) ? sizeof(POLL_REPLY) : 0);
    return Status;
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
        KeInsertQueueDpc(&x->Dpc, NULL, NULL);
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
}

/* It interrupts for what it is to do only, and that is over. */
static VOID CardDisable(DEVICE_EXT *x)
{
    UNREFERENCED_PARAMETER(x);
}

static VOID CardAsleep(DEVICE_EXT *x)
{
    UNREFERENCED_PARAMETER(x);
}

/* The job that the card has is over if the card is not there any more. */
static VOID CardLost(DEVICE_EXT *x)
{
    KIRQL Irql;
    JOB *j = NULL;

    KeAcquireSpinLock(&x->Common.Lock, &Irql);
    if (!x->Common.Up || ReadCard(x, EDU_ID) == MAXULONG) {
        j = x->Active;
        x->Active = NULL;
    }
    KeReleaseSpinLock(&x->Common.Lock, Irql);
    if (j != NULL) {
        EndJob(x, j, FALSE, FALSE);
        SetIdle(x);
    }
}

/* Once nothing may be begun: the card ends each transfer within its time, unless it has been taken away. */
static VOID CardDrain(DEVICE_EXT *x)
{
    LARGE_INTEGER Second;

    Second.QuadPart = -10000000LL;
    while (KeWaitForSingleObject(&x->Idle, Executive, KernelMode, FALSE, &Second) == STATUS_TIMEOUT)
        CardLost(x);
}

static VOID CardGone(DEVICE_EXT *x)
{
    CardLost(x);
    CardDrain(x);
    DropJobs(x, NULL);
    FlushWaiters(x, NULL, STATUS_DEVICE_NOT_CONNECTED);
}

static NTSTATUS DevInit(DEVICE_EXT *x)
{
    InitializeListHead(&x->Jobs);
    InitializeListHead(&x->Sessions);
    ExInitializeFastMutex(&x->SessionsMutex);
    KeInitializeEvent(&x->Idle, NotificationEvent, TRUE);
    KeInitializeDpc(&x->Dpc, OnDpc, x);
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
    SESSION *s;

    if (!NT_SUCCESS(Status))
        return CompleteIrp(Irp, Status, 0);
    Status = CreateSession(x, &s);
    if (NT_SUCCESS(Status))
        IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = s;
    CompleteIrp(Irp, Status, 0);
    End(x);
    return Status;
}

static NTSTATUS DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXT *x = Device->DeviceExtension;
    SESSION *s = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;

    DropJobs(x, s);
    FlushWaiters(x, s, STATUS_CANCELLED);
    return CompleteIrp(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS DispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    CloseSession(Device->DeviceExtension, IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext);
    return CompleteIrp(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXT *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    SESSION *s = Stack->FileObject->FsContext;
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR Information = 0;
    NTSTATUS Status = Begin(x);
    KIRQL Irql;

    if (!NT_SUCCESS(Status))
        return CompleteIrp(Irp, Status, 0);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SUBMIT:
        Status = Submit(x, s, Buffer, In);
        break;
    case IOCTL_POLL:
        if (Out < sizeof(POLL_REPLY)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&x->Common.Lock, &Irql);
        RtlCopyMemory(Buffer, &s->Poll, sizeof(POLL_REPLY));
        KeReleaseSpinLock(&x->Common.Lock, Irql);
        Information = sizeof(POLL_REPLY);
        break;
    case IOCTL_SYNC:
        if (Out < sizeof(POLL_REPLY)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        Status = Sync(x, s, Irp);
        End(x);
        return Status;
    case IOCTL_SESSIONS:
        Status = ListSessions(x, Buffer, Out, &Information);
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

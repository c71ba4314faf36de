/*
 * ballot.c - polls among programs.
 *
 * OPEN makes a poll with some choices, which is decided when so many have
 * voted as it asks for.  Each handle may VOTE once in a poll.  AWAIT ends when
 * a poll is decided; TALLY says how it stands.  A poll ends with the handle
 * that has opened it, decided or not.
 *
 * The bug: AWAIT sets its cancel routine and does not look at Irp->Cancel afterwards: a request that is
 * cancelled before ends with its poll only.
 *
 * Device: Root\Ballot
 * Rule: cancellation-missed, request-forgotten
 * Needs: cancel, schedule
 */
#include <initguid.h>
#include <ddk/wdm.h>

typedef enum { PhaseAdded, PhaseStarted, PhaseStopped, PhaseSurprise, PhaseRemoved } PHASE;

typedef struct {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Next; /* the device below */
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING SymbolicName;
    volatile LONG Phase;
} COMMON;

static NTSTATUS CompleteIrp(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

DEFINE_GUID(INTERFACE_GUID, 0x3f20b104, 0x8c44, 0x4b0e, 0xa1, 0x5d, 0x6e, 0x10, 0x93, 0x27, 0x5c, 0x01);

#define POOL_TAG 'llaB'
#define CHOICES_MOST 8
#define QUORUM_MOST 32
#define POLLS_MOST 64

#define IOCTL_OPEN CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb40, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_VOTE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb41, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_AWAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb42, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_TALLY CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb43, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_END CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb44, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct {
    ULONG Choices;
    ULONG Quorum;
} OPEN_REQUEST;

typedef struct {
    ULONG Poll;
    ULONG Choice;
} VOTE_REQUEST;

typedef struct {
    ULONG Poll;
    ULONG Decided;
    ULONG Winner; /* the first of those with the most votes */
    ULONG Votes[CHOICES_MOST];
} RESULT;

typedef struct {
    LIST_ENTRY Entry;
    PFILE_OBJECT Owner;
    OPEN_REQUEST Terms;
    ULONG Voted;
    PFILE_OBJECT Voters[QUORUM_MOST]; /* NULL: a handle that is closed */
    RESULT Result;
    LIST_ENTRY Waiters;
} POLL;

typedef struct {
    COMMON Common;
    KSPIN_LOCK Lock; /* all below, and the requests that wait */
    BOOLEAN Gone;
    ULONG Last; /* number that was given to a poll */
    ULONG Count;
    LIST_ENTRY Polls;
} DEVICE_EXT;

static DRIVER_CANCEL CancelWaiter;

/* ---- those who wait ----------------------------------------------------------------- */

/* Each request that waits holds a remove lock. */
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
    KeAcquireSpinLock(&x->Lock, &Irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&x->Lock, Irql);
    CompleteWaiter(x, Irp, STATUS_CANCELLED, 0);
}

/* With the lock held: moves a poll's requests, or those of one handle, to a list of the caller's. */
static VOID CollectWaiters(POLL *p, PFILE_OBJECT File, PLIST_ENTRY Ready)
{
    PLIST_ENTRY e, Following;

    for (e = p->Waiters.Flink; e != &p->Waiters; e = Following) {
        PIRP Irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        Following = e->Flink;
        if (File != NULL && IoGetCurrentIrpStackLocation(Irp)->FileObject != File)
            continue;
        RemoveEntryList(e);
        if (IoSetCancelRoutine(Irp, NULL) != NULL)
            InsertTailList(Ready, e);
        else
            InitializeListHead(e); /* its cancel routine takes it off this one */
    }
}

static VOID CompleteCollected(DEVICE_EXT *x, PLIST_ENTRY Ready, const RESULT *Result, NTSTATUS Status)
{
    while (!IsListEmpty(Ready)) {
        PIRP Irp = CONTAINING_RECORD(RemoveHeadList(Ready), IRP, Tail.Overlay.ListEntry);

        if (Result != NULL)
            RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, Result, sizeof(*Result));
        CompleteWaiter(x, Irp, Status, Result != NULL ? sizeof(*Result) : 0);
    }
}

/* ---- polls: with the lock held -------------------------------------------------------- */

static POLL *FindPoll(DEVICE_EXT *x, ULONG Number)
{
    PLIST_ENTRY e;

    for (e = x->Polls.Flink; e != &x->Polls; e = e->Flink) {
        POLL *p = CONTAINING_RECORD(e, POLL, Entry);

        if (p->Result.Poll == Number)
            return p;
    }
    return NULL;
}

static NTSTATUS CastVote(POLL *p, PFILE_OBJECT File, ULONG Choice)
{
    ULONG i;

    if (Choice >= p->Terms.Choices)
        return STATUS_INVALID_PARAMETER;
    if (p->Result.Decided)
        return STATUS_INVALID_DEVICE_STATE;
    for (i = 0; i < p->Voted; i++)
        if (p->Voters[i] == File)
            return STATUS_OBJECT_NAME_COLLISION;
    p->Voters[p->Voted++] = File;
    p->Result.Votes[Choice]++;
    for (i = 0; i < p->Terms.Choices; i++)
        if (p->Result.Votes[i] > p->Result.Votes[p->Result.Winner])
            p->Result.Winner = i;
    if (p->Voted == p->Terms.Quorum)
        p->Result.Decided = 1;
    return STATUS_SUCCESS;
}

static VOID ForgetVoter(POLL *p, PFILE_OBJECT File)
{
    ULONG i;

    for (i = 0; i < p->Voted; i++)
        if (p->Voters[i] == File)
            p->Voters[i] = NULL;
}

/* ---- what is asked -------------------------------------------------------------------- */

static NTSTATUS OpenPoll(DEVICE_EXT *x, PFILE_OBJECT File, const OPEN_REQUEST *Terms, PULONG Number)
{
    NTSTATUS Status = STATUS_SUCCESS;
    KIRQL Irql;
    POLL *p;

    if (Terms->Choices < 2 || Terms->Choices > CHOICES_MOST || Terms->Quorum < 1 ||
        Terms->Quorum > QUORUM_MOST)
        return STATUS_INVALID_PARAMETER;
    p = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*p), POOL_TAG);
    if (p == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(p, sizeof(*p));
    p->Owner = File;
    p->Terms = *Terms;
    InitializeListHead(&p->Waiters);
    KeAcquireSpinLock(&x->Lock, &Irql);
    if (x->Gone) {
        Status = STATUS_DEVICE_NOT_CONNECTED;
    } else if (File->FsContext != NULL) {
        Status = STATUS_FILE_CLOSED;
    } else if (x->Count == POLLS_MOST) {
        Status = STATUS_QUOTA_EXCEEDED;
    } else {
        x->Count++;
        p->Result.Poll = ++x->Last;
        InsertTailList(&x->Polls, &p->Entry);
        *Number = p->Result.Poll;
    }
    KeReleaseSpinLock(&x->Lock, Irql);
    if (!NT_SUCCESS(Status))
        ExFreePoolWithTag(p, POOL_TAG);
    return Status;
}

static NTSTATUS Vote(DEVICE_EXT *x, PFILE_OBJECT File, const VOTE_REQUEST *v)
{
    LIST_ENTRY Ready;
    NTSTATUS Status;
    RESULT Result;
    KIRQL Irql;
    POLL *p;

    InitializeListHead(&Ready);
    KeAcquireSpinLock(&x->Lock, &Irql);
    p = FindPoll(x, v->Poll);
    if (p == NULL) {
        Status = STATUS_NOT_FOUND;
    } else if (File->FsContext != NULL) {
        Status = STATUS_FILE_CLOSED;
    } else {
        Status = CastVote(p, File, v->Choice);
        if (NT_SUCCESS(Status) && p->Result.Decided) {
            Result = p->Result;
            CollectWaiters(p, NULL, &Ready);
        }
    }
    KeReleaseSpinLock(&x->Lock, Irql);
    CompleteCollected(x, &Ready, &Result, STATUS_SUCCESS);
    return Status;
}

/* Ends the request, or queues it. */
static NTSTATUS Await(DEVICE_EXT *x, PFILE_OBJECT File, PIRP Irp)
{
    RESULT *Result = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Common.RemoveLock, Irp);
    BOOLEAN Queued = FALSE, Cancelled = FALSE;
    KIRQL Irql;
    POLL *p;

    if (!NT_SUCCESS(Status))
        return CompleteIrp(Irp, Status, 0);
    KeAcquireSpinLock(&x->Lock, &Irql);
    p = FindPoll(x, Result->Poll);
    if (p == NULL) {
        Status = STATUS_NOT_FOUND;
    } else if (File->FsContext != NULL) {
        Status = STATUS_CANCELLED; /* the handle is being closed */
    } else if (p->Result.Decided) {
        *Result = p->Result;
    } else {
        IoMarkIrpPending(Irp);
        InsertTailList(&p->Waiters, &Irp->Tail.Overlay.ListEntry);
        IoSetCancelRoutine(Irp, CancelWaiter);
        Queued = TRUE;
#ifdef FIXED
        if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
            RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
            Cancelled = TRUE;
        }
#endif
    }
    KeReleaseSpinLock(&x->Lock, Irql);
    if (Cancelled)
        CompleteWaiter(x, Irp, STATUS_CANCELLED, 0);
    if (Queued)
        return STATUS_PENDING;
    CompleteWaiter(x, Irp, Status, NT_SUCCESS(Status) ? sizeof(*Result) : 0);
    return Status;
}

static NTSTATUS Tally(DEVICE_EXT *x, RESULT *Result)
{
    NTSTATUS Status = STATUS_SUCCESS;
    KIRQL Irql;
    POLL *p;

    KeAcquireSpinLock(&x->Lock, &Irql);
    p = FindPoll(x, Result->Poll);
    if (p != NULL)
        *Result = p->Result;
    else
        Status = STATUS_NOT_FOUND;
    KeReleaseSpinLock(&x->Lock, Irql);
    return Status;
}

static NTSTATUS EndPoll(DEVICE_EXT *x, PFILE_OBJECT File, ULONG Number)
{
    NTSTATUS Status = STATUS_SUCCESS;
    LIST_ENTRY Ready;
    KIRQL Irql;
    POLL *p;

    InitializeListHead(&Ready);
    KeAcquireSpinLock(&x->Lock, &Irql);
    p = FindPoll(x, Number);
    if (p == NULL) {
        Status = STATUS_NOT_FOUND;
    } else if (p->Owner != File) {
        Status = STATUS_ACCESS_DENIED;
    } else {
        CollectWaiters(p, NULL, &Ready);
        RemoveEntryList(&p->Entry);
        x->Count--;
    }
    KeReleaseSpinLock(&x->Lock, Irql);
    if (!NT_SUCCESS(Status))
        return Status;
    ExFreePoolWithTag(p, POOL_TAG);
    CompleteCollected(x, &Ready, NULL, STATUS_REQUEST_ABORTED);
    return STATUS_SUCCESS;
}

/* Of a handle that is closed, or of all: polls that are ended, and requests that need not wait any more. */
static VOID Retire(DEVICE_EXT *x, PFILE_OBJECT File, NTSTATUS Status)
{
    LIST_ENTRY Ready, Aborted, Old;
    PLIST_ENTRY e, Following;
    KIRQL Irql;

    InitializeListHead(&Ready);
    InitializeListHead(&Aborted);
    InitializeListHead(&Old);
    KeAcquireSpinLock(&x->Lock, &Irql);
    if (File != NULL)
        File->FsContext = x; /* it is being closed: nothing new */
    else
        x->Gone = TRUE;
    for (e = x->Polls.Flink; e != &x->Polls; e = Following) {
        POLL *p = CONTAINING_RECORD(e, POLL, Entry);

        Following = e->Flink;
        CollectWaiters(p, File, &Ready);
        if (File != NULL)
            ForgetVoter(p, File);
        if (File == NULL || p->Owner == File) {
            CollectWaiters(p, NULL, &Aborted);
            RemoveEntryList(e);
            x->Count--;
            InsertTailList(&Old, e);
        }
    }
    KeReleaseSpinLock(&x->Lock, Irql);
    while (!IsListEmpty(&Old))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&Old), POLL, Entry), POOL_TAG);
    CompleteCollected(x, &Ready, NULL, Status);
    CompleteCollected(x, &Aborted, NULL, STATUS_REQUEST_ABORTED);
}

/* ---- the device ------------------------------------------------------------------- */

static NTSTATUS DevInit(DEVICE_EXT *x)
{
    KeInitializeSpinLock(&x->Lock);
    InitializeListHead(&x->Polls);
    return STATUS_SUCCESS;
}

static NTSTATUS DevStart(DEVICE_EXT *x)
{
    UNREFERENCED_PARAMETER(x);
    return STATUS_SUCCESS;
}

static VOID DevStop(DEVICE_EXT *x)
{
    UNREFERENCED_PARAMETER(x);
}

static VOID DevGone(DEVICE_EXT *x)
{
    Retire(x, NULL, STATUS_DEVICE_NOT_CONNECTED);
}

static VOID DevFree(DEVICE_EXT *x)
{
    UNREFERENCED_PARAMETER(x);
}

/* ---- Plug and Play, power ------------------------------------------------- */

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
    NTSTATUS Status = STATUS_UNSUCCESSFUL;

    if (IoForwardIrpSynchronously(x->Common.Next, Irp))
        Status = Irp->IoStatus.Status;
    if (NT_SUCCESS(Status))
        Status = DevStart(x);
    if (NT_SUCCESS(Status)) {
        InterlockedExchange(&x->Common.Phase, PhaseStarted);
        IoSetDeviceInterfaceState(&x->Common.SymbolicName, TRUE);
    }
    CompleteIrp(Irp, Status, Irp->IoStatus.Information);
    IoReleaseRemoveLock(&x->Common.RemoveLock, Irp);
    return Status;
}

static NTSTATUS PnpRemove(DEVICE_EXT *x, PIRP Irp)
{
    PDEVICE_OBJECT Device = x->Common.Self;
    NTSTATUS Status;

    if (InterlockedExchange(&x->Common.Phase, PhaseRemoved) != PhaseSurprise)
        IoSetDeviceInterfaceState(&x->Common.SymbolicName, FALSE);
    DevGone(x);
    IoReleaseRemoveLockAndWait(&x->Common.RemoveLock, Irp);
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
    case IRP_MN_STOP_DEVICE:
        InterlockedExchange(&x->Common.Phase, PhaseStopped);
        DevStop(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return ForwardAndRelease(x, Irp);
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return ForwardAndRelease(x, Irp);
    case IRP_MN_SURPRISE_REMOVAL:
        InterlockedExchange(&x->Common.Phase, PhaseSurprise);
        IoSetDeviceInterfaceState(&x->Common.SymbolicName, FALSE);
        DevGone(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return ForwardAndRelease(x, Irp);
    case IRP_MN_REMOVE_DEVICE:
        return PnpRemove(x, Irp);
    default:
        return ForwardAndRelease(x, Irp);
    }
}

static NTSTATUS DispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXT *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Common.RemoveLock, Irp);

    PoStartNextPowerIrp(Irp);
    if (!NT_SUCCESS(Status))
        return CompleteIrp(Irp, Status, 0);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = PoCallDriver(x->Common.Next, Irp);
    IoReleaseRemoveLock(&x->Common.RemoveLock, Irp);
    return Status;
}

static NTSTATUS DispatchSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXT *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Common.RemoveLock, Irp);

    return NT_SUCCESS(Status) ? ForwardAndRelease(x, Irp) : CompleteIrp(Irp, Status, 0);
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
    IoInitializeRemoveLock(&x->Common.RemoveLock, POOL_TAG, 0, 0);
    Status = IoRegisterDeviceInterface(Pdo, &INTERFACE_GUID, NULL, &x->Common.SymbolicName);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Self);
        return Status;
    }
    x->Common.Next = IoAttachDeviceToDeviceStack(Self, Pdo);
    if (x->Common.Next == NULL) {
        RtlFreeUnicodeString(&x->Common.SymbolicName);
        IoDeleteDevice(Self);
        return STATUS_NO_SUCH_DEVICE;
    }
    Status = DevInit(x);
    if (!NT_SUCCESS(Status)) {
        IoDetachDevice(x->Common.Next);
        RtlFreeUnicodeString(&x->Common.SymbolicName);
        IoDeleteDevice(Self);
        return Status;
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
    Retire(Device->DeviceExtension, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return CompleteIrp(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS DispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return CompleteIrp(Irp, STATUS_SUCCESS, 0);
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
    OPEN_REQUEST Terms;

    if (!NT_SUCCESS(Status))
        return CompleteIrp(Irp, Status, 0);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_OPEN:
        if (In < sizeof(OPEN_REQUEST) || Out < sizeof(ULONG)) {
            Status = STATUS_INVALID_PARAMETER;
            break;
        }
        Terms = *(OPEN_REQUEST *)Buffer;
        Status = OpenPoll(x, Stack->FileObject, &Terms, Buffer);
        Information = NT_SUCCESS(Status) ? sizeof(ULONG) : 0;
        break;
    case IOCTL_VOTE:
        Status = In < sizeof(VOTE_REQUEST) ? STATUS_INVALID_PARAMETER : Vote(x, Stack->FileObject, Buffer);
        break;
    case IOCTL_AWAIT:
        if (In < sizeof(ULONG) || Out < sizeof(RESULT)) {
            Status = STATUS_INVALID_PARAMETER;
            break;
        }
        Status = Await(x, Stack->FileObject, Irp);
        End(x);
        return Status;
    case IOCTL_TALLY:
        if (In < sizeof(ULONG) || Out < sizeof(RESULT)) {
            Status = STATUS_INVALID_PARAMETER;
            break;
        }
        Status = Tally(x, Buffer);
        Information = NT_SUCCESS(Status) ? sizeof(RESULT) : 0;
        break;
    case IOCTL_END:
        Status = In < sizeof(ULONG) ? STATUS_INVALID_PARAMETER
                                    : EndPoll(x, Stack->FileObject, *(PULONG)Buffer);
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

/*
 * viaduct.c - messages between units.
 *
 * Each device is a unit with a number.  A program that has opened one SENDs
 * messages to any other by its number; RECEIVE gets the next message for the
 * unit that is open, and waits for it.  A unit keeps some messages that no one
 * has received yet.  PEERS says which units there are.
 *
 * The bug: SEND finds the other unit in the list, leaves the list's mutex, and acquires the unit's remove lock
 * then: the unit may have been removed between.
 *
 * Device: Root\Viaduct
 * Rule: remove-lock-not-initialized, use-after-free
 * Needs: ioctl, removal, schedule
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

DEFINE_GUID(INTERFACE_GUID, 0x3f20b103, 0x8c44, 0x4b0e, 0xa1, 0x5d, 0x6e, 0x10, 0x93, 0x27, 0x5c, 0x01);

#define POOL_TAG 'daiV'
#define MESSAGE_MOST 256
#define MAILBOX_MOST 16

#define IOCTL_SELF CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb30, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SEND CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb31, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_RECEIVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb32, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_PEERS CTL_CODE(FILE_DEVICE_UNKNOWN, 0xb33, METHOD_BUFFERED, FILE_ANY_ACCESS)

/* SEND: to whom; RECEIVE: from whom.  The bytes are behind it. */
typedef struct {
    ULONG Unit;
    ULONG Sequence; /* of the unit that sends */
} MESSAGE_HEADER;

#define MESSAGE_SIZE (sizeof(MESSAGE_HEADER) + MESSAGE_MOST)

typedef struct {
    LIST_ENTRY Entry;
    ULONG Length;
    MESSAGE_HEADER Header;
    UCHAR Data[MESSAGE_MOST];
} MESSAGE;

typedef struct {
    COMMON Common;
    LIST_ENTRY UnitEntry; /* in Units, while Listed */
    BOOLEAN Listed;
    ULONG Unit;
    volatile LONG Sequence;
    KSPIN_LOCK Lock; /* the mailbox, Gone, and who may wait; taken before WaitLock */
    BOOLEAN Gone;
    ULONG Messages;
    LIST_ENTRY Mailbox;
    KSPIN_LOCK WaitLock;
    LIST_ENTRY WaitList;
} DEVICE_EXT;

static FAST_MUTEX UnitsMutex;
static LIST_ENTRY Units; /* sorted by their numbers */

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

/* ---- units ------------------------------------------------------------------------ */

/* Gives the unit the lowest number that is free. */
static VOID EnlistUnit(DEVICE_EXT *x)
{
    PLIST_ENTRY e;
    ULONG Number = 1;

    ExAcquireFastMutex(&UnitsMutex);
    for (e = Units.Flink; e != &Units; e = e->Flink) {
        if (CONTAINING_RECORD(e, DEVICE_EXT, UnitEntry)->Unit != Number)
            break;
        Number++;
    }
    x->Unit = Number;
    InsertTailList(e, &x->UnitEntry); /* before it */
    x->Listed = TRUE;
    ExReleaseFastMutex(&UnitsMutex);
}

static VOID DelistUnit(DEVICE_EXT *x)
{
    ExAcquireFastMutex(&UnitsMutex);
    if (x->Listed)
        RemoveEntryList(&x->UnitEntry);
    x->Listed = FALSE;
    ExReleaseFastMutex(&UnitsMutex);
}

/* The unit, which is kept by a remove lock, or NULL. */
static DEVICE_EXT *ReferenceUnit(ULONG Number)
{
    DEVICE_EXT *Found = NULL;
    PLIST_ENTRY e;

    ExAcquireFastMutex(&UnitsMutex);
    for (e = Units.Flink; e != &Units; e = e->Flink) {
        DEVICE_EXT *u = CONTAINING_RECORD(e, DEVICE_EXT, UnitEntry);

        if (u->Unit == Number) {
            Found = u;
            break;
        }
    }
#ifdef FIXED
    if (Found != NULL && !NT_SUCCESS(IoAcquireRemoveLock(&Found->Common.RemoveLock, ReferenceUnit)))
        Found = NULL;
    ExReleaseFastMutex(&UnitsMutex);
#else
    ExReleaseFastMutex(&UnitsMutex);
    if (Found != NULL && !NT_SUCCESS(IoAcquireRemoveLock(&Found->Common.RemoveLock, ReferenceUnit)))
        Found = NULL;
#endif
    return Found;
}

static VOID DereferenceUnit(DEVICE_EXT *u)
{
    IoReleaseRemoveLock(&u->Common.RemoveLock, ReferenceUnit);
}

static NTSTATUS Peers(PULONG Buffer, ULONG Length, PULONG_PTR Information)
{
    ULONG Room = Length / sizeof(ULONG), Count = 0;
    PLIST_ENTRY e;

    ExAcquireFastMutex(&UnitsMutex);
    for (e = Units.Flink; e != &Units; e = e->Flink) {
        if (Count == Room)
            break;
        Buffer[Count++] = CONTAINING_RECORD(e, DEVICE_EXT, UnitEntry)->Unit;
    }
    ExReleaseFastMutex(&UnitsMutex);
    *Information = Count * sizeof(ULONG);
    return e == &Units ? STATUS_SUCCESS : STATUS_BUFFER_OVERFLOW;
}

/* ---- messages --------------------------------------------------------------------- */

static ULONG_PTR FillMessage(PIRP Irp, const MESSAGE *m)
{
    PUCHAR Out = Irp->AssociatedIrp.SystemBuffer;

    RtlCopyMemory(Out, &m->Header, sizeof(m->Header));
    RtlCopyMemory(Out + sizeof(m->Header), m->Data, m->Length);
    return sizeof(m->Header) + m->Length;
}

static NTSTATUS Send(DEVICE_EXT *x, const UCHAR *In, ULONG Length)
{
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG_PTR Information = 0;
    PIRP Receiver = NULL;
    DEVICE_EXT *u;
    MESSAGE *m;
    KIRQL Irql;

    if (Length < sizeof(MESSAGE_HEADER) || Length > MESSAGE_SIZE)
        return STATUS_INVALID_PARAMETER;
    m = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*m), POOL_TAG);
    if (m == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    m->Length = Length - sizeof(MESSAGE_HEADER);
    m->Header.Unit = x->Unit;
    m->Header.Sequence = (ULONG)InterlockedIncrement(&x->Sequence);
    RtlCopyMemory(m->Data, In + sizeof(MESSAGE_HEADER), m->Length);

    u = ReferenceUnit(((const MESSAGE_HEADER *)In)->Unit);
    if (u == NULL) {
        ExFreePoolWithTag(m, POOL_TAG);
        return STATUS_NO_SUCH_DEVICE;
    }
    KeAcquireSpinLock(&u->Lock, &Irql);
    if (u->Gone) {
        Status = STATUS_NO_SUCH_DEVICE;
    } else if ((Receiver = TakeWaiter(u, NULL)) != NULL) {
        Information = FillMessage(Receiver, m);
    } else if (u->Messages == MAILBOX_MOST) {
        Status = STATUS_DEVICE_BUSY;
    } else {
        InsertTailList(&u->Mailbox, &m->Entry);
        u->Messages++;
        m = NULL;
    }
    KeReleaseSpinLock(&u->Lock, Irql);
    if (Receiver != NULL)
        CompleteWaiter(u, Receiver, STATUS_SUCCESS, Information);
    if (m != NULL)
        ExFreePoolWithTag(m, POOL_TAG);
    DereferenceUnit(u);
    return Status;
}

/* Ends the request, or queues it. */
static NTSTATUS Receive(DEVICE_EXT *x, PFILE_OBJECT File, PIRP Irp)
{
    NTSTATUS Status = IoAcquireRemoveLock(&x->Common.RemoveLock, Irp);
    ULONG_PTR Information = 0;
    MESSAGE *m = NULL;
    KIRQL Irql;

    if (!NT_SUCCESS(Status))
        return CompleteIrp(Irp, Status, 0);
    KeAcquireSpinLock(&x->Lock, &Irql);
    if (x->Gone) {
        Status = STATUS_DEVICE_NOT_CONNECTED;
    } else if (File->FsContext != NULL) {
        Status = STATUS_CANCELLED; /* the handle is being closed */
    } else if (x->Messages != 0) {
        m = CONTAINING_RECORD(RemoveHeadList(&x->Mailbox), MESSAGE, Entry);
        x->Messages--;
    } else {
        Status = QueueWaiter(x, Irp);
    }
    KeReleaseSpinLock(&x->Lock, Irql);
    if (m != NULL) {
        Information = FillMessage(Irp, m);
        ExFreePoolWithTag(m, POOL_TAG);
    }
    if (Status != STATUS_PENDING)
        CompleteWaiter(x, Irp, Status, Information);
    return Status;
}

/* ---- the device ------------------------------------------------------------------- */

static NTSTATUS DevInit(DEVICE_EXT *x)
{
    KeInitializeSpinLock(&x->Lock);
    InitializeListHead(&x->Mailbox);
    InitWaiters(x);
    EnlistUnit(x);
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
    LIST_ENTRY Old;
    KIRQL Irql;

    DelistUnit(x);
    InitializeListHead(&Old);
    KeAcquireSpinLock(&x->Lock, &Irql);
    x->Gone = TRUE;
    while (!IsListEmpty(&x->Mailbox))
        InsertTailList(&Old, RemoveHeadList(&x->Mailbox));
    x->Messages = 0;
    KeReleaseSpinLock(&x->Lock, Irql);
    while (!IsListEmpty(&Old))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&Old), MESSAGE, Entry), POOL_TAG);
    FlushWaiters(x, NULL, STATUS_DEVICE_NOT_CONNECTED);
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
    DEVICE_EXT *x = Device->DeviceExtension;
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    KIRQL Irql;

    KeAcquireSpinLock(&x->Lock, &Irql);
    File->FsContext = x; /* it is being closed: no one waits any more */
    KeReleaseSpinLock(&x->Lock, Irql);
    FlushWaiters(x, File, STATUS_CANCELLED);
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

    if (!NT_SUCCESS(Status))
        return CompleteIrp(Irp, Status, 0);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SELF:
        if (Out < sizeof(ULONG)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        *(PULONG)Buffer = x->Unit;
        Information = sizeof(ULONG);
        break;
    case IOCTL_SEND:
        Status = Send(x, Buffer, In);
        break;
    case IOCTL_RECEIVE:
        if (Out < MESSAGE_SIZE) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        Status = Receive(x, Stack->FileObject, Irp);
        End(x);
        return Status;
    case IOCTL_PEERS:
        Status = Peers(Buffer, Out, &Information);
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
    }
    CompleteIrp(Irp, Status, Information);
    End(x);
    return Status;
}

#define GLOBALS             \
    ExInitializeFastMutex(&UnitsMutex); \
    InitializeListHead(&Units);
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

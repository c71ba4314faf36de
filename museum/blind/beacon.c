/*
 * beacon.c - seals data: a checksum for what an application hands in.
 *
 * Sealing is for a system thread: requests wait in a queue until the device's
 * work item takes them, one after the other.  Each handle remembers its last
 * seals.
 *
 * The bug: the work item finds the queue empty, releases the lock, and takes it again to say that it is not
 * working any more: a request that is queued between queues no work item.
 *
 * Device: Root\Beacon
 * Rule: request-forgotten
 * Needs: schedule
 */
#include <initguid.h>
#include <ddk/wdm.h>

typedef enum { StateAdded, StateStarted, StateStopped, StateGone, StateDeleted } PNP_STATE;

typedef struct {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    volatile LONG State;
} PNP_PART;

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

DEFINE_GUID(INTERFACE_GUID, 0x9a41d704, 0x8c44, 0x4b0e, 0xa1, 0x5d, 0x6e, 0x10, 0x93, 0x27, 0x5c, 0x01);

#define POOL_TAG 'caeB'
#define DATA_MOST 1024
#define SEALS_MOST 16 /* that a handle remembers */

#define IOCTL_SEAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0xc40, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_HISTORY CTL_CODE(FILE_DEVICE_UNKNOWN, 0xc41, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_FORGET CTL_CODE(FILE_DEVICE_UNKNOWN, 0xc42, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct {
    ULONG Number;
    ULONG Checksum;
} SEAL;

typedef struct {
    LIST_ENTRY Link;
    SEAL Seal;
} RECORD;

/* What a handle is; with the device's lock. */
typedef struct {
    BOOLEAN Closed;
    ULONG Count;
    LIST_ENTRY Records; /* the oldest first */
} HANDLE_CONTEXT;

typedef struct {
    PNP_PART Pnp;
    PIO_WORKITEM WorkItem;
    NPAGED_LOOKASIDE_LIST Records;

    KSPIN_LOCK Lock;
    BOOLEAN Closed;
    BOOLEAN Working; /* the work item is queued, or runs */
    LIST_ENTRY Queue;
    ULONG LastNumber;
} DEVICE_EXTENSION;

/* ---- the queue --------------------------------------------------------------------- */

static VOID BeaconEnd(DEVICE_EXTENSION *x, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Finish(Irp, Status, Information);
    IoReleaseRemoveLock(&x->Pnp.RemoveLock, Irp);
}

static VOID NTAPI BeaconCancel(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    KIRQL Irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&x->Lock, &Irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&x->Lock, Irql);
    BeaconEnd(x, Irp, STATUS_CANCELLED, 0);
}

/* The next request (of this handle, or any one's), which is the caller's from then on; with the lock held. */
static PIRP BeaconDequeue(DEVICE_EXTENSION *x, PFILE_OBJECT File)
{
    PLIST_ENTRY e, Next;

    for (e = x->Queue.Flink; e != &x->Queue; e = Next) {
        PIRP Irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        Next = e->Flink;
        if (File != NULL && IoGetCurrentIrpStackLocation(Irp)->FileObject != File)
            continue;
        RemoveEntryList(e);
        if (IoSetCancelRoutine(Irp, NULL) != NULL)
            return Irp;
        InitializeListHead(e); /* its cancel routine is under way */
    }
    return NULL;
}

static VOID BeaconFlush(DEVICE_EXTENSION *x, PFILE_OBJECT File, NTSTATUS Status)
{
    for (;;) {
        KIRQL Irql;
        PIRP Irp;

        KeAcquireSpinLock(&x->Lock, &Irql);
        Irp = BeaconDequeue(x, File);
        KeReleaseSpinLock(&x->Lock, Irql);
        if (Irp == NULL)
            break;
        BeaconEnd(x, Irp, Status, 0);
    }
}

/* ---- the work ------------------------------------------------------------------------ */

static ULONG BeaconChecksum(const UCHAR *Bytes, ULONG Length)
{
    ULONG c = 0xffffffff, i, k;

    for (i = 0; i < Length; i++) {
        c ^= Bytes[i];
        for (k = 0; k < 8; k++)
            c = (c >> 1) ^ (c & 1 ? 0xedb88320 : 0);
    }
    return ~c;
}

static VOID BeaconSeal(DEVICE_EXTENSION *x, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    HANDLE_CONTEXT *h = Stack->FileObject->FsContext;
    RECORD *Old = NULL, *New = ExAllocateFromNPagedLookasideList(&x->Records);
    SEAL Seal;
    KIRQL Irql;

    Seal.Checksum = BeaconChecksum(Irp->AssociatedIrp.SystemBuffer,
                                   Stack->Parameters.DeviceIoControl.InputBufferLength);
    KeAcquireSpinLock(&x->Lock, &Irql);
    Seal.Number = ++x->LastNumber;
    if (New != NULL) { /* else it is not remembered */
        New->Seal = Seal;
        InsertTailList(&h->Records, &New->Link);
        if (h->Count == SEALS_MOST)
            Old = CONTAINING_RECORD(RemoveHeadList(&h->Records), RECORD, Link);
        else
            h->Count++;
    }
    KeReleaseSpinLock(&x->Lock, Irql);
    if (Old != NULL)
        ExFreeToNPagedLookasideList(&x->Records, Old);
    RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &Seal, sizeof(Seal));
    BeaconEnd(x, Irp, STATUS_SUCCESS, sizeof(Seal));
}

static VOID NTAPI BeaconWork(PDEVICE_OBJECT Device, PVOID Context)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    KIRQL Irql;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Context);
    for (;;) {
        KeAcquireSpinLock(&x->Lock, &Irql);
        Irp = BeaconDequeue(x, NULL);
#ifdef FIXED
        if (Irp == NULL)
            x->Working = FALSE;
#endif
        KeReleaseSpinLock(&x->Lock, Irql);
        if (Irp == NULL)
            break;
        BeaconSeal(x, Irp);
    }
#ifndef FIXED
    KeAcquireSpinLock(&x->Lock, &Irql);
    x->Working = FALSE;
    KeReleaseSpinLock(&x->Lock, Irql);
#endif
    IoReleaseRemoveLock(&x->Pnp.RemoveLock, BeaconWork);
}

/* ---- the device ------------------------------------------------------------------------ */

static NTSTATUS BeaconInit(DEVICE_EXTENSION *x)
{
    KeInitializeSpinLock(&x->Lock);
    InitializeListHead(&x->Queue);
    x->WorkItem = IoAllocateWorkItem(x->Pnp.Self);
    if (x->WorkItem == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    ExInitializeNPagedLookasideList(&x->Records, NULL, NULL, 0, sizeof(RECORD), POOL_TAG, 0);
    return STATUS_SUCCESS;
}

static NTSTATUS BeaconStart(DEVICE_EXTENSION *x)
{
    UNREFERENCED_PARAMETER(x);
    return STATUS_SUCCESS;
}

static VOID BeaconDrop(DEVICE_EXTENSION *x)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Lock, &Irql);
    x->Closed = TRUE;
    KeReleaseSpinLock(&x->Lock, Irql);
    BeaconFlush(x, NULL, STATUS_DEVICE_NOT_CONNECTED);
}

static VOID BeaconFree(DEVICE_EXTENSION *x)
{
    ExDeleteNPagedLookasideList(&x->Records);
    IoFreeWorkItem(x->WorkItem);
}

/* ---- Plug and Play, power ------------------------------------------------ */

static NTSTATUS BeaconPassDown(DEVICE_EXTENSION *x, PIRP Irp)
{
    NTSTATUS Status;

    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(x->Pnp.Lower, Irp);
    IoReleaseRemoveLock(&x->Pnp.RemoveLock, Irp);
    return Status;
}

static NTSTATUS BeaconPnpStart(DEVICE_EXTENSION *x, PIRP Irp)
{
    NTSTATUS Status = STATUS_UNSUCCESSFUL;

    if (IoForwardIrpSynchronously(x->Pnp.Lower, Irp))
        Status = Irp->IoStatus.Status;
    if (NT_SUCCESS(Status))
        Status = BeaconStart(x);
    if (NT_SUCCESS(Status)) {
        InterlockedExchange(&x->Pnp.State, StateStarted);
        IoSetDeviceInterfaceState(&x->Pnp.Interface, TRUE);
    }
    Finish(Irp, Status, Irp->IoStatus.Information);
    IoReleaseRemoveLock(&x->Pnp.RemoveLock, Irp);
    return Status;
}

static NTSTATUS BeaconPnpRemove(DEVICE_EXTENSION *x, PIRP Irp)
{
    LONG Previous = InterlockedExchange(&x->Pnp.State, StateDeleted);
    PDEVICE_OBJECT Lower = x->Pnp.Lower;
    NTSTATUS Status;

    if (Previous != StateGone) {
        IoSetDeviceInterfaceState(&x->Pnp.Interface, FALSE);
        BeaconDrop(x);
    }
    IoReleaseRemoveLockAndWait(&x->Pnp.RemoveLock, Irp);
    BeaconFree(x);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(Lower, Irp);
    RtlFreeUnicodeString(&x->Pnp.Interface);
    IoDetachDevice(Lower);
    IoDeleteDevice(x->Pnp.Self);
    return Status;
}

static NTSTATUS NTAPI BeaconDispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Pnp.RemoveLock, Irp);

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    switch (IoGetCurrentIrpStackLocation(Irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        return BeaconPnpStart(x, Irp);
    case IRP_MN_REMOVE_DEVICE:
        return BeaconPnpRemove(x, Irp);
    case IRP_MN_STOP_DEVICE:
        InterlockedExchange(&x->Pnp.State, StateStopped);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        InterlockedExchange(&x->Pnp.State, StateGone);
        IoSetDeviceInterfaceState(&x->Pnp.Interface, FALSE);
        BeaconDrop(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    default:
        break;
    }
    return BeaconPassDown(x, Irp);
}

static NTSTATUS NTAPI BeaconDispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Pnp.RemoveLock, Irp);

    PoStartNextPowerIrp(Irp);
    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = PoCallDriver(x->Pnp.Lower, Irp);
    IoReleaseRemoveLock(&x->Pnp.RemoveLock, Irp);
    return Status;
}

static NTSTATUS NTAPI BeaconDispatchSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Pnp.RemoveLock, Irp);

    return NT_SUCCESS(Status) ? BeaconPassDown(x, Irp) : Finish(Irp, Status, Irp->IoStatus.Information);
}

/* Each request that comes in holds a remove lock until it ends. */
static NTSTATUS BeaconEnter(DEVICE_EXTENSION *x, PIRP Irp)
{
    NTSTATUS Status = IoAcquireRemoveLock(&x->Pnp.RemoveLock, Irp);

    if (NT_SUCCESS(Status) && x->Pnp.State != StateStarted) {
        Status = x->Pnp.State == StateStopped ? STATUS_DEVICE_NOT_READY : STATUS_DEVICE_NOT_CONNECTED;
        IoReleaseRemoveLock(&x->Pnp.RemoveLock, Irp);
    }
    return Status;
}

static NTSTATUS BeaconLeave(DEVICE_EXTENSION *x, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Finish(Irp, Status, Information);
    IoReleaseRemoveLock(&x->Pnp.RemoveLock, Irp);
    return Status;
}

/* ---- requests ------------------------------------------------------------------------------ */

static NTSTATUS NTAPI BeaconDispatchCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS Status = BeaconEnter(x, Irp);
    HANDLE_CONTEXT *h;

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    h = ExAllocatePoolWithTag(NonPagedPool, sizeof(HANDLE_CONTEXT), POOL_TAG);
    if (h == NULL)
        return BeaconLeave(x, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(h, sizeof(*h));
    InitializeListHead(&h->Records);
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = h;
    return BeaconLeave(x, Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI BeaconDispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    HANDLE_CONTEXT *h = File->FsContext;
    KIRQL Irql;

    KeAcquireSpinLock(&x->Lock, &Irql);
    h->Closed = TRUE;
    KeReleaseSpinLock(&x->Lock, Irql);
    BeaconFlush(x, File, STATUS_CANCELLED);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static VOID BeaconForget(DEVICE_EXTENSION *x, HANDLE_CONTEXT *h)
{
    LIST_ENTRY Gone;
    KIRQL Irql;

    InitializeListHead(&Gone);
    KeAcquireSpinLock(&x->Lock, &Irql);
    while (!IsListEmpty(&h->Records))
        InsertTailList(&Gone, RemoveHeadList(&h->Records));
    h->Count = 0;
    KeReleaseSpinLock(&x->Lock, Irql);
    while (!IsListEmpty(&Gone))
        ExFreeToNPagedLookasideList(&x->Records, CONTAINING_RECORD(RemoveHeadList(&Gone), RECORD, Link));
}

static NTSTATUS NTAPI BeaconDispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    HANDLE_CONTEXT *h = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;

    BeaconForget(x, h);
    ExFreePoolWithTag(h, POOL_TAG);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static ULONG_PTR BeaconHistory(DEVICE_EXTENSION *x, HANDLE_CONTEXT *h, SEAL *To, ULONG Room)
{
    ULONG_PTR n = 0;
    PLIST_ENTRY e;
    KIRQL Irql;

    KeAcquireSpinLock(&x->Lock, &Irql);
    for (e = h->Records.Flink; e != &h->Records && n < Room; e = e->Flink)
        To[n++] = CONTAINING_RECORD(e, RECORD, Link)->Seal;
    KeReleaseSpinLock(&x->Lock, Irql);
    return n * sizeof(SEAL);
}

/* The request waits for the work item, which is queued if it is not under way. */
static NTSTATUS BeaconEnqueue(DEVICE_EXTENSION *x, PIRP Irp)
{
    HANDLE_CONTEXT *h = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;
    NTSTATUS Status = IoAcquireRemoveLock(&x->Pnp.RemoveLock, BeaconWork);
    BOOLEAN Wake = FALSE;
    KIRQL Irql;

    if (!NT_SUCCESS(Status))
        return Status;
    KeAcquireSpinLock(&x->Lock, &Irql);
    if (x->Closed) {
        Status = STATUS_DEVICE_NOT_CONNECTED;
    } else if (h->Closed) {
        Status = STATUS_CANCELLED;
    } else {
        InsertTailList(&x->Queue, &Irp->Tail.Overlay.ListEntry);
        IoSetCancelRoutine(Irp, BeaconCancel);
        if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
            RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
            Status = STATUS_CANCELLED;
        } else {
            IoMarkIrpPending(Irp);
            Status = STATUS_PENDING;
            if (!x->Working)
                Wake = x->Working = TRUE;
        }
    }
    KeReleaseSpinLock(&x->Lock, Irql);
    if (Wake)
        IoQueueWorkItem(x->WorkItem, BeaconWork, DelayedWorkQueue, NULL);
    else
        IoReleaseRemoveLock(&x->Pnp.RemoveLock, BeaconWork);
    return Status;
}

static NTSTATUS NTAPI BeaconDispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    DEVICE_EXTENSION *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    HANDLE_CONTEXT *h = Stack->FileObject->FsContext;
    NTSTATUS Status = BeaconEnter(x, Irp);
    ULONG_PTR Information = 0;

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SEAL:
        if (In == 0 || In > DATA_MOST) {
            Status = STATUS_INVALID_PARAMETER;
        } else if (Out < sizeof(SEAL)) {
            Status = STATUS_BUFFER_TOO_SMALL;
        } else {
            Status = BeaconEnqueue(x, Irp);
            if (Status == STATUS_PENDING)
                return STATUS_PENDING;
        }
        break;
    case IOCTL_HISTORY:
        if (Out < sizeof(SEAL))
            Status = STATUS_BUFFER_TOO_SMALL;
        else
            Information = BeaconHistory(x, h, Irp->AssociatedIrp.SystemBuffer, Out / sizeof(SEAL));
        break;
    case IOCTL_FORGET:
        BeaconForget(x, h);
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return BeaconLeave(x, Irp, Status, Information);
}

static NTSTATUS NTAPI BeaconAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
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
    x->Pnp.Self = Self;
    x->Pnp.Pdo = Pdo;
    x->Pnp.State = StateAdded;
    IoInitializeRemoveLock(&x->Pnp.RemoveLock, POOL_TAG, 0, 0);
    Status = BeaconInit(x);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Self);
        return Status;
    }
    Status = IoRegisterDeviceInterface(Pdo, &INTERFACE_GUID, NULL, &x->Pnp.Interface);
    if (!NT_SUCCESS(Status)) {
        BeaconFree(x);
        IoDeleteDevice(Self);
        return Status;
    }
    x->Pnp.Lower = IoAttachDeviceToDeviceStack(Self, Pdo);
    if (x->Pnp.Lower == NULL) {
        RtlFreeUnicodeString(&x->Pnp.Interface);
        BeaconFree(x);
        IoDeleteDevice(Self);
        return STATUS_NO_SUCH_DEVICE;
    }
    Self->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
    Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI BeaconUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->DriverExtension->AddDevice = BeaconAddDevice;
    Driver->DriverUnload = BeaconUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = BeaconDispatchCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = BeaconDispatchCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = BeaconDispatchClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = BeaconDispatchControl;
    Driver->MajorFunction[IRP_MJ_PNP] = BeaconDispatchPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = BeaconDispatchPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = BeaconDispatchSystemControl;
    return STATUS_SUCCESS;
}

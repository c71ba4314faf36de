/*
 * hopper.c - a message hopper.
 *
 * A writer drops messages of up to 4096 bytes into the hopper, a reader takes
 * them out in order, one by one.  A read with nothing in the hopper waits.
 * Messages lie in a list of blocks; waiting reads in a cancel-safe queue.
 *
 * The bug: a read looks for a message, and then puts itself into the queue; it is matched only if it had seen
 * one, so that one which comes in between is seen by neither.
 *
 * Device: Root\Hopper
 * Rule: request-forgotten
 * Needs: schedule
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

DEFINE_GUID(INTERFACE_GUID, 0x7a1e0001, 0x51b2, 0x4f1d, 0x9c, 0x11, 0x20, 0x31, 0x42, 0x53, 0x64, 0x75);

#define POOL_TAG 'ppoH'
#define DEVICE_IO DO_BUFFERED_IO
#define MESSAGE_LIMIT 4096
#define HOPPER_LIMIT 64

#define IOCTL_HOPPER_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_HOPPER_PURGE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct {
    LIST_ENTRY Link;
    ULONG Length;
    UCHAR Data[1];
} MESSAGE;

typedef struct {
    ULONG Waiting;
    ULONG Messages;
    ULONG Taken;
    ULONG Dropped;
} HOPPER_COUNT;

struct EXT {
    BASE B;
    KSPIN_LOCK MessageLock;
    FAST_MUTEX MatchMutex;
    LIST_ENTRY Messages;
    ULONG MessageCount;
    ULONG Taken;
    ULONG Dropped;

    IO_CSQ Readers;
    KSPIN_LOCK ReaderLock;
    LIST_ENTRY ReaderList;
    ULONG ReaderCount;
};

/* ---- the queue of waiting reads ---------------------------------------- */

static VOID NTAPI QueueInsert(PIO_CSQ Csq, PIRP Irp)
{
    EXT *x = CONTAINING_RECORD(Csq, EXT, Readers);

    InsertTailList(&x->ReaderList, &Irp->Tail.Overlay.ListEntry);
    x->ReaderCount++;
}

static VOID NTAPI QueueRemove(PIO_CSQ Csq, PIRP Irp)
{
    EXT *x = CONTAINING_RECORD(Csq, EXT, Readers);

    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    x->ReaderCount--;
}

static PIRP NTAPI QueuePeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    EXT *x = CONTAINING_RECORD(Csq, EXT, Readers);
    PLIST_ENTRY e = Irp ? Irp->Tail.Overlay.ListEntry.Flink : x->ReaderList.Flink;

    for (; e != &x->ReaderList; e = e->Flink) {
        PIRP Next = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (Context == NULL || IoGetCurrentIrpStackLocation(Next)->FileObject == Context)
            return Next;
    }
    return NULL;
}

static VOID NTAPI QueueLock(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, EXT, Readers)->ReaderLock, Irql);
}

static VOID NTAPI QueueUnlock(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, EXT, Readers)->ReaderLock, Irql);
}

static VOID NTAPI QueueCancelled(PIO_CSQ Csq, PIRP Irp)
{
    EXT *x = CONTAINING_RECORD(Csq, EXT, Readers);

    Finish(Irp, STATUS_CANCELLED, 0);
    IoReleaseRemoveLock(&x->B.Remove, Irp);
}

/* ---- messages ------------------------------------------------------------ */

static MESSAGE *TakeMessage(EXT *x)
{
    MESSAGE *m = NULL;
    KIRQL Irql;

    KeAcquireSpinLock(&x->MessageLock, &Irql);
    if (!IsListEmpty(&x->Messages)) {
        m = CONTAINING_RECORD(RemoveHeadList(&x->Messages), MESSAGE, Link);
        x->MessageCount--;
        x->Taken++;
    }
    KeReleaseSpinLock(&x->MessageLock, Irql);
    return m;
}

static VOID PutBack(EXT *x, MESSAGE *m)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->MessageLock, &Irql);
    InsertHeadList(&x->Messages, &m->Link);
    x->MessageCount++;
    x->Taken--;
    KeReleaseSpinLock(&x->MessageLock, Irql);
}

static VOID Deliver(EXT *x, PIRP Irp, MESSAGE *m)
{
    ULONG Room = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length;
    ULONG Count = m->Length < Room ? m->Length : Room;

    RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, m->Data, Count);
    ExFreePoolWithTag(m, POOL_TAG);
    Finish(Irp, STATUS_SUCCESS, Count);
    IoReleaseRemoveLock(&x->B.Remove, Irp);
}

#ifndef FIXED
static BOOLEAN AnyMessage(EXT *x)
{
    BOOLEAN Any;
    KIRQL Irql;

    KeAcquireSpinLock(&x->MessageLock, &Irql);
    Any = !IsListEmpty(&x->Messages);
    KeReleaseSpinLock(&x->MessageLock, Irql);
    return Any;
}
#endif

/*
 * Brings messages and readers together.  Who has added one of either calls
 * it afterwards.  The mutex keeps the order of both; requests are completed
 * when it has been let go.
 */
static VOID Match(EXT *x)
{
    for (;;) {
        PIRP Irp = NULL;
        MESSAGE *m;

        ExAcquireFastMutex(&x->MatchMutex);
        m = TakeMessage(x);
        if (m != NULL) {
            Irp = IoCsqRemoveNextIrp(&x->Readers, NULL);
            if (Irp == NULL)
                PutBack(x, m);
        }
        ExReleaseFastMutex(&x->MatchMutex);
        if (Irp == NULL)
            break;
        Deliver(x, Irp, m);
    }
}

static VOID FlushReaders(EXT *x, PVOID File, NTSTATUS Status)
{
    PIRP Irp;

    while ((Irp = IoCsqRemoveNextIrp(&x->Readers, File)) != NULL) {
        Finish(Irp, Status, 0);
        IoReleaseRemoveLock(&x->B.Remove, Irp);
    }
}

static ULONG Purge(EXT *x)
{
    MESSAGE *m;
    ULONG Count = 0;

    while ((m = TakeMessage(x)) != NULL) {
        ExFreePoolWithTag(m, POOL_TAG);
        Count++;
    }
    return Count;
}

/* ---- the device ---------------------------------------------------------- */

static NTSTATUS DevInit(EXT *x)
{
    KeInitializeSpinLock(&x->MessageLock);
    KeInitializeSpinLock(&x->ReaderLock);
    ExInitializeFastMutex(&x->MatchMutex);
    InitializeListHead(&x->Messages);
    InitializeListHead(&x->ReaderList);
    return IoCsqInitialize(&x->Readers, QueueInsert, QueueRemove, QueuePeek, QueueLock, QueueUnlock,
                           QueueCancelled);
}

static NTSTATUS DevStart(EXT *x)
{
    UNREFERENCED_PARAMETER(x);
    return STATUS_SUCCESS;
}

static VOID DevGone(EXT *x)
{
    FlushReaders(x, NULL, STATUS_DEVICE_NOT_CONNECTED);
}

static VOID DevFree(EXT *x)
{
    Purge(x);
}

/* ---- Plug and Play ---------------------------------------------------- */

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
            Status = DevStart(x);
        if (NT_SUCCESS(Status)) {
            InterlockedExchange(&x->B.State, RUNNING);
            IoSetDeviceInterfaceState(&x->B.Link, TRUE);
        }
        Finish(Irp, Status, Irp->IoStatus.Information);
        IoReleaseRemoveLock(&x->B.Remove, Irp);
        return Status;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_STOP_DEVICE:
        /* There is no hardware: requests go on across a rebalance. */
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return PassDown(x, Irp);
    case IRP_MN_SURPRISE_REMOVAL:
        InterlockedExchange(&x->B.State, PULLED);
        IoSetDeviceInterfaceState(&x->B.Link, FALSE);
        DevGone(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return PassDown(x, Irp);
    case IRP_MN_REMOVE_DEVICE:
        if (InterlockedExchange(&x->B.State, DELETED) != PULLED)
            IoSetDeviceInterfaceState(&x->B.Link, FALSE);
        DevGone(x);
        IoReleaseRemoveLockAndWait(&x->B.Remove, Irp);
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
static NTSTATUS DispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXT *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->B.Remove, Irp);

    PoStartNextPowerIrp(Irp);
    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
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

/* ---- requests ------------------------------------------------------------ */

static NTSTATUS Enter(EXT *x, PIRP Irp)
{
    NTSTATUS Status = IoAcquireRemoveLock(&x->B.Remove, Irp);

    if (!NT_SUCCESS(Status))
        return Status;
    if (x->B.State != RUNNING) {
        IoReleaseRemoveLock(&x->B.Remove, Irp);
        return STATUS_DEVICE_NOT_CONNECTED;
    }
    return STATUS_SUCCESS;
}

static NTSTATUS DispatchCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXT *x = Device->DeviceExtension;
    NTSTATUS Status = Enter(x, Irp);

    if (NT_SUCCESS(Status))
        IoReleaseRemoveLock(&x->B.Remove, Irp);
    return Finish(Irp, Status, 0);
}

static NTSTATUS DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXT *x = Device->DeviceExtension;

    FlushReaders(x, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS DispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS DispatchRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXT *x = Device->DeviceExtension;
    NTSTATUS Status = Enter(x, Irp);
#ifndef FIXED
    BOOLEAN Any;
#endif

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length == 0) {
        Finish(Irp, STATUS_INVALID_PARAMETER, 0);
        IoReleaseRemoveLock(&x->B.Remove, Irp);
        return STATUS_INVALID_PARAMETER;
    }
    /* The request may be over, and the handle closed, before this routine is. */
    Status = IoAcquireRemoveLock(&x->B.Remove, DispatchRead);
    if (!NT_SUCCESS(Status)) {
        Finish(Irp, Status, 0);
        IoReleaseRemoveLock(&x->B.Remove, Irp);
        return Status;
    }
#ifdef FIXED
    IoCsqInsertIrp(&x->Readers, Irp, NULL);
    Match(x);
#else
    Any = AnyMessage(x);
    IoCsqInsertIrp(&x->Readers, Irp, NULL);
    if (Any)
        Match(x);
#endif
    if (x->B.State != RUNNING)
        FlushReaders(x, NULL, STATUS_DEVICE_NOT_CONNECTED);
    IoReleaseRemoveLock(&x->B.Remove, DispatchRead);
    return STATUS_PENDING;
}

static NTSTATUS DispatchWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXT *x = Device->DeviceExtension;
    ULONG Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    NTSTATUS Status = Enter(x, Irp);
    MESSAGE *m;
    KIRQL Irql;

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    if (Length == 0 || Length > MESSAGE_LIMIT) {
        Status = STATUS_INVALID_PARAMETER;
        goto Done;
    }
    m = ExAllocatePoolWithTag(NonPagedPoolNx, FIELD_OFFSET(MESSAGE, Data) + Length, POOL_TAG);
    if (m == NULL) {
        Status = STATUS_INSUFFICIENT_RESOURCES;
        goto Done;
    }
    m->Length = Length;
    RtlCopyMemory(m->Data, Irp->AssociatedIrp.SystemBuffer, Length);

    KeAcquireSpinLock(&x->MessageLock, &Irql);
    if (x->MessageCount == HOPPER_LIMIT) {
        x->Dropped++;
        Status = STATUS_DEVICE_BUSY;
    } else {
        InsertTailList(&x->Messages, &m->Link);
        x->MessageCount++;
    }
    KeReleaseSpinLock(&x->MessageLock, Irql);
    if (NT_SUCCESS(Status))
        Match(x);
    else
        ExFreePoolWithTag(m, POOL_TAG);
Done:
    Finish(Irp, Status, NT_SUCCESS(Status) ? Length : 0);
    IoReleaseRemoveLock(&x->B.Remove, Irp);
    return Status;
}

static NTSTATUS DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXT *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = Enter(x, Irp);
    ULONG Information = 0;
    KIRQL Irql;

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_HOPPER_COUNT: {
        HOPPER_COUNT *c = Irp->AssociatedIrp.SystemBuffer;

        if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*c)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&x->MessageLock, &Irql);
        c->Messages = x->MessageCount;
        c->Taken = x->Taken;
        c->Dropped = x->Dropped;
        KeReleaseSpinLock(&x->MessageLock, Irql);
        KeAcquireSpinLock(&x->ReaderLock, &Irql);
        c->Waiting = x->ReaderCount;
        KeReleaseSpinLock(&x->ReaderLock, Irql);
        Information = sizeof(*c);
        break;
    }
    case IOCTL_HOPPER_PURGE:
        Purge(x);
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
    }
    Finish(Irp, Status, Information);
    IoReleaseRemoveLock(&x->B.Remove, Irp);
    return Status;
}

#define ENTRIES \
    Driver->MajorFunction[IRP_MJ_READ] = DispatchRead; \
    Driver->MajorFunction[IRP_MJ_WRITE] = DispatchWrite; \
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

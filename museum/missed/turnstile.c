/*
 * turnstile.c - so many may pass at once.
 *
 * There are LIMIT tokens.  ACQUIRE takes some of them for a handle and waits,
 * first come first served, until they are there; RELEASE gives some back, and
 * closing the handle all that it has.  LIMIT may be changed at any time: who
 * waits for more than there can ever be is refused.
 *
 * The bug: where one who waits is refused, since there can never be so many tokens, those behind it are not looked at
 * any more.
 *
 * Device: Root\Turnstile
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

DEFINE_GUID(INTERFACE_GUID, 0x7a1e0003, 0x51b2, 0x4f1d, 0x9c, 0x11, 0x20, 0x31, 0x42, 0x53, 0x64, 0x75);

#define POOL_TAG 'nruT'
#define DEVICE_IO DO_BUFFERED_IO
#define MOST_TOKENS 1000

#define IOCTL_ACQUIRE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x810, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_RELEASE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x811, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SET_LIMIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x812, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x813, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct {
    LONG Limit;
    LONG Free;
    LONG Held; /* by the handle that asks */
    ULONG Waiting;
} TURNSTILE_STATE;

typedef struct {
    LONG Held;
    BOOLEAN Closed;
} HANDLE_CONTEXT;

struct EXT {
    BASE B;
    KSPIN_LOCK TokenLock; /* Limit, Free, Held; taken before QueueLock */
    LONG Limit;
    LONG Free; /* below zero when the limit was lowered under those who pass */
    IO_CSQ Queue;
    KSPIN_LOCK QueueLock;
    LIST_ENTRY List;
    ULONG Waiting;
};

typedef struct {
    PFILE_OBJECT File; /* any request of this handle, or */
    LONG Free;         /* the first one, if it needs no more than this, */
    LONG Limit;        /* or more than this */
} WANTED;

#define NEED(Irp) ((LONG)(LONG_PTR)(Irp)->Tail.Overlay.DriverContext[0])

static VOID Grant(EXT *x);

static VOID NTAPI QueueInsert(PIO_CSQ Csq, PIRP Irp)
{
    EXT *x = CONTAINING_RECORD(Csq, EXT, Queue);

    InsertTailList(&x->List, &Irp->Tail.Overlay.ListEntry);
    x->Waiting++;
}

static VOID NTAPI QueueRemove(PIO_CSQ Csq, PIRP Irp)
{
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    CONTAINING_RECORD(Csq, EXT, Queue)->Waiting--;
}

static PIRP NTAPI QueuePeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    EXT *x = CONTAINING_RECORD(Csq, EXT, Queue);
    WANTED *w = Context;
    PLIST_ENTRY e = Irp ? Irp->Tail.Overlay.ListEntry.Flink : x->List.Flink;

    for (; e != &x->List; e = e->Flink) {
        PIRP Next = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (w == NULL)
            return Next;
        if (w->File != NULL) {
            if (IoGetCurrentIrpStackLocation(Next)->FileObject == w->File)
                return Next;
            continue;
        }
        /* First come first served: none overtakes. */
        return NEED(Next) <= w->Free || NEED(Next) > w->Limit ? Next : NULL;
    }
    return NULL;
}

static VOID NTAPI QueueLock(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, EXT, Queue)->QueueLock, Irql);
}

static VOID NTAPI QueueUnlock(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, EXT, Queue)->QueueLock, Irql);
}

static VOID NTAPI QueueCancelled(PIO_CSQ Csq, PIRP Irp)
{
    EXT *x = CONTAINING_RECORD(Csq, EXT, Queue);

    Finish(Irp, STATUS_CANCELLED, 0);
    /* It may have been in the way of others. */
    Grant(x);
    IoReleaseRemoveLock(&x->B.Remove, Irp);
}

/* ---- tokens ---------------------------------------------------------------- */

static VOID Flush(EXT *x, PFILE_OBJECT File, NTSTATUS Status)
{
    WANTED w = { File, 0, 0 };
    PIRP Irp;

    while ((Irp = IoCsqRemoveNextIrp(&x->Queue, File ? &w : NULL)) != NULL) {
        Finish(Irp, Status, 0);
        IoReleaseRemoveLock(&x->B.Remove, Irp);
    }
}

/* Lets pass who can.  Who changes tokens or the queue calls it. */
static VOID Grant(EXT *x)
{
    for (;;) {
        HANDLE_CONTEXT *h;
        NTSTATUS Status;
        KIRQL Irql;
        WANTED w;
        PIRP Irp;

        KeAcquireSpinLock(&x->TokenLock, &Irql);
        w.File = NULL;
        w.Free = x->Free;
        w.Limit = x->Limit;
        Irp = IoCsqRemoveNextIrp(&x->Queue, &w);
        if (Irp == NULL) {
            KeReleaseSpinLock(&x->TokenLock, Irql);
            break;
        }
        h = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;
        if (NEED(Irp) > x->Limit) {
            Status = STATUS_QUOTA_EXCEEDED;
        } else if (h->Closed) {
            Status = STATUS_CANCELLED;
        } else {
            h->Held += NEED(Irp);
            x->Free -= NEED(Irp);
            Status = STATUS_SUCCESS;
        }
        KeReleaseSpinLock(&x->TokenLock, Irql);
        Finish(Irp, Status, 0);
        IoReleaseRemoveLock(&x->B.Remove, Irp);
#ifndef FIXED
        if (!NT_SUCCESS(Status))
            break;
#endif
    }
}

/* ---- the device -------------------------------------------------------------- */

static NTSTATUS DevInit(EXT *x)
{
    KeInitializeSpinLock(&x->TokenLock);
    KeInitializeSpinLock(&x->QueueLock);
    InitializeListHead(&x->List);
    x->Limit = x->Free = 8;
    return IoCsqInitialize(&x->Queue, QueueInsert, QueueRemove, QueuePeek, QueueLock, QueueUnlock,
                           QueueCancelled);
}

static NTSTATUS DevStart(EXT *x)
{
    UNREFERENCED_PARAMETER(x);
    return STATUS_SUCCESS;
}

static VOID DevGone(EXT *x)
{
    Flush(x, NULL, STATUS_DEVICE_NOT_CONNECTED);
}

static VOID DevFree(EXT *x)
{
    UNREFERENCED_PARAMETER(x);
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

/* ---- requests ---------------------------------------------------------------- */

/* A lock for the request, and one for the routine that may outlive it. */
static NTSTATUS Enter(EXT *x, PIRP Irp)
{
    NTSTATUS Status = IoAcquireRemoveLock(&x->B.Remove, Irp);

    if (!NT_SUCCESS(Status))
        return Status;
    Status = x->B.State == RUNNING ? IoAcquireRemoveLock(&x->B.Remove, Enter) : STATUS_DEVICE_NOT_CONNECTED;
    if (!NT_SUCCESS(Status))
        IoReleaseRemoveLock(&x->B.Remove, Irp);
    return Status;
}

static VOID Leave(EXT *x)
{
    IoReleaseRemoveLock(&x->B.Remove, Enter);
}

/* The end of a request that Enter has let in. */
static NTSTATUS Done(EXT *x, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Finish(Irp, Status, Information);
    IoReleaseRemoveLock(&x->B.Remove, Irp);
    return Status;
}

static NTSTATUS DispatchCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXT *x = Device->DeviceExtension;
    NTSTATUS Status = Enter(x, Irp);
    HANDLE_CONTEXT *h;

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    h = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*h), POOL_TAG);
    if (h == NULL) {
        Status = STATUS_INSUFFICIENT_RESOURCES;
    } else {
        RtlZeroMemory(h, sizeof(*h));
        IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = h;
    }
    Done(x, Irp, Status, 0);
    Leave(x);
    return Status;
}

static NTSTATUS DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXT *x = Device->DeviceExtension;
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    HANDLE_CONTEXT *h = File->FsContext;
    KIRQL Irql;

    KeAcquireSpinLock(&x->TokenLock, &Irql);
    h->Closed = TRUE;
    x->Free += h->Held;
    h->Held = 0;
    KeReleaseSpinLock(&x->TokenLock, Irql);
    Flush(x, File, STATUS_CANCELLED);
    Grant(x);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS DispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    ExFreePoolWithTag(IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext, POOL_TAG);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS Acquire(EXT *x, PIRP Irp, LONG Count)
{
    if (Count < 1 || Count > MOST_TOKENS)
        return Done(x, Irp, STATUS_INVALID_PARAMETER, 0);
    Irp->Tail.Overlay.DriverContext[0] = (PVOID)(LONG_PTR)Count;
    IoCsqInsertIrp(&x->Queue, Irp, NULL);
    Grant(x);
    if (x->B.State != RUNNING)
        Flush(x, NULL, STATUS_DEVICE_NOT_CONNECTED);
    return STATUS_PENDING;
}

static NTSTATUS DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXT *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    HANDLE_CONTEXT *h = Stack->FileObject->FsContext;
    ULONG Code = Stack->Parameters.DeviceIoControl.IoControlCode;
    NTSTATUS Status = Enter(x, Irp);
    ULONG Information = 0;
    LONG Count = 0;
    KIRQL Irql;

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    if (Code == IOCTL_ACQUIRE || Code == IOCTL_RELEASE || Code == IOCTL_SET_LIMIT) {
        if (Stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(LONG)) {
            Status = Done(x, Irp, STATUS_INVALID_PARAMETER, 0);
            goto Out;
        }
        Count = *(PLONG)Irp->AssociatedIrp.SystemBuffer;
    }
    switch (Code) {
    case IOCTL_ACQUIRE:
        Status = Acquire(x, Irp, Count);
        goto Out;
    case IOCTL_RELEASE:
        KeAcquireSpinLock(&x->TokenLock, &Irql);
        if (Count < 1 || Count > h->Held) {
            Status = STATUS_INVALID_PARAMETER;
        } else {
            h->Held -= Count;
            x->Free += Count;
        }
        KeReleaseSpinLock(&x->TokenLock, Irql);
        if (NT_SUCCESS(Status))
            Grant(x);
        break;
    case IOCTL_SET_LIMIT:
        if (Count < 1 || Count > MOST_TOKENS) {
            Status = STATUS_INVALID_PARAMETER;
            break;
        }
        KeAcquireSpinLock(&x->TokenLock, &Irql);
        x->Free += Count - x->Limit;
        x->Limit = Count;
        KeReleaseSpinLock(&x->TokenLock, Irql);
        Grant(x);
        break;
    case IOCTL_STATE: {
        TURNSTILE_STATE *s = Irp->AssociatedIrp.SystemBuffer;

        if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*s)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&x->TokenLock, &Irql);
        s->Limit = x->Limit;
        s->Free = x->Free;
        s->Held = h->Held;
        KeReleaseSpinLock(&x->TokenLock, Irql);
        KeAcquireSpinLock(&x->QueueLock, &Irql);
        s->Waiting = x->Waiting;
        KeReleaseSpinLock(&x->QueueLock, Irql);
        Information = sizeof(*s);
        break;
    }
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
    }
    Done(x, Irp, Status, Information);
Out:
    Leave(x);
    return Status;
}

#define ENTRIES Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;

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

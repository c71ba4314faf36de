/*
 * Shares one port among several applications: each opens the multiplexer, asks to own the port, and moves data only while
 * it does; ownership goes from one to the next in the order of the requests.
 *
 * Device: none
 * The bug: ownership is handed to the next waiting request's handle without a look at whether that handle is being closed meanwhile, so the port belongs to a handle that no longer exists, others wait for ever and freed memory is looked at.
 * Shows by: the owner releases the port (or its time is up) and takes the next waiting request off the queue, and just then the waiting handle is closed: its cleanup finds neither its request nor itself as owner.
 */
#include <ddk/wdm.h>

#define MUX_TAG             'xuMP'
#define MUX_FIFO            1024
#define MUX_MAX_SLICE_MS    60000

#define IOCTL_MUX_ACQUIRE   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x910, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_MUX_RELEASE   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x911, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_MUX_SET_SLICE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x912, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_MUX_STATUS    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x913, METHOD_BUFFERED, FILE_ANY_ACCESS)

#ifndef NonPagedPoolNx
#define NonPagedPoolNx ((POOL_TYPE)512)
#endif

typedef struct _MUX_STATUS {
    ULONG Mine;                         /* 1: the caller owns the port */
    ULONG Owned;
    ULONG Waiting;
    ULONG Grants;
    ULONG Expired;
    ULONG OwnerId;
} MUX_STATUS;

typedef struct _MUX_CLIENT {
    ULONG Id;
    BOOLEAN Closing;                    /* written with both locks held, read with either */
    ULONG Grants;
} MUX_CLIENT, *PMUX_CLIENT;

typedef struct _MUX_EXTENSION {
    PDEVICE_OBJECT Self;

    IO_CSQ Queue;                       /* requests to own the port */
    LIST_ENTRY Waiting;
    KSPIN_LOCK QueueLock;
    ULONG WaitingCount;

    KSPIN_LOCK OwnerLock;               /* guards what follows; QueueLock is never taken outside it but by the queue itself */
    PMUX_CLIENT Owner;
    BOOLEAN Granting;                   /* a caller looks for the next owner */
    BOOLEAN Again;                      /* and is to look once more */
    ULONG NextId;
    ULONG Grants;
    ULONG Expired;

    ULONG SliceMs;                      /* 0: an owner may keep the port */
    ULONGLONG SliceEnd;                 /* the interrupt time for which the timer is set */
    KTIMER Timer;
    KDPC TimerDpc;

    ULONG Head;                         /* the loop that stands for the port's line */
    ULONG Tail;
    UCHAR Fifo[MUX_FIFO];
} MUX_EXTENSION, *PMUX_EXTENSION;

static PDEVICE_OBJECT MuxDevice;

static NTSTATUS MuxComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* The queue of requests that wait */

static PMUX_EXTENSION MuxFromQueue(PIO_CSQ Csq)
{
    return CONTAINING_RECORD(Csq, MUX_EXTENSION, Queue);
}

static NTSTATUS NTAPI MuxInsert(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PMUX_EXTENSION ext = MuxFromQueue(Csq);
    PMUX_CLIENT client = Context;
    if (client->Closing) return STATUS_CANCELLED;
    InsertTailList(&ext->Waiting, &Irp->Tail.Overlay.ListEntry);
    ext->WaitingCount++;
    return STATUS_SUCCESS;
}

static VOID NTAPI MuxRemove(PIO_CSQ Csq, PIRP Irp)
{
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    MuxFromQueue(Csq)->WaitingCount--;
}

/* Context: a file object whose requests are wanted, or NULL for any. */
static PIRP NTAPI MuxPeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PMUX_EXTENSION ext = MuxFromQueue(Csq);
    PLIST_ENTRY e = Irp ? Irp->Tail.Overlay.ListEntry.Flink : ext->Waiting.Flink;

    for (; e != &ext->Waiting; e = e->Flink) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (!Context || IoGetCurrentIrpStackLocation(irp)->FileObject == Context) return irp;
    }
    return NULL;
}

static VOID NTAPI MuxAcquireLock(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&MuxFromQueue(Csq)->QueueLock, Irql);
}

static VOID NTAPI MuxReleaseLock(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&MuxFromQueue(Csq)->QueueLock, Irql);
}

static VOID NTAPI MuxCanceled(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    MuxComplete(Irp, STATUS_CANCELLED, 0);
}

static BOOLEAN MuxAnyWaiting(PMUX_EXTENSION Ext)
{
    BOOLEAN any;
    KIRQL irql;
    KeAcquireSpinLock(&Ext->QueueLock, &irql);
    any = !IsListEmpty(&Ext->Waiting);
    KeReleaseSpinLock(&Ext->QueueLock, irql);
    return any;
}

/* Ownership */

/* With OwnerLock held. */
static VOID MuxSetTimer(PMUX_EXTENSION Ext)
{
    LARGE_INTEGER due;
    due.QuadPart = -(LONGLONG)Ext->SliceMs * 10000;
    Ext->SliceEnd = KeQueryInterruptTime() - due.QuadPart;
    KeSetTimer(&Ext->Timer, due, &Ext->TimerDpc);
}

/* The port has a new owner. With OwnerLock held. */
static VOID MuxBeginTurn(PMUX_EXTENSION Ext, PMUX_CLIENT Client)
{
    Ext->Owner = Client;
    Ext->Grants++;
    Client->Grants++;
    if (Ext->SliceMs) MuxSetTimer(Ext);
}

/*
 * Gives the free port to the request that has waited longest. One caller at a time does it; one that comes meanwhile has left
 * the port free or a request in the queue, and has the loop look again.
 */
static VOID MuxGrantNext(PMUX_EXTENSION Ext)
{
    KIRQL irql;

    KeAcquireSpinLock(&Ext->OwnerLock, &irql);
    if (Ext->Granting) {
        Ext->Again = TRUE;
        KeReleaseSpinLock(&Ext->OwnerLock, irql);
        return;
    }
    Ext->Granting = TRUE;
    while (!Ext->Owner) {
        NTSTATUS status = STATUS_SUCCESS;
        PMUX_CLIENT client;
        PIRP irp;

        Ext->Again = FALSE;
        KeReleaseSpinLock(&Ext->OwnerLock, irql);
        irp = IoCsqRemoveNextIrp(&Ext->Queue, NULL);
        KeAcquireSpinLock(&Ext->OwnerLock, &irql);
        if (!irp) {
            if (Ext->Again) continue;               /* one came after we had looked */
            break;
        }
        client = IoGetCurrentIrpStackLocation(irp)->FileObject->FsContext;
#ifdef FIXED
        if (client->Closing) status = STATUS_CANCELLED;
        else
#endif
        MuxBeginTurn(Ext, client);
        KeReleaseSpinLock(&Ext->OwnerLock, irql);
        MuxComplete(irp, status, 0);
        KeAcquireSpinLock(&Ext->OwnerLock, &irql);
    }
    Ext->Granting = FALSE;
    KeReleaseSpinLock(&Ext->OwnerLock, irql);
}

/* Takes the port from a client, if it has it. */
static BOOLEAN MuxEndTurn(PMUX_EXTENSION Ext, PMUX_CLIENT Client)
{
    BOOLEAN was;
    KIRQL irql;

    KeAcquireSpinLock(&Ext->OwnerLock, &irql);
    was = Ext->Owner == Client;
    if (was) {
        Ext->Owner = NULL;
        KeCancelTimer(&Ext->Timer);
    }
    KeReleaseSpinLock(&Ext->OwnerLock, irql);
    if (was) MuxGrantNext(Ext);
    return was;
}

/* An owner's time is up: it keeps the port as long as no other one waits. */
static VOID NTAPI MuxSliceOver(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PMUX_EXTENSION ext = Context;
    BOOLEAN next = FALSE;
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);

    KeAcquireSpinLockAtDpcLevel(&ext->OwnerLock);
    if (ext->Owner && ext->SliceMs && KeQueryInterruptTime() >= ext->SliceEnd) {
        if (!MuxAnyWaiting(ext)) MuxSetTimer(ext);
        else {
            ext->Owner = NULL;
            ext->Expired++;
            next = TRUE;
        }
    }
    KeReleaseSpinLockFromDpcLevel(&ext->OwnerLock);
    if (next) MuxGrantNext(ext);
}

static NTSTATUS MuxAcquire(PMUX_EXTENSION Ext, PMUX_CLIENT Client, PIRP Irp)
{
    NTSTATUS status;
    BOOLEAN mine;
    KIRQL irql;

    KeAcquireSpinLock(&Ext->OwnerLock, &irql);
    mine = Ext->Owner == Client;
    KeReleaseSpinLock(&Ext->OwnerLock, irql);
    if (mine) return MuxComplete(Irp, STATUS_SUCCESS, 0);

    IoMarkIrpPending(Irp);
    status = IoCsqInsertIrpEx(&Ext->Queue, Irp, NULL, Client);
    if (!NT_SUCCESS(status)) MuxComplete(Irp, status, 0);
    else MuxGrantNext(Ext);
    return STATUS_PENDING;
}

static NTSTATUS MuxSetSlice(PMUX_EXTENSION Ext, ULONG Ms)
{
    KIRQL irql;

    if (Ms > MUX_MAX_SLICE_MS) return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&Ext->OwnerLock, &irql);
    Ext->SliceMs = Ms;
    if (!Ms) KeCancelTimer(&Ext->Timer);
    else if (Ext->Owner) MuxSetTimer(Ext);
    KeReleaseSpinLock(&Ext->OwnerLock, irql);
    return STATUS_SUCCESS;
}

static VOID MuxGetStatus(PMUX_EXTENSION Ext, PMUX_CLIENT Client, MUX_STATUS *Status)
{
    KIRQL irql;

    RtlZeroMemory(Status, sizeof(*Status));
    KeAcquireSpinLock(&Ext->OwnerLock, &irql);
    Status->Mine = Ext->Owner == Client;
    Status->Owned = Ext->Owner != NULL;
    Status->Grants = Ext->Grants;
    Status->Expired = Ext->Expired;
    if (Ext->Owner) Status->OwnerId = Ext->Owner->Id;
    KeAcquireSpinLockAtDpcLevel(&Ext->QueueLock);
    Status->Waiting = Ext->WaitingCount;
    KeReleaseSpinLockFromDpcLevel(&Ext->QueueLock);
    KeReleaseSpinLock(&Ext->OwnerLock, irql);
}

/* Data */

static NTSTATUS NTAPI MuxReadWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    PMUX_EXTENSION ext = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PMUX_CLIENT client = sp->FileObject->FsContext;
    PUCHAR bytes = Irp->AssociatedIrp.SystemBuffer;
    ULONG length = sp->MajorFunction == IRP_MJ_READ ? sp->Parameters.Read.Length : sp->Parameters.Write.Length;
    ULONG moved = 0;
    KIRQL irql;

    if (length == 0) return MuxComplete(Irp, STATUS_SUCCESS, 0);
    KeAcquireSpinLock(&ext->OwnerLock, &irql);
    if (ext->Owner != client) {
        KeReleaseSpinLock(&ext->OwnerLock, irql);
        return MuxComplete(Irp, STATUS_ACCESS_DENIED, 0);
    }
    if (sp->MajorFunction == IRP_MJ_READ) {
        while (moved < length && ext->Head != ext->Tail) bytes[moved++] = ext->Fifo[ext->Tail++ % MUX_FIFO];
    } else {
        while (moved < length && ext->Head - ext->Tail < MUX_FIFO) ext->Fifo[ext->Head++ % MUX_FIFO] = bytes[moved++];
    }
    KeReleaseSpinLock(&ext->OwnerLock, irql);
    return MuxComplete(Irp, STATUS_SUCCESS, moved);
}

static NTSTATUS NTAPI MuxDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PMUX_EXTENSION ext = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PMUX_CLIENT client = sp->FileObject->FsContext;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_MUX_ACQUIRE:
        return MuxAcquire(ext, client, Irp);
    case IOCTL_MUX_RELEASE:
        return MuxComplete(Irp, MuxEndTurn(ext, client) ? STATUS_SUCCESS : STATUS_INVALID_DEVICE_STATE, 0);
    case IOCTL_MUX_SET_SLICE:
        if (in < sizeof(ULONG)) return MuxComplete(Irp, STATUS_INVALID_PARAMETER, 0);
        return MuxComplete(Irp, MuxSetSlice(ext, *(const ULONG *)buffer), 0);
    case IOCTL_MUX_STATUS:
        if (out < sizeof(MUX_STATUS)) return MuxComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        MuxGetStatus(ext, client, buffer);
        return MuxComplete(Irp, STATUS_SUCCESS, sizeof(MUX_STATUS));
    default:
        return MuxComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI MuxCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    PMUX_EXTENSION ext = Device->DeviceExtension;
    PMUX_CLIENT client = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(MUX_CLIENT), MUX_TAG);
    KIRQL irql;

    if (!client) return MuxComplete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(client, sizeof(*client));
    KeAcquireSpinLock(&ext->OwnerLock, &irql);
    client->Id = ++ext->NextId;
    KeReleaseSpinLock(&ext->OwnerLock, irql);
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = client;
    return MuxComplete(Irp, STATUS_SUCCESS, FILE_OPENED);
}

static NTSTATUS NTAPI MuxCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PMUX_EXTENSION ext = Device->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PMUX_CLIENT client = file->FsContext;
    PIRP waiting;
    KIRQL irql;

    KeAcquireSpinLock(&ext->OwnerLock, &irql);
    KeAcquireSpinLockAtDpcLevel(&ext->QueueLock);
    client->Closing = TRUE;
    KeReleaseSpinLockFromDpcLevel(&ext->QueueLock);
    KeReleaseSpinLock(&ext->OwnerLock, irql);
    while ((waiting = IoCsqRemoveNextIrp(&ext->Queue, file)) != NULL) MuxComplete(waiting, STATUS_CANCELLED, 0);
    MuxEndTurn(ext, client);
    return MuxComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI MuxClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    ExFreePoolWithTag(IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext, MUX_TAG);
    return MuxComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI MuxUnload(PDRIVER_OBJECT Driver)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\MuxPort");
    PMUX_EXTENSION ext = MuxDevice->DeviceExtension;
    UNREFERENCED_PARAMETER(Driver);

    IoDeleteSymbolicLink(&link);
    KeCancelTimer(&ext->Timer);
    KeFlushQueuedDpcs();
    IoDeleteDevice(MuxDevice);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\MuxPort"), link = RTL_CONSTANT_STRING(L"\\DosDevices\\MuxPort");
    PMUX_EXTENSION ext;
    NTSTATUS status;
    UNREFERENCED_PARAMETER(RegistryPath);

    status = IoCreateDevice(Driver, sizeof(MUX_EXTENSION), &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &MuxDevice);
    if (!NT_SUCCESS(status)) return status;
    ext = MuxDevice->DeviceExtension;
    ext->Self = MuxDevice;
    InitializeListHead(&ext->Waiting);
    KeInitializeSpinLock(&ext->QueueLock);
    KeInitializeSpinLock(&ext->OwnerLock);
    KeInitializeTimer(&ext->Timer);
    KeInitializeDpc(&ext->TimerDpc, MuxSliceOver, ext);
    status = IoCsqInitializeEx(&ext->Queue, MuxInsert, MuxRemove, MuxPeek, MuxAcquireLock, MuxReleaseLock, MuxCanceled);
    if (NT_SUCCESS(status)) status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(MuxDevice);
        return status;
    }
    Driver->MajorFunction[IRP_MJ_CREATE] = MuxCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = MuxCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = MuxClose;
    Driver->MajorFunction[IRP_MJ_READ] = MuxReadWrite;
    Driver->MajorFunction[IRP_MJ_WRITE] = MuxReadWrite;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = MuxDeviceControl;
    Driver->DriverUnload = MuxUnload;
    MuxDevice->Flags |= DO_BUFFERED_IO;
    MuxDevice->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

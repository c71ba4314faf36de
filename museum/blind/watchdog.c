/*
 * A software watchdog: applications arm a deadline for a handle and push it back by kicks; a thread of the driver keeps all
 * deadlines, and what waits for a handle's expiry ends when its deadline has passed.
 *
 * Device: none
 * The bug: the thread clears its "deadlines have changed" event after it has looked through the deadlines and before it waits, so a deadline that is armed in
 * between is not noticed and its expiry is never reported.
 * Rule: wake-up-lost
 * Needs: schedule
 */
#include <ddk/wdm.h>

#define DOG_TAG             'goDW'
#define DOG_MAX_MS          3600000
#define DOG_HISTORY         16

#define IOCTL_DOG_ARM       CTL_CODE(FILE_DEVICE_UNKNOWN, 0x930, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_DOG_KICK      CTL_CODE(FILE_DEVICE_UNKNOWN, 0x931, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_DOG_DISARM    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x932, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_DOG_WAIT      CTL_CODE(FILE_DEVICE_UNKNOWN, 0x933, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_DOG_STATUS    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x934, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_DOG_HISTORY   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x935, METHOD_BUFFERED, FILE_ANY_ACCESS)

#ifndef NonPagedPoolNx
#define NonPagedPoolNx ((POOL_TYPE)512)
#endif

typedef struct _DOG_ARM { ULONG TimeoutMs; ULONG Cookie; } DOG_ARM;
typedef struct _DOG_EXPIRY { ULONG Id; ULONG Cookie; ULONGLONG Time; } DOG_EXPIRY;
typedef struct _DOG_STATUS { ULONG Id; ULONG Armed; ULONG Kicks; ULONG Expiries; ULONG Clients; ULONG LeftMs; } DOG_STATUS;

typedef struct _CLIENT {
    LIST_ENTRY Link;
    ULONG Id;
    BOOLEAN Closing;
    BOOLEAN Armed;
    BOOLEAN Expired;                    /* and that was not reported yet */
    ULONG TimeoutMs;
    ULONG Cookie;
    ULONGLONG Deadline;                 /* interrupt time */
    ULONG Kicks;
    ULONG Expiries;
    LIST_ENTRY Waiting;
    DOG_EXPIRY Last;
} CLIENT, *PCLIENT;

typedef struct _DOG_EXTENSION {
    KSPIN_LOCK Lock;                    /* guards clients and history */
    LIST_ENTRY Clients;
    ULONG NextId;
    ULONG ClientCount;
    DOG_EXPIRY History[DOG_HISTORY];
    ULONG HistoryCount;

    KEVENT Changed;                     /* deadlines have come or gone, or the thread is to end */
    BOOLEAN Stop;
    PVOID Thread;
} DOG_EXTENSION, *PDOG_EXTENSION;

static PDEVICE_OBJECT DogDevice;

static NTSTATUS DogComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static VOID DogCompleteAll(PLIST_ENTRY Done)
{
    while (!IsListEmpty(Done))
        IoCompleteRequest(CONTAINING_RECORD(RemoveHeadList(Done), IRP, Tail.Overlay.ListEntry), IO_NO_INCREMENT);
}

/* Waiting requests */

static VOID NTAPI DogCancel(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDOG_EXTENSION ext = Device->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&ext->Lock, &irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&ext->Lock, irql);
    DogComplete(Irp, STATUS_CANCELLED, 0);
}

/* With Lock held: the oldest waiting request that is not being cancelled. */
static PIRP TakeWaiting(PCLIENT Client)
{
    while (!IsListEmpty(&Client->Waiting)) {
        PLIST_ENTRY e = RemoveHeadList(&Client->Waiting);
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        InitializeListHead(e);
        if (IoSetCancelRoutine(irp, NULL)) return irp;
    }
    return NULL;
}

/* With Lock held: all that waits for a client's expiry, with this status, to Done. */
static VOID EndWaiting(PCLIENT Client, NTSTATUS Status, PLIST_ENTRY Done)
{
    PIRP irp;

    while ((irp = TakeWaiting(Client)) != NULL) {
        irp->IoStatus.Status = Status;
        irp->IoStatus.Information = 0;
        if (NT_SUCCESS(Status)) {
            *(DOG_EXPIRY *)irp->AssociatedIrp.SystemBuffer = Client->Last;
            irp->IoStatus.Information = sizeof(DOG_EXPIRY);
            Client->Expired = FALSE;
        }
        InsertTailList(Done, &irp->Tail.Overlay.ListEntry);
    }
}

/* The thread */

/* With Lock held. */
static VOID Expire(PDOG_EXTENSION Ext, PCLIENT Client, ULONGLONG Now, PLIST_ENTRY Done)
{
    Client->Armed = FALSE;
    Client->Expired = TRUE;
    Client->Expiries++;
    Client->Last.Id = Client->Id;
    Client->Last.Cookie = Client->Cookie;
    Client->Last.Time = Now;
    Ext->History[Ext->HistoryCount++ % DOG_HISTORY] = Client->Last;
    EndWaiting(Client, STATUS_SUCCESS, Done);
}

/* Tells what has expired; the next deadline, or 0 for none. */
static ULONGLONG Scan(PDOG_EXTENSION Ext)
{
    ULONGLONG now = KeQueryInterruptTime(), next = 0;
    LIST_ENTRY done, *e;
    KIRQL irql;

    InitializeListHead(&done);
    KeAcquireSpinLock(&Ext->Lock, &irql);
    for (e = Ext->Clients.Flink; e != &Ext->Clients; e = e->Flink) {
        PCLIENT client = CONTAINING_RECORD(e, CLIENT, Link);
        if (!client->Armed) continue;
        if (client->Deadline <= now) Expire(Ext, client, now, &done);
        else if (!next || client->Deadline < next) next = client->Deadline;
    }
    KeReleaseSpinLock(&Ext->Lock, irql);
    DogCompleteAll(&done);
    return next;
}

static BOOLEAN Stopped(PDOG_EXTENSION Ext)
{
    BOOLEAN stop;
    KIRQL irql;
    KeAcquireSpinLock(&Ext->Lock, &irql);
    stop = Ext->Stop;
    KeReleaseSpinLock(&Ext->Lock, irql);
    return stop;
}

static VOID NTAPI DogThread(PVOID Context)
{
    PDOG_EXTENSION ext = Context;

    for (;;) {
        LARGE_INTEGER timeout;
        ULONGLONG next, now;

#ifdef FIXED
        KeClearEvent(&ext->Changed);
        next = Scan(ext);
#else
        next = Scan(ext);
        KeClearEvent(&ext->Changed);
#endif
        if (Stopped(ext)) break;
        if (next) {
            now = KeQueryInterruptTime();
            timeout.QuadPart = next > now ? -(LONGLONG)(next - now) : 0;
        }
        KeWaitForSingleObject(&ext->Changed, Executive, KernelMode, FALSE, next ? &timeout : NULL);
    }
    PsTerminateSystemThread(STATUS_SUCCESS);
}

/* Requests */

static VOID SetDeadline(PCLIENT Client)
{
    Client->Deadline = KeQueryInterruptTime() + (ULONGLONG)Client->TimeoutMs * 10000;
}

static NTSTATUS DogArm(PDOG_EXTENSION Ext, PCLIENT Client, const DOG_ARM *Arm)
{
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    if (Arm->TimeoutMs == 0 || Arm->TimeoutMs > DOG_MAX_MS) return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&Ext->Lock, &irql);
    if (Client->Closing) status = STATUS_CANCELLED;
    else {
        Client->TimeoutMs = Arm->TimeoutMs;
        Client->Cookie = Arm->Cookie;
        Client->Armed = TRUE;
        Client->Expired = FALSE;
        SetDeadline(Client);
    }
    KeReleaseSpinLock(&Ext->Lock, irql);
    if (NT_SUCCESS(status)) KeSetEvent(&Ext->Changed, IO_NO_INCREMENT, FALSE);
    return status;
}

/* A kick only moves a deadline away: the thread finds that out when it wakes for the old one. */
static NTSTATUS DogKick(PDOG_EXTENSION Ext, PCLIENT Client)
{
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    KeAcquireSpinLock(&Ext->Lock, &irql);
    if (!Client->Armed) status = STATUS_INVALID_DEVICE_STATE;
    else {
        Client->Kicks++;
        SetDeadline(Client);
    }
    KeReleaseSpinLock(&Ext->Lock, irql);
    return status;
}

static NTSTATUS DogDisarm(PDOG_EXTENSION Ext, PCLIENT Client)
{
    NTSTATUS status = STATUS_SUCCESS;
    LIST_ENTRY done;
    KIRQL irql;

    InitializeListHead(&done);
    KeAcquireSpinLock(&Ext->Lock, &irql);
    if (!Client->Armed) status = STATUS_INVALID_DEVICE_STATE;
    else {
        Client->Armed = FALSE;
        EndWaiting(Client, STATUS_CANCELLED, &done);
    }
    KeReleaseSpinLock(&Ext->Lock, irql);
    DogCompleteAll(&done);
    return status;
}

static NTSTATUS DogWait(PDOG_EXTENSION Ext, PCLIENT Client, PIRP Irp, ULONG Room)
{
    NTSTATUS status = STATUS_PENDING;
    KIRQL irql;

    if (Room < sizeof(DOG_EXPIRY)) return DogComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    KeAcquireSpinLock(&Ext->Lock, &irql);
    if (Client->Closing) status = STATUS_CANCELLED;
    else if (Client->Expired) {
        *(DOG_EXPIRY *)Irp->AssociatedIrp.SystemBuffer = Client->Last;
        Client->Expired = FALSE;
        status = STATUS_SUCCESS;
    } else if (!Client->Armed) status = STATUS_INVALID_DEVICE_STATE;
    else {
        IoMarkIrpPending(Irp);
        InsertTailList(&Client->Waiting, &Irp->Tail.Overlay.ListEntry);
        IoSetCancelRoutine(Irp, DogCancel);
        if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL)) {
            RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
            KeReleaseSpinLock(&Ext->Lock, irql);
            DogComplete(Irp, STATUS_CANCELLED, 0);
            return STATUS_PENDING;
        }
    }
    KeReleaseSpinLock(&Ext->Lock, irql);
    if (status == STATUS_PENDING) return status;
    return DogComplete(Irp, status, NT_SUCCESS(status) ? sizeof(DOG_EXPIRY) : 0);
}

static VOID DogGetStatus(PDOG_EXTENSION Ext, PCLIENT Client, DOG_STATUS *Status)
{
    ULONGLONG now = KeQueryInterruptTime();
    KIRQL irql;

    RtlZeroMemory(Status, sizeof(*Status));
    KeAcquireSpinLock(&Ext->Lock, &irql);
    Status->Id = Client->Id;
    Status->Armed = Client->Armed;
    Status->Kicks = Client->Kicks;
    Status->Expiries = Client->Expiries;
    Status->Clients = Ext->ClientCount;
    if (Client->Armed && Client->Deadline > now) Status->LeftMs = (ULONG)((Client->Deadline - now) / 10000);
    KeReleaseSpinLock(&Ext->Lock, irql);
}

/* The newest expiries first, as many as there is room for. */
static ULONG DogGetHistory(PDOG_EXTENSION Ext, DOG_EXPIRY *Entries, ULONG Room)
{
    ULONG count, i;
    KIRQL irql;

    KeAcquireSpinLock(&Ext->Lock, &irql);
    count = Ext->HistoryCount < DOG_HISTORY ? Ext->HistoryCount : DOG_HISTORY;
    if (count > Room / sizeof(DOG_EXPIRY)) count = Room / sizeof(DOG_EXPIRY);
    for (i = 0; i < count; i++) Entries[i] = Ext->History[(Ext->HistoryCount - 1 - i) % DOG_HISTORY];
    KeReleaseSpinLock(&Ext->Lock, irql);
    return count * sizeof(DOG_EXPIRY);
}

static NTSTATUS NTAPI DogDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDOG_EXTENSION ext = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PCLIENT client = sp->FileObject->FsContext;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_DOG_ARM:
        if (in < sizeof(DOG_ARM)) return DogComplete(Irp, STATUS_INVALID_PARAMETER, 0);
        return DogComplete(Irp, DogArm(ext, client, buffer), 0);
    case IOCTL_DOG_KICK:
        return DogComplete(Irp, DogKick(ext, client), 0);
    case IOCTL_DOG_DISARM:
        return DogComplete(Irp, DogDisarm(ext, client), 0);
    case IOCTL_DOG_WAIT:
        return DogWait(ext, client, Irp, out);
    case IOCTL_DOG_STATUS:
        if (out < sizeof(DOG_STATUS)) return DogComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        DogGetStatus(ext, client, buffer);
        return DogComplete(Irp, STATUS_SUCCESS, sizeof(DOG_STATUS));
    case IOCTL_DOG_HISTORY:
        if (out < sizeof(DOG_EXPIRY)) return DogComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return DogComplete(Irp, STATUS_SUCCESS, DogGetHistory(ext, buffer, out));
    default:
        return DogComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI DogCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDOG_EXTENSION ext = Device->DeviceExtension;
    PCLIENT client = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(CLIENT), DOG_TAG);
    KIRQL irql;

    if (!client) return DogComplete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(client, sizeof(*client));
    InitializeListHead(&client->Waiting);
    KeAcquireSpinLock(&ext->Lock, &irql);
    client->Id = ++ext->NextId;
    ext->ClientCount++;
    InsertTailList(&ext->Clients, &client->Link);
    KeReleaseSpinLock(&ext->Lock, irql);
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = client;
    return DogComplete(Irp, STATUS_SUCCESS, FILE_OPENED);
}

static NTSTATUS NTAPI DogCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDOG_EXTENSION ext = Device->DeviceExtension;
    PCLIENT client = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;
    LIST_ENTRY done;
    KIRQL irql;

    InitializeListHead(&done);
    KeAcquireSpinLock(&ext->Lock, &irql);
    client->Closing = TRUE;
    client->Armed = FALSE;
    EndWaiting(client, STATUS_CANCELLED, &done);
    RemoveEntryList(&client->Link);
    ext->ClientCount--;
    KeReleaseSpinLock(&ext->Lock, irql);
    DogCompleteAll(&done);
    return DogComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DogClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    ExFreePoolWithTag(IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext, DOG_TAG);
    return DogComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID DogEndThread(PDOG_EXTENSION Ext)
{
    KIRQL irql;

    KeAcquireSpinLock(&Ext->Lock, &irql);
    Ext->Stop = TRUE;
    KeReleaseSpinLock(&Ext->Lock, irql);
    KeSetEvent(&Ext->Changed, IO_NO_INCREMENT, FALSE);
    KeWaitForSingleObject(Ext->Thread, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(Ext->Thread);
}

static VOID NTAPI DogUnload(PDRIVER_OBJECT Driver)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\WatchDog");
    UNREFERENCED_PARAMETER(Driver);

    IoDeleteSymbolicLink(&link);
    DogEndThread(DogDevice->DeviceExtension);
    IoDeleteDevice(DogDevice);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\WatchDog"), link = RTL_CONSTANT_STRING(L"\\DosDevices\\WatchDog");
    OBJECT_ATTRIBUTES attributes;
    PDOG_EXTENSION ext;
    HANDLE thread;
    NTSTATUS status;
    UNREFERENCED_PARAMETER(RegistryPath);

    status = IoCreateDevice(Driver, sizeof(DOG_EXTENSION), &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &DogDevice);
    if (!NT_SUCCESS(status)) return status;
    ext = DogDevice->DeviceExtension;
    KeInitializeSpinLock(&ext->Lock);
    InitializeListHead(&ext->Clients);
    KeInitializeEvent(&ext->Changed, NotificationEvent, FALSE);

    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(DogDevice);
        return status;
    }
    InitializeObjectAttributes(&attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    status = PsCreateSystemThread(&thread, THREAD_ALL_ACCESS, &attributes, NULL, NULL, DogThread, ext);
    if (!NT_SUCCESS(status)) {
        IoDeleteSymbolicLink(&link);
        IoDeleteDevice(DogDevice);
        return status;
    }
    ObReferenceObjectByHandle(thread, THREAD_ALL_ACCESS, NULL, KernelMode, &ext->Thread, NULL);
    ZwClose(thread);

    Driver->MajorFunction[IRP_MJ_CREATE] = DogCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DogCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DogClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DogDeviceControl;
    Driver->DriverUnload = DogUnload;
    DogDevice->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

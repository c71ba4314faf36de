/*
 * leasekeep: a lease keeper, a control device without hardware.  An application takes leases, each known by a number,
 * which run out after some milliseconds unless they are renewed or released; of those that ran out it learns.
 *
 * \\.\LeaseKeep
 *   0x222004 ACQUIRE  in  { u32 id, u32 milliseconds }   STATUS_OBJECT_NAME_COLLISION if the number is taken
 *   0x222008 RENEW    in  { u32 id, u32 milliseconds }   the lease now runs so long from now (never shorter than before)
 *   0x22200c RELEASE  in  { u32 id }
 *   0x222010 WAIT     out { u32 id }                     pends until a lease of this handle runs out
 *   0x222014 QUERY    out { u32 leases, u32 acquired, u32 expired, u32 released }
 *
 * Each lease has a timer, and two references: that of the list, and that of the timer, which the DPC gives up.  Renewing
 * is frequent and so does not touch the timer: it moves the deadline, and the DPC sets the timer again when it finds the
 * deadline not reached.  At unload no lease is left, so only a DPC may still be under way: KeFlushQueuedDpcs.
 *
 * The bug: the DPC sets the timer again by the deadline alone, and does not look whether the lease was released
 * meanwhile.  It shows when a lease that has been renewed is released (or its handle closed) just while its timer has
 * expired and the DPC has not got the lock yet: KeCancelTimer says FALSE, the reference is left to the DPC, which sets
 * the timer again.  If the driver is unloaded then (the last handle is closed, nothing else keeps it), the timer is
 * still set: it fires into an unloaded driver, and the lease is never freed.
 *
 * Device: none
 * Rule: unload-still-called, use-after-free, freed-active-timer
 * Needs: schedule
 */
#include <ddk/wdm.h>

#define TAG 'kseL'
#define IOCTL_ACQUIRE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_RENEW   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_RELEASE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_WAIT    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x804, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_QUERY   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x805, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define MAX_LEASES 256
#define MAX_TIME 60000
#define NOTICES 16

typedef struct {
    ULONG Id;
    ULONG Milliseconds;
} LEASE_REQUEST;

typedef struct {
    ULONG Leases, Acquired, Expired, Released;
} LEASE_STATISTICS;

/* What a handle has: the numbers of the leases that ran out and of which it has not learnt. */
typedef struct {
    PFILE_OBJECT FileObject;
    BOOLEAN Closed;              /* cleaned up: no lease and no WAIT request is taken any more */
    ULONG First, Count;
    ULONG Notices[NOTICES];
} HANDLE_CONTEXT;

typedef struct {
    LIST_ENTRY Link;
    LONG References;
    BOOLEAN Linked;
    ULONG Id;
    ULONGLONG Deadline;          /* interrupt time */
    HANDLE_CONTEXT *Owner;       /* valid while Linked */
    KTIMER Timer;
    KDPC Dpc;
} LEASE;

typedef struct {
    KSPIN_LOCK Lock;             /* leases, notices, statistics */
    LIST_ENTRY Leases;
    LEASE_STATISTICS Statistics;

    IO_CSQ Csq;                  /* WAIT requests */
    KSPIN_LOCK CsqLock;
    LIST_ENTRY Waiting;
} EXTENSION;

static PDEVICE_OBJECT ControlDevice;
static const UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\LeaseKeep");
static const UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\LeaseKeep");

/* ---- the queue of WAIT requests ---- */

static VOID NTAPI CsqInsert(PIO_CSQ Csq, PIRP Irp)
{
    EXTENSION *ext = CONTAINING_RECORD(Csq, EXTENSION, Csq);
    InsertTailList(&ext->Waiting, &Irp->Tail.Overlay.ListEntry);
}

static VOID NTAPI CsqRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI CsqPeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    EXTENSION *ext = CONTAINING_RECORD(Csq, EXTENSION, Csq);
    PLIST_ENTRY e = Irp ? Irp->Tail.Overlay.ListEntry.Flink : ext->Waiting.Flink;

    for (; e != &ext->Waiting; e = e->Flink) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (!Context || IoGetCurrentIrpStackLocation(irp)->FileObject == Context)
            return irp;
    }
    return NULL;
}

static VOID NTAPI CsqAcquire(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, EXTENSION, Csq)->CsqLock, Irql);
}

static VOID NTAPI CsqRelease(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, EXTENSION, Csq)->CsqLock, Irql);
}

static NTSTATUS Complete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static VOID NTAPI CsqCanceled(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    Complete(Irp, STATUS_CANCELLED, 0);
}

/* Brings notices and WAIT requests of a handle together. */
static VOID Deliver(EXTENSION *ext, PFILE_OBJECT FileObject)
{
    HANDLE_CONTEXT *handle = FileObject->FsContext;

    for (;;) {
        KIRQL irql;
        PIRP irp = NULL;
        ULONG id = 0;

        KeAcquireSpinLock(&ext->Lock, &irql);
        if (handle->Count && (irp = IoCsqRemoveNextIrp(&ext->Csq, FileObject)) != NULL) {
            id = handle->Notices[handle->First];
            handle->First = (handle->First + 1) % NOTICES;
            handle->Count--;
        }
        KeReleaseSpinLock(&ext->Lock, irql);
        if (!irp)
            return;
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = id;
        Complete(irp, STATUS_SUCCESS, sizeof id);
    }
}

/* ---- leases ---- */

static VOID Dereference(LEASE *lease)
{
    if (InterlockedDecrement(&lease->References) == 0)
        ExFreePoolWithTag(lease, TAG);
}

static VOID SetLeaseTimer(LEASE *lease, ULONGLONG Now)
{
    LARGE_INTEGER due;

    due.QuadPart = -(LONGLONG)(lease->Deadline - Now);
    KeSetTimer(&lease->Timer, due, &lease->Dpc);
}

static LEASE *FindLease(EXTENSION *ext, ULONG Id, HANDLE_CONTEXT *Owner)
{
    PLIST_ENTRY e;

    for (e = ext->Leases.Flink; e != &ext->Leases; e = e->Flink) {
        LEASE *lease = CONTAINING_RECORD(e, LEASE, Link);
        if (lease->Id == Id && (!Owner || lease->Owner == Owner))
            return lease;
    }
    return NULL;
}

/* With the lock held.  The list's reference is the caller's from here on. */
static VOID Unlink(EXTENSION *ext, LEASE *lease)
{
    RemoveEntryList(&lease->Link);
    lease->Linked = FALSE;
    ext->Statistics.Leases--;
}

static VOID NTAPI LeaseDpc(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    LEASE *lease = Context;
    EXTENSION *ext = ControlDevice->DeviceExtension;
    PFILE_OBJECT file = NULL;
    BOOLEAN expired = FALSE;
    ULONGLONG now;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);

    KeAcquireSpinLockAtDpcLevel(&ext->Lock);
    now = KeQueryInterruptTime();
#ifdef FIXED
    if (lease->Linked && now < lease->Deadline) {
#else
    if (now < lease->Deadline) {
#endif
        /* Renewed meanwhile.  The timer keeps its reference. */
        SetLeaseTimer(lease, now);
        KeReleaseSpinLockFromDpcLevel(&ext->Lock);
        return;
    }
    if (lease->Linked) {
        HANDLE_CONTEXT *owner = lease->Owner;

        Unlink(ext, lease);
        expired = TRUE;
        ext->Statistics.Expired++;
        if (owner->Count < NOTICES)
            owner->Notices[(owner->First + owner->Count++) % NOTICES] = lease->Id;
        file = owner->FileObject;
        ObReferenceObject(file); /* what Deliver looks at stays until it is done */
    }
    KeReleaseSpinLockFromDpcLevel(&ext->Lock);

    if (expired) {
        Deliver(ext, file);
        ObDereferenceObjectDeferDelete(file);
        Dereference(lease); /* the list's */
    }
    Dereference(lease);     /* the timer's */
}

static VOID ReleaseLocked(EXTENSION *ext, LEASE *lease)
{
    Unlink(ext, lease);
    ext->Statistics.Released++;
    if (KeCancelTimer(&lease->Timer))
        Dereference(lease); /* the timer's; else the DPC is on its way, and gives it up */
    Dereference(lease);
}

static NTSTATUS Acquire(EXTENSION *ext, HANDLE_CONTEXT *handle, const LEASE_REQUEST *request)
{
    NTSTATUS status = STATUS_SUCCESS;
    LEASE *lease;
    KIRQL irql;

    if (!request->Milliseconds || request->Milliseconds > MAX_TIME)
        return STATUS_INVALID_PARAMETER;
    lease = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof *lease, TAG);
    if (!lease)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(lease, sizeof *lease);
    lease->References = 2;
    lease->Id = request->Id;
    lease->Owner = handle;
    KeInitializeTimer(&lease->Timer);
    KeInitializeDpc(&lease->Dpc, LeaseDpc, lease);

    KeAcquireSpinLock(&ext->Lock, &irql);
    if (handle->Closed)
        status = STATUS_FILE_CLOSED;
    else if (FindLease(ext, request->Id, NULL))
        status = STATUS_OBJECT_NAME_COLLISION;
    else if (ext->Statistics.Leases >= MAX_LEASES)
        status = STATUS_QUOTA_EXCEEDED;
    else {
        ULONGLONG now = KeQueryInterruptTime();

        InsertTailList(&ext->Leases, &lease->Link);
        lease->Linked = TRUE;
        ext->Statistics.Leases++;
        ext->Statistics.Acquired++;
        lease->Deadline = now + request->Milliseconds * 10000ull;
        SetLeaseTimer(lease, now);
    }
    KeReleaseSpinLock(&ext->Lock, irql);
    if (!NT_SUCCESS(status))
        ExFreePoolWithTag(lease, TAG);
    return status;
}

static NTSTATUS Renew(EXTENSION *ext, HANDLE_CONTEXT *handle, const LEASE_REQUEST *request)
{
    LEASE *lease;
    KIRQL irql;

    if (!request->Milliseconds || request->Milliseconds > MAX_TIME)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&ext->Lock, &irql);
    lease = FindLease(ext, request->Id, handle);
    if (lease) {
        ULONGLONG deadline = KeQueryInterruptTime() + request->Milliseconds * 10000ull;
        if (deadline > lease->Deadline)
            lease->Deadline = deadline;
    }
    KeReleaseSpinLock(&ext->Lock, irql);
    return lease ? STATUS_SUCCESS : STATUS_NOT_FOUND;
}

static NTSTATUS Release(EXTENSION *ext, HANDLE_CONTEXT *handle, ULONG Id)
{
    LEASE *lease;
    KIRQL irql;

    KeAcquireSpinLock(&ext->Lock, &irql);
    lease = FindLease(ext, Id, handle);
    if (lease)
        ReleaseLocked(ext, lease);
    KeReleaseSpinLock(&ext->Lock, irql);
    return lease ? STATUS_SUCCESS : STATUS_NOT_FOUND;
}

/* ---- dispatch ---- */

static NTSTATUS NTAPI DispatchCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    HANDLE_CONTEXT *handle = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof *handle, TAG);

    UNREFERENCED_PARAMETER(Device);
    if (!handle)
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(handle, sizeof *handle);
    handle->FileObject = file;
    file->FsContext = handle;
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static BOOLEAN IsClosed(EXTENSION *ext, HANDLE_CONTEXT *handle)
{
    BOOLEAN closed;
    KIRQL irql;

    KeAcquireSpinLock(&ext->Lock, &irql);
    closed = handle->Closed;
    KeReleaseSpinLock(&ext->Lock, irql);
    return closed;
}

static VOID CancelWaiting(EXTENSION *ext, PFILE_OBJECT FileObject)
{
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&ext->Csq, FileObject)) != NULL)
        Complete(irp, STATUS_CANCELLED, 0);
}

static NTSTATUS NTAPI DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PLIST_ENTRY e, next;
    KIRQL irql;

    KeAcquireSpinLock(&ext->Lock, &irql);
    ((HANDLE_CONTEXT *)file->FsContext)->Closed = TRUE;
    for (e = ext->Leases.Flink; e != &ext->Leases; e = next) {
        LEASE *lease = CONTAINING_RECORD(e, LEASE, Link);
        next = e->Flink;
        if (lease->Owner == file->FsContext)
            ReleaseLocked(ext, lease);
    }
    KeReleaseSpinLock(&ext->Lock, irql);

    CancelWaiting(ext, file);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;

    UNREFERENCED_PARAMETER(Device);
    ExFreePoolWithTag(file->FsContext, TAG);
    file->FsContext = NULL;
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    HANDLE_CONTEXT *handle = sp->FileObject->FsContext;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PFILE_OBJECT file = sp->FileObject;
    LEASE_STATISTICS statistics;
    KIRQL irql;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ACQUIRE:
        if (in < sizeof(LEASE_REQUEST))
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return Complete(Irp, Acquire(ext, handle, buffer), 0);

    case IOCTL_RENEW:
        if (in < sizeof(LEASE_REQUEST))
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return Complete(Irp, Renew(ext, handle, buffer), 0);

    case IOCTL_RELEASE:
        if (in < sizeof(ULONG))
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return Complete(Irp, Release(ext, handle, *(ULONG *)buffer), 0);

    case IOCTL_WAIT:
        if (out < sizeof(ULONG))
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        ObReferenceObject(file);
        IoCsqInsertIrp(&ext->Csq, Irp, NULL);
        Deliver(ext, file);
        if (IsClosed(ext, handle))
            CancelWaiting(ext, file);
        ObDereferenceObject(file);
        return STATUS_PENDING;

    case IOCTL_QUERY:
        if (out < sizeof statistics)
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&ext->Lock, &irql);
        statistics = ext->Statistics;
        KeReleaseSpinLock(&ext->Lock, irql);
        RtlCopyMemory(buffer, &statistics, sizeof statistics);
        return Complete(Irp, STATUS_SUCCESS, sizeof statistics);
    }
    return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    IoDeleteSymbolicLink((PUNICODE_STRING)&LinkName);
    KeFlushQueuedDpcs();
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    EXTENSION *ext;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = IoCreateDevice(Driver, sizeof *ext, (PUNICODE_STRING)&DeviceName, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &ControlDevice);
    if (!NT_SUCCESS(status))
        return status;
    ext = ControlDevice->DeviceExtension;
    KeInitializeSpinLock(&ext->Lock);
    KeInitializeSpinLock(&ext->CsqLock);
    InitializeListHead(&ext->Leases);
    InitializeListHead(&ext->Waiting);
    status = IoCsqInitialize(&ext->Csq, CsqInsert, CsqRemove, CsqPeek, CsqAcquire, CsqRelease, CsqCanceled);
    if (NT_SUCCESS(status))
        status = IoCreateSymbolicLink((PUNICODE_STRING)&LinkName, (PUNICODE_STRING)&DeviceName);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(ControlDevice);
        return status;
    }
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}

/*
 * BOBBIN: records time stamps at a regular pace for latency measurements.  START sets the pace of
 * the calling handle, STOP ends it, FETCH returns what has been recorded since the last FETCH.
 * The records of a handle are in paged pool, so a work item writes them when the timer has fired.
 *
 * The bug: closing a handle cancels the timer and waits for its DPC, but not for the work item the
 * DPC may have queued; the work item is freed while queued, or writes to memory that is freed.
 *
 * Device: ROOT\BOBBIN
 * Rule: use-after-free, work-item-queued
 * Needs: ioctl, schedule
 */
#include "../include/jetty_pnp.h"

/* {9D0C7B1E-5F44-49C6-B0F1-6A8E1C3B2D90} */
static const GUID BobbinInterface =
    { 0x9d0c7b1e, 0x5f44, 0x49c6, { 0xb0, 0xf1, 0x6a, 0x8e, 0x1c, 0x3b, 0x2d, 0x90 } };

#define IOCTL_BOBBIN_START CTL_CODE(FILE_DEVICE_UNKNOWN, 0x861, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BOBBIN_STOP  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x862, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BOBBIN_FETCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x863, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define BOBBIN_RECORDS 1024

typedef struct _BOBBIN_RECORD {
    LONGLONG Fired;             /* performance counter in the DPC ... */
    LONGLONG Served;            /* ... and in the work item */
    ULONG Missed;               /* ticks since the record before that were too early for the work item */
    ULONG Lost;                 /* records dropped since the one before, the store being full */
} BOBBIN_RECORD, *PBOBBIN_RECORD;

typedef struct _BOBBIN_DEVICE {
    JETTY_COMMON Common;
} BOBBIN_DEVICE, *PBOBBIN_DEVICE;

/* What belongs to a handle. */
typedef struct _BOBBIN {
    KTIMER Timer;
    KDPC Dpc;
    PIO_WORKITEM Item;
    LONG Queued;                /* the work item is */
    LONG Users;                 /* the handle, and the work item while queued */
    KEVENT Idle;                /* no user is left */
    LONGLONG Fired;
    LONG Missed;
    FAST_MUTEX Mutex;           /* all below */
    ULONG First, Count, Lost;
    PBOBBIN_RECORD Records;     /* paged */
} BOBBIN, *PBOBBIN;

static VOID NTAPI BobbinWork(PDEVICE_OBJECT Fdo, PVOID Context)
{
    PBOBBIN b = Context;
    PBOBBIN_RECORD record;

    UNREFERENCED_PARAMETER(Fdo);
    ExAcquireFastMutex(&b->Mutex);
    if (b->Count < BOBBIN_RECORDS) {
        record = &b->Records[(b->First + b->Count) % BOBBIN_RECORDS];
        record->Fired = b->Fired;
        record->Served = KeQueryPerformanceCounter(NULL).QuadPart;
        record->Missed = (ULONG)InterlockedExchange(&b->Missed, 0);
        record->Lost = b->Lost;
        b->Lost = 0;
        b->Count++;
    } else {
        b->Lost++;
    }
    ExReleaseFastMutex(&b->Mutex);

    InterlockedExchange(&b->Queued, 0);
    if (InterlockedDecrement(&b->Users) == 0)
        KeSetEvent(&b->Idle, IO_NO_INCREMENT, FALSE);
}

static VOID NTAPI BobbinTick(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PBOBBIN b = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    if (InterlockedCompareExchange(&b->Queued, 1, 0) == 0) {
        b->Fired = KeQueryPerformanceCounter(NULL).QuadPart;
        InterlockedIncrement(&b->Users);
        IoQueueWorkItem(b->Item, BobbinWork, DelayedWorkQueue, b);
    } else {
        InterlockedIncrement(&b->Missed);
    }
}

static NTSTATUS NTAPI BobbinCreate(PDEVICE_OBJECT Fdo, PIRP Irp)
{
    PBOBBIN_DEVICE d = Fdo->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&d->Common.RemoveLock, Irp);
    PBOBBIN b;

    if (!NT_SUCCESS(status))
        return JettyComplete(Irp, status, 0);
    b = ExAllocatePoolWithTag(NonPagedPool, sizeof(*b), JETTY_TAG);
    if (!b)
        goto fail;
    RtlZeroMemory(b, sizeof(*b));
    b->Records = ExAllocatePoolWithTag(PagedPool, BOBBIN_RECORDS * sizeof(BOBBIN_RECORD), JETTY_TAG);
    if (!b->Records)
        goto fail_handle;
    b->Item = IoAllocateWorkItem(Fdo);
    if (!b->Item)
        goto fail_records;

    KeInitializeTimerEx(&b->Timer, SynchronizationTimer);
    KeInitializeDpc(&b->Dpc, BobbinTick, b);
    KeInitializeEvent(&b->Idle, NotificationEvent, FALSE);
    ExInitializeFastMutex(&b->Mutex);
    b->Users = 1;
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = b;
    return JettyFinish(d, Irp, STATUS_SUCCESS, 0);

fail_records:
    ExFreePoolWithTag(b->Records, JETTY_TAG);
fail_handle:
    ExFreePoolWithTag(b, JETTY_TAG);
fail:
    return JettyFinish(d, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
}

static NTSTATUS NTAPI BobbinCleanup(PDEVICE_OBJECT Fdo, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Fdo);
    return JettyComplete(Irp, STATUS_SUCCESS, 0);
}

/* No request of this handle is under way any more, and none can come. */
static NTSTATUS NTAPI BobbinClose(PDEVICE_OBJECT Fdo, PIRP Irp)
{
    PBOBBIN b = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;

    UNREFERENCED_PARAMETER(Fdo);
    KeCancelTimer(&b->Timer);
    KeFlushQueuedDpcs();
#ifdef FIXED
    if (InterlockedDecrement(&b->Users) != 0)
        KeWaitForSingleObject(&b->Idle, Executive, KernelMode, FALSE, NULL);
#endif
    IoFreeWorkItem(b->Item);
    ExFreePoolWithTag(b->Records, JETTY_TAG);
    ExFreePoolWithTag(b, JETTY_TAG);
    return JettyComplete(Irp, STATUS_SUCCESS, 0);
}

static ULONG BobbinFetch(PBOBBIN b, PBOBBIN_RECORD Out, ULONG Room)
{
    ULONG n;

    ExAcquireFastMutex(&b->Mutex);
    for (n = 0; n < Room && b->Count != 0; n++) {
        Out[n] = b->Records[b->First];
        b->First = (b->First + 1) % BOBBIN_RECORDS;
        b->Count--;
    }
    ExReleaseFastMutex(&b->Mutex);
    return n;
}

static NTSTATUS NTAPI BobbinControl(PDEVICE_OBJECT Fdo, PIRP Irp)
{
    PBOBBIN_DEVICE d = Fdo->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = s->Parameters.DeviceIoControl.OutputBufferLength;
    PBOBBIN b = s->FileObject ? s->FileObject->FsContext : NULL;
    ULONG_PTR information = 0;
    LARGE_INTEGER due;
    ULONG period;
    NTSTATUS status = IoAcquireRemoveLock(&d->Common.RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return JettyComplete(Irp, status, 0);
    if (!b)
        return JettyFinish(d, Irp, STATUS_INVALID_HANDLE, 0);

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BOBBIN_START:
        if (in < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        period = *(PULONG)buffer;               /* milliseconds */
        if (period < 1 || period > 60000) {
            status = STATUS_INVALID_PARAMETER;
            break;
        }
        due.QuadPart = -(LONGLONG)period * 10000;
        KeSetTimerEx(&b->Timer, due, (LONG)period, &b->Dpc);
        status = STATUS_SUCCESS;
        break;

    case IOCTL_BOBBIN_STOP:
        KeCancelTimer(&b->Timer);
        status = STATUS_SUCCESS;
        break;

    case IOCTL_BOBBIN_FETCH:
        if (out < sizeof(BOBBIN_RECORD)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        information = BobbinFetch(b, buffer, out / sizeof(BOBBIN_RECORD)) * sizeof(BOBBIN_RECORD);
        status = STATUS_SUCCESS;
        break;

    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return JettyFinish(d, Irp, status, information);
}

static NTSTATUS BobbinStart(PVOID Ext, PCM_RESOURCE_LIST Translated)
{
    UNREFERENCED_PARAMETER(Ext);
    UNREFERENCED_PARAMETER(Translated);
    return STATUS_SUCCESS;
}

/* The timers belong to the handles and end with them. */
static VOID BobbinNothing(PVOID Ext)
{
    UNREFERENCED_PARAMETER(Ext);
}

static const JETTY_HOOKS BobbinHooks = {
    .Start = BobbinStart,
    .Stop = BobbinNothing,
    .Gone = BobbinNothing,
};

static NTSTATUS NTAPI BobbinAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return JettyAdd(Driver, Pdo, sizeof(BOBBIN_DEVICE), &BobbinHooks, &BobbinInterface, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    JettyDriver(Driver, BobbinAddDevice);
    Driver->MajorFunction[IRP_MJ_CREATE] = BobbinCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = BobbinCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = BobbinClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = BobbinControl;
    return STATUS_SUCCESS;
}

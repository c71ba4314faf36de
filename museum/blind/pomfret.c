/*
 * pomfret: a checksum service. IOCTL_POMFRET_SUM gives the CRC-32 of its input; the requests are queued and served in
 * turn by a work item, so that a large input does not hold up the caller.
 *
 * The bug: the worker finds the queue empty, lets go of the lock and only then says that it is not running any more.
 * A request queued in between sees a running worker, starts none, and stays in the queue.
 *
 * Device: ROOT\POMFRET
 * Rule: request-forgotten
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>
#include "../include/quill_pnp.h"
#include "../include/quill_queue.h"

#define POMFRET_JOBS    512
#define POMFRET_LONGEST (64 * 1024)

#define IOCTL_POMFRET_SUM   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x830, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_POMFRET_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x831, METHOD_BUFFERED, FILE_READ_ACCESS)

/* {1F3B7E92-94D6-4A8A-A2F5-5B9D0C61E3C7} */
static const GUID PomfretInterface =
    { 0x1f3b7e92, 0x94d6, 0x4a8a, { 0xa2, 0xf5, 0x5b, 0x9d, 0x0c, 0x61, 0xe3, 0xc7 } };

/* What IOCTL_POMFRET_SUM gives. */
typedef struct _POMFRET_SUM {
    ULONG Crc;
    ULONG Length;
} POMFRET_SUM, *PPOMFRET_SUM;

/* What IOCTL_POMFRET_STATE gives. */
typedef struct _POMFRET_STATE {
    ULONG Waiting;
    ULONG Served;
    ULONG Rounds;
} POMFRET_STATE, *PPOMFRET_STATE;

typedef struct _POMFRET {
    QUILL_DEVICE Base;
    QUILL_QUEUE Jobs;               /* its lock protects all that follows */
    PIO_WORKITEM Item;
    KEVENT Idle;                    /* set: no worker is queued or running */
    BOOLEAN Busy;
    ULONG Served;
    ULONG Rounds;
} POMFRET, *PPOMFRET;

static ULONG PomfretCrc(const UCHAR *Data, ULONG Length)
{
    ULONG crc = 0xffffffff;
    ULONG bit;

    while (Length-- != 0) {
        crc ^= *Data++;
        for (bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ ((crc & 1) ? 0xedb88320 : 0);
    }
    return ~crc;
}

/* Serves one request, which has been taken out of the queue. */
static VOID PomfretServe(PPOMFRET Service, PIRP Irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    POMFRET_SUM sum;

    sum.Length = stack->Parameters.DeviceIoControl.InputBufferLength;
    sum.Crc = PomfretCrc((const UCHAR *)Irp->AssociatedIrp.SystemBuffer, sum.Length);
    RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &sum, sizeof(sum));
    QuillQueueEnd(&Service->Jobs, Irp, STATUS_SUCCESS, sizeof(sum));
}

/* The worker is done. Under the lock. */
static VOID PomfretRestLocked(PPOMFRET Service)
{
    Service->Busy = FALSE;
    Service->Rounds++;
    KeSetEvent(&Service->Idle, IO_NO_INCREMENT, FALSE);
}

static VOID NTAPI PomfretWorker(PDEVICE_OBJECT DeviceObject, PVOID Context)
{
    PPOMFRET service = (PPOMFRET)Context;
    PIRP irp;
    KIRQL irql;

    UNREFERENCED_PARAMETER(DeviceObject);

    for (;;) {
        KeAcquireSpinLock(&service->Jobs.Lock, &irql);
        irp = QuillQueueTakeLocked(&service->Jobs, NULL, NULL);
        if (irp != NULL)
            service->Served++;
#ifdef FIXED
        else
            PomfretRestLocked(service);
#endif
        KeReleaseSpinLock(&service->Jobs.Lock, irql);
        if (irp == NULL)
            break;
        PomfretServe(service, irp);
    }
#ifndef FIXED
    KeAcquireSpinLock(&service->Jobs.Lock, &irql);
    PomfretRestLocked(service);
    KeReleaseSpinLock(&service->Jobs.Lock, irql);
#endif
}

/* Queues a request and sees to it that a worker is on its way. The request has entered. */
static NTSTATUS PomfretQueue(PPOMFRET Service, PIRP Irp)
{
    NTSTATUS status;
    KIRQL irql;

    IoMarkIrpPending(Irp);
    KeAcquireSpinLock(&Service->Jobs.Lock, &irql);
    status = QuillQueueInsertLocked(&Service->Jobs, Irp, NULL);
    if (NT_SUCCESS(status) && !Service->Busy) {
        Service->Busy = TRUE;
        KeClearEvent(&Service->Idle);
        IoQueueWorkItem(Service->Item, PomfretWorker, DelayedWorkQueue, Service);
    }
    KeReleaseSpinLock(&Service->Jobs.Lock, irql);

    if (!NT_SUCCESS(status))
        QuillQueueEnd(&Service->Jobs, Irp, status, 0);
    return STATUS_PENDING;
}

static NTSTATUS PomfretInit(PQUILL_DEVICE Device)
{
    PPOMFRET service = CONTAINING_RECORD(Device, POMFRET, Base);

    QuillQueueInit(&service->Jobs, &Device->RemoveLock, POMFRET_JOBS);
    KeInitializeEvent(&service->Idle, NotificationEvent, TRUE);
    service->Item = IoAllocateWorkItem(Device->Self);
    if (service->Item == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    return STATUS_SUCCESS;
}

static NTSTATUS PomfretStart(PQUILL_DEVICE Device)
{
    return QuillInterfaceOn(Device);
}

static VOID PomfretStop(PQUILL_DEVICE Device)
{
    UNREFERENCED_PARAMETER(Device);
}

/* Ends what is queued, then waits for the worker; with the queue closed no new one is begun. */
static VOID PomfretAbort(PQUILL_DEVICE Device)
{
    PPOMFRET service = CONTAINING_RECORD(Device, POMFRET, Base);
    KIRQL irql;

    QuillQueueClose(&service->Jobs);
    KeWaitForSingleObject(&service->Idle, Executive, KernelMode, FALSE, NULL);
    /* The event was set under the lock: after this the worker does not use our data any more. */
    KeAcquireSpinLock(&service->Jobs.Lock, &irql);
    KeReleaseSpinLock(&service->Jobs.Lock, irql);
}

static VOID PomfretFree(PQUILL_DEVICE Device)
{
    PPOMFRET service = CONTAINING_RECORD(Device, POMFRET, Base);

    IoFreeWorkItem(service->Item);
    service->Item = NULL;
}

static const QUILL_OPS PomfretOps = {
    sizeof(POMFRET), &PomfretInterface, PomfretInit, PomfretStart, PomfretStop, PomfretAbort, PomfretFree
};

static NTSTATUS NTAPI PomfretCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPOMFRET service = (PPOMFRET)DeviceObject->DeviceExtension;
    NTSTATUS status;

    status = QuillEnter(&service->Base, Irp);
    if (!NT_SUCCESS(status))
        return QuillComplete(Irp, status, 0);
    status = QuillMayOpen(&service->Base, IoGetCurrentIrpStackLocation(Irp)->FileObject);
    return QuillLeave(&service->Base, Irp, status, 0);
}

static NTSTATUS NTAPI PomfretCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPOMFRET service = (PPOMFRET)DeviceObject->DeviceExtension;

    QuillQueueCleanup(&service->Jobs, IoGetCurrentIrpStackLocation(Irp)->FileObject);
    return QuillComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI PomfretClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return QuillComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI PomfretControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPOMFRET service = (PPOMFRET)DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG input = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG output = stack->Parameters.DeviceIoControl.OutputBufferLength;
    POMFRET_STATE state;
    NTSTATUS status;
    KIRQL irql;

    status = QuillEnter(&service->Base, Irp);
    if (!NT_SUCCESS(status))
        return QuillComplete(Irp, status, 0);

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_POMFRET_SUM:
        if (input == 0 || input > POMFRET_LONGEST)
            return QuillLeave(&service->Base, Irp, STATUS_INVALID_PARAMETER, 0);
        if (output < sizeof(POMFRET_SUM))
            return QuillLeave(&service->Base, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return PomfretQueue(service, Irp);

    case IOCTL_POMFRET_STATE:
        if (output < sizeof(state))
            return QuillLeave(&service->Base, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&service->Jobs.Lock, &irql);
        state.Waiting = service->Jobs.Count;
        state.Served = service->Served;
        state.Rounds = service->Rounds;
        KeReleaseSpinLock(&service->Jobs.Lock, irql);
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &state, sizeof(state));
        return QuillLeave(&service->Base, Irp, STATUS_SUCCESS, sizeof(state));

    default:
        return QuillLeave(&service->Base, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI PomfretAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return QuillAddDevice(Driver, Pdo, &PomfretOps);
}

static VOID NTAPI PomfretUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);

    QuillHook(Driver);
    Driver->MajorFunction[IRP_MJ_CREATE] = PomfretCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = PomfretCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = PomfretClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = PomfretControl;
    Driver->DriverExtension->AddDevice = PomfretAddDevice;
    Driver->DriverUnload = PomfretUnload;
    return STATUS_SUCCESS;
}

/*
 * modemat: a status gauge that sits on a (virtual) modem port: IOCTL_LINE asks the port below with an internal request for the state of its lines
 * and gives up after two seconds.
 *
 * The bug: when the time is over the driver cancels its request and frees it with its answer buffer and event at once, as if cancelling had ended it:
 * the port below, and then the completion routine, go on with freed memory.
 *
 * Device: ROOT\EEMODEMAT
 * Rule: irp-in-use
 * Needs: device
 */
#include <ddk/wdm.h>
#define EE_PNP
#include "../include/framed_by_calls.h"

#define IOCTL_LINE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_LINE_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS)
/* what the port answers, IRP_MJ_INTERNAL_DEVICE_CONTROL */
#define IOCTL_INTERNAL_LINES CTL_CODE(FILE_DEVICE_SERIAL_PORT, 0x8E0, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define LIMIT_MS 2000

static const GUID LineGuid = { 0x7b1c0e53, 0x2a41, 0x4c11, { 0x9d, 0x10, 0x5e, 0x01, 0x11, 0x22, 0x33, 0x03 } };

typedef struct _LINES {
    ULONG Speed;
    ULONG Lines;                /* 1 CTS, 2 DSR, 4 RI, 8 DCD */
    ULONG Errors;
    ULONG Reserved;
} LINES;

typedef struct _COUNTS {
    ULONG Asked, Answered, Failed, Late;
} COUNTS;

typedef struct _DEV {
    EE Ee;                      /* first */
    LONG Out;                   /* requests of ours that are below */
    COUNTS Counts;
} DEV;

#define MAX_OUT 16

typedef struct _QUERY {
    DEV *Dev;
    PIRP Irp;
    KEVENT Done;
    LONG Refs;                  /* one of the thread that waits, one of the request below */
    IO_STATUS_BLOCK Ios;
    LINES Answer;
} QUERY;

static VOID DrvGone(EE *ee)
{
    UNREFERENCED_PARAMETER(ee);         /* who waits, waits two seconds at most */
}

static VOID QueryFree(QUERY *q)
{
    DEV *d = q->Dev;

    IoFreeIrp(q->Irp);
    InterlockedDecrement(&d->Out);
    ExFreePoolWithTag(q, EE_TAG);
    IoReleaseRemoveLock(&d->Ee.Remove, d);
}

#ifdef FIXED
static VOID QueryDrop(QUERY *q)
{
    if (InterlockedDecrement(&q->Refs) == 0)
        QueryFree(q);
}
#endif

static NTSTATUS NTAPI QueryDone(PDEVICE_OBJECT dev, PIRP irp, PVOID ctx)
{
    QUERY *q = ctx;

    UNREFERENCED_PARAMETER(dev);
    q->Ios = irp->IoStatus;
    KeSetEvent(&q->Done, IO_NO_INCREMENT, FALSE);
#ifdef FIXED
    QueryDrop(q);
#endif
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS QuerySend(DEV *d, QUERY **out)
{
    PIO_STACK_LOCATION sp;
    QUERY *q;
    NTSTATUS st;

    if (InterlockedIncrement(&d->Out) > MAX_OUT) {
        st = STATUS_DEVICE_BUSY;
        goto count;
    }
    st = IoAcquireRemoveLock(&d->Ee.Remove, d);
    if (!NT_SUCCESS(st))
        goto count;
    st = STATUS_INSUFFICIENT_RESOURCES;
    q = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*q), EE_TAG);
    if (!q)
        goto lock;
    RtlZeroMemory(q, sizeof(*q));
    q->Dev = d;
    q->Refs = 2;
    KeInitializeEvent(&q->Done, NotificationEvent, FALSE);
    q->Irp = IoAllocateIrp(d->Ee.Next->StackSize, FALSE);
    if (!q->Irp)
        goto query;
    sp = IoGetNextIrpStackLocation(q->Irp);
    sp->MajorFunction = IRP_MJ_INTERNAL_DEVICE_CONTROL;
    sp->Parameters.DeviceIoControl.IoControlCode = IOCTL_INTERNAL_LINES;
    sp->Parameters.DeviceIoControl.OutputBufferLength = sizeof(q->Answer);
    q->Irp->AssociatedIrp.SystemBuffer = &q->Answer;
    q->Irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
    /* the ...Ex routine keeps the device object, and with it the driver, until the completion routine has returned */
    st = IoSetCompletionRoutineEx(d->Ee.Self, q->Irp, QueryDone, q, TRUE, TRUE, TRUE);
    if (!NT_SUCCESS(st))
        goto irp;
    IoCallDriver(d->Ee.Next, q->Irp);
    *out = q;
    return STATUS_SUCCESS;

irp:
    IoFreeIrp(q->Irp);
query:
    ExFreePoolWithTag(q, EE_TAG);
lock:
    IoReleaseRemoveLock(&d->Ee.Remove, d);
count:
    InterlockedDecrement(&d->Out);
    return st;
}

static NTSTATUS LineRequest(DEV *d, PIRP irp, PIO_STACK_LOCATION sp, PULONG_PTR info)
{
    LARGE_INTEGER limit;
    QUERY *q;
    NTSTATUS st;

    if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LINES))
        return STATUS_BUFFER_TOO_SMALL;
    st = QuerySend(d, &q);
    if (!NT_SUCCESS(st))
        return st;
    InterlockedIncrement((PLONG)&d->Counts.Asked);
    limit.QuadPart = -(LONGLONG)LIMIT_MS * 10000;
    if (KeWaitForSingleObject(&q->Done, Executive, KernelMode, FALSE, &limit) == STATUS_SUCCESS) {
        st = q->Ios.Status;
        if (NT_SUCCESS(st) && q->Ios.Information != sizeof(LINES))
            st = STATUS_DEVICE_PROTOCOL_ERROR;
        if (NT_SUCCESS(st)) {
            RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &q->Answer, sizeof(LINES));
            *info = sizeof(LINES);
            InterlockedIncrement((PLONG)&d->Counts.Answered);
        } else {
            InterlockedIncrement((PLONG)&d->Counts.Failed);
        }
    } else {
        st = STATUS_IO_TIMEOUT;
        InterlockedIncrement((PLONG)&d->Counts.Late);
        IoCancelIrp(q->Irp);
    }
#ifdef FIXED
    QueryDrop(q);               /* the request below goes with the last of the two */
#else
    QueryFree(q);
#endif
    return st;
}

static NTSTATUS CountsRequest(DEV *d, PIRP irp, PIO_STACK_LOCATION sp, PULONG_PTR info)
{
    if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(COUNTS))
        return STATUS_BUFFER_TOO_SMALL;
    RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &d->Counts, sizeof(COUNTS));
    *info = sizeof(COUNTS);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT dev, PIRP irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    DEV *d = dev->DeviceExtension;
    ULONG_PTR info = 0;
    NTSTATUS st = IoAcquireRemoveLock(&d->Ee.Remove, irp);

    if (!NT_SUCCESS(st))
        return EeDone(irp, st, 0);
    if (!d->Ee.Live)
        st = STATUS_DEVICE_NOT_READY;
    else if (sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_LINE)
        st = LineRequest(d, irp, sp, &info);
    else if (sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_LINE_COUNTS)
        st = CountsRequest(d, irp, sp, &info);
    else
        st = STATUS_INVALID_DEVICE_REQUEST;
    EeDone(irp, st, info);
    IoReleaseRemoveLock(&d->Ee.Remove, irp);
    return st;
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    EE *ee;
    NTSTATUS st = EeNew(drv, pdo, sizeof(DEV), &ee);

    if (!NT_SUCCESS(st))
        return st;
    return EeAttach(ee, &LineGuid, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    EeDriver(drv, AddDevice);
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    return STATUS_SUCCESS;
}

/*
 * outpost: asks a field station, which the driver below speaks to, and hands its answer to the caller; each question has two seconds. How many
 * questions were asked and how many were late can be read.
 *
 * The bug: when the time is over the question is cancelled and its memory and its IRP are freed at once, as if IoCancelIrp meant that the
 * driver below had given the request back. When it comes back later, freed memory is used.
 *
 * Device: ROOT\OUTPOST
 * Rule: irp-in-use
 * Needs: device, schedule
 */
#include "../include/gated_queue.h"

#define TAG 'ptuO'
#define ANSWER_MAX 64
#define PENDING_MAX 32
#define LIMIT_100NS (2 * 10 * 1000 * 1000)

#define IOCTL_OUTPOST_ASK CTL_CODE(FILE_DEVICE_UNKNOWN, 0x860, METHOD_BUFFERED, FILE_READ_ACCESS | FILE_WRITE_ACCESS)
#define IOCTL_OUTPOST_STATS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x861, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_STATION_QUESTION CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A0, METHOD_BUFFERED, FILE_ANY_ACCESS) /* to the driver below */

static const GUID OutpostGuid = {0x6a1d0f11, 0x2c5e, 0x4b0a, {0x9f, 0x31, 0x51, 0x0c, 0x77, 0xd2, 0x18, 0x01}};

typedef struct _QUESTION {
    ULONG Station;
    ULONG Number;
} QUESTION, *PQUESTION;

typedef struct _OUTPOST_STATS {
    ULONG Asked;
    ULONG Answered;
    ULONG Late;
} OUTPOST_STATS, *POUTPOST_STATS;

typedef struct _OUTPOST {
    AK Ak;
    volatile LONG Pending; /* questions that are not given back yet */
    volatile LONG Asked;
    volatile LONG Answered;
    volatile LONG Late;
} OUTPOST, *POUTPOST;

typedef struct _ASK {
    POUTPOST Outpost;
    PIRP Irp;
    KEVENT Done;
    volatile LONG Users; /* the one who asks, and the request below */
    union {
        QUESTION Question;
        UCHAR Answer[ANSWER_MAX];
    } u;
} ASK, *PASK;

static VOID AskFree(PASK ask)
{
    POUTPOST o = ask->Outpost;

    IoFreeIrp(ask->Irp);
    ExFreePoolWithTag(ask, TAG);
    InterlockedDecrement(&o->Pending);
    IoReleaseRemoveLock(&o->Ak.Lock, ask);
}

static VOID AskRelease(PASK ask)
{
    if (InterlockedDecrement(&ask->Users) == 0)
        AskFree(ask);
}

static NTSTATUS AskDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PASK ask = Context;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent(&ask->Done, IO_NO_INCREMENT, FALSE);
    AskRelease(ask);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static PASK AskNew(POUTPOST o, const QUESTION *question)
{
    PASK ask;
    PIO_STACK_LOCATION next;

    if (InterlockedIncrement(&o->Pending) > PENDING_MAX)
        goto refused;
    ask = ExAllocatePoolWithTag(NonPagedPool, sizeof *ask, TAG);
    if (!ask)
        goto refused;
    RtlZeroMemory(ask, sizeof *ask);
    ask->Irp = IoAllocateIrp(o->Ak.Lower->StackSize, FALSE);
    if (!ask->Irp) {
        ExFreePoolWithTag(ask, TAG);
        goto refused;
    }
    if (!NT_SUCCESS(IoAcquireRemoveLock(&o->Ak.Lock, ask))) {
        IoFreeIrp(ask->Irp);
        ExFreePoolWithTag(ask, TAG);
        goto refused;
    }
    ask->Outpost = o;
    ask->Users = 2;
    KeInitializeEvent(&ask->Done, NotificationEvent, FALSE);
    ask->u.Question = *question;
    ask->Irp->AssociatedIrp.SystemBuffer = &ask->u;
    ask->Irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
    ask->Irp->IoStatus.Information = 0;
    ask->Irp->RequestorMode = KernelMode;
    next = IoGetNextIrpStackLocation(ask->Irp);
    next->MajorFunction = IRP_MJ_INTERNAL_DEVICE_CONTROL;
    next->Parameters.DeviceIoControl.IoControlCode = IOCTL_STATION_QUESTION;
    next->Parameters.DeviceIoControl.InputBufferLength = sizeof(QUESTION);
    next->Parameters.DeviceIoControl.OutputBufferLength = ANSWER_MAX;
    IoSetCompletionRoutine(ask->Irp, AskDone, ask, TRUE, TRUE, TRUE);
    return ask;

refused:
    InterlockedDecrement(&o->Pending);
    return NULL;
}

static NTSTATUS AskStation(POUTPOST o, PIRP Irp, PIO_STACK_LOCATION s)
{
    ULONG room = s->Parameters.DeviceIoControl.OutputBufferLength;
    LARGE_INTEGER limit;
    ULONG_PTR length;
    NTSTATUS status;
    PASK ask;

    if (s->Parameters.DeviceIoControl.InputBufferLength != sizeof(QUESTION))
        return STATUS_INVALID_PARAMETER;
    ask = AskNew(o, Irp->AssociatedIrp.SystemBuffer);
    if (!ask)
        return STATUS_INSUFFICIENT_RESOURCES;
    InterlockedIncrement(&o->Asked);
    IoCallDriver(o->Ak.Lower, ask->Irp);
    limit.QuadPart = -(LONGLONG)LIMIT_100NS;
    if (KeWaitForSingleObject(&ask->Done, Executive, KernelMode, FALSE, &limit) == STATUS_TIMEOUT) {
        InterlockedIncrement(&o->Late);
        IoCancelIrp(ask->Irp);
#ifdef FIXED
        AskRelease(ask);
#else
        AskFree(ask);
#endif
        return STATUS_IO_TIMEOUT;
    }
    status = ask->Irp->IoStatus.Status;
    length = ask->Irp->IoStatus.Information;
    if (NT_SUCCESS(status)) {
        if (length > ANSWER_MAX)
            length = ANSWER_MAX;
        if (length > room) {
            status = STATUS_BUFFER_TOO_SMALL;
        } else {
            RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, ask->u.Answer, length);
            Irp->IoStatus.Information = length;
            InterlockedIncrement(&o->Answered);
            status = STATUS_SUCCESS;
        }
    }
    AskRelease(ask);
    return status;
}

static NTSTATUS OutpostIo(PAK k, PIRP Irp, PIO_STACK_LOCATION s)
{
    POUTPOST o = (POUTPOST)k;
    POUTPOST_STATS stats = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status;

    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_OUTPOST_ASK:
        status = AkEnter(k);
        if (NT_SUCCESS(status)) {
            status = AskStation(o, Irp, s);
            AkLeave(k);
        }
        return status;

    case IOCTL_OUTPOST_STATS:
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof *stats)
            return STATUS_BUFFER_TOO_SMALL;
        stats->Asked = (ULONG)o->Asked;
        stats->Answered = (ULONG)o->Answered;
        stats->Late = (ULONG)o->Late;
        Irp->IoStatus.Information = sizeof *stats;
        return STATUS_SUCCESS;

    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static const AK_OPS AkOps = {
    .Interface = &OutpostGuid,
    .ExtSize = sizeof(OUTPOST),
    .DeviceFlags = DO_BUFFERED_IO,
    .Io = OutpostIo,
};

NTSTATUS DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return AkEntry(Driver);
}

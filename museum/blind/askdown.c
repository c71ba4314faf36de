/*
 * askdown: puts questions of programs to the device below (an internal control request of its own making) and hands on the answers. A question may
 * take two seconds, then the program gets a time-out; there is no new question while the device below still sits on an old one.
 *
 * The bug: when the time limit of a question is over, the driver frees the request it has sent down, and its context, although the driver below
 * still has it; the late answer completes freed memory.
 *
 * Device: ROOT\ASKDOWN
 * Rule: irp-in-use
 * Needs: schedule
 */
#include "../include/served_by_ticks.h"

#define ASK_TAG 'dksA'
#define ANSWER 64

#define IOCTL_ASK CTL_CODE(FILE_DEVICE_UNKNOWN, 0x910, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ASK_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x911, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LOWER_ASK CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA00, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID AskInterface = { 0x6d1d0a52, 0x2c6b, 0x4a54, { 0x9a, 0x11, 0x5e, 0x02, 0x60, 0x17, 0xba, 0x02 } };

typedef struct _DEV DEV, *PDEV;

/* One question. Two references: the driver below (until the completion routine), and the request of the program (until it is ended). */
typedef struct _ASK {
    volatile LONG References;
    PDEV Dev;
    PIRP Irp;
    UCHAR Data[ANSWER];
} ASK, *PASK;

struct _DEV {
    BF B;
    PASK Current; /* of B.Active; set and taken under B.Lock */
    volatile LONG Below; /* questions the driver below has */
    volatile LONG Asked, Answered, Late;
};

static VOID FreeAsk(PASK ask)
{
    IoFreeIrp(ask->Irp);
    ExFreePoolWithTag(ask, ASK_TAG);
}

static VOID DropAsk(PASK ask)
{
    if (InterlockedDecrement(&ask->References) == 0)
        FreeAsk(ask);
}

static NTSTATUS NTAPI Answered(PDEVICE_OBJECT device, PIRP irp, PVOID context)
{
    PASK ask = context;
    PDEV d = ask->Dev;
    NTSTATUS st = irp->IoStatus.Status;
    ULONG_PTR length = irp->IoStatus.Information;
    PIRP taken = NULL;
    KIRQL q;

    UNREFERENCED_PARAMETER(device);
    KeAcquireSpinLock(&d->B.Lock, &q);
    if (d->Current == ask && d->B.Active) {
        taken = d->B.Active;
        d->B.Active = NULL;
        d->Current = NULL;
    }
    KeReleaseSpinLock(&d->B.Lock, q);

    InterlockedDecrement(&d->Below);
    if (taken) {
        if (!NT_SUCCESS(st))
            length = 0;
        else if (length > ANSWER)
            length = ANSWER;
        RtlCopyMemory(taken->AssociatedIrp.SystemBuffer, ask->Data, length);
        InterlockedIncrement(&d->Answered);
        BfDone(&d->B, taken, st, length);
        DropAsk(ask);
    }
    DropAsk(ask);
    IoReleaseRemoveLock(&d->B.Rl, ask);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS Prepare(PBF b, PIRP irp)
{
    PDEV d = (PDEV)b;
    PIO_STACK_LOCATION sp;
    PASK ask;
    NTSTATUS st;
    KIRQL q;

    if (d->Below)
        return STATUS_DEVICE_BUSY;
    ask = ExAllocatePoolWithTag(NonPagedPool, sizeof(*ask), ASK_TAG);
    if (!ask)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(ask, sizeof(*ask));
    ask->References = 2;
    ask->Dev = d;
    ask->Irp = IoAllocateIrp(b->Lower->StackSize, FALSE);
    if (!ask->Irp) {
        ExFreePoolWithTag(ask, ASK_TAG);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    st = IoAcquireRemoveLock(&b->Rl, ask);
    if (!NT_SUCCESS(st)) {
        FreeAsk(ask);
        return st;
    }
    RtlCopyMemory(ask->Data, irp->AssociatedIrp.SystemBuffer, sizeof(ULONG));
    ask->Irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
    ask->Irp->AssociatedIrp.SystemBuffer = ask->Data;
    sp = IoGetNextIrpStackLocation(ask->Irp);
    sp->MajorFunction = IRP_MJ_INTERNAL_DEVICE_CONTROL;
    sp->Parameters.DeviceIoControl.IoControlCode = IOCTL_LOWER_ASK;
    sp->Parameters.DeviceIoControl.InputBufferLength = sizeof(ULONG);
    sp->Parameters.DeviceIoControl.OutputBufferLength = ANSWER;
    IoSetCompletionRoutine(ask->Irp, Answered, ask, TRUE, TRUE, TRUE);
    InterlockedIncrement(&d->Asked);
    InterlockedIncrement(&d->Below);

    KeAcquireSpinLock(&b->Lock, &q);
    d->Current = ask;
    BfBegin(b, irp);
    KeReleaseSpinLock(&b->Lock, q);
    IoCallDriver(b->Lower, ask->Irp);
    return STATUS_PENDING;
}

static VOID Expire(PBF b, PIRP irp)
{
    PDEV d = (PDEV)b;
    PASK ask;

    KeAcquireSpinLockAtDpcLevel(&b->Lock);
    ask = d->Current;
    d->Current = NULL;
    KeReleaseSpinLockFromDpcLevel(&b->Lock);
    InterlockedIncrement(&d->Late);
#ifdef FIXED
    IoCancelIrp(ask->Irp);
    DropAsk(ask);
#else
    FreeAsk(ask);
#endif
    BfDone(b, irp, STATUS_IO_TIMEOUT, 0);
}

static NTSTATUS Io(PBF b, PIRP irp, PIO_STACK_LOCATION sp)
{
    PDEV d = (PDEV)b;
    PULONG out = irp->AssociatedIrp.SystemBuffer;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ASK:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) || sp->Parameters.DeviceIoControl.OutputBufferLength < ANSWER)
            return STATUS_BUFFER_TOO_SMALL;
        return BF_QUEUE;

    case IOCTL_ASK_COUNTS:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < 4 * sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        out[0] = (ULONG)d->Asked;
        out[1] = (ULONG)d->Answered;
        out[2] = (ULONG)d->Late;
        out[3] = (ULONG)d->Below;
        irp->IoStatus.Information = 4 * sizeof(ULONG);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static const BF_OPS Ops = {
    .Size = sizeof(DEV),
    .Interface = &AskInterface,
    .Limit = 20,
    .Prepare = Prepare,
    .Expire = Expire,
    .Io = Io,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return BfEntry(driver, &Ops);
}

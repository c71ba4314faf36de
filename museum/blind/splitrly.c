/*
 * splitrly: a relay in front of a line device that takes at most 512 bytes at a time (here: \Device\Null): a long write is sent on as
 * several IRPs of the relay's own, all at once, and ends when the last of them has ended.
 *
 * The bug: the count of outstanding pieces has no share of the sender's own; when the first piece ends before the second one is sent,
 * the write is completed and its job freed while the sender goes on with both.
 *
 * Device: none
 * Rule: use-after-free
 * Needs: schedule
 */
#include <ddk/wdm.h>

#define RL_TAG    'lrpS'
#define RL_PIECE  512u
#define RL_PIECES 8u

#define IOCTL_RL_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x920, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _RL_STATE {
    ULONG Writes, Failed;
    ULONG64 Bytes;
} RL_STATE, *PRL_STATE;

typedef struct _RL_DEV {
    PFILE_OBJECT LineFile;
    PDEVICE_OBJECT Line;
    KSPIN_LOCK Lock;
    RL_STATE State;
} RL_DEV, *PRL_DEV;

typedef struct _RL_JOB {
    PRL_DEV Dev;
    PIRP Master;
    volatile LONG Work;                     /* pieces under way (and the sender) */
    volatile LONG Refs;                     /* the work and the cancel routine */
    volatile LONG Status, Moved;
    ULONG Pieces;
    PIRP Piece[RL_PIECES];
} RL_JOB, *PRL_JOB;

static const WCHAR RlLinkName[] = L"\\DosDevices\\SplitRelay";
static const WCHAR RlDeviceName[] = L"\\Device\\SplitRelay";
static const WCHAR RlLineName[] = L"\\Device\\Null";

static NTSTATUS RlComplete(PIRP irp, NTSTATUS status, ULONG_PTR info)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

static VOID RlFreeJob(PRL_JOB job)
{
    ULONG i;

    for (i = 0; i < job->Pieces; i++) {
        if (job->Piece[i]->MdlAddress != NULL)
            IoFreeMdl(job->Piece[i]->MdlAddress);
        IoFreeIrp(job->Piece[i]);
    }
    ExFreePoolWithTag(job, RL_TAG);
}

static VOID RlRelease(PRL_JOB job)
{
    PRL_DEV d = job->Dev;
    PIRP master = job->Master;
    NTSTATUS status = job->Status;
    ULONG moved;
    KIRQL irql;

    if (InterlockedDecrement(&job->Refs) != 0)
        return;
    status = job->Status;
    moved = NT_SUCCESS(status) ? (ULONG)job->Moved : 0;
    RlFreeJob(job);
    KeAcquireSpinLock(&d->Lock, &irql);
    d->State.Writes++;
    d->State.Bytes += moved;
    if (!NT_SUCCESS(status))
        d->State.Failed++;
    KeReleaseSpinLock(&d->Lock, irql);
    RlComplete(master, status, moved);
}

/* A piece has ended, or the sender. */
static VOID RlWorkDone(PRL_JOB job)
{
    if (InterlockedDecrement(&job->Work) != 0)
        return;
    if (IoSetCancelRoutine(job->Master, NULL) != NULL)
        RlRelease(job);                     /* the cancel routine will not run any more */
    RlRelease(job);
}

static NTSTATUS NTAPI RlPieceDone(PDEVICE_OBJECT dev, PIRP piece, PVOID context)
{
    PRL_JOB job = context;

    UNREFERENCED_PARAMETER(dev);
    if (NT_SUCCESS(piece->IoStatus.Status))
        InterlockedExchangeAdd(&job->Moved, (LONG)piece->IoStatus.Information);
    else
        InterlockedCompareExchange(&job->Status, piece->IoStatus.Status, STATUS_SUCCESS);
    RlWorkDone(job);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static VOID NTAPI RlCancel(PDEVICE_OBJECT dev, PIRP master)
{
    PRL_JOB job = master->Tail.Overlay.DriverContext[0];
    ULONG i;

    UNREFERENCED_PARAMETER(dev);
    IoReleaseCancelSpinLock(master->CancelIrql);
    for (i = 0; i < job->Pieces; i++)
        IoCancelIrp(job->Piece[i]);         /* they are freed with the job only */
    RlRelease(job);
}

static PIRP RlMakePiece(PRL_DEV d, PRL_JOB job, PUCHAR from, ULONG length, LARGE_INTEGER at)
{
    PIO_STACK_LOCATION s;
    PIRP piece = IoAllocateIrp(d->Line->StackSize, FALSE);

    if (piece == NULL)
        return NULL;
    if (d->Line->Flags & DO_DIRECT_IO) {
        piece->MdlAddress = IoAllocateMdl(from, length, FALSE, FALSE, NULL);
        if (piece->MdlAddress == NULL) {
            IoFreeIrp(piece);
            return NULL;
        }
        MmBuildMdlForNonPagedPool(piece->MdlAddress);
    } else if (d->Line->Flags & DO_BUFFERED_IO) {
        piece->AssociatedIrp.SystemBuffer = from;
    } else {
        piece->UserBuffer = from;
    }
    s = IoGetNextIrpStackLocation(piece);
    s->MajorFunction = IRP_MJ_WRITE;
    s->FileObject = d->LineFile;
    s->Parameters.Write.Length = length;
    s->Parameters.Write.ByteOffset = at;
    IoSetCompletionRoutine(piece, RlPieceDone, job, TRUE, TRUE, TRUE);
    return piece;
}

static NTSTATUS NTAPI RlWrite(PDEVICE_OBJECT dev, PIRP irp)
{
    PRL_DEV d = dev->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(irp);
    PUCHAR from = irp->AssociatedIrp.SystemBuffer;
    LARGE_INTEGER at = s->Parameters.Write.ByteOffset;
    ULONG length = s->Parameters.Write.Length, part, i;
    PRL_JOB job;

    if (length == 0)
        return RlComplete(irp, STATUS_SUCCESS, 0);
    if (length > RL_PIECE * RL_PIECES || at.QuadPart < 0)
        return RlComplete(irp, STATUS_INVALID_PARAMETER, 0);
    job = ExAllocatePoolWithTag(NonPagedPool, sizeof *job, RL_TAG);
    if (job == NULL)
        return RlComplete(irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(job, sizeof *job);
    job->Dev = d;
    job->Master = irp;
    job->Refs = 2;
    for (; length != 0; length -= part) {
        part = length < RL_PIECE ? length : RL_PIECE;
        job->Piece[job->Pieces] = RlMakePiece(d, job, from, part, at);
        if (job->Piece[job->Pieces] == NULL) {
            RlFreeJob(job);
            return RlComplete(irp, STATUS_INSUFFICIENT_RESOURCES, 0);
        }
        job->Pieces++;
        from += part;
        at.QuadPart += part;
    }

    IoMarkIrpPending(irp);
    irp->Tail.Overlay.DriverContext[0] = job;
    IoSetCancelRoutine(irp, RlCancel);
    if (irp->Cancel && IoSetCancelRoutine(irp, NULL) != NULL) {
        RlFreeJob(job);
        RlComplete(irp, STATUS_CANCELLED, 0);
        return STATUS_PENDING;
    }
#ifdef FIXED
    job->Work = 1;
#endif
    for (i = 0; i < job->Pieces; i++) {
        InterlockedIncrement(&job->Work);
        IoCallDriver(d->Line, job->Piece[i]);
    }
#ifdef FIXED
    RlWorkDone(job);
#endif
    return STATUS_PENDING;
}

static NTSTATUS NTAPI RlControl(PDEVICE_OBJECT dev, PIRP irp)
{
    PRL_DEV d = dev->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(irp);
    KIRQL irql;

    if (s->Parameters.DeviceIoControl.IoControlCode != IOCTL_RL_STATE)
        return RlComplete(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(RL_STATE))
        return RlComplete(irp, STATUS_BUFFER_TOO_SMALL, 0);
    KeAcquireSpinLock(&d->Lock, &irql);
    *(PRL_STATE)irp->AssociatedIrp.SystemBuffer = d->State;
    KeReleaseSpinLock(&d->Lock, irql);
    return RlComplete(irp, STATUS_SUCCESS, sizeof(RL_STATE));
}

static NTSTATUS NTAPI RlCreateClose(PDEVICE_OBJECT dev, PIRP irp)
{
    UNREFERENCED_PARAMETER(dev);
    return RlComplete(irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI RlUnload(PDRIVER_OBJECT drv)
{
    PRL_DEV d = drv->DeviceObject->DeviceExtension;
    UNICODE_STRING link;

    RtlInitUnicodeString(&link, RlLinkName);
    IoDeleteSymbolicLink(&link);
    ObDereferenceObject(d->LineFile);
    IoDeleteDevice(drv->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNICODE_STRING name, link, line;
    PDEVICE_OBJECT dev;
    NTSTATUS status;
    PRL_DEV d;

    UNREFERENCED_PARAMETER(path);
    RtlInitUnicodeString(&name, RlDeviceName);
    RtlInitUnicodeString(&link, RlLinkName);
    RtlInitUnicodeString(&line, RlLineName);
    status = IoCreateDevice(drv, sizeof(RL_DEV), &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    d = dev->DeviceExtension;
    RtlZeroMemory(d, sizeof *d);
    KeInitializeSpinLock(&d->Lock);
    dev->Flags |= DO_BUFFERED_IO;
    drv->MajorFunction[IRP_MJ_CREATE] = RlCreateClose;
    drv->MajorFunction[IRP_MJ_CLOSE] = RlCreateClose;
    drv->MajorFunction[IRP_MJ_WRITE] = RlWrite;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = RlControl;
    drv->DriverUnload = RlUnload;
    status = IoGetDeviceObjectPointer(&line, FILE_WRITE_DATA, &d->LineFile, &d->Line);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(dev);
        return status;
    }
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        ObDereferenceObject(d->LineFile);
        IoDeleteDevice(dev);
    }
    return status;
}

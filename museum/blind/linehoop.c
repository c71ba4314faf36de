/*
 * linehoop: a loop-back line for tests of terminal programs: what is written to the device is read
 * from it again, in order. A read waits until there is at least one byte; a write never waits.
 *
 * The bug: a read that finds no bytes is queued without a second look: where a write has come
 * between the look and the queue, the read waits though its bytes are there.
 *
 * Device: ROOT\LINEHOOP
 * Rule: request-forgotten, irp-never-completed, stuck
 * Needs: schedule
 */
#include <ddk/wdm.h>
#define FR_PNP
#include "../include/entered_gate.h"

static const GUID HoopInterface = { 0x5b1d7c52, 0x3f0e, 0x4c7b, { 0x9a, 0x14, 0x60, 0x22, 0x9e, 0x5d, 0x01, 0x02 } };

#define IOCTL_HOOP_PURGE  CTL_CODE(FILE_DEVICE_SERIAL_PORT, 0x910, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_HOOP_STATUS CTL_CODE(FILE_DEVICE_SERIAL_PORT, 0x911, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define HOOP_RING 2048
#define HOOP_PURGE_DATA  1
#define HOOP_PURGE_READS 2

typedef struct _HOOP_STATUS {
    ULONG Waiting; /* bytes to be read */
    ULONG Read;
    ULONG Written;
} HOOP_STATUS;

typedef struct _HOOP_EXT {
    FR_DEV Frame;
    FR_QUEUE Reads;
    KSPIN_LOCK Lock; /* what follows; before the lock of Reads */
    ULONG Head;
    ULONG Count;
    ULONG Read;
    ULONG Written;
    UCHAR Ring[HOOP_RING];
} HOOP_EXT, *PHOOP_EXT;

/* With the lock held */
static ULONG HoopGet(PHOOP_EXT x, UCHAR *Out, ULONG Length)
{
    ULONG i;
    if (Length > x->Count)
        Length = x->Count;
    for (i = 0; i < Length; i++)
        Out[i] = x->Ring[(x->Head + i) % HOOP_RING];
    x->Head = (x->Head + Length) % HOOP_RING;
    x->Count -= Length;
    x->Read += Length;
    return Length;
}

static ULONG HoopPut(PHOOP_EXT x, const UCHAR *In, ULONG Length)
{
    ULONG i;
    if (Length > HOOP_RING - x->Count)
        Length = HOOP_RING - x->Count;
    for (i = 0; i < Length; i++)
        x->Ring[(x->Head + x->Count + i) % HOOP_RING] = In[i];
    x->Count += Length;
    x->Written += Length;
    return Length;
}

/* Gives bytes to the reads that wait. */
static VOID HoopServe(PHOOP_EXT x)
{
    for (;;) {
        PIRP irp = NULL;
        ULONG got = 0;
        KIRQL irql;

        KeAcquireSpinLock(&x->Lock, &irql);
        if (x->Count && (irp = FrQueueGet(&x->Reads)) != NULL)
            got = HoopGet(x, irp->AssociatedIrp.SystemBuffer, IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length);
        KeReleaseSpinLock(&x->Lock, irql);
        if (!irp)
            return;
        FrDone(&x->Frame, irp, STATUS_SUCCESS, got);
    }
}

static NTSTATUS HoopRead(PHOOP_EXT x, PIRP Irp)
{
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length, got;
    KIRQL irql;

    if (length == 0)
        return FrDone(&x->Frame, Irp, STATUS_SUCCESS, 0);
    KeAcquireSpinLock(&x->Lock, &irql);
    got = HoopGet(x, Irp->AssociatedIrp.SystemBuffer, length);
    KeReleaseSpinLock(&x->Lock, irql);
    if (got)
        return FrDone(&x->Frame, Irp, STATUS_SUCCESS, got);
    FrQueuePut(&x->Reads, Irp);
#ifdef FIXED
    HoopServe(x);
#endif
    return STATUS_PENDING;
}

static NTSTATUS HoopWrite(PHOOP_EXT x, PIRP Irp)
{
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length, put;
    KIRQL irql;

    if (length == 0)
        return FrDone(&x->Frame, Irp, STATUS_SUCCESS, 0);
    KeAcquireSpinLock(&x->Lock, &irql);
    put = HoopPut(x, Irp->AssociatedIrp.SystemBuffer, length);
    KeReleaseSpinLock(&x->Lock, irql);
    HoopServe(x);
    return FrDone(&x->Frame, Irp, put ? STATUS_SUCCESS : STATUS_DEVICE_BUSY, put);
}

static NTSTATUS HoopControl(PHOOP_EXT x, PIRP Irp)
{
    PFR_DEV d = &x->Frame;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    KIRQL irql;
    ULONG what;

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_HOOP_PURGE:
        if (s->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return FrDone(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        what = *(ULONG *)buffer;
        if (what & ~(HOOP_PURGE_DATA | HOOP_PURGE_READS))
            return FrDone(d, Irp, STATUS_INVALID_PARAMETER, 0);
        if (what & HOOP_PURGE_DATA) {
            KeAcquireSpinLock(&x->Lock, &irql);
            x->Count = 0;
            KeReleaseSpinLock(&x->Lock, irql);
        }
        if (what & HOOP_PURGE_READS)
            FrQueueFlush(&x->Reads, NULL, STATUS_CANCELLED);
        return FrDone(d, Irp, STATUS_SUCCESS, 0);
    case IOCTL_HOOP_STATUS: {
        HOOP_STATUS *out = buffer;
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*out))
            return FrDone(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&x->Lock, &irql);
        out->Waiting = x->Count;
        out->Read = x->Read;
        out->Written = x->Written;
        KeReleaseSpinLock(&x->Lock, irql);
        return FrDone(d, Irp, STATUS_SUCCESS, sizeof(*out));
    }
    default:
        return FrDone(d, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI HoopRequest(PDEVICE_OBJECT Device, PIRP Irp)
{
    PHOOP_EXT x = Device->DeviceExtension;
    PFR_DEV d = &x->Frame;
    NTSTATUS status = FrBeginHeld(d, Irp);

    if (!NT_SUCCESS(status))
        return status;
    status = FrEnter(d);
    if (!NT_SUCCESS(status)) {
        FrDone(d, Irp, status, 0);
        FrEnd(d);
        return status;
    }
    switch (IoGetCurrentIrpStackLocation(Irp)->MajorFunction) {
    case IRP_MJ_READ:
        status = HoopRead(x, Irp);
        break;
    case IRP_MJ_WRITE:
        status = HoopWrite(x, Irp);
        break;
    default:
        status = HoopControl(x, Irp);
        break;
    }
    FrLeave(d);
    FrEnd(d);
    return status;
}

static NTSTATUS NTAPI HoopCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PHOOP_EXT x = Device->DeviceExtension;
    NTSTATUS status = FrBegin(&x->Frame, Irp);

    if (!NT_SUCCESS(status))
        return status;
    FrQueueFlush(&x->Reads, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return FrDone(&x->Frame, Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS HoopInit(PFR_DEV d)
{
    PHOOP_EXT x = (PHOOP_EXT)d;
    KeInitializeSpinLock(&x->Lock);
    FrQueueInit(&x->Reads, d);
    return STATUS_SUCCESS;
}

static NTSTATUS HoopStart(PFR_DEV d, PCM_RESOURCE_LIST Resources)
{
    PHOOP_EXT x = (PHOOP_EXT)d;
    KIRQL irql;

    FR_UNUSED(Resources);
    KeAcquireSpinLock(&x->Lock, &irql);
    x->Head = 0;
    x->Count = 0;
    KeReleaseSpinLock(&x->Lock, irql);
    return STATUS_SUCCESS;
}

static VOID HoopFlush(PFR_DEV d, NTSTATUS Status)
{
    FrQueueFlush(&((PHOOP_EXT)d)->Reads, NULL, Status);
}

static const FR_OPS HoopOps = {
    sizeof(HOOP_EXT), &HoopInterface, DO_BUFFERED_IO, HoopInit, HoopStart, FrNothing, HoopFlush,
    FrNothing, FrNothing, FrNothing, NULL,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    FR_UNUSED(RegistryPath);
    FrInit(Driver, &HoopOps);
    Driver->MajorFunction[IRP_MJ_CLEANUP] = HoopCleanup;
    Driver->MajorFunction[IRP_MJ_READ] = HoopRequest;
    Driver->MajorFunction[IRP_MJ_WRITE] = HoopRequest;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = HoopRequest;
    return STATUS_SUCCESS;
}

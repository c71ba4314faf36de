/*
 * absorb: a spectrometer's arithmetic on a root-enumerated device: scans are handed in by WriteFile into a buffer of
 * eight scans, a work item averages them and turns them into absorbances, which ReadFile gives out.
 *
 * The bug: the queued work item holds no reference to the device (remove lock), so removal frees the work item and
 * the scans it is reading.
 *
 * Device: ROOT\ABSORB
 * Rule: use-after-free
 * Needs: schedule
 */
#include <ddk/wdm.h>
#include "../include/mapped_device.h"

#define IOCTL_ABS_COMPUTE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x880, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_ABS_CLEAR   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x881, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define SCANS   8
#define PIXELS  1024
#define TAG     'sbaA'

static const GUID AbsorbInterface = { 0x5d1c0a11, 0x7a52, 0x4b0e, { 0x91, 0x0c, 0x35, 0x1e, 0x28, 0x66, 0x10, 0x03 } };

typedef struct DEV {
    FDO F;
    PIO_WORKITEM Item;
    volatile LONG Busy;         /* the work item is queued or runs */
    FAST_MUTEX Mutex;           /* guards the three below */
    USHORT *Scans;              /* paged: SCANS * PIXELS */
    ULONG Count;
    USHORT *Result;             /* paged: PIXELS */
} DEV;

/* log2 in 1/256: the absorbance relative to full scale */
static USHORT Absorbance(ULONG mean)
{
    ULONG bits = 0, v = mean ? mean : 1;

    while (v < 0x8000) {
        v <<= 1;
        bits++;
    }
    return (USHORT)(bits * 256 + (0xFFFF - v) / 128);
}

static VOID NTAPI AbsWork(PDEVICE_OBJECT dev, PVOID context)
{
    DEV *d = context;
    ULONG p, s;

    UNREFERENCED_PARAMETER(dev);
    for (p = 0; p < PIXELS; p++) {
        ExAcquireFastMutex(&d->Mutex);
        if (d->Count) {
            ULONG sum = 0;
            for (s = 0; s < d->Count; s++)
                sum += d->Scans[s * PIXELS + p];
            d->Result[p] = Absorbance(sum / d->Count);
        }
        ExReleaseFastMutex(&d->Mutex);
    }
    InterlockedExchange(&d->Busy, 0);
#ifdef FIXED
    IoReleaseRemoveLock(&d->F.RemoveLock, d->Item);
#endif
}

static NTSTATUS AbsCompute(DEV *d)
{
    if (InterlockedExchange(&d->Busy, 1))
        return STATUS_DEVICE_BUSY;
#ifdef FIXED
    if (!NT_SUCCESS(IoAcquireRemoveLock(&d->F.RemoveLock, d->Item))) {
        InterlockedExchange(&d->Busy, 0);
        return STATUS_DELETE_PENDING;
    }
#endif
    IoQueueWorkItem(d->Item, AbsWork, DelayedWorkQueue, d);
    return STATUS_SUCCESS;
}

static NTSTATUS AbsRequest(FDO *f, PIRP irp, PIO_STACK_LOCATION sp)
{
    DEV *d = (DEV *)f;
    ULONG length;
    BOOLEAN live;
    KIRQL irql;
    NTSTATUS status = STATUS_SUCCESS;

    KeAcquireSpinLock(&f->HwLock, &irql);
    live = f->Live;
    KeReleaseSpinLock(&f->HwLock, irql);
    if (!live)
        return STATUS_DEVICE_NOT_READY;

    switch (sp->MajorFunction) {
    case IRP_MJ_WRITE:          /* one scan */
        if (sp->Parameters.Write.Length != PIXELS * sizeof(USHORT))
            return STATUS_INVALID_PARAMETER;
        ExAcquireFastMutex(&d->Mutex);
        if (d->Count < SCANS) {
            RtlCopyMemory(d->Scans + d->Count * PIXELS, irp->AssociatedIrp.SystemBuffer, PIXELS * sizeof(USHORT));
            d->Count++;
        } else {
            status = STATUS_DEVICE_BUSY;
        }
        ExReleaseFastMutex(&d->Mutex);
        if (NT_SUCCESS(status))
            irp->IoStatus.Information = PIXELS * sizeof(USHORT);
        return status;
    case IRP_MJ_READ:           /* the absorbances */
        length = sp->Parameters.Read.Length;
        if (length > PIXELS * sizeof(USHORT))
            length = PIXELS * sizeof(USHORT);
        ExAcquireFastMutex(&d->Mutex);
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, d->Result, length);
        ExReleaseFastMutex(&d->Mutex);
        irp->IoStatus.Information = length;
        return STATUS_SUCCESS;
    }
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ABS_COMPUTE:
        return AbsCompute(d);
    case IOCTL_ABS_CLEAR:
        ExAcquireFastMutex(&d->Mutex);
        d->Count = 0;
        ExReleaseFastMutex(&d->Mutex);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static VOID AbsFree(FDO *f)
{
    DEV *d = (DEV *)f;

    if (d->Item)
        IoFreeWorkItem(d->Item);
    if (d->Scans)
        ExFreePoolWithTag(d->Scans, TAG);
    if (d->Result)
        ExFreePoolWithTag(d->Result, TAG);
}

static NTSTATUS AbsInit(FDO *f)
{
    DEV *d = (DEV *)f;

    ExInitializeFastMutex(&d->Mutex);
    d->Item = IoAllocateWorkItem(f->Self);
    d->Scans = ExAllocatePoolWithTag(PagedPool, SCANS * PIXELS * sizeof(USHORT), TAG);
    d->Result = ExAllocatePoolWithTag(PagedPool, PIXELS * sizeof(USHORT), TAG);
    if (!d->Item || !d->Scans || !d->Result) {
        AbsFree(f);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(d->Scans, SCANS * PIXELS * sizeof(USHORT));
    RtlZeroMemory(d->Result, PIXELS * sizeof(USHORT));
    return STATUS_SUCCESS;
}

static NTSTATUS AbsMap(FDO *f, PCM_RESOURCE_LIST list)
{
    UNREFERENCED_PARAMETER(f);
    UNREFERENCED_PARAMETER(list);
    return STATUS_SUCCESS;
}

static VOID AbsNothing(FDO *f)
{
    UNREFERENCED_PARAMETER(f);
}

static VOID AbsQuiet(FDO *f, BOOLEAN present)
{
    UNREFERENCED_PARAMETER(f);
    UNREFERENCED_PARAMETER(present);
}

static VOID AbsFlush(FDO *f, PFILE_OBJECT file)
{
    UNREFERENCED_PARAMETER(f);
    UNREFERENCED_PARAMETER(file);
}

static const FDO_HOOKS Hooks = {
    sizeof(DEV), DO_BUFFERED_IO, &AbsorbInterface,
    AbsInit, AbsFree, AbsMap, AbsNothing, AbsNothing, AbsQuiet, AbsFlush, AbsRequest, NULL
};

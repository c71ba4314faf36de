/*
 * hashwork: hashes buffers of programs (FNV-1a, 64 bits) in the system's worker threads, so that a program with many of them does not wait for each.
 *
 * The bug: the request is marked pending before its work item is allocated; when that fails the request is completed and the error is returned as
 * if it had never been marked: the I/O manager finishes the request twice.
 *
 * Device: ROOT\EEHASHWORK
 * Rule: pending-marked
 * Needs: failure
 */
#include <ddk/wdm.h>
#define EE_PNP
#include "../include/framed_by_calls.h"

#define IOCTL_HASH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_HASH_TOTALS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define MAX_BYTES (256u * 1024)
#define MAX_JOBS 64

static const GUID HashGuid = { 0x7b1c0e52, 0x2a41, 0x4c11, { 0x9d, 0x10, 0x5e, 0x01, 0x11, 0x22, 0x33, 0x02 } };

typedef struct _HASH_TOTALS {
    ULONGLONG Jobs, Bytes, Last;
    ULONG Running, Refused;
} HASH_TOTALS;

typedef struct _DEV {
    EE Ee;                      /* first */
    KSPIN_LOCK Lock;
    HASH_TOTALS Totals;
} DEV;

static VOID DrvGone(EE *ee)
{
    UNREFERENCED_PARAMETER(ee);         /* the jobs that run end by themselves; each holds the remove lock */
}

static ULONGLONG Hash(const UCHAR *p, ULONG len)
{
    ULONGLONG h = 14695981039346656037ull;

    while (len--)
        h = (h ^ *p++) * 1099511628211ull;
    return h;
}

/* One more job, when there are not too many. */
static BOOLEAN JobBegins(DEV *d)
{
    BOOLEAN may;
    KIRQL irql;

    KeAcquireSpinLock(&d->Lock, &irql);
    may = d->Totals.Running < MAX_JOBS;
    if (may)
        d->Totals.Running++;
    else
        d->Totals.Refused++;
    KeReleaseSpinLock(&d->Lock, irql);
    return may;
}

static VOID JobEnds(DEV *d, BOOLEAN done, ULONG bytes, ULONGLONG hash)
{
    KIRQL irql;

    KeAcquireSpinLock(&d->Lock, &irql);
    d->Totals.Running--;
    if (done) {
        d->Totals.Jobs++;
        d->Totals.Bytes += bytes;
        d->Totals.Last = hash;
    } else {
        d->Totals.Refused++;
    }
    KeReleaseSpinLock(&d->Lock, irql);
}

/* The I/O manager keeps the device object (and with it the driver) until the routine has returned. */
static VOID NTAPI HashWork(PDEVICE_OBJECT dev, PVOID ctx)
{
    DEV *d = dev->DeviceExtension;
    PIRP irp = ctx;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    PIO_WORKITEM item = irp->Tail.Overlay.DriverContext[0];
    ULONG len = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONGLONG h;

    h = Hash(irp->AssociatedIrp.SystemBuffer, len);
    RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &h, sizeof(h));
    IoFreeWorkItem(item);
    JobEnds(d, TRUE, len, h);
    EeDone(irp, STATUS_SUCCESS, sizeof(h));
    IoReleaseRemoveLock(&d->Ee.Remove, irp);
}

/* The remove lock is held and goes with the request. */
static NTSTATUS HashRequest(DEV *d, PIRP irp, PIO_STACK_LOCATION sp)
{
    PIO_WORKITEM item;
    NTSTATUS st;

    if (!sp->Parameters.DeviceIoControl.InputBufferLength || sp->Parameters.DeviceIoControl.InputBufferLength > MAX_BYTES) {
        st = STATUS_INVALID_BUFFER_SIZE;
        goto out;
    }
    if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONGLONG)) {
        st = STATUS_BUFFER_TOO_SMALL;
        goto out;
    }
    if (!JobBegins(d)) {
        st = STATUS_DEVICE_BUSY;
        goto out;
    }
#ifndef FIXED
    IoMarkIrpPending(irp);
#endif
    item = IoAllocateWorkItem(d->Ee.Self);
    if (!item) {
        JobEnds(d, FALSE, 0, 0);
        st = STATUS_INSUFFICIENT_RESOURCES;
        goto out;
    }
#ifdef FIXED
    IoMarkIrpPending(irp);
#endif
    irp->Tail.Overlay.DriverContext[0] = item;
    IoQueueWorkItem(item, HashWork, DelayedWorkQueue, irp);
    return STATUS_PENDING;

out:
    EeDone(irp, st, 0);
    IoReleaseRemoveLock(&d->Ee.Remove, irp);
    return st;
}

static NTSTATUS TotalsRequest(DEV *d, PIRP irp, PIO_STACK_LOCATION sp)
{
    HASH_TOTALS now;
    NTSTATUS st = STATUS_SUCCESS;
    KIRQL irql;

    if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(now)) {
        st = STATUS_BUFFER_TOO_SMALL;
    } else {
        KeAcquireSpinLock(&d->Lock, &irql);
        now = d->Totals;
        KeReleaseSpinLock(&d->Lock, irql);
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &now, sizeof(now));
    }
    EeDone(irp, st, NT_SUCCESS(st) ? sizeof(now) : 0);
    IoReleaseRemoveLock(&d->Ee.Remove, irp);
    return st;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT dev, PIRP irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    DEV *d = dev->DeviceExtension;
    NTSTATUS st = IoAcquireRemoveLock(&d->Ee.Remove, irp);

    if (!NT_SUCCESS(st))
        return EeDone(irp, st, 0);
    if (!d->Ee.Live)
        st = STATUS_DEVICE_NOT_READY;
    else if (sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_HASH)
        return HashRequest(d, irp, sp);
    else if (sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_HASH_TOTALS)
        return TotalsRequest(d, irp, sp);
    else
        st = STATUS_INVALID_DEVICE_REQUEST;
    EeDone(irp, st, 0);
    IoReleaseRemoveLock(&d->Ee.Remove, irp);
    return st;
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    EE *ee;
    NTSTATUS st = EeNew(drv, pdo, sizeof(DEV), &ee);

    if (!NT_SUCCESS(st))
        return st;
    KeInitializeSpinLock(&CONTAINING_RECORD(ee, DEV, Ee)->Lock);
    return EeAttach(ee, &HashGuid, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    EeDriver(drv, AddDevice);
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    return STATUS_SUCCESS;
}

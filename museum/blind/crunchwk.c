/*
 * crunchwk: checksums for programs, worked out by a system worker thread so that the caller need not
 * wait: the data comes as the input buffer, the CRC-32 (or a 16 bit sum) goes into the output buffer
 * when it is done. At most eight are under way.
 *
 * The bug: the request is marked pending before the work item for it is allocated; where there is
 * none, it is completed, and the status of the failure is returned instead of STATUS_PENDING.
 *
 * Device: ROOT\CRUNCHWK
 * Rule: pending-marked, dispatch-illegal-status
 * Needs: failure
 */
#include <ddk/wdm.h>
#define FR_PNP
#include "../include/entered_gate.h"

static const GUID CrunchInterface = { 0x5b1d7c52, 0x3f0e, 0x4c7b, { 0x9a, 0x14, 0x60, 0x22, 0x9e, 0x5d, 0x01, 0x05 } };

#define IOCTL_CRUNCH_CRC32 CTL_CODE(FILE_DEVICE_UNKNOWN, 0x940, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_CRUNCH_SUM16 CTL_CODE(FILE_DEVICE_UNKNOWN, 0x941, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_CRUNCH_STATS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x942, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define CRUNCH_MAX_BYTES 65536
#define CRUNCH_MAX_JOBS  8
#define CRUNCH_TAG       'rcCK'

typedef struct _CRUNCH_STATS {
    ULONG Jobs;
    ULONG Refused;
    ULONG64 Bytes;
} CRUNCH_STATS;

typedef struct _CRUNCH_EXT {
    FR_DEV Frame;
    ULONG Crc[256];  /* set up in Init, read only from then on */
    KSPIN_LOCK Lock; /* what follows */
    ULONG Active;
    CRUNCH_STATS Stats;
} CRUNCH_EXT, *PCRUNCH_EXT;

typedef struct _JOB {
    PCRUNCH_EXT Ext;
    PIRP Irp;
    PIO_WORKITEM Item;
} JOB, *PJOB;

static ULONG CrunchCrc(PCRUNCH_EXT x, const UCHAR *Data, ULONG Length)
{
    ULONG crc = ~0u, i;
    for (i = 0; i < Length; i++)
        crc = (crc >> 8) ^ x->Crc[(crc ^ Data[i]) & 0xFF];
    return ~crc;
}

static ULONG CrunchSum(const UCHAR *Data, ULONG Length)
{
    ULONG sum = 0, i;
    for (i = 0; i < Length; i++)
        sum += Data[i];
    return sum & 0xFFFF;
}

static BOOLEAN CrunchAdmit(PCRUNCH_EXT x)
{
    BOOLEAN admitted;
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    admitted = x->Active < CRUNCH_MAX_JOBS;
    if (admitted)
        x->Active++;
    else
        x->Stats.Refused++;
    KeReleaseSpinLock(&x->Lock, irql);
    return admitted;
}

/* Bytes: of a job that was done; 0: it was not */
static VOID CrunchRetire(PCRUNCH_EXT x, ULONG Bytes)
{
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    x->Active--;
    if (Bytes) {
        x->Stats.Jobs++;
        x->Stats.Bytes += Bytes;
    } else
        x->Stats.Refused++;
    KeReleaseSpinLock(&x->Lock, irql);
}

static VOID NTAPI CrunchWork(PDEVICE_OBJECT Device, PVOID Context)
{
    PJOB job = Context;
    PCRUNCH_EXT x = job->Ext;
    PIRP irp = job->Irp;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(irp);
    ULONG length = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG *buffer = irp->AssociatedIrp.SystemBuffer;

    FR_UNUSED(Device);
    *buffer = s->Parameters.DeviceIoControl.IoControlCode == IOCTL_CRUNCH_CRC32
                  ? CrunchCrc(x, (UCHAR *)buffer, length)
                  : CrunchSum((UCHAR *)buffer, length);
    IoFreeWorkItem(job->Item);
    ExFreePoolWithTag(job, CRUNCH_TAG);
    CrunchRetire(x, length);
    FrLeave(&x->Frame);
    FrDone(&x->Frame, irp, STATUS_SUCCESS, sizeof(ULONG)); /* the last that is done with the device */
}

/* Within the gate, which the work item leaves where STATUS_PENDING is returned. */
static NTSTATUS CrunchSubmit(PCRUNCH_EXT x, PIRP Irp)
{
    PFR_DEV d = &x->Frame;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG length = s->Parameters.DeviceIoControl.InputBufferLength;
    PJOB job;

    if (length == 0 || length > CRUNCH_MAX_BYTES)
        return FrDone(d, Irp, STATUS_INVALID_BUFFER_SIZE, 0);
    if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        return FrDone(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    if (!CrunchAdmit(x))
        return FrDone(d, Irp, STATUS_DEVICE_BUSY, 0);
    job = ExAllocatePoolWithTag(NonPagedPool, sizeof(JOB), CRUNCH_TAG);
    if (!job) {
        CrunchRetire(x, 0);
        return FrDone(d, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    job->Ext = x;
    job->Irp = Irp;
#ifndef FIXED
    IoMarkIrpPending(Irp);
#endif
    job->Item = IoAllocateWorkItem(d->Self);
    if (!job->Item) {
        ExFreePoolWithTag(job, CRUNCH_TAG);
        CrunchRetire(x, 0);
        return FrDone(d, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
#ifdef FIXED
    IoMarkIrpPending(Irp);
#endif
    IoQueueWorkItem(job->Item, CrunchWork, DelayedWorkQueue, job);
    return STATUS_PENDING;
}

static NTSTATUS CrunchStats(PCRUNCH_EXT x, PIRP Irp)
{
    CRUNCH_STATS *out = Irp->AssociatedIrp.SystemBuffer;
    KIRQL irql;

    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*out))
        return FrDone(&x->Frame, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    KeAcquireSpinLock(&x->Lock, &irql);
    *out = x->Stats;
    KeReleaseSpinLock(&x->Lock, irql);
    return FrDone(&x->Frame, Irp, STATUS_SUCCESS, sizeof(*out));
}

static NTSTATUS NTAPI CrunchRequest(PDEVICE_OBJECT Device, PIRP Irp)
{
    PCRUNCH_EXT x = Device->DeviceExtension;
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
    switch (IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CRUNCH_CRC32:
    case IOCTL_CRUNCH_SUM16:
        status = CrunchSubmit(x, Irp);
        break;
    case IOCTL_CRUNCH_STATS:
        status = CrunchStats(x, Irp);
        break;
    default:
        status = FrDone(d, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
        break;
    }
    if (status != STATUS_PENDING)
        FrLeave(d);
    FrEnd(d);
    return status;
}

static NTSTATUS CrunchInit(PFR_DEV d)
{
    PCRUNCH_EXT x = (PCRUNCH_EXT)d;
    ULONG i, bit;

    KeInitializeSpinLock(&x->Lock);
    for (i = 0; i < 256; i++) {
        ULONG v = i;
        for (bit = 0; bit < 8; bit++)
            v = (v >> 1) ^ (v & 1 ? 0xEDB88320u : 0);
        x->Crc[i] = v;
    }
    return STATUS_SUCCESS;
}

static NTSTATUS CrunchStart(PFR_DEV d, PCM_RESOURCE_LIST Resources)
{
    FR_UNUSED(d);
    FR_UNUSED(Resources);
    return STATUS_SUCCESS;
}

/* Jobs end by themselves; closing the gate waits for them. */
static VOID CrunchFlush(PFR_DEV d, NTSTATUS Status)
{
    FR_UNUSED(d);
    FR_UNUSED(Status);
}

static const FR_OPS CrunchOps = {
    sizeof(CRUNCH_EXT), &CrunchInterface, DO_BUFFERED_IO, CrunchInit, CrunchStart, FrNothing, CrunchFlush,
    FrNothing, FrNothing, FrNothing, NULL,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    FR_UNUSED(RegistryPath);
    FrInit(Driver, &CrunchOps);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = CrunchRequest;
    return STATUS_SUCCESS;
}

/*
 * chartbuf: strip-chart memory for a measurement program: eight channels, each a ring of the last
 * samples. A channel is opened with a depth, samples are pushed, snapshots are taken oldest first,
 * and the depth can be changed while it holds samples.
 *
 * The bug: when the depth is made smaller, all samples that the old ring holds are copied to the new
 * one, though it has room for fewer.
 *
 * Device: none
 * Rule: pool-overrun, wild-write
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#define FR_LEGACY
#include "../include/entered_gate.h"

#define CHART_NAME L"\\Device\\ChartBuf"
#define CHART_LINK L"\\DosDevices\\ChartBuf"

#define IOCTL_CHART_OPEN     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x820, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_CHART_PUSH     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_CHART_SNAPSHOT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x822, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_CHART_DEPTH    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x823, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_CHART_CLEAR    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x824, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_CHART_INFO     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x825, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define CHART_CHANNELS  8
#define CHART_MAX_DEPTH 4096
#define CHART_TAG       'bhcK'

typedef struct _CHART_SETUP { /* OPEN, DEPTH */
    ULONG Channel;
    ULONG Depth;
} CHART_SETUP;

typedef struct _CHART_PUSH { /* PUSH */
    ULONG Channel;
    ULONG Count;
    LONG Samples[1];
} CHART_PUSH;

typedef struct _CHART_INFO {
    ULONG Depth;
    ULONG Count;
    ULONG64 Total;
} CHART_INFO;

typedef struct _CHANNEL {
    LONG *Ring; /* NULL: not open */
    ULONG Depth;
    ULONG Oldest;
    ULONG Count;
    ULONG64 Total;
} CHANNEL, *PCHANNEL;

typedef struct _CHART_EXT {
    FAST_MUTEX Lock;
    CHANNEL Channels[CHART_CHANNELS];
} CHART_EXT, *PCHART_EXT;

static VOID ChartAppend(PCHANNEL c, LONG Sample)
{
    if (c->Count < c->Depth) {
        c->Ring[(c->Oldest + c->Count) % c->Depth] = Sample;
        c->Count++;
    } else {
        c->Ring[c->Oldest] = Sample;
        c->Oldest = (c->Oldest + 1) % c->Depth;
    }
    c->Total++;
}

static NTSTATUS ChartOpen(PCHANNEL c, ULONG Depth)
{
    if (c->Ring)
        return STATUS_OBJECT_NAME_COLLISION;
    c->Ring = ExAllocatePoolWithTag(PagedPool, Depth * sizeof(LONG), CHART_TAG);
    if (!c->Ring)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(c->Ring, Depth * sizeof(LONG));
    c->Depth = Depth;
    c->Oldest = 0;
    c->Count = 0;
    c->Total = 0;
    return STATUS_SUCCESS;
}

/* The newest samples stay. */
static NTSTATUS ChartDepth(PCHANNEL c, ULONG Depth)
{
    LONG *fresh;
    ULONG keep = c->Count, i;

    if (!c->Ring)
        return STATUS_INVALID_DEVICE_STATE;
    fresh = ExAllocatePoolWithTag(PagedPool, Depth * sizeof(LONG), CHART_TAG);
    if (!fresh)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(fresh, Depth * sizeof(LONG));
#ifdef FIXED
    if (keep > Depth)
        keep = Depth;
#endif
    for (i = 0; i < keep; i++)
        fresh[i] = c->Ring[(c->Oldest + (c->Count - keep) + i) % c->Depth];
    ExFreePoolWithTag(c->Ring, CHART_TAG);
    c->Ring = fresh;
    c->Depth = Depth;
    c->Oldest = 0;
    c->Count = keep;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI ChartControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PCHART_EXT x = Device->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG inLength = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG outLength = s->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG information = 0, channel, i;
    PCHANNEL c;

    if (inLength < sizeof(ULONG) || !buffer)
        return FrComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    channel = *(ULONG *)buffer;
    if (channel >= CHART_CHANNELS)
        return FrComplete(Irp, STATUS_INVALID_PARAMETER, 0);
    c = &x->Channels[channel];

    ExAcquireFastMutex(&x->Lock);
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CHART_OPEN:
    case IOCTL_CHART_DEPTH: {
        CHART_SETUP *setup = buffer;
        if (inLength < sizeof(*setup))
            status = STATUS_BUFFER_TOO_SMALL;
        else if (setup->Depth == 0 || setup->Depth > CHART_MAX_DEPTH)
            status = STATUS_INVALID_PARAMETER;
        else if (s->Parameters.DeviceIoControl.IoControlCode == IOCTL_CHART_OPEN)
            status = ChartOpen(c, setup->Depth);
        else
            status = ChartDepth(c, setup->Depth);
        break;
    }
    case IOCTL_CHART_PUSH: {
        CHART_PUSH *push = buffer;
        if (inLength < FIELD_OFFSET(CHART_PUSH, Samples))
            status = STATUS_BUFFER_TOO_SMALL;
        else if (push->Count > (inLength - FIELD_OFFSET(CHART_PUSH, Samples)) / sizeof(LONG))
            status = STATUS_INVALID_PARAMETER;
        else if (!c->Ring)
            status = STATUS_INVALID_DEVICE_STATE;
        else
            for (i = 0; i < push->Count; i++)
                ChartAppend(c, push->Samples[i]);
        break;
    }
    case IOCTL_CHART_SNAPSHOT: {
        ULONG room = outLength / sizeof(LONG);
        LONG *out = buffer;
        if (!c->Ring) {
            status = STATUS_INVALID_DEVICE_STATE;
            break;
        }
        if (room > c->Count)
            room = c->Count;
        for (i = 0; i < room; i++)
            out[i] = c->Ring[(c->Oldest + i) % c->Depth];
        information = room * sizeof(LONG);
        break;
    }
    case IOCTL_CHART_CLEAR:
        if (c->Ring) {
            ExFreePoolWithTag(c->Ring, CHART_TAG);
            RtlZeroMemory(c, sizeof(*c));
        }
        break;
    case IOCTL_CHART_INFO: {
        CHART_INFO *info = buffer;
        if (outLength < sizeof(*info)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        info->Depth = c->Ring ? c->Depth : 0;
        info->Count = c->Count;
        info->Total = c->Total;
        information = sizeof(*info);
        break;
    }
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    ExReleaseFastMutex(&x->Lock);
    return FrComplete(Irp, status, information);
}

static NTSTATUS NTAPI ChartCreateClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    FR_UNUSED(Device);
    return FrComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI ChartUnload(PDRIVER_OBJECT Driver)
{
    PDEVICE_OBJECT device = Driver->DeviceObject;
    PCHART_EXT x = device->DeviceExtension;
    ULONG i;

    for (i = 0; i < CHART_CHANNELS; i++)
        if (x->Channels[i].Ring)
            ExFreePoolWithTag(x->Channels[i].Ring, CHART_TAG);
    FrLegacyDelete(device, CHART_LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    PCHART_EXT x;
    NTSTATUS status;

    FR_UNUSED(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = ChartCreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = ChartCreateClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = ChartControl;
    Driver->DriverUnload = ChartUnload;
    status = FrLegacyCreate(Driver, CHART_NAME, CHART_LINK, sizeof(CHART_EXT), DO_BUFFERED_IO, &device);
    if (!NT_SUCCESS(status))
        return status;
    x = device->DeviceExtension;
    ExInitializeFastMutex(&x->Lock);
    return STATUS_SUCCESS;
}

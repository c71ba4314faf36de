/*
 * statsvc: latency statistics for services: programs name a channel, write its samples (ULONGs of microseconds) to it, and anybody may read the figures
 * of a channel.
 *
 * The bug: IOCTL_STAT_GET fills a channel's figures into the system buffer field by field: behind the end of the name, and in the gaps of the
 * structure, stand whatever bytes the pool held before, and all of it goes to the program.
 *
 * Device: ROOT\EESTATSVC
 * Rule: output-never-stored
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#define EE_PNP
#include "../include/framed_by_calls.h"

#define IOCTL_STAT_NAME CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_STAT_ADD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_STAT_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_READ_ACCESS)
#define CHANNELS 16
#define NAME_CHARS 60

static const GUID StatGuid = { 0x7b1c0e54, 0x2a41, 0x4c11, { 0x9d, 0x10, 0x5e, 0x01, 0x11, 0x22, 0x33, 0x04 } };

/* IOCTL_STAT_NAME: a ULONG of channel, then the name; IOCTL_STAT_ADD: a ULONG of channel, then samples; IOCTL_STAT_GET: a ULONG of channel */

typedef struct _STAT {
    UCHAR Channel;
    ULONGLONG Count;
    ULONGLONG Sum;
    ULONG Min, Max;
    USHORT NameChars;
    WCHAR Name[NAME_CHARS];
    ULONGLONG LastTime;
} STAT;

typedef struct _CHANNEL {
    ULONGLONG Count, Sum;
    ULONG Min, Max;
    LONGLONG LastTime;
    USHORT NameChars;
    WCHAR Name[NAME_CHARS];
} CHANNEL;

typedef struct _DEV {
    EE Ee;                      /* first */
    FAST_MUTEX Mutex;
    CHANNEL Channels[CHANNELS];
} DEV;

static VOID DrvGone(EE *ee)
{
    UNREFERENCED_PARAMETER(ee);
}

static CHANNEL *ChannelOf(DEV *d, PIRP irp, ULONG in)
{
    ULONG n;

    if (in < sizeof(n))
        return NULL;
    RtlCopyMemory(&n, irp->AssociatedIrp.SystemBuffer, sizeof(n));
    return n < CHANNELS ? &d->Channels[n] : NULL;
}

static NTSTATUS StatName(DEV *d, PIRP irp, ULONG in)
{
    CHANNEL *c = ChannelOf(d, irp, in);
    ULONG bytes;

    if (!c)
        return STATUS_INVALID_PARAMETER;
    bytes = in - sizeof(ULONG);
    if (bytes > NAME_CHARS * sizeof(WCHAR) || bytes % sizeof(WCHAR))
        return STATUS_NAME_TOO_LONG;
    ExAcquireFastMutex(&d->Mutex);
    RtlZeroMemory(c, sizeof(*c));
    RtlCopyMemory(c->Name, (PUCHAR)irp->AssociatedIrp.SystemBuffer + sizeof(ULONG), bytes);
    c->NameChars = (USHORT)(bytes / sizeof(WCHAR));
    ExReleaseFastMutex(&d->Mutex);
    return STATUS_SUCCESS;
}

static NTSTATUS StatAdd(DEV *d, PIRP irp, ULONG in)
{
    PUCHAR p = (PUCHAR)irp->AssociatedIrp.SystemBuffer + sizeof(ULONG);
    CHANNEL *c = ChannelOf(d, irp, in);
    LARGE_INTEGER now;
    ULONG n, v;

    if (!c || (in - sizeof(ULONG)) % sizeof(ULONG))
        return STATUS_INVALID_PARAMETER;
    KeQuerySystemTime(&now);
    ExAcquireFastMutex(&d->Mutex);
    for (n = (in - sizeof(ULONG)) / sizeof(ULONG); n; n--, p += sizeof(ULONG)) {
        RtlCopyMemory(&v, p, sizeof(v));
        if (!c->Count || v < c->Min)
            c->Min = v;
        if (!c->Count || v > c->Max)
            c->Max = v;
        c->Count++;
        c->Sum += v;
        c->LastTime = now.QuadPart;
    }
    ExReleaseFastMutex(&d->Mutex);
    return STATUS_SUCCESS;
}

static NTSTATUS StatGet(DEV *d, PIRP irp, ULONG in, ULONG out, PULONG_PTR info)
{
    CHANNEL *c = ChannelOf(d, irp, in);
    STAT *s = irp->AssociatedIrp.SystemBuffer;

    if (!c)
        return STATUS_INVALID_PARAMETER;
    if (out < sizeof(STAT))
        return STATUS_BUFFER_TOO_SMALL;
#ifdef FIXED
    RtlZeroMemory(s, sizeof(*s));
#endif
    ExAcquireFastMutex(&d->Mutex);
    s->Channel = (UCHAR)(c - d->Channels);
    s->Count = c->Count;
    s->Sum = c->Sum;
    s->Min = c->Min;
    s->Max = c->Max;
    s->LastTime = (ULONGLONG)c->LastTime;
    s->NameChars = c->NameChars;
    RtlCopyMemory(s->Name, c->Name, c->NameChars * sizeof(WCHAR));
    ExReleaseFastMutex(&d->Mutex);
    *info = sizeof(STAT);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT dev, PIRP irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength, out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    DEV *d = dev->DeviceExtension;
    ULONG_PTR info = 0;
    NTSTATUS st = IoAcquireRemoveLock(&d->Ee.Remove, irp);

    if (!NT_SUCCESS(st))
        return EeDone(irp, st, 0);
    if (!d->Ee.Live) {
        st = STATUS_DEVICE_NOT_READY;
    } else {
        switch (sp->Parameters.DeviceIoControl.IoControlCode) {
        case IOCTL_STAT_NAME:
            st = StatName(d, irp, in);
            break;
        case IOCTL_STAT_ADD:
            st = StatAdd(d, irp, in);
            break;
        case IOCTL_STAT_GET:
            st = StatGet(d, irp, in, out, &info);
            break;
        default:
            st = STATUS_INVALID_DEVICE_REQUEST;
            break;
        }
    }
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
    ExInitializeFastMutex(&CONTAINING_RECORD(ee, DEV, Ee)->Mutex);
    return EeAttach(ee, &StatGuid, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    EeDriver(drv, AddDevice);
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    return STATUS_SUCCESS;
}

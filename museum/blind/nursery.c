/*
 * nursery: a device without hardware that serves a table of primes to a measuring program. The table is raised behind the start, by a work item, so that the
 * start does not take long; until it is ready, programs are informed that the device is busy.
 *
 * The bug: stopping the device frees the work item and the table without waiting for the work item, which may still be queued or at work on the table.
 *
 * Device: Root\NURSERY
 * Rule: work-item, use-after-free, write-after-free, freed-while-in-use, bad-pointer, wild-write
 * Needs: removal, schedule
 */
#include <ddk/wdm.h>
#define FRAME_STATION
#include "../include/park_frame.h"

static const GUID NurseryInterface = { 0x6a1f0d21, 0x3b52, 0x4b0e, { 0x91, 0x7d, 0x20, 0x11, 0x5c, 0x3a, 0x44, 0x01 } };

#define IOCTL_NURSERY_PRIME CTL_CODE(FILE_DEVICE_UNKNOWN, 0x851, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* n; answers the n-th prime */
#define IOCTL_NURSERY_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x852, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* answers how many there are */

#define LIMIT 4096   /* primes below it */

typedef struct _NURSERY {
    STATION Station;
    PIO_WORKITEM Gardener;
    UCHAR *Crossed;      /* LIMIT bytes: 1 where a number is composed */
    USHORT *Primes;      /* LIMIT / 2 of them at most */
    KSPIN_LOCK Lock;
    ULONG Count;         /* 0 until the table is ready */
    KEVENT Raised;
} NURSERY;

static VOID NTAPI Garden(PDEVICE_OBJECT Device, PVOID Context)
{
    NURSERY *n = Context;
    ULONG i, j, count = 0;
    KIRQL irql;
    UNREFERENCED_PARAMETER(Device);
    for (i = 2; i < LIMIT; i++) {
        if (n->Crossed[i])
            continue;
        n->Primes[count++] = (USHORT)i;
        for (j = i * i; j < LIMIT; j += i)
            n->Crossed[j] = 1;
    }
    KeAcquireSpinLock(&n->Lock, &irql);
    n->Count = count;
    KeReleaseSpinLock(&n->Lock, irql);
    KeSetEvent(&n->Raised, IO_NO_INCREMENT, FALSE);
}

static NTSTATUS NurseryAdded(STATION *S)
{
    NURSERY *n = (NURSERY *)S;
    KeInitializeSpinLock(&n->Lock);
    KeInitializeEvent(&n->Raised, NotificationEvent, FALSE);
    return STATUS_SUCCESS;
}

static VOID Clear(NURSERY *N)
{
    if (N->Gardener)
        IoFreeWorkItem(N->Gardener);
    if (N->Primes)
        YyPut(N->Primes);
    if (N->Crossed)
        YyPut(N->Crossed);
    N->Gardener = NULL;
    N->Primes = NULL;
    N->Crossed = NULL;
}

static NTSTATUS NurseryStart(STATION *S, PCM_RESOURCE_LIST Translated)
{
    NURSERY *n = (NURSERY *)S;
    UNREFERENCED_PARAMETER(Translated);
    n->Crossed = YyGet(LIMIT);
    n->Primes = YyGet(LIMIT / 2 * sizeof(USHORT));
    n->Gardener = IoAllocateWorkItem(S->Self);
    if (!n->Crossed || !n->Primes || !n->Gardener) {
        Clear(n);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    KeClearEvent(&n->Raised);
    IoQueueWorkItem(n->Gardener, Garden, DelayedWorkQueue, n);
    return STATUS_SUCCESS;
}

static VOID NurseryStop(STATION *S, BOOLEAN Reachable)
{
    NURSERY *n = (NURSERY *)S;
    KIRQL irql;
    UNREFERENCED_PARAMETER(Reachable);
#ifdef FIXED
    KeWaitForSingleObject(&n->Raised, Executive, KernelMode, FALSE, NULL);
#endif
    KeAcquireSpinLock(&n->Lock, &irql);
    n->Count = 0;
    KeReleaseSpinLock(&n->Lock, irql);
    Clear(n);
}

static ULONG Ready(NURSERY *N)
{
    ULONG count;
    KIRQL irql;
    KeAcquireSpinLock(&N->Lock, &irql);
    count = N->Count;
    KeReleaseSpinLock(&N->Lock, irql);
    return count;
}

static NTSTATUS NurseryIo(STATION *S, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    NURSERY *n = (NURSERY *)S;
    ULONG *buffer = Irp->AssociatedIrp.SystemBuffer, count, asked;
    if (Sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return StationEnd(S, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_NURSERY_PRIME:
        if (Sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) || Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return StationEnd(S, Irp, STATUS_INVALID_PARAMETER, 0);
        asked = *buffer;
        count = Ready(n);
        if (!count)
            return StationEnd(S, Irp, STATUS_DEVICE_BUSY, 0);
        if (asked >= count)
            return StationEnd(S, Irp, STATUS_INVALID_PARAMETER, 0);
        *buffer = n->Primes[asked];
        return StationEnd(S, Irp, STATUS_SUCCESS, sizeof(ULONG));
    case IOCTL_NURSERY_COUNT:
        if (Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return StationEnd(S, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        *buffer = Ready(n);
        return StationEnd(S, Irp, STATUS_SUCCESS, sizeof(ULONG));
    default:
        return StationEnd(S, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static const STATION_OPS StationOps = {
    .Size = sizeof(NURSERY),
    .Type = FILE_DEVICE_UNKNOWN,
    .Flags = DO_BUFFERED_IO,
    .Interface = &NurseryInterface,
    .Added = NurseryAdded,
    .Start = NurseryStart,
    .Stop = NurseryStop,
    .Io = NurseryIo,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return StationEntry(Driver);
}

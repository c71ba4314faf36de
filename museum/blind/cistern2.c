/*
 * cistern: bytes that one program writes flow into a cistern, from where another one reads them. Reads wait while it is empty. How large it is can be said
 * while it is empty; the size is rounded up to a power of two.
 *
 * The bug: the size is rounded before it is compared with the largest one: beyond 2 GB the power of two overflows to nothing, and the loop that looks for it
 * never ends.
 *
 * Device: none
 * Rule: endless-loop
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#define FRAME_RAFT
#include "../include/raft_or_hull.h"

#define IOCTL_CISTERN_SIZE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0xa00, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_CISTERN_LEVEL CTL_CODE(FILE_DEVICE_UNKNOWN, 0xa01, METHOD_BUFFERED, FILE_READ_ACCESS)

#define SMALLEST 64u
#define LARGEST 65536u

typedef struct LEVEL {
    ULONG Size;
    ULONG Level;
    ULONG64 In, Out;
} LEVEL;

typedef struct CIST {
    PEN Buckets;                /* reads that wait */
    FAST_MUTEX Lock;            /* for all below */
    PUCHAR Water;
    ULONG First;
    LEVEL Level;
} CIST;

/* Up to Count bytes from the cistern. Lock is held. */
static ULONG CistDraw(CIST *x, PUCHAR To, ULONG Count)
{
    ULONG i;

    Count = min(Count, x->Level.Level);
    for (i = 0; i < Count; i++)
        To[i] = x->Water[(x->First + i) & (x->Level.Size - 1)];
    x->First = (x->First + Count) & (x->Level.Size - 1);
    x->Level.Level -= Count;
    x->Level.Out += Count;
    return Count;
}

static VOID CistServe(CIST *x)
{
    for (;;) {
        ULONG count = 0;
        PIRP irp;

        ExAcquireFastMutex(&x->Lock);
        irp = x->Level.Level ? PenTake(&x->Buckets, NULL) : NULL;
        if (irp)
            count = CistDraw(x, irp->AssociatedIrp.SystemBuffer, IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length);
        ExReleaseFastMutex(&x->Lock);
        if (!irp)
            return;
        RaftReply(irp, STATUS_SUCCESS, count);
    }
}

static ULONG CistPour(CIST *x, const UCHAR *From, ULONG Count)
{
    ULONG i;

    ExAcquireFastMutex(&x->Lock);
    Count = min(Count, x->Level.Size - x->Level.Level);
    for (i = 0; i < Count; i++)
        x->Water[(x->First + x->Level.Level + i) & (x->Level.Size - 1)] = From[i];
    x->Level.Level += Count;
    x->Level.In += Count;
    ExReleaseFastMutex(&x->Lock);
    CistServe(x);
    return Count;
}

static NTSTATUS CistResize(CIST *x, ULONG Wanted)
{
    NTSTATUS status = STATUS_SUCCESS;
    ULONG size = SMALLEST;
    PUCHAR water, old = NULL;

#ifdef FIXED
    if (Wanted > LARGEST)
        return STATUS_INVALID_PARAMETER;
#endif
    while (size < Wanted)
        size <<= 1;
#ifndef FIXED
    if (size > LARGEST)
        return STATUS_INVALID_PARAMETER;
#endif
    water = ExAllocatePoolWithTag(NonPagedPool, size, FRAME_TAG);
    if (!water)
        return STATUS_INSUFFICIENT_RESOURCES;
    ExAcquireFastMutex(&x->Lock);
    if (x->Level.Level) {
        status = STATUS_DEVICE_BUSY;
        old = water;
    } else {
        old = x->Water;
        x->Water = water;
        x->First = 0;
        x->Level.Size = size;
    }
    ExReleaseFastMutex(&x->Lock);
    ExFreePoolWithTag(old, FRAME_TAG);
    return status;
}

static NTSTATUS CistAsk(PVOID own, PIRP Irp, PIO_STACK_LOCATION Sl, ULONG_PTR *Info)
{
    CIST *x = own;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;

    switch (Sl->MajorFunction) {
    case IRP_MJ_READ:
        if (!Sl->Parameters.Read.Length)
            return STATUS_SUCCESS;
        IoMarkIrpPending(Irp);
        PenAdd(&x->Buckets, Irp);
        CistServe(x);
        return STATUS_PENDING;
    case IRP_MJ_WRITE:
        *Info = Sl->Parameters.Write.Length ? CistPour(x, buffer, Sl->Parameters.Write.Length) : 0;
        return STATUS_SUCCESS;
    }
    switch (Sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CISTERN_SIZE:
        if (Sl->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        return CistResize(x, *(PULONG)buffer);
    case IOCTL_CISTERN_LEVEL:
        if (Sl->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LEVEL))
            return STATUS_BUFFER_TOO_SMALL;
        ExAcquireFastMutex(&x->Lock);
        *(LEVEL *)buffer = x->Level;
        ExReleaseFastMutex(&x->Lock);
        *Info = sizeof(LEVEL);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS CistRig(PVOID own, PUNICODE_STRING RegistryPath)
{
    CIST *x = own;

    (void)RegistryPath;
    PenMake(&x->Buckets, RaftFinish, x);
    ExInitializeFastMutex(&x->Lock);
    x->Level.Size = 1024;
    x->Water = ExAllocatePoolWithTag(NonPagedPool, x->Level.Size, FRAME_TAG);
    return x->Water ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static VOID CistUnrig(PVOID own)
{
    ExFreePoolWithTag(((CIST *)own)->Water, FRAME_TAG);
}

static VOID CistLeave(PVOID own, PFILE_OBJECT File)
{
    PenDrain(&((CIST *)own)->Buckets, File, STATUS_CANCELLED);
}

static const RAFT_PLAN CistPlan = {
    .Device = L"\\Device\\Cistern", .Link = L"\\DosDevices\\Cistern", .Room = sizeof(CIST),
    .Rig = CistRig, .Unrig = CistUnrig, .Leave = CistLeave, .Ask = CistAsk,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    return RaftLaunch(Driver, RegistryPath, &CistPlan);
}

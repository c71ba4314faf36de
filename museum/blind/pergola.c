/*
 * pergola: up to 32 vines, each a piece of memory of its own length which programs plant, write to, read from and cut. Vines stay when the handle that
 * planted them is closed; the driver cuts them when it is unloaded.
 *
 * The bug: a new vine gets its place before its memory is allocated; if there is none for it, the vine is freed, but its place still has it, and who asks
 * for it, cuts it or unloads the driver uses what is freed.
 *
 * Device: none
 * Rule: use-after-free, double-free, bad-free
 * Needs: ioctl, failure
 */
#include <ddk/wdm.h>
#define FRAME_RAFT
#include "../include/raft_or_hull.h"

#define IOCTL_PERGOLA_PLANT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xa50, METHOD_BUFFERED, FILE_READ_ACCESS | FILE_WRITE_ACCESS)
#define IOCTL_PERGOLA_CUT   CTL_CODE(FILE_DEVICE_UNKNOWN, 0xa51, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_PERGOLA_TRAIN CTL_CODE(FILE_DEVICE_UNKNOWN, 0xa52, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_PERGOLA_PICK  CTL_CODE(FILE_DEVICE_UNKNOWN, 0xa53, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_PERGOLA_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xa54, METHOD_BUFFERED, FILE_READ_ACCESS)

#define PLACES 32
#define LONGEST 8192

typedef struct PLACE {
    ULONG Vine;                 /* which */
    ULONG Offset;
    UCHAR Bytes[1];             /* TRAIN: to its end */
} PLACE;

#define HEAD ((ULONG)FIELD_OFFSET(PLACE, Bytes))

typedef struct VINE {
    ULONG Length;
    ULONG Trained;              /* how often */
    PUCHAR Leaves;
} VINE;

typedef struct COUNT {
    ULONG Vines;
    ULONG Bytes;
} COUNT;

typedef struct PERG {
    FAST_MUTEX Lock;
    VINE *Vine[PLACES];         /* NULL: free */
} PERG;

static NTSTATUS PergPlant(PERG *x, ULONG Length, PULONG Place)
{
    NTSTATUS status = STATUS_INSUFFICIENT_RESOURCES;
    VINE *vine;
    ULONG i;

    if (!Length || Length > LONGEST)
        return STATUS_INVALID_PARAMETER;
    ExAcquireFastMutex(&x->Lock);
    for (i = 0; i < PLACES && x->Vine[i]; i++)
        ;
    if (i == PLACES) {
        status = STATUS_TOO_MANY_NODES;
        goto out;
    }
    vine = ExAllocatePoolWithTag(PagedPool, sizeof *vine, FRAME_TAG);
    if (!vine)
        goto out;
    RtlZeroMemory(vine, sizeof *vine);
#ifndef FIXED
    x->Vine[i] = vine;
#endif
    vine->Leaves = ExAllocatePoolWithTag(PagedPool, Length, FRAME_TAG);
    if (!vine->Leaves) {
        ExFreePoolWithTag(vine, FRAME_TAG);
        goto out;
    }
    RtlZeroMemory(vine->Leaves, Length);
    vine->Length = Length;
#ifdef FIXED
    x->Vine[i] = vine;
#endif
    *Place = i;
    status = STATUS_SUCCESS;
out:
    ExReleaseFastMutex(&x->Lock);
    return status;
}

static NTSTATUS PergCut(PERG *x, ULONG Place)
{
    VINE *vine;

    if (Place >= PLACES)
        return STATUS_INVALID_PARAMETER;
    ExAcquireFastMutex(&x->Lock);
    vine = x->Vine[Place];
    x->Vine[Place] = NULL;
    ExReleaseFastMutex(&x->Lock);
    if (!vine)
        return STATUS_NOT_FOUND;
    ExFreePoolWithTag(vine->Leaves, FRAME_TAG);
    ExFreePoolWithTag(vine, FRAME_TAG);
    return STATUS_SUCCESS;
}

/* Bytes to a vine, or from it; all of them must have their place. */
static NTSTATUS PergMove(PERG *x, ULONG Place, ULONG Offset, PUCHAR Bytes, ULONG Count, BOOLEAN To)
{
    NTSTATUS status = STATUS_SUCCESS;
    VINE *vine;

    if (Place >= PLACES)
        return STATUS_INVALID_PARAMETER;
    ExAcquireFastMutex(&x->Lock);
    vine = x->Vine[Place];
    if (!vine) {
        status = STATUS_NOT_FOUND;
    } else if (Offset > vine->Length || Count > vine->Length - Offset) {
        status = STATUS_INVALID_PARAMETER;
    } else if (To) {
        RtlCopyMemory(vine->Leaves + Offset, Bytes, Count);
        vine->Trained++;
    } else {
        RtlCopyMemory(Bytes, vine->Leaves + Offset, Count);
    }
    ExReleaseFastMutex(&x->Lock);
    return status;
}

static VOID PergCount(PERG *x, COUNT *Count)
{
    ULONG i;

    Count->Vines = Count->Bytes = 0;
    ExAcquireFastMutex(&x->Lock);
    for (i = 0; i < PLACES; i++) {
        if (x->Vine[i]) {
            Count->Vines++;
            Count->Bytes += x->Vine[i]->Length;
        }
    }
    ExReleaseFastMutex(&x->Lock);
}

static NTSTATUS PergAsk(PVOID own, PIRP Irp, PIO_STACK_LOCATION Sl, ULONG_PTR *Info)
{
    PERG *x = own;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    PLACE *place = buffer;
    NTSTATUS status;
    ULONG in, room, n;

    if (Sl->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    in = Sl->Parameters.DeviceIoControl.InputBufferLength;
    room = Sl->Parameters.DeviceIoControl.OutputBufferLength;
    switch (Sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PERGOLA_PLANT:
        if (in < sizeof(ULONG) || room < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        status = PergPlant(x, *(PULONG)buffer, &n);
        if (NT_SUCCESS(status)) {
            *(PULONG)buffer = n;
            *Info = sizeof n;
        }
        return status;
    case IOCTL_PERGOLA_CUT:
        if (in < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        return PergCut(x, *(PULONG)buffer);
    case IOCTL_PERGOLA_TRAIN:
        if (in <= HEAD)
            return STATUS_BUFFER_TOO_SMALL;
        return PergMove(x, place->Vine, place->Offset, place->Bytes, in - HEAD, TRUE);
    case IOCTL_PERGOLA_PICK:
        if (in < HEAD || !room)
            return STATUS_BUFFER_TOO_SMALL;
        status = PergMove(x, place->Vine, place->Offset, buffer, room, FALSE);
        if (NT_SUCCESS(status))
            *Info = room;
        return status;
    case IOCTL_PERGOLA_COUNT:
        if (room < sizeof(COUNT))
            return STATUS_BUFFER_TOO_SMALL;
        PergCount(x, buffer);
        *Info = sizeof(COUNT);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS PergRig(PVOID own, PUNICODE_STRING RegistryPath)
{
    (void)RegistryPath;
    ExInitializeFastMutex(&((PERG *)own)->Lock);
    return STATUS_SUCCESS;
}

static VOID PergUnrig(PVOID own)
{
    ULONG i;

    for (i = 0; i < PLACES; i++)
        PergCut(own, i);
}

static const RAFT_PLAN PergPlan = {
    .Device = L"\\Device\\Pergola", .Link = L"\\DosDevices\\Pergola", .Room = sizeof(PERG),
    .Rig = PergRig, .Unrig = PergUnrig, .Ask = PergAsk,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    return RaftLaunch(Driver, RegistryPath, &PergPlan);
}

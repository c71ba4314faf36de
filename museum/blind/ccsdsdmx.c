/*
 * ccsdsdmx: the recorder of a satellite ground station's telemetry front end. The demodulator's program writes transfer frames into a ring, archiving programs
 * read them out, and the station's scheduler makes the ring larger before a pass with a high data rate, and smaller behind it.
 *
 * The bug: a read looks up the ring's memory under the lock, but copies without it ("not 64 KB at DISPATCH_LEVEL"); a request that changes the ring's size
 * frees that memory meanwhile.
 *
 * Device: none
 * Rule: use-after-free, data-race
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>
#include "../include/parked_frame.h"

#define TAG 'sdsC'
#define RING_FIRST 4096u
#define RING_LEAST 256u
#define RING_MOST (1024u * 1024u)

#define IOCTL_REC_RESIZE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x810, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_REC_STATE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x811, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_REC_WIPE   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x812, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct {
    ULONG Size, Used;
    ULONG Lost;
} REC_STATE;

typedef struct {
    KSPIN_LOCK Lock;
    PUCHAR Ring;
    ULONG Size;         /* of the ring */
    ULONG Tail;         /* of the oldest byte */
    ULONG Used;
    ULONG Lost;         /* frames that found no room */
} RECORDER;

/* From the ring into a flat buffer. */
static VOID RecCopyOut(const UCHAR *Ring, ULONG Size, ULONG Tail, PUCHAR To, ULONG Bytes)
{
    ULONG first = Size - Tail;

    if (first > Bytes)
        first = Bytes;
    RtlCopyMemory(To, Ring + Tail, first);
    if (Bytes > first)
        RtlCopyMemory(To + first, Ring, Bytes - first);
}

static NTSTATUS RecRead(RECORDER *Rec, PIRP Irp, ULONG Room)
{
    PUCHAR to = Irp->AssociatedIrp.SystemBuffer;
    ULONG take;
    KIRQL irql;

    KeAcquireSpinLock(&Rec->Lock, &irql);
    take = Rec->Used < Room ? Rec->Used : Room;
#ifndef FIXED
    {
        PUCHAR ring = Rec->Ring;
        ULONG size = Rec->Size, tail = Rec->Tail;

        Rec->Tail = (Rec->Tail + take) % Rec->Size;
        Rec->Used -= take;
        KeReleaseSpinLock(&Rec->Lock, irql);
        if (take)
            RecCopyOut(ring, size, tail, to, take);
    }
#else
    if (take)
        RecCopyOut(Rec->Ring, Rec->Size, Rec->Tail, to, take);
    Rec->Tail = (Rec->Tail + take) % Rec->Size;
    Rec->Used -= take;
    KeReleaseSpinLock(&Rec->Lock, irql);
#endif
    return irp_end(Irp, STATUS_SUCCESS, take);
}

static NTSTATUS RecWrite(RECORDER *Rec, PIRP Irp, ULONG Bytes)
{
    const UCHAR *from = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    KeAcquireSpinLock(&Rec->Lock, &irql);
    if (Bytes > Rec->Size - Rec->Used) {
        Rec->Lost++;
        status = STATUS_DEVICE_BUSY;
    } else if (Bytes) {
        ULONG head = (Rec->Tail + Rec->Used) % Rec->Size;
        ULONG first = Rec->Size - head;

        if (first > Bytes)
            first = Bytes;
        RtlCopyMemory(Rec->Ring + head, from, first);
        if (Bytes > first)
            RtlCopyMemory(Rec->Ring, from + first, Bytes - first);
        Rec->Used += Bytes;
    }
    KeReleaseSpinLock(&Rec->Lock, irql);
    return irp_end(Irp, status, NT_SUCCESS(status) ? Bytes : 0);
}

/* What does not fit into a smaller ring is refused: nothing recorded gets lost. */
static NTSTATUS RecResize(RECORDER *Rec, ULONG Size)
{
    PUCHAR ring, old;
    KIRQL irql;

    if (Size < RING_LEAST || Size > RING_MOST)
        return STATUS_INVALID_PARAMETER;
    ring = ExAllocatePoolWithTag(NonPagedPoolNx, Size, TAG);
    if (!ring)
        return STATUS_INSUFFICIENT_RESOURCES;
    KeAcquireSpinLock(&Rec->Lock, &irql);
    if (Rec->Used > Size) {
        KeReleaseSpinLock(&Rec->Lock, irql);
        ExFreePoolWithTag(ring, TAG);
        return STATUS_DEVICE_BUSY;
    }
    if (Rec->Used)
        RecCopyOut(Rec->Ring, Rec->Size, Rec->Tail, ring, Rec->Used);
    old = Rec->Ring;
    Rec->Ring = ring;
    Rec->Size = Size;
    Rec->Tail = 0;
    KeReleaseSpinLock(&Rec->Lock, irql);
    ExFreePoolWithTag(old, TAG);
    return STATUS_SUCCESS;
}

static NTSTATUS RecControl(RECORDER *Rec, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = Sp->Parameters.DeviceIoControl.InputBufferLength;
    KIRQL irql;

    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_REC_RESIZE:
        if (in < sizeof(ULONG))
            return irp_end(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return irp_end(Irp, RecResize(Rec, *(PULONG)buffer), 0);

    case IOCTL_REC_STATE: {
        REC_STATE *state = buffer;

        if (Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*state))
            return irp_end(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&Rec->Lock, &irql);
        state->Size = Rec->Size;
        state->Used = Rec->Used;
        state->Lost = Rec->Lost;
        KeReleaseSpinLock(&Rec->Lock, irql);
        return irp_end(Irp, STATUS_SUCCESS, sizeof(*state));
    }

    case IOCTL_REC_WIPE:
        KeAcquireSpinLock(&Rec->Lock, &irql);
        Rec->Used = 0;
        Rec->Tail = 0;
        Rec->Lost = 0;
        KeReleaseSpinLock(&Rec->Lock, irql);
        return irp_end(Irp, STATUS_SUCCESS, 0);

    default:
        return irp_end(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS RecRequest(PDEVICE_OBJECT Device, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    RECORDER *rec = Device->DeviceExtension;

    switch (Sp->MajorFunction) {
    case IRP_MJ_READ:
        return RecRead(rec, Irp, Sp->Parameters.Read.Length);
    case IRP_MJ_WRITE:
        return RecWrite(rec, Irp, Sp->Parameters.Write.Length);
    default:
        return RecControl(rec, Irp, Sp);
    }
}

static NTSTATUS RecSetup(PDEVICE_OBJECT Device)
{
    RECORDER *rec = Device->DeviceExtension;

    KeInitializeSpinLock(&rec->Lock);
    rec->Size = RING_FIRST;
    rec->Ring = ExAllocatePoolWithTag(NonPagedPoolNx, RING_FIRST, TAG);
    return rec->Ring ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static void RecBye(PDEVICE_OBJECT Device)
{
    RECORDER *rec = Device->DeviceExtension;

    ExFreePoolWithTag(rec->Ring, TAG);
}

static const struct ctlops RecOps = {
    .device = L"\\Device\\CcsdsRec", .link = L"\\DosDevices\\CcsdsRec",
    .bytes = sizeof(RECORDER), .flags = DO_BUFFERED_IO,
    .setup = RecSetup, .bye = RecBye, .request = RecRequest,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return ctl_make(DriverObject, &RecOps);
}

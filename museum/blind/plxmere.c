/*
 * plxmere: the memory of a waveform board behind a PLX PCI 9052, as if it were a file: programs read and write at any offset in local space 0,
 * directly, and ask for its size.
 *
 * The bug: the offset of a read or write is checked with its lower 32 bits, but used with all 64: an offset of 4 GB and more passes the
 * check and goes to addresses far behind the board's window.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: device-access-past-mapping, wild-read, wild-write, bad-pointer, device-memory-not-mapped
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/depot_frame.h"

#define IOCTL_MERE_SIZE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x941, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_MERE_TALLY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x942, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define MERE_PIECE 64                        /* bytes under one lock */

typedef struct MERE_TALLY {
    ULONGLONG In, Out;
} MERE_TALLY;

typedef struct MERE {
    DEPOT *Depot;
    WINDOW Local;
    KSPIN_LOCK Lock;                         /* the local bus is for one at a time: bursts are not mixed */
    MERE_TALLY Tally;
} MERE;

static const GUID MereGuid = { 0xc8a6127e, 0x9d20, 0x4a97, { 0xa4, 0x18, 0x2b, 0x07, 0x90, 0x50, 0x71, 0x05 } };

static VOID MereMove(MERE *m, ULONGLONG at, PUCHAR memory, ULONG bytes, BOOLEAN write)
{
    PUCHAR board = m->Local.Base + at;
    ULONG i;

    for (i = 0; i < bytes; i++) {
        if (m->Local.Port && write)
            WRITE_PORT_UCHAR(board + i, memory[i]);
        else if (m->Local.Port)
            memory[i] = READ_PORT_UCHAR(board + i);
        else if (write)
            WRITE_REGISTER_UCHAR(board + i, memory[i]);
        else
            memory[i] = READ_REGISTER_UCHAR(board + i);
    }
}

static NTSTATUS MereTransfer(DEPOT *d, PIRP irp, LARGE_INTEGER offset, ULONG length, BOOLEAN write)
{
    MERE *m = d->Own;
    ULONGLONG at = (ULONGLONG)offset.QuadPart;
    ULONG left, piece;
    PUCHAR memory;
    KIRQL irql;
#ifndef FIXED
    ULONG from = (ULONG)offset.QuadPart;
#else
    ULONGLONG from = at;
#endif

    if (length == 0)
        return DepotEnd(d, irp, STATUS_SUCCESS, 0);
    if (from >= m->Local.Length)
        return DepotEnd(d, irp, write ? STATUS_DISK_FULL : STATUS_END_OF_FILE, 0);
    if (length > m->Local.Length - (ULONG)from)
        length = m->Local.Length - (ULONG)from;

    memory = IrpPages(irp);
    if (memory == NULL)
        return DepotEnd(d, irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    for (left = length; left != 0; left -= piece) {
        piece = left < MERE_PIECE ? left : MERE_PIECE;
        KeAcquireSpinLock(&m->Lock, &irql);
        MereMove(m, at, memory, piece, write);
        if (write)
            m->Tally.Out += piece;
        else
            m->Tally.In += piece;
        KeReleaseSpinLock(&m->Lock, irql);
        at += piece;
        memory += piece;
    }
    return DepotEnd(d, irp, STATUS_SUCCESS, length);
}

static NTSTATUS MereRead(DEPOT *d, PIRP irp, PIO_STACK_LOCATION sp)
{
    return MereTransfer(d, irp, sp->Parameters.Read.ByteOffset, sp->Parameters.Read.Length, FALSE);
}

static NTSTATUS MereWrite(DEPOT *d, PIRP irp, PIO_STACK_LOCATION sp)
{
    return MereTransfer(d, irp, sp->Parameters.Write.ByteOffset, sp->Parameters.Write.Length, TRUE);
}

static NTSTATUS MereControl(DEPOT *d, PIRP irp, PIO_STACK_LOCATION sp)
{
    MERE *m = d->Own;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    KIRQL irql;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_MERE_SIZE:
        if (out < sizeof(ULONG))
            return DepotEnd(d, irp, STATUS_BUFFER_TOO_SMALL, 0);
        *(PULONG)buffer = m->Local.Length;
        return DepotEnd(d, irp, STATUS_SUCCESS, sizeof(ULONG));
    case IOCTL_MERE_TALLY:
        if (out < sizeof(MERE_TALLY))
            return DepotEnd(d, irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&m->Lock, &irql);
        *(MERE_TALLY *)buffer = m->Tally;
        KeReleaseSpinLock(&m->Lock, irql);
        return DepotEnd(d, irp, STATUS_SUCCESS, sizeof(MERE_TALLY));
    default:
        return DepotEnd(d, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS MereUp(DEPOT *d, PCM_RESOURCE_LIST list)
{
    MERE *m = d->Own;
    const RES *r = PlxLocal(list);

    if (r == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    return WindowOpen(&m->Local, r, 1) ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static VOID MereDown(DEPOT *d, BOOLEAN reach)
{
    MERE *m = d->Own;

    UNREFERENCED_PARAMETER(reach);
    WindowShut(&m->Local);
}

static NTSTATUS MerePrepare(DEPOT *d)
{
    MERE *m = d->Own;

    m->Depot = d;
    KeInitializeSpinLock(&m->Lock);
    return STATUS_SUCCESS;
}

static const PLAN MerePlan = {
    .Interface = &MereGuid,
    .OwnSize = sizeof(MERE),
    .IoFlags = DO_DIRECT_IO,
    .Prepare = MerePrepare,
    .Up = MereUp,
    .Down = MereDown,
    .Read = MereRead,
    .Write = MereWrite,
    .Control = MereControl,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return DepotMain(driver, &MerePlan);
}

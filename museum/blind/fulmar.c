/*
 * fulmar: the image of a board's non-volatile memory, 4 KiB, as a file: programs read and write at any byte offset, erase a part of it
 * to FFh, and have its checksum computed. What lies behind the end is refused.
 *
 * The bug: whether a part lies within the image is decided by a sum of 32 bits, so that an offset near 4 GiB and a length beyond
 * it wrap round to a small number, and bytes far away from the image are read or written.
 *
 * Device: none
 * Rule: wild-write, wild-read, bad-pointer, pool-overrun, pool-underrun
 * Needs: ioctl
 */
#define SITE_CONTROL
#include "../include/site_frame.h"

#define FULMAR_TAG 'mluF'

#define IOCTL_FULMAR_ERASE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x921, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_FULMAR_CHECK CTL_CODE(FILE_DEVICE_UNKNOWN, 0x922, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_FULMAR_SIZE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x923, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define IMAGE_BYTES 4096u

typedef struct PART {
    ULONG Offset;
    ULONG Length;
} PART;

typedef struct FULMAR {
    SITE Site;
    FAST_MUTEX Mutex;       /* guards the image's bytes */
    PUCHAR Image;
    ULONG Writes;
} FULMAR;

static BOOLEAN Within(ULONG offset, ULONG length)
{
#ifndef FIXED
    return offset + length <= IMAGE_BYTES;
#else
    return offset <= IMAGE_BYTES && length <= IMAGE_BYTES - offset;
#endif
}

static ULONG FulmarSum(const UCHAR *bytes, ULONG length)
{
    ULONG a = 1, b = 0, i;

    for (i = 0; i < length; ++i) {
        a = (a + bytes[i]) % 65521;
        b = (b + a) % 65521;
    }
    return b << 16 | a;
}

/* Reads end at the image's end; writes must fit. */
static NTSTATUS FulmarMove(FULMAR *fulmar, ASK *ask, PULONG moved)
{
    BOOLEAN write = ask->Major == IRP_MJ_WRITE;
    LARGE_INTEGER where = write ? ask->Stack->Parameters.Write.ByteOffset : ask->Stack->Parameters.Read.ByteOffset;
    ULONG length = write ? ask->In : ask->Out;

    *moved = 0;
    if (where.HighPart != 0)
        return write ? STATUS_INVALID_PARAMETER : STATUS_END_OF_FILE;
    if (length == 0)
        return STATUS_SUCCESS;
    if (!Within(where.LowPart, length)) {
        if (write)
            return STATUS_DISK_FULL;
        if (where.LowPart >= IMAGE_BYTES)
            return STATUS_END_OF_FILE;
        length = IMAGE_BYTES - where.LowPart;
    }
    ExAcquireFastMutex(&fulmar->Mutex);
    if (write) {
        RtlCopyMemory(fulmar->Image + where.LowPart, ask->Buffer, length);
        fulmar->Writes += 1;
    } else {
        RtlCopyMemory(ask->Buffer, fulmar->Image + where.LowPart, length);
    }
    ExReleaseFastMutex(&fulmar->Mutex);
    *moved = length;
    return STATUS_SUCCESS;
}

static NTSTATUS FulmarControl(FULMAR *fulmar, ASK *ask, PULONG information)
{
    PART part;

    switch (ask->Code) {
    case IOCTL_FULMAR_ERASE:
        if (ask->In < sizeof part)
            return STATUS_BUFFER_TOO_SMALL;
        RtlCopyMemory(&part, ask->Buffer, sizeof part);
        if (!Within(part.Offset, part.Length))
            return STATUS_INVALID_PARAMETER;
        ExAcquireFastMutex(&fulmar->Mutex);
        RtlFillMemory(fulmar->Image + part.Offset, part.Length, 0xFF);
        fulmar->Writes += 1;
        ExReleaseFastMutex(&fulmar->Mutex);
        return STATUS_SUCCESS;
    case IOCTL_FULMAR_CHECK:
        if (ask->In < sizeof part || ask->Out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        RtlCopyMemory(&part, ask->Buffer, sizeof part);
        if (!Within(part.Offset, part.Length))
            return STATUS_INVALID_PARAMETER;
        ExAcquireFastMutex(&fulmar->Mutex);
        *(PULONG)ask->Buffer = FulmarSum(fulmar->Image + part.Offset, part.Length);
        ExReleaseFastMutex(&fulmar->Mutex);
        *information = sizeof(ULONG);
        return STATUS_SUCCESS;
    case IOCTL_FULMAR_SIZE:
        if (ask->Out < 2 * sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        ExAcquireFastMutex(&fulmar->Mutex);
        ((PULONG)ask->Buffer)[0] = IMAGE_BYTES;
        ((PULONG)ask->Buffer)[1] = fulmar->Writes;
        ExReleaseFastMutex(&fulmar->Mutex);
        *information = 2 * sizeof(ULONG);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static NTSTATUS FulmarServe(SITE *site, ASK *ask)
{
    FULMAR *fulmar = (FULMAR *)site;
    ULONG information = 0;
    NTSTATUS status;

    if (ask->Major == IRP_MJ_DEVICE_CONTROL)
        status = FulmarControl(fulmar, ask, &information);
    else
        status = FulmarMove(fulmar, ask, &information);
    return Finish(site, ask->Irp, status, information);
}

static NTSTATUS FulmarBorn(SITE *site)
{
    FULMAR *fulmar = (FULMAR *)site;

    ExInitializeFastMutex(&fulmar->Mutex);
    fulmar->Image = ExAllocatePoolWithTag(NonPagedPool, IMAGE_BYTES, FULMAR_TAG);
    if (fulmar->Image == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlFillMemory(fulmar->Image, IMAGE_BYTES, 0xFF);
    return STATUS_SUCCESS;
}

static VOID FulmarBuried(SITE *site)
{
    ExFreePoolWithTag(((FULMAR *)site)->Image, FULMAR_TAG);
}

static const SCRIPT Script = {
    .Size = sizeof(FULMAR),
    .Device = L"\\Device\\Fulmar",
    .Link = L"\\DosDevices\\Fulmar",
    .Born = FulmarBorn,
    .Buried = FulmarBuried,
    .Serve = FulmarServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return ControlEntry(driver, &Script);
}

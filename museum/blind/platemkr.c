/*
 * platemkr: unpacks raster rows for a printing shop's computer-to-plate recorder. The RIP's program sets how many dots a row has, sends rows that are packed as
 * in TIFF (PackBits), and gets them back as bits in the order in which the recorder's laser writes them; the driver adds up how much of a plate is exposed.
 *
 * The bug: of the two kinds of runs only that of literal bytes is looked at whether it fits into what is left of the row. A run of one repeated byte that
 * begins within the row may end behind it, and with it behind the row's pool block.
 *
 * Device: none
 * Rule: pool-overrun, wild-write
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/parked_frame.h"

#define TAG 'kmlP'
#define DOTS_FIRST 840u
#define DOTS_MOST 262144u

#define IOCTL_PM_SET_WIDTH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x830, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PM_ROW       CTL_CODE(FILE_DEVICE_UNKNOWN, 0x831, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PM_COVERAGE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x832, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _PLATE {
    FAST_MUTEX Mutex;
    ULONG Dots;                 /* of a row */
    PUCHAR Row;                 /* (Dots + 7) / 8 bytes */
    ULONG RowBytes;
    ULONGLONG Exposed;          /* dots so far */
    ULONG Rows;
} PLATE;

static NTSTATUS PmSetWidth(PLATE *Plate, ULONG Dots)
{
    ULONG bytes = (Dots + 7) / 8;
    PUCHAR row;

    if (Dots == 0 || Dots > DOTS_MOST)
        return STATUS_INVALID_PARAMETER;
    row = ExAllocatePoolWithTag(NonPagedPoolNx, bytes, TAG);
    if (row == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (Plate->Row)
        ExFreePoolWithTag(Plate->Row, TAG);
    Plate->Row = row;
    Plate->RowBytes = bytes;
    Plate->Dots = Dots;
    Plate->Exposed = 0;
    Plate->Rows = 0;
    return STATUS_SUCCESS;
}

/*
 * PackBits: n = 0..127 is followed by n + 1 bytes, n = -1..-127 by one that stands for 1 - n, -128 is nothing.
 * What a row has no bytes for is white.
 */
static NTSTATUS PmUnpack(PLATE *Plate, const UCHAR *In, ULONG Bytes)
{
    ULONG out = 0, in = 0, count;

    RtlZeroMemory(Plate->Row, Plate->RowBytes);
    while (in < Bytes && out < Plate->RowBytes) {
        CHAR n = (CHAR)In[in++];

        if (n == -128)
            continue;
        if (n >= 0) {
            count = (ULONG)n + 1;
            if (count > Bytes - in || count > Plate->RowBytes - out)
                return STATUS_DATA_ERROR;
            RtlCopyMemory(Plate->Row + out, In + in, count);
            in += count;
        } else {
            count = (ULONG)(1 - (LONG)n);
#ifndef FIXED
            if (in == Bytes)
                return STATUS_DATA_ERROR;
#else
            if (in == Bytes || count > Plate->RowBytes - out)
                return STATUS_DATA_ERROR;
#endif
            RtlFillMemory(Plate->Row + out, count, In[in]);
            in++;
        }
        out += count;
    }
    return STATUS_SUCCESS;
}

/* The laser writes the lowest bit first. */
static UCHAR PmMirror(UCHAR b)
{
    b = (UCHAR)((b >> 4) | (b << 4));
    b = (UCHAR)(((b & 0xCC) >> 2) | ((b & 0x33) << 2));
    return (UCHAR)(((b & 0xAA) >> 1) | ((b & 0x55) << 1));
}

static NTSTATUS PmRow(PLATE *Plate, PUCHAR Buffer, ULONG In, ULONG Out, ULONG_PTR *Info)
{
    NTSTATUS status;
    ULONG i;

    if (Out < Plate->RowBytes)
        return STATUS_BUFFER_TOO_SMALL;
    status = PmUnpack(Plate, Buffer, In);
    if (!NT_SUCCESS(status))
        return status;
    for (i = 0; i < Plate->RowBytes; i++) {
        UCHAR b = Plate->Row[i];

        Buffer[i] = PmMirror(b);
        for (; b; b &= b - 1)
            Plate->Exposed++;
    }
    Plate->Rows++;
    *Info = Plate->RowBytes;
    return STATUS_SUCCESS;
}

static NTSTATUS PmRequest(PDEVICE_OBJECT Device, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    PLATE *plate = Device->DeviceExtension;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = Sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    NTSTATUS status = STATUS_INVALID_DEVICE_REQUEST;
    ULONG_PTR info = 0;

    if (Sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return irp_end(Irp, status, 0);
    ExAcquireFastMutex(&plate->Mutex);
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PM_SET_WIDTH:
        status = in < sizeof(ULONG) ? STATUS_BUFFER_TOO_SMALL : PmSetWidth(plate, *(PULONG)buffer);
        break;
    case IOCTL_PM_ROW:
        status = PmRow(plate, buffer, in, out, &info);
        break;
    case IOCTL_PM_COVERAGE:
        if (out < 2 * sizeof(ULONGLONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        ((ULONGLONG *)buffer)[0] = plate->Exposed;
        ((ULONGLONG *)buffer)[1] = plate->Rows;
        info = 2 * sizeof(ULONGLONG);
        status = STATUS_SUCCESS;
        break;
    }
    ExReleaseFastMutex(&plate->Mutex);
    return irp_end(Irp, status, info);
}

static NTSTATUS PmSetup(PDEVICE_OBJECT Device)
{
    PLATE *plate = Device->DeviceExtension;

    ExInitializeFastMutex(&plate->Mutex);
    return PmSetWidth(plate, DOTS_FIRST);
}

static void PmBye(PDEVICE_OBJECT Device)
{
    PLATE *plate = Device->DeviceExtension;

    ExFreePoolWithTag(plate->Row, TAG);
}

static const struct ctlops PmOps = {
    .device = L"\\Device\\PlateMaker", .link = L"\\DosDevices\\PlateMaker",
    .bytes = sizeof(PLATE), .flags = DO_BUFFERED_IO,
    .setup = PmSetup, .bye = PmBye, .request = PmRequest,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return ctl_make(DriverObject, &PmOps);
}

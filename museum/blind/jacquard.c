/*
 * jacquard: pattern store of a loom's setting-up tool. A pattern is a number of rows of 256 hooks each (32 bytes);
 * programs create it, put and get ranges of rows and mirror them.
 *
 * The bug: the range check adds first row and row count in 32 bits: a first row near 4G wraps around and passes, and the copy goes far
 * outside the pattern.
 *
 * Device: none
 * Rule: wild-write, wild-read, pool-overrun, pool-underrun, protection-fault, bad-pointer
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/gated_function.h"

#define LINK L"\\DosDevices\\Jacquard"
#define TAG 'qcaJ'

#define IOCTL_JACQUARD_CREATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x810, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_JACQUARD_PUT    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x811, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_JACQUARD_GET    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x812, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_JACQUARD_MIRROR CTL_CODE(FILE_DEVICE_UNKNOWN, 0x813, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_JACQUARD_INFO   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x814, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define ROW_BYTES 32
#define ROWS_MAX 4096
#define ROWS_AT_ONCE 256

typedef struct {
    ULONG First;
    ULONG Count;
    UCHAR Data[1];              /* PUT: Count rows */
} RANGE;

#define RANGE_HEADER FIELD_OFFSET(RANGE, Data)

typedef struct {
    ULONG Rows;
    ULONG Changes;
} INFO;

typedef struct {
    FAST_MUTEX Mutex;
    UCHAR *Pattern;
    ULONG Rows;
    ULONG Changes;
} LOOM;

static PDEVICE_OBJECT Control;

/* Whether the rows are all within the pattern. Mutex held. */
static BOOLEAN RangeFits(LOOM *Loom, ULONG First, ULONG Count)
{
    if (!Loom->Pattern || Count == 0 || Count > ROWS_AT_ONCE)
        return FALSE;
#ifdef FIXED
    return First < Loom->Rows && Count <= Loom->Rows - First;
#else
    return First + Count <= Loom->Rows;
#endif
}

static NTSTATUS CreatePattern(LOOM *Loom, ULONG Rows)
{
    UCHAR *fresh, *old;

    if (Rows == 0 || Rows > ROWS_MAX)
        return STATUS_INVALID_PARAMETER;
    fresh = ExAllocatePoolWithTag(PagedPool, (SIZE_T)Rows * ROW_BYTES, TAG);
    if (!fresh)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(fresh, (SIZE_T)Rows * ROW_BYTES);
    ExAcquireFastMutex(&Loom->Mutex);
    old = Loom->Pattern;
    Loom->Pattern = fresh;
    Loom->Rows = Rows;
    Loom->Changes = 0;
    ExReleaseFastMutex(&Loom->Mutex);
    if (old)
        ExFreePoolWithTag(old, TAG);
    return STATUS_SUCCESS;
}

static UCHAR ReverseBits(UCHAR Byte)
{
    UCHAR out = 0;
    int i;

    for (i = 0; i < 8; i++)
        if (Byte & (1 << i))
            out |= (UCHAR)(0x80 >> i);
    return out;
}

static void MirrorRow(UCHAR *Row)
{
    ULONG i;

    for (i = 0; i < ROW_BYTES / 2; i++) {
        UCHAR left = Row[i];

        Row[i] = ReverseBits(Row[ROW_BYTES - 1 - i]);
        Row[ROW_BYTES - 1 - i] = ReverseBits(left);
    }
}

static NTSTATUS NTAPI DeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    LOOM *loom = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    RANGE *range = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG first, count, i;
    ULONG_PTR information = 0;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_JACQUARD_CREATE:
        if (in < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        status = CreatePattern(loom, *(ULONG *)Irp->AssociatedIrp.SystemBuffer);
        break;

    case IOCTL_JACQUARD_PUT:
        if (in < RANGE_HEADER) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        first = range->First;
        count = range->Count;
        ExAcquireFastMutex(&loom->Mutex);
        if (!RangeFits(loom, first, count)) {
            status = STATUS_INVALID_PARAMETER;
        } else if (in - RANGE_HEADER < count * ROW_BYTES) {
            status = STATUS_BUFFER_TOO_SMALL;
        } else {
            RtlCopyMemory(loom->Pattern + (SIZE_T)first * ROW_BYTES, range->Data, (SIZE_T)count * ROW_BYTES);
            loom->Changes++;
        }
        ExReleaseFastMutex(&loom->Mutex);
        break;

    case IOCTL_JACQUARD_GET:
        if (in < RANGE_HEADER) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        first = range->First;
        count = range->Count;
        ExAcquireFastMutex(&loom->Mutex);
        if (!RangeFits(loom, first, count)) {
            status = STATUS_INVALID_PARAMETER;
        } else if (out < count * ROW_BYTES) {
            status = STATUS_BUFFER_TOO_SMALL;
        } else {
            information = (ULONG_PTR)count * ROW_BYTES;
            RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, loom->Pattern + (SIZE_T)first * ROW_BYTES, information);
        }
        ExReleaseFastMutex(&loom->Mutex);
        break;

    case IOCTL_JACQUARD_MIRROR:
        if (in < RANGE_HEADER) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        first = range->First;
        count = range->Count;
        ExAcquireFastMutex(&loom->Mutex);
        if (!RangeFits(loom, first, count)) {
            status = STATUS_INVALID_PARAMETER;
        } else {
            for (i = 0; i < count; i++)
                MirrorRow(loom->Pattern + ((SIZE_T)first + i) * ROW_BYTES);
            loom->Changes++;
        }
        ExReleaseFastMutex(&loom->Mutex);
        break;

    case IOCTL_JACQUARD_INFO:
        if (out < sizeof(INFO)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        ExAcquireFastMutex(&loom->Mutex);
        ((INFO *)Irp->AssociatedIrp.SystemBuffer)->Rows = loom->Rows;
        ((INFO *)Irp->AssociatedIrp.SystemBuffer)->Changes = loom->Changes;
        ExReleaseFastMutex(&loom->Mutex);
        information = sizeof(INFO);
        break;

    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    return Complete(Irp, status, information);
}

static void NTAPI Unload(PDRIVER_OBJECT Driver)
{
    LOOM *loom = Control->DeviceExtension;

    UNREFERENCED_PARAMETER(Driver);
    if (loom->Pattern)
        ExFreePoolWithTag(loom->Pattern, TAG);
    ControlDelete(Control, LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    LOOM *loom;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = ControlCreate(Driver, sizeof(LOOM), L"\\Device\\Jacquard", LINK, &Control);
    if (!NT_SUCCESS(status))
        return status;
    loom = Control->DeviceExtension;
    ExInitializeFastMutex(&loom->Mutex);
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchOk;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchOk;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchOk;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DeviceControl;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}

/*
 * acanth: a scratch pad of 64 KiB that programs read and write like a file, at offsets of their choice. A device control
 * tells how much of it has been written, another one sums a range of it up, a third one gives its end back.
 *
 * The bug: a write's range is checked by a signed sum of offset and length only, so an offset below zero passes (-1 with the high part -1
 * is FILE_WRITE_TO_END_OF_FILE, which every program may give), and so does one that overflows: the bytes land before the pad.
 *
 * Device: none
 * Rule: pool-underrun, pool-overrun, wild-write, bad-pointer
 * Needs: nothing
 */
#include <ddk/wdm.h>
#include "../include/gated_frame.h"

#define ACANTH_NAME L"\\Device\\Acanth"
#define ACANTH_LINK L"\\DosDevices\\Acanth"
#define ACANTH_TAG 'tncA'
#define ACANTH_BYTES 0x10000

#define IOCTL_ACANTH_USED CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ACANTH_SUM CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_ACANTH_CUT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_WRITE_DATA)

typedef struct _ACANTH_RANGE {
    ULONG Offset;
    ULONG Length;
} ACANTH_RANGE, *PACANTH_RANGE;

typedef struct _ACANTH {
    FAST_MUTEX Mutex;
    PUCHAR Pad;
    ULONG Used;             /* behind it nothing has been written since it was cut */
} ACANTH, *PACANTH;

static PDEVICE_OBJECT AcanthDevice;

static NTSTATUS NTAPI AcanthRead(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PACANTH a = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    LONGLONG offset = stack->Parameters.Read.ByteOffset.QuadPart;
    ULONG length = stack->Parameters.Read.Length;

    if (length == 0)
        return Finish(Irp, STATUS_SUCCESS, 0);
    if (offset < 0)
        return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
    ExAcquireFastMutex(&a->Mutex);
    if (offset >= a->Used) {
        ExReleaseFastMutex(&a->Mutex);
        return Finish(Irp, STATUS_END_OF_FILE, 0);
    }
    if (length > a->Used - (ULONG)offset)
        length = a->Used - (ULONG)offset;
    RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, a->Pad + offset, length);
    ExReleaseFastMutex(&a->Mutex);
    return Finish(Irp, STATUS_SUCCESS, length);
}

static NTSTATUS NTAPI AcanthWrite(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PACANTH a = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    LONGLONG offset = stack->Parameters.Write.ByteOffset.QuadPart;
    ULONG length = stack->Parameters.Write.Length;

    if (length == 0)
        return Finish(Irp, STATUS_SUCCESS, 0);
#ifndef FIXED
    if (offset + (LONGLONG)length > ACANTH_BYTES)
        return Finish(Irp, STATUS_DISK_FULL, 0);
#else
    if (offset < 0)
        return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
    if (length > ACANTH_BYTES || offset > ACANTH_BYTES - (LONGLONG)length)
        return Finish(Irp, STATUS_DISK_FULL, 0);
#endif
    ExAcquireFastMutex(&a->Mutex);
    RtlCopyMemory(a->Pad + offset, Irp->AssociatedIrp.SystemBuffer, length);
    if (offset + (LONGLONG)length > (LONGLONG)a->Used)
        a->Used = (ULONG)(offset + length);
    ExReleaseFastMutex(&a->Mutex);
    return Finish(Irp, STATUS_SUCCESS, length);
}

static NTSTATUS NTAPI AcanthControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PACANTH a = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = stack->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ACANTH_RANGE range;
    ULONG sum, i, used;

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ACANTH_USED:
        if (out < sizeof(ULONG))
            return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        ExAcquireFastMutex(&a->Mutex);
        *(PULONG)buffer = a->Used;
        ExReleaseFastMutex(&a->Mutex);
        return Finish(Irp, STATUS_SUCCESS, sizeof(ULONG));

    case IOCTL_ACANTH_SUM:
        if (in < sizeof(range) || out < sizeof(ULONG))
            return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        range = *(PACANTH_RANGE)buffer;
        ExAcquireFastMutex(&a->Mutex);
        if (range.Offset > a->Used || range.Length > a->Used - range.Offset) {
            ExReleaseFastMutex(&a->Mutex);
            return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
        }
        for (sum = 0, i = 0; i < range.Length; i++)
            sum = (sum << 1 | sum >> 31) + a->Pad[range.Offset + i];
        ExReleaseFastMutex(&a->Mutex);
        *(PULONG)buffer = sum;
        return Finish(Irp, STATUS_SUCCESS, sizeof(ULONG));

    case IOCTL_ACANTH_CUT:
        if (in < sizeof(ULONG))
            return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        used = *(PULONG)buffer;
        ExAcquireFastMutex(&a->Mutex);
        if (used > a->Used) {
            ExReleaseFastMutex(&a->Mutex);
            return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
        }
        RtlZeroMemory(a->Pad + used, a->Used - used);
        a->Used = used;
        ExReleaseFastMutex(&a->Mutex);
        return Finish(Irp, STATUS_SUCCESS, 0);
    }
    return Finish(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID NTAPI AcanthUnload(PDRIVER_OBJECT DriverObject)
{
    PACANTH a = AcanthDevice->DeviceExtension;

    UNREFERENCED_PARAMETER(DriverObject);
    DeskHide(ACANTH_LINK);
    ExFreePoolWithTag(a->Pad, ACANTH_TAG);
    IoDeleteDevice(AcanthDevice);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    NTSTATUS status;
    PACANTH a;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = DeskBuild(DriverObject, sizeof(ACANTH), ACANTH_NAME, DO_BUFFERED_IO, &AcanthDevice);
    if (!NT_SUCCESS(status))
        return status;
    a = AcanthDevice->DeviceExtension;
    ExInitializeFastMutex(&a->Mutex);
    a->Used = 0;
    a->Pad = ExAllocatePoolWithTag(POOL_DATA, ACANTH_BYTES, ACANTH_TAG);
    if (a->Pad == NULL) {
        IoDeleteDevice(AcanthDevice);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(a->Pad, ACANTH_BYTES);
    DriverObject->MajorFunction[IRP_MJ_CREATE] = DeskOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = DeskOpenClose;
    DriverObject->MajorFunction[IRP_MJ_READ] = AcanthRead;
    DriverObject->MajorFunction[IRP_MJ_WRITE] = AcanthWrite;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = AcanthControl;
    DriverObject->DriverUnload = AcanthUnload;
    status = DeskShow(ACANTH_NAME, ACANTH_LINK);
    if (!NT_SUCCESS(status)) {
        ExFreePoolWithTag(a->Pad, ACANTH_TAG);
        IoDeleteDevice(AcanthDevice);
    }
    return status;
}

/*
 * A sorter: IOCTL_SORT_LOAD takes a count and so many records behind it, and keeps a copy.
 *
 * The bug: count times size is computed in 32 bits and compared with the input's length: a large count gives a small product, a small copy, and a loop
 * over all of it. It shows with a count such as 0x10000001.
 *
 * Device: none
 * Rule: pool-overrun, wild-read, wild-write
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Sorter"
#define LINK_NAME L"\\DosDevices\\Sorter"
#include "../include/legacy.h"

#define SORTER_TAG 'troS'
#define IOCTL_SORT_LOAD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x910, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_SORT_LARGEST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x911, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _RECORD {
    ULONG Key;
    ULONG Value[3];
} RECORD, *PRECORD;

typedef struct _LOAD {
    ULONG Count;
    ULONG Reserved[3];
    RECORD Records[1];
} LOAD, *PLOAD;

typedef struct _DEVICE {
    ULONG Largest;
} DEVICE, *PDEVICE;

static NTSTATUS Load(PDEVICE Sorter, PLOAD Load, ULONG Length)
{
    PRECORD Copy;
    ULONG Bytes, Index;

    if (Length < FIELD_OFFSET(LOAD, Records)) {
        return STATUS_INVALID_PARAMETER;
    }
#ifdef FIXED
    if (Load->Count > MAXULONG / sizeof(RECORD)) {
        return STATUS_INVALID_PARAMETER;
    }
#endif
    Bytes = Load->Count * (ULONG)sizeof(RECORD);
    if (Bytes == 0 || Bytes > Length - FIELD_OFFSET(LOAD, Records)) {
        return STATUS_INVALID_PARAMETER;
    }
    Copy = ExAllocatePoolWithTag(PagedPool, Bytes, SORTER_TAG);
    if (Copy == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Sorter->Largest = 0;
    for (Index = 0; Index < Load->Count; Index++) {
        Copy[Index] = Load->Records[Index];
        Sorter->Largest = max(Sorter->Largest, Copy[Index].Key);
    }
    ExFreePoolWithTag(Copy, SORTER_TAG);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Sorter = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    switch (CodeOf(Stack)) {
    case IOCTL_SORT_LOAD:
        return Complete(Irp, Load(Sorter, Irp->AssociatedIrp.SystemBuffer, InputOf(Stack)), 0);
    case IOCTL_SORT_LARGEST:
        if (OutputOf(Stack) < sizeof(ULONG)) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = Sorter->Largest;
        return Complete(Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}

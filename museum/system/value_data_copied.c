/*
 * A driver that keeps the last value that was set in the registry, its type and the first 64 bytes of its data, for a tool that shows it.
 *
 * The bug: all of the value's data is copied into the block, which has room for 64 bytes. It shows when a longer value is set.
 *
 * Device: none
 * Rule: pool-overrun, wild-write
 * Needs: nothing
 */
#define DEVICE_NAME L"\\Device\\LastValue"
#define LINK_NAME L"\\DosDevices\\LastValue"
#include "../include/legacy.h"

#define VALUE_TAG 'ulaV'
#define ROOM 64

typedef struct _VALUE {
    ULONG Type;
    ULONG Bytes; /* of Data */
    UCHAR Data[ROOM];
} VALUE, *PVALUE;

typedef struct _DEVICE {
    FAST_MUTEX Mutex;
    PVALUE Value; /* from DriverEntry to Unload */
    LARGE_INTEGER Cookie;
} DEVICE, *PDEVICE;

static VOID Keep(PDEVICE Own, PREG_SET_VALUE_KEY_INFORMATION Set)
{
    ULONG Bytes = Set->DataSize;

#ifdef FIXED
    Bytes = min(Bytes, ROOM);
#endif
    ExAcquireFastMutex(&Own->Mutex);
    RtlZeroMemory(Own->Value, sizeof(VALUE));
    Own->Value->Type = Set->Type;
    Own->Value->Bytes = Bytes;
    if (Bytes != 0) {
        RtlCopyMemory(Own->Value->Data, Set->Data, Bytes); /* the system's copy, from Windows 8 on */
    }
    ExReleaseFastMutex(&Own->Mutex);
}

/* At PASSIVE_LEVEL. */
static NTSTATUS NTAPI Used(PVOID Context, PVOID Class, PVOID Argument)
{
    if ((REG_NOTIFY_CLASS)(ULONG_PTR)Class == RegNtPreSetValueKey) {
        Keep(Context, Argument);
    }
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;

    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length < sizeof(VALUE)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    ExAcquireFastMutex(&Own->Mutex);
    RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, Own->Value, sizeof(VALUE));
    ExReleaseFastMutex(&Own->Mutex);
    return Complete(Irp, STATUS_SUCCESS, sizeof(VALUE));
}

static VOID Release(PDEVICE_OBJECT Device)
{
    ExFreePoolWithTag(((PDEVICE)Device->DeviceExtension)->Value, VALUE_TAG);
    LegacyDelete(Device);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    CmUnRegisterCallback(((PDEVICE)Driver->DeviceObject->DeviceExtension)->Cookie); /* waits for those that run */
    Release(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING Altitude = RTL_CONSTANT_STRING(L"380017.31");
    PDEVICE_OBJECT Device;
    PDEVICE Own;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Own = Device->DeviceExtension;
    ExInitializeFastMutex(&Own->Mutex);
    Own->Value = ExAllocatePoolWithTag(PagedPool, sizeof(VALUE), VALUE_TAG);
    if (Own->Value == NULL) {
        LegacyDelete(Device);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(Own->Value, sizeof(VALUE));
    Status = CmRegisterCallbackEx(Used, &Altitude, Driver, Own, &Own->Cookie, NULL);
    if (!NT_SUCCESS(Status)) {
        Release(Device);
        return Status;
    }
    Driver->MajorFunction[IRP_MJ_READ] = DispatchRead;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}

/*
 * A driver that reads a name of up to 16 letters from its service's key when it is loaded.
 *
 * The bug: the value is copied with the length that the registry says, whatever room there is. It shows with a long value: DisplayName is there for every
 * driver that has an INF, ImagePath for all.
 *
 * Device: none
 * Rule: pool-overrun, wild-write
 * Needs: nothing
 */
#define DEVICE_NAME L"\\Device\\Named"
#define LINK_NAME L"\\DosDevices\\Named"
#include "../include/legacy.h"

#define NAME_TAG 'emaN'
#define NAME_BYTES 16

static PWCHAR ImagePath;

static VOID ReadName(PUNICODE_STRING RegistryPath)
{
    UCHAR Buffer[512];
    PKEY_VALUE_PARTIAL_INFORMATION Value = (PKEY_VALUE_PARTIAL_INFORMATION)Buffer;
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"ImagePath");
    OBJECT_ATTRIBUTES Attributes;
    ULONG Length;
    HANDLE Key;

    InitializeObjectAttributes(&Attributes, RegistryPath, OBJ_KERNEL_HANDLE | OBJ_CASE_INSENSITIVE, NULL, NULL);
    if (!NT_SUCCESS(ZwOpenKey(&Key, KEY_READ, &Attributes))) {
        return;
    }
    if (NT_SUCCESS(ZwQueryValueKey(Key, &Name, KeyValuePartialInformation, Value, sizeof(Buffer), &Length))) {
#ifdef FIXED
        RtlCopyMemory(ImagePath, Value->Data, min(Value->DataLength, NAME_BYTES));
#else
        RtlCopyMemory(ImagePath, Value->Data, Value->DataLength);
#endif
    }
    ZwClose(Key);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    ExFreePoolWithTag(ImagePath, NAME_TAG);
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, 0, DO_BUFFERED_IO, &Device);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    ImagePath = ExAllocatePoolWithTag(PagedPool, NAME_BYTES, NAME_TAG);
    if (ImagePath == NULL) {
        LegacyDelete(Device);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(ImagePath, NAME_BYTES);
    ReadName(RegistryPath);
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}

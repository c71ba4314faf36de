/*
 * A driver that reads its limit from its service's Parameters key when it is loaded.
 *
 * The bug: where the value is missing, the key is not closed. It shows when the driver is loaded without the value.
 *
 * Device: none
 * Rule: handle-leak
 * Needs: nothing
 */
#define DEVICE_NAME L"\\Device\\Limited"
#define LINK_NAME L"\\DosDevices\\Limited"
#include "../include/legacy.h"

static ULONG Limit = 16;

static VOID ReadLimit(PUNICODE_STRING RegistryPath)
{
    UCHAR Buffer[sizeof(KEY_VALUE_PARTIAL_INFORMATION) + sizeof(ULONG)];
    PKEY_VALUE_PARTIAL_INFORMATION Value = (PKEY_VALUE_PARTIAL_INFORMATION)Buffer;
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"Limit");
    OBJECT_ATTRIBUTES Attributes;
    NTSTATUS Status;
    ULONG Length;
    HANDLE Key;

    InitializeObjectAttributes(&Attributes, RegistryPath, OBJ_KERNEL_HANDLE | OBJ_CASE_INSENSITIVE, NULL, NULL);
    if (!NT_SUCCESS(ZwOpenKey(&Key, KEY_READ, &Attributes))) {
        return;
    }
    Status = ZwQueryValueKey(Key, &Name, KeyValuePartialInformation, Value, sizeof(Buffer), &Length);
    if (!NT_SUCCESS(Status)) {
#ifdef FIXED
        ZwClose(Key);
#endif
        return;
    }
    if (Value->Type == REG_DWORD && Value->DataLength == sizeof(ULONG)) {
        RtlCopyMemory(&Limit, Value->Data, sizeof(Limit));
    }
    ZwClose(Key);
}

static NTSTATUS NTAPI DispatchWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    ULONG Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;

    UNREFERENCED_PARAMETER(Device);
    return Complete(Irp, STATUS_SUCCESS, min(Length, Limit));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, 0, DO_BUFFERED_IO, &Device);

    if (NT_SUCCESS(Status)) {
        ReadLimit(RegistryPath);
        Driver->MajorFunction[IRP_MJ_WRITE] = DispatchWrite;
    }
    return Status;
}

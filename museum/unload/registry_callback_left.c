/*
 * A driver that counts how often the registry is used.
 *
 * The bug: Unload does not unregister the callback. It shows when the driver is unloaded.
 *
 * Device: none
 * Rule: unload-still-called
 * Needs: nothing
 */
#define DEVICE_NAME L"\\Device\\RegistryCount"
#define LINK_NAME L"\\DosDevices\\RegistryCount"
#include "../include/legacy.h"

static LARGE_INTEGER Cookie;
static LONG Operations;

static NTSTATUS NTAPI Used(PVOID Context, PVOID Class, PVOID Argument)
{
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(Class);
    UNREFERENCED_PARAMETER(Argument);
    InterlockedIncrement(&Operations);
    return STATUS_SUCCESS;
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
#ifdef FIXED
    CmUnRegisterCallback(Cookie);
#endif
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, 0, DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Status = CmRegisterCallback(Used, NULL, &Cookie);
    if (!NT_SUCCESS(Status)) {
        LegacyDelete(Device);
        return Status;
    }
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}

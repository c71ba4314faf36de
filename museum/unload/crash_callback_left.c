/*
 * A driver that adds a line to a crash dump (KeRegisterBugCheckCallback).
 *
 * The bug: Unload does not deregister the callback, whose record lies in the driver's own data. It shows when the driver is unloaded.
 *
 * Device: none
 * Rule: unload-still-called
 * Needs: nothing
 */
#define DEVICE_NAME L"\\Device\\CrashNote"
#define LINK_NAME L"\\DosDevices\\CrashNote"
#include "../include/legacy.h"

static KBUGCHECK_CALLBACK_RECORD Record;
static UCHAR Note[16];
static UCHAR Component[] = "CrashNote";

static VOID NTAPI Crashed(PVOID Buffer, ULONG Length)
{
    if (Length != 0) {
        *(PUCHAR)Buffer = 1;
    }
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
#ifdef FIXED
    KeDeregisterBugCheckCallback(&Record);
#endif
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, 0, DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        KeInitializeCallbackRecord((&Record));
        KeRegisterBugCheckCallback(&Record, Crashed, Note, sizeof(Note), Component);
        Driver->DriverUnload = Unload;
    }
    return Status;
}

/*
 * A driver that counts processes that begin.
 *
 * The bug: Unload does not take its routine for processes back: the next process that begins or ends calls what is gone. It shows when the driver is
 * unloaded.
 *
 * Device: none
 * Rule: unload-still-called
 * Needs: nothing
 */
#define DEVICE_NAME L"\\Device\\ProcessCount"
#define LINK_NAME L"\\DosDevices\\ProcessCount"
#include "../include/legacy.h"

/* Of ntddk.h. */
typedef VOID (NTAPI *PROCESS_ROUTINE)(HANDLE Parent, HANDLE Process, BOOLEAN Create);
NTKERNELAPI NTSTATUS NTAPI PsSetCreateProcessNotifyRoutine(PROCESS_ROUTINE Routine, BOOLEAN Remove);

static LONG Processes;

static VOID NTAPI Counted(HANDLE Parent, HANDLE Process, BOOLEAN Create)
{
    UNREFERENCED_PARAMETER(Parent);
    UNREFERENCED_PARAMETER(Process);
    if (Create) {
        InterlockedIncrement(&Processes);
    }
}

static NTSTATUS NTAPI DispatchRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length < sizeof(LONG)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    *(PLONG)Irp->AssociatedIrp.SystemBuffer = Processes;
    return Complete(Irp, STATUS_SUCCESS, sizeof(LONG));
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
#ifdef FIXED
    PsSetCreateProcessNotifyRoutine(Counted, TRUE);
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
    Status = PsSetCreateProcessNotifyRoutine(Counted, FALSE);
    if (!NT_SUCCESS(Status)) {
        LegacyDelete(Device);
        return Status;
    }
    Driver->MajorFunction[IRP_MJ_READ] = DispatchRead;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}

/*
 * A sampler whose thread takes 4 samples and ends; Unload waits for it.
 *
 * The bug: the thread object that Unload waits for was referenced by ObReferenceObjectByHandle and is never dereferenced. It shows when the driver is
 * unloaded.
 *
 * Device: none
 * Rule: object-reference-leak
 * Needs: nothing
 */
#define DEVICE_NAME L"\\Device\\Sampler"
#define LINK_NAME L"\\DosDevices\\Sampler"
#include "../include/legacy.h"

typedef struct _DEVICE {
    PKTHREAD Thread;
    LONG Samples;
} DEVICE, *PDEVICE;

static VOID NTAPI Sample(PVOID Context)
{
    PDEVICE Own = Context;
    LARGE_INTEGER Pause;

    Pause.QuadPart = -10000;
    while (InterlockedIncrement(&Own->Samples) < 4) {
        KeDelayExecutionThread(KernelMode, FALSE, &Pause);
    }
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    PDEVICE Own = Driver->DeviceObject->DeviceExtension;

    KeWaitForSingleObject(Own->Thread, Executive, KernelMode, FALSE, NULL);
#ifdef FIXED
    ObDereferenceObject(Own->Thread);
#endif
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    HANDLE Handle;
    PDEVICE Own;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Own = Device->DeviceExtension;
    Status = PsCreateSystemThread(&Handle, SYNCHRONIZE, NULL, NULL, NULL, Sample, Own);
    if (!NT_SUCCESS(Status)) {
        LegacyDelete(Device);
        return Status;
    }
    ObReferenceObjectByHandle(Handle, SYNCHRONIZE, NULL, KernelMode, (PVOID *)&Own->Thread, NULL);
    ZwClose(Handle);
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}

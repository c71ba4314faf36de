/*
 * A poller: a thread that looks at something every 10 ms.
 *
 * The bug: Unload asks the thread to stop and does not wait until it has. It shows when the driver is unloaded.
 *
 * Device: none
 * Rule: unload-still-called
 * Needs: nothing
 */
#define DEVICE_NAME L"\\Device\\Poller"
#define LINK_NAME L"\\DosDevices\\Poller"
#include "../include/legacy.h"

typedef struct _DEVICE {
    LONG Polls;
} DEVICE, *PDEVICE;

static KEVENT Stop;
static PKTHREAD Thread;
static LONG Polls;

static VOID NTAPI Poll(PVOID Context)
{
    LARGE_INTEGER Pause;

    UNREFERENCED_PARAMETER(Context);
    Pause.QuadPart = -10 * 10000;
    while (KeWaitForSingleObject(&Stop, Executive, KernelMode, FALSE, &Pause) == STATUS_TIMEOUT) {
        InterlockedIncrement(&Polls);
    }
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    KeSetEvent(&Stop, IO_NO_INCREMENT, FALSE);
#ifdef FIXED
    KeWaitForSingleObject(Thread, Executive, KernelMode, FALSE, NULL);
#endif
    ObDereferenceObject(Thread);
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    HANDLE Handle;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    KeInitializeEvent(&Stop, NotificationEvent, FALSE);
    Status = PsCreateSystemThread(&Handle, SYNCHRONIZE, NULL, NULL, NULL, Poll, NULL);
    if (!NT_SUCCESS(Status)) {
        LegacyDelete(Device);
        return Status;
    }
    ObReferenceObjectByHandle(Handle, SYNCHRONIZE, NULL, KernelMode, (PVOID *)&Thread, NULL);
    ZwClose(Handle);
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}

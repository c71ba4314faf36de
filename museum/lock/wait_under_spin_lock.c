/*
 * A gate that opens for one request at a time, 1 ms after the last one.
 *
 * The bug: the pause is waited for by KeDelayExecutionThread with the spin lock held. It shows with the second request.
 *
 * Device: none
 * Rule: wait-at-raised-irql, irql-too-high
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Turnstile"
#define LINK_NAME L"\\DosDevices\\Turnstile"
#include "../include/legacy.h"

#define IOCTL_TURNSTILE_PASS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x804, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    KSPIN_LOCK Lock;
    ULONG Passed;
} DEVICE, *PDEVICE;

static VOID Pass(PDEVICE Turnstile)
{
    LARGE_INTEGER Pause;
    BOOLEAN First;
    KIRQL OldIrql;

    Pause.QuadPart = -10000;
    KeAcquireSpinLock(&Turnstile->Lock, &OldIrql);
    First = Turnstile->Passed++ == 0;
#ifdef FIXED
    KeReleaseSpinLock(&Turnstile->Lock, OldIrql);
    if (!First) {
        KeDelayExecutionThread(KernelMode, FALSE, &Pause);
    }
#else
    if (!First) {
        KeDelayExecutionThread(KernelMode, FALSE, &Pause);
    }
    KeReleaseSpinLock(&Turnstile->Lock, OldIrql);
#endif
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    if (CodeOf(IoGetCurrentIrpStackLocation(Irp)) != IOCTL_TURNSTILE_PASS) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    Pass(Device->DeviceExtension);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        KeInitializeSpinLock(&((PDEVICE)Device->DeviceExtension)->Lock);
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}

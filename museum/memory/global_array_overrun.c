/*
 * A device with 8 presets, in an array among its global variables, and a limit behind it.
 *
 * The bug: an index up to 15 is accepted: what is written there are the variables behind the array. It shows with index 8 and above.
 *
 * Device: none
 * Rule: wild-write, pool-overrun, wild-call
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Presets"
#define LINK_NAME L"\\DosDevices\\Presets"
#include "../include/legacy.h"

#define IOCTL_PRESET_SET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F7, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PRESET_APPLY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F8, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _PRESET {
    ULONG64 Index;
    ULONG64 Value;
} PRESET, *PPRESET;

static ULONG64 Doubled(ULONG64 Value)
{
    return Value * 2;
}

static struct {
    volatile ULONG64 Presets[8];
    ULONG64 (*volatile Curve)(ULONG64 Value);
} Own = {{0}, Doubled};

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PPRESET Preset = Irp->AssociatedIrp.SystemBuffer;

    UNREFERENCED_PARAMETER(Device);
    switch (CodeOf(Stack)) {
    case IOCTL_PRESET_SET:
#ifdef FIXED
        if (InputOf(Stack) < sizeof(PRESET) || Preset->Index > 7) {
#else
        if (InputOf(Stack) < sizeof(PRESET) || Preset->Index > 15) {
#endif
            return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
        }
        Own.Presets[Preset->Index] = Preset->Value;
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_PRESET_APPLY:
        if (OutputOf(Stack) < sizeof(ULONG64)) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        *(PULONG64)Preset = Own.Curve(Own.Presets[0]);
        return Complete(Irp, STATUS_SUCCESS, sizeof(ULONG64));
    }
    return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, 0, DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}

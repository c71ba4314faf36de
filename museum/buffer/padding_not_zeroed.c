/*
 * A battery's state, in a structure with a gap before its last member.
 *
 * The bug: the structure is filled member by member on the stack and copied as a whole: the gap, and the reserved member, hold what was on the stack, and go to
 * the application. It shows with the first request.
 *
 * Device: none
 * Rule: output-never-stored
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Battery"
#define LINK_NAME L"\\DosDevices\\Battery"
#include "../include/legacy.h"

#define IOCTL_BATTERY_STATE CTL_CODE(FILE_DEVICE_BATTERY, 0x820, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _STATE {
    UCHAR Percent;
    ULONG64 Capacity; /* 7 bytes behind Percent */
    ULONG64 Reserved[4];
} STATE, *PSTATE;

__attribute__((noinline)) static VOID Fill(PSTATE State)
{
    State->Percent = 80;
    State->Capacity = 48000;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    STATE State;

    UNREFERENCED_PARAMETER(Device);
    if (CodeOf(Stack) != IOCTL_BATTERY_STATE) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (OutputOf(Stack) < sizeof(STATE)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
#ifdef FIXED
    RtlZeroMemory(&State, sizeof(State));
#endif
    Fill(&State);
    *(PSTATE)Irp->AssociatedIrp.SystemBuffer = State;
    return Complete(Irp, STATUS_SUCCESS, sizeof(STATE));
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

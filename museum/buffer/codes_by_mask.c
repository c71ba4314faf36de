/*
 * A strip of 16 outlets: bits 4 to 7 of a code are the outlet, the other bits say what is done to it: it is switched on, off, or asked for.
 *
 * The bug: the answer is stored without a look at the output's length. It shows with a short output, or none, for any of 16 codes.
 *
 * Device: none
 * Rule: pool-overrun, wild-write, information-too-large, bad-pointer
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\OutletStrip"
#define LINK_NAME L"\\DosDevices\\OutletStrip"
#include "../include/legacy.h"

/* Of outlet 0. */
#define IOCTL_OUTLET_ON CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE40, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_OUTLET_OFF CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE41, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_OUTLET_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE42, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define WITHOUT_OUTLET 0xFFFFFF0F

typedef struct _STATE {
    ULONG Outlet;
    ULONG On;
} STATE, *PSTATE;

typedef struct _DEVICE {
    LONG On; /* a bit for each outlet */
} DEVICE, *PDEVICE;

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Outlet = (CodeOf(Stack) & ~WITHOUT_OUTLET) >> 4;
    PSTATE State = Irp->AssociatedIrp.SystemBuffer;
    PDEVICE Own = Device->DeviceExtension;

    switch (CodeOf(Stack) & WITHOUT_OUTLET) {
    case IOCTL_OUTLET_ON:
        InterlockedOr(&Own->On, 1 << Outlet);
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_OUTLET_OFF:
        InterlockedAnd(&Own->On, ~(1 << Outlet));
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_OUTLET_STATE:
#ifdef FIXED
        if (OutputOf(Stack) < sizeof(STATE)) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
#endif
        State->Outlet = Outlet;
        State->On = ((ULONG)InterlockedOr(&Own->On, 0) >> Outlet) & 1;
        return Complete(Irp, STATUS_SUCCESS, sizeof(STATE));
    default:
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}

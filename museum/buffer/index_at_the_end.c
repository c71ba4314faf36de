/*
 * A table of 32 routes, whose entries are set one by one.
 *
 * The bug: the index is compared with the number of entries by `>` where it must be `>=`: the one behind the last is accepted. It shows with index 32
 * exactly.
 *
 * Device: none
 * Rule: pool-overrun
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Routes"
#define LINK_NAME L"\\DosDevices\\Routes"
#include "../include/legacy.h"

#define ROUTES 32
#define ROUTES_TAG 'tuoR'
#define IOCTL_ROUTES_SET CTL_CODE(FILE_DEVICE_NETWORK, 0x850, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ROUTES_GET CTL_CODE(FILE_DEVICE_NETWORK, 0x851, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _ROUTE {
    ULONG Index;
    ULONG Target;
} ROUTE, *PROUTE;

typedef struct _DEVICE {
    PULONG Targets;
} DEVICE, *PDEVICE;

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Routes = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PROUTE Route = Irp->AssociatedIrp.SystemBuffer;

    if (CodeOf(Stack) != IOCTL_ROUTES_SET && CodeOf(Stack) != IOCTL_ROUTES_GET) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) < sizeof(ROUTE)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
#ifdef FIXED
    if (Route->Index >= ROUTES) {
#else
    if (Route->Index > ROUTES) {
#endif
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    if (CodeOf(Stack) == IOCTL_ROUTES_SET) {
        Routes->Targets[Route->Index] = Route->Target;
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    if (OutputOf(Stack) < sizeof(ROUTE)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    Route->Target = Routes->Targets[Route->Index];
    return Complete(Irp, STATUS_SUCCESS, sizeof(ROUTE));
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    ExFreePoolWithTag(((PDEVICE)Driver->DeviceObject->DeviceExtension)->Targets, ROUTES_TAG);
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    PDEVICE Routes;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Routes = Device->DeviceExtension;
    Routes->Targets = ExAllocatePoolWithTag(NonPagedPool, ROUTES * sizeof(ULONG), ROUTES_TAG);
    if (Routes->Targets == NULL) {
        LegacyDelete(Device);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(Routes->Targets, ROUTES * sizeof(ULONG));
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}

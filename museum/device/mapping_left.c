/*
 * A card with one register that applications set.
 *
 * The bug: the registers are mapped at each start and never unmapped. It shows when the device is stopped or removed.
 *
 * Device: PCI\VEN_1A2B&DEV_0005
 * Rule: io-space-leak, io-space-still-mapped
 * Needs: nothing
 */
#include "../include/card.h"

#define IOCTL_CARD_SET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x843, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    FDO Fdo;
} DEVICE, *PDEVICE;

static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
    UNREFERENCED_PARAMETER(Present);
#ifdef FIXED
    CardUnmap(Fdo);
#else
    Fdo->Registers = NULL;
#endif
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    if (!FdoBegin(&Own->Fdo, Irp, &Status)) {
        return Status;
    }
    if (CodeOf(Stack) != IOCTL_CARD_SET || InputOf(Stack) < sizeof(ULONG)) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_INVALID_PARAMETER, 0);
    }
    CardWrite(&Own->Fdo, 0, *(PULONG)Irp->AssociatedIrp.SystemBuffer);
    return FdoEnd(&Own->Fdo, Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    NTSTATUS Status = CardMap(Fdo, Resources);

    if (!NT_SUCCESS(Status)) {
        CardUnmap(Fdo);
    }
    return Status;
}

static const GUID FdoInterface = FDO_GUID(0x10c3d005);
static const HOOKS Hooks = {.Start = Start, .Stop = Stop};

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FdoAdd(Driver, Pdo, sizeof(DEVICE), DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FdoDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    return STATUS_SUCCESS;
}

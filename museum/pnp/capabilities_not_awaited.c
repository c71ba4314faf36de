/*
 * A function driver that asks the drivers below for the device's capabilities when it starts, and keeps from which state the device can wake the system.
 *
 * The bug: the request is sent and not waited for. A bus driver that answers at once hides that; one that pends the request writes to a stack that the
 * driver has left. It shows with such a bus driver.
 *
 * Device: Root\VirtualPager
 * Rule: irp-on-dead-stack, freed-while-waited-for, use-after-free
 * Needs: nothing
 */
#include "../include/function.h"

typedef struct _DEVICE {
    FDO Fdo;
    SYSTEM_POWER_STATE WakesFrom;
} DEVICE, *PDEVICE;

static NTSTATUS AskCapabilities(PFDO Fdo, PDEVICE_CAPABILITIES Capabilities)
{
    IO_STATUS_BLOCK Block;
    PIO_STACK_LOCATION Next;
    NTSTATUS Status;
    KEVENT Done;
    PIRP Irp;

    RtlZeroMemory(Capabilities, sizeof(*Capabilities));
    Capabilities->Size = sizeof(*Capabilities);
    Capabilities->Version = 1;
    Capabilities->Address = MAXULONG;
    Capabilities->UINumber = MAXULONG;
    KeInitializeEvent(&Done, NotificationEvent, FALSE);
    Irp = IoBuildSynchronousFsdRequest(IRP_MJ_PNP, Fdo->Lower, NULL, 0, NULL, &Done, &Block);
    if (Irp == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
    Next = IoGetNextIrpStackLocation(Irp);
    Next->MinorFunction = IRP_MN_QUERY_CAPABILITIES;
    Next->Parameters.DeviceCapabilities.Capabilities = Capabilities;
    Status = IoCallDriver(Fdo->Lower, Irp);
#ifdef FIXED
    if (Status == STATUS_PENDING) {
        KeWaitForSingleObject(&Done, Executive, KernelMode, FALSE, NULL);
        Status = Block.Status;
    }
#endif
    return Status;
}

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    PDEVICE Own = Fdo->Self->DeviceExtension;
    DEVICE_CAPABILITIES Capabilities;
    NTSTATUS Status = AskCapabilities(Fdo, &Capabilities);

    UNREFERENCED_PARAMETER(Resources);
    Own->WakesFrom = NT_SUCCESS(Status) ? Capabilities.SystemWake : PowerSystemUnspecified;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FdoAdd(Driver, Pdo, sizeof(DEVICE), DO_BUFFERED_IO);
}

static const GUID FdoInterface = FDO_GUID(0x10c3b0f1);
static const HOOKS Hooks = {.Start = Start};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FdoDriver(Driver, AddDevice);
    return STATUS_SUCCESS;
}

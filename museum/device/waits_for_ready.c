/*
 * A card that is reset by a register, and says by a bit of another one when it is ready.
 *
 * The bug: the driver waits for the bit in a loop without a bound. It shows with a card that never becomes ready.
 *
 * Device: PCI\VEN_1A2B&DEV_0004
 * Rule: endless-loop, livelock, irp-never-completed, stuck
 * Needs: ioctl, device
 */
#include "../include/card.h"

#define REGISTER_RESET 0x00
#define REGISTER_STATUS 0x08
#define STATUS_READY 0x100
#define IOCTL_CARD_RESET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x842, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    FDO Fdo;
} DEVICE, *PDEVICE;

static NTSTATUS Reset(PFDO Fdo)
{
#ifdef FIXED
    ULONG Tries;

    CardWrite(Fdo, REGISTER_RESET, 1);
    for (Tries = 0; Tries < 100; Tries++) {
        if (CardRead(Fdo, REGISTER_STATUS) & STATUS_READY) {
            return STATUS_SUCCESS;
        }
        KeStallExecutionProcessor(10);
    }
    return STATUS_IO_TIMEOUT;
#else
    CardWrite(Fdo, REGISTER_RESET, 1);
    while (!(CardRead(Fdo, REGISTER_STATUS) & STATUS_READY)) {
        KeStallExecutionProcessor(10);
    }
    return STATUS_SUCCESS;
#endif
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    NTSTATUS Status;

    if (!FdoBegin(&Own->Fdo, Irp, &Status)) {
        return Status;
    }
    if (CodeOf(IoGetCurrentIrpStackLocation(Irp)) != IOCTL_CARD_RESET) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    return FdoEnd(&Own->Fdo, Irp, Reset(&Own->Fdo), 0);
}

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    NTSTATUS Status = CardMap(Fdo, Resources);

    if (!NT_SUCCESS(Status)) {
        CardUnmap(Fdo);
    }
    return Status;
}

static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
    UNREFERENCED_PARAMETER(Present);
    CardUnmap(Fdo);
}

static const GUID FdoInterface = FDO_GUID(0x10c3d004);
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

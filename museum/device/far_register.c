/*
 * A counter card whose registers lie far behind in a window of 256 KiB; a card with a smaller window is another one, and is not started.
 *
 * The bug: a read copies the counter, 4 bytes, without a look at the read's length. It shows with one that is shorter, on a card that has such a window.
 *
 * Device: PCI\VEN_1A2B&DEV_0011
 * Rule: pool-overrun, information-too-large, wild-write, bad-pointer
 * Needs: ioctl, device
 */
#include "../include/card.h"

#define WINDOW 0x40000
#define REGISTER_RUN 0x10000
#define REGISTER_COUNT 0x10004

typedef struct _DEVICE {
    FDO Fdo;
} DEVICE, *PDEVICE;

static NTSTATUS NTAPI DispatchRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    ULONG Count;
    NTSTATUS Status;

    if (!FdoBegin(&Own->Fdo, Irp, &Status)) {
        return Status;
    }
#ifdef FIXED
    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length < sizeof(Count)) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
#endif
    Count = CardRead(&Own->Fdo, REGISTER_COUNT);
    RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &Count, sizeof(Count));
    return FdoEnd(&Own->Fdo, Irp, STATUS_SUCCESS, sizeof(Count));
}

static VOID Run(PFDO Fdo)
{
    CardWrite(Fdo, REGISTER_RUN, 1);
}

static VOID Halt(PFDO Fdo)
{
    CardWrite(Fdo, REGISTER_RUN, 0);
}

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    NTSTATUS Status = CardMap(Fdo, Resources);

    if (NT_SUCCESS(Status) && Fdo->Length < WINDOW) {
        Status = STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    if (!NT_SUCCESS(Status)) {
        CardUnmap(Fdo);
        return Status;
    }
    Run(Fdo);
    return STATUS_SUCCESS;
}

static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
    if (Present) {
        Halt(Fdo);
    }
    CardUnmap(Fdo);
}

static const GUID FdoInterface = FDO_GUID(0x10c3d011);
static const HOOKS Hooks = {.Start = Start, .Stop = Stop, .PowerDown = Halt, .PowerUp = Run};

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FdoAdd(Driver, Pdo, sizeof(DEVICE), DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FdoDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_READ] = DispatchRead;
    return STATUS_SUCCESS;
}

/*
 * A card with a mixer: a register says which of 8 channels is selected, and the driver counts how often each was.
 *
 * The bug: the number from the card is used as an index without a look. It shows with a card that was pulled out, whose registers read as all ones.
 *
 * Device: PCI\VEN_1A2B&DEV_0001
 * Rule: pool-overrun, wild-read, wild-write
 * Needs: ioctl, removal
 */
#include "../include/card.h"

#define REGISTER_SELECTED 0x10
#define COUNTS_TAG 'tnuC'
#define IOCTL_MIXER_SAMPLE CTL_CODE(FILE_DEVICE_SOUND, 0x830, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    FDO Fdo;
    PULONG Counts; /* of 8 channels */
} DEVICE, *PDEVICE;

static VOID Sample(PDEVICE Own)
{
    ULONG Selected = CardRead(&Own->Fdo, REGISTER_SELECTED);

#ifdef FIXED
    if (Selected >= 8) {
        return;
    }
#endif
    Own->Counts[Selected]++;
}

static NTSTATUS Add(PFDO Fdo)
{
    PDEVICE Own = (PDEVICE)Fdo;

    Own->Counts = ExAllocatePoolWithTag(NonPagedPool, 8 * sizeof(ULONG), COUNTS_TAG);
    if (Own->Counts == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(Own->Counts, 8 * sizeof(ULONG));
    return STATUS_SUCCESS;
}

static VOID Removed(PFDO Fdo)
{
    ExFreePoolWithTag(((PDEVICE)Fdo)->Counts, COUNTS_TAG);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    ULONG Index;
    NTSTATUS Status;

    if (!FdoBegin(&Own->Fdo, Irp, &Status)) {
        return Status;
    }
    if (CodeOf(IoGetCurrentIrpStackLocation(Irp)) != IOCTL_MIXER_SAMPLE) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    for (Index = 0; Index < 16; Index++) {
        Sample(Own);
    }
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

static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
    UNREFERENCED_PARAMETER(Present);
    CardUnmap(Fdo);
}

static const GUID FdoInterface = FDO_GUID(0x10c3d001);
static const HOOKS Hooks = {.Add = Add, .Start = Start, .Stop = Stop, .Removed = Removed};

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

/*
 * A virtual card: a driver that is installed for a device without hardware, too.
 *
 * The bug: the first resource is taken for the registers without a look whether there is a list, or what kind of resource it is. It shows when the device is started
 * without resources.
 *
 * Device: Root\VirtualCard
 * Rule: wild-read
 * Needs: nothing
 */
#include "../include/card.h"

typedef struct _DEVICE {
    FDO Fdo;
} DEVICE, *PDEVICE;

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR First;

#ifdef FIXED
    if (Resources == NULL || Resources->Count == 0 || Resources->PartialDescriptors[0].Type != CmResourceTypeMemory) {
        return STATUS_SUCCESS; /* it does without registers */
    }
#endif
    First = &Resources->PartialDescriptors[0];
    Fdo->Length = First->u.Memory.Length;
    Fdo->Registers = MmMapIoSpace(First->u.Memory.Start, Fdo->Length, MmNonCached);
    return Fdo->Registers == NULL ? STATUS_INSUFFICIENT_RESOURCES : STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    ULONG Value;
    NTSTATUS Status;

    if (!FdoBegin(&Own->Fdo, Irp, &Status)) {
        return Status;
    }
    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length < sizeof(ULONG)) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    Value = Own->Fdo.Registers == NULL ? 0 : CardRead(&Own->Fdo, 0);
    *(PULONG)Irp->AssociatedIrp.SystemBuffer = Value;
    return FdoEnd(&Own->Fdo, Irp, STATUS_SUCCESS, sizeof(ULONG));
}

static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
    UNREFERENCED_PARAMETER(Present);
    CardUnmap(Fdo);
}

static const GUID FdoInterface = FDO_GUID(0x10c3d006);
static const HOOKS Hooks = {.Start = Start, .Stop = Stop};

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

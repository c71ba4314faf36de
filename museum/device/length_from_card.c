/*
 * A card that receives messages: a register has the length of the one that has come, a window of 64 bytes has its bytes.
 *
 * The bug: as many bytes are copied as the card says, into a buffer of 64. It shows with a card that was pulled out, or lies.
 *
 * Device: PCI\VEN_1A2B&DEV_0002
 * Rule: pool-overrun, device-access-past-mapping, wild-write, wild-read, device-memory-not-mapped
 * Needs: ioctl, removal
 */
#include "../include/card.h"

#define REGISTER_LENGTH 0x04
#define WINDOW 0x40
#define MESSAGE_BYTES 64
#define MESSAGE_TAG 'gsMC'

typedef struct _DEVICE {
    FDO Fdo;
    PUCHAR Message;
} DEVICE, *PDEVICE;

static NTSTATUS Add(PFDO Fdo)
{
    PDEVICE Own = (PDEVICE)Fdo;

    Own->Message = ExAllocatePoolWithTag(NonPagedPool, MESSAGE_BYTES, MESSAGE_TAG);
    return Own->Message == NULL ? STATUS_INSUFFICIENT_RESOURCES : STATUS_SUCCESS;
}

static VOID Removed(PFDO Fdo)
{
    ExFreePoolWithTag(((PDEVICE)Fdo)->Message, MESSAGE_TAG);
}

static ULONG Receive(PDEVICE Own)
{
    ULONG Index, Length = CardRead(&Own->Fdo, REGISTER_LENGTH);

#ifdef FIXED
    if (Length > MESSAGE_BYTES) {
        return 0;
    }
#endif
    for (Index = 0; Index < Length; Index++) {
        Own->Message[Index] = READ_REGISTER_UCHAR(Own->Fdo.Registers + WINDOW + Index % MESSAGE_BYTES);
    }
    return Length;
}

static NTSTATUS NTAPI DispatchRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    ULONG Length;
    NTSTATUS Status;

    if (!FdoBegin(&Own->Fdo, Irp, &Status)) {
        return Status;
    }
    Length = min(Receive(Own), IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length);
    RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, Own->Message, Length);
    return FdoEnd(&Own->Fdo, Irp, STATUS_SUCCESS, Length);
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

static const GUID FdoInterface = FDO_GUID(0x10c3d002);
static const HOOKS Hooks = {.Add = Add, .Start = Start, .Stop = Stop, .Removed = Removed};

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

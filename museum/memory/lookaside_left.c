/*
 * A device that takes its packets from a lookaside list.
 *
 * The bug: the list is not deleted when the driver is unloaded. It shows when it is.
 *
 * Device: none
 * Rule: lookaside-leak, freed-while-in-use, pool-leak
 * Needs: nothing
 */
#define DEVICE_NAME L"\\Device\\Packets"
#define LINK_NAME L"\\DosDevices\\Packets"
#include "../include/legacy.h"

#define PACKET_TAG 'tkcP'

typedef struct _DEVICE {
    PAGED_LOOKASIDE_LIST Packets;
} DEVICE, *PDEVICE;

static NTSTATUS NTAPI DispatchWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    ULONG Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    PUCHAR Packet;

    if (Length > 256) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    Packet = ExAllocateFromPagedLookasideList(&Own->Packets);
    if (Packet == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    RtlCopyMemory(Packet, Irp->AssociatedIrp.SystemBuffer, Length);
    ExFreeToPagedLookasideList(&Own->Packets, Packet);
    return Complete(Irp, STATUS_SUCCESS, Length);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
#ifdef FIXED
    ExDeletePagedLookasideList(&((PDEVICE)Driver->DeviceObject->DeviceExtension)->Packets);
#endif
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        ExInitializePagedLookasideList(&((PDEVICE)Device->DeviceExtension)->Packets, NULL, NULL, 0, 256, PACKET_TAG, 0);
        Driver->MajorFunction[IRP_MJ_WRITE] = DispatchWrite;
        Driver->DriverUnload = Unload;
    }
    return Status;
}

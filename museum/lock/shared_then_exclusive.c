/*
 * A price list with an ERESOURCE: readers share it, a reader that finds an old price changes it.
 *
 * The bug: the resource is asked for exclusively by a thread that has it shared: it waits for itself. It shows with an item whose price is old.
 *
 * Device: none
 * Rule: resource-self-deadlock, deadlock
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Prices"
#define LINK_NAME L"\\DosDevices\\Prices"
#include "../include/legacy.h"

#define ITEMS 8
#define IOCTL_PRICE_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA30, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    ERESOURCE Resource;
    ULONG Prices[ITEMS]; /* 0: old */
} DEVICE, *PDEVICE;

static ULONG Price(PDEVICE Own, ULONG Item)
{
    ULONG Price;

    KeEnterCriticalRegion();
    ExAcquireResourceSharedLite(&Own->Resource, TRUE);
    Price = Own->Prices[Item];
    if (Price == 0) {
#ifdef FIXED
        ExReleaseResourceLite(&Own->Resource);
        ExAcquireResourceExclusiveLite(&Own->Resource, TRUE);
        Own->Prices[Item] = 100 + Item;
        Price = Own->Prices[Item];
#else
        ExAcquireResourceExclusiveLite(&Own->Resource, TRUE);
        Own->Prices[Item] = 100 + Item;
        Price = Own->Prices[Item];
        ExReleaseResourceLite(&Own->Resource);
#endif
    }
    ExReleaseResourceLite(&Own->Resource);
    KeLeaveCriticalRegion();
    return Price;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PULONG Buffer = Irp->AssociatedIrp.SystemBuffer;

    if (CodeOf(Stack) != IOCTL_PRICE_GET) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) < sizeof(ULONG) || OutputOf(Stack) < sizeof(ULONG) || *Buffer >= ITEMS) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    *Buffer = Price(Device->DeviceExtension, *Buffer);
    return Complete(Irp, STATUS_SUCCESS, sizeof(ULONG));
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    ExDeleteResourceLite(&((PDEVICE)Driver->DeviceObject->DeviceExtension)->Resource);
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        ExInitializeResourceLite(&((PDEVICE)Device->DeviceExtension)->Resource);
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
        Driver->DriverUnload = Unload;
    }
    return Status;
}

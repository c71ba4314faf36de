/*
 * A lookup table that is made when it is first asked for, and freed by Unload.
 *
 * The bug: two first requests at a time both find no table and both make one; one of them is lost. It shows with a schedule in which the second comes
 * between the look and the store.
 *
 * Device: none
 * Rule: pool-leak
 * Needs: ioctl, schedule
 */
#define DEVICE_NAME L"\\Device\\Squares"
#define LINK_NAME L"\\DosDevices\\Squares"
#include "../include/legacy.h"

#define ENTRIES 64
#define SQUARES_TAG 'rauS'
#define IOCTL_SQUARES_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x806, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    PULONG Table;
} DEVICE, *PDEVICE;

static PULONG Table(PDEVICE Own)
{
    PULONG New, Old = InterlockedCompareExchangePointer((PVOID *)&Own->Table, NULL, NULL);
    ULONG Index;

    if (Old != NULL) {
        return Old;
    }
    New = ExAllocatePoolWithTag(NonPagedPool, ENTRIES * sizeof(ULONG), SQUARES_TAG);
    if (New == NULL) {
        return NULL;
    }
    for (Index = 0; Index < ENTRIES; Index++) {
        New[Index] = Index * Index;
    }
#ifdef FIXED
    Old = InterlockedCompareExchangePointer((PVOID *)&Own->Table, New, NULL);
    if (Old != NULL) {
        ExFreePoolWithTag(New, SQUARES_TAG);
        return Old;
    }
#else
    InterlockedExchangePointer((PVOID *)&Own->Table, New);
#endif
    return New;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PULONG Buffer = Irp->AssociatedIrp.SystemBuffer;
    PULONG Squares;

    if (CodeOf(Stack) != IOCTL_SQUARES_GET) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) < sizeof(ULONG) || OutputOf(Stack) < sizeof(ULONG) || *Buffer >= ENTRIES) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    Squares = Table(Device->DeviceExtension);
    if (Squares == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    *Buffer = Squares[*Buffer];
    return Complete(Irp, STATUS_SUCCESS, sizeof(ULONG));
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    PDEVICE Own = Driver->DeviceObject->DeviceExtension;

    if (Own->Table != NULL) {
        ExFreePoolWithTag(Own->Table, SQUARES_TAG);
    }
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
        Driver->DriverUnload = Unload;
    }
    return Status;
}

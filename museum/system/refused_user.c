/*
 * A banner that programs read, and that only those may set who may load drivers: a copy of the new text is made, and takes the place of the old one.
 *
 * The bug: who may not set it is refused, and the copy that was made is not freed. It shows with a request of an ordinary user's.
 *
 * Device: none
 * Rule: pool-leak
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Banner"
#define LINK_NAME L"\\DosDevices\\Banner"
#include "../include/legacy.h"

/* mingw's headers lack it. */
NTKERNELAPI BOOLEAN NTAPI SeSinglePrivilegeCheck(LUID PrivilegeValue, KPROCESSOR_MODE PreviousMode);

#define BANNER_TAG 'nnaB'
#define LONGEST 128
#define IOCTL_BANNER_SET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B2, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BANNER_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B3, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    FAST_MUTEX Mutex;
    PUCHAR Text;
    ULONG Length;
} DEVICE, *PDEVICE;

static NTSTATUS Set(PDEVICE Own, PIRP Irp, ULONG Length)
{
    LUID Privilege = {SE_LOAD_DRIVER_PRIVILEGE, 0};
    PUCHAR Copy, Old;

    if (Length == 0 || Length > LONGEST) {
        return STATUS_INVALID_PARAMETER;
    }
    Copy = ExAllocatePoolWithTag(NonPagedPool, Length, BANNER_TAG);
    if (Copy == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlCopyMemory(Copy, Irp->AssociatedIrp.SystemBuffer, Length);
    if (!SeSinglePrivilegeCheck(Privilege, Irp->RequestorMode)) {
#ifdef FIXED
        ExFreePoolWithTag(Copy, BANNER_TAG);
#endif
        return STATUS_PRIVILEGE_NOT_HELD;
    }
    ExAcquireFastMutex(&Own->Mutex);
    Old = Own->Text;
    Own->Text = Copy;
    Own->Length = Length;
    ExReleaseFastMutex(&Own->Mutex);
    if (Old != NULL) {
        ExFreePoolWithTag(Old, BANNER_TAG);
    }
    return STATUS_SUCCESS;
}

static ULONG Get(PDEVICE Own, PUCHAR Buffer, ULONG Room)
{
    ULONG Length;

    ExAcquireFastMutex(&Own->Mutex);
    Length = Own->Length < Room ? Own->Length : Room;
    if (Length > 0) {
        RtlCopyMemory(Buffer, Own->Text, Length);
    }
    ExReleaseFastMutex(&Own->Mutex);
    return Length;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PDEVICE Own = Device->DeviceExtension;

    switch (CodeOf(Stack)) {
    case IOCTL_BANNER_SET:
        return Complete(Irp, Set(Own, Irp, InputOf(Stack)), 0);
    case IOCTL_BANNER_GET:
        return Complete(Irp, STATUS_SUCCESS, Get(Own, Irp->AssociatedIrp.SystemBuffer, OutputOf(Stack)));
    default:
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    PDEVICE Own = Driver->DeviceObject->DeviceExtension;

    if (Own->Text != NULL) {
        ExFreePoolWithTag(Own->Text, BANNER_TAG);
    }
    LegacyUnload(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    ExInitializeFastMutex(&((PDEVICE)Device->DeviceExtension)->Mutex);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}

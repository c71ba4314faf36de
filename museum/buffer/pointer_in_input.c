/*
 * A label printer's driver: the input of one code says where in the application's memory the next label lies, and how many bytes it has; a read gives the label back.
 *
 * The bug: the label's memory is probed and copied within __try, but its length is not compared with the 64 bytes of the block that it is copied to. It shows with a
 * pointer to memory of the application's and a length of more than 64.
 *
 * Device: none
 * Rule: pool-overrun, wild-write
 * Needs: ioctl
 * Compiler: clang
 */
#define DEVICE_NAME L"\\Device\\LabelPrinter"
#define LINK_NAME L"\\DosDevices\\LabelPrinter"
#include "../include/try.h"
#include "../include/legacy.h"

#define LABEL_TAG 'lbaL'
#define IOCTL_LABEL_SET CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE61, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define LABEL 64

/* What an application gives: the same for one of 32 bits. */
typedef struct _PLACE {
    ULONG64 Address;
    ULONG64 Length;
} PLACE, *PPLACE;

typedef struct _DEVICE {
    FAST_MUTEX Mutex;
    PUCHAR Label; /* NULL: there is none yet */
    ULONG Length;
} DEVICE, *PDEVICE;

/* Called within __try. */
__attribute__((noinline)) static VOID Copy(PUCHAR Label, const PLACE *Place)
{
    PVOID Address = (PVOID)(ULONG_PTR)Place->Address;

    ProbeForRead(Address, Place->Length, 1);
    RtlCopyMemory(Label, Address, Place->Length);
}

__attribute__((noinline)) static NTSTATUS CopyGuarded(PUCHAR Label, const PLACE *Place)
{
    NTSTATUS Status = STATUS_SUCCESS;

    __try {
        Copy(Label, Place);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        Status = STATUS_ACCESS_VIOLATION;
    }
    return Status;
}

static NTSTATUS SetLabel(PDEVICE Own, PLACE Place)
{
    PUCHAR Label, Old;
    NTSTATUS Status;

#ifdef FIXED
    if (Place.Length > LABEL) {
        return STATUS_INVALID_PARAMETER;
    }
#endif
    Label = ExAllocatePoolWithTag(NonPagedPool, LABEL, LABEL_TAG);
    if (Label == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Status = CopyGuarded(Label, &Place);
    if (!NT_SUCCESS(Status)) {
        ExFreePoolWithTag(Label, LABEL_TAG);
        return Status;
    }
    ExAcquireFastMutex(&Own->Mutex);
    Old = Own->Label;
    Own->Label = Label;
    Own->Length = (ULONG)Place.Length;
    ExReleaseFastMutex(&Own->Mutex);
    if (Old != NULL) {
        ExFreePoolWithTag(Old, LABEL_TAG);
    }
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    if (CodeOf(Stack) != IOCTL_LABEL_SET) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) < sizeof(PLACE)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    return Complete(Irp, SetLabel(Device->DeviceExtension, *(PPLACE)Irp->AssociatedIrp.SystemBuffer), 0);
}

static NTSTATUS NTAPI DispatchRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    ULONG Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length;

    ExAcquireFastMutex(&Own->Mutex);
    Length = min(Length, Own->Length);
    if (Length != 0) {
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, Own->Label, Length);
    }
    ExReleaseFastMutex(&Own->Mutex);
    return Complete(Irp, STATUS_SUCCESS, Length);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    PDEVICE Own = Driver->DeviceObject->DeviceExtension;

    if (Own->Label != NULL) {
        ExFreePoolWithTag(Own->Label, LABEL_TAG);
    }
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        ExInitializeFastMutex(&((PDEVICE)Device->DeviceExtension)->Mutex);
        Driver->MajorFunction[IRP_MJ_READ] = DispatchRead;
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
        Driver->DriverUnload = Unload;
    }
    return Status;
}

/*
 * requests.sys: a driver without hardware that asks the kernel for much and checks each answer against what Microsoft
 * documents. \\.\DirqlRequests has one control code for each family of checks, below in requests/; each answers a
 * REQUESTS_RESULT, and prints the checks that fail. A second device beneath answers the requests of the families.
 * It provokes no bug checks: that is what faulty/faults.c is for.
 */
#include "requests/check.h"
#include "requests/stack.h"
#include "requests/irps.h"
#include "requests/queues.h"
#include "requests/memory.h"
#include "requests/handles.h"
#include "requests/registry.h"
#include "requests/system.h"

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlRequests");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlRequests");

/* In the order of their control codes, from 0 on. */
static VOID (*const Families[])(REQUESTS_RESULT *, PIRP) = {
    StackFamily, IrpFamily, QueueFamily, MemoryFamily, HandleFamily, RegistryFamily, SystemFamily,
};

static NTSTATUS Complete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS ControlFamilies(PIRP Irp, PIO_STACK_LOCATION Stack)
{
    ULONG Family = (Stack->Parameters.DeviceIoControl.IoControlCode - REQUESTS_CODE(0)) >> 2;
    REQUESTS_RESULT Result = {0, 0, 0, 0};

    if (Family >= RTL_NUMBER_OF(Families) || Stack->Parameters.DeviceIoControl.IoControlCode != REQUESTS_CODE(Family)) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(Result)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    Families[Family](&Result, Irp);
    *(REQUESTS_RESULT *)Irp->AssociatedIrp.SystemBuffer = Result;
    return Complete(Irp, STATUS_SUCCESS, sizeof(Result));
}

static NTSTATUS LowerControl(PDEVICE_EXTENSION Extension, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    ULONG Length = Stack->Parameters.DeviceIoControl.InputBufferLength;
    PUCHAR Bytes = Irp->AssociatedIrp.SystemBuffer;
    ULONG Index;

    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_LOWER_INVERT:
        if (Stack->Parameters.DeviceIoControl.OutputBufferLength < Length) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        for (Index = 0; Index < Length; Index++) {
            Bytes[Index] = (UCHAR)~Bytes[Index];
        }
        return Complete(Irp, STATUS_SUCCESS, Length);
    case IOCTL_LOWER_HOLD:
        IoCsqInsertIrp(&Extension->Queue, Irp, NULL);
        return STATUS_PENDING;
    default:
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

/* Reads give the bytes that Fill makes from the offset on; of what is written the sum is kept. */
static NTSTATUS LowerTransfer(PDEVICE_EXTENSION Extension, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    ULONG Length = Stack->Parameters.Read.Length; /* Write has the same layout */
    PUCHAR Bytes = Length == 0 ? NULL : MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority);
    ULONG Index, Sum = 0;

    if (Bytes == NULL) {
        return Complete(Irp, Length == 0 ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    if (Stack->MajorFunction == IRP_MJ_READ) {
        Fill(Bytes, Length, (UCHAR)Stack->Parameters.Read.ByteOffset.QuadPart);
        return Complete(Irp, STATUS_SUCCESS, Length);
    }
    for (Index = 0; Index < Length; Index++) {
        Sum += Bytes[Index];
    }
    Extension->Sum = Sum;
    return Complete(Irp, STATUS_SUCCESS, Length);
}

/* Notes what a file is called behind the device's own name. */
static NTSTATUS LowerCreate(PDEVICE_EXTENSION Extension, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PUNICODE_STRING Name = &Stack->FileObject->FileName;

    if (Name->Length > sizeof(Extension->Name)) {
        return Complete(Irp, STATUS_OBJECT_NAME_INVALID, 0);
    }
    Extension->Related = Stack->FileObject->RelatedFileObject;
    Extension->CreateOptions = Stack->Parameters.Create.Options;
    Extension->NameLength = Name->Length;
    RtlCopyMemory(Extension->Name, Name->Buffer, Name->Length);
    return Complete(Irp, STATUS_SUCCESS, FILE_OPENED);
}

static NTSTATUS NTAPI Dispatch(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    if (Extension->Kind == FilterDevice) {
        IoSkipCurrentIrpStackLocation(Irp);
        return IoCallDriver(Extension->Below, Irp);
    }
    switch (Stack->MajorFunction) {
    case IRP_MJ_CREATE:
        return Extension->Kind == LowerDevice ? LowerCreate(Extension, Irp, Stack) : Complete(Irp, STATUS_SUCCESS, 0);
    case IRP_MJ_READ:
    case IRP_MJ_WRITE:
        if (Extension->Kind == ControlDevice) {
            return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
        }
        return LowerTransfer(Extension, Irp, Stack);
    case IRP_MJ_DEVICE_CONTROL:
        return Extension->Kind == ControlDevice ? ControlFamilies(Irp, Stack) : LowerControl(Extension, Irp, Stack);
    default:
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
}

static VOID NTAPI DriverUnload(PDRIVER_OBJECT Driver)
{
    IoDeleteSymbolicLink(&LinkName);
    while (Driver->DeviceObject != NULL) {
        IoDeleteDevice(Driver->DeviceObject);
    }
    ExFreePoolWithTag(ServiceKey.Buffer, REQUESTS_TAG);
}

/* RegistryPath is not ours after DriverEntry, and need not end in a zero. */
static NTSTATUS KeepPath(PUNICODE_STRING RegistryPath)
{
    ServiceKey.Buffer = ExAllocatePoolWithTag(PagedPool, RegistryPath->Length + sizeof(WCHAR), REQUESTS_TAG);
    if (ServiceKey.Buffer == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlCopyMemory(ServiceKey.Buffer, RegistryPath->Buffer, RegistryPath->Length);
    ServiceKey.Buffer[RegistryPath->Length / sizeof(WCHAR)] = L'\0';
    ServiceKey.Length = RegistryPath->Length;
    ServiceKey.MaximumLength = RegistryPath->Length + sizeof(WCHAR);
    return STATUS_SUCCESS;
}

static NTSTATUS CreateTheDevices(PDRIVER_OBJECT Driver)
{
    PDEVICE_EXTENSION Extension;
    PDEVICE_OBJECT Control;
    NTSTATUS Status;

    Status = IoCreateDevice(Driver, sizeof(DEVICE_EXTENSION), &LowerName, FILE_DEVICE_UNKNOWN, 0, FALSE, &Lower);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Extension = Lower->DeviceExtension; /* IoCreateDevice has zeroed it */
    Extension->Kind = LowerDevice;
    InitializeListHead(&Extension->Held);
    KeInitializeSpinLock(&Extension->Lock);
    IoCsqInitialize(&Extension->Queue, CsqInsert, CsqRemove, CsqPeek, CsqAcquire, CsqRelease, CsqCancelled);
    Lower->Flags |= DO_DIRECT_IO;

    Status = IoCreateDevice(Driver, sizeof(DEVICE_EXTENSION), &DeviceName, FILE_DEVICE_UNKNOWN, 0, FALSE, &Control);
    if (NT_SUCCESS(Status)) {
        Control->Flags |= DO_BUFFERED_IO;
        Status = IoCreateSymbolicLink(&LinkName, &DeviceName);
        if (NT_SUCCESS(Status)) {
            return Status;
        }
        IoDeleteDevice(Control);
    }
    IoDeleteDevice(Lower);
    return Status;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS Status = KeepPath(RegistryPath);
    static const UCHAR Majors[] = {IRP_MJ_CREATE, IRP_MJ_CLEANUP, IRP_MJ_CLOSE, IRP_MJ_READ, IRP_MJ_WRITE,
                                   IRP_MJ_DEVICE_CONTROL, IRP_MJ_SHUTDOWN};
    ULONG Index;

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    TheDriver = Driver;
    for (Index = 0; Index < RTL_NUMBER_OF(Majors); Index++) {
        Driver->MajorFunction[Majors[Index]] = Dispatch;
    }
    Driver->DriverUnload = DriverUnload;
    Status = CreateTheDevices(Driver);
    if (!NT_SUCCESS(Status)) {
        ExFreePoolWithTag(ServiceKey.Buffer, REQUESTS_TAG);
        return Status;
    }
    IoRegisterDriverReinitialization(Driver, Reinitialize, &Reinitialized);
    return STATUS_SUCCESS;
}

/*
 * A legacy driver that carries out commands which an application leaves in a buffer of its own: the buffer is mapped (METHOD_IN_DIRECT), and each command sets the text of one of eight registers.
 *
 * The bug: the length of a command is read from the application's buffer once to check it and again to copy, so that an application that changes it in between overruns the register.
 * Shows by: another thread of the application stores a larger length into the buffer between the driver's check and its copy.
 *
 * Device: none
 * Rule: pool-overrun, double-fetch, bad-pointer, wild-write
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>

#define SHM_TAG 'cmhS'
#ifndef MdlMappingNoExecute
#define MdlMappingNoExecute 0x40000000
#endif

#define SHM_REGISTERS 8u
#define SHM_TEXT 60u

#define IOCTL_SHM_SET  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8e1, METHOD_IN_DIRECT, FILE_ANY_ACCESS)      /* "output" buffer, read only: SHM_COMMAND and its text */
#define IOCTL_SHM_GET  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8e2, METHOD_BUFFERED, FILE_ANY_ACCESS)       /* in: ULONG register, out: its text */

typedef struct _SHM_COMMAND {
    ULONG Register;
    ULONG Length;                               /* of the text, which follows */
} SHM_COMMAND, *PSHM_COMMAND;

typedef struct _SHM_REGISTER {
    ULONG Length;
    UCHAR Text[SHM_TEXT];
} SHM_REGISTER, *PSHM_REGISTER;

typedef struct _SHM {
    FAST_MUTEX Mutex;                           /* what is in the registers */
    PSHM_REGISTER Registers[SHM_REGISTERS];
} SHM, *PSHM;

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\ShmCmd");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\ShmCmd");

static NTSTATUS ShmComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* The command lies in memory that belongs to the application. */
static NTSTATUS ShmSet(PSHM Shm, volatile const SHM_COMMAND *Command, ULONG Bytes)
{
    const UCHAR *text = (const UCHAR *)(ULONG_PTR)(Command + 1);
    ULONG index, length;
    PSHM_REGISTER to;

    if (Bytes < sizeof(*Command))
        return STATUS_BUFFER_TOO_SMALL;
    index = Command->Register;
    length = Command->Length;
    if (index >= SHM_REGISTERS || length > SHM_TEXT || length > Bytes - sizeof(*Command))
        return STATUS_INVALID_PARAMETER;
    to = Shm->Registers[index];
    ExAcquireFastMutex(&Shm->Mutex);
#ifndef FIXED
    length = Command->Length;
#endif
    RtlCopyMemory(to->Text, text, length);
    to->Length = length;
    ExReleaseFastMutex(&Shm->Mutex);
    return STATUS_SUCCESS;
}

static NTSTATUS ShmGet(PSHM Shm, PVOID Buffer, ULONG Room, PULONG Length)
{
    ULONG index = *(PULONG)Buffer;
    NTSTATUS status = STATUS_SUCCESS;
    PSHM_REGISTER from;

    if (index >= SHM_REGISTERS)
        return STATUS_INVALID_PARAMETER;
    from = Shm->Registers[index];
    ExAcquireFastMutex(&Shm->Mutex);
    if (Room < from->Length)
        status = STATUS_BUFFER_TOO_SMALL;
    else {
        *Length = from->Length;
        RtlCopyMemory(Buffer, from->Text, from->Length);
    }
    ExReleaseFastMutex(&Shm->Mutex);
    return status;
}

static NTSTATUS NTAPI ShmControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PSHM shm = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PVOID mapped;
    ULONG length = 0;
    NTSTATUS status;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SHM_SET:
        if (Irp->MdlAddress == NULL)
            return ShmComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        mapped = MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority | MdlMappingNoExecute);
        if (mapped == NULL)
            return ShmComplete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
        return ShmComplete(Irp, ShmSet(shm, mapped, MmGetMdlByteCount(Irp->MdlAddress)), 0);

    case IOCTL_SHM_GET:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return ShmComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        status = ShmGet(shm, Irp->AssociatedIrp.SystemBuffer, sp->Parameters.DeviceIoControl.OutputBufferLength, &length);
        return ShmComplete(Irp, status, length);
    }
    return ShmComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI ShmCreateClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return ShmComplete(Irp, STATUS_SUCCESS, 0);
}

static void ShmFree(PDEVICE_OBJECT Device)
{
    PSHM shm = Device->DeviceExtension;
    ULONG i;

    for (i = 0; i < SHM_REGISTERS; i++)
        if (shm->Registers[i] != NULL)
            ExFreePoolWithTag(shm->Registers[i], SHM_TAG);
    IoDeleteDevice(Device);
}

static VOID NTAPI ShmUnload(PDRIVER_OBJECT Driver)
{
    IoDeleteSymbolicLink(&LinkName);
    ShmFree(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    PSHM shm;
    NTSTATUS status;
    ULONG i;

    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = ShmCreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = ShmCreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = ShmCreateClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = ShmControl;
    Driver->DriverUnload = ShmUnload;
    status = IoCreateDevice(Driver, sizeof(SHM), &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    shm = device->DeviceExtension;
    RtlZeroMemory(shm, sizeof(*shm));
    ExInitializeFastMutex(&shm->Mutex);
    for (i = 0; i < SHM_REGISTERS; i++) {
        shm->Registers[i] = ExAllocatePoolWithTag(PagedPool, sizeof(SHM_REGISTER), SHM_TAG);
        if (shm->Registers[i] == NULL) {
            ShmFree(device);
            return STATUS_INSUFFICIENT_RESOURCES;
        }
        shm->Registers[i]->Length = 0;
    }
    status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(status))
        ShmFree(device);
    return status;
}

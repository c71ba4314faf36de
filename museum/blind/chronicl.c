/*
 * chronicl: keeps the diary of a service in a file. What is written to the device is put as a record (serial number, length, text) behind the
 * last one; when the file has reached its full size, the diary goes on at its beginning.
 *
 * The bug: the tail of the file is guarded by a fast mutex, which is held around ZwWriteFile. The fast mutex raises to APC_LEVEL, where the
 * call is forbidden: the APC that ends the synchronous write is not delivered, and the thread hangs with the mutex.
 *
 * Device: none
 * Rule: irql-too-high
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define TAG 'orhC'
#define TEXT_MAX 4000
#define FILE_MAX (1024 * 1024)
#define MAGIC 0x52454344 /* DCER */

#define IOCTL_CHRONICL_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x850, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_CHRONICL_REWIND CTL_CODE(FILE_DEVICE_UNKNOWN, 0x851, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct _RECORD {
    ULONG Magic;
    ULONG Serial;
    ULONG Length;
    UCHAR Text[1];
} RECORD, *PRECORD;

typedef struct _CHRONICL_STATE {
    ULONG Serial;
    ULONG Tail;
    ULONG Failures;
} CHRONICL_STATE, *PCHRONICL_STATE;

typedef struct _CHRONICL {
#ifdef FIXED
    KMUTEX Lock; /* guards all */
#else
    FAST_MUTEX Lock; /* guards all */
#endif
    HANDLE File;
    ULONG Serial;
    ULONG Tail;
    ULONG Failures;
} CHRONICL, *PCHRONICL;

static const UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\Chronicl");
static const UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\Chronicl");
static const UNICODE_STRING FileName = RTL_CONSTANT_STRING(L"\\SystemRoot\\Temp\\chronicl.log");

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static VOID LockInit(PCHRONICL c)
{
#ifdef FIXED
    KeInitializeMutex(&c->Lock, 0);
#else
    ExInitializeFastMutex(&c->Lock);
#endif
}

static VOID Lock(PCHRONICL c)
{
#ifdef FIXED
    KeWaitForSingleObject(&c->Lock, Executive, KernelMode, FALSE, NULL);
#else
    ExAcquireFastMutex(&c->Lock);
#endif
}

static VOID Unlock(PCHRONICL c)
{
#ifdef FIXED
    KeReleaseMutex(&c->Lock, FALSE);
#else
    ExReleaseFastMutex(&c->Lock);
#endif
}

/* Puts the record behind the last one; the lock is held. */
static NTSTATUS Append(PCHRONICL c, PRECORD record, ULONG size)
{
    LARGE_INTEGER offset;
    IO_STATUS_BLOCK iosb;
    NTSTATUS status;

    if (size > FILE_MAX - c->Tail)
        c->Tail = 0;
    record->Serial = c->Serial + 1;
    offset.QuadPart = c->Tail;
    status = ZwWriteFile(c->File, NULL, NULL, NULL, &iosb, record, size, &offset, NULL);
    if (NT_SUCCESS(status) && iosb.Information != size)
        status = STATUS_DISK_FULL;
    if (NT_SUCCESS(status)) {
        c->Serial++;
        c->Tail += size;
    } else {
        c->Failures++;
    }
    return status;
}

static NTSTATUS ChroniclWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    PCHRONICL c = Device->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    ULONG size = FIELD_OFFSET(RECORD, Text) + length;
    PRECORD record;
    NTSTATUS status;

    if (length == 0)
        return Finish(Irp, STATUS_SUCCESS, 0);
    if (length > TEXT_MAX)
        return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
    record = ExAllocatePoolWithTag(NonPagedPool, size, TAG);
    if (!record)
        return Finish(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    record->Magic = MAGIC;
    record->Length = length;
    RtlCopyMemory(record->Text, Irp->AssociatedIrp.SystemBuffer, length);
    Lock(c);
    status = Append(c, record, size);
    Unlock(c);
    ExFreePoolWithTag(record, TAG);
    return Finish(Irp, status, NT_SUCCESS(status) ? length : 0);
}

static NTSTATUS ChroniclControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PCHRONICL c = Device->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    PCHRONICL_STATE out = Irp->AssociatedIrp.SystemBuffer;

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CHRONICL_STATE:
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof *out)
            return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        Lock(c);
        out->Serial = c->Serial;
        out->Tail = c->Tail;
        out->Failures = c->Failures;
        Unlock(c);
        return Finish(Irp, STATUS_SUCCESS, sizeof *out);

    case IOCTL_CHRONICL_REWIND:
        Lock(c);
        c->Tail = 0;
        Unlock(c);
        return Finish(Irp, STATUS_SUCCESS, 0);

    default:
        return Finish(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS ChroniclOpenClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static VOID ChroniclUnload(PDRIVER_OBJECT Driver)
{
    PCHRONICL c = Driver->DeviceObject->DeviceExtension;

    IoDeleteSymbolicLink((PUNICODE_STRING)&LinkName);
    ZwClose(c->File);
    IoDeleteDevice(Driver->DeviceObject);
}

static NTSTATUS OpenDiary(PCHRONICL c)
{
    OBJECT_ATTRIBUTES attributes;
    IO_STATUS_BLOCK iosb;

    InitializeObjectAttributes(&attributes, (PUNICODE_STRING)&FileName, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, NULL, NULL);
    return ZwCreateFile(&c->File, FILE_WRITE_DATA | SYNCHRONIZE, &attributes, &iosb, NULL, FILE_ATTRIBUTE_NORMAL, FILE_SHARE_READ,
                        FILE_OVERWRITE_IF, FILE_SYNCHRONOUS_IO_NONALERT | FILE_NON_DIRECTORY_FILE, NULL, 0);
}

NTSTATUS DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    PCHRONICL c;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->DriverUnload = ChroniclUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = ChroniclOpenClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = ChroniclOpenClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = ChroniclOpenClose;
    Driver->MajorFunction[IRP_MJ_WRITE] = ChroniclWrite;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = ChroniclControl;
    status = IoCreateDevice(Driver, sizeof *c, (PUNICODE_STRING)&DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    c = device->DeviceExtension;
    RtlZeroMemory(c, sizeof *c);
    LockInit(c);
    device->Flags |= DO_BUFFERED_IO;
    status = OpenDiary(c);
    if (NT_SUCCESS(status)) {
        status = IoCreateSymbolicLink((PUNICODE_STRING)&LinkName, (PUNICODE_STRING)&DeviceName);
        if (NT_SUCCESS(status)) {
            device->Flags &= ~DO_DEVICE_INITIALIZING;
            return STATUS_SUCCESS;
        }
        ZwClose(c->File);
    }
    IoDeleteDevice(device);
    return status;
}

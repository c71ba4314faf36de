/*
 * Request statistics: counts opens, reads and writes per open file and for the whole device, and gives them by IOCTL.
 *
 * The bug: the record for the application is built in a local structure of which the name's tail, the spare words and the
 * padding are never set, yet all of it is copied out.
 *
 * Device: none
 * Rule: output-never-stored
 * Needs: ioctl
 * Symptom: the application gets stale kernel stack bytes (addresses) in IOCTL_KSTATS_QUERY's output.
 */
#include <ddk/wdm.h>

#define KSTATS_TAG 'tatS'

#define IOCTL_KSTATS_QUERY CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA00, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_KSTATS_NAME  CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA01, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct _KSTATS_RECORD {
    UCHAR Version;              /* followed by padding */
    ULONG NameLength;
    CHAR Name[32];
    ULONGLONG Reads;
    ULONGLONG Writes;
    ULONG Opens;
    ULONG Spare[3];
} KSTATS_RECORD;

typedef struct _FILE_STATS {
    KSPIN_LOCK Lock;
    ULONG NameLength;
    CHAR Name[32];
    ULONGLONG Reads;
    ULONGLONG Writes;
} FILE_STATS;

static volatile LONG Opens;

static NTSTATUS KsComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI KsCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    FILE_STATS *fs;

    UNREFERENCED_PARAMETER(DeviceObject);
    fs = ExAllocatePoolWithTag(NonPagedPool, sizeof(*fs), KSTATS_TAG);
    if (fs == NULL) {
        return KsComplete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    RtlZeroMemory(fs, sizeof(*fs));
    KeInitializeSpinLock(&fs->Lock);
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = fs;
    InterlockedIncrement(&Opens);
    return KsComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI KsClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;

    UNREFERENCED_PARAMETER(DeviceObject);
    ExFreePoolWithTag(file->FsContext, KSTATS_TAG);
    file->FsContext = NULL;
    return KsComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI KsReadWrite(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    FILE_STATS *fs = sp->FileObject->FsContext;
    ULONG length;
    KIRQL irql;

    UNREFERENCED_PARAMETER(DeviceObject);
    KeAcquireSpinLock(&fs->Lock, &irql);
    if (sp->MajorFunction == IRP_MJ_READ) {
        fs->Reads++;
        length = 0;             /* always at the end of the file */
    } else {
        fs->Writes++;
        length = sp->Parameters.Write.Length;
    }
    KeReleaseSpinLock(&fs->Lock, irql);
    return KsComplete(Irp, STATUS_SUCCESS, length);
}

static VOID KsFill(FILE_STATS *Fs, KSTATS_RECORD *Record)
{
    KIRQL irql;

    Record->Version = 2;
    KeAcquireSpinLock(&Fs->Lock, &irql);
    Record->NameLength = Fs->NameLength;
    RtlCopyMemory(Record->Name, Fs->Name, Fs->NameLength);
    Record->Reads = Fs->Reads;
    Record->Writes = Fs->Writes;
    KeReleaseSpinLock(&Fs->Lock, irql);
    Record->Opens = (ULONG)Opens;
}

static NTSTATUS NTAPI KsControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    FILE_STATS *fs = sp->FileObject->FsContext;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    KSTATS_RECORD record;
    KIRQL irql;

    UNREFERENCED_PARAMETER(DeviceObject);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_KSTATS_QUERY:
        if (out < sizeof(record)) {
            return KsComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
#ifdef FIXED
        RtlZeroMemory(&record, sizeof(record));
#endif
        KsFill(fs, &record);
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &record, sizeof(record));
        return KsComplete(Irp, STATUS_SUCCESS, sizeof(record));
    case IOCTL_KSTATS_NAME:
        if (in > sizeof(fs->Name)) {
            return KsComplete(Irp, STATUS_NAME_TOO_LONG, 0);
        }
        KeAcquireSpinLock(&fs->Lock, &irql);
        if (in != 0) {
            RtlCopyMemory(fs->Name, Irp->AssociatedIrp.SystemBuffer, in);
        }
        fs->NameLength = in;
        KeReleaseSpinLock(&fs->Lock, irql);
        return KsComplete(Irp, STATUS_SUCCESS, 0);
    default:
        return KsComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI KsUnload(PDRIVER_OBJECT DriverObject)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\KStats");

    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(DriverObject->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\KStats");
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\KStats");
    PDEVICE_OBJECT device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = IoCreateDevice(DriverObject, 0, &name, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    DriverObject->DriverUnload = KsUnload;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = KsCreate;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = KsClose;
    DriverObject->MajorFunction[IRP_MJ_READ] = KsReadWrite;
    DriverObject->MajorFunction[IRP_MJ_WRITE] = KsReadWrite;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = KsControl;
    device->Flags |= DO_BUFFERED_IO;
    return STATUS_SUCCESS;
}

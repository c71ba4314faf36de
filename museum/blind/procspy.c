/*
 * Process log: while switched on, notes process creation and exit in a ring that applications read by IOCTL.
 *
 * The bug: unload takes it for granted that the application switched the log off; if it is still on, the process
 * notification routine stays registered after the image is gone.
 *
 * Device: none
 * Rule: unload-still-called
 * Needs: ioctl
 * Symptom: DRIVER_UNLOADED_WITHOUT_CANCELLING_PENDING_OPERATIONS (0xCE) / 0x50 at the next process creation or exit.
 */
#include <ddk/wdm.h>

typedef VOID (NTAPI *PCREATE_PROCESS_NOTIFY_ROUTINE)(HANDLE ParentId, HANDLE ProcessId, BOOLEAN Create);
NTKERNELAPI NTSTATUS NTAPI PsSetCreateProcessNotifyRoutine(PCREATE_PROCESS_NOTIFY_ROUTINE NotifyRoutine, BOOLEAN Remove);

#define IOCTL_LOG_ON    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_LOG_OFF   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_LOG_FETCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_READ_DATA)

#define RING 128

typedef struct _LOG_ENTRY {
    ULONGLONG Parent;
    ULONGLONG Process;
    ULONGLONG Create;
} LOG_ENTRY;

static struct {
    KMUTEX Switch;              /* on and off, one at a time; passive level */
    BOOLEAN On;
    KSPIN_LOCK Lock;
    ULONG First, Count;
    LOG_ENTRY Ring[RING];
} Log;

static NTSTATUS PsComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI PsCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return PsComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI PsClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return PsComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI PsNotify(HANDLE ParentId, HANDLE ProcessId, BOOLEAN Create)
{
    LOG_ENTRY *e;
    KIRQL irql;

    KeAcquireSpinLock(&Log.Lock, &irql);
    if (Log.Count == RING) {
        Log.First = (Log.First + 1) % RING;         /* drop the oldest */
        Log.Count--;
    }
    e = &Log.Ring[(Log.First + Log.Count) % RING];
    e->Parent = (ULONG_PTR)ParentId;
    e->Process = (ULONG_PTR)ProcessId;
    e->Create = Create;
    Log.Count++;
    KeReleaseSpinLock(&Log.Lock, irql);
}

static NTSTATUS PsSwitch(BOOLEAN On)
{
    NTSTATUS status = STATUS_SUCCESS;

    KeWaitForSingleObject(&Log.Switch, Executive, KernelMode, FALSE, NULL);
    if (Log.On != On) {
        status = PsSetCreateProcessNotifyRoutine(PsNotify, !On);
        if (NT_SUCCESS(status)) {
            Log.On = On;
        }
    }
    KeReleaseMutex(&Log.Switch, FALSE);
    return status;
}

static ULONG PsFetch(LOG_ENTRY *Out, ULONG Max)
{
    ULONG n;
    KIRQL irql;

    KeAcquireSpinLock(&Log.Lock, &irql);
    for (n = 0; n < Max && Log.Count != 0; n++) {
        Out[n] = Log.Ring[Log.First];
        Log.First = (Log.First + 1) % RING;
        Log.Count--;
    }
    KeReleaseSpinLock(&Log.Lock, irql);
    return n * sizeof(LOG_ENTRY);
}

static NTSTATUS NTAPI PsControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;

    UNREFERENCED_PARAMETER(DeviceObject);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_LOG_ON:
        return PsComplete(Irp, PsSwitch(TRUE), 0);
    case IOCTL_LOG_OFF:
        return PsComplete(Irp, PsSwitch(FALSE), 0);
    case IOCTL_LOG_FETCH:
        if (out < sizeof(LOG_ENTRY)) {
            return PsComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        return PsComplete(Irp, STATUS_SUCCESS,
                          PsFetch(Irp->AssociatedIrp.SystemBuffer, out / sizeof(LOG_ENTRY)));
    default:
        return PsComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI PsUnload(PDRIVER_OBJECT DriverObject)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\ProcSpy");

#ifdef FIXED
    PsSwitch(FALSE);
#endif
    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(DriverObject->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\ProcSpy");
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\ProcSpy");
    PDEVICE_OBJECT device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = IoCreateDevice(DriverObject, 0, &name, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    KeInitializeMutex(&Log.Switch, 0);
    KeInitializeSpinLock(&Log.Lock);
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    DriverObject->DriverUnload = PsUnload;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = PsCreate;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = PsClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = PsControl;
    device->Flags |= DO_BUFFERED_IO;
    return STATUS_SUCCESS;
}

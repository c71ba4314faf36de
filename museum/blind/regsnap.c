/*
 * Registry write counter: a registry callback counts value writes; an IOCTL stores the counts in the service's own key.
 *
 * The bug: the counts are stored while their lock is held; the driver's own ZwSetValueKey comes back into its callback,
 * which waits for that lock for ever.
 *
 * Device: none
 * Rule: irp-never-completed, deadlock
 * Needs: ioctl
 * Symptom: hang: the thread in IOCTL_REGSNAP_STORE waits for itself, and then every thread that writes a registry value.
 */
#include <ddk/wdm.h>

#define TAG 'nSgR'

#define IOCTL_REGSNAP_QUERY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x820, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_REGSNAP_STORE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_WRITE_DATA)

typedef struct _COUNTS {
    ULONGLONG Writes;
    ULONGLONG Bytes;
} COUNTS;

/* An auto-reset event as a lock: the registry must be called at passive level with it held by no one we wait for. */
static KEVENT Lock;
static COUNTS Counts;
static LARGE_INTEGER Cookie;
static UNICODE_STRING KeyPath;

static NTSTATUS RsComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI RsCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return RsComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI RsClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return RsComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID RsLock(VOID)
{
    KeEnterCriticalRegion();
    KeWaitForSingleObject(&Lock, Executive, KernelMode, FALSE, NULL);
}

static VOID RsUnlock(VOID)
{
    KeSetEvent(&Lock, IO_NO_INCREMENT, FALSE);
    KeLeaveCriticalRegion();
}

static NTSTATUS NTAPI RsCallback(PVOID Context, PVOID Class, PVOID Argument)
{
    UNREFERENCED_PARAMETER(Context);
    if ((REG_NOTIFY_CLASS)(ULONG_PTR)Class == RegNtPreSetValueKey) {
        PREG_SET_VALUE_KEY_INFORMATION info = Argument;

        RsLock();
        Counts.Writes++;
        Counts.Bytes += info->DataSize;
        RsUnlock();
    }
    return STATUS_SUCCESS;
}

static NTSTATUS RsStore(VOID)
{
    UNICODE_STRING value = RTL_CONSTANT_STRING(L"Counts");
    OBJECT_ATTRIBUTES attributes;
    NTSTATUS status;
    HANDLE key;

    InitializeObjectAttributes(&attributes, &KeyPath, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, NULL, NULL);
    status = ZwOpenKey(&key, KEY_SET_VALUE, &attributes);
    if (!NT_SUCCESS(status)) {
        return status;
    }
#ifdef FIXED
    {
        COUNTS now;

        RsLock();
        now = Counts;
        RsUnlock();
        status = ZwSetValueKey(key, &value, 0, REG_BINARY, &now, sizeof(now));
    }
#else
    RsLock();
    status = ZwSetValueKey(key, &value, 0, REG_BINARY, &Counts, sizeof(Counts));
    RsUnlock();
#endif
    ZwClose(key);
    return status;
}

static NTSTATUS NTAPI RsControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);

    UNREFERENCED_PARAMETER(DeviceObject);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_REGSNAP_QUERY:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(COUNTS)) {
            return RsComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        RsLock();
        *(COUNTS *)Irp->AssociatedIrp.SystemBuffer = Counts;
        RsUnlock();
        return RsComplete(Irp, STATUS_SUCCESS, sizeof(COUNTS));
    case IOCTL_REGSNAP_STORE:
        return RsComplete(Irp, RsStore(), 0);
    default:
        return RsComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI RsUnload(PDRIVER_OBJECT DriverObject)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\RegSnap");

    CmUnRegisterCallback(Cookie);           /* waits for callbacks that are running */
    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(DriverObject->DeviceObject);
    ExFreePoolWithTag(KeyPath.Buffer, TAG);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\RegSnap");
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\RegSnap");
    UNICODE_STRING altitude = RTL_CONSTANT_STRING(L"380017.25");
    PDEVICE_OBJECT device;
    NTSTATUS status;

    KeInitializeEvent(&Lock, SynchronizationEvent, TRUE);

    KeyPath.MaximumLength = RegistryPath->Length + sizeof(WCHAR);
    KeyPath.Buffer = ExAllocatePoolWithTag(PagedPool, KeyPath.MaximumLength, TAG);
    if (KeyPath.Buffer == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlCopyUnicodeString(&KeyPath, RegistryPath);

    status = IoCreateDevice(DriverObject, 0, &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status)) {
        goto FreePath;
    }
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        goto DeleteDevice;
    }
    status = CmRegisterCallbackEx(RsCallback, &altitude, DriverObject, NULL, &Cookie, NULL);
    if (!NT_SUCCESS(status)) {
        goto DeleteLink;
    }
    DriverObject->DriverUnload = RsUnload;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = RsCreate;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = RsClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = RsControl;
    return STATUS_SUCCESS;

DeleteLink:
    IoDeleteSymbolicLink(&link);
DeleteDevice:
    IoDeleteDevice(device);
FreePath:
    ExFreePoolWithTag(KeyPath.Buffer, TAG);
    return status;
}

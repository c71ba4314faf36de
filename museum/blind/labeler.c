/*
 * labeler: keeps the label of the machine (asset tag), from the value Label (REG_SZ) of the
 * service's Parameters key. Applications read it, have it read anew after a change by
 * the administrator, or set it for the time until the next reload.
 *
 * The bug: the string read from the registry is taken for terminated by a null character.
 *
 * Device: none
 * Rule: pool-overrun
 * Needs: registry
 */
#include <ddk/wdm.h>

#define LB_TAG 'lbaL'
#define MAX_LABEL_CHARS 128

#define IOCTL_LB_GET    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x840, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_LB_RELOAD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x841, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_LB_SET    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x842, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct _LABELER {
    KEVENT Mutex;                   /* synchronization event */
    UNICODE_STRING Label;           /* own memory, counted */
    UNICODE_STRING ParametersPath;
} LABELER, *PLABELER;

static VOID Enter(PLABELER L)
{
    KeEnterCriticalRegion();
    KeWaitForSingleObject(&L->Mutex, Executive, KernelMode, FALSE, NULL);
}

static VOID Leave(PLABELER L)
{
    KeSetEvent(&L->Mutex, IO_NO_INCREMENT, FALSE);
    KeLeaveCriticalRegion();
}

/* replaces the label by a copy of Bytes (a multiple of 2) of Text */
static NTSTATUS SetLabel(PLABELER L, const WCHAR *Text, ULONG Bytes)
{
    PWCHAR copy = NULL, old;
    if (Bytes > MAX_LABEL_CHARS * sizeof(WCHAR))
        return STATUS_NAME_TOO_LONG;
    if (Bytes) {
        copy = ExAllocatePoolWithTag(PagedPool, Bytes, LB_TAG);
        if (!copy)
            return STATUS_INSUFFICIENT_RESOURCES;
        RtlCopyMemory(copy, Text, Bytes);
    }
    Enter(L);
    old = L->Label.Buffer;
    L->Label.Buffer = copy;
    L->Label.Length = L->Label.MaximumLength = (USHORT)Bytes;
    Leave(L);
    if (old)
        ExFreePoolWithTag(old, LB_TAG);
    return STATUS_SUCCESS;
}

static NTSTATUS Reload(PLABELER L)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"Label");
    OBJECT_ATTRIBUTES oa;
    HANDLE key;
    ULONG size = 0;
    PKEY_VALUE_PARTIAL_INFORMATION info = NULL;
    NTSTATUS status;

    InitializeObjectAttributes(&oa, &L->ParametersPath, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, NULL, NULL);
    status = ZwOpenKey(&key, KEY_QUERY_VALUE, &oa);
    if (!NT_SUCCESS(status))
        return status;
    status = ZwQueryValueKey(key, &name, KeyValuePartialInformation, NULL, 0, &size);
    if (status == STATUS_BUFFER_TOO_SMALL || status == STATUS_BUFFER_OVERFLOW) {
        info = size > 4096 ? NULL : ExAllocatePoolWithTag(PagedPool, size, LB_TAG);
        if (!info)
            status = STATUS_INSUFFICIENT_RESOURCES;
        else        /* may have grown meanwhile: then it fails */
            status = ZwQueryValueKey(key, &name, KeyValuePartialInformation, info, size, &size);
    }
    ZwClose(key);
    if (NT_SUCCESS(status) && info) {
        if (info->Type != REG_SZ)
            status = STATUS_OBJECT_TYPE_MISMATCH;
        else {
            const WCHAR *text = (const WCHAR *)info->Data;
            ULONG n = 0;
#ifdef FIXED
            while (n < info->DataLength / sizeof(WCHAR) && text[n])
#else
            while (text[n])
#endif
                n++;
            if (n > MAX_LABEL_CHARS)
                n = MAX_LABEL_CHARS;
            status = SetLabel(L, text, n * sizeof(WCHAR));
        }
    }
    if (info)
        ExFreePoolWithTag(info, LB_TAG);
    return status;
}

static NTSTATUS NTAPI LbDispatch(PDEVICE_OBJECT Device, PIRP Irp)
{
    PLABELER l = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PVOID buf = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG_PTR info = 0;
    ULONG length;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        goto complete;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_LB_GET:
        length = sp->Parameters.DeviceIoControl.OutputBufferLength;
        Enter(l);
        if (l->Label.Length > length)
            status = STATUS_BUFFER_TOO_SMALL;
        else if (l->Label.Length) {
            RtlCopyMemory(buf, l->Label.Buffer, l->Label.Length);
            info = l->Label.Length;
        }
        Leave(l);
        break;
    case IOCTL_LB_RELOAD:
        status = Reload(l);
        break;
    case IOCTL_LB_SET:
        length = sp->Parameters.DeviceIoControl.InputBufferLength;
        status = length % sizeof(WCHAR) ? STATUS_INVALID_PARAMETER : SetLabel(l, buf, length);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
complete:
    Irp->IoStatus.Status = status;
    Irp->IoStatus.Information = info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return status;
}

static VOID NTAPI LbUnload(PDRIVER_OBJECT Driver)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\Labeler");
    PLABELER l = Driver->DeviceObject->DeviceExtension;
    IoDeleteSymbolicLink(&link);
    if (l->Label.Buffer)
        ExFreePoolWithTag(l->Label.Buffer, LB_TAG);
    ExFreePoolWithTag(l->ParametersPath.Buffer, LB_TAG);
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    static const WCHAR sub[] = L"\\Parameters";
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\Labeler");
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\Labeler");
    PDEVICE_OBJECT device;
    PLABELER l;
    ULONG length = (ULONG)RegistryPath->Length + sizeof sub - sizeof(WCHAR);
    NTSTATUS status;

    if (length > 0xFFFE)
        return STATUS_NAME_TOO_LONG;
    status = IoCreateDevice(Driver, sizeof *l, &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    l = device->DeviceExtension;
    RtlZeroMemory(l, sizeof *l);
    KeInitializeEvent(&l->Mutex, SynchronizationEvent, TRUE);
    l->ParametersPath.Buffer = ExAllocatePoolWithTag(PagedPool, length, LB_TAG);
    if (!l->ParametersPath.Buffer) {
        IoDeleteDevice(device);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlCopyMemory(l->ParametersPath.Buffer, RegistryPath->Buffer, RegistryPath->Length);
    RtlCopyMemory((PUCHAR)l->ParametersPath.Buffer + RegistryPath->Length, sub, sizeof sub - sizeof(WCHAR));
    l->ParametersPath.Length = l->ParametersPath.MaximumLength = (USHORT)length;

    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        ExFreePoolWithTag(l->ParametersPath.Buffer, LB_TAG);
        IoDeleteDevice(device);
        return status;
    }
    Reload(l);          /* no label is fine too */
    Driver->MajorFunction[IRP_MJ_CREATE] = LbDispatch;
    Driver->MajorFunction[IRP_MJ_CLOSE] = LbDispatch;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = LbDispatch;
    Driver->DriverUnload = LbUnload;
    return STATUS_SUCCESS;
}

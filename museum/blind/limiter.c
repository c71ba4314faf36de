/*
 * limiter: a filter that refuses writes above a size and counts requests by major function. The values MaxWriteBytes
 * and Refuse (DWORDs, in the device's hardware key) are read when the device is added. While a device is filtered there
 * is a control device \\.\LimiterCtl whose IOCTL_LIMIT_COUNTS answers the counts of all filtered devices.
 *
 * The bug: the registry values are read with RTL_QUERY_REGISTRY_DIRECT into ULONGs without their type being checked.
 *
 * Device: ROOT\LIMITER
 * Rule: pool-overrun
 * Needs: registry
 */
#include <ddk/wdm.h>

#define LIMIT_TAG 'imiL'
#define MAX_WRITE_DEFAULT (1u << 20)
#define IOCTL_LIMIT_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x980, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _LIMIT_COUNTS {
    ULONG Reads;
    ULONG Writes;
    ULONG Controls;
    ULONG Refused;
} LIMIT_COUNTS;

typedef struct _FILTER {
    PDEVICE_OBJECT Self;                /* NULL: the control device */
    PDEVICE_OBJECT Next;
    PDEVICE_OBJECT Pdo;
    ULONG MaxWriteBytes;
    ULONG Refuse;
    IO_REMOVE_LOCK RemoveLock;
} FILTER, *PFILTER;

static struct {
    KMUTEX Mutex;                       /* the control device and how many need it */
    ULONG Filters;
    PDEVICE_OBJECT Control;
    volatile LONG Counts[4];
} Limiter;

static UNICODE_STRING LimitName = RTL_CONSTANT_STRING(L"\\Device\\LimiterCtl");
static UNICODE_STRING LimitLink = RTL_CONSTANT_STRING(L"\\DosDevices\\LimiterCtl");

static NTSTATUS LimitComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* ---- the control device ---- */

/* One more filtered device; the first creates the control device (the filter works without it, too). */
static VOID LimitNeedControl(PDRIVER_OBJECT DriverObject)
{
    PDEVICE_OBJECT control;

    KeWaitForSingleObject(&Limiter.Mutex, Executive, KernelMode, FALSE, NULL);
    if (Limiter.Filters++ == 0 &&
        NT_SUCCESS(IoCreateDevice(DriverObject, sizeof(FILTER), &LimitName, FILE_DEVICE_UNKNOWN,
                                  FILE_DEVICE_SECURE_OPEN, FALSE, &control))) {
        RtlZeroMemory(control->DeviceExtension, sizeof(FILTER));
        if (NT_SUCCESS(IoCreateSymbolicLink(&LimitLink, &LimitName))) {
            Limiter.Control = control;
            control->Flags &= ~DO_DEVICE_INITIALIZING;
        } else {
            IoDeleteDevice(control);
        }
    }
    KeReleaseMutex(&Limiter.Mutex, FALSE);
}

static VOID LimitReleaseControl(VOID)
{
    KeWaitForSingleObject(&Limiter.Mutex, Executive, KernelMode, FALSE, NULL);
    if (--Limiter.Filters == 0 && Limiter.Control != NULL) {
        IoDeleteSymbolicLink(&LimitLink);
        IoDeleteDevice(Limiter.Control);
        Limiter.Control = NULL;
    }
    KeReleaseMutex(&Limiter.Mutex, FALSE);
}

static NTSTATUS LimitControl(PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    LIMIT_COUNTS *c = Irp->AssociatedIrp.SystemBuffer;

    switch (sp->MajorFunction) {
    case IRP_MJ_CREATE:
    case IRP_MJ_CLEANUP:
    case IRP_MJ_CLOSE:
        return LimitComplete(Irp, STATUS_SUCCESS, 0);
    case IRP_MJ_DEVICE_CONTROL:
        if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_LIMIT_COUNTS)
            break;
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*c))
            return LimitComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        c->Reads = (ULONG)Limiter.Counts[0];
        c->Writes = (ULONG)Limiter.Counts[1];
        c->Controls = (ULONG)Limiter.Counts[2];
        c->Refused = (ULONG)Limiter.Counts[3];
        return LimitComplete(Irp, STATUS_SUCCESS, sizeof(*c));
    }
    return LimitComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

/* ---- the filter ---- */

static NTSTATUS NTAPI LimitPass(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFILTER f = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status;

    if (f->Self == NULL)
        return LimitControl(Irp);
    status = IoAcquireRemoveLock(&f->RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return LimitComplete(Irp, status, 0);
    switch (sp->MajorFunction) {
    case IRP_MJ_READ:
        InterlockedIncrement(&Limiter.Counts[0]);
        break;
    case IRP_MJ_WRITE:
        InterlockedIncrement(&Limiter.Counts[1]);
        if (f->Refuse != 0 && sp->Parameters.Write.Length > f->MaxWriteBytes) {
            InterlockedIncrement(&Limiter.Counts[3]);
            LimitComplete(Irp, STATUS_INVALID_PARAMETER, 0);
            IoReleaseRemoveLock(&f->RemoveLock, Irp);
            return STATUS_INVALID_PARAMETER;
        }
        break;
    case IRP_MJ_DEVICE_CONTROL:
        InterlockedIncrement(&Limiter.Counts[2]);
        break;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(f->Next, Irp);
    IoReleaseRemoveLock(&f->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI LimitPower(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFILTER f = DeviceObject->DeviceExtension;
    NTSTATUS status;

    if (f->Self == NULL) {
        PoStartNextPowerIrp(Irp);
        return LimitComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    status = IoAcquireRemoveLock(&f->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(Irp);
        return LimitComplete(Irp, status, 0);
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(f->Next, Irp);
    IoReleaseRemoveLock(&f->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI LimitForwarded(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Event)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent((PKEVENT)Event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS NTAPI LimitPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFILTER f = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status;
    KEVENT event;

    if (f->Self == NULL)
        return LimitComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    status = IoAcquireRemoveLock(&f->RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return LimitComplete(Irp, status, 0);

    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
    case IRP_MN_DEVICE_USAGE_NOTIFICATION:
        if (sp->MinorFunction == IRP_MN_DEVICE_USAGE_NOTIFICATION) {
            /* on the way down as the device above, on the way up as the device below */
            PDEVICE_OBJECT above = DeviceObject->AttachedDevice;

            if (above == NULL || (above->Flags & DO_POWER_PAGABLE))
                DeviceObject->Flags |= DO_POWER_PAGABLE;
        }
        KeInitializeEvent(&event, NotificationEvent, FALSE);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, LimitForwarded, &event, TRUE, TRUE, TRUE);
        status = IoCallDriver(f->Next, Irp);
        if (status == STATUS_PENDING)
            KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = Irp->IoStatus.Status;
        if (sp->MinorFunction == IRP_MN_DEVICE_USAGE_NOTIFICATION) {
            if (!(f->Next->Flags & DO_POWER_PAGABLE))
                DeviceObject->Flags &= ~DO_POWER_PAGABLE;
        } else if (NT_SUCCESS(status) && (f->Next->Characteristics & FILE_REMOVABLE_MEDIA)) {
            DeviceObject->Characteristics |= FILE_REMOVABLE_MEDIA;
        }
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        IoReleaseRemoveLock(&f->RemoveLock, Irp);
        return status;

    case IRP_MN_REMOVE_DEVICE:
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(f->Next, Irp);
        IoReleaseRemoveLockAndWait(&f->RemoveLock, Irp);
        IoDetachDevice(f->Next);
        LimitReleaseControl();
        IoDeleteDevice(DeviceObject);
        return status;

    default:
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(f->Next, Irp);
        IoReleaseRemoveLock(&f->RemoveLock, Irp);
        return status;
    }
}

/* ---- adding ---- */

#ifdef FIXED
static NTSTATUS NTAPI LimitValue(PWSTR Name, ULONG Type, PVOID Data, ULONG Length, PVOID Context, PVOID Variable)
{
    UNREFERENCED_PARAMETER(Name);
    UNREFERENCED_PARAMETER(Context);
    if (Type == REG_DWORD && Data != NULL && Length == sizeof(ULONG))
        RtlCopyMemory(Variable, Data, sizeof(ULONG));
    return STATUS_SUCCESS;
}
#endif

static VOID LimitParameters(PFILTER F)
{
    RTL_QUERY_REGISTRY_TABLE table[3];
    HANDLE key;

    if (!NT_SUCCESS(IoOpenDeviceRegistryKey(F->Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_READ, &key)))
        return;
    RtlZeroMemory(table, sizeof(table));
    table[0].Name = (PWSTR)L"MaxWriteBytes";
    table[0].EntryContext = &F->MaxWriteBytes;
    table[1].Name = (PWSTR)L"Refuse";
    table[1].EntryContext = &F->Refuse;
#ifdef FIXED
    table[0].QueryRoutine = table[1].QueryRoutine = LimitValue;
#else
    table[0].Flags = table[1].Flags = RTL_QUERY_REGISTRY_DIRECT;
#endif
    RtlQueryRegistryValues(RTL_REGISTRY_HANDLE, (PCWSTR)key, table, NULL, NULL);
    ZwClose(key);
}

static NTSTATUS NTAPI LimitAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT top = IoGetAttachedDeviceReference(Pdo);
    PDEVICE_OBJECT device;
    PFILTER f;
    NTSTATUS status = IoCreateDevice(DriverObject, sizeof(FILTER), NULL, top->DeviceType,
                                     top->Characteristics & FILE_DEVICE_SECURE_OPEN, FALSE, &device);

    ObDereferenceObject(top);
    if (!NT_SUCCESS(status))
        return status;
    f = device->DeviceExtension;
    RtlZeroMemory(f, sizeof(*f));
    f->Self = device;
    f->Pdo = Pdo;
    f->MaxWriteBytes = MAX_WRITE_DEFAULT;
    IoInitializeRemoveLock(&f->RemoveLock, LIMIT_TAG, 0, 0);
    LimitParameters(f);
    f->Next = IoAttachDeviceToDeviceStack(device, Pdo);
    if (f->Next == NULL) {
        IoDeleteDevice(device);
        return STATUS_NO_SUCH_DEVICE;
    }
    device->Flags |= f->Next->Flags & (DO_BUFFERED_IO | DO_DIRECT_IO | DO_POWER_PAGABLE | DO_POWER_INRUSH);
    LimitNeedControl(DriverObject);
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI LimitUnload(PDRIVER_OBJECT DriverObject) { UNREFERENCED_PARAMETER(DriverObject); }

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    ULONG i;

    UNREFERENCED_PARAMETER(RegistryPath);
    KeInitializeMutex(&Limiter.Mutex, 0);
    for (i = 0; i <= IRP_MJ_MAXIMUM_FUNCTION; i++)
        DriverObject->MajorFunction[i] = LimitPass;
    DriverObject->MajorFunction[IRP_MJ_PNP] = LimitPnp;
    DriverObject->MajorFunction[IRP_MJ_POWER] = LimitPower;
    DriverObject->DriverExtension->AddDevice = LimitAddDevice;
    DriverObject->DriverUnload = LimitUnload;
    return STATUS_SUCCESS;
}

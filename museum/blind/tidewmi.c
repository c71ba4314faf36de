/*
 * tidewmi: a simulated tide gauge that gives its level and its extremes by WMI, and lets WMI set its period.
 *
 * The bug: the WMI query callback writes the data block without looking whether BufferAvail has room for it.
 *
 * Device: ROOT\TIDEWMI
 * Rule: bad-pointer
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include <ddk/wmilib.h>
#include <wmistr.h>

#define TIDE_TAG 'ediT'
#define PERIOD_LEAST 10
#define PERIOD_MOST  86400

static const GUID LevelGuid =  { 0x5b1e0c1a, 0x11d0, 0x4b77, { 0x9a, 0x10, 0x2b, 0x66, 0x70, 0x11, 0x05, 0x01 } };
static const GUID PeriodGuid = { 0x5b1e0c1a, 0x11d0, 0x4b77, { 0x9a, 0x10, 0x2b, 0x66, 0x70, 0x11, 0x05, 0x02 } };

typedef struct _TIDE_LEVEL {
    ULONG64 Time;
    LONG Millimetres;
    LONG Highest;
    LONG Lowest;
    ULONG Queries;
} TIDE_LEVEL;

typedef struct _TIDE {
    PDEVICE_OBJECT Self, Pdo, Lower;
    IO_REMOVE_LOCK RemoveLock;
    BOOLEAN Registered;
    KSPIN_LOCK Lock;
    ULONG Period;               /* seconds; these under the lock */
    TIDE_LEVEL Level;
} TIDE;

static UNICODE_STRING g_path;

static WMIGUIDREGINFO g_guids[] = {
    { (LPGUID)&LevelGuid, 1, 0 },
    { (LPGUID)&PeriodGuid, 1, 0 },
};

/* A triangle between -2000 and 2000 mm. Under the lock. */
static VOID Compute(TIDE *Tide)
{
    ULONGLONG now = KeQueryInterruptTime();
    ULONGLONG phase = now / 10000 % (Tide->Period * 1000ULL);       /* milliseconds */
    LONG at = (LONG)(phase * 8000 / (Tide->Period * 1000ULL));

    Tide->Level.Time = now;
    Tide->Level.Millimetres = at < 4000 ? at - 2000 : 6000 - at;
    if (Tide->Level.Millimetres > Tide->Level.Highest)
        Tide->Level.Highest = Tide->Level.Millimetres;
    if (Tide->Level.Millimetres < Tide->Level.Lowest)
        Tide->Level.Lowest = Tide->Level.Millimetres;
    Tide->Level.Queries++;
}

static NTSTATUS NTAPI TideRegInfo(PDEVICE_OBJECT Device, PULONG Flags, PUNICODE_STRING Instance, PUNICODE_STRING *Path,
                                  PUNICODE_STRING Mof, PDEVICE_OBJECT *Pdo)
{
    TIDE *tide = Device->DeviceExtension;

    UNREFERENCED_PARAMETER(Instance);
    UNREFERENCED_PARAMETER(Mof);
    *Flags = WMIREG_FLAG_INSTANCE_PDO;
    *Path = &g_path;
    *Pdo = tide->Pdo;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI TideQuery(PDEVICE_OBJECT Device, PIRP Irp, ULONG Guid, ULONG Instance, ULONG Count,
                                PULONG Lengths, ULONG BufferAvail, PUCHAR Buffer)
{
    TIDE *tide = Device->DeviceExtension;
    TIDE_LEVEL level;
    ULONG period, size;
    KIRQL irql;

    if (Guid >= RTL_NUMBER_OF(g_guids))
        return WmiCompleteRequest(Device, Irp, STATUS_WMI_GUID_NOT_FOUND, 0, IO_NO_INCREMENT);
    if (Instance != 0 || Count != 1)
        return WmiCompleteRequest(Device, Irp, STATUS_WMI_INSTANCE_NOT_FOUND, 0, IO_NO_INCREMENT);
    size = Guid == 0 ? sizeof(TIDE_LEVEL) : sizeof(ULONG);
#ifdef FIXED
    if (!Lengths || !Buffer || BufferAvail < size)
        return WmiCompleteRequest(Device, Irp, STATUS_BUFFER_TOO_SMALL, size, IO_NO_INCREMENT);
#else
    UNREFERENCED_PARAMETER(BufferAvail);
#endif
    KeAcquireSpinLock(&tide->Lock, &irql);
    Compute(tide);
    level = tide->Level;
    period = tide->Period;
    KeReleaseSpinLock(&tide->Lock, irql);
    if (Guid == 0)
        RtlCopyMemory(Buffer, &level, size);
    else
        RtlCopyMemory(Buffer, &period, size);
    *Lengths = size;
    return WmiCompleteRequest(Device, Irp, STATUS_SUCCESS, size, IO_NO_INCREMENT);
}

static NTSTATUS NTAPI TideSet(PDEVICE_OBJECT Device, PIRP Irp, ULONG Guid, ULONG Instance, ULONG Size, PUCHAR Buffer)
{
    TIDE *tide = Device->DeviceExtension;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG period;
    KIRQL irql;

    if (Guid == 0)
        status = STATUS_WMI_READ_ONLY;
    else if (Guid != 1)
        status = STATUS_WMI_GUID_NOT_FOUND;
    else if (Instance != 0)
        status = STATUS_WMI_INSTANCE_NOT_FOUND;
    else if (Size != sizeof(ULONG))
        status = STATUS_WMI_SET_FAILURE;
    if (NT_SUCCESS(status)) {
        RtlCopyMemory(&period, Buffer, sizeof(period));
        if (period < PERIOD_LEAST || period > PERIOD_MOST) {
            status = STATUS_WMI_SET_FAILURE;
        } else {
            KeAcquireSpinLock(&tide->Lock, &irql);
            tide->Period = period;
            KeReleaseSpinLock(&tide->Lock, irql);
        }
    }
    return WmiCompleteRequest(Device, Irp, status, 0, IO_NO_INCREMENT);
}

static WMILIB_CONTEXT g_wmi = {
    .GuidCount = RTL_NUMBER_OF(g_guids),
    .GuidList = g_guids,
    .QueryWmiRegInfo = TideRegInfo,
    .QueryWmiDataBlock = TideQuery,
    .SetWmiDataBlock = TideSet,
};

static NTSTATUS Enter(TIDE *Tide, PIRP Irp)
{
    NTSTATUS status = IoAcquireRemoveLock(&Tide->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
    }
    return status;
}

static NTSTATUS NTAPI TideSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    TIDE *tide = Device->DeviceExtension;
    SYSCTL_IRP_DISPOSITION disposition;
    NTSTATUS status;

    status = Enter(tide, Irp);
    if (!NT_SUCCESS(status))
        return status;
    status = WmiSystemControl(&g_wmi, Device, Irp, &disposition);
    switch (disposition) {
    case IrpProcessed:
        break;
    case IrpNotCompleted:
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        break;
    default:
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(tide->Lower, Irp);
    }
    IoReleaseRemoveLock(&tide->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI TideStarted(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent((PKEVENT)Context, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static VOID Deregister(TIDE *Tide)
{
    if (Tide->Registered) {
        Tide->Registered = FALSE;
        IoWMIRegistrationControl(Tide->Self, WMIREG_ACTION_DEREGISTER);
    }
}

static NTSTATUS NTAPI TidePnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    TIDE *tide = Device->DeviceExtension;
    NTSTATUS status;
    KEVENT event;

    status = Enter(tide, Irp);
    if (!NT_SUCCESS(status))
        return status;
    switch (IoGetCurrentIrpStackLocation(Irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        KeInitializeEvent(&event, NotificationEvent, FALSE);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, TideStarted, &event, TRUE, TRUE, TRUE);
        IoCallDriver(tide->Lower, Irp);
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = Irp->IoStatus.Status;
        if (NT_SUCCESS(status) && !tide->Registered)
            tide->Registered = NT_SUCCESS(IoWMIRegistrationControl(Device, WMIREG_ACTION_REGISTER));
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        IoReleaseRemoveLock(&tide->RemoveLock, Irp);
        return status;
    case IRP_MN_SURPRISE_REMOVAL:
        Deregister(tide);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        Deregister(tide);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(tide->Lower, Irp);
        IoReleaseRemoveLockAndWait(&tide->RemoveLock, Irp);
        IoDetachDevice(tide->Lower);
        IoDeleteDevice(Device);
        return status;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
    case IRP_MN_STOP_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(tide->Lower, Irp);
    IoReleaseRemoveLock(&tide->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI TidePower(PDEVICE_OBJECT Device, PIRP Irp)
{
    TIDE *tide = Device->DeviceExtension;
    NTSTATUS status = Enter(tide, Irp);

    if (!NT_SUCCESS(status))
        return status;
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(tide->Lower, Irp);
    IoReleaseRemoveLock(&tide->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI TideAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT fdo;
    NTSTATUS status;
    TIDE *tide;

    status = IoCreateDevice(Driver, sizeof(TIDE), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &fdo);
    if (!NT_SUCCESS(status))
        return status;
    tide = fdo->DeviceExtension;
    RtlZeroMemory(tide, sizeof(*tide));
    tide->Self = fdo;
    tide->Pdo = Pdo;
    tide->Period = 3600;
    tide->Level.Highest = -2000;
    tide->Level.Lowest = 2000;
    KeInitializeSpinLock(&tide->Lock);
    IoInitializeRemoveLock(&tide->RemoveLock, TIDE_TAG, 0, 0);
    tide->Lower = IoAttachDeviceToDeviceStack(fdo, Pdo);
    if (!tide->Lower) {
        IoDeleteDevice(fdo);
        return STATUS_NO_SUCH_DEVICE;
    }
    fdo->Flags |= DO_POWER_PAGABLE;
    fdo->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI TideUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    ExFreePoolWithTag(g_path.Buffer, TIDE_TAG);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    g_path.Buffer = ExAllocatePoolWithTag(PagedPool, Path->Length + sizeof(WCHAR), TIDE_TAG);
    if (!g_path.Buffer)
        return STATUS_INSUFFICIENT_RESOURCES;
    g_path.MaximumLength = Path->Length + sizeof(WCHAR);
    RtlCopyUnicodeString(&g_path, Path);
    Driver->DriverExtension->AddDevice = TideAdd;
    Driver->DriverUnload = TideUnload;
    Driver->MajorFunction[IRP_MJ_PNP] = TidePnp;
    Driver->MajorFunction[IRP_MJ_POWER] = TidePower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = TideSystemControl;
    return STATUS_SUCCESS;
}

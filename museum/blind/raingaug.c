/*
 * raingaug: a root-enumerated rain gauge. Programs report the tips of the bucket; the totals and the gauge's
 * settings are WMI data blocks, the settings can be set.
 *
 * The bug: a set of the settings block copies as many bytes as the WMI caller gave, not as many as the settings have,
 * and runs over what follows them in the device extension.
 *
 * Device: ROOT\RAINGAUG
 * Rule: pool-overrun
 * Needs: ioctl
 */
#define FRAME_NO_HARDWARE
#define FRAME_OWN_START
#include "../include/caller_frame.h"
#include <ddk/wmilib.h>

#define IOCTL_RAIN_TIP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x921, METHOD_BUFFERED, FILE_WRITE_DATA)
#ifndef WMIREG_FLAG_INSTANCE_PDO
#define WMIREG_FLAG_INSTANCE_PDO 0x20
#endif
#define TAG 'niaR'

typedef struct _SETTINGS {
    ULONG Microlitres;
    ULONG Area;
    UCHAR Place[16];
} SETTINGS, *PSETTINGS;

typedef struct _TOTALS {
    ULONGLONG Tips;
    ULONGLONG Microlitres;
} TOTALS, *PTOTALS;

typedef struct _GAUGE {
    FRAME F;
    KSPIN_LOCK Lock;
    BOOLEAN Registered;
    WMILIB_CONTEXT Wmi;
    TOTALS Totals;
    SETTINGS Settings;
    LIST_ENTRY Days;        /* of DAY, one for each thousand tips */
    ULONG DayCount;
} GAUGE, *PGAUGE;

typedef struct _DAY {
    LIST_ENTRY Link;
    LARGE_INTEGER When;
} DAY, *PDAY;

static const GUID GaugeClass = {0x6c1e2a03, 0x51b0, 0x4c11, {0x9a, 0x01, 0x33, 0x10, 0x5e, 0x20, 0x7b, 0x03}};
static const GUID TotalsGuid = {0x6c1e2b03, 0x51b0, 0x4c11, {0x9a, 0x01, 0x33, 0x10, 0x5e, 0x20, 0x7b, 0x03}};
static const GUID SettingsGuid = {0x6c1e2c03, 0x51b0, 0x4c11, {0x9a, 0x01, 0x33, 0x10, 0x5e, 0x20, 0x7b, 0x03}};
static WMIGUIDREGINFO Blocks[2] = { { &TotalsGuid, 1, 0 }, { &SettingsGuid, 1, 0 } };
static UNICODE_STRING RegistryPath;

static NTSTATUS NTAPI GaugeRegInfo(PDEVICE_OBJECT dev, PULONG flags, PUNICODE_STRING instance, PUNICODE_STRING *path,
                                   PUNICODE_STRING mof, PDEVICE_OBJECT *pdo)
{
    UNREFERENCED_PARAMETER(instance);
    UNREFERENCED_PARAMETER(mof);
    *flags = WMIREG_FLAG_INSTANCE_PDO;
    *path = &RegistryPath;
    *pdo = FR(dev)->Pdo;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI GaugeQuery(PDEVICE_OBJECT dev, PIRP irp, ULONG guid, ULONG instance, ULONG count,
                                 PULONG lengths, ULONG avail, PUCHAR buffer)
{
    PGAUGE g = dev->DeviceExtension;
    ULONG size = guid == 0 ? sizeof(TOTALS) : sizeof(SETTINGS);
    KIRQL irql;

    if (guid > 1)
        return WmiCompleteRequest(dev, irp, STATUS_WMI_GUID_NOT_FOUND, 0, IO_NO_INCREMENT);
    if (instance != 0 || count != 1)
        return WmiCompleteRequest(dev, irp, STATUS_WMI_INSTANCE_NOT_FOUND, 0, IO_NO_INCREMENT);
    if (lengths == NULL || buffer == NULL || avail < size)
        return WmiCompleteRequest(dev, irp, STATUS_BUFFER_TOO_SMALL, size, IO_NO_INCREMENT);
    KeAcquireSpinLock(&g->Lock, &irql);
    if (guid == 0)
        RtlCopyMemory(buffer, &g->Totals, sizeof(TOTALS));
    else
        RtlCopyMemory(buffer, &g->Settings, sizeof(SETTINGS));
    KeReleaseSpinLock(&g->Lock, irql);
    *lengths = size;
    return WmiCompleteRequest(dev, irp, STATUS_SUCCESS, size, IO_NO_INCREMENT);
}

static NTSTATUS NTAPI GaugeSet(PDEVICE_OBJECT dev, PIRP irp, ULONG guid, ULONG instance, ULONG size, PUCHAR buffer)
{
    PGAUGE g = dev->DeviceExtension;
    KIRQL irql;

    if (guid > 1)
        return WmiCompleteRequest(dev, irp, STATUS_WMI_GUID_NOT_FOUND, 0, IO_NO_INCREMENT);
    if (instance != 0)
        return WmiCompleteRequest(dev, irp, STATUS_WMI_INSTANCE_NOT_FOUND, 0, IO_NO_INCREMENT);
    if (guid == 0)
        return WmiCompleteRequest(dev, irp, STATUS_WMI_READ_ONLY, 0, IO_NO_INCREMENT);
    if (size < sizeof(SETTINGS))
        return WmiCompleteRequest(dev, irp, STATUS_WMI_SET_FAILURE, 0, IO_NO_INCREMENT);
    KeAcquireSpinLock(&g->Lock, &irql);
#ifdef FIXED
    RtlCopyMemory(&g->Settings, buffer, sizeof(SETTINGS));
#else
    RtlCopyMemory(&g->Settings, buffer, size);
#endif
    KeReleaseSpinLock(&g->Lock, irql);
    return WmiCompleteRequest(dev, irp, STATUS_SUCCESS, 0, IO_NO_INCREMENT);
}

static NTSTATUS NTAPI GaugeSystemControl(PDEVICE_OBJECT dev, PIRP irp)
{
    PGAUGE g = dev->DeviceExtension;
    SYSCTL_IRP_DISPOSITION disposition;
    NTSTATUS status = IoAcquireRemoveLock(&g->F.Remove, irp);

    if (!NT_SUCCESS(status))
        return FrameComplete(irp, status, 0);
    status = WmiSystemControl(&g->Wmi, dev, irp, &disposition);
    switch (disposition) {
    case IrpProcessed:
        break;
    case IrpNotCompleted:
        IoCompleteRequest(irp, IO_NO_INCREMENT);
        break;
    default:
        IoSkipCurrentIrpStackLocation(irp);
        status = IoCallDriver(g->F.Lower, irp);
    }
    IoReleaseRemoveLock(&g->F.Remove, irp);
    return status;
}

static NTSTATUS Tip(PGAUGE g)
{
    PDAY day = NULL;
    KIRQL irql;

    KeAcquireSpinLock(&g->Lock, &irql);
    g->Totals.Tips++;
    g->Totals.Microlitres += g->Settings.Microlitres;
    if (g->Totals.Tips % 1000 == 0 && g->DayCount < 10000) {
        day = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof *day, TAG);
        if (day != NULL) {
            KeQuerySystemTime(&day->When);
            InsertTailList(&g->Days, &day->Link);
            g->DayCount++;
        }
    }
    KeReleaseSpinLock(&g->Lock, irql);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI GaugeControl(PDEVICE_OBJECT dev, PIRP irp)
{
    PGAUGE g = dev->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&g->F.Remove, irp);

    if (!NT_SUCCESS(status))
        return FrameComplete(irp, status, 0);
    if (g->F.Gone)
        status = STATUS_DELETE_PENDING;
    else if (IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.IoControlCode == IOCTL_RAIN_TIP)
        status = Tip(g);
    else
        status = STATUS_INVALID_DEVICE_REQUEST;
    FrameComplete(irp, status, 0);
    IoReleaseRemoveLock(&g->F.Remove, irp);
    return status;
}

static NTSTATUS HwStart(PDEVICE_OBJECT dev, PFRAME_RES res)
{
    PGAUGE g = dev->DeviceExtension;

    UNREFERENCED_PARAMETER(res);
    if (!g->Registered && NT_SUCCESS(IoWMIRegistrationControl(dev, WMIREG_ACTION_REGISTER)))
        g->Registered = TRUE;
    return STATUS_SUCCESS;
}

static VOID HwAbort(PDEVICE_OBJECT dev)
{
    PGAUGE g = dev->DeviceExtension;
    KIRQL irql;
    LIST_ENTRY days;

    if (g->Registered) {
        IoWMIRegistrationControl(dev, WMIREG_ACTION_DEREGISTER);
        g->Registered = FALSE;
    }
    InitializeListHead(&days);
    KeAcquireSpinLock(&g->Lock, &irql);
    while (!IsListEmpty(&g->Days))
        InsertTailList(&days, RemoveHeadList(&g->Days));
    g->DayCount = 10000;        /* no more of them */
    KeReleaseSpinLock(&g->Lock, irql);
    while (!IsListEmpty(&days))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&days), DAY, Link), TAG);
}

static NTSTATUS NTAPI GaugeAdd(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo)
{
    PDEVICE_OBJECT dev;
    PGAUGE g;
    NTSTATUS status = FrameAdd(driver, pdo, &GaugeClass, sizeof(GAUGE), DO_BUFFERED_IO, &dev);

    if (!NT_SUCCESS(status))
        return status;
    g = dev->DeviceExtension;
    KeInitializeSpinLock(&g->Lock);
    InitializeListHead(&g->Days);
    g->Settings.Microlitres = 200;
    g->Settings.Area = 1000;
    g->Wmi.GuidCount = 2;
    g->Wmi.GuidList = Blocks;
    g->Wmi.QueryWmiRegInfo = GaugeRegInfo;
    g->Wmi.QueryWmiDataBlock = GaugeQuery;
    g->Wmi.SetWmiDataBlock = GaugeSet;
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI GaugeUnload(PDRIVER_OBJECT driver)
{
    FrameUnload(driver);
    ExFreePoolWithTag(RegistryPath.Buffer, TAG);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    RegistryPath.MaximumLength = path->Length + sizeof(WCHAR);
    RegistryPath.Buffer = ExAllocatePoolWithTag(PagedPool, RegistryPath.MaximumLength, TAG);
    if (RegistryPath.Buffer == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlCopyUnicodeString(&RegistryPath, path);
    FrameEntry(driver, GaugeAdd);
    driver->DriverUnload = GaugeUnload;
    driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = GaugeSystemControl;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = GaugeControl;
    return STATUS_SUCCESS;
}

/*
 * Settings of the bench card: its delay is kept in the device's registry key and written to the card whenever it comes up.
 *
 * The bug: when the value is not in the registry (or is of another type) the device's key is not closed, so a handle is lost with each start.
 * Shows by: starting the device while its delay has never been set.
 *
 * Device: PCI\VEN_1234&DEV_BE2C
 * Rule: handle-leak
 * Needs: nothing
 */
#include <ddk/wdm.h>
#include "../include/pnp_frame.h"
#include "../include/card_window.h"

#define IOCTL_CFG_SET_DELAY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B0, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_CFG_QUERY     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B1, METHOD_BUFFERED, FILE_READ_ACCESS)

#define BENCH_IDENTIFICATION 0x00
#define BENCH_SOURCES        0x04
#define BENCH_DELAY          0x20
#define BENCH_BYTES          0x70

#define CFG_DEFAULT_NS 1000
#define CFG_MAX_NS     1000000

static const GUID CfgInterface = { 0xde1179b4, 0x6a20, 0x4988, { 0x9d, 0xc3, 0x41, 0x5a, 0x06, 0xf8, 0x2e, 0x7b } };

typedef struct _CFG_REPORT {
    ULONG Identification;
    ULONG Sources;
    ULONG Delay;
} CFG_REPORT, *PCFG_REPORT;

typedef struct _DEVICE {
    FDO Fdo;
    HW_BAR Regs;
    ULONG Delay;                /* Gate */
} DEVICE, *PDEVICE;

static DRIVER_DISPATCH CfgControl;
static DRIVER_ADD_DEVICE CfgAddDevice;
static DRIVER_UNLOAD CfgUnload;
DRIVER_INITIALIZE DriverEntry;

static NTSTATUS CfgLoad(PDEVICE Dev, PULONG Delay)
{
    union {
        KEY_VALUE_PARTIAL_INFORMATION Info;
        UCHAR Room[FIELD_OFFSET(KEY_VALUE_PARTIAL_INFORMATION, Data) + sizeof(ULONG)];
    } value;
    UNICODE_STRING name;
    HANDLE key;
    ULONG length;
    NTSTATUS status;

    status = IoOpenDeviceRegistryKey(Dev->Fdo.Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_READ, &key);
    if (!NT_SUCCESS(status))
        return status;
    RtlInitUnicodeString(&name, L"DelayNs");
    status = ZwQueryValueKey(key, &name, KeyValuePartialInformation, &value, sizeof(value), &length);
    if (NT_SUCCESS(status) && (value.Info.Type != REG_DWORD || value.Info.DataLength != sizeof(ULONG)))
        status = STATUS_OBJECT_TYPE_MISMATCH;
#ifndef FIXED
    if (!NT_SUCCESS(status))
        return status;
#endif
    ZwClose(key);
    if (NT_SUCCESS(status))
        RtlCopyMemory(Delay, value.Info.Data, sizeof(ULONG));
    return status;
}

static NTSTATUS CfgStore(PDEVICE Dev, ULONG Delay)
{
    UNICODE_STRING name;
    HANDLE key;
    NTSTATUS status;

    status = IoOpenDeviceRegistryKey(Dev->Fdo.Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_WRITE, &key);
    if (!NT_SUCCESS(status))
        return status;
    RtlInitUnicodeString(&name, L"DelayNs");
    status = ZwSetValueKey(key, &name, 0, REG_DWORD, &Delay, sizeof(Delay));
    ZwClose(key);
    return status;
}

static NTSTATUS HwStart(PFDO F, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated)
{
    PDEVICE dev = CONTAINING_RECORD(F, DEVICE, Fdo);
    ULONG delay;

    UNREFERENCED_PARAMETER(Raw);
    if (!NT_SUCCESS(CfgLoad(dev, &delay)) || delay > CFG_MAX_NS)
        delay = CFG_DEFAULT_NS;
    dev->Delay = delay;
    return HwMapBar(Translated, 0, BENCH_BYTES, &dev->Regs);
}

static VOID HwStop(PFDO F)
{
    HwUnmapBar(&CONTAINING_RECORD(F, DEVICE, Fdo)->Regs);
}

static VOID HwUp(PFDO F)
{
    PDEVICE dev = CONTAINING_RECORD(F, DEVICE, Fdo);

    HwWrite(&dev->Regs, BENCH_DELAY, dev->Delay);
}

static VOID HwDown(PFDO F) { UNREFERENCED_PARAMETER(F); }
static VOID HwFlush(PFDO F) { UNREFERENCED_PARAMETER(F); }

static NTSTATUS CfgSetDelay(PDEVICE Dev, ULONG Delay)
{
    NTSTATUS status;

    if (Delay > CFG_MAX_NS)
        return STATUS_INVALID_PARAMETER;
    status = CfgStore(Dev, Delay);
    if (!NT_SUCCESS(status))
        return status;
    /* In D3 the card gets it when it is back in D0. */
    ExAcquireFastMutex(&Dev->Fdo.Gate);
    Dev->Delay = Delay;
    if (Dev->Fdo.Up)
        HwWrite(&Dev->Regs, BENCH_DELAY, Delay);
    ExReleaseFastMutex(&Dev->Fdo.Gate);
    return STATUS_SUCCESS;
}

static NTSTATUS CfgQuery(PDEVICE Dev, PCFG_REPORT Report)
{
    NTSTATUS status = STATUS_DEVICE_NOT_READY;

    ExAcquireFastMutex(&Dev->Fdo.Gate);
    if (Dev->Fdo.Up) {
        Report->Identification = HwRead(&Dev->Regs, BENCH_IDENTIFICATION);
        Report->Sources = HwRead(&Dev->Regs, BENCH_SOURCES);
        Report->Delay = HwRead(&Dev->Regs, BENCH_DELAY);
        status = Report->Identification == 0xFFFFFFFF ? STATUS_NO_SUCH_DEVICE : STATUS_SUCCESS;
    }
    ExReleaseFastMutex(&Dev->Fdo.Gate);
    return status;
}

static NTSTATUS NTAPI CfgControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDEVICE dev = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG_PTR information = 0;
    NTSTATUS status = IoAcquireRemoveLock(&dev->Fdo.RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return FdoComplete(Irp, status, 0);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CFG_SET_DELAY:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            status = STATUS_BUFFER_TOO_SMALL;
        else
            status = CfgSetDelay(dev, *(PULONG)Irp->AssociatedIrp.SystemBuffer);
        break;
    case IOCTL_CFG_QUERY:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(CFG_REPORT)) {
            status = STATUS_BUFFER_TOO_SMALL;
        } else {
            status = CfgQuery(dev, Irp->AssociatedIrp.SystemBuffer);
            if (NT_SUCCESS(status))
                information = sizeof(CFG_REPORT);
        }
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    FdoComplete(Irp, status, information);
    IoReleaseRemoveLock(&dev->Fdo.RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI CfgAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PFDO f;
    NTSTATUS status = FdoCreate(Driver, Pdo, sizeof(DEVICE), DO_BUFFERED_IO, &CfgInterface, &f);

    if (NT_SUCCESS(status))
        f->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return status;
}

static VOID NTAPI CfgUnload(PDRIVER_OBJECT Driver) { UNREFERENCED_PARAMETER(Driver); }

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FdoTable(Driver);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = CfgControl;
    Driver->DriverExtension->AddDevice = CfgAddDevice;
    Driver->DriverUnload = CfgUnload;
    return STATUS_SUCCESS;
}

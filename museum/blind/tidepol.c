/*
 * tidepol: a make-believe tide pole. A program enters water levels; WMI consumers query the last, lowest
 * and highest of them, and how many there were.
 *
 * The bug: the WMI query writes its data block without comparing its size with the room in the buffer.
 *
 * Device: ROOT\TIDEPOL
 * Rule: bad-pointer, pool-overrun
 * Needs: ioctl
 */
#include "../include/kit_hooks.h"
#include <ddk/wmilib.h>

#ifndef WMIREG_FLAG_INSTANCE_PDO
#define WMIREG_FLAG_INSTANCE_PDO 0x00000020
#endif

static const GUID TideGuid    = { 0x5d0f7a24, 0x2b64, 0x4c1e, { 0x91, 0x3a, 0x10, 0x55, 0x7e, 0x0b, 0x22, 0x04 } };
static const GUID TideWmiGuid = { 0x5d0f7a25, 0x2b64, 0x4c1e, { 0x91, 0x3a, 0x10, 0x55, 0x7e, 0x0b, 0x22, 0x05 } };

#define IOCTL_TIDE_ENTER CTL_CODE(FILE_DEVICE_UNKNOWN, 0x980, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct _TIDE_BLOCK {
    LONG Last, Lowest, Highest;     /* millimetres */
    ULONG Count;
} TIDE_BLOCK;

typedef struct _TIDE {
    KIT Kit;
    WMILIB_CONTEXT WmiLib;
    BOOLEAN Registered;
    KSPIN_LOCK Lock;
    TIDE_BLOCK Block;
} TIDE, *PTIDE;

static UNICODE_STRING TideRegistryPath;
static WMIGUIDREGINFO TideGuids[] = { { &TideWmiGuid, 1, 0 } };

static NTSTATUS NTAPI TideRegInfo(PDEVICE_OBJECT DeviceObject, PULONG RegFlags, PUNICODE_STRING InstanceName, PUNICODE_STRING *RegistryPath, PUNICODE_STRING MofResourceName, PDEVICE_OBJECT *Pdo)
{
    PTIDE tide = DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(InstanceName);
    UNREFERENCED_PARAMETER(MofResourceName);
    *RegFlags = WMIREG_FLAG_INSTANCE_PDO;
    *RegistryPath = &TideRegistryPath;
    *Pdo = tide->Kit.Pdo;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI TideQuery(PDEVICE_OBJECT DeviceObject, PIRP Irp, ULONG GuidIndex, ULONG InstanceIndex, ULONG InstanceCount, PULONG InstanceLengthArray, ULONG BufferAvail, PUCHAR Buffer)
{
    PTIDE tide = DeviceObject->DeviceExtension;
    TIDE_BLOCK block;
    KIRQL irql;

    UNREFERENCED_PARAMETER(GuidIndex);
    if (InstanceIndex != 0 || InstanceCount != 1)
        return WmiCompleteRequest(DeviceObject, Irp, STATUS_WMI_INSTANCE_NOT_FOUND, 0, IO_NO_INCREMENT);
#ifdef FIXED
    if (BufferAvail < sizeof(TIDE_BLOCK))
        return WmiCompleteRequest(DeviceObject, Irp, STATUS_BUFFER_TOO_SMALL, sizeof(TIDE_BLOCK), IO_NO_INCREMENT);
#else
    UNREFERENCED_PARAMETER(BufferAvail);
#endif
    KeAcquireSpinLock(&tide->Lock, &irql);
    block = tide->Block;
    KeReleaseSpinLock(&tide->Lock, irql);
    RtlCopyMemory(Buffer, &block, sizeof(block));
    if (InstanceLengthArray)
        *InstanceLengthArray = sizeof(TIDE_BLOCK);
    return WmiCompleteRequest(DeviceObject, Irp, STATUS_SUCCESS, sizeof(TIDE_BLOCK), IO_NO_INCREMENT);
}

static NTSTATUS NTAPI TideSystemControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PTIDE tide = DeviceObject->DeviceExtension;
    SYSCTL_IRP_DISPOSITION disposition;
    NTSTATUS status = IoAcquireRemoveLock(&tide->Kit.RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return KitRefuse(Irp, status);
    status = WmiSystemControl(&tide->WmiLib, DeviceObject, Irp, &disposition);
    switch (disposition) {
    case IrpProcessed:                  /* has been or will be completed */
        break;
    case IrpNotCompleted:
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        break;
    default:
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(tide->Kit.Lower, Irp);
        break;
    }
    IoReleaseRemoveLock(&tide->Kit.RemoveLock, Irp);
    return status;
}

static NTSTATUS TideStart(PKIT Kit, PIO_STACK_LOCATION Stack)
{
    PTIDE tide = (PTIDE)Kit;

    UNREFERENCED_PARAMETER(Stack);
    /* The pole is of use without WMI, too. */
    if (!tide->Registered && NT_SUCCESS(IoWMIRegistrationControl(Kit->Self, WMIREG_ACTION_REGISTER)))
        tide->Registered = TRUE;
    return STATUS_SUCCESS;
}

static VOID TideRelease(PKIT Kit, BOOLEAN Reachable)
{
    PTIDE tide = (PTIDE)Kit;

    UNREFERENCED_PARAMETER(Reachable);
    if (tide->Registered) {
        tide->Registered = FALSE;
        IoWMIRegistrationControl(Kit->Self, WMIREG_ACTION_DEREGISTER);
    }
}

static VOID TidePrepare(PKIT Kit)
{
    PTIDE tide = (PTIDE)Kit;
    KeInitializeSpinLock(&tide->Lock);
    tide->WmiLib.GuidCount = 1;
    tide->WmiLib.GuidList = TideGuids;
    tide->WmiLib.QueryWmiRegInfo = TideRegInfo;
    tide->WmiLib.QueryWmiDataBlock = TideQuery;
}

static const KIT_HOOKS KitHooks = { sizeof(TIDE), 0, 'ediT', &TideGuid, TidePrepare, TideStart, TideRelease, NULL, NULL, NULL, NULL };

static NTSTATUS NTAPI TideControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PTIDE tide = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    KIRQL irql;
    LONG level;
    NTSTATUS status = IoAcquireRemoveLock(&tide->Kit.RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return KitComplete(Irp, status, 0);
    if (stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_TIDE_ENTER)
        status = STATUS_INVALID_DEVICE_REQUEST;
    else if (stack->Parameters.DeviceIoControl.InputBufferLength != sizeof(LONG))
        status = STATUS_INFO_LENGTH_MISMATCH;
    else {
        level = *(PLONG)Irp->AssociatedIrp.SystemBuffer;
        KeAcquireSpinLock(&tide->Lock, &irql);
        if (tide->Block.Count == 0 || level < tide->Block.Lowest)
            tide->Block.Lowest = level;
        if (tide->Block.Count == 0 || level > tide->Block.Highest)
            tide->Block.Highest = level;
        tide->Block.Last = level;
        if (tide->Block.Count != 0xFFFFFFFF)
            tide->Block.Count++;
        KeReleaseSpinLock(&tide->Lock, irql);
    }
    KitComplete(Irp, status, 0);
    IoReleaseRemoveLock(&tide->Kit.RemoveLock, Irp);
    return status;
}

static VOID NTAPI TideUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
    ExFreePoolWithTag(TideRegistryPath.Buffer, 'ediT');
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    TideRegistryPath.Length = RegistryPath->Length;
    TideRegistryPath.MaximumLength = RegistryPath->Length;
    TideRegistryPath.Buffer = ExAllocatePoolWithTag(PagedPool, RegistryPath->Length + sizeof(WCHAR), 'ediT');
    if (!TideRegistryPath.Buffer)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlCopyMemory(TideRegistryPath.Buffer, RegistryPath->Buffer, RegistryPath->Length);
    KitDriver(DriverObject);
    DriverObject->DriverUnload = TideUnload;
    DriverObject->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = TideSystemControl;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = TideControl;
    return STATUS_SUCCESS;
}

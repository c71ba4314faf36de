/*
 * plxdio.sys - 32-channel digital I/O board (PLX PCI 9052)
 *
 * Output levels and directions are kept in the driver, so that they come back
 * after standby: the board forgets them when it loses power. The driver owns
 * the board's power policy (D0 while the system works, D3 otherwise).
 *
 * The bug: the registers are restored before the request for D0 has gone down to the bus driver.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: card-without-power
 * Needs: power
 */
#include <initguid.h>
#include <ddk/wdm.h>
#include "../include/devkit.h"

#define IOCTL_DIO_SET_DIRECTION CTL_CODE(FILE_DEVICE_UNKNOWN, 0x890, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_DIO_SET_OUTPUTS   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x891, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_DIO_GET_INPUTS    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x892, METHOD_BUFFERED, FILE_READ_ACCESS)

#define LCR_INTCSR              0x4C
#define LCR_LENGTH              0x54
#define DIO_OUTPUTS             0x00
#define DIO_INPUTS              0x04
#define DIO_DIRECTION           0x08        /* 1: output */
#define DIO_LENGTH              0x10

DEFINE_GUID(GUID_PLXDIO, 0x1be0a7c2, 0x43d1, 0x4e70, 0xb2, 0x3b, 0x88, 0x0c, 0x4a, 0x7d, 0x1e, 0x92);

typedef struct _DIO_EXTENSION {
    DEVKIT Kit;
    PUCHAR Lcr;
    PUCHAR Local;
    KSPIN_LOCK Lock;
    BOOLEAN Started;            /* Lock, with all that follows */
    BOOLEAN Powered;
    ULONG Outputs;
    ULONG Direction;
} DIO_EXTENSION, *PDIO_EXTENSION;

DRIVER_INITIALIZE DriverEntry;

static VOID DioWrite(PUCHAR Base, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Base + Offset), Value);
}

/* Lock held, started. Brings the board into the state that is wanted. */
static VOID DioProgram(PDIO_EXTENSION Ext)
{
    DioWrite(Ext->Lcr, LCR_INTCSR, 0);
    DioWrite(Ext->Local, DIO_OUTPUTS, Ext->Outputs);
    DioWrite(Ext->Local, DIO_DIRECTION, Ext->Direction);
}

/* ---- power ---- */

static VOID DioPowerUp(PDIO_EXTENSION Ext)
{
    KIRQL irql;

    KeAcquireSpinLock(&Ext->Lock, &irql);
    if (Ext->Started)
        DioProgram(Ext);
    Ext->Powered = TRUE;
    KeReleaseSpinLock(&Ext->Lock, irql);
}

static VOID DioPowerDown(PDIO_EXTENSION Ext)
{
    KIRQL irql;

    KeAcquireSpinLock(&Ext->Lock, &irql);
    Ext->Powered = FALSE;
    KeReleaseSpinLock(&Ext->Lock, irql);
}

/* The device request made for a system request has been done. */
static VOID NTAPI DioDevicePowerDone(PDEVICE_OBJECT DeviceObject, UCHAR MinorFunction, POWER_STATE State, PVOID Context,
                                     PIO_STATUS_BLOCK IoStatus)
{
    PIRP irp = Context;
    PDIO_EXTENSION ext = IoGetCurrentIrpStackLocation(irp)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(MinorFunction);
    UNREFERENCED_PARAMETER(State);
    PoStartNextPowerIrp(irp);
    irp->IoStatus.Status = IoStatus->Status;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&ext->Kit.RemoveLock, irp);
}

/* The drivers below are done with a system request: now the device. */
static NTSTATUS NTAPI DioSystemPowerDone(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PDIO_EXTENSION ext = DeviceObject->DeviceExtension;
    NTSTATUS status = Irp->IoStatus.Status;
    POWER_STATE state;

    UNREFERENCED_PARAMETER(Context);
    if (NT_SUCCESS(status)) {
        state.DeviceState = sp->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        status = PoRequestPowerIrp(ext->Kit.Pdo, IRP_MN_SET_POWER, state, DioDevicePowerDone, Irp, NULL);
        if (NT_SUCCESS(status))
            return STATUS_MORE_PROCESSING_REQUIRED;
        Irp->IoStatus.Status = status;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&ext->Kit.RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

/* The drivers below are done with a device request to D0. */
static NTSTATUS NTAPI DioD0Done(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PDIO_EXTENSION ext = DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(Context);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
#ifdef FIXED
        DioPowerUp(ext);
#endif
        PoSetPowerState(DeviceObject, DevicePowerState, sp->Parameters.Power.State);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&ext->Kit.RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI DioPower(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PDIO_EXTENSION ext = DeviceObject->DeviceExtension;
    PIO_COMPLETION_ROUTINE done = NULL;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&ext->Kit.RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(Irp);
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }

    if (sp->MinorFunction == IRP_MN_SET_POWER) {
        if (sp->Parameters.Power.Type == SystemPowerState) {
            done = DioSystemPowerDone;
        } else if (sp->Parameters.Power.State.DeviceState == PowerDeviceD0) {
#ifndef FIXED
            DioPowerUp(ext);
#endif
            done = DioD0Done;
        } else {
            DioPowerDown(ext);
            PoSetPowerState(DeviceObject, DevicePowerState, sp->Parameters.Power.State);
        }
    }
    if (done != NULL) {
        /* The lock is released with the request. */
        IoMarkIrpPending(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, done, NULL, TRUE, TRUE, TRUE);
        PoCallDriver(ext->Kit.Lower, Irp);
        return STATUS_PENDING;
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(ext->Kit.Lower, Irp);
    IoReleaseRemoveLock(&ext->Kit.RemoveLock, Irp);
    return status;
}

/* ---- requests ---- */

static NTSTATUS NTAPI DioControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PDIO_EXTENSION ext = DeviceObject->DeviceExtension;
    PULONG buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG_PTR information = 0;
    NTSTATUS status;
    KIRQL irql;

    status = IoAcquireRemoveLock(&ext->Kit.RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return DkComplete(Irp, status, 0);

    KeAcquireSpinLock(&ext->Lock, &irql);
    if (!ext->Started) {
        status = STATUS_DEVICE_NOT_READY;
    } else switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_DIO_SET_DIRECTION:
    case IOCTL_DIO_SET_OUTPUTS:
        if (in < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        if (sp->Parameters.DeviceIoControl.IoControlCode == (ULONG)IOCTL_DIO_SET_OUTPUTS)
            ext->Outputs = *buffer;
        else
            ext->Direction = *buffer;
        /* Without power it is made up for when the power comes back. */
        if (ext->Powered)
            DioProgram(ext);
        break;
    case IOCTL_DIO_GET_INPUTS:
        if (out < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
        } else if (!ext->Powered) {
            status = STATUS_DEVICE_NOT_READY;
        } else {
            *buffer = READ_REGISTER_ULONG((PULONG)(ext->Local + DIO_INPUTS));
            information = sizeof(ULONG);
        }
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    KeReleaseSpinLock(&ext->Lock, irql);

    DkComplete(Irp, status, information);
    IoReleaseRemoveLock(&ext->Kit.RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI DioOpenClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return DkComplete(Irp, STATUS_SUCCESS, 0);
}

/* ---- start and stop ---- */

static VOID DioStop(PDEVICE_OBJECT DeviceObject)
{
    PDIO_EXTENSION ext = DeviceObject->DeviceExtension;
    KIRQL irql;

    KeAcquireSpinLock(&ext->Lock, &irql);
    ext->Started = FALSE;
    KeReleaseSpinLock(&ext->Lock, irql);
    MmUnmapIoSpace(ext->Local, DIO_LENGTH);
    MmUnmapIoSpace(ext->Lcr, LCR_LENGTH);
    ext->Local = ext->Lcr = NULL;
}

static NTSTATUS DioStart(PDEVICE_OBJECT DeviceObject, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    PDIO_EXTENSION ext = DeviceObject->DeviceExtension;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d, bars[2];
    POWER_STATE state;
    ULONG i, n = 0;
    KIRQL irql;

    for (i = 0; i < Resources->Count && n < 2; i++) {
        d = &Resources->PartialDescriptors[i];
        if (d->Type == CmResourceTypeMemory)
            bars[n++] = d;
    }
    if (n < 2 || bars[0]->u.Memory.Length < LCR_LENGTH || bars[1]->u.Memory.Length < DIO_LENGTH)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    ext->Lcr = MmMapIoSpace(bars[0]->u.Memory.Start, LCR_LENGTH, MmNonCached);
    if (ext->Lcr == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    ext->Local = MmMapIoSpace(bars[1]->u.Memory.Start, DIO_LENGTH, MmNonCached);
    if (ext->Local == NULL) {
        MmUnmapIoSpace(ext->Lcr, LCR_LENGTH);
        ext->Lcr = NULL;
        return STATUS_INSUFFICIENT_RESOURCES;
    }

    /* The bus driver has powered the board to start it. */
    KeAcquireSpinLock(&ext->Lock, &irql);
    ext->Started = TRUE;
    ext->Powered = TRUE;
    DioProgram(ext);
    KeReleaseSpinLock(&ext->Lock, irql);
    state.DeviceState = PowerDeviceD0;
    PoSetPowerState(DeviceObject, DevicePowerState, state);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DioAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT PhysicalDeviceObject)
{
    PDEVICE_OBJECT device;
    PDIO_EXTENSION ext;
    NTSTATUS status;

    status = DkAdd(DriverObject, PhysicalDeviceObject, sizeof(DIO_EXTENSION), &GUID_PLXDIO, &device);
    if (!NT_SUCCESS(status))
        return status;
    ext = device->DeviceExtension;
    ext->Kit.Start = DioStart;
    ext->Kit.Stop = DioStop;
    KeInitializeSpinLock(&ext->Lock);
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->MajorFunction[IRP_MJ_CREATE] = DioOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = DioOpenClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DioControl;
    DK_DRIVER(DriverObject, DioAddDevice);
    DriverObject->MajorFunction[IRP_MJ_POWER] = DioPower;
    return STATUS_SUCCESS;
}

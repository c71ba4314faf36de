/*
 * QEMU's educational device as a calculator: one factorial per request, the end of which the card reports by an interrupt.
 *
 * The bug: the bit that has the card interrupt at the end of a computation is set only when the device is started, so after D3 and D0 each request times out.
 * Shows by: a factorial after the device (or the system) was put to sleep and woken.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: request-timed-out
 * Needs: ioctl, power
 */
#include <ddk/wdm.h>
#include "../include/pnp_frame.h"
#include "../include/card_window.h"

#define IOCTL_FACT_COMPUTE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x870, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define EDU_FACTORIAL  0x08
#define EDU_STATUS     0x20
#define EDU_BUSY       0x01
#define EDU_IRQ_ENABLE 0x80
#define EDU_IRQ_STATUS 0x24
#define EDU_IRQ_ACK    0x64
#define EDU_BYTES      0x100

#define FACT_LIMIT_MS 500

static const GUID FactInterface = { 0x2f0a4c11, 0x9d3b, 0x4e6a, { 0x8c, 0x5e, 0x10, 0x42, 0xb7, 0x6f, 0x33, 0xd2 } };

typedef struct _DEVICE {
    FDO Fdo;
    HW_BAR Regs;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    KEVENT Done;
    BOOLEAN IrqOn;              /* the interrupt's lock */
} DEVICE, *PDEVICE;

static DRIVER_DISPATCH FactControl;
static DRIVER_ADD_DEVICE FactAddDevice;
static DRIVER_UNLOAD FactUnload;
static KSERVICE_ROUTINE FactIsr;
static KDEFERRED_ROUTINE FactDpc;
DRIVER_INITIALIZE DriverEntry;

static BOOLEAN NTAPI FactIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PDEVICE dev = Context;
    ULONG causes;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!dev->IrqOn)
        return FALSE;
    causes = HwRead(&dev->Regs, EDU_IRQ_STATUS);
    if (causes == 0 || causes == 0xFFFFFFFF)
        return FALSE;
    HwWrite(&dev->Regs, EDU_IRQ_ACK, causes);
    KeInsertQueueDpc(&dev->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI FactDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PDEVICE dev = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeSetEvent(&dev->Done, IO_NO_INCREMENT, FALSE);
}

static BOOLEAN NTAPI FactIrqOn(PVOID Context)
{
    ((PDEVICE)Context)->IrqOn = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI FactIrqOff(PVOID Context)
{
    PDEVICE dev = Context;

    dev->IrqOn = FALSE;
    HwWrite(&dev->Regs, EDU_STATUS, 0);
    HwWrite(&dev->Regs, EDU_IRQ_ACK, 0xFFFFFFFF);
    return TRUE;
}

static NTSTATUS HwStart(PFDO F, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated)
{
    PDEVICE dev = CONTAINING_RECORD(F, DEVICE, Fdo);
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Raw);
    status = HwMapBar(Translated, 0, EDU_BYTES, &dev->Regs);
    if (!NT_SUCCESS(status))
        return status;
    dev->IrqOn = FALSE;
    status = HwConnect(Translated, FactIsr, dev, &dev->Interrupt);
    if (!NT_SUCCESS(status)) {
        HwUnmapBar(&dev->Regs);
        return status;
    }
#ifndef FIXED
    HwWrite(&dev->Regs, EDU_STATUS, EDU_IRQ_ENABLE);
#endif
    return STATUS_SUCCESS;
}

static VOID HwStop(PFDO F)
{
    PDEVICE dev = CONTAINING_RECORD(F, DEVICE, Fdo);

    IoDisconnectInterrupt(dev->Interrupt);
    dev->Interrupt = NULL;
    KeFlushQueuedDpcs();
    HwUnmapBar(&dev->Regs);
}

static VOID HwUp(PFDO F)
{
    PDEVICE dev = CONTAINING_RECORD(F, DEVICE, Fdo);

    KeSynchronizeExecution(dev->Interrupt, FactIrqOn, dev);
#ifdef FIXED
    HwWrite(&dev->Regs, EDU_STATUS, EDU_IRQ_ENABLE);
#endif
}

static VOID HwDown(PFDO F)
{
    PDEVICE dev = CONTAINING_RECORD(F, DEVICE, Fdo);

    KeSynchronizeExecution(dev->Interrupt, FactIrqOff, dev);
}

static VOID HwFlush(PFDO F) { UNREFERENCED_PARAMETER(F); }

/* Under Gate, in D0 */
static NTSTATUS FactCompute(PDEVICE Dev, PULONG Value)
{
    LARGE_INTEGER limit;
    ULONG status;

    limit.QuadPart = -10000LL * FACT_LIMIT_MS;
    status = HwRead(&Dev->Regs, EDU_STATUS);
    if (status == 0xFFFFFFFF)
        return STATUS_NO_SUCH_DEVICE;
    if (status & EDU_BUSY)
        return STATUS_DEVICE_BUSY;
    KeClearEvent(&Dev->Done);
    HwWrite(&Dev->Regs, EDU_FACTORIAL, *Value);
    do {
        if (KeWaitForSingleObject(&Dev->Done, Executive, KernelMode, FALSE, &limit) == STATUS_TIMEOUT)
            return STATUS_IO_TIMEOUT;
        status = HwRead(&Dev->Regs, EDU_STATUS);
        if (status == 0xFFFFFFFF)
            return STATUS_NO_SUCH_DEVICE;
    } while (status & EDU_BUSY);
    *Value = HwRead(&Dev->Regs, EDU_FACTORIAL);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI FactControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDEVICE dev = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PULONG value = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = IoAcquireRemoveLock(&dev->Fdo.RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return FdoComplete(Irp, status, 0);
    if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_FACT_COMPUTE) {
        status = STATUS_INVALID_DEVICE_REQUEST;
    } else if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) || sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
        status = STATUS_BUFFER_TOO_SMALL;
    } else if (*value > 12) {
        status = STATUS_INVALID_PARAMETER;
    } else {
        ExAcquireFastMutex(&dev->Fdo.Gate);
        status = dev->Fdo.Up ? FactCompute(dev, value) : STATUS_DEVICE_NOT_READY;
        ExReleaseFastMutex(&dev->Fdo.Gate);
    }
    FdoComplete(Irp, status, NT_SUCCESS(status) ? sizeof(ULONG) : 0);
    IoReleaseRemoveLock(&dev->Fdo.RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI FactAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PFDO f;
    PDEVICE dev;
    NTSTATUS status = FdoCreate(Driver, Pdo, sizeof(DEVICE), DO_BUFFERED_IO, &FactInterface, &f);

    if (!NT_SUCCESS(status))
        return status;
    dev = CONTAINING_RECORD(f, DEVICE, Fdo);
    KeInitializeDpc(&dev->Dpc, FactDpc, dev);
    KeInitializeEvent(&dev->Done, SynchronizationEvent, FALSE);
    f->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI FactUnload(PDRIVER_OBJECT Driver) { UNREFERENCED_PARAMETER(Driver); }

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FdoTable(Driver);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = FactControl;
    Driver->DriverExtension->AddDevice = FactAddDevice;
    Driver->DriverUnload = FactUnload;
    return STATUS_SUCCESS;
}

/*
 * eduirq.sys - Asynchronous factorials on the EDU card (QEMU -device edu)
 *
 * IOCTL_FACT_ASYNC starts the factorial unit and completes by interrupt, so
 * that the caller can do something else (overlapped I/O). The unit works on
 * one number at a time; a second caller is refused.
 *
 * The bug: the unit is started before it is noted for which request that is.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: request-forgotten
 * Needs: schedule, device
 */
#include <initguid.h>
#include <ddk/wdm.h>
#include "../include/devkit.h"

#define IOCTL_FACT_ASYNC        ((ULONG)CTL_CODE(FILE_DEVICE_UNKNOWN, 0x870, METHOD_BUFFERED, FILE_ANY_ACCESS))

#define EDU_FACTORIAL           0x08
#define EDU_STATUS              0x20
#define EDU_STATUS_COMPUTING    0x01
#define EDU_STATUS_IRQ          0x80
#define EDU_IRQ_STATUS          0x24
#define EDU_IRQ_ACK             0x64
#define EDU_IRQ_FACTORIAL       0x01
#define EDU_WINDOW              0x100
#define EDU_LARGEST             4096

DEFINE_GUID(GUID_EDUIRQ, 0x5c4e2e05, 0x0a0a, 0x4ab6, 0x91, 0x5c, 0x27, 0x6b, 0x88, 0x1e, 0x7f, 0x60);

typedef struct _IRQ_EXTENSION {
    DEVKIT Kit;
    PUCHAR Registers;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    KSPIN_LOCK Lock;
    BOOLEAN Started;            /* Lock */
    BOOLEAN Busy;               /* Lock: the unit has been started */
    PIRP Current;               /* Lock: who waits for it */
} IRQ_EXTENSION, *PIRQ_EXTENSION;

DRIVER_INITIALIZE DriverEntry;

static ULONG EduRead(PIRQ_EXTENSION Ext, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(Ext->Registers + Offset));
}

static VOID EduWrite(PIRQ_EXTENSION Ext, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Ext->Registers + Offset), Value);
}

static VOID IrqFinish(PIRQ_EXTENSION Ext, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    DkComplete(Irp, Status, Information);
    IoReleaseRemoveLock(&Ext->Kit.RemoveLock, Irp);
}

static VOID NTAPI IrqCancel(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIRQ_EXTENSION ext = DeviceObject->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&ext->Lock, &irql);
    if (ext->Current == Irp)
        ext->Current = NULL;
    KeReleaseSpinLock(&ext->Lock, irql);
    IrqFinish(ext, Irp, STATUS_CANCELLED, 0);
}

/* Lock held. The waiting request, unless it is just being cancelled. */
static PIRP IrqTakeCurrent(PIRQ_EXTENSION Ext)
{
    PIRP irp = Ext->Current;

    if (irp == NULL || IoSetCancelRoutine(irp, NULL) == NULL)
        return NULL;
    Ext->Current = NULL;
    return irp;
}

static BOOLEAN NTAPI IrqIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PIRQ_EXTENSION ext = Context;
    ULONG cause = EduRead(ext, EDU_IRQ_STATUS);

    UNREFERENCED_PARAMETER(Interrupt);
    if (cause == 0 || cause == 0xFFFFFFFF)
        return FALSE;
    EduWrite(ext, EDU_IRQ_ACK, cause);
    if (cause & EDU_IRQ_FACTORIAL)
        KeInsertQueueDpc(&ext->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI IrqDpc(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PIRQ_EXTENSION ext = Context;
    PIRP irp = NULL;
    ULONG result = 0;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);
    KeAcquireSpinLockAtDpcLevel(&ext->Lock);
    if (ext->Started && ext->Busy && !(EduRead(ext, EDU_STATUS) & EDU_STATUS_COMPUTING)) {
        result = EduRead(ext, EDU_FACTORIAL);
        irp = IrqTakeCurrent(ext);
        ext->Busy = FALSE;
    }
    KeReleaseSpinLockFromDpcLevel(&ext->Lock);
    if (irp != NULL) {
        *(PULONG)irp->AssociatedIrp.SystemBuffer = result;
        IrqFinish(ext, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

/* Lock held. Sets the unit to work. */
static VOID IrqStartUnit(PIRQ_EXTENSION Ext, ULONG N)
{
    EduWrite(Ext, EDU_STATUS, EDU_STATUS_IRQ);
    EduWrite(Ext, EDU_FACTORIAL, N);
}

/* Lock held. STATUS_SUCCESS: the unit can be had, and is now ours. */
static NTSTATUS IrqClaimUnit(PIRQ_EXTENSION Ext)
{
    if (!Ext->Started)
        return STATUS_DEVICE_NOT_READY;
    if (Ext->Busy || Ext->Current != NULL || (EduRead(Ext, EDU_STATUS) & EDU_STATUS_COMPUTING))
        return STATUS_DEVICE_BUSY;
    Ext->Busy = TRUE;
    return STATUS_SUCCESS;
}

/* Lock held. STATUS_PENDING: the request waits for the unit. */
static NTSTATUS IrqPend(PIRQ_EXTENSION Ext, PIRP Irp)
{
    /* FsContext is set once the handle has been cleaned up. */
    if (IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext != NULL)
        return STATUS_CANCELLED;
    IoSetCancelRoutine(Irp, IrqCancel);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL)
        return STATUS_CANCELLED;
    IoMarkIrpPending(Irp);
    Ext->Current = Irp;
    return STATUS_PENDING;
}

static NTSTATUS IrqCompute(PIRQ_EXTENSION Ext, PIRP Irp, ULONG N)
{
    NTSTATUS status;
    KIRQL irql;

    KeAcquireSpinLock(&Ext->Lock, &irql);
    status = IrqClaimUnit(Ext);
#ifdef FIXED
    if (NT_SUCCESS(status)) {
        status = IrqPend(Ext, Irp);
        if (status == STATUS_PENDING)
            IrqStartUnit(Ext, N);
        else
            Ext->Busy = FALSE;
    }
    KeReleaseSpinLock(&Ext->Lock, irql);
#else
    if (NT_SUCCESS(status))
        IrqStartUnit(Ext, N);
    KeReleaseSpinLock(&Ext->Lock, irql);
    if (NT_SUCCESS(status)) {
        KeAcquireSpinLock(&Ext->Lock, &irql);
        status = IrqPend(Ext, Irp);
        KeReleaseSpinLock(&Ext->Lock, irql);
    }
#endif
    return status;
}

static NTSTATUS NTAPI IrqControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PIRQ_EXTENSION ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->Kit.RemoveLock, Irp);
    ULONG n;

    if (!NT_SUCCESS(status))
        return DkComplete(Irp, status, 0);
    if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_FACT_ASYNC) {
        status = STATUS_INVALID_DEVICE_REQUEST;
    } else if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) ||
               sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
        status = STATUS_BUFFER_TOO_SMALL;
    } else {
        n = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
        status = n > EDU_LARGEST ? STATUS_INVALID_PARAMETER : IrqCompute(ext, Irp, n);
    }
    if (status != STATUS_PENDING)
        IrqFinish(ext, Irp, status, 0);
    return status;
}

static NTSTATUS NTAPI IrqOpenClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PIRQ_EXTENSION ext = DeviceObject->DeviceExtension;
    PIRP waiter = NULL;
    KIRQL irql;

    if (sp->MajorFunction == IRP_MJ_CLEANUP) {
        KeAcquireSpinLock(&ext->Lock, &irql);
        sp->FileObject->FsContext = ext;
        if (ext->Current != NULL && IoGetCurrentIrpStackLocation(ext->Current)->FileObject == sp->FileObject)
            waiter = IrqTakeCurrent(ext);
        KeReleaseSpinLock(&ext->Lock, irql);
        if (waiter != NULL)
            IrqFinish(ext, waiter, STATUS_CANCELLED, 0);
    }
    return DkComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID IrqStop(PDEVICE_OBJECT DeviceObject)
{
    PIRQ_EXTENSION ext = DeviceObject->DeviceExtension;
    KIRQL irql;
    PIRP irp;

    KeAcquireSpinLock(&ext->Lock, &irql);
    ext->Started = FALSE;
    ext->Busy = FALSE;
    irp = IrqTakeCurrent(ext);
    EduWrite(ext, EDU_STATUS, 0);
    KeReleaseSpinLock(&ext->Lock, irql);

    IoDisconnectInterrupt(ext->Interrupt);
    ext->Interrupt = NULL;
    KeFlushQueuedDpcs();
    MmUnmapIoSpace(ext->Registers, EDU_WINDOW);
    ext->Registers = NULL;
    if (irp != NULL)
        IrqFinish(ext, irp, STATUS_DEVICE_REMOVED, 0);
}

static NTSTATUS IrqStart(PDEVICE_OBJECT DeviceObject, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    PIRQ_EXTENSION ext = DeviceObject->DeviceExtension;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d, bar = NULL, line = NULL;
    NTSTATUS status;
    KIRQL irql;
    ULONG i;

    for (i = 0; i < Resources->Count; i++) {
        d = &Resources->PartialDescriptors[i];
        if (d->Type == CmResourceTypeMemory && bar == NULL)
            bar = d;
        else if (d->Type == CmResourceTypeInterrupt && line == NULL)
            line = d;
    }
    if (bar == NULL || line == NULL || bar->u.Memory.Length < EDU_WINDOW)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    ext->Registers = MmMapIoSpace(bar->u.Memory.Start, EDU_WINDOW, MmNonCached);
    if (ext->Registers == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;

    status = IoConnectInterrupt(&ext->Interrupt, IrqIsr, ext, NULL, line->u.Interrupt.Vector,
                                (KIRQL)line->u.Interrupt.Level, (KIRQL)line->u.Interrupt.Level,
                                line->Flags & CM_RESOURCE_INTERRUPT_LATCHED ? Latched : LevelSensitive,
                                line->ShareDisposition == CmResourceShareShared, line->u.Interrupt.Affinity, FALSE);
    if (!NT_SUCCESS(status)) {
        MmUnmapIoSpace(ext->Registers, EDU_WINDOW);
        ext->Registers = NULL;
        return status;
    }
    KeAcquireSpinLock(&ext->Lock, &irql);
    ext->Started = TRUE;
    KeReleaseSpinLock(&ext->Lock, irql);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI IrqAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT PhysicalDeviceObject)
{
    PDEVICE_OBJECT device;
    PIRQ_EXTENSION ext;
    NTSTATUS status;

    status = DkAdd(DriverObject, PhysicalDeviceObject, sizeof(IRQ_EXTENSION), &GUID_EDUIRQ, &device);
    if (!NT_SUCCESS(status))
        return status;
    ext = device->DeviceExtension;
    ext->Kit.Start = IrqStart;
    ext->Kit.Stop = IrqStop;
    KeInitializeSpinLock(&ext->Lock);
    KeInitializeDpc(&ext->Dpc, IrqDpc, ext);
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->MajorFunction[IRP_MJ_CREATE] = IrqOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = IrqOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = IrqOpenClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = IrqControl;
    DK_DRIVER(DriverObject, IrqAddDevice);
    return STATUS_SUCCESS;
}

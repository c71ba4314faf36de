/*
 * eduretort: one factorial at a time on the edu card, others fail because it is busy; a request that takes
 * longer than a limit is given up.
 *
 * The bug: the time-out DPC looks at the current request under the lock but takes it only later, so that it and the
 * interrupt's DPC may both complete it.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: use-after-free, double-completion
 * Needs: device, schedule
 */
#include "../include/held_core.h"

#define IOCTL_RETORT_COMPUTE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x861, METHOD_BUFFERED, FILE_READ_ACCESS | FILE_WRITE_ACCESS)
#define IOCTL_RETORT_LIMIT   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x862, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef volatile struct _EDU_REGS {
    ULONG Ident, Live, Factorial, Unused1[5];
    ULONG Status, IrqStatus, Unused2[14];
    ULONG Raise, Ack;
} EDU_REGS;

#define EDU_COMPUTING 0x01
#define EDU_IRQ_FACT  0x80
#define LIMIT_DEFAULT 1000
#define LIMIT_MOST    2000

static const GUID InterfaceGuid = { 0x5b1e0c1a, 0x11d0, 0x4b77, { 0x9a, 0x10, 0x2b, 0x66, 0x70, 0x11, 0x01, 0x02 } };

typedef struct _DEV {
    CORE Core;
    EDU_REGS *Regs;
    ULONG Length;
    PKINTERRUPT Interrupt;
    KDPC DoneDpc, LateDpc;
    KTIMER Timer;
    KSPIN_LOCK Lock;
    PIRP Current;               /* under the lock */
    ULONGLONG Deadline;
    volatile LONG Busy;         /* from the acceptance of a request to its end */
    volatile LONG LimitMs;
    BOOLEAN Awake;
} DEV;

static VOID EndRequest(DEV *Dev, PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    InterlockedExchange(&Dev->Busy, 0);
    IoReleaseRemoveLock(&Dev->Core.Lock, Irp);
}

static BOOLEAN NTAPI RetortIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    DEV *dev = Context;
    ULONG irq;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!dev->Awake)
        return FALSE;
    irq = READ_REGISTER_ULONG(&dev->Regs->IrqStatus);
    if (irq == 0 || irq == MAXULONG)
        return FALSE;
    WRITE_REGISTER_ULONG(&dev->Regs->Ack, irq);
    KeInsertQueueDpc(&dev->DoneDpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI RetortDone(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    DEV *dev = Context;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
    KeAcquireSpinLockAtDpcLevel(&dev->Lock);
    if (dev->Current && !(READ_REGISTER_ULONG(&dev->Regs->Status) & EDU_COMPUTING)) {
        irp = dev->Current;
        dev->Current = NULL;
        *(PULONG)irp->AssociatedIrp.SystemBuffer = READ_REGISTER_ULONG(&dev->Regs->Factorial);
        KeCancelTimer(&dev->Timer);
    }
    KeReleaseSpinLockFromDpcLevel(&dev->Lock);
    if (irp)
        EndRequest(dev, irp, STATUS_SUCCESS, sizeof(ULONG));
}

static VOID NTAPI RetortLate(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    DEV *dev = Context;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
    KeAcquireSpinLockAtDpcLevel(&dev->Lock);
    if (dev->Current && KeQueryInterruptTime() >= dev->Deadline) {
        irp = dev->Current;
#ifdef FIXED
        dev->Current = NULL;
#endif
    }
    KeReleaseSpinLockFromDpcLevel(&dev->Lock);
    if (irp) {
#ifndef FIXED
        dev->Current = NULL;
#endif
        EndRequest(dev, irp, STATUS_IO_TIMEOUT, 0);
    }
}

/* Gives the request to the card. It is pending already. */
static VOID Compute(DEV *Dev, PIRP Irp)
{
    NTSTATUS status = STATUS_SUCCESS;
    LARGE_INTEGER due;
    ULONG state;
    KIRQL irql;

    KeAcquireSpinLock(&Dev->Lock, &irql);
    if (Dev->Core.Hold) {
        status = STATUS_DEVICE_NOT_READY;
    } else {
        state = READ_REGISTER_ULONG(&Dev->Regs->Status);
        if (state == MAXULONG)
            status = STATUS_DEVICE_NOT_CONNECTED;
        else if (state & EDU_COMPUTING)     /* one that was given up */
            status = STATUS_DEVICE_BUSY;
    }
    if (NT_SUCCESS(status)) {
        LONG limit = Dev->LimitMs;

        Dev->Current = Irp;
        Dev->Deadline = KeQueryInterruptTime() + (ULONGLONG)(limit - 20) * 10000;
        due.QuadPart = (LONGLONG)limit * -10000;
        KeSetTimer(&Dev->Timer, due, &Dev->LateDpc);
        WRITE_REGISTER_ULONG(&Dev->Regs->Status, EDU_IRQ_FACT);
        WRITE_REGISTER_ULONG(&Dev->Regs->Factorial, *(PULONG)Irp->AssociatedIrp.SystemBuffer);
    }
    KeReleaseSpinLock(&Dev->Lock, irql);
    if (!NT_SUCCESS(status))
        EndRequest(Dev, Irp, status, 0);
}

static NTSTATUS NTAPI RetortControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    PULONG value = Irp->AssociatedIrp.SystemBuffer;
    DEV *dev = Device->DeviceExtension;
    NTSTATUS status = CoreEnter(&dev->Core, Irp);

    if (!NT_SUCCESS(status))
        return status;
    if (stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_RETORT_COMPUTE &&
        stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_RETORT_LIMIT) {
        status = STATUS_INVALID_DEVICE_REQUEST;
    } else if (stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG)) {
        status = STATUS_INVALID_PARAMETER;
    } else if (stack->Parameters.DeviceIoControl.IoControlCode == IOCTL_RETORT_LIMIT) {
        if (*value < 50 || *value > LIMIT_MOST)
            status = STATUS_INVALID_PARAMETER;
        else
            InterlockedExchange(&dev->LimitMs, (LONG)*value);
    } else if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
        status = STATUS_BUFFER_TOO_SMALL;
    } else if (InterlockedCompareExchange(&dev->Busy, 1, 0) != 0) {
        status = STATUS_DEVICE_BUSY;
    } else {
        if (!NT_SUCCESS(IoAcquireRemoveLock(&dev->Core.Lock, stack))) {
            InterlockedExchange(&dev->Busy, 0);
            CoreComplete(&dev->Core, Irp, STATUS_DELETE_PENDING, 0);
            return STATUS_DELETE_PENDING;
        }
        IoMarkIrpPending(Irp);      /* not cancelable: it ends within two seconds */
        Compute(dev, Irp);
        IoReleaseRemoveLock(&dev->Core.Lock, stack);
        return STATUS_PENDING;
    }
    CoreComplete(&dev->Core, Irp, status, 0);
    return status;
}

static VOID HwKick(CORE *Core) { UNREFERENCED_PARAMETER(Core); }

static VOID HwQuiesce(CORE *Core)
{
    DEV *dev = (DEV *)Core;
    LARGE_INTEGER pause = { .QuadPart = -50000 };

    while (InterlockedCompareExchange(&dev->Busy, 0, 0) != 0)
        KeDelayExecutionThread(KernelMode, FALSE, &pause);
}

static VOID HwAbort(CORE *Core)
{
    DEV *dev = (DEV *)Core;
    PIRP irp;
    KIRQL irql;

    KeAcquireSpinLock(&dev->Lock, &irql);
    irp = dev->Current;
    dev->Current = NULL;
    if (irp)
        KeCancelTimer(&dev->Timer);
    KeReleaseSpinLock(&dev->Lock, irql);
    if (irp)
        EndRequest(dev, irp, STATUS_DELETE_PENDING, 0);
}

static NTSTATUS HwStart(CORE *Core, PCM_RESOURCE_LIST Translated)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR bar = CoreResource(Translated, CmResourceTypeMemory, 0);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR irq = CoreResource(Translated, CmResourceTypeInterrupt, 0);
    DEV *dev = (DEV *)Core;
    NTSTATUS status;
    ULONG ident;

    if (!bar || !irq || bar->u.Memory.Length < sizeof(EDU_REGS))
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    dev->Length = bar->u.Memory.Length;
    dev->Regs = MmMapIoSpace(bar->u.Memory.Start, dev->Length, MmNonCached);
    if (!dev->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    ident = READ_REGISTER_ULONG(&dev->Regs->Ident);
    if (ident == MAXULONG || (ident & 0xFF) != 0xED) {
        status = STATUS_NO_SUCH_DEVICE;
    } else {
        WRITE_REGISTER_ULONG(&dev->Regs->Status, 0);
        WRITE_REGISTER_ULONG(&dev->Regs->Ack, MAXULONG);
        dev->Awake = TRUE;
        status = CoreConnect(&dev->Interrupt, RetortIsr, dev, irq);
    }
    if (!NT_SUCCESS(status)) {
        dev->Awake = FALSE;
        dev->Interrupt = NULL;
        MmUnmapIoSpace((PVOID)dev->Regs, dev->Length);
        dev->Regs = NULL;
    }
    return status;
}

static BOOLEAN NTAPI SyncSleep(PVOID Context)
{
    DEV *dev = Context;

    WRITE_REGISTER_ULONG(&dev->Regs->Status, 0);
    WRITE_REGISTER_ULONG(&dev->Regs->Ack, MAXULONG);
    dev->Awake = FALSE;
    return TRUE;
}

static BOOLEAN NTAPI SyncWake(PVOID Context)
{
    DEV *dev = Context;

    WRITE_REGISTER_ULONG(&dev->Regs->Status, 0);
    WRITE_REGISTER_ULONG(&dev->Regs->Ack, MAXULONG);
    dev->Awake = TRUE;
    return TRUE;
}

static VOID HwStop(CORE *Core, BOOLEAN Touch)
{
    DEV *dev = (DEV *)Core;

    if (Touch)
        KeSynchronizeExecution(dev->Interrupt, SyncSleep, dev);
    IoDisconnectInterrupt(dev->Interrupt);
    dev->Interrupt = NULL;
    KeFlushQueuedDpcs();
    MmUnmapIoSpace((PVOID)dev->Regs, dev->Length);
    dev->Regs = NULL;
}

static VOID HwSleep(CORE *Core) { KeSynchronizeExecution(((DEV *)Core)->Interrupt, SyncSleep, Core); }
static VOID HwWake(CORE *Core) { KeSynchronizeExecution(((DEV *)Core)->Interrupt, SyncWake, Core); }

static VOID HwFini(CORE *Core)
{
    KeCancelTimer(&((DEV *)Core)->Timer);
    KeFlushQueuedDpcs();
}

static NTSTATUS NTAPI RetortAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    CORE *core;
    NTSTATUS status = CoreAdd(Driver, Pdo, sizeof(DEV), &InterfaceGuid, &core);

    if (NT_SUCCESS(status)) {
        DEV *dev = (DEV *)core;

        dev->LimitMs = LIMIT_DEFAULT;
        KeInitializeSpinLock(&dev->Lock);
        KeInitializeTimer(&dev->Timer);
        KeInitializeDpc(&dev->DoneDpc, RetortDone, dev);
        KeInitializeDpc(&dev->LateDpc, RetortLate, dev);
        core->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    }
    return status;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    CoreEntry(Driver, RetortAdd);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = RetortControl;
    return STATUS_SUCCESS;
}

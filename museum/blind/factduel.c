/*
 * factduel: computes factorials on QEMU's edu card; requests wait in a queue, one at a time is given to
 * the card, the card's interrupt ends it, or a timer if the card does not answer within a second.
 *
 * The bug: the timer's DPC takes the current request without the lock, so it and the interrupt's DPC can both take it
 * and complete it twice.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: data-race, use-after-free, double-completion
 * Needs: device, schedule
 */
#include "../include/kit_hooks.h"

static const GUID FactGuid = { 0x5d0f7a11, 0x2b64, 0x4c1e, { 0x91, 0x3a, 0x10, 0x55, 0x7e, 0x0b, 0x21, 0x01 } };

#define IOCTL_FACT_COMPUTE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_READ_ACCESS)

#define EDU_LIVE   0x04
#define EDU_FACT   0x08
#define EDU_STATUS 0x20
#define EDU_IRQ    0x24
#define EDU_ACK    0x64
#define EDU_COMPUTING 0x01u
#define EDU_IRQFACT   0x80u

#define TIMEOUT (1 * 10000000LL)

typedef struct _FACT {
    KIT Kit;
    KIT_QUEUE Queue;
    PUCHAR Bar;
    ULONG BarLength;
    PKINTERRUPT Interrupt;
    BOOLEAN Quiet;                  /* guarded by the interrupt's lock: the card is not to be touched */
    KDPC Dpc, TimerDpc;
    KTIMER Timer;
    KSPIN_LOCK Lock;                /* guards the two below */
    PIRP Current;                   /* it is within the gate */
    ULONGLONG Deadline;
} FACT, *PFACT;

#define REG(fact, offset) ((PULONG)((fact)->Bar + (offset)))

static VOID FactKick(PKIT Kit)
{
    PFACT fact = (PFACT)Kit;
    LARGE_INTEGER due;

    for (;;) {
        KIRQL irql;
        PIRP irp;
        ULONG number;

        if (!NT_SUCCESS(KitEnter(Kit)))
            return;                 /* kept until the card is there again */
        KeAcquireSpinLock(&fact->Lock, &irql);
        irp = fact->Current ? NULL : IoCsqRemoveNextIrp(&fact->Queue.Csq, NULL);
        if (!irp) {
            KeReleaseSpinLock(&fact->Lock, irql);
            KitLeave(Kit);
            return;
        }
        if (READ_REGISTER_ULONG(REG(fact, EDU_STATUS)) & EDU_COMPUTING) {
            KeReleaseSpinLock(&fact->Lock, irql);
            KitFinish(Kit, irp, STATUS_DEVICE_BUSY, 0);
            KitLeave(Kit);
            continue;
        }
        number = *(PULONG)irp->AssociatedIrp.SystemBuffer;
        fact->Current = irp;
        fact->Deadline = KeQueryInterruptTime() + TIMEOUT;
        due.QuadPart = -TIMEOUT;
        KeSetTimer(&fact->Timer, due, &fact->TimerDpc);
        WRITE_REGISTER_ULONG(REG(fact, EDU_STATUS), EDU_IRQFACT);
        WRITE_REGISTER_ULONG(REG(fact, EDU_FACT), number);
        KeReleaseSpinLock(&fact->Lock, irql);
        return;
    }
}

static BOOLEAN NTAPI FactIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PFACT fact = Context;
    ULONG irq;

    UNREFERENCED_PARAMETER(Interrupt);
    if (fact->Quiet)
        return FALSE;
    irq = READ_REGISTER_ULONG(REG(fact, EDU_IRQ));
    if (irq == 0 || irq == 0xFFFFFFFF)
        return FALSE;
    WRITE_REGISTER_ULONG(REG(fact, EDU_ACK), irq);
    KeInsertQueueDpc(&fact->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI FactDpc(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PFACT fact = Context;
    PIRP irp = NULL;
    ULONG result = 0;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);
    KeAcquireSpinLockAtDpcLevel(&fact->Lock);
    if (fact->Current && !(READ_REGISTER_ULONG(REG(fact, EDU_STATUS)) & EDU_COMPUTING)) {
        irp = fact->Current;
        fact->Current = NULL;
        result = READ_REGISTER_ULONG(REG(fact, EDU_FACT));
        KeCancelTimer(&fact->Timer);
    }
    KeReleaseSpinLockFromDpcLevel(&fact->Lock);
    if (!irp)
        return;
    *(PULONG)irp->AssociatedIrp.SystemBuffer = result;
    KitFinish(&fact->Kit, irp, STATUS_SUCCESS, sizeof(ULONG));
    KitLeave(&fact->Kit);
    FactKick(&fact->Kit);
}

static VOID NTAPI FactTimerDpc(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PFACT fact = Context;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);
#ifdef FIXED
    KeAcquireSpinLockAtDpcLevel(&fact->Lock);
#endif
    /* The DPC of an earlier request's timer may come late: only one whose time is over. */
    if (fact->Current && KeQueryInterruptTime() >= fact->Deadline) {
        irp = fact->Current;
        fact->Current = NULL;
    }
#ifdef FIXED
    KeReleaseSpinLockFromDpcLevel(&fact->Lock);
#endif
    if (!irp)
        return;
    KitFinish(&fact->Kit, irp, STATUS_IO_TIMEOUT, 0);
    KitLeave(&fact->Kit);
    FactKick(&fact->Kit);
}

/* With the interrupt's lock: no interrupts from the card any more, no more touching it. */
static BOOLEAN NTAPI FactHush(PVOID Context)
{
    PFACT fact = Context;
    ULONG irq;

    fact->Quiet = TRUE;
    irq = READ_REGISTER_ULONG(REG(fact, EDU_IRQ));
    if (irq == 0xFFFFFFFF)
        return TRUE;                /* it is gone */
    WRITE_REGISTER_ULONG(REG(fact, EDU_STATUS), 0);
    if (irq)
        WRITE_REGISTER_ULONG(REG(fact, EDU_ACK), irq);
    return TRUE;
}

static BOOLEAN NTAPI FactQuietOnly(PVOID Context)
{
    ((PFACT)Context)->Quiet = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI FactSpeak(PVOID Context)
{
    PFACT fact = Context;
    ULONG irq = READ_REGISTER_ULONG(REG(fact, EDU_IRQ));

    if (irq)
        WRITE_REGISTER_ULONG(REG(fact, EDU_ACK), irq);
    fact->Quiet = FALSE;
    return TRUE;
}

static VOID FactSleep(PKIT Kit)
{
    PFACT fact = (PFACT)Kit;
    KeSynchronizeExecution(fact->Interrupt, FactHush, fact);
    KeFlushQueuedDpcs();
}

static VOID FactWake(PKIT Kit)
{
    PFACT fact = (PFACT)Kit;
    KeSynchronizeExecution(fact->Interrupt, FactSpeak, fact);
}

static VOID FactRelease(PKIT Kit, BOOLEAN Reachable)
{
    PFACT fact = (PFACT)Kit;

    if (fact->Interrupt) {
        KeSynchronizeExecution(fact->Interrupt, Reachable ? FactHush : FactQuietOnly, fact);
        IoDisconnectInterrupt(fact->Interrupt);
        fact->Interrupt = NULL;
    }
    KeCancelTimer(&fact->Timer);
    KeFlushQueuedDpcs();
    if (fact->Bar) {
        MmUnmapIoSpace(fact->Bar, fact->BarLength);
        fact->Bar = NULL;
    }
}

static NTSTATUS FactStart(PKIT Kit, PIO_STACK_LOCATION Stack)
{
    PFACT fact = (PFACT)Kit;
    KIT_RESOURCES res;
    NTSTATUS status;

    KitResources(Stack, &res);
    if (!res.HasInterrupt || res.Memories == 0 || res.Memory[0].Length < 0x100)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    fact->BarLength = res.Memory[0].Length;
    fact->Bar = MmMapIoSpace(res.Memory[0].Start, fact->BarLength, MmNonCached);
    if (!fact->Bar)
        return STATUS_INSUFFICIENT_RESOURCES;
    WRITE_REGISTER_ULONG(REG(fact, EDU_LIVE), 0x12345678);
    if (READ_REGISTER_ULONG(REG(fact, EDU_LIVE)) != ~0x12345678u) {
        FactRelease(Kit, FALSE);
        return STATUS_DEVICE_NOT_CONNECTED;
    }
    WRITE_REGISTER_ULONG(REG(fact, EDU_STATUS), 0);
    WRITE_REGISTER_ULONG(REG(fact, EDU_ACK), READ_REGISTER_ULONG(REG(fact, EDU_IRQ)));
    fact->Quiet = TRUE;
    status = IoConnectInterrupt(&fact->Interrupt, FactIsr, fact, NULL, res.Vector, res.Level, res.Level, res.Mode, res.Shared, res.Affinity, FALSE);
    if (!NT_SUCCESS(status)) {
        fact->Interrupt = NULL;
        FactRelease(Kit, FALSE);
        return status;
    }
    KeSynchronizeExecution(fact->Interrupt, FactSpeak, fact);
    return STATUS_SUCCESS;
}

static VOID FactPrepare(PKIT Kit)
{
    PFACT fact = (PFACT)Kit;
    KitQueueInit(Kit, &fact->Queue);
    KeInitializeSpinLock(&fact->Lock);
    KeInitializeTimer(&fact->Timer);
    KeInitializeDpc(&fact->Dpc, FactDpc, fact);
    KeInitializeDpc(&fact->TimerDpc, FactTimerDpc, fact);
}

static VOID FactFlush(PKIT Kit)
{
    KitQueueFlush(&((PFACT)Kit)->Queue, NULL, STATUS_DELETE_PENDING);
}

static const KIT_HOOKS KitHooks = { sizeof(FACT), 0, 'tcaF', &FactGuid, FactPrepare, FactStart, FactRelease, FactFlush, FactSleep, FactWake, FactKick };

static NTSTATUS NTAPI FactControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFACT fact = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&fact->Kit.RemoveLock, fact);

    if (!NT_SUCCESS(status))
        return KitComplete(Irp, status, 0);
    if (stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_FACT_COMPUTE)
        status = STATUS_INVALID_DEVICE_REQUEST;
    else if (stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) || stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        status = STATUS_BUFFER_TOO_SMALL;
    else if (*(PULONG)Irp->AssociatedIrp.SystemBuffer > 12)
        status = STATUS_INVALID_PARAMETER;
    else
        status = KitPend(&fact->Kit, &fact->Queue, Irp);
    if (status == STATUS_PENDING)
        FactKick(&fact->Kit);
    else
        KitComplete(Irp, status, 0);
    IoReleaseRemoveLock(&fact->Kit.RemoveLock, fact);
    return status;
}

static NTSTATUS NTAPI FactCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFACT fact = DeviceObject->DeviceExtension;
    KitQueueFlush(&fact->Queue, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return KitComplete(Irp, STATUS_SUCCESS, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    KitDriver(DriverObject);
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = FactControl;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = FactCleanup;
    return STATUS_SUCCESS;
}

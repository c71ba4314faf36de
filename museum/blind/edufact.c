/*
 * edufact: a driver for QEMU's edu card that has the card compute factorials, one after the other.
 *
 * IOCTL_EDUFACT_COMPUTE (0x222004): in { ULONG number, microseconds }, out ULONG factorial (modulo 2^32). Pends until the
 *     card has computed it; after so many microseconds (10 to 60,000,000), waiting for its turn included, it
 *     ends with STATUS_IO_TIMEOUT.
 * IOCTL_EDUFACT_COUNTERS (0x222008): out { ULONG computed, timedOut }
 *
 * Each request has a JOB with a timer of its own. A job is reference-counted: one reference is the queue's (or the
 * card's, while it computes the job), one is the request's, and one is the timer's, which its DPC drops when the timer
 * has expired, and who takes the timer back before that otherwise. So a job whose request has timed out can still be
 * the card's.
 *
 * The bug: FactSettle drops the timer's reference whether KeCancelTimer has taken the timer back or not. If the timer
 * has just expired, so that its DPC is queued or running already, the reference is dropped twice: the DPC works
 * with a job that has been freed. Shows when a request's timer expires in the very moment in which the card's
 * interrupt (or a cancellation) ends it. Consequence: use after free, double free of the job.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: use-after-free, double-free
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>

static const GUID FactGuid = { 0x1f0a7c11, 0x52c1, 0x4b0e, { 0x9a, 0x01, 0x6e, 0x21, 0x70, 0x0c, 0x00, 0x01 } };

#define IOCTL_EDUFACT_COMPUTE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_EDUFACT_COUNTERS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define REGISTERS       0x100
#define FACTORIAL       0x08
#define STATUS          0x20
#define STATUS_BUSY     0x01
#define STATUS_IRQ      0x80
#define INT_STATUS      0x24
#define INT_ACK         0x64

#define TAG             'tcaF'
#define DRAIN_TIME      (2 * 1000 * 10000LL)
#define HOLD_STOPPED 1
#define HOLD_POWER   2
#define HOLD_REMOVE  4

typedef struct _FACT_JOB FACT_JOB;

typedef struct {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    DEVICE_POWER_STATE DevicePower;
    BOOLEAN InterfaceOn;
    volatile UCHAR *Regs;
    SIZE_T RegsLength;
    PKINTERRUPT Interrupt;
    volatile BOOLEAN Up;            /* the interrupt handler may touch the card */
    KDPC Dpc;
    KSPIN_LOCK Lock;                /* everything below, and the jobs' Irp and Link */
    LIST_ENTRY Waiting;             /* jobs */
    FACT_JOB *Active;                  /* the card's */
    ULONG Hold;
    BOOLEAN Dead;
    KEVENT Idle;                    /* the card computes nothing */
    ULONG Computed;
    ULONG TimedOut;
} FACT_EXTENSION;

struct _FACT_JOB {
    LIST_ENTRY Link;                /* of Waiting; else it points to itself */
    LONG References;
    FACT_EXTENSION *Owner;
    PIRP Irp;                       /* NULL as soon as someone has taken it to complete it */
    ULONG Number;
    KTIMER Timer;
    KDPC TimerDpc;
};

typedef struct {
    ULONG Number;
    ULONG Microseconds;
} COMPUTE;

static ULONG FactRead(FACT_EXTENSION *x, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(x->Regs + Offset));
}

static VOID FactWrite(FACT_EXTENSION *x, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->Regs + Offset), Value);
}

static VOID FactFinish(FACT_EXTENSION *x, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&x->RemoveLock, Irp);
}

/* ---- jobs --------------------------------------------------------------------------------- */

static VOID FactPut(FACT_JOB *Job)
{
    if (InterlockedDecrement(&Job->References) == 0)
        ExFreePoolWithTag(Job, TAG);
}

/* Takes a job's request to complete it, unless someone else has, or its cancel routine will. With Lock. */
static PIRP FactClaimLocked(FACT_JOB *Job)
{
    PIRP irp = Job->Irp;

    if (irp == NULL || IoSetCancelRoutine(irp, NULL) == NULL)
        return NULL;
    Job->Irp = NULL;
    return irp;
}

/* Takes a job off the queue: whether it was there, so that the queue's reference is the caller's. With Lock. */
static BOOLEAN FactUnlinkLocked(FACT_JOB *Job)
{
    if (IsListEmpty(&Job->Link))
        return FALSE;
    RemoveEntryList(&Job->Link);
    InitializeListHead(&Job->Link);
    return TRUE;
}

/* The job's request is over: drops its reference, and its timer is not needed any more. */
static VOID FactSettle(FACT_JOB *Job)
{
#ifdef FIXED
    if (KeCancelTimer(&Job->Timer))
        FactPut(Job);
#else
    KeCancelTimer(&Job->Timer);
    FactPut(Job);
#endif
    FactPut(Job);
}

/* Gives the card its next job. With Lock. */
static VOID FactNextLocked(FACT_EXTENSION *x)
{
    FACT_JOB *job;

    if (x->Active != NULL || x->Hold != 0 || x->Dead || IsListEmpty(&x->Waiting))
        return;
    job = CONTAINING_RECORD(x->Waiting.Flink, FACT_JOB, Link);
    FactUnlinkLocked(job);
    x->Active = job;
    KeClearEvent(&x->Idle);
    FactWrite(x, FACTORIAL, job->Number);
}

/* The card has no job any more; the card's reference is the caller's. With Lock. */
static FACT_JOB *FactTakeActiveLocked(FACT_EXTENSION *x)
{
    FACT_JOB *job = x->Active;

    x->Active = NULL;
    KeSetEvent(&x->Idle, IO_NO_INCREMENT, FALSE);
    return job;
}

static VOID NTAPI FactTimerDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    FACT_JOB *job = Context;
    FACT_EXTENSION *x = job->Owner;
    BOOLEAN queued = FALSE;
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&x->Lock);
    irp = FactClaimLocked(job);
    if (irp != NULL) {
        queued = FactUnlinkLocked(job);
        x->TimedOut++;
    }
    KeReleaseSpinLockFromDpcLevel(&x->Lock);
    if (queued)
        FactPut(job);
    if (irp != NULL)
        FactPut(job);
    FactPut(job);
    if (irp != NULL)
        FactFinish(x, irp, STATUS_IO_TIMEOUT, 0);
}

static VOID NTAPI FactCancel(PDEVICE_OBJECT Device, PIRP Irp)
{
    FACT_EXTENSION *x = Device->DeviceExtension;
    FACT_JOB *job = Irp->Tail.Overlay.DriverContext[0];
    BOOLEAN queued;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&x->Lock, &irql);
    job->Irp = NULL;
    queued = FactUnlinkLocked(job);
    KeReleaseSpinLock(&x->Lock, irql);
    FactSettle(job);
    if (queued)
        FactPut(job);
    FactFinish(x, Irp, STATUS_CANCELLED, 0);
}

/* Ends the requests of a handle (or all) that wait for their turn. */
static VOID FactEndWaiting(FACT_EXTENSION *x, PFILE_OBJECT File, NTSTATUS Status)
{
    for (;;) {
        FACT_JOB *found = NULL;
        PIRP irp = NULL;
        PLIST_ENTRY e;
        KIRQL irql;

        KeAcquireSpinLock(&x->Lock, &irql);
        for (e = x->Waiting.Flink; e != &x->Waiting; e = e->Flink) {
            FACT_JOB *job = CONTAINING_RECORD(e, FACT_JOB, Link);

            if (job->Irp == NULL ||
                (File != NULL && IoGetCurrentIrpStackLocation(job->Irp)->FileObject != File))
                continue;
            irp = FactClaimLocked(job);
            if (irp != NULL) {
                FactUnlinkLocked(job);
                found = job;
                break;
            }
        }
        KeReleaseSpinLock(&x->Lock, irql);
        if (found == NULL)
            return;
        FactSettle(found);
        FactPut(found);
        FactFinish(x, irp, Status, 0);
    }
}

/* ---- holding ------------------------------------------------------------------------------ */

/* Waits for the card to end its job; one that does not is given up. */
static VOID FactDrain(FACT_EXTENSION *x)
{
    LARGE_INTEGER time;
    FACT_JOB *job;
    PIRP irp = NULL;
    KIRQL irql;

    time.QuadPart = -DRAIN_TIME;
    if (KeWaitForSingleObject(&x->Idle, Executive, KernelMode, FALSE, &time) == STATUS_SUCCESS)
        return;
    KeAcquireSpinLock(&x->Lock, &irql);
    job = FactTakeActiveLocked(x);
    if (job != NULL)
        irp = FactClaimLocked(job);
    KeReleaseSpinLock(&x->Lock, irql);
    if (irp != NULL) {
        FactSettle(job);
        FactFinish(x, irp, STATUS_IO_DEVICE_ERROR, 0);
    }
    if (job != NULL)
        FactPut(job);
}

static VOID FactHold(FACT_EXTENSION *x, ULONG Why)
{
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    x->Hold |= Why;
    KeReleaseSpinLock(&x->Lock, irql);
    FactDrain(x);
}

static VOID FactResume(FACT_EXTENSION *x, ULONG Why)
{
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    x->Hold &= ~Why;
    FactNextLocked(x);
    KeReleaseSpinLock(&x->Lock, irql);
}

static VOID FactKill(FACT_EXTENSION *x)
{
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    x->Dead = TRUE;
    KeReleaseSpinLock(&x->Lock, irql);
    FactDrain(x);
    FactEndWaiting(x, NULL, STATUS_NO_SUCH_DEVICE);
}

/* ---- interrupts --------------------------------------------------------------------------- */

static BOOLEAN NTAPI FactIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    FACT_EXTENSION *x = Context;
    ULONG bits;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!x->Up)
        return FALSE;
    bits = FactRead(x, INT_STATUS);
    if (bits == 0 || bits == 0xffffffff)
        return FALSE;
    FactWrite(x, INT_ACK, bits);
    KeInsertQueueDpc(&x->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI FactDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    FACT_EXTENSION *x = Context;
    FACT_JOB *job = NULL;
    PIRP irp = NULL;
    ULONG result = 0;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&x->Lock);
    if (x->Up && x->Active != NULL && !(FactRead(x, STATUS) & STATUS_BUSY)) {
        result = FactRead(x, FACTORIAL);
        job = FactTakeActiveLocked(x);
        irp = FactClaimLocked(job);
        if (irp != NULL)
            x->Computed++;
        FactNextLocked(x);
    }
    KeReleaseSpinLockFromDpcLevel(&x->Lock);
    if (irp != NULL) {
        FactSettle(job);
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = result;
        FactFinish(x, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    if (job != NULL)
        FactPut(job);
}

static BOOLEAN NTAPI FactDownSynchronized(PVOID Context)
{
    FACT_EXTENSION *x = Context;

    x->Up = FALSE;
    FactWrite(x, STATUS, 0);
    FactWrite(x, INT_ACK, 0xffffffff);
    return TRUE;
}

static VOID FactCardDown(FACT_EXTENSION *x)
{
    KeSynchronizeExecution(x->Interrupt, FactDownSynchronized, x);
}

static BOOLEAN NTAPI FactUpSynchronized(PVOID Context)
{
    FACT_EXTENSION *x = Context;

    FactWrite(x, INT_ACK, 0xffffffff);
    FactWrite(x, STATUS, STATUS_IRQ);
    x->Up = TRUE;
    return TRUE;
}

static VOID FactCardUp(FACT_EXTENSION *x)
{
    KeSynchronizeExecution(x->Interrupt, FactUpSynchronized, x);
}

/* ---- requests ----------------------------------------------------------------------------- */

static NTSTATUS FactCompute(FACT_EXTENSION *x, PIRP Irp, COMPUTE *Compute)
{
    FACT_JOB *job;
    LARGE_INTEGER due;
    BOOLEAN refused = FALSE;
    KIRQL irql;

    if (Compute->Microseconds < 10 || Compute->Microseconds > 60000000)
        return STATUS_INVALID_PARAMETER;
    job = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof *job, TAG);
    if (job == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    InitializeListHead(&job->Link);
    job->References = 3;            /* the queue's, the request's and the timer's */
    job->Owner = x;
    job->Irp = Irp;
    job->Number = Compute->Number;
    KeInitializeTimer(&job->Timer);
    KeInitializeDpc(&job->TimerDpc, FactTimerDpc, job);
    due.QuadPart = -10LL * Compute->Microseconds;
    Irp->Tail.Overlay.DriverContext[0] = job;

    KeAcquireSpinLock(&x->Lock, &irql);
    if (x->Dead) {
        KeReleaseSpinLock(&x->Lock, irql);
        ExFreePoolWithTag(job, TAG);
        return STATUS_NO_SUCH_DEVICE;
    }
    IoMarkIrpPending(Irp);
    IoSetCancelRoutine(Irp, FactCancel);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
        refused = TRUE;
    } else {
        KeSetTimer(&job->Timer, due, &job->TimerDpc);
        InsertTailList(&x->Waiting, &job->Link);
        FactNextLocked(x);
    }
    KeReleaseSpinLock(&x->Lock, irql);
    if (refused) {
        ExFreePoolWithTag(job, TAG);
        FactFinish(x, Irp, STATUS_CANCELLED, 0);
    }
    return STATUS_PENDING;
}

static NTSTATUS NTAPI FactCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    FACT_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&x->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        Irp->IoStatus.Information = 0;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    FactFinish(x, Irp, STATUS_SUCCESS, 0);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI FactCleanupFile(PDEVICE_OBJECT Device, PIRP Irp)
{
    FactEndWaiting(Device->DeviceExtension, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI FactClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI FactControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    FACT_EXTENSION *x = Device->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = stack->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG *data = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR information = 0;
    NTSTATUS status = IoAcquireRemoveLock(&x->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        Irp->IoStatus.Information = 0;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_EDUFACT_COMPUTE:
        if (in < sizeof(COMPUTE) || out < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        status = FactCompute(x, Irp, (COMPUTE *)data);
        if (status == STATUS_PENDING)
            return status;
        break;

    case IOCTL_EDUFACT_COUNTERS:
        if (out < 2 * sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        data[0] = x->Computed;
        data[1] = x->TimedOut;
        information = 2 * sizeof(ULONG);
        break;

    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    FactFinish(x, Irp, status, information);
    return status;
}

/* ---- the device's memory ------------------------------------------------------------------ */

static NTSTATUS FactInit(FACT_EXTENSION *x)
{
    KeInitializeDpc(&x->Dpc, FactDpc, x);
    KeInitializeSpinLock(&x->Lock);
    InitializeListHead(&x->Waiting);
    KeInitializeEvent(&x->Idle, NotificationEvent, TRUE);
    x->Hold = HOLD_STOPPED;
    return STATUS_SUCCESS;
}

static NTSTATUS FactPrepare(FACT_EXTENSION *x)
{
    UNREFERENCED_PARAMETER(x);
    return STATUS_SUCCESS;
}

/* No request is left; the timers' last DPCs may still be on their way. */
static VOID FactCleanup(FACT_EXTENSION *x)
{
    UNREFERENCED_PARAMETER(x);
    KeFlushQueuedDpcs();
}

/* ---- Plug and Play ---------------------------------------------------------------------- */

static NTSTATUS FactConnect(FACT_EXTENSION *x, PCM_PARTIAL_RESOURCE_DESCRIPTOR Line)
{
    return IoConnectInterrupt(&x->Interrupt, FactIsr, x, NULL, Line->u.Interrupt.Vector, (KIRQL)Line->u.Interrupt.Level,
                              (KIRQL)Line->u.Interrupt.Level,
                              (Line->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive,
                              Line->ShareDisposition == CmResourceShareShared, Line->u.Interrupt.Affinity, FALSE);
}

static VOID FactDisconnect(FACT_EXTENSION *x)
{
    if (x->Interrupt != NULL) {
        IoDisconnectInterrupt(x->Interrupt);
        x->Interrupt = NULL;
    }
}

static VOID FactReleaseHardware(FACT_EXTENSION *x)
{
    if (x->Regs != NULL && x->DevicePower == PowerDeviceD0)
        FactCardDown(x);
    FactDisconnect(x);
    KeFlushQueuedDpcs();
    if (x->Regs != NULL) {
        MmUnmapIoSpace((PVOID)x->Regs, x->RegsLength);
        x->Regs = NULL;
    }
}

static NTSTATUS FactStartDevice(FACT_EXTENSION *x, PCM_RESOURCE_LIST List)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR memory = NULL, line = NULL;
    PCM_PARTIAL_RESOURCE_LIST list;
    NTSTATUS status;
    ULONG i;

    if (List == NULL || List->Count == 0)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    list = &List->List[0].PartialResourceList;
    for (i = 0; i < list->Count; i++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR d = &list->PartialDescriptors[i];

        if (d->Type == CmResourceTypeMemory && memory == NULL)
            memory = d;
        if (d->Type == CmResourceTypeInterrupt && line == NULL)
            line = d;
    }
    if (memory == NULL || memory->u.Memory.Length < REGISTERS || line == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    x->RegsLength = memory->u.Memory.Length;
    x->Regs = MmMapIoSpace(memory->u.Memory.Start, x->RegsLength, MmNonCached);
    if (x->Regs == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    status = FactPrepare(x);
    if (NT_SUCCESS(status))
        status = FactConnect(x, line);
    if (!NT_SUCCESS(status)) {
        MmUnmapIoSpace((PVOID)x->Regs, x->RegsLength);
        x->Regs = NULL;
        return status;
    }
    x->DevicePower = PowerDeviceD0;
    FactCardUp(x);
    return STATUS_SUCCESS;
}

static VOID FactInterfaceOff(FACT_EXTENSION *x)
{
    if (x->InterfaceOn) {
        IoSetDeviceInterfaceState(&x->Interface, FALSE);
        x->InterfaceOn = FALSE;
    }
}

static NTSTATUS NTAPI FactPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    FACT_EXTENSION *x = Device->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&x->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    switch (stack->MinorFunction) {
    case IRP_MN_START_DEVICE:
        IoForwardIrpSynchronously(x->Lower, Irp);
        status = Irp->IoStatus.Status;
        if (NT_SUCCESS(status))
            status = FactStartDevice(x, stack->Parameters.StartDevice.AllocatedResourcesTranslated);
        if (NT_SUCCESS(status)) {
            FactResume(x, HOLD_STOPPED | HOLD_POWER);
            if (!x->InterfaceOn && NT_SUCCESS(IoSetDeviceInterfaceState(&x->Interface, TRUE)))
                x->InterfaceOn = TRUE;
        }
        FactFinish(x, Irp, status, 0);
        return status;

    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        IoForwardIrpSynchronously(x->Lower, Irp);
        FactResume(x, stack->MinorFunction == IRP_MN_CANCEL_STOP_DEVICE && x->Regs != NULL ? HOLD_STOPPED :
                   stack->MinorFunction == IRP_MN_CANCEL_REMOVE_DEVICE ? HOLD_REMOVE : 0);
        FactFinish(x, Irp, STATUS_SUCCESS, 0);
        return STATUS_SUCCESS;

    case IRP_MN_QUERY_STOP_DEVICE:
        FactHold(x, HOLD_STOPPED);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_STOP_DEVICE:
        FactHold(x, HOLD_STOPPED);
        FactReleaseHardware(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_QUERY_REMOVE_DEVICE:
        FactHold(x, HOLD_REMOVE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_SURPRISE_REMOVAL:
        FactInterfaceOff(x);
        FactKill(x);
        FactReleaseHardware(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_REMOVE_DEVICE:
        FactInterfaceOff(x);
        FactKill(x);
        FactReleaseHardware(x);
        IoReleaseRemoveLockAndWait(&x->RemoveLock, Irp);
        FactCleanup(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(x->Lower, Irp);
        IoDetachDevice(x->Lower);
        RtlFreeUnicodeString(&x->Interface);
        IoDeleteDevice(Device);
        return status;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(x->Lower, Irp);
    IoReleaseRemoveLock(&x->RemoveLock, Irp);
    return status;
}

/* ---- power: this driver owns the device's power policy ----------------------------------- */

static VOID NTAPI FactDevicePowerDone(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context,
                                   PIO_STATUS_BLOCK IoStatus)
{
    PIRP irp = Context;
    FACT_EXTENSION *x = IoGetCurrentIrpStackLocation(irp)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(State);
    FactFinish(x, irp, Minor == IRP_MN_QUERY_POWER ? IoStatus->Status : STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI FactSystemPowerDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    FACT_EXTENSION *x = Context;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = Irp->IoStatus.Status;
    POWER_STATE state;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(status)) {
        state.DeviceState = stack->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0
                                                                                            : PowerDeviceD3;
        status = PoRequestPowerIrp(x->Pdo, stack->MinorFunction, state, FactDevicePowerDone, Irp, NULL);
        if (NT_SUCCESS(status))
            return STATUS_MORE_PROCESSING_REQUIRED;
        Irp->IoStatus.Status = status;
    }
    IoReleaseRemoveLock(&x->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI FactPowerUpDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    FACT_EXTENSION *x = Context;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        x->DevicePower = PowerDeviceD0;
        if (x->Regs != NULL)
            FactCardUp(x);
        PoSetPowerState(x->Self, DevicePowerState, stack->Parameters.Power.State);
        FactResume(x, HOLD_POWER);
    }
    IoReleaseRemoveLock(&x->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI FactPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    FACT_EXTENSION *x = Device->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&x->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    if (stack->MinorFunction == IRP_MN_SET_POWER || stack->MinorFunction == IRP_MN_QUERY_POWER) {
        if (stack->Parameters.Power.Type == SystemPowerState) {
            IoMarkIrpPending(Irp);
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, FactSystemPowerDone, x, TRUE, TRUE, TRUE);
            IoCallDriver(x->Lower, Irp);
            return STATUS_PENDING;
        }
        if (stack->MinorFunction == IRP_MN_SET_POWER) {
            if (stack->Parameters.Power.State.DeviceState == PowerDeviceD0) {
                IoMarkIrpPending(Irp);
                IoCopyCurrentIrpStackLocationToNext(Irp);
                IoSetCompletionRoutine(Irp, FactPowerUpDone, x, TRUE, TRUE, TRUE);
                IoCallDriver(x->Lower, Irp);
                return STATUS_PENDING;
            }
            FactHold(x, HOLD_POWER);
            if (x->DevicePower == PowerDeviceD0 && x->Regs != NULL)
                FactCardDown(x);
            x->DevicePower = stack->Parameters.Power.State.DeviceState;
            PoSetPowerState(x->Self, DevicePowerState, stack->Parameters.Power.State);
            Irp->IoStatus.Status = STATUS_SUCCESS;
        }
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(x->Lower, Irp);
    IoReleaseRemoveLock(&x->RemoveLock, Irp);
    return status;
}

/* ---- the driver ------------------------------------------------------------------------- */

static NTSTATUS NTAPI FactSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    FACT_EXTENSION *x = Device->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&x->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(x->Lower, Irp);
    IoReleaseRemoveLock(&x->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI FactAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT device;
    FACT_EXTENSION *x;
    NTSTATUS status;

    status = IoCreateDevice(Driver, sizeof *x, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    x = device->DeviceExtension;
    RtlZeroMemory(x, sizeof *x);
    x->Self = device;
    x->Pdo = Pdo;
    x->DevicePower = PowerDeviceD3;
    IoInitializeRemoveLock(&x->RemoveLock, 'tcaF', 0, 0);
    status = FactInit(x);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    status = IoRegisterDeviceInterface(Pdo, &FactGuid, NULL, &x->Interface);
    if (!NT_SUCCESS(status)) {
        FactCleanup(x);
        IoDeleteDevice(device);
        return status;
    }
    x->Lower = IoAttachDeviceToDeviceStack(device, Pdo);
    if (x->Lower == NULL) {
        RtlFreeUnicodeString(&x->Interface);
        FactCleanup(x);
        IoDeleteDevice(device);
        return STATUS_NO_SUCH_DEVICE;
    }
    device->Flags |= DO_POWER_PAGABLE;
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI FactUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->DriverExtension->AddDevice = FactAddDevice;
    Driver->DriverUnload = FactUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = FactCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = FactCleanupFile;
    Driver->MajorFunction[IRP_MJ_CLOSE] = FactClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = FactControl;
    Driver->MajorFunction[IRP_MJ_PNP] = FactPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = FactPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = FactSystemControl;
    return STATUS_SUCCESS;
}

/*
 * kiln.c - has the card bake factorials.
 *
 * A BAKE request gives a number and gets its factorial (modulo 2^32).  Requests
 * are queued, one at a time is with the card, which interrupts when it is done.
 * With POLITE the end is looked for by a timer, for machines whose interrupt
 * line is not to be had.  USAGE tells how often the card was used by a handle.
 *
 * The bug: what was written last to the control register is remembered beyond D3, so that interrupts are not
 * enabled again when the power is back.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: request-timed-out
 * Needs: power
 */
#include <initguid.h>
#include <ddk/wdm.h>

typedef struct EXT EXT;

enum { NEW_DEVICE, RUNNING, HALTED, PULLED, DELETED };

typedef struct {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    IO_REMOVE_LOCK Remove;
    UNICODE_STRING Link;
    volatile LONG State;
} BASE;

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, NT_SUCCESS(Status) ? IO_NO_INCREMENT + 1 : IO_NO_INCREMENT);
    return Status;
}

DEFINE_GUID(INTERFACE_GUID, 0x7a1e0007, 0x51b2, 0x4f1d, 0x9c, 0x11, 0x20, 0x31, 0x42, 0x53, 0x64, 0x75);

#define POOL_TAG 'nliK'
#define DEVICE_IO DO_BUFFERED_IO

#define IOCTL_BAKE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x850, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_POLITE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x851, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_USAGE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x852, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define EDU_ID 0x00
#define EDU_FACTORIAL 0x08
#define EDU_STATUS 0x20
#define EDU_STATUS_BUSY 0x01
#define EDU_STATUS_IRQ 0x80
#define EDU_CAUSES 0x24
#define EDU_ACK 0x64
#define EDU_CAUSE_FACTORIAL 0x01

enum { HOLD_NEW = 1, HOLD_STOP = 2, HOLD_POWER = 4, HOLD_GONE = 8 };

typedef struct {
    KSPIN_LOCK Lock;   /* Holds, Busy, Active, Deadline; taken before QueueLock */
    ULONG Holds;       /* why no request may be started now */
    BOOLEAN Busy;      /* one is with the device, or on its way back */
    PIRP Active;       /* it, until it is taken to be ended */
    ULONGLONG Deadline;
    KEVENT Idle;
    KTIMER Timer;
    KDPC TimerDpc;
    IO_CSQ Queue;
    KSPIN_LOCK QueueLock;
    LIST_ENTRY List;
    PUCHAR Regs;
    ULONG RegsLength;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    volatile BOOLEAN Answering; /* in D0: registers may be looked at */
} HW;

typedef struct {
    ULONG Baked;
    ULONG Failed;
} USAGE;

struct EXT {
    BASE B;
    HW H;
    DEVICE_POWER_STATE Power;
    BOOLEAN Polite;       /* asked for; counts from the next request on */
    ULONG Control;        /* what EDU_STATUS was written last */
    volatile LONG Causes; /* that the DPC has not seen yet */
};

static VOID HwBegin(EXT *x, PIRP Irp);
static VOID HwTimeout(EXT *x, PIRP Irp);
static KDEFERRED_ROUTINE OnDpc;

static ULONG Read(EXT *x, ULONG Register)
{
    return READ_REGISTER_ULONG((PULONG)(x->H.Regs + Register));
}

static VOID Write(EXT *x, ULONG Register, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->H.Regs + Register), Value);
}

/* ---- the queue: one request at a time is with the device ------------------------ */

static VOID NTAPI QueueInsert(PIO_CSQ Csq, PIRP Irp)
{
    InsertTailList(&CONTAINING_RECORD(Csq, EXT, H.Queue)->H.List, &Irp->Tail.Overlay.ListEntry);
}

static VOID NTAPI QueueRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI QueuePeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    EXT *x = CONTAINING_RECORD(Csq, EXT, H.Queue);
    PLIST_ENTRY e = Irp ? Irp->Tail.Overlay.ListEntry.Flink : x->H.List.Flink;

    for (; e != &x->H.List; e = e->Flink) {
        PIRP Next = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (Context == NULL || IoGetCurrentIrpStackLocation(Next)->FileObject == Context)
            return Next;
    }
    return NULL;
}

static VOID NTAPI QueueLock(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, EXT, H.Queue)->H.QueueLock, Irql);
}

static VOID NTAPI QueueUnlock(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, EXT, H.Queue)->H.QueueLock, Irql);
}

static VOID NTAPI QueueCancelled(PIO_CSQ Csq, PIRP Irp)
{
    EXT *x = CONTAINING_RECORD(Csq, EXT, H.Queue);

    Finish(Irp, STATUS_CANCELLED, 0);
    IoReleaseRemoveLock(&x->B.Remove, Irp);
}

static VOID Flush(EXT *x, PVOID File, NTSTATUS Status)
{
    PIRP Irp;

    while ((Irp = IoCsqRemoveNextIrp(&x->H.Queue, File)) != NULL) {
        Finish(Irp, Status, 0);
        IoReleaseRemoveLock(&x->B.Remove, Irp);
    }
}

static VOID Kick(EXT *x)
{
    BOOLEAN IsLate;
    KIRQL Irql;
    PIRP Irp;

    do {
        KeAcquireSpinLock(&x->H.Lock, &Irql);
        Irp = x->H.Holds == 0 && !x->H.Busy ? IoCsqRemoveNextIrp(&x->H.Queue, NULL) : NULL;
        /* Still at one that was given up, or gone. */
        IsLate = Irp != NULL && (Read(x, EDU_STATUS) & EDU_STATUS_BUSY);
        if (Irp != NULL && !IsLate) {
            x->H.Busy = TRUE;
            x->H.Active = Irp;
            KeClearEvent(&x->H.Idle);
            HwBegin(x, Irp);
        }
        KeReleaseSpinLock(&x->H.Lock, Irql);
        if (IsLate) {
            Finish(Irp, STATUS_DEVICE_BUSY, 0);
            IoReleaseRemoveLock(&x->B.Remove, Irp);
        }
    } while (IsLate);
}

/* Who gets the active request has to end it. */
static PIRP TakeActive(EXT *x)
{
    KIRQL Irql;
    PIRP Irp;

    KeAcquireSpinLock(&x->H.Lock, &Irql);
    Irp = x->H.Active;
    x->H.Active = NULL;
    KeReleaseSpinLock(&x->H.Lock, Irql);
    return Irp;
}

static VOID EndActive(EXT *x, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    KIRQL Irql;

    KeCancelTimer(&x->H.Timer);
    Finish(Irp, Status, Information);
    KeAcquireSpinLock(&x->H.Lock, &Irql);
    x->H.Busy = FALSE;
    KeSetEvent(&x->H.Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&x->H.Lock, Irql);
    Kick(x);
    IoReleaseRemoveLock(&x->B.Remove, Irp);
}

/* With the lock held. */
static VOID SetWatchdog(EXT *x, ULONG Milliseconds)
{
    LARGE_INTEGER Due;

    Due.QuadPart = -10000LL * Milliseconds;
    x->H.Deadline = KeQueryInterruptTime() + 10000ULL * Milliseconds;
    KeSetTimer(&x->H.Timer, Due, &x->H.TimerDpc);
}

static VOID NTAPI OnWatchdog(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    EXT *x = Context;
    PIRP Irp = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&x->H.Lock);
    /* It may be late, and the next request be with the device. */
    if (KeQueryInterruptTime() + 10000 >= x->H.Deadline) {
        Irp = x->H.Active;
        x->H.Active = NULL;
    }
    KeReleaseSpinLockFromDpcLevel(&x->H.Lock);
    if (Irp != NULL)
        HwTimeout(x, Irp);
}

static VOID Hold(EXT *x, ULONG Reason)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->H.Lock, &Irql);
    x->H.Holds |= Reason;
    KeReleaseSpinLock(&x->H.Lock, Irql);
}

/* At PASSIVE_LEVEL: each request ends within its watchdog's time. */
static VOID HoldAndWait(EXT *x, ULONG Reason)
{
    Hold(x, Reason);
    KeWaitForSingleObject(&x->H.Idle, Executive, KernelMode, FALSE, NULL);
}

static VOID Release(EXT *x, ULONG Reasons)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->H.Lock, &Irql);
    x->H.Holds &= ~Reasons;
    KeReleaseSpinLock(&x->H.Lock, Irql);
    Kick(x);
}

/* Queues a request that has a remove lock. */
static NTSTATUS Enqueue(EXT *x, PIRP Irp)
{
    NTSTATUS Status = IoAcquireRemoveLock(&x->B.Remove, Enqueue);

    if (!NT_SUCCESS(Status)) {
        Finish(Irp, Status, 0);
        IoReleaseRemoveLock(&x->B.Remove, Irp);
        return Status;
    }
    IoCsqInsertIrp(&x->H.Queue, Irp, NULL);
    Kick(x);
    if (x->H.Holds & HOLD_GONE)
        Flush(x, NULL, STATUS_DEVICE_NOT_CONNECTED);
    IoReleaseRemoveLock(&x->B.Remove, Enqueue);
    return STATUS_PENDING;
}

static NTSTATUS HwInitialize(EXT *x)
{
    x->H.Holds = HOLD_NEW;
    KeInitializeSpinLock(&x->H.Lock);
    KeInitializeSpinLock(&x->H.QueueLock);
    InitializeListHead(&x->H.List);
    KeInitializeEvent(&x->H.Idle, NotificationEvent, TRUE);
    KeInitializeTimer(&x->H.Timer);
    KeInitializeDpc(&x->H.TimerDpc, OnWatchdog, x);
    KeInitializeDpc(&x->H.Dpc, OnDpc, x);
    return IoCsqInitialize(&x->H.Queue, QueueInsert, QueueRemove, QueuePeek, QueueLock, QueueUnlock,
                           QueueCancelled);
}

/* ---- the card ------------------------------------------------------------------------ */

/* The register is slow: it is written only when that changes something. */
static VOID SetControl(EXT *x, ULONG Control)
{
    if (x->Control != Control) {
        Write(x, EDU_STATUS, Control);
        x->Control = Control;
    }
}

static BOOLEAN NTAPI OnInterrupt(PKINTERRUPT Interrupt, PVOID Context)
{
    EXT *x = Context;
    ULONG Causes;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!x->H.Answering)
        return FALSE;
    Causes = Read(x, EDU_CAUSES);
    if (Causes == 0 || Causes == 0xffffffff)
        return FALSE;
    Write(x, EDU_ACK, Causes);
    InterlockedOr(&x->Causes, Causes);
    KeInsertQueueDpc(&x->H.Dpc, NULL, NULL);
    return TRUE;
}

static VOID Baked(EXT *x, PIRP Irp)
{
    USAGE *u = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;

    *(PULONG)Irp->AssociatedIrp.SystemBuffer = Read(x, EDU_FACTORIAL);
    InterlockedIncrement((volatile LONG *)&u->Baked);
    EndActive(x, Irp, STATUS_SUCCESS, sizeof(ULONG));
}

static VOID Failed(EXT *x, PIRP Irp, NTSTATUS Status)
{
    USAGE *u = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;

    InterlockedIncrement((volatile LONG *)&u->Failed);
    EndActive(x, Irp, Status, 0);
}

static VOID NTAPI OnDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    EXT *x = Context;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    if (!(InterlockedExchange(&x->Causes, 0) & EDU_CAUSE_FACTORIAL))
        return;
    /* While a request is with the card it is in D0. */
    KeAcquireSpinLockAtDpcLevel(&x->H.Lock);
    Irp = x->H.Active;
    if (Irp != NULL && (Read(x, EDU_STATUS) & EDU_STATUS_BUSY))
        Irp = NULL; /* that was an earlier request, which was given up */
    if (Irp != NULL)
        x->H.Active = NULL;
    KeReleaseSpinLockFromDpcLevel(&x->H.Lock);
    if (Irp != NULL)
        Baked(x, Irp);
}

/* With the queue's lock held. */
static VOID HwBegin(EXT *x, PIRP Irp)
{
    BOOLEAN Polite = x->Polite;
    ULONG Number = *(PULONG)Irp->AssociatedIrp.SystemBuffer;

    SetWatchdog(x, Polite ? 2 : 1000);
    SetControl(x, Polite ? 0 : EDU_STATUS_IRQ);
    Write(x, EDU_FACTORIAL, Number);
}

/* Time is up: of a polite request that is how it ends, of another one it is a fault. */
static VOID HwTimeout(EXT *x, PIRP Irp)
{
    if (x->Control == 0 && !(Read(x, EDU_STATUS) & EDU_STATUS_BUSY))
        Baked(x, Irp);
    else
        Failed(x, Irp, STATUS_IO_TIMEOUT);
}

static VOID HwAbort(EXT *x, PIRP Irp)
{
    Failed(x, Irp, STATUS_DEVICE_NOT_CONNECTED);
}

static VOID HwUp(EXT *x)
{
#ifdef FIXED
    x->Control = ~0u; /* whatever it holds now */
#endif
    SetControl(x, EDU_STATUS_IRQ);
}

static VOID HwDown(EXT *x)
{
    Write(x, EDU_STATUS, 0);
}

static NTSTATUS HwMap(EXT *x, PCM_PARTIAL_RESOURCE_DESCRIPTOR Memory)
{
    UNREFERENCED_PARAMETER(x);
    UNREFERENCED_PARAMETER(Memory);
    return STATUS_SUCCESS;
}

static NTSTATUS HwReady(EXT *x)
{
    if ((Read(x, EDU_ID) & 0xff) != 0xed)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    x->Control = 0;
    return STATUS_SUCCESS;
}

static VOID HwUnmap(EXT *x)
{
    UNREFERENCED_PARAMETER(x);
}

static VOID DevFree(EXT *x)
{
    UNREFERENCED_PARAMETER(x);
}

static NTSTATUS DevInit(EXT *x)
{
    x->Power = PowerDeviceD0;
    return HwInitialize(x);
}

#define FLUSH_OTHERS(x) ((void)0)

/* ---- the hardware's coming and going --------------------------------------------- */

static BOOLEAN NTAPI SyncUp(PVOID Context)
{
    EXT *x = Context;

    HwUp(x);
    x->H.Answering = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI SyncDown(PVOID Context)
{
    EXT *x = Context;

    if (x->H.Answering)
        HwDown(x);
    x->H.Answering = FALSE;
    return TRUE;
}

static VOID StopHardware(EXT *x)
{
    PKINTERRUPT Interrupt;
    KIRQL Irql;

    /* PowerUp and PowerDown do not find it any more. */
    KeAcquireSpinLock(&x->H.Lock, &Irql);
    Interrupt = x->H.Interrupt;
    x->H.Interrupt = NULL;
    KeReleaseSpinLock(&x->H.Lock, Irql);
    if (Interrupt != NULL) {
        KeSynchronizeExecution(Interrupt, SyncDown, x);
        IoDisconnectInterrupt(Interrupt);
    }
    KeCancelTimer(&x->H.Timer);
    KeFlushQueuedDpcs();
    HwUnmap(x);
    if (x->H.Regs != NULL) {
        MmUnmapIoSpace(x->H.Regs, x->H.RegsLength);
        x->H.Regs = NULL;
    }
}

static NTSTATUS StartHardware(EXT *x, PCM_RESOURCE_LIST List)
{
    PCM_PARTIAL_RESOURCE_LIST Partial;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d, Line = NULL;
    ULONG i, Memories = 0;
    NTSTATUS Status = STATUS_SUCCESS;

    if (List == NULL || List->Count == 0)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    Partial = &List->List[0].PartialResourceList;
    d = Partial->PartialDescriptors;
    for (i = 0; i < Partial->Count; i++, d++) {
        if (d->Type == CmResourceTypeInterrupt && Line == NULL) {
            Line = d;
        } else if (d->Type == CmResourceTypeMemory) {
            if (Memories++ == 0) {
                x->H.RegsLength = d->u.Memory.Length;
                x->H.Regs = MmMapIoSpace(d->u.Memory.Start, d->u.Memory.Length, MmNonCached);
                if (x->H.Regs == NULL)
                    Status = STATUS_INSUFFICIENT_RESOURCES;
            } else if (NT_SUCCESS(Status)) {
                Status = HwMap(x, d);
            }
        }
    }
    if (NT_SUCCESS(Status) && (x->H.Regs == NULL || Line == NULL))
        Status = STATUS_DEVICE_CONFIGURATION_ERROR;
    if (NT_SUCCESS(Status))
        Status = HwReady(x);
    if (NT_SUCCESS(Status))
        Status = IoConnectInterrupt(&x->H.Interrupt, OnInterrupt, x, NULL, Line->u.Interrupt.Vector,
                                    (KIRQL)Line->u.Interrupt.Level, (KIRQL)Line->u.Interrupt.Level,
                                    Line->Flags & CM_RESOURCE_INTERRUPT_LATCHED ? Latched : LevelSensitive,
                                    Line->ShareDisposition == CmResourceShareShared,
                                    Line->u.Interrupt.Affinity, FALSE);
    if (!NT_SUCCESS(Status)) {
        x->H.Interrupt = NULL;
        StopHardware(x);
        return Status;
    }
    KeSynchronizeExecution(x->H.Interrupt, SyncUp, x);
    return STATUS_SUCCESS;
}

static VOID Synchronize(EXT *x, PKSYNCHRONIZE_ROUTINE Routine)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->H.Lock, &Irql);
    if (x->H.Interrupt != NULL && !(x->H.Holds & HOLD_GONE))
        KeSynchronizeExecution(x->H.Interrupt, Routine, x);
    KeReleaseSpinLock(&x->H.Lock, Irql);
}

static VOID PowerDown(EXT *x)
{
    HoldAndWait(x, HOLD_POWER);
    Synchronize(x, SyncDown);
}

static VOID PowerUp(EXT *x)
{
    Synchronize(x, SyncUp);
    Release(x, HOLD_POWER);
}

static VOID DevGone(EXT *x)
{
    PIRP Irp;

    Hold(x, HOLD_GONE);
    Irp = TakeActive(x);
    if (Irp != NULL)
        HwAbort(x, Irp);
    KeWaitForSingleObject(&x->H.Idle, Executive, KernelMode, FALSE, NULL);
    Flush(x, NULL, STATUS_DEVICE_NOT_CONNECTED);
    FLUSH_OTHERS(x);
}

static NTSTATUS PassDown(EXT *x, PIRP Irp)
{
    NTSTATUS Status;

    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(x->B.Lower, Irp);
    IoReleaseRemoveLock(&x->B.Remove, Irp);
    return Status;
}

static NTSTATUS DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXT *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&x->B.Remove, Irp);

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    switch (Stack->MinorFunction) {
    case IRP_MN_START_DEVICE:
        Status = STATUS_UNSUCCESSFUL;
        if (IoForwardIrpSynchronously(x->B.Lower, Irp))
            Status = Irp->IoStatus.Status;
        if (NT_SUCCESS(Status))
            Status = StartHardware(x, Stack->Parameters.StartDevice.AllocatedResourcesTranslated);
        if (NT_SUCCESS(Status)) {
            x->Power = PowerDeviceD0;
            InterlockedExchange(&x->B.State, RUNNING);
            IoSetDeviceInterfaceState(&x->B.Link, TRUE);
            Release(x, HOLD_NEW | HOLD_STOP | HOLD_POWER);
        }
        Finish(Irp, Status, Irp->IoStatus.Information);
        IoReleaseRemoveLock(&x->B.Remove, Irp);
        return Status;
    case IRP_MN_QUERY_STOP_DEVICE:
        HoldAndWait(x, HOLD_STOP);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return PassDown(x, Irp);
    case IRP_MN_CANCEL_STOP_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        if (!IoForwardIrpSynchronously(x->B.Lower, Irp))
            Irp->IoStatus.Status = STATUS_UNSUCCESSFUL;
        Release(x, HOLD_STOP);
        Status = Irp->IoStatus.Status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        IoReleaseRemoveLock(&x->B.Remove, Irp);
        return Status;
    case IRP_MN_STOP_DEVICE:
        HoldAndWait(x, HOLD_STOP);
        InterlockedExchange(&x->B.State, HALTED);
        StopHardware(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return PassDown(x, Irp);
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return PassDown(x, Irp);
    case IRP_MN_SURPRISE_REMOVAL:
        InterlockedExchange(&x->B.State, PULLED);
        x->H.Answering = FALSE; /* and will not again */
        IoSetDeviceInterfaceState(&x->B.Link, FALSE);
        DevGone(x);
        StopHardware(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return PassDown(x, Irp);
    case IRP_MN_REMOVE_DEVICE:
        if (InterlockedExchange(&x->B.State, DELETED) != PULLED)
            IoSetDeviceInterfaceState(&x->B.Link, FALSE);
        DevGone(x);
        IoReleaseRemoveLockAndWait(&x->B.Remove, Irp);
        StopHardware(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        Status = IoCallDriver(x->B.Lower, Irp);
        DevFree(x);
        RtlFreeUnicodeString(&x->B.Link);
        IoDetachDevice(x->B.Lower);
        IoDeleteDevice(Device);
        return Status;
    default:
        return PassDown(x, Irp);
    }
}

static NTSTATUS DispatchSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXT *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->B.Remove, Irp);

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    return PassDown(x, Irp);
}
/* ---- power: the device's state follows the system's ------------------------ */

static VOID NTAPI DevicePowerDone(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context,
                                  PIO_STATUS_BLOCK Io)
{
    PIRP Irp = Context;
    EXT *x = IoGetCurrentIrpStackLocation(Irp)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    Irp->IoStatus.Status = Io->Status;
    PoStartNextPowerIrp(Irp);
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&x->B.Remove, Irp);
}

static NTSTATUS NTAPI SystemPowerDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    EXT *x = Context;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = Irp->IoStatus.Status;
    POWER_STATE State;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Status)) {
        State.DeviceState =
            Stack->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        Status = PoRequestPowerIrp(x->B.Self, IRP_MN_SET_POWER, State, DevicePowerDone, Irp, NULL);
        if (NT_SUCCESS(Status))
            return STATUS_MORE_PROCESSING_REQUIRED;
        Irp->IoStatus.Status = Status;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&x->B.Remove, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI PowerUpDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    EXT *x = Context;

    UNREFERENCED_PARAMETER(Device);
    if (Irp->PendingReturned)
        IoMarkIrpPending(Irp);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        x->Power = PowerDeviceD0;
        PoSetPowerState(x->B.Self, DevicePowerState, IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State);
        PowerUp(x);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&x->B.Remove, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS DispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXT *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&x->B.Remove, Irp);

    if (!NT_SUCCESS(Status)) {
        PoStartNextPowerIrp(Irp);
        return Finish(Irp, Status, 0);
    }
    if (Stack->MinorFunction == IRP_MN_SET_POWER && Stack->Parameters.Power.Type == SystemPowerState) {
        IoMarkIrpPending(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, SystemPowerDone, x, TRUE, TRUE, TRUE);
        PoCallDriver(x->B.Lower, Irp);
        return STATUS_PENDING;
    }
    if (Stack->MinorFunction == IRP_MN_SET_POWER) {
        if (Stack->Parameters.Power.State.DeviceState == PowerDeviceD0 && x->Power != PowerDeviceD0) {
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, PowerUpDone, x, TRUE, TRUE, TRUE);
            return PoCallDriver(x->B.Lower, Irp);
        }
        if (Stack->Parameters.Power.State.DeviceState != PowerDeviceD0 && x->Power == PowerDeviceD0) {
            PowerDown(x);
            PoSetPowerState(Device, DevicePowerState, Stack->Parameters.Power.State);
        }
        x->Power = Stack->Parameters.Power.State.DeviceState;
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = PoCallDriver(x->B.Lower, Irp);
    IoReleaseRemoveLock(&x->B.Remove, Irp);
    return Status;
}
static NTSTATUS AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Self;
    NTSTATUS Status;
    EXT *x;

    Status = IoCreateDevice(Driver, sizeof(EXT), NULL, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &Self);
    if (!NT_SUCCESS(Status))
        return Status;
    x = Self->DeviceExtension;
    RtlZeroMemory(x, sizeof(*x));
    x->B.Self = Self;
    x->B.Pdo = Pdo;
    x->B.State = NEW_DEVICE;
    IoInitializeRemoveLock(&x->B.Remove, POOL_TAG, 0, 0);
    Status = DevInit(x);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Self);
        return Status;
    }
    Status = IoRegisterDeviceInterface(Pdo, &INTERFACE_GUID, NULL, &x->B.Link);
    if (!NT_SUCCESS(Status)) {
        DevFree(x);
        IoDeleteDevice(Self);
        return Status;
    }
    x->B.Lower = IoAttachDeviceToDeviceStack(Self, Pdo);
    if (x->B.Lower == NULL) {
        RtlFreeUnicodeString(&x->B.Link);
        DevFree(x);
        IoDeleteDevice(Self);
        return STATUS_NO_SUCH_DEVICE;
    }
    Self->Flags |= DO_POWER_PAGABLE | DEVICE_IO;
    Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

/* ---- requests ------------------------------------------------------------------------ */

static NTSTATUS Enter(EXT *x, PIRP Irp)
{
    NTSTATUS Status = IoAcquireRemoveLock(&x->B.Remove, Irp);

    if (!NT_SUCCESS(Status))
        return Status;
    if (x->B.State == RUNNING || x->B.State == HALTED)
        return STATUS_SUCCESS;
    IoReleaseRemoveLock(&x->B.Remove, Irp);
    return STATUS_DEVICE_NOT_CONNECTED;
}

/* The end of a request that Enter has let in. */
static NTSTATUS Done(EXT *x, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Finish(Irp, Status, Information);
    IoReleaseRemoveLock(&x->B.Remove, Irp);
    return Status;
}

static NTSTATUS DispatchCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXT *x = Device->DeviceExtension;
    NTSTATUS Status = Enter(x, Irp);
    USAGE *u;

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    u = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*u), POOL_TAG);
    if (u == NULL)
        return Done(x, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(u, sizeof(*u));
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = u;
    return Done(x, Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    Flush(Device->DeviceExtension, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS DispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    ExFreePoolWithTag(IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext, POOL_TAG);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXT *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    PULONG Buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status = Enter(x, Irp);

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BAKE:
        if (In < sizeof(ULONG) || Out < sizeof(ULONG))
            return Done(x, Irp, STATUS_INVALID_PARAMETER, 0);
        return Enqueue(x, Irp);
    case IOCTL_POLITE:
        if (In < sizeof(ULONG))
            return Done(x, Irp, STATUS_INVALID_PARAMETER, 0);
        x->Polite = Buffer[0] != 0;
        return Done(x, Irp, STATUS_SUCCESS, 0);
    case IOCTL_USAGE:
        if (Out < sizeof(USAGE))
            return Done(x, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        *(USAGE *)Buffer = *(USAGE *)Stack->FileObject->FsContext;
        return Done(x, Irp, STATUS_SUCCESS, sizeof(USAGE));
    default:
        return Done(x, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

#define ENTRIES Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;

static VOID Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverUnload = Unload;
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchClose;
    ENTRIES
    Driver->MajorFunction[IRP_MJ_PNP] = DispatchPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = DispatchPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DispatchSystemControl;
    return STATUS_SUCCESS;
}

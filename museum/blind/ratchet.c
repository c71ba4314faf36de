/*
 * ratchet.c - reports to programs what the bench card's sources do.
 *
 * SUBSCRIBE is for one source and a handle; it may do so for several, each
 * with a mark of its own that comes back with its events.  Reads take what has
 * come.  STRIKE raises a source and waits until its interrupt was there.
 *
 * The bug: where a subscription is removed the last one takes its place and is not looked at: one of a handle
 * that is closed may stay.
 *
 * Device: PCI\VEN_1234&DEV_BE2C
 * Rule: use-after-free
 * Needs: ioctl
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

DEFINE_GUID(INTERFACE_GUID, 0x7a1e000a, 0x51b2, 0x4f1d, 0x9c, 0x11, 0x20, 0x31, 0x42, 0x53, 0x64, 0x75);

#define POOL_TAG 'ctaR'
#define DEVICE_IO DO_BUFFERED_IO
#define SUBSCRIPTIONS 32
#define EVENTS 32
#define SOURCES 16

#define BENCH_ID 0x00
#define BENCH_RAISE 0x08
#define BENCH_STATUS 0x0c
#define BENCH_ENABLE 0x14

#define IOCTL_SUBSCRIBE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x880, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_UNSUBSCRIBE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x881, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_STRIKE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x882, METHOD_BUFFERED, FILE_WRITE_ACCESS)

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
    ULONG Source;
    ULONG Mark;
} SUBSCRIBE;

typedef struct {
    ULONG Mark;
    ULONG Number;
} EVENT;

typedef struct {
    ULONG First;
    ULONG Count;
    ULONG Lost;
    EVENT Events[EVENTS];
} HANDLE_CONTEXT;

typedef struct {
    HANDLE_CONTEXT *Handle;
    ULONG Source;
    ULONG Mark;
} SUBSCRIPTION;

struct EXT {
    BASE B;
    HW H;
    DEVICE_POWER_STATE Power;
    volatile LONG Causes;
    ULONG Struck; /* the source of the active request */

    KSPIN_LOCK SubscriptionLock; /* and of the handles' events */
    ULONG SubscriptionCount;
    SUBSCRIPTION Subscriptions[SUBSCRIPTIONS];
    ULONG Number;
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
    KIRQL Irql;
    PIRP Irp;

    KeAcquireSpinLock(&x->H.Lock, &Irql);
    Irp = x->H.Holds == 0 && !x->H.Busy ? IoCsqRemoveNextIrp(&x->H.Queue, NULL) : NULL;
    if (Irp != NULL) {
        x->H.Busy = TRUE;
        x->H.Active = Irp;
        KeClearEvent(&x->H.Idle);
        HwBegin(x, Irp);
    }
    KeReleaseSpinLock(&x->H.Lock, Irql);
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

/* ---- subscriptions ---------------------------------------------------------------------------- */

static NTSTATUS Subscribe(EXT *x, HANDLE_CONTEXT *h, const SUBSCRIBE *s)
{
    NTSTATUS Status = STATUS_SUCCESS;
    SUBSCRIPTION *n;
    KIRQL Irql;
    ULONG i;

    if (s->Source >= SOURCES)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&x->SubscriptionLock, &Irql);
    for (i = 0; i < x->SubscriptionCount; i++) {
        if (x->Subscriptions[i].Handle == h && x->Subscriptions[i].Source == s->Source)
            break;
    }
    if (i == SUBSCRIPTIONS) {
        Status = STATUS_QUOTA_EXCEEDED;
    } else {
        n = &x->Subscriptions[i];
        n->Handle = h;
        n->Source = s->Source;
        n->Mark = s->Mark;
        if (i == x->SubscriptionCount)
            x->SubscriptionCount++;
    }
    KeReleaseSpinLock(&x->SubscriptionLock, Irql);
    return Status;
}

/* All of a handle, or its one for a source; their order does not matter. */
static ULONG Unsubscribe(EXT *x, HANDLE_CONTEXT *h, BOOLEAN All, ULONG Source)
{
    ULONG i = 0, Count = 0;
    KIRQL Irql;

    KeAcquireSpinLock(&x->SubscriptionLock, &Irql);
#ifdef FIXED
    while (i < x->SubscriptionCount) {
        SUBSCRIPTION *s = &x->Subscriptions[i];

        if (s->Handle == h && (All || s->Source == Source)) {
            *s = x->Subscriptions[--x->SubscriptionCount];
            Count++;
        } else {
            i++;
        }
    }
#else
    for (; i < x->SubscriptionCount; i++) {
        SUBSCRIPTION *s = &x->Subscriptions[i];

        if (s->Handle == h && (All || s->Source == Source)) {
            *s = x->Subscriptions[--x->SubscriptionCount];
            Count++;
        }
    }
#endif
    KeReleaseSpinLock(&x->SubscriptionLock, Irql);
    return Count;
}

static VOID Tell(EXT *x, ULONG Sources)
{
    ULONG i;

    KeAcquireSpinLockAtDpcLevel(&x->SubscriptionLock);
    x->Number++;
    for (i = 0; i < x->SubscriptionCount; i++) {
        SUBSCRIPTION *s = &x->Subscriptions[i];
        HANDLE_CONTEXT *h = s->Handle;
        EVENT *e;

        if (!(Sources & (1u << s->Source)))
            continue;
        if (h->Count == EVENTS) {
            h->Lost++;
            continue;
        }
        e = &h->Events[(h->First + h->Count) % EVENTS];
        e->Mark = s->Mark;
        e->Number = x->Number;
        h->Count++;
    }
    KeReleaseSpinLockFromDpcLevel(&x->SubscriptionLock);
}

static ULONG TakeEvents(EXT *x, HANDLE_CONTEXT *h, EVENT *Out, ULONG Room)
{
    ULONG Count = 0;
    KIRQL Irql;

    KeAcquireSpinLock(&x->SubscriptionLock, &Irql);
    while (Count < Room && h->Count != 0) {
        Out[Count++] = h->Events[h->First];
        h->First = (h->First + 1) % EVENTS;
        h->Count--;
    }
    KeReleaseSpinLock(&x->SubscriptionLock, Irql);
    return Count;
}

/* ---- the card ------------------------------------------------------------------------------------ */

static BOOLEAN NTAPI OnInterrupt(PKINTERRUPT Interrupt, PVOID Context)
{
    EXT *x = Context;
    ULONG Causes;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!x->H.Answering)
        return FALSE;
    Causes = Read(x, BENCH_STATUS);
    if (Causes == 0xffffffff || (Causes & ((1u << SOURCES) - 1)) == 0)
        return FALSE;
    Write(x, BENCH_STATUS, Causes);
    InterlockedOr(&x->Causes, Causes);
    KeInsertQueueDpc(&x->H.Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI OnDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    EXT *x = Context;
    ULONG Causes = InterlockedExchange(&x->Causes, 0);
    PIRP Irp = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    if (Causes == 0)
        return;
    Tell(x, Causes);
    KeAcquireSpinLockAtDpcLevel(&x->H.Lock);
    if (x->H.Active != NULL && (Causes & (1u << x->Struck))) {
        Irp = x->H.Active;
        x->H.Active = NULL;
    }
    KeReleaseSpinLockFromDpcLevel(&x->H.Lock);
    if (Irp != NULL)
        EndActive(x, Irp, STATUS_SUCCESS, 0);
}

/* With the queue's lock held. */
static VOID HwBegin(EXT *x, PIRP Irp)
{
    x->Struck = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
    SetWatchdog(x, 500);
    Write(x, BENCH_RAISE, 1u << x->Struck);
}

static VOID HwTimeout(EXT *x, PIRP Irp)
{
    EndActive(x, Irp, STATUS_IO_TIMEOUT, 0);
}

static VOID HwAbort(EXT *x, PIRP Irp)
{
    EndActive(x, Irp, STATUS_DEVICE_NOT_CONNECTED, 0);
}

static VOID HwUp(EXT *x)
{
    Write(x, BENCH_STATUS, 0xffffffff);
    Write(x, BENCH_ENABLE, (1u << SOURCES) - 1);
}

static VOID HwDown(EXT *x)
{
    Write(x, BENCH_ENABLE, 0);
}

static NTSTATUS HwMap(EXT *x, PCM_PARTIAL_RESOURCE_DESCRIPTOR Memory)
{
    UNREFERENCED_PARAMETER(x);
    UNREFERENCED_PARAMETER(Memory);
    return STATUS_SUCCESS;
}

static NTSTATUS HwReady(EXT *x)
{
    return Read(x, BENCH_ID) == 0xffffffff ? STATUS_DEVICE_CONFIGURATION_ERROR : STATUS_SUCCESS;
}

static VOID HwUnmap(EXT *x)
{
    UNREFERENCED_PARAMETER(x);
}

static NTSTATUS DevInit(EXT *x)
{
    x->Power = PowerDeviceD0;
    KeInitializeSpinLock(&x->SubscriptionLock);
    return HwInitialize(x);
}

static VOID DevFree(EXT *x)
{
    UNREFERENCED_PARAMETER(x);
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

/* ---- requests -------------------------------------------------------------------------------------- */

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
    HANDLE_CONTEXT *h;

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    h = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*h), POOL_TAG);
    if (h == NULL)
        return Done(x, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(h, sizeof(*h));
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = h;
    return Done(x, Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    Flush(Device->DeviceExtension, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS DispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    HANDLE_CONTEXT *h = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;

    /* No request of this handle is left, so none subscribes any more. */
    Unsubscribe(Device->DeviceExtension, h, TRUE, 0);
    ExFreePoolWithTag(h, POOL_TAG);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS DispatchRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXT *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = Enter(x, Irp);
    ULONG Count;

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    Count = TakeEvents(x, Stack->FileObject->FsContext, Irp->AssociatedIrp.SystemBuffer,
                       Stack->Parameters.Read.Length / sizeof(EVENT));
    return Done(x, Irp, STATUS_SUCCESS, Count * sizeof(EVENT));
}

static NTSTATUS DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXT *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    HANDLE_CONTEXT *h = Stack->FileObject->FsContext;
    ULONG In = Stack->Parameters.DeviceIoControl.InputBufferLength;
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status = Enter(x, Irp);

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SUBSCRIBE:
        if (In < sizeof(SUBSCRIBE))
            return Done(x, Irp, STATUS_INVALID_PARAMETER, 0);
        return Done(x, Irp, Subscribe(x, h, Buffer), 0);
    case IOCTL_UNSUBSCRIBE:
        if (In < sizeof(ULONG))
            return Done(x, Irp, STATUS_INVALID_PARAMETER, 0);
        return Done(x, Irp, Unsubscribe(x, h, FALSE, *(PULONG)Buffer) ? STATUS_SUCCESS : STATUS_NOT_FOUND, 0);
    case IOCTL_STRIKE:
        if (In < sizeof(ULONG) || *(PULONG)Buffer >= SOURCES)
            return Done(x, Irp, STATUS_INVALID_PARAMETER, 0);
        return Enqueue(x, Irp);
    default:
        return Done(x, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

#define ENTRIES \
    Driver->MajorFunction[IRP_MJ_READ] = DispatchRead; \
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;

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

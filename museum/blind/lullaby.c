/*
 * lullaby: lets programs wait for a time with a pending request, up to one day, all of them with one timer; the answer is how late the request was
 * woken.
 *
 * The bug: the time is converted from milliseconds to 100 ns in 32 bits. From 214749 ms on the product is taken for negative: the deadline lies
 * in the past, and the request that should sleep for minutes is woken at once (and others too early).
 *
 * Device: ROOT\LULLABY
 * Rule: request-ended-early
 * Needs: ioctl
 */
#include "../include/gated_queue.h"

#define SLEEP_MAX_MS (24 * 60 * 60 * 1000)
#define SLEEPERS_MAX 128

#define IOCTL_LULLABY_SLEEP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x880, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_LULLABY_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x881, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID LullabyGuid = {0x6a1d0f11, 0x2c5e, 0x4b0a, {0x9f, 0x31, 0x51, 0x0c, 0x77, 0xd2, 0x18, 0x03}};

typedef struct _LULLABY {
    AK Ak;
    IO_CSQ Csq;
    KSPIN_LOCK Lock; /* guards all below */
    LIST_ENTRY Sleepers;
    ULONG Count;
    KTIMER Timer;
    KDPC Dpc;
} LULLABY, *PLULLABY;

#define LULLABY_OF(Csq_) CONTAINING_RECORD(Csq_, LULLABY, Csq)
#define DEADLINE(Irp_) ((LONGLONG)(LONG_PTR)(Irp_)->Tail.Overlay.DriverContext[0])

/* what IoCsqRemoveNextIrp looks for */
typedef struct _SOUGHT {
    PFILE_OBJECT File; /* NULL: any */
    LONGLONG Due;      /* deadline not behind this */
} SOUGHT, *PSOUGHT;

static LONGLONG Now(VOID)
{
    return (LONGLONG)KeQueryInterruptTime();
}

/* Sets the timer for the earliest sleeper; the lock is held. */
static VOID SetAlarm(PLULLABY l)
{
    LONGLONG earliest = MAXLONGLONG, now = Now();
    LARGE_INTEGER due;
    PLIST_ENTRY e;

    if (IsListEmpty(&l->Sleepers))
        return;
    for (e = l->Sleepers.Flink; e != &l->Sleepers; e = e->Flink) {
        LONGLONG deadline = DEADLINE(CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry));

        if (deadline < earliest)
            earliest = deadline;
    }
    due.QuadPart = earliest > now ? now - earliest : -1;
    KeSetTimer(&l->Timer, due, &l->Dpc);
}

static NTSTATUS SleeperInsert(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PLULLABY l = LULLABY_OF(Csq);

    UNREFERENCED_PARAMETER(Context);
    if (l->Ak.Gates & AG_REFUSE)
        return STATUS_DEVICE_NOT_CONNECTED;
    if (l->Count >= SLEEPERS_MAX)
        return STATUS_QUOTA_EXCEEDED;
    InsertTailList(&l->Sleepers, &Irp->Tail.Overlay.ListEntry);
    l->Count++;
    SetAlarm(l);
    return STATUS_SUCCESS;
}

static VOID SleeperRemove(PIO_CSQ Csq, PIRP Irp)
{
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    LULLABY_OF(Csq)->Count--;
}

static PIRP SleeperPeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PLIST_ENTRY head = &LULLABY_OF(Csq)->Sleepers;
    PLIST_ENTRY e = Irp ? Irp->Tail.Overlay.ListEntry.Flink : head->Flink;
    PSOUGHT sought = Context;

    for (; e != head; e = e->Flink) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if ((!sought->File || IoGetCurrentIrpStackLocation(irp)->FileObject == sought->File) && DEADLINE(irp) <= sought->Due)
            return irp;
    }
    return NULL;
}

static VOID SleeperAcquire(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&LULLABY_OF(Csq)->Lock, Irql);
}

static VOID SleeperRelease(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&LULLABY_OF(Csq)->Lock, Irql);
}

static VOID SleeperEnd(PLULLABY l, PIRP Irp, NTSTATUS Status)
{
    ULONG_PTR length = 0;

    if (NT_SUCCESS(Status)) {
        *(PULONGLONG)Irp->AssociatedIrp.SystemBuffer = (ULONGLONG)(Now() - DEADLINE(Irp));
        length = sizeof(ULONGLONG);
    }
    AkComplete(Irp, Status, length);
    IoReleaseRemoveLock(&l->Ak.Lock, Irp);
}

static VOID SleeperCancelled(PIO_CSQ Csq, PIRP Irp)
{
    SleeperEnd(LULLABY_OF(Csq), Irp, STATUS_CANCELLED);
}

static VOID SleepersEnd(PLULLABY l, PFILE_OBJECT file, LONGLONG due, NTSTATUS status)
{
    SOUGHT sought = {file, due};
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&l->Csq, &sought)) != NULL)
        SleeperEnd(l, irp, status);
}

static VOID Alarm(PKDPC Dpc, PVOID Context, PVOID a, PVOID b)
{
    PLULLABY l = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    SleepersEnd(l, NULL, Now(), STATUS_SUCCESS);
    KeAcquireSpinLockAtDpcLevel(&l->Lock);
    SetAlarm(l);
    KeReleaseSpinLockFromDpcLevel(&l->Lock);
}

static NTSTATUS LullabyInit(PAK k)
{
    PLULLABY l = (PLULLABY)k;

    KeInitializeSpinLock(&l->Lock);
    InitializeListHead(&l->Sleepers);
    KeInitializeTimer(&l->Timer);
    KeInitializeDpc(&l->Dpc, Alarm, l);
    return IoCsqInitializeEx(&l->Csq, SleeperInsert, SleeperRemove, SleeperPeek, SleeperAcquire, SleeperRelease, SleeperCancelled);
}

static VOID LullabyGone(PAK k)
{
    SleepersEnd((PLULLABY)k, NULL, MAXLONGLONG, STATUS_DEVICE_NOT_CONNECTED);
}

/* No sleeper is left and none can come: an alarm that is still set finds an empty list and sets no other. */
static VOID LullabyUninit(PAK k)
{
    PLULLABY l = (PLULLABY)k;

    KeCancelTimer(&l->Timer);
    KeFlushQueuedDpcs();
    KeCancelTimer(&l->Timer); /* should the flushed DPC have set it */
    KeFlushQueuedDpcs();
}

static VOID LullabyCleanup(PAK k, PFILE_OBJECT File)
{
    SleepersEnd((PLULLABY)k, File, MAXLONGLONG, STATUS_CANCELLED);
}

static NTSTATUS Sleep(PLULLABY l, PIRP Irp, PIO_STACK_LOCATION s)
{
    LONGLONG deadline;
    NTSTATUS status;
    ULONG ms;

    if (s->Parameters.DeviceIoControl.InputBufferLength != sizeof ms || s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONGLONG))
        return STATUS_INVALID_PARAMETER;
    ms = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
    if (ms > SLEEP_MAX_MS)
        return STATUS_INVALID_PARAMETER;
    status = IoAcquireRemoveLock(&l->Ak.Lock, Irp);
    if (!NT_SUCCESS(status))
        return status;
#ifdef FIXED
    deadline = Now() + (LONGLONG)ms * 10000;
#else
    deadline = Now() + (LONG)(ms * 10000);
#endif
    Irp->Tail.Overlay.DriverContext[0] = (PVOID)(LONG_PTR)deadline;
    IoMarkIrpPending(Irp);
    status = IoCsqInsertIrpEx(&l->Csq, Irp, NULL, NULL);
    if (!NT_SUCCESS(status))
        SleeperEnd(l, Irp, status);
    return STATUS_PENDING;
}

static NTSTATUS LullabyIo(PAK k, PIRP Irp, PIO_STACK_LOCATION s)
{
    PLULLABY l = (PLULLABY)k;
    KIRQL irql;

    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_LULLABY_SLEEP:
        return Sleep(l, Irp, s);

    case IOCTL_LULLABY_COUNT:
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&l->Lock, &irql);
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = l->Count;
        KeReleaseSpinLock(&l->Lock, irql);
        Irp->IoStatus.Information = sizeof(ULONG);
        return STATUS_SUCCESS;

    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static const AK_OPS AkOps = {
    .Interface = &LullabyGuid,
    .ExtSize = sizeof(LULLABY),
    .DeviceFlags = DO_BUFFERED_IO,
    .Init = LullabyInit,
    .Uninit = LullabyUninit,
    .Gone = LullabyGone,
    .Cleanup = LullabyCleanup,
    .Io = LullabyIo,
};

NTSTATUS DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return AkEntry(Driver);
}

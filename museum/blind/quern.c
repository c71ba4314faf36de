/*
 * quern: factorials as a service on the edu card. IOCTL_QUERN_GRIND (number, time allowed in ms) is queued, done by
 * the card one at a time and ended by its interrupt; a tick ends requests whose time is over; IOCTL_QUERN_TALLY.
 *
 * The bug: when the request on the card runs out of time, the card is taken for free although it still computes. The
 * next request is started over it, and the late interrupt ends that one with the earlier request's result.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: answer-of-another
 * Needs: ioctl, device, schedule
 */
#include "../include/reed_wdm.h"

/* {6E0B0C52-6A7E-4C0A-9C52-2B6B6C1C5D01} */
static const GUID QuernGuid = { 0x6e0b0c52, 0x6a7e, 0x4c0a, { 0x9c, 0x52, 0x2b, 0x6b, 0x6c, 0x1c, 0x5d, 0x01 } };

#define IOCTL_QUERN_GRIND CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_QUERN_TALLY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _QUERN_IN {
    ULONG Number;
    ULONG Milliseconds;
} QUERN_IN;

typedef struct _QUERN_OUT {
    ULONG Number;
    ULONG Factorial;
} QUERN_OUT;

typedef struct _QUERN_TALLY {
    ULONG Ground;
    ULONG Late;
    ULONG Waiting;
} QUERN_TALLY;

#define QUERN_NUMBER_MAX 200000000u
#define QUERN_MS_MAX     60000u
#define QUERN_TICK_MS    20

#define EDU_FACT    0x08
#define EDU_STATUS  0x20
#define EDU_IRQ     0x24
#define EDU_ACK     0x64
#define EDU_SIZE    0x80

#define EDU_COMPUTING   0x01u
#define EDU_IRQ_FACT    0x80u       /* in EDU_STATUS */
#define EDU_CAUSE_FACT  0x01u       /* in EDU_IRQ */
#define EDU_GONE        0xFFFFFFFFu

typedef struct _QUERN {
    REED R;
    LIST_ENTRY Queue;               /* requests that the card has not begun */
    LIST_ENTRY OnCard;              /* the one the card works for; empty if it was cancelled meanwhile */
    BOOLEAN Milling;                /* the card computes */
    KTIMER Timer;
    KDPC Tick;
    ULONG Ground, Late;
} QUERN, *PQUERN;

/* When a request's time is over, in 100 ns; our own while the request is pending. */
#define QUERN_DEADLINE(Irp) ((Irp)->Tail.Overlay.DriverContext[0])

static ULONGLONG QuernNow(VOID)
{
    return KeQueryInterruptTime();
}

/* Lock held. Gives the card its next request. */
static VOID QuernNext(PQUERN q)
{
    PLIST_ENTRY e;
    PIRP irp;
    QUERN_IN *in;

    if (!q->R.Live || !q->R.Awake || q->Milling || IsListEmpty(&q->Queue))
        return;
    /* Its cancel routine stays set: it takes the request out of either list. */
    e = RemoveHeadList(&q->Queue);
    InsertTailList(&q->OnCard, e);
    irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
    in = irp->AssociatedIrp.SystemBuffer;
    q->Milling = TRUE;
    ReedSet(&q->R, 0, EDU_FACT, in->Number);
}

/* Lock held. The card has power: interrupt on, and find out whether it still computes for an earlier life. */
static VOID QuernCardOn(PQUERN q)
{
    ULONG status;

    ReedSet(&q->R, 0, EDU_ACK, 0xFFFFFFFFu);
    ReedSet(&q->R, 0, EDU_STATUS, EDU_IRQ_FACT);
    status = ReedGet(&q->R, 0, EDU_STATUS);
    q->Milling = status != EDU_GONE && (status & EDU_COMPUTING) != 0;
}

static VOID QuernCardOff(PQUERN q)
{
    ReedSet(&q->R, 0, EDU_STATUS, 0);
    ReedSet(&q->R, 0, EDU_ACK, 0xFFFFFFFFu);
    (VOID)ReedGet(&q->R, 0, EDU_IRQ);
}

static BOOLEAN NTAPI QuernIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PQUERN q = Context;
    ULONG cause;

    (VOID)Interrupt;
    if (!q->R.Awake)
        return FALSE;
    cause = ReedGet(&q->R, 0, EDU_IRQ);
    if (cause == 0 || cause == EDU_GONE)
        return FALSE;
    ReedSet(&q->R, 0, EDU_ACK, cause);
    InterlockedOr(&q->R.Pending, (LONG)cause);
    KeInsertQueueDpc(&q->R.Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI QuernDpc(PKDPC Dpc, PVOID Context, PVOID A, PVOID B)
{
    PQUERN q = Context;
    PIRP irp = NULL;
    ULONG status, result = 0;
    KIRQL irql;

    (VOID)Dpc;
    (VOID)A;
    (VOID)B;
    if ((InterlockedExchange(&q->R.Pending, 0) & EDU_CAUSE_FACT) == 0)
        return;
    KeAcquireSpinLock(&q->R.Lock, &irql);
    if (q->R.Live && q->R.Awake && q->Milling) {
        status = ReedGet(&q->R, 0, EDU_STATUS);
        if (status != EDU_GONE && (status & EDU_COMPUTING) == 0) {
            result = ReedGet(&q->R, 0, EDU_FACT);
            q->Milling = FALSE;
            irp = ReedTake(&q->OnCard);
            if (irp != NULL)
                q->Ground++;
            QuernNext(q);
        }
    }
    KeReleaseSpinLock(&q->R.Lock, irql);
    if (irp != NULL) {
        QUERN_IN in = *(QUERN_IN *)irp->AssociatedIrp.SystemBuffer;
        QUERN_OUT *out = irp->AssociatedIrp.SystemBuffer;

        out->Number = in.Number;
        out->Factorial = result;
        ReedEnd(&q->R, irp, STATUS_SUCCESS, sizeof(*out));
    }
}

/* Lock held. Takes the requests whose time is over out of one list. */
static BOOLEAN QuernExpire(PLIST_ENTRY List, ULONGLONG Now, PLIST_ENTRY Done)
{
    PLIST_ENTRY e, next;
    BOOLEAN any = FALSE;

    for (e = List->Flink; e != List; e = next) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        next = e->Flink;
        if ((ULONGLONG)QUERN_DEADLINE(irp) <= Now && ReedPull(irp)) {
            InsertTailList(Done, e);
            any = TRUE;
        }
    }
    return any;
}

static VOID NTAPI QuernTick(PKDPC Dpc, PVOID Context, PVOID A, PVOID B)
{
    PQUERN q = Context;
    ULONGLONG now = QuernNow();
    LIST_ENTRY done;
    KIRQL irql;

    (VOID)Dpc;
    (VOID)A;
    (VOID)B;
    InitializeListHead(&done);
    KeAcquireSpinLock(&q->R.Lock, &irql);
    QuernExpire(&q->Queue, now, &done);
    if (QuernExpire(&q->OnCard, now, &done)) {
        q->Late++;
#ifndef FIXED
        q->Milling = FALSE;
#endif
    }
    QuernNext(q);
    KeReleaseSpinLock(&q->R.Lock, irql);
    ReedEndAll(&q->R, &done, STATUS_IO_TIMEOUT);
}

static NTSTATUS QuernGrind(PQUERN q, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    QUERN_IN *in = Irp->AssociatedIrp.SystemBuffer;
    BOOLEAN put;
    KIRQL irql;

    if (Sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(QUERN_IN) ||
        Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(QUERN_OUT)) {
        ReedEnd(&q->R, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return STATUS_BUFFER_TOO_SMALL;
    }
    if (in->Number > QUERN_NUMBER_MAX || in->Milliseconds == 0 || in->Milliseconds > QUERN_MS_MAX) {
        ReedEnd(&q->R, Irp, STATUS_INVALID_PARAMETER, 0);
        return STATUS_INVALID_PARAMETER;
    }
    QUERN_DEADLINE(Irp) = (PVOID)(QuernNow() + in->Milliseconds * 10000ULL);
    KeAcquireSpinLock(&q->R.Lock, &irql);
    if (!q->R.Live) {
        KeReleaseSpinLock(&q->R.Lock, irql);
        ReedEnd(&q->R, Irp, STATUS_DEVICE_NOT_READY, 0);
        return STATUS_DEVICE_NOT_READY;
    }
    put = ReedPut(&q->Queue, Irp);
    QuernNext(q);
    KeReleaseSpinLock(&q->R.Lock, irql);
    if (!put)
        ReedEnd(&q->R, Irp, STATUS_CANCELLED, 0);
    return STATUS_PENDING;
}

static NTSTATUS QuernTally(PQUERN q, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    QUERN_TALLY *t = Irp->AssociatedIrp.SystemBuffer;
    PLIST_ENTRY e;
    KIRQL irql;

    if (Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*t)) {
        ReedEnd(&q->R, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return STATUS_BUFFER_TOO_SMALL;
    }
    KeAcquireSpinLock(&q->R.Lock, &irql);
    t->Ground = q->Ground;
    t->Late = q->Late;
    t->Waiting = 0;
    for (e = q->Queue.Flink; e != &q->Queue; e = e->Flink)
        t->Waiting++;
    KeReleaseSpinLock(&q->R.Lock, irql);
    ReedEnd(&q->R, Irp, STATUS_SUCCESS, sizeof(*t));
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI QuernControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PQUERN q = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS st = ReedEnter(&q->R, Irp);

    if (!NT_SUCCESS(st))
        return st;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_QUERN_GRIND:
        st = QuernGrind(q, Irp, sp);
        break;
    case IOCTL_QUERN_TALLY:
        st = QuernTally(q, Irp, sp);
        break;
    default:
        st = STATUS_INVALID_DEVICE_REQUEST;
        ReedEnd(&q->R, Irp, st, 0);
        break;
    }
    return ReedLeave(&q->R, st);
}

static NTSTATUS NTAPI QuernCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PQUERN q = Device->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    LIST_ENTRY done;
    KIRQL irql;

    InitializeListHead(&done);
    KeAcquireSpinLock(&q->R.Lock, &irql);
    ReedSift(&q->Queue, file, &done);
    ReedSift(&q->OnCard, file, &done);
    KeReleaseSpinLock(&q->R.Lock, irql);
    ReedEndAll(&q->R, &done, STATUS_CANCELLED);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static VOID QuernSetup(PREED x)
{
    PQUERN q = (PQUERN)x;

    InitializeListHead(&q->Queue);
    InitializeListHead(&q->OnCard);
    KeInitializeDpc(&x->Dpc, QuernDpc, q);
    KeInitializeDpc(&q->Tick, QuernTick, q);
    KeInitializeTimerEx(&q->Timer, NotificationTimer);
}

static NTSTATUS QuernStart(PREED x, PCM_RESOURCE_LIST Resources)
{
    static const ULONG need[1] = { EDU_SIZE };
    PQUERN q = (PQUERN)x;
    LARGE_INTEGER due;
    NTSTATUS st;
    KIRQL irql;

    st = ReedMap(x, Resources, need, 1);
    if (!NT_SUCCESS(st))
        return st;
    QuernCardOff(q);
    st = ReedConnect(x, QuernIsr);
    if (!NT_SUCCESS(st))
        return st;
    KeAcquireSpinLock(&x->Lock, &irql);
    x->Live = TRUE;
    x->Awake = 1;
    QuernCardOn(q);
    KeReleaseSpinLock(&x->Lock, irql);
    due.QuadPart = -QUERN_TICK_MS * 10000LL;
    KeSetTimerEx(&q->Timer, due, QUERN_TICK_MS, &q->Tick);
    return STATUS_SUCCESS;
}

static VOID QuernStop(PREED x)
{
    PQUERN q = (PQUERN)x;
    LIST_ENTRY done;
    KIRQL irql;

    InitializeListHead(&done);
    KeCancelTimer(&q->Timer);
    KeAcquireSpinLock(&x->Lock, &irql);
    if (x->Live && x->Awake)
        QuernCardOff(q);
    x->Live = FALSE;
    ReedSift(&q->Queue, NULL, &done);
    ReedSift(&q->OnCard, NULL, &done);
    KeReleaseSpinLock(&x->Lock, irql);
    ReedEndAll(x, &done, STATUS_DEVICE_NOT_READY);
    ReedRelease(x);                 /* also waits for the two DPCs */
}

/* What the card was working on is done again after waking; its time goes on. */
static VOID QuernSleep(PREED x)
{
    PQUERN q = (PQUERN)x;
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    if (x->Live && x->Awake) {
        QuernCardOff(q);
        x->Awake = 0;
        if (!IsListEmpty(&q->OnCard)) {
            PLIST_ENTRY e = RemoveHeadList(&q->OnCard);

            InsertHeadList(&q->Queue, e);
        }
    }
    KeReleaseSpinLock(&x->Lock, irql);
    ReedFence(x);
}

static VOID QuernWake(PREED x)
{
    PQUERN q = (PQUERN)x;
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    if (x->Live && !x->Awake) {
        x->Awake = 1;
        QuernCardOn(q);
        QuernNext(q);
    }
    KeReleaseSpinLock(&x->Lock, irql);
}

static const REED_OPS QuernOps = {
    sizeof(QUERN), &QuernGuid, QuernSetup, QuernStart, QuernStop, QuernSleep, QuernWake
};

static NTSTATUS NTAPI QuernAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return ReedAdd(Driver, Pdo, &QuernOps);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    (VOID)Path;
    ReedDriver(Driver, QuernAdd);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = QuernControl;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = QuernCleanup;
    return STATUS_SUCCESS;
}

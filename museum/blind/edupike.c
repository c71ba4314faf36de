/*
 * edupike: factorials by QEMU's educational card, for programs that ask for one at a time; the others wait in a queue. A request that the card does not answer within
 * a tenth of a second ends with STATUS_IO_TIMEOUT.
 *
 * The bug: the routine of the time limit takes the current request without the lock, so it and the routine of the interrupt can both take the same one when the
 * answer comes as the limit ends. It is completed twice.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: double-completion, not-an-irp, use-after-free, remove-lock-tag
 * Needs: ioctl, schedule, device
 */
#include <ddk/wdm.h>
#include "../include/ward_frame.h"

static const GUID PikeFace = { 0x5d0c1c21, 0x6f0e, 0x4a0b, { 0x9a, 0x41, 0x27, 0x61, 0x0d, 0x5e, 0x12, 0x01 } };

#define IOCTL_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x871, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_STATISTIC CTL_CODE(FILE_DEVICE_UNKNOWN, 0x872, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define REG_ID        0x00
#define REG_FACTORIAL 0x08
#define REG_STATUS    0x20
#define   COMPUTING     0x01
#define   INTERRUPTS    0x80
#define REG_CAUSE     0x24
#define REG_ACK       0x64

#define LIMIT_MS 100

typedef struct _STATISTIC {
    ULONG Answered;
    ULONG TimedOut;
} STATISTIC;

typedef struct _PIKE {
    CRAFT Craft;
    QUAY Queue;
    KSPIN_LOCK Lock;                          /* of the next four; before that of Queue */
    PIRP Current;
    ULONGLONG Due;                            /* when Current has had its time */
    BOOLEAN Hold;                             /* nothing new is begun */
    STATISTIC Statistic;
    KTIMER Limit;
    KDPC LimitDpc;
    volatile LONG Cause;
} PIKE;

static const WINDOW *Regs(PIKE *p)
{
    return &p->Craft.Window[0];
}

/* Begins the next request if there is one and none is under way. */
static void Kick(PIKE *p)
{
    for (;;) {
        BOOLEAN stuck = FALSE;
        LARGE_INTEGER limit;
        PIRP irp = NULL;
        KIRQL irql;
        KeAcquireSpinLock(&p->Lock, &irql);
        if (!p->Hold && !p->Current)
            irp = QuayTake(&p->Queue, NULL);
        if (irp && Rd(Regs(p), REG_STATUS) & COMPUTING)
            stuck = TRUE;                     /* it is still at one that has timed out */
        else if (irp) {
            p->Current = irp;
            p->Due = KeQueryInterruptTime() + LIMIT_MS * 10000ull;
            Wr(Regs(p), REG_STATUS, INTERRUPTS);
            Wr(Regs(p), REG_FACTORIAL, *(ULONG *)irp->AssociatedIrp.SystemBuffer);
            limit.QuadPart = -LIMIT_MS * 10000ll;
            KeSetTimer(&p->Limit, limit, &p->LimitDpc);
        }
        KeReleaseSpinLock(&p->Lock, irql);
        if (!stuck)
            return;
        CraftFinish(&p->Craft, irp, STATUS_DEVICE_BUSY, 0);
    }
}

static VOID NTAPI LimitEnds(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    PIKE *p = context;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
#ifdef FIXED
    KeAcquireSpinLockAtDpcLevel(&p->Lock);
#endif
    /* the limit may be that of a request that has been answered */
    if (p->Current && KeQueryInterruptTime() >= p->Due) {
        irp = p->Current;
        p->Current = NULL;
        p->Statistic.TimedOut++;
    }
#ifdef FIXED
    KeReleaseSpinLockFromDpcLevel(&p->Lock);
#endif
    if (irp) {
        CraftFinish(&p->Craft, irp, STATUS_IO_TIMEOUT, 0);
        Kick(p);
    }
}

static BOOLEAN PikeIsr(CRAFT *s)
{
    PIKE *p = (PIKE *)s;
    ULONG cause = Rd(Regs(p), REG_CAUSE);
    if (cause == 0 || cause == ~0u)
        return FALSE;
    Wr(Regs(p), REG_ACK, cause);
    InterlockedOr(&p->Cause, (LONG)cause);
    KeInsertQueueDpc(&s->Dpc, NULL, NULL);
    return TRUE;
}

static void PikeDpc(CRAFT *s)
{
    PIKE *p = (PIKE *)s;
    ULONG result = 0;
    PIRP irp = NULL;

    if (InterlockedExchange(&p->Cause, 0) == 0)
        return;
    KeAcquireSpinLockAtDpcLevel(&p->Lock);
    if (p->Current && !(Rd(Regs(p), REG_STATUS) & COMPUTING)) {
        irp = p->Current;
        p->Current = NULL;
        KeCancelTimer(&p->Limit);
        result = Rd(Regs(p), REG_FACTORIAL);
        p->Statistic.Answered++;
    }
    KeReleaseSpinLockFromDpcLevel(&p->Lock);
    if (irp) {
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = result;
        CraftFinish(s, irp, STATUS_SUCCESS, sizeof result);
        Kick(p);
    }
}

static NTSTATUS PikeServe(CRAFT *s, PIRP irp, PIO_STACK_LOCATION sp)
{
    PIKE *p = (PIKE *)s;
    KIRQL irql;
    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_FACTORIAL:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) || sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        if (*(ULONG *)irp->AssociatedIrp.SystemBuffer > 12)
            return STATUS_INVALID_PARAMETER;  /* it would not fit into 32 bits */
        QuayPut(&p->Queue, irp);
        Kick(p);
        return STATUS_PENDING;
    case IOCTL_STATISTIC:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(STATISTIC))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&p->Lock, &irql);
        *(STATISTIC *)irp->AssociatedIrp.SystemBuffer = p->Statistic;
        KeReleaseSpinLock(&p->Lock, irql);
        irp->IoStatus.Information = sizeof(STATISTIC);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static NTSTATUS PikeStart(CRAFT *s)
{
    const WINDOW *w = &s->Window[0];
    if ((Rd(w, REG_ID) & 0xFFFF) != 0x00ED)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    Wr(w, REG_STATUS, 0);
    Wr(w, REG_ACK, Rd(w, REG_CAUSE));
    return STATUS_SUCCESS;
}

static void PikeArm(CRAFT *s)
{
    Wr(&s->Window[0], REG_ACK, Rd(&s->Window[0], REG_CAUSE));
}

static void PikeRun(CRAFT *s)
{
    PIKE *p = (PIKE *)s;
    KIRQL irql;
    KeAcquireSpinLock(&p->Lock, &irql);
    p->Hold = FALSE;
    KeReleaseSpinLock(&p->Lock, irql);
    Kick(p);
}

/* Lets the current request end; its limit sees to that it does. */
static void PikeDrain(CRAFT *s)
{
    PIKE *p = (PIKE *)s;
    LARGE_INTEGER bit;
    PIRP left = NULL;
    BOOLEAN busy;
    KIRQL irql;
    bit.QuadPart = -5 * 10000;
    for (;;) {
        KeAcquireSpinLock(&p->Lock, &irql);
        p->Hold = TRUE;
        if (s->Gone) {
            left = p->Current;
            p->Current = NULL;
        }
        busy = p->Current != NULL;
        KeReleaseSpinLock(&p->Lock, irql);
        if (!busy)
            break;
        KeDelayExecutionThread(KernelMode, FALSE, &bit);
    }
    if (left)
        CraftFinish(s, left, STATUS_NO_SUCH_DEVICE, 0);
}

static void PikeDisarm(CRAFT *s)
{
    Wr(&s->Window[0], REG_STATUS, 0);
    Wr(&s->Window[0], REG_ACK, Rd(&s->Window[0], REG_CAUSE));
}

static void PikeIdle(CRAFT *s)
{
    PIKE *p = (PIKE *)s;
    KeCancelTimer(&p->Limit);
    KeFlushQueuedDpcs();
    InterlockedExchange(&p->Cause, 0);
}

static void PikeScuttle(CRAFT *s)
{
    QuayFlush(&((PIKE *)s)->Queue, NULL, STATUS_DELETE_PENDING);
}

static void PikeCleanup(CRAFT *s, PFILE_OBJECT file)
{
    QuayFlush(&((PIKE *)s)->Queue, file, STATUS_CANCELLED);
}

static NTSTATUS PikeOutfit(CRAFT *s)
{
    PIKE *p = (PIKE *)s;
    KeInitializeSpinLock(&p->Lock);
    KeInitializeTimer(&p->Limit);
    KeInitializeDpc(&p->LimitDpc, LimitEnds, p);
    return QuayInit(&p->Queue, &s->Lock);
}

static const PLAN PikePlan = {
    .Size = sizeof(PIKE),
    .Face = &PikeFace,
    .Buffering = DO_BUFFERED_IO,
    .Windows = 1,
    .Least = { 0x100 },
    .Line = TRUE,
    .Outfit = PikeOutfit,
    .Start = PikeStart,
    .Arm = PikeArm,
    .Run = PikeRun,
    .Drain = PikeDrain,
    .Disarm = PikeDisarm,
    .Idle = PikeIdle,
    .Scuttle = PikeScuttle,
    .Isr = PikeIsr,
    .Dpc = PikeDpc,
    .Serve = PikeServe,
    .Cleanup = PikeCleanup,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return CraftInstall(driver, &PikePlan);
}

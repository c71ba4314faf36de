/*
 * PENDULUM: a clock beat for applications (root device). IOCTL_SWING sets the pendulum swinging with a period of 10 to 10000 ms,
 * IOCTL_REST stops it, IOCTL_BEAT waits for the next beat and gives its number. The pendulum is held while the device is stopped or a
 * removal is being asked for, and swings on afterwards.
 *
 * The bug: holding it twice (query-stop, then stop) forgets that it was swinging; after the next start it does not swing on and those
 * who wait for a beat wait for ever.
 *
 * Device: ROOT\PENDULUM
 * Rule: request-forgotten
 * Needs: removal
 */
#include "../include/quay_queue.h"

#define PERIOD_LEAST    10
#define PERIOD_MOST     10000
#define PER_BEAT        64          /* requests ended by one beat at most */

#define IOCTL_SWING     AI_CTL(0, METHOD_BUFFERED)      /* in: ULONG milliseconds */
#define IOCTL_REST      AI_CTL(1, METHOD_BUFFERED)
#define IOCTL_BEAT      AI_CTL(2, METHOD_BUFFERED)      /* out: ULONG number */
#define IOCTL_LOOK      AI_CTL(3, METHOD_BUFFERED)      /* out: ULONG swinging, period, beats */

static const GUID PendulumGuid = { 0x2f6b1c10, 0x77a1, 0x4e0b, { 0x91, 0x3c, 0x5a, 0x01, 0x6e, 0x20, 0x44, 0x03 } };

typedef struct _CLOCK {
    AI_FDO F;
    AI_QUEUE Waiting;
    KTIMER Timer;
    KDPC Dpc;
    KSPIN_LOCK Lock;                /* the rest, and setting and cancelling the timer */
    BOOLEAN Swinging;
    BOOLEAN Held;                   /* to swing on when the device does */
    ULONG Period;
    ULONG Beats;
} CLOCK;

/* Lock held */
static VOID Go(CLOCK *c)
{
    LARGE_INTEGER first;

    c->Swinging = TRUE;
    first.QuadPart = -10000LL * c->Period;
    KeSetTimerEx(&c->Timer, first, (LONG)c->Period, &c->Dpc);
}

/* Lock held */
static VOID Rest(CLOCK *c)
{
    c->Swinging = FALSE;
    KeCancelTimer(&c->Timer);
}

static VOID NTAPI BeatDpc(PKDPC dpc, PVOID context, PVOID a1, PVOID a2)
{
    CLOCK *c = context;
    ULONG n, beat;
    PIRP irp;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    KeAcquireSpinLockAtDpcLevel(&c->Lock);
    if (!c->Swinging) {
        KeReleaseSpinLockFromDpcLevel(&c->Lock);
        return;
    }
    beat = ++c->Beats;
    KeReleaseSpinLockFromDpcLevel(&c->Lock);

    for (n = 0; n < PER_BEAT; n++) {
        irp = AiQueueGet(&c->Waiting, NULL);
        if (!irp)
            break;
        *(PULONG)AiBuffer(irp) = beat;
        AiFinish(&c->F, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT dev, PIRP irp)
{
    CLOCK *c = dev->DeviceExtension;
    PULONG v = AiBuffer(irp);
    NTSTATUS s = AiEnter(&c->F, irp);
    KIRQL q;

    if (!NT_SUCCESS(s))
        return AiDone(irp, s, 0);
    switch (AiCode(irp)) {
    case IOCTL_SWING:
        if (AiInLen(irp) < sizeof(ULONG) || v[0] < PERIOD_LEAST || v[0] > PERIOD_MOST)
            return AiExit(&c->F, irp, STATUS_INVALID_PARAMETER, 0);
        KeAcquireSpinLock(&c->Lock, &q);
        c->Period = v[0];
        Go(c);
        KeReleaseSpinLock(&c->Lock, q);
        return AiExit(&c->F, irp, STATUS_SUCCESS, 0);

    case IOCTL_REST:
        KeAcquireSpinLock(&c->Lock, &q);
        Rest(c);
        KeReleaseSpinLock(&c->Lock, q);
        return AiExit(&c->F, irp, STATUS_SUCCESS, 0);

    case IOCTL_BEAT:
        if (AiOutLen(irp) < sizeof(ULONG))
            return AiExit(&c->F, irp, STATUS_BUFFER_TOO_SMALL, 0);
        AiQueuePut(&c->Waiting, irp);
        AiLeaveGate(&c->F);
        return STATUS_PENDING;

    case IOCTL_LOOK:
        if (AiOutLen(irp) < 3 * sizeof(ULONG))
            return AiExit(&c->F, irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&c->Lock, &q);
        v[0] = c->Swinging;
        v[1] = c->Period;
        v[2] = c->Beats;
        KeReleaseSpinLock(&c->Lock, q);
        return AiExit(&c->F, irp, STATUS_SUCCESS, 3 * sizeof(ULONG));

    default:
        return AiExit(&c->F, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    CLOCK *c = dev->DeviceExtension;

    AiQueueFlush(&c->Waiting, AiStack(irp)->FileObject, STATUS_CANCELLED);
    return AiDone(irp, STATUS_SUCCESS, 0);
}

static VOID Pause(PAI_FDO f)
{
    CLOCK *c = (CLOCK *)f;
    KIRQL q;

    KeAcquireSpinLock(&c->Lock, &q);
#ifdef FIXED
    if (c->Swinging)
        c->Held = TRUE;
#else
    c->Held = c->Swinging;
#endif
    Rest(c);
    KeReleaseSpinLock(&c->Lock, q);
}

static VOID Resume(PAI_FDO f)
{
    CLOCK *c = (CLOCK *)f;
    KIRQL q;

    KeAcquireSpinLock(&c->Lock, &q);
    if (c->Held) {
        c->Held = FALSE;
        Go(c);
    }
    KeReleaseSpinLock(&c->Lock, q);
}

static VOID Flush(PAI_FDO f)
{
    AiQueueFlush(&((CLOCK *)f)->Waiting, NULL, STATUS_NO_SUCH_DEVICE);
}

static VOID Gone(PAI_FDO f)
{
    CLOCK *c = (CLOCK *)f;

    KeCancelTimer(&c->Timer);
    KeFlushQueuedDpcs();
}

static const AI_OPS Ops = { .Flush = Flush, .Pause = Pause, .Resume = Resume, .Gone = Gone };

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    PVOID p;
    CLOCK *c;
    NTSTATUS s = AiAdd(drv, pdo, sizeof(CLOCK), &Ops, &PendulumGuid, 0, &p);

    if (!NT_SUCCESS(s))
        return s;
    c = p;
    AiQueueInit(&c->Waiting, &c->F);
    KeInitializeSpinLock(&c->Lock);
    KeInitializeTimer(&c->Timer);
    KeInitializeDpc(&c->Dpc, BeatDpc, c);
    AiReady(&c->F);
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    AiEntry(drv, AddDevice, Control);
    drv->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    return STATUS_SUCCESS;
}

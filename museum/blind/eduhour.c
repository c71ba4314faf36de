/*
 * EDUHOUR: factorials by QEMU's edu card, with a watchdog. IOCTL_FACTORIAL waits in a queue and is on the card alone; the interrupt ends
 * it. A card that does not answer within two seconds is taken for broken: the request ends with STATUS_IO_TIMEOUT, all others fail until
 * the device is started again. IOCTL_HEALTH tells whether the card is thought to be well.
 *
 * The bug: when the interrupt comes just as the watchdog expires, its timer cannot be cancelled any more; the watchdog's DPC then ends
 * the next request, begun only now, and calls the card broken.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: request-refused
 * Needs: schedule, device
 */
#include "../include/quay_edu.h"
#include "../include/quay_queue.h"

#define NUMBER_MOST 12
#define PATIENCE    (-20000000LL)   /* two seconds */

#define IOCTL_FACTORIAL AI_CTL(0, METHOD_BUFFERED)      /* in: ULONG, out: ULONG */
#define IOCTL_HEALTH    AI_CTL(1, METHOD_BUFFERED)      /* out: HEALTH */

static const GUID HourGuid = { 0x2f6b1c10, 0x77a1, 0x4e0b, { 0x91, 0x3c, 0x5a, 0x01, 0x6e, 0x20, 0x44, 0x15 } };

typedef struct _HEALTH {
    ULONG Broken;
    ULONG Done;
    ULONG TimedOut;
} HEALTH;

typedef struct _HOUR {
    AI_CARD C;
    AI_ENGINE E;
    KTIMER Watch;
    KDPC WatchDpc;
    /* the engine's lock: */
    BOOLEAN Stale;                  /* a watchdog's DPC is on its way whose request has ended */
    BOOLEAN Broken;
    ULONG Done, TimedOut;
} HOUR;

static NTSTATUS Begin(PAI_FDO f, PIRP irp)
{
    HOUR *x = (HOUR *)f;
    LARGE_INTEGER t;
    NTSTATUS s;

    if (x->Broken)
        return STATUS_IO_DEVICE_ERROR;
    s = AiEduCompute(&x->C, *(PULONG)AiBuffer(irp));
    if (!NT_SUCCESS(s))
        return s;
    t.QuadPart = PATIENCE;
    KeSetTimer(&x->Watch, t, &x->WatchDpc);
    return STATUS_PENDING;
}

static VOID Collect(PAI_FDO f, PIRP irp)
{
    HOUR *x = (HOUR *)f;

#ifdef FIXED
    if (!KeCancelTimer(&x->Watch))
        x->Stale = TRUE;
#else
    KeCancelTimer(&x->Watch);
#endif
    if (AiEduProduct(&x->C, AiBuffer(irp))) {
        irp->IoStatus.Status = STATUS_SUCCESS;
        irp->IoStatus.Information = sizeof(ULONG);
        x->Done++;
    } else {
        irp->IoStatus.Status = STATUS_DEVICE_NOT_CONNECTED;
        irp->IoStatus.Information = 0;
    }
}

static VOID NTAPI DoneDpc(PKDPC dpc, PVOID context, PVOID a1, PVOID a2)
{
    HOUR *x = context;
    PIRP irp;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    if (!(AiCause(&x->C) & EDU_INT_FACT))
        return;
    irp = AiEngineTake(&x->E, Collect);
    if (irp)
        AiFinish(&x->C.F, irp, irp->IoStatus.Status, irp->IoStatus.Information);
    AiEngineKick(&x->E);
}

static VOID NTAPI WatchExpired(PKDPC dpc, PVOID context, PVOID a1, PVOID a2)
{
    HOUR *x = context;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    KeAcquireSpinLockAtDpcLevel(&x->E.Lock);
    if (x->Stale) {
        x->Stale = FALSE;
    } else if (x->E.Current) {
        irp = x->E.Current;
        x->E.Current = NULL;
        KeSetEvent(&x->E.Idle, IO_NO_INCREMENT, FALSE);
        x->Broken = TRUE;
        x->TimedOut++;
    }
    KeReleaseSpinLockFromDpcLevel(&x->E.Lock);
    if (irp) {
        AiFinish(&x->C.F, irp, STATUS_IO_TIMEOUT, 0);
        AiEngineKick(&x->E);        /* ends the others */
    }
}

static VOID Health(HOUR *x, HEALTH *h)
{
    KIRQL q;

    KeAcquireSpinLock(&x->E.Lock, &q);
    h->Broken = x->Broken;
    h->Done = x->Done;
    h->TimedOut = x->TimedOut;
    KeReleaseSpinLock(&x->E.Lock, q);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT dev, PIRP irp)
{
    HOUR *x = dev->DeviceExtension;
    PAI_FDO f = &x->C.F;
    NTSTATUS s = AiEnter(f, irp);

    if (!NT_SUCCESS(s))
        return AiDone(irp, s, 0);
    switch (AiCode(irp)) {
    case IOCTL_FACTORIAL:
        if (AiInLen(irp) < sizeof(ULONG) || AiOutLen(irp) < sizeof(ULONG))
            return AiExit(f, irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (*(PULONG)AiBuffer(irp) > NUMBER_MOST)
            return AiExit(f, irp, STATUS_INVALID_PARAMETER, 0);
        AiQueuePut(&x->E.Q, irp);
        AiEngineKick(&x->E);
        AiLeaveGate(f);
        return STATUS_PENDING;

    case IOCTL_HEALTH:
        if (AiOutLen(irp) < sizeof(HEALTH))
            return AiExit(f, irp, STATUS_BUFFER_TOO_SMALL, 0);
        Health(x, AiBuffer(irp));
        return AiExit(f, irp, STATUS_SUCCESS, sizeof(HEALTH));

    default:
        return AiExit(f, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    HOUR *x = dev->DeviceExtension;

    AiQueueFlush(&x->E.Q, AiStack(irp)->FileObject, STATUS_CANCELLED);
    return AiDone(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS Start(PAI_FDO f, PCM_RESOURCE_LIST list)
{
    HOUR *x = (HOUR *)f;
    NTSTATUS s = AiEduStart(&x->C, list, AiEduIsr);

    if (NT_SUCCESS(s))
        x->Broken = FALSE;
    return s;
}

/* PASSIVE: nothing on the card, no watchdog about */
static VOID CloseEngine(HOUR *x)
{
    PIRP irp = AiEngineClose(&x->E);
    KIRQL q;

    if (irp)
        AiFinish(&x->C.F, irp, STATUS_DEVICE_NOT_READY, 0);
    KeCancelTimer(&x->Watch);
    KeFlushQueuedDpcs();
    KeAcquireSpinLock(&x->E.Lock, &q);
    x->Stale = FALSE;
    KeReleaseSpinLock(&x->E.Lock, q);
}

static VOID Halt(PAI_FDO f)
{
    HOUR *x = (HOUR *)f;

    CloseEngine(x);
    AiEduStop(&x->C);
}

static VOID Flush(PAI_FDO f)
{
    AiQueueFlush(&((HOUR *)f)->E.Q, NULL, STATUS_NO_SUCH_DEVICE);
}

static VOID Resume(PAI_FDO f)
{
    AiEngineOpen(&((HOUR *)f)->E);
}

static VOID PowerDown(PAI_FDO f)
{
    HOUR *x = (HOUR *)f;

    CloseEngine(x);
    AiEduQuiet(&x->C);
}

static VOID PowerUp(PAI_FDO f)
{
    HOUR *x = (HOUR *)f;

    AiEduWake(&x->C);
    AiEngineOpen(&x->E);
}

static const AI_OPS Ops = { .Start = Start, .Halt = Halt, .Flush = Flush, .Resume = Resume, .PowerDown = PowerDown, .PowerUp = PowerUp };

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    PVOID p;
    HOUR *x;
    NTSTATUS s = AiAdd(drv, pdo, sizeof(HOUR), &Ops, &HourGuid, 0, &p);

    if (!NT_SUCCESS(s))
        return s;
    x = p;
    KeInitializeDpc(&x->C.Dpc, DoneDpc, x);
    KeInitializeTimer(&x->Watch);
    KeInitializeDpc(&x->WatchDpc, WatchExpired, x);
    AiEngineInit(&x->E, &x->C.F, Begin);
    AiReady(&x->C.F);
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    AiEntry(drv, AddDevice, Control);
    drv->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    return STATUS_SUCCESS;
}

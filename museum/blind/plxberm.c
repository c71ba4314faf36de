/*
 * PLXBERM: waits for a level alarm on LINTi1 of a card with a PLX PCI 9052. IOCTL_ALARM arms the line and waits until it is high; the
 * interrupt routine disarms it, the DPC ends all who wait. LINTi2 is polled only: IOCTL_LEVELS tells the state of both lines,
 * IOCTL_SENSE sets the polarity in which LINTi2 is looked at.
 *
 * The bug: IOCTL_SENSE changes INTCSR under a plain spin lock, all else under the interrupt's; an arming (or disarming) that falls
 * between its reading and its writing is undone, and who has just armed the line waits for ever.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: register-update-lost, register-update-race
 * Needs: schedule, device
 */
#include "../include/quay_plx.h"
#include "../include/quay_queue.h"

#define AT_ONCE     256

#define IOCTL_ALARM     AI_CTL(0, METHOD_BUFFERED)      /* out: ULONG alarms so far */
#define IOCTL_LEVELS    AI_CTL(1, METHOD_BUFFERED)      /* out: ULONG line 1, ULONG line 2 */
#define IOCTL_SENSE     AI_CTL(2, METHOD_BUFFERED)      /* in: ULONG, 1 = active high */

static const GUID BermGuid = { 0x2f6b1c10, 0x77a1, 0x4e0b, { 0x91, 0x3c, 0x5a, 0x01, 0x6e, 0x20, 0x44, 0x21 } };

typedef struct _BERM {
    AI_CARD C;
    AI_QUEUE Waiting;
    KSPIN_LOCK Lock;
    ULONG Sense;                    /* PLX_INT2_HIGH or 0 */
    volatile LONG Alarms;
} BERM;

static BOOLEAN NTAPI Isr(PKINTERRUPT i, PVOID context)
{
    BERM *x = context;
    ULONG v;

    UNREFERENCED_PARAMETER(i);
    if (!x->C.Live)
        return FALSE;
    v = AiRead(&x->C, PLX_INTCSR);
    if (v == PLX_GONE || !(v & PLX_INT1_ON) || !(v & PLX_INT1_NOW))
        return FALSE;
    AiWrite(&x->C, PLX_INTCSR, v & ~PLX_INT1_ON);
    x->C.Cause++;
    KeInsertQueueDpc(&x->C.Dpc, NULL, NULL);
    return TRUE;
}

static VOID Arm(BERM *x)
{
    KIRQL q = KeAcquireInterruptSpinLock(x->C.Int);

    if (x->C.Live)
        AiWrite(&x->C, PLX_INTCSR, AiRead(&x->C, PLX_INTCSR) | PLX_INT1_ON);
    KeReleaseInterruptSpinLock(x->C.Int, q);
}

static VOID NTAPI AlarmDpc(PKDPC dpc, PVOID context, PVOID a1, PVOID a2)
{
    BERM *x = context;
    ULONG n, alarms, cause;
    PIRP irp;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    cause = AiCause(&x->C);
    if (!cause)
        return;
    alarms = (ULONG)InterlockedExchangeAdd(&x->Alarms, (LONG)cause) + cause;
    for (n = 0; n < AT_ONCE; n++) {
        irp = AiQueueGet(&x->Waiting, NULL);
        if (!irp)
            return;
        *(PULONG)AiBuffer(irp) = alarms;
        AiFinish(&x->C.F, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    Arm(x);                         /* for those who still wait */
}

static NTSTATUS Sense(BERM *x, ULONG high)
{
    NTSTATUS s = STATUS_DEVICE_NOT_READY;
    ULONG v;
    KIRQL q;

#ifdef FIXED
    q = KeAcquireInterruptSpinLock(x->C.Int);
#else
    KeAcquireSpinLock(&x->Lock, &q);
#endif
    x->Sense = high ? PLX_INT2_HIGH : 0;
    if (x->C.Live) {
        v = AiRead(&x->C, PLX_INTCSR);
        if (v == PLX_GONE) {
            s = STATUS_DEVICE_NOT_CONNECTED;
        } else {
            AiWrite(&x->C, PLX_INTCSR, (v & ~PLX_INT2_HIGH) | x->Sense);
            s = STATUS_SUCCESS;
        }
    }
#ifdef FIXED
    KeReleaseInterruptSpinLock(x->C.Int, q);
#else
    KeReleaseSpinLock(&x->Lock, q);
#endif
    return s;
}

static NTSTATUS Levels(BERM *x, PULONG out)
{
    NTSTATUS s = STATUS_DEVICE_NOT_READY;
    KIRQL q = KeAcquireInterruptSpinLock(x->C.Int);

    if (x->C.Live) {
        ULONG v = AiRead(&x->C, PLX_INTCSR);

        s = v == PLX_GONE ? STATUS_DEVICE_NOT_CONNECTED : STATUS_SUCCESS;
        out[0] = (v & PLX_INT1_NOW) != 0;
        out[1] = (v & PLX_INT2_NOW) != 0;
    }
    KeReleaseInterruptSpinLock(x->C.Int, q);
    return s;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT dev, PIRP irp)
{
    BERM *x = dev->DeviceExtension;
    PAI_FDO f = &x->C.F;
    NTSTATUS s = AiEnter(f, irp);

    if (!NT_SUCCESS(s))
        return AiDone(irp, s, 0);
    switch (AiCode(irp)) {
    case IOCTL_ALARM:
        if (AiOutLen(irp) < sizeof(ULONG))
            return AiExit(f, irp, STATUS_BUFFER_TOO_SMALL, 0);
        AiQueuePut(&x->Waiting, irp);
        Arm(x);
        AiLeaveGate(f);
        return STATUS_PENDING;

    case IOCTL_LEVELS:
        if (AiOutLen(irp) < 2 * sizeof(ULONG))
            return AiExit(f, irp, STATUS_BUFFER_TOO_SMALL, 0);
        s = Levels(x, AiBuffer(irp));
        return AiExit(f, irp, s, NT_SUCCESS(s) ? 2 * sizeof(ULONG) : 0);

    case IOCTL_SENSE:
        if (AiInLen(irp) < sizeof(ULONG) || *(PULONG)AiBuffer(irp) > 1)
            return AiExit(f, irp, STATUS_INVALID_PARAMETER, 0);
        return AiExit(f, irp, Sense(x, *(PULONG)AiBuffer(irp)), 0);

    default:
        return AiExit(f, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    BERM *x = dev->DeviceExtension;

    AiQueueFlush(&x->Waiting, AiStack(irp)->FileObject, STATUS_CANCELLED);
    return AiDone(irp, STATUS_SUCCESS, 0);
}

/* armed: someone may have waited while the card was stopped or asleep */
static VOID GoLive(BERM *x)
{
    AiPlxLive(&x->C, PLX_PCI_ON | PLX_INT1_HIGH | PLX_INT1_ON | x->Sense);
}

static NTSTATUS Start(PAI_FDO f, PCM_RESOURCE_LIST list)
{
    BERM *x = (BERM *)f;
    NTSTATUS s = AiPlxStart(&x->C, list, Isr, FALSE);

    if (NT_SUCCESS(s))
        GoLive(x);
    return s;
}

static VOID Halt(PAI_FDO f)
{
    AiPlxStop((PAI_CARD)f);
}

static VOID Flush(PAI_FDO f)
{
    AiQueueFlush(&((BERM *)f)->Waiting, NULL, STATUS_NO_SUCH_DEVICE);
}

static VOID PowerDown(PAI_FDO f)
{
    AiPlxQuiet((PAI_CARD)f);
}

static VOID PowerUp(PAI_FDO f)
{
    GoLive((BERM *)f);
}

static const AI_OPS Ops = { .Start = Start, .Halt = Halt, .Flush = Flush, .PowerDown = PowerDown, .PowerUp = PowerUp };

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    PVOID p;
    BERM *x;
    NTSTATUS s = AiAdd(drv, pdo, sizeof(BERM), &Ops, &BermGuid, 0, &p);

    if (!NT_SUCCESS(s))
        return s;
    x = p;
    KeInitializeDpc(&x->C.Dpc, AlarmDpc, x);
    AiQueueInit(&x->Waiting, &x->C.F);
    KeInitializeSpinLock(&x->Lock);
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

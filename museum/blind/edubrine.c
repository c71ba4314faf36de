/*
 * EDUBRINE: tries the interrupt of QEMU's edu card. IOCTL_RAISE writes a pattern to the card's raise register and waits until the card
 * interrupts with it; it gives back what the interrupt status register held. IOCTL_COUNT tells how many interrupts were ours. One
 * pattern is on the card at a time.
 *
 * The bug: the interrupt routine does not know the all ones of a card that was pulled; it then claims every interrupt of its shared
 * line, also those of other devices, and ends the request as if the card had answered.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: interrupt-claimed-without-card, interrupt-storm
 * Needs: removal, device
 */
#include "../include/quay_edu.h"
#include "../include/quay_queue.h"

#define PATTERN_MOST    0xFFFF

#define IOCTL_RAISE     AI_CTL(0, METHOD_BUFFERED)      /* in: ULONG pattern, out: ULONG */
#define IOCTL_COUNT     AI_CTL(1, METHOD_BUFFERED)      /* out: ULONG */

static const GUID BrineGuid = { 0x2f6b1c10, 0x77a1, 0x4e0b, { 0x91, 0x3c, 0x5a, 0x01, 0x6e, 0x20, 0x44, 0x13 } };

typedef struct _BRINE {
    AI_CARD C;
    AI_ENGINE E;
    ULONG Ours;                     /* interrupt lock */
    volatile LONG Seen;             /* what ended the request on the card */
} BRINE;

static BOOLEAN NTAPI Isr(PKINTERRUPT i, PVOID context)
{
    BRINE *x = context;
    ULONG st;

    UNREFERENCED_PARAMETER(i);
    if (!x->C.Live)
        return FALSE;
    st = AiRead(&x->C, EDU_INTST);
#ifdef FIXED
    if (st == 0 || st == EDU_GONE)
        return FALSE;
#else
    if (st == 0)
        return FALSE;
#endif
    AiWrite(&x->C, EDU_ACK, st);
    x->C.Cause |= st;
    x->Ours++;
    KeInsertQueueDpc(&x->C.Dpc, NULL, NULL);
    return TRUE;
}

static NTSTATUS Begin(PAI_FDO f, PIRP irp)
{
    BRINE *x = (BRINE *)f;
    NTSTATUS s = STATUS_PENDING;
    KIRQL q = KeAcquireInterruptSpinLock(x->C.Int);

    if (!x->C.Live)
        s = STATUS_DEVICE_NOT_READY;
    else if (AiRead(&x->C, EDU_ID) == EDU_GONE)
        s = STATUS_DEVICE_NOT_CONNECTED;
    else
        AiWrite(&x->C, EDU_RAISE, *(PULONG)AiBuffer(irp));
    KeReleaseInterruptSpinLock(x->C.Int, q);
    return s;
}

static VOID Collect(PAI_FDO f, PIRP irp)
{
    BRINE *x = (BRINE *)f;

    *(PULONG)AiBuffer(irp) = (ULONG)x->Seen;
    irp->IoStatus.Status = STATUS_SUCCESS;
    irp->IoStatus.Information = sizeof(ULONG);
}

static VOID NTAPI SeenDpc(PKDPC dpc, PVOID context, PVOID a1, PVOID a2)
{
    BRINE *x = context;
    ULONG cause;
    PIRP irp;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    cause = AiCause(&x->C);
    if (!cause)
        return;
    InterlockedExchange(&x->Seen, (LONG)cause);
    irp = AiEngineTake(&x->E, Collect);
    if (irp)
        AiFinish(&x->C.F, irp, irp->IoStatus.Status, irp->IoStatus.Information);
    AiEngineKick(&x->E);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT dev, PIRP irp)
{
    BRINE *x = dev->DeviceExtension;
    PAI_FDO f = &x->C.F;
    PULONG v = AiBuffer(irp);
    NTSTATUS s = AiEnter(f, irp);
    KIRQL q;

    if (!NT_SUCCESS(s))
        return AiDone(irp, s, 0);
    switch (AiCode(irp)) {
    case IOCTL_RAISE:
        if (AiInLen(irp) < sizeof(ULONG) || AiOutLen(irp) < sizeof(ULONG))
            return AiExit(f, irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (v[0] == 0 || v[0] > PATTERN_MOST)
            return AiExit(f, irp, STATUS_INVALID_PARAMETER, 0);
        AiQueuePut(&x->E.Q, irp);
        AiEngineKick(&x->E);
        AiLeaveGate(f);
        return STATUS_PENDING;

    case IOCTL_COUNT:
        if (AiOutLen(irp) < sizeof(ULONG))
            return AiExit(f, irp, STATUS_BUFFER_TOO_SMALL, 0);
        q = KeAcquireInterruptSpinLock(x->C.Int);
        v[0] = x->Ours;
        KeReleaseInterruptSpinLock(x->C.Int, q);
        return AiExit(f, irp, STATUS_SUCCESS, sizeof(ULONG));

    default:
        return AiExit(f, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    BRINE *x = dev->DeviceExtension;

    AiQueueFlush(&x->E.Q, AiStack(irp)->FileObject, STATUS_CANCELLED);
    return AiDone(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS Start(PAI_FDO f, PCM_RESOURCE_LIST list)
{
    return AiEduStart((PAI_CARD)f, list, Isr);
}

static VOID CloseEngine(BRINE *x)
{
    PIRP irp = AiEngineClose(&x->E);

    if (irp)
        AiFinish(&x->C.F, irp, STATUS_DEVICE_NOT_READY, 0);
}

static VOID Halt(PAI_FDO f)
{
    BRINE *x = (BRINE *)f;

    CloseEngine(x);
    AiEduStop(&x->C);
}

static VOID Flush(PAI_FDO f)
{
    AiQueueFlush(&((BRINE *)f)->E.Q, NULL, STATUS_NO_SUCH_DEVICE);
}

static VOID Resume(PAI_FDO f)
{
    AiEngineOpen(&((BRINE *)f)->E);
}

static VOID PowerDown(PAI_FDO f)
{
    BRINE *x = (BRINE *)f;

    CloseEngine(x);
    AiEduQuiet(&x->C);
}

static VOID PowerUp(PAI_FDO f)
{
    BRINE *x = (BRINE *)f;

    AiEduWake(&x->C);
    AiEngineOpen(&x->E);
}

static const AI_OPS Ops = { .Start = Start, .Halt = Halt, .Flush = Flush, .Resume = Resume, .PowerDown = PowerDown, .PowerUp = PowerUp };

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    PVOID p;
    BRINE *x;
    NTSTATUS s = AiAdd(drv, pdo, sizeof(BRINE), &Ops, &BrineGuid, 0, &p);

    if (!NT_SUCCESS(s))
        return s;
    x = p;
    KeInitializeDpc(&x->C.Dpc, SeenDpc, x);
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

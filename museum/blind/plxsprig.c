/*
 * PLXSPRIG: counts pulses on LINTi2 of a card with a PLX PCI 9052 (edge triggered). IOCTL_PULSES gives the pulses that came since the
 * last one asked, and waits for the next when there were none; one may wait at a time. IOCTL_TOTAL tells all pulses since the start.
 *
 * The bug: a request that was cancelled before it got its cancel routine is kept waiting all the same; no one calls the routine any
 * more, and the request (and its thread) does not end until a pulse comes.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: cancellation-missed
 * Needs: cancel, schedule
 */
#include "../include/quay_plx.h"

#define IOCTL_PULSES    AI_CTL(0, METHOD_BUFFERED)      /* out: ULONG */
#define IOCTL_TOTAL     AI_CTL(1, METHOD_BUFFERED)      /* out: ULONG */

static const GUID SprigGuid = { 0x2f6b1c10, 0x77a1, 0x4e0b, { 0x91, 0x3c, 0x5a, 0x01, 0x6e, 0x20, 0x44, 0x22 } };

typedef struct _SPRIG {
    AI_CARD C;                      /* Cause: pulses the ISR has counted */
    KSPIN_LOCK Lock;                /* below */
    PIRP Waiter;
    ULONG Fresh;                    /* pulses no one has asked for */
    ULONG Total;
} SPRIG;

static BOOLEAN NTAPI Isr(PKINTERRUPT i, PVOID context)
{
    SPRIG *x = context;
    ULONG v;

    UNREFERENCED_PARAMETER(i);
    if (!x->C.Live)
        return FALSE;
    v = AiRead(&x->C, PLX_INTCSR);
    if (v == PLX_GONE || !(v & PLX_INT2_ON) || !(v & PLX_INT2_NOW))
        return FALSE;
    AiWrite(&x->C, PLX_INTCSR, v | PLX_INT2_CLEAR);
    x->C.Cause++;
    KeInsertQueueDpc(&x->C.Dpc, NULL, NULL);
    return TRUE;
}

/* Lock held: takes the waiter unless it is being cancelled */
static PIRP TakeWaiter(SPRIG *x, PFILE_OBJECT file)
{
    PIRP irp = x->Waiter;

    if (!irp || (file && AiStack(irp)->FileObject != file) || !IoSetCancelRoutine(irp, NULL))
        return NULL;
    x->Waiter = NULL;
    return irp;
}

static VOID NTAPI PulseDpc(PKDPC dpc, PVOID context, PVOID a1, PVOID a2)
{
    SPRIG *x = context;
    ULONG pulses = AiCause(&x->C), n = 0;
    PIRP irp;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    if (!pulses)
        return;
    KeAcquireSpinLockAtDpcLevel(&x->Lock);
    x->Total += pulses;
    x->Fresh += pulses;
    irp = TakeWaiter(x, NULL);
    if (irp) {
        n = x->Fresh;
        x->Fresh = 0;
    }
    KeReleaseSpinLockFromDpcLevel(&x->Lock);
    if (irp) {
        *(PULONG)AiBuffer(irp) = n;
        AiFinish(&x->C.F, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static VOID NTAPI CancelWaiter(PDEVICE_OBJECT dev, PIRP irp)
{
    SPRIG *x = dev->DeviceExtension;
    KIRQL q;

    IoReleaseCancelSpinLock(irp->CancelIrql);
    KeAcquireSpinLock(&x->Lock, &q);
    if (x->Waiter == irp)
        x->Waiter = NULL;
    KeReleaseSpinLock(&x->Lock, q);
    AiFinish(&x->C.F, irp, STATUS_CANCELLED, 0);
}

/* the request has passed the gate */
static NTSTATUS Pulses(SPRIG *x, PIRP irp)
{
    PAI_FDO f = &x->C.F;
    KIRQL q;

    KeAcquireSpinLock(&x->Lock, &q);
    if (x->Waiter) {
        KeReleaseSpinLock(&x->Lock, q);
        return AiExit(f, irp, STATUS_DEVICE_BUSY, 0);
    }
    if (x->Fresh) {
        *(PULONG)AiBuffer(irp) = x->Fresh;
        x->Fresh = 0;
        KeReleaseSpinLock(&x->Lock, q);
        return AiExit(f, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    IoMarkIrpPending(irp);
    IoSetCancelRoutine(irp, CancelWaiter);
#ifdef FIXED
    if (irp->Cancel && IoSetCancelRoutine(irp, NULL)) {
        /* cancelled before; when the routine is already gone, it is running and waits for the lock */
        KeReleaseSpinLock(&x->Lock, q);
        AiExit(f, irp, STATUS_CANCELLED, 0);
        return STATUS_PENDING;
    }
#endif
    x->Waiter = irp;
    KeReleaseSpinLock(&x->Lock, q);
    AiLeaveGate(f);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT dev, PIRP irp)
{
    SPRIG *x = dev->DeviceExtension;
    PAI_FDO f = &x->C.F;
    NTSTATUS s = AiEnter(f, irp);
    KIRQL q;

    if (!NT_SUCCESS(s))
        return AiDone(irp, s, 0);
    switch (AiCode(irp)) {
    case IOCTL_PULSES:
        if (AiOutLen(irp) < sizeof(ULONG))
            return AiExit(f, irp, STATUS_BUFFER_TOO_SMALL, 0);
        return Pulses(x, irp);

    case IOCTL_TOTAL:
        if (AiOutLen(irp) < sizeof(ULONG))
            return AiExit(f, irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&x->Lock, &q);
        *(PULONG)AiBuffer(irp) = x->Total;
        KeReleaseSpinLock(&x->Lock, q);
        return AiExit(f, irp, STATUS_SUCCESS, sizeof(ULONG));

    default:
        return AiExit(f, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

/* ends the waiter, of one handle or of any; one that is being cancelled ends by itself */
static VOID EndWaiter(SPRIG *x, PFILE_OBJECT file, NTSTATUS s)
{
    PIRP irp;
    KIRQL q;

    KeAcquireSpinLock(&x->Lock, &q);
    irp = TakeWaiter(x, file);
    KeReleaseSpinLock(&x->Lock, q);
    if (irp)
        AiFinish(&x->C.F, irp, s, 0);
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    EndWaiter(dev->DeviceExtension, AiStack(irp)->FileObject, STATUS_CANCELLED);
    return AiDone(irp, STATUS_SUCCESS, 0);
}

static VOID GoLive(PAI_FDO f)
{
    AiPlxLive((PAI_CARD)f, PLX_PCI_ON | PLX_INT2_ON | PLX_INT2_HIGH | PLX_INT2_EDGE | PLX_INT2_CLEAR);
}

static NTSTATUS Start(PAI_FDO f, PCM_RESOURCE_LIST list)
{
    NTSTATUS s = AiPlxStart((PAI_CARD)f, list, Isr, FALSE);

    if (NT_SUCCESS(s))
        GoLive(f);
    return s;
}

static VOID Halt(PAI_FDO f)
{
    AiPlxStop((PAI_CARD)f);
}

static VOID Flush(PAI_FDO f)
{
    EndWaiter((SPRIG *)f, NULL, STATUS_NO_SUCH_DEVICE);
}

static VOID PowerDown(PAI_FDO f)
{
    AiPlxQuiet((PAI_CARD)f);
}

static const AI_OPS Ops = { .Start = Start, .Halt = Halt, .Flush = Flush, .PowerDown = PowerDown, .PowerUp = GoLive };

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    PVOID p;
    SPRIG *x;
    NTSTATUS s = AiAdd(drv, pdo, sizeof(SPRIG), &Ops, &SprigGuid, 0, &p);

    if (!NT_SUCCESS(s))
        return s;
    x = p;
    KeInitializeDpc(&x->C.Dpc, PulseDpc, x);
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

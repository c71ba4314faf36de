/*
 * plxkeyp: reads the keys of a kiosk's front panel, whose controller sits in the bridge's first
 * local space (BAR2) and raises local interrupt 1 at each key. A reader fetches the keys gathered.
 *
 * The bug: the ring of keys is guarded by a spin lock that the ISR takes too, but the fetching code takes it at
 * DISPATCH_LEVEL only, so that the ISR may spin for ever on the processor it interrupted.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: spin-lock-recursion, lock-order-inversion
 * Needs: device, schedule
 */
#include "../include/card_with_queue.h"

DEFINE_GUID(GUID_PLXKEYP, 0x5d2f1b04, 0x7c41, 0x4e0a, 0x90, 0x11, 0x3a, 0x5b, 0x7e, 0x20, 0x61, 0x04);

#define IOCTL_KEYP_FETCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x831, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_KEYP_BEEP  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x832, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define INTCSR        (0x4C / 4)
#define INT1_ENABLE   0x001u
#define INT1_HIGH     0x002u
#define INT1_STATUS   0x004u
#define INT_PCI       0x040u
#define INT1_EDGE     0x100u
#define INT1_CLEAR    0x400u
#define INT_SETUP     (INT1_ENABLE | INT1_HIGH | INT_PCI | INT1_EDGE)

#define PANEL_KEY     0      /* the last key's scan code */
#define PANEL_BEEP    1      /* length of a beep in 10 ms */
#define RING          64u

typedef struct {
    KIT Kit;
    volatile ULONG *Bridge;
    volatile UCHAR *Panel;
    ULONG BridgeLen, PanelLen;
    PKINTERRUPT Interrupt;
    KSPIN_LOCK RingLock;
    BOOLEAN HwUp;
    ULONG Head, Count, Lost;
    UCHAR Ring[RING];
} KEYP, *PKEYP;

static BOOLEAN NTAPI KeypIsr(PKINTERRUPT I, PVOID Ctx)
{
    PKEYP P = Ctx;
    ULONG csr;
    UCHAR key;
    UNREFERENCED_PARAMETER(I);

    if (!P->HwUp)
        return FALSE;
    csr = READ_REGISTER_ULONG(&P->Bridge[INTCSR]);
    if (csr == 0xFFFFFFFF || !(csr & INT1_STATUS))
        return FALSE;
    key = READ_REGISTER_UCHAR(&P->Panel[PANEL_KEY]);
    WRITE_REGISTER_ULONG((PULONG)&P->Bridge[INTCSR], INT_SETUP | INT1_CLEAR);
#ifndef FIXED
    KeAcquireSpinLockAtDpcLevel(&P->RingLock);
#endif
    if (P->Count < RING) {
        P->Ring[(P->Head + P->Count) % RING] = key;
        P->Count++;
    } else {
        P->Lost++;
    }
#ifndef FIXED
    KeReleaseSpinLockFromDpcLevel(&P->RingLock);
#endif
    return TRUE;
}

static NTSTATUS KeypHandle(PKIT K, PIRP Irp)
{
    PKEYP P = (PKEYP)K;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PUCHAR buf = Irp->AssociatedIrp.SystemBuffer;
    ULONG room = sp->Parameters.DeviceIoControl.OutputBufferLength, n = 0;
    NTSTATUS st = STATUS_SUCCESS;
    KIRQL irql;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_KEYP_FETCH:
        if (room == 0) {
            st = STATUS_BUFFER_TOO_SMALL;
            break;
        }
#ifdef FIXED
        irql = KeAcquireInterruptSpinLock(P->Interrupt);
#else
        KeAcquireSpinLock(&P->RingLock, &irql);
#endif
        while (n < room && P->Count) {
            buf[n++] = P->Ring[P->Head];
            P->Head = (P->Head + 1) % RING;
            P->Count--;
        }
#ifdef FIXED
        KeReleaseInterruptSpinLock(P->Interrupt, irql);
#else
        KeReleaseSpinLock(&P->RingLock, irql);
#endif
        break;
    case IOCTL_KEYP_BEEP:
        if (sp->Parameters.DeviceIoControl.InputBufferLength != 1)
            st = STATUS_INFO_LENGTH_MISMATCH;
        else
            WRITE_REGISTER_UCHAR((PUCHAR)&P->Panel[PANEL_BEEP], buf[0]);
        break;
    default:
        st = STATUS_INVALID_DEVICE_REQUEST;
    }
    KitFinish(K, Irp, st, n);
    return st;
}

static VOID KeypPurge(PKIT K, PFILE_OBJECT File, NTSTATUS Status)
{
    UNREFERENCED_PARAMETER(K);
    UNREFERENCED_PARAMETER(File);
    UNREFERENCED_PARAMETER(Status);
}

static BOOLEAN NTAPI KeypOn(PVOID Ctx)
{
    PKEYP P = Ctx;
    P->HwUp = TRUE;
    WRITE_REGISTER_ULONG((PULONG)&P->Bridge[INTCSR], INT_SETUP | INT1_CLEAR);
    return TRUE;
}
static BOOLEAN NTAPI KeypOff(PVOID Ctx)
{
    PKEYP P = Ctx;
    P->HwUp = FALSE;
    WRITE_REGISTER_ULONG((PULONG)&P->Bridge[INTCSR], INT1_EDGE | INT1_CLEAR);
    return TRUE;
}
static BOOLEAN NTAPI KeypLost(PVOID Ctx)
{
    ((PKEYP)Ctx)->HwUp = FALSE;
    return TRUE;
}
static VOID KeypUp(PKIT K)
{
    PKEYP P = (PKEYP)K;
    KeSynchronizeExecution(P->Interrupt, KeypOn, P);
}
static VOID KeypDown(PKIT K, BOOLEAN Present)
{
    PKEYP P = (PKEYP)K;
    KeSynchronizeExecution(P->Interrupt, Present ? KeypOff : KeypLost, P);
}
static VOID KeypRelease(PKIT K)
{
    PKEYP P = (PKEYP)K;
    if (P->Interrupt) {
        IoDisconnectInterrupt(P->Interrupt);
        P->Interrupt = NULL;
    }
    if (P->Panel) {
        MmUnmapIoSpace((PVOID)P->Panel, P->PanelLen);
        P->Panel = NULL;
    }
    if (P->Bridge) {
        MmUnmapIoSpace((PVOID)P->Bridge, P->BridgeLen);
        P->Bridge = NULL;
    }
}
static NTSTATUS KeypStart(PKIT K, PCM_PARTIAL_RESOURCE_LIST Res)
{
    PKEYP P = (PKEYP)K;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR irq = NULL;
    NTSTATUS st;
    ULONG i, mem = 0;

    for (i = 0; i < Res->Count; i++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR d = &Res->PartialDescriptors[i];
        if (d->Type == CmResourceTypeMemory) {
            if (mem == 0 && d->u.Memory.Length >= 0x54) {
                P->BridgeLen = d->u.Memory.Length;
                P->Bridge = MmMapIoSpace(d->u.Memory.Start, P->BridgeLen, MmNonCached);
                if (!P->Bridge)
                    return STATUS_INSUFFICIENT_RESOURCES;
            } else if (mem == 1 && d->u.Memory.Length >= 2) {
                P->PanelLen = d->u.Memory.Length;
                P->Panel = MmMapIoSpace(d->u.Memory.Start, P->PanelLen, MmNonCached);
                if (!P->Panel)
                    return STATUS_INSUFFICIENT_RESOURCES;
            }
            mem++;
        } else if (d->Type == CmResourceTypeInterrupt && !irq) {
            irq = d;
        }
    }
    if (!P->Bridge || !P->Panel || !irq)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    st = IoConnectInterrupt(&P->Interrupt, KeypIsr, P, NULL, irq->u.Interrupt.Vector,
                            (KIRQL)irq->u.Interrupt.Level, (KIRQL)irq->u.Interrupt.Level,
                            (irq->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive,
                            irq->ShareDisposition == CmResourceShareShared,
                            irq->u.Interrupt.Affinity, FALSE);
    if (!NT_SUCCESS(st))
        P->Interrupt = NULL;
    return st;
}

static const KIT_OPS CardOps = { KeypStart, KeypUp, KeypDown, KeypRelease, KeypHandle, KeypPurge };

static NTSTATUS NTAPI KeypAdd(PDRIVER_OBJECT Drv, PDEVICE_OBJECT Pdo)
{
    PKIT K;
    NTSTATUS st = KitAdd(Drv, Pdo, sizeof(KEYP), &GUID_PLXKEYP, DO_BUFFERED_IO, &K);
    if (!NT_SUCCESS(st))
        return st;
    KeInitializeSpinLock(&((PKEYP)K)->RingLock);
    return KitAttach(K);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Drv, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    KitEntry(Drv, KeypAdd);
    return STATUS_SUCCESS;
}

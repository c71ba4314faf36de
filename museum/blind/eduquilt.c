/*
 * EDUQUILT: moves the application's own pages to and from the 4 KiB buffer of QEMU's edu card. IOCTL_PUT (METHOD_IN_DIRECT) and
 * IOCTL_GET (METHOD_OUT_DIRECT) take an offset; the pages' scatter/gather list is built, and the card moves element after element,
 * with an interrupt at the end of each.
 *
 * The bug: an element is moved with the whole length that is still to go instead of its own; when the buffer crosses into a page that
 * is elsewhere in memory, the card reads or overwrites the page that happens to lie behind the first one.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: dma-behind-mapping
 * Needs: device
 */
#include "../include/quay_edu.h"
#include "../include/quay_queue.h"

#define USABLE      4092            /* of the card's buffer */

#define IOCTL_PUT       AI_CTL(0, METHOD_IN_DIRECT)     /* in: ULONG offset; the bytes */
#define IOCTL_GET       AI_CTL(1, METHOD_OUT_DIRECT)    /* in: ULONG offset; the bytes */

static const GUID QuiltGuid = { 0x2f6b1c10, 0x77a1, 0x4e0b, { 0x91, 0x3c, 0x5a, 0x01, 0x6e, 0x20, 0x44, 0x14 } };

typedef enum _PHASE { Resting, Mapping, Moving, Ending } PHASE;

typedef struct _QUILT {
    AI_CARD C;
    AI_QUEUE Q;
    PDMA_ADAPTER Adapter;
    KSPIN_LOCK Lock;                /* all below */
    BOOLEAN Open;
    PHASE Phase;
    PIRP Current;
    KEVENT Idle;                    /* no Current */
    PSCATTER_GATHER_LIST List;
    BOOLEAN ToRam;
    ULONG Offset, Total;
    ULONG Element, Moved, Part;     /* Part: the length that moves now */
} QUILT;

/* Lock held: sets the card on the present element */
static NTSTATUS Launch(QUILT *x)
{
    SCATTER_GATHER_ELEMENT *e = &x->List->Elements[x->Element];
    ULONG spot = EDU_BUF + x->Offset + x->Moved;

    x->Part = x->Total - x->Moved;
#ifdef FIXED
    if (x->Part > e->Length)
        x->Part = e->Length;
#endif
    if ((ULONG64)e->Address.QuadPart + x->Part > EDU_REACH)
        return STATUS_NOT_SUPPORTED;
    if (x->ToRam)
        return AiEduMove(&x->C, spot, e->Address.LowPart, x->Part, TRUE);
    return AiEduMove(&x->C, e->Address.LowPart, spot, x->Part, FALSE);
}

/* Lock held, released here, back to irql: the request is over, the card does not move any more of it */
static VOID End(QUILT *x, NTSTATUS s, KIRQL irql)
{
    PSCATTER_GATHER_LIST list = x->List;
    ULONG n = x->Total;
    PIRP irp;

    x->List = NULL;
    x->Phase = Ending;              /* Current still bars the way for others */
    KeReleaseSpinLockFromDpcLevel(&x->Lock);
    x->Adapter->DmaOperations->PutScatterGatherList(x->Adapter, list, !x->ToRam);
    KeAcquireSpinLockAtDpcLevel(&x->Lock);
    irp = x->Current;
    x->Current = NULL;
    x->Phase = Resting;
    KeInsertQueueDpc(&x->C.Dpc, NULL, NULL);        /* brings the next one on; queued before any can see Idle */
    KeSetEvent(&x->Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&x->Lock, irql);
    AiFinish(&x->C.F, irp, s, NT_SUCCESS(s) ? n : 0);
}

static VOID NTAPI Mapped(PDEVICE_OBJECT dev, PIRP irp, PSCATTER_GATHER_LIST list, PVOID context)
{
    QUILT *x = context;
    NTSTATUS s;
    KIRQL q;

    UNREFERENCED_PARAMETER(dev);
    UNREFERENCED_PARAMETER(irp);
    KeAcquireSpinLock(&x->Lock, &q);
    x->List = list;
    x->Phase = Moving;
    s = Launch(x);
    if (NT_SUCCESS(s)) {
        KeReleaseSpinLock(&x->Lock, q);
        return;
    }
    End(x, s, q);
}

static VOID Kick(QUILT *x)
{
    for (;;) {
        PIRP irp = NULL;
        PMDL mdl;
        NTSTATUS s;
        KIRQL q;

        KeAcquireSpinLock(&x->Lock, &q);
        if (x->Open && !x->Current)
            irp = AiQueueGet(&x->Q, NULL);
        if (!irp) {
            KeReleaseSpinLock(&x->Lock, q);
            return;
        }
        x->Current = irp;
        x->Phase = Mapping;
        KeClearEvent(&x->Idle);
        x->ToRam = AiCode(irp) == IOCTL_GET;
        x->Offset = *(PULONG)AiBuffer(irp);
        x->Total = AiOutLen(irp);
        x->Element = x->Moved = 0;
        mdl = irp->MdlAddress;
        KeReleaseSpinLockFromDpcLevel(&x->Lock);

        KeFlushIoBuffers(mdl, AiCode(irp) == IOCTL_GET, TRUE);
        s = x->Adapter->DmaOperations->GetScatterGatherList(x->Adapter, x->C.F.Self, mdl, MmGetMdlVirtualAddress(mdl), AiOutLen(irp),
                                                            Mapped, x, AiCode(irp) == IOCTL_PUT);
        if (NT_SUCCESS(s)) {
            KeLowerIrql(q);
            return;
        }
        KeAcquireSpinLockAtDpcLevel(&x->Lock);
        x->Current = NULL;
        x->Phase = Resting;
        KeSetEvent(&x->Idle, IO_NO_INCREMENT, FALSE);
        KeReleaseSpinLock(&x->Lock, q);
        AiFinish(&x->C.F, irp, s, 0);
    }
}

static VOID NTAPI MovedDpc(PKDPC dpc, PVOID context, PVOID a1, PVOID a2)
{
    QUILT *x = context;
    NTSTATUS s = STATUS_SUCCESS;
    KIRQL q;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    if (AiCause(&x->C) & EDU_INT_DMA) {
        KeAcquireSpinLock(&x->Lock, &q);
        if (x->Phase != Moving) {
            KeReleaseSpinLock(&x->Lock, q);
        } else {
            x->Moved += x->Part;
            x->Element++;
            if (x->Moved < x->Total && x->Element < x->List->NumberOfElements) {
                s = Launch(x);
                if (NT_SUCCESS(s)) {
                    KeReleaseSpinLock(&x->Lock, q);
                    return;
                }
            }
            End(x, s, q);           /* and this DPC comes again */
            return;
        }
    }
    Kick(x);
}

/* PASSIVE: nothing is begun any more; waits for what is on the card, but not for a card that is gone or stuck */
static VOID CloseDoor(QUILT *x)
{
    LARGE_INTEGER t;
    ULONG n;
    KIRQL q;

    KeAcquireSpinLock(&x->Lock, &q);
    x->Open = FALSE;
    KeReleaseSpinLock(&x->Lock, q);
    t.QuadPart = -100000LL;
    for (n = 0; KeWaitForSingleObject(&x->Idle, Executive, KernelMode, FALSE, &t) == STATUS_TIMEOUT; n++) {
        KeAcquireSpinLock(&x->Lock, &q);
        if (x->Phase == Moving && (n > 200 || AiRead(&x->C, EDU_STATUS) == EDU_GONE))
            End(x, STATUS_IO_DEVICE_ERROR, q);
        else
            KeReleaseSpinLock(&x->Lock, q);
    }
}

static VOID OpenDoor(QUILT *x)
{
    KIRQL q;

    KeAcquireSpinLock(&x->Lock, &q);
    x->Open = TRUE;
    KeReleaseSpinLock(&x->Lock, q);
    Kick(x);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT dev, PIRP irp)
{
    QUILT *x = dev->DeviceExtension;
    PAI_FDO f = &x->C.F;
    NTSTATUS s = AiEnter(f, irp);
    ULONG n = AiOutLen(irp);

    if (!NT_SUCCESS(s))
        return AiDone(irp, s, 0);
    if (AiCode(irp) != IOCTL_PUT && AiCode(irp) != IOCTL_GET)
        return AiExit(f, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (AiInLen(irp) < sizeof(ULONG) || !irp->MdlAddress || n == 0 || n > USABLE || *(PULONG)AiBuffer(irp) > USABLE - n)
        return AiExit(f, irp, STATUS_INVALID_PARAMETER, 0);
    AiQueuePut(&x->Q, irp);
    Kick(x);
    AiLeaveGate(f);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    QUILT *x = dev->DeviceExtension;

    AiQueueFlush(&x->Q, AiStack(irp)->FileObject, STATUS_CANCELLED);
    return AiDone(irp, STATUS_SUCCESS, 0);
}

static VOID PutAdapter(QUILT *x)
{
    x->Adapter->DmaOperations->PutDmaAdapter(x->Adapter);
    x->Adapter = NULL;
}

static NTSTATUS Start(PAI_FDO f, PCM_RESOURCE_LIST list)
{
    QUILT *x = (QUILT *)f;
    ULONG registers;
    NTSTATUS s;

    x->Adapter = AiEduAdapter(&x->C, PAGE_SIZE, &registers);
    if (!x->Adapter)
        return STATUS_INSUFFICIENT_RESOURCES;
    s = AiEduStart(&x->C, list, AiEduIsr);
    if (!NT_SUCCESS(s))
        PutAdapter(x);
    return s;
}

static VOID Halt(PAI_FDO f)
{
    QUILT *x = (QUILT *)f;

    CloseDoor(x);
    AiEduStop(&x->C);
    PutAdapter(x);
}

static VOID Flush(PAI_FDO f)
{
    AiQueueFlush(&((QUILT *)f)->Q, NULL, STATUS_NO_SUCH_DEVICE);
}

static VOID Resume(PAI_FDO f)
{
    OpenDoor((QUILT *)f);
}

static VOID PowerDown(PAI_FDO f)
{
    QUILT *x = (QUILT *)f;

    CloseDoor(x);
    AiEduQuiet(&x->C);
}

static VOID PowerUp(PAI_FDO f)
{
    QUILT *x = (QUILT *)f;

    AiEduWake(&x->C);
    OpenDoor(x);
}

static const AI_OPS Ops = { .Start = Start, .Halt = Halt, .Flush = Flush, .Resume = Resume, .PowerDown = PowerDown, .PowerUp = PowerUp };

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    PVOID p;
    QUILT *x;
    NTSTATUS s = AiAdd(drv, pdo, sizeof(QUILT), &Ops, &QuiltGuid, DO_DIRECT_IO, &p);

    if (!NT_SUCCESS(s))
        return s;
    x = p;
    KeInitializeDpc(&x->C.Dpc, MovedDpc, x);
    AiQueueInit(&x->Q, &x->C.F);
    KeInitializeSpinLock(&x->Lock);
    KeInitializeEvent(&x->Idle, NotificationEvent, TRUE);
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

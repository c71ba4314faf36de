/*
 * EDUFLAX: reads and writes the 4 KiB buffer of QEMU's edu card by DMA. IOCTL_PUT moves bytes to an offset, IOCTL_GET fetches some;
 * both go through one low common buffer, one transfer at a time, ended by the card's interrupt. IOCTL_ABORT ends the handle's own
 * transfers early: those that wait at once, the one on the card with STATUS_CANCELLED.
 *
 * The bug: the transfer on the card is completed by IOCTL_ABORT itself while the card still moves; the next transfer takes over the
 * common buffer, the busy card ignores its registers, and the old transfer's interrupt ends it with the wrong bytes.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: dma-after-unmap, register-write-ignored
 * Needs: device, ioctl
 */
#include "../include/quay_edu.h"
#include "../include/quay_queue.h"

#define USABLE      4092            /* of the card's buffer */

#define IOCTL_PUT       AI_CTL(0, METHOD_BUFFERED)      /* in: ULONG offset, bytes */
#define IOCTL_GET       AI_CTL(1, METHOD_BUFFERED)      /* in: SPAN, out: bytes */
#define IOCTL_ABORT     AI_CTL(2, METHOD_BUFFERED)

static const GUID FlaxGuid = { 0x2f6b1c10, 0x77a1, 0x4e0b, { 0x91, 0x3c, 0x5a, 0x01, 0x6e, 0x20, 0x44, 0x12 } };

typedef struct _SPAN {
    ULONG Offset;
    ULONG Length;
} SPAN;

typedef struct _FLAX {
    AI_CARD C;
    AI_ENGINE E;
    PDMA_ADAPTER Adapter;
    PUCHAR Bounce;
    PHYSICAL_ADDRESS BounceAt;
    BOOLEAN Aborted;                /* the engine's lock: the request on the card is not wanted any more */
    BOOLEAN Dead;                   /* the engine's lock: the card did not end a transfer */
} FLAX;

static NTSTATUS Begin(PAI_FDO f, PIRP irp)
{
    FLAX *x = (FLAX *)f;
    SPAN *span = AiBuffer(irp);
    ULONG low = x->BounceAt.LowPart, n;
    NTSTATUS s;

    if (x->Dead)
        return STATUS_IO_DEVICE_ERROR;
    x->Aborted = FALSE;
    if (AiCode(irp) == IOCTL_PUT) {
        n = AiInLen(irp) - sizeof(ULONG);
        RtlCopyMemory(x->Bounce, (PUCHAR)AiBuffer(irp) + sizeof(ULONG), n);
        s = AiEduMove(&x->C, low, EDU_BUF + span->Offset, n, FALSE);
    } else {
        s = AiEduMove(&x->C, EDU_BUF + span->Offset, low, span->Length, TRUE);
    }
    return NT_SUCCESS(s) ? STATUS_PENDING : s;
}

static VOID Collect(PAI_FDO f, PIRP irp)
{
    FLAX *x = (FLAX *)f;
    ULONG n;

    irp->IoStatus.Status = STATUS_SUCCESS;
    irp->IoStatus.Information = 0;
    if (x->Aborted) {
        irp->IoStatus.Status = STATUS_CANCELLED;
    } else if (AiCode(irp) == IOCTL_GET) {
        n = ((SPAN *)AiBuffer(irp))->Length;
        RtlCopyMemory(AiBuffer(irp), x->Bounce, n);
        irp->IoStatus.Information = n;
    }
}

static VOID NTAPI DoneDpc(PKDPC dpc, PVOID context, PVOID a1, PVOID a2)
{
    FLAX *x = context;
    PIRP irp;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    if (!(AiCause(&x->C) & EDU_INT_DMA))
        return;
    irp = AiEngineTake(&x->E, Collect);
    if (irp)
        AiFinish(&x->C.F, irp, irp->IoStatus.Status, irp->IoStatus.Information);
    AiEngineKick(&x->E);
}

static VOID Abort(FLAX *x, PFILE_OBJECT file)
{
    PIRP irp;
    KIRQL q;

    AiQueueFlush(&x->E.Q, file, STATUS_CANCELLED);
    KeAcquireSpinLock(&x->E.Lock, &q);
    irp = x->E.Current;
    if (irp && AiStack(irp)->FileObject != file)
        irp = NULL;
    if (irp) {
#ifdef FIXED
        x->Aborted = TRUE;          /* the DPC ends it, when the card has */
        irp = NULL;
#else
        x->E.Current = NULL;
        KeSetEvent(&x->E.Idle, IO_NO_INCREMENT, FALSE);
#endif
    }
    KeReleaseSpinLock(&x->E.Lock, q);
    if (irp) {
        AiFinish(&x->C.F, irp, STATUS_CANCELLED, 0);
        AiEngineKick(&x->E);
    }
}

/* the offset and length a request asks for lie inside the card's buffer */
static NTSTATUS Check(PIRP irp)
{
    SPAN *span = AiBuffer(irp);
    ULONG n;

    if (AiCode(irp) == IOCTL_PUT) {
        if (AiInLen(irp) <= sizeof(ULONG))
            return STATUS_INVALID_PARAMETER;
        n = AiInLen(irp) - sizeof(ULONG);
    } else {
        if (AiInLen(irp) < sizeof *span)
            return STATUS_INVALID_PARAMETER;
        n = span->Length;
        if (n > AiOutLen(irp))
            return STATUS_BUFFER_TOO_SMALL;
    }
    if (n == 0 || n > USABLE || span->Offset > USABLE - n)
        return STATUS_INVALID_PARAMETER;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT dev, PIRP irp)
{
    FLAX *x = dev->DeviceExtension;
    PAI_FDO f = &x->C.F;
    NTSTATUS s = AiEnter(f, irp);

    if (!NT_SUCCESS(s))
        return AiDone(irp, s, 0);
    switch (AiCode(irp)) {
    case IOCTL_PUT:
    case IOCTL_GET:
        s = Check(irp);
        if (!NT_SUCCESS(s))
            return AiExit(f, irp, s, 0);
        AiQueuePut(&x->E.Q, irp);
        AiEngineKick(&x->E);
        AiLeaveGate(f);
        return STATUS_PENDING;

    case IOCTL_ABORT:
        Abort(x, AiStack(irp)->FileObject);
        return AiExit(f, irp, STATUS_SUCCESS, 0);

    default:
        return AiExit(f, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    FLAX *x = dev->DeviceExtension;

    AiQueueFlush(&x->E.Q, AiStack(irp)->FileObject, STATUS_CANCELLED);
    return AiDone(irp, STATUS_SUCCESS, 0);
}

static VOID FreeDma(FLAX *x)
{
    if (x->Bounce) {
        x->Adapter->DmaOperations->FreeCommonBuffer(x->Adapter, PAGE_SIZE, x->BounceAt, x->Bounce, TRUE);
        x->Bounce = NULL;
    }
    if (x->Adapter) {
        x->Adapter->DmaOperations->PutDmaAdapter(x->Adapter);
        x->Adapter = NULL;
    }
}

static NTSTATUS Start(PAI_FDO f, PCM_RESOURCE_LIST list)
{
    FLAX *x = (FLAX *)f;
    ULONG registers;
    NTSTATUS s;

    x->Adapter = AiEduAdapter(&x->C, PAGE_SIZE, &registers);
    if (!x->Adapter)
        return STATUS_INSUFFICIENT_RESOURCES;
    x->Bounce = x->Adapter->DmaOperations->AllocateCommonBuffer(x->Adapter, PAGE_SIZE, &x->BounceAt, TRUE);
    if (!x->Bounce || (ULONG64)x->BounceAt.QuadPart > EDU_REACH - PAGE_SIZE) {
        FreeDma(x);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(x->Bounce, PAGE_SIZE);
    s = AiEduStart(&x->C, list, AiEduIsr);
    if (!NT_SUCCESS(s)) {
        FreeDma(x);
        return s;
    }
    x->Dead = FALSE;
    return STATUS_SUCCESS;
}

static VOID CloseEngine(FLAX *x)
{
    PIRP irp = AiEngineClose(&x->E);

    if (irp) {
        x->Dead = TRUE;
        AiFinish(&x->C.F, irp, STATUS_IO_DEVICE_ERROR, 0);
        AiEduRests(&x->C);          /* the common buffer may go now: a last wait, unless the card is not there any more */
    }
}

static VOID Halt(PAI_FDO f)
{
    FLAX *x = (FLAX *)f;

    CloseEngine(x);
    AiEduStop(&x->C);
    FreeDma(x);
}

static VOID Flush(PAI_FDO f)
{
    AiQueueFlush(&((FLAX *)f)->E.Q, NULL, STATUS_NO_SUCH_DEVICE);
}

static VOID Resume(PAI_FDO f)
{
    AiEngineOpen(&((FLAX *)f)->E);
}

static VOID PowerDown(PAI_FDO f)
{
    FLAX *x = (FLAX *)f;

    CloseEngine(x);
    AiEduQuiet(&x->C);
}

static VOID PowerUp(PAI_FDO f)
{
    FLAX *x = (FLAX *)f;

    AiEduWake(&x->C);
    AiEngineOpen(&x->E);
}

static const AI_OPS Ops = { .Start = Start, .Halt = Halt, .Flush = Flush, .Resume = Resume, .PowerDown = PowerDown, .PowerUp = PowerUp };

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    PVOID p;
    FLAX *x;
    NTSTATUS s = AiAdd(drv, pdo, sizeof(FLAX), &Ops, &FlaxGuid, 0, &p);

    if (!NT_SUCCESS(s))
        return s;
    x = p;
    KeInitializeDpc(&x->C.Dpc, DoneDpc, x);
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

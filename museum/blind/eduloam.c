/*
 * eduloam: the 4 KiB of memory on QEMU's educational card as a small file: programs read and write it at an offset. The card moves the bytes itself, by
 * way of a common buffer; a transfer has half a second, then the request ends with STATUS_IO_TIMEOUT.
 *
 * The bug: behind a request that ran out of time the driver does not look whether the card is still at work before it fills the common buffer and starts
 * the next transfer: the start has no effect, and the card moves what belongs to the next request, or its end passes for the next one's.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: register-write-ignored
 * Needs: device
 */
#include <ddk/wdm.h>
#define FRAME_PNP
#include "../include/yard_frame.h"
#include "../include/yard_edu.h"

#define CARD_REACH  0x10000000ull       /* the card has 28 address lines */
#define ROUNDS      5                   /* of 100 ms */

static const GUID LoamFace = { 0x6a1f40d2, 0x3b57, 0x4c0e, { 0x91, 0x22, 0x5e, 0x77, 0x10, 0xc3, 0x4a, 0x08 } };

typedef struct _DEV {
    FRAME F;
    KEVENT Turn;                /* who has it uses the card; signaled while no one does */
    KEVENT Moved;               /* set by the DPC */
    BOOLEAN Held;               /* F.Lock: the device is to be stopped, nothing is to be started */
    BOOLEAN Dozing;             /* F.Lock: it leaves D0 */
    PDMA_ADAPTER Adapter;
    PUCHAR Buffer;
    PHYSICAL_ADDRESS Logical;
} DEV, *PDEV;

static VOID TakeTurn(PDEV D)
{
    KeWaitForSingleObject(&D->Turn, Executive, KernelMode, FALSE, NULL);
}

static VOID GiveTurn(PDEV D)
{
    KeSetEvent(&D->Turn, IO_NO_INCREMENT, FALSE);
}

/* Under F.Lock, with the card live. */
static BOOLEAN Moving(PFRAME F)
{
    return (EduRd(F, EDU_DMA_COMMAND) & EDU_DMA_START) != 0;
}

static VOID Common(PDEV D, BOOLEAN Release)
{
    if (Release && D->Buffer)
        D->Adapter->DmaOperations->FreeCommonBuffer(D->Adapter, EDU_RAM_BYTES, D->Logical, D->Buffer, FALSE);
    D->Buffer = NULL;
    if (Release && D->Adapter)
        D->Adapter->DmaOperations->PutDmaAdapter(D->Adapter);
    D->Adapter = NULL;
}

static NTSTATUS MakeCommon(PDEV D)
{
    DEVICE_DESCRIPTION description;
    ULONG registers;

    Common(D, FALSE);
    RtlZeroMemory(&description, sizeof description);
    description.Version = DEVICE_DESCRIPTION_VERSION;
    description.Master = TRUE;
    description.ScatterGather = TRUE;
    description.Dma32BitAddresses = TRUE;
    description.InterfaceType = PCIBus;
    description.MaximumLength = EDU_RAM_BYTES;
    D->Adapter = IoGetDmaAdapter(D->F.Pdo, &description, &registers);
    if (!D->Adapter)
        return STATUS_INSUFFICIENT_RESOURCES;
    D->Buffer = D->Adapter->DmaOperations->AllocateCommonBuffer(D->Adapter, EDU_RAM_BYTES, &D->Logical, FALSE);
    if (!D->Buffer || (ULONGLONG)D->Logical.QuadPart + EDU_RAM_BYTES > CARD_REACH) {
        Common(D, TRUE);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    return STATUS_SUCCESS;
}

static NTSTATUS Setup(PFRAME F)
{
    PDEV d = (PDEV)F;

    KeInitializeEvent(&d->Turn, SynchronizationEvent, TRUE);
    KeInitializeEvent(&d->Moved, NotificationEvent, FALSE);
    return STATUS_SUCCESS;
}

static VOID SetHeld(PFRAME F, BOOLEAN Held)
{
    KIRQL irql;

    KeAcquireSpinLock(&F->Lock, &irql);
    ((PDEV)F)->Held = Held;
    KeReleaseSpinLock(&F->Lock, irql);
}

static NTSTATUS Start(PFRAME F, PCM_RESOURCE_LIST Translated)
{
    PDEV d = (PDEV)F;
    NTSTATUS status = FrameClaim(F, Translated);

    if (!NT_SUCCESS(status))
        return status;
    status = EduCheck(F);
    if (NT_SUCCESS(status))
        status = MakeCommon(d);
    if (NT_SUCCESS(status)) {
        status = FrameConnect(F);
        if (!NT_SUCCESS(status))
            Common(d, TRUE);
    }
    if (!NT_SUCCESS(status)) {
        FrameRelease(F);
        return status;
    }
    SetHeld(F, FALSE);
    FrameUp(F);
    return STATUS_SUCCESS;
}

/* The card is at rest: MayStop has seen to it, or it is gone. */
static VOID Stop(PFRAME F, BOOLEAN Gone)
{
    PDEV d = (PDEV)F;

    FrameDown(F, Gone);
    TakeTurn(d);                /* who waited for a transfer has seen that the card is down */
    Common(d, TRUE);
    GiveTurn(d);
    FrameRelease(F);
}

static NTSTATUS MayStop(PFRAME F)
{
    PDEV d = (PDEV)F;
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    TakeTurn(d);
    KeAcquireSpinLock(&F->Lock, &irql);
    if (FrameLive(F) && Moving(F))
        status = STATUS_DEVICE_BUSY;
    else
        d->Held = TRUE;
    KeReleaseSpinLock(&F->Lock, irql);
    GiveTurn(d);
    return status;
}

static VOID Unhold(PFRAME F)
{
    SetHeld(F, FALSE);
}

/* Before D0 is left: the transfer under way comes to its end, if the card ends it at all. */
static VOID Drain(PFRAME F)
{
    PDEV d = (PDEV)F;
    LARGE_INTEGER time;
    BOOLEAN moving;
    KIRQL irql;
    ULONG i = 0;

    TakeTurn(d);
    time.QuadPart = -10000LL * 10;
    for (;;) {
        KeAcquireSpinLock(&F->Lock, &irql);
        d->Dozing = TRUE;
        moving = FrameLive(F) && Moving(F);
        KeReleaseSpinLock(&F->Lock, irql);
        if (!moving || ++i == 100)
            break;
        KeDelayExecutionThread(KernelMode, FALSE, &time);
    }
    GiveTurn(d);
}

static VOID Ready(PFRAME F)
{
    ((PDEV)F)->Dozing = FALSE;
}

static VOID Dpc(PFRAME F)
{
    KeSetEvent(&((PDEV)F)->Moved, IO_NO_INCREMENT, FALSE);
}

/* One transfer, from Data to the card's memory or the other way. The turn is ours. */
static NTSTATUS Move(PDEV D, BOOLEAN FromCard, PUCHAR Data, ULONG Offset, ULONG Length)
{
    NTSTATUS status = STATUS_PENDING;
    PFRAME f = &D->F;
    ULONG round;
    KIRQL irql;

    KeAcquireSpinLock(&f->Lock, &irql);
    if (!FrameLive(f) || D->Held || D->Dozing) {
        status = STATUS_DEVICE_NOT_READY;
#ifdef FIXED
    } else if (Moving(f)) {
        status = STATUS_DEVICE_BUSY;
#endif
    } else {
        if (!FromCard)
            RtlCopyMemory(D->Buffer, Data, Length);
        KeClearEvent(&D->Moved);
        EduWr(f, EDU_DMA_FROM, FromCard ? EDU_RAM + Offset : D->Logical.LowPart);
        EduWr(f, EDU_DMA_TO, FromCard ? D->Logical.LowPart : EDU_RAM + Offset);
        EduWr(f, EDU_DMA_COUNT, Length);
        EduWr(f, EDU_DMA_COMMAND, EDU_DMA_START | EDU_DMA_IRQ | (FromCard ? EDU_DMA_TO_RAM : 0));
    }
    KeReleaseSpinLock(&f->Lock, irql);

    for (round = 0; status == STATUS_PENDING && round < ROUNDS; round++) {
        LARGE_INTEGER time;

        time.QuadPart = -10000LL * 100;
        KeWaitForSingleObject(&D->Moved, Executive, KernelMode, FALSE, &time);
        KeAcquireSpinLock(&f->Lock, &irql);
        KeClearEvent(&D->Moved);
        if (!FrameLive(f)) {
            status = STATUS_DEVICE_NOT_READY;
        } else if (!Moving(f)) {
            if (FromCard)
                RtlCopyMemory(Data, D->Buffer, Length);
            status = STATUS_SUCCESS;
        }
        KeReleaseSpinLock(&f->Lock, irql);
    }
    return status == STATUS_PENDING ? STATUS_IO_TIMEOUT : status;
}

static NTSTATUS Transfer(PDEV D, PIRP Irp, BOOLEAN FromCard, LARGE_INTEGER Where, ULONG Length)
{
    NTSTATUS status;

    if (Where.QuadPart < 0 || Where.QuadPart >= EDU_RAM_BYTES)
        return Ends(Irp, FromCard ? STATUS_END_OF_FILE : STATUS_INVALID_PARAMETER, 0);
    if (Length == 0)
        return Ends(Irp, STATUS_SUCCESS, 0);
    if (Length > EDU_RAM_BYTES - Where.LowPart)
        Length = EDU_RAM_BYTES - Where.LowPart;
    TakeTurn(D);
    status = Move(D, FromCard, Irp->AssociatedIrp.SystemBuffer, Where.LowPart, Length);
    GiveTurn(D);
    return Ends(Irp, status, NT_SUCCESS(status) ? Length : 0);
}

static NTSTATUS Read(PFRAME F, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    return Transfer((PDEV)F, Irp, TRUE, Stack->Parameters.Read.ByteOffset, Stack->Parameters.Read.Length);
}

static NTSTATUS Write(PFRAME F, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    return Transfer((PDEV)F, Irp, FALSE, Stack->Parameters.Write.ByteOffset, Stack->Parameters.Write.Length);
}

static const FRAME_HOOKS Hooks = {
    .Bytes = sizeof(DEV),
    .Flags = DO_BUFFERED_IO,
    .Face = &LoamFace,
    .Setup = Setup,
    .Start = Start,
    .Stop = Stop,
    .MayStop = MayStop,
    .Unhold = Unhold,
    .Drain = Drain,
    .Isr = EduIsr,
    .Listen = EduListen,
    .Ready = Ready,
    .Dpc = Dpc,
    .Read = Read,
    .Write = Write,
};

/*
 * edmover - block transfers to and from the buffer of a QEMU "edu" card
 *
 * The card has 4 KB of its own memory that only its DMA engine reaches.
 * ReadFile and WriteFile move bytes at an offset of that memory.  Requests are
 * queued and carried out one after the other through a common buffer below
 * 256 MB, which is as far as the card's DMA engine can see.  A transfer that
 * the card does not finish within a few seconds is given up.
 *
 * The bug: the DPC of the time limit takes the request without the lock.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: data-race, double-completion, use-after-free
 * Needs: schedule, device
 */
#include <ddk/wdm.h>

static const GUID EdmGuid =
    { 0x90b1c7e4, 0x2f3d, 0x4c9a, { 0x88, 0x51, 0xd2, 0x6e, 0x0b, 0xf4, 0x17, 0x3c } };

#define CARD_TAG        'vmdE'
#define CARD_GUID       EdmGuid
#include "../include/unit_kit.h"

#define EDU_ID          0x00
#define EDU_STATUS      0x20
#define EDU_IRQ_STATUS  0x24
#define EDU_IRQ_ACK     0x64
#define EDU_DMA_SRC     0x80
#define EDU_DMA_DST     0x88
#define EDU_DMA_COUNT   0x90
#define EDU_DMA_CMD     0x98
#define   DMA_RUN         0x01
#define   DMA_TO_RAM      0x02
#define   DMA_IRQ         0x04
#define EDU_BUFFER      0x40000

#define CAUSE_DMA       0x100
#define EDM_BYTES       4096
#define EDM_HIGHEST     0x0FFFFFFFull
#define EDM_TICK_MS     500
#define EDM_TICKS       6

struct _EXT {
    CARD             Card;
    volatile LONG    Causes;
    PIRP             Active;            /* with the card, not cancelable */
    BOOLEAN          Busy;              /* the engine runs, perhaps for no request any more */
    BOOLEAN          Hold;              /* start nothing new */
    LONG             Ticks;             /* left for Active */
    KTIMER           Timer;
    KDPC             TimerDpc;
    PDMA_ADAPTER     Adapter;
    PVOID            Buffer;
    PHYSICAL_ADDRESS BufferBus;
};

/* DEVICE_DESCRIPTION as of version 3, which knows about odd address widths */
typedef struct {
    DEVICE_DESCRIPTION Base;
    ULONG              DmaAddressWidth;
    ULONG              DmaControllerInstance;
    ULONG              DmaRequestLine;
    PHYSICAL_ADDRESS   DeviceAddress;
} EDM_DESCRIPTION;

static ULONG CardMinBytes(VOID)
{
    return 0x100;
}

static NTSTATUS CardProbe(PEXT x)
{
    EDM_DESCRIPTION d;
    ULONG regs;

    if ((CardRead(&x->Card, EDU_ID) & 0xFFFF) != 0x00ED)
        return STATUS_NO_SUCH_DEVICE;
    CardWrite(&x->Card, EDU_STATUS, 0);

    RtlZeroMemory(&d, sizeof(d));
    d.Base.Version = 3;
    d.Base.Master = TRUE;
    d.Base.ScatterGather = TRUE;
    d.Base.Dma32BitAddresses = TRUE;
    d.Base.InterfaceType = PCIBus;
    d.Base.MaximumLength = EDM_BYTES;
    d.DmaAddressWidth = 28;
    x->Adapter = IoGetDmaAdapter(x->Card.Pdo, &d.Base, &regs);
    if (!x->Adapter) {
        d.Base.Version = DEVICE_DESCRIPTION_VERSION;
        x->Adapter = IoGetDmaAdapter(x->Card.Pdo, &d.Base, &regs);
    }
    if (!x->Adapter)
        return STATUS_INSUFFICIENT_RESOURCES;
    x->Buffer = x->Adapter->DmaOperations->AllocateCommonBuffer(x->Adapter, EDM_BYTES, &x->BufferBus, TRUE);
    if (!x->Buffer || (ULONG64)x->BufferBus.QuadPart + EDM_BYTES - 1 > EDM_HIGHEST)
        return STATUS_INSUFFICIENT_RESOURCES;
    return STATUS_SUCCESS;
}

static VOID CardRelease(PEXT x)
{
    if (x->Buffer)
        x->Adapter->DmaOperations->FreeCommonBuffer(x->Adapter, EDM_BYTES, x->BufferBus, x->Buffer, TRUE);
    x->Buffer = NULL;
    if (x->Adapter)
        x->Adapter->DmaOperations->PutDmaAdapter(x->Adapter);
    x->Adapter = NULL;
}

static VOID CardUp(PEXT x)
{
    LARGE_INTEGER due;
    ULONG stale = CardRead(&x->Card, EDU_IRQ_STATUS);

    if (stale != 0 && stale != MAXULONG)
        CardWrite(&x->Card, EDU_IRQ_ACK, stale);
    InterlockedExchange(&x->Causes, 0);
    x->Busy = (CardRead(&x->Card, EDU_DMA_CMD) & DMA_RUN) != 0;
    x->Hold = FALSE;
    due.QuadPart = -10000LL * EDM_TICK_MS;
    KeSetTimerEx(&x->Timer, due, EDM_TICK_MS, &x->TimerDpc);
}

static VOID CardDown(PEXT x, BOOLEAN Touch)
{
    UNREFERENCED_PARAMETER(Touch);
    KeCancelTimer(&x->Timer);
}

static VOID CardQuiesce(PEXT x)
{
    KeCancelTimer(&x->Timer);
    KeRemoveQueueDpc(&x->TimerDpc);
}

/* Lets the transfer under way finish; if the card is gone or does not, fails it. */
static VOID CardDrain(PEXT x, BOOLEAN Touch)
{
    LARGE_INTEGER nap;
    BOOLEAN busy;
    PIRP irp;
    KIRQL irql;
    ULONG i;

    nap.QuadPart = -10LL * 10000;
    for (i = 0; i < 100; i++) {
        KeAcquireSpinLock(&x->Card.Lock, &irql);
        x->Hold = TRUE;
        busy = x->Card.Ready && x->Busy;
        KeReleaseSpinLock(&x->Card.Lock, irql);
        if (!busy || !Touch)
            break;
        KeDelayExecutionThread(KernelMode, FALSE, &nap);
    }

    KeAcquireSpinLock(&x->Card.Lock, &irql);
    irp = x->Active;
    x->Active = NULL;
    KeReleaseSpinLock(&x->Card.Lock, irql);
    if (irp) {
        CardComplete(irp, Touch ? STATUS_IO_TIMEOUT : STATUS_DELETE_PENDING, 0);
        IoReleaseRemoveLock(&x->Card.RemoveLock, irp);
    }
}

static BOOLEAN NTAPI CardIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PEXT x = Context;
    ULONG cause;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!x->Card.Armed)
        return FALSE;
    cause = CardRead(&x->Card, EDU_IRQ_STATUS);
    if (cause == 0 || cause == MAXULONG)
        return FALSE;
    CardWrite(&x->Card, EDU_IRQ_ACK, cause);
    InterlockedOr(&x->Causes, (LONG)cause);
    KeInsertQueueDpc(&x->Card.Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN EdmIsWrite(PIRP Irp)
{
    return IoGetCurrentIrpStackLocation(Irp)->MajorFunction == IRP_MJ_WRITE;
}

/* Read and Write have the same parameters in the same places. */
static ULONG EdmLength(PIRP Irp)
{
    return IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length;
}

static ULONG EdmOffset(PIRP Irp)
{
    return IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.ByteOffset.LowPart;
}

/* Lock held. */
static VOID EdmStartNext(PEXT x)
{
    PCARD c = &x->Card;
    PIRP irp;

    while (c->Ready && !x->Busy && !x->Hold && !x->Active) {
        irp = CardNext(c);
        if (!irp)
            return;
        irp = CardTakeCurrent(c);
        if (!irp)
            continue;
        x->Active = irp;
        x->Busy = TRUE;
        x->Ticks = EDM_TICKS;
        if (EdmIsWrite(irp)) {
            RtlCopyMemory(x->Buffer, irp->AssociatedIrp.SystemBuffer, EdmLength(irp));
            CardWrite(c, EDU_DMA_SRC, x->BufferBus.LowPart);
            CardWrite(c, EDU_DMA_DST, EDU_BUFFER + EdmOffset(irp));
        } else {
            CardWrite(c, EDU_DMA_SRC, EDU_BUFFER + EdmOffset(irp));
            CardWrite(c, EDU_DMA_DST, x->BufferBus.LowPart);
        }
        CardWrite(c, EDU_DMA_COUNT, EdmLength(irp));
        CardWrite(c, EDU_DMA_CMD, DMA_RUN | DMA_IRQ | (EdmIsWrite(irp) ? 0 : DMA_TO_RAM));
    }
}

static VOID NTAPI CardDpc(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PEXT x = Context;
    PCARD c = &x->Card;
    ULONG causes = (ULONG)InterlockedExchange(&x->Causes, 0);
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);

    KeAcquireSpinLockAtDpcLevel(&c->Lock);
    if ((causes & CAUSE_DMA) && c->Ready && x->Busy && !(CardRead(c, EDU_DMA_CMD) & DMA_RUN)) {
        x->Busy = FALSE;
        irp = x->Active;
        x->Active = NULL;
        if (irp && !EdmIsWrite(irp))
            RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, x->Buffer, EdmLength(irp));
        EdmStartNext(x);
    }
    KeReleaseSpinLockFromDpcLevel(&c->Lock);

    if (irp) {
        CardComplete(irp, STATUS_SUCCESS, EdmLength(irp));
        IoReleaseRemoveLock(&c->RemoveLock, irp);
    }
}

static VOID NTAPI EdmTick(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PEXT x = Context;
    PCARD c = &x->Card;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);

#ifdef FIXED
    KeAcquireSpinLockAtDpcLevel(&c->Lock);
#endif
    if (x->Active && --x->Ticks <= 0) {
        irp = x->Active;
        x->Active = NULL;
    }
#ifndef FIXED
    KeAcquireSpinLockAtDpcLevel(&c->Lock);
#endif
    /* no request waits, and the engine has stopped after all */
    if (c->Ready && x->Busy && !x->Active && !(CardRead(c, EDU_DMA_CMD) & DMA_RUN)) {
        x->Busy = FALSE;
        EdmStartNext(x);
    }
    KeReleaseSpinLockFromDpcLevel(&c->Lock);

    if (irp) {
        CardComplete(irp, STATUS_IO_TIMEOUT, 0);
        IoReleaseRemoveLock(&c->RemoveLock, irp);
    }
}

static NTSTATUS NTAPI EdmReadWrite(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PEXT x = CARD_EXT_OF(DeviceObject);
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    LONGLONG offset = sl->Parameters.Read.ByteOffset.QuadPart;
    ULONG length = EdmLength(Irp);
    NTSTATUS status;
    KIRQL irql;

    status = IoAcquireRemoveLock(&x->Card.RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return CardComplete(Irp, status, 0);

    if (length == 0) {
        status = STATUS_SUCCESS;
    } else if (offset < 0 || offset >= EDM_BYTES || length > EDM_BYTES - (ULONG)offset) {
        status = STATUS_INVALID_PARAMETER;
    } else {
        KeAcquireSpinLock(&x->Card.Lock, &irql);
        status = CardEnqueue(&x->Card, Irp);
        if (status == STATUS_PENDING)
            EdmStartNext(x);
        KeReleaseSpinLock(&x->Card.Lock, irql);
        if (status == STATUS_PENDING)
            return status;
    }
    CardComplete(Irp, status, 0);
    IoReleaseRemoveLock(&x->Card.RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI EdmAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    PEXT x;
    NTSTATUS status = CardAttach(DriverObject, Pdo, sizeof(EXT), &x);

    if (!NT_SUCCESS(status))
        return status;
    KeInitializeTimer(&x->Timer);
    KeInitializeDpc(&x->TimerDpc, EdmTick, x);
    x->Card.Fdo->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
    x->Card.Fdo->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    CardDispatch(DriverObject, EdmAddDevice);
    DriverObject->MajorFunction[IRP_MJ_READ] = EdmReadWrite;
    DriverObject->MajorFunction[IRP_MJ_WRITE] = EdmReadWrite;
    return STATUS_SUCCESS;
}

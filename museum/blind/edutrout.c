/*
 * EDUTROUT: a sample store behind a DMA engine (QEMU's edu). Programs put samples into the card's 4 KiB of memory and get them back;
 * both go through one common buffer, one transfer at a time.
 *
 * The bug: when the device is stopped or removed the common buffer is freed although the card may be in the middle of a transfer,
 * which goes on into memory that is not the driver's any more.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: wild-dma, dma-after-unmap, dma-behind-mapping
 * Needs: ioctl, removal, device
 */
#include <ddk/wdm.h>
#include "../include/stead.h"
#include "../include/stead_card.h"

#define IOCTL_TROUT_PUT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x951, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_TROUT_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x952, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID TroutFace = { 0x5b1d3c11, 0x9f21, 0x4a5e, { 0x8a, 0x10, 0x3e, 0x77, 0x10, 0x4d, 0x21, 0x02 } };

#define EDU_ID      0x00
#define EDU_STATUS  0x20
#define EDU_CAUSE   0x24
#define EDU_ACK     0x64
#define EDU_DMA_SRC 0x80
#define EDU_DMA_DST 0x88
#define EDU_DMA_CNT 0x90
#define EDU_DMA_CMD 0x98

#define CMD_RUN     1
#define CMD_TO_RAM  2
#define CMD_IRQ     4
#define CAUSE_DMA   0x100

#define CARD_MEMORY 0x40000
#define STORE 4096
#define REACH 0x10000000ULL     /* the card has 28 address lines */
#define LIMIT_MS 3000

typedef struct PLACE {          /* samples follow it, if they are to be put */
    ULONG offset;
    ULONG length;
} PLACE;

typedef struct TROUT {
    CARD card;
    WINDOW *regs;
    PDMA_ADAPTER adapter;
    PUCHAR buffer;
    PHYSICAL_ADDRESS logical;
    LINE jobs;
    KSPIN_LOCK lock;            /* of what follows */
    PIRP current;
    ULONGLONG deadline;
    BOOLEAN running;
    LONG causes;
    KDPC doneDpc;
    KTIMER limit;
    KDPC limitDpc;
} TROUT;

static BOOLEAN TroutIsr(PVOID context)
{
    TROUT *d = context;
    ULONG cause = CardGet(d->regs, EDU_CAUSE);

    if (cause == 0 || cause == 0xFFFFFFFF)
        return FALSE;
    CardPut(d->regs, EDU_ACK, cause);
    InterlockedOr(&d->causes, (LONG)cause);
    KeInsertQueueDpc(&d->doneDpc, NULL, NULL);
    return TRUE;
}

static VOID TroutPump(TROUT *d)
{
    LARGE_INTEGER due;
    PLACE *place;
    KIRQL irql;
    PIRP irp;

    KeAcquireSpinLock(&d->lock, &irql);
    while (d->running && d->current == NULL && (irp = LineTake(&d->jobs)) != NULL) {
        if (CardGet(d->regs, EDU_DMA_CMD) & CMD_RUN) {  /* it was given up, or there is no card any more */
            KeReleaseSpinLock(&d->lock, irql);
            IrpEnd(d->jobs.guard, irp, STATUS_DEVICE_BUSY, 0);
            KeAcquireSpinLock(&d->lock, &irql);
            continue;
        }
        d->current = irp;
        d->deadline = KeQueryInterruptTime() + LIMIT_MS * 10000ULL;
        place = irp->AssociatedIrp.SystemBuffer;
        if (IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.IoControlCode == IOCTL_TROUT_PUT) {
            RtlCopyMemory(d->buffer, place + 1, place->length);
            CardPut(d->regs, EDU_DMA_SRC, d->logical.LowPart);
            CardPut(d->regs, EDU_DMA_DST, CARD_MEMORY + place->offset);
            CardPut(d->regs, EDU_DMA_CNT, place->length);
            CardPut(d->regs, EDU_DMA_CMD, CMD_RUN | CMD_IRQ);
        } else {
            CardPut(d->regs, EDU_DMA_SRC, CARD_MEMORY + place->offset);
            CardPut(d->regs, EDU_DMA_DST, d->logical.LowPart);
            CardPut(d->regs, EDU_DMA_CNT, place->length);
            CardPut(d->regs, EDU_DMA_CMD, CMD_RUN | CMD_TO_RAM | CMD_IRQ);
        }
        due.QuadPart = -10000LL * LIMIT_MS;
        KeSetTimer(&d->limit, due, &d->limitDpc);
    }
    KeReleaseSpinLock(&d->lock, irql);
}

static VOID NTAPI TroutDone(PKDPC dpc, PVOID context, PVOID one, PVOID two)
{
    TROUT *d = context;
    ULONG_PTR info = 0;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(one);
    UNREFERENCED_PARAMETER(two);
    if ((InterlockedExchange(&d->causes, 0) & CAUSE_DMA) == 0)
        return;
    KeAcquireSpinLockAtDpcLevel(&d->lock);
    if (d->current != NULL && (CardGet(d->regs, EDU_DMA_CMD) & CMD_RUN) == 0) {
        irp = d->current;
        d->current = NULL;
        KeCancelTimer(&d->limit);
        if (IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.IoControlCode == IOCTL_TROUT_GET) {
            info = ((PLACE *)irp->AssociatedIrp.SystemBuffer)->length;
            RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, d->buffer, info);
        }
    }
    KeReleaseSpinLockFromDpcLevel(&d->lock);
    if (irp != NULL)
        IrpEnd(d->jobs.guard, irp, STATUS_SUCCESS, info);
    TroutPump(d);
}

static VOID NTAPI TroutLate(PKDPC dpc, PVOID context, PVOID one, PVOID two)
{
    TROUT *d = context;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(one);
    UNREFERENCED_PARAMETER(two);
    KeAcquireSpinLockAtDpcLevel(&d->lock);
    if (d->current != NULL && KeQueryInterruptTime() >= d->deadline) {
        irp = d->current;
        d->current = NULL;
    }
    KeReleaseSpinLockFromDpcLevel(&d->lock);
    if (irp != NULL)
        IrpEnd(d->jobs.guard, irp, STATUS_IO_TIMEOUT, 0);
    TroutPump(d);
}

/* Until the card has left memory alone, 10 s at most. */
static VOID TroutAwaitCard(TROUT *d)
{
    LARGE_INTEGER step;
    ULONG i, command;

    step.QuadPart = -10000LL * 10;
    for (i = 0; i < 1000; i++) {
        command = CardGet(d->regs, EDU_DMA_CMD);
        if (command == 0xFFFFFFFF || (command & CMD_RUN) == 0)
            break;
        KeDelayExecutionThread(KernelMode, FALSE, &step);
    }
}

static VOID TroutHalt(TROUT *d)
{
    KIRQL irql;

    KeAcquireSpinLock(&d->lock, &irql);
    d->running = FALSE;
    KeReleaseSpinLock(&d->lock, irql);
}

/* What the card has raised by now is taken, and the service routine touches nothing from here on. */
static BOOLEAN NTAPI TroutHush(PVOID context)
{
    TROUT *d = context;

    TroutIsr(d);
    d->card.deaf = TRUE;
    return TRUE;
}

/* What is left of the current request ends: the card has not said that it is done. */
static VOID TroutQuiet(TROUT *d, BOOLEAN touch)
{
    KIRQL irql;
    PIRP irp;

    if (touch)
        KeSynchronizeExecution(d->card.irq, TroutHush, d);
    else
        CardDeafen(&d->card);
    KeCancelTimer(&d->limit);
    KeFlushQueuedDpcs();
    KeAcquireSpinLock(&d->lock, &irql);
    irp = d->current;
    d->current = NULL;
    KeReleaseSpinLock(&d->lock, irql);
    if (irp != NULL)
        IrpEnd(d->jobs.guard, irp, STATUS_DEVICE_NOT_READY, 0);
}

static VOID TroutGo(TROUT *d)
{
    KIRQL irql;

    CardPut(d->regs, EDU_ACK, CardGet(d->regs, EDU_CAUSE));
    CardHear(&d->card);
    KeAcquireSpinLock(&d->lock, &irql);
    d->running = TRUE;
    KeReleaseSpinLock(&d->lock, irql);
    TroutPump(d);
}

static NTSTATUS TroutSettle(STEAD *s)
{
    TROUT *d = OWN(s, TROUT);

    LineReady(&d->jobs, &s->guard);
    KeInitializeSpinLock(&d->lock);
    KeInitializeDpc(&d->doneDpc, TroutDone, d);
    KeInitializeTimer(&d->limit);
    KeInitializeDpc(&d->limitDpc, TroutLate, d);
    return STATUS_SUCCESS;
}

static VOID TroutFreeMemory(TROUT *d)
{
    if (d->buffer != NULL)
        d->adapter->DmaOperations->FreeCommonBuffer(d->adapter, STORE, d->logical, d->buffer, TRUE);
    d->buffer = NULL;
    if (d->adapter != NULL)
        d->adapter->DmaOperations->PutDmaAdapter(d->adapter);
    d->adapter = NULL;
}

static NTSTATUS TroutBegin(STEAD *s, PCM_RESOURCE_LIST raw, PCM_RESOURCE_LIST translated)
{
    TROUT *d = OWN(s, TROUT);
    DEVICE_DESCRIPTION description;
    ULONG registers;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(raw);
    CardRead(&d->card, translated);
    d->regs = CardWindow(&d->card, FALSE, 0);
    status = CardMap(d->regs, CARD_MEMORY + STORE);
    if (!NT_SUCCESS(status))
        return status;
    if ((CardGet(d->regs, EDU_ID) & 0xFF) != 0xED) {
        status = STATUS_DEVICE_CONFIGURATION_ERROR;
        goto bad;
    }
    RtlZeroMemory(&description, sizeof(description));
    description.Version = DEVICE_DESCRIPTION_VERSION2;
    description.Master = TRUE;
    description.ScatterGather = TRUE;
    description.Dma32BitAddresses = TRUE;
    description.InterfaceType = PCIBus;
    description.MaximumLength = STORE;
    status = STATUS_INSUFFICIENT_RESOURCES;
    d->adapter = IoGetDmaAdapter(s->pdo, &description, &registers);
    if (d->adapter == NULL)
        goto bad;
    d->buffer = d->adapter->DmaOperations->AllocateCommonBuffer(d->adapter, STORE, &d->logical, TRUE);
    if (d->buffer == NULL)
        goto bad;
    CardPut(d->regs, EDU_STATUS, 0);
    CardPut(d->regs, EDU_ACK, CardGet(d->regs, EDU_CAUSE));
    d->causes = 0;
    status = CardConnect(&d->card, TroutIsr, d);
    if (!NT_SUCCESS(status))
        goto bad;
    TroutGo(d);
    return STATUS_SUCCESS;

bad:
    TroutFreeMemory(d);
    CardUnmap(&d->card);
    return status;
}

static VOID TroutEnd(STEAD *s, BOOLEAN touch)
{
    TROUT *d = OWN(s, TROUT);

    TroutHalt(d);
#ifdef FIXED
    if (touch)
        TroutAwaitCard(d);
#endif
    TroutQuiet(d, touch);
    CardDisconnect(&d->card);
    KeFlushQueuedDpcs();
    TroutFreeMemory(d);
    CardUnmap(&d->card);
}

static VOID TroutDim(STEAD *s)
{
    TROUT *d = OWN(s, TROUT);

    TroutHalt(d);
    TroutAwaitCard(d);
    TroutQuiet(d, TRUE);
}

static VOID TroutLit(STEAD *s)
{
    TroutGo(OWN(s, TROUT));
}

static VOID TroutForsake(STEAD *s)
{
    LineClose(&OWN(s, TROUT)->jobs, STATUS_NO_SUCH_DEVICE);
}

static VOID TroutLeave(STEAD *s, PFILE_OBJECT file)
{
    LineDrop(&OWN(s, TROUT)->jobs, file, STATUS_CANCELLED);
}

static NTSTATUS TroutServe(STEAD *s, PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info)
{
    TROUT *d = OWN(s, TROUT);
    PLACE *place = irp->AssociatedIrp.SystemBuffer;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;

    UNREFERENCED_PARAMETER(info);
    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TROUT_PUT:
    case IOCTL_TROUT_GET:
        break;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
    if (in < sizeof(PLACE))
        return STATUS_BUFFER_TOO_SMALL;
    if (place->length == 0 || place->length > STORE || place->offset > STORE - place->length)
        return STATUS_INVALID_PARAMETER;
    if (sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_TROUT_PUT ? in - sizeof(PLACE) < place->length : out < place->length)
        return STATUS_BUFFER_TOO_SMALL;
    if ((ULONGLONG)d->logical.QuadPart + STORE > REACH)
        return STATUS_NOT_SUPPORTED;    /* the computer has no memory for this card */
    LineJoin(&d->jobs, irp);
    TroutPump(d);
    return STATUS_PENDING;
}

static const CRAFT TroutCraft = {
    .own = sizeof(TROUT),
    .flags = DO_BUFFERED_IO,
    .face = &TroutFace,
    .settle = TroutSettle,
    .begin = TroutBegin,
    .end = TroutEnd,
    .dim = TroutDim,
    .lit = TroutLit,
    .forsake = TroutForsake,
    .leave = TroutLeave,
    .serve = TroutServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return SteadFound(driver, &TroutCraft);
}

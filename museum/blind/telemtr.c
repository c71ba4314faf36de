/*
 * TELEMTR: a receiver for a rocket's telemetry. The card collects words in a FIFO of 64 and interrupts when there are some; boards
 * without the wire are looked at every 20 ms. A program's reads wait for the next packet, which is what the FIFO holds by then.
 *
 * The bug: the fill level that the card says is believed: more than the FIFO can hold, as a card says that fails or that is just being
 * pulled out, and the packet's buffer is overrun.
 *
 * Device: PCI\VEN_1D5A&DEV_0166
 * Rule: pool-overrun, wild-write, bad-pointer
 * Needs: device, removal
 */
#include <ddk/wdm.h>
#include "../include/stead.h"
#include "../include/stead_card.h"

static const GUID TeleFace = { 0x5b1d3c1f, 0x9f21, 0x4a5e, { 0x8a, 0x10, 0x3e, 0x77, 0x10, 0x4d, 0x21, 0x10 } };

#define REG_CAUSE  0x00         /* ones clear */
#define REG_ENABLE 0x04
#define REG_LEVEL  0x08         /* words in the FIFO */
#define REG_FIFO   0x0C
#define REG_BYTES  0x10

#define CAUSES 0xFFFF
#define FIFO_WORDS 64
#define LOOK_MS 20

typedef struct TELE {
    CARD card;
    WINDOW *regs;
    LINE readers;
    KDPC isrDpc;
    KTIMER look;
    KDPC lookDpc;
    KSPIN_LOCK lock;            /* of what follows, and of the FIFO */
    PULONG packet;              /* FIFO_WORDS */
    ULONG words;                /* in the packet */
    ULONG faults;
} TELE;

static BOOLEAN TeleIsr(PVOID context)
{
    TELE *d = context;
    ULONG cause = CardGet(d->regs, REG_CAUSE);

    if (cause == 0xFFFFFFFF || cause == 0)
        return FALSE;
    CardPut(d->regs, REG_CAUSE, cause);
    KeInsertQueueDpc(&d->isrDpc, NULL, NULL);
    return TRUE;
}

/* Empties the FIFO into the packet; the lock is held. */
static VOID TeleFetch(TELE *d)
{
    ULONG i, level = CardGet(d->regs, REG_LEVEL);

#ifdef FIXED
    if (level > FIFO_WORDS) {
        d->faults++;
        level = 0;
    }
#endif
    for (i = 0; i < level; i++)
        d->packet[i] = CardGet(d->regs, REG_FIFO);
    if (level != 0)
        d->words = level;       /* a packet that was not read is gone */
}

static VOID NTAPI TeleDpc(PKDPC dpc, PVOID context, PVOID one, PVOID two)
{
    TELE *d = context;
    ULONG_PTR bytes = 0;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(one);
    UNREFERENCED_PARAMETER(two);
    KeAcquireSpinLockAtDpcLevel(&d->lock);
    TeleFetch(d);
    if (d->words != 0 && (irp = LineTake(&d->readers)) != NULL) {
        bytes = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length & ~(ULONG)3;
        if (bytes > d->words * sizeof(ULONG))
            bytes = d->words * sizeof(ULONG);
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, d->packet, bytes);
        d->words = 0;
    }
    KeReleaseSpinLockFromDpcLevel(&d->lock);
    if (irp != NULL)
        IrpEnd(d->readers.guard, irp, STATUS_SUCCESS, bytes);
}

static VOID TeleGo(TELE *d)
{
    LARGE_INTEGER due;

    CardHear(&d->card);
    CardPut(d->regs, REG_ENABLE, d->card.irq != NULL ? CAUSES : 0);
    due.QuadPart = -10000LL * LOOK_MS;
    KeSetTimerEx(&d->look, due, LOOK_MS, &d->lookDpc);
}

static VOID TeleRest(TELE *d, BOOLEAN touch)
{
    if (touch) {
        CardPut(d->regs, REG_ENABLE, 0);
        CardGet(d->regs, REG_ENABLE);
    }
    CardDeafen(&d->card);
    KeCancelTimer(&d->look);
    KeFlushQueuedDpcs();
}

static NTSTATUS TeleSettle(STEAD *s)
{
    TELE *d = OWN(s, TELE);

    LineReady(&d->readers, &s->guard);
    KeInitializeSpinLock(&d->lock);
    KeInitializeTimer(&d->look);
    KeInitializeDpc(&d->isrDpc, TeleDpc, d);
    KeInitializeDpc(&d->lookDpc, TeleDpc, d);
    d->packet = ExAllocatePoolWithTag(NonPagedPool, FIFO_WORDS * sizeof(ULONG), TAG_AC);
    return d->packet != NULL ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static VOID TeleUnsettle(STEAD *s)
{
    TELE *d = OWN(s, TELE);

    ExFreePoolWithTag(d->packet, TAG_AC);
    d->packet = NULL;
}

static NTSTATUS TeleBegin(STEAD *s, PCM_RESOURCE_LIST raw, PCM_RESOURCE_LIST translated)
{
    TELE *d = OWN(s, TELE);
    NTSTATUS status;

    UNREFERENCED_PARAMETER(raw);
    CardRead(&d->card, translated);
    if (d->card.windows == 0)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->regs = &d->card.window[0];
    status = CardMap(d->regs, REG_BYTES);
    if (!NT_SUCCESS(status))
        return status;
    CardPut(d->regs, REG_ENABLE, 0);
    CardPut(d->regs, REG_CAUSE, CAUSES);
    if (d->card.wired) {
        status = CardConnect(&d->card, TeleIsr, d);
        if (!NT_SUCCESS(status)) {
            CardUnmap(&d->card);
            return status;
        }
    }
    TeleGo(d);
    return STATUS_SUCCESS;
}

static VOID TeleEnd(STEAD *s, BOOLEAN touch)
{
    TELE *d = OWN(s, TELE);

    TeleRest(d, touch);
    CardDisconnect(&d->card);
    KeFlushQueuedDpcs();
    CardUnmap(&d->card);
}

static VOID TeleDim(STEAD *s)
{
    TeleRest(OWN(s, TELE), TRUE);
}

static VOID TeleLit(STEAD *s)
{
    TeleGo(OWN(s, TELE));
}

static VOID TeleForsake(STEAD *s)
{
    LineClose(&OWN(s, TELE)->readers, STATUS_NO_SUCH_DEVICE);
}

static VOID TeleLeave(STEAD *s, PFILE_OBJECT file)
{
    LineDrop(&OWN(s, TELE)->readers, file, STATUS_CANCELLED);
}

static NTSTATUS TeleServe(STEAD *s, PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info)
{
    UNREFERENCED_PARAMETER(info);
    if (sp->MajorFunction != IRP_MJ_READ)
        return STATUS_INVALID_DEVICE_REQUEST;
    if (sp->Parameters.Read.Length < sizeof(ULONG))
        return STATUS_BUFFER_TOO_SMALL;
    return LineJoin(&OWN(s, TELE)->readers, irp);       /* the timer's next look serves it, if there is a packet */
}

static const CRAFT TeleCraft = {
    .own = sizeof(TELE),
    .flags = DO_BUFFERED_IO,
    .face = &TeleFace,
    .settle = TeleSettle,
    .unsettle = TeleUnsettle,
    .begin = TeleBegin,
    .end = TeleEnd,
    .dim = TeleDim,
    .lit = TeleLit,
    .forsake = TeleForsake,
    .leave = TeleLeave,
    .serve = TeleServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return SteadFound(driver, &TeleCraft);
}

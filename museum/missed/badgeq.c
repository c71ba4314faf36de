/*
 * CAPSTAN: badge readers at up to four doors, on one card. ReadFile waits for
 * badges and returns as many of the events (door and badge, 32 bits each) as
 * there are and fit; IOCTL_CAPSTAN_STATS answers how many were seen and lost,
 * IOCTL_CAPSTAN_FLUSH drops those that no one has read.
 *
 * The card: BAR0, 256 bytes, all registers of 32 bits.
 *   00 ID      43415053h
 *   04 CTRL    bit 0: raise the interrupt while STATUS has EVENT
 *   08 STATUS  bit 0 EVENT: set whenever an event is put into the FIFO, at
 *              whatever level; cleared by writing 1, and by nothing else
 *   0C DATA    takes an event out of the FIFO (64 deep): bits 0..23 badge,
 *              24..31 door (1 to 4); 0 when the FIFO is empty
 *
 * The bug: EVENT is acknowledged after the FIFO has been emptied instead of
 * before; an event that comes between the last look and the acknowledgement
 * stays in the FIFO without an interrupt, and its reader waits until someone
 * else shows a badge.
 *
 * Device: PCI\VEN_1DA7&DEV_0102
 * Rule: the card's event bit is cleared while its FIFO holds an event that the driver has not seen; a read stays pending for ever
 * Needs: ioctl, schedule, device
 */
#include "../include/wharf_card.h"

DEFINE_GUID(GUID_CAPSTAN, 0x6d1c0b11, 0x2f0a, 0x4c55, 0x91, 0x07, 0x33, 0x5e, 0xd0, 0x18, 0x7a, 0x0a);

#define IOCTL_CAPSTAN_STATS \
    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x891, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_CAPSTAN_FLUSH \
    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x892, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define C_ID     0x00
#define   C_MAGIC  0x43415053
#define C_CTRL   0x04
#define C_STATUS 0x08
#define   C_EVENT  1
#define C_DATA   0x0C
#define C_GONE   0xFFFFFFFFu

#define RING  128               /* events, a power of two */
#define BURST 256               /* four times the FIFO: more is no card of ours */

typedef struct _CAPSTAN_STATS {
    ULONG Seen;
    ULONG Lost;
} CAPSTAN_STATS;

typedef struct _CARD {
    WHARF W;
    WHARF_QUEUE Queue;
    ULONG Ring[RING];           /* Spin */
    ULONG Head, Tail;           /* Spin: count up, taken modulo RING */
    CAPSTAN_STATS Stats;        /* Spin */
    BOOLEAN Broken;             /* Spin */
    BOOLEAN Masked;             /* interrupt lock: the DPC is on its way */
    KDPC Dpc;
} CARD;

#define CARD_GUID GUID_CAPSTAN
#define CARD_IO   DO_BUFFERED_IO

static BOOLEAN NTAPI CapstanIsr(PKINTERRUPT intr, PVOID ctx)
{
    CARD *e = ctx;
    ULONG st;

    (void)intr;
    if (!e->W.IsrOn || e->Masked)
        return FALSE;
    st = WharfRd(&e->W, C_STATUS);
    if (st == C_GONE || !(st & C_EVENT))
        return FALSE;
    WharfWr(&e->W, C_CTRL, 0);
    e->Masked = TRUE;
    KeInsertQueueDpc(&e->Dpc, NULL, NULL);
    return TRUE;
}

/* empties the FIFO into the ring; Spin is held, the card is awake */
static VOID CapstanDrain(CARD *e)
{
    ULONG i, v;

    for (i = 0; i < BURST; i++) {
        v = WharfRd(&e->W, C_DATA);
        if (v == 0)
            return;
        if ((v >> 24) < 1 || (v >> 24) > 4)
            break;              /* all ones, for one: no event */
        if (e->Head - e->Tail == RING) {
            e->Tail++;          /* the oldest is lost */
            e->Stats.Lost++;
        }
        e->Ring[e->Head++ % RING] = v;
        e->Stats.Seen++;
    }
    e->Broken = TRUE;
}

/* serves the readers from the ring */
static VOID CapstanServe(CARD *e)
{
    ULONG n, i, *to;
    NTSTATUS st;
    PIRP irp;
    KIRQL q;

    for (;;) {
        KeAcquireSpinLock(&e->W.Spin, &q);
        irp = NULL;
        if (!e->W.Live || e->Broken || e->Head != e->Tail)
            irp = WharfQueueNext(&e->Queue, NULL);
        if (!irp) {
            KeReleaseSpinLock(&e->W.Spin, q);
            return;
        }
        n = 0;
        if (!e->W.Live)
            st = STATUS_NO_SUCH_DEVICE;
        else if (e->Head == e->Tail)
            st = STATUS_IO_DEVICE_ERROR;
        else {
            st = STATUS_SUCCESS;
            to = irp->AssociatedIrp.SystemBuffer;
            n = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length /
                sizeof(ULONG);
            if (n > e->Head - e->Tail)
                n = e->Head - e->Tail;
            for (i = 0; i < n; i++)
                to[i] = e->Ring[e->Tail++ % RING];
        }
        KeReleaseSpinLock(&e->W.Spin, q);
        WharfDone(&e->W, irp, st, n * sizeof(ULONG));
    }
}

static VOID NTAPI CapstanDpc(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{
    CARD *e = ctx;
    KIRQL q, qi;

    (void)dpc; (void)a; (void)b;
    KeAcquireSpinLock(&e->W.Spin, &q);
    if (e->W.Live && e->W.Awake && !e->Broken) {
#ifdef FIXED
        WharfWr(&e->W, C_STATUS, C_EVENT);
        CapstanDrain(e);
#else
        CapstanDrain(e);
        WharfWr(&e->W, C_STATUS, C_EVENT);
#endif
        if (!e->Broken) {
            qi = KeAcquireInterruptSpinLock(e->W.Interrupt);
            e->Masked = FALSE;
            WharfWr(&e->W, C_CTRL, 1);
            KeReleaseInterruptSpinLock(e->W.Interrupt, qi);
        }
    }
    KeReleaseSpinLock(&e->W.Spin, q);
    CapstanServe(e);
}

static NTSTATUS CardIo(CARD *e, PIRP irp, PIO_STACK_LOCATION s)
{
    KIRQL q;

    switch (s->MajorFunction) {
    case IRP_MJ_READ:
        if (!s->Parameters.Read.Length)
            return STATUS_SUCCESS;
        if (s->Parameters.Read.Length < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        WharfQueuePut(&e->Queue, irp);
        CapstanServe(e);
        return STATUS_PENDING;
    case IRP_MJ_DEVICE_CONTROL:
        switch (s->Parameters.DeviceIoControl.IoControlCode) {
        case IOCTL_CAPSTAN_STATS:
            if (s->Parameters.DeviceIoControl.OutputBufferLength <
                sizeof(CAPSTAN_STATS))
                return STATUS_BUFFER_TOO_SMALL;
            KeAcquireSpinLock(&e->W.Spin, &q);
            *(CAPSTAN_STATS *)irp->AssociatedIrp.SystemBuffer = e->Stats;
            KeReleaseSpinLock(&e->W.Spin, q);
            irp->IoStatus.Information = sizeof(CAPSTAN_STATS);
            return STATUS_SUCCESS;
        case IOCTL_CAPSTAN_FLUSH:
            KeAcquireSpinLock(&e->W.Spin, &q);
            e->Tail = e->Head;
            KeReleaseSpinLock(&e->W.Spin, q);
            return STATUS_SUCCESS;
        }
        break;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static VOID CardCleanup(CARD *e, PFILE_OBJECT file)
{
    WharfQueueFail(&e->Queue, file, STATUS_CANCELLED);
}

static VOID CardInit(CARD *e)
{
    WharfQueueInit(&e->Queue, &e->W);
    KeInitializeDpc(&e->Dpc, CapstanDpc, e);
}

static VOID CapstanSwitch(CARD *e, BOOLEAN on, BOOLEAN touch)
{
    KIRQL q = KeAcquireInterruptSpinLock(e->W.Interrupt);

    e->W.IsrOn = on;
    e->Masked = FALSE;
    if (touch)
        WharfWr(&e->W, C_CTRL, on);
    KeReleaseInterruptSpinLock(e->W.Interrupt, q);
}

static NTSTATUS CardStart(CARD *e, PCM_RESOURCE_LIST list)
{
    WHARF_RES r;
    KIRQL q;
    NTSTATUS st = WharfResources(list, &r);

    if (!NT_SUCCESS(st))
        return st;
    st = WharfMap(&e->W, &r, 0x10);
    if (!NT_SUCCESS(st))
        return st;
    if (WharfRd(&e->W, C_ID) != C_MAGIC) {
        WharfUnmap(&e->W);
        return STATUS_NO_SUCH_DEVICE;
    }
    WharfWr(&e->W, C_CTRL, 0);
    e->Head = e->Tail = 0;
    e->Broken = FALSE;
    e->W.IsrOn = FALSE;
    st = WharfConnect(&e->W, &r, CapstanIsr);
    if (!NT_SUCCESS(st)) {
        e->W.Interrupt = NULL;
        WharfUnmap(&e->W);
        return st;
    }
    KeAcquireSpinLock(&e->W.Spin, &q);
    e->W.Live = TRUE;
    e->W.Awake = TRUE;
    CapstanSwitch(e, TRUE, TRUE);       /* EVENT stays: the FIFO may have some */
    KeReleaseSpinLock(&e->W.Spin, q);
    return STATUS_SUCCESS;
}

static VOID CardStop(CARD *e, BOOLEAN present)
{
    BOOLEAN touch;
    KIRQL q;

    KeAcquireSpinLock(&e->W.Spin, &q);
    e->W.Live = FALSE;
    touch = present && e->W.Awake;
    e->W.Awake = FALSE;
    KeReleaseSpinLock(&e->W.Spin, q);
    CapstanSwitch(e, FALSE, touch);
    KeFlushQueuedDpcs();
    WharfDisconnect(&e->W);
    WharfUnmap(&e->W);
    WharfQueueFail(&e->Queue, NULL, STATUS_NO_SUCH_DEVICE);
}

static VOID CardSleep(CARD *e)
{
    KIRQL q;

    KeAcquireSpinLock(&e->W.Spin, &q);
    e->W.Awake = FALSE;
    if (e->W.Live)
        CapstanSwitch(e, FALSE, TRUE);
    KeReleaseSpinLock(&e->W.Spin, q);
}

static VOID CardWake(CARD *e)
{
    KIRQL q;

    KeAcquireSpinLock(&e->W.Spin, &q);
    if (e->W.Live && !e->Broken) {
        CapstanSwitch(e, TRUE, TRUE);
        e->W.Awake = TRUE;
    }
    KeReleaseSpinLock(&e->W.Spin, q);
}

#include "../include/wharf_pnp.h"

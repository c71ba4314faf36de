/*
 * keystone: hashes of up to 256 bytes, computed by a card that works through a ring of 16 entries (address and length
 * in, hash out) in memory. HASH puts its bytes beside the ring; at most 15 are with the card, the others wait in a
 * queue, where they can be cancelled. Over sleep and stop the requests are kept. Registers (BAR0): 00 identity (low 16
 * bits 4B53); 04 control: bit 0 run, bit 1 interrupt, bit 8 (read) at work; 08, 0C address of the ring (writing 08
 * sets the card to entry 0); 10 first entry not filled; 14 next entry the card takes (0..15); 18 bit 0: entries are
 * done and an interrupt is raised, taken back by writing one. Without run the card ends its entry and stops.
 *
 * The bug: the DPC takes the card's position without looking whether it can be one: of a card that was pulled since
 * the interrupt it is all ones, which masked gives entry 15: entries are ended that no one filled, with no request.
 *
 * Device: PCI\VEN_1DA7&DEV_4B53
 * Rule: wild-read
 * Needs: ioctl, device, removal
 */
#include "../include/keel_card.h"
#include "../include/keel_queue.h"

#define IOCTL_HASH AJ_IOCTL(0, METHOD_BUFFERED)     /* in: bytes; out: hash */

#define R_ID    0x00
#define R_CTRL  0x04
#define R_RING  0x08
#define R_RINGH 0x0C
#define R_TAIL  0x10
#define R_HEAD  0x14
#define R_ISTAT 0x18
#define C_RUN   1u
#define C_IRQ   2u
#define C_BUSY  0x100u

#define N    16
#define MOST 256

static const GUID KEYSTONE_GUID = { 0x5b0f2c1e, 0x9d1c, 0x4e6e, { 0x8a, 0x10, 0x3f, 0x66, 0x21, 0x0c, 0x5a, 0x0e } };

typedef struct ENTRY { ULONG lo, hi, len, hash; } ENTRY;

/* what the card sees */
typedef struct SHARED {
    volatile ENTRY ring[N];
    UCHAR data[N][MOST];
} SHARED;

typedef struct KEYSTONE {
    AJ_FDO f;
    AJ_CARD card;
    AJ_QUEUE queue;
    PDMA_ADAPTER adapter;
    SHARED *sh;
    PHYSICAL_ADDRESS la;
    KSPIN_LOCK lock;        /* all below */
    ULONG paused;
    ULONG tail, done, flight;
    PIRP irp[N];            /* for the entries done .. tail - 1 */
    KDPC dpc;
} KEYSTONE;

static BOOLEAN key_isr(PKINTERRUPT in, PVOID ctx)
{
    KEYSTONE *k = ctx;
    ULONG st = aj_rd(&k->card, R_ISTAT);

    (void)in;
    if (st == AJ_GONE || !(st & 1))
        return FALSE;
    aj_wr(&k->card, R_ISTAT, 1);
    KeInsertQueueDpc(&k->dpc, NULL, NULL);
    return TRUE;
}

/* from the queue into the ring while there is room */
static void key_kick(KEYSTONE *k)
{
    BOOLEAN more = FALSE;
    KIRQL q;

    KeAcquireSpinLock(&k->lock, &q);
    while (!k->paused && k->flight < N - 1) {
        PIRP irp = aj_q_take(&k->queue, NULL);
        PHYSICAL_ADDRESS a;

        if (!irp)
            break;
        a.QuadPart = k->la.QuadPart + FIELD_OFFSET(SHARED, data) + k->tail * MOST;
        RtlCopyMemory(k->sh->data[k->tail], irp->AssociatedIrp.SystemBuffer, aj_word(irp, 0));
        k->sh->ring[k->tail].lo = a.LowPart;
        k->sh->ring[k->tail].hi = (ULONG)a.HighPart;
        k->sh->ring[k->tail].len = (ULONG)aj_word(irp, 0);
        k->sh->ring[k->tail].hash = 0;
        k->irp[k->tail] = irp;
        k->tail = (k->tail + 1) % N;
        k->flight++;
        more = TRUE;
    }
    if (more) {
        __sync_synchronize();
        aj_wr(&k->card, R_TAIL, k->tail);
    }
    KeReleaseSpinLock(&k->lock, q);
}

/* how many entries the card has done since we last looked */
static ULONG key_progress(KEYSTONE *k)
{
    ULONG head = aj_rd(&k->card, R_HEAD);
    ULONG n = (head - k->done) % N;

#ifdef FIXED
    if (head >= N || n > k->flight)
        return 0;       /* the card is gone; removal ends the requests */
#endif
    return n;
}

static VOID key_dpc(PKDPC dpc, PVOID ctx, PVOID a1, PVOID a2)
{
    KEYSTONE *k = ctx;
    LIST_ENTRY done;
    PIRP irp;
    ULONG n;

    (void)dpc;
    (void)a1;
    (void)a2;
    InitializeListHead(&done);
    KeAcquireSpinLockAtDpcLevel(&k->lock);
    for (n = k->paused ? 0 : key_progress(k); n; n--) {
        ULONG hash = k->sh->ring[k->done].hash;

        irp = k->irp[k->done];
        k->irp[k->done] = NULL;
        k->done = (k->done + 1) % N;
        k->flight--;
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &hash, sizeof hash);
        InsertTailList(&done, &irp->Tail.Overlay.ListEntry);
    }
    KeReleaseSpinLockFromDpcLevel(&k->lock);
    while ((irp = aj_pop_irp(&done)) != NULL)
        aj_end(&k->f, irp, STATUS_SUCCESS, sizeof(ULONG));
    key_kick(k);
}

/* The card stops; what it had goes back to the queue, in its order, to be done once more. */
static void key_pause(KEYSTONE *k, ULONG why)
{
    LARGE_INTEGER ms;
    LIST_ENTRY back;
    ULONG was, i, c;
    KIRQL q;

    KeAcquireSpinLock(&k->lock, &q);
    was = k->paused;
    k->paused |= why;
    KeReleaseSpinLock(&k->lock, q);
    if (!was) {     /* else it has stopped already, and may be asleep */
        ms.QuadPart = -10000;
        aj_wr(&k->card, R_CTRL, 0);
        for (i = 0; i < 500; i++) {
            c = aj_rd(&k->card, R_CTRL);
            if (c == AJ_GONE || !(c & C_BUSY))
                break;
            KeDelayExecutionThread(KernelMode, FALSE, &ms);
        }
        aj_wr(&k->card, R_ISTAT, 1);
        KeFlushQueuedDpcs();
    }
    InitializeListHead(&back);
    KeAcquireSpinLock(&k->lock, &q);
    for (; k->flight; k->flight--) {
        InsertTailList(&back, &k->irp[k->done]->Tail.Overlay.ListEntry);
        k->irp[k->done] = NULL;
        k->done = (k->done + 1) % N;
    }
    KeReleaseSpinLock(&k->lock, q);
    while (!IsListEmpty(&back))
        aj_q_put(&k->queue, CONTAINING_RECORD(RemoveTailList(&back), IRP, Tail.Overlay.ListEntry), TRUE);
}

static void key_unpause(KEYSTONE *k, ULONG why)
{
    KIRQL q;

    KeAcquireSpinLock(&k->lock, &q);
    k->paused &= ~why;
    if (!k->paused) {
        k->tail = k->done = 0;
        aj_wr(&k->card, R_RINGH, (ULONG)k->la.HighPart);
        aj_wr(&k->card, R_TAIL, 0);
        aj_wr(&k->card, R_RING, k->la.LowPart);
        aj_wr(&k->card, R_CTRL, C_RUN | C_IRQ);
    }
    KeReleaseSpinLock(&k->lock, q);
    key_kick(k);
}

static NTSTATUS key_control(PDEVICE_OBJECT dev, PIRP irp)
{
    KEYSTONE *k = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    NTSTATUS st = aj_begin(&k->f, irp);

    if (!NT_SUCCESS(st))
        return st;
    if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_HASH)
        return aj_end(&k->f, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (!in || in > MOST || sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        return aj_end(&k->f, irp, STATUS_INVALID_PARAMETER, 0);
    aj_set_word(irp, 0, in);
    st = aj_enter(&k->f);
    if (!NT_SUCCESS(st))
        return aj_end(&k->f, irp, st, 0);
    aj_q_put(&k->queue, irp, FALSE);
    key_kick(k);
    aj_leave(&k->f);
    return STATUS_PENDING;
}

static NTSTATUS key_cleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    KEYSTONE *k = dev->DeviceExtension;

    aj_q_flush(&k->queue, aj_file(irp), STATUS_CANCELLED);
    return aj_done(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS key_init(AJ_FDO *f)
{
    KEYSTONE *k = (KEYSTONE *)f;

    KeInitializeSpinLock(&k->lock);
    aj_q_init(&k->queue, f);
    KeInitializeDpc(&k->dpc, key_dpc, k);
    k->paused = P_STOP;
    return STATUS_SUCCESS;
}

static void key_release(KEYSTONE *k)
{
    if (k->sh)
        k->adapter->DmaOperations->FreeCommonBuffer(k->adapter, sizeof(SHARED), k->la, k->sh, FALSE);
    if (k->adapter)
        k->adapter->DmaOperations->PutDmaAdapter(k->adapter);
    k->sh = NULL;
    k->adapter = NULL;
    aj_unmap(&k->card);
}

static NTSTATUS key_start(AJ_FDO *f, PCM_RESOURCE_LIST res)
{
    KEYSTONE *k = (KEYSTONE *)f;
    NTSTATUS st = aj_map(&k->card, res, 0x1C);
    DEVICE_DESCRIPTION d;
    ULONG regs;

    if (!NT_SUCCESS(st))
        return st;
    RtlZeroMemory(&d, sizeof d);
    d.Version = DEVICE_DESCRIPTION_VERSION;
    d.Master = TRUE;
    d.ScatterGather = TRUE;
    d.Dma32BitAddresses = TRUE;
    d.Dma64BitAddresses = TRUE;
    d.InterfaceType = PCIBus;
    d.MaximumLength = sizeof(SHARED);
    k->adapter = IoGetDmaAdapter(f->pdo, &d, &regs);
    if (k->adapter)
        k->sh = k->adapter->DmaOperations->AllocateCommonBuffer(k->adapter, sizeof(SHARED), &k->la, FALSE);
    st = STATUS_INSUFFICIENT_RESOURCES;
    if (k->sh) {
        RtlZeroMemory(k->sh, sizeof(SHARED));
        aj_wr(&k->card, R_CTRL, 0);
        st = aj_connect(&k->card, key_isr, k);
    }
    if (!NT_SUCCESS(st))
        key_release(k);
    return st;
}

static void key_stop(AJ_FDO *f)
{
    KEYSTONE *k = (KEYSTONE *)f;

    aj_disconnect(&k->card);
    key_release(k);
}

AJ_PAUSES(key, KEYSTONE)

static void key_gone(AJ_FDO *f)
{
    KEYSTONE *k = (KEYSTONE *)f;

    key_pause(k, P_GONE);
    aj_q_shut(&k->queue);
}

static const AJ_OPS key_ops = {
    .ext_size = sizeof(KEYSTONE),
    .iface = &KEYSTONE_GUID,
    .init = key_init,
    .start = key_start,
    .stop = key_stop,
    .hold = key_hold,
    .resume = key_resume,
    .gone = key_gone,
    .sleep = key_sleep,
    .wake = key_wake,
};

static NTSTATUS key_add(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    return aj_add(drv, pdo, &key_ops);
}

NTSTATUS DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING reg)
{
    (void)reg;
    aj_driver(drv, key_add, aj_create_plain, key_cleanup, aj_ok, key_control);
    return STATUS_SUCCESS;
}

/*
 * dvbmux: the output card of a digital television multiplexer (ASI). Writes bring whole transport stream packets of 188 bytes, which are queued and go into the
 * card's FIFO as it gets empty; the FIFO says by an interrupt that it has room.
 *
 * The bug: the lookaside list of which the packets are allocated is initialised in the start routine and deleted behind IRP_MN_REMOVE_DEVICE: a device that was
 * stopped for a rebalance and is started again has it initialised once more, with the first one still in the system's list of lookaside lists.
 *
 * Device: PCI\VEN_1E55&DEV_00A5
 * Rule: lookaside-initialized-twice, lookaside-leak
 * Needs: nothing
 */
#include <ddk/wdm.h>
#include "../include/parked_frame.h"

#define TAG 'xumD'
#define PACKET 188u
#define QUEUE_MOST 512u
#define AT_ONCE 4u

#define IOCTL_DVB_LEVEL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x900, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_DVB_FLUSH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define R_ROOM   0x00           /* packets that fit into the FIFO */
#define R_ENABLE 0x04
#define R_STATUS 0x08           /* ones clear */
#define R_FIFO   0x0C
#define R_SIZE   0x10
#define S_ROOM   0x01

static const GUID DvbInterface = { 0x6a3d0b41, 0x5b1f, 0x4e0e, { 0x91, 0x2c, 0x0d, 0x52, 0x7c, 0x33, 0x10, 0x0E } };

struct packet {
    LIST_ENTRY link;
    ULONG words[PACKET / 4];
};

struct dvb {
    struct fdev f;
    struct hw hw;
    struct win *r;
    KDPC dpc;
    KSPIN_LOCK lock;
    LIST_ENTRY queue;
    ULONG queued, sent;
    BOOLEAN up;
    NPAGED_LOOKASIDE_LIST packets;
    BOOLEAN packets_made;
};

static void dvb_free_all(struct dvb *d, PLIST_ENTRY list)
{
    while (!IsListEmpty(list))
        ExFreeToNPagedLookasideList(&d->packets, CONTAINING_RECORD(RemoveHeadList(list), struct packet, link));
}

/* All of a write's packets, or none. */
static NTSTATUS dvb_write(struct dvb *d, PIRP irp, ULONG bytes)
{
    const UCHAR *from = irp->AssociatedIrp.SystemBuffer;
    ULONG n = bytes / PACKET, i;
    NTSTATUS st = STATUS_SUCCESS;
    LIST_ENTRY mine;
    KIRQL q;

    if (!n || n > QUEUE_MOST || bytes % PACKET)
        return irp_end(irp, STATUS_INVALID_PARAMETER, 0);
    InitializeListHead(&mine);
    for (i = 0; i < n && NT_SUCCESS(st); i++, from += PACKET) {
        struct packet *p = ExAllocateFromNPagedLookasideList(&d->packets);

        if (!p) {
            st = STATUS_INSUFFICIENT_RESOURCES;
            break;
        }
        RtlCopyMemory(p->words, from, PACKET);
        InsertTailList(&mine, &p->link);
        if (*from != 0x47)                                  /* a packet's first byte */
            st = STATUS_DATA_ERROR;
    }
    if (NT_SUCCESS(st)) {
        KeAcquireSpinLock(&d->lock, &q);
        if (d->queued + n > QUEUE_MOST) {
            st = STATUS_DEVICE_BUSY;
        } else {
            while (!IsListEmpty(&mine))
                InsertTailList(&d->queue, RemoveHeadList(&mine));
            d->queued += n;
        }
        KeReleaseSpinLock(&d->lock, q);
    }
    dvb_free_all(d, &mine);
    if (!NT_SUCCESS(st))
        return irp_end(irp, st, 0);
    KeInsertQueueDpc(&d->dpc, NULL, NULL);
    return irp_end(irp, STATUS_SUCCESS, bytes);
}

static BOOLEAN dvb_isr(PVOID ctx)
{
    struct dvb *d = ctx;
    ULONG status = hw_r32(d->r, R_STATUS);

    if (status == 0xFFFFFFFF || !(status & S_ROOM))
        return FALSE;
    hw_w32(d->r, R_STATUS, status);
    KeInsertQueueDpc(&d->dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI dvb_dpc(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{
    struct dvb *d = ctx;
    LIST_ENTRY done;
    ULONG room, i;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    InitializeListHead(&done);
    KeAcquireSpinLockAtDpcLevel(&d->lock);
    room = d->up ? hw_r32(d->r, R_ROOM) : 0;
    if (room == 0xFFFFFFFF)
        room = 0;
    if (room > AT_ONCE)
        room = AT_ONCE;                                     /* the interrupt comes again as long as there is room */
    for (; room && d->queued; room--, d->queued--, d->sent++) {
        struct packet *p = CONTAINING_RECORD(RemoveHeadList(&d->queue), struct packet, link);

        for (i = 0; i < PACKET / 4; i++)
            hw_w32(d->r, R_FIFO, p->words[i]);
        InsertTailList(&done, &p->link);
    }
    KeReleaseSpinLockFromDpcLevel(&d->lock);
    dvb_free_all(d, &done);
}

static void dvb_flush(struct dvb *d)
{
    LIST_ENTRY all;
    KIRQL q;

    InitializeListHead(&all);
    KeAcquireSpinLock(&d->lock, &q);
    while (!IsListEmpty(&d->queue))
        InsertTailList(&all, RemoveHeadList(&d->queue));
    d->queued = 0;
    KeReleaseSpinLock(&d->lock, q);
    dvb_free_all(d, &all);
}

static NTSTATUS dvb_request(struct fdev *f, PIRP irp, PIO_STACK_LOCATION sp)
{
    struct dvb *d = (struct dvb *)f;
    ULONG *out = irp->AssociatedIrp.SystemBuffer;
    KIRQL q;

    if (sp->MajorFunction == IRP_MJ_WRITE)
        return dvb_write(d, irp, sp->Parameters.Write.Length);
    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return irp_end(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_DVB_LEVEL:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < 2 * sizeof(ULONG))
            return irp_end(irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&d->lock, &q);
        out[0] = d->queued;
        out[1] = d->sent;
        KeReleaseSpinLock(&d->lock, q);
        return irp_end(irp, STATUS_SUCCESS, 2 * sizeof(ULONG));
    case IOCTL_DVB_FLUSH:
        dvb_flush(d);
        return irp_end(irp, STATUS_SUCCESS, 0);
    default:
        return irp_end(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static void dvb_mask(PVOID ctx)
{
    struct dvb *d = ctx;

    hw_w32(d->r, R_ENABLE, 0);
    hw_r32(d->r, R_ENABLE);
}

static void dvb_unmask(PVOID ctx)
{
    struct dvb *d = ctx;

    hw_w32(d->r, R_STATUS, S_ROOM);
    hw_w32(d->r, R_ENABLE, S_ROOM);
}

static void dvb_up(struct dvb *d, BOOLEAN up)
{
    KIRQL q;

    KeAcquireSpinLock(&d->lock, &q);
    d->up = up;
    KeReleaseSpinLock(&d->lock, q);
}

static void dvb_on(struct dvb *d)
{
    dvb_up(d, TRUE);
    hw_turn(&d->hw, TRUE, dvb_unmask);
    KeInsertQueueDpc(&d->dpc, NULL, NULL);
}

static void dvb_off(struct dvb *d, BOOLEAN touch)
{
    dvb_up(d, FALSE);
    hw_turn(&d->hw, FALSE, touch ? dvb_mask : NULL);
    KeFlushQueuedDpcs();
}

static void dvb_quiet(struct fdev *f, BOOLEAN touch)
{
    struct dvb *d = (struct dvb *)f;

    dvb_off(d, touch);
    hw_disconnect(&d->hw);
    hw_unmap(&d->hw);
}

static void dvb_make_packets(struct dvb *d)
{
    ExInitializeNPagedLookasideList(&d->packets, NULL, NULL, 0, sizeof(struct packet), TAG, 0);
    d->packets_made = TRUE;
}

static NTSTATUS dvb_start(struct fdev *f, PCM_RESOURCE_LIST list)
{
    struct dvb *d = (struct dvb *)f;
    NTSTATUS st = hw_claim(&d->hw, list);

    if (!NT_SUCCESS(st))
        return st;
    d->r = &d->hw.w[0];
    if (!d->hw.n || d->r->len < R_SIZE) {
        hw_unmap(&d->hw);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    dvb_mask(d);
    st = hw_connect(&d->hw, dvb_isr, d);
    if (!NT_SUCCESS(st)) {
        hw_unmap(&d->hw);
        return st;
    }
#ifndef FIXED
    dvb_make_packets(d);
#endif
    dvb_on(d);
    return STATUS_SUCCESS;
}

static void dvb_sleep(struct fdev *f)
{
    dvb_off((struct dvb *)f, TRUE);
}

static void dvb_wake(struct fdev *f)
{
    dvb_on((struct dvb *)f);
}

static NTSTATUS dvb_add(struct fdev *f)
{
    struct dvb *d = (struct dvb *)f;

    KeInitializeSpinLock(&d->lock);
    InitializeListHead(&d->queue);
    KeInitializeDpc(&d->dpc, dvb_dpc, d);
#ifdef FIXED
    dvb_make_packets(d);
#endif
    return STATUS_SUCCESS;
}

static void dvb_drop(struct fdev *f)
{
    struct dvb *d = (struct dvb *)f;

    if (!d->packets_made)
        return;
    dvb_flush(d);
    ExDeleteNPagedLookasideList(&d->packets);
}

static const struct fops dvb_ops = {
    .iface = &DvbInterface, .bytes = sizeof(struct dvb), .flags = DO_BUFFERED_IO,
    .add = dvb_add, .drop = dvb_drop, .start = dvb_start, .quiet = dvb_quiet, .sleep = dvb_sleep, .wake = dvb_wake,
    .request = dvb_request,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return fd_entry(drv, &dvb_ops);
}

/*
 * xrayexp: a digital X-ray detector's PCI card. A read has the detector's next image lines written into the caller's buffer by the card's bus master, one piece of
 * the scatter/gather list after the other; each piece ends with an interrupt. Reads are served one by one, and can be cancelled at any time.
 *
 * The bug: when the last piece has come the DPC completes the read first, and only then gives the scatter/gather list back: the buffer's pages are unlocked, and
 * maybe others', while they are still mapped for the card, and what lies in bounce buffers is copied to them even later.
 *
 * Device: PCI\VEN_1B7D&DEV_0310
 * Rule: dma-unlocked-while-mapped, dma-not-flushed, use-after-free
 * Needs: device
 */
#include <ddk/wdm.h>
#include "../include/parked_frame.h"

#define R_ENABLE  0x04
#define R_STATUS  0x08          /* ones clear */
#define R_COMMAND 0x0C
#define R_ADDR_LO 0x10
#define R_ADDR_HI 0x14
#define R_LENGTH  0x18
#define R_SIZE    0x20

#define S_DONE    0x01
#define S_ERROR   0x02
#define C_GO      0x01
#define C_ABORT   0x02

#define READ_MOST (256u * 1024u)

static const GUID XrayInterface = { 0x6a3d0b41, 0x5b1f, 0x4e0e, { 0x91, 0x2c, 0x0d, 0x52, 0x7c, 0x33, 0x10, 0x0B } };

enum phase { IDLE, MAPPING, MAPPED, RUNNING };

struct xray {
    struct fdev f;
    struct hw hw;
    struct win *r;
    PDMA_ADAPTER dma;
    ULONG most;                     /* bytes of a read */
    KDPC dpc;
    LONG causes;

    struct engine e;
    enum phase phase;               /* with what follows: e.lock */
    PSCATTER_GATHER_LIST list;
    ULONG piece;
    NTSTATUS st;                    /* of a read without a list */
    BOOLEAN untouchable;            /* the card is gone */
    LONG mapping;                   /* GetScatterGatherList, and its callback, are still running */
    KEVENT mapped;                  /* none of both is */
};

static struct xray *xr_of(struct engine *e)
{
    return CONTAINING_RECORD(e, struct xray, e);
}

/* Under the interrupt's lock, too: what the card had to say of an earlier piece is forgotten. */
static void xr_feed_regs(PVOID ctx)
{
    struct xray *x = ctx;
    SCATTER_GATHER_ELEMENT *s = &x->list->Elements[x->piece];

    hw_w32(x->r, R_STATUS, S_DONE | S_ERROR);
    InterlockedExchange(&x->causes, 0);
    hw_w32(x->r, R_ADDR_LO, s->Address.LowPart);
    hw_w32(x->r, R_ADDR_HI, (ULONG)s->Address.HighPart);
    hw_w32(x->r, R_LENGTH, s->Length);
    hw_w32(x->r, R_COMMAND, C_GO);
}

/* Lock held. */
static void xr_feed(struct xray *x)
{
    hw_turn(&x->hw, TRUE, xr_feed_regs);
}

static void xr_put(struct xray *x, PSCATTER_GATHER_LIST list)
{
    x->dma->DmaOperations->PutScatterGatherList(x->dma, list, FALSE);
}

/* The card has stopped for good when the read behind the command is back. */
static BOOLEAN xr_halt(struct engine *e)
{
    struct xray *x = xr_of(e);

    if (x->phase == MAPPING || x->phase == MAPPED)
        return FALSE;
    if (x->phase == RUNNING) {
        if (!x->untouchable) {
            hw_w32(x->r, R_COMMAND, C_ABORT);
            hw_r32(x->r, R_STATUS);
        }
        xr_put(x, x->list);
        x->list = NULL;
        x->phase = IDLE;
        e->busy = FALSE;
    }
    return TRUE;
}

static void xr_prep(struct engine *e, PIRP irp)
{
    struct xray *x = xr_of(e);

    UNREFERENCED_PARAMETER(irp);
    x->phase = MAPPING;
    x->st = STATUS_REQUEST_ABORTED;
    x->mapping += 2;
    KeClearEvent(&x->mapped);
}

/*
 * When both GetScatterGatherList and its callback are through, begins with the list, or ends the read if there is no list, or it is not wanted any more.
 * Goes on with the next one in the DPC.
 */
static void xr_mapping_over(struct xray *x)
{
    NTSTATUS st = STATUS_SUCCESS;
    BOOLEAN cancelled = FALSE;
    PIRP irp = NULL;
    KIRQL q;

    KeAcquireSpinLock(&x->e.lock, &q);
    if (--x->mapping == 0) {
        if (x->list && x->e.up && !x->e.left && !x->e.unwanted) {
            x->piece = 0;
            x->phase = RUNNING;
            xr_feed(x);
        } else {
            if (x->list)
                xr_put(x, x->list);
            x->list = NULL;
            x->phase = IDLE;
            x->e.busy = FALSE;
            st = x->st;
            irp = eng_end(&x->e, &cancelled);
            KeInsertQueueDpc(&x->dpc, NULL, NULL);
        }
        KeSetEvent(&x->mapped, IO_NO_INCREMENT, FALSE);
    }
    KeReleaseSpinLock(&x->e.lock, q);
    if (irp)
        wl_end(&x->e.wait, irp, cancelled ? STATUS_CANCELLED : st, 0);
}

static void xr_listed_as(struct xray *x, PSCATTER_GATHER_LIST list, NTSTATUS st)
{
    KIRQL q;

    KeAcquireSpinLock(&x->e.lock, &q);
    x->list = list;
    x->phase = MAPPED;
    if (!list)
        x->st = st;
    KeReleaseSpinLock(&x->e.lock, q);
    xr_mapping_over(x);
}

static VOID NTAPI xr_listed(PDEVICE_OBJECT dev, PIRP irp, PSCATTER_GATHER_LIST list, PVOID ctx)
{
    UNREFERENCED_PARAMETER(dev);
    UNREFERENCED_PARAMETER(irp);
    xr_listed_as(ctx, list, STATUS_SUCCESS);
}

static void xr_go(struct engine *e, PIRP irp)
{
    struct xray *x = xr_of(e);
    PMDL mdl = irp->MdlAddress;
    NTSTATUS st;

    st = x->dma->DmaOperations->GetScatterGatherList(x->dma, x->f.self, mdl, MmGetMdlVirtualAddress(mdl), MmGetMdlByteCount(mdl), xr_listed, x, FALSE);
    if (!NT_SUCCESS(st))
        xr_listed_as(x, NULL, st);
    xr_mapping_over(x);
}

static BOOLEAN xr_isr(PVOID ctx)
{
    struct xray *x = ctx;
    ULONG status = hw_r32(x->r, R_STATUS);

    if (status == 0xFFFFFFFF || !(status & (S_DONE | S_ERROR)))
        return FALSE;
    hw_w32(x->r, R_STATUS, status);
    InterlockedOr(&x->causes, (LONG)status);
    KeInsertQueueDpc(&x->dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI xr_dpc(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{
    struct xray *x = ctx;
    ULONG causes;
    PSCATTER_GATHER_LIST list = NULL;
    BOOLEAN cancelled = FALSE;
    NTSTATUS st = STATUS_SUCCESS;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&x->e.lock);
    causes = (ULONG)InterlockedExchange(&x->causes, 0);
    if (causes && x->phase == RUNNING) {
        if (causes & S_ERROR) {
            st = STATUS_IO_DEVICE_ERROR;
            list = x->list;
        } else if (++x->piece == x->list->NumberOfElements) {
            list = x->list;
        } else {
            xr_feed(x);
        }
    }
    if (list) {
        x->list = NULL;
        x->phase = IDLE;
        x->e.busy = FALSE;
#ifdef FIXED
        xr_put(x, list);
#endif
        irp = eng_end(&x->e, &cancelled);
    }
    KeReleaseSpinLockFromDpcLevel(&x->e.lock);
    if (irp) {
        if (cancelled)
            st = STATUS_CANCELLED;
        wl_end(&x->e.wait, irp, st, NT_SUCCESS(st) ? MmGetMdlByteCount(irp->MdlAddress) : 0);
    }
#ifndef FIXED
    if (list)
        xr_put(x, list);
#endif
    eng_next(&x->e);
}

static NTSTATUS xr_request(struct fdev *f, PIRP irp, PIO_STACK_LOCATION sp)
{
    struct xray *x = (struct xray *)f;
    ULONG bytes = sp->Parameters.Read.Length;
    NTSTATUS st;

    if (sp->MajorFunction != IRP_MJ_READ)
        return irp_end(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (!bytes || (bytes & 3) || bytes > x->most || (MmGetMdlByteOffset(irp->MdlAddress) & 3))
        return irp_end(irp, STATUS_INVALID_PARAMETER, 0);
    st = wl_put(&x->e.wait, irp);
    eng_next(&x->e);
    return st;
}

static void xr_mask(PVOID ctx)
{
    struct xray *x = ctx;

    hw_w32(x->r, R_ENABLE, 0);
    hw_r32(x->r, R_ENABLE);
}

static void xr_unmask(PVOID ctx)
{
    struct xray *x = ctx;

    hw_w32(x->r, R_STATUS, S_DONE | S_ERROR);
    hw_w32(x->r, R_ENABLE, S_DONE | S_ERROR);
}

static void xr_on(struct xray *x)
{
    hw_turn(&x->hw, TRUE, xr_unmask);
    eng_up(&x->e, TRUE);
    KeInsertQueueDpc(&x->dpc, NULL, NULL);
}

/* An exposure that was under way is lost. */
static void xr_off(struct xray *x, BOOLEAN touch)
{
    KIRQL q;

    eng_up(&x->e, FALSE);
    KeWaitForSingleObject(&x->mapped, Executive, KernelMode, FALSE, NULL);
    KeAcquireSpinLock(&x->e.lock, &q);
    x->untouchable = !touch;
    xr_halt(&x->e);
    KeReleaseSpinLock(&x->e.lock, q);
    hw_turn(&x->hw, FALSE, touch ? xr_mask : NULL);
    KeFlushQueuedDpcs();
    eng_abandon(&x->e, STATUS_REQUEST_ABORTED);
}

static void xr_quiet(struct fdev *f, BOOLEAN touch)
{
    struct xray *x = (struct xray *)f;

    xr_off(x, touch);
    hw_disconnect(&x->hw);
    x->dma->DmaOperations->PutDmaAdapter(x->dma);
    x->dma = NULL;
    hw_unmap(&x->hw);
}

static NTSTATUS xr_start(struct fdev *f, PCM_RESOURCE_LIST list)
{
    struct xray *x = (struct xray *)f;
    DEVICE_DESCRIPTION d;
    ULONG maps = 0;
    NTSTATUS st = hw_claim(&x->hw, list);

    if (!NT_SUCCESS(st))
        return st;
    x->r = &x->hw.w[0];
    if (!x->hw.n || x->r->len < R_SIZE) {
        hw_unmap(&x->hw);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    RtlZeroMemory(&d, sizeof(d));
    d.Version = DEVICE_DESCRIPTION_VERSION;
    d.Master = TRUE;
    d.ScatterGather = TRUE;
    d.Dma32BitAddresses = TRUE;
    d.Dma64BitAddresses = TRUE;
    d.InterfaceType = PCIBus;
    d.MaximumLength = READ_MOST;
    x->dma = IoGetDmaAdapter(f->pdo, &d, &maps);
    if (!x->dma || maps < 2) {
        st = STATUS_INSUFFICIENT_RESOURCES;
    } else {
        x->most = maps - 1 < READ_MOST / PAGE_SIZE ? (maps - 1) * PAGE_SIZE : READ_MOST;
        x->untouchable = FALSE;
        xr_mask(x);
        st = hw_connect(&x->hw, xr_isr, x);
    }
    if (!NT_SUCCESS(st)) {
        if (x->dma)
            x->dma->DmaOperations->PutDmaAdapter(x->dma);
        x->dma = NULL;
        hw_unmap(&x->hw);
        return st;
    }
    xr_on(x);
    return STATUS_SUCCESS;
}

static void xr_sleep(struct fdev *f)
{
    xr_off((struct xray *)f, TRUE);
}

static void xr_wake(struct fdev *f)
{
    xr_on((struct xray *)f);
}

static void xr_gone(struct fdev *f)
{
    eng_abandon_all(&((struct xray *)f)->e, STATUS_NO_SUCH_DEVICE);
}

static void xr_cleanup(struct fdev *f, PFILE_OBJECT file)
{
    eng_drop_file(&((struct xray *)f)->e, file);
}

static NTSTATUS xr_add(struct fdev *f)
{
    struct xray *x = (struct xray *)f;

    KeInitializeDpc(&x->dpc, xr_dpc, x);
    KeInitializeEvent(&x->mapped, NotificationEvent, TRUE);
    x->e.prep = xr_prep;
    x->e.go = xr_go;
    x->e.halt = xr_halt;
    return eng_init(&x->e, &f->life);
}

static const struct fops xr_ops = {
    .iface = &XrayInterface, .bytes = sizeof(struct xray), .flags = DO_DIRECT_IO,
    .add = xr_add, .start = xr_start, .quiet = xr_quiet, .sleep = xr_sleep, .wake = xr_wake,
    .request = xr_request, .gone = xr_gone, .cleanup = xr_cleanup,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return fd_entry(drv, &xr_ops);
}

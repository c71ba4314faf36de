/*
 * perfusor: the dose interlock of a syringe pump rack. Its coprocessor (a card as QEMU's `edu`: a number is written, some time later an interrupt says that the
 * result can be read) confirms each channel's step count; a program sends a number and gets the result, one at a time, and may give up waiting.
 *
 * The bug: the DPC that has the result takes the request's cancel routine off, but does not look whether that was still there: of a request that is being
 * cancelled at that moment both the DPC and the cancel routine, which waits for the lock, make a completed one.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: double-completion, use-after-free, cancel-after-completion
 * Needs: schedule, cancel, ioctl
 */
#include <ddk/wdm.h>
#include "../include/parked_frame.h"

#define IOCTL_PF_CONFIRM CTL_CODE(FILE_DEVICE_UNKNOWN, 0x870, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PF_COUNTS  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x871, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define R_OPERAND  0x08
#define R_STATUS   0x20
#define R_CAUSE    0x24
#define R_ACK      0x64
#define ST_BUSY    0x01
#define ST_IRQ     0x80
#define CAUSE_DONE 0x01

static const GUID PerfusorInterface = { 0x6a3d0b41, 0x5b1f, 0x4e0e, { 0x91, 0x2c, 0x0d, 0x52, 0x7c, 0x33, 0x10, 0x04 } };

struct perfusor {
    struct fdev f;
    struct hw hw;
    struct win *r;
    struct engine e;
    ULONG operand;              /* e.lock; of what the card computes if e.busy */
    ULONG confirmed;            /* e.lock */
    KDPC dpc;
    LONG causes;
};

static struct perfusor *pf_of(struct engine *e)
{
    return CONTAINING_RECORD(e, struct perfusor, e);
}

/* Lock held, or nothing else is there yet. */
static void pf_compute(struct perfusor *p)
{
    hw_w32(p->r, R_STATUS, ST_IRQ);
    if (!(hw_r32(p->r, R_STATUS) & ST_BUSY))
        hw_w32(p->r, R_OPERAND, p->operand);
}

static void pf_prep(struct engine *e, PIRP irp)
{
    struct perfusor *p = pf_of(e);

    p->operand = *(ULONG *)irp->AssociatedIrp.SystemBuffer;
    pf_compute(p);
}

/* The card cannot be stopped: it computes to the end, in vain, and stays busy as long. */
static BOOLEAN pf_halt(struct engine *e)
{
    UNREFERENCED_PARAMETER(e);
    return TRUE;
}

static BOOLEAN pf_isr(PVOID ctx)
{
    struct perfusor *p = ctx;
    ULONG cause = hw_r32(p->r, R_CAUSE);

    if (!cause || cause == 0xFFFFFFFF)
        return FALSE;
    hw_w32(p->r, R_ACK, cause);
    InterlockedOr(&p->causes, (LONG)cause);
    KeInsertQueueDpc(&p->dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI pf_dpc(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{
    struct perfusor *p = ctx;
    ULONG cause = (ULONG)InterlockedExchange(&p->causes, 0), result = 0;
    BOOLEAN cancelled = FALSE;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&p->e.lock);
    if ((cause & CAUSE_DONE) && p->e.busy && !(hw_r32(p->r, R_STATUS) & ST_BUSY)) {
        result = hw_r32(p->r, R_OPERAND);
        p->e.busy = FALSE;
        p->confirmed++;
#ifndef FIXED
        irp = p->e.now;
        p->e.now = NULL;
        if (irp)
            IoSetCancelRoutine(irp, NULL);
#else
        irp = eng_end(&p->e, &cancelled);
#endif
    }
    KeReleaseSpinLockFromDpcLevel(&p->e.lock);
    if (irp) {
        if (cancelled) {
            wl_end(&p->e.wait, irp, STATUS_CANCELLED, 0);
        } else {
            *(ULONG *)irp->AssociatedIrp.SystemBuffer = result;
            wl_end(&p->e.wait, irp, STATUS_SUCCESS, sizeof(ULONG));
        }
    }
    eng_next(&p->e);
}

static NTSTATUS pf_request(struct fdev *f, PIRP irp, PIO_STACK_LOCATION sp)
{
    struct perfusor *p = (struct perfusor *)f;
    ULONG *buf = irp->AssociatedIrp.SystemBuffer;
    KIRQL q;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return irp_end(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PF_CONFIRM: {
        NTSTATUS st;

        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) || sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return irp_end(irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (*buf > 12)
            return irp_end(irp, STATUS_INVALID_PARAMETER, 0);
        st = wl_put(&p->e.wait, irp);
        eng_next(&p->e);
        return st;
    }
    case IOCTL_PF_COUNTS:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return irp_end(irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&p->e.lock, &q);
        *buf = p->confirmed;
        KeReleaseSpinLock(&p->e.lock, q);
        return irp_end(irp, STATUS_SUCCESS, sizeof(ULONG));
    default:
        return irp_end(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static void pf_mask(PVOID ctx)
{
    struct perfusor *p = ctx;

    hw_w32(p->r, R_STATUS, 0);
    hw_w32(p->r, R_ACK, 0xFFFFFFFF);
    hw_r32(p->r, R_STATUS);
}

/* On, with the number once more that was being computed. */
static void pf_on(struct perfusor *p)
{
    KIRQL q;

    hw_turn(&p->hw, TRUE, NULL);
    KeAcquireSpinLock(&p->e.lock, &q);
    p->e.up = TRUE;
    if (p->e.busy)
        pf_compute(p);
    KeReleaseSpinLock(&p->e.lock, q);
    KeInsertQueueDpc(&p->dpc, NULL, NULL);
}

static void pf_off(struct perfusor *p, BOOLEAN touch)
{
    eng_up(&p->e, FALSE);
    hw_turn(&p->hw, FALSE, touch ? pf_mask : NULL);
    KeFlushQueuedDpcs();
}

static void pf_quiet(struct fdev *f, BOOLEAN touch)
{
    struct perfusor *p = (struct perfusor *)f;

    pf_off(p, touch);
    hw_disconnect(&p->hw);
    hw_unmap(&p->hw);
}

static NTSTATUS pf_start(struct fdev *f, PCM_RESOURCE_LIST list)
{
    struct perfusor *p = (struct perfusor *)f;
    NTSTATUS st = hw_claim(&p->hw, list);

    if (!NT_SUCCESS(st))
        return st;
    p->r = &p->hw.w[0];
    if (!p->hw.n || p->r->port || p->r->len < 0x100)
        st = STATUS_DEVICE_CONFIGURATION_ERROR;
    if (NT_SUCCESS(st)) {
        pf_mask(p);
        st = hw_connect(&p->hw, pf_isr, p);
    }
    if (!NT_SUCCESS(st)) {
        hw_unmap(&p->hw);
        return st;
    }
    pf_on(p);
    return STATUS_SUCCESS;
}

static void pf_sleep(struct fdev *f)
{
    pf_off((struct perfusor *)f, TRUE);
}

static void pf_wake(struct fdev *f)
{
    pf_on((struct perfusor *)f);
}

static void pf_gone(struct fdev *f)
{
    eng_abandon_all(&((struct perfusor *)f)->e, STATUS_NO_SUCH_DEVICE);
}

static void pf_cleanup(struct fdev *f, PFILE_OBJECT file)
{
    eng_drop_file(&((struct perfusor *)f)->e, file);
}

static NTSTATUS pf_add(struct fdev *f)
{
    struct perfusor *p = (struct perfusor *)f;

    KeInitializeDpc(&p->dpc, pf_dpc, p);
    p->e.prep = pf_prep;
    p->e.halt = pf_halt;
    return eng_init(&p->e, &f->life);
}

static const struct fops pf_ops = {
    .iface = &PerfusorInterface, .bytes = sizeof(struct perfusor), .flags = DO_BUFFERED_IO,
    .add = pf_add, .start = pf_start, .quiet = pf_quiet, .sleep = pf_sleep, .wake = pf_wake,
    .request = pf_request, .gone = pf_gone, .cleanup = pf_cleanup,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return fd_entry(drv, &pf_ops);
}

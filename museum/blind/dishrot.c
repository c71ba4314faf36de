/*
 * dishrot: turns the dish of a satellite ground station. A request brings azimuth and elevation and is done when the drives have arrived, which the drive
 * controller, a PCI card, announces by an interrupt; one turn after the other, each can be cancelled, which stops the drives.
 *
 * The bug: before the device goes to sleep the driver waits until the turn that is under way is over, without a limit. A dish that is frozen to its
 * mount, or whose drives' breaker is off, does not arrive, and the system's power transition never ends.
 *
 * Device: PCI\VEN_1A9C&DEV_0077
 * Rule: power-irp-overdue, stuck, deadlock, irp-never-completed
 * Needs: power, device, ioctl
 */
#include <ddk/wdm.h>
#include "../include/parked_frame.h"

#define IOCTL_DISH_TURN  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x920, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_DISH_WHERE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x921, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define R_AZIMUTH   0x00            /* write: target; in hundredths of a degree */
#define R_ELEVATION 0x04
#define R_STATUS    0x08            /* ones clear */
#define R_ENABLE    0x0C
#define R_DRIVE     0x10
#define R_SIZE      0x14

#define S_ARRIVED   0x01
#define S_LIMIT     0x02
#define D_GO        0x01
#define D_BRAKE     0x02

static const GUID DishInterface = { 0x6a3d0b41, 0x5b1f, 0x4e0e, { 0x91, 0x2c, 0x0d, 0x52, 0x7c, 0x33, 0x10, 0x10 } };

struct heading {
    ULONG azimuth;                  /* below 36000 */
    ULONG elevation;                /* up to 9000 */
};

struct dish {
    struct fdev f;
    struct hw hw;
    struct win *r;
    KDPC dpc;
    LONG causes;
    struct engine e;
    struct heading target;          /* e.lock, and the interrupt's lock as it is written to the card */
    BOOLEAN untouchable;            /* e.lock */
    KEVENT rest;                    /* the drives do not turn */
};

static struct dish *dish_of(struct engine *e)
{
    return CONTAINING_RECORD(e, struct dish, e);
}

/* Under the interrupt's lock: what an earlier turn had to say is forgotten. */
static void dish_go_regs(PVOID ctx)
{
    struct dish *d = ctx;

    hw_w32(d->r, R_STATUS, S_ARRIVED | S_LIMIT);
    InterlockedExchange(&d->causes, 0);
    hw_w32(d->r, R_AZIMUTH, d->target.azimuth);
    hw_w32(d->r, R_ELEVATION, d->target.elevation);
    hw_w32(d->r, R_DRIVE, D_GO);
}

static void dish_prep(struct engine *e, PIRP irp)
{
    struct dish *d = dish_of(e);

    d->target = *(struct heading *)irp->AssociatedIrp.SystemBuffer;
    KeClearEvent(&d->rest);
    hw_turn(&d->hw, TRUE, dish_go_regs);
}

/* e.lock held. */
static void dish_rests(struct dish *d)
{
    d->e.busy = FALSE;
    KeSetEvent(&d->rest, IO_NO_INCREMENT, FALSE);
}

static BOOLEAN dish_halt(struct engine *e)
{
    struct dish *d = dish_of(e);

    if (e->busy) {
        if (!d->untouchable)
            hw_w32(d->r, R_DRIVE, D_BRAKE);
        dish_rests(d);
    }
    return TRUE;
}

static BOOLEAN dish_isr(PVOID ctx)
{
    struct dish *d = ctx;
    ULONG status = hw_r32(d->r, R_STATUS);

    if (status == 0xFFFFFFFF || !(status & (S_ARRIVED | S_LIMIT)))
        return FALSE;
    hw_w32(d->r, R_STATUS, status);
    InterlockedOr(&d->causes, (LONG)status);
    KeInsertQueueDpc(&d->dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI dish_dpc(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{
    struct dish *d = ctx;
    BOOLEAN cancelled = FALSE;
    PIRP irp = NULL;
    ULONG causes;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&d->e.lock);
    causes = (ULONG)InterlockedExchange(&d->causes, 0);
    if (causes && d->e.busy) {
        dish_rests(d);
        irp = eng_end(&d->e, &cancelled);
    }
    KeReleaseSpinLockFromDpcLevel(&d->e.lock);
    if (irp)
        wl_end(&d->e.wait, irp, cancelled ? STATUS_CANCELLED : (causes & S_LIMIT) ? STATUS_IO_DEVICE_ERROR : STATUS_SUCCESS, 0);
    eng_next(&d->e);
}

static NTSTATUS dish_request(struct fdev *f, PIRP irp, PIO_STACK_LOCATION sp)
{
    struct dish *d = (struct dish *)f;
    struct heading *h = irp->AssociatedIrp.SystemBuffer;
    NTSTATUS st;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return irp_end(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_DISH_TURN:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(*h))
            return irp_end(irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (h->azimuth >= 36000 || h->elevation > 9000)
            return irp_end(irp, STATUS_INVALID_PARAMETER, 0);
        st = wl_put(&d->e.wait, irp);
        eng_next(&d->e);
        return st;
    case IOCTL_DISH_WHERE:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*h))
            return irp_end(irp, STATUS_BUFFER_TOO_SMALL, 0);
        h->azimuth = hw_r32(d->r, R_AZIMUTH);
        h->elevation = hw_r32(d->r, R_ELEVATION);
        return irp_end(irp, STATUS_SUCCESS, sizeof(*h));
    default:
        return irp_end(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static void dish_mask(PVOID ctx)
{
    struct dish *d = ctx;

    hw_w32(d->r, R_ENABLE, 0);
    hw_w32(d->r, R_DRIVE, D_BRAKE);
    hw_r32(d->r, R_ENABLE);
}

static void dish_unmask(PVOID ctx)
{
    struct dish *d = ctx;

    hw_w32(d->r, R_STATUS, S_ARRIVED | S_LIMIT);
    hw_w32(d->r, R_ENABLE, S_ARRIVED | S_LIMIT);
}

static void dish_on(struct dish *d)
{
    hw_turn(&d->hw, TRUE, dish_unmask);
    eng_up(&d->e, TRUE);
    KeInsertQueueDpc(&d->dpc, NULL, NULL);
}

/* A turn that is still under way is given up. */
static void dish_off(struct dish *d, BOOLEAN touch)
{
    KIRQL q;

    KeAcquireSpinLock(&d->e.lock, &q);
    d->e.up = FALSE;
    d->untouchable = !touch;
    dish_halt(&d->e);
    KeReleaseSpinLock(&d->e.lock, q);
    hw_turn(&d->hw, FALSE, touch ? dish_mask : NULL);
    KeFlushQueuedDpcs();
    eng_abandon(&d->e, STATUS_REQUEST_ABORTED);
}

static void dish_quiet(struct fdev *f, BOOLEAN touch)
{
    struct dish *d = (struct dish *)f;

    dish_off(d, touch);
    hw_disconnect(&d->hw);
    hw_unmap(&d->hw);
}

static NTSTATUS dish_start(struct fdev *f, PCM_RESOURCE_LIST list)
{
    struct dish *d = (struct dish *)f;
    NTSTATUS st = hw_claim(&d->hw, list);

    if (!NT_SUCCESS(st))
        return st;
    d->r = &d->hw.w[0];
    if (!d->hw.n || d->r->len < R_SIZE) {
        hw_unmap(&d->hw);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    d->untouchable = FALSE;
    dish_mask(d);
    st = hw_connect(&d->hw, dish_isr, d);
    if (!NT_SUCCESS(st)) {
        hw_unmap(&d->hw);
        return st;
    }
    dish_on(d);
    return STATUS_SUCCESS;
}

/* The dish does not stay half-way if that can be avoided: the turn under way may end, the next one begins when we are awake again. */
static void dish_sleep(struct fdev *f)
{
    struct dish *d = (struct dish *)f;

    eng_up(&d->e, FALSE);
#ifndef FIXED
    KeWaitForSingleObject(&d->rest, Executive, KernelMode, FALSE, NULL);
#else
    {
        LARGE_INTEGER limit;

        limit.QuadPart = -10000LL * 500;
        KeWaitForSingleObject(&d->rest, Executive, KernelMode, FALSE, &limit);
    }
#endif
    dish_off(d, TRUE);
}

static void dish_wake(struct fdev *f)
{
    dish_on((struct dish *)f);
}

static void dish_gone(struct fdev *f)
{
    eng_abandon_all(&((struct dish *)f)->e, STATUS_NO_SUCH_DEVICE);
}

static void dish_cleanup(struct fdev *f, PFILE_OBJECT file)
{
    eng_drop_file(&((struct dish *)f)->e, file);
}

static NTSTATUS dish_add(struct fdev *f)
{
    struct dish *d = (struct dish *)f;

    KeInitializeDpc(&d->dpc, dish_dpc, d);
    KeInitializeEvent(&d->rest, NotificationEvent, TRUE);
    d->e.prep = dish_prep;
    d->e.halt = dish_halt;
    return eng_init(&d->e, &f->life);
}

static const struct fops dish_ops = {
    .iface = &DishInterface, .bytes = sizeof(struct dish), .flags = DO_BUFFERED_IO,
    .add = dish_add, .start = dish_start, .quiet = dish_quiet, .sleep = dish_sleep, .wake = dish_wake,
    .request = dish_request, .gone = dish_gone, .cleanup = dish_cleanup,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return fd_entry(drv, &dish_ops);
}

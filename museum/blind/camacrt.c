/*
 * camacrt: a CAMAC crate of a nuclear physics laboratory, whose controller's cable ends at a PCI card with a PLX 9052. Each of the crate's 24 stations can ask
 * for attention (LAM); the driver counts the stations' LAMs, and programs wait for the next ones.
 *
 * The bug: the controller's LAM register has 32 bits, and all of them are taken for stations. A crate that is switched off, or a pulled card, reads as ones,
 * and the eight stations too many are counted behind the table of 24.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: pool-overrun, wild-write
 * Needs: device, removal, ioctl
 */
#include <ddk/wdm.h>
#include "../include/parked_frame.h"
#include "../include/parked_plx.h"

#define TAG 'camC'
#define STATIONS 24

#define IOCTL_CAM_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B0, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_CAM_POLL   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B1, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_CAM_AWAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B2, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_CAM_NAF    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B3, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define C_LAM    0x00       /* ones clear */
#define C_GRADE  0x04       /* which stations interrupt */
#define C_NAF    0x08       /* station, subaddress, function: starts a cycle */
#define C_SIZE   0x10

static const GUID CamacInterface = { 0x6a3d0b41, 0x5b1f, 0x4e0e, { 0x91, 0x2c, 0x0d, 0x52, 0x7c, 0x33, 0x10, 0x08 } };

struct station {
    ULONGLONG lams;
    LARGE_INTEGER last;
};

struct camac {
    struct fdev f;
    struct hw hw;
    struct win *chip, *crate;
    KSPIN_LOCK lock;
    struct station *stations;       /* of STATIONS */
    struct wlist waiting;
    KDPC dpc;
    LONG lams;
};

static void cam_note(struct camac *c, ULONG lams)
{
    LARGE_INTEGER now;
    ULONG bits, n;
    PIRP irp;
    KIRQL q;

#ifdef FIXED
    if (lams == 0xFFFFFFFF)
        return;                         /* no card there */
    lams &= (1u << STATIONS) - 1;
#endif
    if (!lams)
        return;
    KeQuerySystemTime(&now);
    KeAcquireSpinLock(&c->lock, &q);
    for (n = 0, bits = lams; bits; n++, bits >>= 1) {
        if (bits & 1) {
            c->stations[n].lams++;
            c->stations[n].last = now;
        }
    }
    KeReleaseSpinLock(&c->lock, q);
    while ((irp = wl_take(&c->waiting, NULL)) != NULL) {
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = lams;
        wl_end(&c->waiting, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static BOOLEAN cam_isr(PVOID ctx)
{
    struct camac *c = ctx;
    ULONG lams;

    if (!plx_claim(c->chip))
        return FALSE;
    lams = hw_r32(c->crate, C_LAM);
    hw_w32(c->crate, C_LAM, lams);
    InterlockedOr(&c->lams, (LONG)lams);
    KeInsertQueueDpc(&c->dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI cam_dpc(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{
    struct camac *c = ctx;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    cam_note(c, (ULONG)InterlockedExchange(&c->lams, 0));
}

static NTSTATUS cam_request(struct fdev *f, PIRP irp, PIO_STACK_LOCATION sp)
{
    struct camac *c = (struct camac *)f;
    PVOID buf = irp->AssociatedIrp.SystemBuffer;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength, out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG v, n;
    KIRQL q;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return irp_end(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CAM_COUNTS:
        if (out < STATIONS * sizeof(struct station))
            return irp_end(irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&c->lock, &q);
        RtlCopyMemory(buf, c->stations, STATIONS * sizeof(struct station));
        KeReleaseSpinLock(&c->lock, q);
        return irp_end(irp, STATUS_SUCCESS, STATIONS * sizeof(struct station));

    case IOCTL_CAM_POLL:                    /* for those who do not trust interrupts */
        if (out < sizeof(ULONG))
            return irp_end(irp, STATUS_BUFFER_TOO_SMALL, 0);
        v = hw_r32(c->crate, C_LAM);
        hw_w32(c->crate, C_LAM, v);
        cam_note(c, v);
        if (v == 0xFFFFFFFF)
            return irp_end(irp, STATUS_DEVICE_NOT_CONNECTED, 0);
        *(ULONG *)buf = v & ((1u << STATIONS) - 1);
        return irp_end(irp, STATUS_SUCCESS, sizeof(ULONG));

    case IOCTL_CAM_AWAIT:
        if (out < sizeof(ULONG))
            return irp_end(irp, STATUS_BUFFER_TOO_SMALL, 0);
        return wl_put(&c->waiting, irp);

    case IOCTL_CAM_NAF:
        if (in < sizeof(ULONG))
            return irp_end(irp, STATUS_BUFFER_TOO_SMALL, 0);
        v = *(ULONG *)buf;
        n = (v >> 16) & 0xFF;
        if (n < 1 || n > STATIONS || (v >> 24) || ((v >> 8) & 0xFF) > 15 || (v & 0xFF) > 31)
            return irp_end(irp, STATUS_INVALID_PARAMETER, 0);
        hw_w32(c->crate, C_NAF, v);
        return irp_end(irp, STATUS_SUCCESS, 0);

    default:
        return irp_end(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static void cam_mask(PVOID ctx)
{
    struct camac *c = ctx;

    hw_w32(c->crate, C_GRADE, 0);
    hw_w32(c->chip, PLX_INTCSR, 0);
    hw_r32(c->chip, PLX_INTCSR);
}

static void cam_unmask(PVOID ctx)
{
    struct camac *c = ctx;

    hw_w32(c->crate, C_GRADE, (1u << STATIONS) - 1);
    hw_w32(c->chip, PLX_INTCSR, PLX_LINT1_ON | PLX_LINT1_CLEAR);
}

static void cam_off(struct camac *c, BOOLEAN touch)
{
    hw_turn(&c->hw, FALSE, touch ? cam_mask : NULL);
    KeFlushQueuedDpcs();
}

static void cam_quiet(struct fdev *f, BOOLEAN touch)
{
    struct camac *c = (struct camac *)f;

    cam_off(c, touch);
    hw_disconnect(&c->hw);
    hw_unmap(&c->hw);
}

static NTSTATUS cam_start(struct fdev *f, PCM_RESOURCE_LIST list)
{
    struct camac *c = (struct camac *)f;
    NTSTATUS st = hw_claim(&c->hw, list);

    if (!NT_SUCCESS(st))
        return st;
    st = plx_find(&c->hw, C_SIZE, &c->chip, &c->crate);
    if (NT_SUCCESS(st)) {
        cam_mask(c);
        st = hw_connect(&c->hw, cam_isr, c);
    }
    if (!NT_SUCCESS(st)) {
        hw_unmap(&c->hw);
        return st;
    }
    hw_turn(&c->hw, TRUE, cam_unmask);
    return STATUS_SUCCESS;
}

static void cam_sleep(struct fdev *f)
{
    cam_off((struct camac *)f, TRUE);
}

static void cam_wake(struct fdev *f)
{
    hw_turn(&((struct camac *)f)->hw, TRUE, cam_unmask);
}

static void cam_gone(struct fdev *f)
{
    wl_end_all(&((struct camac *)f)->waiting, NULL, STATUS_NO_SUCH_DEVICE);
}

static void cam_cleanup(struct fdev *f, PFILE_OBJECT file)
{
    wl_end_all(&((struct camac *)f)->waiting, file, STATUS_CANCELLED);
}

static NTSTATUS cam_add(struct fdev *f)
{
    struct camac *c = (struct camac *)f;
    NTSTATUS st;

    KeInitializeSpinLock(&c->lock);
    KeInitializeDpc(&c->dpc, cam_dpc, c);
    st = wl_init(&c->waiting, &f->life);
    if (!NT_SUCCESS(st))
        return st;
    c->stations = ExAllocatePoolWithTag(NonPagedPoolNx, STATIONS * sizeof(struct station), TAG);
    if (!c->stations)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(c->stations, STATIONS * sizeof(struct station));
    return STATUS_SUCCESS;
}

static void cam_drop(struct fdev *f)
{
    ExFreePoolWithTag(((struct camac *)f)->stations, TAG);
}

static const struct fops cam_ops = {
    .iface = &CamacInterface, .bytes = sizeof(struct camac), .flags = DO_BUFFERED_IO,
    .add = cam_add, .drop = cam_drop, .start = cam_start, .quiet = cam_quiet, .sleep = cam_sleep, .wake = cam_wake,
    .request = cam_request, .gone = cam_gone, .cleanup = cam_cleanup,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return fd_entry(drv, &cam_ops);
}

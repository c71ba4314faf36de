/*
 * duplexr: the time-out of a radio repeater's transmitter, which by its licence must not send for longer than three minutes without a pause, and for one minute
 * if the site runs on its battery. Programs key and unkey the transmitter, and can wait until it drops.
 *
 * The bug: at unload the driver takes back its registration with the system's power callback, but keeps the reference of the callback object which
 * ExCreateCallback has given it.
 *
 * Device: none
 * Rule: object-reference-leak
 * Needs: nothing
 */
#include <ddk/wdm.h>
#include "../include/parked_frame.h"

#define IOCTL_DX_KEY    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x820, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_DX_UNKEY  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_DX_AWAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x822, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_DX_STATE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x823, METHOD_BUFFERED, FILE_READ_ACCESS)

#define TICK_MS 100
#define LONG_TICKS (180 * 10)
#define SHORT_TICKS (60 * 10)

struct duplexer {
    KSPIN_LOCK lock;
    PFILE_OBJECT key;           /* whose handle has keyed the transmitter, or NULL */
    ULONG left;                 /* ticks that it may still send */
    ULONG limit;
    ULONG drops;
    KTIMER timer;
    KDPC dpc;
    struct wlist waiting;
    PCALLBACK_OBJECT power;
    PVOID registration;
};

static void dx_tell(struct duplexer *d)
{
    PIRP irp;

    while ((irp = wl_take(&d->waiting, NULL)) != NULL)
        wl_end(&d->waiting, irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI dx_tick(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{
    struct duplexer *d = ctx;
    BOOLEAN drop = FALSE;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&d->lock);
    if (d->key && (d->left == 0 || --d->left == 0)) {
        d->key = NULL;
        d->drops++;
        drop = TRUE;
        KeCancelTimer(&d->timer);
    }
    KeReleaseSpinLockFromDpcLevel(&d->lock);
    if (drop)
        dx_tell(d);
}

/* Mains or battery: called at DISPATCH_LEVEL or below. */
static VOID NTAPI dx_power(PVOID ctx, PVOID what, PVOID value)
{
    struct duplexer *d = ctx;
    KIRQL q;

    if ((ULONG_PTR)what != PO_CB_AC_STATUS)
        return;
    KeAcquireSpinLock(&d->lock, &q);
    d->limit = value ? LONG_TICKS : SHORT_TICKS;
    if (d->left > d->limit)
        d->left = d->limit;
    KeReleaseSpinLock(&d->lock, q);
}

static NTSTATUS dx_key(struct duplexer *d, PFILE_OBJECT file)
{
    NTSTATUS st = STATUS_SUCCESS;
    LARGE_INTEGER due;
    KIRQL q;

    due.QuadPart = -10000LL * TICK_MS;
    KeAcquireSpinLock(&d->lock, &q);
    if (d->key) {
        st = d->key == file ? STATUS_SUCCESS : STATUS_DEVICE_BUSY;
    } else {
        d->key = file;
        d->left = d->limit;
        KeSetTimerEx(&d->timer, due, TICK_MS, &d->dpc);
    }
    KeReleaseSpinLock(&d->lock, q);
    return st;
}

static NTSTATUS dx_unkey(struct duplexer *d, PFILE_OBJECT file)
{
    BOOLEAN was;
    KIRQL q;

    KeAcquireSpinLock(&d->lock, &q);
    was = d->key == file;
    if (was) {
        d->key = NULL;
        d->left = 0;
        KeCancelTimer(&d->timer);
    }
    KeReleaseSpinLock(&d->lock, q);
    if (was)
        dx_tell(d);
    return was ? STATUS_SUCCESS : STATUS_INVALID_DEVICE_STATE;
}

static NTSTATUS dx_request(PDEVICE_OBJECT dev, PIRP irp, PIO_STACK_LOCATION sp)
{
    struct duplexer *d = dev->DeviceExtension;
    PULONG out = irp->AssociatedIrp.SystemBuffer;
    KIRQL q;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return irp_end(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_DX_KEY:
        return irp_end(irp, dx_key(d, sp->FileObject), 0);
    case IOCTL_DX_UNKEY:
        return irp_end(irp, dx_unkey(d, sp->FileObject), 0);
    case IOCTL_DX_AWAIT:
        return wl_put(&d->waiting, irp);            /* the next drop, which a program can give up by CancelIo */
    case IOCTL_DX_STATE:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < 3 * sizeof(ULONG))
            return irp_end(irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&d->lock, &q);
        out[0] = d->key != NULL;
        out[1] = d->left;
        out[2] = d->drops;
        KeReleaseSpinLock(&d->lock, q);
        return irp_end(irp, STATUS_SUCCESS, 3 * sizeof(ULONG));
    default:
        return irp_end(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static void dx_cleanup(PDEVICE_OBJECT dev, PFILE_OBJECT file)
{
    struct duplexer *d = dev->DeviceExtension;

    wl_end_all(&d->waiting, file, STATUS_CANCELLED);
    dx_unkey(d, file);
}

static NTSTATUS dx_setup(PDEVICE_OBJECT dev)
{
    struct duplexer *d = dev->DeviceExtension;
    OBJECT_ATTRIBUTES oa;
    UNICODE_STRING name;
    NTSTATUS st;

    KeInitializeSpinLock(&d->lock);
    KeInitializeTimerEx(&d->timer, NotificationTimer);
    KeInitializeDpc(&d->dpc, dx_tick, d);
    d->limit = LONG_TICKS;
    st = wl_init(&d->waiting, NULL);
    if (!NT_SUCCESS(st))
        return st;
    RtlInitUnicodeString(&name, L"\\Callback\\PowerState");
    InitializeObjectAttributes(&oa, &name, OBJ_CASE_INSENSITIVE, NULL, NULL);
    st = ExCreateCallback(&d->power, &oa, FALSE, TRUE);
    if (!NT_SUCCESS(st))
        return st;
    d->registration = ExRegisterCallback(d->power, dx_power, d);
    if (!d->registration) {
        ObDereferenceObject(d->power);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    return STATUS_SUCCESS;
}

static void dx_bye(PDEVICE_OBJECT dev)
{
    struct duplexer *d = dev->DeviceExtension;

    ExUnregisterCallback(d->registration);
#ifdef FIXED
    ObDereferenceObject(d->power);
#endif
    KeCancelTimer(&d->timer);
    KeFlushQueuedDpcs();
}

static const struct ctlops dx_ops = {
    .device = L"\\Device\\Duplexer", .link = L"\\DosDevices\\Duplexer",
    .bytes = sizeof(struct duplexer), .flags = DO_BUFFERED_IO,
    .setup = dx_setup, .bye = dx_bye, .cleanup = dx_cleanup, .request = dx_request,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return ctl_make(drv, &dx_ops);
}

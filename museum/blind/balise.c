/*
 * balise: hands telegrams of railway balises, which a serial gateway's service writes into this software device, to the programs that read them, one telegram to
 * each waiting reader. A reader that has waited for two seconds is noted as late, which the statistics and the reader's answer show.
 *
 * The bug: the note is put into Tail.Overlay.DriverContext[3] of the waiting IRP, which belongs to the cancel-safe queue the IRP is in (there it keeps the
 * queue's address): a late reader that is cancelled, or gets its telegram, crashes the queue.
 *
 * Device: Root\BALISE
 * Rule: wild-read, wild-pointer, irp-damaged, bad-pointer
 * Needs: cancel, ioctl
 */
#include <ddk/wdm.h>
#include "../include/parked_frame.h"

#define TELEGRAM_BYTES 104          /* 830 user bits */
#define TICK_MS 250
#define LATE_TICKS 8

#define IOCTL_BAL_STATS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x840, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID BaliseInterface = { 0x6a3d0b41, 0x5b1f, 0x4e0e, { 0x91, 0x2c, 0x0d, 0x52, 0x7c, 0x33, 0x10, 0x01 } };

/* what the driver keeps in a waiting IRP's DriverContext */
#define CTX_AGE 0
#ifndef FIXED
#define CTX_LATE 3
#else
#define CTX_LATE 1
#endif

struct telegram {
    UCHAR bits[TELEGRAM_BYTES];
    ULONG late;
};

struct stats {
    ULONG telegrams;                /* written */
    ULONG lost;                     /* that no request waited for */
    ULONG late;                     /* readers that had to wait */
};

struct balise {
    struct fdev f;
    struct wlist readers;
    KTIMER timer;
    KDPC dpc;
    KSPIN_LOCK lock;
    struct stats stats;
};

static void bal_count(struct balise *b, ULONG *what)
{
    KIRQL q;

    KeAcquireSpinLock(&b->lock, &q);
    ++*what;
    KeReleaseSpinLock(&b->lock, q);
}

/* How long have they been waiting? */
static VOID NTAPI bal_tick(PKDPC dpc, PVOID ctx, PVOID a1, PVOID a2)
{
    struct balise *b = ctx;
    PLIST_ENTRY e;
    ULONG late = 0;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    KeAcquireSpinLockAtDpcLevel(&b->readers.lock);
    for (e = b->readers.head.Flink; e != &b->readers.head; e = e->Flink) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        ULONG_PTR age = (ULONG_PTR)irp->Tail.Overlay.DriverContext[CTX_AGE] + 1;

        irp->Tail.Overlay.DriverContext[CTX_AGE] = (PVOID)age;
        if (age == LATE_TICKS) {
            irp->Tail.Overlay.DriverContext[CTX_LATE] = (PVOID)(ULONG_PTR)1;
            late++;
        }
    }
    KeReleaseSpinLockFromDpcLevel(&b->readers.lock);
    KeAcquireSpinLockAtDpcLevel(&b->lock);
    b->stats.late += late;
    KeReleaseSpinLockFromDpcLevel(&b->lock);
}

static NTSTATUS bal_read(struct balise *b, PIRP irp, ULONG room)
{
    if (room < sizeof(struct telegram))
        return irp_end(irp, STATUS_BUFFER_TOO_SMALL, 0);
    irp->Tail.Overlay.DriverContext[CTX_AGE] = NULL;
    irp->Tail.Overlay.DriverContext[CTX_LATE] = NULL;
    return wl_put(&b->readers, irp);
}

static NTSTATUS bal_write(struct balise *b, PIRP irp, ULONG bytes)
{
    struct telegram *to;
    PIRP reader;

    if (bytes != TELEGRAM_BYTES)
        return irp_end(irp, STATUS_INVALID_PARAMETER, 0);
    bal_count(b, &b->stats.telegrams);
    reader = wl_take(&b->readers, NULL);
    if (!reader) {
        bal_count(b, &b->stats.lost);
        return irp_end(irp, STATUS_SUCCESS, bytes);
    }
    to = reader->AssociatedIrp.SystemBuffer;
    RtlCopyMemory(to->bits, irp->AssociatedIrp.SystemBuffer, TELEGRAM_BYTES);
    to->late = reader->Tail.Overlay.DriverContext[CTX_LATE] != NULL;
    wl_end(&b->readers, reader, STATUS_SUCCESS, sizeof(*to));
    return irp_end(irp, STATUS_SUCCESS, bytes);
}

static NTSTATUS bal_request(struct fdev *f, PIRP irp, PIO_STACK_LOCATION sp)
{
    struct balise *b = (struct balise *)f;
    struct stats *out = irp->AssociatedIrp.SystemBuffer;
    KIRQL q;

    switch (sp->MajorFunction) {
    case IRP_MJ_READ:
        return bal_read(b, irp, sp->Parameters.Read.Length);
    case IRP_MJ_WRITE:
        return bal_write(b, irp, sp->Parameters.Write.Length);
    }
    if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_BAL_STATS)
        return irp_end(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*out))
        return irp_end(irp, STATUS_BUFFER_TOO_SMALL, 0);
    KeAcquireSpinLock(&b->lock, &q);
    *out = b->stats;
    KeReleaseSpinLock(&b->lock, q);
    return irp_end(irp, STATUS_SUCCESS, sizeof(*out));
}

static void bal_clock(struct balise *b, BOOLEAN on)
{
    LARGE_INTEGER due;

    due.QuadPart = -10000LL * TICK_MS;
    if (on)
        KeSetTimerEx(&b->timer, due, TICK_MS, &b->dpc);
    else
        KeCancelTimer(&b->timer);
}

static NTSTATUS bal_start(struct fdev *f, PCM_RESOURCE_LIST list)
{
    UNREFERENCED_PARAMETER(list);
    bal_clock((struct balise *)f, TRUE);
    return STATUS_SUCCESS;
}

static void bal_quiet(struct fdev *f, BOOLEAN touch)
{
    UNREFERENCED_PARAMETER(touch);
    bal_clock((struct balise *)f, FALSE);
    KeFlushQueuedDpcs();
}

static void bal_sleep(struct fdev *f)
{
    bal_quiet(f, FALSE);
}

static void bal_wake(struct fdev *f)
{
    bal_clock((struct balise *)f, TRUE);
}

static void bal_gone(struct fdev *f)
{
    struct balise *b = (struct balise *)f;

    wl_end_all(&b->readers, NULL, STATUS_NO_SUCH_DEVICE);
}

static void bal_cleanup(struct fdev *f, PFILE_OBJECT file)
{
    struct balise *b = (struct balise *)f;

    wl_end_all(&b->readers, file, STATUS_CANCELLED);
}

static NTSTATUS bal_add(struct fdev *f)
{
    struct balise *b = (struct balise *)f;

    KeInitializeSpinLock(&b->lock);
    KeInitializeTimerEx(&b->timer, NotificationTimer);
    KeInitializeDpc(&b->dpc, bal_tick, b);
    return wl_init(&b->readers, &f->life);
}

static const struct fops bal_ops = {
    .iface = &BaliseInterface, .bytes = sizeof(struct balise), .flags = DO_BUFFERED_IO,
    .add = bal_add, .start = bal_start, .quiet = bal_quiet, .sleep = bal_sleep, .wake = bal_wake,
    .request = bal_request, .gone = bal_gone, .cleanup = bal_cleanup,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return fd_entry(drv, &bal_ops);
}

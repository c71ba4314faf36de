/*
 * teletxt: the page store of a teletext inserter in a television play-out centre. Editors' programs send rows (magazine, page as the two BCD digits of the
 * packet header, row, 40 characters) into the store; the inserter's program fetches whole pages, and clears magazines.
 *
 * The bug: the page number's digits come as on the wire, where they go up to 0xF (0xFF is the number of time-filling headers), and the index tens * 10 + units
 * is taken for one of 00..99: it reaches 165, behind the table of a magazine's 100 pages.
 *
 * Device: none
 * Rule: pool-overrun, wild-read, wild-write, wild-pointer
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/parked_frame.h"

#define TAG 'txtT'
#define MAGAZINES 8
#define PAGES 100
#define ROWS 24
#define COLS 40

#define IOCTL_TT_PUT_ROW  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_TT_GET_PAGE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_TT_CLEAR    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_TT_COUNTS   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x804, METHOD_BUFFERED, FILE_READ_ACCESS)

struct tt_address {
    UCHAR magazine;                 /* 1..8; 8 is 0 on the wire */
    UCHAR page;                     /* tens and units, four bits each */
    UCHAR row;
    UCHAR spare;
};

struct tt_row {
    struct tt_address to;
    UCHAR text[COLS];
};

struct tt_page {
    UCHAR *rows;                    /* ROWS * COLS bytes, or NULL */
    ULONG updates;
};

struct tt_counts {
    ULONG pages, rows;
};

struct tt_store {
    FAST_MUTEX mutex;
    struct tt_page *magazine[MAGAZINES];
    struct tt_counts counts;
};

static NTSTATUS tt_find(struct tt_store *s, const struct tt_address *a, struct tt_page **page)
{
    ULONG magazine = a->magazine & 7;
    ULONG tens = a->page >> 4, units = a->page & 15;

    if (a->magazine > MAGAZINES)
        return STATUS_INVALID_PARAMETER;
#ifdef FIXED
    if (tens > 9 || units > 9)
        return STATUS_INVALID_PARAMETER;
#endif
    *page = &s->magazine[magazine][tens * 10 + units];
    return STATUS_SUCCESS;
}

static NTSTATUS tt_put_row(struct tt_store *s, const struct tt_row *in)
{
    struct tt_page *p;
    NTSTATUS st;

    if (in->to.row >= ROWS)
        return STATUS_INVALID_PARAMETER;
    st = tt_find(s, &in->to, &p);
    if (!NT_SUCCESS(st))
        return st;
    if (!p->rows) {
        p->rows = ExAllocatePoolWithTag(PagedPool, ROWS * COLS, TAG);
        if (!p->rows)
            return STATUS_INSUFFICIENT_RESOURCES;
        RtlFillMemory(p->rows, ROWS * COLS, ' ');
        s->counts.pages++;
    }
    RtlCopyMemory(p->rows + in->to.row * COLS, in->text, COLS);
    p->updates++;
    s->counts.rows++;
    return STATUS_SUCCESS;
}

static NTSTATUS tt_get_page(struct tt_store *s, const struct tt_address *at, UCHAR *out)
{
    struct tt_page *p;
    NTSTATUS st = tt_find(s, at, &p);

    if (!NT_SUCCESS(st))
        return st;
    if (!p->rows)
        return STATUS_NOT_FOUND;
    RtlCopyMemory(out, p->rows, ROWS * COLS);
    return STATUS_SUCCESS;
}

static void tt_clear(struct tt_store *s, ULONG magazine)
{
    ULONG i;

    for (i = 0; i < PAGES; i++) {
        struct tt_page *p = &s->magazine[magazine][i];

        if (p->rows) {
            ExFreePoolWithTag(p->rows, TAG);
            p->rows = NULL;
            s->counts.pages--;
        }
        p->updates = 0;
    }
}

static NTSTATUS tt_request(PDEVICE_OBJECT dev, PIRP irp, PIO_STACK_LOCATION sp)
{
    struct tt_store *s = dev->DeviceExtension;
    PVOID buf = irp->AssociatedIrp.SystemBuffer;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength, out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    NTSTATUS st = STATUS_INVALID_DEVICE_REQUEST;
    ULONG_PTR info = 0;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return irp_end(irp, st, 0);
    ExAcquireFastMutex(&s->mutex);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TT_PUT_ROW:
        st = in < sizeof(struct tt_row) ? STATUS_BUFFER_TOO_SMALL : tt_put_row(s, buf);
        break;

    case IOCTL_TT_GET_PAGE:
        if (in < sizeof(struct tt_address) || out < ROWS * COLS) {
            st = STATUS_BUFFER_TOO_SMALL;
            break;
        } else {
            struct tt_address at = *(struct tt_address *)buf;

            st = tt_get_page(s, &at, buf);
            if (NT_SUCCESS(st))
                info = ROWS * COLS;
        }
        break;

    case IOCTL_TT_CLEAR:
        if (in < sizeof(ULONG)) {
            st = STATUS_BUFFER_TOO_SMALL;
        } else if (*(ULONG *)buf >= MAGAZINES) {
            st = STATUS_INVALID_PARAMETER;
        } else {
            tt_clear(s, *(ULONG *)buf);
            st = STATUS_SUCCESS;
        }
        break;

    case IOCTL_TT_COUNTS:
        if (out < sizeof(struct tt_counts)) {
            st = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        *(struct tt_counts *)buf = s->counts;
        info = sizeof(struct tt_counts);
        st = STATUS_SUCCESS;
        break;
    }
    ExReleaseFastMutex(&s->mutex);
    return irp_end(irp, st, info);
}

static void tt_bye(PDEVICE_OBJECT dev)
{
    struct tt_store *s = dev->DeviceExtension;
    ULONG i;

    for (i = 0; i < MAGAZINES; i++) {
        if (!s->magazine[i])
            continue;
        tt_clear(s, i);
        ExFreePoolWithTag(s->magazine[i], TAG);
        s->magazine[i] = NULL;
    }
}

static NTSTATUS tt_setup(PDEVICE_OBJECT dev)
{
    struct tt_store *s = dev->DeviceExtension;
    ULONG i;

    ExInitializeFastMutex(&s->mutex);
    for (i = 0; i < MAGAZINES; i++) {
        s->magazine[i] = ExAllocatePoolWithTag(PagedPool, PAGES * sizeof(struct tt_page), TAG);
        if (!s->magazine[i]) {
            tt_bye(dev);
            return STATUS_INSUFFICIENT_RESOURCES;
        }
        RtlZeroMemory(s->magazine[i], PAGES * sizeof(struct tt_page));
    }
    return STATUS_SUCCESS;
}

static const struct ctlops tt_ops = {
    .device = L"\\Device\\Teletext0", .link = L"\\DosDevices\\Teletext0",
    .bytes = sizeof(struct tt_store), .flags = DO_BUFFERED_IO,
    .setup = tt_setup, .bye = tt_bye, .request = tt_request,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return ctl_make(drv, &tt_ops);
}

/*
 * batten: a table of 64-byte cells for applications: WRITE fills one, READ gives one back, LIMIT tells how many may be
 * used. Their number (1 to 256, else 32) stands in the registry, in the value Cells of the driver's Parameters key;
 * RELOAD has it read anew, so that it can be changed without loading the driver again.
 *
 * The bug: RELOAD takes a number larger than the one the table was made for at load: cells beyond it lie outside the
 * table.
 *
 * Device: none
 * Rule: bad-pointer, pool-overrun
 * Needs: ioctl, registry
 */
#include "../include/keel_seh.h"

#define LINK   L"\\DosDevices\\AjBatten"
#define CELL   64
#define MOST   256
#define NORMAL 32

#define IOCTL_WRITE  AJ_IOCTL(0, METHOD_NEITHER)    /* in: number, 64 bytes */
#define IOCTL_READ   AJ_IOCTL(1, METHOD_BUFFERED)   /* in: number; out: 64 bytes */
#define IOCTL_LIMIT  AJ_IOCTL(2, METHOD_BUFFERED)   /* out: number of cells */
#define IOCTL_RELOAD AJ_IOCTL(3, METHOD_BUFFERED)

typedef struct TABLE {
    FAST_MUTEX lock;
    ULONG made;             /* cells the table has room for */
    ULONG limit;            /* cells that may be used */
    UCHAR *cells;
    UNICODE_STRING key;     /* our Parameters key */
} TABLE;

typedef struct CELLIN {
    ULONG number;
    UCHAR b[CELL];
} CELLIN;

static PDEVICE_OBJECT g_dev;

static NTSTATUS keep_key(TABLE *t, PUNICODE_STRING reg)
{
    static const WCHAR sub[] = L"\\Parameters";
    USHORT len = reg->Length + sizeof sub - sizeof(WCHAR);

    t->key.Buffer = aj_alloc(len);
    if (!t->key.Buffer)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlCopyMemory(t->key.Buffer, reg->Buffer, reg->Length);
    RtlCopyMemory((PUCHAR)t->key.Buffer + reg->Length, sub, sizeof sub - sizeof(WCHAR));
    t->key.Length = len;
    t->key.MaximumLength = len;
    return STATUS_SUCCESS;
}

/* PASSIVE_LEVEL: the number in the registry, or the usual one when there is none or it makes no sense */
static ULONG read_cells(TABLE *t)
{
    struct {
        KEY_VALUE_PARTIAL_INFORMATION i;
        UCHAR more[16];
    } v;
    OBJECT_ATTRIBUTES oa;
    UNICODE_STRING name;
    ULONG n = NORMAL, got;
    HANDLE h;

    InitializeObjectAttributes(&oa, &t->key, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, NULL, NULL);
    if (!NT_SUCCESS(ZwOpenKey(&h, KEY_READ, &oa)))
        return n;
    RtlInitUnicodeString(&name, L"Cells");
    if (NT_SUCCESS(ZwQueryValueKey(h, &name, KeyValuePartialInformation, &v, sizeof v, &got)) &&
        v.i.Type == REG_DWORD && v.i.DataLength == sizeof(ULONG)) {
        ULONG x;

        RtlCopyMemory(&x, v.i.Data, sizeof x);
        if (x >= 1 && x <= MOST)
            n = x;
    }
    ZwClose(h);
    return n;
}

static NTSTATUS table_write(TABLE *t, PIRP irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS st;
    CELLIN in;

    if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof in)
        return STATUS_INVALID_PARAMETER;
    st = aj_from_user(&in, sp->Parameters.DeviceIoControl.Type3InputBuffer, sizeof in, irp->RequestorMode);
    if (!NT_SUCCESS(st))
        return st;
    ExAcquireFastMutex(&t->lock);
    if (in.number < t->limit)
        RtlCopyMemory(t->cells + in.number * CELL, in.b, CELL);
    else
        st = STATUS_INVALID_PARAMETER;
    ExReleaseFastMutex(&t->lock);
    return st;
}

static NTSTATUS table_read(TABLE *t, PIRP irp, ULONG_PTR *info)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    PVOID buf = irp->AssociatedIrp.SystemBuffer;
    NTSTATUS st = STATUS_INVALID_PARAMETER;
    ULONG n;

    if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof n ||
        sp->Parameters.DeviceIoControl.OutputBufferLength < CELL)
        return STATUS_BUFFER_TOO_SMALL;
    RtlCopyMemory(&n, buf, sizeof n);
    ExAcquireFastMutex(&t->lock);
    if (n < t->limit) {
        RtlCopyMemory(buf, t->cells + n * CELL, CELL);
        *info = CELL;
        st = STATUS_SUCCESS;
    }
    ExReleaseFastMutex(&t->lock);
    return st;
}

static NTSTATUS table_reload(TABLE *t)
{
    ULONG n = read_cells(t);

    ExAcquireFastMutex(&t->lock);
#ifdef FIXED
    if (n > t->made)
        n = t->made;    /* more only when the driver is loaded again */
#endif
    t->limit = n;
    ExReleaseFastMutex(&t->lock);
    return STATUS_SUCCESS;
}

static NTSTATUS table_control(PDEVICE_OBJECT dev, PIRP irp)
{
    TABLE *t = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    ULONG_PTR info = 0;
    NTSTATUS st;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_WRITE:
        st = table_write(t, irp);
        break;
    case IOCTL_READ:
        st = table_read(t, irp, &info);
        break;
    case IOCTL_LIMIT:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
            st = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        ExAcquireFastMutex(&t->lock);
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &t->limit, sizeof(ULONG));
        ExReleaseFastMutex(&t->lock);
        info = sizeof(ULONG);
        st = STATUS_SUCCESS;
        break;
    case IOCTL_RELOAD:
        st = table_reload(t);
        break;
    default:
        st = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return aj_done(irp, st, info);
}

static NTSTATUS table_open(PDEVICE_OBJECT dev, PIRP irp)
{
    (void)dev;
    return aj_done(irp, STATUS_SUCCESS, 0);
}

static VOID table_unload(PDRIVER_OBJECT drv)
{
    TABLE *t = g_dev->DeviceExtension;

    (void)drv;
    aj_free(t->cells);
    aj_free(t->key.Buffer);
    aj_uncontrol(g_dev, LINK);
}

NTSTATUS DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING reg)
{
    NTSTATUS st = aj_control(drv, L"\\Device\\AjBatten", LINK, sizeof(TABLE), &g_dev);
    TABLE *t;

    if (!NT_SUCCESS(st))
        return st;
    t = g_dev->DeviceExtension;
    ExInitializeFastMutex(&t->lock);
    st = keep_key(t, reg);
    if (!NT_SUCCESS(st)) {
        aj_uncontrol(g_dev, LINK);
        return st;
    }
    t->made = t->limit = read_cells(t);
    t->cells = aj_alloc(t->made * CELL);
    if (!t->cells) {
        aj_free(t->key.Buffer);
        aj_uncontrol(g_dev, LINK);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    drv->MajorFunction[IRP_MJ_CREATE] = table_open;
    drv->MajorFunction[IRP_MJ_CLOSE] = table_open;
    drv->MajorFunction[IRP_MJ_CLEANUP] = table_open;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = table_control;
    drv->DriverUnload = table_unload;
    return STATUS_SUCCESS;
}

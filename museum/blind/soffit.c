/*
 * soffit: a software device, of which there may be several, that keeps up to 64 named numbers which all of them share:
 * PUT sets one, GET reads one, DROP forgets one, LOG gives the last 32 names this device was asked for. The first
 * device makes the shared directory, the last one to go takes it away; each device has a log of its own.
 *
 * The bug: when a device cannot be added because the memory for its log is refused, the directory is given back
 * although it was not yet taken: with one other device, that goes on with a freed directory.
 *
 * Device: ROOT\SOFFIT
 * Rule: use-after-free
 * Needs: failure, ioctl
 */
#include "../include/keel_pnp.h"

#define NAMES   64
#define NAMELEN 16
#define LOGLEN  32

#define IOCTL_PUT  AJ_IOCTL(0, METHOD_BUFFERED)     /* in: PAIR */
#define IOCTL_GET  AJ_IOCTL(1, METHOD_BUFFERED)     /* in: name; out: PAIR */
#define IOCTL_DROP AJ_IOCTL(2, METHOD_BUFFERED)     /* in: name */
#define IOCTL_LOG  AJ_IOCTL(3, METHOD_OUT_DIRECT)   /* out: names */

static const GUID SOFFIT_GUID = { 0x5b0f2c12, 0x9d1c, 0x4e6e, { 0x8a, 0x10, 0x3f, 0x66, 0x21, 0x0c, 0x5a, 0x02 } };

typedef struct NAME { UCHAR c[NAMELEN]; } NAME;
typedef struct PAIR { NAME name; ULONG value; } PAIR;

typedef struct DIRECTORY {
    ULONG used;
    PAIR pair[NAMES];
} DIRECTORY;

typedef struct SOFFIT {
    AJ_FDO f;
    DIRECTORY *dir;
    NAME *log;
    ULONG logged;           /* names ever noted */
} SOFFIT;

/* guards the directory, its users and all logs */
static FAST_MUTEX g_lock;
static DIRECTORY *g_dir;
static ULONG g_users;

static NTSTATUS dir_take(DIRECTORY **out)
{
    NTSTATUS st = STATUS_SUCCESS;

    ExAcquireFastMutex(&g_lock);
    if (!g_users)
        g_dir = aj_alloc(sizeof(DIRECTORY));
    if (g_dir) {
        g_users++;
        *out = g_dir;
    } else {
        st = STATUS_INSUFFICIENT_RESOURCES;
    }
    ExReleaseFastMutex(&g_lock);
    return st;
}

static void dir_give(void)
{
    ExAcquireFastMutex(&g_lock);
    if (g_users && --g_users == 0) {
        aj_free(g_dir);
        g_dir = NULL;
    }
    ExReleaseFastMutex(&g_lock);
}

static PAIR *find_locked(DIRECTORY *d, const NAME *n)
{
    ULONG i;

    for (i = 0; i < d->used; i++)
        if (RtlCompareMemory(&d->pair[i].name, n, sizeof(NAME)) == sizeof(NAME))
            return &d->pair[i];
    return NULL;
}

static NTSTATUS log_out_locked(SOFFIT *s, PIRP irp, ULONG_PTR *info)
{
    ULONG room = IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.OutputBufferLength / sizeof(NAME);
    ULONG n = s->logged < LOGLEN ? s->logged : LOGLEN, i;
    NAME *out;

    if (n > room)
        n = room;
    if (!n)
        return STATUS_SUCCESS;
    out = irp->MdlAddress ? MmGetSystemAddressForMdlSafe(irp->MdlAddress, NormalPagePriority) : NULL;
    if (!out)
        return STATUS_INSUFFICIENT_RESOURCES;
    for (i = 0; i < n; i++)
        out[i] = s->log[(s->logged - n + i) % LOGLEN];
    *info = n * sizeof(NAME);
    return STATUS_SUCCESS;
}

static NTSTATUS soffit_do_locked(SOFFIT *s, PIRP irp, ULONG_PTR *info)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    ULONG code = sp->Parameters.DeviceIoControl.IoControlCode;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    PAIR *p, *buf = irp->AssociatedIrp.SystemBuffer;
    DIRECTORY *d = s->dir;

    if (code == IOCTL_LOG)
        return log_out_locked(s, irp, info);
    if (code != IOCTL_PUT && code != IOCTL_GET && code != IOCTL_DROP)
        return STATUS_INVALID_DEVICE_REQUEST;
    if (in < (code == IOCTL_PUT ? sizeof(PAIR) : sizeof(NAME)))
        return STATUS_INVALID_PARAMETER;
    if (code == IOCTL_GET && sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(PAIR))
        return STATUS_BUFFER_TOO_SMALL;
    s->log[s->logged++ % LOGLEN] = buf->name;
    p = find_locked(d, &buf->name);
    if (code == IOCTL_PUT) {
        if (!p) {
            if (d->used == NAMES)
                return STATUS_QUOTA_EXCEEDED;
            p = &d->pair[d->used++];
        }
        *p = *buf;
        return STATUS_SUCCESS;
    }
    if (!p)
        return STATUS_NOT_FOUND;
    if (code == IOCTL_GET) {
        *buf = *p;
        *info = sizeof(PAIR);
    } else {
        *p = d->pair[--d->used];
    }
    return STATUS_SUCCESS;
}

static NTSTATUS soffit_control(PDEVICE_OBJECT dev, PIRP irp)
{
    SOFFIT *s = dev->DeviceExtension;
    NTSTATUS st = aj_begin(&s->f, irp);
    ULONG_PTR info = 0;

    if (!NT_SUCCESS(st))
        return st;
    st = aj_gate_enter(&s->f.gate);
    if (NT_SUCCESS(st)) {
        ExAcquireFastMutex(&g_lock);
        st = soffit_do_locked(s, irp, &info);
        ExReleaseFastMutex(&g_lock);
        aj_gate_leave(&s->f.gate);
    }
    return aj_end(&s->f, irp, st, info);
}

static NTSTATUS soffit_init(AJ_FDO *f)
{
    SOFFIT *s = (SOFFIT *)f;
    NTSTATUS st = STATUS_INSUFFICIENT_RESOURCES;

    s->log = aj_alloc(LOGLEN * sizeof(NAME));
    if (!s->log)
        goto undo;
    st = dir_take(&s->dir);
    if (!NT_SUCCESS(st))
        goto undo;
    return STATUS_SUCCESS;
undo:
#ifdef FIXED
    if (s->dir)
        dir_give();
#else
    dir_give();
#endif
    if (s->log)
        aj_free(s->log);
    return st;
}

static void soffit_fini(AJ_FDO *f)
{
    SOFFIT *s = (SOFFIT *)f;

    dir_give();
    aj_free(s->log);
}

static NTSTATUS soffit_start(AJ_FDO *f, PCM_RESOURCE_LIST res)
{
    (void)f;
    (void)res;
    return STATUS_SUCCESS;
}

static const AJ_OPS soffit_ops = {
    .ext_size = sizeof(SOFFIT),
    .iface = &SOFFIT_GUID,
    .init = soffit_init,
    .fini = soffit_fini,
    .start = soffit_start,
};

static NTSTATUS soffit_add(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    return aj_add(drv, pdo, &soffit_ops);
}

NTSTATUS DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING reg)
{
    (void)reg;
    ExInitializeFastMutex(&g_lock);
    aj_driver(drv, soffit_add, aj_create_plain, aj_ok, aj_ok, soffit_control);
    return STATUS_SUCCESS;
}

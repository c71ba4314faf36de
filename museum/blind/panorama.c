/*
 * panorama: the picture of a surveillance wall, a device without hardware. A program paints lines of it by writes, others
 * grab it, whole or only the lines that have changed since the handle's last grab, which come with their numbers.
 *
 * The bug: a grab of the whole picture is refused where it does not fit, but a grab of changes takes what room there is,
 * also none: such a request has no MDL, and the driver asks for its address.
 *
 * Device: Root\PANORAMA
 * Rule: bad-pointer, wild-read
 * Needs: ioctl
 */
#include "../include/gate_and_turnstile.h"

#define IOCTL_PANORAMA_MODE     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8e0, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PANORAMA_GRAB     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8e1, METHOD_OUT_DIRECT, FILE_ANY_ACCESS)

#ifndef MdlMappingNoExecute
#define MdlMappingNoExecute 0x40000000
#endif

#define LINES   16
#define COLUMNS 64

#define WHOLE   0
#define CHANGES 1

typedef struct LINE {
    ULONG number;
    UCHAR pixel[COLUMNS];
} LINE;

typedef struct WATCHER {
    ULONG mode;
    ULONG seen[LINES];      /* the version of each line that it has */
} WATCHER;

typedef struct PANORAMA {
    FR_DEV fr;
    FAST_MUTEX lock;
    LINE line[LINES];
    ULONG version[LINES];
} PANORAMA;

static NTSTATUS Make(FR_DEV *dev)
{
    PANORAMA *p = (PANORAMA *)dev;
    ULONG i;
    ExInitializeFastMutex(&p->lock);
    for (i = 0; i < LINES; i++) {
        p->line[i].number = i;
        p->version[i] = 1;
    }
    return STATUS_SUCCESS;
}

static NTSTATUS Open(FR_DEV *dev, PFILE_OBJECT file)
{
    WATCHER *w = ExAllocatePoolWithTag(PagedPool, sizeof *w, FR_TAG);
    UNREFERENCED_PARAMETER(dev);
    if (!w)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(w, sizeof *w);
    file->FsContext = w;
    return STATUS_SUCCESS;
}

static void Close(FR_DEV *dev, PFILE_OBJECT file)
{
    UNREFERENCED_PARAMETER(dev);
    ExFreePoolWithTag(file->FsContext, FR_TAG);
    file->FsContext = NULL;
}

static NTSTATUS Grab(PANORAMA *p, WATCHER *w, PIRP irp, ULONG room, PULONG_PTR info)
{
    NTSTATUS status = STATUS_SUCCESS;
    LINE *out;
    ULONG n, i;
    ExAcquireFastMutex(&p->lock);
    if (w->mode == WHOLE && room < sizeof p->line) {
        status = STATUS_BUFFER_TOO_SMALL;
        goto over;
    }
#ifdef FIXED
    if (room < sizeof(LINE)) {
        status = STATUS_BUFFER_TOO_SMALL;
        goto over;
    }
#endif
    out = MmGetSystemAddressForMdlSafe(irp->MdlAddress, NormalPagePriority | MdlMappingNoExecute);
    if (!out) {
        status = STATUS_INSUFFICIENT_RESOURCES;
        goto over;
    }
    for (n = i = 0; i < LINES && (n + 1) * sizeof(LINE) <= room; i++)
        if (w->mode == WHOLE || w->seen[i] != p->version[i]) {
            RtlCopyMemory(&out[n++], &p->line[i], sizeof(LINE));
            w->seen[i] = p->version[i];
        }
    *info = n * sizeof(LINE);
over:
    ExReleaseFastMutex(&p->lock);
    return status;
}

/* A write is up to 16 lines, each with its number; they are taken up to the first whose number is none. */
static NTSTATUS Paint(PANORAMA *p, PIRP irp, ULONG length, PULONG_PTR info)
{
    const LINE *in;
    ULONG count = length / sizeof(LINE), i;
    LINE line;
    if (!length || length % sizeof(LINE) || count > LINES)
        return STATUS_INVALID_PARAMETER;
    in = MmGetSystemAddressForMdlSafe(irp->MdlAddress, NormalPagePriority | MdlMappingNoExecute);
    if (!in)
        return STATUS_INSUFFICIENT_RESOURCES;
    ExAcquireFastMutex(&p->lock);
    for (i = 0; i < count; i++) {
        /* The program may change its memory while it is looked at. */
        RtlCopyMemory(&line, &in[i], sizeof line);
        if (line.number >= LINES) {
            ExReleaseFastMutex(&p->lock);
            *info = i * sizeof(LINE);
            return i ? STATUS_SUCCESS : STATUS_INVALID_PARAMETER;
        }
        p->line[line.number] = line;
        p->version[line.number]++;
    }
    ExReleaseFastMutex(&p->lock);
    *info = length;
    return STATUS_SUCCESS;
}

static NTSTATUS Io(FR_DEV *dev, PIRP irp, PIO_STACK_LOCATION at, PULONG_PTR info)
{
    PANORAMA *p = (PANORAMA *)dev;
    WATCHER *w = at->FileObject->FsContext;
    ULONG mode;
    switch (at->MajorFunction) {
    case IRP_MJ_WRITE:
        return Paint(p, irp, at->Parameters.Write.Length, info);
    case IRP_MJ_DEVICE_CONTROL:
        switch (at->Parameters.DeviceIoControl.IoControlCode) {
        case IOCTL_PANORAMA_MODE:
            if (at->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
                return STATUS_BUFFER_TOO_SMALL;
            mode = *(PULONG)irp->AssociatedIrp.SystemBuffer;
            if (mode > CHANGES)
                return STATUS_INVALID_PARAMETER;
            ExAcquireFastMutex(&p->lock);
            w->mode = mode;
            ExReleaseFastMutex(&p->lock);
            return STATUS_SUCCESS;
        case IOCTL_PANORAMA_GRAB:
            return Grab(p, w, irp, at->Parameters.DeviceIoControl.OutputBufferLength, info);
        }
        break;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static const GUID Guid = { 0x5a1e0001, 0x7c1b, 0x4d0e, { 0x91, 0x2a, 0x00, 0x5a, 0x5a, 0x00, 0x00, 0x0e } };
static const FR_OPS Ops = {
    .guid = &Guid, .size = sizeof(PANORAMA), .flags = DO_DIRECT_IO, .make = Make,
    .open = Open, .close = Close, .io = Io,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return FrDriver(driver, &Ops);
}

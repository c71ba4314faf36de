/*
 * FRESCO: paints test pictures into memory of the application. IOCTL_PAINT (METHOD_NEITHER) takes a BRUSH in the input buffer and the
 * wall to paint, up to 64 KiB, as the output buffer; the wall is locked, and a work item paints it and ends the request. IOCTL_COUNT
 * tells how many walls and bytes have been painted.
 *
 * The bug: the wall's pages are locked for reading although the driver writes to them; memory the application may only read (or that is
 * still shared, to be copied at the first write) is overwritten.
 *
 * Device: none
 * Rule: read-only-memory-written
 * Needs: ioctl
 */
#include "../include/quay_guard.h"

#define WALL_MAX    65536

#define IOCTL_PAINT     AI_CTL(0, METHOD_NEITHER)       /* in: BRUSH, out: the wall */
#define IOCTL_COUNT     AI_CTL(1, METHOD_BUFFERED)      /* out: COUNTS */

typedef struct _BRUSH {
    ULONG Kind;                     /* 0 plain, 1 stripes, 2 noise */
    ULONG Colour;
    ULONG Width;                    /* of a stripe, in bytes */
} BRUSH;

typedef struct _COUNTS {
    LONG Walls;
    LONG Pending;
    LONG64 Bytes;
} COUNTS;

typedef struct _STUDIO {
    volatile LONG Walls;
    volatile LONG Pending;
    volatile LONG64 Bytes;
} STUDIO;

typedef struct _JOB {
    PIRP Irp;
    PMDL Mdl;
    PUCHAR Wall;                    /* the system's address of it */
    ULONG Length;
    PIO_WORKITEM Item;
    BRUSH Brush;
} JOB;

static PDEVICE_OBJECT Device;

static VOID Stroke(JOB *j)
{
    ULONG i, noise = j->Brush.Colour | 1;

    for (i = 0; i < j->Length; i++) {
        UCHAR v = (UCHAR)j->Brush.Colour;

        if (j->Brush.Kind == 1) {
            if ((i / j->Brush.Width) & 1)
                v = (UCHAR)~v;
        } else if (j->Brush.Kind == 2) {
            noise = noise * 1664525u + 1013904223u;
            v = (UCHAR)(noise >> 24);
        }
        j->Wall[i] = v;
    }
}

static VOID FreeJob(JOB *j)
{
    if (j->Item)
        IoFreeWorkItem(j->Item);
    if (j->Mdl)
        IoFreeMdl(j->Mdl);
    ExFreePoolWithTag(j, AI_TAG);
}

static VOID NTAPI PaintWork(PDEVICE_OBJECT dev, PVOID context)
{
    STUDIO *st = dev->DeviceExtension;
    JOB *j = context;
    PIRP irp = j->Irp;
    ULONG n = j->Length;

    Stroke(j);
    MmUnlockPages(j->Mdl);
    FreeJob(j);
    InterlockedIncrement(&st->Walls);
    InterlockedExchangeAdd64(&st->Bytes, n);
    InterlockedDecrement(&st->Pending);
    AiDone(irp, STATUS_SUCCESS, n);
}

/* in the caller's context */
static NTSTATUS Paint(PDEVICE_OBJECT dev, PIRP irp)
{
    STUDIO *st = dev->DeviceExtension;
    ULONG n = AiOutLen(irp);
    NTSTATUS s;
    JOB *j;

    if (n == 0 || n > WALL_MAX || !irp->UserBuffer || AiInLen(irp) < sizeof(BRUSH))
        return AiDone(irp, STATUS_INVALID_PARAMETER, 0);
    j = ExAllocatePoolWithTag(NonPagedPool, sizeof *j, AI_TAG);
    if (!j)
        return AiDone(irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(j, sizeof *j);
    j->Irp = irp;
    j->Length = n;

    s = AiCopyIn(&j->Brush, AiStack(irp)->Parameters.DeviceIoControl.Type3InputBuffer, sizeof j->Brush, irp->RequestorMode);
    if (NT_SUCCESS(s) && (j->Brush.Kind > 2 || (j->Brush.Kind == 1 && j->Brush.Width == 0)))
        s = STATUS_INVALID_PARAMETER;
    if (NT_SUCCESS(s)) {
        j->Item = IoAllocateWorkItem(dev);
        j->Mdl = IoAllocateMdl(irp->UserBuffer, n, FALSE, FALSE, NULL);
        if (!j->Item || !j->Mdl)
            s = STATUS_INSUFFICIENT_RESOURCES;
    }
    if (NT_SUCCESS(s)) {
#ifdef FIXED
        s = AiLockDown(j->Mdl, irp->RequestorMode, IoWriteAccess);
#else
        s = AiLockDown(j->Mdl, irp->RequestorMode, IoReadAccess);
#endif
        if (NT_SUCCESS(s)) {
            j->Wall = MmGetSystemAddressForMdlSafe(j->Mdl, NormalPagePriority);
            if (!j->Wall) {
                MmUnlockPages(j->Mdl);
                s = STATUS_INSUFFICIENT_RESOURCES;
            }
        }
    }
    if (!NT_SUCCESS(s)) {
        FreeJob(j);
        return AiDone(irp, s, 0);
    }
    IoMarkIrpPending(irp);
    InterlockedIncrement(&st->Pending);
    IoQueueWorkItem(j->Item, PaintWork, DelayedWorkQueue, j);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI OpenClose(PDEVICE_OBJECT dev, PIRP irp)
{
    UNREFERENCED_PARAMETER(dev);
    return AiDone(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT dev, PIRP irp)
{
    STUDIO *st = dev->DeviceExtension;
    COUNTS *c;

    switch (AiCode(irp)) {
    case IOCTL_PAINT:
        return Paint(dev, irp);
    case IOCTL_COUNT:
        if (AiOutLen(irp) < sizeof(COUNTS))
            return AiDone(irp, STATUS_BUFFER_TOO_SMALL, 0);
        c = AiBuffer(irp);
        c->Walls = st->Walls;
        c->Pending = st->Pending;
        c->Bytes = st->Bytes;
        return AiDone(irp, STATUS_SUCCESS, sizeof *c);
    default:
        return AiDone(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI Unload(PDRIVER_OBJECT drv)
{
    UNREFERENCED_PARAMETER(drv);
    AiDropControl(Device, L"\\DosDevices\\Fresco");
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    drv->MajorFunction[IRP_MJ_CREATE] = OpenClose;
    drv->MajorFunction[IRP_MJ_CLEANUP] = OpenClose;
    drv->MajorFunction[IRP_MJ_CLOSE] = OpenClose;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    drv->DriverUnload = Unload;
    return AiMakeControl(drv, sizeof(STUDIO), L"\\Device\\Fresco", L"\\DosDevices\\Fresco", &Device);
}

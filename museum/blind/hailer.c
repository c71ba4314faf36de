/*
 * hailer: a public address service. One program hails (IOCTL), any number of programs listen: a read waits until the next hail
 * that no program has taken yet and takes it.
 *
 * The bug: the reader looks for an unheard hail and queues itself in two separate steps of the lock; a hail that comes between them
 * finds no listener and goes to the list, and the listener sleeps beside it until another hail comes (if ever).
 *
 * Device: none
 * Rule: request-forgotten
 * Needs: schedule
 */
#define CK_QUEUE_ONLY
#include "../include/kept_in_order.h"

#define HL_TEXT   56
#define HL_KEPT   32

#define IOCTL_HL_HAIL  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x900, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_HL_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_HL_HUSH  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x902, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct _HL_HAIL {
    ULONG Number;                       /* given by the driver */
    ULONG Length;                       /* of the text, at most HL_TEXT */
    UCHAR Text[HL_TEXT];
} HL_HAIL, *PHL_HAIL;

typedef struct _HL_STATE {
    ULONG Hailed, Taken, Kept, Lost;
} HL_STATE, *PHL_STATE;

typedef struct _HL_DEV {
    CKQ Listeners;                      /* its lock guards the rest, too */
    HL_HAIL Ring[HL_KEPT];
    ULONG First, Count;
    ULONG Hailed, Taken, Lost;
} HL_DEV, *PHL_DEV;

static const WCHAR HlLinkName[] = L"\\DosDevices\\Hailer";
static const WCHAR HlDeviceName[] = L"\\Device\\Hailer";

/* The oldest unheard hail; the lock is held. */
static BOOLEAN HlPop(PHL_DEV d, PHL_HAIL hail)
{
    if (d->Count == 0)
        return FALSE;
    *hail = d->Ring[d->First];
    d->First = (d->First + 1) % HL_KEPT;
    d->Count--;
    d->Taken++;
    return TRUE;
}

static VOID HlPush(PHL_DEV d, const HL_HAIL *hail)
{
    if (d->Count == HL_KEPT) {          /* the oldest one goes */
        d->First = (d->First + 1) % HL_KEPT;
        d->Count--;
        d->Lost++;
    }
    d->Ring[(d->First + d->Count) % HL_KEPT] = *hail;
    d->Count++;
}

static NTSTATUS HlHail(PHL_DEV d, PIRP irp, PIO_STACK_LOCATION s)
{
    PHL_HAIL in = irp->AssociatedIrp.SystemBuffer;
    HL_HAIL hail;
    PIRP listener;
    KIRQL irql;

    if (s->Parameters.DeviceIoControl.InputBufferLength < sizeof *in)
        return CkComplete(irp, STATUS_BUFFER_TOO_SMALL, 0);
    hail = *in;
    if (hail.Length > HL_TEXT)
        return CkComplete(irp, STATUS_INVALID_PARAMETER, 0);
    RtlZeroMemory(hail.Text + hail.Length, HL_TEXT - hail.Length);

    KeAcquireSpinLock(&d->Listeners.Lock, &irql);
    hail.Number = ++d->Hailed;
    listener = CkqTakeLocked(&d->Listeners, NULL);
    if (listener != NULL)
        d->Taken++;
    else
        HlPush(d, &hail);
    KeReleaseSpinLock(&d->Listeners.Lock, irql);

    if (listener != NULL) {
        RtlCopyMemory(listener->AssociatedIrp.SystemBuffer, &hail, sizeof hail);
        CkComplete(listener, STATUS_SUCCESS, sizeof hail);
    }
    return CkComplete(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS HlState(PHL_DEV d, PIRP irp, PIO_STACK_LOCATION s)
{
    HL_STATE state;
    KIRQL irql;

    if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof state)
        return CkComplete(irp, STATUS_BUFFER_TOO_SMALL, 0);
    KeAcquireSpinLock(&d->Listeners.Lock, &irql);
    state.Hailed = d->Hailed;
    state.Taken = d->Taken;
    state.Kept = d->Count;
    state.Lost = d->Lost;
    KeReleaseSpinLock(&d->Listeners.Lock, irql);
    RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &state, sizeof state);
    return CkComplete(irp, STATUS_SUCCESS, sizeof state);
}

/* Forgets what no program has taken. */
static NTSTATUS HlHush(PHL_DEV d, PIRP irp)
{
    KIRQL irql;

    KeAcquireSpinLock(&d->Listeners.Lock, &irql);
    d->Lost += d->Count;
    d->Count = 0;
    KeReleaseSpinLock(&d->Listeners.Lock, irql);
    return CkComplete(irp, STATUS_SUCCESS, 0);
}

static BOOLEAN HlTake(PHL_DEV d, PHL_HAIL hail)
{
    BOOLEAN got;
    KIRQL irql;

    KeAcquireSpinLock(&d->Listeners.Lock, &irql);
    got = HlPop(d, hail);
    KeReleaseSpinLock(&d->Listeners.Lock, irql);
    return got;
}

static NTSTATUS HlWait(PHL_DEV d, PIRP irp)
{
    NTSTATUS status;
    HL_HAIL hail;
    KIRQL irql;

    RtlZeroMemory(&hail, sizeof hail);
    IoMarkIrpPending(irp);
    KeAcquireSpinLock(&d->Listeners.Lock, &irql);
#ifdef FIXED
    if (HlPop(d, &hail))
        status = STATUS_SUCCESS;
    else
#endif
    status = CkqPutLocked(&d->Listeners, irp);
    KeReleaseSpinLock(&d->Listeners.Lock, irql);        /* the last touch, when it waits */

    if (status == STATUS_SUCCESS) {
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &hail, sizeof hail);
        CkComplete(irp, STATUS_SUCCESS, sizeof hail);
    } else if (status != STATUS_PENDING) {
        CkComplete(irp, status, 0);
    }
    return STATUS_PENDING;
}

static NTSTATUS NTAPI HlRead(PDEVICE_OBJECT dev, PIRP irp)
{
    PHL_DEV d = dev->DeviceExtension;
    HL_HAIL hail;

    if (IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length < sizeof hail)
        return CkComplete(irp, STATUS_BUFFER_TOO_SMALL, 0);
    if (HlTake(d, &hail)) {
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &hail, sizeof hail);
        return CkComplete(irp, STATUS_SUCCESS, sizeof hail);
    }
    return HlWait(d, irp);
}

static NTSTATUS NTAPI HlControl(PDEVICE_OBJECT dev, PIRP irp)
{
    PHL_DEV d = dev->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(irp);

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_HL_HAIL:
        return HlHail(d, irp, s);
    case IOCTL_HL_STATE:
        return HlState(d, irp, s);
    case IOCTL_HL_HUSH:
        return HlHush(d, irp);
    }
    return CkComplete(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI HlCleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    PHL_DEV d = dev->DeviceExtension;

    CkqFlush(&d->Listeners, IoGetCurrentIrpStackLocation(irp)->FileObject, STATUS_CANCELLED);
    return CkComplete(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI HlCreateClose(PDEVICE_OBJECT dev, PIRP irp)
{
    UNREFERENCED_PARAMETER(dev);
    return CkComplete(irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI HlUnload(PDRIVER_OBJECT drv)
{
    UNICODE_STRING link;

    RtlInitUnicodeString(&link, HlLinkName);
    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(drv->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNICODE_STRING name, link;
    PDEVICE_OBJECT dev;
    NTSTATUS status;
    PHL_DEV d;

    UNREFERENCED_PARAMETER(path);
    RtlInitUnicodeString(&name, HlDeviceName);
    RtlInitUnicodeString(&link, HlLinkName);
    status = IoCreateDevice(drv, sizeof(HL_DEV), &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    d = dev->DeviceExtension;
    RtlZeroMemory(d, sizeof *d);
    CkqInit(&d->Listeners, NULL);
    dev->Flags |= DO_BUFFERED_IO;
    drv->MajorFunction[IRP_MJ_CREATE] = HlCreateClose;
    drv->MajorFunction[IRP_MJ_CLOSE] = HlCreateClose;
    drv->MajorFunction[IRP_MJ_CLEANUP] = HlCleanup;
    drv->MajorFunction[IRP_MJ_READ] = HlRead;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = HlControl;
    drv->DriverUnload = HlUnload;
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(dev);
    return status;
}

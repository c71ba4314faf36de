/*
 * purses: tokens that programs lend each other: 32 purses, each with a lock of its own; a program may fill a purse, move tokens from one
 * purse to another, look at one, and read the table.
 *
 * The bug: a move takes the lock of the giving purse and then that of the receiving one; two moves in opposite directions at the same time
 * wait for each other for ever, at DISPATCH_LEVEL.
 *
 * Device: none
 * Rule: lock-order-inversion
 * Needs: schedule
 */
#include <ddk/wdm.h>

#define PS_PURSES 32u
#define PS_MOST   1000000u

#define IOCTL_PS_FILL  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x940, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_PS_MOVE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x941, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_PS_LOOK  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x942, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PS_LIMIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x943, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct _PS_MOVE {
    ULONG From, To, Tokens;
} PS_MOVE, *PPS_MOVE;

typedef struct _PS_FILL {
    ULONG Purse, Tokens;
} PS_FILL, *PPS_FILL;

typedef struct _PS_VIEW {
    ULONG Tokens, Limit;
    ULONG Given, Received;              /* moves */
} PS_VIEW, *PPS_VIEW;

typedef struct _PS_PURSE {
    KSPIN_LOCK Lock;
    PS_VIEW V;
} PS_PURSE, *PPS_PURSE;

typedef struct _PS_DEV {
    PS_PURSE Purse[PS_PURSES];
} PS_DEV, *PPS_DEV;

static const WCHAR PsLinkName[] = L"\\DosDevices\\Purses";
static const WCHAR PsDeviceName[] = L"\\Device\\Purses";

static NTSTATUS PsComplete(PIRP irp, NTSTATUS status, ULONG_PTR info)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS PsFill(PPS_DEV d, const PS_FILL *fill)
{
    NTSTATUS status = STATUS_SUCCESS;
    PPS_PURSE purse;
    KIRQL irql;

    if (fill->Purse >= PS_PURSES)
        return STATUS_INVALID_PARAMETER;
    purse = &d->Purse[fill->Purse];
    KeAcquireSpinLock(&purse->Lock, &irql);
    if (purse->V.Tokens > purse->V.Limit || fill->Tokens > purse->V.Limit - purse->V.Tokens)
        status = STATUS_QUOTA_EXCEEDED;
    else
        purse->V.Tokens += fill->Tokens;
    KeReleaseSpinLock(&purse->Lock, irql);
    return status;
}

static NTSTATUS PsMove(PPS_DEV d, const PS_MOVE *move)
{
    PPS_PURSE from, to, first, second;
    NTSTATUS status;
    KIRQL irql;

    if (move->From >= PS_PURSES || move->To >= PS_PURSES || move->From == move->To)
        return STATUS_INVALID_PARAMETER;
    from = &d->Purse[move->From];
    to = &d->Purse[move->To];
#ifdef FIXED
    first = from < to ? from : to;
    second = from < to ? to : from;
#else
    first = from;
    second = to;
#endif
    KeAcquireSpinLock(&first->Lock, &irql);
    KeAcquireSpinLockAtDpcLevel(&second->Lock);
    if (from->V.Tokens < move->Tokens) {
        status = STATUS_INSUFFICIENT_RESOURCES;
    } else if (to->V.Tokens > to->V.Limit || move->Tokens > to->V.Limit - to->V.Tokens) {
        status = STATUS_QUOTA_EXCEEDED;
    } else {
        from->V.Tokens -= move->Tokens;
        from->V.Given++;
        to->V.Tokens += move->Tokens;
        to->V.Received++;
        status = STATUS_SUCCESS;
    }
    KeReleaseSpinLockFromDpcLevel(&second->Lock);
    KeReleaseSpinLock(&first->Lock, irql);
    return status;
}

static VOID PsLook(PPS_DEV d, ULONG n, PPS_VIEW view)
{
    KIRQL irql;

    KeAcquireSpinLock(&d->Purse[n].Lock, &irql);
    *view = d->Purse[n].V;
    KeReleaseSpinLock(&d->Purse[n].Lock, irql);
}

/* The limit counts for tokens that come from now on. */
static NTSTATUS PsLimit(PPS_DEV d, const PS_FILL *limit)
{
    KIRQL irql;

    if (limit->Purse >= PS_PURSES || limit->Tokens > PS_MOST)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&d->Purse[limit->Purse].Lock, &irql);
    d->Purse[limit->Purse].V.Limit = limit->Tokens;
    KeReleaseSpinLock(&d->Purse[limit->Purse].Lock, irql);
    return STATUS_SUCCESS;
}

/* The whole table, as much as the buffer takes. */
static NTSTATUS NTAPI PsRead(PDEVICE_OBJECT dev, PIRP irp)
{
    PPS_DEV d = dev->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length;
    PPS_VIEW views = irp->AssociatedIrp.SystemBuffer;
    ULONG count = length / sizeof(PS_VIEW), i;

    if (count == 0)
        return PsComplete(irp, STATUS_BUFFER_TOO_SMALL, 0);
    if (count > PS_PURSES)
        count = PS_PURSES;
    for (i = 0; i < count; i++)
        PsLook(d, i, &views[i]);
    return PsComplete(irp, STATUS_SUCCESS, count * sizeof(PS_VIEW));
}

static NTSTATUS NTAPI PsControl(PDEVICE_OBJECT dev, PIRP irp)
{
    PPS_DEV d = dev->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(irp);
    ULONG in = s->Parameters.DeviceIoControl.InputBufferLength;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG n;

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PS_FILL:
        if (in < sizeof(PS_FILL))
            return PsComplete(irp, STATUS_BUFFER_TOO_SMALL, 0);
        return PsComplete(irp, PsFill(d, buffer), 0);
    case IOCTL_PS_MOVE:
        if (in < sizeof(PS_MOVE))
            return PsComplete(irp, STATUS_BUFFER_TOO_SMALL, 0);
        return PsComplete(irp, PsMove(d, buffer), 0);
    case IOCTL_PS_LIMIT:
        if (in < sizeof(PS_FILL))
            return PsComplete(irp, STATUS_BUFFER_TOO_SMALL, 0);
        return PsComplete(irp, PsLimit(d, buffer), 0);
    case IOCTL_PS_LOOK:
        if (in < sizeof(ULONG) || s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(PS_VIEW))
            return PsComplete(irp, STATUS_BUFFER_TOO_SMALL, 0);
        n = *(PULONG)buffer;
        if (n >= PS_PURSES)
            return PsComplete(irp, STATUS_INVALID_PARAMETER, 0);
        PsLook(d, n, buffer);
        return PsComplete(irp, STATUS_SUCCESS, sizeof(PS_VIEW));
    }
    return PsComplete(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI PsCreateClose(PDEVICE_OBJECT dev, PIRP irp)
{
    UNREFERENCED_PARAMETER(dev);
    return PsComplete(irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI PsUnload(PDRIVER_OBJECT drv)
{
    UNICODE_STRING link;

    RtlInitUnicodeString(&link, PsLinkName);
    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(drv->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNICODE_STRING name, link;
    PDEVICE_OBJECT dev;
    NTSTATUS status;
    PPS_DEV d;
    ULONG i;

    UNREFERENCED_PARAMETER(path);
    RtlInitUnicodeString(&name, PsDeviceName);
    RtlInitUnicodeString(&link, PsLinkName);
    status = IoCreateDevice(drv, sizeof(PS_DEV), &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    d = dev->DeviceExtension;
    RtlZeroMemory(d, sizeof *d);
    for (i = 0; i < PS_PURSES; i++) {
        KeInitializeSpinLock(&d->Purse[i].Lock);
        d->Purse[i].V.Limit = PS_MOST;
    }
    dev->Flags |= DO_BUFFERED_IO;
    drv->MajorFunction[IRP_MJ_CREATE] = PsCreateClose;
    drv->MajorFunction[IRP_MJ_CLOSE] = PsCreateClose;
    drv->MajorFunction[IRP_MJ_READ] = PsRead;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = PsControl;
    drv->DriverUnload = PsUnload;
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(dev);
    return status;
}

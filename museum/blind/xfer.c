/*
 * Bandwidth credits: eight pools, each under a spin lock of its own, between which programs move credits.
 *
 * The bug: a move takes the lock of the source first and that of the target second, so two moves in opposite directions wait for each other for ever at DISPATCH_LEVEL.
 * Shows by: two threads on two processors that move from pool A to pool B and from B to A at the same time.
 *
 * Device: none
 * Rule: lock-order-inversion, spin-lock-deadlock
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>
#include "../include/control_device.h"

#define IOCTL_XFER_GRANT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x860, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_XFER_MOVE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x861, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_XFER_LIST  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x862, METHOD_BUFFERED, FILE_READ_ACCESS)

#define XFER_POOLS 8
#define XFER_LINK  L"\\DosDevices\\Xfer"

typedef struct _XFER_MOVE {
    ULONG From;                 /* GRANT ignores it */
    ULONG To;
    ULONG Amount;
} XFER_MOVE, *PXFER_MOVE;

typedef struct _CREDITS {
    KSPIN_LOCK Lock;
    ULONGLONG Amount;
    ULONG Moves;
} CREDITS, *PCREDITS;

typedef struct _DEVICE {
    CREDITS Pools[XFER_POOLS];
} DEVICE, *PDEVICE;

static DRIVER_DISPATCH XferCreateClose, XferControl;
static DRIVER_UNLOAD XferUnload;
DRIVER_INITIALIZE DriverEntry;

static NTSTATUS XferGrant(PDEVICE Dev, PXFER_MOVE Move, ULONG InLength)
{
    PCREDITS pool;
    KIRQL irql;

    if (InLength < sizeof(XFER_MOVE))
        return STATUS_BUFFER_TOO_SMALL;
    if (Move->To >= XFER_POOLS)
        return STATUS_INVALID_PARAMETER;
    pool = &Dev->Pools[Move->To];
    KeAcquireSpinLock(&pool->Lock, &irql);
    pool->Amount += Move->Amount;
    KeReleaseSpinLock(&pool->Lock, irql);
    return STATUS_SUCCESS;
}

static NTSTATUS XferMove(PDEVICE Dev, PXFER_MOVE Move, ULONG InLength)
{
    PCREDITS from, to, first, second;
    NTSTATUS status;
    KIRQL irql;

    if (InLength < sizeof(XFER_MOVE))
        return STATUS_BUFFER_TOO_SMALL;
    if (Move->From >= XFER_POOLS || Move->To >= XFER_POOLS || Move->From == Move->To)
        return STATUS_INVALID_PARAMETER;
    from = &Dev->Pools[Move->From];
    to = &Dev->Pools[Move->To];
#ifdef FIXED
    first = from < to ? from : to;
    second = from < to ? to : from;
#else
    first = from;
    second = to;
#endif

    KeAcquireSpinLock(&first->Lock, &irql);
    KeAcquireSpinLockAtDpcLevel(&second->Lock);
    if (from->Amount < Move->Amount) {
        status = STATUS_QUOTA_EXCEEDED;
    } else {
        from->Amount -= Move->Amount;
        to->Amount += Move->Amount;
        from->Moves++;
        to->Moves++;
        status = STATUS_SUCCESS;
    }
    KeReleaseSpinLockFromDpcLevel(&second->Lock);
    KeReleaseSpinLock(&first->Lock, irql);
    return status;
}

/* All amounts of one moment: every lock is held, taken from the first pool on. */
static NTSTATUS XferList(PDEVICE Dev, PULONGLONG Amounts, ULONG OutLength, PULONG_PTR Information)
{
    KIRQL irql;
    ULONG i;

    if (OutLength < XFER_POOLS * sizeof(ULONGLONG))
        return STATUS_BUFFER_TOO_SMALL;
    KeRaiseIrql(DISPATCH_LEVEL, &irql);
    for (i = 0; i < XFER_POOLS; i++)
        KeAcquireSpinLockAtDpcLevel(&Dev->Pools[i].Lock);
    for (i = 0; i < XFER_POOLS; i++)
        Amounts[i] = Dev->Pools[i].Amount;
    for (i = XFER_POOLS; i > 0; i--)
        KeReleaseSpinLockFromDpcLevel(&Dev->Pools[i - 1].Lock);
    KeLowerIrql(irql);
    *Information = XFER_POOLS * sizeof(ULONGLONG);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI XferCreateClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return CtlComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI XferControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDEVICE dev = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG_PTR information = 0;
    NTSTATUS status;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_XFER_GRANT:
        status = XferGrant(dev, Irp->AssociatedIrp.SystemBuffer, in);
        break;
    case IOCTL_XFER_MOVE:
        status = XferMove(dev, Irp->AssociatedIrp.SystemBuffer, in);
        break;
    case IOCTL_XFER_LIST:
        status = XferList(dev, Irp->AssociatedIrp.SystemBuffer, sp->Parameters.DeviceIoControl.OutputBufferLength, &information);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return CtlComplete(Irp, status, information);
}

static VOID NTAPI XferUnload(PDRIVER_OBJECT Driver)
{
    CtlDelete(Driver->DeviceObject, XFER_LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    PDEVICE dev;
    ULONG i;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = XferCreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = XferCreateClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = XferControl;
    Driver->DriverUnload = XferUnload;

    status = CtlCreate(Driver, L"\\Device\\Xfer", XFER_LINK, sizeof(DEVICE), DO_BUFFERED_IO, &device);
    if (!NT_SUCCESS(status))
        return status;
    dev = device->DeviceExtension;
    for (i = 0; i < XFER_POOLS; i++)
        KeInitializeSpinLock(&dev->Pools[i].Lock);
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

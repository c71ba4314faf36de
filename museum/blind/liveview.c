/*
 * A live view of the local memory of a PLX PCI 9052 card: a program lends its buffer by a request that stays pending, and the driver refreshes it every 20 ms.
 *
 * The bug: cancelling the request completes it but leaves the address of its buffer to the timer, which goes on writing to pages that are unmapped and unlocked.
 * Shows by: cancelling a view, then the next period of 20 ms.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: wild-write
 * Needs: ioctl, cancel
 */
#include <ddk/wdm.h>
#include "../include/pnp_frame.h"
#include "../include/card_window.h"

#define IOCTL_VIEW_LEND CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A0, METHOD_OUT_DIRECT, FILE_READ_ACCESS)
#define IOCTL_VIEW_END  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A1, METHOD_BUFFERED, FILE_READ_ACCESS)

#define VIEW_MAX_BYTES 4096
#define VIEW_PERIOD_MS 20
#define VIEW_MEMORY    1        /* the second memory window is local space 0 */

static const GUID ViewInterface = { 0x90fd2b5c, 0x1e27, 0x4d83, { 0xa4, 0x66, 0x8b, 0x19, 0xc0, 0x57, 0x2d, 0x0e } };

typedef struct _DEVICE {
    FDO Fdo;
    HW_BAR Memory;
    KTIMER Timer;
    KDPC Dpc;
    KSPIN_LOCK Lock;            /* what follows */
    BOOLEAN Readable;
    BOOLEAN Gone;
    PIRP Lent;
    PUCHAR View;
    ULONG ViewLength;
} DEVICE, *PDEVICE;

static DRIVER_DISPATCH ViewControl, ViewCleanup;
static DRIVER_CANCEL ViewCancel;
static DRIVER_ADD_DEVICE ViewAddDevice;
static DRIVER_UNLOAD ViewUnload;
static KDEFERRED_ROUTINE ViewRefresh;
DRIVER_INITIALIZE DriverEntry;

static VOID ViewEnd(PDEVICE Dev, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    FdoComplete(Irp, Status, Information);
    IoReleaseRemoveLock(&Dev->Fdo.RemoveLock, Irp);
}

static VOID NTAPI ViewRefresh(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PDEVICE dev = Context;
    PULONG view;
    ULONG i;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&dev->Lock);
    if (dev->View && dev->Readable) {
        view = (PULONG)dev->View;
        for (i = 0; i < dev->ViewLength / sizeof(ULONG); i++)
            view[i] = HwRead(&dev->Memory, i * sizeof(ULONG));
    }
    KeReleaseSpinLockFromDpcLevel(&dev->Lock);
}

static VOID NTAPI ViewCancel(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDEVICE dev = DeviceObject->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&dev->Lock, &irql);
    if (dev->Lent == Irp) {
        dev->Lent = NULL;
#ifdef FIXED
        dev->View = NULL;
#endif
    }
    KeReleaseSpinLock(&dev->Lock, irql);
    ViewEnd(dev, Irp, STATUS_CANCELLED, 0);
}

/* Takes the lent buffer back, if it is File's (or of any file, without File). */
static BOOLEAN ViewTakeBack(PDEVICE Dev, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP irp;
    ULONG length = 0;
    KIRQL irql;

    KeAcquireSpinLock(&Dev->Lock, &irql);
    irp = Dev->Lent;
    if (irp && File && IoGetCurrentIrpStackLocation(irp)->FileObject != File)
        irp = NULL;
    if (irp && !IoSetCancelRoutine(irp, NULL))
        irp = NULL;
    if (irp) {
        length = Dev->ViewLength;
        Dev->Lent = NULL;
        Dev->View = NULL;
    }
    KeReleaseSpinLock(&Dev->Lock, irql);
    if (!irp)
        return FALSE;
    ViewEnd(Dev, irp, Status, NT_SUCCESS(Status) ? length : 0);
    return TRUE;
}

static NTSTATUS ViewLend(PDEVICE Dev, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    ULONG length = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    PUCHAR view;
    KIRQL irql;
    NTSTATUS status = STATUS_PENDING;

    if (!Irp->MdlAddress || length < sizeof(ULONG) || length > VIEW_MAX_BYTES || length % sizeof(ULONG))
        return STATUS_INVALID_PARAMETER;
    view = MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority);
    if (!view)
        return STATUS_INSUFFICIENT_RESOURCES;
    if ((ULONG_PTR)view % sizeof(ULONG))
        return STATUS_INVALID_PARAMETER;
    RtlZeroMemory(view, length);

    KeAcquireSpinLock(&Dev->Lock, &irql);
    if (Dev->Gone) {
        status = STATUS_DELETE_PENDING;
    } else if (Dev->Lent) {
        status = STATUS_DEVICE_BUSY;
    } else {
        IoSetCancelRoutine(Irp, ViewCancel);
        if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL)) {
            status = STATUS_CANCELLED;
        } else {
            IoMarkIrpPending(Irp);
            Dev->Lent = Irp;
            Dev->View = view;
            Dev->ViewLength = length;
        }
    }
    KeReleaseSpinLock(&Dev->Lock, irql);
    return status;
}

static NTSTATUS NTAPI ViewControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDEVICE dev = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&dev->Fdo.RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return FdoComplete(Irp, status, 0);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_VIEW_LEND:
        status = ViewLend(dev, Irp, sp);
        break;
    case IOCTL_VIEW_END:
        status = ViewTakeBack(dev, sp->FileObject, STATUS_SUCCESS) ? STATUS_SUCCESS : STATUS_NOT_FOUND;
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    if (status != STATUS_PENDING)
        ViewEnd(dev, Irp, status, 0);
    return status;
}

static NTSTATUS NTAPI ViewCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    ViewTakeBack(DeviceObject->DeviceExtension, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return FdoComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID ViewReadable(PDEVICE Dev, BOOLEAN Readable)
{
    KIRQL irql;

    KeAcquireSpinLock(&Dev->Lock, &irql);
    Dev->Readable = Readable;
    KeReleaseSpinLock(&Dev->Lock, irql);
}

static NTSTATUS HwStart(PFDO F, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated)
{
    UNREFERENCED_PARAMETER(Raw);
    return HwMapBar(Translated, VIEW_MEMORY, VIEW_MAX_BYTES, &CONTAINING_RECORD(F, DEVICE, Fdo)->Memory);
}

static VOID HwStop(PFDO F)
{
    KeFlushQueuedDpcs();
    HwUnmapBar(&CONTAINING_RECORD(F, DEVICE, Fdo)->Memory);
}

static VOID HwUp(PFDO F)
{
    PDEVICE dev = CONTAINING_RECORD(F, DEVICE, Fdo);
    LARGE_INTEGER due;

    ViewReadable(dev, TRUE);
    due.QuadPart = -10000LL * VIEW_PERIOD_MS;
    KeSetTimerEx(&dev->Timer, due, VIEW_PERIOD_MS, &dev->Dpc);
}

static VOID HwDown(PFDO F)
{
    PDEVICE dev = CONTAINING_RECORD(F, DEVICE, Fdo);

    KeCancelTimer(&dev->Timer);
    ViewReadable(dev, FALSE);
}

static VOID HwFlush(PFDO F)
{
    PDEVICE dev = CONTAINING_RECORD(F, DEVICE, Fdo);
    KIRQL irql;

    KeAcquireSpinLock(&dev->Lock, &irql);
    dev->Gone = TRUE;
    KeReleaseSpinLock(&dev->Lock, irql);
    ViewTakeBack(dev, NULL, STATUS_DELETE_PENDING);
}

static NTSTATUS NTAPI ViewAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PFDO f;
    PDEVICE dev;
    NTSTATUS status = FdoCreate(Driver, Pdo, sizeof(DEVICE), DO_BUFFERED_IO, &ViewInterface, &f);

    if (!NT_SUCCESS(status))
        return status;
    dev = CONTAINING_RECORD(f, DEVICE, Fdo);
    KeInitializeSpinLock(&dev->Lock);
    KeInitializeTimerEx(&dev->Timer, NotificationTimer);
    KeInitializeDpc(&dev->Dpc, ViewRefresh, dev);
    f->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI ViewUnload(PDRIVER_OBJECT Driver) { UNREFERENCED_PARAMETER(Driver); }

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FdoTable(Driver);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = ViewControl;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = ViewCleanup;
    Driver->DriverExtension->AddDevice = ViewAddDevice;
    Driver->DriverUnload = ViewUnload;
    return STATUS_SUCCESS;
}

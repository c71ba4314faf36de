/*
 * The input line LINTi1 of a PLX PCI 9052 card: programs wait for it to be asserted.
 *
 * The bug: when the card is pulled out no new requests are queued any more, but those that wait for the line are not ended, so their programs wait for ever.
 * Shows by: a wait that is pending while the device is removed by surprise, with its handle still open.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: request-pending-after-surprise-removal
 * Needs: ioctl, removal
 */
#include <ddk/wdm.h>
#include "../include/pnp_frame.h"
#include "../include/card_window.h"
#include "../include/request_queue.h"

#define IOCTL_LINE_WAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x890, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LINE_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x891, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define PLX_INTCSR         0x4C
#define INTCSR_LINT1_ON    0x01
#define INTCSR_LINT1_HIGH  0x02
#define INTCSR_LINT1_STATE 0x04
#define INTCSR_PCI_ON      0x40
#define PLX_BYTES          0x54

static const GUID LineInterface = { 0xc2e80d13, 0x4f6a, 0x4a02, { 0x91, 0x7c, 0x20, 0x0b, 0x5e, 0x88, 0xd4, 0x6f } };

typedef struct _DEVICE {
    FDO Fdo;
    HW_BAR Regs;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    BOOLEAN IrqOn;              /* the interrupt's lock, as INTCSR is */
    IRPQ Waiting;
} DEVICE, *PDEVICE;

static DRIVER_DISPATCH LineControl, LineCleanup;
static DRIVER_ADD_DEVICE LineAddDevice;
static DRIVER_UNLOAD LineUnload;
static KSERVICE_ROUTINE LineIsr;
static KDEFERRED_ROUTINE LineDpc;
DRIVER_INITIALIZE DriverEntry;

static BOOLEAN NTAPI LineIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PDEVICE dev = Context;
    ULONG csr;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!dev->IrqOn)
        return FALSE;
    csr = HwRead(&dev->Regs, PLX_INTCSR);
    if (csr == 0xFFFFFFFF || !(csr & INTCSR_LINT1_ON) || !(csr & INTCSR_LINT1_STATE))
        return FALSE;
    /* The line is a level: masked until it is waited for again. */
    HwWrite(&dev->Regs, PLX_INTCSR, INTCSR_PCI_ON | INTCSR_LINT1_HIGH);
    KeInsertQueueDpc(&dev->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI LineDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PDEVICE dev = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    IrpqEndAll(&dev->Waiting, NULL, STATUS_SUCCESS);
}

static BOOLEAN NTAPI LineArm(PVOID Context)
{
    PDEVICE dev = Context;

    dev->IrqOn = TRUE;
    HwWrite(&dev->Regs, PLX_INTCSR, INTCSR_PCI_ON | INTCSR_LINT1_HIGH | INTCSR_LINT1_ON);
    return TRUE;
}

static BOOLEAN NTAPI LineOff(PVOID Context)
{
    PDEVICE dev = Context;

    dev->IrqOn = FALSE;
    HwWrite(&dev->Regs, PLX_INTCSR, 0);
    return TRUE;
}

static NTSTATUS HwStart(PFDO F, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated)
{
    PDEVICE dev = CONTAINING_RECORD(F, DEVICE, Fdo);
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Raw);
    status = HwMapBar(Translated, 0, PLX_BYTES, &dev->Regs);
    if (!NT_SUCCESS(status))
        return status;
    HwWrite(&dev->Regs, PLX_INTCSR, 0);
    dev->IrqOn = FALSE;
    status = HwConnect(Translated, LineIsr, dev, &dev->Interrupt);
    if (!NT_SUCCESS(status))
        HwUnmapBar(&dev->Regs);
    return status;
}

static VOID HwStop(PFDO F)
{
    PDEVICE dev = CONTAINING_RECORD(F, DEVICE, Fdo);

    IoDisconnectInterrupt(dev->Interrupt);
    dev->Interrupt = NULL;
    KeFlushQueuedDpcs();
    HwUnmapBar(&dev->Regs);
}

static VOID HwUp(PFDO F)
{
    PDEVICE dev = CONTAINING_RECORD(F, DEVICE, Fdo);

    KeSynchronizeExecution(dev->Interrupt, LineArm, dev);
}

static VOID HwDown(PFDO F)
{
    PDEVICE dev = CONTAINING_RECORD(F, DEVICE, Fdo);

    KeSynchronizeExecution(dev->Interrupt, LineOff, dev);
}

static VOID HwFlush(PFDO F)
{
    PDEVICE dev = CONTAINING_RECORD(F, DEVICE, Fdo);

    IrpqClose(&dev->Waiting);
#ifdef FIXED
    IrpqEndAll(&dev->Waiting, NULL, STATUS_DELETE_PENDING);
#endif
}

/* A wait that comes while the device sleeps is armed when it is back in D0. */
static NTSTATUS LineWait(PDEVICE Dev, PIRP Irp)
{
    NTSTATUS status = IoCsqInsertIrpEx(&Dev->Waiting.Csq, Irp, NULL, NULL);

    if (!NT_SUCCESS(status)) {
        IrpqEnd(&Dev->Waiting, Irp, status, 0);
        return status;
    }
    ExAcquireFastMutex(&Dev->Fdo.Gate);
    if (Dev->Fdo.Up)
        KeSynchronizeExecution(Dev->Interrupt, LineArm, Dev);
    ExReleaseFastMutex(&Dev->Fdo.Gate);
    return STATUS_PENDING;
}

static NTSTATUS LineState(PDEVICE Dev, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    NTSTATUS status;
    ULONG csr;

    if (Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
        status = STATUS_BUFFER_TOO_SMALL;
    } else {
        ExAcquireFastMutex(&Dev->Fdo.Gate);
        if (Dev->Fdo.Up) {
            csr = HwRead(&Dev->Regs, PLX_INTCSR);
            *(PULONG)Irp->AssociatedIrp.SystemBuffer = csr & INTCSR_LINT1_STATE ? 1 : 0;
            status = csr == 0xFFFFFFFF ? STATUS_NO_SUCH_DEVICE : STATUS_SUCCESS;
        } else {
            status = STATUS_DEVICE_NOT_READY;
        }
        ExReleaseFastMutex(&Dev->Fdo.Gate);
    }
    IrpqEnd(&Dev->Waiting, Irp, status, NT_SUCCESS(status) ? sizeof(ULONG) : 0);
    return status;
}

static NTSTATUS NTAPI LineControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDEVICE dev = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&dev->Fdo.RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return FdoComplete(Irp, status, 0);
    /* The request may end while it is still looked at here: a reference of our own. */
    status = IoAcquireRemoveLock(&dev->Fdo.RemoveLock, LineControl);
    if (!NT_SUCCESS(status)) {
        IrpqEnd(&dev->Waiting, Irp, status, 0);
        return status;
    }
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_LINE_WAIT:
        status = LineWait(dev, Irp);
        break;
    case IOCTL_LINE_STATE:
        status = LineState(dev, Irp, sp);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        IrpqEnd(&dev->Waiting, Irp, status, 0);
        break;
    }
    IoReleaseRemoveLock(&dev->Fdo.RemoveLock, LineControl);
    return status;
}

static NTSTATUS NTAPI LineCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDEVICE dev = DeviceObject->DeviceExtension;

    IrpqEndAll(&dev->Waiting, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return FdoComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI LineAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PFDO f;
    PDEVICE dev;
    NTSTATUS status = FdoCreate(Driver, Pdo, sizeof(DEVICE), DO_BUFFERED_IO, &LineInterface, &f);

    if (!NT_SUCCESS(status))
        return status;
    dev = CONTAINING_RECORD(f, DEVICE, Fdo);
    KeInitializeDpc(&dev->Dpc, LineDpc, dev);
    IrpqInit(&dev->Waiting, f);
    f->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI LineUnload(PDRIVER_OBJECT Driver) { UNREFERENCED_PARAMETER(Driver); }

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FdoTable(Driver);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = LineControl;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = LineCleanup;
    Driver->DriverExtension->AddDevice = LineAddDevice;
    Driver->DriverUnload = LineUnload;
    return STATUS_SUCCESS;
}

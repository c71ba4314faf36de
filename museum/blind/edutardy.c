/*
 * edutardy: lets programs compute factorials on QEMU's edu card, one after another, by its interrupt. A computation
 * that takes more than some seconds is given up.
 *
 * The bug: the DPC of the card's interrupt takes it for granted that there still is a current request; after one was
 * given up, the interrupt that comes late finds none, and a null pointer is followed.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: wild-read
 * Needs: device
 */
#include "../include/edu_serial.h"

#define IOCTL_TARDY_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA01, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define SECONDS 3

static const GUID TardyClass = {0x6c1e2a06, 0x51b0, 0x4c11, {0x9a, 0x01, 0x33, 0x10, 0x5e, 0x20, 0x7b, 0x06}};

static BOOLEAN TardyBegin(PFRAME f, PIRP irp)
{
    PEDU x = CONTAINING_RECORD(f, EDU, F);
    NTSTATUS status = STATUS_SUCCESS;
    ULONG card;
    KIRQL irql;

    KeAcquireSpinLock(&x->Q.Lock, &irql);
    card = EDU_READ(x, EDU_STATUS);
    if (card == ALL_ONES) {
        status = STATUS_NO_SUCH_DEVICE;
    } else if (card & EDU_COMPUTING) {      /* at one that was given up */
        status = STATUS_DEVICE_BUSY;
    } else {
        EDU_WRITE(x, EDU_STATUS, EDU_IRQFACT);
        EDU_WRITE(x, EDU_FACTORIAL, *(PULONG)irp->AssociatedIrp.SystemBuffer);
        x->Seconds = SECONDS;
        x->Q.Current = irp;
    }
    KeReleaseSpinLock(&x->Q.Lock, irql);
    if (NT_SUCCESS(status))
        return TRUE;
    SerqAnswer(&x->Q, irp, status, 0);
    return FALSE;
}

static VOID NTAPI TardyDpc(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    PEDU x = context;
    PIRP irp = NULL;
    ULONG result = 0;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&x->Q.Lock);
    if (EDU_READ(x, EDU_STATUS) & EDU_COMPUTING) {      /* an interrupt of the one before; or no card */
        KeReleaseSpinLockFromDpcLevel(&x->Q.Lock);
        return;
    }
    irp = SerqClaim(&x->Q);
    result = EDU_READ(x, EDU_FACTORIAL);
    KeReleaseSpinLockFromDpcLevel(&x->Q.Lock);
#ifdef FIXED
    if (irp == NULL)
        return;
#endif
    *(PULONG)irp->AssociatedIrp.SystemBuffer = result;
    SerqFinish(&x->Q, irp, STATUS_SUCCESS, sizeof result);
}

static NTSTATUS HwStart(PDEVICE_OBJECT dev, PFRAME_RES res)
{
    PEDU x = dev->DeviceExtension;
    NTSTATUS status = EduStart(x, res);

    if (NT_SUCCESS(status))
        SerqOpen(&x->Q);
    return status;
}

static VOID HwRelease(PDEVICE_OBJECT dev, BOOLEAN touchable)
{
    EduRelease(dev->DeviceExtension, touchable);
}

static NTSTATUS NTAPI TardyControl(PDEVICE_OBJECT dev, PIRP irp)
{
    PEDU x = dev->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS status = IoAcquireRemoveLock(&x->F.Remove, irp);

    if (!NT_SUCCESS(status))
        return FrameComplete(irp, status, 0);
    if (stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_TARDY_FACTORIAL)
        status = STATUS_INVALID_DEVICE_REQUEST;
    else if (stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) ||
             stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        status = STATUS_BUFFER_TOO_SMALL;
    else
        return SerqSubmit(&x->Q, irp);
    SerqAnswer(&x->Q, irp, status, 0);
    return status;
}

static NTSTATUS NTAPI TardyAdd(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo)
{
    PDEVICE_OBJECT dev;
    NTSTATUS status = EduAdd(driver, pdo, &TardyClass, sizeof(EDU), TardyBegin, TardyDpc, &dev);

    if (NT_SUCCESS(status))
        dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return status;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    FrameEntry(driver, TardyAdd);
    driver->MajorFunction[IRP_MJ_CLEANUP] = EduCleanup;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = TardyControl;
    return STATUS_SUCCESS;
}

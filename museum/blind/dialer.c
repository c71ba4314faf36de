/*
 * dialer.sys: dials numbers, one after the other: a packet-based driver (IoStartPacket, StartIo), whose "line" is a timer.
 *
 * A write is a number, of 1 to 32 digits; it is done when it has been dialed, 5 ms for each digit. Numbers that wait, and the one
 * that is being dialed, can be cancelled.
 *
 * The bug: OnCancel stops the timer of the number that is being dialed, and takes no notice of what KeCancelTimer says. If the
 * timer has expired already, or has not been set yet, LineDone or StartDialing still has that request to do: it is completed
 * twice, or the next one is completed in its place.
 *
 * How it shows: the request that is being dialed is cancelled just when its time is over, or just before its timer is set.
 *
 * Device: none
 * Rule: use-after-free, double-completion, wild-write, not-an-irp
 * Needs: ioctl, cancel, schedule
 */
#include <ddk/wdm.h>

typedef struct _LINE {
    KTIMER timer;
    KDPC dpc;
    PDEVICE_OBJECT self;
    LONG dialed;
} LINE, *PLINE;

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DevName = RTL_CONSTANT_STRING(L"\\Device\\Dialer");
static UNICODE_STRING DosName = RTL_CONSTANT_STRING(L"\\DosDevices\\Dialer");

static VOID Complete(PIRP irp, NTSTATUS status, ULONG_PTR information)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = information;
    IoCompleteRequest(irp, NT_SUCCESS(status) ? IO_SERIAL_INCREMENT : IO_NO_INCREMENT);
}

/*
 * The cancel spin lock orders three things: who is current, whether a request's cancel routine is set, and what the routines do
 * with the timer. A request that is current has either not been started (StartDialing sees that it is cancelled), or its timer is
 * set, or it has expired (LineDone completes it).
 */
static VOID NTAPI OnCancel(PDEVICE_OBJECT device, PIRP irp)
{
    PLINE line = device->DeviceExtension;
    KIRQL irql;

    if (irp == device->CurrentIrp) {
#ifdef FIXED
        if (!KeCancelTimer(&line->timer)) {
            IoReleaseCancelSpinLock(irp->CancelIrql);
            return; /* StartDialing or LineDone has it */
        }
#else
        KeCancelTimer(&line->timer);
#endif
        IoReleaseCancelSpinLock(irp->CancelIrql);
        KeRaiseIrql(DISPATCH_LEVEL, &irql);
        IoStartNextPacket(device, TRUE);
        KeLowerIrql(irql);
    } else {
        KeRemoveEntryDeviceQueue(&device->DeviceQueue, &irp->Tail.Overlay.DeviceQueueEntry);
        IoReleaseCancelSpinLock(irp->CancelIrql);
    }
    Complete(irp, STATUS_CANCELLED, 0);
}

/* IRQL = DISPATCH_LEVEL. */
static VOID NTAPI StartDialing(PDEVICE_OBJECT device, PIRP irp)
{
    PLINE line = device->DeviceExtension;
    LARGE_INTEGER due;
    KIRQL irql;

    IoAcquireCancelSpinLock(&irql);
    if (irp->Cancel) {
        IoSetCancelRoutine(irp, NULL);
        IoReleaseCancelSpinLock(irql);
        IoStartNextPacket(device, TRUE);
        Complete(irp, STATUS_CANCELLED, 0);
        return;
    }
    due.QuadPart = -50000LL * IoGetCurrentIrpStackLocation(irp)->Parameters.Write.Length;
    KeSetTimer(&line->timer, due, &line->dpc);
    IoReleaseCancelSpinLock(irql);
}

static VOID NTAPI LineDone(PKDPC dpc, PVOID context, PVOID unused1, PVOID unused2)
{
    PLINE line = context;
    PDEVICE_OBJECT device = line->self;
    PIRP irp;
    KIRQL irql;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(unused1);
    UNREFERENCED_PARAMETER(unused2);
    IoAcquireCancelSpinLock(&irql);
    irp = device->CurrentIrp;
    IoSetCancelRoutine(irp, NULL);
    line->dialed++;
    IoReleaseCancelSpinLock(irql);
    IoStartNextPacket(device, TRUE);
    Complete(irp, STATUS_SUCCESS, IoGetCurrentIrpStackLocation(irp)->Parameters.Write.Length);
}

static NTSTATUS NTAPI DialWrite(PDEVICE_OBJECT device, PIRP irp)
{
    ULONG length = IoGetCurrentIrpStackLocation(irp)->Parameters.Write.Length, i;
    const UCHAR *digits = irp->AssociatedIrp.SystemBuffer;

    if (length == 0 || length > 32) {
        Complete(irp, STATUS_INVALID_PARAMETER, 0);
        return STATUS_INVALID_PARAMETER;
    }
    for (i = 0; i < length; i++) {
        if (digits[i] < '0' || digits[i] > '9') {
            Complete(irp, STATUS_INVALID_PARAMETER, 0);
            return STATUS_INVALID_PARAMETER;
        }
    }
    IoMarkIrpPending(irp);
    IoStartPacket(device, irp, NULL, OnCancel);
    return STATUS_PENDING;
}

/* How many numbers were dialed. */
static NTSTATUS NTAPI DialRead(PDEVICE_OBJECT device, PIRP irp)
{
    PLINE line = device->DeviceExtension;

    if (IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length < sizeof(LONG)) {
        Complete(irp, STATUS_BUFFER_TOO_SMALL, 0);
        return STATUS_BUFFER_TOO_SMALL;
    }
    RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &line->dialed, sizeof(LONG));
    Complete(irp, STATUS_SUCCESS, sizeof(LONG));
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DialFile(PDEVICE_OBJECT device, PIRP irp)
{
    UNREFERENCED_PARAMETER(device);
    Complete(irp, STATUS_SUCCESS, 0); /* at cleanup: what is still to be dialed ends by itself */
    return STATUS_SUCCESS;
}

static VOID NTAPI DialUnload(PDRIVER_OBJECT driver)
{
    PLINE line = driver->DeviceObject->DeviceExtension;

    IoDeleteSymbolicLink(&DosName);
    KeCancelTimer(&line->timer);
    KeFlushQueuedDpcs();
    IoDeleteDevice(driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    PDEVICE_OBJECT device;
    NTSTATUS status;
    PLINE line;

    UNREFERENCED_PARAMETER(path);
    driver->DriverStartIo = StartDialing;
    driver->DriverUnload = DialUnload;
    driver->MajorFunction[IRP_MJ_CREATE] = DialFile;
    driver->MajorFunction[IRP_MJ_CLEANUP] = DialFile;
    driver->MajorFunction[IRP_MJ_CLOSE] = DialFile;
    driver->MajorFunction[IRP_MJ_READ] = DialRead;
    driver->MajorFunction[IRP_MJ_WRITE] = DialWrite;
    status = IoCreateDevice(driver, sizeof(LINE), &DevName, FILE_DEVICE_MODEM, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    line = device->DeviceExtension;
    line->self = device;
    KeInitializeTimer(&line->timer);
    KeInitializeDpc(&line->dpc, LineDone, line);
    status = IoCreateSymbolicLink(&DosName, &DevName);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    device->Flags |= DO_BUFFERED_IO;
    return STATUS_SUCCESS;
}

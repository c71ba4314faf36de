/*
 * embosser: stands in for a name-plate embossing machine. Writes are lines of text; StartIo takes them one by one, the head needs 2 ms per
 * character, and a plate has room for 400 characters until the program asks for a new one.
 *
 * The bug: a line for which the plate has no more room is refused in StartIo, but the next packet is not started: every request behind it
 * waits for ever.
 *
 * Device: none
 * Rule: next-packet-not-started, irp-never-completed, stuck, request-timed-out
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>
#include "../include/gated_function.h"

#define LINK L"\\DosDevices\\Embosser"

#define IOCTL_EMBOSSER_NEW_PLATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x840, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_EMBOSSER_COLUMN    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x841, METHOD_BUFFERED, FILE_READ_ACCESS)

#define PLATE 400
#define LINE_MAX 256
#define MS_PER_CHARACTER 2

typedef struct {
    KTIMER Timer;
    KDPC Dpc;
    volatile LONG Column;       /* changed only between StartIo and the DPC of the current request */
} EMBOSSER;

static PDEVICE_OBJECT Control;

static void NTAPI CancelLine(PDEVICE_OBJECT Device, PIRP Irp)
{
    if (Device->CurrentIrp == Irp) {
        IoReleaseCancelSpinLock(Irp->CancelIrql);   /* StartIo is about to begin with it, and sees that it is cancelled */
        return;
    }
    KeRemoveEntryDeviceQueue(&Device->DeviceQueue, &Irp->Tail.Overlay.DeviceQueueEntry);
    IoReleaseCancelSpinLock(Irp->CancelIrql);
    Complete(Irp, STATUS_CANCELLED, 0);
}

static void NTAPI StartIo(PDEVICE_OBJECT Device, PIRP Irp)
{
    EMBOSSER *embosser = Device->DeviceExtension;
    PIO_STACK_LOCATION sp;
    LARGE_INTEGER due;
    LONG characters;
    KIRQL irql;

    IoAcquireCancelSpinLock(&irql);
    if (Irp != Device->CurrentIrp) {
        IoReleaseCancelSpinLock(irql);
        return;
    }
    IoSetCancelRoutine(Irp, NULL);
    if (Irp->Cancel) {
        IoReleaseCancelSpinLock(irql);
        IoStartNextPacket(Device, TRUE);
        Complete(Irp, STATUS_CANCELLED, 0);
        return;
    }
    IoReleaseCancelSpinLock(irql);

    sp = IoGetCurrentIrpStackLocation(Irp);
    if (sp->MajorFunction == IRP_MJ_WRITE) {
        characters = (LONG)sp->Parameters.Write.Length;
        if (embosser->Column + characters > PLATE) {
            Complete(Irp, STATUS_END_OF_MEDIA, 0);
#ifdef FIXED
            IoStartNextPacket(Device, TRUE);
#endif
            return;
        }
        due.QuadPart = -10000LL * MS_PER_CHARACTER * characters;
    } else {
        due.QuadPart = -10000LL * 50;           /* ejects the plate */
    }
    KeSetTimer(&embosser->Timer, due, &embosser->Dpc);
}

/* The head has come to the end of the line, or the new plate is in. */
static void NTAPI HeadDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PDEVICE_OBJECT device = Context;
    EMBOSSER *embosser = device->DeviceExtension;
    PIRP irp = device->CurrentIrp;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    ULONG_PTR information = 0;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    if (sp->MajorFunction == IRP_MJ_WRITE) {
        information = sp->Parameters.Write.Length;
        InterlockedExchangeAdd(&embosser->Column, (LONG)information);
    } else {
        InterlockedExchange(&embosser->Column, 0);
    }
    IoStartNextPacket(device, TRUE);
    Complete(irp, STATUS_SUCCESS, information);
}

static NTSTATUS NTAPI Write(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG length = sp->Parameters.Write.Length, i;
    UCHAR *text = Irp->AssociatedIrp.SystemBuffer;

    if (length == 0)
        return Complete(Irp, STATUS_SUCCESS, 0);
    if (length > LINE_MAX)
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    for (i = 0; i < length; i++)
        if (text[i] < ' ')
            text[i] = ' ';
    IoMarkIrpPending(Irp);
    IoStartPacket(Device, Irp, NULL, CancelLine);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI DeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    EMBOSSER *embosser = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_EMBOSSER_NEW_PLATE:
        IoMarkIrpPending(Irp);
        IoStartPacket(Device, Irp, NULL, CancelLine);
        return STATUS_PENDING;

    case IOCTL_EMBOSSER_COLUMN:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LONG))
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        *(LONG *)Irp->AssociatedIrp.SystemBuffer = InterlockedCompareExchange(&embosser->Column, 0, 0);
        return Complete(Irp, STATUS_SUCCESS, sizeof(LONG));
    }
    return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

/* The lines of this handle that have not begun; one that the head is at comes to its end by itself. */
static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PLIST_ENTRY head = &Device->DeviceQueue.DeviceListHead, e, next;
    LIST_ENTRY done;
    KIRQL irql;

    InitializeListHead(&done);
    IoAcquireCancelSpinLock(&irql);             /* all insertions and removals are made under it */
    for (e = head->Flink; e != head; e = next) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.DeviceQueueEntry.DeviceListEntry);

        next = e->Flink;
        if (IoGetCurrentIrpStackLocation(irp)->FileObject != file)
            continue;
        if (!IoSetCancelRoutine(irp, NULL))
            continue;                           /* its cancel routine waits for the lock */
        KeRemoveEntryDeviceQueue(&Device->DeviceQueue, &irp->Tail.Overlay.DeviceQueueEntry);
        InsertTailList(&done, &irp->Tail.Overlay.ListEntry);
    }
    IoReleaseCancelSpinLock(irql);
    while (!IsListEmpty(&done)) {
        e = RemoveHeadList(&done);
        Complete(CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry), STATUS_CANCELLED, 0);
    }
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static void NTAPI Unload(PDRIVER_OBJECT Driver)
{
    EMBOSSER *embosser = Control->DeviceExtension;

    UNREFERENCED_PARAMETER(Driver);
    KeCancelTimer(&embosser->Timer);
    KeFlushQueuedDpcs();
    ControlDelete(Control, LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    EMBOSSER *embosser;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = ControlCreate(Driver, sizeof(EMBOSSER), L"\\Device\\Embosser", LINK, &Control);
    if (!NT_SUCCESS(status))
        return status;
    Control->Flags |= DO_BUFFERED_IO;
    IoSetStartIoAttributes(Control, TRUE, FALSE);       /* StartIo may call IoStartNextPacket itself */
    embosser = Control->DeviceExtension;
    KeInitializeTimer(&embosser->Timer);
    KeInitializeDpc(&embosser->Dpc, HeadDpc, Control);
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchOk;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchOk;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    Driver->MajorFunction[IRP_MJ_WRITE] = Write;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DeviceControl;
    Driver->DriverStartIo = StartIo;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}

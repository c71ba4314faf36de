/*
 * Gate: threads wait at the gate (a pended IOCTL) till a thread opens it; the old way, with the cancel spin lock.
 *
 * The bug: the cancel routine completes the request first and releases the cancel spin lock after, taking the IRQL to go
 * back to from the request that may be freed already.
 *
 * Device: none
 * Rule: use-after-free
 * Needs: ioctl
 * Symptom: IRP read after free in GtCancel (0xD5/0x50 with special pool), wrong IRQL after a cancel (0x4A / 0xA), cancel lock held in completion.
 */
#include <ddk/wdm.h>

#define IOCTL_GATE_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C0, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_GATE_OPEN CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C1, METHOD_BUFFERED, FILE_WRITE_DATA)

/* All under the cancel spin lock. */
static LIST_ENTRY Waiters;
static ULONG Opened;

static NTSTATUS GtComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI GtCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return GtComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI GtClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return GtComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI GtCancel(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
#ifdef FIXED
    IoReleaseCancelSpinLock(Irp->CancelIrql);
    GtComplete(Irp, STATUS_CANCELLED, 0);
#else
    GtComplete(Irp, STATUS_CANCELLED, 0);
    IoReleaseCancelSpinLock(Irp->CancelIrql);
#endif
}

static NTSTATUS GtWait(PIRP Irp)
{
    KIRQL irql;

    IoAcquireCancelSpinLock(&irql);
    if (Irp->Cancel) {
        IoReleaseCancelSpinLock(irql);
        return GtComplete(Irp, STATUS_CANCELLED, 0);
    }
    IoMarkIrpPending(Irp);
    IoSetCancelRoutine(Irp, GtCancel);
    InsertTailList(&Waiters, &Irp->Tail.Overlay.ListEntry);
    IoReleaseCancelSpinLock(irql);
    return STATUS_PENDING;
}

/* Lets out those that wait through the given file, or all of them. */
static ULONG GtRelease(PFILE_OBJECT File, NTSTATUS Status)
{
    LIST_ENTRY out;
    PLIST_ENTRY entry, next;
    ULONG n = 0, opened;
    KIRQL irql;

    InitializeListHead(&out);
    IoAcquireCancelSpinLock(&irql);
    for (entry = Waiters.Flink; entry != &Waiters; entry = next) {
        PIRP irp = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);

        next = entry->Flink;
        if (File != NULL && IoGetCurrentIrpStackLocation(irp)->FileObject != File) {
            continue;
        }
        IoSetCancelRoutine(irp, NULL);
        RemoveEntryList(entry);
        InsertTailList(&out, entry);
        n++;
    }
    if (File == NULL) {
        Opened++;
    }
    opened = Opened;
    IoReleaseCancelSpinLock(irql);

    while (!IsListEmpty(&out)) {
        PIRP irp = CONTAINING_RECORD(RemoveHeadList(&out), IRP, Tail.Overlay.ListEntry);

        if (NT_SUCCESS(Status)) {
            *(PULONG)irp->AssociatedIrp.SystemBuffer = opened;
            GtComplete(irp, Status, sizeof(ULONG));
        } else {
            GtComplete(irp, Status, 0);
        }
    }
    return n;
}

static NTSTATUS NTAPI GtCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    GtRelease(IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return GtComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI GtControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);

    UNREFERENCED_PARAMETER(DeviceObject);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_GATE_WAIT:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
            return GtComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        return GtWait(Irp);
    case IOCTL_GATE_OPEN:
        GtRelease(NULL, STATUS_SUCCESS);
        return GtComplete(Irp, STATUS_SUCCESS, 0);
    default:
        return GtComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI GtUnload(PDRIVER_OBJECT DriverObject)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\Gate");

    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(DriverObject->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\Gate");
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\Gate");
    PDEVICE_OBJECT device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = IoCreateDevice(DriverObject, 0, &name, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    InitializeListHead(&Waiters);
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    DriverObject->DriverUnload = GtUnload;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = GtCreate;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = GtClose;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = GtCleanup;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = GtControl;
    device->Flags |= DO_BUFFERED_IO;
    return STATUS_SUCCESS;
}

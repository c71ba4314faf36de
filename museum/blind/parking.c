/*
 * parking: an attendant with tickets. A write brings a ticket of up to 32 bytes, a read takes the oldest
 * one or waits for it; the waiting reads have a cancel routine of the driver's own.
 *
 * The bug: a read that was cancelled before its cancel routine was set is queued all the same, and nothing will ever
 * cancel it.
 *
 * Device: none
 * Rule: cancellation-missed
 * Needs: cancel, schedule
 */
#include <ddk/wdm.h>

#define TICKETS 64u
#define TICKET_SIZE 32u

typedef struct _TICKET {
    ULONG Length;
    UCHAR Data[TICKET_SIZE];
} TICKET;

typedef struct _PARK {
    KSPIN_LOCK Lock;
    LIST_ENTRY Readers;             /* waiting reads; there are none while there are tickets */
    TICKET Tickets[TICKETS];
    ULONG First, Count;
} PARK, *PPARK;

static UNICODE_STRING ParkDevice = RTL_CONSTANT_STRING(L"\\Device\\Parking");
static UNICODE_STRING ParkLink = RTL_CONSTANT_STRING(L"\\DosDevices\\Parking");

static NTSTATUS ParkDone(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, NT_SUCCESS(Status) ? IO_NAMED_PIPE_INCREMENT : IO_NO_INCREMENT);
    return Status;
}

static VOID NTAPI ParkCancel(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPARK park = DeviceObject->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&park->Lock, &irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&park->Lock, irql);
    ParkDone(Irp, STATUS_CANCELLED, 0);
}

/* Lock held. The oldest waiting read (of the file, if there is one) that is not being cancelled. */
static PIRP ParkTakeReader(PPARK Park, PFILE_OBJECT File)
{
    PLIST_ENTRY entry, next;

    for (entry = Park->Readers.Flink; entry != &Park->Readers; entry = next) {
        PIRP irp = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);
        next = entry->Flink;
        if (File && IoGetCurrentIrpStackLocation(irp)->FileObject != File)
            continue;
        RemoveEntryList(entry);
        if (IoSetCancelRoutine(irp, NULL))
            return irp;
        InitializeListHead(entry);      /* the cancel routine takes it out (of nothing) and completes it */
    }
    return NULL;
}

static NTSTATUS NTAPI ParkRead(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPARK park = DeviceObject->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length;
    TICKET *ticket;
    KIRQL irql;

    if (length < TICKET_SIZE)
        return ParkDone(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    KeAcquireSpinLock(&park->Lock, &irql);
    if (park->Count) {
        ticket = &park->Tickets[park->First];
        length = ticket->Length;
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, ticket->Data, length);
        park->First = (park->First + 1) % TICKETS;
        park->Count--;
        KeReleaseSpinLock(&park->Lock, irql);
        return ParkDone(Irp, STATUS_SUCCESS, length);
    }
    IoSetCancelRoutine(Irp, ParkCancel);
#ifdef FIXED
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL)) {
        KeReleaseSpinLock(&park->Lock, irql);
        return ParkDone(Irp, STATUS_CANCELLED, 0);
    }
#endif
    IoMarkIrpPending(Irp);
    InsertTailList(&park->Readers, &Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&park->Lock, irql);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI ParkWrite(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPARK park = DeviceObject->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    TICKET *ticket;
    PIRP reader;
    KIRQL irql;

    if (length == 0 || length > TICKET_SIZE)
        return ParkDone(Irp, STATUS_INVALID_PARAMETER, 0);
    KeAcquireSpinLock(&park->Lock, &irql);
    reader = ParkTakeReader(park, NULL);
    if (!reader) {
        if (park->Count == TICKETS) {
            KeReleaseSpinLock(&park->Lock, irql);
            return ParkDone(Irp, STATUS_DEVICE_BUSY, 0);
        }
        ticket = &park->Tickets[(park->First + park->Count++) % TICKETS];
        ticket->Length = length;
        RtlCopyMemory(ticket->Data, Irp->AssociatedIrp.SystemBuffer, length);
    }
    KeReleaseSpinLock(&park->Lock, irql);
    if (reader) {
        RtlCopyMemory(reader->AssociatedIrp.SystemBuffer, Irp->AssociatedIrp.SystemBuffer, length);
        ParkDone(reader, STATUS_SUCCESS, length);
    }
    return ParkDone(Irp, STATUS_SUCCESS, length);
}

static NTSTATUS NTAPI ParkCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPARK park = DeviceObject->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PIRP reader;
    KIRQL irql;

    for (;;) {
        KeAcquireSpinLock(&park->Lock, &irql);
        reader = ParkTakeReader(park, file);
        KeReleaseSpinLock(&park->Lock, irql);
        if (!reader)
            break;
        ParkDone(reader, STATUS_CANCELLED, 0);
    }
    return ParkDone(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI ParkOpenClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return ParkDone(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI ParkUnload(PDRIVER_OBJECT DriverObject)
{
    IoDeleteSymbolicLink(&ParkLink);
    IoDeleteDevice(DriverObject->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    PPARK park;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = IoCreateDevice(DriverObject, sizeof(PARK), &ParkDevice, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    park = device->DeviceExtension;
    RtlZeroMemory(park, sizeof(*park));
    KeInitializeSpinLock(&park->Lock);
    InitializeListHead(&park->Readers);
    device->Flags |= DO_BUFFERED_IO;
    status = IoCreateSymbolicLink(&ParkLink, &ParkDevice);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    DriverObject->MajorFunction[IRP_MJ_CREATE] = ParkOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = ParkOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = ParkCleanup;
    DriverObject->MajorFunction[IRP_MJ_READ] = ParkRead;
    DriverObject->MajorFunction[IRP_MJ_WRITE] = ParkWrite;
    DriverObject->DriverUnload = ParkUnload;
    return STATUS_SUCCESS;
}

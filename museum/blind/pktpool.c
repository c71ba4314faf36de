/*
 * Packet loop: WriteFile queues packets of up to 1500 bytes, ReadFile gets them back; packets come from a lookaside list.
 *
 * The bug: unload frees the queued packets and the device but not the lookaside list, which stays in the system's list
 * of lookaside lists and keeps its cached blocks.
 *
 * Device: none
 * Rule: freed-while-in-use
 * Needs: nothing
 * Symptom: leaked pool; the system's lookaside list runs through freed memory; Driver Verifier 0xC4 (lookaside list in freed pool) / 0xCE.
 */
#include <ddk/wdm.h>

#define PKT_TAG 'tkPL'
#define PKT_MAX 1500
#define PKT_QUEUE 256

typedef struct _PACKET {
    LIST_ENTRY Link;
    USHORT Length;
    UCHAR Data[PKT_MAX];
} PACKET, *PPACKET;

typedef struct _LOOP {
    NPAGED_LOOKASIDE_LIST Pool;
    KSPIN_LOCK Lock;
    LIST_ENTRY Queue;
    ULONG Queued;
    ULONG Dropped;
} LOOP, *PLOOP;

static NTSTATUS PpComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI PpCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return PpComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI PpClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return PpComplete(Irp, STATUS_SUCCESS, 0);
}

static PPACKET PpDequeue(PLOOP Loop)
{
    PLIST_ENTRY entry = NULL;
    KIRQL irql;

    KeAcquireSpinLock(&Loop->Lock, &irql);
    if (!IsListEmpty(&Loop->Queue)) {
        entry = RemoveHeadList(&Loop->Queue);
        Loop->Queued--;
    }
    KeReleaseSpinLock(&Loop->Lock, irql);
    return entry != NULL ? CONTAINING_RECORD(entry, PACKET, Link) : NULL;
}

static NTSTATUS NTAPI PpWrite(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PLOOP loop = DeviceObject->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    BOOLEAN queued = FALSE;
    PPACKET packet;
    PVOID data;
    KIRQL irql;

    if (length == 0 || length > PKT_MAX) {
        return PpComplete(Irp, STATUS_INVALID_BUFFER_SIZE, 0);
    }
    data = MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority);
    if (data == NULL) {
        return PpComplete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    packet = ExAllocateFromNPagedLookasideList(&loop->Pool);
    if (packet == NULL) {
        return PpComplete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    packet->Length = (USHORT)length;
    RtlCopyMemory(packet->Data, data, length);
    KeAcquireSpinLock(&loop->Lock, &irql);
    if (loop->Queued < PKT_QUEUE) {
        InsertTailList(&loop->Queue, &packet->Link);
        loop->Queued++;
        queued = TRUE;
    } else {
        loop->Dropped++;
    }
    KeReleaseSpinLock(&loop->Lock, irql);
    if (!queued) {
        ExFreeToNPagedLookasideList(&loop->Pool, packet);
    }
    return PpComplete(Irp, STATUS_SUCCESS, length);     /* like a wire: a lost packet is no error */
}

static NTSTATUS NTAPI PpRead(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PLOOP loop = DeviceObject->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length;
    PPACKET packet;
    PVOID data;

    if (length == 0) {
        return PpComplete(Irp, STATUS_SUCCESS, 0);
    }
    data = MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority);
    if (data == NULL) {
        return PpComplete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    packet = PpDequeue(loop);
    if (packet == NULL) {
        return PpComplete(Irp, STATUS_NO_MORE_ENTRIES, 0);
    }
    if (length > packet->Length) {
        length = packet->Length;
    }
    RtlCopyMemory(data, packet->Data, length);
    ExFreeToNPagedLookasideList(&loop->Pool, packet);
    return PpComplete(Irp, STATUS_SUCCESS, length);
}

static VOID PpDrain(PLOOP Loop)
{
    PPACKET packet;

    while ((packet = PpDequeue(Loop)) != NULL) {
        ExFreeToNPagedLookasideList(&Loop->Pool, packet);
    }
}

static NTSTATUS NTAPI PpFlush(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PpDrain(DeviceObject->DeviceExtension);
    return PpComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI PpUnload(PDRIVER_OBJECT DriverObject)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\PktPool");

    PpDrain(DriverObject->DeviceObject->DeviceExtension);
#ifdef FIXED
    ExDeleteNPagedLookasideList(&((PLOOP)DriverObject->DeviceObject->DeviceExtension)->Pool);
#endif
    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(DriverObject->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\PktPool");
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\PktPool");
    PDEVICE_OBJECT device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = IoCreateDevice(DriverObject, sizeof(LOOP), &name, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    PLOOP loop = device->DeviceExtension;
    KeInitializeSpinLock(&loop->Lock);
    InitializeListHead(&loop->Queue);
    ExInitializeNPagedLookasideList(&loop->Pool, NULL, NULL, 0, sizeof(PACKET), PKT_TAG, 0);
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        ExDeleteNPagedLookasideList(&loop->Pool);
        IoDeleteDevice(device);
        return status;
    }
    DriverObject->DriverUnload = PpUnload;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = PpCreate;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = PpClose;
    DriverObject->MajorFunction[IRP_MJ_READ] = PpRead;
    DriverObject->MajorFunction[IRP_MJ_WRITE] = PpWrite;
    DriverObject->MajorFunction[IRP_MJ_FLUSH_BUFFERS] = PpFlush;
    device->Flags |= DO_DIRECT_IO;
    return STATUS_SUCCESS;
}

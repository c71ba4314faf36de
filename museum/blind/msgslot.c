/*
 * Message slot: WriteFile appends a text line to a queue, ReadFile takes the oldest one, an IOCTL searches them.
 *
 * The bug: each message is kept NUL-terminated but room is taken only for the text itself, so the terminator
 * goes one byte behind the pool block; needs a message whose length makes the block end exactly at the text.
 *
 * Device: none
 * Rule: pool-overrun
 * Needs: ioctl
 * Symptom: BAD_POOL_HEADER (0x19) / with special pool DRIVER_PAGE_FAULT_BEYOND_END_OF_ALLOCATION (0xD6) in the write path.
 */
#include <ddk/wdm.h>

#define TAG             'lSsM'
#define MAX_TEXT        2048
#define MAX_MESSAGES    64

#define IOCTL_MSGSLOT_FIND  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x810, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_MSGSLOT_PURGE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x811, METHOD_BUFFERED, FILE_WRITE_DATA)

typedef struct _MESSAGE {
    LIST_ENTRY Link;
    ULONG Length;
    CHAR Text[1];           /* Length characters and a NUL */
} MESSAGE, *PMESSAGE;

typedef struct _DEVICE_EXTENSION {
    KSPIN_LOCK Lock;
    LIST_ENTRY Messages;
    ULONG Count;
} DEVICE_EXTENSION, *PDEVICE_EXTENSION;

static NTSTATUS MsComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI MsCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return MsComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI MsClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return MsComplete(Irp, STATUS_SUCCESS, 0);
}

static PMESSAGE MsTake(PDEVICE_EXTENSION Ext)
{
    PMESSAGE msg = NULL;
    KIRQL irql;

    KeAcquireSpinLock(&Ext->Lock, &irql);
    if (!IsListEmpty(&Ext->Messages)) {
        msg = CONTAINING_RECORD(RemoveHeadList(&Ext->Messages), MESSAGE, Link);
        Ext->Count--;
    }
    KeReleaseSpinLock(&Ext->Lock, irql);
    return msg;
}

static VOID MsPurge(PDEVICE_EXTENSION Ext)
{
    PMESSAGE msg;

    while ((msg = MsTake(Ext)) != NULL) {
        ExFreePoolWithTag(msg, TAG);
    }
}

static NTSTATUS NTAPI MsWrite(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDEVICE_EXTENSION ext = DeviceObject->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    PMESSAGE msg;
    KIRQL irql;

    if (length == 0) {
        return MsComplete(Irp, STATUS_SUCCESS, 0);
    }
    if (length > MAX_TEXT) {
        return MsComplete(Irp, STATUS_INVALID_BUFFER_SIZE, 0);
    }
#ifdef FIXED
    msg = ExAllocatePoolWithTag(NonPagedPool, FIELD_OFFSET(MESSAGE, Text) + length + 1, TAG);
#else
    msg = ExAllocatePoolWithTag(NonPagedPool, FIELD_OFFSET(MESSAGE, Text) + length, TAG);
#endif
    if (msg == NULL) {
        return MsComplete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    msg->Length = length;
    RtlCopyMemory(msg->Text, Irp->AssociatedIrp.SystemBuffer, length);
    msg->Text[length] = '\0';

    KeAcquireSpinLock(&ext->Lock, &irql);
    if (ext->Count < MAX_MESSAGES) {
        InsertTailList(&ext->Messages, &msg->Link);
        ext->Count++;
        msg = NULL;
    }
    KeReleaseSpinLock(&ext->Lock, irql);
    if (msg != NULL) {
        ExFreePoolWithTag(msg, TAG);
        return MsComplete(Irp, STATUS_DEVICE_BUSY, 0);
    }
    return MsComplete(Irp, STATUS_SUCCESS, length);
}

static NTSTATUS NTAPI MsRead(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length;
    NTSTATUS status = STATUS_SUCCESS;
    PMESSAGE msg;

    if (length == 0) {
        return MsComplete(Irp, STATUS_SUCCESS, 0);
    }
    msg = MsTake(DeviceObject->DeviceExtension);
    if (msg == NULL) {
        return MsComplete(Irp, STATUS_NO_MORE_ENTRIES, 0);
    }
    if (length > msg->Length) {
        length = msg->Length;
    } else if (length < msg->Length) {
        status = STATUS_BUFFER_OVERFLOW;        /* a warning: the data is given too */
    }
    RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, msg->Text, length);
    ExFreePoolWithTag(msg, TAG);
    return MsComplete(Irp, status, length);
}

/* Is there a message that starts with this character string? Gives its place in the queue. */
static NTSTATUS MsFind(PDEVICE_EXTENSION Ext, PIRP Irp, ULONG InLength, ULONG OutLength)
{
    PCHAR want = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = STATUS_NOT_FOUND;
    ULONG index = 0, i;
    PLIST_ENTRY entry;
    KIRQL irql;

    if (InLength == 0 || OutLength < sizeof(ULONG)) {
        return MsComplete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    KeAcquireSpinLock(&Ext->Lock, &irql);
    for (entry = Ext->Messages.Flink; entry != &Ext->Messages; entry = entry->Flink, index++) {
        PMESSAGE msg = CONTAINING_RECORD(entry, MESSAGE, Link);

        for (i = 0; i < InLength && msg->Text[i] != '\0' && msg->Text[i] == want[i]; i++) {
        }
        if (i == InLength) {
            status = STATUS_SUCCESS;
            break;
        }
    }
    KeReleaseSpinLock(&Ext->Lock, irql);
    if (!NT_SUCCESS(status)) {
        return MsComplete(Irp, status, 0);
    }
    *(PULONG)Irp->AssociatedIrp.SystemBuffer = index;
    return MsComplete(Irp, STATUS_SUCCESS, sizeof(ULONG));
}

static NTSTATUS NTAPI MsControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDEVICE_EXTENSION ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_MSGSLOT_FIND:
        return MsFind(ext, Irp, sp->Parameters.DeviceIoControl.InputBufferLength,
                      sp->Parameters.DeviceIoControl.OutputBufferLength);
    case IOCTL_MSGSLOT_PURGE:
        MsPurge(ext);
        return MsComplete(Irp, STATUS_SUCCESS, 0);
    default:
        return MsComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI MsUnload(PDRIVER_OBJECT DriverObject)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\MsgSlot");

    MsPurge(DriverObject->DeviceObject->DeviceExtension);
    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(DriverObject->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\MsgSlot");
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\MsgSlot");
    PDEVICE_OBJECT device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = IoCreateDevice(DriverObject, sizeof(DEVICE_EXTENSION), &name, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    KeInitializeSpinLock(&((PDEVICE_EXTENSION)device->DeviceExtension)->Lock);
    InitializeListHead(&((PDEVICE_EXTENSION)device->DeviceExtension)->Messages);
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    DriverObject->DriverUnload = MsUnload;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = MsCreate;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = MsClose;
    DriverObject->MajorFunction[IRP_MJ_READ] = MsRead;
    DriverObject->MajorFunction[IRP_MJ_WRITE] = MsWrite;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = MsControl;
    device->Flags |= DO_BUFFERED_IO;
    return STATUS_SUCCESS;
}

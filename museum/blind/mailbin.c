/*
 * mailbin - a mail slot between processes. WriteFile drops a message of up to 512 bytes, ReadFile takes
 * the oldest one or waits until there is one. IOCTLs tell how many messages wait and throw them away.
 *
 * The bug: a reader is taken though its cancel routine runs already.
 *
 * Device: none
 * Rule: use-after-free, double-completion
 * Needs: cancel, schedule
 */
#include <ddk/wdm.h>

#define TAG 'bliM'
#define MAX_MESSAGE 512
#define MAX_MESSAGES 64
#define IOCTL_MAILBIN_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_MAILBIN_FLUSH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct _MESSAGE {
	LIST_ENTRY Link;
	ULONG Length;
	UCHAR Data[];
} MESSAGE;

typedef struct _EXT {
	KSPIN_LOCK Lock;
	LIST_ENTRY Messages;
	LIST_ENTRY Readers;
	ULONG Count;
} EXT;

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
	Irp->IoStatus.Status = Status;
	Irp->IoStatus.Information = Information;
	IoCompleteRequest(Irp, IO_NO_INCREMENT);
	return Status;
}

static VOID NTAPI ReaderCancelled(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	KIRQL irql;

	IoReleaseCancelSpinLock(Irp->CancelIrql);
	KeAcquireSpinLock(&ext->Lock, &irql);
	RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
	KeReleaseSpinLock(&ext->Lock, irql);
	Finish(Irp, STATUS_CANCELLED, 0);
}

/* The lock is held: the reader that has waited longest, no longer cancellable, or NULL. */
static PIRP TakeReader(EXT *ext)
{
	while (!IsListEmpty(&ext->Readers)) {
		PLIST_ENTRY entry = RemoveHeadList(&ext->Readers);
		PIRP irp = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);
#ifdef FIXED
		if (IoSetCancelRoutine(irp, NULL) == NULL) {
			InitializeListHead(&irp->Tail.Overlay.ListEntry);
			continue;
		}
#else
		IoSetCancelRoutine(irp, NULL);
#endif
		return irp;
	}
	return NULL;
}

/* Copies a message to a read request and completes it; frees the message. */
static NTSTATUS Deliver(MESSAGE *m, PIRP Irp)
{
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
	ULONG n = min(m->Length, sp->Parameters.Read.Length);
	NTSTATUS status = n < m->Length ? STATUS_BUFFER_OVERFLOW : STATUS_SUCCESS;

	RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, m->Data, n);
	ExFreePoolWithTag(m, TAG);
	return Finish(Irp, status, n);
}

static NTSTATUS NTAPI OnRead(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
	MESSAGE *m = NULL;
	KIRQL irql;

	if (sp->Parameters.Read.Length == 0)
		return Finish(Irp, STATUS_SUCCESS, 0);

	KeAcquireSpinLock(&ext->Lock, &irql);
	if (!IsListEmpty(&ext->Messages)) {
		m = CONTAINING_RECORD(RemoveHeadList(&ext->Messages), MESSAGE, Link);
		ext->Count--;
	} else {
		IoMarkIrpPending(Irp);
		IoSetCancelRoutine(Irp, ReaderCancelled);
		if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
			KeReleaseSpinLock(&ext->Lock, irql);
			Finish(Irp, STATUS_CANCELLED, 0);
			return STATUS_PENDING;
		}
		InsertTailList(&ext->Readers, &Irp->Tail.Overlay.ListEntry);
	}
	KeReleaseSpinLock(&ext->Lock, irql);
	if (m != NULL)
		return Deliver(m, Irp);
	return STATUS_PENDING;
}

static NTSTATUS NTAPI OnWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
	ULONG length = sp->Parameters.Write.Length;
	MESSAGE *m;
	PIRP reader;
	NTSTATUS status = STATUS_SUCCESS;
	KIRQL irql;

	if (length == 0 || length > MAX_MESSAGE)
		return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
	m = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(MESSAGE) + length, TAG);
	if (m == NULL)
		return Finish(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
	m->Length = length;
	RtlCopyMemory(m->Data, Irp->AssociatedIrp.SystemBuffer, length);

	KeAcquireSpinLock(&ext->Lock, &irql);
	reader = TakeReader(ext);
	if (reader == NULL) {
		if (ext->Count < MAX_MESSAGES) {
			InsertTailList(&ext->Messages, &m->Link);
			ext->Count++;
			m = NULL;
		} else {
			status = STATUS_DEVICE_BUSY;
		}
	}
	KeReleaseSpinLock(&ext->Lock, irql);

	if (reader != NULL)
		Deliver(m, reader);
	else if (m != NULL)
		ExFreePoolWithTag(m, TAG);
	return Finish(Irp, status, NT_SUCCESS(status) ? length : 0);
}

static VOID Flush(EXT *ext)
{
	LIST_ENTRY list;
	KIRQL irql;

	InitializeListHead(&list);
	KeAcquireSpinLock(&ext->Lock, &irql);
	while (!IsListEmpty(&ext->Messages))
		InsertTailList(&list, RemoveHeadList(&ext->Messages));
	ext->Count = 0;
	KeReleaseSpinLock(&ext->Lock, irql);
	while (!IsListEmpty(&list))
		ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&list), MESSAGE, Link), TAG);
}

static NTSTATUS NTAPI OnControl(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
	KIRQL irql;

	switch (sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_MAILBIN_COUNT:
		if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
			return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
		KeAcquireSpinLock(&ext->Lock, &irql);
		*(ULONG *)Irp->AssociatedIrp.SystemBuffer = ext->Count;
		KeReleaseSpinLock(&ext->Lock, irql);
		return Finish(Irp, STATUS_SUCCESS, sizeof(ULONG));
	case IOCTL_MAILBIN_FLUSH:
		Flush(ext);
		return Finish(Irp, STATUS_SUCCESS, 0);
	default:
		return Finish(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
	}
}

static NTSTATUS NTAPI OnCreateClose(PDEVICE_OBJECT Device, PIRP Irp)
{
	UNREFERENCED_PARAMETER(Device);
	return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI OnCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
	LIST_ENTRY list;
	PLIST_ENTRY entry, next;
	KIRQL irql;

	InitializeListHead(&list);
	KeAcquireSpinLock(&ext->Lock, &irql);
	for (entry = ext->Readers.Flink; entry != &ext->Readers; entry = next) {
		PIRP irp = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);

		next = entry->Flink;
		if (IoGetCurrentIrpStackLocation(irp)->FileObject != file || IoSetCancelRoutine(irp, NULL) == NULL)
			continue;
		RemoveEntryList(entry);
		InsertTailList(&list, entry);
	}
	KeReleaseSpinLock(&ext->Lock, irql);
	while (!IsListEmpty(&list))
		Finish(CONTAINING_RECORD(RemoveHeadList(&list), IRP, Tail.Overlay.ListEntry), STATUS_CANCELLED, 0);
	return Finish(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI OnUnload(PDRIVER_OBJECT Driver)
{
	UNICODE_STRING link;

	RtlInitUnicodeString(&link, L"\\DosDevices\\Mailbin");
	IoDeleteSymbolicLink(&link);
	Flush(Driver->DeviceObject->DeviceExtension);
	IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
	UNICODE_STRING name, link;
	PDEVICE_OBJECT device;
	EXT *ext;
	NTSTATUS status;

	UNREFERENCED_PARAMETER(RegistryPath);
	Driver->MajorFunction[IRP_MJ_CREATE] = OnCreateClose;
	Driver->MajorFunction[IRP_MJ_CLOSE] = OnCreateClose;
	Driver->MajorFunction[IRP_MJ_CLEANUP] = OnCleanup;
	Driver->MajorFunction[IRP_MJ_READ] = OnRead;
	Driver->MajorFunction[IRP_MJ_WRITE] = OnWrite;
	Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = OnControl;
	Driver->DriverUnload = OnUnload;

	RtlInitUnicodeString(&name, L"\\Device\\Mailbin");
	RtlInitUnicodeString(&link, L"\\DosDevices\\Mailbin");
	status = IoCreateDevice(Driver, sizeof(EXT), &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
	if (!NT_SUCCESS(status))
		return status;
	ext = device->DeviceExtension;
	KeInitializeSpinLock(&ext->Lock);
	InitializeListHead(&ext->Messages);
	InitializeListHead(&ext->Readers);
	ext->Count = 0;
	device->Flags |= DO_BUFFERED_IO;
	status = IoCreateSymbolicLink(&link, &name);
	if (!NT_SUCCESS(status)) {
		IoDeleteDevice(device);
		return status;
	}
	device->Flags &= ~DO_DEVICE_INITIALIZING;
	return STATUS_SUCCESS;
}

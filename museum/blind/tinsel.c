/*
 * tinsel: a notice board. A program hangs a notice up, others read it; a reader may leave an event with the driver, which is set
 * whenever a new notice is there. One event for each open handle; it is given back with DETACH or when the handle is closed.
 *
 * The bug: the event's handle is looked up without the type of object that it must be, so the handle of a file (or of anything else)
 * is taken, and KeSetEvent works on an object that is no event.
 *
 * Device: none
 * Rule: object-of-another-kind, object-not-initialized, wild-write
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/stall_frame.h"

#define NAME L"\\Device\\Tinsel"
#define LINK L"\\DosDevices\\Tinsel"
#define TAG UU_TAG('T', 'n', 's', 'l')

#define IOCTL_ATTACH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x820, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_DETACH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_POST   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x822, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_FETCH  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x823, METHOD_BUFFERED, FILE_READ_ACCESS)

#define NOTICE 240

typedef struct _READER {
	LIST_ENTRY Link;
	PKEVENT Event;                  /* under the board's lock */
} READER, *PREADER;

typedef struct _BOARD {
	KSPIN_LOCK Lock;
	LIST_ENTRY Readers;
	ULONG Length;
	UCHAR Text[NOTICE];
} BOARD, *PBOARD;

DRIVER_INITIALIZE DriverEntry;

/* Puts an event (or none) into the reader's place, and gives the one before back. */
static VOID Exchange(PBOARD Board, PREADER Reader, PKEVENT Event)
{
	PKEVENT before;
	KIRQL irql;

	KeAcquireSpinLock(&Board->Lock, &irql);
	before = Reader->Event;
	Reader->Event = Event;
	KeReleaseSpinLock(&Board->Lock, irql);
	if (before != NULL)
		ObDereferenceObject(before);
}

static NTSTATUS Attach(PBOARD Board, PREADER Reader, HANDLE Handle, KPROCESSOR_MODE Mode)
{
	PVOID object;
	NTSTATUS status;

	if (Handle == NULL)
		return STATUS_INVALID_HANDLE;
#ifndef FIXED
	status = ObReferenceObjectByHandle(Handle, EVENT_MODIFY_STATE, NULL, Mode, &object, NULL);
#else
	status = ObReferenceObjectByHandle(Handle, EVENT_MODIFY_STATE, *ExEventObjectType, Mode, &object, NULL);
#endif
	if (!NT_SUCCESS(status))
		return status;
	Exchange(Board, Reader, object);
	return STATUS_SUCCESS;
}

static VOID Post(PBOARD Board, const VOID *Text, ULONG Length)
{
	PLIST_ENTRY entry;
	KIRQL irql;

	KeAcquireSpinLock(&Board->Lock, &irql);
	RtlCopyMemory(Board->Text, Text, Length);
	Board->Length = Length;
	for (entry = Board->Readers.Flink; entry != &Board->Readers; entry = entry->Flink) {
		PREADER reader = CONTAINING_RECORD(entry, READER, Link);

		if (reader->Event != NULL)
			KeSetEvent(reader->Event, IO_NO_INCREMENT, FALSE);
	}
	KeReleaseSpinLock(&Board->Lock, irql);
}

static NTSTATUS Open(PBOARD Board, PFILE_OBJECT File)
{
	PREADER reader;
	KIRQL irql;

	reader = ExAllocatePoolWithTag(NonPagedPool, sizeof(READER), TAG);
	if (reader == NULL)
		return STATUS_INSUFFICIENT_RESOURCES;
	reader->Event = NULL;
	File->FsContext = reader;
	KeAcquireSpinLock(&Board->Lock, &irql);
	InsertTailList(&Board->Readers, &reader->Link);
	KeReleaseSpinLock(&Board->Lock, irql);
	return STATUS_SUCCESS;
}

static VOID Close(PBOARD Board, PREADER Reader)
{
	KIRQL irql;

	KeAcquireSpinLock(&Board->Lock, &irql);
	RemoveEntryList(&Reader->Link);
	KeReleaseSpinLock(&Board->Lock, irql);
	Exchange(Board, Reader, NULL);          /* one that was left while the handle was being closed */
	ExFreePoolWithTag(Reader, TAG);
}

static NTSTATUS Control(PBOARD Board, PIRP Irp, PIO_STACK_LOCATION Sp, PULONG_PTR Bytes)
{
	PREADER reader = Sp->FileObject->FsContext;
	PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
	ULONG in = Sp->Parameters.DeviceIoControl.InputBufferLength;
	ULONG out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
	ULONG length;
	KIRQL irql;

	switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_ATTACH:
		if (in < sizeof(ULONG64))
			return STATUS_BUFFER_TOO_SMALL;
		return Attach(Board, reader, (HANDLE)(ULONG_PTR)*(PULONG64)buffer, Irp->RequestorMode);
	case IOCTL_DETACH:
		Exchange(Board, reader, NULL);
		return STATUS_SUCCESS;
	case IOCTL_POST:
		if (in == 0 || in > NOTICE)
			return STATUS_INVALID_PARAMETER;
		Post(Board, buffer, in);
		return STATUS_SUCCESS;
	case IOCTL_FETCH:
		KeAcquireSpinLock(&Board->Lock, &irql);
		length = Board->Length;
		if (length != 0 && length <= out)
			RtlCopyMemory(buffer, Board->Text, length);
		KeReleaseSpinLock(&Board->Lock, irql);
		if (length > out)
			return STATUS_BUFFER_TOO_SMALL;
		*Bytes = length;
		return STATUS_SUCCESS;
	default:
		return STATUS_INVALID_DEVICE_REQUEST;
	}
}

static NTSTATUS Answer(PDEVICE_OBJECT Device, PIRP Irp, PIO_STACK_LOCATION Sp, PULONG_PTR Bytes)
{
	PBOARD board = Device->DeviceExtension;

	switch (Sp->MajorFunction) {
	case IRP_MJ_CREATE:
		return Open(board, Sp->FileObject);
	case IRP_MJ_CLEANUP:
		Exchange(board, Sp->FileObject->FsContext, NULL);
		return STATUS_SUCCESS;
	case IRP_MJ_CLOSE:
		Close(board, Sp->FileObject->FsContext);
		return STATUS_SUCCESS;
	default:
		return Control(board, Irp, Sp, Bytes);
	}
}

static NTSTATUS NTAPI Dispatch(PDEVICE_OBJECT Device, PIRP Irp)
{
	return SoftDispatch(Device, Irp, Answer);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
	SoftFell(Driver->DeviceObject, LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
	PDEVICE_OBJECT device;
	PBOARD board;
	NTSTATUS status;

	(void)Path;
	status = SoftRaise(Driver, NAME, LINK, sizeof(BOARD), DO_BUFFERED_IO, &device);
	if (!NT_SUCCESS(status))
		return status;
	board = device->DeviceExtension;
	KeInitializeSpinLock(&board->Lock);
	InitializeListHead(&board->Readers);
	SOFT_ENTRIES(Driver, Dispatch);
	Driver->DriverUnload = Unload;
	SoftReady(device);
	return STATUS_SUCCESS;
}

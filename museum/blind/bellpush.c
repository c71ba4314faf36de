/*
 * bellpush - sets events of programs at regular times. A program registers an event and a period in
 * milliseconds, and gets a number with which it can take the registration back. Closing the file does
 * that, too. One timer for all.
 *
 * The bug: the handle that a program gives for its bell is looked up without a type.
 *
 * Device: none
 * Rule: object-of-another-kind
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define TAG 'lleB'
#define TICK_MS 50
#define MAX_BELLS 64
#define MAX_PERIOD 3600000
#define IOCTL_BELL_REGISTER CTL_CODE(FILE_DEVICE_UNKNOWN, 0x820, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BELL_UNREGISTER CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BELL_RING_ALL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x822, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _BELL_REGISTER {
	ULONG64 Event;
	ULONG PeriodMs;
	ULONG Reserved;
} BELL_REGISTER;

typedef struct _BELL {
	LIST_ENTRY Link;
	PFILE_OBJECT File;
	PKEVENT Event;
	ULONG Number;
	ULONG Ticks;
	ULONG Left;
} BELL;

typedef struct _EXT {
	KSPIN_LOCK Lock;
	LIST_ENTRY Bells;
	ULONG Count;
	ULONG LastNumber;
	KTIMER Timer;
	KDPC Dpc;
} EXT;

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
	Irp->IoStatus.Status = Status;
	Irp->IoStatus.Information = Information;
	IoCompleteRequest(Irp, IO_NO_INCREMENT);
	return Status;
}

static VOID NTAPI Tick(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
	EXT *ext = Context;
	PLIST_ENTRY entry;

	UNREFERENCED_PARAMETER(Dpc);
	UNREFERENCED_PARAMETER(Argument1);
	UNREFERENCED_PARAMETER(Argument2);
	KeAcquireSpinLockAtDpcLevel(&ext->Lock);
	for (entry = ext->Bells.Flink; entry != &ext->Bells; entry = entry->Flink) {
		BELL *bell = CONTAINING_RECORD(entry, BELL, Link);

		if (--bell->Left == 0) {
			bell->Left = bell->Ticks;
			KeSetEvent(bell->Event, IO_NO_INCREMENT, FALSE);
		}
	}
	KeReleaseSpinLockFromDpcLevel(&ext->Lock);
}

static NTSTATUS Register(EXT *ext, PIRP Irp, PFILE_OBJECT File, const BELL_REGISTER *in, ULONG *number)
{
	NTSTATUS status;
	BELL *bell;
	KIRQL irql;

	if (in->PeriodMs < TICK_MS || in->PeriodMs > MAX_PERIOD || in->Reserved != 0)
		return STATUS_INVALID_PARAMETER;
	bell = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(BELL), TAG);
	if (bell == NULL)
		return STATUS_INSUFFICIENT_RESOURCES;
#ifdef FIXED
	status = ObReferenceObjectByHandle((HANDLE)(ULONG_PTR)in->Event, EVENT_MODIFY_STATE, *ExEventObjectType,
		Irp->RequestorMode, (PVOID *)&bell->Event, NULL);
#else
	status = ObReferenceObjectByHandle((HANDLE)(ULONG_PTR)in->Event, EVENT_MODIFY_STATE, NULL,
		Irp->RequestorMode, (PVOID *)&bell->Event, NULL);
#endif
	if (!NT_SUCCESS(status)) {
		ExFreePoolWithTag(bell, TAG);
		return status;
	}
	bell->File = File;
	bell->Ticks = in->PeriodMs / TICK_MS;
	bell->Left = bell->Ticks;

	KeAcquireSpinLock(&ext->Lock, &irql);
	if (ext->Count < MAX_BELLS) {
		bell->Number = ++ext->LastNumber;
		*number = bell->Number;
		InsertTailList(&ext->Bells, &bell->Link);
		ext->Count++;
	} else {
		status = STATUS_TOO_MANY_SESSIONS;
	}
	KeReleaseSpinLock(&ext->Lock, irql);
	if (!NT_SUCCESS(status)) {
		ObDereferenceObject(bell->Event);
		ExFreePoolWithTag(bell, TAG);
	}
	return status;
}

/* Takes back the registration with this number, or all of this file (Number 0). */
static ULONG Unregister(EXT *ext, PFILE_OBJECT File, ULONG Number)
{
	LIST_ENTRY list;
	PLIST_ENTRY entry, next;
	ULONG n = 0;
	KIRQL irql;

	InitializeListHead(&list);
	KeAcquireSpinLock(&ext->Lock, &irql);
	for (entry = ext->Bells.Flink; entry != &ext->Bells; entry = next) {
		BELL *bell = CONTAINING_RECORD(entry, BELL, Link);

		next = entry->Flink;
		if (bell->File == File && (Number == 0 || bell->Number == Number)) {
			RemoveEntryList(entry);
			InsertTailList(&list, entry);
			ext->Count--;
		}
	}
	KeReleaseSpinLock(&ext->Lock, irql);
	while (!IsListEmpty(&list)) {
		BELL *bell = CONTAINING_RECORD(RemoveHeadList(&list), BELL, Link);

		ObDereferenceObject(bell->Event);
		ExFreePoolWithTag(bell, TAG);
		n++;
	}
	return n;
}

static NTSTATUS NTAPI OnControl(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
	ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
	ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
	PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
	BELL_REGISTER request;
	PLIST_ENTRY entry;
	NTSTATUS status;
	ULONG number;
	KIRQL irql;

	switch (sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_BELL_REGISTER:
		if (in < sizeof(BELL_REGISTER) || out < sizeof(ULONG))
			return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
		RtlCopyMemory(&request, buffer, sizeof(request));
		status = Register(ext, Irp, sp->FileObject, &request, &number);
		if (!NT_SUCCESS(status))
			return Finish(Irp, status, 0);
		*(ULONG *)buffer = number;
		return Finish(Irp, STATUS_SUCCESS, sizeof(ULONG));
	case IOCTL_BELL_UNREGISTER:
		if (in < sizeof(ULONG))
			return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
		number = *(ULONG *)buffer;
		if (number == 0 || Unregister(ext, sp->FileObject, number) == 0)
			return Finish(Irp, STATUS_NOT_FOUND, 0);
		return Finish(Irp, STATUS_SUCCESS, 0);
	case IOCTL_BELL_RING_ALL:
		KeAcquireSpinLock(&ext->Lock, &irql);
		for (entry = ext->Bells.Flink; entry != &ext->Bells; entry = entry->Flink)
			KeSetEvent(CONTAINING_RECORD(entry, BELL, Link)->Event, IO_NO_INCREMENT, FALSE);
		KeReleaseSpinLock(&ext->Lock, irql);
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
	Unregister(Device->DeviceExtension, IoGetCurrentIrpStackLocation(Irp)->FileObject, 0);
	return Finish(Irp, STATUS_SUCCESS, 0);
}

/* Requests can still come between cleanup and close: look again. */
static NTSTATUS NTAPI OnClose(PDEVICE_OBJECT Device, PIRP Irp)
{
	return OnCleanup(Device, Irp);
}

static VOID NTAPI OnUnload(PDRIVER_OBJECT Driver)
{
	EXT *ext = Driver->DeviceObject->DeviceExtension;
	UNICODE_STRING link;

	RtlInitUnicodeString(&link, L"\\DosDevices\\Bellpush");
	IoDeleteSymbolicLink(&link);
	KeCancelTimer(&ext->Timer);
	KeFlushQueuedDpcs();
	IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
	UNICODE_STRING name, link;
	PDEVICE_OBJECT device;
	LARGE_INTEGER due;
	EXT *ext;
	NTSTATUS status;

	UNREFERENCED_PARAMETER(RegistryPath);
	Driver->MajorFunction[IRP_MJ_CREATE] = OnCreateClose;
	Driver->MajorFunction[IRP_MJ_CLOSE] = OnClose;
	Driver->MajorFunction[IRP_MJ_CLEANUP] = OnCleanup;
	Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = OnControl;
	Driver->DriverUnload = OnUnload;

	RtlInitUnicodeString(&name, L"\\Device\\Bellpush");
	RtlInitUnicodeString(&link, L"\\DosDevices\\Bellpush");
	status = IoCreateDevice(Driver, sizeof(EXT), &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
	if (!NT_SUCCESS(status))
		return status;
	ext = device->DeviceExtension;
	KeInitializeSpinLock(&ext->Lock);
	InitializeListHead(&ext->Bells);
	ext->Count = 0;
	ext->LastNumber = 0;
	KeInitializeTimerEx(&ext->Timer, SynchronizationTimer);
	KeInitializeDpc(&ext->Dpc, Tick, ext);
	status = IoCreateSymbolicLink(&link, &name);
	if (!NT_SUCCESS(status)) {
		IoDeleteDevice(device);
		return status;
	}
	due.QuadPart = -10000LL * TICK_MS;
	KeSetTimerEx(&ext->Timer, due, TICK_MS, &ext->Dpc);
	device->Flags &= ~DO_DEVICE_INITIALIZING;
	return STATUS_SUCCESS;
}

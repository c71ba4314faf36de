/*
 * hawser: lets programs wait for each other. WAIT stays pending until someone rings the same line (RING), until its own time limit has
 * passed, or until it is cancelled. A periodic timer ends what is overdue.
 *
 * The bug: the timer's routine moves overdue requests to a list of its own under the lock, but takes their cancel routines back only
 * after it has released it; a cancel routine that runs in between takes its request out of that list and completes it there.
 *
 * Device: none
 * Rule: use-after-free, list-corrupt, double-completion, irp-in-use, data-race
 * Needs: ioctl, cancel, schedule
 */
#include <ddk/wdm.h>
#include "../include/stall_frame.h"

#define NAME L"\\Device\\Hawser"
#define LINK L"\\DosDevices\\Hawser"

#define IOCTL_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x840, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_RING CTL_CODE(FILE_DEVICE_UNKNOWN, 0x841, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define LINES 16
#define TICK_MS 50
#define LONGEST_MS 60000

typedef struct _WAIT_FOR {
	ULONG Line;
	ULONG Milliseconds;
} WAIT_FOR;

typedef struct _DOCK {
	KSPIN_LOCK Lock;
	LIST_ENTRY Waiting;
	ULONG_PTR Now;                  /* in ticks */
	ULONG Rung[LINES];
	KTIMER Timer;
	KDPC Dpc;
} DOCK, *PDOCK;

#define ENTRY_IRP(e) CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry)
#define IRP_LIMIT(i) ((ULONG_PTR)(i)->Tail.Overlay.DriverContext[0])
#define IRP_LINE(i) ((ULONG_PTR)(i)->Tail.Overlay.DriverContext[1])

DRIVER_INITIALIZE DriverEntry;

static VOID NTAPI Cancel(PDEVICE_OBJECT Device, PIRP Irp)
{
	PDOCK dock = Device->DeviceExtension;
	KIRQL irql;

	IoReleaseCancelSpinLock(Irp->CancelIrql);
	KeAcquireSpinLock(&dock->Lock, &irql);
	RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
	KeReleaseSpinLock(&dock->Lock, irql);
	Finish(Irp, STATUS_CANCELLED, 0);
}

static NTSTATUS Wait(PDOCK Dock, PIRP Irp, const WAIT_FOR *For)
{
	KIRQL irql;

	if (For->Line >= LINES || For->Milliseconds > LONGEST_MS)
		return STATUS_INVALID_PARAMETER;
	KeAcquireSpinLock(&Dock->Lock, &irql);
	IoMarkIrpPending(Irp);
	Irp->Tail.Overlay.DriverContext[0] = (PVOID)(Dock->Now + For->Milliseconds / TICK_MS + 1);
	Irp->Tail.Overlay.DriverContext[1] = (PVOID)(ULONG_PTR)For->Line;
	InsertTailList(&Dock->Waiting, &Irp->Tail.Overlay.ListEntry);
	IoSetCancelRoutine(Irp, Cancel);
	if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
		RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
		KeReleaseSpinLock(&Dock->Lock, irql);
		Finish(Irp, STATUS_CANCELLED, 0);
		return STATUS_PENDING;
	}
	KeReleaseSpinLock(&Dock->Lock, irql);
	return STATUS_PENDING;
}

/* Claims all that wait for a line, or all of a file. */
static VOID Collect(PDOCK Dock, ULONG Line, PFILE_OBJECT File, PLIST_ENTRY Taken)
{
	PLIST_ENTRY entry, next;

	for (entry = Dock->Waiting.Flink; entry != &Dock->Waiting; entry = next) {
		PIRP irp = ENTRY_IRP(entry);

		next = entry->Flink;
		if (File != NULL ? IoGetCurrentIrpStackLocation(irp)->FileObject != File : IRP_LINE(irp) != Line)
			continue;
		if (IoSetCancelRoutine(irp, NULL) == NULL)
			continue;
		RemoveEntryList(entry);
		InsertTailList(Taken, entry);
	}
}

static ULONG Ring(PDOCK Dock, ULONG Line)
{
	LIST_ENTRY taken;
	ULONG woken = 0, times;
	KIRQL irql;

	InitializeListHead(&taken);
	KeAcquireSpinLock(&Dock->Lock, &irql);
	times = ++Dock->Rung[Line];
	Collect(Dock, Line, NULL, &taken);
	KeReleaseSpinLock(&Dock->Lock, irql);
	while (!IsListEmpty(&taken)) {
		PIRP irp = ENTRY_IRP(RemoveHeadList(&taken));

		*(PULONG)irp->AssociatedIrp.SystemBuffer = times;
		Finish(irp, STATUS_SUCCESS, sizeof(ULONG));
		woken++;
	}
	return woken;
}

static VOID Leave(PDOCK Dock, PFILE_OBJECT File)
{
	LIST_ENTRY taken;
	KIRQL irql;

	InitializeListHead(&taken);
	KeAcquireSpinLock(&Dock->Lock, &irql);
	Collect(Dock, 0, File, &taken);
	KeReleaseSpinLock(&Dock->Lock, irql);
	while (!IsListEmpty(&taken))
		Finish(ENTRY_IRP(RemoveHeadList(&taken)), STATUS_CANCELLED, 0);
}

static VOID NTAPI Tick(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
	PDOCK dock = Context;
	PLIST_ENTRY entry, next;
	LIST_ENTRY due;

	(void)Dpc; (void)A1; (void)A2;
	InitializeListHead(&due);
	KeAcquireSpinLockAtDpcLevel(&dock->Lock);
	dock->Now++;
	for (entry = dock->Waiting.Flink; entry != &dock->Waiting; entry = next) {
		next = entry->Flink;
		if (IRP_LIMIT(ENTRY_IRP(entry)) > dock->Now)
			continue;
#ifdef FIXED
		if (IoSetCancelRoutine(ENTRY_IRP(entry), NULL) == NULL)
			continue;
#endif
		RemoveEntryList(entry);
		InsertTailList(&due, entry);
	}
	KeReleaseSpinLockFromDpcLevel(&dock->Lock);
	while (!IsListEmpty(&due)) {
		PIRP irp = ENTRY_IRP(RemoveHeadList(&due));

#ifndef FIXED
		if (IoSetCancelRoutine(irp, NULL) == NULL)
			continue;
#endif
		Finish(irp, STATUS_IO_TIMEOUT, 0);
	}
}

static NTSTATUS Control(PDOCK Dock, PIRP Irp, PIO_STACK_LOCATION Sp, PULONG_PTR Bytes)
{
	PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
	ULONG in = Sp->Parameters.DeviceIoControl.InputBufferLength;
	ULONG out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
	ULONG line;

	switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_WAIT:
		if (in < sizeof(WAIT_FOR) || out < sizeof(ULONG))
			return STATUS_BUFFER_TOO_SMALL;
		return Wait(Dock, Irp, buffer);
	case IOCTL_RING:
		if (in < sizeof(ULONG) || out < sizeof(ULONG))
			return STATUS_BUFFER_TOO_SMALL;
		line = *(PULONG)buffer;
		if (line >= LINES)
			return STATUS_INVALID_PARAMETER;
		*(PULONG)buffer = Ring(Dock, line);
		*Bytes = sizeof(ULONG);
		return STATUS_SUCCESS;
	default:
		return STATUS_INVALID_DEVICE_REQUEST;
	}
}

static NTSTATUS Answer(PDEVICE_OBJECT Device, PIRP Irp, PIO_STACK_LOCATION Sp, PULONG_PTR Bytes)
{
	PDOCK dock = Device->DeviceExtension;

	if (Sp->MajorFunction == IRP_MJ_DEVICE_CONTROL)
		return Control(dock, Irp, Sp, Bytes);
	if (Sp->MajorFunction == IRP_MJ_CLEANUP)
		Leave(dock, Sp->FileObject);
	return STATUS_SUCCESS;
}

static NTSTATUS NTAPI Dispatch(PDEVICE_OBJECT Device, PIRP Irp)
{
	return SoftDispatch(Device, Irp, Answer);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
	PDOCK dock = Driver->DeviceObject->DeviceExtension;

	KeCancelTimer(&dock->Timer);
	KeFlushQueuedDpcs();
	SoftFell(Driver->DeviceObject, LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
	PDEVICE_OBJECT device;
	LARGE_INTEGER first;
	NTSTATUS status;
	PDOCK dock;

	(void)Path;
	status = SoftRaise(Driver, NAME, LINK, sizeof(DOCK), DO_BUFFERED_IO, &device);
	if (!NT_SUCCESS(status))
		return status;
	dock = device->DeviceExtension;
	KeInitializeSpinLock(&dock->Lock);
	InitializeListHead(&dock->Waiting);
	KeInitializeDpc(&dock->Dpc, Tick, dock);
	KeInitializeTimer(&dock->Timer);
	first.QuadPart = -10000LL * TICK_MS;
	KeSetTimerEx(&dock->Timer, first, TICK_MS, &dock->Dpc);
	SOFT_ENTRIES(Driver, Dispatch);
	Driver->DriverUnload = Unload;
	SoftReady(device);
	return STATUS_SUCCESS;
}

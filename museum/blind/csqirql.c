/*
 * Metronome: requests wait in a cancel-safe queue for the next beat of a timer DPC, at most one per beat.
 *
 * The bug: the queue's lock routine saves the old IRQL into the device extension before it owns the lock; when a DPC
 * and a thread come for the lock at once, one gets the other's IRQL back.
 *
 * Device: ROOT\BLIND14
 * Rule: irql-lowered-in-callback, irql-too-high, irql-changed-by-routine
 * Needs: schedule
 * Symptom: IRQL_GT_ZERO_AT_SYSTEM_SERVICE (0x4A) / IRQL_NOT_LESS_OR_EQUAL (0xA) in unrelated code; verifier: IRQL lowered from inside a DPC.
 */
#include <ddk/wdm.h>

#define BEAT_MS 2

#define IOCTL_BEAT_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9B0, METHOD_BUFFERED, FILE_READ_DATA)

static const GUID guid_metro =
	{ 0x5bb2e0a1, 0x4a1e, 0x4f56, { 0x9d, 0x11, 0x7e, 0x60, 0x00, 0x00, 0x00, 0x14 } };

struct metro {
	PDEVICE_OBJECT dev, pdo, lower;
	UNICODE_STRING link;
	volatile LONG users, removed, running;
	KEVENT idle;
	IO_CSQ csq;
	KSPIN_LOCK lock;
	KIRQL old_irql;
	LIST_ENTRY waiting;
	KTIMER timer;
	KDPC dpc;
	ULONG beat;		/* only the DPC */
};

static NTSTATUS metro_done(PIRP irp, NTSTATUS st, ULONG_PTR n)
{
	irp->IoStatus.Status = st;
	irp->IoStatus.Information = n;
	IoCompleteRequest(irp, IO_NO_INCREMENT);
	return st;
}

static VOID metro_put(struct metro *dx)
{
	if (InterlockedDecrement(&dx->users) == 0)
		KeSetEvent(&dx->idle, IO_NO_INCREMENT, FALSE);
}

/* Every request that reaches the device holds a use count till it is done. */
static BOOLEAN metro_get(struct metro *dx)
{
	InterlockedIncrement(&dx->users);
	if (dx->removed) {
		metro_put(dx);
		return FALSE;
	}
	return TRUE;
}

static NTSTATUS NTAPI metro_pass(PDEVICE_OBJECT dev, PIRP irp)
{
	struct metro *dx = dev->DeviceExtension;
	NTSTATUS st;

	if (!metro_get(dx))
		return metro_done(irp, STATUS_DELETE_PENDING, 0);
	IoSkipCurrentIrpStackLocation(irp);
	st = IoCallDriver(dx->lower, irp);
	metro_put(dx);
	return st;
}

static NTSTATUS NTAPI metro_started(PDEVICE_OBJECT dev, PIRP irp, PVOID ctx)
{
	UNREFERENCED_PARAMETER(dev);
	if (irp->PendingReturned)
		KeSetEvent(ctx, IO_NO_INCREMENT, FALSE);
	return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS NTAPI metro_power(PDEVICE_OBJECT dev, PIRP irp)
{
	struct metro *dx = dev->DeviceExtension;
	NTSTATUS st;

	PoStartNextPowerIrp(irp);
	if (!metro_get(dx))
		return metro_done(irp, STATUS_DELETE_PENDING, 0);
	IoSkipCurrentIrpStackLocation(irp);
	st = PoCallDriver(dx->lower, irp);
	metro_put(dx);
	return st;
}

static NTSTATUS NTAPI metro_create(PDEVICE_OBJECT dev, PIRP irp)
{
	struct metro *dx = dev->DeviceExtension;
	NTSTATUS st = STATUS_DELETE_PENDING;

	if (!metro_get(dx))
		return metro_done(irp, st, 0);
	if (dx->running)
		st = STATUS_SUCCESS;
	st = metro_done(irp, st, 0);
	metro_put(dx);
	return st;
}

static NTSTATUS NTAPI metro_close(PDEVICE_OBJECT dev, PIRP irp)
{
	UNREFERENCED_PARAMETER(dev);
	return metro_done(irp, STATUS_SUCCESS, 0);
}

#define METRO(c) CONTAINING_RECORD(c, struct metro, csq)

static NTSTATUS NTAPI metro_insert(PIO_CSQ csq, PIRP irp, PVOID ctx)
{
	UNREFERENCED_PARAMETER(ctx);
	if (!METRO(csq)->running)
		return STATUS_DELETE_PENDING;
	InsertTailList(&METRO(csq)->waiting, &irp->Tail.Overlay.ListEntry);
	return STATUS_SUCCESS;
}

static VOID NTAPI metro_remove(PIO_CSQ csq, PIRP irp)
{
	UNREFERENCED_PARAMETER(csq);
	RemoveEntryList(&irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI metro_peek(PIO_CSQ csq, PIRP irp, PVOID file)
{
	PLIST_ENTRY head = &METRO(csq)->waiting, e;

	e = irp ? irp->Tail.Overlay.ListEntry.Flink : head->Flink;
	for (; e != head; e = e->Flink) {
		PIRP next = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

		if (!file || IoGetCurrentIrpStackLocation(next)->FileObject == file)
			return next;
	}
	return NULL;
}

static VOID NTAPI metro_lock(PIO_CSQ csq, PKIRQL irql)
{
	struct metro *dx = METRO(csq);

#ifdef FIXED
	KIRQL old;

	KeRaiseIrql(DISPATCH_LEVEL, &old);
	KeAcquireSpinLockAtDpcLevel(&dx->lock);
	dx->old_irql = old;
#else
	KeRaiseIrql(DISPATCH_LEVEL, &dx->old_irql);
	KeAcquireSpinLockAtDpcLevel(&dx->lock);
#endif
	*irql = DISPATCH_LEVEL;
}

static VOID NTAPI metro_unlock(PIO_CSQ csq, KIRQL irql)
{
	struct metro *dx = METRO(csq);
	KIRQL old = dx->old_irql;

	UNREFERENCED_PARAMETER(irql);
	KeReleaseSpinLockFromDpcLevel(&dx->lock);
	KeLowerIrql(old);
}

static VOID NTAPI metro_cancelled(PIO_CSQ csq, PIRP irp)
{
	metro_done(irp, STATUS_CANCELLED, 0);
	metro_put(METRO(csq));
}

static VOID NTAPI metro_beat(PKDPC dpc, PVOID ctx, PVOID a1, PVOID a2)
{
	struct metro *dx = ctx;
	PIRP irp;

	UNREFERENCED_PARAMETER(dpc);
	UNREFERENCED_PARAMETER(a1);
	UNREFERENCED_PARAMETER(a2);
	dx->beat++;
	irp = IoCsqRemoveNextIrp(&dx->csq, NULL);
	if (irp) {
		*(PULONG)irp->AssociatedIrp.SystemBuffer = dx->beat;
		metro_done(irp, STATUS_SUCCESS, sizeof(ULONG));
		metro_put(dx);
	}
}

static VOID metro_flush(struct metro *dx, PFILE_OBJECT file, NTSTATUS st)
{
	PIRP irp;

	while ((irp = IoCsqRemoveNextIrp(&dx->csq, file)) != NULL) {
		metro_done(irp, st, 0);
		metro_put(dx);
	}
}

static VOID metro_shut(struct metro *dx)
{
	KIRQL irql;

	metro_lock(&dx->csq, &irql);
	dx->running = 0;
	metro_unlock(&dx->csq, irql);
	KeCancelTimer(&dx->timer);
	KeFlushQueuedDpcs();
	metro_flush(dx, NULL, STATUS_DELETE_PENDING);
}

static NTSTATUS NTAPI metro_cleanup(PDEVICE_OBJECT dev, PIRP irp)
{
	metro_flush(dev->DeviceExtension, IoGetCurrentIrpStackLocation(irp)->FileObject, STATUS_CANCELLED);
	return metro_done(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI metro_ioctl(PDEVICE_OBJECT dev, PIRP irp)
{
	struct metro *dx = dev->DeviceExtension;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
	NTSTATUS st;

	if (!metro_get(dx))
		return metro_done(irp, STATUS_DELETE_PENDING, 0);
	if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_BEAT_WAIT) {
		st = metro_done(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
		metro_put(dx);
		return st;
	}
	if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
		st = metro_done(irp, STATUS_BUFFER_TOO_SMALL, 0);
		metro_put(dx);
		return st;
	}
	IoMarkIrpPending(irp);
	st = IoCsqInsertIrpEx(&dx->csq, irp, NULL, NULL);
	if (!NT_SUCCESS(st)) {
		metro_done(irp, st, 0);
		metro_put(dx);
	}
	return STATUS_PENDING;
}

static NTSTATUS metro_start(struct metro *dx)
{
	LARGE_INTEGER due;
	NTSTATUS st = IoSetDeviceInterfaceState(&dx->link, TRUE);

	if (!NT_SUCCESS(st))
		return st;
	dx->running = 1;
	due.QuadPart = -BEAT_MS * 10000;
	KeSetTimerEx(&dx->timer, due, BEAT_MS, &dx->dpc);
	return STATUS_SUCCESS;
}

static NTSTATUS NTAPI metro_pnp(PDEVICE_OBJECT dev, PIRP irp)
{
	struct metro *dx = dev->DeviceExtension;
	UCHAR minor = IoGetCurrentIrpStackLocation(irp)->MinorFunction;
	KEVENT ev;
	NTSTATUS st;

	if (!metro_get(dx))
		return metro_done(irp, STATUS_DELETE_PENDING, 0);

	switch (minor) {
	case IRP_MN_START_DEVICE:
		KeInitializeEvent(&ev, NotificationEvent, FALSE);
		IoCopyCurrentIrpStackLocationToNext(irp);
		IoSetCompletionRoutine(irp, metro_started, &ev, TRUE, TRUE, TRUE);
		st = IoCallDriver(dx->lower, irp);
		if (st == STATUS_PENDING) {
			KeWaitForSingleObject(&ev, Executive, KernelMode, FALSE, NULL);
			st = irp->IoStatus.Status;
		}
		if (NT_SUCCESS(st))
			st = metro_start(dx);
		metro_done(irp, st, 0);
		metro_put(dx);
		return st;

	case IRP_MN_SURPRISE_REMOVAL:
		dx->running = 0;
		IoSetDeviceInterfaceState(&dx->link, FALSE);
		metro_shut(dx);
		irp->IoStatus.Status = STATUS_SUCCESS;
		break;

	case IRP_MN_REMOVE_DEVICE:
		dx->running = 0;
		IoSetDeviceInterfaceState(&dx->link, FALSE);
		metro_shut(dx);
		InterlockedExchange(&dx->removed, 1);
		metro_put(dx);		/* this request */
		metro_put(dx);		/* the device itself */
		KeWaitForSingleObject(&dx->idle, Executive, KernelMode, FALSE, NULL);
		irp->IoStatus.Status = STATUS_SUCCESS;
		IoSkipCurrentIrpStackLocation(irp);
		st = IoCallDriver(dx->lower, irp);
		IoDetachDevice(dx->lower);
		RtlFreeUnicodeString(&dx->link);
		IoDeleteDevice(dev);
		return st;

	case IRP_MN_QUERY_STOP_DEVICE:
	case IRP_MN_STOP_DEVICE:
	case IRP_MN_CANCEL_STOP_DEVICE:
	case IRP_MN_QUERY_REMOVE_DEVICE:
	case IRP_MN_CANCEL_REMOVE_DEVICE:
		irp->IoStatus.Status = STATUS_SUCCESS;
		break;
	}
	IoSkipCurrentIrpStackLocation(irp);
	st = IoCallDriver(dx->lower, irp);
	metro_put(dx);
	return st;
}

static NTSTATUS NTAPI metro_add(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
	PDEVICE_OBJECT dev;
	struct metro *dx;
	NTSTATUS st;

	st = IoCreateDevice(drv, sizeof(*dx), NULL, FILE_DEVICE_UNKNOWN,
			    FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
	if (!NT_SUCCESS(st))
		return st;
	dx = dev->DeviceExtension;
	dx->dev = dev;
	dx->pdo = pdo;
	dx->users = 1;
	KeInitializeEvent(&dx->idle, NotificationEvent, FALSE);
	KeInitializeSpinLock(&dx->lock);
	InitializeListHead(&dx->waiting);
	KeInitializeTimer(&dx->timer);
	KeInitializeDpc(&dx->dpc, metro_beat, dx);
	st = IoCsqInitializeEx(&dx->csq, metro_insert, metro_remove, metro_peek,
			       metro_lock, metro_unlock, metro_cancelled);
	if (!NT_SUCCESS(st))
		goto fail;
	st = IoRegisterDeviceInterface(pdo, &guid_metro, NULL, &dx->link);
	if (!NT_SUCCESS(st))
		goto fail;
	dx->lower = IoAttachDeviceToDeviceStack(dev, pdo);
	if (!dx->lower) {
		RtlFreeUnicodeString(&dx->link);
		st = STATUS_NO_SUCH_DEVICE;
		goto fail;
	}
	dev->Flags |= DO_BUFFERED_IO | (dx->lower->Flags & DO_POWER_PAGABLE);
	dev->Flags &= ~DO_DEVICE_INITIALIZING;
	return STATUS_SUCCESS;
fail:
	IoDeleteDevice(dev);
	return st;
}

static VOID NTAPI metro_unload(PDRIVER_OBJECT drv)
{
	UNREFERENCED_PARAMETER(drv);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
	UNREFERENCED_PARAMETER(path);
	drv->DriverUnload = metro_unload;
	drv->DriverExtension->AddDevice = metro_add;
	drv->MajorFunction[IRP_MJ_CREATE] = metro_create;
	drv->MajorFunction[IRP_MJ_CLOSE] = metro_close;
	drv->MajorFunction[IRP_MJ_PNP] = metro_pnp;
	drv->MajorFunction[IRP_MJ_POWER] = metro_power;
	drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = metro_pass;
	drv->MajorFunction[IRP_MJ_CLEANUP] = metro_cleanup;
	drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = metro_ioctl;
	return STATUS_SUCCESS;
}

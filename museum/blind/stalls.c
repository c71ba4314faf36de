/*
 * Doorbell: applications wait in an IOCTL till a thread rings; waiting requests are kept in a cancel-safe queue.
 *
 * The bug: surprise removal leaves the waiting requests in the queue; they would be ended at removal, but that comes only
 * when the handles are closed, and the applications wait.
 *
 * Device: ROOT\BLIND04
 * Rule: request-pending-after-surprise-removal
 * Needs: ioctl, removal
 * Symptom: after a surprise removal the requests never end and IRP_MN_REMOVE_DEVICE never comes.
 */
#include <ddk/wdm.h>

#define IOCTL_BELL_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x920, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_BELL_RING CTL_CODE(FILE_DEVICE_UNKNOWN, 0x921, METHOD_BUFFERED, FILE_WRITE_DATA)

static const GUID guid_bell =
	{ 0x5bb2e0a1, 0x4a1e, 0x4f56, { 0x9d, 0x11, 0x7e, 0x60, 0x00, 0x00, 0x00, 0x04 } };

struct bell {
	PDEVICE_OBJECT dev, pdo, lower;
	UNICODE_STRING link;
	volatile LONG users, removed, running;
	KEVENT idle;
	IO_CSQ csq;
	KSPIN_LOCK lock;
	LIST_ENTRY waiting;
	volatile LONG rings;
};

static NTSTATUS bell_done(PIRP irp, NTSTATUS st, ULONG_PTR n)
{
	irp->IoStatus.Status = st;
	irp->IoStatus.Information = n;
	IoCompleteRequest(irp, IO_NO_INCREMENT);
	return st;
}

static VOID bell_put(struct bell *dx)
{
	if (InterlockedDecrement(&dx->users) == 0)
		KeSetEvent(&dx->idle, IO_NO_INCREMENT, FALSE);
}

/* Every request that reaches the device holds a use count till it is done. */
static BOOLEAN bell_get(struct bell *dx)
{
	InterlockedIncrement(&dx->users);
	if (dx->removed) {
		bell_put(dx);
		return FALSE;
	}
	return TRUE;
}

static NTSTATUS NTAPI bell_pass(PDEVICE_OBJECT dev, PIRP irp)
{
	struct bell *dx = dev->DeviceExtension;
	NTSTATUS st;

	if (!bell_get(dx))
		return bell_done(irp, STATUS_DELETE_PENDING, 0);
	IoSkipCurrentIrpStackLocation(irp);
	st = IoCallDriver(dx->lower, irp);
	bell_put(dx);
	return st;
}

static NTSTATUS NTAPI bell_started(PDEVICE_OBJECT dev, PIRP irp, PVOID ctx)
{
	UNREFERENCED_PARAMETER(dev);
	if (irp->PendingReturned)
		KeSetEvent(ctx, IO_NO_INCREMENT, FALSE);
	return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS NTAPI bell_power(PDEVICE_OBJECT dev, PIRP irp)
{
	struct bell *dx = dev->DeviceExtension;
	NTSTATUS st;

	PoStartNextPowerIrp(irp);
	if (!bell_get(dx))
		return bell_done(irp, STATUS_DELETE_PENDING, 0);
	IoSkipCurrentIrpStackLocation(irp);
	st = PoCallDriver(dx->lower, irp);
	bell_put(dx);
	return st;
}

static NTSTATUS NTAPI bell_create(PDEVICE_OBJECT dev, PIRP irp)
{
	struct bell *dx = dev->DeviceExtension;
	NTSTATUS st = STATUS_DELETE_PENDING;

	if (!bell_get(dx))
		return bell_done(irp, st, 0);
	if (dx->running)
		st = STATUS_SUCCESS;
	st = bell_done(irp, st, 0);
	bell_put(dx);
	return st;
}

static NTSTATUS NTAPI bell_close(PDEVICE_OBJECT dev, PIRP irp)
{
	UNREFERENCED_PARAMETER(dev);
	return bell_done(irp, STATUS_SUCCESS, 0);
}

#define BELL(c) CONTAINING_RECORD(c, struct bell, csq)

static NTSTATUS NTAPI bell_insert(PIO_CSQ csq, PIRP irp, PVOID ctx)
{
	UNREFERENCED_PARAMETER(ctx);
	if (!BELL(csq)->running)
		return STATUS_DELETE_PENDING;
	InsertTailList(&BELL(csq)->waiting, &irp->Tail.Overlay.ListEntry);
	return STATUS_SUCCESS;
}

static VOID NTAPI bell_remove(PIO_CSQ csq, PIRP irp)
{
	UNREFERENCED_PARAMETER(csq);
	RemoveEntryList(&irp->Tail.Overlay.ListEntry);
}

/* The context is a file object, or NULL for any. */
static PIRP NTAPI bell_peek(PIO_CSQ csq, PIRP irp, PVOID file)
{
	PLIST_ENTRY head = &BELL(csq)->waiting, e;

	for (e = irp ? irp->Tail.Overlay.ListEntry.Flink : head->Flink; e != head; e = e->Flink) {
		PIRP next = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

		if (!file || IoGetCurrentIrpStackLocation(next)->FileObject == file)
			return next;
	}
	return NULL;
}

static VOID NTAPI bell_lock(PIO_CSQ csq, PKIRQL irql)
{
	KeAcquireSpinLock(&BELL(csq)->lock, irql);
}

static VOID NTAPI bell_unlock(PIO_CSQ csq, KIRQL irql)
{
	KeReleaseSpinLock(&BELL(csq)->lock, irql);
}

static VOID NTAPI bell_cancelled(PIO_CSQ csq, PIRP irp)
{
	bell_done(irp, STATUS_CANCELLED, 0);
	bell_put(BELL(csq));
}

static VOID bell_flush(struct bell *dx, PFILE_OBJECT file, NTSTATUS st)
{
	PIRP irp;

	while ((irp = IoCsqRemoveNextIrp(&dx->csq, file)) != NULL) {
		ULONG n = 0;

		if (NT_SUCCESS(st)) {
			*(PLONG)irp->AssociatedIrp.SystemBuffer = dx->rings;
			n = sizeof(LONG);
		}
		bell_done(irp, st, n);
		bell_put(dx);
	}
}

/* Closes the queue for good: nothing can be inserted once we held the lock. */
static VOID bell_shut(struct bell *dx)
{
	KIRQL irql;

	KeAcquireSpinLock(&dx->lock, &irql);
	dx->running = 0;
	KeReleaseSpinLock(&dx->lock, irql);
	bell_flush(dx, NULL, STATUS_DELETE_PENDING);
}

static NTSTATUS NTAPI bell_cleanup(PDEVICE_OBJECT dev, PIRP irp)
{
	bell_flush(dev->DeviceExtension, IoGetCurrentIrpStackLocation(irp)->FileObject, STATUS_CANCELLED);
	return bell_done(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI bell_ioctl(PDEVICE_OBJECT dev, PIRP irp)
{
	struct bell *dx = dev->DeviceExtension;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
	NTSTATUS st = STATUS_INVALID_DEVICE_REQUEST;

	if (!bell_get(dx))
		return bell_done(irp, STATUS_DELETE_PENDING, 0);
	switch (sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_BELL_WAIT:
		if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LONG)) {
			st = STATUS_BUFFER_TOO_SMALL;
			break;
		}
		IoMarkIrpPending(irp);
		st = IoCsqInsertIrpEx(&dx->csq, irp, NULL, NULL);
		if (!NT_SUCCESS(st)) {
			bell_done(irp, st, 0);
			bell_put(dx);
		}
		return STATUS_PENDING;	/* the use count goes with the request */
	case IOCTL_BELL_RING:
		InterlockedIncrement(&dx->rings);
		bell_flush(dx, NULL, STATUS_SUCCESS);
		st = STATUS_SUCCESS;
		break;
	}
	bell_done(irp, st, 0);
	bell_put(dx);
	return st;
}

static NTSTATUS bell_start(struct bell *dx)
{
	NTSTATUS st = IoSetDeviceInterfaceState(&dx->link, TRUE);

	if (!NT_SUCCESS(st))
		return st;
	dx->running = 1;
	return STATUS_SUCCESS;
}

static NTSTATUS NTAPI bell_pnp(PDEVICE_OBJECT dev, PIRP irp)
{
	struct bell *dx = dev->DeviceExtension;
	UCHAR minor = IoGetCurrentIrpStackLocation(irp)->MinorFunction;
	KEVENT ev;
	NTSTATUS st;

	if (!bell_get(dx))
		return bell_done(irp, STATUS_DELETE_PENDING, 0);

	switch (minor) {
	case IRP_MN_START_DEVICE:
		KeInitializeEvent(&ev, NotificationEvent, FALSE);
		IoCopyCurrentIrpStackLocationToNext(irp);
		IoSetCompletionRoutine(irp, bell_started, &ev, TRUE, TRUE, TRUE);
		st = IoCallDriver(dx->lower, irp);
		if (st == STATUS_PENDING) {
			KeWaitForSingleObject(&ev, Executive, KernelMode, FALSE, NULL);
			st = irp->IoStatus.Status;
		}
		if (NT_SUCCESS(st))
			st = bell_start(dx);
		bell_done(irp, st, 0);
		bell_put(dx);
		return st;

	case IRP_MN_SURPRISE_REMOVAL:
		dx->running = 0;
		IoSetDeviceInterfaceState(&dx->link, FALSE);
#ifdef FIXED
		bell_shut(dx);
#endif
		irp->IoStatus.Status = STATUS_SUCCESS;
		break;

	case IRP_MN_REMOVE_DEVICE:
		dx->running = 0;
		IoSetDeviceInterfaceState(&dx->link, FALSE);
		bell_shut(dx);
		InterlockedExchange(&dx->removed, 1);
		bell_put(dx);		/* this request */
		bell_put(dx);		/* the device itself */
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
	bell_put(dx);
	return st;
}

static NTSTATUS NTAPI bell_add(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
	PDEVICE_OBJECT dev;
	struct bell *dx;
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
	st = IoCsqInitializeEx(&dx->csq, bell_insert, bell_remove, bell_peek,
			       bell_lock, bell_unlock, bell_cancelled);
	if (!NT_SUCCESS(st))
		goto fail;
	st = IoRegisterDeviceInterface(pdo, &guid_bell, NULL, &dx->link);
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

static VOID NTAPI bell_unload(PDRIVER_OBJECT drv)
{
	UNREFERENCED_PARAMETER(drv);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
	UNREFERENCED_PARAMETER(path);
	drv->DriverUnload = bell_unload;
	drv->DriverExtension->AddDevice = bell_add;
	drv->MajorFunction[IRP_MJ_CREATE] = bell_create;
	drv->MajorFunction[IRP_MJ_CLOSE] = bell_close;
	drv->MajorFunction[IRP_MJ_PNP] = bell_pnp;
	drv->MajorFunction[IRP_MJ_POWER] = bell_power;
	drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = bell_pass;
	drv->MajorFunction[IRP_MJ_CLEANUP] = bell_cleanup;
	drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = bell_ioctl;
	return STATUS_SUCCESS;
}

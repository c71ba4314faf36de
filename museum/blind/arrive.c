/*
 * Volume watcher: counts arrivals and removals of a device interface class and keeps the last sixteen of them.
 *
 * The bug: the PnP notification registered first in the start code is undone at removal only if the start went through;
 * when the allocation after it fails, the notification outlives the device.
 *
 * Device: ROOT\BLIND10
 * Rule: pnp-notification-leak
 * Needs: nothing
 * Symptom: after a failed start (no memory) the callback runs with the freed device extension (0xD5 / 0x50); the driver object never goes.
 */
#include <ddk/wdm.h>

NTKERNELAPI NTSTATUS NTAPI IoUnregisterPlugPlayNotificationEx(PVOID NotificationEntry);

#define AR_TAG 'virA'
#define SLOTS 16

#define IOCTL_WATCH_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x970, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_WATCH_LAST   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x971, METHOD_BUFFERED, FILE_READ_DATA)

static const GUID guid_watch =
	{ 0x5bb2e0a1, 0x4a1e, 0x4f56, { 0x9d, 0x11, 0x7e, 0x60, 0x00, 0x00, 0x00, 0x10 } };
/* GUID_DEVINTERFACE_VOLUME */
static const GUID guid_volume =
	{ 0x53f5630d, 0xb6bf, 0x11d0, { 0x94, 0xf2, 0x00, 0xa0, 0xc9, 0x1e, 0xfb, 0x8b } };
static const GUID guid_arrival =
	{ 0xcb3a4004, 0x46f0, 0x11d0, { 0xb0, 0x8f, 0x00, 0x60, 0x97, 0x13, 0x05, 0x3f } };

struct seen {
	ULONGLONG when;
	ULONG arrived;
	ULONG name_hash;
};

struct watch {
	PDEVICE_OBJECT dev, pdo, lower;
	UNICODE_STRING link;
	volatile LONG users, removed, running;
	KEVENT idle;
	PVOID notify;
	KSPIN_LOCK lock;
	ULONG arrivals, removals;
	struct seen *last;		/* SLOTS of them */
	BOOLEAN ready;
};

static NTSTATUS ar_done(PIRP irp, NTSTATUS st, ULONG_PTR n)
{
	irp->IoStatus.Status = st;
	irp->IoStatus.Information = n;
	IoCompleteRequest(irp, IO_NO_INCREMENT);
	return st;
}

static VOID ar_put(struct watch *dx)
{
	if (InterlockedDecrement(&dx->users) == 0)
		KeSetEvent(&dx->idle, IO_NO_INCREMENT, FALSE);
}

/* Every request that reaches the device holds a use count till it is done. */
static BOOLEAN ar_get(struct watch *dx)
{
	InterlockedIncrement(&dx->users);
	if (dx->removed) {
		ar_put(dx);
		return FALSE;
	}
	return TRUE;
}

static NTSTATUS NTAPI ar_pass(PDEVICE_OBJECT dev, PIRP irp)
{
	struct watch *dx = dev->DeviceExtension;
	NTSTATUS st;

	if (!ar_get(dx))
		return ar_done(irp, STATUS_DELETE_PENDING, 0);
	IoSkipCurrentIrpStackLocation(irp);
	st = IoCallDriver(dx->lower, irp);
	ar_put(dx);
	return st;
}

static NTSTATUS NTAPI ar_started(PDEVICE_OBJECT dev, PIRP irp, PVOID ctx)
{
	UNREFERENCED_PARAMETER(dev);
	if (irp->PendingReturned)
		KeSetEvent(ctx, IO_NO_INCREMENT, FALSE);
	return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS NTAPI ar_power(PDEVICE_OBJECT dev, PIRP irp)
{
	struct watch *dx = dev->DeviceExtension;
	NTSTATUS st;

	PoStartNextPowerIrp(irp);
	if (!ar_get(dx))
		return ar_done(irp, STATUS_DELETE_PENDING, 0);
	IoSkipCurrentIrpStackLocation(irp);
	st = PoCallDriver(dx->lower, irp);
	ar_put(dx);
	return st;
}

static NTSTATUS NTAPI ar_create(PDEVICE_OBJECT dev, PIRP irp)
{
	struct watch *dx = dev->DeviceExtension;
	NTSTATUS st = STATUS_DELETE_PENDING;

	if (!ar_get(dx))
		return ar_done(irp, st, 0);
	if (dx->running)
		st = STATUS_SUCCESS;
	st = ar_done(irp, st, 0);
	ar_put(dx);
	return st;
}

static NTSTATUS NTAPI ar_close(PDEVICE_OBJECT dev, PIRP irp)
{
	UNREFERENCED_PARAMETER(dev);
	return ar_done(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI ar_notify(PVOID data, PVOID ctx)
{
	PDEVICE_INTERFACE_CHANGE_NOTIFICATION n = data;
	struct watch *dx = ctx;
	BOOLEAN arrived = RtlCompareMemory(&n->Event, &guid_arrival, sizeof(GUID)) == sizeof(GUID);
	LARGE_INTEGER now;
	ULONG hash = 5381, i;
	KIRQL irql;

	for (i = 0; i < n->SymbolicLinkName->Length / sizeof(WCHAR); i++)
		hash = hash * 33 + n->SymbolicLinkName->Buffer[i];
	KeQuerySystemTime(&now);
	KeAcquireSpinLock(&dx->lock, &irql);
	if (dx->last) {
		struct seen *s = &dx->last[(dx->arrivals + dx->removals) % SLOTS];

		s->when = now.QuadPart;
		s->arrived = arrived;
		s->name_hash = hash;
	}
	if (arrived)
		dx->arrivals++;
	else
		dx->removals++;
	KeReleaseSpinLock(&dx->lock, irql);
	return STATUS_SUCCESS;
}

static NTSTATUS ar_start(struct watch *dx)
{
	NTSTATUS st;

	if (!dx->ready) {
		if (!dx->notify) {
			st = IoRegisterPlugPlayNotification(EventCategoryDeviceInterfaceChange, 0, (PVOID)&guid_volume,
							    dx->dev->DriverObject, ar_notify, dx, &dx->notify);
			if (!NT_SUCCESS(st))
				return st;
		}
		if (!dx->last) {
			struct seen *last = ExAllocatePoolWithTag(NonPagedPool, SLOTS * sizeof(*last), AR_TAG);
			KIRQL irql;

			if (!last)
				return STATUS_INSUFFICIENT_RESOURCES;
			RtlZeroMemory(last, SLOTS * sizeof(*last));
			KeAcquireSpinLock(&dx->lock, &irql);
			dx->last = last;
			KeReleaseSpinLock(&dx->lock, irql);
		}
		dx->ready = TRUE;
	}
	st = IoSetDeviceInterfaceState(&dx->link, TRUE);
	if (!NT_SUCCESS(st))
		return st;
	dx->running = 1;
	return STATUS_SUCCESS;
}

static VOID ar_stop(struct watch *dx)
{
#ifdef FIXED
	if (dx->notify)
#else
	if (dx->ready)
#endif
		IoUnregisterPlugPlayNotificationEx(dx->notify);
	if (dx->last)
		ExFreePoolWithTag(dx->last, AR_TAG);
}

static NTSTATUS NTAPI ar_pnp(PDEVICE_OBJECT dev, PIRP irp)
{
	struct watch *dx = dev->DeviceExtension;
	UCHAR minor = IoGetCurrentIrpStackLocation(irp)->MinorFunction;
	KEVENT ev;
	NTSTATUS st;

	if (!ar_get(dx))
		return ar_done(irp, STATUS_DELETE_PENDING, 0);

	switch (minor) {
	case IRP_MN_START_DEVICE:
		KeInitializeEvent(&ev, NotificationEvent, FALSE);
		IoCopyCurrentIrpStackLocationToNext(irp);
		IoSetCompletionRoutine(irp, ar_started, &ev, TRUE, TRUE, TRUE);
		st = IoCallDriver(dx->lower, irp);
		if (st == STATUS_PENDING) {
			KeWaitForSingleObject(&ev, Executive, KernelMode, FALSE, NULL);
			st = irp->IoStatus.Status;
		}
		if (NT_SUCCESS(st))
			st = ar_start(dx);
		ar_done(irp, st, 0);
		ar_put(dx);
		return st;

	case IRP_MN_SURPRISE_REMOVAL:
		dx->running = 0;
		IoSetDeviceInterfaceState(&dx->link, FALSE);
		irp->IoStatus.Status = STATUS_SUCCESS;
		break;

	case IRP_MN_REMOVE_DEVICE:
		dx->running = 0;
		IoSetDeviceInterfaceState(&dx->link, FALSE);
		InterlockedExchange(&dx->removed, 1);
		ar_put(dx);		/* this request */
		ar_put(dx);		/* the device itself */
		KeWaitForSingleObject(&dx->idle, Executive, KernelMode, FALSE, NULL);
		ar_stop(dx);
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
	ar_put(dx);
	return st;
}

static NTSTATUS NTAPI ar_ioctl(PDEVICE_OBJECT dev, PIRP irp)
{
	struct watch *dx = dev->DeviceExtension;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
	ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength, n = 0;
	PULONG buf = irp->AssociatedIrp.SystemBuffer;
	NTSTATUS st = STATUS_SUCCESS;
	KIRQL irql;

	if (!ar_get(dx))
		return ar_done(irp, STATUS_DELETE_PENDING, 0);
	if (!dx->running) {
		st = STATUS_DELETE_PENDING;
		goto out;
	}
	switch (sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_WATCH_COUNTS:
		if (out < 2 * sizeof(ULONG)) {
			st = STATUS_BUFFER_TOO_SMALL;
			break;
		}
		KeAcquireSpinLock(&dx->lock, &irql);
		buf[0] = dx->arrivals;
		buf[1] = dx->removals;
		KeReleaseSpinLock(&dx->lock, irql);
		n = 2 * sizeof(ULONG);
		break;
	case IOCTL_WATCH_LAST:
		if (out < SLOTS * sizeof(struct seen)) {
			st = STATUS_BUFFER_TOO_SMALL;
			break;
		}
		n = SLOTS * sizeof(struct seen);
		KeAcquireSpinLock(&dx->lock, &irql);
		RtlCopyMemory(buf, dx->last, n);
		KeReleaseSpinLock(&dx->lock, irql);
		break;
	default:
		st = STATUS_INVALID_DEVICE_REQUEST;
	}
out:
	ar_done(irp, st, n);
	ar_put(dx);
	return st;
}

static NTSTATUS NTAPI ar_add(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
	PDEVICE_OBJECT dev;
	struct watch *dx;
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
	st = IoRegisterDeviceInterface(pdo, &guid_watch, NULL, &dx->link);
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

static VOID NTAPI ar_unload(PDRIVER_OBJECT drv)
{
	UNREFERENCED_PARAMETER(drv);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
	UNREFERENCED_PARAMETER(path);
	drv->DriverUnload = ar_unload;
	drv->DriverExtension->AddDevice = ar_add;
	drv->MajorFunction[IRP_MJ_CREATE] = ar_create;
	drv->MajorFunction[IRP_MJ_CLOSE] = ar_close;
	drv->MajorFunction[IRP_MJ_PNP] = ar_pnp;
	drv->MajorFunction[IRP_MJ_POWER] = ar_power;
	drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = ar_pass;
	drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = ar_ioctl;
	return STATUS_SUCCESS;
}

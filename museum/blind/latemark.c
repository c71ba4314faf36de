/*
 * Echo with delay: WriteFile's bytes come back by ReadFile after a few milliseconds; reads are finished by a DPC.
 *
 * The bug: a read is put into the DPC's queue first and marked pending after; the DPC may have completed it (and the
 * request may be freed) by then.
 *
 * Device: ROOT\BLIND16
 * Rule: use-after-free
 * Needs: ioctl, schedule, cancel
 * Symptom: STATUS_PENDING returned for a request completed without the pending mark (caller waits for ever), or the mark is written to a freed IRP (0xC9, special pool 0xD5).
 */
#include <ddk/wdm.h>

#define EC_SIZE 4096

static const GUID guid_echo =
	{ 0x5bb2e0a1, 0x4a1e, 0x4f56, { 0x9d, 0x11, 0x7e, 0x60, 0x00, 0x00, 0x00, 0x16 } };

struct echo {
	PDEVICE_OBJECT dev, pdo, lower;
	UNICODE_STRING link;
	volatile LONG users, removed, running;
	KEVENT idle;
	KSPIN_LOCK lock;
	LIST_ENTRY reads;
	KTIMER timer;
	KDPC dpc;
	ULONG head, count;
	UCHAR ring[EC_SIZE];
};

static NTSTATUS ec_done(PIRP irp, NTSTATUS st, ULONG_PTR n)
{
	irp->IoStatus.Status = st;
	irp->IoStatus.Information = n;
	IoCompleteRequest(irp, IO_NO_INCREMENT);
	return st;
}

static VOID ec_put(struct echo *dx)
{
	if (InterlockedDecrement(&dx->users) == 0)
		KeSetEvent(&dx->idle, IO_NO_INCREMENT, FALSE);
}

/* Every request that reaches the device holds a use count till it is done. */
static BOOLEAN ec_get(struct echo *dx)
{
	InterlockedIncrement(&dx->users);
	if (dx->removed) {
		ec_put(dx);
		return FALSE;
	}
	return TRUE;
}

static NTSTATUS NTAPI ec_pass(PDEVICE_OBJECT dev, PIRP irp)
{
	struct echo *dx = dev->DeviceExtension;
	NTSTATUS st;

	if (!ec_get(dx))
		return ec_done(irp, STATUS_DELETE_PENDING, 0);
	IoSkipCurrentIrpStackLocation(irp);
	st = IoCallDriver(dx->lower, irp);
	ec_put(dx);
	return st;
}

static NTSTATUS NTAPI ec_started(PDEVICE_OBJECT dev, PIRP irp, PVOID ctx)
{
	UNREFERENCED_PARAMETER(dev);
	if (irp->PendingReturned)
		KeSetEvent(ctx, IO_NO_INCREMENT, FALSE);
	return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS NTAPI ec_power(PDEVICE_OBJECT dev, PIRP irp)
{
	struct echo *dx = dev->DeviceExtension;
	NTSTATUS st;

	PoStartNextPowerIrp(irp);
	if (!ec_get(dx))
		return ec_done(irp, STATUS_DELETE_PENDING, 0);
	IoSkipCurrentIrpStackLocation(irp);
	st = PoCallDriver(dx->lower, irp);
	ec_put(dx);
	return st;
}

static NTSTATUS NTAPI ec_create(PDEVICE_OBJECT dev, PIRP irp)
{
	struct echo *dx = dev->DeviceExtension;
	NTSTATUS st = STATUS_DELETE_PENDING;

	if (!ec_get(dx))
		return ec_done(irp, st, 0);
	if (dx->running)
		st = STATUS_SUCCESS;
	st = ec_done(irp, st, 0);
	ec_put(dx);
	return st;
}

static NTSTATUS NTAPI ec_close(PDEVICE_OBJECT dev, PIRP irp)
{
	UNREFERENCED_PARAMETER(dev);
	return ec_done(irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI ec_cancel(PDEVICE_OBJECT dev, PIRP irp)
{
	struct echo *dx = dev->DeviceExtension;
	KIRQL irql;

	IoReleaseCancelSpinLock(irp->CancelIrql);
	KeAcquireSpinLock(&dx->lock, &irql);
	RemoveEntryList(&irp->Tail.Overlay.ListEntry);
	KeReleaseSpinLock(&dx->lock, irql);
	ec_done(irp, STATUS_CANCELLED, 0);
	ec_put(dx);
}

/* The oldest read that is still ours; lock held. */
static PIRP ec_take(struct echo *dx, PFILE_OBJECT file)
{
	PLIST_ENTRY e;

	for (e = dx->reads.Flink; e != &dx->reads; e = e->Flink) {
		PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

		if (file && IoGetCurrentIrpStackLocation(irp)->FileObject != file)
			continue;
		if (!IoSetCancelRoutine(irp, NULL))
			continue;
		RemoveEntryList(e);
		return irp;
	}
	return NULL;
}

static VOID NTAPI ec_dpc(PKDPC dpc, PVOID ctx, PVOID a1, PVOID a2)
{
	struct echo *dx = ctx;
	PIRP irp;

	UNREFERENCED_PARAMETER(dpc);
	UNREFERENCED_PARAMETER(a1);
	UNREFERENCED_PARAMETER(a2);
	for (;;) {
		ULONG n = 0, len;
		PUCHAR p;

		KeAcquireSpinLockAtDpcLevel(&dx->lock);
		irp = dx->count ? ec_take(dx, NULL) : NULL;
		if (irp) {
			p = irp->AssociatedIrp.SystemBuffer;
			len = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length;
			while (n < len && dx->count) {
				p[n++] = dx->ring[dx->head];
				dx->head = (dx->head + 1) % EC_SIZE;
				dx->count--;
			}
		}
		KeReleaseSpinLockFromDpcLevel(&dx->lock);
		if (!irp)
			break;
		ec_done(irp, STATUS_SUCCESS, n);
		ec_put(dx);
	}
}

static VOID ec_flush(struct echo *dx, PFILE_OBJECT file, NTSTATUS st)
{
	PIRP irp;
	KIRQL irql;

	for (;;) {
		KeAcquireSpinLock(&dx->lock, &irql);
		irp = ec_take(dx, file);
		KeReleaseSpinLock(&dx->lock, irql);
		if (!irp)
			return;
		ec_done(irp, st, 0);
		ec_put(dx);
	}
}

static VOID ec_shut(struct echo *dx)
{
	KIRQL irql;

	KeAcquireSpinLock(&dx->lock, &irql);
	dx->running = 0;
	KeReleaseSpinLock(&dx->lock, irql);
	KeCancelTimer(&dx->timer);
	KeFlushQueuedDpcs();
	ec_flush(dx, NULL, STATUS_DELETE_PENDING);
}

static NTSTATUS NTAPI ec_read(PDEVICE_OBJECT dev, PIRP irp)
{
	struct echo *dx = dev->DeviceExtension;
	NTSTATUS st;
	KIRQL irql;

	if (!ec_get(dx))
		return ec_done(irp, STATUS_DELETE_PENDING, 0);
	if (!IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length) {
		st = STATUS_SUCCESS;
		goto out;
	}
	KeAcquireSpinLock(&dx->lock, &irql);
	if (!dx->running) {
		KeReleaseSpinLock(&dx->lock, irql);
		st = STATUS_DELETE_PENDING;
		goto out;
	}
	IoSetCancelRoutine(irp, ec_cancel);
	if (irp->Cancel && IoSetCancelRoutine(irp, NULL)) {
		KeReleaseSpinLock(&dx->lock, irql);
		st = STATUS_CANCELLED;
		goto out;
	}
#ifdef FIXED
	IoMarkIrpPending(irp);
#endif
	InsertTailList(&dx->reads, &irp->Tail.Overlay.ListEntry);
	KeReleaseSpinLock(&dx->lock, irql);
#ifndef FIXED
	IoMarkIrpPending(irp);
#endif
	return STATUS_PENDING;
out:
	ec_done(irp, st, 0);
	ec_put(dx);
	return st;
}

static NTSTATUS NTAPI ec_write(PDEVICE_OBJECT dev, PIRP irp)
{
	struct echo *dx = dev->DeviceExtension;
	ULONG len = IoGetCurrentIrpStackLocation(irp)->Parameters.Write.Length, n = 0;
	PUCHAR p = irp->AssociatedIrp.SystemBuffer;
	NTSTATUS st = STATUS_SUCCESS;
	KIRQL irql;

	if (!ec_get(dx))
		return ec_done(irp, STATUS_DELETE_PENDING, 0);
	KeAcquireSpinLock(&dx->lock, &irql);
	if (dx->running) {
		while (n < len && dx->count < EC_SIZE)
			dx->ring[(dx->head + dx->count++) % EC_SIZE] = p[n++];
	} else {
		st = STATUS_DELETE_PENDING;
	}
	KeReleaseSpinLock(&dx->lock, irql);
	ec_done(irp, st, n);
	ec_put(dx);
	return st;
}

static NTSTATUS NTAPI ec_cleanup(PDEVICE_OBJECT dev, PIRP irp)
{
	ec_flush(dev->DeviceExtension, IoGetCurrentIrpStackLocation(irp)->FileObject, STATUS_CANCELLED);
	return ec_done(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS ec_start(struct echo *dx)
{
	LARGE_INTEGER due;
	NTSTATUS st = IoSetDeviceInterfaceState(&dx->link, TRUE);

	if (!NT_SUCCESS(st))
		return st;
	dx->running = 1;
	due.QuadPart = -10000;
	KeSetTimerEx(&dx->timer, due, 1, &dx->dpc);
	return STATUS_SUCCESS;
}

static NTSTATUS NTAPI ec_pnp(PDEVICE_OBJECT dev, PIRP irp)
{
	struct echo *dx = dev->DeviceExtension;
	UCHAR minor = IoGetCurrentIrpStackLocation(irp)->MinorFunction;
	KEVENT ev;
	NTSTATUS st;

	if (!ec_get(dx))
		return ec_done(irp, STATUS_DELETE_PENDING, 0);

	switch (minor) {
	case IRP_MN_START_DEVICE:
		KeInitializeEvent(&ev, NotificationEvent, FALSE);
		IoCopyCurrentIrpStackLocationToNext(irp);
		IoSetCompletionRoutine(irp, ec_started, &ev, TRUE, TRUE, TRUE);
		st = IoCallDriver(dx->lower, irp);
		if (st == STATUS_PENDING) {
			KeWaitForSingleObject(&ev, Executive, KernelMode, FALSE, NULL);
			st = irp->IoStatus.Status;
		}
		if (NT_SUCCESS(st))
			st = ec_start(dx);
		ec_done(irp, st, 0);
		ec_put(dx);
		return st;

	case IRP_MN_SURPRISE_REMOVAL:
		dx->running = 0;
		IoSetDeviceInterfaceState(&dx->link, FALSE);
		ec_shut(dx);
		irp->IoStatus.Status = STATUS_SUCCESS;
		break;

	case IRP_MN_REMOVE_DEVICE:
		dx->running = 0;
		IoSetDeviceInterfaceState(&dx->link, FALSE);
		ec_shut(dx);
		InterlockedExchange(&dx->removed, 1);
		ec_put(dx);		/* this request */
		ec_put(dx);		/* the device itself */
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
	ec_put(dx);
	return st;
}

static NTSTATUS NTAPI ec_add(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
	PDEVICE_OBJECT dev;
	struct echo *dx;
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
	InitializeListHead(&dx->reads);
	KeInitializeTimer(&dx->timer);
	KeInitializeDpc(&dx->dpc, ec_dpc, dx);
	st = IoRegisterDeviceInterface(pdo, &guid_echo, NULL, &dx->link);
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

static VOID NTAPI ec_unload(PDRIVER_OBJECT drv)
{
	UNREFERENCED_PARAMETER(drv);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
	UNREFERENCED_PARAMETER(path);
	drv->DriverUnload = ec_unload;
	drv->DriverExtension->AddDevice = ec_add;
	drv->MajorFunction[IRP_MJ_CREATE] = ec_create;
	drv->MajorFunction[IRP_MJ_CLOSE] = ec_close;
	drv->MajorFunction[IRP_MJ_PNP] = ec_pnp;
	drv->MajorFunction[IRP_MJ_POWER] = ec_power;
	drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = ec_pass;
	drv->MajorFunction[IRP_MJ_READ] = ec_read;
	drv->MajorFunction[IRP_MJ_WRITE] = ec_write;
	drv->MajorFunction[IRP_MJ_CLEANUP] = ec_cleanup;
	return STATUS_SUCCESS;
}

/*
 * Recorder: each open file has a thread that samples the interrupt time into the file's buffer till the handle is closed.
 *
 * The bug: cleanup stops the thread and waits for it while holding the mutex that the thread takes for each sample.
 *
 * Device: ROOT\BLIND20
 * Rule: deadlock
 * Needs: ioctl, schedule
 * Symptom: deadlock in CloseHandle when it comes just as a sample is due: the closing thread and the recorder wait for each other.
 */
#include <ddk/wdm.h>

#define RC_TAG 'droR'
#define SAMPLES 512

#define IOCTL_REC_RESET CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA10, METHOD_BUFFERED, FILE_READ_DATA)

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);

static const GUID guid_rec =
	{ 0x5bb2e0a1, 0x4a1e, 0x4f56, { 0x9d, 0x11, 0x7e, 0x60, 0x00, 0x00, 0x00, 0x20 } };

struct rec {
	PDEVICE_OBJECT dev, pdo, lower;
	UNICODE_STRING link;
	volatile LONG users, removed, running;
	KEVENT idle;
};

struct rec_file {
	KMUTEX mutex;
	volatile LONG stop;
	PVOID thread;
	ULONG first, count;
	ULONGLONG sample[SAMPLES];
};

static NTSTATUS rec_done(PIRP irp, NTSTATUS st, ULONG_PTR n)
{
	irp->IoStatus.Status = st;
	irp->IoStatus.Information = n;
	IoCompleteRequest(irp, IO_NO_INCREMENT);
	return st;
}

static VOID rec_put(struct rec *dx)
{
	if (InterlockedDecrement(&dx->users) == 0)
		KeSetEvent(&dx->idle, IO_NO_INCREMENT, FALSE);
}

/* Every request that reaches the device holds a use count till it is done. */
static BOOLEAN rec_get(struct rec *dx)
{
	InterlockedIncrement(&dx->users);
	if (dx->removed) {
		rec_put(dx);
		return FALSE;
	}
	return TRUE;
}

static NTSTATUS NTAPI rec_pass(PDEVICE_OBJECT dev, PIRP irp)
{
	struct rec *dx = dev->DeviceExtension;
	NTSTATUS st;

	if (!rec_get(dx))
		return rec_done(irp, STATUS_DELETE_PENDING, 0);
	IoSkipCurrentIrpStackLocation(irp);
	st = IoCallDriver(dx->lower, irp);
	rec_put(dx);
	return st;
}

static NTSTATUS NTAPI rec_started(PDEVICE_OBJECT dev, PIRP irp, PVOID ctx)
{
	UNREFERENCED_PARAMETER(dev);
	if (irp->PendingReturned)
		KeSetEvent(ctx, IO_NO_INCREMENT, FALSE);
	return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS NTAPI rec_power(PDEVICE_OBJECT dev, PIRP irp)
{
	struct rec *dx = dev->DeviceExtension;
	NTSTATUS st;

	PoStartNextPowerIrp(irp);
	if (!rec_get(dx))
		return rec_done(irp, STATUS_DELETE_PENDING, 0);
	IoSkipCurrentIrpStackLocation(irp);
	st = PoCallDriver(dx->lower, irp);
	rec_put(dx);
	return st;
}

static NTSTATUS rec_start(struct rec *dx)
{
	NTSTATUS st = IoSetDeviceInterfaceState(&dx->link, TRUE);

	if (!NT_SUCCESS(st))
		return st;
	dx->running = 1;
	return STATUS_SUCCESS;
}

static NTSTATUS NTAPI rec_pnp(PDEVICE_OBJECT dev, PIRP irp)
{
	struct rec *dx = dev->DeviceExtension;
	UCHAR minor = IoGetCurrentIrpStackLocation(irp)->MinorFunction;
	KEVENT ev;
	NTSTATUS st;

	if (!rec_get(dx))
		return rec_done(irp, STATUS_DELETE_PENDING, 0);

	switch (minor) {
	case IRP_MN_START_DEVICE:
		KeInitializeEvent(&ev, NotificationEvent, FALSE);
		IoCopyCurrentIrpStackLocationToNext(irp);
		IoSetCompletionRoutine(irp, rec_started, &ev, TRUE, TRUE, TRUE);
		st = IoCallDriver(dx->lower, irp);
		if (st == STATUS_PENDING) {
			KeWaitForSingleObject(&ev, Executive, KernelMode, FALSE, NULL);
			st = irp->IoStatus.Status;
		}
		if (NT_SUCCESS(st))
			st = rec_start(dx);
		rec_done(irp, st, 0);
		rec_put(dx);
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
		rec_put(dx);		/* this request */
		rec_put(dx);		/* the device itself */
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
	rec_put(dx);
	return st;
}

static VOID rec_lock(struct rec_file *f)
{
	KeWaitForSingleObject(&f->mutex, Executive, KernelMode, FALSE, NULL);
}

static VOID rec_unlock(struct rec_file *f)
{
	KeReleaseMutex(&f->mutex, FALSE);
}

static VOID NTAPI rec_thread(PVOID ctx)
{
	struct rec_file *f = ctx;
	LARGE_INTEGER pause;

	pause.QuadPart = -5 * 10000;
	while (!f->stop) {
		rec_lock(f);
		if (f->count == SAMPLES) {
			f->first = (f->first + 1) % SAMPLES;
			f->count--;
		}
		f->sample[(f->first + f->count++) % SAMPLES] = KeQueryInterruptTime();
		rec_unlock(f);
		KeDelayExecutionThread(KernelMode, FALSE, &pause);
	}
	PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS rec_run(struct rec_file *f)
{
	OBJECT_ATTRIBUTES oa;
	NTSTATUS st;
	HANDLE h;

	InitializeObjectAttributes(&oa, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
	st = PsCreateSystemThread(&h, THREAD_ALL_ACCESS, &oa, NULL, NULL, rec_thread, f);
	if (!NT_SUCCESS(st))
		return st;
	st = ObReferenceObjectByHandle(h, SYNCHRONIZE, NULL, KernelMode, &f->thread, NULL);
	if (!NT_SUCCESS(st)) {
		InterlockedExchange(&f->stop, 1);
		ZwWaitForSingleObject(h, FALSE, NULL);
	}
	ZwClose(h);
	return st;
}

static NTSTATUS NTAPI rec_create(PDEVICE_OBJECT dev, PIRP irp)
{
	struct rec *dx = dev->DeviceExtension;
	struct rec_file *f = NULL;
	NTSTATUS st = STATUS_INSUFFICIENT_RESOURCES;

	if (!rec_get(dx))
		return rec_done(irp, STATUS_DELETE_PENDING, 0);
	if (!dx->running) {
		st = STATUS_DELETE_PENDING;
	} else {
		f = ExAllocatePoolWithTag(NonPagedPool, sizeof(*f), RC_TAG);
		if (f) {
			RtlZeroMemory(f, sizeof(*f));
			KeInitializeMutex(&f->mutex, 0);
			st = rec_run(f);
			if (NT_SUCCESS(st))
				IoGetCurrentIrpStackLocation(irp)->FileObject->FsContext = f;
			else
				ExFreePoolWithTag(f, RC_TAG);
		}
	}
	rec_done(irp, st, 0);
	rec_put(dx);
	return st;
}

static NTSTATUS NTAPI rec_cleanup(PDEVICE_OBJECT dev, PIRP irp)
{
	struct rec_file *f = IoGetCurrentIrpStackLocation(irp)->FileObject->FsContext;

	UNREFERENCED_PARAMETER(dev);
	rec_lock(f);
	InterlockedExchange(&f->stop, 1);
#ifdef FIXED
	rec_unlock(f);
	KeWaitForSingleObject(f->thread, Executive, KernelMode, FALSE, NULL);
#else
	KeWaitForSingleObject(f->thread, Executive, KernelMode, FALSE, NULL);
	rec_unlock(f);
#endif
	return rec_done(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI rec_close(PDEVICE_OBJECT dev, PIRP irp)
{
	struct rec_file *f = IoGetCurrentIrpStackLocation(irp)->FileObject->FsContext;

	UNREFERENCED_PARAMETER(dev);
	ObDereferenceObject(f->thread);
	ExFreePoolWithTag(f, RC_TAG);
	return rec_done(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI rec_read(PDEVICE_OBJECT dev, PIRP irp)
{
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
	struct rec_file *f = sp->FileObject->FsContext;
	struct rec *dx = dev->DeviceExtension;
	PULONGLONG out = irp->AssociatedIrp.SystemBuffer;
	ULONG max = sp->Parameters.Read.Length / sizeof(ULONGLONG), n = 0;

	if (!rec_get(dx))
		return rec_done(irp, STATUS_DELETE_PENDING, 0);
	rec_lock(f);
	while (n < max && f->count) {
		out[n++] = f->sample[f->first];
		f->first = (f->first + 1) % SAMPLES;
		f->count--;
	}
	rec_unlock(f);
	rec_done(irp, STATUS_SUCCESS, n * sizeof(ULONGLONG));
	rec_put(dx);
	return STATUS_SUCCESS;
}

static NTSTATUS NTAPI rec_ioctl(PDEVICE_OBJECT dev, PIRP irp)
{
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
	struct rec_file *f = sp->FileObject->FsContext;
	struct rec *dx = dev->DeviceExtension;
	NTSTATUS st = STATUS_INVALID_DEVICE_REQUEST;

	if (!rec_get(dx))
		return rec_done(irp, STATUS_DELETE_PENDING, 0);
	if (sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_REC_RESET) {
		rec_lock(f);
		f->first = f->count = 0;
		rec_unlock(f);
		st = STATUS_SUCCESS;
	}
	rec_done(irp, st, 0);
	rec_put(dx);
	return st;
}

static NTSTATUS NTAPI rec_add(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
	PDEVICE_OBJECT dev;
	struct rec *dx;
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
	st = IoRegisterDeviceInterface(pdo, &guid_rec, NULL, &dx->link);
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

static VOID NTAPI rec_unload(PDRIVER_OBJECT drv)
{
	UNREFERENCED_PARAMETER(drv);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
	UNREFERENCED_PARAMETER(path);
	drv->DriverUnload = rec_unload;
	drv->DriverExtension->AddDevice = rec_add;
	drv->MajorFunction[IRP_MJ_CREATE] = rec_create;
	drv->MajorFunction[IRP_MJ_CLOSE] = rec_close;
	drv->MajorFunction[IRP_MJ_PNP] = rec_pnp;
	drv->MajorFunction[IRP_MJ_POWER] = rec_power;
	drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = rec_pass;
	drv->MajorFunction[IRP_MJ_CLEANUP] = rec_cleanup;
	drv->MajorFunction[IRP_MJ_READ] = rec_read;
	drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = rec_ioctl;
	return STATUS_SUCCESS;
}

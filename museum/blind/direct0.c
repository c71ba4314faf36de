/*
 * Waveform store: a METHOD_IN_DIRECT request loads up to 64 KB of samples, a METHOD_BUFFERED one gives peak and sum.
 *
 * The bug: the load takes for granted that there is an MDL; for an empty data buffer the I/O manager makes none.
 *
 * Device: ROOT\BLIND12
 * Rule: wild-read
 * Needs: ioctl
 * Symptom: NULL pointer read in wave_load (0x3B / 0x7E) when the request's output length is 0.
 */
#include <ddk/wdm.h>

#define WV_TAG 'evaW'
#define MAX_WAVE 65536

#define IOCTL_WAVE_LOAD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x990, METHOD_IN_DIRECT, FILE_WRITE_DATA)
#define IOCTL_WAVE_PEAK CTL_CODE(FILE_DEVICE_UNKNOWN, 0x991, METHOD_BUFFERED, FILE_READ_DATA)

static const GUID guid_wave =
	{ 0x5bb2e0a1, 0x4a1e, 0x4f56, { 0x9d, 0x11, 0x7e, 0x60, 0x00, 0x00, 0x00, 0x12 } };

struct wave_peak {
	LONG peak;
	ULONG samples;
	LONGLONG sum;
};

struct wave {
	PDEVICE_OBJECT dev, pdo, lower;
	UNICODE_STRING link;
	volatile LONG users, removed, running;
	KEVENT idle;
	KMUTEX mutex;
	SHORT *data;
	ULONG samples;
};

static NTSTATUS wave_done(PIRP irp, NTSTATUS st, ULONG_PTR n)
{
	irp->IoStatus.Status = st;
	irp->IoStatus.Information = n;
	IoCompleteRequest(irp, IO_NO_INCREMENT);
	return st;
}

static VOID wave_put(struct wave *dx)
{
	if (InterlockedDecrement(&dx->users) == 0)
		KeSetEvent(&dx->idle, IO_NO_INCREMENT, FALSE);
}

/* Every request that reaches the device holds a use count till it is done. */
static BOOLEAN wave_get(struct wave *dx)
{
	InterlockedIncrement(&dx->users);
	if (dx->removed) {
		wave_put(dx);
		return FALSE;
	}
	return TRUE;
}

static NTSTATUS NTAPI wave_pass(PDEVICE_OBJECT dev, PIRP irp)
{
	struct wave *dx = dev->DeviceExtension;
	NTSTATUS st;

	if (!wave_get(dx))
		return wave_done(irp, STATUS_DELETE_PENDING, 0);
	IoSkipCurrentIrpStackLocation(irp);
	st = IoCallDriver(dx->lower, irp);
	wave_put(dx);
	return st;
}

static NTSTATUS NTAPI wave_started(PDEVICE_OBJECT dev, PIRP irp, PVOID ctx)
{
	UNREFERENCED_PARAMETER(dev);
	if (irp->PendingReturned)
		KeSetEvent(ctx, IO_NO_INCREMENT, FALSE);
	return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS NTAPI wave_power(PDEVICE_OBJECT dev, PIRP irp)
{
	struct wave *dx = dev->DeviceExtension;
	NTSTATUS st;

	PoStartNextPowerIrp(irp);
	if (!wave_get(dx))
		return wave_done(irp, STATUS_DELETE_PENDING, 0);
	IoSkipCurrentIrpStackLocation(irp);
	st = PoCallDriver(dx->lower, irp);
	wave_put(dx);
	return st;
}

static NTSTATUS NTAPI wave_create(PDEVICE_OBJECT dev, PIRP irp)
{
	struct wave *dx = dev->DeviceExtension;
	NTSTATUS st = STATUS_DELETE_PENDING;

	if (!wave_get(dx))
		return wave_done(irp, st, 0);
	if (dx->running)
		st = STATUS_SUCCESS;
	st = wave_done(irp, st, 0);
	wave_put(dx);
	return st;
}

static NTSTATUS NTAPI wave_close(PDEVICE_OBJECT dev, PIRP irp)
{
	UNREFERENCED_PARAMETER(dev);
	return wave_done(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS wave_start(struct wave *dx)
{
	NTSTATUS st = IoSetDeviceInterfaceState(&dx->link, TRUE);

	if (!NT_SUCCESS(st))
		return st;
	dx->running = 1;
	return STATUS_SUCCESS;
}

static NTSTATUS NTAPI wave_pnp(PDEVICE_OBJECT dev, PIRP irp)
{
	struct wave *dx = dev->DeviceExtension;
	UCHAR minor = IoGetCurrentIrpStackLocation(irp)->MinorFunction;
	KEVENT ev;
	NTSTATUS st;

	if (!wave_get(dx))
		return wave_done(irp, STATUS_DELETE_PENDING, 0);

	switch (minor) {
	case IRP_MN_START_DEVICE:
		KeInitializeEvent(&ev, NotificationEvent, FALSE);
		IoCopyCurrentIrpStackLocationToNext(irp);
		IoSetCompletionRoutine(irp, wave_started, &ev, TRUE, TRUE, TRUE);
		st = IoCallDriver(dx->lower, irp);
		if (st == STATUS_PENDING) {
			KeWaitForSingleObject(&ev, Executive, KernelMode, FALSE, NULL);
			st = irp->IoStatus.Status;
		}
		if (NT_SUCCESS(st))
			st = wave_start(dx);
		wave_done(irp, st, 0);
		wave_put(dx);
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
		wave_put(dx);		/* this request */
		wave_put(dx);		/* the device itself */
		KeWaitForSingleObject(&dx->idle, Executive, KernelMode, FALSE, NULL);
		irp->IoStatus.Status = STATUS_SUCCESS;
		IoSkipCurrentIrpStackLocation(irp);
		st = IoCallDriver(dx->lower, irp);
		IoDetachDevice(dx->lower);
		if (dx->data)
			ExFreePoolWithTag(dx->data, WV_TAG);
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
	wave_put(dx);
	return st;
}

static NTSTATUS wave_load(struct wave *dx, PIRP irp, ULONG len)
{
	SHORT *data, *old;
	PVOID src;

	if (len > MAX_WAVE)
		return STATUS_INVALID_BUFFER_SIZE;
#ifdef FIXED
	if (!irp->MdlAddress)
		return STATUS_INVALID_PARAMETER;
#endif
	src = MmGetSystemAddressForMdlSafe(irp->MdlAddress, NormalPagePriority);
	if (!src)
		return STATUS_INSUFFICIENT_RESOURCES;
	data = ExAllocatePoolWithTag(PagedPool, len, WV_TAG);
	if (!data)
		return STATUS_INSUFFICIENT_RESOURCES;
	RtlCopyMemory(data, src, len);

	KeWaitForSingleObject(&dx->mutex, Executive, KernelMode, FALSE, NULL);
	old = dx->data;
	dx->data = data;
	dx->samples = len / sizeof(SHORT);
	KeReleaseMutex(&dx->mutex, FALSE);
	if (old)
		ExFreePoolWithTag(old, WV_TAG);
	return STATUS_SUCCESS;
}

static VOID wave_scan(struct wave *dx, struct wave_peak *p)
{
	ULONG i;

	RtlZeroMemory(p, sizeof(*p));
	KeWaitForSingleObject(&dx->mutex, Executive, KernelMode, FALSE, NULL);
	p->samples = dx->samples;
	for (i = 0; i < dx->samples; i++) {
		LONG v = dx->data[i];

		p->sum += v;
		if (v < 0)
			v = -v;
		if (v > p->peak)
			p->peak = v;
	}
	KeReleaseMutex(&dx->mutex, FALSE);
}

static NTSTATUS NTAPI wave_ioctl(PDEVICE_OBJECT dev, PIRP irp)
{
	struct wave *dx = dev->DeviceExtension;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
	ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
	ULONG_PTR n = 0;
	NTSTATUS st;

	if (!wave_get(dx))
		return wave_done(irp, STATUS_DELETE_PENDING, 0);
	if (!dx->running) {
		st = STATUS_DELETE_PENDING;
	} else if (sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_WAVE_LOAD) {
		st = wave_load(dx, irp, out);
		if (NT_SUCCESS(st))
			n = out;
	} else if (sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_WAVE_PEAK) {
		if (out < sizeof(struct wave_peak)) {
			st = STATUS_BUFFER_TOO_SMALL;
		} else {
			wave_scan(dx, irp->AssociatedIrp.SystemBuffer);
			n = sizeof(struct wave_peak);
			st = STATUS_SUCCESS;
		}
	} else {
		st = STATUS_INVALID_DEVICE_REQUEST;
	}
	wave_done(irp, st, n);
	wave_put(dx);
	return st;
}

static NTSTATUS NTAPI wave_add(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
	PDEVICE_OBJECT dev;
	struct wave *dx;
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
	KeInitializeMutex(&dx->mutex, 0);
	st = IoRegisterDeviceInterface(pdo, &guid_wave, NULL, &dx->link);
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

static VOID NTAPI wave_unload(PDRIVER_OBJECT drv)
{
	UNREFERENCED_PARAMETER(drv);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
	UNREFERENCED_PARAMETER(path);
	drv->DriverUnload = wave_unload;
	drv->DriverExtension->AddDevice = wave_add;
	drv->MajorFunction[IRP_MJ_CREATE] = wave_create;
	drv->MajorFunction[IRP_MJ_CLOSE] = wave_close;
	drv->MajorFunction[IRP_MJ_PNP] = wave_pnp;
	drv->MajorFunction[IRP_MJ_POWER] = wave_power;
	drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = wave_pass;
	drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = wave_ioctl;
	return STATUS_SUCCESS;
}

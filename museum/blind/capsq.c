/*
 * Capability reader: asks the devices below for their capabilities at start and gives them to applications.
 *
 * The bug: the completion routine of the driver's own request lets completion go on instead of taking the request back,
 * so the I/O manager finishes with a request that the driver frees as well.
 *
 * Device: ROOT\BLIND22
 * Rule: allocated-irp-completed
 * Needs: nothing
 * Symptom: crash in IoCompleteRequest (no thread to complete to) or the IRP freed twice (0xC2, 0x44) at each start.
 */
#include <ddk/wdm.h>

#define IOCTL_CAPS_GET     CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA30, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_CAPS_REFRESH CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA31, METHOD_BUFFERED, FILE_WRITE_DATA)

static const GUID guid_caps =
	{ 0x5bb2e0a1, 0x4a1e, 0x4f56, { 0x9d, 0x11, 0x7e, 0x60, 0x00, 0x00, 0x00, 0x22 } };

struct caps_out {
	ULONG address, ui_number;
	ULONG wake_s, wake_d;
	ULONG states[8];
};

struct caps {
	PDEVICE_OBJECT dev, pdo, lower;
	UNICODE_STRING link;
	volatile LONG users, removed, running;
	KEVENT idle;
	FAST_MUTEX mutex;
	struct caps_out out;
};

static NTSTATUS caps_done(PIRP irp, NTSTATUS st, ULONG_PTR n)
{
	irp->IoStatus.Status = st;
	irp->IoStatus.Information = n;
	IoCompleteRequest(irp, IO_NO_INCREMENT);
	return st;
}

static VOID caps_put(struct caps *dx)
{
	if (InterlockedDecrement(&dx->users) == 0)
		KeSetEvent(&dx->idle, IO_NO_INCREMENT, FALSE);
}

/* Every request that reaches the device holds a use count till it is done. */
static BOOLEAN caps_get(struct caps *dx)
{
	InterlockedIncrement(&dx->users);
	if (dx->removed) {
		caps_put(dx);
		return FALSE;
	}
	return TRUE;
}

static NTSTATUS NTAPI caps_pass(PDEVICE_OBJECT dev, PIRP irp)
{
	struct caps *dx = dev->DeviceExtension;
	NTSTATUS st;

	if (!caps_get(dx))
		return caps_done(irp, STATUS_DELETE_PENDING, 0);
	IoSkipCurrentIrpStackLocation(irp);
	st = IoCallDriver(dx->lower, irp);
	caps_put(dx);
	return st;
}

static NTSTATUS NTAPI caps_started(PDEVICE_OBJECT dev, PIRP irp, PVOID ctx)
{
	UNREFERENCED_PARAMETER(dev);
	if (irp->PendingReturned)
		KeSetEvent(ctx, IO_NO_INCREMENT, FALSE);
	return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS NTAPI caps_power(PDEVICE_OBJECT dev, PIRP irp)
{
	struct caps *dx = dev->DeviceExtension;
	NTSTATUS st;

	PoStartNextPowerIrp(irp);
	if (!caps_get(dx))
		return caps_done(irp, STATUS_DELETE_PENDING, 0);
	IoSkipCurrentIrpStackLocation(irp);
	st = PoCallDriver(dx->lower, irp);
	caps_put(dx);
	return st;
}

static NTSTATUS NTAPI caps_create(PDEVICE_OBJECT dev, PIRP irp)
{
	struct caps *dx = dev->DeviceExtension;
	NTSTATUS st = STATUS_DELETE_PENDING;

	if (!caps_get(dx))
		return caps_done(irp, st, 0);
	if (dx->running)
		st = STATUS_SUCCESS;
	st = caps_done(irp, st, 0);
	caps_put(dx);
	return st;
}

static NTSTATUS NTAPI caps_close(PDEVICE_OBJECT dev, PIRP irp)
{
	UNREFERENCED_PARAMETER(dev);
	return caps_done(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI caps_answered(PDEVICE_OBJECT dev, PIRP irp, PVOID ctx)
{
	UNREFERENCED_PARAMETER(dev);
	UNREFERENCED_PARAMETER(irp);
	KeSetEvent(ctx, IO_NO_INCREMENT, FALSE);
#ifdef FIXED
	return STATUS_MORE_PROCESSING_REQUIRED;
#else
	return STATUS_SUCCESS;
#endif
}

static NTSTATUS caps_query(struct caps *dx)
{
	DEVICE_CAPABILITIES c;
	PIO_STACK_LOCATION sp;
	NTSTATUS st;
	KEVENT ev;
	PIRP irp;
	int i;

	irp = IoAllocateIrp(dx->lower->StackSize, FALSE);
	if (!irp)
		return STATUS_INSUFFICIENT_RESOURCES;
	RtlZeroMemory(&c, sizeof(c));
	c.Size = sizeof(c);
	c.Version = 1;
	c.Address = (ULONG)-1;
	c.UINumber = (ULONG)-1;
	irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
	sp = IoGetNextIrpStackLocation(irp);
	sp->MajorFunction = IRP_MJ_PNP;
	sp->MinorFunction = IRP_MN_QUERY_CAPABILITIES;
	sp->Parameters.DeviceCapabilities.Capabilities = &c;
	KeInitializeEvent(&ev, NotificationEvent, FALSE);
	IoSetCompletionRoutine(irp, caps_answered, &ev, TRUE, TRUE, TRUE);
	IoCallDriver(dx->lower, irp);
	KeWaitForSingleObject(&ev, Executive, KernelMode, FALSE, NULL);
	st = irp->IoStatus.Status;
	IoFreeIrp(irp);
	if (!NT_SUCCESS(st))
		return st;

	ExAcquireFastMutex(&dx->mutex);
	dx->out.address = c.Address;
	dx->out.ui_number = c.UINumber;
	dx->out.wake_s = c.SystemWake;
	dx->out.wake_d = c.DeviceWake;
	for (i = 0; i < 8; i++)
		dx->out.states[i] = i < PowerSystemMaximum ? (ULONG)c.DeviceState[i] : 0;
	ExReleaseFastMutex(&dx->mutex);
	return STATUS_SUCCESS;
}

static NTSTATUS caps_start(struct caps *dx)
{
	NTSTATUS st = caps_query(dx);

	if (!NT_SUCCESS(st))
		return st;
	st = IoSetDeviceInterfaceState(&dx->link, TRUE);
	if (!NT_SUCCESS(st))
		return st;
	dx->running = 1;
	return STATUS_SUCCESS;
}

static NTSTATUS NTAPI caps_pnp(PDEVICE_OBJECT dev, PIRP irp)
{
	struct caps *dx = dev->DeviceExtension;
	UCHAR minor = IoGetCurrentIrpStackLocation(irp)->MinorFunction;
	KEVENT ev;
	NTSTATUS st;

	if (!caps_get(dx))
		return caps_done(irp, STATUS_DELETE_PENDING, 0);

	switch (minor) {
	case IRP_MN_START_DEVICE:
		KeInitializeEvent(&ev, NotificationEvent, FALSE);
		IoCopyCurrentIrpStackLocationToNext(irp);
		IoSetCompletionRoutine(irp, caps_started, &ev, TRUE, TRUE, TRUE);
		st = IoCallDriver(dx->lower, irp);
		if (st == STATUS_PENDING) {
			KeWaitForSingleObject(&ev, Executive, KernelMode, FALSE, NULL);
			st = irp->IoStatus.Status;
		}
		if (NT_SUCCESS(st))
			st = caps_start(dx);
		caps_done(irp, st, 0);
		caps_put(dx);
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
		caps_put(dx);		/* this request */
		caps_put(dx);		/* the device itself */
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
	caps_put(dx);
	return st;
}

static NTSTATUS NTAPI caps_ioctl(PDEVICE_OBJECT dev, PIRP irp)
{
	struct caps *dx = dev->DeviceExtension;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
	NTSTATUS st = STATUS_SUCCESS;
	ULONG n = 0;

	if (!caps_get(dx))
		return caps_done(irp, STATUS_DELETE_PENDING, 0);
	if (!dx->running) {
		st = STATUS_DELETE_PENDING;
	} else if (sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_CAPS_GET) {
		if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(struct caps_out)) {
			st = STATUS_BUFFER_TOO_SMALL;
		} else {
			n = sizeof(struct caps_out);
			ExAcquireFastMutex(&dx->mutex);
			*(struct caps_out *)irp->AssociatedIrp.SystemBuffer = dx->out;
			ExReleaseFastMutex(&dx->mutex);
		}
	} else if (sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_CAPS_REFRESH) {
		st = caps_query(dx);
	} else {
		st = STATUS_INVALID_DEVICE_REQUEST;
	}
	caps_done(irp, st, n);
	caps_put(dx);
	return st;
}

static NTSTATUS NTAPI caps_add(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
	PDEVICE_OBJECT dev;
	struct caps *dx;
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
	ExInitializeFastMutex(&dx->mutex);
	st = IoRegisterDeviceInterface(pdo, &guid_caps, NULL, &dx->link);
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

static VOID NTAPI caps_unload(PDRIVER_OBJECT drv)
{
	UNREFERENCED_PARAMETER(drv);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
	UNREFERENCED_PARAMETER(path);
	drv->DriverUnload = caps_unload;
	drv->DriverExtension->AddDevice = caps_add;
	drv->MajorFunction[IRP_MJ_CREATE] = caps_create;
	drv->MajorFunction[IRP_MJ_CLOSE] = caps_close;
	drv->MajorFunction[IRP_MJ_PNP] = caps_pnp;
	drv->MajorFunction[IRP_MJ_POWER] = caps_power;
	drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = caps_pass;
	drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = caps_ioctl;
	return STATUS_SUCCESS;
}

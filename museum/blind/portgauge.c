/*
 * portgauge - a gauge on top of a device: it passes all requests on and counts them, their bytes and the
 * failures, with the control code that failed last. One IOCTL of its own gives the figures.
 *
 * The bug: the stack location is read behind IoCallDriver.
 *
 * Device: ROOT\PORTGAUGE
 * Rule: use-after-free
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define TAG 'guaG'
#define IOCTL_GAUGE_READ CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9F0, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_GAUGE_RESET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9F1, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID InterfaceGuid = { 0x6a3c1f20, 0x11d2, 0x4b8e, { 0x90, 0x01, 0x3a, 0x51, 0x22, 0x9c, 0x10, 0x0d } };

typedef struct _FIGURES {
	ULONG Requests;
	ULONG Completed;
	ULONG Failed;
	ULONG LastFailedCode;
	ULONG64 Bytes;
	LONG64 LongestTicks;
} FIGURES;

/* Accompanies a request on its way down. */
typedef struct _TRIP {
	struct _EXT *Ext;
	LARGE_INTEGER Start;
} TRIP;

typedef struct _EXT {
	PDEVICE_OBJECT Self;
	PDEVICE_OBJECT Pdo;
	PDEVICE_OBJECT Lower;
	IO_REMOVE_LOCK RemoveLock;
	UNICODE_STRING Interface;
	BOOLEAN InterfaceOn;
	KSPIN_LOCK Lock;
	FIGURES Figures;		/* guarded by the lock */
} EXT;

static NPAGED_LOOKASIDE_LIST Trips;

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
	Irp->IoStatus.Status = Status;
	Irp->IoStatus.Information = Information;
	IoCompleteRequest(Irp, IO_NO_INCREMENT);
	return Status;
}

static NTSTATUS Done(EXT *ext, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
	Finish(Irp, Status, Information);
	IoReleaseRemoveLock(&ext->RemoveLock, Irp);
	return Status;
}

/* Passes a request on that is not counted; it holds the remove lock. */
static NTSTATUS Pass(EXT *ext, PIRP Irp)
{
	NTSTATUS status;

	IoSkipCurrentIrpStackLocation(Irp);
	status = IoCallDriver(ext->Lower, Irp);
	IoReleaseRemoveLock(&ext->RemoveLock, Irp);
	return status;
}

static NTSTATUS NTAPI TripOver(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
	TRIP *trip = Context;
	EXT *ext = trip->Ext;
	LARGE_INTEGER now = KeQueryPerformanceCounter(NULL);
	KIRQL irql;

	UNREFERENCED_PARAMETER(Device);
	if (Irp->PendingReturned)
		IoMarkIrpPending(Irp);
	KeAcquireSpinLock(&ext->Lock, &irql);
	ext->Figures.Completed++;
	if (NT_SUCCESS(Irp->IoStatus.Status))
		ext->Figures.Bytes += Irp->IoStatus.Information;
	else
		ext->Figures.Failed++;
	if (now.QuadPart - trip->Start.QuadPart > ext->Figures.LongestTicks)
		ext->Figures.LongestTicks = now.QuadPart - trip->Start.QuadPart;
	KeReleaseSpinLock(&ext->Lock, irql);
	ExFreeToNPagedLookasideList(&Trips, trip);
	IoReleaseRemoveLock(&ext->RemoveLock, Irp);
	return STATUS_CONTINUE_COMPLETION;
}

static VOID NoteFailure(EXT *ext, ULONG Code)
{
	KIRQL irql;

	KeAcquireSpinLock(&ext->Lock, &irql);
	ext->Figures.LastFailedCode = Code;
	KeReleaseSpinLock(&ext->Lock, irql);
}

/* Reads, writes and control requests: counted on the way. */
static NTSTATUS Travel(EXT *ext, PIRP Irp)
{
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
	BOOLEAN control = sp->MajorFunction == IRP_MJ_DEVICE_CONTROL;
#ifdef FIXED
	ULONG code = control ? sp->Parameters.DeviceIoControl.IoControlCode : 0;
#endif
	NTSTATUS status;
	TRIP *trip;
	KIRQL irql;

	KeAcquireSpinLock(&ext->Lock, &irql);
	ext->Figures.Requests++;
	KeReleaseSpinLock(&ext->Lock, irql);
	trip = ExAllocateFromNPagedLookasideList(&Trips);
	if (trip == NULL)
		return Pass(ext, Irp);		/* go uncounted */
	trip->Ext = ext;
	trip->Start = KeQueryPerformanceCounter(NULL);

	/* A second reference for what follows the call. */
	status = IoAcquireRemoveLock(&ext->RemoveLock, &Trips);
	if (!NT_SUCCESS(status)) {
		ExFreeToNPagedLookasideList(&Trips, trip);
		return Done(ext, Irp, status, 0);
	}
	IoCopyCurrentIrpStackLocationToNext(Irp);
	IoSetCompletionRoutine(Irp, TripOver, trip, TRUE, TRUE, TRUE);
	status = IoCallDriver(ext->Lower, Irp);
	if (!NT_SUCCESS(status) && control) {
#ifdef FIXED
		NoteFailure(ext, code);
#else
		NoteFailure(ext, sp->Parameters.DeviceIoControl.IoControlCode);
#endif
	}
	IoReleaseRemoveLock(&ext->RemoveLock, &Trips);
	return status;
}

static NTSTATUS NTAPI OnReadWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

	if (!NT_SUCCESS(status))
		return Finish(Irp, status, 0);
	return Travel(ext, Irp);
}

static NTSTATUS NTAPI OnControl(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
	NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
	KIRQL irql;

	if (!NT_SUCCESS(status))
		return Finish(Irp, status, 0);
	switch (sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_GAUGE_READ:
		if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(FIGURES))
			return Done(ext, Irp, STATUS_BUFFER_TOO_SMALL, 0);
		KeAcquireSpinLock(&ext->Lock, &irql);
		*(FIGURES *)Irp->AssociatedIrp.SystemBuffer = ext->Figures;
		KeReleaseSpinLock(&ext->Lock, irql);
		return Done(ext, Irp, STATUS_SUCCESS, sizeof(FIGURES));
	case IOCTL_GAUGE_RESET:
		KeAcquireSpinLock(&ext->Lock, &irql);
		RtlZeroMemory(&ext->Figures, sizeof(FIGURES));
		KeReleaseSpinLock(&ext->Lock, irql);
		return Done(ext, Irp, STATUS_SUCCESS, 0);
	default:
		return Travel(ext, Irp);
	}
}

/* The gauge can be opened whatever is below. */
static NTSTATUS NTAPI OnCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

	if (!NT_SUCCESS(status))
		return Finish(Irp, status, 0);
	return Done(ext, Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI OnCleanupClose(PDEVICE_OBJECT Device, PIRP Irp)
{
	UNREFERENCED_PARAMETER(Device);
	return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI OnOther(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

	if (!NT_SUCCESS(status))
		return Finish(Irp, status, 0);
	return Pass(ext, Irp);
}

static NTSTATUS NTAPI OnPower(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

	if (!NT_SUCCESS(status))
		return Finish(Irp, status, 0);
	PoStartNextPowerIrp(Irp);
	IoSkipCurrentIrpStackLocation(Irp);
	status = PoCallDriver(ext->Lower, Irp);
	IoReleaseRemoveLock(&ext->RemoveLock, Irp);
	return status;
}

static VOID Hide(EXT *ext)
{
	if (ext->InterfaceOn) {
		IoSetDeviceInterfaceState(&ext->Interface, FALSE);
		ext->InterfaceOn = FALSE;
	}
}

static NTSTATUS NTAPI OnPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
	NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

	if (!NT_SUCCESS(status))
		return Finish(Irp, status, 0);
	switch (sp->MinorFunction) {
	case IRP_MN_START_DEVICE:
		status = IoForwardIrpSynchronously(ext->Lower, Irp) ? Irp->IoStatus.Status : STATUS_UNSUCCESSFUL;
		if (NT_SUCCESS(status) && !ext->InterfaceOn) {
			status = IoSetDeviceInterfaceState(&ext->Interface, TRUE);
			ext->InterfaceOn = NT_SUCCESS(status);
		}
		return Done(ext, Irp, status, 0);
	case IRP_MN_DEVICE_USAGE_NOTIFICATION:
		status = IoForwardIrpSynchronously(ext->Lower, Irp) ? Irp->IoStatus.Status : STATUS_UNSUCCESSFUL;
		if (NT_SUCCESS(status) && !(ext->Lower->Flags & DO_POWER_PAGABLE))
			Device->Flags &= ~DO_POWER_PAGABLE;
		else if (NT_SUCCESS(status))
			Device->Flags |= DO_POWER_PAGABLE;
		return Done(ext, Irp, status, Irp->IoStatus.Information);
	case IRP_MN_QUERY_STOP_DEVICE:
	case IRP_MN_CANCEL_STOP_DEVICE:
	case IRP_MN_STOP_DEVICE:
	case IRP_MN_QUERY_REMOVE_DEVICE:
	case IRP_MN_CANCEL_REMOVE_DEVICE:
		Irp->IoStatus.Status = STATUS_SUCCESS;
		return Pass(ext, Irp);
	case IRP_MN_SURPRISE_REMOVAL:
		Hide(ext);
		Irp->IoStatus.Status = STATUS_SUCCESS;
		return Pass(ext, Irp);
	case IRP_MN_REMOVE_DEVICE:
		Hide(ext);
		IoReleaseRemoveLockAndWait(&ext->RemoveLock, Irp);
		Irp->IoStatus.Status = STATUS_SUCCESS;
		IoSkipCurrentIrpStackLocation(Irp);
		status = IoCallDriver(ext->Lower, Irp);
		IoDetachDevice(ext->Lower);
		RtlFreeUnicodeString(&ext->Interface);
		IoDeleteDevice(Device);
		return status;
	default:
		return Pass(ext, Irp);
	}
}

static NTSTATUS NTAPI OnAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
	PDEVICE_OBJECT self;
	NTSTATUS status;
	EXT *ext;

	status = IoCreateDevice(Driver, sizeof(EXT), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &self);
	if (!NT_SUCCESS(status))
		return status;
	ext = self->DeviceExtension;
	RtlZeroMemory(ext, sizeof(EXT));
	ext->Self = self;
	ext->Pdo = Pdo;
	IoInitializeRemoveLock(&ext->RemoveLock, TAG, 0, 0);
	KeInitializeSpinLock(&ext->Lock);
	status = IoRegisterDeviceInterface(Pdo, &InterfaceGuid, NULL, &ext->Interface);
	if (!NT_SUCCESS(status)) {
		IoDeleteDevice(self);
		return status;
	}
	ext->Lower = IoAttachDeviceToDeviceStack(self, Pdo);
	if (ext->Lower == NULL) {
		RtlFreeUnicodeString(&ext->Interface);
		IoDeleteDevice(self);
		return STATUS_NO_SUCH_DEVICE;
	}
	self->DeviceType = ext->Lower->DeviceType;
	self->Characteristics |= ext->Lower->Characteristics;
	self->Flags |= ext->Lower->Flags & (DO_BUFFERED_IO | DO_DIRECT_IO | DO_POWER_PAGABLE);
	self->Flags &= ~DO_DEVICE_INITIALIZING;
	return STATUS_SUCCESS;
}

static VOID NTAPI OnUnload(PDRIVER_OBJECT Driver)
{
	UNREFERENCED_PARAMETER(Driver);
	ExDeleteNPagedLookasideList(&Trips);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
	ULONG i;

	UNREFERENCED_PARAMETER(RegistryPath);
	ExInitializeNPagedLookasideList(&Trips, NULL, NULL, 0, sizeof(TRIP), TAG, 0);
	for (i = 0; i <= IRP_MJ_MAXIMUM_FUNCTION; i++)
		Driver->MajorFunction[i] = OnOther;
	Driver->MajorFunction[IRP_MJ_CREATE] = OnCreate;
	Driver->MajorFunction[IRP_MJ_CLOSE] = OnCleanupClose;
	Driver->MajorFunction[IRP_MJ_CLEANUP] = OnCleanupClose;
	Driver->MajorFunction[IRP_MJ_READ] = OnReadWrite;
	Driver->MajorFunction[IRP_MJ_WRITE] = OnReadWrite;
	Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = OnControl;
	Driver->MajorFunction[IRP_MJ_PNP] = OnPnp;
	Driver->MajorFunction[IRP_MJ_POWER] = OnPower;
	Driver->DriverExtension->AddDevice = OnAddDevice;
	Driver->DriverUnload = OnUnload;
	return STATUS_SUCCESS;
}

/*
 * pulsar - shows that the machine lives: at a period that programs can set, a worker writes a count and the
 * time to the device's registry key, with the number of disks that have arrived meanwhile.
 *
 * The bug: the timer's DPC queues the work item while it is queued.
 *
 * Device: ROOT\PULSAR
 * Rule: work-item-queued
 * Needs: schedule
 */
#include <ddk/wdm.h>

#define TAG 'sluP'

NTKERNELAPI NTSTATUS NTAPI IoUnregisterPlugPlayNotificationEx(PVOID NotificationEntry);

#define MIN_PERIOD 50
#define MAX_PERIOD 60000
#define IOCTL_PULSE_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x960, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PULSE_PERIOD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x961, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _PULSE_STATE {
	ULONG Beats;
	ULONG Failures;
	ULONG Arrivals;
	ULONG PeriodMs;
} PULSE_STATE;

/* GUID_DEVINTERFACE_DISK, GUID_DEVICE_INTERFACE_ARRIVAL */
static const GUID Disk = { 0x53f56307, 0xb6bf, 0x11d0, { 0x94, 0xf2, 0x00, 0xa0, 0xc9, 0x1e, 0xfb, 0x8b } };
static const GUID Arrival = { 0xcb3a4004, 0x46f0, 0x11d0, { 0xb0, 0x8f, 0x00, 0x60, 0x97, 0x13, 0x05, 0x3f } };
static const GUID InterfaceGuid = { 0x6a3c1f20, 0x11d2, 0x4b8e, { 0x90, 0x01, 0x3a, 0x51, 0x22, 0x9c, 0x10, 0x0b } };

typedef struct _EXT {
	PDEVICE_OBJECT Self;
	PDEVICE_OBJECT Pdo;
	PDEVICE_OBJECT Lower;
	IO_REMOVE_LOCK RemoveLock;	/* one reference for every request that is not complete */
	UNICODE_STRING Interface;
	BOOLEAN InterfaceOn;
	KSPIN_LOCK Lock;		/* guards what follows */
	DEVICE_POWER_STATE Power;
	BOOLEAN Started;
	BOOLEAN Gone;			/* being removed: no new requests */
	BOOLEAN Absent;			/* surprise removal */
	BOOLEAN Live;			/* started and powered */
	PULSE_STATE Pulse;
	PIO_WORKITEM Work;
	volatile LONG Queued;		/* the work item */
	EX_RUNDOWN_REF Rundown;		/* one for every time it is queued */
	BOOLEAN Ready;
	PVOID Notification;
	KTIMER Timer;
	KDPC TimerDpc;
} EXT;

#define OWN_HALT
#define OWN_ON_PNP
#include "../include/live_frame.h"

static NTSTATUS NTAPI OnCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
	UNREFERENCED_PARAMETER(Device);
	return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS WriteBeat(EXT *ext, ULONG Beats)
{
	UNICODE_STRING name;
	LARGE_INTEGER now;
	NTSTATUS status;
	HANDLE key;

	status = IoOpenDeviceRegistryKey(ext->Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_WRITE, &key);
	if (!NT_SUCCESS(status))
		return status;
	RtlInitUnicodeString(&name, L"Beats");
	status = ZwSetValueKey(key, &name, 0, REG_DWORD, &Beats, sizeof(Beats));
	if (NT_SUCCESS(status)) {
		KeQuerySystemTime(&now);
		RtlInitUnicodeString(&name, L"LastBeat");
		status = ZwSetValueKey(key, &name, 0, REG_QWORD, &now, sizeof(now));
	}
	ZwClose(key);
	return status;
}

static VOID NTAPI Beat(PDEVICE_OBJECT Device, PVOID Context)
{
	EXT *ext = Context;
	NTSTATUS status;
	ULONG beats;
	KIRQL irql;

	UNREFERENCED_PARAMETER(Device);
	KeAcquireSpinLock(&ext->Lock, &irql);
	beats = ++ext->Pulse.Beats;
	KeReleaseSpinLock(&ext->Lock, irql);
	status = WriteBeat(ext, beats);
	if (!NT_SUCCESS(status)) {
		KeAcquireSpinLock(&ext->Lock, &irql);
		ext->Pulse.Failures++;
		KeReleaseSpinLock(&ext->Lock, irql);
	}
	InterlockedExchange(&ext->Queued, 0);
	ExReleaseRundownProtection(&ext->Rundown);
}

static VOID NTAPI OnTick(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
	EXT *ext = Context;

	UNREFERENCED_PARAMETER(Dpc);
	UNREFERENCED_PARAMETER(Argument1);
	UNREFERENCED_PARAMETER(Argument2);
	KeAcquireSpinLockAtDpcLevel(&ext->Lock);
	if (ext->Live && ExAcquireRundownProtection(&ext->Rundown)) {
#ifdef FIXED
		if (InterlockedExchange(&ext->Queued, 1) != 0)
			ExReleaseRundownProtection(&ext->Rundown);
		else
			IoQueueWorkItem(ext->Work, Beat, DelayedWorkQueue, ext);
#else
		InterlockedExchange(&ext->Queued, 1);
		IoQueueWorkItem(ext->Work, Beat, DelayedWorkQueue, ext);
#endif
	}
	KeReleaseSpinLockFromDpcLevel(&ext->Lock);
}

static NTSTATUS NTAPI DiskChanged(PVOID Notification, PVOID Context)
{
	const DEVICE_INTERFACE_CHANGE_NOTIFICATION *n = Notification;
	EXT *ext = Context;
	KIRQL irql;

	if (RtlCompareMemory(&n->Event, &Arrival, sizeof(GUID)) == sizeof(GUID)) {
		KeAcquireSpinLock(&ext->Lock, &irql);
		ext->Pulse.Arrivals++;
		KeReleaseSpinLock(&ext->Lock, irql);
	}
	return STATUS_SUCCESS;
}

/* The lock is held. */
static VOID StartTimer(EXT *ext)
{
	LARGE_INTEGER due;

	due.QuadPart = -10000LL * ext->Pulse.PeriodMs;
	KeSetTimerEx(&ext->Timer, due, (LONG)ext->Pulse.PeriodMs, &ext->TimerDpc);
}

static VOID Up(EXT *ext)
{
	KIRQL irql;

	KeAcquireSpinLock(&ext->Lock, &irql);
	if (ext->Started && !ext->Gone && ext->Power == PowerDeviceD0 && !ext->Live) {
		ext->Live = TRUE;
		StartTimer(ext);
	}
	KeReleaseSpinLock(&ext->Lock, irql);
}

static VOID Down(EXT *ext, NTSTATUS Status)
{
	KIRQL irql;

	UNREFERENCED_PARAMETER(Status);
	KeAcquireSpinLock(&ext->Lock, &irql);
	if (ext->Live) {
		ext->Live = FALSE;
		KeCancelTimer(&ext->Timer);
	}
	KeReleaseSpinLock(&ext->Lock, irql);
}

static VOID Release(EXT *ext)
{
	if (ext->Notification != NULL) {
		IoUnregisterPlugPlayNotificationEx(ext->Notification);
		ext->Notification = NULL;
	}
	KeCancelTimer(&ext->Timer);
	KeFlushQueuedDpcs();
	if (ext->Ready) {
		ExWaitForRundownProtectionRelease(&ext->Rundown);
		ext->Ready = FALSE;
	}
}

static NTSTATUS Acquire(EXT *ext, PCM_RESOURCE_LIST List)
{
	NTSTATUS status;

	UNREFERENCED_PARAMETER(List);
	status = IoRegisterPlugPlayNotification(EventCategoryDeviceInterfaceChange, 0, (PVOID)&Disk, ext->Self->DriverObject,
		DiskChanged, ext, &ext->Notification);
	if (!NT_SUCCESS(status)) {
		ext->Notification = NULL;
		return status;
	}
	ExInitializeRundownProtection(&ext->Rundown);
	ext->Ready = TRUE;
	return STATUS_SUCCESS;
}

static NTSTATUS NTAPI OnControl(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
	NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
	ULONG period;
	KIRQL irql;

	if (!NT_SUCCESS(status))
		return Finish(Irp, status, 0);
	switch (sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_PULSE_STATE:
		if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(PULSE_STATE))
			return Done(ext, Irp, STATUS_BUFFER_TOO_SMALL, 0);
		KeAcquireSpinLock(&ext->Lock, &irql);
		*(PULSE_STATE *)Irp->AssociatedIrp.SystemBuffer = ext->Pulse;
		KeReleaseSpinLock(&ext->Lock, irql);
		return Done(ext, Irp, STATUS_SUCCESS, sizeof(PULSE_STATE));
	case IOCTL_PULSE_PERIOD:
		if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
			return Done(ext, Irp, STATUS_BUFFER_TOO_SMALL, 0);
		period = *(ULONG *)Irp->AssociatedIrp.SystemBuffer;
		if (period < MIN_PERIOD || period > MAX_PERIOD)
			return Done(ext, Irp, STATUS_INVALID_PARAMETER, 0);
		KeAcquireSpinLock(&ext->Lock, &irql);
		ext->Pulse.PeriodMs = period;
		if (ext->Live)
			StartTimer(ext);
		KeReleaseSpinLock(&ext->Lock, irql);
		return Done(ext, Irp, STATUS_SUCCESS, 0);
	default:
		return Done(ext, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
	}
}

/* No more requests; those that wait or run end with Status. */
static VOID Halt(EXT *ext, BOOLEAN Gone, BOOLEAN Absent, NTSTATUS Status)
{
	KIRQL irql;

	KeAcquireSpinLock(&ext->Lock, &irql);
	ext->Started = FALSE;
	if (Gone)
		ext->Gone = TRUE;
	if (Absent)
		ext->Absent = TRUE;
	KeReleaseSpinLock(&ext->Lock, irql);
	if (Gone && ext->InterfaceOn) {
		IoSetDeviceInterfaceState(&ext->Interface, FALSE);
		ext->InterfaceOn = FALSE;
	}
	Down(ext, Status);
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
		if (NT_SUCCESS(status))
			status = Start(ext, sp);
		return Done(ext, Irp, status, 0);
	case IRP_MN_QUERY_STOP_DEVICE:
	case IRP_MN_CANCEL_STOP_DEVICE:
	case IRP_MN_QUERY_REMOVE_DEVICE:
	case IRP_MN_CANCEL_REMOVE_DEVICE:
		Irp->IoStatus.Status = STATUS_SUCCESS;
		break;
	case IRP_MN_STOP_DEVICE:
		Halt(ext, FALSE, FALSE, STATUS_DEVICE_NOT_READY);
		Release(ext);
		Irp->IoStatus.Status = STATUS_SUCCESS;
		break;
	case IRP_MN_SURPRISE_REMOVAL:
		Halt(ext, TRUE, TRUE, STATUS_DELETE_PENDING);
		Release(ext);
		Irp->IoStatus.Status = STATUS_SUCCESS;
		break;
	case IRP_MN_REMOVE_DEVICE:
		Halt(ext, TRUE, FALSE, STATUS_DELETE_PENDING);
		IoReleaseRemoveLockAndWait(&ext->RemoveLock, Irp);
		Release(ext);
		Irp->IoStatus.Status = STATUS_SUCCESS;
		IoSkipCurrentIrpStackLocation(Irp);
		status = IoCallDriver(ext->Lower, Irp);
		IoDetachDevice(ext->Lower);
		IoFreeWorkItem(ext->Work);
		RtlFreeUnicodeString(&ext->Interface);
		IoDeleteDevice(Device);
		return status;
	default:
		break;
	}
	IoSkipCurrentIrpStackLocation(Irp);
	status = IoCallDriver(ext->Lower, Irp);
	IoReleaseRemoveLock(&ext->RemoveLock, Irp);
	return status;
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
	ext->Power = PowerDeviceD0;
	IoInitializeRemoveLock(&ext->RemoveLock, TAG, 0, 0);
	KeInitializeSpinLock(&ext->Lock);
	KeInitializeDpc(&ext->TimerDpc, OnTick, ext);
	KeInitializeTimerEx(&ext->Timer, SynchronizationTimer);
	ext->Pulse.PeriodMs = 1000;
	status = IoRegisterDeviceInterface(Pdo, &InterfaceGuid, NULL, &ext->Interface);
	if (!NT_SUCCESS(status)) {
		IoDeleteDevice(self);
		return status;
	}
	ext->Work = IoAllocateWorkItem(self);
	if (ext->Work == NULL) {
		RtlFreeUnicodeString(&ext->Interface);
		IoDeleteDevice(self);
		return STATUS_INSUFFICIENT_RESOURCES;
	}
	ext->Lower = IoAttachDeviceToDeviceStack(self, Pdo);
	if (ext->Lower == NULL) {
		IoFreeWorkItem(ext->Work);
		RtlFreeUnicodeString(&ext->Interface);
		IoDeleteDevice(self);
		return STATUS_NO_SUCH_DEVICE;
	}
	self->Flags |= DO_BUFFERED_IO | (ext->Lower->Flags & DO_POWER_PAGABLE);
	self->Flags &= ~DO_DEVICE_INITIALIZING;
	return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
	UNREFERENCED_PARAMETER(RegistryPath);
	Driver->MajorFunction[IRP_MJ_CREATE] = OnCreate;
	Driver->MajorFunction[IRP_MJ_CLOSE] = OnClose;
	Driver->MajorFunction[IRP_MJ_CLEANUP] = OnCleanup;
	Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = OnControl;
	Driver->MajorFunction[IRP_MJ_PNP] = OnPnp;
	Driver->MajorFunction[IRP_MJ_POWER] = OnPower;
	Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = OnSystemControl;
	Driver->DriverExtension->AddDevice = OnAddDevice;
	Driver->DriverUnload = OnUnload;
	return STATUS_SUCCESS;
}

/*
 * dimlamp - a dimmable (software) lamp. Programs set a target level and how long the fade takes, read the
 * level or wait until the fade is over. On battery the lamp does not go above half. A power policy owner:
 * the lamp is off while the device is in D3.
 *
 * The bug: the system power request waits for a device power request that could not be made.
 *
 * Device: ROOT\DIMLAMP
 * Rule: power-irp-overdue
 * Needs: failure, power
 */
#include <ddk/wdm.h>

#define TAG 'pmaL'
#define TICK_MS 20
#define FULL 255
#define HALF 128
#define IOCTL_LAMP_FADE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x950, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LAMP_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x951, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LAMP_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x952, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _LAMP_FADE {
	ULONG Level;
	ULONG Milliseconds;
} LAMP_FADE;

typedef struct _LAMP_STATE {
	ULONG Level;
	ULONG Target;
	ULONG OnBattery;
} LAMP_STATE;

/* GUID_ACDC_POWER_SOURCE */
static const GUID PowerSource = { 0x5d3e9a59, 0xe9d5, 0x4b00, { 0xa6, 0xbd, 0xff, 0x34, 0xff, 0x51, 0x65, 0x48 } };
static const GUID InterfaceGuid = { 0x6a3c1f20, 0x11d2, 0x4b8e, { 0x90, 0x01, 0x3a, 0x51, 0x22, 0x9c, 0x10, 0x0a } };

typedef struct _EXT {
	PDEVICE_OBJECT Self;
	PDEVICE_OBJECT Pdo;
	PDEVICE_OBJECT Lower;
	IO_REMOVE_LOCK RemoveLock;	/* one reference for every request that is not complete */
	UNICODE_STRING Interface;
	BOOLEAN InterfaceOn;
	KSPIN_LOCK Lock;		/* guards what follows */
	LIST_ENTRY Queue;		/* cancellable requests */
	DEVICE_POWER_STATE Power;
	BOOLEAN Started;
	BOOLEAN Gone;			/* being removed: no new requests */
	BOOLEAN Absent;			/* surprise removal */
	BOOLEAN Live;			/* started and powered */
	LAMP_STATE Lamp;
	ULONG Step;			/* per tick */
	PVOID Callback;			/* the power source's */
	KTIMER Timer;
	KDPC TimerDpc;
} EXT;

#define OWN_SYSTEM_IRP_DOWN
#include "../include/live_frame.h"
#include "../include/live_queue.h"

/* Queues a request that holds the remove lock, or completes it at once if that cannot be. */
static NTSTATUS Enqueue(EXT *ext, PIRP Irp)
{
	NTSTATUS status = STATUS_PENDING;
	KIRQL irql;

	KeAcquireSpinLock(&ext->Lock, &irql);
	if (ext->Gone) {
		status = STATUS_DELETE_PENDING;
	} else if (!ext->Started) {
		status = STATUS_DEVICE_NOT_READY;
	} else {
		IoSetCancelRoutine(Irp, QueuedCancelled);
		if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
			status = STATUS_CANCELLED;
		} else {
			IoMarkIrpPending(Irp);
			InsertTailList(&ext->Queue, &Irp->Tail.Overlay.ListEntry);
		}
	}
	KeReleaseSpinLock(&ext->Lock, irql);
	if (status != STATUS_PENDING)
		Done(ext, Irp, status, 0);
	return status;
}

static VOID NTAPI OnTick(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
	EXT *ext = Context;
	LIST_ENTRY reached;
	ULONG target;
	PIRP irp;

	UNREFERENCED_PARAMETER(Dpc);
	UNREFERENCED_PARAMETER(Argument1);
	UNREFERENCED_PARAMETER(Argument2);
	InitializeListHead(&reached);
	KeAcquireSpinLockAtDpcLevel(&ext->Lock);
	if (ext->Live) {
		target = ext->Lamp.OnBattery ? min(ext->Lamp.Target, HALF) : ext->Lamp.Target;
		if (ext->Lamp.Level < target)
			ext->Lamp.Level += min(ext->Step, target - ext->Lamp.Level);
		else
			ext->Lamp.Level -= min(ext->Step, ext->Lamp.Level - target);
		if (ext->Lamp.Level == target)
			while ((irp = Dequeue(ext)) != NULL)
				InsertTailList(&reached, &irp->Tail.Overlay.ListEntry);
	}
	KeReleaseSpinLockFromDpcLevel(&ext->Lock);
	CompleteList(ext, &reached, STATUS_SUCCESS);
}

static NTSTATUS NTAPI SourceChanged(LPCGUID Setting, PVOID Value, ULONG Length, PVOID Context)
{
	EXT *ext = Context;
	KIRQL irql;

	UNREFERENCED_PARAMETER(Setting);
	if (Value == NULL || Length != sizeof(ULONG))
		return STATUS_INVALID_PARAMETER;
	KeAcquireSpinLock(&ext->Lock, &irql);
	ext->Lamp.OnBattery = *(ULONG *)Value == 1;
	KeReleaseSpinLock(&ext->Lock, irql);
	return STATUS_SUCCESS;
}

static VOID Up(EXT *ext)
{
	LARGE_INTEGER due;
	KIRQL irql;

	due.QuadPart = -10000LL * TICK_MS;
	KeAcquireSpinLock(&ext->Lock, &irql);
	if (ext->Started && !ext->Gone && ext->Power == PowerDeviceD0 && !ext->Live) {
		ext->Live = TRUE;
		KeSetTimerEx(&ext->Timer, due, TICK_MS, &ext->TimerDpc);
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
		ext->Lamp.Level = 0;
		KeCancelTimer(&ext->Timer);
	}
	KeReleaseSpinLock(&ext->Lock, irql);
}

static VOID Release(EXT *ext)
{
	if (ext->Callback != NULL) {
		PoUnregisterPowerSettingCallback(ext->Callback);
		ext->Callback = NULL;
	}
	KeCancelTimer(&ext->Timer);
	KeFlushQueuedDpcs();
}

static NTSTATUS Acquire(EXT *ext, PCM_RESOURCE_LIST List)
{
	NTSTATUS status;

	UNREFERENCED_PARAMETER(List);
	status = PoRegisterPowerSettingCallback(ext->Self, &PowerSource, SourceChanged, ext, &ext->Callback);
	if (!NT_SUCCESS(status))
		ext->Callback = NULL;
	return status;
}

static NTSTATUS NTAPI OnControl(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
	NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
	LAMP_FADE fade;
	KIRQL irql;

	if (!NT_SUCCESS(status))
		return Finish(Irp, status, 0);
	switch (sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_LAMP_FADE:
		if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(LAMP_FADE))
			return Done(ext, Irp, STATUS_BUFFER_TOO_SMALL, 0);
		RtlCopyMemory(&fade, Irp->AssociatedIrp.SystemBuffer, sizeof(fade));
		if (fade.Level > FULL || fade.Milliseconds > 60000)
			return Done(ext, Irp, STATUS_INVALID_PARAMETER, 0);
		KeAcquireSpinLock(&ext->Lock, &irql);
		ext->Lamp.Target = fade.Level;
		ext->Step = FULL * TICK_MS / (fade.Milliseconds + 1) + 1;
		KeReleaseSpinLock(&ext->Lock, irql);
		return Done(ext, Irp, STATUS_SUCCESS, 0);
	case IOCTL_LAMP_STATE:
		if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LAMP_STATE))
			return Done(ext, Irp, STATUS_BUFFER_TOO_SMALL, 0);
		KeAcquireSpinLock(&ext->Lock, &irql);
		*(LAMP_STATE *)Irp->AssociatedIrp.SystemBuffer = ext->Lamp;
		KeReleaseSpinLock(&ext->Lock, irql);
		return Done(ext, Irp, STATUS_SUCCESS, sizeof(LAMP_STATE));
	case IOCTL_LAMP_WAIT:
		return Enqueue(ext, Irp);
	default:
		return Done(ext, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
	}
}

/* The system power IRP comes back: ask for the device power IRP that belongs to it. */
static NTSTATUS NTAPI SystemIrpDown(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
	EXT *ext = Context;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
	POWER_STATE state;
	NTSTATUS status = Irp->IoStatus.Status;

	UNREFERENCED_PARAMETER(Device);
	if (NT_SUCCESS(status)) {
		state.DeviceState = sp->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
#ifdef FIXED
		status = PoRequestPowerIrp(ext->Pdo, sp->MinorFunction, state, DeviceIrpDone, Irp, NULL);
		if (status == STATUS_PENDING)
			return STATUS_MORE_PROCESSING_REQUIRED;
		Irp->IoStatus.Status = status;
#else
		PoRequestPowerIrp(ext->Pdo, sp->MinorFunction, state, DeviceIrpDone, Irp, NULL);
		return STATUS_MORE_PROCESSING_REQUIRED;
#endif
	}
	IoReleaseRemoveLock(&ext->RemoveLock, Irp);
	return STATUS_CONTINUE_COMPLETION;
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
	InitializeListHead(&ext->Queue);
	KeInitializeDpc(&ext->TimerDpc, OnTick, ext);
	KeInitializeTimerEx(&ext->Timer, SynchronizationTimer);
	ext->Step = 1;
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

/*
 * plxlarch: shows the configuration registers of a PLX to a service program, and keeps a diary of the computer's sleep: how often it has
 * slept and how deep, because the board's clock is lost with its power.
 *
 * The bug: the device power request that follows a system power request may not be had, for want of memory. The driver does not look, and
 * holds the system's request until the end of one that was never sent.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: power-irp-overdue, irp-never-completed, stuck
 * Needs: power, failure
 */
#include <ddk/wdm.h>
#include "../include/stall_frame.h"

#define IOCTL_REGISTER CTL_CODE(FILE_DEVICE_UNKNOWN, 0x900, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_DIARY    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define INTCSR 0x4C
#define LAST_REGISTER 0x50

typedef struct _DIARY {
	ULONG Sleeps[PowerSystemMaximum];
	ULONG Wakes;
} DIARY;

typedef struct _LARCH {
	PLUG P;
	PUCHAR Regs;
	ULONG Length;
	KSPIN_LOCK DiaryLock;
	DIARY Diary;
} LARCH, *PLARCH;

static const GUID Class = { 0x8e0c1d5a, 0x11a1, 0x4f60, { 0x90, 0x11, 0x55, 0x55, 0x01, 0x02, 0x03, 0x0b } };

DRIVER_INITIALIZE DriverEntry;

/* ---- the system's power ---- */

static VOID Enter(PLARCH X, SYSTEM_POWER_STATE State)
{
	KIRQL irql;

	KeAcquireSpinLock(&X->DiaryLock, &irql);
	if (State == PowerSystemWorking)
		X->Diary.Wakes++;
	else if (State > PowerSystemWorking && State < PowerSystemMaximum)
		X->Diary.Sleeps[State]++;
	KeReleaseSpinLock(&X->DiaryLock, irql);
}

static NTSTATUS NTAPI SystemDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
	PLARCH x = Context;
	SYSTEM_POWER_STATE state = IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State.SystemState;
	POWER_STATE want;

	(void)Device;
	if (NT_SUCCESS(Irp->IoStatus.Status)) {
		Enter(x, state);
		want.DeviceState = state == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
#ifndef FIXED
		PoRequestPowerIrp(x->P.Pdo, IRP_MN_SET_POWER, want, PlugDeviceDone, Irp, NULL);
		return STATUS_MORE_PROCESSING_REQUIRED;
#else
		if (NT_SUCCESS(PoRequestPowerIrp(x->P.Pdo, IRP_MN_SET_POWER, want, PlugDeviceDone, Irp, NULL)))
			return STATUS_MORE_PROCESSING_REQUIRED;
#endif
	}
	PoStartNextPowerIrp(Irp);
	IoReleaseRemoveLock(&x->P.Hold, Irp);
	return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS System(PPLUG P, PIRP Irp, PIO_STACK_LOCATION Sp)
{
	(void)Sp;
	IoMarkIrpPending(Irp);
	IoCopyCurrentIrpStackLocationToNext(Irp);
	IoSetCompletionRoutine(Irp, SystemDone, P, TRUE, TRUE, TRUE);
	PoCallDriver(P->Below, Irp);
	return STATUS_PENDING;
}

/* ---- requests ---- */

static NTSTATUS Answer(PPLUG P, PIRP Irp, PIO_STACK_LOCATION Sp, PULONG_PTR Bytes)
{
	PLARCH x = (PLARCH)P;
	PULONG buffer = Irp->AssociatedIrp.SystemBuffer;
	ULONG in = Sp->Parameters.DeviceIoControl.InputBufferLength;
	ULONG out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
	ULONG offset, value;
	DIARY diary;
	KIRQL irql;

	switch (Sp->MajorFunction) {
	case IRP_MJ_CREATE:
	case IRP_MJ_CLOSE:
	case IRP_MJ_CLEANUP:
		return STATUS_SUCCESS;
	case IRP_MJ_DEVICE_CONTROL:
		break;
	default:
		return STATUS_INVALID_DEVICE_REQUEST;
	}
	switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_REGISTER:
		if (in < sizeof(ULONG) || out < sizeof(ULONG))
			return STATUS_BUFFER_TOO_SMALL;
		offset = *buffer;
		if (offset > LAST_REGISTER || offset % sizeof(ULONG) != 0)
			return STATUS_INVALID_PARAMETER;
		if (!PlugGrip(P, &irql))
			return STATUS_DEVICE_NOT_READY;
		value = RegRead(x->Regs, offset);
		PlugLoose(P, irql);
		*buffer = value;
		*Bytes = sizeof(ULONG);
		return STATUS_SUCCESS;
	case IOCTL_DIARY:
		if (out < sizeof(DIARY))
			return STATUS_BUFFER_TOO_SMALL;
		KeAcquireSpinLock(&x->DiaryLock, &irql);
		diary = x->Diary;
		KeReleaseSpinLock(&x->DiaryLock, irql);
		RtlCopyMemory(buffer, &diary, sizeof(DIARY));
		*Bytes = sizeof(DIARY);
		return STATUS_SUCCESS;
	default:
		return STATUS_INVALID_DEVICE_REQUEST;
	}
}

/* ---- hooks ---- */

static NTSTATUS Prepare(PPLUG P)
{
	KeInitializeSpinLock(&((PLARCH)P)->DiaryLock);
	return STATUS_SUCCESS;
}

static NTSTATUS Begin(PPLUG P, PCM_PARTIAL_RESOURCE_LIST List)
{
	PLARCH x = (PLARCH)P;

	return PlugMap(List, 0, LAST_REGISTER + sizeof(ULONG), &x->Regs, &x->Length);
}

static VOID End(PPLUG P)
{
	PLARCH x = (PLARCH)P;

	PlugUnmap(&x->Regs, x->Length);
}

static VOID Awake(PPLUG P)
{
	PLARCH x = (PLARCH)P;

	RegWrite(x->Regs, INTCSR, 0);
	(void)RegRead(x->Regs, INTCSR);
}

static const PLUG_HOOKS Hooks = {
	.Size = sizeof(LARCH), .DeviceFlags = DO_BUFFERED_IO, .Class = &Class,
	.Prepare = Prepare, .Begin = Begin, .Awake = Awake, .End = End, .Answer = Answer, .System = System,
};

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
	return PlugAdd(Driver, Pdo, &Hooks);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
	(void)Driver;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
	(void)Path;
	PlugEntries(Driver, AddDevice, Unload);
	return STATUS_SUCCESS;
}

/*
 * edusage: watches a card that must not fall asleep unnoticed. Ten times a second it hands the next number of a series to the card's
 * liveness register and counts good and bad answers; programs read the counters and may wait for the next bad answer.
 *
 * The bug: when the card is about to lose its power the driver cancels its timer, but does not wait for the timer's DPC: one that is queued
 * or already runs on another processor goes to the card when that is off.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: card-without-power
 * Needs: schedule, power, device
 */
#include <ddk/wdm.h>
#include "../include/stall_frame.h"

#define IOCTL_COUNTERS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A0, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_NEXT_BAD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A1, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define LIVE   0x04
#define STATUS 0x20

#define PERIOD_MS 100
#define SERIES 0x9E3779B9

typedef struct _COUNTERS {
	ULONG Good, Bad;
} COUNTERS;

typedef struct _SAGE {
	PLUG P;
	PUCHAR Regs;
	ULONG Length;
	KTIMER Timer;
	KDPC Dpc;
	KSPIN_LOCK CountLock;
	ULONG Number;
	COUNTERS Counters;
	LANE Lane;
} SAGE, *PSAGE;

static const GUID Class = { 0x8e0c1d5a, 0x11a1, 0x4f60, { 0x90, 0x11, 0x55, 0x55, 0x01, 0x02, 0x03, 0x05 } };

DRIVER_INITIALIZE DriverEntry;

/* The timer runs while the card is in D0 and mapped, and is stopped before that ends: the card may be touched without the gate here. */
static VOID NTAPI Look(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
	PSAGE x = Context;
	COUNTERS now;
	ULONG answer;
	BOOLEAN good;
	PIRP irp;

	(void)Dpc; (void)A1; (void)A2;
	KeAcquireSpinLockAtDpcLevel(&x->CountLock);
	x->Number += SERIES;
	RegWrite(x->Regs, LIVE, x->Number);
	answer = RegRead(x->Regs, LIVE);
	good = answer == ~x->Number;
	if (good)
		x->Counters.Good++;
	else
		x->Counters.Bad++;
	now = x->Counters;
	KeReleaseSpinLockFromDpcLevel(&x->CountLock);
	while (!good && (irp = LaneTake(&x->Lane, NULL)) != NULL) {
		*(COUNTERS *)irp->AssociatedIrp.SystemBuffer = now;
		LaneFinish(&x->Lane, irp, STATUS_SUCCESS, sizeof(COUNTERS));
	}
}

static NTSTATUS Answer(PPLUG P, PIRP Irp, PIO_STACK_LOCATION Sp, PULONG_PTR Bytes)
{
	PSAGE x = (PSAGE)P;
	COUNTERS now;
	KIRQL irql;

	switch (Sp->MajorFunction) {
	case IRP_MJ_CREATE:
	case IRP_MJ_CLOSE:
		return STATUS_SUCCESS;
	case IRP_MJ_CLEANUP:
		LaneSweep(&x->Lane, Sp->FileObject, STATUS_CANCELLED);
		return STATUS_SUCCESS;
	case IRP_MJ_DEVICE_CONTROL:
		break;
	default:
		return STATUS_INVALID_DEVICE_REQUEST;
	}
	switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_COUNTERS:
		if (Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(COUNTERS))
			return STATUS_BUFFER_TOO_SMALL;
		KeAcquireSpinLock(&x->CountLock, &irql);
		now = x->Counters;
		KeReleaseSpinLock(&x->CountLock, irql);
		*(COUNTERS *)Irp->AssociatedIrp.SystemBuffer = now;
		*Bytes = sizeof(COUNTERS);
		return STATUS_SUCCESS;
	case IOCTL_NEXT_BAD:
		if (Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(COUNTERS))
			return STATUS_BUFFER_TOO_SMALL;
		return LanePut(&x->Lane, Irp);
	default:
		return STATUS_INVALID_DEVICE_REQUEST;
	}
}

/* ---- hooks ---- */

static NTSTATUS Prepare(PPLUG P)
{
	PSAGE x = (PSAGE)P;

	LaneInit(&x->Lane, &P->Hold);
	KeInitializeSpinLock(&x->CountLock);
	KeInitializeTimer(&x->Timer);
	KeInitializeDpc(&x->Dpc, Look, x);
	return STATUS_SUCCESS;
}

static NTSTATUS Begin(PPLUG P, PCM_PARTIAL_RESOURCE_LIST List)
{
	PSAGE x = (PSAGE)P;

	return PlugMap(List, 0, 0x100, &x->Regs, &x->Length);
}

static VOID Awake(PPLUG P)
{
	PSAGE x = (PSAGE)P;
	LARGE_INTEGER first;

	RegWrite(x->Regs, STATUS, 0);
	first.QuadPart = -10000LL * PERIOD_MS;
	KeSetTimerEx(&x->Timer, first, PERIOD_MS, &x->Dpc);
}

static VOID Settle(PPLUG P)
{
	PSAGE x = (PSAGE)P;

	KeCancelTimer(&x->Timer);
#ifdef FIXED
	KeFlushQueuedDpcs();
#endif
}

static VOID Gone(PPLUG P)
{
	PSAGE x = (PSAGE)P;

	LaneSetShut(&x->Lane, TRUE);
	LaneSweep(&x->Lane, NULL, STATUS_DEVICE_REMOVED);
}

static VOID End(PPLUG P)
{
	PSAGE x = (PSAGE)P;

	KeFlushQueuedDpcs();            /* before the registers go */
	PlugUnmap(&x->Regs, x->Length);
}

static const PLUG_HOOKS Hooks = {
	.Size = sizeof(SAGE), .DeviceFlags = DO_BUFFERED_IO, .Class = &Class,
	.Prepare = Prepare, .Begin = Begin, .Awake = Awake, .Settle = Settle, .Gone = Gone, .End = End, .Answer = Answer,
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

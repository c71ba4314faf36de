/*
 * edukite: keeps the last results of four channels. A program has the card complement a number for a channel; the driver stores number,
 * answer and a running count in that channel's history, which programs read back.
 *
 * The bug: when one of the histories cannot be allocated at start, those before it are freed again, but the loop that frees them ends
 * before the first, which is lost when the start is tried once more or the device goes.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: pool-leak
 * Needs: failure
 */
#include <ddk/wdm.h>
#include "../include/stall_frame.h"

#define TAG UU_TAG('E', 'k', 't', 'e')

#define IOCTL_TRY     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B0, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_HISTORY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B1, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define LIVE   0x04
#define STATUS 0x20

#define CHANNELS 4
#define DEPTH 32

typedef struct _TRY {
	ULONG Channel;
	ULONG Number;
} TRY;

typedef struct _RESULT {
	ULONG Count;
	ULONG Number;
	ULONG Answer;
} RESULT, *PRESULT;

typedef struct _HISTORY {
	ULONG Count;
	RESULT Ring[DEPTH];
} HISTORY, *PHISTORY;

typedef struct _KITE {
	PLUG P;
	PUCHAR Regs;
	ULONG Length;
	PHISTORY Channel[CHANNELS];     /* there from start to stop; used with the gate held */
} KITE, *PKITE;

static const GUID Class = { 0x8e0c1d5a, 0x11a1, 0x4f60, { 0x90, 0x11, 0x55, 0x55, 0x01, 0x02, 0x03, 0x06 } };

DRIVER_INITIALIZE DriverEntry;

static NTSTATUS MakeHistories(PKITE X)
{
	PHISTORY made[CHANNELS];
	LONG i;

	for (i = 0; i < CHANNELS; i++) {
		made[i] = ExAllocatePoolWithTag(NonPagedPool, sizeof(HISTORY), TAG);
		if (made[i] == NULL)
			break;
		RtlZeroMemory(made[i], sizeof(HISTORY));
	}
	if (i < CHANNELS) {
#ifndef FIXED
		while (--i > 0)
			ExFreePoolWithTag(made[i], TAG);
#else
		while (--i >= 0)
			ExFreePoolWithTag(made[i], TAG);
#endif
		return STATUS_INSUFFICIENT_RESOURCES;
	}
	RtlCopyMemory(X->Channel, made, sizeof(made));
	return STATUS_SUCCESS;
}

static VOID FreeHistories(PKITE X)
{
	ULONG i;

	for (i = 0; i < CHANNELS; i++) {
		if (X->Channel[i] != NULL)
			ExFreePoolWithTag(X->Channel[i], TAG);
		X->Channel[i] = NULL;
	}
}

static NTSTATUS Try(PKITE X, const TRY *Want, PRESULT Result)
{
	PHISTORY history;
	KIRQL irql;

	if (Want->Channel >= CHANNELS)
		return STATUS_INVALID_PARAMETER;
	if (!PlugGrip(&X->P, &irql))
		return STATUS_DEVICE_NOT_READY;
	history = X->Channel[Want->Channel];
	RegWrite(X->Regs, LIVE, Want->Number);
	Result->Number = Want->Number;
	Result->Answer = RegRead(X->Regs, LIVE);
	Result->Count = history->Count++;
	history->Ring[Result->Count % DEPTH] = *Result;
	PlugLoose(&X->P, irql);
	return STATUS_SUCCESS;
}

static NTSTATUS History(PKITE X, ULONG Channel, PRESULT To, ULONG Room, PULONG_PTR Bytes)
{
	ULONG first, count, i;
	PHISTORY history;
	KIRQL irql;

	if (Channel >= CHANNELS)
		return STATUS_INVALID_PARAMETER;
	if (!PlugGrip(&X->P, &irql))
		return STATUS_DEVICE_NOT_READY;
	history = X->Channel[Channel];
	count = history->Count < DEPTH ? history->Count : DEPTH;
	if (count > Room)
		count = Room;
	first = history->Count - count;
	for (i = 0; i < count; i++)
		To[i] = history->Ring[(first + i) % DEPTH];
	PlugLoose(&X->P, irql);
	*Bytes = count * sizeof(RESULT);
	return STATUS_SUCCESS;
}

static NTSTATUS Control(PKITE X, PIRP Irp, PIO_STACK_LOCATION Sp, PULONG_PTR Bytes)
{
	PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
	ULONG in = Sp->Parameters.DeviceIoControl.InputBufferLength;
	ULONG out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
	NTSTATUS status;
	RESULT result;
	TRY want;

	switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_TRY:
		if (in < sizeof(TRY) || out < sizeof(RESULT))
			return STATUS_BUFFER_TOO_SMALL;
		want = *(TRY *)buffer;
		status = Try(X, &want, &result);
		if (!NT_SUCCESS(status))
			return status;
		*(PRESULT)buffer = result;
		*Bytes = sizeof(RESULT);
		return STATUS_SUCCESS;
	case IOCTL_HISTORY:
		if (in < sizeof(ULONG) || out < sizeof(RESULT))
			return STATUS_BUFFER_TOO_SMALL;
		return History(X, *(PULONG)buffer, buffer, out / sizeof(RESULT), Bytes);
	default:
		return STATUS_INVALID_DEVICE_REQUEST;
	}
}

static NTSTATUS Answer(PPLUG P, PIRP Irp, PIO_STACK_LOCATION Sp, PULONG_PTR Bytes)
{
	switch (Sp->MajorFunction) {
	case IRP_MJ_CREATE:
	case IRP_MJ_CLOSE:
	case IRP_MJ_CLEANUP:
		return STATUS_SUCCESS;
	case IRP_MJ_DEVICE_CONTROL:
		return Control((PKITE)P, Irp, Sp, Bytes);
	default:
		return STATUS_INVALID_DEVICE_REQUEST;
	}
}

/* ---- hooks ---- */

static VOID End(PPLUG P)
{
	PKITE x = (PKITE)P;

	FreeHistories(x);
	PlugUnmap(&x->Regs, x->Length);
}

static NTSTATUS Begin(PPLUG P, PCM_PARTIAL_RESOURCE_LIST List)
{
	PKITE x = (PKITE)P;
	NTSTATUS status;

	status = PlugMap(List, 0, 0x100, &x->Regs, &x->Length);
	if (NT_SUCCESS(status))
		status = MakeHistories(x);
	if (!NT_SUCCESS(status))
		End(P);
	return status;
}

static VOID Awake(PPLUG P)
{
	RegWrite(((PKITE)P)->Regs, STATUS, 0);
}

static const PLUG_HOOKS Hooks = {
	.Size = sizeof(KITE), .DeviceFlags = DO_BUFFERED_IO, .Class = &Class,
	.Begin = Begin, .Awake = Awake, .End = End, .Answer = Answer,
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

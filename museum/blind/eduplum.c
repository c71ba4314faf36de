/*
 * eduplum: tells programs which card there is and whether it lives: they hand a number to the card's liveness register, and the driver
 * looks whether the card answers with its complement, as often as they want. It keeps count of good and bad answers.
 *
 * The bug: the driver notes the address of the card's registers at the first start only; when the device is stopped and started again at
 * another address, which is what stopping is for, it maps and uses the old one.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: stale-resource-used, io-space-outside
 * Needs: nothing
 */
#include <ddk/wdm.h>
#include "../include/stall_frame.h"

#define IOCTL_IDENT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x890, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PROVE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x891, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_TOTALS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x892, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define IDENT  0x00
#define LIVE   0x04
#define STATUS 0x20

#define MOST_TRIES 64

typedef struct _PROOF {
	ULONG Number;
	ULONG Tries;
} PROOF;

typedef struct _TOTALS {
	ULONG64 Good, Bad;
} TOTALS;

typedef struct _WINDOW {
	BOOLEAN Known;
	PHYSICAL_ADDRESS Start;
	ULONG Length;
} WINDOW;

typedef struct _PLUM {
	PLUG P;
	WINDOW Window;
	PUCHAR Regs;
	TOTALS Totals;          /* under the gate */
} PLUM, *PPLUM;

static const GUID Class = { 0x8e0c1d5a, 0x11a1, 0x4f60, { 0x90, 0x11, 0x55, 0x55, 0x01, 0x02, 0x03, 0x04 } };

DRIVER_INITIALIZE DriverEntry;

/* Where the card's registers are. */
static NTSTATUS FindWindow(WINDOW *Window, PCM_PARTIAL_RESOURCE_LIST List)
{
	PCM_PARTIAL_RESOURCE_DESCRIPTOR d;

#ifndef FIXED
	if (Window->Known)
		return STATUS_SUCCESS;
#endif
	d = PlugFind(List, CmResourceTypeMemory, 0);
	if (d == NULL || d->u.Memory.Length < 0x100)
		return STATUS_DEVICE_CONFIGURATION_ERROR;
	Window->Start = d->u.Memory.Start;
	Window->Length = d->u.Memory.Length;
	Window->Known = TRUE;
	return STATUS_SUCCESS;
}

static NTSTATUS Prove(PPLUM X, const PROOF *Proof, PULONG Good)
{
	ULONG i, number = Proof->Number, answer, good = 0;
	KIRQL irql;

	if (Proof->Tries == 0 || Proof->Tries > MOST_TRIES)
		return STATUS_INVALID_PARAMETER;
	if (!PlugGrip(&X->P, &irql))
		return STATUS_DEVICE_NOT_READY;
	for (i = 0; i < Proof->Tries; i++) {
		RegWrite(X->Regs, LIVE, number);
		answer = RegRead(X->Regs, LIVE);
		if (answer == ~number)
			good++;
		number = number << 1 | number >> 31;
	}
	X->Totals.Good += good;
	X->Totals.Bad += Proof->Tries - good;
	PlugLoose(&X->P, irql);
	*Good = good;
	return STATUS_SUCCESS;
}

static NTSTATUS Control(PPLUM X, PIRP Irp, PIO_STACK_LOCATION Sp, PULONG_PTR Bytes)
{
	PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
	ULONG in = Sp->Parameters.DeviceIoControl.InputBufferLength;
	ULONG out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
	NTSTATUS status;
	TOTALS totals;
	PROOF proof;
	ULONG value;
	KIRQL irql;

	switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_IDENT:
		if (out < sizeof(ULONG))
			return STATUS_BUFFER_TOO_SMALL;
		if (!PlugGrip(&X->P, &irql))
			return STATUS_DEVICE_NOT_READY;
		value = RegRead(X->Regs, IDENT);
		PlugLoose(&X->P, irql);
		*(PULONG)buffer = value;
		*Bytes = sizeof(ULONG);
		return STATUS_SUCCESS;
	case IOCTL_PROVE:
		if (in < sizeof(PROOF) || out < sizeof(ULONG))
			return STATUS_BUFFER_TOO_SMALL;
		proof = *(PROOF *)buffer;
		status = Prove(X, &proof, &value);
		if (!NT_SUCCESS(status))
			return status;
		*(PULONG)buffer = value;
		*Bytes = sizeof(ULONG);
		return STATUS_SUCCESS;
	case IOCTL_TOTALS:
		if (out < sizeof(TOTALS))
			return STATUS_BUFFER_TOO_SMALL;
		KeAcquireSpinLock(&X->P.Gate, &irql);
		totals = X->Totals;
		KeReleaseSpinLock(&X->P.Gate, irql);
		*(TOTALS *)buffer = totals;
		*Bytes = sizeof(TOTALS);
		return STATUS_SUCCESS;
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
		return Control((PPLUM)P, Irp, Sp, Bytes);
	default:
		return STATUS_INVALID_DEVICE_REQUEST;
	}
}

/* ---- hooks ---- */

static NTSTATUS Begin(PPLUG P, PCM_PARTIAL_RESOURCE_LIST List)
{
	PPLUM x = (PPLUM)P;
	NTSTATUS status;

	status = FindWindow(&x->Window, List);
	if (!NT_SUCCESS(status))
		return status;
	x->Regs = MmMapIoSpace(x->Window.Start, x->Window.Length, MmNonCached);
	return x->Regs != NULL ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static VOID End(PPLUG P)
{
	PPLUM x = (PPLUM)P;

	PlugUnmap(&x->Regs, x->Window.Length);
}

static VOID Awake(PPLUG P)
{
	PPLUM x = (PPLUM)P;

	RegWrite(x->Regs, STATUS, 0);           /* no interrupts: no one would serve them */
	(void)RegRead(x->Regs, STATUS);
}

static const PLUG_HOOKS Hooks = {
	.Size = sizeof(PLUM), .DeviceFlags = DO_BUFFERED_IO, .Class = &Class,
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

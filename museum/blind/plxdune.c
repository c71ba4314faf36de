/*
 * plxdune: two light barriers on the local interrupt lines of the PLX, which latch edges. The driver counts how often each has been crossed;
 * programs read the counts, or wait until one of them changes.
 *
 * The bug: the service routine takes the latch of the first line back for both lines (a line copied and not changed). An edge of the second
 * line stays latched, and interrupts for ever.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: interrupt-storm, dpc-watchdog
 * Needs: device
 */
#include <ddk/wdm.h>
#include "../include/stall_frame.h"

#define IOCTL_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8E0, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_AWAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8E1, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define INTCSR 0x4C
#define LINE1_ON    0x001
#define LINE1_HIGH  0x002
#define LINE1_IS    0x004
#define LINE2_ON    0x008
#define LINE2_HIGH  0x010
#define LINE2_IS    0x020
#define PCI_ON      0x040
#define LINE1_EDGE  0x100
#define LINE2_EDGE  0x200
#define LINE1_CLEAR 0x400
#define LINE2_CLEAR 0x800

#define LATCHING (LINE1_HIGH | LINE2_HIGH | LINE1_EDGE | LINE2_EDGE)
#define ENABLED  (LATCHING | LINE1_ON | LINE2_ON | PCI_ON)

typedef struct _COUNTS {
	ULONG First, Second;
} COUNTS;

typedef struct _DUNE {
	PLUG P;
	PUCHAR Regs;
	ULONG Length;
	KDPC Dpc;
	COUNTS Counts;          /* under the interrupt's lock once it is connected */
	KSPIN_LOCK CopyLock;
	COUNTS Copy;            /* what programs get */
	LANE Lane;
} DUNE, *PDUNE;

static const GUID Class = { 0x8e0c1d5a, 0x11a1, 0x4f60, { 0x90, 0x11, 0x55, 0x55, 0x01, 0x02, 0x03, 0x09 } };

DRIVER_INITIALIZE DriverEntry;

/* ---- the interrupt ---- */

static BOOLEAN NTAPI Service(PKINTERRUPT Interrupt, PVOID Context)
{
	PDUNE x = Context;
	ULONG csr, clear = 0;

	(void)Interrupt;
	if (!x->P.Armed)
		return FALSE;
	csr = RegRead(x->Regs, INTCSR);
	if (csr == 0xFFFFFFFF || !(csr & (LINE1_IS | LINE2_IS)))
		return FALSE;
	if (csr & LINE1_IS) {
		x->Counts.First++;
		clear |= LINE1_CLEAR;
	}
	if (csr & LINE2_IS) {
		x->Counts.Second++;
#ifndef FIXED
		clear |= LINE1_CLEAR;
#else
		clear |= LINE2_CLEAR;
#endif
	}
	RegWrite(x->Regs, INTCSR, ENABLED | clear);
	(void)RegRead(x->Regs, INTCSR);         /* the line is down before we return */
	KeInsertQueueDpc(&x->Dpc, NULL, NULL);
	return TRUE;
}

static BOOLEAN NTAPI Arm(PVOID Context)
{
	PDUNE x = Context;

	RegWrite(x->Regs, INTCSR, LATCHING);
	RegWrite(x->Regs, INTCSR, LATCHING | LINE1_CLEAR | LINE2_CLEAR);        /* edges of before */
	RegWrite(x->Regs, INTCSR, ENABLED);
	(void)RegRead(x->Regs, INTCSR);
	x->P.Armed = TRUE;
	return TRUE;
}

static BOOLEAN NTAPI Disarm(PVOID Context)
{
	PDUNE x = Context;

	RegWrite(x->Regs, INTCSR, 0);
	(void)RegRead(x->Regs, INTCSR);
	x->P.Armed = FALSE;
	return TRUE;
}

static BOOLEAN NTAPI ReadCounts(PVOID Context)
{
	PDUNE x = Context;

	x->Copy = x->Counts;
	return TRUE;
}

/* The connection stands while a DPC can be queued: End comes behind Settle. */
static VOID NTAPI Deferred(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
	PDUNE x = Context;
	COUNTS now;
	PIRP irp;

	(void)Dpc; (void)A1; (void)A2;
	KeAcquireSpinLockAtDpcLevel(&x->CopyLock);
	KeSynchronizeExecution(x->P.Int, ReadCounts, x);
	now = x->Copy;
	KeReleaseSpinLockFromDpcLevel(&x->CopyLock);
	while ((irp = LaneTake(&x->Lane, NULL)) != NULL) {
		*(COUNTS *)irp->AssociatedIrp.SystemBuffer = now;
		LaneFinish(&x->Lane, irp, STATUS_SUCCESS, sizeof(COUNTS));
	}
}

static NTSTATUS Answer(PPLUG P, PIRP Irp, PIO_STACK_LOCATION Sp, PULONG_PTR Bytes)
{
	PDUNE x = (PDUNE)P;
	COUNTS now;
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
	case IOCTL_COUNTS:
		if (Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(COUNTS))
			return STATUS_BUFFER_TOO_SMALL;
		KeAcquireSpinLock(&x->CopyLock, &irql);
		now = x->Copy;
		KeReleaseSpinLock(&x->CopyLock, irql);
		*(COUNTS *)Irp->AssociatedIrp.SystemBuffer = now;
		*Bytes = sizeof(COUNTS);
		return STATUS_SUCCESS;
	case IOCTL_AWAIT:
		if (Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(COUNTS))
			return STATUS_BUFFER_TOO_SMALL;
		return LanePut(&x->Lane, Irp);
	default:
		return STATUS_INVALID_DEVICE_REQUEST;
	}
}

/* ---- hooks ---- */

static NTSTATUS Prepare(PPLUG P)
{
	PDUNE x = (PDUNE)P;

	LaneInit(&x->Lane, &P->Hold);
	KeInitializeSpinLock(&x->CopyLock);
	KeInitializeDpc(&x->Dpc, Deferred, x);
	return STATUS_SUCCESS;
}

static VOID End(PPLUG P)
{
	PDUNE x = (PDUNE)P;

	PlugDisconnect(P);
	PlugUnmap(&x->Regs, x->Length);
}

static NTSTATUS Begin(PPLUG P, PCM_PARTIAL_RESOURCE_LIST List)
{
	PDUNE x = (PDUNE)P;
	NTSTATUS status;

	status = PlugMap(List, 0, 0x54, &x->Regs, &x->Length);
	if (NT_SUCCESS(status))
		status = PlugConnect(P, List, Service);
	if (!NT_SUCCESS(status))
		End(P);
	return status;
}

static VOID Awake(PPLUG P)
{
	KeSynchronizeExecution(P->Int, Arm, P);
}

static VOID Doze(PPLUG P)
{
	KeSynchronizeExecution(P->Int, Disarm, P);
}

static VOID Settle(PPLUG P)
{
	(void)P;
	KeFlushQueuedDpcs();
}

static VOID Gone(PPLUG P)
{
	PDUNE x = (PDUNE)P;

	LaneSetShut(&x->Lane, TRUE);
	LaneSweep(&x->Lane, NULL, STATUS_DEVICE_REMOVED);
}

static const PLUG_HOOKS Hooks = {
	.Size = sizeof(DUNE), .DeviceFlags = DO_BUFFERED_IO, .Class = &Class,
	.Prepare = Prepare, .Begin = Begin, .Awake = Awake, .Doze = Doze, .Settle = Settle, .Gone = Gone, .End = End, .Answer = Answer,
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

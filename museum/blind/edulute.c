/*
 * edulute: computes factorials on the card, and rings the card's bell (has it raise an interrupt by a register, which is how its line is
 * tested). Requests of both kinds wait in queues of their own; the card works on one of each kind at a time.
 *
 * The bug: the DPC takes what the service routine has gathered by reading it and then setting it to zero, without the interrupt's lock.
 * What an interrupt adds between the two is lost, and the request that it was for is never completed.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: data-race, request-forgotten, irp-never-completed
 * Needs: ioctl, schedule, device
 */
#include <ddk/wdm.h>
#include "../include/stall_frame.h"

#define IOCTL_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x880, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BELL      CTL_CODE(FILE_DEVICE_UNKNOWN, 0x881, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define FACTORIAL 0x08
#define STATUS    0x20
#define CAUSES    0x24
#define RAISE     0x60
#define ACK       0x64
#define COMPUTING 0x01
#define TELL_END  0x80

#define CAUSE_SUM 0x01
#define BELL_SHIFT 16           /* the bell's causes are bits 16 to 23 */
#define CAUSE_BELL 0x00FF0000

typedef struct _ENGINE {
	LANE Lane;
	BOOLEAN Busy;           /* the card works, for the request on the lane's card place or for one that has been cancelled */
	ULONG Value;
} ENGINE, *PENGINE;

typedef struct _LUTE {
	PLUG P;
	PUCHAR Regs;
	ULONG Length;
	KDPC Dpc;
	ULONG Causes;           /* under the interrupt's lock */
	ENGINE Sum;
	ENGINE Bell;
} LUTE, *PLUTE;

static const GUID Class = { 0x8e0c1d5a, 0x11a1, 0x4f60, { 0x90, 0x11, 0x55, 0x55, 0x01, 0x02, 0x03, 0x01 } };

DRIVER_INITIALIZE DriverEntry;

/* ---- the interrupt ---- */

static BOOLEAN NTAPI Service(PKINTERRUPT Interrupt, PVOID Context)
{
	PLUTE x = Context;
	ULONG causes;

	(void)Interrupt;
	if (!x->P.Armed)
		return FALSE;
	causes = RegRead(x->Regs, CAUSES);
	if (causes == 0 || causes == 0xFFFFFFFF)
		return FALSE;
	RegWrite(x->Regs, ACK, causes);
	(void)RegRead(x->Regs, CAUSES);         /* the line is down before we return */
	x->Causes |= causes;
	KeInsertQueueDpc(&x->Dpc, NULL, NULL);
	return TRUE;
}

static BOOLEAN NTAPI Arm(PVOID Context)
{
	PLUTE x = Context;

	RegWrite(x->Regs, ACK, RegRead(x->Regs, CAUSES));
	RegWrite(x->Regs, STATUS, TELL_END);
	x->Sum.Busy = (RegRead(x->Regs, STATUS) & COMPUTING) != 0;
	if (!x->Sum.Busy)
		RegWrite(x->Regs, ACK, RegRead(x->Regs, CAUSES));
	x->Causes = 0;
	x->P.Armed = TRUE;
	return TRUE;
}

static BOOLEAN NTAPI Disarm(PVOID Context)
{
	PLUTE x = Context;

	RegWrite(x->Regs, STATUS, 0);
	RegWrite(x->Regs, ACK, RegRead(x->Regs, CAUSES));
	(void)RegRead(x->Regs, CAUSES);
	x->P.Armed = FALSE;
	return TRUE;
}

#ifdef FIXED
static BOOLEAN NTAPI TakeCauses(PVOID Context)
{
	PULONG *both = Context;

	*both[0] = *both[1];
	*both[1] = 0;
	return TRUE;
}
#endif

/* ---- requests; the gate is held in all of these ---- */

static VOID Load(PVOID Context, PIRP Irp)
{
	((PENGINE)Context)->Value = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
}

static VOID Next(PLUTE X)
{
	if (!X->Sum.Busy && LaneLift(&X->Sum.Lane, Load, &X->Sum)) {
		X->Sum.Busy = TRUE;
		RegWrite(X->Regs, FACTORIAL, X->Sum.Value);
	}
	if (!X->Bell.Busy && LaneLift(&X->Bell.Lane, Load, &X->Bell)) {
		X->Bell.Busy = TRUE;
		RegWrite(X->Regs, RAISE, X->Bell.Value << BELL_SHIFT & CAUSE_BELL);
	}
}

static VOID NTAPI Deferred(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
	PLUTE x = Context;
	ULONG causes, result = 0;
	PIRP sum = NULL, bell = NULL;
	KIRQL irql;

	(void)Dpc; (void)A1; (void)A2;
	if (!PlugGrip(&x->P, &irql))
		return;                         /* Awake begins anew what is under way */
#ifndef FIXED
	causes = x->Causes;
	x->Causes = 0;
#else
	PULONG both[2] = { &causes, &x->Causes };

	KeSynchronizeExecution(x->P.Int, TakeCauses, both);
#endif
	if ((causes & CAUSE_SUM) && x->Sum.Busy && !(RegRead(x->Regs, STATUS) & COMPUTING)) {
		result = RegRead(x->Regs, FACTORIAL);
		x->Sum.Busy = FALSE;
		sum = LaneLand(&x->Sum.Lane);
	}
	if ((causes & CAUSE_BELL) && x->Bell.Busy) {
		x->Bell.Busy = FALSE;
		bell = LaneLand(&x->Bell.Lane);
	}
	Next(x);
	PlugLoose(&x->P, irql);
	if (sum != NULL) {
		*(PULONG)sum->AssociatedIrp.SystemBuffer = result;
		LaneFinish(&x->Sum.Lane, sum, STATUS_SUCCESS, sizeof(ULONG));
	}
	if (bell != NULL) {
		*(PULONG)bell->AssociatedIrp.SystemBuffer = (causes & CAUSE_BELL) >> BELL_SHIFT;
		LaneFinish(&x->Bell.Lane, bell, STATUS_SUCCESS, sizeof(ULONG));
	}
}

static NTSTATUS Answer(PPLUG P, PIRP Irp, PIO_STACK_LOCATION Sp, PULONG_PTR Bytes)
{
	PLUTE x = (PLUTE)P;
	PENGINE engine;
	NTSTATUS status;
	ULONG value;
	KIRQL irql;

	(void)Bytes;
	switch (Sp->MajorFunction) {
	case IRP_MJ_CREATE:
	case IRP_MJ_CLOSE:
		return STATUS_SUCCESS;
	case IRP_MJ_CLEANUP:
		LaneSweep(&x->Sum.Lane, Sp->FileObject, STATUS_CANCELLED);
		LaneSweep(&x->Bell.Lane, Sp->FileObject, STATUS_CANCELLED);
		return STATUS_SUCCESS;
	case IRP_MJ_DEVICE_CONTROL:
		break;
	default:
		return STATUS_INVALID_DEVICE_REQUEST;
	}
	switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_FACTORIAL:
		engine = &x->Sum;
		break;
	case IOCTL_BELL:
		engine = &x->Bell;
		break;
	default:
		return STATUS_INVALID_DEVICE_REQUEST;
	}
	if (Sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) ||
	    Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
		return STATUS_BUFFER_TOO_SMALL;
	value = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
	if (engine == &x->Sum ? value > 12 : value == 0 || value > 0xFF)
		return STATUS_INVALID_PARAMETER;
	status = LanePut(&engine->Lane, Irp);
	if (status == STATUS_PENDING && PlugGrip(P, &irql)) {
		Next(x);
		PlugLoose(P, irql);
	}
	return status;
}

/* ---- hooks ---- */

static NTSTATUS Prepare(PPLUG P)
{
	PLUTE x = (PLUTE)P;

	LaneInit(&x->Sum.Lane, &P->Hold);
	LaneInit(&x->Bell.Lane, &P->Hold);
	KeInitializeDpc(&x->Dpc, Deferred, x);
	return STATUS_SUCCESS;
}

static VOID End(PPLUG P)
{
	PLUTE x = (PLUTE)P;

	PlugDisconnect(P);
	PlugUnmap(&x->Regs, x->Length);
}

static NTSTATUS Begin(PPLUG P, PCM_PARTIAL_RESOURCE_LIST List)
{
	PLUTE x = (PLUTE)P;
	NTSTATUS status;

	status = PlugMap(List, 0, 0x100, &x->Regs, &x->Length);
	if (NT_SUCCESS(status))
		status = PlugConnect(P, List, Service);
	if (!NT_SUCCESS(status))
		End(P);
	return status;
}

static VOID Awake(PPLUG P)
{
	PLUTE x = (PLUTE)P;

	KeSynchronizeExecution(P->Int, Arm, x);
	x->Bell.Busy = FALSE;
	if (!x->Sum.Busy && LaneHasCard(&x->Sum.Lane)) {
		x->Sum.Busy = TRUE;
		RegWrite(x->Regs, FACTORIAL, x->Sum.Value);
	}
	if (LaneHasCard(&x->Bell.Lane)) {
		x->Bell.Busy = TRUE;
		RegWrite(x->Regs, RAISE, x->Bell.Value << BELL_SHIFT & CAUSE_BELL);
	}
	Next(x);
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
	PLUTE x = (PLUTE)P;

	LaneSetShut(&x->Sum.Lane, TRUE);
	LaneSetShut(&x->Bell.Lane, TRUE);
	LaneSweep(&x->Sum.Lane, NULL, STATUS_DEVICE_REMOVED);
	LaneSweep(&x->Bell.Lane, NULL, STATUS_DEVICE_REMOVED);
}

static const PLUG_HOOKS Hooks = {
	.Size = sizeof(LUTE), .DeviceFlags = DO_BUFFERED_IO, .Class = &Class,
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

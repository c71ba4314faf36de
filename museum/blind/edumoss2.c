/*
 * edumoss: keeps small records in the card's buffer. Reads and writes of up to 1024 bytes go through a common buffer, into which the card
 * stores and from which it fetches by itself; a program may cancel a request at any time, the card then ends its transfer for no one.
 *
 * The bug: when the card has stored what was asked for, the DPC copies it to the request's buffer first and claims the request then. One that
 * is cancelled on another processor meanwhile has been completed, and its buffer freed, while the copy is being made.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: use-after-free, write-after-free, wild-write, data-race
 * Needs: ioctl, cancel, schedule, device
 */
#include <ddk/wdm.h>
#include "../include/stall_frame.h"

#define CAUSES   0x24
#define ACK      0x64
#define DMA_FROM 0x80
#define DMA_TO   0x88
#define DMA_SIZE 0x90
#define DMA_CMD  0x98
#define CMD_RUN  1
#define CMD_TO_MEMORY 2
#define CMD_TELL 4
#define CAUSE_DMA 0x100

#define CARD_BUFFER 0x40000
#define RECORDS_SIZE 2048
#define LONGEST 1024
#define CARD_LIMIT 0x10000000LL         /* the card has 28 address lines */

typedef struct _MOSS {
	PLUG P;
	PUCHAR Regs;
	ULONG Length;
	KDPC Dpc;
	ULONG Causes;                   /* under the interrupt's lock */
	PDMA_ADAPTER Adapter;
	PUCHAR Common;
	PHYSICAL_ADDRESS Where;
	KEVENT Still;                   /* no transfer is under way */
	LANE Lane;
	/* under the gate */
	BOOLEAN Draining;
	BOOLEAN Running;                /* for the request on the lane's card place, or for one that has been cancelled */
	BOOLEAN ToCard;
	ULONG Piece, Offset;
} MOSS, *PMOSS;

static const GUID Class = { 0x8e0c1d5a, 0x11a1, 0x4f60, { 0x90, 0x11, 0x55, 0x55, 0x01, 0x02, 0x03, 0x03 } };

DRIVER_INITIALIZE DriverEntry;

/* ---- the interrupt ---- */

static BOOLEAN NTAPI Service(PKINTERRUPT Interrupt, PVOID Context)
{
	PMOSS x = Context;
	ULONG causes;

	(void)Interrupt;
	if (!x->P.Armed)
		return FALSE;
	causes = RegRead(x->Regs, CAUSES);
	if (causes == 0 || causes == 0xFFFFFFFF)
		return FALSE;
	RegWrite(x->Regs, ACK, causes);
	(void)RegRead(x->Regs, CAUSES);
	x->Causes |= causes;
	KeInsertQueueDpc(&x->Dpc, NULL, NULL);
	return TRUE;
}

static BOOLEAN NTAPI Arm(PVOID Context)
{
	PMOSS x = Context;

	RegWrite(x->Regs, ACK, RegRead(x->Regs, CAUSES));
	x->Causes = 0;
	x->P.Armed = TRUE;
	return TRUE;
}

static BOOLEAN NTAPI Disarm(PVOID Context)
{
	PMOSS x = Context;

	RegWrite(x->Regs, ACK, RegRead(x->Regs, CAUSES));
	(void)RegRead(x->Regs, CAUSES);
	x->P.Armed = FALSE;
	return TRUE;
}

static BOOLEAN NTAPI TakeCauses(PVOID Context)
{
	PULONG *both = Context;

	*both[0] = *both[1];
	*both[1] = 0;
	return TRUE;
}

/* ---- the transfer; the gate is held in all of these ---- */

static VOID Load(PVOID Context, PIRP Irp)
{
	PMOSS x = Context;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);

	x->ToCard = sp->MajorFunction == IRP_MJ_WRITE;
	if (x->ToCard) {
		x->Piece = sp->Parameters.Write.Length;
		x->Offset = sp->Parameters.Write.ByteOffset.LowPart;
		RtlCopyMemory(x->Common, Irp->AssociatedIrp.SystemBuffer, x->Piece);
	} else {
		x->Piece = sp->Parameters.Read.Length;
		x->Offset = sp->Parameters.Read.ByteOffset.LowPart;
	}
}

static VOID Program(PMOSS X)
{
	ULONG memory = X->Where.LowPart, card = CARD_BUFFER + X->Offset;

	RegWrite(X->Regs, DMA_FROM, X->ToCard ? memory : card);
	RegWrite(X->Regs, DMA_TO, X->ToCard ? card : memory);
	RegWrite(X->Regs, DMA_SIZE, X->Piece);
	RegWrite(X->Regs, DMA_CMD, CMD_RUN | CMD_TELL | (X->ToCard ? 0 : CMD_TO_MEMORY));
}

static VOID Next(PMOSS X)
{
	if (X->Running || X->Draining || !LaneLift(&X->Lane, Load, X))
		return;
	X->Running = TRUE;
	KeClearEvent(&X->Still);
	Program(X);
}

static VOID NTAPI Deferred(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
	PMOSS x = Context;
	ULONG causes;
	PULONG both[2] = { &causes, &x->Causes };
	ULONG bytes = 0;
	PIRP done = NULL;
	KIRQL irql;

	(void)Dpc; (void)A1; (void)A2;
	if (!PlugGrip(&x->P, &irql))
		return;                         /* Awake begins the transfer anew */
	KeSynchronizeExecution(x->P.Int, TakeCauses, both);
	if ((causes & CAUSE_DMA) && x->Running && !(RegRead(x->Regs, DMA_CMD) & CMD_RUN)) {
		x->Running = FALSE;
		bytes = x->Piece;
#ifndef FIXED
		done = x->Lane.Card;
		if (done != NULL && !x->ToCard)
			RtlCopyMemory(done->AssociatedIrp.SystemBuffer, x->Common, bytes);
		done = LaneLand(&x->Lane);
#else
		done = LaneLand(&x->Lane);
		if (done != NULL && !x->ToCard)
			RtlCopyMemory(done->AssociatedIrp.SystemBuffer, x->Common, bytes);
#endif
		KeSetEvent(&x->Still, IO_NO_INCREMENT, FALSE);
	}
	Next(x);
	PlugLoose(&x->P, irql);
	if (done != NULL)
		LaneFinish(&x->Lane, done, STATUS_SUCCESS, bytes);
}

static NTSTATUS Answer(PPLUG P, PIRP Irp, PIO_STACK_LOCATION Sp, PULONG_PTR Bytes)
{
	PMOSS x = (PMOSS)P;
	LARGE_INTEGER offset;
	NTSTATUS status;
	ULONG length;
	KIRQL irql;

	*Bytes = 0;
	switch (Sp->MajorFunction) {
	case IRP_MJ_CREATE:
	case IRP_MJ_CLOSE:
		return STATUS_SUCCESS;
	case IRP_MJ_CLEANUP:
		LaneSweep(&x->Lane, Sp->FileObject, STATUS_CANCELLED);
		return STATUS_SUCCESS;
	case IRP_MJ_READ:
		offset = Sp->Parameters.Read.ByteOffset;
		length = Sp->Parameters.Read.Length;
		break;
	case IRP_MJ_WRITE:
		offset = Sp->Parameters.Write.ByteOffset;
		length = Sp->Parameters.Write.Length;
		break;
	default:
		return STATUS_INVALID_DEVICE_REQUEST;
	}
	if (length == 0)
		return STATUS_SUCCESS;
	if (offset.QuadPart < 0 || offset.QuadPart >= RECORDS_SIZE || length > RECORDS_SIZE - offset.LowPart || length > LONGEST)
		return STATUS_INVALID_PARAMETER;
	status = LanePut(&x->Lane, Irp);
	if (status == STATUS_PENDING && PlugGrip(P, &irql)) {
		Next(x);
		PlugLoose(P, irql);
	}
	return status;
}

/* ---- hooks ---- */

static NTSTATUS Prepare(PPLUG P)
{
	PMOSS x = (PMOSS)P;

	LaneInit(&x->Lane, &P->Hold);
	KeInitializeDpc(&x->Dpc, Deferred, x);
	KeInitializeEvent(&x->Still, NotificationEvent, TRUE);
	return STATUS_SUCCESS;
}

static VOID Bury(PPLUG P)
{
	PMOSS x = (PMOSS)P;

	if (x->Common != NULL)
		x->Adapter->DmaOperations->FreeCommonBuffer(x->Adapter, LONGEST, x->Where, x->Common, TRUE);
	x->Common = NULL;
	if (x->Adapter != NULL)
		x->Adapter->DmaOperations->PutDmaAdapter(x->Adapter);
	x->Adapter = NULL;
}

/* The common buffer stays with the device until it is removed: a transfer that was interrupted by a stop goes on with it. */
static NTSTATUS GetBuffer(PMOSS X)
{
	DEVICE_DESCRIPTION d;
	ULONG count = 0;

	if (X->Common != NULL)
		return STATUS_SUCCESS;
	RtlZeroMemory(&d, sizeof(d));
	d.Version = DEVICE_DESCRIPTION_VERSION;
	d.Master = TRUE;
	d.ScatterGather = TRUE;
	d.Dma32BitAddresses = TRUE;
	d.InterfaceType = PCIBus;
	d.MaximumLength = LONGEST;
	X->Adapter = IoGetDmaAdapter(X->P.Pdo, &d, &count);
	if (X->Adapter == NULL)
		return STATUS_INSUFFICIENT_RESOURCES;
	X->Common = X->Adapter->DmaOperations->AllocateCommonBuffer(X->Adapter, LONGEST, &X->Where, TRUE);
	if (X->Common == NULL || X->Where.QuadPart + LONGEST > CARD_LIMIT) {
		Bury(&X->P);
		return STATUS_INSUFFICIENT_RESOURCES;
	}
	RtlZeroMemory(X->Common, LONGEST);
	return STATUS_SUCCESS;
}

static VOID End(PPLUG P)
{
	PMOSS x = (PMOSS)P;

	PlugDisconnect(P);
	PlugUnmap(&x->Regs, x->Length);
}

static NTSTATUS Begin(PPLUG P, PCM_PARTIAL_RESOURCE_LIST List)
{
	PMOSS x = (PMOSS)P;
	NTSTATUS status;

	status = GetBuffer(x);
	if (NT_SUCCESS(status))
		status = PlugMap(List, 0, 0x100, &x->Regs, &x->Length);
	if (NT_SUCCESS(status))
		status = PlugConnect(P, List, Service);
	if (!NT_SUCCESS(status))
		End(P);
	return status;
}

static VOID Awake(PPLUG P)
{
	PMOSS x = (PMOSS)P;

	x->Draining = FALSE;
	KeSynchronizeExecution(P->Int, Arm, x);
	if (x->Running && !(RegRead(x->Regs, DMA_CMD) & CMD_RUN))
		Program(x);                     /* it went with the card's power, or no one saw its end: moving it once more does no harm */
	Next(x);
}

/* Waits until the card is still. One that does not come to an end must not reach memory any more when the device is removed. */
static VOID Drain(PPLUG P, BOOLEAN Forever)
{
	PMOSS x = (PMOSS)P;
	LARGE_INTEGER limit;
	KIRQL irql;

	if (!PlugGrip(P, &irql))
		return;
	x->Draining = TRUE;
	PlugLoose(P, irql);
	limit.QuadPart = -2 * 10000000LL;
	while (KeWaitForSingleObject(&x->Still, Executive, KernelMode, FALSE, &limit) == STATUS_TIMEOUT)
		if (!Forever || NT_SUCCESS(PlugMuzzle(P)))
			break;
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
	PMOSS x = (PMOSS)P;
	KIRQL irql;

	LaneSetShut(&x->Lane, TRUE);
	LaneSweep(&x->Lane, NULL, STATUS_DEVICE_REMOVED);
	KeAcquireSpinLock(&P->Gate, &irql);
	x->Running = FALSE;
	KeReleaseSpinLock(&P->Gate, irql);
}

static const PLUG_HOOKS Hooks = {
	.Size = sizeof(MOSS), .DeviceFlags = DO_BUFFERED_IO, .Class = &Class,
	.Prepare = Prepare, .Begin = Begin, .Awake = Awake, .Drain = Drain, .Doze = Doze, .Settle = Settle, .Gone = Gone, .End = End,
	.Bury = Bury, .Answer = Answer,
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

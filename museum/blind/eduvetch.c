/*
 * eduvetch: the card's buffer as a small file. Programs read and write up to 2048 bytes of it at any offset; the card fetches and stores
 * them itself, straight from and to the program's pages, by as many transfers as the pages need.
 *
 * The bug: MapTransfer says how many bytes lie at the address that it returns; the driver overlooks that and has the card move all that is
 * left from there, so a buffer that crosses a page's end is read or written behind the page.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: dma-length-of-whole, dma-behind-mapping, wild-dma
 * Needs: ioctl, device
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
#define BUFFER_SIZE 2048                /* half of what the card has */
#define CARD_LIMIT 0x10000000LL         /* the card has 28 address lines */

typedef struct _VETCH {
	PLUG P;
	PUCHAR Regs;
	ULONG Length;
	KDPC Dpc;
	ULONG Causes;                   /* under the interrupt's lock */
	PDMA_ADAPTER Adapter;
	PVOID MapBase;
	ULONG MapCount;
	KEVENT Granted;
	KEVENT Still;                   /* no transfer is under way */
	LANE Lane;
	/* under the gate */
	BOOLEAN Draining;
	PIRP Active;                    /* claimed: no one cancels it while the card uses its pages */
	BOOLEAN ToCard;
	PUCHAR Va;
	ULONG Left, Offset;
	BOOLEAN Mapped, Running;
	PHYSICAL_ADDRESS Where;
	ULONG Piece;
} VETCH, *PVETCH;

static const GUID Class = { 0x8e0c1d5a, 0x11a1, 0x4f60, { 0x90, 0x11, 0x55, 0x55, 0x01, 0x02, 0x03, 0x02 } };

DRIVER_INITIALIZE DriverEntry;

/* ---- the interrupt ---- */

static BOOLEAN NTAPI Service(PKINTERRUPT Interrupt, PVOID Context)
{
	PVETCH x = Context;
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
	PVETCH x = Context;

	RegWrite(x->Regs, ACK, RegRead(x->Regs, CAUSES));
	x->Causes = 0;
	x->P.Armed = TRUE;
	return TRUE;
}

static BOOLEAN NTAPI Disarm(PVOID Context)
{
	PVETCH x = Context;

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

static VOID Program(PVETCH X)
{
	ULONG memory = X->Where.LowPart, card = CARD_BUFFER + X->Offset;

	RegWrite(X->Regs, DMA_FROM, X->ToCard ? memory : card);
	RegWrite(X->Regs, DMA_TO, X->ToCard ? card : memory);
	RegWrite(X->Regs, DMA_SIZE, X->Piece);
	RegWrite(X->Regs, DMA_CMD, CMD_RUN | CMD_TELL | (X->ToCard ? 0 : CMD_TO_MEMORY));
}

static VOID Unmap(PVETCH X)
{
	if (X->Mapped)
		X->Adapter->DmaOperations->FlushAdapterBuffers(X->Adapter, X->Active->MdlAddress, X->MapBase, X->Va, X->Piece, X->ToCard);
	X->Mapped = FALSE;
}

/* Begins the next piece. FALSE: the card cannot reach that memory. */
static BOOLEAN BeginPiece(PVETCH X)
{
	ULONG length = X->Left;

	X->Where = X->Adapter->DmaOperations->MapTransfer(X->Adapter, X->Active->MdlAddress, X->MapBase, X->Va, &length, X->ToCard);
#ifndef FIXED
	X->Piece = X->Left;
#else
	X->Piece = length;
#endif
	X->Mapped = TRUE;
	if (X->Where.QuadPart + X->Piece > CARD_LIMIT) {
		Unmap(X);
		return FALSE;
	}
	X->Running = TRUE;
	KeClearEvent(&X->Still);
	Program(X);
	return TRUE;
}

/* Goes on with the request that is under way, or takes the next. Returns one that cannot be served. */
static PIRP Pump(PVETCH X)
{
	PIRP refused;

	if (X->Running || X->Draining)
		return NULL;
	if (X->Active == NULL) {
		PIO_STACK_LOCATION sp;

		X->Active = LaneTake(&X->Lane, NULL);
		if (X->Active == NULL)
			return NULL;
		sp = IoGetCurrentIrpStackLocation(X->Active);
		X->ToCard = sp->MajorFunction == IRP_MJ_WRITE;
		X->Left = X->ToCard ? sp->Parameters.Write.Length : sp->Parameters.Read.Length;
		X->Offset = X->ToCard ? sp->Parameters.Write.ByteOffset.LowPart : sp->Parameters.Read.ByteOffset.LowPart;
		X->Va = MmGetMdlVirtualAddress(X->Active->MdlAddress);
		KeFlushIoBuffers(X->Active->MdlAddress, !X->ToCard, TRUE);
	}
	if (BeginPiece(X))
		return NULL;
	refused = X->Active;
	X->Active = NULL;
	return refused;
}

static VOID PumpAll(PVETCH X)
{
	PIRP refused = NULL;
	KIRQL irql;

	do {
		if (!PlugGrip(&X->P, &irql))
			return;
		refused = Pump(X);
		PlugLoose(&X->P, irql);
		if (refused != NULL)
			LaneFinish(&X->Lane, refused, STATUS_INSUFFICIENT_RESOURCES, 0);
	} while (refused != NULL);
}

static VOID NTAPI Deferred(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
	PVETCH x = Context;
	ULONG causes;
	PULONG both[2] = { &causes, &x->Causes };
	NTSTATUS status = STATUS_SUCCESS;
	ULONG_PTR bytes = 0;
	PIRP done = NULL;
	KIRQL irql;

	(void)Dpc; (void)A1; (void)A2;
	if (!PlugGrip(&x->P, &irql))
		return;                         /* Awake begins the piece anew */
	KeSynchronizeExecution(x->P.Int, TakeCauses, both);
	if ((causes & CAUSE_DMA) && x->Running && !(RegRead(x->Regs, DMA_CMD) & CMD_RUN)) {
		x->Running = FALSE;
		Unmap(x);
		x->Va += x->Piece;
		x->Offset += x->Piece;
		x->Left -= x->Piece;
		if (x->Left == 0 || x->Active->Cancel) {
			PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(x->Active);

			done = x->Active;
			x->Active = NULL;
			if (x->Left != 0)
				status = STATUS_CANCELLED;
			else
				bytes = x->ToCard ? sp->Parameters.Write.Length : sp->Parameters.Read.Length;
		}
		KeSetEvent(&x->Still, IO_NO_INCREMENT, FALSE);
	}
	PlugLoose(&x->P, irql);
	if (done != NULL)
		LaneFinish(&x->Lane, done, status, bytes);
	PumpAll(x);
}

static NTSTATUS Answer(PPLUG P, PIRP Irp, PIO_STACK_LOCATION Sp, PULONG_PTR Bytes)
{
	PVETCH x = (PVETCH)P;
	LARGE_INTEGER offset;
	NTSTATUS status;
	ULONG length;

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
	if (offset.QuadPart < 0 || offset.QuadPart >= BUFFER_SIZE || length > BUFFER_SIZE - offset.LowPart)
		return STATUS_INVALID_PARAMETER;
	status = LanePut(&x->Lane, Irp);
	if (status == STATUS_PENDING)
		PumpAll(x);
	return status;
}

/* ---- hooks ---- */

static NTSTATUS Prepare(PPLUG P)
{
	PVETCH x = (PVETCH)P;

	LaneInit(&x->Lane, &P->Hold);
	KeInitializeDpc(&x->Dpc, Deferred, x);
	KeInitializeEvent(&x->Granted, NotificationEvent, FALSE);
	KeInitializeEvent(&x->Still, NotificationEvent, TRUE);
	return STATUS_SUCCESS;
}

static IO_ALLOCATION_ACTION NTAPI Grant(PDEVICE_OBJECT Device, PIRP Irp, PVOID MapBase, PVOID Context)
{
	PVETCH x = Context;

	(void)Device; (void)Irp;
	x->MapBase = MapBase;
	KeSetEvent(&x->Granted, IO_NO_INCREMENT, FALSE);
	return DeallocateObjectKeepRegisters;
}

/* The adapter and its map registers stay with the device until it is removed: a piece that was interrupted by a stop keeps its mapping. */
static NTSTATUS GetAdapter(PVETCH X)
{
	DEVICE_DESCRIPTION d;
	ULONG count = 0;
	NTSTATUS status;
	KIRQL irql;

	if (X->Adapter != NULL)
		return STATUS_SUCCESS;
	RtlZeroMemory(&d, sizeof(d));
	d.Version = DEVICE_DESCRIPTION_VERSION;
	d.Master = TRUE;
	d.ScatterGather = TRUE;
	d.Dma32BitAddresses = TRUE;
	d.InterfaceType = PCIBus;
	d.MaximumLength = BUFFER_SIZE;
	X->Adapter = IoGetDmaAdapter(X->P.Pdo, &d, &count);
	if (X->Adapter == NULL)
		return STATUS_INSUFFICIENT_RESOURCES;
	X->MapCount = BYTES_TO_PAGES(BUFFER_SIZE) + 1;
	status = STATUS_INSUFFICIENT_RESOURCES;
	if (count >= X->MapCount) {
		KeRaiseIrql(DISPATCH_LEVEL, &irql);
		status = X->Adapter->DmaOperations->AllocateAdapterChannel(X->Adapter, X->P.Self, X->MapCount, Grant, X);
		KeLowerIrql(irql);
	}
	if (!NT_SUCCESS(status)) {
		X->Adapter->DmaOperations->PutDmaAdapter(X->Adapter);
		X->Adapter = NULL;
		return status;
	}
	KeWaitForSingleObject(&X->Granted, Executive, KernelMode, FALSE, NULL);
	return STATUS_SUCCESS;
}

static VOID Bury(PPLUG P)
{
	PVETCH x = (PVETCH)P;
	KIRQL irql;

	if (x->Adapter == NULL)
		return;
	KeRaiseIrql(DISPATCH_LEVEL, &irql);
	x->Adapter->DmaOperations->FreeMapRegisters(x->Adapter, x->MapBase, x->MapCount);
	KeLowerIrql(irql);
	x->Adapter->DmaOperations->PutDmaAdapter(x->Adapter);
	x->Adapter = NULL;
}

static VOID End(PPLUG P)
{
	PVETCH x = (PVETCH)P;

	PlugDisconnect(P);
	PlugUnmap(&x->Regs, x->Length);
}

static NTSTATUS Begin(PPLUG P, PCM_PARTIAL_RESOURCE_LIST List)
{
	PVETCH x = (PVETCH)P;
	NTSTATUS status;

	status = GetAdapter(x);
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
	PVETCH x = (PVETCH)P;

	x->Draining = FALSE;
	KeSynchronizeExecution(P->Int, Arm, x);
	if (x->Running && !(RegRead(x->Regs, DMA_CMD) & CMD_RUN))
		Program(x);                     /* it went with the card's power, or no one saw its end: moving it once more does no harm */
	KeInsertQueueDpc(&x->Dpc, NULL, NULL);
}

/* Waits until the card is still. One that does not come to an end must not reach memory any more when the device is removed. */
static VOID Drain(PPLUG P, BOOLEAN Forever)
{
	PVETCH x = (PVETCH)P;
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
	PVETCH x = (PVETCH)P;
	PIRP lost;
	KIRQL irql;

	LaneSetShut(&x->Lane, TRUE);
	KeAcquireSpinLock(&P->Gate, &irql);
	lost = x->Active;
	if (lost != NULL) {
		Unmap(x);
		x->Active = NULL;
		x->Running = FALSE;
	}
	KeReleaseSpinLock(&P->Gate, irql);
	if (lost != NULL)
		LaneFinish(&x->Lane, lost, STATUS_DEVICE_REMOVED, 0);
	LaneSweep(&x->Lane, NULL, STATUS_DEVICE_REMOVED);
}

static const PLUG_HOOKS Hooks = {
	.Size = sizeof(VETCH), .DeviceFlags = DO_DIRECT_IO, .Class = &Class,
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

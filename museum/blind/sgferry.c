/*
 * sgferry - ferries data between programs' buffers and the 4 KB of RAM on QEMU's edu card, by DMA straight
 * from and to the buffer. Reads and writes give the place in the card's RAM as the file position; they queue
 * up for the single DMA channel, which takes one piece of contiguous memory at a time.
 *
 * The bug: a request is completed by its cancel routine while the card still moves its data.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: dma-unlocked-while-mapped, cancellation-missed
 * Needs: cancel, device
 */
#include <ddk/wdm.h>

#define TAG 'fgS '
#define STATUS_DEVICE_HARDWARE_ERROR ((NTSTATUS)0xC0000483)
#define TICK_MS 100
#define TICKS 20

#define EDU_ID 0x00
#define EDU_LIVENESS 0x04
#define EDU_STATUS 0x20
#define EDU_IRQ_STATUS 0x24
#define EDU_IRQ_DMA 0x100
#define EDU_IRQ_ACK 0x64
#define EDU_DMA_SOURCE 0x80
#define EDU_DMA_DESTINATION 0x88
#define EDU_DMA_COUNT 0x90
#define EDU_DMA_COMMAND 0x98
#define EDU_DMA_START 1
#define EDU_DMA_FROM_CARD 2
#define EDU_DMA_IRQ 4
#define EDU_RAM 0x40000
#define EDU_RAM_SIZE 4096

/* DEVICE_DESCRIPTION as of version 3. */
typedef struct _DEVICE_DESCRIPTION_V3 {
	ULONG Version;
	BOOLEAN Master;
	BOOLEAN ScatterGather;
	BOOLEAN DemandMode;
	BOOLEAN AutoInitialize;
	BOOLEAN Dma32BitAddresses;
	BOOLEAN IgnoreCount;
	BOOLEAN Reserved1;
	BOOLEAN Dma64BitAddresses;
	ULONG BusNumber;
	ULONG DmaChannel;
	INTERFACE_TYPE InterfaceType;
	DMA_WIDTH DmaWidth;
	DMA_SPEED DmaSpeed;
	ULONG MaximumLength;
	ULONG DmaPort;
	ULONG DmaAddressWidth;
	ULONG DmaControllerInstance;
	ULONG DmaRequestLine;
	PHYSICAL_ADDRESS DeviceAddress;
} DEVICE_DESCRIPTION_V3;

#define RD(ext, offset) READ_REGISTER_ULONG((PULONG)((ext)->Regs + (offset)))
#define WR(ext, offset, value) WRITE_REGISTER_ULONG((PULONG)((ext)->Regs + (offset)), (value))

static const GUID InterfaceGuid = { 0x6a3c1f20, 0x11d2, 0x4b8e, { 0x90, 0x01, 0x3a, 0x51, 0x22, 0x9c, 0x10, 0x02 } };

typedef enum _STATE {
	Idle,
	Mapping,	/* waits for the scatter/gather list */
	Running,	/* the card transfers a piece */
	Ending,		/* the DPC is to finish the request */
	Finishing	/* it does */
} STATE;

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
	STATE State;
	KEVENT IdleEvent;		/* set while the state is Idle and nothing is about to change it */
	ULONG Beginners;		/* those that ask for a scatter/gather list */
	PIRP Current;
	NTSTATUS CurrentStatus;
	BOOLEAN Cancelable;		/* the current request can be cancelled */
	BOOLEAN ToCard;
	ULONG Length;
	ULONG Offset;			/* the piece's place in the card's RAM */
	PSCATTER_GATHER_LIST List;
	SCATTER_GATHER_ELEMENT *Piece;
	ULONG PiecesLeft;
	ULONG TicksLeft;
	BOOLEAN Broken;			/* it did not finish a transfer */
	BOOLEAN HardwareOn;		/* interrupt and timer are on */
	LIST_ENTRY PowerIrps;		/* they wait for the running transfer */
	BOOLEAN PowerQueued;
	PIO_WORKITEM PowerWork;
	PDMA_ADAPTER Adapter;
	PUCHAR Regs;
	ULONG RegsLength;
	PKINTERRUPT Interrupt;
	BOOLEAN IrqOn;			/* guarded by the interrupt's lock */
	volatile LONG Causes;
	KDPC Dpc;
	KTIMER Timer;
	KDPC TimerDpc;
} EXT;

#define OWN_ON_PNP
#define OWN_ON_POWER
#include "../include/live_frame.h"
#include "../include/live_queue.h"
#include "../include/live_card.h"

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

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context)
{
	EXT *ext = Context;
	ULONG cause;

	UNREFERENCED_PARAMETER(Interrupt);
	/* A transfer that was given up may end between "off" and the disconnecting. */
	if (!ext->IrqOn && (ext->Absent || ext->Power != PowerDeviceD0))
		return FALSE;
	cause = RD(ext, EDU_IRQ_STATUS);
	if (cause == 0 || cause == 0xFFFFFFFF)
		return FALSE;
	WR(ext, EDU_IRQ_ACK, cause);
	if (!ext->IrqOn)
		return TRUE;
	InterlockedOr(&ext->Causes, (LONG)cause);
	KeInsertQueueDpc(&ext->Dpc, NULL, NULL);
	return TRUE;
}

/* Both run with the interrupt's lock. */
static BOOLEAN NTAPI SyncIrqOn(PVOID Context)
{
	EXT *ext = Context;

	ext->IrqOn = TRUE;
	return TRUE;
}

static BOOLEAN NTAPI SyncIrqOff(PVOID Context)
{
	EXT *ext = Context;

	ext->IrqOn = FALSE;
	if (!ext->Absent)
		WR(ext, EDU_IRQ_ACK, RD(ext, EDU_IRQ_STATUS));
	return TRUE;
}

/* The lock is held: the card gets the next piece. */
static VOID RunPiece(EXT *ext)
{
	ULONG memory = ext->Piece->Address.LowPart;

	WR(ext, EDU_DMA_SOURCE, ext->ToCard ? memory : EDU_RAM + ext->Offset);
	WR(ext, EDU_DMA_DESTINATION, ext->ToCard ? EDU_RAM + ext->Offset : memory);
	WR(ext, EDU_DMA_COUNT, ext->Piece->Length);
	WR(ext, EDU_DMA_COMMAND, EDU_DMA_START | EDU_DMA_IRQ | (ext->ToCard ? 0 : EDU_DMA_FROM_CARD));
	ext->TicksLeft = TICKS;
}

/* The lock is held: the DPC will finish the request. */
static VOID End(EXT *ext, NTSTATUS Status)
{
	ext->State = Ending;
	ext->CurrentStatus = Status;
	KeInsertQueueDpc(&ext->Dpc, NULL, NULL);
}

/* The lock is held: looks whether the card is ready with its piece. */
static VOID Poll(EXT *ext)
{
	ULONG command = RD(ext, EDU_DMA_COMMAND);

	if (command == 0xFFFFFFFF) {
		End(ext, STATUS_NO_SUCH_DEVICE);
	} else if (!(command & EDU_DMA_START)) {
		ext->Offset += ext->Piece->Length;
		ext->Piece++;
		if (--ext->PiecesLeft != 0)
			RunPiece(ext);
		else
			End(ext, STATUS_SUCCESS);
	}
}

#ifndef FIXED
static VOID NTAPI TransferCancelled(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	KIRQL irql;

	IoReleaseCancelSpinLock(Irp->CancelIrql);
	KeAcquireSpinLock(&ext->Lock, &irql);
	if (ext->Current == Irp)
		ext->Current = NULL;
	KeReleaseSpinLock(&ext->Lock, irql);
	Done(ext, Irp, STATUS_CANCELLED, 0);
}
#endif

/* The scatter/gather list is there (DISPATCH_LEVEL). */
static VOID NTAPI ListReady(PDEVICE_OBJECT Device, PIRP Irp, PSCATTER_GATHER_LIST List, PVOID Context)
{
	EXT *ext = Context;

	UNREFERENCED_PARAMETER(Device);
	UNREFERENCED_PARAMETER(Irp);
	KeAcquireSpinLockAtDpcLevel(&ext->Lock);
	ext->List = List;
	ext->Piece = List->Elements;
	ext->PiecesLeft = List->NumberOfElements;
	if (!ext->Live || ext->PiecesLeft == 0) {
		End(ext, STATUS_DEVICE_NOT_READY);
	} else if (RD(ext, EDU_DMA_COMMAND) & EDU_DMA_START) {
		End(ext, STATUS_DEVICE_BUSY);
	} else {
		ext->State = Running;
#ifndef FIXED
		ext->Cancelable = TRUE;
		IoSetCancelRoutine(ext->Current, TransferCancelled);
#endif
		RunPiece(ext);
	}
	KeReleaseSpinLockFromDpcLevel(&ext->Lock);
}

/* The lock is held. */
static VOID SignalIdle(EXT *ext)
{
	if (ext->State == Idle && ext->Beginners == 0)
		KeSetEvent(&ext->IdleEvent, IO_NO_INCREMENT, FALSE);
}

/* At DISPATCH_LEVEL, without the lock: begins requests until one is under way or none is left. */
static VOID Begin(EXT *ext)
{
	for (;;) {
		PIO_STACK_LOCATION sp;
		NTSTATUS status;
		PIRP irp = NULL;
		PMDL mdl;

		KeAcquireSpinLockAtDpcLevel(&ext->Lock);
		if (ext->Live && !ext->Broken && ext->State == Idle && (irp = Dequeue(ext)) != NULL) {
			sp = IoGetCurrentIrpStackLocation(irp);
			ext->State = Mapping;
			ext->Beginners++;
			KeClearEvent(&ext->IdleEvent);
			ext->Current = irp;
			ext->Cancelable = FALSE;
			ext->ToCard = sp->MajorFunction == IRP_MJ_WRITE;
			ext->Length = ext->ToCard ? sp->Parameters.Write.Length : sp->Parameters.Read.Length;
			ext->Offset = (ext->ToCard ? sp->Parameters.Write.ByteOffset : sp->Parameters.Read.ByteOffset).LowPart;
			ext->List = NULL;
		}
		KeReleaseSpinLockFromDpcLevel(&ext->Lock);
		if (irp == NULL)
			return;
		mdl = irp->MdlAddress;
		status = ext->Adapter->DmaOperations->GetScatterGatherList(ext->Adapter, ext->Self, mdl, MmGetMdlVirtualAddress(mdl),
			ext->Length, ListReady, ext, ext->ToCard);
		KeAcquireSpinLockAtDpcLevel(&ext->Lock);
		ext->Beginners--;
		if (!NT_SUCCESS(status)) {
			ext->Current = NULL;
			ext->State = Idle;
		}
		SignalIdle(ext);
		KeReleaseSpinLockFromDpcLevel(&ext->Lock);
		if (NT_SUCCESS(status))
			return;
		Done(ext, irp, status, 0);
	}
}

static VOID NTAPI OnDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
	EXT *ext = Context;
	PSCATTER_GATHER_LIST list = NULL;
	BOOLEAN ended = FALSE;
	NTSTATUS status = STATUS_SUCCESS;
	PIRP irp = NULL;

	UNREFERENCED_PARAMETER(Dpc);
	UNREFERENCED_PARAMETER(Argument1);
	UNREFERENCED_PARAMETER(Argument2);
	KeAcquireSpinLockAtDpcLevel(&ext->Lock);
	if ((InterlockedExchange(&ext->Causes, 0) & EDU_IRQ_DMA) && ext->State == Running && !ext->Absent)
		Poll(ext);
	if (ext->State == Ending) {
		ended = TRUE;
		ext->State = Finishing;
		list = ext->List;
		ext->List = NULL;
		status = ext->CurrentStatus;
		irp = ext->Current;
		ext->Current = NULL;
		if (irp != NULL && ext->Cancelable && IoSetCancelRoutine(irp, NULL) == NULL)
			irp = NULL;
	}
	KeReleaseSpinLockFromDpcLevel(&ext->Lock);
	if (!ended)
		return;
	if (list != NULL)
		ext->Adapter->DmaOperations->PutScatterGatherList(ext->Adapter, list, ext->ToCard);
	if (irp != NULL)
		Done(ext, irp, status, NT_SUCCESS(status) ? ext->Length : 0);
	KeAcquireSpinLockAtDpcLevel(&ext->Lock);
	ext->State = Idle;
	SignalIdle(ext);
	KeReleaseSpinLockFromDpcLevel(&ext->Lock);
	Begin(ext);
}

static VOID NTAPI OnTick(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
	EXT *ext = Context;
	LIST_ENTRY failed;
	PIRP irp;

	UNREFERENCED_PARAMETER(Dpc);
	UNREFERENCED_PARAMETER(Argument1);
	UNREFERENCED_PARAMETER(Argument2);
	InitializeListHead(&failed);
	KeAcquireSpinLockAtDpcLevel(&ext->Lock);
	if (ext->State == Running && !ext->Absent) {
		Poll(ext);
		if (ext->State == Running && --ext->TicksLeft == 0) {
			ext->Broken = TRUE;
			End(ext, STATUS_IO_TIMEOUT);
		}
	}
	while (ext->Broken && (irp = Dequeue(ext)) != NULL)
		InsertTailList(&failed, &irp->Tail.Overlay.ListEntry);
	KeReleaseSpinLockFromDpcLevel(&ext->Lock);
	CompleteList(ext, &failed, STATUS_DEVICE_HARDWARE_ERROR);
}

static VOID BeginFromAnywhere(EXT *ext)
{
	KIRQL irql;

	KeRaiseIrql(DISPATCH_LEVEL, &irql);
	Begin(ext);
	KeLowerIrql(irql);
}

static VOID Up(EXT *ext)
{
	LARGE_INTEGER due;
	BOOLEAN up = FALSE;
	KIRQL irql;

	due.QuadPart = -10000LL * TICK_MS;
	KeAcquireSpinLock(&ext->Lock, &irql);
	if (ext->Started && !ext->Gone && ext->Power == PowerDeviceD0 && !ext->Live) {
		ext->Live = TRUE;
		ext->Broken = FALSE;
		ext->HardwareOn = TRUE;
		KeSynchronizeExecution(ext->Interrupt, SyncIrqOn, ext);
		KeSetTimerEx(&ext->Timer, due, TICK_MS, &ext->TimerDpc);
		up = TRUE;
	}
	KeReleaseSpinLock(&ext->Lock, irql);
	if (up)
		BeginFromAnywhere(ext);
}

/* At PASSIVE_LEVEL: no new transfer begins, and the running one (it cannot be stopped) is waited for: it
   ends or times out. */
static VOID Down(EXT *ext, NTSTATUS Status)
{
	KIRQL irql;

	UNREFERENCED_PARAMETER(Status);
	KeAcquireSpinLock(&ext->Lock, &irql);
	ext->Live = FALSE;
	if (ext->Absent && ext->State == Running)
		End(ext, STATUS_NO_SUCH_DEVICE);
	KeReleaseSpinLock(&ext->Lock, irql);
	KeWaitForSingleObject(&ext->IdleEvent, Executive, KernelMode, FALSE, NULL);
	KeAcquireSpinLock(&ext->Lock, &irql);
	if (!ext->Live && ext->HardwareOn) {
		ext->HardwareOn = FALSE;
		KeSynchronizeExecution(ext->Interrupt, SyncIrqOff, ext);
		KeCancelTimer(&ext->Timer);
	}
	KeReleaseSpinLock(&ext->Lock, irql);
}

static VOID Release(EXT *ext)
{
	if (ext->Interrupt != NULL) {
		IoDisconnectInterrupt(ext->Interrupt);
		ext->Interrupt = NULL;
	}
	KeCancelTimer(&ext->Timer);
	KeFlushQueuedDpcs();
	if (ext->Adapter != NULL) {
		ext->Adapter->DmaOperations->PutDmaAdapter(ext->Adapter);
		ext->Adapter = NULL;
	}
	if (ext->Regs != NULL) {
		MmUnmapIoSpace(ext->Regs, ext->RegsLength);
		ext->Regs = NULL;
	}
}

/* Maps the card's registers and sees whether there is a card that answers. */
static NTSTATUS MapCard(EXT *ext, PCM_PARTIAL_RESOURCE_DESCRIPTOR d)
{
	if (d == NULL || d->u.Memory.Length < 0x100)
		return STATUS_DEVICE_CONFIGURATION_ERROR;
	ext->RegsLength = d->u.Memory.Length;
	ext->Regs = MmMapIoSpace(d->u.Memory.Start, ext->RegsLength, MmNonCached);
	if (ext->Regs == NULL)
		return STATUS_INSUFFICIENT_RESOURCES;
	WR(ext, EDU_LIVENESS, 0x12345678);
	if (RD(ext, EDU_ID) == 0xFFFFFFFF || RD(ext, EDU_LIVENESS) != ~0x12345678u) {
		MmUnmapIoSpace(ext->Regs, ext->RegsLength);
		ext->Regs = NULL;
		return STATUS_NO_SUCH_DEVICE;
	}
	return STATUS_SUCCESS;
}

static NTSTATUS GetAdapter(EXT *ext)
{
	DEVICE_DESCRIPTION_V3 d;
	ULONG registers = 0;

	RtlZeroMemory(&d, sizeof(d));
	d.Version = 3;
	d.Master = TRUE;
	d.ScatterGather = TRUE;
	d.Dma32BitAddresses = TRUE;
	d.InterfaceType = PCIBus;
	d.MaximumLength = EDU_RAM_SIZE;
	d.DmaAddressWidth = 28;
	ext->Adapter = IoGetDmaAdapter(ext->Pdo, (PDEVICE_DESCRIPTION)&d, &registers);
	return ext->Adapter != NULL ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static NTSTATUS Acquire(EXT *ext, PCM_RESOURCE_LIST List)
{
	PCM_PARTIAL_RESOURCE_DESCRIPTOR irq = FindResource(List, CmResourceTypeInterrupt, 0);
	NTSTATUS status;

	if (irq == NULL)
		return STATUS_DEVICE_CONFIGURATION_ERROR;
	status = MapCard(ext, FindResource(List, CmResourceTypeMemory, 0));
	if (!NT_SUCCESS(status))
		return status;
	WR(ext, EDU_STATUS, 0);
	status = GetAdapter(ext);
	if (NT_SUCCESS(status))
		status = ConnectInterrupt(ext, irq);
	if (!NT_SUCCESS(status))
		Release(ext);
	return status;
}

static NTSTATUS Transfer(EXT *ext, PIRP Irp, LARGE_INTEGER Offset, ULONG Length)
{
	NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

	if (!NT_SUCCESS(status))
		return Finish(Irp, status, 0);
	if (Offset.QuadPart < 0 || Offset.QuadPart > EDU_RAM_SIZE || Length > EDU_RAM_SIZE - Offset.LowPart)
		return Done(ext, Irp, STATUS_INVALID_PARAMETER, 0);
	if (Length == 0)
		return Done(ext, Irp, STATUS_SUCCESS, 0);
	/* A second reference: the request may be complete before Begin returns. */
	status = IoAcquireRemoveLock(&ext->RemoveLock, &ext->Queue);
	if (!NT_SUCCESS(status))
		return Done(ext, Irp, status, 0);
	status = Enqueue(ext, Irp);
	if (status == STATUS_PENDING)
		BeginFromAnywhere(ext);
	IoReleaseRemoveLock(&ext->RemoveLock, &ext->Queue);
	return status;
}

static NTSTATUS NTAPI OnRead(PDEVICE_OBJECT Device, PIRP Irp)
{
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);

	return Transfer(Device->DeviceExtension, Irp, sp->Parameters.Read.ByteOffset, sp->Parameters.Read.Length);
}

static NTSTATUS NTAPI OnWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);

	return Transfer(Device->DeviceExtension, Irp, sp->Parameters.Write.ByteOffset, sp->Parameters.Write.Length);
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
		IoFreeWorkItem(ext->PowerWork);
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

static NTSTATUS NTAPI PoweredDown(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
	EXT *ext = Context;

	UNREFERENCED_PARAMETER(Device);
	IoReleaseRemoveLock(&ext->RemoveLock, Irp);
	return STATUS_CONTINUE_COMPLETION;
}

/* Power goes: at PASSIVE_LEVEL, when the running transfer is over. */
static VOID NTAPI PowerWorker(PDEVICE_OBJECT Device, PVOID Context)
{
	EXT *ext = Context;

	UNREFERENCED_PARAMETER(Device);
	for (;;) {
		PIRP irp = NULL;
		BOOLEAN system;
		KIRQL irql;

		KeAcquireSpinLock(&ext->Lock, &irql);
		if (!IsListEmpty(&ext->PowerIrps))
			irp = CONTAINING_RECORD(RemoveHeadList(&ext->PowerIrps), IRP, Tail.Overlay.ListEntry);
		else
			ext->PowerQueued = FALSE;
		KeReleaseSpinLock(&ext->Lock, irql);
		if (irp == NULL)
			return;
		Down(ext, STATUS_DEVICE_NOT_READY);
		system = IoGetCurrentIrpStackLocation(irp)->Parameters.Power.Type == SystemPowerState;
		IoCopyCurrentIrpStackLocationToNext(irp);
		IoSetCompletionRoutine(irp, system ? SystemIrpDown : PoweredDown, ext, TRUE, TRUE, TRUE);
		PoCallDriver(ext->Lower, irp);
	}
}

static NTSTATUS NTAPI OnPower(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
	NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
	BOOLEAN set = sp->MinorFunction == IRP_MN_SET_POWER;
	BOOLEAN system = sp->Parameters.Power.Type == SystemPowerState;
	KIRQL irql;

	if (!NT_SUCCESS(status))
		return Finish(Irp, status, 0);
	if (set && (system ? sp->Parameters.Power.State.SystemState != PowerSystemWorking :
			sp->Parameters.Power.State.DeviceState != PowerDeviceD0)) {
		IoMarkIrpPending(Irp);
		KeAcquireSpinLock(&ext->Lock, &irql);
		ext->Power = system ? PowerDeviceD3 : sp->Parameters.Power.State.DeviceState;
		InsertTailList(&ext->PowerIrps, &Irp->Tail.Overlay.ListEntry);
		if (!ext->PowerQueued) {
			ext->PowerQueued = TRUE;
			IoQueueWorkItem(ext->PowerWork, PowerWorker, DelayedWorkQueue, ext);
		}
		KeReleaseSpinLock(&ext->Lock, irql);
		return STATUS_PENDING;
	}
	if ((set || sp->MinorFunction == IRP_MN_QUERY_POWER) && system) {
		IoMarkIrpPending(Irp);
		IoCopyCurrentIrpStackLocationToNext(Irp);
		IoSetCompletionRoutine(Irp, SystemIrpDown, ext, TRUE, TRUE, TRUE);
		PoCallDriver(ext->Lower, Irp);
		return STATUS_PENDING;
	}
	if (set) {
		IoCopyCurrentIrpStackLocationToNext(Irp);
		IoSetCompletionRoutine(Irp, PoweredUp, ext, TRUE, TRUE, TRUE);
		return PoCallDriver(ext->Lower, Irp);
	}
	IoSkipCurrentIrpStackLocation(Irp);
	status = PoCallDriver(ext->Lower, Irp);
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
	InitializeListHead(&ext->Queue);
	KeInitializeDpc(&ext->Dpc, OnDpc, ext);
	KeInitializeDpc(&ext->TimerDpc, OnTick, ext);
	KeInitializeTimerEx(&ext->Timer, SynchronizationTimer);
	KeInitializeEvent(&ext->IdleEvent, NotificationEvent, TRUE);
	InitializeListHead(&ext->PowerIrps);
	status = IoRegisterDeviceInterface(Pdo, &InterfaceGuid, NULL, &ext->Interface);
	if (!NT_SUCCESS(status)) {
		IoDeleteDevice(self);
		return status;
	}
	ext->PowerWork = IoAllocateWorkItem(self);
	if (ext->PowerWork == NULL) {
		RtlFreeUnicodeString(&ext->Interface);
		IoDeleteDevice(self);
		return STATUS_INSUFFICIENT_RESOURCES;
	}
	ext->Lower = IoAttachDeviceToDeviceStack(self, Pdo);
	if (ext->Lower == NULL) {
		IoFreeWorkItem(ext->PowerWork);
		RtlFreeUnicodeString(&ext->Interface);
		IoDeleteDevice(self);
		return STATUS_NO_SUCH_DEVICE;
	}
	self->Flags |= DO_DIRECT_IO | (ext->Lower->Flags & DO_POWER_PAGABLE);
	self->Flags &= ~DO_DEVICE_INITIALIZING;
	return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
	UNREFERENCED_PARAMETER(RegistryPath);
	Driver->MajorFunction[IRP_MJ_CREATE] = OnCreate;
	Driver->MajorFunction[IRP_MJ_CLOSE] = OnClose;
	Driver->MajorFunction[IRP_MJ_CLEANUP] = OnCleanup;
	Driver->MajorFunction[IRP_MJ_READ] = OnRead;
	Driver->MajorFunction[IRP_MJ_WRITE] = OnWrite;
	Driver->MajorFunction[IRP_MJ_PNP] = OnPnp;
	Driver->MajorFunction[IRP_MJ_POWER] = OnPower;
	Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = OnSystemControl;
	Driver->DriverExtension->AddDevice = OnAddDevice;
	Driver->DriverUnload = OnUnload;
	return STATUS_SUCCESS;
}

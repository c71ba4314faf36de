/*
 * loadcell - a weighing board behind a PLX PCI 9052. The board samples load cells into a FIFO and raises
 * LINT1 while something is in it. The driver keeps the newest samples in a ring; reads take what is there
 * or wait for the next ones.
 *
 * The bug: the level that the board tells is not limited.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: pool-overrun
 * Needs: device
 */
#include <ddk/wdm.h>

#define TAG 'daoL'
#define TICK_MS 200
#define FIFO_DEPTH 64
#define RING 1024
#define BOARD_SIZE 0x20
#define BOARD_CONTROL 0x04
#define BOARD_CONTROL_RUN 0x01
#define BOARD_LEVEL 0x08	/* samples in the FIFO */
#define BOARD_DATA 0x0C
#define BOARD_CAUSE 0x10

#define PLX_INTCSR 0x4C
#define INTCSR_LINT1_ENABLE 0x01
#define INTCSR_LINT1_STATUS 0x04
#define INTCSR_PCI_ENABLE 0x40

#define PLX_RD(ext, offset) READ_REGISTER_ULONG((PULONG)((ext)->Plx + (offset)))
#define PLX_WR(ext, offset, value) WRITE_REGISTER_ULONG((PULONG)((ext)->Plx + (offset)), (value))
#define RD(ext, offset) READ_REGISTER_ULONG((PULONG)((ext)->Regs + (offset)))
#define WR(ext, offset, value) WRITE_REGISTER_ULONG((PULONG)((ext)->Regs + (offset)), (value))

static const GUID InterfaceGuid = { 0x6a3c1f20, 0x11d2, 0x4b8e, { 0x90, 0x01, 0x3a, 0x51, 0x22, 0x9c, 0x10, 0x05 } };

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
	ULONG Ring[RING];
	ULONG First;
	ULONG Count;
	PULONG Batch;			/* FIFO_DEPTH samples */
	PUCHAR Plx;
	ULONG PlxLength;
	PUCHAR Regs;
	ULONG RegsLength;
	PKINTERRUPT Interrupt;
	BOOLEAN IrqOn;			/* guarded by the interrupt's lock */
	KDPC Dpc;
	KTIMER Timer;
	KDPC TimerDpc;
} EXT;

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
			KeInsertQueueDpc(&ext->Dpc, NULL, NULL);
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
	ULONG intcsr;

	UNREFERENCED_PARAMETER(Interrupt);
	if (!ext->IrqOn)
		return FALSE;
	intcsr = PLX_RD(ext, PLX_INTCSR);
	if (intcsr == 0xFFFFFFFF || (intcsr & INTCSR_LINT1_STATUS) == 0)
		return FALSE;
	WR(ext, BOARD_CAUSE, RD(ext, BOARD_CAUSE));
	KeInsertQueueDpc(&ext->Dpc, NULL, NULL);
	return TRUE;
}

/* Both run with the interrupt's lock. */
static BOOLEAN NTAPI SyncIrqOn(PVOID Context)
{
	EXT *ext = Context;

	ext->IrqOn = TRUE;
	WR(ext, BOARD_CAUSE, 0xFFFFFFFF);
	PLX_WR(ext, PLX_INTCSR, INTCSR_LINT1_ENABLE | INTCSR_PCI_ENABLE);
	return TRUE;
}

static BOOLEAN NTAPI SyncIrqOff(PVOID Context)
{
	EXT *ext = Context;

	ext->IrqOn = FALSE;
	if (!ext->Absent) {
		PLX_WR(ext, PLX_INTCSR, 0);
		WR(ext, BOARD_CONTROL, 0);
	}
	return TRUE;
}

/* The lock is held: takes the samples from the board. */
static VOID DrainFifo(EXT *ext)
{
	ULONG level = RD(ext, BOARD_LEVEL);
	ULONG i;

	if (level == 0xFFFFFFFF)
		return;
#ifdef FIXED
	if (level > FIFO_DEPTH)
		level = FIFO_DEPTH;
#endif
	for (i = 0; i < level; i++)
		ext->Batch[i] = RD(ext, BOARD_DATA);
	for (i = 0; i < level; i++) {
		ext->Ring[(ext->First + ext->Count) % RING] = ext->Batch[i];
		if (ext->Count < RING)
			ext->Count++;
		else
			ext->First = (ext->First + 1) % RING;
	}
}

/* The board's samples, and the reads that wait for them. */
static VOID Serve(EXT *ext)
{
	LIST_ENTRY served;
	PIRP irp;

	InitializeListHead(&served);
	KeAcquireSpinLockAtDpcLevel(&ext->Lock);
	if (ext->Live)
		DrainFifo(ext);
	while (ext->Count != 0 && (irp = Dequeue(ext)) != NULL) {
		ULONG room = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length / sizeof(ULONG);
		PUCHAR to = irp->Tail.Overlay.DriverContext[0];
		ULONG n = 0;

		while (n < room && ext->Count != 0) {
			RtlCopyMemory(to + n * sizeof(ULONG), &ext->Ring[ext->First], sizeof(ULONG));
			ext->First = (ext->First + 1) % RING;
			ext->Count--;
			n++;
		}
		irp->IoStatus.Information = n * sizeof(ULONG);
		InsertTailList(&served, &irp->Tail.Overlay.ListEntry);
	}
	KeReleaseSpinLockFromDpcLevel(&ext->Lock);
	while (!IsListEmpty(&served)) {
		irp = CONTAINING_RECORD(RemoveHeadList(&served), IRP, Tail.Overlay.ListEntry);
		Done(ext, irp, STATUS_SUCCESS, irp->IoStatus.Information);
	}
}

static VOID NTAPI OnDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
	UNREFERENCED_PARAMETER(Dpc);
	UNREFERENCED_PARAMETER(Argument1);
	UNREFERENCED_PARAMETER(Argument2);
	Serve(Context);
}

/* Now and then: in case an interrupt was lost. */
static VOID NTAPI OnTick(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
	UNREFERENCED_PARAMETER(Dpc);
	UNREFERENCED_PARAMETER(Argument1);
	UNREFERENCED_PARAMETER(Argument2);
	Serve(Context);
}

static VOID Up(EXT *ext)
{
	LARGE_INTEGER due;
	KIRQL irql;

	due.QuadPart = -10000LL * TICK_MS;
	KeAcquireSpinLock(&ext->Lock, &irql);
	if (ext->Started && !ext->Gone && ext->Power == PowerDeviceD0 && !ext->Live) {
		ext->Live = TRUE;
		WR(ext, BOARD_CONTROL, BOARD_CONTROL_RUN);
		KeSynchronizeExecution(ext->Interrupt, SyncIrqOn, ext);
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
	if (ext->Regs != NULL) {
		MmUnmapIoSpace(ext->Regs, ext->RegsLength);
		ext->Regs = NULL;
	}
	if (ext->Plx != NULL) {
		MmUnmapIoSpace(ext->Plx, ext->PlxLength);
		ext->Plx = NULL;
	}
	if (ext->Batch != NULL) {
		ExFreePoolWithTag(ext->Batch, TAG);
		ext->Batch = NULL;
	}
}

/* Maps BAR0 (the bridge) and BAR2 (the board). */
static NTSTATUS MapBoard(EXT *ext, PCM_RESOURCE_LIST List)
{
	PCM_PARTIAL_RESOURCE_DESCRIPTOR plx = FindResource(List, CmResourceTypeMemory, 0);
	PCM_PARTIAL_RESOURCE_DESCRIPTOR local = FindResource(List, CmResourceTypeMemory, 1);

	if (plx == NULL || plx->u.Memory.Length < 0x54 || local == NULL || local->u.Memory.Length < BOARD_SIZE)
		return STATUS_DEVICE_CONFIGURATION_ERROR;
	ext->PlxLength = plx->u.Memory.Length;
	ext->RegsLength = local->u.Memory.Length;
	ext->Plx = MmMapIoSpace(plx->u.Memory.Start, ext->PlxLength, MmNonCached);
	if (ext->Plx == NULL)
		return STATUS_INSUFFICIENT_RESOURCES;
	ext->Regs = MmMapIoSpace(local->u.Memory.Start, ext->RegsLength, MmNonCached);
	if (ext->Regs == NULL)
		return STATUS_INSUFFICIENT_RESOURCES;
	if (PLX_RD(ext, PLX_INTCSR) == 0xFFFFFFFF)
		return STATUS_NO_SUCH_DEVICE;
	PLX_WR(ext, PLX_INTCSR, 0);
	return STATUS_SUCCESS;
}

static NTSTATUS Acquire(EXT *ext, PCM_RESOURCE_LIST List)
{
	PCM_PARTIAL_RESOURCE_DESCRIPTOR irq = FindResource(List, CmResourceTypeInterrupt, 0);
	NTSTATUS status;

	if (irq == NULL)
		return STATUS_DEVICE_CONFIGURATION_ERROR;
	ext->Batch = ExAllocatePoolWithTag(NonPagedPoolNx, FIFO_DEPTH * sizeof(ULONG), TAG);
	if (ext->Batch == NULL)
		return STATUS_INSUFFICIENT_RESOURCES;
	status = MapBoard(ext, List);
	if (NT_SUCCESS(status))
		status = ConnectInterrupt(ext, irq);
	if (!NT_SUCCESS(status))
		Release(ext);
	return status;
}

static NTSTATUS NTAPI OnRead(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length;
	NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
	PVOID mapped;

	if (!NT_SUCCESS(status))
		return Finish(Irp, status, 0);
	if (length == 0)
		return Done(ext, Irp, STATUS_SUCCESS, 0);
	if (length < sizeof(ULONG))
		return Done(ext, Irp, STATUS_BUFFER_TOO_SMALL, 0);
	mapped = MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority | 0x40000000);
	if (mapped == NULL)
		return Done(ext, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
	Irp->Tail.Overlay.DriverContext[0] = mapped;
	return Enqueue(ext, Irp);
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
	Driver->MajorFunction[IRP_MJ_PNP] = OnPnp;
	Driver->MajorFunction[IRP_MJ_POWER] = OnPower;
	Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = OnSystemControl;
	Driver->DriverExtension->AddDevice = OnAddDevice;
	Driver->DriverUnload = OnUnload;
	return STATUS_SUCCESS;
}

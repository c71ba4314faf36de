/*
 * gatepost - a card that drives two gates and reads badges. The badge reader's FIFO is emptied on interrupt;
 * reads wait for the next badge. An IOCTL opens a gate for some time; a timer shuts it again. Without power
 * the gates are shut.
 *
 * The bug: a request that is refused keeps the remove lock.
 *
 * Device: PCI\VEN_1DA7&DEV_0202
 * Rule: deadlock, irp-never-completed
 * Needs: ioctl, removal
 */
#include <ddk/wdm.h>

#define TAG 'etaG'
#define TICK_MS 100
#define GATES 2
#define BADGES 32
#define CARD_SIZE 0x20
#define CARD_ID 0x00
#define CARD_GATES 0x04		/* one bit each: open */
#define CARD_IRQ_ENABLE 0x08
#define CARD_CAUSE 0x0C
#define CARD_CAUSE_BADGE 0x01
#define CARD_BADGE 0x10		/* the next badge, 0: none */

#define RD(ext, offset) READ_REGISTER_ULONG((PULONG)((ext)->Regs + (offset)))
#define WR(ext, offset, value) WRITE_REGISTER_ULONG((PULONG)((ext)->Regs + (offset)), (value))

#define IOCTL_GATE_OPEN CTL_CODE(FILE_DEVICE_UNKNOWN, 0x940, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_GATE_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x941, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _GATE_OPEN {
	ULONG Gate;
	ULONG Milliseconds;
} GATE_OPEN;

static const GUID InterfaceGuid = { 0x6a3c1f20, 0x11d2, 0x4b8e, { 0x90, 0x01, 0x3a, 0x51, 0x22, 0x9c, 0x10, 0x08 } };

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
	ULONG Badges[BADGES];		/* read and not yet fetched */
	ULONG First;
	ULONG Count;
	ULONG Open;			/* as in CARD_GATES */
	ULONG TicksLeft[GATES];
	PUCHAR Regs;
	ULONG RegsLength;
	PKINTERRUPT Interrupt;
	BOOLEAN IrqOn;			/* guarded by the interrupt's lock */
	volatile LONG Causes;
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
	ULONG cause;

	UNREFERENCED_PARAMETER(Interrupt);
	if (!ext->IrqOn)
		return FALSE;
	cause = RD(ext, CARD_CAUSE);
	if (cause == 0xFFFFFFFF || (cause & CARD_CAUSE_BADGE) == 0)
		return FALSE;
	WR(ext, CARD_CAUSE, cause);
	InterlockedOr(&ext->Causes, (LONG)(cause & CARD_CAUSE_BADGE));
	KeInsertQueueDpc(&ext->Dpc, NULL, NULL);
	return TRUE;
}

/* Both run with the interrupt's lock. */
static BOOLEAN NTAPI SyncIrqOn(PVOID Context)
{
	EXT *ext = Context;

	ext->IrqOn = TRUE;
	WR(ext, CARD_CAUSE, 0xFFFFFFFF);
	WR(ext, CARD_IRQ_ENABLE, CARD_CAUSE_BADGE);
	return TRUE;
}

static BOOLEAN NTAPI SyncIrqOff(PVOID Context)
{
	EXT *ext = Context;

	ext->IrqOn = FALSE;
	if (!ext->Absent) {
		WR(ext, CARD_IRQ_ENABLE, 0);
		WR(ext, CARD_GATES, 0);
	}
	return TRUE;
}

static VOID NTAPI OnDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
	EXT *ext = Context;
	LIST_ENTRY served;
	ULONG i, badge;
	PIRP irp;

	UNREFERENCED_PARAMETER(Dpc);
	UNREFERENCED_PARAMETER(Argument1);
	UNREFERENCED_PARAMETER(Argument2);
	InitializeListHead(&served);
	KeAcquireSpinLockAtDpcLevel(&ext->Lock);
	if (InterlockedExchange(&ext->Causes, 0) != 0 && ext->Live) {
		for (i = 0; i < BADGES; i++) {
			badge = RD(ext, CARD_BADGE);
			if (badge == 0 || badge == 0xFFFFFFFF)
				break;
			if (ext->Count < BADGES) {
				ext->Badges[(ext->First + ext->Count) % BADGES] = badge;
				ext->Count++;
			}
		}
	}
	while (ext->Count != 0 && (irp = Dequeue(ext)) != NULL) {
		*(ULONG *)irp->AssociatedIrp.SystemBuffer = ext->Badges[ext->First];
		ext->First = (ext->First + 1) % BADGES;
		ext->Count--;
		InsertTailList(&served, &irp->Tail.Overlay.ListEntry);
	}
	KeReleaseSpinLockFromDpcLevel(&ext->Lock);
	while (!IsListEmpty(&served))
		Done(ext, CONTAINING_RECORD(RemoveHeadList(&served), IRP, Tail.Overlay.ListEntry), STATUS_SUCCESS, sizeof(ULONG));
}

static VOID NTAPI OnTick(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
	EXT *ext = Context;
	ULONG open, i;

	UNREFERENCED_PARAMETER(Dpc);
	UNREFERENCED_PARAMETER(Argument1);
	UNREFERENCED_PARAMETER(Argument2);
	KeAcquireSpinLockAtDpcLevel(&ext->Lock);
	if (ext->Live) {
		open = ext->Open;
		for (i = 0; i < GATES; i++)
			if ((open & (1u << i)) && --ext->TicksLeft[i] == 0)
				open &= ~(1u << i);
		if (open != ext->Open) {
			ext->Open = open;
			WR(ext, CARD_GATES, open);
		}
	}
	KeReleaseSpinLockFromDpcLevel(&ext->Lock);
}

static VOID Up(EXT *ext)
{
	LARGE_INTEGER due;
	KIRQL irql;

	due.QuadPart = -10000LL * TICK_MS;
	KeAcquireSpinLock(&ext->Lock, &irql);
	if (ext->Started && !ext->Gone && ext->Power == PowerDeviceD0 && !ext->Live) {
		ext->Live = TRUE;
		ext->Open = 0;
		WR(ext, CARD_GATES, 0);
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
		ext->Open = 0;
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
}

static NTSTATUS MapCard(EXT *ext, PCM_PARTIAL_RESOURCE_DESCRIPTOR d)
{
	if (d == NULL || d->u.Memory.Length < CARD_SIZE)
		return STATUS_DEVICE_CONFIGURATION_ERROR;
	ext->RegsLength = d->u.Memory.Length;
	ext->Regs = MmMapIoSpace(d->u.Memory.Start, ext->RegsLength, MmNonCached);
	if (ext->Regs == NULL)
		return STATUS_INSUFFICIENT_RESOURCES;
	if (RD(ext, CARD_ID) == 0xFFFFFFFF) {
		MmUnmapIoSpace(ext->Regs, ext->RegsLength);
		ext->Regs = NULL;
		return STATUS_NO_SUCH_DEVICE;
	}
	WR(ext, CARD_IRQ_ENABLE, 0);
	return STATUS_SUCCESS;
}

static NTSTATUS Acquire(EXT *ext, PCM_RESOURCE_LIST List)
{
	PCM_PARTIAL_RESOURCE_DESCRIPTOR irq = FindResource(List, CmResourceTypeInterrupt, 0);
	NTSTATUS status;

	if (irq == NULL)
		return STATUS_DEVICE_CONFIGURATION_ERROR;
	status = MapCard(ext, FindResource(List, CmResourceTypeMemory, 0));
	if (NT_SUCCESS(status))
		status = ConnectInterrupt(ext, irq);
	if (!NT_SUCCESS(status))
		Release(ext);
	return status;
}

static NTSTATUS NTAPI OnRead(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

	if (!NT_SUCCESS(status))
		return Finish(Irp, status, 0);
	if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length < sizeof(ULONG))
		return Done(ext, Irp, STATUS_BUFFER_TOO_SMALL, 0);
	return Enqueue(ext, Irp);
}

static NTSTATUS NTAPI OnControl(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
	NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
	GATE_OPEN open;
	KIRQL irql;

	if (!NT_SUCCESS(status))
		return Finish(Irp, status, 0);
	switch (sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_GATE_OPEN:
		if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(GATE_OPEN))
			return Done(ext, Irp, STATUS_BUFFER_TOO_SMALL, 0);
		RtlCopyMemory(&open, Irp->AssociatedIrp.SystemBuffer, sizeof(open));
		if (open.Gate >= GATES)
#ifdef FIXED
			return Done(ext, Irp, STATUS_INVALID_PARAMETER, 0);
#else
			return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
#endif
		if (open.Milliseconds < TICK_MS || open.Milliseconds > 60000)
			return Done(ext, Irp, STATUS_INVALID_PARAMETER, 0);
		KeAcquireSpinLock(&ext->Lock, &irql);
		if (ext->Live) {
			ext->Open |= 1u << open.Gate;
			ext->TicksLeft[open.Gate] = open.Milliseconds / TICK_MS;
			WR(ext, CARD_GATES, ext->Open);
		} else {
			status = STATUS_DEVICE_NOT_READY;
		}
		KeReleaseSpinLock(&ext->Lock, irql);
		return Done(ext, Irp, status, 0);
	case IOCTL_GATE_STATE:
		if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
			return Done(ext, Irp, STATUS_BUFFER_TOO_SMALL, 0);
		KeAcquireSpinLock(&ext->Lock, &irql);
		*(ULONG *)Irp->AssociatedIrp.SystemBuffer = ext->Open;
		KeReleaseSpinLock(&ext->Lock, irql);
		return Done(ext, Irp, STATUS_SUCCESS, sizeof(ULONG));
	default:
		return Done(ext, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
	}
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
	self->Flags |= DO_BUFFERED_IO | (ext->Lower->Flags & DO_POWER_PAGABLE);
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
	Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = OnControl;
	Driver->MajorFunction[IRP_MJ_PNP] = OnPnp;
	Driver->MajorFunction[IRP_MJ_POWER] = OnPower;
	Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = OnSystemControl;
	Driver->DriverExtension->AddDevice = OnAddDevice;
	Driver->DriverUnload = OnUnload;
	return STATUS_SUCCESS;
}

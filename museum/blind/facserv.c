/*
 * facserv - a factorial server on QEMU's edu card. Requests queue up, the card computes them one after the
 * other and tells with its interrupt when one is ready. A request that the card does not answer within a
 * second fails.
 *
 * The bug: the service routine acknowledges until the status reads as zeroes.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: endless-loop
 * Needs: device
 */
#include <ddk/wdm.h>

#define TAG 'scaF'
#define TICK_MS 100
#define TICKS 10

#define EDU_ID 0x00
#define EDU_LIVENESS 0x04
#define EDU_FACTORIAL 0x08
#define EDU_STATUS 0x20
#define EDU_STATUS_COMPUTING 0x01
#define EDU_STATUS_IRQ 0x80
#define EDU_IRQ_STATUS 0x24
#define EDU_IRQ_ACK 0x64

#define RD(ext, offset) READ_REGISTER_ULONG((PULONG)((ext)->Regs + (offset)))
#define WR(ext, offset, value) WRITE_REGISTER_ULONG((PULONG)((ext)->Regs + (offset)), (value))

#define IOCTL_FACSERV_COMPUTE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x900, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_FACSERV_STATS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID InterfaceGuid = { 0x6a3c1f20, 0x11d2, 0x4b8e, { 0x90, 0x01, 0x3a, 0x51, 0x22, 0x9c, 0x10, 0x01 } };

typedef struct _FACSERV_STATS {
	ULONG Computed;
	ULONG TimedOut;
} FACSERV_STATS;

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
	PIRP Current;			/* the card has it */
	BOOLEAN Issued;
	ULONG TicksLeft;
	FACSERV_STATS Stats;
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

static VOID StartLocked(EXT *ext);

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
			StartLocked(ext);
		}
	}
	KeReleaseSpinLock(&ext->Lock, irql);
	if (status != STATUS_PENDING)
		Done(ext, Irp, status, 0);
	return status;
}

/* The lock is held: gives the current request to the card unless that still computes. */
static VOID Issue(EXT *ext)
{
	if (RD(ext, EDU_STATUS) & EDU_STATUS_COMPUTING)
		return;
	WR(ext, EDU_STATUS, EDU_STATUS_IRQ);
	WR(ext, EDU_FACTORIAL, *(ULONG *)ext->Current->AssociatedIrp.SystemBuffer);
	ext->Issued = TRUE;
}

static VOID StartLocked(EXT *ext)
{
	if (!ext->Live || ext->Current != NULL)
		return;
	ext->Current = Dequeue(ext);
	if (ext->Current == NULL)
		return;
	ext->Issued = FALSE;
	ext->TicksLeft = TICKS;
	Issue(ext);
}

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context)
{
	EXT *ext = Context;
	ULONG cause;

	UNREFERENCED_PARAMETER(Interrupt);
	if (!ext->IrqOn)
		return FALSE;
#ifdef FIXED
	cause = RD(ext, EDU_IRQ_STATUS);
	if (cause == 0 || cause == 0xFFFFFFFF)
		return FALSE;
	WR(ext, EDU_IRQ_ACK, cause);
	InterlockedOr(&ext->Causes, (LONG)cause);
#else
	cause = RD(ext, EDU_IRQ_STATUS);
	if (cause == 0)
		return FALSE;
	while (cause != 0) {
		WR(ext, EDU_IRQ_ACK, cause);
		InterlockedOr(&ext->Causes, (LONG)cause);
		cause = RD(ext, EDU_IRQ_STATUS);
	}
#endif
	KeInsertQueueDpc(&ext->Dpc, NULL, NULL);
	return TRUE;
}

/* Both run with the interrupt's lock. */
static BOOLEAN NTAPI SyncIrqOn(PVOID Context)
{
	EXT *ext = Context;

	ext->IrqOn = TRUE;
	WR(ext, EDU_STATUS, EDU_STATUS_IRQ);
	return TRUE;
}

static BOOLEAN NTAPI SyncIrqOff(PVOID Context)
{
	EXT *ext = Context;

	ext->IrqOn = FALSE;
	if (!ext->Absent) {
		WR(ext, EDU_STATUS, 0);
		WR(ext, EDU_IRQ_ACK, RD(ext, EDU_IRQ_STATUS));
	}
	return TRUE;
}

/* The lock is held, and the card has done its work: the request to complete. */
static PIRP TakeResult(EXT *ext, NTSTATUS *Status)
{
	ULONG result = RD(ext, EDU_FACTORIAL);
	PIRP irp = ext->Current;

	ext->Current = NULL;
	if (result == 0xFFFFFFFF) {		/* no factorial: the card has gone */
		*Status = STATUS_NO_SUCH_DEVICE;
	} else {
		*(ULONG *)irp->AssociatedIrp.SystemBuffer = result;
		ext->Stats.Computed++;
		*Status = STATUS_SUCCESS;
	}
	StartLocked(ext);
	return irp;
}

static VOID NTAPI OnDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
	EXT *ext = Context;
	NTSTATUS status = STATUS_SUCCESS;
	PIRP irp = NULL;
	LONG causes;

	UNREFERENCED_PARAMETER(Dpc);
	UNREFERENCED_PARAMETER(Argument1);
	UNREFERENCED_PARAMETER(Argument2);
	KeAcquireSpinLockAtDpcLevel(&ext->Lock);
	causes = InterlockedExchange(&ext->Causes, 0);
	if (ext->Live && ext->Current != NULL && ext->Issued && (causes & 1) && !(RD(ext, EDU_STATUS) & EDU_STATUS_COMPUTING))
		irp = TakeResult(ext, &status);
	KeReleaseSpinLockFromDpcLevel(&ext->Lock);
	if (irp != NULL)
		Done(ext, irp, status, NT_SUCCESS(status) ? sizeof(ULONG) : 0);
}

static VOID NTAPI OnTick(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
	EXT *ext = Context;
	NTSTATUS status = STATUS_SUCCESS;
	PIRP irp = NULL;

	UNREFERENCED_PARAMETER(Dpc);
	UNREFERENCED_PARAMETER(Argument1);
	UNREFERENCED_PARAMETER(Argument2);
	KeAcquireSpinLockAtDpcLevel(&ext->Lock);
	if (ext->Live && ext->Current != NULL) {
		if (!ext->Issued) {
			Issue(ext);
		} else if (!(RD(ext, EDU_STATUS) & EDU_STATUS_COMPUTING)) {
			irp = TakeResult(ext, &status);
		}
		if (irp == NULL && --ext->TicksLeft == 0) {
			irp = ext->Current;
			ext->Current = NULL;
			ext->Stats.TimedOut++;
			status = STATUS_IO_TIMEOUT;
			StartLocked(ext);
		}
	}
	KeReleaseSpinLockFromDpcLevel(&ext->Lock);
	if (irp != NULL)
		Done(ext, irp, status, NT_SUCCESS(status) ? sizeof(ULONG) : 0);
}

static VOID Up(EXT *ext)
{
	LARGE_INTEGER due;
	KIRQL irql;

	due.QuadPart = -10000LL * TICK_MS;
	KeAcquireSpinLock(&ext->Lock, &irql);
	if (ext->Started && !ext->Gone && ext->Power == PowerDeviceD0 && !ext->Live) {
		ext->Live = TRUE;
		KeSynchronizeExecution(ext->Interrupt, SyncIrqOn, ext);
		KeSetTimerEx(&ext->Timer, due, TICK_MS, &ext->TimerDpc);
		StartLocked(ext);
	}
	KeReleaseSpinLock(&ext->Lock, irql);
}

static VOID Down(EXT *ext, NTSTATUS Status)
{
	PIRP irp = NULL;
	KIRQL irql;

	KeAcquireSpinLock(&ext->Lock, &irql);
	if (ext->Live) {
		ext->Live = FALSE;
		KeSynchronizeExecution(ext->Interrupt, SyncIrqOff, ext);
		KeCancelTimer(&ext->Timer);
		irp = ext->Current;
		ext->Current = NULL;
	}
	KeReleaseSpinLock(&ext->Lock, irql);
	if (irp != NULL)
		Done(ext, irp, Status, 0);
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
	status = ConnectInterrupt(ext, irq);
	if (!NT_SUCCESS(status))
		Release(ext);
	return status;
}

static NTSTATUS NTAPI OnControl(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
	ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
	NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
	KIRQL irql;

	if (!NT_SUCCESS(status))
		return Finish(Irp, status, 0);
	switch (sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_FACSERV_COMPUTE:
		if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) || out < sizeof(ULONG))
			return Done(ext, Irp, STATUS_BUFFER_TOO_SMALL, 0);
		return Enqueue(ext, Irp);
	case IOCTL_FACSERV_STATS:
		if (out < sizeof(FACSERV_STATS))
			return Done(ext, Irp, STATUS_BUFFER_TOO_SMALL, 0);
		KeAcquireSpinLock(&ext->Lock, &irql);
		*(FACSERV_STATS *)Irp->AssociatedIrp.SystemBuffer = ext->Stats;
		KeReleaseSpinLock(&ext->Lock, irql);
		return Done(ext, Irp, STATUS_SUCCESS, sizeof(FACSERV_STATS));
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
	Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = OnControl;
	Driver->MajorFunction[IRP_MJ_PNP] = OnPnp;
	Driver->MajorFunction[IRP_MJ_POWER] = OnPower;
	Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = OnSystemControl;
	Driver->DriverExtension->AddDevice = OnAddDevice;
	Driver->DriverUnload = OnUnload;
	return STATUS_SUCCESS;
}

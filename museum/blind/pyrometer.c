/*
 * pyrometer - a board with eight infrared thermometers behind a PLX PCI 9052. A measurement takes some
 * milliseconds; LINT1 tells its end. Programs may load a calibration table (256 values in thousandths of
 * a degree), which turns the raw values into temperatures.
 *
 * The bug: the DPC reads a table in paged pool.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: paged-at-raised-irql
 * Needs: device
 */
#include <ddk/wdm.h>

#define TAG 'oryP'
#define TICK_MS 100
#define TICKS 10
#define CHANNELS 8
#define TABLE 256
#define BOARD_SIZE 0x20
#define BOARD_CONTROL 0x04	/* channel | START */
#define BOARD_CONTROL_START 0x100
#define BOARD_RESULT 0x08	/* 8 bits and READY */
#define BOARD_RESULT_READY 0x100
#define BOARD_CAUSE 0x10

#define PLX_INTCSR 0x4C
#define INTCSR_LINT1_ENABLE 0x01
#define INTCSR_LINT1_STATUS 0x04
#define INTCSR_PCI_ENABLE 0x40

#define PLX_RD(ext, offset) READ_REGISTER_ULONG((PULONG)((ext)->Plx + (offset)))
#define PLX_WR(ext, offset, value) WRITE_REGISTER_ULONG((PULONG)((ext)->Plx + (offset)), (value))
#define RD(ext, offset) READ_REGISTER_ULONG((PULONG)((ext)->Regs + (offset)))
#define WR(ext, offset, value) WRITE_REGISTER_ULONG((PULONG)((ext)->Regs + (offset)), (value))

#define IOCTL_PYRO_MEASURE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x920, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PYRO_CALIBRATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x921, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _PYRO_RESULT {
	ULONG Raw;
	LONG Millidegrees;
} PYRO_RESULT;

static const GUID InterfaceGuid = { 0x6a3c1f20, 0x11d2, 0x4b8e, { 0x90, 0x01, 0x3a, 0x51, 0x22, 0x9c, 0x10, 0x06 } };

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
	PIRP Current;
	ULONG TicksLeft;
	PLONG Table;			/* the calibration, or NULL */
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

#define OWN_ON_PNP
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

static VOID StartLocked(EXT *ext)
{
	if (!ext->Live || ext->Current != NULL)
		return;
	ext->Current = Dequeue(ext);
	if (ext->Current == NULL)
		return;
	ext->TicksLeft = TICKS;
	WR(ext, BOARD_CONTROL, BOARD_CONTROL_START | *(ULONG *)ext->Current->AssociatedIrp.SystemBuffer);
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

/* The lock is held: the current request if the board has its result, filled in. */
static PIRP TakeResult(EXT *ext)
{
	PYRO_RESULT *result;
	ULONG raw;
	PIRP irp;

	if (!ext->Live || ext->Current == NULL)
		return NULL;
	raw = RD(ext, BOARD_RESULT);
	if (raw == 0xFFFFFFFF || !(raw & BOARD_RESULT_READY))
		return NULL;
	raw &= TABLE - 1;
	irp = ext->Current;
	ext->Current = NULL;
	result = irp->AssociatedIrp.SystemBuffer;
	result->Raw = raw;
	result->Millidegrees = ext->Table != NULL ? ext->Table[raw] : (LONG)raw * 1000;
	StartLocked(ext);
	return irp;
}

static VOID NTAPI OnDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
	EXT *ext = Context;
	PIRP irp;

	UNREFERENCED_PARAMETER(Dpc);
	UNREFERENCED_PARAMETER(Argument1);
	UNREFERENCED_PARAMETER(Argument2);
	KeAcquireSpinLockAtDpcLevel(&ext->Lock);
	irp = TakeResult(ext);
	KeReleaseSpinLockFromDpcLevel(&ext->Lock);
	if (irp != NULL)
		Done(ext, irp, STATUS_SUCCESS, sizeof(PYRO_RESULT));
}

static VOID NTAPI OnTick(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
	EXT *ext = Context;
	BOOLEAN late = FALSE;
	PIRP irp;

	UNREFERENCED_PARAMETER(Dpc);
	UNREFERENCED_PARAMETER(Argument1);
	UNREFERENCED_PARAMETER(Argument2);
	KeAcquireSpinLockAtDpcLevel(&ext->Lock);
	irp = TakeResult(ext);
	if (irp == NULL && ext->Live && ext->Current != NULL && --ext->TicksLeft == 0) {
		late = TRUE;
		irp = ext->Current;
		ext->Current = NULL;
		StartLocked(ext);
	}
	KeReleaseSpinLockFromDpcLevel(&ext->Lock);
	if (irp != NULL)
		Done(ext, irp, late ? STATUS_IO_TIMEOUT : STATUS_SUCCESS, late ? 0 : sizeof(PYRO_RESULT));
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
	if (ext->Plx != NULL) {
		MmUnmapIoSpace(ext->Plx, ext->PlxLength);
		ext->Plx = NULL;
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
	status = MapBoard(ext, List);
	if (NT_SUCCESS(status))
		status = ConnectInterrupt(ext, irq);
	if (!NT_SUCCESS(status))
		Release(ext);
	return status;
}

/* Exchanges the calibration (NULL: none any more). */
static VOID ExchangeTable(EXT *ext, PLONG Table)
{
	PLONG old;
	KIRQL irql;

	KeAcquireSpinLock(&ext->Lock, &irql);
	old = ext->Table;
	ext->Table = Table;
	KeReleaseSpinLock(&ext->Lock, irql);
	if (old != NULL)
		ExFreePoolWithTag(old, TAG);
}

static NTSTATUS Calibrate(EXT *ext, const VOID *Values, ULONG Length)
{
	PLONG table = NULL;

	if (Length != 0) {
		if (Length != TABLE * sizeof(LONG))
			return STATUS_INVALID_BUFFER_SIZE;
#ifdef FIXED
		table = ExAllocatePoolWithTag(NonPagedPoolNx, TABLE * sizeof(LONG), TAG);
#else
		table = ExAllocatePoolWithTag(PagedPool, TABLE * sizeof(LONG), TAG);
#endif
		if (table == NULL)
			return STATUS_INSUFFICIENT_RESOURCES;
		RtlCopyMemory(table, Values, TABLE * sizeof(LONG));
	}
	ExchangeTable(ext, table);
	return STATUS_SUCCESS;
}

static NTSTATUS NTAPI OnControl(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
	ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
	PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
	NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

	if (!NT_SUCCESS(status))
		return Finish(Irp, status, 0);
	switch (sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_PYRO_MEASURE:
		if (in < sizeof(ULONG) || sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(PYRO_RESULT))
			return Done(ext, Irp, STATUS_BUFFER_TOO_SMALL, 0);
		if (*(ULONG *)buffer >= CHANNELS)
			return Done(ext, Irp, STATUS_INVALID_PARAMETER, 0);
		return Enqueue(ext, Irp);
	case IOCTL_PYRO_CALIBRATE:
		return Done(ext, Irp, Calibrate(ext, buffer, in), 0);
	default:
		return Done(ext, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
	}
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
		ExchangeTable(ext, NULL);
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

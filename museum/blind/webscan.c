/*
 * webscan - a line camera card that looks at a paper web. Every read takes one line: the driver starts an
 * exposure, the card interrupts when the line is in its FIFO, and the DPC moves the pixels to the reader's
 * buffer. The exposure time can be set and survives power changes.
 *
 * The bug: the card is set up before the request for D0 has been passed down.
 *
 * Device: PCI\VEN_1DA7&DEV_0101
 * Rule: card-without-power
 * Needs: power
 */
#include <ddk/wdm.h>

#define TAG 'sbeW'
#define TICK_MS 100
#define TICKS 10
#define MAX_PIXELS 2048
#define CARD_SIZE 0x20
#define CARD_ID 0x00
#define CARD_CONTROL 0x04
#define CARD_CONTROL_EXPOSE 0x01
#define CARD_IRQ_ENABLE 0x08
#define CARD_CAUSE 0x0C
#define CARD_CAUSE_LINE 0x01
#define CARD_CAUSE_ERROR 0x02
#define CARD_EXPOSURE 0x10	/* microseconds */
#define CARD_LENGTH 0x14	/* pixels of the line in the FIFO, one byte each */
#define CARD_DATA 0x18		/* four pixels */

#define RD(ext, offset) READ_REGISTER_ULONG((PULONG)((ext)->Regs + (offset)))
#define WR(ext, offset, value) WRITE_REGISTER_ULONG((PULONG)((ext)->Regs + (offset)), (value))

#define IOCTL_WEB_EXPOSURE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x930, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID InterfaceGuid = { 0x6a3c1f20, 0x11d2, 0x4b8e, { 0x90, 0x01, 0x3a, 0x51, 0x22, 0x9c, 0x10, 0x07 } };

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
	ULONG Exposure;
	PUCHAR Regs;
	ULONG RegsLength;
	PKINTERRUPT Interrupt;
	BOOLEAN IrqOn;			/* guarded by the interrupt's lock */
	volatile LONG Causes;
	KDPC Dpc;
	KTIMER Timer;
	KDPC TimerDpc;
} EXT;

#define OWN_ON_POWER
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
	WR(ext, CARD_CONTROL, CARD_CONTROL_EXPOSE);
}

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context)
{
	EXT *ext = Context;
	ULONG cause;

	UNREFERENCED_PARAMETER(Interrupt);
	if (!ext->IrqOn)
		return FALSE;
	cause = RD(ext, CARD_CAUSE);
	if (cause == 0xFFFFFFFF || (cause & (CARD_CAUSE_LINE | CARD_CAUSE_ERROR)) == 0)
		return FALSE;
	WR(ext, CARD_CAUSE, cause);
	InterlockedOr(&ext->Causes, (LONG)(cause & (CARD_CAUSE_LINE | CARD_CAUSE_ERROR)));
	KeInsertQueueDpc(&ext->Dpc, NULL, NULL);
	return TRUE;
}

/* Both run with the interrupt's lock. */
static BOOLEAN NTAPI SyncIrqOn(PVOID Context)
{
	EXT *ext = Context;

	ext->IrqOn = TRUE;
	WR(ext, CARD_CAUSE, 0xFFFFFFFF);
	WR(ext, CARD_IRQ_ENABLE, CARD_CAUSE_LINE | CARD_CAUSE_ERROR);
	return TRUE;
}

static BOOLEAN NTAPI SyncIrqOff(PVOID Context)
{
	EXT *ext = Context;

	ext->IrqOn = FALSE;
	if (!ext->Absent) {
		WR(ext, CARD_IRQ_ENABLE, 0);
		WR(ext, CARD_CONTROL, 0);
	}
	return TRUE;
}

/* The lock is held: moves the line to the current request. */
static ULONG MoveLine(EXT *ext)
{
	PUCHAR to = ext->Current->Tail.Overlay.DriverContext[0];
	ULONG room = IoGetCurrentIrpStackLocation(ext->Current)->Parameters.Read.Length;
	ULONG pixels = RD(ext, CARD_LENGTH);
	ULONG n = 0;

	if (pixels == 0xFFFFFFFF)
		return 0;
	if (pixels > MAX_PIXELS)
		pixels = MAX_PIXELS;
	if (pixels > room)
		pixels = room;
	while (n < pixels) {
		ULONG four = RD(ext, CARD_DATA);
		ULONG take = min(pixels - n, (ULONG)sizeof(four));

		RtlCopyMemory(to + n, &four, take);
		n += take;
	}
	return n;
}

static VOID NTAPI OnDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
	EXT *ext = Context;
	NTSTATUS status = STATUS_SUCCESS;
	PIRP irp = NULL;
	ULONG n = 0;
	LONG causes;

	UNREFERENCED_PARAMETER(Dpc);
	UNREFERENCED_PARAMETER(Argument1);
	UNREFERENCED_PARAMETER(Argument2);
	KeAcquireSpinLockAtDpcLevel(&ext->Lock);
	causes = InterlockedExchange(&ext->Causes, 0);
	if (ext->Live && ext->Current != NULL && causes != 0) {
		if (causes & CARD_CAUSE_ERROR)
			status = STATUS_DEVICE_DATA_ERROR;
		else
			n = MoveLine(ext);
		irp = ext->Current;
		ext->Current = NULL;
		StartLocked(ext);
	}
	KeReleaseSpinLockFromDpcLevel(&ext->Lock);
	if (irp != NULL)
		Done(ext, irp, status, n);
}

static VOID NTAPI OnTick(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
	EXT *ext = Context;
	PIRP irp = NULL;

	UNREFERENCED_PARAMETER(Dpc);
	UNREFERENCED_PARAMETER(Argument1);
	UNREFERENCED_PARAMETER(Argument2);
	KeAcquireSpinLockAtDpcLevel(&ext->Lock);
	if (ext->Live && ext->Current != NULL && --ext->TicksLeft == 0) {
		irp = ext->Current;
		ext->Current = NULL;
		StartLocked(ext);
	}
	KeReleaseSpinLockFromDpcLevel(&ext->Lock);
	if (irp != NULL)
		Done(ext, irp, STATUS_IO_TIMEOUT, 0);
}

static VOID Up(EXT *ext)
{
	LARGE_INTEGER due;
	KIRQL irql;

	due.QuadPart = -10000LL * TICK_MS;
	KeAcquireSpinLock(&ext->Lock, &irql);
	if (ext->Started && !ext->Gone && ext->Power == PowerDeviceD0 && !ext->Live) {
		ext->Live = TRUE;
		WR(ext, CARD_EXPOSURE, ext->Exposure);
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
	PVOID mapped;

	if (!NT_SUCCESS(status))
		return Finish(Irp, status, 0);
	if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length == 0)
		return Done(ext, Irp, STATUS_SUCCESS, 0);
	mapped = MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority | 0x40000000);
	if (mapped == NULL)
		return Done(ext, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
	Irp->Tail.Overlay.DriverContext[0] = mapped;
	return Enqueue(ext, Irp);
}

static NTSTATUS NTAPI OnControl(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
	NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
	ULONG exposure;
	KIRQL irql;

	if (!NT_SUCCESS(status))
		return Finish(Irp, status, 0);
	if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_WEB_EXPOSURE)
		return Done(ext, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
	if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
		return Done(ext, Irp, STATUS_BUFFER_TOO_SMALL, 0);
	exposure = *(ULONG *)Irp->AssociatedIrp.SystemBuffer;
	if (exposure < 10 || exposure > 50000)
		return Done(ext, Irp, STATUS_INVALID_PARAMETER, 0);
	KeAcquireSpinLock(&ext->Lock, &irql);
	ext->Exposure = exposure;
	if (ext->Live)
		WR(ext, CARD_EXPOSURE, exposure);
	KeReleaseSpinLock(&ext->Lock, irql);
	return Done(ext, Irp, STATUS_SUCCESS, 0);
}

#ifdef FIXED
#endif

static NTSTATUS NTAPI OnPower(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
	NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
	BOOLEAN set = sp->MinorFunction == IRP_MN_SET_POWER;

	if (!NT_SUCCESS(status))
		return Finish(Irp, status, 0);
	if ((set || sp->MinorFunction == IRP_MN_QUERY_POWER) && sp->Parameters.Power.Type == SystemPowerState) {
		if (set && sp->Parameters.Power.State.SystemState != PowerSystemWorking) {
			SetPower(ext, PowerDeviceD3);
			Down(ext, STATUS_DEVICE_NOT_READY);
		}
		IoMarkIrpPending(Irp);
		IoCopyCurrentIrpStackLocationToNext(Irp);
		IoSetCompletionRoutine(Irp, SystemIrpDown, ext, TRUE, TRUE, TRUE);
		PoCallDriver(ext->Lower, Irp);
		return STATUS_PENDING;
	}
	if (set && sp->Parameters.Power.Type == DevicePowerState) {
		if (sp->Parameters.Power.State.DeviceState == PowerDeviceD0) {
#ifdef FIXED
			IoCopyCurrentIrpStackLocationToNext(Irp);
			IoSetCompletionRoutine(Irp, PoweredUp, ext, TRUE, TRUE, TRUE);
			return PoCallDriver(ext->Lower, Irp);
#else
			SetPower(ext, PowerDeviceD0);
			Up(ext);
			IoSkipCurrentIrpStackLocation(Irp);
			status = PoCallDriver(ext->Lower, Irp);
			IoReleaseRemoveLock(&ext->RemoveLock, Irp);
			return status;
#endif
		}
		SetPower(ext, sp->Parameters.Power.State.DeviceState);
		Down(ext, STATUS_DEVICE_NOT_READY);
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
	ext->Exposure = 500;
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
	Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = OnControl;
	Driver->MajorFunction[IRP_MJ_PNP] = OnPnp;
	Driver->MajorFunction[IRP_MJ_POWER] = OnPower;
	Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = OnSystemControl;
	Driver->DriverExtension->AddDevice = OnAddDevice;
	Driver->DriverUnload = OnUnload;
	return STATUS_SUCCESS;
}

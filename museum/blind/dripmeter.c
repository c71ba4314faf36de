/*
 * dripmeter - four drip counters behind a PLX PCI 9052. A timer polls the counters and adds up what came;
 * programs read the totals, reset them or wait until one has reached a level.
 *
 * The bug: the device is deleted though the DPC of its timer may run.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: freed-queued-dpc, use-after-free
 * Needs: removal, schedule
 */
#include <ddk/wdm.h>

#define TAG 'pirD'
#define TICK_MS 50
#define CHANNELS 4
#define BOARD_SIZE 0x40
#define BOARD_CONTROL 0x04
#define BOARD_CONTROL_RUN 0x01
#define BOARD_COUNTER 0x10	/* four of them */

#define PLX_INTCSR 0x4C
#define INTCSR_LINT1_ENABLE 0x01
#define INTCSR_LINT1_STATUS 0x04
#define INTCSR_PCI_ENABLE 0x40

#define PLX_RD(ext, offset) READ_REGISTER_ULONG((PULONG)((ext)->Plx + (offset)))
#define PLX_WR(ext, offset, value) WRITE_REGISTER_ULONG((PULONG)((ext)->Plx + (offset)), (value))
#define RD(ext, offset) READ_REGISTER_ULONG((PULONG)((ext)->Regs + (offset)))
#define WR(ext, offset, value) WRITE_REGISTER_ULONG((PULONG)((ext)->Regs + (offset)), (value))

#define IOCTL_DRIP_TOTALS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x910, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_DRIP_RESET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x911, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_DRIP_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x912, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DRIP_WAIT {
	ULONG Channel;
	ULONG Reserved;
	ULONG64 Level;
} DRIP_WAIT;

static const GUID InterfaceGuid = { 0x6a3c1f20, 0x11d2, 0x4b8e, { 0x90, 0x01, 0x3a, 0x51, 0x22, 0x9c, 0x10, 0x04 } };

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
	ULONG64 Totals[CHANNELS];
	ULONG Last[CHANNELS];
	PUCHAR Plx;
	ULONG PlxLength;
	PUCHAR Regs;
	ULONG RegsLength;
	KTIMER Timer;
	KDPC TimerDpc;
} EXT;

#include "../include/live_frame.h"
#include "../include/live_queue.h"

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

static VOID NTAPI OnTick(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
	EXT *ext = Context;
	PLIST_ENTRY entry, next;
	LIST_ENTRY reached;
	ULONG i;

	UNREFERENCED_PARAMETER(Dpc);
	UNREFERENCED_PARAMETER(Argument1);
	UNREFERENCED_PARAMETER(Argument2);
	InitializeListHead(&reached);
	KeAcquireSpinLockAtDpcLevel(&ext->Lock);
	if (ext->Live && PLX_RD(ext, PLX_INTCSR) != 0xFFFFFFFF) {
		for (i = 0; i < CHANNELS; i++) {
			ULONG now = RD(ext, BOARD_COUNTER + 4 * i);

			ext->Totals[i] += now - ext->Last[i];
			ext->Last[i] = now;
		}
		for (entry = ext->Queue.Flink; entry != &ext->Queue; entry = next) {
			PIRP irp = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);
			const DRIP_WAIT *wait = irp->AssociatedIrp.SystemBuffer;

			next = entry->Flink;
			if (ext->Totals[wait->Channel] < wait->Level || IoSetCancelRoutine(irp, NULL) == NULL)
				continue;
			RemoveEntryList(entry);
			InsertTailList(&reached, entry);
		}
	}
	KeReleaseSpinLockFromDpcLevel(&ext->Lock);
	CompleteList(ext, &reached, STATUS_SUCCESS);
}

static VOID Up(EXT *ext)
{
	LARGE_INTEGER due;
	ULONG i;
	KIRQL irql;

	due.QuadPart = -10000LL * TICK_MS;
	KeAcquireSpinLock(&ext->Lock, &irql);
	if (ext->Started && !ext->Gone && ext->Power == PowerDeviceD0 && !ext->Live) {
		ext->Live = TRUE;
		WR(ext, BOARD_CONTROL, BOARD_CONTROL_RUN);
		for (i = 0; i < CHANNELS; i++)
			ext->Last[i] = RD(ext, BOARD_COUNTER + 4 * i);
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
		if (!ext->Absent)
			WR(ext, BOARD_CONTROL, 0);
		KeCancelTimer(&ext->Timer);
	}
	KeReleaseSpinLock(&ext->Lock, irql);
}

static VOID Release(EXT *ext)
{
	KeCancelTimer(&ext->Timer);
#ifdef FIXED
	KeFlushQueuedDpcs();
#endif
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
	NTSTATUS status = MapBoard(ext, List);

	if (!NT_SUCCESS(status))
		Release(ext);
	return status;
}

static NTSTATUS NTAPI OnControl(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
	NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
	const DRIP_WAIT *wait;
	KIRQL irql;

	if (!NT_SUCCESS(status))
		return Finish(Irp, status, 0);
	switch (sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_DRIP_TOTALS:
		if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ext->Totals))
			return Done(ext, Irp, STATUS_BUFFER_TOO_SMALL, 0);
		KeAcquireSpinLock(&ext->Lock, &irql);
		RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, ext->Totals, sizeof(ext->Totals));
		KeReleaseSpinLock(&ext->Lock, irql);
		return Done(ext, Irp, STATUS_SUCCESS, sizeof(ext->Totals));
	case IOCTL_DRIP_RESET:
		KeAcquireSpinLock(&ext->Lock, &irql);
		RtlZeroMemory(ext->Totals, sizeof(ext->Totals));
		KeReleaseSpinLock(&ext->Lock, irql);
		return Done(ext, Irp, STATUS_SUCCESS, 0);
	case IOCTL_DRIP_WAIT:
		if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(DRIP_WAIT))
			return Done(ext, Irp, STATUS_BUFFER_TOO_SMALL, 0);
		wait = Irp->AssociatedIrp.SystemBuffer;
		if (wait->Channel >= CHANNELS)
			return Done(ext, Irp, STATUS_INVALID_PARAMETER, 0);
		return Enqueue(ext, Irp);
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

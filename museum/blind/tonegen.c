/*
 * tonegen - a tone generator card for short jingles. A write brings up to 32 notes (frequency, duration; not
 * more than three seconds in all); the card plays one after the other, interrupting at each note's end. The
 * write is complete when the jingle is over.
 *
 * The bug: a start that fails unmaps the registers and keeps where they were.
 *
 * Device: PCI\VEN_1DA7&DEV_0303
 * Rule: io-space-unmap
 * Needs: failure
 */
#include <ddk/wdm.h>

#define TAG 'enoT'
#define TICK_MS 100
#define NOTES 32
#define MAX_MS 3000
#define CARD_SIZE 0x20
#define CARD_ID 0x00
#define CARD_FREQUENCY 0x04	/* Hz */
#define CARD_DURATION 0x08	/* milliseconds; starts the note, 0 stops */
#define CARD_IRQ_ENABLE 0x0C
#define CARD_CAUSE 0x10
#define CARD_CAUSE_DONE 0x01
#define CARD_PLAYING 0x14	/* bit 0 */

#define RD(ext, offset) READ_REGISTER_ULONG((PULONG)((ext)->Regs + (offset)))
#define WR(ext, offset, value) WRITE_REGISTER_ULONG((PULONG)((ext)->Regs + (offset)), (value))

typedef struct _NOTE {
	ULONG Frequency;
	ULONG Milliseconds;
} NOTE;

static const GUID InterfaceGuid = { 0x6a3c1f20, 0x11d2, 0x4b8e, { 0x90, 0x01, 0x3a, 0x51, 0x22, 0x9c, 0x10, 0x09 } };

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
	ULONG Note;			/* the one that plays */
	ULONG TicksLeft;
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

/* The lock is held. */
static VOID PlayNote(EXT *ext)
{
	const NOTE *note = (const NOTE *)ext->Current->AssociatedIrp.SystemBuffer + ext->Note;

	ext->TicksLeft = note->Milliseconds / TICK_MS + 5;
	WR(ext, CARD_FREQUENCY, note->Frequency);
	WR(ext, CARD_DURATION, note->Milliseconds);
}

static VOID StartLocked(EXT *ext)
{
	if (!ext->Live || ext->Current != NULL)
		return;
	ext->Current = Dequeue(ext);
	if (ext->Current == NULL)
		return;
	ext->Note = 0;
	PlayNote(ext);
}

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context)
{
	EXT *ext = Context;
	ULONG cause;

	UNREFERENCED_PARAMETER(Interrupt);
	if (!ext->IrqOn)
		return FALSE;
	cause = RD(ext, CARD_CAUSE);
	if (cause == 0xFFFFFFFF || (cause & CARD_CAUSE_DONE) == 0)
		return FALSE;
	WR(ext, CARD_CAUSE, cause);
	InterlockedOr(&ext->Causes, (LONG)(cause & CARD_CAUSE_DONE));
	KeInsertQueueDpc(&ext->Dpc, NULL, NULL);
	return TRUE;
}

/* Both run with the interrupt's lock. */
static BOOLEAN NTAPI SyncIrqOn(PVOID Context)
{
	EXT *ext = Context;

	ext->IrqOn = TRUE;
	WR(ext, CARD_CAUSE, 0xFFFFFFFF);
	WR(ext, CARD_IRQ_ENABLE, CARD_CAUSE_DONE);
	return TRUE;
}

static BOOLEAN NTAPI SyncIrqOff(PVOID Context)
{
	EXT *ext = Context;

	ext->IrqOn = FALSE;
	if (!ext->Absent) {
		WR(ext, CARD_IRQ_ENABLE, 0);
		WR(ext, CARD_DURATION, 0);
	}
	return TRUE;
}

static VOID NTAPI OnDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
	EXT *ext = Context;
	PIRP irp = NULL;
	ULONG length = 0;
	LONG causes;

	UNREFERENCED_PARAMETER(Dpc);
	UNREFERENCED_PARAMETER(Argument1);
	UNREFERENCED_PARAMETER(Argument2);
	KeAcquireSpinLockAtDpcLevel(&ext->Lock);
	causes = InterlockedExchange(&ext->Causes, 0);
	if (ext->Live && ext->Current != NULL && causes != 0 && !(RD(ext, CARD_PLAYING) & 1)) {
		length = IoGetCurrentIrpStackLocation(ext->Current)->Parameters.Write.Length;
		if (++ext->Note < length / sizeof(NOTE)) {
			PlayNote(ext);
		} else {
			irp = ext->Current;
			ext->Current = NULL;
			StartLocked(ext);
		}
	}
	KeReleaseSpinLockFromDpcLevel(&ext->Lock);
	if (irp != NULL)
		Done(ext, irp, STATUS_SUCCESS, length);
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
		WR(ext, CARD_DURATION, 0);
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
	if (!NT_SUCCESS(status))
		return status;
	status = ConnectInterrupt(ext, irq);
	if (!NT_SUCCESS(status)) {
		MmUnmapIoSpace(ext->Regs, ext->RegsLength);
#ifdef FIXED
		ext->Regs = NULL;
#endif
	}
	return status;
}

static NTSTATUS NTAPI OnWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
	const NOTE *notes = Irp->AssociatedIrp.SystemBuffer;
	NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
	ULONG i, ms = 0;

	if (!NT_SUCCESS(status))
		return Finish(Irp, status, 0);
	if (length == 0)
		return Done(ext, Irp, STATUS_SUCCESS, 0);
	if (length % sizeof(NOTE) != 0 || length > NOTES * sizeof(NOTE))
		return Done(ext, Irp, STATUS_INVALID_BUFFER_SIZE, 0);
	for (i = 0; i < length / sizeof(NOTE); i++) {
		if (notes[i].Frequency > 20000 || notes[i].Milliseconds == 0 || notes[i].Milliseconds > MAX_MS)
			return Done(ext, Irp, STATUS_INVALID_PARAMETER, 0);
		ms += notes[i].Milliseconds;
	}
	if (ms > MAX_MS)
		return Done(ext, Irp, STATUS_INVALID_PARAMETER, 0);
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
	Driver->MajorFunction[IRP_MJ_WRITE] = OnWrite;
	Driver->MajorFunction[IRP_MJ_PNP] = OnPnp;
	Driver->MajorFunction[IRP_MJ_POWER] = OnPower;
	Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = OnSystemControl;
	Driver->DriverExtension->AddDevice = OnAddDevice;
	Driver->DriverUnload = OnUnload;
	return STATUS_SUCCESS;
}

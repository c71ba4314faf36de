/*
 * cardram - the 4 KB of RAM on QEMU's edu card as a file: reads and writes at any place. A system thread
 * works the requests off: it copies through a staging buffer that the card reaches by DMA, and polls for
 * the transfer's end (no interrupt is needed).
 *
 * The bug: the card is given the physical address of a pool block.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: register-refused
 * Needs: ioctl, device
 */
#include <ddk/wdm.h>

#define TAG 'mraC'
#define STATUS_DEVICE_HARDWARE_ERROR ((NTSTATUS)0xC0000483)
#define KeMemoryBarrier() __sync_synchronize()
#define POLL_MS 10
#define POLLS 200

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

static const GUID InterfaceGuid = { 0x6a3c1f20, 0x11d2, 0x4b8e, { 0x90, 0x01, 0x3a, 0x51, 0x22, 0x9c, 0x10, 0x03 } };

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
	BOOLEAN Broken;			/* a transfer did not end */
	LIST_ENTRY PowerIrps;		/* for the thread */
	KEVENT Wake;
	KEVENT IdleEvent;		/* set while the thread leaves the card alone */
	volatile BOOLEAN Stop;
	PKTHREAD Thread;
	PUCHAR Regs;
	ULONG RegsLength;
	PDMA_ADAPTER Adapter;
	PUCHAR Staging;
	PHYSICAL_ADDRESS StagingAddress;
} EXT;

#define OWN_ON_PNP
#define OWN_ON_POWER
#include "../include/live_frame.h"
#include "../include/live_queue.h"

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);
NTKERNELAPI PHYSICAL_ADDRESS NTAPI MmGetPhysicalAddress(PVOID BaseAddress);
static VOID NTAPI Thread(PVOID Context);

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
			KeSetEvent(&ext->Wake, IO_NO_INCREMENT, FALSE);
		}
	}
	KeReleaseSpinLock(&ext->Lock, irql);
	if (status != STATUS_PENDING)
		Done(ext, Irp, status, 0);
	return status;
}

/* The thread: one DMA transfer between the staging buffer and the card's RAM. */
static NTSTATUS RunDma(EXT *ext, BOOLEAN ToCard, ULONG Offset, ULONG Length)
{
	LARGE_INTEGER delay;
	ULONG command, i;

	command = RD(ext, EDU_DMA_COMMAND);
	if (command == 0xFFFFFFFF)
		return STATUS_NO_SUCH_DEVICE;
	if (command & EDU_DMA_START)
		return STATUS_DEVICE_BUSY;
	WR(ext, EDU_DMA_SOURCE, ToCard ? ext->StagingAddress.LowPart : EDU_RAM + Offset);
	WR(ext, EDU_DMA_DESTINATION, ToCard ? EDU_RAM + Offset : ext->StagingAddress.LowPart);
	WR(ext, EDU_DMA_COUNT, Length);
	WR(ext, EDU_DMA_COMMAND, EDU_DMA_START | (ToCard ? 0 : EDU_DMA_FROM_CARD));
	delay.QuadPart = -10000LL * POLL_MS;
	for (i = 0; i < POLLS; i++) {
		KeDelayExecutionThread(KernelMode, FALSE, &delay);
		if (ext->Absent)
			return STATUS_NO_SUCH_DEVICE;
		command = RD(ext, EDU_DMA_COMMAND);
		if (command == 0xFFFFFFFF)
			return STATUS_NO_SUCH_DEVICE;
		if (!(command & EDU_DMA_START))
			return STATUS_SUCCESS;
	}
	ext->Broken = TRUE;
	return STATUS_IO_TIMEOUT;
}

static VOID Serve(EXT *ext, PIRP Irp)
{
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
	BOOLEAN toCard = sp->MajorFunction == IRP_MJ_WRITE;
	ULONG length = toCard ? sp->Parameters.Write.Length : sp->Parameters.Read.Length;
	ULONG offset = (toCard ? sp->Parameters.Write.ByteOffset : sp->Parameters.Read.ByteOffset).LowPart;
	NTSTATUS status;

	if (ext->Broken) {
		status = STATUS_DEVICE_HARDWARE_ERROR;
	} else {
		if (toCard)
			RtlCopyMemory(ext->Staging, Irp->AssociatedIrp.SystemBuffer, length);
		KeMemoryBarrier();
		status = RunDma(ext, toCard, offset, length);
		KeMemoryBarrier();
		if (NT_SUCCESS(status) && !toCard)
			RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, ext->Staging, length);
	}
	KeSetEvent(&ext->IdleEvent, IO_NO_INCREMENT, FALSE);
	Done(ext, Irp, status, NT_SUCCESS(status) ? length : 0);
}

static VOID Up(EXT *ext)
{
	KIRQL irql;

	KeAcquireSpinLock(&ext->Lock, &irql);
	if (ext->Started && !ext->Gone && ext->Power == PowerDeviceD0) {
		ext->Live = TRUE;
		KeSetEvent(&ext->Wake, IO_NO_INCREMENT, FALSE);
	}
	KeReleaseSpinLock(&ext->Lock, irql);
}

/* At PASSIVE_LEVEL: from now on, the thread does not touch the card. */
static VOID Down(EXT *ext, NTSTATUS Status)
{
	KIRQL irql;

	UNREFERENCED_PARAMETER(Status);
	KeAcquireSpinLock(&ext->Lock, &irql);
	ext->Live = FALSE;
	KeReleaseSpinLock(&ext->Lock, irql);
	KeWaitForSingleObject(&ext->IdleEvent, Executive, KernelMode, FALSE, NULL);
}

static VOID Release(EXT *ext)
{
#ifdef FIXED
	if (ext->Staging != NULL) {
		ext->Adapter->DmaOperations->FreeCommonBuffer(ext->Adapter, EDU_RAM_SIZE, ext->StagingAddress, ext->Staging, TRUE);
		ext->Staging = NULL;
	}
#else
	if (ext->Staging != NULL) {
		ExFreePoolWithTag(ext->Staging, TAG);
		ext->Staging = NULL;
	}
#endif
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
	NTSTATUS status = MapCard(ext, FindResource(List, CmResourceTypeMemory, 0));

	if (!NT_SUCCESS(status))
		return status;
	WR(ext, EDU_STATUS, 0);
	status = GetAdapter(ext);
	if (NT_SUCCESS(status)) {
#ifdef FIXED
		ext->Staging = ext->Adapter->DmaOperations->AllocateCommonBuffer(ext->Adapter, EDU_RAM_SIZE, &ext->StagingAddress, TRUE);
#else
		ext->Staging = ExAllocatePoolWithTag(NonPagedPoolNx, EDU_RAM_SIZE, TAG);
		if (ext->Staging != NULL)
			ext->StagingAddress = MmGetPhysicalAddress(ext->Staging);
#endif
		if (ext->Staging == NULL)
			status = STATUS_INSUFFICIENT_RESOURCES;
		else
			ext->Broken = FALSE;
	}
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
	return Enqueue(ext, Irp);
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

static VOID StopThread(EXT *ext)
{
	ext->Stop = TRUE;
	KeSetEvent(&ext->Wake, IO_NO_INCREMENT, FALSE);
	KeWaitForSingleObject(ext->Thread, Executive, KernelMode, FALSE, NULL);
	ObDereferenceObject(ext->Thread);
}

static NTSTATUS StartThread(EXT *ext)
{
	OBJECT_ATTRIBUTES attributes;
	HANDLE handle;
	NTSTATUS status;

	InitializeObjectAttributes(&attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
	status = PsCreateSystemThread(&handle, THREAD_ALL_ACCESS, &attributes, NULL, NULL, Thread, ext);
	if (!NT_SUCCESS(status))
		return status;
	status = ObReferenceObjectByHandle(handle, SYNCHRONIZE, *PsThreadType, KernelMode, (PVOID *)&ext->Thread, NULL);
	if (!NT_SUCCESS(status)) {
		ext->Stop = TRUE;
		KeSetEvent(&ext->Wake, IO_NO_INCREMENT, FALSE);
		ZwWaitForSingleObject(handle, FALSE, NULL);
	}
	ZwClose(handle);
	return status;
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
		StopThread(ext);
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
static VOID PowerWork(EXT *ext)
{
	for (;;) {
		PIRP irp = NULL;
		BOOLEAN system;
		KIRQL irql;

		KeAcquireSpinLock(&ext->Lock, &irql);
		if (!IsListEmpty(&ext->PowerIrps))
			irp = CONTAINING_RECORD(RemoveHeadList(&ext->PowerIrps), IRP, Tail.Overlay.ListEntry);
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

static VOID NTAPI Thread(PVOID Context)
{
	EXT *ext = Context;
	BOOLEAN stop;

	do {
		PIRP irp;

		KeWaitForSingleObject(&ext->Wake, Executive, KernelMode, FALSE, NULL);
		stop = ext->Stop;
		do {
			KIRQL irql;

			PowerWork(ext);
			KeAcquireSpinLock(&ext->Lock, &irql);
			irp = ext->Live ? Dequeue(ext) : NULL;
			if (irp != NULL)
				KeClearEvent(&ext->IdleEvent);
			KeReleaseSpinLock(&ext->Lock, irql);
			if (irp != NULL)
				Serve(ext, irp);
		} while (irp != NULL);
	} while (!stop);
	PsTerminateSystemThread(STATUS_SUCCESS);
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
		KeSetEvent(&ext->Wake, IO_NO_INCREMENT, FALSE);
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
	KeInitializeEvent(&ext->Wake, SynchronizationEvent, FALSE);
	KeInitializeEvent(&ext->IdleEvent, NotificationEvent, TRUE);
	InitializeListHead(&ext->PowerIrps);
	status = IoRegisterDeviceInterface(Pdo, &InterfaceGuid, NULL, &ext->Interface);
	if (!NT_SUCCESS(status)) {
		IoDeleteDevice(self);
		return status;
	}
	status = StartThread(ext);
	if (!NT_SUCCESS(status)) {
		RtlFreeUnicodeString(&ext->Interface);
		IoDeleteDevice(self);
		return status;
	}
	ext->Lower = IoAttachDeviceToDeviceStack(self, Pdo);
	if (ext->Lower == NULL) {
		StopThread(ext);
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
	Driver->MajorFunction[IRP_MJ_WRITE] = OnWrite;
	Driver->MajorFunction[IRP_MJ_PNP] = OnPnp;
	Driver->MajorFunction[IRP_MJ_POWER] = OnPower;
	Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = OnSystemControl;
	Driver->DriverExtension->AddDevice = OnAddDevice;
	Driver->DriverUnload = OnUnload;
	return STATUS_SUCCESS;
}

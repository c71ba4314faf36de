/*
 * edureel: copies the buffer of a request (METHOD_IN_DIRECT, a page at most) into the memory of QEMU's edu device,
 * by packet-based DMA.
 *
 * The bug: the map registers are asked for by the pages that the buffer spans, but as many are given back as its
 * length would need if it began at a page; each unaligned buffer over a page boundary leaves one behind, until there
 * are none and the next request waits for ever.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: dma-map-registers-count
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define IOCTL_STORE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_IN_DIRECT, FILE_WRITE_ACCESS)

#define POLLS 500		/* a millisecond and more each */
#define COMMAND_OFFSET 4	/* in the PCI configuration space */
#define COMMAND_MASTER 4

typedef struct AE_HW {
	PUCHAR regs;
	PDMA_ADAPTER adapter;
	ULONG registers;	/* that the adapter grants */
	BUS_INTERFACE_STANDARD bus;
	FAST_MUTEX one;		/* one transfer at a time */
	BOOLEAN stuck;		/* a transfer did not end, the device is kept off the bus; under the mutex */
} AE_HW;

#include "../include/loft_frame.h"
#include "../include/loft_edu.h"

static const GUID BusStandard = { 0x496b8280, 0x6f25, 0x11d0, { 0xbe, 0xaf, 0x08, 0x00, 0x2b, 0xe2, 0x09, 0x2f } };

static NTSTATUS QueryBus(AE_DEV *d, PBUS_INTERFACE_STANDARD bus)
{
	PIO_STACK_LOCATION sp;
	IO_STATUS_BLOCK io;
	KEVENT event;
	NTSTATUS s;
	PIRP irp;

	KeInitializeEvent(&event, NotificationEvent, FALSE);
	irp = IoBuildSynchronousFsdRequest(IRP_MJ_PNP, d->lower, NULL, 0, NULL, &event, &io);
	if (irp == NULL)
		return STATUS_INSUFFICIENT_RESOURCES;
	RtlZeroMemory(bus, sizeof *bus);
	irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
	irp->IoStatus.Information = 0;
	sp = IoGetNextIrpStackLocation(irp);
	sp->MinorFunction = IRP_MN_QUERY_INTERFACE;
	sp->Parameters.QueryInterface.InterfaceType = &BusStandard;
	sp->Parameters.QueryInterface.Size = sizeof *bus;
	sp->Parameters.QueryInterface.Version = 1;
	sp->Parameters.QueryInterface.Interface = (PINTERFACE)bus;
	sp->Parameters.QueryInterface.InterfaceSpecificData = NULL;
	s = IoCallDriver(d->lower, irp);
	if (s == STATUS_PENDING) {
		KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
		s = io.Status;
	}
	if (NT_SUCCESS(s) && (bus->GetBusData == NULL || bus->SetBusData == NULL)) {
		bus->InterfaceDereference(bus->Context);
		s = STATUS_NOT_SUPPORTED;
	}
	return s;
}

/* lets the device onto the bus, or keeps it off */
static void SetMaster(AE_HW *hw, BOOLEAN on)
{
	USHORT command;

	if (hw->bus.GetBusData(hw->bus.Context, PCI_WHICHSPACE_CONFIG, &command, COMMAND_OFFSET, sizeof command) != sizeof command
	 || command == 0xFFFF)
		return;
	command = on ? command | COMMAND_MASTER : command & ~COMMAND_MASTER;
	hw->bus.SetBusData(hw->bus.Context, PCI_WHICHSPACE_CONFIG, &command, COMMAND_OFFSET, sizeof command);
}

static NTSTATUS HwAdd(AE_DEV *d)
{
	ExInitializeFastMutex(&d->hw.one);
	return STATUS_SUCCESS;
}

static NTSTATUS HwStart(AE_DEV *d, PCM_RESOURCE_LIST trans)
{
	AE_HW *hw = &d->hw;
	DEVICE_DESCRIPTION desc;
	NTSTATUS s;

	s = EduMap(trans, &hw->regs);
	if (!NT_SUCCESS(s))
		return s;
	s = QueryBus(d, &hw->bus);
	if (!NT_SUCCESS(s))
		goto noBus;
	RtlZeroMemory(&desc, sizeof desc);
	desc.Version = DEVICE_DESCRIPTION_VERSION;
	desc.Master = TRUE;
	desc.InterfaceType = PCIBus;
	desc.MaximumLength = EDU_BUFFER_LENGTH;
	/* neither 32 nor 64 bits: the device has 28, the next that can be said is 24 */
	hw->adapter = IoGetDmaAdapter(d->pdo, &desc, &hw->registers);
	if (hw->adapter == NULL) {
		s = STATUS_INSUFFICIENT_RESOURCES;
		goto noAdapter;
	}
	/* if it is still at an old transfer, it stays off the bus */
	hw->stuck = (AeR(hw->regs, EDU_DMA_CMD) & EDU_DMA_START) != 0;
	SetMaster(hw, !hw->stuck);
	return STATUS_SUCCESS;

noAdapter:
	hw->bus.InterfaceDereference(hw->bus.Context);
noBus:
	MmUnmapIoSpace(hw->regs, EDU_MAPPED);
	hw->regs = NULL;
	return s;
}

static void HwRelease(AE_DEV *d)
{
	AE_HW *hw = &d->hw;

	hw->adapter->DmaOperations->PutDmaAdapter(hw->adapter);
	hw->adapter = NULL;
	hw->bus.InterfaceDereference(hw->bus.Context);
	MmUnmapIoSpace(hw->regs, EDU_MAPPED);
	hw->regs = NULL;
}

/* no interrupts, no state: every transfer sets up its registers, and none is under way outside of a request */
static void HwPowerUp(AE_DEV *d)
{
	UNREFERENCED_PARAMETER(d);
}

static void HwPowerDown(AE_DEV *d)
{
	UNREFERENCED_PARAMETER(d);
}

typedef struct GRANT {
	PVOID base;
	KEVENT event;
} GRANT;

static IO_ALLOCATION_ACTION NTAPI Granted(PDEVICE_OBJECT fdo, PIRP irp, PVOID base, PVOID context)
{
	GRANT *g = context;

	UNREFERENCED_PARAMETER(fdo);
	UNREFERENCED_PARAMETER(irp);
	g->base = base;
	KeSetEvent(&g->event, IO_NO_INCREMENT, FALSE);
	return DeallocateObjectKeepRegisters;
}

/* one piece; the device does not touch the memory any more when this returns */
static NTSTATUS Move(AE_HW *hw, ULONG source, ULONG offset, ULONG length)
{
	ULONG i, v;

	AeW(hw->regs, EDU_DMA_SRC, source);
	AeW(hw->regs, EDU_DMA_DST, EDU_BUFFER + offset);
	AeW(hw->regs, EDU_DMA_COUNT, length);
	AeW(hw->regs, EDU_DMA_CMD, EDU_DMA_START);
	for (i = 0; i < POLLS; i++) {
		v = AeR(hw->regs, EDU_DMA_CMD);
		if (v == EDU_ABSENT)
			return STATUS_DEVICE_NOT_CONNECTED;
		if (!(v & EDU_DMA_START))
			return STATUS_SUCCESS;
		AeSleepMs(1);
	}
	hw->stuck = TRUE;
	SetMaster(hw, FALSE);
	return STATUS_IO_TIMEOUT;
}

static NTSTATUS Store(AE_DEV *d, PMDL mdl, ULONG length)
{
	AE_HW *hw = &d->hw;
	PDMA_OPERATIONS ops = hw->adapter->DmaOperations;
	PUCHAR va = MmGetMdlVirtualAddress(mdl);
	ULONG need = ADDRESS_AND_SIZE_TO_SPAN_PAGES(va, length), done = 0, part;
	PHYSICAL_ADDRESS at;
	NTSTATUS s;
	GRANT g;
	KIRQL irql;

	if (hw->stuck)
		return STATUS_DEVICE_NOT_READY;
	if (need > hw->registers)
		return STATUS_INSUFFICIENT_RESOURCES;
	KeInitializeEvent(&g.event, NotificationEvent, FALSE);
	KeFlushIoBuffers(mdl, FALSE, TRUE);
	KeRaiseIrql(DISPATCH_LEVEL, &irql);
	s = ops->AllocateAdapterChannel(hw->adapter, d->fdo, need, Granted, &g);
	KeLowerIrql(irql);
	if (!NT_SUCCESS(s))
		return s;
	KeWaitForSingleObject(&g.event, Executive, KernelMode, FALSE, NULL);
	while (NT_SUCCESS(s) && done < length) {
		part = length - done;
		at = ops->MapTransfer(hw->adapter, mdl, g.base, va + done, &part, TRUE);
		if (part == 0) {
			s = STATUS_INSUFFICIENT_RESOURCES;
			break;
		}
		if (at.QuadPart + part > EDU_DMA_LIMIT)
			s = STATUS_DEVICE_CONFIGURATION_ERROR;
		else
			s = Move(hw, at.LowPart, done, part);
		if (!ops->FlushAdapterBuffers(hw->adapter, mdl, g.base, va + done, part, TRUE) && NT_SUCCESS(s))
			s = STATUS_IO_DEVICE_ERROR;
		done += part;
	}
	KeRaiseIrql(DISPATCH_LEVEL, &irql);
#ifndef FIXED
	ops->FreeMapRegisters(hw->adapter, g.base, BYTES_TO_PAGES(length));
#else
	ops->FreeMapRegisters(hw->adapter, g.base, need);
#endif
	KeLowerIrql(irql);
	return s;
}

static NTSTATUS HwRequest(AE_DEV *d, PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info)
{
	AE_HW *hw = &d->hw;
	ULONG length = sp->Parameters.DeviceIoControl.OutputBufferLength;
	NTSTATUS s;

	if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_STORE)
		return STATUS_INVALID_DEVICE_REQUEST;
	if (length == 0 || length > EDU_BUFFER_LENGTH || irp->MdlAddress == NULL)
		return STATUS_INVALID_PARAMETER;
	ExAcquireFastMutex(&hw->one);
	s = Store(d, irp->MdlAddress, length);
	ExReleaseFastMutex(&hw->one);
	if (NT_SUCCESS(s))
		*info = length;
	return s;
}

static void HwPurge(AE_DEV *d, PFILE_OBJECT file, NTSTATUS status)
{
	UNREFERENCED_PARAMETER(d);
	UNREFERENCED_PARAMETER(file);
	UNREFERENCED_PARAMETER(status);
}

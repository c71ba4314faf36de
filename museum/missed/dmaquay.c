/*
 * dmaquay: takes pictures' lines from an invented capture card: each request gets a common buffer, lets the card
 * write into it, and polls for the end.
 * The card, BAR0, 4 KiB of memory, 32-bit registers: 0x00 id (0x51554159); 0x04 control (bit 0 start, bit 31 reset:
 * stops at once, nothing is written to memory after it); 0x08 status (bit 0 busy, bit 1 error); 0x0C and 0x10 address,
 * low and high; 0x14 length in bytes. It does not interrupt.
 *
 * The bug: when the card does not end in time, the buffer is freed while the card is still at it; what it writes later
 * goes into memory that belongs to others.
 *
 * Device: PCI\VEN_1DA7&DEV_0102
 * Rule: dma-after-unmap
 * Needs: ioctl, device
 */
#include <ddk/wdm.h>

#define IOCTL_CAPTURE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_READ_ACCESS)

#define MAX_LENGTH 0x10000
#define POLLS 200		/* a millisecond and more each */

#define BAR_LENGTH 0x1000
#define REG_ID 0x00
#define ID_VALUE 0x51554159
#define REG_CONTROL 0x04
#define CONTROL_START 1
#define CONTROL_RESET 0x80000000
#define REG_STATUS 0x08
#define STATUS_BIT_BUSY 1
#define STATUS_BIT_ERROR 2
#define REG_LOW 0x0C
#define REG_HIGH 0x10
#define REG_LENGTH 0x14
#define ABSENT 0xFFFFFFFF

typedef struct AE_HW {
	PUCHAR regs;
	PDMA_ADAPTER adapter;
	KMUTEX one;		/* one capture at a time; the calls inside want PASSIVE_LEVEL */
} AE_HW;

#include "../include/loft_frame.h"

/* afterwards the card does not write to memory */
static void Reset(AE_HW *hw)
{
	AeW(hw->regs, REG_CONTROL, CONTROL_RESET);
	AeR(hw->regs, REG_CONTROL);		/* the write has arrived, and what was on its way is through */
}

static NTSTATUS HwAdd(AE_DEV *d)
{
	KeInitializeMutex(&d->hw.one, 0);
	return STATUS_SUCCESS;
}

static NTSTATUS HwStart(AE_DEV *d, PCM_RESOURCE_LIST trans)
{
	AE_HW *hw = &d->hw;
	DEVICE_DESCRIPTION desc;
	NTSTATUS s = STATUS_INSUFFICIENT_RESOURCES;
	ULONG n;

	hw->regs = AeMap(trans, 0, BAR_LENGTH);
	if (hw->regs == NULL)
		return s;
	if (AeR(hw->regs, REG_ID) != ID_VALUE)
		s = STATUS_NO_SUCH_DEVICE;
	else {
		Reset(hw);
		RtlZeroMemory(&desc, sizeof desc);
		desc.Version = DEVICE_DESCRIPTION_VERSION;
		desc.Master = TRUE;
		desc.Dma32BitAddresses = TRUE;
		desc.Dma64BitAddresses = TRUE;
		desc.InterfaceType = PCIBus;
		desc.MaximumLength = MAX_LENGTH;
		hw->adapter = IoGetDmaAdapter(d->pdo, &desc, &n);
		if (hw->adapter != NULL)
			return STATUS_SUCCESS;
	}
	MmUnmapIoSpace(hw->regs, BAR_LENGTH);
	hw->regs = NULL;
	return s;
}

static void HwRelease(AE_DEV *d)
{
	AE_HW *hw = &d->hw;

	hw->adapter->DmaOperations->PutDmaAdapter(hw->adapter);
	hw->adapter = NULL;
	MmUnmapIoSpace(hw->regs, BAR_LENGTH);
	hw->regs = NULL;
}

static void HwPowerUp(AE_DEV *d)
{
	Reset(&d->hw);
}

static void HwPowerDown(AE_DEV *d)
{
	Reset(&d->hw);
}

/* the card has what it needs; waits for its end */
static NTSTATUS Await(AE_HW *hw)
{
	ULONG i, v;

	for (i = 0; i < POLLS; i++) {
		v = AeR(hw->regs, REG_STATUS);
		if (v == ABSENT)
			return STATUS_DEVICE_NOT_CONNECTED;
		if (!(v & STATUS_BIT_BUSY))
			return (v & STATUS_BIT_ERROR) ? STATUS_IO_DEVICE_ERROR : STATUS_SUCCESS;
		AeSleepMs(1);
	}
	return STATUS_IO_TIMEOUT;
}

static NTSTATUS Capture(AE_HW *hw, PVOID to, ULONG length)
{
	PDMA_OPERATIONS ops = hw->adapter->DmaOperations;
	PHYSICAL_ADDRESS at;
	PVOID buffer;
	NTSTATUS s;

	buffer = ops->AllocateCommonBuffer(hw->adapter, length, &at, TRUE);
	if (buffer == NULL)
		return STATUS_INSUFFICIENT_RESOURCES;
	RtlZeroMemory(buffer, length);
	AeW(hw->regs, REG_LOW, at.LowPart);
	AeW(hw->regs, REG_HIGH, (ULONG)at.HighPart);
	AeW(hw->regs, REG_LENGTH, length);
	AeW(hw->regs, REG_CONTROL, CONTROL_START);
	s = Await(hw);
	if (NT_SUCCESS(s))
		RtlCopyMemory(to, buffer, length);
#ifndef FIXED
#else
	else
		Reset(hw);
#endif
	ops->FreeCommonBuffer(hw->adapter, length, at, buffer, TRUE);
	return s;
}

static NTSTATUS HwRequest(AE_DEV *d, PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info)
{
	AE_HW *hw = &d->hw;
	ULONG length = sp->Parameters.DeviceIoControl.OutputBufferLength;
	NTSTATUS s;

	if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_CAPTURE)
		return STATUS_INVALID_DEVICE_REQUEST;
	if (length == 0 || length > MAX_LENGTH)
		return STATUS_INVALID_PARAMETER;
	KeWaitForSingleObject(&hw->one, Executive, KernelMode, FALSE, NULL);
	s = Capture(hw, irp->AssociatedIrp.SystemBuffer, length);
	KeReleaseMutex(&hw->one, FALSE);
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

/*
 * eduledger: computes factorials on QEMU's edu device by polling, and keeps a ledger of the last 32 of them, which a
 * program reads as far as its buffer reaches.
 *
 * The bug: if the buffer is too short for the ledger, the request ends with STATUS_BUFFER_OVERFLOW and the length of
 * the whole ledger; the I/O manager copies that many bytes, beyond the system buffer and the program's.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: information-too-large
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define IOCTL_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_READ_ACCESS | FILE_WRITE_ACCESS)
#define IOCTL_LEDGER CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS)

#define LEDGER 32
#define POLLS 200		/* a millisecond and more each */

typedef struct ENTRY {
	ULONG n;
	ULONG result;
} ENTRY;

typedef struct AE_HW {
	PUCHAR regs;
	FAST_MUTEX one;		/* one computation at a time; and guards the ledger */
	ULONG count;
	ENTRY entry[LEDGER];
} AE_HW;

#include "../include/loft_frame.h"
#include "../include/loft_edu.h"

static NTSTATUS HwAdd(AE_DEV *d)
{
	ExInitializeFastMutex(&d->hw.one);
	return STATUS_SUCCESS;
}

static NTSTATUS HwStart(AE_DEV *d, PCM_RESOURCE_LIST trans)
{
	return EduMap(trans, &d->hw.regs);
}

static void HwRelease(AE_DEV *d)
{
	MmUnmapIoSpace(d->hw.regs, EDU_MAPPED);
	d->hw.regs = NULL;
}

/* without interrupts */
static void HwPowerUp(AE_DEV *d)
{
	AeW(d->hw.regs, EDU_STATUS, 0);
}

/* nothing is under way outside of a request */
static void HwPowerDown(AE_DEV *d)
{
	UNREFERENCED_PARAMETER(d);
}

static NTSTATUS AwaitReady(AE_HW *hw)
{
	ULONG i, v;

	for (i = 0; i < POLLS; i++) {
		v = AeR(hw->regs, EDU_STATUS);
		if (v == EDU_ABSENT)
			return STATUS_DEVICE_NOT_CONNECTED;
		if (!(v & EDU_BUSY))
			return STATUS_SUCCESS;
		AeSleepMs(1);
	}
	return STATUS_IO_TIMEOUT;
}

/* under the mutex */
static NTSTATUS Factorial(AE_HW *hw, ULONG n, PULONG result)
{
	NTSTATUS s = AwaitReady(hw);

	if (!NT_SUCCESS(s))
		return s;
	AeW(hw->regs, EDU_FACT, n);
	s = AwaitReady(hw);
	if (!NT_SUCCESS(s))
		return s;
	*result = AeR(hw->regs, EDU_FACT);
	if (hw->count == LEDGER)
		RtlMoveMemory(hw->entry, hw->entry + 1, --hw->count * sizeof(ENTRY));
	hw->entry[hw->count].n = n;
	hw->entry[hw->count++].result = *result;
	return s;
}

static NTSTATUS HwRequest(AE_DEV *d, PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info)
{
	AE_HW *hw = &d->hw;
	ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength, all, result;
	PULONG buffer = irp->AssociatedIrp.SystemBuffer;
	NTSTATUS s;

	switch (sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_FACTORIAL:
		if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) || out < sizeof(ULONG))
			return STATUS_BUFFER_TOO_SMALL;
		ExAcquireFastMutex(&hw->one);
		s = Factorial(hw, buffer[0], &result);
		ExReleaseFastMutex(&hw->one);
		if (NT_SUCCESS(s)) {
			buffer[0] = result;
			*info = sizeof(ULONG);
		}
		return s;

	case IOCTL_LEDGER:
		if (out < sizeof(ENTRY))
			return STATUS_BUFFER_TOO_SMALL;
		out -= out % sizeof(ENTRY);
		ExAcquireFastMutex(&hw->one);
		all = hw->count * sizeof(ENTRY);
		RtlCopyMemory(buffer, hw->entry, all < out ? all : out);
		ExReleaseFastMutex(&hw->one);
		if (all > out) {
#ifndef FIXED
			*info = all;
#else
			*info = out;
#endif
			return STATUS_BUFFER_OVERFLOW;
		}
		*info = all;
		return STATUS_SUCCESS;
	}
	return STATUS_INVALID_DEVICE_REQUEST;
}

static void HwPurge(AE_DEV *d, PFILE_OBJECT file, NTSTATUS status)
{
	UNREFERENCED_PARAMETER(d);
	UNREFERENCED_PARAMETER(file);
	UNREFERENCED_PARAMETER(status);
}

/*
 * plxwharf: sets and reads the four user pins of a PLX 9050 board as general outputs and inputs.
 *
 * The bug: the address of the pins' register is worked out at the first start only; after a stop and a start with
 * other resources the driver goes on through the old mapping, which has been taken down.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: device-memory-not-mapped
 * Needs: ioctl, power
 */
#include <ddk/wdm.h>

#define IOCTL_SET_PIN CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_GET_PINS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS)

#define PINS 4
#define PIN_SPECIAL 1		/* the pin serves the local bus */
#define PIN_OUT 2
#define PIN_HIGH 4
#define PIN_BITS 7

typedef struct SET_PIN {
	ULONG pin;
	ULONG output;
	ULONG high;
} SET_PIN;

typedef struct AE_HW {
	PUCHAR regs;
	PULONG cntrl;
	KSPIN_LOCK lock;	/* changes of CNTRL */
	BOOLEAN saved;
	ULONG pins;		/* the pins' bits while the registers are lost */
} AE_HW;

#include "../include/loft_frame.h"
#include "../include/loft_plx.h"

#define ALL_PINS ((1 << 3 * PINS) - 1)
/* the bits that must stay 0 when we write: the EEPROM's and the reset */
#define NOT_OURS ((1 << 24) | (1 << 25) | (1 << 26) | (1 << 27) | (1 << 29) | (1 << 30))

static NTSTATUS HwAdd(AE_DEV *d)
{
	KeInitializeSpinLock(&d->hw.lock);
	return STATUS_SUCCESS;
}

static NTSTATUS HwStart(AE_DEV *d, PCM_RESOURCE_LIST trans)
{
	AE_HW *hw = &d->hw;

	hw->regs = AeMap(trans, 0, PLX_LENGTH);
	if (hw->regs == NULL)
		return STATUS_INSUFFICIENT_RESOURCES;
#ifndef FIXED
	if (hw->cntrl == NULL)
		hw->cntrl = (PULONG)(hw->regs + PLX_CNTRL);
#else
	hw->cntrl = (PULONG)(hw->regs + PLX_CNTRL);
#endif
	return STATUS_SUCCESS;
}

static void HwRelease(AE_DEV *d)
{
	AE_HW *hw = &d->hw;

	MmUnmapIoSpace(hw->regs, PLX_LENGTH);
	hw->regs = NULL;
}

/* sets some of the pins' bits; FALSE: the board is gone */
static BOOLEAN Change(AE_HW *hw, ULONG clear, ULONG set)
{
	BOOLEAN there;
	KIRQL irql;
	ULONG v;

	KeAcquireSpinLock(&hw->lock, &irql);
	v = READ_REGISTER_ULONG(hw->cntrl);
	there = v != PLX_ABSENT;
	if (there)
		WRITE_REGISTER_ULONG(hw->cntrl, (v & ~(clear | NOT_OURS)) | set);
	KeReleaseSpinLock(&hw->lock, irql);
	return there;
}

static void HwPowerUp(AE_DEV *d)
{
	AE_HW *hw = &d->hw;

	if (hw->saved) {
		Change(hw, ALL_PINS, hw->pins);
		hw->saved = FALSE;
	}
}

static void HwPowerDown(AE_DEV *d)
{
	AE_HW *hw = &d->hw;
	ULONG v = READ_REGISTER_ULONG(hw->cntrl);

	if (v != PLX_ABSENT) {
		hw->pins = v & ALL_PINS;
		hw->saved = TRUE;
	}
}

static NTSTATUS HwRequest(AE_DEV *d, PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info)
{
	AE_HW *hw = &d->hw;
	SET_PIN *in = irp->AssociatedIrp.SystemBuffer;
	ULONG i, v, set;

	switch (sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_SET_PIN:
		if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof *in)
			return STATUS_BUFFER_TOO_SMALL;
		if (in->pin >= PINS)
			return STATUS_INVALID_PARAMETER;
		set = (in->output ? PIN_OUT : 0) | (in->output && in->high ? PIN_HIGH : 0);
		if (!Change(hw, PIN_BITS << 3 * in->pin, set << 3 * in->pin))
			return STATUS_DEVICE_NOT_CONNECTED;
		return STATUS_SUCCESS;

	case IOCTL_GET_PINS:
		if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
			return STATUS_BUFFER_TOO_SMALL;
		v = READ_REGISTER_ULONG(hw->cntrl);
		if (v == PLX_ABSENT)
			return STATUS_DEVICE_NOT_CONNECTED;
		for (set = 0, i = 0; i < PINS; i++)
			if (v & (PIN_HIGH << 3 * i))
				set |= 1 << i;
		*(PULONG)irp->AssociatedIrp.SystemBuffer = set;
		*info = sizeof(ULONG);
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

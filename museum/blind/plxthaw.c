/*
 * plxthaw: programs wait for the first interrupt line of a PLX 9050 board (a temperature alarm). The line is enabled
 * while a program waits, and the interrupt routine disables it again when it has fired.
 *
 * The bug: after a sleep the interrupt register is set up without the enable of the line, though a request waits for
 * it; the board never interrupts again, and the request stays for good (later ones too, as the line counts as armed).
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: request-forgotten
 * Needs: ioctl, power, device
 */
#include <ddk/wdm.h>
#include "../include/loft_queue.h"

#define IOCTL_AWAIT_ALARM CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_IS_ALARM CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct AE_HW {
	PUCHAR regs;
	PKINTERRUPT intr;
	KDPC dpc;
	BOOLEAN on;		/* these two and INTCSR are the interrupt routine's */
	BOOLEAN armed;
	LONG alarms;
	AEQ waiting;
} AE_HW;

#include "../include/loft_frame.h"
#include "../include/loft_plx.h"

static BOOLEAN NTAPI Isr(PKINTERRUPT intr, PVOID context)
{
	AE_HW *hw = &((AE_DEV *)context)->hw;
	ULONG v;

	UNREFERENCED_PARAMETER(intr);
	if (!hw->on)
		return FALSE;
	v = AeR(hw->regs, PLX_INTCSR);
	if (v == PLX_ABSENT || (v & (INT_PCI | INT_1_ENABLE | INT_1_ACTIVE)) != (INT_PCI | INT_1_ENABLE | INT_1_ACTIVE))
		return FALSE;
	AeW(hw->regs, PLX_INTCSR, INT_BASE | INT_PCI);
	hw->armed = FALSE;
	KeInsertQueueDpc(&hw->dpc, NULL, NULL);
	return TRUE;
}

/* ---- with the interrupt routine kept out ---- */

static BOOLEAN NTAPI SyncArm(PVOID context)
{
	AE_HW *hw = context;

	if (!hw->armed) {
		hw->armed = TRUE;
		if (hw->on)
			AeW(hw->regs, PLX_INTCSR, INT_BASE | INT_PCI | INT_1_ENABLE);
	}
	return TRUE;
}

static BOOLEAN NTAPI SyncOn(PVOID context)
{
	AE_HW *hw = context;
	ULONG v = INT_BASE | INT_PCI;

#ifndef FIXED
#else
	if (hw->armed)
		v |= INT_1_ENABLE;
#endif
	hw->on = TRUE;
	AeW(hw->regs, PLX_INTCSR, v);
	return TRUE;
}

static BOOLEAN NTAPI SyncOff(PVOID context)
{
	AE_HW *hw = context;

	AeW(hw->regs, PLX_INTCSR, INT_BASE);
	hw->on = FALSE;
	return TRUE;
}

/* ---- */

static VOID NTAPI Dpc(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
	AE_DEV *d = context;

	UNREFERENCED_PARAMETER(dpc);
	UNREFERENCED_PARAMETER(a);
	UNREFERENCED_PARAMETER(b);
	InterlockedIncrement(&d->hw.alarms);
	AeFail(d, &d->hw.waiting, NULL, STATUS_SUCCESS);
}

static NTSTATUS HwAdd(AE_DEV *d)
{
	KeInitializeDpc(&d->hw.dpc, Dpc, d);
	return AeqInit(&d->hw.waiting, AeCancelled, d);
}

static NTSTATUS HwStart(AE_DEV *d, PCM_RESOURCE_LIST trans)
{
	AE_HW *hw = &d->hw;
	NTSTATUS s;

	hw->regs = AeMap(trans, 0, PLX_LENGTH);
	if (hw->regs == NULL)
		return STATUS_INSUFFICIENT_RESOURCES;
	AeW(hw->regs, PLX_INTCSR, INT_BASE);
	hw->on = FALSE;
	s = AeConnect(d, trans, Isr, &hw->intr);
	if (!NT_SUCCESS(s)) {
		MmUnmapIoSpace(hw->regs, PLX_LENGTH);
		hw->regs = NULL;
	}
	return s;
}

static void HwRelease(AE_DEV *d)
{
	AE_HW *hw = &d->hw;

	IoDisconnectInterrupt(hw->intr);
	KeFlushQueuedDpcs();
	hw->intr = NULL;
	MmUnmapIoSpace(hw->regs, PLX_LENGTH);
	hw->regs = NULL;
}

static void HwPowerUp(AE_DEV *d)
{
	KeSynchronizeExecution(d->hw.intr, SyncOn, &d->hw);
}

static void HwPowerDown(AE_DEV *d)
{
	KeSynchronizeExecution(d->hw.intr, SyncOff, &d->hw);
}

static NTSTATUS HwRequest(AE_DEV *d, PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info)
{
	AE_HW *hw = &d->hw;
	PULONG buffer = irp->AssociatedIrp.SystemBuffer;
	ULONG v;

	switch (sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_AWAIT_ALARM:
		AeqPut(&hw->waiting, irp);
		KeSynchronizeExecution(hw->intr, SyncArm, hw);
		return STATUS_PENDING;

	case IOCTL_IS_ALARM:
		if (sp->Parameters.DeviceIoControl.OutputBufferLength < 2 * sizeof(ULONG))
			return STATUS_BUFFER_TOO_SMALL;
		v = AeR(hw->regs, PLX_INTCSR);
		if (v == PLX_ABSENT)
			return STATUS_DEVICE_NOT_CONNECTED;
		buffer[0] = (v & INT_1_ACTIVE) != 0;
		buffer[1] = (ULONG)hw->alarms;
		*info = 2 * sizeof(ULONG);
		return STATUS_SUCCESS;
	}
	return STATUS_INVALID_DEVICE_REQUEST;
}

static void HwPurge(AE_DEV *d, PFILE_OBJECT file, NTSTATUS status)
{
	AeFail(d, &d->hw.waiting, file, status);
}

/*
 * plxbrim: programs wait for either of the two interrupt lines of a PLX 9050 board. A line is enabled when a program
 * waits for it, and the interrupt routine disables it again (it is level-triggered) when it has fired.
 *
 * The bug: a waiter enables its line by reading and writing the interrupt register under a spin lock that the
 * interrupt routine does not take; each may write back the other's old value, and a line that a program waits for is
 * left disabled for good.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: register-update-race, data-race, request-forgotten
 * Needs: ioctl, schedule, device
 */
#include <ddk/wdm.h>
#include "../include/loft_queue.h"

#define IOCTL_AWAIT_LINE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS)

#define LINES 2

typedef struct AE_HW {
	PUCHAR regs;
	PKINTERRUPT intr;
	KDPC dpc;
	BOOLEAN on;		/* these three and INTCSR are the interrupt routine's */
	ULONG armed;
	ULONG fired;		/* not yet seen by the DPC */
	KSPIN_LOCK lock;	/* guards the counts */
	ULONG count[LINES];
	AEQ waiting[LINES];
} AE_HW;

#include "../include/loft_frame.h"
#include "../include/loft_plx.h"

static const ULONG Enable[LINES] = { INT_1_ENABLE, INT_2_ENABLE };
static const ULONG Active[LINES] = { INT_1_ACTIVE, INT_2_ACTIVE };

static BOOLEAN NTAPI Isr(PKINTERRUPT intr, PVOID context)
{
	AE_HW *hw = &((AE_DEV *)context)->hw;
	ULONG v, i, hit = 0;

	UNREFERENCED_PARAMETER(intr);
	if (!hw->on)
		return FALSE;
	v = AeR(hw->regs, PLX_INTCSR);
	if (v == PLX_ABSENT || !(v & INT_PCI))
		return FALSE;
	for (i = 0; i < LINES; i++)
		if ((v & Enable[i]) && (v & Active[i])) {
			hit |= 1 << i;
			v &= ~Enable[i];
		}
	if (hit == 0)
		return FALSE;
	AeW(hw->regs, PLX_INTCSR, v);
	hw->armed &= ~hit;
	hw->fired |= hit;
	KeInsertQueueDpc(&hw->dpc, NULL, NULL);
	return TRUE;
}

/* ---- with the interrupt routine kept out ---- */

typedef struct SYNC {
	AE_HW *hw;
	ULONG lines;
} SYNC;

static BOOLEAN NTAPI SyncTake(PVOID context)
{
	SYNC *y = context;

	y->lines = y->hw->fired;
	y->hw->fired = 0;
	return TRUE;
}

static BOOLEAN NTAPI SyncArm(PVOID context)
{
	SYNC *y = context;
	AE_HW *hw = y->hw;
	ULONG i, v;

	hw->armed |= y->lines;
	if (hw->on) {
		v = AeR(hw->regs, PLX_INTCSR);
		if (v != PLX_ABSENT) {
			for (i = 0; i < LINES; i++)
				if (y->lines & (1 << i))
					v |= Enable[i];
			AeW(hw->regs, PLX_INTCSR, v);
		}
	}
	return TRUE;
}

static BOOLEAN NTAPI SyncOn(PVOID context)
{
	AE_HW *hw = context;
	ULONG i, v = INT_BASE | INT_PCI;

	for (i = 0; i < LINES; i++)
		if (hw->armed & (1 << i))
			v |= Enable[i];
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
	AE_HW *hw = &d->hw;
	SYNC y = { hw, 0 };
	ULONG i;

	UNREFERENCED_PARAMETER(dpc);
	UNREFERENCED_PARAMETER(a);
	UNREFERENCED_PARAMETER(b);
	KeSynchronizeExecution(hw->intr, SyncTake, &y);
	KeAcquireSpinLockAtDpcLevel(&hw->lock);
	for (i = 0; i < LINES; i++)
		if (y.lines & (1 << i))
			hw->count[i]++;
	KeReleaseSpinLockFromDpcLevel(&hw->lock);
	for (i = 0; i < LINES; i++)
		if (y.lines & (1 << i))
			AeFail(d, &hw->waiting[i], NULL, STATUS_SUCCESS);
}

static NTSTATUS HwAdd(AE_DEV *d)
{
	AE_HW *hw = &d->hw;
	NTSTATUS s;

	KeInitializeSpinLock(&hw->lock);
	KeInitializeDpc(&hw->dpc, Dpc, d);
	s = AeqInit(&hw->waiting[0], AeCancelled, d);
	if (NT_SUCCESS(s))
		s = AeqInit(&hw->waiting[1], AeCancelled, d);
	return s;
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

	/* the interrupt routine queues no DPC any more, and the DPC uses the interrupt object */
	KeFlushQueuedDpcs();
	IoDisconnectInterrupt(hw->intr);
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
	SYNC y = { hw, 0 };
	KIRQL irql;
	ULONG line;

	switch (sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_AWAIT_LINE:
		if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
			return STATUS_BUFFER_TOO_SMALL;
		line = buffer[0];
		if (line >= LINES)
			return STATUS_INVALID_PARAMETER;
		y.lines = 1 << line;
		AeqPut(&hw->waiting[line], irp);
#ifndef FIXED
		KeAcquireSpinLock(&hw->lock, &irql);
		SyncArm(&y);
		KeReleaseSpinLock(&hw->lock, irql);
#else
		KeSynchronizeExecution(hw->intr, SyncArm, &y);
#endif
		return STATUS_PENDING;

	case IOCTL_COUNTS:
		if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof hw->count)
			return STATUS_BUFFER_TOO_SMALL;
		KeAcquireSpinLock(&hw->lock, &irql);
		buffer[0] = hw->count[0];
		buffer[1] = hw->count[1];
		KeReleaseSpinLock(&hw->lock, irql);
		*info = sizeof hw->count;
		return STATUS_SUCCESS;
	}
	return STATUS_INVALID_DEVICE_REQUEST;
}

static void HwPurge(AE_DEV *d, PFILE_OBJECT file, NTSTATUS status)
{
	AeFail(d, &d->hw.waiting[0], file, status);
	AeFail(d, &d->hw.waiting[1], file, status);
}

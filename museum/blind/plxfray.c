/*
 * plxfray: keeps a log of the alarms on the first interrupt line of a PLX 9050 board, with their times. The line is
 * watched from the start on; after an alarm it is watched again when the program says so.
 *
 * The bug: the line is enabled before the memory of the log is got; if there is none, the start fails and the
 * interrupt is disconnected with the board still enabled, so that an alarm keeps the shared line up with no one to
 * take it down.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: interrupt-storm
 * Needs: failure, device
 */
#include <ddk/wdm.h>

#define IOCTL_REARM CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_READ_LOG CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS)

#define LOG_LENGTH 64

typedef struct AE_HW {
	PUCHAR regs;
	PKINTERRUPT intr;
	KDPC dpc;
	BOOLEAN on;		/* these two and INTCSR are the interrupt routine's */
	BOOLEAN watching;
	KSPIN_LOCK lock;	/* guards the log */
	ULONG count;
	LONGLONG *log;
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
	hw->watching = FALSE;
	KeInsertQueueDpc(&hw->dpc, NULL, NULL);
	return TRUE;
}

/* ---- with the interrupt routine kept out ---- */

static BOOLEAN NTAPI SyncWatch(PVOID context)
{
	AE_HW *hw = context;

	hw->watching = TRUE;
	AeW(hw->regs, PLX_INTCSR, INT_BASE | INT_PCI | INT_1_ENABLE);
	return TRUE;
}

static BOOLEAN NTAPI SyncOn(PVOID context)
{
	AE_HW *hw = context;

	hw->on = TRUE;
	AeW(hw->regs, PLX_INTCSR, INT_BASE | INT_PCI | (hw->watching ? INT_1_ENABLE : 0));
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
	AE_HW *hw = &((AE_DEV *)context)->hw;
	LARGE_INTEGER now = KeQueryPerformanceCounter(NULL);

	UNREFERENCED_PARAMETER(dpc);
	UNREFERENCED_PARAMETER(a);
	UNREFERENCED_PARAMETER(b);
	KeAcquireSpinLockAtDpcLevel(&hw->lock);
	if (hw->log != NULL && hw->count < LOG_LENGTH)
		hw->log[hw->count++] = now.QuadPart;
	KeReleaseSpinLockFromDpcLevel(&hw->lock);
}

static NTSTATUS HwAdd(AE_DEV *d)
{
	AE_HW *hw = &d->hw;

	KeInitializeSpinLock(&hw->lock);
	KeInitializeDpc(&hw->dpc, Dpc, d);
	hw->watching = TRUE;
	return STATUS_SUCCESS;
}

static void HwRelease(AE_DEV *d)
{
	AE_HW *hw = &d->hw;

	IoDisconnectInterrupt(hw->intr);
	KeFlushQueuedDpcs();
	hw->intr = NULL;
	MmUnmapIoSpace(hw->regs, PLX_LENGTH);
	hw->regs = NULL;
	if (hw->log != NULL)
		ExFreePoolWithTag(hw->log, AE_TAG);
	hw->log = NULL;
	hw->count = 0;
}

static NTSTATUS HwStart(AE_DEV *d, PCM_RESOURCE_LIST trans)
{
	AE_HW *hw = &d->hw;
	LONGLONG *log;
	NTSTATUS s;
	KIRQL irql;

	hw->regs = AeMap(trans, 0, PLX_LENGTH);
	if (hw->regs == NULL)
		return STATUS_INSUFFICIENT_RESOURCES;
	AeW(hw->regs, PLX_INTCSR, INT_BASE);
	hw->on = FALSE;
	s = AeConnect(d, trans, Isr, &hw->intr);
	if (!NT_SUCCESS(s)) {
		MmUnmapIoSpace(hw->regs, PLX_LENGTH);
		hw->regs = NULL;
		return s;
	}
	KeSynchronizeExecution(hw->intr, SyncOn, hw);
	log = ExAllocatePoolWithTag(NonPagedPool, LOG_LENGTH * sizeof *log, AE_TAG);
	if (log == NULL) {
#ifndef FIXED
#else
		KeSynchronizeExecution(hw->intr, SyncOff, hw);
#endif
		HwRelease(d);
		return STATUS_INSUFFICIENT_RESOURCES;
	}
	KeAcquireSpinLock(&hw->lock, &irql);
	hw->log = log;
	KeReleaseSpinLock(&hw->lock, irql);
	return STATUS_SUCCESS;
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
	KIRQL irql;
	ULONG n;

	switch (sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_REARM:
		KeSynchronizeExecution(hw->intr, SyncWatch, hw);
		return STATUS_SUCCESS;

	case IOCTL_READ_LOG:
		n = sp->Parameters.DeviceIoControl.OutputBufferLength / sizeof(LONGLONG);
		KeAcquireSpinLock(&hw->lock, &irql);
		if (n > hw->count)
			n = hw->count;
		if (n != 0) {
			RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, hw->log, n * sizeof(LONGLONG));
			hw->count -= n;
			RtlMoveMemory(hw->log, hw->log + n, hw->count * sizeof(LONGLONG));
		}
		KeReleaseSpinLock(&hw->lock, irql);
		*info = n * sizeof(LONGLONG);
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

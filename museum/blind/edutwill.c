/*
 * edutwill: computes factorials on QEMU's edu device; requests wait in a queue, the device has one at a time, and a
 * timer ends one that takes more than a second.
 *
 * The bug: the timer looks at the current request without taking it under the lock; if the device's interrupt comes
 * at the same moment, both complete the same request.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: double-completion, use-after-free
 * Needs: ioctl, device, schedule
 */
#include <ddk/wdm.h>
#include "../include/loft_queue.h"

#define IOCTL_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_READ_ACCESS | FILE_WRITE_ACCESS)

#define LIMIT_MS 1000

typedef struct AE_HW {
	PUCHAR regs;
	PKINTERRUPT intr;
	KDPC dpc;
	BOOLEAN on;		/* the interrupt routine's */
	AEQ queue;
	KSPIN_LOCK lock;	/* guards from here on */
	BOOLEAN paused;		/* none may be started */
	BOOLEAN busy;		/* one is current, or its end is not yet through */
	PIRP current;
	KTIMER timer;		/* runs, or its DPC is on its way, only while busy */
	KDPC late;
	KEVENT quiet;		/* set while not busy */
} AE_HW;

#include "../include/loft_frame.h"
#include "../include/loft_edu.h"

static BOOLEAN NTAPI Isr(PKINTERRUPT intr, PVOID context)
{
	AE_HW *hw = &((AE_DEV *)context)->hw;
	ULONG v;

	UNREFERENCED_PARAMETER(intr);
	if (!hw->on)
		return FALSE;
	v = AeR(hw->regs, EDU_INT_STATUS);
	if (v == 0 || v == EDU_ABSENT)
		return FALSE;
	AeW(hw->regs, EDU_INT_ACK, v);
	KeInsertQueueDpc(&hw->dpc, NULL, NULL);
	return TRUE;
}

/* ---- with the interrupt routine kept out ---- */

static BOOLEAN NTAPI SyncOn(PVOID context)
{
	AE_HW *hw = context;

	hw->on = TRUE;
	AeW(hw->regs, EDU_STATUS, EDU_FACT_INT);
	return TRUE;
}

static BOOLEAN NTAPI SyncOff(PVOID context)
{
	AE_HW *hw = context;
	ULONG v;

	AeW(hw->regs, EDU_STATUS, 0);
	v = AeR(hw->regs, EDU_INT_STATUS);
	if (v != 0 && v != EDU_ABSENT)
		AeW(hw->regs, EDU_INT_ACK, v);
	hw->on = FALSE;
	return TRUE;
}

/* ---- */

/* gives the next request to the device if it has none; one that the device cannot take is ended here */
static void StartNext(AE_DEV *d)
{
	AE_HW *hw = &d->hw;
	LARGE_INTEGER due;
	NTSTATUS s;
	KIRQL irql;
	PIRP irp;
	ULONG v;

	for (;;) {
		s = STATUS_SUCCESS;
		KeAcquireSpinLock(&hw->lock, &irql);
		irp = hw->paused || hw->busy ? NULL : AeqNext(&hw->queue, NULL);
		if (irp != NULL) {
			v = AeR(hw->regs, EDU_STATUS);
			if (v == EDU_ABSENT)
				s = STATUS_DEVICE_NOT_CONNECTED;
			else if (v & EDU_BUSY)
				s = STATUS_DEVICE_BUSY;		/* still at one that was late */
			else {
				hw->busy = TRUE;
				hw->current = irp;
				KeClearEvent(&hw->quiet);
				due.QuadPart = -10000LL * LIMIT_MS;
				KeSetTimer(&hw->timer, due, &hw->late);
				AeW(hw->regs, EDU_FACT, *(PULONG)irp->AssociatedIrp.SystemBuffer);
			}
		}
		KeReleaseSpinLock(&hw->lock, irql);
		if (irp == NULL || NT_SUCCESS(s))
			return;
		AeComplete(d, irp, s, 0);
	}
}

/* the current request is done with, and no timer is on its way */
static void Over(AE_DEV *d)
{
	AE_HW *hw = &d->hw;
	KIRQL irql;

	KeAcquireSpinLock(&hw->lock, &irql);
	hw->busy = FALSE;
	KeSetEvent(&hw->quiet, IO_NO_INCREMENT, FALSE);
	KeReleaseSpinLock(&hw->lock, irql);
	StartNext(d);
}

static VOID NTAPI Dpc(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
	AE_DEV *d = context;
	AE_HW *hw = &d->hw;
	BOOLEAN noTimer = FALSE;
	PIRP irp = NULL;
	ULONG v, result = 0;

	UNREFERENCED_PARAMETER(dpc);
	UNREFERENCED_PARAMETER(a);
	UNREFERENCED_PARAMETER(b);
	KeAcquireSpinLockAtDpcLevel(&hw->lock);
	if (hw->current != NULL) {
		v = AeR(hw->regs, EDU_STATUS);
		if (v != EDU_ABSENT && !(v & EDU_BUSY)) {
			result = AeR(hw->regs, EDU_FACT);
			irp = hw->current;
			hw->current = NULL;
			/* if it cannot be called off, its DPC goes on from here */
			noTimer = KeCancelTimer(&hw->timer);
		}
	}
	KeReleaseSpinLockFromDpcLevel(&hw->lock);
	if (irp == NULL)
		return;
	*(PULONG)irp->AssociatedIrp.SystemBuffer = result;
	AeComplete(d, irp, STATUS_SUCCESS, sizeof(ULONG));
	if (noTimer)
		Over(d);
}

static VOID NTAPI Late(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
	AE_DEV *d = context;
	AE_HW *hw = &d->hw;
	PIRP irp;

	UNREFERENCED_PARAMETER(dpc);
	UNREFERENCED_PARAMETER(a);
	UNREFERENCED_PARAMETER(b);
#ifndef FIXED
	irp = hw->current;
	if (irp != NULL)
		AeComplete(d, irp, STATUS_IO_TIMEOUT, 0);
	KeAcquireSpinLockAtDpcLevel(&hw->lock);
	hw->current = NULL;
	KeReleaseSpinLockFromDpcLevel(&hw->lock);
#else
	KeAcquireSpinLockAtDpcLevel(&hw->lock);
	irp = hw->current;
	hw->current = NULL;
	KeReleaseSpinLockFromDpcLevel(&hw->lock);
	if (irp != NULL)
		AeComplete(d, irp, STATUS_IO_TIMEOUT, 0);
#endif
	Over(d);
}

static NTSTATUS HwAdd(AE_DEV *d)
{
	AE_HW *hw = &d->hw;

	KeInitializeSpinLock(&hw->lock);
	KeInitializeDpc(&hw->dpc, Dpc, d);
	KeInitializeDpc(&hw->late, Late, d);
	KeInitializeTimer(&hw->timer);
	KeInitializeEvent(&hw->quiet, NotificationEvent, TRUE);
	hw->paused = TRUE;
	return AeqInit(&hw->queue, AeCancelled, d);
}

static NTSTATUS HwStart(AE_DEV *d, PCM_RESOURCE_LIST trans)
{
	AE_HW *hw = &d->hw;
	NTSTATUS s;

	s = EduMap(trans, &hw->regs);
	if (!NT_SUCCESS(s))
		return s;
	hw->on = FALSE;
	SyncOff(hw);
	s = AeConnect(d, trans, Isr, &hw->intr);
	if (!NT_SUCCESS(s)) {
		MmUnmapIoSpace(hw->regs, EDU_MAPPED);
		hw->regs = NULL;
	}
	return s;
}

/* powered down before, so nothing is current and no timer on its way */
static void HwRelease(AE_DEV *d)
{
	AE_HW *hw = &d->hw;

	IoDisconnectInterrupt(hw->intr);
	KeFlushQueuedDpcs();
	hw->intr = NULL;
	MmUnmapIoSpace(hw->regs, EDU_MAPPED);
	hw->regs = NULL;
}

static void HwPowerUp(AE_DEV *d)
{
	AE_HW *hw = &d->hw;
	KIRQL irql;

	KeSynchronizeExecution(hw->intr, SyncOn, hw);
	KeAcquireSpinLock(&hw->lock, &irql);
	hw->paused = FALSE;
	KeReleaseSpinLock(&hw->lock, irql);
	StartNext(d);
}

static void HwPowerDown(AE_DEV *d)
{
	AE_HW *hw = &d->hw;
	KIRQL irql;

	KeAcquireSpinLock(&hw->lock, &irql);
	hw->paused = TRUE;
	KeReleaseSpinLock(&hw->lock, irql);
	/* the current one ends by the device or the timer */
	KeWaitForSingleObject(&hw->quiet, Executive, KernelMode, FALSE, NULL);
	KeSynchronizeExecution(hw->intr, SyncOff, hw);
}

static NTSTATUS HwRequest(AE_DEV *d, PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info)
{
	UNREFERENCED_PARAMETER(info);
	if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_FACTORIAL)
		return STATUS_INVALID_DEVICE_REQUEST;
	if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG)
	 || sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
		return STATUS_BUFFER_TOO_SMALL;
	AeqPut(&d->hw.queue, irp);
	StartNext(d);
	return STATUS_PENDING;
}

static void HwPurge(AE_DEV *d, PFILE_OBJECT file, NTSTATUS status)
{
	AeFail(d, &d->hw.queue, file, status);
}

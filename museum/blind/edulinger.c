/*
 * edulinger: computes factorials on QEMU's edu device, one at a time; the thread of the request waits for the
 * interrupt, for a second at most.
 *
 * The bug: a request that has waited in vain returns without withdrawing the address of its event, which lies on its
 * stack; the interrupt that comes later sets an event that is not there any more.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: event-on-dead-stack
 * Needs: ioctl, device
 */
#include <ddk/wdm.h>

#define IOCTL_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_READ_ACCESS | FILE_WRITE_ACCESS)

#define STEP_MS 100
#define STEPS 10

typedef struct AE_HW {
	PUCHAR regs;
	PKINTERRUPT intr;
	KDPC dpc;
	BOOLEAN on;		/* the interrupt routine's */
	FAST_MUTEX one;		/* one computation at a time */
	KSPIN_LOCK lock;	/* guards the waiter */
	PRKEVENT waiter;
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

static VOID NTAPI Dpc(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
	AE_HW *hw = &((AE_DEV *)context)->hw;

	UNREFERENCED_PARAMETER(dpc);
	UNREFERENCED_PARAMETER(a);
	UNREFERENCED_PARAMETER(b);
	KeAcquireSpinLockAtDpcLevel(&hw->lock);
	if (hw->waiter != NULL)
		KeSetEvent(hw->waiter, IO_NO_INCREMENT, FALSE);
	KeReleaseSpinLockFromDpcLevel(&hw->lock);
}

static NTSTATUS HwAdd(AE_DEV *d)
{
	AE_HW *hw = &d->hw;

	KeInitializeSpinLock(&hw->lock);
	ExInitializeFastMutex(&hw->one);
	KeInitializeDpc(&hw->dpc, Dpc, d);
	return STATUS_SUCCESS;
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
	KeSynchronizeExecution(d->hw.intr, SyncOn, &d->hw);
}

static void HwPowerDown(AE_DEV *d)
{
	KeSynchronizeExecution(d->hw.intr, SyncOff, &d->hw);
}

static NTSTATUS Factorial(AE_HW *hw, ULONG n, PULONG result)
{
	NTSTATUS s = STATUS_IO_TIMEOUT;
	LARGE_INTEGER limit;
	KEVENT event;
	KIRQL irql;
	ULONG i, v;

	v = AeR(hw->regs, EDU_STATUS);
	if (v == EDU_ABSENT)
		return STATUS_DEVICE_NOT_CONNECTED;
	if (v & EDU_BUSY)
		return STATUS_DEVICE_BUSY;	/* still at one that was given up */
	KeInitializeEvent(&event, SynchronizationEvent, FALSE);
	KeAcquireSpinLock(&hw->lock, &irql);
	hw->waiter = &event;
	KeReleaseSpinLock(&hw->lock, irql);
	AeW(hw->regs, EDU_FACT, n);
	limit.QuadPart = -10000LL * STEP_MS;
	for (i = 0; i < STEPS; i++) {
		KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, &limit);
		v = AeR(hw->regs, EDU_STATUS);
		if (v == EDU_ABSENT) {
			s = STATUS_DEVICE_NOT_CONNECTED;
			break;
		}
		if (!(v & EDU_BUSY)) {
			*result = AeR(hw->regs, EDU_FACT);
			s = STATUS_SUCCESS;
			break;
		}
	}
#ifndef FIXED
	if (s == STATUS_IO_TIMEOUT)
		return s;
#else
#endif
	/* once we have had the lock, the DPC does not know the event any more */
	KeAcquireSpinLock(&hw->lock, &irql);
	hw->waiter = NULL;
	KeReleaseSpinLock(&hw->lock, irql);
	return s;
}

static NTSTATUS HwRequest(AE_DEV *d, PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info)
{
	AE_HW *hw = &d->hw;
	PULONG buffer = irp->AssociatedIrp.SystemBuffer;
	ULONG result = 0;
	NTSTATUS s;

	if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_FACTORIAL)
		return STATUS_INVALID_DEVICE_REQUEST;
	if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG)
	 || sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
		return STATUS_BUFFER_TOO_SMALL;
	ExAcquireFastMutex(&hw->one);
	s = Factorial(hw, buffer[0], &result);
	ExReleaseFastMutex(&hw->one);
	if (NT_SUCCESS(s)) {
		buffer[0] = result;
		*info = sizeof(ULONG);
	}
	return s;
}

static void HwPurge(AE_DEV *d, PFILE_OBJECT file, NTSTATUS status)
{
	UNREFERENCED_PARAMETER(d);
	UNREFERENCED_PARAMETER(file);
	UNREFERENCED_PARAMETER(status);
}

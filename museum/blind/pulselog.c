/*
 * pulselog: counts the pulses of an invented counter card; a thread of the driver adds up what the interrupts bring
 * and ends the requests that wait for a change.
 * The card, BAR0, 4 KiB of memory, 32-bit registers: 0x00 id (0x50554C53); 0x04 interrupt enable (bit 0); 0x08 interrupt
 * status (bit 0; write 1 to clear); 0x0C pulses since it was last read, 16 bits.
 *
 * The bug: when the device goes, the driver waits for an event that the thread sets before it ends, not for the thread;
 * the thread may still be about to run its last instructions when the driver is unloaded.
 *
 * Device: PCI\VEN_1DA7&DEV_0103
 * Rule: unload-still-called
 * Needs: removal, schedule
 */
#include <ddk/wdm.h>
#include "../include/loft_queue.h"

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE handle, BOOLEAN alertable, PLARGE_INTEGER timeout);

#define IOCTL_AWAIT_CHANGE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_TOTAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS)

#define BAR_LENGTH 0x1000
#define REG_ID 0x00
#define ID_VALUE 0x50554C53
#define REG_ENABLE 0x04
#define REG_STATUS 0x08
#define REG_PULSES 0x0C
#define BIT_PULSE 1
#define ABSENT 0xFFFFFFFF

typedef struct AE_HW {
	PUCHAR regs;
	PKINTERRUPT intr;
	KDPC dpc;
	BOOLEAN on;		/* these two are the interrupt routine's */
	ULONG fresh;		/* pulses not yet added up */
	KEVENT work;		/* for the thread: there are some, or it is to end */
	KEVENT ended;
	BOOLEAN stop;		/* written before the event is set */
	PVOID thread;
	KSPIN_LOCK lock;	/* guards the total */
	ULONGLONG total;
	AEQ waiting;
} AE_HW;

#include "../include/loft_frame.h"

static BOOLEAN NTAPI Isr(PKINTERRUPT intr, PVOID context)
{
	AE_HW *hw = &((AE_DEV *)context)->hw;
	ULONG v;

	UNREFERENCED_PARAMETER(intr);
	if (!hw->on)
		return FALSE;
	v = AeR(hw->regs, REG_STATUS);
	if (v == ABSENT || !(v & BIT_PULSE))
		return FALSE;
	AeW(hw->regs, REG_STATUS, BIT_PULSE);
	v = AeR(hw->regs, REG_PULSES);
	if (v != ABSENT)
		hw->fresh += v & 0xFFFF;
	KeInsertQueueDpc(&hw->dpc, NULL, NULL);
	return TRUE;
}

/* ---- with the interrupt routine kept out ---- */

typedef struct TAKE {
	AE_HW *hw;
	ULONG pulses;
} TAKE;

static BOOLEAN NTAPI SyncTake(PVOID context)
{
	TAKE *t = context;

	t->pulses = t->hw->fresh;
	t->hw->fresh = 0;
	return TRUE;
}

static BOOLEAN NTAPI SyncOn(PVOID context)
{
	AE_HW *hw = context;

	AeW(hw->regs, REG_STATUS, BIT_PULSE);
	hw->on = TRUE;
	AeW(hw->regs, REG_ENABLE, BIT_PULSE);
	return TRUE;
}

static BOOLEAN NTAPI SyncOff(PVOID context)
{
	AE_HW *hw = context;

	AeW(hw->regs, REG_ENABLE, 0);
	AeW(hw->regs, REG_STATUS, BIT_PULSE);
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
	KeSetEvent(&hw->work, IO_NO_INCREMENT, FALSE);
}

static VOID NTAPI Thread(PVOID context)
{
	AE_DEV *d = context;
	AE_HW *hw = &d->hw;
	ULONGLONG total;
	TAKE t;
	KIRQL irql;
	PIRP irp;

	for (;;) {
		KeWaitForSingleObject(&hw->work, Executive, KernelMode, FALSE, NULL);
		if (hw->stop)
			break;
		t.hw = hw;
		KeSynchronizeExecution(hw->intr, SyncTake, &t);
		if (t.pulses == 0)
			continue;
		KeAcquireSpinLock(&hw->lock, &irql);
		total = hw->total += t.pulses;
		KeReleaseSpinLock(&hw->lock, irql);
		while ((irp = AeqNext(&hw->waiting, NULL)) != NULL) {
			*(ULONGLONG *)irp->AssociatedIrp.SystemBuffer = total;
			AeComplete(d, irp, STATUS_SUCCESS, sizeof total);
		}
	}
	KeSetEvent(&hw->ended, IO_NO_INCREMENT, FALSE);
	PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS StartThread(AE_DEV *d)
{
	AE_HW *hw = &d->hw;
	OBJECT_ATTRIBUTES oa;
	HANDLE handle;
	NTSTATUS s;

	hw->stop = FALSE;
	KeInitializeEvent(&hw->work, SynchronizationEvent, FALSE);
	KeInitializeEvent(&hw->ended, NotificationEvent, FALSE);
	InitializeObjectAttributes(&oa, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
	s = PsCreateSystemThread(&handle, THREAD_ALL_ACCESS, &oa, NULL, NULL, Thread, d);
	if (!NT_SUCCESS(s))
		return s;
	s = ObReferenceObjectByHandle(handle, SYNCHRONIZE, NULL, KernelMode, &hw->thread, NULL);
	if (!NT_SUCCESS(s)) {
		hw->stop = TRUE;
		KeSetEvent(&hw->work, IO_NO_INCREMENT, FALSE);
		ZwWaitForSingleObject(handle, FALSE, NULL);
	}
	ZwClose(handle);
	return s;
}

static NTSTATUS HwAdd(AE_DEV *d)
{
	AE_HW *hw = &d->hw;

	KeInitializeSpinLock(&hw->lock);
	KeInitializeDpc(&hw->dpc, Dpc, d);
	return AeqInit(&hw->waiting, AeCancelled, d);
}

static NTSTATUS HwStart(AE_DEV *d, PCM_RESOURCE_LIST trans)
{
	AE_HW *hw = &d->hw;
	NTSTATUS s;

	hw->regs = AeMap(trans, 0, BAR_LENGTH);
	if (hw->regs == NULL)
		return STATUS_INSUFFICIENT_RESOURCES;
	if (AeR(hw->regs, REG_ID) != ID_VALUE) {
		s = STATUS_NO_SUCH_DEVICE;
		goto noCard;
	}
	hw->fresh = 0;
	SyncOff(hw);
	s = AeConnect(d, trans, Isr, &hw->intr);
	if (!NT_SUCCESS(s))
		goto noCard;
	s = StartThread(d);
	if (NT_SUCCESS(s))
		return s;
	IoDisconnectInterrupt(hw->intr);
	hw->intr = NULL;
noCard:
	MmUnmapIoSpace(hw->regs, BAR_LENGTH);
	hw->regs = NULL;
	return s;
}

/* powered down before: the interrupt routine does nothing any more */
static void HwRelease(AE_DEV *d)
{
	AE_HW *hw = &d->hw;

	KeFlushQueuedDpcs();
	hw->stop = TRUE;
	KeSetEvent(&hw->work, IO_NO_INCREMENT, FALSE);
#ifndef FIXED
	KeWaitForSingleObject(&hw->ended, Executive, KernelMode, FALSE, NULL);
#else
	KeWaitForSingleObject(hw->thread, Executive, KernelMode, FALSE, NULL);
#endif
	ObDereferenceObject(hw->thread);
	hw->thread = NULL;
	IoDisconnectInterrupt(hw->intr);
	hw->intr = NULL;
	MmUnmapIoSpace(hw->regs, BAR_LENGTH);
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
	ULONG code = sp->Parameters.DeviceIoControl.IoControlCode;
	ULONGLONG total;
	KIRQL irql;

	if (code != IOCTL_AWAIT_CHANGE && code != IOCTL_TOTAL)
		return STATUS_INVALID_DEVICE_REQUEST;
	if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof total)
		return STATUS_BUFFER_TOO_SMALL;
	if (code == IOCTL_AWAIT_CHANGE) {
		AeqPut(&hw->waiting, irp);
		return STATUS_PENDING;
	}
	KeAcquireSpinLock(&hw->lock, &irql);
	total = hw->total;
	KeReleaseSpinLock(&hw->lock, irql);
	*(ULONGLONG *)irp->AssociatedIrp.SystemBuffer = total;
	*info = sizeof total;
	return STATUS_SUCCESS;
}

static void HwPurge(AE_DEV *d, PFILE_OBJECT file, NTSTATUS status)
{
	AeFail(d, &d->hw.waiting, file, status);
}

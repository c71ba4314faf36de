/*
 * plxlull: a request waits in its thread, for half a second at most, for the first interrupt line of a PLX 9050
 * board, and says whether it came.
 *
 * The bug: the thread waits in user mode on an event on its kernel stack; such a wait lets the stack be paged out, and
 * the DPC that sets the event and the mark beside it touches memory that is not there.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: user-wait-on-stack
 * Needs: ioctl, device
 */
#include <ddk/wdm.h>

#define IOCTL_WATCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_READ_ACCESS)

#define LIMIT_MS 500

typedef struct WATCHER {
	LIST_ENTRY link;
	BOOLEAN came;		/* .. and it is out of the list */
	KEVENT event;
} WATCHER;

typedef struct AE_HW {
	PUCHAR regs;
	PKINTERRUPT intr;
	KDPC dpc;
	BOOLEAN on;		/* this and INTCSR are the interrupt routine's */
	KSPIN_LOCK lock;	/* guards the list */
	LIST_ENTRY watchers;
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
	KeInsertQueueDpc(&hw->dpc, NULL, NULL);
	return TRUE;
}

/* ---- with the interrupt routine kept out ---- */

static BOOLEAN NTAPI SyncArm(PVOID context)
{
	AE_HW *hw = context;

	AeW(hw->regs, PLX_INTCSR, INT_BASE | INT_PCI | INT_1_ENABLE);
	return TRUE;
}

static BOOLEAN NTAPI SyncOn(PVOID context)
{
	AE_HW *hw = context;

	hw->on = TRUE;
	AeW(hw->regs, PLX_INTCSR, INT_BASE | INT_PCI);
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
	WATCHER *w;

	UNREFERENCED_PARAMETER(dpc);
	UNREFERENCED_PARAMETER(a);
	UNREFERENCED_PARAMETER(b);
	KeAcquireSpinLockAtDpcLevel(&hw->lock);
	while (!IsListEmpty(&hw->watchers)) {
		w = CONTAINING_RECORD(RemoveHeadList(&hw->watchers), WATCHER, link);
		w->came = TRUE;
		KeSetEvent(&w->event, IO_NO_INCREMENT, FALSE);
	}
	KeReleaseSpinLockFromDpcLevel(&hw->lock);
}

static NTSTATUS HwAdd(AE_DEV *d)
{
	AE_HW *hw = &d->hw;

	KeInitializeSpinLock(&hw->lock);
	InitializeListHead(&hw->watchers);
	KeInitializeDpc(&hw->dpc, Dpc, d);
	return STATUS_SUCCESS;
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
	KPROCESSOR_MODE mode;
	LARGE_INTEGER limit;
	WATCHER w;
	KIRQL irql;

	if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_WATCH)
		return STATUS_INVALID_DEVICE_REQUEST;
	if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
		return STATUS_BUFFER_TOO_SMALL;
	KeInitializeEvent(&w.event, NotificationEvent, FALSE);
	w.came = FALSE;
	KeAcquireSpinLock(&hw->lock, &irql);
	InsertTailList(&hw->watchers, &w.link);
	KeReleaseSpinLock(&hw->lock, irql);
	KeSynchronizeExecution(hw->intr, SyncArm, hw);
	limit.QuadPart = -10000LL * LIMIT_MS;
#ifndef FIXED
	mode = UserMode;
#else
	mode = KernelMode;
#endif
	KeWaitForSingleObject(&w.event, Executive, mode, FALSE, &limit);
	/* the DPC has done with it once we have the lock */
	KeAcquireSpinLock(&hw->lock, &irql);
	if (!w.came)
		RemoveEntryList(&w.link);
	KeReleaseSpinLock(&hw->lock, irql);
	*(PULONG)irp->AssociatedIrp.SystemBuffer = w.came;
	*info = sizeof(ULONG);
	return STATUS_SUCCESS;
}

static void HwPurge(AE_DEV *d, PFILE_OBJECT file, NTSTATUS status)
{
	UNREFERENCED_PARAMETER(d);
	UNREFERENCED_PARAMETER(file);
	UNREFERENCED_PARAMETER(status);
}

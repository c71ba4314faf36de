/*
 * ringmast: feeds an invented encoder card through a ring of eight descriptors in a common buffer; a request ends
 * when the card has taken its descriptor; a card that takes none for three seconds is reset.
 * The card, BAR0, 4 KiB of memory, 32-bit registers: 0x00 id (0x52494E47); 0x04 control (bit 0 run, bit 1 interrupt
 * when the tail moves, bit 31 reset: stops at once, indices 0); 0x08 and 0x0C address of the ring, low and high;
 * 0x10 head, written by the driver: the index after the last filled; 0x14 tail, read only: the index of the next that
 * the card takes; 0x18 interrupt status (bit 0; write 1 to clear). A descriptor: value, serial number, two words unused.
 *
 * The bug: the DPC retires descriptors until its own tail equals what the card says, without a look at that value;
 * when the card has been pulled (all ones) or is out of step, it goes round for ever, at DISPATCH_LEVEL.
 *
 * Device: PCI\VEN_1DA7&DEV_0101
 * Rule: livelock
 * Needs: ioctl, device, removal
 */
#include <ddk/wdm.h>
#include "../include/loft_queue.h"

#define IOCTL_ENCODE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define SLOTS 8			/* one stays empty */
#define PATIENCE 3		/* seconds */
#define DRAIN_POLLS 100		/* of five milliseconds and more */

#define BAR_LENGTH 0x1000
#define REG_ID 0x00
#define ID_VALUE 0x52494E47
#define REG_CONTROL 0x04
#define CONTROL_RUN 1
#define CONTROL_INT 2
#define CONTROL_RESET 0x80000000
#define REG_RING_LOW 0x08
#define REG_RING_HIGH 0x0C
#define REG_HEAD 0x10
#define REG_TAIL 0x14
#define REG_INT 0x18
#define INT_TAIL 1
#define ABSENT 0xFFFFFFFF

typedef struct DESCRIPTOR {
	ULONG value;
	ULONG serial;
	ULONG unused[2];
} DESCRIPTOR;

typedef struct AE_HW {
	PUCHAR regs;
	PKINTERRUPT intr;
	KDPC dpc;
	BOOLEAN on;			/* the interrupt routine's */
	PDMA_ADAPTER adapter;
	DESCRIPTOR *ring;
	PHYSICAL_ADDRESS ringAt;
	AEQ queue;			/* not yet given to the card */
	KSPIN_LOCK lock;		/* guards from here on */
	BOOLEAN running;		/* the card is set up */
	BOOLEAN paused;			/* it gets no more */
	ULONG head, tail;
	ULONG serial;
	PIRP slot[SLOTS];		/* from tail to head */
	ULONG idle;			/* seconds without a step of the card, while it has some */
	KTIMER timer;			/* once a second while powered */
	KDPC watch;
} AE_HW;

#include "../include/loft_frame.h"

static BOOLEAN NTAPI Isr(PKINTERRUPT intr, PVOID context)
{
	AE_HW *hw = &((AE_DEV *)context)->hw;
	ULONG v;

	UNREFERENCED_PARAMETER(intr);
	if (!hw->on)
		return FALSE;
	v = AeR(hw->regs, REG_INT);
	if (v == ABSENT || !(v & INT_TAIL))
		return FALSE;
	AeW(hw->regs, REG_INT, INT_TAIL);
	KeInsertQueueDpc(&hw->dpc, NULL, NULL);
	return TRUE;
}

/* ---- with the interrupt routine kept out ---- */

static BOOLEAN NTAPI SyncOn(PVOID context)
{
	AE_HW *hw = context;

	AeW(hw->regs, REG_RING_LOW, hw->ringAt.LowPart);
	AeW(hw->regs, REG_RING_HIGH, (ULONG)hw->ringAt.HighPart);
	AeW(hw->regs, REG_HEAD, 0);
	AeW(hw->regs, REG_INT, INT_TAIL);
	hw->on = TRUE;
	AeW(hw->regs, REG_CONTROL, CONTROL_RUN | CONTROL_INT);
	return TRUE;
}

static BOOLEAN NTAPI SyncOff(PVOID context)
{
	AE_HW *hw = context;

	hw->on = FALSE;
	AeW(hw->regs, REG_CONTROL, CONTROL_RESET);
	AeW(hw->regs, REG_INT, INT_TAIL);
	AeR(hw->regs, REG_CONTROL);		/* the writes have arrived */
	return TRUE;
}

/* ---- */

/* gives requests to the card while there is room; under the lock */
static void Fill(AE_HW *hw)
{
	ULONG next;
	PIRP irp;

	while (hw->running && !hw->paused && (next = (hw->head + 1) % SLOTS) != hw->tail && (irp = AeqNext(&hw->queue, NULL)) != NULL) {
		hw->slot[hw->head] = irp;
		hw->ring[hw->head].value = *(PULONG)irp->AssociatedIrp.SystemBuffer;
		hw->ring[hw->head].serial = ++hw->serial;
		hw->head = next;
		__sync_synchronize();
		AeW(hw->regs, REG_HEAD, next);
	}
}

static void FillNow(AE_HW *hw)
{
	KIRQL irql;

	KeAcquireSpinLock(&hw->lock, &irql);
	Fill(hw);
	KeReleaseSpinLock(&hw->lock, irql);
}

static VOID NTAPI Dpc(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
	AE_DEV *d = context;
	AE_HW *hw = &d->hw;
	PIRP done[SLOTS];
	ULONG upTo, n = 0, i;

	UNREFERENCED_PARAMETER(dpc);
	UNREFERENCED_PARAMETER(a);
	UNREFERENCED_PARAMETER(b);
	KeAcquireSpinLockAtDpcLevel(&hw->lock);
	if (hw->running) {
		upTo = AeR(hw->regs, REG_TAIL);
#ifndef FIXED
		while (hw->tail != upTo) {
#else
		/* only an index between ours and the head can be true */
		if (upTo >= SLOTS || (upTo + SLOTS - hw->tail) % SLOTS > (hw->head + SLOTS - hw->tail) % SLOTS)
			upTo = hw->tail;
		while (hw->tail != upTo) {
#endif
			if (hw->slot[hw->tail] != NULL)
				done[n++] = hw->slot[hw->tail];
			hw->slot[hw->tail] = NULL;
			hw->tail = (hw->tail + 1) % SLOTS;
			hw->idle = 0;
		}
		Fill(hw);
	}
	KeReleaseSpinLockFromDpcLevel(&hw->lock);
	for (i = 0; i < n; i++)
		AeComplete(d, done[i], STATUS_SUCCESS, 0);
}

/* takes back what the card has; under the lock */
static ULONG TakeBack(AE_HW *hw, PIRP lost[SLOTS])
{
	ULONG n = 0, i;

	for (i = 0; i < SLOTS; i++) {
		if (hw->slot[i] != NULL)
			lost[n++] = hw->slot[i];
		hw->slot[i] = NULL;
	}
	hw->head = hw->tail = 0;
	hw->idle = 0;
	return n;
}

static VOID NTAPI Watch(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
	AE_DEV *d = context;
	AE_HW *hw = &d->hw;
	PIRP lost[SLOTS];
	ULONG n = 0, i;

	UNREFERENCED_PARAMETER(dpc);
	UNREFERENCED_PARAMETER(a);
	UNREFERENCED_PARAMETER(b);
	KeAcquireSpinLockAtDpcLevel(&hw->lock);
	if (hw->running && hw->head != hw->tail && ++hw->idle > PATIENCE) {
		KeSynchronizeExecution(hw->intr, SyncOff, hw);
		n = TakeBack(hw, lost);
		KeSynchronizeExecution(hw->intr, SyncOn, hw);
		Fill(hw);
	}
	KeReleaseSpinLockFromDpcLevel(&hw->lock);
	for (i = 0; i < n; i++)
		AeComplete(d, lost[i], STATUS_IO_TIMEOUT, 0);
}

static NTSTATUS HwAdd(AE_DEV *d)
{
	AE_HW *hw = &d->hw;

	KeInitializeSpinLock(&hw->lock);
	KeInitializeDpc(&hw->dpc, Dpc, d);
	KeInitializeDpc(&hw->watch, Watch, d);
	KeInitializeTimer(&hw->timer);
	return AeqInit(&hw->queue, AeCancelled, d);
}

static NTSTATUS HwStart(AE_DEV *d, PCM_RESOURCE_LIST trans)
{
	AE_HW *hw = &d->hw;
	DEVICE_DESCRIPTION desc;
	NTSTATUS s;
	ULONG n;

	hw->regs = AeMap(trans, 0, BAR_LENGTH);
	if (hw->regs == NULL)
		return STATUS_INSUFFICIENT_RESOURCES;
	if (AeR(hw->regs, REG_ID) != ID_VALUE) {
		s = STATUS_NO_SUCH_DEVICE;
		goto noCard;
	}
	SyncOff(hw);
	RtlZeroMemory(&desc, sizeof desc);
	desc.Version = DEVICE_DESCRIPTION_VERSION;
	desc.Master = TRUE;
	desc.Dma32BitAddresses = TRUE;
	desc.Dma64BitAddresses = TRUE;
	desc.InterfaceType = PCIBus;
	desc.MaximumLength = SLOTS * sizeof(DESCRIPTOR);
	s = STATUS_INSUFFICIENT_RESOURCES;
	hw->adapter = IoGetDmaAdapter(d->pdo, &desc, &n);
	if (hw->adapter == NULL)
		goto noCard;
	hw->ring = hw->adapter->DmaOperations->AllocateCommonBuffer(hw->adapter, SLOTS * sizeof(DESCRIPTOR), &hw->ringAt, TRUE);
	if (hw->ring == NULL)
		goto noRing;
	RtlZeroMemory(hw->ring, SLOTS * sizeof(DESCRIPTOR));
	s = AeConnect(d, trans, Isr, &hw->intr);
	if (NT_SUCCESS(s))
		return s;
	hw->adapter->DmaOperations->FreeCommonBuffer(hw->adapter, SLOTS * sizeof(DESCRIPTOR), hw->ringAt, hw->ring, TRUE);
	hw->ring = NULL;
noRing:
	hw->adapter->DmaOperations->PutDmaAdapter(hw->adapter);
	hw->adapter = NULL;
noCard:
	MmUnmapIoSpace(hw->regs, BAR_LENGTH);
	hw->regs = NULL;
	return s;
}

/* powered down before: the card has been reset */
static void HwRelease(AE_DEV *d)
{
	AE_HW *hw = &d->hw;

	IoDisconnectInterrupt(hw->intr);
	KeFlushQueuedDpcs();
	hw->intr = NULL;
	hw->adapter->DmaOperations->FreeCommonBuffer(hw->adapter, SLOTS * sizeof(DESCRIPTOR), hw->ringAt, hw->ring, TRUE);
	hw->ring = NULL;
	hw->adapter->DmaOperations->PutDmaAdapter(hw->adapter);
	hw->adapter = NULL;
	MmUnmapIoSpace(hw->regs, BAR_LENGTH);
	hw->regs = NULL;
}

static void HwPowerUp(AE_DEV *d)
{
	AE_HW *hw = &d->hw;
	LARGE_INTEGER due;
	KIRQL irql;

	KeSynchronizeExecution(hw->intr, SyncOn, hw);
	KeAcquireSpinLock(&hw->lock, &irql);
	hw->head = hw->tail = 0;
	hw->idle = 0;
	hw->running = TRUE;
	hw->paused = FALSE;
	Fill(hw);
	KeReleaseSpinLock(&hw->lock, irql);
	due.QuadPart = -10000000LL;
	KeSetTimerEx(&hw->timer, due, 1000, &hw->watch);
}

/* lets the card finish what it has; what it does not finish is ended, as no one can say whether it was encoded */
static void HwPowerDown(AE_DEV *d)
{
	AE_HW *hw = &d->hw;
	PIRP lost[SLOTS];
	BOOLEAN through = FALSE;
	ULONG n, i;
	KIRQL irql;

	for (i = 0; i < DRAIN_POLLS && !through; i++) {
		if (i != 0)
			AeSleepMs(5);
		KeAcquireSpinLock(&hw->lock, &irql);
		hw->paused = TRUE;
		through = hw->head == hw->tail;
		KeReleaseSpinLock(&hw->lock, irql);
	}
	KeAcquireSpinLock(&hw->lock, &irql);
	hw->running = FALSE;
	n = TakeBack(hw, lost);
	KeReleaseSpinLock(&hw->lock, irql);
	KeCancelTimer(&hw->timer);
	KeFlushQueuedDpcs();
	KeSynchronizeExecution(hw->intr, SyncOff, hw);
	for (i = 0; i < n; i++)
		AeComplete(d, lost[i], STATUS_REQUEST_ABORTED, 0);
}

static NTSTATUS HwRequest(AE_DEV *d, PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info)
{
	UNREFERENCED_PARAMETER(info);
	if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_ENCODE)
		return STATUS_INVALID_DEVICE_REQUEST;
	if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
		return STATUS_BUFFER_TOO_SMALL;
	AeqPut(&d->hw.queue, irp);
	FillNow(&d->hw);
	return STATUS_PENDING;
}

static void HwPurge(AE_DEV *d, PFILE_OBJECT file, NTSTATUS status)
{
	AeFail(d, &d->hw.queue, file, status);
}

/*
 * turnout: a line of delayed signals. Each request carries a delay of up to a second; they are served one after the
 * other by StartIo and a timer, and those that wait in line may be cancelled.
 *
 * The bug: the cancel routine ends a request that still waits without taking it out of the device queue, so that
 * the next start takes a request that has been completed, and completes it again.
 *
 * Device: none
 * Rule: double-completion, use-after-free
 * Needs: ioctl, cancel
 */
#include <ddk/wdm.h>

#define AE_NAME L"AeTurnout"
#define MAX_MS 1000
#define MAX_LINE 32

#define IOCTL_DELAY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SERVED CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct AE_EXT {
	KTIMER timer;
	KDPC dpc;
	LONG inLine;
	LONG served;
} AE_EXT;

#include "../include/loft_control.h"

static VOID NTAPI Served(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
	PDEVICE_OBJECT dev = context;
	AE_EXT *x = dev->DeviceExtension;
	PIRP irp = dev->CurrentIrp;

	UNREFERENCED_PARAMETER(dpc);
	UNREFERENCED_PARAMETER(a);
	UNREFERENCED_PARAMETER(b);
	InterlockedIncrement(&x->served);
	InterlockedDecrement(&x->inLine);
	IoStartNextPacket(dev, TRUE);
	AeEnd(irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI StartIo(PDEVICE_OBJECT dev, PIRP irp)
{
	AE_EXT *x = dev->DeviceExtension;
	LARGE_INTEGER due;
	KIRQL irql;

	IoAcquireCancelSpinLock(&irql);
	IoSetCancelRoutine(irp, NULL);
	if (irp->Cancel) {
		/* the cancel routine left the current request to us, or never ran */
		IoReleaseCancelSpinLock(irql);
		InterlockedDecrement(&x->inLine);
		IoStartNextPacket(dev, TRUE);
		AeEnd(irp, STATUS_CANCELLED, 0);
		return;
	}
	IoReleaseCancelSpinLock(irql);
	due.QuadPart = -10000LL * *(PULONG)irp->AssociatedIrp.SystemBuffer;
	KeSetTimer(&x->timer, due, &x->dpc);
}

static VOID NTAPI CancelWaiting(PDEVICE_OBJECT dev, PIRP irp)
{
	AE_EXT *x = dev->DeviceExtension;

	if (dev->CurrentIrp == irp) {
		/* about to be started: StartIo sees that it is cancelled */
		IoReleaseCancelSpinLock(irp->CancelIrql);
		return;
	}
#ifndef FIXED
#else
	KeRemoveEntryDeviceQueue(&dev->DeviceQueue, &irp->Tail.Overlay.DeviceQueueEntry);
#endif
	IoReleaseCancelSpinLock(irp->CancelIrql);
	InterlockedDecrement(&x->inLine);
	AeEnd(irp, STATUS_CANCELLED, 0);
}

static NTSTATUS LegInit(PDRIVER_OBJECT driver, PDEVICE_OBJECT dev, PUNICODE_STRING path)
{
	AE_EXT *x = dev->DeviceExtension;

	UNREFERENCED_PARAMETER(path);
	KeInitializeTimer(&x->timer);
	KeInitializeDpc(&x->dpc, Served, dev);
	driver->DriverStartIo = StartIo;
	return STATUS_SUCCESS;
}

static void LegExit(PDEVICE_OBJECT dev)
{
	UNREFERENCED_PARAMETER(dev);
	/* every request has been completed; the DPC that completed the last may still be returning */
	KeFlushQueuedDpcs();
}

static NTSTATUS LegCreate(PDEVICE_OBJECT dev, PIO_STACK_LOCATION sp)
{
	UNREFERENCED_PARAMETER(dev);
	UNREFERENCED_PARAMETER(sp);
	return STATUS_SUCCESS;
}

/* what a handle leaves in line is served within the limits of the line */
static void LegCleanup(PDEVICE_OBJECT dev, PFILE_OBJECT file)
{
	UNREFERENCED_PARAMETER(dev);
	UNREFERENCED_PARAMETER(file);
}

static void LegClose(PDEVICE_OBJECT dev, PFILE_OBJECT file)
{
	UNREFERENCED_PARAMETER(dev);
	UNREFERENCED_PARAMETER(file);
}

static NTSTATUS LegControl(PDEVICE_OBJECT dev, PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info)
{
	AE_EXT *x = dev->DeviceExtension;
	PULONG buffer = irp->AssociatedIrp.SystemBuffer;

	switch (sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_DELAY:
		if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
			return STATUS_BUFFER_TOO_SMALL;
		if (buffer[0] == 0 || buffer[0] > MAX_MS)
			return STATUS_INVALID_PARAMETER;
		if (InterlockedIncrement(&x->inLine) > MAX_LINE) {
			InterlockedDecrement(&x->inLine);
			return STATUS_DEVICE_BUSY;
		}
		IoMarkIrpPending(irp);
		IoStartPacket(dev, irp, NULL, CancelWaiting);
		return STATUS_PENDING;

	case IOCTL_SERVED:
		if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LONG))
			return STATUS_BUFFER_TOO_SMALL;
		buffer[0] = (ULONG)x->served;
		*info = sizeof(LONG);
		return STATUS_SUCCESS;
	}
	return STATUS_INVALID_DEVICE_REQUEST;
}

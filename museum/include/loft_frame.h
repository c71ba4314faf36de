/*
 * loft_frame.h: the frame of a function driver: PnP, power, remove lock, and a gate before the hardware.
 *
 * The driver defines AE_HW before it includes this, and the Hw... routines below.
 * The gate is open while the device is started and in D0. Requests that come while it is shut wait in `held`.
 */
#ifndef AEPNP_H
#define AEPNP_H

#include "loft_queue.h"

#define AE_TAG 'pEAp'

enum { AE_NEW, AE_RUN, AE_STOPPED, AE_GONE };

typedef struct AE_DEV {
	PDEVICE_OBJECT fdo, pdo, lower;
	IO_REMOVE_LOCK rl;
	KSPIN_LOCK gate;		/* guards from here .. */
	int state;
	BOOLEAN open;			/* requests may go in */
	BOOLEAN powered;		/* the registers are there and set up */
	BOOLEAN asleep;			/* leaving, or out of, D0 */
	BOOLEAN stopPending, removePending;
	BOOLEAN draining;
	LONG active;			/* .. to here */
	KEVENT idle;			/* set while active is 0 */
	AEQ held;
	PIO_WORKITEM work;
	BOOLEAN hwUp;			/* HwStart has succeeded; only the PnP thread changes it */
	BOOLEAN ifOn;
	UNICODE_STRING ifName;
	AE_HW hw;
} AE_DEV;

/* No hardware yet. A failure undoes itself. */
static NTSTATUS HwAdd(AE_DEV *d);
/* Maps, connects; PASSIVE. A failure undoes itself. The device is not enabled until HwPowerUp. */
static NTSTATUS HwStart(AE_DEV *d, PCM_RESOURCE_LIST trans);
/* Undoes HwStart; PASSIVE, with no request inside. */
static void HwRelease(AE_DEV *d);
/* Sets up the registers after start or wake; up to DISPATCH. */
static void HwPowerUp(AE_DEV *d);
/* Saves and silences; PASSIVE, with no request inside. */
static void HwPowerDown(AE_DEV *d);
/* A device control request; PASSIVE, in D0. STATUS_PENDING: it was put into a queue of the driver. */
static NTSTATUS HwRequest(AE_DEV *d, PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info);
/* Ends the requests that wait in the driver's queues (of one file, or all). */
static void HwPurge(AE_DEV *d, PFILE_OBJECT file, NTSTATUS status);

DRIVER_INITIALIZE DriverEntry;

/* {5D1F0A3C-71C2-4E0B-9C55-AE2D0E7B6A10} */
static const GUID AeInterface = { 0x5d1f0a3c, 0x71c2, 0x4e0b, { 0x9c, 0x55, 0xae, 0x2d, 0x0e, 0x7b, 0x6a, 0x10 } };

/* ---- helpers for the driver ---- */

/* ends a request that holds the remove lock */
static inline NTSTATUS AeComplete(AE_DEV *d, PIRP irp, NTSTATUS status, ULONG_PTR info)
{
	irp->IoStatus.Status = status;
	irp->IoStatus.Information = info;
	IoCompleteRequest(irp, IO_NO_INCREMENT);
	IoReleaseRemoveLock(&d->rl, irp);
	return status;
}

static inline void AeCancelled(PVOID owner, PIRP irp)
{
	AeComplete((AE_DEV *)owner, irp, STATUS_CANCELLED, 0);
}

static inline void AeFail(AE_DEV *d, AEQ *q, PFILE_OBJECT file, NTSTATUS status)
{
	PIRP irp;

	while ((irp = AeqNext(q, file)) != NULL)
		AeComplete(d, irp, status, 0);
}

/* the nth resource of a type */
static inline PCM_PARTIAL_RESOURCE_DESCRIPTOR AeFind(PCM_RESOURCE_LIST list, UCHAR type, ULONG nth)
{
	PCM_PARTIAL_RESOURCE_DESCRIPTOR r;
	ULONG n;

	if (list == NULL || list->Count == 0)
		return NULL;
	r = list->List[0].PartialResourceList.PartialDescriptors;
	for (n = list->List[0].PartialResourceList.Count; n != 0; n--, r++)
		if (r->Type == type && nth-- == 0)
			return r;
	return NULL;
}

static inline PUCHAR AeMap(PCM_RESOURCE_LIST list, ULONG nth, ULONG length)
{
	PCM_PARTIAL_RESOURCE_DESCRIPTOR r = AeFind(list, CmResourceTypeMemory, nth);

	if (r == NULL || r->u.Memory.Length < length)
		return NULL;
	return MmMapIoSpace(r->u.Memory.Start, length, MmNonCached);
}

static inline NTSTATUS AeConnect(AE_DEV *d, PCM_RESOURCE_LIST list, PKSERVICE_ROUTINE isr, PKINTERRUPT *intr)
{
	PCM_PARTIAL_RESOURCE_DESCRIPTOR r = AeFind(list, CmResourceTypeInterrupt, 0);

	if (r == NULL)
		return STATUS_DEVICE_CONFIGURATION_ERROR;
	return IoConnectInterrupt(intr, isr, d, NULL, r->u.Interrupt.Vector, (KIRQL)r->u.Interrupt.Level,
		(KIRQL)r->u.Interrupt.Level, (r->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive,
		r->ShareDisposition == CmResourceShareShared, r->u.Interrupt.Affinity, FALSE);
}

static inline ULONG AeR(PUCHAR base, ULONG offset)
{
	return READ_REGISTER_ULONG((PULONG)(base + offset));
}

static inline void AeW(PUCHAR base, ULONG offset, ULONG value)
{
	WRITE_REGISTER_ULONG((PULONG)(base + offset), value);
}

static inline void AeSleepMs(ULONG ms)
{
	LARGE_INTEGER t;

	t.QuadPart = -10000LL * ms;
	KeDelayExecutionThread(KernelMode, FALSE, &t);
}

/* ---- the gate ---- */

/* STATUS_SUCCESS: inside; STATUS_PENDING: shut for now; else refused */
static NTSTATUS AeEnter(AE_DEV *d)
{
	NTSTATUS s;
	KIRQL irql;

	KeAcquireSpinLock(&d->gate, &irql);
	if (d->state == AE_GONE)
		s = STATUS_DELETE_PENDING;
	else if (d->state == AE_NEW)
		s = STATUS_DEVICE_NOT_READY;
	else if (!d->open)
		s = STATUS_PENDING;
	else {
		if (d->active++ == 0)
			KeClearEvent(&d->idle);
		s = STATUS_SUCCESS;
	}
	KeReleaseSpinLock(&d->gate, irql);
	return s;
}

static void AeLeave(AE_DEV *d)
{
	KIRQL irql;

	KeAcquireSpinLock(&d->gate, &irql);
	if (--d->active == 0)
		KeSetEvent(&d->idle, IO_NO_INCREMENT, FALSE);
	KeReleaseSpinLock(&d->gate, irql);
}

/* for a change of power: keeps stop and removal out meanwhile; says whether the hardware is there, and powered */
static BOOLEAN AeHold(AE_DEV *d, PBOOLEAN powered)
{
	BOOLEAN in = FALSE;
	KIRQL irql;

	KeAcquireSpinLock(&d->gate, &irql);
	if (d->state == AE_RUN) {
		if (d->active++ == 0)
			KeClearEvent(&d->idle);
		in = TRUE;
	}
	*powered = d->powered;
	KeReleaseSpinLock(&d->gate, irql);
	return in;
}

static void AeAwaitIdle(AE_DEV *d)
{
	KeWaitForSingleObject(&d->idle, Executive, KernelMode, FALSE, NULL);
}

static NTSTATUS AeSubmit(AE_DEV *d, PIRP irp);
static VOID NTAPI AeDrain(PDEVICE_OBJECT fdo, PVOID context);

/* lets the held requests go on, if they may */
static void AeKick(AE_DEV *d)
{
	BOOLEAN start = FALSE, gone;
	KIRQL irql;

	KeAcquireSpinLock(&d->gate, &irql);
	gone = d->state == AE_GONE;
	if (!gone && d->open && !d->draining && !AeqEmptyAtDpc(&d->held) && NT_SUCCESS(IoAcquireRemoveLock(&d->rl, d->work)))
		start = d->draining = TRUE;
	KeReleaseSpinLock(&d->gate, irql);
	if (gone)
		AeFail(d, &d->held, NULL, STATUS_DELETE_PENDING);
	if (start)
		IoQueueWorkItem(d->work, AeDrain, DelayedWorkQueue, d);
}

static VOID NTAPI AeDrain(PDEVICE_OBJECT fdo, PVOID context)
{
	AE_DEV *d = context;
	BOOLEAN more;
	KIRQL irql;
	PIRP irp;

	UNREFERENCED_PARAMETER(fdo);
	for (;;) {
		KeAcquireSpinLock(&d->gate, &irql);
		more = (d->open || d->state == AE_GONE) && !AeqEmptyAtDpc(&d->held);
		if (!more)
			d->draining = FALSE;
		KeReleaseSpinLock(&d->gate, irql);
		if (!more)
			break;
		irp = AeqNext(&d->held, NULL);
		if (irp != NULL)
			AeSubmit(d, irp);
	}
	IoReleaseRemoveLock(&d->rl, d->work);
}

/* the caller keeps the device by a remove lock of its own; the request holds another */
static NTSTATUS AeSubmit(AE_DEV *d, PIRP irp)
{
	ULONG_PTR info = 0;
	NTSTATUS s = AeEnter(d);

	if (s == STATUS_PENDING) {
		AeqPut(&d->held, irp);
		AeKick(d);
		return STATUS_PENDING;
	}
	if (NT_SUCCESS(s)) {
		s = HwRequest(d, irp, IoGetCurrentIrpStackLocation(irp), &info);
		AeLeave(d);
		if (s == STATUS_PENDING)
			return s;
	}
	return AeComplete(d, irp, s, info);
}

static void AeTryOpen(AE_DEV *d)
{
	KIRQL irql;

	KeAcquireSpinLock(&d->gate, &irql);
	if (d->state == AE_RUN && d->powered && !d->asleep && !d->stopPending)
		d->open = TRUE;
	KeReleaseSpinLock(&d->gate, irql);
	AeKick(d);
}

/* no request in, none inside: for good (gone), or for a while */
static void AeShut(AE_DEV *d, int state)
{
	KIRQL irql;

	KeAcquireSpinLock(&d->gate, &irql);
	d->open = FALSE;
	d->state = state;
	KeReleaseSpinLock(&d->gate, irql);
	AeAwaitIdle(d);
}

static void AeHardwareDown(AE_DEV *d)
{
	BOOLEAN powered;
	KIRQL irql;

	if (!d->hwUp)
		return;
	KeAcquireSpinLock(&d->gate, &irql);
	powered = d->powered;
	d->powered = FALSE;
	KeReleaseSpinLock(&d->gate, irql);
	if (powered)
		HwPowerDown(d);
	HwRelease(d);
	d->hwUp = FALSE;
}

static void AeTakeDown(AE_DEV *d)
{
	AeShut(d, AE_GONE);
	if (d->ifOn) {
		IoSetDeviceInterfaceState(&d->ifName, FALSE);
		d->ifOn = FALSE;
	}
	AeFail(d, &d->held, NULL, STATUS_DELETE_PENDING);
	HwPurge(d, NULL, STATUS_DELETE_PENDING);
	AeHardwareDown(d);
}

/* ---- dispatch routines ---- */

static NTSTATUS AeEnd(PIRP irp, NTSTATUS status)
{
	irp->IoStatus.Status = status;
	irp->IoStatus.Information = 0;
	IoCompleteRequest(irp, IO_NO_INCREMENT);
	return status;
}

static NTSTATUS NTAPI AeCreate(PDEVICE_OBJECT fdo, PIRP irp)
{
	AE_DEV *d = fdo->DeviceExtension;
	NTSTATUS s = IoAcquireRemoveLock(&d->rl, irp);
	KIRQL irql;

	if (!NT_SUCCESS(s))
		return AeEnd(irp, STATUS_DELETE_PENDING);
	KeAcquireSpinLock(&d->gate, &irql);
	if (d->state == AE_GONE || d->removePending)
		s = STATUS_DELETE_PENDING;
	else if (d->state == AE_NEW)
		s = STATUS_DEVICE_NOT_READY;
	KeReleaseSpinLock(&d->gate, irql);
	return AeComplete(d, irp, s, 0);
}

static NTSTATUS NTAPI AeCleanup(PDEVICE_OBJECT fdo, PIRP irp)
{
	AE_DEV *d = fdo->DeviceExtension;
	PFILE_OBJECT file = IoGetCurrentIrpStackLocation(irp)->FileObject;

	if (!NT_SUCCESS(IoAcquireRemoveLock(&d->rl, irp)))
		return AeEnd(irp, STATUS_SUCCESS);
	AeFail(d, &d->held, file, STATUS_CANCELLED);
	HwPurge(d, file, STATUS_CANCELLED);
	return AeComplete(d, irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI AeClose(PDEVICE_OBJECT fdo, PIRP irp)
{
	UNREFERENCED_PARAMETER(fdo);
	return AeEnd(irp, STATUS_SUCCESS);
}

static NTSTATUS NTAPI AeControl(PDEVICE_OBJECT fdo, PIRP irp)
{
	AE_DEV *d = fdo->DeviceExtension;
	NTSTATUS s;

	/* one for this routine, one for the request, which may end before the routine does */
	if (!NT_SUCCESS(IoAcquireRemoveLock(&d->rl, d)))
		return AeEnd(irp, STATUS_DELETE_PENDING);
	if (!NT_SUCCESS(IoAcquireRemoveLock(&d->rl, irp)))
		s = AeEnd(irp, STATUS_DELETE_PENDING);
	else
		s = AeSubmit(d, irp);
	IoReleaseRemoveLock(&d->rl, d);
	return s;
}

static NTSTATUS NTAPI AePass(PDEVICE_OBJECT fdo, PIRP irp)
{
	AE_DEV *d = fdo->DeviceExtension;
	NTSTATUS s;

	if (!NT_SUCCESS(IoAcquireRemoveLock(&d->rl, irp)))
		return AeEnd(irp, STATUS_DELETE_PENDING);
	IoSkipCurrentIrpStackLocation(irp);
	s = IoCallDriver(d->lower, irp);
	IoReleaseRemoveLock(&d->rl, irp);
	return s;
}

static NTSTATUS NTAPI AeForwarded(PDEVICE_OBJECT fdo, PIRP irp, PVOID event)
{
	UNREFERENCED_PARAMETER(fdo);
	if (irp->PendingReturned)
		KeSetEvent(event, IO_NO_INCREMENT, FALSE);
	return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS AeForwardWait(AE_DEV *d, PIRP irp)
{
	KEVENT event;

	KeInitializeEvent(&event, NotificationEvent, FALSE);
	IoCopyCurrentIrpStackLocationToNext(irp);
	IoSetCompletionRoutine(irp, AeForwarded, &event, TRUE, TRUE, TRUE);
	if (IoCallDriver(d->lower, irp) == STATUS_PENDING)
		KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
	return irp->IoStatus.Status;
}

static NTSTATUS AeStart(AE_DEV *d, PIO_STACK_LOCATION sp)
{
	POWER_STATE p;
	NTSTATUS s;
	KIRQL irql;

	s = HwStart(d, sp->Parameters.StartDevice.AllocatedResourcesTranslated);
	if (!NT_SUCCESS(s)) {
		AeTakeDown(d);
		return s;
	}
	d->hwUp = TRUE;
	HwPowerUp(d);
	KeAcquireSpinLock(&d->gate, &irql);
	d->state = AE_RUN;
	d->powered = TRUE;
	d->asleep = FALSE;
	d->stopPending = FALSE;
	KeReleaseSpinLock(&d->gate, irql);
	p.DeviceState = PowerDeviceD0;
	PoSetPowerState(d->fdo, DevicePowerState, p);
	if (!d->ifOn) {
		s = IoSetDeviceInterfaceState(&d->ifName, TRUE);
		if (!NT_SUCCESS(s)) {
			AeTakeDown(d);
			return s;
		}
		d->ifOn = TRUE;
	}
	AeTryOpen(d);
	return STATUS_SUCCESS;
}

static NTSTATUS NTAPI AePnp(PDEVICE_OBJECT fdo, PIRP irp)
{
	AE_DEV *d = fdo->DeviceExtension;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
	NTSTATUS s;
	KIRQL irql;

	if (!NT_SUCCESS(IoAcquireRemoveLock(&d->rl, irp)))
		return AeEnd(irp, STATUS_DELETE_PENDING);
	switch (sp->MinorFunction) {
	case IRP_MN_START_DEVICE:
		s = AeForwardWait(d, irp);
		if (NT_SUCCESS(s))
			s = AeStart(d, sp);
		else
			AeTakeDown(d);
		return AeComplete(d, irp, s, irp->IoStatus.Information);

	case IRP_MN_QUERY_STOP_DEVICE:
		KeAcquireSpinLock(&d->gate, &irql);
		d->stopPending = TRUE;
		d->open = FALSE;
		KeReleaseSpinLock(&d->gate, irql);
		AeAwaitIdle(d);
		irp->IoStatus.Status = STATUS_SUCCESS;
		break;

	case IRP_MN_CANCEL_STOP_DEVICE:
		AeForwardWait(d, irp);
		KeAcquireSpinLock(&d->gate, &irql);
		d->stopPending = FALSE;
		KeReleaseSpinLock(&d->gate, irql);
		AeTryOpen(d);
		return AeComplete(d, irp, STATUS_SUCCESS, irp->IoStatus.Information);

	case IRP_MN_STOP_DEVICE:
		AeShut(d, AE_STOPPED);
		AeHardwareDown(d);
		irp->IoStatus.Status = STATUS_SUCCESS;
		break;

	case IRP_MN_QUERY_REMOVE_DEVICE:
		KeAcquireSpinLock(&d->gate, &irql);
		d->removePending = TRUE;
		KeReleaseSpinLock(&d->gate, irql);
		irp->IoStatus.Status = STATUS_SUCCESS;
		break;

	case IRP_MN_CANCEL_REMOVE_DEVICE:
		AeForwardWait(d, irp);
		KeAcquireSpinLock(&d->gate, &irql);
		d->removePending = FALSE;
		KeReleaseSpinLock(&d->gate, irql);
		return AeComplete(d, irp, STATUS_SUCCESS, irp->IoStatus.Information);

	case IRP_MN_SURPRISE_REMOVAL:
		AeTakeDown(d);
		irp->IoStatus.Status = STATUS_SUCCESS;
		break;

	case IRP_MN_REMOVE_DEVICE:
		AeTakeDown(d);
		irp->IoStatus.Status = STATUS_SUCCESS;
		IoSkipCurrentIrpStackLocation(irp);
		s = IoCallDriver(d->lower, irp);
		IoReleaseRemoveLockAndWait(&d->rl, irp);
		IoFreeWorkItem(d->work);
		IoDetachDevice(d->lower);
		RtlFreeUnicodeString(&d->ifName);
		IoDeleteDevice(fdo);
		return s;
	}
	IoSkipCurrentIrpStackLocation(irp);
	s = IoCallDriver(d->lower, irp);
	IoReleaseRemoveLock(&d->rl, irp);
	return s;
}

/* ---- power ---- */

static VOID NTAPI AeDeviceDone(PDEVICE_OBJECT dev, UCHAR minor, POWER_STATE state, PVOID context, PIO_STATUS_BLOCK io)
{
	PIRP irp = context;
	AE_DEV *d = IoGetCurrentIrpStackLocation(irp)->DeviceObject->DeviceExtension;

	UNREFERENCED_PARAMETER(dev);
	UNREFERENCED_PARAMETER(minor);
	UNREFERENCED_PARAMETER(state);
	irp->IoStatus.Status = io->Status;
	PoStartNextPowerIrp(irp);
	IoCompleteRequest(irp, IO_NO_INCREMENT);
	IoReleaseRemoveLock(&d->rl, irp);
}

/* the system's request came back: ask for the device's own (the query or the set, as it was) */
static NTSTATUS NTAPI AeSystemDone(PDEVICE_OBJECT fdo, PIRP irp, PVOID context)
{
	AE_DEV *d = context;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
	NTSTATUS s = irp->IoStatus.Status;
	POWER_STATE p;

	UNREFERENCED_PARAMETER(fdo);
	if (NT_SUCCESS(s)) {
		p.DeviceState = sp->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
		s = PoRequestPowerIrp(d->pdo, sp->MinorFunction, p, AeDeviceDone, irp, NULL);
		if (NT_SUCCESS(s))
			return STATUS_MORE_PROCESSING_REQUIRED;
		irp->IoStatus.Status = s;
	}
	PoStartNextPowerIrp(irp);
	IoReleaseRemoveLock(&d->rl, irp);
	return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI AePoweredUp(PDEVICE_OBJECT fdo, PIRP irp, PVOID context)
{
	AE_DEV *d = context;
	POWER_STATE p = IoGetCurrentIrpStackLocation(irp)->Parameters.Power.State;
	BOOLEAN powered;
	KIRQL irql;

	if (NT_SUCCESS(irp->IoStatus.Status)) {
		PoSetPowerState(fdo, DevicePowerState, p);
		if (AeHold(d, &powered)) {
			if (!powered)
				HwPowerUp(d);
			KeAcquireSpinLock(&d->gate, &irql);
			d->powered = TRUE;
			d->asleep = FALSE;
			KeReleaseSpinLock(&d->gate, irql);
			AeLeave(d);
			AeTryOpen(d);
		}
	}
	PoStartNextPowerIrp(irp);
	IoReleaseRemoveLock(&d->rl, irp);
	return STATUS_CONTINUE_COMPLETION;
}

/* out of D0; the device is power-pageable, so this is at PASSIVE_LEVEL */
static void AePowerDown(AE_DEV *d)
{
	BOOLEAN powered;
	KIRQL irql;

	KeAcquireSpinLock(&d->gate, &irql);
	d->asleep = TRUE;
	d->open = FALSE;
	KeReleaseSpinLock(&d->gate, irql);
	AeAwaitIdle(d);
	if (AeHold(d, &powered)) {
		if (powered)
			HwPowerDown(d);
		KeAcquireSpinLock(&d->gate, &irql);
		d->powered = FALSE;
		KeReleaseSpinLock(&d->gate, irql);
		AeLeave(d);
	}
}

static NTSTATUS NTAPI AePower(PDEVICE_OBJECT fdo, PIRP irp)
{
	AE_DEV *d = fdo->DeviceExtension;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
	PIO_COMPLETION_ROUTINE then = NULL;
	NTSTATUS s;

	if (!NT_SUCCESS(IoAcquireRemoveLock(&d->rl, irp))) {
		PoStartNextPowerIrp(irp);
		return AeEnd(irp, STATUS_DELETE_PENDING);
	}
	if (sp->MinorFunction == IRP_MN_SET_POWER || sp->MinorFunction == IRP_MN_QUERY_POWER) {
		if (sp->Parameters.Power.Type == SystemPowerState)
			then = AeSystemDone;
		else if (sp->MinorFunction == IRP_MN_SET_POWER) {
			if (sp->Parameters.Power.State.DeviceState == PowerDeviceD0)
				then = AePoweredUp;
			else {
				AePowerDown(d);
				PoSetPowerState(fdo, DevicePowerState, sp->Parameters.Power.State);
			}
		}
	}
	if (then != NULL) {
		IoMarkIrpPending(irp);
		IoCopyCurrentIrpStackLocationToNext(irp);
		IoSetCompletionRoutine(irp, then, d, TRUE, TRUE, TRUE);
		PoCallDriver(d->lower, irp);
		return STATUS_PENDING;
	}
	PoStartNextPowerIrp(irp);
	IoSkipCurrentIrpStackLocation(irp);
	s = PoCallDriver(d->lower, irp);
	IoReleaseRemoveLock(&d->rl, irp);
	return s;
}

/* ---- coming and going of the driver ---- */

static NTSTATUS NTAPI AeAddDevice(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo)
{
	PDEVICE_OBJECT fdo;
	AE_DEV *d;
	NTSTATUS s;

	s = IoCreateDevice(driver, sizeof(AE_DEV), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &fdo);
	if (!NT_SUCCESS(s))
		return s;
	d = fdo->DeviceExtension;
	RtlZeroMemory(d, sizeof *d);
	d->fdo = fdo;
	d->pdo = pdo;
	IoInitializeRemoveLock(&d->rl, AE_TAG, 0, 0);
	KeInitializeSpinLock(&d->gate);
	KeInitializeEvent(&d->idle, NotificationEvent, TRUE);
	s = AeqInit(&d->held, AeCancelled, d);
	if (NT_SUCCESS(s))
		s = HwAdd(d);
	if (!NT_SUCCESS(s))
		goto noDevice;
	d->work = IoAllocateWorkItem(fdo);
	if (d->work == NULL) {
		s = STATUS_INSUFFICIENT_RESOURCES;
		goto noDevice;
	}
	s = IoRegisterDeviceInterface(pdo, &AeInterface, NULL, &d->ifName);
	if (!NT_SUCCESS(s))
		goto noInterface;
	d->lower = IoAttachDeviceToDeviceStack(fdo, pdo);
	if (d->lower == NULL) {
		s = STATUS_NO_SUCH_DEVICE;
		goto noStack;
	}
	fdo->Flags |= DO_POWER_PAGABLE;
	fdo->Flags &= ~DO_DEVICE_INITIALIZING;
	return STATUS_SUCCESS;

noStack:
	RtlFreeUnicodeString(&d->ifName);
noInterface:
	IoFreeWorkItem(d->work);
noDevice:
	IoDeleteDevice(fdo);
	return s;
}

static VOID NTAPI AeUnload(PDRIVER_OBJECT driver)
{
	UNREFERENCED_PARAMETER(driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
	UNREFERENCED_PARAMETER(path);
	driver->DriverExtension->AddDevice = AeAddDevice;
	driver->DriverUnload = AeUnload;
	driver->MajorFunction[IRP_MJ_CREATE] = AeCreate;
	driver->MajorFunction[IRP_MJ_CLEANUP] = AeCleanup;
	driver->MajorFunction[IRP_MJ_CLOSE] = AeClose;
	driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = AeControl;
	driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = AePass;
	driver->MajorFunction[IRP_MJ_PNP] = AePnp;
	driver->MajorFunction[IRP_MJ_POWER] = AePower;
	return STATUS_SUCCESS;
}

#endif

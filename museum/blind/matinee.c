/*
 * matinee: a reminder for each handle: it is armed with a time in milliseconds and counts how often it went off.
 * To arm it again before that moves the time.
 *
 * The bug: each arming sets up the timer and its DPC anew; if the timer is still running, that wipes the links of
 * an object which the kernel has in its lists.
 *
 * Device: none
 * Rule: timer-initialized-while-set, dpc-initialized-while-queued
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define AE_NAME L"AeMatinee"
#define MAX_MS 600000

#define IOCTL_ARM CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_DISARM CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_FIRED CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct REMINDER {
	KTIMER timer;
	KDPC dpc;
	FAST_MUTEX mutex;		/* one arming at a time */
	LONG fired;
} REMINDER;

typedef struct AE_EXT {
	LONG handles;
} AE_EXT;

#include "../include/loft_control.h"

static VOID NTAPI Fired(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
	REMINDER *r = context;

	UNREFERENCED_PARAMETER(dpc);
	UNREFERENCED_PARAMETER(a);
	UNREFERENCED_PARAMETER(b);
	InterlockedIncrement(&r->fired);
}

static NTSTATUS LegInit(PDRIVER_OBJECT driver, PDEVICE_OBJECT dev, PUNICODE_STRING path)
{
	UNREFERENCED_PARAMETER(driver);
	UNREFERENCED_PARAMETER(dev);
	UNREFERENCED_PARAMETER(path);
	return STATUS_SUCCESS;
}

static void LegExit(PDEVICE_OBJECT dev)
{
	UNREFERENCED_PARAMETER(dev);
}

static NTSTATUS LegCreate(PDEVICE_OBJECT dev, PIO_STACK_LOCATION sp)
{
	AE_EXT *x = dev->DeviceExtension;
	REMINDER *r = ExAllocatePoolWithTag(NonPagedPool, sizeof *r, AE_TAG);

	if (r == NULL)
		return STATUS_INSUFFICIENT_RESOURCES;
	RtlZeroMemory(r, sizeof *r);
	KeInitializeTimer(&r->timer);
	KeInitializeDpc(&r->dpc, Fired, r);
	ExInitializeFastMutex(&r->mutex);
	sp->FileObject->FsContext = r;
	InterlockedIncrement(&x->handles);
	return STATUS_SUCCESS;
}

static void LegCleanup(PDEVICE_OBJECT dev, PFILE_OBJECT file)
{
	UNREFERENCED_PARAMETER(dev);
	UNREFERENCED_PARAMETER(file);
}

/* no request of the handle is under way any more */
static void LegClose(PDEVICE_OBJECT dev, PFILE_OBJECT file)
{
	AE_EXT *x = dev->DeviceExtension;
	REMINDER *r = file->FsContext;

	KeCancelTimer(&r->timer);
	KeFlushQueuedDpcs();
	ExFreePoolWithTag(r, AE_TAG);
	InterlockedDecrement(&x->handles);
}

static NTSTATUS LegControl(PDEVICE_OBJECT dev, PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info)
{
	REMINDER *r = sp->FileObject->FsContext;
	PULONG buffer = irp->AssociatedIrp.SystemBuffer;
	LARGE_INTEGER due;

	UNREFERENCED_PARAMETER(dev);
	switch (sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_ARM:
		if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
			return STATUS_BUFFER_TOO_SMALL;
		if (buffer[0] == 0 || buffer[0] > MAX_MS)
			return STATUS_INVALID_PARAMETER;
		due.QuadPart = -10000LL * buffer[0];
		ExAcquireFastMutex(&r->mutex);
#ifndef FIXED
		KeInitializeTimer(&r->timer);
		KeInitializeDpc(&r->dpc, Fired, r);
#else
#endif
		KeSetTimer(&r->timer, due, &r->dpc);
		ExReleaseFastMutex(&r->mutex);
		return STATUS_SUCCESS;

	case IOCTL_DISARM:
		ExAcquireFastMutex(&r->mutex);
		KeCancelTimer(&r->timer);
		ExReleaseFastMutex(&r->mutex);
		return STATUS_SUCCESS;

	case IOCTL_FIRED:
		if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LONG))
			return STATUS_BUFFER_TOO_SMALL;
		buffer[0] = (ULONG)r->fired;
		*info = sizeof(LONG);
		return STATUS_SUCCESS;
	}
	return STATUS_INVALID_DEVICE_REQUEST;
}

/*
 * bailiff: a program registers up to four of its events with its handle, and one request sets them all.
 *
 * The bug: the handles come from the program, but are looked up as the kernel's own: neither the access that the
 * handle grants is checked nor whether it is a kernel handle, so that events are set which the program may not set.
 *
 * Device: none
 * Rule: user-handle-as-kernel
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define AE_NAME L"AeBailiff"
#define MAX_EVENTS 4

#define IOCTL_REGISTER CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_FORGET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_RING CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct REGISTER {
	ULONG slot;
	ULONG reserved;
	ULONGLONG handle;
} REGISTER;

typedef struct ROLL {
	FAST_MUTEX mutex;
	PRKEVENT event[MAX_EVENTS];	/* referenced */
} ROLL;

typedef struct AE_EXT {
	LONG rung;
} AE_EXT;

#include "../include/loft_control.h"

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
	ROLL *roll = ExAllocatePoolWithTag(NonPagedPool, sizeof *roll, AE_TAG);

	UNREFERENCED_PARAMETER(dev);
	if (roll == NULL)
		return STATUS_INSUFFICIENT_RESOURCES;
	RtlZeroMemory(roll, sizeof *roll);
	ExInitializeFastMutex(&roll->mutex);
	sp->FileObject->FsContext = roll;
	return STATUS_SUCCESS;
}

static void LegCleanup(PDEVICE_OBJECT dev, PFILE_OBJECT file)
{
	UNREFERENCED_PARAMETER(dev);
	UNREFERENCED_PARAMETER(file);
}

static void LegClose(PDEVICE_OBJECT dev, PFILE_OBJECT file)
{
	ROLL *roll = file->FsContext;
	ULONG i;

	UNREFERENCED_PARAMETER(dev);
	for (i = 0; i < MAX_EVENTS; i++)
		if (roll->event[i] != NULL)
			ObDereferenceObject(roll->event[i]);
	ExFreePoolWithTag(roll, AE_TAG);
}

/* puts an event (or NULL) into a slot */
static void Replace(ROLL *roll, ULONG slot, PRKEVENT event)
{
	PRKEVENT old;

	ExAcquireFastMutex(&roll->mutex);
	old = roll->event[slot];
	roll->event[slot] = event;
	ExReleaseFastMutex(&roll->mutex);
	if (old != NULL)
		ObDereferenceObject(old);
}

static NTSTATUS LegControl(PDEVICE_OBJECT dev, PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info)
{
	AE_EXT *x = dev->DeviceExtension;
	ROLL *roll = sp->FileObject->FsContext;
	REGISTER *in = irp->AssociatedIrp.SystemBuffer;
	KPROCESSOR_MODE mode;
	PVOID event;
	NTSTATUS s;
	ULONG i;

	UNREFERENCED_PARAMETER(info);
	switch (sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_REGISTER:
		if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof *in)
			return STATUS_BUFFER_TOO_SMALL;
		if (in->slot >= MAX_EVENTS)
			return STATUS_INVALID_PARAMETER;
#ifndef FIXED
		mode = KernelMode;
#else
		mode = irp->RequestorMode;
#endif
		s = ObReferenceObjectByHandle((HANDLE)(ULONG_PTR)in->handle, EVENT_MODIFY_STATE, *ExEventObjectType, mode,
			&event, NULL);
		if (NT_SUCCESS(s))
			Replace(roll, in->slot, event);
		return s;

	case IOCTL_FORGET:
		if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof in->slot)
			return STATUS_BUFFER_TOO_SMALL;
		if (in->slot >= MAX_EVENTS)
			return STATUS_INVALID_PARAMETER;
		Replace(roll, in->slot, NULL);
		return STATUS_SUCCESS;

	case IOCTL_RING:
		ExAcquireFastMutex(&roll->mutex);
		for (i = 0; i < MAX_EVENTS; i++)
			if (roll->event[i] != NULL)
				KeSetEvent(roll->event[i], IO_NO_INCREMENT, FALSE);
		ExReleaseFastMutex(&roll->mutex);
		InterlockedIncrement(&x->rung);
		return STATUS_SUCCESS;
	}
	return STATUS_INVALID_DEVICE_REQUEST;
}

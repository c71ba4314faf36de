/*
 * waitset: lets a program wait for any of up to sixteen of its events (more than it may at once by other means),
 * with one call and a limit of three seconds.
 *
 * The bug: the wait blocks lie in the device extension, one array for all; two threads that wait at the same time
 * link the same blocks into the wait lists of different events, which corrupts the dispatcher's lists.
 *
 * Device: none
 * Rule: wait-blocks-in-use
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>

#define AE_NAME L"AeWaitSet"
#define MAX_EVENTS 16
#define MAX_MS 3000

#define IOCTL_WAIT_ANY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_STATS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct WAIT_ANY {
	ULONG ms;
	ULONG count;
	ULONGLONG handle[1];		/* count of them */
} WAIT_ANY;

typedef struct AE_EXT {
	LONG waits;
	LONG timeouts;
#ifndef FIXED
	KWAIT_BLOCK blocks[MAX_EVENTS];
#endif
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
	UNREFERENCED_PARAMETER(dev);
	UNREFERENCED_PARAMETER(sp);
	return STATUS_SUCCESS;
}

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

static NTSTATUS WaitForOne(AE_EXT *x, PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info)
{
	ULONG length = sp->Parameters.DeviceIoControl.InputBufferLength;
	WAIT_ANY *in = irp->AssociatedIrp.SystemBuffer;
	PVOID object[MAX_EVENTS];
	PKWAIT_BLOCK blocks;
	LARGE_INTEGER limit;
	PULONGLONG handle;
	ULONG count, i;
	NTSTATUS s = STATUS_SUCCESS;
#ifndef FIXED
	blocks = x->blocks;
#else
	KWAIT_BLOCK own[MAX_EVENTS];

	blocks = own;
#endif
	if (length < FIELD_OFFSET(WAIT_ANY, handle) || sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
		return STATUS_BUFFER_TOO_SMALL;
	count = in->count;
	if (count == 0 || count > MAX_EVENTS || in->ms > MAX_MS)
		return STATUS_INVALID_PARAMETER;
	if (length - FIELD_OFFSET(WAIT_ANY, handle) < count * sizeof(ULONGLONG))
		return STATUS_BUFFER_TOO_SMALL;
	handle = (PULONGLONG)((PUCHAR)in + FIELD_OFFSET(WAIT_ANY, handle));
	for (i = 0; i < count; i++) {
		s = ObReferenceObjectByHandle((HANDLE)(ULONG_PTR)*handle++, SYNCHRONIZE, *ExEventObjectType,
			irp->RequestorMode, &object[i], NULL);
		if (!NT_SUCCESS(s))
			break;
	}
	if (i == count) {
		InterlockedIncrement(&x->waits);
		limit.QuadPart = -10000LL * in->ms;
		s = KeWaitForMultipleObjects(count, object, WaitAny, Executive, KernelMode, FALSE, &limit, blocks);
		if (s == STATUS_TIMEOUT) {
			InterlockedIncrement(&x->timeouts);
			s = STATUS_IO_TIMEOUT;
		} else if (NT_SUCCESS(s)) {
			*(PULONG)irp->AssociatedIrp.SystemBuffer = (ULONG)(s - STATUS_WAIT_0);
			*info = sizeof(ULONG);
			s = STATUS_SUCCESS;
		}
	}
	while (i-- != 0)
		ObDereferenceObject(object[i]);
	return s;
}

static NTSTATUS LegControl(PDEVICE_OBJECT dev, PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info)
{
	AE_EXT *x = dev->DeviceExtension;
	LONG *out = irp->AssociatedIrp.SystemBuffer;

	switch (sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_WAIT_ANY:
		return WaitForOne(x, irp, sp, info);
	case IOCTL_STATS:
		if (sp->Parameters.DeviceIoControl.OutputBufferLength < 2 * sizeof(LONG))
			return STATUS_BUFFER_TOO_SMALL;
		out[0] = x->waits;
		out[1] = x->timeouts;
		*info = 2 * sizeof(LONG);
		return STATUS_SUCCESS;
	}
	return STATUS_INVALID_DEVICE_REQUEST;
}

/*
 * oratory: a small notebook for each handle, opened with the rules of sharing of a file.
 *
 * The bug: an open that passed the sharing check and then finds no memory fails without giving its share back;
 * the device counts an opener that is not there, and a program that wants it exclusively is refused until it is unloaded.
 *
 * Device: none
 * Rule: share-access-kept
 * Needs: failure
 */
#include <ddk/wdm.h>

#define AE_NAME L"AeOratory"
#define NOTE_SIZE 256

#define IOCTL_SET_NOTE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_GET_NOTE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct NOTE {
	FAST_MUTEX mutex;
	ULONG length;
	UCHAR text[NOTE_SIZE];
} NOTE;

typedef struct AE_EXT {
	KMUTEX mutex;
	SHARE_ACCESS share;		/* under the mutex */
} AE_EXT;

#include "../include/loft_control.h"

static NTSTATUS LegInit(PDRIVER_OBJECT driver, PDEVICE_OBJECT dev, PUNICODE_STRING path)
{
	AE_EXT *x = dev->DeviceExtension;

	UNREFERENCED_PARAMETER(driver);
	UNREFERENCED_PARAMETER(path);
	KeInitializeMutex(&x->mutex, 0);
	return STATUS_SUCCESS;
}

static void LegExit(PDEVICE_OBJECT dev)
{
	UNREFERENCED_PARAMETER(dev);
}

static NTSTATUS LegCreate(PDEVICE_OBJECT dev, PIO_STACK_LOCATION sp)
{
	AE_EXT *x = dev->DeviceExtension;
	ACCESS_MASK access = sp->Parameters.Create.SecurityContext->DesiredAccess;
	ULONG share = sp->Parameters.Create.ShareAccess;
	NTSTATUS s = STATUS_SUCCESS;
	NOTE *note;

	KeWaitForSingleObject(&x->mutex, Executive, KernelMode, FALSE, NULL);
	if (x->share.OpenCount == 0)
		IoSetShareAccess(access, share, sp->FileObject, &x->share);
	else
		s = IoCheckShareAccess(access, share, sp->FileObject, &x->share, TRUE);
	if (NT_SUCCESS(s)) {
		note = ExAllocatePoolWithTag(NonPagedPool, sizeof *note, AE_TAG);
		if (note == NULL) {
#ifndef FIXED
#else
			IoRemoveShareAccess(sp->FileObject, &x->share);
#endif
			s = STATUS_INSUFFICIENT_RESOURCES;
		} else {
			RtlZeroMemory(note, sizeof *note);
			ExInitializeFastMutex(&note->mutex);
			sp->FileObject->FsContext = note;
		}
	}
	KeReleaseMutex(&x->mutex, FALSE);
	return s;
}

static void LegCleanup(PDEVICE_OBJECT dev, PFILE_OBJECT file)
{
	AE_EXT *x = dev->DeviceExtension;

	KeWaitForSingleObject(&x->mutex, Executive, KernelMode, FALSE, NULL);
	IoRemoveShareAccess(file, &x->share);
	KeReleaseMutex(&x->mutex, FALSE);
}

static void LegClose(PDEVICE_OBJECT dev, PFILE_OBJECT file)
{
	UNREFERENCED_PARAMETER(dev);
	ExFreePoolWithTag(file->FsContext, AE_TAG);
}

static NTSTATUS LegControl(PDEVICE_OBJECT dev, PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info)
{
	NOTE *note = sp->FileObject->FsContext;
	ULONG n;

	UNREFERENCED_PARAMETER(dev);
	switch (sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_SET_NOTE:
		n = sp->Parameters.DeviceIoControl.InputBufferLength;
		if (n > NOTE_SIZE)
			return STATUS_INVALID_PARAMETER;
		ExAcquireFastMutex(&note->mutex);
		if (n != 0)
			RtlCopyMemory(note->text, irp->AssociatedIrp.SystemBuffer, n);
		note->length = n;
		ExReleaseFastMutex(&note->mutex);
		return STATUS_SUCCESS;

	case IOCTL_GET_NOTE:
		n = sp->Parameters.DeviceIoControl.OutputBufferLength;
		ExAcquireFastMutex(&note->mutex);
		if (n > note->length)
			n = note->length;
		if (n != 0)
			RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, note->text, n);
		ExReleaseFastMutex(&note->mutex);
		*info = n;
		return STATUS_SUCCESS;
	}
	return STATUS_INVALID_DEVICE_REQUEST;
}

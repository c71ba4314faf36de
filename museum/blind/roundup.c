/*
 * roundup: keeps a list of the processes that have been started since the driver was loaded, and tells which of
 * them still run.
 *
 * The bug: on unload the notification is taken back while the mutex is held that the notification itself waits
 * for; taking it back waits for a notification in progress, and neither goes on.
 *
 * Device: none
 * Rule: deadlock
 * Needs: schedule
 */
#include <ddk/wdm.h>

#define AE_NAME L"AeRoundup"
#define MAX_KNOWN 1024

#define IOCTL_LIST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef VOID (NTAPI *NOTIFY_ROUTINE)(HANDLE parent, HANDLE process, BOOLEAN create);
NTSYSAPI NTSTATUS NTAPI PsSetCreateProcessNotifyRoutine(NOTIFY_ROUTINE routine, BOOLEAN remove);

typedef struct KNOWN {
	LIST_ENTRY link;
	HANDLE process;
} KNOWN;

typedef struct AE_EXT {
	KMUTEX mutex;			/* guards the rest */
	LIST_ENTRY list;
	ULONG count;
} AE_EXT;

#include "../include/loft_control.h"

static AE_EXT *Extension;		/* the notification has no context */

static VOID NTAPI Noted(HANDLE parent, HANDLE process, BOOLEAN create)
{
	AE_EXT *x = Extension;
	PLIST_ENTRY e;
	KNOWN *k = NULL;

	UNREFERENCED_PARAMETER(parent);
	if (create) {
		k = ExAllocatePoolWithTag(PagedPool, sizeof *k, AE_TAG);
		if (k == NULL)
			return;		/* this one is not listed */
		k->process = process;
	}
	KeWaitForSingleObject(&x->mutex, Executive, KernelMode, FALSE, NULL);
	if (create) {
		if (x->count < MAX_KNOWN) {
			InsertTailList(&x->list, &k->link);
			x->count++;
			k = NULL;
		}
	} else {
		for (e = x->list.Flink; e != &x->list; e = e->Flink) {
			KNOWN *one = CONTAINING_RECORD(e, KNOWN, link);

			if (one->process == process) {
				RemoveEntryList(e);
				x->count--;
				k = one;
				break;
			}
		}
	}
	KeReleaseMutex(&x->mutex, FALSE);
	if (k != NULL)
		ExFreePoolWithTag(k, AE_TAG);
}

static NTSTATUS LegInit(PDRIVER_OBJECT driver, PDEVICE_OBJECT dev, PUNICODE_STRING path)
{
	AE_EXT *x = dev->DeviceExtension;

	UNREFERENCED_PARAMETER(driver);
	UNREFERENCED_PARAMETER(path);
	KeInitializeMutex(&x->mutex, 0);
	InitializeListHead(&x->list);
	Extension = x;
	return PsSetCreateProcessNotifyRoutine(Noted, FALSE);
}

static void LegExit(PDEVICE_OBJECT dev)
{
	AE_EXT *x = dev->DeviceExtension;

#ifndef FIXED
	KeWaitForSingleObject(&x->mutex, Executive, KernelMode, FALSE, NULL);
	PsSetCreateProcessNotifyRoutine(Noted, TRUE);
#else
	PsSetCreateProcessNotifyRoutine(Noted, TRUE);
	KeWaitForSingleObject(&x->mutex, Executive, KernelMode, FALSE, NULL);
#endif
	while (!IsListEmpty(&x->list))
		ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&x->list), KNOWN, link), AE_TAG);
	x->count = 0;
	KeReleaseMutex(&x->mutex, FALSE);
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

static NTSTATUS LegControl(PDEVICE_OBJECT dev, PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info)
{
	AE_EXT *x = dev->DeviceExtension;
	ULONGLONG *out = irp->AssociatedIrp.SystemBuffer;
	ULONG room = sp->Parameters.DeviceIoControl.OutputBufferLength / sizeof(ULONGLONG);
	PLIST_ENTRY e;
	ULONG n = 0;

	if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_LIST)
		return STATUS_INVALID_DEVICE_REQUEST;
	KeWaitForSingleObject(&x->mutex, Executive, KernelMode, FALSE, NULL);
	for (e = x->list.Flink; e != &x->list && n < room; e = e->Flink)
		out[n++] = (ULONGLONG)(ULONG_PTR)CONTAINING_RECORD(e, KNOWN, link)->process;
	KeReleaseMutex(&x->mutex, FALSE);
	*info = n * sizeof(ULONGLONG);
	return STATUS_SUCCESS;
}

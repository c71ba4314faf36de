/*
 * assay: keeps the last measurements of programs, as many as the value Limit of the service's key says, and may
 * read its settings anew.
 *
 * The bug: the settings are read straight into 32-bit variables without a check of the type of the value; a string
 * or a longer binary under that name is written as such, over the variables that follow.
 *
 * Device: none
 * Rule: registry-direct-type
 * Needs: registry, ioctl
 */
#include <ddk/wdm.h>

#define AE_NAME L"AeAssay"
#define MAX_KEPT 256

#ifndef RTL_QUERY_REGISTRY_TYPECHECK
#define RTL_QUERY_REGISTRY_TYPECHECK 0x00000100
#define RTL_QUERY_REGISTRY_TYPECHECK_SHIFT 24
#endif

#define IOCTL_PUT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_RELOAD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct SETTINGS {
	ULONG limit;
	ULONG floor;
} SETTINGS;

typedef struct AE_EXT {
	PWSTR key;			/* the service's key, ended by a zero */
	FAST_MUTEX mutex;		/* guards the rest */
	SETTINGS set;
	ULONG count;
	ULONG kept[MAX_KEPT];
} AE_EXT;

#include "../include/loft_control.h"

static void ReadSettings(AE_EXT *x, SETTINGS *set)
{
	RTL_QUERY_REGISTRY_TABLE t[3];

	set->limit = 64;
	set->floor = 0;
	RtlZeroMemory(t, sizeof t);
	t[0].Name = L"Limit";
	t[0].EntryContext = &set->limit;
	t[1].Name = L"Floor";
	t[1].EntryContext = &set->floor;
#ifndef FIXED
	t[0].Flags = t[1].Flags = RTL_QUERY_REGISTRY_DIRECT;
	t[0].DefaultType = t[1].DefaultType = REG_NONE;
#else
	t[0].Flags = t[1].Flags = RTL_QUERY_REGISTRY_DIRECT | RTL_QUERY_REGISTRY_TYPECHECK;
	t[0].DefaultType = t[1].DefaultType = ((ULONG)REG_DWORD << RTL_QUERY_REGISTRY_TYPECHECK_SHIFT) | REG_NONE;
#endif
	/* what cannot be read keeps its default */
	if (!NT_SUCCESS(RtlQueryRegistryValues(RTL_REGISTRY_ABSOLUTE, x->key, t, NULL, NULL)))
		set->limit = 64, set->floor = 0;
	if (set->limit == 0 || set->limit > MAX_KEPT)
		set->limit = MAX_KEPT;
}

static NTSTATUS LegInit(PDRIVER_OBJECT driver, PDEVICE_OBJECT dev, PUNICODE_STRING path)
{
	AE_EXT *x = dev->DeviceExtension;

	UNREFERENCED_PARAMETER(driver);
	ExInitializeFastMutex(&x->mutex);
	x->key = ExAllocatePoolWithTag(PagedPool, path->Length + sizeof(WCHAR), AE_TAG);
	if (x->key == NULL)
		return STATUS_INSUFFICIENT_RESOURCES;
	RtlCopyMemory(x->key, path->Buffer, path->Length);
	x->key[path->Length / sizeof(WCHAR)] = 0;
	ReadSettings(x, &x->set);
	return STATUS_SUCCESS;
}

static void LegExit(PDEVICE_OBJECT dev)
{
	AE_EXT *x = dev->DeviceExtension;

	ExFreePoolWithTag(x->key, AE_TAG);
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
	PULONG buffer = irp->AssociatedIrp.SystemBuffer;
	NTSTATUS s = STATUS_SUCCESS;
	SETTINGS set;
	ULONG n;

	switch (sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_PUT:
		if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
			return STATUS_BUFFER_TOO_SMALL;
		ExAcquireFastMutex(&x->mutex);
		if (buffer[0] < x->set.floor)
			s = STATUS_INVALID_PARAMETER;
		else if (x->count >= x->set.limit)
			s = STATUS_QUOTA_EXCEEDED;
		else
			x->kept[x->count++] = buffer[0];
		ExReleaseFastMutex(&x->mutex);
		return s;

	case IOCTL_GET:
		ExAcquireFastMutex(&x->mutex);
		n = sp->Parameters.DeviceIoControl.OutputBufferLength / sizeof(ULONG);
		if (n > x->count)
			n = x->count;
		if (n != 0) {
			RtlCopyMemory(buffer, x->kept, n * sizeof(ULONG));
			x->count -= n;
			RtlMoveMemory(x->kept, x->kept + n, x->count * sizeof(ULONG));
		}
		ExReleaseFastMutex(&x->mutex);
		*info = n * sizeof(ULONG);
		return STATUS_SUCCESS;

	case IOCTL_RELOAD:
		ReadSettings(x, &set);
		ExAcquireFastMutex(&x->mutex);
		x->set = set;
		ExReleaseFastMutex(&x->mutex);
		return STATUS_SUCCESS;
	}
	return STATUS_INVALID_DEVICE_REQUEST;
}

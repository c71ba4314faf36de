/*
 * sundew: scrambles and unscrambles what programs pass, with a table of substitutions that the driver makes from a seed. Programs may have
 * the table made anew from another seed.
 *
 * The bug: the table is freed when the device is surprise-removed, after a mark has been set that turns new requests away. A request that is
 * past the mark and still at work goes on reading the freed table; no one has waited for it.
 *
 * Device: Root\sundew
 * Rule: use-after-free, wild-read, data-race
 * Needs: ioctl, schedule, removal
 */
#include <ddk/wdm.h>
#include "../include/stall_frame.h"

#define TAG UU_TAG('S', 'n', 'd', 'w')

#define IOCTL_SCRAMBLE   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x920, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_UNSCRAMBLE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x921, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SEED       CTL_CODE(FILE_DEVICE_UNKNOWN, 0x922, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define LONGEST 4096
#define FIRST_SEED 20011

typedef struct _TABLE {
	UCHAR There[256];
	UCHAR Back[256];
} TABLE, *PTABLE;

typedef struct _SUNDEW {
	PLUG P;
	FAST_MUTEX Mutex;       /* the table is made under it, and used */
	KSPIN_LOCK MarkLock;
	BOOLEAN Away;
	PTABLE Table;
} SUNDEW, *PSUNDEW;

static const GUID Class = { 0x8e0c1d5a, 0x11a1, 0x4f60, { 0x90, 0x11, 0x55, 0x55, 0x01, 0x02, 0x03, 0x0d } };

DRIVER_INITIALIZE DriverEntry;

static VOID Make(PTABLE Table, ULONG Seed)
{
	ULONG i, j;
	UCHAR byte;

	for (i = 0; i < 256; i++)
		Table->There[i] = (UCHAR)i;
	for (i = 255; i > 0; i--) {
		Seed = Seed * 1664525 + 1013904223;
		j = (Seed >> 8) % (i + 1);
		byte = Table->There[i];
		Table->There[i] = Table->There[j];
		Table->There[j] = byte;
	}
	for (i = 0; i < 256; i++)
		Table->Back[Table->There[i]] = (UCHAR)i;
}

static BOOLEAN IsAway(PSUNDEW X)
{
	BOOLEAN away;
	KIRQL irql;

	KeAcquireSpinLock(&X->MarkLock, &irql);
	away = X->Away;
	KeReleaseSpinLock(&X->MarkLock, irql);
	return away;
}

static NTSTATUS Substitute(PSUNDEW X, PUCHAR Bytes, ULONG Length, BOOLEAN Back)
{
	const UCHAR *table;
	ULONG i;

	if (Length == 0 || Length > LONGEST)
		return STATUS_INVALID_PARAMETER;
	if (IsAway(X))
		return STATUS_DEVICE_REMOVED;
	ExAcquireFastMutex(&X->Mutex);
	table = Back ? X->Table->Back : X->Table->There;
	for (i = 0; i < Length; i++)
		Bytes[i] = table[Bytes[i]];
	ExReleaseFastMutex(&X->Mutex);
	return STATUS_SUCCESS;
}

static NTSTATUS Answer(PPLUG P, PIRP Irp, PIO_STACK_LOCATION Sp, PULONG_PTR Bytes)
{
	PSUNDEW x = (PSUNDEW)P;
	PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
	ULONG in = Sp->Parameters.DeviceIoControl.InputBufferLength;
	ULONG out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
	ULONG code;

	switch (Sp->MajorFunction) {
	case IRP_MJ_CREATE:
	case IRP_MJ_CLOSE:
	case IRP_MJ_CLEANUP:
		return STATUS_SUCCESS;
	case IRP_MJ_DEVICE_CONTROL:
		break;
	default:
		return STATUS_INVALID_DEVICE_REQUEST;
	}
	code = Sp->Parameters.DeviceIoControl.IoControlCode;
	switch (code) {
	case IOCTL_SCRAMBLE:
	case IOCTL_UNSCRAMBLE:
		if (out < in)
			return STATUS_BUFFER_TOO_SMALL;
		*Bytes = in;
		return Substitute(x, buffer, in, code == IOCTL_UNSCRAMBLE);
	case IOCTL_SEED:
		if (in < sizeof(ULONG))
			return STATUS_BUFFER_TOO_SMALL;
		if (IsAway(x))
			return STATUS_DEVICE_REMOVED;
		ExAcquireFastMutex(&x->Mutex);
		Make(x->Table, *(PULONG)buffer);
		ExReleaseFastMutex(&x->Mutex);
		return STATUS_SUCCESS;
	default:
		return STATUS_INVALID_DEVICE_REQUEST;
	}
}

/* ---- hooks ---- */

static NTSTATUS Prepare(PPLUG P)
{
	PSUNDEW x = (PSUNDEW)P;

	ExInitializeFastMutex(&x->Mutex);
	KeInitializeSpinLock(&x->MarkLock);
	x->Table = ExAllocatePoolWithTag(NonPagedPool, sizeof(TABLE), TAG);
	if (x->Table == NULL)
		return STATUS_INSUFFICIENT_RESOURCES;
	Make(x->Table, FIRST_SEED);
	return STATUS_SUCCESS;
}

static VOID FreeTable(PSUNDEW X)
{
	if (X->Table != NULL)
		ExFreePoolWithTag(X->Table, TAG);
	X->Table = NULL;
}

/* The device is gone, or is about to go. */
static VOID Gone(PPLUG P)
{
	PSUNDEW x = (PSUNDEW)P;
	KIRQL irql;

	KeAcquireSpinLock(&x->MarkLock, &irql);
	x->Away = TRUE;
	KeReleaseSpinLock(&x->MarkLock, irql);
#ifndef FIXED
	FreeTable(x);
#endif
}

/* No one is in the driver for this device any more. */
static VOID Bury(PPLUG P)
{
	FreeTable((PSUNDEW)P);
}

static const PLUG_HOOKS Hooks = {
	.Size = sizeof(SUNDEW), .DeviceFlags = DO_BUFFERED_IO, .Class = &Class,
	.Prepare = Prepare, .Gone = Gone, .Bury = Bury, .Answer = Answer,
};

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
	return PlugAdd(Driver, Pdo, &Hooks);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
	(void)Driver;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
	(void)Path;
	PlugEntries(Driver, AddDevice, Unload);
	return STATUS_SUCCESS;
}

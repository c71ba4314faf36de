/*
 * thimble: keeps patterns for an embroidery program: pieces of data under a number. A program loads a whole set at once, as a chain of items,
 * and gets each by its number; a new set takes the place of the one before.
 *
 * The bug: an item's data have to end before the next item begins, which is looked at; no one looks whether those of the last item, which has
 * no next, end within what the program has passed.
 *
 * Device: Root\thimble
 * Rule: wild-read, bad-pointer, pool-overrun
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/stall_frame.h"

#define TAG UU_TAG('T', 'h', 'm', 'b')

#define IOCTL_LOAD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x910, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_GET  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x911, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define MOST_ITEMS 64
#define LONGEST 4096

typedef struct _ITEM {
	ULONG Next;             /* from this item's beginning; 0: it is the last */
	USHORT Number;
	USHORT Length;          /* of the data, which follow */
} ITEM;

typedef struct _PATTERN {
	LIST_ENTRY Link;
	USHORT Number;
	USHORT Length;
	UCHAR Data[];
} PATTERN, *PPATTERN;

typedef struct _THIMBLE {
	PLUG P;
	FAST_MUTEX Mutex;
	LIST_ENTRY Patterns;
} THIMBLE, *PTHIMBLE;

static const GUID Class = { 0x8e0c1d5a, 0x11a1, 0x4f60, { 0x90, 0x11, 0x55, 0x55, 0x01, 0x02, 0x03, 0x0c } };

DRIVER_INITIALIZE DriverEntry;

static VOID FreeAll(PLIST_ENTRY List)
{
	while (!IsListEmpty(List))
		ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(List), PATTERN, Link), TAG);
}

static NTSTATUS Keep(PLIST_ENTRY List, const ITEM *Item, const UCHAR *Data)
{
	PPATTERN pattern = ExAllocatePoolWithTag(PagedPool, FIELD_OFFSET(PATTERN, Data) + Item->Length, TAG);

	if (pattern == NULL)
		return STATUS_INSUFFICIENT_RESOURCES;
	pattern->Number = Item->Number;
	pattern->Length = Item->Length;
	RtlCopyMemory(pattern->Data, Data, Item->Length);
	InsertTailList(List, &pattern->Link);
	return STATUS_SUCCESS;
}

static NTSTATUS Parse(const UCHAR *From, ULONG Left, PLIST_ENTRY List)
{
	NTSTATUS status;
	ULONG count;
	ITEM item;

	for (count = 0; count < MOST_ITEMS; count++) {
		if (Left < sizeof(ITEM))
			return STATUS_INVALID_PARAMETER;
		item = *(const ITEM *)From;
		if (item.Length > LONGEST || item.Next > Left || item.Next % sizeof(ULONG) != 0)
			return STATUS_INVALID_PARAMETER;
#ifndef FIXED
		if (item.Next != 0 && sizeof(ITEM) + item.Length > item.Next)
			return STATUS_INVALID_PARAMETER;
#else
		if (sizeof(ITEM) + item.Length > (item.Next != 0 ? item.Next : Left))
			return STATUS_INVALID_PARAMETER;
#endif
		status = Keep(List, &item, From + sizeof(ITEM));
		if (!NT_SUCCESS(status))
			return status;
		if (item.Next == 0)
			return STATUS_SUCCESS;
		From += item.Next;
		Left -= item.Next;
	}
	return STATUS_INVALID_PARAMETER;
}

static NTSTATUS Load(PTHIMBLE X, const UCHAR *From, ULONG Length)
{
	LIST_ENTRY fresh, old;
	NTSTATUS status;

	InitializeListHead(&fresh);
	InitializeListHead(&old);
	status = Parse(From, Length, &fresh);
	if (!NT_SUCCESS(status)) {
		FreeAll(&fresh);
		return status;
	}
	ExAcquireFastMutex(&X->Mutex);
	while (!IsListEmpty(&X->Patterns))
		InsertTailList(&old, RemoveHeadList(&X->Patterns));
	while (!IsListEmpty(&fresh))
		InsertTailList(&X->Patterns, RemoveHeadList(&fresh));
	ExReleaseFastMutex(&X->Mutex);
	FreeAll(&old);
	return STATUS_SUCCESS;
}

static NTSTATUS Get(PTHIMBLE X, USHORT Number, PVOID To, ULONG Room, PULONG_PTR Bytes)
{
	NTSTATUS status = STATUS_NOT_FOUND;
	PLIST_ENTRY entry;

	ExAcquireFastMutex(&X->Mutex);
	for (entry = X->Patterns.Flink; entry != &X->Patterns; entry = entry->Flink) {
		PPATTERN pattern = CONTAINING_RECORD(entry, PATTERN, Link);

		if (pattern->Number != Number)
			continue;
		if (pattern->Length > Room) {
			status = STATUS_BUFFER_TOO_SMALL;
		} else {
			RtlCopyMemory(To, pattern->Data, pattern->Length);
			*Bytes = pattern->Length;
			status = STATUS_SUCCESS;
		}
		break;
	}
	ExReleaseFastMutex(&X->Mutex);
	return status;
}

static NTSTATUS Answer(PPLUG P, PIRP Irp, PIO_STACK_LOCATION Sp, PULONG_PTR Bytes)
{
	PTHIMBLE x = (PTHIMBLE)P;
	PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
	ULONG in = Sp->Parameters.DeviceIoControl.InputBufferLength;
	ULONG out = Sp->Parameters.DeviceIoControl.OutputBufferLength;

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
	switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_LOAD:
		return Load(x, buffer, in);
	case IOCTL_GET:
		if (in < sizeof(USHORT))
			return STATUS_BUFFER_TOO_SMALL;
		return Get(x, *(PUSHORT)buffer, buffer, out, Bytes);
	default:
		return STATUS_INVALID_DEVICE_REQUEST;
	}
}

/* ---- hooks ---- */

static NTSTATUS Prepare(PPLUG P)
{
	PTHIMBLE x = (PTHIMBLE)P;

	ExInitializeFastMutex(&x->Mutex);
	InitializeListHead(&x->Patterns);
	return STATUS_SUCCESS;
}

static VOID Bury(PPLUG P)
{
	FreeAll(&((PTHIMBLE)P)->Patterns);
}

static const PLUG_HOOKS Hooks = {
	.Size = sizeof(THIMBLE), .DeviceFlags = DO_BUFFERED_IO, .Class = &Class,
	.Prepare = Prepare, .Bury = Bury, .Answer = Answer,
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

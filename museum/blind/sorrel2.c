/*
 * sorrel: a store of short texts (recipes, say) that programs share by number. PUBLISH leaves a text under a new number, READ copies
 * it out, RETRACT takes it away; a text that is being read stays until its last reader has done with it.
 *
 * The bug: who gives a text back counts down and then looks at the counter once more; two that give back at the same time both see
 * nothing left and both free it, or the slower one looks into what the other has freed.
 *
 * Device: none
 * Rule: double-free, use-after-free, data-race
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>
#include "../include/stall_frame.h"

#define NAME L"\\Device\\Sorrel"
#define LINK L"\\DosDevices\\Sorrel"
#define TAG UU_TAG('S', 'r', 'e', 'l')

#define IOCTL_PUBLISH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x830, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_READ    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x831, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_RETRACT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x832, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define MOST_TEXTS 64
#define LONGEST 512

typedef struct _TEXT {
	LIST_ENTRY Link;
	ULONG Number;
	volatile LONG Users;            /* the store itself is one */
	volatile LONG Reads;
	ULONG Length;
	UCHAR Bytes[];
} TEXT, *PTEXT;

typedef struct _STORE {
	KSPIN_LOCK Lock;
	LIST_ENTRY Texts;
	ULONG Count;
	ULONG Next;
} STORE, *PSTORE;

DRIVER_INITIALIZE DriverEntry;

static VOID PutBack(PTEXT Text)
{
#ifndef FIXED
	InterlockedDecrement(&Text->Users);
	if (Text->Users == 0)
		ExFreePoolWithTag(Text, TAG);
#else
	if (InterlockedDecrement(&Text->Users) == 0)
		ExFreePoolWithTag(Text, TAG);
#endif
}

/* Finds a text and counts the caller as a user of it; with `Remove` the store ceases to be one, and its count becomes the caller's. */
static PTEXT Find(PSTORE Store, ULONG Number, BOOLEAN Remove)
{
	PTEXT found = NULL;
	PLIST_ENTRY entry;
	KIRQL irql;

	KeAcquireSpinLock(&Store->Lock, &irql);
	for (entry = Store->Texts.Flink; entry != &Store->Texts; entry = entry->Flink) {
		PTEXT text = CONTAINING_RECORD(entry, TEXT, Link);

		if (text->Number != Number)
			continue;
		if (Remove) {
			RemoveEntryList(entry);
			Store->Count--;
		} else {
			InterlockedIncrement(&text->Users);
		}
		found = text;
		break;
	}
	KeReleaseSpinLock(&Store->Lock, irql);
	return found;
}

static NTSTATUS Publish(PSTORE Store, PVOID Buffer, ULONG Length)
{
	PTEXT text;
	KIRQL irql;

	if (Length == 0 || Length > LONGEST)
		return STATUS_INVALID_PARAMETER;
	text = ExAllocatePoolWithTag(NonPagedPool, FIELD_OFFSET(TEXT, Bytes) + Length, TAG);
	if (text == NULL)
		return STATUS_INSUFFICIENT_RESOURCES;
	text->Users = 1;
	text->Reads = 0;
	text->Length = Length;
	RtlCopyMemory(text->Bytes, Buffer, Length);
	KeAcquireSpinLock(&Store->Lock, &irql);
	if (Store->Count >= MOST_TEXTS) {
		KeReleaseSpinLock(&Store->Lock, irql);
		ExFreePoolWithTag(text, TAG);
		return STATUS_QUOTA_EXCEEDED;
	}
	text->Number = Store->Next++;
	Store->Count++;
	InsertTailList(&Store->Texts, &text->Link);
	*(PULONG)Buffer = text->Number;         /* under the lock: it may be retracted behind it */
	KeReleaseSpinLock(&Store->Lock, irql);
	return STATUS_SUCCESS;
}

static NTSTATUS Control(PSTORE Store, PIRP Irp, PIO_STACK_LOCATION Sp, PULONG_PTR Bytes)
{
	PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
	ULONG in = Sp->Parameters.DeviceIoControl.InputBufferLength;
	ULONG out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
	NTSTATUS status;
	PTEXT text;

	switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_PUBLISH:
		if (out < sizeof(ULONG))
			return STATUS_BUFFER_TOO_SMALL;
		status = Publish(Store, buffer, in);
		if (NT_SUCCESS(status))
			*Bytes = sizeof(ULONG);
		return status;
	case IOCTL_READ:
		if (in < sizeof(ULONG))
			return STATUS_BUFFER_TOO_SMALL;
		text = Find(Store, *(PULONG)buffer, FALSE);
		if (text == NULL)
			return STATUS_NOT_FOUND;
		if (out < text->Length) {
			status = STATUS_BUFFER_TOO_SMALL;
		} else {
			RtlCopyMemory(buffer, text->Bytes, text->Length);
			InterlockedIncrement(&text->Reads);
			*Bytes = text->Length;
			status = STATUS_SUCCESS;
		}
		PutBack(text);
		return status;
	case IOCTL_RETRACT:
		if (in < sizeof(ULONG))
			return STATUS_BUFFER_TOO_SMALL;
		text = Find(Store, *(PULONG)buffer, TRUE);
		if (text == NULL)
			return STATUS_NOT_FOUND;
		PutBack(text);
		return STATUS_SUCCESS;
	default:
		return STATUS_INVALID_DEVICE_REQUEST;
	}
}

static NTSTATUS Answer(PDEVICE_OBJECT Device, PIRP Irp, PIO_STACK_LOCATION Sp, PULONG_PTR Bytes)
{
	if (Sp->MajorFunction == IRP_MJ_DEVICE_CONTROL)
		return Control(Device->DeviceExtension, Irp, Sp, Bytes);
	return STATUS_SUCCESS;
}

static NTSTATUS NTAPI Dispatch(PDEVICE_OBJECT Device, PIRP Irp)
{
	return SoftDispatch(Device, Irp, Answer);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
	PSTORE store = Driver->DeviceObject->DeviceExtension;

	while (!IsListEmpty(&store->Texts))
		PutBack(CONTAINING_RECORD(RemoveHeadList(&store->Texts), TEXT, Link));
	SoftFell(Driver->DeviceObject, LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
	PDEVICE_OBJECT device;
	PSTORE store;
	NTSTATUS status;

	(void)Path;
	status = SoftRaise(Driver, NAME, LINK, sizeof(STORE), DO_BUFFERED_IO, &device);
	if (!NT_SUCCESS(status))
		return status;
	store = device->DeviceExtension;
	KeInitializeSpinLock(&store->Lock);
	InitializeListHead(&store->Texts);
	store->Next = 1;
	SOFT_ENTRIES(Driver, Dispatch);
	Driver->DriverUnload = Unload;
	SoftReady(device);
	return STATUS_SUCCESS;
}

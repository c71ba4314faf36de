/*
 * ottoman: a scratch file in memory. Writes add to its end, reads take from any place of it, EMPTY begins it anew. Its buffer begins
 * small and is doubled as often as a write needs it, up to a limit.
 *
 * The bug: the new size is noted before the larger buffer has been allocated. If there is no memory the write fails, as it should, but the
 * driver believes from then on that the old buffer is larger than it is, and a later write runs over its end.
 *
 * Device: none
 * Rule: pool-overrun, wild-write
 * Needs: ioctl, failure
 */
#include <ddk/wdm.h>
#include "../include/stall_frame.h"

#define NAME L"\\Device\\Ottoman"
#define LINK L"\\DosDevices\\Ottoman"
#define TAG UU_TAG('O', 't', 't', 'o')

#define IOCTL_EMPTY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x860, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_FILL  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x861, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define FIRST_ROOM 64
#define MOST_ROOM (256 * 1024)

typedef struct _FILL {
	ULONG Used;
	ULONG Room;
} FILL;

typedef struct _CHEST {
	FAST_MUTEX Mutex;
	PUCHAR Bytes;
	ULONG Used;
	ULONG Room;
} CHEST, *PCHEST;

DRIVER_INITIALIZE DriverEntry;

/* Makes room for `Need` bytes; the mutex is held. */
static NTSTATUS Grow(PCHEST Chest, ULONG Need)
{
	PUCHAR larger;

	if (Need <= Chest->Room)
		return STATUS_SUCCESS;
#ifndef FIXED
	while (Chest->Room < Need)
		Chest->Room *= 2;
	larger = ExAllocatePoolWithTag(PagedPool, Chest->Room, TAG);
	if (larger == NULL)
		return STATUS_INSUFFICIENT_RESOURCES;
#else
	ULONG room = Chest->Room;

	while (room < Need)
		room *= 2;
	larger = ExAllocatePoolWithTag(PagedPool, room, TAG);
	if (larger == NULL)
		return STATUS_INSUFFICIENT_RESOURCES;
	Chest->Room = room;
#endif
	RtlCopyMemory(larger, Chest->Bytes, Chest->Used);
	ExFreePoolWithTag(Chest->Bytes, TAG);
	Chest->Bytes = larger;
	return STATUS_SUCCESS;
}

static NTSTATUS Add(PCHEST Chest, const VOID *From, ULONG Length)
{
	NTSTATUS status;

	if (Length == 0)
		return STATUS_SUCCESS;
	ExAcquireFastMutex(&Chest->Mutex);
	if (Length > MOST_ROOM - Chest->Used) {
		status = STATUS_DISK_FULL;
	} else {
		status = Grow(Chest, Chest->Used + Length);
		if (NT_SUCCESS(status)) {
			RtlCopyMemory(Chest->Bytes + Chest->Used, From, Length);
			Chest->Used += Length;
		}
	}
	ExReleaseFastMutex(&Chest->Mutex);
	return status;
}

static NTSTATUS Take(PCHEST Chest, PVOID To, ULONG Length, LONGLONG From, PULONG_PTR Bytes)
{
	NTSTATUS status = STATUS_SUCCESS;
	ULONG left;

	if (Length == 0)
		return STATUS_SUCCESS;
	if (From < 0)
		return STATUS_INVALID_PARAMETER;
	ExAcquireFastMutex(&Chest->Mutex);
	if (From >= Chest->Used) {
		status = STATUS_END_OF_FILE;
	} else {
		left = Chest->Used - (ULONG)From;
		if (Length > left)
			Length = left;
		RtlCopyMemory(To, Chest->Bytes + (ULONG)From, Length);
		*Bytes = Length;
	}
	ExReleaseFastMutex(&Chest->Mutex);
	return status;
}

static NTSTATUS Control(PCHEST Chest, PIRP Irp, PIO_STACK_LOCATION Sp, PULONG_PTR Bytes)
{
	FILL fill;

	switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_EMPTY:
		ExAcquireFastMutex(&Chest->Mutex);
		Chest->Used = 0;
		ExReleaseFastMutex(&Chest->Mutex);
		return STATUS_SUCCESS;
	case IOCTL_FILL:
		if (Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(FILL))
			return STATUS_BUFFER_TOO_SMALL;
		ExAcquireFastMutex(&Chest->Mutex);
		fill.Used = Chest->Used;
		fill.Room = Chest->Room;
		ExReleaseFastMutex(&Chest->Mutex);
		*(FILL *)Irp->AssociatedIrp.SystemBuffer = fill;
		*Bytes = sizeof(FILL);
		return STATUS_SUCCESS;
	default:
		return STATUS_INVALID_DEVICE_REQUEST;
	}
}

static NTSTATUS Answer(PDEVICE_OBJECT Device, PIRP Irp, PIO_STACK_LOCATION Sp, PULONG_PTR Bytes)
{
	PCHEST chest = Device->DeviceExtension;
	NTSTATUS status;

	switch (Sp->MajorFunction) {
	case IRP_MJ_WRITE:
		status = Add(chest, Irp->AssociatedIrp.SystemBuffer, Sp->Parameters.Write.Length);
		*Bytes = Sp->Parameters.Write.Length;
		return status;
	case IRP_MJ_READ:
		return Take(chest, Irp->AssociatedIrp.SystemBuffer, Sp->Parameters.Read.Length, Sp->Parameters.Read.ByteOffset.QuadPart, Bytes);
	case IRP_MJ_DEVICE_CONTROL:
		return Control(chest, Irp, Sp, Bytes);
	default:
		return STATUS_SUCCESS;
	}
}

static NTSTATUS NTAPI Dispatch(PDEVICE_OBJECT Device, PIRP Irp)
{
	return SoftDispatch(Device, Irp, Answer);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
	PCHEST chest = Driver->DeviceObject->DeviceExtension;

	ExFreePoolWithTag(chest->Bytes, TAG);
	SoftFell(Driver->DeviceObject, LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
	PDEVICE_OBJECT device;
	NTSTATUS status;
	PCHEST chest;

	(void)Path;
	status = SoftRaise(Driver, NAME, LINK, sizeof(CHEST), DO_BUFFERED_IO, &device);
	if (!NT_SUCCESS(status))
		return status;
	chest = device->DeviceExtension;
	ExInitializeFastMutex(&chest->Mutex);
	chest->Bytes = ExAllocatePoolWithTag(PagedPool, FIRST_ROOM, TAG);
	if (chest->Bytes == NULL) {
		SoftFell(device, LINK);
		return STATUS_INSUFFICIENT_RESOURCES;
	}
	chest->Room = FIRST_ROOM;
	SOFT_ENTRIES(Driver, Dispatch);
	Driver->MajorFunction[IRP_MJ_READ] = Dispatch;
	Driver->MajorFunction[IRP_MJ_WRITE] = Dispatch;
	Driver->DriverUnload = Unload;
	SoftReady(device);
	return STATUS_SUCCESS;
}

/*
 * parquet: the seating plan of a small theatre, kept by a driver so that several box offices share it. A box office books a block of
 * seats (a rectangle of rows and seats), asks who holds a seat, and gives back all that it holds.
 *
 * The bug: a block's size is compared with the size of the whole plan, not with what is left of it from the block's first row and
 * seat on, so a block that begins in the last row reaches behind the table.
 *
 * Device: none
 * Rule: pool-overrun, wild-write, wild-read
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/stall_frame.h"

#define NAME L"\\Device\\Parquet"
#define LINK L"\\DosDevices\\Parquet"
#define TAG UU_TAG('P', 'q', 'e', 't')

#define IOCTL_BOOK      CTL_CODE(FILE_DEVICE_UNKNOWN, 0x810, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_WHOSE     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x811, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_GIVE_BACK CTL_CODE(FILE_DEVICE_UNKNOWN, 0x812, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define ROWS 24
#define SEATS 40

typedef struct _BLOCK {
	USHORT Row, Seat;
	USHORT Rows, Seats;
	USHORT Office;                  /* 0 is no one */
} BLOCK;

typedef struct _PLACE {
	USHORT Row, Seat;
} PLACE;

typedef struct _HOUSE {
	KSPIN_LOCK Lock;
	PUSHORT Plan;                   /* ROWS * SEATS offices */
	ULONG Sold;
} HOUSE, *PHOUSE;

DRIVER_INITIALIZE DriverEntry;

static NTSTATUS Book(PHOUSE House, const BLOCK *Want)
{
	ULONG row, seat;
	PUSHORT line;
	KIRQL irql;

	if (Want->Office == 0 || Want->Rows == 0 || Want->Seats == 0)
		return STATUS_INVALID_PARAMETER;
	if (Want->Row >= ROWS || Want->Seat >= SEATS)
		return STATUS_INVALID_PARAMETER;
#ifndef FIXED
	if (Want->Rows > ROWS || Want->Seats > SEATS)
		return STATUS_INVALID_PARAMETER;
#else
	if (Want->Rows > ROWS - Want->Row || Want->Seats > SEATS - Want->Seat)
		return STATUS_INVALID_PARAMETER;
#endif

	KeAcquireSpinLock(&House->Lock, &irql);
	for (row = 0; row < Want->Rows; row++) {
		line = House->Plan + (Want->Row + row) * SEATS + Want->Seat;
		for (seat = 0; seat < Want->Seats; seat++) {
			if (line[seat] != 0) {
				KeReleaseSpinLock(&House->Lock, irql);
				return STATUS_SHARING_VIOLATION;
			}
		}
	}
	for (row = 0; row < Want->Rows; row++) {
		line = House->Plan + (Want->Row + row) * SEATS + Want->Seat;
		for (seat = 0; seat < Want->Seats; seat++)
			line[seat] = Want->Office;
	}
	House->Sold += (ULONG)Want->Rows * Want->Seats;
	KeReleaseSpinLock(&House->Lock, irql);
	return STATUS_SUCCESS;
}

static ULONG GiveBack(PHOUSE House, USHORT Office)
{
	ULONG i, freed = 0;
	KIRQL irql;

	KeAcquireSpinLock(&House->Lock, &irql);
	for (i = 0; i < ROWS * SEATS; i++) {
		if (House->Plan[i] == Office) {
			House->Plan[i] = 0;
			freed++;
		}
	}
	House->Sold -= freed;
	KeReleaseSpinLock(&House->Lock, irql);
	return freed;
}

static NTSTATUS Control(PHOUSE House, PIRP Irp, PIO_STACK_LOCATION Sp, PULONG_PTR Bytes)
{
	PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
	ULONG in = Sp->Parameters.DeviceIoControl.InputBufferLength;
	ULONG out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
	KIRQL irql;

	switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_BOOK: {
		BLOCK want;

		if (in < sizeof(want))
			return STATUS_BUFFER_TOO_SMALL;
		want = *(const BLOCK *)buffer;
		return Book(House, &want);
	}
	case IOCTL_WHOSE: {
		PLACE place;

		if (in < sizeof(place) || out < sizeof(USHORT))
			return STATUS_BUFFER_TOO_SMALL;
		place = *(const PLACE *)buffer;
		if (place.Row >= ROWS || place.Seat >= SEATS)
			return STATUS_INVALID_PARAMETER;
		KeAcquireSpinLock(&House->Lock, &irql);
		*(PUSHORT)buffer = House->Plan[place.Row * SEATS + place.Seat];
		KeReleaseSpinLock(&House->Lock, irql);
		*Bytes = sizeof(USHORT);
		return STATUS_SUCCESS;
	}
	case IOCTL_GIVE_BACK: {
		USHORT office;

		if (in < sizeof(office) || out < sizeof(ULONG))
			return STATUS_BUFFER_TOO_SMALL;
		office = *(const USHORT *)buffer;
		if (office == 0)
			return STATUS_INVALID_PARAMETER;
		*(PULONG)buffer = GiveBack(House, office);
		*Bytes = sizeof(ULONG);
		return STATUS_SUCCESS;
	}
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
	PHOUSE house = Driver->DeviceObject->DeviceExtension;

	ExFreePoolWithTag(house->Plan, TAG);
	SoftFell(Driver->DeviceObject, LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
	PDEVICE_OBJECT device;
	NTSTATUS status;
	PHOUSE house;

	(void)Path;
	status = SoftRaise(Driver, NAME, LINK, sizeof(HOUSE), DO_BUFFERED_IO, &device);
	if (!NT_SUCCESS(status))
		return status;
	house = device->DeviceExtension;
	KeInitializeSpinLock(&house->Lock);
	house->Plan = ExAllocatePoolWithTag(NonPagedPool, ROWS * SEATS * sizeof(USHORT), TAG);
	if (house->Plan == NULL) {
		SoftFell(device, LINK);
		return STATUS_INSUFFICIENT_RESOURCES;
	}
	RtlZeroMemory(house->Plan, ROWS * SEATS * sizeof(USHORT));
	SOFT_ENTRIES(Driver, Dispatch);
	Driver->DriverUnload = Unload;
	SoftReady(device);
	return STATUS_SUCCESS;
}

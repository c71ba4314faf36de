/*
 * chimney: two flues of a boiler house, each a device of its own. A program sets the draught of a flue and reads it back; a flue that is
 * swept is shut for all but the program that sweeps it.
 *
 * The bug: Unload goes from one device object to the next by NextDevice, which it reads from the device object that it has deleted.
 *
 * Device: none
 * Rule: use-after-free, device-leak, wild-read
 * Needs: nothing
 */
#include <ddk/wdm.h>
#include "../include/stall_frame.h"

#define IOCTL_SET_DRAUGHT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x870, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_GET_DRAUGHT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x871, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SWEEP       CTL_CODE(FILE_DEVICE_UNKNOWN, 0x872, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SWEPT       CTL_CODE(FILE_DEVICE_UNKNOWN, 0x873, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define FLUES 2
#define MOST_DRAUGHT 100

static const PCWSTR Names[FLUES] = { L"\\Device\\ChimneyA", L"\\Device\\ChimneyB" };
static const PCWSTR Links[FLUES] = { L"\\DosDevices\\ChimneyA", L"\\DosDevices\\ChimneyB" };

typedef struct _FLUE {
	PCWSTR Link;
	KSPIN_LOCK Lock;
	ULONG Draught;                  /* per cent */
	PFILE_OBJECT Sweeper;
} FLUE, *PFLUE;

DRIVER_INITIALIZE DriverEntry;

static BOOLEAN Shut(PFLUE Flue, PFILE_OBJECT File)
{
	return Flue->Sweeper != NULL && Flue->Sweeper != File;
}

static NTSTATUS Control(PFLUE Flue, PIRP Irp, PIO_STACK_LOCATION Sp, PULONG_PTR Bytes)
{
	PULONG buffer = Irp->AssociatedIrp.SystemBuffer;
	ULONG in = Sp->Parameters.DeviceIoControl.InputBufferLength;
	ULONG out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
	NTSTATUS status = STATUS_SUCCESS;
	ULONG draught;
	KIRQL irql;

	switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_SET_DRAUGHT:
		if (in < sizeof(ULONG))
			return STATUS_BUFFER_TOO_SMALL;
		draught = *buffer;
		if (draught > MOST_DRAUGHT)
			return STATUS_INVALID_PARAMETER;
		KeAcquireSpinLock(&Flue->Lock, &irql);
		if (Shut(Flue, Sp->FileObject))
			status = STATUS_DEVICE_BUSY;
		else
			Flue->Draught = draught;
		KeReleaseSpinLock(&Flue->Lock, irql);
		return status;
	case IOCTL_GET_DRAUGHT:
		if (out < sizeof(ULONG))
			return STATUS_BUFFER_TOO_SMALL;
		KeAcquireSpinLock(&Flue->Lock, &irql);
		draught = Flue->Draught;
		KeReleaseSpinLock(&Flue->Lock, irql);
		*buffer = draught;
		*Bytes = sizeof(ULONG);
		return STATUS_SUCCESS;
	case IOCTL_SWEEP:
		KeAcquireSpinLock(&Flue->Lock, &irql);
		if (Shut(Flue, Sp->FileObject)) {
			status = STATUS_DEVICE_BUSY;
		} else {
			Flue->Sweeper = Sp->FileObject;
			Flue->Draught = 0;
		}
		KeReleaseSpinLock(&Flue->Lock, irql);
		return status;
	case IOCTL_SWEPT:
		KeAcquireSpinLock(&Flue->Lock, &irql);
		if (Flue->Sweeper != Sp->FileObject)
			status = STATUS_INVALID_DEVICE_STATE;
		else
			Flue->Sweeper = NULL;
		KeReleaseSpinLock(&Flue->Lock, irql);
		return status;
	default:
		return STATUS_INVALID_DEVICE_REQUEST;
	}
}

static NTSTATUS Answer(PDEVICE_OBJECT Device, PIRP Irp, PIO_STACK_LOCATION Sp, PULONG_PTR Bytes)
{
	PFLUE flue = Device->DeviceExtension;
	KIRQL irql;

	switch (Sp->MajorFunction) {
	case IRP_MJ_DEVICE_CONTROL:
		return Control(flue, Irp, Sp, Bytes);
	case IRP_MJ_CLEANUP:
	case IRP_MJ_CLOSE:              /* a request may have come behind the cleanup */
		KeAcquireSpinLock(&flue->Lock, &irql);
		if (flue->Sweeper == Sp->FileObject)
			flue->Sweeper = NULL;
		KeReleaseSpinLock(&flue->Lock, irql);
		return STATUS_SUCCESS;
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
	PDEVICE_OBJECT device, next;

#ifndef FIXED
	for (device = Driver->DeviceObject; device != NULL; device = next) {
		SoftFell(device, ((PFLUE)device->DeviceExtension)->Link);
		next = device->NextDevice;
	}
#else
	for (device = Driver->DeviceObject; device != NULL; device = next) {
		next = device->NextDevice;
		SoftFell(device, ((PFLUE)device->DeviceExtension)->Link);
	}
#endif
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
	PDEVICE_OBJECT made[FLUES];
	NTSTATUS status;
	ULONG i;

	(void)Path;
	for (i = 0; i < FLUES; i++) {
		PFLUE flue;

		status = SoftRaise(Driver, Names[i], Links[i], sizeof(FLUE), DO_BUFFERED_IO, &made[i]);
		if (!NT_SUCCESS(status)) {
			while (i-- > 0)
				SoftFell(made[i], Links[i]);
			return status;
		}
		flue = made[i]->DeviceExtension;
		flue->Link = Links[i];
		KeInitializeSpinLock(&flue->Lock);
	}
	SOFT_ENTRIES(Driver, Dispatch);
	Driver->DriverUnload = Unload;
	for (i = 0; i < FLUES; i++)
		SoftReady(made[i]);
	return STATUS_SUCCESS;
}

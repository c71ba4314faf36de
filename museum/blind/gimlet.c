/*
 * gimlet: computes check sums for programs, off their own threads: each request is handed to a system worker thread. The driver counts
 * for each open handle how many bytes and requests it has had, which a program can ask for.
 *
 * The bug: what is counted for a handle is freed when the handle is cleaned up, although a request that was sent through it may still
 * be with the worker thread, which then counts in freed memory.
 *
 * Device: none
 * Rule: use-after-free, write-after-free
 * Needs: ioctl, cancel, schedule
 */
#include <ddk/wdm.h>
#include "../include/stall_frame.h"

#define NAME L"\\Device\\Gimlet"
#define LINK L"\\DosDevices\\Gimlet"
#define TAG UU_TAG('G', 'm', 'l', 't')

#define IOCTL_SUM    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x850, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_TOTALS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x851, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define LONGEST 65536

typedef struct _TOTALS {
	ULONG64 Bytes;
	ULONG64 Requests;
} TOTALS;

typedef struct _ACCOUNT {
	KSPIN_LOCK Lock;
	TOTALS Totals;
} ACCOUNT, *PACCOUNT;

DRIVER_INITIALIZE DriverEntry;

static ULONG Sum(const UCHAR *Bytes, ULONG Length)
{
	ULONG sum = 0xFFFFFFFF, i, bit;

	for (i = 0; i < Length; i++) {
		sum ^= Bytes[i];
		for (bit = 0; bit < 8; bit++)
			sum = (sum & 1) ? sum >> 1 ^ 0xEDB88320 : sum >> 1;
	}
	return ~sum;
}

static VOID Charge(PACCOUNT Account, ULONG Bytes)
{
	KIRQL irql;

	KeAcquireSpinLock(&Account->Lock, &irql);
	Account->Totals.Bytes += Bytes;
	Account->Totals.Requests++;
	KeReleaseSpinLock(&Account->Lock, irql);
}

static VOID NTAPI Work(PDEVICE_OBJECT Device, PVOID Context)
{
	PIRP irp = Context;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
	PIO_WORKITEM item = irp->Tail.Overlay.DriverContext[0];
	ULONG length = sp->Parameters.DeviceIoControl.InputBufferLength;
	PULONG answer = irp->AssociatedIrp.SystemBuffer;

	(void)Device;
	*answer = Sum(irp->AssociatedIrp.SystemBuffer, length);
	Charge(sp->FileObject->FsContext, length);
	Finish(irp, STATUS_SUCCESS, sizeof(ULONG));
	IoFreeWorkItem(item);
}

static NTSTATUS HandOver(PDEVICE_OBJECT Device, PIRP Irp)
{
	PIO_WORKITEM item = IoAllocateWorkItem(Device);

	if (item == NULL)
		return STATUS_INSUFFICIENT_RESOURCES;
	Irp->Tail.Overlay.DriverContext[0] = item;
	IoMarkIrpPending(Irp);
	IoQueueWorkItem(item, Work, DelayedWorkQueue, Irp);
	return STATUS_PENDING;
}

static NTSTATUS Control(PDEVICE_OBJECT Device, PIRP Irp, PIO_STACK_LOCATION Sp, PULONG_PTR Bytes)
{
	PACCOUNT account = Sp->FileObject->FsContext;
	ULONG in = Sp->Parameters.DeviceIoControl.InputBufferLength;
	ULONG out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
	TOTALS totals;
	KIRQL irql;

	switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_SUM:
		if (in > LONGEST)
			return STATUS_INVALID_PARAMETER;
		if (out < sizeof(ULONG))
			return STATUS_BUFFER_TOO_SMALL;
		return HandOver(Device, Irp);
	case IOCTL_TOTALS:
		if (out < sizeof(TOTALS))
			return STATUS_BUFFER_TOO_SMALL;
		KeAcquireSpinLock(&account->Lock, &irql);
		totals = account->Totals;
		KeReleaseSpinLock(&account->Lock, irql);
		*(TOTALS *)Irp->AssociatedIrp.SystemBuffer = totals;
		*Bytes = sizeof(TOTALS);
		return STATUS_SUCCESS;
	default:
		return STATUS_INVALID_DEVICE_REQUEST;
	}
}

static NTSTATUS Open(PFILE_OBJECT File)
{
	PACCOUNT account = ExAllocatePoolWithTag(NonPagedPool, sizeof(ACCOUNT), TAG);

	if (account == NULL)
		return STATUS_INSUFFICIENT_RESOURCES;
	RtlZeroMemory(account, sizeof(ACCOUNT));
	KeInitializeSpinLock(&account->Lock);
	File->FsContext = account;
	return STATUS_SUCCESS;
}

static NTSTATUS Answer(PDEVICE_OBJECT Device, PIRP Irp, PIO_STACK_LOCATION Sp, PULONG_PTR Bytes)
{
	switch (Sp->MajorFunction) {
	case IRP_MJ_CREATE:
		return Open(Sp->FileObject);
	case IRP_MJ_CLEANUP:
#ifndef FIXED
		ExFreePoolWithTag(Sp->FileObject->FsContext, TAG);
#endif
		return STATUS_SUCCESS;
	case IRP_MJ_CLOSE:
#ifdef FIXED
		ExFreePoolWithTag(Sp->FileObject->FsContext, TAG);
#endif
		return STATUS_SUCCESS;
	default:
		return Control(Device, Irp, Sp, Bytes);
	}
}

static NTSTATUS NTAPI Dispatch(PDEVICE_OBJECT Device, PIRP Irp)
{
	return SoftDispatch(Device, Irp, Answer);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
	SoftFell(Driver->DeviceObject, LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
	PDEVICE_OBJECT device;
	NTSTATUS status;

	(void)Path;
	status = SoftRaise(Driver, NAME, LINK, sizeof(ULONG), DO_BUFFERED_IO, &device);
	if (!NT_SUCCESS(status))
		return status;
	SOFT_ENTRIES(Driver, Dispatch);
	Driver->DriverUnload = Unload;
	SoftReady(device);
	return STATUS_SUCCESS;
}

/*
 * cutlist - the cutting list of a panel saw. Programs hand over lists of cuts (METHOD_NEITHER: the lists
 * may be long and are not copied by the I/O manager) and fetch the collected ones for the saw.
 *
 * The bug: the count in the application's buffer is read again behind its check.
 *
 * Device: none
 * Rule: pool-overrun, wild-read, bad-pointer
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>

#define TAG 'tluC'
#define MAX_CUTS 2048
#define MAX_BYTES 65536
#define IOCTL_CUT_ADD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x840, METHOD_NEITHER, FILE_WRITE_ACCESS)
#define IOCTL_CUT_FETCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x841, METHOD_NEITHER, FILE_READ_ACCESS)
#define IOCTL_CUT_CLEAR CTL_CODE(FILE_DEVICE_UNKNOWN, 0x842, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct _CUT {
	ULONG Start;
	ULONG Length;
} CUT;

typedef struct _CUT_HEADER {
	ULONG Count;
	ULONG Panel;
	CUT Cuts[];
} CUT_HEADER;

typedef struct _EXT {
	FAST_MUTEX Mutex;
	ULONG Count;
	CUT Cuts[MAX_CUTS];
} EXT;

#include "../include/guarded.h"

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
	Irp->IoStatus.Status = Status;
	Irp->IoStatus.Information = Information;
	IoCompleteRequest(Irp, IO_NO_INCREMENT);
	return Status;
}

/* Locks and maps a buffer of the caller. */
static NTSTATUS MapUser(PIRP Irp, PVOID Address, ULONG Length, LOCK_OPERATION Operation, PMDL *Mdl, PVOID *Mapped)
{
	NTSTATUS status;

	*Mdl = IoAllocateMdl(Address, Length, FALSE, FALSE, NULL);
	if (*Mdl == NULL)
		return STATUS_INSUFFICIENT_RESOURCES;
	status = GuardedLock(*Mdl, Irp->RequestorMode, Operation);
	if (!NT_SUCCESS(status)) {
		IoFreeMdl(*Mdl);
		return status;
	}
	*Mapped = MmGetSystemAddressForMdlSafe(*Mdl, NormalPagePriority | 0x40000000);
	if (*Mapped == NULL) {
		MmUnlockPages(*Mdl);
		IoFreeMdl(*Mdl);
		return STATUS_INSUFFICIENT_RESOURCES;
	}
	return STATUS_SUCCESS;
}

static VOID UnmapUser(PMDL Mdl)
{
	MmUnlockPages(Mdl);
	IoFreeMdl(Mdl);
}

static NTSTATUS Copy(volatile CUT_HEADER *list, ULONG Length, CUT **Cuts, ULONG *Count)
{
	CUT *cuts;
	ULONG i;
#ifdef FIXED
	ULONG count = list->Count;
#define COUNT count
#else
#define COUNT list->Count
#endif

	if (COUNT == 0 || COUNT > MAX_CUTS || COUNT > (Length - sizeof(CUT_HEADER)) / sizeof(CUT))
		return STATUS_INVALID_PARAMETER;
	cuts = ExAllocatePoolWithTag(PagedPool, (SIZE_T)COUNT * sizeof(CUT), TAG);
	if (cuts == NULL)
		return STATUS_INSUFFICIENT_RESOURCES;
	for (i = 0; i < COUNT; i++) {
		CUT cut;

		cut.Start = list->Cuts[i].Start;
		cut.Length = list->Cuts[i].Length;
		if (cut.Length == 0 || cut.Start + cut.Length < cut.Start) {
			ExFreePoolWithTag(cuts, TAG);
			return STATUS_INVALID_PARAMETER;
		}
		cuts[i] = cut;
	}
	*Cuts = cuts;
	*Count = i;
	return STATUS_SUCCESS;
}

static NTSTATUS Add(EXT *ext, PIRP Irp, PVOID Address, ULONG Length)
{
	NTSTATUS status;
	CUT *cuts;
	ULONG count;
	PVOID mapped;
	PMDL mdl;

	if (Length < sizeof(CUT_HEADER) || Length > MAX_BYTES)
		return STATUS_INVALID_BUFFER_SIZE;
	if ((ULONG_PTR)Address & (sizeof(ULONG) - 1))
		return STATUS_DATATYPE_MISALIGNMENT;
	status = MapUser(Irp, Address, Length, IoReadAccess, &mdl, &mapped);
	if (!NT_SUCCESS(status))
		return status;
	status = Copy(mapped, Length, &cuts, &count);
	UnmapUser(mdl);
	if (!NT_SUCCESS(status))
		return status;

	ExAcquireFastMutex(&ext->Mutex);
	if (count <= MAX_CUTS - ext->Count) {
		RtlCopyMemory(ext->Cuts + ext->Count, cuts, count * sizeof(CUT));
		ext->Count += count;
	} else {
		status = STATUS_DEVICE_BUSY;
	}
	ExReleaseFastMutex(&ext->Mutex);
	ExFreePoolWithTag(cuts, TAG);
	return status;
}

/* Moves as many of the first cuts as find room to the caller. */
static NTSTATUS Fetch(EXT *ext, PIRP Irp, PVOID Address, ULONG Length, ULONG *Bytes)
{
	NTSTATUS status;
	PVOID mapped;
	ULONG n;
	PMDL mdl;

	if (Length < sizeof(CUT) || Length > MAX_BYTES)
		return STATUS_INVALID_BUFFER_SIZE;
	status = MapUser(Irp, Address, Length, IoWriteAccess, &mdl, &mapped);
	if (!NT_SUCCESS(status))
		return status;
	ExAcquireFastMutex(&ext->Mutex);
	n = min(ext->Count, Length / (ULONG)sizeof(CUT));
	RtlCopyMemory(mapped, ext->Cuts, n * sizeof(CUT));
	ext->Count -= n;
	RtlMoveMemory(ext->Cuts, ext->Cuts + n, ext->Count * sizeof(CUT));
	ExReleaseFastMutex(&ext->Mutex);
	UnmapUser(mdl);
	*Bytes = n * sizeof(CUT);
	return STATUS_SUCCESS;
}

static NTSTATUS NTAPI OnControl(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
	NTSTATUS status;
	ULONG bytes = 0;

	switch (sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_CUT_ADD:
		status = Add(ext, Irp, sp->Parameters.DeviceIoControl.Type3InputBuffer, sp->Parameters.DeviceIoControl.InputBufferLength);
		break;
	case IOCTL_CUT_FETCH:
		status = Fetch(ext, Irp, Irp->UserBuffer, sp->Parameters.DeviceIoControl.OutputBufferLength, &bytes);
		break;
	case IOCTL_CUT_CLEAR:
		ExAcquireFastMutex(&ext->Mutex);
		ext->Count = 0;
		ExReleaseFastMutex(&ext->Mutex);
		status = STATUS_SUCCESS;
		break;
	default:
		status = STATUS_INVALID_DEVICE_REQUEST;
	}
	return Finish(Irp, status, bytes);
}

static NTSTATUS NTAPI OnCreateClose(PDEVICE_OBJECT Device, PIRP Irp)
{
	UNREFERENCED_PARAMETER(Device);
	return Finish(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI OnUnload(PDRIVER_OBJECT Driver)
{
	UNICODE_STRING link;

	RtlInitUnicodeString(&link, L"\\DosDevices\\Cutlist");
	IoDeleteSymbolicLink(&link);
	IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
	UNICODE_STRING name, link;
	PDEVICE_OBJECT device;
	EXT *ext;
	NTSTATUS status;

	UNREFERENCED_PARAMETER(RegistryPath);
	Driver->MajorFunction[IRP_MJ_CREATE] = OnCreateClose;
	Driver->MajorFunction[IRP_MJ_CLOSE] = OnCreateClose;
	Driver->MajorFunction[IRP_MJ_CLEANUP] = OnCreateClose;
	Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = OnControl;
	Driver->DriverUnload = OnUnload;

	RtlInitUnicodeString(&name, L"\\Device\\Cutlist");
	RtlInitUnicodeString(&link, L"\\DosDevices\\Cutlist");
	status = IoCreateDevice(Driver, sizeof(EXT), &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
	if (!NT_SUCCESS(status))
		return status;
	ext = device->DeviceExtension;
	ExInitializeFastMutex(&ext->Mutex);
	ext->Count = 0;
	status = IoCreateSymbolicLink(&link, &name);
	if (!NT_SUCCESS(status)) {
		IoDeleteDevice(device);
		return status;
	}
	device->Flags &= ~DO_DEVICE_INITIALIZING;
	return STATUS_SUCCESS;
}

/*
 * diarist - keeps diaries. Programs write lines to the device; a system thread appends them to one of ten
 * diary files below \SystemRoot\Temp. An IOCTL chooses the file: it is opened with the caller's rights.
 *
 * The bug: a file is opened in a program's context for a thread of the system, without OBJ_KERNEL_HANDLE.
 *
 * Device: none
 * Rule: invalid-handle
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define TAG 'raiD'

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);

#define MAX_LINE 1024
#define MAX_QUEUED 128
#define IOCTL_DIARY_SELECT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x810, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_DIARY_STATS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x811, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _JOB {
	LIST_ENTRY Link;
	HANDLE File;		/* not NULL: from now on write to this file */
	ULONG Length;
	UCHAR Data[];
} JOB;

typedef struct _STATS {
	ULONG Lines;
	ULONG Failed;
	ULONG Dropped;
	ULONG Queued;
} STATS;

typedef struct _EXT {
	KSPIN_LOCK Lock;
	LIST_ENTRY Jobs;
	STATS Stats;
	KEVENT Wake;
	volatile BOOLEAN Stop;
	PKTHREAD Thread;
} EXT;

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
	Irp->IoStatus.Status = Status;
	Irp->IoStatus.Information = Information;
	IoCompleteRequest(Irp, IO_NO_INCREMENT);
	return Status;
}

static JOB *NextJob(EXT *ext)
{
	JOB *job = NULL;
	KIRQL irql;

	KeAcquireSpinLock(&ext->Lock, &irql);
	if (!IsListEmpty(&ext->Jobs)) {
		job = CONTAINING_RECORD(RemoveHeadList(&ext->Jobs), JOB, Link);
		ext->Stats.Queued--;
	}
	KeReleaseSpinLock(&ext->Lock, irql);
	return job;
}

static VOID Count(EXT *ext, ULONG *counter)
{
	KIRQL irql;

	KeAcquireSpinLock(&ext->Lock, &irql);
	(*counter)++;
	KeReleaseSpinLock(&ext->Lock, irql);
}

static VOID NTAPI Writer(PVOID Context)
{
	EXT *ext = Context;
	HANDLE file = NULL;
	BOOLEAN stop;
	JOB *job;

	do {
		KeWaitForSingleObject(&ext->Wake, Executive, KernelMode, FALSE, NULL);
		stop = ext->Stop;
		while ((job = NextJob(ext)) != NULL) {
			if (job->File != NULL) {
				if (file != NULL)
					ZwClose(file);
				file = job->File;
			} else if (file != NULL) {
				IO_STATUS_BLOCK ios;
				NTSTATUS status = ZwWriteFile(file, NULL, NULL, NULL, &ios, job->Data, job->Length, NULL, NULL);

				Count(ext, NT_SUCCESS(status) ? &ext->Stats.Lines : &ext->Stats.Failed);
			} else {
				Count(ext, &ext->Stats.Dropped);
			}
			ExFreePoolWithTag(job, TAG);
		}
	} while (!stop);
	if (file != NULL)
		ZwClose(file);
	PsTerminateSystemThread(STATUS_SUCCESS);
}

/* Gives the job to the thread unless too many are waiting already. */
static NTSTATUS Submit(EXT *ext, JOB *job)
{
	NTSTATUS status = STATUS_SUCCESS;
	KIRQL irql;

	KeAcquireSpinLock(&ext->Lock, &irql);
	if (ext->Stats.Queued < MAX_QUEUED) {
		InsertTailList(&ext->Jobs, &job->Link);
		ext->Stats.Queued++;
	} else {
		status = STATUS_DEVICE_BUSY;
	}
	KeReleaseSpinLock(&ext->Lock, irql);
	if (NT_SUCCESS(status))
		KeSetEvent(&ext->Wake, IO_NO_INCREMENT, FALSE);
	return status;
}

static NTSTATUS Select(EXT *ext, ULONG number)
{
	WCHAR path[] = L"\\SystemRoot\\Temp\\diary0.txt";
	UNICODE_STRING name;
	OBJECT_ATTRIBUTES attributes;
	IO_STATUS_BLOCK ios;
	NTSTATUS status;
	JOB *job;

	if (number > 9)
		return STATUS_INVALID_PARAMETER;
	job = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(JOB), TAG);
	if (job == NULL)
		return STATUS_INSUFFICIENT_RESOURCES;
	job->Length = 0;
	path[sizeof(path) / sizeof(WCHAR) - 6] = (WCHAR)(L'0' + number);
	RtlInitUnicodeString(&name, path);
#ifdef FIXED
	InitializeObjectAttributes(&attributes, &name, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE | OBJ_FORCE_ACCESS_CHECK, NULL, NULL);
#else
	InitializeObjectAttributes(&attributes, &name, OBJ_CASE_INSENSITIVE | OBJ_FORCE_ACCESS_CHECK, NULL, NULL);
#endif
	status = ZwCreateFile(&job->File, FILE_APPEND_DATA | SYNCHRONIZE, &attributes, &ios, NULL, FILE_ATTRIBUTE_NORMAL,
		FILE_SHARE_READ | FILE_SHARE_WRITE, FILE_OPEN_IF, FILE_SYNCHRONOUS_IO_NONALERT | FILE_NON_DIRECTORY_FILE, NULL, 0);
	if (!NT_SUCCESS(status)) {
		ExFreePoolWithTag(job, TAG);
		return status;
	}
	status = Submit(ext, job);
	if (!NT_SUCCESS(status)) {
		ZwClose(job->File);
		ExFreePoolWithTag(job, TAG);
	}
	return status;
}

static NTSTATUS NTAPI OnWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
	ULONG length = sp->Parameters.Write.Length;
	NTSTATUS status;
	JOB *job;

	if (length == 0)
		return Finish(Irp, STATUS_SUCCESS, 0);
	if (length > MAX_LINE)
		return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
	job = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(JOB) + length, TAG);
	if (job == NULL)
		return Finish(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
	job->File = NULL;
	job->Length = length;
	RtlCopyMemory(job->Data, Irp->AssociatedIrp.SystemBuffer, length);
	status = Submit(ext, job);
	if (!NT_SUCCESS(status)) {
		ExFreePoolWithTag(job, TAG);
		Count(ext, &ext->Stats.Dropped);
		length = 0;
	}
	return Finish(Irp, status, length);
}

static NTSTATUS NTAPI OnControl(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
	KIRQL irql;

	switch (sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_DIARY_SELECT:
		if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
			return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
		return Finish(Irp, Select(ext, *(ULONG *)Irp->AssociatedIrp.SystemBuffer), 0);
	case IOCTL_DIARY_STATS:
		if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(STATS))
			return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
		KeAcquireSpinLock(&ext->Lock, &irql);
		*(STATS *)Irp->AssociatedIrp.SystemBuffer = ext->Stats;
		KeReleaseSpinLock(&ext->Lock, irql);
		return Finish(Irp, STATUS_SUCCESS, sizeof(STATS));
	default:
		return Finish(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
	}
}

static NTSTATUS NTAPI OnCreateClose(PDEVICE_OBJECT Device, PIRP Irp)
{
	UNREFERENCED_PARAMETER(Device);
	return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS StartThread(EXT *ext)
{
	OBJECT_ATTRIBUTES attributes;
	HANDLE handle;
	NTSTATUS status;

	InitializeObjectAttributes(&attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
	status = PsCreateSystemThread(&handle, THREAD_ALL_ACCESS, &attributes, NULL, NULL, Writer, ext);
	if (!NT_SUCCESS(status))
		return status;
	status = ObReferenceObjectByHandle(handle, SYNCHRONIZE, *PsThreadType, KernelMode, (PVOID *)&ext->Thread, NULL);
	if (!NT_SUCCESS(status)) {
		ext->Stop = TRUE;
		KeSetEvent(&ext->Wake, IO_NO_INCREMENT, FALSE);
		ZwWaitForSingleObject(handle, FALSE, NULL);
	}
	ZwClose(handle);
	return status;
}

static VOID StopThread(EXT *ext)
{
	ext->Stop = TRUE;
	KeSetEvent(&ext->Wake, IO_NO_INCREMENT, FALSE);
	KeWaitForSingleObject(ext->Thread, Executive, KernelMode, FALSE, NULL);
	ObDereferenceObject(ext->Thread);
}

static VOID NTAPI OnUnload(PDRIVER_OBJECT Driver)
{
	UNICODE_STRING link;

	RtlInitUnicodeString(&link, L"\\DosDevices\\Diarist");
	IoDeleteSymbolicLink(&link);
	StopThread(Driver->DeviceObject->DeviceExtension);
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
	Driver->MajorFunction[IRP_MJ_WRITE] = OnWrite;
	Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = OnControl;
	Driver->DriverUnload = OnUnload;

	RtlInitUnicodeString(&name, L"\\Device\\Diarist");
	RtlInitUnicodeString(&link, L"\\DosDevices\\Diarist");
	status = IoCreateDevice(Driver, sizeof(EXT), &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
	if (!NT_SUCCESS(status))
		return status;
	ext = device->DeviceExtension;
	RtlZeroMemory(ext, sizeof(EXT));
	KeInitializeSpinLock(&ext->Lock);
	InitializeListHead(&ext->Jobs);
	KeInitializeEvent(&ext->Wake, SynchronizationEvent, FALSE);
	device->Flags |= DO_BUFFERED_IO;
	status = StartThread(ext);
	if (!NT_SUCCESS(status)) {
		IoDeleteDevice(device);
		return status;
	}
	status = IoCreateSymbolicLink(&link, &name);
	if (!NT_SUCCESS(status)) {
		StopThread(ext);
		IoDeleteDevice(device);
		return status;
	}
	device->Flags &= ~DO_DEVICE_INITIALIZING;
	return STATUS_SUCCESS;
}

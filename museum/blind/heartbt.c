/*
 * Heart beat: a system thread counts beats at a settable rate; applications read the count.
 *
 * The bug: unload waits for an event that the thread sets near its end, not for the thread itself, so the last
 * instructions of the thread may run after the image is unmapped.
 *
 * Device: none
 * Rule: unload-still-called
 * Needs: nothing
 * Symptom: DRIVER_UNLOADED_WITHOUT_CANCELLING_PENDING_OPERATIONS (0xCE) or 0x50/0x7E, instruction fetch in the unloaded driver.
 */
#include <ddk/wdm.h>

#define IOCTL_BEAT_RATE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x870, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_BEAT_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x871, METHOD_BUFFERED, FILE_READ_DATA)

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);

typedef struct _BEAT {
	KEVENT Stop;
	KEVENT Stopped;
	PVOID Thread;
	volatile LONG PeriodMs;
	volatile LONG Beats;
} BEAT;

static BEAT Beat;

static NTSTATUS HbComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI HbCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return HbComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI HbClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return HbComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI HbThread(PVOID Context)
{
	BEAT *beat = Context;
	LARGE_INTEGER period;
	ULONG missed = 0;

	for (;;) {
		NTSTATUS status;
		ULONGLONG before = KeQueryInterruptTime();

		period.QuadPart = -(LONGLONG)beat->PeriodMs * 10000;
		status = KeWaitForSingleObject(&beat->Stop, Executive, KernelMode, FALSE, &period);
		if (status != STATUS_TIMEOUT)
			break;
		InterlockedIncrement(&beat->Beats);
		if (KeQueryInterruptTime() - before > 2 * (ULONGLONG)-period.QuadPart)
			missed++;
	}
	KeSetEvent(&beat->Stopped, IO_NO_INCREMENT, FALSE);
	DbgPrint("heartbt: thread ends, %u late beats\n", missed);
	PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS HbStart(BEAT *beat)
{
	OBJECT_ATTRIBUTES oa;
	HANDLE handle;
	NTSTATUS status;

	KeInitializeEvent(&beat->Stop, NotificationEvent, FALSE);
	KeInitializeEvent(&beat->Stopped, NotificationEvent, FALSE);
	beat->PeriodMs = 100;
	InitializeObjectAttributes(&oa, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
	status = PsCreateSystemThread(&handle, THREAD_ALL_ACCESS, &oa, NULL, NULL, HbThread, beat);
	if (!NT_SUCCESS(status))
		return status;
	status = ObReferenceObjectByHandle(handle, SYNCHRONIZE, NULL, KernelMode, &beat->Thread, NULL);
	if (!NT_SUCCESS(status)) {
		KeSetEvent(&beat->Stop, IO_NO_INCREMENT, FALSE);
		ZwWaitForSingleObject(handle, FALSE, NULL);
	}
	ZwClose(handle);
	return status;
}

static VOID HbStop(BEAT *beat)
{
	KeSetEvent(&beat->Stop, IO_NO_INCREMENT, FALSE);
#ifdef FIXED
	KeWaitForSingleObject(beat->Thread, Executive, KernelMode, FALSE, NULL);
#else
	KeWaitForSingleObject(&beat->Stopped, Executive, KernelMode, FALSE, NULL);
#endif
	ObDereferenceObject(beat->Thread);
}

static NTSTATUS NTAPI HbControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
	LONG value;

	UNREFERENCED_PARAMETER(DeviceObject);
	switch (sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_BEAT_RATE:
		if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(LONG))
			return HbComplete(Irp, STATUS_INVALID_PARAMETER, 0);
		value = *(PLONG)Irp->AssociatedIrp.SystemBuffer;
		if (value < 10 || value > 10000)
			return HbComplete(Irp, STATUS_INVALID_PARAMETER, 0);
		Beat.PeriodMs = value;
		return HbComplete(Irp, STATUS_SUCCESS, 0);
	case IOCTL_BEAT_COUNT:
		if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LONG))
			return HbComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
		*(PLONG)Irp->AssociatedIrp.SystemBuffer = Beat.Beats;
		return HbComplete(Irp, STATUS_SUCCESS, sizeof(LONG));
	}
	return HbComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID NTAPI HbUnload(PDRIVER_OBJECT DriverObject)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\HeartBt");

    HbStop(&Beat);
    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(DriverObject->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\HeartBt");
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\HeartBt");
    PDEVICE_OBJECT device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = IoCreateDevice(DriverObject, 0, &name, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    status = HbStart(&Beat);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        HbStop(&Beat);
        IoDeleteDevice(device);
        return status;
    }
    DriverObject->DriverUnload = HbUnload;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = HbCreate;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = HbClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = HbControl;
    device->Flags |= DO_BUFFERED_IO;
    return STATUS_SUCCESS;
}

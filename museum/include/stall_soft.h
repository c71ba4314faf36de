/*
 * soft.h: a control device. SoftRaise makes it with its link, SoftFell takes both away. A routine of the driver answers; it returns
 * STATUS_PENDING for a request that it has queued, and any other status for one that SoftDispatch is to complete.
 */
#ifndef UU_SOFT_H
#define UU_SOFT_H

typedef NTSTATUS (*SOFT_ANSWER)(PDEVICE_OBJECT Device, PIRP Irp, PIO_STACK_LOCATION Sp, PULONG_PTR Bytes);

UU_SHARED NTSTATUS SoftRaise(PDRIVER_OBJECT Driver, PCWSTR Name, PCWSTR LinkName, ULONG Extension, ULONG Flags, PDEVICE_OBJECT *Made)
{
	UNICODE_STRING name, link;
	PDEVICE_OBJECT device;
	NTSTATUS status;

	*Made = NULL;
	RtlInitUnicodeString(&name, Name);
	RtlInitUnicodeString(&link, LinkName);
	status = IoCreateDevice(Driver, Extension, &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
	if (!NT_SUCCESS(status))
		return status;
	RtlZeroMemory(device->DeviceExtension, Extension);
	device->Flags |= Flags;
	status = IoCreateSymbolicLink(&link, &name);
	if (!NT_SUCCESS(status)) {
		IoDeleteDevice(device);
		return status;
	}
	*Made = device;
	return STATUS_SUCCESS;
}

UU_SHARED VOID SoftFell(PDEVICE_OBJECT Device, PCWSTR LinkName)
{
	UNICODE_STRING link;

	RtlInitUnicodeString(&link, LinkName);
	IoDeleteSymbolicLink(&link);
	IoDeleteDevice(Device);
}

/* To be called after all is made: programs can open the device from here on, if DriverEntry succeeds. */
UU_SHARED VOID SoftReady(PDEVICE_OBJECT Device)
{
	Device->Flags &= ~DO_DEVICE_INITIALIZING;
}

UU_SHARED NTSTATUS SoftDispatch(PDEVICE_OBJECT Device, PIRP Irp, SOFT_ANSWER Answer)
{
	ULONG_PTR bytes = 0;
	NTSTATUS status;

	status = Answer(Device, Irp, IoGetCurrentIrpStackLocation(Irp), &bytes);
	if (status == STATUS_PENDING)
		return status;                  /* the request is not ours any more */
	return Finish(Irp, status, NT_SUCCESS(status) ? bytes : 0);
}

/* The usual entries: the driver has to set those of read and write itself. */
#define SOFT_ENTRIES(Driver, Routine) do { \
	(Driver)->MajorFunction[IRP_MJ_CREATE] = (Routine); \
	(Driver)->MajorFunction[IRP_MJ_CLOSE] = (Routine); \
	(Driver)->MajorFunction[IRP_MJ_CLEANUP] = (Routine); \
	(Driver)->MajorFunction[IRP_MJ_DEVICE_CONTROL] = (Routine); \
} while (0)

#endif

/*
 * loft_control.h: the frame of a driver without hardware: one control device and its symbolic link.
 *
 * The driver defines AE_NAME (a wide string), AE_EXT (its device extension) and the Leg... routines.
 */
#ifndef AELEG_H
#define AELEG_H

#define AE_TAG 'lEAl'

/* before the link; a failure undoes itself */
static NTSTATUS LegInit(PDRIVER_OBJECT driver, PDEVICE_OBJECT dev, PUNICODE_STRING path);
/* no handle is open any more */
static void LegExit(PDEVICE_OBJECT dev);
static NTSTATUS LegCreate(PDEVICE_OBJECT dev, PIO_STACK_LOCATION sp);
static void LegCleanup(PDEVICE_OBJECT dev, PFILE_OBJECT file);
static void LegClose(PDEVICE_OBJECT dev, PFILE_OBJECT file);
/* STATUS_PENDING: marked pending and taken over */
static NTSTATUS LegControl(PDEVICE_OBJECT dev, PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info);

DRIVER_INITIALIZE DriverEntry;

static NTSTATUS AeEnd(PIRP irp, NTSTATUS status, ULONG_PTR info)
{
	irp->IoStatus.Status = status;
	irp->IoStatus.Information = info;
	IoCompleteRequest(irp, IO_NO_INCREMENT);
	return status;
}

static NTSTATUS NTAPI AeDispatch(PDEVICE_OBJECT dev, PIRP irp)
{
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
	ULONG_PTR info = 0;
	NTSTATUS s = STATUS_SUCCESS;

	switch (sp->MajorFunction) {
	case IRP_MJ_CREATE:
		s = LegCreate(dev, sp);
		break;
	case IRP_MJ_CLEANUP:
		LegCleanup(dev, sp->FileObject);
		break;
	case IRP_MJ_CLOSE:
		LegClose(dev, sp->FileObject);
		break;
	default:
		s = LegControl(dev, irp, sp, &info);
		if (s == STATUS_PENDING)
			return s;
	}
	return AeEnd(irp, s, info);
}

static VOID NTAPI AeUnload(PDRIVER_OBJECT driver)
{
	UNICODE_STRING link;

	RtlInitUnicodeString(&link, L"\\DosDevices\\" AE_NAME);
	IoDeleteSymbolicLink(&link);
	LegExit(driver->DeviceObject);
	IoDeleteDevice(driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
	UNICODE_STRING name, link;
	PDEVICE_OBJECT dev;
	NTSTATUS s;

	RtlInitUnicodeString(&name, L"\\Device\\" AE_NAME);
	RtlInitUnicodeString(&link, L"\\DosDevices\\" AE_NAME);
	s = IoCreateDevice(driver, sizeof(AE_EXT), &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
	if (!NT_SUCCESS(s))
		return s;
	RtlZeroMemory(dev->DeviceExtension, sizeof(AE_EXT));
	driver->MajorFunction[IRP_MJ_CREATE] = AeDispatch;
	driver->MajorFunction[IRP_MJ_CLEANUP] = AeDispatch;
	driver->MajorFunction[IRP_MJ_CLOSE] = AeDispatch;
	driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = AeDispatch;
	driver->DriverUnload = AeUnload;
	s = LegInit(driver, dev, path);
	if (NT_SUCCESS(s)) {
		s = IoCreateSymbolicLink(&link, &name);
		if (NT_SUCCESS(s))
			return s;
		LegExit(dev);
	}
	IoDeleteDevice(dev);
	return s;
}

#endif

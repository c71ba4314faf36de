/*
 * nameplate - what stands on the nameplate of this machine. The plate is a binary value "Plate" in the
 * driver's Parameters key: a style and the text. Programs set it, read the text and let the driver read
 * the value again after it was edited.
 *
 * The bug: the end of a text is looked for that need not have one.
 *
 * Device: none
 * Rule: pool-overrun
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define TAG 'malP'
#define MAX_TEXT 128		/* characters */
#define IOCTL_PLATE_SET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x830, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_PLATE_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x831, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_PLATE_RELOAD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x832, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct _PLATE {
	USHORT Style;
	WCHAR Text[];
} PLATE;

typedef struct _EXT {
	FAST_MUTEX Mutex;
	UNICODE_STRING Key;
	USHORT Style;
	USHORT Length;		/* bytes */
	WCHAR Text[MAX_TEXT];
} EXT;

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
	Irp->IoStatus.Status = Status;
	Irp->IoStatus.Information = Information;
	IoCompleteRequest(Irp, IO_NO_INCREMENT);
	return Status;
}

static NTSTATUS OpenParameters(EXT *ext, ACCESS_MASK Access, PHANDLE Key)
{
	OBJECT_ATTRIBUTES attributes;

	InitializeObjectAttributes(&attributes, &ext->Key, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, NULL, NULL);
	return ZwCreateKey(Key, Access, &attributes, 0, NULL, REG_OPTION_NON_VOLATILE, NULL);
}

/* Reads the value into a buffer of its own; the caller frees it. */
static NTSTATUS ReadValue(HANDLE Key, PKEY_VALUE_PARTIAL_INFORMATION *Info)
{
	UNICODE_STRING name;
	ULONG size = 0, got;
	NTSTATUS status;

	*Info = NULL;
	RtlInitUnicodeString(&name, L"Plate");
	status = ZwQueryValueKey(Key, &name, KeyValuePartialInformation, NULL, 0, &size);
	if (status != STATUS_BUFFER_TOO_SMALL && status != STATUS_BUFFER_OVERFLOW)
		return NT_SUCCESS(status) ? STATUS_UNSUCCESSFUL : status;
	if (size < FIELD_OFFSET(KEY_VALUE_PARTIAL_INFORMATION, Data) || size > 4096)
		return STATUS_INVALID_PARAMETER;
	*Info = ExAllocatePoolWithTag(PagedPool, size, TAG);
	if (*Info == NULL)
		return STATUS_INSUFFICIENT_RESOURCES;
	status = ZwQueryValueKey(Key, &name, KeyValuePartialInformation, *Info, size, &got);
	if (status != STATUS_SUCCESS || (*Info)->Type != REG_BINARY || (*Info)->DataLength < sizeof(PLATE)) {
		ExFreePoolWithTag(*Info, TAG);
		*Info = NULL;
		return NT_SUCCESS(status) ? STATUS_OBJECT_TYPE_MISMATCH : status;
	}
	return STATUS_SUCCESS;
}

static NTSTATUS Load(EXT *ext)
{
	PKEY_VALUE_PARTIAL_INFORMATION info;
	UNICODE_STRING text;
	const PLATE *plate;
	NTSTATUS status;
	HANDLE key;

	status = OpenParameters(ext, KEY_READ, &key);
	if (!NT_SUCCESS(status))
		return status;
	status = ReadValue(key, &info);
	ZwClose(key);
	if (!NT_SUCCESS(status))
		return status;
	plate = (const PLATE *)info->Data;
#ifdef FIXED
	text.Buffer = (PWCH)plate->Text;
	text.MaximumLength = (USHORT)((info->DataLength - sizeof(PLATE)) & ~1u);
	for (text.Length = 0; text.Length < text.MaximumLength; text.Length += sizeof(WCHAR))
		if (text.Buffer[text.Length / sizeof(WCHAR)] == 0)
			break;
#else
	RtlInitUnicodeString(&text, plate->Text);
#endif
	if (text.Length > sizeof(ext->Text)) {
		status = STATUS_NAME_TOO_LONG;
	} else {
		ExAcquireFastMutex(&ext->Mutex);
		ext->Style = plate->Style;
		ext->Length = text.Length;
		RtlCopyMemory(ext->Text, text.Buffer, text.Length);
		ExReleaseFastMutex(&ext->Mutex);
	}
	ExFreePoolWithTag(info, TAG);
	return status;
}

static NTSTATUS Set(EXT *ext, PVOID Plate, ULONG Length)
{
	UNICODE_STRING name;
	NTSTATUS status;
	HANDLE key;

	if (Length < sizeof(PLATE) || Length > sizeof(PLATE) + sizeof(ext->Text))
		return STATUS_INVALID_PARAMETER;
	status = OpenParameters(ext, KEY_READ | KEY_WRITE, &key);
	if (!NT_SUCCESS(status))
		return status;
	RtlInitUnicodeString(&name, L"Plate");
	status = ZwSetValueKey(key, &name, 0, REG_BINARY, Plate, Length);
	ZwClose(key);
	if (NT_SUCCESS(status))
		status = Load(ext);
	return status;
}

static NTSTATUS NTAPI OnControl(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
	ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
	PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
	NTSTATUS status;
	ULONG n = 0;

	switch (sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_PLATE_SET:
		return Finish(Irp, Set(ext, buffer, sp->Parameters.DeviceIoControl.InputBufferLength), 0);
	case IOCTL_PLATE_GET:
		ExAcquireFastMutex(&ext->Mutex);
		if (out >= sizeof(PLATE) + ext->Length) {
			PLATE *plate = buffer;

			n = sizeof(PLATE) + ext->Length;
			plate->Style = ext->Style;
			RtlCopyMemory(plate->Text, ext->Text, ext->Length);
			status = STATUS_SUCCESS;
		} else {
			status = STATUS_BUFFER_TOO_SMALL;
		}
		ExReleaseFastMutex(&ext->Mutex);
		return Finish(Irp, status, n);
	case IOCTL_PLATE_RELOAD:
		return Finish(Irp, Load(ext), 0);
	default:
		return Finish(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
	}
}

static NTSTATUS NTAPI OnCreateClose(PDEVICE_OBJECT Device, PIRP Irp)
{
	UNREFERENCED_PARAMETER(Device);
	return Finish(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI OnUnload(PDRIVER_OBJECT Driver)
{
	EXT *ext = Driver->DeviceObject->DeviceExtension;
	UNICODE_STRING link;

	RtlInitUnicodeString(&link, L"\\DosDevices\\Nameplate");
	IoDeleteSymbolicLink(&link);
	ExFreePoolWithTag(ext->Key.Buffer, TAG);
	IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
	UNICODE_STRING name, link;
	PDEVICE_OBJECT device;
	EXT *ext;
	NTSTATUS status;
	ULONG size;

	Driver->MajorFunction[IRP_MJ_CREATE] = OnCreateClose;
	Driver->MajorFunction[IRP_MJ_CLOSE] = OnCreateClose;
	Driver->MajorFunction[IRP_MJ_CLEANUP] = OnCreateClose;
	Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = OnControl;
	Driver->DriverUnload = OnUnload;

	RtlInitUnicodeString(&name, L"\\Device\\Nameplate");
	RtlInitUnicodeString(&link, L"\\DosDevices\\Nameplate");
	status = IoCreateDevice(Driver, sizeof(EXT), &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
	if (!NT_SUCCESS(status))
		return status;
	ext = device->DeviceExtension;
	RtlZeroMemory(ext, sizeof(EXT));
	ExInitializeFastMutex(&ext->Mutex);

	size = RegistryPath->Length + sizeof(L"\\Parameters");
	if (size > 0xFFFE) {
		IoDeleteDevice(device);
		return STATUS_NAME_TOO_LONG;
	}
	ext->Key.Buffer = ExAllocatePoolWithTag(PagedPool, size, TAG);
	if (ext->Key.Buffer == NULL) {
		IoDeleteDevice(device);
		return STATUS_INSUFFICIENT_RESOURCES;
	}
	ext->Key.MaximumLength = (USHORT)size;
	RtlCopyUnicodeString(&ext->Key, RegistryPath);
	RtlAppendUnicodeToString(&ext->Key, L"\\Parameters");

	status = IoCreateSymbolicLink(&link, &name);
	if (!NT_SUCCESS(status)) {
		ExFreePoolWithTag(ext->Key.Buffer, TAG);
		IoDeleteDevice(device);
		return status;
	}
	Load(ext);		/* no plate yet: an empty one */
	device->Flags &= ~DO_DEVICE_INITIALIZING;
	return STATUS_SUCCESS;
}

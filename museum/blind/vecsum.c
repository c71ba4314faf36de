/*
 * Vector service: sorts a vector of 64-bit numbers from the application and gives its median and sum.
 *
 * The bug: the vector's size in bytes is worked out in 32 bits; a count of 0x20000001 comes out as 8 bytes and passes
 * the check against the buffer, then the copy runs for the full count.
 *
 * Device: none
 * Rule: pool-zero-bytes, pool-overrun
 * Needs: ioctl
 * Symptom: pool overrun and read beyond the system buffer (0x50, 0xD6, 0x19) on one request with a huge count.
 */
#include <ddk/wdm.h>

#define VEC_TAG 'ceVS'
#define VEC_MAX_BYTES 0x10000

#define IOCTL_VECTOR_STATS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x890, METHOD_BUFFERED, FILE_ANY_ACCESS)

struct vec_in {
	ULONG count;
	ULONG flags;
	ULONGLONG item[1];
};

struct vec_out {
	ULONGLONG sum;
	ULONGLONG median;
};

static NTSTATUS VsComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI VsCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return VsComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI VsClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return VsComplete(Irp, STATUS_SUCCESS, 0);
}

static void vec_sift(ULONGLONG *v, ULONG root, ULONG n)
{
	while (2 * root + 1 < n) {
		ULONG child = 2 * root + 1;
		ULONGLONG t;

		if (child + 1 < n && v[child] < v[child + 1])
			child++;
		if (v[root] >= v[child])
			return;
		t = v[root];
		v[root] = v[child];
		v[child] = t;
		root = child;
	}
}

static void vec_sort(ULONGLONG *v, ULONG n)
{
	ULONG i;

	for (i = n / 2; i-- > 0; )
		vec_sift(v, i, n);
	for (i = n; i-- > 1; ) {
		ULONGLONG t = v[0];

		v[0] = v[i];
		v[i] = t;
		vec_sift(v, 0, i);
	}
}

static NTSTATUS vec_stats(struct vec_in *in, ULONG in_len, struct vec_out *out)
{
	const ULONG head = FIELD_OFFSET(struct vec_in, item);
	ULONGLONG *copy, sum = 0;
	ULONG bytes, i, count;

	if (in_len < head)
		return STATUS_INVALID_PARAMETER;
	count = in->count;
	if (count == 0)
		return STATUS_INVALID_PARAMETER;
#ifdef FIXED
	if (count > (in_len - head) / sizeof(ULONGLONG))
		return STATUS_INVALID_PARAMETER;
#endif
	bytes = count * sizeof(ULONGLONG);
	if (bytes > in_len - head || bytes > VEC_MAX_BYTES)
		return STATUS_INVALID_PARAMETER;

	copy = ExAllocatePoolWithTag(PagedPool, bytes, VEC_TAG);
	if (!copy)
		return STATUS_INSUFFICIENT_RESOURCES;
	for (i = 0; i < count; i++) {
		copy[i] = in->item[i];
		sum += copy[i];
	}
	vec_sort(copy, count);
	out->sum = sum;
	out->median = copy[count / 2];
	ExFreePoolWithTag(copy, VEC_TAG);
	return STATUS_SUCCESS;
}

static NTSTATUS NTAPI VsControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
	struct vec_out result;
	NTSTATUS status;

	UNREFERENCED_PARAMETER(DeviceObject);
	if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_VECTOR_STATS)
		return VsComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
	if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(result))
		return VsComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
	status = vec_stats(Irp->AssociatedIrp.SystemBuffer,
			   sp->Parameters.DeviceIoControl.InputBufferLength, &result);
	if (!NT_SUCCESS(status))
		return VsComplete(Irp, status, 0);
	*(struct vec_out *)Irp->AssociatedIrp.SystemBuffer = result;
	return VsComplete(Irp, STATUS_SUCCESS, sizeof(result));
}

static VOID NTAPI VsUnload(PDRIVER_OBJECT DriverObject)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\VecSum");

    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(DriverObject->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\VecSum");
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\VecSum");
    PDEVICE_OBJECT device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = IoCreateDevice(DriverObject, 0, &name, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    DriverObject->DriverUnload = VsUnload;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = VsCreate;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = VsClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = VsControl;
    device->Flags |= DO_BUFFERED_IO;
    return STATUS_SUCCESS;
}

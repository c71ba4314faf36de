/*
 * patchbay - four message lanes (\Device\Patchbay0 to 3). A write appends a packet to the lane, a read
 * takes the oldest one, and an IOCTL patches: moves packets from this lane to another one.
 *
 * The bug: two lanes are locked in the order in which they are named.
 *
 * Device: none
 * Rule: lock-order-inversion
 * Needs: schedule
 */
#include <ddk/wdm.h>

#define TAG 'yabP'
#define LANES 4
#define MAX_PACKET 256
#define MAX_PACKETS 100
#define IOCTL_PATCH_MOVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x850, METHOD_BUFFERED, FILE_READ_ACCESS | FILE_WRITE_ACCESS)
#define IOCTL_PATCH_LEVELS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x851, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _PACKET {
	LIST_ENTRY Link;
	ULONG Length;
	UCHAR Data[];
} PACKET;

typedef struct _LANE {
	ULONG Index;
	FAST_MUTEX Mutex;
	LIST_ENTRY Packets;
	ULONG Count;
} LANE;

typedef struct _PATCH_MOVE {
	ULONG To;
	ULONG Packets;
} PATCH_MOVE;

static PDEVICE_OBJECT Devices[LANES];

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
	Irp->IoStatus.Status = Status;
	Irp->IoStatus.Information = Information;
	IoCompleteRequest(Irp, IO_NO_INCREMENT);
	return Status;
}

static NTSTATUS NTAPI OnRead(PDEVICE_OBJECT Device, PIRP Irp)
{
	LANE *lane = Device->DeviceExtension;
	ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length;
	NTSTATUS status = STATUS_SUCCESS;
	PACKET *packet = NULL;

	if (length == 0)
		return Finish(Irp, STATUS_SUCCESS, 0);
	ExAcquireFastMutex(&lane->Mutex);
	if (IsListEmpty(&lane->Packets)) {
		status = STATUS_NO_MORE_ENTRIES;
	} else {
		packet = CONTAINING_RECORD(lane->Packets.Flink, PACKET, Link);
		if (packet->Length > length) {
			status = STATUS_BUFFER_TOO_SMALL;
			packet = NULL;
		} else {
			RemoveEntryList(&packet->Link);
			lane->Count--;
		}
	}
	ExReleaseFastMutex(&lane->Mutex);
	if (packet == NULL)
		return Finish(Irp, status, 0);
	length = packet->Length;
	RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, packet->Data, length);
	ExFreePoolWithTag(packet, TAG);
	return Finish(Irp, STATUS_SUCCESS, length);
}

static NTSTATUS NTAPI OnWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
	LANE *lane = Device->DeviceExtension;
	ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
	NTSTATUS status = STATUS_SUCCESS;
	PACKET *packet;

	if (length == 0 || length > MAX_PACKET)
		return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
	packet = ExAllocatePoolWithTag(PagedPool, sizeof(PACKET) + length, TAG);
	if (packet == NULL)
		return Finish(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
	packet->Length = length;
	RtlCopyMemory(packet->Data, Irp->AssociatedIrp.SystemBuffer, length);
	ExAcquireFastMutex(&lane->Mutex);
	if (lane->Count < MAX_PACKETS) {
		InsertTailList(&lane->Packets, &packet->Link);
		lane->Count++;
	} else {
		status = STATUS_DEVICE_BUSY;
	}
	ExReleaseFastMutex(&lane->Mutex);
	if (!NT_SUCCESS(status)) {
		ExFreePoolWithTag(packet, TAG);
		length = 0;
	}
	return Finish(Irp, status, length);
}

/* Moves up to Packets packets; tells how many. */
static ULONG Move(LANE *from, LANE *to, ULONG Packets)
{
	LANE *first = from, *second = to;
	ULONG n = 0;

#ifdef FIXED
	if (first->Index > second->Index) {
		first = to;
		second = from;
	}
#endif
	ExAcquireFastMutex(&first->Mutex);
	ExAcquireFastMutex(&second->Mutex);
	while (n < Packets && from->Count != 0 && to->Count < MAX_PACKETS) {
		InsertTailList(&to->Packets, RemoveHeadList(&from->Packets));
		from->Count--;
		to->Count++;
		n++;
	}
	ExReleaseFastMutex(&second->Mutex);
	ExReleaseFastMutex(&first->Mutex);
	return n;
}

static NTSTATUS NTAPI OnControl(PDEVICE_OBJECT Device, PIRP Irp)
{
	LANE *lane = Device->DeviceExtension;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
	ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
	PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
	PATCH_MOVE move;
	ULONG i;

	switch (sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_PATCH_MOVE:
		if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(PATCH_MOVE) || out < sizeof(ULONG))
			return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
		RtlCopyMemory(&move, buffer, sizeof(move));
		if (move.To >= LANES || move.To == lane->Index)
			return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
		*(ULONG *)buffer = Move(lane, Devices[move.To]->DeviceExtension, move.Packets);
		return Finish(Irp, STATUS_SUCCESS, sizeof(ULONG));
	case IOCTL_PATCH_LEVELS:
		if (out < LANES * sizeof(ULONG))
			return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
		for (i = 0; i < LANES; i++) {
			LANE *other = Devices[i]->DeviceExtension;

			ExAcquireFastMutex(&other->Mutex);
			((ULONG *)buffer)[i] = other->Count;
			ExReleaseFastMutex(&other->Mutex);
		}
		return Finish(Irp, STATUS_SUCCESS, LANES * sizeof(ULONG));
	default:
		return Finish(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
	}
}

static NTSTATUS NTAPI OnCreateClose(PDEVICE_OBJECT Device, PIRP Irp)
{
	UNREFERENCED_PARAMETER(Device);
	return Finish(Irp, STATUS_SUCCESS, 0);
}

static VOID DeleteLane(ULONG i)
{
	WCHAR name[] = L"\\DosDevices\\Patchbay0";
	LANE *lane = Devices[i]->DeviceExtension;
	UNICODE_STRING link;

	name[sizeof(name) / sizeof(WCHAR) - 2] = (WCHAR)(L'0' + i);
	RtlInitUnicodeString(&link, name);
	IoDeleteSymbolicLink(&link);
	while (!IsListEmpty(&lane->Packets))
		ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&lane->Packets), PACKET, Link), TAG);
	IoDeleteDevice(Devices[i]);
	Devices[i] = NULL;
}

static NTSTATUS CreateLane(PDRIVER_OBJECT Driver, ULONG i)
{
	WCHAR device[] = L"\\Device\\Patchbay0";
	WCHAR dos[] = L"\\DosDevices\\Patchbay0";
	UNICODE_STRING name, link;
	NTSTATUS status;
	LANE *lane;

	device[sizeof(device) / sizeof(WCHAR) - 2] = (WCHAR)(L'0' + i);
	dos[sizeof(dos) / sizeof(WCHAR) - 2] = (WCHAR)(L'0' + i);
	RtlInitUnicodeString(&name, device);
	RtlInitUnicodeString(&link, dos);
	status = IoCreateDevice(Driver, sizeof(LANE), &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Devices[i]);
	if (!NT_SUCCESS(status)) {
		Devices[i] = NULL;
		return status;
	}
	lane = Devices[i]->DeviceExtension;
	lane->Index = i;
	lane->Count = 0;
	ExInitializeFastMutex(&lane->Mutex);
	InitializeListHead(&lane->Packets);
	Devices[i]->Flags |= DO_BUFFERED_IO;
	status = IoCreateSymbolicLink(&link, &name);
	if (!NT_SUCCESS(status)) {
		IoDeleteDevice(Devices[i]);
		Devices[i] = NULL;
	}
	return status;
}

static VOID NTAPI OnUnload(PDRIVER_OBJECT Driver)
{
	ULONG i;

	UNREFERENCED_PARAMETER(Driver);
	for (i = 0; i < LANES; i++)
		DeleteLane(i);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
	NTSTATUS status;
	ULONG i;

	UNREFERENCED_PARAMETER(RegistryPath);
	Driver->MajorFunction[IRP_MJ_CREATE] = OnCreateClose;
	Driver->MajorFunction[IRP_MJ_CLOSE] = OnCreateClose;
	Driver->MajorFunction[IRP_MJ_CLEANUP] = OnCreateClose;
	Driver->MajorFunction[IRP_MJ_READ] = OnRead;
	Driver->MajorFunction[IRP_MJ_WRITE] = OnWrite;
	Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = OnControl;
	Driver->DriverUnload = OnUnload;

	for (i = 0; i < LANES; i++) {
		status = CreateLane(Driver, i);
		if (!NT_SUCCESS(status)) {
			while (i-- > 0)
				DeleteLane(i);
			return status;
		}
	}
	for (i = 0; i < LANES; i++)
		Devices[i]->Flags &= ~DO_DEVICE_INITIALIZING;
	return STATUS_SUCCESS;
}

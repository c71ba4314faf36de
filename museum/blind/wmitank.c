/*
 * wmitank - a (simulated) tank whose level, alarm limit and temperature management programs see through WMI:
 * one data block with one instance, whose alarm limit can be set. Programs get the same by IOCTL.
 *
 * The bug: room for an instance is computed from the header, and not from where its data begin.
 *
 * Device: ROOT\WMITANK
 * Rule: pool-overrun
 * Needs: nothing
 */
#include <ddk/wdm.h>
#include <wmistr.h>

#define TAG 'knaT'
#define TICK_MS 250
#define CAPACITY 10000
#define IOCTL_TANK_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x970, METHOD_BUFFERED, FILE_ANY_ACCESS)

#ifndef STATUS_WMI_GUID_NOT_FOUND
#define STATUS_WMI_GUID_NOT_FOUND ((NTSTATUS)0xC0000295)
#endif
#ifndef STATUS_WMI_INSTANCE_NOT_FOUND
#define STATUS_WMI_INSTANCE_NOT_FOUND ((NTSTATUS)0xC0000296)
#endif
#ifndef STATUS_WMI_ITEMID_NOT_FOUND
#define STATUS_WMI_ITEMID_NOT_FOUND ((NTSTATUS)0xC0000297)
#endif
#ifndef STATUS_WMI_SET_FAILURE
#define STATUS_WMI_SET_FAILURE ((NTSTATUS)0xC00002DA)
#endif

typedef struct _TANK {
	ULONG Level;
	ULONG Alarm;
	ULONG Temperature;
	ULONG Alarms;
} TANK;

#define ITEM_ALARM 2

static const GUID TankGuid = { 0x7b90d3c4, 0x52a1, 0x4f16, { 0x8d, 0x20, 0x5c, 0x66, 0x3b, 0x01, 0xee, 0x42 } };
static const GUID InterfaceGuid = { 0x6a3c1f20, 0x11d2, 0x4b8e, { 0x90, 0x01, 0x3a, 0x51, 0x22, 0x9c, 0x10, 0x0c } };

static UNICODE_STRING DriverKey;

typedef struct _EXT {
	PDEVICE_OBJECT Self;
	PDEVICE_OBJECT Pdo;
	PDEVICE_OBJECT Lower;
	IO_REMOVE_LOCK RemoveLock;	/* one reference for every request that is not complete */
	UNICODE_STRING Interface;
	BOOLEAN InterfaceOn;
	KSPIN_LOCK Lock;		/* guards what follows */
	DEVICE_POWER_STATE Power;
	BOOLEAN Started;
	BOOLEAN Gone;			/* being removed: no new requests */
	BOOLEAN Absent;			/* surprise removal */
	BOOLEAN Live;			/* started and powered */
	TANK Tank;
	ULONG Seed;
	BOOLEAN Registered;
	KTIMER Timer;
	KDPC TimerDpc;
} EXT;

#define OWN_HALT
#define OWN_ON_SYSTEM_CONTROL
#define OWN_ON_UNLOAD
#include "../include/live_frame.h"

static NTSTATUS NTAPI OnCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
	UNREFERENCED_PARAMETER(Device);
	return Finish(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI OnTick(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
	EXT *ext = Context;
	ULONG before;

	UNREFERENCED_PARAMETER(Dpc);
	UNREFERENCED_PARAMETER(Argument1);
	UNREFERENCED_PARAMETER(Argument2);
	KeAcquireSpinLockAtDpcLevel(&ext->Lock);
	if (ext->Live) {
		before = ext->Tank.Level;
		ext->Seed = ext->Seed * 1103515245 + 12345;
		ext->Tank.Level = (before + (ext->Seed >> 16) % 400) % CAPACITY;
		ext->Tank.Temperature = 15 + (ext->Seed >> 20) % 10;
		if (before < ext->Tank.Alarm && ext->Tank.Level >= ext->Tank.Alarm)
			ext->Tank.Alarms++;
	}
	KeReleaseSpinLockFromDpcLevel(&ext->Lock);
}

static VOID Up(EXT *ext)
{
	LARGE_INTEGER due;
	KIRQL irql;

	due.QuadPart = -10000LL * TICK_MS;
	KeAcquireSpinLock(&ext->Lock, &irql);
	if (ext->Started && !ext->Gone && ext->Power == PowerDeviceD0 && !ext->Live) {
		ext->Live = TRUE;
		KeSetTimerEx(&ext->Timer, due, TICK_MS, &ext->TimerDpc);
	}
	KeReleaseSpinLock(&ext->Lock, irql);
}

static VOID Down(EXT *ext, NTSTATUS Status)
{
	KIRQL irql;

	UNREFERENCED_PARAMETER(Status);
	KeAcquireSpinLock(&ext->Lock, &irql);
	if (ext->Live) {
		ext->Live = FALSE;
		KeCancelTimer(&ext->Timer);
	}
	KeReleaseSpinLock(&ext->Lock, irql);
}

static VOID Release(EXT *ext)
{
	if (ext->Registered) {
		IoWMIRegistrationControl(ext->Self, WMIREG_ACTION_DEREGISTER);
		ext->Registered = FALSE;
	}
	KeCancelTimer(&ext->Timer);
	KeFlushQueuedDpcs();
}

static NTSTATUS Acquire(EXT *ext, PCM_RESOURCE_LIST List)
{
	NTSTATUS status;

	UNREFERENCED_PARAMETER(List);
	status = IoWMIRegistrationControl(ext->Self, WMIREG_ACTION_REGISTER);
	ext->Registered = NT_SUCCESS(status);
	return status;
}

static TANK ReadTank(EXT *ext)
{
	TANK tank;
	KIRQL irql;

	KeAcquireSpinLock(&ext->Lock, &irql);
	tank = ext->Tank;
	KeReleaseSpinLock(&ext->Lock, irql);
	return tank;
}

static NTSTATUS SetAlarm(EXT *ext, ULONG Alarm)
{
	KIRQL irql;

	if (Alarm > CAPACITY)
		return STATUS_WMI_SET_FAILURE;
	KeAcquireSpinLock(&ext->Lock, &irql);
	ext->Tank.Alarm = Alarm;
	KeReleaseSpinLock(&ext->Lock, irql);
	return STATUS_SUCCESS;
}

static NTSTATUS NTAPI OnControl(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
	NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

	if (!NT_SUCCESS(status))
		return Finish(Irp, status, 0);
	if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_TANK_STATE)
		return Done(ext, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
	if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(TANK))
		return Done(ext, Irp, STATUS_BUFFER_TOO_SMALL, 0);
	*(TANK *)Irp->AssociatedIrp.SystemBuffer = ReadTank(ext);
	return Done(ext, Irp, STATUS_SUCCESS, sizeof(TANK));
}

/* No more requests; those that wait or run end with Status. */
static VOID Halt(EXT *ext, BOOLEAN Gone, BOOLEAN Absent, NTSTATUS Status)
{
	KIRQL irql;

	KeAcquireSpinLock(&ext->Lock, &irql);
	ext->Started = FALSE;
	if (Gone)
		ext->Gone = TRUE;
	if (Absent)
		ext->Absent = TRUE;
	KeReleaseSpinLock(&ext->Lock, irql);
	if (Gone && ext->InterfaceOn) {
		IoSetDeviceInterfaceState(&ext->Interface, FALSE);
		ext->InterfaceOn = FALSE;
	}
	Down(ext, Status);
}

/* What this device offers. */
static NTSTATUS RegInfo(EXT *ext, PVOID Buffer, ULONG Size, ULONG_PTR *Used)
{
	ULONG pathOffset = FIELD_OFFSET(WMIREGINFOW, WmiRegGuid) + sizeof(WMIREGGUIDW);
	ULONG needed = pathOffset + sizeof(USHORT) + DriverKey.Length;
	WMIREGINFOW *info = Buffer;
	WMIREGGUIDW *guid;
	PUCHAR path;

	if (Size < sizeof(ULONG))
		return STATUS_BUFFER_TOO_SMALL;
	if (Size < needed) {
		*(ULONG *)Buffer = needed;
		*Used = sizeof(ULONG);
		return STATUS_BUFFER_TOO_SMALL;
	}
	RtlZeroMemory(Buffer, needed);
	info->BufferSize = needed;
	info->RegistryPath = pathOffset;
	info->GuidCount = 1;
	guid = (WMIREGGUIDW *)((PUCHAR)Buffer + FIELD_OFFSET(WMIREGINFOW, WmiRegGuid));
	guid->Guid = TankGuid;
	guid->Flags = WMIREG_FLAG_INSTANCE_PDO;
	guid->InstanceCount = 1;
	guid->Pdo = (ULONG_PTR)ext->Pdo;
	ObReferenceObject(ext->Pdo);		/* WMI gives it back */
	path = (PUCHAR)Buffer + pathOffset;
	*(USHORT *)path = DriverKey.Length;
	RtlCopyMemory(path + sizeof(USHORT), DriverKey.Buffer, DriverKey.Length);
	*Used = needed;
	return STATUS_SUCCESS;
}

static NTSTATUS TooSmall(PVOID Buffer, ULONG Size, ULONG Needed, ULONG_PTR *Used)
{
	WNODE_TOO_SMALL *wnode = Buffer;

	if (Size < sizeof(WNODE_TOO_SMALL))
		return STATUS_BUFFER_TOO_SMALL;
	wnode->WnodeHeader.BufferSize = sizeof(WNODE_TOO_SMALL);
	wnode->WnodeHeader.Flags |= WNODE_FLAG_TOO_SMALL;
	wnode->SizeNeeded = Needed;
	*Used = sizeof(WNODE_TOO_SMALL);
	return STATUS_SUCCESS;
}

static NTSTATUS QueryAll(EXT *ext, PVOID Buffer, ULONG Size, ULONG_PTR *Used)
{
	ULONG offset = (sizeof(WNODE_ALL_DATA) + 7) & ~7u;
	ULONG needed = offset + sizeof(TANK);
	WNODE_ALL_DATA *wnode = Buffer;

	if (Size < needed)
		return TooSmall(Buffer, Size, needed, Used);
	RtlZeroMemory((PUCHAR)Buffer + sizeof(WNODE_HEADER), offset - sizeof(WNODE_HEADER));
	wnode->WnodeHeader.BufferSize = needed;
	wnode->WnodeHeader.Flags |= WNODE_FLAG_FIXED_INSTANCE_SIZE;
	KeQuerySystemTime(&wnode->WnodeHeader.TimeStamp);
	wnode->DataBlockOffset = offset;
	wnode->InstanceCount = 1;
	wnode->FixedInstanceSize = sizeof(TANK);
	*(TANK *)((PUCHAR)Buffer + offset) = ReadTank(ext);
	*Used = needed;
	return STATUS_SUCCESS;
}

static NTSTATUS QuerySingle(EXT *ext, PVOID Buffer, ULONG Size, ULONG_PTR *Used)
{
	WNODE_SINGLE_INSTANCE *wnode = Buffer;
	TANK tank = ReadTank(ext);
	ULONG offset;

	if (Size < sizeof(WNODE_SINGLE_INSTANCE))
		return STATUS_BUFFER_TOO_SMALL;
	if (!(wnode->WnodeHeader.Flags & WNODE_FLAG_STATIC_INSTANCE_NAMES) || wnode->InstanceIndex != 0)
		return STATUS_WMI_INSTANCE_NOT_FOUND;
	offset = wnode->DataBlockOffset;
	if (offset < sizeof(WNODE_SINGLE_INSTANCE) || offset > 0x10000)
		return STATUS_INVALID_PARAMETER;
#ifdef FIXED
	if (Size < offset + sizeof(TANK))
#else
	if (Size < sizeof(WNODE_SINGLE_INSTANCE) + sizeof(TANK))
#endif
		return TooSmall(Buffer, Size, offset + sizeof(TANK), Used);
	RtlCopyMemory((PUCHAR)Buffer + offset, &tank, sizeof(tank));
	wnode->SizeDataBlock = sizeof(tank);
	wnode->WnodeHeader.BufferSize = offset + sizeof(tank);
	KeQuerySystemTime(&wnode->WnodeHeader.TimeStamp);
	*Used = offset + sizeof(tank);
	return STATUS_SUCCESS;
}

static NTSTATUS ChangeInstance(EXT *ext, PVOID Buffer, ULONG Size)
{
	WNODE_SINGLE_INSTANCE *wnode = Buffer;
	TANK tank;

	if (Size < sizeof(WNODE_SINGLE_INSTANCE))
		return STATUS_BUFFER_TOO_SMALL;
	if (!(wnode->WnodeHeader.Flags & WNODE_FLAG_STATIC_INSTANCE_NAMES) || wnode->InstanceIndex != 0)
		return STATUS_WMI_INSTANCE_NOT_FOUND;
	if (wnode->SizeDataBlock != sizeof(TANK) || Size < sizeof(TANK) || wnode->DataBlockOffset > Size - sizeof(TANK))
		return STATUS_WMI_SET_FAILURE;
	RtlCopyMemory(&tank, (PUCHAR)Buffer + wnode->DataBlockOffset, sizeof(tank));
	return SetAlarm(ext, tank.Alarm);
}

static NTSTATUS ChangeItem(EXT *ext, PVOID Buffer, ULONG Size)
{
	WNODE_SINGLE_ITEM *wnode = Buffer;
	ULONG alarm;

	if (Size < sizeof(WNODE_SINGLE_ITEM))
		return STATUS_BUFFER_TOO_SMALL;
	if (!(wnode->WnodeHeader.Flags & WNODE_FLAG_STATIC_INSTANCE_NAMES) || wnode->InstanceIndex != 0)
		return STATUS_WMI_INSTANCE_NOT_FOUND;
	if (wnode->ItemId != ITEM_ALARM)
		return STATUS_WMI_ITEMID_NOT_FOUND;
	if (wnode->SizeDataItem != sizeof(ULONG) || wnode->DataBlockOffset > Size - sizeof(ULONG))
		return STATUS_WMI_SET_FAILURE;
	RtlCopyMemory(&alarm, (PUCHAR)Buffer + wnode->DataBlockOffset, sizeof(alarm));
	return SetAlarm(ext, alarm);
}

static NTSTATUS NTAPI OnSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
	PVOID buffer = sp->Parameters.WMI.Buffer;
	ULONG size = sp->Parameters.WMI.BufferSize;
	NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
	ULONG_PTR used = 0;

	if (!NT_SUCCESS(status))
		return Finish(Irp, status, 0);
	if (sp->Parameters.WMI.ProviderId != (ULONG_PTR)Device || sp->MinorFunction > IRP_MN_REGINFO_EX) {
		IoSkipCurrentIrpStackLocation(Irp);
		status = IoCallDriver(ext->Lower, Irp);
		IoReleaseRemoveLock(&ext->RemoveLock, Irp);
		return status;
	}
	if (sp->MinorFunction == IRP_MN_REGINFO || sp->MinorFunction == IRP_MN_REGINFO_EX) {
		status = RegInfo(ext, buffer, size, &used);
		return Done(ext, Irp, status, used);
	}
	if (sp->Parameters.WMI.DataPath == NULL || RtlCompareMemory(sp->Parameters.WMI.DataPath, &TankGuid, sizeof(GUID)) != sizeof(GUID))
		return Done(ext, Irp, STATUS_WMI_GUID_NOT_FOUND, 0);
	switch (sp->MinorFunction) {
	case IRP_MN_QUERY_ALL_DATA:
		status = QueryAll(ext, buffer, size, &used);
		break;
	case IRP_MN_QUERY_SINGLE_INSTANCE:
		status = QuerySingle(ext, buffer, size, &used);
		break;
	case IRP_MN_CHANGE_SINGLE_INSTANCE:
		status = ChangeInstance(ext, buffer, size);
		break;
	case IRP_MN_CHANGE_SINGLE_ITEM:
		status = ChangeItem(ext, buffer, size);
		break;
	default:
		status = STATUS_INVALID_DEVICE_REQUEST;
		break;
	}
	return Done(ext, Irp, status, used);
}

static NTSTATUS NTAPI OnAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
	PDEVICE_OBJECT self;
	NTSTATUS status;
	EXT *ext;

	status = IoCreateDevice(Driver, sizeof(EXT), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &self);
	if (!NT_SUCCESS(status))
		return status;
	ext = self->DeviceExtension;
	RtlZeroMemory(ext, sizeof(EXT));
	ext->Self = self;
	ext->Pdo = Pdo;
	ext->Power = PowerDeviceD0;
	IoInitializeRemoveLock(&ext->RemoveLock, TAG, 0, 0);
	KeInitializeSpinLock(&ext->Lock);
	KeInitializeDpc(&ext->TimerDpc, OnTick, ext);
	KeInitializeTimerEx(&ext->Timer, SynchronizationTimer);
	ext->Tank.Alarm = 8000;
	ext->Tank.Temperature = 15;
	ext->Seed = 1;
	status = IoRegisterDeviceInterface(Pdo, &InterfaceGuid, NULL, &ext->Interface);
	if (!NT_SUCCESS(status)) {
		IoDeleteDevice(self);
		return status;
	}
	ext->Lower = IoAttachDeviceToDeviceStack(self, Pdo);
	if (ext->Lower == NULL) {
		RtlFreeUnicodeString(&ext->Interface);
		IoDeleteDevice(self);
		return STATUS_NO_SUCH_DEVICE;
	}
	self->Flags |= DO_BUFFERED_IO | (ext->Lower->Flags & DO_POWER_PAGABLE);
	self->Flags &= ~DO_DEVICE_INITIALIZING;
	return STATUS_SUCCESS;
}

static VOID NTAPI OnUnload(PDRIVER_OBJECT Driver)
{
	UNREFERENCED_PARAMETER(Driver);
	ExFreePoolWithTag(DriverKey.Buffer, TAG);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
	DriverKey.Buffer = ExAllocatePoolWithTag(PagedPool, RegistryPath->Length + sizeof(WCHAR), TAG);
	if (DriverKey.Buffer == NULL)
		return STATUS_INSUFFICIENT_RESOURCES;
	DriverKey.MaximumLength = RegistryPath->Length;
	RtlCopyUnicodeString(&DriverKey, RegistryPath);

	Driver->MajorFunction[IRP_MJ_CREATE] = OnCreate;
	Driver->MajorFunction[IRP_MJ_CLOSE] = OnClose;
	Driver->MajorFunction[IRP_MJ_CLEANUP] = OnCleanup;
	Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = OnControl;
	Driver->MajorFunction[IRP_MJ_PNP] = OnPnp;
	Driver->MajorFunction[IRP_MJ_POWER] = OnPower;
	Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = OnSystemControl;
	Driver->DriverExtension->AddDevice = OnAddDevice;
	Driver->DriverUnload = OnUnload;
	return STATUS_SUCCESS;
}

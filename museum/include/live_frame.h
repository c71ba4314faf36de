/*
 * live_frame.h - what Plug and Play function drivers of a card share: requests that hold the remove lock, start, stop and removal, and power with the
 * device's policy.
 *
 * The including driver defines EXT before, and behind it what takes resources (Acquire, Release), what has the device work and rest (Up, Down) and its
 * tick. A routine of which it has one of its own it names by OWN_... before.
 */
#define SHARED static inline

static NTSTATUS Acquire(EXT *ext, PCM_RESOURCE_LIST List);
static VOID Release(EXT *ext);
static VOID Up(EXT *ext);
static VOID Down(EXT *ext, NTSTATUS Status);
static VOID Halt(EXT *ext, BOOLEAN Gone, BOOLEAN Absent, NTSTATUS Status);
static NTSTATUS NTAPI SystemIrpDown(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context);
#ifndef OWN_HALT
static VOID FailAll(EXT *ext, NTSTATUS Status);
#endif

SHARED NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
	Irp->IoStatus.Status = Status;
	Irp->IoStatus.Information = Information;
	IoCompleteRequest(Irp, IO_NO_INCREMENT);
	return Status;
}

/* Completes a request that holds the remove lock. */
SHARED NTSTATUS Done(EXT *ext, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
	Finish(Irp, Status, Information);
	IoReleaseRemoveLock(&ext->RemoveLock, Irp);
	return Status;
}

SHARED NTSTATUS NTAPI OnCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

	if (!NT_SUCCESS(status))
		return Finish(Irp, status, 0);
	return Done(ext, Irp, STATUS_SUCCESS, 0);
}

SHARED NTSTATUS NTAPI OnClose(PDEVICE_OBJECT Device, PIRP Irp)
{
	UNREFERENCED_PARAMETER(Device);
	return Finish(Irp, STATUS_SUCCESS, 0);
}

#ifndef OWN_HALT
/* No more requests; those that wait or run end with Status. */
SHARED VOID Halt(EXT *ext, BOOLEAN Gone, BOOLEAN Absent, NTSTATUS Status)
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
	FailAll(ext, Status);
}
#endif

SHARED NTSTATUS Start(EXT *ext, PIO_STACK_LOCATION sp)
{
	NTSTATUS status = Acquire(ext, sp->Parameters.StartDevice.AllocatedResourcesTranslated);
	KIRQL irql;

	if (!NT_SUCCESS(status))
		return status;
	KeAcquireSpinLock(&ext->Lock, &irql);
	ext->Started = TRUE;
	ext->Power = PowerDeviceD0;
	KeReleaseSpinLock(&ext->Lock, irql);
	Up(ext);
	if (!ext->InterfaceOn) {
		status = IoSetDeviceInterfaceState(&ext->Interface, TRUE);
		if (!NT_SUCCESS(status)) {
			Halt(ext, FALSE, FALSE, STATUS_DEVICE_NOT_READY);
			Release(ext);
			return status;
		}
		ext->InterfaceOn = TRUE;
	}
	return STATUS_SUCCESS;
}

#ifndef OWN_ON_PNP
SHARED NTSTATUS NTAPI OnPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
	NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

	if (!NT_SUCCESS(status))
		return Finish(Irp, status, 0);
	switch (sp->MinorFunction) {
	case IRP_MN_START_DEVICE:
		status = IoForwardIrpSynchronously(ext->Lower, Irp) ? Irp->IoStatus.Status : STATUS_UNSUCCESSFUL;
		if (NT_SUCCESS(status))
			status = Start(ext, sp);
		return Done(ext, Irp, status, 0);
	case IRP_MN_QUERY_STOP_DEVICE:
	case IRP_MN_CANCEL_STOP_DEVICE:
	case IRP_MN_QUERY_REMOVE_DEVICE:
	case IRP_MN_CANCEL_REMOVE_DEVICE:
		Irp->IoStatus.Status = STATUS_SUCCESS;
		break;
	case IRP_MN_STOP_DEVICE:
		Halt(ext, FALSE, FALSE, STATUS_DEVICE_NOT_READY);
		Release(ext);
		Irp->IoStatus.Status = STATUS_SUCCESS;
		break;
	case IRP_MN_SURPRISE_REMOVAL:
		Halt(ext, TRUE, TRUE, STATUS_DELETE_PENDING);
		Release(ext);
		Irp->IoStatus.Status = STATUS_SUCCESS;
		break;
	case IRP_MN_REMOVE_DEVICE:
		Halt(ext, TRUE, FALSE, STATUS_DELETE_PENDING);
		IoReleaseRemoveLockAndWait(&ext->RemoveLock, Irp);
		Release(ext);
		Irp->IoStatus.Status = STATUS_SUCCESS;
		IoSkipCurrentIrpStackLocation(Irp);
		status = IoCallDriver(ext->Lower, Irp);
		IoDetachDevice(ext->Lower);
		RtlFreeUnicodeString(&ext->Interface);
		IoDeleteDevice(Device);
		return status;
	default:
		break;
	}
	IoSkipCurrentIrpStackLocation(Irp);
	status = IoCallDriver(ext->Lower, Irp);
	IoReleaseRemoveLock(&ext->RemoveLock, Irp);
	return status;
}
#endif

SHARED VOID NTAPI DeviceIrpDone(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Ios)
{
	PIRP irp = Context;
	EXT *ext = IoGetCurrentIrpStackLocation(irp)->DeviceObject->DeviceExtension;

	UNREFERENCED_PARAMETER(Device);
	UNREFERENCED_PARAMETER(Minor);
	UNREFERENCED_PARAMETER(State);
	Done(ext, irp, Ios->Status, 0);
}

#ifndef OWN_SYSTEM_IRP_DOWN
/* The system power IRP comes back: ask for the device power IRP that belongs to it. */
SHARED NTSTATUS NTAPI SystemIrpDown(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
	EXT *ext = Context;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
	POWER_STATE state;
	NTSTATUS status = Irp->IoStatus.Status;

	UNREFERENCED_PARAMETER(Device);
	if (NT_SUCCESS(status)) {
		state.DeviceState = sp->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
		status = PoRequestPowerIrp(ext->Pdo, sp->MinorFunction, state, DeviceIrpDone, Irp, NULL);
		if (status == STATUS_PENDING)
			return STATUS_MORE_PROCESSING_REQUIRED;
		Irp->IoStatus.Status = status;
	}
	IoReleaseRemoveLock(&ext->RemoveLock, Irp);
	return STATUS_CONTINUE_COMPLETION;
}
#endif

SHARED VOID SetPower(EXT *ext, DEVICE_POWER_STATE State)
{
	KIRQL irql;

	KeAcquireSpinLock(&ext->Lock, &irql);
	ext->Power = State;
	KeReleaseSpinLock(&ext->Lock, irql);
}

SHARED NTSTATUS NTAPI PoweredUp(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
	EXT *ext = Context;

	UNREFERENCED_PARAMETER(Device);
	if (Irp->PendingReturned)
		IoMarkIrpPending(Irp);
	if (NT_SUCCESS(Irp->IoStatus.Status)) {
		SetPower(ext, PowerDeviceD0);
		Up(ext);
	}
	IoReleaseRemoveLock(&ext->RemoveLock, Irp);
	return STATUS_CONTINUE_COMPLETION;
}

#ifndef OWN_ON_POWER
SHARED NTSTATUS NTAPI OnPower(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
	NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
	BOOLEAN set = sp->MinorFunction == IRP_MN_SET_POWER;

	if (!NT_SUCCESS(status))
		return Finish(Irp, status, 0);
	if ((set || sp->MinorFunction == IRP_MN_QUERY_POWER) && sp->Parameters.Power.Type == SystemPowerState) {
		if (set && sp->Parameters.Power.State.SystemState != PowerSystemWorking) {
			SetPower(ext, PowerDeviceD3);
			Down(ext, STATUS_DEVICE_NOT_READY);
		}
		IoMarkIrpPending(Irp);
		IoCopyCurrentIrpStackLocationToNext(Irp);
		IoSetCompletionRoutine(Irp, SystemIrpDown, ext, TRUE, TRUE, TRUE);
		PoCallDriver(ext->Lower, Irp);
		return STATUS_PENDING;
	}
	if (set && sp->Parameters.Power.Type == DevicePowerState) {
		if (sp->Parameters.Power.State.DeviceState == PowerDeviceD0) {
			IoCopyCurrentIrpStackLocationToNext(Irp);
			IoSetCompletionRoutine(Irp, PoweredUp, ext, TRUE, TRUE, TRUE);
			return PoCallDriver(ext->Lower, Irp);
		}
		SetPower(ext, sp->Parameters.Power.State.DeviceState);
		Down(ext, STATUS_DEVICE_NOT_READY);
	}
	IoSkipCurrentIrpStackLocation(Irp);
	status = PoCallDriver(ext->Lower, Irp);
	IoReleaseRemoveLock(&ext->RemoveLock, Irp);
	return status;
}
#endif

#ifndef OWN_ON_SYSTEM_CONTROL
SHARED NTSTATUS NTAPI OnSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

	if (!NT_SUCCESS(status))
		return Finish(Irp, status, 0);
	IoSkipCurrentIrpStackLocation(Irp);
	status = IoCallDriver(ext->Lower, Irp);
	IoReleaseRemoveLock(&ext->RemoveLock, Irp);
	return status;
}
#endif

#ifndef OWN_ON_UNLOAD
SHARED VOID NTAPI OnUnload(PDRIVER_OBJECT Driver)
{
	UNREFERENCED_PARAMETER(Driver);
}
#endif

SHARED PCM_PARTIAL_RESOURCE_DESCRIPTOR FindResource(PCM_RESOURCE_LIST List, UCHAR Type, ULONG Skip)
{
	PCM_PARTIAL_RESOURCE_DESCRIPTOR d;
	ULONG i;

	if (List == NULL || List->Count == 0)
		return NULL;
	d = List->List[0].PartialResourceList.PartialDescriptors;
	for (i = 0; i < List->List[0].PartialResourceList.Count; i++, d++)
		if (d->Type == Type && Skip-- == 0)
			return d;
	return NULL;
}

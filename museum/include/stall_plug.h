/*
 * plug.h: a function driver's device. The driver gives hooks (PLUG_HOOKS); what stands here decides when they run.
 *
 *   Gate    a spin lock; `Live` is changed and looked at under it: the card has been started, is there and in D0. Who touches the
 *           card's registers does so between PlugGrip and PlugLoose, which is why no one can touch a card that is off or away.
 *   Armed   the same for the service routine, guarded by the interrupt's lock.
 *   Hold    the remove lock: one for each call of a dispatch routine, and one for each request until it is completed.
 *
 * Order of the hooks
 *   start            Begin, then Awake (gate held)
 *   D0 -> lower      Drain, Doze (gate held), Settle; then the request goes down
 *   lower -> D0      the request comes back; Awake (gate held)
 *   stop             Drain, Doze, Settle, End
 *   surprise         Settle, Gone, End
 *   remove           Drain and Doze (if the card can be reached), Settle, Gone, End; the remove lock is awaited; Bury
 * Settle, Gone and End may run several times, and for a device that was never started.
 */
#ifndef UU_PLUG_H
#define UU_PLUG_H

typedef struct _PLUG PLUG, *PPLUG;

typedef struct _PLUG_HOOKS {
	ULONG Size;                                                             /* of the extension, which begins with PLUG */
	ULONG DeviceFlags;
	const GUID *Class;                                                      /* the interface by which programs find it */
	NTSTATUS (*Prepare)(PPLUG);                                             /* at AddDevice, once */
	NTSTATUS (*Begin)(PPLUG, PCM_PARTIAL_RESOURCE_LIST);                    /* undoes itself by End if it fails */
	VOID (*Awake)(PPLUG);
	VOID (*Drain)(PPLUG, BOOLEAN);                                          /* waits for what the card does; TRUE: for good */
	VOID (*Doze)(PPLUG);
	VOID (*Settle)(PPLUG);
	VOID (*Gone)(PPLUG);
	VOID (*End)(PPLUG);
	VOID (*Bury)(PPLUG);
	NTSTATUS (*Answer)(PPLUG, PIRP, PIO_STACK_LOCATION, PULONG_PTR);        /* STATUS_PENDING: it has queued the request */
	NTSTATUS (*System)(PPLUG, PIRP, PIO_STACK_LOCATION);                    /* instead of PlugSystemPower */
	VOID (*Sunk)(PPLUG);                                                    /* the drivers below have done with D1..D3 */
} PLUG_HOOKS;

struct _PLUG {
	const PLUG_HOOKS *Hooks;
	PDEVICE_OBJECT Self, Below, Pdo;
	UNICODE_STRING Interface;
	BOOLEAN Announced;
	IO_REMOVE_LOCK Hold;
	KSPIN_LOCK Gate;
	BOOLEAN Live;
	BOOLEAN Started;
	PKINTERRUPT Int;
	BOOLEAN Armed;
};

/* ---- the gate ---- */

UU_SHARED BOOLEAN PlugGrip(PPLUG P, PKIRQL Irql)
{
	KeAcquireSpinLock(&P->Gate, Irql);
	if (P->Live)
		return TRUE;
	KeReleaseSpinLock(&P->Gate, *Irql);
	return FALSE;
}

UU_SHARED VOID PlugLoose(PPLUG P, KIRQL Irql)
{
	KeReleaseSpinLock(&P->Gate, Irql);
}

UU_SHARED BOOLEAN NTAPI PlugDeaf(PVOID Context)
{
	((PPLUG)Context)->Armed = FALSE;
	return TRUE;
}

/* From here on no one but the service routine's last run touches the card; `Reachable`: it may learn so. */
UU_SHARED VOID PlugQuiet(PPLUG P, BOOLEAN Reachable)
{
	KIRQL irql;

	KeAcquireSpinLock(&P->Gate, &irql);
	if (P->Live) {
		if (Reachable && P->Hooks->Doze != NULL)
			P->Hooks->Doze(P);
		P->Live = FALSE;
	}
	if (P->Int != NULL)
		KeSynchronizeExecution(P->Int, PlugDeaf, P);
	KeReleaseSpinLock(&P->Gate, irql);
	if (P->Hooks->Settle != NULL)
		P->Hooks->Settle(P);
}

UU_SHARED VOID PlugRouse(PPLUG P, BOOLEAN Starts)
{
	KIRQL irql;

	KeAcquireSpinLock(&P->Gate, &irql);
	if (Starts)
		P->Started = TRUE;
	if (P->Started && !P->Live) {
		P->Live = TRUE;
		if (P->Hooks->Awake != NULL)
			P->Hooks->Awake(P);
	}
	KeReleaseSpinLock(&P->Gate, irql);
}

UU_SHARED VOID PlugUnstart(PPLUG P)
{
	KIRQL irql;

	KeAcquireSpinLock(&P->Gate, &irql);
	P->Started = FALSE;
	KeReleaseSpinLock(&P->Gate, irql);
}

UU_SHARED BOOLEAN PlugIsStarted(PPLUG P)
{
	BOOLEAN started;
	KIRQL irql;

	KeAcquireSpinLock(&P->Gate, &irql);
	started = P->Started;
	KeReleaseSpinLock(&P->Gate, irql);
	return started;
}

/* ---- resources ---- */

UU_SHARED PCM_PARTIAL_RESOURCE_DESCRIPTOR PlugFind(PCM_PARTIAL_RESOURCE_LIST List, UCHAR Type, ULONG Which)
{
	PCM_PARTIAL_RESOURCE_DESCRIPTOR each;
	ULONG i;

	if (List == NULL)
		return NULL;
	each = List->PartialDescriptors;
	for (i = 0; i < List->Count; i++, each++)
		if (each->Type == Type && Which-- == 0)
			return each;
	return NULL;
}

/* Maps the which-th memory range, if it has so many bytes. */
UU_SHARED NTSTATUS PlugMap(PCM_PARTIAL_RESOURCE_LIST List, ULONG Which, ULONG Least, PUCHAR *Base, PULONG Length)
{
	PCM_PARTIAL_RESOURCE_DESCRIPTOR d = PlugFind(List, CmResourceTypeMemory, Which);

	if (d == NULL || d->u.Memory.Length < Least)
		return STATUS_DEVICE_CONFIGURATION_ERROR;
	*Base = MmMapIoSpace(d->u.Memory.Start, d->u.Memory.Length, MmNonCached);
	if (*Base == NULL)
		return STATUS_INSUFFICIENT_RESOURCES;
	*Length = d->u.Memory.Length;
	return STATUS_SUCCESS;
}

UU_SHARED VOID PlugUnmap(PUCHAR *Base, ULONG Length)
{
	if (*Base != NULL) {
		MmUnmapIoSpace(*Base, Length);
		*Base = NULL;
	}
}

static inline ULONG RegRead(const UCHAR *Base, ULONG Offset)
{
	return *(const volatile ULONG *)(Base + Offset);
}

static inline VOID RegWrite(PUCHAR Base, ULONG Offset, ULONG Value)
{
	*(volatile ULONG *)(Base + Offset) = Value;
	__sync_synchronize();
}

UU_SHARED NTSTATUS PlugConnect(PPLUG P, PCM_PARTIAL_RESOURCE_LIST List, PKSERVICE_ROUTINE Routine)
{
	PCM_PARTIAL_RESOURCE_DESCRIPTOR d = PlugFind(List, CmResourceTypeInterrupt, 0);
	PKINTERRUPT made = NULL;
	NTSTATUS status;

	if (d == NULL)
		return STATUS_DEVICE_CONFIGURATION_ERROR;
	status = IoConnectInterrupt(&made, Routine, P, NULL, d->u.Interrupt.Vector, (KIRQL)d->u.Interrupt.Level,
		(KIRQL)d->u.Interrupt.Level, (d->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive, TRUE,
		d->u.Interrupt.Affinity, FALSE);
	if (NT_SUCCESS(status))
		P->Int = made;
	return status;
}

UU_SHARED VOID PlugDisconnect(PPLUG P)
{
	PKINTERRUPT gone = P->Int;
	KIRQL irql;

	if (gone == NULL)
		return;
	KeAcquireSpinLock(&P->Gate, &irql);
	P->Int = NULL;
	KeReleaseSpinLock(&P->Gate, irql);
	IoDisconnectInterrupt(gone);
}

/* ---- requests to the drivers below ---- */

UU_SHARED NTSTATUS NTAPI PlugSignal(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
	(void)Device;
	if (Irp->PendingReturned)
		KeSetEvent(Context, IO_NO_INCREMENT, FALSE);
	return STATUS_MORE_PROCESSING_REQUIRED;
}

UU_SHARED NTSTATUS PlugAwait(PPLUG P, PIRP Irp)
{
	KEVENT done;
	NTSTATUS status;

	KeInitializeEvent(&done, NotificationEvent, FALSE);
	IoCopyCurrentIrpStackLocationToNext(Irp);
	IoSetCompletionRoutine(Irp, PlugSignal, &done, TRUE, TRUE, TRUE);
	status = IoCallDriver(P->Below, Irp);
	if (status == STATUS_PENDING) {
		KeWaitForSingleObject(&done, Executive, KernelMode, FALSE, NULL);
		status = Irp->IoStatus.Status;
	}
	return status;
}

/* Reads or writes the card's configuration space; IRQL PASSIVE_LEVEL. */
UU_SHARED NTSTATUS PlugConfig(PPLUG P, UCHAR Minor, PVOID Buffer, ULONG Offset, ULONG Length)
{
	IO_STATUS_BLOCK iosb;
	PIO_STACK_LOCATION sp;
	KEVENT done;
	PIRP irp;
	NTSTATUS status;

	KeInitializeEvent(&done, NotificationEvent, FALSE);
	irp = IoBuildSynchronousFsdRequest(IRP_MJ_PNP, P->Below, NULL, 0, NULL, &done, &iosb);
	if (irp == NULL)
		return STATUS_INSUFFICIENT_RESOURCES;
	irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
	irp->IoStatus.Information = 0;
	sp = IoGetNextIrpStackLocation(irp);
	sp->MinorFunction = Minor;
	sp->Parameters.ReadWriteConfig.WhichSpace = 0;          /* PCI_WHICHSPACE_CONFIG */
	sp->Parameters.ReadWriteConfig.Buffer = Buffer;
	sp->Parameters.ReadWriteConfig.Offset = Offset;
	sp->Parameters.ReadWriteConfig.Length = Length;
	status = IoCallDriver(P->Below, irp);
	if (status == STATUS_PENDING) {
		KeWaitForSingleObject(&done, Executive, KernelMode, FALSE, NULL);
		status = iosb.Status;
	}
	return status;
}

/* Takes bus mastering from a card that does not come to an end: it cannot reach memory any more. */
UU_SHARED NTSTATUS PlugMuzzle(PPLUG P)
{
	USHORT command = 0;
	NTSTATUS status;

	status = PlugConfig(P, IRP_MN_READ_CONFIG, &command, 4, sizeof(command));
	if (!NT_SUCCESS(status))
		return status;
	command &= ~4;
	return PlugConfig(P, IRP_MN_WRITE_CONFIG, &command, 4, sizeof(command));
}

/* ---- Plug and Play ---- */

UU_SHARED VOID PlugHide(PPLUG P)
{
	if (P->Announced) {
		P->Announced = FALSE;
		IoSetDeviceInterfaceState(&P->Interface, FALSE);
	}
}

UU_SHARED VOID PlugHalt(PPLUG P, BOOLEAN Reachable, BOOLEAN Forever)
{
	PlugUnstart(P);
	if (Reachable && P->Hooks->Drain != NULL)
		P->Hooks->Drain(P, Forever);
	PlugQuiet(P, Reachable);
	if (Forever && P->Hooks->Gone != NULL)
		P->Hooks->Gone(P);
	if (P->Hooks->End != NULL)
		P->Hooks->End(P);
}

UU_SHARED NTSTATUS PlugStart(PPLUG P, PIRP Irp, PIO_STACK_LOCATION Sp)
{
	PCM_RESOURCE_LIST all = Sp->Parameters.StartDevice.AllocatedResourcesTranslated;
	PCM_PARTIAL_RESOURCE_LIST list = all != NULL && all->Count != 0 ? &all->List[0].PartialResourceList : NULL;
	NTSTATUS status;

	status = PlugAwait(P, Irp);
	if (!NT_SUCCESS(status))
		return status;
	if (P->Hooks->Begin != NULL) {
		status = P->Hooks->Begin(P, list);
		if (!NT_SUCCESS(status))
			return status;
	}
	PlugRouse(P, TRUE);
	if (!P->Announced) {
		status = IoSetDeviceInterfaceState(&P->Interface, TRUE);
		if (!NT_SUCCESS(status)) {
			PlugHalt(P, TRUE, FALSE);
			return status;
		}
		P->Announced = TRUE;
	}
	return STATUS_SUCCESS;
}

UU_SHARED NTSTATUS NTAPI PlugPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
	PPLUG p = Device->DeviceExtension;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
	PDEVICE_OBJECT below;
	NTSTATUS status;

	status = IoAcquireRemoveLock(&p->Hold, Irp);
	if (!NT_SUCCESS(status))
		return Finish(Irp, status, 0);
	switch (sp->MinorFunction) {
	case IRP_MN_START_DEVICE:
		status = PlugStart(p, Irp, sp);
		Finish(Irp, status, Irp->IoStatus.Information);
		IoReleaseRemoveLock(&p->Hold, Irp);
		return status;
	case IRP_MN_STOP_DEVICE:
		PlugHalt(p, TRUE, FALSE);
		Irp->IoStatus.Status = STATUS_SUCCESS;
		break;
	case IRP_MN_SURPRISE_REMOVAL:
		PlugHide(p);
		PlugHalt(p, FALSE, TRUE);
		Irp->IoStatus.Status = STATUS_SUCCESS;
		break;
	case IRP_MN_REMOVE_DEVICE:
		PlugHide(p);
		PlugHalt(p, TRUE, TRUE);
		IoReleaseRemoveLockAndWait(&p->Hold, Irp);
		if (p->Hooks->Bury != NULL)
			p->Hooks->Bury(p);
		Irp->IoStatus.Status = STATUS_SUCCESS;
		IoSkipCurrentIrpStackLocation(Irp);
		below = p->Below;
		status = IoCallDriver(below, Irp);
		RtlFreeUnicodeString(&p->Interface);
		IoDetachDevice(below);
		IoDeleteDevice(Device);
		return status;
	case IRP_MN_QUERY_STOP_DEVICE:
	case IRP_MN_QUERY_REMOVE_DEVICE:
	case IRP_MN_CANCEL_STOP_DEVICE:
	case IRP_MN_CANCEL_REMOVE_DEVICE:
		Irp->IoStatus.Status = STATUS_SUCCESS;
		break;
	case IRP_MN_DEVICE_USAGE_NOTIFICATION:
		if (sp->Parameters.UsageNotification.InPath) {          /* no paging file or its like goes through here */
			status = Finish(Irp, STATUS_UNSUCCESSFUL, 0);
			IoReleaseRemoveLock(&p->Hold, Irp);
			return status;
		}
		break;
	default:
		break;
	}
	IoSkipCurrentIrpStackLocation(Irp);
	status = IoCallDriver(p->Below, Irp);
	IoReleaseRemoveLock(&p->Hold, Irp);
	return status;
}

/* ---- power ---- */

UU_SHARED VOID NTAPI PlugDeviceDone(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Iosb)
{
	PIRP system = Context;
	PPLUG p = IoGetCurrentIrpStackLocation(system)->DeviceObject->DeviceExtension;

	(void)Device; (void)Minor; (void)State; (void)Iosb;
	PoStartNextPowerIrp(system);
	IoCompleteRequest(system, IO_NO_INCREMENT);
	IoReleaseRemoveLock(&p->Hold, system);
}

UU_SHARED NTSTATUS NTAPI PlugSystemDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
	PPLUG p = Context;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
	POWER_STATE want;

	(void)Device;
	if (NT_SUCCESS(Irp->IoStatus.Status)) {
		want.DeviceState = sp->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
		if (NT_SUCCESS(PoRequestPowerIrp(p->Pdo, IRP_MN_SET_POWER, want, PlugDeviceDone, Irp, NULL)))
			return STATUS_MORE_PROCESSING_REQUIRED;
	}
	PoStartNextPowerIrp(Irp);
	IoReleaseRemoveLock(&p->Hold, Irp);
	return STATUS_CONTINUE_COMPLETION;
}

UU_SHARED NTSTATUS PlugSystemPower(PPLUG P, PIRP Irp, PIO_STACK_LOCATION Sp)
{
	(void)Sp;
	IoMarkIrpPending(Irp);
	IoCopyCurrentIrpStackLocationToNext(Irp);
	IoSetCompletionRoutine(Irp, PlugSystemDone, P, TRUE, TRUE, TRUE);
	PoCallDriver(P->Below, Irp);
	return STATUS_PENDING;
}

UU_SHARED NTSTATUS NTAPI PlugRisen(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
	PPLUG p = Context;
	POWER_STATE now;

	(void)Device;
	if (NT_SUCCESS(Irp->IoStatus.Status)) {
		now.DeviceState = PowerDeviceD0;
		PoSetPowerState(p->Self, DevicePowerState, now);
		PlugRouse(p, FALSE);
	}
	PoStartNextPowerIrp(Irp);
	IoReleaseRemoveLock(&p->Hold, Irp);
	return STATUS_CONTINUE_COMPLETION;
}

UU_SHARED NTSTATUS NTAPI PlugSank(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
	PPLUG p = Context;

	(void)Device;
	if (p->Hooks->Sunk != NULL)
		p->Hooks->Sunk(p);
	PoStartNextPowerIrp(Irp);
	IoReleaseRemoveLock(&p->Hold, Irp);
	return STATUS_CONTINUE_COMPLETION;
}

UU_SHARED NTSTATUS PlugDevicePower(PPLUG P, PIRP Irp, PIO_STACK_LOCATION Sp)
{
	if (Sp->Parameters.Power.State.DeviceState != PowerDeviceD0) {
		if (P->Hooks->Drain != NULL)
			P->Hooks->Drain(P, FALSE);
		PlugQuiet(P, TRUE);
		PoSetPowerState(P->Self, DevicePowerState, Sp->Parameters.Power.State);
	}
	IoMarkIrpPending(Irp);
	IoCopyCurrentIrpStackLocationToNext(Irp);
	IoSetCompletionRoutine(Irp, Sp->Parameters.Power.State.DeviceState == PowerDeviceD0 ? PlugRisen : PlugSank, P, TRUE, TRUE, TRUE);
	PoCallDriver(P->Below, Irp);
	return STATUS_PENDING;
}

UU_SHARED NTSTATUS NTAPI PlugPower(PDEVICE_OBJECT Device, PIRP Irp)
{
	PPLUG p = Device->DeviceExtension;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
	NTSTATUS status;

	status = IoAcquireRemoveLock(&p->Hold, Irp);
	if (!NT_SUCCESS(status)) {
		PoStartNextPowerIrp(Irp);
		return Finish(Irp, status, 0);
	}
	if (sp->MinorFunction == IRP_MN_SET_POWER && PlugIsStarted(p)) {
		if (sp->Parameters.Power.Type == DevicePowerState)
			return PlugDevicePower(p, Irp, sp);
		return p->Hooks->System != NULL ? p->Hooks->System(p, Irp, sp) : PlugSystemPower(p, Irp, sp);
	}
	PoStartNextPowerIrp(Irp);
	IoSkipCurrentIrpStackLocation(Irp);
	status = PoCallDriver(p->Below, Irp);
	IoReleaseRemoveLock(&p->Hold, Irp);
	return status;
}

/* ---- all others ---- */

UU_SHARED NTSTATUS NTAPI PlugIo(PDEVICE_OBJECT Device, PIRP Irp)
{
	PPLUG p = Device->DeviceExtension;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
	BOOLEAN ending = sp->MajorFunction == IRP_MJ_CLEANUP || sp->MajorFunction == IRP_MJ_CLOSE;
	ULONG_PTR bytes = 0;
	NTSTATUS held, status;

	/* one for this call, which may still be at work when a request that it has queued has ended, and one for the request */
	held = IoAcquireRemoveLock(&p->Hold, &bytes);
	if (!NT_SUCCESS(held))
		return Finish(Irp, ending ? STATUS_SUCCESS : held, 0);  /* ending: a handle that has outlived the device */
	held = IoAcquireRemoveLock(&p->Hold, Irp);
	if (!NT_SUCCESS(held)) {
		status = Finish(Irp, ending ? STATUS_SUCCESS : held, 0);
		IoReleaseRemoveLock(&p->Hold, &bytes);
		return status;
	}
	status = p->Hooks->Answer(p, Irp, sp, &bytes);
	if (status != STATUS_PENDING) {
		Finish(Irp, status, NT_SUCCESS(status) ? bytes : 0);
		IoReleaseRemoveLock(&p->Hold, Irp);
	}
	IoReleaseRemoveLock(&p->Hold, &bytes);
	return status;
}

UU_SHARED NTSTATUS NTAPI PlugWmi(PDEVICE_OBJECT Device, PIRP Irp)
{
	PPLUG p = Device->DeviceExtension;
	NTSTATUS status;

	status = IoAcquireRemoveLock(&p->Hold, Irp);
	if (!NT_SUCCESS(status))
		return Finish(Irp, status, 0);
	IoSkipCurrentIrpStackLocation(Irp);
	status = IoCallDriver(p->Below, Irp);
	IoReleaseRemoveLock(&p->Hold, Irp);
	return status;
}

UU_SHARED NTSTATUS PlugAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo, const PLUG_HOOKS *Hooks)
{
	PDEVICE_OBJECT device;
	NTSTATUS status;
	PPLUG p;

	status = IoCreateDevice(Driver, Hooks->Size, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
	if (!NT_SUCCESS(status))
		return status;
	p = device->DeviceExtension;
	RtlZeroMemory(p, Hooks->Size);
	p->Hooks = Hooks;
	p->Self = device;
	p->Pdo = Pdo;
	IoInitializeRemoveLock(&p->Hold, UU_TAG('U', 'U', 'r', 'l'), 0, 0);
	KeInitializeSpinLock(&p->Gate);
	device->Flags |= Hooks->DeviceFlags;
	status = IoRegisterDeviceInterface(Pdo, Hooks->Class, NULL, &p->Interface);
	if (!NT_SUCCESS(status)) {
		IoDeleteDevice(device);
		return status;
	}
	if (Hooks->Prepare != NULL)
		status = Hooks->Prepare(p);
	if (NT_SUCCESS(status)) {
		p->Below = IoAttachDeviceToDeviceStack(device, Pdo);
		if (p->Below != NULL) {
			device->Flags |= DO_POWER_PAGABLE;
			device->Flags &= ~DO_DEVICE_INITIALIZING;
			return STATUS_SUCCESS;
		}
		status = STATUS_NO_SUCH_DEVICE;
		if (Hooks->Bury != NULL)
			Hooks->Bury(p);
	}
	RtlFreeUnicodeString(&p->Interface);
	IoDeleteDevice(device);
	return status;
}

UU_SHARED VOID PlugEntries(PDRIVER_OBJECT Driver, PDRIVER_ADD_DEVICE Add, PDRIVER_UNLOAD Unload)
{
	Driver->MajorFunction[IRP_MJ_CREATE] = PlugIo;
	Driver->MajorFunction[IRP_MJ_CLOSE] = PlugIo;
	Driver->MajorFunction[IRP_MJ_CLEANUP] = PlugIo;
	Driver->MajorFunction[IRP_MJ_READ] = PlugIo;
	Driver->MajorFunction[IRP_MJ_WRITE] = PlugIo;
	Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = PlugIo;
	Driver->MajorFunction[IRP_MJ_PNP] = PlugPnp;
	Driver->MajorFunction[IRP_MJ_POWER] = PlugPower;
	Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = PlugWmi;
	Driver->DriverExtension->AddDevice = Add;
	Driver->DriverUnload = Unload;
}

#endif

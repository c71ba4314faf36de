/*
 * Alarm queue: IOCTL_ALARM_WAIT sleeps for the given number of milliseconds, then the request ends with the time.
 *
 * The bug: the DPC that finishes due requests takes away the cancel routine but does not look whether it had been
 * called already; a request cancelled just when it falls due is completed by both.
 *
 * Device: none
 * Rule: use-after-free
 * Needs: ioctl, cancel
 * Symptom: MULTIPLE_IRP_COMPLETE_REQUESTS (0x44), or list corruption (KERNEL_SECURITY_CHECK_FAILURE 0x139, 3) in the cancel routine.
 */
#include <ddk/wdm.h>

#define IOCTL_ALARM_WAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x900, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ALARM_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define TICK_MS     10
#define MAX_WAIT_MS 60000

typedef struct {
	KSPIN_LOCK lock;
	LIST_ENTRY waiting;
	ULONG count;
	KTIMER timer;
	KDPC dpc;
} ALARM;

/* The due time of a waiting request lives in DriverContext[0]. */
#define SET_DUE(irp, t) ((irp)->Tail.Overlay.DriverContext[0] = (PVOID)(ULONG_PTR)(t))
#define DUE(irp)        ((ULONGLONG)(ULONG_PTR)(irp)->Tail.Overlay.DriverContext[0])

static NTSTATUS AlComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI AlCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return AlComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI AlClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return AlComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI AlCancel(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
	ALARM *al = DeviceObject->DeviceExtension;
	KIRQL irql;

	IoReleaseCancelSpinLock(Irp->CancelIrql);
	KeAcquireSpinLock(&al->lock, &irql);
	RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
	al->count--;
	KeReleaseSpinLock(&al->lock, irql);
	AlComplete(Irp, STATUS_CANCELLED, 0);
}

static VOID NTAPI AlTick(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
	ALARM *al = Context;
	LIST_ENTRY done, *e, *next;
	LARGE_INTEGER now;
	PIRP irp;

	UNREFERENCED_PARAMETER(Dpc);
	UNREFERENCED_PARAMETER(Arg1);
	UNREFERENCED_PARAMETER(Arg2);
	InitializeListHead(&done);
	now.QuadPart = (LONGLONG)KeQueryInterruptTime();

	KeAcquireSpinLockAtDpcLevel(&al->lock);
	for (e = al->waiting.Flink; e != &al->waiting; e = next) {
		next = e->Flink;
		irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
		if (DUE(irp) > (ULONGLONG)now.QuadPart)
			continue;
#ifdef FIXED
		if (IoSetCancelRoutine(irp, NULL) == NULL)
			continue;	/* AlCancel waits for the lock and will take it out */
#else
		IoSetCancelRoutine(irp, NULL);
#endif
		RemoveEntryList(e);
		al->count--;
		InsertTailList(&done, e);
	}
	KeReleaseSpinLockFromDpcLevel(&al->lock);

	while (!IsListEmpty(&done)) {
		irp = CONTAINING_RECORD(RemoveHeadList(&done), IRP, Tail.Overlay.ListEntry);
		*(ULONGLONG *)irp->AssociatedIrp.SystemBuffer = (ULONGLONG)now.QuadPart;
		AlComplete(irp, STATUS_SUCCESS, sizeof(ULONGLONG));
	}
}

static NTSTATUS AlWait(ALARM *al, PIRP irp, ULONG ms)
{
	KIRQL irql;

	if (ms > MAX_WAIT_MS)
		return AlComplete(irp, STATUS_INVALID_PARAMETER, 0);
	SET_DUE(irp, KeQueryInterruptTime() + (ULONGLONG)ms * 10000);

	KeAcquireSpinLock(&al->lock, &irql);
	IoSetCancelRoutine(irp, AlCancel);
	if (irp->Cancel && IoSetCancelRoutine(irp, NULL) != NULL) {
		KeReleaseSpinLock(&al->lock, irql);
		return AlComplete(irp, STATUS_CANCELLED, 0);
	}
	IoMarkIrpPending(irp);
	InsertTailList(&al->waiting, &irp->Tail.Overlay.ListEntry);
	al->count++;
	KeReleaseSpinLock(&al->lock, irql);
	return STATUS_PENDING;
}

static NTSTATUS NTAPI AlControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
	ALARM *al = DeviceObject->DeviceExtension;
	PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
	ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
	ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;

	switch (sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_ALARM_WAIT:
		if (in < sizeof(ULONG) || out < sizeof(ULONGLONG))
			return AlComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
		return AlWait(al, Irp, *(ULONG *)Irp->AssociatedIrp.SystemBuffer);
	case IOCTL_ALARM_COUNT:
		if (out < sizeof(ULONG))
			return AlComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
		*(ULONG *)Irp->AssociatedIrp.SystemBuffer = al->count;
		return AlComplete(Irp, STATUS_SUCCESS, sizeof(ULONG));
	}
	return AlComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI AlCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
	ALARM *al = DeviceObject->DeviceExtension;
	PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
	LIST_ENTRY gone, *e, *next;
	PIRP irp;
	KIRQL irql;

	InitializeListHead(&gone);
	KeAcquireSpinLock(&al->lock, &irql);
	for (e = al->waiting.Flink; e != &al->waiting; e = next) {
		next = e->Flink;
		irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
		if (IoGetCurrentIrpStackLocation(irp)->FileObject != file || IoSetCancelRoutine(irp, NULL) == NULL)
			continue;
		RemoveEntryList(e);
		al->count--;
		InsertTailList(&gone, e);
	}
	KeReleaseSpinLock(&al->lock, irql);
	while (!IsListEmpty(&gone)) {
		irp = CONTAINING_RECORD(RemoveHeadList(&gone), IRP, Tail.Overlay.ListEntry);
		AlComplete(irp, STATUS_CANCELLED, 0);
	}
	return AlComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID AlStartTimer(ALARM *al)
{
	LARGE_INTEGER due;

	due.QuadPart = -TICK_MS * 10000LL;
	KeSetTimerEx(&al->timer, due, TICK_MS, &al->dpc);
}

static VOID NTAPI AlUnload(PDRIVER_OBJECT DriverObject)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\AlarmQ");

    KeCancelTimer(&((ALARM *)DriverObject->DeviceObject->DeviceExtension)->timer);
    KeFlushQueuedDpcs();
    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(DriverObject->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\AlarmQ");
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\AlarmQ");
    PDEVICE_OBJECT device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = IoCreateDevice(DriverObject, sizeof(ALARM), &name, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    ALARM *al = device->DeviceExtension;
    KeInitializeSpinLock(&al->lock);
    InitializeListHead(&al->waiting);
    KeInitializeTimer(&al->timer);
    KeInitializeDpc(&al->dpc, AlTick, al);
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    DriverObject->DriverUnload = AlUnload;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = AlCreate;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = AlClose;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = AlCleanup;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = AlControl;
    AlStartTimer(al);
    device->Flags |= DO_BUFFERED_IO;
    return STATUS_SUCCESS;
}

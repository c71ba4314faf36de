/*
 * Line printer look-alike: keeps a page buffer that WriteFile fills; in low power states the buffer is given back.
 *
 * The bug: writes do not look at the power state; in D3 (after IOCTL_D3_SLEEP or in system sleep) there is no buffer.
 *
 * Device: ROOT\BLIND07
 * Rule: wild-write
 * Needs: ioctl, power
 * Symptom: write through a NULL pointer at DISPATCH_LEVEL (0xD1) when a request comes while the device sleeps.
 */
#include <ddk/wdm.h>

#define DB_TAG 'fB3D'
#define PAGE_BYTES 8192

#define IOCTL_D3_SLEEP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x940, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_D3_WAKE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x941, METHOD_BUFFERED, FILE_WRITE_DATA)

static const GUID GUID_D3BUF =
    { 0x5bb2e0a1, 0x4a1e, 0x4f56, { 0x9d, 0x11, 0x7e, 0x60, 0x00, 0x00, 0x00, 0x07 } };

typedef struct _DB_DEVICE {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    BOOLEAN Started;
    KSPIN_LOCK Lock;
    PUCHAR Page;                /* NULL while the device sleeps */
    ULONG Used;
    ULONG Pages;
} DB_DEVICE;

static NTSTATUS DbFinish(PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI DbSyncDone(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent((PKEVENT)Context, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS DbForwardAndWait(DB_DEVICE *Ext, PIRP Irp)
{
    KEVENT event;
    NTSTATUS status;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, DbSyncDone, &event, TRUE, TRUE, TRUE);
    status = IoCallDriver(Ext->Lower, Irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = Irp->IoStatus.Status;
    }
    return status;
}

static NTSTATUS NTAPI DbSystemControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    DB_DEVICE *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        return DbFinish(Irp, status, 0);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(ext->Lower, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI DbCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    DB_DEVICE *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        return DbFinish(Irp, status, 0);
    }
    status = ext->Started ? STATUS_SUCCESS : STATUS_DEVICE_NOT_READY;
    DbFinish(Irp, status, 0);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI DbClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return DbFinish(Irp, STATUS_SUCCESS, 0);
}

/* At most at dispatch level. With no memory the device stays without its page and refuses writes. */
static VOID DbPowerUp(DB_DEVICE *Db)
{
    PUCHAR page = ExAllocatePoolWithTag(NonPagedPool, PAGE_BYTES, DB_TAG);
    KIRQL irql;

    if (page == NULL) {
        return;
    }
    KeAcquireSpinLock(&Db->Lock, &irql);
    if (Db->Page == NULL) {
        Db->Page = page;
        Db->Used = 0;
        page = NULL;
    }
    KeReleaseSpinLock(&Db->Lock, irql);
    if (page != NULL) {
        ExFreePoolWithTag(page, DB_TAG);
    }
}

static VOID DbPowerDown(DB_DEVICE *Db)
{
    PUCHAR page;
    KIRQL irql;

    KeAcquireSpinLock(&Db->Lock, &irql);
    page = Db->Page;
    Db->Page = NULL;
    KeReleaseSpinLock(&Db->Lock, irql);
    if (page != NULL) {
        ExFreePoolWithTag(page, DB_TAG);
    }
}

/* ---- Power: we are the owner of the device's power policy. ---- */

static VOID NTAPI DbDeviceDone(PDEVICE_OBJECT DeviceObject, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Result)
{
    PIRP irp = Context;                 /* the system power request */
    DB_DEVICE *ext = IoGetCurrentIrpStackLocation(irp)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(State);
    if (Minor == IRP_MN_QUERY_POWER) {  /* the system cannot be refused a change, only a question */
        irp->IoStatus.Status = Result->Status;
    }
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&ext->RemoveLock, irp);
}

static NTSTATUS NTAPI DbSystemDone(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    DB_DEVICE *ext = Context;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    POWER_STATE state;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(DeviceObject);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        state.DeviceState = sp->Parameters.Power.State.SystemState == PowerSystemWorking
                            ? PowerDeviceD0 : PowerDeviceD3;
        status = PoRequestPowerIrp(ext->Pdo, sp->MinorFunction, state, DbDeviceDone, Irp, NULL);
        if (NT_SUCCESS(status)) {
            return STATUS_MORE_PROCESSING_REQUIRED;     /* DbDeviceDone goes on */
        }
        if (sp->MinorFunction == IRP_MN_QUERY_POWER) {
            Irp->IoStatus.Status = status;
        }
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI DbDeviceUp(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    DB_DEVICE *ext = Context;

    UNREFERENCED_PARAMETER(DeviceObject);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        DbPowerUp(ext);
        PoSetPowerState(ext->Self, DevicePowerState, IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI DbPower(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    DB_DEVICE *ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PIO_COMPLETION_ROUTINE after = NULL;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(Irp);
        return DbFinish(Irp, status, 0);
    }
    if (sp->MinorFunction == IRP_MN_SET_POWER || sp->MinorFunction == IRP_MN_QUERY_POWER) {
        if (sp->Parameters.Power.Type == SystemPowerState) {
            after = DbSystemDone;
        } else if (sp->MinorFunction == IRP_MN_SET_POWER) {
            if (sp->Parameters.Power.State.DeviceState == PowerDeviceD0) {
                after = DbDeviceUp;
            } else {
                DbPowerDown(ext);
                PoSetPowerState(DeviceObject, DevicePowerState, sp->Parameters.Power.State);
            }
        }
    }
    if (after != NULL) {
        IoMarkIrpPending(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, after, ext, TRUE, TRUE, TRUE);
        PoCallDriver(ext->Lower, Irp);
        return STATUS_PENDING;
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(ext->Lower, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS DbStart(DB_DEVICE *Db)
{
    POWER_STATE state;
    NTSTATUS status;

    DbPowerUp(Db);
    if (Db->Page == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    state.DeviceState = PowerDeviceD0;
    PoSetPowerState(Db->Self, DevicePowerState, state);
    status = IoSetDeviceInterfaceState(&Db->Interface, TRUE);
    if (NT_SUCCESS(status)) {
        Db->Started = TRUE;
        status = STATUS_SUCCESS;
    }
    return status;
}

static NTSTATUS NTAPI DbPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    DB_DEVICE *ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status;

    status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return DbFinish(Irp, status, 0);
    }
    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = DbForwardAndWait(ext, Irp);
        if (NT_SUCCESS(status)) {
            status = DbStart(ext);
        }
        DbFinish(Irp, status, 0);
        IoReleaseRemoveLock(&ext->RemoveLock, Irp);
        return status;
    case IRP_MN_SURPRISE_REMOVAL:
        ext->Started = FALSE;
        IoSetDeviceInterfaceState(&ext->Interface, FALSE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        ext->Started = FALSE;
        IoSetDeviceInterfaceState(&ext->Interface, FALSE);
        IoReleaseRemoveLockAndWait(&ext->RemoveLock, Irp);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(ext->Lower, Irp);
        IoDetachDevice(ext->Lower);
        DbPowerDown(ext);
        RtlFreeUnicodeString(&ext->Interface);
        IoDeleteDevice(DeviceObject);
        return status;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    default:
        break;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(ext->Lower, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

typedef struct _DB_SWITCH {
    KEVENT Event;
    NTSTATUS Status;
} DB_SWITCH;

static VOID NTAPI DbSwitched(PDEVICE_OBJECT DeviceObject, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Result)
{
    DB_SWITCH *sw = Context;

    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    sw->Status = Result->Status;
    KeSetEvent(&sw->Event, IO_NO_INCREMENT, FALSE);
}

static NTSTATUS DbSwitch(DB_DEVICE *Db, DEVICE_POWER_STATE NewState)
{
    POWER_STATE state;
    DB_SWITCH sw;
    NTSTATUS status;

    KeInitializeEvent(&sw.Event, NotificationEvent, FALSE);
    state.DeviceState = NewState;
    status = PoRequestPowerIrp(Db->Pdo, IRP_MN_SET_POWER, state, DbSwitched, &sw, NULL);
    if (NT_SUCCESS(status)) {
        KeWaitForSingleObject(&sw.Event, Executive, KernelMode, FALSE, NULL);
        status = sw.Status;
    }
    return status;
}

static NTSTATUS NTAPI DbControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    DB_DEVICE *db = DeviceObject->DeviceExtension;
    ULONG code = IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.IoControlCode;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&db->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return DbFinish(Irp, status, 0);
    }
    if (!db->Started) {
        status = STATUS_DELETE_PENDING;
    } else if (code == IOCTL_D3_SLEEP) {
        status = DbSwitch(db, PowerDeviceD3);
    } else if (code == IOCTL_D3_WAKE) {
        status = DbSwitch(db, PowerDeviceD0);
    } else {
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    DbFinish(Irp, status, 0);
    IoReleaseRemoveLock(&db->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI DbWrite(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    DB_DEVICE *db = DeviceObject->DeviceExtension;
    PUCHAR data = Irp->AssociatedIrp.SystemBuffer;
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    NTSTATUS status;
    ULONG i, done = 0;
    KIRQL irql;

    status = IoAcquireRemoveLock(&db->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return DbFinish(Irp, status, 0);
    }
    if (!db->Started) {
        status = STATUS_DELETE_PENDING;
    } else {
        KeAcquireSpinLock(&db->Lock, &irql);
#ifdef FIXED
        if (db->Page == NULL) {
            status = STATUS_DEVICE_POWERED_OFF;
            length = 0;
        }
#endif
        if (length > PAGE_BYTES) {
            length = PAGE_BYTES;
        }
        for (i = 0; i < length; i++) {
            db->Page[db->Used++] = data[i];
            if (db->Used == PAGE_BYTES) {       /* print it */
                db->Used = 0;
                db->Pages++;
            }
        }
        done = length;
        KeReleaseSpinLock(&db->Lock, irql);
    }
    DbFinish(Irp, status, done);
    IoReleaseRemoveLock(&db->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI DbAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT fdo;
    DB_DEVICE *ext;
    NTSTATUS status;

    status = IoCreateDevice(DriverObject, sizeof(DB_DEVICE), NULL, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &fdo);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    ext = fdo->DeviceExtension;
    ext->Self = fdo;
    ext->Pdo = Pdo;
    IoInitializeRemoveLock(&ext->RemoveLock, DB_TAG, 0, 0);
    KeInitializeSpinLock(&ext->Lock);
    status = IoRegisterDeviceInterface(Pdo, &GUID_D3BUF, NULL, &ext->Interface);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(fdo);
        return status;
    }
    ext->Lower = IoAttachDeviceToDeviceStack(fdo, Pdo);
    if (ext->Lower == NULL) {
        RtlFreeUnicodeString(&ext->Interface);
        IoDeleteDevice(fdo);
        return STATUS_NO_SUCH_DEVICE;
    }
    fdo->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
    fdo->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI DbUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->DriverUnload = DbUnload;
    DriverObject->DriverExtension->AddDevice = DbAddDevice;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = DbCreate;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = DbClose;
    DriverObject->MajorFunction[IRP_MJ_PNP] = DbPnp;
    DriverObject->MajorFunction[IRP_MJ_POWER] = DbPower;
    DriverObject->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DbSystemControl;
    DriverObject->MajorFunction[IRP_MJ_WRITE] = DbWrite;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DbControl;
    return STATUS_SUCCESS;
}

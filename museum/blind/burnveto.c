/*
 * burnveto: a make-believe burner. An application opens a burn and closes it; while one is open the system is
 * asked not to go to sleep, and the device not to go away.
 *
 * The bug: when a query for a system power state is refused the remove lock stays acquired.
 *
 * Device: ROOT\BURNVETO
 * Rule: deadlock
 * Needs: power
 */
#include <ddk/wdm.h>

#define IOCTL_BURN_BEGIN CTL_CODE(FILE_DEVICE_CD_ROM, 0x901, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_BURN_END   CTL_CODE(FILE_DEVICE_CD_ROM, 0x902, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_BURN_COUNT CTL_CODE(FILE_DEVICE_CD_ROM, 0x903, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID BurnGuid = { 0x5b1e0c1a, 0x11d0, 0x4b77, { 0x9a, 0x10, 0x2b, 0x66, 0x70, 0x11, 0x04, 0x04 } };

typedef struct _BURNER {
    PDEVICE_OBJECT Pdo, Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Name;
    FAST_MUTEX Lock;
    PFILE_OBJECT Owner;         /* of the open burn; this and the next under the lock */
    ULONG Burns;
    volatile LONG Burning;      /* for the power dispatch */
} BURNER;

typedef struct _BURN_COUNT {
    ULONG Burns;
    ULONG Burning;
} BURN_COUNT;

static NTSTATUS Done(PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS Begin(BURNER *Burner, PFILE_OBJECT File)
{
    NTSTATUS status = STATUS_DEVICE_BUSY;

    ExAcquireFastMutex(&Burner->Lock);
    if (!Burner->Owner) {
        Burner->Owner = File;
        InterlockedExchange(&Burner->Burning, 1);
        status = STATUS_SUCCESS;
    }
    ExReleaseFastMutex(&Burner->Lock);
    return status;
}

static NTSTATUS End(BURNER *Burner, PFILE_OBJECT File, BOOLEAN Whole)
{
    NTSTATUS status = STATUS_INVALID_DEVICE_STATE;

    ExAcquireFastMutex(&Burner->Lock);
    if (Burner->Owner == File) {
        Burner->Owner = NULL;
        InterlockedExchange(&Burner->Burning, 0);
        if (Whole)
            Burner->Burns++;
        status = STATUS_SUCCESS;
    }
    ExReleaseFastMutex(&Burner->Lock);
    return status;
}

static NTSTATUS NTAPI BurnControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    BURNER *burner = Device->DeviceExtension;
    BURN_COUNT *count = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status;
    ULONG_PTR info = 0;

    status = IoAcquireRemoveLock(&burner->RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return Done(Irp, status, 0);
    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BURN_BEGIN:
        status = Begin(burner, stack->FileObject);
        break;
    case IOCTL_BURN_END:
        status = End(burner, stack->FileObject, TRUE);
        break;
    case IOCTL_BURN_COUNT:
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*count)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        ExAcquireFastMutex(&burner->Lock);
        count->Burns = burner->Burns;
        count->Burning = burner->Owner != NULL;
        ExReleaseFastMutex(&burner->Lock);
        info = sizeof(*count);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    Done(Irp, status, info);
    IoReleaseRemoveLock(&burner->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI BurnOpenClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);

    if (stack->MajorFunction == IRP_MJ_CLOSE)
        End(Device->DeviceExtension, stack->FileObject, FALSE);
    return Done(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI BurnPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    BURNER *burner = Device->DeviceExtension;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&burner->RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return Done(Irp, status, 0);
    if (stack->MinorFunction == IRP_MN_QUERY_POWER && stack->Parameters.Power.Type == SystemPowerState &&
        stack->Parameters.Power.State.SystemState > PowerSystemWorking &&
        stack->Parameters.Power.State.SystemState <= PowerSystemHibernate && burner->Burning) {
        Done(Irp, STATUS_DEVICE_BUSY, 0);
#ifdef FIXED
        IoReleaseRemoveLock(&burner->RemoveLock, Irp);
#endif
        return STATUS_DEVICE_BUSY;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(burner->Lower, Irp);
    IoReleaseRemoveLock(&burner->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI BurnLowerDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent((PKEVENT)Context, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS StartBurner(BURNER *Burner, PIRP Irp)
{
    KEVENT event;
    NTSTATUS status;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, BurnLowerDone, &event, TRUE, TRUE, TRUE);
    IoCallDriver(Burner->Lower, Irp);
    KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
    status = Irp->IoStatus.Status;
    if (NT_SUCCESS(status))
        IoSetDeviceInterfaceState(&Burner->Name, TRUE);
    Done(Irp, status, 0);
    IoReleaseRemoveLock(&Burner->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI BurnPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    BURNER *burner = Device->DeviceExtension;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&burner->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    switch (IoGetCurrentIrpStackLocation(Irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        return StartBurner(burner, Irp);
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
        if (burner->Burning) {
            Done(Irp, STATUS_DEVICE_BUSY, 0);
            IoReleaseRemoveLock(&burner->RemoveLock, Irp);
            return STATUS_DEVICE_BUSY;
        }
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
    case IRP_MN_STOP_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        IoSetDeviceInterfaceState(&burner->Name, FALSE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        IoSetDeviceInterfaceState(&burner->Name, FALSE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(burner->Lower, Irp);
        IoReleaseRemoveLockAndWait(&burner->RemoveLock, Irp);
        RtlFreeUnicodeString(&burner->Name);
        IoDetachDevice(burner->Lower);
        IoDeleteDevice(Device);
        return status;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(burner->Lower, Irp);
    IoReleaseRemoveLock(&burner->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI BurnSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    BURNER *burner = Device->DeviceExtension;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&burner->RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return Done(Irp, status, 0);
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(burner->Lower, Irp);
    IoReleaseRemoveLock(&burner->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI BurnAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT device;
    BURNER *burner;
    NTSTATUS status;

    status = IoCreateDevice(Driver, sizeof(BURNER), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    burner = device->DeviceExtension;
    RtlZeroMemory(burner, sizeof(*burner));
    burner->Pdo = Pdo;
    ExInitializeFastMutex(&burner->Lock);
    IoInitializeRemoveLock(&burner->RemoveLock, 'nruB', 0, 0);
    status = IoRegisterDeviceInterface(Pdo, &BurnGuid, NULL, &burner->Name);
    if (!NT_SUCCESS(status))
        goto fail;
    burner->Lower = IoAttachDeviceToDeviceStack(device, Pdo);
    if (!burner->Lower) {
        RtlFreeUnicodeString(&burner->Name);
        status = STATUS_NO_SUCH_DEVICE;
        goto fail;
    }
    device->Flags |= DO_POWER_PAGABLE;
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
fail:
    IoDeleteDevice(device);
    return status;
}

static VOID NTAPI BurnUnload(PDRIVER_OBJECT Driver) { UNREFERENCED_PARAMETER(Driver); }

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    Driver->DriverExtension->AddDevice = BurnAdd;
    Driver->DriverUnload = BurnUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = BurnOpenClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = BurnOpenClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = BurnControl;
    Driver->MajorFunction[IRP_MJ_PNP] = BurnPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = BurnPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = BurnSystemControl;
    return STATUS_SUCCESS;
}

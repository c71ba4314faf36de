/*
 * nightcap: keeps a diary of the machine's sleep: how often it went to sleep and woke up, and into which
 * system state last. It owns the power policy of its (make-believe) device.
 *
 * The bug: the completion routine of the system power request lets it complete although the device power request's
 * callback will complete it, too.
 *
 * Device: ROOT\NIGHTCAP
 * Rule: use-after-free, double-completion
 * Needs: power
 */
#include <ddk/wdm.h>

static const GUID CapGuid = { 0x5d0f7a23, 0x2b64, 0x4c1e, { 0x91, 0x3a, 0x10, 0x55, 0x7e, 0x0b, 0x22, 0x03 } };

#define IOCTL_CAP_DIARY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9A0, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_CAP_CLEAR CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9A1, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct _CAP_DIARY {
    ULONG Sleeps, Wakes;
    ULONG LastSystemState;
    ULONG DeviceState;
} CAP_DIARY;

typedef struct _CAP {
    PDEVICE_OBJECT Self, Pdo, Lower;
    UNICODE_STRING LinkName;
    BOOLEAN LinkOn;
    volatile LONG Gone;
    IO_REMOVE_LOCK RemoveLock;
    PIRP SystemIrp;
    KSPIN_LOCK Lock;
    CAP_DIARY Diary;
} CAP, *PCAP;

static NTSTATUS Done(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS Turned(PIRP Irp, NTSTATUS Status)
{
    Irp->IoStatus.Status = Status;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* ---- power ---- */

static VOID NTAPI CapDeviceDone(PDEVICE_OBJECT Pdo, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK IoStatus)
{
    PCAP cap = Context;
    PIRP irp = cap->SystemIrp;

    UNREFERENCED_PARAMETER(Pdo);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    cap->SystemIrp = NULL;
    irp->IoStatus.Status = IoStatus->Status;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&cap->RemoveLock, irp);
}

static NTSTATUS NTAPI CapSystemPassed(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    PCAP cap = Context;
    SYSTEM_POWER_STATE system = IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State.SystemState;
    POWER_STATE device;
    NTSTATUS status;
    KIRQL irql;

    UNREFERENCED_PARAMETER(DeviceObject);
    if (!NT_SUCCESS(Irp->IoStatus.Status)) {
        IoReleaseRemoveLock(&cap->RemoveLock, Irp);
        return STATUS_CONTINUE_COMPLETION;
    }
    KeAcquireSpinLock(&cap->Lock, &irql);
    cap->Diary.LastSystemState = system;
    KeReleaseSpinLock(&cap->Lock, irql);

    device.DeviceState = system == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
    cap->SystemIrp = Irp;
    status = PoRequestPowerIrp(cap->Pdo, IRP_MN_SET_POWER, device, CapDeviceDone, cap, NULL);
    if (!NT_SUCCESS(status)) {
        cap->SystemIrp = NULL;
        Irp->IoStatus.Status = status;
        IoReleaseRemoveLock(&cap->RemoveLock, Irp);
        return STATUS_CONTINUE_COMPLETION;
    }
#ifdef FIXED
    return STATUS_MORE_PROCESSING_REQUIRED;
#else
    return STATUS_CONTINUE_COMPLETION;
#endif
}

static VOID CapNote(PCAP Cap, DEVICE_POWER_STATE State)
{
    POWER_STATE power;
    KIRQL irql;

    KeAcquireSpinLock(&Cap->Lock, &irql);
    if (State == PowerDeviceD0 && Cap->Diary.DeviceState != PowerDeviceD0)
        Cap->Diary.Wakes++;
    if (State != PowerDeviceD0 && Cap->Diary.DeviceState == PowerDeviceD0)
        Cap->Diary.Sleeps++;
    Cap->Diary.DeviceState = State;
    KeReleaseSpinLock(&Cap->Lock, irql);
    power.DeviceState = State;
    PoSetPowerState(Cap->Self, DevicePowerState, power);
}

static NTSTATUS NTAPI CapPoweredUp(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    PCAP cap = Context;

    UNREFERENCED_PARAMETER(DeviceObject);
    if (NT_SUCCESS(Irp->IoStatus.Status))
        CapNote(cap, PowerDeviceD0);
    IoReleaseRemoveLock(&cap->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI CapPower(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PCAP cap = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    PIO_COMPLETION_ROUTINE routine = NULL;
    NTSTATUS status = IoAcquireRemoveLock(&cap->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return Turned(Irp, status);
    if (stack->MinorFunction == IRP_MN_SET_POWER) {
        if (stack->Parameters.Power.Type == SystemPowerState)
            routine = CapSystemPassed;
        else if (stack->Parameters.Power.State.DeviceState == PowerDeviceD0)
            routine = CapPoweredUp;
        else
            CapNote(cap, stack->Parameters.Power.State.DeviceState);
    }
    if (routine) {
        IoMarkIrpPending(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, routine, cap, TRUE, TRUE, TRUE);
        PoCallDriver(cap->Lower, Irp);
        return STATUS_PENDING;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(cap->Lower, Irp);
    IoReleaseRemoveLock(&cap->RemoveLock, Irp);
    return status;
}

/* ---- plug and play ---- */

static VOID CapLinkOff(PCAP Cap)
{
    if (Cap->LinkOn) {
        Cap->LinkOn = FALSE;
        IoSetDeviceInterfaceState(&Cap->LinkName, FALSE);
    }
}

static NTSTATUS NTAPI CapPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PCAP cap = DeviceObject->DeviceExtension;
    UCHAR minor = IoGetCurrentIrpStackLocation(Irp)->MinorFunction;
    KIRQL irql;
    NTSTATUS status = IoAcquireRemoveLock(&cap->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return Turned(Irp, status);

    if (minor == IRP_MN_START_DEVICE) {
        if (IoForwardIrpSynchronously(cap->Lower, Irp))
            status = Irp->IoStatus.Status;
        else
            status = STATUS_UNSUCCESSFUL;
        if (NT_SUCCESS(status)) {
            KeAcquireSpinLock(&cap->Lock, &irql);
            cap->Diary.DeviceState = PowerDeviceD0;
            KeReleaseSpinLock(&cap->Lock, irql);
            if (NT_SUCCESS(IoSetDeviceInterfaceState(&cap->LinkName, TRUE)))
                cap->LinkOn = TRUE;
        }
        Turned(Irp, status);
        IoReleaseRemoveLock(&cap->RemoveLock, Irp);
        return status;
    }
    if (minor == IRP_MN_SURPRISE_REMOVAL || minor == IRP_MN_REMOVE_DEVICE) {
        InterlockedExchange(&cap->Gone, 1);
        CapLinkOff(cap);
    }
    if (minor == IRP_MN_REMOVE_DEVICE || minor == IRP_MN_SURPRISE_REMOVAL || minor == IRP_MN_STOP_DEVICE ||
        minor == IRP_MN_QUERY_REMOVE_DEVICE || minor == IRP_MN_CANCEL_REMOVE_DEVICE ||
        minor == IRP_MN_QUERY_STOP_DEVICE || minor == IRP_MN_CANCEL_STOP_DEVICE)
        Irp->IoStatus.Status = STATUS_SUCCESS;
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(cap->Lower, Irp);
    if (minor == IRP_MN_REMOVE_DEVICE) {
        IoReleaseRemoveLockAndWait(&cap->RemoveLock, Irp);
        IoDetachDevice(cap->Lower);
        RtlFreeUnicodeString(&cap->LinkName);
        IoDeleteDevice(DeviceObject);
    } else {
        IoReleaseRemoveLock(&cap->RemoveLock, Irp);
    }
    return status;
}

static NTSTATUS NTAPI CapAdd(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT device;
    PCAP cap;
    NTSTATUS status = IoCreateDevice(DriverObject, sizeof(CAP), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);

    if (!NT_SUCCESS(status))
        return status;
    cap = device->DeviceExtension;
    RtlZeroMemory(cap, sizeof(*cap));
    cap->Self = device;
    cap->Pdo = Pdo;
    cap->Diary.LastSystemState = PowerSystemWorking;
    cap->Diary.DeviceState = PowerDeviceUnspecified;
    KeInitializeSpinLock(&cap->Lock);
    IoInitializeRemoveLock(&cap->RemoveLock, 'thgN', 0, 0);
    status = IoRegisterDeviceInterface(Pdo, &CapGuid, NULL, &cap->LinkName);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    cap->Lower = IoAttachDeviceToDeviceStack(device, Pdo);
    if (!cap->Lower) {
        RtlFreeUnicodeString(&cap->LinkName);
        IoDeleteDevice(device);
        return STATUS_NO_SUCH_DEVICE;
    }
    device->Flags |= DO_POWER_PAGABLE;
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

/* ---- requests ---- */

static NTSTATUS NTAPI CapControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PCAP cap = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    CAP_DIARY diary;
    ULONG_PTR information = 0;
    KIRQL irql;
    NTSTATUS status = IoAcquireRemoveLock(&cap->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return Done(Irp, status, 0);
    switch (cap->Gone ? 0 : stack->Parameters.DeviceIoControl.IoControlCode) {
    case 0:
        status = STATUS_DELETE_PENDING;
        break;
    case IOCTL_CAP_DIARY:
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(diary)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&cap->Lock, &irql);
        diary = cap->Diary;
        KeReleaseSpinLock(&cap->Lock, irql);
        *(CAP_DIARY *)Irp->AssociatedIrp.SystemBuffer = diary;
        information = sizeof(diary);
        break;
    case IOCTL_CAP_CLEAR:
        KeAcquireSpinLock(&cap->Lock, &irql);
        cap->Diary.Sleeps = cap->Diary.Wakes = 0;
        KeReleaseSpinLock(&cap->Lock, irql);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    Done(Irp, status, information);
    IoReleaseRemoveLock(&cap->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI CapOpenClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return Done(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI CapSystemControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PCAP cap = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&cap->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return Turned(Irp, status);
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(cap->Lower, Irp);
    IoReleaseRemoveLock(&cap->RemoveLock, Irp);
    return status;
}

static VOID NTAPI CapUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->DriverExtension->AddDevice = CapAdd;
    DriverObject->DriverUnload = CapUnload;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = CapOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = CapOpenClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = CapControl;
    DriverObject->MajorFunction[IRP_MJ_PNP] = CapPnp;
    DriverObject->MajorFunction[IRP_MJ_POWER] = CapPower;
    DriverObject->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = CapSystemControl;
    return STATUS_SUCCESS;
}

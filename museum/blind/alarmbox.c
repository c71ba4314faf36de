/*
 * alarmbox - programmable beat generator
 *
 * \\.\AlarmBox counts beats whose distance follows a pattern of up to eight
 * intervals, repeated over and over.  Each step of the pattern is timed with
 * a one-shot timer that is set up again by the timer DPC.
 *
 *   START  { ULONG Count; ULONG Ms[8]; }    replaces a pattern that runs
 *   STOP
 *   QUERY  -> { ULONG Running; ULONG Beats; ULONG Step; }
 *
 * The bug: the DPC of the timer sets it once more, also while it is being stopped for good.
 *
 * Device: none
 * Rule: freed-active-timer, freed-queued-dpc, use-after-free
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>

#define AB_TAG 'xBlA'
#define AB_STEPS 8
#define AB_CTL(n) CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA00 + (n), METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_AB_START AB_CTL(0)
#define IOCTL_AB_STOP  AB_CTL(1)
#define IOCTL_AB_QUERY AB_CTL(2)

typedef struct _AB_PATTERN {
    ULONG Count;
    ULONG Ms[AB_STEPS];
} AB_PATTERN, *PAB_PATTERN;

typedef struct _AB_STATE {
    ULONG Running;
    ULONG Beats;
    ULONG Step;
} AB_STATE, *PAB_STATE;

/* One running pattern; allocated by START, freed by STOP. */
typedef struct _AB_ALARM {
    KTIMER     Timer;
    KDPC       Dpc;
    KSPIN_LOCK Lock;
    BOOLEAN    Stopping;
    AB_PATTERN Pattern;
    ULONG      Step;
    ULONG      Beats;
} AB_ALARM, *PAB_ALARM;

typedef struct _AB_DEVICE {
    KEVENT    Gate;             /* synchronization event used as a lock, so that we stay at PASSIVE_LEVEL */
    PAB_ALARM Alarm;
    ULONG     LastBeats;
} AB_DEVICE, *PAB_DEVICE;

static UNICODE_STRING AbName = RTL_CONSTANT_STRING(L"\\Device\\AlarmBox");
static UNICODE_STRING AbLink = RTL_CONSTANT_STRING(L"\\DosDevices\\AlarmBox");

static VOID AbEnter(PAB_DEVICE Dev)
{
    KeEnterCriticalRegion();
    KeWaitForSingleObject(&Dev->Gate, Executive, KernelMode, FALSE, NULL);
}

static VOID AbLeave(PAB_DEVICE Dev)
{
    KeSetEvent(&Dev->Gate, IO_NO_INCREMENT, FALSE);
    KeLeaveCriticalRegion();
}

static VOID AbArm(PAB_ALARM Alarm)
{
    LARGE_INTEGER due;

    due.QuadPart = -10000LL * Alarm->Pattern.Ms[Alarm->Step];
    KeSetTimer(&Alarm->Timer, due, &Alarm->Dpc);
}

static VOID NTAPI AbBeat(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PAB_ALARM alarm = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);

    KeAcquireSpinLockAtDpcLevel(&alarm->Lock);
    alarm->Beats++;
    alarm->Step = (alarm->Step + 1) % alarm->Pattern.Count;
#ifdef FIXED
    if (!alarm->Stopping)
#endif
        AbArm(alarm);
    KeReleaseSpinLockFromDpcLevel(&alarm->Lock);
}

/* Gate held, PASSIVE_LEVEL. */
static VOID AbStopLocked(PAB_DEVICE Dev)
{
    PAB_ALARM alarm = Dev->Alarm;
    KIRQL irql;

    if (!alarm)
        return;

    KeAcquireSpinLock(&alarm->Lock, &irql);
    alarm->Stopping = TRUE;
    KeReleaseSpinLock(&alarm->Lock, irql);

    KeCancelTimer(&alarm->Timer);
    KeFlushQueuedDpcs();

    Dev->LastBeats = alarm->Beats;
    Dev->Alarm = NULL;
    ExFreePoolWithTag(alarm, AB_TAG);
}

static NTSTATUS AbStart(PAB_DEVICE Dev, PAB_PATTERN Pattern)
{
    PAB_ALARM alarm;
    KIRQL irql;
    ULONG i;

    if (Pattern->Count == 0 || Pattern->Count > AB_STEPS)
        return STATUS_INVALID_PARAMETER;
    for (i = 0; i < Pattern->Count; i++)
        if (Pattern->Ms[i] == 0 || Pattern->Ms[i] > 60000)
            return STATUS_INVALID_PARAMETER;

    alarm = ExAllocatePoolWithTag(NonPagedPool, sizeof(*alarm), AB_TAG);
    if (!alarm)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(alarm, sizeof(*alarm));
    alarm->Pattern = *Pattern;
    KeInitializeSpinLock(&alarm->Lock);
    KeInitializeTimer(&alarm->Timer);
    KeInitializeDpc(&alarm->Dpc, AbBeat, alarm);

    AbEnter(Dev);
    AbStopLocked(Dev);
    Dev->Alarm = alarm;
    KeAcquireSpinLock(&alarm->Lock, &irql);
    AbArm(alarm);
    KeReleaseSpinLock(&alarm->Lock, irql);
    AbLeave(Dev);
    return STATUS_SUCCESS;
}

static VOID AbQuery(PAB_DEVICE Dev, PAB_STATE State)
{
    KIRQL irql;

    RtlZeroMemory(State, sizeof(*State));
    AbEnter(Dev);
    if (Dev->Alarm) {
        KeAcquireSpinLock(&Dev->Alarm->Lock, &irql);
        State->Running = 1;
        State->Beats = Dev->Alarm->Beats;
        State->Step = Dev->Alarm->Step;
        KeReleaseSpinLock(&Dev->Alarm->Lock, irql);
    } else {
        State->Beats = Dev->LastBeats;
    }
    AbLeave(Dev);
}

static NTSTATUS NTAPI AbControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PAB_DEVICE dev = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = STATUS_SUCCESS;
    ULONG_PTR info = 0;

    switch (sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_AB_START:
        if (sl->Parameters.DeviceIoControl.InputBufferLength != sizeof(AB_PATTERN))
            status = STATUS_INFO_LENGTH_MISMATCH;
        else
            status = AbStart(dev, Irp->AssociatedIrp.SystemBuffer);
        break;
    case IOCTL_AB_STOP:
        AbEnter(dev);
        AbStopLocked(dev);
        AbLeave(dev);
        break;
    case IOCTL_AB_QUERY:
        if (sl->Parameters.DeviceIoControl.OutputBufferLength < sizeof(AB_STATE)) {
            status = STATUS_BUFFER_TOO_SMALL;
        } else {
            AbQuery(dev, Irp->AssociatedIrp.SystemBuffer);
            info = sizeof(AB_STATE);
        }
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    Irp->IoStatus.Status = status;
    Irp->IoStatus.Information = info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS NTAPI AbCreateClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static VOID NTAPI AbUnload(PDRIVER_OBJECT DriverObject)
{
    PDEVICE_OBJECT device = DriverObject->DeviceObject;
    PAB_DEVICE dev = device->DeviceExtension;

    IoDeleteSymbolicLink(&AbLink);
    AbEnter(dev);
    AbStopLocked(dev);
    AbLeave(dev);
    IoDeleteDevice(device);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    PAB_DEVICE dev;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);

    status = IoCreateDevice(DriverObject, sizeof(AB_DEVICE), &AbName, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    dev = device->DeviceExtension;
    KeInitializeEvent(&dev->Gate, SynchronizationEvent, TRUE);

    DriverObject->MajorFunction[IRP_MJ_CREATE] = AbCreateClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = AbCreateClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = AbControl;
    DriverObject->DriverUnload = AbUnload;

    status = IoCreateSymbolicLink(&AbLink, &AbName);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(device);
    return status;
}

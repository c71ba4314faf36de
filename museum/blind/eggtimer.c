/*
 * eggtimer: each open handle has a periodic timer of its own, whose ticks are counted and, when wanted,
 * given to an event of the application's.
 *
 * The bug: closing a handle cancels its timer but frees the block with the timer's DPC while that DPC may still be
 * queued or running.
 *
 * Device: none
 * Rule: use-after-free, freed-queued-dpc
 * Needs: schedule
 */
#include <ddk/wdm.h>

#define IOCTL_EGG_SET   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x910, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_EGG_STOP  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x911, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_EGG_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x912, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define EGG_TAG 'ggEV'

typedef struct _EGG_SET {
    ULONG PeriodMs;
    ULONG Reserved;
    ULONG64 Event;          /* a handle, or 0 */
} EGG_SET;

typedef struct _EGG_COUNT {
    ULONG64 Ticks;
    ULONG64 LastTick;       /* interrupt time */
} EGG_COUNT;

typedef struct _EGG {
    KTIMER Timer;
    KDPC Dpc;
    KSPIN_LOCK Lock;
    PKEVENT Event;
    EGG_COUNT Count;
    FAST_MUTEX Setting;     /* one set or stop at a time */
} EGG;

static PDEVICE_OBJECT g_device;

static VOID NTAPI EggTick(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    EGG *egg = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
    KeAcquireSpinLockAtDpcLevel(&egg->Lock);
    egg->Count.Ticks++;
    egg->Count.LastTick = KeQueryInterruptTime();
    if (egg->Event)
        KeSetEvent(egg->Event, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLockFromDpcLevel(&egg->Lock);
}

/* Puts an event (or none) in the place of the present one. */
static VOID EggChangeEvent(EGG *Egg, PKEVENT Event)
{
    PKEVENT old;
    KIRQL irql;

    KeAcquireSpinLock(&Egg->Lock, &irql);
    old = Egg->Event;
    Egg->Event = Event;
    KeReleaseSpinLock(&Egg->Lock, irql);
    if (old)
        ObDereferenceObject(old);
}

static NTSTATUS EggSet(EGG *Egg, const EGG_SET *Set, KPROCESSOR_MODE Mode)
{
    PKEVENT event = NULL;
    LARGE_INTEGER due;
    NTSTATUS status;

    if (Set->PeriodMs < 2 || Set->PeriodMs > 3600000 || Set->Reserved)
        return STATUS_INVALID_PARAMETER;
    if (Set->Event) {
        status = ObReferenceObjectByHandle((HANDLE)(ULONG_PTR)Set->Event, EVENT_MODIFY_STATE, *ExEventObjectType,
                                           Mode, (PVOID *)&event, NULL);
        if (!NT_SUCCESS(status))
            return status;
    }
    ExAcquireFastMutex(&Egg->Setting);
    EggChangeEvent(Egg, event);
    due.QuadPart = (LONGLONG)Set->PeriodMs * -10000;
    KeSetTimerEx(&Egg->Timer, due, (LONG)Set->PeriodMs, &Egg->Dpc);
    ExReleaseFastMutex(&Egg->Setting);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI EggControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    EGG *egg = stack->FileObject->FsContext;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG_PTR info = 0;
    EGG_SET set;
    KIRQL irql;

    UNREFERENCED_PARAMETER(Device);
    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_EGG_SET:
        if (stack->Parameters.DeviceIoControl.InputBufferLength != sizeof(EGG_SET)) {
            status = STATUS_INVALID_PARAMETER;
            break;
        }
        set = *(EGG_SET *)Irp->AssociatedIrp.SystemBuffer;
        status = EggSet(egg, &set, Irp->RequestorMode);
        break;
    case IOCTL_EGG_STOP:
        ExAcquireFastMutex(&egg->Setting);
        KeCancelTimer(&egg->Timer);
        EggChangeEvent(egg, NULL);
        ExReleaseFastMutex(&egg->Setting);
        break;
    case IOCTL_EGG_COUNT:
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(EGG_COUNT)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&egg->Lock, &irql);
        *(EGG_COUNT *)Irp->AssociatedIrp.SystemBuffer = egg->Count;
        KeReleaseSpinLock(&egg->Lock, irql);
        info = sizeof(EGG_COUNT);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    Irp->IoStatus.Status = status;
    Irp->IoStatus.Information = info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS NTAPI EggCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    NTSTATUS status = STATUS_INSUFFICIENT_RESOURCES;
    EGG *egg = ExAllocatePoolWithTag(NonPagedPool, sizeof(EGG), EGG_TAG);

    UNREFERENCED_PARAMETER(Device);
    if (egg) {
        RtlZeroMemory(egg, sizeof(*egg));
        KeInitializeTimerEx(&egg->Timer, NotificationTimer);
        KeInitializeDpc(&egg->Dpc, EggTick, egg);
        KeInitializeSpinLock(&egg->Lock);
        ExInitializeFastMutex(&egg->Setting);
        IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = egg;
        status = STATUS_SUCCESS;
    }
    Irp->IoStatus.Status = status;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS NTAPI EggClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    EGG *egg = file->FsContext;

    UNREFERENCED_PARAMETER(Device);
    KeCancelTimer(&egg->Timer);
#ifdef FIXED
    KeFlushQueuedDpcs();
#endif
    EggChangeEvent(egg, NULL);
    file->FsContext = NULL;
    ExFreePoolWithTag(egg, EGG_TAG);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static VOID NTAPI EggUnload(PDRIVER_OBJECT Driver)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\EggTimer");

    UNREFERENCED_PARAMETER(Driver);
    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(g_device);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\EggTimer");
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\EggTimer");
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Path);
    Driver->MajorFunction[IRP_MJ_CREATE] = EggCreate;
    Driver->MajorFunction[IRP_MJ_CLOSE] = EggClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = EggControl;
    Driver->DriverUnload = EggUnload;
    status = IoCreateDevice(Driver, 0, &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &g_device);
    if (!NT_SUCCESS(status))
        return status;
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(g_device);
    return status;
}

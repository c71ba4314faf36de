/*
 * statled: the virtual status lamp of an appliance: programs set its colour and blinking; it is
 * dark while the device sleeps. The driver owns the device's power policy.
 *
 * The bug: when PoRequestPowerIrp fails, the system power request is kept for a callback that never comes, so that
 * the system never goes to sleep or wakes.
 *
 * Device: ROOT\STATLED
 * Rule: power-irp-overdue
 * Needs: power, failure
 */
#include <ddk/wdm.h>
#include <initguid.h>

DEFINE_GUID(GUID_STATLED, 0x8d0c2e05, 0x15b2, 0x4a7f, 0xa1, 0x44, 0x60, 0x0d, 0x93, 0x2b, 0x17, 0x05);

typedef struct { ULONG Colour, Period; } LED_SET;      /* period in ms, 0 steady */
typedef struct { ULONG Colour, Period, Lit, Blinks; } LED_STATE;
#define IOCTL_LED_SET   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B1, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_LED_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B2, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct {
    PDEVICE_OBJECT Self, Lower, Pdo;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Link;
    BOOLEAN Started, RemovePending;
    KTIMER Blink;
    KDPC BlinkDpc;
    KSPIN_LOCK Lock;           /* the fields below and the timer's setting */
    BOOLEAN Awake, Ended;
    LED_STATE State;
} LED, *PLED;

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* Lock held: the lamp as it ought to be now. */
static VOID LedShow(PLED L)
{
    LARGE_INTEGER due;
    KeCancelTimer(&L->Blink);
    if (!L->Awake || L->Ended) {
        L->State.Lit = 0;
        return;
    }
    L->State.Lit = L->State.Colour;
    if (L->State.Period) {
        due.QuadPart = -10000LL * L->State.Period;
        KeSetTimer(&L->Blink, due, &L->BlinkDpc);
    }
}
static VOID NTAPI LedBlink(PKDPC Dpc, PVOID Ctx, PVOID A1, PVOID A2)
{
    PLED L = Ctx;
    LARGE_INTEGER due;
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
    KeAcquireSpinLockAtDpcLevel(&L->Lock);
    if (L->Awake && !L->Ended && L->State.Period) {
        L->State.Lit = L->State.Lit ? 0 : L->State.Colour;
        L->State.Blinks++;
        due.QuadPart = -10000LL * L->State.Period;
        KeSetTimer(&L->Blink, due, &L->BlinkDpc);
    }
    KeReleaseSpinLockFromDpcLevel(&L->Lock);
}
static VOID LedSetAwake(PLED L, BOOLEAN Awake)
{
    KIRQL irql;
    KeAcquireSpinLock(&L->Lock, &irql);
    L->Awake = Awake;
    LedShow(L);
    KeReleaseSpinLock(&L->Lock, irql);
}

static NTSTATUS NTAPI LedControl(PDEVICE_OBJECT D, PIRP Irp)
{
    PLED L = D->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PVOID buf = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR info = 0;
    KIRQL irql;
    NTSTATUS st = IoAcquireRemoveLock(&L->RemoveLock, Irp);
    if (!NT_SUCCESS(st))
        return Finish(Irp, st, 0);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_LED_SET: {
        LED_SET *in = buf;
        if (sp->Parameters.DeviceIoControl.InputBufferLength != sizeof(LED_SET))
            st = STATUS_INFO_LENGTH_MISMATCH;
        else if (in->Period != 0 && (in->Period < 50 || in->Period > 10000))
            st = STATUS_INVALID_PARAMETER;
        else {
            KeAcquireSpinLock(&L->Lock, &irql);
            L->State.Colour = in->Colour & 0xFFFFFF;
            L->State.Period = in->Period;
            LedShow(L);
            KeReleaseSpinLock(&L->Lock, irql);
        }
        break;
    }
    case IOCTL_LED_STATE:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LED_STATE))
            st = STATUS_BUFFER_TOO_SMALL;
        else {
            KeAcquireSpinLock(&L->Lock, &irql);
            *(LED_STATE *)buf = L->State;
            KeReleaseSpinLock(&L->Lock, irql);
            info = sizeof(LED_STATE);
        }
        break;
    default:
        st = STATUS_INVALID_DEVICE_REQUEST;
    }
    Finish(Irp, st, info);
    IoReleaseRemoveLock(&L->RemoveLock, Irp);
    return st;
}

/* ---- power ---- */
static VOID NTAPI LedDeviceDone(PDEVICE_OBJECT D, UCHAR Minor, POWER_STATE State, PVOID Ctx, PIO_STATUS_BLOCK Iosb)
{
    PIRP system = Ctx;
    PLED L = IoGetCurrentIrpStackLocation(system)->DeviceObject->DeviceExtension;
    UNREFERENCED_PARAMETER(D);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    Finish(system, Iosb->Status, 0);
    IoReleaseRemoveLock(&L->RemoveLock, system);
}
static NTSTATUS NTAPI LedSystemBelow(PDEVICE_OBJECT D, PIRP Irp, PVOID Ctx)
{
    PLED L = Ctx;
    POWER_STATE ps;
    NTSTATUS st = Irp->IoStatus.Status;
    UNREFERENCED_PARAMETER(D);
    if (NT_SUCCESS(st)) {
        SYSTEM_POWER_STATE to = IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State.SystemState;
        ps.DeviceState = to == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        st = PoRequestPowerIrp(L->Pdo, IRP_MN_SET_POWER, ps, LedDeviceDone, Irp, NULL);
#ifdef FIXED
        if (NT_SUCCESS(st))
            return STATUS_MORE_PROCESSING_REQUIRED;
        Irp->IoStatus.Status = st;
#else
        return STATUS_MORE_PROCESSING_REQUIRED;
#endif
    }
    IoReleaseRemoveLock(&L->RemoveLock, Irp);
    return STATUS_SUCCESS;
}
static NTSTATUS NTAPI LedWoken(PDEVICE_OBJECT D, PIRP Irp, PVOID Ctx)
{
    PLED L = Ctx;
    UNREFERENCED_PARAMETER(D);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        POWER_STATE ps;
        ps.DeviceState = PowerDeviceD0;
        PoSetPowerState(L->Self, DevicePowerState, ps);
        LedSetAwake(L, TRUE);
    }
    IoReleaseRemoveLock(&L->RemoveLock, Irp);
    return STATUS_SUCCESS;
}
static NTSTATUS NTAPI LedPower(PDEVICE_OBJECT D, PIRP Irp)
{
    PLED L = D->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PIO_COMPLETION_ROUTINE then = NULL;
    NTSTATUS st = IoAcquireRemoveLock(&L->RemoveLock, Irp);
    if (!NT_SUCCESS(st))
        return Finish(Irp, st, 0);

    if (sp->MinorFunction == IRP_MN_SET_POWER) {
        if (sp->Parameters.Power.Type == SystemPowerState)
            then = LedSystemBelow;
        else if (sp->Parameters.Power.State.DeviceState == PowerDeviceD0)
            then = LedWoken;
        else {
            LedSetAwake(L, FALSE);
            PoSetPowerState(L->Self, DevicePowerState, sp->Parameters.Power.State);
            Irp->IoStatus.Status = STATUS_SUCCESS;
        }
    } else if (sp->MinorFunction == IRP_MN_QUERY_POWER) {
        Irp->IoStatus.Status = STATUS_SUCCESS;
    }
    if (then) {
        IoMarkIrpPending(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, then, L, TRUE, TRUE, TRUE);
        PoCallDriver(L->Lower, Irp);
        return STATUS_PENDING;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    st = PoCallDriver(L->Lower, Irp);
    IoReleaseRemoveLock(&L->RemoveLock, Irp);
    return st;
}

/* ---- plug and play ---- */
static VOID LedEnd(PLED L)
{
    KIRQL irql;
    if (L->Started) {
        L->Started = FALSE;
        IoSetDeviceInterfaceState(&L->Link, FALSE);
    }
    KeAcquireSpinLock(&L->Lock, &irql);
    L->Ended = TRUE;
    LedShow(L);
    KeReleaseSpinLock(&L->Lock, irql);
    KeFlushQueuedDpcs();
}
static NTSTATUS NTAPI LedBelowStarted(PDEVICE_OBJECT D, PIRP Irp, PVOID Ctx)
{
    UNREFERENCED_PARAMETER(D);
    if (Irp->PendingReturned)
        KeSetEvent((PKEVENT)Ctx, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}
static NTSTATUS LedStart(PLED L, PIRP Irp)
{
    KEVENT ev;
    NTSTATUS st;
    KeInitializeEvent(&ev, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, LedBelowStarted, &ev, TRUE, TRUE, TRUE);
    st = IoCallDriver(L->Lower, Irp);
    if (st == STATUS_PENDING) {
        KeWaitForSingleObject(&ev, Executive, KernelMode, FALSE, NULL);
        st = Irp->IoStatus.Status;
    }
    if (NT_SUCCESS(st)) {
        POWER_STATE ps;
        ps.DeviceState = PowerDeviceD0;
        PoSetPowerState(L->Self, DevicePowerState, ps);
        LedSetAwake(L, TRUE);
        if (!L->Started) {
            L->Started = TRUE;
            IoSetDeviceInterfaceState(&L->Link, TRUE);
        }
    }
    return st;
}
static NTSTATUS NTAPI LedPnp(PDEVICE_OBJECT D, PIRP Irp)
{
    PLED L = D->DeviceExtension;
    UCHAR minor = IoGetCurrentIrpStackLocation(Irp)->MinorFunction;
    NTSTATUS st = IoAcquireRemoveLock(&L->RemoveLock, Irp);
    if (!NT_SUCCESS(st))
        return Finish(Irp, st, 0);
    if (minor == IRP_MN_START_DEVICE) {
        st = LedStart(L, Irp);
        Finish(Irp, st, 0);
        IoReleaseRemoveLock(&L->RemoveLock, Irp);
        return st;
    }
    if (minor == IRP_MN_REMOVE_DEVICE) {
        LedEnd(L);
        IoReleaseRemoveLockAndWait(&L->RemoveLock, Irp);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        st = IoCallDriver(L->Lower, Irp);
        IoDetachDevice(L->Lower);
        RtlFreeUnicodeString(&L->Link);
        IoDeleteDevice(D);
        return st;
    }
    if (minor == IRP_MN_SURPRISE_REMOVAL)
        LedEnd(L);
    else if (minor == IRP_MN_QUERY_REMOVE_DEVICE)
        L->RemovePending = TRUE;
    else if (minor == IRP_MN_CANCEL_REMOVE_DEVICE)
        L->RemovePending = FALSE;
    if (minor == IRP_MN_SURPRISE_REMOVAL || minor == IRP_MN_QUERY_REMOVE_DEVICE ||
        minor == IRP_MN_CANCEL_REMOVE_DEVICE || minor == IRP_MN_QUERY_STOP_DEVICE ||
        minor == IRP_MN_CANCEL_STOP_DEVICE || minor == IRP_MN_STOP_DEVICE)
        Irp->IoStatus.Status = STATUS_SUCCESS;
    IoSkipCurrentIrpStackLocation(Irp);
    st = IoCallDriver(L->Lower, Irp);
    IoReleaseRemoveLock(&L->RemoveLock, Irp);
    return st;
}

static NTSTATUS NTAPI LedWmi(PDEVICE_OBJECT D, PIRP Irp)
{
    PLED L = D->DeviceExtension;
    NTSTATUS st = IoAcquireRemoveLock(&L->RemoveLock, Irp);
    if (!NT_SUCCESS(st))
        return Finish(Irp, st, 0);
    IoSkipCurrentIrpStackLocation(Irp);
    st = IoCallDriver(L->Lower, Irp);
    IoReleaseRemoveLock(&L->RemoveLock, Irp);
    return st;
}
static NTSTATUS NTAPI LedOpenClose(PDEVICE_OBJECT D, PIRP Irp)
{
    PLED L = D->DeviceExtension;
    if (IoGetCurrentIrpStackLocation(Irp)->MajorFunction == IRP_MJ_CREATE && (!L->Started || L->RemovePending))
        return Finish(Irp, STATUS_DELETE_PENDING, 0);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI LedAdd(PDRIVER_OBJECT Drv, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT d;
    PLED L;
    NTSTATUS st = IoCreateDevice(Drv, sizeof(LED), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &d);
    if (!NT_SUCCESS(st))
        return st;
    L = d->DeviceExtension;
    RtlZeroMemory(L, sizeof(LED));
    L->Self = d;
    L->Pdo = Pdo;
    L->State.Colour = 0x00FF00;
    IoInitializeRemoveLock(&L->RemoveLock, 'deLS', 0, 0);
    KeInitializeSpinLock(&L->Lock);
    KeInitializeTimer(&L->Blink);
    KeInitializeDpc(&L->BlinkDpc, LedBlink, L);
    st = IoRegisterDeviceInterface(Pdo, &GUID_STATLED, NULL, &L->Link);
    if (!NT_SUCCESS(st)) {
        IoDeleteDevice(d);
        return st;
    }
    L->Lower = IoAttachDeviceToDeviceStack(d, Pdo);
    if (!L->Lower) {
        RtlFreeUnicodeString(&L->Link);
        IoDeleteDevice(d);
        return STATUS_NO_SUCH_DEVICE;
    }
    d->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
    d->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
static VOID NTAPI LedUnload(PDRIVER_OBJECT Drv)
{
    UNREFERENCED_PARAMETER(Drv);
}
NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Drv, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    Drv->DriverExtension->AddDevice = LedAdd;
    Drv->DriverUnload = LedUnload;
    Drv->MajorFunction[IRP_MJ_PNP] = LedPnp;
    Drv->MajorFunction[IRP_MJ_POWER] = LedPower;
    Drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = LedWmi;
    Drv->MajorFunction[IRP_MJ_CREATE] = LedOpenClose;
    Drv->MajorFunction[IRP_MJ_CLOSE] = LedOpenClose;
    Drv->MajorFunction[IRP_MJ_CLEANUP] = LedOpenClose;
    Drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = LedControl;
    return STATUS_SUCCESS;
}

/*
 * egglet: an alarm for each open handle: an application arms it, may disarm or arm it anew, and asks how often it has gone off.
 *
 * The bug: disarming gives back the timer's reference even if the alarm has gone off and given it back already, so the alarm is
 * freed while its handle is open.
 *
 * Device: none
 * Rule: use-after-free, freed-while-waited-for
 * Needs: ioctl
 */
#include "../include/bay_control.h"

#define IOCTL_ARM    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)    /* in: ULONG ms */
#define IOCTL_DISARM CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_COUNT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_ANY_ACCESS)    /* out: ULONG */

#define TAG 'geFA'
#define LATEST 60000u

typedef struct ALARM {
    LONG references;                            /* the handle's and the running timer's */
    volatile LONG count;
    KMUTEX mutex;                               /* of arming and disarming */
    BOOLEAN armed;                              /* since it was disarmed last; it may have gone off */
    KTIMER timer;
    KDPC dpc;
} ALARM;

static void Release(ALARM *alarm)
{
    if (InterlockedDecrement(&alarm->references) == 0)
        ExFreePoolWithTag(alarm, TAG);
}

static VOID NTAPI GoneOff(PKDPC dpc, PVOID context, PVOID first, PVOID second)
{
    ALARM *alarm = context;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(first);
    UNREFERENCED_PARAMETER(second);
    InterlockedIncrement(&alarm->count);
    Release(alarm);
}

static void Lock(ALARM *alarm)
{
    KeWaitForSingleObject(&alarm->mutex, Executive, KernelMode, FALSE, NULL);
}

static void Unlock(ALARM *alarm)
{
    KeReleaseMutex(&alarm->mutex, FALSE);
}

/* With the mutex held. */
static void Disarm(ALARM *alarm)
{
    BOOLEAN cancelled;

    if (!alarm->armed)
        return;
    alarm->armed = FALSE;
    cancelled = KeCancelTimer(&alarm->timer);
    if (!cancelled)
        KeFlushQueuedDpcs();                    /* the DPC has been queued: let it be over before the timer is set again */
#ifdef FIXED
    if (cancelled)
#endif
        Release(alarm);
}

static NTSTATUS NTAPI Create(PDEVICE_OBJECT self, PIRP irp)
{
    ALARM *alarm = ExAllocatePoolWithTag(NonPagedPool, sizeof *alarm, TAG);

    UNREFERENCED_PARAMETER(self);
    if (!alarm)
        return AfcComplete(irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(alarm, sizeof *alarm);
    alarm->references = 1;
    KeInitializeMutex(&alarm->mutex, 0);
    KeInitializeTimer(&alarm->timer);
    KeInitializeDpc(&alarm->dpc, GoneOff, alarm);
    IoGetCurrentIrpStackLocation(irp)->FileObject->FsContext = alarm;
    return AfcComplete(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Close(PDEVICE_OBJECT self, PIRP irp)
{
    ALARM *alarm = IoGetCurrentIrpStackLocation(irp)->FileObject->FsContext;

    UNREFERENCED_PARAMETER(self);
    Lock(alarm);
    Disarm(alarm);
    Unlock(alarm);
    Release(alarm);
    return AfcComplete(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT self, PIRP irp)
{
    IO_STACK_LOCATION *stack = IoGetCurrentIrpStackLocation(irp);
    ALARM *alarm = stack->FileObject->FsContext;
    LARGE_INTEGER due;
    ULONG milliseconds;

    UNREFERENCED_PARAMETER(self);
    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ARM:
        if (stack->Parameters.DeviceIoControl.InputBufferLength != sizeof(ULONG))
            return AfcComplete(irp, STATUS_INVALID_PARAMETER, 0);
        milliseconds = *(ULONG *)irp->AssociatedIrp.SystemBuffer;
        if (milliseconds == 0 || milliseconds > LATEST)
            return AfcComplete(irp, STATUS_INVALID_PARAMETER, 0);
        due.QuadPart = -10000LL * milliseconds;
        Lock(alarm);
        Disarm(alarm);
        InterlockedIncrement(&alarm->references);
        alarm->armed = TRUE;
        KeSetTimer(&alarm->timer, due, &alarm->dpc);
        Unlock(alarm);
        return AfcComplete(irp, STATUS_SUCCESS, 0);
    case IOCTL_DISARM:
        Lock(alarm);
        Disarm(alarm);
        Unlock(alarm);
        return AfcComplete(irp, STATUS_SUCCESS, 0);
    case IOCTL_COUNT:
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return AfcComplete(irp, STATUS_BUFFER_TOO_SMALL, 0);
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = (ULONG)alarm->count;
        return AfcComplete(irp, STATUS_SUCCESS, sizeof(ULONG));
    default:
        return AfcComplete(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI Unload(PDRIVER_OBJECT driver)
{
    UNREFERENCED_PARAMETER(driver);
    AfcDelete(L"\\DosDevices\\AfEgglet");
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    driver->MajorFunction[IRP_MJ_CREATE] = Create;
    driver->MajorFunction[IRP_MJ_CLOSE] = Close;
    driver->MajorFunction[IRP_MJ_CLEANUP] = AfcNothing;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    driver->DriverUnload = Unload;
    return AfcMake(driver, L"\\Device\\AfEgglet", L"\\DosDevices\\AfEgglet");
}

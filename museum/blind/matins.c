/*
 * matins: an alarm clock for each handle. A program hands over an event, which a timer's DPC sets when the time has come, once or again and again, until the
 * alarm is taken back or set anew, or the handle is closed.
 *
 * The bug: an alarm that is taken back or set anew gives its event back without the lock below which the DPC sets it: a DPC that runs at that moment on another
 * processor sets an event that may be gone.
 *
 * Device: none
 * Rule: use-after-free, write-after-free, data-race, object-reference
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>
#define FRAME_RAFT
#include "../include/raft_or_hull.h"

#define IOCTL_MATINS_SET  CTL_CODE(FILE_DEVICE_UNKNOWN, 0xa30, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_MATINS_BACK CTL_CODE(FILE_DEVICE_UNKNOWN, 0xa31, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_MATINS_RUNG CTL_CODE(FILE_DEVICE_UNKNOWN, 0xa32, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct SETTING {
    ULONG64 Event;              /* a handle */
    ULONG Due;                  /* milliseconds */
    ULONG Period;               /* milliseconds, 0: once */
} SETTING;

typedef struct ALARM {
    KTIMER Timer;
    KDPC Dpc;
    FAST_MUTEX Hand;            /* one hand at the clock */
    KSPIN_LOCK Lock;            /* for all below */
    PKEVENT Event;              /* referenced; NULL: none */
    ULONG Rung;
} ALARM;

static VOID NTAPI MatRing(PKDPC Dpc, PVOID Context, PVOID A, PVOID B)
{
    ALARM *a = Context;

    (void)Dpc;
    (void)A;
    (void)B;
    KeAcquireSpinLockAtDpcLevel(&a->Lock);
    if (a->Event) {
        a->Rung++;
        KeSetEvent(a->Event, IO_NO_INCREMENT, FALSE);
    }
    KeReleaseSpinLockFromDpcLevel(&a->Lock);
}

/* Another event, or none, instead of the one it has. */
static VOID MatExchange(ALARM *a, PKEVENT Event)
{
    PKEVENT old;
#ifdef FIXED
    KIRQL irql;

    KeAcquireSpinLock(&a->Lock, &irql);
#endif
    old = a->Event;
    a->Event = Event;
#ifdef FIXED
    KeReleaseSpinLock(&a->Lock, irql);
#endif
    if (old)
        ObDereferenceObject(old);
}

static NTSTATUS MatSet(ALARM *a, const SETTING *To, KPROCESSOR_MODE Mode)
{
    LARGE_INTEGER due;
    NTSTATUS status;
    PVOID event;

    if (!To->Due || To->Due > 3600000 || (To->Period && (To->Period < 10 || To->Period > 3600000)))
        return STATUS_INVALID_PARAMETER;
    status = ObReferenceObjectByHandle((HANDLE)(ULONG_PTR)To->Event, EVENT_MODIFY_STATE, *ExEventObjectType, Mode, &event, NULL);
    if (!NT_SUCCESS(status))
        return status;
    due.QuadPart = -10000LL * To->Due;
    ExAcquireFastMutex(&a->Hand);
    KeCancelTimer(&a->Timer);
    MatExchange(a, event);
    KeSetTimerEx(&a->Timer, due, (LONG)To->Period, &a->Dpc);
    ExReleaseFastMutex(&a->Hand);
    return STATUS_SUCCESS;
}

static VOID MatBack(ALARM *a)
{
    ExAcquireFastMutex(&a->Hand);
    KeCancelTimer(&a->Timer);
    MatExchange(a, NULL);
    ExReleaseFastMutex(&a->Hand);
}

static NTSTATUS MatAsk(PVOID own, PIRP Irp, PIO_STACK_LOCATION Sl, ULONG_PTR *Info)
{
    ALARM *a = Sl->FileObject->FsContext;
    ULONG rung;
    KIRQL irql;

    (void)own;
    if (Sl->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (Sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_MATINS_SET:
        if (Sl->Parameters.DeviceIoControl.InputBufferLength < sizeof(SETTING))
            return STATUS_BUFFER_TOO_SMALL;
        return MatSet(a, Irp->AssociatedIrp.SystemBuffer, Irp->RequestorMode);
    case IOCTL_MATINS_BACK:
        MatBack(a);
        return STATUS_SUCCESS;
    case IOCTL_MATINS_RUNG:
        if (Sl->Parameters.DeviceIoControl.OutputBufferLength < sizeof rung)
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&a->Lock, &irql);
        rung = a->Rung;
        a->Rung = 0;
        KeReleaseSpinLock(&a->Lock, irql);
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = rung;
        *Info = sizeof rung;
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS MatOpen(PVOID own, PFILE_OBJECT File)
{
    ALARM *a = ExAllocatePoolWithTag(NonPagedPool, sizeof *a, FRAME_TAG);

    (void)own;
    if (!a)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(a, sizeof *a);
    KeInitializeTimer(&a->Timer);
    KeInitializeDpc(&a->Dpc, MatRing, a);
    ExInitializeFastMutex(&a->Hand);
    KeInitializeSpinLock(&a->Lock);
    File->FsContext = a;
    return STATUS_SUCCESS;
}

static VOID MatClose(PVOID own, PFILE_OBJECT File)
{
    ALARM *a = File->FsContext;

    (void)own;
    KeCancelTimer(&a->Timer);
    KeFlushQueuedDpcs();
    MatExchange(a, NULL);
    ExFreePoolWithTag(a, FRAME_TAG);
}

static const RAFT_PLAN MatPlan = {
    .Device = L"\\Device\\Matins", .Link = L"\\DosDevices\\Matins", .Room = sizeof(ULONG),
    .Open = MatOpen, .Close = MatClose, .Ask = MatAsk,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    return RaftLaunch(Driver, RegistryPath, &MatPlan);
}

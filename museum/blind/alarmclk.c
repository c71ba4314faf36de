/*
 * alarmclk: an alarm clock for services: IOCTL_ALARM (a ULONG of milliseconds) comes back when the time is over, or is cancelled.
 *
 * The bug: the timer's DPC takes the cancel routine off the request without looking whether there still was one; a cancel routine that is already
 * on its way to the lock then completes the same request a second time and uses the freed alarm.
 *
 * Device: none
 * Rule: use-after-free, double-completion
 * Needs: cancel, schedule
 */
#include <ddk/wdm.h>
#include "../include/framed_by_calls.h"

#define IOCTL_ALARM CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define LINK L"\\DosDevices\\AlarmClk"
#define MAX_MS (24u * 60 * 60 * 1000)
#define MAX_ALARMS 256

typedef struct _DEV {
    PDEVICE_OBJECT Self;
    KSPIN_LOCK Lock;
    LIST_ENTRY Alarms;
    ULONG Count;
} DEV;

typedef struct _ALARM {
    LIST_ENTRY Link;        /* in Alarms while Irp is set */
    DEV *Dev;
    PIRP Irp;               /* under the lock; NULL when one side has taken the request in order to complete it */
    PFILE_OBJECT File;
    LONG Refs;              /* one of the request, one of the timer */
    KTIMER Timer;
    KDPC Dpc;
} ALARM;

static DEV *TheDev;

static VOID AlarmDrop(ALARM *a)
{
    if (InterlockedDecrement(&a->Refs) == 0)
        ExFreePoolWithTag(a, EE_TAG);
}

/* The lock is held; the request becomes the caller's. */
static PIRP AlarmOff(ALARM *a)
{
    PIRP irp = a->Irp;

    RemoveEntryList(&a->Link);
    a->Irp = NULL;
    a->Dev->Count--;
    return irp;
}

static VOID AlarmStop(ALARM *a)
{
    if (KeCancelTimer(&a->Timer))
        AlarmDrop(a);           /* the DPC will not do it */
    AlarmDrop(a);
}

static VOID NTAPI AlarmDpc(PKDPC dpc, PVOID ctx, PVOID a1, PVOID a2)
{
    ALARM *a = ctx;
    DEV *d = a->Dev;
    PIRP irp;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    KeAcquireSpinLockAtDpcLevel(&d->Lock);
    irp = a->Irp;
    if (irp) {
#ifdef FIXED
        if (IoSetCancelRoutine(irp, NULL))
            AlarmOff(a);
        else
            irp = NULL;         /* its cancel routine waits for the lock */
#else
        IoSetCancelRoutine(irp, NULL);
        AlarmOff(a);
#endif
    }
    KeReleaseSpinLockFromDpcLevel(&d->Lock);
    if (irp)
        AlarmDrop(a);
    AlarmDrop(a);
    if (irp)
        EeDone(irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI AlarmCancel(PDEVICE_OBJECT dev, PIRP irp)
{
    DEV *d = dev->DeviceExtension;
    ALARM *a = irp->Tail.Overlay.DriverContext[0];
    KIRQL irql;

    IoReleaseCancelSpinLock(irp->CancelIrql);
    KeAcquireSpinLock(&d->Lock, &irql);
    AlarmOff(a);
    KeReleaseSpinLock(&d->Lock, irql);
    AlarmStop(a);
    EeDone(irp, STATUS_CANCELLED, 0);
}

static NTSTATUS AlarmSet(DEV *d, PIRP irp, PIO_STACK_LOCATION sp)
{
    LARGE_INTEGER due;
    ALARM *a;
    KIRQL irql;
    ULONG ms;

    if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
        return EeDone(irp, STATUS_BUFFER_TOO_SMALL, 0);
    ms = *(PULONG)irp->AssociatedIrp.SystemBuffer;
    if (ms > MAX_MS)
        return EeDone(irp, STATUS_INVALID_PARAMETER, 0);
    a = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*a), EE_TAG);
    if (!a)
        return EeDone(irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    a->Dev = d;
    a->Irp = irp;
    a->File = sp->FileObject;
    a->Refs = 2;
    KeInitializeTimer(&a->Timer);
    KeInitializeDpc(&a->Dpc, AlarmDpc, a);
    due.QuadPart = -(LONGLONG)ms * 10000;
    irp->Tail.Overlay.DriverContext[0] = a;

    KeAcquireSpinLock(&d->Lock, &irql);
    if (d->Count >= MAX_ALARMS) {
        KeReleaseSpinLock(&d->Lock, irql);
        ExFreePoolWithTag(a, EE_TAG);
        return EeDone(irp, STATUS_QUOTA_EXCEEDED, 0);
    }
    IoMarkIrpPending(irp);
    InsertTailList(&d->Alarms, &a->Link);
    d->Count++;
    IoSetCancelRoutine(irp, AlarmCancel);
    if (irp->Cancel && IoSetCancelRoutine(irp, NULL)) {     /* cancelled before there was a cancel routine */
        AlarmOff(a);
        KeReleaseSpinLock(&d->Lock, irql);
        ExFreePoolWithTag(a, EE_TAG);
        EeDone(irp, STATUS_CANCELLED, 0);
        return STATUS_PENDING;
    }
    KeSetTimer(&a->Timer, due, &a->Dpc);                    /* even when the cancel routine waits for the lock: it takes the timer back */
    KeReleaseSpinLock(&d->Lock, irql);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT dev, PIRP irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);

    if (sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_ALARM)
        return AlarmSet(dev->DeviceExtension, irp, sp);
    return EeDone(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT dev, PIRP cirp)
{
    DEV *d = dev->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(cirp)->FileObject;
    PLIST_ENTRY e;
    ALARM *a;
    PIRP irp;
    KIRQL irql;

    for (;;) {
        irp = NULL;
        a = NULL;
        KeAcquireSpinLock(&d->Lock, &irql);
        for (e = d->Alarms.Flink; e != &d->Alarms; e = e->Flink) {
            a = CONTAINING_RECORD(e, ALARM, Link);
            if (a->File == file && IoSetCancelRoutine(a->Irp, NULL)) {
                irp = AlarmOff(a);
                break;
            }
        }
        KeReleaseSpinLock(&d->Lock, irql);
        if (!irp)
            break;
        AlarmStop(a);
        EeDone(irp, STATUS_CANCELLED, 0);
    }
    return EeDone(cirp, STATUS_SUCCESS, 0);
}

/* No handle is open and no request is left; a DPC that lost its request may still be about to free the alarm. */
static VOID NTAPI Unload(PDRIVER_OBJECT drv)
{
    UNREFERENCED_PARAMETER(drv);
    KeFlushQueuedDpcs();
    EeControlGone(TheDev->Self, LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    PDEVICE_OBJECT dev;
    NTSTATUS st;

    UNREFERENCED_PARAMETER(path);
    st = EeControl(drv, L"\\Device\\AlarmClk", LINK, sizeof(DEV), 0, &dev);
    if (!NT_SUCCESS(st))
        return st;
    TheDev = dev->DeviceExtension;
    RtlZeroMemory(TheDev, sizeof(*TheDev));
    TheDev->Self = dev;
    KeInitializeSpinLock(&TheDev->Lock);
    InitializeListHead(&TheDev->Alarms);
    drv->DriverUnload = Unload;
    drv->MajorFunction[IRP_MJ_CREATE] = EeOk;
    drv->MajorFunction[IRP_MJ_CLOSE] = EeOk;
    drv->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    return STATUS_SUCCESS;
}

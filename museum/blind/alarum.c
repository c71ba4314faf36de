/*
 * ALARUM: reminders for programs of a control room. A program hands in an event and a period, and has the event set when the period is
 * over, once or again and again; each handle has one reminder. One timer serves them all.
 *
 * The bug: the timer's DPC picks the reminders that are due under the lock, but sets their events after it has released it; a reminder
 * that is disarmed or whose handle is closed in between has no event any more, or is freed.
 *
 * Device: none
 * Rule: use-after-free, bad-pointer, data-race, wild-pointer, wild-read, object-reference, write-after-free
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>
#include "../include/stead_ward.h"

#define IOCTL_ALARUM_ARM    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x911, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_ALARUM_DISARM CTL_CODE(FILE_DEVICE_UNKNOWN, 0x912, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_ALARUM_LEFT   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x913, METHOD_BUFFERED, FILE_READ_ACCESS)

#define TICK_MS 20
#define AT_ONCE 16              /* reminders of one tick; more wait for the next */

typedef struct ARM {
    ULONGLONG event;            /* the program's handle */
    ULONG milliseconds;
    ULONG again;
} ARM;

typedef struct REMINDER {
    LIST_ENTRY link;
    PKEVENT event;              /* referenced; NULL: not armed */
    ULONG left;                 /* ticks, 0: it is over */
    ULONG period;               /* ticks, 0: once */
} REMINDER;

static KSPIN_LOCK Lock;
static LIST_ENTRY Reminders;    /* of all handles */
static KTIMER Timer;
static KDPC TimerDpc;

static VOID NTAPI Tick(PKDPC dpc, PVOID context, PVOID one, PVOID two)
{
    PLIST_ENTRY at;
    ULONG n = 0;
#ifndef FIXED
    REMINDER *due[AT_ONCE];
    ULONG i;
#endif

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(context);
    UNREFERENCED_PARAMETER(one);
    UNREFERENCED_PARAMETER(two);
    KeAcquireSpinLockAtDpcLevel(&Lock);
    for (at = Reminders.Flink; at != &Reminders; at = at->Flink) {
        REMINDER *r = CONTAINING_RECORD(at, REMINDER, link);

        if (r->event == NULL || r->left == 0)
            continue;
        if (r->left > 1) {
            r->left--;
            continue;
        }
        if (n == AT_ONCE)
            continue;
        n++;
        r->left = r->period;
#ifndef FIXED
        due[n - 1] = r;
    }
    KeReleaseSpinLockFromDpcLevel(&Lock);
    for (i = 0; i < n; i++)
        KeSetEvent(due[i]->event, IO_NO_INCREMENT, FALSE);
#else
        KeSetEvent(r->event, IO_NO_INCREMENT, FALSE);
    }
    KeReleaseSpinLockFromDpcLevel(&Lock);
#endif
}

static VOID Exchange(REMINDER *r, PKEVENT event, ULONG ticks, ULONG again)
{
    PKEVENT old;
    KIRQL irql;

    KeAcquireSpinLock(&Lock, &irql);
    old = r->event;
    r->event = event;
    r->left = ticks;
    r->period = again ? ticks : 0;
    KeReleaseSpinLock(&Lock, irql);
    if (old != NULL)
        ObDereferenceObject(old);
}

static NTSTATUS Open(PFILE_OBJECT file)
{
    REMINDER *r = ExAllocatePoolWithTag(NonPagedPool, sizeof(REMINDER), TAG_AC);

    if (r == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(r, sizeof(*r));
    file->FsContext = r;
    ExInterlockedInsertTailList(&Reminders, &r->link, &Lock);
    return STATUS_SUCCESS;
}

static VOID Leave(PFILE_OBJECT file)
{
    Exchange(file->FsContext, NULL, 0, 0);
}

static VOID Closed(PFILE_OBJECT file)
{
    REMINDER *r = file->FsContext;
    KIRQL irql;

    KeAcquireSpinLock(&Lock, &irql);
    RemoveEntryList(&r->link);
    KeReleaseSpinLock(&Lock, irql);
    Exchange(r, NULL, 0, 0);            /* what came after the cleanup */
    file->FsContext = NULL;
    ExFreePoolWithTag(r, TAG_AC);
}

static NTSTATUS Arm(PIRP irp, REMINDER *r, const ARM *in)
{
    NTSTATUS status;
    PVOID event;

    if (in->milliseconds < TICK_MS || in->milliseconds > 86400000 || in->again > 1)
        return STATUS_INVALID_PARAMETER;
    status = ObReferenceObjectByHandle((HANDLE)(ULONG_PTR)in->event, EVENT_MODIFY_STATE, *ExEventObjectType, irp->RequestorMode,
                                       &event, NULL);
    if (NT_SUCCESS(status))
        Exchange(r, event, in->milliseconds / TICK_MS, in->again);
    return status;
}

static NTSTATUS Serve(PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info)
{
    REMINDER *r = sp->FileObject->FsContext;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    KIRQL irql;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ALARUM_ARM:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ARM))
            return STATUS_BUFFER_TOO_SMALL;
        return Arm(irp, r, buffer);
    case IOCTL_ALARUM_DISARM:
        Exchange(r, NULL, 0, 0);
        return STATUS_SUCCESS;
    case IOCTL_ALARUM_LEFT:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&Lock, &irql);
        *(PULONG)buffer = r->left * TICK_MS;
        KeReleaseSpinLock(&Lock, irql);
        *info = sizeof(ULONG);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static const WARD Alarum = {
    .device = L"\\Device\\Alarum",
    .link = L"\\DosDevices\\Alarum",
    .flags = DO_BUFFERED_IO,
    .open = Open,
    .leave = Leave,
    .closed = Closed,
    .serve = Serve,
};

static VOID NTAPI Unload(PDRIVER_OBJECT driver)
{
    UNREFERENCED_PARAMETER(driver);
    KeCancelTimer(&Timer);
    KeFlushQueuedDpcs();
    WardRaze();
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    LARGE_INTEGER due;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(path);
    KeInitializeSpinLock(&Lock);
    InitializeListHead(&Reminders);
    KeInitializeTimer(&Timer);
    KeInitializeDpc(&TimerDpc, Tick, NULL);
    driver->DriverUnload = Unload;
    status = WardRaise(driver, &Alarum);
    if (NT_SUCCESS(status)) {
        due.QuadPart = -10000LL * TICK_MS;
        KeSetTimerEx(&Timer, due, TICK_MS, &TimerDpc);
    }
    return status;
}

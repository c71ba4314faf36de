/*
 * aquarium: a feeder and light schedule for public aquaria, root-enumerated. A periodic timer lets the hungry time run; when a tank is due, a
 * work item notes the feeding in a diary in paged memory, which programs read.
 *
 * The bug: stopping cancels the timer and flushes its DPC, but does not wait for a work item that is still queued or running, before it
 * frees the work item and the diary.
 *
 * Device: ROOT\AQUARIUM
 * Rule: use-after-free, work-item-queued, work-item, freed-while-in-use
 * Needs: schedule, removal
 */
#include <ddk/wdm.h>
#include "../include/gated_function.h"

#define TAG 'auqA'

#define IOCTL_AQUARIUM_INTERVAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x900, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_AQUARIUM_DIARY    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_READ_ACCESS)

#define TANKS 4
#define DIARY 128
#define TICK 100                /* ms */

static const GUID AquariumClass = { 0x5b8e2f10, 0x7a41, 0x4c0b, { 0x9d, 0x21, 0x3e, 0x5f, 0x10, 0x6a, 0x77, 0x01 } };

typedef struct {
    LARGE_INTEGER When;
    ULONG Tank;
    ULONG Grams;
} FEEDING;

typedef struct {
    ULONG Tank;
    ULONG Ticks;                /* 1 to 6000 */
} INTERVAL;

typedef struct {
    FRAME Frame;
    KTIMER Timer;
    KDPC Dpc;
    KSPIN_LOCK Lock;
    ULONG Interval[TANKS], Left[TANKS];
    ULONG Due;                  /* a bit for each tank */
    BOOLEAN Busy;               /* the work item is queued or runs */
    KEVENT WorkIdle;
    PIO_WORKITEM Work;

    FAST_MUTEX DiaryMutex;
    FEEDING *Diary;
    ULONG Written;
} AQUARIUM;

static void NTAPI FeedWorker(PDEVICE_OBJECT Device, PVOID Context)
{
    AQUARIUM *a = Context;
    ULONG due, i;
    KIRQL irql;

    UNREFERENCED_PARAMETER(Device);
    for (;;) {
        KeAcquireSpinLock(&a->Lock, &irql);
        due = a->Due;
        a->Due = 0;
        if (due == 0) {
            a->Busy = FALSE;
            KeSetEvent(&a->WorkIdle, IO_NO_INCREMENT, FALSE);
            KeReleaseSpinLock(&a->Lock, irql);
            return;
        }
        KeReleaseSpinLock(&a->Lock, irql);

        ExAcquireFastMutex(&a->DiaryMutex);
        for (i = 0; i < TANKS; i++) {
            FEEDING *f = &a->Diary[a->Written % DIARY];

            if (!(due & (1u << i)))
                continue;
            KeQuerySystemTime(&f->When);
            f->Tank = i;
            f->Grams = 50 + 25 * i;
            a->Written++;
        }
        ExReleaseFastMutex(&a->DiaryMutex);
    }
}

static void NTAPI TickDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    AQUARIUM *a = Context;
    ULONG i;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&a->Lock);
    for (i = 0; i < TANKS; i++) {
        if (--a->Left[i] == 0) {
            a->Left[i] = a->Interval[i];
            a->Due |= 1u << i;
        }
    }
    if (a->Due && !a->Busy) {
        a->Busy = TRUE;
        KeClearEvent(&a->WorkIdle);
        IoQueueWorkItem(a->Work, FeedWorker, DelayedWorkQueue, a);
    }
    KeReleaseSpinLockFromDpcLevel(&a->Lock);
}

static NTSTATUS Start(FRAME *F, PCM_RESOURCE_LIST Translated)
{
    AQUARIUM *a = (AQUARIUM *)F;
    LARGE_INTEGER due;
    ULONG i;

    UNREFERENCED_PARAMETER(Translated);
    a->Diary = ExAllocatePoolWithTag(PagedPool, DIARY * sizeof(FEEDING), TAG);
    if (!a->Diary)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(a->Diary, DIARY * sizeof(FEEDING));
    a->Work = IoAllocateWorkItem(F->Self);
    if (!a->Work) {
        ExFreePoolWithTag(a->Diary, TAG);
        a->Diary = NULL;
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    a->Written = 0;
    a->Due = 0;
    for (i = 0; i < TANKS; i++)
        a->Left[i] = a->Interval[i];
    due.QuadPart = -10000LL * TICK;
    KeSetTimerEx(&a->Timer, due, TICK, &a->Dpc);
    return STATUS_SUCCESS;
}

static void Stop(FRAME *F)
{
    AQUARIUM *a = (AQUARIUM *)F;

    KeCancelTimer(&a->Timer);
    KeFlushQueuedDpcs();
#ifdef FIXED
    KeWaitForSingleObject(&a->WorkIdle, Executive, KernelMode, FALSE, NULL);
#endif
    IoFreeWorkItem(a->Work);
    a->Work = NULL;
    ExFreePoolWithTag(a->Diary, TAG);
    a->Diary = NULL;
}

static NTSTATUS NTAPI DeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    AQUARIUM *a = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    void *buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG count, first, i;
    INTERVAL interval;
    NTSTATUS status;
    KIRQL irql;

    status = FrameBegin(&a->Frame, Irp);
    if (!NT_SUCCESS(status))
        return status;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_AQUARIUM_INTERVAL:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(INTERVAL))
            return FrameEnd(&a->Frame, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        interval = *(INTERVAL *)buffer;
        if (interval.Tank >= TANKS || interval.Ticks == 0 || interval.Ticks > 6000)
            return FrameEnd(&a->Frame, Irp, STATUS_INVALID_PARAMETER, 0);
        KeAcquireSpinLock(&a->Lock, &irql);
        a->Interval[interval.Tank] = interval.Ticks;
        a->Left[interval.Tank] = interval.Ticks;
        KeReleaseSpinLock(&a->Lock, irql);
        return FrameEnd(&a->Frame, Irp, STATUS_SUCCESS, 0);

    case IOCTL_AQUARIUM_DIARY:
        count = sp->Parameters.DeviceIoControl.OutputBufferLength / sizeof(FEEDING);
        if (count == 0)
            return FrameEnd(&a->Frame, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        ExAcquireFastMutex(&a->DiaryMutex);
        if (count > DIARY)
            count = DIARY;
        if (count > a->Written)
            count = a->Written;
        first = a->Written - count;
        for (i = 0; i < count; i++)
            ((FEEDING *)buffer)[i] = a->Diary[(first + i) % DIARY];
        ExReleaseFastMutex(&a->DiaryMutex);
        return FrameEnd(&a->Frame, Irp, STATUS_SUCCESS, (ULONG_PTR)count * sizeof(FEEDING));
    }
    return FrameEnd(&a->Frame, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    FRAME *f;
    AQUARIUM *a;
    NTSTATUS status;
    ULONG i;

    status = FrameAdd(Driver, Pdo, sizeof(AQUARIUM), &AquariumClass, DO_BUFFERED_IO, &f);
    if (!NT_SUCCESS(status))
        return status;
    a = (AQUARIUM *)f;
    f->Start = Start;
    f->Stop = Stop;
    KeInitializeTimer(&a->Timer);
    KeInitializeDpc(&a->Dpc, TickDpc, a);
    KeInitializeSpinLock(&a->Lock);
    KeInitializeEvent(&a->WorkIdle, NotificationEvent, TRUE);
    ExInitializeFastMutex(&a->DiaryMutex);
    for (i = 0; i < TANKS; i++)
        a->Interval[i] = 2 + i;
    f->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FrameDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DeviceControl;
    return STATUS_SUCCESS;
}

/*
 * beadle: a beadle makes his round once a second, or when he is called: he notes how many requests came since the last round, and tells all who wait for
 * him. He is a system thread.
 *
 * The bug: the unload waits for the event that the thread sets as it ends, not for the thread: what the thread still does behind it runs in a driver that is
 * unloaded.
 *
 * Device: none
 * Rule: unload-still-called, wild-call, pool-leak
 * Needs: nothing, schedule
 */
#include <ddk/wdm.h>
#define FRAME_RAFT
#include "../include/raft_or_hull.h"

#define IOCTL_BEADLE_CALL   CTL_CODE(FILE_DEVICE_UNKNOWN, 0xa60, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_BEADLE_AWAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0xa61, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_BEADLE_REPORT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xa62, METHOD_BUFFERED, FILE_READ_ACCESS)

#define LINES 64

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);

typedef struct ROUND {
    ULONG64 Time;
    ULONG Number;
    ULONG Requests;
} ROUND;

typedef struct BEAD {
    HANDLE Thread;
    KEVENT Stop;
    KEVENT Call;
    KEVENT Gone;
    ROUND *Diary;               /* LINES of them, the thread's own */
    PEN Doors;                  /* who waits for him */
    KSPIN_LOCK Lock;            /* for all below */
    ROUND Last;
    ULONG Requests;
} BEAD;

static VOID BeadRound(BEAD *x, ROUND *Diary)
{
    ROUND round;
    KIRQL irql;
    PIRP irp;

    KeAcquireSpinLock(&x->Lock, &irql);
    x->Last.Time = KeQueryInterruptTime();
    x->Last.Number++;
    x->Last.Requests = x->Requests;
    x->Requests = 0;
    round = x->Last;
    KeReleaseSpinLock(&x->Lock, irql);
    Diary[round.Number % LINES] = round;
    while ((irp = PenTake(&x->Doors, NULL)) != NULL) {
        *(ROUND *)irp->AssociatedIrp.SystemBuffer = round;
        RaftReply(irp, STATUS_SUCCESS, sizeof round);
    }
}

static VOID NTAPI BeadThread(PVOID Context)
{
    BEAD *x = Context;
    ROUND *diary = x->Diary;
    PVOID events[2] = {&x->Stop, &x->Call};
    LARGE_INTEGER second;

    second.QuadPart = -10000000LL;
    while (KeWaitForMultipleObjects(2, events, WaitAny, Executive, KernelMode, FALSE, &second, NULL) != STATUS_WAIT_0)
        BeadRound(x, diary);
    KeSetEvent(&x->Gone, IO_NO_INCREMENT, FALSE);
    ExFreePoolWithTag(diary, FRAME_TAG);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS BeadAsk(PVOID own, PIRP Irp, PIO_STACK_LOCATION Sl, ULONG_PTR *Info)
{
    BEAD *x = own;
    ROUND last;
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    x->Requests++;
    last = x->Last;
    KeReleaseSpinLock(&x->Lock, irql);
    if (Sl->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (Sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BEADLE_CALL:
        KeSetEvent(&x->Call, IO_NO_INCREMENT, FALSE);
        return STATUS_SUCCESS;
    case IOCTL_BEADLE_AWAIT:
        if (Sl->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ROUND))
            return STATUS_BUFFER_TOO_SMALL;
        IoMarkIrpPending(Irp);
        PenAdd(&x->Doors, Irp);
        return STATUS_PENDING;
    case IOCTL_BEADLE_REPORT:
        if (Sl->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ROUND))
            return STATUS_BUFFER_TOO_SMALL;
        *(ROUND *)Irp->AssociatedIrp.SystemBuffer = last;
        *Info = sizeof last;
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS BeadRig(PVOID own, PUNICODE_STRING RegistryPath)
{
    BEAD *x = own;
    OBJECT_ATTRIBUTES at;
    NTSTATUS status;

    (void)RegistryPath;
    KeInitializeEvent(&x->Stop, NotificationEvent, FALSE);
    KeInitializeEvent(&x->Call, SynchronizationEvent, FALSE);
    KeInitializeEvent(&x->Gone, NotificationEvent, FALSE);
    KeInitializeSpinLock(&x->Lock);
    PenMake(&x->Doors, RaftFinish, x);
    x->Diary = ExAllocatePoolWithTag(PagedPool, LINES * sizeof(ROUND), FRAME_TAG);
    if (!x->Diary)
        return STATUS_INSUFFICIENT_RESOURCES;
    InitializeObjectAttributes(&at, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    status = PsCreateSystemThread(&x->Thread, THREAD_ALL_ACCESS, &at, NULL, NULL, BeadThread, x);
    if (!NT_SUCCESS(status))
        ExFreePoolWithTag(x->Diary, FRAME_TAG);
    return status;
}

static VOID BeadUnrig(PVOID own)
{
    BEAD *x = own;

    KeSetEvent(&x->Stop, IO_NO_INCREMENT, FALSE);
#ifndef FIXED
    KeWaitForSingleObject(&x->Gone, Executive, KernelMode, FALSE, NULL);
#else
    ZwWaitForSingleObject(x->Thread, FALSE, NULL);
#endif
    ZwClose(x->Thread);
}

static VOID BeadLeave(PVOID own, PFILE_OBJECT File)
{
    PenDrain(&((BEAD *)own)->Doors, File, STATUS_CANCELLED);
}

static const RAFT_PLAN BeadPlan = {
    .Device = L"\\Device\\Beadle", .Link = L"\\DosDevices\\Beadle", .Room = sizeof(BEAD),
    .Rig = BeadRig, .Unrig = BeadUnrig, .Leave = BeadLeave, .Ask = BeadAsk,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    return RaftLaunch(Driver, RegistryPath, &BeadPlan);
}

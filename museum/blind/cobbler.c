/*
 * cobbler: measures with a board behind a PLX bridge. A request names a register and a number of samples; a thread of the driver takes
 * them one millisecond apart, and the request is answered with their sum, the least and the greatest.
 *
 * The bug: the event that ends the thread when the device is stopped is never cleared. After the next start the new thread ends at once,
 * and the first request waits for its samples for ever.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: stuck, deadlock, irp-never-completed
 * Needs: ioctl, device
 */
#include <ddk/wdm.h>
#include "../include/shell_frame.h"
#include "../include/shell_plx.h"

#define COBBLER_MEASURE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA41, METHOD_BUFFERED, FILE_READ_ACCESS)     /* in: SERIES; out: MEASURED */
#define COBBLER_TALLY   CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA42, METHOD_BUFFERED, FILE_ANY_ACCESS)      /* out: ULONG, series that were taken */

#define COBBLER_MOST    50

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);

typedef struct SERIES {
    ULONG Register;
    ULONG Samples;
} SERIES;

typedef struct MEASURED {
    ULONGLONG Sum;
    ULONG Least;
    ULONG Greatest;
} MEASURED;

/* On the stack of the thread that waits for Done. */
typedef struct JOB {
    LIST_ENTRY Link;
    SERIES Series;
    MEASURED Measured;
    KEVENT Done;
} JOB;

typedef struct COBBLER {
    SHELL Shell;
    WINDOW Board;
    PVOID Thread;
    KEVENT Stop;            /* a notification event: the thread shall end */
    KEVENT Work;            /* a synchronization event: there are jobs */
    KSPIN_LOCK Lock;
    LIST_ENTRY Jobs;
    volatile LONG Taken;
} COBBLER;

static const GUID CobblerInterface = { 0x4e6ba815, 0xc3f2, 0x4d90, { 0x97, 0x45, 0xa1, 0x5b, 0x08, 0x3e, 0xdc, 0x0b } };

static VOID CobblerMeasure(COBBLER *Cobbler, const SERIES *Series, MEASURED *Measured)
{
    ULONG i;

    Measured->Sum = 0;
    Measured->Least = 0xFFFFFFFF;
    Measured->Greatest = 0;
    for (i = 0; i < Series->Samples; i++) {
        ULONG value = RegRead(&Cobbler->Board, Series->Register);
        Measured->Sum += value;
        if (value < Measured->Least)
            Measured->Least = value;
        if (value > Measured->Greatest)
            Measured->Greatest = value;
        IronSleep(1);
    }
}

static JOB *CobblerNext(COBBLER *Cobbler)
{
    JOB *job = NULL;
    KIRQL irql;

    KeAcquireSpinLock(&Cobbler->Lock, &irql);
    if (!IsListEmpty(&Cobbler->Jobs))
        job = CONTAINING_RECORD(RemoveHeadList(&Cobbler->Jobs), JOB, Link);
    KeReleaseSpinLock(&Cobbler->Lock, irql);
    return job;
}

/* Jobs come only while the gate is open or someone is behind it, so there are none when Stop is set. */
static VOID NTAPI CobblerThread(PVOID Context)
{
    COBBLER *cobbler = Context;
    PVOID events[2] = { &cobbler->Stop, &cobbler->Work };
    JOB *job;

    while (KeWaitForMultipleObjects(2, events, WaitAny, Executive, KernelMode, FALSE, NULL, NULL) != STATUS_WAIT_0) {
        while ((job = CobblerNext(cobbler)) != NULL) {
            CobblerMeasure(cobbler, &job->Series, &job->Measured);
            InterlockedIncrement(&cobbler->Taken);
            KeSetEvent(&job->Done, IO_NO_INCREMENT, FALSE);
        }
    }
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS CobblerStartThread(COBBLER *Cobbler)
{
    OBJECT_ATTRIBUTES attributes;
    HANDLE handle;
    NTSTATUS status;

#ifdef FIXED
    KeClearEvent(&Cobbler->Stop);
#endif
    InitializeObjectAttributes(&attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    status = PsCreateSystemThread(&handle, THREAD_ALL_ACCESS, &attributes, NULL, NULL, CobblerThread, Cobbler);
    if (!NT_SUCCESS(status))
        return status;
    status = ObReferenceObjectByHandle(handle, SYNCHRONIZE, NULL, KernelMode, &Cobbler->Thread, NULL);
    if (!NT_SUCCESS(status)) {
        KeSetEvent(&Cobbler->Stop, IO_NO_INCREMENT, FALSE);
        ZwWaitForSingleObject(handle, FALSE, NULL);
    }
    ZwClose(handle);
    return status;
}

static VOID CobblerEndThread(COBBLER *Cobbler)
{
    KeSetEvent(&Cobbler->Stop, IO_NO_INCREMENT, FALSE);
    KeWaitForSingleObject(Cobbler->Thread, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(Cobbler->Thread);
    Cobbler->Thread = NULL;
}

static NTSTATUS CobblerFound(SHELL *Shell)
{
    COBBLER *cobbler = (COBBLER *)Shell;

    KeInitializeEvent(&cobbler->Stop, NotificationEvent, FALSE);
    KeInitializeEvent(&cobbler->Work, SynchronizationEvent, FALSE);
    KeInitializeSpinLock(&cobbler->Lock);
    InitializeListHead(&cobbler->Jobs);
    return STATUS_SUCCESS;
}

static NTSTATUS CobblerBegin(SHELL *Shell, PCM_RESOURCE_LIST Resources)
{
    COBBLER *cobbler = (COBBLER *)Shell;
    NTSTATUS status = WindowMap(&cobbler->Board, PlxBoard(Resources), sizeof(ULONG));

    if (!NT_SUCCESS(status))
        return status;
    status = CobblerStartThread(cobbler);
    if (!NT_SUCCESS(status))
        WindowUnmap(&cobbler->Board);
    return status;
}

static VOID CobblerEnd(SHELL *Shell, BOOLEAN Present)
{
    COBBLER *cobbler = (COBBLER *)Shell;

    UNREFERENCED_PARAMETER(Present);
    CobblerEndThread(cobbler);
    WindowUnmap(&cobbler->Board);
}

/* Has the thread do a job, and waits for it. */
static VOID CobblerHave(COBBLER *Cobbler, JOB *Job)
{
    KIRQL irql;

    KeInitializeEvent(&Job->Done, NotificationEvent, FALSE);
    KeAcquireSpinLock(&Cobbler->Lock, &irql);
    InsertTailList(&Cobbler->Jobs, &Job->Link);
    KeReleaseSpinLock(&Cobbler->Lock, irql);
    KeSetEvent(&Cobbler->Work, IO_NO_INCREMENT, FALSE);
    KeWaitForSingleObject(&Job->Done, Executive, KernelMode, FALSE, NULL);
}

static NTSTATUS CobblerServe(SHELL *Shell, PIRP Irp, PIO_STACK_LOCATION At)
{
    COBBLER *cobbler = (COBBLER *)Shell;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = At->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = At->Parameters.DeviceIoControl.OutputBufferLength;
    JOB job;

    if (At->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return Settle(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (At->Parameters.DeviceIoControl.IoControlCode) {
    case COBBLER_MEASURE:
        if (in < sizeof(SERIES) || out < sizeof(MEASURED))
            return Settle(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        job.Series = *(SERIES *)buffer;
        if (job.Series.Samples == 0 || job.Series.Samples > COBBLER_MOST || job.Series.Register % sizeof(ULONG) != 0 ||
            job.Series.Register > cobbler->Board.Bytes - sizeof(ULONG))
            return Settle(Irp, STATUS_INVALID_PARAMETER, 0);
        CobblerHave(cobbler, &job);
        *(MEASURED *)buffer = job.Measured;
        return Settle(Irp, STATUS_SUCCESS, sizeof(MEASURED));

    case COBBLER_TALLY:
        if (out < sizeof(ULONG))
            return Settle(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        *(ULONG *)buffer = (ULONG)InterlockedExchangeAdd(&cobbler->Taken, 0);
        return Settle(Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    return Settle(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static const SHELL_TRADE CobblerTrade = {
    .Size = sizeof(COBBLER), .Interface = &CobblerInterface,
    .Found = CobblerFound, .Begin = CobblerBegin, .End = CobblerEnd, .Serve = CobblerServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return ShellEntry(Driver, &CobblerTrade);
}

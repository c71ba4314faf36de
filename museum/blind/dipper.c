/*
 * dipper: stands for a slow medium: programs have a cell of it read or written, a thread does one job after the other, and each takes
 * 30 ms. A job is awaited for 50 ms; if it has not ended by then it has timed out for the program, and the job is given up.
 *
 * The bug: a job that is given up is freed even if the thread has it in hand already, which then stores its result and sets an event
 * in freed memory.
 *
 * Device: Root\DIPPER
 * Rule: use-after-free, write-after-free, double-free, freed-while-in-use
 * Needs: ioctl, schedule
 */
#include "../include/site_frame.h"

DEFINE_GUID(GUID_DIPPER, 0x5a0c71e1, 0x2b1f, 0x4c55, 0x91, 0x02, 0x3d, 0x77, 0x10, 0x4e, 0x5b, 0x0C);

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE handle, BOOLEAN alertable, PLARGE_INTEGER timeout);

#define DIPPER_TAG 'ppiD'

#define IOCTL_DIPPER_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0xAB1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_DIPPER_PUT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xAB2, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define CELLS      32u
#define WORK_MS    30
#define PATIENCE_MS 50

typedef struct CELL {
    ULONG Index;
    ULONG Value;
} CELL;

typedef struct JOB {
    LIST_ENTRY Link;
    KEVENT Done;
    BOOLEAN Queued;             /* under the lock, as References */
    BOOLEAN Write;
    LONG References;            /* of who waits, and of the thread that has it in hand */
    CELL Cell;
} JOB;

typedef struct DIPPER {
    SITE Site;
    KSPIN_LOCK Lock;
    LIST_ENTRY Jobs;
    KEVENT Some;                /* there are jobs, or it is over */
    BOOLEAN Over;               /* under the lock */
    PKTHREAD Thread;
    ULONG Cells[CELLS];         /* the thread's own */
} DIPPER;

static VOID DipperPut(DIPPER *dipper, JOB *job)
{
    BOOLEAN last;
    KIRQL irql;

    KeAcquireSpinLock(&dipper->Lock, &irql);
    last = --job->References == 0;
    KeReleaseSpinLock(&dipper->Lock, irql);
    if (last)
        ExFreePoolWithTag(job, DIPPER_TAG);
}

static JOB *DipperNext(DIPPER *dipper, BOOLEAN *over)
{
    JOB *job = NULL;
    KIRQL irql;

    KeAcquireSpinLock(&dipper->Lock, &irql);
    if (!IsListEmpty(&dipper->Jobs)) {
        job = CONTAINING_RECORD(RemoveHeadList(&dipper->Jobs), JOB, Link);
        job->Queued = FALSE;
        job->References += 1;
    }
    *over = dipper->Over;
    KeReleaseSpinLock(&dipper->Lock, irql);
    return job;
}

static VOID NTAPI DipperThread(PVOID context)
{
    DIPPER *dipper = context;
    LARGE_INTEGER work;
    BOOLEAN over;
    JOB *job;

    work.QuadPart = -10000LL * WORK_MS;
    for (;;) {
        job = DipperNext(dipper, &over);
        if (job == NULL) {
            if (over)
                break;
            KeWaitForSingleObject(&dipper->Some, Executive, KernelMode, FALSE, NULL);
            continue;
        }
        KeDelayExecutionThread(KernelMode, FALSE, &work);
        if (job->Write)
            dipper->Cells[job->Cell.Index] = job->Cell.Value;
        else
            job->Cell.Value = dipper->Cells[job->Cell.Index];
        KeSetEvent(&job->Done, IO_NO_INCREMENT, FALSE);
        DipperPut(dipper, job);
    }
    PsTerminateSystemThread(STATUS_SUCCESS);
}

/* At PASSIVE_LEVEL, for a while. */
static NTSTATUS DipperWork(DIPPER *dipper, BOOLEAN write, CELL *cell)
{
    JOB *job = ExAllocatePoolWithTag(NonPagedPool, sizeof(JOB), DIPPER_TAG);
    LARGE_INTEGER patience;
    NTSTATUS status;
    KIRQL irql;

    if (job == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    KeInitializeEvent(&job->Done, NotificationEvent, FALSE);
    job->Queued = TRUE;
    job->Write = write;
    job->References = 1;
    job->Cell = *cell;
    KeAcquireSpinLock(&dipper->Lock, &irql);
    InsertTailList(&dipper->Jobs, &job->Link);
    KeReleaseSpinLock(&dipper->Lock, irql);
    KeSetEvent(&dipper->Some, IO_NO_INCREMENT, FALSE);
    patience.QuadPart = -10000LL * PATIENCE_MS;
    status = KeWaitForSingleObject(&job->Done, Executive, KernelMode, FALSE, &patience);
    if (status == STATUS_TIMEOUT) {
        KeAcquireSpinLock(&dipper->Lock, &irql);
        if (job->Queued)
            RemoveEntryList(&job->Link);
        KeReleaseSpinLock(&dipper->Lock, irql);
#ifndef FIXED
        ExFreePoolWithTag(job, DIPPER_TAG);
#else
        DipperPut(dipper, job);
#endif
        return STATUS_IO_TIMEOUT;
    }
    cell->Value = job->Cell.Value;
    DipperPut(dipper, job);
    return STATUS_SUCCESS;
}

static NTSTATUS DipperServe(SITE *site, ASK *ask)
{
    BOOLEAN write;
    NTSTATUS status;
    CELL cell;

    if (ask->Major != IRP_MJ_DEVICE_CONTROL)
        return Finish(site, ask->Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (ask->Code) {
    case IOCTL_DIPPER_GET:
        if (ask->In < sizeof(ULONG) || ask->Out < sizeof(CELL))
            return Finish(site, ask->Irp, STATUS_BUFFER_TOO_SMALL, 0);
        cell.Index = *(PULONG)ask->Buffer;
        cell.Value = 0;
        write = FALSE;
        break;
    case IOCTL_DIPPER_PUT:
        if (ask->In < sizeof(CELL))
            return Finish(site, ask->Irp, STATUS_BUFFER_TOO_SMALL, 0);
        cell = *(CELL *)ask->Buffer;
        write = TRUE;
        break;
    default:
        return Finish(site, ask->Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (cell.Index >= CELLS)
        return Finish(site, ask->Irp, STATUS_INVALID_PARAMETER, 0);
    status = DipperWork((DIPPER *)site, write, &cell);
    if (!NT_SUCCESS(status) || write)
        return Finish(site, ask->Irp, status, 0);
    *(CELL *)ask->Buffer = cell;
    return Finish(site, ask->Irp, STATUS_SUCCESS, sizeof(CELL));
}

static VOID DipperSayOver(DIPPER *dipper)
{
    KIRQL irql;

    KeAcquireSpinLock(&dipper->Lock, &irql);
    dipper->Over = TRUE;
    KeReleaseSpinLock(&dipper->Lock, irql);
    KeSetEvent(&dipper->Some, IO_NO_INCREMENT, FALSE);
}

static NTSTATUS DipperBegin(SITE *site, PCM_RESOURCE_LIST resources)
{
    DIPPER *dipper = (DIPPER *)site;
    OBJECT_ATTRIBUTES attributes;
    HANDLE handle;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(resources);
    dipper->Over = FALSE;
    KeClearEvent(&dipper->Some);
    InitializeObjectAttributes(&attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    status = PsCreateSystemThread(&handle, THREAD_ALL_ACCESS, &attributes, NULL, NULL, DipperThread, dipper);
    if (!NT_SUCCESS(status))
        return status;
    status = ObReferenceObjectByHandle(handle, SYNCHRONIZE, NULL, KernelMode, (PVOID *)&dipper->Thread, NULL);
    if (!NT_SUCCESS(status)) {
        DipperSayOver(dipper);
        ZwWaitForSingleObject(handle, FALSE, NULL);
    }
    ZwClose(handle);
    return status;
}

static VOID DipperEnd(SITE *site, BOOLEAN live)
{
    DIPPER *dipper = (DIPPER *)site;

    UNREFERENCED_PARAMETER(live);
    DipperSayOver(dipper);
    KeWaitForSingleObject(dipper->Thread, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(dipper->Thread);
    dipper->Thread = NULL;
}

static NTSTATUS DipperBorn(SITE *site)
{
    DIPPER *dipper = (DIPPER *)site;

    KeInitializeSpinLock(&dipper->Lock);
    InitializeListHead(&dipper->Jobs);
    KeInitializeEvent(&dipper->Some, SynchronizationEvent, FALSE);
    return STATUS_SUCCESS;
}

static const SCRIPT Script = {
    .Size = sizeof(DIPPER),
    .Interface = &GUID_DIPPER,
    .Born = DipperBorn,
    .Begin = DipperBegin,
    .End = DipperEnd,
    .Serve = DipperServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return PnpEntry(driver, &Script);
}

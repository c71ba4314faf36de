/*
 * plxfrost: slow scans of the board's first register in local space 0, for a chart: a program starts a scan of so many samples, a
 * work item takes one each two milliseconds. The program may end the scan early, and fetches the samples there are by a read.
 *
 * The bug: who ends a scan waits for the work item with the mutex in hand that the work item takes for each sample and for
 * its end; the two wait for each other.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: deadlock, stuck, irp-never-completed
 * Needs: ioctl
 */
#include <initguid.h>
#include <ddk/wdm.h>
#include "../include/gated_frame.h"
#include "../include/gated_plx.h"

#define FROST_LEAST 4
#define FROST_SAMPLES 512
#define FROST_PAUSE 2

#define IOCTL_FROST_SCAN CTL_CODE(FILE_DEVICE_UNKNOWN, 0x900, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_FROST_END CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_FROST_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x902, METHOD_BUFFERED, FILE_ANY_ACCESS)

DEFINE_GUID(FROST_CLASS, 0x6b1d0a31, 0x51c4, 0x4a60, 0x9a, 0x0e, 0x21, 0x5d, 0x0c, 0x77, 0x14, 0x15);

typedef struct _FROST_STATE {
    ULONG Taken;
    ULONG Scanning;
} FROST_STATE, *PFROST_STATE;

typedef struct _FROST {
    BOARD Board;
    PLX Plx;
    PIO_WORKITEM Item;
    KEVENT Ended;               /* no scan is under way */
    FAST_MUTEX Mutex;
    BOOLEAN Scanning;
    BOOLEAN End;
    ULONG Wanted;
    ULONG Taken;
    ULONG Samples[FROST_SAMPLES];
} FROST, *PFROST;

/* It holds the device (Life) until it is over, and the board does not go to sleep without having it end. */
static VOID NTAPI FrostScan(PDEVICE_OBJECT DeviceObject, PVOID Context)
{
    PFROST f = Context;
    BOOLEAN over;

    UNREFERENCED_PARAMETER(DeviceObject);
    for (;;) {
        ExAcquireFastMutex(&f->Mutex);
        over = f->End || f->Taken == f->Wanted;
        if (over) {
            f->Scanning = FALSE;
            KeSetEvent(&f->Ended, IO_NO_INCREMENT, FALSE);
        } else
            f->Samples[f->Taken++] = PlxPeek(&f->Plx, 0);
        ExReleaseFastMutex(&f->Mutex);
        if (over)
            break;
        Nap(FROST_PAUSE);
    }
    GateLeave(&f->Board.Life);
}

/* Behind this call no scan is under way, if no one starts a new one. */
static VOID FrostEndScan(PFROST f)
{
    BOOLEAN scanning;

    ExAcquireFastMutex(&f->Mutex);
    scanning = f->Scanning;
    if (scanning)
        f->End = TRUE;
#ifndef FIXED
    if (scanning)
        KeWaitForSingleObject(&f->Ended, Executive, KernelMode, FALSE, NULL);
    ExReleaseFastMutex(&f->Mutex);
#else
    ExReleaseFastMutex(&f->Mutex);
    if (scanning)
        KeWaitForSingleObject(&f->Ended, Executive, KernelMode, FALSE, NULL);
#endif
}

static NTSTATUS FrostBeginScan(PFROST f, ULONG Wanted)
{
    NTSTATUS status = STATUS_SUCCESS;

    if (Wanted == 0 || Wanted > FROST_SAMPLES)
        return STATUS_INVALID_PARAMETER;
    if (!GateEnter(&f->Board.Run))
        return STATUS_DEVICE_NOT_READY;
    ExAcquireFastMutex(&f->Mutex);
    if (f->Scanning)
        status = STATUS_DEVICE_BUSY;
    else {
        f->Scanning = TRUE;
        f->End = FALSE;
        f->Wanted = Wanted;
        f->Taken = 0;
        KeClearEvent(&f->Ended);
        GateMore(&f->Board.Life);
        IoQueueWorkItem(f->Item, FrostScan, DelayedWorkQueue, f);
    }
    ExReleaseFastMutex(&f->Mutex);
    GateLeave(&f->Board.Run);
    return status;
}

static NTSTATUS FrostIo(PBOARD Board, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PFROST f = CONTAINING_RECORD(Board, FROST, Board);
    PFROST_STATE state = Irp->AssociatedIrp.SystemBuffer;
    ULONG length;

    if (Stack->MajorFunction == IRP_MJ_READ) {
        length = Stack->Parameters.Read.Length;
        ExAcquireFastMutex(&f->Mutex);
        if (length > f->Taken * sizeof(ULONG))
            length = f->Taken * sizeof(ULONG);
        if (length != 0)
            RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, f->Samples, length);
        ExReleaseFastMutex(&f->Mutex);
        return BoardFinish(Board, Irp, STATUS_SUCCESS, length);
    }
    if (Stack->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return BoardFinish(Board, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_FROST_SCAN:
        if (Stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return BoardFinish(Board, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return BoardFinish(Board, Irp, FrostBeginScan(f, *(PULONG)Irp->AssociatedIrp.SystemBuffer), 0);

    case IOCTL_FROST_END:
        FrostEndScan(f);
        return BoardFinish(Board, Irp, STATUS_SUCCESS, 0);

    case IOCTL_FROST_STATE:
        if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*state))
            return BoardFinish(Board, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        ExAcquireFastMutex(&f->Mutex);
        state->Taken = f->Taken;
        state->Scanning = f->Scanning;
        ExReleaseFastMutex(&f->Mutex);
        return BoardFinish(Board, Irp, STATUS_SUCCESS, sizeof(*state));
    }
    return BoardFinish(Board, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID FrostWake(PBOARD Board)
{
    PlxWrite(&CONTAINING_RECORD(Board, FROST, Board)->Plx, PLX_INTCSR, 0);
}

/* No one can start a scan now. */
static VOID FrostQuiet(PBOARD Board, BOOLEAN Present)
{
    UNREFERENCED_PARAMETER(Present);
    FrostEndScan(CONTAINING_RECORD(Board, FROST, Board));
}

static VOID FrostDrain(PBOARD Board)
{
    UNREFERENCED_PARAMETER(Board);
}

static NTSTATUS FrostStart(PBOARD Board, PCM_PARTIAL_RESOURCE_LIST List)
{
    return PlxMap(&CONTAINING_RECORD(Board, FROST, Board)->Plx, List, FROST_LEAST);
}

static VOID FrostStop(PBOARD Board)
{
    PlxUnmap(&CONTAINING_RECORD(Board, FROST, Board)->Plx);
}

static NTSTATUS FrostBegin(PBOARD Board)
{
    PFROST f = CONTAINING_RECORD(Board, FROST, Board);

    ExInitializeFastMutex(&f->Mutex);
    KeInitializeEvent(&f->Ended, NotificationEvent, TRUE);
    f->Item = IoAllocateWorkItem(Board->Self);
    return f->Item != NULL ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static VOID FrostDispose(PBOARD Board)
{
    IoFreeWorkItem(CONTAINING_RECORD(Board, FROST, Board)->Item);
}

static const BOARD_KIND FrostKind = {
    .Bytes = sizeof(FROST), .Flags = DO_BUFFERED_IO, .Class = &FROST_CLASS,
    .Begin = FrostBegin, .End = FrostDispose, .Start = FrostStart, .Stop = FrostStop, .Wake = FrostWake, .Quiet = FrostQuiet,
    .Drain = FrostDrain, .Io = FrostIo,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return BoardDriver(DriverObject, &FrostKind);
}

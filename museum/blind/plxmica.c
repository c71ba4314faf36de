/*
 * plxmica: counts the edges of the board's line LINTi1 for each handle that is open: a program asks how many there were since it last
 * asked, in a unit of its choice, or waits for the next.
 *
 * The bug: what a handle holds is freed in IRP_MJ_CLEANUP, when the last handle is closed; a request of another thread that came
 * by this handle may still be under way then, and IRP_MJ_CLOSE is what comes behind the last of them.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: use-after-free, write-after-free
 * Needs: ioctl, cancel, schedule
 */
#include <initguid.h>
#include <ddk/wdm.h>
#include "../include/gated_frame.h"
#include "../include/gated_plx.h"

#define MICA_TAG 'aciM'
#define IOCTL_MICA_EDGES CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8D0, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_MICA_UNIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8D1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_MICA_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8D2, METHOD_BUFFERED, FILE_ANY_ACCESS)

DEFINE_GUID(MICA_CLASS, 0x6b1d0a31, 0x51c4, 0x4a60, 0x9a, 0x0e, 0x21, 0x5d, 0x0c, 0x77, 0x14, 0x12);

typedef struct _MICA {
    BOARD Board;
    PLX Plx;
    IRPQ Waiting;
    KSPIN_LOCK Lock;
    LIST_ENTRY Handles;
} MICA, *PMICA;

typedef struct _MICA_HANDLE {
    LIST_ENTRY Link;
    BOOLEAN Closing;
    ULONG Unit;
    ULONG Edges;
} MICA_HANDLE, *PMICA_HANDLE;

static VOID NTAPI MicaDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PMICA m = Context;
    PLIST_ENTRY l;
    ULONG edges;
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    edges = PlxFetch(&m->Plx, NULL);
    if (edges == 0)
        return;
    KeAcquireSpinLockAtDpcLevel(&m->Lock);
    for (l = m->Handles.Flink; l != &m->Handles; l = l->Flink)
        CONTAINING_RECORD(l, MICA_HANDLE, Link)->Edges += edges;
    KeReleaseSpinLockFromDpcLevel(&m->Lock);
    while ((irp = IrpqTake(&m->Waiting)) != NULL)
        BoardFinish(&m->Board, irp, STATUS_SUCCESS, 0);
}

static NTSTATUS MicaIo(PBOARD Board, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PMICA m = CONTAINING_RECORD(Board, MICA, Board);
    PULONG value = Irp->AssociatedIrp.SystemBuffer;
    PMICA_HANDLE h;
    NTSTATUS status;
    ULONG in, out;
    KIRQL irql;

    if (Stack->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return BoardFinish(Board, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    h = Stack->FileObject->FsContext;
    in = Stack->Parameters.DeviceIoControl.InputBufferLength;
    out = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_MICA_EDGES:
        if (out < sizeof(ULONG))
            return BoardFinish(Board, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&m->Lock, &irql);
        *value = h->Edges / h->Unit;
        h->Edges %= h->Unit;
        KeReleaseSpinLock(&m->Lock, irql);
        return BoardFinish(Board, Irp, STATUS_SUCCESS, sizeof(ULONG));

    case IOCTL_MICA_UNIT:
        if (in < sizeof(ULONG))
            return BoardFinish(Board, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (*value == 0)
            return BoardFinish(Board, Irp, STATUS_INVALID_PARAMETER, 0);
        KeAcquireSpinLock(&m->Lock, &irql);
        h->Unit = *value;
        KeReleaseSpinLock(&m->Lock, irql);
        return BoardFinish(Board, Irp, STATUS_SUCCESS, 0);

    case IOCTL_MICA_WAIT:
        KeAcquireSpinLock(&m->Lock, &irql);
        if (h->Closing) {
            KeReleaseSpinLock(&m->Lock, irql);
            return BoardFinish(Board, Irp, STATUS_CANCELLED, 0);
        }
        status = IrpqPut(&m->Waiting, Irp);
        KeReleaseSpinLock(&m->Lock, irql);
        if (status != STATUS_PENDING)
            BoardFinish(Board, Irp, status, 0);
        return STATUS_PENDING;
    }
    return BoardFinish(Board, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS MicaOpen(PBOARD Board, PFILE_OBJECT File)
{
    PMICA m = CONTAINING_RECORD(Board, MICA, Board);
    PMICA_HANDLE h = ExAllocatePoolWithTag(POOL_DATA, sizeof(*h), MICA_TAG);
    KIRQL irql;

    if (h == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(h, sizeof(*h));
    h->Unit = 1;
    File->FsContext = h;
    KeAcquireSpinLock(&m->Lock, &irql);
    InsertTailList(&m->Handles, &h->Link);
    KeReleaseSpinLock(&m->Lock, irql);
    return STATUS_SUCCESS;
}

static VOID MicaCleanup(PBOARD Board, PFILE_OBJECT File)
{
    PMICA m = CONTAINING_RECORD(Board, MICA, Board);
    PMICA_HANDLE h = File->FsContext;
    KIRQL irql;

    KeAcquireSpinLock(&m->Lock, &irql);
    h->Closing = TRUE;
    RemoveEntryList(&h->Link);
    KeReleaseSpinLock(&m->Lock, irql);
    IrpqFlushFile(&m->Waiting, File);
#ifndef FIXED
    ExFreePoolWithTag(h, MICA_TAG);
#endif
}

static VOID MicaClose(PBOARD Board, PFILE_OBJECT File)
{
    UNREFERENCED_PARAMETER(Board);
#ifdef FIXED
    ExFreePoolWithTag(File->FsContext, MICA_TAG);
#else
    UNREFERENCED_PARAMETER(File);
#endif
}

static VOID MicaWake(PBOARD Board)
{
    PlxLive(&CONTAINING_RECORD(Board, MICA, Board)->Plx, TRUE, TRUE, 0);
}

/* Who waits goes on waiting. */
static VOID MicaQuiet(PBOARD Board, BOOLEAN Present)
{
    PlxLive(&CONTAINING_RECORD(Board, MICA, Board)->Plx, FALSE, Present, 0);
    KeFlushQueuedDpcs();
}

static VOID MicaDrain(PBOARD Board)
{
    IrpqShut(&CONTAINING_RECORD(Board, MICA, Board)->Waiting, STATUS_DELETE_PENDING);
}

static NTSTATUS MicaStart(PBOARD Board, PCM_PARTIAL_RESOURCE_LIST List)
{
    return PlxGain(&CONTAINING_RECORD(Board, MICA, Board)->Plx, List, 0);
}

static VOID MicaStop(PBOARD Board)
{
    PlxLose(&CONTAINING_RECORD(Board, MICA, Board)->Plx);
}

static NTSTATUS MicaBegin(PBOARD Board)
{
    PMICA m = CONTAINING_RECORD(Board, MICA, Board);

    KeInitializeSpinLock(&m->Lock);
    InitializeListHead(&m->Handles);
    KeInitializeDpc(&m->Plx.Dpc, MicaDpc, m);
    IrpqBuild(&m->Waiting, BoardRetire, Board);
    return STATUS_SUCCESS;
}

static VOID MicaEnd(PBOARD Board)
{
    UNREFERENCED_PARAMETER(Board);
}

static const BOARD_KIND MicaKind = {
    .Bytes = sizeof(MICA), .Flags = DO_BUFFERED_IO, .Class = &MICA_CLASS,
    .Begin = MicaBegin, .End = MicaEnd, .Start = MicaStart, .Stop = MicaStop, .Wake = MicaWake, .Quiet = MicaQuiet,
    .Drain = MicaDrain, .Io = MicaIo, .Open = MicaOpen, .Cleanup = MicaCleanup, .Close = MicaClose,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return BoardDriver(DriverObject, &MicaKind);
}

/*
 * edurook: asks the card whether it is alive (it answers with the complement of what it is given) and keeps a history of questions
 * and answers. A program chooses how long the history is, and reads it.
 *
 * The bug: a new length frees the old history before it allocates the new one; when there is no memory the request fails, but the device
 * goes on with the freed one, and frees it again at removal.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: use-after-free, double-free, write-after-free, bad-free
 * Needs: ioctl, failure
 */
#include <initguid.h>
#include <ddk/wdm.h>
#include "../include/gated_frame.h"
#include "../include/gated_edu.h"

#define ROOK_TAG 'kooR'
#define ROOK_USUAL 64
#define ROOK_LONGEST 4096

#define IOCTL_ROOK_ASK CTL_CODE(FILE_DEVICE_UNKNOWN, 0x880, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ROOK_LENGTH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x881, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ROOK_HISTORY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x882, METHOD_BUFFERED, FILE_ANY_ACCESS)

DEFINE_GUID(ROOK_CLASS, 0x6b1d0a31, 0x51c4, 0x4a60, 0x9a, 0x0e, 0x21, 0x5d, 0x0c, 0x77, 0x14, 0x03);

typedef struct _ROOK_ANSWER {
    ULONG Asked;
    ULONG Answered;
} ROOK_ANSWER, *PROOK_ANSWER;

typedef struct _ROOK {
    BOARD Board;
    EDU Edu;
    FAST_MUTEX Mutex;           /* of the card and the history */
    PROOK_ANSWER History;
    ULONG Length;
    ULONG Kept;
    ULONG Next;
} ROOK, *PROOK;

/* The new history is empty; with the mutex. */
static NTSTATUS RookSetLength(PROOK r, ULONG Length)
{
    PROOK_ANSWER history;

#ifndef FIXED
    ExFreePoolWithTag(r->History, ROOK_TAG);
    history = ExAllocatePoolWithTag(POOL_DATA, Length * sizeof(ROOK_ANSWER), ROOK_TAG);
    if (history == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
#else
    history = ExAllocatePoolWithTag(POOL_DATA, Length * sizeof(ROOK_ANSWER), ROOK_TAG);
    if (history == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    ExFreePoolWithTag(r->History, ROOK_TAG);
#endif
    r->History = history;
    r->Length = Length;
    r->Kept = r->Next = 0;
    return STATUS_SUCCESS;
}

static ULONG RookAsk(PROOK r, ULONG Question)
{
    PROOK_ANSWER a;
    ULONG answer;

    EduWrite(&r->Edu, EDU_ALIVE, Question);
    answer = EduRead(&r->Edu, EDU_ALIVE);
    a = &r->History[r->Next];
    a->Asked = Question;
    a->Answered = answer;
    r->Next = (r->Next + 1) % r->Length;
    if (r->Kept < r->Length)
        r->Kept++;
    return answer;
}

/* The latest comes first. */
static ULONG RookHistory(PROOK r, PROOK_ANSWER To, ULONG Room)
{
    ULONG i;

    for (i = 0; i < Room && i < r->Kept; i++)
        To[i] = r->History[(r->Next + r->Length - 1 - i) % r->Length];
    return i;
}

static NTSTATUS RookIo(PBOARD Board, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PROOK r = CONTAINING_RECORD(Board, ROOK, Board);
    PULONG value = Irp->AssociatedIrp.SystemBuffer;
    ULONG in, out, given;
    NTSTATUS status;

    if (Stack->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return BoardFinish(Board, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    in = Stack->Parameters.DeviceIoControl.InputBufferLength;
    out = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ROOK_ASK:
        if (in < sizeof(ULONG) || out < sizeof(ULONG))
            return BoardFinish(Board, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (!GateEnter(&Board->Run))
            return BoardFinish(Board, Irp, STATUS_DEVICE_NOT_READY, 0);
        ExAcquireFastMutex(&r->Mutex);
        *value = RookAsk(r, *value);
        ExReleaseFastMutex(&r->Mutex);
        GateLeave(&Board->Run);
        return BoardFinish(Board, Irp, STATUS_SUCCESS, sizeof(ULONG));

    case IOCTL_ROOK_LENGTH:
        if (in < sizeof(ULONG))
            return BoardFinish(Board, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (*value == 0 || *value > ROOK_LONGEST)
            return BoardFinish(Board, Irp, STATUS_INVALID_PARAMETER, 0);
        ExAcquireFastMutex(&r->Mutex);
        status = RookSetLength(r, *value);
        ExReleaseFastMutex(&r->Mutex);
        return BoardFinish(Board, Irp, status, 0);

    case IOCTL_ROOK_HISTORY:
        ExAcquireFastMutex(&r->Mutex);
        given = RookHistory(r, (PROOK_ANSWER)value, out / sizeof(ROOK_ANSWER));
        ExReleaseFastMutex(&r->Mutex);
        return BoardFinish(Board, Irp, STATUS_SUCCESS, given * sizeof(ROOK_ANSWER));
    }
    return BoardFinish(Board, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID RookWake(PBOARD Board)
{
    PROOK r = CONTAINING_RECORD(Board, ROOK, Board);

    EduHush(&r->Edu);
}

/* There is nothing that the card does by itself. */
static VOID RookQuiet(PBOARD Board, BOOLEAN Present)
{
    UNREFERENCED_PARAMETER(Board);
    UNREFERENCED_PARAMETER(Present);
}

static VOID RookDrain(PBOARD Board)
{
    UNREFERENCED_PARAMETER(Board);
}

static NTSTATUS RookStart(PBOARD Board, PCM_PARTIAL_RESOURCE_LIST List)
{
    return EduMap(&CONTAINING_RECORD(Board, ROOK, Board)->Edu, List);
}

static VOID RookStop(PBOARD Board)
{
    EduUnmap(&CONTAINING_RECORD(Board, ROOK, Board)->Edu);
}

static NTSTATUS RookBegin(PBOARD Board)
{
    PROOK r = CONTAINING_RECORD(Board, ROOK, Board);

    ExInitializeFastMutex(&r->Mutex);
    r->Length = ROOK_USUAL;
    r->History = ExAllocatePoolWithTag(POOL_DATA, ROOK_USUAL * sizeof(ROOK_ANSWER), ROOK_TAG);
    return r->History != NULL ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static VOID RookEnd(PBOARD Board)
{
    ExFreePoolWithTag(CONTAINING_RECORD(Board, ROOK, Board)->History, ROOK_TAG);
}

static const BOARD_KIND RookKind = {
    .Bytes = sizeof(ROOK), .Flags = DO_BUFFERED_IO, .Class = &ROOK_CLASS,
    .Begin = RookBegin, .End = RookEnd, .Start = RookStart, .Stop = RookStop, .Wake = RookWake, .Quiet = RookQuiet,
    .Drain = RookDrain, .Io = RookIo,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return BoardDriver(DriverObject, &RookKind);
}

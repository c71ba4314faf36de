/*
 * A driver that keeps the command lines of the processes that begin, 32 at most, until they are read: each read takes the oldest.
 *
 * The bug: the size of a record, the command line behind a header, is computed in 16 bits, in which the longest command line, 65532 bytes, and the header come to
 * less than the header has. It shows when a process begins with such a command line.
 *
 * Device: none
 * Rule: pool-overrun, wild-write
 * Needs: nothing
 * Compiler: clang integritycheck
 */
#define DEVICE_NAME L"\\Device\\CommandLines"
#define LINK_NAME L"\\DosDevices\\CommandLines"
#include "../include/try.h"
#include "../include/legacy.h"
#include <ddk/ntddk.h>

#define LINES_TAG 'dmmC'
#define MOST 32

/* The command line follows. */
typedef struct _LINE {
    LIST_ENTRY Link;
    HANDLE Process;
    ULONG64 Bytes; /* of the command line */
} LINE, *PLINE;

typedef struct _DEVICE {
    FAST_MUTEX Mutex;
    LIST_ENTRY Lines; /* the newest at the end */
    ULONG Count;
} DEVICE, *PDEVICE;

static PDEVICE Own;

static PLINE NewLine(HANDLE Process, PCUNICODE_STRING Text)
{
#ifdef FIXED
    SIZE_T Size = sizeof(LINE) + Text->Length;
#else
    USHORT Size = (USHORT)(sizeof(LINE) + Text->Length);
#endif
    PLINE Line = ExAllocatePoolWithTag(PagedPool, Size, LINES_TAG);

    if (Line != NULL) {
        Line->Process = Process;
        Line->Bytes = Text->Length;
        RtlCopyMemory(Line + 1, Text->Buffer, Text->Length);
    }
    return Line;
}

/* At PASSIVE_LEVEL, in a critical region. */
static VOID NTAPI ProcessChanged(PEPROCESS Process, HANDLE Id, PPS_CREATE_NOTIFY_INFO Info)
{
    PLINE Line;

    UNREFERENCED_PARAMETER(Process);
    if (Info == NULL || Info->CommandLine == NULL || Info->CommandLine->Length == 0) {
        return;
    }
    Line = NewLine(Id, Info->CommandLine);
    if (Line == NULL) {
        return; /* this one is not kept */
    }
    ExAcquireFastMutex(&Own->Mutex);
    if (Own->Count < MOST) {
        Own->Count++;
        InsertTailList(&Own->Lines, &Line->Link);
        Line = NULL;
    }
    ExReleaseFastMutex(&Own->Mutex);
    if (Line != NULL) {
        ExFreePoolWithTag(Line, LINES_TAG); /* they are not read */
    }
}

/* Takes the oldest one, if there is room for it. */
static NTSTATUS Take(ULONG Room, PLINE *Taken)
{
    NTSTATUS Status = STATUS_NO_MORE_ENTRIES;
    PLINE Line;

    ExAcquireFastMutex(&Own->Mutex);
    if (!IsListEmpty(&Own->Lines)) {
        Line = CONTAINING_RECORD(Own->Lines.Flink, LINE, Link);
        Status = STATUS_BUFFER_TOO_SMALL;
        if (Line->Bytes <= Room) {
            RemoveEntryList(&Line->Link);
            Own->Count--;
            *Taken = Line;
            Status = STATUS_SUCCESS;
        }
    }
    ExReleaseFastMutex(&Own->Mutex);
    return Status;
}

static NTSTATUS NTAPI DispatchRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    PLINE Line;
    ULONG64 Bytes;
    NTSTATUS Status = Take(IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length, &Line);

    UNREFERENCED_PARAMETER(Device);
    if (!NT_SUCCESS(Status)) {
        return Complete(Irp, Status, 0);
    }
    Bytes = Line->Bytes;
    RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, Line + 1, Bytes);
    ExFreePoolWithTag(Line, LINES_TAG);
    return Complete(Irp, STATUS_SUCCESS, Bytes);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    PsSetCreateProcessNotifyRoutineEx(ProcessChanged, TRUE); /* waits for those that run */
    while (!IsListEmpty(&Own->Lines)) {
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&Own->Lines), LINE, Link), LINES_TAG);
    }
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Own = Device->DeviceExtension;
    ExInitializeFastMutex(&Own->Mutex);
    InitializeListHead(&Own->Lines);
    Status = PsSetCreateProcessNotifyRoutineEx(ProcessChanged, FALSE);
    if (!NT_SUCCESS(Status)) {
        LegacyDelete(Device);
        return Status;
    }
    Driver->MajorFunction[IRP_MJ_READ] = DispatchRead;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}

/*
 * hassock: a pigeon-hole between programs, as a device without hardware. Who writes leaves a message of up to 200 bytes, which
 * replaces the one before; who reads gets the next message that is left, together with all others that wait.
 *
 * The bug: the driver registers its interface each time that the device is started, and with the second start the name that it was
 * given at the first is overwritten and never freed.
 *
 * Device: Root\HASSOCK
 * Rule: pool-leak
 * Needs: nothing
 */
#include <initguid.h>
#include <ddk/wdm.h>
#include "../include/gated_frame.h"

#define HASSOCK_MESSAGE 200
#define IOCTL_HASSOCK_LAST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x910, METHOD_BUFFERED, FILE_READ_DATA)

DEFINE_GUID(HASSOCK_CLASS, 0x6b1d0a31, 0x51c4, 0x4a60, 0x9a, 0x0e, 0x21, 0x5d, 0x0c, 0x77, 0x14, 0x21);

typedef struct _HASSOCK {
    BOARD Board;
    UNICODE_STRING Name;        /* of the interface */
    IRPQ Readers;
    FAST_MUTEX Mutex;
    ULONG Length;
    UCHAR Message[HASSOCK_MESSAGE];
} HASSOCK, *PHASSOCK;

/* With the mutex: all who wait by now get a copy of the message, and are gathered to be informed when the mutex is free. */
static VOID HassockGather(PHASSOCK h, PLIST_ENTRY Informed)
{
    ULONG length;
    PIRP irp;

    InitializeListHead(Informed);
    while ((irp = IrpqTake(&h->Readers)) != NULL) {
        length = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length;
        if (length > h->Length)
            length = h->Length;
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, h->Message, length);
        irp->IoStatus.Information = length;
        InsertTailList(Informed, &irp->Tail.Overlay.ListEntry);
    }
}

static VOID HassockTell(PHASSOCK h, PLIST_ENTRY Informed)
{
    PIRP irp;

    while (!IsListEmpty(Informed)) {
        irp = CONTAINING_RECORD(RemoveHeadList(Informed), IRP, Tail.Overlay.ListEntry);
        BoardFinish(&h->Board, irp, STATUS_SUCCESS, irp->IoStatus.Information);
    }
}

static NTSTATUS HassockIo(PBOARD Board, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PHASSOCK h = CONTAINING_RECORD(Board, HASSOCK, Board);
    LIST_ENTRY informed;
    ULONG length;

    switch (Stack->MajorFunction) {
    case IRP_MJ_READ:
        if (Stack->Parameters.Read.Length == 0)
            return BoardFinish(Board, Irp, STATUS_SUCCESS, 0);
        return BoardPend(Board, &h->Readers, Irp);

    case IRP_MJ_WRITE:
        length = Stack->Parameters.Write.Length;
        if (length == 0 || length > HASSOCK_MESSAGE)
            return BoardFinish(Board, Irp, STATUS_INVALID_PARAMETER, 0);
        ExAcquireFastMutex(&h->Mutex);
        RtlCopyMemory(h->Message, Irp->AssociatedIrp.SystemBuffer, length);
        h->Length = length;
        HassockGather(h, &informed);
        ExReleaseFastMutex(&h->Mutex);
        HassockTell(h, &informed);
        return BoardFinish(Board, Irp, STATUS_SUCCESS, length);

    case IRP_MJ_DEVICE_CONTROL:
        if (Stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_HASSOCK_LAST)
            break;
        length = Stack->Parameters.DeviceIoControl.OutputBufferLength;
        ExAcquireFastMutex(&h->Mutex);
        if (length > h->Length)
            length = h->Length;
        if (length != 0)
            RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, h->Message, length);
        ExReleaseFastMutex(&h->Mutex);
        return BoardFinish(Board, Irp, STATUS_SUCCESS, length);
    }
    return BoardFinish(Board, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID HassockCleanup(PBOARD Board, PFILE_OBJECT File)
{
    IrpqFlushFile(&CONTAINING_RECORD(Board, HASSOCK, Board)->Readers, File);
}

static VOID HassockWake(PBOARD Board)
{
    UNREFERENCED_PARAMETER(Board);
}

static VOID HassockQuiet(PBOARD Board, BOOLEAN Present)
{
    UNREFERENCED_PARAMETER(Board);
    UNREFERENCED_PARAMETER(Present);
}

static VOID HassockDrain(PBOARD Board)
{
    IrpqShut(&CONTAINING_RECORD(Board, HASSOCK, Board)->Readers, STATUS_DELETE_PENDING);
}

/* The interface is there while the device is started; its name stays the same. */
static NTSTATUS HassockStart(PBOARD Board, PCM_PARTIAL_RESOURCE_LIST List)
{
    PHASSOCK h = CONTAINING_RECORD(Board, HASSOCK, Board);
    NTSTATUS status;

    UNREFERENCED_PARAMETER(List);
#ifdef FIXED
    if (h->Name.Buffer == NULL)
#endif
    {
        status = IoRegisterDeviceInterface(Board->Base, &HASSOCK_CLASS, NULL, &h->Name);
        if (!NT_SUCCESS(status)) {
            h->Name.Buffer = NULL;
            return status;
        }
    }
    return IoSetDeviceInterfaceState(&h->Name, TRUE);
}

static VOID HassockStop(PBOARD Board)
{
    IoSetDeviceInterfaceState(&CONTAINING_RECORD(Board, HASSOCK, Board)->Name, FALSE);
}

static NTSTATUS HassockBegin(PBOARD Board)
{
    PHASSOCK h = CONTAINING_RECORD(Board, HASSOCK, Board);

    ExInitializeFastMutex(&h->Mutex);
    IrpqBuild(&h->Readers, BoardRetire, Board);
    return STATUS_SUCCESS;
}

static VOID HassockEnd(PBOARD Board)
{
    PHASSOCK h = CONTAINING_RECORD(Board, HASSOCK, Board);

    if (h->Name.Buffer != NULL)
        RtlFreeUnicodeString(&h->Name);
}

static const BOARD_KIND HassockKind = {
    .Bytes = sizeof(HASSOCK), .Flags = DO_BUFFERED_IO, .Class = NULL,
    .Begin = HassockBegin, .End = HassockEnd, .Start = HassockStart, .Stop = HassockStop, .Wake = HassockWake,
    .Quiet = HassockQuiet, .Drain = HassockDrain, .Io = HassockIo, .Cleanup = HassockCleanup,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return BoardDriver(DriverObject, &HassockKind);
}

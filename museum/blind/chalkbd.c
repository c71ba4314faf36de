/*
 * chalkbd: a shared drawing board. Programs add strokes (a list of points), read them back by number, ask for the bounds of all, wipe the board.
 *
 * The bug: the size of a stroke is computed in 32 bits from the number of points the caller claims, so a huge number passes the check of the input
 * length, a tiny block is allocated and the copying of the points runs over its end.
 *
 * Device: none
 * Rule: pool-overrun
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define BOARD_TAG 'klhC'
#define MAX_STROKES 512
#define MAX_BYTES (1024 * 1024)

#define IOCTL_CHALK_ADD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_CHALK_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_CHALK_BOUNDS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_CHALK_WIPE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct _SPOT {
    LONG X, Y;
} SPOT, *PSPOT;

/* input of ADD, output of GET: followed by Count spots */
typedef struct _STROKE_HEAD {
    ULONG Count;
    ULONG Colour;
} STROKE_HEAD, *PSTROKE_HEAD;

typedef struct _BOUNDS {
    ULONG Strokes;
    LONG Left, Top, Right, Bottom;
} BOUNDS, *PBOUNDS;

typedef struct _STROKE {
    LIST_ENTRY Link;
    ULONG Bytes; /* head and spots */
    STROKE_HEAD Head;
    SPOT Spots[1];
} STROKE, *PSTROKE;

typedef struct _BOARD {
    FAST_MUTEX Mutex;
    LIST_ENTRY Strokes;
    ULONG Number;
    ULONG Bytes;
} BOARD, *PBOARD;

static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\ChalkBd");

static NTSTATUS Finish(PIRP irp, NTSTATUS status, ULONG_PTR information)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = information;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

static VOID Wipe(PBOARD board)
{
    PLIST_ENTRY entry;

    while (!IsListEmpty(&board->Strokes)) {
        entry = RemoveHeadList(&board->Strokes);
        ExFreePoolWithTag(CONTAINING_RECORD(entry, STROKE, Link), BOARD_TAG);
    }
    board->Number = 0;
    board->Bytes = 0;
}

static NTSTATUS AddStroke(PBOARD board, PVOID buffer, ULONG length)
{
    PSTROKE_HEAD head = buffer;
    PSPOT from;
    PSTROKE stroke;
    ULONG bytes;
    ULONG i;
    NTSTATUS status = STATUS_SUCCESS;

    if (length < sizeof(*head))
        return STATUS_BUFFER_TOO_SMALL;
    if (head->Count == 0)
        return STATUS_INVALID_PARAMETER;
#ifdef FIXED
    if (head->Count > (length - sizeof(*head)) / sizeof(SPOT))
        return STATUS_INVALID_PARAMETER;
#endif
    bytes = sizeof(*head) + head->Count * sizeof(SPOT);
    if (bytes > length)
        return STATUS_INVALID_PARAMETER;
    if (bytes > MAX_BYTES)
        return STATUS_QUOTA_EXCEEDED;
    stroke = ExAllocatePoolWithTag(PagedPool, FIELD_OFFSET(STROKE, Head) + bytes, BOARD_TAG);
    if (!stroke)
        return STATUS_INSUFFICIENT_RESOURCES;
    stroke->Bytes = bytes;
    stroke->Head = *head;
    from = (PSPOT)(head + 1);
    for (i = 0; i < head->Count; i++) {
        stroke->Spots[i].X = from[i].X;
        stroke->Spots[i].Y = from[i].Y;
    }

    ExAcquireFastMutex(&board->Mutex);
    if (board->Number >= MAX_STROKES || bytes > MAX_BYTES - board->Bytes) {
        status = STATUS_QUOTA_EXCEEDED;
    } else {
        InsertTailList(&board->Strokes, &stroke->Link);
        board->Number++;
        board->Bytes += bytes;
        stroke = NULL;
    }
    ExReleaseFastMutex(&board->Mutex);
    if (stroke)
        ExFreePoolWithTag(stroke, BOARD_TAG);
    return status;
}

static NTSTATUS GetStroke(PBOARD board, PVOID buffer, ULONG inLength, ULONG outLength, ULONG_PTR *information)
{
    PLIST_ENTRY entry;
    PSTROKE stroke;
    ULONG number;
    NTSTATUS status = STATUS_NOT_FOUND;

    if (inLength < sizeof(ULONG))
        return STATUS_BUFFER_TOO_SMALL;
    number = *(PULONG)buffer;
    ExAcquireFastMutex(&board->Mutex);
    for (entry = board->Strokes.Flink; entry != &board->Strokes; entry = entry->Flink) {
        if (number-- != 0)
            continue;
        stroke = CONTAINING_RECORD(entry, STROKE, Link);
        if (outLength < stroke->Bytes) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        RtlCopyMemory(buffer, &stroke->Head, stroke->Bytes);
        *information = stroke->Bytes;
        status = STATUS_SUCCESS;
        break;
    }
    ExReleaseFastMutex(&board->Mutex);
    return status;
}

static NTSTATUS GetBounds(PBOARD board, PBOUNDS out, ULONG outLength, ULONG_PTR *information)
{
    PLIST_ENTRY entry;
    BOUNDS b;
    BOOLEAN first = TRUE;

    if (outLength < sizeof(*out))
        return STATUS_BUFFER_TOO_SMALL;
    RtlZeroMemory(&b, sizeof(b));
    ExAcquireFastMutex(&board->Mutex);
    b.Strokes = board->Number;
    for (entry = board->Strokes.Flink; entry != &board->Strokes; entry = entry->Flink) {
        PSTROKE stroke = CONTAINING_RECORD(entry, STROKE, Link);
        PSPOT spot = stroke->Spots;
        ULONG i;

        for (i = 0; i < stroke->Head.Count; i++, spot++) {
            if (first || spot->X < b.Left)
                b.Left = spot->X;
            if (first || spot->X > b.Right)
                b.Right = spot->X;
            if (first || spot->Y < b.Top)
                b.Top = spot->Y;
            if (first || spot->Y > b.Bottom)
                b.Bottom = spot->Y;
            first = FALSE;
        }
    }
    ExReleaseFastMutex(&board->Mutex);
    *out = b;
    *information = sizeof(b);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI CreateClose(PDEVICE_OBJECT device, PIRP irp)
{
    UNREFERENCED_PARAMETER(device);
    return Finish(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT device, PIRP irp)
{
    PBOARD board = device->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(irp);
    ULONG inLength = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG outLength = stack->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR information = 0;
    NTSTATUS status;

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CHALK_ADD:
        status = AddStroke(board, buffer, inLength);
        break;
    case IOCTL_CHALK_GET:
        status = GetStroke(board, buffer, inLength, outLength, &information);
        break;
    case IOCTL_CHALK_BOUNDS:
        status = GetBounds(board, buffer, outLength, &information);
        break;
    case IOCTL_CHALK_WIPE:
        ExAcquireFastMutex(&board->Mutex);
        Wipe(board);
        ExReleaseFastMutex(&board->Mutex);
        status = STATUS_SUCCESS;
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return Finish(irp, status, information);
}

static VOID NTAPI Unload(PDRIVER_OBJECT driver)
{
    PDEVICE_OBJECT device = driver->DeviceObject;

    IoDeleteSymbolicLink(&LinkName);
    Wipe(device->DeviceExtension);
    IoDeleteDevice(device);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\ChalkBd");
    PDEVICE_OBJECT device;
    PBOARD board;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(path);
    status = IoCreateDevice(driver, sizeof(BOARD), &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    board = device->DeviceExtension;
    RtlZeroMemory(board, sizeof(*board));
    ExInitializeFastMutex(&board->Mutex);
    InitializeListHead(&board->Strokes);
    driver->MajorFunction[IRP_MJ_CREATE] = CreateClose;
    driver->MajorFunction[IRP_MJ_CLOSE] = CreateClose;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    driver->DriverUnload = Unload;
    status = IoCreateSymbolicLink(&LinkName, &name);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(device);
    return status;
}

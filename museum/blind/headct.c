/*
 * headct: counts heads in rooms. Programs name rooms, say who enters and leaves, and ask for a room's
 * record (its name, how many are in it, how many have been).
 *
 * The bug: a room's record is given out whole, though the bytes behind its name have never been written since the
 * pool gave the block.
 *
 * Device: none
 * Rule: output-never-stored
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define IOCTL_HEAD_NAME  CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA10, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_HEAD_MOVE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA11, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_HEAD_QUERY CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA12, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define TAG 'daeH'
#define NAME_SIZE 64u
#define MAX_ROOMS 32

typedef struct _HEAD_RECORD {
    ULONG Room;
    ULONG Present;
    ULONG Ever;
    CHAR Name[NAME_SIZE];       /* ends with 0 */
} HEAD_RECORD;

typedef struct _HEAD_MOVE {
    ULONG Room;
    LONG By;                    /* 1 enters, -1 leaves */
} HEAD_MOVE;

typedef struct _ROOM {
    LIST_ENTRY Link;
    HEAD_RECORD Record;
} ROOM, *PROOM;

static UNICODE_STRING HeadDevice = RTL_CONSTANT_STRING(L"\\Device\\HeadCount");
static UNICODE_STRING HeadLink = RTL_CONSTANT_STRING(L"\\DosDevices\\HeadCount");
static LIST_ENTRY Rooms;
static ULONG RoomCount;
static KSPIN_LOCK RoomLock;     /* guards the rooms and their count */

/* Lock held. */
static PROOM HeadFind(ULONG Number)
{
    PLIST_ENTRY link;

    for (link = Rooms.Flink; link != &Rooms; link = link->Flink) {
        PROOM room = CONTAINING_RECORD(link, ROOM, Link);
        if (room->Record.Room == Number)
            return room;
    }
    return NULL;
}

static NTSTATUS HeadName(const CHAR *Name, ULONG Length, PULONG Number)
{
    PROOM room;
    ULONG i;
    KIRQL irql;
    NTSTATUS status = STATUS_QUOTA_EXCEEDED;

    if (Length == 0 || Length >= NAME_SIZE)
        return STATUS_NAME_TOO_LONG;
    room = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*room), TAG);
    if (!room)
        return STATUS_INSUFFICIENT_RESOURCES;
#ifdef FIXED
    RtlZeroMemory(room, sizeof(*room));
#endif
    room->Record.Present = 0;
    room->Record.Ever = 0;
    for (i = 0; i < Length && Name[i]; i++)
        room->Record.Name[i] = Name[i];
    room->Record.Name[i] = 0;

    KeAcquireSpinLock(&RoomLock, &irql);
    if (RoomCount < MAX_ROOMS) {
        *Number = room->Record.Room = ++RoomCount;
        InsertTailList(&Rooms, &room->Link);
        status = STATUS_SUCCESS;
    }
    KeReleaseSpinLock(&RoomLock, irql);
    if (!NT_SUCCESS(status))
        ExFreePoolWithTag(room, TAG);
    return status;
}

static NTSTATUS HeadMove(const HEAD_MOVE *Move)
{
    PROOM room;
    KIRQL irql;
    NTSTATUS status = STATUS_SUCCESS;

    if (Move->By != 1 && Move->By != -1)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&RoomLock, &irql);
    room = HeadFind(Move->Room);
    if (!room)
        status = STATUS_NOT_FOUND;
    else if (Move->By > 0 && room->Record.Ever != 0xFFFFFFFF) {
        room->Record.Present++;
        room->Record.Ever++;
    } else if (Move->By < 0 && room->Record.Present > 0)
        room->Record.Present--;
    else
        status = STATUS_INVALID_DEVICE_STATE;
    KeReleaseSpinLock(&RoomLock, irql);
    return status;
}

static NTSTATUS HeadQuery(ULONG Number, HEAD_RECORD *Record)
{
    PROOM room;
    KIRQL irql;

    KeAcquireSpinLock(&RoomLock, &irql);
    room = HeadFind(Number);
    if (room)
        RtlCopyMemory(Record, &room->Record, sizeof(*Record));
    KeReleaseSpinLock(&RoomLock, irql);
    return room ? STATUS_SUCCESS : STATUS_NOT_FOUND;
}

static NTSTATUS NTAPI HeadDispatch(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in, out, number;
    ULONG_PTR information = 0;
    NTSTATUS status = STATUS_SUCCESS;

    UNREFERENCED_PARAMETER(DeviceObject);
    if (stack->MajorFunction == IRP_MJ_DEVICE_CONTROL) {
        in = stack->Parameters.DeviceIoControl.InputBufferLength;
        out = stack->Parameters.DeviceIoControl.OutputBufferLength;
        switch (stack->Parameters.DeviceIoControl.IoControlCode) {
        case IOCTL_HEAD_NAME:
            if (out < sizeof(ULONG)) {
                status = STATUS_BUFFER_TOO_SMALL;
                break;
            }
            status = HeadName(buffer, in, &number);
            if (NT_SUCCESS(status)) {
                *(PULONG)buffer = number;
                information = sizeof(ULONG);
            }
            break;
        case IOCTL_HEAD_MOVE:
            status = in < sizeof(HEAD_MOVE) ? STATUS_BUFFER_TOO_SMALL : HeadMove(buffer);
            break;
        case IOCTL_HEAD_QUERY:
            if (in < sizeof(ULONG) || out < sizeof(HEAD_RECORD)) {
                status = STATUS_BUFFER_TOO_SMALL;
                break;
            }
            status = HeadQuery(*(PULONG)buffer, buffer);
            if (NT_SUCCESS(status))
                information = sizeof(HEAD_RECORD);
            break;
        default:
            status = STATUS_INVALID_DEVICE_REQUEST;
            break;
        }
    }
    Irp->IoStatus.Status = status;
    Irp->IoStatus.Information = information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return status;
}

static VOID NTAPI HeadUnload(PDRIVER_OBJECT DriverObject)
{
    IoDeleteSymbolicLink(&HeadLink);
    IoDeleteDevice(DriverObject->DeviceObject);
    while (!IsListEmpty(&Rooms))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&Rooms), ROOM, Link), TAG);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    InitializeListHead(&Rooms);
    KeInitializeSpinLock(&RoomLock);
    DriverObject->MajorFunction[IRP_MJ_CREATE] = HeadDispatch;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = HeadDispatch;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = HeadDispatch;
    DriverObject->DriverUnload = HeadUnload;
    status = IoCreateDevice(DriverObject, 0, &HeadDevice, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    status = IoCreateSymbolicLink(&HeadLink, &HeadDevice);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(device);
    return status;
}

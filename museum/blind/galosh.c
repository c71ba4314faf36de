/*
 * galosh: named message rooms. A handle joins a room by its name (the first one makes the room, the last one to leave
 * closes it), posts messages of 32 bytes, and waits for the next message of its room.
 *
 * The bug: a room's count is taken down outside of the lock and the lock only taken to unlink a room that reached zero.
 * A join in between finds the dying room and brings its count back to one; the room is freed all the same.
 *
 * Device: none
 * Rule: use-after-free
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>
#include "../include/quill_queue.h"

#define GALOSH_TAG   'solG'
#define GALOSH_NAME  16
#define GALOSH_TEXT  32
#define GALOSH_ROOMS 256
#define GALOSH_WAITS 1024

#define IOCTL_GALOSH_JOIN  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x840, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_GALOSH_LEAVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x841, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_GALOSH_POST  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x842, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_GALOSH_NEXT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x843, METHOD_BUFFERED, FILE_ANY_ACCESS)

/* What IOCTL_GALOSH_NEXT gives; its input is the serial number of the last message seen (0: none). */
typedef struct _GALOSH_MESSAGE {
    ULONG Serial;
    UCHAR Text[GALOSH_TEXT];
} GALOSH_MESSAGE, *PGALOSH_MESSAGE;

typedef struct _GALOSH_ROOM {
    LIST_ENTRY Link;
    LONG Refs;                      /* one for each handle in the room */
    UCHAR Name[GALOSH_NAME];
    GALOSH_MESSAGE Last;            /* Serial 0: none yet */
} GALOSH_ROOM, *PGALOSH_ROOM;

/* FsContext of a handle, freed at close. */
typedef struct _GALOSH_SEAT {
    PGALOSH_ROOM Room;
    BOOLEAN Closed;                 /* cleanup has run: no joining any more */
} GALOSH_SEAT, *PGALOSH_SEAT;

typedef struct _GALOSH {
    QUILL_QUEUE Waits;              /* its lock protects rooms, seats and counts; a wait's key is its room */
    LIST_ENTRY Rooms;
    ULONG RoomCount;
} GALOSH, *PGALOSH;

static UNICODE_STRING GaloshDeviceName = RTL_CONSTANT_STRING(L"\\Device\\Galosh");
static UNICODE_STRING GaloshLinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\Galosh");

static NTSTATUS GaloshComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* Finds a room by its name and counts the caller in. Under the lock. */
static PGALOSH_ROOM GaloshFindLocked(PGALOSH Hall, const UCHAR *Name)
{
    PLIST_ENTRY entry;

    for (entry = Hall->Rooms.Flink; entry != &Hall->Rooms; entry = entry->Flink) {
        PGALOSH_ROOM room = CONTAINING_RECORD(entry, GALOSH_ROOM, Link);

        if (RtlCompareMemory(room->Name, Name, GALOSH_NAME) == GALOSH_NAME) {
            InterlockedIncrement(&room->Refs);
            return room;
        }
    }
    return NULL;
}

static VOID GaloshUnlinkLocked(PGALOSH Hall, PGALOSH_ROOM Room)
{
    RemoveEntryList(&Room->Link);
    Hall->RoomCount--;
}

/* Counts a handle out of its room. */
static VOID GaloshRelease(PGALOSH Hall, PGALOSH_ROOM Room)
{
    BOOLEAN last;
    KIRQL irql;

#ifdef FIXED
    KeAcquireSpinLock(&Hall->Waits.Lock, &irql);
    last = InterlockedDecrement(&Room->Refs) == 0;
    if (last)
        GaloshUnlinkLocked(Hall, Room);
    KeReleaseSpinLock(&Hall->Waits.Lock, irql);
#else
    last = InterlockedDecrement(&Room->Refs) == 0;
    if (last) {
        KeAcquireSpinLock(&Hall->Waits.Lock, &irql);
        GaloshUnlinkLocked(Hall, Room);
        KeReleaseSpinLock(&Hall->Waits.Lock, irql);
    }
#endif
    if (last)
        ExFreePoolWithTag(Room, GALOSH_TAG);
}

static NTSTATUS GaloshJoin(PGALOSH Hall, PGALOSH_SEAT Seat, const UCHAR *Name)
{
    PGALOSH_ROOM room;
    PGALOSH_ROOM fresh;
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    fresh = (PGALOSH_ROOM)ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*fresh), GALOSH_TAG);
    if (fresh == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(fresh, sizeof(*fresh));
    RtlCopyMemory(fresh->Name, Name, GALOSH_NAME);
    fresh->Refs = 1;

    KeAcquireSpinLock(&Hall->Waits.Lock, &irql);
    if (Seat->Closed) {
        status = STATUS_CANCELLED;
    } else if (Seat->Room != NULL) {
        status = STATUS_INVALID_DEVICE_STATE;
    } else {
        room = GaloshFindLocked(Hall, Name);
        if (room == NULL && Hall->RoomCount >= GALOSH_ROOMS) {
            status = STATUS_INSUFFICIENT_RESOURCES;
        } else if (room == NULL) {
            InsertTailList(&Hall->Rooms, &fresh->Link);
            Hall->RoomCount++;
            room = fresh;
            fresh = NULL;
        }
        Seat->Room = room;
    }
    KeReleaseSpinLock(&Hall->Waits.Lock, irql);

    if (fresh != NULL)
        ExFreePoolWithTag(fresh, GALOSH_TAG);
    return status;
}

/* Leaves the room; the waits of the handle end. */
static NTSTATUS GaloshLeave(PGALOSH Hall, PGALOSH_SEAT Seat, PFILE_OBJECT File, BOOLEAN Closing)
{
    PGALOSH_ROOM room;
    LIST_ENTRY list;
    KIRQL irql;

    InitializeListHead(&list);
    KeAcquireSpinLock(&Hall->Waits.Lock, &irql);
    if (Closing)
        Seat->Closed = TRUE;
    room = Seat->Room;
    Seat->Room = NULL;
    QuillQueueTakeAllLocked(&Hall->Waits, NULL, File, &list);
    KeReleaseSpinLock(&Hall->Waits.Lock, irql);

    QuillQueueEndList(&Hall->Waits, &list, STATUS_CANCELLED);
    if (room == NULL)
        return STATUS_INVALID_DEVICE_STATE;
    GaloshRelease(Hall, room);
    return STATUS_SUCCESS;
}

/* Posts a message: it becomes the room's last one and goes to all that wait in the room. */
static NTSTATUS GaloshPost(PGALOSH Hall, PGALOSH_SEAT Seat, const UCHAR *Text)
{
    GALOSH_MESSAGE message;
    PGALOSH_ROOM room;
    LIST_ENTRY list;
    KIRQL irql;

    InitializeListHead(&list);
    KeAcquireSpinLock(&Hall->Waits.Lock, &irql);
    room = Seat->Room;
    if (room == NULL) {
        KeReleaseSpinLock(&Hall->Waits.Lock, irql);
        return STATUS_INVALID_DEVICE_STATE;
    }
    RtlCopyMemory(room->Last.Text, Text, GALOSH_TEXT);
    room->Last.Serial++;
    if (room->Last.Serial == 0)
        room->Last.Serial = 1;
    message = room->Last;
    QuillQueueTakeAllLocked(&Hall->Waits, room, NULL, &list);
    KeReleaseSpinLock(&Hall->Waits.Lock, irql);

    while (!IsListEmpty(&list)) {
        PIRP irp = CONTAINING_RECORD(RemoveHeadList(&list), IRP, Tail.Overlay.ListEntry);

        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &message, sizeof(message));
        QuillQueueEnd(&Hall->Waits, irp, STATUS_SUCCESS, sizeof(message));
    }
    return STATUS_SUCCESS;
}

/* Gives the room's last message, or waits for the next one when the caller has seen the last. */
static NTSTATUS GaloshNext(PGALOSH Hall, PGALOSH_SEAT Seat, PIRP Irp, ULONG Seen)
{
    GALOSH_MESSAGE message;
    NTSTATUS status;
    KIRQL irql;

    KeAcquireSpinLock(&Hall->Waits.Lock, &irql);
    if (Seat->Room == NULL) {
        KeReleaseSpinLock(&Hall->Waits.Lock, irql);
        return GaloshComplete(Irp, STATUS_INVALID_DEVICE_STATE, 0);
    }
    if (Seat->Room->Last.Serial != 0 && Seat->Room->Last.Serial != Seen) {
        message = Seat->Room->Last;
        KeReleaseSpinLock(&Hall->Waits.Lock, irql);
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &message, sizeof(message));
        return GaloshComplete(Irp, STATUS_SUCCESS, sizeof(message));
    }
    IoMarkIrpPending(Irp);
    status = QuillQueueInsertLocked(&Hall->Waits, Irp, Seat->Room);
    KeReleaseSpinLock(&Hall->Waits.Lock, irql);
    if (!NT_SUCCESS(status))
        QuillQueueEnd(&Hall->Waits, Irp, status, 0);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI GaloshCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PGALOSH_SEAT seat;

    UNREFERENCED_PARAMETER(DeviceObject);
    if (file == NULL || file->FileName.Length != 0)
        return GaloshComplete(Irp, STATUS_OBJECT_NAME_NOT_FOUND, 0);
    seat = (PGALOSH_SEAT)ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*seat), GALOSH_TAG);
    if (seat == NULL)
        return GaloshComplete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(seat, sizeof(*seat));
    file->FsContext = seat;
    return GaloshComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI GaloshCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PGALOSH hall = (PGALOSH)DeviceObject->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;

    GaloshLeave(hall, (PGALOSH_SEAT)file->FsContext, file, TRUE);
    return GaloshComplete(Irp, STATUS_SUCCESS, 0);
}

/* The last reference to the file object is gone, so no request uses the seat any more; cleanup emptied it. */
static NTSTATUS NTAPI GaloshClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;

    UNREFERENCED_PARAMETER(DeviceObject);
    ExFreePoolWithTag(file->FsContext, GALOSH_TAG);
    file->FsContext = NULL;
    return GaloshComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI GaloshControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PGALOSH hall = (PGALOSH)DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG input = stack->Parameters.DeviceIoControl.InputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    PGALOSH_SEAT seat;

    if (stack->FileObject == NULL || stack->FileObject->FsContext == NULL)
        return GaloshComplete(Irp, STATUS_INVALID_HANDLE, 0);
    seat = (PGALOSH_SEAT)stack->FileObject->FsContext;

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_GALOSH_JOIN:
        if (input != GALOSH_NAME)
            return GaloshComplete(Irp, STATUS_INVALID_PARAMETER, 0);
        return GaloshComplete(Irp, GaloshJoin(hall, seat, (const UCHAR *)buffer), 0);

    case IOCTL_GALOSH_LEAVE:
        return GaloshComplete(Irp, GaloshLeave(hall, seat, stack->FileObject, FALSE), 0);

    case IOCTL_GALOSH_POST:
        if (input != GALOSH_TEXT)
            return GaloshComplete(Irp, STATUS_INVALID_PARAMETER, 0);
        return GaloshComplete(Irp, GaloshPost(hall, seat, (const UCHAR *)buffer), 0);

    case IOCTL_GALOSH_NEXT:
        if (input != sizeof(ULONG))
            return GaloshComplete(Irp, STATUS_INVALID_PARAMETER, 0);
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(GALOSH_MESSAGE))
            return GaloshComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return GaloshNext(hall, seat, Irp, *(PULONG)buffer);

    default:
        return GaloshComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

/* All handles are closed by now, so there are neither rooms nor waits. */
static VOID NTAPI GaloshUnload(PDRIVER_OBJECT Driver)
{
    IoDeleteSymbolicLink(&GaloshLinkName);
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    PGALOSH hall;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);

    Driver->MajorFunction[IRP_MJ_CREATE] = GaloshCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = GaloshCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = GaloshClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = GaloshControl;
    Driver->DriverUnload = GaloshUnload;

    status = IoCreateDevice(Driver, sizeof(GALOSH), &GaloshDeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN,
                            FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    hall = (PGALOSH)device->DeviceExtension;
    QuillQueueInit(&hall->Waits, NULL, GALOSH_WAITS);
    InitializeListHead(&hall->Rooms);
    hall->RoomCount = 0;

    status = IoCreateSymbolicLink(&GaloshLinkName, &GaloshDeviceName);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    device->Flags |= DO_BUFFERED_IO;
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

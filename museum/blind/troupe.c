/*
 * TROUPE: rooms in which programs leave each other a line of text. A handle makes a room by a number of its choice, or goes into one that is there; a room ends
 * with the last one that leaves it.
 *
 * The bug: who goes into another room gives up the one it is in before it is known whether the other one is there. If it is not the handle stays in a room that
 * it has given up, and gives it up once more when it is closed, or uses it when it is freed.
 *
 * Device: none
 * Rule: use-after-free, double-free, write-after-free, list-corrupt, bad-free
 * Needs: ioctl, cancel
 */
#include <ddk/wdm.h>
#define FRAME_DESK
#include "../include/desk_or_rig.h"

#define TROUPE_MAKE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x841, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define TROUPE_JOIN CTL_CODE(FILE_DEVICE_UNKNOWN, 0x842, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define TROUPE_LEAVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x843, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define TROUPE_SAY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x844, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define TROUPE_HEAR CTL_CODE(FILE_DEVICE_UNKNOWN, 0x845, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define TAG 'uorT'
#define MOST_ROOMS 64

typedef struct _ROOM {
    LIST_ENTRY Link;
    ULONG Number;
    ULONG Seats;
    ULONG Length;
    CHAR Line[128];
} ROOM;

/* Of each handle. */
typedef struct _SEAT {
    ROOM *Room;
} SEAT;

static struct {
    KSPIN_LOCK Lock;
    LIST_ENTRY Rooms;
    ULONG Count;
} House;

/* Lock held. */
static ROOM *Find(ULONG number)
{
    PLIST_ENTRY entry;

    for (entry = House.Rooms.Flink; entry != &House.Rooms; entry = entry->Flink) {
        ROOM *room = CONTAINING_RECORD(entry, ROOM, Link);

        if (room->Number == number)
            return room;
    }
    return NULL;
}

/* Lock held. */
static VOID GiveUp(ROOM *room)
{
    if (room == NULL || --room->Seats != 0)
        return;
    RemoveEntryList(&room->Link);
    House.Count--;
    ExFreePoolWithTag(room, TAG);
}

/* Lock held. */
static NTSTATUS Make(SEAT *seat, ULONG number)
{
    ROOM *room;

    if (Find(number) != NULL)
        return STATUS_OBJECT_NAME_COLLISION;
    if (House.Count == MOST_ROOMS)
        return STATUS_QUOTA_EXCEEDED;
    room = ExAllocatePoolWithTag(NonPagedPool, sizeof(ROOM), TAG);
    if (room == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(room, sizeof(*room));
    room->Number = number;
    room->Seats = 1;
    InsertTailList(&House.Rooms, &room->Link);
    House.Count++;
    GiveUp(seat->Room);
    seat->Room = room;
    return STATUS_SUCCESS;
}

/* Lock held. */
static NTSTATUS Join(SEAT *seat, ULONG number)
{
    ROOM *room = Find(number);

    if (room != NULL && room == seat->Room)
        return STATUS_SUCCESS;
#ifndef FIXED
    GiveUp(seat->Room);
    if (room == NULL)
        return STATUS_NOT_FOUND;
#else
    if (room == NULL)
        return STATUS_NOT_FOUND;
    GiveUp(seat->Room);
#endif
    room->Seats++;
    seat->Room = room;
    return STATUS_SUCCESS;
}

static NTSTATUS TroupeOpen(TASK *task)
{
    SEAT *seat = ExAllocatePoolWithTag(NonPagedPool, sizeof(SEAT), TAG);

    if (seat == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    seat->Room = NULL;
    task->File->FsContext = seat;
    return STATUS_SUCCESS;
}

static VOID TroupeClose(PFILE_OBJECT file)
{
    SEAT *seat = file->FsContext;
    KIRQL irql;

    KeAcquireSpinLock(&House.Lock, &irql);
    GiveUp(seat->Room);
    seat->Room = NULL;
    KeReleaseSpinLock(&House.Lock, irql);
    file->FsContext = NULL;
    ExFreePoolWithTag(seat, TAG);
}

static NTSTATUS TroupeControl(TASK *task)
{
    SEAT *seat = task->File->FsContext;
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    if (task->Code == TROUPE_MAKE || task->Code == TROUPE_JOIN) {
        if (task->In < sizeof(ULONG))
            return STATUS_INVALID_PARAMETER;
    } else if (task->Code == TROUPE_SAY) {
        if (task->In == 0 || task->In > RTL_FIELD_SIZE(ROOM, Line))
            return STATUS_INVALID_PARAMETER;
    } else if (task->Code == TROUPE_HEAR) {
        if (task->Out < RTL_FIELD_SIZE(ROOM, Line))
            return STATUS_BUFFER_TOO_SMALL;
    }

    KeAcquireSpinLock(&House.Lock, &irql);
    switch (task->Code) {
    case TROUPE_MAKE:
        status = Make(seat, *(PULONG)task->Buffer);
        break;
    case TROUPE_JOIN:
        status = Join(seat, *(PULONG)task->Buffer);
        break;
    case TROUPE_LEAVE:
        GiveUp(seat->Room);
        seat->Room = NULL;
        break;
    case TROUPE_SAY:
        if (seat->Room == NULL) {
            status = STATUS_INVALID_DEVICE_STATE;
            break;
        }
        RtlCopyMemory(seat->Room->Line, task->Buffer, task->In);
        seat->Room->Length = task->In;
        break;
    case TROUPE_HEAR:
        if (seat->Room == NULL) {
            status = STATUS_INVALID_DEVICE_STATE;
            break;
        }
        RtlCopyMemory(task->Buffer, seat->Room->Line, seat->Room->Length);
        task->Info = seat->Room->Length;
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    KeReleaseSpinLock(&House.Lock, irql);
    return status;
}

static const DESK_OPS Ops = {
    .Open = TroupeOpen,
    .Close = TroupeClose,
    .Control = TroupeControl,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    (void)path;
    KeInitializeSpinLock(&House.Lock);
    InitializeListHead(&House.Rooms);
    return DeskOpen(driver, &Ops, L"\\Device\\Troupe", L"\\DosDevices\\Troupe");
}

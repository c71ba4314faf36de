/*
 * TABARD: names for the stations of a field bus. A program adds stations (address, port, name), others look them up by address or ask for all of them. The
 * table grows as it must.
 *
 * The bug: when the table grows its new size is noted before there is memory for it. When there is none the request fails as it should, but the next one
 * believes in the size and writes behind the table.
 *
 * Device: none
 * Rule: wild-write, pool-overrun, bad-pointer
 * Needs: ioctl, failure
 */
#include <ddk/wdm.h>
#define FRAME_DESK
#include "../include/desk_or_rig.h"

#define TABARD_ADD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define TABARD_FIND CTL_CODE(FILE_DEVICE_UNKNOWN, 0x822, METHOD_BUFFERED, FILE_READ_ACCESS)
#define TABARD_LIST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x823, METHOD_BUFFERED, FILE_READ_ACCESS)
#define TABARD_CLEAR CTL_CODE(FILE_DEVICE_UNKNOWN, 0x824, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define TAG 'dbaT'
#define MOST 1024

typedef struct _STATION {
    ULONG Address;
    ULONG Port;
    CHAR Name[24];
} STATION;

static struct {
    KSPIN_LOCK Lock;
    STATION *Stations;
    ULONG Count;
    ULONG Room;
} Book;

/* Lock held. */
static STATION *Find(ULONG address)
{
    ULONG i;

    for (i = 0; i < Book.Count; i++) {
        if (Book.Stations[i].Address == address)
            return &Book.Stations[i];
    }
    return NULL;
}

/* Lock held. */
static NTSTATUS Grow(void)
{
    ULONG room = Book.Room != 0 ? Book.Room * 2 : 4;
    STATION *fresh;

    if (room > MOST)
        return STATUS_QUOTA_EXCEEDED;
#ifndef FIXED
    Book.Room = room;
#endif
    fresh = ExAllocatePoolWithTag(NonPagedPool, room * sizeof(STATION), TAG);
    if (fresh == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (Book.Stations != NULL) {
        RtlCopyMemory(fresh, Book.Stations, Book.Count * sizeof(STATION));
        ExFreePoolWithTag(Book.Stations, TAG);
    }
    Book.Stations = fresh;
#ifdef FIXED
    Book.Room = room;
#endif
    return STATUS_SUCCESS;
}

/* Lock held. A station that is there already gets its new name. */
static NTSTATUS Add(const STATION *station)
{
    STATION *place = Find(station->Address);
    NTSTATUS status;

    if (place == NULL) {
        if (Book.Count == Book.Room) {
            status = Grow();
            if (!NT_SUCCESS(status))
                return status;
        }
        place = &Book.Stations[Book.Count];
        Book.Count++;
    }
    *place = *station;
    place->Name[sizeof(place->Name) - 1] = 0;
    return STATUS_SUCCESS;
}

static NTSTATUS TabardControl(TASK *task)
{
    NTSTATUS status = STATUS_SUCCESS;
    STATION station, *found;
    ULONG count;
    KIRQL irql;

    switch (task->Code) {
    case TABARD_ADD:
        if (task->In < sizeof(STATION))
            return STATUS_INVALID_PARAMETER;
        RtlCopyMemory(&station, task->Buffer, sizeof(station));
        KeAcquireSpinLock(&Book.Lock, &irql);
        status = Add(&station);
        KeReleaseSpinLock(&Book.Lock, irql);
        return status;

    case TABARD_FIND:
        if (task->In < sizeof(ULONG))
            return STATUS_INVALID_PARAMETER;
        if (task->Out < sizeof(STATION))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&Book.Lock, &irql);
        found = Find(*(PULONG)task->Buffer);
        if (found != NULL)
            RtlCopyMemory(task->Buffer, found, sizeof(STATION));
        else
            status = STATUS_NOT_FOUND;
        KeReleaseSpinLock(&Book.Lock, irql);
        if (NT_SUCCESS(status))
            task->Info = sizeof(STATION);
        return status;

    case TABARD_LIST:
        KeAcquireSpinLock(&Book.Lock, &irql);
        count = task->Out / sizeof(STATION);
        if (count > Book.Count)
            count = Book.Count;
        if (count != 0)
            RtlCopyMemory(task->Buffer, Book.Stations, count * sizeof(STATION));
        if (count < Book.Count)
            status = STATUS_BUFFER_OVERFLOW;
        KeReleaseSpinLock(&Book.Lock, irql);
        task->Info = count * sizeof(STATION);
        return status;

    case TABARD_CLEAR:
        KeAcquireSpinLock(&Book.Lock, &irql);
        Book.Count = 0;
        KeReleaseSpinLock(&Book.Lock, irql);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static VOID TabardFarewell(VOID)
{
    if (Book.Stations != NULL)
        ExFreePoolWithTag(Book.Stations, TAG);
    Book.Stations = NULL;
}

static const DESK_OPS Ops = {
    .Control = TabardControl,
    .Farewell = TabardFarewell,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    (void)path;
    KeInitializeSpinLock(&Book.Lock);
    return DeskOpen(driver, &Ops, L"\\Device\\Tabard", L"\\DosDevices\\Tabard");
}

/*
 * solstice: the light plan of a greenhouse, a device without hardware that keeps what brightness is wanted at which minute of
 * the day. A control program writes the plan, any number of others ask what is wanted now.
 *
 * The bug: the resource that guards the plan is initialised whenever the device is started, and deleted only with the
 * device: a device that is stopped and started again initialises it a second time while it is in the system's list.
 *
 * Device: Root\SOLSTICE
 * Rule: resource-initialized-twice, resource-leak
 * Needs: nothing
 */
#include "../include/gate_and_turnstile.h"

#define IOCTL_SOLSTICE_SET      CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8c0, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SOLSTICE_ASK      CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8c1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SOLSTICE_CLEAR    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8c2, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SOLSTICE_PLAN     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8c3, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define POINTS      48
#define MINUTES     1440

typedef struct POINT {
    USHORT minute;
    USHORT permille;
} POINT;

typedef struct SOLSTICE {
    FR_DEV fr;
    ERESOURCE guard;
    BOOLEAN guarded;
    POINT point[POINTS];        /* by the minute */
    ULONG points;
} SOLSTICE;

static void Lock(SOLSTICE *s, BOOLEAN change)
{
    KeEnterCriticalRegion();
    if (change)
        ExAcquireResourceExclusiveLite(&s->guard, TRUE);
    else
        ExAcquireResourceSharedLite(&s->guard, TRUE);
}

static void Unlock(SOLSTICE *s)
{
    ExReleaseResourceLite(&s->guard);
    KeLeaveCriticalRegion();
}

static NTSTATUS Guard(SOLSTICE *s)
{
    NTSTATUS status = ExInitializeResourceLite(&s->guard);
    if (NT_SUCCESS(status))
        s->guarded = TRUE;
    return status;
}

static NTSTATUS Make(FR_DEV *dev)
{
#ifdef FIXED
    return Guard((SOLSTICE *)dev);
#else
    UNREFERENCED_PARAMETER(dev);
    return STATUS_SUCCESS;
#endif
}

static NTSTATUS Start(FR_DEV *dev, PCM_RESOURCE_LIST list)
{
    UNREFERENCED_PARAMETER(list);
#ifndef FIXED
    return Guard((SOLSTICE *)dev);
#else
    UNREFERENCED_PARAMETER(dev);
    return STATUS_SUCCESS;
#endif
}

static void Unmake(FR_DEV *dev)
{
    SOLSTICE *s = (SOLSTICE *)dev;
    if (s->guarded)
        ExDeleteResourceLite(&s->guard);
}

static NTSTATUS Set(SOLSTICE *s, const POINT *p)
{
    NTSTATUS status = STATUS_SUCCESS;
    POINT fresh = *p;
    ULONG i;
    if (fresh.minute >= MINUTES || fresh.permille > 1000)
        return STATUS_INVALID_PARAMETER;
    Lock(s, TRUE);
    for (i = 0; i < s->points && s->point[i].minute < fresh.minute; i++)
        ;
    if (i < s->points && s->point[i].minute == fresh.minute)
        s->point[i] = fresh;
    else if (s->points == POINTS)
        status = STATUS_QUOTA_EXCEEDED;
    else {
        RtlMoveMemory(&s->point[i + 1], &s->point[i], (s->points - i) * sizeof(POINT));
        s->point[i] = fresh;
        s->points++;
    }
    Unlock(s);
    return status;
}

/* Between two points the brightness changes evenly; before the first and behind the last it is theirs. */
static NTSTATUS Ask(SOLSTICE *s, ULONG minute, PULONG permille)
{
    NTSTATUS status = STATUS_SUCCESS;
    ULONG i;
    if (minute >= MINUTES)
        return STATUS_INVALID_PARAMETER;
    Lock(s, FALSE);
    for (i = 0; i < s->points && s->point[i].minute <= minute; i++)
        ;
    if (s->points == 0)
        status = STATUS_NOT_FOUND;
    else if (i == 0)
        *permille = s->point[0].permille;
    else if (i == s->points)
        *permille = s->point[i - 1].permille;
    else {
        const POINT *a = &s->point[i - 1], *b = &s->point[i];
        LONG span = b->minute - a->minute;      /* not 0: minutes differ */
        *permille = (ULONG)(a->permille + ((LONG)b->permille - (LONG)a->permille) * (LONG)(minute - a->minute) / span);
    }
    Unlock(s);
    return status;
}

static NTSTATUS Io(FR_DEV *dev, PIRP irp, PIO_STACK_LOCATION at, PULONG_PTR info)
{
    SOLSTICE *s = (SOLSTICE *)dev;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status;
    ULONG in, room, value;
    if (at->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    in = at->Parameters.DeviceIoControl.InputBufferLength;
    room = at->Parameters.DeviceIoControl.OutputBufferLength;
    switch (at->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SOLSTICE_SET:
        if (in < sizeof(POINT))
            return STATUS_BUFFER_TOO_SMALL;
        return Set(s, buffer);
    case IOCTL_SOLSTICE_ASK:
        if (in < sizeof(ULONG) || room < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        status = Ask(s, *(PULONG)buffer, &value);
        if (NT_SUCCESS(status)) {
            *(PULONG)buffer = value;
            *info = sizeof(ULONG);
        }
        return status;
    case IOCTL_SOLSTICE_CLEAR:
        Lock(s, TRUE);
        s->points = 0;
        Unlock(s);
        return STATUS_SUCCESS;
    case IOCTL_SOLSTICE_PLAN:
        Lock(s, FALSE);
        status = STATUS_BUFFER_TOO_SMALL;
        if (room >= s->points * sizeof(POINT)) {
            if (s->points)
                RtlCopyMemory(buffer, s->point, s->points * sizeof(POINT));
            *info = s->points * sizeof(POINT);
            status = STATUS_SUCCESS;
        }
        Unlock(s);
        return status;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static const GUID Guid = { 0x5a1e0001, 0x7c1b, 0x4d0e, { 0x91, 0x2a, 0x00, 0x5a, 0x5a, 0x00, 0x00, 0x0c } };
static const FR_OPS Ops = {
    .guid = &Guid, .size = sizeof(SOLSTICE), .flags = DO_BUFFERED_IO, .make = Make, .unmake = Unmake,
    .start = Start, .io = Io,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return FrDriver(driver, &Ops);
}

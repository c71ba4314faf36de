/*
 * bantam: knows which badges have been handed out at a fair's gates. Badges (a number and a name) are added and taken back one by one, and a list of all
 * that are out can be had: how many there are, and the badges themselves as far as there is room.
 *
 * The bug: where the caller's buffer is too small for the whole list, the driver answers STATUS_BUFFER_OVERFLOW, a warning, with the length of the whole
 * list as information: more is copied back than the buffer has, and more than the driver filled in.
 *
 * Device: Root\BANTAM
 * Rule: information-too-large
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#define FRAME_PNP
#include "../include/yard_frame.h"

#define BADGES      32
#define NAME_BYTES  12

#define IOCTL_BANTAM_OUT    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x851, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BANTAM_BACK   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x852, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BANTAM_LIST   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x853, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID BantamFace = { 0x6a1f40d2, 0x3b57, 0x4c0e, { 0x91, 0x22, 0x5e, 0x77, 0x10, 0xc3, 0x4a, 0x02 } };

typedef struct _BADGE {
    ULONG Number;
    CHAR Name[NAME_BYTES];
} BADGE;

typedef struct _BADGE_LIST {
    ULONG Count;                /* of those that are out */
    BADGE Badge[];
} BADGE_LIST;

typedef struct _DEV {
    FRAME F;
    FAST_MUTEX Mutex;
    ULONG Count;
    BADGE Badge[BADGES];
} DEV, *PDEV;

static NTSTATUS Setup(PFRAME F)
{
    ExInitializeFastMutex(&((PDEV)F)->Mutex);
    return STATUS_SUCCESS;
}

static NTSTATUS Start(PFRAME F, PCM_RESOURCE_LIST Translated)
{
    UNREFERENCED_PARAMETER(Translated);
    FrameUp(F);
    return STATUS_SUCCESS;
}

static VOID Stop(PFRAME F, BOOLEAN Gone)
{
    FrameDown(F, Gone);
}

/* Under the mutex: its index, or the count. */
static ULONG Seek(PDEV D, ULONG Number)
{
    ULONG i;

    for (i = 0; i < D->Count && D->Badge[i].Number != Number; i++)
        ;
    return i;
}

static NTSTATUS HandOut(PDEV D, PIRP Irp, ULONG In)
{
    const BADGE *badge = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = STATUS_SUCCESS;

    if (In < sizeof *badge)
        return Ends(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    ExAcquireFastMutex(&D->Mutex);
    if (Seek(D, badge->Number) != D->Count)
        status = STATUS_OBJECT_NAME_COLLISION;
    else if (D->Count == BADGES)
        status = STATUS_INSUFFICIENT_RESOURCES;
    else
        D->Badge[D->Count++] = *badge;
    ExReleaseFastMutex(&D->Mutex);
    return Ends(Irp, status, 0);
}

static NTSTATUS TakeBack(PDEV D, PIRP Irp, ULONG In)
{
    NTSTATUS status = STATUS_SUCCESS;
    ULONG i;

    if (In < sizeof(ULONG))
        return Ends(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    ExAcquireFastMutex(&D->Mutex);
    i = Seek(D, *(PULONG)Irp->AssociatedIrp.SystemBuffer);
    if (i == D->Count)
        status = STATUS_NOT_FOUND;
    else
        D->Badge[i] = D->Badge[--D->Count];
    ExReleaseFastMutex(&D->Mutex);
    return Ends(Irp, status, 0);
}

static NTSTATUS List(PDEV D, PIRP Irp, ULONG Out)
{
    BADGE_LIST *list = Irp->AssociatedIrp.SystemBuffer;
    ULONG room, whole, filled;

    if (Out < sizeof *list)
        return Ends(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    room = (Out - sizeof *list) / sizeof(BADGE);
    ExAcquireFastMutex(&D->Mutex);
    list->Count = D->Count;
    if (room > D->Count)
        room = D->Count;
    RtlCopyMemory(list->Badge, D->Badge, room * sizeof(BADGE));
    whole = sizeof *list + D->Count * sizeof(BADGE);
    filled = sizeof *list + room * sizeof(BADGE);
    ExReleaseFastMutex(&D->Mutex);
    if (filled < whole) {
#ifndef FIXED
        return Ends(Irp, STATUS_BUFFER_OVERFLOW, whole);
#else
        return Ends(Irp, STATUS_BUFFER_OVERFLOW, filled);
#endif
    }
    return Ends(Irp, STATUS_SUCCESS, filled);
}

static NTSTATUS Control(PFRAME F, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PDEV d = (PDEV)F;

    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BANTAM_OUT:
        return HandOut(d, Irp, Stack->Parameters.DeviceIoControl.InputBufferLength);
    case IOCTL_BANTAM_BACK:
        return TakeBack(d, Irp, Stack->Parameters.DeviceIoControl.InputBufferLength);
    case IOCTL_BANTAM_LIST:
        return List(d, Irp, Stack->Parameters.DeviceIoControl.OutputBufferLength);
    }
    return Ends(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static const FRAME_HOOKS Hooks = {
    .Bytes = sizeof(DEV),
    .Flags = DO_BUFFERED_IO,
    .Face = &BantamFace,
    .Setup = Setup,
    .Start = Start,
    .Stop = Stop,
    .Control = Control,
};

/*
 * MISSAL: the order of service of a hall: a program hands over the programme of an evening as a sequence of marked fields (title, length, colour of the lamps),
 * the driver keeps it, and displays ask for it. Fields of kinds that it does not know are passed over.
 *
 * The bug: a field takes a multiple of four bytes in the sequence, but the last one need not be filled up; the rest of the length is reckoned with the filling
 * all the same, falls below zero, and the walk goes on behind the input.
 *
 * Device: none
 * Rule: wild-read, pool-overrun, use-after-free
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#define FRAME_DESK
#include "../include/desk_or_rig.h"

#define MISSAL_SET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x811, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define MISSAL_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x812, METHOD_BUFFERED, FILE_READ_ACCESS)
#define MISSAL_CLEAR CTL_CODE(FILE_DEVICE_UNKNOWN, 0x813, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define KIND_TITLE 1
#define KIND_MINUTES 2
#define KIND_COLOUR 3

typedef struct _FIELD {
    USHORT Kind;
    USHORT Length;                  /* of what follows, without the filling */
} FIELD;

typedef struct _EVENING {
    ULONG Fields;
    ULONG Unknown;
    ULONG Minutes;
    ULONG Colour;
    ULONG TitleLength;
    CHAR Title[60];
} EVENING;

static KSPIN_LOCK Lock;
static EVENING Current;

static NTSTATUS TakeField(EVENING *evening, const FIELD *field, const UCHAR *body)
{
    switch (field->Kind) {
    case KIND_TITLE:
        if (field->Length > sizeof(evening->Title))
            return STATUS_INVALID_PARAMETER;
        RtlZeroMemory(evening->Title, sizeof(evening->Title));
        RtlCopyMemory(evening->Title, body, field->Length);
        evening->TitleLength = field->Length;
        break;
    case KIND_MINUTES:
        if (field->Length != sizeof(ULONG))
            return STATUS_INVALID_PARAMETER;
        RtlCopyMemory(&evening->Minutes, body, sizeof(ULONG));
        break;
    case KIND_COLOUR:
        if (field->Length != 3)
            return STATUS_INVALID_PARAMETER;
        evening->Colour = body[0] | body[1] << 8 | body[2] << 16;
        break;
    default:
        evening->Unknown++;
    }
    evening->Fields++;
    return STATUS_SUCCESS;
}

static NTSTATUS Parse(EVENING *evening, const UCHAR *at, ULONG left)
{
    RtlZeroMemory(evening, sizeof(*evening));
    while (left >= sizeof(FIELD)) {
        FIELD field;
        ULONG step;
        NTSTATUS status;

        RtlCopyMemory(&field, at, sizeof(field));
        if (field.Length > left - sizeof(FIELD))
            return STATUS_INVALID_PARAMETER;
        status = TakeField(evening, &field, at + sizeof(FIELD));
        if (!NT_SUCCESS(status))
            return status;
        step = (sizeof(FIELD) + field.Length + 3) & ~3u;
#ifdef FIXED
        if (step > left)
            step = left;
#endif
        at += step;
        left -= step;
    }
    return left == 0 ? STATUS_SUCCESS : STATUS_INVALID_PARAMETER;
}

static NTSTATUS MissalControl(TASK *task)
{
    EVENING evening;
    NTSTATUS status;
    KIRQL irql;

    switch (task->Code) {
    case MISSAL_SET:
        if (task->In < sizeof(FIELD))
            return STATUS_INVALID_PARAMETER;
        status = Parse(&evening, task->Buffer, task->In);
        if (!NT_SUCCESS(status))
            return status;
        KeAcquireSpinLock(&Lock, &irql);
        Current = evening;
        KeReleaseSpinLock(&Lock, irql);
        return STATUS_SUCCESS;

    case MISSAL_GET:
        if (task->Out < sizeof(EVENING))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&Lock, &irql);
        evening = Current;
        KeReleaseSpinLock(&Lock, irql);
        RtlCopyMemory(task->Buffer, &evening, sizeof(evening));
        task->Info = sizeof(evening);
        return STATUS_SUCCESS;

    case MISSAL_CLEAR:
        KeAcquireSpinLock(&Lock, &irql);
        RtlZeroMemory(&Current, sizeof(Current));
        KeReleaseSpinLock(&Lock, irql);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static const DESK_OPS Ops = {
    .Control = MissalControl,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    (void)path;
    KeInitializeSpinLock(&Lock);
    return DeskOpen(driver, &Ops, L"\\Device\\Missal", L"\\DosDevices\\Missal");
}

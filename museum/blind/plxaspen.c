/*
 * plxaspen: the local bus of a PLX PCI 9052 for programs that know their board. They read and write words of 32 bits in the first
 * window, up to 64 in one request.
 *
 * The bug: a request's place is checked in words, with the byte offset divided by four, but used in bytes, and nothing asks that the
 * offset be a multiple of four. One to three bytes behind the last word's beginning, the access goes past the window's end.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: device-access-past-mapping, wild-read, wild-write, io-space-outside
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/duty_frame.h"
#include "../include/duty_plx.h"

static const GUID AspenFace = { 0xd1f27b08, 0x7745, 0x4c69, { 0x92, 0x6d, 0xa0, 0x4e, 0x31, 0xb8, 0x5f, 0xc3 } };

#define IOCTL_ASPEN_READ  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8a8, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_ASPEN_WRITE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8a9, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_ASPEN_SIZE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8aa, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define ASPEN_MOST 64

typedef struct _ASPEN_PLACE {
    ULONG Offset;               /* bytes */
    ULONG Count;                /* words; those of a write follow */
} ASPEN_PLACE;

typedef struct _ASPEN {
    STATION St;
    BOOLEAN Ready;              /* these under the lane's lock */
    BOOLEAN Mapped;
    ULONG Accesses;
    PLX_WINDOW Window;
    ULONG Bytes;                /* of the window at the last start */
} ASPEN;

/* Whether all of a place lies in the window. */
static BOOLEAN AspenInside(const ASPEN *a, const ASPEN_PLACE *Place)
{
    ULONG words = a->Bytes / sizeof(ULONG);
    ULONG first = Place->Offset / sizeof(ULONG);

#ifdef FIXED
    if (Place->Offset % sizeof(ULONG) != 0)
        return FALSE;
#endif
    if (Place->Count == 0 || Place->Count > ASPEN_MOST)
        return FALSE;
    return first < words && Place->Count <= words - first;
}

/* One word, if the window can be used now. */
static BOOLEAN AspenWord(ASPEN *a, ULONG Offset, ULONG *Word, BOOLEAN Write)
{
    BOOLEAN ready;
    KIRQL irql;

    KeAcquireSpinLock(&a->St.Lane.Lock, &irql);
    ready = a->Ready;
    if (ready) {
        if (Write)
            plx_poke(&a->Window, Offset, *Word);
        else
            *Word = plx_peek(&a->Window, Offset);
        a->Accesses++;
    }
    KeReleaseSpinLock(&a->St.Lane.Lock, irql);
    return ready;
}

static NTSTATUS AspenRead(ASPEN *a, PVOID Buffer, ULONG In, ULONG Out, ULONG_PTR *Information)
{
    ASPEN_PLACE place;
    ULONG *words = Buffer;
    ULONG i;

    if (In < sizeof(place))
        return STATUS_INVALID_PARAMETER;
    place = *(ASPEN_PLACE *)Buffer;
    if (!AspenInside(a, &place))
        return STATUS_INVALID_PARAMETER;
    if (Out / sizeof(ULONG) < place.Count)
        return STATUS_BUFFER_TOO_SMALL;
    for (i = 0; i < place.Count; i++)
        if (!AspenWord(a, place.Offset + i * sizeof(ULONG), &words[i], FALSE))
            return STATUS_DEVICE_NOT_READY;
    *Information = place.Count * sizeof(ULONG);
    return STATUS_SUCCESS;
}

static NTSTATUS AspenWrite(ASPEN *a, const VOID *Buffer, ULONG In)
{
    const ASPEN_PLACE *place = Buffer;
    ULONG *words;
    ULONG i;

    if (In < sizeof(*place))
        return STATUS_INVALID_PARAMETER;
    if (!AspenInside(a, place) || (In - sizeof(*place)) / sizeof(ULONG) < place->Count)
        return STATUS_INVALID_PARAMETER;
    words = (ULONG *)(place + 1);
    for (i = 0; i < place->Count; i++)
        if (!AspenWord(a, place->Offset + i * sizeof(ULONG), &words[i], TRUE))
            return STATUS_DEVICE_NOT_READY;
    return STATUS_SUCCESS;
}

static VOID AspenState(ASPEN *a, BOOLEAN Mapped, BOOLEAN Ready)
{
    KIRQL irql;

    KeAcquireSpinLock(&a->St.Lane.Lock, &irql);
    a->Mapped = Mapped;
    a->Ready = Ready;
    KeReleaseSpinLock(&a->St.Lane.Lock, irql);
}

static NTSTATUS AspenEngage(STATION *St, PCM_RESOURCE_LIST Translated)
{
    ASPEN *a = CONTAINING_RECORD(St, ASPEN, St);
    NTSTATUS status = plx_open(Translated, &a->Window);

    if (!NT_SUCCESS(status))
        return status;
    a->Bytes = a->Window.Bytes;
    AspenState(a, TRUE, TRUE);
    return STATUS_SUCCESS;
}

static VOID AspenRelease(STATION *St, BOOLEAN Present)
{
    ASPEN *a = CONTAINING_RECORD(St, ASPEN, St);

    UNREFERENCED_PARAMETER(Present);
    AspenState(a, FALSE, FALSE);
    plx_shut(&a->Window);
}

static VOID AspenSleep(STATION *St)
{
    ASPEN *a = CONTAINING_RECORD(St, ASPEN, St);
    KIRQL irql;

    KeAcquireSpinLock(&St->Lane.Lock, &irql);
    a->Ready = FALSE;
    KeReleaseSpinLock(&St->Lane.Lock, irql);
}

static VOID AspenWake(STATION *St)
{
    ASPEN *a = CONTAINING_RECORD(St, ASPEN, St);
    KIRQL irql;

    KeAcquireSpinLock(&St->Lane.Lock, &irql);
    a->Ready = a->Mapped;
    KeReleaseSpinLock(&St->Lane.Lock, irql);
}

static NTSTATUS AspenServe(STATION *St, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    ASPEN *a = CONTAINING_RECORD(St, ASPEN, St);
    ULONG in = Sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;

    if (Sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ASPEN_READ:
        return AspenRead(a, buffer, in, out, &Irp->IoStatus.Information);
    case IOCTL_ASPEN_WRITE:
        return AspenWrite(a, buffer, in);
    case IOCTL_ASPEN_SIZE:
        if (out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        *(ULONG *)buffer = a->Bytes;
        Irp->IoStatus.Information = sizeof(ULONG);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static const DUTIES AspenDuties = {
    .Bytes = sizeof(ASPEN), .Face = &AspenFace, .Engage = AspenEngage, .Release = AspenRelease, .Sleep = AspenSleep,
    .Wake = AspenWake, .Serve = AspenServe,
};

STATION_DRIVER(AspenDuties)

/*
 * palettd: translates indices to colours by a palette that a program hands over: one palette for all, replaced as a whole.
 *
 * The bug: a new palette frees the old one before the memory for the new one is there; when that allocation fails the device goes on
 * with the freed palette (and frees it once more later).
 *
 * Device: ROOT\PALETTD
 * Rule: double-free
 * Needs: failure
 */
#define CK_HAS_UNDO
#include "../include/kept_in_order.h"

#define PL_TAG   'dlaP'
#define PL_MOST  4096u

#define IOCTL_PL_SET   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9a0, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_PL_MAP   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9a1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PL_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9a2, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PL_CLEAR CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9a3, METHOD_BUFFERED, FILE_WRITE_ACCESS)

static const GUID PlGuid = { 0x6d1f3a10, 0x4b0e, 0x4c7a, { 0x8e, 0x21, 0x11, 0x5a, 0x3c, 0x70, 0x90, 0x05 } };

typedef struct _PL_SET {
    ULONG Count;
    ULONG Missing;                          /* the colour of an index beyond the palette */
    ULONG Colour[1];
} PL_SET, *PPL_SET;

typedef struct _PL_STATE {
    ULONG Count, Missing;
    ULONG64 Mapped, Missed;
} PL_STATE, *PPL_STATE;

/* Requests come one at a time, no lock of its own. */
typedef struct _PL_EXT {
    CK K;
    PULONG Palette;                         /* NULL: none */
    ULONG Count, Missing;
    ULONG64 Mapped, Missed;
} PL_EXT, *PPL_EXT;

static NTSTATUS HwCheck(PCK k, PIRP irp, PIO_STACK_LOCATION s, PULONG_PTR info)
{
    ULONG in = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = s->Parameters.DeviceIoControl.OutputBufferLength;
    PPL_SET set = irp->AssociatedIrp.SystemBuffer;

    UNREFERENCED_PARAMETER(k);
    UNREFERENCED_PARAMETER(info);
    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PL_SET:
        if (in < FIELD_OFFSET(PL_SET, Colour))
            return STATUS_BUFFER_TOO_SMALL;
        if (set->Count == 0 || set->Count > PL_MOST)
            return STATUS_INVALID_PARAMETER;
        if ((in - FIELD_OFFSET(PL_SET, Colour)) / sizeof(ULONG) < set->Count)
            return STATUS_INVALID_PARAMETER;
        return STATUS_PENDING;
    case IOCTL_PL_MAP:                      /* in place: an index in, a colour out */
        if (in == 0 || in % sizeof(ULONG) != 0 || in > PL_MOST * sizeof(ULONG))
            return STATUS_INVALID_PARAMETER;
        if (out < in)
            return STATUS_BUFFER_TOO_SMALL;
        return STATUS_PENDING;
    case IOCTL_PL_STATE:
        if (out < sizeof(PL_STATE))
            return STATUS_BUFFER_TOO_SMALL;
        return STATUS_PENDING;
    case IOCTL_PL_CLEAR:
        return STATUS_PENDING;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS PlSet(PPL_EXT x, const PL_SET *set)
{
    ULONG bytes = set->Count * sizeof(ULONG);       /* checked: at most PL_MOST */
    PULONG fresh;

#ifndef FIXED
    if (x->Palette != NULL)
        ExFreePoolWithTag(x->Palette, PL_TAG);
#endif
    fresh = ExAllocatePoolWithTag(NonPagedPool, bytes, PL_TAG);
    if (fresh == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
#ifdef FIXED
    if (x->Palette != NULL)
        ExFreePoolWithTag(x->Palette, PL_TAG);
#endif
    RtlCopyMemory(fresh, (const UCHAR *)set + FIELD_OFFSET(PL_SET, Colour), bytes);
    x->Palette = fresh;
    x->Count = set->Count;
    x->Missing = set->Missing;
    return STATUS_SUCCESS;
}

static VOID PlClear(PPL_EXT x)
{
    if (x->Palette != NULL) {
        ExFreePoolWithTag(x->Palette, PL_TAG);
        x->Palette = NULL;
        x->Count = 0;
    }
}

static NTSTATUS PlMap(PPL_EXT x, PULONG item, ULONG count)
{
    ULONG i;

    if (x->Palette == NULL)
        return STATUS_INVALID_DEVICE_STATE;
    for (i = 0; i < count; i++) {
        if (item[i] < x->Count) {
            item[i] = x->Palette[item[i]];
            x->Mapped++;
        } else {
            item[i] = x->Missing;
            x->Missed++;
        }
    }
    return STATUS_SUCCESS;
}

static NTSTATUS HwBegin(PCK k, PIRP irp, PULONG_PTR info)
{
    PPL_EXT x = (PPL_EXT)k;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(irp);
    ULONG in = s->Parameters.DeviceIoControl.InputBufferLength;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status;
    PPL_STATE state;

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PL_SET:
        return PlSet(x, buffer);
    case IOCTL_PL_CLEAR:
        PlClear(x);
        return STATUS_SUCCESS;
    case IOCTL_PL_MAP:
        status = PlMap(x, buffer, in / sizeof(ULONG));
        if (NT_SUCCESS(status))
            *info = in;
        return status;
    default:
        state = buffer;
        state->Count = x->Count;
        state->Missing = x->Missing;
        state->Mapped = x->Mapped;
        state->Missed = x->Missed;
        *info = sizeof *state;
        return STATUS_SUCCESS;
    }
}

/* The palette outlives a stop. */
static NTSTATUS HwStart(PCK k, PCK_RES r)
{
    UNREFERENCED_PARAMETER(k);
    UNREFERENCED_PARAMETER(r);
    return STATUS_SUCCESS;
}

static VOID HwStop(PCK k, BOOLEAN touch)
{
    UNREFERENCED_PARAMETER(k);
    UNREFERENCED_PARAMETER(touch);
}

static VOID HwUndo(PCK k)
{
    PlClear((PPL_EXT)k);
}

static NTSTATUS NTAPI PlAdd(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    return CkAdd(drv, pdo, sizeof(PL_EXT), &PlGuid, DO_BUFFERED_IO, NULL);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    CkEntry(drv, PlAdd);
    return STATUS_SUCCESS;
}

/*
 * porthole: lets a diagnostic program look at the registers of a sensor card: so many registers from an offset on, of any of the card's windows. It also answers how
 * large the windows are.
 *
 * The bug: the end of what is asked for, and its size, are calculated in 32 bits. A count with one of the upper two bits set, or an offset near 4 GB, wraps around and
 * passes both checks, and the loop reads and writes far past the window and the buffer.
 *
 * Device: PCI\VEN_1D6A&DEV_0702
 * Rule: device-access-past-mapping, device-memory-not-mapped, pool-overrun, wild-read, wild-write, bad-pointer, port-of-no-device
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#define FRAME_STATION
#define FRAME_CARD
#include "../include/park_frame.h"

static const GUID PortholeInterface = { 0x6a1f0d52, 0x3b52, 0x4b0e, { 0x91, 0x7d, 0x20, 0x11, 0x5c, 0x3a, 0x44, 0x32 } };

#define IOCTL_PORTHOLE_WINDOWS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F1, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* answers a WINDOWS */
#define IOCTL_PORTHOLE_LOOK    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F2, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* a VIEW; answers the registers */
#define IOCTL_PORTHOLE_LOOKS   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F3, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* answers how many were looked at */

typedef struct _VIEW {
    ULONG Window;
    ULONG Offset;
    ULONG Count;     /* registers of 32 bits */
} VIEW;

typedef struct _WINDOWS {
    ULONG Count;
    ULONG Length[6];
    ULONG Port[6];
} WINDOWS;

typedef struct _PORTHOLE {
    STATION Station;
    CARD Card;
    LONG Looks;
} PORTHOLE;

static NTSTATUS PortholeStart(STATION *S, PCM_RESOURCE_LIST Translated)
{
    PORTHOLE *p = (PORTHOLE *)S;
    NTSTATUS status = CardClaim(&p->Card, Translated);
    if (NT_SUCCESS(status) && !p->Card.Windows)
        status = STATUS_DEVICE_CONFIGURATION_ERROR;
    return status;
}

static VOID PortholeStop(STATION *S, BOOLEAN Reachable)
{
    UNREFERENCED_PARAMETER(Reachable);
    CardRelease(&((PORTHOLE *)S)->Card);
}

static NTSTATUS Look(PORTHOLE *P, PIRP Irp, ULONG In, ULONG Out)
{
    VIEW v;
    CARD_WINDOW *w;
    ULONG i, *to = Irp->AssociatedIrp.SystemBuffer;
    if (In < sizeof v)
        return StationEnd(&P->Station, Irp, STATUS_INVALID_PARAMETER, 0);
    v = *(VIEW *)Irp->AssociatedIrp.SystemBuffer;
    if (v.Window >= P->Card.Windows || (v.Offset & 3) || !v.Count)
        return StationEnd(&P->Station, Irp, STATUS_INVALID_PARAMETER, 0);
    w = &P->Card.Window[v.Window];
#ifndef FIXED
    if (v.Offset + v.Count * (ULONG)sizeof(ULONG) > w->Length)
        return StationEnd(&P->Station, Irp, STATUS_INVALID_PARAMETER, 0);
    if (Out < v.Count * (ULONG)sizeof(ULONG))
        return StationEnd(&P->Station, Irp, STATUS_BUFFER_TOO_SMALL, 0);
#else
    if (v.Offset >= w->Length || v.Count > (w->Length - v.Offset) / sizeof(ULONG))
        return StationEnd(&P->Station, Irp, STATUS_INVALID_PARAMETER, 0);
    if (v.Count > Out / sizeof(ULONG))
        return StationEnd(&P->Station, Irp, STATUS_BUFFER_TOO_SMALL, 0);
#endif
    for (i = 0; i < v.Count; i++)
        to[i] = CardRead(w, v.Offset + i * sizeof(ULONG));
    InterlockedExchangeAdd(&P->Looks, (LONG)v.Count);
    return StationEnd(&P->Station, Irp, STATUS_SUCCESS, v.Count * sizeof(ULONG));
}

static NTSTATUS PortholeIo(STATION *S, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    PORTHOLE *p = (PORTHOLE *)S;
    ULONG in, out, i;
    if (Sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return StationEnd(S, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    in = Sp->Parameters.DeviceIoControl.InputBufferLength;
    out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PORTHOLE_WINDOWS: {
        WINDOWS *all = Irp->AssociatedIrp.SystemBuffer;
        if (out < sizeof *all)
            return StationEnd(S, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        RtlZeroMemory(all, sizeof *all);
        all->Count = p->Card.Windows;
        for (i = 0; i < p->Card.Windows; i++) {
            all->Length[i] = p->Card.Window[i].Length;
            all->Port[i] = p->Card.Window[i].Port;
        }
        return StationEnd(S, Irp, STATUS_SUCCESS, sizeof *all);
    }
    case IOCTL_PORTHOLE_LOOK:
        return Look(p, Irp, in, out);
    case IOCTL_PORTHOLE_LOOKS:
        if (out < sizeof(LONG))
            return StationEnd(S, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        *(LONG *)Irp->AssociatedIrp.SystemBuffer = InterlockedCompareExchange(&p->Looks, 0, 0);
        return StationEnd(S, Irp, STATUS_SUCCESS, sizeof(LONG));
    default:
        return StationEnd(S, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static const STATION_OPS StationOps = {
    .Size = sizeof(PORTHOLE),
    .Type = FILE_DEVICE_UNKNOWN,
    .Flags = DO_BUFFERED_IO,
    .Interface = &PortholeInterface,
    .Start = PortholeStart,
    .Stop = PortholeStop,
    .Io = PortholeIo,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return StationEntry(Driver);
}

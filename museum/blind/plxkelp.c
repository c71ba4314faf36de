/*
 * plxkelp: a window on the board's local space 0 for the maker's service program. It reads runs of registers of 32 bits and writes
 * single ones.
 *
 * The bug: a run that is too long is cut to the number of registers that the whole window has, not to those that are left behind
 * its offset, so a run from anywhere but the beginning reads past the window's mapping.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: device-access-past-mapping, device-memory-not-mapped, wild-read, bad-pointer
 * Needs: ioctl
 */
#include <initguid.h>
#include <ddk/wdm.h>
#include "../include/gated_frame.h"
#include "../include/gated_plx.h"

#define KELP_LEAST 0x20
#define IOCTL_KELP_PEEK CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C0, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_KELP_POKE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C1, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_KELP_SIZE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C2, METHOD_BUFFERED, FILE_ANY_ACCESS)

DEFINE_GUID(KELP_CLASS, 0x6b1d0a31, 0x51c4, 0x4a60, 0x9a, 0x0e, 0x21, 0x5d, 0x0c, 0x77, 0x14, 0x11);

typedef struct _KELP_RUN {
    ULONG Offset;               /* in bytes, a multiple of four */
    ULONG Count;                /* of registers; 0 is as many as there are */
} KELP_RUN, *PKELP_RUN;

typedef struct _KELP_POKE {
    ULONG Offset;
    ULONG Value;
} KELP_POKE, *PKELP_POKE;

typedef struct _KELP {
    BOARD Board;
    PLX Plx;
} KELP, *PKELP;

/* Answers how many registers were read. */
static ULONG KelpPeek(PKELP k, KELP_RUN Run, PULONG To, ULONG Room)
{
    ULONG i, most;

#ifndef FIXED
    most = k->Plx.WindowBytes / sizeof(ULONG);
#else
    most = (k->Plx.WindowBytes - Run.Offset) / sizeof(ULONG);
#endif
    if (Run.Count == 0 || Run.Count > most)
        Run.Count = most;
    if (Run.Count > Room)
        Run.Count = Room;
    for (i = 0; i < Run.Count; i++)
        To[i] = PlxPeek(&k->Plx, Run.Offset + i * sizeof(ULONG));
    return Run.Count;
}

static BOOLEAN KelpRight(PKELP k, ULONG Offset)
{
    return Offset % sizeof(ULONG) == 0 && Offset < k->Plx.WindowBytes;
}

/* Inside the gate: the window is mapped, the board has power. */
static NTSTATUS KelpAwake(PKELP k, PIRP Irp, PIO_STACK_LOCATION Stack, PULONG_PTR Information)
{
    ULONG in = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    PULONG buffer = Irp->AssociatedIrp.SystemBuffer;
    KELP_POKE poke;
    KELP_RUN run;

    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_KELP_PEEK:
        if (in < sizeof(run) || out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        run = *(PKELP_RUN)buffer;
        if (!KelpRight(k, run.Offset))
            return STATUS_INVALID_PARAMETER;
        *Information = KelpPeek(k, run, buffer, out / sizeof(ULONG)) * sizeof(ULONG);
        return STATUS_SUCCESS;

    case IOCTL_KELP_POKE:
        if (in < sizeof(poke))
            return STATUS_BUFFER_TOO_SMALL;
        poke = *(PKELP_POKE)buffer;
        if (!KelpRight(k, poke.Offset))
            return STATUS_INVALID_PARAMETER;
        PlxPoke(&k->Plx, poke.Offset, poke.Value);
        return STATUS_SUCCESS;

    case IOCTL_KELP_SIZE:
        if (out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        *buffer = k->Plx.WindowBytes;
        *Information = sizeof(ULONG);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS KelpIo(PBOARD Board, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    ULONG_PTR information = 0;
    NTSTATUS status;

    if (Stack->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return BoardFinish(Board, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (!GateEnter(&Board->Run))
        return BoardFinish(Board, Irp, STATUS_DEVICE_NOT_READY, 0);
    status = KelpAwake(CONTAINING_RECORD(Board, KELP, Board), Irp, Stack, &information);
    GateLeave(&Board->Run);
    return BoardFinish(Board, Irp, status, information);
}

/* This driver wants no interrupts of the board. */
static VOID KelpWake(PBOARD Board)
{
    PlxWrite(&CONTAINING_RECORD(Board, KELP, Board)->Plx, PLX_INTCSR, 0);
}

static VOID KelpQuiet(PBOARD Board, BOOLEAN Present)
{
    UNREFERENCED_PARAMETER(Board);
    UNREFERENCED_PARAMETER(Present);
}

static VOID KelpDrain(PBOARD Board)
{
    UNREFERENCED_PARAMETER(Board);
}

static NTSTATUS KelpStart(PBOARD Board, PCM_PARTIAL_RESOURCE_LIST List)
{
    return PlxMap(&CONTAINING_RECORD(Board, KELP, Board)->Plx, List, KELP_LEAST);
}

static VOID KelpStop(PBOARD Board)
{
    PlxUnmap(&CONTAINING_RECORD(Board, KELP, Board)->Plx);
}

static NTSTATUS KelpBegin(PBOARD Board)
{
    UNREFERENCED_PARAMETER(Board);
    return STATUS_SUCCESS;
}

static VOID KelpEnd(PBOARD Board)
{
    UNREFERENCED_PARAMETER(Board);
}

static const BOARD_KIND KelpKind = {
    .Bytes = sizeof(KELP), .Flags = DO_BUFFERED_IO, .Class = &KELP_CLASS,
    .Begin = KelpBegin, .End = KelpEnd, .Start = KelpStart, .Stop = KelpStop, .Wake = KelpWake, .Quiet = KelpQuiet,
    .Drain = KelpDrain, .Io = KelpIo,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return BoardDriver(DriverObject, &KelpKind);
}

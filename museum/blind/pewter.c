/*
 * pewter: reads and writes blocks of the memory of a board behind a PLX bridge, byte by byte, word by word or long word by long word,
 * as the chips on the board want it.
 *
 * The bug: the routine that reads long words counts long words, but is given the length in bytes, so it reads four times as much: beyond
 * the buffer, and for larger blocks beyond the window.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: pool-overrun, wild-write, device-access-past-mapping, device-memory-not-mapped
 * Needs: ioctl, device
 */
#include <ddk/wdm.h>
#include "../include/shell_frame.h"
#include "../include/shell_plx.h"

#define PEWTER_READ     CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA01, METHOD_BUFFERED, FILE_READ_ACCESS)     /* in: BLOCK; out: the bytes */
#define PEWTER_WRITE    CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA02, METHOD_BUFFERED, FILE_WRITE_ACCESS)    /* in: BLOCK and the bytes */
#define PEWTER_EXTENT   CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA03, METHOD_BUFFERED, FILE_ANY_ACCESS)      /* out: ULONG, the bytes of the window */

#define PEWTER_MOST     4096

typedef struct BLOCK {
    ULONG Offset;
    ULONG Length;           /* in bytes */
    ULONG Width;            /* 1, 2 or 4 */
} BLOCK;

typedef struct PEWTER {
    SHELL Shell;
    WINDOW Board;
} PEWTER;

static const GUID PewterInterface = { 0x60b3d7c4, 0xe82a, 0x4a1d, { 0x9b, 0x74, 0x05, 0xcc, 0x41, 0x8e, 0x1f, 0x07 } };

static VOID PewterReadBytes(PUCHAR From, PUCHAR To, ULONG Count)
{
    while (Count-- != 0)
        *To++ = READ_REGISTER_UCHAR(From++);
}

static VOID PewterReadWords(PUCHAR From, PUSHORT To, ULONG Count)
{
    for (; Count != 0; Count--, From += sizeof(USHORT))
        *To++ = READ_REGISTER_USHORT((PUSHORT)From);
}

static VOID PewterReadLongs(PUCHAR From, PULONG To, ULONG Count)
{
    for (; Count != 0; Count--, From += sizeof(ULONG))
        *To++ = READ_REGISTER_ULONG((PULONG)From);
}

static VOID PewterRead(PEWTER *Pewter, const BLOCK *Block, PVOID To)
{
    PUCHAR from = Pewter->Board.At + Block->Offset;

    switch (Block->Width) {
    case sizeof(UCHAR):
        PewterReadBytes(from, To, Block->Length);
        break;
    case sizeof(USHORT):
        PewterReadWords(from, To, Block->Length / sizeof(USHORT));
        break;
    case sizeof(ULONG):
#ifndef FIXED
        PewterReadLongs(from, To, Block->Length);
#else
        PewterReadLongs(from, To, Block->Length / sizeof(ULONG));
#endif
        break;
    }
}

static VOID PewterWrite(PEWTER *Pewter, const BLOCK *Block, const UCHAR *From)
{
    PUCHAR to = Pewter->Board.At + Block->Offset;
    ULONG done;

    for (done = 0; done < Block->Length; done += Block->Width) {
        switch (Block->Width) {
        case sizeof(UCHAR):
            WRITE_REGISTER_UCHAR(to + done, From[done]);
            break;
        case sizeof(USHORT):
            WRITE_REGISTER_USHORT((PUSHORT)(to + done), *(const USHORT *)(From + done));
            break;
        case sizeof(ULONG):
            WRITE_REGISTER_ULONG((PULONG)(to + done), *(const ULONG *)(From + done));
            break;
        }
    }
}

static NTSTATUS PewterCheck(PEWTER *Pewter, const BLOCK *Block)
{
    if (Block->Width != sizeof(UCHAR) && Block->Width != sizeof(USHORT) && Block->Width != sizeof(ULONG))
        return STATUS_INVALID_PARAMETER;
    if (Block->Offset % Block->Width != 0 || Block->Length % Block->Width != 0)
        return STATUS_DATATYPE_MISALIGNMENT_ERROR;
    if (Block->Length > PEWTER_MOST || Block->Offset > Pewter->Board.Bytes || Block->Length > Pewter->Board.Bytes - Block->Offset)
        return STATUS_INVALID_PARAMETER;
    return STATUS_SUCCESS;
}

static NTSTATUS PewterBegin(SHELL *Shell, PCM_RESOURCE_LIST Resources)
{
    return WindowMap(&((PEWTER *)Shell)->Board, PlxBoard(Resources), sizeof(ULONG));
}

static VOID PewterEnd(SHELL *Shell, BOOLEAN Present)
{
    UNREFERENCED_PARAMETER(Present);
    WindowUnmap(&((PEWTER *)Shell)->Board);
}

static NTSTATUS PewterServe(SHELL *Shell, PIRP Irp, PIO_STACK_LOCATION At)
{
    PEWTER *pewter = (PEWTER *)Shell;
    PUCHAR buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = At->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = At->Parameters.DeviceIoControl.OutputBufferLength;
    NTSTATUS status;
    BLOCK block;

    if (At->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return Settle(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (At->Parameters.DeviceIoControl.IoControlCode) {
    case PEWTER_READ:
        if (in < sizeof(BLOCK))
            return Settle(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        block = *(BLOCK *)buffer;       /* the bytes come to the same place */
        status = PewterCheck(pewter, &block);
        if (NT_SUCCESS(status) && out < block.Length)
            status = STATUS_BUFFER_TOO_SMALL;
        if (!NT_SUCCESS(status))
            return Settle(Irp, status, 0);
        PewterRead(pewter, &block, buffer);
        return Settle(Irp, STATUS_SUCCESS, block.Length);

    case PEWTER_WRITE:
        if (in < sizeof(BLOCK))
            return Settle(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        block = *(BLOCK *)buffer;
        status = PewterCheck(pewter, &block);
        if (NT_SUCCESS(status) && in - sizeof(BLOCK) < block.Length)
            status = STATUS_BUFFER_TOO_SMALL;
        if (!NT_SUCCESS(status))
            return Settle(Irp, status, 0);
        PewterWrite(pewter, &block, buffer + sizeof(BLOCK));
        return Settle(Irp, STATUS_SUCCESS, 0);

    case PEWTER_EXTENT:
        if (out < sizeof(ULONG))
            return Settle(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        *(ULONG *)buffer = pewter->Board.Bytes;
        return Settle(Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    return Settle(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static const SHELL_TRADE PewterTrade = {
    .Size = sizeof(PEWTER), .Interface = &PewterInterface,
    .Begin = PewterBegin, .End = PewterEnd, .Serve = PewterServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return ShellEntry(Driver, &PewterTrade);
}

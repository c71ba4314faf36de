/*
 * teasel: takes snapshots of the registers of a board behind a PLX bridge, for its maker's service people: the first bytes of each of
 * its memory windows are read in one go, and fetched by a program.
 *
 * The bug: where starting fails after some windows were mapped, the loop that unmaps them again ends before the first one.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: io-space-leak, io-space-still-mapped
 * Needs: failure, device
 */
#include <ddk/wdm.h>
#include "../include/shell_frame.h"
#include "../include/shell_plx.h"

#define TEASEL_TAKE     CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA11, METHOD_BUFFERED, FILE_READ_ACCESS)
#define TEASEL_FETCH    CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA12, METHOD_BUFFERED, FILE_READ_ACCESS)     /* in: ULONG, the window; out: its bytes */
#define TEASEL_WINDOWS  CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA13, METHOD_BUFFERED, FILE_ANY_ACCESS)      /* out: ULONG */

#define TEASEL_TAG      'saeT'
#define TEASEL_MOST     6           /* a card has no more windows */
#define TEASEL_DEPTH    0x54        /* bytes of each window */

typedef struct TEASEL {
    SHELL Shell;
    LONG Count;
    WINDOW Windows[TEASEL_MOST];
    FAST_MUTEX Mutex;
    BOOLEAN Taken;                  /* with the mutex */
    PULONG Snapshot;                /* TEASEL_DEPTH bytes for each window */
} TEASEL;

static const GUID TeaselInterface = { 0xb81f6d20, 0x3c97, 0x4e45, { 0xa2, 0x18, 0xd9, 0x60, 0x3b, 0xf4, 0x72, 0x08 } };

static ULONG TeaselDepth(const WINDOW *Window)
{
    return Window->Bytes < TEASEL_DEPTH ? Window->Bytes / sizeof(ULONG) * sizeof(ULONG) : TEASEL_DEPTH;
}

static PULONG TeaselPlace(TEASEL *Teasel, LONG Window)
{
    return Teasel->Snapshot + Window * (TEASEL_DEPTH / sizeof(ULONG));
}

static VOID TeaselTake(TEASEL *Teasel)
{
    LONG window;
    ULONG offset;

    for (window = 0; window < Teasel->Count; window++) {
        PULONG place = TeaselPlace(Teasel, window);
        for (offset = 0; offset < TeaselDepth(&Teasel->Windows[window]); offset += sizeof(ULONG))
            *place++ = RegRead(&Teasel->Windows[window], offset);
    }
    Teasel->Taken = TRUE;
}

static NTSTATUS TeaselFetch(TEASEL *Teasel, ULONG Window, PVOID To, ULONG Length, ULONG *Fetched)
{
    ULONG depth;

    if (Window >= (ULONG)Teasel->Count)
        return STATUS_INVALID_PARAMETER;
    if (!Teasel->Taken)
        return STATUS_INVALID_DEVICE_STATE;
    depth = TeaselDepth(&Teasel->Windows[Window]);
    if (Length < depth)
        return STATUS_BUFFER_TOO_SMALL;
    RtlCopyMemory(To, TeaselPlace(Teasel, (LONG)Window), depth);
    *Fetched = depth;
    return STATUS_SUCCESS;
}

static NTSTATUS TeaselFound(SHELL *Shell)
{
    ExInitializeFastMutex(&((TEASEL *)Shell)->Mutex);
    return STATUS_SUCCESS;
}

static NTSTATUS TeaselBegin(SHELL *Shell, PCM_RESOURCE_LIST Resources)
{
    TEASEL *teasel = (TEASEL *)Shell;
    LONG count = (LONG)IronCount(Resources, CmResourceTypeMemory), i;
    NTSTATUS status;

    if (count == 0)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    if (count > TEASEL_MOST)
        count = TEASEL_MOST;
    for (i = 0; i < count; i++) {
        status = WindowMap(&teasel->Windows[i], IronFind(Resources, CmResourceTypeMemory, (ULONG)i), 1);
        if (!NT_SUCCESS(status))
            goto unmap;
    }
    teasel->Snapshot = ExAllocatePoolWithTag(PagedPool, (SIZE_T)count * TEASEL_DEPTH, TEASEL_TAG);
    if (teasel->Snapshot == NULL) {
        status = STATUS_INSUFFICIENT_RESOURCES;
        goto unmap;
    }
    teasel->Count = count;
    teasel->Taken = FALSE;
    return STATUS_SUCCESS;

unmap:
#ifndef FIXED
    while (--i > 0)
#else
    while (--i >= 0)
#endif
        WindowUnmap(&teasel->Windows[i]);
    return status;
}

static VOID TeaselEnd(SHELL *Shell, BOOLEAN Present)
{
    TEASEL *teasel = (TEASEL *)Shell;
    LONG i;

    UNREFERENCED_PARAMETER(Present);
    ExFreePoolWithTag(teasel->Snapshot, TEASEL_TAG);
    teasel->Snapshot = NULL;
    for (i = 0; i < teasel->Count; i++)
        WindowUnmap(&teasel->Windows[i]);
    teasel->Count = 0;
}

static NTSTATUS TeaselServe(SHELL *Shell, PIRP Irp, PIO_STACK_LOCATION At)
{
    TEASEL *teasel = (TEASEL *)Shell;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = At->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = At->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG information = 0;
    NTSTATUS status;

    if (At->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return Settle(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    ExAcquireFastMutex(&teasel->Mutex);
    switch (At->Parameters.DeviceIoControl.IoControlCode) {
    case TEASEL_TAKE:
        TeaselTake(teasel);
        status = STATUS_SUCCESS;
        break;

    case TEASEL_FETCH:
        if (in < sizeof(ULONG))
            status = STATUS_BUFFER_TOO_SMALL;
        else
            status = TeaselFetch(teasel, *(ULONG *)buffer, buffer, out, &information);
        break;

    case TEASEL_WINDOWS:
        if (out < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        *(ULONG *)buffer = (ULONG)teasel->Count;
        information = sizeof(ULONG);
        status = STATUS_SUCCESS;
        break;

    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    ExReleaseFastMutex(&teasel->Mutex);
    return Settle(Irp, status, information);
}

static const SHELL_TRADE TeaselTrade = {
    .Size = sizeof(TEASEL), .Interface = &TeaselInterface,
    .Found = TeaselFound, .Begin = TeaselBegin, .End = TeaselEnd, .Serve = TeaselServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return ShellEntry(Driver, &TeaselTrade);
}

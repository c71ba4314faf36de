/*
 * zither: announcements between programs. What one program writes is delivered to all reads that wait at that moment; a read that finds
 * nothing waits for the next announcement. An old driver, whose cancel logic is built around the system's cancel spin lock.
 *
 * The bug: the cancel routine takes the lock of the list while it still has the cancel spin lock, and delivering takes the cancel spin
 * lock while it has the lock of the list: a deadlock, when a read is cancelled while an announcement is written.
 *
 * Device: Root\ZITHER
 * Rule: lock-order-inversion, spin-lock-deadlock
 * Needs: cancel, schedule
 */
#include <ddk/wdm.h>
#include "../include/shell_frame.h"

#define ZITHER_COUNT    CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB11, METHOD_BUFFERED, FILE_ANY_ACCESS)      /* out: COUNTS */

#define ZITHER_MOST     512

typedef struct COUNTS {
    ULONG Announced;
    ULONG Delivered;
} COUNTS;

typedef struct ZITHER {
    SHELL Shell;
    KSPIN_LOCK Lock;            /* of all that follows */
    LIST_ENTRY Reads;
    NTSTATUS Shut;              /* if it is no success: what reads are refused with */
    COUNTS Counts;
} ZITHER;

static const GUID ZitherInterface = { 0x16ce5d48, 0xf40b, 0x4b6e, { 0x8b, 0xf9, 0x2c, 0x70, 0xa9, 0x1d, 0x64, 0x0d } };

static VOID NTAPI ZitherCancel(PDEVICE_OBJECT Device, PIRP Irp)
{
    ZITHER *zither = Device->DeviceExtension;
#ifndef FIXED
    KeAcquireSpinLockAtDpcLevel(&zither->Lock);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLockFromDpcLevel(&zither->Lock);
    IoReleaseCancelSpinLock(Irp->CancelIrql);
#else
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&zither->Lock, &irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&zither->Lock, irql);
#endif
    Settle(Irp, STATUS_CANCELLED, 0);
}

/*
 * With the lock: moves the reads (of a file, or all) that are not being cancelled to another list. Those that are stay, as their cancel
 * routine takes them out.
 */
static VOID ZitherGather(ZITHER *Zither, PFILE_OBJECT File, PLIST_ENTRY To)
{
    PLIST_ENTRY at = Zither->Reads.Flink;

    while (at != &Zither->Reads) {
        PIRP irp = CONTAINING_RECORD(at, IRP, Tail.Overlay.ListEntry);
        PDRIVER_CANCEL routine;
        KIRQL irql;

        at = at->Flink;
        if (File != NULL && IoGetCurrentIrpStackLocation(irp)->FileObject != File)
            continue;
        IoAcquireCancelSpinLock(&irql);
        routine = IoSetCancelRoutine(irp, NULL);
        IoReleaseCancelSpinLock(irql);
        if (routine == NULL)
            continue;
        RemoveEntryList(&irp->Tail.Overlay.ListEntry);
        InsertTailList(To, &irp->Tail.Overlay.ListEntry);
    }
}

static VOID ZitherEnd(PLIST_ENTRY Reads, NTSTATUS Status, const VOID *Text, ULONG Length)
{
    while (!IsListEmpty(Reads)) {
        PIRP irp = CONTAINING_RECORD(RemoveHeadList(Reads), IRP, Tail.Overlay.ListEntry);
        ULONG take = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length;

        if (take > Length)
            take = Length;
        if (take != 0)
            RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, Text, take);
        Settle(irp, Status, take);
    }
}

static VOID ZitherAnnounce(ZITHER *Zither, const VOID *Text, ULONG Length)
{
    LIST_ENTRY reads, *entry;
    KIRQL irql;

    InitializeListHead(&reads);
    KeAcquireSpinLock(&Zither->Lock, &irql);
    ZitherGather(Zither, NULL, &reads);
    Zither->Counts.Announced++;
    for (entry = reads.Flink; entry != &reads; entry = entry->Flink)
        Zither->Counts.Delivered++;
    KeReleaseSpinLock(&Zither->Lock, irql);
    ZitherEnd(&reads, STATUS_SUCCESS, Text, Length);
}

static NTSTATUS ZitherRead(ZITHER *Zither, PIRP Irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    BOOLEAN cancelled = FALSE;
    NTSTATUS status;
    KIRQL irql;

    KeAcquireSpinLock(&Zither->Lock, &irql);
    status = Zither->Shut;
    if (NT_SUCCESS(status) && FileHasLeft(file))
        status = STATUS_CANCELLED;
    if (NT_SUCCESS(status)) {
        status = STATUS_PENDING;
        IoMarkIrpPending(Irp);
        InsertTailList(&Zither->Reads, &Irp->Tail.Overlay.ListEntry);
        IoSetCancelRoutine(Irp, ZitherCancel);
        if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
            RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
            cancelled = TRUE;
        }
    }
    KeReleaseSpinLock(&Zither->Lock, irql);
    if (cancelled)
        Settle(Irp, STATUS_CANCELLED, 0);
    else if (status != STATUS_PENDING)
        Settle(Irp, status, 0);
    return status;
}

static NTSTATUS ZitherFound(SHELL *Shell)
{
    ZITHER *zither = (ZITHER *)Shell;

    KeInitializeSpinLock(&zither->Lock);
    InitializeListHead(&zither->Reads);
    zither->Shut = STATUS_SUCCESS;
    return STATUS_SUCCESS;
}

static VOID ZitherDesert(SHELL *Shell)
{
    ZITHER *zither = (ZITHER *)Shell;
    LIST_ENTRY reads;
    KIRQL irql;

    InitializeListHead(&reads);
    KeAcquireSpinLock(&zither->Lock, &irql);
    zither->Shut = STATUS_DEVICE_REMOVED;
    ZitherGather(zither, NULL, &reads);
    KeReleaseSpinLock(&zither->Lock, irql);
    ZitherEnd(&reads, STATUS_DEVICE_REMOVED, NULL, 0);
}

static VOID ZitherQuit(SHELL *Shell, PFILE_OBJECT File)
{
    ZITHER *zither = (ZITHER *)Shell;
    LIST_ENTRY reads;
    KIRQL irql;

    InitializeListHead(&reads);
    KeAcquireSpinLock(&zither->Lock, &irql);
    ZitherGather(zither, File, &reads);
    KeReleaseSpinLock(&zither->Lock, irql);
    ZitherEnd(&reads, STATUS_CANCELLED, NULL, 0);
}

static NTSTATUS ZitherServe(SHELL *Shell, PIRP Irp, PIO_STACK_LOCATION At)
{
    ZITHER *zither = (ZITHER *)Shell;
    ULONG length;
    KIRQL irql;

    switch (At->MajorFunction) {
    case IRP_MJ_READ:
        return ZitherRead(zither, Irp);

    case IRP_MJ_WRITE:
        length = At->Parameters.Write.Length;
        if (length > ZITHER_MOST)
            return Settle(Irp, STATUS_INVALID_PARAMETER, 0);
        ZitherAnnounce(zither, Irp->AssociatedIrp.SystemBuffer, length);
        return Settle(Irp, STATUS_SUCCESS, length);

    case IRP_MJ_DEVICE_CONTROL:
        if (At->Parameters.DeviceIoControl.IoControlCode != ZITHER_COUNT)
            break;
        if (At->Parameters.DeviceIoControl.OutputBufferLength < sizeof(COUNTS))
            return Settle(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&zither->Lock, &irql);
        *(COUNTS *)Irp->AssociatedIrp.SystemBuffer = zither->Counts;
        KeReleaseSpinLock(&zither->Lock, irql);
        return Settle(Irp, STATUS_SUCCESS, sizeof(COUNTS));
    }
    return Settle(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static const SHELL_TRADE ZitherTrade = {
    .Size = sizeof(ZITHER), .Interface = &ZitherInterface, .IoFlags = DO_BUFFERED_IO,
    .Found = ZitherFound, .Desert = ZitherDesert, .Serve = ZitherServe, .Quit = ZitherQuit,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return ShellEntry(Driver, &ZitherTrade);
}

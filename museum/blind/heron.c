/*
 * heron: a bulletin between services. A write posts a notice, up to 64 bytes, for the reader that has waited longest; if no one
 * waits it is kept, up to eight of them. A read takes the oldest notice, or waits for the next. A program may ask how many are kept.
 *
 * The bug: when a handle is closed its waiting reads are taken out of the queue and completed without their cancel routine being
 * taken back. They are completed with it still set, and a cancellation on another processor completes them once more.
 *
 * Device: none
 * Rule: cancel-routine-set, double-completion, cancel-after-completion, use-after-free, list-corrupt, list-damaged
 * Needs: ioctl, cancel
 */
#define SITE_CONTROL
#include "../include/site_frame.h"

#define IOCTL_HERON_KEPT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x941, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_HERON_CLEAR CTL_CODE(FILE_DEVICE_UNKNOWN, 0x942, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define NOTICE_BYTES 64u
#define MOST_KEPT    8u

typedef struct NOTICE {
    ULONG Length;
    UCHAR Bytes[NOTICE_BYTES];
} NOTICE;

typedef struct HERON {
    SITE Site;
    KSPIN_LOCK Lock;        /* guards what is below, and the lane */
    LANE Readers;           /* reads that wait; empty while notices are kept */
    NOTICE Kept[MOST_KEPT];
    ULONG First;
    ULONG Count;
} HERON;

/* Gives a read, which is the caller's, as much of a notice as it takes. */
static NTSTATUS HeronAnswer(HERON *heron, PIRP irp, const NOTICE *notice)
{
    ULONG room = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length;
    ULONG length = notice->Length < room ? notice->Length : room;

    if (length != 0)
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, notice->Bytes, length);
    return Finish(&heron->Site, irp, STATUS_SUCCESS, length);
}

static NTSTATUS HeronRead(HERON *heron, ASK *ask)
{
    BOOLEAN there = TRUE;
    NOTICE notice;
    KIRQL irql;

    KeAcquireSpinLock(&heron->Lock, &irql);
    if (heron->Count != 0) {
        notice = heron->Kept[heron->First];
        heron->First = (heron->First + 1) % MOST_KEPT;
        heron->Count -= 1;
        KeReleaseSpinLock(&heron->Lock, irql);
        return HeronAnswer(heron, ask->Irp, &notice);
    }
    there = LanePutLocked(&heron->Readers, ask->Irp);
    KeReleaseSpinLock(&heron->Lock, irql);
    if (!there)
        Finish(&heron->Site, ask->Irp, STATUS_CANCELLED, 0);
    return STATUS_PENDING;
}

static NTSTATUS HeronWrite(HERON *heron, ASK *ask)
{
    NTSTATUS status = STATUS_SUCCESS;
    NOTICE notice;
    PIRP reader;
    KIRQL irql;

    if (ask->In == 0 || ask->In > NOTICE_BYTES)
        return Finish(&heron->Site, ask->Irp, STATUS_INVALID_PARAMETER, 0);
    RtlZeroMemory(&notice, sizeof notice);
    notice.Length = ask->In;
    RtlCopyMemory(notice.Bytes, ask->Buffer, ask->In);
    KeAcquireSpinLock(&heron->Lock, &irql);
    reader = LaneTakeLocked(&heron->Readers, NULL);
    if (reader == NULL) {
        if (heron->Count == MOST_KEPT) {
            status = STATUS_DEVICE_BUSY;
        } else {
            heron->Kept[(heron->First + heron->Count) % MOST_KEPT] = notice;
            heron->Count += 1;
        }
    }
    KeReleaseSpinLock(&heron->Lock, irql);
    if (reader != NULL)
        HeronAnswer(heron, reader, &notice);
    return Finish(&heron->Site, ask->Irp, status, NT_SUCCESS(status) ? ask->In : 0);
}

static NTSTATUS HeronServe(SITE *site, ASK *ask)
{
    HERON *heron = (HERON *)site;
    ULONG count;
    KIRQL irql;

    if (ask->Major == IRP_MJ_READ)
        return HeronRead(heron, ask);
    if (ask->Major == IRP_MJ_WRITE)
        return HeronWrite(heron, ask);
    switch (ask->Code) {
    case IOCTL_HERON_KEPT:
        if (ask->Out < sizeof(ULONG))
            return Finish(site, ask->Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&heron->Lock, &irql);
        count = heron->Count;
        KeReleaseSpinLock(&heron->Lock, irql);
        *(PULONG)ask->Buffer = count;
        return Finish(site, ask->Irp, STATUS_SUCCESS, sizeof(ULONG));
    case IOCTL_HERON_CLEAR:
        KeAcquireSpinLock(&heron->Lock, &irql);
        heron->Count = 0;
        KeReleaseSpinLock(&heron->Lock, irql);
        return Finish(site, ask->Irp, STATUS_SUCCESS, 0);
    default:
        return Finish(site, ask->Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

/* A handle is closed: its reads are over. */
static VOID HeronLeave(SITE *site, PFILE_OBJECT file)
{
    HERON *heron = (HERON *)site;
#ifndef FIXED
    LIST_ENTRY over;
    PLIST_ENTRY entry, next;
    KIRQL irql;

    InitializeListHead(&over);
    KeAcquireSpinLock(&heron->Lock, &irql);
    for (entry = heron->Readers.Head.Flink; entry != &heron->Readers.Head; entry = next) {
        PIRP irp = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);

        next = entry->Flink;
        if (IoGetCurrentIrpStackLocation(irp)->FileObject == file) {
            RemoveEntryList(entry);
            InsertTailList(&over, entry);
        }
    }
    KeReleaseSpinLock(&heron->Lock, irql);
    while (!IsListEmpty(&over)) {
        entry = RemoveHeadList(&over);
        Finish(site, CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry), STATUS_CANCELLED, 0);
    }
#else
    LaneSweep(&heron->Readers, file, STATUS_CANCELLED);
#endif
}

static VOID HeronDrop(SITE *site, NTSTATUS status)
{
    LaneSweep(&((HERON *)site)->Readers, NULL, status);
}

static NTSTATUS HeronBorn(SITE *site)
{
    HERON *heron = (HERON *)site;

    KeInitializeSpinLock(&heron->Lock);
    LaneInit(&heron->Readers, site, &heron->Lock);
    return STATUS_SUCCESS;
}

static const SCRIPT Script = {
    .Size = sizeof(HERON),
    .Device = L"\\Device\\Heron",
    .Link = L"\\DosDevices\\Heron",
    .Born = HeronBorn,
    .Leave = HeronLeave,
    .Drop = HeronDrop,
    .Serve = HeronServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return ControlEntry(driver, &Script);
}

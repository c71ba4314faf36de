/*
 * JUNCTION: a message junction with eight tracks. Every open handle of \\.\Junction stands on one track and has a ring of the last
 * sixteen messages that came along it; a handle can send to any track, fetch what has come, change to another track (which empties
 * its ring) and ask how many stand on each.
 *
 * The bug: changing the track takes the handle's lock and then the junction's, sending takes them the other way round; the two hold up
 * each other for ever on two processors.
 *
 * Device: none
 * Rule: lock-order-inversion, spin-lock-deadlock
 * Needs: schedule
 */
#include "../include/quay_base.h"

#define TRACKS  8
#define RING    16

#define IOCTL_SEND      AI_CTL(0, METHOD_BUFFERED)      /* in: NOTE */
#define IOCTL_FETCH     AI_CTL(1, METHOD_BUFFERED)      /* out: NOTE */
#define IOCTL_CHANGE    AI_CTL(2, METHOD_BUFFERED)      /* in: ULONG track */
#define IOCTL_CENSUS    AI_CTL(3, METHOD_BUFFERED)      /* out: ULONG[TRACKS] */

typedef struct _NOTE {
    ULONG Track;
    UCHAR Text[28];
} NOTE;

typedef struct _JUNCTION {
    KSPIN_LOCK Lock;                /* Stands, On, every stand's Listed; before a stand's own lock */
    LIST_ENTRY Stands;
    ULONG On[TRACKS];
} JUNCTION;

typedef struct _STAND {
    LIST_ENTRY Link;
    BOOLEAN Listed;
    KSPIN_LOCK Lock;                /* the rest; Track is changed with both locks held */
    ULONG Track;
    ULONG First, Count;
    NOTE Ring[RING];
} STAND;

static PDEVICE_OBJECT Device;

static VOID Send(JUNCTION *j, NOTE *note)
{
    PLIST_ENTRY e;
    KIRQL q;

    KeAcquireSpinLock(&j->Lock, &q);
    for (e = j->Stands.Flink; e != &j->Stands; e = e->Flink) {
        STAND *s = CONTAINING_RECORD(e, STAND, Link);

        if (s->Track != note->Track)
            continue;
        KeAcquireSpinLockAtDpcLevel(&s->Lock);
        s->Ring[(s->First + s->Count) % RING] = *note;
        if (s->Count < RING)
            s->Count++;
        else
            s->First = (s->First + 1) % RING;       /* the oldest gives way */
        KeReleaseSpinLockFromDpcLevel(&s->Lock);
    }
    KeReleaseSpinLock(&j->Lock, q);
}

static BOOLEAN Fetch(STAND *s, NOTE *note)
{
    BOOLEAN any;
    KIRQL q;

    KeAcquireSpinLock(&s->Lock, &q);
    any = s->Count != 0;
    if (any) {
        *note = s->Ring[s->First];
        s->First = (s->First + 1) % RING;
        s->Count--;
    }
    KeReleaseSpinLock(&s->Lock, q);
    return any;
}

static NTSTATUS Change(JUNCTION *j, STAND *s, ULONG track)
{
    NTSTATUS status = STATUS_FILE_CLOSED;
    KIRQL q;

#ifdef FIXED
    KeAcquireSpinLock(&j->Lock, &q);
    KeAcquireSpinLockAtDpcLevel(&s->Lock);
#else
    KeAcquireSpinLock(&s->Lock, &q);
    KeAcquireSpinLockAtDpcLevel(&j->Lock);
#endif
    if (s->Listed) {
        j->On[s->Track]--;
        j->On[track]++;
        s->Track = track;
        s->First = s->Count = 0;
        status = STATUS_SUCCESS;
    }
#ifdef FIXED
    KeReleaseSpinLockFromDpcLevel(&s->Lock);
    KeReleaseSpinLock(&j->Lock, q);
#else
    KeReleaseSpinLockFromDpcLevel(&j->Lock);
    KeReleaseSpinLock(&s->Lock, q);
#endif
    return status;
}

static VOID Census(JUNCTION *j, PULONG out)
{
    KIRQL q;

    KeAcquireSpinLock(&j->Lock, &q);
    RtlCopyMemory(out, j->On, sizeof j->On);
    KeReleaseSpinLock(&j->Lock, q);
}

static NTSTATUS NTAPI Create(PDEVICE_OBJECT dev, PIRP irp)
{
    JUNCTION *j = dev->DeviceExtension;
    STAND *s = ExAllocatePoolWithTag(NonPagedPool, sizeof *s, AI_TAG);
    KIRQL q;

    if (!s)
        return AiDone(irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(s, sizeof *s);
    KeInitializeSpinLock(&s->Lock);
    AiStack(irp)->FileObject->FsContext = s;
    KeAcquireSpinLock(&j->Lock, &q);
    InsertTailList(&j->Stands, &s->Link);
    s->Listed = TRUE;
    j->On[s->Track]++;
    KeReleaseSpinLock(&j->Lock, q);
    return AiDone(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    JUNCTION *j = dev->DeviceExtension;
    STAND *s = AiStack(irp)->FileObject->FsContext;
    KIRQL q;

    KeAcquireSpinLock(&j->Lock, &q);
    if (s->Listed) {
        RemoveEntryList(&s->Link);
        s->Listed = FALSE;
        j->On[s->Track]--;
    }
    KeReleaseSpinLock(&j->Lock, q);
    return AiDone(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Close(PDEVICE_OBJECT dev, PIRP irp)
{
    UNREFERENCED_PARAMETER(dev);
    ExFreePoolWithTag(AiStack(irp)->FileObject->FsContext, AI_TAG);
    return AiDone(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT dev, PIRP irp)
{
    JUNCTION *j = dev->DeviceExtension;
    STAND *s = AiStack(irp)->FileObject->FsContext;
    PVOID buffer = AiBuffer(irp);
    ULONG in = AiInLen(irp), out = AiOutLen(irp);

    switch (AiCode(irp)) {
    case IOCTL_SEND:
        if (in < sizeof(NOTE) || ((NOTE *)buffer)->Track >= TRACKS)
            return AiDone(irp, STATUS_INVALID_PARAMETER, 0);
        Send(j, buffer);
        return AiDone(irp, STATUS_SUCCESS, 0);

    case IOCTL_FETCH:
        if (out < sizeof(NOTE))
            return AiDone(irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (!Fetch(s, buffer))
            return AiDone(irp, STATUS_NO_MORE_ENTRIES, 0);
        return AiDone(irp, STATUS_SUCCESS, sizeof(NOTE));

    case IOCTL_CHANGE:
        if (in < sizeof(ULONG) || *(PULONG)buffer >= TRACKS)
            return AiDone(irp, STATUS_INVALID_PARAMETER, 0);
        return AiDone(irp, Change(j, s, *(PULONG)buffer), 0);

    case IOCTL_CENSUS:
        if (out < TRACKS * sizeof(ULONG))
            return AiDone(irp, STATUS_BUFFER_TOO_SMALL, 0);
        Census(j, buffer);
        return AiDone(irp, STATUS_SUCCESS, TRACKS * sizeof(ULONG));

    default:
        return AiDone(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI Unload(PDRIVER_OBJECT drv)
{
    UNREFERENCED_PARAMETER(drv);
    AiDropControl(Device, L"\\DosDevices\\Junction");
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    JUNCTION *j;
    NTSTATUS s;

    UNREFERENCED_PARAMETER(path);
    drv->MajorFunction[IRP_MJ_CREATE] = Create;
    drv->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    drv->MajorFunction[IRP_MJ_CLOSE] = Close;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    drv->DriverUnload = Unload;
    s = AiMakeControl(drv, sizeof(JUNCTION), L"\\Device\\Junction", L"\\DosDevices\\Junction", &Device);
    if (!NT_SUCCESS(s))
        return s;
    j = Device->DeviceExtension;
    KeInitializeSpinLock(&j->Lock);
    InitializeListHead(&j->Stands);
    return STATUS_SUCCESS;
}

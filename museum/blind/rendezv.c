/*
 * rendezv: two programs that name the same place meet there: each gets the visiting card that the other one brought. Who comes first waits for the
 * other one, until it comes, or the request is cancelled.
 *
 * The bug: who comes second takes the first one's cancel routine away without looking whether it was still there: if the first one is being cancelled at that
 * moment, both complete its request, and it is taken out of the list twice.
 *
 * Device: none
 * Rule: double-completion, list-corrupt, irp-in-use, cancel-after-completion, use-after-free
 * Needs: ioctl, cancel, schedule
 */
#include <ddk/wdm.h>
#define FRAME_RAFT
#include "../include/raft_or_hull.h"

#define IOCTL_RENDEZV_MEET  CTL_CODE(FILE_DEVICE_UNKNOWN, 0xa20, METHOD_BUFFERED, FILE_READ_ACCESS | FILE_WRITE_ACCESS)
#define IOCTL_RENDEZV_LEAVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xa21, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_RENDEZV_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xa22, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct CARD {
    ULONG Place;
    CHAR Name[28];
} CARD;

typedef struct COUNT {
    ULONG Waiting;
    ULONG Met;
} COUNT;

typedef struct REND {
    KSPIN_LOCK Lock;            /* for all below */
    LIST_ENTRY Waiting;
    COUNT Count;
} REND;

static VOID NTAPI RendCancel(PDEVICE_OBJECT Device, PIRP Irp)
{
    REND *x = Device->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&x->Lock, &irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    x->Count.Waiting--;
    KeReleaseSpinLock(&x->Lock, irql);
    RaftReply(Irp, STATUS_CANCELLED, 0);
}

/* Out of the list; who is being cancelled stays in it. Lock is held. */
static BOOLEAN RendTake(REND *x, PIRP Irp)
{
    if (!IoSetCancelRoutine(Irp, NULL))
        return FALSE;
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    x->Count.Waiting--;
    return TRUE;
}

/* Who waits at the place, if someone does. Lock is held. */
static PIRP RendFind(REND *x, ULONG Place)
{
    PLIST_ENTRY e;

    for (e = x->Waiting.Flink; e != &x->Waiting; e = e->Flink) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (((CARD *)irp->AssociatedIrp.SystemBuffer)->Place != Place)
            continue;
#ifndef FIXED
        IoSetCancelRoutine(irp, NULL);
        RemoveEntryList(e);
        x->Count.Waiting--;
        return irp;
#else
        if (RendTake(x, irp))
            return irp;
#endif
    }
    return NULL;
}

static NTSTATUS RendMeet(REND *x, PIRP Irp, ULONG_PTR *Info)
{
    CARD *mine = Irp->AssociatedIrp.SystemBuffer, card = *mine;
    KIRQL irql;
    PIRP other;

    KeAcquireSpinLock(&x->Lock, &irql);
    other = RendFind(x, card.Place);
    if (other) {
        CARD *theirs = other->AssociatedIrp.SystemBuffer;

        *mine = *theirs;
        *theirs = card;
        x->Count.Met++;
        KeReleaseSpinLock(&x->Lock, irql);
        RaftReply(other, STATUS_SUCCESS, sizeof(CARD));
        *Info = sizeof(CARD);
        return STATUS_SUCCESS;
    }
    IoMarkIrpPending(Irp);
    InsertTailList(&x->Waiting, &Irp->Tail.Overlay.ListEntry);
    x->Count.Waiting++;
    IoSetCancelRoutine(Irp, RendCancel);
    if (Irp->Cancel && RendTake(x, Irp)) {
        KeReleaseSpinLock(&x->Lock, irql);
        RaftReply(Irp, STATUS_CANCELLED, 0);
        return STATUS_PENDING;
    }
    KeReleaseSpinLock(&x->Lock, irql);
    return STATUS_PENDING;
}

/* All of a file's requests end. */
static VOID RendLeave(PVOID own, PFILE_OBJECT File)
{
    REND *x = own;

    for (;;) {
        PIRP irp = NULL;
        PLIST_ENTRY e;
        KIRQL irql;

        KeAcquireSpinLock(&x->Lock, &irql);
        for (e = x->Waiting.Flink; e != &x->Waiting && !irp; e = e->Flink) {
            PIRP found = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

            if (IoGetCurrentIrpStackLocation(found)->FileObject == File && RendTake(x, found)) {
                irp = found;
                break;
            }
        }
        KeReleaseSpinLock(&x->Lock, irql);
        if (!irp)
            return;
        RaftReply(irp, STATUS_CANCELLED, 0);
    }
}

static NTSTATUS RendAsk(PVOID own, PIRP Irp, PIO_STACK_LOCATION Sl, ULONG_PTR *Info)
{
    REND *x = own;
    ULONG in, room;
    COUNT count;
    KIRQL irql;

    if (Sl->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    in = Sl->Parameters.DeviceIoControl.InputBufferLength;
    room = Sl->Parameters.DeviceIoControl.OutputBufferLength;
    switch (Sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_RENDEZV_MEET:
        if (in < sizeof(CARD) || room < sizeof(CARD))
            return STATUS_BUFFER_TOO_SMALL;
        return RendMeet(x, Irp, Info);
    case IOCTL_RENDEZV_LEAVE:
        RendLeave(x, Sl->FileObject);
        return STATUS_SUCCESS;
    case IOCTL_RENDEZV_COUNT:
        if (room < sizeof count)
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&x->Lock, &irql);
        count = x->Count;
        KeReleaseSpinLock(&x->Lock, irql);
        *(COUNT *)Irp->AssociatedIrp.SystemBuffer = count;
        *Info = sizeof count;
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS RendRig(PVOID own, PUNICODE_STRING RegistryPath)
{
    REND *x = own;

    (void)RegistryPath;
    KeInitializeSpinLock(&x->Lock);
    InitializeListHead(&x->Waiting);
    return STATUS_SUCCESS;
}

static const RAFT_PLAN RendPlan = {
    .Device = L"\\Device\\Rendezv", .Link = L"\\DosDevices\\Rendezv", .Room = sizeof(REND),
    .Rig = RendRig, .Leave = RendLeave, .Ask = RendAsk,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    return RaftLaunch(Driver, RegistryPath, &RendPlan);
}

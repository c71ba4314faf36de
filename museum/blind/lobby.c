/*
 * LOBBY: a waiting lobby (root device). IOCTL_WAIT waits until the party of that number is called; IOCTL_SEAT, from another handle,
 * calls the party that waits longest under a number and gives it a table and a note; IOCTL_WAITING counts who waits. The waiting
 * requests are in a cancel-safe queue of the driver's own.
 *
 * The bug: the queue's peek routine starts at the head again instead of behind the request it is given; when that request is just being
 * cancelled, IoCsqRemoveNextIrp asks for it over and over, with the queue's lock held that the cancelling waits for.
 *
 * Device: ROOT\LOBBY
 * Rule: csq-peek-repeated
 * Needs: cancel, schedule
 */
#include "../include/quay_pnp.h"

#define IOCTL_WAIT      AI_CTL(0, METHOD_BUFFERED)      /* in: ULONG party, out: SEAT */
#define IOCTL_SEAT      AI_CTL(1, METHOD_BUFFERED)      /* in: SEAT */
#define IOCTL_WAITING   AI_CTL(2, METHOD_BUFFERED)      /* out: ULONG */

static const GUID LobbyGuid = { 0x2f6b1c10, 0x77a1, 0x4e0b, { 0x91, 0x3c, 0x5a, 0x01, 0x6e, 0x20, 0x44, 0x01 } };

typedef struct _SEAT {
    ULONG Party;
    ULONG Table;
    CHAR Note[24];
} SEAT;

typedef struct _LOBBY {
    AI_FDO F;
    IO_CSQ Csq;
    KSPIN_LOCK Lock;
    LIST_ENTRY List;
    ULONG Count;
} LOBBY;

/* whom to look for */
typedef struct _WHOM {
    PFILE_OBJECT File;              /* NULL: of any handle */
    BOOLEAN AnyParty;
    ULONG Party;
} WHOM;

#define PARTY_OF(irp) ((ULONG)(ULONG_PTR)(irp)->Tail.Overlay.DriverContext[0])

static LOBBY *FromCsq(PIO_CSQ csq)
{
    return CONTAINING_RECORD(csq, LOBBY, Csq);
}

static VOID NTAPI LobbyInsert(PIO_CSQ csq, PIRP irp)
{
    LOBBY *l = FromCsq(csq);

    InsertTailList(&l->List, &irp->Tail.Overlay.ListEntry);
    l->Count++;
}

static VOID NTAPI LobbyRemove(PIO_CSQ csq, PIRP irp)
{
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
    FromCsq(csq)->Count--;
}

static PIRP NTAPI LobbyPeek(PIO_CSQ csq, PIRP irp, PVOID context)
{
    LOBBY *l = FromCsq(csq);
    WHOM *whom = context;
    PLIST_ENTRY e = l->List.Flink;

#ifdef FIXED
    if (irp)
        e = irp->Tail.Overlay.ListEntry.Flink;
#else
    UNREFERENCED_PARAMETER(irp);
#endif
    for (; e != &l->List; e = e->Flink) {
        PIRP i = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (whom->File && AiStack(i)->FileObject != whom->File)
            continue;
        if (!whom->AnyParty && PARTY_OF(i) != whom->Party)
            continue;
        return i;
    }
    return NULL;
}

static VOID NTAPI LobbyLock(PIO_CSQ csq, PKIRQL irql)
{
    KeAcquireSpinLock(&FromCsq(csq)->Lock, irql);
}

static VOID NTAPI LobbyUnlock(PIO_CSQ csq, KIRQL irql)
{
    KeReleaseSpinLock(&FromCsq(csq)->Lock, irql);
}

static VOID NTAPI LobbyCanceled(PIO_CSQ csq, PIRP irp)
{
    AiFinish(&FromCsq(csq)->F, irp, STATUS_CANCELLED, 0);
}

static VOID SendAway(LOBBY *l, PFILE_OBJECT file, NTSTATUS s)
{
    WHOM whom = { file, TRUE, 0 };
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&l->Csq, &whom)) != NULL)
        AiFinish(&l->F, irp, s, 0);
}

static NTSTATUS Seat(LOBBY *l, SEAT *seat)
{
    WHOM whom = { NULL, FALSE, seat->Party };
    PIRP irp = IoCsqRemoveNextIrp(&l->Csq, &whom);

    if (!irp)
        return STATUS_NOT_FOUND;
    RtlCopyMemory(AiBuffer(irp), seat, sizeof *seat);
    AiFinish(&l->F, irp, STATUS_SUCCESS, sizeof *seat);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT dev, PIRP irp)
{
    LOBBY *l = dev->DeviceExtension;
    SEAT seat;
    KIRQL q;
    NTSTATUS s = AiEnter(&l->F, irp);

    if (!NT_SUCCESS(s))
        return AiDone(irp, s, 0);

    switch (AiCode(irp)) {
    case IOCTL_WAIT:
        if (AiInLen(irp) < sizeof(ULONG))
            return AiExit(&l->F, irp, STATUS_INVALID_PARAMETER, 0);
        if (AiOutLen(irp) < sizeof(SEAT))
            return AiExit(&l->F, irp, STATUS_BUFFER_TOO_SMALL, 0);
        irp->Tail.Overlay.DriverContext[0] = (PVOID)(ULONG_PTR)*(PULONG)AiBuffer(irp);
        IoCsqInsertIrp(&l->Csq, irp, NULL);
        AiLeaveGate(&l->F);
        return STATUS_PENDING;

    case IOCTL_SEAT:
        if (AiInLen(irp) < sizeof(SEAT))
            return AiExit(&l->F, irp, STATUS_INVALID_PARAMETER, 0);
        RtlCopyMemory(&seat, AiBuffer(irp), sizeof seat);
        return AiExit(&l->F, irp, Seat(l, &seat), 0);

    case IOCTL_WAITING:
        if (AiOutLen(irp) < sizeof(ULONG))
            return AiExit(&l->F, irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&l->Lock, &q);
        *(PULONG)AiBuffer(irp) = l->Count;
        KeReleaseSpinLock(&l->Lock, q);
        return AiExit(&l->F, irp, STATUS_SUCCESS, sizeof(ULONG));

    default:
        return AiExit(&l->F, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    SendAway(dev->DeviceExtension, AiStack(irp)->FileObject, STATUS_CANCELLED);
    return AiDone(irp, STATUS_SUCCESS, 0);
}

static VOID Flush(PAI_FDO f)
{
    SendAway((LOBBY *)f, NULL, STATUS_NO_SUCH_DEVICE);
}

static const AI_OPS Ops = { .Flush = Flush };

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    PVOID p;
    LOBBY *l;
    NTSTATUS s = AiAdd(drv, pdo, sizeof(LOBBY), &Ops, &LobbyGuid, 0, &p);

    if (!NT_SUCCESS(s))
        return s;
    l = p;
    KeInitializeSpinLock(&l->Lock);
    InitializeListHead(&l->List);
    IoCsqInitialize(&l->Csq, LobbyInsert, LobbyRemove, LobbyPeek, LobbyLock, LobbyUnlock, LobbyCanceled);
    AiReady(&l->F);
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    AiEntry(drv, AddDevice, Control);
    drv->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    return STATUS_SUCCESS;
}

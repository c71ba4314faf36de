/*
 * plover: a recorder for two trigger inputs of a board. Each edge at one of the chip's local interrupt inputs becomes an event with a
 * time and a serial number; up to 128 are kept for the program that reads them, which may wait for the next one.
 *
 * The bug: the lookaside list of the events is initialized whenever the device is started, but deleted only when it is removed. When
 * the device is stopped and started again a list that is in use is initialized once more.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: lookaside-initialized-twice, lookaside-leak, pool-leak
 * Needs: removal
 */
#include "../include/site_frame.h"
#include "../include/site_plx.h"

DEFINE_GUID(GUID_PLOVER, 0x5a0c71e1, 0x2b1f, 0x4c55, 0x91, 0x02, 0x3d, 0x77, 0x10, 0x4e, 0x5b, 0x0B);

#define PLOVER_TAG 'volP'

#define IOCTL_PLOVER_FORGET CTL_CODE(FILE_DEVICE_UNKNOWN, 0xAA1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PLOVER_LOST   CTL_CODE(FILE_DEVICE_UNKNOWN, 0xAA2, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define MOST_EVENTS 128u

typedef struct EDGE {
    ULONGLONG When;
    ULONG Inputs;               /* bit 0 and bit 1 */
    ULONG Serial;
} EDGE;

typedef struct EVENT {
    LIST_ENTRY Link;
    EDGE Edge;
} EVENT;

typedef struct PLOVER {
    PLX Plx;
    NPAGED_LOOKASIDE_LIST Pool;
    BOOLEAN Pooled;             /* Pool is initialized */
    LIST_ENTRY Events;          /* under Site.WaitingLock, as all that follows; empty while a read waits */
    ULONG Count;
    ULONG Serial;
    ULONG Lost;
} PLOVER;

static VOID NTAPI PloverDpc(PKDPC dpc, PVOID context, PVOID one, PVOID two)
{
    PLOVER *plover = context;
    SITE *site = &plover->Plx.Site;
    EVENT *event;
    PIRP irp;
    EDGE edge;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(one);
    UNREFERENCED_PARAMETER(two);
    edge.When = KeQueryInterruptTime();
    edge.Inputs = (ULONG)InterlockedExchange(&plover->Plx.Fired, 0);
    if (edge.Inputs == 0)
        return;
    KeAcquireSpinLockAtDpcLevel(&site->WaitingLock);
    edge.Serial = plover->Serial++;
    irp = LaneTakeLocked(&site->Waiting, NULL);
    if (irp == NULL) {
        event = NULL;
        if (plover->Count < MOST_EVENTS)
            event = ExAllocateFromNPagedLookasideList(&plover->Pool);
        if (event == NULL) {
            plover->Lost += 1;
        } else {
            event->Edge = edge;
            InsertTailList(&plover->Events, &event->Link);
            plover->Count += 1;
        }
    }
    KeReleaseSpinLockFromDpcLevel(&site->WaitingLock);
    if (irp != NULL) {
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &edge, sizeof edge);
        Finish(site, irp, STATUS_SUCCESS, sizeof edge);
    }
}

/* With the lock. */
static EVENT *PloverOldest(PLOVER *plover)
{
    if (IsListEmpty(&plover->Events))
        return NULL;
    plover->Count -= 1;
    return CONTAINING_RECORD(RemoveHeadList(&plover->Events), EVENT, Link);
}

static VOID PloverForget(PLOVER *plover)
{
    SITE *site = &plover->Plx.Site;
    EVENT *event;
    KIRQL irql;

    do {
        KeAcquireSpinLock(&site->WaitingLock, &irql);
        event = PloverOldest(plover);
        KeReleaseSpinLock(&site->WaitingLock, irql);
        if (event != NULL)
            ExFreeToNPagedLookasideList(&plover->Pool, event);
    } while (event != NULL);
}

static NTSTATUS PloverRead(PLOVER *plover, ASK *ask)
{
    SITE *site = &plover->Plx.Site;
    BOOLEAN there = TRUE;
    EVENT *event;
    KIRQL irql;

    if (ask->Out < sizeof(EDGE))
        return Finish(site, ask->Irp, STATUS_BUFFER_TOO_SMALL, 0);
    KeAcquireSpinLock(&site->WaitingLock, &irql);
    event = PloverOldest(plover);
    if (event == NULL)
        there = LanePutLocked(&site->Waiting, ask->Irp);
    KeReleaseSpinLock(&site->WaitingLock, irql);
    if (event != NULL) {
        RtlCopyMemory(ask->Buffer, &event->Edge, sizeof(EDGE));
        ExFreeToNPagedLookasideList(&plover->Pool, event);
        return Finish(site, ask->Irp, STATUS_SUCCESS, sizeof(EDGE));
    }
    if (!there)
        Finish(site, ask->Irp, STATUS_CANCELLED, 0);
    return STATUS_PENDING;
}

static NTSTATUS PloverServe(SITE *site, ASK *ask)
{
    PLOVER *plover = (PLOVER *)site;
    ULONG lost;
    KIRQL irql;

    if (ask->Major == IRP_MJ_READ)
        return PloverRead(plover, ask);
    if (ask->Major != IRP_MJ_DEVICE_CONTROL)
        return Finish(site, ask->Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (ask->Code) {
    case IOCTL_PLOVER_FORGET:
        PloverForget(plover);
        return Finish(site, ask->Irp, STATUS_SUCCESS, 0);
    case IOCTL_PLOVER_LOST:
        if (ask->Out < sizeof(ULONG))
            return Finish(site, ask->Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&site->WaitingLock, &irql);
        lost = plover->Lost;
        plover->Lost = 0;
        KeReleaseSpinLock(&site->WaitingLock, irql);
        *(PULONG)ask->Buffer = lost;
        return Finish(site, ask->Irp, STATUS_SUCCESS, sizeof(ULONG));
    default:
        return Finish(site, ask->Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS PloverBegin(SITE *site, PCM_RESOURCE_LIST resources)
{
    PLOVER *plover = (PLOVER *)site;
    NTSTATUS status = PlxMap(&plover->Plx, resources, PlxClaim);

    if (!NT_SUCCESS(status))
        return status;
#ifndef FIXED
    ExInitializeNPagedLookasideList(&plover->Pool, NULL, NULL, 0, sizeof(EVENT), PLOVER_TAG, 0);
    plover->Pooled = TRUE;
#else
    if (!plover->Pooled) {
        ExInitializeNPagedLookasideList(&plover->Pool, NULL, NULL, 0, sizeof(EVENT), PLOVER_TAG, 0);
        plover->Pooled = TRUE;
    }
#endif
    PlxUp(&plover->Plx, INT1_ON | INT2_ON);
    return STATUS_SUCCESS;
}

static VOID PloverEnd(SITE *site, BOOLEAN live)
{
    PLOVER *plover = (PLOVER *)site;

    PlxDown(&plover->Plx, live);
    PlxUnmap(&plover->Plx);
}

static VOID PloverSleep(SITE *site)
{
    PlxDown(&((PLOVER *)site)->Plx, TRUE);
}

static VOID PloverWake(SITE *site)
{
    PlxUp(&((PLOVER *)site)->Plx, INT1_ON | INT2_ON);
}

static NTSTATUS PloverBorn(SITE *site)
{
    PLOVER *plover = (PLOVER *)site;

    PlxBorn(&plover->Plx, PloverDpc);
    InitializeListHead(&plover->Events);
    return STATUS_SUCCESS;
}

static VOID PloverBuried(SITE *site)
{
    PLOVER *plover = (PLOVER *)site;

    if (plover->Pooled) {
        PloverForget(plover);
        ExDeleteNPagedLookasideList(&plover->Pool);
    }
}

static const SCRIPT Script = {
    .Size = sizeof(PLOVER),
    .Interface = &GUID_PLOVER,
    .Born = PloverBorn,
    .Buried = PloverBuried,
    .Begin = PloverBegin,
    .End = PloverEnd,
    .Sleep = PloverSleep,
    .Wake = PloverWake,
    .Serve = PloverServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return PnpEntry(driver, &Script);
}

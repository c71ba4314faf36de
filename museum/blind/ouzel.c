/*
 * ouzel: watches the link to the card: every 10 ms a timer writes a word to the card's liveness register and looks whether its
 * complement comes back. A read waits for the next beat and brings how many there were and how many have failed.
 *
 * The bug: on the way to D3 the timer is cancelled, but a DPC that it has queued already is not awaited, and touches the register of
 * a card that is asleep.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: card-without-power
 * Needs: power, schedule, device
 */
#include "../include/site_frame.h"
#include "../include/site_edu.h"

DEFINE_GUID(GUID_OUZEL, 0x5a0c71e1, 0x2b1f, 0x4c55, 0x91, 0x02, 0x3d, 0x77, 0x10, 0x4e, 0x5b, 0x04);

#define IOCTL_OUZEL_RESET CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA31, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define PERIOD_MS 10

typedef struct BEATS {
    ULONG Count;
    ULONG Failed;
} BEATS;

typedef struct OUZEL {
    SITE Site;
    WINDOW Bar;
    KTIMER Timer;
    KDPC Dpc;
    KSPIN_LOCK Lock;
    BEATS Beats;            /* under the lock */
    ULONG Word;             /* the DPC's own */
} OUZEL;

static VOID NTAPI OuzelBeat(PKDPC dpc, PVOID context, PVOID one, PVOID two)
{
    OUZEL *ouzel = context;
    SITE *site = &ouzel->Site;
    LIST_ENTRY answered;
    BEATS beats;
    PIRP irp;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(one);
    UNREFERENCED_PARAMETER(two);
    KeAcquireSpinLockAtDpcLevel(&ouzel->Lock);
    ouzel->Word = ouzel->Word * 69069u + 1;
    Put32(&ouzel->Bar, EDU_LIVE, ouzel->Word);
    if (Get32(&ouzel->Bar, EDU_LIVE) != ~ouzel->Word)
        ouzel->Beats.Failed += 1;
    ouzel->Beats.Count += 1;
    beats = ouzel->Beats;
    KeReleaseSpinLockFromDpcLevel(&ouzel->Lock);

    InitializeListHead(&answered);
    KeAcquireSpinLockAtDpcLevel(site->Waiting.Lock);
    while ((irp = LaneTakeLocked(&site->Waiting, NULL)) != NULL)
        InsertTailList(&answered, &irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLockFromDpcLevel(site->Waiting.Lock);
    while (!IsListEmpty(&answered)) {
        irp = CONTAINING_RECORD(RemoveHeadList(&answered), IRP, Tail.Overlay.ListEntry);
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &beats, sizeof beats);
        Finish(site, irp, STATUS_SUCCESS, sizeof beats);
    }
}

static VOID OuzelGo(OUZEL *ouzel)
{
    LARGE_INTEGER due;

    due.QuadPart = -10000LL * PERIOD_MS;
    KeSetTimerEx(&ouzel->Timer, due, PERIOD_MS, &ouzel->Dpc);
}

static NTSTATUS OuzelServe(SITE *site, ASK *ask)
{
    OUZEL *ouzel = (OUZEL *)site;
    KIRQL irql;

    if (ask->Major == IRP_MJ_READ) {
        if (ask->Out < sizeof(BEATS))
            return Finish(site, ask->Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return LanePut(&site->Waiting, ask->Irp);
    }
    if (ask->Major == IRP_MJ_DEVICE_CONTROL && ask->Code == IOCTL_OUZEL_RESET) {
        KeAcquireSpinLock(&ouzel->Lock, &irql);
        ouzel->Beats.Count = 0;
        ouzel->Beats.Failed = 0;
        KeReleaseSpinLock(&ouzel->Lock, irql);
        return Finish(site, ask->Irp, STATUS_SUCCESS, 0);
    }
    return Finish(site, ask->Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS OuzelBegin(SITE *site, PCM_RESOURCE_LIST resources)
{
    OUZEL *ouzel = (OUZEL *)site;
    NTSTATUS status = WindowMap(&ouzel->Bar, resources, 0, 0x100);

    if (NT_SUCCESS(status))
        OuzelGo(ouzel);
    return status;
}

static VOID OuzelEnd(SITE *site, BOOLEAN live)
{
    OUZEL *ouzel = (OUZEL *)site;

    UNREFERENCED_PARAMETER(live);
    KeCancelTimer(&ouzel->Timer);
    KeFlushQueuedDpcs();
    WindowUnmap(&ouzel->Bar);
}

static VOID OuzelSleep(SITE *site)
{
    OUZEL *ouzel = (OUZEL *)site;

    KeCancelTimer(&ouzel->Timer);
#ifdef FIXED
    KeFlushQueuedDpcs();
#endif
}

static VOID OuzelWake(SITE *site)
{
    OuzelGo((OUZEL *)site);
}

static NTSTATUS OuzelBorn(SITE *site)
{
    OUZEL *ouzel = (OUZEL *)site;

    KeInitializeSpinLock(&ouzel->Lock);
    KeInitializeTimer(&ouzel->Timer);
    KeInitializeDpc(&ouzel->Dpc, OuzelBeat, ouzel);
    ouzel->Word = 1;
    return STATUS_SUCCESS;
}

static const SCRIPT Script = {
    .Size = sizeof(OUZEL),
    .Interface = &GUID_OUZEL,
    .Born = OuzelBorn,
    .Begin = OuzelBegin,
    .End = OuzelEnd,
    .Sleep = OuzelSleep,
    .Wake = OuzelWake,
    .Serve = OuzelServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return PnpEntry(driver, &Script);
}

/*
 * nuthatch: weighs tables for a statistics service: the card computes the factorial of each number that is written, and the request
 * ends with its product with the weight that the program gave. Requests are taken in the order in which they came.
 *
 * The bug: the DPC looks for the next request under the lock, but says that no one works any more behind it. A request that comes
 * between relies on the DPC, which has looked already: it stays in the queue until another one comes along.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: wake-up-lost, irp-never-completed, irp-forgotten, request-forgotten, request-timed-out, stuck
 * Needs: ioctl, schedule, device
 */
#include "../include/site_frame.h"
#include "../include/site_edu.h"

DEFINE_GUID(GUID_NUTHATCH, 0x5a0c71e1, 0x2b1f, 0x4c55, 0x91, 0x02, 0x3d, 0x77, 0x10, 0x4e, 0x5b, 0x03);

#define IOCTL_NUTHATCH_WEIGH CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA21, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct WEIGH {
    ULONG Number;
    ULONG Weight;
} WEIGH;

typedef struct NUTHATCH {
    EDU Edu;
    LANE Asked;             /* under Edu.Lock, as all that follows */
    LANE Doing;             /* the request that the card computes for, if it was not cancelled */
    BOOLEAN Busy;           /* someone sees to it that the queue goes on */
    BOOLEAN Launched;       /* the card computes */
} NUTHATCH;

/* The caller owns the request and has set Busy, or found it set. */
static VOID NuthatchLaunch(NUTHATCH *nuthatch, PIRP irp)
{
    BOOLEAN there;
    KIRQL irql;
    PIRP next;

    while (irp != NULL) {
        next = NULL;
        KeAcquireSpinLock(&nuthatch->Edu.Lock, &irql);
        if (!nuthatch->Edu.Up) {
            nuthatch->Busy = FALSE;
            there = LaneAddLocked(&nuthatch->Asked, irp);
        } else {
            there = LaneAddLocked(&nuthatch->Doing, irp);
            if (there) {
                nuthatch->Launched = TRUE;
                Put32(&nuthatch->Edu.Bar, EDU_FACTORIAL, ((WEIGH *)irp->AssociatedIrp.SystemBuffer)->Number);
            } else {
                next = LaneTakeLocked(&nuthatch->Asked, NULL);
                if (next == NULL)
                    nuthatch->Busy = FALSE;
            }
        }
        KeReleaseSpinLock(&nuthatch->Edu.Lock, irql);
        if (!there)
            Finish(&nuthatch->Edu.Site, irp, STATUS_CANCELLED, 0);
        irp = next;
    }
}

static VOID NTAPI NuthatchDpc(PKDPC dpc, PVOID context, PVOID one, PVOID two)
{
    NUTHATCH *nuthatch = context;
    PIRP done, next;
    ULONG result;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(one);
    UNREFERENCED_PARAMETER(two);
    KeAcquireSpinLockAtDpcLevel(&nuthatch->Edu.Lock);
    if (!nuthatch->Edu.Up || !nuthatch->Launched || (Get32(&nuthatch->Edu.Bar, EDU_STATUS) & EDU_COMPUTES) != 0) {
        KeReleaseSpinLockFromDpcLevel(&nuthatch->Edu.Lock);
        return;
    }
    result = Get32(&nuthatch->Edu.Bar, EDU_FACTORIAL);
    nuthatch->Launched = FALSE;
    done = LaneTakeLocked(&nuthatch->Doing, NULL);
    next = LaneTakeLocked(&nuthatch->Asked, NULL);
#ifdef FIXED
    if (next == NULL)
        nuthatch->Busy = FALSE;
#endif
    KeReleaseSpinLockFromDpcLevel(&nuthatch->Edu.Lock);
    if (done != NULL) {
        PULONG answer = done->AssociatedIrp.SystemBuffer;

        answer[0] = result * ((WEIGH *)answer)->Weight;
        Finish(&nuthatch->Edu.Site, done, STATUS_SUCCESS, sizeof(ULONG));
    }
    if (next != NULL)
        NuthatchLaunch(nuthatch, next);
#ifndef FIXED
    if (next == NULL) {
        KeAcquireSpinLockAtDpcLevel(&nuthatch->Edu.Lock);
        nuthatch->Busy = FALSE;
        KeReleaseSpinLockFromDpcLevel(&nuthatch->Edu.Lock);
    }
#endif
}

static NTSTATUS NuthatchServe(SITE *site, ASK *ask)
{
    NUTHATCH *nuthatch = (NUTHATCH *)site;
    BOOLEAN there;
    PIRP first = NULL;
    KIRQL irql;

    if (ask->Major != IRP_MJ_DEVICE_CONTROL || ask->Code != IOCTL_NUTHATCH_WEIGH)
        return Finish(site, ask->Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (ask->In < sizeof(WEIGH) || ask->Out < sizeof(ULONG))
        return Finish(site, ask->Irp, STATUS_BUFFER_TOO_SMALL, 0);
    KeAcquireSpinLock(&nuthatch->Edu.Lock, &irql);
    there = LanePutLocked(&nuthatch->Asked, ask->Irp);
    if (!nuthatch->Busy) {
        first = LaneTakeLocked(&nuthatch->Asked, NULL);
        if (first != NULL)
            nuthatch->Busy = TRUE;
    }
    KeReleaseSpinLock(&nuthatch->Edu.Lock, irql);
    if (!there)
        Finish(site, ask->Irp, STATUS_CANCELLED, 0);
    NuthatchLaunch(nuthatch, first);
    return STATUS_PENDING;
}

static VOID NuthatchUp(NUTHATCH *nuthatch)
{
    PIRP first = NULL;
    KIRQL irql;

    EduUp(&nuthatch->Edu);
    KeAcquireSpinLock(&nuthatch->Edu.Lock, &irql);
    nuthatch->Launched = (Get32(&nuthatch->Edu.Bar, EDU_STATUS) & EDU_COMPUTES) != 0;
    if (!nuthatch->Launched)
        first = LaneTakeLocked(&nuthatch->Asked, NULL);
    nuthatch->Busy = nuthatch->Launched || first != NULL;
    KeReleaseSpinLock(&nuthatch->Edu.Lock, irql);
    NuthatchLaunch(nuthatch, first);
}

static VOID NuthatchDown(NUTHATCH *nuthatch, BOOLEAN live)
{
    BOOLEAN there = TRUE;
    KIRQL irql;
    PIRP irp;

    EduDown(&nuthatch->Edu, live);
    KeAcquireSpinLock(&nuthatch->Edu.Lock, &irql);
    nuthatch->Launched = FALSE;
    nuthatch->Busy = FALSE;
    irp = LaneTakeLocked(&nuthatch->Doing, NULL);
    if (irp != NULL)
        there = LaneAddLocked(&nuthatch->Asked, irp);
    KeReleaseSpinLock(&nuthatch->Edu.Lock, irql);
    if (!there)
        Finish(&nuthatch->Edu.Site, irp, STATUS_CANCELLED, 0);
}

static NTSTATUS NuthatchBegin(SITE *site, PCM_RESOURCE_LIST resources)
{
    NUTHATCH *nuthatch = (NUTHATCH *)site;
    NTSTATUS status = EduMap(&nuthatch->Edu, resources);

    if (NT_SUCCESS(status))
        NuthatchUp(nuthatch);
    return status;
}

static VOID NuthatchEnd(SITE *site, BOOLEAN live)
{
    NUTHATCH *nuthatch = (NUTHATCH *)site;

    NuthatchDown(nuthatch, live);
    EduUnmap(&nuthatch->Edu);
}

static VOID NuthatchSleep(SITE *site)
{
    NuthatchDown((NUTHATCH *)site, TRUE);
}

static VOID NuthatchWake(SITE *site)
{
    NuthatchUp((NUTHATCH *)site);
}

static VOID NuthatchLeave(SITE *site, PFILE_OBJECT file)
{
    NUTHATCH *nuthatch = (NUTHATCH *)site;

    LaneSweep(&nuthatch->Asked, file, STATUS_CANCELLED);
    LaneSweep(&nuthatch->Doing, file, STATUS_CANCELLED);
}

static VOID NuthatchDrop(SITE *site, NTSTATUS status)
{
    NUTHATCH *nuthatch = (NUTHATCH *)site;

    LaneSweep(&nuthatch->Asked, NULL, status);
    LaneSweep(&nuthatch->Doing, NULL, status);
}

static NTSTATUS NuthatchBorn(SITE *site)
{
    NUTHATCH *nuthatch = (NUTHATCH *)site;

    EduBorn(&nuthatch->Edu, NuthatchDpc);
    LaneInit(&nuthatch->Asked, site, &nuthatch->Edu.Lock);
    LaneInit(&nuthatch->Doing, site, &nuthatch->Edu.Lock);
    return STATUS_SUCCESS;
}

static const SCRIPT Script = {
    .Size = sizeof(NUTHATCH),
    .Interface = &GUID_NUTHATCH,
    .Born = NuthatchBorn,
    .Begin = NuthatchBegin,
    .End = NuthatchEnd,
    .Sleep = NuthatchSleep,
    .Wake = NuthatchWake,
    .Serve = NuthatchServe,
    .Leave = NuthatchLeave,
    .Drop = NuthatchDrop,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return PnpEntry(driver, &Script);
}

/*
 * merlin: counts permutations: a program writes how many things there are, and the card says in how many orders they can be put. One
 * request at a time is at the card; the others wait in a queue. All of them can be cancelled at any time.
 *
 * The bug: when the request that is at the card is cancelled it is completed, but the driver still remembers it as the current one.
 * The DPC, closing a handle and going to sleep look into a request that no longer is theirs.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: use-after-free, write-after-free, double-completion, cancel-after-completion, irp-damaged, not-an-irp
 * Needs: ioctl, cancel, device
 */
#include "../include/site_frame.h"
#include "../include/site_edu.h"

DEFINE_GUID(GUID_MERLIN, 0x5a0c71e1, 0x2b1f, 0x4c55, 0x91, 0x02, 0x3d, 0x77, 0x10, 0x4e, 0x5b, 0x02);

#define IOCTL_MERLIN_ORDERS CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA11, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_MERLIN_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA12, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define MOST_THINGS 12u     /* 13! has more than 32 bits */

typedef struct COUNTS {
    ULONG Answered;
    ULONG GivenUp;
} COUNTS;

typedef struct MERLIN {
    EDU Edu;
    LANE Asked;             /* under Edu.Lock, as all that follows */
    PIRP Current;           /* the request at the card; it has MerlinCancel as its cancel routine */
    BOOLEAN Busy;           /* the card computes, for Current or for one that was given up */
    COUNTS Counts;
} MERLIN;

static VOID NTAPI MerlinCancel(PDEVICE_OBJECT device, PIRP irp)
{
    MERLIN *merlin = device->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(irp->CancelIrql);
    KeAcquireSpinLock(&merlin->Edu.Lock, &irql);
#ifdef FIXED
    if (merlin->Current == irp)
        merlin->Current = NULL;
#endif
    merlin->Counts.GivenUp += 1;
    KeReleaseSpinLock(&merlin->Edu.Lock, irql);
    Finish(&merlin->Edu.Site, irp, STATUS_CANCELLED, 0);
}

/* With the lock: the current request (if it is of this handle, or of any), if it is not being cancelled, becomes the caller's. */
static PIRP MerlinTakeCurrent(MERLIN *merlin, PFILE_OBJECT file)
{
    PIRP irp = merlin->Current;

    if (irp == NULL)
        return NULL;
    if (file != NULL && IoGetCurrentIrpStackLocation(irp)->FileObject != file)
        return NULL;
    merlin->Current = NULL;
    return IoSetCancelRoutine(irp, NULL) != NULL ? irp : NULL;
}

static VOID MerlinPump(MERLIN *merlin)
{
    KIRQL irql;
    PIRP irp;

    for (;;) {
        KeAcquireSpinLock(&merlin->Edu.Lock, &irql);
        irp = NULL;
        if (merlin->Edu.Up && !merlin->Busy)
            irp = LaneTakeLocked(&merlin->Asked, NULL);
        if (irp == NULL)
            break;
        (VOID)IoSetCancelRoutine(irp, MerlinCancel);
        if (irp->Cancel && IoSetCancelRoutine(irp, NULL) != NULL) {
            KeReleaseSpinLock(&merlin->Edu.Lock, irql);
            Finish(&merlin->Edu.Site, irp, STATUS_CANCELLED, 0);
            continue;
        }
        merlin->Current = irp;
        merlin->Busy = TRUE;
        Put32(&merlin->Edu.Bar, EDU_FACTORIAL, *(PULONG)irp->AssociatedIrp.SystemBuffer);
        break;
    }
    KeReleaseSpinLock(&merlin->Edu.Lock, irql);
}

static VOID NTAPI MerlinDpc(PKDPC dpc, PVOID context, PVOID one, PVOID two)
{
    MERLIN *merlin = context;
    ULONG orders;
    PIRP irp;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(one);
    UNREFERENCED_PARAMETER(two);
    KeAcquireSpinLockAtDpcLevel(&merlin->Edu.Lock);
    if (!merlin->Edu.Up || !merlin->Busy || (Get32(&merlin->Edu.Bar, EDU_STATUS) & EDU_COMPUTES) != 0) {
        KeReleaseSpinLockFromDpcLevel(&merlin->Edu.Lock);
        return;
    }
    orders = Get32(&merlin->Edu.Bar, EDU_FACTORIAL);
    merlin->Busy = FALSE;
    irp = MerlinTakeCurrent(merlin, NULL);
    if (irp != NULL)
        merlin->Counts.Answered += 1;
    KeReleaseSpinLockFromDpcLevel(&merlin->Edu.Lock);
    if (irp != NULL) {
        *(PULONG)irp->AssociatedIrp.SystemBuffer = orders;
        Finish(&merlin->Edu.Site, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    MerlinPump(merlin);
}

static NTSTATUS MerlinServe(SITE *site, ASK *ask)
{
    MERLIN *merlin = (MERLIN *)site;
    KIRQL irql;

    if (ask->Major != IRP_MJ_DEVICE_CONTROL)
        return Finish(site, ask->Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (ask->Code) {
    case IOCTL_MERLIN_ORDERS:
        if (ask->In < sizeof(ULONG) || ask->Out < sizeof(ULONG))
            return Finish(site, ask->Irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (*(PULONG)ask->Buffer > MOST_THINGS)
            return Finish(site, ask->Irp, STATUS_INVALID_PARAMETER, 0);
        LanePut(&merlin->Asked, ask->Irp);
        MerlinPump(merlin);
        return STATUS_PENDING;
    case IOCTL_MERLIN_COUNTS:
        if (ask->Out < sizeof(COUNTS))
            return Finish(site, ask->Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&merlin->Edu.Lock, &irql);
        RtlCopyMemory(ask->Buffer, &merlin->Counts, sizeof(COUNTS));
        KeReleaseSpinLock(&merlin->Edu.Lock, irql);
        return Finish(site, ask->Irp, STATUS_SUCCESS, sizeof(COUNTS));
    default:
        return Finish(site, ask->Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID MerlinUp(MERLIN *merlin)
{
    KIRQL irql;

    EduUp(&merlin->Edu);
    KeAcquireSpinLock(&merlin->Edu.Lock, &irql);
    merlin->Busy = (Get32(&merlin->Edu.Bar, EDU_STATUS) & EDU_COMPUTES) != 0;
    KeReleaseSpinLock(&merlin->Edu.Lock, irql);
    MerlinPump(merlin);
}

/* The current request goes back into the queue. */
static VOID MerlinDown(MERLIN *merlin, BOOLEAN live)
{
    BOOLEAN there = TRUE;
    KIRQL irql;
    PIRP irp;

    EduDown(&merlin->Edu, live);
    KeAcquireSpinLock(&merlin->Edu.Lock, &irql);
    irp = MerlinTakeCurrent(merlin, NULL);
    if (irp != NULL)
        there = LaneAddLocked(&merlin->Asked, irp);
    KeReleaseSpinLock(&merlin->Edu.Lock, irql);
    if (!there)
        Finish(&merlin->Edu.Site, irp, STATUS_CANCELLED, 0);
}

static NTSTATUS MerlinBegin(SITE *site, PCM_RESOURCE_LIST resources)
{
    MERLIN *merlin = (MERLIN *)site;
    NTSTATUS status = EduMap(&merlin->Edu, resources);

    if (NT_SUCCESS(status))
        MerlinUp(merlin);
    return status;
}

static VOID MerlinEnd(SITE *site, BOOLEAN live)
{
    MERLIN *merlin = (MERLIN *)site;

    MerlinDown(merlin, live);
    EduUnmap(&merlin->Edu);
}

static VOID MerlinSleep(SITE *site)
{
    MerlinDown((MERLIN *)site, TRUE);
}

static VOID MerlinWake(SITE *site)
{
    MerlinUp((MERLIN *)site);
}

static VOID MerlinLeave(SITE *site, PFILE_OBJECT file)
{
    MERLIN *merlin = (MERLIN *)site;
    KIRQL irql;
    PIRP irp;

    LaneSweep(&merlin->Asked, file, STATUS_CANCELLED);
    KeAcquireSpinLock(&merlin->Edu.Lock, &irql);
    irp = MerlinTakeCurrent(merlin, file);
    KeReleaseSpinLock(&merlin->Edu.Lock, irql);
    if (irp != NULL)
        Finish(site, irp, STATUS_CANCELLED, 0);
}

static VOID MerlinDrop(SITE *site, NTSTATUS status)
{
    LaneSweep(&((MERLIN *)site)->Asked, NULL, status);
}

static NTSTATUS MerlinBorn(SITE *site)
{
    MERLIN *merlin = (MERLIN *)site;

    EduBorn(&merlin->Edu, MerlinDpc);
    LaneInit(&merlin->Asked, site, &merlin->Edu.Lock);
    return STATUS_SUCCESS;
}

static const SCRIPT Script = {
    .Size = sizeof(MERLIN),
    .Interface = &GUID_MERLIN,
    .Born = MerlinBorn,
    .Begin = MerlinBegin,
    .End = MerlinEnd,
    .Sleep = MerlinSleep,
    .Wake = MerlinWake,
    .Serve = MerlinServe,
    .Leave = MerlinLeave,
    .Drop = MerlinDrop,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return PnpEntry(driver, &Script);
}

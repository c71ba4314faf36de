/*
 * linnet: lets programs have factorials computed by the card, one at a time, and keeps a protocol of the last sixteen results. The
 * protocol lies in paged memory, so the DPC that takes a result hands the request to a work item, which enters it and completes it.
 *
 * The bug: if no work item can be allocated for a result the DPC returns. The request is in no queue any more then, can be cancelled
 * by no one, and is never completed.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: irp-never-completed, irp-forgotten, request-forgotten, request-pending-after-remove, stuck
 * Needs: ioctl, failure, device
 */
#include "../include/site_frame.h"
#include "../include/site_edu.h"

DEFINE_GUID(GUID_LINNET, 0x5a0c71e1, 0x2b1f, 0x4c55, 0x91, 0x02, 0x3d, 0x77, 0x10, 0x4e, 0x5b, 0x01);

#define LINNET_TAG 'nniL'

#define IOCTL_LINNET_COMPUTE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA01, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LINNET_PROTOCOL CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA02, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define MOST_ENTRIES 16u

typedef struct ENTRY {
    ULONG Number;
    ULONG Result;
} ENTRY;

typedef struct LINNET {
    EDU Edu;
    LANE Asked;             /* under Edu.Lock, as Doing and Busy */
    LANE Doing;             /* the request that the card computes for, if it was not cancelled */
    BOOLEAN Busy;           /* the card computes */
    FAST_MUTEX Mutex;       /* guards the protocol */
    ENTRY *Protocol;
    ULONG Entries;          /* ever made */
} LINNET;

/* Gives the card the next number, if it has nothing to do. */
static VOID LinnetPump(LINNET *linnet)
{
    KIRQL irql;
    PIRP irp;

    for (;;) {
        KeAcquireSpinLock(&linnet->Edu.Lock, &irql);
        irp = NULL;
        if (linnet->Edu.Up && !linnet->Busy)
            irp = LaneTakeLocked(&linnet->Asked, NULL);
        if (irp == NULL || LaneAddLocked(&linnet->Doing, irp))
            break;
        KeReleaseSpinLock(&linnet->Edu.Lock, irql);
        Finish(&linnet->Edu.Site, irp, STATUS_CANCELLED, 0);
    }
    if (irp != NULL) {
        linnet->Busy = TRUE;
        Put32(&linnet->Edu.Bar, EDU_FACTORIAL, *(PULONG)irp->AssociatedIrp.SystemBuffer);
    }
    KeReleaseSpinLock(&linnet->Edu.Lock, irql);
}

static VOID NTAPI LinnetEnter(PDEVICE_OBJECT device, PVOID context)
{
    LINNET *linnet = device->DeviceExtension;
    PIRP irp = context;
    ENTRY *answer = irp->AssociatedIrp.SystemBuffer;

    ExAcquireFastMutex(&linnet->Mutex);
    linnet->Protocol[linnet->Entries % MOST_ENTRIES] = *answer;
    linnet->Entries += 1;
    ExReleaseFastMutex(&linnet->Mutex);
    IoFreeWorkItem(irp->Tail.Overlay.DriverContext[1]);
    Finish(&linnet->Edu.Site, irp, STATUS_SUCCESS, sizeof(ENTRY));
}

static VOID NTAPI LinnetDpc(PKDPC dpc, PVOID context, PVOID one, PVOID two)
{
    LINNET *linnet = context;
    PIO_WORKITEM item;
    ULONG result;
    PIRP irp;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(one);
    UNREFERENCED_PARAMETER(two);
    KeAcquireSpinLockAtDpcLevel(&linnet->Edu.Lock);
    if (!linnet->Edu.Up || !linnet->Busy || (Get32(&linnet->Edu.Bar, EDU_STATUS) & EDU_COMPUTES) != 0) {
        KeReleaseSpinLockFromDpcLevel(&linnet->Edu.Lock);
        return;
    }
    result = Get32(&linnet->Edu.Bar, EDU_FACTORIAL);
    linnet->Busy = FALSE;
    irp = LaneTakeLocked(&linnet->Doing, NULL);
    KeReleaseSpinLockFromDpcLevel(&linnet->Edu.Lock);
    if (irp != NULL) {
        ((ENTRY *)irp->AssociatedIrp.SystemBuffer)->Result = result;
        item = IoAllocateWorkItem(linnet->Edu.Site.Self);
#ifndef FIXED
        if (item == NULL)
            return;
        irp->Tail.Overlay.DriverContext[1] = item;
        IoQueueWorkItem(item, LinnetEnter, DelayedWorkQueue, irp);
#else
        if (item == NULL) {
            Finish(&linnet->Edu.Site, irp, STATUS_INSUFFICIENT_RESOURCES, 0);
        } else {
            irp->Tail.Overlay.DriverContext[1] = item;
            IoQueueWorkItem(item, LinnetEnter, DelayedWorkQueue, irp);
        }
#endif
    }
    LinnetPump(linnet);
}

static NTSTATUS LinnetServe(SITE *site, ASK *ask)
{
    LINNET *linnet = (LINNET *)site;
    ULONG count, first, i;

    if (ask->Major != IRP_MJ_DEVICE_CONTROL)
        return Finish(site, ask->Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (ask->Code) {
    case IOCTL_LINNET_COMPUTE:
        if (ask->In < sizeof(ULONG) || ask->Out < sizeof(ENTRY))
            return Finish(site, ask->Irp, STATUS_BUFFER_TOO_SMALL, 0);
        LanePut(&linnet->Asked, ask->Irp);
        LinnetPump(linnet);
        return STATUS_PENDING;
    case IOCTL_LINNET_PROTOCOL:
        ExAcquireFastMutex(&linnet->Mutex);
        count = linnet->Entries < MOST_ENTRIES ? linnet->Entries : MOST_ENTRIES;
        if (count > ask->Out / sizeof(ENTRY))
            count = ask->Out / sizeof(ENTRY);
        first = linnet->Entries - count;
        for (i = 0; i < count; ++i)
            ((ENTRY *)ask->Buffer)[i] = linnet->Protocol[(first + i) % MOST_ENTRIES];
        ExReleaseFastMutex(&linnet->Mutex);
        return Finish(site, ask->Irp, STATUS_SUCCESS, count * sizeof(ENTRY));
    default:
        return Finish(site, ask->Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID LinnetUp(LINNET *linnet)
{
    KIRQL irql;

    EduUp(&linnet->Edu);
    KeAcquireSpinLock(&linnet->Edu.Lock, &irql);
    /* it may still compute what was asked for before; its interrupt ends that */
    linnet->Busy = (Get32(&linnet->Edu.Bar, EDU_STATUS) & EDU_COMPUTES) != 0;
    KeReleaseSpinLock(&linnet->Edu.Lock, irql);
    LinnetPump(linnet);
}

/* What the card was computing is asked for once more when it is back. */
static VOID LinnetDown(LINNET *linnet, BOOLEAN live)
{
    BOOLEAN there = TRUE;
    KIRQL irql;
    PIRP irp;

    EduDown(&linnet->Edu, live);
    KeAcquireSpinLock(&linnet->Edu.Lock, &irql);
    irp = LaneTakeLocked(&linnet->Doing, NULL);
    if (irp != NULL)
        there = LaneAddLocked(&linnet->Asked, irp);
    KeReleaseSpinLock(&linnet->Edu.Lock, irql);
    if (!there)
        Finish(&linnet->Edu.Site, irp, STATUS_CANCELLED, 0);
}

static NTSTATUS LinnetBegin(SITE *site, PCM_RESOURCE_LIST resources)
{
    LINNET *linnet = (LINNET *)site;
    NTSTATUS status = EduMap(&linnet->Edu, resources);

    if (NT_SUCCESS(status))
        LinnetUp(linnet);
    return status;
}

static VOID LinnetEnd(SITE *site, BOOLEAN live)
{
    LINNET *linnet = (LINNET *)site;

    LinnetDown(linnet, live);
    EduUnmap(&linnet->Edu);
}

static VOID LinnetSleep(SITE *site)
{
    LinnetDown((LINNET *)site, TRUE);
}

static VOID LinnetWake(SITE *site)
{
    LinnetUp((LINNET *)site);
}

static VOID LinnetLeave(SITE *site, PFILE_OBJECT file)
{
    LINNET *linnet = (LINNET *)site;

    LaneSweep(&linnet->Asked, file, STATUS_CANCELLED);
    LaneSweep(&linnet->Doing, file, STATUS_CANCELLED);
}

static VOID LinnetDrop(SITE *site, NTSTATUS status)
{
    LINNET *linnet = (LINNET *)site;

    LaneSweep(&linnet->Asked, NULL, status);
    LaneSweep(&linnet->Doing, NULL, status);
}

static NTSTATUS LinnetBorn(SITE *site)
{
    LINNET *linnet = (LINNET *)site;

    EduBorn(&linnet->Edu, LinnetDpc);
    LaneInit(&linnet->Asked, site, &linnet->Edu.Lock);
    LaneInit(&linnet->Doing, site, &linnet->Edu.Lock);
    ExInitializeFastMutex(&linnet->Mutex);
    linnet->Protocol = ExAllocatePoolWithTag(PagedPool, MOST_ENTRIES * sizeof(ENTRY), LINNET_TAG);
    return linnet->Protocol != NULL ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static VOID LinnetBuried(SITE *site)
{
    ExFreePoolWithTag(((LINNET *)site)->Protocol, LINNET_TAG);
}

static const SCRIPT Script = {
    .Size = sizeof(LINNET),
    .Interface = &GUID_LINNET,
    .Born = LinnetBorn,
    .Buried = LinnetBuried,
    .Begin = LinnetBegin,
    .End = LinnetEnd,
    .Sleep = LinnetSleep,
    .Wake = LinnetWake,
    .Serve = LinnetServe,
    .Leave = LinnetLeave,
    .Drop = LinnetDrop,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return PnpEntry(driver, &Script);
}

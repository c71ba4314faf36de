/*
 * frame.h: what the drivers of this set have in common.
 *
 * A SITE is the beginning of every device extension. A driver describes itself by one SCRIPT, whose routines the frame calls; the
 * routines that have to do with the device (Begin, End, Sleep, Wake) are never called two at a time, and never while Serve runs.
 *
 * The gate: Serve is called only while the gate is open. It is shut while the device is not started, is stopped, asleep or gone.
 * Requests that come while it is shut for a while wait on the Bench, where they can be cancelled, and are served when it opens.
 *
 * Lanes are queues of requests that can be cancelled; the frame itself empties Bench and Waiting when a handle is closed and when the
 * device goes, a driver's other lanes are emptied by its Leave and Drop.
 */
#ifndef SS_FRAME_H
#define SS_FRAME_H

#include <ddk/wdm.h>

#define SPARE __attribute__((unused))
#define SS_TAG 'ecSS'

typedef struct SITE SITE;

#define SHUT_NEW   1u   /* not started, or start has failed */
#define SHUT_STOP  2u   /* a stop or a removal was asked for, or it is stopped */
#define SHUT_SLEEP 4u   /* not in D0 */
#define SHUT_GONE  8u   /* removed */

/* A request, as Serve gets it. */
typedef struct ASK {
    PIRP Irp;
    PIO_STACK_LOCATION Stack;
    PFILE_OBJECT File;
    UCHAR Major;
    ULONG Code;      /* of a device control */
    ULONG In;        /* bytes that the program sent */
    ULONG Out;       /* bytes that it takes */
    PVOID Buffer;    /* the system buffer; NULL when there are no bytes */
} ASK;

typedef struct SCRIPT {
    ULONG Size;                 /* of the extension, SITE included */
    PCWSTR Device;              /* names, of a control device */
    PCWSTR Link;
    const GUID *Interface;      /* of a PnP device */
    BOOLEAN Direct;             /* reads and writes have MDLs */
    NTSTATUS (*Born)(SITE *site);                       /* software only; undoes itself when it fails */
    VOID (*Buried)(SITE *site);                         /* the contrary; nothing of the driver runs any more */
    NTSTATUS (*Begin)(SITE *site, PCM_RESOURCE_LIST resources);   /* start; undoes itself when it fails */
    VOID (*End)(SITE *site, BOOLEAN live);              /* the contrary; registers may be touched only if live */
    VOID (*Sleep)(SITE *site);                          /* before the device leaves D0 */
    VOID (*Wake)(SITE *site);                           /* it is in D0 again */
    NTSTATUS (*Serve)(SITE *site, ASK *ask);            /* finishes the request, or leaves it in a lane and returns STATUS_PENDING */
    NTSTATUS (*Open)(SITE *site, PFILE_OBJECT file);
    VOID (*Leave)(SITE *site, PFILE_OBJECT file);       /* cleanup */
    VOID (*Shut)(SITE *site, PFILE_OBJECT file);        /* close */
    VOID (*Drop)(SITE *site, NTSTATUS status);          /* the device is gone: finish all that waits in lanes of the driver */
} SCRIPT;

typedef struct LANE {
    LIST_ENTRY Head;
    PKSPIN_LOCK Lock;
    SITE *Site;
} LANE;

struct SITE {
    const SCRIPT *Script;
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Below;
    PDEVICE_OBJECT Physical;
    UNICODE_STRING Link;
    IO_REMOVE_LOCK Tenure;
    KSPIN_LOCK GateLock;
    ULONG Closed;               /* SHUT_... */
    LONG Inside;
    KEVENT Empty;
    KEVENT Stage;               /* one transition of the device at a time */
    BOOLEAN Running;            /* between Begin and End */
    BOOLEAN Shown;              /* the interface is enabled */
    LANE Bench;                 /* under GateLock */
    KSPIN_LOCK WaitingLock;
    LANE Waiting;               /* for the driver's use */
    PIO_WORKITEM PowerItem;
    PIRP DeviceIrp;
    PIRP SystemIrp;
};

static const SCRIPT *SiteScript;

/* ------------------------------------------------------------------ requests and lanes */

static SPARE NTSTATUS Finish(SITE *site, PIRP irp, NTSTATUS status, ULONG_PTR information)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = information;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&site->Tenure, irp);
    return status;
}

static SPARE VOID LaneInit(LANE *lane, SITE *site, PKSPIN_LOCK lock)
{
    InitializeListHead(&lane->Head);
    lane->Lock = lock;
    lane->Site = site;
}

static VOID NTAPI LaneCancel(PDEVICE_OBJECT device, PIRP irp)
{
    LANE *lane = irp->Tail.Overlay.DriverContext[0];
    SITE *site = lane->Site;
    KIRQL irql;

    UNREFERENCED_PARAMETER(device);
    IoReleaseCancelSpinLock(irp->CancelIrql);
    KeAcquireSpinLock(lane->Lock, &irql);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(lane->Lock, irql);
    Finish(site, irp, STATUS_CANCELLED, 0);
}

/* With the lane's lock, of a request that is marked pending already. FALSE: it was cancelled before, and is still the caller's, who
   finishes it with STATUS_CANCELLED. */
static SPARE BOOLEAN LaneAddLocked(LANE *lane, PIRP irp)
{
    irp->Tail.Overlay.DriverContext[0] = lane;
    (VOID)IoSetCancelRoutine(irp, LaneCancel);
    if (irp->Cancel && IoSetCancelRoutine(irp, NULL) != NULL)
        return FALSE;
    /* if it is cancelled and the routine is on its way, it waits for the lock and takes the request out of the list */
    InsertTailList(&lane->Head, &irp->Tail.Overlay.ListEntry);
    return TRUE;
}

/* A request that came over the bench is marked already. */
static SPARE VOID MarkPending(PIRP irp)
{
    if ((IoGetCurrentIrpStackLocation(irp)->Control & SL_PENDING_RETURNED) == 0)
        IoMarkIrpPending(irp);
}

/* The same from Serve: in any case the request is marked pending, and STATUS_PENDING is to be returned. */
static SPARE BOOLEAN LanePutLocked(LANE *lane, PIRP irp)
{
    MarkPending(irp);
    return LaneAddLocked(lane, irp);
}

static SPARE NTSTATUS LanePut(LANE *lane, PIRP irp)
{
    KIRQL irql;
    BOOLEAN there;

    KeAcquireSpinLock(lane->Lock, &irql);
    there = LanePutLocked(lane, irp);
    KeReleaseSpinLock(lane->Lock, irql);
    if (!there)
        Finish(lane->Site, irp, STATUS_CANCELLED, 0);
    return STATUS_PENDING;
}

/* With the lane's lock: the first request (of a handle, or of any), which then is the caller's and cannot be cancelled any more. */
static SPARE PIRP LaneTakeLocked(LANE *lane, PFILE_OBJECT file)
{
    PLIST_ENTRY entry;

    for (entry = lane->Head.Flink; entry != &lane->Head; entry = entry->Flink) {
        PIRP irp = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);

        if (file != NULL && IoGetCurrentIrpStackLocation(irp)->FileObject != file)
            continue;
        if (IoSetCancelRoutine(irp, NULL) == NULL)
            continue;           /* its cancel routine takes it out */
        RemoveEntryList(entry);
        return irp;
    }
    return NULL;
}

static SPARE PIRP LaneTake(LANE *lane, PFILE_OBJECT file)
{
    KIRQL irql;
    PIRP irp;

    KeAcquireSpinLock(lane->Lock, &irql);
    irp = LaneTakeLocked(lane, file);
    KeReleaseSpinLock(lane->Lock, irql);
    return irp;
}

static SPARE VOID LaneSweep(LANE *lane, PFILE_OBJECT file, NTSTATUS status)
{
    PIRP irp;

    while ((irp = LaneTake(lane, file)) != NULL)
        Finish(lane->Site, irp, status, 0);
}

/* ------------------------------------------------------------------ the gate */

static VOID GateLeave(SITE *site)
{
    KIRQL irql;

    KeAcquireSpinLock(&site->GateLock, &irql);
    if (--site->Inside == 0 && site->Closed != 0)
        KeSetEvent(&site->Empty, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&site->GateLock, irql);
}

/* Shuts the gate for a reason and waits until no one is inside. */
static VOID GateClose(SITE *site, ULONG reason)
{
    KIRQL irql;

    KeAcquireSpinLock(&site->GateLock, &irql);
    site->Closed |= reason;
    if (site->Inside == 0)
        KeSetEvent(&site->Empty, IO_NO_INCREMENT, FALSE);
    else
        KeClearEvent(&site->Empty);
    KeReleaseSpinLock(&site->GateLock, irql);
    KeWaitForSingleObject(&site->Empty, Executive, KernelMode, FALSE, NULL);
}

static NTSTATUS SiteServe(SITE *site, PIRP irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(irp);
    ASK ask;

    RtlZeroMemory(&ask, sizeof ask);
    ask.Irp = irp;
    ask.Stack = stack;
    ask.File = stack->FileObject;
    ask.Major = stack->MajorFunction;
    ask.Buffer = irp->AssociatedIrp.SystemBuffer;
    switch (stack->MajorFunction) {
    case IRP_MJ_READ:
        ask.Out = stack->Parameters.Read.Length;
        break;
    case IRP_MJ_WRITE:
        ask.In = stack->Parameters.Write.Length;
        break;
    default:
        ask.Code = stack->Parameters.DeviceIoControl.IoControlCode;
        ask.In = stack->Parameters.DeviceIoControl.InputBufferLength;
        ask.Out = stack->Parameters.DeviceIoControl.OutputBufferLength;
        break;
    }
    return site->Script->Serve(site, &ask);
}

/* Takes a reason back; if there is none left, what waits on the bench is served. */
static SPARE VOID GateOpen(SITE *site, ULONG reasons)
{
    KIRQL irql;

    KeAcquireSpinLock(&site->GateLock, &irql);
    site->Closed &= ~reasons;
    while (site->Closed == 0) {
        PIRP irp = LaneTakeLocked(&site->Bench, NULL);

        if (irp == NULL)
            break;
        site->Inside += 1;
        KeReleaseSpinLock(&site->GateLock, irql);
        SiteServe(site, irp);
        GateLeave(site);
        KeAcquireSpinLock(&site->GateLock, &irql);
    }
    KeReleaseSpinLock(&site->GateLock, irql);
}

static VOID SiteEmpty(SITE *site, NTSTATUS status)
{
    LaneSweep(&site->Bench, NULL, status);
    LaneSweep(&site->Waiting, NULL, status);
    if (site->Script->Drop != NULL)
        site->Script->Drop(site, status);
}

static NTSTATUS SiteRefuse(PIRP irp, NTSTATUS status)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = 0;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

/* ------------------------------------------------------------------ dispatch routines that all have */

static NTSTATUS NTAPI SiteArrive(PDEVICE_OBJECT device, PIRP irp)
{
    SITE *site = device->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&site->Tenure, irp);
    KIRQL irql;

    if (!NT_SUCCESS(status))
        return SiteRefuse(irp, status);
    KeAcquireSpinLock(&site->GateLock, &irql);
    if ((site->Closed & (SHUT_NEW | SHUT_GONE)) != 0) {
        KeReleaseSpinLock(&site->GateLock, irql);
        return Finish(site, irp, STATUS_DEVICE_NOT_CONNECTED, 0);
    }
    if (site->Closed != 0) {
        BOOLEAN there = LanePutLocked(&site->Bench, irp);

        KeReleaseSpinLock(&site->GateLock, irql);
        if (!there)
            Finish(site, irp, STATUS_CANCELLED, 0);
        return STATUS_PENDING;
    }
    site->Inside += 1;
    KeReleaseSpinLock(&site->GateLock, irql);
    status = SiteServe(site, irp);
    GateLeave(site);
    return status;
}

static NTSTATUS NTAPI SiteCreate(PDEVICE_OBJECT device, PIRP irp)
{
    SITE *site = device->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&site->Tenure, irp);
    KIRQL irql;
    ULONG closed;

    if (!NT_SUCCESS(status))
        return SiteRefuse(irp, status);
    KeAcquireSpinLock(&site->GateLock, &irql);
    closed = site->Closed;
    KeReleaseSpinLock(&site->GateLock, irql);
    if ((closed & (SHUT_NEW | SHUT_GONE)) != 0)
        status = STATUS_DEVICE_NOT_CONNECTED;
    else if (site->Script->Open != NULL)
        status = site->Script->Open(site, IoGetCurrentIrpStackLocation(irp)->FileObject);
    return Finish(site, irp, status, 0);
}

/* Cleanup and close take no remove lock: while a handle is there the device object is, and with it the extension. */
static NTSTATUS NTAPI SiteCleanup(PDEVICE_OBJECT device, PIRP irp)
{
    SITE *site = device->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(irp)->FileObject;

    LaneSweep(&site->Bench, file, STATUS_CANCELLED);
    LaneSweep(&site->Waiting, file, STATUS_CANCELLED);
    if (site->Script->Leave != NULL)
        site->Script->Leave(site, file);
    return SiteRefuse(irp, STATUS_SUCCESS);
}

static NTSTATUS NTAPI SiteClose(PDEVICE_OBJECT device, PIRP irp)
{
    SITE *site = device->DeviceExtension;

    if (site->Script->Shut != NULL)
        site->Script->Shut(site, IoGetCurrentIrpStackLocation(irp)->FileObject);
    return SiteRefuse(irp, STATUS_SUCCESS);
}

static VOID SiteInit(SITE *site, PDEVICE_OBJECT self, ULONG closed)
{
    site->Script = SiteScript;
    site->Self = self;
    site->Closed = closed;
    IoInitializeRemoveLockEx(&site->Tenure, SS_TAG, 0, 0, sizeof(IO_REMOVE_LOCK));
    KeInitializeSpinLock(&site->GateLock);
    KeInitializeSpinLock(&site->WaitingLock);
    KeInitializeEvent(&site->Empty, NotificationEvent, FALSE);
    KeInitializeEvent(&site->Stage, SynchronizationEvent, TRUE);
    LaneInit(&site->Bench, site, &site->GateLock);
    LaneInit(&site->Waiting, site, &site->WaitingLock);
}

static VOID SiteDispatch(PDRIVER_OBJECT driver)
{
    driver->MajorFunction[IRP_MJ_CREATE] = SiteCreate;
    driver->MajorFunction[IRP_MJ_CLEANUP] = SiteCleanup;
    driver->MajorFunction[IRP_MJ_CLOSE] = SiteClose;
    driver->MajorFunction[IRP_MJ_READ] = SiteArrive;
    driver->MajorFunction[IRP_MJ_WRITE] = SiteArrive;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = SiteArrive;
}

#ifdef SITE_CONTROL
#include "site_control.h"
#else
#include "site_pnp.h"
#include "site_card.h"
#endif

#endif

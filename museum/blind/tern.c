/*
 * tern: alarms from a panel behind the board's first local interrupt input. A program leaves a request that ends with the next alarm,
 * and brings which one it was since the device was started. The driver was written when cancel routines were set under the system's
 * cancel lock, and still does so.
 *
 * The bug: the cancel routine takes the driver's own lock before it lets go of the system's cancel lock; everywhere else the two are
 * taken in the other order, so that a cancellation and an alarm wait for each other for ever.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: lock-order-inversion, deadlock, spin-lock-deadlock, stuck
 * Needs: ioctl, cancel, schedule
 */
#include "../include/site_frame.h"
#include "../include/site_plx.h"

DEFINE_GUID(GUID_TERN, 0x5a0c71e1, 0x2b1f, 0x4c55, 0x91, 0x02, 0x3d, 0x77, 0x10, 0x4e, 0x5b, 0x08);

#define IOCTL_TERN_ALARM CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA71, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_TERN_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA72, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct TERN {
    PLX Plx;
    KSPIN_LOCK AlarmLock;       /* guards what is below; the cancel lock is taken within it */
    LIST_ENTRY Alarms;          /* requests, each with TernCancel as its cancel routine */
    ULONG Count;                /* alarms */
} TERN;

static VOID NTAPI TernCancel(PDEVICE_OBJECT device, PIRP irp)
{
    TERN *tern = device->DeviceExtension;
    KIRQL irql;

#ifndef FIXED
    KeAcquireSpinLock(&tern->AlarmLock, &irql);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&tern->AlarmLock, irql);
    IoReleaseCancelSpinLock(irp->CancelIrql);
#else
    IoReleaseCancelSpinLock(irp->CancelIrql);
    KeAcquireSpinLock(&tern->AlarmLock, &irql);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&tern->AlarmLock, irql);
#endif
    Finish(&tern->Plx.Site, irp, STATUS_CANCELLED, 0);
}

static NTSTATUS TernAdd(TERN *tern, PIRP irp)
{
    BOOLEAN cancelled;
    KIRQL irql, inner;

    KeAcquireSpinLock(&tern->AlarmLock, &irql);
    IoAcquireCancelSpinLock(&inner);
    cancelled = irp->Cancel;
    if (!cancelled) {
        MarkPending(irp);
        (VOID)IoSetCancelRoutine(irp, TernCancel);
        InsertTailList(&tern->Alarms, &irp->Tail.Overlay.ListEntry);
    }
    IoReleaseCancelSpinLock(inner);
    KeReleaseSpinLock(&tern->AlarmLock, irql);
    if (cancelled)
        return Finish(&tern->Plx.Site, irp, STATUS_CANCELLED, 0);
    return STATUS_PENDING;
}

/* The request that has waited longest (of a handle, or of any); those that are being cancelled are left to their cancel routine. */
static PIRP TernTake(TERN *tern, PFILE_OBJECT file)
{
    PLIST_ENTRY entry;
    PIRP found = NULL;
    KIRQL irql, inner;

    KeAcquireSpinLock(&tern->AlarmLock, &irql);
    IoAcquireCancelSpinLock(&inner);
    for (entry = tern->Alarms.Flink; entry != &tern->Alarms && found == NULL; entry = entry->Flink) {
        PIRP irp = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);

        if (file != NULL && IoGetCurrentIrpStackLocation(irp)->FileObject != file)
            continue;
        if (IoSetCancelRoutine(irp, NULL) != NULL)
            found = irp;
    }
    if (found != NULL)
        RemoveEntryList(&found->Tail.Overlay.ListEntry);
    IoReleaseCancelSpinLock(inner);
    KeReleaseSpinLock(&tern->AlarmLock, irql);
    return found;
}

static VOID TernSweep(TERN *tern, PFILE_OBJECT file, NTSTATUS status)
{
    PIRP irp;

    while ((irp = TernTake(tern, file)) != NULL)
        Finish(&tern->Plx.Site, irp, status, 0);
}

static VOID NTAPI TernDpc(PKDPC dpc, PVOID context, PVOID one, PVOID two)
{
    TERN *tern = context;
    ULONG count;
    PIRP irp;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(one);
    UNREFERENCED_PARAMETER(two);
    if (InterlockedExchange(&tern->Plx.Fired, 0) == 0)
        return;
    KeAcquireSpinLockAtDpcLevel(&tern->AlarmLock);
    tern->Count += 1;
    count = tern->Count;
    KeReleaseSpinLockFromDpcLevel(&tern->AlarmLock);
    irp = TernTake(tern, NULL);
    if (irp != NULL) {
        *(PULONG)irp->AssociatedIrp.SystemBuffer = count;
        Finish(&tern->Plx.Site, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static NTSTATUS TernServe(SITE *site, ASK *ask)
{
    TERN *tern = (TERN *)site;
    ULONG count;
    KIRQL irql;

    if (ask->Major != IRP_MJ_DEVICE_CONTROL)
        return Finish(site, ask->Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (ask->Code != IOCTL_TERN_ALARM && ask->Code != IOCTL_TERN_COUNT)
        return Finish(site, ask->Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (ask->Out < sizeof(ULONG))
        return Finish(site, ask->Irp, STATUS_BUFFER_TOO_SMALL, 0);
    if (ask->Code == IOCTL_TERN_ALARM)
        return TernAdd(tern, ask->Irp);
    KeAcquireSpinLock(&tern->AlarmLock, &irql);
    count = tern->Count;
    KeReleaseSpinLock(&tern->AlarmLock, irql);
    *(PULONG)ask->Buffer = count;
    return Finish(site, ask->Irp, STATUS_SUCCESS, sizeof(ULONG));
}

static NTSTATUS TernBegin(SITE *site, PCM_RESOURCE_LIST resources)
{
    TERN *tern = (TERN *)site;
    NTSTATUS status = PlxMap(&tern->Plx, resources, PlxClaim);

    if (NT_SUCCESS(status))
        PlxUp(&tern->Plx, INT1_ON);
    return status;
}

static VOID TernEnd(SITE *site, BOOLEAN live)
{
    TERN *tern = (TERN *)site;

    PlxDown(&tern->Plx, live);
    PlxUnmap(&tern->Plx);
}

static VOID TernSleep(SITE *site)
{
    PlxDown(&((TERN *)site)->Plx, TRUE);
}

static VOID TernWake(SITE *site)
{
    PlxUp(&((TERN *)site)->Plx, INT1_ON);
}

static VOID TernLeave(SITE *site, PFILE_OBJECT file)
{
    TernSweep((TERN *)site, file, STATUS_CANCELLED);
}

static VOID TernDrop(SITE *site, NTSTATUS status)
{
    TernSweep((TERN *)site, NULL, status);
}

static NTSTATUS TernBorn(SITE *site)
{
    TERN *tern = (TERN *)site;

    PlxBorn(&tern->Plx, TernDpc);
    KeInitializeSpinLock(&tern->AlarmLock);
    InitializeListHead(&tern->Alarms);
    return STATUS_SUCCESS;
}

static const SCRIPT Script = {
    .Size = sizeof(TERN),
    .Interface = &GUID_TERN,
    .Born = TernBorn,
    .Begin = TernBegin,
    .End = TernEnd,
    .Sleep = TernSleep,
    .Wake = TernWake,
    .Serve = TernServe,
    .Leave = TernLeave,
    .Drop = TernDrop,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return PnpEntry(driver, &Script);
}

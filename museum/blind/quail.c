/*
 * quail: checks an installation's interrupts: a program has the card raise causes and waits until the driver has seen one. The driver
 * keeps the last sixty-four that it saw with the time of each, which can be read.
 *
 * The bug: when the device is stopped the log is freed, but its pointer stays. If the device is started again and cannot be, as its
 * registers cannot be mapped or its interrupt not be connected, the way back frees the log once more.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: double-free, bad-free, use-after-free
 * Needs: failure, removal, device
 */
#include "../include/site_frame.h"
#include "../include/site_edu.h"

DEFINE_GUID(GUID_QUAIL, 0x5a0c71e1, 0x2b1f, 0x4c55, 0x91, 0x02, 0x3d, 0x77, 0x10, 0x4e, 0x5b, 0x06);

#define QUAIL_TAG 'iauQ'

#define IOCTL_QUAIL_RAISE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA51, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_QUAIL_WAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA52, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define MOST_SEEN  64u
#define MOST_CAUSES 0xFFFFu

typedef struct SEEN {
    ULONGLONG When;
    ULONG Causes;
    ULONG Serial;
} SEEN;

typedef struct QUAIL {
    EDU Edu;
    SEEN *Log;              /* under Edu.Lock, as Count */
    ULONG Count;            /* since the device was started */
} QUAIL;

static VOID NTAPI QuailDpc(PKDPC dpc, PVOID context, PVOID one, PVOID two)
{
    QUAIL *quail = context;
    SEEN seen;
    PIRP irp;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(one);
    UNREFERENCED_PARAMETER(two);
    seen.Causes = (ULONG)InterlockedExchange(&quail->Edu.Causes, 0);
    seen.When = KeQueryInterruptTime();
    if (seen.Causes == 0)
        return;
    KeAcquireSpinLockAtDpcLevel(&quail->Edu.Lock);
    if (!quail->Edu.Up) {
        KeReleaseSpinLockFromDpcLevel(&quail->Edu.Lock);
        return;
    }
    seen.Serial = quail->Count;
    quail->Log[quail->Count % MOST_SEEN] = seen;
    quail->Count += 1;
    KeReleaseSpinLockFromDpcLevel(&quail->Edu.Lock);
    irp = LaneTake(&quail->Edu.Site.Waiting, NULL);
    if (irp != NULL) {
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &seen, sizeof seen);
        Finish(&quail->Edu.Site, irp, STATUS_SUCCESS, sizeof seen);
    }
}

static NTSTATUS QuailServe(SITE *site, ASK *ask)
{
    QUAIL *quail = (QUAIL *)site;
    ULONG causes, room, count, i;
    KIRQL irql;

    if (ask->Major == IRP_MJ_READ) {
        room = ask->Out / sizeof(SEEN);
        KeAcquireSpinLock(&quail->Edu.Lock, &irql);
        count = quail->Count < MOST_SEEN ? quail->Count : MOST_SEEN;
        if (count > room)
            count = room;
        for (i = 0; i < count; ++i)
            ((SEEN *)ask->Buffer)[i] = quail->Log[(quail->Count - count + i) % MOST_SEEN];
        KeReleaseSpinLock(&quail->Edu.Lock, irql);
        return Finish(site, ask->Irp, STATUS_SUCCESS, count * sizeof(SEEN));
    }
    if (ask->Major != IRP_MJ_DEVICE_CONTROL)
        return Finish(site, ask->Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (ask->Code) {
    case IOCTL_QUAIL_RAISE:
        if (ask->In < sizeof(ULONG))
            return Finish(site, ask->Irp, STATUS_BUFFER_TOO_SMALL, 0);
        causes = *(PULONG)ask->Buffer;
        if (causes == 0 || causes > MOST_CAUSES)
            return Finish(site, ask->Irp, STATUS_INVALID_PARAMETER, 0);
        Put32(&quail->Edu.Bar, EDU_RAISE, causes);
        return Finish(site, ask->Irp, STATUS_SUCCESS, 0);
    case IOCTL_QUAIL_WAIT:
        if (ask->Out < sizeof(SEEN))
            return Finish(site, ask->Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return LanePut(&site->Waiting, ask->Irp);
    default:
        return Finish(site, ask->Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS QuailBegin(SITE *site, PCM_RESOURCE_LIST resources)
{
    QUAIL *quail = (QUAIL *)site;
    NTSTATUS status = EduMap(&quail->Edu, resources);

    if (!NT_SUCCESS(status))
        goto undo;
    quail->Log = ExAllocatePoolWithTag(NonPagedPool, MOST_SEEN * sizeof(SEEN), QUAIL_TAG);
    if (quail->Log == NULL) {
        status = STATUS_INSUFFICIENT_RESOURCES;
        goto undo;
    }
    RtlZeroMemory(quail->Log, MOST_SEEN * sizeof(SEEN));
    quail->Count = 0;
    if (Get32(&quail->Edu.Bar, EDU_ID) == ~0u) {
        status = STATUS_DEVICE_NOT_CONNECTED;
        goto undo;
    }
    EduUp(&quail->Edu);
    return STATUS_SUCCESS;

undo:
    if (quail->Log != NULL) {
        ExFreePoolWithTag(quail->Log, QUAIL_TAG);
        quail->Log = NULL;
    }
    EduUnmap(&quail->Edu);
    return status;
}

static VOID QuailEnd(SITE *site, BOOLEAN live)
{
    QUAIL *quail = (QUAIL *)site;

    EduDown(&quail->Edu, live);
    ExFreePoolWithTag(quail->Log, QUAIL_TAG);
#ifdef FIXED
    quail->Log = NULL;
#endif
    EduUnmap(&quail->Edu);
}

static VOID QuailSleep(SITE *site)
{
    EduDown(&((QUAIL *)site)->Edu, TRUE);
}

static VOID QuailWake(SITE *site)
{
    EduUp(&((QUAIL *)site)->Edu);
}

static NTSTATUS QuailBorn(SITE *site)
{
    EduBorn(&((QUAIL *)site)->Edu, QuailDpc);
    return STATUS_SUCCESS;
}

static const SCRIPT Script = {
    .Size = sizeof(QUAIL),
    .Interface = &GUID_QUAIL,
    .Born = QuailBorn,
    .Begin = QuailBegin,
    .End = QuailEnd,
    .Sleep = QuailSleep,
    .Wake = QuailWake,
    .Serve = QuailServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return PnpEntry(driver, &Script);
}

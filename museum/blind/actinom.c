/*
 * actinom: counts flashes that a card (QEMU's edu) reports by interrupts, each with bits that say which of its tubes flashed.
 * Programs fire test flashes, wait for the next report, or have the card looked at at once.
 *
 * The bug: the routine that takes reports from the card repeats until the card has no more; a card that has been pulled reads as
 * all ones for ever, so an interrupt of a neighbour, or a program that has the card looked at, loops at the device's level.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: endless-loop, stuck, interrupt-storm, livelock
 * Needs: ioctl, removal, device
 */
#include <ddk/wdm.h>
#include "../include/solo_or_plug.h"

#define REG_CAUSE 0x24
#define REG_RAISE 0x60
#define REG_ACK 0x64
#define REG_STATUS 0x20
#define ALL_ONES 0xFFFFFFFF

#define AT_ONCE 8                   /* reports that one look takes from the card */

#define IOCTL_ACT_FIRE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ACT_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B2, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ACT_LOOK CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B3, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _ACT_REPORT {
    ULONG Reports;              /* since the last one that was given out */
    ULONG Tubes;
} ACT_REPORT;

typedef struct _ACTINOM {
    PLUG Plug;
    CARD Card;
    KDPC Dpc;
    ACT_REPORT Fresh;           /* guarded by the interrupt's lock */
    KSPIN_LOCK Lock;            /* of what follows */
    RACK Waiting;
    ACT_REPORT Kept;            /* that no one waited for */
} ACTINOM;

typedef struct _ACT_FETCH {
    ACTINOM *Actinom;
    ACT_REPORT Report;
} ACT_FETCH;

static const GUID ActInterface = { 0x6a3f5b05, 0x1c7d, 0x4e0a, { 0x9b, 0x11, 0x52, 0x40, 0x7e, 0x2d, 0x91, 0x05 } };

/* Under the interrupt's lock: takes what the card has to report. */
static BOOLEAN ActTake(ACTINOM *Actinom)
{
    BOOLEAN any = FALSE;
    ULONG cause;
#ifdef FIXED
    ULONG i;

    for (i = 0; i < AT_ONCE; i++) {
        cause = CardRead(&Actinom->Card, REG_CAUSE);
        if (cause == 0 || cause == ALL_ONES)
            break;
#else
    while ((cause = CardRead(&Actinom->Card, REG_CAUSE)) != 0) {
#endif
        CardWrite(&Actinom->Card, REG_ACK, cause);
        Actinom->Fresh.Reports++;
        Actinom->Fresh.Tubes |= cause;
        any = TRUE;
    }
    return any;
}

static BOOLEAN ActServe(PVOID Owner)
{
    ACTINOM *actinom = Owner;

    if (!ActTake(actinom))
        return FALSE;
    KeInsertQueueDpc(&actinom->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI ActLook(PVOID Context)
{
    ACTINOM *actinom = Context;
    BOOLEAN any = ActTake(actinom);

    if (any)
        KeInsertQueueDpc(&actinom->Dpc, NULL, NULL);
    return any;
}

static BOOLEAN NTAPI ActFetch(PVOID Context)
{
    ACT_FETCH *fetch = Context;

    fetch->Report = fetch->Actinom->Fresh;
    fetch->Actinom->Fresh.Reports = 0;
    fetch->Actinom->Fresh.Tubes = 0;
    return fetch->Report.Reports != 0;
}

static VOID ActSilence(CARD *Card)
{
    CardWrite(Card, REG_STATUS, 0);
    CardWrite(Card, REG_ACK, CardRead(Card, REG_CAUSE));
    (VOID)CardRead(Card, REG_CAUSE);
}

static BOOLEAN NTAPI ActMute(PVOID Context)
{
    ACTINOM *actinom = Context;

    ActSilence(&actinom->Card);
    actinom->Card.Live = FALSE;
    return TRUE;
}

static VOID ActAnswer(PIRP Irp, const ACT_REPORT *Report)
{
    *(ACT_REPORT *)Irp->AssociatedIrp.SystemBuffer = *Report;
}

/* All who wait get the same report; if there is no one it is kept. */
static VOID NTAPI ActDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    ACTINOM *actinom = Context;
    ACT_FETCH fetch;
    LIST_ENTRY served;
    PIRP irp;
    KIRQL irql;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    fetch.Actinom = actinom;
    if (!KeSynchronizeExecution(actinom->Card.Line, ActFetch, &fetch))
        return;
    InitializeListHead(&served);
    KeAcquireSpinLock(&actinom->Lock, &irql);
    fetch.Report.Reports += actinom->Kept.Reports;
    fetch.Report.Tubes |= actinom->Kept.Tubes;
    while ((irp = RackTakeLocked(&actinom->Waiting, NULL)) != NULL)
        InsertTailList(&served, &irp->Tail.Overlay.ListEntry);
    if (IsListEmpty(&served))
        actinom->Kept = fetch.Report;
    else
        RtlZeroMemory(&actinom->Kept, sizeof(ACT_REPORT));
    KeReleaseSpinLock(&actinom->Lock, irql);
    while (!IsListEmpty(&served)) {
        irp = CONTAINING_RECORD(RemoveHeadList(&served), IRP, Tail.Overlay.ListEntry);
        ActAnswer(irp, &fetch.Report);
        PlugFinish(&actinom->Plug, irp, STATUS_SUCCESS, sizeof(ACT_REPORT));
    }
}

static NTSTATUS ActWait(ACTINOM *Actinom, PIRP Irp)
{
    BOOLEAN stands;
    KIRQL irql;

    KeAcquireSpinLock(&Actinom->Lock, &irql);
    if (Actinom->Kept.Reports != 0) {
        ActAnswer(Irp, &Actinom->Kept);
        RtlZeroMemory(&Actinom->Kept, sizeof(ACT_REPORT));
        KeReleaseSpinLock(&Actinom->Lock, irql);
        return PlugEnd(&Actinom->Plug, Irp, STATUS_SUCCESS, sizeof(ACT_REPORT));
    }
    stands = RackAddLocked(&Actinom->Waiting, Irp, FALSE);
    KeReleaseSpinLock(&Actinom->Lock, irql);
    if (!stands)
        PlugFinish(&Actinom->Plug, Irp, STATUS_CANCELLED, 0);
    return STATUS_PENDING;
}

static NTSTATUS ActRequest(PLUG *Plug, PIRP Irp)
{
    ACTINOM *actinom = (ACTINOM *)Plug;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG tubes;

    if (stack->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return PlugEnd(Plug, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ACT_FIRE:
        if (stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return PlugEnd(Plug, Irp, STATUS_INVALID_PARAMETER, 0);
        tubes = *(ULONG *)Irp->AssociatedIrp.SystemBuffer;
        if (tubes == 0 || tubes > 0xFF)
            return PlugEnd(Plug, Irp, STATUS_INVALID_PARAMETER, 0);
        CardWrite(&actinom->Card, REG_RAISE, tubes);
        return PlugEnd(Plug, Irp, STATUS_SUCCESS, 0);
    case IOCTL_ACT_WAIT:
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ACT_REPORT))
            return PlugEnd(Plug, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return ActWait(actinom, Irp);
    case IOCTL_ACT_LOOK:
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return PlugEnd(Plug, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        *(ULONG *)Irp->AssociatedIrp.SystemBuffer = KeSynchronizeExecution(actinom->Card.Line, ActLook, actinom);
        return PlugEnd(Plug, Irp, STATUS_SUCCESS, sizeof(ULONG));
    default:
        return PlugEnd(Plug, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS ActAdded(PLUG *Plug)
{
    ACTINOM *actinom = (ACTINOM *)Plug;

    KeInitializeSpinLock(&actinom->Lock);
    RackInit(&actinom->Waiting, &actinom->Lock, PlugDrop, Plug);
    KeInitializeDpc(&actinom->Dpc, ActDpc, actinom);
    return STATUS_SUCCESS;
}

static NTSTATUS ActBegin(PLUG *Plug, PCM_RESOURCE_LIST Translated)
{
    ACTINOM *actinom = (ACTINOM *)Plug;
    NTSTATUS status = CardMap(&actinom->Card, Translated, 0x100);

    if (!NT_SUCCESS(status))
        return status;
    ActSilence(&actinom->Card);
    status = CardConnect(&actinom->Card, Translated, ActServe, actinom);
    if (!NT_SUCCESS(status)) {
        CardUnmap(&actinom->Card);
        return status;
    }
    CardLive(&actinom->Card, TRUE);
    return STATUS_SUCCESS;
}

static VOID ActHalt(PLUG *Plug, BOOLEAN Reachable)
{
    ACTINOM *actinom = (ACTINOM *)Plug;

    if (Reachable)
        KeSynchronizeExecution(actinom->Card.Line, ActMute, actinom);
    else
        CardLive(&actinom->Card, FALSE);
    /* the DPC uses the interrupt's lock */
    KeFlushQueuedDpcs();
    CardDisconnect(&actinom->Card);
    CardUnmap(&actinom->Card);
}

static VOID ActDoze(PLUG *Plug)
{
    ACTINOM *actinom = (ACTINOM *)Plug;

    KeSynchronizeExecution(actinom->Card.Line, ActMute, actinom);
}

static VOID ActRouse(PLUG *Plug)
{
    CardLive(&((ACTINOM *)Plug)->Card, TRUE);
}

static VOID ActFlush(PLUG *Plug, PFILE_OBJECT File, NTSTATUS Status)
{
    RackClear(&((ACTINOM *)Plug)->Waiting, File, Status);
}

static const PLUG_ROLE ActRole = {
    .Size = sizeof(ACTINOM), .Flags = DO_BUFFERED_IO, .Interface = &ActInterface,
    .Added = ActAdded, .Begin = ActBegin, .Halt = ActHalt, .Doze = ActDoze, .Rouse = ActRouse,
    .Request = ActRequest, .Flush = ActFlush,
};

static NTSTATUS NTAPI ActAdd(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    return PlugAdd(DriverObject, Pdo, &ActRole);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return PlugEntry(DriverObject, ActAdd);
}

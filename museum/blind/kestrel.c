/*
 * kestrel: the educational card as a computing unit that several programs share. It computes factorials, and rings a bell: a request
 * to ring is completed when the card's interrupt has made its way to the driver, by which the way itself is tested.
 *
 * The bug: the DPC reads the causes that the service routine has gathered, and clears them by a plain store afterwards. Causes that the
 * service routine adds in between are lost, and the request that waits for them is never completed.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: data-race, irp-never-completed, stuck
 * Needs: ioctl, schedule, device
 */
#include <ddk/wdm.h>
#include "../include/shell_frame.h"
#include "../include/shell_edu.h"
#include "../include/lane_of_requests.h"

#define KESTREL_FACTORIAL   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_ANY_ACCESS)  /* in: ULONG up to 12; out: ULONG */
#define KESTREL_RING        CTL_CODE(FILE_DEVICE_UNKNOWN, 0x902, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct KESTREL {
    SHELL Shell;
    WINDOW Card;
    PKINTERRUPT Interrupt;
    BOOLEAN Awake;              /* the service routine may touch the card */
    volatile LONG Causes;       /* acknowledged, and not served by the DPC yet */
    KDPC Dpc;
    LANE Lane;
    PEN Bells;
} KESTREL;

static const GUID KestrelInterface = { 0x5b9e1a40, 0x6c21, 0x4d07, { 0x9a, 0x51, 0x30, 0x7e, 0x11, 0xc2, 0x8f, 0x01 } };

static BOOLEAN NTAPI KestrelInterrupt(PKINTERRUPT Interrupt, PVOID Context)
{
    KESTREL *kestrel = Context;
    ULONG causes;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!kestrel->Awake)
        return FALSE;
    causes = RegRead(&kestrel->Card, EDU_CAUSES);
    if (causes == 0 || causes == EDU_GONE)
        return FALSE;
    EduAck(&kestrel->Card, causes);
    InterlockedOr(&kestrel->Causes, (LONG)causes);
    KeInsertQueueDpc(&kestrel->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI KestrelDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    KESTREL *kestrel = Context;
    LONG causes;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
#ifndef FIXED
    causes = kestrel->Causes;
    kestrel->Causes = 0;
#else
    causes = InterlockedExchange(&kestrel->Causes, 0);
#endif
    if (causes & EDU_CAUSE_FACT)
        LaneLand(&kestrel->Lane);
    if (causes & EDU_CAUSE_BELL)
        PenSweep(&kestrel->Bells, NULL, STATUS_SUCCESS);
}

static VOID KestrelLaunch(PVOID Owner, PIRP Irp)
{
    KESTREL *kestrel = Owner;

    RegWrite(&kestrel->Card, EDU_FACTORIAL, *(ULONG *)Irp->AssociatedIrp.SystemBuffer);
}

static BOOLEAN KestrelIdle(PVOID Owner)
{
    KESTREL *kestrel = Owner;

    return !(RegRead(&kestrel->Card, EDU_STATUS) & EDU_COMPUTING);
}

static VOID KestrelCollect(PVOID Owner, PIRP Irp)
{
    KESTREL *kestrel = Owner;

    *(ULONG *)Irp->AssociatedIrp.SystemBuffer = RegRead(&kestrel->Card, EDU_FACTORIAL);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = sizeof(ULONG);
}

static const LANE_CRAFT KestrelCraft = { KestrelLaunch, KestrelIdle, KestrelCollect };

static BOOLEAN NTAPI KestrelWakeUp(PVOID Context)
{
    ((KESTREL *)Context)->Awake = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI KestrelFallAsleep(PVOID Context)
{
    ((KESTREL *)Context)->Awake = FALSE;
    return TRUE;
}

/* The card interrupts: goes on with what waits. */
static VOID KestrelGo(KESTREL *Kestrel)
{
    RegWrite(&Kestrel->Card, EDU_STATUS, EDU_TELL);
    LaneResume(&Kestrel->Lane);
    if (!PenEmpty(&Kestrel->Bells))
        RegWrite(&Kestrel->Card, EDU_RAISE, EDU_CAUSE_BELL);
}

static NTSTATUS KestrelFound(SHELL *Shell)
{
    KESTREL *kestrel = (KESTREL *)Shell;

    KeInitializeDpc(&kestrel->Dpc, KestrelDpc, kestrel);
    LaneInit(&kestrel->Lane, &KestrelCraft, kestrel);
    PenInit(&kestrel->Bells);
    return STATUS_SUCCESS;
}

static NTSTATUS KestrelBegin(SHELL *Shell, PCM_RESOURCE_LIST Resources)
{
    KESTREL *kestrel = (KESTREL *)Shell;
    NTSTATUS status = WindowMap(&kestrel->Card, IronFind(Resources, CmResourceTypeMemory, 0), EDU_BYTES);

    if (!NT_SUCCESS(status))
        return status;
    if (!EduThere(&kestrel->Card)) {
        WindowUnmap(&kestrel->Card);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    EduQuiet(&kestrel->Card);
    InterlockedExchange(&kestrel->Causes, 0);
    kestrel->Awake = TRUE;
    status = IronInterrupt(IronFind(Resources, CmResourceTypeInterrupt, 0), KestrelInterrupt, kestrel, &kestrel->Interrupt);
    if (!NT_SUCCESS(status)) {
        kestrel->Awake = FALSE;
        WindowUnmap(&kestrel->Card);
        return status;
    }
    KestrelGo(kestrel);
    return STATUS_SUCCESS;
}

static VOID KestrelEnd(SHELL *Shell, BOOLEAN Present)
{
    KESTREL *kestrel = (KESTREL *)Shell;

    LaneHalt(&kestrel->Lane);
    if (Present)
        EduQuiet(&kestrel->Card);
    KeSynchronizeExecution(kestrel->Interrupt, KestrelFallAsleep, kestrel);
    IoDisconnectInterrupt(kestrel->Interrupt);
    kestrel->Interrupt = NULL;
    KeFlushQueuedDpcs();
    WindowUnmap(&kestrel->Card);
}

static VOID KestrelRest(SHELL *Shell)
{
    KESTREL *kestrel = (KESTREL *)Shell;

    LaneHalt(&kestrel->Lane);
    EduQuiet(&kestrel->Card);
    KeSynchronizeExecution(kestrel->Interrupt, KestrelFallAsleep, kestrel);
    KeFlushQueuedDpcs();
}

static VOID KestrelRouse(SHELL *Shell)
{
    KESTREL *kestrel = (KESTREL *)Shell;

    KeSynchronizeExecution(kestrel->Interrupt, KestrelWakeUp, kestrel);
    KestrelGo(kestrel);
}

static VOID KestrelDesert(SHELL *Shell)
{
    KESTREL *kestrel = (KESTREL *)Shell;

    LaneShut(&kestrel->Lane, STATUS_DEVICE_REMOVED);
    PenShut(&kestrel->Bells, STATUS_DEVICE_REMOVED);
}

static NTSTATUS KestrelServe(SHELL *Shell, PIRP Irp, PIO_STACK_LOCATION At)
{
    KESTREL *kestrel = (KESTREL *)Shell;
    NTSTATUS status = STATUS_INVALID_DEVICE_REQUEST;

    if (At->MajorFunction == IRP_MJ_DEVICE_CONTROL) {
        switch (At->Parameters.DeviceIoControl.IoControlCode) {
        case KESTREL_FACTORIAL:
            if (At->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) ||
                At->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
                status = STATUS_BUFFER_TOO_SMALL;
            else if (*(ULONG *)Irp->AssociatedIrp.SystemBuffer > 12)
                status = STATUS_INVALID_PARAMETER;
            else
                status = LaneAdd(&kestrel->Lane, Irp);
            break;

        case KESTREL_RING:
            status = PenAdd(&kestrel->Bells, Irp);
            if (status == STATUS_PENDING)
                RegWrite(&kestrel->Card, EDU_RAISE, EDU_CAUSE_BELL);
            break;
        }
    }
    if (status != STATUS_PENDING)
        Settle(Irp, status, 0);
    return status;
}

static VOID KestrelQuit(SHELL *Shell, PFILE_OBJECT File)
{
    KESTREL *kestrel = (KESTREL *)Shell;

    LaneSweep(&kestrel->Lane, File);
    PenSweep(&kestrel->Bells, File, STATUS_CANCELLED);
}

static const SHELL_TRADE KestrelTrade = {
    .Size = sizeof(KESTREL), .Interface = &KestrelInterface,
    .Found = KestrelFound, .Begin = KestrelBegin, .End = KestrelEnd, .Rest = KestrelRest, .Rouse = KestrelRouse,
    .Desert = KestrelDesert, .Serve = KestrelServe, .Quit = KestrelQuit,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return ShellEntry(Driver, &KestrelTrade);
}

/*
 * marlin: binomial coefficients by the educational card. A request gives n and k; the card computes n! for it, and the driver divides
 * by the factorials of k and n - k, which it knows. Requests wait while the card computes.
 *
 * The bug: when its device goes, the driver first waits without a limit for the computation that is under way. A card that was pulled
 * out never ends it, so the removal hangs, and the requests with it.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: stuck, deadlock, request-pending-after-surprise-removal, irp-never-completed
 * Needs: ioctl, removal, device
 */
#include <ddk/wdm.h>
#include "../include/shell_frame.h"
#include "../include/shell_edu.h"
#include "../include/lane_of_requests.h"

#define MARLIN_CHOOSE   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x911, METHOD_BUFFERED, FILE_ANY_ACCESS)  /* in: CHOICE; out: ULONG */
#define MARLIN_SERVED   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x912, METHOD_BUFFERED, FILE_ANY_ACCESS)  /* out: ULONG */

#define MARLIN_MOST     12          /* 12! is the last that has 32 bits */

typedef struct CHOICE {
    ULONG Of;
    ULONG Chosen;
} CHOICE;

typedef struct MARLIN {
    SHELL Shell;
    WINDOW Card;
    PKINTERRUPT Interrupt;
    BOOLEAN Awake;
    volatile LONG Done;         /* the service routine has seen the end of a computation */
    volatile LONG Served;
    KDPC Dpc;
    LANE Lane;
    KEVENT Idle;                /* the card computes nothing; with the lane's lock */
} MARLIN;

static const GUID MarlinInterface = { 0x0c7d3e12, 0x8f40, 0x49b1, { 0x8e, 0x02, 0x6a, 0x45, 0x90, 0x1b, 0x7c, 0x02 } };

static const ULONG MarlinFactorials[MARLIN_MOST + 1] = {
    1, 1, 2, 6, 24, 120, 720, 5040, 40320, 362880, 3628800, 39916800, 479001600
};

static BOOLEAN NTAPI MarlinInterrupt(PKINTERRUPT Interrupt, PVOID Context)
{
    MARLIN *marlin = Context;
    ULONG causes;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!marlin->Awake)
        return FALSE;
    causes = RegRead(&marlin->Card, EDU_CAUSES);
    if (causes == 0 || causes == EDU_GONE)
        return FALSE;
    EduAck(&marlin->Card, causes);
    if (causes & EDU_CAUSE_FACT) {
        InterlockedExchange(&marlin->Done, 1);
        KeInsertQueueDpc(&marlin->Dpc, NULL, NULL);
    }
    return TRUE;
}

static VOID NTAPI MarlinDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    MARLIN *marlin = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    if (InterlockedExchange(&marlin->Done, 0))
        LaneLand(&marlin->Lane);
}

static VOID MarlinLaunch(PVOID Owner, PIRP Irp)
{
    MARLIN *marlin = Owner;

    KeClearEvent(&marlin->Idle);
    RegWrite(&marlin->Card, EDU_FACTORIAL, ((CHOICE *)Irp->AssociatedIrp.SystemBuffer)->Of);
}

static BOOLEAN MarlinIdle(PVOID Owner)
{
    MARLIN *marlin = Owner;

    if (RegRead(&marlin->Card, EDU_STATUS) & EDU_COMPUTING)
        return FALSE;
    KeSetEvent(&marlin->Idle, IO_NO_INCREMENT, FALSE);
    return TRUE;
}

static VOID MarlinCollect(PVOID Owner, PIRP Irp)
{
    MARLIN *marlin = Owner;
    CHOICE *choice = Irp->AssociatedIrp.SystemBuffer;
    ULONG all = RegRead(&marlin->Card, EDU_FACTORIAL);

    *(ULONG *)choice = all / MarlinFactorials[choice->Chosen] / MarlinFactorials[choice->Of - choice->Chosen];
    InterlockedIncrement(&marlin->Served);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = sizeof(ULONG);
}

static const LANE_CRAFT MarlinCraft = { MarlinLaunch, MarlinIdle, MarlinCollect };

static BOOLEAN NTAPI MarlinSetAwake(PVOID Context)
{
    ((MARLIN *)Context)->Awake = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI MarlinSetAsleep(PVOID Context)
{
    ((MARLIN *)Context)->Awake = FALSE;
    return TRUE;
}

static NTSTATUS MarlinFound(SHELL *Shell)
{
    MARLIN *marlin = (MARLIN *)Shell;

    KeInitializeDpc(&marlin->Dpc, MarlinDpc, marlin);
    KeInitializeEvent(&marlin->Idle, NotificationEvent, TRUE);
    LaneInit(&marlin->Lane, &MarlinCraft, marlin);
    return STATUS_SUCCESS;
}

static NTSTATUS MarlinBegin(SHELL *Shell, PCM_RESOURCE_LIST Resources)
{
    MARLIN *marlin = (MARLIN *)Shell;
    NTSTATUS status = WindowMap(&marlin->Card, IronFind(Resources, CmResourceTypeMemory, 0), EDU_BYTES);

    if (!NT_SUCCESS(status))
        return status;
    if (!EduThere(&marlin->Card)) {
        status = STATUS_DEVICE_CONFIGURATION_ERROR;
        goto failed;
    }
    EduQuiet(&marlin->Card);
    InterlockedExchange(&marlin->Done, 0);
    marlin->Awake = TRUE;
    status = IronInterrupt(IronFind(Resources, CmResourceTypeInterrupt, 0), MarlinInterrupt, marlin, &marlin->Interrupt);
    if (!NT_SUCCESS(status))
        goto failed;
    RegWrite(&marlin->Card, EDU_STATUS, EDU_TELL);
    LaneResume(&marlin->Lane);
    return STATUS_SUCCESS;

failed:
    marlin->Awake = FALSE;
    WindowUnmap(&marlin->Card);
    return status;
}

static VOID MarlinEnd(SHELL *Shell, BOOLEAN Present)
{
    MARLIN *marlin = (MARLIN *)Shell;

    /* What is under way may come to its end. */
#ifndef FIXED
    KeWaitForSingleObject(&marlin->Idle, Executive, KernelMode, FALSE, NULL);
#else
    if (Present) {
        LARGE_INTEGER limit;
        limit.QuadPart = -500 * 10000LL;
        KeWaitForSingleObject(&marlin->Idle, Executive, KernelMode, FALSE, &limit);
    }
#endif
    LaneHalt(&marlin->Lane);
    if (Present)
        EduQuiet(&marlin->Card);
    KeSynchronizeExecution(marlin->Interrupt, MarlinSetAsleep, marlin);
    IoDisconnectInterrupt(marlin->Interrupt);
    marlin->Interrupt = NULL;
    KeFlushQueuedDpcs();
    WindowUnmap(&marlin->Card);
    KeSetEvent(&marlin->Idle, IO_NO_INCREMENT, FALSE);
}

static VOID MarlinRest(SHELL *Shell)
{
    MARLIN *marlin = (MARLIN *)Shell;

    LaneHalt(&marlin->Lane);            /* what runs is computed again when the power is back */
    EduQuiet(&marlin->Card);
    KeSynchronizeExecution(marlin->Interrupt, MarlinSetAsleep, marlin);
    KeFlushQueuedDpcs();
    KeSetEvent(&marlin->Idle, IO_NO_INCREMENT, FALSE);
}

static VOID MarlinRouse(SHELL *Shell)
{
    MARLIN *marlin = (MARLIN *)Shell;

    KeSynchronizeExecution(marlin->Interrupt, MarlinSetAwake, marlin);
    RegWrite(&marlin->Card, EDU_STATUS, EDU_TELL);
    LaneResume(&marlin->Lane);
}

static VOID MarlinDesert(SHELL *Shell)
{
    LaneShut(&((MARLIN *)Shell)->Lane, STATUS_DEVICE_REMOVED);
}

static NTSTATUS MarlinServe(SHELL *Shell, PIRP Irp, PIO_STACK_LOCATION At)
{
    MARLIN *marlin = (MARLIN *)Shell;
    CHOICE *choice = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = At->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = At->Parameters.DeviceIoControl.OutputBufferLength;
    NTSTATUS status;

    if (At->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return Settle(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (At->Parameters.DeviceIoControl.IoControlCode) {
    case MARLIN_CHOOSE:
        if (in < sizeof(CHOICE) || out < sizeof(ULONG))
            return Settle(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (choice->Of > MARLIN_MOST || choice->Chosen > choice->Of)
            return Settle(Irp, STATUS_INVALID_PARAMETER, 0);
        status = LaneAdd(&marlin->Lane, Irp);
        return status == STATUS_PENDING ? status : Settle(Irp, status, 0);

    case MARLIN_SERVED:
        if (out < sizeof(ULONG))
            return Settle(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        *(ULONG *)choice = (ULONG)InterlockedExchangeAdd(&marlin->Served, 0);
        return Settle(Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    return Settle(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID MarlinQuit(SHELL *Shell, PFILE_OBJECT File)
{
    LaneSweep(&((MARLIN *)Shell)->Lane, File);
}

static const SHELL_TRADE MarlinTrade = {
    .Size = sizeof(MARLIN), .Interface = &MarlinInterface,
    .Found = MarlinFound, .Begin = MarlinBegin, .End = MarlinEnd, .Rest = MarlinRest, .Rouse = MarlinRouse,
    .Desert = MarlinDesert, .Serve = MarlinServe, .Quit = MarlinQuit,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return ShellEntry(Driver, &MarlinTrade);
}

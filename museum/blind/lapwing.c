/*
 * lapwing: the 4 KB of memory on the educational card as a small store that programs read and write. The card moves the bytes itself,
 * from and to a common buffer.
 *
 * The bug: before the common buffer is freed the driver waits for the card only if a request was under way. When that request was
 * cancelled just before, the card is still moving, and the device is stopped or removed, it writes to memory that is not the driver's.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: wild-dma, dma-after-unmap
 * Needs: cancel, removal, device
 */
#include <ddk/wdm.h>
#include "../include/shell_frame.h"
#include "../include/shell_edu.h"
#include "../include/lane_of_requests.h"

typedef struct LAPWING {
    SHELL Shell;
    WINDOW Card;
    PKINTERRUPT Interrupt;
    BOOLEAN Awake;
    volatile LONG Moved;        /* the service routine has seen the end of a transfer */
    KDPC Dpc;
    LANE Lane;
    PDMA_ADAPTER Adapter;
    PUCHAR Common;
    PHYSICAL_ADDRESS Logical;
} LAPWING;

static const GUID LapwingInterface = { 0x7e11c9d3, 0x2a5b, 0x4f60, { 0xa7, 0x3c, 0x18, 0xd4, 0x62, 0x09, 0x5e, 0x03 } };

static BOOLEAN NTAPI LapwingInterrupt(PKINTERRUPT Interrupt, PVOID Context)
{
    LAPWING *lapwing = Context;
    ULONG causes;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!lapwing->Awake)
        return FALSE;
    causes = RegRead(&lapwing->Card, EDU_CAUSES);
    if (causes == 0 || causes == EDU_GONE)
        return FALSE;
    EduAck(&lapwing->Card, causes);
    if (causes & EDU_CAUSE_DMA) {
        InterlockedExchange(&lapwing->Moved, 1);
        KeInsertQueueDpc(&lapwing->Dpc, NULL, NULL);
    }
    return TRUE;
}

static VOID NTAPI LapwingDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    LAPWING *lapwing = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    if (InterlockedExchange(&lapwing->Moved, 0))
        LaneLand(&lapwing->Lane);
}

static VOID LapwingLaunch(PVOID Owner, PIRP Irp)
{
    LAPWING *lapwing = Owner;
    PIO_STACK_LOCATION at = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN read = at->MajorFunction == IRP_MJ_READ;
    ULONG offset = (ULONG)(read ? at->Parameters.Read.ByteOffset.QuadPart : at->Parameters.Write.ByteOffset.QuadPart);
    ULONG length = read ? at->Parameters.Read.Length : at->Parameters.Write.Length;

    if (!read)
        RtlCopyMemory(lapwing->Common, Irp->AssociatedIrp.SystemBuffer, length);
    EduDmaStart(&lapwing->Card, (ULONG)lapwing->Logical.QuadPart, offset, length, read, TRUE);
}

static BOOLEAN LapwingIdle(PVOID Owner)
{
    LAPWING *lapwing = Owner;

    return !(RegRead(&lapwing->Card, EDU_DMA_COMMAND) & EDU_DMA_START);
}

static VOID LapwingCollect(PVOID Owner, PIRP Irp)
{
    LAPWING *lapwing = Owner;
    PIO_STACK_LOCATION at = IoGetCurrentIrpStackLocation(Irp);

    if (at->MajorFunction == IRP_MJ_READ) {
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, lapwing->Common, at->Parameters.Read.Length);
        Irp->IoStatus.Information = at->Parameters.Read.Length;
    } else {
        Irp->IoStatus.Information = at->Parameters.Write.Length;
    }
    Irp->IoStatus.Status = STATUS_SUCCESS;
}

static const LANE_CRAFT LapwingCraft = { LapwingLaunch, LapwingIdle, LapwingCollect };

static BOOLEAN NTAPI LapwingAwake(PVOID Context)
{
    ((LAPWING *)Context)->Awake = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI LapwingAsleep(PVOID Context)
{
    ((LAPWING *)Context)->Awake = FALSE;
    return TRUE;
}

static NTSTATUS LapwingFound(SHELL *Shell)
{
    LAPWING *lapwing = (LAPWING *)Shell;

    KeInitializeDpc(&lapwing->Dpc, LapwingDpc, lapwing);
    LaneInit(&lapwing->Lane, &LapwingCraft, lapwing);
    return STATUS_SUCCESS;
}

static NTSTATUS LapwingBegin(SHELL *Shell, PCM_RESOURCE_LIST Resources)
{
    LAPWING *lapwing = (LAPWING *)Shell;
    ULONG registers;
    NTSTATUS status = WindowMap(&lapwing->Card, IronFind(Resources, CmResourceTypeMemory, 0), EDU_BYTES);

    if (!NT_SUCCESS(status))
        return status;
    if (!EduThere(&lapwing->Card) || !EduDmaSettled(&lapwing->Card, 2000)) {
        status = STATUS_DEVICE_CONFIGURATION_ERROR;
        goto unmap;
    }
    EduQuiet(&lapwing->Card);
    lapwing->Adapter = EduAdapter(Shell->Pdo, &registers);
    if (lapwing->Adapter == NULL) {
        status = STATUS_INSUFFICIENT_RESOURCES;
        goto unmap;
    }
    lapwing->Common = lapwing->Adapter->DmaOperations->AllocateCommonBuffer(lapwing->Adapter, EDU_MEMORY_SIZE, &lapwing->Logical, TRUE);
    if (lapwing->Common == NULL) {
        status = STATUS_INSUFFICIENT_RESOURCES;
        goto put;
    }
    if ((ULONGLONG)lapwing->Logical.QuadPart + EDU_MEMORY_SIZE > EDU_REACH) {
        status = STATUS_INSUFFICIENT_RESOURCES;     /* none that the card can reach */
        goto free;
    }
    InterlockedExchange(&lapwing->Moved, 0);
    lapwing->Awake = TRUE;
    status = IronInterrupt(IronFind(Resources, CmResourceTypeInterrupt, 0), LapwingInterrupt, lapwing, &lapwing->Interrupt);
    if (!NT_SUCCESS(status)) {
        lapwing->Awake = FALSE;
        goto free;
    }
    LaneResume(&lapwing->Lane);
    return STATUS_SUCCESS;

free:
    lapwing->Adapter->DmaOperations->FreeCommonBuffer(lapwing->Adapter, EDU_MEMORY_SIZE, lapwing->Logical, lapwing->Common, TRUE);
    lapwing->Common = NULL;
put:
    lapwing->Adapter->DmaOperations->PutDmaAdapter(lapwing->Adapter);
    lapwing->Adapter = NULL;
unmap:
    WindowUnmap(&lapwing->Card);
    return status;
}

static VOID LapwingEnd(SHELL *Shell, BOOLEAN Present)
{
    LAPWING *lapwing = (LAPWING *)Shell;
    BOOLEAN settled = TRUE;
#ifndef FIXED
    BOOLEAN ran = LaneHalt(&lapwing->Lane);

    if (Present && ran)
        settled = EduDmaSettled(&lapwing->Card, 300000);
#else
    LaneHalt(&lapwing->Lane);
    if (Present)                        /* the card may be at one that was cancelled */
        settled = EduDmaSettled(&lapwing->Card, 300000);
#endif
    if (Present)
        EduAck(&lapwing->Card, RegRead(&lapwing->Card, EDU_CAUSES));
    KeSynchronizeExecution(lapwing->Interrupt, LapwingAsleep, lapwing);
    IoDisconnectInterrupt(lapwing->Interrupt);
    lapwing->Interrupt = NULL;
    KeFlushQueuedDpcs();
    if (settled) {
        lapwing->Adapter->DmaOperations->FreeCommonBuffer(lapwing->Adapter, EDU_MEMORY_SIZE, lapwing->Logical, lapwing->Common, TRUE);
        lapwing->Adapter->DmaOperations->PutDmaAdapter(lapwing->Adapter);
    }                                   /* else the card is broken, and keeps it: memory lost is better than memory overwritten */
    lapwing->Common = NULL;
    lapwing->Adapter = NULL;
    WindowUnmap(&lapwing->Card);
}

static VOID LapwingRest(SHELL *Shell)
{
    LAPWING *lapwing = (LAPWING *)Shell;

    LaneHalt(&lapwing->Lane);           /* what runs is moved again when the power is back */
    EduDmaSettled(&lapwing->Card, 10000);
    EduAck(&lapwing->Card, RegRead(&lapwing->Card, EDU_CAUSES));
    KeSynchronizeExecution(lapwing->Interrupt, LapwingAsleep, lapwing);
    KeFlushQueuedDpcs();
}

static VOID LapwingRouse(SHELL *Shell)
{
    LAPWING *lapwing = (LAPWING *)Shell;

    KeSynchronizeExecution(lapwing->Interrupt, LapwingAwake, lapwing);
    LaneResume(&lapwing->Lane);
}

static VOID LapwingDesert(SHELL *Shell)
{
    LaneShut(&((LAPWING *)Shell)->Lane, STATUS_DEVICE_REMOVED);
}

static NTSTATUS LapwingServe(SHELL *Shell, PIRP Irp, PIO_STACK_LOCATION At)
{
    LAPWING *lapwing = (LAPWING *)Shell;
    LONGLONG offset;
    ULONG length;
    NTSTATUS status;

    switch (At->MajorFunction) {
    case IRP_MJ_READ:
        offset = At->Parameters.Read.ByteOffset.QuadPart;
        length = At->Parameters.Read.Length;
        break;
    case IRP_MJ_WRITE:
        offset = At->Parameters.Write.ByteOffset.QuadPart;
        length = At->Parameters.Write.Length;
        break;
    default:
        return Settle(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (offset < 0 || offset > EDU_MEMORY_SIZE || length > EDU_MEMORY_SIZE - (ULONG)offset)
        return Settle(Irp, STATUS_INVALID_PARAMETER, 0);
    if (length == 0)
        return Settle(Irp, STATUS_SUCCESS, 0);
    status = LaneAdd(&lapwing->Lane, Irp);
    return status == STATUS_PENDING ? status : Settle(Irp, status, 0);
}

static VOID LapwingQuit(SHELL *Shell, PFILE_OBJECT File)
{
    LaneSweep(&((LAPWING *)Shell)->Lane, File);
}

static const SHELL_TRADE LapwingTrade = {
    .Size = sizeof(LAPWING), .Interface = &LapwingInterface, .IoFlags = DO_BUFFERED_IO,
    .Found = LapwingFound, .Begin = LapwingBegin, .End = LapwingEnd, .Rest = LapwingRest, .Rouse = LapwingRouse,
    .Desert = LapwingDesert, .Serve = LapwingServe, .Quit = LapwingQuit,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return ShellEntry(Driver, &LapwingTrade);
}

/*
 * digitiz: a digitizer that samples into the card's memory (QEMU's edu: 4096 bytes). What a program reads is moved into its
 * buffer by the card, piece by piece of the buffer's scatter/gather list; reads wait their turn in a rack.
 *
 * The bug: cancelling the read that the card works at gives its scatter/gather list back and completes it at once, as the port
 * did for a signal; the card has no way to stop and goes on storing into pages that belong to someone else by then.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: dma-unlocked-while-mapped, wild-dma, dma-after-unmap, register-write-ignored
 * Needs: ioctl, cancel, device
 */
#include <ddk/wdm.h>
#include "../include/solo_or_plug.h"

#define REG_CAUSE 0x24
#define REG_ACK 0x64
#define REG_FROM 0x80
#define REG_TO 0x88
#define REG_COUNT 0x90
#define REG_COMMAND 0x98
#define COMMAND_RUN 0x1
#define COMMAND_TO_MEMORY 0x2
#define COMMAND_INTERRUPT 0x4
#define ALL_ONES 0xFFFFFFFF

#define CARD_MEMORY 0x40000
#define CARD_BYTES 4096
#define CARD_LINES 28
#define PATIENCE 240                /* seconds, after which a card that is to be left counts as dead */

#define IOCTL_DIGI_READS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8D1, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef enum _PHASE { PhaseIdle, PhaseMapping, PhaseMoving, PhaseEnding } PHASE;

typedef struct _DIGI {
    PLUG Plug;
    CARD Card;
    PDMA_ADAPTER Adapter;
    KDPC Dpc;
    KEVENT Idle;
    KSPIN_LOCK Lock;            /* of what follows */
    RACK Waiting;
    BOOLEAN Down;               /* nothing new is begun */
    PHASE Phase;
    PIRP Current;               /* in all phases but PhaseIdle */
    PSCATTER_GATHER_LIST List;
    ULONG Element;
    ULONG Offset;
    BOOLEAN Cancellable;        /* Current has DigiCancelled as its cancel routine, or had */
    BOOLEAN Abandoned;          /* which has been called, and left it to us */
    ULONG Reads;
} DIGI;

static const GUID DigiInterface = { 0x6a3f5b07, 0x1c7d, 0x4e0a, { 0x9b, 0x11, 0x52, 0x40, 0x7e, 0x2d, 0x91, 0x07 } };

static NTSTATUS DigiNext(DIGI *Digi);

static BOOLEAN DigiServe(PVOID Owner)
{
    DIGI *digi = Owner;
    ULONG cause = CardRead(&digi->Card, REG_CAUSE);

    if (cause == 0 || cause == ALL_ONES)
        return FALSE;
    CardWrite(&digi->Card, REG_ACK, cause);
    (VOID)CardRead(&digi->Card, REG_CAUSE);
    KeInsertQueueDpc(&digi->Dpc, NULL, NULL);
    return TRUE;
}

static VOID DigiSilence(CARD *Card)
{
    CardWrite(Card, REG_ACK, CardRead(Card, REG_CAUSE));
    (VOID)CardRead(Card, REG_CAUSE);
}

static BOOLEAN NTAPI DigiMute(PVOID Context)
{
    DIGI *digi = Context;

    DigiSilence(&digi->Card);
    digi->Card.Live = FALSE;
    return TRUE;
}

static ULONG DigiLength(PIRP Irp)
{
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length;

    return length < CARD_BYTES ? length : CARD_BYTES;
}

static VOID DigiMoveLocked(DIGI *Digi)
{
    PSCATTER_GATHER_ELEMENT element = &Digi->List->Elements[Digi->Element];

    CardWrite(&Digi->Card, REG_FROM, CARD_MEMORY + Digi->Offset);
    CardWrite(&Digi->Card, REG_TO, element->Address.LowPart);
    CardWrite(&Digi->Card, REG_COUNT, element->Length);
    CardWrite(&Digi->Card, REG_COMMAND, COMMAND_RUN | COMMAND_TO_MEMORY | COMMAND_INTERRUPT);
}

/*
 * The card has nothing to do with the request any more; again: it is begun anew later. Called without the lock. A request
 * whose cancel routine has been called and waits for the lock is left to that routine.
 */
static VOID DigiOver(DIGI *Digi, PIRP Irp, BOOLEAN Again, NTSTATUS Status, ULONG Moved)
{
    BOOLEAN stands = FALSE, ours;
    KIRQL irql;

    KeAcquireSpinLock(&Digi->Lock, &irql);
    ours = !Digi->Cancellable || IoSetCancelRoutine(Irp, NULL) != NULL || Digi->Abandoned;
    if (Digi->Abandoned) {
        Again = FALSE;
        Status = STATUS_CANCELLED;
        Moved = 0;
    }
    Digi->Cancellable = FALSE;
    Digi->Abandoned = FALSE;
    Digi->Current = NULL;
    Digi->Phase = PhaseIdle;
    if (ours && Again)
        stands = RackAddLocked(&Digi->Waiting, Irp, TRUE);
    else if (ours && NT_SUCCESS(Status))
        Digi->Reads++;
    KeSetEvent(&Digi->Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&Digi->Lock, irql);
    if (!ours)
        return;
    if (!Again)
        PlugFinish(&Digi->Plug, Irp, Status, Moved);
    else if (!stands)
        PlugFinish(&Digi->Plug, Irp, STATUS_CANCELLED, 0);
}

static VOID DigiPut(DIGI *Digi, PSCATTER_GATHER_LIST List)
{
    KIRQL irql;

    KeRaiseIrql(DISPATCH_LEVEL, &irql);
    Digi->Adapter->DmaOperations->PutScatterGatherList(Digi->Adapter, List, FALSE);
    KeLowerIrql(irql);
}

/* The cancel routine of the read that the card works at. */
static VOID NTAPI DigiCancelled(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    DIGI *digi = DeviceObject->DeviceExtension;
    BOOLEAN current;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&digi->Lock, &irql);
    current = digi->Current == Irp;
    if (current)
        digi->Abandoned = TRUE;
#ifndef FIXED
    if (current && digi->Phase == PhaseMoving && NT_SUCCESS(IoAcquireRemoveLock(&digi->Plug.Remove, &digi->Dpc))) {
        PSCATTER_GATHER_LIST list = digi->List;

        digi->List = NULL;
        digi->Phase = PhaseEnding;
        KeReleaseSpinLock(&digi->Lock, irql);
        DigiPut(digi, list);
        DigiOver(digi, Irp, FALSE, STATUS_CANCELLED, 0);
        (VOID)DigiNext(digi);
        IoReleaseRemoveLock(&digi->Plug.Remove, &digi->Dpc);
        return;
    }
#endif
    KeReleaseSpinLock(&digi->Lock, irql);
    if (!current)
        PlugFinish(&digi->Plug, Irp, STATUS_CANCELLED, 0);
}

static VOID NTAPI DigiMapped(PDEVICE_OBJECT DeviceObject, PIRP Irp, PSCATTER_GATHER_LIST List, PVOID Context)
{
    DIGI *digi = Context;
    BOOLEAN reached = TRUE, down;
    PIRP current;
    ULONG i;
    KIRQL irql;

    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(Irp);
    for (i = 0; i < List->NumberOfElements; i++)
        if (!CardReaches(List->Elements[i].Address, List->Elements[i].Length, CARD_LINES))
            reached = FALSE;
    KeAcquireSpinLock(&digi->Lock, &irql);
    down = digi->Down;
    current = digi->Current;
    if (reached && !down) {
        digi->List = List;
        digi->Element = 0;
        digi->Offset = 0;
        digi->Phase = PhaseMoving;
        digi->Cancellable = TRUE;
        (VOID)IoSetCancelRoutine(current, DigiCancelled);
        if (current->Cancel && IoSetCancelRoutine(current, NULL) != NULL)
            digi->Abandoned = TRUE;
        DigiMoveLocked(digi);
    }
    KeReleaseSpinLock(&digi->Lock, irql);
    if (reached && !down)
        return;
    DigiPut(digi, List);
    /* which goes on with the next; before the device counts as idle, so that who waits for that waits for the DPC, too */
    KeInsertQueueDpc(&digi->Dpc, NULL, NULL);
    DigiOver(digi, current, reached, STATUS_DEVICE_CONFIGURATION_ERROR, 0);
}

/* Begins the next read, if the card is free; the last status of what failed otherwise. */
static NTSTATUS DigiNext(DIGI *Digi)
{
    NTSTATUS status = STATUS_SUCCESS;

    for (;;) {
        PIRP irp = NULL;
        KIRQL irql;

        KeAcquireSpinLock(&Digi->Lock, &irql);
        if (!Digi->Down && Digi->Phase == PhaseIdle)
            irp = RackTakeLocked(&Digi->Waiting, NULL);
        if (irp != NULL) {
            Digi->Phase = PhaseMapping;
            Digi->Current = irp;
            KeClearEvent(&Digi->Idle);
        }
        KeReleaseSpinLock(&Digi->Lock, irql);
        if (irp == NULL)
            return status;
        KeFlushIoBuffers(irp->MdlAddress, TRUE, TRUE);
        KeRaiseIrql(DISPATCH_LEVEL, &irql);
        status = Digi->Adapter->DmaOperations->GetScatterGatherList(Digi->Adapter, Digi->Plug.Self, irp->MdlAddress,
                                                                       MmGetMdlVirtualAddress(irp->MdlAddress), DigiLength(irp),
                                                                       DigiMapped, Digi, FALSE);
        KeLowerIrql(irql);
        if (NT_SUCCESS(status))
            return status;
        DigiOver(Digi, irp, FALSE, status, 0);
    }
}

static VOID NTAPI DigiDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    DIGI *digi = Context;
    PSCATTER_GATHER_LIST list = NULL;
    BOOLEAN all = FALSE;
    ULONG moved = 0;
    PIRP irp = NULL;
    KIRQL irql;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLock(&digi->Lock, &irql);
    if (digi->Phase == PhaseMoving && !(CardRead(&digi->Card, REG_COMMAND) & COMMAND_RUN)) {
        digi->Offset += digi->List->Elements[digi->Element].Length;
        digi->Element++;
        all = digi->Element == digi->List->NumberOfElements;
        if (!all && !digi->Down && !digi->Abandoned) {
            DigiMoveLocked(digi);
        } else {
            list = digi->List;
            digi->List = NULL;
            digi->Phase = PhaseEnding;
            irp = digi->Current;
            moved = digi->Offset;
        }
    }
    KeReleaseSpinLock(&digi->Lock, irql);
    if (irp != NULL) {
        DigiPut(digi, list);
        DigiOver(digi, irp, !all, STATUS_SUCCESS, moved);
    }
    (VOID)DigiNext(digi);
}

/* Begins nothing more and waits for what is under way; a card that is gone, or silent for minutes, moves nothing more. */
static VOID DigiQuiet(DIGI *Digi, BOOLEAN Reachable)
{
    LARGE_INTEGER second;
    ULONG waited = 0;
    KIRQL irql;

    second.QuadPart = -10000000LL;
    KeAcquireSpinLock(&Digi->Lock, &irql);
    Digi->Down = TRUE;
    KeReleaseSpinLock(&Digi->Lock, irql);
    /* no DPC is in the middle of asking for a mapping afterwards */
    KeFlushQueuedDpcs();
    KeAcquireSpinLock(&Digi->Lock, &irql);
    while (Digi->Phase != PhaseIdle) {
        if (Digi->Phase == PhaseMoving &&
            (!Reachable || waited >= PATIENCE || CardRead(&Digi->Card, REG_COMMAND) == ALL_ONES)) {
            PSCATTER_GATHER_LIST list = Digi->List;
            PIRP irp = Digi->Current;

            Digi->List = NULL;
            Digi->Phase = PhaseEnding;
            KeReleaseSpinLock(&Digi->Lock, irql);
            DigiPut(Digi, list);
            DigiOver(Digi, irp, TRUE, STATUS_SUCCESS, 0);
        } else {
            KeReleaseSpinLock(&Digi->Lock, irql);
            if (KeWaitForSingleObject(&Digi->Idle, Executive, KernelMode, FALSE, &second) == STATUS_TIMEOUT)
                waited++;
        }
        KeAcquireSpinLock(&Digi->Lock, &irql);
    }
    KeReleaseSpinLock(&Digi->Lock, irql);
    if (Reachable)
        KeSynchronizeExecution(Digi->Card.Line, DigiMute, Digi);
    else
        CardLive(&Digi->Card, FALSE);
    KeFlushQueuedDpcs();
}

static VOID DigiAwake(DIGI *Digi)
{
    KIRQL irql;

    CardLive(&Digi->Card, TRUE);
    KeAcquireSpinLock(&Digi->Lock, &irql);
    Digi->Down = FALSE;
    KeReleaseSpinLock(&Digi->Lock, irql);
}

static NTSTATUS DigiRequest(PLUG *Plug, PIRP Irp)
{
    DIGI *digi = (DIGI *)Plug;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG reads;
    KIRQL irql;

    switch (stack->MajorFunction) {
    case IRP_MJ_READ:
        if (stack->Parameters.Read.Length == 0)
            return PlugEnd(Plug, Irp, STATUS_SUCCESS, 0);
        (VOID)RackAdd(&digi->Waiting, Irp);
        (VOID)DigiNext(digi);
        return STATUS_PENDING;
    case IRP_MJ_DEVICE_CONTROL:
        if (stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_DIGI_READS)
            break;
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return PlugEnd(Plug, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&digi->Lock, &irql);
        reads = digi->Reads;
        KeReleaseSpinLock(&digi->Lock, irql);
        *(ULONG *)Irp->AssociatedIrp.SystemBuffer = reads;
        return PlugEnd(Plug, Irp, STATUS_SUCCESS, sizeof(ULONG));
    default:
        break;
    }
    return PlugEnd(Plug, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS DigiAdded(PLUG *Plug)
{
    DIGI *digi = (DIGI *)Plug;

    KeInitializeSpinLock(&digi->Lock);
    RackInit(&digi->Waiting, &digi->Lock, PlugDrop, Plug);
    KeInitializeEvent(&digi->Idle, NotificationEvent, TRUE);
    KeInitializeDpc(&digi->Dpc, DigiDpc, digi);
    digi->Down = TRUE;
    return STATUS_SUCCESS;
}

static NTSTATUS DigiBegin(PLUG *Plug, PCM_RESOURCE_LIST Translated)
{
    DIGI *digi = (DIGI *)Plug;
    ULONG registers;
    NTSTATUS status = CardMap(&digi->Card, Translated, 0x100);

    if (!NT_SUCCESS(status))
        return status;
    digi->Adapter = CardAdapter(Plug->Pdo, CARD_LINES, CARD_BYTES, &registers);
    if (digi->Adapter == NULL) {
        status = STATUS_INSUFFICIENT_RESOURCES;
        goto no_adapter;
    }
    DigiSilence(&digi->Card);
    status = CardConnect(&digi->Card, Translated, DigiServe, digi);
    if (!NT_SUCCESS(status))
        goto no_line;
    DigiAwake(digi);
    return STATUS_SUCCESS;

no_line:
    digi->Adapter->DmaOperations->PutDmaAdapter(digi->Adapter);
no_adapter:
    CardUnmap(&digi->Card);
    return status;
}

static VOID DigiHalt(PLUG *Plug, BOOLEAN Reachable)
{
    DIGI *digi = (DIGI *)Plug;

    DigiQuiet(digi, Reachable);
    CardDisconnect(&digi->Card);
    digi->Adapter->DmaOperations->PutDmaAdapter(digi->Adapter);
    CardUnmap(&digi->Card);
}

static VOID DigiDoze(PLUG *Plug)
{
    DigiQuiet((DIGI *)Plug, TRUE);
}

static VOID DigiRouse(PLUG *Plug)
{
    DigiAwake((DIGI *)Plug);
}

static VOID DigiGo(PLUG *Plug)
{
    (VOID)DigiNext((DIGI *)Plug);
}

static VOID DigiFlush(PLUG *Plug, PFILE_OBJECT File, NTSTATUS Status)
{
    RackClear(&((DIGI *)Plug)->Waiting, File, Status);
}

static const PLUG_ROLE DigiRole = {
    .Size = sizeof(DIGI), .Flags = DO_DIRECT_IO, .Interface = &DigiInterface,
    .Added = DigiAdded, .Begin = DigiBegin, .Halt = DigiHalt, .Doze = DigiDoze, .Rouse = DigiRouse,
    .Go = DigiGo, .Request = DigiRequest, .Flush = DigiFlush,
};

static NTSTATUS NTAPI DigiAdd(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    return PlugAdd(DriverObject, Pdo, &DigiRole);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return PlugEntry(DriverObject, DigiAdd);
}

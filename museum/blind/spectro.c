/*
 * spectro: a spectrometer whose lamp follows a curve in the card's memory (QEMU's edu: 4096 bytes). What a program writes is
 * moved there by the card, piece by piece of the buffer's scatter/gather list; writes wait their turn in a rack.
 *
 * The bug: when the scatter/gather list cannot be had the status is handed to the callers, as Linux would have it, and no one
 * completes the request, which was marked pending when it got into the rack; its writer and later the removal wait for ever.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: irp-never-completed, request-forgotten, stuck, request-pending-after-remove, request-pending-after-surprise-removal
 * Needs: ioctl, failure
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
#define COMMAND_INTERRUPT 0x4
#define ALL_ONES 0xFFFFFFFF

#define CARD_MEMORY 0x40000
#define CARD_BYTES 4096
#define CARD_LINES 28
#define PATIENCE 240                /* seconds, after which a card that is to be left counts as dead */

#define IOCTL_SPECTRO_WRITES CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C1, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef enum _PHASE { PhaseIdle, PhaseMapping, PhaseMoving, PhaseEnding } PHASE;

typedef struct _SPECTRO {
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
    ULONG Writes;
} SPECTRO;

static const GUID SpectroInterface = { 0x6a3f5b06, 0x1c7d, 0x4e0a, { 0x9b, 0x11, 0x52, 0x40, 0x7e, 0x2d, 0x91, 0x06 } };

static NTSTATUS SpectroNext(SPECTRO *Spectro);

static BOOLEAN SpectroServe(PVOID Owner)
{
    SPECTRO *spectro = Owner;
    ULONG cause = CardRead(&spectro->Card, REG_CAUSE);

    if (cause == 0 || cause == ALL_ONES)
        return FALSE;
    CardWrite(&spectro->Card, REG_ACK, cause);
    (VOID)CardRead(&spectro->Card, REG_CAUSE);
    KeInsertQueueDpc(&spectro->Dpc, NULL, NULL);
    return TRUE;
}

static VOID SpectroSilence(CARD *Card)
{
    CardWrite(Card, REG_ACK, CardRead(Card, REG_CAUSE));
    (VOID)CardRead(Card, REG_CAUSE);
}

static BOOLEAN NTAPI SpectroMute(PVOID Context)
{
    SPECTRO *spectro = Context;

    SpectroSilence(&spectro->Card);
    spectro->Card.Live = FALSE;
    return TRUE;
}

static ULONG SpectroLength(PIRP Irp)
{
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;

    return length < CARD_BYTES ? length : CARD_BYTES;
}

static VOID SpectroMoveLocked(SPECTRO *Spectro)
{
    PSCATTER_GATHER_ELEMENT element = &Spectro->List->Elements[Spectro->Element];

    CardWrite(&Spectro->Card, REG_FROM, element->Address.LowPart);
    CardWrite(&Spectro->Card, REG_TO, CARD_MEMORY + Spectro->Offset);
    CardWrite(&Spectro->Card, REG_COUNT, element->Length);
    CardWrite(&Spectro->Card, REG_COMMAND, COMMAND_RUN | COMMAND_INTERRUPT);
}

/* The request is over in this phase of the device; again: it is begun anew later. Called without the lock. */
static VOID SpectroOver(SPECTRO *Spectro, PIRP Irp, BOOLEAN Again, NTSTATUS Status, ULONG Moved)
{
    BOOLEAN stands = FALSE;
    KIRQL irql;

    KeAcquireSpinLock(&Spectro->Lock, &irql);
    Spectro->Current = NULL;
    Spectro->Phase = PhaseIdle;
    if (Again)
        stands = RackAddLocked(&Spectro->Waiting, Irp, TRUE);
    else if (NT_SUCCESS(Status))
        Spectro->Writes++;
    KeSetEvent(&Spectro->Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&Spectro->Lock, irql);
    if (!Again)
        PlugFinish(&Spectro->Plug, Irp, Status, Moved);
    else if (!stands)
        PlugFinish(&Spectro->Plug, Irp, STATUS_CANCELLED, 0);
}

static VOID SpectroPut(SPECTRO *Spectro, PSCATTER_GATHER_LIST List)
{
    KIRQL irql;

    KeRaiseIrql(DISPATCH_LEVEL, &irql);
    Spectro->Adapter->DmaOperations->PutScatterGatherList(Spectro->Adapter, List, TRUE);
    KeLowerIrql(irql);
}

static VOID NTAPI SpectroMapped(PDEVICE_OBJECT DeviceObject, PIRP Irp, PSCATTER_GATHER_LIST List, PVOID Context)
{
    SPECTRO *spectro = Context;
    BOOLEAN reached = TRUE, down;
    PIRP current;
    ULONG i;
    KIRQL irql;

    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(Irp);
    for (i = 0; i < List->NumberOfElements; i++)
        if (!CardReaches(List->Elements[i].Address, List->Elements[i].Length, CARD_LINES))
            reached = FALSE;
    KeAcquireSpinLock(&spectro->Lock, &irql);
    down = spectro->Down;
    current = spectro->Current;
    if (reached && !down) {
        spectro->List = List;
        spectro->Element = 0;
        spectro->Offset = 0;
        spectro->Phase = PhaseMoving;
        SpectroMoveLocked(spectro);
    }
    KeReleaseSpinLock(&spectro->Lock, irql);
    if (reached && !down)
        return;
    SpectroPut(spectro, List);
    /* which goes on with the next; before the device counts as idle, so that who waits for that waits for the DPC, too */
    KeInsertQueueDpc(&spectro->Dpc, NULL, NULL);
    SpectroOver(spectro, current, reached, STATUS_DEVICE_CONFIGURATION_ERROR, 0);
}

/* Begins the next write, if the card is free; the last status of what failed otherwise. */
static NTSTATUS SpectroNext(SPECTRO *Spectro)
{
    NTSTATUS status = STATUS_SUCCESS;

    for (;;) {
        PIRP irp = NULL;
        KIRQL irql;

        KeAcquireSpinLock(&Spectro->Lock, &irql);
        if (!Spectro->Down && Spectro->Phase == PhaseIdle)
            irp = RackTakeLocked(&Spectro->Waiting, NULL);
        if (irp != NULL) {
            Spectro->Phase = PhaseMapping;
            Spectro->Current = irp;
            KeClearEvent(&Spectro->Idle);
        }
        KeReleaseSpinLock(&Spectro->Lock, irql);
        if (irp == NULL)
            return status;
        KeFlushIoBuffers(irp->MdlAddress, FALSE, TRUE);
        KeRaiseIrql(DISPATCH_LEVEL, &irql);
        status = Spectro->Adapter->DmaOperations->GetScatterGatherList(Spectro->Adapter, Spectro->Plug.Self, irp->MdlAddress,
                                                                       MmGetMdlVirtualAddress(irp->MdlAddress), SpectroLength(irp),
                                                                       SpectroMapped, Spectro, TRUE);
        KeLowerIrql(irql);
        if (NT_SUCCESS(status))
            return status;
#ifndef FIXED
        KeAcquireSpinLock(&Spectro->Lock, &irql);
        Spectro->Current = NULL;
        Spectro->Phase = PhaseIdle;
        KeSetEvent(&Spectro->Idle, IO_NO_INCREMENT, FALSE);
        KeReleaseSpinLock(&Spectro->Lock, irql);
#else
        SpectroOver(Spectro, irp, FALSE, status, 0);
#endif
    }
}

static VOID NTAPI SpectroDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    SPECTRO *spectro = Context;
    PSCATTER_GATHER_LIST list = NULL;
    BOOLEAN all = FALSE;
    ULONG moved = 0;
    PIRP irp = NULL;
    KIRQL irql;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLock(&spectro->Lock, &irql);
    if (spectro->Phase == PhaseMoving && !(CardRead(&spectro->Card, REG_COMMAND) & COMMAND_RUN)) {
        spectro->Offset += spectro->List->Elements[spectro->Element].Length;
        spectro->Element++;
        all = spectro->Element == spectro->List->NumberOfElements;
        if (!all && !spectro->Down) {
            SpectroMoveLocked(spectro);
        } else {
            list = spectro->List;
            spectro->List = NULL;
            spectro->Phase = PhaseEnding;
            irp = spectro->Current;
            moved = spectro->Offset;
        }
    }
    KeReleaseSpinLock(&spectro->Lock, irql);
    if (irp != NULL) {
        SpectroPut(spectro, list);
        SpectroOver(spectro, irp, !all, STATUS_SUCCESS, moved);
    }
    (VOID)SpectroNext(spectro);
}

/* Begins nothing more and waits for what is under way; a card that is gone, or silent for minutes, moves nothing more. */
static VOID SpectroQuiet(SPECTRO *Spectro, BOOLEAN Reachable)
{
    LARGE_INTEGER second;
    ULONG waited = 0;
    KIRQL irql;

    second.QuadPart = -10000000LL;
    KeAcquireSpinLock(&Spectro->Lock, &irql);
    Spectro->Down = TRUE;
    KeReleaseSpinLock(&Spectro->Lock, irql);
    /* no DPC is in the middle of asking for a mapping afterwards */
    KeFlushQueuedDpcs();
    KeAcquireSpinLock(&Spectro->Lock, &irql);
    while (Spectro->Phase != PhaseIdle) {
        if (Spectro->Phase == PhaseMoving &&
            (!Reachable || waited >= PATIENCE || CardRead(&Spectro->Card, REG_COMMAND) == ALL_ONES)) {
            PSCATTER_GATHER_LIST list = Spectro->List;
            PIRP irp = Spectro->Current;

            Spectro->List = NULL;
            Spectro->Phase = PhaseEnding;
            KeReleaseSpinLock(&Spectro->Lock, irql);
            SpectroPut(Spectro, list);
            SpectroOver(Spectro, irp, TRUE, STATUS_SUCCESS, 0);
        } else {
            KeReleaseSpinLock(&Spectro->Lock, irql);
            if (KeWaitForSingleObject(&Spectro->Idle, Executive, KernelMode, FALSE, &second) == STATUS_TIMEOUT)
                waited++;
        }
        KeAcquireSpinLock(&Spectro->Lock, &irql);
    }
    KeReleaseSpinLock(&Spectro->Lock, irql);
    if (Reachable)
        KeSynchronizeExecution(Spectro->Card.Line, SpectroMute, Spectro);
    else
        CardLive(&Spectro->Card, FALSE);
    KeFlushQueuedDpcs();
}

static VOID SpectroAwake(SPECTRO *Spectro)
{
    KIRQL irql;

    CardLive(&Spectro->Card, TRUE);
    KeAcquireSpinLock(&Spectro->Lock, &irql);
    Spectro->Down = FALSE;
    KeReleaseSpinLock(&Spectro->Lock, irql);
}

static NTSTATUS SpectroRequest(PLUG *Plug, PIRP Irp)
{
    SPECTRO *spectro = (SPECTRO *)Plug;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG writes;
    KIRQL irql;

    switch (stack->MajorFunction) {
    case IRP_MJ_WRITE:
        if (stack->Parameters.Write.Length == 0)
            return PlugEnd(Plug, Irp, STATUS_SUCCESS, 0);
        (VOID)RackAdd(&spectro->Waiting, Irp);
        (VOID)SpectroNext(spectro);
        return STATUS_PENDING;
    case IRP_MJ_DEVICE_CONTROL:
        if (stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_SPECTRO_WRITES)
            break;
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return PlugEnd(Plug, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&spectro->Lock, &irql);
        writes = spectro->Writes;
        KeReleaseSpinLock(&spectro->Lock, irql);
        *(ULONG *)Irp->AssociatedIrp.SystemBuffer = writes;
        return PlugEnd(Plug, Irp, STATUS_SUCCESS, sizeof(ULONG));
    default:
        break;
    }
    return PlugEnd(Plug, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS SpectroAdded(PLUG *Plug)
{
    SPECTRO *spectro = (SPECTRO *)Plug;

    KeInitializeSpinLock(&spectro->Lock);
    RackInit(&spectro->Waiting, &spectro->Lock, PlugDrop, Plug);
    KeInitializeEvent(&spectro->Idle, NotificationEvent, TRUE);
    KeInitializeDpc(&spectro->Dpc, SpectroDpc, spectro);
    spectro->Down = TRUE;
    return STATUS_SUCCESS;
}

static NTSTATUS SpectroBegin(PLUG *Plug, PCM_RESOURCE_LIST Translated)
{
    SPECTRO *spectro = (SPECTRO *)Plug;
    ULONG registers;
    NTSTATUS status = CardMap(&spectro->Card, Translated, 0x100);

    if (!NT_SUCCESS(status))
        return status;
    spectro->Adapter = CardAdapter(Plug->Pdo, CARD_LINES, CARD_BYTES, &registers);
    if (spectro->Adapter == NULL) {
        status = STATUS_INSUFFICIENT_RESOURCES;
        goto no_adapter;
    }
    SpectroSilence(&spectro->Card);
    status = CardConnect(&spectro->Card, Translated, SpectroServe, spectro);
    if (!NT_SUCCESS(status))
        goto no_line;
    SpectroAwake(spectro);
    return STATUS_SUCCESS;

no_line:
    spectro->Adapter->DmaOperations->PutDmaAdapter(spectro->Adapter);
no_adapter:
    CardUnmap(&spectro->Card);
    return status;
}

static VOID SpectroHalt(PLUG *Plug, BOOLEAN Reachable)
{
    SPECTRO *spectro = (SPECTRO *)Plug;

    SpectroQuiet(spectro, Reachable);
    CardDisconnect(&spectro->Card);
    spectro->Adapter->DmaOperations->PutDmaAdapter(spectro->Adapter);
    CardUnmap(&spectro->Card);
}

static VOID SpectroDoze(PLUG *Plug)
{
    SpectroQuiet((SPECTRO *)Plug, TRUE);
}

static VOID SpectroRouse(PLUG *Plug)
{
    SpectroAwake((SPECTRO *)Plug);
}

static VOID SpectroGo(PLUG *Plug)
{
    (VOID)SpectroNext((SPECTRO *)Plug);
}

static VOID SpectroFlush(PLUG *Plug, PFILE_OBJECT File, NTSTATUS Status)
{
    RackClear(&((SPECTRO *)Plug)->Waiting, File, Status);
}

static const PLUG_ROLE SpectroRole = {
    .Size = sizeof(SPECTRO), .Flags = DO_DIRECT_IO, .Interface = &SpectroInterface,
    .Added = SpectroAdded, .Begin = SpectroBegin, .Halt = SpectroHalt, .Doze = SpectroDoze, .Rouse = SpectroRouse,
    .Go = SpectroGo, .Request = SpectroRequest, .Flush = SpectroFlush,
};

static NTSTATUS NTAPI SpectroAdd(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    return PlugAdd(DriverObject, Pdo, &SpectroRole);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return PlugEntry(DriverObject, SpectroAdd);
}

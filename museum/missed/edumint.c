/*
 * edumint: a doorbell between programs by way of the card. One rings with a number of 16 bits, the card raises its interrupt with
 * it, and all programs that wait for the bell are informed what was rung since it was last learnt.
 *
 * The bug: the service routine reads the card's causes whatever state the card is in. The line is shared and stays connected while the
 * card sleeps, so the interrupt of a neighbour has it read the registers of a card without power.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: card-without-power
 * Needs: power, schedule
 */
#include <initguid.h>
#include <ddk/wdm.h>
#include "../include/gated_frame.h"
#include "../include/gated_edu.h"

#define IOCTL_MINT_RING CTL_CODE(FILE_DEVICE_UNKNOWN, 0x890, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_MINT_HEAR CTL_CODE(FILE_DEVICE_UNKNOWN, 0x891, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_MINT_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x892, METHOD_BUFFERED, FILE_ANY_ACCESS)

DEFINE_GUID(MINT_CLASS, 0x6b1d0a31, 0x51c4, 0x4a60, 0x9a, 0x0e, 0x21, 0x5d, 0x0c, 0x77, 0x14, 0x04);

typedef struct _MINT {
    BOARD Board;
    EDU Edu;
    IRPQ Listeners;
    KSPIN_LOCK Lock;
    ULONG Rung;
} MINT, *PMINT;

static BOOLEAN NTAPI MintService(PKINTERRUPT Interrupt, PVOID Context)
{
    PMINT m = Context;
    ULONG causes;

    UNREFERENCED_PARAMETER(Interrupt);
#ifdef FIXED
    if (!m->Edu.Live)
        return FALSE;
#endif
    causes = EduRead(&m->Edu, EDU_CAUSES);
    if (causes == 0 || causes == EDU_GONE)
        return FALSE;
    EduWrite(&m->Edu, EDU_TAKE_BACK, causes);
    (VOID)EduRead(&m->Edu, EDU_CAUSES);
    m->Edu.Causes |= causes;
    KeInsertQueueDpc(&m->Edu.Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI MintDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PMINT m = Context;
    LIST_ENTRY informed;
    ULONG causes;
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    causes = EduFetch(&m->Edu);
    if (causes == 0)
        return;
    KeAcquireSpinLockAtDpcLevel(&m->Lock);
    m->Rung++;
    KeReleaseSpinLockFromDpcLevel(&m->Lock);
    /* First all that wait by now, then the telling: who listens again at once waits for the next ring. */
    InitializeListHead(&informed);
    while ((irp = IrpqTake(&m->Listeners)) != NULL)
        InsertTailList(&informed, &irp->Tail.Overlay.ListEntry);
    while (!IsListEmpty(&informed)) {
        irp = CONTAINING_RECORD(RemoveHeadList(&informed), IRP, Tail.Overlay.ListEntry);
        *(PULONG)irp->AssociatedIrp.SystemBuffer = causes;
        BoardFinish(&m->Board, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static NTSTATUS MintIo(PBOARD Board, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PMINT m = CONTAINING_RECORD(Board, MINT, Board);
    PULONG value = Irp->AssociatedIrp.SystemBuffer;
    ULONG in, out;
    KIRQL irql;

    if (Stack->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return BoardFinish(Board, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    in = Stack->Parameters.DeviceIoControl.InputBufferLength;
    out = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_MINT_RING:
        if (in < sizeof(ULONG))
            return BoardFinish(Board, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (*value == 0 || *value > 0xFFFF)
            return BoardFinish(Board, Irp, STATUS_INVALID_PARAMETER, 0);
        if (!GateEnter(&Board->Run))
            return BoardFinish(Board, Irp, STATUS_DEVICE_NOT_READY, 0);
        EduWrite(&m->Edu, EDU_RAISE, *value);
        GateLeave(&Board->Run);
        return BoardFinish(Board, Irp, STATUS_SUCCESS, 0);

    case IOCTL_MINT_HEAR:
        if (out < sizeof(ULONG))
            return BoardFinish(Board, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return BoardPend(Board, &m->Listeners, Irp);

    case IOCTL_MINT_COUNT:
        if (out < sizeof(ULONG))
            return BoardFinish(Board, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&m->Lock, &irql);
        *value = m->Rung;
        KeReleaseSpinLock(&m->Lock, irql);
        return BoardFinish(Board, Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    return BoardFinish(Board, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID MintCleanup(PBOARD Board, PFILE_OBJECT File)
{
    IrpqFlushFile(&CONTAINING_RECORD(Board, MINT, Board)->Listeners, File);
}

static VOID MintWake(PBOARD Board)
{
    EduLive(&CONTAINING_RECORD(Board, MINT, Board)->Edu, TRUE, TRUE);
}

/* Listeners go on waiting; a ring that the DPC has not informed yet is informed. */
static VOID MintQuiet(PBOARD Board, BOOLEAN Present)
{
    KeFlushQueuedDpcs();
    EduLive(&CONTAINING_RECORD(Board, MINT, Board)->Edu, FALSE, Present);
    KeFlushQueuedDpcs();
}

static VOID MintDrain(PBOARD Board)
{
    IrpqShut(&CONTAINING_RECORD(Board, MINT, Board)->Listeners, STATUS_DELETE_PENDING);
}

static NTSTATUS MintStart(PBOARD Board, PCM_PARTIAL_RESOURCE_LIST List)
{
    PMINT m = CONTAINING_RECORD(Board, MINT, Board);

    return EduGain(&m->Edu, List, MintService, m);
}

static VOID MintStop(PBOARD Board)
{
    EduLose(&CONTAINING_RECORD(Board, MINT, Board)->Edu);
}

static NTSTATUS MintBegin(PBOARD Board)
{
    PMINT m = CONTAINING_RECORD(Board, MINT, Board);

    KeInitializeSpinLock(&m->Lock);
    KeInitializeDpc(&m->Edu.Dpc, MintDpc, m);
    IrpqBuild(&m->Listeners, BoardRetire, Board);
    return STATUS_SUCCESS;
}

static VOID MintEnd(PBOARD Board)
{
    UNREFERENCED_PARAMETER(Board);
}

static const BOARD_KIND MintKind = {
    .Bytes = sizeof(MINT), .Flags = DO_BUFFERED_IO, .Class = &MINT_CLASS,
    .Begin = MintBegin, .End = MintEnd, .Start = MintStart, .Stop = MintStop, .Wake = MintWake, .Quiet = MintQuiet,
    .Drain = MintDrain, .Io = MintIo, .Cleanup = MintCleanup,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return BoardDriver(DriverObject, &MintKind);
}

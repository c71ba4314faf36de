/*
 * edusloe: two lanes of work for the card at once. One computes factorials, the other one uploads blocks of up to 512 bytes to the
 * card's memory by DMA; each has a queue of requests, and one of them in the card.
 *
 * The bug: when both ends come together, in one interrupt or in two before the DPC has run, the DPC serves the factorial and, by an
 * `else`, forgets the upload whose cause has been taken back: that lane stays busy and its requests never end.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: irp-never-completed, stuck, request-forgotten, irp-forgotten
 * Needs: ioctl, device, schedule
 */
#include <initguid.h>
#include <ddk/wdm.h>
#include "../include/gated_frame.h"
#include "../include/gated_edu.h"

#define SLOE_BLOCK 512
#define IOCTL_SLOE_NUMBER CTL_CODE(FILE_DEVICE_UNKNOWN, 0x870, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SLOE_UPLOAD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x871, METHOD_BUFFERED, FILE_WRITE_DATA)

DEFINE_GUID(SLOE_CLASS, 0x6b1d0a31, 0x51c4, 0x4a60, 0x9a, 0x0e, 0x21, 0x5d, 0x0c, 0x77, 0x14, 0x02);

enum { SLOE_NUMBERS, SLOE_UPLOADS, SLOE_LANES };

typedef struct _LANE {
    IRPQ Waiting;
    IRPQ Active;                /* the one in the card, or none if it was cancelled */
    BOOLEAN Busy;               /* under the device's lock */
} LANE, *PLANE;

typedef struct _SLOE {
    BOARD Board;
    EDU Edu;
    EDU_DMA Dma;
    BOOLEAN CutOff;
    KSPIN_LOCK Lock;
    BOOLEAN Awake;
    LANE Lanes[SLOE_LANES];
} SLOE, *PSLOE;

static VOID SloeNext(PSLOE s, ULONG Which)
{
    PLANE lane = &s->Lanes[Which];
    PIO_STACK_LOCATION stack;
    ULONG number, length;
    NTSTATUS status;
    KIRQL irql;
    PIRP irp;

    for (;;) {
        KeAcquireSpinLock(&s->Lock, &irql);
        if (!s->Awake || lane->Busy || (irp = IrpqTake(&lane->Waiting)) == NULL) {
            KeReleaseSpinLock(&s->Lock, irql);
            return;
        }
        stack = IoGetCurrentIrpStackLocation(irp);
        length = stack->Parameters.DeviceIoControl.InputBufferLength;
        if (Which == SLOE_UPLOADS) {
            RtlCopyMemory(s->Dma.Buffer, irp->AssociatedIrp.SystemBuffer, length);
            number = 0;
        } else
            number = *(PULONG)irp->AssociatedIrp.SystemBuffer;
        status = IrpqAgain(&lane->Active, irp);
        if (status == STATUS_PENDING) {
            lane->Busy = TRUE;
            if (Which == SLOE_UPLOADS)
                EduDmaStart(&s->Edu, &s->Dma, 0, length, FALSE);
            else
                EduWrite(&s->Edu, EDU_NUMBER, number);
        }
        KeReleaseSpinLock(&s->Lock, irql);
        if (status == STATUS_PENDING)
            return;
        BoardFinish(&s->Board, irp, status, 0);
    }
}

static VOID SloeNumberDone(PSLOE s)
{
    PLANE lane = &s->Lanes[SLOE_NUMBERS];
    PIRP irp = NULL;
    ULONG result = 0;

    KeAcquireSpinLockAtDpcLevel(&s->Lock);
    if (s->Awake && lane->Busy && !(EduRead(&s->Edu, EDU_STATE) & EDU_STATE_COMPUTES)) {
        result = EduRead(&s->Edu, EDU_NUMBER);
        lane->Busy = FALSE;
        irp = IrpqTake(&lane->Active);
    }
    KeReleaseSpinLockFromDpcLevel(&s->Lock);
    if (irp != NULL) {
        *(PULONG)irp->AssociatedIrp.SystemBuffer = result;
        BoardFinish(&s->Board, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    SloeNext(s, SLOE_NUMBERS);
}

static VOID SloeUploadDone(PSLOE s)
{
    PLANE lane = &s->Lanes[SLOE_UPLOADS];
    PIRP irp = NULL;

    KeAcquireSpinLockAtDpcLevel(&s->Lock);
    if (s->Awake && lane->Busy && !(EduRead(&s->Edu, EDU_DMA_COMMAND) & EDU_DMA_START)) {
        lane->Busy = FALSE;
        irp = IrpqTake(&lane->Active);
    }
    KeReleaseSpinLockFromDpcLevel(&s->Lock);
    if (irp != NULL)
        BoardFinish(&s->Board, irp, STATUS_SUCCESS, 0);
    SloeNext(s, SLOE_UPLOADS);
}

static VOID NTAPI SloeDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PSLOE s = Context;
    ULONG causes;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    causes = EduFetch(&s->Edu);
#ifndef FIXED
    if (causes & EDU_CAUSE_NUMBER)
        SloeNumberDone(s);
    else if (causes & EDU_CAUSE_DMA)
        SloeUploadDone(s);
#else
    if (causes & EDU_CAUSE_NUMBER)
        SloeNumberDone(s);
    if (causes & EDU_CAUSE_DMA)
        SloeUploadDone(s);
#endif
}

static NTSTATUS SloeIo(PBOARD Board, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PSLOE s = CONTAINING_RECORD(Board, SLOE, Board);
    ULONG in, out, which;

    if (Stack->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return BoardFinish(Board, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    in = Stack->Parameters.DeviceIoControl.InputBufferLength;
    out = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SLOE_NUMBER:
        if (in < sizeof(ULONG) || out < sizeof(ULONG))
            return BoardFinish(Board, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        which = SLOE_NUMBERS;
        break;
    case IOCTL_SLOE_UPLOAD:
        if (in == 0 || in > SLOE_BLOCK)
            return BoardFinish(Board, Irp, STATUS_INVALID_PARAMETER, 0);
        which = SLOE_UPLOADS;
        break;
    default:
        return BoardFinish(Board, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    BoardPend(Board, &s->Lanes[which].Waiting, Irp);
    SloeNext(s, which);
    return STATUS_PENDING;
}

static VOID SloeCleanup(PBOARD Board, PFILE_OBJECT File)
{
    PSLOE s = CONTAINING_RECORD(Board, SLOE, Board);
    ULONG which;

    for (which = 0; which < SLOE_LANES; which++) {
        IrpqFlushFile(&s->Lanes[which].Waiting, File);
        IrpqFlushFile(&s->Lanes[which].Active, File);
    }
}

static VOID SloeWake(PBOARD Board)
{
    PSLOE s = CONTAINING_RECORD(Board, SLOE, Board);
    KIRQL irql;

    if (s->CutOff && !(EduRead(&s->Edu, EDU_DMA_COMMAND) & EDU_DMA_START)) {
        EduDmaMaster(Board, TRUE);
        s->CutOff = FALSE;
    }
    EduLive(&s->Edu, TRUE, TRUE);
    KeAcquireSpinLock(&s->Lock, &irql);
    s->Awake = TRUE;
    EduWrite(&s->Edu, EDU_STATE, EDU_STATE_INTERRUPT);
    s->Lanes[SLOE_NUMBERS].Busy = (EduRead(&s->Edu, EDU_STATE) & EDU_STATE_COMPUTES) != 0;
    s->Lanes[SLOE_UPLOADS].Busy = s->CutOff || (EduRead(&s->Edu, EDU_DMA_COMMAND) & EDU_DMA_START);
    KeReleaseSpinLock(&s->Lock, irql);
    SloeNext(s, SLOE_NUMBERS);
    SloeNext(s, SLOE_UPLOADS);
}

/* What the card has not got done by now is done again when it is awake. */
static VOID SloeQuiet(PBOARD Board, BOOLEAN Present)
{
    PSLOE s = CONTAINING_RECORD(Board, SLOE, Board);
    NTSTATUS status;
    ULONG which;
    KIRQL irql;
    PIRP irp;

    KeAcquireSpinLock(&s->Lock, &irql);
    s->Awake = FALSE;
    KeReleaseSpinLock(&s->Lock, irql);
    if (Present && !s->CutOff && !EduDmaWait(&s->Edu)) {
        EduDmaMaster(Board, FALSE);
        s->CutOff = TRUE;
    }
    EduLive(&s->Edu, FALSE, Present);
    KeFlushQueuedDpcs();
    for (which = 0; which < SLOE_LANES; which++)
        while ((irp = IrpqTake(&s->Lanes[which].Active)) != NULL) {
            status = IrpqAgain(&s->Lanes[which].Waiting, irp);
            if (status != STATUS_PENDING)
                BoardFinish(Board, irp, status, 0);
        }
}

static VOID SloeDrain(PBOARD Board)
{
    PSLOE s = CONTAINING_RECORD(Board, SLOE, Board);
    ULONG which;

    for (which = 0; which < SLOE_LANES; which++) {
        IrpqShut(&s->Lanes[which].Waiting, STATUS_DELETE_PENDING);
        IrpqShut(&s->Lanes[which].Active, STATUS_DELETE_PENDING);
    }
}

static NTSTATUS SloeStart(PBOARD Board, PCM_PARTIAL_RESOURCE_LIST List)
{
    PSLOE s = CONTAINING_RECORD(Board, SLOE, Board);
    NTSTATUS status;

    status = EduGain(&s->Edu, List, EduService, &s->Edu);
    if (!NT_SUCCESS(status))
        return status;
    status = EduDmaGain(&s->Dma, Board, SLOE_BLOCK);
    if (!NT_SUCCESS(status))
        EduLose(&s->Edu);
    return status;
}

static VOID SloeStop(PBOARD Board)
{
    PSLOE s = CONTAINING_RECORD(Board, SLOE, Board);

    EduDmaLose(&s->Dma);
    EduLose(&s->Edu);
}

static NTSTATUS SloeBegin(PBOARD Board)
{
    PSLOE s = CONTAINING_RECORD(Board, SLOE, Board);
    ULONG which;

    KeInitializeSpinLock(&s->Lock);
    KeInitializeDpc(&s->Edu.Dpc, SloeDpc, s);
    for (which = 0; which < SLOE_LANES; which++) {
        IrpqBuild(&s->Lanes[which].Waiting, BoardRetire, Board);
        IrpqBuild(&s->Lanes[which].Active, BoardRetire, Board);
    }
    return STATUS_SUCCESS;
}

static VOID SloeEnd(PBOARD Board)
{
    UNREFERENCED_PARAMETER(Board);
}

static const BOARD_KIND SloeKind = {
    .Bytes = sizeof(SLOE), .Flags = DO_BUFFERED_IO, .Class = &SLOE_CLASS,
    .Begin = SloeBegin, .End = SloeEnd, .Start = SloeStart, .Stop = SloeStop, .Wake = SloeWake, .Quiet = SloeQuiet,
    .Drain = SloeDrain, .Io = SloeIo, .Cleanup = SloeCleanup,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return BoardDriver(DriverObject, &SloeKind);
}

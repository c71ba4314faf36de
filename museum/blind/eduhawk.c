/*
 * eduhawk: programs write to the 4 KiB of memory on the card and read them, at any offset. The bytes go through one common buffer
 * of 2 KiB, so a longer request takes two transfers of the card's DMA engine.
 *
 * The bug: the DPC says that the engine is idle behind each transfer, also when it starts the second one of the request right away, so
 * a stop or removal in the second half does not wait and gives the common buffer back under a transfer.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: wild-dma, dma-after-unmap, use-after-free, write-after-free
 * Needs: ioctl, removal, schedule
 */
#include <initguid.h>
#include <ddk/wdm.h>
#include "../include/gated_frame.h"
#include "../include/gated_edu.h"

#define HAWK_MEMORY 4096
#define HAWK_BUFFER 2048

DEFINE_GUID(HAWK_CLASS, 0x6b1d0a31, 0x51c4, 0x4a60, 0x9a, 0x0e, 0x21, 0x5d, 0x0c, 0x77, 0x14, 0x01);

typedef struct _HAWK {
    BOARD Board;
    EDU Edu;
    EDU_DMA Dma;
    BOOLEAN CutOff;             /* the card was kept from the bus, as it did not end */
    IRPQ Waiting;
    IRPQ Active;                /* the one that the engine works for, or none if it was cancelled */
    KEVENT Idle;
    KSPIN_LOCK Lock;
    BOOLEAN Awake;
    BOOLEAN Busy;
    ULONG Done;                 /* bytes of the active request in transfers that are over */
    ULONG Piece;                /* bytes of the one under way */
} HAWK, *PHAWK;

/* The next transfer of a request; under the lock. STATUS_PENDING: the engine works, else the request is still the caller's. */
static NTSTATUS HawkBegin(PHAWK h, PIRP Irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN read = stack->MajorFunction == IRP_MJ_READ;
    ULONG length = read ? stack->Parameters.Read.Length : stack->Parameters.Write.Length;
    ULONG offset = read ? stack->Parameters.Read.ByteOffset.LowPart : stack->Parameters.Write.ByteOffset.LowPart;
    NTSTATUS status;

    h->Piece = length - h->Done < HAWK_BUFFER ? length - h->Done : HAWK_BUFFER;
    if (!read)
        RtlCopyMemory(h->Dma.Buffer, (PUCHAR)Irp->AssociatedIrp.SystemBuffer + h->Done, h->Piece);
    status = IrpqAgain(&h->Active, Irp);
    if (status == STATUS_PENDING)
        EduDmaStart(&h->Edu, &h->Dma, offset + h->Done, h->Piece, read);
    return status;
}

static VOID HawkNext(PHAWK h)
{
    NTSTATUS status;
    KIRQL irql;
    PIRP irp;

    for (;;) {
        KeAcquireSpinLock(&h->Lock, &irql);
        if (!h->Awake || h->Busy || (irp = IrpqTake(&h->Waiting)) == NULL) {
            KeReleaseSpinLock(&h->Lock, irql);
            return;
        }
        h->Done = 0;
        status = HawkBegin(h, irp);
        if (status == STATUS_PENDING) {
            h->Busy = TRUE;
            KeClearEvent(&h->Idle);
        }
        KeReleaseSpinLock(&h->Lock, irql);
        if (status == STATUS_PENDING)
            return;
        BoardFinish(&h->Board, irp, status, 0);
    }
}

static VOID NTAPI HawkDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PHAWK h = Context;
    PIO_STACK_LOCATION stack;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG length = 0;
    BOOLEAN read;
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    if (!(EduFetch(&h->Edu) & EDU_CAUSE_DMA))
        return;
    KeAcquireSpinLockAtDpcLevel(&h->Lock);
    if (!h->Busy || (EduRead(&h->Edu, EDU_DMA_COMMAND) & EDU_DMA_START)) {
        KeReleaseSpinLockFromDpcLevel(&h->Lock);
        return;
    }
#ifndef FIXED
    KeSetEvent(&h->Idle, IO_NO_INCREMENT, FALSE);
#endif
    irp = IrpqTake(&h->Active);
    if (irp != NULL) {
        stack = IoGetCurrentIrpStackLocation(irp);
        read = stack->MajorFunction == IRP_MJ_READ;
        length = read ? stack->Parameters.Read.Length : stack->Parameters.Write.Length;
        if (read)
            RtlCopyMemory((PUCHAR)irp->AssociatedIrp.SystemBuffer + h->Done, h->Dma.Buffer, h->Piece);
        h->Done += h->Piece;
        if (h->Done < length) {
            status = HawkBegin(h, irp);
            if (status == STATUS_PENDING) {
                KeReleaseSpinLockFromDpcLevel(&h->Lock);
                return;
            }
            length = 0;
        }
    }
    h->Busy = FALSE;
#ifdef FIXED
    KeSetEvent(&h->Idle, IO_NO_INCREMENT, FALSE);
#endif
    KeReleaseSpinLockFromDpcLevel(&h->Lock);
    if (irp != NULL)
        BoardFinish(&h->Board, irp, status, length);
    HawkNext(h);
}

static NTSTATUS HawkIo(PBOARD Board, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PHAWK h = CONTAINING_RECORD(Board, HAWK, Board);
    LONGLONG offset;
    ULONG length;

    if (Stack->MajorFunction == IRP_MJ_READ) {
        offset = Stack->Parameters.Read.ByteOffset.QuadPart;
        length = Stack->Parameters.Read.Length;
    } else if (Stack->MajorFunction == IRP_MJ_WRITE) {
        offset = Stack->Parameters.Write.ByteOffset.QuadPart;
        length = Stack->Parameters.Write.Length;
    } else
        return BoardFinish(Board, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (length == 0)
        return BoardFinish(Board, Irp, STATUS_SUCCESS, 0);
    if (offset < 0 || length > HAWK_MEMORY || offset > HAWK_MEMORY - (LONGLONG)length)
        return BoardFinish(Board, Irp, STATUS_INVALID_PARAMETER, 0);
    BoardPend(Board, &h->Waiting, Irp);
    HawkNext(h);
    return STATUS_PENDING;
}

static VOID HawkCleanup(PBOARD Board, PFILE_OBJECT File)
{
    PHAWK h = CONTAINING_RECORD(Board, HAWK, Board);

    IrpqFlushFile(&h->Waiting, File);
    IrpqFlushFile(&h->Active, File);
}

static VOID HawkWake(PBOARD Board)
{
    PHAWK h = CONTAINING_RECORD(Board, HAWK, Board);
    KIRQL irql;

    if (h->CutOff && !(EduRead(&h->Edu, EDU_DMA_COMMAND) & EDU_DMA_START)) {
        EduDmaMaster(Board, TRUE);
        h->CutOff = FALSE;
    }
    EduLive(&h->Edu, TRUE, TRUE);
    KeAcquireSpinLock(&h->Lock, &irql);
    h->Awake = TRUE;
    h->Busy = h->CutOff || (EduRead(&h->Edu, EDU_DMA_COMMAND) & EDU_DMA_START);
    if (h->Busy)
        KeClearEvent(&h->Idle);
    else
        KeSetEvent(&h->Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&h->Lock, irql);
    HawkNext(h);
}

/* The engine ends what it does, within 3 s; it begins nothing new. What the card did not get done waits for its power. */
static VOID HawkQuiet(PBOARD Board, BOOLEAN Present)
{
    PHAWK h = CONTAINING_RECORD(Board, HAWK, Board);
    LARGE_INTEGER limit;
    NTSTATUS status;
    KIRQL irql;
    PIRP irp;

    KeAcquireSpinLock(&h->Lock, &irql);
    h->Awake = FALSE;
    KeReleaseSpinLock(&h->Lock, irql);
    if (Present) {
        limit.QuadPart = -30000000;
        if (KeWaitForSingleObject(&h->Idle, Executive, KernelMode, FALSE, &limit) == STATUS_TIMEOUT
            && !h->CutOff && (EduRead(&h->Edu, EDU_DMA_COMMAND) & EDU_DMA_START)) {
            EduDmaMaster(Board, FALSE);
            h->CutOff = TRUE;
        }
    }
    EduLive(&h->Edu, FALSE, Present);
    KeFlushQueuedDpcs();
    while ((irp = IrpqTake(&h->Active)) != NULL) {
        status = IrpqAgain(&h->Waiting, irp);
        if (status != STATUS_PENDING)
            BoardFinish(Board, irp, status, 0);
    }
}

static VOID HawkDrain(PBOARD Board)
{
    PHAWK h = CONTAINING_RECORD(Board, HAWK, Board);

    IrpqShut(&h->Waiting, STATUS_DELETE_PENDING);
    IrpqShut(&h->Active, STATUS_DELETE_PENDING);
}

static NTSTATUS HawkStart(PBOARD Board, PCM_PARTIAL_RESOURCE_LIST List)
{
    PHAWK h = CONTAINING_RECORD(Board, HAWK, Board);
    NTSTATUS status;

    status = EduGain(&h->Edu, List, EduService, &h->Edu);
    if (!NT_SUCCESS(status))
        return status;
    status = EduDmaGain(&h->Dma, Board, HAWK_BUFFER);
    if (!NT_SUCCESS(status))
        EduLose(&h->Edu);
    return status;
}

static VOID HawkStop(PBOARD Board)
{
    PHAWK h = CONTAINING_RECORD(Board, HAWK, Board);

    EduDmaLose(&h->Dma);
    EduLose(&h->Edu);
}

static NTSTATUS HawkBeginDevice(PBOARD Board)
{
    PHAWK h = CONTAINING_RECORD(Board, HAWK, Board);

    KeInitializeSpinLock(&h->Lock);
    KeInitializeEvent(&h->Idle, NotificationEvent, TRUE);
    KeInitializeDpc(&h->Edu.Dpc, HawkDpc, h);
    IrpqBuild(&h->Waiting, BoardRetire, Board);
    IrpqBuild(&h->Active, BoardRetire, Board);
    return STATUS_SUCCESS;
}

static VOID HawkEnd(PBOARD Board)
{
    UNREFERENCED_PARAMETER(Board);
}

static const BOARD_KIND HawkKind = {
    .Bytes = sizeof(HAWK), .Flags = DO_BUFFERED_IO, .Class = &HAWK_CLASS,
    .Begin = HawkBeginDevice, .End = HawkEnd, .Start = HawkStart, .Stop = HawkStop, .Wake = HawkWake, .Quiet = HawkQuiet,
    .Drain = HawkDrain, .Io = HawkIo, .Cleanup = HawkCleanup,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return BoardDriver(DriverObject, &HawkKind);
}

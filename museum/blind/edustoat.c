/*
 * edustoat: the 4096 bytes of memory on the educational card as a file. Reads and writes are moved by the card itself, straight from
 * and to the program's pages; the driver looks every few milliseconds whether the transfer is over, and gives up after two seconds.
 *
 * The bug: a transfer that is given up ends its request without flushing the adapter's buffers and giving back its map registers,
 * which only the path of transfers that end does.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: dma-map-registers-leak, dma-not-flushed, dma-unlocked-while-mapped, wild-dma
 * Needs: ioctl, device
 */
#include <ddk/wdm.h>
#include "../include/duty_frame.h"
#include "../include/duty_edu.h"

static const GUID StoatFace = { 0x1c40be73, 0xa2d9, 0x4e08, { 0xb6, 0x21, 0x74, 0x9f, 0x0d, 0x83, 0xe5, 0x5c } };

#define STOAT_TICK (-50000LL)           /* 5 ms */
#define STOAT_TICKS 400

/* The request that is being moved; it is in no lane, and of the one who has set Busy. */
typedef struct _STOAT_JOB {
    PIRP Irp;
    PMDL Mdl;
    PUCHAR Va;              /* of what is mapped, or is mapped next */
    ULONG Left;             /* bytes from there on */
    ULONG Done;
    ULONG Card;             /* where on the card */
    ULONG Piece;            /* bytes that are mapped now */
    ULONG Pages;
    PVOID Base;
    BOOLEAN ToCard;
    ULONG Ticks;
    NTSTATUS Status;
} STOAT_JOB;

typedef struct _STOAT {
    STATION St;
    BOOLEAN Mapped;         /* these five under the lane's lock */
    BOOLEAN Open;           /* requests may be started */
    BOOLEAN Live;           /* registers may be touched */
    BOOLEAN Busy;
    BOOLEAN Again;          /* someone has found it busy */
    KEVENT Idle;            /* set while it is not */
    PUCHAR Regs;
    PDMA_ADAPTER Adapter;
    ULONG MapRegisters;
    KTIMER Timer;
    KDPC Dpc;
    STOAT_JOB Job;
} STOAT;

static VOID StoatTick(STOAT *s)
{
    LARGE_INTEGER due;

    due.QuadPart = STOAT_TICK;
    KeSetTimer(&s->Timer, due, &s->Dpc);
}

/* Maps the next piece and starts the card on it. What goes wrong stands in the job's status; Piece says whether it is mapped. */
static VOID StoatStart(STOAT *s)
{
    STOAT_JOB *j = &s->Job;
    ULONG length = j->Left;
    PHYSICAL_ADDRESS at = s->Adapter->DmaOperations->MapTransfer(s->Adapter, j->Mdl, j->Base, j->Va, &length, j->ToCard);
    KIRQL irql;

    j->Piece = length;
    j->Ticks = 0;
    if ((ULONGLONG)at.QuadPart + length > EDU_REACH) {
        j->Status = STATUS_INSUFFICIENT_RESOURCES;
        return;
    }
    KeAcquireSpinLock(&s->St.Lane.Lock, &irql);
    if (!s->Live) {
        j->Status = STATUS_DEVICE_NOT_READY;
    } else if ((edu_get(s->Regs, EDU_COMMAND) & EDU_RUN) != 0) {
        j->Status = STATUS_DEVICE_BUSY;         /* still at one that was given up */
    } else {
        edu_set(s->Regs, EDU_SOURCE, j->ToCard ? at.LowPart : EDU_MEMORY + j->Card);
        edu_set(s->Regs, EDU_TARGET, j->ToCard ? EDU_MEMORY + j->Card : at.LowPart);
        edu_set(s->Regs, EDU_COUNT, length);
        edu_set(s->Regs, EDU_COMMAND, EDU_RUN | (j->ToCard ? 0 : EDU_TORAM));
    }
    KeReleaseSpinLock(&s->St.Lane.Lock, irql);
}

static IO_ALLOCATION_ACTION NTAPI StoatControl(PDEVICE_OBJECT Device, PIRP Irp, PVOID Base, PVOID Context)
{
    STOAT *s = Context;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    s->Job.Base = Base;
    StoatStart(s);
    StoatTick(s);               /* a failure is seen to there, too */
    return DeallocateObjectKeepRegisters;
}

static VOID StoatIdle(STOAT *s)
{
    KIRQL irql;

    KeAcquireSpinLock(&s->St.Lane.Lock, &irql);
    s->Busy = FALSE;
    KeSetEvent(&s->Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&s->St.Lane.Lock, irql);
}

/* The next request, if there is one and nothing is under way. */
static VOID StoatNext(STOAT *s)
{
    STOAT_JOB *j = &s->Job;
    PIO_STACK_LOCATION sp;
    NTSTATUS status;
    KIRQL irql;
    PIRP irp;

    KeAcquireSpinLock(&s->St.Lane.Lock, &irql);
    for (;;) {
        if (s->Busy)
            s->Again = TRUE;
        if (!s->Open || s->Busy)
            break;
        s->Busy = TRUE;
        s->Again = FALSE;
        KeClearEvent(&s->Idle);
        KeReleaseSpinLock(&s->St.Lane.Lock, irql);

        irp = lane_take(&s->St.Lane, PICK_ANY, NULL);
        if (irp != NULL) {
            sp = IoGetCurrentIrpStackLocation(irp);
            RtlZeroMemory(j, sizeof(*j));
            j->Irp = irp;
            j->Mdl = irp->MdlAddress;
            j->Va = MmGetMdlVirtualAddress(j->Mdl);
            j->ToCard = sp->MajorFunction == IRP_MJ_WRITE;
            j->Left = j->ToCard ? sp->Parameters.Write.Length : sp->Parameters.Read.Length;
            j->Card = j->ToCard ? sp->Parameters.Write.ByteOffset.LowPart : sp->Parameters.Read.ByteOffset.LowPart;
            j->Pages = ADDRESS_AND_SIZE_TO_SPAN_PAGES(j->Va, j->Left);
            KeFlushIoBuffers(j->Mdl, !j->ToCard, TRUE);
            status = STATUS_INSUFFICIENT_RESOURCES;
            if (j->Pages <= s->MapRegisters) {
                KeRaiseIrql(DISPATCH_LEVEL, &irql);
                status = s->Adapter->DmaOperations->AllocateAdapterChannel(s->Adapter, s->St.Self, j->Pages, StoatControl, s);
                KeLowerIrql(irql);
            }
            if (NT_SUCCESS(status))
                return;                 /* the timer's DPC has it now */
            lane_finish(&s->St.Lane, irp, status, 0);
        }

        KeAcquireSpinLock(&s->St.Lane.Lock, &irql);
        s->Busy = FALSE;
        if (irp == NULL && !s->Again) {
            KeSetEvent(&s->Idle, IO_NO_INCREMENT, FALSE);
            break;
        }
        if (!s->Open) {
            KeSetEvent(&s->Idle, IO_NO_INCREMENT, FALSE);
            break;
        }
    }
    KeReleaseSpinLock(&s->St.Lane.Lock, irql);
}

static VOID StoatEnd(STOAT *s)
{
    STOAT_JOB *j = &s->Job;

    lane_finish(&s->St.Lane, j->Irp, j->Status, NT_SUCCESS(j->Status) ? j->Done : 0);
    StoatIdle(s);
    StoatNext(s);
}

static VOID NTAPI StoatDpc(PKDPC Dpc, PVOID Context, PVOID A, PVOID B)
{
    STOAT *s = Context;
    STOAT_JOB *j = &s->Job;
    BOOLEAN wait = FALSE;
    KIRQL irql;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A);
    UNREFERENCED_PARAMETER(B);
    KeAcquireSpinLock(&s->St.Lane.Lock, &irql);
    if (NT_SUCCESS(j->Status)) {
        if (!s->Live)
            j->Status = STATUS_DEVICE_NOT_READY;
        else if ((edu_get(s->Regs, EDU_COMMAND) & EDU_RUN) != 0) {
            if (++j->Ticks < STOAT_TICKS)
                wait = TRUE;
            else
                j->Status = STATUS_IO_TIMEOUT;
        }
    }
    KeReleaseSpinLock(&s->St.Lane.Lock, irql);
    if (wait) {
        StoatTick(s);
        return;
    }
#ifndef FIXED
    if (j->Status == STATUS_IO_TIMEOUT) {
        StoatEnd(s);
        return;
    }
#endif
    if (j->Piece != 0)
        s->Adapter->DmaOperations->FlushAdapterBuffers(s->Adapter, j->Mdl, j->Base, j->Va, j->Piece, j->ToCard);
    if (NT_SUCCESS(j->Status)) {
        j->Va += j->Piece;
        j->Card += j->Piece;
        j->Done += j->Piece;
        j->Left -= j->Piece;
        j->Piece = 0;
        if (j->Left != 0) {
            StoatStart(s);
            StoatTick(s);
            return;
        }
    }
    s->Adapter->DmaOperations->FreeMapRegisters(s->Adapter, j->Base, j->Pages);
    StoatEnd(s);
}

static NTSTATUS StoatPrepare(STATION *St)
{
    STOAT *s = CONTAINING_RECORD(St, STOAT, St);

    KeInitializeEvent(&s->Idle, NotificationEvent, TRUE);
    KeInitializeTimer(&s->Timer);
    KeInitializeDpc(&s->Dpc, StoatDpc, s);
    return STATUS_SUCCESS;
}

static VOID StoatWake(STATION *St)
{
    STOAT *s = CONTAINING_RECORD(St, STOAT, St);
    KIRQL irql;

    KeAcquireSpinLock(&St->Lane.Lock, &irql);
    s->Live = s->Open = s->Mapped;
    KeReleaseSpinLock(&St->Lane.Lock, irql);
    StoatNext(s);
}

/* No new request, and the one under way to its end; a card that has gone is not waited for. */
static VOID StoatQuiet(STOAT *s, BOOLEAN Present, BOOLEAN Unmap)
{
    KIRQL irql;

    KeAcquireSpinLock(&s->St.Lane.Lock, &irql);
    s->Open = FALSE;
    if (!Present)
        s->Live = FALSE;
    if (Unmap)
        s->Mapped = FALSE;
    KeReleaseSpinLock(&s->St.Lane.Lock, irql);
    KeWaitForSingleObject(&s->Idle, Executive, KernelMode, FALSE, NULL);
    KeAcquireSpinLock(&s->St.Lane.Lock, &irql);
    s->Live = FALSE;
    KeReleaseSpinLock(&s->St.Lane.Lock, irql);
    KeFlushQueuedDpcs();
}

static VOID StoatSleep(STATION *St)
{
    StoatQuiet(CONTAINING_RECORD(St, STOAT, St), TRUE, FALSE);
}

static NTSTATUS StoatEngage(STATION *St, PCM_RESOURCE_LIST Translated)
{
    STOAT *s = CONTAINING_RECORD(St, STOAT, St);
    DEVICE_DESCRIPTION description;
    NTSTATUS status = edu_map(Translated, &s->Regs);
    KIRQL irql;

    if (!NT_SUCCESS(status))
        return status;
    RtlZeroMemory(&description, sizeof(description));
    description.Version = DEVICE_DESCRIPTION_VERSION;
    description.Master = TRUE;
    description.Dma32BitAddresses = TRUE;
    description.InterfaceType = PCIBus;
    description.MaximumLength = EDU_MEMBYTES;
    s->Adapter = IoGetDmaAdapter(St->Pdo, &description, &s->MapRegisters);
    if (s->Adapter == NULL) {
        MmUnmapIoSpace(s->Regs, EDU_BYTES);
        s->Regs = NULL;
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    KeAcquireSpinLock(&St->Lane.Lock, &irql);
    s->Mapped = TRUE;
    KeReleaseSpinLock(&St->Lane.Lock, irql);
    StoatWake(St);
    return STATUS_SUCCESS;
}

static VOID StoatRelease(STATION *St, BOOLEAN Present)
{
    STOAT *s = CONTAINING_RECORD(St, STOAT, St);

    StoatQuiet(s, Present, TRUE);
    s->Adapter->DmaOperations->PutDmaAdapter(s->Adapter);
    s->Adapter = NULL;
    MmUnmapIoSpace(s->Regs, EDU_BYTES);
    s->Regs = NULL;
}

static NTSTATUS StoatServe(STATION *St, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    LONGLONG offset;
    ULONG length;

    if (Sp->MajorFunction == IRP_MJ_READ) {
        offset = Sp->Parameters.Read.ByteOffset.QuadPart;
        length = Sp->Parameters.Read.Length;
    } else if (Sp->MajorFunction == IRP_MJ_WRITE) {
        offset = Sp->Parameters.Write.ByteOffset.QuadPart;
        length = Sp->Parameters.Write.Length;
    } else {
        return STATUS_INVALID_DEVICE_REQUEST;
    }
    if (length == 0)
        return STATUS_SUCCESS;
    if (offset < 0 || offset >= EDU_MEMBYTES || length > EDU_MEMBYTES - (ULONG)offset)
        return STATUS_INVALID_PARAMETER;
    lane_park(&St->Lane, Irp);
    StoatNext(CONTAINING_RECORD(St, STOAT, St));
    return STATUS_PENDING;
}

static const DUTIES StoatDuties = {
    .Bytes = sizeof(STOAT), .IoFlags = DO_DIRECT_IO, .Face = &StoatFace, .Prepare = StoatPrepare, .Engage = StoatEngage,
    .Release = StoatRelease, .Sleep = StoatSleep, .Wake = StoatWake, .Serve = StoatServe,
};

STATION_DRIVER(StoatDuties)

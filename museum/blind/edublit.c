/*
 * edublit: block transfers between memory and the RAM of QEMU's edu card.  Reads and writes (direct I/O, offset 0-4095)
 * are queued; one at a time goes by bus-master DMA, in as many pieces as the adapter wants.  The card decodes only 28
 * address bits, so the adapter is asked for memory below the ISA limit; a zero DMA command halts its engine.
 *
 * The bug: the length that MapTransfer has shortened is passed over.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: dma-behind-mapping
 * Needs: ioctl, device
 */
#include "../include/dkit.h"

#define EDU_ID       0x00
#define EDU_STATUS   0x20
#define EDU_IRQ      0x24
#define EDU_IRQ_ACK  0x64
#define EDU_DMA_SRC  0x80
#define EDU_DMA_DST  0x88
#define EDU_DMA_CNT  0x90
#define EDU_DMA_CMD  0x98
#define EDU_SPAN     0x1000
#define EDU_RAM      0x40000
#define EDU_RAM_SIZE 4096

#define DMA_START    1
#define DMA_TO_HOST  2
#define DMA_IRQ      4
#define IRQ_DMA      0x100
#define GONE         0xFFFFFFFF
#define LIMIT        (2 * 10000000LL) /* two seconds */

typedef struct _BLIT {
    DK Dk;
    DKQ Queue;
    KSPIN_LOCK Lock;
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    PDMA_ADAPTER Dma;
    KDPC Dpc;
    KDPC FailDpc;
    DKTIMER Timer;
    KEVENT Idle;
    BOOLEAN Started;
    BOOLEAN Run;    /* requests may start */
    BOOLEAN Busy;   /* there is a current request */
    BOOLEAN Mapped; /* which has its map registers */
    BOOLEAN Active; /* and a piece of which is under way */
    BOOLEAN Dead;   /* the engine did not stop */
    PIRP Current;
    PVOID MapBase;
    ULONG MapRegs;
    PUCHAR Va;
    ULONG Left;
    ULONG Piece;
    ULONG Done;
    ULONG Card;
    BOOLEAN ToCard;
} BLIT, *PBLIT;

DRIVER_INITIALIZE DriverEntry;
static const GUID BlitClass = {0x6fd92c14, 0x3b7a, 0x4c0f, {0x95, 0x42, 0xe1, 0x07, 0x5d, 0x88, 0x60, 0x01}};

static ULONG Rd(PBLIT B, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(B->Regs + Offset));
}

static VOID Wr(PBLIT B, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(B->Regs + Offset), Value);
}

/* Starts the next piece of the current request.  With the lock. */
static BOOLEAN StartPiece(PBLIT B)
{
    PHYSICAL_ADDRESS Bus;
    ULONG Length = B->Left;

    if (!B->Regs || B->Dead)
        return FALSE;
    Bus = B->Dma->DmaOperations->MapTransfer(B->Dma, B->Current->MdlAddress, B->MapBase, B->Va, &Length, B->ToCard);
    if (Length == 0)
        return FALSE;
#ifdef FIXED
    B->Piece = Length;
#else
    B->Piece = B->Left;
#endif
    B->Active = TRUE;
    DkArm(&B->Timer, LIMIT);

    Wr(B, EDU_DMA_SRC, B->ToCard ? Bus.LowPart : EDU_RAM + B->Card);
    Wr(B, EDU_DMA_DST, B->ToCard ? EDU_RAM + B->Card : Bus.LowPart);
    Wr(B, EDU_DMA_CNT, B->Piece);
    Wr(B, EDU_DMA_CMD, DMA_START | DMA_IRQ | (B->ToCard ? 0 : DMA_TO_HOST));
    return TRUE;
}

/* Ends the current request.  Takes B->Lock over from the caller; leaves it the request's remove lock to give back. */
static PIRP EndRequest(PBLIT B, NTSTATUS Status, KIRQL Irql)
{
    PIRP Irp = B->Current;
    ULONG Done = B->Done;

    if (B->Mapped) {
        B->Dma->DmaOperations->FreeMapRegisters(B->Dma, B->MapBase, B->MapRegs);
        B->Mapped = FALSE;
    }
    B->Current = NULL;
    KeReleaseSpinLock(&B->Lock, Irql);

    DkFinish(Irp, Status, NT_SUCCESS(Status) ? Done : 0);

    KeAcquireSpinLock(&B->Lock, &Irql);
    B->Busy = FALSE;
    KeSetEvent(&B->Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&B->Lock, Irql);
    return Irp; /* no more than a tag now */
}

static IO_ALLOCATION_ACTION NTAPI GotChannel(PDEVICE_OBJECT Dev, PIRP Irp, PVOID MapBase, PVOID Context)
{
    PBLIT B = Context;
    BOOLEAN Ok;
    KIRQL Irql;

    UNREFERENCED_PARAMETER(Dev);
    UNREFERENCED_PARAMETER(Irp);
    KeAcquireSpinLock(&B->Lock, &Irql);
    B->MapBase = MapBase;
    B->Mapped = TRUE;
    Ok = StartPiece(B);
    KeReleaseSpinLock(&B->Lock, Irql);
    if (!Ok)
        KeInsertQueueDpc(&B->FailDpc, NULL, NULL); /* ends the request after this routine has returned */
    return DeallocateObjectKeepRegisters;
}

/* Starts requests until one is under way.  The caller sees to it that the device stays. */
static VOID TryStart(PBLIT B)
{
    PIO_STACK_LOCATION Sp;
    NTSTATUS Status;
    KIRQL Irql;
    PIRP Irp;

    for (;;) {
        KeAcquireSpinLock(&B->Lock, &Irql);
        if (B->Busy || !B->Run || (Irp = IoCsqRemoveNextIrp(&B->Queue.Csq, NULL)) == NULL) {
            KeReleaseSpinLock(&B->Lock, Irql);
            return;
        }
        Sp = IoGetCurrentIrpStackLocation(Irp);
        B->Busy = TRUE;
        KeClearEvent(&B->Idle);
        B->Current = Irp;
        B->ToCard = Sp->MajorFunction == IRP_MJ_WRITE;
        B->Left = B->ToCard ? Sp->Parameters.Write.Length : Sp->Parameters.Read.Length;
        B->Card = B->ToCard ? Sp->Parameters.Write.ByteOffset.LowPart : Sp->Parameters.Read.ByteOffset.LowPart;
        B->Va = MmGetMdlVirtualAddress(Irp->MdlAddress);
        B->Done = 0;
        B->Mapped = FALSE;
        B->Active = FALSE;
        B->MapRegs = ADDRESS_AND_SIZE_TO_SPAN_PAGES(B->Va, B->Left);
        KeReleaseSpinLock(&B->Lock, Irql);

        KeFlushIoBuffers(Irp->MdlAddress, !B->ToCard, TRUE);
        KeRaiseIrql(DISPATCH_LEVEL, &Irql);
        Status = B->Dma->DmaOperations->AllocateAdapterChannel(B->Dma, B->Dk.Self, B->MapRegs, GotChannel, B);
        KeLowerIrql(Irql);
        if (NT_SUCCESS(Status))
            return;
        KeAcquireSpinLock(&B->Lock, &Irql);
        Irp = EndRequest(B, Status, Irql);
        IoReleaseRemoveLock(&B->Dk.Lock, Irp);
    }
}

/* The piece under way has ended.  With the lock. */
static VOID PieceEnded(PBLIT B)
{
    B->Active = FALSE;
    B->Dma->DmaOperations->FlushAdapterBuffers(B->Dma, B->Current->MdlAddress, B->MapBase, B->Va, B->Piece, B->ToCard);
}

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    PBLIT B = Context;
    ULONG Cause = Rd(B, EDU_IRQ);

    UNREFERENCED_PARAMETER(Interrupt);
    if (Cause == 0 || Cause == GONE)
        return FALSE;
    Wr(B, EDU_IRQ_ACK, Cause);
    if (Cause & IRQ_DMA)
        KeInsertQueueDpc(&B->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI TransferDpc(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PBLIT B = Context;
    NTSTATUS Status = STATUS_SUCCESS;
    KIRQL Irql;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);
    KeAcquireSpinLock(&B->Lock, &Irql);
    if (!B->Current || !B->Mapped || B->Active == (Dpc == &B->FailDpc)) {
        KeReleaseSpinLock(&B->Lock, Irql);
        return;
    }
    if (!B->Active) {
        Status = STATUS_DEVICE_NOT_READY; /* it could not be started */
    } else {
        ULONG Cmd = Rd(B, EDU_DMA_CMD);
        if (Cmd != GONE && (Cmd & DMA_START)) { /* not the end of this piece */
            KeReleaseSpinLock(&B->Lock, Irql);
            return;
        }
        DkDisarm(&B->Timer);
        PieceEnded(B);
        if (Cmd == GONE) {
            Status = STATUS_DEVICE_DOES_NOT_EXIST;
        } else {
            B->Va += B->Piece;
            B->Card += B->Piece;
            B->Done += B->Piece;
            B->Left -= B->Piece;
            if (B->Left) {
                if (StartPiece(B)) {
                    KeReleaseSpinLock(&B->Lock, Irql);
                    return;
                }
                Status = STATUS_DEVICE_NOT_READY;
            }
        }
    }
    Irp = EndRequest(B, Status, Irql);
    TryStart(B);
    IoReleaseRemoveLock(&B->Dk.Lock, Irp);
}

static VOID NTAPI LateDpc(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PBLIT B = Context;
    ULONG Cmd;
    KIRQL Irql;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);
    KeAcquireSpinLock(&B->Lock, &Irql);
    if (!DkExpired(&B->Timer)) {
        KeReleaseSpinLock(&B->Lock, Irql);
        return;
    }
    Cmd = Rd(B, EDU_DMA_CMD);
    if (Cmd != GONE && (Cmd & DMA_START)) {
        Wr(B, EDU_DMA_CMD, 0);
        (VOID)Rd(B, EDU_DMA_CMD);
        B->Dead = TRUE; /* takes no more until it is started again */
    }
    PieceEnded(B);
    Irp = EndRequest(B, STATUS_IO_TIMEOUT, Irql);
    TryStart(B);
    IoReleaseRemoveLock(&B->Dk.Lock, Irp);
}

static VOID Quiesce(PBLIT B)
{
    KIRQL Irql;
    KeAcquireSpinLock(&B->Lock, &Irql);
    B->Run = FALSE;
    KeReleaseSpinLock(&B->Lock, Irql);
    KeWaitForSingleObject(&B->Idle, Executive, KernelMode, FALSE, NULL); /* LateDpc sees to it */
}

static VOID PowerDown(PDEVICE_OBJECT Dev)
{
    Quiesce(Dev->DeviceExtension);
}

static VOID PowerUp(PDEVICE_OBJECT Dev)
{
    PBLIT B = Dev->DeviceExtension;
    KIRQL Irql;
    KeAcquireSpinLock(&B->Lock, &Irql);
    if (B->Started) {
        Wr(B, EDU_STATUS, 0);
        B->Dead = FALSE;
        B->Run = TRUE;
    }
    KeReleaseSpinLock(&B->Lock, Irql);
    TryStart(B);
}

static VOID StopCard(PBLIT B)
{
    KIRQL Irql;

    KeAcquireSpinLock(&B->Lock, &Irql);
    B->Started = FALSE;
    KeReleaseSpinLock(&B->Lock, Irql);
    Quiesce(B);
    if (B->Interrupt) {
        Wr(B, EDU_IRQ_ACK, GONE);
        IoDisconnectInterrupt(B->Interrupt);
        B->Interrupt = NULL;
    }
    KeFlushQueuedDpcs();
    if (B->Regs) {
        MmUnmapIoSpace(B->Regs, EDU_SPAN);
        B->Regs = NULL;
    }
    if (B->Dma) {
        B->Dma->DmaOperations->PutDmaAdapter(B->Dma);
        B->Dma = NULL;
    }
}

static NTSTATUS StartCard(PBLIT B, PCM_RESOURCE_LIST List)
{
    DEVICE_DESCRIPTION Desc;
    ULONG Registers = 0;
    NTSTATUS Status;
    DKRES Res;
    KIRQL Irql;

    DkParse(List, &Res);
    if (Res.Bars < 1 || Res.Len[0] < EDU_SPAN || !Res.Irq)
        return STATUS_DEVICE_CONFIGURATION_ERROR;

    RtlZeroMemory(&Desc, sizeof(Desc));
    Desc.Version = DEVICE_DESCRIPTION_VERSION;
    Desc.Master = TRUE;
    Desc.ScatterGather = TRUE;
    Desc.Dma32BitAddresses = FALSE;
    Desc.InterfaceType = PCIBus;
    Desc.MaximumLength = EDU_RAM_SIZE;
    B->Dma = IoGetDmaAdapter(B->Dk.Pdo, &Desc, &Registers);
    if (!B->Dma)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (Registers < 2) { /* a transfer spans up to two pages */
        StopCard(B);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    B->Regs = MmMapIoSpace(Res.Base[0], EDU_SPAN, MmNonCached);
    if (!B->Regs || Rd(B, EDU_ID) == GONE) {
        Status = B->Regs ? STATUS_DEVICE_DOES_NOT_EXIST : STATUS_INSUFFICIENT_RESOURCES;
        StopCard(B);
        return Status;
    }
    Wr(B, EDU_STATUS, 0);
    Wr(B, EDU_IRQ_ACK, Rd(B, EDU_IRQ));
    Status = IoConnectInterrupt(&B->Interrupt, Isr, B, NULL, Res.Vector, Res.Level, Res.Level,
                                Res.Latched ? Latched : LevelSensitive, Res.Shared, Res.Affinity, FALSE);
    if (!NT_SUCCESS(Status)) {
        B->Interrupt = NULL;
        StopCard(B);
        return Status;
    }
    KeAcquireSpinLock(&B->Lock, &Irql);
    B->Dead = FALSE;
    B->Started = TRUE;
    B->Run = TRUE;
    KeReleaseSpinLock(&B->Lock, Irql);
    TryStart(B);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI ReadWrite(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PBLIT B = Dev->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN Read = Sp->MajorFunction == IRP_MJ_READ;
    ULONG Length = Read ? Sp->Parameters.Read.Length : Sp->Parameters.Write.Length;
    LONGLONG Offset = Read ? Sp->Parameters.Read.ByteOffset.QuadPart : Sp->Parameters.Write.ByteOffset.QuadPart;
    NTSTATUS Status = IoAcquireRemoveLock(&B->Dk.Lock, Irp);

    if (!NT_SUCCESS(Status))
        return DkFinish(Irp, Status, 0);
    if (Length == 0)
        Status = STATUS_SUCCESS;
    else if (Offset < 0 || Offset >= EDU_RAM_SIZE || Length > EDU_RAM_SIZE - (ULONG)Offset || !Irp->MdlAddress)
        Status = STATUS_INVALID_PARAMETER;
    else {
        Status = IoAcquireRemoveLock(&B->Dk.Lock, Dev); /* for TryStart: the request may be gone by then */
        if (NT_SUCCESS(Status)) {
            Status = IoCsqInsertIrpEx(&B->Queue.Csq, Irp, NULL, NULL);
            if (NT_SUCCESS(Status)) {
                TryStart(B);
                IoReleaseRemoveLock(&B->Dk.Lock, Dev);
                return STATUS_PENDING;
            }
            IoReleaseRemoveLock(&B->Dk.Lock, Dev);
        }
    }
    DkFinish(Irp, Status, 0);
    IoReleaseRemoveLock(&B->Dk.Lock, Irp);
    return Status;
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PBLIT B = Dev->DeviceExtension;
    if (!NT_SUCCESS(IoAcquireRemoveLock(&B->Dk.Lock, Irp)))
        return DkFinish(Irp, STATUS_SUCCESS, 0);
    DkqCleanup(&B->Queue, IoGetCurrentIrpStackLocation(Irp)->FileObject);
    DkFinish(Irp, STATUS_SUCCESS, 0);
    IoReleaseRemoveLock(&B->Dk.Lock, Irp);
    return STATUS_SUCCESS;
}

static VOID Drain(PBLIT B)
{
    DkqSetClosed(&B->Queue, STATUS_DELETE_PENDING);
    DkqFlush(&B->Queue, NULL, STATUS_DELETE_PENDING);
}

static NTSTATUS NTAPI Pnp(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PBLIT B = Dev->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&B->Dk.Lock, Irp);

    if (!NT_SUCCESS(Status))
        return DkFinish(Irp, Status, 0);
    switch (Sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        Status = DkForwardWait(&B->Dk, Irp);
        if (NT_SUCCESS(Status))
            Status = StartCard(B, Sp->Parameters.StartDevice.AllocatedResourcesTranslated);
        if (NT_SUCCESS(Status))
            IoSetDeviceInterfaceState(&B->Dk.Link, TRUE);
        DkFinish(Irp, Status, Irp->IoStatus.Information);
        IoReleaseRemoveLock(&B->Dk.Lock, Irp);
        return Status;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_STOP_DEVICE: /* the queue waits for the next start */
        StopCard(B);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        IoSetDeviceInterfaceState(&B->Dk.Link, FALSE);
        Drain(B);
        StopCard(B);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        Drain(B);
        StopCard(B);
        DkRemoveWait(&B->Dk, Irp);
        return DkRemoveFinish(&B->Dk, Irp);
    }
    return DkPassRelease(&B->Dk, Irp);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Dev;
    PBLIT B;
    NTSTATUS Status = DkAddDevice(Driver, Pdo, sizeof(BLIT), &BlitClass, PowerDown, PowerUp, &Dev);
    if (!NT_SUCCESS(Status))
        return Status;
    B = Dev->DeviceExtension;
    DkqInit(&B->Queue, &B->Dk.Lock);
    KeInitializeSpinLock(&B->Lock);
    KeInitializeDpc(&B->Dpc, TransferDpc, B);
    KeInitializeDpc(&B->FailDpc, TransferDpc, B);
    DkInitTimer(&B->Timer, LateDpc, B);
    KeInitializeEvent(&B->Idle, NotificationEvent, TRUE);
    Dev->Flags |= DO_DIRECT_IO;
    Dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    Driver->MajorFunction[IRP_MJ_CREATE] = DkCreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DkCreateClose;
    Driver->MajorFunction[IRP_MJ_READ] = ReadWrite;
    Driver->MajorFunction[IRP_MJ_WRITE] = ReadWrite;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DkSystemControl;
    Driver->MajorFunction[IRP_MJ_POWER] = DkPower;
    Driver->MajorFunction[IRP_MJ_PNP] = Pnp;
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}

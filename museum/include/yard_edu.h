/*
 * educard.h: QEMU's educational card, and an engine that has it compute factorials for the requests on the shelf, one after the other.
 */
#ifndef TT_EDUCARD_H
#define TT_EDUCARD_H

#define EDU_ID          0x00
#define EDU_LIVE        0x04
#define EDU_NUMBER      0x08
#define EDU_STATUS      0x20
#define   EDU_COMPUTING   0x01
#define   EDU_FACT_IRQ    0x80
#define EDU_CAUSES      0x24
#define EDU_RAISE       0x60
#define EDU_ACK         0x64
#define EDU_DMA_FROM    0x80
#define EDU_DMA_TO      0x88
#define EDU_DMA_COUNT   0x90
#define EDU_DMA_COMMAND 0x98
#define   EDU_DMA_START   0x01
#define   EDU_DMA_TO_RAM  0x02
#define   EDU_DMA_IRQ     0x04
#define EDU_RAM         0x40000
#define EDU_RAM_BYTES   4096
#define EDU_ALL_ONES    0xFFFFFFFFu

FR ULONG EduRd(PFRAME F, ULONG Offset)
{
    return Rd32(F, 0, Offset);
}

FR VOID EduWr(PFRAME F, ULONG Offset, ULONG Value)
{
    Wr32(F, 0, Offset, Value);
}

/* Is what was claimed the card? */
FR NTSTATUS EduCheck(PFRAME F)
{
    if (F->Windows == 0 || F->Window[0].Port || F->Window[0].Length < EDU_RAM + EDU_RAM_BYTES || !F->HasLine)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    return (EduRd(F, EDU_ID) & 0xFF) == 0xED ? STATUS_SUCCESS : STATUS_NO_SUCH_DEVICE;
}

/* Hooks.Listen */
FR VOID EduListen(PFRAME F, BOOLEAN On)
{
    ULONG causes;

    if (!On)
        EduWr(F, EDU_STATUS, 0);
    causes = EduRd(F, EDU_CAUSES);
    if (causes && causes != EDU_ALL_ONES)
        EduWr(F, EDU_ACK, causes);
    if (On)
        EduWr(F, EDU_STATUS, EDU_FACT_IRQ);
    EduRd(F, EDU_CAUSES);
}

/* In the service routine: the causes, which are acknowledged; 0 if it was not this card. */
FR ULONG EduCauses(PFRAME F)
{
    ULONG causes = EduRd(F, EDU_CAUSES);

    if (causes == 0 || causes == EDU_ALL_ONES)
        return 0;
    EduWr(F, EDU_ACK, causes);
    EduRd(F, EDU_CAUSES);
    return causes;
}

/* Hooks.Isr of a driver that need not know the causes. */
FR BOOLEAN EduIsr(PFRAME F)
{
    if (EduCauses(F) == 0)
        return FALSE;
    KeInsertQueueDpc(&F->Dpc, NULL, NULL);
    return TRUE;
}

/* --- factorials; all of it under F->Lock --- */

typedef struct _EDU_FACT {
    BOOLEAN Busy;               /* the card computes */
    ULONG_PTR Number;           /* for this request; 0: for none */
} EDU_FACT;

FR VOID EduFactReady(PFRAME F, EDU_FACT *Fact)
{
    /* What was begun before the card slept may still be under way: it is awaited, for no one. */
    Fact->Busy = (EduRd(F, EDU_STATUS) & EDU_COMPUTING) != 0;
    Fact->Number = 0;
}

FR VOID EduFactLull(PFRAME F, EDU_FACT *Fact)
{
    Fact->Busy = FALSE;
    Fact->Number = 0;
    ShelfRewind(&F->Shelf);
}

/* Without the lock. */
FR VOID EduFactKick(PFRAME F, EDU_FACT *Fact)
{
    ULONG_PTR value;
    KIRQL irql;

    KeAcquireSpinLock(&F->Lock, &irql);
    if (FrameLive(F) && !Fact->Busy && ShelfNext(&F->Shelf, &Fact->Number, &value)) {
        Fact->Busy = TRUE;
        EduWr(F, EDU_NUMBER, (ULONG)value);
    }
    KeReleaseSpinLock(&F->Lock, irql);
}

/* Without the lock, behind an interrupt. */
FR VOID EduFactDpc(PFRAME F, EDU_FACT *Fact)
{
    ULONG_PTR number = 0;
    ULONG result = 0;
    PIRP irp;

    KeAcquireSpinLockAtDpcLevel(&F->Lock);
    if (FrameLive(F) && Fact->Busy && !(EduRd(F, EDU_STATUS) & EDU_COMPUTING)) {
        result = EduRd(F, EDU_NUMBER);
        number = Fact->Number;
        Fact->Busy = FALSE;
        Fact->Number = 0;
    }
    KeReleaseSpinLockFromDpcLevel(&F->Lock);
    if (number && (irp = ShelfTake(&F->Shelf, number, NULL)) != NULL) {
        *(PULONG)irp->AssociatedIrp.SystemBuffer = result;
        ShelfEnd(&F->Shelf, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    EduFactKick(F, Fact);
}

#define EDU_FACT_MAX 12         /* 13! has more than 32 bits */

/* An IOCTL (METHOD_BUFFERED): a number in, its factorial out. */
FR NTSTATUS EduFactRequest(PFRAME F, EDU_FACT *Fact, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    NTSTATUS status;
    ULONG n;

    if (Stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) || Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        return Ends(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    n = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
    if (n > EDU_FACT_MAX)
        return Ends(Irp, STATUS_INVALID_PARAMETER, 0);
    status = FramePark(F, &F->Shelf, Irp, n);
    EduFactKick(F, Fact);
    return status;
}

#endif

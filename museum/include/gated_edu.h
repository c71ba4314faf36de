/* QEMU's educational card: its registers, its interrupt line. */
#ifndef VV_EDU
#define VV_EDU

#define EDU_ALIVE 0x04              /* reads the complement of what was written */
#define EDU_NUMBER 0x08             /* write: compute the factorial of; read: the result */
#define EDU_STATE 0x20
#define EDU_STATE_COMPUTES 0x01
#define EDU_STATE_INTERRUPT 0x80    /* interrupt at the end of a computation */
#define EDU_CAUSES 0x24
#define EDU_RAISE 0x60
#define EDU_TAKE_BACK 0x64
#define EDU_DMA_FROM 0x80
#define EDU_DMA_TO 0x88
#define EDU_DMA_BYTES 0x90
#define EDU_DMA_COMMAND 0x98
#define EDU_DMA_START 0x01          /* reads as one while a transfer is under way */
#define EDU_DMA_TO_MEMORY 0x02
#define EDU_DMA_INTERRUPT 0x04
#define EDU_CAUSE_NUMBER 0x001
#define EDU_CAUSE_DMA 0x100
#define EDU_MEMORY 0x40000          /* 4096 bytes of the card's own, as its DMA engine sees them */
#define EDU_REGISTERS 0x100
#define EDU_GONE 0xFFFFFFFF

typedef struct _EDU {
    PUCHAR Registers;
    SIZE_T Bytes;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    BOOLEAN Live;                   /* these two belong to the interrupt's lock */
    ULONG Causes;
} EDU, *PEDU;

typedef struct _EDU_ASK {
    PEDU Edu;
    ULONG Causes;
    BOOLEAN Live;
    BOOLEAN Present;
} EDU_ASK;

ANY ULONG EduRead(PEDU Edu, ULONG Register)
{
    return READ_REGISTER_ULONG((PULONG)(Edu->Registers + Register));
}

ANY VOID EduWrite(PEDU Edu, ULONG Register, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Edu->Registers + Register), Value);
}

ANY NTSTATUS EduMap(PEDU Edu, PCM_PARTIAL_RESOURCE_LIST List)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d = BoardResource(List, CmResourceTypeMemory, 0);

    if (d == NULL || d->u.Memory.Length < EDU_REGISTERS)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    Edu->Bytes = d->u.Memory.Length;
    Edu->Registers = MmMapIoSpace(d->u.Memory.Start, Edu->Bytes, MmNonCached);
    return Edu->Registers != NULL ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

ANY VOID EduUnmap(PEDU Edu)
{
    MmUnmapIoSpace(Edu->Registers, Edu->Bytes);
    Edu->Registers = NULL;
}

ANY BOOLEAN NTAPI EduService(PKINTERRUPT Interrupt, PVOID Context)
{
    PEDU edu = Context;
    ULONG causes;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!edu->Live)
        return FALSE;
    causes = EduRead(edu, EDU_CAUSES);
    if (causes == 0 || causes == EDU_GONE)
        return FALSE;
    EduWrite(edu, EDU_TAKE_BACK, causes);
    (VOID)EduRead(edu, EDU_CAUSES);
    edu->Causes |= causes;
    KeInsertQueueDpc(&edu->Dpc, NULL, NULL);
    return TRUE;
}

ANY BOOLEAN NTAPI EduFetchLocked(PVOID Context)
{
    EDU_ASK *ask = Context;

    ask->Causes = ask->Edu->Causes;
    ask->Edu->Causes = 0;
    return TRUE;
}

/* What the service routine has collected since the last call. */
ANY ULONG EduFetch(PEDU Edu)
{
    EDU_ASK ask = { Edu, 0, FALSE, FALSE };

    KeSynchronizeExecution(Edu->Interrupt, EduFetchLocked, &ask);
    return ask.Causes;
}

/* A quiet line: no interrupt at the end of a computation, no cause left. */
ANY VOID EduHush(PEDU Edu)
{
    ULONG causes;

    EduWrite(Edu, EDU_STATE, 0);
    causes = EduRead(Edu, EDU_CAUSES);
    if (causes != EDU_GONE) {
        EduWrite(Edu, EDU_TAKE_BACK, causes);
        (VOID)EduRead(Edu, EDU_CAUSES);
    }
}

ANY BOOLEAN NTAPI EduLiveLocked(PVOID Context)
{
    EDU_ASK *ask = Context;

    if (ask->Present)
        EduHush(ask->Edu);
    ask->Edu->Live = ask->Live;
    ask->Edu->Causes = 0;
    return TRUE;
}

/* Behind the call with FALSE the card asks for nothing more, and the service routine leaves it alone. */
ANY VOID EduLive(PEDU Edu, BOOLEAN Live, BOOLEAN Present)
{
    EDU_ASK ask = { Edu, 0, Live, Present };

    KeSynchronizeExecution(Edu->Interrupt, EduLiveLocked, &ask);
}

/* Registers and interrupt, for cards whose driver uses both. The DPC must have been initialized. */
ANY NTSTATUS EduGain(PEDU Edu, PCM_PARTIAL_RESOURCE_LIST List, PKSERVICE_ROUTINE Service, PVOID Context)
{
    NTSTATUS status = EduMap(Edu, List);

    if (!NT_SUCCESS(status))
        return status;
    EduHush(Edu);
    status = BoardConnect(List, Service, Context, &Edu->Interrupt);
    if (!NT_SUCCESS(status))
        EduUnmap(Edu);
    return status;
}

ANY VOID EduLose(PEDU Edu)
{
    IoDisconnectInterrupt(Edu->Interrupt);
    Edu->Interrupt = NULL;
    EduUnmap(Edu);
}

/* The card reaches 28 bits of address, which the third version of the description can say (Windows 8). */
typedef struct _EDU_DMA {
    PDMA_ADAPTER Adapter;
    PVOID Buffer;
    PHYSICAL_ADDRESS Logical;
    ULONG Bytes;
} EDU_DMA, *PEDU_DMA;

typedef struct _DEVICE_DESCRIPTION_3 {
    DEVICE_DESCRIPTION Description;
    ULONG DmaAddressWidth;
    ULONG DmaControllerInstance;
    ULONG DmaRequestLine;
    PHYSICAL_ADDRESS DeviceAddress;
} DEVICE_DESCRIPTION_3;

ANY NTSTATUS EduDmaGain(PEDU_DMA Dma, PBOARD Board, ULONG Bytes)
{
    DEVICE_DESCRIPTION_3 d;
    ULONG registers;

    RtlZeroMemory(&d, sizeof(d));
    d.Description.Version = 3;
    d.Description.Master = TRUE;
    d.Description.Dma32BitAddresses = TRUE;
    d.Description.InterfaceType = PCIBus;
    d.Description.MaximumLength = Bytes;
    d.DmaAddressWidth = 28;
    Dma->Adapter = IoGetDmaAdapter(Board->Base, &d.Description, &registers);
    if (Dma->Adapter == NULL) {             /* an older Windows: below 4 GB, and luck */
        d.Description.Version = DEVICE_DESCRIPTION_VERSION2;
        Dma->Adapter = IoGetDmaAdapter(Board->Base, &d.Description, &registers);
        if (Dma->Adapter == NULL)
            return STATUS_INSUFFICIENT_RESOURCES;
    }
    Dma->Bytes = Bytes;
    Dma->Buffer = Dma->Adapter->DmaOperations->AllocateCommonBuffer(Dma->Adapter, Bytes, &Dma->Logical, TRUE);
    if (Dma->Buffer != NULL && Dma->Logical.QuadPart + Bytes <= 0x10000000) {
        RtlZeroMemory(Dma->Buffer, Bytes);
        return STATUS_SUCCESS;
    }
    if (Dma->Buffer != NULL)
        Dma->Adapter->DmaOperations->FreeCommonBuffer(Dma->Adapter, Bytes, Dma->Logical, Dma->Buffer, TRUE);
    Dma->Adapter->DmaOperations->PutDmaAdapter(Dma->Adapter);
    Dma->Adapter = NULL;
    return STATUS_INSUFFICIENT_RESOURCES;
}

ANY VOID EduDmaLose(PEDU_DMA Dma)
{
    Dma->Adapter->DmaOperations->FreeCommonBuffer(Dma->Adapter, Dma->Bytes, Dma->Logical, Dma->Buffer, TRUE);
    Dma->Adapter->DmaOperations->PutDmaAdapter(Dma->Adapter);
    Dma->Adapter = NULL;
}

ANY VOID EduDmaStart(PEDU Edu, PEDU_DMA Dma, ULONG Offset, ULONG Bytes, BOOLEAN ToMemory)
{
    EduWrite(Edu, EDU_DMA_FROM, ToMemory ? EDU_MEMORY + Offset : Dma->Logical.LowPart);
    EduWrite(Edu, EDU_DMA_TO, ToMemory ? Dma->Logical.LowPart : EDU_MEMORY + Offset);
    EduWrite(Edu, EDU_DMA_BYTES, Bytes);
    EduWrite(Edu, EDU_DMA_COMMAND, EDU_DMA_START | EDU_DMA_INTERRUPT | (ToMemory ? EDU_DMA_TO_MEMORY : 0));
}

/* A card that does not end its transfer is kept from the bus: the bit for bus mastering in its command register. */
ANY VOID EduDmaMaster(PBOARD Board, BOOLEAN Master)
{
    USHORT command = 0;

    if (!NT_SUCCESS(BoardConfig(Board, FALSE, 4, &command, sizeof(command))))
        return;
    command = Master ? command | 4 : command & ~4;
    BoardConfig(Board, TRUE, 4, &command, sizeof(command));
}

/* Waits until the card has ended its transfer, 3 s at most. */
ANY BOOLEAN EduDmaWait(PEDU Edu)
{
    ULONG tries, command;

    for (tries = 0; tries < 300; tries++) {
        command = EduRead(Edu, EDU_DMA_COMMAND);
        if (!(command & EDU_DMA_START) || command == EDU_GONE)
            return TRUE;
        Nap(10);
    }
    return FALSE;
}
#endif

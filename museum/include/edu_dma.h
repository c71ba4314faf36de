/*
 * A driver that has QEMU's educational device move bytes and does nothing wrong: IOCTL_EDU_STORE moves its input (up to 256 bytes) into the card's buffer by DMA
 * from a common buffer, and ends when the card interrupts. One at a time. An exhibit has a routine of its own in the place of one of these.
 */
#ifndef EDU_DMA_H
#define EDU_DMA_H

#include "edu.h"

#define IOCTL_EDU_STORE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x810, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define EDU_DMA_SOURCE 0x80
#define EDU_DMA_DESTINATION 0x88
#define EDU_DMA_COUNT 0x90
#define EDU_DMA_COMMAND 0x98
#define EDU_DMA_START 0x1
#define EDU_DMA_TO_MEMORY 0x2
#define EDU_DMA_INTERRUPT 0x4
#define EDU_BUFFER 0x40000 /* the card's, as it calls it */
#define EDU_TRANSFERRED 0x100
#define MOST_BYTES 256

typedef struct _DMA {
    EDU Edu;
    PDMA_ADAPTER Adapter;
    PUCHAR Common;
    PHYSICAL_ADDRESS CommonAddress;
    LONG Transferring;
    KEVENT Idle;               /* the card moves nothing */
    PSCATTER_GATHER_LIST List; /* edu_list.h */
} DMA, *PDMA;

SHARED VOID WriteWide(PFDO Fdo, ULONG Offset, ULONG64 Value)
{
    *(volatile ULONG64 *)(Fdo->Registers + Offset) = Value;
}

SHARED VOID DmaBegin(PFDO Fdo, ULONG64 Address, ULONG Length)
{
    WriteWide(Fdo, EDU_DMA_SOURCE, Address);
    WriteWide(Fdo, EDU_DMA_DESTINATION, EDU_BUFFER);
    WriteWide(Fdo, EDU_DMA_COUNT, Length);
    WriteWide(Fdo, EDU_DMA_COMMAND, EDU_DMA_START | EDU_DMA_INTERRUPT);
}

/* mingw's DEVICE_DESCRIPTION ends with version 2. */
typedef struct _DESCRIPTION3 {
    DEVICE_DESCRIPTION Old;
    ULONG DmaAddressWidth;
    ULONG DmaControllerInstance;
    ULONG DmaRequestLine;
    PHYSICAL_ADDRESS DeviceAddress;
} DESCRIPTION3;

/* The card has 28 bits for addresses. */
SHARED NTSTATUS DmaGetAdapter(PFDO Fdo)
{
    PDMA Dma = (PDMA)Fdo;
    DESCRIPTION3 Description;
    ULONG MapRegisters;

    RtlZeroMemory(&Description, sizeof(Description));
    Description.Old.Version = 3;
    Description.Old.Master = TRUE;
    Description.Old.ScatterGather = TRUE;
    Description.Old.InterfaceType = PCIBus;
    Description.Old.MaximumLength = PAGE_SIZE;
    Description.DmaAddressWidth = 28;
    Dma->Adapter = IoGetDmaAdapter(Fdo->Pdo, &Description.Old, &MapRegisters);
    return Dma->Adapter == NULL ? STATUS_INSUFFICIENT_RESOURCES : STATUS_SUCCESS;
}

SHARED NTSTATUS DmaGetCommon(PFDO Fdo)
{
    PDMA Dma = (PDMA)Fdo;

    Dma->Common = Dma->Adapter->DmaOperations->AllocateCommonBuffer(Dma->Adapter, PAGE_SIZE, &Dma->CommonAddress, FALSE);
    return Dma->Common == NULL ? STATUS_INSUFFICIENT_RESOURCES : STATUS_SUCCESS;
}

SHARED VOID DmaPutCommon(PFDO Fdo)
{
    PDMA Dma = (PDMA)Fdo;

    if (Dma->Common != NULL) {
        Dma->Adapter->DmaOperations->FreeCommonBuffer(Dma->Adapter, PAGE_SIZE, Dma->CommonAddress, Dma->Common, FALSE);
        Dma->Common = NULL;
    }
}

SHARED VOID DmaPutAdapter(PFDO Fdo)
{
    PDMA Dma = (PDMA)Fdo;

    if (Dma->Adapter != NULL) {
        Dma->Adapter->DmaOperations->PutDmaAdapter(Dma->Adapter);
        Dma->Adapter = NULL;
    }
}

SHARED VOID NTAPI DmaDpc(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    PDMA Dma = Context;
    PEDU Edu = Context;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    if (!(InterlockedExchange(&Edu->Pending, 0) & EDU_TRANSFERRED)) {
        return;
    }
    Irp = EduTakeCurrent(Edu);
    InterlockedExchange(&Dma->Transferring, FALSE);
    KeSetEvent(&Dma->Idle, IO_NO_INCREMENT, FALSE);
    if (Irp != NULL) {
        FdoEndPended(&Edu->Fdo, Irp, STATUS_SUCCESS, 0);
    }
}

SHARED NTSTATUS DmaAdd(PFDO Fdo)
{
    PDMA Dma = (PDMA)Fdo;
    PEDU Edu = (PEDU)Fdo;

    EduAdd(Fdo);
    KeInitializeDpc(&Edu->Dpc, DmaDpc, Edu);
    KeInitializeEvent(&Dma->Idle, NotificationEvent, TRUE);
    Dma->Transferring = FALSE;
    return STATUS_SUCCESS;
}

SHARED NTSTATUS DmaStart(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    NTSTATUS Status = DmaGetAdapter(Fdo);

    if (NT_SUCCESS(Status)) {
        Status = DmaGetCommon(Fdo);
    }
    if (NT_SUCCESS(Status)) {
        Status = EduStart(Fdo, Resources);
    }
    if (!NT_SUCCESS(Status)) {
        DmaPutCommon(Fdo);
        DmaPutAdapter(Fdo);
    }
    return Status;
}

/* Until the card is done, or for 1 s, as one that is gone never is. */
SHARED VOID DmaWaitIdle(PFDO Fdo)
{
    PDMA Dma = (PDMA)Fdo;
    LARGE_INTEGER Limit;

    Limit.QuadPart = -10000000;
    KeWaitForSingleObject(&Dma->Idle, Executive, KernelMode, FALSE, &Limit);
    InterlockedExchange(&Dma->Transferring, FALSE);
    KeSetEvent(&Dma->Idle, IO_NO_INCREMENT, FALSE);
}

SHARED VOID DmaFlush(PFDO Fdo)
{
    DmaWaitIdle(Fdo);
    EduFlush(Fdo);
}

SHARED VOID DmaStop(PFDO Fdo, BOOLEAN Present)
{
    EduStop(Fdo, Present);
    DmaPutCommon(Fdo);
    DmaPutAdapter(Fdo);
}

/* The card's next transfer is this request's; FALSE: it has one. */
SHARED BOOLEAN DmaTake(PEDU Edu, PIRP Irp)
{
    PDMA Dma = (PDMA)Edu;
    KIRQL OldIrql;

    if (InterlockedExchange(&Dma->Transferring, TRUE)) {
        return FALSE;
    }
    KeClearEvent(&Dma->Idle);
    IoMarkIrpPending(Irp);
    KeAcquireSpinLock(&Edu->Lock, &OldIrql);
    Edu->Current = Irp;
    KeReleaseSpinLock(&Edu->Lock, OldIrql);
    return TRUE;
}

SHARED NTSTATUS NTAPI DmaControlBy(PDEVICE_OBJECT Device, PIRP Irp, VOID (*Store)(PFDO Fdo, PVOID Bytes, ULONG Length))
{
    PEDU Edu = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Length = InputOf(Stack);
    NTSTATUS Status;

    if (!FdoBegin(&Edu->Fdo, Irp, &Status)) {
        return Status;
    }
    if (CodeOf(Stack) != IOCTL_EDU_STORE || Length == 0 || Length > MOST_BYTES) {
        return FdoEnd(&Edu->Fdo, Irp, STATUS_INVALID_PARAMETER, 0);
    }
    if (!DmaTake(Edu, Irp)) {
        return FdoEnd(&Edu->Fdo, Irp, STATUS_DEVICE_BUSY, 0);
    }
    Store(&Edu->Fdo, Irp->AssociatedIrp.SystemBuffer, Length);
    return FdoPend(&Edu->Fdo);
}

SHARED VOID DmaStore(PFDO Fdo, PVOID Bytes, ULONG Length)
{
    PDMA Dma = (PDMA)Fdo;

    RtlCopyMemory(Dma->Common, Bytes, Length);
    DmaBegin(Fdo, (ULONG64)Dma->CommonAddress.QuadPart, Length);
}

SHARED NTSTATUS NTAPI DmaControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    return DmaControlBy(Device, Irp, DmaStore);
}

static NTSTATUS NTAPI DmaAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FdoAdd(Driver, Pdo, sizeof(DMA), DO_BUFFERED_IO);
}

SHARED VOID DmaDriver(PDRIVER_OBJECT Driver)
{
    EduDriver(Driver);
    Driver->DriverExtension->AddDevice = DmaAddDevice;
}

#endif

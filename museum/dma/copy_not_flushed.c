/*
 * The educational device's buffer, read by DMA into the request's own pages (packet-based: an adapter channel, and map registers).
 *
 * The bug: when the transfer has ended the map registers are freed without FlushAdapterBuffers. Where the pages lie beyond the 28 bits that the card reaches, it has
 * written to a copy, and what it has read never arrives. It shows with the first transfer, and on a machine with little memory never.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: dma-not-flushed
 * Needs: ioctl
 */
#include "../include/edu_dma.h"

#define IOCTL_EDU_FETCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x812, METHOD_OUT_DIRECT, FILE_ANY_ACCESS)

typedef struct _FETCH {
    DMA Dma;
    PVOID Base; /* of the map registers; NULL: there are none */
    PMDL Pages;
    ULONG Bytes;
} FETCH, *PFETCH;

static PUCHAR Place(PFETCH Fetch)
{
    return MmGetMdlVirtualAddress(Fetch->Pages);
}

/* The map registers, once the card is done with them; at DISPATCH_LEVEL. */
static VOID Free(PFETCH Fetch)
{
    PDMA_ADAPTER Adapter = Fetch->Dma.Adapter;
    PVOID Base = InterlockedExchangePointer(&Fetch->Base, NULL);

    if (Base == NULL) {
        return;
    }
#ifdef FIXED
    Adapter->DmaOperations->FlushAdapterBuffers(Adapter, Fetch->Pages, Base, Place(Fetch), Fetch->Bytes, FALSE);
#endif
    Adapter->DmaOperations->FreeMapRegisters(Adapter, Base, ADDRESS_AND_SIZE_TO_SPAN_PAGES(Place(Fetch), MmGetMdlByteCount(Fetch->Pages)));
}

static IO_ALLOCATION_ACTION NTAPI Ready(PDEVICE_OBJECT Device, PIRP Irp, PVOID Base, PVOID Context)
{
    PFETCH Fetch = Context;
    PFDO Fdo = Context;
    PDMA_ADAPTER Adapter = Fetch->Dma.Adapter;
    PHYSICAL_ADDRESS Address;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    Fetch->Bytes = MmGetMdlByteCount(Fetch->Pages);
    Address = Adapter->DmaOperations->MapTransfer(Adapter, Fetch->Pages, Base, Place(Fetch), &Fetch->Bytes, FALSE);
    Fetch->Base = Base;
    WriteWide(Fdo, EDU_DMA_SOURCE, EDU_BUFFER);
    WriteWide(Fdo, EDU_DMA_DESTINATION, (ULONG64)Address.QuadPart);
    WriteWide(Fdo, EDU_DMA_COUNT, Fetch->Bytes);
    WriteWide(Fdo, EDU_DMA_COMMAND, EDU_DMA_START | EDU_DMA_TO_MEMORY | EDU_DMA_INTERRUPT);
    return DeallocateObjectKeepRegisters;
}

/* The card has no more to do. */
static VOID End(PFETCH Fetch, NTSTATUS Status)
{
    PIRP Irp = EduTakeCurrent(&Fetch->Dma.Edu);
    ULONG Bytes = NT_SUCCESS(Status) ? Fetch->Bytes : 0;

    KeSetEvent(&Fetch->Dma.Idle, IO_NO_INCREMENT, FALSE);
    InterlockedExchange(&Fetch->Dma.Transferring, FALSE); /* from here on another request may clear the event */
    if (Irp != NULL) {
        FdoEndPended(&Fetch->Dma.Edu.Fdo, Irp, Status, Bytes);
    }
}

static VOID NTAPI Dpc(PKDPC Queued, PVOID Context, PVOID One, PVOID Two)
{
    PFETCH Fetch = Context;

    UNREFERENCED_PARAMETER(Queued);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    if (InterlockedExchange(&Fetch->Dma.Edu.Pending, 0) & EDU_TRANSFERRED) {
        Free(Fetch);
        End(Fetch, STATUS_SUCCESS);
    }
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFETCH Fetch = Device->DeviceExtension;
    PEDU Edu = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Pages;
    NTSTATUS Status;
    KIRQL OldIrql;

    if (!FdoBegin(&Edu->Fdo, Irp, &Status)) {
        return Status;
    }
    if (CodeOf(Stack) != IOCTL_EDU_FETCH || Irp->MdlAddress == NULL || OutputOf(Stack) > MOST_BYTES) {
        return FdoEnd(&Edu->Fdo, Irp, STATUS_INVALID_PARAMETER, 0);
    }
    if (!DmaTake(Edu, Irp)) {
        return FdoEnd(&Edu->Fdo, Irp, STATUS_DEVICE_BUSY, 0);
    }
    Fetch->Pages = Irp->MdlAddress;
    Pages = ADDRESS_AND_SIZE_TO_SPAN_PAGES(Place(Fetch), MmGetMdlByteCount(Fetch->Pages));
    KeRaiseIrql(DISPATCH_LEVEL, &OldIrql);
    Status = Fetch->Dma.Adapter->DmaOperations->AllocateAdapterChannel(Fetch->Dma.Adapter, Device, Pages, Ready, Fetch);
    KeLowerIrql(OldIrql);
    if (!NT_SUCCESS(Status)) {
        End(Fetch, Status);
    }
    return FdoPend(&Edu->Fdo);
}

static NTSTATUS Add(PFDO Fdo)
{
    NTSTATUS Status = DmaAdd(Fdo);

    KeInitializeDpc(&((PEDU)Fdo)->Dpc, Dpc, Fdo);
    return Status;
}

/* What a card that has gone has left. */
static VOID Flush(PFDO Fdo)
{
    KIRQL OldIrql;

    DmaWaitIdle(Fdo);
    KeRaiseIrql(DISPATCH_LEVEL, &OldIrql);
    Free((PFETCH)Fdo);
    KeLowerIrql(OldIrql);
    EduFlush(Fdo);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FdoAdd(Driver, Pdo, sizeof(FETCH), DO_DIRECT_IO);
}

static const GUID FdoInterface = FDO_GUID(0x10c3c00e);
static const HOOKS Hooks = {.Add = Add, .Start = DmaStart, .Flush = Flush, .Stop = DmaStop, .PowerDown = EduPowerDown, .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DmaDriver(Driver);
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    return STATUS_SUCCESS;
}

/* Stories of adapters as they are gotten, and of common buffers. */
#ifndef DMA_ADAPTERS_H
#define DMA_ADAPTERS_H

#include "dma.h"

/* GUID_BUS_INTERFACE_STANDARD */
static const GUID BusInterfaceStandard = {0x496B8280, 0x6F25, 0x11D0, {0xBE, 0xAF, 0x08, 0x00, 0x2B, 0xE2, 0x09, 0x2F}};

static ULONG AskBus(BUS_INTERFACE_STANDARD *Bus)
{
    PDEVICE_OBJECT Top = IoGetAttachedDeviceReference(Pdo);
    IO_STATUS_BLOCK Result = {{0}, 0};
    KEVENT Done;
    PIRP Irp;
    PIO_STACK_LOCATION Next;
    NTSTATUS Status;

    KeInitializeEvent(&Done, NotificationEvent, FALSE);
    Irp = IoBuildSynchronousFsdRequest(IRP_MJ_PNP, Top, NULL, 0, NULL, &Done, &Result);
    CHECK(Irp != NULL);
    Irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
    Next = IoGetNextIrpStackLocation(Irp);
    Next->MinorFunction = IRP_MN_QUERY_INTERFACE;
    Next->Parameters.QueryInterface.InterfaceType = &BusInterfaceStandard;
    Next->Parameters.QueryInterface.Size = sizeof(*Bus);
    Next->Parameters.QueryInterface.Version = 1;
    Next->Parameters.QueryInterface.Interface = (PINTERFACE)Bus;
    Status = IoCallDriver(Top, Irp);
    if (Status == STATUS_PENDING) {
        KeWaitForSingleObject(&Done, Executive, KernelMode, FALSE, NULL);
        Status = Result.Status;
    }
    ObDereferenceObject(Top);
    CHECK(NT_SUCCESS(Status));
    return 0;
}

static ULONG Adapters(VOID)
{
    static const ULONG Sizes[] = {0x68, 0x68, 0x80, 0x140};
    BUS_INTERFACE_STANDARD Bus;
    PDMA_ADAPTER Adapter;
    DEVICE_DESCRIPTION Description;
    ULONG Version, Count;

    for (Version = 0; Version < RTL_NUMBER_OF(Sizes); Version++) {
        SETUP Setup = {Version, 32, TRUE, 0x10000, 0};

        Adapter = Get(Pdo, &Setup, &Count);
        CHECK(Adapter != NULL && Adapter->Version == 1 && Adapter->Size >= sizeof(DMA_ADAPTER));
        CHECK(Adapter->DmaOperations->Size == Sizes[Version] && Count == 17);
        CHECK((Version >= 2) == (Adapter->DmaOperations->Size > FIELD_OFFSET(DMA_OPERATIONS, CalculateScatterGatherList)));
        CHECK(Adapter->DmaOperations->GetDmaAlignment(Adapter) == 1);
        CHECK(Adapter->DmaOperations->ReadDmaCounter(Adapter) == 0);
        Adapter->DmaOperations->PutDmaAdapter(Adapter);
    }
    CHECK_ALL(AskBus(&Bus));
    RtlZeroMemory(&Description, sizeof(Description));
    Description.Version = DEVICE_DESCRIPTION_VERSION1;
    Description.Master = Description.Dma32BitAddresses = TRUE;
    Description.MaximumLength = PAGE_SIZE;
    Adapter = Bus.GetDmaAdapter(Bus.Context, &Description, &Count);
    CHECK(Adapter != NULL && Count == 2 && Adapter->DmaOperations->Size == 0x68);
    Adapter->DmaOperations->PutDmaAdapter(Adapter);
    Bus.InterfaceDereference(Bus.Context);
    return 0;
}

static ULONG CommonBuffers(VOID)
{
    static const ULONG Widths[] = {24, 28, 32, 64};
    ULONG Index, Each, Count;

    for (Index = 0; Index < RTL_NUMBER_OF(Widths); Index++) {
        SETUP Setup = {Widths[Index] == 28 ? 3 : 2, Widths[Index], TRUE, 0x10000, 0};
        PDMA_ADAPTER Adapter = Get(Pdo, &Setup, &Count);
        PHYSICAL_ADDRESS Logical[3];
        PUCHAR Buffer[3];

        CHECK(Adapter != NULL);
        for (Each = 0; Each < 3; Each++) {
            ULONG Length = Each * PAGE_SIZE + 100;
            PUCHAR Byte;

            Buffer[Each] = Adapter->DmaOperations->AllocateCommonBuffer(Adapter, Length, &Logical[Each], Each & 1);
            CHECK(Buffer[Each] != NULL && Logical[Each].QuadPart != 0);
            CHECK(Widths[Index] == 64 || (Logical[Each].QuadPart + Length - 1) >> Widths[Index] == 0);
            for (Byte = Buffer[Each]; Byte < Buffer[Each] + Length; Byte++) {
                *Byte = (UCHAR)Each;
            }
        }
        CHECK(Logical[0].QuadPart != Logical[1].QuadPart && Logical[1].QuadPart != Logical[2].QuadPart);
        for (Each = 0; Each < 3; Each++) {
            CHECK(Buffer[Each][0] == Each && Buffer[Each][Each * PAGE_SIZE + 99] == Each);
            Adapter->DmaOperations->FreeCommonBuffer(Adapter, Each * PAGE_SIZE + 100, Logical[Each], Buffer[Each], Each & 1);
        }
        Adapter->DmaOperations->PutDmaAdapter(Adapter);
    }
    return 0;
}

/* HalGetAdapter, and the other names of Windows NT 4 that transfer.h does not call. */
static ULONG OldNames(VOID)
{
    DEVICE_DESCRIPTION Description;
    PHYSICAL_ADDRESS Logical;
    PDMA_ADAPTER Adapter;
    PVOID Buffer;
    ULONG Count;

    RtlZeroMemory(&Description, sizeof(Description));
    Description.Version = DEVICE_DESCRIPTION_VERSION;
    Description.Master = Description.Dma32BitAddresses = TRUE;
    Description.InterfaceType = PCIBus;
    Description.MaximumLength = 3 * PAGE_SIZE;
    Adapter = OldGetAdapter(&Description, &Count);
    CHECK(Adapter != NULL && Count == 4 && OldReadDmaCounter(Adapter) == 0);
    Buffer = OldAllocateCommonBuffer(Adapter, 5000, &Logical, FALSE);
    CHECK(Buffer != NULL && Logical.HighPart == 0);
    RtlZeroMemory(Buffer, 5000);
    OldFreeCommonBuffer(Adapter, 5000, Logical, Buffer, FALSE);
    return 0;
}

#endif

/*
 * What the drivers of cards that are bus masters share: the adapter, and a page that driver and card both see. Included behind function.h.
 * Pages: IoGetDmaAdapter routine, Using Common-Buffer Bus-Master DMA.
 */
#ifndef BUS_MASTER_H
#define BUS_MASTER_H

/* A page of both, and the adapter that it is mapped by; nothing while the device is not started. */
typedef struct _SHARED_PAGE {
    PDMA_ADAPTER Adapter;
    volatile ULONG *Words;
    PHYSICAL_ADDRESS Address; /* as the card sees it */
} SHARED_PAGE, *PSHARED_PAGE;

/* The adapter of a card that reaches all memory and knows scatter/gather; NULL if there is none. */
static PDMA_ADAPTER MasterAdapter(PFUNCTION Function, ULONG MaximumLength)
{
    DEVICE_DESCRIPTION Description;
    ULONG MapRegisters;

    RtlZeroMemory(&Description, sizeof(Description));
    Description.Version = DEVICE_DESCRIPTION_VERSION2;
    Description.Master = Description.ScatterGather = Description.Dma32BitAddresses = Description.Dma64BitAddresses = TRUE;
    Description.InterfaceType = PCIBus;
    Description.MaximumLength = MaximumLength;
    return IoGetDmaAdapter(Function->Pdo, &Description, &MapRegisters);
}

#ifndef MASTER_WITHOUT_PAGE
static VOID FreeSharedPage(PSHARED_PAGE Page)
{
    if (Page->Adapter == NULL) {
        return;
    }
    if (Page->Words != NULL) {
        Page->Adapter->DmaOperations->FreeCommonBuffer(Page->Adapter, PAGE_SIZE, Page->Address, (PVOID)Page->Words, FALSE);
        Page->Words = NULL;
    }
    Page->Adapter->DmaOperations->PutDmaAdapter(Page->Adapter);
    Page->Adapter = NULL;
}

static NTSTATUS MakeSharedPage(PFUNCTION Function, PSHARED_PAGE Page)
{
    Page->Adapter = MasterAdapter(Function, PAGE_SIZE);
    if (Page->Adapter == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Page->Words = Page->Adapter->DmaOperations->AllocateCommonBuffer(Page->Adapter, PAGE_SIZE, &Page->Address, FALSE);
    if (Page->Words == NULL) {
        FreeSharedPage(Page);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    return STATUS_SUCCESS;
}
#endif

#endif

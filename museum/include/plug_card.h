/*
 * card.h: a PCI card's first memory window and its interrupt line. The line is connected from CardTake to CardGive; the service
 * routine is called while Live only, which changes under the interrupt's lock, so a neighbour on a shared line never makes
 * the driver touch a card that is asleep, gone or not set up yet.
 */
typedef struct _CARD CARD;

struct _CARD {
    PUCHAR Regs;
    ULONG Span;
    PKINTERRUPT Line;
    BOOLEAN (*Serve)(PVOID Owner);
    PVOID Owner;
    BOOLEAN Live;
};

static inline ULONG CardRead(CARD *Card, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(Card->Regs + Offset));
}

static inline VOID CardWrite(CARD *Card, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Card->Regs + Offset), Value);
}

static inline BOOLEAN NTAPI CardInterrupt(PKINTERRUPT Interrupt, PVOID Context)
{
    CARD *card = Context;

    UNREFERENCED_PARAMETER(Interrupt);
    return card->Live ? card->Serve(card->Owner) : FALSE;
}

static inline BOOLEAN NTAPI CardLiveOn(PVOID Context)
{
    ((CARD *)Context)->Live = TRUE;
    return TRUE;
}

static inline BOOLEAN NTAPI CardLiveOff(PVOID Context)
{
    ((CARD *)Context)->Live = FALSE;
    return TRUE;
}

static inline VOID CardLive(CARD *Card, BOOLEAN Live)
{
    KeSynchronizeExecution(Card->Line, Live ? CardLiveOn : CardLiveOff, Card);
}

static inline VOID CardUnmap(CARD *Card)
{
    MmUnmapIoSpace(Card->Regs, Card->Span);
    Card->Regs = NULL;
}

/* Maps the first memory window, of Least bytes at least. */
static inline NTSTATUS CardMap(CARD *Card, PCM_RESOURCE_LIST Translated, ULONG Least)
{
    PCM_PARTIAL_RESOURCE_LIST list;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d;
    ULONG i;

    if (Translated == NULL || Translated->Count == 0)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    list = &Translated->List[0].PartialResourceList;
    for (i = 0, d = list->PartialDescriptors; i < list->Count; i++, d++) {
        if (d->Type != CmResourceTypeMemory)
            continue;
        if (d->u.Memory.Length < Least)
            return STATUS_DEVICE_CONFIGURATION_ERROR;
        Card->Span = d->u.Memory.Length;
        Card->Regs = MmMapIoSpace(d->u.Memory.Start, Card->Span, MmNonCached);
        return Card->Regs != NULL ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
    }
    return STATUS_DEVICE_CONFIGURATION_ERROR;
}

/* Connects the line; the card is mapped, and does not interrupt. */
static inline NTSTATUS CardConnect(CARD *Card, PCM_RESOURCE_LIST Translated, BOOLEAN (*Serve)(PVOID), PVOID Owner)
{
    PCM_PARTIAL_RESOURCE_LIST list = &Translated->List[0].PartialResourceList;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d;
    ULONG i;

    Card->Serve = Serve;
    Card->Owner = Owner;
    Card->Live = FALSE;
    for (i = 0, d = list->PartialDescriptors; i < list->Count; i++, d++) {
        if (d->Type == CmResourceTypeInterrupt)
            return IoConnectInterrupt(&Card->Line, CardInterrupt, Card, NULL, d->u.Interrupt.Vector, (KIRQL)d->u.Interrupt.Level,
                                      (KIRQL)d->u.Interrupt.Level,
                                      (d->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive,
                                      d->ShareDisposition == CmResourceShareShared, d->u.Interrupt.Affinity, FALSE);
    }
    return STATUS_DEVICE_CONFIGURATION_ERROR;
}

static inline VOID CardDisconnect(CARD *Card)
{
    IoDisconnectInterrupt(Card->Line);
    Card->Line = NULL;
}

/*
 * An adapter for a bus master with Width address lines. Windows before 8 has no word for fewer than 32, so what it gives is
 * not sure to be in reach: a driver looks at each address (CardReaches).
 */
typedef struct _CARD_DMA {
    DEVICE_DESCRIPTION Old;
    ULONG DmaAddressWidth;
    ULONG DmaControllerInstance;
    ULONG DmaRequestLine;
    PHYSICAL_ADDRESS DeviceAddress;
} CARD_DMA;

static inline PDMA_ADAPTER CardAdapter(PDEVICE_OBJECT Pdo, ULONG Width, ULONG Length, ULONG *Registers)
{
    CARD_DMA dma;
    PDMA_ADAPTER adapter;

    RtlZeroMemory(&dma, sizeof(dma));
    dma.Old.Version = 3;
    dma.Old.Master = TRUE;
    dma.Old.ScatterGather = TRUE;
    dma.Old.Dma32BitAddresses = TRUE;
    dma.Old.InterfaceType = PCIBus;
    dma.Old.MaximumLength = Length;
    dma.DmaAddressWidth = Width;
    adapter = IoGetDmaAdapter(Pdo, &dma.Old, Registers);
    if (adapter == NULL) {
        dma.Old.Version = DEVICE_DESCRIPTION_VERSION;
        adapter = IoGetDmaAdapter(Pdo, &dma.Old, Registers);
    }
    return adapter;
}

static inline BOOLEAN CardReaches(PHYSICAL_ADDRESS Address, ULONG Length, ULONG Width)
{
    return (ULONGLONG)Address.QuadPart + Length <= 1ULL << Width;
}
